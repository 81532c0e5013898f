"""Domains of potassium niobate: what differs between them, and that the microscope sees those that diffract."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import pytest

from dfxrm_control.config import load_config
from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import ConfigError
from simulators import Twin, build_sample, known_field


@pytest.fixture(scope="module")
def niobate():
    return build_sample("potassium_niobate", {"voxel_um": [0.2, 0.1, 1.0]}, seed=1)


def directions(sample):
    """Return the change of direction of the diffraction vector of each domain along x (rock) and y (roll), deg."""
    return np.stack([sample.tilt_deg[:, 1], -sample.tilt_deg[:, 0]], axis=-1)


def test_neighbours_differ_by_the_twin_angle_a_small_step_or_their_spacing(niobate):
    lean = directions(niobate)
    dark = niobate.strain < -0.01
    kinds = []
    for left in range(len(lean) - 1):
        right = left + 1
        turn = np.linalg.norm(lean[right] - lean[left])
        if dark[left] != dark[right]:
            kinds.append("dark")
        elif turn > 0.1:
            kinds.append("twin")
            assert turn == pytest.approx(0.261, abs=0.011)
            normal = (lean[right] - lean[left]) / turn
            assert abs(normal @ [0.5, np.sqrt(0.75)]) == pytest.approx(1.0, abs=2e-3)
        elif turn > 0:
            step = abs(lean[right] - lean[left])
            assert step.max() == pytest.approx(0.01)
            kinds.append("rock" if step[0] > step[1] else "roll")
            assert step.min() == pytest.approx(0.0, abs=1e-12)
        else:
            assert niobate.strain[right] - niobate.strain[left] == pytest.approx(2e-4)
            kinds.append("strain")
    assert {kind: kinds.count(kind) for kind in ("rock", "roll", "strain")} == {"rock": 1, "roll": 1, "strain": 1}
    assert kinds.count("twin") >= 6
    assert kinds.count("dark") >= 4


def test_dark_domains_have_the_other_pseudo_cubic_planes_along_z(niobate):
    lattice = Lattice.from_parameters(3.973, 5.695, 5.721, 90, 90, 90, space_group="A m m 2")
    expected = lattice.d_spacing((2, 0, 0)) / lattice.d_spacing((0, 2, 2)) - 1
    assert expected == pytest.approx(-0.0156, abs=1e-4)
    assert niobate.strain[niobate.strain < -0.01] == pytest.approx(expected)


def test_walls_run_across_their_normal_and_every_domain_is_a_stripe(niobate):
    x, y, _ = niobate.axes_um()
    label = niobate.domain[niobate.index[:, :, 0]]
    along = np.add.outer(0.5 * x, np.sqrt(0.75) * y)
    present = np.unique(label)
    assert len(present) > 10
    edges = [(along[label == one].min(), along[label == one].max()) for one in present]
    assert all(here[1] <= later[0] + 0.2 for here, later in zip(edges[:-1], edges[1:], strict=True))
    assert (niobate.index == niobate.index[:, :, :1]).all()


def test_the_microscope_sees_the_domains_that_diffract_where_they_are(resize):
    with as_file(files("configs") / "domains.yml") as path:
        config = resize(load_config(path), 128, 512)
    twin = Twin(config, **{**config.backend.options, "noise": False})
    twin.put("shutter", "open")
    known, label = known_field(twin, ("chi", "phi")), twin.known_domains("far_field")
    dark = twin.sample.strain[label] < -0.01
    inside = (label >= 0) & (label == np.roll(label, 25, 1)) & (label == np.roll(label, -25, 1))
    assert known.integral[inside & dark].max() < 1e-2 * known.integral.max()
    assert known.integral[inside & ~dark].min() > 0.9 * known.integral.max()
    # crystal turned by +w about y, x is met by phi, chi = -w: the domain's mean within a millidegree
    for one in np.unique(label[inside & ~dark]):
        here = inside & (label == one)
        if here.sum() > 500:
            found = -np.median(known.com[:, here], axis=1)
            assert found == pytest.approx(twin.sample.tilt_deg[one, :2], abs=4e-3)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="stripe_um"):
        build_sample("potassium_niobate", {"stripe_um": 0.0}, seed=0)
    with pytest.raises(ConfigError, match="0 bright stripes"):
        build_sample("potassium_niobate", {"dark_every": 1}, seed=0)
