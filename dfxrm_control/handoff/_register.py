"""Finding the registration from grains that were found: where the map's frame lies on the microscope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import goniometer_rotation
from dfxrm_control.grains import GrainMap
from dfxrm_control.handoff._registration import Registration

__all__ = ["FoundGrain", "RegistrationFit", "register"]

FEWEST_GRAINS = 3
SMALLEST_ANGLE_DEG = 5.0
"""Two diffraction vectors closer than this count as parallel: the turn about them is not known."""
LARGEST_OFFSET_ERROR_DEG = 0.5
"""An omega offset that the settings do not determine better than this is left at zero."""
LARGEST_MISFIT_DEG = 0.05
LARGEST_MISFIT_MM = 0.01
"""A grain that stands farther than this from where the others say it is another grain, or the map's axes are mixed."""


@dataclass(frozen=True)
class FoundGrain:
    """Where a grain was really found.

    Attributes
    ----------
    grain_id : int
        Number in the map.
    hkl : tuple of int
        Reflection.
    positions : mapping of str to float
        mu, omega, chi, phi, two_theta (deg), samx, samy, samz (mm) with the peak centred and the grain at the rotation
        centre.
    angle_error_deg, place_error_mm : float
        Rms errors of the centring.
    """

    grain_id: int
    hkl: tuple[int, int, int]
    positions: Mapping[str, float]
    angle_error_deg: float = 2e-3
    place_error_mm: float = 1e-3


@dataclass(frozen=True, eq=False)
class RegistrationFit:
    """A registration, and how well it explains what was found.

    Attributes
    ----------
    registration : Registration
        The best one.
    grain_id : ndarray of int, shape (n,)
        Grains it was made of.
    angle_residual_deg : ndarray, shape (n,)
        Angle between predicted and found diffraction vector.
    place_residual_mm : ndarray, shape (n, 3)
        Found minus predicted centre, in the sample frame.
    left_out_angle_deg, left_out_place_mm : ndarray, shape (n,)
        The same (place: its length) when each grain is predicted by a registration made without it; NaN when three
        grains are all there are.
    rotation_error_deg, shift_error_mm : ndarray, shape (3,)
        Rms errors, from those of the centring.
    omega_offset_known : bool
        Whether the settings determine the omega offset; if not, it is taken as zero.
    """

    registration: Registration
    grain_id: NDArray[np.int64]
    angle_residual_deg: NDArray[np.float64]
    place_residual_mm: NDArray[np.float64]
    left_out_angle_deg: NDArray[np.float64]
    left_out_place_mm: NDArray[np.float64]
    rotation_error_deg: NDArray[np.float64]
    shift_error_mm: NDArray[np.float64]
    omega_offset_known: bool

    def doubt(self) -> str:
        """Return why the registration is not believed; empty when it is.

        With four grains or more each is held against what the others predict, with three against the fit itself.
        """
        place = np.linalg.norm(self.place_residual_mm, axis=1)
        angles = np.where(np.isnan(self.left_out_angle_deg), self.angle_residual_deg, self.left_out_angle_deg)
        places = np.where(np.isnan(self.left_out_place_mm), place, self.left_out_place_mm)
        excess = np.maximum(angles / LARGEST_MISFIT_DEG, places / LARGEST_MISFIT_MM)
        worst = int(excess.argmax())
        if excess[worst] <= 1.0:
            return ""
        return (
            f"grain {self.grain_id[worst]} stands {angles[worst]:.3f} deg and {1e3 * places[worst]:.1f} um from where "
            f"the other grains say ({LARGEST_MISFIT_DEG:g} deg and {1e3 * LARGEST_MISFIT_MM:g} um are allowed): "
            "another grain was taken for it, or the axes of the map are mixed up"
        )

    def lines(self) -> list[str]:
        """Return the result as text."""
        turn, shift = self.registration.rotation_deg, self.registration.shift_mm
        lines = [
            "rotation: " + ", ".join(f"{v:.4f} +- {e:.4f}" for v, e in zip(turn, self.rotation_error_deg, strict=True)),
            "shift:    "
            + ", ".join(f"{1e3 * v:.2f} +- {1e3 * e:.2f}" for v, e in zip(shift, self.shift_error_mm, strict=True))
            + " um",
        ]
        lines[0] += " deg"
        if self.omega_offset_known:
            lines.append(f"omega offset: {self.registration.omega_offset_deg:.4f} deg")
        else:
            lines.append("omega offset: not determined by these settings, taken as 0")
        for row, grain in enumerate(self.grain_id):
            left_out = (
                ""
                if np.isnan(self.left_out_angle_deg[row])
                else f"; predicted without it: {1e3 * self.left_out_angle_deg[row]:.2f} mdeg, "
                f"{1e3 * self.left_out_place_mm[row]:.2f} um"
            )
            place = 1e3 * float(np.linalg.norm(self.place_residual_mm[row]))
            lines.append(f"grain {grain}: {1e3 * self.angle_residual_deg[row]:.2f} mdeg, {place:.2f} um{left_out}")
        return lines


def register(
    grains: GrainMap, found: Sequence[FoundGrain], *, mu_sign: int = -1, stage: str = "above"
) -> RegistrationFit:
    """Return the rigid motion of the map that explains best where its grains were found.

    Each grain fixes the two rotations that move its diffraction vector, and the shift of its centre; the turn about the
    vector shows only in grains whose vectors point elsewhere. An offset of omega acts like a turn of the map about z,
    except through mu away from the Bragg angle and through chi and phi: it is fitted where the settings tell the two
    apart.

    Parameters
    ----------
    grains : GrainMap
        The map.
    found : sequence of FoundGrain
        Three or more, with diffraction vectors that are not parallel.
    mu_sign : int
        mu turns about ``mu_sign * y``.
    stage : {"above", "below"}
        Whether the sample's translations stand above or below the rotations.

    Raises
    ------
    ParameterError
        For too few grains, or when they leave a rotation undetermined.
    """
    if len({each.grain_id for each in found}) < FEWEST_GRAINS:
        raise ParameterError(
            f"a registration needs {FEWEST_GRAINS} different grains, and {len({each.grain_id for each in found})} "
            "were found: each fixes two of three rotations"
        )
    problem = _Problem(grains, found, mu_sign, stage)
    problem.check_directions()
    values, errors, known = problem.solve(range(len(found)))
    registration = _registration(values)
    angle, place = problem.residuals(values)
    left_angle, left_place = np.full(len(found), np.nan), np.full(len(found), np.nan)
    if len(found) > FEWEST_GRAINS:
        for row in range(len(found)):
            others = [index for index in range(len(found)) if index != row]
            if problem.spread_deg(others) < SMALLEST_ANGLE_DEG:
                continue
            alone, _, _ = problem.solve(others)
            angle_without, place_without = problem.residuals(alone)
            left_angle[row], left_place[row] = angle_without[row], np.linalg.norm(place_without[row])
    return RegistrationFit(
        registration,
        np.array([each.grain_id for each in found]),
        angle,
        place,
        left_angle,
        left_place,
        errors[:3],
        errors[3:6],
        known,
    )


def _registration(values: NDArray) -> Registration:
    turn, shift = values[:3].tolist(), values[3:6].tolist()
    return Registration((turn[0], turn[1], turn[2]), (shift[0], shift[1], shift[2]), float(values[6]))


class _Problem:
    """Residuals of a registration; values are rotation vector (deg), shift (mm), omega offset (deg)."""

    def __init__(self, grains: GrainMap, found: Sequence[FoundGrain], mu_sign: int, stage: str) -> None:
        rows = [grains.row(each.grain_id) for each in found]
        g = np.array([grains.ub[row] @ np.array(each.hkl, float) for row, each in zip(rows, found, strict=True)])
        self._unit = g / np.linalg.norm(g, axis=1, keepdims=True)
        self._centre = grains.centroid_mm[rows]
        self._found = found
        self._mu_sign, self._stage = mu_sign, stage
        self._angle_error = np.array([each.angle_error_deg for each in found])
        self._place_error = np.array([each.place_error_mm for each in found])
        # a centred peak stands in the scattering plane, tilted from z by half the scattering angle of the arm
        self._theta = np.radians([each.positions["two_theta"] / 2.0 for each in found])

    def _turns(self, offset_deg: float) -> NDArray[np.float64]:
        return np.array(
            [
                goniometer_rotation(
                    each.positions["mu"],
                    each.positions["omega"] - offset_deg,
                    each.positions["chi"],
                    each.positions["phi"],
                    mu_sign=self._mu_sign,
                )
                for each in self._found
            ]
        )

    def _observed(self, offset_deg: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return unit diffraction vectors (n, 3) and centres (n, 3), mm, as found, in the sample frame."""
        turns = self._turns(offset_deg)
        target = np.stack([-np.sin(self._theta), np.zeros_like(self._theta), np.cos(self._theta)], axis=1)
        vectors = np.einsum("nji,nj->ni", turns, target)
        moved = -np.array([[each.positions[axis] for axis in ("samx", "samy", "samz")] for each in self._found])
        return vectors, moved if self._stage == "above" else np.einsum("nji,nj->ni", turns, moved)

    def spread_deg(self, rows: Sequence[int]) -> float:
        """Return the largest angle between two diffraction vectors of the map, taken as lines, deg."""
        unit = self._unit[list(rows)]
        smallest = float(np.abs(unit @ unit.T).min(initial=1.0))
        return float(np.degrees(np.arccos(min(smallest, 1.0))))

    def check_directions(self) -> None:
        """Refuse vectors that are all parallel: the turn about them is not determined."""
        spread = self.spread_deg(range(len(self._found)))
        if spread < SMALLEST_ANGLE_DEG:
            raise ParameterError(
                f"the diffraction vectors of the grains found lie within {spread:.2f} deg of one another, so the turn "
                f"about them is not known; find one that stands at least {SMALLEST_ANGLE_DEG:g} deg away"
            )

    def residuals(self, values: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the angle of each vector to its prediction, deg (n,), and found minus predicted centres, mm (n, 3)."""
        turn = Rotation.from_rotvec(values[:3], degrees=True)
        vectors, centres = self._observed(values[6])
        apart = np.linalg.norm(np.cross(turn.apply(self._unit), vectors), axis=1)
        return np.degrees(np.arcsin(np.clip(apart, 0.0, 1.0))), centres - (turn.apply(self._centre) + values[3:6])

    def solve(self, rows: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
        """Return values, their errors, and whether the omega offset is among what is known."""
        use = list(rows)
        vectors, centres = self._observed(0.0)
        turn, _ = Rotation.align_vectors(vectors[use], self._unit[use])
        shift = (centres[use] - turn.apply(self._centre[use])).mean(axis=0)
        start = np.concatenate([turn.as_rotvec(degrees=True), shift])

        def misfit(values: NDArray) -> NDArray:
            all_values = np.append(values, 0.0) if len(values) == 6 else values
            turned = Rotation.from_rotvec(all_values[:3], degrees=True)
            seen, places = self._observed(all_values[6])
            angles = np.degrees(turned.apply(self._unit[use]) - seen[use]) / self._angle_error[use, np.newaxis]
            away = (places[use] - turned.apply(self._centre[use]) - all_values[3:6]) / self._place_error[
                use, np.newaxis
            ]
            return np.concatenate([angles.ravel(), away.ravel()])

        full = least_squares(misfit, np.append(start, 0.0), x_scale="jac")
        errors = _errors(np.asarray(full.jac))
        slopes = np.linalg.norm(np.asarray(full.jac), axis=0)
        tells = slopes[6] > 1e-6 * slopes[:3].max()
        if tells and errors[6] <= LARGEST_OFFSET_ERROR_DEG:
            return full.x, errors, True
        held = least_squares(misfit, start, x_scale="jac")
        return np.append(held.x, 0.0), np.append(_errors(np.asarray(held.jac)), np.nan), False


def _errors(jacobian: NDArray) -> NDArray[np.float64]:
    return np.sqrt(np.abs(np.diag(np.linalg.pinv(jacobian.T @ jacobian, rcond=1e-14))))
