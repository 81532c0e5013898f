"""Signals and a shutter on a real soft IOC."""

import contextlib
import math
import time

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import epics
import pytest
from contract import CHANNELS, plain

from devices._epics import EpicsChannel, EpicsShutter
from dfxrm_control.config import ChannelConfig
from dfxrm_control.errors import DeviceError, LimitError

PREFIXES = {"soft": "SOFT"}


def channel(name, cls=EpicsChannel, **config):
    made = cls(name=name, config=ChannelConfig(control="epics", timeout_s=1.0, **config))
    made.wait_for_connection(timeout=10.0)
    return made


@pytest.fixture
def shutter(soft):
    made = channel("shutter", EpicsShutter, address="SOFT:SIMPLE", choices=("open", "closed"))
    yield made
    made.destroy()


@pytest.fixture
def attenuator(soft):
    made = channel("attenuator", address="SOFT:ATTENUATOR")
    yield made
    made.destroy()


@pytest.fixture
def ring_current(soft):
    made = channel("ring_current", address="SOFT:CURRENT", units="mA", read_only=True)
    yield made
    made.destroy()


@pytest.fixture
def tell(soft):
    """Set a variable of the server from outside."""
    fields = {}

    def put(name, value):
        fields[name] = fields.get(name) or channel(name, address=f"SOFT:{name}")
        with contextlib.suppress(DeviceError):  # of NaN it cannot be known that it is there
            fields[name].put(value)

    yield put
    for field in fields.values():
        field.destroy()


def test_data_keys_are_those_of_the_channels_in_memory(shutter, attenuator, ring_current):
    for part in (shutter, attenuator, ring_current):
        assert plain(part.describe()) == {part.name: CHANNELS[part.name][1]}
        assert set(part.read()) == {part.name}
    assert shutter.describe()["shutter"]["source"] == "ca://SOFT:SIMPLE"


def test_a_shutter_opens_and_closes(shutter):
    assert shutter.get() == "closed"
    shutter.set("open").wait(2.0)
    assert shutter.read()["shutter"]["value"] == "open"
    shutter.pause()
    assert shutter.get() == "closed"
    shutter.resume()
    assert shutter.get() == "open"
    shutter.set("closed").wait(2.0)
    with pytest.raises(LimitError, match=r"channel shutter \(ca://SOFT:SIMPLE\) takes open or closed, not 'ajar'"):
        shutter.set("ajar")


@pytest.fixture
def slow_shutter(soft):
    made = channel(
        "shutter",
        EpicsShutter,
        address="SOFT:SHUTTER",
        readback="SOFT:SHUTTER_STATUS",
        choices=("open", "closed"),
        words={"open": "Is open", "closed": "Is closed"},
        set_words={"open": "Open", "closed": "Close"},
    )
    yield made
    made.destroy()


def test_a_shutter_with_words_of_its_own_and_a_status_record(slow_shutter):
    assert slow_shutter.get() == "closed"
    begin = time.monotonic()
    status = slow_shutter.set("open")
    assert not status.done
    status.wait(2.0)
    assert slow_shutter.get() == "open" and time.monotonic() - begin >= 0.1
    slow_shutter.set("closed").wait(2.0)


def test_a_shutter_that_does_not_move_is_noticed(slow_shutter, tell):
    tell("STUCK", 1)
    try:
        begin = time.monotonic()
        with pytest.raises(DeviceError) as caught:
            slow_shutter.set("open").wait(3.0)
        assert (
            str(caught.value) == "channel shutter (ca://SOFT:SHUTTER) did not become 'open' within 1 s: it is 'closed'"
        )
        assert 1.0 <= time.monotonic() - begin < 2.0
    finally:
        tell("STUCK", 0)


def test_a_word_that_is_no_choice_is_noticed(soft):
    strange = channel("mono", address="SOFT:SIMPLE", choices=("in", "out"))
    with pytest.raises(DeviceError, match="says 'closed', which is none of in, out"):
        strange.read()
    strange.destroy()


def test_an_attenuator_takes_numbers_and_a_refused_one_is_noticed(attenuator):
    attenuator.set(0.25).wait(2.0)
    assert attenuator.get() == 0.25
    # the record itself keeps it from 0 to 1
    with pytest.raises(DeviceError, match=r"\(ca://SOFT:ATTENUATOR\) did not become 2.0 within 1 s: it is 1.0"):
        attenuator.set(2.0).wait(3.0)


def test_a_read_only_channel_cannot_be_set(ring_current):
    assert ring_current.get() == 200.0
    with pytest.raises(LimitError, match="read only"):
        ring_current.set(100.0)


def wait_until(holds):
    deadline = time.monotonic() + 5.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_current_is_not_a_number(ring_current, tell):
    # the server takes over what it is told in a thread of its own
    tell("SET_CURRENT", 199.5)
    wait_until(lambda: ring_current.read()["ring_current"]["value"] == 199.5)
    tell("SET_CURRENT", float("nan"))
    wait_until(lambda: math.isnan(epics.caget("SOFT:CURRENT", use_monitor=False)))
    with pytest.raises(DeviceError, match=r"channel ring_current \(ca://SOFT:CURRENT\).*SOFT:CURRENT is nan"):
        ring_current.read()
    tell("SET_CURRENT", 200.0)


def test_a_listener_is_told_of_changes(ring_current, tell):
    told = []
    ring_current.subscribe(lambda value, **_: told.append(value))
    tell("SET_CURRENT", 150.0)
    wait_until(lambda: told[-1] == 150.0)
    assert told[0] == 200.0
    tell("SET_CURRENT", 200.0)


def test_one_that_is_not_there_is_one_sentence(soft):
    begin = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        EpicsChannel(name="monitor", config=ChannelConfig(control="epics", address="SOFT:NONE")).wait_for_connection(
            timeout=0.5
        )
    assert str(caught.value) == "channel monitor (ca://SOFT:NONE) did not connect within 0.5 s"
    assert time.monotonic() - begin < 2.0


def test_a_scan_ends_when_the_current_is_no_number(ring_current, attenuator, tell, run_engine):
    def plan():
        for value in (1.0, 0.5):
            yield from bps.mv(attenuator, value)
            yield from bps.trigger_and_read([ring_current, attenuator])
            tell("SET_CURRENT", float("nan"))

    documents = []
    with pytest.raises(DeviceError, match="ring_current.*nan"):
        run_engine(bpp.run_wrapper(plan()), lambda name, document: documents.append((name, document)))
    tell("SET_CURRENT", 200.0)
    assert [name for name, _ in documents].count("event") == 1
    assert documents[-1][1]["exit_status"] == "fail" and "nan" in documents[-1][1]["reason"]
