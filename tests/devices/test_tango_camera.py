"""A detector whose camera is LIMA's, on the Tango server that stands before the twin."""

import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import hdf5plugin  # noqa: F401  the frames are compressed
import numpy as np
import pytest
import tango
from bluesky.utils import FailedStatus
from contract import CAMERAS
from fake_backend import configuration
from tango_server import Server

import devices
from devices.tango import TangoMachine
from dfxrm_control.acquisition import FrameBatch, FrameCamera
from dfxrm_control.errors import ConfigError, DeviceError, RecordError
from dfxrm_control.records import count_frames, frame_path

DEVICE = "t/camera/far_field"
WAIT_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server({DEVICE: "LimaCCDs"}, tmp_path_factory.mktemp("tango") / "server.log")
    yield server
    server.close()


@pytest.fixture
def far_field(server, tmp_path, memory_parts):
    made = memory_parts(server.address(DEVICE))
    made.wait_for_connection(timeout=WAIT_S)
    made.exposure.put(0.01)
    folder = tmp_path / "scan0001"
    folder.mkdir()
    made.destination = lambda name: folder
    yield made
    server.proxy(DEVICE).Fault = ""
    made.destroy()


@pytest.fixture
def memory_parts(microscope):
    """Makes the logical detector: its translations in memory, its camera at a Tango address."""

    def make(address, **control):
        config = configuration(far_field__camera={"control": "tango", "address": address, "timeout_s": 1.0, **control})
        return devices.FarField("far_field", config.devices["far_field"], config, microscope.backend)

    return make


def lines(camera, number, frames, more=0):
    @bpp.stage_decorator([camera])
    @bpp.run_decorator()
    def plan():
        for _ in range(number):
            yield from bps.prepare(camera, FrameBatch(frames, 0.01), wait=True)
            for _ in range(frames + more):
                yield from bps.trigger_and_read([camera])
            yield from bps.complete(camera, wait=True)

    return plan()


def taken(run_engine, plan):
    """Run a plan and return its files: path, dataset, frames."""
    documents = []
    run_engine(plan, lambda name, document: documents.append((name, document)))
    files = []
    for name, document in documents:
        if name == "stream_resource":
            path, dataset = frame_path(document["uri"]), document["parameters"]["dataset"]
            with h5py.File(path, "r") as file:
                files.append((path, dataset, file[dataset][...]))
    return files


def next_folder(camera):
    folder = camera.destination("far_field").with_name("scan0002")
    camera.destination = lambda name: folder


def numbers(frames):
    return [int(frame[0, 0]) for frame in frames]


def test_it_says_of_itself_what_a_camera_in_memory_says(far_field, server):
    assert isinstance(far_field, FrameCamera)
    assert far_field.describe()["far_field"]["shape"] == [1, *CAMERAS["far_field"]]
    assert far_field.camera.source == server.address(DEVICE)


def test_one_file_per_line_by_lima_and_each_frame_announced(far_field, run_engine, server):
    (first, dataset, frames), (second, _, others) = taken(run_engine, lines(far_field, 2, 3))
    assert (first.name, second.name) == ("far_field_0000.h5", "far_field_0001.h5")
    assert dataset == "/entry_0000/measurement/data" and frames.dtype == np.uint16
    assert frames.shape == others.shape == (3, *CAMERAS["far_field"])
    # each trigger has exposed one frame, and none was exposed beside them
    begin = numbers(frames)[0]
    assert numbers(frames) + numbers(others) == list(range(begin, begin + 6))
    assert count_frames(first, dataset) == 3
    assert server.proxy(DEVICE).acq_status == "Ready"


def test_a_line_may_get_more_frames_than_planned(far_field, run_engine):
    ((_, _, frames),) = taken(run_engine, lines(far_field, 1, 2, more=2))
    assert len(frames) == 4


def test_a_stock_plan_gets_its_frames_and_another_exposure_another_file(far_field, run_engine):
    @bpp.stage_decorator([far_field])
    @bpp.run_decorator()
    def plan():
        for exposure_s in (0.01, 0.01, 0.02):
            yield from bps.abs_set(far_field.exposure, exposure_s, wait=True)
            yield from bps.trigger_and_read([far_field])

    ((_, _, frames),) = taken(run_engine, bp.count([far_field], 4))
    assert len(frames) == 4
    next_folder(far_field)
    assert [len(frames) for _, _, frames in taken(run_engine, plan())] == [2, 1]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("missing", "delivered no frame within 0.8 s: it took none"),
        ("unsaved", "delivered no frame within 0.8 s: it took one and did not save it"),
        ("twice", "delivered a frame twice: it has 4 frames, 3 were asked for"),
        ("full No space left on device", "could not save a frame; it says: Save error: No space left on device"),
    ],
)
def test_a_frame_that_goes_wrong_in_the_middle_of_a_line_ends_the_run(far_field, run_engine, server, fault, sentence):
    def go_wrong(name, document):
        if name == "event" and document["seq_num"] == 2:
            server.proxy(DEVICE).Fault = fault

    begin = time.monotonic()
    with pytest.raises(FailedStatus) as caught:
        run_engine(lines(far_field, 1, 5), go_wrong)
    assert str(caught.value.__cause__) == f"camera far_field ({server.address(DEVICE)}) {sentence}"
    assert time.monotonic() - begin < 5.0
    # what was good is there, and the file is closed
    folder = far_field.destination("far_field")
    assert count_frames(folder / "far_field_0000.h5", "/entry_0000/measurement/data") >= 2
    server.proxy(DEVICE).Fault = ""
    next_folder(far_field)
    ((_, _, frames),) = taken(run_engine, lines(far_field, 1, 2))
    assert len(frames) == 2


def test_a_killed_server_ends_the_run_and_one_started_anew_serves_the_same_session(far_field, run_engine, server):
    def kill_at_second(name, document):
        if name == "event" and document["seq_num"] == 2:
            server.kill()

    try:
        with pytest.raises((FailedStatus, DeviceError)) as caught:
            run_engine(bp.count([far_field], 5), kill_at_second)
    finally:
        server.start()
    sentence = str(caught.value.__cause__ or caught.value)
    assert f"Tango device {server.address(DEVICE)} does not answer" in sentence
    far_field.wait_for_connection(timeout=WAIT_S)
    next_folder(far_field)
    ((_, _, frames),) = taken(run_engine, bp.count([far_field], 2))
    assert len(frames) == 2


def test_an_exposure_that_was_given_up_is_in_no_later_file(far_field, run_engine, server):
    far_field.stage()
    far_field.exposure.put(0.5)
    status = far_field.trigger()
    threading.Timer(0.2, far_field.stop).start()
    assert "was stopped during an exposure" in str(status.exception(timeout=WAIT_S))
    far_field.unstage()
    far_field.exposure.put(0.01)
    next_folder(far_field)
    ((_, _, frames),) = taken(run_engine, lines(far_field, 1, 3))
    assert len(frames) == 3 and len(set(numbers(frames))) == 3


@pytest.mark.parametrize("place", ["elsewhere", "taken", "hidden"])
def test_a_file_that_cannot_be_is_named(far_field, run_engine, tmp_path, monkeypatch, place):
    folder = far_field.destination("far_field")
    if place == "elsewhere":
        far_field.destination = lambda name: tmp_path / "elsewhere"
        monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: None)
        words = f"directory {tmp_path / 'elsewhere'} does not exist"
    elif place == "taken":
        (folder / "far_field_0000.h5").touch()
        words = f"file {folder / 'far_field_0000.h5'} already exists"
    else:
        monkeypatch.setattr("pathlib.Path.exists", lambda *_, **__: False)
        words = "must see the folder under the same path"
    with pytest.raises(FailedStatus) as caught:
        run_engine(bp.count([far_field], 1))
    assert isinstance(caught.value.__cause__, RecordError) and words in str(caught.value.__cause__)


def test_a_camera_that_is_used_by_somebody_else_is_taken_over(far_field, run_engine, server):
    proxy = server.proxy(DEVICE)
    proxy.reset()
    proxy.acq_nb_frames, proxy.acq_expo_time = 0, 0.01
    proxy.prepareAcq()
    proxy.startAcq()
    with pytest.raises(tango.DevFailed, match="running"):
        proxy.prepareAcq()
    ((_, _, frames),) = taken(run_engine, lines(far_field, 1, 2))
    assert len(frames) == 2


def test_what_is_no_camera_is_refused(memory_parts, server):
    with pytest.raises(ConfigError, match="names an attribute, not a Tango device"):
        memory_parts(server.address(DEVICE, "image_width"))
    with pytest.raises(DeviceError, match=r"camera far_field \(tango://127.0.0.1:1/no/such/camera#dbase=no\) did not"):
        memory_parts("tango://127.0.0.1:1/no/such/camera#dbase=no").wait_for_connection(timeout=0.3)


def test_lima_rules(server):
    proxy = server.proxy(DEVICE)
    proxy.reset()
    with pytest.raises(tango.DevFailed, match="Run prepareAcq before starting acquisition"):
        proxy.startAcq()
    proxy.acq_nb_frames, proxy.acq_expo_time, proxy.acq_trigger_mode = 2, 0.001, "INTERNAL_TRIGGER_MULTI"
    proxy.image_roi = [1, 2, 3, 4]
    assert (proxy.image_width, proxy.image_height) == (3, 4)
    proxy.prepareAcq()
    for number in range(2):
        proxy.startAcq()
        deadline = time.monotonic() + WAIT_S
        while not (proxy.last_image_ready == number and proxy.ready_for_next_image) and time.monotonic() < deadline:
            time.sleep(0.002)
    assert (proxy.acq_status, proxy.last_image_ready, proxy.last_image_saved) == ("Ready", 1, -1)
    with pytest.raises(tango.DevFailed, match="Run prepareAcq"):
        proxy.startAcq()
    for name, value, words in (
        ("acq_trigger_mode", "BY_HAND", "is one of"),
        ("image_roi", [5, 0, 3, 3], "is not inside 6 x 8"),
        ("saving_format", "EDF", "is one of HDF5BS"),
    ):
        with pytest.raises(tango.DevFailed, match=words):
            proxy.write_attribute(name, value)
    proxy.reset()
    assert (proxy.image_width, proxy.acq_trigger_mode) == (6, "INTERNAL_TRIGGER")


def test_the_machine_status_of_the_ring(tmp_path):
    running = Server({"t/machine/status": "Machine"}, tmp_path / "log")
    try:
        machine = TangoMachine(running.address("t/machine/status"), name="machine")
        machine.wait_for_connection(timeout=WAIT_S)
        assert machine.read()["machine_current"]["value"] == 200.0
        assert machine.describe()["machine_current"]["units"] == "mA"
        assert machine.hints == {"fields": ["machine_current"]}
        configuration = machine.read_configuration()
        assert configuration["machine_mode"]["value"] == "USM" and "machine_filling" in configuration
        assert machine.message.get() == "simulated machine" and machine.refill_in.get() > 0
    finally:
        running.close()
