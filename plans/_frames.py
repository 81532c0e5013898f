"""Frames of the running run, as arrays: what a plan that decides by what it sees goes by.

A plan gets no frames in its messages: a camera writes them to a file and announces them by documents. So the plan
subscribes to the documents of its own run and reads the frames back from where they were announced. That is the same
for every camera, whatever control system writes its files. The reading is done in a thread, since a plan must not block
the RunEngine.

Where no RunEngine runs the plan (a dry run), nobody answers the subscription and there are no frames: `RunFrames.live`
says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import numpy as np
from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.errors import RecordError
from dfxrm_control.records import Run, read_frame
from plans._flat import MsgGenerator

__all__ = ["RunFrames", "watching"]

T = TypeVar("T")


class RunFrames:
    """The frames of one camera in the run that is opened next.

    Parameters
    ----------
    camera : str
        Logical name of the camera.

    Attributes
    ----------
    live : bool
        Whether frames can be seen at all: False in a dry run.
    """

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self.live = False
        self._run = Run()
        self._uid: str | None = None
        self._parts: set[str] = set()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take in one document of the RunEngine; those of other runs are left out."""
        if name == "start" and self._uid is None:
            self._uid = doc["uid"]
            self._parts = {doc["uid"]}
        parents = (doc.get(key) for key in ("run_start", "descriptor", "stream_resource"))
        if name != "start" and next((parent for parent in parents if parent), None) not in self._parts:
            return
        if name == "start" and doc["uid"] != self._uid:
            return
        if name in ("descriptor", "stream_resource"):
            self._parts.add(doc["uid"])
        self._run(name, doc)

    def count(self, stream: str = "primary") -> int:
        """Return how many frames of a stream are known, each with its event."""
        return len(self._references(stream))

    def column(self, key: str, stream: str = "primary") -> NDArray:
        """Return the readings of a data key at the points whose frames are known, in the same order.

        Raises
        ------
        RecordError
            When it was not read with every frame.
        """
        known = self._run.streams.get(stream)
        numbers = sorted(known.frames.get(self.camera, {})) if known is not None else []
        try:
            return np.array([known.events[number]["data"][key] for number in numbers])  # type: ignore[union-attr]
        except KeyError:
            raise RecordError(f"{key!r} was not read with every frame of camera {self.camera!r}") from None

    def each(
        self, measure: Callable[[NDArray], T], stream: str = "primary", first: int = 0
    ) -> Generator[Msg, Any, list[T]]:
        """Return what a function makes of each frame of a stream, in order of its points.

        The frames are read one by one in a thread, so that no more than one is in memory.

        Parameters
        ----------
        measure : callable
            Given a frame, shape (rows, columns), ADU.
        stream : str
            Name of the stream.
        first : int
            Points before this one are left out.

        Raises
        ------
        RecordError
            When frames should be there and none was announced.
        FileFormatError
            When a frame cannot be read.
        """
        if not self.live:
            return []
        references = self._references(stream)
        if len(references) <= first:
            raise RecordError(f"camera {self.camera!r} announced no frame of stream {stream!r}, so nothing can be seen")
        made: list[T] = []
        failures: list[Exception] = []

        def work() -> None:
            made.clear()
            failures.clear()
            try:
                for reference in references[first:]:
                    path, dataset = reference.file.path, reference.file.dataset
                    made.append(measure(read_frame(path, reference.index_in_file, dataset)))
            except Exception as error:
                failures.append(error)

        yield Msg("wait_for", None, [lambda: asyncio.to_thread(work)])
        if failures:
            raise failures[0]
        return made

    def _references(self, stream: str) -> list[Any]:
        known = self._run.streams.get(stream)
        frames = known.frames.get(self.camera, {}) if known is not None else {}
        return [frames[number] for number in sorted(frames)]


def watching(frames: RunFrames, plan: Callable[[], MsgGenerator]) -> MsgGenerator:
    """Run a plan while ``frames`` takes in the documents of the run it opens.

    Parameters
    ----------
    frames : RunFrames
        Takes in the documents.
    plan : callable
        Returns the plan, which opens one run.
    """
    token = yield Msg("subscribe", None, frames, "all")
    frames.live = token is not None
    try:
        result = yield from plan()
    except GeneratorExit:
        raise
    except BaseException:
        if token is not None:
            yield Msg("unsubscribe", None, token=token)
        raise
    if token is not None:
        yield Msg("unsubscribe", None, token=token)
    return result
