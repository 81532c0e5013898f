"""The scans of ID03 that darling ships, reduced by darling and by us."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from dfxrm_control.reduction import kernel_average_misorientation, maps_from_file

if find_spec("darling") is None:
    pytest.skip("darling is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def darlings(tmp_path_factory):
    out = tmp_path_factory.mktemp("darling") / "moments.npz"
    script = Path(__file__).with_name("check_darling.py")
    subprocess.run([sys.executable, str(script), str(out)], check=True, timeout=280, stdout=subprocess.DEVNULL)
    with np.load(out) as found:
        return dict(found)


def as_frames(canonical):
    """Return a map as darling lays it: by row and column of the frame; our x runs against the rows."""
    return canonical[::-1]


@pytest.mark.parametrize("name", ["mosa", "rocking"])
@pytest.mark.parametrize("background", [0, 105])
def test_moments_are_darlings_own(darlings, name, background):
    path = str(darlings[f"{name}_path"])
    maps = maps_from_file(path, dark=None, clip=background or None, monitor=None)
    mean, variance = darlings[f"{name}_{background}_mean"], darlings[f"{name}_{background}_variance"]
    count = len(maps.axes)
    assert count == mean.shape[-1] == (2 if name == "mosa" else 1)
    lit = as_frames(maps.integrated) > 0.0
    assert lit.mean() > 0.8
    for index, axis in enumerate(maps.axes):
        com = as_frames(axis.com)
        assert np.ptp(com[lit]) > 0.005
        assert np.abs(com - mean[..., index])[lit].max() < 1e-4
        found = as_frames(maps.covariance[index, index])
        assert np.abs(found - variance[..., index * (count + 1)])[lit].max() < 2e-4
    if lit.all():
        inside = (slice(2, -2), slice(2, -2))
        known = darlings[f"{name}_{background}_kam"][inside]
        every = np.ones_like(maps.valid)
        ours = as_frames(_kam(maps, every))[inside]
        np.testing.assert_allclose(ours, known, atol=1e-4)


def _kam(maps, valid):
    return kernel_average_misorientation([axis.com for axis in maps.axes], valid)
