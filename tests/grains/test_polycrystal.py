"""A polycrystal on the twin: only the grain whose reflection is met shows, with its own shape, where it is mounted."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from grain_maps import polycrystal
from scipy.spatial.transform import Rotation

from dfxrm_control.config import find_config, override
from dfxrm_control.errors import ConfigError
from dfxrm_control.grains import GrainMap, write_imaged11, write_labdct
from dfxrm_control.handoff import Registration, choose
from simulators import Twin

ROTATION_DEG, SHIFT_UM = (0.3, -0.25, 0.3), (12.0, -8.0, 9.0)
MOUNTED = Registration(ROTATION_DEG, tuple(value * 1e-3 for value in SHIFT_UM))


@pytest.fixture
def sample(tmp_path):
    """Grains 1 deg apart about 002, in a file, and the configuration of a twin that holds them."""
    grains = polycrystal()
    turns = Rotation.from_rotvec(np.radians(np.random.default_rng(1).normal(0.0, 1.5, (len(grains), 3))))
    grains = GrainMap(**{**vars(grains), "ub": turns.as_matrix() @ grains.phases[0].B})
    path = tmp_path / "map.h5"
    with h5py.File(path, "w") as file:
        write_labdct(grains, file)
    options = f"{{map: {path}, rotation_deg: {list(ROTATION_DEG)}, shift_um: {list(SHIFT_UM)}}}"
    config = override(
        find_config("simulated"),
        ["backend.options.sample=polycrystal", f"backend.options.sample_options={options}"],
    )
    return grains, config


def _go(twin: Twin, setting: dict[str, float]) -> None:
    for axis, position in setting.items():
        if axis != "two_theta":
            twin.start_move(axis, position, 1e9, 0.0)
    twin.put("shutter", "open")
    twin.wait_until(twin.now() + 1.0)


def test_a_grain_appears_where_it_is_predicted_with_its_cross_section(sample):
    grains, config = sample
    twin = Twin(config, **config.backend.options)
    choices = choose(grains, config, hkl=(0, 0, 2), registration=MOUNTED)
    seen = 0
    for row in np.flatnonzero(choices.reachable):
        _go(twin, choices.setting(int(row)))
        photons = twin.photons("far_field", 1.0)
        view = twin.view("far_field")
        bright = photons > 0.5 * photons.max()
        assert photons.max() > 50
        rows, columns = np.nonzero(bright)
        area = bright.sum() * view.pixel_x_um * view.pixel_y_um
        box = grains.size_mm[grains.row(int(choices.grain_id[row]))] * 1e3
        # the layer cuts the box of the grain, at the angle mu to its base
        assert area == pytest.approx(box[0] * box[1], rel=0.25)
        assert abs((rows.min() + rows.max()) / 2 - 255.5) * view.pixel_x_um < 2.6  # half a voxel
        assert abs((columns.min() + columns.max()) / 2 - 255.5) * view.pixel_y_um < 2.1
        seen += 1
    assert seen >= 3


def test_without_the_registration_the_screen_is_dark(sample):
    grains, config = sample
    twin = Twin(config, **config.backend.options)
    choices = choose(grains, config, hkl=(0, 0, 2))
    row = int(np.flatnonzero(choices.reachable)[0])
    _go(twin, choices.setting(row))
    assert twin.photons("far_field", 1.0).max() < 1.0


def test_a_grain_needs_its_own_angles(sample):
    """At the setting of one grain its neighbours, a degree away, stay dark even with the box beam."""
    grains, config = sample
    twin = Twin(config, **config.backend.options)
    choices = choose(grains, config, hkl=(0, 0, 2), registration=MOUNTED)
    row = int(np.flatnonzero(choices.reachable)[0])
    _go(twin, choices.setting(row))
    twin.put("condenser", "box")
    box = twin.photons("far_field", 1.0)
    index = grains.row(int(choices.grain_id[row]))
    across = np.flatnonzero(box.max(axis=0) > 0.2 * box.max())
    width = (np.ptp(across) + 1) * twin.view("far_field").pixel_y_um
    assert width == pytest.approx(1e3 * grains.size_mm[index, 1], abs=2.5)


def test_a_map_without_a_volume_makes_no_sample(sample, tmp_path):
    grains, config = sample
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        write_imaged11(grains, file)
    options = f"{{map: {tmp_path / 'flat.h5'}, cell: {list(grains.phases[0].cell)}, space_group: F m -3 m}}"
    with pytest.raises(ConfigError, match="has no volume, so its grains have no shape"):
        flat = override(config, [f"backend.options.sample_options={options}"])
        Twin(flat, **flat.backend.options)
