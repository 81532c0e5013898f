"""Weak-beam imaging: off the peak, where only what is strongly distorted lights up.

The peak's width is measured first and decides where to go, so the plan looks at its own frames while it runs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from bluesky.utils import Msg

from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import LimitError, ParameterError, PhysicsError
from dfxrm_control.microscope import View
from dfxrm_control.parameters import RockingParameters, WeakBeamExposure, WeakBeamParameters
from dfxrm_control.windows import ScanAxis
from plans._alignment._expected import present_view
from plans._flat import MsgGenerator, flat_keywords
from plans._frames import RunFrames, watching
from plans._instrument import Axis, Instrument
from plans._mesh import Mesh, always, mesh_scan, position_of
from plans._series import RunSeries
from plans._windows import window_scan

__all__ = ["WeakBeamWarning", "weak_beam_scan"]

POINTS_PER_FWHM = 10
PIXELS = 65_536
"""Pixels, evenly over the frame, whose curves are kept: enough for a median to 0.3 % of one pixel's scatter."""
LONGER = 10.0
FEWEST_DARKS = 10
TWO_THETA = "two_theta"


class WeakBeamWarning(UserWarning):
    """Weak-beam images that will not show what they are meant to."""


@dataclass(frozen=True)
class _Peak:
    """Where the peak lies and how wide it is, deg, and whether that was measured."""

    centre: float
    fwhm: float
    measured: bool
    details: Mapping[str, Any]


@flat_keywords(WeakBeamParameters)
def weak_beam_scan(instrument: Instrument, parameters: WeakBeamParameters, md: dict[str, Any]) -> MsgGenerator:
    """Rock finely through the peak, then expose for long at multiples of half its width, on one flank or both.

    The width is the median over pixels of each pixel's own full width at half maximum, worked out from the frames of
    the rock. Each point off the peak is a run of its own; all of them, the rock included, are a series that is
    reduced together. ``rock`` may also name the roll or two_theta, along which offsets are so large that usually
    nothing shows; the plan says so.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds; after the rock, when its frames give no
        width or an offset is out of reach.
    """
    p = parameters
    name = p.rock or instrument.defaults.rock
    camera = p.camera or instrument.defaults.camera
    instrument.camera(camera)
    axis = instrument.axis(name)
    if name == "energy":
        raise ParameterError("weak_beam_scan: offsets are angles; to go off the peak by the energy, rock 'ccmth'")
    strains = p.two_theta_offsets != [0.0]
    if strains and name == TWO_THETA:
        raise ParameterError(f"weak_beam_scan: two_theta_offsets go with another axis to rock than {name!r}")
    arm = instrument.axis(TWO_THETA) if strains else None
    exposure = _exposure(instrument, camera, p)
    view, predicted, reason = yield from _predict(instrument, camera, name)
    rock = _rock_parameters(p, name, predicted, reason)
    starts = {axis.name: (yield from position_of(axis))}
    if arm is not None:
        starts[arm.name] = yield from position_of(arm)
        for offset in p.two_theta_offsets:
            _check(arm, starts[arm.name] + offset)
    points = [(k, offset) for offset in p.two_theta_offsets for k in p.signed_k()]
    if predicted is not None:
        for k, offset in points:
            _check(axis, _middle(p, starts[name]) + _shift(view, name, offset) + k * predicted / 2.0)
    series = RunSeries("weak_beam", p, of=1 + len(points), least=2, axis=name, units="deg", md=md)

    def whole() -> MsgGenerator:
        frames = RunFrames(camera)
        curve = partial(window_scan, instrument, rock, {"rock": name}, lambda view, axes: ({}, []))
        yield from watching(frames, lambda: series.run(curve, 0.0, details={"role": "rock", "prepares": True}))
        peak = yield from _find(instrument, frames, name, camera, predicted, _middle(p, starts[name]))
        half = peak.fwhm / 2.0
        for k, offset in points:
            _check(axis, peak.centre + _shift(view, name, offset) + k * half)
        remarks = _judge(_physics(instrument, view, name, min(p.k) * half), name, min(p.k))
        for remark in remarks:
            warnings.warn(remark, WeakBeamWarning, stacklevel=2)
        darks = _darks(instrument, p, len(points))
        for number, (k, offset) in enumerate(points):
            yield Msg("checkpoint")
            there = {name: round(peak.centre + _shift(view, name, offset) + k * half, 9)}
            if arm is not None:
                there = {arm.name: round(starts[arm.name] + offset, 9), **there}
            # one set of darks, before the first: the exposure time is the same for all
            one = exposure.model_copy(update={"positions": there, "darks_before": darks if number == 0 else 0})
            details = {
                "role": "exposure",
                "k": k,
                "two_theta_offset": offset,
                "two_theta_centre": starts.get(TWO_THETA),
                "fwhm": peak.fwhm,
                "centre": peak.centre,
                "measured": peak.measured,
                "thickness_um": p.thickness_um,
                **peak.details,
                **_physics(instrument, view, name, k * half),
            }
            yield from series.run(
                partial(_expose, instrument, one, remarks),
                round(there[name] - peak.centre, 9),
                details=details,
                dfxrm={"maps": False},  # one position has no centre of mass; the series is reduced as one
            )
        return series.results

    def go_back() -> MsgGenerator:
        for each, position in starts.items():
            yield Msg("set", instrument.axis(each), position, group="return")
        yield Msg("wait", None, group="return")

    leave = [go_back] if (p.after or instrument.defaults.after) == "start" else []
    return (yield from always(whole(), *leave))


def _middle(p: WeakBeamParameters, here: float) -> float:
    """Return the middle of the rock's window."""
    if p.rock_center is None:
        return here
    return here + p.rock_center if p.relative else p.rock_center


def _shift(view: View | None, name: str, two_theta_offset_deg: float) -> float:
    """Return by how much the peak along an axis moves when the arm does, deg: offsets count from where it is then."""
    if not two_theta_offset_deg or view is None or view.resolution is None:
        return 0.0
    arm, axis = view.jacobian([TWO_THETA])[:, 0], view.jacobian([name])
    return float(view.resolution.peak_rad(axis, arm * two_theta_offset_deg)[0])


def _predict(
    instrument: Instrument, camera: str, name: str
) -> Generator[Msg, Any, tuple[View | None, float | None, str]]:
    """Return the microscope as it stands and the FWHM of a perfect crystal along an axis, deg; None, and why."""
    try:
        view = yield from present_view(instrument, camera)
        if view.resolution is None:
            return view, None, "there is no objective in the path"
        return view, math.degrees(view.resolution.curve_fwhm_rad(view.jacobian([name])[:, 0])), ""
    except PhysicsError as error:
        return None, None, str(error)


def _rock_parameters(p: WeakBeamParameters, name: str, predicted: float | None, reason: str) -> RockingParameters:
    """Return the parameters of the rock: a tenth of the instrument's width per step where nothing is said."""
    given = {field: getattr(p, field) for field in RockingParameters.model_fields}
    step = p.rock_step
    if step is None and p.rock_num is None:
        if predicted is None:
            raise ParameterError(
                f"weak_beam_scan: the step of {name!r} cannot be worked out ({reason}); give rock_step or rock_num"
            )
        step = float(f"{predicted / POINTS_PER_FWHM:.3g}")
    elif p.rock_num is not None and p.rock_range is not None:
        step = p.rock_range / (p.rock_num - 1)
    if predicted is not None and step is not None and step > predicted / POINTS_PER_FWHM * 1.05:
        warnings.warn(
            f"weak_beam_scan: a step of {step:.3g} deg is more than a tenth of the instrument's width of "
            f"{predicted:.3g} deg; the width of the peak will be less well known",
            WeakBeamWarning,
            stacklevel=2,
        )
    given |= {"rock": name, "rock_step": step if p.rock_num is None else None, "after": "stay"}
    return RockingParameters.check(given)


def _exposure(instrument: Instrument, camera: str, p: WeakBeamParameters) -> WeakBeamExposure:
    longest = instrument.config.cameras[camera].max_exposure_s if camera in instrument.config.cameras else math.inf
    exposure_s = p.weak_exposure_s or min(LONGER * p.exposure_s, longest)
    if not exposure_s <= longest:
        raise ParameterError(
            f"weak_exposure_s: {exposure_s:g} s was asked of camera {camera!r}, which exposes at most {longest:g} s; "
            "ask for several frames, which are averaged"
        )
    return WeakBeamExposure(
        exposure_s=exposure_s, camera=camera, darks_before=0, after="stay", positions={}, frames=p.frames
    )


def _darks(instrument: Instrument, p: WeakBeamParameters, points: int) -> int:
    if p.weak_darks is not None:
        return p.weak_darks
    most = instrument.defaults.darks if p.darks_before is None else p.darks_before
    return min(most, max(FEWEST_DARKS, p.frames * points))


def _find(
    instrument: Instrument, frames: RunFrames, name: str, camera: str, predicted: float | None, middle: float
) -> Generator[Msg, Any, _Peak]:
    """Return the peak as the frames of the rock show it; where there are none, in a dry run, as it is expected."""
    if not frames.live:
        if predicted is None:
            raise ParameterError(
                f"weak_beam_scan: the width of {name!r} cannot be predicted at this setting, so where the images off "
                "the peak are taken is only known once there are frames"
            )
        warnings.warn(
            f"weak_beam_scan: without frames the offsets are worked out from the instrument's width of "
            f"{predicted:.4g} deg along {name} and the middle of the window; the scan measures both",
            WeakBeamWarning,
            stacklevel=2,
        )
        return _Peak(middle, predicted, False, {})
    from dfxrm_control.reduction import curve_width  # numba and pictures, which a plan without frames does without

    described = instrument.config.cameras[camera]
    stride = math.ceil(math.sqrt(described.rows * described.columns / PIXELS))

    def some(frame: np.ndarray) -> np.ndarray:
        return frame[::stride, ::stride].copy()

    curves = yield from frames.each(some)
    darks = (yield from frames.each(some, "darks_before")) if frames.count("darks_before") else []
    noise = described.noise
    try:
        width = curve_width(
            frames.column(name),
            np.stack(curves),
            axis=name,
            units="deg",
            gain_adu_per_photon=noise.gain_adu_per_photon,
            frame_variance_adu2=noise.read_variance_adu2
            + (noise.fixed_pattern_adu**2 if not darks else noise.read_variance_adu2 / len(darks)),
            saturation_adu=noise.saturation_adu,
            dark=np.mean(darks, axis=0) if darks else None,
        )
    except ParameterError as error:
        raise ParameterError(
            f"weak_beam_scan: {error}; the rock is kept, and nothing was exposed off the peak"
        ) from error
    for remark in width.remarks:
        warnings.warn(f"weak_beam_scan: {name}: {remark}", WeakBeamWarning, stacklevel=2)
    details = {
        "pixels": width.pixels,
        "points_per_fwhm": width.points,
        "centre_spread": width.centre_spread,
        "remarks": list(width.remarks),
    }
    return _Peak(width.centre, width.fwhm, True, details)


def _physics(instrument: Instrument, view: View | None, name: str, offset_deg: float) -> dict[str, float]:
    """Return what an offset means: the distortion it asks for, and how far from a dislocation that is found.

    At a distance r from a line with ``g . b = 1`` the distortion is about ``d / (2 pi r)`` (d, the spacing of the
    planes, is the part of b along the diffraction vector), so the offset is met at ``d / (2 pi offset)``.
    """
    if view is None:
        return {}
    change = view.jacobian([name])[:, 0] * math.radians(offset_deg)
    size = float(np.linalg.norm(change))
    sample = instrument.sample
    spacing_um = 1e-4 * Lattice.from_parameters(*sample.lattice).d_spacing(sample.hkl)
    found = {"offset_rad": size, "matching_radius_um": spacing_um / (2.0 * math.pi * size)}
    if view.objective is not None:
        found["psf_um"] = min(view.blur("v").total_um, view.blur("h").total_um)
    return found


def _judge(found: Mapping[str, float], name: str, k: float) -> list[str]:
    """Say whether the offset nearest to the peak can show anything."""
    if not found.get("psf_um"):
        return []
    radius_nm, psf_nm = 1e3 * found["matching_radius_um"], 1e3 * found["psf_um"]
    if radius_nm >= psf_nm:
        return []
    return [
        f"weak_beam_scan: {k:g} half widths off the peak along {name}, {1e3 * found['offset_rad']:.3g} "
        f"mrad, are met {radius_nm:.3g} nm from a dislocation (b/(2 pi offset)), which is below the resolution of "
        f"{psf_nm:.3g} nm; {'little will show' if radius_nm < psf_nm / 2.0 else 'lines are blurred and fainter'}"
    ]


def _expose(
    instrument: Instrument, exposure: WeakBeamExposure, remarks: list[str], md: Mapping[str, Any]
) -> MsgGenerator:
    """Take the frames at one point as a run of its own."""
    *slow, (fast, position) = exposure.positions.items()
    mesh = Mesh(
        (*(ScanAxis(name, there, 0.0, 1) for name, there in slow), ScanAxis(fast, position, 0.0, exposure.frames))
    )
    command = "fscan" if len(mesh.axes) == 1 else f"fscan{len(mesh.axes)}d"
    motors = " ".join(f"{instrument.written(axis.name)} {axis.start:.10g} 0 {axis.num}" for axis in mesh.axes)
    title = f"{command} {motors} {exposure.exposure_s:.10g} {exposure.exposure_s:.10g}"
    return (yield from mesh_scan(instrument, mesh, exposure, title=title, remarks=remarks, md=md))


def _check(axis: Axis, position: float) -> None:
    check = getattr(axis, "check_value", None)
    if check is None:
        return
    try:
        check(position)
    except Exception as error:
        raise LimitError(f"weak_beam_scan: axis {axis.name!r} cannot go to {position:.6g} deg: {error}") from error
