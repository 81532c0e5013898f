"""A series in time, message by message: when it scans, what it does with the furnace, and how it ends."""

import time
from dataclasses import replace

import pytest
from bluesky.simulators import RunEngineSimulator
from bluesky.utils import FailedStatus
from ophyd.status import Status

from dfxrm_control.environment import Clock, Furnace
from dfxrm_control.errors import DeviceError, LimitError, ParameterError
from dfxrm_control.parameters import ProgrammeStep, TimeSeriesParameters, parse_programme
from plans import bind, queue_annotation, rocking_scan, time_series

SCAN = {"scan": "rocking_scan", "scan_parameters": {"rock_range": 1.0, "rock_num": 3, "exposure_s": 0.5}}


def finished():
    status = Status(timeout=10)
    status.set_finished()
    return status


class StandInClock:
    """Jumps to whatever is waited for; a scan lets some time pass."""

    parent = None
    name = "clock"

    def __init__(self):
        self.now = 100.0

    def set(self, value):
        self.now = max(self.now, value)
        return finished()

    def read(self):
        return {"clock": {"value": self.now, "timestamp": time.time()}}

    def describe(self):
        return {"clock": {"source": "test", "dtype": "number", "shape": []}}

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}


class StandInHold(StandInClock):
    name = "furnace_hold"

    def __init__(self, clock):
        self.clock = clock

    def set(self, value):
        return self.clock.set(value)


class StandInFurnace:
    parent = None
    name = "furnace"

    def __init__(self, make_axis, clock, log):
        self.temperature = make_axis("temperature", (20.0, 500.0), 25.0, log)
        self.hold = StandInHold(clock)
        self.ramps, self.log = [], log

    def check_ramp(self, ramp):
        if ramp.rate_k_per_min > 30:
            raise LimitError("furnace: too fast")

    def prepare(self, ramp):
        self.ramps.append(ramp)
        return finished()

    def too_hot(self, temperature):
        return DeviceError(f"furnace is too hot: {temperature:g} degC") if temperature > 510.0 else None

    def set(self, value):
        assert value == "safe"
        self.log.append(("furnace", "safe"))
        return finished()


@pytest.fixture
def microscope(instrument, log):
    clock = StandInClock()
    made = replace(instrument, clock=clock, furnace=StandInFurnace(type(instrument.axes["phi"]), clock, log), plans={})
    made.plans["rocking_scan"] = bind(rocking_scan, made)
    # a frame takes its exposure
    trigger = made.cameras["far_field"].trigger

    def expose():
        clock.now += 0.5
        return trigger()

    made.cameras["far_field"].trigger = expose
    return made


def series_of(documents):
    return [doc["dfxrm"]["series"] for doc in documents.named("start")]


def test_stand_ins_follow_the_protocols(microscope):
    assert isinstance(microscope.clock, Clock) and isinstance(microscope.furnace, Furnace)


def test_a_period_runs_from_start_to_start(microscope, run_engine, documents):
    run_engine(time_series(microscope, period_s=60.0, repeats=4, **SCAN))
    runs = series_of(documents)
    assert [run["value"] for run in runs] == [0.0, 60.0, 120.0, 180.0]
    assert [(run["index"], run["of"], run["kind"], run["units"]) for run in runs] == [
        (k, 4, "time", "s") for k in range(4)
    ]
    assert len({run["uid"] for run in runs}) == 1
    assert all(doc["exit_status"] == "success" for doc in documents.named("stop"))


def test_a_scan_that_takes_longer_than_the_period_delays_the_next(microscope, run_engine, documents):
    # 3 darks and 3 points of half a second
    run_engine(time_series(microscope, period_s=1.0, repeats=3, **SCAN))
    assert [run["value"] for run in series_of(documents)] == [0.0, 3.0, 6.0]


def test_without_a_period_there_is_no_pause(microscope, run_engine, documents):
    run_engine(time_series(microscope, repeats=2, **SCAN))
    assert [run["value"] for run in series_of(documents)] == [0.0, 3.0]


def test_a_programme_ramps_holds_and_scans(microscope, run_engine, documents):
    run_engine(time_series(microscope, programme="25, 325@10/1200, 25@20/0~5*0", find="never", **SCAN))
    runs = series_of(documents)
    assert [(run["step"], run["setpoint"], run["temperature"]) for run in runs] == [(0, 25.0, 25.0), (1, 325.0, 325.0)]
    # one scan when the hold is over
    assert runs[1]["value"] - runs[0]["value"] == pytest.approx(1200.0 + 3.0)
    furnace = microscope.furnace
    assert furnace.temperature.visited == [25.0, 325.0, 25.0]
    assert [(ramp.rate_k_per_min, ramp.tolerance_k) for ramp in furnace.ramps] == [
        (10.0, 2.0),
        (10.0, 2.0),
        (20.0, 5.0),
    ]
    assert ("furnace", "safe") not in furnace.log


def test_several_scans_are_spread_over_the_hold(microscope, run_engine, documents):
    run_engine(time_series(microscope, programme="325/1200*4", find="never", **SCAN))
    times = [run["value"] for run in series_of(documents)]
    assert times == [0.0, 400.0, 800.0, 1200.0]


def test_the_furnace_is_set_before_it_is_waited_for_and_the_shutter_is_closed_meanwhile(microscope):
    simulator = RunEngineSimulator()
    simulator.add_handler("read", lambda message: message.obj.read())
    microscope.clock.now = 0.0
    messages = simulator.simulate_plan(time_series(microscope, programme="325/600", find="never", **SCAN))
    order = [
        (message.command, getattr(message.obj, "name", ""), message.args)
        for message in messages
        if message.command in ("set", "prepare", "open_run", "close_run")
        and getattr(message.obj, "name", "") in ("", "furnace", "temperature", "furnace_hold", "shutter")
    ]
    kinds = [(command, name) for command, name, _ in order]
    assert kinds[:4] == [("prepare", "furnace"), ("set", "temperature"), ("set", "furnace_hold"), ("open_run", "")]
    assert order[1][2] == (325.0,) and order[2][2] == (600.0,)
    closed = max(k for k, (_, name, args) in enumerate(order) if name == "shutter" and args == ("closed",))
    opened = max(k for k, (_, name, args) in enumerate(order) if name == "shutter" and args == ("open",))
    assert closed > opened


def test_a_furnace_that_gets_too_hot_in_a_scan_ends_the_series(microscope, run_engine, documents, log):
    trigger = microscope.cameras["far_field"].trigger
    furnace = microscope.furnace

    def expose():
        if len(microscope.cameras["far_field"].frames) == 7:
            furnace.temperature.position = 530.0
        return trigger()

    microscope.cameras["far_field"].trigger = expose
    with pytest.raises(DeviceError, match="furnace is too hot: 530 degC"):
        run_engine(time_series(microscope, programme="325/0*3", find="never", on_failure="stay", **SCAN))
    assert [doc["exit_status"] for doc in documents.named("stop")] == ["success", "fail"]
    assert microscope.shutter.value == "closed"
    assert log[-1] == ("furnace", "safe")


@pytest.mark.parametrize(("on_failure", "cools"), [("cool", True), ("stay", False)])
def test_when_the_furnace_fails_it_cools_or_stays_as_asked(microscope, run_engine, documents, log, on_failure, cools):
    microscope.furnace.temperature.fail_at = 1
    with pytest.raises(FailedStatus):
        run_engine(time_series(microscope, programme="25, 325", find="never", on_failure=on_failure, **SCAN))
    assert (("furnace", "safe") in log) is cools
    assert [doc["exit_status"] for doc in documents.named("stop")] == ["success"]


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"programme": "600"}, "axis temperature: 600 is outside"),
        ({"programme": "300@31"}, "furnace: too fast"),
        (
            {"programme": "300", "scan": "mosaicity_scan", "scan_parameters": {}},
            "plan 'mosaicity_scan' is not available",
        ),
        ({"programme": "300", "find": "change"}, "axis 'two_theta' is not in configuration"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_moves(microscope, run_engine, documents, log, keywords, sentence):
    with pytest.raises((ParameterError, LimitError), match=sentence):
        run_engine(time_series(microscope, **{**SCAN, "find": "never", **keywords}))
    assert not log and not documents.all


def test_a_programme_needs_a_furnace(microscope, run_engine):
    with pytest.raises(ParameterError, match="a temperature programme needs a furnace, and 'stand-ins' has none"):
        run_engine(time_series(replace(microscope, furnace=None), programme="300", find="never", **SCAN))


# -- parameters ----------------------------------------------------------------------------------------------


def test_a_programme_is_read_as_it_is_written():
    assert parse_programme("25, 325@10/1200~1.5*4 , -20@.5") == (
        ProgrammeStep(target=25),
        ProgrammeStep(target=325, ramp_k_per_min=10, hold_s=1200, tolerance_k=1.5, scans=4),
        ProgrammeStep(target=-20, ramp_k_per_min=0.5),
    )
    text = ", ".join(map(str, parse_programme("325@10/1200, 25@20")))
    assert ", ".join(map(str, parse_programme(text))) == text == "325@10/1200~2*1, 25@20/0~2*1"


def test_a_programme_may_be_given_as_a_list_and_is_kept_as_text():
    steps = [{"target": 325, "hold_s": 1200, "scans": 2}, ProgrammeStep(target=25)]
    parameters = TimeSeriesParameters.check({"programme": steps})
    assert parameters.programme == "325@10/1200~2*2, 25@10/0~2*1" and parameters.scans == 3
    assert TimeSeriesParameters.check(parameters.record()["values"]) == parameters


@pytest.mark.parametrize(("scans", "due"), [(0, []), (1, [90.0]), (2, [0.0, 90.0]), (4, [0.0, 30.0, 60.0, 90.0])])
def test_when_the_scans_of_a_step_are_due(scans, due):
    assert ProgrammeStep(target=300, hold_s=90.0, scans=scans).scan_times_s() == due


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"programme": "hot"}, "time_series: 'hot' is no step of a temperature programme; one is target@ramp/hold"),
        ({"programme": "325@0"}, "step '325@0': ramp_k_per_min: Input should be greater than 0"),
        ({"programme": [{"target": 325, "speed": 3}]}, "step '1': speed: there is no such setting"),
        ({"programme": "325*0"}, "the programme has no scan in it"),
        ({"programme": "325", "repeats": 3}, "a programme says itself when to scan"),
        ({"programme": "325,"}, "'' is no step of a temperature programme"),
        ({"repeats": 0}, "repeats: Input should be greater than or equal to 1"),
        ({"scan": "time_series"}, "scan 'time_series' cannot be run in a series"),
        ({"scan_parameters": {"rock_num": 1}}, "scan_parameters: mosaicity_scan: rock_num"),
    ],
)
def test_bad_values_are_told_in_one_sentence(values, sentence):
    with pytest.raises(ParameterError) as caught:
        TimeSeriesParameters.check(values)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_queue_server_can_check_it():
    annotation = queue_annotation(time_series)["parameters"]
    assert annotation["programme"]["annotation"] == "typing.Union[str, None]"
    assert annotation["repeats"]["min"] == 1 and annotation["find"]["annotation"].startswith("typing.Literal[")
    queue = pytest.importorskip("bluesky_queueserver")
    queue.parameter_annotation_decorator(queue_annotation(time_series))(bind(time_series, None))
