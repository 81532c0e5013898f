"""A motor of ophyd-async: our plans refuse it and say why; stock plans take it; and the reasons are still as they were.

When one of the last three tests fails, ophyd-async or bluesky has become better, and decision 0016 is to be taken anew.
"""

import dataclasses
import inspect
import warnings

import bluesky.plans as bp
import epics
import pytest
from bluesky.suspenders import SuspendFloor
from ophyd_async.core import init_devices
from ophyd_async.epics.core import _aioca
from ophyd_async.epics.motor import Motor
from scan_faults import SCAN, microscope, opened

import plans
from dfxrm_control.errors import ParameterError
from dfxrm_control.records import read_journal

PREFIXES = {"records": "ASYNC:"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session(records, tmp_path_factory):
    with opened(microscope(tmp_path_factory.mktemp("async"))) as session:
        yield session


@pytest.fixture(scope="module")
def motor(session, records):
    with init_devices(timeout=30.0):
        motor = Motor("ASYNC:m2", name="phi")
    return motor


def test_our_plans_refuse_it_and_say_why_before_anything_moves(session, motor):
    instrument = dataclasses.replace(session.instrument, axes={**session.axes, "phi": motor})
    before = session.recorder.journal
    refusal = (
        r"axis 'phi' is an ophyd-async device \(ophyd_async.epics.motor:Motor\), which our plans refuse: .* control"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(step|window) of.*")
        with pytest.raises(ParameterError, match=refusal):
            session.execute(plans.mosaicity_scan(instrument, **SCAN))
    assert session.recorder.journal is before
    assert epics.get_pv("ASYNC:m2.RBV", connect=True, timeout=10.0).get(use_monitor=False) == 0.0


def test_a_stock_plan_takes_it_and_gets_the_full_record(session, motor):
    outcome = session.execute(bp.scan([session.cameras["far_field"]], motor, -0.1, 0.1, 3))
    assert outcome.status == "success"
    run = read_journal(session.recorder.journal)
    assert [event["data"]["phi"] for event in run.primary.events.values()] == pytest.approx([-0.1, 0.0, 0.1])
    assert {"monitor", "ring_current"} <= set(run.primary.data_keys)


def test_it_takes_a_motor_that_stopped_short_for_one_that_arrived(session, motor):
    fault = epics.get_pv("ASYNC:m2:fault", connect=True, timeout=10.0)
    fault.put("short", wait=True, timeout=5.0)
    try:
        outcome = session.execute(bp.scan([], motor, -0.3, 0.3, 2))
    finally:
        fault.put("none", wait=True, timeout=5.0)
    run = read_journal(session.recorder.journal)
    assert outcome.status == "success"
    assert abs(run.primary.events[2]["data"]["phi"] - 0.3) > 0.1


def test_no_suspender_can_watch_it(session, motor):
    suspender = SuspendFloor(motor.user_readback, -5.0)
    with pytest.raises(TypeError):
        suspender.install(session.RE)


def test_a_question_to_a_server_that_is_gone_has_no_time_out():
    asks = inspect.getsource(_aioca.CaSignalBackend._caget)  # noqa: SLF001
    assert "timeout=None" in asks
