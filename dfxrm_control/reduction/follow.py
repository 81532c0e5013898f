"""Make maps of a scan while it runs: ``python -m dfxrm_control.reduction.follow JOURNAL [--out DIR]``.

A process of its own, of lower priority, that is told nothing but where the journal is. It tails the journal, reads
the frames of each finished line, and replaces the maps in one step. Started late, it catches up; killed, it changes
nothing in the record: it opens the record's files for reading only and takes no lock on them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the filters that frames are compressed with
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import DfxrmError, FileFormatError, RecordError
from dfxrm_control.records import FrameRef, Run, Stream, is_closed
from dfxrm_control.records.journal import decode_document
from dfxrm_control.records.run import Axis
from dfxrm_control.reduction._command import CommandAxis, ScanCommand
from dfxrm_control.reduction._maps import MapSet, make_maps
from dfxrm_control.reduction._moments import Dark, DarkFrames, Moments
from dfxrm_control.reduction._nexus import write_maps
from dfxrm_control.reduction._pictures import write_pictures
from dfxrm_control.reduction._regrid import Regridding
from dfxrm_control.reduction._scan import cut, frames_at_once, middle_of
from dfxrm_control.reduction._setting import Setting, scalars

__all__ = ["Follower", "main"]

NICENESS = 10
POLL_S = 0.1
ORPHAN_S = 10.0
"""So long a journal is still waited for whose program is gone, s."""
SHARE_OF_WRITING = 0.25
"""Writing maps takes at most about this share of the follower's time while there are lines to catch up with."""


def read_frames(refs: Sequence[FrameRef]) -> NDArray[np.uint16]:
    """Return frames by their place, shape (frames, rows, columns), also of a file that is still being written.

    Raises
    ------
    FileFormatError
        When a file is absent or has no such frame.
    """
    frames: NDArray[np.uint16] | None = None
    first = 0
    while first < len(refs):
        file = refs[first].file
        last = first + 1
        while last < len(refs) and refs[last].file == file and refs[last].index == refs[last - 1].index + 1:
            last += 1
        start = refs[first].index_in_file
        stop = start + last - first
        try:
            swmr = not is_closed(file.path)
            with h5py.File(file.path, "r", libver="latest", swmr=swmr, locking=False) as opened:
                data = opened[file.dataset]
                if len(data) < stop:
                    raise FileFormatError(f"frame file {file.path} has no frame {len(data)}")
                if frames is None:
                    frames = np.empty((len(refs), *data.shape[1:]), data.dtype)
                data.read_direct(frames, np.s_[start:stop], np.s_[first:last])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise FileFormatError(f"frame file {file.path} cannot be read: {error}") from error
        first = last
    if frames is None:
        raise FileFormatError("no frames were asked for")
    return frames


class Follower:
    """Turns the documents of a run into maps, a line at a time.

    Parameters
    ----------
    journal : Path
        Journal of the run.
    out : Path, optional
        Folder for the maps; default: ``maps`` in the run's folder, beside that of the frames.
    """

    def __init__(self, journal: Path, out: Path | None = None) -> None:
        self.journal = journal
        self.run = Run()
        self._out = out
        self._moments: Moments | None = None
        self._darks: DarkFrames | None = None
        self._dark_frames: dict[str, int] = {}
        self._taken = 0
        self._offset = 0

    def read(self) -> int:
        """Take in what was added to the journal, and return how many documents that was.

        Raises
        ------
        FileFormatError
            When a line that is not the last is damaged.
        """
        count = 0
        with self.journal.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    self.run(*decode_document(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise FileFormatError(f"{self.journal} is damaged, or no journal of a run: {error}") from error
                self._offset += len(line)
                count += 1
        return count

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.run.stop is not None

    def _line_length(self) -> int:
        run = self.run
        return run.line_length if run.is_mesh else max(run.planned_points, 1)

    def _ready(self) -> int:
        """Return the number of points that may be used: those of whole lines that will not be taken again.

        A pause can repeat the point that was just recorded, so a line is whole when the next one has begun. In a mesh
        of three dimensions it is whole planes, as in the record: part of one would pull the centres of mass.
        """
        points = len(self.run.primary)
        if not self.run.is_mesh:
            return points if self.ended else max(points - 1, 0)
        usable = points if self.ended else max(points - 1, 0)
        return usable - usable % self.run.block_length

    def lines(self) -> Iterator[int]:
        """Add the frames of lines that are finished, and yield the number of points used after each."""
        run = self.run
        camera = next(iter(run.cameras), None)
        if camera is None or not run.axes:
            return
        ready = self._ready()
        if ready <= self._taken:
            return
        names = [axis.name for axis in run.axes if axis.name in run.primary.data_keys]
        frames = run.primary.frames.get(camera, {})
        if self._moments is None:
            shape, _ = run.frame_shape(camera)
            self._add_darks("darks_before", camera)
            before = self._dark()
            self._moments = Moments(
                shape,
                len(names),
                before.level if before is not None else None,
                regridding=self._regridding(shape, camera),
            )
        most = min(self._line_length(), frames_at_once(self._moments.shape))
        for points in cut(run.planned_points or ready, self._line_length(), most):
            if points.stop <= self._taken:
                continue
            stop = min(points.stop, ready)
            if stop <= points.start or (stop < points.stop and not self.ended):
                return
            numbers = range(points.start + 1, stop + 1)
            missing = next((n for n in numbers if n not in frames), None)
            if missing is not None:
                raise FileFormatError(f"{self.journal}: point {missing} of the scan has no frame of {camera}")
            events = [run.primary.events[n]["data"] for n in numbers]
            monitor = [event["monitor"] for event in events] if "monitor" in run.primary.data_keys else None
            regridding = self._moments.regridding
            if regridding is not None and regridding.by_point is not None:
                regridding.by_point[points.start : stop] = [[event[name] for name in run.followers] for event in events]
            self._moments.add(
                read_frames([frames[n] for n in numbers]),
                np.array([[event[name] for name in names] for event in events], dtype=float),
                monitor,
                np.arange(points.start, stop),
            )
            self._taken = stop
            if stop % self._line_length() == 0 or not run.is_mesh:
                yield stop

    def _add_darks(self, stream: str, camera: str) -> None:
        taken = self.run.streams.get(stream, Stream(stream)).frames.get(camera, {})
        refs = [taken[number] for number in sorted(taken)]
        new = refs[self._dark_frames.get(stream, 0) :]
        for part in cut(len(new), max(len(new), 1), frames_at_once(self.run.frame_shape(camera)[0])):
            frames = read_frames(new[part])
            if self._darks is None:
                self._darks = DarkFrames((frames.shape[1], frames.shape[2]))
            self._darks.add(frames)
        self._dark_frames[stream] = len(refs)

    def _dark(self) -> Dark | None:
        return self._darks.result() if self._darks is not None else None

    def maps(self) -> MapSet | None:
        """Return the maps of the lines used so far; None before the first."""
        run, moments = self.run, self._moments
        camera = next(iter(run.cameras), None)
        if moments is None or camera is None or not len(moments):
            return None
        for stream in ("darks_before", "darks_after") if self.ended else ():
            self._add_darks(stream, camera)
        axes, command = self._scanned()
        dark = self._dark()
        monitored = "monitor" in run.primary.data_keys
        return make_maps(
            moments,
            names=[axis.name for axis in axes],
            units=[str(run.primary.data_keys[axis.name].get("units") or "deg") for axis in axes],
            command=command,
            title=str(run.dfxrm.get("title") or run.start.get("plan_name", "scan")),
            sample=run.sample_name,
            source=str(self.journal),
            setting=self._setting(camera),
            dark=dark,
            settings={
                "dark": f"mean of {dark.frames} frames (recorded)" if dark is not None else "none",
                "monitor": "monitor" if monitored else "none",
            },
        )

    def _scanned(self) -> tuple[list[Axis], ScanCommand]:
        """Return the scanned axes that are read at each point, and the plan of the scan."""
        run = self.run
        axes = [axis for axis in run.axes if axis.name in run.primary.data_keys]
        command = ScanCommand(
            "scan",
            tuple(CommandAxis(axis.name, axis.start, axis.step, axis.num) for axis in axes),
            not run.is_mesh and len(axes) > 1,
            run.planned_points or self._taken,
            run.dfxrm.get("exposure_s"),
        )
        return axes, command

    def _regridding(self, shape: tuple[int, int], camera: str) -> Regridding | None:
        axes, command = self._scanned()
        names = [axis.name for axis in axes]
        first = self.run.primary.events[min(self.run.primary.events)]["data"]
        middle = command.middle(np.array([[first[name] for name in names]], dtype=float))
        there = {name: middle_of(places) for name, places in self.run.followers.items()}
        beside = {name: np.full(self.run.planned_points, np.nan) for name in there}
        return self._setting(camera).regridding(
            shape, names, {**dict(zip(names, middle, strict=True)), **there}, beside
        )

    def _setting(self, camera: str) -> Setting:
        run = self.run
        baseline = run.baseline()
        setting = Setting(
            {key: value for key, value in scalars(baseline).items() if not key.endswith("_setpoint")},
            channels=baseline,
            camera=camera,
            exposure_s=run.dfxrm.get("exposure_s"),
        )
        sample = run.dfxrm.get("sample")
        setting.sample = sample if isinstance(sample, dict) else None
        if "instrument" in run.dfxrm:
            setting.instrument = Setting.described(run.dfxrm["instrument"], str(self.journal))
        return setting

    def out(self) -> Path:
        """Return the folder for the maps, which is made if need be."""
        folder = self._out or (self.run.files[0].path.parent.parent / "maps" if self.run.files else self.journal.parent)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"folder {folder} cannot be made: {error.strerror}") from error
        return folder

    def write(self) -> list[Path]:
        """Write maps and pictures of what there is, each replaced in one step; return the files."""
        maps = self.maps()
        if maps is None:
            return []
        folder, stem = self.out(), f"{self.run.sample_name}_{self.run.scan_number:05d}"
        path = folder / f"{stem}_maps.h5"
        write_maps(maps, path)
        return [path, *write_pictures(maps, folder, stem)]


def follow(journal: Path, out: Path | None = None, patience_s: float = 3600.0, parent: int | None = None) -> list[Path]:
    """Follow a run to its end and return the files of its maps.

    Parameters
    ----------
    journal : Path
        Journal; waited for if it is not there yet.
    out : Path, optional
        Folder for the maps.
    patience_s : float
        Give up when the journal has not grown for so long; after 10 s when the process that started this one is gone.
    parent : int, optional
        Number of that process; default: the one that is the parent now.

    Raises
    ------
    FileFormatError
        When the journal or a frame cannot be read, or the run has no end.
    RecordError
        When maps cannot be written.
    """
    follower = Follower(journal, out)
    parent = os.getppid() if parent is None else parent
    grown = time.monotonic()
    rest_until = 0.0
    written: list[Path] = []
    while True:
        if journal.exists() and follower.read():
            grown = time.monotonic()
        pending = False
        for _ in follower.lines():
            pending = True
            if time.monotonic() >= rest_until:
                began = time.monotonic()
                written = follower.write()
                pending = False
                rest_until = time.monotonic() + (time.monotonic() - began) * (1.0 / SHARE_OF_WRITING - 1.0)
        if follower.ended:
            return follower.write()
        if pending:
            written = follower.write()
        idle = time.monotonic() - grown
        if idle > patience_s or (idle > ORPHAN_S and os.getppid() != parent):
            if not written:
                raise FileFormatError(f"journal {journal} does not go on, and no line of its scan is finished")
            raise FileFormatError(
                f"journal {journal} does not go on and has no end; the maps are those of what there is"
            )
        time.sleep(POLL_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the follower from the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dfxrm_control.reduction.follow", description="Make maps of a scan while it runs."
    )
    parser.add_argument("journal", type=Path, help="journal of the run")
    parser.add_argument("--out", type=Path, help="folder for the maps; default: maps/ in the run's folder")
    parser.add_argument(
        "--patience", type=float, default=3600.0, help="seconds without a new document before giving up"
    )
    parser.add_argument("--parent", type=int, help="number of the process whose end is the end of the run too")
    options = parser.parse_args(arguments)
    os.nice(NICENESS)
    try:
        for path in follow(options.journal, options.out, options.patience, options.parent):
            print(path)
    except DfxrmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
