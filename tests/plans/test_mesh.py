"""What a scan does, message by message and frame by frame."""

import pytest
from bluesky import Msg
from bluesky import preprocessors as bpp
from bluesky.simulators import RunEngineSimulator
from bluesky.utils import FailedStatus, RunEngineInterrupted

from dfxrm_control.errors import LimitError, ParameterError
from dfxrm_control.parameters import MosaicityParameters
from dfxrm_control.windows import ScanAxis
from plans import Mesh, full_record, mosaicity_scan, rocking_scan
from plans._mesh import mesh_scan

WINDOW = {"rock_range": 1.4, "rock_num": 4, "roll_range": 2.0, "roll_num": 3}
DARKS = 3


def scan(instrument, **keywords):
    return mosaicity_scan(instrument, **{**WINDOW, "exposure_s": 0.01, **keywords})


def test_mesh_walks_every_point_once_and_snakes_without_jumps():
    axes = tuple(ScanAxis(name, 0.0, 1.0, num) for name, num in (("a", 3), ("b", 2), ("c", 4)))
    for snake in (False, True):
        points = [(*slow, fast) for slow, line in Mesh(axes, snake).lines() for fast in line]
        assert sorted(points) == [(a, b, c) for a in range(3) for b in range(2) for c in range(4)]
        jumps = [sum(abs(x - y) for x, y in zip(p, q, strict=True)) for p, q in zip(points, points[1:], strict=False)]
        assert (max(jumps) == 1) is snake
    assert Mesh(axes).lines().__next__()[1] == [0, 1, 2, 3]


def test_each_frame_is_taken_where_its_event_says_with_the_shutter_open(instrument, run_engine, documents):
    run_engine(scan(instrument))
    camera = instrument.cameras["far_field"]
    events = documents.events()
    assert len(events) == 12
    assert [event["seq_num"] for event in events] == list(range(1, 13))
    for (number, index), event in zip(documents.frames(), events, strict=True):
        assert number == event["seq_num"]
        shutter, where = camera.frames[index]
        assert shutter == "open"
        assert where["chi"] == event["data"]["chi_setpoint"] and where["phi"] == event["data"]["phi_setpoint"]
        assert event["data"]["monitor"] == 1e6 and event["data"]["ring_current"] == 200.0
    # relative to where the axes stood: phi 0.5, chi -1
    assert {event["data"]["chi"] for event in events} == {-2.0, -1.0, 0.0}
    assert sorted({event["data"]["phi"] for event in events}) == pytest.approx([-0.2, 0.8 / 3, 2.2 / 3, 1.2])
    assert [event["data"]["phi"] for event in events[3:5]] == [1.2, 1.2]


def test_darks_are_in_streams_of_their_own_with_the_shutter_closed(instrument, run_engine, documents):
    run_engine(scan(instrument, darks_after=2))
    camera = instrument.cameras["far_field"]
    assert [batch.frames for batch in camera.batches] == [DARKS, 4, 4, 4, 2]
    assert [index for _, index in documents.frames("darks_before")] == [0, 1, 2]
    assert [index for _, index in documents.frames("darks_after")] == [15, 16]
    assert [shutter for shutter, _ in camera.frames] == ["closed"] * 3 + ["open"] * 12 + ["closed"] * 2


def test_start_document_says_what_was_planned(instrument, run_engine, documents):
    run_engine(scan(instrument, md={"note": "mine", "dfxrm": {"operator": "me"}}))
    (start,) = documents.named("start")
    assert start["plan_name"] == "mosaicity_scan" and start["note"] == "mine"
    assert start["motors"] == ["chi", "phi"] and start["detectors"] == ["far_field"]
    assert start["shape"] == [3, 4] and start["num_points"] == 12 and start["num_intervals"] == 11
    assert start["extents"] == [[-2.0, 0.0], [pytest.approx(-0.2), pytest.approx(1.2)]]
    assert start["snaking"] == [False, True]
    assert start["hints"] == {"dimensions": [[["chi"], "primary"], [["phi"], "primary"]], "gridding": "rectilinear"}
    dfxrm = start["dfxrm"]
    assert dfxrm["operator"] == "me"
    assert dfxrm["title"] == "fscan2d chi -2 1 3 diffry -0.2 0.4666666667 4 0.01 0.01"
    assert [axis["name"] for axis in dfxrm["scan_axes"]] == ["chi", "phi"]
    assert dfxrm["line_length"] == 4 and dfxrm["camera"] == "far_field" and dfxrm["exposure_s"] == 0.01
    assert dfxrm["parameters"]["model"] == "MosaicityParameters"
    again = MosaicityParameters.check(dfxrm["parameters"]["values"])
    assert again.rock_num == 4 and again.roll_range == 2.0
    assert start["plan_args"]["rock_num"] == 4


def test_rocking_scan_is_one_line(instrument, run_engine, documents):
    run_engine(rocking_scan(instrument, rock="phi", rock_range=1.0, rock_step=0.25, exposure_s=0.01))
    (start,) = documents.named("start")
    assert start["shape"] == [5] and start["snaking"] == [False]
    assert start["dfxrm"]["title"] == "fscan diffry 0 0.25 5 0.01 0.01"
    assert [event["data"]["phi"] for event in documents.events()] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_absolute_centre(instrument, run_engine, documents):
    run_engine(scan(instrument, relative=False, rock_center=3.0, roll_center=-4.0))
    assert documents.named("start")[0]["extents"] == [[-5.0, -3.0], [pytest.approx(2.3), pytest.approx(3.7)]]


@pytest.mark.parametrize(("after", "phi", "chi"), [("start", 0.5, -1.0), ("stay", 1.2, 0.0)])
def test_axes_are_left_where_asked(instrument, run_engine, after, phi, chi):
    run_engine(scan(instrument, after=after))
    assert instrument.axes["phi"].position == pytest.approx(phi)
    assert instrument.axes["chi"].position == pytest.approx(chi)


def test_a_default_window_follows_the_resolution(instrument, run_engine, documents):
    optics = {"obx": 328.0, "obz": 106.0, "oby": 0.0, "obpitch": 17.946, "obyaw": 0.0, "mainx": -5687.0, "ffy": 0.0}
    log = instrument.axes["phi"].log
    kind = type(instrument.axes["phi"])
    axes = {**instrument.axes, **{name: kind(name, (-1e4, 1e4), at, log) for name, at in optics.items()}}
    axes["ffz"] = kind("ffz", (-1e4, 1e4), 1842.0, log)
    object.__setattr__(instrument, "axes", axes)
    run_engine(mosaicity_scan(instrument, exposure_s=0.01, darks_before=0))
    roll, rock = documents.named("start")[0]["dfxrm"]["scan_axes"]
    # sigma of the instrument: about 10 mdeg rock and 50 mdeg roll; the sample spreads over +/-0.1 deg
    half = {"rock": rock["step"] * (rock["num"] - 1) / 2, "roll": roll["step"] * (roll["num"] - 1) / 2}
    sigma_rock, sigma_roll = (half["rock"] - 0.1) / 3.5, (half["roll"] - 0.1) / 3.5
    assert 0.008 < sigma_rock < 0.012
    assert 0.04 < sigma_roll < 0.06
    assert rock["step"] <= 2.3548 * sigma_rock and roll["step"] <= 2.3548 * sigma_roll


BAD = [
    ({"rock": "tilt"}, "axis 'tilt' is not in configuration 'stand-ins'; it has chi, mu, omega, phi"),
    ({"camera": "eiger"}, "camera 'eiger' is not in configuration 'stand-ins'; it has far_field"),
    ({"exposure_s": 11.0}, "exposure_s: 11 s was asked of camera 'far_field', which exposes 0.001 to 10 s"),
    ({"exposure_s": 0}, "exposure_s: Input should be greater than 0"),
    ({"rock_range": 0}, "rock_range: Input should be greater than 0"),
    ({"rock": "chi"}, "rock and roll are both 'chi'"),
    ({"rock_range": 61.0, "rock_num": 2}, "axis phi: 31 is outside"),
    ({"speed": 3}, "there is no parameter 'speed'; it takes"),
]


@pytest.mark.parametrize(("keywords", "sentence"), BAD)
def test_what_is_wrong_is_said_before_anything_moves(instrument, run_engine, documents, log, keywords, sentence):
    with pytest.raises((ParameterError, LimitError)) as caught:
        run_engine(scan(instrument, **keywords))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert not log and not documents.all


def test_order_of_messages(instrument):
    axis = ScanAxis("phi", 0.0, 1.0, 2)
    parameters = MosaicityParameters(darks_before=1, darks_after=1)
    plan = mesh_scan(instrument, Mesh((ScanAxis("chi", 5.0, 1.0, 1), axis)), parameters, title="", md={})
    simulator = RunEngineSimulator()
    simulator.add_handler("read", lambda message: message.obj.read())
    seen = simulator.simulate_plan(plan)
    words = [f"{m.command} {m.obj.name}" if m.obj is not None else m.command for m in seen]
    event = ["read monitor", "read ring_current", "rewindable", "read far_field", "save", "rewindable"]
    dark = ["set shutter", "wait", "prepare far_field", "wait", "checkpoint", "trigger far_field", "wait", "create"]
    dark += [*event, "complete far_field", "wait"]
    point = ["trigger far_field", "wait", "create", "read chi", "read phi", *event]
    assert words == [
        *("read chi", "read phi", "stage far_field", "open_run", "rewindable"),
        *dark,
        *("set shutter", "wait", "checkpoint", "prepare far_field", "wait"),
        *("checkpoint", "set chi", "set phi", "wait", *point),
        *("checkpoint", "set phi", "wait", *point),
        *("checkpoint", "complete far_field", "wait"),
        *dark,
        *("rewindable", "set shutter", "wait", "complete far_field", "wait"),
        *("close_run", "unstage far_field", "set chi", "wait", "set phi", "wait"),
    ]


def pauses_before(target, count):
    """Let the plan pause before its message number ``target``, counted from the start of the run."""

    def before(message):
        count.append(message.command)
        if len(count) - 1 != target:
            return None, None

        def pause_first():
            yield Msg("pause")
            return (yield message)

        return pause_first(), None

    # what pause_first yields is seen by the mutator too: count it once
    def process(plan):
        seen = set()

        def once(message):
            if message.command == "pause" or id(message) in seen:
                return None, None
            seen.add(id(message))
            kept.append(message)
            return before(message)

        kept = []
        return bpp.plan_mutator(plan, once)

    return process


def messages_of(instrument, run_engine):
    count = []
    run_engine.preprocessors[:] = [full_record(instrument), pauses_before(-1, count)]
    run_engine(scan(instrument))
    run_engine.preprocessors.clear()
    return count


def test_a_hard_pause_at_every_message_repeats_no_point(instrument, run_engine, documents):
    commands = messages_of(instrument, run_engine)
    saves = [number for number, command in enumerate(commands) if command == "save"]
    saves = [number for number in saves if commands[number - 2] == "rewindable"]  # not those of the baseline
    # two whole points around the turn of a line, the completing and preparing between them included
    first, last = saves[DARKS + 2] + 1, saves[DARKS + 5] + 2
    assert commands[first:last].count("save") == 3 and "prepare" in commands[first:last]
    camera = instrument.cameras["far_field"]
    orphans_seen = set()
    for target in range(first, last):
        documents.all.clear()
        taken_before = len(camera.frames)
        run_engine.preprocessors[:] = [full_record(instrument), pauses_before(target, [])]
        with pytest.raises(RunEngineInterrupted):
            run_engine(scan(instrument))
        assert instrument.shutter.value == "closed"
        assert run_engine.resume().exit_status == "success"
        events = documents.events()
        assert [event["seq_num"] for event in events] == list(range(1, 13)), f"paused before {commands[target]}"
        frames = documents.frames()
        assert [number for number, _ in frames] == list(range(1, 13))
        for (_, index), event in zip(frames, events, strict=True):
            shutter, where = camera.frames[index]
            assert shutter == "open" and where["phi"] == event["data"]["phi"] and where["chi"] == event["data"]["chi"]
        resources = {doc["uid"]: doc for doc in documents.named("stream_resource")}
        for doc in documents.named("stream_datum"):
            assert doc["stream_resource"] in resources
        announced = {index for stream in ("darks_before", "primary") for _, index in documents.frames(stream)}
        orphans = set(range(taken_before, len(camera.frames))) - announced
        assert len(orphans) <= 1
        if orphans:
            orphans_seen.add(commands[target])
        assert run_engine.rewindable
    # a pause repeats the exposure exactly where its frame was taken but not yet read
    assert orphans_seen == {"wait", "create", "read", "rewindable"}


@pytest.mark.parametrize("delay_s", [0.02, 0.09, 0.13])
def test_a_pause_in_mid_exposure_takes_the_frame_again(instrument, run_engine, documents, delay_s):
    camera = instrument.cameras["far_field"]
    camera.real_exposure_s = 0.04
    import threading

    timer = threading.Timer(delay_s, run_engine.request_pause, kwargs={"defer": False})
    timer.start()
    with pytest.raises(RunEngineInterrupted):
        run_engine(scan(instrument, darks_before=0))
    run_engine.resume()
    assert [event["seq_num"] for event in documents.events()] == list(range(1, 13))
    assert len({index for _, index in documents.frames()}) == 12
    assert 12 <= len(camera.frames) <= 13


@pytest.mark.parametrize("end", ["abort", "stop", "halt"])
def test_after_a_pause_everything_can_be_ended_safely(instrument, run_engine, documents, log, end):
    run_engine.preprocessors[:] = [full_record(instrument), pauses_before(120, [])]
    with pytest.raises(RunEngineInterrupted):
        run_engine(scan(instrument))
    getattr(run_engine, end)()
    assert instrument.shutter.value == "closed"
    assert not instrument.cameras["far_field"].staged
    (stop,) = documents.named("stop")
    assert stop["exit_status"] == {"abort": "abort", "stop": "success", "halt": "abort"}[end]
    assert stop["num_events"]["primary"] == len(documents.events()) < 12
    if end != "halt":
        assert instrument.axes["phi"].position == 0.5 and instrument.axes["chi"].position == -1.0
        closing = [
            entry for entry in log if entry[0] in ("shutter", "camera") or entry in (("phi", 0.5), ("chi", -1.0))
        ]
        assert closing[-5:] == [
            ("shutter", "closed"),
            ("camera", "complete"),
            ("camera", "unstage"),
            ("chi", -1.0),
            ("phi", 0.5),
        ]
    run_engine.preprocessors[:] = [full_record(instrument)]
    documents.all.clear()
    run_engine(scan(instrument))
    assert run_engine.rewindable and len(documents.events()) == 12


def test_a_camera_that_fails_leaves_everything_safe_and_the_error_first(instrument, run_engine, documents):
    camera = instrument.cameras["far_field"]
    camera.fail_at = DARKS + 6
    with pytest.raises(FailedStatus) as caught:
        run_engine(scan(instrument))
    assert "lost a frame" in str(caught.value.__cause__ or caught.value.args)
    assert instrument.shutter.value == "closed" and not camera.staged
    assert instrument.axes["phi"].position == 0.5 and instrument.axes["chi"].position == -1.0
    (stop,) = documents.named("stop")
    assert stop["exit_status"] == "fail" and stop["num_events"]["primary"] == 6


def test_an_axis_that_fails_does_not_keep_the_other_from_returning(instrument, run_engine, documents):
    instrument.axes["phi"].fail_at = 6

    with pytest.raises(FailedStatus):
        run_engine(scan(instrument))
    assert instrument.shutter.value == "closed"
    assert instrument.axes["chi"].position == -1.0 and instrument.axes["phi"].position == 0.5
    assert documents.named("stop")[0]["exit_status"] == "fail"
