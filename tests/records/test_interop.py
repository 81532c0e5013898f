"""The masters in the field's own programs, unmodified, each in a process of its own."""

import subprocess
import sys
import time
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from scipy.ndimage import median_filter
from standins import OPTICS, SHAPE, Beamline, frame
from test_interruptions import stopped_after

HERE = Path(__file__).parent
pytest.importorskip("darfix")
pytest.importorskip("ewokscore")

CHI, PHI = (-0.3, 0.1, 4), (7.0, 0.02, 5)


def run_check(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / script), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def darfix(master, results, camera="far_field", dark=""):
    results.mkdir()
    run_check("check_darfix.py", master, camera, dark, results)
    return np.load(results / "found.npz")


def centres_of_mass(master, camera="far_field"):
    """Return centre of mass per motor computed here from the master, with darfix's 3 x 3 median."""
    with h5py.File(master) as file:
        data = file[f"1.1/instrument/{camera}/data"][()].astype(float)
        motors = [name for name in file["1.1/measurement"] if name != camera]
        values = {name: file[f"1.1/instrument/{name}/value"][()] for name in motors}
    return {name: median_filter(np.tensordot(v, data, (0, 0)) / data.sum(0), 3) for name, v in values.items()}


def assert_same_maps(found, master, sizes, camera="far_field"):
    assert dict(zip(found["names"].tolist(), found["sizes"].tolist(), strict=True)) == sizes
    assert found["mainx"] == OPTICS["mainx"] and found["obx"] == OPTICS["obx"]
    for name, expected in centres_of_mass(master, camera).items():
        inside = np.s_[2:-2, 2:-2]
        np.testing.assert_allclose(found[f"com_{name}"][inside], expected[inside], atol=2e-5)


@pytest.mark.slow
def test_darfix_finds_mesh_motors_and_optics_of_a_snake(beamline, tmp_path):
    beamline.RE(beamline.mesh(CHI, PHI, darks=3))
    found = darfix(beamline.recorder.master, tmp_path / "found", dark="2.1")
    assert_same_maps(found, beamline.recorder.master, {"phi": 5, "chi": 4})


@pytest.mark.slow
def test_darfix_opens_an_aborted_mesh(beamline, tmp_path):
    stopped_after(beamline, 9, "abort").close()
    found = darfix(beamline.recorder.master, tmp_path / "found")
    assert_same_maps(found, beamline.recorder.master, {"phi": 4, "chi": 2})


@pytest.mark.slow
def test_darfix_opens_the_finished_lines_of_a_scan_that_is_running(beamline, tmp_path):
    found = []

    def look():
        yield from bps.checkpoint()
        deadline = time.monotonic() + 10
        while not beamline.recorder.master.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        maps = darfix(beamline.recorder.master, tmp_path / "found")
        assert_same_maps(maps, beamline.recorder.master, {"phi": 5, "chi": 3})
        found.append(maps)

    def after_three_lines(message):
        due = message.command == "complete" and beamline.camera.taken == 15 and not found
        return None, (look() if due else None)

    beamline.RE(bpp.plan_mutator(beamline.mesh(CHI, PHI), after_three_lines))
    assert found


@pytest.mark.slow
def test_darling_reads_mesh_rocking_scan_darks_and_an_aborted_mesh(tmp_path):
    """In one process, because importing darling compiles for half a minute."""
    names = {"phi": "diffry", "far_field": "pco_ff"}
    mesh = Beamline(tmp_path / "mesh", motor_names=names)
    mesh.RE(mesh.mesh(CHI, PHI, darks=3))
    aborted = Beamline(tmp_path / "aborted")
    stopped_after(aborted, 9, "abort").close()
    rock = Beamline(tmp_path / "rock", motor_names={"phi": "mu"})

    @bpp.baseline_decorator(rock.baseline)
    @bpp.stage_decorator([rock.camera])
    @bpp.run_decorator(md=rock.metadata([{"name": "phi", "start": 0.5, "step": -0.01, "num": 9}]))
    def rocking_scan():
        for i in range(9):
            yield from bps.mv(rock.phi, 0.5 - 0.01 * i)
            yield from bps.trigger_and_read([*rock.detectors, rock.phi])

    rock.RE(rocking_scan())
    jobs = [
        ("MosaScan", mesh.recorder.master, "1.1"),
        ("Darks", mesh.recorder.master, "2.1"),
        ("MosaScan", aborted.recorder.master, "1.1"),
        ("RockingScan", rock.recorder.master, "1.1"),
    ]
    run_check("check_darling.py", tmp_path / "found.npz", *[part for job in jobs for part in job])
    found = np.load(tmp_path / "found.npz")

    data, motors = found["data_0"], found["motors_0"]
    assert data.shape == (*SHAPE, 4, 5) and motors.shape == (2, 4, 5)
    chi, phi = np.meshgrid(-0.3 + 0.1 * np.arange(4), 7 + 0.02 * np.arange(5), indexing="ij")
    np.testing.assert_allclose(motors, [chi, phi], atol=1e-6)
    for i, j in np.ndindex(4, 5):
        taken = 3 + 5 * i + (4 - j if i % 2 else j)  # three darks first, then a snake
        np.testing.assert_array_equal(data[:, :, i, j], frame(taken))
    np.testing.assert_array_equal(np.moveaxis(found["data_1"], 2, 0), [frame(n) for n in range(3)])
    assert found["data_2"].shape == (*SHAPE, 2, 4)
    # darling sorts by position: a scan downwards comes out upwards
    np.testing.assert_allclose(found["motors_3"][0], 0.42 + 0.01 * np.arange(9), atol=1e-6)
    np.testing.assert_array_equal(np.moveaxis(found["data_3"], 2, 0), [frame(8 - n) for n in range(9)])
