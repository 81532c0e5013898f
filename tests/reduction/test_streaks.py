"""Loops around a dislocation that a thick layer shows as a streak."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dfxrm_control.dislocations import Dislocation
from dfxrm_control.errors import ParameterError
from dfxrm_control.reduction import DistortionLayer, LayerView, burgers_loops, dislocation_maps

B_UM = 3.1356e-4
TWO_THETA = 13.35682


def seen(layer_um: float, burgers_um: float = B_UM):
    """Return an ideal map of a line along z, how it was looked at, and the line."""
    line = Dislocation((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1e-4, burgers_um), core_um=0.05)
    view = LayerView(np.eye(3), TWO_THETA, layer_um, (0.25, 0.06))
    x, y = np.arange(-7.0, 7.01, 0.18), np.arange(-4.0, 4.01, 0.04)
    maps, _ = dislocation_maps(x, y, line, view)
    distortion = dict(enumerate(maps, start=1))
    errors = {number: np.full(values.shape, 1e-6) for number, values in distortion.items()}
    return (
        DistortionLayer("map", "silicon", x, y, np.eye(3), np.array([0.0, 0.0, 0.3189]), distortion, errors),
        view,
        line,
    )


def test_a_streak_is_as_long_as_the_diffracted_beam_is_in_the_layer():
    line = Dislocation((0.0, 0.0, 0.0), (0.5, -0.3, 1.0), (0.0, 0.0, B_UM))
    x, y = LayerView(np.eye(3), TWO_THETA, 0.6).streak_um(line)
    assert x == pytest.approx(0.6 * (1.0 / math.tan(math.radians(TWO_THETA)) - 0.5))
    assert y == pytest.approx(0.6 * 0.3)
    # along the diffracted beam, a line is seen as a point
    along = Dislocation((0.0, 0.0, 0.0), (1.0, 0.0, math.tan(math.radians(TWO_THETA))), (0.0, 0.0, B_UM))
    assert LayerView(np.eye(3), TWO_THETA, 0.6, (0.2, 0.1)).streak_um(along) == pytest.approx((0.2, 0.1))


def test_squares_do_in_a_thin_layer_and_cut_the_streak_of_a_thick_one():
    thin, _, _ = seen(0.1)
    assert burgers_loops(thin, (0.0, 0.0)).mean_um == pytest.approx(B_UM, rel=0.02)
    thick, _, _ = seen(0.6)
    squares = burgers_loops(thick, (0.0, 0.0))
    assert squares.mean_um < 0.9 * B_UM
    # what a square encloses of a Gaussian streak
    inside = math.erf(0.5 / (math.sqrt(2.0) * 0.6 / 2.3548 / math.tan(math.radians(TWO_THETA))))
    assert squares.burgers_um[0] == pytest.approx(inside * B_UM, rel=0.1)


@pytest.mark.parametrize("burgers_um", [B_UM, -B_UM])
def test_loops_around_the_streak_give_the_whole_burgers_vector_with_its_sign(burgers_um):
    layer, view, line = seen(0.6, burgers_um)
    loops = burgers_loops(layer, (0.0, 0.0), streak_um=view.streak_um(line))
    assert np.isfinite(loops.burgers_um).all() and loops.burgers_um.size == 26
    np.testing.assert_allclose(loops.burgers_um, burgers_um, rtol=0.03)
    assert loops.mean_um == pytest.approx(burgers_um, rel=0.01)


def test_a_streak_reaches_forwards_and_fits_the_map():
    layer, _, _ = seen(0.6)
    with pytest.raises(ParameterError, match="0 um or more"):
        burgers_loops(layer, (0.0, 0.0), streak_um=(-1.0, 0.0))
    with pytest.raises(ParameterError, match="stays on pixels"):
        burgers_loops(layer, (0.0, 0.0), streak_um=(7.0, 0.0))
