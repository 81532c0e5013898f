"""Dislocation density and loop integrals against analytic fields of single and of many dislocations."""

from dataclasses import replace

import numpy as np
import pytest

from dfxrm_control.dislocations import Dislocation
from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import goniometer_rotation, imaging_basis, lab_to_sample
from dfxrm_control.reduction import DistortionLayer, burgers_loops, nye_maps

TWO_THETA = 13.357
B = 3.135e-4
SETTINGS = [(0.0, 0.0, 0.0), (37.0, 1.3, -0.8), (90.0, -2.0, 1.7)]


def a_layer(
    field,
    *,
    setting=(0.0, 0.0, 0.0),
    height_um=0.0,
    half_um=(4.0, 4.0),
    steps_um=(0.12, 0.05),
    noise=0.0,
    known=(1, 2, 3),
    seed=1,
    source="scan",
    reference=(0.0, 0.0, 0.0),
):
    """Return a layer through a field of distortions given in the sample's frame.

    ``reference`` moves the vector that the distortion is counted from, in units of its length.
    """
    omega, chi, phi = setting
    rotation = goniometer_rotation(mu=TWO_THETA / 2.0, omega=omega, chi=chi, phi=phi)
    # the stage carries the sample: lowering it by h shows what lies h higher
    origin, along_x, along_y = lab_to_sample(np.eye(4, 3, -1)[:3], rotation, (0.0, 0.0, -height_um))
    affine = np.stack([along_x - origin, along_y - origin, origin], axis=1)
    x, y = (np.arange(-h, h + s / 2, s) for h, s in zip(half_um, steps_um, strict=True))
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    points = np.concatenate([grid, np.ones((*grid.shape[:2], 1))], axis=-1) @ affine.T
    direction = rotation.T @ imaging_basis(TWO_THETA)[2]
    length = 0.3189
    g = length * direction
    bare = DistortionLayer(source, "si", x, y, affine, g, {}, {})
    beta = field(points)
    frame = bare.frame
    # dG/|G| = -beta^T e3; its components along e_i are H_i3
    change = -np.einsum("...ji,j->...i", beta, direction)
    rng = np.random.default_rng(seed)
    counted = g + length * np.asarray(reference)
    moved = replace(bare, reference_g=counted)
    change = change - np.asarray(reference)
    h = {part: change @ frame[part - 1] + noise * rng.standard_normal(grid.shape[:2]) for part in known}
    return replace(moved, distortion=h, error={part: np.full(grid.shape[:2], noise) for part in known})


def screw(direction, point=(0.03, 0.011, 0.0), b=B):
    return Dislocation(np.array(point), direction, b * np.asarray(direction) / np.linalg.norm(direction))


def normal_of(setting):
    omega, chi, phi = setting
    return goniometer_rotation(mu=TWO_THETA / 2.0, omega=omega, chi=chi, phi=phi).T @ (0.0, 0.0, 1.0)


def q_hat_of(setting):
    omega, chi, phi = setting
    return goniometer_rotation(mu=TWO_THETA / 2.0, omega=omega, chi=chi, phi=phi).T @ imaging_basis(TWO_THETA)[2]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    ("line", "burgers"),
    [
        ((0.1, 0.2, 1.0), (0.1, 0.2, 1.0)),  # screw
        ((0.0, 1.0, 1.0), (1.0, 0.3, 0.4)),  # mixed, inclined: needs the strain's part
        ((-0.4, 0.3, -1.0), (0.2, 0.1, 1.0)),  # against the normal
    ],
)
def test_loops_give_the_burgers_vector_along_q_with_its_sign(setting, line, burgers):
    b = 3.84e-4 * np.asarray(burgers) / np.linalg.norm(burgers)
    dislocation = Dislocation(np.array([0.03, 0.011, 0.0]), line, b)
    layer = a_layer(dislocation.distortion, setting=setting)
    found = burgers_loops(layer, (0.0, 0.0))
    expected = b @ q_hat_of(setting) * np.sign(np.asarray(line) @ normal_of(setting))
    assert found.half_sizes_um.size >= 20
    assert found.mean_um == pytest.approx(expected, abs=0.003 * np.linalg.norm(b))
    assert found.spread_um < 0.01 * np.linalg.norm(b)


def test_loops_give_nothing_where_b_is_perpendicular_to_q():
    q_hat = q_hat_of(SETTINGS[0])
    b = 3.84e-4 * np.cross(q_hat, (0.3, 1.0, 0.2)) / np.linalg.norm(np.cross(q_hat, (0.3, 1.0, 0.2)))
    edge = Dislocation(np.zeros(3), (0.3, 0.1, 1.0), b)
    layer = a_layer(edge.distortion)
    assert max(np.abs(one).max() for one in layer.distortion.values()) > 1e-5
    assert abs(burgers_loops(layer, (0.0, 0.0)).mean_um) < 0.003 * 3.84e-4


def test_leaving_out_the_strain_costs_an_inclined_line_per_cents_and_is_said():
    line = Dislocation(np.zeros(3), (0.83, 0.48, 0.29), B * np.array([-0.13, 0.59, 0.8]))
    whole = burgers_loops(a_layer(line.distortion), (0.01, 0.01))
    lacking = burgers_loops(a_layer(line.distortion, known=(1, 2)), (0.01, 0.01))
    assert whole.with_strain and not lacking.with_strain
    assert 0.02 < abs(lacking.mean_um / whole.mean_um - 1.0) < 0.06
    assert whole.mean_um == pytest.approx(line.burgers_along_um(q_hat_of(SETTINGS[0])), rel=0.005)


def test_predicted_errors_of_loops_hold():
    line = screw((0.0, 0.0, 1.0))
    exact = burgers_loops(a_layer(line.distortion), (0.0, 0.0))
    runs = [burgers_loops(a_layer(line.distortion, noise=1.75e-5, seed=seed), (0.0, 0.0)) for seed in range(60)]
    means = np.array([run.mean_um for run in runs])
    assert means.std() == pytest.approx(runs[0].mean_error_um, rel=0.3)
    assert means.mean() == pytest.approx(exact.mean_um, abs=4 * runs[0].mean_error_um / np.sqrt(60))
    single = np.array([run.burgers_um[5] for run in runs])
    assert single.std() == pytest.approx(runs[0].error_um[5], rel=0.3)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_layer_gives_the_density_that_pierces_it(setting):
    line = screw((0.2, -0.1, 1.0))
    layer = a_layer(line.distortion, setting=setting, half_um=(1.2, 1.2), steps_um=(0.05, 0.05))
    found = nye_maps([layer], burgers_um=B)
    assert set(found.maps) == {"n_curl_beta_3", "gnd_density"}
    assert any("one layer" in note for note in found.notes)
    density = found.maps["n_curl_beta_3"]
    assert density.units == "1/um" and density.sources == (("scan",),)
    # by Stokes the density adds up to b . q-hat, and all of it is at the core
    inside = np.s_[0, 2:-2, 2:-2]
    total = density.values[inside].sum() * 0.05**2
    assert total == pytest.approx(line.burgers_along_um(q_hat_of(setting)), rel=0.02)
    x, y = np.meshgrid(found.x, found.y, indexing="ij")
    away = np.hypot(x, y)[2:-2, 2:-2] > 0.4
    assert np.abs(density.values[inside][away]).max() < 0.02 * np.abs(density.values[inside]).max()


def bent(curvature):
    """Return the field beta_ij = sum_k curvature_ijk x_k."""
    return lambda points: np.einsum("ijk,...k->...ij", curvature, points)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_stack_gives_the_third_row_of_nyes_tensor(setting):
    # a field linear in the position has one alpha everywhere, and differences are exact
    curvature = np.random.default_rng(3).normal(0.0, 1e-4, (3, 3, 3))
    layers = [
        a_layer(
            bent(curvature),
            setting=setting,
            height_um=z,
            half_um=(2.0, 1.0),
            source=f"scan {n}",
            reference=np.random.default_rng(n).normal(0.0, 3e-5, 3),
        )
        for n, z in enumerate((1.0, 0.0, 2.0))
    ]
    found = nye_maps(layers, burgers_um=B)
    frame = found.frame
    gradient = np.einsum("al,bm,cn,lmn->abc", frame, frame, frame, curvature)
    # alpha_ij = e_jkl d_k beta_il
    e = np.zeros((3, 3, 3))
    e[0, 1, 2] = e[1, 2, 0] = e[2, 0, 1] = 1.0
    e[0, 2, 1] = e[2, 1, 0] = e[1, 0, 2] = -1.0
    alpha = np.einsum("jkl,ilk->ij", e, gradient)
    for column in (1, 2, 3):
        one = found.maps[f"alpha_3{column}"]
        assert one.values.shape[0] == 2 and one.sources == (("scan 1", "scan 0"), ("scan 0", "scan 2"))
        # references differ by 3e-5 rad, which turns the frames: the rest is of that order
        assert np.allclose(one.values, alpha[2, column - 1], rtol=1e-3, atol=2e-8)
    size = np.linalg.norm(alpha[2]) / B
    assert np.allclose(found.maps["gnd_density"].values, size, rtol=1e-3)
    normal = found.frame @ layers[0].directions[2]
    assert np.allclose(found.maps["n_curl_beta_3"].values, alpha[2] @ normal, rtol=1e-3, atol=2e-8)


def test_the_layers_of_a_dislocation_give_its_direction():
    # alpha_3j = b.q-hat delta(line) t_j: the ratios of the integrals are the direction of the line
    direction = np.array([0.25, -0.15, 1.0]) / np.linalg.norm([0.25, -0.15, 1.0])
    line = Dislocation(np.zeros(3), direction, np.array([1.0e-4, 0.5e-4, 3.0e-4]), core_um=0.15)
    layers = [a_layer(line.distortion, height_um=z, half_um=(1.0, 1.0), steps_um=(0.05, 0.05)) for z in (-0.05, 0.05)]
    found = nye_maps(layers)
    along = found.frame @ direction
    integral = np.array([found.maps[f"alpha_3{j}"].values[0, 3:-3, 3:-3].sum() for j in (1, 2, 3)]) * 0.05**2
    expected = line.burgers_along_um(q_hat_of((0, 0, 0))) * along / (direction @ normal_of((0, 0, 0)))
    assert np.allclose(integral, expected, atol=0.03 * abs(expected[2]))
    assert abs(expected[0]) > 0.1 * abs(expected[2]) and abs(expected[1]) > 0.1 * abs(expected[2])


def test_predicted_errors_of_the_density_hold():
    layers = [
        a_layer(lambda p: np.zeros((*p.shape, 3)), height_um=z, half_um=(2.4, 1.0), noise=2e-5, seed=n)
        for n, z in enumerate((0.0, 0.5))
    ]
    found = nye_maps(layers, span_um=0.3)
    assert found.span_um == pytest.approx((0.24, 0.3))
    for one in found.maps.values():
        ratio = one.values[0, 3:-3, 3:-3] / one.error[0, 3:-3, 3:-3]
        assert ratio.std() == pytest.approx(1.0, rel=0.1)


def test_components_that_are_not_known_are_absent():
    zero = lambda p: np.zeros((*p.shape, 3))  # noqa: E731
    stack = [a_layer(zero, height_um=z, known=(1, 2), half_um=(1.0, 1.0)) for z in (0.0, 1.0)]
    found = nye_maps(stack)
    assert set(found.maps) == {"n_curl_beta_3_without_strain", "alpha_33"}
    assert any("alpha_31" in note and "H_33" in note for note in found.notes)
    # the strain from a scan of its own at the same height fills in
    more = [a_layer(zero, height_um=z, known=(3,), half_um=(1.0, 1.0), source="strain") for z in (0.0, 1.0)]
    found = nye_maps([*stack, *more])
    assert set(found.maps) == {"n_curl_beta_3", "alpha_31", "alpha_32", "alpha_33"}
    assert found.maps["n_curl_beta_3"].sources[0] == ("scan", "strain")
    with pytest.raises(ParameterError, match="H_13 and H_23"):
        nye_maps([a_layer(zero, known=(1,), half_um=(1.0, 1.0))])


def test_layers_that_do_not_fit_are_refused_in_one_sentence():
    def zero(p):
        return np.zeros((*p.shape, 3))

    small = {"half_um": (1.0, 1.0)}
    one = a_layer(zero, **small)
    with pytest.raises(ParameterError, match="equal steps"):
        nye_maps([a_layer(zero, height_um=z, **small) for z in (0.0, 1.0, 2.5)])
    with pytest.raises(ParameterError, match="of sample 'si' and scan of 'al'"):
        nye_maps([one, replace(a_layer(zero, height_um=1.0, **small), sample="al")])
    with pytest.raises(ParameterError, match="one grid"):
        nye_maps([one, a_layer(zero, height_um=1.0, steps_um=(0.13, 0.05), **small)])
    with pytest.raises(ParameterError, match="turned"):
        nye_maps([one, a_layer(zero, height_um=1.0, setting=(20.0, 0.0, 0.0), **small)])
    with pytest.raises(ParameterError, match="stays on pixels"):
        burgers_loops(one, (0.9, 0.0))


def test_a_pixel_without_a_value_drops_the_loops_that_meet_it_and_no_others():
    layer = a_layer(screw((0.0, 0.0, 1.0)).distortion)
    for values in layer.distortion.values():
        values[np.argmin(abs(layer.x - 1.5)), np.argmin(abs(layer.y))] = np.nan
    found = burgers_loops(layer, (0.0, 0.0), np.linspace(0.5, 3.0, 26))
    lost = np.isnan(found.burgers_um)
    assert 0 < lost.sum() < 5 and np.all(abs(found.half_sizes_um[lost] - 1.5) < 0.2)
    assert found.mean_um == pytest.approx(B * np.cos(np.radians(TWO_THETA / 2)), rel=0.01)
