"""Strain scans from the command line: their options, the foretold travel of the arm, and a run with its maps."""

import json

import pytest
from command_line import SMALL

STEPS = ["--darks-before", "4", "--exposure-s", "0.1", "--set", "sample.spread_deg=0.02"]


@pytest.mark.parametrize(
    ("plan", "option", "sentence"),
    [
        ("strain", "--axis two_theta|ccmth", "axial strain"),
        ("mosaicity-strain", "--two-theta-num N", "orientation and axial strain"),
        ("two-theta", "--two-theta-range DEG", "relative contrast, not strain"),
        ("energy", "--ccmth-step DEG", "relative contrast, not strain"),
    ],
)
def test_help_says_what_is_measured_and_in_which_unit(dfxrm, plan, option, sentence):
    done = dfxrm("run", plan, "--help")
    assert done.returncode == 0 and option in done.stdout
    assert sentence in " ".join(done.stdout.split())


@pytest.mark.parametrize(("plan", "axes"), [("strain", 2), ("mosaicity-strain", 3), ("two-theta", 1)])
def test_a_dry_run_reports_every_axis_of_the_arm(dfxrm, plan, axes):
    done = dfxrm("dry-run", plan, "--json", *SMALL, *STEPS)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"two_theta", "obx", "obz", "obpitch", "ffz"} <= set(report["travel"])
    assert len({"two_theta", "phi", "chi"} & set(report["travel"])) == axes
    assert report["travel"]["obpitch"]["highest"] == report["travel"]["two_theta"]["highest"]
    assert report["duration_s"] > report["frames"] * 0.11 and not report["problems"]


def test_a_position_that_one_part_of_the_arm_cannot_reach_is_refused(dfxrm, tmp_path):
    done = dfxrm("run", "strain", "--no-relative", "--two-theta-center", "19.2", *SMALL, *STEPS)
    assert done.returncode != 0 and "axis ffz" in done.stderr and "outside its limits" in done.stderr
    assert not list(tmp_path.glob("dfxrm-data/*/*"))


def test_a_strain_scan_runs_from_the_command_line(dfxrm, tmp_path):
    done = dfxrm("run", "strain", *SMALL, *STEPS, "--set", "backend.options.sample=perfect_crystal")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("dfxrm-data/*/*/*_00001.h5")) and list(tmp_path.glob("dfxrm-data/*/*/maps/*_maps.h5"))
