"""What a point of a scan is made of: the shutter, an exposure, and an event that nothing replays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.acquisition import FrameCamera
from plans._flat import MsgGenerator
from plans._instrument import Instrument

__all__ = ["expose", "shutter_to", "surely", "take_event", "write_event"]


def take_event(camera: FrameCamera, readables: Sequence[Any], stream: str) -> MsgGenerator:
    """Expose one frame and make one event of it and the readables; see `expose` and `write_event`."""
    yield from expose(camera)
    yield from write_event(camera, readables, stream)


def expose(camera: FrameCamera) -> MsgGenerator:
    """Expose one frame and wait for it.

    All that waits, and so can be cancelled by a pause, stands here: it is replayed from the checkpoint, and the frame
    taken before the pause stays unannounced.
    """
    yield Msg("trigger", camera, group="exposure")
    yield Msg("wait", None, group="exposure")


def write_event(camera: FrameCamera, readables: Sequence[Any], stream: str) -> MsgGenerator:
    """Make one event of a frame that was exposed and of the readables.

    From reading the camera to saving the event nothing is ever replayed. A pause there would otherwise repeat an event
    that is already in the record, or lose the document that announces the frames' file.

    Parameters
    ----------
    camera : FrameCamera
        Prepared, staged and triggered.
    readables : sequence
        What is read beside the frame.
    stream : str
        Name of the event stream.
    """
    yield Msg("create", None, name=stream)
    for device in readables:
        yield Msg("read", device)
    yield Msg("rewindable", None, False)
    yield from surely(Msg("read", camera))
    yield Msg("save")
    yield Msg("rewindable", None, True)


def surely(message: Msg) -> MsgGenerator:
    """Read a device where nothing is replayed: once more if it was not read at all.

    The first read of a device in a stream waits for its description. A pause or a suspender that comes just then
    cancels it: the RunEngine answers None, and goes on without replaying it.
    """
    answer = yield message
    return answer if answer is not None else (yield message)


def shutter_to(instrument: Instrument, state: str) -> MsgGenerator:
    """Open or close the shutter and wait until it is."""
    yield Msg("set", instrument.shutter, state, group="shutter")
    yield Msg("wait", None, group="shutter")
