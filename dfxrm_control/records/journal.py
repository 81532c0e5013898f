"""The journal: every document of a run, one JSON line each, on disk before anybody else sees it."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import enum
import errno
import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from dfxrm_control.errors import FileFormatError, RecordError

__all__ = ["Journal", "decode_document", "encode_document", "is_being_written", "read_documents"]

_NOT_FINITE = "$float"
_RESERVE_STEP = 1 << 20
_STOP_RESERVE = 1 << 16
_LOCK_GRACE_S = 2.0
_FALLOC_FL_KEEP_SIZE = 1


def _plain(value: Any) -> Any:
    """Return a value as JSON types; NaN and infinities become ``{"$float": "nan"}``."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else {_NOT_FINITE: repr(number)}
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [_plain(item) for item in sorted(value, key=repr)]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__}")


def encode_document(name: str, doc: Mapping[str, Any]) -> bytes:
    """Return one document as one line of JSON.

    Floats come back exactly (shortest text that does); NaN and infinities are written as ``{"$float": "nan"}``; numpy
    scalars and arrays become numbers and lists.

    Raises
    ------
    RecordError
        When the document holds something that is neither number, text, list nor mapping of those.
    """
    try:
        # Nearly every document is plain JSON already, and the C encoder is ten times as fast as the walk below.
        text = json.dumps([name, doc], allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):
        text = json.dumps([name, _convert(name, doc)], allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _convert(name: str, doc: Mapping[str, Any]) -> dict[str, Any]:
    plain = {}
    for key, value in doc.items():
        try:
            plain[str(key)] = _plain(value)
        except (TypeError, RecursionError) as error:
            raise RecordError(
                f"{key!r} of the {name} document cannot be recorded: it holds {error}, and only numbers, text, lists "
                "and mappings of them can"
            ) from error
    return plain


def _object(pairs: dict[str, Any]) -> Any:
    if len(pairs) == 1 and isinstance(text := pairs.get(_NOT_FINITE), str):
        return float(text)
    return pairs


def decode_document(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return the name and the document of one line; the reverse of `encode_document`.

    Raises
    ------
    ValueError
        When the line is no such line.
    """
    content = json.loads(line.decode("utf-8", "surrogatepass"), object_hook=_object)
    if not (
        isinstance(content, list) and len(content) == 2 and isinstance(content[0], str) and isinstance(content[1], dict)
    ):
        raise ValueError("not a pair of name and document")
    return content[0], content[1]


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return library


def _reserve(descriptor: int, start: int, length: int) -> bool:
    """Reserve disk blocks beyond the end of a file without making it longer; False where the file system cannot."""
    if _libc().fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, start, length) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))


class Journal:
    """The first consumer of a run's documents: a bluesky callback that appends each to a file.

    Each document is written by one ``write`` (it survives the death of the process) and synced to disk once per event
    and at the end (it survives a power cut). Disk space is reserved ahead, so that a full disk shows *before* a
    document is written, and the stop document still finds room.

    Parameters
    ----------
    path : Path
        File to make; it must not exist.

    Raises
    ------
    RecordError
        When the file cannot be made or a document cannot be written. Raised in a RunEngine, it ends the plan: a run
        that cannot be recorded is not worth its beam time.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._end = 0
        self._reserved = 0
        self._can_reserve = True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor: int | None = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644
            )
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sync_name(self.path)
        except OSError as error:
            raise RecordError(f"journal {self.path} cannot be written: {error.strerror}") from error

    @property
    def closed(self) -> bool:
        """Whether the stop document was written, or `close` called."""
        return self._descriptor is None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Append one document; close the journal after a stop document."""
        line = encode_document(name, doc)
        with self._lock:
            if self._descriptor is None:
                raise RecordError(f"journal {self.path} is closed: a {name} document came after the end of its run")
            try:
                if name != "stop":
                    self._make_room(len(line))
                self._write(line)
                if name in ("event", "event_page", "stop"):
                    os.fdatasync(self._descriptor)
            except OSError as error:
                raise RecordError(f"journal {self.path} cannot be written: {error.strerror}") from error
            finally:
                if name == "stop":
                    self._close()

    def close(self) -> None:
        """Close the file without a stop document. Doing so twice is no error."""
        with self._lock:
            self._close()

    def _make_room(self, length: int) -> None:
        if self._can_reserve and self._end + length + _STOP_RESERVE > self._reserved:
            ahead = self._end + length + _STOP_RESERVE
            try:
                self._can_reserve = _reserve(self._file(), self._reserved, ahead + _RESERVE_STEP - self._reserved)
                self._reserved = ahead + _RESERVE_STEP
            except OSError:
                # nearly full: the whole step does not fit, this document and the stop document may
                _reserve(self._file(), self._reserved, ahead - self._reserved)
                self._reserved = ahead

    def _write(self, line: bytes) -> None:
        done = 0
        try:
            while done < len(line):
                done += os.write(self._file(), line[done:])
        except OSError:
            # Half a document at the end would make what follows unreadable.
            if done:
                os.ftruncate(self._file(), self._end)
                os.lseek(self._file(), self._end, os.SEEK_SET)
            raise
        self._end += done

    def _file(self) -> int:
        assert self._descriptor is not None
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.ftruncate(descriptor, self._end)  # gives back what was reserved
        finally:
            os.close(descriptor)


def _sync_name(path: Path) -> None:
    """Make a new file's name in its folder survive a power cut."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_being_written(path: Path, grace_s: float = _LOCK_GRACE_S) -> bool:
    """Return whether a living process writes a journal; its lock ends with it, however it dies.

    A process that died while it was starting another leaves the lock to that one until it has started, so a lock is
    only believed when it stays for ``grace_s``, in s.
    """
    deadline = time.monotonic() + grace_s
    with Path(path).open("rb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return True
                time.sleep(0.05)
            except OSError:  # a file system without locks
                return False
            else:
                return False


def read_documents(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents of a journal in order; a last line that was cut short is left out.

    Raises
    ------
    FileFormatError
        When the file cannot be read, is no journal, or is damaged before its last line.
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    if number == 1:
                        raise FileFormatError(f"{path} is no journal of a run: it has no start document")
                    return
                try:
                    name, doc = decode_document(line)
                except ValueError as error:
                    if number > 1 and not file.read(1):
                        return
                    what = "is no journal of a run" if number == 1 else "is damaged"
                    raise FileFormatError(f"{path} {what}: line {number} is {error}") from error
                if number == 1 and name != "start":
                    raise FileFormatError(f"{path} is no journal of a run: it begins with a {name} document")
                yield name, doc
    except OSError as error:
        raise FileFormatError(f"journal {path} cannot be read: {error.strerror}") from error
