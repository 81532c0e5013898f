"""A series with a furnace on the twin, from the first ramp to stack, movie and Bragg angle over temperature."""

import math
import threading
import time

import h5py
import numpy as np
import pytest
from bluesky.utils import RunEngineInterrupted

from dfxrm_control.dry_run import dry_run
from dfxrm_control.errors import RunError
from dfxrm_control.reduction.series import read_series, reduce_series

SMALL = "backend.options.sample_options={size_um: [24, 12, 8], voxel_um: [0.25, 0.125, 0.2]}"
SCAN = {"scan": "rocking_scan", "scan_parameters": {"exposure_s": 0.3}}
FIND = {"find_exposure_s": 0.05}
ALPHA = 25e-6


@pytest.fixture
def heated(open_session):
    """Return a function that opens a session on a small twin with a furnace."""
    return lambda *settings: open_session("scan.darks=10", SMALL, *settings, config="furnace")


def strain_of(two_theta, first):
    return math.sin(math.radians(first / 2)) / math.sin(math.radians(two_theta / 2)) - 1


@pytest.mark.slow
def test_the_peak_is_found_again_and_the_bragg_angle_follows_the_expansion(heated, tmp_path):
    session = heated("backend.options.coarsening=null")
    programme = {"programme": "25, 175@30, 325@30/60, 25@30", **SCAN, **FIND}
    foreseen = dry_run(session.config, "time_series", programme)
    outcome = session.run("time_series", programme)
    series = read_series(outcome.folder)
    assert len(series.complete) == series.of == 4
    assert not foreseen.problems
    assert foreseen.duration_s == pytest.approx(session.backend.now(), rel=0.1)
    peaks = series.runs[-1].series["peaks"]
    # the scan at 25 degC needs no new peak
    assert [round(peak["temperature"]) for peak in peaks] == [25, 175, 325, 25]
    for peak in peaks:
        assert peak["theta_b"] == peak["two_theta"] / 2
        assert peak["strain"] == pytest.approx(strain_of(peak["two_theta"], peaks[0]["two_theta"]), abs=1e-12)
        assert peak["strain"] == pytest.approx(ALPHA * (peak["temperature"] - 25), abs=4e-5)
    # 2theta falls by 0.136 deg to first order, and the crystal rocks back by half of it
    assert peaks[2]["two_theta"] - peaks[0]["two_theta"] == pytest.approx(-0.1346, abs=1e-3)
    assert peaks[2]["rock"] - peaks[0]["rock"] == pytest.approx(0.0673, abs=3e-3)
    assert [run.series["temperature"] for run in series.runs] == pytest.approx([25, 175, 325, 25])
    # the crystal is as bright when hot as when cold
    means = [read_mean(run.master) for run in series.runs]
    assert min(means) > 0.8 * max(means)

    files = reduce_series(series, tmp_path / "out")
    with h5py.File(files[0]) as file:
        data = file["entry/data"]
        assert data["phi_com"].shape == (4, *data["integrated"].shape[1:]) and data["phi_com"].attrs["units"] == "deg"
        assert data["temperature"][()] == pytest.approx([25, 175, 325, 25])
        assert data["time"][()] == pytest.approx([run.value for run in series.runs])
        peak = file["entry/bragg_peak"]
        assert peak["theta_b"][()] == pytest.approx([each["theta_b"] for each in peaks])
        assert peak["expansion"][()] == pytest.approx(ALPHA, rel=0.01)
        assert peak["expansion"].attrs["units"] == "1/K"
    from PIL import Image

    with Image.open(files[1]) as film:
        assert film.format == "GIF" and film.n_frames == 4
    assert files[2].suffix == ".png" and files[2].stat().st_size > 10_000


def read_mean(master):
    with h5py.File(master) as file:
        frames = file["1.1/measurement/far_field"][()].astype(float)
    return frames.sum(0).mean() - 102.5 * len(frames)


def test_a_crystal_that_is_not_found_again_ends_the_series_with_what_is_kept(heated):
    # not expanded in the configuration's opinion, and a search too narrow for what it does
    session = heated("backend.options.coarsening=null", "sample.expansion_per_k=60.0e-6")
    session.instrument.sample.__dict__["expansion_per_k"] = 0.0
    with pytest.raises(RunError) as caught:
        session.run("time_series", {"programme": "25, 325@30, 25@30", "find_range": 0.1, **SCAN, **FIND})
    said = str(caught.value)
    assert "time_series: the Bragg peak was not found again at 325 degC in 0.1 deg about two_theta 17.94" in said
    assert "1 of 3 runs of the series are complete" in said and "\n" not in said
    assert session.channels["shutter"].get() == "closed"


@pytest.mark.parametrize(
    ("error_k", "sentence"),
    [
        (-75.0, r"axis temperature did not reach 325 degC within 1\.2e\+03 s; it is at 250 degC"),
        (+250.0, r"furnace is too hot: 51\d(\.\d+)? degC, above its over-temperature of 510 degC; it goes to its safe"),
    ],
)
def test_a_furnace_that_fails_ends_the_series_in_one_sentence_with_what_is_kept(heated, error_k, sentence):
    session = heated("backend.options.coarsening=null", f"backend.options.heater_error_k={error_k}")
    with pytest.raises(RunError, match=sentence) as caught:
        session.run("time_series", {"programme": "25, 325@30/600", "find": "never", **SCAN})
    assert "1 of 2 runs of the series are complete" in str(caught.value) and "\n" not in str(caught.value)
    assert session.channels["shutter"].get() == "closed"
    # and it cools by itself
    end = time.monotonic() + 5.0
    while session.backend.temperature != 25.0 and time.monotonic() < end:
        time.sleep(0.01)
    assert session.backend.temperature == 25.0


@pytest.mark.slow
def test_the_drift_of_a_heated_sample_is_measured_and_taken_off(heated, tmp_path):
    per_k = np.array([0.004, -0.003])
    session = heated(
        "backend.options.coarsening=null",
        f"backend.options.thermal_drift_um_per_k=[{per_k[0]}, {per_k[1]}, 0.0]",
        "backend.options.sample_options={size_um: [60, 40, 8], voxel_um: [0.25, 0.125, 0.2]}",
        "instrument.cameras.far_field.rows=256",
        "instrument.cameras.far_field.columns=512",
    )
    outcome = session.run("time_series", {"programme": "25, 125@30, 225@30, 25@30", **SCAN, **FIND})
    files = reduce_series(read_series(outcome.folder), tmp_path / "out")
    with h5py.File(files[0]) as file:
        drift = np.stack([file["entry/drift/x"][()], file["entry/drift/y"][()]], axis=-1)
        warm = file["entry/data/temperature"][()] - 25.0
        com = file["entry/data/phi_com"][()]
        seen_in = list(file["entry/drift/seen_in"].asstr())
    # the sample's x is tilted by mu against the layer
    true = warm[:, np.newaxis] * per_k * [math.cos(math.radians(8.97)), 1.0]
    assert drift[:, 1] == pytest.approx(true[:, 1], abs=0.03)
    assert drift[:, 0] == pytest.approx(true[:, 0], abs=0.15)
    assert seen_in == ["", "phi", "phi", "phi"]
    # on top of each other the maps agree, and without the correction they would not
    relative = com - np.nanmedian(com, axis=(1, 2), keepdims=True)
    both = np.isfinite(relative[0]) & np.isfinite(relative[2])
    assert np.corrcoef(relative[0][both], relative[2][both])[0, 1] > 0.97


def test_sub_grains_coarsen_at_temperature_and_the_known_field_follows(heated):
    session = heated()
    twin = session.backend
    before = twin.sample
    session.run("time_series", {"programme": "325@30/1200, 25@30*0", "find": "never", **SCAN})
    after = twin.sample
    assert len(np.unique(after.domain)) < 0.7 * len(np.unique(before.domain))
    from simulators import known_field

    field = known_field(twin, ("phi",))
    spread = np.nanstd(field.com[0])
    assert spread < 0.95 * np.std(before.tilt_deg[before.index][..., 1])


# -- waiting that can be interrupted, in real time -----------------------------------------------------------

REAL = (
    "backend.options.coarsening=null",
    "backend.options.clock=real",
    "scan.darks=0",
    "devices.furnace.axes.temperature.velocity=200.0",
    "devices.furnace.settings.look_every_s=0.02",
)
QUICK = {"scan": "rocking_scan", "scan_parameters": {"exposure_s": 0.001, "rock_range": 0.02, "rock_num": 2}}


def interrupt(session, when):
    """Ask for a pause as soon as something is so."""

    def watch():
        end = time.monotonic() + 20.0
        while not when() and time.monotonic() < end:
            time.sleep(0.005)
        session.RE.request_pause(defer=False)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")
@pytest.mark.parametrize("temperature_from", [60.0, 124.9], ids=["on the ramp", "in the hold"])
def test_a_pause_stops_waiting_and_its_end_goes_on(heated, temperature_from):
    session = heated(*REAL)
    temperature = session.axes["temperature"]
    thread = interrupt(session, lambda: temperature.position >= temperature_from)
    plan = session.plans["time_series"](programme="125@6000/2.0", find="never", **QUICK)
    with pytest.raises(RunEngineInterrupted):
        session.RE(plan)
    thread.join()
    assert session.RE.state == "paused" and session.channels["shutter"].get() == "closed"
    here = temperature.position
    assert temperature_from - 1 < here < 126
    time.sleep(0.2)
    assert temperature.position == pytest.approx(here)
    session.RE.resume()
    assert temperature.position == pytest.approx(125.0)
    # the record of the one scan
    assert session.recorder.folder is not None


@pytest.mark.filterwarnings("ignore::dfxrm_control.windows.WindowWarning")
def test_an_abort_in_a_hold_ends_at_once_and_the_furnace_cools(heated):
    session = heated(*REAL)
    temperature = session.axes["temperature"]
    thread = interrupt(session, lambda: temperature.position >= 124.9)
    with pytest.raises(RunEngineInterrupted):
        session.RE(session.plans["time_series"](programme="125@6000/600", find="never", **QUICK))
    thread.join()
    begin = time.monotonic()
    session.RE.abort()
    assert time.monotonic() - begin < 5.0 and session.RE.state == "idle"
    end = time.monotonic() + 10.0
    while temperature.moving and time.monotonic() < end:
        time.sleep(0.01)
    assert temperature.position == pytest.approx(25.0)


def test_the_temperature_is_recorded_with_every_frame(heated):
    session = heated("backend.options.coarsening=null")
    outcome = session.run("time_series", {"programme": "60@30", "find": "never", **SCAN})
    with h5py.File(outcome.master) as file:
        counters = file["1.2/measurement"]
        assert counters["temperature"][()] == pytest.approx(60.0) and len(counters["temperature"]) > 5
        assert file["1.1/instrument/positioners_start/temperature"].attrs["units"] == "degC"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_the_peak_of_a_mosaic_crystal_is_found_though_its_curve_has_several(heated, seed):
    mosaic = SMALL.replace("{", "{subgrain_um: 8.0, wall_deg: 0.14, ")
    session = heated(mosaic, f"backend.options.seed={seed}", "backend.options.coarsening=null")
    arm, phi = session.axes["two_theta"], session.axes["phi"]
    two_theta = arm.position
    session.move([(arm, two_theta + 0.03), (phi, 0.02)])
    (found,) = session.run("find_bragg", {"exposure_s": 0.05}).findings
    assert found.sure and "several peaks: centre of mass" in found.reason, found.line()
    assert arm.position == pytest.approx(two_theta, abs=5e-3)
    # the centre of mass of the light that there is, without noise
    rock, middle, light = np.arange(-0.4, 0.4, 0.01), phi.position, []
    session.backend.put("shutter", "open")
    for place in rock:
        session.move([(phi, place)])
        light.append(session.backend.photons("far_field", 1.0).sum())
    assert middle == pytest.approx(np.average(rock, weights=light), abs=3e-3)
