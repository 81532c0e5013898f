"""What a plan would do, found out by running it with nothing behind it.

The plan runs message by message against the real device classes on a backend that is only a notebook of positions: the
limits that are checked, the pseudo axes that are worked out and the windows that are chosen are those of the run. No
control system is spoken to and no frame is made.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.acquisition import FrameBatch
from dfxrm_control.backend import ChannelValue, Frame, FrameRequest
from dfxrm_control.config import ChannelConfig, MicroscopeConfig
from dfxrm_control.errors import ConfigError, DeviceError, DfxrmError, ParameterError, RecordError, RunError
from dfxrm_control.parameters import PLAN_PARAMETERS
from dfxrm_control.session import Session, bind_plans, build_devices, kept_arm, reason_of, restore_arm

__all__ = ["DryRun", "Travel", "dry_run", "predict"]

_GB = 1e9
_BYTES_PER_PIXEL = 2


@dataclass
class Travel:
    """How far an axis goes during a plan, and how far it may.

    Attributes
    ----------
    lowest, highest : float
        Extreme positions, mm, deg or keV.
    lower_limit, upper_limit : float or None
        Limits; None where it has none, so that it may not move.
    units : str
        Unit of all of these.
    moves : int
        Number of moves.
    """

    lowest: float
    highest: float
    lower_limit: float | None
    upper_limit: float | None
    units: str
    moves: int = 0


@dataclass
class DryRun:
    """The report.

    Attributes
    ----------
    plan, config : str
        What was asked.
    start_from : str
        Where the start positions were taken from.
    arm : str or None
        What the arm counts from, where an alignment declared that and it is no ideal arm.
    travel : dict of Travel
        By logical axis, for those that move.
    frames, darks : int
        Frames with the shutter open and closed.
    exposed_s : float
        Time with the shutter open, s.
    duration_s : float
        Time for moves, exposures and read-out, s; what the computer adds is not in it.
    data_bytes, free_bytes : int
        Size of all frames before compression, and free space where they go.
    warnings, problems : list of str
        What is worth a thought, and what forbids the run.
    """

    plan: str
    config: str
    start_from: str
    arm: str | None = None
    travel: dict[str, Travel] = field(default_factory=dict)
    frames: int = 0
    darks: int = 0
    exposed_s: float = 0.0
    duration_s: float = 0.0
    data_bytes: int = 0
    free_bytes: int = 0
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, text, lists and mappings."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report as text."""
        lines = [f"{self.plan} on {self.config}, starting from {self.start_from}"]
        lines += [self.arm] if self.arm is not None else []
        for axis, travel in self.travel.items():
            limits = (
                "no limits"
                if travel.lower_limit is None
                else f"limits {travel.lower_limit:g} .. {travel.upper_limit:g}"
            )
            reach = f"{travel.lowest:.5f} .. {travel.highest:.5f} {travel.units}"
            lines.append(f"  {axis:<10} {reach} in {travel.moves} moves ({limits})")
        lines += [
            f"frames:   {self.frames} and {self.darks} darks",
            f"time:     {_time(self.duration_s)}, shutter open {_time(self.exposed_s)}",
            f"data:     {self.data_bytes / _GB:.3g} GB before compression, {self.free_bytes / _GB:.3g} GB free",
            *(f"warning:  {text}" for text in self.warnings),
            *(f"PROBLEM:  {text}" for text in self.problems),
            "the plan can run" if not self.problems else "the plan cannot run",
        ]
        return lines


def dry_run(
    config: MicroscopeConfig, plan: str, parameters: Mapping[str, Any], start: Mapping[str, float] | None = None
) -> DryRun:
    """Run a plan with nothing behind it and report what it would do.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope; axes on any control system are looked up in it, never spoken to.
    plan : str
        Name of the plan.
    parameters : mapping
        Its parameters; those the configuration gives for the plan stand where these say nothing.
    start : mapping of str to float, optional
        Start positions by logical axis, mm, deg or keV; default: ``start`` of each axis in the configuration.

    Returns
    -------
    DryRun
        With what forbids the run in ``problems``: a limit, an exposure, too little disk space.

    Raises
    ------
    ParameterError
        When there is no such plan, or a parameter is not valid.
    ConfigError
        When an axis has no start position.
    """
    if plan not in config.plans:
        raise ParameterError(f"plan {plan!r} is not in configuration {config.name!r}; it has {', '.join(config.plans)}")
    values = {**config.scan.parameters.get(plan, {}), **parameters}
    if plan in PLAN_PARAMETERS:
        PLAN_PARAMETERS[plan].check(values)
    offline = _offline(config)
    notebook = Notebook(offline, dict(start or {}))
    built = build_devices(offline, notebook)
    if built.faults:
        raise ConfigError(str(built.faults[0]))
    arm = kept_arm(config)
    restore_arm(built.channels, arm)
    _, plans = bind_plans(offline, built)
    report = DryRun(plan, config.name, "the given positions" if start else "the configuration")
    report.arm = arm.line() if arm is not None and arm.off else None
    walk = _Walk(report, notebook, built.axes, config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for axis, position in (start or {}).items():
                built.axes[axis].check_value(position)
            walk.follow(plans[plan](**parameters))
        except DfxrmError as error:
            report.problems.append(reason_of(error))
    # a plan made of many runs may say the same in each
    said = dict.fromkeys(str(warning.message) for warning in caught if _is_ours(warning.category))
    report.warnings += list(said)
    _look_at_disk(report, config)
    return report


def predict(
    config: MicroscopeConfig,
    plan: str,
    parameters: Mapping[str, Any],
    picture: Path,
    start: Mapping[str, float] | None = None,
) -> Path:
    """Run a plan on the twin, in a folder that is thrown away, and keep the picture of its map.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope; it needs a backend.
    plan : str
        Name of the plan.
    parameters : mapping
        Its parameters.
    picture : Path
        PNG file to write.
    start : mapping of str to float, optional
        Start positions by logical axis.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    ConfigError
        When nothing simulated stands behind the configuration.
    RunError
        When the run fails or gives no map.
    """
    if config.backend is None:
        raise ConfigError(f"configuration {config.name!r} has no backend, so there is no twin that could predict a map")
    offline = _offline(config)
    backend = config.backend.model_copy(update={"options": {**config.backend.options, "clock": "fast"}})
    with tempfile.TemporaryDirectory(prefix="dfxrm-predict-") as folder:
        data = config.data.model_copy(
            update={"directory": Path(folder, "data"), "journal_directory": Path(folder, "journal")}
        )
        twin = offline.model_copy(update={"backend": backend, "data": data})
        with Session(twin, maps=True, quiet=True) as session, warnings.catch_warnings():
            restore_arm(session.channels, kept_arm(config))
            warnings.simplefilter("ignore")  # the dry run itself has told them
            if start:
                session.move((session.axes[axis], position) for axis, position in start.items())
            outcome = session.run(plan, parameters)
        if outcome.picture is None:
            raise RunError(
                f"the twin ran {plan}, but gave no picture: {outcome.maps_fault or 'this plan makes no maps'}"
            )
        try:
            shutil.copyfile(outcome.picture, picture)
        except OSError as error:
            raise RecordError(f"picture {picture} cannot be written: {error.strerror or error}") from error
    return picture


def _is_ours(category: type[Warning]) -> bool:
    return category.__module__.split(".")[0] in ("dfxrm_control", "plans")


def _offline(config: MicroscopeConfig) -> MicroscopeConfig:
    """Return the configuration with every part in memory, by its logical name."""
    devices = {}
    for name, device in config.devices.items():
        axes = {
            axis: part.model_copy(update={"control": "memory", "address": ""}) for axis, part in device.axes.items()
        }
        channels = {
            channel: part.model_copy(update={"control": "memory", "address": ""})
            for channel, part in device.channels.items()
        }
        camera = (
            None if device.camera is None else device.camera.model_copy(update={"control": "memory", "address": ""})
        )
        devices[name] = device.model_copy(update={"axes": axes, "channels": channels, "camera": camera})
    return config.model_copy(update={"devices": devices})


class Notebook:
    """A backend that only notes where everything is (`dfxrm_control.backend.Backend`).

    Parameters
    ----------
    config : MicroscopeConfig
        The axes and channels.
    start : mapping of str to float
        Start positions that go before those of the configuration.
    """

    def __init__(self, config: MicroscopeConfig, start: Mapping[str, float]) -> None:
        self._config = config
        self._time_s = 0.0
        axes = {axis: part for device in config.devices.values() for axis, part in device.axes.items()}
        unknown = [axis for axis in start if axis not in axes]
        if unknown:
            raise ParameterError(
                f"start: axis {unknown[0]!r} is not in configuration {config.name!r}; it has {', '.join(axes)}"
            )
        # an axis that is computed from others may be described too; it has no start of its own and is never asked for
        known = {axis: start.get(axis, part.start) for axis, part in axes.items()}
        self._positions = {axis: float(position) for axis, position in known.items() if position is not None}
        self._channels = {
            channel: _first_value(config, channel, part)
            for device in config.devices.values()
            for channel, part in device.channels.items()
        }

    def now(self) -> float:
        """Return the time that would have passed, s."""
        return self._time_s

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Let time pass at once."""
        self._time_s = max(self._time_s, time_s)

    def axes(self) -> Mapping[str, float]:
        """Return the position of every axis."""
        return dict(self._positions)

    def position(self, axis: str) -> float:
        """Return the position of one axis; raises ConfigError when its start is not known."""
        if axis not in self._positions:
            raise ConfigError(
                f"axis {axis!r} has no start position, neither given nor in configuration {self._config.name!r}, so a "
                f"dry run is not possible"
            )
        return self._positions[axis]

    def start_move(self, axis: str, target: float, velocity: float, acceleration_s: float) -> float:
        """Note the target as the position; how long it takes is worked out by who follows the plan."""
        self._positions[axis] = target
        return self._time_s

    def stop(self, axis: str) -> float:
        """Return where the axis is."""
        return self.position(axis)

    def get(self, channel: str) -> ChannelValue:
        """Return the value of a channel."""
        return self._channels[channel]

    def put(self, channel: str, value: ChannelValue) -> None:
        """Note the value of a channel."""
        self._channels[channel] = value

    def frame_shape(self, camera: str) -> tuple[int, int]:
        """Return (rows, columns) of the camera's frames."""
        described = self._config.instrument.cameras[camera]
        return described.rows, described.columns

    def expose(self, request: FrameRequest) -> Frame:
        """Refuse: there is nothing to see."""
        raise DeviceError(f"camera {request.camera} takes no frames in a dry run")


def _first_value(config: MicroscopeConfig, channel: str, part: ChannelConfig) -> ChannelValue:
    if channel == "shutter":
        return "closed"
    if channel == "objective_kind":
        return next(iter(config.instrument.objectives))
    if part.choices is not None:
        return part.choices[0]
    return config.instrument.beam.ring_current_ma if channel == "ring_current" else 1.0


class _Walk:
    """Follows the messages of a plan and notes what each would do and how long it would take."""

    def __init__(self, report: DryRun, notebook: Notebook, axes: Mapping[str, Any], config: MicroscopeConfig) -> None:
        self._report = report
        self._notebook = notebook
        self._axes = axes
        self._config = config
        self._exposure_s: dict[str, float] = {}
        self._ends: dict[Any, float] = {}

    def follow(self, plan: Generator[Msg, Any, Any]) -> None:
        """Run the plan to its end; what it raises is raised."""
        answer: Any = None
        failure: BaseException | None = None
        while True:
            try:
                message = plan.throw(failure) if failure is not None else plan.send(answer)
            except StopIteration:
                return
            answer, failure = None, None
            handler = getattr(self, f"_on_{message.command}", None)
            try:
                if handler is not None:
                    answer = handler(message)
            except DfxrmError as error:
                failure = error
            self._report.duration_s = self._notebook.now()

    def _on_set(self, message: Msg) -> None:
        device, target = message.obj, message.args[0]
        device.check_value(target)
        takes = 0.0
        if device in self._axes.values():
            self._note(device.name, target)
            takes = device.expected_duration_s(target)
            forward = getattr(device, "forward", None)
            for axis, there in forward(target).items() if forward is not None else ((device.name, target),):
                if forward is not None:
                    self._note(axis, there)
                self._notebook.start_move(axis, there, math.inf, 0.0)
        else:
            self._notebook.put(device.name, target)
            if hasattr(device, "expected_duration_s"):
                takes = device.expected_duration_s(target)
        self._begin(message, takes)

    def _on_wait(self, message: Msg) -> None:
        group = message.kwargs.get("group", message.args[0] if message.args else None)
        self._notebook.wait_until(self._ends.pop(group, 0.0))

    def _on_prepare(self, message: Msg) -> None:
        if isinstance(message.args[0], FrameBatch):
            self._exposure_s[message.obj.name] = message.args[0].exposure_s
            message.obj.exposure.check_value(message.args[0].exposure_s)
        else:
            # a setting of the offline device, by which its next moves take their time
            message.obj.prepare(message.args[0])

    def _on_trigger(self, message: Msg) -> None:
        camera = self._config.instrument.cameras.get(message.obj.name)
        if camera is None:
            return
        exposure_s = self._exposure_s.get(message.obj.name, message.obj.exposure.get())
        report = self._report
        if self._notebook.get("shutter") == "open":
            report.frames += 1
            report.exposed_s += exposure_s
        else:
            report.darks += 1
        report.data_bytes += camera.rows * camera.columns * _BYTES_PER_PIXEL
        self._begin(message, exposure_s + camera.readout_s)

    def _on_read(self, message: Msg) -> Any:
        return message.obj.read()

    def _on_sleep(self, message: Msg) -> None:
        self._notebook.wait_until(self._notebook.now() + float(message.args[0]))

    def _begin(self, message: Msg, takes_s: float) -> None:
        group = message.kwargs.get("group")
        self._ends[group] = max(self._ends.get(group, 0.0), self._notebook.now() + takes_s)

    def _note(self, axis: str, target: float) -> None:
        device = self._axes[axis]
        low, high = device.limits
        bounded = low < high
        travel = self._report.travel.get(axis)
        if travel is None:
            here = device.position
            travel = Travel(here, here, low if bounded else None, high if bounded else None, device.egu)
            self._report.travel[axis] = travel
        travel.lowest, travel.highest = min(travel.lowest, target), max(travel.highest, target)
        travel.moves += 1


def _look_at_disk(report: DryRun, config: MicroscopeConfig) -> None:
    folder = Path(config.data.directory).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    report.free_bytes = shutil.disk_usage(folder).free
    kept = int(config.data.minimum_free_gb * _GB)
    if report.data_bytes + kept > report.free_bytes:
        report.problems.append(
            f"the frames take up to {report.data_bytes / _GB:.3g} GB, and {folder} has {report.free_bytes / _GB:.3g} "
            f"GB free, of which {kept / _GB:.3g} GB are kept (data.minimum_free_gb)"
        )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
