"""Records and a camera behind a line that takes 200 ms there and back: slower, and otherwise as near ones."""

import time

import bluesky.plans as bp
import h5py
import pytest
from fake_backend import backend_for, configuration

import devices
from devices._epics import EpicsAxis
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import LimitError
from dfxrm_control.records import frame_path

PREFIXES = {"far_away": "FAR:"}

WAY_S = 0.1


@pytest.fixture
def slow(far_away):
    yield far_away
    far_away.delay_s = 0.0


def axis(record, name):
    config = AxisConfig(control="epics", address=f"FAR:{record}", limits=(-5.0, 5.0), tolerance=1e-4)
    return EpicsAxis(name=name, config=config)


@pytest.mark.slow
def test_a_scan_with_frames_is_whole(slow, run_engine, tmp_path):
    config = configuration(far_field__camera={"control": "epics", "address": "FAR:", "timeout_s": 5.0})
    camera = devices.FarField("far_field", config.devices["far_field"], config, backend_for(config))
    camera.destination = lambda name: tmp_path
    camera.exposure.put(0.01)
    chi, phi = axis("m1", "chi"), axis("m2", "phi")
    slow.delay_s = WAY_S
    begin = time.monotonic()
    for part in (chi, phi, camera):
        part.wait_for_connection(timeout=20.0)
    assert time.monotonic() - begin > 2 * WAY_S
    documents = []
    run_engine(
        bp.scan([camera], chi, 0.0, 0.2, phi, 0.0, -0.2, 3),
        lambda name, document: documents.append((name, document)),
    )
    points = [(data["chi"], data["phi"]) for data in (doc["data"] for name, doc in documents if name == "event")]
    assert points == [(0.0, 0.0), (0.1, -0.1), (0.2, -0.2)]
    assert documents[-1][1]["exit_status"] == "success"
    (resource,) = [document for name, document in documents if name == "stream_resource"]
    with h5py.File(frame_path(resource["uri"]), "r") as file:
        assert len(file["/entry/data/data"]) == 3
    for part in (chi, phi, camera):
        part.destroy()


def test_moves_stops_and_limits_are_as_near_by(slow):
    chi = axis("m1", "chi")
    chi.wait_for_connection(timeout=20.0)
    slow.delay_s = WAY_S
    begin = time.monotonic()
    chi.readback()
    assert 2 * WAY_S <= time.monotonic() - begin < 10 * WAY_S
    chi.set(0.5).wait(10.0)
    assert chi.position == 0.5
    with pytest.raises(LimitError):
        chi.set(7.0)
    status = chi.set(-5.0)
    chi.stop(success=True)
    status.wait(5.0)
    chi.set(0.0).wait(10.0)
    assert chi.position == 0.0
    chi.destroy()
