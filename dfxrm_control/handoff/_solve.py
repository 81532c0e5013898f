"""Which goniometer angles bring a reflection into the vertical plane at its Bragg angle.

With ``R = Rmu Romega Rchi Rphi`` the diffraction vector must stand along ``t = (-sin theta, 0, cos theta)``. For any mu
and omega this asks chi and phi to turn the unit vector g of the sample to

    w = Romega^T Rmu^T t = (-sin a cos omega, sin a sin omega, cos a),   a = theta - mu   (mu about -y),

which has a closed solution. At a = 0, mu = theta, w is z: ``phi = atan2(-gx, gz)``, ``chi = atan2(gy, hypot(gx, gz))``
and omega is free, because it turns about the diffraction vector itself (topotomography). Where chi or phi would leave
their limits, mu and omega share the tilt: these two are searched within their limits, chi and phi follow exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from dfxrm_control.errors import ParameterError

__all__ = ["ANGLES", "solve_angles", "topotomography_angles"]

ANGLES = ("mu", "omega", "chi", "phi")
_GRID = 17
"""Points of the search along mu and along omega; two finer rounds follow around the best one."""
_INSIDE = 1e-9
"""Settings this many deg outside of a limit count as at the limit: rounding."""


def topotomography_angles(g: NDArray, theta_deg: NDArray, mu_sign: int = -1) -> NDArray[np.float64]:
    """Return the settings that keep diffraction vectors on the omega axis.

    Parameters
    ----------
    g : ndarray, shape (n, 3)
        Diffraction vectors in the sample frame, any length.
    theta_deg : ndarray, shape (n,)
        Bragg angles, deg.
    mu_sign : int
        mu turns about ``mu_sign * y``.

    Returns
    -------
    ndarray, shape (n, 4)
        mu, omega (0, and free), chi, phi in deg. chi and phi may be beyond what a goniometer can do.
    """
    out = np.empty((len(g), 4))
    out[:, 0], out[:, 1] = -mu_sign * theta_deg, 0.0
    out[:, 2] = np.degrees(np.arctan2(g[:, 1], np.hypot(g[:, 0], g[:, 2])))
    out[:, 3] = np.degrees(np.arctan2(-g[:, 0], g[:, 2]))
    return out


def solve_angles(
    g: NDArray, theta_deg: NDArray, limits: Mapping[str, tuple[float, float]], mu_sign: int = -1
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return settings within limits, if there are any, else those that miss the limits by least.

    Parameters
    ----------
    g : ndarray, shape (n, 3)
        Diffraction vectors in the sample frame, any length.
    theta_deg : ndarray, shape (n,)
        Bragg angles, deg.
    limits : mapping of str to (low, high)
        Of mu, omega, chi and phi, deg.
    mu_sign : int
        mu turns about ``mu_sign * y``.

    Returns
    -------
    angles : ndarray, shape (n, 4)
        mu, omega, chi, phi in deg; they bring the vector to Bragg exactly, whether or not the goniometer can do them.
    inside : ndarray of bool, shape (n,)
        Whether all four are within their limits.

    Raises
    ------
    ParameterError
        When a limit is missing or reversed.
    """
    bounds = np.empty((4, 2))
    for row, axis in enumerate(ANGLES):
        if axis not in limits or not limits[axis][0] <= limits[axis][1]:
            raise ParameterError(f"{axis}: its limits are {limits.get(axis)}; a lowest and a highest angle are needed")
        bounds[row] = limits[axis]
    unit = np.ascontiguousarray(g / np.linalg.norm(g, axis=1, keepdims=True), dtype=float)
    angles = np.empty((len(unit), 4))
    excess = np.empty(len(unit))
    _solve(unit, np.radians(np.asarray(theta_deg, dtype=float)), np.radians(bounds), float(-mu_sign), angles, excess)
    return np.degrees(angles), np.degrees(excess) <= _INSIDE


@njit(cache=True, inline="always")
def _chi_phi(gx: float, gy: float, gz: float, a: float, omega: float) -> tuple[float, float]:
    """Return the chi and phi that turn g to w; NaN where none do."""
    wx, wy, wz = -math.sin(a) * math.cos(omega), math.sin(a) * math.sin(omega), math.cos(a)
    across = math.hypot(gx, gz)
    if across < abs(wx):
        return math.nan, math.nan
    phi = math.asin(wx / across) - math.atan2(gx, gz) if across > 0.0 else 0.0
    height = math.sqrt(max(across * across - wx * wx, 0.0))
    chi = math.atan2(wz, wy) - math.atan2(height, gy)
    return (chi + math.pi) % (2 * math.pi) - math.pi, (phi + math.pi) % (2 * math.pi) - math.pi


@njit(cache=True, inline="always")
def _beyond(value: float, low: float, high: float) -> float:
    return max(low - value, value - high, 0.0)


@njit(cache=True, parallel=True)
def _solve(g: NDArray, theta: NDArray, bounds: NDArray, into_bragg: float, angles: NDArray, excess: NDArray) -> None:
    mu_low, mu_high, omega_low, omega_high = bounds[0, 0], bounds[0, 1], bounds[1, 0], bounds[1, 1]
    for row in prange(len(g)):
        gx, gy, gz = g[row, 0], g[row, 1], g[row, 2]
        mu = into_bragg * theta[row]
        omega = min(max(0.0, omega_low), omega_high)
        chi, phi = _chi_phi(gx, gy, gz, 0.0, omega)
        miss = max(
            _beyond(mu, mu_low, mu_high),
            _beyond(chi, bounds[2, 0], bounds[2, 1]),
            _beyond(phi, bounds[3, 0], bounds[3, 1]),
        )
        best = math.inf
        if miss > 0.0:
            # beyond the sum of all that can tilt it, no search will find it
            tilt = math.acos(min(max(gz, -1.0), 1.0))
            reach = max(abs(theta[row] - into_bragg * mu_low), abs(theta[row] - into_bragg * mu_high))
            reach += max(abs(bounds[2, 0]), abs(bounds[2, 1])) + max(abs(bounds[3, 0]), abs(bounds[3, 1]))
            if tilt <= reach:
                low, high, left, right = mu_low, mu_high, omega_low, omega_high
                at_mu, at_omega = min(max(mu, mu_low), mu_high), omega
                for _ in range(3):
                    step_mu, step_omega = (high - low) / (_GRID - 1), (right - left) / (_GRID - 1)
                    for i in range(_GRID):
                        for j in range(_GRID):
                            m, o = low + i * step_mu, left + j * step_omega
                            c, p = _chi_phi(gx, gy, gz, theta[row] - into_bragg * m, o)
                            if math.isnan(c):
                                continue
                            outside = max(
                                _beyond(c, bounds[2, 0], bounds[2, 1]), _beyond(p, bounds[3, 0], bounds[3, 1])
                            )
                            # within the limits, the least tilt of the sample's stages is the best
                            cost = 1e3 * outside + abs(c) + abs(p) + 1e-3 * abs(o)
                            if cost < best:
                                best, at_mu, at_omega = cost, m, o
                    low, high = max(mu_low, at_mu - step_mu), min(mu_high, at_mu + step_mu)
                    left, right = max(omega_low, at_omega - step_omega), min(omega_high, at_omega + step_omega)
                if best < math.inf:
                    c, p = _chi_phi(gx, gy, gz, theta[row] - into_bragg * at_mu, at_omega)
                    outside = max(_beyond(c, bounds[2, 0], bounds[2, 1]), _beyond(p, bounds[3, 0], bounds[3, 1]))
                    if outside < miss:
                        miss, mu, omega, chi, phi = outside, at_mu, at_omega, c, p
        angles[row, 0], angles[row, 1], angles[row, 2], angles[row, 3] = mu, omega, chi, phi
        excess[row] = miss
