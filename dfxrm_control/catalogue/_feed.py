"""What ended goes into the catalogue, from the journals."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfxrm_control.catalogue._ledger import Ledger
from dfxrm_control.catalogue._opening import CatalogueError, opened
from dfxrm_control.catalogue._place import Place
from dfxrm_control.errors import FileFormatError
from dfxrm_control.records import read_documents
from dfxrm_control.records.journal import is_being_written

__all__ = ["Fed", "catch_up", "data_folders", "feed", "forget_faults", "left_out", "pending"]

LOOK_EVERY_S = 2.0
IDLE_S = 20.0
QUIET_S = 10.0
"""How long a journal without an end must have stayed as it is, where locks cannot tell whether its run goes on."""
AGAIN_S = (2.0, 60.0)
"""First and longest time until a catalogue that did not answer is asked again."""
LONGEST_FAULT = 500
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fed:
    """What came of putting runs into a catalogue.

    Attributes
    ----------
    taken : list of Path
        Journals that it took.
    refused : dict of Path to str
        Why it did not take others.
    """

    taken: list[Path]
    refused: dict[Path, str]


def pending(place: Place) -> list[Path]:
    """Return the journals of runs that have ended and are not in the catalogue, oldest first."""
    known = Ledger(place).known()
    return [journal for journal in _journals(place) if journal.name not in known and not _goes_on(journal)]


def left_out(place: Place) -> tuple[int, dict[str, str]]:
    """Return how many runs wait to be put into a catalogue, and why it did not take others, by journal."""
    refused = {journal: fault for journal, fault in Ledger(place).known().items() if fault is not None}
    return len(pending(place)), refused


def forget_faults(place: Place) -> None:
    """Let what a catalogue did not take be tried again."""
    Ledger(place).forget_faults()


def data_folders(place: Place) -> list[str]:
    """Return every folder that frames went to, of the runs of a catalogue."""
    return Ledger(place).data_folders(place.data)


def catch_up(place: Place, client: Any, tell: Callable[[str], None] = _log.info) -> Fed:
    """Put everything that has ended into a catalogue that is open.

    Raises
    ------
    CatalogueError
        When the catalogue ceases to answer; what it took before is noted.
    """
    ledger, fed = Ledger(place), Fed([], {})
    for journal in pending(place):
        try:
            documents = list(read_documents(journal))
        except FileFormatError as error:
            fault: str | None = str(error)
        else:
            if documents[-1][0] != "stop" and time.time() - journal.stat().st_mtime < QUIET_S:
                continue
            fault = _put(place, client, _whole(documents))
        ledger.note(journal, fault)
        if fault is None:
            fed.taken.append(journal)
            tell(f"{journal.name} is in {place.shown}")
        else:
            fed.refused[journal] = fault
            tell(f"{journal.name} is not in {place.shown}: {fault}")
    return fed


def feed(place: Place, parent: int, idle_s: float = IDLE_S) -> None:
    """Put into a catalogue what ends, until nothing has ended for a while.

    Parameters
    ----------
    place : Place
        The catalogue.
    parent : int
        Number of the process whose runs these are: a catalogue that does not answer is asked as long as it lives.
    idle_s : float
        How long nothing must have ended, s.
    """
    with _only_one(place, parent) as mine:
        if not mine:
            return
        again_s, last = AGAIN_S[0], time.monotonic()
        while time.monotonic() < last + idle_s:
            if pending(place):
                try:
                    last, again_s = _feed_while_any(place, idle_s), AGAIN_S[0]
                    continue
                except CatalogueError as error:
                    _log.warning("%s; it is asked again in %g s", error, again_s)
                    if not _lives(parent):
                        return
                    last = time.monotonic()
                    time.sleep(again_s)
                    again_s = min(2 * again_s, AGAIN_S[1])
                    continue
            time.sleep(LOOK_EVERY_S)


def _feed_while_any(place: Place, idle_s: float) -> float:
    """Keep a catalogue open while there is something to put in; return when that was last."""
    with opened(place, data_folders(place)) as client:
        last = time.monotonic()
        while time.monotonic() < last + idle_s:
            fed = catch_up(place, client)
            if fed.taken or fed.refused:
                last = time.monotonic()
            time.sleep(LOOK_EVERY_S)
    return last


# -- inside -----------------------------------------------------------------------------------------------------------


def _journals(place: Place) -> Iterator[Path]:
    times: dict[Path, int] = {}
    for path in place.journals.glob("*.jsonl"):
        try:
            times[path] = path.stat().st_mtime_ns
        except OSError:
            continue
    yield from sorted(times, key=lambda path: (times[path], path.name))


def _goes_on(journal: Path) -> bool:
    try:
        return is_being_written(journal, grace_s=0.0)
    except OSError:
        return True  # it is gone, or cannot be read now


def _put(place: Place, client: Any, documents: list[tuple[str, Mapping[str, Any]]]) -> str | None:
    """Put one run in, anew where a part of it is there; return why the catalogue does not take it, or None."""
    import httpx
    from bluesky_tiled_plugins import TiledWriter

    uid = str(documents[0][1]["uid"])
    try:
        if uid in client:  # its last writer was killed, or another folder has the same journal
            client.delete_contents([uid], recursive=True, external_only=False)
        writer = TiledWriter(client)
        for name, document in documents:
            writer(name, document)
    except (httpx.TransportError, OSError) as error:
        raise CatalogueError(f"{place.shown} does not answer: {error}") from error
    except Exception as error:
        if getattr(getattr(error, "response", None), "status_code", 400) >= 500:
            raise CatalogueError(f"{place.shown} fails: {error}") from error
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_FAULT]
    return None


def _whole(documents: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return documents that a catalogue can keep: with an end, and without numbers that JSON has not in metadata."""
    whole: list[tuple[str, Mapping[str, Any]]] = [
        (name, _finite(doc) if name in ("start", "descriptor", "stop") else doc) for name, doc in documents
    ]
    start = documents[0][1]
    if documents[-1][0] != "stop":
        end = {
            "uid": str(uuid.uuid5(uuid.NAMESPACE_OID, str(start["uid"]))),
            "run_start": start["uid"],
            "time": max(float(doc.get("time", 0.0)) for _, doc in documents),
            "exit_status": "fail",
            "reason": "cut short: its process ended without a word",
            "num_events": {},
        }
        whole.append(("stop", end))
    return whole


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


@contextmanager
def _only_one(place: Place, parent: int) -> Iterator[bool]:
    """Wait until no other process fills the catalogues of a folder; False where the parent ended before that."""
    place.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        lock = stack.enter_context((place.folder / "feeding.lock").open("w"))
        while True:
            lives = _lives(parent)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not lives:
                    break
                time.sleep(LOOK_EVERY_S)
            else:
                yield True
                return
    yield False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
