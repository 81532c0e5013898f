"""Axes, channels and shutters of the microscope on Tango devices, over sockets on loopback."""

import logging
import threading
import time

import bluesky.plans as bp
import pytest
from bluesky import FailedStatus, RunEngine
from contract import motor as motor_keys
from contract import plain, settings
from tango_server import Server

from devices.tango import TangoAxis, TangoChannel, TangoShutter, tango_device
from dfxrm_control.config import AxisConfig, ChannelConfig
from dfxrm_control.errors import ArrivalError, ConfigError, DeviceError, LimitError

WAIT_S = 15.0
MOTORS = ("t/m/telling", "t/m/deaf", "t/m/quiet", "t/m/other", "t/m/mortal")
DEVICES = {**dict.fromkeys(MOTORS, "Motor"), "t/s/1": "Shutter", "t/r/none": "Ring", "t/r/pushed": "Ring"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(DEVICES, tmp_path_factory.mktemp("tango") / "server.log")
    yield server
    server.close()


@pytest.fixture
def axis_of(server):
    made = []

    def make(device="t/m/telling", name="chi", **more):
        config = {"limits": (-9.0, 9.0), "tolerance": 1e-4, "extra_timeout_s": 2.0, **more}
        made.append(device)
        server.proxy(device).Fault = ""
        return TangoAxis(name=name, config=AxisConfig(address=server.address(device), **config))

    yield make
    for device in made:
        server.proxy(device).Fault = ""
        server.proxy(device).Velocity = 1000.0


@pytest.fixture
def channel_of(server):
    made = []

    def make(device, attribute="", cls=TangoChannel, **more):
        made.append(cls(name="it", config=ChannelConfig(address=server.address(device, attribute), **more)))
        return made[-1]

    yield make
    for channel in made:
        channel.destroy()


@pytest.fixture
def run_engine():
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    engine = RunEngine({}, call_returns_result=False)
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    while engine.loop.is_running():
        time.sleep(0.001)
    engine.loop.close()


def failure(status):
    error = status.exception(timeout=WAIT_S)
    assert error is not None
    return error


# -- axes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("device", "mode"), [("telling", "change"), ("deaf", "change"), ("quiet", "poll")])
def test_a_move_ends_at_its_target_whatever_the_server_tells(axis_of, server, device, mode):
    axis = axis_of(f"t/m/{device}")
    for target in (1.0, -2.5, 0.0):
        axis.set(target).wait(WAIT_S)
        assert axis.position == target and not axis.moving
        assert {key: value["value"] for key, value in axis.read().items()} == {"chi": target, "chi_setpoint": target}
    # a server that promises events and sends none is asked anew, and looked at in any case
    assert axis.mode == mode
    assert server.proxy(f"t/m/{device}").Position == 0.0


def test_a_move_takes_the_time_it_takes_and_is_over_at_once(axis_of, server):
    axis = axis_of(velocity=1.0)
    axis.set(0.0).wait(WAIT_S)
    server.proxy("t/m/telling").Velocity = 10.0
    begin = time.monotonic()
    status = axis.set(5.0)
    time.sleep(0.2)
    assert axis.moving and not status.done and 0.5 < axis.position < 4.5
    status.wait(WAIT_S)
    assert 0.5 <= time.monotonic() - begin < 0.7
    # the device keeps its speed itself: what it takes follows from that
    assert axis.expected_duration_s(0.0) == pytest.approx(5.0 / 10.0 + 0.05)


def test_data_keys_are_those_of_every_control_system(axis_of):
    axis = axis_of()
    assert plain(axis.describe()) == motor_keys("chi", "deg", (-9.0, 9.0))
    assert plain(axis.describe_configuration()) == settings("chi", "deg")
    assert set(axis.read_configuration()) == set(axis.describe_configuration())
    assert axis.describe()["chi"]["source"].endswith("/t/m/telling/Position#dbase=no")
    assert axis.hints == {"fields": ["chi"]}


def test_limits_of_configuration_and_device_both_hold(axis_of, server):
    position = server.proxy("t/m/telling").Position
    with pytest.raises(LimitError, match=r"chi .*: 9.5 deg is outside its limits -9 .. 9 deg"):
        axis_of().set(9.5)
    wide = axis_of(limits=(-99.0, 99.0))
    assert wide.hardware_limits == (-10.0, 10.0)
    with pytest.raises(LimitError, match=r"chi .*: 11 deg is outside the limits -10 .. 10 deg of the device"):
        wide.set(11.0)
    assert server.proxy("t/m/telling").Position == position


def test_speed_is_written_to_the_device(axis_of, server):
    axis = axis_of(velocity=3.0)
    assert server.proxy("t/m/telling").Velocity == 1000.0 and axis.velocity.get() == 1000.0
    axis.velocity.put(250.0)
    assert server.proxy("t/m/telling").Velocity == 250.0
    with pytest.raises(LimitError):
        axis.velocity.put(-1.0)


def test_a_motor_that_stops_short_has_not_arrived(axis_of, server):
    axis = axis_of()
    axis.set(0.0).wait(WAIT_S)
    server.proxy("t/m/telling").Fault = "short 0.5"
    error = failure(axis.set(3.0))
    assert isinstance(error, ArrivalError)
    assert "chi (tango://127.0.0.1" in str(error) and "was sent to 3 deg but stopped at 2.5 deg" in str(error)


@pytest.mark.parametrize("device", ["t/m/telling", "t/m/quiet"])
def test_a_fault_is_told_in_the_devices_own_words(axis_of, server, device):
    axis = axis_of(device)
    axis.set(0.0).wait(WAIT_S)
    server.proxy(device).Fault = "fault following error on encoder 3"
    error = failure(axis.set(3.0))
    assert isinstance(error, ArrivalError)
    assert "went into FAULT on its way to 3 deg" in str(error) and "following error on encoder 3" in str(error)
    server.proxy(device).Fault = ""
    axis.set(1.0).wait(WAIT_S)


def test_a_motor_that_stalls_is_stopped_in_time(axis_of, server):
    axis = axis_of(extra_timeout_s=0.5)
    axis.set(0.0).wait(WAIT_S)
    server.proxy("t/m/telling").Fault = "stall"
    begin = time.monotonic()
    error = failure(axis.set(3.0))
    assert time.monotonic() - begin < 2.0
    assert isinstance(error, DeviceError) and "chi (tango:" in str(error)
    assert "did not reach 3 deg within 0.5" in str(error) and "it is at 0 deg" in str(error)
    assert str(server.proxy("t/m/telling").state()) == "ON"


def test_a_stop_is_believed_when_the_device_confirms_it(axis_of, server):
    axis = axis_of("t/m/telling")
    server.proxy("t/m/telling").Velocity = 1.0
    for success in (False, True):
        status = axis.set(axis.position + 2.0)
        time.sleep(0.1)
        axis.stop(success=success)
        assert str(server.proxy("t/m/telling").state()) == "ON" and not axis.moving
        error = status.exception(timeout=WAIT_S)
        assert error is None if success else "was stopped on its way to" in str(error)
        assert axis.setpoint == axis.position
    axis.stop()


def test_a_device_that_does_not_stop_is_said_to_go_on(axis_of, server, monkeypatch):
    monkeypatch.setattr("devices.tango._axis.STOP_S", 0.2)
    axis = axis_of("t/m/other")
    server.proxy("t/m/other").Fault = "deadlock"
    status = axis.set(1.0)
    with pytest.raises(DeviceError, match="chi .*t/m/other.* was told to stop but still moves after 0.2 s"):
        axis.stop()
    assert "was told to stop but still moves" in str(failure(status))


def test_a_new_target_stops_the_device_that_takes_none_while_it_moves(axis_of, server):
    axis = axis_of()
    server.proxy("t/m/telling").Velocity = 1.0
    first = axis.set(axis.position + 3.0)
    time.sleep(0.1)
    server.proxy("t/m/telling").Velocity = 1000.0
    axis.set(-1.0).wait(WAIT_S)
    assert "before it had arrived" in str(failure(first)) and axis.position == -1.0


def test_a_position_that_is_not_valid_is_not_recorded(axis_of, server):
    axis = axis_of()
    server.proxy("t/m/telling").Fault = "invalid"
    with pytest.raises(DeviceError, match="t/m/telling/Position.* says that its value is not valid"):
        axis.read()
    with pytest.raises(DeviceError, match="says that its value is not valid"):
        axis.set(2.0)


@pytest.mark.parametrize("address", ["", "chi", "tango://127.0.0.1:1/a/b"])
def test_an_axis_without_a_right_address_is_refused(address):
    with pytest.raises(ConfigError, match="address"):
        TangoAxis(name="chi", config=AxisConfig(address=address))


@pytest.mark.slow
def test_two_thousand_fast_moves_lose_no_completion(axis_of, run_engine):
    chi, phi = axis_of("t/m/telling"), axis_of("t/m/other", "phi")
    points = []
    run_engine(
        bp.grid_scan([], chi, -1, 1, 40, phi, -1, 1, 50, snake_axes=True),
        {"event": lambda _, doc: points.append((round(doc["data"]["chi"], 6), round(doc["data"]["phi"], 6)))},
    )
    assert len(points) == len(set(points)) == 2000


# -- the server goes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_in_the_middle_of_a_scan_and_back_without_a_restart(tmp_path, run_engine):
    server = Server({"t/m/killed": "Motor"}, tmp_path / "log")
    try:
        config = AxisConfig(address=server.address("t/m/killed"), limits=(-9.0, 9.0), tolerance=1e-4)
        axis = TangoAxis(name="chi", config=config)
        points = []

        def kill_later(name, doc):
            points.append(doc["data"]["chi"])
            if len(points) == 5:
                server.kill()

        begin = time.monotonic()
        with pytest.raises(FailedStatus) as failed:
            run_engine(bp.scan([], axis, 0, 1, 11), {"event": kill_later})
        assert isinstance(error := failed.value.__cause__, DeviceError)
        assert "was sent to 0.5 deg, but failed" in str(error)
        assert "chi (tango:" in str(error) and "t/m/killed#dbase=no does not answer" in str(error)
        assert time.monotonic() - begin < 15.0
        assert points == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
        server.start()
        deadline = time.monotonic() + WAIT_S
        while not axis.connected and time.monotonic() < deadline:
            time.sleep(0.05)
        run_engine(bp.scan([], axis, 0, 1, 11), {"event": lambda _, doc: points.append(doc["data"]["chi"])})
        assert len(points) == 16 and axis.mode == "change"
    finally:
        server.close()


@pytest.mark.slow
def test_frozen_in_the_middle_of_a_move_it_fails_in_time(tmp_path):
    server = Server({"t/m/frozen": "Motor"}, tmp_path / "log")
    try:
        config = AxisConfig(address=server.address("t/m/frozen"), limits=(-9.0, 9.0), tolerance=1e-4)
        axis = TangoAxis(name="chi", config=config)
        tango_device(server.address("t/m/frozen")).timeout_s = 0.5
        axis.set(0.0).wait(WAIT_S)
        server.proxy("t/m/frozen").Velocity = 1.0
        status = axis.set(5.0)
        time.sleep(0.1)
        server.freeze()
        begin = time.monotonic()
        error = failure(status)
        assert time.monotonic() - begin < 8.0
        assert isinstance(error, DeviceError) and not status.success
        assert "chi (tango:" in str(error) and "was sent to 5 deg" in str(error) and "does not answer" in str(error)
        server.thaw()
        server.proxy("t/m/frozen").Velocity = 1000.0
        deadline = time.monotonic() + WAIT_S
        while not axis.connected and time.monotonic() < deadline:
            time.sleep(0.05)
        axis.set(1.0).wait(WAIT_S)
    finally:
        server.close()


@pytest.mark.slow
def test_a_slow_network_makes_moves_slow_and_nothing_else(tmp_path):
    server = Server({"t/m/far": "Motor"}, tmp_path / "log", delay_s=0.1)
    try:
        config = AxisConfig(address=server.address("t/m/far"), limits=(-9.0, 9.0), tolerance=1e-4)
        axis = TangoAxis(name="chi", config=config)
        begin = time.monotonic()
        assert axis.readback() == 0.0
        assert time.monotonic() - begin > 0.2
        axis.set(1.0).wait(WAIT_S)
        assert axis.position == 1.0
    finally:
        server.close()


# -- channels -------------------------------------------------------------------------------------------------------


def test_a_shutter_by_states_and_commands(channel_of, server):
    shutter = channel_of("t/s/1", cls=TangoShutter, choices=("open", "closed"))
    assert shutter.get() == "closed"
    status = shutter.set("open")
    status.wait(WAIT_S)
    assert shutter.read()["it"]["value"] == "open" and str(server.proxy("t/s/1").state()) == "OPEN"
    shutter.pause()
    assert shutter.get() == "closed"
    shutter.resume()
    assert shutter.get() == "open"
    assert plain(shutter.describe()) == {"it": {"dtype": "string", "shape": [], "choices": ["open", "closed"]}}


@pytest.mark.parametrize(
    ("stuck", "sentence"),
    [
        ("fault interlock of the hutch", "is in state FAULT.*it says: interlock of the hutch"),
        ("hangs", "is in state MOVING"),
    ],
)
def test_a_shutter_that_does_not_close_is_an_error_in_time(channel_of, server, stuck, sentence):
    shutter = channel_of("t/s/1", cls=TangoShutter, choices=("open", "closed"), timeout_s=0.5)
    server.proxy("t/s/1").Fault = stuck
    try:
        begin = time.monotonic()
        error = failure(shutter.set("open"))
        assert time.monotonic() - begin < 2.0
        with pytest.raises(DeviceError, match=sentence):
            raise error
    finally:
        server.proxy("t/s/1").Fault = ""


def test_words_are_translated(channel_of, server):
    lens = channel_of("t/r/none", "LensPlace", choices=("in", "out"))
    lens.set("out").wait(WAIT_S)
    assert lens.get() == "out" and server.proxy("t/r/none").LensPlace == 1
    kind = channel_of("t/r/none", "Kind", choices=("10x", "2x"), words={"10x": "LWD 10", "2x": "LWD 2"})
    kind.set("10x").wait(WAIT_S)
    assert kind.get() == "10x" and server.proxy("t/r/none").Kind == "LWD 10"
    mono = channel_of("t/r/none", "On", choices=("in", "out"), words={"in": "True", "out": "False"})
    mono.set("out").wait(WAIT_S)
    assert mono.get() == "out" and server.proxy("t/r/none").On is False
    filters = channel_of(
        "t/r/none", "LensPlace", choices=("none", "all"), words={"none": "IN", "all": "OUT"}, set_words={"none": "in"}
    )
    filters.set("none").wait(WAIT_S)
    assert filters.get() == "none" and server.proxy("t/r/none").LensPlace == 0
    gains = channel_of("t/r/none", "Gain", choices=("low", "high"), words={"low": "1", "high": "16"})
    gains.set("high").wait(WAIT_S)
    assert gains.get() == "high" and server.proxy("t/r/none").Gain == 16
    nonsense = channel_of("t/r/none", "Gain", choices=("low", "high"))
    assert "cannot take 'low' for Gain" in str(failure(nonsense.set("low")))
    server.proxy("t/r/none").Kind = "eyepiece"
    with pytest.raises(DeviceError, match="/t/r/none/Kind.* reads 'eyepiece', which is none of LWD 10, LWD 2"):
        kind.get()


def test_a_number_in_single_precision_is_what_was_asked(channel_of):
    attenuator = channel_of("t/r/none", "Attenuator")
    attenuator.set(0.3).wait(WAIT_S)
    assert attenuator.get() == pytest.approx(0.3)
    error = failure(attenuator.set(1.7))
    assert "t/r/none" in str(error) and "1.7" in str(error) and "maximum" in str(error)


def test_a_ring_current_that_is_no_number_is_no_reading(channel_of, server):
    current = channel_of("t/r/none", "Current", read_only=True, units="mA")
    assert current.get() == 200.0
    server.proxy("t/r/none").Current = -1.0
    try:
        with pytest.raises(DeviceError, match="it .*/t/r/none/Current.* reads NaN"):
            current.read()
    finally:
        server.proxy("t/r/none").Current = 200.0


def test_whoever_waits_for_the_beam_is_told(channel_of, server):
    current, told = channel_of("t/r/pushed", "Current", read_only=True, units="mA"), threading.Event()
    current.subscribe(lambda value, **_: told.set() if value < 10.0 else None)
    assert not told.is_set()
    server.proxy("t/r/pushed").Current = 1.0
    assert told.wait(WAIT_S)
    server.proxy("t/r/pushed").Current = 200.0


@pytest.mark.parametrize("address", ["", "a/b/c", "nonsense"])
def test_a_channel_without_a_right_address_is_refused(address):
    with pytest.raises(ConfigError, match="channel it[: ]|address 'nonsense'"):
        TangoChannel(name="it", config=ChannelConfig(address=address))
