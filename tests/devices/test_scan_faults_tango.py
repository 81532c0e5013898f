"""What goes wrong over Tango in the middle of a scan: it ends in time, says why, is safe, and can be run again."""

import time

import pytest
from fake_backend import axis
from scan_faults import (
    MIDDLE,
    ROCK,
    ROLL,
    check_failed,
    check_record,
    check_runs,
    microscope,
    opened,
    scan,
    waits_while_unknown,
)
from tango_server import Server

pytestmark = pytest.mark.slow

AT_ONCE_S = 1e-4


@pytest.fixture(scope="module")
def motors(tmp_path_factory):
    running = Server({"s/axis/phi": "Motor"}, tmp_path_factory.mktemp("motors") / "log", delay_s=AT_ONCE_S)
    yield running
    running.close()


@pytest.fixture(scope="module")
def beam(tmp_path_factory):
    devices = {"s/axis/chi": "Motor", "s/fast/shutter": "Shutter", "s/ring/one": "Ring"}
    running = Server(devices, tmp_path_factory.mktemp("beam") / "log")
    yield running
    running.close()


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    running = Server({"s/camera/1": "LimaCCDs"}, tmp_path_factory.mktemp("camera") / "log")
    yield running
    running.close()


@pytest.fixture(scope="module")
def session(motors, beam, camera, tmp_path_factory):
    motor = {"control": "tango", "velocity": 1000.0, "extra_timeout_s": 1.5, "tolerance": 1e-4}
    choices = ("open", "closed")
    config = microscope(
        tmp_path_factory.mktemp("tango"),
        goniometer__axes__chi=axis(address=beam.address("s/axis/chi"), **motor),
        goniometer__axes__phi=axis(address=motors.address("s/axis/phi"), **motor),
        beam__channels__shutter={"choices": choices, "control": "tango", "address": beam.address("s/fast/shutter")},
        beam__channels__ring_current={
            "control": "tango",
            "address": beam.address("s/ring/one", "Current"),
            "read_only": True,
            "units": "mA",
        },
        far_field__camera={"control": "tango", "address": camera.address("s/camera/1"), "timeout_s": 1.0},
    )
    with opened(config) as session:
        yield session


def shutter(beam):
    return str(beam.proxy("s/fast/shutter").state())


@pytest.mark.parametrize(
    "fault, words",
    [
        ("short 0.05", ("stopped at", "more than its tolerance")),
        ("stall", ("within", "it is at")),
        ("fault following error on encoder 3", ("went into FAULT", "it says: following error on encoder 3")),
        ("limit 0.05", ("went into ALARM", "it says: upper limit switch hit")),
    ],
)
def test_a_motor_that_goes_wrong(session, motors, beam, fault, words):
    motor = motors.proxy("s/axis/phi")
    ended = scan(session, lambda: motor.write_attribute("Fault", fault))
    motor.Fault = ""
    check_failed(ended, "axis phi (tango://", "/s/axis/phi", "0.1 deg", *words)
    assert shutter(beam) == "CLOSE"
    check_runs(session)


@pytest.mark.parametrize(
    "fault, words",
    [
        ("missing", "delivered no frame within 0.8 s: it took none"),
        ("unsaved", "it took one and did not save it"),
        ("twice", "delivered a frame twice"),
        ("full No space left on device", "No space left on device"),
    ],
)
def test_a_detector_that_goes_wrong(session, camera, beam, fault, words):
    lima = camera.proxy("s/camera/1")
    ended = scan(session, lambda: lima.write_attribute("Fault", fault))
    lima.Fault = ""
    check_failed(ended, "camera far_field (tango://", "/s/camera/1", words)
    assert shutter(beam) == "CLOSE"
    check_runs(session)


def test_a_ring_current_that_is_no_number(session, beam):
    ring = beam.proxy("s/ring/one")
    ended = scan(session, lambda: ring.write_attribute("Current", -1.0))
    ring.Current = 200.0
    check_failed(ended, "ring_current (tango://", "s/ring/one", "NaN")
    assert shutter(beam) == "CLOSE"
    check_runs(session)


@pytest.mark.parametrize("which", ["motors", "beam", "camera"])
def test_a_server_that_is_killed(session, motors, beam, camera, which):
    server, words = {
        "motors": (motors, ("axis phi (tango://", "0.1 deg")),
        "beam": (beam, ("axis chi (tango://",)),
        "camera": (
            camera,
            ("camera far_field (tango://", "was lost at frame 3 of far_field_0002.h5", "asked to run startAcq"),
        ),
    }[which]
    ended = scan(session, server.kill)
    server.start()
    check_failed(ended, *words)
    if which != "beam":
        assert shutter(beam) == "CLOSE"
    check_runs(session)


@pytest.mark.parametrize("which", ["motors", "camera"])
def test_a_server_that_stands_still_with_its_socket_open(session, motors, camera, beam, which):
    server = {"motors": motors, "camera": camera}[which]
    ended = scan(session, server.freeze)
    server.thaw()
    words = ("axis phi (tango://", "0.1 deg") if which == "motors" else ("camera far_field (tango://",)
    check_failed(ended, *words, within_s=60.0)
    assert shutter(beam) == "CLOSE"
    check_runs(session)


def test_a_network_that_becomes_slow_only_takes_longer(session, motors):
    def slow():
        motors.relay.delay_s = 0.1  # there, and as much back

    begin = time.monotonic()
    try:
        ended = scan(session, slow, at=MIDDLE)
    finally:
        motors.relay.delay_s = AT_ONCE_S
    assert ended.sentence == "" and time.monotonic() - begin < 60
    check_record(ended, ROCK * ROLL)


@pytest.mark.parametrize("how", ["no number", "hangs"])
def test_a_plan_waits_while_the_ring_current_is_not_known(session, beam, how):
    ring = beam.proxy("s/ring/one")
    if how == "hangs":
        waits_while_unknown(session, beam.freeze, beam.thaw)
    else:
        waits_while_unknown(
            session, lambda: ring.write_attribute("Current", -1.0), lambda: ring.write_attribute("Current", 200.0)
        )
