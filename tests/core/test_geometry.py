"""Frames, goniometer, arm and resolution against exact vector geometry, rays and the numbers of the literature."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import fsolve

from dfxrm_control.errors import PhysicsError
from dfxrm_control.geometry import (
    FWHM_PER_SIGMA,
    Resolution,
    arm_positions,
    arm_two_theta_deg,
    canonical_to_frame,
    detector_to_layer,
    detector_to_pixel,
    diffraction_vector,
    frame_to_canonical,
    goniometer_rotation,
    imaging_basis,
    lab_to_object,
    lab_to_sample,
    layer_to_detector,
    motor_axes,
    motor_jacobian,
    outgoing_direction,
    pixel_to_detector,
    sample_to_lab,
)

THETA = 8.9765  # Al 111 at 17 keV, as in dfxm-geo
MDEG_PER_RAD = math.degrees(1.0) * 1e3
ANGLE = st.floats(-180.0, 180.0)


@pytest.fixture
def dfxm_geo() -> Resolution:
    """The default of dfxm-geo, with its own divisors from FWHM to rms."""
    return Resolution(THETA, 5.3e-4 / 2.355, 0.0, 7.31e-4 / 2.35, 7.31e-4 / 2.35, 6.0e-5)


def turn(axis: str, degrees: float) -> np.ndarray:
    """Elementary right-handed rotation written out, independent of scipy."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


class TestGoniometer:
    @given(ANGLE, ANGLE, ANGLE, ANGLE)
    @settings(max_examples=30, deadline=None)
    def test_is_the_product_of_its_four_circles(self, mu: float, omega: float, chi: float, phi: float) -> None:
        for sign in (-1, 1):
            expected = turn("y", sign * mu) @ turn("z", omega) @ turn("x", chi) @ turn("y", phi)
            np.testing.assert_allclose(goniometer_rotation(mu, omega, chi, phi, sign), expected, atol=1e-12)

    def test_positive_mu_tips_z_against_the_beam_into_bragg(self) -> None:
        tipped = goniometer_rotation(mu=THETA) @ (0, 0, 1)
        expected = diffraction_vector(2 * THETA, 0.7)
        np.testing.assert_allclose(tipped, expected / np.linalg.norm(expected), atol=1e-12)
        assert (goniometer_rotation(mu=THETA, mu_sign=1) @ (0, 0, 1))[0] > 0

    def test_broadcasts(self) -> None:
        stack = goniometer_rotation(mu=1.0, chi=np.linspace(-1, 1, 5)[:, None], phi=np.linspace(-2, 2, 3))
        assert stack.shape == (5, 3, 3, 3)
        np.testing.assert_allclose(stack[4, 0], goniometer_rotation(1.0, 0.0, 1.0, -2.0), atol=1e-14)

    def test_axes_are_the_infinitesimal_rotations(self) -> None:
        setting = {"mu": 9.0, "omega": 37.0, "chi": 4.0, "phi": -3.0}
        step = 1e-4
        for sign in (-1, 1):
            axes = motor_axes(**setting, mu_sign=sign)
            for motor in setting:
                ahead = goniometer_rotation(**{**setting, motor: setting[motor] + step}, mu_sign=sign)
                back = goniometer_rotation(**{**setting, motor: setting[motor] - step}, mu_sign=sign)
                rate = (ahead - back) @ goniometer_rotation(**setting, mu_sign=sign).T / (2 * math.radians(step))
                spin = np.array([rate[2, 1], rate[0, 2], rate[1, 0]])
                np.testing.assert_allclose(spin, axes[motor], atol=1e-8)

    def test_refuses_another_sign(self) -> None:
        with pytest.raises(PhysicsError, match="mu_sign: 0"):
            goniometer_rotation(mu_sign=0)


class TestFrames:
    def test_imaging_basis_is_right_handed_and_par_lies_along_q(self) -> None:
        basis = imaging_basis(2 * THETA)
        np.testing.assert_allclose(np.cross(basis[0], basis[1]), basis[2], atol=1e-15)
        g = diffraction_vector(2 * THETA, 0.7293188)
        np.testing.assert_allclose(basis[2] * np.linalg.norm(g), g, atol=1e-15)
        assert np.linalg.norm(g) == pytest.approx(2 * math.sin(math.radians(THETA)) / 0.7293188)

    def test_diffracted_beam_is_elastic_and_eta_turns_away_from_left(self) -> None:
        wavelength = 0.7
        out = diffraction_vector(20.0, wavelength) + np.array([1 / wavelength, 0, 0])
        assert np.linalg.norm(out) == pytest.approx(1 / wavelength)
        np.testing.assert_allclose(out * wavelength, outgoing_direction(20.0), atol=1e-15)
        to_the_right = outgoing_direction(20.0, 30.0)
        assert to_the_right[1] < 0 < to_the_right[2]
        assert to_the_right[0] == pytest.approx(math.cos(math.radians(20.0)))

    @pytest.mark.parametrize("stage", ["above", "below"])
    def test_sample_and_lab_are_inverse(self, stage: str) -> None:
        points = np.random.default_rng(1).normal(size=(7, 3))
        rotation = goniometer_rotation(9.0, 20.0, 3.0, -2.0)
        lab = sample_to_lab(points, rotation, (1.0, 2.0, 3.0), stage)
        np.testing.assert_allclose(lab_to_sample(lab, rotation, (1.0, 2.0, 3.0), stage), points, atol=1e-12)

    def test_stage_above_is_carried_by_the_rotations(self) -> None:
        quarter = goniometer_rotation(omega=90.0)
        np.testing.assert_allclose(sample_to_lab((0, 0, 0), quarter, (1, 0, 0), "above"), (0, 1, 0), atol=1e-12)
        np.testing.assert_allclose(sample_to_lab((0, 0, 0), quarter, (1, 0, 0), "below"), (1, 0, 0), atol=1e-12)

    def test_object_plane_is_across_the_diffracted_beam(self) -> None:
        u, v, w = lab_to_object(outgoing_direction(20.0), 20.0)
        assert (u, v, w) == pytest.approx((0, 0, 1), abs=1e-15)
        s, c = math.sin(math.radians(20.0)), math.cos(math.radians(20.0))
        np.testing.assert_allclose(lab_to_object([2.0, 3.0, 5.0], 20.0), [3.0, -2 * s + 5 * c, 2 * c + 5 * s])

    def test_layer_on_the_detector_is_the_inverted_object_plane(self) -> None:
        x, y = 12.0, -7.0
        u, v, _ = lab_to_object([x, y, 0.0], 17.95)
        on_detector = layer_to_detector(x, y, 17.95, 16.0, 18.0)
        np.testing.assert_allclose(on_detector, (-16.0 * u * 1e-3, -18.0 * v * 1e-3))
        np.testing.assert_allclose(detector_to_layer(*on_detector, 17.95, 16.0, 18.0), (x, y))

    @pytest.mark.parametrize("flip_ud", [False, True])
    @pytest.mark.parametrize("flip_lr", [False, True])
    def test_canonical_map_has_x_and_y_rising(self, flip_ud: bool, flip_lr: bool) -> None:
        shape = (5, 7)
        rows, columns = np.mgrid[:5, :7]
        u, v = pixel_to_detector(rows, columns, shape, 0.65, flip_ud, flip_lr)
        back = detector_to_pixel(u, v, shape, 0.65, flip_ud, flip_lr)
        np.testing.assert_allclose(back, (rows, columns), atol=1e-12)
        x, y = detector_to_layer(u, v, 17.95, 16.27, 16.27)
        x_map, y_map = frame_to_canonical(x, flip_ud, flip_lr), frame_to_canonical(y, flip_ud, flip_lr)
        assert np.all(np.diff(x_map, axis=0) > 0) and np.all(np.diff(y_map, axis=1) > 0)
        np.testing.assert_array_equal(canonical_to_frame(x_map, flip_ud, flip_lr), x)

    def test_recorded_corner_is_top_left_as_a_photon_sees_it(self) -> None:
        u, v = pixel_to_detector(0, 0, (2048, 2048), 0.65)
        assert (u, v) == pytest.approx((1023.5 * 0.65e-3, 1023.5 * 0.65e-3))


class TestArm:
    def test_real_id03_header(self) -> None:
        """2024, Al 111, 17 keV: mainx -5000, obx 263.13, obz 85.36, obpitch 17.9794, ffz 1621.611."""
        assert arm_two_theta_deg(263.13, 85.36) == pytest.approx(17.973, abs=5e-4)
        assert arm_two_theta_deg(-5000.0, 1621.611) == pytest.approx(17.969, abs=5e-4)
        assert math.hypot(263.13, 85.36) == pytest.approx(276.63, abs=5e-3)
        arm = arm_positions(17.973, 276.63, -5000.0)
        assert (arm.obx, arm.obz) == pytest.approx((263.13, 85.36), abs=2e-3)
        assert arm.ffz == pytest.approx(1621.611, abs=0.4)
        assert arm.mainx == -5000.0 and arm.obpitch == 17.973
        assert arm.path_mm == pytest.approx(5256.7, abs=0.3)

    def test_sensitivity_at_the_id03_setting(self) -> None:
        here, there = arm_positions(17.97, 276.63, 5000.0), arm_positions(17.98, 276.63, 5000.0)
        objective = math.hypot(there.obx - here.obx, there.obz - here.obz)
        assert objective * 1e3 == pytest.approx(48, abs=0.5)
        assert (there.ffz - here.ffz) * 1e3 == pytest.approx(965, abs=1)

    @given(st.floats(-80.0, 80.0), st.floats(20.0, 600.0), st.floats(700.0, 7000.0))
    @settings(max_examples=30, deadline=None)
    def test_round_trip(self, two_theta: float, centre: float, along: float) -> None:
        arm = arm_positions(two_theta, centre, along)
        assert arm_two_theta_deg(arm.obx, arm.obz) == pytest.approx(two_theta, abs=1e-9)
        assert arm_two_theta_deg(arm.mainx, arm.ffz) == pytest.approx(two_theta, abs=1e-9)
        assert arm.path_mm == pytest.approx(along / math.cos(math.radians(two_theta)))

    @pytest.mark.parametrize("arguments", [(90.0, 270.0, 5000.0), (18.0, 0.0, 5000.0), (18.0, 270.0, 0.0)])
    def test_refuses_what_cannot_stand(self, arguments: tuple[float, float, float]) -> None:
        with pytest.raises(PhysicsError, match="was asked"):
            arm_positions(*arguments)
        with pytest.raises(PhysicsError, match="no angle"):
            arm_two_theta_deg(0.0, 0.0)


class TestResolution:
    def test_dfxm_geo_widths(self, dfxm_geo: Resolution) -> None:
        np.testing.assert_allclose(dfxm_geo.marginal_rad, [1.9197e-4, 9.9681e-4, 1.21676e-3], rtol=3e-5)
        np.testing.assert_allclose(dfxm_geo.conditional_rad, [1.8236e-4, 9.9681e-4, 1.1558e-3], rtol=5e-5)

    def test_dfxm_geo_matrix(self, dfxm_geo: Resolution) -> None:
        expected = [
            [0.15603, -0.98775, 0, 0, 0],
            [0, 0, -3.20453, 0, -3.20453],
            [0.98775, -3.04850, 0, 3.20453, 0],
        ]
        np.testing.assert_allclose(dfxm_geo.imaging_matrix, expected, atol=6e-6)

    def test_closed_forms_of_poulsen(self, dfxm_geo: Resolution) -> None:
        theta, r = math.radians(THETA), dfxm_geo
        rock = 0.5 * math.hypot(r.zv_rms_rad, r.na_v_rms_rad)
        roll = math.hypot(r.zh_rms_rad, r.na_h_rms_rad) / (2 * math.sin(theta))
        par = 0.5 * math.hypot(2 * r.eps_rms, r.zv_rms_rad / math.tan(theta), r.na_v_rms_rad / math.tan(theta))
        np.testing.assert_allclose(r.marginal_rad, [rock, roll, par])

    def test_covariance_is_that_of_exact_rays(self) -> None:
        """Signs included: rays drawn at random, elastic scattering, no linearisation."""
        r = Resolution(THETA, 2.25e-4, 1e-4, 3.1e-4, 2.0e-4, 6e-5)
        rng = np.random.default_rng(7)
        n = 400_000
        eps, zv, zh, d2, xi = (
            rng.normal(0, s, n) for s in (r.eps_rms, r.zv_rms_rad, r.zh_rms_rad, r.na_v_rms_rad, r.na_h_rms_rad)
        )
        two_theta = math.radians(2 * THETA)
        k_in = np.stack([np.cos(zv) * np.cos(zh), np.sin(zh), np.sin(zv) * np.cos(zh)], axis=1)
        up = two_theta + d2
        k_out = np.stack([np.cos(up) * np.cos(xi), -np.sin(xi), np.sin(up) * np.cos(xi)], axis=1)
        q0 = outgoing_direction(2 * THETA) - (1, 0, 0)
        q = ((1 + eps)[:, None] * (k_out - k_in) - q0) @ imaging_basis(2 * THETA).T / np.linalg.norm(q0)
        scale = np.sqrt(np.diag(r.covariance))
        np.testing.assert_allclose(
            np.cov(q.T) / np.outer(scale, scale), r.covariance / np.outer(scale, scale), atol=0.01
        )
        slopes = np.linalg.lstsq(np.stack([eps, zv, zh, d2, xi], axis=1), q, rcond=None)[0].T
        np.testing.assert_allclose(slopes, r.matrix, atol=2e-3)

    def test_instrument_widths_in_mdeg(self, dfxm_geo: Resolution) -> None:
        """Al 111: phi 10.4, chi 57; with the rock integrated 2theta 22, ccmth 8.2. Si 111: chi 77. At 17 keV."""

        def widths(*motors: str) -> np.ndarray:
            jacobian = motor_jacobian(motors, 2 * THETA, mu=THETA, ccmth_deg=6.679671)
            return dfxm_geo.motor_sigma_rad(jacobian) * MDEG_PER_RAD

        assert widths("phi") == pytest.approx([10.4], abs=0.06)
        assert widths("phi", "chi") == pytest.approx([10.4, 57], rel=6e-3)
        assert widths("phi", "two_theta")[1] == pytest.approx(22, abs=0.1)
        assert widths("phi", "ccmth")[1] == pytest.approx(8.2, abs=0.05)
        fwhm = FWHM_PER_SIGMA * np.array([*widths("phi", "chi"), widths("phi", "two_theta")[1]]) * 1e-3
        np.testing.assert_allclose(fwhm, [0.025, 0.135, 0.052], atol=6e-4)
        silicon = Resolution(13.357 / 2, 5.3e-4 / 2.355, 0.0, 7.31e-4 / 2.35, 7.31e-4 / 2.35, 6.0e-5)
        assert silicon.conditional_rad[1] * MDEG_PER_RAD == pytest.approx(77, abs=0.5)

    def test_objective_off_the_arm_falls_with_its_own_acceptance(self, dfxm_geo: Resolution) -> None:
        jacobian = motor_jacobian(["two_theta"], 2 * THETA)
        s = dfxm_geo.motor_sigma_rad(jacobian)[0]
        assert s == pytest.approx(0.31e-3, abs=5e-6)
        offset = 0.4e-3
        assert dfxm_geo.weight(jacobian[:, 0] * offset) == pytest.approx(math.exp(-(offset**2) / (2 * s**2)))

    def test_scans_that_mix_tilt_and_strain(self, dfxm_geo: Resolution) -> None:
        """What a scan short of the full mesh makes of a pure strain and of a pure tilt."""
        theta = math.radians(THETA)
        tan_ccmth = math.tan(math.radians(6.679671))
        strained, tilted = np.array([0, 0, -1.0]), np.array([1.0, 0, 0])

        def peak(motors: list[str], q: np.ndarray) -> np.ndarray:
            return dfxm_geo.peak_rad(motor_jacobian(motors, 2 * THETA, mu=THETA, ccmth_deg=6.679671), q)

        assert abs(peak(["phi"], strained)[0]) == pytest.approx(0.049, abs=6e-4)
        mdeg = math.radians(1e-3)
        assert -peak(["two_theta"], strained)[0] / (2 * math.tan(theta)) == pytest.approx(0.50, abs=0.01)
        false_strain = abs(peak(["two_theta"], tilted)[0]) / (2 * math.tan(theta)) * mdeg
        assert false_strain == pytest.approx(5.5e-5, rel=0.02)
        assert peak(["ccmth"], strained)[0] / tan_ccmth == pytest.approx(1.0, abs=1e-9)
        assert abs(peak(["ccmth"], tilted)[0]) / tan_ccmth * mdeg == pytest.approx(3.5e-5, rel=0.02)
        mesh_strain, mesh_tilt = peak(["phi", "two_theta"], strained), peak(["phi", "two_theta"], tilted)
        assert mesh_strain[1] == pytest.approx(-2 * math.tan(theta))
        assert mesh_strain[0] == pytest.approx(-mesh_strain[1] / 2)
        assert mesh_tilt == pytest.approx([-1.0, 0.0], abs=1e-9)

    def test_perfect_crystal_curve_has_the_predicted_width(self, dfxm_geo: Resolution) -> None:
        angles = np.linspace(-6e-4, 6e-4, 2001)
        curve = dfxm_geo.weight(np.outer(angles, motor_jacobian(["phi"], 2 * THETA, mu=THETA)[:, 0]))
        half = angles[curve >= 0.5]
        assert half[-1] - half[0] == pytest.approx(FWHM_PER_SIGMA * dfxm_geo.conditional_rad[0], rel=5e-3)

    def test_mll_angular_resolution_is_worse(self) -> None:
        """NA of +-1.46 mrad: roll 0.365 deg FWHM, strain sigma 2.8e-3, where the CRL has 0.135 deg and 1.2e-3."""
        na = 1.46e-3 / math.sqrt(3)
        mll = Resolution(THETA, 2.25e-4, 0.0, na, na, 6e-5)
        assert math.degrees(FWHM_PER_SIGMA * mll.marginal_rad[1]) == pytest.approx(0.365, abs=1e-3)
        assert mll.marginal_rad[2] == pytest.approx(2.8e-3, abs=5e-5)

    def test_refuses_what_has_no_volume(self) -> None:
        flat = Resolution(THETA, 0.0, 0.0, 3e-4, 3e-4, 0.0)
        with pytest.raises(PhysicsError, match="no volume"):
            _ = flat.inverse_covariance
        with pytest.raises(PhysicsError, match="theta: 0 deg"):
            Resolution(0.0, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4)
        with pytest.raises(PhysicsError, match="eps_rms: nan"):
            Resolution(THETA, 1e-4, 1e-4, 1e-4, 1e-4, math.nan)

    def test_refuses_motors_that_do_the_same(self, dfxm_geo: Resolution) -> None:
        with pytest.raises(PhysicsError, match="the same way"):
            dfxm_geo.motor_sigma_rad(motor_jacobian(["mu", "phi"], 2 * THETA, mu=THETA))
        with pytest.raises(PhysicsError, match="does not move"):
            dfxm_geo.motor_sigma_rad(motor_jacobian(["omega"], 2 * THETA, mu=THETA))


class TestJacobian:
    def test_signs_at_the_usual_setting(self) -> None:
        jacobian = motor_jacobian(["phi", "chi", "mu", "omega"], 2 * THETA, mu=THETA)
        expected = [[1, 0, -1, 0], [0, -1, 0, 0], [0, 0, 0, 0]]
        np.testing.assert_allclose(jacobian, expected, atol=1e-12)

    @pytest.mark.parametrize("mu_sign", [-1, 1])
    def test_is_the_derivative_of_exact_diffraction_vectors(self, mu_sign: int) -> None:
        setting = {"mu": mu_sign * -THETA, "omega": 37.0, "chi": 4.0, "phi": -3.0}
        q0 = diffraction_vector(2 * THETA, 1.0)
        g_sample = goniometer_rotation(**setting, mu_sign=mu_sign).T @ q0
        jacobian = motor_jacobian(list(setting), 2 * THETA, **setting, mu_sign=mu_sign)
        step = 1e-3
        for column, motor in enumerate(setting):
            ahead = goniometer_rotation(**{**setting, motor: setting[motor] + step}, mu_sign=mu_sign) @ g_sample
            back = goniometer_rotation(**{**setting, motor: setting[motor] - step}, mu_sign=mu_sign) @ g_sample
            slope = imaging_basis(2 * THETA) @ (ahead - back) / np.linalg.norm(q0) / (2 * math.radians(step))
            np.testing.assert_allclose(jacobian[:, column], slope, atol=1e-8)

    def test_two_theta_and_energy_move_q0(self) -> None:
        crystal = diffraction_vector(2 * THETA, 1.0)

        def q(two_theta: float, wavelength: float) -> np.ndarray:
            q0 = diffraction_vector(two_theta, wavelength)
            return imaging_basis(2 * THETA) @ (crystal - q0) / np.linalg.norm(crystal)

        step = 1e-3
        arm = (q(2 * THETA + step, 1.0) - q(2 * THETA - step, 1.0)) / (2 * math.radians(step))
        energy = (q(2 * THETA, 1 / (1 + 1e-5)) - q(2 * THETA, 1 / (1 - 1e-5))) / 2e-5
        sine = math.sin(math.radians(6.68))
        ccmth = (q(2 * THETA, math.sin(math.radians(6.68 + step)) / sine) - q(2 * THETA, 1.0)) / math.radians(step)
        jacobian = motor_jacobian(["two_theta", "energy", "ccmth"], 2 * THETA, ccmth_deg=6.68)
        np.testing.assert_allclose(jacobian, np.stack([arm, energy, ccmth], axis=1), atol=2e-3)

    @pytest.mark.parametrize("omega", [0.0, 37.0, 90.0])
    def test_distortion_from_measured_motor_positions(self, omega: float) -> None:
        """H_13, H_23 from where two tilt motors bring a distorted crystal back to the middle: -J times their shifts."""
        setting = {"mu": THETA, "omega": omega, "chi": 4.0, "phi": -3.0}
        basis = imaging_basis(2 * THETA)
        q0 = diffraction_vector(2 * THETA, 1.0)
        h_13, h_23 = 3e-4, -2e-4
        distorted = q0 + np.linalg.norm(q0) * (h_13 * basis[0] + h_23 * basis[1])
        g_sample = goniometer_rotation(**setting).T @ distorted

        def miss(shift: np.ndarray) -> np.ndarray:
            moved = {**setting, "chi": 4.0 + shift[0], "phi": -3.0 + shift[1]}
            return (basis @ goniometer_rotation(**moved) @ g_sample)[:2] * 1e3

        shift = np.radians(fsolve(miss, [0.0, 0.0], xtol=1e-12))
        found = -motor_jacobian(["chi", "phi"], 2 * THETA, **setting) @ shift
        np.testing.assert_allclose(found[:2], [h_13, h_23], atol=2e-7)

    def test_signs_of_distortion(self) -> None:
        """Turned +w about y: H_13 = +w, phi = -w, mu = +w. Turned +w about x: H_23 = -w, chi = -w."""
        basis, q0 = imaging_basis(2 * THETA), diffraction_vector(2 * THETA, 1.0)
        w = 1e-4
        about_y = basis @ np.cross(w * np.array([0, 1, 0]), q0) / np.linalg.norm(q0)
        about_x = basis @ np.cross(w * basis[0], q0) / np.linalg.norm(q0)  # x of the crystal, tipped by mu
        np.testing.assert_allclose(about_y, [w, 0, 0], atol=1e-12)
        np.testing.assert_allclose(about_x, [0, -w, 0], atol=1e-12)
        j = motor_jacobian(["phi", "chi", "mu"], 2 * THETA, mu=THETA)
        np.testing.assert_allclose(about_y + j[:, 0] * -w, 0, atol=1e-12)
        np.testing.assert_allclose(about_x + j[:, 1] * -w, 0, atol=1e-12)
        np.testing.assert_allclose(about_y + j[:, 2] * +w, 0, atol=1e-12)

    def test_quarter_turn_of_omega_swaps_rock_and_roll(self) -> None:
        j = motor_jacobian(["chi", "phi"], 2 * THETA, mu=THETA, omega=90.0)
        np.testing.assert_allclose(np.abs(j[:2]), np.eye(2), atol=1e-12)

    def test_strain_scan_mesh_peaks_where_exact_bragg_says(self) -> None:
        """Crystal tilted by a about y and strained by e: 2theta moves by D = -2 tan(theta) e, phi peaks at -a - D/2."""
        tilt, strain = 2e-4, 1e-3
        arm = math.asin(math.sin(math.radians(THETA)) / (1 + strain)) * 2
        shift = arm - math.radians(2 * THETA)
        assert shift == pytest.approx(-2 * math.tan(math.radians(THETA)) * strain, rel=2e-3)
        g = goniometer_rotation(phi=math.degrees(tilt)) @ diffraction_vector(2 * THETA, 1.0) / (1 + strain)
        aligned = goniometer_rotation(phi=math.degrees(-tilt - shift / 2)) @ g
        np.testing.assert_allclose(aligned, diffraction_vector(math.degrees(arm), 1.0), atol=1e-12)

    def test_refuses_other_motors(self) -> None:
        with pytest.raises(PhysicsError, match="'samx' does not move"):
            motor_jacobian(["samx"], 2 * THETA)
        with pytest.raises(PhysicsError, match="ccmth: the angle"):
            motor_jacobian(["ccmth"], 2 * THETA)
        with pytest.raises(PhysicsError, match="two_theta: 0 deg"):
            motor_jacobian(["phi"], 0.0)
