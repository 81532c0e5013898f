"""Giving any plan, stock or a user's own, the full record: message by message, without touching the plan."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from bluesky.protocols import Flyable, WritesStreamAssets
from bluesky.utils import FailedStatus, IllegalMessageSequence, Msg, RunEngineControlException, ensure_generator

from plans._events import surely
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
    - a run that fails says why in the failed device's own words, not in those of a status object;
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


def _reason(error: BaseException) -> str:
    """Return why something failed: for a failed status, what its device said."""
    status = error.args[0] if isinstance(error, FailedStatus) and error.args else None
    cause = status.exception(timeout=0) if status is not None and status.done else None
    return str(cause or error)


class _Completer:
    """Follows the messages of one plan and adds what is missing."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._others = list(instrument.per_event.values())
        self._baselines: dict[Any, list[Any]] = {}
        self._bundle: list[Any] = []
        self._keys: set[str] = set()
        self._bundling = False
        # since the last event: what fails in the clean-up of a run is not why it ended
        self._failures: list[BaseException] = []
        self._open_files: list[Any] = []
        self._rewindable = True
        self._ours_to_reset = False
        self._writers: dict[type, bool] = {}

    def rewrite(self, plan: MsgGenerator) -> MsgGenerator:
        """Run the plan's messages, some with others around them; answers and errors go back to the plan."""
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
                self._failures.append(error)

    def _on_open_run(self, message: Msg) -> MsgGenerator:
        answer = yield message
        scanned = set(message.kwargs.get("motors", ()))
        everything: Mapping[str, Any] = {**self._instrument.axes, **self._instrument.channels}
        # by run: a run may be opened inside another
        self._baselines[message.run] = [device for name, device in everything.items() if name not in scanned]
        yield from self._read_baseline(message)
        return answer

    def _on_close_run(self, message: Msg) -> MsgGenerator:
        """Complete what is open and read the baseline; a device that fails there does not keep the run from closing."""
        failure: Exception | None = None
        yield from self._drop_bundle(message)
        # a replay after the last message of the run would go on writing to it
        for step in (self._complete_files, self._replay_nothing, self._read_baseline):
            try:
                yield from step(message)
            except RunEngineControlException:
                raise
            except Exception as error:
                failure = failure or error
                yield from self._drop_bundle(message)
        told = message.kwargs.get("reason")
        if (why := next((error for error in self._failures if told == str(error)), None)) is not None:
            message = message._replace(kwargs={**message.kwargs, "reason": _reason(why)})
        answer = yield message
        yield from self._put_back()
        self._baselines.pop(message.run, None)
        # a run that failed already has an error of its own to tell
        if failure is not None and message.kwargs.get("exit_status") in (None, "success"):
            raise failure
        return answer

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
        self._bundle, self._keys, self._bundling = [], set(), True
        return (yield message)

    def _on_read(self, message: Msg) -> MsgGenerator:
        self._bundle.append(message.obj)
        if self._writes(message.obj):
            yield from self._replay_nothing()
        answer = yield from self._read(message)
        # a device that is read as a whole may bring a per-event signal with it; where a suspender comes in between, the
        # RunEngine loses the answer
        self._keys.update(answer or ())
        return answer

    def _on_save(self, message: Msg) -> MsgGenerator:
        if any(self._writes(device) for device in self._bundle):
            for device in self._others:
                if device not in self._bundle and device.name not in self._keys:
                    yield from self._read(Msg("read", device, run=message.run))
        answer = yield message
        self._failures.clear()
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

    def _complete_files(self, message: Msg) -> MsgGenerator:
        cameras, self._open_files = self._open_files, []
        for camera in cameras:
            yield Msg("complete", camera, group="complete", run=message.run)
        if cameras:
            yield Msg("wait", None, group="complete")

    def _drop_bundle(self, message: Msg) -> MsgGenerator:
        """Give up an event in whose middle the plan failed; no other could be begun."""
        if self._bundling:
            try:
                yield Msg("drop", run=message.run)
            except IllegalMessageSequence:
                pass  # a pause had given it up already
        yield from self._put_back()

    def _read(self, message: Msg) -> MsgGenerator:
        return (yield message) if self._rewindable else (yield from surely(message))

    def _replay_nothing(self, _: Msg | None = None) -> MsgGenerator:
        """Have nothing replayed until `_put_back`, whatever pauses the plan."""
        if self._rewindable:
            self._ours_to_reset = True
            self._rewindable = False
            yield Msg("rewindable", None, False)

    def _put_back(self) -> MsgGenerator:
        self._bundle, self._bundling = [], False
        if self._ours_to_reset:
            self._ours_to_reset = False
            self._rewindable = True
            yield Msg("rewindable", None, True)

    def _read_baseline(self, message: Msg) -> Generator[Msg, Any, None]:
        devices = self._baselines.get(message.run)
        if not devices:
            return
        self._bundling = True
        yield Msg("create", None, name="baseline", run=message.run)
        for device in devices:
            yield from self._read(Msg("read", device, run=message.run))
        yield Msg("save", run=message.run)
        self._bundling = False
