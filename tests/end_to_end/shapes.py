"""Where the crystal of a sample is, and how well two shapes agree."""

import numpy as np


def inside(sample, points):
    """Return which points, shape (..., 3) in um, lie in the crystal."""
    place = np.floor((points - sample.low_um) / sample.voxel_um).astype(int)
    there = ((place >= 0) & (place < np.array(sample.index.shape))).all(axis=-1)
    x, y, z = np.where(there[..., np.newaxis], place, 0).reshape(-1, 3).T
    return there & (sample.intensity[sample.index[x, y, z]] > 0).reshape(there.shape)


def overlap(one, other):
    """Return the intersection over the union."""
    return (one & other).sum() / (one | other).sum()
