"""A twin whose time is counted in exposures and whose axes count in steps."""

import threading

import pytest

from dfxrm_control.backend import FrameRequest
from dfxrm_control.errors import ConfigError


def test_time_passes_with_exposures_alone(make_twin):
    twin = make_twin(clock="frames")
    assert twin.start_move("chi", 1.0, 0.01, 5.0) == twin.now() == 0.0
    assert twin.position("chi") == 1.0
    twin.wait_until(0.0)
    waiter = threading.Thread(target=twin.wait_until, args=(0.5,), daemon=True)
    waiter.start()
    frames = [twin.expose(FrameRequest("far_field", 0.2)) for _ in range(2)]
    assert [(frame.start_s, frame.end_s) for frame in frames] == [(0.0, 0.2), (0.2, 0.4)]
    # a thread that waits for a time that has not come is not let go, and lets none pass
    waiter.join(0.1)
    assert waiter.is_alive() and twin.now() == 0.4
    twin.expose(FrameRequest("near_field", 0.2))
    waiter.join(10)
    assert not waiter.is_alive()
    assert twin.now() == pytest.approx(0.6)
    assert twin.frames_taken == 3


def test_every_target_is_rounded_to_the_resolution(make_twin):
    twin = make_twin(resolution=1.0e-5)
    for axis, target, reached in (
        ("chi", 0.0123456, 0.01235),
        ("samx", -1.000004, -1.0),
        ("ccmth", 6.6796718, 6.67967),
    ):
        twin.start_move(axis, target, 0.0, 0.0)
        assert twin.position(axis) == pytest.approx(reached, abs=1e-12)
    free = make_twin()
    free.start_move("chi", 0.0123456, 0.0, 0.0)
    assert free.position("chi") == 0.0123456


@pytest.mark.parametrize("resolution", [-1e-5, float("inf"), float("nan"), "1e-5"])
def test_a_resolution_that_cannot_be_is_refused(make_twin, resolution):
    with pytest.raises(ConfigError, match="resolution: .* must be a number, 0 or above"):
        make_twin(resolution=resolution)
