"""A detector whose camera writes its own files, on the areaDetector that stands before the twin."""

import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import epics
import h5py
import pytest
from bluesky.utils import FailedStatus
from contract import CAMERAS
from fake_backend import backend_for, configuration

import devices
from devices._epics_camera import EpicsCamera
from dfxrm_control.acquisition import FrameBatch, FrameCamera
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import DeviceError, RecordError
from dfxrm_control.records import frame_path

PREFIXES = {"cameras": "CAM:"}


@pytest.fixture
def far_field(cameras, tmp_path):
    config = configuration(far_field__camera={"control": "epics", "address": "CAM:", "timeout_s": 1.0})
    made = devices.FarField("far_field", config.devices["far_field"], config, backend_for(config))
    made.wait_for_connection(timeout=10.0)
    made.exposure.put(0.01)
    folder = tmp_path / "scan0001"
    folder.mkdir()
    made.destination = lambda name: folder
    yield made
    go_wrong("none")
    made.destroy()


def described(config, rows, columns):
    """Return a configuration whose far-field camera has so many pixels."""
    content = config.model_dump()
    content["instrument"]["cameras"]["far_field"] |= {"rows": rows, "columns": columns}
    return MicroscopeConfig.model_validate(content)


def go_wrong(word):
    epics.caput("CAM:fault", word, wait=True, timeout=5.0)


def lines(camera, number, frames):
    @bpp.stage_decorator([camera])
    @bpp.run_decorator()
    def plan():
        for _ in range(number):
            yield from bps.prepare(camera, FrameBatch(frames, 0.01), wait=True)
            for _ in range(frames):
                yield from bps.trigger_and_read([camera])
            yield from bps.complete(camera, wait=True)

    return plan()


def test_it_says_of_itself_what_a_camera_in_memory_says(far_field):
    assert isinstance(far_field, FrameCamera)
    assert far_field.describe()["far_field"] == {
        "source": "camera:far_field",
        "dtype": "array",
        "dtype_numpy": "<u2",
        "shape": [1, *CAMERAS["far_field"]],
        "external": "STREAM:",
    }
    assert set(far_field.describe_configuration()) == {"far_field_exposure"}


def test_one_file_per_line_by_the_plugin_and_each_frame_announced(far_field, run_engine):
    documents = []
    before = epics.caget("CAM:cam1:ArrayCounter_RBV", use_monitor=False)
    run_engine(lines(far_field, 2, 3), lambda name, document: documents.append((name, document)))
    resources = [document for name, document in documents if name == "stream_resource"]
    indices = [document["indices"] for name, document in documents if name == "stream_datum"]
    assert [resource["parameters"]["first_index"] for resource in resources] == [0, 3]
    assert indices == [{"start": index, "stop": index + 1} for index in range(6)]
    numbers = []
    for resource in resources:
        with h5py.File(frame_path(resource["uri"]), "r") as file:
            frames = file[resource["parameters"]["dataset"]]
            assert frames.shape == (3, *CAMERAS["far_field"])
            numbers += [int(frame[0, 0]) for frame in frames]
    # none was exposed beside them, since the plugin knows the shape of a frame from the start
    assert numbers == list(range(before, before + 6))


def test_a_plugin_that_has_had_no_frame_is_given_one_that_is_in_no_file(far_field, run_engine):
    go_wrong("not primed")
    before = epics.caget("CAM:cam1:ArrayCounter_RBV", use_monitor=False)
    documents = []
    run_engine(lines(far_field, 1, 2), lambda name, document: documents.append((name, document)))
    (resource,) = [document for name, document in documents if name == "stream_resource"]
    with h5py.File(frame_path(resource["uri"]), "r") as file:
        assert [int(frame[0, 0]) for frame in file["/entry/data/data"]] == [before + 1, before + 2]


def test_a_stock_plan_gets_its_frames_too(far_field, run_engine):
    documents = []
    run_engine(bp.count([far_field], 4), lambda name, document: documents.append((name, document)))
    (resource,) = [document for name, document in documents if name == "stream_resource"]
    with h5py.File(frame_path(resource["uri"]), "r") as file:
        assert len(file["/entry/data/data"]) == 4


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("none taken", "delivered no frame within 0.8 s: it took none"),
        ("dropped", "dropped 1 frame(s) before they were written"),
        ("twice", "delivered a frame twice: its file has 2 frames, 1 were asked for"),
        (
            "disk full",
            "could not write a frame; its HDF5 plugin says: Error writing file: no space left on device",
        ),
    ],
)
def test_a_frame_that_is_not_there_once_ends_the_run(far_field, run_engine, word, sentence):
    run_engine(bp.count([far_field], 1))
    go_wrong(word)
    begin = time.monotonic()
    with pytest.raises(FailedStatus) as caught:
        run_engine(bp.count([far_field], 3))
    assert str(caught.value.__cause__) == f"camera far_field (ca://CAM:cam1) {sentence}"
    assert time.monotonic() - begin < 4.0
    go_wrong("none")
    assert epics.caget("CAM:HDF1:Capture_RBV", use_monitor=False) == 0
    run_engine(bp.count([far_field], 1))


def test_a_copy_that_comes_late_is_noticed_when_the_line_ends(far_field, run_engine, monkeypatch):
    end_file = EpicsCamera.end_file

    def with_a_copy(camera, file):
        if camera._file is file:  # noqa: SLF001
            # the driver goes on by itself after the last frame that was waited for
            assert epics.caput("CAM:cam1:Acquire", 1, wait=True, timeout=5.0) == 1
        end_file(camera, file)

    monkeypatch.setattr(EpicsCamera, "end_file", with_a_copy)
    with pytest.raises((FailedStatus, DeviceError)) as caught:
        run_engine(lines(far_field, 1, 2))
    assert "delivered a frame twice: its file has 3 frames, 2 were asked for" in str(
        caught.value.__cause__ or caught.value
    )


def test_a_killed_server_ends_the_run_and_one_started_anew_serves_the_same_session(cameras, far_field, run_engine):
    documents = []

    def kill_at_second(name, document):
        documents.append((name, document))
        if name == "event" and document["seq_num"] == 2:
            cameras.kill()

    begin = time.monotonic()
    try:
        # the connection may go in an exposure or before it
        with pytest.raises((FailedStatus, DeviceError)) as caught:
            run_engine(bp.count([far_field], 5), kill_at_second)
        assert time.monotonic() - begin < 5.0
    finally:
        cameras.start()
        far_field.wait_for_connection(timeout=30.0)
    assert "camera far_field (ca://CAM:cam1) " in str(caught.value.__cause__ or caught.value)
    assert [name for name, _ in documents].count("stream_datum") == 2
    assert documents[-1][1]["exit_status"] == "fail"
    run_engine(bp.count([far_field], 2))


def test_a_folder_that_the_server_does_not_see_is_named(far_field, run_engine, tmp_path, monkeypatch):
    far_field.destination = lambda name: tmp_path / "elsewhere"
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: None)
    with pytest.raises(FailedStatus) as caught:
        run_engine(bp.count([far_field], 1))
    assert isinstance(caught.value.__cause__, RecordError)
    assert "does not see the folder" in str(caught.value.__cause__)


def test_pixels_of_another_type_are_refused(far_field):
    epics.caput("CAM:cam1:DataType", "UInt8", wait=True)
    with pytest.raises(DeviceError, match="gives pixels of type UInt8; set its DataType to UInt16"):
        far_field.describe()
    epics.caput("CAM:cam1:DataType", "UInt16", wait=True)


def test_a_region_of_interest_is_what_the_file_has(cameras, far_field, tmp_path, run_engine):
    region = {"first_row": 3, "first_column": 1, "rows": 4, "columns": 2}
    control = {"control": "epics", "address": "CAM:", "timeout_s": 1.0, "region": region}
    config = configuration(far_field__camera=control)
    cut = described(config, 4, 2)
    part = devices.FarField("far_field", cut.devices["far_field"], cut, backend_for(cut))
    part.wait_for_connection(timeout=10.0)
    (tmp_path / "cut").mkdir()
    part.destination = lambda name: tmp_path / "cut"
    documents = []
    try:
        assert part.describe()["far_field"]["shape"] == [1, 4, 2]
        run_engine(bp.count([part], 2), lambda name, document: documents.append((name, document)))
    finally:
        part.destroy()
    (resource,) = [document for name, document in documents if name == "stream_resource"]
    with h5py.File(frame_path(resource["uri"]), "r") as file:
        assert file["/entry/data/data"].shape == (2, 4, 2)
    assert epics.caget("CAM:HDF1:NDArrayPort_RBV", as_string=True, use_monitor=False) == "ROI1"
    # who knows of no region gets the whole sensor again
    documents.clear()
    run_engine(bp.count([far_field], 1), lambda name, document: documents.append((name, document)))
    (resource,) = [document for name, document in documents if name == "stream_resource"]
    with h5py.File(frame_path(resource["uri"]), "r") as file:
        assert file["/entry/data/data"].shape == (1, *CAMERAS["far_field"])
    assert epics.caget("CAM:HDF1:NDArrayPort_RBV", as_string=True, use_monitor=False) == "CAM1"


def test_binned_pixels_are_added_up(cameras, tmp_path):
    def put(name, value):
        assert epics.caput(f"CAM:{name}", value, wait=True, timeout=5.0) == 1

    settings = {"ROI1:EnableCallbacks": 1, "ROI1:MinX": 0, "ROI1:MinY": 0, "ROI1:SizeX": 6, "ROI1:SizeY": 7}
    settings |= {"ROI1:BinX": 3, "ROI1:BinY": 2, "HDF1:EnableCallbacks": 1, "HDF1:NDArrayPort": "ROI1"}
    settings |= {"cam1:ImageMode": 0, "cam1:AcquireTime": 0.01, "HDF1:FileWriteMode": 2, "HDF1:NumCapture": 1}
    settings |= {"HDF1:FilePath": str(tmp_path), "HDF1:FileName": "binned", "HDF1:FileTemplate": "%s%s.h5"}
    try:
        # the first image tells the file plugin the new shape
        for name, value in {**settings, "cam1:Acquire": 1, "HDF1:Capture": 1}.items():
            put(name, value)
        number = epics.caget("CAM:cam1:ArrayCounter_RBV", use_monitor=False)
        put("cam1:Acquire", 1)
        deadline = time.monotonic() + 5.0
        # after NumCapture frames the file ends by itself
        while epics.caget("CAM:HDF1:Capture_RBV", use_monitor=False) and time.monotonic() < deadline:
            time.sleep(0.01)
        with h5py.File(tmp_path / "binned.h5", "r") as file:
            frames = file["/entry/data/data"][()]
        # 7 rows are 3 bins of 2; each frame of the stand-in is its number
        assert frames.shape == (1, 3, 2) and (frames == 6 * number).all()
    finally:
        for name, value in {"ROI1:BinX": 1, "ROI1:BinY": 1, "ROI1:SizeY": 8, "HDF1:NDArrayPort": "CAM1"}.items():
            put(name, value)


def test_frames_of_another_size_than_described_are_refused(cameras):
    control = {"control": "epics", "address": "CAM:", "timeout_s": 1.0}
    for region, sentence in (
        (None, r"gives frames of 8 x 6 pixels, but instrument.cameras.far_field describes 4 x 2"),
        ({"first_row": 5, "first_column": 0, "rows": 4, "columns": 2}, "does not lie within its 8 x 6 pixels"),
    ):
        config = described(configuration(far_field__camera={**control, "region": region}), 4, 2)
        part = devices.FarField("far_field", config.devices["far_field"], config, backend_for(config))
        part.wait_for_connection(timeout=10.0)
        with pytest.raises(DeviceError, match=sentence):
            part.describe()
        part.destroy()


def test_a_camera_that_is_not_there_is_one_sentence(cameras):
    config = configuration(far_field__camera={"control": "epics", "address": "NONE:"})
    camera = devices.FarField("far_field", config.devices["far_field"], config, backend_for(config))
    with pytest.raises(DeviceError) as caught:
        camera.wait_for_connection(timeout=0.5)
    assert str(caught.value) == (
        "camera far_field (ca://NONE:cam1) did not connect within 0.5 s: "
        "NONE:cam1:Acquire, NONE:cam1:AcquireTime, NONE:cam1:ImageMode and 25 more"
    )
