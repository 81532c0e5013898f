"""Our axis on the fake motor record of caproto, which nobody here wrote and which keeps another order."""

import time

import bluesky.plans as bp
import pytest

from devices._epics import EpicsAxis
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import DeviceError, LimitError

PREFIXES = {"fake_motors": "FAKE:"}


@pytest.fixture
def motor(fake_motors):
    config = AxisConfig(control="epics", address="FAKE:mtr2", units="mm", tolerance=1e-3, extra_timeout_s=3.0)
    part = EpicsAxis(name="samx", config=config)
    part.wait_for_connection(timeout=10.0)
    yield part
    part.destroy()


def test_it_moves_within_the_limits_of_the_record(motor):
    assert motor.limits == (-10.0, 20.0) and motor.velocity.get() == 2.0
    begin = time.monotonic()
    motor.set(1.0).wait(10.0)
    assert motor.position == pytest.approx(1.0, abs=1e-9) and time.monotonic() - begin > 0.4
    motor.set(1.0).wait(10.0)
    with pytest.raises(LimitError, match="outside its limits -10 .. 20 mm"):
        motor.set(21.0)


def test_it_stops(motor):
    motor.set(0.0).wait(10.0)
    status = motor.set(10.0)
    time.sleep(0.5)
    motor.stop()
    with pytest.raises(DeviceError, match="was stopped on its way to 10 mm"):
        status.wait(1.0)
    time.sleep(0.5)
    here = motor.position
    time.sleep(0.3)
    assert motor.position == here < 5.0


def test_a_scan_visits_every_point(motor, run_engine):
    points = []
    run_engine(bp.scan([], motor, 0.0, 0.5, 6), {"event": lambda _, document: points.append(document["data"]["samx"])})
    assert points == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-9)
