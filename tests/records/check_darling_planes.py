"""Read the planes of a mesh of three axes in darling; run in a process of its own, as `check_darling`.

Arguments: results file, master, path of the slow motor in each entry, entries. Writes ``data``, ``motors``, ``mean``.
"""

import sys

import darling
import hdf5plugin  # noqa: F401  as for any file the beamline writes: it brings the bitshuffle filter
import numpy as np


def main(results: str, master: str, place: str, *entries: str) -> None:
    dataset = darling.DataSet(master)
    dataset.load_scan(list(entries), scan_motor=place)
    mean, _ = dataset.moments()
    np.savez(results, data=dataset.data, motors=dataset.motors, mean=mean)


main(*sys.argv[1:])
