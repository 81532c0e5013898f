"""The replay microscope: a recorded BLISS scan stands for the hardware and answers with the frames it recorded.

A plan that runs on it asks for motor positions; the frame that was recorded there is what its camera sees. Nothing is
interpolated: where no frame was recorded, there is none. So real frames go through the whole chain from plan to map.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (frames of the beamline are bitshuffle-compressed)
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.backend import ChannelValue, Frame, FrameRequest
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import ConfigError, DeviceError, FileFormatError
from dfxrm_control.reduction import parse_title
from simulators.clock import make_clock
from simulators.state import Axes, Channels, Choice, Range, ReadOnly

__all__ = ["Replay"]


@dataclass(frozen=True)
class _Dimension:
    """One motor of the recorded scan and the size of its steps."""

    motor: str
    step: float


@dataclass(frozen=True)
class _Stack:
    """Recorded frames, read one by one when they are asked for, so that a scan of any size can be replayed."""

    path: Path
    dataset: str
    shape: tuple[int, int, int]

    def read(self, index: int) -> NDArray:
        """Return one frame; the file is open only meanwhile, so that it stays free for everybody else."""
        with _opened(self.path) as recorded:
            return recorded[self.dataset][index].astype(np.uint16, copy=False)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        recorded = h5py.File(path, "r")
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read as HDF5: {error}") from error
    with recorded:
        yield recorded


class Replay:
    """A `dfxrm_control.backend.Backend` over one recorded scan.

    Axes go by the names the recording uses. The scanned ones move freely; every other axis of the configuration stands
    where the recording (or, where it does not say, ``start`` of the configuration) has it, and cannot be moved, because
    what the camera would then have seen is not known.

    Parameters
    ----------
    config : MicroscopeConfig
        The configuration the axes, their starts and the camera are taken from.
    file : str
        The recorded HDF5 file. ``package:path`` names a file inside an installed Python package.
    scan : str
        Entry of the scan, e.g. ``1.1``.
    detector : str
        NXdetector group that holds the frames.
    camera : str
        Logical name of the camera that gives them.
    darks : str, optional
        Entry of a recorded ``loopscan`` of dark frames, which a closed shutter then shows one after the other.
    monitor : str, optional
        Dataset of the scan's entry with one flux value per frame. Without it the monitor reads a constant 1.
    clock : {"fast", "real", "stepped"}
        Whose time passes, as for the twin.

    Raises
    ------
    ConfigError
        When the file is not where it should be, or the camera of the configuration has another shape.
    FileFormatError
        When the file is no recorded scan of the BLISS layout.
    """

    def __init__(
        self,
        config: MicroscopeConfig,
        *,
        file: str,
        scan: str = "1.1",
        detector: str = "pco_ff",
        camera: str = "far_field",
        darks: str | None = None,
        monitor: str | None = None,
        clock: str = "fast",
    ) -> None:
        self._camera = camera
        self._clock = make_clock(clock)
        self._exposed = 0
        self._darks_shown = 0
        self._path = _locate(file)
        self._scan = scan
        self._dark_frames: _Stack | None = None
        self._monitor: NDArray | None = None
        self._read_scan(detector, darks, monitor)
        described = config.instrument.cameras.get(camera)
        if described is None:
            raise ConfigError(
                f"backend.options.camera: {camera!r} is not one of the cameras {', '.join(config.instrument.cameras)}"
            )
        _, rows, columns = self._frames.shape
        if (described.rows, described.columns) != (rows, columns):
            raise ConfigError(
                f"instrument.cameras.{camera}: the frames of {self._path.name} have {rows} rows and {columns} columns, "
                f"the configuration says {described.rows} and {described.columns}"
            )
        self._axes = Axes(self._starting_positions(config))
        recorded_so = {
            "condenser": "line",
            "objective_in": "in",
            "objective_kind": next(iter(config.instrument.objectives)),
            f"{camera}_camera_objective": next(iter(described.objectives)),
            "mono": "in" if config.instrument.monochromator else "out",
        }
        channels: dict[str, tuple[ChannelValue, Choice | Range | ReadOnly]] = {
            channel: (value, Choice((value,))) for channel, value in recorded_so.items()
        }
        channels["shutter"] = ("closed", Choice(("open", "closed")))
        channels["attenuator"] = (1.0, ReadOnly())
        channels["ring_current"] = (self._ring_current_ma or config.instrument.beam.ring_current_ma, ReadOnly())
        channels["monitor"] = (0.0, ReadOnly())
        self._channels = Channels(channels)

    # -- reading the recording --------------------------------------------------------------------------------

    def _read_scan(self, detector: str, darks: str | None, monitor: str | None) -> None:
        with _opened(self._path) as recorded:
            entry = _entry(recorded, self._scan, self._path)
            title = _title(entry, self._path)
            self._dimensions = _dimensions(title, self._path)
            self._frames = _frames(entry, detector, self._path)
            frames = self._frames.shape[0]
            motors = []
            for dimension in self._dimensions:
                values = _motor(entry, dimension.motor)
                if values is None or values.shape != (frames,):
                    raise FileFormatError(
                        f"{self._path}: entry {self._scan} has {frames} frames but no position of "
                        f"{dimension.motor!r} for each of them"
                    )
                motors.append(values)
            self._recorded = np.column_stack(motors)
            self._reach = np.array([dimension.step / 2 for dimension in self._dimensions])
            self._still = {
                name: float(value[()])
                for name, value in entry.get("instrument/positioners", {}).items()
                if value.shape == () and value.dtype.kind == "f"
            }
            current = entry.get("instrument/machine/current")
            self._ring_current_ma = float(current[()]) if current is not None else 0.0
            if monitor is not None:
                if monitor not in entry or entry[monitor].shape != (frames,):
                    raise ConfigError(
                        f"backend.options.monitor: {monitor!r} is not a dataset of entry {self._scan} with one value "
                        f"for each of its {frames} frames"
                    )
                self._monitor = entry[monitor][()].astype(float)
            if darks is not None:
                self._dark_frames = _frames(_entry(recorded, darks, self._path), detector, self._path)

    def _starting_positions(self, config: MicroscopeConfig) -> dict[str, float]:
        positions: dict[str, float] = {}
        scanned = {dimension.motor: column for column, dimension in enumerate(self._dimensions)}
        for device in config.devices.values():
            for logical, axis in device.axes.items():
                address = axis.address or logical
                if address in scanned:
                    positions[address] = float(self._recorded[0, scanned[address]])
                elif address in self._still:
                    positions[address] = self._still[address]
                elif axis.start is not None:
                    positions[address] = axis.start
                else:
                    positions[address] = 0.0
        unserved = [motor for motor in scanned if motor not in positions]
        if unserved:
            raise ConfigError(
                f"devices: no axis has the address {unserved[0]!r}, which the recorded scan of {self._path.name} moves"
            )
        return positions

    # -- clock, axes and channels -------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time of the clock in seconds."""
        return self._clock.now()

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Wait for a time of the clock in seconds, or until ``cancelled()`` is true."""
        self._clock.wait_until(time_s, cancelled)

    def axes(self) -> Mapping[str, float]:
        """Return the present position of every axis by address."""
        return self._axes.positions(self.now())

    def position(self, axis: str) -> float:
        """Return the present position of one axis; raises DeviceError for an axis that does not exist."""
        return self._axes.position(axis, self.now())

    def start_move(self, axis: str, target: float, velocity: float, acceleration_s: float) -> float:
        """Start a move and return when it will end; raises DeviceError for an axis the recording does not move."""
        here = self.position(axis)
        scanned = [dimension.motor for dimension in self._dimensions]
        if axis not in scanned and not math.isclose(here, target, abs_tol=1e-9):
            raise DeviceError(
                f"axis {axis!r} cannot be moved to {target:g} in a replay: it stood at {here:g}, and the scan recorded "
                f"in {self._path.name} moves only {' and '.join(scanned)}"
            )
        return self._axes.start_move(axis, target, velocity, acceleration_s, self.now())

    def stop(self, axis: str) -> float:
        """Stop an axis where it is and return that position."""
        return self._axes.stop(axis, self.now())

    def get(self, channel: str) -> ChannelValue:
        """Return the value of a channel; raises DeviceError for one that does not exist."""
        return self._channels.get(channel)

    def put(self, channel: str, value: ChannelValue) -> None:
        """Open or close the shutter; raises DeviceError for any other change, which the recording cannot answer."""
        self._channels.put(channel, value)

    # -- camera -----------------------------------------------------------------------------------------------

    def frame_shape(self, camera: str) -> tuple[int, int]:
        """Return (rows, columns) of the recorded frames."""
        self._require_camera(camera)
        _, rows, columns = self._frames.shape
        return rows, columns

    def expose(self, request: FrameRequest) -> Frame:
        """Return the frame that was recorded where the scanned axes stand now.

        Raises
        ------
        DeviceError
            When the axes are further than half a step from every recorded position, or the shutter is closed and no
            darks were recorded.
        """
        self._require_camera(request.camera)
        start = self.now()
        if self.get("shutter") == "open":
            index = self._recorded_at()
            data = self._frames.read(index)
            monitor = float(self._monitor[index]) if self._monitor is not None else 1.0
        else:
            data, monitor = self._next_dark(), 0.0
        end = start + request.exposure_s
        self.wait_until(end)
        self._channels.happen("monitor", monitor)
        number = request.number if request.number >= 0 else self._exposed
        self._exposed += 1
        current = float(self.get("ring_current"))
        return Frame(data, number, monitor, current, start, end)

    def _require_camera(self, camera: str) -> None:
        if camera != self._camera:
            raise DeviceError(f"the replay has no camera {camera!r}; it has {self._camera}")

    def _recorded_at(self) -> int:
        here = np.array([self.position(dimension.motor) for dimension in self._dimensions])
        away = np.abs(self._recorded - here) / self._reach
        # the tolerance lets a position exactly between two frames find one of them
        near = np.flatnonzero((away <= 1 + 1e-9).all(axis=1))
        if near.size == 0:
            asked = ", ".join(
                f"{dimension.motor} {position:g}" for dimension, position in zip(self._dimensions, here, strict=True)
            )
            raise DeviceError(f"no frame was recorded at {asked}; {self._path.name} has {self._coverage()}")
        return int(near[np.argmin((away[near] ** 2).sum(axis=1))])

    def _coverage(self) -> str:
        lowest, highest = self._recorded.min(axis=0), self._recorded.max(axis=0)
        return ", ".join(
            f"{dimension.motor} {low:.4g} to {high:.4g} in steps of {dimension.step:g}"
            for dimension, low, high in zip(self._dimensions, lowest, highest, strict=True)
        )

    def _next_dark(self) -> NDArray:
        if self._dark_frames is None:
            raise DeviceError(
                f"the shutter is closed and {self._path.name} holds no recorded darks: open it, or ask for 0 darks"
            )
        frame = self._dark_frames.read(self._darks_shown % self._dark_frames.shape[0])
        self._darks_shown += 1
        return frame


def _locate(file: str) -> Path:
    package, colon, inside = file.partition(":")
    if not colon:
        path = Path(file).expanduser()
    else:
        # found without importing it: a package of analysis code may compile for a minute when imported
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                f"backend.options.file: {file!r} is inside the Python package {package!r}, which is not installed "
                f"(darling comes with: pip install 'dfxrm-control[interop]')"
            )
        path = Path(list(spec.submodule_search_locations)[0]) / inside
    if not path.is_file():
        raise ConfigError(f"backend.options.file: {path} is not there")
    return path


def _entry(recorded: h5py.File, name: str, path: Path) -> h5py.Group:
    if name not in recorded:
        raise FileFormatError(f"{path} has no entry {name!r}; it has {', '.join(recorded) or 'none'}")
    return recorded[name]


def _title(entry: h5py.Group, path: Path) -> str:
    if "title" not in entry:
        raise FileFormatError(f"{path}: entry {entry.name} has no title, which would say what was scanned")
    title = entry["title"][()]
    return title.decode() if isinstance(title, bytes) else str(title)


def _dimensions(title: str, path: Path) -> list[_Dimension]:
    command = parse_title(title)
    if not command.axes:
        raise FileFormatError(f"{path}: title {title!r} is that of a scan that moves nothing")
    return [_Dimension(axis.name, abs(axis.step)) for axis in command.axes]


def _frames(entry: h5py.Group, detector: str, path: Path) -> _Stack:
    for place in (f"instrument/{detector}/data", f"instrument/{detector}/image", f"measurement/{detector}"):
        found = entry.get(place)
        if isinstance(found, h5py.Dataset) and found.ndim == 3:
            return _Stack(path, found.name, found.shape)
    raise FileFormatError(f"{path}: entry {entry.name} has no frames of a detector {detector!r}")


def _motor(entry: h5py.Group, motor: str) -> NDArray | None:
    for place in (f"instrument/{motor}/value", f"instrument/{motor}/data", f"instrument/positioners/{motor}"):
        found = entry.get(place)
        if isinstance(found, h5py.Dataset) and found.ndim == 1:
            return found[()].astype(float)
    return None
