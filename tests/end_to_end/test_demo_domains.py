"""Potassium niobate from start to picture: the domains, the small steps, and what is said when they are missed."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from dfxrm_control.cli import main
from dfxrm_control.config import find_config, override
from dfxrm_control.demos import domains as demo
from dfxrm_control.errors import ConfigError

pytestmark = pytest.mark.slow


def configuration(folder, name="domains"):
    return override(
        find_config(name),
        [
            f"data.directory={json.dumps(str(folder / 'data'))}",
            f"data.journal_directory={json.dumps(str(folder / 'journal'))}",
            "data.minimum_free_gb=0.01",
        ],
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return demo.run_domains(configuration(tmp_path_factory.mktemp("domains")), quiet=True)


def label_at(found, number):
    """Return the label that most pixels of a known domain carry, and the share that does."""
    labels, counts = np.unique(found.domains.labels[found.known.labels == number], return_counts=True)
    return int(labels[counts.argmax()]), counts.max() / counts.sum()


def test_every_domain_that_diffracts_is_found_and_every_dark_one_is_said_to_be_dark(found):
    numbers, counts = np.unique(found.known.labels, return_counts=True)
    assert numbers.min() >= 0  # the crystal fills the field
    seen = [number for number, count in zip(numbers, counts, strict=True) if count > 1000]
    labels = {number: label_at(found, number) for number in seen}
    bright = [number for number in seen if found.known.bright[number]]
    dark = [number for number in seen if not found.known.bright[number]]
    assert len(bright) >= 10
    assert len(dark) == 2
    assert all(share > 0.95 for _, share in labels.values())
    assert len({labels[number][0] for number in bright}) == len(bright)
    assert all(labels[number][0] > 0 for number in bright)
    assert {labels[number][0] for number in dark} == {-1, -2}
    # no domain but those
    assert len(found.domains.domains) == len(bright)


def test_tilts_and_strain_of_domains_are_those_known(found):
    means = {one.label: one for one in found.domains.domains}
    for name, limit in (("tilt_rock", 2e-3), ("tilt_roll", 2e-3), ("strain", 2e-5)):
        off = []
        for number in np.unique(found.known.labels[found.known.light]):
            if (found.known.labels == number).sum() > 5000:
                label, _ = label_at(found, number)
                off.append(means[label].mean[name] - found.known.values[name][number])
        # each map counts from its own median
        assert np.ptp(off) < 2 * limit
        assert np.std(off) < limit / 2


def test_steps_that_nobody_announced_are_measured_within_two_millidegrees(found):
    steps = {step.kind: step for step in found.steps}
    assert set(steps) == {"rock", "roll", "strain"}
    for kind in ("rock", "roll"):
        assert abs(steps[kind].known) == pytest.approx(10.0)
        assert steps[kind].found == pytest.approx(steps[kind].known, abs=2.0)
        # of one pixel, as predicted from noise: a step is less than ten of them
        assert 0.5 < steps[kind].pixel_error < 5.0
        assert steps[kind].error < 0.2
    assert steps["strain"].known == pytest.approx(200.0)
    assert steps["strain"].found == pytest.approx(200.0, abs=10.0)
    assert 2.0 < steps["strain"].pixel_error < 40.0


def test_errors_of_pixels_are_those_predicted(found):
    field, known = found.domains.field, found.known
    means = {one.label: one for one in found.domains.domains}
    number = int(np.bincount(known.labels[known.light]).argmax())
    label, _ = label_at(found, number)
    # far from walls: 25 pixels along either axis
    inside = (known.labels == number) & field.valid
    for axis in (0, 1):
        inside &= (np.roll(known.labels, 25, axis) == number) & (np.roll(known.labels, -25, axis) == number)
    inside[:25] = inside[-25:] = inside[:, :25] = inside[:, -25:] = False
    assert inside.sum() > 1000
    for name in ("tilt_rock", "tilt_roll"):
        off = (field.values[name] - means[label].mean[name])[inside]
        predicted = float(np.median(field.error[name][inside]))
        assert np.std(off) == pytest.approx(predicted, rel=0.2)


def test_walls_lie_within_two_pixels(found):
    assert np.percentile(found.distance_px, 95) <= 2.0
    assert np.median(found.distance_px) <= 1.0
    assert found.distance_px.size > 3000


def test_report_and_picture_hold_the_numbers(found):
    assert found.met
    said = "\n".join(found.lines())
    for words in (
        "domains that diffract",
        "not in this reflection",
        "twin angle",
        "step in roll",
        "one pixel",
        "walls",
    ):
        assert words in said
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    with h5py.File(found.picture.with_name("domains.h5")) as file:
        assert np.array_equal(file["entry/labels/data"][()], found.domains.labels)


def test_what_is_missed_is_said(found):
    one, two = (label_at(found, number)[0] for number in _pair(found, "roll"))
    merged = replace(found.domains, labels=np.where(found.domains.labels == two, one, found.domains.labels))
    steps, _, targets = demo.compare(merged, found.known)
    missed = {target.name: target for target in targets if not target.met}
    assert "step in roll" in missed
    assert "domains that diffract, found" in missed
    assert "MISSED" in missed["domains that diffract, found"].line()
    assert np.isnan(next(step for step in steps if step.kind == "roll").found)
    moved = replace(found.domains, labels=np.roll(found.domains.labels, 12, axis=1))
    _, distance, targets = demo.compare(moved, found.known)
    assert np.median(distance) > 2.0
    assert not next(target for target in targets if target.name.startswith("walls")).met


def _pair(found, kind):
    """Return the two known domains of a small step."""
    name = f"tilt_{kind}"
    change = np.diff(found.known.values[name])
    (number,) = np.flatnonzero(np.abs(np.abs(change) - 0.01) < 1e-6)
    return int(number), int(number) + 1


def test_exit_code_tells_whether_all_was_reached(found, monkeypatch, capsys, tmp_path):
    failed = replace(found, targets=(replace(found.targets[0], found=0.0),))
    for result, code in ((found, 0), (failed, 1)):
        monkeypatch.setattr(demo, "run_domains", lambda config, quiet, result=result: result)
        with pytest.raises(SystemExit) as ended:
            main(["demo", "domains", "--data", str(tmp_path), "--quiet"])
        assert ended.value.code == code
    assert "MISSED by 13" in capsys.readouterr().out


def test_a_microscope_without_truth_is_refused(tmp_path, monkeypatch):
    from simulators import Twin

    monkeypatch.delattr(Twin, "known_domains")
    with pytest.raises(ConfigError, match="no truth"):
        demo.run_domains(configuration(tmp_path), quiet=True)
