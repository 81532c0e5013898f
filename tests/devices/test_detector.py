import threading
import time

import bluesky.plans as bp
import h5py
import hdf5plugin  # noqa: F401
import pytest
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.protocols import Flyable, Pausable, Preparable, WritesStreamAssets
from bluesky.run_engine import RunEngineInterrupted
from bluesky.utils import FailedStatus
from fake_backend import SHAPE, backend_for, build, configuration

from devices import FarField
from dfxrm_control.acquisition import FrameBatch, FrameCamera
from dfxrm_control.errors import ConfigError, DeviceError, LimitError, RecordError

WAIT_S = 5.0


@pytest.fixture
def camera(microscope, tmp_path):
    microscope.far_field.destination = lambda name: tmp_path / "scan0001"
    microscope.far_field.exposure.put(0.1)
    return microscope.far_field


def numbers(path):
    with h5py.File(path, "r") as file:
        return [int(frame[0, 0]) for frame in file["/entry/data/data"]]


def announced(documents):
    """Return (file name, index in the run) of each announced frame."""
    files = {doc["uid"]: doc["uri"].rsplit("/", 1)[1] for name, doc in documents if name == "stream_resource"}
    return [
        (files[doc["stream_resource"]], doc["indices"]["start"])
        for name, doc in documents
        if name == "stream_datum" and doc["indices"]["stop"] == doc["indices"]["start"] + 1
    ]


def test_a_camera_is_what_plans_expect(camera):
    assert all(
        isinstance(camera, protocol) for protocol in (FrameCamera, WritesStreamAssets, Preparable, Flyable, Pausable)
    )


def test_a_life_of_two_lines_makes_two_files(camera, tmp_path):
    camera.stage()
    for frames in (2, 3):
        camera.prepare(FrameBatch(frames, 0.25)).wait(WAIT_S)
        for _ in range(frames):
            camera.trigger().wait(WAIT_S)
        camera.complete().wait(WAIT_S)
    camera.unstage()
    assert camera.get_index() == 5 and camera.exposure.get() == 0.25
    folder = tmp_path / "scan0001"
    assert {path.name: numbers(path) for path in sorted(folder.iterdir())} == {
        "far_field_0000.h5": [0, 1],
        "far_field_0001.h5": [2, 3, 4],
    }


def test_a_frame_can_be_read_when_its_trigger_is_done(camera, tmp_path):
    camera.stage()
    camera.prepare(FrameBatch(2, 0.1)).wait(WAIT_S)
    camera.trigger().wait(WAIT_S)
    with h5py.File(tmp_path / "scan0001/far_field_0000.h5", "r", libver="latest", swmr=True) as file:
        assert file["/entry/data/data"].shape == (1, *SHAPE)
    camera.unstage()


def test_exposing_takes_its_time_and_does_not_block(slow_microscope, tmp_path):
    camera = slow_microscope.far_field
    camera.destination = lambda name: tmp_path
    camera.stage()
    camera.prepare(FrameBatch(1, 0.3)).wait(WAIT_S)
    begin = time.monotonic()
    status = camera.trigger()
    assert not status.done
    status.wait(WAIT_S)
    assert time.monotonic() - begin >= 0.3
    camera.unstage()


@pytest.mark.parametrize("exposure", [0.0, -1.0, 61.0, "long", float("nan")])
def test_an_exposure_out_of_bounds_is_refused(camera, exposure):
    camera.stage()
    for attempt in (
        lambda: camera.exposure.set(exposure).wait(WAIT_S),
        lambda: camera.prepare(FrameBatch(1, exposure)),
    ):
        with pytest.raises(LimitError, match="far_field_exposure: .* is not a number from 0.0001 to 60 s"):
            attempt()


def test_frames_need_a_folder(microscope):
    microscope.far_field.stage()
    error = microscope.far_field.trigger().exception(timeout=WAIT_S)
    assert isinstance(error, RecordError) and "camera far_field has been told no folder" in str(error)


def test_the_reason_why_there_is_no_folder_is_kept(camera):
    def no_run(name):
        raise RecordError(f"no run is open that could own the frames of {name}")

    camera.destination = no_run
    camera.stage()
    for status in (camera.trigger(), camera.prepare(FrameBatch(1, 0.1))):
        assert str(status.exception(timeout=WAIT_S)) == "no run is open that could own the frames of far_field"


def test_an_unstaged_camera_takes_no_frames(camera):
    for attempt in (camera.trigger, lambda: camera.prepare(FrameBatch(1, 0.1))):
        with pytest.raises(DeviceError, match="camera far_field must be staged"):
            attempt()


def test_a_backend_that_fails_fails_the_trigger_with_its_own_words(camera):
    def broken(request):
        raise DeviceError("the sensor is too hot")

    camera.backend.expose = broken
    camera.stage()
    assert str(camera.trigger().exception(timeout=WAIT_S)) == "the sensor is too hot"
    assert camera.get_index() == 0


def test_a_frame_that_never_comes_fails_in_time_by_name(tmp_path):
    config = configuration(far_field__camera__timeout_s=0.2)
    backend = backend_for(config)
    camera = FarField("far_field", config.devices["far_field"], config, backend)
    camera.destination = lambda name: tmp_path
    backend.hold.clear()
    camera.stage()
    camera.exposure.put(0.1)
    error = camera.trigger().exception(timeout=WAIT_S)
    assert str(error) == "camera far_field did not deliver a frame of 0.1 s within 0.3 s"
    backend.hold.set()


@pytest.mark.parametrize("verb", ["unstage", "stop"])
def test_an_exposure_can_be_given_up(camera, tmp_path, verb):
    camera.stage()
    camera.trigger().wait(WAIT_S)
    camera.backend.hold.clear()
    camera.backend.exposing.clear()
    status = camera.trigger()
    assert camera.backend.exposing.wait(WAIT_S)
    begin = time.monotonic()
    getattr(camera, verb)()
    assert time.monotonic() - begin < 1.0
    assert "its frame was given up" in str(status.exception(timeout=WAIT_S))
    camera.backend.hold.set()
    camera.unstage()
    camera.stage()
    camera.trigger().wait(WAIT_S)
    camera.unstage()
    files = sorted((tmp_path / "scan0001").iterdir())
    assert [numbers(path) for path in files] in ([[0], [2]], [[0, 2]])


def test_a_stock_plan_makes_files_of_the_configured_length(run_engine, tmp_path):
    config = configuration()
    cameras = config.instrument.cameras
    short = cameras["far_field"].model_copy(update={"frames_per_file": 4})
    instrument = config.instrument.model_copy(update={"cameras": {**cameras, "far_field": short}})
    config = config.model_copy(update={"instrument": instrument})
    camera = build(config, backend_for(config))["far_field"]
    camera.destination = lambda name: tmp_path
    documents = []
    run_engine(bp.count([camera], 10), lambda *document: documents.append(document))
    assert [numbers(path) for path in sorted(tmp_path.iterdir())] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert announced(documents) == [(f"far_field_{index // 4:04d}.h5", index) for index in range(10)]
    firsts = [doc["parameters"]["first_index"] for name, doc in documents if name == "stream_resource"]
    assert firsts == [0, 4, 8]


def test_two_runs_have_their_own_folders_and_counts(camera, run_engine, tmp_path):
    runs = iter(("a", "b"))
    current = []
    camera.destination = lambda name: tmp_path / current[-1]
    documents = []

    def note(name, doc):
        documents.append((name, doc))

    @bpp.stage_decorator([camera])
    def twice():
        for _ in range(2):
            current.append(next(runs))
            yield from bps.open_run()
            for _ in range(2):
                yield from bps.trigger_and_read([camera])
            yield from bps.close_run()

    run_engine(twice(), note)
    assert [numbers(tmp_path / run / "far_field_0000.h5") for run in "ab"] == [[0, 1], [2, 3]]
    assert [index for _, index in announced(documents)] == [0, 1, 0, 1]


@pytest.mark.parametrize("pause_at", ["trigger", "wait", "create", "read", "save"])
def test_a_point_repeated_after_a_pause_has_one_frame_and_an_orphan_at_most(camera, run_engine, tmp_path, pause_at):
    documents, seen = [], []

    def pause_at_the_third_point(message):
        seen.append(message.command)
        if message.command == pause_at and seen.count("save") == 2 + (pause_at == "save"):
            seen.append("save")
            return bpp.pchain(bps.pause(), bpp.single_gen(message)), None
        return None, None

    with pytest.raises(RunEngineInterrupted):
        run_engine(
            bpp.plan_mutator(bp.count([camera], 5), pause_at_the_third_point),
            lambda *document: documents.append(document),
        )
    run_engine.resume()
    events = [doc["seq_num"] for name, doc in documents if name == "event"]
    assert events == [1, 2, 3, 4, 5]
    frames = announced(documents)
    orphans = 0 if pause_at == "trigger" else 1
    assert [index for _, index in frames] == [0, 1, *range(2 + orphans, 5 + orphans)]
    assert numbers(tmp_path / "scan0001/far_field_0000.h5") == list(range(5 + orphans))


def test_a_pause_while_the_frame_is_exposed_leaves_an_orphan(camera, run_engine, tmp_path):
    documents = []
    backend = camera.backend
    original = backend.expose
    held = []

    def expose(request):
        if backend.frames == 2 and not held:
            held.append(True)
            run_engine.request_pause()
            time.sleep(0.2)
        return original(request)

    backend.expose = expose
    with pytest.raises(RunEngineInterrupted):
        run_engine(bp.count([camera], 4), lambda *document: documents.append(document))
    run_engine.resume()
    assert [index for _, index in announced(documents)] == [0, 1, 3, 4]
    assert numbers(tmp_path / "scan0001/far_field_0000.h5") == [0, 1, 2, 3, 4]


def test_a_failed_trigger_ends_the_plan_and_closes_the_file(camera, run_engine, tmp_path):
    backend = camera.backend
    original = backend.expose

    def expose(request):
        if backend.frames == 2:
            raise DeviceError("the sensor is too hot")
        return original(request)

    backend.expose = expose
    with pytest.raises(FailedStatus) as caught:
        run_engine(bp.count([camera], 4))
    assert str(caught.value.__cause__) == "the sensor is too hot"
    assert numbers(tmp_path / "scan0001/far_field_0000.h5") == [0, 1]


def test_reading_a_camera_twice_announces_its_frame_once(camera):
    camera.stage()
    camera.trigger().wait(WAIT_S)
    assert [name for name, _ in camera.collect_asset_docs()] == ["stream_resource", "stream_datum"]
    assert list(camera.collect_asset_docs()) == []
    camera.unstage()


def test_two_cameras_expose_at_the_same_time(slow_microscope, tmp_path):
    cameras = [slow_microscope.far_field, slow_microscope.near_field]
    for camera in cameras:
        camera.destination = lambda name: tmp_path / name
        camera.stage()
        camera.exposure.put(1.0)
    begin = time.monotonic()
    for status in [camera.trigger() for camera in cameras]:
        status.wait(WAIT_S)
    assert time.monotonic() - begin < 1.8
    for camera in cameras:
        camera.unstage()


def test_a_detector_needs_its_camera_in_the_configuration():
    config = configuration()
    with pytest.raises(
        ConfigError, match=r"devices\.side_camera: the camera is not described under instrument\.cameras"
    ):
        FarField("side_camera", config.devices["far_field"], config, backend_for(config))


def test_no_thread_is_left_behind(camera):
    camera.stage()
    for _ in range(5):
        camera.trigger().wait(WAIT_S)
    camera.unstage()
    deadline = time.monotonic() + WAIT_S
    while any(thread.name.startswith("far_field") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
