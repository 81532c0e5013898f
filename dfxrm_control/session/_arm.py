"""What an alignment declared of the arm, from the session that declared it to all later ones.

The motors keep their positions when a process ends, and so does the arm its alignment: without it, `two_theta` and all
that works out what a camera sees would count from an ideal arm again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.session._store import DeclaredArm, SessionStore

__all__ = ["ZERO", "forget_arm", "kept_arm", "restore_arm", "store_file"]

ZERO = "two_theta_zero"
"""Channel by which the arm is declared to be at an angle."""


def store_file(config: MicroscopeConfig) -> Path:
    """Return the file in which sessions of a configuration keep what outlives them."""
    return Path(config.data.journal_directory) / "session.sqlite"


def kept_arm(config: MicroscopeConfig) -> DeclaredArm | None:
    """Return what was last declared of the arm of a configuration; nothing is written where there is no store yet.

    Raises
    ------
    RecordError
        When the store cannot be read.
    """
    file = store_file(config)
    return SessionStore(file).declared_arm(config.name) if file.is_file() else None


def forget_arm(config: MicroscopeConfig) -> None:
    """Drop what was declared of the arm of a configuration; raises RecordError when the store cannot be written."""
    if kept_arm(config) is not None:
        SessionStore(store_file(config)).forget_arm(config.name)


def restore_arm(
    channels: Mapping[str, Any],
    declared: DeclaredArm | None,
    keep: Callable[[float, dict[str, float]], None] | None = None,
) -> None:
    """Let the arm count from what was declared, and tell what it is declared to be from now on.

    Parameters
    ----------
    channels : mapping
        Channels by logical name; without an arm that can be declared nothing happens.
    declared : DeclaredArm or None
        None where nothing was.
    keep : callable, optional
        Called with angle and offsets of each later declaration.
    """
    zero = channels.get(ZERO)
    if zero is None or not hasattr(zero, "restore"):
        return
    if declared is not None:
        zero.restore(declared.two_theta_deg, declared.offsets)
    zero.keep = keep
