"""Records and a camera behind a line that takes 200 ms there and back: slower, and otherwise as near ones."""

import time

import pytest
from fake_backend import axis as configured_axis
from scan_faults import ROCK, ROLL, check_record, microscope, opened, scan

from devices._epics import EpicsAxis
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import LimitError

PREFIXES = {"far_away": "FAR:"}

WAY_S = 0.1


@pytest.fixture
def slow(far_away):
    yield far_away
    far_away.delay_s = 0.0


def axis(record, name):
    config = AxisConfig(control="epics", address=f"FAR:{record}", limits=(-5.0, 5.0), tolerance=1e-4)
    return EpicsAxis(name=name, config=config)


@pytest.fixture(scope="module")
def session(far_away, tmp_path_factory):
    motor = {"control": "epics", "velocity": 10.0, "tolerance": 1e-4}
    config = microscope(
        tmp_path_factory.mktemp("far"),
        goniometer__axes__chi=configured_axis(address="FAR:m2", **{**motor, "velocity": 1e6}),
        goniometer__axes__phi=configured_axis(address="FAR:m1", **motor),
        far_field__camera={"control": "epics", "address": "FAR:", "timeout_s": 5.0},
    )
    with opened(config) as session:
        yield session


@pytest.mark.slow
def test_a_network_that_becomes_slow_only_takes_longer(session, slow):
    before = ROCK * ROLL - 2
    begin = []

    def inject():
        slow.delay_s = WAY_S
        begin.append(time.monotonic())

    ended = scan(session, inject, at=before)
    assert ended.sentence == "" and ended.run.end_status == "success"
    # two points, each with one move, one reading and one frame at least
    assert time.monotonic() - begin[0] > 2 * 3 * 2 * WAY_S
    check_record(ended, ROCK * ROLL)


def test_moves_stops_and_limits_are_as_near_by(slow):
    chi = axis("m1", "chi")
    chi.wait_for_connection(timeout=20.0)
    slow.delay_s = WAY_S
    begin = time.monotonic()
    chi.readback()
    assert 2 * WAY_S <= time.monotonic() - begin < 10 * WAY_S
    chi.set(0.5).wait(10.0)
    assert chi.position == 0.5
    with pytest.raises(LimitError):
        chi.set(7.0)
    status = chi.set(-5.0)
    chi.stop(success=True)
    status.wait(5.0)
    chi.set(0.0).wait(10.0)
    assert chi.position == 0.0
    chi.destroy()
