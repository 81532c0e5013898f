"""A recorded scan answers with the frames it recorded where they were recorded, and with nothing else."""

import importlib.util
import warnings
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

from dfxrm_control.backend import Backend, FrameRequest
from dfxrm_control.config import find_config, override
from dfxrm_control.errors import ConfigError, DeviceError, FileFormatError
from dfxrm_control.reduction import maps_from_file
from dfxrm_control.session import Session
from simulators import Replay

CHI = np.repeat([-0.1, 0.0, 0.1], 4)
DIFFRZ = np.tile([1.0, 1.05, 1.1, 1.15], 3)


@pytest.fixture
def recording(tmp_path):
    """Return a scan of 3 x 4 points, frame k filled with 1000 + k, with two darks in an entry of their own."""
    path = tmp_path / "recorded.h5"
    with h5py.File(path, "w") as file:
        file["1.1/title"] = "fscan2d chi -0.1 0.1 3 diffrz 1 0.05 4 0.1 0.1"
        file["1.1/instrument/pco_ff/image"] = (
            np.full((12, 5, 6), 1000, np.uint16) + np.arange(12, dtype=np.uint16)[:, None, None]
        )
        file["1.1/instrument/chi/value"] = CHI
        file["1.1/instrument/diffrz/data"] = DIFFRZ + 1e-4
        file["1.1/instrument/positioners/obx"] = 263.13
        file["1.1/instrument/machine/current"] = 195.3
        file["1.1/measurement/pico4"] = np.arange(12.0)
        file["2.1/title"] = "loopscan 2 0.1"
        file["2.1/instrument/pco_ff/image"] = np.array([[[100]], [[101]]], np.uint16) * np.ones((1, 5, 6), np.uint16)
    return path


@pytest.fixture
def config():
    """Return the replay configuration with the small recording's frame shape."""
    return override(
        find_config("replay"), ["instrument.cameras.far_field.rows=5", "instrument.cameras.far_field.columns=6"]
    )


def _go(replay, **positions):
    for axis, position in positions.items():
        replay.wait_until(replay.start_move(axis, position, 1.0, 0.05))


def _look(replay):
    return replay.expose(FrameRequest("far_field", 0.1))


def test_it_is_a_backend_that_starts_where_the_recording_did(recording, config):
    replay = Replay(config, file=str(recording))
    assert isinstance(replay, Backend)
    assert replay.position("chi") == -0.1
    assert replay.position("diffrz") == pytest.approx(1.0001)
    assert replay.position("obx") == 263.13
    assert replay.position("mu") == config.axis("mu").start
    assert replay.get("ring_current") == 195.3
    assert replay.frame_shape("far_field") == (5, 6)


@pytest.mark.parametrize(
    ("chi", "diffrz", "number"), [(-0.1, 1.0, 0), (0.1, 1.15, 11), (0.04, 1.06, 5), (-0.06, 1.12, 2)]
)
def test_the_frame_recorded_within_half_a_step_is_served(recording, config, chi, diffrz, number):
    replay = Replay(config, file=str(recording), monitor="measurement/pico4")
    replay.put("shutter", "open")
    _go(replay, chi=chi, diffrz=diffrz)
    frame = _look(replay)
    assert frame.data.dtype == np.uint16
    assert (frame.data == 1000 + number).all()
    assert frame.monitor == number
    assert frame.ring_current_ma == 195.3
    assert frame.end_s - frame.start_s == pytest.approx(0.1)


@pytest.mark.parametrize("there", [{"chi": 0.16}, {"diffrz": 1.18}, {"chi": -0.17, "diffrz": 0.9}])
def test_where_nothing_was_recorded_there_is_no_frame(recording, config, there):
    replay = Replay(config, file=str(recording))
    replay.put("shutter", "open")
    _go(replay, **there)
    with pytest.raises(
        DeviceError, match=r"no frame was recorded at chi .* has chi -0.1 to 0.1 in steps of 0.1, diffrz 1 to 1.15"
    ):
        _look(replay)


def test_what_the_recording_did_not_move_cannot_be_moved(recording, config):
    replay = Replay(config, file=str(recording))
    replay.start_move("obx", 263.13, 1.0, 0.05)
    with pytest.raises(DeviceError, match="axis 'obx' cannot be moved to 200 in a replay: it stood at 263.13"):
        replay.start_move("obx", 200.0, 1.0, 0.05)
    with pytest.raises(DeviceError, match="'condenser' takes line, not 'box'"):
        replay.put("condenser", "box")
    with pytest.raises(DeviceError, match="no camera 'near_field'"):
        replay.expose(FrameRequest("near_field", 0.1))


def test_a_closed_shutter_shows_recorded_darks_in_turn_or_says_there_are_none(recording, config):
    replay = Replay(config, file=str(recording), darks="2.1")
    assert [int(_look(replay).data[0, 0]) for _ in range(3)] == [100, 101, 100]
    assert _look(replay).monitor == 0.0
    with pytest.raises(DeviceError, match="holds no recorded darks: open it, or ask for 0 darks"):
        _look(Replay(config, file=str(recording)))


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"file": "absent.h5"}, ConfigError, "absent.h5 is not there"),
        ({"file": "no_such_package:a.h5"}, ConfigError, "'no_such_package', which is not installed"),
        ({"scan": "9.1"}, FileFormatError, "has no entry '9.1'; it has 1.1, 2.1"),
        ({"scan": "2.1"}, FileFormatError, "title 'loopscan 2 0.1' is that of a scan that moves nothing"),
        ({"detector": "eiger"}, FileFormatError, "no frames of a detector 'eiger'"),
        ({"camera": "side"}, ConfigError, "'side' is not one of the cameras far_field"),
        ({"monitor": "measurement/diode"}, ConfigError, "'measurement/diode' is not a dataset"),
        ({"clock": "slow"}, ConfigError, "'slow' must be one of"),
    ],
)
def test_a_recording_that_does_not_fit_is_told(recording, config, options, error, told):
    with pytest.raises(error, match=told):
        Replay(config, **{"file": str(recording), **options})


def test_a_file_that_is_no_hdf5_and_frames_of_another_shape_are_told(recording, config, tmp_path):
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(FileFormatError, match=r"text\.h5 cannot be read as HDF5"):
        Replay(config, file=str(tmp_path / "text.h5"))
    with pytest.raises(ConfigError, match="have 5 rows and 6 columns, the configuration says 50 and 70"):
        Replay(find_config("replay"), file=str(recording))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("darling") is None, reason="its ID03 scan ships with darling-pypi")
def test_a_scan_on_the_replay_gives_the_maps_of_the_recording(tmp_path):
    """The ID03 mosaicity scan, run again from start to map: the same frames, and the same centres of mass.

    The recorded positions are those of a continuous motion and differ from the set-points by up to 7e-4 deg, so the
    maps differ by up to 2e-5 deg.
    """
    places = [f"data.directory={tmp_path / 'data'}", f"data.journal_directory={tmp_path / 'journal'}"]
    config = override(find_config("replay"), [*places, "data.minimum_free_gb=0.1"])
    with warnings.catch_warnings(), Session(config, maps=False, quiet=True) as session:
        warnings.filterwarnings("ignore", message=".*the step of.*")  # ID03 took 80 mdeg steps
        outcome = session.run("mosaicity_scan", {})
    darling = Path(next(iter(importlib.util.find_spec("darling").submodule_search_locations)))
    recorded = darling / "assets" / "example_data" / "mosa_scan_id03" / "mosa_scan.h5"
    with h5py.File(recorded) as file, h5py.File(outcome.master) as master:
        there = np.lexsort((file["1.1/instrument/diffrz/data"][()], file["1.1/instrument/chi/value"][()]))
        here = np.lexsort((master["1.1/instrument/diffrz/value"][()], master["1.1/instrument/chi/value"][()]))
        frames = master["1.1/instrument/far_field/data"][()]
        assert np.array_equal(file["1.1/instrument/pco_ff/image"][()][there], frames[here])
    ours, theirs = maps_from_file(outcome.master), maps_from_file(recorded, dark=None, monitor=None)
    assert np.array_equal(ours.integrated, theirs.integrated)
    for mine, recorded_axis in zip(ours.axes, theirs.axes, strict=True):
        assert np.nanstd(recorded_axis.com) > 1e-3
        assert np.nanmax(np.abs(mine.com - recorded_axis.com)) < 1e-4
