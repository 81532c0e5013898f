"""What the instrument says an alignment will see: how wide a peak is along an axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dfxrm_control.crystal import Lattice, bragg_angle_deg
from dfxrm_control.errors import ParameterError, PhysicsError
from dfxrm_control.geometry import FWHM_PER_SIGMA, Resolution, motor_jacobian
from dfxrm_control.microscope import Microscope, View
from plans._flat import MsgGenerator
from plans._instrument import Instrument
from plans._mesh import read_channels, read_positions

__all__ = ["Width", "expected_width", "lens_view", "present_view", "reflection_two_theta_deg"]

OPEN_RMS_RAD = 0.1
"""Acceptance without a lens: so wide that only Bragg's law selects."""


@dataclass(frozen=True)
class Width:
    """How wide a peak is along an axis.

    Attributes
    ----------
    instrument : float
        FWHM of a perfect crystal, in the axis' unit.
    whole : float
        That of everything in the field, the sample's spread included.
    """

    instrument: float
    whole: float


def present_view(instrument: Instrument, camera: str) -> MsgGenerator:
    """Return the `View` of a camera as everything stands now; reads every axis and channel."""
    positions = yield from read_positions(instrument.axes)
    channels = yield from read_channels(instrument)
    return Microscope(instrument.config).view(positions, camera, channels)


def lens_view(instrument: Instrument, camera: str, plan: str) -> MsgGenerator:
    """Return the `View` of a camera through the objective, as everything stands now.

    Raises
    ------
    ParameterError
        When the objective gives the camera no image; the sentence begins with the name of the plan.
    """
    instrument.camera(camera)
    try:
        view: View = yield from present_view(instrument, camera)
    except PhysicsError as error:
        raise ParameterError(f"{plan}: {error}") from error
    if view.resolution is None:
        raise ParameterError(
            f"{plan}: the objective gives camera {camera!r} no image at 2theta {view.two_theta_deg:.4g} deg; is it in, "
            "and is the camera there?"
        )
    return view


def reflection_two_theta_deg(instrument: Instrument, energy_kev: float) -> float:
    """Return the scattering angle of the configured reflection, deg."""
    sample = instrument.sample
    lattice = Lattice.from_parameters(*sample.lattice, space_group=sample.space_group, atoms=list(sample.atoms))
    return 2.0 * bragg_angle_deg(lattice.d_spacing(sample.hkl), energy_kev)


def expected_width(instrument: Instrument, view: View, axis: str) -> Width | None:
    """Return how wide the peak along an axis is, or None where physics has no answer for that axis.

    With the objective: the conditional width of the resolution function. Without: that of the beam alone.
    """
    try:
        width = _sigma(instrument, view, axis)
    except PhysicsError:
        return None
    if not math.isfinite(width):
        return None
    fwhm = FWHM_PER_SIGMA * width
    spread = instrument.sample.spread_deg if axis in ("mu", "omega", "chi", "phi") else 0.0
    return Width(fwhm, fwhm + 2.0 * spread)


def _sigma(instrument: Instrument, view: View, axis: str) -> float:
    if view.resolution is not None:
        return view.instrument_sigma([axis])[axis]
    beam = instrument.config.beam
    two_theta = reflection_two_theta_deg(instrument, view.energy_kev)
    resolution = Resolution(
        theta_deg=two_theta / 2.0,
        zv_rms_rad=beam.divergence_v_rms_rad,
        zh_rms_rad=beam.divergence_h_rms_rad,
        na_v_rms_rad=OPEN_RMS_RAD,
        na_h_rms_rad=OPEN_RMS_RAD,
        eps_rms=beam.bandwidth_rms,
        zv_cut_rad=beam.divergence_v_cut_rad,
    )
    p: Mapping[str, Any] = view.positions
    jacobian = motor_jacobian(
        [axis],
        two_theta,
        mu=p.get("mu", 0.0),
        omega=p.get("omega", 0.0),
        chi=p.get("chi", 0.0),
        phi=p.get("phi", 0.0),
        mu_sign=instrument.config.mu_sign,
        ccmth_deg=p.get("ccmth"),
    )
    return math.degrees(float(resolution.motor_sigma_rad(jacobian)[0]))
