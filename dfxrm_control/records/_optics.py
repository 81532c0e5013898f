"""What the optics were during a run, as far as the recorded positions tell."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.errors import DfxrmError
from dfxrm_control.microscope import Microscope, View, declared_offsets

__all__ = ["arm_of", "optics_of"]

_log = logging.getLogger(__name__)

_MODEL = "chief-ray ratio of the thick lens at the recorded distances, L = |mainx| / cos 2theta"


def optics_of(
    dfxrm: Mapping[str, Any], positions: Mapping[str, float], channels: Mapping[str, Any], camera: str | None
) -> list[tuple[str, Any, str]]:
    """Return (name, value, units) of energy, magnification and pixel sizes, with the model they come from.

    The record must not depend on it: where the positions do not tell, the list is shorter, and says why.

    Parameters
    ----------
    dfxrm : mapping
        This package's part of the start document.
    positions : mapping
        Positions by logical name, in mm or deg; of a scanned axis its mean.
    channels : mapping
        Channels by logical name.
    camera : str or None
        Camera of the scan.
    """
    try:
        instrument = InstrumentConfig.model_validate(dfxrm["instrument"])
    except KeyError:
        return []
    except ValidationError as error:
        _log.warning("the run's instrument is not understood, so its optics are not in the record: %s", error)
        return []
    found = _monochromator(instrument, positions, channels)
    if camera is None or camera not in instrument.cameras:
        return found
    try:
        view = Microscope(instrument).view(positions, camera, channels)
        return [*found, *_view(view, camera, channels)]
    except (DfxrmError, KeyError) as error:
        _log.warning("magnification and pixel sizes are not in the record: %s", error)
        return [*found, ("magnification_fault", str(error), "")]


def arm_of(
    dfxrm: Mapping[str, Any], positions: Mapping[str, float], channels: Mapping[str, Any], two_theta_deg: float
) -> dict[str, float]:
    """Return where the axes of the arm are sent for a scattering angle; empty where the record does not tell.

    Parameters
    ----------
    dfxrm : mapping
        This package's part of the start document.
    positions : mapping
        Positions by logical name; ``mainx`` is needed.
    channels : mapping
        Channels by logical name.
    two_theta_deg : float
        Scattering angle, deg.
    """
    try:
        microscope = Microscope(InstrumentConfig.model_validate(dfxrm["instrument"]))
        arm = microscope.arm(two_theta_deg, positions["mainx"], microscope.objective_name(channels))
    except (KeyError, ValidationError, DfxrmError):
        return {}
    off = declared_offsets(channels)
    return {axis: getattr(arm, axis) + off[axis] for axis in ("obx", "obz", "obpitch", "ffz")}


def _monochromator(
    instrument: InstrumentConfig, positions: Mapping[str, float], channels: Mapping[str, Any]
) -> list[tuple[str, Any, str]]:
    """Return the angle and the d spacing it was turned into an energy with: 0.1 % lies between calibrations."""
    mono = instrument.monochromator
    if mono is None or channels.get("mono") == "out" or "ccmth" not in positions:
        return []
    return [
        ("mono_angle", float(positions["ccmth"]), "deg"),
        ("mono_d_spacing", mono.d_spacing_angstrom, "angstrom"),
        ("mono_name", mono.name, ""),
    ]


def _view(view: View, camera: str, channels: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    found: list[tuple[str, Any, str]] = [
        ("energy", view.energy_kev, "keV"),
        ("wavelength", view.wavelength_angstrom, "angstrom"),
        ("two_theta", view.two_theta_deg, "deg"),
        ("arm_two_theta", view.arm_two_theta_deg, "deg"),
        ("objective", view.objective_name or "none", ""),
        ("camera_objective", str(channels.get(f"{camera}_camera_objective", "")), ""),
        ("magnification", view.magnification_v, ""),
        ("magnification_v", view.magnification_v, ""),
        ("magnification_h", view.magnification_h, ""),
        ("magnification_model", _MODEL, ""),
        ("magnification_in_focus", view.in_focus_magnification_v, ""),
        ("sample_to_lens_entrance", view.d1_mm, "mm"),
        ("lens_exit_to_detector", view.d2_mm, "mm"),
        ("sample_to_detector", view.total_mm, "mm"),
        ("defocus", view.defocus_mm, "mm"),
        ("transmission", view.transmission, ""),
        ("detector_pixel", view.pixel_um, "um"),
        ("pixel_across_beam", view.pixel_y_um, "um"),
    ]
    if math.isfinite(view.pixel_x_um):
        found.append(("pixel_along_beam", view.pixel_x_um, "um"))
    if view.resolution is not None:
        found.append(("resolution_covariance", view.resolution.covariance, ""))
    return found
