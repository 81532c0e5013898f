"""Waiting for the beam: before a run, and in its middle, after which the point that suffered is taken again."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.acquisition import BEAM_LOST, Conditions, FrameCamera
from dfxrm_control.errors import ConditionError, DfxrmError
from plans._events import expose, shutter_to, write_event
from plans._flat import MsgGenerator
from plans._instrument import Instrument

__all__ = ["all_well", "take_good_event"]

LOOK_S = 0.5
"""How often it is looked whether the beam is back, s."""


def take_good_event(instrument: Instrument, camera: FrameCamera, readables: Sequence[Any]) -> MsgGenerator:
    """Expose a frame and make an event of it; where the beam was lost meanwhile, wait until it is back and do so again.

    A frame that suffered goes into a stream of its own, with what was read beside it and what was wrong, if that can be
    read: the record has it, the scan has not. While the beam is away the shutter is closed, so that the sample is not
    exposed unseen.

    Parameters
    ----------
    instrument : Instrument
        The devices.
    camera : FrameCamera
        Prepared and staged.
    readables : sequence
        What is read beside the frame.

    Raises
    ------
    ConditionError
        When what is wrong ends the run, or the beam does not come back in time.
    """
    conditions = instrument.conditions
    while True:
        yield from expose(camera)
        if conditions is None:
            yield from write_event(camera, readables, "primary")
            return
        wrong, ends = yield from _look(conditions)
        if not wrong:
            yield from write_event(camera, readables, "primary")
            return
        # what cannot be read leaves the frame without an event: the record has it as an orphan
        if (yield from _all_answer(instrument)):
            yield from write_event(camera, [*readables, conditions], BEAM_LOST)
        # nothing of what was written is replayed
        yield Msg("checkpoint")
        yield from shutter_to(instrument, "closed")
        if ends:
            raise ConditionError(wrong)
        yield from _until_well(instrument, conditions, wrong)
        yield from shutter_to(instrument, "open")
        yield Msg("checkpoint")


def all_well(instrument: Instrument) -> MsgGenerator:
    """Wait until everything is as it should be, before a run is begun; where that is configured, refuse instead.

    Raises
    ------
    ConditionError
        Saying what is wrong.
    """
    conditions = instrument.conditions
    if conditions is None:
        return
    # what was lost before is no concern of this run
    yield from _look(conditions)
    wrong, ends = yield from _look(conditions)
    if not wrong:
        return
    if ends or not conditions.waits_at_start:
        raise ConditionError(f"the run was not begun: {wrong}")
    yield Msg("checkpoint")
    yield from _until_well(instrument, conditions, wrong)


def _all_answer(instrument: Instrument) -> Generator[Msg, Any, bool]:
    try:
        for device in instrument.per_event.values():
            yield Msg("read", device)
    except DfxrmError:
        return False
    return True


def _look(conditions: Conditions) -> Generator[Msg, Any, tuple[str, bool]]:
    yield Msg("trigger", conditions, group=None)
    reading = yield Msg("read", conditions)
    # nobody answers where nothing runs the plan
    if not reading:
        return "", False
    return str(reading[conditions.name]["value"]), bool(reading[f"{conditions.name}_ends"]["value"])


def _until_well(instrument: Instrument, conditions: Conditions, wrong: str) -> MsgGenerator:
    end_s = time.monotonic() + conditions.patience_s
    while wrong:
        if time.monotonic() > end_s:
            raise ConditionError(f"{wrong}; it was waited for {conditions.patience_s:g} s")
        yield Msg("sleep", None, LOOK_S)
        wrong, ends = yield from _look(conditions)
        if not wrong:
            yield from _pass(instrument, conditions.settle_s)
            # what is lost while it settles counts
            wrong, ends = yield from _look(conditions)
        if ends:
            raise ConditionError(wrong)


def _pass(instrument: Instrument, seconds: float) -> MsgGenerator:
    """Let time pass on the clock of the microscope."""
    reading = (yield Msg("read", instrument.clock)) if instrument.clock is not None else None
    if instrument.clock is None or not reading:
        yield Msg("sleep", None, seconds)
        return
    yield Msg("set", instrument.clock, float(reading[instrument.clock.name]["value"]) + seconds, group="settle")
    yield Msg("wait", None, group="settle")
