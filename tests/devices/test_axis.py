import threading
import time

import pytest
from fake_backend import axis, backend_for, configuration
from ophyd.positioner import PositionerBase

from devices import Fault, Goniometer, MemoryAxis
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import ArrivalError, DeviceError, DfxrmError, LimitError

WAIT_S = 5.0


def chi_with(instant=True, **settings):
    config = configuration(goniometer__axes__chi=axis(**settings))
    backend = backend_for(config, instant=instant)
    return Goniometer("goniometer", config.devices["goniometer"], config, backend).chi, backend


def failure(status):
    error = status.exception(timeout=WAIT_S)
    assert isinstance(error, DfxrmError), error
    return error


def test_a_move_ends_at_its_target_and_is_read_as_readback_and_setpoint():
    chi, _ = chi_with()
    status = chi.set(1.25)
    status.wait(WAIT_S)
    assert chi.position == 1.25 and not chi.moving
    assert {key: value["value"] for key, value in chi.read().items()} == {"chi": 1.25, "chi_setpoint": 1.25}
    assert chi.locate() == {"setpoint": 1.25, "readback": 1.25}


def test_before_its_first_move_an_axis_reads_where_it_is():
    chi, backend = chi_with(start=0.5)
    backend.moves["chi"] = (0.75, 0.75, 0.0, 0.0)
    assert {key: value["value"] for key, value in chi.read().items()} == {"chi": 0.75, "chi_setpoint": 0.75}


def test_a_move_takes_its_time_on_the_clock_of_the_backend():
    chi, backend = chi_with(velocity=2.0, acceleration_s=0.5)
    begin = backend.now()
    chi.set(3.0).wait(WAIT_S)
    assert backend.now() - begin == pytest.approx(3.0 / 2.0 + 0.5)
    # half a second to speed up and half to slow down, at half the speed in the mean; a short move is all ramps
    assert chi.expected_duration_s(0.0) == pytest.approx(3.0 / 2.0 + 0.5)
    here = chi.readback()
    assert chi.expected_duration_s(here + 0.25) == pytest.approx(2 * (0.25 * 0.5 / 2.0) ** 0.5)
    assert chi.expected_duration_s(here) == 0.0


def test_in_real_time_an_axis_is_on_its_way_until_it_has_arrived():
    chi, _ = chi_with(instant=False, velocity=5.0, acceleration_s=0.0)
    begin = time.monotonic()
    status = chi.set(1.0)
    time.sleep(0.05)
    assert chi.moving and not status.done and 0.0 < chi.position < 1.0
    status.wait(WAIT_S)
    assert time.monotonic() - begin == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize("asked", [10.1, -11, float("nan"), float("inf"), "far", None])
def test_a_position_outside_the_limits_moves_nothing(asked):
    chi, backend = chi_with()
    with pytest.raises(LimitError) as caught:
        chi.set(asked)
    assert "chi" in str(caught.value) and ("-10 .. 10 deg" in str(caught.value) or "no position" in str(caught.value))
    assert not backend.log and not chi.moving


def test_the_limits_themselves_are_allowed():
    chi, _ = chi_with()
    for end in chi.limits:
        chi.set(end).wait(WAIT_S)
        assert chi.position == end


def test_an_axis_without_limits_is_not_moved():
    config = configuration(goniometer__axes__chi={"units": "deg"})
    backend = backend_for(config)
    chi = Goniometer("goniometer", config.devices["goniometer"], config, backend).chi
    with pytest.raises(LimitError, match="axis chi has no limits, so it is not moved"):
        chi.set(0.0)
    assert "lower_ctrl_limit" not in chi.describe()["chi"]
    assert not backend.log


def test_backlash_is_taken_up_by_approaching_from_below():
    chi, backend = chi_with(backlash=0.5, start=2.0)
    chi.set(1.0).wait(WAIT_S)
    chi.set(1.5).wait(WAIT_S)
    assert [move[:2] for move in backend.log] == [("chi", 0.5), ("chi", 1.0), ("chi", 1.5)]
    chi.set(-10.0).wait(WAIT_S)
    assert backend.log[-2][:2] == ("chi", -10.0), "the approach may not leave the limits"


def test_a_stalled_axis_fails_within_its_time_naming_itself():
    chi, backend = chi_with(extra_timeout_s=0.5)
    chi.inject(Fault("stall"))
    assert str(failure(chi.set(1.0))) == "axis chi did not reach 1 deg within 1.55 s; it is at 0 deg"
    chi.inject(None)
    chi.set(1.0).wait(WAIT_S)


def test_real_time_ends_a_move_whose_clock_stands_still():
    chi, backend = chi_with(extra_timeout_s=0.05, velocity=1000.0, acceleration_s=0.0)
    backend.wait_until = lambda time_s, cancelled: threading.Event().wait(1.0)
    assert "axis chi did not reach 1 deg" in str(failure(chi.set(1.0)))


def test_a_clock_that_fails_ends_the_move():
    chi, backend = chi_with()

    def broken(time_s, cancelled):
        raise OSError("server gone")

    backend.wait_until = broken
    assert str(failure(chi.set(1.0))) == "axis chi (memory:chi): its clock failed: server gone"


def test_an_axis_stopped_short_has_not_arrived():
    chi, _ = chi_with()
    chi.inject(Fault("short", 0.002))
    error = failure(chi.set(1.0))
    assert isinstance(error, ArrivalError)
    assert (
        str(error) == "axis chi was sent to 1 deg but stopped at 0.998 deg, more than its tolerance of 0.0001 deg away"
    )


def test_an_axis_within_its_tolerance_has_arrived():
    chi, _ = chi_with()
    chi.inject(Fault("short", 0.9e-4))
    chi.set(-1.0).wait(WAIT_S)
    assert chi.read()["chi"]["value"] == pytest.approx(-1.0 + 0.9e-4)
    assert chi.read()["chi_setpoint"]["value"] == -1.0


def test_a_fault_fails_the_move_with_the_devices_own_words():
    chi, _ = chi_with()
    chi.inject(Fault("fault", text="following error 42"))
    error = failure(chi.set(1.0))
    assert str(error) == "axis chi went into fault on its way to 1 deg; it is at 0.5 deg; it says: following error 42"


def test_a_limit_switch_on_the_way_fails_the_move():
    chi, _ = chi_with()
    chi.inject(Fault("limit_switch", 0.75))
    error = failure(chi.set(1.0))
    assert isinstance(error, ArrivalError)
    assert str(error) == "axis chi hit a limit switch on its way to 1 deg; it is at 0.75 deg"
    chi.set(0.5).wait(WAIT_S)


def test_a_disconnected_axis_is_neither_read_nor_moved():
    chi, backend = chi_with()
    chi.inject(Fault("disconnected"))
    for attempt in (chi.read, lambda: chi.set(1.0), lambda: chi.position):
        with pytest.raises(DeviceError, match=r"axis chi \(memory:chi\) is disconnected"):
            attempt()
    assert not backend.log


def test_a_connection_lost_on_the_way_ends_the_move_at_once():
    chi, _ = chi_with(instant=False)
    status = chi.set(5.0)
    chi.inject(Fault("disconnected"))
    assert "is disconnected" in str(failure(status))


def test_a_slow_axis_arrives_late_or_fails_if_it_is_too_late():
    chi, backend = chi_with(extra_timeout_s=3.0)
    chi.inject(Fault("slow", 3.0))
    begin = backend.now()
    chi.set(1.0).wait(WAIT_S)
    assert backend.now() - begin == pytest.approx(3.05)
    chi.inject(Fault("slow", 300.0))
    assert "did not reach 0 deg within 4.05 s" in str(failure(chi.set(0.0)))


def test_stop_leaves_the_axis_where_it_is_and_fails_the_move():
    chi, _ = chi_with(instant=False)
    status = chi.set(5.0)
    time.sleep(0.05)
    chi.stop()
    assert "axis chi was stopped on its way to 5 deg" in str(failure(status))
    here = chi.position
    time.sleep(0.05)
    assert 0.0 < here < 1.0 and chi.position == here and chi.setpoint == here


def test_stop_by_a_pause_is_no_failure():
    chi, _ = chi_with(instant=False)
    status = chi.set(5.0)
    chi.stop(success=True)
    status.wait(WAIT_S)


def test_stop_of_a_resting_axis_changes_nothing():
    chi, _ = chi_with()
    chi.set(1.0).wait(WAIT_S)
    chi.stop()
    assert chi.locate() == {"setpoint": 1.0, "readback": 1.0}


def test_a_second_target_ends_the_first_move():
    chi, _ = chi_with(instant=False, velocity=20.0, acceleration_s=0.0)
    first = chi.set(5.0)
    second = chi.set(-1.0)
    assert str(failure(first)) == "axis chi was sent to -1 deg before it had arrived"
    second.wait(WAIT_S)
    assert chi.position == -1.0


def test_speed_and_tolerance_are_settings_with_bounds_and_units():
    chi, backend = chi_with()
    chi.velocity.set(4.0).wait(WAIT_S)
    begin = backend.now()
    chi.set(2.0).wait(WAIT_S)
    assert backend.now() - begin == pytest.approx(0.5 + 0.05)
    assert chi.describe_configuration()["chi_velocity"]["units"] == "deg/s"
    for wrong in (0.0, -1.0, "fast", True):
        with pytest.raises(LimitError, match="chi_velocity"):
            chi.velocity.put(wrong)


def test_an_axis_tells_its_subscribers_where_it_arrived():
    chi, _ = chi_with()
    seen, done = [], []
    chi.subscribe(lambda value, **_: seen.append(value), run=False)
    chi.subscribe(lambda **_: done.append(True), event_type=chi.SUB_DONE, run=False)
    chi.set(1.0).wait(WAIT_S)
    assert seen == [1.0] and done == [True]


class OphydOrder(MemoryAxis):
    """An axis that ends its moves in ophyd's order: call the one-shot callbacks, then clear them."""

    def _done_moving(self, success=True, motion=None, error=None, **kwargs):
        self._motion = None
        PositionerBase._done_moving(self, success=success)  # noqa: SLF001


@pytest.mark.parametrize(("cls", "lost"), [(MemoryAxis, False), (OphydOrder, True)])
def test_a_move_started_by_the_end_of_another_is_not_lost(cls, lost):
    config = configuration()
    chi = cls(name="chi", config=AxisConfig(limits=(-1.0, 1.0), velocity=10.0), backend=backend_for(config))
    second = []
    first = chi.set(0.5)
    started = threading.Event()

    def go_on(_):
        second.append(chi.set(1.0))
        started.set()

    first.add_callback(go_on)
    assert started.wait(WAIT_S)
    deadline = time.monotonic() + (0.5 if lost else WAIT_S)
    while not second[0].done and time.monotonic() < deadline:
        time.sleep(0.01)
    assert chi.position == 1.0
    assert second[0].done is not lost
