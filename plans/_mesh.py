"""The one machine under every scan: a regular mesh of axes, line by line, with darks, shutter, metadata and clean-up.

What a point, a line and a run are made of stands here once. A scan decides only which axes go where.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bluesky import preprocessors as bpp
from bluesky.protocols import Stageable
from bluesky.utils import Msg

from dfxrm_control.acquisition import FrameBatch, FrameCamera
from dfxrm_control.errors import DeviceError, LimitError, ParameterError
from dfxrm_control.parameters import ScanParameters
from dfxrm_control.windows import ScanAxis
from plans._beam import all_well, take_good_event
from plans._events import shutter_to, take_event
from plans._flat import MsgGenerator
from plans._instrument import Axis, Instrument

__all__ = [
    "Mesh",
    "always",
    "mesh_scan",
    "position_of",
    "read_channels",
    "read_positions",
]


@dataclass(frozen=True)
class Mesh:
    """A regular mesh, walked line by line along its last axis.

    Attributes
    ----------
    axes : tuple of ScanAxis
        Slowest first; the last one is the line.
    snake : bool
        Every other line, and every other sweep of a middle axis, runs backwards.
    followers : mapping of str to mapping
        Positions of axes that go with a scanned one: by its name, by theirs, one for each of its positions. They are
        read at each point beside the scanned axes.
    """

    axes: tuple[ScanAxis, ...]
    snake: bool = False
    followers: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of positions of each axis."""
        return tuple(axis.num for axis in self.axes)

    @property
    def num_points(self) -> int:
        """Number of points."""
        total = 1
        for axis in self.axes:
            total *= axis.num
        return total

    @property
    def line(self) -> ScanAxis:
        """The fast axis."""
        return self.axes[-1]

    def targets(self, axis: ScanAxis) -> dict[float, list[tuple[str, float]]]:
        """Return, for each position of an axis, where it and those that follow it go."""
        following = self.followers.get(axis.name, {})
        return {
            position: [(axis.name, position), *((name, places[index]) for name, places in following.items())]
            for index, position in enumerate(axis.positions())
        }

    def lines(self) -> Iterator[tuple[tuple[float, ...], list[float]]]:
        """Yield, for each line, the positions of the slow axes and those along the line."""
        forth = self.line.positions()
        back = forth[::-1] if self.snake else forth
        for count, slow in enumerate(self._sweep(self.axes[:-1])):
            yield slow, back if count % 2 else forth

    def _sweep(self, axes: Sequence[ScanAxis]) -> Iterator[tuple[float, ...]]:
        if not axes:
            yield ()
            return
        inner = list(self._sweep(axes[1:]))
        for count, position in enumerate(axes[0].positions()):
            for rest in reversed(inner) if self.snake and count % 2 else inner:
                yield (position, *rest)


def mesh_scan(
    instrument: Instrument,
    mesh: Mesh,
    parameters: ScanParameters,
    *,
    title: str,
    remarks: Sequence[str] = (),
    physics: Mapping[str, Any] | None = None,
    md: Mapping[str, Any],
) -> MsgGenerator:
    """Scan a mesh with one frame per point, and leave everything safe however it ends.

    Everything that can be known to be wrong is refused before the first move. Whatever happens afterwards, the shutter
    is closed first, then the camera's file, then the run; then the axes go where the parameters say.

    Parameters
    ----------
    instrument : Instrument
        The devices.
    mesh : Mesh
        Where to go.
    parameters : ScanParameters
        Exposure, camera, darks, and where to leave the axes.
    title : str
        The scan as a BLISS command, which is where darling and others read motors and shape from.
    remarks : sequence of str
        What the user was warned about; kept with the run.
    physics : mapping, optional
        What the scan says of its own measurement, for ``dfxrm`` in the start document.
    md : mapping
        The user's metadata.

    Raises
    ------
    ParameterError, LimitError
        Before the first move: unknown axis or camera, exposure or position out of bounds.
    """
    camera_name = parameters.camera or instrument.defaults.camera
    camera = instrument.camera(camera_name)
    _check_exposure(instrument, camera_name, parameters.exposure_s)
    axes = [instrument.axis(axis.name) for axis in mesh.axes]
    for axis, where in zip(axes, mesh.axes, strict=True):
        _check_positions(axis, where.positions())
    followers: dict[str, Axis] = {}
    for leader, following in mesh.followers.items():
        for name, places in following.items():
            followers[name] = instrument.axis(name)
            try:
                _check_positions(followers[name], places)
            except LimitError as error:
                raise LimitError(
                    f"{error}, where it is to follow {leader}; follow_focus=False leaves it where it is"
                ) from error
    darks_before = instrument.defaults.darks if parameters.darks_before is None else parameters.darks_before
    exposure_s = parameters.exposure_s
    others = list(instrument.per_event.values())

    def darks(count: int, stream: str) -> MsgGenerator:
        yield from shutter_to(instrument, "closed")
        yield from _prepare(camera, FrameBatch(count, exposure_s))
        for _ in range(count):
            yield Msg("checkpoint")
            yield from take_event(camera, others, stream)
        yield from _complete(camera)

    def frames() -> MsgGenerator:
        readables = [*axes, *followers.values(), *others]
        devices = {axis.name: axis for axis in (*axes, *followers.values())}
        *slow_targets, fast_targets = (mesh.targets(axis) for axis in mesh.axes)
        reached: list[float | None] = [None] * len(slow_targets)
        yield from shutter_to(instrument, "open")
        for slow, line in mesh.lines():
            yield Msg("checkpoint")
            yield from _prepare(camera, FrameBatch(len(line), exposure_s))
            moves = [
                move
                for targets, there, before in zip(slow_targets, slow, reached, strict=True)
                if before != there
                for move in targets[there]
            ]
            reached = list(slow)
            for position in line:
                yield Msg("checkpoint")
                for name, target in (*moves, *fast_targets[position]):
                    yield Msg("set", devices[name], target, group="move")
                yield Msg("wait", None, group="move")
                yield from take_good_event(instrument, camera, readables)
                moves = []
            yield Msg("checkpoint")
            yield from _complete(camera)

    def whole() -> MsgGenerator:
        # a plan halted between two messages of an event leaves the RunEngine unable to rewind
        yield Msg("rewindable", None, True)
        if darks_before:
            yield from darks(darks_before, "darks_before")
        yield from frames()
        if parameters.darks_after:
            yield from darks(parameters.darks_after, "darks_after")

    def make_safe() -> MsgGenerator:
        yield Msg("rewindable", None, True)
        yield from shutter_to(instrument, "closed")

    starts = {}
    for axis in axes:
        starts[axis.name] = yield from position_of(axis)
    # an axis that is computed from others need not have stood where it says: each part goes back to where it was
    parts = {axis.name: _parts(axis) for axis in axes}
    for leader, following in mesh.followers.items():
        parts[leader] += [followers[name] for name in following]
    for part in (part for group in parts.values() for part in group if part.name not in starts):
        starts[part.name] = yield from position_of(part)

    def go_back(axis: Axis) -> Callable[[], MsgGenerator]:
        def plan() -> MsgGenerator:
            for part in parts[axis.name]:
                yield Msg("set", part, starts[part.name], group="return")
            yield Msg("wait", None, group="return")

        return plan

    expected = _expected(mesh, axes, followers, starts)
    record = _metadata(
        instrument, mesh, axes, camera, parameters, title, remarks, (darks_before, parameters.darks_after)
    )
    record.update({key: value for key, value in md.items() if key != "dfxrm"})
    back = (parameters.after or instrument.defaults.after) == "start"
    record["dfxrm"] = {
        **md.get("dfxrm", {}),
        **record["dfxrm"],
        **(physics or {}),
        "expected": expected,
        # where the scanned axes are when all is over, which no event of the run tells
        "brought_back": starts if back else {},
    }
    yield from all_well(instrument)
    stages = [device for device in (camera, *others) if isinstance(device, Stageable)]
    run = bpp.run_wrapper(always(whole(), make_safe, lambda: _complete(camera)), md=record)
    staged = bpp.stage_wrapper(run, stages)
    leave = [go_back(axis) for axis in axes] if back else []
    return (yield from always(staged, *leave))


def always(plan: MsgGenerator, *cleanups: Callable[[], MsgGenerator]) -> MsgGenerator:
    """Run a plan and then every clean-up, whatever the plan or another clean-up does.

    Unlike bluesky's finalize_wrapper, the error that is raised is the first one; what fails later is noted on it.
    """
    failure: BaseException | None = None
    result = None
    try:
        result = yield from plan
    except GeneratorExit:
        raise
    except BaseException as error:
        failure = error
    for cleanup in cleanups:
        try:
            yield from cleanup()
        except GeneratorExit:
            raise
        except BaseException as error:
            if failure is None:
                failure = error
            else:
                failure.add_note(f"while cleaning up: {error}")
    if failure is not None:
        raise failure
    return result


def position_of(axis: Axis) -> Generator[Msg, Any, float]:
    """Return where an axis was sent to, or where it is if it cannot say: scans that return do not creep."""
    reading = yield Msg("read", axis)
    for key in (f"{axis.name}_setpoint", axis.name):
        if reading and key in reading:
            return float(reading[key]["value"])
    raise DeviceError(f"axis {axis.name!r} gives no position; is it connected?")


def read_positions(devices: Mapping[str, Any]) -> Generator[Msg, Any, dict[str, Any]]:
    """Return the present value of each device, by logical name."""
    values = {}
    for name, device in devices.items():
        reading = yield Msg("read", device)
        if reading and name in reading:
            values[name] = reading[name]["value"]
    return values


def read_channels(instrument: Instrument) -> Generator[Msg, Any, dict[str, Any]]:
    """Return all that the channels and the readings of every event say at present, by data key."""
    values: dict[str, Any] = {}
    for channel in {**instrument.channels, **instrument.per_event}.values():
        reading = yield Msg("read", channel)
        values |= {key: field["value"] for key, field in (reading or {}).items()}
    return values


def _parts(axis: Axis) -> list[Axis]:
    """Return the axes that an axis is computed from, or itself where it is none."""
    real_axes: Callable[[], Mapping[str, Axis]] | None = getattr(axis, "real_axes", None)
    return list(real_axes().values()) if real_axes is not None else [axis]


def _prepare(camera: FrameCamera, batch: FrameBatch) -> MsgGenerator:
    yield Msg("prepare", camera, batch, group="prepare")
    yield Msg("wait", None, group="prepare")


def _complete(camera: FrameCamera) -> MsgGenerator:
    yield Msg("complete", camera, group="complete")
    yield Msg("wait", None, group="complete")


def _check_exposure(instrument: Instrument, camera: str, exposure_s: float) -> None:
    bounds = instrument.config.cameras.get(camera)
    if bounds and not bounds.min_exposure_s <= exposure_s <= bounds.max_exposure_s:
        raise ParameterError(
            f"exposure_s: {exposure_s:g} s was asked of camera {camera!r}, which exposes {bounds.min_exposure_s:g} to "
            f"{bounds.max_exposure_s:g} s"
        )


def _check_positions(axis: Axis, positions: Sequence[float]) -> None:
    """Ask an axis for every position it will be sent to."""
    check = getattr(axis, "check_value", None)
    if check is None:
        return
    for position in positions:
        try:
            check(position)
        except LimitError:
            raise
        except Exception as error:
            raise LimitError(f"axis {axis.name!r} cannot go to {position:g}: {error}") from error


def _expected(
    mesh: Mesh, axes: Sequence[Axis], followers: Mapping[str, Axis], starts: Mapping[str, float]
) -> dict[str, float]:
    """Return how long the axes should need from point to point and, in the mean, from line to line, s.

    0 where they cannot tell.
    """

    def takes(axis: Axis, distance: float) -> float:
        ask = getattr(axis, "expected_duration_s", None)
        return float(ask(starts[axis.name] + distance)) if ask is not None else 0.0

    def duration(index: int, distance: float) -> float:
        scanned = mesh.axes[index]
        span = scanned.step * (scanned.num - 1)
        # those that follow go nearly in proportion
        share = distance / span if span else 0.0
        following = mesh.followers.get(scanned.name, {})
        return max(
            takes(axes[index], distance),
            *(takes(followers[name], (places[-1] - places[0]) * share) for name, places in following.items()),
            0.0,
        )

    step_s = duration(-1, mesh.line.step)
    # where a slower axis steps, all faster ones go back to their start, unless they run backwards next
    rewind_s, slower = 0.0, mesh.num_points // mesh.line.num
    turns: list[tuple[int, float]] = []
    for index in range(-2, -len(axes) - 1, -1):
        faster, axis = mesh.axes[index + 1], mesh.axes[index]
        if not mesh.snake:
            rewind_s = max(rewind_s, duration(index + 1, faster.step * (faster.num - 1)))
        slower //= axis.num
        turns.append(((axis.num - 1) * slower, max(rewind_s, duration(index, axis.step))))
    count = sum(number for number, _ in turns)
    mean_s = sum(number * time_s for number, time_s in turns) / count if count else 0.0
    return {"step_s": step_s, "turn_s": max(step_s, mean_s)}


def _plain(followers: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, list[float]]]:
    """Return who follows whom where as JSON has it."""
    return {
        leader: {name: list(places) for name, places in following.items()} for leader, following in followers.items()
    }


def _hinted(axis: Axis) -> list[str]:
    hints = getattr(axis, "hints", None) or {}
    return list(hints.get("fields", ())) or [axis.name]


def _metadata(
    instrument: Instrument,
    mesh: Mesh,
    axes: Sequence[Axis],
    camera: FrameCamera,
    parameters: ScanParameters,
    title: str,
    remarks: Sequence[str],
    darks: tuple[int, int],
) -> dict[str, Any]:
    """Return the standard bluesky metadata of a mesh, and ours."""
    return {
        "plan_name": parameters.plan,
        "plan_args": parameters.model_dump(mode="json"),
        "detectors": [camera.name],
        "motors": [axis.name for axis in axes],
        "num_points": mesh.num_points,
        "num_intervals": mesh.num_points - 1,
        "shape": list(mesh.shape),
        "extents": [sorted((axis.start, axis.stop)) for axis in mesh.axes],
        "snaking": [False, *(mesh.snake for _ in mesh.axes[1:])],
        "plan_pattern": "outer_product",
        "hints": {"dimensions": [[_hinted(axis), "primary"] for axis in axes], "gridding": "rectilinear"},
        "dfxrm": {
            "schema": 1,
            "scan_axes": [axis.record() for axis in mesh.axes],
            **({"followers": _plain(mesh.followers)} if mesh.followers else {}),
            "line_length": mesh.line.num,
            "exposure_s": parameters.exposure_s,
            "camera": camera.name,
            "darks": {"before": darks[0], "after": darks[1]},
            "title": title,
            "parameters": parameters.record(),
            "warnings": list(remarks),
        },
    }
