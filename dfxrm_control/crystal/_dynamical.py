"""How far kinematical imaging holds: Darwin width and extinction length of a reflection.

Dynamical theory of a perfect crystal in the two-beam case, symmetric, plane wave: A. Authier, Dynamical Theory of X-ray
Diffraction (2001), ch. 4; J. Als-Nielsen and D. McMorrow, Elements of Modern X-ray Physics (2011),
sect. 6.4. Weak-beam images are taken many Darwin widths off the peak, where a crystal of many extinction lengths
diffracts kinematically all the same.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dfxrm_control.crystal._bragg import wavelength_angstrom
from dfxrm_control.crystal._lattice import Lattice
from dfxrm_control.errors import PhysicsError

__all__ = ["ELECTRON_RADIUS_ANGSTROM", "DynamicalWidths", "dynamical_widths"]

ELECTRON_RADIUS_ANGSTROM = 2.8179403262e-5
"""Classical electron radius, angstrom (CODATA 2018)."""


@dataclass(frozen=True)
class DynamicalWidths:
    """What dynamical diffraction makes of a reflection.

    Attributes
    ----------
    hkl : tuple of int
        The reflection.
    energy_kev, theta_deg : float
        Energy and Bragg angle.
    structure_factor_electrons : float
        ``|sqrt(F_h F_-h)|`` of the unit cell.
    darwin_width_rad : float
        Full width ``2 delta`` of the range of total reflection of a symmetric Bragg case, which is also the full width
        at half maximum of a symmetric Laue peak averaged over thickness: ``2 r_e lambda^2 C |F| / (pi V sin 2th)``
        (Authier 2001, ch. 4).
    relative_width : float
        The same as a relative width of energy or d, ``darwin_width_rad / tan theta = 4 d^2 r_e C |F| / (pi V)``
        (Als-Nielsen and McMorrow 2011, sect. 6.4); independent of energy but for the dispersion corrections.
    extinction_length_um : float
        Pendelloesung period of the symmetric Laue case, along the surface normal: ``pi V cos th / (r_e lambda C |F|)``
        (Authier 2006, International Tables B, Eq. 5.1.3.8).
    extinction_depth_um : float
        Depth, along the surface normal, over which the intensity in a symmetric Bragg case falls to 1/e in the middle
        of the total reflection: ``V sin th / (2 r_e lambda C |F|)`` (Als-Nielsen and McMorrow 2011, sect. 6.4: the
        amplitude falls by ``g = 2 d^2 r_e |F| / V`` per plane).
    """

    hkl: tuple[int, int, int]
    energy_kev: float
    theta_deg: float
    structure_factor_electrons: float
    darwin_width_rad: float
    relative_width: float
    extinction_length_um: float
    extinction_depth_um: float


def dynamical_widths(
    lattice: Lattice,
    hkl: Sequence[int],
    energy_kev: float,
    *,
    polarization: Literal["sigma", "pi"] = "sigma",
    u_iso_angstrom2: float | None = None,
) -> DynamicalWidths:
    """Return Darwin width and extinction length of a reflection.

    Parameters
    ----------
    lattice : Lattice
        The crystal, with its atoms.
    hkl : sequence of int
        Reflection.
    energy_kev : float
        Energy, keV.
    polarization : {"sigma", "pi"}
        Across the plane of scattering (a vertical scattering plane at a synchrotron: C = 1) or in it (C = cos 2theta).
    u_iso_angstrom2 : float, optional
        Mean square displacement of all atoms, angstrom^2, for the Debye-Waller factor; default: that of each site,
        which is 0 where no CIF file gave one. ``B = 8 pi^2 u``: silicon at 295 K has B = 0.46, u = 0.0058 angstrom^2.

    Raises
    ------
    PhysicsError
        When the lattice has no atoms, or the reflection is forbidden or beyond reach.
    """
    if u_iso_angstrom2 is not None and not 0.0 <= u_iso_angstrom2 < math.inf:
        raise PhysicsError(f"u_iso: {u_iso_angstrom2:g} angstrom^2 was given; it is finite and not negative")
    h, k, m = (int(index) for index in hkl)
    theta = math.radians(lattice.bragg_angle_deg(hkl, energy_kev))
    factor = lattice.structure_factor((h, k, m), energy_kev, u_iso_angstrom2)
    mate = lattice.structure_factor((-h, -k, -m), energy_kev, u_iso_angstrom2)
    if factor is None or mate is None:
        raise PhysicsError(f"hkl {h} {k} {m}: the lattice has no atoms, so its Darwin width is not known; give atoms")
    strength = abs(cmath.sqrt(factor * mate))
    if not lattice.is_allowed((h, k, m), energy_kev):
        raise PhysicsError(f"hkl {h} {k} {m}: the reflection is forbidden in {lattice.space_group}; it has no width")
    wavelength = wavelength_angstrom(energy_kev)
    # in angstrom: r_e C |F| / V, the scattering strength per volume
    per_volume = (
        ELECTRON_RADIUS_ANGSTROM
        * strength
        * (1.0 if polarization == "sigma" else abs(math.cos(2.0 * theta)))
        / lattice.volume_angstrom3
    )
    if per_volume == 0.0:
        raise PhysicsError(f"hkl {h} {k} {m}: at 2theta = 90 deg nothing of the pi polarization is diffracted")
    width = 2.0 * wavelength**2 * per_volume / (math.pi * math.sin(2.0 * theta))
    return DynamicalWidths(
        hkl=(h, k, m),
        energy_kev=energy_kev,
        theta_deg=math.degrees(theta),
        structure_factor_electrons=strength,
        darwin_width_rad=width,
        relative_width=width / math.tan(theta),
        extinction_length_um=1e-4 * math.pi * math.cos(theta) / (wavelength * per_volume),
        extinction_depth_um=1e-4 * math.sin(theta) / (2.0 * wavelength * per_volume),
    )
