"""Aluminium from start to picture: sub-grains before and after a heat treatment, and how far off the map is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dfxrm_control.config import find_config, override
from dfxrm_control.demos import annealing as demo
from dfxrm_control.errors import ConfigError

pytestmark = pytest.mark.slow


def configuration(folder, name="furnace"):
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
    return demo.run_annealing(configuration(tmp_path_factory.mktemp("annealing")), quiet=True)


def test_walls_and_misorientations_are_those_known(found):
    for stage in found.stages:
        near, seen, misorientation = stage.check.targets(stage.name)
        assert near.met and near.found >= 90.0, near.line()
        assert seen.met and seen.found >= 90.0, seen.line()
        assert misorientation.met and misorientation.found <= 5.0, misorientation.line()
        # the numbers are of many walls
        assert stage.check.misorientation_error_deg.size >= 20
        assert stage.check.distance_px.size > 1000
    assert found.met and len(found.targets) == 6


def test_sub_grains_have_grown_and_the_peak_has_moved(found):
    before, after = found.stages
    sizes = [np.mean([domain.area for domain in stage.domains.domains]) for stage in (before, after)]
    assert sizes[1] > 1.3 * sizes[0]
    assert found.peaks[-1]["strain"] == pytest.approx(7.5e-3, abs=5e-5)
    # b / theta: 0.33 um at 0.05 deg
    spacing = [wall.spacing_um for wall in before.domains.walls if wall.length > 3.0]
    assert 0.2 < np.median(spacing) < 0.6
    assert found.picture.stat().st_size > 50_000


def test_a_missed_number_is_said(found):
    before, after = found.stages
    shifted = replace(before.check, distance_px=before.check.distance_px + 5.0)
    wrong = replace(found, stages=(replace(before, check=shifted), after))
    assert not wrong.met
    assert any("MISSED" in line and "before" in line for line in wrong.lines())


def test_a_microscope_without_truth_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        demo.run_annealing(configuration(tmp_path, "replay"), quiet=True)
