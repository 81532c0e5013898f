import threading
import time

import pytest
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.run_engine import RunEngineInterrupted

from dfxrm_control.acquisition import Shutter
from dfxrm_control.errors import DeviceError, LimitError

WAIT_S = 5.0


def test_the_shutter_is_what_plans_expect(microscope):
    assert isinstance(microscope.beam.shutter, Shutter)


def test_the_shutter_opens_and_closes(microscope):
    shutter = microscope.beam.shutter
    for word in ("open", "closed"):
        shutter.set(word).wait(WAIT_S)
        assert microscope.backend.channels["shutter"] == word == shutter.read()["shutter"]["value"]


@pytest.mark.parametrize("wrong", ["ajar", 1, None])
def test_a_word_the_channel_does_not_know_is_refused(microscope, wrong):
    with pytest.raises(LimitError, match="channel shutter takes open or closed, not"):
        microscope.beam.shutter.set(wrong)
    assert not microscope.backend.log


def test_a_read_only_channel_is_not_set(microscope):
    with pytest.raises(LimitError, match="channel ring_current is read only"):
        microscope.beam.ring_current.set(3.0)


def test_a_number_is_a_number(microscope):
    with pytest.raises(LimitError, match="channel attenuator takes a number, not 'half'"):
        microscope.beam.attenuator.set("half")
    microscope.beam.attenuator.set(0.5).wait(WAIT_S)
    assert microscope.beam.attenuator.get() == 0.5


def test_a_shutter_that_does_not_follow_fails(microscope):
    microscope.backend.put = lambda channel, value: None
    error = microscope.beam.shutter.set("open").exception(timeout=WAIT_S)
    assert isinstance(error, DeviceError)
    assert str(error) == "channel shutter was set to 'open' but is 'closed'"


@pytest.mark.parametrize("who", ["shutter", "beam", "both"])
@pytest.mark.parametrize(("before", "after"), [("open", "open"), ("closed", "closed")])
def test_a_pause_closes_and_the_end_of_the_pause_restores(microscope, who, before, after):
    beam = microscope.beam
    things = {"shutter": [beam.shutter], "beam": [beam], "both": [beam, beam.shutter]}[who]
    beam.shutter.set(before).wait(WAIT_S)
    for thing in things:
        thing.pause()
    assert beam.shutter.get() == "closed"
    for thing in things:
        thing.resume()
    assert beam.shutter.get() == after


def test_a_run_that_is_not_resumed_leaves_the_shutter_closed_for_good(microscope):
    beam = microscope.beam
    for forget in (beam.shutter.stop, lambda: beam.shutter.set("closed"), lambda: (beam.stage(), beam.unstage())):
        beam.shutter.set("open").wait(WAIT_S)
        beam.shutter.pause()
        forget()
        beam.shutter.pause()
        beam.shutter.resume()
        assert beam.shutter.get() == "closed"


def test_the_run_engine_closes_and_opens_it(microscope, run_engine):
    shutter, states = microscope.beam.shutter, []

    @bpp.run_decorator()
    def plan():
        yield from bps.mv(shutter, "open")
        yield from bps.checkpoint()
        states.append(shutter.get())
        yield from bps.pause() if len(states) == 1 else bps.null()
        states.append(shutter.get())
        yield from bps.mv(shutter, "closed")

    with pytest.raises(RunEngineInterrupted):
        run_engine(plan())
    assert shutter.get() == "closed"
    run_engine.resume()
    assert states == ["open", "open"] and shutter.get() == "closed"


def test_monitor_and_ring_current_belong_to_the_last_frame(microscope, tmp_path):
    beam, camera = microscope.beam, microscope.far_field
    camera.destination = lambda name: tmp_path
    assert beam.ring_current.read()["ring_current"]["value"] == 200.0
    camera.stage()
    for number in range(3):
        camera.trigger().wait(WAIT_S)
        microscope.backend.channels["ring_current"] = 150.0
        assert beam.monitor.read()["monitor"]["value"] == 100.0 + number
        assert beam.ring_current.read()["ring_current"]["value"] == pytest.approx(200.0 - 0.01 * number)
    camera.unstage()
    assert beam.ring_current.read()["ring_current"]["value"] == 150.0


def test_who_watches_the_ring_current_is_told_of_a_beam_dump(microscope):
    told = threading.Event()
    ring_current = microscope.beam.ring_current
    number = ring_current.subscribe(lambda value, **_: value < 10 and told.set())
    time.sleep(0.05)
    assert not told.is_set()
    microscope.backend.channels["ring_current"] = 0.0
    assert told.wait(WAIT_S)
    ring_current.unsubscribe(number)
