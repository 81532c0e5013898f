"""What goes wrong over EPICS in the middle of a scan: it ends in time, says why, is safe, and can be run again."""

import signal
import time

import epics
import pytest
from fake_backend import axis
from scan_faults import MIDDLE, check_failed, check_runs, microscope, opened, scan, waits_while_unknown

PREFIXES = {"records": "FAULTY:", "cameras": "BROKEN:", "soft": "LOST"}

pytestmark = pytest.mark.slow

WORDS = {"choices": ("open", "closed"), "control": "epics", "address": "LOST:SIMPLE"}
CURRENT = {"control": "epics", "address": "LOST:CURRENT", "read_only": True, "units": "mA"}


@pytest.fixture(scope="module")
def session(records, soft, cameras, tmp_path_factory):
    motor = {"control": "epics", "velocity": 10.0, "extra_timeout_s": 1.5, "tolerance": 1e-4}
    config = microscope(
        tmp_path_factory.mktemp("epics"),
        goniometer__axes__chi=axis(address="FAULTY:m2", **{**motor, "velocity": 1e6}),
        goniometer__axes__phi=axis(address="FAULTY:m1", **motor),
        beam__channels__shutter=WORDS,
        beam__channels__ring_current=CURRENT,
        far_field__camera={"control": "epics", "address": "BROKEN:", "timeout_s": 2.0},
    )
    with opened(config) as session:
        for name in ("FAULTY:m1:fault", "BROKEN:fault", "LOST:SET_CURRENT"):
            epics.get_pv(name, connect=True, timeout=10.0)
        yield session


def put(name, value):
    epics.get_pv(name).put(value, wait=True, timeout=5.0)


def shutter():
    return epics.get_pv("LOST:SIMPLE", connect=True, timeout=10.0).get(as_string=True, use_monitor=False)


@pytest.mark.parametrize(
    "fault, words",
    [
        ("short", ("stopped at", "more than its tolerance")),
        ("stall", ("within", "it is at")),
        ("high", ("hit its high limit switch",)),
        ("problem", ("went into fault (MSTA: problem)",)),
        ("slip", ("slipped or stalled",)),
        ("controller", ("lost its controller",)),
        ("refuse", ("refused the position as beyond its limits (LVIO)",)),
    ],
)
def test_a_motor_that_goes_wrong(session, fault, words):
    ended = scan(session, lambda: put("FAULTY:m1:fault", fault))
    put("FAULTY:m1:fault", "none")
    check_failed(ended, "axis phi (ca://FAULTY:m1)", "0.1 deg", *words)
    assert shutter() == "closed"
    session.move([(session.axes["phi"], 0.0)])


@pytest.mark.parametrize(
    "fault, words",
    [
        ("none taken", "delivered no frame"),
        ("dropped", "dropped 1 frame"),
        ("twice", "delivered a frame twice"),
        ("disk full", "no space left on device"),
    ],
)
def test_a_detector_that_goes_wrong(session, fault, words):
    ended = scan(session, lambda: put("BROKEN:fault", fault))
    put("BROKEN:fault", "none")
    # the second copy of a frame may be written only when the frame has been accepted
    late = fault == "twice" and len(ended.run.primary) > MIDDLE
    check_failed(ended, "camera far_field (ca://BROKEN:cam1)", words, events=MIDDLE + late)
    assert shutter() == "closed"


def test_a_ring_current_that_is_no_number(session):
    ended = scan(session, lambda: put("LOST:SET_CURRENT", float("nan")))
    put("LOST:SET_CURRENT", 200.0)
    check_failed(ended, "ring_current (ca://LOST:CURRENT)", "nan")
    assert shutter() == "closed"
    check_runs(session)


@pytest.mark.parametrize("which", ["records", "cameras", "soft"])
def test_a_server_that_is_killed(session, which, request):
    server = request.getfixturevalue(which)
    names = {"records": "axis phi (ca://FAULTY:m1)", "cameras": "camera far_field (ca://BROKEN:", "soft": "(ca://LOST:"}
    ended = scan(session, server.kill)
    server.start()
    check_failed(ended, names[which], *(("0.1 deg",) if which == "records" else ()))
    if which != "soft":
        assert shutter() == "closed"
    check_runs(session)


@pytest.mark.parametrize("which", ["records", "cameras"])
def test_a_server_that_stands_still_with_its_socket_open(session, which, request):
    server = request.getfixturevalue(which)
    names = {"records": "axis phi (ca://FAULTY:m1)", "cameras": "camera far_field (ca://BROKEN:"}
    begin = time.monotonic()
    ended = scan(session, lambda: server.signal(signal.SIGSTOP))
    server.signal(signal.SIGCONT)
    assert time.monotonic() - begin < 60
    check_failed(ended, names[which], *(("0.1 deg",) if which == "records" else ()), events=MIDDLE)
    assert shutter() == "closed"
    check_runs(session)


@pytest.mark.parametrize("how", ["no number", "killed", "hangs"])
def test_a_plan_waits_while_the_ring_current_is_not_known(session, soft, how):
    ways = {
        "no number": (lambda: put("LOST:SET_CURRENT", float("nan")), lambda: put("LOST:SET_CURRENT", 200.0)),
        "killed": (soft.kill, soft.start),
        "hangs": (lambda: soft.signal(signal.SIGSTOP), lambda: soft.signal(signal.SIGCONT)),
    }
    waits_while_unknown(session, *ways[how])
