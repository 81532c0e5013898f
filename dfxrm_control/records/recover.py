"""A clean record of a run that was cut short, from its journal and its frames; what is there stays as it is."""

from __future__ import annotations

import logging
from pathlib import Path

from dfxrm_control.errors import FileFormatError, RecordError
from dfxrm_control.records.frames import FRAME_DATASET, count_frames, is_closed, salvage_frames
from dfxrm_control.records.journal import is_being_written
from dfxrm_control.records.master import write_master
from dfxrm_control.records.run import FrameFile, Run, read_journal

__all__ = ["recover"]

_log = logging.getLogger(__name__)


def recover(source: Path, out: Path | None = None) -> Path:
    """Write a clean master of a run that was cut short, and return its path.

    A frame file that is still marked as open, because its writer died, is copied chunk by chunk into a clean file in
    ``<name of the master>_frames/`` beside the master; all others are referred to where they are.

    Parameters
    ----------
    source : Path
        Journal of the run, or its folder.
    out : Path, optional
        Master to write; it must not exist. Default: ``<run>_recovered.h5`` in the run's folder.

    Raises
    ------
    FileFormatError
        When there is no journal, or it is none.
    RecordError
        When the master exists or cannot be written, or another process still writes the run.
    """
    journal = _journal_of(Path(source))
    run = read_journal(journal)
    if is_being_written(journal):
        raise RecordError(
            f"the run of journal {journal} still goes on: there is nothing to recover before it has ended"
        )
    folder = _folder_of(Path(source), run)
    master = Path(out) if out is not None else folder / f"{folder.name}_recovered.h5"
    master = master.absolute()
    if master.exists():
        raise RecordError(f"{master} exists already and is not overwritten: give the new master another name")
    saved = _salvage(run, folder, master.with_name(f"{master.stem}_frames"))
    write_master(run, master, locate=lambda file: saved.get(file.path.name, _place(file, folder)), recovered=True)
    return master


def _journal_of(source: Path) -> Path:
    if not source.is_dir():
        return source
    journals = sorted(source.glob("*.jsonl"))
    if not journals:
        raise FileFormatError(f"{source} holds no journal (*.jsonl): give the journal itself")
    if len(journals) > 1:
        raise FileFormatError(f"{source} holds {len(journals)} journals: give the one that is meant")
    return journals[0]


def _folder_of(source: Path, run: Run) -> Path:
    """Return the run's folder: the one given, else the one above the frames, else the journal's own."""
    if source.is_dir():
        return source.absolute()
    for file in run.files:
        if file.path.parent.parent.is_dir():
            return file.path.parent.parent
    return source.absolute().parent


def _place(file: FrameFile, folder: Path) -> Path:
    beside = folder / file.path.parent.name / file.path.name
    return beside if beside.exists() else file.path


def _salvage(run: Run, folder: Path, target: Path) -> dict[str, Path]:
    """Copy the frames of unclosed files into clean ones; return the copies by the original's name."""
    files = {_place(file, folder): file.dataset for file in run.files}
    for path in sorted(path for parent in {path.parent for path in files} for path in parent.glob("*.h5")):
        files.setdefault(path, FRAME_DATASET)  # begun, and the writer died before its first frame was announced
    saved: dict[str, Path] = {}
    for path, dataset in files.items():
        try:
            if is_closed(path):
                count_frames(path, dataset)
                continue
            target.mkdir(parents=True, exist_ok=True)
            # of a recovery that was killed there may be a part, or a whole copy whose master was never written
            part = target / f"{path.name}.part"
            part.unlink(missing_ok=True)
            count = salvage_frames(path, part, dataset)
            part.replace(target / path.name)
        except OSError as error:
            raise RecordError(f"folder {target} cannot be written: {error.strerror}") from error
        except FileFormatError as error:
            _log.warning("%s; its frames are not in the recovered master", error)
            continue
        _log.info("%d frames of %s were recovered into %s", count, path, target / path.name)
        saved[path.name] = target / path.name
    return saved
