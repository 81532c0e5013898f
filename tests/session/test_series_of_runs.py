"""Plans that make several runs: every run kept and counted, the series found again and reduced."""

import threading
import warnings

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import pytest

from dfxrm_control.config import override
from dfxrm_control.dry_run import dry_run
from dfxrm_control.errors import DeviceError, LimitError, ParameterError, RunError
from dfxrm_control.reduction.layers import read_volume
from dfxrm_control.reduction.series import read_series, reduce_series
from dfxrm_control.session import Session

CURVE = {"rock_range": 0.2, "rock_num": 7, "exposure_s": 0.2, "darks_before": 2}
STACK = {"layers": 3, "step_um": 2.0, "center_um": 1.0, "scan": "rocking_scan", "scan_parameters": CURVE}


@pytest.fixture(autouse=True)
def _coarse_steps_are_meant():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(step|window) of.*")
        yield


def test_every_run_has_its_own_record_and_says_what_it_belongs_to(session):
    outcome = session.run("layer_scan", STACK, {"sample": "al", "note": "mine"})
    assert [run.scan_id for run in outcome.runs] == [1, 2, 3] and outcome.status == "success"
    assert len({run.folder for run in outcome.runs}) == 3
    series = read_series(outcome.runs[1].folder)
    assert (series.kind, series.of, series.axis, series.units) == ("layers", 3, "height", "um")
    assert [run.value for run in series.runs] == [-1.0, 1.0, 3.0]
    assert [run.index for run in series.runs] == [0, 1, 2]
    assert {run.start["note"] for run in series.runs} == {"mine"}
    assert {run.start["plan_name"] for run in series.runs} == {"rocking_scan"}
    assert series.parameters["step_um"] == 2.0
    assert [run.master for run in series.complete] == [run.master for run in outcome.runs]
    # the master alone tells the same
    for run in outcome.runs:
        (run.folder / f"{run.folder.name}.jsonl").unlink()
    again = read_series(outcome.runs[2].master)
    assert again.uid == series.uid and [run.status for run in again.runs] == ["success"] * 3


def test_the_sample_goes_down_for_a_higher_layer_along_the_laboratory(session):
    outcome = session.run("layer_scan", STACK)
    heights = []
    for run in read_series(outcome.folder).runs:
        baseline = run.journal.baseline()
        heights.append(run.value)
        # mu turns z towards -x, so that the way up stands at sin(mu), cos(mu) in the tilted translations
        assert baseline["samx"] == pytest.approx(-0.155972e-3 * run.value, abs=1e-7)
        assert baseline["samz"] == pytest.approx(-0.987761e-3 * run.value, abs=1e-7)
        assert baseline["samy"] == pytest.approx(0.0, abs=1e-7)
    assert heights == [-1.0, 1.0, 3.0]
    assert session.axes["samz"].position == pytest.approx(0.0, abs=1e-6)


def test_what_cannot_be_is_refused_before_anything_moves(session):
    before = session.backend.axes()
    with pytest.raises(ParameterError, match="layer_scan: scan 'layer_scan' cannot be run in a series; mosaicity_scan"):
        session.run("layer_scan", {"scan": "layer_scan"})
    with pytest.raises(ParameterError, match="layer_scan: scan_parameters: rocking_scan: .* 'rock_nmu'"):
        session.run("layer_scan", {"scan": "rocking_scan", "scan_parameters": {"rock_nmu": 3}})
    with pytest.raises(ParameterError, match="scan_parameters: .* is no YAML mapping"):
        session.run("layer_scan", {"scan": "rocking_scan", "scan_parameters": "{rock_num: "})
    with pytest.raises(LimitError, match=r"layer_scan: the layer at 11000 um is out of reach: axis samz"):
        session.run("layer_scan", {**STACK, "step_um": 1000.0, "layers": 21, "center_um": 10000.0})
    session.channels["condenser"].set("box")
    with pytest.raises(ParameterError, match="layer_scan: the condenser is 'box', .* layers need the 'line' beam"):
        session.run("layer_scan", STACK)
    assert session.backend.axes() == before and session.recorder.journal is None


def test_a_run_that_fails_ends_the_series_and_those_before_are_kept(session, monkeypatch):
    expose, count = session.backend.expose, []

    def fail_late(request):
        count.append(request)
        if len(count) > 22:  # in the third layer of nine frames each
            raise DeviceError("the camera caught fire")
        return expose(request)

    monkeypatch.setattr(session.backend, "expose", fail_late)
    with pytest.raises(RunError, match="caught fire.*; 2 of 3 runs of the series are complete, and `dfxrm series "):
        session.run("layer_scan", STACK)
    series = read_series(session.recorder.folder)
    assert [run.status for run in series.runs] == ["success", "success", "fail"]
    assert session.axes["samz"].position == pytest.approx(0.0, abs=1e-6)
    assert session.channels["shutter"].get() == "closed"
    with pytest.warns(UserWarning, match="layer 3 of 3 is missing; the volume holds the other 2"):
        _, file = reduce_series(series)
    assert read_volume(file).shape[2] == 2


def test_a_series_that_cannot_be_reduced_is_not_offered_to_be(session, monkeypatch):
    expose, count = session.backend.expose, []

    def fail_early(request):
        count.append(request)
        if len(count) > 12:  # in the second layer of nine frames each
            raise DeviceError("the camera caught fire")
        return expose(request)

    monkeypatch.setattr(session.backend, "expose", fail_early)
    with pytest.raises(RunError, match="; 1 of 3 runs of the series are complete, too few to reduce$"):
        session.run("layer_scan", STACK)
    with pytest.raises(ParameterError, match="at least two layers"):
        reduce_series(read_series(session.recorder.folder))


def test_an_interrupted_series_says_how_far_it_came(session):
    def stop_in_the_second(name, doc):
        if name == "start" and doc["dfxrm"]["series"]["index"] == 1:
            threading.Timer(0.0, session.RE.request_pause).start()

    session.RE.subscribe(stop_in_the_second)
    with pytest.raises(RunError, match="interrupted: .*; 1 of 3 runs of the series are complete"):
        session.run("layer_scan", STACK)
    assert session.axes["samz"].position == pytest.approx(0.0, abs=1e-6)
    assert [run.status for run in read_series(session.recorder.folder).runs] == ["success", "abort"]


def test_runs_of_a_plan_of_ones_own_are_all_listed(session):
    def two():
        for _ in range(2):
            yield from bpp.run_wrapper(bps.mvr(session.axes["samx"], 0.001))

    outcome = session.execute(two())
    assert [run.scan_id for run in outcome.runs] == [1, 2] and outcome.series is None
    with pytest.raises(ParameterError, match="holds a run of its own, which belongs to no series"):
        read_series(outcome.folder)


def test_the_inner_plan_starts_from_the_parameters_of_the_configuration(small):
    config = override(small, ["scan.parameters={rocking_scan: " + str(CURVE).replace("'", "") + "}"])
    with Session(config, maps=False, quiet=True) as session:
        outcome = session.run("layer_scan", {"layers": 2, "scan": "rocking_scan", "scan_parameters": {"rock_num": 3}})
    with h5py.File(outcome.master) as master:
        assert master["1.1/instrument/far_field/data"].shape[0] == 3
        assert master["2.1/instrument/far_field/data"].shape[0] == 2


def test_a_dry_run_walks_through_all_layers(small):
    report = dry_run(small, "layer_scan", STACK)
    assert report.problems == [] and (report.frames, report.darks) == (21, 6)
    assert report.travel["samz"].lowest == pytest.approx(-2.9632845e-3) and report.travel["samz"].highest > 0.0
    report = dry_run(small, "layer_scan", {**STACK, "layers": 21, "step_um": 1000.0, "center_um": 10000.0})
    assert "out of reach" in report.problems[0]


@pytest.mark.slow
def test_maps_of_every_run_and_the_volume_are_made(small):
    with Session(small, maps=True, quiet=True) as session:
        outcome = session.run("layer_scan", STACK)
    assert outcome.maps_fault is None
    assert [run.maps.name for run in outcome.runs] == [f"annealed_aluminium_{n:05d}_maps.h5" for n in (1, 2, 3)]
    assert outcome.series.name == "annealed_aluminium_00001_layers"
    assert [path.suffix for path in outcome.products] == [".xdmf", ".h5"]
    volume = read_volume(outcome.products[1])
    assert volume.shape == (48, 64, 3) and list(volume.z) == pytest.approx([-1.0, 1.0, 3.0])
    assert any(line.startswith("series:  3 runs") for line in outcome.lines())


def test_layers_that_were_scanned_one_by_one_make_a_volume_too(session, dfxrm_series):
    """Moved by hand along samz, which is tilted with the sample: the stack leans along the beam."""
    folders = []
    for height in (0.0, 0.002, 0.004):
        session.move([(session.axes["samz"], -height)])
        folders.append(session.run("rocking_scan", CURVE).folder)
    other = session.run("rocking_scan", CURVE, {"sample": "copper"}).folder
    files = dfxrm_series("--kind", "layers", *map(str, reversed(folders)))
    volume = read_volume(next(path for path in files if path.suffix == ".h5"))
    assert volume.z == pytest.approx([0.0, 2 * 0.987761, 4 * 0.987761], abs=1e-4)
    assert volume.affine[:, 2] * 0.987761 == pytest.approx([0.0, 0.0, 1.0], abs=1e-4)
    with pytest.raises(ParameterError, match="different samples: .*'annealed_aluminium', .* of 'copper'.* are kept"):
        reduce_series(read_series(*folders, other), kind="layers")
    with pytest.raises(ParameterError, match="a series of kind '' cannot be reduced; layers, topotomography"):
        reduce_series(read_series(*folders))


@pytest.fixture
def dfxrm_series(capsys):
    """Return a function that runs ``dfxrm series`` and returns the files it names."""
    from pathlib import Path

    from dfxrm_control.cli._series import series

    def run(*arguments):
        capsys.readouterr()
        series.main(list(arguments), standalone_mode=False)
        return [Path(line) for line in capsys.readouterr().out.splitlines()]

    return run
