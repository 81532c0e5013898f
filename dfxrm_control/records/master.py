"""The HDF5 master of a run, in the layout of the ESRF's BLISS, which darfix and darling open unchanged.

``/1.1`` is the scan: one accepted frame per point of its complete lines. ``/1.2`` are counters beside it, ``/1.3`` the
frames that are not in the scan and why, ``/2.1`` and ``/3.1`` the darks before and after. A mesh of three dimensions
has its complete planes in ``/1.1``, and each plane once more as a mesh of two in ``/101.1``, ``/102.1``, ..., which is
how darling reads such scans; the last of these may be a plane that was cut short, with its complete lines. Frames are
virtual datasets onto the frame files, by relative paths, so a run's folder can be moved as a whole.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers the filter that check_master's readers need
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.acquisition import BEAM_LOST
from dfxrm_control.errors import FileFormatError, RecordError
from dfxrm_control.records._optics import arm_of, optics_of
from dfxrm_control.records._title import plane_title, scan_title
from dfxrm_control.records.frames import FRAME_DATASET, count_frames
from dfxrm_control.records.run import FrameFile, FrameRef, Run, Stream, read_journal

__all__ = ["FinishedLines", "check_master", "write_master"]

_DARKS = {"darks_before": "2.1", "darks_after": "3.1"}
_NOT_SCANNED = ("primary", "baseline", "interruptions", BEAM_LOST, *_DARKS)
_AXIS_UNITS = ("deg", "mm", "um", "keV", "rad", "degC")
_END_REASON = {"success": "SUCCESS", "abort": "USER_ABORT", "fail": "FAILURE"}  # as BLISS words it
_OF_THE_WHOLE = (  # says how the run as a whole went
    *("planned_points", "acknowledged_points", "points", "points_per_line", "complete_lines"),
    *("frames_taken", "frames_acknowledged", "frames_missing", "frames_rejected"),
)
_COUNTERS = ("monitor",)  # numbers of events, which no unit need be told of
_COUNTER_NAMES = {"ring_current": "current"}  # the machine current as ID03 calls it


def write_master(
    source: Path | Run,
    master: Path,
    locate: Callable[[FrameFile], Path] | None = None,
    recovered: bool = False,
) -> None:
    """Write the master file of a run from its journal and its frames; a master that is there is replaced in one step.

    Only frames that exist in files that are closed are put in, so a running scan gives a master of its finished lines.

    Parameters
    ----------
    source : Path or Run
        Journal of the run, or what was read of it.
    master : Path
        File to write.
    locate : callable, optional
        Where a frame file is now. Default: in the folder beside the master that has the name of the file's, else where
        it was announced.
    recovered : bool
        Whether the run was cut short and this is the attempt to save it; noted in the file.

    Raises
    ------
    RecordError
        When the file cannot be written, or what was written does not hold.
    FileFormatError
        When the journal is no journal.
    """
    run = source if isinstance(source, Run) else read_journal(source)
    master = Path(master).absolute()
    temporary = master.with_name(f".{master.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        master.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(temporary, "w") as file:
            _Master(file, run, master, locate or _beside(master), recovered).write()
        check_master(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(master)
        _sync_folder(master.parent)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordError(f"master {master} cannot be written: {reason}") from error
    except FileFormatError as error:
        raise RecordError(f"master {master} was not replaced: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_master(path: Path) -> int:
    """Check that every frame a master refers to exists, and return how many there are.

    HDF5 shows zeros where the file behind a virtual dataset is missing or too short, without a word.

    Raises
    ------
    FileFormatError
        When the master cannot be read, or a frame file is missing, still open or too short.
    """
    path = Path(path).absolute()
    needed: dict[tuple[str, str], int] = {}
    frames = 0
    try:
        with h5py.File(path, "r") as file:
            for dataset in _virtual_datasets(file):
                frames += dataset.shape[0]
                for part in dataset.virtual_sources():
                    last = int(part.src_space.get_select_bounds()[1][0])
                    key = (part.file_name, part.dset_name)
                    needed[key] = max(needed.get(key, 0), last + 1)
    except (OSError, RuntimeError) as error:
        raise FileFormatError(f"{path} cannot be read as HDF5: {error}") from error
    for (name, dataset_name), count in needed.items():
        there = count_frames(path.parent / name, dataset_name)
        if there < count:
            raise FileFormatError(f"frame file {path.parent / name} has {there} frames, and {count} are needed")
    return frames


def _virtual_datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []

    def visit(_: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and item.is_virtual:
            found.append(item)

    file.visititems(visit)
    return found


class FinishedLines:
    """How many points of a running scan are in lines that are complete and whose files are closed."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._counts: dict[Path, int] = {}
        self.points = 0

    @property
    def pending(self) -> bool:
        """Whether more lines have all their events than had their files closed at the last `update`."""
        return len(self._run.primary.events) - self.points >= self._run.line_length

    def update(self) -> bool:
        """Look again, and return whether there are more than before."""
        before = self.points
        self.points = _Layout(self._run, lambda file: file.path, self._counts, before).kept
        return self.points > before


def _beside(master: Path) -> Callable[[FrameFile], Path]:
    def locate(file: FrameFile) -> Path:
        moved = master.parent / file.path.parent.name / file.path.name
        return moved if moved.exists() else file.path

    return locate


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Rejected:
    """A frame that is not in the scan."""

    ref: FrameRef
    reason: str
    stream: str
    point: int


class _Layout:
    """Which frame goes where, given the files there are."""

    def __init__(
        self,
        run: Run,
        locate: Callable[[FrameFile], Path],
        counts: dict[Path, int] | None = None,
        known_points: int = 0,
    ) -> None:
        self._run = run
        self._locate = locate
        self._counts = {} if counts is None else counts
        cameras = run.cameras
        self.camera = cameras[0] if cameras else None
        primary = run.primary
        row = len(primary)
        if self.camera is not None:
            frames = primary.frames.get(self.camera, {})
            rows = range(known_points, row)
            row = next((n for n in rows if n + 1 not in frames or not self.exists(frames[n + 1])), row)
        self.block = run.block_length
        self.points = row - row % self.block
        self.kept = row - row % run.line_length

    def path(self, file: FrameFile) -> Path:
        return self._locate(file)

    def count(self, file: FrameFile) -> int:
        """Return the number of frames in a file; 0 while it is open, missing or damaged."""
        path = self._locate(file)
        if path not in self._counts:
            try:
                self._counts[path] = count_frames(path, file.dataset)  # a closed file stays as it is
            except FileFormatError:
                return 0
        return self._counts[path]

    def exists(self, ref: FrameRef) -> bool:
        return 0 <= ref.index_in_file < self.count(ref.file)

    def scan(self, camera: str) -> list[FrameRef]:
        """Return the frames of the scan's points; empty when a second camera lacks one."""
        return self._first(camera, self.points)

    def lines(self, camera: str) -> list[FrameRef]:
        """Return the frames of all complete lines, those of a plane that was cut short included."""
        return self._first(camera, self.kept)

    def _first(self, camera: str, points: int) -> list[FrameRef]:
        frames = self._run.primary.frames.get(camera, {})
        refs = [frames[number] for number in range(1, points + 1) if number in frames]
        return refs if len(refs) == points and all(map(self.exists, refs)) else []

    def stream(self, stream: Stream, camera: str) -> dict[int, FrameRef]:
        """Return the acknowledged frames of a stream that exist, by the number of their event."""
        return {n: ref for n, ref in sorted(stream.frames.get(camera, {}).items()) if self.exists(ref)}

    def rejected(self, camera: str) -> list[_Rejected]:
        """Return every other frame there is, in the order taken."""
        used = {(r.file.path, r.index_in_file) for r in self.lines(camera)}
        listed: list[_Rejected] = []
        for stream in self._run.streams.values():
            for number, ref in self.stream(stream, camera).items():
                if stream.name == BEAM_LOST:
                    listed.append(_Rejected(ref, "beam lost", stream.name, self._taken_before(camera, ref.index)))
                elif stream.name != "primary":
                    used.add((ref.file.path, ref.index_in_file))
                elif (ref.file.path, ref.index_in_file) not in used:
                    listed.append(_Rejected(ref, "partial line", stream.name, number - 1))
            for number, ref in stream.replaced:
                if self.exists(ref):
                    listed.append(_Rejected(ref, "repeated", stream.name, number - 1))
        used |= {(item.ref.file.path, item.ref.index_in_file) for item in listed}
        for file in self.files(camera):
            for place in range(self.count(file)):
                if (file.path, place) not in used:
                    ref = FrameRef(file, file.first_index + place)
                    listed.append(_Rejected(ref, "orphan", "", self._meant_for(camera, ref.index)))
        return sorted(listed, key=lambda item: item.ref.index)

    def files(self, camera: str) -> list[FrameFile]:
        """Return the camera's files: those announced, and those none of whose frames ever was."""
        announced = [file for file in self._run.files if file.camera == camera]
        known = {self.path(file).name for file in announced}
        folders = sorted({place.parent for file in announced for place in (self.path(file), file.path)})
        files = {file.path.name: file for file in announced}
        for folder in folders:
            for path in sorted(folder.glob(f"{camera}_[0-9]*.h5")):
                if path.name not in known:
                    files[path.name] = FrameFile(path, FRAME_DATASET, camera, 0)
        following = 0
        for name in sorted(files):
            if files[name].path.name not in known:
                files[name] = FrameFile(files[name].path, FRAME_DATASET, camera, following)
            following = files[name].first_index + self.count(files[name])
        return [files[name] for name in sorted(files)]

    def _taken_before(self, camera: str, index: int) -> int:
        """Return how many points of the scan were taken before a frame: the one it was meant for, from 0."""
        return sum(ref.index < index for ref in self._run.primary.frames.get(camera, {}).values())

    def _meant_for(self, camera: str, index: int) -> int:
        """Return the point an orphan was exposed for: the one that was taken next; -1 when none was."""
        frames = self._run.primary.frames.get(camera, {})
        later = [number for number, ref in frames.items() if ref.index > index]
        return min(later) - 1 if later else -1


class _Master:
    """Writes one master into an open file."""

    def __init__(
        self, file: h5py.File, run: Run, master: Path, locate: Callable[[FrameFile], Path], recovered: bool
    ) -> None:
        self._file = file
        self._run = run
        self._folder = master.parent
        self._recovered = recovered
        self._layout = _Layout(run, locate)
        self._baseline = run.baseline()
        self._scanned = [axis.name for axis in run.axes if axis.name in run.primary.data_keys]
        self._numbers = range(1, self._layout.points + 1)

    def write(self) -> None:
        file, run = self._file, self._run
        file.attrs["NX_class"] = "NXroot"
        file.attrs["publisher"] = "bliss"  # darfix reads positioners the BLISS way when it finds this
        file.attrs["creator"] = f"dfxrm-control {_package_version()}"
        file.attrs["file_time"] = _iso(datetime.datetime.now().timestamp())
        file.attrs["default"] = "1.1"
        camera = self._layout.camera
        self._write_scan(camera)
        self._write_counters()
        if camera is not None:
            self._write_rejected(camera)
            self._write_planes(camera)
        for number, extra in enumerate(self._other_cameras(), start=4):
            self._write_other_camera(f"1.{number}", extra)
        others = [name for name in run.streams if name not in _NOT_SCANNED and run.streams[name].frames]
        stacks = {**_DARKS, **{name: f"{number}.1" for number, name in enumerate(others, start=4)}}
        for name, entry in stacks.items():
            if camera is not None and name in run.streams:
                self._write_stack(entry, run.streams[name], camera)

    # the scan

    def _write_scan(self, camera: str | None) -> None:
        title = scan_title(self._run, self._layout.points)
        entry, instrument, measurement = self._entry("1.1", title)
        for axis in self._scanned:
            self._positioner(instrument, measurement, axis, self._values(self._run.setpoint_key(axis)))
        self._positioners(instrument, {axis: self._values(self._run.setpoint_key(axis)) for axis in self._scanned})
        self._motors_around(instrument)
        record = _group(instrument, "dfxm_control", "NXcollection")
        if camera is not None:
            refs = self._layout.scan(camera)
            detector = self._detector(instrument, measurement, camera, refs)
            plot = _group(entry, "frames", "NXdata")
            plot["data"] = h5py.SoftLink(f"{detector.name}/data")
            plot.attrs["signal"] = "data"
            plot.attrs["axes"] = [".", ".", "."]
            entry.attrs["default"] = "frames"
            self._frame_map(record, refs)
        self._write_record(record, camera)
        self._write_sample(entry)
        self._write_beam(instrument)
        contrast = self._run.dfxrm.get("contrast")
        if isinstance(contrast, Mapping):
            entry["experiment_description"] = f"{contrast.get('label')}, not strain: one axis, not a mesh with the rock"

    def _write_per_point(self, record: h5py.Group, numbers: range) -> None:
        """Write what was read at each point, beside the set-points."""
        run = self._run
        readbacks = _group(record, "readbacks", "NXcollection")
        for axis in (*self._scanned, *run.followers):
            self._dataset(readbacks, run.names.get(axis, axis), self._values(axis, numbers), axis)
        for key in ("monitor", "ring_current"):
            if key in run.primary.data_keys:
                self._dataset(record, key, self._values(key, numbers), key)
        record["time"] = np.array([run.primary.events[number]["time"] for number in numbers], dtype=float)
        record["time"].attrs["units"] = "s"
        record["time"].attrs["description"] = "seconds since 1970-01-01 UTC"

    def _write_record(self, record: h5py.Group, camera: str | None) -> None:
        """Write what the field asks for and no reader of the layout scans."""
        run, layout = self._run, self._layout
        self._write_per_point(record, self._numbers)
        setpoints = _group(record, "setpoints", "NXcollection")
        channels = _group(record, "channels", "NXcollection")
        for key, value in self._baseline.items():
            axis = key.removesuffix("_setpoint").removesuffix("_user")
            if axis in self._scanned:
                continue
            if axis != key and self._is_axis(axis):
                self._dataset(setpoints, run.names.get(axis, axis), value, key)
            elif not self._is_axis(key):
                self._dataset(channels, key, value, key)
        self._write_optics(record, self._numbers)
        for key in ("coupling", "contrast"):  # what a scan takes for something else
            if isinstance(run.dfxrm.get(key), Mapping):
                group = _group(record, key, "NXcollection")
                for name, value in run.dfxrm[key].items():
                    _plain_dataset(group, str(name), value)
        for key in ("instrument", "sample", "parameters", "scan_axes", "followers"):
            if key in run.dfxrm:
                record[f"{key}_json"] = json.dumps(run.dfxrm[key])
        parameters = run.dfxrm.get("parameters")
        if isinstance(parameters, Mapping) and isinstance(parameters.get("values"), Mapping):
            group = _group(record, "parameters", "NXcollection")
            for key, value in parameters["values"].items():
                _plain_dataset(group, str(key), value)
        if "found" in run.streams:  # what a step of an alignment found
            record["found_json"] = _json([event["data"] for event in run.streams["found"].events.values()])
        record["start_document_json"] = _json(run.start)
        record["plan_name"] = str(run.start.get("plan_name", ""))
        record["version"] = str(run.dfxrm.get("version", ""))
        record["schema"] = int(run.dfxrm.get("schema", 1))
        record["uid"] = str(run.start.get("uid", ""))
        record["scan_number"] = run.scan_number
        record["end_status"] = "killed" if self._recovered and run.stop is None else run.end_status
        record["end_reason"] = str((run.stop or {}).get("reason", ""))
        record["recovered"] = self._recovered
        record["interruptions"] = json.dumps(run.interruptions())
        record["planned_points"] = run.planned_points
        record["acknowledged_points"] = len(run.primary.events)
        record["points"] = layout.points
        record["points_per_line"] = run.line_length
        record["complete_lines"] = layout.kept // run.line_length
        if camera is not None:
            files = layout.files(camera)
            record["frames_taken"] = sum(map(layout.count, files))
            acknowledged = sum(len(stream.frames.get(camera, {})) for stream in run.streams.values())
            existing = sum(len(layout.stream(stream, camera)) for stream in run.streams.values())
            record["frames_acknowledged"] = acknowledged
            record["frames_missing"] = acknowledged - existing
            record["frames_rejected"] = len(layout.rejected(camera))
            for name, entry in _DARKS.items():
                stream = run.streams.get(name)
                if stream is not None and layout.stream(stream, camera):
                    record[name] = h5py.SoftLink(f"/{entry}/instrument/{self._name(camera)}/data")

    def _write_optics(self, record: h5py.Group, numbers: range) -> None:
        """Write the optics at the mean of the positions that the scan took at some of its points."""
        positions = self._axes_around()
        for axis in self._scanned:
            values = self._values(self._run.setpoint_key(axis), numbers)
            if values.size:
                positions[axis] = float(np.mean(values))
        channels = self._channels()
        if "two_theta" in self._scanned and len(numbers):
            positions |= arm_of(self._run.dfxrm, positions, channels, positions["two_theta"])
        for name, value, units in optics_of(self._run.dfxrm, positions, channels, self._layout.camera):
            record[name] = value
            if not isinstance(value, str):
                record[name].attrs["units"] = units

    def _write_sample(self, entry: h5py.Group) -> None:
        sample = _group(entry, "sample", "NXsample")
        sample["name"] = self._run.sample_name
        described = self._run.dfxrm.get("sample")
        if isinstance(described, Mapping):
            if "lattice" in described:
                lattice = np.array(described["lattice"], dtype=float)
                for name, values, units in (
                    ("unit_cell_abc", lattice[:3], "angstrom"),
                    ("unit_cell_alphabetagamma", lattice[3:], "deg"),
                ):
                    sample[name] = values
                    sample[name].attrs["units"] = units
            if "space_group" in described:
                sample["space_group"] = str(described["space_group"])
            if "hkl" in described:
                entry["instrument/dfxm_control/hkl"] = np.array(described["hkl"], dtype=int)

    def _write_beam(self, instrument: h5py.Group) -> None:
        record = instrument["dfxm_control"]
        if "energy" in record:
            beam = _group(instrument, "beam", "NXbeam")
            for name, key, units in (
                ("incident_energy", "energy", "keV"),
                ("incident_wavelength", "wavelength", "angstrom"),
            ):
                beam[name] = record[key][()]
                beam[name].attrs["units"] = units

    def _frame_map(self, record: h5py.Group, refs: Sequence[FrameRef]) -> None:
        """Write which frame of which file each point has."""
        group = _group(record, "frame_map", "NXcollection")
        names = [self._relative(ref.file) for ref in refs]
        files = list(dict.fromkeys(names))
        places = {name: place for place, name in enumerate(files)}
        group["files"] = np.array(files, dtype=h5py.string_dtype())
        group["file"] = np.array([places[name] for name in names], dtype=int)
        group["index_in_file"] = np.array([ref.index_in_file for ref in refs], dtype=int)
        group["index_in_run"] = np.array([ref.index for ref in refs], dtype=int)

    # the planes of a scan of three dimensions

    def _write_planes(self, camera: str) -> None:
        """Write each plane as a scan of two dimensions, with its place along the slowest axis among the scalars."""
        run, layout = self._run, self._layout
        if len(run.axes) != 3 or len(self._scanned) != 3 or layout.block == run.line_length:
            return
        refs = layout.lines(camera)
        slow, *fast = self._scanned
        for plane, first in enumerate(range(0, len(refs), layout.block)):
            last = min(first + layout.block, len(refs))
            numbers = range(first + 1, last + 1)
            times = [float(run.primary.events[number]["time"]) for number in numbers]
            title = plane_title(run, first, last - first)
            entry, instrument, measurement = self._entry(f"{101 + plane}.1", title, times)
            self._detector(instrument, measurement, camera, refs[first:last])
            values = {axis: self._values(run.setpoint_key(axis), numbers) for axis in fast}
            for axis, column in values.items():
                self._positioner(instrument, measurement, axis, column)
            there = {slow: float(run.primary.events[numbers[0]]["data"][run.setpoint_key(slow)])}
            if slow == "two_theta":
                there |= arm_of(run.dfxrm, {**self._axes_around(), **there}, self._channels(), there[slow])
            self._positioners(instrument, values, there)
            record = _group(instrument, "dfxm_control", "NXcollection")
            self._write_per_point(record, numbers)
            self._frame_map(record, refs[first:last])
            self._write_optics(record, numbers)
            whole = self._file["1.1/instrument/dfxm_control"]
            for name in whole:  # what holds for every plane
                if name not in record and name not in _OF_THE_WHOLE:
                    record[name] = h5py.SoftLink(f"{whole.name}/{name}")
            entry["sample"] = h5py.SoftLink("/1.1/sample")

    # beside the scan

    def _write_counters(self) -> None:
        """Write everything else that was read at each point, and the signals monitored beside it."""
        _, instrument, measurement = self._entry("1.2", scan_title(self._run, self._layout.points))
        run = self._run
        taken = {key for axis in self._scanned for key in (axis, run.setpoint_key(axis))} | set(run.cameras)
        for key in run.primary.data_keys:
            if key in taken:
                continue
            name = run.names.get(key, _COUNTER_NAMES.get(key, key))
            counter = _group(instrument, name, "NXdetector")
            self._dataset(counter, "data", self._values(key), key)
            if "data" in counter:
                measurement[name] = h5py.SoftLink(f"{counter.name}/data")
        times = run.primary.times()[: self._layout.points]
        for name, values in (("elapsed_time", times - run.start.get("time", 0.0)), ("epoch", times)):
            group = _group(instrument, name, "NXpositioner")
            group["value"] = values
            group["value"].attrs["units"] = "s"
            measurement[name] = h5py.SoftLink(f"{group.name}/value")
        for stream in run.streams.values():
            if stream.name in _NOT_SCANNED or stream.frames or not stream.events:
                continue
            group = _group(instrument, stream.name, "NXcollection")
            group["time"] = stream.times()
            for key in stream.data_keys:
                if key != "time":
                    self._dataset(group, key, stream.column(key), key)

    def _write_rejected(self, camera: str) -> None:
        """Write the frames that are not in the scan: repeated, orphaned, or of a line that was not finished."""
        rejected = self._layout.rejected(camera)
        if not rejected:
            return
        entry, instrument, measurement = self._entry("1.3", f"rejected {len(rejected)}")
        self._detector(instrument, measurement, camera, [item.ref for item in rejected])
        events = self._run.primary.events
        for axis in self._scanned:
            key = self._run.setpoint_key(axis)
            values = [
                events[item.point + 1]["data"].get(key, np.nan)
                if item.stream in ("primary", "") and item.point + 1 in events
                else np.nan
                for item in rejected
            ]
            self._positioner(instrument, measurement, axis, np.array(values, dtype=float))
        quality = _group(entry, "quality", "NXcollection")
        quality["reason"] = np.array([item.reason for item in rejected], dtype=h5py.string_dtype())
        quality["stream"] = np.array([item.stream for item in rejected], dtype=h5py.string_dtype())
        quality["point"] = np.array([item.point for item in rejected], dtype=int)
        quality["point"].attrs["description"] = "point of the scan the frame was meant for, from 0; -1: not known"
        self._frame_map(quality, [item.ref for item in rejected])

    def _write_other_camera(self, name: str, camera: str) -> None:
        """Write a second camera's frames in an entry of their own, because readers take the last stack they find."""
        _, instrument, measurement = self._entry(name, scan_title(self._run, self._layout.points))
        self._detector(instrument, measurement, camera, self._layout.scan(camera))
        values = {axis: self._values(self._run.setpoint_key(axis)) for axis in self._scanned}
        for axis, column in values.items():
            self._positioner(instrument, measurement, axis, column)
        self._positioners(instrument, values)

    def _other_cameras(self) -> list[str]:
        return [camera for camera in self._run.cameras[1:] if self._layout.scan(camera)]

    def _write_stack(self, name: str, stream: Stream, camera: str) -> None:
        """Write the frames of a stream that scans nothing, as a BLISS loopscan."""
        frames = self._layout.stream(stream, camera)
        if not frames:
            return
        title = f"loopscan {len(frames)} {self._run.exposure_s(camera):g}"
        times = [float(stream.events[number]["time"]) for number in frames]
        _, instrument, measurement = self._entry(name, title, times)
        self._detector(instrument, measurement, camera, list(frames.values()))
        self._positioners(instrument, {})
        for key in stream.data_keys:
            if key != camera:
                counter = _group(instrument, self._run.names.get(key, _COUNTER_NAMES.get(key, key)), "NXdetector")
                values = [stream.events[number]["data"].get(key, np.nan) for number in frames]
                self._dataset(counter, "data", np.array(values), key)

    # the pieces entries are made of

    def _entry(self, name: str, title: str, times: Sequence[float] = ()) -> tuple[h5py.Group, h5py.Group, h5py.Group]:
        """Make an entry; its times are those of the run unless others are given."""
        entry = _group(self._file, name, "NXentry")
        entry["title"] = title
        entry["start_time"] = _iso(float(times[0] if times else self._run.start.get("time", 0.0)))
        if self._run.stop is not None:
            entry["end_time"] = _iso(float(times[-1] if times else self._run.stop["time"]))
            entry["end_reason"] = _END_REASON.get(self._run.end_status, "FAILURE")
        instrument = _group(entry, "instrument", "NXinstrument")
        instrument["name"] = str(self._run.dfxrm.get("config", "dark-field X-ray microscope"))
        return entry, instrument, _group(entry, "measurement", "NXcollection")

    def _detector(
        self, instrument: h5py.Group, measurement: h5py.Group, camera: str, refs: Sequence[FrameRef]
    ) -> h5py.Group:
        name = self._name(camera)
        group = _group(instrument, name, "NXdetector")
        shape, dtype = self._run.frame_shape(camera)
        if refs:
            self._virtual(group, refs, shape, dtype)
        else:
            group.create_dataset("data", shape=(0, *shape), dtype=dtype, maxshape=(None, *shape), chunks=(1, *shape))
        group["image"] = group["data"]
        group["type"] = "lima"
        group["description"] = f"camera {camera}"
        described = self._run.dfxrm.get("instrument", {}).get("cameras", {}).get(camera, {})
        if "pixel_um" in described:
            for key in ("x_pixel_size", "y_pixel_size"):
                group[key] = float(described["pixel_um"])
                group[key].attrs["units"] = "um"
        noise = described.get("noise", {})
        _quantities(
            group,
            ("count_time", self._run.exposure_s(camera), "s"),
            ("saturation_value", noise.get("saturation_adu"), "ADU"),
        )
        # NXdetector has no places for these
        traits = _group(group, "characteristics", "NXcollection")
        variance = noise.get("read_variance_adu2")
        _quantities(
            traits,
            ("gain", noise.get("gain_adu_per_photon"), "ADU per photon"),
            ("offset", noise.get("offset_adu"), "ADU"),
            ("read_noise", None if variance is None else float(np.sqrt(variance)), "ADU"),
        )
        for key in ("flip_ud", "flip_lr"):
            if key in described:
                traits[key] = bool(described[key])
        group["data"].attrs["units"] = "counts"
        measurement[name] = h5py.SoftLink(f"{group.name}/data")
        return group

    def _virtual(self, group: h5py.Group, refs: Sequence[FrameRef], shape: tuple[int, int], dtype: np.dtype) -> None:
        layout = h5py.VirtualLayout((len(refs), *shape), dtype)
        first = 0
        while first < len(refs):
            ref = refs[first]
            last = first + 1
            while last < len(refs) and refs[last].file == ref.file and refs[last].index == ref.index + last - first:
                last += 1
            source = h5py.VirtualSource(
                self._relative(ref.file), ref.file.dataset, (self._layout.count(ref.file), *shape), dtype
            )
            start = ref.index_in_file
            layout[first:last] = source[start : start + last - first]
            first = last
        group.create_virtual_dataset("data", layout)

    def _positioner(self, instrument: h5py.Group, measurement: h5py.Group, axis: str, values: NDArray) -> None:
        name = self._run.names.get(axis, axis)
        group = _group(instrument, name, "NXpositioner")
        group["name"] = name
        self._dataset(group, "value", values, axis)
        group["data"] = group["value"]
        measurement[name] = h5py.SoftLink(f"{group.name}/value")

    def _positioners(
        self, instrument: h5py.Group, scanned: Mapping[str, NDArray], there: Mapping[str, float] | None = None
    ) -> None:
        """Write where all motors are: an array for each that is scanned, a scalar for each other.

        ``there`` are scalars that go before those of the baseline.
        """
        group = _group(instrument, "positioners", "NXcollection")
        for axis, values in scanned.items():
            self._dataset(group, self._run.names.get(axis, axis), values, axis)
        for axis, value in (there or {}).items():
            if (name := self._run.names.get(axis, axis)) not in group:
                self._dataset(group, name, value, axis)
        self._scalars(group, self._baseline)

    def _motors_around(self, instrument: h5py.Group) -> None:
        """Write where all motors were before the scan and after it."""
        self._scalars(_group(instrument, "positioners_start", "NXcollection"), self._baseline)
        if "baseline" in self._run.streams and len(self._run.streams["baseline"].events) > 1:
            self._scalars(_group(instrument, "positioners_end", "NXcollection"), self._run.baseline(-1))

    def _scalars(self, group: h5py.Group, readings: Mapping[str, Any]) -> None:
        for key, value in readings.items():
            name = self._run.names.get(key, key)
            if self._is_axis(key) and name not in group:
                self._dataset(group, name, float(value), key)

    def _dataset(self, group: h5py.Group, name: str, values: Any, key: str) -> None:
        dataset = _plain_dataset(group, name, values)
        units = self._units(key)
        if dataset is not None and dataset.dtype.kind in "biuf" and (units or key in _COUNTERS):
            dataset.attrs["units"] = units or "counts"

    def _values(self, key: str, numbers: range | None = None) -> NDArray:
        """Return the values of a key at some points; default: those of the scan."""
        events = self._run.primary.events
        return np.array([events[n]["data"].get(key, np.nan) for n in (self._numbers if numbers is None else numbers)])

    def _axes_around(self) -> dict[str, float]:
        """Return where the axes were before the scan, by logical name."""
        return {key: float(value) for key, value in self._baseline.items() if self._is_axis(key)}

    def _channels(self) -> dict[str, Any]:
        """Return the channels before the scan."""
        return {key: value for key, value in self._baseline.items() if not self._is_axis(key)}

    def _units(self, key: str) -> str:
        for stream in self._run.streams.values():
            if key in stream.data_keys:
                return str(stream.data_keys[key].get("units") or "")
        return ""

    def _is_axis(self, key: str) -> bool:
        """Tell a motor's readback from other baseline readings: it has a set-point.

        Where nothing has one (motors that read a single key), the unit of a position tells.
        """
        value = self._baseline.get(key)
        if isinstance(value, (bool, str)) or not isinstance(value, (int, float)) or key.endswith("_setpoint"):
            return False
        if any(name.endswith("_setpoint") for name in self._baseline):
            return f"{key}_setpoint" in self._baseline or f"{key}_user_setpoint" in self._baseline
        return self._units(key) in _AXIS_UNITS

    def _name(self, camera: str) -> str:
        return self._run.names.get(camera, camera)

    def _relative(self, file: FrameFile) -> str:
        return os.path.relpath(self._layout.path(file), self._folder)


def _group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    group = parent.require_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def _quantities(group: h5py.Group, *quantities: tuple[str, float | None, str]) -> None:
    """Write numbers with their units; None is left out."""
    for name, value, units in quantities:
        if value is not None:
            group[name] = float(value)
            group[name].attrs["units"] = units


def _plain_dataset(group: h5py.Group, name: str, value: Any) -> h5py.Dataset | None:
    """Write a number, text or array of them; what HDF5 has no type for is written as JSON."""
    array = np.asarray(value)
    if array.dtype.kind in "US":
        group[name] = np.array(array.tolist(), dtype=h5py.string_dtype()) if array.ndim else str(value)
    elif array.dtype.kind in "biuf":
        group[name] = array
    else:
        group[name] = _json(value)
    return group[name]


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


def _iso(time_s: float) -> str:
    return datetime.datetime.fromtimestamp(time_s).astimezone().isoformat()


def _package_version() -> str:
    try:
        return version("dfxrm-control")
    except PackageNotFoundError:
        return "0"
