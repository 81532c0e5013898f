"""Laboratory, sample, object plane, detector and map: how a point or a direction reads in each.

Laboratory: x beam, y left as seen by a photon, z up. Imaging basis at scattering angle 2theta: ``e_rock = (cos th, 0,
sin th)``, ``e_roll = (0, 1, 0)``, ``e_par = (-sin th, 0, cos th)``, right-handed. Object plane, perpendicular to the
diffracted beam: ``u = y``, ``v = -x sin 2th + z cos 2th`` (up). Detector: U along u, V along v, both from where the
axis meets the detector. A lens inverts: ``U = -M_h u``, ``V = -M_v v``.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "canonical_to_frame",
    "detector_to_layer",
    "detector_to_pixel",
    "diffraction_vector",
    "frame_to_canonical",
    "imaging_basis",
    "lab_to_object",
    "lab_to_sample",
    "layer_to_detector",
    "outgoing_direction",
    "pixel_to_detector",
    "sample_to_lab",
]

Stage = Literal["above", "below"]
_Scalar = TypeVar("_Scalar", bound=np.generic)


def imaging_basis(two_theta_deg: float) -> NDArray[np.float64]:
    """Return the imaging basis as rows e_rock, e_roll, e_par in laboratory coordinates.

    Parameters
    ----------
    two_theta_deg : float
        Scattering angle, deg.

    Returns
    -------
    ndarray, shape (3, 3)
        Right-handed; ``basis @ vector_lab`` gives the components along rock, roll, par (Poulsen et al. 2017).
    """
    theta = math.radians(two_theta_deg / 2.0)
    c, s = math.cos(theta), math.sin(theta)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def outgoing_direction(two_theta_deg: ArrayLike, eta_deg: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Return the unit vector of a diffracted beam.

    ``(cos 2th, -sin 2th sin eta, sin 2th cos eta)``: Poulsen et al. 2017, J. Appl. Cryst. 50, 1441, Eq. 39. eta = 0 is
    up.

    Parameters
    ----------
    two_theta_deg, eta_deg : array_like
        Scattering angle and azimuth, deg, broadcast to shape (...).

    Returns
    -------
    ndarray, shape (..., 3)
    """
    two_theta, eta = np.broadcast_arrays(np.radians(two_theta_deg), np.radians(eta_deg))
    return np.stack(
        [np.cos(two_theta), -np.sin(two_theta) * np.sin(eta), np.sin(two_theta) * np.cos(eta)], axis=-1
    ).astype(float)


def diffraction_vector(two_theta_deg: float, wavelength_angstrom: float) -> NDArray[np.float64]:
    """Return ``G_lab = |G| (-sin th, 0, cos th)`` of a crystal that diffracts upwards, 1/angstrom without 2 pi.

    Parameters
    ----------
    two_theta_deg : float
        Scattering angle, deg.
    wavelength_angstrom : float
        Wavelength, angstrom.

    Returns
    -------
    ndarray, shape (3,)
        ``k_out - k_in`` with ``|k| = 1 / wavelength``.
    """
    return (outgoing_direction(two_theta_deg) - np.array([1.0, 0.0, 0.0])) / wavelength_angstrom


def sample_to_lab(
    points: ArrayLike, rotation: ArrayLike, translation: ArrayLike = (0.0, 0.0, 0.0), stage: Stage = "above"
) -> NDArray[np.float64]:
    """Return laboratory coordinates of points fixed in the sample.

    Parameters
    ----------
    points : array_like, shape (..., 3)
        Points in the sample frame, in any length unit.
    rotation : array_like, shape (3, 3)
        Of `goniometer_rotation`.
    translation : array_like, shape (3,)
        (samx, samy, samz) in the same unit as the points.
    stage : {"above", "below"}
        Translations carried by the rotations (``R (r + t)``) or carrying them (``R r + t``).

    Returns
    -------
    ndarray, shape (..., 3)
    """
    r, turn, t = (
        np.asarray(points, dtype=float),
        np.asarray(rotation, dtype=float),
        np.asarray(translation, dtype=float),
    )
    return (r + t) @ turn.T if stage == "above" else r @ turn.T + t


def lab_to_sample(
    points: ArrayLike, rotation: ArrayLike, translation: ArrayLike = (0.0, 0.0, 0.0), stage: Stage = "above"
) -> NDArray[np.float64]:
    """Return sample coordinates of points given in the laboratory: the inverse of `sample_to_lab`, same arguments."""
    r, turn, t = (
        np.asarray(points, dtype=float),
        np.asarray(rotation, dtype=float),
        np.asarray(translation, dtype=float),
    )
    return r @ turn - t if stage == "above" else (r - t) @ turn


def lab_to_object(points: ArrayLike, two_theta_deg: float) -> NDArray[np.float64]:
    """Return (u, v, w) of laboratory points: across, up in the object plane, and downstream along the diffracted beam.

    Parameters
    ----------
    points : array_like, shape (..., 3)
        Laboratory coordinates in any length unit.
    two_theta_deg : float
        Scattering angle, deg.

    Returns
    -------
    ndarray, shape (..., 3)
        w is the distance from the object plane through the rotation centre, positive towards the objective.
    """
    angle = math.radians(two_theta_deg)
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(points, dtype=float) @ np.array([[0.0, -s, c], [1.0, 0.0, 0.0], [0.0, c, s]])


def layer_to_detector(
    x_um: ArrayLike, y_um: ArrayLike, two_theta_deg: float, magnification_h: float, magnification_v: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (U, V) in mm on the detector of points of the illuminated layer z = 0.

    Parameters
    ----------
    x_um, y_um : array_like
        Position on the layer along the beam and across, um.
    two_theta_deg : float
        Scattering angle, deg.
    magnification_h, magnification_v : float
        Magnifications, positive; the image of a lens is inverted.
    """
    u = -magnification_h * np.asarray(y_um, dtype=float)
    v = magnification_v * math.sin(math.radians(two_theta_deg)) * np.asarray(x_um, dtype=float)
    return u * 1e-3, v * 1e-3


def detector_to_layer(
    u_mm: ArrayLike, v_mm: ArrayLike, two_theta_deg: float, magnification_h: float, magnification_v: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (x, y) in um on the illuminated layer z = 0 of points of the detector; inverts `layer_to_detector`."""
    x = np.asarray(v_mm, dtype=float) / (magnification_v * math.sin(math.radians(two_theta_deg)))
    y = -np.asarray(u_mm, dtype=float) / magnification_h
    return x * 1e3, y * 1e3


def pixel_to_detector(
    row: ArrayLike,
    column: ArrayLike,
    shape: tuple[int, int],
    pixel_um: float,
    flip_ud: bool = False,
    flip_lr: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (U, V) in mm from the centre of the detector of the centre of a pixel of a recorded frame.

    Without flips row 0 is the top (largest V) and column 0 the left as seen by a photon (largest U).

    Parameters
    ----------
    row, column : array_like
        Pixel indices; fractions are allowed.
    shape : tuple of int
        (rows, columns) of the frame.
    pixel_um : float
        Pixel in the detector plane: sensor pixel over the magnification of the visible-light objective, um.
    flip_ud, flip_lr : bool
        Whether the camera delivers rows upwards, columns mirrored.
    """
    v = ((shape[0] - 1) / 2.0 - np.asarray(row, dtype=float)) * (-1.0 if flip_ud else 1.0)
    u = ((shape[1] - 1) / 2.0 - np.asarray(column, dtype=float)) * (-1.0 if flip_lr else 1.0)
    return u * pixel_um * 1e-3, v * pixel_um * 1e-3


def detector_to_pixel(
    u_mm: ArrayLike,
    v_mm: ArrayLike,
    shape: tuple[int, int],
    pixel_um: float,
    flip_ud: bool = False,
    flip_lr: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (row, column), as fractions, of points on the detector: the inverse of `pixel_to_detector`."""
    per_mm = 1e3 / pixel_um
    row = (shape[0] - 1) / 2.0 - np.asarray(v_mm, dtype=float) * per_mm * (-1.0 if flip_ud else 1.0)
    column = (shape[1] - 1) / 2.0 - np.asarray(u_mm, dtype=float) * per_mm * (-1.0 if flip_lr else 1.0)
    return row, column


def frame_to_canonical(frame: NDArray[_Scalar], flip_ud: bool = False, flip_lr: bool = False) -> NDArray[_Scalar]:
    """Return a view of an inverted image as ``map[ix, iy]``, x and y on the sample increasing with the index.

    Parameters
    ----------
    frame : ndarray, shape (rows, columns, ...)
        As the camera delivers it.
    flip_ud, flip_lr : bool
        The camera's flips.
    """
    return frame[:: 1 if flip_ud else -1, :: -1 if flip_lr else 1]


def canonical_to_frame(canonical: NDArray[_Scalar], flip_ud: bool = False, flip_lr: bool = False) -> NDArray[_Scalar]:
    """Return a view of ``map[ix, iy]`` as the camera would deliver it: mirroring is its own inverse."""
    return frame_to_canonical(canonical, flip_ud, flip_lr)
