"""The line that every command leaves in the log of the microscope it was about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dfxrm_control.config import MicroscopeConfig

__all__ = ["about", "log_command"]

_ABOUT: list[MicroscopeConfig] = []


def about(config: MicroscopeConfig) -> MicroscopeConfig:
    """Note which microscope the command is about, and return it."""
    _ABOUT[:] = [config]
    return config


def log_command(arguments: Sequence[str], code: int, sentence: str = "") -> None:
    """Write a command that has ended into the log; only where the microscope has a journal folder, and none is made."""
    if not _ABOUT or not _ABOUT[0].data.journal_directory.is_dir():
        return
    from dfxrm_control.logbook import Logbook, typed

    with Logbook(_ABOUT[0]) as logbook:
        logbook.say(f"command: {typed(arguments)} -> exit code {code}" + (f": {sentence}" if sentence else ""))
    _ABOUT.clear()
