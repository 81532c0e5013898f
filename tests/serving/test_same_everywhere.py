"""The same scans in memory, over EPICS, over Tango and over both give the same data, bit for bit."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import environment, serving

HERE = Path(__file__).parent
PLANS = ("dct_to_dfxrm", "mosaicity_scan", "strain_scan", "weak_beam_scan")
# time passes with frames alone, and all axes count in the same steps
TWIN = """{{
      clock: frames, resolution: 1.0e-5, seed: 4, photons_per_s: 50000.0, sample: polycrystal,
      sample_options: {{map: {map}, rotation_deg: [0.3, -0.25, 0.31], shift_um: [20.0, -16.0, 15.0]}}}}"""
CONFIGURATION = """extends: {base}
name: {base}
instrument:
  cameras:
    far_field: {{rows: 64, columns: 64, pixel_um: 52.0}}
    near_field: {{rows: 64, columns: 64}}
{twin}
"""


def coarse_map(path):
    """Write the coarse map of the eight grains that the hand-off is tested with elsewhere."""
    spec = importlib.util.spec_from_file_location("handoff_of_boxes", HERE.parent / "end_to_end" / "test_handoff.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.written(module.polycrystal(), path)


class Taken:
    """What one microscope gave."""

    def __init__(self, config, grains, folder):
        folder.mkdir()
        command = [sys.executable, str(HERE / "take_scans.py"), str(config), str(grains), str(folder)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        self.frames, self.maps = (dict(np.load(folder / f"{name}.npz")) for name in ("frames", "maps"))
        self.descriptors, self.events, self.kinds = (
            json.loads((folder / f"{name}.json").read_text()) for name in ("descriptors", "events", "kinds")
        )


@pytest.fixture(scope="module")
def grains(tmp_path_factory):
    return coarse_map(tmp_path_factory.mktemp("grains") / "map.h5")


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory, grains):
    folder = tmp_path_factory.mktemp("simulated")
    config = folder / "simulated.yml"
    twin = f"backend:\n  options: {TWIN.format(map=grains)}"
    config.write_text(CONFIGURATION.format(base="simulated", twin=twin))
    return Taken(config, grains, folder / "taken")


def test_the_scans_show_something(in_memory):
    """Else all that follows would compare noise with noise."""
    assert {name.split()[0] for name in in_memory.frames} == set(PLANS) == {name.split()[0] for name in in_memory.maps}
    for plan in PLANS:
        assert max(frames.max() for name, frames in in_memory.frames.items() if name.startswith(plan)) > 400
    for name in ("mosaicity_scan tilt_rock", "mosaicity_scan tilt_roll", "strain_scan strain"):
        values = in_memory.maps[name]
        assert np.isfinite(values).mean() > 0.2 and np.nanstd(values) > 0
    assert sum(len(frames) for frames in in_memory.frames.values()) > 400
    assert len(in_memory.kinds) > 40


@pytest.mark.slow
@pytest.mark.parametrize("base", ["simulated", "epics", "tango", "mixed"])
def test_frames_maps_and_descriptors_are_the_same(base, in_memory, grains, tmp_path):
    """``simulated`` behind the state server alone: what is in memory, but not in this process."""
    config = tmp_path / f"{base}.yml"
    twin = f"serve:\n  twin:\n    backend: simulators:Twin\n    options: {TWIN.format(map=grains)}"
    config.write_text(CONFIGURATION.format(base=base, twin=twin))
    (tmp_path / "served").mkdir()
    server = serving(config, tmp_path / "served")
    try:
        ready = server.start().removeprefix("ready:").strip()
        taken = Taken(ready, grains, tmp_path / "taken")
        assert server.stop() == 0
    finally:
        server.clear()
    assert taken.frames.keys() == in_memory.frames.keys()
    for name, frames in in_memory.frames.items():
        assert frames.dtype == taken.frames[name].dtype == np.uint16
        np.testing.assert_array_equal(taken.frames[name], frames, err_msg=name)
    assert taken.maps.keys() == in_memory.maps.keys()
    for name, values in in_memory.maps.items():
        np.testing.assert_array_equal(taken.maps[name], values, err_msg=name)
    assert taken.kinds == in_memory.kinds
    assert len(taken.descriptors) == len(in_memory.descriptors)
    for theirs, ours in zip(taken.descriptors, in_memory.descriptors, strict=True):
        assert theirs == ours
    # positions, set-points, fluxes: what was recorded of each point beside its frame
    assert taken.events == in_memory.events
