"""Stacking maps over time: drift, grids that change with temperature, what is missing, and the expansion."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dfxrm_control.errors import ParameterError
from dfxrm_control.reduction._components import ComponentMap
from dfxrm_control.reduction._maps import AxisMaps, MapSet
from dfxrm_control.reduction._time import expansion_of, measure_drift, stack_in_time

SHAPE = (120, 90)
STEP = (0.12, 0.04)


def pattern(shift_um=(0.0, 0.0), seed=0):
    """Return a field of smooth tilts, displaced, deg."""
    random = np.random.default_rng(seed)
    waves = random.normal(size=(40, 2)) * [1.0, 4.0]
    phases, heights = random.uniform(0, 2 * np.pi, 40), random.normal(size=40)
    x, y = axes()
    xx, yy = np.meshgrid(x - shift_um[0], y - shift_um[1], indexing="ij")
    field = sum(h * np.cos(a * xx + b * yy + p) for (a, b), p, h in zip(waves, phases, heights, strict=True))
    return 0.01 * field


def axes(scale=1.0):
    return tuple(scale * step * (np.arange(n) - (n - 1) / 2) for n, step in zip(SHAPE, STEP, strict=True))


def map_set(com, *, x=None, y=None, valid=None, name="phi", sample="al", noise=0.0, seed=1):
    """Return maps of one axis."""
    com = com + noise * np.random.default_rng(seed).normal(size=com.shape)
    blank = {field.name: np.zeros(com.shape) for field in dataclasses.fields(AxisMaps)}
    axis = AxisMaps(**{**blank, "name": name, "units": "deg", "com": com, "error": np.full(com.shape, 1e-3)})
    empty = {field.name: None for field in dataclasses.fields(MapSet)}
    here = axes()
    return MapSet(
        **{
            **empty,
            "axes": (axis,),
            "integrated": np.full(com.shape, 1000.0),
            "kam": np.full(com.shape, 1e-3),
            "valid": np.ones(com.shape, bool) if valid is None else valid,
            "saturated": np.zeros(com.shape, bool),
            "x": here[0] if x is None else x,
            "y": here[1] if y is None else y,
            "length_units": "um",
            "sample": sample,
            "source": f"{name}.h5",
            "components": {},
        }
    )


def test_a_drift_is_measured_to_a_fraction_of_a_pixel_and_taken_off():
    true = [(0.0, 0.0), (0.3, -0.2), (0.55, -0.31)]
    maps = [map_set(pattern(shift), noise=2e-3, seed=k) for k, shift in enumerate(true)]
    drift = measure_drift(maps)
    for found, (x, y) in zip(drift, true, strict=True):
        # a quarter of a pixel
        assert found.x_um == pytest.approx(x, abs=0.03) and found.y_um == pytest.approx(y, abs=0.01)
    assert drift[0].error_um == 0.0 and 0 < drift[1].error_um < drift[2].error_um < 0.2
    assert {each.seen_in for each in drift[1:]} == {"phi"}
    stack = stack_in_time(maps, [0.0, 60.0, 120.0], [25.0, None, 30.0])
    left = stack.fields["phi_com"] - pattern()
    inside = np.isfinite(left).all(axis=0)
    assert inside.mean() > 0.7
    assert np.sqrt(np.mean(left[:, inside] ** 2)) < 4e-3
    # uncorrected, they would be apart by much more
    assert np.sqrt(np.mean((maps[2].axes[0].com - pattern()) ** 2)) > 10e-3
    assert math.isnan(stack.temperature[1]) and stack.temperature[2] == 30.0


def test_components_of_all_scans_are_counted_from_the_first():
    """Each scan is uniform about its own median; between them the crystal expanded and turned."""
    flat = ComponentMap("strain", "strain along Q, relative to the median", "", *np.zeros((3, *SHAPE)))
    cold = dataclasses.replace(
        map_set(pattern()),
        components={"strain": flat, "tilt_rock": dataclasses.replace(flat, name="tilt_rock", units="deg")},
        affine=np.eye(3),
        reference_g=0.428 * np.array([0.0, 0.0, 1.0]),
    )
    # 300 K more of aluminium: longer planes, a shorter diffraction vector; turned by 1e-3 about +y
    hot = dataclasses.replace(cold, reference_g=0.428 * np.array([1e-3, 0.0, 1.0]) / (1.0 + 7.5e-3))
    movie = stack_in_time([cold, hot], [0.0, 600.0], [25.0, 325.0])
    inside = movie.fields["valid"].all(axis=0)
    assert (movie.fields["strain"][0][inside] == 0.0).all()
    assert movie.fields["strain"][1][inside] == pytest.approx(7.5e-3, abs=1e-6)
    assert movie.fields["tilt_rock"][1][inside] == pytest.approx(math.degrees(1e-3), rel=1e-2)
    assert movie.labels["strain"] == "strain along Q, relative to the median of the first scan"


def test_maps_whose_scale_changed_with_two_theta_come_onto_the_grid_of_the_first():
    x, y = axes(1.0075)
    away = np.meshgrid(x, y, indexing="ij")
    near = np.meshgrid(*axes(), indexing="ij")
    slope = np.array([0.01, -0.02])
    maps = [
        map_set(slope[0] * near[0] + slope[1] * near[1]),
        map_set(slope[0] * away[0] + slope[1] * away[1], x=x, y=y),
    ]
    stack = stack_in_time(maps, [0.0, 60.0], [25.0, 325.0])
    if stack.drift[1].seen_in:
        assert np.hypot(stack.drift[1].x_um, stack.drift[1].y_um) < 0.02
    middle = stack.fields["phi_com"][:, 5:-5, 5:-5]
    assert middle[1] == pytest.approx(middle[0], abs=5e-4)


def test_where_a_map_does_not_reach_there_is_no_value():
    valid = np.ones(SHAPE, bool)
    valid[45:55, 30:50] = False
    maps = [map_set(pattern()), map_set(np.where(valid, pattern((0.6, 0.0)), np.nan), valid=valid)]
    stack = stack_in_time(maps, [0.0, 60.0], [25.0, 25.0])
    assert stack.drift[1].x_um == pytest.approx(0.6, abs=0.06)
    assert np.array_equal(np.isfinite(stack.fields["phi_com"][0]), stack.fields["valid"][0])
    lost = ~stack.fields["valid"][1]
    # five pixels before the hole, and the last five rows
    assert lost[42:48, 32:48].all() and lost[-4:].all() and not lost[5:38, 1:-1].any()
    assert np.isnan(stack.fields["phi_com"][1][lost]).all()


def test_a_drift_that_cannot_be_seen_is_none_and_said_so():
    flat = np.zeros(SHAPE)
    drift = measure_drift([map_set(flat), map_set(flat)])
    assert (drift[1].x_um, drift[1].y_um, drift[1].seen_in) == (0.0, 0.0, "") and math.isnan(drift[1].error_um)
    other = [map_set(gaussian_filter(np.random.default_rng(k).normal(size=SHAPE), 2)) for k in range(2)]
    assert measure_drift(other)[1].seen_in == ""


def test_maps_of_different_kinds_are_refused():
    with pytest.raises(ParameterError, match="must be of one sample and the same axes: phi.h5 scans phi of 'al'"):
        stack_in_time([map_set(pattern()), map_set(pattern(), name="mu")], [0.0, 1.0], [None, None])
    with pytest.raises(ParameterError, match="of 'si'; the maps of each scan are kept"):
        stack_in_time([map_set(pattern()), map_set(pattern(), sample="si")], [0.0, 1.0], [None, None])


def test_the_expansion_is_the_slope_of_the_strain():
    temperatures = [25.0, 125.0, 325.0, 25.0]
    peaks = [{"temperature": t, "strain": 24e-6 * (t - 25.0)} for t in temperatures]
    slope, error = expansion_of(peaks)
    assert slope == pytest.approx(24e-6, rel=1e-9) and error < 1e-12
    noisy = [{**peak, "strain": peak["strain"] + d} for peak, d in zip(peaks, (1e-5, -1e-5, 1e-5, -1e-5), strict=True)]
    slope, error = expansion_of(noisy)
    assert abs(slope - 24e-6) < 3 * error and error > 1e-8
    assert expansion_of(peaks[:1]) is None and expansion_of([peaks[0], peaks[3]]) is None
    assert math.isnan(expansion_of(peaks[:2])[1])
    assert expansion_of([{"temperature": None, "strain": 0.0}] * 3) is None
