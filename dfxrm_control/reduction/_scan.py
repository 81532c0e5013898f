"""Reading a scan from an HDF5 file in the layout of BLISS: ours, and those of ID03."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers the filters that frames are compressed with
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import FileFormatError, ParameterError
from dfxrm_control.records import count_frames
from dfxrm_control.reduction._command import ScanCommand, parse_title
from dfxrm_control.reduction._moments import Dark, DarkFrames
from dfxrm_control.reduction._setting import Setting, scalars

__all__ = ["ScanFile", "cut", "frames_at_once", "middle_of", "open_scan", "read_darks", "recorded_darks"]

_MOST_FRAMES, _MOST_BYTES = 64, 1 << 28


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        if not path.exists():
            raise FileFormatError(f"{path} does not exist")
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError) as error:
        reason = str(error).split("(", 1)[-1].rstrip(")") or type(error).__name__
        raise FileFormatError(f"{path} cannot be read as HDF5, or is damaged: {reason}") from error


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _entry(file: h5py.File, scan: str, path: Path) -> h5py.Group:
    entry = file.get(scan)
    if not isinstance(entry, h5py.Group) or not isinstance(entry.get("title"), h5py.Dataset):
        scans = [name for name, item in file.items() if isinstance(item, h5py.Group) and "title" in item]
        there = f"it has {', '.join(scans[:12])}" if scans else "it has no scan with a title at all"
        raise FileFormatError(f"{path} has no scan {scan!r}; {there}")
    return entry


def _stack(entry: h5py.Group, points: int, path: Path) -> h5py.Dataset:
    """Return the frames of a scan: the three-dimensional dataset of a detector, as long as the scan."""
    instrument = entry.get("instrument")
    lengths = []
    for group in instrument.values() if isinstance(instrument, h5py.Group) else ():
        for key in ("data", "image") if isinstance(group, h5py.Group) else ():
            data = group.get(key)
            if isinstance(data, h5py.Dataset) and data.ndim == 3:
                if data.shape[0] == points:
                    return data
                lengths.append(str(data.shape[0]))
    found = f"its stacks have {', '.join(lengths)}" if lengths else "it has none"
    raise FileFormatError(f"{path}: scan {entry.name[1:]} should have {points} frames by its title, and {found}")


def _check_sources(data: h5py.Dataset, path: Path) -> None:
    """See that the files behind a virtual dataset are there: HDF5 shows zeros, without a word, where they are not."""
    needed: dict[tuple[Path, str], int] = {}
    for part in data.virtual_sources() if data.is_virtual else ():
        key = (path.parent / part.file_name if part.file_name != "." else path, part.dset_name)
        needed[key] = max(needed.get(key, 0), int(part.src_space.get_select_bounds()[1][0]) + 1)
    for (source, dataset), count in needed.items():
        there = count_frames(source, dataset)
        if there < count:
            raise FileFormatError(f"frame file {source} has {there} frames, and {count} of {path.name} lie in it")


def _column(entry: h5py.Group, name: str, points: int) -> NDArray[np.float64] | None:
    for place in (f"instrument/positioners/{name}", f"instrument/{name}/value", f"instrument/{name}/data"):
        data = entry.get(place)
        if isinstance(data, h5py.Dataset) and data.shape == (points,) and data.dtype.kind in "fiu":
            return data[()].astype(float)
    return None


@dataclass
class ScanFile:
    """A scan in an open file.

    Attributes
    ----------
    title : str
        Its command.
    command : ScanCommand
        The same, read.
    names : list of str
        Scanned axes, slow first; logical names where the file tells them.
    units : list of str
        Of the axes.
    positions : ndarray, shape (points, axes)
        Readbacks where they were recorded, else set-points.
    monitor : ndarray, shape (points,), or None
        Flux monitor of each frame.
    sample : str
        Name of the sample.
    setting : Setting
        Where everything else stood.
    ours : bool
        Whether this package wrote the file.
    beside : dict of str to ndarray, shape (points,)
        Positions at each point of other axes: by logical name those that followed a scanned one, and in a file of
        another program all that it has.
    planned : dict of str to float
        Where those that followed a scanned axis were to stand in the middle of the scan.
    """

    title: str
    command: ScanCommand
    names: list[str]
    units: list[str]
    positions: NDArray[np.float64]
    monitor: NDArray[np.float64] | None
    sample: str
    setting: Setting
    ours: bool
    beside: dict[str, NDArray[np.float64]]
    planned: dict[str, float]
    _data: h5py.Dataset

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the frames."""
        return int(self._data.shape[1]), int(self._data.shape[2])

    def middle(self) -> dict[str, float]:
        """Return where the scanned axes, and those that followed them, stand in the middle of the scan."""
        return {**dict(zip(self.names, self.command.middle(self.positions), strict=True)), **self.planned}

    def batches(self) -> Iterator[tuple[slice, NDArray]]:
        """Yield frames, whole lines as far as they fit, with the points they belong to.

        The frames are read into the same memory each time: the next ones take the place of those before.
        """
        most = frames_at_once(self.shape)
        memory = np.empty((min(most, self.command.points), *self.shape), self._data.dtype)
        for points in cut(self.command.points, self.command.line_length, most):
            frames = memory[: points.stop - points.start]
            self._data.read_direct(frames, np.s_[points])
            yield points, frames


def middle_of(places: Sequence[float]) -> float:
    """Return the middle between the lowest and the highest of some positions."""
    return float((min(places) + max(places)) / 2.0)


def frames_at_once(shape: tuple[int, int]) -> int:
    """Return how many frames are held in memory at a time: at most 64, and fewer if they take more than 256 MB."""
    return max(1, min(_MOST_FRAMES, _MOST_BYTES // (2 * shape[0] * shape[1])))


def cut(points: int, line_length: int, most: int) -> Iterator[slice]:
    """Cut a scan into parts of at most ``most`` points: several whole lines where they fit, else pieces of one line.

    Lines are cut at the same places however many are taken together, so that sums round in the same way.
    """
    if line_length <= most:
        step = most // line_length * line_length
        yield from (slice(start, min(start + step, points)) for start in range(0, points, step))
        return
    for line in range(0, points, line_length):
        end = min(line + line_length, points)
        yield from (slice(start, min(start + most, end)) for start in range(line, end, most))


@contextmanager
def open_scan(path: Path, scan: str, monitor: str | None) -> Iterator[ScanFile]:
    """Open a scan for reading.

    Parameters
    ----------
    path : Path
        HDF5 file.
    scan : str
        Entry, e.g. ``1.1``.
    monitor : str or None
        Flux monitor: ``auto`` (the one our records have), None, or its name or path in the entry.

    Raises
    ------
    FileFormatError
        When the file is absent, truncated, foreign, or lacks frames or positions; one sentence says which.
    """
    with _opened(path) as file:
        entry = _entry(file, scan, path)
        title = _text(entry["title"][()])
        record = entry.get("instrument/dfxm_control")
        ours = isinstance(record, h5py.Group)
        times = record.get("time") if ours else None
        if isinstance(times, h5py.Dataset) and not times.size:
            plan = _text(record["plan_name"][()]) if "plan_name" in record else "a plan"
            raise FileFormatError(
                f"{path}: scan {scan} of {plan} has no points, only what the plan says of itself; there is nothing to "
                "make maps of (`dfxrm series` reduces the runs of a series)"
            )
        command = parse_title(title)
        if not command.axes:
            raise FileFormatError(f"{path}: scan {scan} ({title!r}) moved no motor; maps need a scan that did")
        data = _stack(entry, command.points, path)
        _check_sources(data, path)
        setting = _setting(entry, record if ours else None, command, data)
        scanned = _scanned(record) if ours else ()
        columns, names, units = [], [], []
        for axis in command.axes:
            values = _column(entry, axis.name, command.points)
            name = setting.logical(axis.name) if ours else axis.name
            # the arm's angle is written under the name that other programs know, that of the objective's pitch
            if name == "obpitch" and "two_theta" in scanned:
                name = "two_theta"
            places = (record.get(f"readbacks/{each}") for each in (axis.name, name)) if ours else ()
            readback = next((place for place in places if place is not None), None)
            if isinstance(readback, h5py.Dataset) and readback.shape == (command.points,):
                values = readback[()].astype(float)
            if values is None or not np.isfinite(values).all():
                raise FileFormatError(
                    f"{path}: scan {scan} has no {command.points} positions of {axis.name!r}, which its title names"
                )
            columns.append(values)
            names.append(name)
            units.append(_units(entry, axis.name))
        yield ScanFile(
            title,
            command,
            names,
            units,
            np.stack(columns, axis=1),
            _monitor(entry, record if ours else None, command.points, monitor, path, setting),
            _sample(entry),
            setting,
            ours,
            _followers(record, setting, names, command.points) if ours else _beside(entry, command),
            _planned(record) if ours else {},
            data,
        )


def _scanned(record: h5py.Group) -> tuple[str, ...]:
    """Return the logical names of the scanned axes as the plan of our own record has them."""
    axes = record.get("scan_axes_json")
    return tuple(axis["name"] for axis in json.loads(_text(axes[()]))) if isinstance(axes, h5py.Dataset) else ()


def _planned(record: h5py.Group) -> dict[str, float]:
    """Return the middle of where each axis that followed a scanned one was to go."""
    followers = record.get("followers_json")
    if not isinstance(followers, h5py.Dataset):
        return {}
    return {
        name: middle_of(places)
        for following in json.loads(_text(followers[()])).values()
        for name, places in following.items()
    }


def _followers(
    record: h5py.Group, setting: Setting, names: Sequence[str], points: int
) -> dict[str, NDArray[np.float64]]:
    """Return the readbacks, one per point, of axes that followed a scanned one, by logical name."""
    group = record.get("readbacks")
    columns = {setting.logical(name): data for name, data in group.items()} if isinstance(group, h5py.Group) else {}
    return {
        name: data[()].astype(float)
        for name, data in columns.items()
        # the arm is scanned under the name that other programs know
        if name not in names and not (name == "obpitch" and "two_theta" in names) and data.shape == (points,)
    }


def _beside(entry: h5py.Group, command: ScanCommand) -> dict[str, NDArray[np.float64]]:
    """Return the positions, one per point, of axes that the title does not name."""
    group = entry.get("instrument/positioners")
    named = {axis.name for axis in command.axes}
    found = {}
    for name in group if isinstance(group, h5py.Group) else ():
        column = _column(entry, name, command.points) if name not in named else None
        if column is not None and np.isfinite(column).all():
            found[name] = column
    return found


def _units(entry: h5py.Group, name: str) -> str:
    for place in (f"instrument/positioners/{name}", f"instrument/{name}/value"):
        data = entry.get(place)
        if isinstance(data, h5py.Dataset) and "units" in data.attrs:
            return _text(data.attrs["units"])
    return "mm" if name.startswith(("sam", "u", "ob", "ff")) and not name.endswith(("pitch", "yaw")) else "deg"


def _sample(entry: h5py.Group) -> str:
    name = entry.get("sample/name")
    return _text(name[()]) if isinstance(name, h5py.Dataset) else ""


def _setting(entry: h5py.Group, record: h5py.Group | None, command: ScanCommand, data: h5py.Dataset) -> Setting:
    setting = Setting({}, exposure_s=command.exposure_s)
    detector = data.name.split("/")[-2]
    pixel = entry.get(f"instrument/{detector}/x_pixel_size")
    if isinstance(pixel, h5py.Dataset) and pixel.ndim == 0:
        setting.sensor_pixel_um = float(pixel[()])
    if record is not None and "instrument_json" in record:
        setting.instrument = Setting.described(json.loads(_text(record["instrument_json"][()])), entry.file.filename)
        channels = record.get("channels")
        if isinstance(channels, h5py.Group):
            values = {
                name: item[()] for name, item in channels.items() if isinstance(item, h5py.Dataset) and not item.ndim
            }
            setting.channels = {name: _text(v) if isinstance(v, bytes) else v for name, v in values.items()}
        setting.camera = setting.logical(detector)
        if "sample_json" in record:
            setting.sample = json.loads(_text(record["sample_json"][()]))
    for place in ("instrument/positioners", "instrument/positioners_start"):
        group = entry.get(place)
        if isinstance(group, h5py.Group):
            found = {name: item[()] for name, item in group.items() if isinstance(item, h5py.Dataset) and not item.ndim}
            for name, value in scalars(found).items():
                if setting.logical(name) not in setting.positions:
                    setting.add_position(name, value)
    return setting


def _monitor(
    entry: h5py.Group, record: h5py.Group | None, points: int, wanted: str | None, path: Path, setting: Setting
) -> NDArray[np.float64] | None:
    if wanted is None:
        return None
    if wanted == "auto":
        data = record.get("monitor") if record is not None else None
        if not isinstance(data, h5py.Dataset):
            setting.note("intensities are not divided by a flux monitor: none is known in this file")
            return None
    else:
        counters = entry.file.get(f"{entry.name.rsplit('.', 1)[0]}.2")
        places = [
            group.get(place)
            for group in (entry, counters)
            if isinstance(group, h5py.Group)
            for place in (wanted, f"measurement/{wanted}", f"instrument/{wanted}/data", f"instrument/{wanted}/value")
        ]
        data = next((place for place in places if isinstance(place, h5py.Dataset)), None)
        if data is None:
            raise ParameterError(f"monitor {wanted!r} is not in {path}, scan {entry.name[1:]}")
    if data.shape != (points,):
        raise ParameterError(f"monitor {wanted!r} of {path} has {data.size} readings for {points} frames")
    return data[()].astype(float)


def read_darks(path: Path, scans: str) -> tuple[Dark, Dark]:
    """Average the frames of a ``loopscan``, or of several.

    Parameters
    ----------
    path : Path
        HDF5 file.
    scans : str
        Entry, e.g. ``2.1``; several joined by ``+``.

    Returns
    -------
    tuple of Dark
        Of the first entry, and of all.

    Raises
    ------
    FileFormatError
        As for `open_scan`, and when an entry is a scan in which something moved.
    """
    average: DarkFrames | None = None
    found: list[Dark] = []
    with _opened(path) as file:
        for name in scans.split("+"):
            entry = _entry(file, name, path)
            command = parse_title(_text(entry["title"][()]))
            if command.axes:
                raise FileFormatError(f"{path}: scan {name} moved {command.axes[0].name!r}; darks are a loopscan")
            data = _stack(entry, command.points, path)
            _check_sources(data, path)
            average = average or DarkFrames((data.shape[1], data.shape[2]))
            for points in cut(command.points, command.points, frames_at_once((data.shape[1], data.shape[2]))):
                average.add(data[points])
            found.append(average.result())
    return found[0], found[-1]


def recorded_darks(path: Path) -> str:
    """Return the entries of a record of ours that hold its darks, joined by ``+``; empty when it has none."""
    with _opened(path) as file:
        return "+".join(name for name in ("2.1", "3.1") if name in file)
