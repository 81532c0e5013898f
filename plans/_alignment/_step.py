"""What every step of an alignment is made of: one recorded run, lines of frames that are looked at, one finding.

A step takes frames along lines, each line a file of its own, and looks at them when the line is done. It ends with a
`Found`, which is an event of the stream ``found`` in its own run. When the step is sure, its axes go where it says;
when it is not, or fails, they go back to where they started.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from bluesky import preprocessors as bpp
from bluesky.protocols import Stageable
from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.acquisition import FrameBatch
from dfxrm_control.alignment import Found
from dfxrm_control.errors import LimitError, ParameterError
from dfxrm_control.parameters import AlignmentParameters
from plans._beam import all_well, take_good_event
from plans._events import shutter_to, take_event
from plans._flat import MsgGenerator
from plans._frames import RunFrames, watching
from plans._instrument import Instrument
from plans._mesh import always, position_of

__all__ = ["AssumedOutcomeWarning", "Look", "Place", "Step", "run_step", "set_channel"]

T = TypeVar("T")
Place = Mapping[str, float]
"""Where some axes are, by logical name."""
SATURATED_PIXELS = 4
"""More saturated pixels than that are no accident."""
SHORTER = 8.0
"""By how much the exposure is shortened where the camera saturates."""


class AssumedOutcomeWarning(UserWarning):
    """Nothing was seen, because nothing ran the plan: it went on with the outcome it expects.

    Attributes
    ----------
    takes_most : bool
        Whole search ranges were walked, so the run itself takes at most as long.
    """

    takes_most: ClassVar[bool] = True


class TooBright(Exception):  # noqa: N818  a signal between a step and its runner, never seen by a user
    """The camera saturates."""


@dataclass(frozen=True)
class Look:
    """The intensity of one frame.

    Attributes
    ----------
    total, error : float
        Sum over the frame, its dark taken off, and its standard error, ADU.
    """

    total: float
    error: float


class Step:
    """One step of an alignment while it runs.

    Parameters
    ----------
    instrument : Instrument
        The devices.
    camera : str
        Logical name of the camera that is looked at.
    parameters : AlignmentParameters
        Darks and what goes into the record.
    exposure_s : float
        Exposure time of each frame, s.
    axes : sequence of str
        Logical names of the axes it may move.

    Attributes
    ----------
    live : bool
        Whether there is anything to see; False in a dry run.
    starts : dict
        Where its axes stood when it began.
    noise_adu : float
        Noise of a dark pixel after the mean dark was taken off.
    """

    def __init__(
        self,
        instrument: Instrument,
        camera: str,
        parameters: AlignmentParameters,
        exposure_s: float,
        axes: Sequence[str],
    ) -> None:
        self.instrument = instrument
        self.camera_name = camera
        self.camera = instrument.camera(camera)
        self.parameters = parameters
        self.exposure_s = exposure_s
        self.axes = {name: instrument.axis(name) for name in axes}
        self.starts: dict[str, float] = {}
        self.noise_adu = 1.0
        self.frames = RunFrames(camera)
        self._others = list(instrument.per_event.values())
        self._camera_config = instrument.config.cameras[camera]
        self._dark: NDArray | float = 0.0
        self._looked = 0

    @property
    def live(self) -> bool:
        """Whether there is anything to see; False in a dry run."""
        return self.frames.live

    @property
    def gain(self) -> float:
        """ADU per photon of the camera."""
        return self._camera_config.noise.gain_adu_per_photon

    def check(self, places: Sequence[Place]) -> None:
        """Ask the axes for positions they may be sent to, before anything moves.

        Raises
        ------
        LimitError
            When an axis cannot go there.
        """
        for place in places:
            for name, position in place.items():
                check = getattr(self.instrument.axis(name), "check_value", None)
                if check is None:
                    continue
                try:
                    check(position)
                except LimitError:
                    raise
                except Exception as error:
                    raise LimitError(f"axis {name!r} cannot go to {position:g}: {error}") from error

    def begin(self) -> MsgGenerator:
        """Note where the axes are."""
        for name, axis in self.axes.items():
            self.starts[name] = yield from position_of(axis)

    def go(self, place: Place) -> MsgGenerator:
        """Move axes together and wait until all have arrived."""
        for name, position in place.items():
            yield Msg("set", self.axes[name], round(position, 9), group="align")
        yield Msg("wait", None, group="align")

    def darks(self) -> MsgGenerator:
        """Take frames with the shutter closed, for their mean and their noise."""
        count = self.parameters.darks
        yield from shutter_to(self.instrument, "closed")
        yield from self._prepare(count)
        for _ in range(count):
            yield Msg("checkpoint")
            yield from take_event(self.camera, self._others, "darks_before")
        yield from self.complete()
        sums: list[NDArray] = []

        def add(frame: NDArray) -> None:
            values = frame.astype(np.float32)
            if not sums:
                sums.extend((values, np.zeros_like(values), np.zeros_like(values)))
            # differences from the first keep the sums of squares exact
            values = values - sums[0]
            sums[1] += values
            sums[2] += values**2

        yield from self.frames.each(add, "darks_before")
        if sums:
            first, total, squares = sums
            self._dark = first + total / count
            spread = (squares - total**2 / count) / (count - 1)
            # the brightest hundredth are hot pixels, whose noise is not that of the others
            calm = np.minimum(spread, np.percentile(spread, 99))
            # a camera without noise still rounds
            self.noise_adu = math.sqrt((float(calm.mean()) + 1.0 / 12.0) * (1.0 + 1.0 / count))

    def line(
        self, places: Sequence[Place], measure: Callable[[NDArray], T], *, saturated: bool = False
    ) -> Generator[Msg, Any, list[T]]:
        """Take a frame at each of some places and return what a function makes of each, its dark taken off.

        Parameters
        ----------
        places : sequence of mapping
            Where to go, axis by axis.
        measure : callable
            Given a frame less the dark, float32, shape (rows, columns), ADU.
        saturated : bool
            Whether frames may saturate, as in a search, where that is only all the easier to see.

        Returns
        -------
        list
            One result per place; empty in a dry run.
        """
        yield Msg("checkpoint")
        yield from shutter_to(self.instrument, "open")
        yield from self._prepare(len(places))
        readables = [*self.axes.values(), *self._others]
        for place in places:
            yield Msg("checkpoint")
            yield from self.go(place)
            yield from take_good_event(self.instrument, self.camera, readables)
        yield Msg("checkpoint")
        yield from self.complete()
        saturation = self._camera_config.noise.saturation_adu

        def look(frame: NDArray) -> tuple[bool, T]:
            return int((frame >= saturation).sum()) > SATURATED_PIXELS, measure(frame - self._dark)

        seen = yield from self.frames.each(look, "primary", self._looked)
        self._looked += len(seen)
        shorter = self.exposure_s / SHORTER >= self._camera_config.min_exposure_s
        if any(bright for bright, _ in seen) and shorter and not saturated:
            raise TooBright
        return [result for _, result in seen]

    def intensity(self, image: NDArray) -> Look:
        """Return the summed intensity of a frame whose dark was taken off."""
        total = float(image.sum(dtype=np.float64))
        return Look(total, math.sqrt(image.size * self.noise_adu**2 + self.gain * max(total, 0.0)))

    def _prepare(self, frames: int) -> MsgGenerator:
        yield Msg("prepare", self.camera, FrameBatch(frames, self.exposure_s), group="prepare")
        yield Msg("wait", None, group="prepare")

    def complete(self) -> MsgGenerator:
        """Close the file of the line."""
        yield Msg("complete", self.camera, group="complete")
        yield Msg("wait", None, group="complete")


Body = Callable[[Step], Generator[Msg, Any, tuple[Found, Place]]]


def run_step(
    instrument: Instrument,
    parameters: AlignmentParameters,
    axes: Sequence[str],
    body: Body,
    md: Mapping[str, Any],
    *,
    camera: str | None = None,
    exposure_s: float | None = None,
) -> Generator[Msg, Any, Found]:
    """Run one step as a recorded run, again with shorter exposures as long as the camera saturates.

    Parameters
    ----------
    instrument : Instrument
        The devices.
    parameters : AlignmentParameters
        Of the plan; they go into the record.
    axes : sequence of str
        Axes that the step may move.
    body : callable
        Given the `Step` with its ``starts``, checks what can be checked and returns a plan, which returns its finding
        and where its axes are to be left when it is sure.
    md : mapping
        The user's metadata.
    camera : str, optional
        Logical name of the camera; default: that of the parameters or the configuration.
    exposure_s : float, optional
        Exposure time, s; default: that of the parameters.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when something that was asked is not there or out of bounds.
    """
    name = camera or parameters.camera or instrument.defaults.camera
    exposure = parameters.exposure_s if exposure_s is None else exposure_s
    instrument.camera(name)
    bounds = instrument.config.cameras[name]
    if not bounds.min_exposure_s <= exposure <= bounds.max_exposure_s:
        raise ParameterError(
            f"exposure_s: {exposure:g} s was asked of camera {name!r}, which exposes {bounds.min_exposure_s:g} to "
            f"{bounds.max_exposure_s:g} s"
        )
    while True:
        yield from all_well(instrument)
        step = Step(instrument, name, parameters, exposure, axes)
        found = yield from watching(step.frames, lambda step=step: _one_run(step, body, md))  # type: ignore[misc]
        if not step.live:
            warnings.warn(
                "nothing can be seen in a dry run, so whole search ranges are walked, and all is assumed to be found "
                "where it should be",
                AssumedOutcomeWarning,
                stacklevel=2,
            )
        if found is not None:
            return found
        exposure /= SHORTER


def _one_run(step: Step, body: Body, md: Mapping[str, Any]) -> Generator[Msg, Any, Found | None]:
    """Make one run; the finding, or None where the camera saturated."""
    instrument = step.instrument
    outcome: dict[str, Any] = {}

    def inside() -> MsgGenerator:
        # a plan halted between two messages of an event leaves the RunEngine unable to rewind
        yield Msg("rewindable", None, True)
        yield from step.darks()
        try:
            found, best = yield from work
        except TooBright:
            found, best = _saturated(step), {}
            outcome["again"] = True
        if found.sure and best:
            yield from step.go(best)
            outcome["done"] = True
        outcome["found"] = found = replace(found, exposure_s=step.exposure_s)
        yield from _announce(found)

    def make_safe() -> MsgGenerator:
        yield Msg("rewindable", None, True)
        yield from shutter_to(instrument, "closed")

    def go_back() -> MsgGenerator:
        if "done" not in outcome:
            yield from step.go(step.starts)

    yield from step.begin()
    # what a body checks, it checks before it makes its plan, and so before anything moves
    work = body(step)
    parameters = step.parameters
    record = {
        "plan_name": parameters.plan,
        "plan_args": parameters.model_dump(mode="json"),
        "detectors": [step.camera_name],
        "motors": list(step.axes),
        "hints": {},
        **{key: value for key, value in md.items() if key != "dfxrm"},
        "dfxrm": {
            **md.get("dfxrm", {}),
            "schema": 1,
            "exposure_s": step.exposure_s,
            "camera": step.camera_name,
            "darks": {"before": parameters.darks, "after": 0},
            "parameters": parameters.record(),
        },
    }
    stages = [device for device in (step.camera, *instrument.per_event.values()) if isinstance(device, Stageable)]
    run = bpp.run_wrapper(always(inside(), make_safe, step.complete), md=record)
    yield from always(bpp.stage_wrapper(run, stages), go_back)
    return None if "again" in outcome else outcome["found"]


def _saturated(step: Step) -> Found:
    return Found(
        step.parameters.plan,
        "",
        math.nan,
        math.nan,
        "",
        False,
        f"camera {step.camera_name} saturates in {step.exposure_s:g} s; again with {step.exposure_s / SHORTER:g} s",
    )


class _Finding:
    """A finding as something that is read once, so that it is an event of the run it was made in."""

    parent = None
    name = "found"

    def __init__(self, found: Found) -> None:
        self._values = {f"found_{key}": value for key, value in found.record().items()}

    def read(self) -> dict[str, Any]:
        now = time.time()
        return {key: {"value": value, "timestamp": now} for key, value in self._values.items()}

    def describe(self) -> dict[str, Any]:
        return {key: {"source": "alignment", "dtype": _kind(value), "shape": []} for key, value in self._values.items()}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


def _kind(value: Any) -> str:
    return "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"


def _announce(found: Found) -> MsgGenerator:
    yield Msg("create", None, name="found")
    yield Msg("read", _Finding(found))
    yield Msg("save")


def set_channel(instrument: Instrument, name: str, value: str) -> MsgGenerator:
    """Set a channel that takes words, e.g. the objective in or out; nothing moves when it is so already.

    Raises
    ------
    ParameterError
        When there is no such channel, or it cannot be set.
    """
    channel: Any = instrument.channels.get(name)
    if channel is None or not hasattr(channel, "set"):
        raise ParameterError(f"channel {name!r} is not in configuration {instrument.name!r}, or cannot be set")
    reading = yield Msg("read", channel)
    if reading and reading[name]["value"] == value:
        return
    yield Msg("set", channel, value, group="channel")
    yield Msg("wait", None, group="channel")
