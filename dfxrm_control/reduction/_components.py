"""Components of the lattice's distortion: what the centres of mass of a scan say of strain and tilts, and how well.

A pixel diffracts where its diffraction vector meets the one the microscope asks for. So the centres of mass of the
scanned axes tell the vector itself, in the frame of the sample: ``G = R^T Q0``, with the goniometer's rotation R and
``Q0 = k_obj - k_in`` at the centres of mass (Poulsen et al. 2021, J. Appl. Cryst. 54, 1555, Eqs. 32 and 38: ``dQ = H
Q0``, with Q0 along the third axis the components ``H_13, H_23, H_33``).

A scan of fewer than three axes leaves a direction of reciprocal space unseen. What lies along it leaks into what is
seen: with J the Jacobian of the axes and C the covariance of the resolution function, a lattice displaced by q peaks
at ``m = -P q``, ``P = (J^T C^-1 J)^-1 J^T C^-1``, and ``-J m = J P q`` is made of it. A component k of q is then wrong
by ``k (J P - 1) q``: it counts as known where that is at most `MOST_LEAK` of any q, and the rest is stated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.crystal import HC_KEV_ANGSTROM
from dfxrm_control.errors import PhysicsError
from dfxrm_control.geometry import goniometer_rotation, imaging_basis
from dfxrm_control.microscope import View
from dfxrm_control.reduction._statistics import position_error
from dfxrm_control.windows import apparent_q

__all__ = ["ComponentMap", "Components", "components_of"]

MOST_LEAK = 0.1
"""A component of which more than this share may be something else is not known."""

STATED_LEAK = 0.01
"""A smaller share is not worth a word."""

_GONIOMETER = ("mu", "omega", "chi", "phi")
_OF_LENGTH = frozenset({"two_theta", "energy", "ccmth"})
_ROCK, _ROLL, _PAR = np.eye(3)
_DIRECTIONS = ("tilt about y", "tilt across y and Q", "strain")


@dataclass(frozen=True)
class ComponentMap:
    """A map that is derived from the centres of mass of a scan; arrays have shape (nx, ny), NaN where not valid.

    Attributes
    ----------
    name : str
        ``strain``, ``tilt_rock``, ``tilt_roll``, ``H_13``, ``H_23``, ``H_33`` or ``relative_contrast``.
    label : str
        What it is and what it is relative to.
    units : str
        ``deg`` for tilts, empty for the others.
    values : ndarray
        The map.
    error : ndarray
        Predicted rms error: of noise, through the Jacobian from the full covariance of the centres of mass, and of the
        pixel's extent.
    noise_error : ndarray
        The part of noise alone.
    """

    name: str
    label: str
    units: str
    values: NDArray[np.float64]
    error: NDArray[np.float64]
    noise_error: NDArray[np.float64]


@dataclass(frozen=True)
class Components:
    """What a scan tells of the lattice.

    Attributes
    ----------
    maps : dict of str to ComponentMap
        By name.
    notes : tuple of str
        What is to be said about them.
    reference_g : ndarray, shape (3,), or None
        Diffraction vector that they are counted from, sample frame, 1/angstrom without 2 pi.
    """

    maps: dict[str, ComponentMap]
    notes: tuple[str, ...] = ()
    reference_g: NDArray[np.float64] | None = None


def _turned_back(vector: Sequence[NDArray], axis: int, angle_rad: ArrayLike) -> list[NDArray]:
    """Return a vector turned by minus an angle about a coordinate axis (0: x, 1: y, 2: z)."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    turned = list(vector)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turned[first], turned[second] = c * vector[first] + s * vector[second], c * vector[second] - s * vector[first]
    return turned


def _wavelength(view: View, moved: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
    """Return the wavelength with energy or monochromator moved, angstrom."""
    mono = view.instrument.monochromator
    if "energy" in moved:
        return HC_KEV_ANGSTROM / np.asarray(moved["energy"], dtype=float)
    if "ccmth" in moved and mono is not None:
        return np.asarray(2.0 * mono.d_spacing_angstrom * np.sin(np.radians(moved["ccmth"])))
    return np.asarray(view.wavelength_angstrom)


def _diffraction_vector(view: View, moved: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
    """Return ``R^T Q0`` with axes moved: the vector, in the sample, of the lattice that peaks there, 1/angstrom.

    Parameters
    ----------
    view : View
        Where all else stands.
    moved : mapping of str to array_like, shape (...)
        Positions of the scanned axes.

    Returns
    -------
    ndarray, shape (3, ...)
    """
    two_theta, yaw = np.radians(moved.get("two_theta", view.two_theta_deg)), math.radians(view.yaw_deg)
    wavelength = _wavelength(view, moved)
    vector = [
        np.asarray((np.cos(two_theta) * math.cos(yaw) - 1.0) / wavelength),
        np.asarray(math.sin(yaw) / wavelength),
        np.asarray(np.sin(two_theta) * math.cos(yaw) / wavelength),
    ]
    angles = {axis: np.radians(moved.get(axis, view.positions.get(axis, 0.0))) for axis in _GONIOMETER}
    angles["mu"] = angles["mu"] * view.instrument.mu_sign
    # from the base of the goniometer to its top
    for name, axis in (("mu", 1), ("omega", 2), ("chi", 0), ("phi", 1)):
        vector = _turned_back(vector, axis, angles[name])
    return np.stack(np.broadcast_arrays(*vector))


def components_of(
    view: View,
    names: Sequence[str],
    com: Sequence[NDArray[np.float64]],
    covariance: Mapping[tuple[int, int], NDArray[np.float64]],
    valid: NDArray[np.bool_],
    unstrained_d_angstrom: float | None = None,
    blur_px: tuple[float, float] = (0.0, 0.0),
) -> Components:
    """Return the components that a scan tells.

    Parameters
    ----------
    view : View
        The microscope in the middle of the scan.
    names : sequence of str
        Scanned axes by logical name.
    com : sequence of ndarray, shape (nx, ny)
        Centre of mass of each, deg (keV for the energy).
    covariance : mapping of (int, int) to ndarray, shape (nx, ny)
        Covariance that noise gives each pair of centres of mass, a <= b.
    valid : ndarray of bool, shape (nx, ny)
        Pixels that count.
    unstrained_d_angstrom : float, optional
        Spacing of the unstrained planes. Default: strain is relative to the median of the valid pixels. Tilts always
        are.
    blur_px : tuple of float
        Rms blur of the maps beyond a pixel, along both axes.
    """
    known = valid & np.isfinite(np.stack(list(com))).all(axis=0)
    if view.resolution is None:
        return Components({})
    try:
        jacobian = view.jacobian(names)
        seen = apparent_q(view.resolution, jacobian)
    except PhysicsError:
        # something else was scanned, or axes that do the same
        return Components({})
    middle = {"two_theta": view.two_theta_deg, "energy": view.energy_kev, **view.positions}
    middle = {name: middle[name] for name in names}
    if known.any():
        middle = {name: float(np.median(values[known])) for name, values in zip(names, com, strict=True)}
    reference = _diffraction_vector(view, middle)
    length = float(np.linalg.norm(reference))
    unstrained = length if unstrained_d_angstrom is None else 1.0 / unstrained_d_angstrom
    found = _diffraction_vector(
        view, {name: np.where(known, values, np.nan) for name, values in zip(names, com, strict=True)}
    )
    e3 = reference / length
    distortion = found / unstrained - e3[:, np.newaxis, np.newaxis]
    angles = {axis: middle.get(axis, view.positions.get(axis, 0.0)) for axis in _GONIOMETER}
    turn = goniometer_rotation(**angles, mu_sign=view.instrument.mu_sign)
    # rows: rock, roll, par of the reference, in the sample's frame
    lab = imaging_basis(middle.get("two_theta", view.two_theta_deg)) @ turn
    strain = unstrained / np.linalg.norm(found, axis=0) - 1.0

    candidates: dict[str, tuple[str, str, NDArray, NDArray]] = {}
    if set(names) <= _OF_LENGTH and len(names) == 1:
        label = (
            f"relative contrast: {seen[2, 2]:.2f} per unit strain, {-seen[2, 0]:+.1f} per rad of tilt about y; "
            "the two are not separated"
        )
        candidates["relative_contrast"] = (label, "", strain, -_PAR)
    else:
        to = "the median" if unstrained_d_angstrom is None else f"d = {unstrained_d_angstrom:.6g} angstrom"
        deg = math.degrees(1.0)
        rock, roll = (np.einsum("i,i...->...", row, distortion) for row in lab[:2])
        candidates["strain"] = (f"strain along Q, relative to {to}", "", strain, -_PAR)
        candidates["tilt_rock"] = ("tilt about y, relative to the median", "deg", deg * rock, deg * _ROCK)
        candidates["tilt_roll"] = ("tilt across y and Q, relative to the median", "deg", -deg * roll, -deg * _ROLL)
        e1 = np.array([1.0, 0.0, 0.0]) - e3[0] * e3
        e1 /= np.linalg.norm(e1)
        for number, row in enumerate((e1, np.cross(e3, e1), e3), start=1):
            values = np.einsum("i,i...->...", row, distortion)
            candidates[f"H_{number}3"] = (f"distortion H_{number}3, relative to {to}", "", values, lab @ row)

    leak = seen - np.eye(3)
    # of each axis, d q / d position
    response = -jacobian * [1.0 / middle[name] if name == "energy" else math.radians(1.0) for name in names]
    maps, notes = dict[str, ComponentMap](), list[str]()
    for name, (label, units, values, part) in candidates.items():
        false = part @ leak / np.linalg.norm(part)
        if name != "relative_contrast" and np.abs(false).max() > MOST_LEAK:
            continue
        if name in ("strain", "tilt_rock", "tilt_roll"):
            notes += [
                f"{name} holds {abs(share):.3f} of any {of} (tilts in rad), which this scan does not separate from it"
                for share, of in zip(false, _DIRECTIONS, strict=True)
                if abs(share) > STATED_LEAK
            ]
        noise_error = np.where(known, _propagated(part @ response, covariance), np.nan)
        error = np.where(known, np.hypot(noise_error, position_error(values, blur_px)), np.nan)
        maps[name] = ComponentMap(name, label, units, values, error, noise_error)
    return Components(maps, tuple(notes), unstrained * e3)


def _propagated(slopes: NDArray, covariance: Mapping[tuple[int, int], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the rms error of a sum of centres of mass, each times its slope."""
    variance = sum((1.0 if a == b else 2.0) * slopes[a] * slopes[b] * term for (a, b), term in covariance.items())
    return np.sqrt(np.maximum(variance, 0.0))
