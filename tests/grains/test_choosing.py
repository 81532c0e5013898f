"""The settings that are handed to the microscope: exact, within limits where there are any, and ranked."""

from __future__ import annotations

import csv
from importlib.resources import files

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from grain_maps import AL, polycrystal, real_map
from scipy.spatial.transform import Rotation

from dfxrm_control.config import find_config, override
from dfxrm_control.crystal import Lattice, wavelength_angstrom
from dfxrm_control.errors import ConfigError, FileFormatError, ParameterError, PhysicsError
from dfxrm_control.geometry import goniometer_rotation
from dfxrm_control.grains import GrainMap, read_grain_map, write_imaged11, write_labdct
from dfxrm_control.handoff import (
    Registration,
    choose,
    grain_colours,
    plot_map,
    solve_angles,
    topotomography_angles,
)

LIMITS = {"mu": (0.0, 20.0), "omega": (-22.0, 22.0), "chi": (-5.0, 5.0), "phi": (-5.0, 5.0)}
PRINTED = np.array(
    [
        (0.83550027, 0.33932153, -0.43220389),
        (0.01167249, 0.77541728, 0.63134127),
        (0.54936605, -0.53253069, 0.64390062),
    ]
)
U0 = Rotation.from_matrix(PRINTED).as_matrix()  # a rotation to all digits


def _config(*changes: str):
    return override(find_config("simulated"), list(changes))


def _one_grain(u: np.ndarray, size_um: float = 10.0) -> GrainMap:
    return GrainMap(
        np.array([7]),
        (u @ AL.B)[np.newaxis],
        np.array([[0.01, -0.02, 0.03]]),
        np.full((1, 3), size_um * 1e-3),
        np.array([size_um**3 * 1e-9]),
        np.zeros(1, np.int64),
        (AL,),
        ("aluminium",),
    )


def _in_the_laboratory(g: np.ndarray, angles: np.ndarray, mu_sign: int) -> np.ndarray:
    return np.array([goniometer_rotation(*a, mu_sign=mu_sign) @ v for a, v in zip(angles, g, strict=True)])


def test_the_worked_case_of_the_reference():
    """darling's Al 1050 grain, 1 -1 1 at 17 keV (closed form of the topotomographic alignment)."""
    g = PRINTED @ np.array([1.0, -1.0, 1.0]) / 4.05
    np.testing.assert_allclose(g, [0.01579626, -0.03269223, 0.42612280], atol=2e-8)
    theta = np.degrees(np.arcsin(0.5 * wavelength_angstrom(17.0) * np.linalg.norm(g)))
    assert theta == pytest.approx(8.97206, abs=2e-5)
    (angles,) = topotomography_angles(g[np.newaxis], np.array([theta]))
    np.testing.assert_allclose(angles, [8.97206, 0.0, -4.38415, -2.12297], atol=2e-5)
    np.testing.assert_allclose(goniometer_rotation(*angles) @ g, [-0.0666958, 0.0, 0.4224342], atol=5e-7)


@pytest.mark.parametrize("mu_sign", [-1, 1])
def test_settings_satisfy_bragg_and_the_vertical_plane_exactly(mu_sign):
    random = np.random.default_rng(5)
    g = random.normal(size=(2000, 3)) * [0.15, 0.15, 0.05] + [0.0, 0.0, 0.42]
    theta = np.degrees(np.arcsin(0.5 * wavelength_angstrom(17.0) * np.linalg.norm(g, axis=1)))
    limits = LIMITS if mu_sign == -1 else LIMITS | {"mu": (-20.0, 0.0)}
    angles, inside = solve_angles(g, theta, limits, mu_sign)
    assert 100 < inside.sum() < 2000
    lab = _in_the_laboratory(g, angles, mu_sign)
    k_in = np.array([1.0, 0.0, 0.0]) / wavelength_angstrom(17.0)
    k_out = k_in + lab
    assert np.abs(np.linalg.norm(k_out, axis=1) * wavelength_angstrom(17.0) - 1.0).max() < 1e-9
    assert np.abs(lab[:, 1]).max() < 1e-9
    assert (k_out[:, 2] > 0).all()  # upwards, where the objective is
    for column, axis in enumerate(LIMITS):
        low, high = limits[axis]
        assert (angles[inside, column] >= low - 1e-9).all() and (angles[inside, column] <= high + 1e-9).all()


def test_tilts_beyond_chi_and_phi_are_shared_with_mu_and_omega():
    """A vector made by undoing known angles of mu and omega far from the closed form is found within the limits."""
    random = np.random.default_rng(2)
    truth = np.stack([random.uniform(low, high, 300) for low, high in LIMITS.values()], axis=1)
    theta = np.full(300, 8.97206)
    target = np.array([-np.sin(np.radians(8.97206)), 0.0, np.cos(np.radians(8.97206))])
    g = np.array([goniometer_rotation(*angles).T @ target for angles in truth])
    angles, inside = solve_angles(g, theta, LIMITS)
    assert inside.mean() > 0.99
    assert np.abs(_in_the_laboratory(g, angles, -1)[inside] - target).max() < 1e-9


def test_a_vector_on_its_side_is_out_of_reach():
    _, inside = solve_angles(np.array([[0.4, 0.0, 0.1]]), np.array([8.97]), LIMITS)
    assert not inside[0]


def test_limits_must_be_known():
    with pytest.raises(ParameterError, match="chi: its limits are None"):
        solve_angles(np.ones((1, 3)), np.ones(1), {axis: LIMITS[axis] for axis in ("mu", "omega", "phi")})
    blind = find_config("simulated").model_dump()
    blind["devices"]["goniometer"]["axes"]["chi"]["limits"] = None
    with pytest.raises(ConfigError, match="has no limits of axis 'chi'"):
        choose(_one_grain(U0), type(find_config("simulated")).model_validate(blind))


def test_a_row_carries_everything_that_has_to_move():
    choices = choose(_one_grain(U0), _config(), hkl=(1, 1, 1))
    row = next(r for r in range(len(choices)) if choices.hkl[r].tolist() == [1, -1, 1])
    at = choices.setting(row)
    two_theta = AL.two_theta_deg((1, 1, 1), 17.0)
    assert choices.reachable[row] and choices.reason[row] == ""
    assert at["two_theta"] == at["obpitch"] == pytest.approx(two_theta, abs=1e-9)
    assert at["obz"] / at["obx"] == pytest.approx(np.tan(np.radians(two_theta)), abs=1e-12)
    assert at["ffz"] / -at["mainx"] == pytest.approx(np.tan(np.radians(two_theta)), abs=1e-12)
    assert choices.magnification[row] == pytest.approx(16.27, abs=0.01)
    # the stage is above the rotations: minus the centroid, whatever the angles
    np.testing.assert_allclose([at["samx"], at["samy"], at["samz"]], [-0.01, 0.02, -0.03])
    assert choices.structure_factor[row] == pytest.approx(abs(AL.structure_factor((1, -1, 1), 17.0)))


def test_a_stage_below_the_rotations_has_to_follow_them():
    choices = choose(_one_grain(U0), _config("instrument.sample_stage=below"), hkl=(1, 1, 1))
    row = int(np.flatnonzero(choices.reachable)[0])
    at = choices.setting(row)
    rotation = goniometer_rotation(at["mu"], at["omega"], at["chi"], at["phi"])
    np.testing.assert_allclose(
        [at["samx"], at["samy"], at["samz"]], -rotation @ np.array([0.01, -0.02, 0.03]), atol=1e-12
    )


def test_limits_of_the_configuration_decide_and_the_reason_names_the_axis():
    grain = _one_grain(Rotation.from_euler("yx", [2.0, -1.5], degrees=True).as_matrix())
    wide = choose(grain, _config(), hkl=(2, 0, 0))
    row = int(np.flatnonzero(wide.reachable)[0])
    # a camera that cannot come closer is too low for 2 0 0
    narrow = choose(grain, _config("devices.far_field.axes.mainx.limits=[-5700.0, -5650.0]"), hkl=(2, 0, 0))
    same = next(r for r in range(len(narrow)) if (narrow.hkl[r] == wide.hkl[row]).all())
    assert not narrow.reachable[same]
    assert narrow.reason[same].startswith("ffz is ") and narrow.reason[same].endswith("mm beyond its limits")
    assert narrow.score[same] == 0.0


def test_the_far_field_camera_comes_closer_where_its_height_ends():
    """2 0 0 needs ffz = 2154 mm at the usual distance, and the camera goes up to 1960."""
    choices = choose(polycrystal(), _config(), hkl=(2, 0, 0))
    assert np.all(choices.positions["ffz"] <= 1960.0)
    assert np.all(-choices.positions["mainx"] < 5688.0)
    assert np.all(choices.magnification < 16.0)


def test_a_registration_moves_and_turns_the_prediction():
    grain = _one_grain(U0)
    turn = Registration((0.1, -0.2, 0.3), (0.05, -0.03, 0.02), omega_offset_deg=0.4)
    choices = choose(grain, _config(), hkl=(1, 1, 1), registration=turn)
    row = int(np.flatnonzero(choices.reachable)[0])
    at = choices.setting(row)
    g = turn.rotation @ grain.ub[0] @ choices.hkl[row]
    lab = goniometer_rotation(at["mu"], at["omega"] - 0.4, at["chi"], at["phi"]) @ g
    theta = np.radians(choices.two_theta_deg[row] / 2)
    np.testing.assert_allclose(lab / np.linalg.norm(g), [-np.sin(theta), 0, np.cos(theta)], atol=1e-9)
    place = turn.rotation @ grain.centroid_mm[0] + [0.05, -0.03, 0.02]
    np.testing.assert_allclose([at["samx"], at["samy"], at["samz"]], -place)


def test_a_strained_grain_diffracts_at_its_own_angle():
    grain = _one_grain(U0)
    longer = GrainMap(**{**vars(grain), "ub": grain.ub / 1.001})
    plain, strained = (choose(each, _config(), hkl=(1, 1, 1)) for each in (grain, longer))
    shift = np.radians(strained.two_theta_deg[0] - plain.two_theta_deg[0])
    assert shift == pytest.approx(-2e-3 * np.tan(np.radians(plain.two_theta_deg[0] / 2)), rel=2e-3)


def test_a_grain_larger_than_the_field_says_so_and_loses_in_the_ranking():
    small, large = (choose(_one_grain(U0, size), _config(), hkl=(1, 1, 1)) for size in (15.0, 150.0))
    assert small.fits[0] and not large.fits[0]
    assert large.score[0] < small.score[0]


def test_three_reflections_of_one_grain_span_space():
    everything = _config(*(f"devices.goniometer.axes.{axis}.limits=[-180.0, 180.0]" for axis in LIMITS))
    choices = choose(_one_grain(U0), everything)
    rows = choices.non_coplanar(7)
    assert len(rows) == 3
    assert abs(np.linalg.det(choices.hkl[rows] / np.linalg.norm(choices.hkl[rows], axis=1, keepdims=True))) > 0.5
    assert choices.reachable[rows].all()


def test_reflections_in_one_plane_are_not_taken_for_a_set_that_spans_space():
    # of a hexagonal crystal: 1 0 0, 0 1 0 and 1 1 0 lie in the basal plane, whatever their indices look like
    magnesium = Lattice.from_parameters(3.209, 3.209, 5.211, 90, 90, 120, space_group="P 63/m m c")
    grain = _one_grain(np.eye(3))
    grain = GrainMap(**{**vars(grain), "ub": magnesium.B[np.newaxis], "phases": (magnesium,)})
    everything = _config(*(f"devices.goniometer.axes.{axis}.limits=[-180.0, 180.0]" for axis in LIMITS))
    choices = choose(grain, everything)
    unit = choices.hkl @ magnesium.B.T
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(choices.direction, unit, atol=1e-12)
    assert abs(np.linalg.det(unit[choices.non_coplanar(7)])) > 0.5
    basal = choices.only(np.flatnonzero(choices.hkl[:, 2] == 0).tolist())
    assert len(basal) > 3 and len(basal.non_coplanar(7)) == 1


def test_of_what_is_out_of_reach_the_nearest_comes_first():
    choices = choose(_one_grain(Rotation.from_euler("y", 20, degrees=True).as_matrix()), _config())
    beyond = np.zeros(len(choices))
    for axis, (low, high) in LIMITS.items():
        beyond += np.clip(np.maximum(low - choices.positions[axis], choices.positions[axis] - high), 0.0, None)
    out = beyond[~choices.reachable]
    assert len(out) > 10 and out[0] == out.min()


def test_no_reflection_is_left_at_a_low_energy_or_for_a_forbidden_one():
    with pytest.raises(PhysicsError, match=r"no allowed reflection \(1 0 0\) has 2theta below 35 deg"):
        choose(_one_grain(U0), _config(), hkl=(1, 0, 0))
    with pytest.raises(ParameterError, match="camera 'eiger' is not known"):
        choose(_one_grain(U0), _config(), camera="eiger")
    with pytest.raises(FileFormatError, match="has no grain 8; it has 1 grains"):
        choose(_one_grain(U0), _config(), grain_ids=[8])


def test_the_real_map_has_grains_for_the_microscope():
    choices = choose(read_grain_map(real_map()), _config())
    reached = np.unique(choices.grain_id[choices.reachable])
    # 1 1 1, 2 0 0 and 2 2 0 with the limits of ID03: 57 of the 105 grains
    assert len(reached) == 57
    assert (np.diff(choices.score) <= 0).all()
    first = choices.setting(0)
    assert choices.reachable[0] and LIMITS["mu"][0] <= first["mu"] <= LIMITS["mu"][1]


def test_the_command_writes_table_and_picture(tmp_path):
    from dfxrm_control.cli._handoff import handoff

    with h5py.File(tmp_path / "map.h5", "w") as file:
        write_labdct(_reachable_polycrystal(), file)
    result = CliRunner().invoke(handoff, [str(tmp_path / "map.h5"), "--hkl", "1 1 1"], standalone_mode=False)
    assert result.exception is None and result.return_value == 0, result.output
    assert "settings can be reached at 17 keV" in result.output
    with (tmp_path / "handoff" / "map.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 8 and rows[0]["reachable"] == "True"
    with h5py.File(tmp_path / "handoff" / "map.h5") as file:
        assert file["entry/settings/mu"].attrs["units"] == "deg"
        assert file["entry/settings/mu"][0] == pytest.approx(float(rows[0]["mu"]))
    assert (tmp_path / "handoff" / "map.png").stat().st_size > 20_000


@pytest.mark.parametrize("name", ["red", "green", "blue"])
def test_colours_of_a_hexagonal_crystal_are_those_of_its_own_axes(name, tmp_path):
    """Of 6/mmm the key has [0001] red, [2-1-10] (along a) green and [10-10] (across it) blue."""
    magnesium = Lattice.from_parameters(3.209, 3.209, 5.211, 90, 90, 120, space_group="P 63/m m c")
    axes = np.linalg.inv(magnesium.B)
    vector = {"red": axes[2], "green": axes[0], "blue": 2.0 * axes[0] + axes[1]}[name]
    turn, _ = Rotation.align_vectors([[0.0, 0.0, 1.0]], [vector])
    grain = _one_grain(np.eye(3))
    parts = {"ub": turn.as_matrix()[np.newaxis] @ magnesium.B, "phases": (magnesium,)}
    grain = GrainMap(**{**vars(grain), **parts})
    colour = grain_colours(grain)[0]
    assert ("red", "green", "blue")[int(colour.argmax())] == name and np.sort(colour)[1] < 0.1
    # and the picture with its key can be drawn where nothing is in reach
    plot_map(grain, choose(grain, _config()), tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_the_command_shows_three_reflections_that_span_space_in_one_table(tmp_path):
    from dfxrm_control.cli._handoff import handoff

    with h5py.File(tmp_path / "map.h5", "w") as file:
        write_labdct(_reachable_polycrystal(), file)
    wide = [f"--set=devices.goniometer.axes.{axis}.limits=[-60, 60]" for axis in ("chi", "phi")]
    asked = [str(tmp_path / "map.h5"), "--grain", "30", "--non-coplanar"]
    result = CliRunner().invoke(handoff, [*asked, *wide], standalone_mode=False)
    assert result.return_value == 0, result.output
    with (tmp_path / "handoff" / "map.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["grain"] for row in rows] == ["30"] * 3 and all(row["reachable"] == "True" for row in rows)
    hkl = np.array([[int(part) for part in row["hkl"].split()] for row in rows], float)
    assert abs(np.linalg.det(hkl)) > 0.5
    refused = CliRunner().invoke(handoff, [*asked, "--hkl", "1 1 1"], standalone_mode=False)
    assert isinstance(refused.exception, PhysicsError) and "do not lie in a plane" in str(refused.exception)


def test_another_cell_than_that_of_the_sample_is_pointed_out(tmp_path):
    from dfxrm_control.cli._handoff import handoff

    with h5py.File(tmp_path / "map.h5", "w") as file:
        write_labdct(_reachable_polycrystal(), file)
    asked = [str(tmp_path / "map.h5"), "--cell", "4.5 4.5 4.5 90 90 90"]
    result = CliRunner().invoke(handoff, asked, standalone_mode=False)
    assert "warning: the map has the cell 4.5 4.5 4.5 90 90 90" in result.output


def test_a_map_with_nothing_in_reach_ends_with_exit_code_1_and_its_reasons(tmp_path):
    from dfxrm_control.cli._handoff import handoff

    with h5py.File(tmp_path / "grains.h5", "w") as file:
        write_imaged11(_one_grain(Rotation.from_euler("y", 20, degrees=True).as_matrix()), file)
    asked = ["--cell", "4.0495 4.0495 4.0495 90 90 90", "--space-group", "F m -3 m", "--hkl", "1 1 1"]
    result = CliRunner().invoke(handoff, [str(tmp_path / "grains.h5"), *asked], standalone_mode=False)
    assert result.return_value == 1
    assert "0 of 8 settings can be reached" in result.output and "beyond its limits" in result.output
    assert "none of these can be reached; the nearest, -1 1 1 of grain 7, fails because chi" in result.output


def _reachable_polycrystal() -> GrainMap:
    grains = polycrystal()
    turns = Rotation.random(len(grains), random_state=1).as_rotvec() * 0.01
    return GrainMap(**{**vars(grains), "ub": Rotation.from_rotvec(turns).as_matrix() @ U0 @ AL.B})


def test_the_configurations_that_come_with_the_package_can_all_be_asked():
    names = sorted(path.name[:-4] for path in files("configs").iterdir() if path.name.endswith(".yml"))
    for name in names:
        config = find_config(name)
        if all(config.axis(axis).limits is not None for axis in LIMITS):
            assert len(choose(_one_grain(U0), config))
