"""Lattices, reflections, Bragg's law and strain. Lengths in angstrom, angles in deg, energies in keV."""

from dfxrm_control.crystal._bragg import (
    HC_KEV_ANGSTROM,
    bragg_angle_deg,
    energy_kev,
    strain_from_ccmth,
    strain_from_energy,
    strain_from_two_theta,
    strain_from_two_theta_and_ccmth,
    two_theta_deg,
    wavelength_angstrom,
)
from dfxrm_control.crystal._dynamical import ELECTRON_RADIUS_ANGSTROM, DynamicalWidths, dynamical_widths
from dfxrm_control.crystal._lattice import Lattice, Reflection

__all__ = [
    "ELECTRON_RADIUS_ANGSTROM",
    "HC_KEV_ANGSTROM",
    "DynamicalWidths",
    "Lattice",
    "Reflection",
    "bragg_angle_deg",
    "dynamical_widths",
    "energy_kev",
    "strain_from_ccmth",
    "strain_from_energy",
    "strain_from_two_theta",
    "strain_from_two_theta_and_ccmth",
    "two_theta_deg",
    "wavelength_angstrom",
]
