from __future__ import annotations

import threading
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dfxrm_control.errors import ConfigError, DeviceError
from simulators.clock import make_clock
from simulators.state import Axes, Channels, Choice, Range, ReadOnly


def test_fast_clock_jumps_to_what_is_waited_for_and_never_back():
    clock = make_clock("fast")
    begun = time.monotonic()
    clock.wait_until(3600.0)
    clock.wait_until(10.0)
    assert clock.now() == 3600.0
    assert time.monotonic() - begun < 1.0


def test_real_clock_sleeps_and_can_be_cancelled():
    clock = make_clock("real")
    begun = clock.now()
    clock.wait_until(begun + 0.05)
    assert clock.now() - begun >= 0.05
    clock.wait_until(clock.now() + 100.0, lambda: True)
    assert clock.now() - begun < 50.0


def test_stepped_clock_releases_a_waiter_only_when_it_was_stepped_far_enough():
    clock = make_clock("stepped")
    released = threading.Event()
    waiter = threading.Thread(target=lambda: (clock.wait_until(2.0), released.set()))
    waiter.start()
    clock.step(1.5)
    assert not released.wait(0.1)
    clock.step(0.5)
    assert released.wait(5.0)
    waiter.join()
    with pytest.raises(ValueError, match="time runs forward"):
        clock.step(-1.0)


def test_an_unknown_clock_is_refused_by_name():
    with pytest.raises(ConfigError, match="clock: 'sun' must be one of real, fast, stepped"):
        make_clock("sun")


def test_trapezoidal_move_arrives_when_it_says():
    axes = Axes({"chi": 1.0})
    arrival = axes.start_move("chi", 3.0, velocity=0.5, acceleration_s=0.2, time_s=10.0)
    assert arrival == pytest.approx(10.0 + 2.0 / 0.5 + 0.2)
    assert axes.position("chi", 10.0) == 1.0
    # half of the acceleration distance (v t_a / 2 = 0.05) after the ramp, then constant speed
    assert axes.position("chi", 10.2) == pytest.approx(1.05)
    assert axes.position("chi", 11.2) == pytest.approx(1.55)
    assert axes.position("chi", arrival) == 3.0
    assert axes.position("chi", arrival + 100.0) == 3.0


@given(distance=st.floats(-5, 5), velocity=st.floats(0.01, 10), ramp=st.floats(0, 1), share=st.floats(0, 1))
@example(distance=1.0, velocity=2.0, ramp=1.0, share=0.5)  # both ramps meet half way
def test_no_move_is_faster_than_its_speed_or_leaves_its_way(distance, velocity, ramp, share):
    axes = Axes({"x": 0.0})
    arrival = axes.start_move("x", distance, velocity, ramp, 0.0)
    moment = 1e-3 * max(arrival, 1e-6)
    here, next_ = axes.position("x", share * arrival), axes.position("x", share * arrival + moment)
    assert abs(next_ - here) <= velocity * moment * (1 + 1e-6) + 1e-9
    assert min(0.0, distance) - 1e-12 <= here <= max(0.0, distance) + 1e-12


def test_zero_velocity_moves_at_once_and_stop_holds_where_it_is():
    axes = Axes({"chi": 0.0})
    assert axes.start_move("chi", 2.0, 0.0, 0.5, 7.0) == 7.0
    assert axes.position("chi", 7.0) == 2.0
    axes.start_move("chi", 4.0, 1.0, 0.0, 7.0)
    assert axes.stop("chi", 8.0) == pytest.approx(3.0)
    assert axes.position("chi", 20.0) == pytest.approx(3.0)


def test_an_unknown_axis_names_those_there_are():
    with pytest.raises(DeviceError, match="no axis 'psi'; it has chi, phi"):
        Axes({"phi": 0.0, "chi": 0.0}).position("psi", 0.0)
    with pytest.raises(DeviceError, match="finite"):
        Axes({"phi": 0.0}).start_move("phi", float("nan"), 1.0, 0.0, 0.0)


def test_channels_take_what_they_can_and_say_what_that_is():
    channels = Channels(
        {
            "shutter": ("closed", Choice(("open", "closed"))),
            "attenuator": (1.0, Range(0.0, 1.0)),
            "ring_current": (200.0, ReadOnly()),
        }
    )
    channels.put("shutter", "open")
    channels.put("attenuator", 0.25)
    assert channels.values() == {"shutter": "open", "attenuator": 0.25, "ring_current": 200.0}
    for channel, value, says in (
        ("shutter", "ajar", "takes open or closed, not 'ajar'"),
        ("attenuator", 0.0, "above 0 and up to 1, not 0.0"),
        ("attenuator", "much", "above 0 and up to 1, not 'much'"),
        ("ring_current", 100.0, "read only"),
        ("valve", 1.0, "no channel 'valve'; it has attenuator, ring_current, shutter"),
    ):
        with pytest.raises(DeviceError, match=says):
            channels.put(channel, value)
    channels.happen("ring_current", 0.0)
    assert channels.get("ring_current") == 0.0
