"""A dry run tells what then happens: how long it takes, how far axes go, what meets, and from where it counts."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bluesky import plan_stubs as bps
from bluesky.utils import Msg

import dfxrm_control
from dfxrm_control.config import find_config, override
from dfxrm_control.dry_run import StartUnknownError, dry_run, last_positions, predict, try_all
from dfxrm_control.dry_run import _walk as walking
from dfxrm_control.envelopes import Envelopes
from dfxrm_control.errors import ConfigError, LimitError, ParameterError
from dfxrm_control.records import read_journal
from dfxrm_control.session import Session

# small windows are told of, and are what small tests have
pytestmark = pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")

ROCK = {"rock_num": 5, "rock_range": 0.1, "exposure_s": 0.1}
INNER = {"scan": "rocking_scan", "scan_parameters": ROCK}
MESH = {"rock_num": 7, "rock_range": 0.2, "roll_num": 5, "roll_range": 0.4}
TIMED = {
    "mosaicity_scan": {**MESH, "exposure_s": 0.2},
    "rocking_scan": {**ROCK, "exposure_s": 0.01, "darks_before": 0, "after": "stay"},
    "strain_scan": {"two_theta_num": 3, "two_theta_range": 0.02, **ROCK},
    "weak_beam_scan": {},
    "layer_scan": {"layers": 3, "step_um": 20.0, **INNER},
    "time_series": {"repeats": 3, "period_s": 20.0, **INNER},
}


def elapsed(config, plan, parameters):
    """Return how long a run takes on the clock of the twin, s, and the session's journal of the last run."""
    with Session(config, maps=False, quiet=True) as session:
        begin = session.backend.now()
        outcome = session.run(plan, parameters)
        return session.backend.now() - begin, outcome


@pytest.fixture
def turning(small):
    """Return a microscope on which a grain can be turned all round."""
    places = [f"data.{name}={getattr(small.data, name)}" for name in ("directory", "journal_directory")]
    return override(find_config("topotomography"), ["scan.darks=4", "data.minimum_free_gb=0.01", *places])


@pytest.fixture
def hot(small):
    """Return a microscope with a furnace."""
    shape = ["instrument.cameras.far_field.rows=48", "instrument.cameras.far_field.columns=64", "scan.darks=4"]
    places = [f"data.{name}={getattr(small.data, name)}" for name in ("directory", "journal_directory")]
    return override(find_config("furnace"), [*shape, "data.minimum_free_gb=0.01", *places])


# -- how long ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", TIMED)
def test_a_run_takes_as_long_as_was_said(small, plan):
    said = dry_run(small, plan, TIMED[plan])
    assert not said.problems and not said.at_most
    takes, outcome = elapsed(small, plan, TIMED[plan])
    assert said.duration_s == pytest.approx(takes, rel=0.01)
    frames = sum(len(read_journal(next(run.folder.glob("*.jsonl"))).primary) for run in outcome.runs)
    assert said.frames == frames


@pytest.mark.slow
def test_a_turn_all_round_takes_as_long_as_was_said(turning):
    said = dry_run(turning, "topotomography_scan", {})
    takes, _ = elapsed(turning, "topotomography_scan", {})
    assert said.duration_s == pytest.approx(takes, rel=0.01)


def test_heating_and_holding_take_as_long_as_was_said(hot):
    programme = {"programme": "60@20/30", **INNER}
    said = dry_run(hot, "time_series", programme)
    takes, _ = elapsed(hot, "time_series", programme)
    assert said.duration_s == pytest.approx(takes, rel=0.01) and takes > 35 / 20 * 60 + 30


def test_measured_overheads_are_added_per_frame_line_and_run(small):
    plain = dry_run(small, "mosaicity_scan", MESH)
    slow = override(small, ["dry_run.point_s=0.5", "dry_run.line_s=3", "dry_run.run_s=100"])
    # 35 frames and 4 darks; 5 lines and that of the darks; one run
    added = dry_run(slow, "mosaicity_scan", MESH).duration_s - plain.duration_s
    assert added == pytest.approx(39 * 0.5 + 6 * 3 + 100)


def test_the_dose_is_the_time_with_the_shutter_open(small):
    said = dry_run(small, "rocking_scan", {**ROCK, "exposure_s": 1.0, "darks_after": 2})
    assert said.exposed_s == pytest.approx(5.0)
    # read-outs and the moves from point to point belong to it, darks and the way back do not
    steps = 4 * (said.open_s - 5.0 - 5 * 0.01) / 4
    assert 5.05 < said.open_s < said.duration_s - 6 * 1.01 and steps > 0
    assert dry_run(small, "rocking_scan", {**ROCK, "exposure_s": 2.0}).open_s == pytest.approx(said.open_s + 5.0)


def test_what_goes_by_what_it_sees_is_told_at_most(small):
    said = dry_run(small, "center_grain", {})
    assert said.at_most
    assert any(line.startswith("time:     at most ") for line in said.lines())


# -- from where -------------------------------------------------------------------------------------------------


def test_the_report_says_from_where_it_counts(small):
    assert dry_run(small, "rocking_scan", ROCK).start_from == "the configuration"
    said = dry_run(small, "rocking_scan", ROCK, {"phi": 1.5})
    assert said.start_from == "the given positions (phi) and the configuration (all others)"
    assert said.travel["phi"].lowest == pytest.approx(1.45)
    assert said.start["phi"] == said.end["phi"] == 1.5
    assert said.start["obx"] == 327.9511


def test_a_computed_axis_may_be_given(small):
    said = dry_run(small, "rocking_scan", ROCK, {"two_theta": 10.0})
    assert said.start["obpitch"] == 10.0 and said.start_from.startswith("the given positions (two_theta)")
    with pytest.raises(ParameterError, match="'spin' is not in configuration"):
        dry_run(small, "rocking_scan", ROCK, {"spin": 1.0})


def test_the_next_plan_begins_where_the_last_one_ends(small):
    first = dry_run(small, "rocking_scan", {**ROCK, "after": "stay"})
    assert first.end["phi"] == pytest.approx(0.05)
    second = dry_run(small, "rocking_scan", {**ROCK, "after": "stay"}, first.end)
    assert second.end["phi"] == pytest.approx(0.10)


@pytest.mark.parametrize(("after", "left_at"), [("start", 0.3), ("stay", 0.35)])
def test_axes_that_stay_are_looked_up_in_the_last_journal(small, after, left_at):
    with Session(small, maps=False, quiet=True) as session:
        session.move([(session.axes["phi"], 0.3), (session.axes["samy"], 1.25)])
        session.run("rocking_scan", {**ROCK, "after": after})
    kept = last_positions(small)
    assert kept.scan_id == 1
    assert kept.positions["phi"] == pytest.approx(left_at) and kept.positions["samy"] == 1.25
    # this twin begins anew with each session
    assert dry_run(small, "rocking_scan", ROCK).start["phi"] == 0.0
    forced = dry_run(small, "rocking_scan", ROCK, source="journal")
    assert forced.start["phi"] == pytest.approx(left_at)
    assert forced.start_from.startswith("the journal of scan 1, 20")
    # what is on a control system stays where it is, whoever goes home
    stays = override(small, ["devices.goniometer.axes.phi.control=epics", "devices.goniometer.axes.phi.address=X:phi"])
    said = dry_run(stays, "rocking_scan", ROCK, {"chi": 0.1})
    assert said.start["phi"] == pytest.approx(left_at) and said.start["samy"] == 0.0
    assert "(chi)" in said.start_from and "the journal of scan 1" in said.start_from
    assert dry_run(stays, "rocking_scan", ROCK, source="configuration").start["phi"] == 0.0


def test_a_journal_of_another_microscope_tells_nothing(small):
    with Session(small, maps=False, quiet=True) as session:
        session.run("rocking_scan", ROCK)
    assert last_positions(override(small, ["name=other"])) is None
    with pytest.raises(StartUnknownError, match="no journal in .* tells where the axes of 'other' are"):
        dry_run(override(small, ["name=other"]), "rocking_scan", ROCK, source="journal")


def test_an_axis_that_nobody_knows_where_it_is_refuses_the_dry_run(small):
    # one that moves as well as one that is only recorded
    lost = override(small, ["devices.near_field.axes.nfx.start=null"])
    with pytest.raises(StartUnknownError, match=r"axis 'nfx' has no start position: it is not given \(--at nfx=...\)"):
        dry_run(lost, "rocking_scan", ROCK)
    assert not dry_run(lost, "rocking_scan", ROCK, {"nfx": 0.0}).problems
    lost = override(small, ["devices.goniometer.axes.phi.start=null"])
    with pytest.raises(StartUnknownError, match=r"axis 'phi' has no start position: it is not given \(--at phi=...\)"):
        dry_run(lost, "rocking_scan", ROCK)
    assert not dry_run(lost, "rocking_scan", ROCK, {"phi": 0.0}).problems


# -- what forbids it --------------------------------------------------------------------------------------------


def test_bodies_that_would_meet_are_a_problem_named_with_their_distance(small):
    scan = {"two_theta_range": 0.2, "two_theta_num": 3}
    below = {"nfx": 290.0, "nfy": 0.0, "nfz": 0.0}
    assert not dry_run(small, "two_theta_scan", scan, below).problems
    bodies, start = Envelopes.from_config(small), dry_run(small, "rocking_scan", ROCK, below).start
    # a quarter of a millimetre more than must be: the arm comes lower by half a millimetre
    start["nfz"] += (bodies.distance_mm("objective", "near_field", start) - 2.25) / math.cos(math.radians(17.94635))
    assert bodies.distance_mm("objective", "near_field", start) == pytest.approx(2.25, abs=0.1)
    said = dry_run(small, "two_theta_scan", scan, start)
    (problem,) = said.problems
    assert "objective and near_field would come within" in problem and "must stay 2 mm apart" in problem
    assert problem.startswith("axis two_theta cannot go to ")
    assert said.lines()[-1] == "the plan cannot run"


def test_bodies_that_are_too_close_before_anything_moves_are_a_problem(small):
    (problem,) = dry_run(small, "rocking_scan", ROCK, {"nfx": 290.0, "nfy": 0.0, "nfz": 60.0}).problems
    assert problem == "at the start objective and near_field are within 0 mm of each other, and must stay 2 mm apart"


def followed(config, monkeypatch, plan):
    """Return the dry run of a plan that is in no file."""
    import dfxrm_control.dry_run._run as running

    bind = running.bind_plans

    def with_plan(offline, built):
        instrument, plans = bind(offline, built)
        return instrument, {**plans, "rocking_scan": lambda **_: plan(instrument)}

    monkeypatch.setattr(running, "bind_plans", with_plan)
    return dry_run(config, "rocking_scan", {})


def test_a_fast_crossing_is_not_missed(small, monkeypatch):
    """The camera is driven through the place of the objective: neither end is anywhere near it."""

    def plan(instrument):
        yield from bps.mv(instrument.axes["nfz"], 100.0, instrument.axes["nfx"], 290.0)
        yield from bps.mv(instrument.axes["nfy"], -90.0)

    (problem,) = followed(small, monkeypatch, plan).problems
    assert problem.startswith("axis nfy cannot go to -90 mm: objective and near_field would come within 0 mm")


def test_what_moves_together_counts_as_anywhere_on_its_way(small, monkeypatch):
    def apart(instrument):
        axes = instrument.axes
        yield from bps.mv(axes["nfx"], 290.0)
        yield from bps.mv(axes["nfy"], -90.0)
        yield from bps.mv(axes["nfz"], 150.0)

    def together(instrument):
        axes = instrument.axes
        yield from bps.mv(axes["nfx"], 290.0)
        yield from bps.mv(axes["nfy"], -90.0, axes["nfz"], 150.0)

    assert not followed(small, monkeypatch, apart).problems
    assert "objective and near_field" in followed(small, monkeypatch, together).problems[0]


def test_relative_moves_are_followed_to_the_limit(small, monkeypatch):
    def plan(instrument):
        for _ in range(3):
            yield from bps.mvr(instrument.axes["chi"], 2.0)

    said = followed(small, monkeypatch, plan)
    assert said.problems == ["axis chi: 6 deg is outside its limits -5 .. 5 deg"]
    assert said.travel["chi"].highest == 4.0


def test_a_plan_without_end_is_refused(small, monkeypatch):
    monkeypatch.setattr(walking, "MOST_MESSAGES", 1000)

    def plan(instrument):
        while True:
            yield Msg("checkpoint")

    (problem,) = followed(small, monkeypatch, plan).problems
    assert problem == "rocking_scan has more than 1e+03 steps, which nobody can run"


def test_a_start_beyond_a_limit_is_a_problem(small):
    assert "outside its limits" in dry_run(small, "rocking_scan", ROCK, {"mu": 1000.0}).problems[0]


# -- nothing is spoken to ---------------------------------------------------------------------------------------

_ON_THE_COMMAND_LINE = """
import socket, sys

def refuse(*arguments):
    raise AssertionError(f"a dry run called connect{arguments}")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse
from dfxrm_control.cli import main
try:
    main(["dry-run", "rocking", "--json", "--rock-num", "3", "--config", sys.argv[1], "--at", "mu=9,chi=0.1"])
except SystemExit as end:
    spoken = [name for name in ("epics", "tango", "caproto", "aioca", "p4p") if name in sys.modules]
    print(spoken, file=sys.stderr)
    sys.exit(end.code)
"""


@pytest.mark.parametrize("config", ["epics", "tango", "mixed", "id03_template"])
def test_no_library_of_a_control_system_is_loaded_and_nothing_connected_to(config, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _ON_THE_COMMAND_LINE, config],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(dfxrm_control.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr
    report = json.loads(done.stdout)
    # a small disk may forbid it; nothing else does
    assert all("GB free" in problem for problem in report["problems"])
    assert report["frames"] == 3 and report["start"]["chi"] == 0.1
    assert done.stderr.splitlines()[-1] == "[]"
    assert not list(tmp_path.iterdir())


# -- every plan, and what a plan gives --------------------------------------------------------------------------


def test_every_plan_of_a_configuration_is_tried_and_a_fault_found(small):
    tried = {each.plan: each for each in try_all([small])}
    assert set(tried) == set(small.plans)
    assert tried["mosaicity_scan"].verdict == "can run" and tried["mosaicity_scan"].report.frames > 0
    assert tried["topotomography_scan"].verdict == "excused"
    assert tried["campaign"].verdict == "not tried" and "map" in tried["campaign"].reason
    assert not [each for each in tried.values() if each.verdict == "cannot run"]
    plans = {name: small.plans[name] for name in ("rocking_scan", "mosaicity_scan")}
    narrow = small.model_copy(update={"plans": plans})
    limits = "devices.goniometer.axes.phi.limits=[0, 0.01]"
    faulty = override(narrow, [limits, "dry_run.cannot={mosaicity_scan: never}"])
    verdicts = {each.plan: each.verdict for each in try_all([faulty])}
    assert verdicts == {"rocking_scan": "cannot run", "mosaicity_scan": "excused"}
    # an excuse that does not hold any more is a fault too
    stale = override(narrow, ["dry_run.cannot={rocking_scan: never}"])
    (rocking,) = [each for each in try_all([stale]) if each.plan == "rocking_scan"]
    assert rocking.verdict == "cannot run" and "says 'never', but it can run" in rocking.line()


def test_nothing_predicts_what_no_twin_stands_behind():
    with pytest.raises(ConfigError, match="'mine' has no twin"):
        predict(find_config("simulated").model_copy(update={"backend": None, "name": "mine"}), "rocking_scan", {}, None)


def test_a_twin_that_is_served_predicts(small, tmp_path):
    remote = {"backend": "simulators:RemoteTwin", "options": {"address": "x"}}
    served = small.model_copy(
        update={
            "backend": small.backend.model_copy(update=remote),
            "serve": small.serve.model_copy(update={"twin": small.backend}),
        }
    )
    files = predict(served, "rocking_scan", ROCK, tmp_path / "out", {"phi": 0.02})
    assert {file.suffix for file in files} == {".png", ".h5"} and all(file.is_file() for file in files)
    assert any(file.name == "brightest_frame.png" for file in files)


def test_a_report_is_plain_data(small):
    said = dry_run(small, "rocking_scan", ROCK)
    assert json.loads(json.dumps(said.as_dict())) == said.as_dict()
    assert replace(said, problems=["no"]).lines()[-1] == "the plan cannot run"
    assert isinstance(LimitError("x"), ValueError)
