"""Grain maps for tests: a small polycrystal of boxes, and the real map of aluminium where that is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dfxrm_control.crystal import Lattice
from dfxrm_control.grains import GrainMap, Voxels

AL = Lattice.from_parameters(4.0495, 4.0495, 4.0495, space_group="F m -3 m", atoms=[("Al", 0, 0, 0)])


def polycrystal(seed: int = 3) -> GrainMap:
    """Eight grains in a volume of 12 x 10 x 8 voxels of 5, 4 and 3 um, with a rim of void."""
    ids = np.zeros((12, 10, 8), np.int64)
    number = 0
    for x in (slice(1, 6), slice(6, 11)):
        for y in (slice(1, 4), slice(4, 9)):
            for z in (slice(1, 5), slice(5, 7)):
                number += 1
                ids[x, y, z] = 10 * number
    size = np.array([5e-3, 4e-3, 3e-3])
    voxels = Voxels(ids, size, np.zeros(3))
    numbers = np.unique(ids[ids > 0])
    index = [np.argwhere(ids == n) for n in numbers]
    turns = Rotation.random(len(numbers), random_state=seed).as_matrix()
    return GrainMap(
        numbers,
        turns @ AL.B,
        np.array([voxels.place_mm(i.mean(axis=0)) for i in index]),
        np.array([(np.ptp(i, axis=0) + 1) * size for i in index]),
        np.array([len(i) * size.prod() for i in index]),
        np.zeros(len(numbers), np.int64),
        (AL,),
        ("aluminium",),
        voxels,
        "made for a test",
    )


def real_map() -> Path:
    """The map of Al 1050 in the folder of test data; skips the test where that is not."""
    path = Path(os.environ.get("DFXRM_TEST_DATA", "../shared/data")) / "lab_dct_Al1050.h5"
    if not path.exists():
        pytest.skip(f"{path.name} is not there; DFXRM_TEST_DATA names the folder it is looked for in")
    return path.resolve()
