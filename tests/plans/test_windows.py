"""How wide and how finely: the numbers a window must have, and what is said when it has not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import FWHM_PER_SIGMA, Resolution, motor_jacobian
from dfxrm_control.windows import (
    AxisResponse,
    ScanAxis,
    Spread,
    axis_response,
    centroid_slope,
    contrast,
    coupling,
    plan_window,
)

AL_111 = 17.946
ONE_DEG = Spread(1.0)
DFXM_GEO = Resolution(AL_111 / 2, 5.3e-4 / 2.355, 0.0, 7.31e-4 / 2.35, 7.31e-4 / 2.35, 6.0e-5)


@pytest.mark.parametrize(("sigmas", "slope"), [(2.0, 0.77), (3.0, 0.973), (3.2, 0.985), (3.5, 0.994)])
def test_clipping_costs_the_known_slope(sigmas, slope):
    assert centroid_slope(sigmas * 0.01, 0.01) == pytest.approx(slope, abs=0.005 if sigmas == 2.0 else 0.0006)


@given(half=st.floats(0.5, 6.0), offset=st.floats(-3.0, 3.0))
def test_the_slope_is_the_derivative_of_the_centre_of_mass(half, offset):
    x = np.linspace(-half, half, 4001)

    def centre(at):
        weight = np.exp(-0.5 * (x - at) ** 2)
        return np.trapezoid(x * weight, x) / np.trapezoid(weight, x)

    expected = (centre(offset + 1e-3) - centre(offset - 1e-3)) / 2e-3
    assert centroid_slope(half, 1.0, offset) == pytest.approx(expected, abs=1e-4)


def respond(names, spread=ONE_DEG):
    jacobian = motor_jacobian(names, AL_111, mu=AL_111 / 2, ccmth_deg=6.679671)
    return axis_response(DFXM_GEO, jacobian, names, spread, 17.0)


def test_widths_of_the_standard_setting():
    phi, chi = respond(["phi", "chi"])
    assert phi.mesh_sigma == pytest.approx(0.0104, abs=0.0001)
    assert chi.mesh_sigma == pytest.approx(0.057, abs=0.0005)
    assert FWHM_PER_SIGMA * phi.curve_sigma == pytest.approx(0.025, abs=0.001)
    assert FWHM_PER_SIGMA * chi.curve_sigma == pytest.approx(0.135, abs=0.002)
    assert phi.spread == pytest.approx(1.0) and chi.spread == pytest.approx(1.0)


def test_at_omega_90_chi_rocks_and_phi_rolls():
    jacobian = motor_jacobian(["phi", "chi"], AL_111, mu=AL_111 / 2, omega=90.0)
    phi, chi = axis_response(DFXM_GEO, jacobian, ["phi", "chi"], ONE_DEG)
    assert chi.mesh_sigma == pytest.approx(0.0104, abs=0.0002)
    assert phi.mesh_sigma == pytest.approx(0.057, abs=0.001)


def test_the_width_in_a_mesh_is_that_of_a_simulated_peak():
    jacobian = motor_jacobian(["phi", "chi"], AL_111, omega=37.0, mu=AL_111 / 2)
    phi, chi = axis_response(DFXM_GEO, jacobian, ["phi", "chi"], ONE_DEG)
    wide, fine = np.radians(np.linspace(-0.3, 0.3, 201)), np.radians(np.linspace(-0.3, 0.3, 201))
    mesh = np.stack(np.meshgrid(wide, fine, indexing="ij"), axis=-1)
    weight = DFXM_GEO.weight(mesh @ jacobian.T)
    for axis, response in enumerate((phi, chi)):
        variance = (weight * mesh[..., axis] ** 2).sum() / weight.sum()
        assert math.degrees(math.sqrt(variance)) == pytest.approx(response.mesh_sigma, rel=0.01)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["phi", "mu"], "axes phi and mu move the diffraction vector the same way"),
        (["two_theta", "omega"], "axis 'omega' does not move the diffraction vector"),
    ],
)
def test_axes_that_make_no_mesh_are_refused(names, sentence):
    jacobian = motor_jacobian(names, AL_111, mu=AL_111 / 2)
    with pytest.raises(ParameterError, match=sentence):
        axis_response(DFXM_GEO, jacobian, names, ONE_DEG)


ROCK = AxisResponse(0.0104, 0.0104, 0.1)


def test_default_window_and_step():
    axis, remarks = plan_window("phi", 7.0, None, None, None, ROCK)
    assert not remarks
    half = axis.step * (axis.num - 1) / 2
    assert 0.1 + 3.5 * 0.0104 <= half < 0.1 + 3.5 * 0.0104 + axis.step
    assert axis.start + half == pytest.approx(7.0, abs=1e-6)
    assert axis.step == 0.0163  # two thirds of 24.5 mdeg
    # at that step a sampled peak's centre of mass is where the peak is, wherever it lies between two points
    x = np.array(axis.positions())
    for shift in np.linspace(0, axis.step, 7):
        weight = np.exp(-0.5 * ((x - 7.0 - shift) / 0.0104) ** 2)
        assert (x * weight).sum() / weight.sum() == pytest.approx(7.0 + shift, abs=3e-3 * 0.0104)


def test_a_narrow_window_is_warned_about_with_its_slope():
    _, (remark,) = plan_window("phi", 0.0, 4 * 0.0104, None, 11, AxisResponse(0.0104, 0.0104, 0.0))
    assert remark.startswith("phi: the window of +/-0.0208 deg is narrower") and "slope 0.774 in its middle" in remark


def test_a_coarse_step_is_warned_about():
    _, (remark,) = plan_window("phi", 0.0, 0.4, 0.05, None, ROCK)
    assert "step of 0.05 deg is larger than the instrument's FWHM of 0.02449 deg" in remark


def test_what_cannot_be_worked_out_is_asked_for():
    with pytest.raises(ParameterError, match=r"the range of 'phi' cannot be .*\(no lens\); give it"):
        plan_window("phi", 0.0, None, 0.1, None, None, "no lens")
    axis, remarks = plan_window("phi", 0.0, 1.0, 0.1, None, None, "no lens")
    assert (axis.num, axis.start, axis.step) == (11, -0.5, 0.1) and not remarks


@given(
    center=st.floats(-20, 20),
    width=st.floats(1e-3, 40),
    num=st.integers(2, 500),
)
def test_positions_span_the_window_evenly(center, width, num):
    axis, _ = plan_window("phi", center, width, None, num, ROCK)
    positions = axis.positions()
    assert len(positions) == num == axis.num
    assert positions[-1] - positions[0] == pytest.approx(width, abs=1e-8)
    assert (positions[0] + positions[-1]) / 2 == pytest.approx(center, abs=1e-6)


def test_a_step_that_does_not_divide_the_window_widens_it():
    axis, _ = plan_window("chi", 0.0, 2.0, 0.08, None, None)
    assert axis == ScanAxis("chi", -1.0, 0.08, 26)
    assert plan_window("chi", 0.0, 1.0, 0.3, None, None)[0].num == 5


@pytest.mark.parametrize(
    ("names", "sigma_mdeg"),
    [
        (["two_theta", "phi"], {"two_theta": 22.0, "phi": 12.9}),
        (["ccmth", "phi"], {"ccmth": 8.2, "phi": 11.0}),
        (["two_theta", "chi", "phi"], {"two_theta": 22.0, "chi": 57.0, "phi": 12.9}),
    ],
)
def test_widths_of_strain_meshes(names, sigma_mdeg):
    """In a mesh with the rock the peak lies across the axes, so that each is wider than alone."""
    for name, response in zip(names, respond(names), strict=True):
        assert 1e3 * response.mesh_sigma == pytest.approx(sigma_mdeg[name], rel=0.01)
        assert response.curve_sigma == pytest.approx(respond([name])[0].mesh_sigma)
    if "two_theta" in names:
        assert FWHM_PER_SIGMA * respond(names)[0].mesh_sigma == pytest.approx(0.052, abs=0.0005)


def test_a_window_of_the_mesh_holds_a_correlated_peak():
    """The centre of mass over the default mesh is where a strained, tilted crystal's peak is, along both axes."""
    names = ["two_theta", "phi"]
    jacobian = motor_jacobian(names, AL_111, mu=AL_111 / 2)
    spread = Spread(0.02, 2e-4)
    responses = axis_response(DFXM_GEO, jacobian, names, spread)
    axes = [plan_window(name, 0.0, None, None, None, r)[0] for name, r in zip(names, responses, strict=True)]
    mesh = np.radians(np.stack(np.meshgrid(*(axis.positions() for axis in axes), indexing="ij"), axis=-1))
    for tilt, strain in ((0.0, 0.0), (np.radians(0.02), 2e-4), (np.radians(0.02), -2e-4)):
        weight = DFXM_GEO.weight(mesh @ jacobian.T + (tilt, 0.0, -strain))
        com = (weight[..., None] * mesh).sum((0, 1)) / weight.sum()
        arm = -2 * math.tan(math.radians(AL_111 / 2)) * strain
        assert -com[0] / (2 * math.tan(math.radians(AL_111 / 2))) == pytest.approx(strain, abs=3e-6)
        assert com[1] == pytest.approx(-tilt - arm / 2, abs=3e-6)
        # the peaks of all of these lie within what the windows allow for the sample
        for move, response in zip((arm, -tilt - arm / 2), responses, strict=True):
            assert math.degrees(abs(move)) <= response.spread * (1 + 1e-9)


def test_energy_is_counted_in_its_own_unit():
    (energy,) = respond(["energy"], Spread(0.0, 1e-4))
    (ccmth,) = respond(["ccmth"], Spread(0.0, 1e-4))
    assert (energy.units, ccmth.units) == ("keV", "deg")
    # dE/E = -cot(ccmth) dccmth
    per_deg = 17.0 / math.tan(math.radians(6.679671)) * math.radians(1.0)
    assert energy.mesh_sigma == pytest.approx(per_deg * ccmth.mesh_sigma)
    assert energy.spread == pytest.approx(17.0 * 1e-4)


def peak_along(axis, tilt, strain):
    """Return where one axis finds a crystal, by exact vectors: 2theta in rad, or the relative energy."""
    theta = math.radians(AL_111 / 2)
    basis = np.array([[math.cos(theta), 0, math.sin(theta)], [0, 1, 0], [-math.sin(theta), 0, math.cos(theta)]])
    turned = theta - tilt  # about +y: G falls towards the beam
    g = 2 * math.sin(theta) * (1 - strain) * np.array([-math.sin(turned), 0, math.cos(turned)])

    def misses(x):
        arm, k = (2 * theta + x, 1.0) if axis == "two_theta" else (2 * theta, 1.0 + x)
        q0 = k * np.array([math.cos(arm) - 1, 0, math.sin(arm)])
        q = basis @ (g - q0) / (2 * math.sin(theta))
        return q @ DFXM_GEO.inverse_covariance @ q

    return minimize_scalar(misses, bracket=(-1e-4, 1e-4), tol=1e-12).x


@pytest.mark.parametrize(("axis", "slope", "per_rad_of_tilt"), [("two_theta", 0.50, 3.2), ("energy", 1.0, 2.0)])
def test_one_dimensional_scans_have_their_known_slopes(axis, slope, per_rad_of_tilt):
    """Half of a strain along 2theta and all of it along the energy, but 5.5e-5 or 3.5e-5 of strain per mdeg of tilt."""
    said = contrast(DFXM_GEO, motor_jacobian([axis], AL_111, mu=AL_111 / 2))
    assert said["label"] == "relative contrast"
    assert said["strain_slope"] == pytest.approx(slope, abs=0.01)
    assert abs(said["strain_per_rad_tilt"]) == pytest.approx(per_rad_of_tilt, abs=0.05)
    as_strain = -1 / (2 * math.tan(math.radians(AL_111 / 2))) if axis == "two_theta" else -1.0
    found = [as_strain * peak_along(axis, *at) for at in ((1e-5, 0.0), (0.0, 1e-5))]
    assert found == pytest.approx([1e-5 * said["strain_per_rad_tilt"], 1e-5 * said["strain_slope"]], rel=1e-3)


def test_the_sign_of_the_slopes_follows_the_motor_that_tilts():
    """-3.2 per rad of mu, which turns about -y and tips the crystal into Bragg: 2theta grows, as with less d."""
    said = contrast(DFXM_GEO, motor_jacobian(["two_theta"], AL_111))
    mu = motor_jacobian(["mu"], AL_111, mu=AL_111 / 2)[0, 0]
    assert mu * said["strain_per_rad_tilt"] == pytest.approx(-3.2, abs=0.05)
    # the monochromator's angle says the same as the energy
    by_energy = contrast(DFXM_GEO, motor_jacobian(["energy"], AL_111))
    by_angle = contrast(DFXM_GEO, motor_jacobian(["ccmth"], AL_111, ccmth_deg=6.679671))
    assert by_angle == {name: pytest.approx(value) for name, value in by_energy.items()}


@pytest.mark.parametrize("names", [["phi"], ["chi", "phi"], ["chi", "mu"]])
def test_a_tilt_scan_states_what_it_takes_from_strain(names):
    said = coupling(DFXM_GEO, motor_jacobian(names, AL_111, mu=AL_111 / 2))["tilt_rad_per_strain"]
    assert abs(said) == pytest.approx(0.049, abs=0.0005)
    rock = np.radians(np.linspace(-0.06, 0.06, 4001))
    q = np.stack([rock, 0 * rock, 0 * rock - 1e-3], axis=-1)  # phi of +d adds +d to q_rock; a strain of 1e-3
    weight = DFXM_GEO.weight(q)
    assert -(weight * rock).sum() / weight.sum() == pytest.approx(1e-3 * said, rel=0.01)
