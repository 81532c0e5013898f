"""The Tango layer by itself, over sockets on loopback: addresses, signals, events and what replaces them."""

import math
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from ophyd import Component, Device
from tango_server import Server

from devices.tango import Address, Attribute, DisconnectedError, TangoSignal, Watch, tango_device
from dfxrm_control.errors import ConfigError, DeviceError, LimitError

WAIT_S = 10.0
DEVICES = {
    "t/r/pushed": "Ring",
    "t/r/polled": "Ring",
    "t/r/none": "Ring",
    "t/r/mortal-pushed": "Ring",
    "t/m/1": "Motor",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(DEVICES, tmp_path_factory.mktemp("tango") / "server.log")
    yield server
    server.close()


@pytest.fixture
def signal_of(server):
    made = []

    def make(attribute, device="t/r/none", **settings):
        made.append(TangoSignal(server.address(device, attribute), name="value", **settings))
        return made[-1]

    yield make
    for signal in made:
        signal.destroy()


class Heard(list):
    """What a subscriber was told."""

    def __init__(self):
        super().__init__()
        self.changed = threading.Condition()

    def __call__(self, value=None, **_):
        with self.changed:
            self.append(value)
            self.changed.notify_all()

    def expect(self, value):
        with self.changed:
            assert self.changed.wait_for(lambda: value in self, WAIT_S), (value, self)


@pytest.mark.parametrize(
    ("text", "device", "attribute"),
    [
        ("id03/motor/chi", "id03/motor/chi", ""),
        ("id03/motor/chi/position", "id03/motor/chi", "position"),
        ("tango://host:10000/id03/motor/chi/position", "tango://host:10000/id03/motor/chi", "position"),
        ("tango://127.0.0.1:1/a/b/c/d#dbase=no", "tango://127.0.0.1:1/a/b/c#dbase=no", "d"),
    ],
)
def test_an_address_is_a_device_and_an_attribute(text, device, attribute):
    address = Address.parse(text)
    assert (address.device, address.attribute) == (device, attribute)
    assert str(address) == text
    assert address.source == (text if "//" in text else f"tango:{text}")


def test_a_component_of_an_ophyd_device_is_an_attribute_of_the_tango_device(server):
    class Ring(Device):
        current = Component(TangoSignal, "/Current")
        lens = Component(TangoSignal, "/LensPlace", kind="config")

    ring = Ring(server.address("t/r/mortal-pushed"), name="ring")
    ring.wait_for_connection(timeout=WAIT_S)
    assert ring.read()["ring_current"]["value"] == 200.0
    assert ring.describe()["ring_current"]["source"] == server.address("t/r/mortal-pushed", "Current")
    assert ring.read_configuration()["ring_lens"]["value"] == "IN"


@pytest.mark.parametrize("text", ["", "chi", "a/b", "a/b/c/d/e", "a//c", "tango://h:1/a/b", "a/b/c#dbase=perhaps"])
def test_an_address_of_another_form_is_refused(text):
    with pytest.raises(ConfigError, match="must have the form"):
        Address.parse(text)


def test_everybody_shares_one_proxy_per_device(server):
    one, other = Attribute(server.address("t/r/none", "Current")), Attribute(server.address("T/R/none", "Kind"))
    assert one.device is other.device is tango_device(server.address("t/r/none"))
    one.read()
    assert other.device.proxy is one.device.proxy


def test_making_a_signal_needs_no_device():
    signal = TangoSignal("tango://127.0.0.1:1/no/such/device/Position#dbase=no", name="far")
    assert not signal.connected
    with pytest.raises(TimeoutError, match="far .*/no/such/device/Position.* did not answer within 0.2 s"):
        signal.wait_for_connection(0.2)
    with pytest.raises(DisconnectedError, match="Tango device tango://127.0.0.1:1/no/such/device#dbase=no does not"):
        signal.read()


@pytest.mark.parametrize(
    ("attribute", "value", "key"),
    [
        ("Current", 200.0, {"dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": "mA", "precision": 2}),
        ("Counts", 7, {"dtype": "integer", "dtype_numpy": "<i8", "shape": [], "units": ""}),
        ("On", True, {"dtype": "boolean", "dtype_numpy": "|b1", "shape": [], "units": ""}),
        ("Kind", "2x", {"dtype": "string", "shape": []}),
        ("LensPlace", "IN", {"dtype": "string", "shape": [], "choices": ["IN", "OUT"]}),
    ],
)
def test_the_device_describes_its_attributes(signal_of, attribute, value, key):
    signal = signal_of(attribute)
    assert signal.get() == value
    assert signal.describe() == {"value": {**key, "source": signal.source}}


def test_bounds_of_the_device_are_limits_and_part_of_the_data_key(signal_of):
    attenuator = signal_of("Attenuator")
    key = attenuator.describe()["value"]
    assert attenuator.limits == (0.0, 1.0)
    assert (key["lower_ctrl_limit"], key["upper_ctrl_limit"], key["dtype_numpy"]) == (0.0, 1.0, "<f4")
    with pytest.raises(LimitError, match=r"1.5 is not a number from 0 to 1"):
        attenuator.set(1.5)
    assert signal_of("Current").limits == (0.0, 0.0)


def test_a_state_is_a_word_and_an_image_has_a_shape(signal_of):
    assert signal_of("State").get() == "RUNNING" and "FAULT" in signal_of("State").describe()["value"]["choices"]
    profile = signal_of("Profile")
    assert profile.describe()["value"]["shape"] == [2, 3] and profile.describe()["value"]["dtype"] == "array"
    np.testing.assert_array_equal(profile.get(), [[1.0, 2.0, 3.0], [4.0, 5.0, math.pi]])


@pytest.mark.parametrize(
    ("attribute", "value"), [("Current", 123.5), ("Attenuator", 0.3), ("LensPlace", "OUT"), ("Kind", "10x")]
)
def test_a_set_is_done_when_the_device_reads_so(signal_of, server, attribute, value):
    signal = signal_of(attribute)
    signal.set(value).wait(WAIT_S)
    assert signal.get() == pytest.approx(value) if isinstance(value, float) else signal.get() == value
    found = server.proxy("t/r/none").read_attribute(attribute).value
    assert found == pytest.approx(value) if isinstance(value, float) else found in (value, 1)


def test_what_cannot_be_set_is_refused(signal_of):
    with pytest.raises(LimitError, match="is read only"):
        signal_of("Counts").set(3)
    with pytest.raises(LimitError, match="takes IN, OUT, not 'SIDEWAYS'"):
        signal_of("LensPlace").set("SIDEWAYS")
    with pytest.raises(LimitError, match="'much' is not a number"):
        signal_of("Current").set("much")


def test_a_set_that_the_device_does_not_follow_fails_in_time(signal_of):
    error = signal_of("Stubborn", timeout_s=0.2).set(33.0).exception(WAIT_S)
    assert isinstance(error, DeviceError) and "t/r/none/Stubborn" in str(error)
    assert "was set to 33.0 but is 1.0 after 0.2 s" in str(error)
    signal_of("Stubborn", tolerance=math.inf).set(33.0).wait(WAIT_S)
    signal_of("Stubborn", tolerance=0.5).set(1.4).wait(WAIT_S)


def test_a_reading_is_never_that_of_the_servers_cache(signal_of, server):
    # the server polls this attribute; Tango would answer from what it found then
    server.proxy("t/r/polled").poll_attribute("Current", 3000)
    try:
        signal = signal_of("Current", "t/r/polled")
        for value in (11.0, 12.0, 13.0):
            server.proxy("t/r/polled").write_attribute("Current", value)
            assert signal.read()["value"]["value"] == value
            assert abs(signal.read()["value"]["timestamp"] - time.time()) < 1.0
    finally:
        server.proxy("t/r/polled").poll_attribute("Current", 50)


@pytest.mark.parametrize(("quality", "severity"), [("ATTR_VALID", 0), ("ATTR_WARNING", 1), ("ATTR_ALARM", 2)])
def test_quality_is_severity(signal_of, server, quality, severity):
    server.proxy("t/r/none").write_attribute("Quality", quality)
    signal = signal_of("Current")
    assert signal.alarm_severity is None
    signal.read()
    assert signal.alarm_severity == severity


def test_what_is_not_valid_is_not_read(signal_of, server):
    server.proxy("t/r/none").write_attribute("Quality", "ATTR_INVALID")
    try:
        with pytest.raises(DeviceError, match="/t/r/none/Current.*says that its value is not valid"):
            signal_of("Current").read()
    finally:
        server.proxy("t/r/none").write_attribute("Quality", "ATTR_VALID")


def test_what_the_device_does_not_have_is_said_in_its_words(signal_of):
    with pytest.raises(DeviceError, match="refused to .* Nothing: Nothing attribute not found"):
        signal_of("Nothing").read()


@pytest.mark.parametrize(
    ("device", "mode"), [("t/r/pushed", "change"), ("t/r/polled", "periodic"), ("t/r/none", "poll")]
)
def test_changes_are_heard_of_in_the_best_way_the_server_has(signal_of, server, device, mode):
    proxy, heard = server.proxy(device), Heard()
    signal = signal_of("Current", device)
    assert signal.mode is None
    signal.subscribe(heard)
    assert signal.mode == mode
    for value in (101.0, 102.5):
        proxy.write_attribute("Current", value)
        heard.expect(value)
    assert heard.count(101.0) == heard.count(102.5) == 1


def test_events_spare_the_server(signal_of, server):
    proxy, heard = server.proxy("t/r/pushed"), Heard()
    signal = signal_of("Current", "t/r/pushed", net_s=30.0)
    signal.subscribe(heard)
    # at first it is looked at as well, since an event that comes right after asking for events may be lost
    time.sleep(1.3)
    before = proxy.Reads
    proxy.write_attribute("Current", 55.0)
    heard.expect(55.0)
    time.sleep(0.3)
    assert proxy.Reads == before


def test_lost_events_are_caught_by_looking(server):
    proxy, heard = server.proxy("t/r/pushed"), Heard()
    watch = Watch(Attribute(server.address("t/r/pushed", "Current")), lambda news: heard(news.value), net_s=0.1)
    try:
        assert watch.wait_first(WAIT_S) and watch.mode == "change"
        time.sleep(1.3)
        proxy.write_attribute("Pushes", False)
        for value in (61.0, 62.0):
            proxy.write_attribute("Current", value)
            heard.expect(value)
        assert watch.unheard == 2 and watch.mode == "change"
    finally:
        proxy.write_attribute("Pushes", True)
        watch.close()


def test_nan_after_nan_is_no_news(signal_of, server):
    heard = Heard()
    signal = signal_of("Current", poll_s=0.02)
    signal.subscribe(heard)
    server.proxy("t/r/none").write_attribute("Current", -1.0)
    time.sleep(0.3)
    assert sum(value != value for value in heard) == 1
    server.proxy("t/r/none").write_attribute("Current", 200.0)
    heard.expect(200.0)


@pytest.mark.slow
def test_a_server_that_was_away_is_found_again(tmp_path):
    server = Server({"t/r/pushed": "Ring"}, tmp_path / "log")
    heard, failed = Heard(), threading.Event()
    current = Attribute(server.address("t/r/pushed", "Current"))
    watch = Watch(
        current,
        lambda news: failed.set() if isinstance(news, DeviceError) else heard(news.value),
        net_s=0.2,
    )
    try:
        heard.expect(200.0)
        server.kill()
        assert failed.wait(WAIT_S)
        with pytest.raises(DisconnectedError):
            current.read()
        server.start()
        server.proxy("t/r/pushed").write_attribute("Current", 150.0)
        heard.expect(150.0)
        deadline = time.monotonic() + WAIT_S
        while watch.mode != "change" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert watch.mode == "change"
        server.proxy("t/r/pushed").write_attribute("Current", 151.0)
        heard.expect(151.0)
    finally:
        watch.close()
        server.close()


@pytest.mark.slow
def test_a_server_that_stands_still_does_not_hold_the_reader_for_ever(server, signal_of):
    device = tango_device(server.address("t/r/mortal-pushed"))
    device.timeout_s = 0.5
    signal = signal_of("Current", "t/r/mortal-pushed")
    signal.read()
    server.freeze()
    begin = time.monotonic()
    try:
        with pytest.raises(
            DisconnectedError, match="/t/r/mortal-pushed#dbase=no does not answer .asked to read Current"
        ):
            signal.read()
        assert time.monotonic() - begin < 6.0
    finally:
        server.thaw()
    deadline = time.monotonic() + WAIT_S
    while not signal.connected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert signal.get() == 200.0


EXIT = """
import sys
from devices.tango import TangoAxis, TangoSignal
from dfxrm_control.config import AxisConfig

signals = [TangoSignal(address, name="current") for address in sys.argv[2:]]
for signal in signals:
    signal.subscribe(lambda **_: None)
axis = TangoAxis(name="chi", config=AxisConfig(address=sys.argv[1], limits=(-9.0, 9.0)))
axis.set(1.0).wait(20.0)
print(axis.mode, *(signal.mode for signal in signals))
"""


@pytest.mark.slow
def test_a_session_that_still_hears_events_ends_cleanly(server):
    addresses = [server.address("t/m/1"), *(server.address(f"t/r/{name}", "Current") for name in ("pushed", "none"))]
    done = subprocess.run(
        [sys.executable, "-c", EXIT, *addresses], capture_output=True, text=True, timeout=60.0, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "change change poll"), done.stderr
