"""What a queue does between scans: go to a sample, go to a temperature, wait. None of these begins a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.environment import Ramp
from dfxrm_control.errors import ParameterError
from dfxrm_control.parameters import (
    MoveParameters,
    PlaceSampleParameters,
    SetTemperatureParameters,
    WaitParameters,
)
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument

__all__ = ["move", "place_sample", "set_temperature", "wait"]

GONIOMETER = "goniometer"
"""The device whose axes carry the sample."""
LONGEST_SLEEP_S = 30.0
"""A wait is cut into pieces of this length, so that one that was paused goes on where it was."""


@flat_keywords(MoveParameters)
def move(instrument: Instrument, parameters: MoveParameters, md: dict[str, Any]) -> MsgGenerator:
    """Move any axes, together, and wait until all have arrived.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when there is no such axis or a target is outside its limits.
    """
    return (yield from _go(instrument, parameters.axes))


@flat_keywords(PlaceSampleParameters)
def place_sample(instrument: Instrument, parameters: PlaceSampleParameters, md: dict[str, Any]) -> MsgGenerator:
    """Move axes of the goniometer, together, and wait until all have arrived.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when an axis is none of the goniometer's or a target is outside its limits.
    """
    devices = instrument.whole.devices if instrument.whole is not None else {}
    carries = devices[GONIOMETER].axes if GONIOMETER in devices else {}
    for axis in parameters.axes:
        if axis not in carries:
            raise ParameterError(
                f"place_sample: axis {axis!r} is none of the {GONIOMETER}, which has {', '.join(carries) or 'none'}"
            )
    return (yield from _go(instrument, parameters.axes))


@flat_keywords(SetTemperatureParameters)
def set_temperature(instrument: Instrument, parameters: SetTemperatureParameters, md: dict[str, Any]) -> MsgGenerator:
    """Bring the furnace to a temperature and hold it for a while; the furnace stays at it.

    Raises
    ------
    ParameterError, LimitError
        When there is no furnace, or one that cannot do this.
    DeviceError
        When the furnace does not get there or does not hold it.
    """
    furnace = instrument.furnace
    if furnace is None:
        raise ParameterError(f"set_temperature: {instrument.name!r} has no furnace")
    ramp = Ramp(parameters.ramp_k_per_min, parameters.tolerance_k)
    furnace.temperature.check_value(parameters.temperature)
    furnace.check_ramp(ramp)
    yield Msg("checkpoint")
    yield Msg("prepare", furnace, ramp, group="ramp")
    yield Msg("wait", None, group="ramp")
    yield Msg("set", furnace.temperature, parameters.temperature, group="temperature")
    yield Msg("wait", None, group="temperature")
    if parameters.hold_s > 0 and instrument.clock is not None:
        end_s = (yield from _now(instrument)) + parameters.hold_s
        yield Msg("checkpoint")
        yield Msg("set", furnace.hold, end_s, group="hold")
        yield Msg("wait", None, group="hold")


@flat_keywords(WaitParameters)
def wait(instrument: Instrument, parameters: WaitParameters, md: dict[str, Any]) -> MsgGenerator:
    """Wait for a while, or until a time.

    Raises
    ------
    ParameterError
        When the microscope has no clock to wait by.
    """
    if parameters.duration_s is None:
        left_s = parameters.remaining_s()
        while left_s > 0:
            yield Msg("checkpoint")
            yield Msg("sleep", None, min(left_s, LONGEST_SLEEP_S))
            left_s -= LONGEST_SLEEP_S
        return
    if instrument.clock is None:
        raise ParameterError("wait: this microscope has no clock to wait by")
    end_s = (yield from _now(instrument)) + parameters.duration_s
    yield Msg("checkpoint")
    yield Msg("set", instrument.clock, end_s, group="time")
    yield Msg("wait", None, group="time")


def _go(instrument: Instrument, targets: Mapping[str, float]) -> MsgGenerator:
    axes = {instrument.axis(name): target for name, target in targets.items()}
    for axis, target in axes.items():
        check = getattr(axis, "check_value", None)
        if check is not None:
            check(target)
    yield Msg("checkpoint")
    for axis, target in axes.items():
        yield Msg("set", axis, target, group="move")
    yield Msg("wait", None, group="move")


def _now(instrument: Instrument) -> Any:
    reading = yield Msg("read", instrument.clock)
    return float(reading[instrument.clock.name]["value"]) if reading and instrument.clock is not None else 0.0
