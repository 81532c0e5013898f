"""A stack of layers of a grain whose shape is known: every voxel must lie where the crystal is."""

import xml.etree.ElementTree as ET

import h5py
import numpy as np
import pytest
from shapes import inside, overlap

from dfxrm_control.reduction.layers import read_volume
from dfxrm_control.reduction.series import read_series, reduce_series

GRAIN = (
    "instrument.cameras.far_field.objectives={2x: 2.0}",
    "devices.far_field.channels.far_field_camera_objective.choices=[2x]",
    "backend.options.sample=notched_grain",
    "backend.options.photons_per_s=20000.0",
    "devices.goniometer.axes.omega.limits=[-180.0, 180.0]",
    "sample.spread_deg=0.01",
    "scan.darks=10",
)
LAYERS = {"layers": 5, "step_um": 1.5, "scan": "rocking_scan", "scan_parameters": {"exposure_s": 0.2}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "tilt", "setting"),
    [
        ("above", (0.0, 0.0, 0.0), {"omega": 0.0}),
        ("above", (1.5, -2.0, 0.0), {"omega": 37.0, "chi": -1.5, "phi": 2.0, "samx": 0.001}),
        ("below", (0.0, 0.0, 0.0), {"omega": 90.0, "samy": 0.001}),
    ],
    ids=["translations above", "turned and tilted", "translations below"],
)
def test_the_volume_lies_where_the_crystal_is(open_session, stage, tilt, setting):
    session = open_session(
        *GRAIN,
        f"instrument.sample_stage={stage}",
        "backend.options.sample_options={tilt_deg: " + str(list(tilt)) + ", centre_um: [0.5, -1.0, 0.7]}",
    )
    session.move([(session.axes[axis], position) for axis, position in setting.items()])
    before = {axis: session.axes[axis].position for axis in ("samx", "samy", "samz")}
    outcome = session.run("layer_scan", LAYERS)
    assert [run.status for run in outcome.runs] == ["success"] * 5
    assert {axis: session.axes[axis].position for axis in before} == pytest.approx(before, abs=1e-6)
    description, file = reduce_series(read_series(outcome.folder))
    volume = read_volume(file)
    assert volume.missing == () and np.diff(volume.z) == pytest.approx([1.5] * 4, abs=1e-6)
    integrated = volume.fields["integrated"]
    seen = integrated > 0.4 * np.percentile(integrated, 95)
    truth = inside(session.backend.sample, volume.points())
    assert truth.any(axis=(0, 1)).all() and not truth.all()
    assert overlap(seen, truth) > 0.88
    # nothing that is turned about or mirrored would do
    for axis in range(3):
        assert overlap(np.flip(seen, axis), truth) < 0.8
    # ParaView reads the points and each field in the order that the XDMF gives them
    grid = ET.parse(description).getroot().find("Domain/Grid")
    dimensions = tuple(int(count) for count in grid.find("Topology").get("Dimensions").split())
    with h5py.File(file) as opened:
        items = [grid.find("Geometry/DataItem"), *grid.findall("Attribute/DataItem")]
        for item in items:
            name, _, place = item.text.partition(":")
            assert name == file.name
            assert opened[place].shape == tuple(int(count) for count in item.get("Dimensions").split())
        assert opened["volume/integrated"].shape == dimensions
        points = opened["volume/points"][()]
    assert points.transpose(2, 1, 0, 3) == pytest.approx(volume.points(), abs=1e-3)
