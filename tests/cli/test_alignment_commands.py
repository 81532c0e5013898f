"""A step of an alignment from the command line: who starts the next command must know that this one was not sure."""

from command_line import SMALL

from dfxrm_control.session import SessionStore

SMALL_CRYSTAL = ["--set", "backend.options.sample=perfect_crystal", "--set", "backend.options.misalignment={phi: 0.1}"]


def test_a_step_that_is_not_sure_exits_with_1_and_its_sentence(dfxrm):
    options = [*SMALL, *SMALL_CRYSTAL, "--darks", "2", "--quiet"]
    done = dfxrm("run", "find-peak", "--search-range", "0.05", *options)
    assert done.returncode == 1
    assert done.stderr.startswith("dfxrm: find_peak phi: nothing found; all is dark in ")
    # the record of it is complete all the same
    assert done.stdout.startswith("scan 1: success\nHDF5: ")


def test_what_was_found_is_told_also_where_nothing_else_is_shown(dfxrm):
    options = [*SMALL, *SMALL_CRYSTAL[:2], "--darks", "2", "--quiet"]
    done = dfxrm("run", "center-axis", "--axis", "phi", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("center_axis phi: ") and " deg, sure: " in done.stdout


def test_what_was_declared_of_the_arm_is_shown_and_forgotten(dfxrm, tmp_path):
    store = SessionStore(tmp_path / "dfxrm-journal" / "session.sqlite")
    store.declare_arm("simulated", 17.5, {"obz": 0.25})
    store.declare_arm("mll", 17.5, {"obz": 0.5})
    assert "obz +0.25 mm" in dfxrm("arm").stdout
    told = dfxrm("dry-run", "rocking", "--rock-range", "0.1", "--rock-num", "5").stdout
    assert "\nthe arm counts from an alignment of " in told
    assert "forgotten" in dfxrm("arm", "--clear").stdout
    assert dfxrm("arm").stdout == "simulated: the arm counts as an ideal one; no alignment was declared\n"
    assert store.declared_arm("mll").offsets == {"obz": 0.5}
