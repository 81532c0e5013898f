"""What runs of a hand-off say of the grains they went to: predicted, found, or not found and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import goniometer_rotation, imaging_basis
from dfxrm_control.grains import GrainMap
from dfxrm_control.handoff._register import FoundGrain
from dfxrm_control.handoff._registration import Registration

__all__ = ["FOUND_AXES", "Residuals", "Visit", "companions", "found_grains", "residuals_of", "visits_of"]

FOUND_AXES = ("mu", "omega", "chi", "phi", "two_theta", "samx", "samy", "samz")
"""What a found grain is described by."""
_SAMPLE = ("samx", "samy", "samz")
SMALLEST_ANGLE_ERROR_DEG = 1e-3
SMALLEST_PLACE_ERROR_MM = 5e-4
"""No centring is trusted beyond these: what it does not see, such as play, is no smaller."""


@dataclass(frozen=True)
class Residuals:
    """How far a grain was found from where it was predicted.

    Attributes
    ----------
    rock_deg, roll_deg : float
        Tilt of its diffraction vector against the prediction about laboratory +y and +x, deg.
    place_um : tuple of float
        Found minus predicted centre in the sample frame, um.
    """

    rock_deg: float
    roll_deg: float
    place_um: tuple[float, float, float]

    @property
    def distance_um(self) -> float:
        """Length of the way from the predicted to the found centre, um."""
        return math.hypot(*self.place_um)

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"rock_deg": self.rock_deg, "roll_deg": self.roll_deg, "place_um": list(self.place_um)}


@dataclass(frozen=True)
class Visit:
    """One grain that a hand-off went to, or did not.

    Attributes
    ----------
    grain_id : int
        Number in the map.
    hkl : tuple of int
        Reflection.
    status : str
        ``scanned``, ``found`` (the scan did not end well), ``not centred`` (its peak was found), ``not found`` or
        ``skipped``.
    reason : str
        What its last step said.
    predicted, found : dict of float
        Settings by logical axis, mm and deg; ``found`` is empty where it was not.
    residuals : Residuals or None
        Found against predicted.
    angle_error_deg, place_error_mm : float
        Rms errors of the centring; NaN where it was not found.
    scans : tuple of int
        Numbers of its runs.
    """

    grain_id: int
    hkl: tuple[int, int, int]
    status: str
    reason: str
    predicted: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, float] = field(default_factory=dict)
    residuals: Residuals | None = None
    angle_error_deg: float = math.nan
    place_error_mm: float = math.nan
    scans: tuple[int, ...] = ()

    @property
    def sighted(self) -> bool:
        """Whether its peak was found, whatever came of it then."""
        return self.status in ("scanned", "found", "not centred")

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "grain": self.grain_id,
            "hkl": list(self.hkl),
            "status": self.status,
            "reason": self.reason,
            "predicted": dict(self.predicted),
            "found": dict(self.found),
            "residuals": None if self.residuals is None else self.residuals.record(),
            "angle_error_deg": self.angle_error_deg,
            "place_error_mm": self.place_error_mm,
            "scans": list(self.scans),
        }

    def line(self) -> str:
        """Return it as one line of a report."""
        hkl = " ".join(map(str, self.hkl))
        if self.residuals is None:
            return f"grain {self.grain_id} ({hkl}): {self.status}; {self.reason}"
        left = self.residuals
        return (
            f"grain {self.grain_id} ({hkl}): {self.status}, {left.rock_deg:+.4f} deg in rock, {left.roll_deg:+.4f} deg "
            f"in roll and {left.distance_um:.1f} um from the prediction"
        )


def visits_of(runs: Iterable[Mapping[str, Any]]) -> list[Visit]:
    """Return the grains that runs of a hand-off went to, in order.

    Parameters
    ----------
    runs : iterable of mapping
        Of each run, in order: ``series`` (what its start document says of the series), ``scan`` (its number),
        ``status`` and ``reason`` (how it ended; for a step of the search, what it found).
    """
    grains: dict[int, list[Mapping[str, Any]]] = {}
    for run in runs:
        if "grain" in run["series"]:
            grains.setdefault(int(run["series"]["grain"]), []).append(run)
    return [_visit(grain, each) for grain, each in grains.items()]


def _visit(grain: int, runs: Sequence[Mapping[str, Any]]) -> Visit:
    last = runs[-1]
    series = last["series"]
    found = series.get("found") or {}
    left = series.get("residuals")
    missing = "not found" if series.get("step") == "find" else "not centred"
    status = missing if not found else "scanned" if last["status"] == "success" else "found"
    return Visit(
        grain,
        tuple(series["hkl"]),
        status,
        str(last["reason"]),
        dict(series["predicted"]),
        dict(found.get("positions") or {}),
        None if not left else Residuals(left["rock_deg"], left["roll_deg"], tuple(left["place_um"])),
        float(found.get("angle_error_deg", math.nan)),
        float(found.get("place_error_mm", math.nan)),
        tuple(int(run["scan"]) for run in runs),
    )


def found_grains(visits: Iterable[Visit]) -> list[FoundGrain]:
    """Return what the registration is made of: the grains that were found, each where it was found last."""
    latest = {
        visit.grain_id: FoundGrain(visit.grain_id, visit.hkl, visit.found, visit.angle_error_deg, visit.place_error_mm)
        for visit in visits
        if visit.found
    }
    return list(latest.values())


def _turn(positions: Mapping[str, float], offset_deg: float, mu_sign: int) -> NDArray[np.float64]:
    mu, omega, chi, phi = (float(positions[axis]) for axis in ("mu", "omega", "chi", "phi"))
    return goniometer_rotation(mu, omega - offset_deg, chi, phi, mu_sign=mu_sign)


def residuals_of(
    grains: GrainMap, registration: Registration, found: FoundGrain, *, mu_sign: int = -1, stage: str = "above"
) -> Residuals:
    """Return how far a grain was found from where a registration of the map predicts it.

    Parameters
    ----------
    grains : GrainMap
        The map.
    registration : Registration
        By which it was predicted.
    found : FoundGrain
        Where it was found.
    mu_sign : int
        mu turns about ``mu_sign * y``.
    stage : {"above", "below"}
        Whether the sample's translations stand above or below the rotations.
    """
    row = grains.row(found.grain_id)
    turn = _turn(found.positions, registration.omega_offset_deg, mu_sign)
    g = turn @ registration.ub(grains)[row] @ np.array(found.hkl, float)
    # at the found setting the true vector stands along e_par: where does the predicted one stand?
    rock, roll, _ = -imaging_basis(float(found.positions["two_theta"])) @ g / np.linalg.norm(g)
    moved = -np.array([found.positions[axis] for axis in _SAMPLE])
    centre = moved if stage == "above" else turn.T @ moved
    x, y, z = (1e3 * (centre - registration.centroid_mm(grains)[row])).tolist()
    # a turn by +w about +y adds w to q_rock, one about +x takes w from q_roll
    return Residuals(math.degrees(rock), -math.degrees(roll), (x, y, z))


def companions(
    grains: GrainMap,
    registration: Registration,
    grain_id: int,
    hkl: Sequence[int],
    positions: Mapping[str, float],
    within_deg: tuple[float, float],
    within_um: float,
    *,
    mu_sign: int = -1,
) -> list[int]:
    """Return other grains that diffract near a setting, from near by: where they are, a grain may be taken for another.

    Parameters
    ----------
    grains : GrainMap
        The map.
    registration : Registration
        How it lies.
    grain_id : int
        The grain that is meant.
    hkl : sequence of 3 int
        Its reflection.
    positions : mapping
        mu, omega, chi, phi, two_theta, deg.
    within_deg : tuple of float
        Half widths in rock and roll that count as near.
    within_um : float
        Distance of the centres that counts as near by.
    mu_sign : int
        mu turns about ``mu_sign * y``.

    Raises
    ------
    ParameterError
        When the reflection is none of the grain's phase.
    """
    row = grains.row(grain_id)
    phase = grains.phase[row]
    family = np.array(grains.phases[phase].family((int(hkl[0]), int(hkl[1]), int(hkl[2]))), float)
    if not len(family):
        raise ParameterError(f"reflection {' '.join(map(str, hkl))} is none of grain {grain_id}")
    turn = _turn(positions, registration.omega_offset_deg, mu_sign)
    g = np.einsum("ij,njk,mk->nmi", turn, registration.ub(grains), family)
    unit = g / np.linalg.norm(g, axis=-1, keepdims=True)
    basis = imaging_basis(float(positions["two_theta"]))
    rock, roll, par = np.moveaxis(unit @ basis.T, -1, 0)
    limits = np.radians(within_deg)
    near = ((np.abs(rock) <= limits[0]) & (np.abs(roll) <= limits[1]) & (par > 0.0)).any(axis=1)
    apart = 1e3 * np.linalg.norm(grains.centroid_mm - grains.centroid_mm[row], axis=1)
    near &= (grains.phase == phase) & (apart <= within_um)
    near[row] = False
    return [int(each) for each in grains.grain_id[near]]
