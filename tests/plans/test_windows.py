"""How wide and how finely: the numbers a window must have, and what is said when it has not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
