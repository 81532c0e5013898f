"""Strain scans of the noisy twin, read back from the files, against the field that is known.

The limits are those of the instrument: on pixels that saw 15,000 photons strain to 2e-5 with slope 1.00 +- 0.03 and
tilts to 1 mdeg, errors no larger than 1.3 times what the maps predict; and strain and tilt separated: a tilt of 1 mrad
is no strain of more than 3e-5, a strain of 1e-3 no tilt of more than 3e-5 rad.
"""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dfxrm_control.crystal import strain_from_two_theta_and_ccmth
from dfxrm_control.geometry import goniometer_rotation, imaging_basis
from dfxrm_control.reduction import maps_from_file
from dfxrm_control.reduction.follow import Follower
from simulators import SAMPLES, Sample, known_field

PHOTONS = 15_000
MDEG = 1e-3
THETA = 8.97317
SAMPLE = "backend.options.sample_options="
BRIGHT = "backend.options.photons_per_s=15000.0"
# windows and steps are the plans' own, for tilts within this
NARROW = "sample.spread_deg=0.05"


def strain_of(axis, com, setting):
    """Return the known strain, relative to nothing yet, from where the axis of a perfect scan finds each pixel."""
    if axis == "two_theta":
        return strain_from_two_theta_and_ccmth(com - setting["two_theta"], setting["two_theta"], 0.0, 90.0)
    return strain_from_two_theta_and_ccmth(0.0, 90.0, com - setting["ccmth"], setting["ccmth"])


def compare(found, known, predicted, chosen):
    """Return rms error, slope, and rms error over the predicted one, on chosen pixels."""
    error = (found - known)[chosen]
    error = error - np.median(error)
    slope = np.polyfit(known[chosen], found[chosen], 1)[0]
    return np.sqrt(np.mean(error**2)), slope, np.sqrt(np.mean((error / predicted[chosen]) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "parameters", "axes"),
    [
        ("strain_scan", {}, ("two_theta", "phi")),
        ("strain_scan", {"axis": "ccmth"}, ("ccmth", "phi")),
        ("mosaicity_strain_scan", {}, ("two_theta", "chi", "phi")),
    ],
    ids=["2theta", "energy", "2theta and both tilts"],
)
def test_strain_and_tilt_maps_agree_with_the_known_field(open_session, plan, parameters, axes):
    exposure = {"two_theta": 0.35, "ccmth": 0.45}[axes[0]] if len(axes) == 2 else 0.25
    session = open_session(
        BRIGHT, NARROW, SAMPLE + "{strain: 4.0e-4, bend_deg: 0.01}", "instrument.cameras.far_field.rows=64"
    )
    setting = {name: session.axes[name].readback() for name in ("two_theta", "ccmth")}
    # so that the arm stands for the known field where it stands in the middle of the scan, to less than a micrometre
    session.move([(session.axes["two_theta"], setting["two_theta"])])
    outcome = session.run(plan, {"exposure_s": exposure, **parameters})
    maps = maps_from_file(outcome.master)
    known = known_field(session.backend, axes)
    assert [axis.name for axis in maps.axes] == list(axes)
    bright = maps.valid & (maps.photons >= PHOTONS) & np.isfinite(known.com).all(axis=0)
    everywhere = maps.valid & np.isfinite(known.com).all(axis=0)
    assert bright.mean() > 0.5

    strain = maps.components["strain"]
    truth = strain_of(axes[0], known.com[0], setting)
    assert np.ptp(truth[bright]) > 3e-4
    rms, slope, _ = compare(strain.values, truth, strain.error, bright)
    assert rms <= 2e-5
    assert slope == pytest.approx(1.0, abs=0.03)
    assert 0.5 < compare(strain.values, truth, strain.error, everywhere)[2] <= 1.3

    # tilt of the lattice: what is left of the rock's move once the strain's part is taken off
    arm = (known.com[0] - setting["two_theta"]) / 2.0 if axes[0] == "two_theta" else 0.0
    tilts = {"tilt_rock": -(known.com[-1] + arm)}
    if len(axes) == 3:
        tilts["tilt_roll"] = -known.com[1]
    for name, true in tilts.items():
        component = maps.components[name]
        assert np.ptp(true[bright]) > 20 * MDEG
        rms, slope, _ = compare(component.values, true, component.error, bright)
        assert rms <= 1.0 * MDEG, name
        assert slope == pytest.approx(1.0, abs=0.03), name
        assert 0.5 < compare(component.values, true, component.error, everywhere)[2] <= 1.3, name
    if len(axes) == 2:
        assert "tilt_roll" not in maps.components
        assert "H_23" not in maps.components


def test_frames_of_a_lens_that_follows_the_focus_lie_on_one_grid_also_while_the_scan_goes_on(open_session):
    session = open_session(BRIGHT, NARROW, "instrument.cameras.far_field.rows=32", "scan.darks=4")
    outcome = session.run("strain_scan", {"axis": "ccmth", "exposure_s": 0.3})
    follower = Follower(session.recorder.journal)
    follower.read()
    for _ in follower.lines():
        pass
    live, filed = follower.maps(), maps_from_file(outcome.master)
    assert live.components.keys() == filed.components.keys()
    for name, component in filed.components.items():
        np.testing.assert_allclose(live.components[name].values, component.values, atol=1e-9, err_msg=name)
    # the magnification goes with the energy, so that what was at the border left some of the frames
    assert any("outside some of the frames" in note for note in filed.notes)
    assert not any("focus moved" in note for note in filed.notes)
    assert filed.valid[8:-8, 8:-8].all() and not filed.valid[0].any()


def halves(
    seed=0,
    *,
    first=(0.0, 0.0, 0.0),
    second=(0.0, 0.0, 0.0),
    strain=0.0,
    turn=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
):
    """Return a crystal of two states, the second left of y = 0.6 um in the laboratory."""
    x, y, z = ((np.arange(count) + 0.5 - count / 2) * 0.12 for count in (120, 120, 50))
    along = np.asarray(turn)[1]
    lab_y = along[0] * x[:, None, None] + along[1] * y[:, None] + along[2] * z
    return Sample.from_states((lab_y > 0.6).astype(np.uint16), 0.12, tilt_deg=[first, second], strain=[0.0, strain])


@pytest.fixture
def displaced(open_session, monkeypatch):
    """Return a function that scans a crystal one half of which is displaced, and gives what the maps say of that."""
    monkeypatch.setitem(SAMPLES, "halves", halves)

    def scan(plan, parameters, turned_deg=(0.0, 0.0, 0.0), strain=0.0, omega=0.0, chi=0.0, phi=0.0, spread=0.05):
        turn = goniometer_rotation(THETA, omega, chi, phi)
        upright = turn.T @ imaging_basis(2 * THETA)[2]
        axis = np.cross([0.0, 0.0, 1.0], upright)
        base = Rotation.from_rotvec(axis / max(np.linalg.norm(axis), 1e-12) * math.acos(min(upright[2], 1.0)))
        other = Rotation.from_rotvec(np.radians(turned_deg)) * base
        vectors = [each.as_rotvec(degrees=True).tolist() for each in (base, other)]
        session = open_session(
            BRIGHT,
            f"sample.spread_deg={spread}",
            "backend.options.sample=halves",
            SAMPLE + f"{{first: {vectors[0]}, second: {vectors[1]}, strain: {strain}, turn: {turn.tolist()}}}",
            "instrument.cameras.far_field.rows=32",
            "devices.goniometer.axes.omega.limits=[-180.0, 180.0]",
        )
        session.move([(session.axes[name], at) for name, at in (("omega", omega), ("chi", chi), ("phi", phi))])
        maps = maps_from_file(session.run(plan, {"exposure_s": 0.5, **parameters}).master)
        reference, found = base.apply([0.0, 0.0, 1.0]), other.apply([0.0, 0.0, 1.0]) / (1.0 + strain)
        e3 = reference
        e1 = np.array([1.0, 0.0, 0.0]) - e3[0] * e3
        e1 /= np.linalg.norm(e1)
        truth = {f"H_{n}3": float(e @ (found - reference)) for n, e in enumerate((e1, np.cross(e3, e1), e3), start=1)}
        moved = imaging_basis(2 * THETA) @ turn @ (found - reference)
        truth |= {"strain": strain, "tilt_rock": math.degrees(moved[0]), "tilt_roll": -math.degrees(moved[1])}
        step = {
            name: float(np.nanmedian(component.values[:, -25:-5]) - np.nanmedian(component.values[:, 5:40]))
            for name, component in maps.components.items()
        }
        return step, truth, maps

    return scan


@pytest.mark.slow
@pytest.mark.parametrize("omega", [0.0, 37.0, 90.0])
def test_a_known_displacement_comes_through_the_whole_chain_with_its_sign(displaced, omega):
    """Two tilts and a strain at once, with chi and phi far from zero; which motor rolls depends on omega."""
    rock, roll = ("mu", "chi") if omega < 45.0 else ("mu", "phi")
    step, truth, maps = displaced(
        "mosaicity_strain_scan",
        {"rock": rock, "roll": roll},
        turned_deg=(0.03, -0.02, 0.01),
        strain=3e-4,
        omega=omega,
        chi=2.0,
        phi=-3.0,
        spread=0.03,
    )
    assert list(maps.components) == ["strain", "tilt_rock", "tilt_roll", "H_13", "H_23", "H_33"]
    for name in ("strain", "H_13", "H_23", "H_33"):
        assert step[name] == pytest.approx(truth[name], abs=4e-6), name
    for name in ("tilt_rock", "tilt_roll"):
        assert step[name] == pytest.approx(truth[name], abs=0.2 * MDEG), name


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["two_theta", "ccmth"])
def test_strain_and_tilt_are_separated(displaced, axis):
    a_mrad = math.degrees(1e-3)
    for turned in ((0.0, a_mrad, 0.0), (a_mrad, 0.0, 0.0)):
        step, truth, _ = displaced("strain_scan", {"axis": axis}, turned_deg=turned)
        assert step["strain"] == pytest.approx(0.0, abs=3e-5), turned
        assert step["tilt_rock"] == pytest.approx(truth["tilt_rock"], abs=1.0 * MDEG)
    step, _, _ = displaced("strain_scan", {"axis": axis}, strain=1e-3)
    assert step["strain"] == pytest.approx(1e-3, rel=0.03)
    assert math.radians(step["tilt_rock"]) == pytest.approx(0.0, abs=3e-5)


@pytest.mark.slow
def test_a_strain_of_a_thousandth_tilts_nothing_in_a_mesh_of_three(displaced):
    step, _, _ = displaced("mosaicity_strain_scan", {}, strain=1e-3, spread=0.03)
    assert step["strain"] == pytest.approx(1e-3, rel=0.03)
    for name in ("tilt_rock", "tilt_roll"):
        assert math.radians(step[name]) == pytest.approx(0.0, abs=3e-5), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "slope"), [("two_theta_scan", 0.5), ("energy_scan", 1.0)], ids=["two_theta", "energy"]
)
def test_a_scan_of_two_theta_or_energy_alone_is_contrast_of_a_known_slope(displaced, plan, slope):
    step, _, maps = displaced(plan, {}, strain=2e-4)
    assert list(maps.components) == ["relative_contrast"]
    assert step["relative_contrast"] / 2e-4 == pytest.approx(slope, abs=0.03)
    of_tilt = float(maps.components["relative_contrast"].label.split(", ")[1].split()[0])
    step, _, _ = displaced(plan, {}, turned_deg=(0.0, 0.005, 0.0))
    assert step["relative_contrast"] / math.radians(0.005) == pytest.approx(of_tilt, abs=0.1)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("darfix") is None, reason="darfix is not installed")
def test_darfixs_own_strain_agrees(open_session, tmp_path):
    session = open_session(BRIGHT, NARROW, SAMPLE + "{strain: 4.0e-4}")
    maps = maps_from_file(session.run("strain_scan", {"exposure_s": 0.5}).master)
    script = Path(__file__).parent / "check_darfix_strain.py"
    command = [sys.executable, str(script), str(session.recorder.master), "far_field", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = np.load(tmp_path / "strain.npz")["strain"][::-1]
    ours = maps.components["strain"].values
    bright = maps.valid & (maps.photons >= PHOTONS)
    assert bright.mean() > 0.5
    theirs = theirs - np.median(theirs[bright]) + np.median(ours[bright])
    assert np.ptp(ours[bright]) > 3e-4
    assert np.sqrt(np.mean((ours - theirs)[bright] ** 2)) <= 2e-5
    assert np.polyfit(theirs[bright], ours[bright], 1)[0] == pytest.approx(1.0, abs=0.03)
