"""Scans of 2theta and energy on the twin: where they go, what they say of themselves, what is put back, and when."""

import json
import warnings

import h5py
import numpy as np
import pytest

from dfxrm_control.config import find_config, override
from dfxrm_control.dry_run import dry_run
from dfxrm_control.errors import DfxrmError, LimitError, ParameterError
from dfxrm_control.session import Session

SMALL = [
    "instrument.cameras.far_field.rows=24",
    "instrument.cameras.far_field.columns=32",
    "backend.options.sample=perfect_crystal",
    "scan.darks=4",
    "data.minimum_free_gb=0.01",
    "sample.spread_deg=0.02",
]


@pytest.fixture
def config(tmp_path):
    places = [f"data.directory={tmp_path / 'data'}", f"data.journal_directory={tmp_path / 'journal'}"]
    return override(find_config("simulated"), [*SMALL, *places])


@pytest.fixture
def session(config):
    with Session(config, maps=False, quiet=True) as opened:
        yield opened


def start_document(outcome):
    with h5py.File(outcome.master) as file:
        return json.loads(file["1.1/instrument/dfxm_control/start_document_json"][()])


SCANS = [
    ("strain_scan", {}, ["two_theta", "phi"], "fscan2d obpitch"),
    ("strain_scan", {"axis": "ccmth", "rock": "mu"}, ["ccmth", "mu"], "fscan2d ccmth"),
    ("mosaicity_strain_scan", {"two_theta_num": 3, "roll_num": 3}, ["two_theta", "chi", "phi"], "fscan3d obpitch"),
    ("two_theta_scan", {}, ["two_theta"], "fscan obpitch"),
    ("energy_scan", {}, ["ccmth"], "fscan ccmth"),
]


@pytest.mark.parametrize(("plan", "given", "axes", "title"), SCANS)
@pytest.mark.filterwarnings("ignore:.*is larger than the instrument's FWHM")
def test_each_scan_runs_in_its_default_window_in_the_time_foretold(config, session, plan, given, axes, title):
    given = {**given, "exposure_s": 0.2}
    before = session.backend.axes()
    foretold = dry_run(config, plan, given)
    assert not foretold.problems and set(axes) <= set(foretold.travel)
    begin = session.backend.now()
    outcome = session.run(plan, given)
    assert foretold.duration_s == pytest.approx(session.backend.now() - begin, rel=0.1)
    start = start_document(outcome)
    assert [axis["name"] for axis in start["dfxrm"]["scan_axes"]] == axes == start["motors"]
    assert start["dfxrm"]["title"].startswith(title + " ")
    assert start["num_points"] == foretold.frames
    with h5py.File(outcome.master) as file:
        written, planned = file["1.1/title"][()].decode().split(), start["dfxrm"]["title"].split()
        assert [word for word in written if word.isalpha()] == [word for word in planned if word.isalpha()]
        numbers = [[float(word) for word in words[1:] if not word[0].isalpha()] for words in (written, planned)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-8)
        assert file["1.1/instrument/far_field/data"].shape[0] == foretold.frames
    assert ("contrast" in start["dfxrm"]) is (len(axes) == 1)
    after = session.backend.axes()
    assert after == {name: pytest.approx(position, abs=1e-9) for name, position in before.items()}


@pytest.mark.parametrize(("plan", "slope"), [("two_theta_scan", 0.5), ("energy_scan", 1.0)])
def test_a_scan_along_one_axis_says_that_it_is_no_strain(session, plan, slope):
    outcome = session.run(plan, {"exposure_s": 0.1, "darks_before": 0})
    said = start_document(outcome)["dfxrm"]["contrast"]
    assert said["label"] == "relative contrast"
    assert said["strain_slope"] == pytest.approx(slope, abs=0.01) and abs(said["strain_per_rad_tilt"]) > 0.5
    with h5py.File(outcome.master) as file:
        assert file["1.1/experiment_description"][()].startswith(b"relative contrast, not strain")
        written = file["1.1/instrument/dfxm_control/contrast"]
        assert written["strain_slope"][()] == said["strain_slope"]


def test_scans_at_fixed_two_theta_say_what_they_take_from_strain(session):
    view = session.backend.view("far_field")
    for plan in ("mosaicity_scan", "rocking_scan"):
        outcome = session.run(plan, {"exposure_s": 0.1, "darks_before": 0})
        said = start_document(outcome)["dfxrm"]["coupling"]["tilt_rad_per_strain"]
        strained = view.resolution.peak_rad(view.jacobian(["phi"]), (0.0, 0.0, -1.0))[0]
        assert said == pytest.approx(-strained) and 0.01 < abs(said) < 0.08


def crystal(config, strain, tilt_deg):
    options = f"backend.options.sample_options={{strain: {strain}, tilt_deg: [0.0, {tilt_deg}, 0.0]}}"
    return override(config, [options, "backend.options.photons_per_s=1.0e+5", "sample.spread_strain=5.0e-4"])


@pytest.mark.parametrize(("given", "axis"), [({}, "two_theta"), ({"axis": "ccmth"}, "ccmth")])
def test_the_mesh_tells_strain_from_tilt_and_one_axis_does_not(config, given, axis):
    """The centre of mass of the whole image: a strain of 4e-4, with and without a tilt of 0.02 deg."""
    theta = np.radians(17.94635 / 2)
    per_rad = -1 / (2 * np.tan(theta)) if axis == "two_theta" else 1 / np.tan(np.radians(6.679671))
    alone = "two_theta_scan" if axis == "two_theta" else "energy_scan"
    found = {}
    for strain, tilt_deg in ((0.0, 0.0), (4e-4, 0.0), (4e-4, 0.02)):
        with Session(crystal(config, strain, tilt_deg), maps=False, quiet=True) as session:
            for plan, values in (("strain_scan", given), (alone, {})):
                outcome = session.run(plan, {**values, "exposure_s": 0.2, "darks_before": 20})
                with h5py.File(outcome.master) as file:
                    written = "obpitch" if axis == "two_theta" else axis
                    frames = file["1.1/instrument/far_field/data"][()].astype(float)
                    signal = frames.sum((1, 2)) - file["2.1/instrument/far_field/data"][()].mean(0).sum()
                    at = np.radians(file[f"1.1/instrument/{written}/value"][()])
                found[plan, strain, tilt_deg] = per_rad * (signal * at).sum() / signal.sum()
    for plan, slope in (("strain_scan", 1.0), (alone, start_slope(axis))):
        difference = found[plan, 4e-4, 0.0] - found[plan, 0.0, 0.0]
        assert difference == pytest.approx(slope * 4e-4, abs=1.2e-5), plan
    false = {plan: abs(found[plan, 4e-4, 0.02] - found[plan, 4e-4, 0.0]) for plan in ("strain_scan", alone)}
    assert false["strain_scan"] < 1.2e-5
    assert false[alone] > 2e-4


def start_slope(axis):
    return 0.5 if axis == "two_theta" else 1.0


@pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")
def test_all_axes_behind_two_theta_are_checked_before_the_first_move(session):
    before = session.backend.axes()
    # 19.5 deg is well within the reach of the pitch, but the camera would stand above its limit
    with pytest.raises(LimitError, match=r"two_theta cannot go to 19\.5\d* deg: axis ffz: .* outside its limits"):
        session.run("strain_scan", {"relative": False, "two_theta_center": 19.0, "two_theta_range": 1.0,
                                    "two_theta_step": 0.5, "rock_range": 0.1, "rock_num": 5})  # fmt: skip
    assert session.backend.axes() == before


@pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")
def test_axes_behind_two_theta_go_back_to_where_each_of_them_stood(session):
    session.move([(session.axes["obpitch"], 17.95), (session.axes["ffz"], 1842.5)])
    before = session.backend.axes()
    session.run("two_theta_scan", {"exposure_s": 0.1, "darks_before": 0, "two_theta_range": 0.1, "two_theta_num": 3})
    assert session.backend.axes() == before
    session.run("two_theta_scan", {"exposure_s": 0.1, "darks_before": 0, "two_theta_range": 0.1, "two_theta_num": 3,
                                   "after": "stay"})  # fmt: skip
    after = session.backend.axes()
    assert after["obpitch"] == pytest.approx(17.94635 + 0.05, abs=1e-4) and after["ffz"] > before["ffz"] + 1


ENERGY = [("strain_scan", {"axis": "ccmth"}), ("energy_scan", {})]


@pytest.mark.parametrize(("plan", "given"), ENERGY)
def test_the_objective_follows_the_focus_where_the_energy_is_scanned(config, session, plan, given):
    given = {**given, "exposure_s": 0.1, "darks_before": 0}
    travel = dry_run(config, plan, given).travel
    assert {"obx", "obz"} <= set(travel) and not {"mainx", "ffz", "obpitch"} & set(travel)
    before = session.backend.view("far_field")
    start = start_document(outcome := session.run(plan, given))
    planned = start["dfxrm"]["followers"]["ccmth"]
    number = start["dfxrm"]["scan_axes"][0]["num"]
    assert travel["obx"].moves == number + 1
    at = session.backend.axes()
    with h5py.File(outcome.master) as file:
        record = file["1.1/instrument/dfxm_control"]
        ccmth = record["readbacks/ccmth"][()]
        for axis in ("obx", "obz"):
            read = record[f"readbacks/{axis}"][()]
            assert record[f"readbacks/{axis}"].attrs["units"] == "mm"
            assert np.unique(np.round(read, 9)) == pytest.approx(sorted(planned[axis]), abs=1e-9)
            assert [read.min(), read.max()] == pytest.approx([travel[axis].lowest, travel[axis].highest])
            # readers that take every positioner for a scanned one see none but those
            assert file[f"1.1/instrument/positioners/{axis}"].shape == ()
        place = np.hypot(record["readbacks/obx"][()], record["readbacks/obz"][()])
        slope = np.polyfit(ccmth, place, 1)[0]
        # E goes as 1/sin ccmth, f as E^2, and the sharp plane before the centre of the lens nearly as f
        per_deg = -2.0 * before.centre_mm / np.tan(np.radians(6.679671)) * np.radians(1.0)
        assert slope == pytest.approx(per_deg, rel=0.05)
    assert at["obx"] == pytest.approx(327.9511, abs=1e-9)


def test_it_stays_where_it_is_told_to(config, session):
    given = {"axis": "ccmth", "follow_focus": False, "exposure_s": 0.1, "darks_before": 0}
    assert not {"obx", "obz"} & set(dry_run(config, "strain_scan", given).travel)
    outcome = session.run("strain_scan", given)
    assert "followers" not in start_document(outcome)["dfxrm"]
    with h5py.File(outcome.master) as file:
        assert set(file["1.1/instrument/dfxm_control/readbacks"]) == {"ccmth", "phi"}


def test_a_focus_out_of_reach_is_refused_before_anything_moves(config):
    tight = override(config, ["devices.objective.axes.obx.limits=[327.0, 329.0]"])
    (problem,) = dry_run(tight, "strain_scan", {"axis": "ccmth"}).problems
    assert problem.startswith("axis obx: ") and problem.endswith(
        "where it is to follow ccmth; follow_focus=False leaves it where it is"
    )
    with Session(tight, maps=False, quiet=True) as session:
        before = session.backend.axes()
        with pytest.raises(LimitError, match="axis obx: .* where it is to follow ccmth"):
            session.run("strain_scan", {"axis": "ccmth"})
        assert session.backend.axes() == before


@pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")
def test_in_a_mesh_of_three_axes_the_arm_moves_once_a_plane(config):
    small = {"two_theta_num": 3, "roll_num": 4, "rock_num": 5, "exposure_s": 0.1}
    travel = dry_run(config, "mosaicity_strain_scan", small).travel
    # three planes and, of the parts of the arm, the way back
    assert travel["two_theta"].moves == 3 and travel["obz"].moves == 4
    # chi runs back and forth without a jump: 4 positions, then 3 new ones in each plane, and the way back
    assert travel["chi"].moves == 4 + 3 + 3 + 1


REFUSED = [
    ("strain_scan", {"rock": "chi"}, "axis 'chi' does not rock the crystal at this setting"),
    ("strain_scan", {"rock": "two_theta"}, "rock and axis are both 'two_theta'"),
    ("strain_scan", {"ccmth_range": 0.1}, "ccmth_range is given, but axis is 'two_theta'"),
    ("strain_scan", {"axis": "energy"}, "axis: Input should be 'two_theta' or 'ccmth'"),
    ("strain_scan", {"rock": "ccmth"}, "rock: axis 'ccmth' does not only tilt the lattice"),
    ("mosaicity_scan", {"rock": "two_theta"}, "rock: axis 'two_theta' does not only tilt the lattice"),
    ("mosaicity_strain_scan", {"roll": "two_theta"}, "'two_theta' is the third axis of the mesh already"),
    ("mosaicity_strain_scan", {"roll": "mu"}, "axes two_theta and mu and phi move the diffraction vector the same way"),
    ("two_theta_scan", {"rock_range": 0.1}, "there is no parameter 'rock_range'"),
    ("strain_scan", {"two_theta_step": 0.1, "two_theta_num": 3}, "two_theta_step and two_theta_num are both given"),
]


@pytest.mark.parametrize(("plan", "given", "sentence"), REFUSED)
def test_what_measures_no_strain_is_refused_in_one_sentence(config, plan, given, sentence):
    try:
        (said,) = dry_run(config, plan, given).problems
    except ParameterError as error:
        said = str(error)
    assert sentence in said and "\n" not in said


def test_at_omega_90_chi_rocks_and_is_taken(config):
    turned = override(config, ["devices.goniometer.axes.omega.limits=[-100.0, 100.0]"])
    report = dry_run(turned, "strain_scan", {"rock": "chi"}, start={"omega": 90.0})
    assert not report.problems and "chi" in report.travel
    (problem,) = dry_run(turned, "strain_scan", {}, start={"omega": 90.0}).problems
    assert "axis 'phi' does not rock the crystal" in problem


def test_a_window_of_two_theta_that_clips_is_warned_about(config):
    report = dry_run(config, "strain_scan", {"two_theta_range": 0.06})
    (said,) = report.warnings
    assert said.startswith("two_theta: the window of +/-0.0") and "slope 0." in said and "\n" not in said


def test_without_an_objective_windows_are_asked_for(session):
    session.channels["objective_in"].set("out").wait(10)
    with pytest.raises(DfxrmError, match="the range of 'two_theta' cannot be worked out at this setting"):
        session.run("two_theta_scan", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = session.run("two_theta_scan", {"two_theta_range": 0.1, "two_theta_num": 3, "exposure_s": 0.1})
    start = start_document(outcome)
    assert "contrast" not in start["dfxrm"] and "no objective" in start["dfxrm"]["warnings"][0]
