"""The log of a microscope: every command, every message to the RunEngine, and what was said, in files that rotate.

Whoever works with a configuration writes into the same files, line by line, from any number of processes; each line
is written before anything goes on, so that the last ones before a kill are there.
"""

from __future__ import annotations

import getpass
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dfxrm_control.config import DataConfig, MicroscopeConfig

__all__ = ["Logbook", "log_file", "roll", "typed"]

OURS = ("dfxrm_control", "devices", "plans", "simulators")
MESSAGES = "dfxrm_control.messages"
"""Logger of the messages to the RunEngine: they go to the log alone, not to what a user has set up for the others."""
THEIRS = ("bluesky", "ophyd", "py.warnings")
"""Loggers of others, of which warnings and errors are written."""
LONGEST_PART = 300
_MEGABYTE = 1e6
_log = logging.getLogger(__name__)
_messages = logging.getLogger(MESSAGES)
_messages.propagate = False
_messages.setLevel(logging.INFO)


def log_file(config: MicroscopeConfig) -> Path:
    """Return the file that is written now; older ones have ``.1``, ``.2`` ... behind its name."""
    return Path(config.data.journal_directory) / "log" / "dfxrm.log"


def typed(arguments: Sequence[str] | None = None) -> str:
    """Return the command line of this process, or another one of ours, as somebody could type it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]] if arguments is None else ["dfxrm", *arguments])


def roll(file: Path, data: DataConfig) -> None:
    """Let a file that a process writes its output to begin anew, and keep the last ones, when it has become too long.

    It is called before the process starts. A file that cannot be renamed stays as it is.
    """
    try:
        if file.stat().st_size < data.log_megabytes * _MEGABYTE:
            return
        rolling = RotatingFileHandler(file, backupCount=data.log_files, delay=True)
        rolling.doRollover()
        rolling.close()
    except OSError:
        return


class Logbook:
    """Writes the log of a microscope as long as it is open.

    A log that cannot be written is said once, on the standard error, and stops nothing.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope: its journal folder, and how long and how many the files may be.
    """

    def __init__(self, config: MicroscopeConfig) -> None:
        self.file = log_file(config)
        self._microscope = config.name
        self._handler = _handler(self.file, config.data)
        for name in (*OURS, MESSAGES, *THEIRS):
            logger = logging.getLogger(name)
            logger.addHandler(self._handler)
            if name in OURS:
                logger.setLevel(logging.INFO)
                if logging.lastResort is not None:  # warnings are shown as they would be without us
                    logger.addHandler(logging.lastResort)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write no more. Doing so twice is no error."""
        for name in (*OURS, MESSAGES, *THEIRS):
            logging.getLogger(name).removeHandler(self._handler)
        self._handler.close()

    def say(self, sentence: str) -> None:
        """Write what a user is told, or has typed."""
        _log.info("%s: %s", self._microscope, sentence)

    def message(self, message: Any) -> None:
        """Write one message to the RunEngine; meant as its ``msg_hook``."""
        parts = [message.command]
        if message.obj is not None:
            parts.append(getattr(message.obj, "name", None) or type(message.obj).__name__)
        parts += [_short(argument) for argument in message.args]
        parts += [f"{name}={_short(value)}" for name, value in message.kwargs.items() if value is not None]
        _messages.info("  %s", " ".join(parts))

    def document(self, name: str, doc: Mapping[str, Any]) -> None:
        """Write that a run begins or has ended; a RunEngine callback."""
        if name == "start":
            plan, parameters = doc.get("plan_name"), _short(dict(doc.get("plan_args") or {}))
            self.say(f"scan {doc.get('scan_id')} begins: {plan} {parameters} of {doc.get('sample')}, uid {doc['uid']}")
        elif name == "stop":
            why = f": {doc['reason']}" if doc.get("reason") else ""
            self.say(f"the scan has ended with {doc['exit_status']}{why}; points {dict(doc.get('num_events') or {})}")


def _handler(file: Path, data: DataConfig) -> logging.Handler:
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    class Handler(ConcurrentRotatingFileHandler):
        said = False

        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (named by logging)
            if not self.said:
                Handler.said = True
                error = sys.exc_info()[1]
                reason = getattr(error, "strerror", None) or error
                print(f"dfxrm: the log {file} cannot be written: {reason}; all else goes on", file=sys.stderr)

        def close(self) -> None:
            try:
                super().close()
            except OSError:  # a full disk, which was said already: what is left must not keep the lock file open
                self.stream = None
                super().close()

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = Handler(
            str(file),
            maxBytes=int(data.log_megabytes * _MEGABYTE),
            backupCount=data.log_files,
            encoding="utf-8",
            keep_file_open=True,
        )
    except OSError as error:
        reason = error.strerror or error
        print(f"dfxrm: the log {file} cannot be written: {reason}; all else goes on", file=sys.stderr)
        return logging.NullHandler()
    handler.setFormatter(
        _OneLine(f"%(asctime)s.%(msecs)03d %(levelname)-7s {_user()} %(process)d  %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    return handler


class _OneLine(logging.Formatter):
    """A record is one line, also where it brings a traceback along."""

    def format(self, record: logging.LogRecord) -> str:
        return " | ".join(part for part in super().format(record).splitlines() if part.strip())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _short(value: Any) -> str:
    text = getattr(value, "name", None) if hasattr(value, "describe") else None
    text = str(text) if text else repr(value)
    return text if len(text) <= LONGEST_PART else f"{text[: LONGEST_PART - 4]} ..."
