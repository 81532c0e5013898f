"""Lattices, reflections and strain against tables, gemmi's own geometry and exact Bragg angles."""

import math
from pathlib import Path

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfxrm_control.crystal import (
    Lattice,
    bragg_angle_deg,
    energy_kev,
    strain_from_ccmth,
    strain_from_energy,
    strain_from_two_theta,
    strain_from_two_theta_and_ccmth,
    two_theta_deg,
    wavelength_angstrom,
)
from dfxrm_control.errors import FileFormatError, PhysicsError

E = 17.0


def cubic(a: float, group: str, element: str) -> Lattice:
    return Lattice.from_parameters(a, a, a, space_group=group, atoms=[(element, 0.0, 0.0, 0.0)])


ALUMINIUM = cubic(4.0495, "F m -3 m", "Al")
SILICON = cubic(5.43102, "F d -3 m", "Si")
DIAMOND = cubic(3.56683, "F d -3 m", "C")


class TestBragg:
    @pytest.mark.parametrize(
        ("lattice", "hkl", "expected"),
        [
            (ALUMINIUM, (1, 1, 1), 17.946),
            (ALUMINIUM, (0, 0, 2), 20.751),
            (ALUMINIUM, (0, 2, 2), 29.512),
            (DIAMOND, (1, 1, 1), 20.399),
            (SILICON, (1, 1, 1), 13.357),
        ],
    )
    def test_reflections_at_17_kev(self, lattice: Lattice, hkl: tuple[int, int, int], expected: float) -> None:
        assert lattice.two_theta_deg(hkl, E) == pytest.approx(expected, abs=6e-4)
        assert lattice.bragg_angle_deg(hkl, E) == pytest.approx(expected / 2, abs=3e-4)

    def test_wavelength(self) -> None:
        assert wavelength_angstrom(E) == pytest.approx(0.729319, abs=5e-7)

    def test_monochromator(self) -> None:
        """The control system's d gives exactly 17.000 keV at 6.679671 deg; darling's calibrated one 16.9815 keV."""
        assert energy_kev(6.679671, 3.135012) == pytest.approx(17.0, abs=5e-6)
        assert energy_kev(6.679671, 3.1384245) == pytest.approx(16.9815, abs=5e-5)
        assert bragg_angle_deg(3.135012, 17.0) == pytest.approx(6.679671, abs=5e-7)

    def test_refuses_what_does_not_diffract(self) -> None:
        with pytest.raises(PhysicsError, match="0.3 angstrom apart do not reflect 17 keV"):
            two_theta_deg(0.3, E)
        with pytest.raises(PhysicsError, match="energy: 0 keV"):
            wavelength_angstrom(0.0)
        with pytest.raises(PhysicsError, match="0 deg was asked"):
            energy_kev(0.0, 3.135)


class TestLattice:
    @given(
        st.tuples(*[st.floats(3.0, 12.0)] * 3),
        st.tuples(*[st.floats(70.0, 110.0)] * 3),
        st.tuples(*[st.integers(-4, 4)] * 3),
    )
    @settings(max_examples=40, deadline=None)
    def test_triclinic_basis(self, edges: tuple, angles: tuple, hkl: tuple) -> None:
        lattice = Lattice.from_parameters(*edges, *angles)
        b = lattice.B
        np.testing.assert_allclose(b, np.triu(b), atol=1e-15)  # a* along x, b* in the x-y plane
        assert np.all(np.diag(b) > 0)
        cell = gemmi.UnitCell(*edges, *angles)
        if any(hkl):
            assert lattice.d_spacing(hkl) == pytest.approx(cell.calculate_d(hkl), rel=1e-9)
        assert 1 / np.linalg.det(b) == pytest.approx(cell.volume, rel=1e-9)

    def test_face_centred_metal(self) -> None:
        found = {r.hkl: r for r in ALUMINIUM.reflections(E, 36.0)}
        assert list(found) == [(1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1)]
        assert [r.multiplicity for r in found.values()] == [8, 6, 12, 24]
        first = found[1, 1, 1]
        assert first.two_theta_deg == pytest.approx(17.946, abs=6e-4) and first.theta_deg == first.two_theta_deg / 2
        assert first.d_angstrom == pytest.approx(4.0495 / math.sqrt(3))
        # International Tables: f0(Al, 0.2138 1/angstrom) = 8.96; f' about 0.06 at 17 keV
        assert abs(first.structure_factor) == pytest.approx(4 * (8.96 + 0.06), rel=5e-3)

    def test_diamond_structure(self) -> None:
        found = {r.hkl: abs(r.structure_factor) for r in SILICON.reflections(E, 32.0)}
        assert set(found) == {(1, 1, 1), (2, 2, 0), (3, 1, 1), (4, 0, 0)}
        assert found[1, 1, 1] == pytest.approx(60.0, rel=0.02)  # 8 f / sqrt 2 with f = 10.6
        assert found[1, 1, 1] / found[2, 2, 0] == pytest.approx(10.62 / 8.80 / math.sqrt(2), rel=0.02)

    def test_forbidden_for_two_reasons(self) -> None:
        assert not SILICON.is_allowed((2, 0, 0), E)  # by the glide planes
        assert not SILICON.is_allowed((2, 2, 2), E)  # by where the atoms sit
        assert SILICON.is_allowed((1, 1, 1), E) and not ALUMINIUM.is_allowed((1, 0, 0), E)

    def test_both_origins_agree(self) -> None:
        other = Lattice.from_parameters(
            5.43102, 5.43102, 5.43102, space_group="F d -3 m:2", atoms=[("Si", 1 / 8, 1 / 8, 1 / 8)]
        )
        for hkl in ((1, 1, 1), (2, 2, 0), (3, 1, 1)):
            assert abs(other.structure_factor(hkl, E)) == pytest.approx(abs(SILICON.structure_factor(hkl, E)))

    def test_salt_adds_and_subtracts(self) -> None:
        salt = Lattice.from_parameters(
            5.64, 5.64, 5.64, space_group="F m -3 m", atoms=[("Na", 0, 0, 0), ("Cl", 0.5, 0.5, 0.5)]
        )
        assert abs(salt.structure_factor((2, 0, 0), E)) > 4 * abs(salt.structure_factor((1, 1, 1), E))

    def test_anomalous_scattering_breaks_friedel(self) -> None:
        zinc_blende = Lattice.from_parameters(
            5.653, 5.653, 5.653, space_group="F -4 3 m", atoms=[("Ga", 0, 0, 0), ("As", 0.25, 0.25, 0.25)]
        )
        plus, minus = (abs(zinc_blende.structure_factor(hkl, 11.0)) for hkl in ((1, 1, 1), (-1, -1, -1)))
        assert abs(plus - minus) > 0.5

    def test_without_atoms_symmetry_still_forbids(self) -> None:
        lattice = Lattice.from_parameters(4.0495, 4.0495, 4.0495, space_group="F m -3 m")
        found = lattice.reflections(E, 36.0)
        assert [r.hkl for r in found] == [(1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1)]
        assert all(r.structure_factor is None for r in found)

    def test_range_of_angles(self) -> None:
        assert [r.hkl for r in ALUMINIUM.reflections(E, 30.0, 20.0)] == [(2, 0, 0), (2, 2, 0)]

    def test_cif(self, tmp_path: Path) -> None:
        path = tmp_path / "al.cif"
        path.write_text(
            "data_al\n_cell_length_a 4.0495\n_cell_length_b 4.0495\n_cell_length_c 4.0495\n"
            "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\n"
            "_symmetry_space_group_name_H-M 'F m -3 m'\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
            "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_U_iso_or_equiv\nAl1 Al 0 0 0 0.01\n"
        )
        lattice = Lattice.from_cif(path)
        np.testing.assert_allclose(lattice.B, ALUMINIUM.B)
        s2 = 0.25 / lattice.d_spacing((1, 1, 1)) ** 2
        cold = ALUMINIUM.structure_factor((1, 1, 1), E)
        assert lattice.structure_factor((1, 1, 1), E) == pytest.approx(cold * math.exp(-8 * math.pi**2 * 0.01 * s2))

    def test_bad_cif(self, tmp_path: Path) -> None:
        missing = tmp_path / "none.cif"
        with pytest.raises(FileFormatError, match="none.cif"):
            Lattice.from_cif(missing)
        foreign = tmp_path / "foreign.cif"
        foreign.write_text("not a cif\n")
        with pytest.raises(FileFormatError, match="foreign.cif: not a readable CIF"):
            Lattice.from_cif(foreign)
        empty = tmp_path / "empty.cif"
        empty.write_text("data_x\n_a 1\n")
        with pytest.raises(FileFormatError, match="no unit cell"):
            Lattice.from_cif(empty)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"a": -1.0}, "each must be positive"),
            ({"alpha": 130.0, "beta": 120.0, "gamma": 120.0}, "do not close to a cell"),
            ({"space_group": "F q -3 m"}, "'F q -3 m' is unknown"),
            ({"c": 5.0, "space_group": "F m -3 m"}, "symmetry of space group"),
            ({"atoms": [("Xq", 0, 0, 0)]}, "'Xq' is not a chemical element"),
        ],
    )
    def test_refuses_what_cannot_be(self, arguments: dict, message: str) -> None:
        with pytest.raises(PhysicsError, match=message):
            Lattice.from_parameters(**{"a": 4.0, "b": 4.0, "c": 4.0, **arguments})

    def test_refuses_the_direct_beam_and_an_empty_range(self) -> None:
        with pytest.raises(PhysicsError, match="0 0 0"):
            ALUMINIUM.d_spacing((0, 0, 0))
        with pytest.raises(PhysicsError, match="2theta range"):
            ALUMINIUM.reflections(E, 20.0, 30.0)


class TestStrain:
    TWO_THETA = 17.946347
    CCMTH = 6.679671

    @given(st.floats(-5e-3, 5e-3))
    @settings(max_examples=30, deadline=None)
    def test_exact_for_a_strained_lattice(self, strain: float) -> None:
        d = 2.33798 * (1 + strain)
        two_theta0 = two_theta_deg(2.33798, E)
        assert strain_from_two_theta(two_theta_deg(d, E) - two_theta0, two_theta0) == pytest.approx(strain, abs=1e-12)
        energy = wavelength_angstrom(1.0) / (2 * d * math.sin(math.radians(two_theta0 / 2)))
        assert strain_from_energy(energy, E) == pytest.approx(strain, abs=1e-12)
        ccmth0, ccmth = bragg_angle_deg(3.135012, E), bragg_angle_deg(3.135012, energy)
        assert strain_from_ccmth(ccmth - ccmth0, ccmth0) == pytest.approx(strain, abs=1e-12)

    def test_first_order_forms_of_darfix(self) -> None:
        step = 0.01
        obpitch = -math.radians(step) / (2 * math.tan(math.radians(self.TWO_THETA / 2)))
        assert strain_from_two_theta(step, self.TWO_THETA) == pytest.approx(obpitch, rel=2e-3)
        ccmth = math.radians(step) / math.tan(math.radians(self.CCMTH))
        assert strain_from_ccmth(step, self.CCMTH) == pytest.approx(ccmth, rel=2e-3)

    def test_sensitivities(self) -> None:
        """Al 111, 17 keV: 5.5e-5 per mdeg obpitch, 1.49e-4 per mdeg ccmth."""
        assert strain_from_two_theta(1e-3, self.TWO_THETA) == pytest.approx(-5.5e-5, rel=6e-3)
        assert strain_from_ccmth(1e-3, self.CCMTH) == pytest.approx(1.49e-4, rel=2e-3)

    def test_heated_aluminium_leaves_the_aperture(self) -> None:
        """7.5e-3 of strain moves 2theta by -0.136 deg."""
        shift = two_theta_deg(2.33798 * 1.0075, E) - two_theta_deg(2.33798, E)
        assert shift == pytest.approx(-0.136, abs=2e-3)

    def test_both_moved(self) -> None:
        arm, mono = np.array([0.0, 0.01, -0.02]), np.array([0.003, 0.0, -0.001])
        theta, ccmth = math.radians(self.TWO_THETA / 2), math.radians(self.CCMTH)
        linear = np.radians(mono) / math.tan(ccmth) - np.radians(arm) / 2 / math.tan(theta)
        found = strain_from_two_theta_and_ccmth(arm, self.TWO_THETA, mono, self.CCMTH)
        np.testing.assert_allclose(found, linear, atol=3e-6)

    def test_refuses_reference_angles_without_diffraction(self) -> None:
        with pytest.raises(PhysicsError, match="2theta 0 deg"):
            strain_from_two_theta(0.01, 0.0)
