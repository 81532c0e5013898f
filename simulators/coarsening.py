"""Annealing: sub-grains that grow while a sample is hot.

Sub-grains grow by the law of recovered metals, ``D^2 = D0^2 + int k(T) dt`` with an Arrhenius rate
``k = k0 exp(-Q/RT)`` (Humphreys & Hatherly 2004, Recrystallization and Related Annealing Phenomena, 2nd ed., Eqs. 6.17
and 6.22). How far a sample has got is one number, the integral, in um^2; a cold sample's does not change.

Which walls vanish is coalescence: two neighbours turn into one another and are one sub-grain from then on (Li 1962,
J. Appl. Phys. 33, 2958). The next pair is the one that needs the least turning per area of the wall it gets rid of,
small pairs before large ones, which turn the more slowly the larger they are. With `GrowthLaw.migration` walls sweep
over the smaller one of a pair instead, which takes on the larger one's orientation (Humphreys & Hatherly 2004,
Sec. 6.5.3): misorientations then do not average out as sub-grains grow. The order follows from the crystal alone, so
that the same crystal with the same history looks the same.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import ConfigError

from .sample import Sample

__all__ = ["Coarsening", "GrowthLaw"]

GAS_CONSTANT_J_PER_MOL_K = 8.314462618
ABSOLUTE_ZERO_DEGC = -273.15
# mean length of a line in a cell of a Voronoi tessellation per cube root of the mean cell volume (Okabe et al. 2000,
# Spatial Tessellations, 2nd ed., Table 5.5.2)
_CHORD_PER_SIZE = 0.687
# largest change of temperature that counts as none when growth is added up along a ramp, K
_RAMP_STEP_K = 1.0


@dataclass(frozen=True)
class GrowthLaw:
    """Rate at which the squared size of sub-grains grows.

    Attributes
    ----------
    rate_um2_per_s : float
        k at ``temperature``, um^2/s. The default takes sub-grains of 5 um to 8 um in 20 minutes.
    temperature : float
        Temperature that the rate belongs to, degC.
    activation_kj_per_mol : float
        Q, kJ/mol; the default is that of self-diffusion in aluminium (Humphreys & Hatherly 2004, Table 6.2).
    migration : bool
        Whether of two that merge the larger keeps its orientation; otherwise both turn to their mean.
    """

    rate_um2_per_s: float = 0.0325
    temperature: float = 325.0
    activation_kj_per_mol: float = 142.0
    migration: bool = False

    def __post_init__(self) -> None:
        if self.rate_um2_per_s < 0 or self.activation_kj_per_mol < 0 or self.temperature <= ABSOLUTE_ZERO_DEGC:
            raise ConfigError(
                "backend.options.coarsening: rate_um2_per_s and activation_kj_per_mol must not be below 0, and "
                f"temperature must be above {ABSOLUTE_ZERO_DEGC} degC"
            )

    def rate(self, temperature: float) -> float:
        """Return k at a temperature in degC, um^2/s."""
        if temperature <= ABSOLUTE_ZERO_DEGC:
            return 0.0
        away = 1 / (temperature - ABSOLUTE_ZERO_DEGC) - 1 / (self.temperature - ABSOLUTE_ZERO_DEGC)
        return self.rate_um2_per_s * math.exp(-1e3 * self.activation_kj_per_mol / GAS_CONSTANT_J_PER_MOL_K * away)

    def growth_um2(self, begin: float, end: float, duration_s: float) -> float:
        """Return the integral of k over a time in which the temperature goes evenly from begin to end (degC), um^2."""
        steps = max(math.ceil(abs(end - begin) / _RAMP_STEP_K), 1)
        middles = begin + (np.arange(steps) + 0.5) * (end - begin) / steps
        return duration_s / steps * sum(self.rate(float(middle)) for middle in middles)


class Coarsening:
    """The stages that a sample of sub-grains goes through.

    Parameters
    ----------
    sample : Sample
        The sample before; its states are told apart by ``domain``.
    migration : bool
        See `GrowthLaw`.

    Raises
    ------
    ConfigError
        When the sample is not made of domains.
    """

    def __init__(self, sample: Sample, migration: bool = False) -> None:
        if sample.domain is None:
            raise ConfigError("backend.options.coarsening: this sample has no sub-grains that could grow")
        self._first, self._migration = sample, migration
        names, self._grain = np.unique(np.where(sample.intensity > 0, sample.domain, -1), return_inverse=True)
        self._names = names
        volume = np.bincount(self._grain, _voxels(sample))
        # what is empty takes no part
        pairs, walls_um2 = _walls(sample, self._grain, names >= 0)
        self._merges, self._left_um2 = _order_of_merges(
            volume, _weighted(sample.tilt_deg, self._grain, _voxels(sample)), pairs, walls_um2, migration
        )
        # lines along the voxels' three axes meet, per um, a third of the walls' area summed over the three directions
        volume_um3 = float(volume[names >= 0].sum() * sample.voxel_um.prod())
        self._size_um = 3 * volume_um3 / float(walls_um2.sum()) / _CHORD_PER_SIZE if len(pairs) else math.inf

    @property
    def size_um(self) -> float:
        """Mean size of a sub-grain before any growth, from the mean distance of walls along a line, um."""
        return self._size_um

    def stage(self, growth_um2: float) -> int:
        """Return how many pairs have merged when the squared size has grown by so many um^2."""
        if not self._merges:
            return 0
        # the distance of walls along a line goes as one over their area
        left = self._left_um2[0] / math.sqrt(1 + max(growth_um2, 0.0) / self._size_um**2)
        return int(np.searchsorted(-self._left_um2, -left, side="right")) - 1

    def sample(self, stage: int) -> Sample:
        """Return the sample after so many merges; the voxels are those of the first, only their states have changed."""
        if stage == 0:
            return self._first
        into = np.arange(len(self._names))
        for kept, lost in self._merges[:stage]:
            into[into == lost] = kept
        first, cluster = self._first, into[self._grain]
        weight = _voxels(first)
        own = _weighted(first.tilt_deg, self._grain, weight)
        of_cluster = own if self._migration else _weighted(first.tilt_deg, cluster, weight)
        turn = of_cluster[cluster] - own[self._grain]
        spread = _weighted(first.spread_deg, cluster, weight)[cluster]
        assert first.domain is not None  # or there would be no merges
        domain = np.where(first.intensity > 0, self._names[cluster], first.domain)
        return replace(first, tilt_deg=first.tilt_deg + turn, spread_deg=spread, domain=domain)


def _voxels(sample: Sample) -> NDArray:
    """Return the number of voxels in each state, shape (n,)."""
    return np.bincount(sample.index.ravel(), minlength=len(sample.intensity))


def _weighted(values: NDArray, group: NDArray, weight: NDArray) -> NDArray:
    """Return the weighted mean of each group, shape (groups, k); 0 for a group without weight."""
    total = np.bincount(group, weight)
    sums = np.stack([np.bincount(group, weight * column) for column in values.T], axis=-1)
    return sums / np.maximum(total, 1)[:, np.newaxis]


def _walls(sample: Sample, grain: NDArray, solid: NDArray) -> tuple[NDArray, NDArray]:
    """Return the pairs of grains that touch, lower number first, shape (n, 2), and the area of their walls, um^2.

    The area is that of the faces of voxels: of a wall's projections along the three axes, summed.
    """
    count = len(solid)
    joints, areas = [], []
    for axis in range(3):
        index = np.moveaxis(sample.index, axis, 0)
        low, high = index[:-1], index[1:]
        differ = low != high
        pair = np.sort(np.stack([grain[low[differ]], grain[high[differ]]]), axis=0)
        walls = (pair[0] != pair[1]) & solid[pair[0]] & solid[pair[1]]
        joint, faces = np.unique(pair[0][walls].astype(np.int64) * count + pair[1][walls], return_counts=True)
        joints.append(joint)
        areas.append(faces * np.delete(sample.voxel_um, axis).prod())
    joint, place = np.unique(np.concatenate(joints), return_inverse=True)
    return np.stack(np.divmod(joint, count), axis=-1), np.bincount(place, np.concatenate(areas), minlength=len(joint))


def _order_of_merges(
    volume: NDArray, tilt: NDArray, pairs: NDArray, walls_um2: NDArray, migration: bool
) -> tuple[list[tuple[int, int]], NDArray]:
    """Return (kept, lost) of every merge, first to last, and the area of the walls left before each and after all."""
    volume, tilt = volume.astype(float), tilt.copy()
    around: dict[int, dict[int, float]] = {}
    for (a, b), area in zip(pairs.tolist(), walls_um2.tolist(), strict=True):
        around.setdefault(a, {})[b] = area
        around.setdefault(b, {})[a] = area
    version = [0] * len(volume)
    heap: list[tuple[float, int, int, int, int]] = []

    def offer(a: int, b: int) -> None:
        a, b = min(a, b), max(a, b)
        size = volume[a] + volume[b]
        effort = float(np.linalg.norm(tilt[a] - tilt[b])) * size ** (4 / 3) / around[a][b]
        heapq.heappush(heap, (effort, a, b, version[a], version[b]))

    for a, b in pairs.tolist():
        offer(a, b)
    merges: list[tuple[int, int]] = []
    left_um2 = [float(walls_um2.sum())]
    while heap:
        _, a, b, seen_a, seen_b = heapq.heappop(heap)
        if (version[a], version[b]) != (seen_a, seen_b):
            continue
        kept, lost = (a, b) if volume[a] >= volume[b] else (b, a)
        merges.append((kept, lost))
        left_um2.append(left_um2[-1] - around[kept].pop(lost))
        total = volume[kept] + volume[lost]
        if not migration:
            tilt[kept] = (volume[kept] * tilt[kept] + volume[lost] * tilt[lost]) / total
        volume[kept] = total
        version[lost] = -1
        version[kept] += 1
        for other, area in around.pop(lost).items():
            if other != kept:
                del around[other][lost]
                around[kept][other] = around[other][kept] = around[kept].get(other, 0.0) + area
        for other in around[kept]:
            offer(kept, other)
    return merges, np.array(left_um2)
