"""Dislocation densities from files of maps, through the command line, and back."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from recording import OFFSET, Recording, camera, mesh, peaks

from dfxrm_control.cli._nye import nye
from dfxrm_control.errors import FileFormatError
from dfxrm_control.geometry import goniometer_rotation, imaging_basis
from dfxrm_control.reduction import (
    ComponentMap,
    burgers_loops,
    distortion_layer,
    maps_from_file,
    nye_maps,
    read_distortion_layer,
    write_maps,
)

SHAPE = (28, 44)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Return the maps of a scan of chi and phi of a flat crystal."""
    points = mesh(np.linspace(-0.3, 0.3, 7), np.linspace(-0.04, 0.04, 7))
    frames = camera(peaks(points, np.zeros((2, *SHAPE)), [0.08, 0.012], 800.0), np.random.default_rng(0))
    recording = Recording(tmp_path_factory.mktemp("flat"), frames, points, (7, 7))
    return maps_from_file(recording.write(), dark=OFFSET)


def with_field(maps, height_um, twist, source):
    """Return maps of a twist (rad/um) about the normal of the reflecting planes: alpha_33 = -twist ... by screws."""
    rotation = goniometer_rotation(mu=8.97)
    direction = rotation.T @ imaging_basis(17.946)[2]
    affine = maps.affine.copy()
    affine[:, 2] = rotation.T @ (0.0, 0.0, height_um)
    x, y = np.meshgrid(maps.x, maps.y, indexing="ij")
    layer = replace(distortion_layer(maps), reference_g=0.42 * direction, affine=affine)
    points = np.stack([x, y, np.ones_like(x)], axis=-1) @ affine.T @ layer.frame.T
    # beta_31 = -twist x_2 / 2, beta_32 = twist x_1 / 2: alpha_33 = twist
    fields = {"H_13": twist * points[..., 1] / 2.0, "H_23": -twist * points[..., 0] / 2.0, "H_33": 0.0 * x}
    noise = np.full(x.shape, 1e-7)
    components = {name: ComponentMap(name, name, "", values, noise, noise) for name, values in fields.items()}
    return replace(maps, affine=affine, components=components, reference_g=0.42 * direction, source=source)


def test_the_layer_of_a_scan_knows_where_it_lies_and_what_it_is_counted_from(maps):
    layer = distortion_layer(maps)
    # mu = 8.97 deg brings the planes normal to z into Bragg: Q lies along the sample's z
    assert np.allclose(layer.frame, np.eye(3), atol=1e-3)
    assert np.linalg.norm(layer.reference_g) == pytest.approx(0.4277, rel=1e-3)
    assert np.allclose(layer.directions[2], goniometer_rotation(mu=8.97).T @ (0.0, 0.0, 1.0), atol=1e-3)


def test_a_twisted_stack_read_from_files_gives_its_density(maps, tmp_path):
    twist = 2e-4
    paths = []
    for n, height in enumerate((0.0, 0.5, 1.0)):
        paths.append(tmp_path / f"layer{n}_maps.h5")
        write_maps(with_field(maps, height, twist, f"scan{n}"), paths[-1])
    result = CliRunner().invoke(nye, [*map(str, paths), "--burgers", "2.86", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    with h5py.File(tmp_path / "out" / "layer0_nye.h5") as file:
        entry = file["entry"]
        found = entry["alpha_33/data"][()]
        assert found.shape == (2, *SHAPE)
        assert np.allclose(found, twist, rtol=1e-3)
        assert entry["alpha_33/data"].attrs["units"] == "1/um"
        assert np.allclose(entry["alpha_31/data"], 0.0, atol=1e-7)
        assert np.allclose(entry["gnd_density/data"], twist / 2.86e-4, rtol=1e-2)
        assert entry["alpha_33/sources"].asstr()[0] == "scan0\nscan1"
        assert np.allclose(np.diff(entry["alpha_33/z"][()]), 0.5)
    assert (tmp_path / "out" / "layer0_nye.png").stat().st_size > 10_000


def test_maps_and_their_file_say_the_same(maps, tmp_path):
    made = with_field(maps, 0.0, 1e-4, "scan")
    write_maps(made, tmp_path / "a_maps.h5")
    one = nye_maps([distortion_layer(made)]).maps["n_curl_beta_3"]
    other = nye_maps([read_distortion_layer(tmp_path / "a_maps.h5")]).maps["n_curl_beta_3"]
    assert np.allclose(one.values, other.values, rtol=1e-3)
    # a uniform density is that times the area, in any loop
    loops = burgers_loops(read_distortion_layer(tmp_path / "a_maps.h5"), (0.0, 0.0), [0.3, 0.6])
    tilt = np.cos(np.radians(8.97))
    assert np.allclose(loops.burgers_um, 1e-4 * tilt * np.array([0.6, 1.2]) ** 2, rtol=2e-3)


def test_saturated_pixels_are_left_out_and_it_is_said_once(maps, tmp_path):
    full = np.zeros(SHAPE, bool)
    full[10:14, 20:25] = True
    made = replace(with_field(maps, 0.0, 1e-4, "scan"), saturated=full)
    write_maps(made, tmp_path / "a_maps.h5")
    for layer in (distortion_layer(made), read_distortion_layer(tmp_path / "a_maps.h5")):
        for part in (1, 2, 3):
            np.testing.assert_array_equal(np.isnan(layer.distortion[part]), full)
        assert [note for note in nye_maps([layer]).notes if "saturated" in note] == [
            "20 saturated pixels were left out"
        ]
    assert not any("saturated" in note for note in nye_maps([distortion_layer(maps)]).notes)


def test_a_file_that_tells_nothing_of_the_distortion_is_refused(maps, tmp_path):
    write_maps(replace(maps, components={}), tmp_path / "a_maps.h5")
    with pytest.raises(FileFormatError, match="H_13, H_23 or H_33"):
        read_distortion_layer(tmp_path / "a_maps.h5")
    with pytest.raises(FileFormatError, match="does not exist"):
        read_distortion_layer(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_distortion_layer(tmp_path / "text.h5")
