"""A crystal lattice: reciprocal basis, allowed reflections, structure factors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.crystal._bragg import bragg_angle_deg, two_theta_deg, wavelength_angstrom
from dfxrm_control.errors import FileFormatError, PhysicsError

__all__ = ["Lattice", "Reflection"]

Atom = tuple[str, float, float, float]
HKL = tuple[int, int, int]


@dataclass(frozen=True)
class Reflection:
    """One family of symmetry-equivalent reflections at an energy.

    Attributes
    ----------
    hkl : tuple of int
        A member of the family.
    d_angstrom : float
        Spacing of the planes.
    theta_deg, two_theta_deg : float
        Bragg angle and scattering angle.
    structure_factor : complex or None
        Per unit cell, in electrons; None when the lattice has no atoms.
    multiplicity : int
        Number of members, Friedel mates included.
    """

    hkl: HKL
    d_angstrom: float
    theta_deg: float
    two_theta_deg: float
    structure_factor: complex | None
    multiplicity: int


@dataclass(frozen=True)
class Lattice:
    """A unit cell with its space group and, where known, its atoms.

    Attributes
    ----------
    cell : tuple of float
        a, b, c in angstrom, alpha, beta, gamma in deg.
    space_group : str
        Hermann-Mauguin symbol.
    sites : tuple of (element, x, y, z, u_iso)
        Atoms of the asymmetric unit: fractional position and mean square displacement in angstrom^2.
    """

    cell: tuple[float, float, float, float, float, float]
    space_group: str = "P 1"
    sites: tuple[tuple[str, float, float, float, float], ...] = field(default=())

    def __post_init__(self) -> None:
        a, b, c, alpha, beta, gamma = self.cell
        if min(a, b, c) <= 0.0:
            raise PhysicsError(f"lattice: a, b, c of {a:g}, {b:g}, {c:g} angstrom were given; each must be positive")
        ca, cb, cg = (math.cos(math.radians(angle)) for angle in (alpha, beta, gamma))
        inside = all(0.0 < angle < 180.0 for angle in (alpha, beta, gamma))
        if not inside or 1.0 - ca * ca - cb * cb - cg * cg + 2.0 * ca * cb * cg <= 1e-9:
            raise PhysicsError(f"lattice: angles of {alpha:g}, {beta:g}, {gamma:g} deg do not close to a cell")
        group = gemmi.find_spacegroup_by_name(self.space_group, alpha, gamma)
        if group is None:
            raise PhysicsError(f"space group {self.space_group!r} is unknown; write it like 'F m -3 m' or 'P 1'")
        if not self._gemmi_cell.is_compatible_with_spacegroup(group):
            raise PhysicsError(
                f"lattice: a cell of {a:g}, {b:g}, {c:g} angstrom, {alpha:g}, {beta:g}, {gamma:g} deg lacks the "
                f"symmetry of space group {self.space_group!r}"
            )
        for element, *_ in self.sites:
            if gemmi.Element(element).atomic_number == 0:
                raise PhysicsError(f"atom {element!r} is not a chemical element")

    @classmethod
    def from_parameters(
        cls,
        a: float,
        b: float,
        c: float,
        alpha: float = 90.0,
        beta: float = 90.0,
        gamma: float = 90.0,
        space_group: str = "P 1",
        atoms: Iterable[Atom] = (),
    ) -> Lattice:
        """Return a lattice from cell parameters.

        Parameters
        ----------
        a, b, c : float
            Edges, angstrom.
        alpha, beta, gamma : float
            Angles, deg.
        space_group : str
            Hermann-Mauguin symbol, e.g. ``F m -3 m``.
        atoms : iterable of (element, x, y, z)
            Asymmetric unit, fractional positions. Without atoms only lattice centring and glide or screw axes forbid
            reflections, and there is no structure factor.

        Raises
        ------
        PhysicsError
            For a cell that cannot exist or lacks the symmetry of its space group, and for unknown groups or elements.
        """
        sites = tuple((element, float(x), float(y), float(z), 0.0) for element, x, y, z in atoms)
        return cls((a, b, c, alpha, beta, gamma), space_group, sites)

    @classmethod
    def from_cif(cls, path: str | Path) -> Lattice:
        """Return the lattice of the first crystal structure of a CIF file.

        Raises
        ------
        FileFormatError
            When the file cannot be read as CIF or describes no cell or no space group.
        PhysicsError
            As for `from_parameters`.
        """
        try:
            block = gemmi.cif.read(str(path))[0]
            small = gemmi.make_small_structure_from_block(block)
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            raise FileFormatError(f"{path}: not a readable CIF file ({error})") from error
        cell, group = small.cell, small.spacegroup
        if not cell.is_crystal():
            raise FileFormatError(f"{path}: the CIF file has no unit cell")
        if group is None:
            raise FileFormatError(f"{path}: the CIF file has no space group that is known")
        sites = tuple(
            (site.element.name, site.fract.x, site.fract.y, site.fract.z, max(site.u_iso, 0.0)) for site in small.sites
        )
        return cls((cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma), group.xhm(), sites)

    @property
    def _gemmi_cell(self) -> gemmi.UnitCell:
        return gemmi.UnitCell(*self.cell)

    @property
    def _gemmi_group(self) -> gemmi.SpaceGroup:
        return gemmi.find_spacegroup_by_name(self.space_group, self.cell[3], self.cell[5])

    @property
    def space_group_number(self) -> int:
        """Number of the space group in the International Tables."""
        return int(self._gemmi_group.number)

    def family(self, hkl: Sequence[int]) -> list[HKL]:
        """Return all reflections equivalent to hkl by symmetry, Friedel mates included, largest indices first."""
        images = [operation.apply_to_hkl([int(i) for i in hkl]) for operation in self._gemmi_group.operations().sym_ops]
        return sorted({(sign * h, sign * k, sign * m) for h, k, m in images for sign in (1, -1)}, reverse=True)

    @cached_property
    def B(self) -> NDArray[np.float64]:  # noqa: N802 - the name the matrix has everywhere
        """Busing-Levy matrix without 2 pi, 1/angstrom, shape (3, 3): ``G = B hkl``, a* along x, b* in the x-y plane.

        Busing and Levy 1967, Acta Cryst. 22, 457, Eq. 3; the convention of ImageD11, darling and xfab.
        """
        a, b, c, alpha, beta, gamma = self.cell
        ca, cb, cg = (math.cos(math.radians(angle)) for angle in (alpha, beta, gamma))
        metric = np.array(
            [[a * a, a * b * cg, a * c * cb], [a * b * cg, b * b, b * c * ca], [a * c * cb, b * c * ca, c * c]]
        )
        return np.linalg.cholesky(np.linalg.inv(metric)).T

    @property
    def volume_angstrom3(self) -> float:
        """Volume of the unit cell, angstrom^3."""
        return float(self._gemmi_cell.volume)

    def d_spacing(self, hkl: ArrayLike) -> float:
        """Return the spacing in angstrom of the planes hkl.

        Raises
        ------
        PhysicsError
            For 0 0 0.
        """
        length = float(np.linalg.norm(self.B @ np.asarray(hkl, dtype=float)))
        if length == 0.0:
            raise PhysicsError("hkl: 0 0 0 was given; it is the direct beam, not a reflection")
        return 1.0 / length

    def bragg_angle_deg(self, hkl: ArrayLike, energy_kev: float) -> float:
        """Return the Bragg angle in deg of hkl at an energy in keV; errors as of `crystal.bragg_angle_deg`."""
        return bragg_angle_deg(self.d_spacing(hkl), energy_kev)

    def two_theta_deg(self, hkl: ArrayLike, energy_kev: float) -> float:
        """Return the scattering angle in deg of hkl at an energy in keV."""
        return two_theta_deg(self.d_spacing(hkl), energy_kev)

    @cached_property
    def _atoms(self) -> list[tuple[str, float, NDArray[np.float64]]]:
        """Every atom of the unit cell once: element, u_iso, fractional position."""
        operations = list(self._gemmi_group.operations())
        atoms: list[tuple[str, float, NDArray[np.float64]]] = []
        for element, x, y, z, u_iso in self.sites:
            images: list[NDArray[np.float64]] = []
            for operation in operations:
                image = np.array(operation.apply_to_xyz([x, y, z]))
                # nearest-lattice-point distance: 0.999 and 0.001 are the same place; CIF files round to four digits
                if all(np.max(np.abs((image - seen) - np.round(image - seen))) > 2e-3 for seen in images):
                    images.append(image)
            atoms += [(element, u_iso, image) for image in images]
        return atoms

    def structure_factor(
        self, hkl: Sequence[int], energy_kev: float, u_iso_angstrom2: float | None = None
    ) -> complex | None:
        """Return the structure factor of the unit cell in electrons, or None when the lattice has no atoms.

        ``F = sum (f0 + f' + i f'') exp(-8 pi^2 u s^2) exp(2 pi i h.x)`` with ``s = sin(theta)/lambda``; f0 from
        International Tables vol. C 1992, f' and f'' by Cromer and Liberman 1981 (both as tabulated in gemmi).

        Parameters
        ----------
        hkl : sequence of int
            Reflection.
        energy_kev : float
            Energy, keV.
        u_iso_angstrom2 : float, optional
            Mean square displacement u of every atom, angstrom^2; default: that of each site.
        """
        if not self.sites:
            return None
        s2 = 0.25 / self.d_spacing(hkl) ** 2
        total = 0.0 + 0.0j
        factors: dict[str, complex] = {}
        for name, u_iso, position in self._atoms:
            if name not in factors:
                element = gemmi.Element(name)
                real, imaginary = gemmi.cromer_liberman(element.atomic_number, energy_kev * 1e3)
                factors[name] = element.it92.calculate_sf(s2) + complex(real, imaginary)
            phase = 2.0 * math.pi * float(np.dot(hkl, position))
            u = u_iso if u_iso_angstrom2 is None else u_iso_angstrom2
            total += factors[name] * math.exp(-8.0 * math.pi**2 * u * s2) * complex(math.cos(phase), math.sin(phase))
        return total

    def is_allowed(self, hkl: Sequence[int], energy_kev: float, minimum_structure_factor: float = 1e-2) -> bool:
        """Return whether hkl diffracts: not absent by symmetry, and with atoms that do not cancel."""
        operations = self._gemmi_group.operations()
        if operations.is_systematically_absent([int(index) for index in hkl]):
            return False
        factor = self.structure_factor(hkl, energy_kev)
        return factor is None or abs(factor) > minimum_structure_factor

    def reflections(
        self,
        energy_kev: float,
        max_two_theta_deg: float = 60.0,
        min_two_theta_deg: float = 0.0,
        minimum_structure_factor: float = 1e-2,
    ) -> list[Reflection]:
        """Return the allowed reflections at an energy, one per family, by rising scattering angle.

        Parameters
        ----------
        energy_kev : float
            Energy, keV.
        max_two_theta_deg, min_two_theta_deg : float
            Range of scattering angle, deg.
        minimum_structure_factor : float
            Reflections whose atoms scatter less than this many electrons are left out.

        Raises
        ------
        PhysicsError
            For a range that is empty or reaches beyond 180 deg.
        """
        if not 0.0 <= min_two_theta_deg < max_two_theta_deg <= 180.0:
            raise PhysicsError(
                f"2theta range: {min_two_theta_deg:g} to {max_two_theta_deg:g} deg was asked; it rises, within 0 to 180"
            )
        wavelength = wavelength_angstrom(energy_kev)
        d_min = wavelength / (2.0 * math.sin(math.radians(max_two_theta_deg / 2.0)))
        low = math.sin(math.radians(min_two_theta_deg / 2.0))
        d_max = wavelength / (2.0 * low) if low > 0.0 else 0.0
        group = self._gemmi_group
        found = []
        for index in gemmi.make_miller_array(self._gemmi_cell, group, d_min, d_max, True):
            family = self.family(index)
            hkl = family[0]  # the member one would write: 2 0 0 rather than 0 -2 0
            factor = self.structure_factor(hkl, energy_kev)
            if factor is not None and abs(factor) <= minimum_structure_factor:
                continue
            d = self.d_spacing(hkl)
            theta = bragg_angle_deg(d, energy_kev)
            found.append(Reflection(hkl, d, theta, 2.0 * theta, factor, len(family)))
        return sorted(found, key=lambda reflection: (reflection.two_theta_deg, reflection.hkl))
