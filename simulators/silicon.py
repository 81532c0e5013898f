"""Silicon with dislocations, seen by 111: one line alone, or the rosette around an indent.

The sample's z is [111], its x (along the beam) [1 -1 0] and its y [1 1 -2]. Dislocations lie on the three {111} planes
that are inclined to the surface, along the <110> directions in them, 35 deg from z. Isotropic elasticity with
Poisson's ratio 0.218 (Hirth & Lothe, Theory of Dislocations, 2nd ed., App. 2: Voigt average of silicon); the free
surface is taken to be far away.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.dislocations import Dislocation, crystal_to_sample
from dfxrm_control.errors import ConfigError

from .dislocated import dislocated_crystal
from .sample import Sample

__all__ = ["silicon_dislocation", "silicon_indent"]

_HKL = (1, 1, 1)
_ALONG_X = (1, -1, 0)
_LATTICE_ANGSTROM = 5.43102
_POISSON = 0.218
_VOXEL_UM = (0.08, 0.04, 0.1)
# half-loops that are tried in vain, one after the other, before there is no place left
_TRIES = 20000

# Burgers vector (in a/2) and line: what stands in a text book, and what glides in silicon
_KINDS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "mixed": ((1, 1, 0), (1, 0, 1)),
    "screw": ((1, 1, 0), (1, 1, 0)),
    "edge": ((1, 1, 0), (-1, 1, 2)),
    "invisible": ((0, 1, -1), (1, 1, 0)),
}


def silicon_dislocation(
    seed: int = 0,
    *,
    kind: str = "mixed",
    burgers: Sequence[int] | None = None,
    line: Sequence[int] | None = None,
    position_um: ArrayLike = (0.0, 0.0, 0.0),
    size_um: ArrayLike = (24.0, 21.0, 6.6),
    voxel_um: ArrayLike = _VOXEL_UM,
) -> Sample:
    """Return silicon with one straight dislocation.

    Parameters
    ----------
    seed : int
        Not used: nothing in it is random.
    kind : str
        ``mixed`` (60 deg, b = a/2 [110], line [101]), ``screw`` (b and line [110]), ``edge`` (b = a/2 [110], line
        [-1 1 2]), or ``invisible`` (60 deg, b = a/2 [0 1 -1] with b . q-hat = 0, line [110]).
    burgers, line : sequence of int, optional
        Crystal directions to use instead: b is a/2 times ``burgers``.
    position_um : array_like, shape (3,)
        A point of the line in the sample frame, um.
    size_um, voxel_um : array_like, shape (3,)
        Size of the crystal and of its voxels, um.
    """
    if kind not in _KINDS:
        raise ConfigError(f"sample: kind {kind!r} must be one of {', '.join(_KINDS)}")
    b, along = _KINDS[kind]
    one = _dislocation(burgers or b, line or along, position_um)
    return dislocated_crystal([one], size_um=size_um, voxel_um=voxel_um)


def silicon_indent(
    seed: int = 0,
    *,
    lines: int = 56,
    theta_deg: float = 6.67841,
    size_um: ArrayLike = (44.0, 21.0, 9.0),
    voxel_um: ArrayLike = _VOXEL_UM,
    indent_um: float = 1.5,
    apart_um: tuple[float, float] = (4.5, 1.1),
) -> Sample:
    """Return silicon below an indent: half-loops that glided out along the six <110> arms of a rosette.

    Each half-loop lies on an inclined {111} plane, and the imaged layer cuts its two legs: two lines of the same
    Burgers vector, along opposite directions. On each of the three planes there are three Burgers vectors, one of
    which, in the surface, has b . q-hat = 0.

    Parameters
    ----------
    seed : int
        The same seed gives the same crystal.
    lines : int
        Number of lines that cross the layer; an odd one is rounded up, since half-loops have two legs.
    theta_deg : float
        Bragg angle: by it the layer is inclined to the crystal's surface. The lines are kept apart on the layer.
    size_um, voxel_um : array_like, shape (3,)
        Size of the crystal and of its voxels, um.
    indent_um : float
        Radius about the middle that no line crosses the layer in, um.
    apart_um : tuple of float
        Half-axes along x and y of an ellipse around each line that no other crosses the layer in, um. A line beam of
        0.6 um lights so long a stretch along x that lines need to be several times as far apart along x as along y.

    Raises
    ------
    ConfigError
        When so many lines do not fit.
    """
    random = np.random.default_rng([seed, 0x51])
    turn = crystal_to_sample(_HKL, _ALONG_X)
    normal = np.array([math.sin(math.radians(theta_deg)), 0.0, math.cos(math.radians(theta_deg))])
    half = np.asarray(size_um, dtype=float)[:2] / 2 - 0.5
    arms = _arms(turn)
    chosen: list[Dislocation] = []
    places = np.empty((0, 2))
    missed = 0
    while len(chosen) < lines and missed < _TRIES:
        direction, burgers, leg = arms[random.integers(len(arms))]
        # a band of slip planes to either side of the arm; how far out, and how wide a loop
        across = np.array([-direction[1], direction[0]]) * random.uniform(-0.5, 0.5) * half[1]
        near = random.uniform(indent_um, math.hypot(*half))
        out = np.array([near, near + random.uniform(1.5, 8.0)])
        # loops of both senses, so that the crystal is not bent as a whole
        sense = int(random.choice((-1, 1)))
        points = np.zeros((2, 3))
        points[:, :2] = out[:, np.newaxis] * direction[:2] + across
        along = turn @ np.array(leg, dtype=float)
        crossings = (points - np.outer(points @ normal, along) / float(along @ normal))[:, :2]
        others = np.concatenate([places, crossings[:1]])
        distances = np.hypot(*((crossings[:, np.newaxis] - others) / np.array(apart_um)).transpose(2, 0, 1))
        distances[0, -1] = np.inf
        if (np.abs(crossings) < half).all() and distances.min() > 1.0 and np.hypot(*crossings.T).min() > indent_um:
            chosen += [
                _dislocation(burgers, np.multiply(leg, sign), point)
                for sign, point in zip((sense, -sense), points, strict=True)
            ]
            places = np.concatenate([places, crossings])
            missed = 0
        else:
            missed += 1
    if len(chosen) >= lines:
        return dislocated_crystal(chosen, size_um=size_um, voxel_um=voxel_um, precision=0.1)
    raise ConfigError(
        f"sample: only {len(chosen)} of {lines} lines fit on {2 * half[0]:g} x {2 * half[1]:g} um, {apart_um} um apart"
    )


def _dislocation(burgers: Sequence[int], line: ArrayLike, position_um: ArrayLike) -> Dislocation:
    turn = crystal_to_sample(_HKL, _ALONG_X)
    b, along = np.asarray(burgers, dtype=float), np.asarray(line, dtype=float)
    plane = np.cross(b, along)
    return Dislocation(
        point_um=np.asarray(position_um, dtype=float),
        line=turn @ along,
        burgers_um=turn @ b * (_LATTICE_ANGSTROM * 1e-4 / 2),
        poisson=_POISSON,
        # a screw glides on any plane that holds it
        plane_normal=turn @ plane if plane.any() else None,
    )


def _arms(turn: NDArray) -> list[tuple[NDArray, tuple[int, ...], tuple[int, ...]]]:
    """Return the arms of a rosette: direction in the sample frame, Burgers vector, and line of the two legs."""
    arms = []
    for plane in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)):
        # the <110> of the plane: two that rise to the surface, and its trace there
        in_plane = [
            direction
            for direction in itertools.product((-1, 0, 1), repeat=3)
            if np.dot(direction, plane) == 0 and np.abs(direction).sum() == 2 and next(filter(None, direction)) > 0
        ]
        rising = [direction for direction in in_plane if sum(direction) != 0]
        trace = next(direction for direction in in_plane if sum(direction) == 0)
        arm = turn @ np.array(trace) / math.sqrt(2)
        for burgers, leg, sign in itertools.product(in_plane, rising, (1, -1)):
            arms.append((sign * arm, burgers, leg))
    return arms
