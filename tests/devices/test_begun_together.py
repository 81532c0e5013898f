"""Moves that are begun one right after the other take as long as the longest, also where the clock jumps."""

import sys

import bluesky.plan_stubs as bps
import pytest
from fake_backend import Microscope, axis, backend_for, configuration

from devices import Clock


@pytest.fixture
def two():
    settings = {"velocity": 1.0, "acceleration_s": 0.0}
    config = configuration(goniometer__axes__chi=axis(**settings), goniometer__axes__phi=axis(**settings))
    backend = backend_for(config)
    return Microscope(config, backend).goniometer, backend


@pytest.fixture
def threads_take_turns():
    """Let the thread that rings the alarms run between any two steps of the one that begins the moves."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("threads_take_turns")
def test_moves_begun_together_take_as_long_as_the_longest(two):
    goniometer, backend = two
    for turn in range(20):
        target = 2.0 if turn % 2 == 0 else 0.0
        begin = backend.now()
        statuses = [goniometer.chi.set(target), goniometer.phi.set(target / 2)]
        for status in statuses:
            status.wait(5.0)
        assert backend.now() - begin == pytest.approx(2.0)


@pytest.mark.usefixtures("threads_take_turns")
def test_so_they_do_in_a_plan_that_says_when_it_waits(two, run_engine):
    goniometer, backend = two
    clock = Clock(backend)
    waits = []

    def waiting(statuses):
        if statuses is not None:
            waits.append(backend.now())
            clock.hurry()

    run_engine.waiting_hook = waiting
    for turn in range(20):
        target = 2.0 if turn % 2 == 0 else 0.0
        begin = backend.now()
        run_engine(bps.mv(goniometer.chi, target, goniometer.phi, target / 2))
        assert waits.pop() == begin and backend.now() - begin == pytest.approx(2.0)
