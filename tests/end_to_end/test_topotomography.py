"""The shape of a grain from its topotomography, against the shape that the twin was given."""

import dataclasses

import numpy as np
import pytest
from shapes import inside, overlap

from dfxrm_control.config import find_config, override
from dfxrm_control.errors import DeviceError, ParameterError, RunError
from dfxrm_control.reduction.layers import read_volume
from dfxrm_control.reduction.series import read_series, reduce_series
from dfxrm_control.session import Session

pytest.importorskip("astra")

SCAN = {"omega_num": 36, "exposure_s": 0.5}


@pytest.fixture
def open_grain(tmp_path):
    """Return a function that opens a session on the twin of one grain with some settings changed."""
    opened = []

    def start(*settings):
        places = [f"data.directory={tmp_path / 'data'}", f"data.journal_directory={tmp_path / 'journal'}"]
        config = override(find_config("topotomography"), [*places, "data.minimum_free_gb=0.01", *settings])
        opened.append(Session(config, maps=False, quiet=True))
        return opened[-1]

    yield start
    for session in opened:
        session.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        (),
        (
            "backend.options.sample_options={tilt_deg: [1.5, -2.0, 0.0], centre_um: [2.0, -1.5, 1.0]}",
            "devices.goniometer.axes.chi.start=-1.5",
            "devices.goniometer.axes.phi.start=2.0",
        ),
        ("instrument.sample_stage=below", "instrument.cameras.far_field.flip_lr=true"),
    ],
    ids=["as it is", "tilted and off centre", "translations below, camera flipped"],
)
def test_the_grain_has_its_own_shape(open_grain, settings):
    session = open_grain(*settings)
    outcome = session.run("topotomography_scan", SCAN)
    assert [run.status for run in outcome.runs] == ["success", "success"]
    assert session.channels["condenser"].get() == "line" and session.axes["omega"].position == pytest.approx(
        0, abs=1e-3
    )
    _, file, picture = reduce_series(read_series(outcome.folder))
    assert picture.stat().st_size > 10_000
    grain = read_volume(file)
    truth = inside(session.backend.sample, grain.points())
    found = grain.fields["grain"].astype(bool)
    right = overlap(found, truth)
    assert right >= 0.9
    for axis in range(3):
        assert overlap(np.flip(found, axis), truth) < right - 0.05


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("backend.options.sample_options={tilt_deg: [0.01, 0.02, 0.0]}",), "peak of mu wanders by 0.04.* align chi"),
        (("backend.options.sample_options={tilt_deg: [0.0, 0.1, 0.0]}",), "the spot has .* align chi and phi"),
        (("backend.options.sample_options={tilt_deg: [0.0, 0.4, 0.0]}",), "nothing diffracts"),
        (("backend.options.sample_options={centre_um: [9.0, 0.0, 0.0]}",), "reaches the border of the frame"),
    ],
    ids=["wanders", "fades", "dark", "cut"],
)
def test_what_is_not_aligned_is_not_scanned(open_grain, settings, sentence):
    session = open_grain(*settings)
    with pytest.raises(RunError, match=f"topotomography_scan: .*{sentence}.*1 of 2 runs of the series are complete"):
        session.run("topotomography_scan", SCAN)
    assert session.channels["shutter"].get() == "closed" and session.channels["condenser"].get() == "line"
    assert session.axes["omega"].position == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
def test_what_was_taken_of_an_aborted_scan_is_reconstructed_and_said(open_grain, monkeypatch):
    session = open_grain()
    expose, count = session.backend.expose, []

    def fail_late(request):
        count.append(request)
        if len(count) > 20 + 4 * 7 + 20 + 30 * 7 + 3:
            raise DeviceError("the camera caught fire")
        return expose(request)

    monkeypatch.setattr(session.backend, "expose", fail_late)
    with pytest.raises(RunError, match="caught fire.*; 1 of 2 runs of the series are complete"):
        session.run("topotomography_scan", {**SCAN, "rock_range": 0.09, "rock_num": 7})
    series = read_series(session.recorder.folder)
    with pytest.warns(UserWarning, match="30 of 36 turns were taken"):
        _, file, _ = reduce_series(series)
    grain = read_volume(file)
    assert overlap(grain.fields["grain"].astype(bool), inside(session.backend.sample, grain.points())) > 0.85
    check_only = dataclasses.replace(series, runs=series.runs[:1])
    with pytest.raises(ParameterError, match="the projections were not taken: .* its record is kept"):
        reduce_series(check_only)
