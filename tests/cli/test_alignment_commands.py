"""Steps of an alignment from the command line: who starts the next command must know whether this one was sure."""

from command_line import SMALL

SMALL_CRYSTAL = ["--set", "backend.options.sample=perfect_crystal", "--set", "backend.options.misalignment={phi: 0.1}"]


def test_a_step_that_is_sure_exits_with_0_and_one_that_is_not_with_1_and_its_sentence(dfxrm):
    options = [*SMALL, *SMALL_CRYSTAL, "--darks", "3", "--quiet"]
    narrow = dfxrm("run", "find-peak", "--search-range", "0.05", *options)
    assert narrow.returncode == 1
    assert narrow.stderr.startswith("dfxrm: find_peak phi: nothing found; all is dark in ")
    # the record of it is complete all the same
    assert narrow.stdout.startswith("scan 1: success\nHDF5: ")
    wide = dfxrm("run", "find-peak", "--search-range", "0.5", *options)
    assert wide.returncode == 0, wide.stderr
    assert wide.stderr == ""
