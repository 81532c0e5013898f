"""The furnace: ramps, holds, its band, and what it does when it gets too hot; and the clock that plans wait by."""

import time

import pytest
from bluesky import plan_stubs as bps
from bluesky.protocols import Movable, Preparable, Readable, Stoppable
from fake_backend import axis, backend_for, build, configuration

from devices import Clock, Fault
from dfxrm_control import environment
from dfxrm_control.environment import Ramp
from dfxrm_control.errors import ConfigError, DeviceError, DfxrmError, LimitError

WAIT_S = 5.0


def furnace_with(instant=True, settings=None, **temperature):
    part = {"units": "degC", "low": 20.0, "high": 500.0, "start": 25.0, "velocity": 0.5, "tolerance": 2.0}
    made = axis(**{**part, "acceleration_s": 0.0, "extra_timeout_s": 600.0, **temperature})
    config = configuration(
        furnace={"device": "devices:Furnace", "axes": {"temperature": made}, "settings": settings or {}}
    )
    backend = backend_for(config, instant=instant)
    return build(config, backend)["furnace"], backend


def failure(status):
    error = status.exception(timeout=WAIT_S)
    assert isinstance(error, DfxrmError), error
    return str(error)


def wait_for(condition):
    end = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


def overheat(furnace, backend, temperature):
    """Let the temperature be what nobody asked for."""
    backend.moves["temperature"] = (temperature, temperature, 0.0, 0.0)


def test_its_temperature_reads_actual_value_and_setpoint_in_degc():
    furnace, _ = furnace_with()
    furnace.temperature.set(125.0).wait(WAIT_S)
    reading = furnace.temperature.read()
    assert {key: value["value"] for key, value in reading.items()} == {
        "temperature": 125.0,
        "temperature_setpoint": 125.0,
    }
    key = furnace.temperature.describe()["temperature"]
    assert (key["units"], key["precision"], key["upper_ctrl_limit"]) == ("degC", 5, 500.0)
    assert isinstance(furnace, environment.Furnace) and isinstance(furnace, Preparable)


def test_a_ramp_takes_its_time_on_the_microscopes_clock():
    furnace, backend = furnace_with()
    furnace.prepare(Ramp(10.0, 3.0)).wait(WAIT_S)
    begin = backend.now()
    furnace.temperature.set(325.0).wait(WAIT_S)
    assert backend.now() - begin == pytest.approx(1800.0, abs=2.0)
    assert furnace.temperature.tolerance.get() == 3.0


@pytest.mark.parametrize("rate", [0.0, -1.0, 30.1, float("nan")])
def test_a_ramp_it_cannot_do_is_refused(rate):
    furnace, _ = furnace_with()
    with pytest.raises(
        LimitError, match=r"furnace: a ramp of .* K/min was asked; it does more than 0 and up to 30 K/min"
    ):
        furnace.prepare(Ramp(rate, 2.0))


def test_a_temperature_outside_its_limits_is_refused():
    furnace, _ = furnace_with()
    with pytest.raises(LimitError, match=r"axis temperature: 501 degC is outside its limits 20 .. 500 degC"):
        furnace.temperature.set(501.0)


def test_a_temperature_that_is_not_reached_in_time_is_one_sentence():
    furnace, backend = furnace_with()
    furnace.temperature.inject(Fault("stall"))
    begin = backend.now()
    said = failure(furnace.temperature.set(325.0))
    assert said == "axis temperature did not reach 325 degC within 1.2e+03 s; it is at 25 degC"
    assert backend.now() - begin == pytest.approx(1200.0, abs=3.0)


# -- holding -------------------------------------------------------------------------------------------------


def test_a_hold_ends_at_its_time():
    furnace, backend = furnace_with()
    furnace.temperature.set(125.0).wait(WAIT_S)
    until = backend.now() + 1200.0
    assert furnace.hold.expected_duration_s(until) == pytest.approx(1200.0)
    furnace.hold.set(until).wait(WAIT_S)
    assert backend.now() == pytest.approx(until)


def test_a_hold_fails_when_the_temperature_leaves_its_band():
    furnace, backend = furnace_with()
    furnace.temperature.set(325.0).wait(WAIT_S)
    until = backend.now() + 1200.0
    overheat(furnace, backend, 322.5)
    said = failure(furnace.hold.set(until))
    assert said.startswith(
        "furnace did not hold 325 degC: it is at 322.5 degC, more than 2 K away, 1198 s before the end"
    )
    assert backend.now() < until


def test_a_hold_can_be_stopped():
    furnace, backend = furnace_with(instant=False)
    status = furnace.hold.set(backend.now() + 1200.0)
    furnace.hold.stop()
    assert failure(status) == "furnace_hold: the waiting was stopped"


# -- too hot -------------------------------------------------------------------------------------------------


def test_a_hold_that_gets_too_hot_ends_and_the_furnace_cools():
    furnace, backend = furnace_with(settings={"over_temperature": 400.0, "safe_temperature": 30.0})
    furnace.temperature.set(325.0).wait(WAIT_S)
    overheat(furnace, backend, 401.0)
    said = failure(furnace.hold.set(backend.now() + 1200.0))
    assert said == (
        "furnace is too hot: 401 degC, above its over-temperature of 400 degC; "
        "it goes to its safe temperature of 30 degC"
    )
    wait_for(lambda: furnace.temperature.position == 30.0)
    wait_for(lambda: not furnace.temperature.unstoppable)


def test_a_move_that_gets_too_hot_ends_and_the_furnace_cools():
    furnace, _ = furnace_with(settings={"over_temperature": 200.0})
    status = furnace.temperature.set(325.0)
    assert failure(status).startswith("furnace is too hot: 2")
    wait_for(lambda: furnace.temperature.position == 20.0)


def test_the_end_of_a_plan_does_not_stop_a_furnace_that_cools(run_engine):
    # 300 K take 0.3 s
    furnace, _ = furnace_with(instant=False, velocity=1000.0)
    run_engine(bps.mv(furnace.temperature, 325.0))

    def plan():
        yield from bps.abs_set(furnace, "safe", wait=True)

    run_engine(plan())
    furnace.temperature.stop()
    assert furnace.temperature.moving
    wait_for(lambda: furnace.temperature.position == 20.0)
    wait_for(lambda: not furnace.temperature.unstoppable)


def test_a_furnace_that_cools_can_be_sent_elsewhere_and_then_stopped_again():
    furnace, _ = furnace_with(instant=False, velocity=10.0)
    furnace.set("safe").wait(WAIT_S)
    furnace.temperature.set(325.0)
    furnace.temperature.stop()
    assert not furnace.temperature.moving and furnace.temperature.position < 300.0


def test_it_takes_no_word_but_safe():
    furnace, _ = furnace_with()
    with pytest.raises(LimitError, match="furnace takes 'safe', not 325.0; a temperature is set on its axis"):
        furnace.set(325.0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ramp": 3.0}, "devices.furnace.settings: Furnace has no ramp; it has over_temperature, safe_temperature, "),
        ({"safe_temperature": 10.0}, "devices.furnace.settings.safe_temperature: axis temperature: 10 degC is outside"),
        ({"look_every_s": 0.0}, "devices.furnace.settings.look_every_s: 0 s must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(settings, sentence):
    with pytest.raises(ConfigError) as caught:
        furnace_with(settings=settings)
    assert str(caught.value).startswith(sentence)


# -- the clock -----------------------------------------------------------------------------------------------


def test_a_plan_waits_in_the_time_of_the_microscope(run_engine):
    _, backend = furnace_with()
    clock = Clock(backend)
    assert all(isinstance(clock, protocol) for protocol in (environment.Clock, Movable, Readable, Stoppable))
    begin = time.monotonic()
    run_engine(bps.mv(clock, 86400.0))
    assert backend.now() == 86400.0 and clock.read()["clock"]["value"] == 86400.0
    assert time.monotonic() - begin < 2.0


def test_without_a_backend_it_is_the_time_of_the_world():
    clock = Clock()
    begin = time.monotonic()
    clock.set(clock.now() + 0.2).wait(WAIT_S)
    assert time.monotonic() - begin == pytest.approx(0.2, abs=0.1)


def test_the_waiting_can_be_stopped_and_a_time_in_the_past_is_no_waiting():
    clock = Clock()
    status = clock.set(clock.now() + 1000.0)
    clock.stop(success=True)
    assert status.exception(timeout=WAIT_S) is None
    clock.set(clock.now() - 1.0).wait(WAIT_S)
    first = clock.set(clock.now() + 1000.0)
    second = clock.set(clock.now())
    assert isinstance(first.exception(timeout=WAIT_S), DeviceError)
    second.wait(WAIT_S)


@pytest.mark.parametrize("asked", [float("nan"), "noon", None, True])
def test_what_is_no_time_is_refused(asked):
    with pytest.raises(LimitError, match="clock: .* is no time in seconds"):
        Clock().set(asked)
