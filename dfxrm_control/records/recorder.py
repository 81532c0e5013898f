"""The recorder: the RunEngine callback that keeps the record of every run."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfxrm_control.errors import DfxrmError, FileFormatError, RecordError
from dfxrm_control.records._snapshots import Snapshots
from dfxrm_control.records.frames import close_frame_files, is_closed
from dfxrm_control.records.journal import Journal
from dfxrm_control.records.master import FinishedLines, write_master
from dfxrm_control.records.run import FrameFile, Run

__all__ = ["Recorder"]

_log = logging.getLogger(__name__)

_FRAMES_FOLDER = "scan0001"
_POLL_S = 0.1
_CLOSING_TIMEOUT_S = 5.0
_FINAL_TIMEOUT_S = 120.0
_SAMPLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")


class Recorder:
    """Keeps the record of each run: the journal, the run's folder, and the HDF5 master.

    Subscribe it first (``RE.subscribe(recorder)``). The journal is written in the RunEngine's thread before anything
    else and its failure ends the plan; all the rest happens in a thread of its own, which can neither stop nor slow a
    plan: what goes wrong there is logged, and the master can be rebuilt from the journal and the frames at any time.

    ``<data>/<sample>/<sample>_<scan>/`` holds the master ``<sample>_<scan>.h5``, the frame files in ``scan0001/``, and
    the journal (a link to it while the run goes on, a copy once it is over).

    Parameters
    ----------
    data_directory : Path
        Where the samples' folders are.
    journal_directory : Path
        Where journals are: a local disk, not the one the frames go to.

    Raises
    ------
    RecordError
        From a run's start document when its folder exists already or cannot be made, and from any document that cannot
        be written to the journal.
    """

    def __init__(self, data_directory: Path, journal_directory: Path) -> None:
        self.data_directory = Path(data_directory).absolute()
        self.journal_directory = Path(journal_directory).absolute()
        self._runs: dict[str, _OpenRun] = {}
        self._owner: dict[str, str] = {}
        self._last: _OpenRun | None = None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Record one document."""
        uid = self._run_of(name, doc)
        if name == "start":
            self._runs[uid] = self._last = _OpenRun.create(self.data_directory, self.journal_directory, doc)
        run = self._runs[uid]
        try:
            run.journal(name, doc)
        finally:
            if name == "stop":
                del self._runs[uid]
                self._owner = {key: owner for key, owner in self._owner.items() if owner != uid}
            run.take(name, doc)

    def frames_directory(self, camera: str) -> Path:
        """Return the folder for the frame files of a camera in the run that was opened last.

        It fits `dfxrm_control.acquisition.FrameDestination`.

        Raises
        ------
        RecordError
            When no run is open.
        """
        for run in reversed(self._runs.values()):
            return run.frames
        raise RecordError(f"frames of {camera} have no run to go to: open a run before the camera is triggered")

    @property
    def folder(self) -> Path | None:
        """Folder of the last run; None before the first."""
        return self._last.folder if self._last else None

    @property
    def master(self) -> Path | None:
        """Master file of the last run, whether it was written yet or not; None before the first run."""
        return self._last.master if self._last else None

    @property
    def journal(self) -> Path | None:
        """Journal of the last run; None before the first."""
        return self._last.journal.path if self._last else None

    @property
    def failure(self) -> DfxrmError | None:
        """Why the master of the last run could not be written; None when it was, or is being."""
        return self._last.failure if self._last else None

    def _run_of(self, name: str, doc: Mapping[str, Any]) -> str:
        """Return the uid of the run a document belongs to, since runs may be interleaved."""
        if name == "start":
            return doc["uid"]
        if name == "stop":
            return doc["run_start"]
        parents = (doc.get(key) for key in ("run_start", "descriptor", "stream_resource", "resource"))
        parent = next((str(parent) for parent in parents if parent), "")
        uid = self._owner.get(parent, parent)
        if uid not in self._runs:
            raise RecordError(f"a {name} document came that belongs to no open run")
        if "uid" in doc and isinstance(doc["uid"], str) and name in ("descriptor", "stream_resource", "resource"):
            self._owner[doc["uid"]] = uid
        return uid


class _OpenRun:
    """The folder, the journal and the background writer of one run."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder = folder
        self.frames = folder / _FRAMES_FOLDER
        self.master = folder / f"{folder.name}.h5"
        self.journal = journal
        self.failure: DfxrmError | None = None
        self._link = folder / f"{folder.name}.jsonl"
        self._snapshots = Snapshots(journal.path, self.master)
        self._synced: set[Path] = set()
        self._documents: queue.SimpleQueue[tuple[str, Mapping[str, Any]]] = queue.SimpleQueue()
        self._done = threading.Event()
        with contextlib.suppress(OSError):  # a file system without links: the journal stays where it is
            self._link.symlink_to(journal.path)
        threading.Thread(target=self._work, name=f"record of {folder.name}", daemon=True).start()

    @classmethod
    def create(cls, data_directory: Path, journal_directory: Path, start: Mapping[str, Any]) -> _OpenRun:
        """Claim the run's folder and begin its journal."""
        run = Run([("start", start)])
        if not _SAMPLE_NAME.fullmatch(run.sample_name):
            raise RecordError(
                f"sample name {run.sample_name!r} cannot name a folder: letters, digits, _ and - are valid, at most 64"
            )
        name = f"{run.sample_name}_{run.scan_number:05d}"
        folder = data_directory / run.sample_name / name
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            (folder / _FRAMES_FOLDER).mkdir()
        except FileExistsError as error:
            raise RecordError(
                f"folder {folder} exists already: scan {run.scan_number} of sample {run.sample_name} was taken before; "
                "nothing is overwritten, so give the sample another name or the scan a higher scan_id"
            ) from error
        except OSError as error:
            raise RecordError(f"folder {folder} cannot be made: {error.strerror}") from error
        try:
            return cls(folder, Journal(journal_directory / f"{name}_{str(start['uid'])[:8]}.jsonl"))
        except RecordError:
            with contextlib.suppress(OSError):
                (folder / _FRAMES_FOLDER).rmdir()
                folder.rmdir()
            raise

    def take(self, name: str, doc: Mapping[str, Any]) -> None:
        """Pass a document to the background; after the stop document, wait until the final master is written."""
        if name == "stop":
            self._snapshots.abandon()
            try:
                close_frame_files(self.folder)
            except RecordError as error:
                _log.error("%s", error)
        self._documents.put((name, doc))
        if name == "stop" and not self._done.wait(_FINAL_TIMEOUT_S):
            _log.error("the master of %s is still being written after %g s", self.folder.name, _FINAL_TIMEOUT_S)

    def _work(self) -> None:
        try:
            self._follow()
        except Exception as error:
            self.failure = RecordError(f"master {self.master} cannot be written: {type(error).__name__}: {error}")
            _log.exception("the record of %s stopped being updated; it can be recovered later", self.folder.name)
        finally:
            self._done.set()

    def _follow(self) -> None:
        run = Run()
        layout = FinishedLines(run)
        while run.stop is None:
            try:
                # A line's last event comes before its file is closed, so a finished line is looked for again.
                name, doc = self._documents.get(timeout=_POLL_S if layout.pending else None)
            except queue.Empty:
                self._snapshot(run, layout)
                continue
            run(name, doc)
            # Documents that wait are taken in first: a snapshot is worth nothing once the next is due.
            if layout.pending and self._documents.empty():
                self._snapshot(run, layout)
        self._finish(run)

    def _snapshot(self, run: Run, lines: FinishedLines) -> None:
        """Write a master of the finished lines, if there are more of them than in the last."""
        if lines.update():
            try:
                self._sync(run)
                self._snapshots.take()
            except DfxrmError as error:
                _log.warning("%s", error)

    def _finish(self, run: Run) -> None:
        self._snapshots.close()
        deadline = time.monotonic() + _CLOSING_TIMEOUT_S
        while not all(map(_is_settled, run.files)) and time.monotonic() < deadline:
            time.sleep(0.02)  # a camera whose files another process writes needs a moment to close the last
        try:
            self._sync(run)
            write_master(run, self.master)
        except DfxrmError as error:
            self.failure = error
            _log.error("%s; it can be written later from %s", error, self.journal.path)
        self._keep_journal()

    def _sync(self, run: Run) -> None:
        """Have the frames of closed files on disk before a master refers to them."""
        for path in [file.path for file in run.files if file.path not in self._synced and _is_settled(file)]:
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            self._synced.add(path)

    def _keep_journal(self) -> None:
        """Put a copy of the finished journal in place of the link to it, so that the folder holds all of the run."""
        copy = self._link.with_suffix(".tmp")
        try:
            shutil.copyfile(self.journal.path, copy)
            copy.replace(self._link)
        except OSError as error:
            _log.error("journal %s cannot be copied to %s: %s", self.journal.path, self.folder, error.strerror)


def _is_settled(file: FrameFile) -> bool:
    """Return whether nothing more will come in a frame file: it is closed, or it is not there."""
    try:
        return is_closed(file.path)
    except FileFormatError:
        return True
