"""Darwin width and extinction length, against what is known of silicon."""

from __future__ import annotations

import math

import pytest

from dfxrm_control.crystal import (
    ELECTRON_RADIUS_ANGSTROM,
    Lattice,
    bragg_angle_deg,
    dynamical_widths,
    wavelength_angstrom,
)
from dfxrm_control.errors import PhysicsError

SILICON = Lattice.from_parameters(5.43102, 5.43102, 5.43102, space_group="F d -3 m:1", atoms=[("Si", 0, 0, 0)])
U_295_K = 0.46 / (8 * math.pi**2)  # B = 0.46 angstrom^2
CU_K_ALPHA, MO_K_ALPHA = 8.04778, 17.4793


def test_silicon_111_has_the_bandwidth_every_beamline_knows() -> None:
    widths = dynamical_widths(SILICON, (1, 1, 1), CU_K_ALPHA, u_iso_angstrom2=U_295_K)
    assert widths.relative_width == pytest.approx(1.33e-4, rel=0.01)  # DE/E of a Si 111 monochromator
    assert 2 * widths.extinction_depth_um == pytest.approx(1.5, rel=0.01)  # of the amplitude
    # total reflection over 2 delta; the Darwin curve without absorption is 3/(2 sqrt 2) as wide at half maximum
    fwhm_arcsec = math.degrees(widths.darwin_width_rad) * 3600 * 3 / (2 * math.sqrt(2))
    assert fwhm_arcsec == pytest.approx(7.4, rel=0.01)
    assert widths.darwin_width_rad == pytest.approx(widths.relative_width * math.tan(math.radians(widths.theta_deg)))


def test_silicon_220_has_the_pendelloesung_period_that_was_measured() -> None:
    """From the fringes, Aldred & Hart 1973 (Proc. R. Soc. A 332, 239) found f = 8.478 at 20 degC with Mo K alpha."""
    wavelength = wavelength_angstrom(MO_K_ALPHA)
    theta = math.radians(bragg_angle_deg(5.43102 / math.sqrt(8), MO_K_ALPHA))
    measured_um = 1e-4 * math.pi * 5.43102**3 * math.cos(theta) / (ELECTRON_RADIUS_ANGSTROM * wavelength * 8 * 8.478)
    assert measured_um == pytest.approx(36.6, rel=0.005)
    found = dynamical_widths(SILICON, (2, 2, 0), MO_K_ALPHA, u_iso_angstrom2=U_295_K)
    assert found.extinction_length_um == pytest.approx(measured_um, rel=0.01)


def test_width_of_energy_does_not_depend_on_it_and_weak_reflections_are_narrow() -> None:
    widths = {
        energy: dynamical_widths(SILICON, (1, 1, 1), energy, u_iso_angstrom2=U_295_K) for energy in (8.0, 17.0, 35.0)
    }
    relative = [w.relative_width for w in widths.values()]
    assert max(relative) / min(relative) < 1.03
    assert widths[8.0].extinction_length_um < widths[17.0].extinction_length_um < widths[35.0].extinction_length_um
    weak = dynamical_widths(SILICON, (3, 3, 3), CU_K_ALPHA, u_iso_angstrom2=U_295_K)
    strong = dynamical_widths(SILICON, (1, 1, 1), CU_K_ALPHA, u_iso_angstrom2=U_295_K)
    assert weak.darwin_width_rad < strong.darwin_width_rad / 3


def test_polarization_and_debye_waller() -> None:
    sigma = dynamical_widths(SILICON, (4, 4, 0), MO_K_ALPHA)
    pi = dynamical_widths(SILICON, (4, 4, 0), MO_K_ALPHA, polarization="pi")
    assert pi.darwin_width_rad / sigma.darwin_width_rad == pytest.approx(math.cos(math.radians(2 * sigma.theta_deg)))
    assert pi.extinction_length_um > sigma.extinction_length_um
    warm = dynamical_widths(SILICON, (4, 4, 0), MO_K_ALPHA, u_iso_angstrom2=U_295_K)
    s2 = 0.25 * 32 / 5.43102**2
    assert warm.structure_factor_electrons / sigma.structure_factor_electrons == pytest.approx(
        math.exp(-0.46 * s2), rel=1e-9
    )


@pytest.mark.parametrize(
    ("lattice", "hkl", "options", "words"),
    [
        (SILICON, (2, 0, 0), {}, "forbidden"),
        (SILICON, (1, 1, 1), {"u_iso_angstrom2": -1.0}, "u_iso"),
        (Lattice.from_parameters(4.05, 4.05, 4.05, space_group="F m -3 m"), (1, 1, 1), {}, "no atoms"),
        (SILICON, (20, 0, 0), {}, "do not reflect"),
    ],
)
def test_refuses_what_has_no_width(lattice, hkl, options, words) -> None:
    with pytest.raises(PhysicsError, match=words):
        dynamical_widths(lattice, hkl, CU_K_ALPHA, **options)
