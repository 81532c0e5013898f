"""Plans of bluesky that know nothing of our devices."""

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import event_model
import pytest
from bluesky.simulators import check_limits

from dfxrm_control.errors import LimitError
from dfxrm_control.records import read_frame
from dfxrm_control.records.frames import frame_path


@pytest.fixture
def take(microscope, run_engine, tmp_path):
    """Run a plan, check every document, and return the positions of each point with the number of its frame."""
    microscope.far_field.destination = lambda name: tmp_path

    def run(plan, *axes):
        documents = []
        run_engine(plan, lambda *document: documents.append(document))
        for name, doc in documents:
            event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
        resources = {doc["uid"]: doc for name, doc in documents if name == "stream_resource"}
        frames = {}
        for name, doc in documents:
            if name == "stream_datum":
                resource = resources[doc["stream_resource"]]
                index = doc["indices"]["start"] - resource["parameters"]["first_index"]
                frame = read_frame(frame_path(resource["uri"]), index)
                frames[doc["seq_nums"]["start"]] = int(frame[0, 0])
        points = [
            (*(round(doc["data"][axis], 9) for axis in axes), frames[doc["seq_num"]], doc["data"]["monitor"] - 100.0)
            for name, doc in documents
            if name == "event"
        ]
        assert documents[-1][0] == "stop" and documents[-1][1]["exit_status"] == "success"
        return points, documents

    return run


def test_count(microscope, take):
    points, _ = take(bp.count([microscope.far_field, microscope.beam.monitor], 3))
    assert points == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_scan(microscope, take):
    detectors = [microscope.far_field, microscope.beam.monitor]
    points, documents = take(bp.scan(detectors, microscope.goniometer.chi, -1, 1, 3), "chi", "chi_setpoint")
    assert points == [(-1, -1, 0, 0), (0, 0, 1, 1), (1, 1, 2, 2)]
    start = documents[0][1]
    assert start["motors"] == ("chi",) and start["hints"]["dimensions"] == [(["chi"], "primary")]
    descriptor = next(doc for name, doc in documents if name == "descriptor")
    assert descriptor["hints"]["chi"] == {"fields": ["chi"]}
    assert descriptor["configuration"]["chi"]["data"]["chi_velocity"] == 1.0
    assert descriptor["configuration"]["far_field"]["data"]["far_field_exposure"] == 0.1
    assert set(descriptor["data_keys"]) == {"chi", "chi_setpoint", "far_field", "monitor"}


def test_scan_along_the_arm(microscope, take):
    detectors = [microscope.far_field, microscope.beam.monitor]
    points, _ = take(bp.scan(detectors, microscope.arm.two_theta, 17.5, 18.5, 3), "two_theta", "two_theta_setpoint")
    assert points == [(17.5, 17.5, 0, 0), (18.0, 18.0, 1, 1), (18.5, 18.5, 2, 2)]


def test_rel_scan_comes_back(microscope, take, run_engine):
    chi = microscope.goniometer.chi
    run_engine(bps.mv(chi, 0.25))
    detectors = [microscope.far_field, microscope.beam.monitor]
    points, _ = take(bp.rel_scan(detectors, chi, -0.5, 0.5, 3), "chi")
    assert points == [(-0.25, 0, 0), (0.25, 1, 1), (0.75, 2, 2)]
    assert chi.locate() == {"setpoint": 0.25, "readback": 0.25}


def test_grid_scan(microscope, take):
    goniometer = microscope.goniometer
    detectors = [microscope.far_field, microscope.beam.monitor]
    plan = bp.grid_scan(detectors, goniometer.chi, 0, 1, 2, goniometer.phi, -1, 1, 3, snake_axes=True)
    points, _ = take(plan, "chi", "phi")
    assert [point[:2] for point in points] == [(0, -1), (0, 0), (0, 1), (1, 1), (1, 0), (1, -1)]
    assert [point[2] for point in points] == list(range(6))


def test_list_scan(microscope, take):
    detectors = [microscope.far_field, microscope.beam.monitor]
    points, _ = take(bp.list_scan(detectors, microscope.goniometer.mu, [9.0, 9.5, 9.25]), "mu")
    assert points == [(9.0, 0, 0), (9.5, 1, 1), (9.25, 2, 2)]


def test_whole_devices_can_be_read(microscope, take):
    whole = [microscope.far_field, microscope.beam, microscope.goniometer, microscope.objective, microscope.arm]
    points, documents = take(bp.count(whole, 2))
    assert points == [(0, 0.0), (1, 1.0)]
    data = next(doc["data"] for name, doc in documents if name == "event")
    assert data["shutter"] == "closed" and data["mu"] == 9.0 and "two_theta" in data and "mainx" not in data


def test_bluesky_checks_limits_before_a_plan_runs(microscope, run_engine):
    chi = microscope.goniometer.chi
    check_limits(bp.scan([], chi, -10, 10, 3))
    with pytest.raises(LimitError, match="axis chi: 11 deg is outside its limits"):
        check_limits(bp.scan([], chi, -10, 11, 3))
