"""A step of an alignment from the command line: who starts the next command must know that this one was not sure."""

from command_line import SMALL

SMALL_CRYSTAL = ["--set", "backend.options.sample=perfect_crystal", "--set", "backend.options.misalignment={phi: 0.1}"]


def test_a_step_that_is_not_sure_exits_with_1_and_its_sentence(dfxrm):
    options = [*SMALL, *SMALL_CRYSTAL, "--darks", "2", "--quiet"]
    done = dfxrm("run", "find-peak", "--search-range", "0.05", *options)
    assert done.returncode == 1
    assert done.stderr.startswith("dfxrm: find_peak phi: nothing found; all is dark in ")
    # the record of it is complete all the same
    assert done.stdout.startswith("scan 1: success\nHDF5: ")
