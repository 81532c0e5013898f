"""Which reflections of which grains a microscope can image, and where it has to go for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dfxrm_control.config import AxisConfig, MicroscopeConfig
from dfxrm_control.crystal import Lattice, wavelength_angstrom
from dfxrm_control.errors import ConfigError, ParameterError, PhysicsError
from dfxrm_control.geometry import ArmPositions
from dfxrm_control.grains import GrainMap
from dfxrm_control.handoff._registration import Registration
from dfxrm_control.handoff._solve import ANGLES, solve_angles, topotomography_angles
from dfxrm_control.microscope import Microscope, View

__all__ = ["Choices", "as_rows", "choose", "same_cell"]

_TILTS = ("chi", "phi")
_SAMPLE = ("samx", "samy", "samz")
_MAX_TWO_THETA_DEG = 88.0
SAME_CELL = 0.01
"""Relative difference of lengths and angles up to which two cells are those of one crystal."""
_RIM = 0.05
"""Share of the field at each border that tiles have in common with their neighbours."""


@dataclass(frozen=True, eq=False)
class Choices:
    """One row per grain and reflection, best first; those out of reach by how little they are beyond the limits.

    Attributes
    ----------
    grain_id : ndarray of int, shape (n,)
    hkl : ndarray of int, shape (n, 3)
    two_theta_deg : ndarray, shape (n,)
    direction : ndarray, shape (n, 3)
        Unit vector along the diffraction vector, in the sample frame with all rotations at zero.
    structure_factor : ndarray, shape (n,)
        Modulus in electrons per unit cell; NaN where the atoms are not known.
    positions : dict of ndarray, shape (n,)
        By logical axis: mu, omega, chi, phi, two_theta (deg), obx, obz, mainx, ffz (mm), obpitch (deg), samx, samy,
        samz (mm). The far-field camera stays at the configured distance where its height allows it, else it comes
        closer.
    reachable : ndarray of bool, shape (n,)
        Whether all of these are within the limits of the configuration.
    reason : list of str
        Which axes are not, and by how much; empty where it is reachable.
    topotomography : ndarray, shape (n, 2)
        chi and phi in deg that keep the diffraction vector on the omega axis, with mu at the Bragg angle.
    on_axis : ndarray of bool, shape (n,)
        Whether those are within the limits.
    magnification : ndarray, shape (n,)
    resolution_um : ndarray, shape (n, 2)
        Effective resolution along the beam and across it on the illuminated layer, um.
    field_um : ndarray, shape (n, 2)
        Field of view along the beam and across it on the layer, um.
    grain_um : ndarray, shape (n, 2)
        Extent of the grain along the beam and across it at the setting, um; NaN where the map has no sizes.
    fits : ndarray of bool, shape (n,)
        Whether the grain fits the field; True where its size is not known.
    tiles : ndarray of int, shape (n, 2)
        How many fields along the beam and across it cover the grain; 1 and 1 where it fits.
    covering : list of str
        Visible-light objective of the camera whose field covers a grain that does not fit; empty where it fits or none
        does.
    edge : ndarray of bool, shape (n,)
        Whether the grain touches the border of the map, where it may be cut.
    score : ndarray, shape (n,)
        0 where it is not reachable, else between 0 and 1; see `choose`.
    energy_kev : float
    camera : str
    camera_objective : str
        Visible-light objective of the camera that the fields are those of; empty where the camera has none.
    """

    grain_id: NDArray[np.int64]
    hkl: NDArray[np.int64]
    two_theta_deg: NDArray[np.float64]
    direction: NDArray[np.float64]
    structure_factor: NDArray[np.float64]
    positions: dict[str, NDArray[np.float64]]
    reachable: NDArray[np.bool_]
    reason: list[str]
    topotomography: NDArray[np.float64]
    on_axis: NDArray[np.bool_]
    magnification: NDArray[np.float64]
    resolution_um: NDArray[np.float64]
    field_um: NDArray[np.float64]
    grain_um: NDArray[np.float64]
    fits: NDArray[np.bool_]
    tiles: NDArray[np.int64]
    covering: list[str]
    edge: NDArray[np.bool_]
    score: NDArray[np.float64]
    energy_kev: float
    camera: str
    camera_objective: str = ""

    def __len__(self) -> int:
        return len(self.grain_id)

    def setting(self, row: int) -> dict[str, float]:
        """Return where each axis goes for a row, by logical name, mm or deg."""
        return {axis: float(values[row]) for axis, values in self.positions.items()}

    def tile_places_um(self, row: int) -> NDArray[np.float64]:
        """Return the middles of the fields that cover a grain, from its centre, shape (k, 2), um.

        Along the beam and across it on the layer: the sample is moved by the negative of these.
        """
        sides = []
        for count, field_um, grain_um in zip(self.tiles[row], self.field_um[row], self.grain_um[row], strict=True):
            reach = 0.0 if count == 1 else 0.5 * (grain_um - field_um)
            sides.append(np.linspace(-reach, reach, int(count)))
        return np.stack([part.ravel() for part in np.meshgrid(*sides, indexing="ij")], axis=1)

    def too_large(self, row: int) -> str:
        """Return in words how a grain that does not fit the field can be covered; empty where it fits."""
        if self.fits[row]:
            return ""
        along, across = self.tiles[row].tolist()
        other = f"the {self.covering[row]} camera covers it, or " if self.covering[row] else ""
        return f"too large: {other}{along} x {across} tiles"

    def non_coplanar(self, grain_id: int) -> list[int]:
        """Return the rows of the three reachable reflections of a grain that differ most in direction.

        The measure is the volume that their unit diffraction vectors span, which is zero when they lie in one plane:
        such a set cannot give the full strain tensor. Where no three span a volume, only the best row is returned, or
        none.
        """
        rows = np.flatnonzero((self.grain_id == grain_id) & self.reachable)
        best: tuple[float, list[int]] = (0.0, rows[:1].tolist())
        for three in combinations(range(min(len(rows), 40)), 3):
            volume = abs(float(np.linalg.det(self.direction[rows[list(three)]])))
            if volume > best[0] + 1e-6:
                best = volume, [int(rows[index]) for index in three]
        return best[1]

    def only(self, rows: Sequence[int]) -> Choices:
        """Return some of the rows, in the order given."""
        index = np.asarray(rows, dtype=np.intp)
        parts: dict[str, Any] = {"positions": {axis: values[index] for axis, values in self.positions.items()}}
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, np.ndarray):
                parts[part.name] = value[index]
            elif isinstance(value, list):
                parts[part.name] = [value[row] for row in index]
        return replace(self, **parts)


def same_cell(cell: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two cells are those of one crystal: lengths and angles agree to 1 %."""
    return all(abs(a - b) <= SAME_CELL * b for a, b in zip(cell, other, strict=True))


def choose(
    grains: GrainMap,
    config: MicroscopeConfig,
    *,
    energy_kev: float | None = None,
    hkl: Sequence[int] | None = None,
    grain_ids: Sequence[int] | None = None,
    camera: str | None = None,
    camera_objective: str | None = None,
    registration: Registration | None = None,
    margin_deg: float = 0.0,
) -> Choices:
    """Work out the settings for every grain and allowed reflection, and rank them.

    The score of a reachable row is the product of four numbers between 0 and 1: structure factor against the strongest
    in the table, squared (intensity); the smaller share of the grain in the field, so that a grain larger than the
    field and one of a few pixels both lose; 0.5 for a grain at the border of the map; and 0.8 where mu, omega and the
    sample stages have to share the tilt, so that topotomography is not possible.

    Parameters
    ----------
    grains : GrainMap
        The coarse map.
    config : MicroscopeConfig
        Whose limits, objective and camera count.
    energy_kev : float, optional
        Energy, keV; default: the configured beam's.
    hkl : sequence of 3 int, optional
        Only this family.
    grain_ids : sequence of int, optional
        Only these grains.
    camera : str, optional
        Camera of the image; default: the configured scan's.
    camera_objective : str, optional
        Visible-light objective of that camera, such as ``2x``; default: the first configured.
    registration : Registration, optional
        How the map lies on the microscope; default: as it is.
    margin_deg : float
        How far chi and phi stay from their limits, so that a peak can be searched around the setting.

    Raises
    ------
    ParameterError
        When the grain, the reflection or the camera is not there.
    PhysicsError
        When no reflection can be imaged at this energy.
    ConfigError
        When the configuration lacks limits of the goniometer.
    """
    energy = config.instrument.beam.energy_kev if energy_kev is None else energy_kev
    registration = registration or Registration()
    chosen = grains if grain_ids is None else grains.only(grain_ids)
    camera_name = camera or config.scan.camera
    if camera_name not in config.instrument.cameras:
        raise ParameterError(f"camera {camera_name!r} is not known; there are {', '.join(config.instrument.cameras)}")
    furthest = _largest_two_theta(config)
    visible = config.instrument.cameras[camera_name].objectives
    objective = camera_objective or next(iter(visible), "")
    if visible and objective not in visible:
        raise ParameterError(f"camera {camera_name!r} has no objective {objective!r}; it has {', '.join(visible)}")
    families = [
        _families(phase, energy, hkl, _structure(config, phase), index, furthest)
        for index, phase in enumerate(chosen.phases)
    ]
    which, hkls, theta, strength = (np.concatenate([family[part] for family in families]) for part in range(4))
    if not len(hkls):
        asked = "any" if hkl is None else " ".join(map(str, hkl))
        raise PhysicsError(
            f"no allowed reflection ({asked}) has 2theta below {furthest:g} deg, the objective's largest, at "
            f"{energy:g} keV"
        )
    row_grain, row_hkl = np.nonzero(chosen.phase[:, np.newaxis] == which[np.newaxis, :])
    g = np.einsum("nij,nj->ni", registration.ub(chosen)[row_grain], hkls[row_hkl].astype(float))
    # the measured lattice decides the angle: a strained grain diffracts at its own 2theta
    sine = 0.5 * wavelength_angstrom(energy) * np.linalg.norm(g, axis=1)
    theta_deg = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
    limits = {axis: _limits(config, axis, margin_deg if axis in _TILTS else 0.0) for axis in ANGLES}
    sign, offset = config.instrument.mu_sign, registration.omega_offset_deg
    shifted = limits | {"omega": (limits["omega"][0] - offset, limits["omega"][1] - offset)}
    angles, _ = solve_angles(g, theta_deg, shifted, sign)
    axis_angles = topotomography_angles(g, theta_deg, sign)
    positions = {axis: angles[:, column] for column, axis in enumerate(ANGLES)}
    positions["omega"] = positions["omega"] + offset
    positions |= _sample_positions(config, registration.centroid_mm(chosen)[row_grain], angles, sign)
    arm, optics = _per_two_theta(config, camera_name, objective, energy, 2.0 * theta_deg)
    positions |= arm
    size = _seen_size(chosen, registration, row_grain, angles, sign)
    excess = _beyond_limits(config, positions, margin_deg)
    reachable = ~np.isnan(optics["magnification"])
    for outside in excess.values():
        reachable &= outside == 0.0
    with np.errstate(invalid="ignore"):
        share = size / np.stack([optics["field_x"], optics["field_y"]], axis=1)
        fits = ~(share > 1.0).any(axis=1)
        # neighbouring tiles overlap by a rim of each
        tiles = np.ceil((np.where(np.isnan(share), 0.0, share) - 2.0 * _RIM) / (1.0 - 2.0 * _RIM) - 1e-9)
        tiles = np.where(share > 1.0, np.maximum(tiles, 2.0), 1.0).astype(np.int64)
        use = np.where(np.isnan(share), 1.0, np.minimum(share, 1.0 / np.maximum(share, 1e-9))).min(axis=1)
    on_axis = reachable & _within(axis_angles[:, 2], limits["chi"]) & _within(axis_angles[:, 3], limits["phi"])
    edge = chosen.touches_edge[row_grain]
    factor = strength[row_hkl]
    bright = np.ones(len(factor)) if np.isnan(factor).all() else (factor / np.nanmax(factor)) ** 2
    score = np.where(reachable, bright * use * np.where(edge, 0.5, 1.0) * np.where(on_axis, 1.0, 0.8), 0.0)
    # of those out of reach the nearest come first: by the goniometer alone, and by how many degrees
    tilted = np.sum([excess[axis] for axis in ANGLES], axis=0)
    elsewhere = ~reachable & np.isnan(optics["magnification"])
    for axis, outside in excess.items():
        elsewhere |= (outside > 0.0) & (axis not in ANGLES)
    order = np.lexsort((chosen.grain_id[row_grain], 2 * theta_deg, tilted, elsewhere, -score))
    reasons = _reasons(config, excess, np.isnan(optics["magnification"]), 2.0 * theta_deg)
    return Choices(
        grain_id=chosen.grain_id[row_grain][order],
        hkl=hkls[row_hkl][order],
        two_theta_deg=2.0 * theta_deg[order],
        direction=(g / np.linalg.norm(g, axis=1, keepdims=True))[order],
        structure_factor=factor[order],
        positions={axis: values[order] for axis, values in positions.items()},
        reachable=reachable[order],
        reason=[reasons[row] for row in order],
        topotomography=axis_angles[order, 2:],
        on_axis=on_axis[order],
        magnification=optics["magnification"][order],
        resolution_um=np.stack([optics["resolution_x"], optics["resolution_y"]], axis=1)[order],
        field_um=np.stack([optics["field_x"], optics["field_y"]], axis=1)[order],
        grain_um=size[order],
        fits=fits[order],
        tiles=tiles[order],
        covering=_covering(visible, objective, share.max(axis=1)[order]),
        edge=edge[order],
        score=score[order],
        energy_kev=float(energy),
        camera=camera_name,
        camera_objective=objective if visible else "",
    )


def _covering(visible: Mapping[str, float], present: str, share: NDArray) -> list[str]:
    """Return the objective of the least field that covers what takes a share above 1 of the present one's, or none."""
    names = np.full(len(share), "", dtype=object)
    # the widest first, so that the last one that covers a grain is the one of the least field
    for name in sorted(visible, key=lambda each: visible[each]):
        names[(share > 1.0) & (share * visible[name] / visible[present] <= 1.0)] = name
    return [str(name) for name in names]


def _start(config: MicroscopeConfig, axis: str) -> float | None:
    try:
        return config.axis(axis).start
    except ConfigError:
        return None


def _axis(config: MicroscopeConfig, axis: str) -> AxisConfig | None:
    try:
        return config.axis(axis)
    except ConfigError:
        return None


def _limits(config: MicroscopeConfig, axis: str, margin_deg: float) -> tuple[float, float]:
    known = _axis(config, axis)
    if known is None or known.limits is None:
        raise ConfigError(f"configuration {config.name!r} has no limits of axis {axis!r}, so nothing can be chosen")
    low, high = known.limits
    if not low + margin_deg < high - margin_deg:
        raise ParameterError(
            f"axis {axis!r} has no room between {low:g} and {high:g} deg for a margin of {margin_deg:g} deg"
        )
    return low + margin_deg, high - margin_deg


def _within(values: NDArray, limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (values >= limits[0] - 1e-9) & (values <= limits[1] + 1e-9)


def _structure(config: MicroscopeConfig, phase: Lattice) -> Lattice:
    """Return the phase with atoms: the configured sample's where it is the same crystal, else as the map has it."""
    sample = config.sample
    same = same_cell(phase.cell, sample.lattice) and sample.atoms
    if phase.sites or not same:
        return phase
    return Lattice.from_parameters(*sample.lattice, space_group=sample.space_group, atoms=sample.atoms)


def _largest_two_theta(config: MicroscopeConfig) -> float:
    """Return the scattering angle beyond which the objective cannot follow, deg."""
    pitch = _axis(config, "obpitch")
    highest = _MAX_TWO_THETA_DEG if pitch is None or pitch.limits is None else pitch.limits[1]
    return min(highest, _MAX_TWO_THETA_DEG)


def _distances_mm(config: MicroscopeConfig, two_theta_deg: NDArray) -> NDArray[np.float64]:
    """Return the horizontal distance of the far-field camera for each scattering angle, mm."""
    usual = abs(_start(config, "mainx") or 5000.0)
    height, along = _axis(config, "ffz"), _axis(config, "mainx")
    distance = np.full(len(two_theta_deg), usual)
    if height is not None and height.limits is not None:
        # a thousandth below the limit, so that grains of slightly different 2theta share a distance
        distance = np.minimum(distance, 0.999 * height.limits[1] / np.tan(np.radians(two_theta_deg)))
    if along is not None and along.limits is not None:
        near, far = sorted(abs(limit) for limit in along.limits)
        distance = np.clip(distance, near, far)
    return distance


def _families(
    phase: Lattice, energy_kev: float, only: Sequence[int] | None, structure: Lattice, index: int, furthest_deg: float
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return phase, hkl, Bragg angle and structure factor of each member of each family of allowed reflections."""
    hkls: list[tuple[int, int, int]] = []
    theta, strength = [], []
    for reflection in structure.reflections(energy_kev, furthest_deg):
        members = phase.family(reflection.hkl)
        if only is not None and tuple(only) not in members:
            continue
        factor = math.nan if reflection.structure_factor is None else abs(reflection.structure_factor)
        hkls += members
        theta += [phase.bragg_angle_deg(reflection.hkl, energy_kev)] * len(members)
        strength += [factor] * len(members)
    rows = np.array(hkls, dtype=np.int64).reshape(-1, 3)
    return np.full(len(rows), index), rows, np.array(theta), np.array(strength)


def _rotations(angles_deg: NDArray, mu_sign: int) -> Rotation:
    """Return the rotations at settings of mu, omega, chi, phi: `geometry.goniometer_rotation` for many."""
    extrinsic = angles_deg[:, [3, 2, 1, 0]] * np.array([1.0, 1.0, 1.0, mu_sign])
    turns = [Rotation.from_euler(axis, extrinsic[:, [column]], degrees=True) for column, axis in enumerate("yxzy")]
    return turns[3] * turns[2] * turns[1] * turns[0]


def _sample_positions(
    config: MicroscopeConfig, centroid_mm: NDArray, angles: NDArray, mu_sign: int
) -> dict[str, NDArray]:
    """Return the translations that bring each grain to the rotation centre, mm.

    Stage above the rotations: minus the centroid, whatever the angles. Below: minus where the rotations take it.
    """
    if config.instrument.sample_stage == "above":
        moved = -centroid_mm
    else:
        moved = -_rotations(angles, mu_sign).apply(centroid_mm)
    return {axis: moved[:, column] for column, axis in enumerate(_SAMPLE)}


def _per_two_theta(
    config: MicroscopeConfig, camera: str, objective: str, energy_kev: float, two_theta_deg: NDArray
) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Return arm positions and optics of each row; they are worked out once per hundredth of a degree."""
    microscope = Microscope(config.instrument)
    steps, member = np.unique(np.round(two_theta_deg, 2), return_inverse=True)
    distances = _distances_mm(config, steps)
    centre = np.full(len(steps), np.nan)
    names = ("magnification", "resolution_x", "resolution_y", "field_x", "field_y")
    optics = {name: np.full(len(steps), np.nan) for name in names}
    for number, (two_theta, distance_mm) in enumerate(zip(steps.tolist(), distances.tolist(), strict=True)):
        try:
            arm = microscope.focused_arm(two_theta, distance_mm, energy_kev=energy_kev)
            view = _view(config, microscope, camera, objective, energy_kev, arm)
        except PhysicsError:
            continue
        centre[number] = math.hypot(arm.obx, arm.obz)
        optics["magnification"][number] = view.magnification_h
        optics["resolution_x"][number] = view.blur("v").total_um / math.sin(math.radians(two_theta))
        optics["resolution_y"][number] = view.blur("h").total_um
        optics["field_x"][number], optics["field_y"][number] = view.field_of_view_um
    radians = np.radians(two_theta_deg)
    positions = {
        "two_theta": two_theta_deg,
        "obx": centre[member] * np.cos(radians),
        "obz": centre[member] * np.sin(radians),
        "obpitch": two_theta_deg,
        "mainx": -distances[member],
        "ffz": distances[member] * np.tan(radians),
    }
    return positions, {name: values[member] for name, values in optics.items()}


def _view(
    config: MicroscopeConfig, microscope: Microscope, camera: str, objective: str, energy_kev: float, arm: ArmPositions
) -> View:
    """Return what the camera sees with objective and far-field camera on the arm."""
    names = {axis for device in config.devices.values() for axis in device.axes}
    positions = {axis: _start(config, axis) or 0.0 for axis in names}
    positions |= {"obx": arm.obx, "obz": arm.obz, "obpitch": arm.obpitch, "oby": 0.0, "obyaw": 0.0}
    positions |= {"mainx": arm.mainx, "ffz": arm.ffz, "ffy": 0.0}
    mono = config.instrument.monochromator
    if mono is not None:
        sine = wavelength_angstrom(energy_kev) / (2.0 * mono.d_spacing_angstrom)
        positions["ccmth"] = math.degrees(math.asin(sine))
    return microscope.view(positions, camera, {f"{camera}_camera_objective": objective} if objective else {})


def _seen_size(
    grains: GrainMap, registration: Registration, row_grain: NDArray, angles: NDArray, mu_sign: int
) -> NDArray[np.float64]:
    """Return the extent along the beam and across it of each grain's box, turned to each setting, um."""
    turn = _rotations(angles, mu_sign).as_matrix() @ registration.rotation
    half = grains.size_mm[row_grain] * 0.5e3
    return 2.0 * np.einsum("nij,nj->ni", np.abs(turn[:, :2]), half)


def _beyond_limits(config: MicroscopeConfig, positions: dict[str, NDArray], margin_deg: float) -> dict[str, NDArray]:
    """Return by how much each axis is outside of its limits, in its unit; axes without limits may not move at all."""
    excess: dict[str, NDArray] = {}
    for axis, values in positions.items():
        known = _axis(config, axis)
        if known is None or known.limits is None:
            continue
        margin = margin_deg if axis in _TILTS else 0.0
        low, high = known.limits[0] + margin, known.limits[1] - margin
        outside = np.maximum(low - values, values - high)
        excess[axis] = np.where(outside > 1e-9, outside, 0.0)
    return excess


def _reasons(
    config: MicroscopeConfig, excess: dict[str, NDArray], no_image: NDArray[np.bool_], two_theta_deg: NDArray
) -> list[str]:
    reasons = [
        f"no sharp image at 2theta {angle:.2f} deg" if none else ""
        for none, angle in zip(no_image, two_theta_deg, strict=True)
    ]
    for axis, outside in excess.items():
        units = config.axis(axis).units
        for row in np.flatnonzero(outside > 0.0):
            text = f"{axis} is {outside[row]:.3g} {units} beyond its limits"
            reasons[row] = f"{reasons[row]}; {text}" if reasons[row] else text
    return reasons


def as_rows(choices: Choices) -> list[dict[str, Any]]:
    """Return the table as plain mappings, for tables of any kind."""
    return [
        {
            "grain": int(choices.grain_id[row]),
            "hkl": " ".join(map(str, choices.hkl[row])),
            "reachable": bool(choices.reachable[row]),
            "score": float(choices.score[row]),
            "two_theta_deg": float(choices.two_theta_deg[row]),
            "structure_factor": float(choices.structure_factor[row]),
            **choices.setting(row),
            "topotomography_chi_deg": float(choices.topotomography[row, 0]),
            "topotomography_phi_deg": float(choices.topotomography[row, 1]),
            "topotomography": bool(choices.on_axis[row]),
            "magnification": float(choices.magnification[row]),
            "resolution_x_um": float(choices.resolution_um[row, 0]),
            "resolution_y_um": float(choices.resolution_um[row, 1]),
            "field_x_um": float(choices.field_um[row, 0]),
            "field_y_um": float(choices.field_um[row, 1]),
            "grain_x_um": float(choices.grain_um[row, 0]),
            "grain_y_um": float(choices.grain_um[row, 1]),
            "fits": bool(choices.fits[row]),
            "tiles_x": int(choices.tiles[row, 0]),
            "tiles_y": int(choices.tiles[row, 1]),
            "covering": choices.covering[row],
            "edge": bool(choices.edge[row]),
            "reason": choices.reason[row],
        }
        for row in range(len(choices))
    ]
