"""Objectives of a dark-field X-ray microscope: one interface, a compound refractive lens and multilayer Laue lenses.

Lengths in mm, energies in keV; anything else carries its unit in its name. Widths are FWHM where they say so.
"""

from dfxrm_control.optics._crl import CompoundRefractiveLens
from dfxrm_control.optics._materials import attenuation_per_m, refractive_decrement
from dfxrm_control.optics._mll import MultilayerLaueLens
from dfxrm_control.optics._objective import Acceptance, Axis, Blur, Image, Objective, Planes

__all__ = [
    "Acceptance",
    "Axis",
    "Blur",
    "CompoundRefractiveLens",
    "Image",
    "MultilayerLaueLens",
    "Objective",
    "Planes",
    "attenuation_per_m",
    "refractive_decrement",
]
