"""Silicon with dislocations: what stands in the voxels, and that frames show the lines where they are."""

from __future__ import annotations

import math
from importlib.resources import as_file, files

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dfxrm_control.config import load_config
from dfxrm_control.dislocations import distorted_vector, distortion
from dfxrm_control.errors import ConfigError
from simulators import Twin, build_sample

LAYER = (math.sin(math.radians(6.67841)), 0.0, math.cos(math.radians(6.67841)))
SMALL = {"size_um": [8.0, 4.0, 2.4]}


@pytest.fixture(scope="module")
def silicon():
    with as_file(files("configs") / "silicon.yml") as path:
        return load_config(path)


@pytest.fixture(scope="module")
def indent():
    return build_sample("silicon_indent", {"voxel_um": [0.4, 0.2, 0.4]}, seed=1)


def changes(sample):
    """Return G' of every voxel, in units of the perfect crystal's."""
    turned = Rotation.from_rotvec(np.radians(sample.field("tilt_deg").reshape(-1, 3))).apply([0.0, 0.0, 1.0])
    return (turned / (1 + sample.field("strain").reshape(-1, 1))).reshape(*sample.index.shape, 3)


@pytest.mark.parametrize("kind", ["mixed", "screw", "edge", "invisible"])
def test_each_voxel_holds_the_exact_change_of_g(kind):
    sample = build_sample("silicon_dislocation", {"kind": kind, "position_um": [0.3, -0.4, 0.0], **SMALL}, seed=0)
    (line,) = sample.dislocations
    points = np.stack(np.meshgrid(*sample.axes_um(), indexing="ij"), axis=-1)
    expected = distorted_vector(line.distortion(points)) - [0.0, 0.0, 1.0]
    found = changes(sample) - [0.0, 0.0, 1.0]
    away = points - line.point_um
    radius = np.linalg.norm(away - (away @ line.line)[..., np.newaxis] * line.line, axis=-1)
    seen = radius > 0.02
    # each component in steps of 5 % of itself, 5e-7 where it is small
    assert (abs(found - expected) < 0.035 * abs(expected) + 1e-6)[seen].all()
    # many voxels have the same field: few states
    assert len(sample.strain) < sample.index.size / 10


def test_kinds_are_what_they_are_called():
    lines = {
        kind: build_sample("silicon_dislocation", {"kind": kind, "voxel_um": [2, 2, 2]}, seed=0).dislocations[0]
        for kind in ("mixed", "screw", "edge", "invisible")
    }
    characters = {kind: round(line.character_deg) % 180 for kind, line in lines.items()}
    assert characters == {"mixed": 60, "screw": 0, "edge": 90, "invisible": 60}
    along = {kind: line.burgers_along_um((0, 0, 1)) * 1e4 for kind, line in lines.items()}
    assert along == pytest.approx({"mixed": 3.1356, "screw": 3.1356, "edge": 3.1356, "invisible": 0.0}, abs=1e-4)
    assert {kind for kind, line in lines.items() if line.visible((0, 0, 1))} == {"mixed", "screw", "edge"}
    for line in lines.values():
        assert np.linalg.norm(line.burgers_um) == pytest.approx(3.8403e-4, abs=1e-8)
    # of the three (1-11)-type planes: 70.53 deg from the surface
    assert abs(lines["mixed"].plane_normal[2]) == pytest.approx(1 / 3)


def test_an_indent_has_lines_of_several_kinds_apart_on_the_layer(indent):
    lines = indent.dislocations
    assert len(lines) >= 50
    # b and -b are one kind
    kinds = {tuple(np.round(1e6 * line.burgers_um * np.sign(line.burgers_um @ [1, 1e-3, 1e-6]))) for line in lines}
    assert len(kinds) >= 3
    hidden = [line for line in lines if not line.visible((0, 0, 1))]
    assert 3 < len(hidden) < len(lines) / 2
    # the two legs of each half-loop cancel
    burgers = sum(line.burgers_um * np.sign(line.line @ LAYER) for line in lines)
    assert abs(burgers).max() < 1e-12
    crossings = np.array([line.crossing_um(LAYER) for line in lines])
    assert (abs(crossings[:, :2]) < [21.5, 10.0]).all()
    apart = np.hypot(*((crossings[:, np.newaxis] - crossings)[..., :2] / [4.5, 1.1]).transpose(2, 0, 1))
    assert np.min(apart + 9 * np.eye(len(lines))) > 1.0


def test_the_field_of_an_indent_is_the_sum_of_its_lines(indent):
    x, y, z = indent.axes_um()
    points = np.stack(np.meshgrid(x[::7], y[::7], z[::7], indexing="ij"), axis=-1)
    expected = distorted_vector(distortion(indent.dislocations, points)) - [0.0, 0.0, 1.0]
    found = changes(indent)[::7, ::7, ::7] - [0.0, 0.0, 1.0]
    assert (abs(found - expected) < 0.06 * abs(expected) + 3e-6).all()
    assert expected.std() > 2e-5


def test_seeds_make_different_indents():
    coarse = {"voxel_um": [2.0, 1.0, 2.0]}
    one, same, other = (build_sample("silicon_indent", coarse, seed).dislocations for seed in (1, 1, 2))
    assert all((a.point_um == b.point_um).all() for a, b in zip(one, same, strict=True))
    assert not any(np.allclose(a.point_um, b.point_um) for a, b in zip(one, other, strict=True))


def test_a_weak_beam_image_shows_a_line_on_both_sides_of_where_it_is(silicon, resize, move):
    """At +offset and at -offset in the rock, the lattice around the line is turned in opposite senses."""
    config = resize(silicon, 48, 96)
    twin = Twin(
        config,
        sample="silicon_dislocation",
        sample_options={"kind": "screw", "position_um": [0.0, 0.5, 0.0], **SMALL},
        noise=False,
    )
    twin.put("shutter", "open")
    view = twin.view("far_field")
    y_um = ((95 / 2) - np.arange(96)) * -view.pixel_y_um
    images = {}
    for offset in (-0.04, 0.0, 0.04):
        move(twin, phi=offset)
        images[offset] = twin.photons("far_field", 1.0)[20:28]
    columns = {offset: image.sum(axis=0) ** 2 for offset, image in images.items()}
    centres = {offset: (columns[offset] * y_um).sum() / columns[offset].sum() for offset in (-0.04, 0.04)}
    assert np.mean(list(centres.values())) == pytest.approx(0.5, abs=0.05)
    # b / (2 pi offset) = 87 nm to either side
    assert 0.05 < abs(centres[0.04] - centres[-0.04]) < 0.3
    # crystal turned by +w about y is met by phi = -w, and is turned so where beta_31 < 0
    (line,) = twin.sample.dislocations
    probe = line.point_um + [[0.0, -0.1, 0.0], [0.0, 0.1, 0.0]]
    turned = -line.distortion(probe)[:, 2, 0]
    assert np.sign(turned[1] - turned[0]) == np.sign(centres[-0.04] - centres[0.04])
    assert images[0.04].max() > 100 * np.median(twin.photons("far_field", 1.0))


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="must be one of mixed, screw, edge, invisible"):
        build_sample("silicon_dislocation", {"kind": "partial"}, seed=0)
    with pytest.raises(ConfigError, match=r"only \d+ of 500 lines fit"):
        build_sample("silicon_indent", {"lines": 500}, seed=0)
    with pytest.raises(ConfigError, match="no dislocation"):
        build_sample("silicon_dislocation", {"burgers": [0, 0, 0]}, seed=0)
