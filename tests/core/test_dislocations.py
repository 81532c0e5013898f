from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dfxrm_control.dislocations import (
    Dislocation,
    crystal_to_sample,
    distorted_vector,
    distortion,
    grid_distortion,
    slip_systems,
)
from dfxrm_control.errors import PhysicsError

B_UM = 3.84e-4
LINES = {
    "edge": Dislocation((0.0, 0.0, 0.0), (0, 0, 1), (B_UM, 0.0, 0.0)),
    "screw": Dislocation((0.1, -0.2, 0.3), (0, 1, 0), (0.0, B_UM, 0.0)),
    "left-handed screw": Dislocation((0.1, -0.2, 0.3), (0, 1, 0), (0.0, -B_UM, 0.0)),
    "mixed, inclined": Dislocation((0.1, 0.2, -0.1), (1, 2, 3), (B_UM, 0.3 * B_UM, -0.5 * B_UM), poisson=0.334),
}


def circuit(dislocation: Dislocation, radius_um: float, centre_um, turns: int = 1, count: int = 3000):
    """Return the closed integral of beta dx on a right-handed circle about the line's direction."""
    across = np.cross(dislocation.line, [0.3, -0.8, 0.1])
    across /= np.linalg.norm(across)
    up = np.cross(dislocation.line, across)
    angle = np.linspace(0, 2 * np.pi * turns, count, endpoint=False)[:, np.newaxis]
    points = centre_um + radius_um * (np.cos(angle) * across + np.sin(angle) * up)
    steps = radius_um * (-np.sin(angle) * across + np.cos(angle) * up) * 2 * np.pi * turns / count
    return np.einsum("nij,nj->i", dislocation.distortion(points), steps)


@pytest.mark.parametrize("name", LINES)
def test_a_right_handed_circuit_gives_the_burgers_vector(name):
    line = LINES[name]
    assert_allclose(circuit(line, 0.7, line.point_um), line.burgers_um, atol=1e-9 * B_UM)
    # any point of the line will do, and the circuit need not be centred on it
    assert_allclose(circuit(line, 0.7, line.point_um + 2 * line.line + 0.2), line.burgers_um, atol=1e-9 * B_UM)
    outside = line.point_um + 5.0 * np.cross(line.line, [0.3, -0.8, 0.1])
    assert_allclose(circuit(line, 0.7, outside), 0.0, atol=1e-9 * B_UM)


@pytest.mark.parametrize("name", LINES)
def test_the_core_holds_the_burgers_vector_evenly_spread(name):
    line = LINES[name]
    inside = circuit(line, 0.5 * line.core_um, line.point_um)
    assert_allclose(inside, 0.25 * line.burgers_um, atol=1e-6 * B_UM)
    assert_allclose(line.distortion(line.point_um), 0.0, atol=1e-15)


def test_fields_are_the_derivatives_of_the_displacements_of_the_literature():
    """Hirth & Lothe (3-1), (3-45), (3-46), differentiated numerically."""
    nu = 0.218

    def displacement(x, y):
        edge = (
            np.arctan2(y, x) + x * y / (2 * (1 - nu) * (x**2 + y**2)),
            -(1 - 2 * nu) / (4 * (1 - nu)) * np.log(x**2 + y**2) - (x**2 - y**2) / (4 * (1 - nu) * (x**2 + y**2)),
        )
        return np.stack([edge[0], edge[1], 0.5 * np.arctan2(y, x)]) * B_UM / (2 * np.pi)

    line = Dislocation((0, 0, 0), (0, 0, 1), (B_UM, 0, 0.5 * B_UM), poisson=nu)
    x, y = np.random.default_rng(0).uniform(0.2, 1.5, (2, 50))
    step = 1e-5
    expected = np.zeros((50, 3, 3))
    expected[:, :, 0] = ((displacement(x + step, y) - displacement(x - step, y)) / (2 * step)).T
    expected[:, :, 1] = ((displacement(x, y + step) - displacement(x, y - step)) / (2 * step)).T
    assert_allclose(line.distortion(np.stack([x, y, 0 * x], -1)), expected, atol=1e-9)


@pytest.mark.parametrize("name", LINES)
def test_fields_are_compatible_and_in_equilibrium_outside_the_core(name):
    line = LINES[name]
    points = np.random.default_rng(1).uniform(-2, 2, (200, 3))
    away = points - line.point_um
    points = points[np.linalg.norm(away - np.outer(away @ line.line, line.line), axis=1) > 0.4]
    step = 1e-4
    gradient = np.stack(
        [(line.distortion(points + e) - line.distortion(points - e)) / (2 * step) for e in step * np.eye(3)], axis=-1
    )
    size = abs(gradient).max()
    # d_k beta_ij = d_j beta_ik: no dislocation density there
    assert abs(gradient - gradient.swapaxes(2, 3)).max() < 1e-5 * size
    # div sigma = 0 with sigma = lambda tr(e) + 2 mu e, lambda / mu = 2 nu / (1 - 2 nu)
    lame = 2 * line.poisson / (1 - 2 * line.poisson)
    divergence = (
        lame * np.einsum("nllj->nj", gradient) + np.einsum("nijj->ni", gradient) + np.einsum("njij->ni", gradient)
    )
    assert abs(divergence).max() < 1e-5 * size


def test_turning_the_direction_and_the_burgers_vector_round_is_the_same_dislocation():
    one = LINES["mixed, inclined"]
    other = Dislocation(one.point_um, -one.line, -one.burgers_um, poisson=one.poisson)
    points = np.random.default_rng(2).uniform(-1, 1, (20, 3))
    assert_allclose(other.distortion(points), one.distortion(points), atol=1e-15)
    assert other.character_deg == pytest.approx(one.character_deg)


def test_a_turned_dislocation_has_the_turned_field():
    one = LINES["mixed, inclined"]
    turn = crystal_to_sample((1, 1, 1), (1, -1, 0))
    points = np.random.default_rng(3).uniform(-1, 1, (20, 3))
    assert_allclose(one.turned(turn).distortion(points @ turn.T), turn @ one.distortion(points) @ turn.T, atol=1e-15)


def test_many_lines_add_up_at_many_points():
    points = np.random.default_rng(4).uniform(-1, 1, (20, 500, 3))
    together = distortion(list(LINES.values()), points)
    assert together.shape == (20, 500, 3, 3)
    assert_allclose(together, sum(line.distortion(points) for line in LINES.values()), atol=1e-15)
    assert not distortion([], points).any()


def test_a_grid_has_the_field_of_its_points():
    random = np.random.default_rng(6)
    lines = [
        Dislocation(random.uniform(-6, 6, 3), random.normal(size=3), random.choice([-1, 1]) * np.array([B_UM, 0, 0]))
        for _ in range(20)
    ]
    x, y, z = np.arange(-3, 3, 0.21), np.arange(-2, 2, 0.11), np.arange(-1, 1, 0.13)
    points = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1)
    error = grid_distortion(lines, x, y, z) - distortion(lines, points)
    assert abs(error).max() < 2e-6
    assert np.sqrt((error**2).mean()) < 2e-7
    assert distortion(lines, points).std() > 3e-5
    assert grid_distortion(lines, x[:1], y[:1], z[:2]).shape == (1, 1, 2, 3, 3)
    assert not grid_distortion([], x, y, z).any()


def test_characters():
    assert LINES["edge"].character_deg == pytest.approx(90.0)
    assert LINES["screw"].character_deg == pytest.approx(0.0)
    assert LINES["left-handed screw"].character_deg == pytest.approx(180.0)
    sixty = Dislocation((0, 0, 0), (1, 1, 0), np.array([0, 1, 1]) * B_UM)
    assert sixty.character_deg == pytest.approx(60.0)


def test_slip_systems_of_silicon_seen_by_111():
    systems = slip_systems(5.43102, (1, 1, 1))
    assert len(systems) == 12
    seen = sorted(system.burgers_along_um * 1e4 for system in systems)
    assert_allclose(seen, [0.0] * 6 + [3.1356] * 6, atol=1e-4)
    for system in systems:
        assert np.dot(system.plane, system.direction) == 0
        assert np.linalg.norm(system.burgers_um) == pytest.approx(5.43102e-4 / np.sqrt(2))
        line = Dislocation((0, 0, 0), np.cross(system.plane, (0.3, 0.5, 1)), system.burgers_um)
        assert line.visible((1, 1, 1)) == (system.burgers_along_um > 0)
        assert abs(line.burgers_along_um((1, 1, 1))) == pytest.approx(system.burgers_along_um, abs=1e-12)


def test_where_a_line_crosses_a_plane():
    line = Dislocation((1.0, 2.0, 3.0), (1, 0, 1), (B_UM, 0, 0))
    assert_allclose(line.crossing_um((0, 0, 1), 0.5), [-1.5, 2.0, 0.5])
    with pytest.raises(PhysicsError, match="never crosses"):
        line.crossing_um((0, 1, 0))


def test_a_distorted_reciprocal_vector_is_that_of_the_distorted_planes():
    beta = np.random.default_rng(5).normal(0, 0.05, (6, 3, 3))
    q = np.array([0.3, -0.2, 1.0])
    expected = np.linalg.solve((np.eye(3) + beta).swapaxes(1, 2), np.broadcast_to(q[:, np.newaxis], (6, 3, 1)))[..., 0]
    assert_allclose(distorted_vector(beta, q), expected, rtol=1e-12)
    # small: q - beta^T q, so that a larger spacing is a shorter vector
    assert_allclose(distorted_vector(np.diag([0, 0, 1e-5])), [0, 0, 1 - 1e-5], atol=1e-9)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"line": (0, 0, 0)}, "line is"),
        ({"burgers_um": (0, 0, 0)}, "no dislocation"),
        ({"poisson": 0.5}, "between -1 and 0.5"),
        ({"core_um": 0.0}, "core_um"),
        ({"point_um": (1.0, 2.0)}, "three numbers"),
    ],
)
def test_what_is_no_dislocation_is_refused(change, says):
    with pytest.raises(PhysicsError, match=says):
        Dislocation(**{"point_um": (0, 0, 0), "line": (0, 0, 1), "burgers_um": (B_UM, 0, 0)} | change)
    with pytest.raises(PhysicsError, match="last axis"):
        LINES["edge"].distortion(np.zeros((4, 2)))
