"""Series of runs: finding the runs that belong together, and reducing them as one.

``python -m dfxrm_control.reduction.series RUN_FOLDER`` does so in a process of its own and prints the files it makes.
What a series is stands in the start document of each of its runs (`plans._series.RunSeries`); how a kind of series is
reduced is looked up in `REDUCERS`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py

from dfxrm_control.errors import DfxrmError, FileFormatError, ParameterError, RecordError
from dfxrm_control.records import Run, read_documents, read_journal
from dfxrm_control.records.journal import decode_document

__all__ = ["REDUCERS", "Series", "SeriesRun", "SeriesWarning", "main", "read_series", "reduce_series"]

REDUCERS: dict[str, str] = {
    "layers": "dfxrm_control.reduction.layers:reduce_layers",
    "topotomography": "dfxrm_control.reduction.topotomography:reduce_topotomography",
    "weak_beam": "dfxrm_control.reduction._weak_beam:reduce_weak_beam",
    "handoff": "dfxrm_control.reduction.handoff:reduce_handoff",
    "time": "dfxrm_control.reduction._time:reduce_time",
}
"""What reduces a series, by its kind: the import string of ``function(series, folder) -> list of Path``.

It writes into ``folder``, which exists, and returns its files, the most important one first. What it has to leave out
it says by a `SeriesWarning`.
"""

NICENESS = 10
_START = "/1.1/instrument/dfxm_control/start_document_json"
_TAIL = 1 << 16


class SeriesWarning(UserWarning):
    """A series was reduced without something that should have been there; the text says what was kept."""


@dataclass(frozen=True)
class SeriesRun:
    """One run of a series.

    Attributes
    ----------
    folder : Path
        Its folder.
    master : Path
        Its HDF5 master.
    start : dict
        Its start document.
    status : str
        ``success``, ``abort``, ``fail``, or ``running`` where it has no end.
    """

    folder: Path
    master: Path
    start: dict[str, Any]
    status: str

    @property
    def dfxrm(self) -> dict[str, Any]:
        """What this package says of the run in its start document."""
        return dict(self.start.get("dfxrm") or {})

    @property
    def series(self) -> dict[str, Any]:
        """What the start document says of the series; empty for a run of its own."""
        return dict(self.dfxrm.get("series") or {})

    @property
    def scan_number(self) -> int:
        """Number of the scan."""
        return int(self.start.get("scan_id", 0))

    @property
    def index(self) -> int:
        """Place in the series, from 0."""
        return int(self.series.get("index", 0))

    @property
    def value(self) -> float:
        """Of what changes from run to run, in the series' unit; NaN for a run of its own."""
        return float(self.series.get("value", float("nan")))

    @property
    def sample_name(self) -> str:
        """Name of the sample."""
        return Run([("start", self.start)]).sample_name

    @property
    def maps(self) -> Path | None:
        """HDF5 file of its maps; None where there is none."""
        return next(iter(sorted((self.folder / "maps").glob("*_maps.h5"))), None)

    @cached_property
    def journal(self) -> Run:
        """Everything that is known of the run, read from its journal.

        Raises
        ------
        FileFormatError
            When there is none in its folder.
        """
        return read_journal(_journal_in(self.folder))


@dataclass(frozen=True)
class Series:
    """Runs that belong together.

    Attributes
    ----------
    uid, kind : str
        Which series, and of what kind; empty for runs that were put together by hand.
    runs : tuple of SeriesRun
        In order of their index, else of their number; whatever their end.
    """

    uid: str
    kind: str
    runs: tuple[SeriesRun, ...]

    @property
    def complete(self) -> tuple[SeriesRun, ...]:
        """The runs that ended well."""
        return tuple(run for run in self.runs if run.status == "success")

    @property
    def of(self) -> int | None:
        """Number of runs that were planned; None where nobody knew."""
        planned = self.runs[0].series.get("of")
        return None if planned is None else int(planned)

    @property
    def axis(self) -> str:
        """What changes from run to run."""
        return str(self.runs[0].series.get("axis", ""))

    @property
    def units(self) -> str:
        """Unit of the runs' values."""
        return str(self.runs[0].series.get("units", ""))

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the plan that made the series."""
        return dict((self.runs[0].series.get("parameters") or {}).get("values") or {})

    @property
    def folder(self) -> Path:
        """Where what is made of the series goes: beside the folders of its runs."""
        first = self.runs[0].folder
        return first.with_name(f"{first.name}_{self.kind or 'series'}")

    @property
    def stem(self) -> str:
        """First part of the names of its files."""
        return self.folder.name


def read_series(*places: str | Path) -> Series:
    """Find the runs of a series.

    Parameters
    ----------
    *places : path
        One run of the series, by its folder or its master: the others are found beside it. Or several runs: just these,
        whether they were taken as a series or one by one.

    Raises
    ------
    FileFormatError
        When a place holds no record of a run.
    ParameterError
        When a single run belongs to no series.
    """
    given = [_read_run(Path(place)) for place in places]
    if not given:
        raise ParameterError("no run was given; give the folder of one run of the series, or those of several")
    uids = {str(run.series.get("uid", "")) for run in given}
    kinds = {str(run.series.get("kind", "")) for run in given}
    if len(given) > 1:
        kind = kinds.pop() if len(kinds) == 1 else ""
        return Series(uids.pop() if len(uids) == 1 else "", kind, tuple(sorted(given, key=lambda r: r.scan_number)))
    (only,) = given
    uid = only.series.get("uid")
    if not uid:
        raise ParameterError(
            f"{only.folder} holds a run of its own, which belongs to no series; runs that were taken one by one are "
            "given all together"
        )
    members = [only]
    for folder in sorted(only.folder.parent.glob(f"{only.sample_name}_*")):
        if folder != only.folder and folder.is_dir():
            try:
                run = _read_run(folder)
            except FileFormatError:
                continue  # not a run: what was made of another series, or a stranger
            if run.series.get("uid") == uid:
                members.append(run)
    return Series(str(uid), str(only.series["kind"]), tuple(sorted(members, key=lambda r: (r.index, r.scan_number))))


def reduce_series(series: Series, folder: Path | None = None, kind: str | None = None) -> list[Path]:
    """Reduce a series and return the files that were made, the most important one first.

    Parameters
    ----------
    series : Series
        Its runs.
    folder : Path, optional
        Where the files go; default: ``<sample>_<first scan>_<kind>`` beside the folders of the runs.
    kind : str, optional
        How to reduce it; default: by its kind.

    Raises
    ------
    ParameterError
        When nothing reduces series of this kind.
    RecordError
        When the folder cannot be made.
    DfxrmError
        What the reduction of this kind raises.
    """
    kind = kind or series.kind
    if kind not in REDUCERS:
        raise ParameterError(f"a series of kind {kind!r} cannot be reduced; {', '.join(REDUCERS)} can")
    if series.kind != kind:
        series = Series(series.uid, kind, series.runs)
    folder = folder or series.folder
    module, _, name = REDUCERS[kind].partition(":")
    reduce: Callable[[Series, Path], list[Path]] = getattr(importlib.import_module(module), name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"folder {folder} cannot be made: {error.strerror or error}") from error
    return reduce(series, folder)


def _read_run(place: Path) -> SeriesRun:
    """Read what a run says at its start and its end, by its folder, its master or its journal."""
    place = place.absolute()
    # a master that is lost is no matter where the journal is there
    if not place.exists() and place.suffix != ".h5":
        raise FileFormatError(f"{place} does not exist")
    folder = place if place.is_dir() else place.parent
    master = place if place.suffix == ".h5" and not place.is_dir() else folder / f"{folder.name}.h5"
    try:
        journal = _journal_in(folder)
    except FileFormatError:
        start, status = _from_master(master)
    else:
        _, start = next(iter(read_documents(journal)), ("", {}))
        status = _end_of(journal)
    if not start:
        raise FileFormatError(f"{place} holds no record of a run")
    return SeriesRun(folder, master, start, status)


def _journal_in(folder: Path) -> Path:
    journals = sorted(folder.glob("*.jsonl"))
    if not journals:
        raise FileFormatError(f"{folder} holds no journal of a run")
    return journals[0]


def _end_of(journal: Path) -> str:
    """Return how a run ended, from the last line of its journal; the lines between need not be read for that."""
    with journal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        last = file.read().splitlines()[-1:]
    try:
        name, doc = decode_document(last[0])
    except (IndexError, ValueError):
        return "running"
    return str(doc["exit_status"]) if name == "stop" else "running"


def _from_master(master: Path) -> tuple[dict[str, Any], str]:
    try:
        with h5py.File(master, "r") as file:
            start = json.loads(file[_START][()])
            status = file["/1.1/instrument/dfxm_control/end_status"][()]
    except (OSError, KeyError, ValueError) as error:
        raise FileFormatError(f"{master.parent} holds no record of a run: neither journal nor master") from error
    return start, status.decode() if isinstance(status, bytes) else str(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reduce a series from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dfxrm_control.reduction.series", description="Reduce a series of runs."
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", help="folder of one run of the series, or of each of several runs"
    )
    options = parser.parse_args(arguments)
    os.nice(NICENESS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SeriesWarning)
        try:
            for path in reduce_series(read_series(*options.runs)):
                print(path)
        except DfxrmError as error:
            print(error, file=sys.stderr)
            return 1
    for warning in caught:
        if issubclass(warning.category, SeriesWarning):
            print(f"note: {warning.message}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    # by its proper name, so that the reductions' warnings are of the class that `main` looks for
    sys.exit(importlib.import_module("dfxrm_control.reduction.series").main())
