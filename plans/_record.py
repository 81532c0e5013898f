"""Giving any plan, stock or a user's own, the full record: message by message, without touching the plan."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from bluesky.protocols import Flyable, WritesStreamAssets
from bluesky.utils import Msg, ensure_generator

from plans._flat import MsgGenerator
from plans._instrument import Instrument

__all__ = ["full_record"]


def full_record(instrument: Instrument) -> Callable[[MsgGenerator], MsgGenerator]:
    """Return a RunEngine preprocessor that completes the record of every run.

    What is baseline and what is per event is decided here and nowhere else:

    - at both ends of a run, one event of the stream ``baseline`` with every axis and channel that the run's ``motors``
      do not name;
    - in every event that reads a camera, also the instrument's per-event signals (flux monitor, ring current), unless
      the plan reads them itself;
    - before a run closes, the files of cameras that a plan only triggers are completed;
    - nothing is replayed between reading a camera and saving the event (`take_event` says why).

    It opens no shutter and moves nothing.

    Parameters
    ----------
    instrument : Instrument
        The devices that belong into the record.

    Returns
    -------
    callable
        ``RE.preprocessors.append(full_record(instrument))``
    """

    def process(plan: MsgGenerator) -> MsgGenerator:
        return (yield from _Completer(instrument).rewrite(ensure_generator(plan)))

    return process


class _Completer:
    """Follows the messages of one plan and adds what is missing."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._others = list(instrument.per_event.values())
        self._baseline: list[Any] = []
        self._bundle: list[Any] = []
        self._open_files: list[Any] = []
        self._rewindable = True
        self._ours_to_reset = False
        self._writers: dict[type, bool] = {}

    def rewrite(self, plan: MsgGenerator) -> MsgGenerator:
        """Run the plan's messages, each by way of `_handle`; answers and errors go back to the plan."""
        answer: Any = None
        failure: BaseException | None = None
        # a plan halted between two messages of an event leaves the RunEngine unable to rewind
        yield Msg("rewindable", None, True)
        while True:
            try:
                message = plan.throw(failure) if failure is not None else plan.send(answer)
            except StopIteration as stop:
                return stop.value
            answer, failure = None, None
            handler = getattr(self, f"_on_{message.command}", None)
            try:
                answer = (yield message) if handler is None else (yield from handler(message))
            except GeneratorExit:
                plan.close()
                raise
            except BaseException as error:
                failure = error

    def _on_open_run(self, message: Msg) -> MsgGenerator:
        answer = yield message
        scanned = set(message.kwargs.get("motors", ()))
        everything: Mapping[str, Any] = {**self._instrument.axes, **self._instrument.channels}
        self._baseline = [device for name, device in everything.items() if name not in scanned]
        self._open_files = []
        yield from self._read_baseline(message)
        return answer

    def _on_close_run(self, message: Msg) -> MsgGenerator:
        yield from self._put_back()
        for camera in self._open_files:
            yield Msg("complete", camera, group="complete", run=message.run)
        if self._open_files:
            yield Msg("wait", None, group="complete")
        self._open_files = []
        yield from self._read_baseline(message)
        return (yield message)

    def _on_trigger(self, message: Msg) -> MsgGenerator:
        device = message.obj
        if self._writes(device) and device not in self._open_files and isinstance(device, Flyable):
            self._open_files.append(device)
        return (yield message)

    def _on_complete(self, message: Msg) -> MsgGenerator:
        self._open_files = [camera for camera in self._open_files if camera is not message.obj]
        return (yield message)

    def _on_rewindable(self, message: Msg) -> MsgGenerator:
        answer = yield message
        if message.args and message.args[0] is not None:
            self._rewindable = bool(message.args[0])
        return answer

    def _on_create(self, message: Msg) -> MsgGenerator:
        self._bundle = []
        return (yield message)

    def _on_read(self, message: Msg) -> MsgGenerator:
        self._bundle.append(message.obj)
        if self._rewindable and self._writes(message.obj):
            self._ours_to_reset = True
            self._rewindable = False
            yield Msg("rewindable", None, False)
        return (yield message)

    def _on_save(self, message: Msg) -> MsgGenerator:
        if any(self._writes(device) for device in self._bundle):
            for device in self._others:
                if device not in self._bundle:
                    yield Msg("read", device, run=message.run)
        answer = yield message
        yield from self._put_back()
        return answer

    def _on_drop(self, message: Msg) -> MsgGenerator:
        answer = yield message
        yield from self._put_back()
        return answer

    def _writes(self, device: Any) -> bool:
        """Whether a device writes frames; asked several times a point, and a protocol check costs 20 us."""
        kind = type(device)
        if kind not in self._writers:
            self._writers[kind] = isinstance(device, WritesStreamAssets)
        return self._writers[kind]

    def _put_back(self) -> MsgGenerator:
        self._bundle = []
        if self._ours_to_reset:
            self._ours_to_reset = False
            self._rewindable = True
            yield Msg("rewindable", None, True)

    def _read_baseline(self, message: Msg) -> Generator[Msg, Any, None]:
        if not self._baseline:
            return
        yield Msg("create", None, name="baseline", run=message.run)
        for device in self._baseline:
            yield Msg("read", device, run=message.run)
        yield Msg("save", run=message.run)
