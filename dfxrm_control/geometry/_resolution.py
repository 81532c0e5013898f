"""The reciprocal-space resolution of the microscope: a Gaussian, times what a sharp condenser cut leaves of it.

Poulsen et al. 2017, J. Appl. Cryst. 50, 1441, Eqs. 58-63, in the vertical scattering plane. A condenser of finite
aperture ends the vertical divergence sharply (+/-0.14 mrad in Carlsen et al. 2022, arXiv:2201.07549), which sets the
tails that weak-beam images are taken in. Given q, the divergence zv is Gaussian with a mean linear in q, so the cut
multiplies the Gaussian by a difference of two error functions: exact, and no integral is left to do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import erf

from dfxrm_control.errors import PhysicsError

__all__ = ["FWHM_PER_SIGMA", "Resolution"]

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
"""Full width at half maximum of a Gaussian of unit standard deviation."""


@dataclass(frozen=True)
class Resolution:
    """Which ``q = dQ / |Q0|`` the microscope accepts at one setting, by the rms widths of beam and objective.

    Attributes
    ----------
    theta_deg : float
        Bragg angle, deg.
    zv_rms_rad, zh_rms_rad : float
        Divergence of the incident beam in and out of the scattering plane, rad.
    na_v_rms_rad, na_h_rms_rad : float
        Angular acceptance of the objective in and out of the scattering plane, rad.
    eps_rms : float
        Relative energy bandwidth.
    zv_cut_rad : float or None
        The divergence in the scattering plane ends sharply at plus and minus this, rad; None: it does not.

    Raises
    ------
    PhysicsError
        For a Bragg angle outside (0, 90) deg, a negative width or a cut that lets nothing through.
    """

    theta_deg: float
    zv_rms_rad: float
    zh_rms_rad: float
    na_v_rms_rad: float
    na_h_rms_rad: float
    eps_rms: float
    zv_cut_rad: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.theta_deg < 90.0:
            raise PhysicsError(f"theta: {self.theta_deg:g} deg was asked; a Bragg angle lies between 0 and 90 deg")
        for name in ("zv_rms_rad", "zh_rms_rad", "na_v_rms_rad", "na_h_rms_rad", "eps_rms"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise PhysicsError(
                    f"{name}: {getattr(self, name):g} was given; an rms width is finite and not negative"
                )
        if self.zv_cut_rad is not None and not 0.0 < self.zv_cut_rad < math.inf:
            raise PhysicsError(f"zv_cut_rad: {self.zv_cut_rad:g} rad was given; a cut is finite and above zero")

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """From (eps, zv, zh, d2, xi) to (q_rock, q_roll, q_par), shape (3, 5).

        d2 and xi are the angles of a ray through the objective in and out of the scattering plane.
        ``q_rock = -(zv + d2)/2``, ``q_roll = -(zh + xi)/(2 sin th)``, ``q_par = eps + cot(th) (d2 - zv)/2``.
        """
        theta = math.radians(self.theta_deg)
        roll, par = -0.5 / math.sin(theta), 0.5 / math.tan(theta)
        return np.array([[0.0, -0.5, 0.0, -0.5, 0.0], [0.0, 0.0, roll, 0.0, roll], [1.0, -par, 0.0, par, 0.0]])

    @cached_property
    def imaging_matrix(self) -> NDArray[np.float64]:
        """As `matrix`, with rows q_rock' (along the diffracted beam), q_roll, q_2theta (up, across it), shape (3, 5).

        ``q_rock' = cos th q_rock + sin th q_par = eps sin th - zv cos th``: free of the objective's angle.
        """
        theta = math.radians(self.theta_deg)
        c, s = math.cos(theta), math.sin(theta)
        return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]) @ self.matrix

    def _variances(self, zv_variance: float) -> NDArray[np.float64]:
        others = np.square(np.array((self.eps_rms, 0.0, self.zh_rms_rad, self.na_v_rms_rad, self.na_h_rms_rad)))
        others[1] = zv_variance
        return others

    @cached_property
    def zv_effective_rms_rad(self) -> float:
        """Rms divergence in the scattering plane that is left of ``zv_rms_rad`` by the cut, rad.

        Of a Gaussian cut at plus and minus ``a`` sigma: ``sigma sqrt(1 - 2 a phi(a) / (2 Phi(a) - 1))`` (Johnson, Kotz
        & Balakrishnan 1994, Continuous Univariate Distributions 1, sect. 10.1).
        """
        if self.zv_cut_rad is None or self.zv_rms_rad == 0.0:
            return self.zv_rms_rad
        a = self.zv_cut_rad / self.zv_rms_rad
        density = math.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)
        # a narrow cut of a wide beam is a box: the difference below loses all its digits there
        left = 1.0 - 2.0 * a * density / math.erf(a / math.sqrt(2.0)) if a > 1e-2 else a * a / 3.0
        return self.zv_rms_rad * math.sqrt(left)

    @cached_property
    def gaussian_covariance(self) -> NDArray[np.float64]:
        """Covariance of (q_rock, q_roll, q_par) without the cut, shape (3, 3): the Gaussian that the cut multiplies."""
        return (self.matrix * self._variances(self.zv_rms_rad**2)) @ self.matrix.T

    @cached_property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance of (q_rock, q_roll, q_par), shape (3, 3), the cut included. Rock and par are correlated.

        With a cut the widths that follow from it are those of the Gaussian with the same second moments.
        """
        return (self.matrix * self._variances(self.zv_effective_rms_rad**2)) @ self.matrix.T

    @cached_property
    def zv_covariance(self) -> NDArray[np.float64]:
        """Covariance of the uncut divergence in the scattering plane with (q_rock, q_roll, q_par), rad, shape (3,)."""
        return self.matrix[:, 1] * self.zv_rms_rad**2

    @cached_property
    def inverse_covariance(self) -> NDArray[np.float64]:
        """Inverse of `covariance`, shape (3, 3).

        Raises
        ------
        PhysicsError
            When widths of zero make the accepted volume flat.
        """
        return _inverse(self.covariance)

    @cached_property
    def _inverse_gaussian(self) -> NDArray[np.float64]:
        return _inverse(self.gaussian_covariance)

    @property
    def marginal_rad(self) -> NDArray[np.float64]:
        """Rms width along rock, roll, par, whatever the other two are, shape (3,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def conditional_rad(self) -> NDArray[np.float64]:
        """Rms width along rock, roll, par with the other two at zero: what one motor measures, shape (3,)."""
        return 1.0 / np.sqrt(np.diag(self.inverse_covariance))

    def motor_covariance_rad2(self, jacobian: ArrayLike) -> NDArray[np.float64]:
        """Return the covariance of the intensity of a perfect crystal over a mesh of motors.

        Parameters
        ----------
        jacobian : array_like, shape (3, n)
            Columns of `motor_jacobian`, n from 1 to 3, of the motors that are scanned together.

        Returns
        -------
        ndarray, shape (n, n)
            ``(J^T C^-1 J)^-1``, rad2. With one motor its root is the conditional width; a mesh gives each motor's width
            with the others integrated.

        Raises
        ------
        PhysicsError
            When two of the motors move the diffraction vector the same way.
        """
        columns = np.asarray(jacobian, dtype=float)
        precision = columns.T @ self.inverse_covariance @ columns
        diagonal = np.sqrt(np.diag(precision))
        if not np.all(diagonal > 0.0):
            raise PhysicsError("motors: one of them does not move the diffraction vector at this setting")
        normal = precision / np.outer(diagonal, diagonal)
        if not np.linalg.det(normal) > 1e-9:
            raise PhysicsError("motors: two of them move the diffraction vector the same way at this setting")
        return np.linalg.inv(normal) / np.outer(diagonal, diagonal)

    def motor_sigma_rad(self, jacobian: ArrayLike) -> NDArray[np.float64]:
        """Return the rms width of a perfect crystal along each motor of a mesh, rad, shape (n,).

        See `motor_covariance_rad2` for the parameter and the errors.
        """
        return np.sqrt(np.diag(self.motor_covariance_rad2(jacobian)))

    def peak_rad(self, jacobian: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
        """Return where, from the present setting, a mesh of motors finds the peak of a crystal at ``q``.

        ``-(J^T C^-1 J)^-1 J^T C^-1 q``: with fewer motors than components of q, the rest leaks into the position. A
        rocking curve at fixed 2theta, for instance, takes part of a strain for a tilt.

        Parameters
        ----------
        jacobian : array_like, shape (3, n)
            As for `motor_covariance_rad2`.
        q : array_like, shape (..., 3)
            (q_rock, q_roll, q_par) of the crystal at the present setting.

        Returns
        -------
        ndarray, shape (..., n)
            Moves of the motors, rad.
        """
        columns = np.asarray(jacobian, dtype=float)
        gain = self.motor_covariance_rad2(columns) @ columns.T @ self.inverse_covariance
        return -np.asarray(q, dtype=float) @ gain.T

    def weight(self, q: ArrayLike) -> NDArray[np.float64]:
        """Return the relative intensity of crystals at ``q``, 1 at the centre.

        Parameters
        ----------
        q : array_like, shape (..., 3)
            (q_rock, q_roll, q_par), dimensionless.

        Returns
        -------
        ndarray, shape (...)
            ``exp(-q^T C^-1 q / 2)``, with C the uncut covariance; with a cut at ``c`` times
            ``[erf((c - m)/(s sqrt 2)) + erf((c + m)/(s sqrt 2))] / (2 erf(c/(s sqrt 2)))``: given q, zv has the mean
            ``m = k^T C^-1 q`` and the variance ``s^2 = sigma^2 - k^T C^-1 k``, with k the covariance of zv and q
            (conditional Gaussian; derived).
        """
        q = np.asarray(q, dtype=float)
        gaussian = np.exp(-0.5 * np.einsum("...i,ij,...j->...", q, self._inverse_gaussian, q))
        if self.zv_cut_rad is None or self.zv_rms_rad == 0.0:
            return gaussian
        gain = self._inverse_gaussian @ self.zv_covariance
        mean = q @ gain
        # with a beam of one energy q tells zv exactly, and what is left of the variance is rounding
        spread = math.sqrt(max(self.zv_rms_rad**2 - float(self.zv_covariance @ gain), 1e-12 * self.zv_rms_rad**2))
        scale = math.sqrt(2.0) * spread
        passed = erf((self.zv_cut_rad - mean) / scale) + erf((self.zv_cut_rad + mean) / scale)
        return gaussian * passed / (2.0 * math.erf(self.zv_cut_rad / scale))

    def curve_fwhm_rad(self, column: ArrayLike) -> float:
        """Return the full width at half maximum of a perfect crystal's curve along one motor, exact with a cut, rad.

        Parameters
        ----------
        column : array_like, shape (3,)
            Column of `motor_jacobian`: the motor that is scanned, the others at the peak.

        Raises
        ------
        PhysicsError
            When the motor does not move the diffraction vector.
        """
        column = np.asarray(column, dtype=float).reshape(3)
        precision = float(column @ self._inverse_gaussian @ column)
        if not precision > 0.0:
            raise PhysicsError("motor: it does not move the diffraction vector at this setting")
        # the cut only narrows; the curve is symmetric and, as a product of log-concave functions, has one maximum
        widest = 1.01 * FWHM_PER_SIGMA / 2.0 / math.sqrt(precision)
        return 2.0 * float(brentq(lambda x: float(self.weight(column * x)) - 0.5, 0.0, widest, xtol=1e-9 * widest))


def _inverse(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale) if np.all(scale > 0.0) else np.zeros((3, 3))
    if not np.linalg.det(correlation) > 1e-12:
        raise PhysicsError(
            "resolution: the widths given leave no volume in reciprocal space; the beam needs a divergence or a "
            "bandwidth, and the objective an acceptance, above zero"
        )
    return np.linalg.inv(correlation) / np.outer(scale, scale)
