"""The view of the microscope: distances, magnification, misalignment and widths follow from the positions."""

import json
import math
from typing import Any

import numpy as np
import pytest

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import PhysicsError
from dfxrm_control.geometry import diffraction_vector, goniometer_rotation
from dfxrm_control.microscope import Microscope, View

TWO_THETA = 17.946347
CRL = {"kind": "crl", "lenslets": 69, "radius_mm": 0.05, "pitch_mm": 1.6, "distance_mm": 344.72, "delta": 1.1795e-6}
MLL = {
    "kind": "mll",
    "focal_length_h_mm": 50.0,
    "focal_length_v_mm": 50.0,
    "design_energy_kev": 17.0,
    "outermost_zone_nm": 25.0,
    "aperture_h_um": 146.0,
    "aperture_v_um": 146.0,
    "efficiency_h": 0.775,
    "efficiency_v": 0.775,
    "distance_mm": 50.485,
}


def instrument(**changes: Any) -> InstrumentConfig:
    description = {
        "beam": {"energy_kev": 17.0, "divergence_v_rms_rad": 2.25e-4},
        "objectives": {"crl": CRL | {"attenuation_per_m": 47.0}, "mll": MLL},
        "cameras": {"far_field": {}, "near_field": {"position": "near_field", "objectives": {"10x": 10.0}}},
    }
    return InstrumentConfig.model_validate(description | changes)


@pytest.fixture
def microscope() -> Microscope:
    return Microscope(instrument())


def aligned(microscope: Microscope, x_mm: float = 5689.0, objective: str = "crl") -> dict[str, float]:
    arm = microscope.focused_arm(TWO_THETA, x_mm, objective)
    return {
        "obx": arm.obx,
        "oby": 0.0,
        "obz": arm.obz,
        "obpitch": arm.obpitch,
        "obyaw": 0.0,
        "mainx": arm.mainx,
        "ffy": 0.0,
        "ffz": arm.ffz,
        "ccmth": 6.679671,
        "mu": TWO_THETA / 2,
        "omega": 0.0,
        "chi": 0.0,
        "phi": 0.0,
        "nfx": 100.0,
        "nfy": 0.0,
        "nfz": 32.0,
    }


def moved(microscope: Microscope, channels: dict[str, Any] | None = None, **by: float) -> View:
    positions = aligned(microscope)
    return microscope.view(
        {axis: value + by.get(axis, 0.0) for axis, value in positions.items()}, "far_field", channels or {}
    )


class TestAligned:
    def test_is_in_focus_and_centred(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope), "far_field", {})
        assert view.energy_kev == pytest.approx(17.0, abs=1e-6)
        assert view.two_theta_deg == pytest.approx(TWO_THETA) and view.arm_two_theta_deg == pytest.approx(TWO_THETA)
        assert view.total_mm == pytest.approx(5689.0 / math.cos(math.radians(TWO_THETA)))
        assert view.magnification_v == pytest.approx(16.27, abs=0.01)
        assert view.magnification_h == view.magnification_v == pytest.approx(view.in_focus_magnification_v, rel=1e-6)
        assert view.defocus_mm == pytest.approx(0.0, abs=1e-5) and view.defocus_h_mm == view.defocus_mm
        assert (view.offset_u_mm, view.offset_v_mm) == pytest.approx((0.0, 0.0), abs=1e-9)
        assert view.d1_mm + 110.4 + view.d2_mm == pytest.approx(view.total_mm)
        assert view.image_sign == -1 and view.objective_name == "crl"
        assert (view.alignment_efficiency, view.yaw_deg) == pytest.approx((1.0, 0.0))

    def test_pixels_and_field(self, microscope: Microscope) -> None:
        """p/M across, p/(M sin 2theta) along the beam; the 2x objective covers five times as much."""
        view = microscope.view(aligned(microscope), "far_field", {})
        assert view.pixel_um == pytest.approx(0.65)
        assert view.pixel_y_um == pytest.approx(0.65 / view.magnification_h)
        assert view.pixel_x_um == pytest.approx(view.pixel_y_um / math.sin(math.radians(TWO_THETA)))
        assert view.field_of_view_um == pytest.approx((2048 * view.pixel_x_um, 2048 * view.pixel_y_um))
        wide = microscope.view(aligned(microscope), "far_field", {"far_field_camera_objective": "2x"})
        assert wide.pixel_y_um == pytest.approx(5 * view.pixel_y_um)

    def test_constant_x_changes_length_and_magnification(self, microscope: Microscope) -> None:
        low, high = (
            microscope.view(
                {"ccmth": 6.679671, "obx": arm.obx, "obz": arm.obz, "mainx": arm.mainx, "ffz": arm.ffz}, "far_field", {}
            )
            for arm in (microscope.arm(angle, -5000.0, "crl") for angle in (15.0, 25.0))
        )
        assert high.total_mm / low.total_mm == pytest.approx(
            math.cos(math.radians(15.0)) / math.cos(math.radians(25.0))
        )
        assert high.magnification_v > 1.06 * low.magnification_v
        assert low.centre_mm == pytest.approx(344.72) and high.centre_mm == pytest.approx(344.72)

    def test_mll_figures(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope, 5000.0, "mll"), "far_field", {"objective_kind": "mll"})
        assert view.magnification_v == pytest.approx(103, abs=0.3)
        along, across = view.field_of_view_um
        assert (across, along) == pytest.approx((13, 42), rel=0.01)
        assert view.in_focus_half_length_um == pytest.approx(9, abs=0.25)
        assert view.transmission == pytest.approx(0.60, abs=1e-3)
        assert view.instrument_fwhm(["phi", "chi"])["chi"] == pytest.approx(0.365, rel=0.015)
        assert view.resolution is not None
        assert view.resolution.marginal_rad[2] == pytest.approx(2.8e-3, rel=0.03)

    def test_record_is_plain_json(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope), "far_field", {})
        record = json.loads(json.dumps(view.record(), allow_nan=False))
        assert record["magnification_v"] == view.magnification_v and record["objective"] == "crl"
        assert record["effective_resolution_v_um"] == view.blur("v").total_um
        direct = microscope.view({**aligned(microscope), "nfz": 0.0}, "near_field", {})
        assert "pixel_x_um" not in json.loads(json.dumps(direct.record(), allow_nan=False))


class TestInstrumentWidths:
    def test_follow_the_acceptance_at_the_actual_distance(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope), "far_field", {})
        na = microscope.objectives["crl"].acceptance(17.0, view.d1_mm).rms_rad
        assert view.resolution is not None
        assert view.resolution.na_v_rms_rad == pytest.approx(na) == pytest.approx(0.2689e-3, rel=1e-3)
        sigma = view.instrument_sigma(["phi", "chi"])
        np.testing.assert_allclose(np.radians(list(sigma.values())), view.resolution.conditional_rad[:2], rtol=1e-9)

    def test_strain_scans_in_the_motors_units(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope), "far_field", {})
        assert view.resolution is not None
        par = view.resolution.marginal_rad[2]
        two_theta = view.instrument_sigma(["mu", "two_theta"])["two_theta"]
        assert math.radians(two_theta) == pytest.approx(2 * math.tan(math.radians(TWO_THETA / 2)) * par)
        assert view.instrument_sigma(["mu", "energy"])["energy"] == pytest.approx(17.0 * par)
        ccmth = view.instrument_sigma(["mu", "ccmth"])["ccmth"]
        assert math.radians(ccmth) == pytest.approx(math.tan(math.radians(6.679671)) * par)

    def test_jacobian_is_the_derivative_of_the_view(self, microscope: Microscope) -> None:
        """Move the real axes, ask each view for q of the same crystal."""
        crystal = diffraction_vector(TWO_THETA, 12.398419843 / 17.0)
        start = microscope.view(aligned(microscope), "far_field", {})
        jacobian = start.jacobian(["phi", "chi", "two_theta", "ccmth"])
        step = 1e-3

        def q(**by: float) -> np.ndarray:
            turned = goniometer_rotation(phi=by.pop("phi", 0.0), chi=by.pop("chi", 0.0))
            # chi sits on mu: its axis is tipped with it
            tipped = goniometer_rotation(mu=TWO_THETA / 2)
            return moved(microscope, **by).relative_q(tipped @ turned @ tipped.T @ crystal)

        arm = microscope.focused_arm(TWO_THETA + step, 5689.0, "crl")
        here = aligned(microscope)
        columns = {
            0: q(phi=step),
            1: q(chi=step),
            2: q(obx=arm.obx - here["obx"], obz=arm.obz - here["obz"], ffz=arm.ffz - here["ffz"]),
            3: q(ccmth=step),
        }
        for column, there in columns.items():
            slope = (there - q()) / math.radians(step)
            np.testing.assert_allclose(slope, jacobian[:, column], atol=3e-3 * max(1.0, np.abs(slope).max()))

    def test_needs_an_objective(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope), "far_field", {"objective_in": "out"})
        with pytest.raises(PhysicsError, match="no objective in the path"):
            view.instrument_sigma(["phi"])


class TestMisalignment:
    def test_objective_moved_sideways_shifts_the_image_by_m_plus_1(self, microscope: Microscope) -> None:
        d = 0.02
        view = moved(microscope, oby=d)
        assert view.offset_u_mm == pytest.approx((view.magnification_h + 1) * d, rel=1e-4)
        assert view.offset_v_mm == pytest.approx(0.0, abs=1e-4)
        assert view.yaw_deg == pytest.approx(math.degrees(d / view.centre_mm), rel=1e-4)
        assert view.q0[1] > 0

    def test_objective_moved_up_the_arm_circle(self, microscope: Microscope) -> None:
        """Across the diffracted beam by d at constant pitch: (M+1) d; the intensity of a perfect crystal falls."""
        d, angle = 0.1, math.radians(TWO_THETA)
        view = moved(microscope, obx=-d * math.sin(angle), obz=d * math.cos(angle))
        assert view.offset_v_mm == pytest.approx((view.magnification_v + 1) * d, rel=2e-3)
        tilt = math.radians(view.two_theta_deg - TWO_THETA)
        assert tilt == pytest.approx(d / view.centre_mm, rel=1e-4)
        assert view.pitch_error_rad == pytest.approx(-tilt)
        assert view.resolution is not None
        crystal = diffraction_vector(TWO_THETA, 12.398419843 / 17.0)
        weight = float(view.resolution.weight(view.relative_q(crystal)))
        assert weight == pytest.approx(math.exp(-(tilt**2) / 2 / view.acceptance("v").rms_rad ** 2), rel=0.01)

    def test_perfect_crystal_is_brightest_on_the_arm(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope), "far_field", {})
        lattice = Lattice.from_parameters(4.0495, 4.0495, 4.0495, space_group="F m -3 m")
        g = goniometer_rotation(mu=TWO_THETA / 2) @ (0, 0, 1 / lattice.d_spacing((1, 1, 1)))
        np.testing.assert_allclose(view.relative_q(g), 0.0, atol=1e-7)

    def test_detector_moved_shifts_the_image_only(self, microscope: Microscope) -> None:
        start, view = moved(microscope), moved(microscope, ffy=0.3, ffz=0.2)
        assert view.offset_u_mm == pytest.approx(-0.3)
        assert view.offset_v_mm == pytest.approx(-0.2 * math.cos(math.radians(TWO_THETA)))
        assert view.two_theta_deg == start.two_theta_deg and view.yaw_deg == 0.0
        np.testing.assert_array_equal(view.q0, start.q0)
        assert view.magnification_v == pytest.approx(start.magnification_v, rel=1e-4)
        assert view.arm_two_theta_deg > start.arm_two_theta_deg

    def test_objective_along_the_beam_defocuses(self, microscope: Microscope) -> None:
        d, angle = 0.1, math.radians(TWO_THETA)
        view = moved(microscope, obx=d * math.cos(angle), obz=d * math.sin(angle))
        assert view.defocus_mm == pytest.approx(d, rel=0.02)
        blur = view.blur("v")
        assert blur.defocus_um == pytest.approx(2.3548 * view.acceptance("v").rms_rad * view.defocus_mm * 1e3, rel=1e-4)
        assert (view.offset_u_mm, view.offset_v_mm) == pytest.approx((0.0, 0.0), abs=1e-9)
        nearer = moved(microscope, obx=-d * math.cos(angle), obz=-d * math.sin(angle))
        assert nearer.defocus_mm == pytest.approx(-d, rel=0.02)

    def test_another_energy_defocuses_and_shifts_q(self, microscope: Microscope) -> None:
        view = moved(microscope, ccmth=0.01)
        assert view.energy_kev < 17.0
        # f grows with E^2: the sharp plane comes nearer at lower energy, so the sample is too far
        assert view.defocus_mm > 0.5
        q = view.relative_q(diffraction_vector(TWO_THETA, 12.398419843 / 17.0))
        assert q[2] == pytest.approx(math.radians(0.01) / math.tan(math.radians(6.679671)), rel=0.01)

    @pytest.mark.parametrize(("kind", "share"), [("crl", 2.0), ("mll", 1.0)])
    def test_a_lens_that_follows_the_energy_stays_in_focus_on_its_ray(
        self, microscope: Microscope, kind: str, share: float
    ) -> None:
        positions = aligned(microscope, objective=kind) | {"oby": 0.2}
        channels = {"objective_kind": kind}
        before = microscope.view(positions, "far_field", channels)
        other = positions | {"ccmth": positions["ccmth"] * 1.004}
        left = microscope.view(other, "far_field", channels)
        moved = before.refocused(left.energy_kev)
        assert set(moved) == {"obx", "oby", "obz"}
        after = microscope.view(other | moved, "far_field", channels)
        assert abs(after.defocus_mm - before.defocus_mm) < 2e-3 * abs(left.defocus_mm - before.defocus_mm)
        assert after.two_theta_deg == pytest.approx(before.two_theta_deg, abs=1e-9)
        assert after.yaw_deg == pytest.approx(before.yaw_deg, abs=1e-9)
        # f goes as E^2 for refraction and as E for diffraction, and the distance of the lens nearly as f
        relative = (after.centre_mm - before.centre_mm) / before.centre_mm
        assert relative == pytest.approx(share * (left.energy_kev / before.energy_kev - 1.0), rel=0.1)
        assert after.magnification_v != pytest.approx(before.magnification_v, rel=5e-4 * share)

    def test_without_a_lens_there_is_no_focus_to_follow(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope), "far_field", {"objective_in": "out"})
        with pytest.raises(PhysicsError, match="no objective in the path"):
            view.refocused(17.1)

    def test_mll_out_of_its_design_tilt_is_less_efficient(self, microscope: Microscope) -> None:
        positions = aligned(microscope, 5000.0, "mll")
        tilted = {**positions, "obpitch": positions["obpitch"] + math.degrees(2e-3)}
        straight, view = (microscope.view(p, "far_field", {"objective_kind": "mll"}) for p in (positions, tilted))
        assert view.pitch_error_rad == pytest.approx(2e-3)
        assert view.transmission / straight.transmission == pytest.approx(math.exp(-0.5))
        assert view.axial_transmission / straight.axial_transmission == pytest.approx(math.exp(-0.5))
        # turned about its centre a thin lens moves no image
        assert (view.offset_u_mm, view.offset_v_mm) == pytest.approx((0.0, 0.0), abs=2e-2)


class TestWithoutParts:
    def test_objective_out(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope), "far_field", {"objective_in": "out"})
        assert view.objective is None and view.resolution is None and view.image_sign == 1
        assert (view.magnification_v, view.transmission, view.axial_transmission) == (1.0, 1.0, 1.0)
        assert view.two_theta_deg == pytest.approx(TWO_THETA) and view.pixel_y_um == pytest.approx(0.65)
        with pytest.raises(PhysicsError, match="forms no image"):
            view.blur("v")

    def test_near_field_never_looks_through_the_lens(self, microscope: Microscope) -> None:
        view = microscope.view(aligned(microscope), "near_field", {"objective_in": "in"})
        assert view.objective is None
        assert view.two_theta_deg == pytest.approx(math.degrees(math.atan2(32.0, 100.0)))
        assert view.total_mm == pytest.approx(math.hypot(100.0, 32.0))

    def test_monochromator_out_or_absent(self, microscope: Microscope) -> None:
        positions = {**aligned(microscope), "ccmth": 6.0}
        assert microscope.energy_kev(positions, {"mono": "in"}) == pytest.approx(18.918, abs=1e-3)
        assert microscope.energy_kev(positions, {"mono": "out"}) == 17.0
        bare = Microscope(instrument(monochromator=None))
        assert bare.energy_kev({}, {"mono": "in"}) == 17.0

    def test_direct_beam_has_no_diffraction_vector(self, microscope: Microscope) -> None:
        centre = microscope.arm(TWO_THETA, 5689.0).obx
        view = microscope.view(
            {"obx": centre, "obz": 0.0, "mainx": -5689.0, "ffz": 0.0, "ccmth": 6.679671}, "far_field", {}
        )
        assert view.resolution is None and view.pixel_x_um == math.inf
        with pytest.raises(PhysicsError, match="direct beam"):
            view.relative_q(np.array([0.0, 0.0, 0.4]))


class TestBadInput:
    @pytest.mark.parametrize(
        ("camera", "channels", "without", "message"),
        [
            ("eiger", {}, None, "'eiger' is not configured; there are far_field, near_field"),
            ("far_field", {"objective_kind": "fzp"}, None, "'fzp' is not configured; there are crl, mll"),
            ("far_field", {"far_field_camera_objective": "5x"}, None, "no objective '5x'; it has 10x, 2x"),
            ("far_field", {}, "obz", "axis 'obz': its position is needed"),
            ("far_field", {}, "ccmth", "axis 'ccmth': its position is needed"),
            ("near_field", {}, "nfx", "axis 'nfx': its position is needed"),
        ],
    )
    def test_names_the_thing(
        self, microscope: Microscope, camera: str, channels: dict[str, Any], without: str | None, message: str
    ) -> None:
        positions = aligned(microscope)
        if without:
            del positions[without]
        with pytest.raises(PhysicsError, match=message):
            microscope.view(positions, camera, channels)

    def test_parts_at_the_sample(self, microscope: Microscope) -> None:
        positions = aligned(microscope)
        with pytest.raises(PhysicsError, match="stands at the sample"):
            microscope.view({**positions, "nfx": 0.0, "nfz": 0.0}, "near_field", {})
        with pytest.raises(PhysicsError, match="stands at the sample"):
            microscope.view({**positions, "obx": 0.0, "obz": 0.0}, "far_field", {})
