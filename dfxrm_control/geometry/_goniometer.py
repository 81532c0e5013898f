"""The four-circle goniometer: rotations, axes, and how each motor moves the diffraction vector.

The stack is ``R = R_mu R_omega R_chi R_phi`` (left factor = base): omega about +z, chi about +x, phi about +y, and mu
about ``mu_sign * y``. With ``mu_sign = -1`` (ID03, September 2025: darling, crispy) a positive mu tips +z against the
beam, into Bragg.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from dfxrm_control.errors import PhysicsError
from dfxrm_control.geometry._frames import imaging_basis

__all__ = ["goniometer_rotation", "motor_axes", "motor_jacobian"]

_ROTATIONS = ("mu", "omega", "chi", "phi")


def goniometer_rotation(
    mu: ArrayLike = 0.0, omega: ArrayLike = 0.0, chi: ArrayLike = 0.0, phi: ArrayLike = 0.0, mu_sign: int = -1
) -> NDArray[np.float64]:
    """Return the rotation that takes sample coordinates to laboratory coordinates.

    Parameters
    ----------
    mu, omega, chi, phi : array_like
        Motor positions, deg; scalars or arrays that broadcast together to shape (...).
    mu_sign : {-1, 1}
        mu turns about ``mu_sign * y``.

    Returns
    -------
    ndarray, shape (..., 3, 3)
        ``R_mu R_omega R_chi R_phi``.

    Raises
    ------
    PhysicsError
        For a mu_sign other than -1 or 1.
    """
    if mu_sign not in (-1, 1):
        raise PhysicsError(f"mu_sign: {mu_sign!r} was given; mu turns about -y (-1) or +y (1)")
    mu, omega, chi, phi = np.broadcast_arrays(*(np.asarray(angle, dtype=float) for angle in (mu, omega, chi, phi)))
    shape = mu.shape
    # upper-case letters: each rotation is about the axis carried along by the ones before it
    upper = Rotation.from_euler("ZXY", np.stack([omega, chi, phi], axis=-1).reshape(-1, 3), degrees=True)
    base = Rotation.from_rotvec(np.radians(mu).reshape(-1, 1) * (0.0, mu_sign, 0.0))
    rotation = base * upper
    return rotation.as_matrix().reshape(*shape, 3, 3)


def motor_axes(
    mu: float = 0.0, omega: float = 0.0, chi: float = 0.0, phi: float = 0.0, mu_sign: int = -1
) -> dict[str, NDArray[np.float64]]:
    """Return the direction, in the laboratory, about which each motor turns the sample at a setting.

    Parameters
    ----------
    mu, omega, chi, phi : float
        Motor positions, deg. phi, the innermost rotation, turns none of the axes.
    mu_sign : {-1, 1}
        mu turns about ``mu_sign * y``.

    Returns
    -------
    dict of str to ndarray, shape (3,)
        Unit vectors by motor name; a right-handed turn about each is a positive move.
    """
    base = goniometer_rotation(mu=mu, mu_sign=mu_sign)
    turned = goniometer_rotation(mu=mu, omega=omega, mu_sign=mu_sign)
    tipped = goniometer_rotation(mu=mu, omega=omega, chi=chi, mu_sign=mu_sign)
    return {
        "mu": np.array([0.0, float(mu_sign), 0.0]),
        "omega": base @ (0.0, 0.0, 1.0),
        "chi": turned @ (1.0, 0.0, 0.0),
        "phi": tipped @ (0.0, 1.0, 0.0),
    }


def motor_jacobian(
    motors: Sequence[str],
    two_theta_deg: float,
    *,
    mu: float = 0.0,
    omega: float = 0.0,
    chi: float = 0.0,
    phi: float = 0.0,
    mu_sign: int = -1,
    ccmth_deg: float | None = None,
) -> NDArray[np.float64]:
    """Return how (q_rock, q_roll, q_par) change with each motor, at a setting where the crystal diffracts.

    ``q = (G_lab - Q0) / |Q0|`` along the imaging basis; a rotation about n adds ``n x e_par``. Moving the arm by D
    moves Q0 by ``(-D/2, 0, cot(theta) D/2)`` and q the other way (derived; the first-order terms of Poulsen et al.
    2017, J. Appl. Cryst. 50, 1441, Eqs. 58-63). Energy changes the length of Q0 only.

    Parameters
    ----------
    motors : sequence of str
        Which columns: ``mu``, ``omega``, ``chi``, ``phi`` (goniometer), ``two_theta`` (objective and camera together),
        ``energy`` (relative change dE/E), ``ccmth`` (monochromator angle, ``dE/E = -cot(ccmth) dccmth``).
    two_theta_deg : float
        Scattering angle of the objective, deg, between 0 and 180.
    mu, omega, chi, phi : float
        Goniometer setting, deg.
    mu_sign : {-1, 1}
        mu turns about ``mu_sign * y``.
    ccmth_deg : float, optional
        Monochromator angle, deg; needed for the column ``ccmth``.

    Returns
    -------
    ndarray, shape (3, len(motors))
        Rows q_rock, q_roll, q_par. The numbers are rad per rad, which is also deg per deg; for ``energy`` they are per
        relative change.

    Raises
    ------
    PhysicsError
        For an unknown motor, a missing ``ccmth_deg`` or an angle outside the range.
    """
    basis = imaging_basis(two_theta_deg)
    if not 0.0 < two_theta_deg < 180.0:
        raise PhysicsError(
            f"two_theta: {two_theta_deg:g} deg was asked; diffraction needs an angle between 0 and 180 deg"
        )
    axes = motor_axes(mu, omega, chi, phi, mu_sign)
    cot_theta = 1.0 / math.tan(math.radians(two_theta_deg / 2.0))
    columns = []
    for motor in motors:
        if motor in axes:
            columns.append(basis @ np.cross(axes[motor], basis[2]))
        elif motor == "two_theta":
            columns.append(np.array([0.5, 0.0, -0.5 * cot_theta]))
        elif motor == "energy":
            columns.append(np.array([0.0, 0.0, -1.0]))
        elif motor == "ccmth":
            if ccmth_deg is None:
                raise PhysicsError("ccmth: the angle of the monochromator is needed to say what moving it does")
            columns.append(np.array([0.0, 0.0, 1.0 / math.tan(math.radians(ccmth_deg))]))
        else:
            known = ", ".join((*_ROTATIONS, "two_theta", "energy", "ccmth"))
            raise PhysicsError(f"motor {motor!r} does not move the diffraction vector; these do: {known}")
    return np.stack(columns, axis=1) if columns else np.empty((3, 0))
