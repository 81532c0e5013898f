"""Our axis on a server that keeps to the order of a real motor record, in good and in bad times."""

import signal
import threading
import time

import bluesky.plans as bp
import epics
import pytest
from bluesky.utils import FailedStatus
from contract import MOTORS, motor, plain, settings
from fake_backend import axis, configuration

import devices
from devices._epics import ANSWER_S, EpicsAxis
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import ArrivalError, DeviceError, LimitError

PREFIXES = {"records": "AXIS:"}

TOLERANCE = 1e-4


def made(record, name="chi", **config):
    config = {"limits": (-5.0, 5.0), "tolerance": TOLERANCE, "velocity": 10.0, "extra_timeout_s": 1.5, **config}
    part = EpicsAxis(name=name, config=AxisConfig(control="epics", address=f"AXIS:{record}", **config))
    part.wait_for_connection(timeout=10.0)
    return part


def fault(record, word):
    epics.caput(f"AXIS:{record}:fault", word, wait=True, timeout=5.0)


@pytest.fixture
def chi(records):
    part = made("m1")
    yield part
    if not records.process.poll():
        fault("m1", "none")
    part.destroy()


@pytest.fixture
def fast(records):
    part = made("m2", "phi")
    yield part
    fault("m2", "none")
    part.destroy()


def test_a_goniometer_of_records_has_the_data_keys_of_one_in_memory(records):
    names = [name for name, (device, *_) in MOTORS.items() if device == "goniometer"]
    axes = {
        name: axis(MOTORS[name][1], *MOTORS[name][2], control="epics", address=f"AXIS:m{number}")
        for number, name in enumerate(names, 1)
    }
    config = configuration(goniometer__axes=axes)
    begin = time.monotonic()
    goniometer = devices.Goniometer("goniometer", config.devices["goniometer"], config)
    goniometer.wait_for_connection(timeout=10.0)
    assert time.monotonic() - begin < 5.0
    for name in names:
        part = getattr(goniometer, name)
        _, units, (low, high), precision = MOTORS[name]
        # a record may allow less than the configuration
        theirs = part.hardware_limits or (low, high)
        limits = (max(low, theirs[0]), min(high, theirs[1]))
        assert plain(part.describe()) == motor(name, units, limits, precision)
        assert plain(part.describe_configuration()) == settings(name, units)
        assert set(part.read()) == set(part.describe())
        assert set(part.read_configuration()) == set(part.describe_configuration())
        assert part.hints == {"fields": [name]}
    assert set(goniometer.read()) == {key for name in names for key in (name, f"{name}_setpoint")}
    assert set(goniometer.describe()) == set(goniometer.read())
    goniometer.destroy()


def test_what_is_not_connected_is_named_with_its_address(records):
    config = configuration(goniometer__axes__chi=axis(control="epics", address="AXIS:none"))

    class Backend:
        def __getattr__(self, name):
            return lambda *_: 0.0

    goniometer = devices.Goniometer("goniometer", config.devices["goniometer"], config, Backend())
    with pytest.raises(DeviceError) as caught:
        goniometer.wait_for_connection(timeout=0.5)
    assert str(caught.value) == "axis chi (ca://AXIS:none) did not connect within 0.5 s"
    for act in (goniometer.chi.read, goniometer.chi.readback, lambda: goniometer.chi.set(1.0), goniometer.chi.describe):
        begin = time.monotonic()
        with pytest.raises(DeviceError, match=r"axis chi \(ca://AXIS:none\) is not connected: there is no answer from"):
            act()
        assert time.monotonic() - begin < 0.2
    goniometer.destroy()


def test_it_moves_and_reads(chi):
    chi.set(1.5).wait(5.0)
    reading = chi.read()
    assert reading["chi"]["value"] == reading["chi_setpoint"]["value"] == 1.5
    begin = time.monotonic()
    chi.set(1.5).wait(5.0)
    assert time.monotonic() - begin < 0.5
    chi.set(0.0).wait(5.0)
    assert chi.locate() == {"setpoint": 0.0, "readback": 0.0}


def test_speed_and_the_rest_are_those_of_the_record(chi):
    chi.velocity.set(5.0).wait(3.0)
    assert chi.read_configuration()["chi_velocity"]["value"] == 5.0
    assert chi.expected_duration_s(chi.readback() + 1.0) == pytest.approx(1.0 / 5.0 + 0.05)
    with pytest.raises(LimitError, match="chi_velocity"):
        chi.velocity.set(0.0)
    chi.velocity.set(10.0).wait(3.0)


def test_a_move_from_elsewhere_is_seen(chi):
    epics.caput("AXIS:m1.VAL", 0.5, wait=True, timeout=5.0)
    assert chi.read()["chi_setpoint"]["value"] == chi.position == 0.5
    chi.set(0.0).wait(5.0)


def test_the_narrower_limits_hold_and_without_any_it_is_not_moved(records, chi):
    with pytest.raises(LimitError, match=r"axis chi \(ca://AXIS:m1\): 7 deg is outside its limits -5 .. 5 deg"):
        chi.set(7.0)
    wide = made("m1", limits=(-50.0, 50.0))
    assert wide.limits == wide.hardware_limits == (-10.0, 10.0)
    with pytest.raises(LimitError, match="-10 .. 10"):
        wide.set(11.0)
    apart = made("m1", limits=(20.0, 30.0))
    with pytest.raises(LimitError, match="20 .. 30 deg in the configuration and -10 .. 10 deg in the record"):
        apart.set(25.0)
    without = made("m1", limits=None)
    assert without.limits == (-10.0, 10.0)
    without.set(0.1).wait(5.0)
    neither = made("m4", limits=None)
    assert neither.limits == (0.0, 0.0)
    with pytest.raises(LimitError, match="no limits, so it is not moved"):
        neither.set(0.1)
    ours = made("m4")
    ours.set(0.1).wait(5.0)
    for part in (wide, apart, without, neither, ours):
        part.destroy()


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("short", "was sent to {} deg but stopped at {} deg, more than its tolerance of 0.0001 deg away"),
        ("high", "hit its high limit switch on its way to {} deg; it is at {} deg"),
        ("low", "hit its low limit switch on its way to {} deg; it is at {} deg"),
        ("problem", "went into fault (MSTA: problem) on its way to {} deg; it is at {} deg"),
        ("slip", "slipped or stalled (MSTA: slip/stall) on its way to {} deg; it is at {} deg"),
        ("controller", "lost its controller (MSTA: communication error) on its way to {} deg; it is at {} deg"),
        (
            "refuse",
            "was sent to {} deg but stopped at {} deg, more than its tolerance of 0.0001 deg away: "
            "the record refused the position as beyond its limits (LVIO)",
        ),
    ],
)
def test_a_move_that_ends_elsewhere_fails_and_says_why(chi, word, sentence):
    chi.set(0.0).wait(5.0)
    fault("m1", word)
    begin = time.monotonic()
    with pytest.raises(ArrivalError) as caught:
        chi.set(1.0).wait(5.0)
    assert str(caught.value) == "axis chi (ca://AXIS:m1) " + sentence.format("1", chi.say(chi.readback())[:-4])
    assert time.monotonic() - begin < 1.4
    fault("m1", "none")
    chi.set(0.0).wait(5.0)
    assert chi.position == 0.0


@pytest.mark.parametrize("word", ["early", "silent", "coalesced"])
def test_servers_with_another_order_lose_no_completion(chi, word):
    chi.set(0.0).wait(5.0)
    fault("m1", word)
    for target in (0.3, 0.3, 0.0):
        chi.set(target).wait(5.0)
        assert chi.position == target


def test_a_motor_that_stalls_ends_in_time_and_is_stopped(chi):
    chi.set(0.0).wait(5.0)
    fault("m1", "stall")
    begin = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        chi.set(1.0).wait(10.0)
    assert time.monotonic() - begin < 1.0 / 10 + 0.05 + 1.5 + 0.5
    assert str(caught.value) == "axis chi (ca://AXIS:m1) did not reach 1 deg within 1.65 s; it is at 0 deg"
    time.sleep(0.1)
    assert epics.caget("AXIS:m1.DMOV") == 1 and chi.setpoint == 0.0


def test_a_stop_ends_the_move_and_the_setpoint_is_where_it_stands(chi):
    chi.set(0.0).wait(5.0)
    chi.velocity.set(1.0).wait(3.0)
    status = chi.set(4.0)
    time.sleep(0.2)
    chi.stop()
    with pytest.raises(DeviceError, match=r"axis chi \(ca://AXIS:m1\) was stopped on its way to 4 deg"):
        status.wait(1.0)
    time.sleep(0.1)
    assert 0.0 < chi.position < 1.0 and chi.setpoint == chi.position
    chi.velocity.set(10.0).wait(3.0)
    # and at once away again
    status = chi.set(4.0)
    chi.stop(success=True)
    status.wait(1.0)
    chi.set(-1.0).wait(5.0)
    assert chi.position == -1.0


def test_a_target_that_is_replaced_fails_and_the_new_one_is_reached(chi):
    first = chi.set(3.0)
    time.sleep(0.05)
    second = chi.set(-2.0)
    with pytest.raises(DeviceError, match="was sent to -2 deg before it had arrived"):
        first.wait(1.0)
    second.wait(5.0)
    assert chi.position == -2.0


def test_spmg_and_set_are_looked_at(chi):
    spmg = epics.get_pv("AXIS:m1.SPMG")
    try:
        epics.caput("AXIS:m1.SPMG", "Pause", wait=True)
        time.sleep(0.05)
        with pytest.raises(DeviceError, match="its record is on Pause; set AXIS:m1.SPMG to Go"):
            chi.set(1.0).wait(1.0)
        epics.caput("AXIS:m1.SPMG", "Go", wait=True)
        time.sleep(0.05)
        status = chi.set(4.5)
        epics.caput("AXIS:m1.SPMG", "Stop", wait=True)
        with pytest.raises(ArrivalError, match="away: the record was set to Stop"):
            status.wait(5.0)
    finally:
        spmg.put("Go", wait=True)
    try:
        epics.caput("AXIS:m1.SET", "Set", wait=True)
        time.sleep(0.05)
        with pytest.raises(DeviceError, match="takes positions as a new calibration; set AXIS:m1.SET to Use"):
            chi.set(1.0).wait(1.0)
    finally:
        epics.caput("AXIS:m1.SET", "Use", wait=True)


def test_a_readback_in_alarm_invalid_is_not_read(chi):
    fault("m1", "invalid")
    time.sleep(0.1)
    with pytest.raises(DeviceError, match=r"no valid value: AXIS:m1.RBV is .*, in alarm INVALID \(COMM\)"):
        chi.read()
    fault("m1", "none")
    time.sleep(0.1)
    chi.read()


def scan(run_engine, axis_, documents, num=2000, high=1.0):
    run_engine(bp.scan([], axis_, 0.0, high, num), lambda name, document: documents.append((name, document)))


@pytest.mark.slow
def test_two_thousand_points_lose_no_completion(fast, run_engine):
    across = made("m3", "omega")
    points = []
    run_engine(
        bp.grid_scan([], fast, -1.0, 1.0, 40, across, -1.0, 1.0, 50, snake_axes=True),
        {"event": lambda _, document: points.append(document["data"])},
    )
    across.destroy()
    assert len(points) == len({(point["phi"], point["omega"]) for point in points}) == 2000
    assert all(point[name] == point[f"{name}_setpoint"] for point in points for name in ("phi", "omega"))


def test_a_killed_server_ends_the_scan_and_one_started_anew_serves_the_same_session(records, chi, run_engine):
    chi.set(0.0).wait(5.0)
    chi.velocity.set(1.0).wait(3.0)
    documents = []

    def kill_at_second(name, document):
        documents.append((name, document))
        if name == "event" and document["seq_num"] == 2:
            threading.Timer(0.3, records.kill).start()

    begin = time.monotonic()
    with pytest.raises(FailedStatus) as caught:
        run_engine(bp.scan([], chi, 0.0, 4.0, 5), kill_at_second)
    assert time.monotonic() - begin < 6.0
    sentence = "axis chi (ca://AXIS:m1) lost its connection on its way to 2 deg"
    assert str(caught.value.__cause__) == sentence
    stop = documents[-1][1]
    assert stop["exit_status"] == "fail"
    assert [document["seq_num"] for name, document in documents if name == "event"] == [1, 2]
    with pytest.raises(DeviceError, match="is not connected: there is no answer from AXIS:m1.RBV"):
        chi.read()

    records.start()
    chi.wait_for_connection(timeout=20.0)
    assert chi.position == 0.0 and chi.read_configuration()["chi_velocity"]["value"] == 10.0
    documents.clear()
    scan(run_engine, chi, documents, num=3, high=0.2)
    assert documents[-1][1]["exit_status"] == "success"


def test_a_server_that_hangs_with_its_socket_open_is_not_believed(records, chi):
    chi.set(0.0).wait(5.0)
    chi.velocity.set(1.0).wait(3.0)
    status = chi.set(0.5)
    time.sleep(0.1)
    records.signal(signal.SIGSTOP)
    try:
        assert chi.connected  # libca takes half a minute to notice
        begin = time.monotonic()
        with pytest.raises(DeviceError, match=r"\(ca://AXIS:m1\) does not answer: no value of AXIS:m1.RBV within 2 s"):
            chi.read()
        assert time.monotonic() - begin < ANSWER_S + 0.5
        with pytest.raises(DeviceError) as caught:
            status.wait(10.0)
        assert str(caught.value).startswith("axis chi (ca://AXIS:m1) did not reach 0.5 deg within ")
        assert str(caught.value).endswith(" s; it is not answering")
        with pytest.raises(DeviceError, match="does not answer"):
            chi.set(1.0).wait(5.0)
    finally:
        records.signal(signal.SIGCONT)
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            chi.set(0.0).wait(5.0)
            break
        except DeviceError:
            time.sleep(0.1)
    assert chi.position == 0.0
