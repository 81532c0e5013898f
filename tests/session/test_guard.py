"""A move on which two bodies could meet is refused by the devices themselves, whoever asks for it."""

import threading

import pytest
from bluesky import plan_stubs as bps
from bluesky import plans as bp

from devices import Fault
from dfxrm_control.backend import Backend
from dfxrm_control.config import find_config, override
from dfxrm_control.errors import DeviceError, EnvelopeError
from dfxrm_control.session import build_backend, build_devices

MEETS = "axis {} cannot go to .*: objective and near_field would come within .* mm of each other, and must stay 2 mm"
WAIT_S = 10.0


@pytest.fixture
def stepped(small):
    """Return devices on a clock that stands still until the test steps it, and their backend."""
    config = override(small, ["backend.options.clock=stepped"])
    backend = build_backend(config)
    assert isinstance(backend, Backend)
    return build_devices(config, backend), backend


def arrive(backend, status):
    ended = threading.Event()
    status.add_callback(lambda _: ended.set())
    for _ in range(500):
        backend.clock.step(10.0)
        if ended.wait(0.02):
            break
    status.wait(WAIT_S)


def test_a_motor_refuses_and_stays(session):
    nfy, here = session.axes["nfy"], session.axes["nfy"].position
    session.move([(session.axes["nfz"], 100.0), (session.axes["nfx"], 290.0)])
    with pytest.raises(EnvelopeError, match=MEETS.format("nfy")):
        nfy.set(0.0)
    assert nfy.position == here and not nfy.moving


def test_a_stock_plan_is_refused_naming_bodies_and_distance(session):
    axes = session.axes
    with pytest.raises(EnvelopeError, match=r"objective and near_field would come within 0 mm"):
        session.RE(bps.mv(axes["nfx"], 290.0, axes["nfz"], 100.0, axes["nfy"], 0.0))
    # by then the first two were on their way: the plan's end stopped them
    assert not any(axes[name].moving for name in ("nfx", "nfy", "nfz"))
    assert axes["nfy"].position == 60.0
    with pytest.raises(EnvelopeError, match=MEETS.format("nfy")):
        session.move([(axes["nfz"], 100.0), (axes["nfx"], 290.0), (axes["nfy"], 0.0)])


def test_a_scan_that_would_cross_a_body_stops_before_it(session):
    axes = session.axes
    session.move([(axes["nfz"], 100.0), (axes["nfx"], 290.0)])
    with pytest.raises(EnvelopeError, match=MEETS.format("nfy")):
        session.RE(bp.scan([], axes["nfy"], 90.0, -90.0, 3))
    assert axes["nfy"].position == 90.0


def test_without_the_lens_the_way_is_free_and_then_the_lens_must_stay_out(session):
    axes, lens = session.axes, session.channels["objective_in"]
    lens.set("out").wait(WAIT_S)
    session.move([(axes["nfx"], 290.0), (axes["nfz"], 100.0), (axes["nfy"], 0.0)])
    with pytest.raises(DeviceError, match="channel objective_in cannot be set to in: objective and near_field"):
        session.move([(lens, "in")])
    assert lens.get() == "out"
    session.move([(axes["nfy"], 60.0)])
    session.RE(bps.mv(lens, "in"))
    assert lens.get() == "in"


def test_a_computed_axis_is_asked_with_all_that_it_moves_before_anything_moves(session):
    axes = session.axes
    # in the way of an arm that goes down, and free of one that stands
    session.channels["objective_in"].set("out").wait(WAIT_S)
    session.move([(axes["nfx"], 290.0), (axes["nfy"], 0.0), (axes["nfz"], 10.0)])
    session.channels["objective_in"].set("in").wait(WAIT_S)
    before = {name: axes[name].position for name in ("obx", "obz", "obpitch", "ffz")}
    with pytest.raises(EnvelopeError, match=MEETS.format("two_theta")):
        axes["two_theta"].set(4.0)
    assert {name: axes[name].position for name in before} == before
    axes["two_theta"].set(17.0).wait(WAIT_S)


def test_what_is_on_its_way_counts_as_anywhere_on_it(stepped):
    built, backend = stepped
    axes = built.axes
    # each of the two alone is free; together the one crosses the way of the other
    for name, place in (("nfx", 290.0), ("nfz", 30.0)):
        status = axes[name].set(place)
        arrive(backend, status)
    rising = axes["nfz"].set(100.0)
    with pytest.raises(EnvelopeError, match=MEETS.format("nfy")):
        axes["nfy"].set(0.0)
    arrive(backend, rising)
    axes["nfz"].set(0.0)
    with pytest.raises(EnvelopeError):
        # it may still be up there
        axes["nfy"].set(0.0)


def test_two_threads_do_not_both_find_the_place_free(stepped):
    built, backend = stepped
    axes = built.axes
    arrive(backend, axes["nfx"].set(290.0))
    together, outcomes = threading.Barrier(2), []

    def send(name, target):
        together.wait(WAIT_S)
        try:
            axes[name].set(target)
            outcomes.append("moves")
        except EnvelopeError:
            outcomes.append("refused")

    senders = [threading.Thread(target=send, args=each) for each in (("nfy", 0.0), ("nfz", 100.0))]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(WAIT_S)
    assert sorted(outcomes) == ["moves", "refused"]


def test_the_final_approach_of_a_motor_with_backlash_counts(small):
    config = override(small, ["devices.near_field.axes.nfy.backlash=30.0"])
    built = build_devices(config, build_backend(config))
    axes = built.axes
    for name, place in (("nfz", 100.0), ("nfx", 290.0), ("nfy", 95.0)):
        axes[name].set(place).wait(WAIT_S)
    # 60 mm is free, 30 mm is not: it would go there and come back
    with pytest.raises(EnvelopeError, match=MEETS.format("nfy")):
        axes["nfy"].set(60.0)
    axes["nfy"].set(100.0).wait(WAIT_S)


def test_a_camera_that_does_not_answer_may_be_anywhere(session):
    session.axes["nfx"].set(290.0).wait(WAIT_S)
    session.axes["nfy"].inject(Fault("disconnected"))
    with pytest.raises(EnvelopeError, match=r"\(nfy: position not known, so anywhere within limits\)"):
        session.axes["obz"].set(30.0)
    session.axes["nfy"].inject(None)
    session.axes["obz"].set(30.0).wait(WAIT_S)


def test_motors_that_carry_nothing_are_not_asked(session):
    carrying = {name for name, axis in session.axes.items() if axis.guard is not None}
    assert carrying == {
        "obx", "oby", "obz", "obpitch", "obyaw", "nfx", "nfy", "nfz", "mainx", "ffy", "ffz", "two_theta",
    }  # fmt: skip
    assert [name for name, channel in session.channels.items() if getattr(channel, "guard", None)] == ["objective_in"]


def test_the_furnace_is_in_the_way_of_the_camera(small):
    config = override(find_config("furnace"), ["instrument.cameras.far_field.rows=48"])
    built = build_devices(config, build_backend(config))
    with pytest.raises(EnvelopeError, match="near_field and furnace would come within 0 mm"):
        built.axes["nfx"].set(0.0).wait(WAIT_S)
        built.axes["nfy"].set(0.0)


def test_an_axis_that_fails_in_the_middle_does_not_lift_the_guard(session):
    session.axes["nfz"].inject(Fault("short", 50.0))
    with pytest.raises(DeviceError):
        session.move([(session.axes["nfz"], 150.0)])
    assert session.axes["nfz"].position == 100.0
    session.move([(session.axes["nfx"], 290.0)])
    with pytest.raises(EnvelopeError):
        session.move([(session.axes["nfy"], 0.0)])
