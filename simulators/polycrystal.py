"""A polycrystal from a grain map: every grain with all its reflections, mounted a little off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from dfxrm_control.errors import ConfigError
from dfxrm_control.grains import GrainMap, read_grain_map

from .sample import Sample

__all__ = ["mounted", "polycrystal"]


def polycrystal(
    seed: int = 0,
    *,
    map: str,
    reference_hkl: Sequence[int] = (1, 1, 1),
    max_index: int = 4,
    rotation_deg: ArrayLike = (0.0, 0.0, 0.0),
    shift_um: ArrayLike = (0.0, 0.0, 0.0),
    spread_deg: ArrayLike = 0.0,
    grain_tilt_deg: float = 0.0,
    cell: Sequence[float] | None = None,
    space_group: str | None = None,
) -> Sample:
    """Return the sample that a coarse map describes, mounted with a hidden error.

    Parameters
    ----------
    seed : int
        Of what is random: the grains' own tilts.
    map : str
        File with a grain map that has a volume; see `dfxrm_control.grains.read_grain_map`.
    reference_hkl : sequence of 3 int
        The reflection of the configuration's sample, whose length and strength the others are given in.
    max_index : int
        Reflections whose h, k and l are at most this.
    rotation_deg : array_like, shape (3,)
        Rotation vector by which the sample is mounted against the map, deg.
    shift_um : array_like, shape (3,)
        Where the map's origin lies from the rotation centre, um.
    spread_deg : array_like
        Rms local spread of the tilts, deg, as in `Sample`.
    grain_tilt_deg : float
        Rms of each grain's own deviation from the orientation in the map, deg: what the map got wrong.
    cell, space_group
        As of `read_grain_map`, where the map does not say them.

    Raises
    ------
    ConfigError
        When the map has no volume.
    FileFormatError, ParameterError
        When it cannot be read.
    """
    grains = read_grain_map(Path(map), cell=cell, space_group=space_group)
    return mounted(grains, seed, tuple(reference_hkl), max_index, rotation_deg, shift_um, spread_deg, grain_tilt_deg)


def mounted(
    grains: GrainMap,
    seed: int = 0,
    reference_hkl: Sequence[int] = (1, 1, 1),
    max_index: int = 4,
    rotation_deg: ArrayLike = (0.0, 0.0, 0.0),
    shift_um: ArrayLike = (0.0, 0.0, 0.0),
    spread_deg: ArrayLike = 0.0,
    grain_tilt_deg: float = 0.0,
) -> Sample:
    """Return a sample of grains; parameters as of `polycrystal`."""
    if grains.voxels is None:
        raise ConfigError(
            f"sample polycrystal: {grains.source or 'the map'} has no volume, so its grains have no shape"
        )
    mount = Rotation.from_rotvec(np.asarray(rotation_deg, dtype=float), degrees=True)
    numbers, index = _turned(grains, mount.as_matrix())
    wrong = Rotation.from_rotvec(
        np.random.default_rng([seed, 0xDC]).normal(0.0, np.radians(grain_tilt_deg), (len(grains), 3))
    )
    vectors, weights = _reflections(grains, reference_hkl, max_index)
    turned = np.einsum("ij,njk,nlk->nli", mount.as_matrix(), wrong.as_matrix(), vectors)
    # row 0 is the void between the grains
    vectors = np.concatenate([np.zeros((1, *vectors.shape[1:])), turned])
    weights = np.concatenate([np.zeros((1, weights.shape[1])), weights])
    states = len(vectors)
    return Sample.from_states(
        index,
        1e3 * grains.voxels.size_mm,
        tilt_deg=np.zeros((states, 3)),
        spread_deg=np.broadcast_to(np.asarray(spread_deg, dtype=float), (states, 2)),
        intensity=np.concatenate([[0.0], np.ones(len(grains))]),
        centre_um=mount.apply(1e3 * grains.voxels.centre_mm) + np.asarray(shift_um, dtype=float),
        domain=numbers,
        vectors=vectors,
        weights=weights,
    )


def _turned(grains: GrainMap, mount: NDArray) -> tuple[NDArray, NDArray]:
    """Return the number of each state, and the volume of states turned about its middle, to the nearest voxel."""
    assert grains.voxels is not None  # seen to by the caller
    voxels = grains.voxels
    table = np.zeros(int(voxels.grain_id.max()) + 1, np.int32)
    table[grains.grain_id] = 1 + np.arange(len(grains))
    states = table[voxels.grain_id]
    if not np.allclose(mount, np.eye(3)):
        # a rim of void, so that no corner is cut off
        rim = [(int(np.ceil(0.02 * size)) + 1,) * 2 for size in states.shape]
        states = np.pad(states, rim)
        middle = (np.array(states.shape) - 1) / 2.0
        scale = np.diag(1.0 / voxels.size_mm) @ mount.T @ np.diag(voxels.size_mm)
        states = affine_transform(states, scale, middle - scale @ middle, order=0)
    return np.concatenate([[0], grains.grain_id]), states


def _reflections(grains: GrainMap, reference: Sequence[int], max_index: int) -> tuple[NDArray, NDArray]:
    """Return vectors (n, k, 3) in units of the reference's and their strengths (n, k); rows are padded with nothing."""
    tables = []
    for phase in grains.phases:
        unit = np.linalg.norm(phase.B @ np.asarray(reference, dtype=float))
        base = phase.structure_factor(reference, 17.0)
        side = range(-max_index, max_index + 1)
        hkls, strength = [], []
        for hkl in ((h, k, m) for h in side for k in side for m in side):
            if hkl == (0, 0, 0) or not phase.is_allowed(hkl, 17.0):
                continue
            factor = phase.structure_factor(hkl, 17.0)
            hkls.append(hkl)
            strength.append(1.0 if factor is None or base is None else abs(factor / base) ** 2)
        tables.append((np.array(hkls, dtype=float) / unit, np.array(strength)))
    most = max(len(strength) for _, strength in tables)
    vectors, weights = np.zeros((len(grains), most, 3)), np.zeros((len(grains), most))
    for number, (indices, factors) in enumerate(tables):
        rows = np.flatnonzero(grains.phase == number)
        vectors[rows, : len(indices)] = np.einsum("nij,kj->nki", grains.ub[rows], indices)
        weights[rows, : len(indices)] = factors
    return vectors, weights
