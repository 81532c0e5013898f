"""Simulated samples: a field of lattice distortion on voxels, and the builders that make one.

The sample frame is the laboratory frame with all goniometer angles at zero; the imaged reflection stands along its z.
Lengths are in um, tilts in deg, strain has no unit.

A sample is kept as a table of crystal states and, per voxel, the row of that table. Sub-grains need few states and a
smooth field needs many, but both are the same field, `Sample.field`, with a value in each voxel and nothing between.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.dislocations import Dislocation
from dfxrm_control.errors import ConfigError

from ._bands import over_bands

__all__ = ["Sample", "annealed_aluminium", "f_letter", "notched_grain", "perfect_crystal", "voxel_counts"]

_STRAYS = 40
"""Times that each sub-grain is turned a little, so that few orientations become many."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A crystal as a 3-D field of lattice distortion.

    Attributes
    ----------
    index : ndarray of unsigned int, shape (nx, ny, nz)
        Row of the state tables of each voxel.
    voxel_um : ndarray, shape (3,)
        Size of a voxel along x, y, z of the sample frame, um.
    tilt_deg : ndarray, shape (n, 3)
        Rotation vector of the lattice against the nominal one, in sample coordinates, deg.
    strain : ndarray, shape (n,)
        Strain along the diffraction vector: the spacing is ``d (1 + strain)``.
    spread_deg : ndarray, shape (n, 2)
        Rms local spread of the tilt within a voxel about the sample's y (rock at omega 0) and x (roll at omega 0), deg.
    intensity : ndarray, shape (n,)
        Scattering power relative to a perfect crystal; 0 where there is none.
    centre_um : ndarray, shape (3,)
        Middle of the voxel volume in the sample frame, whose origin is the rotation centre, um.
    domain : ndarray of int, shape (n,), or None
        Number of the sub-grain or domain that each state belongs to; None where the sample has none.
    dislocations : tuple of Dislocation
        The lines whose field the states hold, in the sample frame: what a map may be checked against.
    vectors : ndarray, shape (n, k, 3), or None
        Diffraction vectors of each state before its tilt and strain, in sample coordinates and in units of the length
        of the configured reflection's; None where each state has that one only, along z.
    weights : ndarray, shape (n, k), or None
        Strength of each of these vectors relative to the configured reflection.
    """

    index: NDArray
    voxel_um: NDArray
    tilt_deg: NDArray
    strain: NDArray
    spread_deg: NDArray
    intensity: NDArray
    centre_um: NDArray
    domain: NDArray | None = None
    dislocations: tuple[Dislocation, ...] = ()
    vectors: NDArray | None = None
    weights: NDArray | None = None

    @classmethod
    def from_states(
        cls,
        index: NDArray,
        voxel_um: ArrayLike,
        *,
        tilt_deg: ArrayLike,
        strain: ArrayLike = 0.0,
        spread_deg: ArrayLike = 0.0,
        intensity: ArrayLike = 1.0,
        centre_um: ArrayLike = (0.0, 0.0, 0.0),
        domain: ArrayLike | None = None,
        dislocations: Sequence[Dislocation] = (),
        vectors: NDArray | None = None,
        weights: NDArray | None = None,
    ) -> Sample:
        """Return a sample from a table of n states; all but the tilts, shape (n, 3), may be given as one value for all.

        Raises
        ------
        ConfigError
            When a voxel names a state that is not in the table, or a size, spread or intensity is below zero.
        """
        tilts = np.atleast_2d(np.asarray(tilt_deg, dtype=float))
        states = len(tilts)
        voxel = np.broadcast_to(np.asarray(voxel_um, dtype=float), (3,)).copy()
        if index.ndim != 3 or index.size == 0 or int(index.max()) >= states:
            raise ConfigError(f"sample: the voxels must be a 3-D array of rows of its table of {states} states")
        kind = np.uint16 if states <= 1 << 16 else np.uint32
        sample = cls(
            # in memory y runs fastest: the rows of an image run along it
            index=np.ascontiguousarray(index.transpose(0, 2, 1), dtype=kind).transpose(0, 2, 1),
            voxel_um=voxel,
            tilt_deg=tilts,
            strain=np.broadcast_to(np.asarray(strain, dtype=float), (states,)).copy(),
            spread_deg=np.broadcast_to(np.asarray(spread_deg, dtype=float), (states, 2)).copy(),
            intensity=np.broadcast_to(np.asarray(intensity, dtype=float), (states,)).copy(),
            centre_um=np.broadcast_to(np.asarray(centre_um, dtype=float), (3,)).copy(),
            domain=None if domain is None else np.broadcast_to(np.asarray(domain, dtype=int), (states,)).copy(),
            dislocations=tuple(dislocations),
            vectors=vectors,
            weights=weights,
        )
        if not (voxel > 0).all():
            raise ConfigError(f"sample: voxels of {voxel.tolist()} um; all three sizes must be above 0 um")
        if (sample.intensity < 0).any() or (sample.spread_deg < 0).any():
            raise ConfigError("sample: intensity and local spread must not be below 0")
        return sample

    @property
    def size_um(self) -> NDArray:
        """Size of the voxel volume along x, y, z, um."""
        return self.voxel_um * self.index.shape

    @property
    def low_um(self) -> NDArray:
        """Corner of the voxel volume with the smallest x, y, z, um."""
        return self.centre_um - self.size_um / 2

    def field(self, name: str) -> NDArray:
        """Return ``tilt_deg``, ``strain``, ``spread_deg`` or ``intensity`` in every voxel, shape (nx, ny, nz[, k])."""
        return getattr(self, name)[self.index]

    def axes_um(self) -> tuple[NDArray, NDArray, NDArray]:
        """Return the voxel centres along x, along y and along z in the sample frame, um."""
        x, y, z = (
            low + (np.arange(count) + 0.5) * size
            for low, count, size in zip(self.low_um, self.index.shape, self.voxel_um, strict=True)
        )
        return x, y, z


def voxel_counts(size_um: ArrayLike, voxel_um: ArrayLike) -> tuple[int, int, int]:
    """Return how many voxels of a size fill a volume along x, y, z.

    Raises
    ------
    ConfigError
        For sizes that are not above 0, or more voxels than fit in memory.
    """
    size, voxel = np.broadcast_to(np.asarray(size_um, float), (3,)), np.broadcast_to(np.asarray(voxel_um, float), (3,))
    if not ((size > 0).all() and (voxel > 0).all()):
        raise ConfigError(f"sample: size {size.tolist()} um and voxels of {voxel.tolist()} um must be above 0")
    counts = np.maximum(np.rint(size / voxel).astype(int), 1)
    if counts.prod() > 1 << 30:
        raise ConfigError(f"sample: {counts[0]} x {counts[1]} x {counts[2]} voxels do not fit in memory; at most 2^30")
    return int(counts[0]), int(counts[1]), int(counts[2])


def perfect_crystal(
    seed: int = 0,
    *,
    size_um: ArrayLike = (100.0, 60.0, 20.0),
    voxel_um: ArrayLike = (0.5, 0.25, 0.15),
    tilt_deg: ArrayLike = (0.0, 0.0, 0.0),
    strain: float = 0.0,
    spread_deg: ArrayLike = 0.0,
) -> Sample:
    """Return one crystal without a flaw: one state everywhere.

    Parameters
    ----------
    seed : int
        Not used: nothing in it is random.
    size_um, voxel_um : array_like, shape (3,)
        Size of the crystal and of its voxels, um.
    tilt_deg, strain, spread_deg : array_like
        As in `Sample`, the same in the whole crystal.
    """
    index = np.zeros(voxel_counts(size_um, voxel_um), np.uint16)
    return Sample.from_states(index, voxel_um, tilt_deg=tilt_deg, strain=strain, spread_deg=spread_deg)


def f_letter(
    seed: int = 0,
    *,
    height_um: float = 16.0,
    thickness_um: float = 8.0,
    voxel_um: ArrayLike = (0.15, 0.15, 0.15),
    tilts_deg: ArrayLike = ((0.03, -0.02, 0.0), (-0.04, 0.05, 0.0), (0.05, 0.02, 0.0)),
) -> Sample:
    """Return a crystal in the shape of a letter F that reads upright with the sample's x to the right and y up.

    Stem, top arm and middle arm have each their own tilt, so that a map shows at a glance how it is turned and signed.

    Parameters
    ----------
    seed : int
        Not used: nothing in it is random.
    height_um : float
        Height of the letter along y, um. It is 5/8 as wide.
    thickness_um : float
        Depth along z, um.
    voxel_um : array_like, shape (3,)
        Voxel size, um.
    tilts_deg : array_like, shape (3, 3)
        Rotation vectors of stem, top arm and middle arm, deg.
    """
    counts = voxel_counts((height_um * 5 / 8, height_um, thickness_um), voxel_um)
    # in fifths of the width and eighths of the height, from the lower left corner
    across, up = np.meshgrid(
        (np.arange(counts[0]) + 0.5) * 5 / counts[0], (np.arange(counts[1]) + 0.5) * 8 / counts[1], indexing="ij"
    )
    letter = np.zeros(counts[:2], np.uint16)
    letter[across < 1.5] = 1
    letter[(across >= 1.5) & (up >= 6.5)] = 2
    letter[(across >= 1.5) & (across < 4) & (up >= 3.5) & (up < 5)] = 3
    return Sample.from_states(
        np.broadcast_to(letter[:, :, np.newaxis], counts),
        voxel_um,
        tilt_deg=np.concatenate([np.zeros((1, 3)), np.asarray(tilts_deg, float).reshape(3, 3)]),
        intensity=[0.0, 1.0, 1.0, 1.0],
    )


def notched_grain(
    seed: int = 0,
    *,
    size_um: ArrayLike = (15.0, 11.0, 13.0),
    voxel_um: ArrayLike = (0.2, 0.2, 0.2),
    tilt_deg: ArrayLike = (0.0, 0.0, 0.0),
    centre_um: ArrayLike = (0.0, 0.0, 0.0),
) -> Sample:
    """Return one grain of a shape that no turn or mirror brings onto itself: an ellipsoid with a notch.

    The notch is a corner: what lies in x > 0.15, y > 0.1 and z > -0.25 of the semi-axes is missing.

    Parameters
    ----------
    seed : int
        Not used: nothing in it is random.
    size_um, voxel_um : array_like, shape (3,)
        Axes of the ellipsoid, and size of the voxels, um.
    tilt_deg : array_like, shape (3,)
        As in `Sample`, the same in the whole grain.
    centre_um : array_like, shape (3,)
        Middle of the ellipsoid in the sample frame, um.
    """
    counts = voxel_counts(size_um, voxel_um)
    x, y, z = np.meshgrid(*((2 * np.arange(count) + 1) / count - 1 for count in counts), indexing="ij")
    inside = (x**2 + y**2 + z**2 < 1) & ~((x > 0.15) & (y > 0.1) & (z > -0.25))
    return Sample.from_states(
        inside.astype(np.uint16),
        voxel_um,
        tilt_deg=np.broadcast_to(np.asarray(tilt_deg, float), (2, 3)),
        intensity=[0.0, 1.0],
        centre_um=centre_um,
    )


def annealed_aluminium(
    seed: int = 0,
    *,
    size_um: ArrayLike = (80.0, 40.0, 16.0),
    voxel_um: ArrayLike = (0.25, 0.125, 0.15),
    subgrain_um: float = 5.0,
    wall_deg: float = 0.05,
    wall_range_deg: ArrayLike | None = None,
    bend_deg: float = 0.0,
    strain: float = 0.0,
    spread_deg: float = 0.0,
) -> Sample:
    """Return annealed aluminium: sub-grains a few um wide, between walls of a few hundredths of a degree.

    The sub-grains are the Voronoi cells of one random seed point per cell of a cubic grid.

    Parameters
    ----------
    seed : int
        The same seed gives the same crystal.
    size_um, voxel_um : array_like, shape (3,)
        Size of the crystal and of its voxels, um.
    subgrain_um : float
        Mean size of a sub-grain, um.
    wall_deg : float
        Rms misorientation of two sub-grains, deg.
    wall_range_deg : array_like, shape (2,), optional
        Least and largest change of the diffraction vector's direction from a sub-grain to its neighbours, deg; the
        largest is from 2.0 to 2.7 times the least, as neighbours allow. Without it neighbours may happen to lie alike.
    bend_deg : float
        Amplitude of a smooth long-range tilt on top of the sub-grains', deg.
    strain : float
        Amplitude of a smooth strain.
    spread_deg : float
        Largest local spread; each sub-grain has its own between none and this, deg rms.
    """
    counts = voxel_counts(size_um, voxel_um)
    voxel = np.broadcast_to(np.asarray(voxel_um, float), (3,))
    if subgrain_um <= 0:
        raise ConfigError(f"sample: subgrain_um is {subgrain_um:g}; it must be above 0 um")
    random = np.random.default_rng([seed, 0xA1])
    cells = np.ceil(np.array(counts) * voxel / subgrain_um).astype(int) + 2
    points = random.random((*cells, 3))
    grain = np.empty(counts, np.uint32)
    over_bands(_voronoi, counts[0], grain, points, voxel / subgrain_um)
    grains = int(cells.prod())
    # the difference of two independent rotation vectors has rms sqrt(6) times that of a component
    tilts = random.normal(0.0, wall_deg / np.sqrt(6), (grains, 3))
    if wall_range_deg is not None:
        tilts[:, :2] = _distinct(_touching(grain, grains), grains, wall_range_deg, random)
    spreads = random.uniform(0.0, spread_deg, (grains, 2)) if spread_deg else np.zeros((grains, 2))
    if not (bend_deg or strain):
        present, index = _rows(grain, grains)
        return Sample.from_states(index, voxel, tilt_deg=tilts[present], spread_deg=spreads[present], domain=present)
    # a smooth field is constant on blocks of about 1 um: below the resolution of what it varies over, and few states
    block = [np.arange(count) * size // 1.0 for count, size in zip(counts, voxel, strict=True)]
    blocks = [int(line[-1]) + 1 for line in block]
    joint = (
        (grain.astype(np.int64) * blocks[0] + block[0].astype(np.int64)[:, None, None]) * blocks[1]
        + block[1].astype(np.int64)[:, None]
    ) * blocks[2] + block[2].astype(np.int64)
    present, flat = np.unique(joint, return_inverse=True)
    which, place = np.divmod(present, blocks[0] * blocks[1] * blocks[2])
    centre = np.stack(np.unravel_index(place, blocks), axis=-1) + 0.5
    extent = np.array(counts) * voxel
    phase = random.uniform(0, 2 * np.pi, 6)
    # one and a half waves over the crystal: neither uniform nor odd about its middle
    wave = 3 * np.pi * centre / extent
    bend = np.stack(
        [
            np.sin(wave[:, 1] + phase[0]) * np.cos(wave[:, 0] / 2 + phase[1]),
            np.sin(wave[:, 0] + phase[2]) * np.cos(wave[:, 1] / 2 + phase[3]),
            np.zeros(len(present)),
        ],
        axis=-1,
    )
    return Sample.from_states(
        flat.reshape(counts),
        voxel,
        tilt_deg=tilts[which] + bend_deg * bend,
        strain=strain * np.sin(wave[:, 0] + phase[4]) * np.cos(wave[:, 1] + phase[5]),
        spread_deg=spreads[which],
        domain=which,
    )


def _touching(grain: NDArray, count: int) -> NDArray:
    """Return the pairs of grains that share a face of a voxel, lower number first, shape (n, 2)."""
    pairs = []
    for axis in range(3):
        layers = np.moveaxis(grain, axis, 0)
        low, high = layers[:-1], layers[1:]
        differ = low != high
        both = np.sort(np.stack([low[differ], high[differ]]).astype(np.int64), axis=0)
        pairs.append(np.unique(both[0] * count + both[1]))
    return np.stack(np.divmod(np.unique(np.concatenate(pairs)), count), axis=-1)


def _distinct(pairs: NDArray, count: int, range_deg: ArrayLike, random: np.random.Generator) -> NDArray:
    """Return two tilts of each grain, deg, shape (count, 2).

    Any two differ by at most the upper end of the range, neighbours by at least the lower one. The graph of neighbours
    is coloured, most hemmed in first (Brelaz 1979, Commun. ACM 22, 251), with colours on a ring and in its middle. Then
    each grain strays as far as its neighbours let it.
    """
    least, most = (float(each) for each in np.broadcast_to(np.asarray(range_deg, float), (2,)))
    around: list[list[int]] = [[] for _ in range(count)]
    for a, b in pairs.tolist():
        around[a].append(b)
        around[b].append(a)
    colour = _coloured(around)
    needed = max(colour, default=0) + 1
    # on a ring of n, with one in its middle, neither the chord between neighbours nor the radius may be below the least
    n = max(needed - 1, 6)
    if not 0 < least <= most / 2 * min(1.0, 2 * np.sin(np.pi / n)):
        raise ConfigError(
            f"sample: wall_range_deg is [{least:g}, {most:g}]; these sub-grains need {needed} orientations, for which "
            f"the second must be {2 / min(1.0, 2 * np.sin(np.pi / n)):.2f} times the first, which is above 0"
        )
    angle = 2 * np.pi * np.arange(n) / n
    tilts = (most / 2 * np.vstack([[0.0, 0.0], np.stack([np.cos(angle), np.sin(angle)], axis=-1)]))[colour]
    for _ in range(_STRAYS):
        strayed = tilts + random.normal(0.0, least / 4, (count, 2))
        for one in range(count):
            apart = np.hypot(*(tilts[around[one]] - strayed[one]).T)
            if np.hypot(*strayed[one]) <= most / 2 and (apart >= least).all():
                tilts[one] = strayed[one]
    return tilts


def _coloured(around: list[list[int]]) -> list[int]:
    """Return a number of each node, from 0, that none of its neighbours has."""
    colour = [-1] * len(around)
    taken: list[set[int]] = [set() for _ in around]
    heap = [(0, -len(near), one) for one, near in enumerate(around)]
    heapq.heapify(heap)
    while heap:
        hemmed_in, _, one = heapq.heappop(heap)
        # a node comes again each time that it is hemmed in more
        if colour[one] >= 0 or -hemmed_in != len(taken[one]):
            continue
        colour[one] = next(number for number in range(len(around)) if number not in taken[one])
        for other in around[one]:
            if colour[other] < 0 and colour[one] not in taken[other]:
                taken[other].add(colour[one])
                heapq.heappush(heap, (-len(taken[other]), -len(around[other]), other))
    return colour


def _rows(labels: NDArray, count: int) -> tuple[NDArray, NDArray]:
    """Return the labels that occur and each voxel's place among them."""
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=count))
    place = np.zeros(count, np.uint32)
    place[present] = np.arange(len(present))
    return present, place[labels]


@njit(nogil=True, cache=True)
def _voronoi(first: int, last: int, grain: NDArray, points: NDArray, voxel: NDArray) -> None:
    """Label voxels of the slabs [first, last) by the nearest seed point; lengths in cells, one point per cell."""
    nx, ny, nz = points.shape[0], points.shape[1], points.shape[2]
    for i in range(first, last):
        x = (i + 0.5) * voxel[0] + 1.0
        for j in range(grain.shape[1]):
            y = (j + 0.5) * voxel[1] + 1.0
            for k in range(grain.shape[2]):
                z = (k + 0.5) * voxel[2] + 1.0
                nearest = np.inf
                for a in range(max(int(x) - 1, 0), min(int(x) + 2, nx)):
                    for b in range(max(int(y) - 1, 0), min(int(y) + 2, ny)):
                        for c in range(max(int(z) - 1, 0), min(int(z) + 2, nz)):
                            away = (
                                (a + points[a, b, c, 0] - x) ** 2
                                + (b + points[a, b, c, 1] - y) ** 2
                                + (c + points[a, b, c, 2] - z) ** 2
                            )
                            if away < nearest:
                                nearest = away
                                grain[i, j, k] = (a * ny + b) * nz + c
