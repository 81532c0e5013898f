"""Weak-beam imaging: its parameters, and the messages of a plan whose frames nobody takes."""

import itertools

import pytest
from bluesky.simulators import RunEngineSimulator

from dfxrm_control.errors import LimitError, ParameterError
from dfxrm_control.parameters import PLAN_PARAMETERS, WeakBeamParameters
from plans import WeakBeamWarning, queue_annotation, weak_beam_scan

# the stand-ins have no objective's position, so the rock's step must be given, and nothing is predicted
ROCK = {"rock_range": 0.2, "rock_step": 0.0025, "exposure_s": 0.1}


def follow(plan):
    """Return the messages of a plan that reads its devices; nothing subscribes, and nothing is exposed."""
    simulator = RunEngineSimulator()
    simulator.add_handler("read", lambda message: message.obj.read())
    return simulator.simulate_plan(plan)


@pytest.mark.parametrize("given", ["2,3,4.5", "2 3 4.5", [2, 3, 4.5], ["2", "3", "4.5"]])
def test_offsets_are_a_number_or_a_list_as_a_command_line_or_a_queue_gives_them(given):
    p = WeakBeamParameters.check({"k": given})
    assert p.k == [2.0, 3.0, 4.5]
    assert p.signed_k() == [-4.5, -3.0, -2.0, 2.0, 3.0, 4.5]
    assert WeakBeamParameters.check({"k": 2, "flanks": "plus"}).signed_k() == [2.0]
    assert WeakBeamParameters.check({"k": [4, 2], "flanks": "minus"}).signed_k() == [-4.0, -2.0]
    assert WeakBeamParameters().k == [3.0] and WeakBeamParameters().signed_k() == [-3.0, 3.0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"k": []}, "k"),
        ({"k": [0]}, "greater than 0"),
        ({"k": "2,x"}, "k"),
        ({"k": [3, 3]}, "twice"),
        ({"two_theta_offsets": [0.0, 0.0]}, "twice"),
        ({"flanks": "left"}, "flanks"),
        ({"frames": 0}, "frames"),
        ({"weak_exposure_s": -1}, "weak_exposure_s"),
        ({"rock_range": 0.1, "rock_step": 0.2}, "rock_step"),
        ({"offsets": [1]}, "no parameter"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(given, words):
    with pytest.raises(ParameterError, match=words) as caught:
        WeakBeamParameters.check(given)
    assert "\n" not in str(caught.value)


def test_a_queue_can_check_it():
    assert PLAN_PARAMETERS["weak_beam_scan"] is WeakBeamParameters
    parameters = queue_annotation(weak_beam_scan)["parameters"]
    assert parameters["k"]["annotation"] == "list" and parameters["k"]["max"] == 20
    assert "both" in parameters["flanks"]["annotation"]
    assert parameters["frames"]["min"] == 1


def test_without_a_prediction_the_step_must_be_given(instrument):
    with pytest.raises(ParameterError, match="rock_step"):
        follow(weak_beam_scan(instrument))
    assert not instrument.axes["phi"].visited


def test_what_the_camera_or_the_axes_cannot_do_is_refused_before_anything_moves(instrument):
    instrument.axes["energy"] = type(instrument.axes["phi"])("energy")
    for given, words in (
        ({"weak_exposure_s": 100.0}, "several frames"),
        ({"camera": "other"}, "camera"),
        ({"rock": "psi"}, "psi"),
        ({"rock": "energy"}, "ccmth"),
        ({"two_theta_offsets": [-0.1, 0.1]}, "two_theta"),
    ):
        with pytest.raises(ParameterError, match=words):
            follow(weak_beam_scan(instrument, **{**ROCK, **given}))


@pytest.fixture
def predicted(monkeypatch):
    """Give the stand-ins a width, as the microscope has one where everything stands."""

    def predict(instrument, camera, name):
        yield from ()
        return None, 0.024, ""

    monkeypatch.setattr("plans._weak_beam._predict", predict)


def walk(instrument, **given):
    with pytest.warns(WeakBeamWarning, match="without frames"):
        return follow(weak_beam_scan(instrument, **{**ROCK, **given}))


def test_messages_of_a_dry_run(instrument, predicted):
    messages = walk(instrument, k=[2, 3], frames=4, weak_darks=7, darks_before=3)
    runs = [m for m in messages if m.command == "open_run"]
    assert len(runs) == 5
    series = [run.kwargs["dfxrm"]["series"] for run in runs]
    assert {each["uid"] for each in series} == {series[0]["uid"]}
    assert [each["kind"] for each in series] == ["weak_beam"] * 5
    assert [each["index"] for each in series] == list(range(5)) and {each["of"] for each in series} == {5}
    assert [each["role"] for each in series] == ["rock", *["exposure"] * 4]
    assert [each.get("k") for each in series] == [None, -3.0, -2.0, 2.0, 3.0]
    # k half widths from the middle of the window, which is at 0.5 deg
    assert [each["value"] for each in series[1:]] == pytest.approx([-0.036, -0.024, 0.024, 0.036])
    assert [run.kwargs["dfxrm"]["exposure_s"] for run in runs] == [0.1, *[1.0] * 4]
    assert [run.kwargs["dfxrm"]["darks"]["before"] for run in runs] == [3, 7, 0, 0, 0]
    assert [run.kwargs["num_points"] for run in runs[1:]] == [4] * 4
    assert runs[1].kwargs["dfxrm"]["title"] == "fscan diffry 0.464 0 4 1 1"
    # only the rock is for the maps of single runs
    assert [run.kwargs["dfxrm"].get("maps", True) for run in runs] == [True, False, False, False, False]
    # rock, 4 points, and back
    moves = [m.args[0] for m in messages if m.command == "set" and getattr(m.obj, "name", "") == "phi"]
    assert moves[:2] == pytest.approx([0.4, 0.4025])
    after_rock = [position for position, _ in itertools.groupby(moves[81:])]
    assert after_rock == pytest.approx([0.464, 0.476, 0.524, 0.536, 0.5])


def test_the_axis_stays_where_it_is_when_asked_to(instrument, predicted):
    messages = walk(instrument, after="stay", flanks="plus")
    moves = [m.args[0] for m in messages if m.command == "set" and getattr(m.obj, "name", "") == "phi"]
    assert moves[-1] == pytest.approx(0.536)
    states = [m.args[0] for m in messages if m.command == "set" and getattr(m.obj, "name", "") == "shutter"]
    assert states[-1] == "closed"


def test_a_coarse_step_is_warned_about(instrument, predicted):
    with pytest.warns(WeakBeamWarning) as caught:
        follow(weak_beam_scan(instrument, **{**ROCK, "rock_step": 0.005}))
    assert any("more than a tenth" in str(each.message) for each in caught)


def test_an_offset_out_of_reach_is_refused_before_the_rock(instrument, predicted):
    instrument.axes["phi"].limits = (-30.0, 0.65)
    with pytest.raises(LimitError, match="weak_beam_scan: axis 'phi'"):
        follow(weak_beam_scan(instrument, k=15, **ROCK))
    assert not instrument.axes["phi"].visited
