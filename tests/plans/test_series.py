"""Runs that belong together, on stand-ins: what their documents say, and in which order things happen."""

import dataclasses

import pytest

from dfxrm_control.errors import LimitError, ParameterError
from dfxrm_control.parameters import PLAN_PARAMETERS, LayerParameters, RockingParameters, SeriesParameters
from plans import InnerScan, RunSeries, bind, layer_scan, queue_annotation, rocking_scan, topotomography_scan

CURVE = {"rock_num": 3, "rock_range": 0.1, "exposure_s": 0.1, "darks_before": 1}

pytestmark = pytest.mark.filterwarnings("ignore:.*(step|window) of:UserWarning")


@pytest.fixture
def stack(instrument, log):
    """Return the instrument with translations, a condenser and plans."""
    axis, channel = type(instrument.axes["mu"]), type(instrument.channels["objective_in"])
    instrument.axes.update({name: axis(name, start=0.1, log=log) for name in ("samx", "samy", "samz")})
    instrument.channels["condenser"] = channel("condenser", "line")
    plans = {}
    whole = dataclasses.replace(instrument, plans=plans)
    plans["rocking_scan"] = bind(rocking_scan, whole, {"exposure_s": 0.3})
    return whole


def series_of(documents):
    return [start["dfxrm"]["series"] for start in documents.named("start")]


def test_the_documents_hold_the_runs_together(stack, run_engine, documents):
    run_engine(layer_scan(stack, layers=3, step_um=2.0, scan="rocking_scan", scan_parameters=CURVE, md={"note": "x"}))
    said = series_of(documents)
    assert len({each["uid"] for each in said}) == 1
    assert [(each["index"], each["of"], each["value"]) for each in said] == [(0, 3, -2.0), (1, 3, 0.0), (2, 3, 2.0)]
    assert {(each["kind"], each["plan"], each["axis"], each["units"]) for each in said} == {
        ("layers", "layer_scan", "height", "um")
    }
    assert said[0]["parameters"]["values"]["layers"] == 3
    starts = documents.named("start")
    assert {start["plan_name"] for start in starts} == {"rocking_scan"} and {start["note"] for start in starts} == {"x"}
    assert {start["dfxrm"]["parameters"]["model"] for start in starts} == {"RockingParameters"}
    assert len(documents.named("stop")) == 3


def test_the_sample_moves_between_the_runs_and_comes_back(stack, run_engine, log):
    run_engine(layer_scan(stack, layers=2, step_um=2.0, scan="rocking_scan", scan_parameters=CURVE))
    steps = [entry for entry in log if entry[0] in ("samx", "samz", "shutter") and entry != ("shutter", "open")]
    names = [name for name, _ in steps]
    moves = [k for k, name in enumerate(names) if name == "samz"]
    assert len(moves) == 3 and all("shutter" in names[a:b] for a, b in zip(moves, moves[1:], strict=False))
    # phi 0.5 and chi -1 deg turn the way up a little more than mu does
    assert [position for name, position in steps if name == "samz"] == pytest.approx([0.10099, 0.09901, 0.1], abs=5e-5)
    assert steps[-1][1] == 0.1


def test_below_the_rotations_only_the_height_moves(stack, run_engine, log):
    config = stack.config.model_copy(update={"sample_stage": "below"})
    below = dataclasses.replace(stack, config=config)
    run_engine(layer_scan(below, layers=2, step_um=2.0, scan="rocking_scan", scan_parameters=CURVE))
    moved = [entry for entry in log if entry[0].startswith("sam")]
    assert moved == [("samz", 0.101), ("samz", pytest.approx(0.099)), ("samz", 0.1)]


def test_an_inner_scan_is_checked_with_what_the_configuration_gives_it(stack):
    scan = InnerScan(stack, "rocking_scan", {"rock_num": 3, "rock_range": 0.1}, "layer_scan")
    assert scan.parameters().exposure_s == 0.3 and scan.parameters(exposure_s=0.5).exposure_s == 0.5
    with pytest.raises(ParameterError, match="rocking_scan: exposure_s"):
        scan.parameters(exposure_s=-1.0)
    with pytest.raises(ParameterError, match="layer_scan: plan 'mosaicity_scan' is not available .* has rocking_scan"):
        InnerScan(stack, "mosaicity_scan", {}, "layer_scan")


def test_a_run_that_fails_is_not_counted_and_its_error_goes_on(stack, run_engine, documents):
    stack.axes["phi"].fail_at = 4
    scan = InnerScan(stack, "rocking_scan", CURVE, "mine")
    parameters = RockingParameters.check({})
    series = RunSeries("mine", parameters, of=3, axis="run", units="", md={})

    def three():
        for number in range(3):
            yield from series.run(scan, number)

    with pytest.raises(Exception, match="fault|FailedStatus|success=False"):
        run_engine(three())
    assert len(series.results) == 1
    assert [stop["exit_status"] for stop in documents.named("stop")] == ["success", "fail"]


def test_nothing_moves_when_a_turn_is_out_of_reach(stack, run_engine, log):
    with pytest.raises(LimitError, match="topotomography_scan: axis omega: -180 is outside"):
        run_engine(topotomography_scan(stack, rock_range=0.1, rock_num=5))
    assert log == []


def test_parameters_of_a_series_come_as_text_and_as_a_mapping():
    text = LayerParameters.check({"scan": "rocking_scan", "scan_parameters": "{rock_num: 5, rock_range: 0.1}"})
    assert text.scan_parameters == {"rock_num": 5, "rock_range": 0.1}
    assert text == LayerParameters.check({"scan": "rocking_scan", "scan_parameters": text.scan_parameters})
    for name, model in PLAN_PARAMETERS.items():
        if issubclass(model, SeriesParameters):
            with pytest.raises(ParameterError, match="cannot be run in a series"):
                LayerParameters.check({"scan": name})


def test_a_queue_is_told_what_a_series_takes():
    described = queue_annotation(layer_scan)["parameters"]
    assert described["scan_parameters"]["annotation"] == "dict"
    assert (described["layers"]["min"], described["layers"]["max"]) == (2, 10_000)
    assert described["step_um"]["description"].endswith("[um].")
    assert queue_annotation(topotomography_scan)["parameters"]["omega_num"]["min"] == 4
