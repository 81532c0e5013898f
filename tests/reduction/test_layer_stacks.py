"""Layers that make a stack, and those that do not."""

from types import SimpleNamespace

import numpy as np
import pytest

from dfxrm_control.errors import FileFormatError, ParameterError
from dfxrm_control.geometry import goniometer_rotation
from dfxrm_control.reduction.layers import Layer, read_volume, stack_layers, write_volume

TURNED = goniometer_rotation(9.0, 37.0, 1.0, -2.0)
COMPONENTS = ("strain", "tilt_rock", "tilt_roll", "H_13", "H_23", "H_33")
X, Y = np.linspace(-3.0, 3.0, 7), np.linspace(-2.0, 2.0, 9)


def layer(height_um, *, sample="al", x=X, axis="phi", rotation=TURNED, sideways_um=0.0, value=None):
    """Return a layer whose field is a function of the place on the sample: 2 x - 3 y + 5 z."""
    origin = rotation.T @ np.array([sideways_um, 0.0, height_um])
    affine = np.column_stack([rotation.T[:, 0], rotation.T[:, 1], origin])
    on_layer = np.stack([*np.meshgrid(x, Y, indexing="ij"), np.ones((len(x), len(Y)))], axis=-1)
    points = on_layer @ affine.T
    com = points @ np.array([2.0, -3.0, 5.0]) if value is None else np.full(points.shape[:2], value)
    ones = np.ones_like(com)
    axes = (SimpleNamespace(name=axis, units="deg", com=com, error=0.1 * ones, fwhm=ones),)
    strain = SimpleNamespace(values=1e-4 * com, error=1e-6 * ones, units="")
    maps = SimpleNamespace(
        axes=axes, sample=sample, source=f"layer at {height_um:g}", length_units="um", x=x, y=Y, integrated=ones,
        photons=ones, kam=ones, valid=ones > 0, saturated=ones > 1, components={"strain": strain}, reference_g=None,
        affine=affine,
    )  # fmt: skip
    return Layer(maps, affine)


def test_a_stack_lies_in_the_frame_of_the_sample_whatever_the_order():
    volume = stack_layers([layer(2.0), layer(-2.0), layer(0.0)])
    assert volume.shape == (7, 9, 3) and volume.z == pytest.approx([-2.0, 0.0, 2.0])
    assert volume.affine[:, :3] == pytest.approx(TURNED.T)
    assert volume.fields["phi_com"] == pytest.approx(volume.points() @ np.array([2.0, -3.0, 5.0]))
    assert volume.to_sample(1.0, 0.0, 2.0) == pytest.approx(TURNED.T @ [1.0, 0.0, 2.0])
    assert volume.units["phi_com"] == "deg" and volume.missing == ()


def test_a_gradient_is_along_the_axes_of_the_sample():
    volume = stack_layers([layer(height) for height in (-1.0, 0.0, 1.0)])
    assert volume.gradient("phi_com").reshape(-1, 3) == pytest.approx(np.tile([2.0, -3.0, 5.0], (7 * 9 * 3, 1)))
    assert volume.gradient("strain")[3, 4, 1] == pytest.approx([2e-4, -3e-4, 5e-4])


def test_components_are_counted_from_one_reference():
    """Layers that are each uniform, and so each nothing but its own reference: what differs is between them."""
    low, high = layer(0.0, value=0.0), layer(1.0, value=0.0)
    par, roll = TURNED.T @ [-np.sin(0.157), 0.0, np.cos(0.157)], TURNED.T[:, 1]
    rock = np.cross(roll, par)
    zero = {name: SimpleNamespace(values=np.zeros((7, 9)), error=np.ones((7, 9)), units="") for name in COMPONENTS}
    # turned by 1e-3 about the roll's axis and by 2e-3 about the rock's, and 3e-4 longer planes
    turned = 0.428 * (par + 1e-3 * rock - 2e-3 * roll) / (1.0 + 3e-4)
    for each, reference in ((low, 0.428 * par), (high, turned)):
        each.maps.components, each.maps.reference_g = zero, reference
    fields = stack_layers([high, low]).fields
    e1 = np.array([1.0, 0.0, 0.0]) - par[0] * par
    e1 /= np.linalg.norm(e1)
    change = turned / 0.428 - par
    expected = {
        "strain": 3e-4,
        "tilt_rock": np.degrees(1e-3),
        "tilt_roll": np.degrees(2e-3),
        "H_13": e1 @ change,
        "H_23": np.cross(par, e1) @ change,
        "H_33": -3e-4,
    }
    for name, value in expected.items():
        assert fields[name][3, 4, 0] == 0.0
        assert fields[name][3, 4, 1] == pytest.approx(value, rel=1e-2), name


def test_layers_displaced_along_themselves_make_an_inclined_stack():
    # the sample was moved along its own z: the layers are displaced by as much at each step
    volume = stack_layers([layer(height, sideways_um=-0.16 * height) for height in (0.0, 1.0, 2.0)])
    assert volume.fields["phi_com"] == pytest.approx(volume.points() @ np.array([2.0, -3.0, 5.0]))
    assert volume.gradient("phi_com")[2, 3, 1] == pytest.approx([2.0, -3.0, 5.0])
    assert volume.affine[:, 2] @ TURNED.T[:, 2] == pytest.approx(1.0)


def test_a_missing_layer_is_empty():
    volume = stack_layers([layer(0.0), layer(1.0), layer(3.0)])
    assert volume.missing == (2,) and volume.shape[2] == 4
    assert np.isnan(volume.fields["phi_com"][:, :, 2]).all() and not volume.fields["valid"][:, :, 2].any()
    assert volume.fields["valid"][:, :, [0, 1, 3]].all()


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([layer(0.0)], "at least two layers; there is 1"),
        ([layer(0.0), layer(0.0), layer(1.0)], "two layers lie at the same height, that of layer at 0"),
        ([layer(0.0), layer(1.0), layer(2.4)], "not equally spaced: their steps are 1, 1.4 um; .* layer are kept"),
        ([layer(0.0), layer(1.0, sample="cu")], "different samples: layer at 0 is of 'al', layer at 1 of 'cu'"),
        ([layer(0.0), layer(1.0, axis="mu")], "along different axes: layer at 0 along phi, layer at 1 along mu"),
        ([layer(0.0), layer(1.0, x=X + 0.5)], "do not lie on one grid: the x of layer at 1"),
        ([layer(0.0), layer(1.0, x=X[:-1])], "do not lie on one grid"),
        ([layer(0.0), layer(1.0, rotation=goniometer_rotation(9.5, 37.0, 1.0, -2.0))], "not parallel .* was turned"),
        ([layer(0.0), layer(1.0, sideways_um=0.3), layer(2.0)], "displaced against each other by unequal steps"),
    ],
)
def test_what_makes_no_stack_is_said_in_one_sentence(layers, sentence):
    with pytest.raises(ParameterError, match=sentence):
        stack_layers(layers)


def test_a_volume_comes_back_from_its_file(tmp_path):
    volume = stack_layers([layer(0.0), layer(1.0), layer(3.0)])
    description, file = write_volume(volume, tmp_path / "stack.h5")
    again = read_volume(file)
    assert again.sample == "al" and again.sources == volume.sources and again.units == volume.units
    for name, values in volume.fields.items():
        assert again.fields[name].shape == values.shape and again.fields[name].dtype == values.dtype
        assert again.fields[name] == pytest.approx(values, rel=1e-6, nan_ok=True)
    assert again.affine == pytest.approx(volume.affine) and again.z == pytest.approx(volume.z)
    assert description.name == "stack.xdmf"
    with pytest.raises(FileFormatError, match="is no volume of layers"):
        read_volume(description)
