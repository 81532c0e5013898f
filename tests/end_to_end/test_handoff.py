"""From a coarse map to scans of its grains on the twin, whose sample is mounted a little off, as nobody is told."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parents[1] / "grains"))

from grain_maps import AL, real_map

from dfxrm_control.dry_run import dry_run
from dfxrm_control.errors import FileFormatError, LimitError, ParameterError, RunError
from dfxrm_control.geometry import goniometer_rotation, imaging_basis
from dfxrm_control.grains import GrainMap, Voxels, read_grain_map, write_labdct
from dfxrm_control.handoff import FoundGrain, Registration, RegistrationStore, choose, residuals_of
from dfxrm_control.reduction.series import read_series, reduce_series
from plans import HandoffWarning

ROTATION_DEG, SHIFT_UM = (0.3, -0.25, 0.31), (20.0, -16.0, 15.0)  # 0.5 deg and 30 um
TRUTH = Registration(ROTATION_DEG, tuple(1e-3 * value for value in SHIFT_UM))
TILTS = [(-3.0, -2.5), (-1.0, -3.2), (1.2, -2.0), (3.1, -2.8), (-3.2, 2.0), (-0.8, 0.1), (1.2, 2.5), (3.2, 0.6)]
"""About x and y, deg: no two grains stand within the search of one another."""
SCAN = {
    "scan": "rocking_scan",
    "scan_parameters": {"rock_num": 5, "rock_range": 0.05, "exposure_s": 0.1, "darks_before": 2},
}
AXES = ("mu", "omega", "chi", "phi", "samx", "samy", "samz", "mainx", "obx", "obz", "obpitch", "ffz")

pytestmark = [
    pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning"),
    pytest.mark.filterwarnings("ignore::plans.HandoffWarning"),
]


def polycrystal() -> GrainMap:
    """Eight boxes of 25 x 20 x 20 um and a little void, each turned by some degrees from the cube."""
    ids = np.zeros((13, 11, 11), np.int64)
    number = 0
    for x in (slice(1, 6), slice(7, 12)):
        for y in (slice(1, 5), slice(6, 10)):
            for z in (slice(1, 5), slice(6, 10)):
                number += 1
                ids[x, y, z] = 10 * number
    size = np.full(3, 5e-3)
    voxels = Voxels(ids, size, np.zeros(3))
    numbers = np.unique(ids[ids > 0])
    index = [np.argwhere(ids == n) for n in numbers]
    turns = Rotation.from_rotvec([[x, y, 11.0 * k] for k, (x, y) in enumerate(TILTS)], degrees=True).as_matrix()
    return GrainMap(
        numbers,
        turns @ AL.B,
        np.array([voxels.place_mm(i.mean(axis=0)) for i in index]),
        np.array([(np.ptp(i, axis=0) + 1) * size for i in index]),
        np.array([len(i) * size.prod() for i in index]),
        np.zeros(len(numbers), np.int64),
        (AL,),
        ("aluminium",),
        voxels,
        "made for a test",
    )


def changed(grains: GrainMap, **parts) -> GrainMap:
    return GrainMap(**{**{name: getattr(grains, name) for name in GrainMap.__dataclass_fields__}, **parts})


def written(grains: GrainMap, path: Path) -> Path:
    with h5py.File(path, "w") as file:
        write_labdct(grains, file)
    return path


@pytest.fixture
def map_file(tmp_path):
    return written(polycrystal(), tmp_path / "map.h5")


@pytest.fixture
def microscope(open_session):
    """Return a function that opens a session with the mounted polycrystal of a map, and a quick camera."""

    def start(path: Path, *settings: str):
        camera = {"rows": 128, "columns": 128, "pixel_um": 26.0}
        quick = [f"instrument.cameras.far_field.{name}={value}" for name, value in camera.items()]
        options = f"{{map: {path}, rotation_deg: {list(ROTATION_DEG)}, shift_um: {list(SHIFT_UM)}}}"
        sample = ["backend.options.sample=polycrystal", f"backend.options.sample_options={options}"]
        return open_session(*quick, *sample, *settings)

    return start


def report_of(outcome) -> dict:
    products = reduce_series(read_series(outcome.folder))
    assert [path.suffix for path in products] == [".txt", ".json", ".h5"]
    report = json.loads(products[1].read_text())
    lines = products[0].read_text().splitlines()
    assert all(line.startswith(f"grain {each['grain']} (") for line, each in zip(lines, report["grains"], strict=False))
    with h5py.File(products[2]) as file:
        table = file["entry/grains"]
        assert table["grain"][()].tolist() == [each["grain"] for each in report["grains"]]
        assert table["found_phi"].attrs["units"] == "deg"
    return report


def check_against_truth(grains: GrainMap, report: dict, count: int, stage: str = "above") -> None:
    """Every grain is where the hidden mounting put it, to 2 um and 5 mdeg, and was scanned."""
    scanned = [each for each in report["grains"] if each["status"] == "scanned"]
    assert len(scanned) == count
    for each in scanned:
        found = FoundGrain(each["grain"], tuple(each["hkl"]), each["found"])
        off = residuals_of(grains, TRUTH, found, stage=stage)
        assert max(abs(off.rock_deg), abs(off.roll_deg)) < 5e-3, each
        assert off.distance_um < 2.0, each
        assert len(each["scans"]) == 4


def check_registration(report: dict) -> None:
    fit = report["registration"]
    assert fit["doubt"] == ""
    turn = Rotation.from_rotvec(fit["rotation_deg"], degrees=True)
    if fit["omega_offset_known"]:
        turn = Rotation.from_euler("z", fit["omega_offset_deg"], degrees=True) * turn
    away = turn * Rotation.from_rotvec(ROTATION_DEG, degrees=True).inv()
    assert math.degrees(away.magnitude()) < 0.02
    assert 1e3 * np.linalg.norm(np.array(fit["shift_mm"]) - TRUTH.shift_mm) < 3.0


@pytest.mark.slow
def test_five_grains_of_a_real_map_are_found_scanned_and_registered(microscope):
    path = real_map()
    session = microscope(path)
    before = [session.axes[axis].position for axis in AXES]
    outcome = session.run("campaign", {"map": str(path), "n": 5, "camera_objective": "2x", **SCAN})
    assert outcome.status == "success"
    report = report_of(outcome)
    grains = read_grain_map(path)
    check_against_truth(grains, report, 5)
    check_registration(report)
    skipped = {each["grain"]: each["reason"] for each in report["grains"] if each["status"] == "skipped"}
    assert any("larger than the field" in reason and "tiles" in reason for reason in skipped.values())
    assert any("diffracts nearby" in reason for reason in skipped.values())
    assert any("touches the border of the map" in reason for reason in skipped.values())
    # the first three were predicted by the map as it is, the last ones by the registration
    left = [each["residuals"] for each in report["grains"] if each["status"] == "scanned"]
    assert max(abs(left[0]["rock_deg"]), abs(left[0]["roll_deg"])) > 0.1
    assert max(abs(left[-1]["rock_deg"]), abs(left[-1]["roll_deg"])) < 0.01
    np.testing.assert_allclose([session.axes[axis].position for axis in AXES], before, atol=2e-3)
    assert session.channels["far_field_camera_objective"].get() in ("10x", "2x")
    assert session.channels["condenser"].get() == "line" and session.channels["shutter"].get() == "closed"


@pytest.mark.slow
def test_a_stage_below_the_rotations_brings_the_grain_in_as_well(microscope, map_file):
    session = microscope(map_file, "instrument.sample_stage=below")
    outcome = session.run("dct_to_dfxrm", {"map": str(map_file), "grain": 60, "hkl": "0 0 2", **SCAN})
    check_against_truth(read_grain_map(map_file), report_of(outcome), 1, "below")


@pytest.mark.slow
def test_grains_are_found_registered_and_the_next_one_is_predicted(microscope, map_file, capsys):
    from dfxrm_control.cli._register import register

    session = microscope(map_file)
    outcome = session.run("campaign", {"map": str(map_file), "n": 3, "hkl": "0 0 2", **SCAN})
    report = report_of(outcome)
    grains = read_grain_map(map_file)
    check_against_truth(grains, report, 3)
    check_registration(report)

    # the campaign has stored it by itself, and says so in its last run and in the report
    options = ["--data", str(session.config.data.directory)]
    store = RegistrationStore.of(session.config)
    kept = store.for_map(grains)
    assert kept is not None and len(store.history()[0]) == 1
    np.testing.assert_allclose(kept.rotation_deg, report["registration"]["rotation_deg"], atol=1e-4)
    end = read_series(outcome.folder).runs[-1].series
    assert end["step"] == "end" and end["stored"] == report["stored"] == str(store.path)
    np.testing.assert_allclose(end["registration"]["rotation_deg"], kept.rotation_deg)
    done = {each["grain"] for each in report["grains"]}
    next_one = next(int(grain) for grain in grains.grain_id if grain not in done)
    moves = []

    def note(message):
        if message.command == "set":
            moves.append((message.obj.name, message.args[0]))

    session.RE.msg_hook = note
    outcome = session.run("dct_to_dfxrm", {"map": str(map_file), "grain": next_one, "hkl": "0 0 2", **SCAN})
    (visit,) = report_of(outcome)["grains"]
    assert visit["grain"] == next_one and visit["status"] == "scanned"
    assert max(abs(visit["residuals"]["rock_deg"]), abs(visit["residuals"]["roll_deg"])) < 0.02
    assert np.linalg.norm(visit["residuals"]["place_um"]) < 3.0
    # sample down, arm, goniometer, sample in
    names = [name for name, _ in moves]
    assert names[0] == "samz" and moves[0][1] < -0.9
    first = [names.index(name) for name in ("samz", "two_theta", "mu", "samx")]
    assert first == sorted(first)
    # the runs say which crystal and reflection they are of
    start = read_series(outcome.folder).runs[-1].start
    assert start["dfxrm"]["sample"]["hkl"] == [0, 0, 2]
    assert start["dfxrm"]["series"]["found"]["positions"]["phi"] == visit["found"]["phi"]
    # the microscope stays at the grain, and the whole can be undone
    assert session.axes["phi"].position == pytest.approx(visit["found"]["phi"], abs=1e-3)
    register.main(["--undo", *options], standalone_mode=False)
    assert store.for_map(grains) is None and len(store.history()[0]) == 1
    assert "none of these holds" in capsys.readouterr().out


@pytest.mark.slow
def test_mixed_up_axes_are_noticed(microscope, map_file, tmp_path):
    """The file has x and y the wrong way round: a rotation about z by 90 deg nobody knows of."""
    session = microscope(map_file)
    grains = polycrystal()
    quarter = Rotation.from_euler("z", 90.0, degrees=True).as_matrix()
    ids = np.rot90(grains.voxels.grain_id, axes=(0, 1))
    mixed = changed(
        grains,
        ub=quarter @ grains.ub,
        centroid_mm=grains.centroid_mm @ quarter.T,
        size_mm=grains.size_mm[:, [1, 0, 2]],
        voxels=Voxels(ids, grains.voxels.size_mm, np.zeros(3)),
    )
    wrong = written(mixed, tmp_path / "mixed.h5")
    before = [session.axes[axis].position for axis in AXES]
    with pytest.raises(RunError, match="none of the 2 grains that were tried .* axes of the map are mixed up"):
        session.run(
            "campaign", {"map": str(wrong), "n": 4, "hkl": "0 0 2", "give_up_after": 2, "search_range": 0.6, **SCAN}
        )
    np.testing.assert_allclose([session.axes[axis].position for axis in AXES], before, atol=2e-3)
    assert session.channels["condenser"].get() == "line" and session.channels["shutter"].get() == "closed"


def test_a_grain_that_is_not_there_is_said_to_be_so_and_the_sample_comes_back(microscope, map_file):
    session = microscope(map_file)
    before = [session.axes[axis].position for axis in AXES]
    with pytest.raises(RunError, match="grain 60 .* was not found where it is predicted .*all is dark"):
        # less than the mounting is off
        session.run("dct_to_dfxrm", {"map": str(map_file), "grain": 60, "hkl": "0 0 2", "search_range": 0.15, **SCAN})
    np.testing.assert_allclose([session.axes[axis].position for axis in AXES], before, atol=2e-3)


# -- the steps by themselves -----------------------------------------------------------------------------------


@pytest.fixture
def crystal(open_session):
    """A small perfect crystal whose goniometer and stage are off by what nobody is told."""
    hidden = "{phi: 0.17, chi: -0.24, samx: 0.006, samy: -0.005, samz: 0.011}"
    return open_session(
        "instrument.cameras.far_field.rows=128",
        "instrument.cameras.far_field.columns=128",
        "instrument.cameras.far_field.pixel_um=26.0",
        "backend.options.sample=perfect_crystal",
        "backend.options.sample_options={size_um: [20, 8, 12], voxel_um: [0.5, 0.25, 0.25]}",
        f"backend.options.misalignment={hidden}",
    )


@pytest.mark.parametrize("omega", [0.0, 18.0])
def test_rock_and_roll_are_centred_also_where_the_axes_mix_them(crystal, omega):
    # omega turns about the diffraction vector, and takes phi and chi out of the directions of rock and roll
    crystal.move([(crystal.axes["omega"], omega)])
    crystal.channels["condenser"].set("box")
    crystal.run("find_grain", {})
    mu, chi, phi = (crystal.axes[axis].position for axis in ("mu", "chi", "phi"))
    g = goniometer_rotation(mu, omega, chi - 0.24, phi + 0.17) @ np.array([0.0, 0.0, 1.0])
    rock, roll, _ = np.degrees(imaging_basis(17.94635) @ g)
    assert abs(rock) < 1e-3 and abs(roll) < 5e-3


def test_a_grain_comes_to_the_rotation_centre_in_all_three_directions(crystal):
    crystal.move([(crystal.axes["phi"], -0.17), (crystal.axes["chi"], 0.24)])
    crystal.run("center_grain", {"height_um": 15.0, "search_um": 25.0})
    np.testing.assert_allclose(
        [crystal.axes[axis].position for axis in ("samx", "samy", "samz")], [-0.006, 0.005, -0.011], atol=5e-4
    )


def test_a_grain_that_is_not_lit_moves_nothing(crystal):
    before = [crystal.axes[axis].position for axis in AXES]
    crystal.run("center_grain", {"height_um": 15.0, "search_um": 25.0})
    crystal.run("find_grain", {"search_range": 0.2})
    np.testing.assert_allclose([crystal.axes[axis].position for axis in AXES], before, atol=1e-6)
    crystal.channels["condenser"].set("box")
    with pytest.raises(ParameterError, match="the condenser is 'box'; slices need the 'line' beam"):
        crystal.run("center_grain", {})
    crystal.channels["objective_in"].set("out")
    with pytest.raises(ParameterError, match="find_grain: the objective"):
        crystal.run("find_grain", {})


# -- what is refused before anything moves ---------------------------------------------------------------------


def _empty(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["LabDCT/Data/GrainId"][...] = 0


def _truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _no_numbers(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["LabDCT/Data/Rodrigues"][...] = np.nan


def _other_cell(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["PhaseInfo/Phase01/UnitCell"][:3] = 3.615


@pytest.mark.parametrize("damage", [_empty, _truncated, _no_numbers, _other_cell])
def test_a_map_that_is_no_map_is_refused(microscope, map_file, damage):
    session = microscope(map_file)
    damage(map_file)
    before = [session.axes[axis].position for axis in AXES]
    with pytest.raises((FileFormatError, ParameterError, RunError)) as caught:
        session.run("dct_to_dfxrm", {"map": str(map_file), "grain": 60, **SCAN})
    assert re.search(r"map\.h5|3\.615", str(caught.value)) and "\n" not in str(caught.value)
    assert [session.axes[axis].position for axis in AXES] == before
    assert not list(Path(session.config.data.directory).glob("*/*_0*"))


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"grain": 7}, "has no grain 7"),
        ({"grain": 60, "hkl": "1 1"}, "hkl"),
        ({"grain": 60, "hkl": "1 1 0"}, "no allowed reflection"),
        ({"grain": 60, "hkl": "2 0 0"}, "reflection 2 0 0 of grain 60 is out of reach .* of its family 0 0 2 can be"),
        ({"grain": 60, "scan": "layer_scan"}, "cannot be run in a series"),
        ({"grain": 60, "scan_parameters": {"rock_num": 1}}, "rock_num"),
        ({"grain": 60, "camera": "near_field"}, "is not behind the objective"),
        ({"grain": 60, "camera_objective": "50x"}, "has no objective '50x'"),
        ({"grain": 60, "retract_mm": 12.0}, "samz"),
        ({"grain": 60, "cell": "4 4 4"}, "cell '4 4 4' is not"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_moves(microscope, map_file, parameters, says):
    session = microscope(map_file)
    before = [session.axes[axis].position for axis in AXES]
    with pytest.raises((ParameterError, LimitError, RunError, FileFormatError, ValueError)) as caught:
        session.run("dct_to_dfxrm", {"map": str(map_file), **SCAN, **parameters})
    assert re.search(says, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert [session.axes[axis].position for axis in AXES] == before


def test_a_grain_larger_than_the_field_is_said_to_be_so(microscope, map_file):
    session = microscope(map_file, "instrument.cameras.far_field.pixel_um=4.0")
    with pytest.raises(ParameterError, match=r"larger than the field of .*; too large: 1 x 2 tiles, at \(\+0, -"):
        session.run("dct_to_dfxrm", {"map": str(map_file), "grain": 60, "hkl": "0 0 2", **SCAN})


# -- dry run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plan", "more"), [("dct_to_dfxrm", {"grain": 60}), ("campaign", {"n": 3})])
def test_a_dry_run_walks_the_whole_way(microscope, map_file, plan, more):
    config = microscope(map_file).config
    report = dry_run(config, plan, {"map": str(map_file), "hkl": "0 0 2", **SCAN, **more})
    assert report.problems == [] and report.frames > 500
    assert report.travel["samz"].lowest < -0.9
    assert {"two_theta", "mu", "chi", "phi", "samx"} <= set(report.travel)
    assert any("nothing can be seen in a dry run" in text for text in report.warnings)
    assert not RegistrationStore.of(config).path.exists()


def test_a_search_without_a_box_beam_is_remarked(microscope, map_file):
    config = microscope(map_file, "devices.beam.channels.condenser.choices=[line]").config
    report = dry_run(config, "dct_to_dfxrm", {"map": str(map_file), "grain": 60, "hkl": "0 0 2", **SCAN})
    assert any("there is no 'box' beam" in text for text in report.warnings)


@pytest.fixture
def cut_map(tmp_path):
    """Return a map without its rim of void, so that every grain is at the border."""
    grains = polycrystal()
    voxels = Voxels(grains.voxels.grain_id[1:-1, 1:-1, 1:-1].copy(), grains.voxels.size_mm, np.zeros(3))
    return written(changed(grains, voxels=voxels), tmp_path / "cut.h5")


def test_a_grain_at_the_border_is_refused_and_nothing_moves(microscope, cut_map):
    session = microscope(cut_map)
    moves = []
    session.RE.msg_hook = lambda message: moves.append(message) if message.command == "set" else None
    for plan, which in (("dct_to_dfxrm", {"grain": 60}), ("campaign", {"n": 3})):
        with pytest.raises(ParameterError, match="touches the border of the map, where it may be cut.*allow_edge"):
            session.run(plan, {"map": str(cut_map), "hkl": "0 0 2", **which, **SCAN})
    assert not moves


def test_remarks_of_a_grain_at_the_border_are_told(microscope, cut_map):
    path = cut_map
    config = microscope(path).config
    asked = {"map": str(path), "grain": 60, "hkl": "0 0 2", "allow_edge": True, **SCAN}
    report = dry_run(config, "dct_to_dfxrm", asked)
    assert any("grain 60: it touches the border of the map" in text for text in report.warnings)
    assert issubclass(HandoffWarning, UserWarning)
    assert choose(read_grain_map(path), config, hkl=(0, 0, 2)).edge.all()
