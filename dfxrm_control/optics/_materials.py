"""Refraction and absorption of lens materials, from the xraylib database."""

from __future__ import annotations

from functools import lru_cache

from dfxrm_control.errors import PhysicsError

__all__ = ["attenuation_per_m", "refractive_decrement"]


@lru_cache(maxsize=4096)
def refractive_decrement(material: str, energy_kev: float, density_g_cm3: float | None = None) -> float:
    """Return delta of ``n = 1 - delta + i beta``.

    Parameters
    ----------
    material : str
        Chemical formula, e.g. ``Be`` or ``C5H8O2``.
    energy_kev : float
        Energy, keV.
    density_g_cm3 : float, optional
        Density; default: the database's value, which it has for elements only.

    Raises
    ------
    PhysicsError
        For an unknown formula, a compound without density or an energy outside the tables (about 0.1 to 100 keV).

    References
    ----------
    xraylib, Schoonjans et al. 2011, Spectrochim. Acta B 66, 776.
    """
    import xraylib  # in here: it is not needed where delta is given, and it is slow to load

    density = _density(material, density_g_cm3)
    try:
        return 1.0 - float(xraylib.Refractive_Index_Re(material, energy_kev, density))
    except ValueError as error:
        raise PhysicsError(f"lens material {material!r} at {energy_kev:g} keV: {error}") from error


@lru_cache(maxsize=4096)
def attenuation_per_m(material: str, energy_kev: float, density_g_cm3: float | None = None) -> float:
    """Return the total linear attenuation coefficient in 1/m (photoelectric, elastic and inelastic scattering).

    Parameters and errors as for `refractive_decrement`.
    """
    import xraylib

    density = _density(material, density_g_cm3)
    try:
        return 100.0 * density * float(xraylib.CS_Total_CP(material, energy_kev))
    except ValueError as error:
        raise PhysicsError(f"lens material {material!r} at {energy_kev:g} keV: {error}") from error


def _density(material: str, density_g_cm3: float | None) -> float:
    import xraylib

    if density_g_cm3 is not None:
        return density_g_cm3
    try:
        parts = xraylib.CompoundParser(material)
    except ValueError as error:
        raise PhysicsError(f"lens material {material!r} is not a chemical formula such as Be, Al or C5H8O2") from error
    if parts["nElements"] != 1:
        raise PhysicsError(f"lens material {material!r} is a compound; give its density in g/cm3")
    return float(xraylib.ElementDensity(parts["Elements"][0]))
