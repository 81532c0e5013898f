"""What is declared of the arm belongs to the microscope: the next session and a dry run count from it."""

import math
import time
from pathlib import Path

import bluesky.plan_stubs as bps
import pytest

from dfxrm_control.config import override
from dfxrm_control.dry_run import dry_run
from dfxrm_control.geometry import arm_positions
from dfxrm_control.microscope import declared_offsets
from dfxrm_control.session import Session, namespace

OFF = {"obz": 0.2, "oby": -0.05, "obpitch": 0.1}
ANGLE = 17.9


def _opened(config):
    return Session(config, maps=False, quiet=True)


def _move_off(session):
    """Put each part where an ideal arm has it, and then some beside."""
    session.move([(session.axes["two_theta"], ANGLE)])
    session.move([(axis := session.axes[name], axis.setpoint + by) for name, by in OFF.items()])


def _baseline(session):
    return {key: each["value"] for key, each in session.channels["two_theta_zero"].read().items()}


@pytest.fixture
def declared(small):
    """Return the configuration after a session that declared its arm, in a plan, as `align` does at its end."""
    with _opened(small) as session:
        _move_off(session)
        session.RE(bps.abs_set(session.channels["two_theta_zero"], ANGLE, wait=True))
    return small


def test_the_next_session_counts_from_what_was_declared(declared):
    with _opened(declared) as session:
        off = declared_offsets(_baseline(session))
        assert {name: value for name, value in off.items() if abs(value) > 1e-9} == pytest.approx(OFF, abs=1e-9)
        assert _baseline(session)["two_theta_zero"] == ANGLE
        # two_theta puts each part beside its ideal place by as much as was declared, and reads what was meant
        session.move([(session.axes["two_theta"], ANGLE + 0.1)])
        ideal = arm_positions(ANGLE + 0.1, session.devices["arm"].centre_distance_mm, session.axes["mainx"].readback())
        assert session.axes["obz"].readback() == pytest.approx(ideal.obz + OFF["obz"], abs=1e-9)
        assert session.axes["obpitch"].readback() == pytest.approx(ideal.obpitch + OFF["obpitch"], abs=1e-9)
        assert session.axes["two_theta"].readback() == pytest.approx(ANGLE + 0.1, abs=1e-9)


def test_another_configuration_does_not_get_it(declared):
    other = declared.model_copy(update={"name": "other"})
    with _opened(other) as session:
        assert session.arm is None
        assert not any(_baseline(session).values())


def test_moved_axes_are_no_declaration(small):
    with _opened(small) as session:
        _move_off(session)
    with _opened(small) as session:
        assert session.arm is None


def test_it_is_said_in_one_line_and_can_be_seen_and_cleared(declared, capsys):
    with _opened(declared) as session:
        start = session.axes["obz"].readback(), session.axes["obx"].readback()
        names = namespace(session)
        names["lsarm"]()
        told = capsys.readouterr().out
        assert told.count("\n") == 1
        assert told.startswith(f"the arm counts from an alignment of {time.strftime('%Y')}")
        assert "obz +0.2 mm" in told and "obpitch +0.1 deg" in told and "ffz" not in told
        names["cleararm"]()
        assert capsys.readouterr().out == "the arm counts as an ideal one\n"
        # nothing has moved, and the arm reads what an ideal one would
        assert (session.axes["obz"].readback(), session.axes["obx"].readback()) == start
        assert session.axes["two_theta"].readback() == pytest.approx(math.degrees(math.atan2(*start)), abs=1e-9)
    with _opened(declared) as session:
        assert session.arm is None
        assert not any(_baseline(session).values())


def test_a_dry_run_counts_from_it_says_so_and_declares_nothing(declared):
    scan = {"two_theta_range": 0.1, "two_theta_num": 5}
    foretold = dry_run(declared, "two_theta_scan", scan)
    assert foretold.lines()[1].startswith("the arm counts from an alignment of ")
    none = f"{declared.data.journal_directory}/none"
    ideal = dry_run(override(declared, [f"data.journal_directory={none}"]), "two_theta_scan", scan)
    assert ideal.arm is None and "alignment" not in "".join(ideal.lines())

    def beside(report):
        return report.travel["obpitch"].highest - report.travel["two_theta"].highest

    assert beside(ideal) == pytest.approx(0.0, abs=1e-9)
    assert beside(foretold) == pytest.approx(OFF["obpitch"], abs=1e-9)
    # nothing was made where nothing had been declared, and nothing changed where something was
    assert not Path(none).exists()
    with _opened(declared) as session:
        assert session.arm.two_theta_deg == ANGLE
