"""Following the messages of a plan: what each would do, and how long that would take."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.acquisition import FrameBatch
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.dry_run._notebook import Notebook
from dfxrm_control.dry_run._report import DryRun, Travel
from dfxrm_control.dry_run._start import StartUnknownError
from dfxrm_control.envelopes import Envelopes
from dfxrm_control.errors import DfxrmError, ParameterError

__all__ = ["Walk"]

BYTES_PER_PIXEL = 2
MOST_MESSAGES = 50_000_000
"""A plan of more is a mistake: at 20,000 messages a second, a run of them would take a month."""


class Walk:
    """Follows the messages of a plan and notes what each would do and how long it would take.

    Parameters
    ----------
    report : DryRun
        Filled in.
    notebook : Notebook
        Where everything is, and the time.
    axes : mapping
        Offline axes by logical name.
    config : MicroscopeConfig
        The microscope, with its bodies.
    """

    def __init__(self, report: DryRun, notebook: Notebook, axes: Mapping[str, Any], config: MicroscopeConfig) -> None:
        self._report = report
        self._notebook = notebook
        self._axes = axes
        self._config = config
        self._envelopes = Envelopes.from_config(config)
        self._carrying = self._envelopes.axes
        self._exposure_s: dict[str, float] = {}
        self._ends: dict[Any, float] = {}
        self._under_way: dict[Any, dict[str, tuple[float, float]]] = {}
        self._opened_s: float | None = None

    def follow(self, plan: Generator[Msg, Any, Any]) -> None:
        """Run the plan to its end; what it raises is raised.

        Raises
        ------
        StartUnknownError
            When an axis is needed whose position nobody has told; the plan is not asked what it makes of that.
        """
        answer: Any = None
        failure: BaseException | None = None
        handlers = {name.removeprefix("_on_"): getattr(self, name) for name in dir(self) if name.startswith("_on_")}
        for _ in range(MOST_MESSAGES):
            try:
                message = plan.throw(failure) if failure is not None else plan.send(answer)
            except StopIteration:
                break
            finally:
                # also where the plan raises: what it did until then is done
                self._report.duration_s = self._notebook.now()
            answer, failure = None, None
            handler = handlers.get(message.command)
            try:
                if handler is not None:
                    answer = handler(message)
            except StartUnknownError:
                plan.close()
                raise
            except DfxrmError as error:
                failure = error
        else:
            plan.close()
            raise ParameterError(f"{self._report.plan} has more than {MOST_MESSAGES:.0e} steps, which nobody can run")
        self._shut()

    def _on_set(self, message: Msg) -> None:
        device, target = message.obj, message.args[0]
        device.check_value(target)
        takes_s = 0.0
        group = message.kwargs.get("group")
        if device.name in self._axes and self._axes[device.name] is device:
            takes_s = device.expected_duration_s(target)
            self._look_at_bodies(device, target, group)
            self._note(device.name, target)
            forward = getattr(device, "forward", None)
            for axis, there in forward(target).items() if forward is not None else ((device.name, target),):
                if forward is not None:
                    self._note(axis, there)
                self._notebook.start_move(axis, there, math.inf, 0.0)
        else:
            self._switch(device, target)
            if hasattr(device, "expected_duration_s"):
                takes_s = device.expected_duration_s(target)
        self._begin(group, takes_s)

    def _on_wait(self, message: Msg) -> None:
        group = message.kwargs.get("group", message.args[0] if message.args else None)
        self._under_way.pop(group, None)
        self._notebook.wait_until(self._ends.pop(group, 0.0))

    def _on_open_run(self, message: Msg) -> None:
        self._pass(self._config.dry_run.run_s)

    def _on_prepare(self, message: Msg) -> None:
        if isinstance(message.args[0], FrameBatch):
            self._exposure_s[message.obj.name] = message.args[0].exposure_s
            message.obj.exposure.check_value(message.args[0].exposure_s)
            self._pass(self._config.dry_run.line_s)
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
        report.data_bytes += camera.rows * camera.columns * BYTES_PER_PIXEL
        self._begin(message.kwargs.get("group"), exposure_s + camera.readout_s + self._config.dry_run.point_s)

    def _on_read(self, message: Msg) -> Any:
        return message.obj.read()

    def _on_locate(self, message: Msg) -> Any:
        located = [device.locate() for device in (message.obj, *message.args)]
        return located[0] if len(located) == 1 and message.kwargs.get("squeeze", True) else located

    def _on_sleep(self, message: Msg) -> None:
        self._pass(float(message.args[0]))

    def _begin(self, group: Any, takes_s: float) -> None:
        self._ends[group] = max(self._ends.get(group, 0.0), self._notebook.now() + takes_s)

    def _pass(self, seconds: float) -> None:
        self._notebook.wait_until(self._notebook.now() + seconds)

    def _switch(self, device: Any, value: Any) -> None:
        name = device.name
        if name in self._envelopes.channels:
            axes, channels = self._envelopes.needed(channels=(name,))
            values = {**self._values(channels), name: value}
            asked = f"channel {name} cannot be set to {value}"
            self._envelopes.check(self._ways(axes), values, {}, asked, switched=(name,))
        if name == "shutter" and value == "open" and self._opened_s is None:
            self._opened_s = self._notebook.now()
        elif name == "shutter" and value != "open":
            self._shut()
        self._notebook.put(name, value)

    def _shut(self) -> None:
        if self._opened_s is not None:
            self._report.open_s += self._notebook.now() - self._opened_s
            self._opened_s = None

    def _look_at_bodies(self, device: Any, target: float, group: Any) -> None:
        """Refuse a move on which two bodies could meet, while all else may be on its way."""
        ways = device.way(target) if self._carrying else {}
        if not self._carrying & ways.keys():
            return
        axes, channels = self._envelopes.needed(axes=ways)
        known = self._notebook.axes()
        since = {axis: known[axis] for axis in axes if axis in known}
        asked = f"axis {device.name} cannot go to {device.say(target)}"
        self._envelopes.check({**self._ways(axes), **ways}, self._values(channels), since, asked, moved=ways)
        self._under_way.setdefault(group, {}).update(ways)

    def _ways(self, axes: frozenset[str]) -> dict[str, tuple[float, float]]:
        known = self._notebook.axes()
        ways = {axis: (known[axis], known[axis]) for axis in axes if axis in known}
        for group in self._under_way.values():
            ways |= {axis: way for axis, way in group.items() if axis in axes}
        return ways

    def _values(self, channels: frozenset[str]) -> dict[str, Any]:
        return {channel: self._notebook.get(channel) for channel in channels}

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
