"""A scan that is repeated in time: by a period, or at each step of the temperature programme of a furnace."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.environment import Clock, Furnace, Ramp
from dfxrm_control.errors import DeviceError, ParameterError
from dfxrm_control.parameters import FindBraggParameters, ProgrammeStep, TimeSeriesParameters
from plans._alignment._expected import present_view
from plans._bragg import find_bragg, rock_per_two_theta
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Instrument
from plans._mesh import position_of
from plans._series import InnerScan, RunSeries

__all__ = ["time_series"]

ARM = "two_theta"


@dataclass(frozen=True)
class Peak:
    """Where the Bragg peak was found, and when.

    Attributes
    ----------
    time_s : float
        Since the series began, s.
    temperature : float or None
        degC; None without a furnace.
    two_theta, error : float
        deg.
    theta_b : float
        Bragg angle, half of it, deg.
    rock : float
        Position of the axis that rocks, deg.
    strain : float
        ``d/d0 - 1`` against the first peak of the series.
    """

    time_s: float
    temperature: float | None
    two_theta: float
    error: float | None
    theta_b: float
    rock: float
    strain: float


@flat_keywords(TimeSeriesParameters)
def time_series(instrument: Instrument, parameters: TimeSeriesParameters, md: dict[str, Any]) -> MsgGenerator:
    """Repeat a scan in time, by a period or by the temperature programme of a furnace, and follow the Bragg peak.

    A heated crystal expands out of the aperture: after each change of temperature the arm and the rock first go where
    thermal expansion puts the peak, then it is found again (`find_bragg`), and the Bragg angle is kept with the runs.
    Each scan is a run of its own. Waiting, ramps and holds are in the time of the microscope's clock. When the furnace
    gets too hot, does not reach its temperature or does not hold it, the series ends with that sentence; the shutter is
    closed, the furnace cools, and the runs before are kept.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves: no furnace for a programme, a temperature or ramp that it cannot do, an inner plan or a
        parameter that does not fit.
    DeviceError
        When the furnace fails, or the peak is not found again.
    """
    return (yield from _TimeSeries(instrument, parameters, md).run())


class _TimeSeries:
    """One series while it runs."""

    def __init__(self, instrument: Instrument, parameters: TimeSeriesParameters, md: Mapping[str, Any]) -> None:
        p = self._p = parameters
        self._instrument = instrument
        self._scan = InnerScan(instrument, p.scan, p.scan_parameters, p.plan)
        if instrument.clock is None:
            raise ParameterError("time_series: this microscope has no clock to wait by")
        self._clock: Clock = instrument.clock
        self._steps = p.steps()
        self._furnace = self._check_furnace()
        inner = self._scan.parameters()
        self._rock = getattr(inner, "rock", None) or instrument.defaults.rock
        self._camera = getattr(inner, "camera", None) or instrument.defaults.camera
        if p.find == "always" or (p.find == "change" and self._steps):
            instrument.axis(ARM)
            instrument.axis(self._rock)
        self._search = FindBraggParameters.check(
            {"exposure_s": p.find_exposure_s, "camera": self._camera, "rock": self._rock, "search_range": p.find_range}
        )
        self._series = RunSeries("time", p, of=p.scans, axis="time", units="s", md=md)
        self._md = dict(md)
        self._peaks: list[Peak] = []
        self._begin_s = 0.0
        self._hot = False

    def _check_furnace(self) -> Furnace | None:
        furnace = self._instrument.furnace
        if not self._steps:
            return furnace
        if furnace is None:
            raise ParameterError(
                f"time_series: a temperature programme needs a furnace, and {self._instrument.name!r} has none"
            )
        for step in self._steps:
            furnace.temperature.check_value(step.target)
            furnace.check_ramp(_ramp(step))
        return furnace

    def run(self) -> MsgGenerator:
        self._begin_s = yield from self._now()
        try:
            if self._steps:
                yield from self._programme()
            else:
                yield from self._period()
        except GeneratorExit:
            raise
        except BaseException:
            if self._furnace is not None and self._steps and (self._hot or self._p.on_failure == "cool"):
                yield Msg("set", self._furnace, "safe", group="safe")
                yield Msg("wait", None, group="safe")
            raise
        return self._series.results

    # -- when -----------------------------------------------------------------------------------------------------

    def _period(self) -> MsgGenerator:
        for number in range(self._p.scans):
            if self._p.period_s is not None:
                yield from self._wait_until(self._begin_s + number * self._p.period_s)
            if self._p.find == "always":
                yield from self._find()
            yield from self._scan_once({})

    def _programme(self) -> MsgGenerator:
        if self._p.find != "never":
            # what all later Bragg angles are compared with
            yield from self._find()
        for number, step in enumerate(self._steps):
            yield from self._go_to(step)
            begin_s = yield from self._now()
            for due_s in step.scan_times_s():
                yield from self._hold_until(begin_s + due_s)
                if (yield from self._is_to_be_found(step)):
                    yield from self._find()
                yield from self._scan_once({"step": number, "setpoint": step.target})
            yield from self._hold_until(begin_s + step.hold_s)

    def _now(self) -> Generator[Msg, Any, float]:
        reading = yield Msg("read", self._clock)
        return float(reading[self._clock.name]["value"]) if reading else 0.0

    def _wait_until(self, time_s: float) -> MsgGenerator:
        yield Msg("checkpoint")
        yield Msg("set", self._clock, time_s, group="time")
        yield Msg("wait", None, group="time")

    # -- temperature ----------------------------------------------------------------------------------------------

    def _temperature(self) -> Generator[Msg, Any, float | None]:
        if self._furnace is None:
            return None
        axis = self._furnace.temperature
        reading = yield Msg("read", axis)
        return float(reading[axis.name]["value"]) if reading else None

    def _go_to(self, step: ProgrammeStep) -> MsgGenerator:
        assert self._furnace is not None  # a programme was refused without one
        yield Msg("checkpoint")
        yield Msg("prepare", self._furnace, _ramp(step), group="ramp")
        yield Msg("wait", None, group="ramp")
        yield Msg("set", self._furnace.temperature, step.target, group="temperature")
        yield Msg("wait", None, group="temperature")

    def _hold_until(self, time_s: float) -> MsgGenerator:
        assert self._furnace is not None
        yield Msg("checkpoint")
        yield Msg("set", self._furnace.hold, time_s, group="hold")
        yield Msg("wait", None, group="hold")

    def _watched(self, plan: MsgGenerator) -> MsgGenerator:
        """Run a plan and look at the temperature before each of its points."""
        if self._furnace is None:
            return (yield from plan)
        answer: Any = None
        failure: BaseException | None = None
        while True:
            try:
                message = plan.throw(failure) if failure is not None else plan.send(answer)
            except StopIteration as stop:
                return stop.value
            answer, failure = None, None
            try:
                answer = yield message
                if message.command == "checkpoint":
                    here = yield from self._temperature()
                    if here is not None and (hot := self._furnace.too_hot(here)) is not None:
                        self._hot, failure = True, hot
            except GeneratorExit:
                plan.close()
                raise
            except BaseException as error:
                failure = error

    # -- the peak -------------------------------------------------------------------------------------------------

    def _is_to_be_found(self, step: ProgrammeStep) -> Generator[Msg, Any, bool]:
        if self._p.find != "change":
            return self._p.find == "always"
        here, then = (yield from self._temperature()), self._peaks[-1].temperature
        return here is None or then is None or abs(here - then) > step.tolerance_k

    def _find(self) -> MsgGenerator:
        """Go where the peak is expected, find it, and note where it is."""
        temperature = yield from self._temperature()
        if self._peaks:
            yield from self._go_to_expected(temperature)
        md = {**self._md, "dfxrm": {**self._md.get("dfxrm", {}), "for_series": self._series.uid}}
        keywords = self._search.model_dump()
        found = yield from self._watched(find_bragg(self._instrument, md=md, **keywords))
        if not found.sure:
            at = f" at {temperature:.6g} degC" if temperature is not None else ""
            raise DeviceError(
                f"time_series: the Bragg peak was not found again{at} in {self._p.find_range:g} deg about two_theta "
                f"{found.before:.6g} deg ({found.reason}); a wider find_range or sample.expansion_per_k may help"
            )
        two_theta = found.position
        rock = yield from position_of(self._instrument.axis(self._rock))
        theta0 = self._peaks[0].theta_b if self._peaks else two_theta / 2.0
        self._peaks.append(
            Peak(
                time_s=(yield from self._now()) - self._begin_s,
                temperature=temperature,
                two_theta=two_theta,
                error=found.error if math.isfinite(found.error) else None,
                theta_b=two_theta / 2.0,
                rock=rock,
                # Bragg's law at one wavelength
                strain=math.sin(math.radians(theta0)) / math.sin(math.radians(two_theta / 2.0)) - 1.0,
            )
        )

    def _go_to_expected(self, temperature: float | None) -> MsgGenerator:
        last, sample = self._peaks[-1], self._instrument.sample
        if temperature is None or last.temperature is None or not sample.expansion_per_k:
            return
        longer = [
            1.0 + sample.expansion_per_k * (at - sample.reference_temperature) for at in (last.temperature, temperature)
        ]
        sine = math.sin(math.radians(last.theta_b)) * longer[0] / longer[1]
        two_theta = 2.0 * math.degrees(math.asin(sine))
        view = yield from present_view(self._instrument, self._camera)
        rate, _ = rock_per_two_theta(view, self._rock)
        arm, rock = self._instrument.axis(ARM), self._instrument.axis(self._rock)
        yield Msg("checkpoint")
        yield Msg("set", arm, round(two_theta, 9), group="expected")
        yield Msg("set", rock, round(last.rock + rate * (two_theta - last.two_theta), 9), group="expected")
        yield Msg("wait", None, group="expected")

    # -- the scan -------------------------------------------------------------------------------------------------

    def _scan_once(self, details: Mapping[str, Any]) -> MsgGenerator:
        time_s = (yield from self._now()) - self._begin_s
        temperature = yield from self._temperature()
        said = {**details, "temperature": temperature, "peaks": [asdict(peak) for peak in self._peaks]}

        def scan(*, md: Mapping[str, Any]) -> MsgGenerator:
            return self._watched(self._scan(md=md))

        one: Callable[..., MsgGenerator] = scan
        yield from self._series.run(one, round(time_s, 6), details=said)


def _ramp(step: ProgrammeStep) -> Ramp:
    return Ramp(step.ramp_k_per_min, step.tolerance_k)
