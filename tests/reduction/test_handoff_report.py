"""The report of a hand-off, and the registration, from the records of its runs alone."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

from dfxrm_control.cli._register import register
from dfxrm_control.config import find_config, override
from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import ParameterError, RecordError
from dfxrm_control.grains import GrainMap, Voxels, read_grain_map, write_labdct
from dfxrm_control.handoff import FoundGrain, Registration, RegistrationStore, choose, map_fingerprint, residuals_of
from dfxrm_control.records import Journal
from dfxrm_control.reduction.handoff import fit_registration, read_visits
from dfxrm_control.reduction.series import read_series, reduce_series

TRUTH = Registration((0.2, -0.1, 0.25), (0.02, -0.01, 0.015))
TILTS = [(3.0, 2.0), (-3.0, 1.0), (0.0, -3.5), (1.0, 3.0)]
AL = Lattice.from_parameters(4.0495, 4.0495, 4.0495, space_group="F m -3 m", atoms=[("Al", 0, 0, 0)])


@pytest.fixture
def grains(tmp_path):
    """Four grains in a row of voxels, written and read, so that file and memory say the same."""
    voxels = Voxels(np.arange(1, 5).reshape(4, 1, 1), np.full(3, 0.05), np.zeros(3))
    path = tmp_path / "map.h5"
    turns = Rotation.from_rotvec([[x, y, 10.0 * k] for k, (x, y) in enumerate(TILTS)], degrees=True).as_matrix()
    made = GrainMap(
        np.arange(1, 5),
        turns @ AL.B,
        np.array([voxels.place_mm([k, 0, 0]) for k in range(4)]),
        np.full((4, 3), 0.05),
        np.full(4, 1e-4),
        np.zeros(4, np.int64),
        (AL,),
        ("aluminium",),
        voxels,
    )
    with h5py.File(path, "w") as file:
        write_labdct(made, file)
    return read_grain_map(path)


@pytest.fixture
def campaign(grains, tmp_path):
    """Return a function that writes the runs of a campaign, and gives the folder of the last one."""
    config = override(find_config("simulated"), [f"data.directory={tmp_path / 'data'}", "sample.name=wire"])
    predicted = choose(grains, config, hkl=(0, 0, 2))
    true = choose(grains, config, hkl=(0, 0, 2), registration=TRUTH)

    def place(choices, grain):
        return next(
            row
            for row in np.flatnonzero(choices.reachable & (choices.grain_id == grain))
            if tuple(choices.hkl[row]) == (0, 0, 2)
        )

    def write(found: int = 4, wrong: int | None = None, missing: int | None = None):
        number, folder = 0, None
        for grain in range(1, found + 1):
            at = true.setting(int(place(true, grain)))
            if grain == wrong:
                at["samy"] += 0.08
            series = {
                "uid": "one",
                "kind": "handoff",
                "parameters": {"values": {"cell": None, "space_group": None}},
                "grain": grain,
                "hkl": [0, 0, 2],
                "predicted": predicted.setting(int(place(predicted, grain))),
                "map": {"source": grains.source, "fingerprint": map_fingerprint(grains)},
                "skipped": [{"grain": 9, "hkl": [0, 0, 2], "reason": "too large"}],
            }
            left = residuals_of(grains, Registration(), FoundGrain(grain, (0, 0, 2), at))
            scan = {
                "step": "scan",
                "found": {"positions": at, "angle_error_deg": 1e-3, "place_error_mm": 5e-4},
                "residuals": left.record(),
            }
            for step in ({"step": "find"}, *([] if grain == missing else [scan])):
                number += 1
                folder = tmp_path / "data" / "wire" / f"wire_{number:05d}"
                start = {
                    "uid": f"run{number}",
                    "time": float(number),
                    "scan_id": number,
                    "sample": "wire",
                    "dfxrm": {
                        "instrument": config.instrument.model_dump(mode="json"),
                        "series": {**series, **step, "index": number - 1},
                    },
                }
                journal = Journal(folder / f"{folder.name}.jsonl")
                journal("start", start)
                stop = {
                    "uid": f"stop{number}",
                    "time": number + 0.5,
                    "run_start": start["uid"],
                    "exit_status": "success",
                }
                journal("stop", stop)
        return folder

    write.config = config
    return write


def _register(config, *arguments):
    options = ["--data", str(config.data.directory), "--sample", "wire"]
    return CliRunner().invoke(register, [*map(str, arguments), *options], standalone_mode=False)


def test_the_report_says_of_each_grain_what_became_of_it(campaign, grains):
    text, report, table = reduce_series(read_series(campaign(missing=3)))
    content = json.loads(report.read_text())
    status = {each["grain"]: each["status"] for each in content["grains"]}
    assert status == {1: "scanned", 2: "scanned", 3: "not found", 4: "scanned", 9: "skipped"}
    np.testing.assert_allclose(content["registration"]["rotation_deg"], TRUTH.rotation_deg, atol=1e-4)
    np.testing.assert_allclose(content["registration"]["shift_mm"], TRUTH.shift_mm, atol=1e-6)
    assert content["grains"][2]["residuals"] is None
    words = text.read_text()
    assert "grain 9 (0 0 2): skipped; too large" in words and "rotation: 0.2000" in words
    with h5py.File(table) as file:
        columns = file["entry/grains"]
        assert columns["status"].asstr()[()].tolist() == list(status.values())
        way = np.linalg.norm(columns["residual_place"][()], axis=1)
        # 27 um of shift, and a little of the turn
        assert way[0] == pytest.approx(1e3 * np.linalg.norm(TRUTH.shift_mm), abs=1.0) and np.isnan(way[2])


def test_what_was_skipped_after_the_last_scan_and_where_the_registration_is_kept_are_reported(campaign, grains):
    folder = campaign()
    first = next(iter(read_series(folder).runs))
    series = {**first.series, "index": 99, "step": "end", "stored": "registration.json"}
    series = {name: value for name, value in series.items() if name not in ("grain", "hkl", "predicted")}
    series["skipped"] = [{"grain": 5, "hkl": [1, 1, 1], "reason": "out of reach by the better prediction"}]
    end = folder.with_name("wire_00099")
    journal = Journal(end / f"{end.name}.jsonl")
    journal("start", {**first.start, "uid": "end", "scan_id": 99, "dfxrm": {**first.dfxrm, "series": series}})
    journal("stop", {"uid": "ended", "time": 100.0, "run_start": "end", "exit_status": "success"})
    text, report, _ = reduce_series(read_series(end))
    content = json.loads(report.read_text())
    assert [each["grain"] for each in content["grains"]] == [1, 2, 3, 4, 5]
    assert content["grains"][4]["status"] == "skipped" and content["stored"] == "registration.json"
    assert "out of reach by the better prediction" in text.read_text() and "--undo" in text.read_text()


def test_the_command_stores_shows_and_undoes(campaign, grains):
    folder = campaign()
    store = RegistrationStore.of(campaign.config)
    shown = _register(campaign.config, folder, "--show")
    assert shown.exit_code == 0 and "predicted without it" in shown.output and store.current() is None
    stored = _register(campaign.config, folder)
    assert stored.exit_code == 0 and f"stored in {store.path}" in stored.output
    kept = store.for_map(grains)
    np.testing.assert_allclose(kept.rotation_deg, TRUTH.rotation_deg, atol=1e-4)
    assert "* " in _register(campaign.config, "--show").output
    assert "none of these holds" in _register(campaign.config, "--undo").output
    assert isinstance(_register(campaign.config, "--undo").exception, ParameterError)
    assert _register(campaign.config).exception is not None


def test_a_grain_that_contradicts_the_others_keeps_it_from_being_stored(campaign):
    folder = campaign(wrong=2)
    refused = _register(campaign.config, folder)
    assert isinstance(refused.exception, ParameterError)
    assert "nothing was stored: grain 2 stands" in str(refused.exception)
    assert "axes of the map are mixed up" in str(refused.exception)
    store = RegistrationStore.of(campaign.config)
    assert store.current() is None
    assert _register(campaign.config, folder, "--anyway").exit_code == 0 and store.current() is not None


def test_too_few_grains_and_another_map_are_refused(campaign, grains, tmp_path):
    series = read_series(campaign(found=2))
    with pytest.raises(ParameterError, match="needs 3 different grains, and 2 were found"):
        fit_registration(series.runs, read_visits(series.runs))
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        write_labdct(grains.only([1, 2, 3]), file)
    with pytest.raises(RecordError, match="is not the map that the runs went by"):
        fit_registration(series.runs, read_visits(series.runs), other)
