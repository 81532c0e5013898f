"""A crystal with dislocations as a simulated sample: their exact field on fine voxels, in as few states as show it.

In each voxel the distortion of all lines is summed, and the diffraction vector is ``G' = F^-T G`` without
linearisation: its direction is the tilt, its length the strain. Turns about G itself are in no image and are left out.

States are shared: each component q of the change of G is rounded to a scale that is even in ``asinh(q / q0)``, so that
the step is a fixed part of q where q is large, as near a core, and ``q0`` times that part where q is small.

By how much q changes within a voxel is its local spread, so that a line that is thinner than a voxel is seen as a line
and not as a row of beads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.dislocations import Dislocation, grid_distortion

from ._bands import over_bands
from .sample import Sample, voxel_counts

__all__ = ["dislocated_crystal"]

# q0, and the largest q that is told from larger ones: a lattice so far off is dark in any scan
_SMALL = 1e-5
_LARGEST = 1e-2
# slabs of voxels along x that are summed at a time
_SLAB = 12


def dislocated_crystal(
    dislocations: Sequence[Dislocation],
    *,
    size_um: ArrayLike,
    voxel_um: ArrayLike,
    precision: float = 0.05,
) -> Sample:
    """Return a crystal that is perfect but for its dislocations.

    Parameters
    ----------
    dislocations : sequence of Dislocation
        The lines, in the sample frame.
    size_um, voxel_um : array_like, shape (3,)
        Size of the crystal and of its voxels, um; the rotation centre is in its middle.
    precision : float
        Step between two states, as a part of the change of G; changes below 1e-5 are told apart by 1e-5 times this.
    """
    counts = voxel_counts(size_um, voxel_um)
    voxel = np.broadcast_to(np.asarray(voxel_um, dtype=float), (3,))
    x, y, z = ((np.arange(count) - (count - 1) / 2) * size for count, size in zip(counts, voxel, strict=True))
    top = round(math.asinh(_LARGEST / _SMALL) / precision)
    levels = 2 * top + 1
    # y fastest, as a sample keeps its voxels
    keys = np.empty((counts[0], counts[2], counts[1]), np.uint32)
    present = np.zeros(levels**3, np.bool_)
    for first in range(0, counts[0], _SLAB):
        slab = slice(first, first + _SLAB)
        beta = grid_distortion(dislocations, x[slab], y, z)
        over_bands(_find_states, counts[1], keys[slab], present, beta, precision, top)
    states = np.flatnonzero(present)
    place = np.zeros(levels**3, np.uint32)
    place[states] = np.arange(len(states), dtype=np.uint32)
    for row in keys:
        row[:] = place[row]
    level = np.stack(np.unravel_index(states, (levels, levels, levels)), axis=-1) - top
    along_x, along_y, strain = (_SMALL * np.sinh(precision * level)).T
    aside = np.hypot(along_x, along_y)
    # the turn about an axis across z that takes z to (along_x, along_y, ..)
    angle = np.degrees(np.arcsin(aside)) / np.where(aside > 0, aside, 1.0)
    tilts = np.stack([-along_y * angle, along_x * angle, np.zeros_like(angle)], axis=-1)
    # around a line q = b / 2 pi r, so that q changes by 2 pi q^2 / b per um: in a voxel by that times its rms extent
    change = np.sqrt(along_x**2 + along_y**2 + strain**2)
    burgers = np.mean([np.linalg.norm(one.burgers_um) for one in dislocations])
    within = np.minimum(2 * np.pi * change**2 / burgers * math.sqrt(float((voxel**2).mean()) / 12), change)
    return Sample.from_states(
        keys.transpose(0, 2, 1),
        voxel,
        tilt_deg=tilts,
        strain=strain,
        spread_deg=np.repeat(np.degrees(within)[:, np.newaxis], 2, axis=1),
        dislocations=dislocations,
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _level(value: float, precision: float, top: int) -> int:
    return min(max(round(math.asinh(value / _SMALL) / precision), -top), top) + top


@njit(nogil=True, cache=True, error_model="numpy")
def _find_states(
    first: int, last: int, keys: NDArray, present: NDArray, beta: NDArray, precision: float, top: int
) -> None:
    """Write the number of the state of each voxel with y index in [first, last)."""
    levels = 2 * top + 1
    for i in range(beta.shape[0]):
        for j in range(first, last):
            for k in range(beta.shape[2]):
                b = beta[i, j, k]
                # F^-T z is the last row of F^-1 = adj(F) / det(F)
                a, c, e = 1.0 + b[0, 0], 1.0 + b[1, 1], 1.0 + b[2, 2]
                gx = b[1, 0] * b[2, 1] - c * b[2, 0]
                gy = b[0, 1] * b[2, 0] - a * b[2, 1]
                gz = a * c - b[0, 1] * b[1, 0]
                determinant = b[0, 2] * gx + b[1, 2] * gy + e * gz
                length = math.sqrt(gx * gx + gy * gy + gz * gz)
                key = (
                    _level(gx / length, precision, top) * levels + _level(gy / length, precision, top)
                ) * levels + _level(determinant / length - 1.0, precision, top)
                keys[i, k, j] = key
                present[key] = True
