"""Read masters in darling; run in a process of its own, because importing darling compiles for a while.

Arguments: results file, then triples of reader, master and entry. Writes the arrays of each as ``data_<i>`` and
``motors_<i>``.
"""

import sys

import darling
import hdf5plugin  # noqa: F401  as for any file the beamline writes: it brings the bitshuffle filter
import numpy as np


def main(results: str, *jobs: str) -> None:
    found = {}
    for i in range(0, len(jobs), 3):
        reader, master, entry = jobs[i : i + 3]
        data, motors = getattr(darling.reader, reader)(master)(entry)
        found |= {f"data_{i // 3}": data, f"motors_{i // 3}": motors}
    np.savez(results, **found)


main(*sys.argv[1:])
