"""What holds of every plan there is: it is in every configuration, can be tried dry, and is in the reference."""

from pathlib import Path

import pytest

from dfxrm_control.config import find_config
from dfxrm_control.dry_run import dry_run
from dfxrm_control.errors import ParameterError
from dfxrm_control.parameters import PLAN_PARAMETERS

REFUSED = {"topotomography_scan": "axis omega: -180 deg is outside its limits -22 .. 22 deg"}
"""What cannot be done with the stages of the simulated microscope."""
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "plans.md"


@pytest.mark.parametrize("plan", PLAN_PARAMETERS)
def test_a_plan_can_be_tried_dry_with_nothing_but_its_defaults(plan):
    config = find_config("simulated")
    missing = [name for name, field in PLAN_PARAMETERS[plan].model_fields.items() if field.is_required()]
    if missing:
        with pytest.raises(ParameterError, match=f"{plan}: {missing[0]}"):
            dry_run(config, plan, {})
        return
    report = dry_run(config, plan, {})
    if plan in REFUSED:
        assert report.problems == [f"{plan}: {REFUSED[plan]}"]
        assert report.lines()[-1] == "the plan cannot run"
        return
    assert not report.problems
    assert report.lines()[-1] == "the plan can run"
    assert report.frames > 0 and report.darks > 0
    assert report.duration_s > report.exposed_s > 0
    assert all(
        travel.lower_limit <= travel.lowest <= travel.highest <= travel.upper_limit for travel in report.travel.values()
    )


def test_a_grain_can_be_turned_all_round_where_the_stages_can():
    report = dry_run(find_config("topotomography"), "topotomography_scan", {})
    assert not report.problems
    assert report.travel["omega"].highest - report.travel["omega"].lowest > 300


@pytest.mark.parametrize("plan", PLAN_PARAMETERS)
def test_a_plan_is_in_the_reference(plan):
    assert f"`{plan}`" in REFERENCE.read_text()
