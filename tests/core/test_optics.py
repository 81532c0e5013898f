"""Objectives against lenslet-by-lenslet ray tracing and the numbers of the literature (Simons 2017, Poulsen 2017)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from dfxrm_control.errors import PhysicsError
from dfxrm_control.optics import (
    Axis,
    CompoundRefractiveLens,
    MultilayerLaueLens,
    Objective,
    attenuation_per_m,
    refractive_decrement,
)

E = 17.0
WAVELENGTH_MM = 12.398419843 / E * 1e-7
CAMERA_PIXEL_UM = 0.65  # 6.5 um behind the 10x visible objective


@pytest.fixture
def poulsen() -> CompoundRefractiveLens:
    """The set-up of Poulsen et al. 2017."""
    return CompoundRefractiveLens(69, 0.05, 1.6, delta=1.1795e-6, attenuation_per_m=47.0)


@pytest.fixture
def id03() -> CompoundRefractiveLens:
    """88 lenslets, which put the lens of the real 2024 header in focus."""
    return CompoundRefractiveLens(88, 0.05, 1.6, delta=1.1795e-6, attenuation_per_m=47.0)


@pytest.fixture
def mll() -> MultilayerLaueLens:
    """The lens of the seed: f 5 cm, outermost zones 25 nm, two lenses of 77.5 %."""
    return MultilayerLaueLens(50.0, 50.0, E, 25.0, 146.0, 146.0, 0.775, 0.775)


def trace(
    lens: CompoundRefractiveLens, energy: float, y0: float, alpha: float, d1: float
) -> tuple[np.ndarray, float, float]:
    """Ray through every lenslet by hand: heights at the lenslets, and height and angle at the exit plane."""
    f = lens.radius_mm / (2 * lens.refractive_decrement(energy))
    y, angle, heights = y0 + d1 * alpha, alpha, []
    for _ in range(lens.lenslets):
        y += angle * lens.pitch_mm / 2
        heights.append(y)
        angle -= y / f
        y += angle * lens.pitch_mm / 2
    return np.array(heights), y, angle


class TestMaterials:
    @pytest.mark.parametrize(
        ("energy", "delta", "mu"), [(15.0, 1.51413e-6, 56.7), (17.0, 1.17872e-6, 48.6), (35.0, 2.7802e-7, 31.4)]
    )
    def test_beryllium(self, energy: float, delta: float, mu: float) -> None:
        assert refractive_decrement("Be", energy) == pytest.approx(delta, rel=1e-5)
        assert attenuation_per_m("Be", energy) == pytest.approx(mu, abs=0.06)

    def test_compound_needs_its_density(self) -> None:
        assert refractive_decrement("C5H8O2", 17.0, 1.18) == pytest.approx(9.24e-7, rel=0.02)
        with pytest.raises(PhysicsError, match="'C5H8O2' is a compound; give its density"):
            refractive_decrement("C5H8O2", 17.0)

    def test_refuses_no_formula_and_no_such_energy(self) -> None:
        with pytest.raises(PhysicsError, match="'Unobtainium' is not a chemical formula"):
            attenuation_per_m("Unobtainium", 17.0)
        with pytest.raises(PhysicsError, match="'Be' at -1 keV"):
            refractive_decrement("Be", -1.0)


class TestPoulsenLens:
    """The published lens (Poulsen et al. 2017), column by column."""

    def test_thick_lens(self, poulsen: CompoundRefractiveLens) -> None:
        assert poulsen.lenslet_focal_length_mm(E) * 1e-3 == pytest.approx(21.1954, abs=5e-5)
        phi = poulsen.cell_angle_rad(E)
        assert phi == pytest.approx(0.0086884, abs=5e-8)
        assert 69 * phi == pytest.approx(0.5995, abs=5e-5)
        a, b, c, d = poulsen.ray_matrix(E)
        assert b / math.sin(69 * phi) * 1e-3 == pytest.approx(0.184152, abs=5e-7)
        assert a * d - b * c == pytest.approx(1.0, abs=1e-14)
        assert poulsen.focal_length_mm(E) * 1e-3 == pytest.approx(0.269463, abs=1e-6)
        assert poulsen.effective_focal_length_mm(E) * 1e-3 == pytest.approx(0.326378, abs=1e-6)
        assert poulsen.length_mm * 1e-3 == pytest.approx(0.1104)
        thin = 21195.4 / 69
        assert poulsen.focal_length_mm(E) == pytest.approx(thin - 110.4 / 3, rel=0.01)

    def test_planes(self, poulsen: CompoundRefractiveLens) -> None:
        planes = poulsen.planes(E, 16.27)
        assert planes.d1_mm * 1e-3 == pytest.approx(0.289523, abs=1e-6)
        assert planes.d2_mm * 1e-3 == pytest.approx(5.57963, abs=1e-5)
        assert planes.total_mm * 1e-3 == pytest.approx(5.97956, abs=1e-5)
        assert planes.centre_mm * 1e-3 == pytest.approx(0.34472, abs=5e-6)
        phi = poulsen.cell_angle_rad(E)
        a = poulsen.ray_matrix(E)[1] / math.sin(69 * phi)
        assert planes.d2_mm * math.sin(69 * phi) / a - math.cos(69 * phi) == pytest.approx(16.27, abs=1e-9)
        imaging = 1 / planes.d1_mm + 1 / planes.d2_mm + a * math.tan(69 * phi) / (planes.d1_mm * planes.d2_mm)
        assert imaging == pytest.approx(1 / poulsen.focal_length_mm(E), rel=1e-12)

    def test_acceptance(self, poulsen: CompoundRefractiveLens) -> None:
        d1 = poulsen.planes(E, 16.27).d1_mm
        sigma = poulsen.acceptance(E, d1).rms_rad
        heights, *_ = trace(poulsen, E, 0.0, 1.0, d1)
        discrete = math.sqrt(0.05 / (2 * 47e-3 * np.sum(heights**2)))
        assert discrete * 1e3 == pytest.approx(0.2689, abs=5e-5)
        assert sigma == pytest.approx(discrete, rel=1e-10)
        # the closed form of Simons 2017 as coded in acjak's sigmacalc.py, and the thin limit
        n, phi = 69, poulsen.cell_angle_rad(E)
        a = poulsen.ray_matrix(E)[1] / math.sin(n * phi)
        bracket = n + 1 - math.sin((n + 1) * phi) * math.cos((n - 1) * phi + 2 * math.atan(d1 / a)) / phi
        simons = math.sqrt(0.05 / (47e-3 * (d1**2 + a**2) * bracket))
        assert simons * 1e3 == pytest.approx(0.2674, abs=5e-5)
        thin = 1.1795e-6 * 16.27 / 17.27 * math.sqrt(2 * 69 / (47e-3 * 0.05))
        assert thin * 1e3 == pytest.approx(0.2693, abs=5e-5)
        assert sigma == pytest.approx(simons, rel=0.01) and sigma == pytest.approx(thin, rel=0.01)
        assert poulsen.acceptance(E, d1).fwhm_rad * 1e3 == pytest.approx(0.633, abs=5e-4)
        assert poulsen.acceptance_rms_rad(E, d1) == (sigma, sigma)

    def test_aperture_and_transmission(self, poulsen: CompoundRefractiveLens) -> None:
        d1 = poulsen.planes(E, 16.27).d1_mm
        assert poulsen.half_aperture_mm * 1e3 == pytest.approx(282.8, abs=0.05)
        assert 2 * poulsen.half_aperture_mm / d1 * 1e3 == pytest.approx(1.954, abs=5e-4)
        assert poulsen.transmission(E, d1) == pytest.approx(0.14, abs=0.005)
        heights, *_ = trace(poulsen, E, 0.0, 1.0, d1)
        radius = np.linspace(0, poulsen.half_aperture_mm / d1, 4001)
        rays = np.exp(-47e-3 * (69 * 0.03 + np.sum(heights**2) / 0.05 * radius**2))
        assert poulsen.transmission(E, d1) == pytest.approx(
            np.trapezoid(rays * radius, radius) * 2 / radius[-1] ** 2, rel=1e-5
        )

    def test_reference_plane_matters(self, poulsen: CompoundRefractiveLens) -> None:
        """Half a pitch, 0.8 mm at d1 = 0.2893 m, turns M = 16.27 into 17.0."""
        a, _, c, d = poulsen.ray_matrix(E)
        d1 = poulsen.planes(E, 16.27).d1_mm - 0.8
        assert -1 / (c * d1 + d) == pytest.approx(17.0, abs=0.06)


class TestId03Lens:
    def test_focus_of_the_real_header(self, id03: CompoundRefractiveLens) -> None:
        planes = id03.focused(E, 5256.7)
        assert planes.centre_mm == pytest.approx(276.63, abs=1.5)
        assert 36.1 <= CAMERA_PIXEL_UM / planes.magnification * 1e3 <= 36.75
        assert CAMERA_PIXEL_UM / planes.magnification / math.sin(math.radians(17.98)) * 1e3 == pytest.approx(
            118.9, abs=0.4
        )
        field = 2048 * CAMERA_PIXEL_UM / planes.magnification
        assert field == pytest.approx(75, abs=0.3)
        assert field / math.sin(math.radians(17.98)) == pytest.approx(243, abs=1)
        centre_ratio = 5256.7 / planes.centre_mm - 1  # darfix: -mainx/obx - 1
        assert centre_ratio / planes.magnification == pytest.approx(1.015, abs=0.01)
        assert id03.axial_transmission(E) == pytest.approx(0.88, abs=0.005)

    def test_resolution_figures(self, id03: CompoundRefractiveLens) -> None:
        """At sigma_a 0.304 mrad: diffraction 45 nm, depth of field 140 um, one pixel of blur at 51 um."""
        planes = id03.focused(E, 5256.7)
        sigma = id03.acceptance(E, planes.d1_mm).rms_rad
        assert sigma == pytest.approx(0.304e-3, rel=0.01)
        assert id03.diffraction_um(E, planes.d1_mm) * 1e3 == pytest.approx(45, rel=0.01)
        assert id03.depth_of_field_um(E, planes.d1_mm) == pytest.approx(140, rel=0.03)
        pixel = CAMERA_PIXEL_UM / planes.magnification
        blur = id03.effective_resolution(E, planes.d1_mm, pixel, 0.051)
        assert blur.defocus_um == pytest.approx(pixel, rel=0.02)

    def test_gaussian_pupil_by_fourier_transform(self, id03: CompoundRefractiveLens) -> None:
        """The amplitude in the pupil is the root of the intensity; its transform squared is the point spread."""
        d1 = id03.focused(E, 5256.7).d1_mm
        sigma = id03.acceptance(E, d1).rms_rad
        angle = np.linspace(-8 * sigma, 8 * sigma, 4001)
        x_um = np.linspace(0, 0.06, 601)
        phase = 2 * math.pi * np.outer(x_um * 1e-3, angle) / WAVELENGTH_MM
        spread = (np.exp(-(angle**2) / (4 * sigma**2)) * np.cos(phase)).sum(axis=1) ** 2
        half = np.interp(-0.5, -spread / spread[0], x_um)
        assert 2 * half == pytest.approx(id03.diffraction_um(E, d1), rel=1e-3)


def excess(magnification: float, lens: Objective, axis: Axis, total_mm: float) -> float:
    return lens.planes(E, magnification, axis).total_mm - total_mm


class TestLensLaws:
    @given(st.integers(1, 120), st.floats(14.0, 40.0), st.floats(150.0, 700.0))
    @settings(max_examples=40, deadline=None)
    def test_closed_sums_are_the_lenslet_sums(self, n: int, energy: float, d1: float) -> None:
        lens = CompoundRefractiveLens(n, 0.05, 1.6)
        accepted = lens.acceptance(energy, d1)
        p, exit_height, exit_angle = trace(lens, energy, 1.0, 0.0, 0.0)
        b, b_height, b_angle = trace(lens, energy, 0.0, 1.0, d1)
        scale = 0.05 / (2 * lens.attenuation_per_mm(energy))
        assert accepted.rms_rad == pytest.approx(math.sqrt(scale / np.sum(b**2)), rel=1e-9)
        assert accepted.chief_ray_rad_per_mm == pytest.approx(-np.sum(p * b) / np.sum(b**2), rel=1e-9)
        residual = np.sum(p**2) - np.sum(p * b) ** 2 / np.sum(b**2)
        if n == 1:
            assert accepted.field_rms_mm == math.inf
        elif residual > 1e-9:
            assert accepted.field_rms_mm == pytest.approx(math.sqrt(scale / residual), rel=1e-5)
        a_, b_, c_, d_ = lens.ray_matrix(energy)
        assert (a_, c_) == pytest.approx((exit_height, exit_angle), rel=1e-9)
        assert (a_ * d1 + b_, c_ * d1 + d_) == pytest.approx((b_height, b_angle), rel=1e-9)

    @given(st.floats(1.5, 120.0), st.sampled_from(["v", "h"]))
    @settings(max_examples=30, deadline=None)
    def test_magnification_and_distance_are_inverse(self, magnification: float, axis: str) -> None:
        for lens in (
            CompoundRefractiveLens(69, 0.05, 1.6),
            MultilayerLaueLens(51.0, 50.0, E, 25.0, 146.0, 146.0, 0.8, 0.8, separation_mm=1.0),
        ):
            planes = lens.planes(E, magnification, axis)
            assert lens.magnification(E, planes.total_mm, axis) == pytest.approx(magnification, rel=1e-9)
            root = brentq(excess, 1.0 + 1e-9, 1e3, args=(lens, axis, planes.total_mm), xtol=1e-11)
            assert root == pytest.approx(magnification, rel=1e-9)
            image = lens.image(E, planes.centre_mm, planes.total_mm, axis)
            assert image.magnification == pytest.approx(magnification, rel=1e-9)
            assert image.defocus_mm == pytest.approx(0.0, abs=1e-8)

    def test_out_of_focus_image_against_traced_rays(self, poulsen: CompoundRefractiveLens) -> None:
        """Sample 0.2 mm too far: chief-ray magnification, blur and sharp plane by tracing a bundle."""
        planes = poulsen.planes(E, 16.27)
        image = poulsen.image(E, planes.centre_mm + 0.2, planes.total_mm)
        d1, d2 = planes.d1_mm + 0.2, planes.d2_mm - 0.2
        assert (image.d1_mm, image.d2_mm) == pytest.approx((d1, d2))
        alpha = np.linspace(-1.5e-3, 1.5e-3, 1501)

        def centroid_and_rms(y0: float) -> tuple[float, float]:
            traced = [trace(poulsen, E, y0, angle, d1) for angle in alpha]
            weight = np.array([math.exp(-47e-3 / 0.05 * np.sum(heights**2)) for heights, *_ in traced])
            landed = np.array([y + angle * d2 for _, y, angle in traced])
            mean = np.average(landed, weights=weight)
            return float(mean), math.sqrt(np.average((landed - mean) ** 2, weights=weight))

        (centre, rms), (moved, _) = centroid_and_rms(0.0), centroid_and_rms(0.02)
        assert centre == pytest.approx(0.0, abs=1e-9)
        assert moved / 0.02 == pytest.approx(-image.magnification, rel=1e-5)
        expected = poulsen.acceptance(E, d1).rms_rad * abs(image.defocus_mm) * image.in_focus_magnification
        assert rms == pytest.approx(expected, rel=1e-3)
        sharp = poulsen.image(E, planes.centre_mm + 0.2 - image.defocus_mm, planes.total_mm - image.defocus_mm)
        assert sharp.defocus_mm == pytest.approx(0.0, abs=1e-9)
        behind = poulsen.image(E, planes.centre_mm + 0.2, planes.total_mm - image.image_error_mm)
        assert behind.defocus_mm == pytest.approx(0.0, abs=1e-9)
        assert image.defocus_mm > 0 and image.image_error_mm > 0

    def test_focal_length_follows_energy(self, mll: MultilayerLaueLens) -> None:
        """f of a CRL grows with E^2, f of an MLL with E."""
        single = CompoundRefractiveLens(1, 0.05, 1.6, delta=1.1795e-6, delta_energy_kev=E)
        assert single.lenslet_focal_length_mm(2 * E) == pytest.approx(4 * single.lenslet_focal_length_mm(E))
        database = CompoundRefractiveLens(1, 0.05, 1.6)
        assert database.lenslet_focal_length_mm(34.0) / database.lenslet_focal_length_mm(17.0) == pytest.approx(
            4, rel=2e-3
        )
        assert mll.focal_length_mm(2 * E) == pytest.approx(100.0)

    def test_tilted_lens_by_rays(self, poulsen: CompoundRefractiveLens) -> None:
        tilt = 1e-3
        heights = tilt * 1.6 * (np.arange(69) - 34)
        expected = math.exp(-47e-3 / 0.05 * np.sum(heights**2))
        assert poulsen.alignment_efficiency(E, tilt, 0.0) == pytest.approx(expected)
        assert poulsen.alignment_efficiency(E, 0.6e-3, 0.8e-3) == pytest.approx(expected)
        assert poulsen.alignment_efficiency(E, 0.0, 0.0) == 1.0

    def test_refuses_what_cannot_be(self, poulsen: CompoundRefractiveLens) -> None:
        with pytest.raises(PhysicsError, match=r"total distance: 500 mm .* needs 13\d\d\.\d mm or more"):
            poulsen.magnification(E, 500.0)
        with pytest.raises(PhysicsError, match="magnification: -3"):
            poulsen.planes(E, -3.0)
        with pytest.raises(PhysicsError, match="overlaps sample or detector"):
            poulsen.image(E, 40.0, 5000.0)
        with pytest.raises(PhysicsError, match="farther than the focal length of 269.5 mm"):
            poulsen.image(E, 5000.0, 5200.0)
        with pytest.raises(PhysicsError, match="does not bring"):
            CompoundRefractiveLens(500, 0.05, 1.6, delta=1.1795e-6).focal_length_mm(E)
        with pytest.raises(PhysicsError, match="too strong"):
            CompoundRefractiveLens(5, 0.05, 1.6, delta=0.9).planes(E, 3.0)
        with pytest.raises(PhysicsError, match="0 lenslets"):
            CompoundRefractiveLens(0, 0.05, 1.6)


class TestMll:
    def test_figures_of_the_seed(self, mll: MultilayerLaueLens) -> None:
        """The planned lens: NA 1.46 mrad, aperture 146 um, 22 nm, M 103, field 13 x 42 um, depth +-9 um, 60 %."""
        assert mll.focal_length_mm(E) == pytest.approx(50.0)
        assert mll.numerical_aperture(E) * 1e3 == pytest.approx(1.46, abs=5e-3)
        assert 2 * mll.half_aperture_mm() * 1e3 == pytest.approx(146, abs=0.2)
        planes = mll.focused(E, 5256.7)
        assert planes.magnification == pytest.approx(103, abs=0.3)
        assert mll.diffraction_um(E, planes.d1_mm) * 1e3 == pytest.approx(22, abs=0.5)
        across = 2048 * CAMERA_PIXEL_UM / planes.magnification
        two_theta = math.radians(17.953)
        assert across == pytest.approx(13, abs=0.1)
        assert across / math.sin(two_theta) == pytest.approx(42, abs=0.2)
        assert mll.depth_of_field_um(E, planes.d1_mm) / math.cos(two_theta) == pytest.approx(9, abs=0.25)
        assert mll.transmission(E, planes.d1_mm) == pytest.approx(0.60, abs=1e-3)

    def test_slit_pupil_by_fourier_transform(self, mll: MultilayerLaueLens) -> None:
        d1 = mll.focused(E, 5256.7).d1_mm
        half_angle = mll.half_aperture_mm() / d1
        x_um = np.linspace(0, 0.03, 3001)
        spread = np.sinc(2 * half_angle * x_um * 1e-3 / WAVELENGTH_MM) ** 2
        assert 2 * np.interp(-0.5, -spread, x_um) == pytest.approx(mll.diffraction_um(E, d1), rel=1e-4)

    def test_rms_of_a_hard_pupil(self, mll: MultilayerLaueLens) -> None:
        d1 = mll.focused(E, 5256.7).d1_mm
        angles = np.linspace(-1, 1, 20001) * mll.half_aperture_mm() / d1
        accepted = mll.acceptance(E, d1)
        assert accepted.rms_rad == pytest.approx(angles.std(), rel=1e-3)
        assert accepted.fwhm_rad == pytest.approx(np.ptp(angles))
        assert accepted.field_rms_mm == math.inf

    def test_zones_end_at_the_outermost(self) -> None:
        wide = MultilayerLaueLens(50.0, 50.0, E, 25.0, 400.0, 60.0, 0.8, 0.8)
        assert wide.half_aperture_mm("h") * 1e3 == pytest.approx(72.93, abs=0.01)
        assert wide.half_aperture_mm("v") * 1e3 == pytest.approx(30.0)

    def test_crossed_lenses_magnify_differently(self) -> None:
        apart = MultilayerLaueLens(50.0, 50.0, E, 25.0, 146.0, 146.0, 0.8, 0.8, separation_mm=0.8)
        assert apart.extent_mm(E, "v") == (-0.4, -0.4) and apart.extent_mm(E, "h") == (0.4, 0.4)
        v, h = apart.image(E, 50.5, 5256.7, "v"), apart.image(E, 50.5, 5256.7, "h")
        assert (v.d1_mm, h.d1_mm) == pytest.approx((50.1, 50.9))
        assert v.magnification == pytest.approx(
            v.d2_mm / v.d1_mm
        )  # chief ray straight through the middle of a thin lens
        assert h.magnification == pytest.approx(h.d2_mm / h.d1_mm)
        longer = MultilayerLaueLens(50.4, 51.0, E, 25.0, 146.0, 146.0, 0.8, 0.8, separation_mm=0.6)
        assert longer.extent_mm(E, "h")[0] < 0 < longer.extent_mm(E, "v")[0]

    def test_misaligned_lens_loses_efficiency(self, mll: MultilayerLaueLens) -> None:
        assert mll.alignment_efficiency(E, 2e-3, 0.0) == pytest.approx(math.exp(-0.5))
        assert mll.alignment_efficiency(E, 0.0, -2e-3) == pytest.approx(math.exp(-0.5))

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"efficiency_h": 1.2}, "efficiency_h is 1.2"), ({"outermost_zone_nm": 0.0}, "outermost_zone_nm is 0")],
    )
    def test_refuses_what_cannot_be(self, change: dict[str, float], message: str) -> None:
        sizes = {
            "focal_length_h_mm": 50.0,
            "focal_length_v_mm": 50.0,
            "design_energy_kev": E,
            "outermost_zone_nm": 25.0,
            "aperture_h_um": 146.0,
            "aperture_v_um": 146.0,
            "efficiency_h": 0.8,
            "efficiency_v": 0.8,
        }
        with pytest.raises(PhysicsError, match=message):
            MultilayerLaueLens(**{**sizes, **change})


class TestSeedFigures:
    """CRL 100 nm; MLL 25 nm, 60 %, f = 5 cm: term by term, for stated lenses and the 10x camera."""

    def test_crl(self) -> None:
        lens = CompoundRefractiveLens(69, 0.05, 1.6, delta=1.1795e-6, attenuation_per_m=47.0, aberration_um=0.080)
        planes = lens.planes(E, 16.27)
        blur = lens.effective_resolution(E, planes.d1_mm, CAMERA_PIXEL_UM / 16.27, 0.02)
        terms = (blur.diffraction_um, blur.sampling_um, blur.defocus_um, blur.aberration_um)
        assert [round(1e3 * term, 1) for term in terms] == [50.8, 27.2, 12.7, 80.0]
        assert blur.total_um == pytest.approx(math.sqrt(sum(term**2 for term in terms)))
        assert blur.total_um == pytest.approx(0.100, abs=0.001)
        assert blur.optical_um == pytest.approx(math.sqrt(blur.total_um**2 - blur.sampling_um**2))

    def test_mll(self) -> None:
        lens = MultilayerLaueLens(50.0, 50.0, E, 25.0, 146.0, 146.0, 0.775, 0.775, aberration_um=0.008)
        planes = lens.focused(E, 5256.7)
        blur = lens.effective_resolution(E, planes.d1_mm, CAMERA_PIXEL_UM / planes.magnification, 0.003)
        terms = (blur.diffraction_um, blur.sampling_um, blur.defocus_um, blur.aberration_um)
        assert [round(1e3 * term, 1) for term in terms] == [22.4, 4.3, 5.9, 8.0]
        assert blur.total_um == pytest.approx(0.025, abs=0.0005)
        assert lens.transmission(E, planes.d1_mm) == pytest.approx(0.60, abs=1e-3)
        assert lens.focal_length_mm(E) == 50.0
