"""Every reduction on scans of the twin: frames per second, and against plainly reading and summing the same frames.

Scans are run on the simulated microscope in a folder that is thrown away. Rounds alternate between the reduction and
the plain sum over its own files, frames compressed as they are; of each the fastest round counts.

Run: ``python benchmarks/reductions.py [rounds]``.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the filters that frames are compressed with
import numpy as np
from _rounds import fastest

from dfxrm_control.config import MicroscopeConfig, find_config, override
from dfxrm_control.reduction import (
    distortion_layer,
    distributions_from_file,
    find_domains,
    lattice_field,
    maps_from_file,
    nye_maps,
    read_weak_beam,
)
from dfxrm_control.reduction.series import read_series, reduce_series
from dfxrm_control.session import Session

DARKS = {"darks_before": 5}


def microscope(folder: Path, name: str = "simulated") -> MicroscopeConfig:
    """Return a configuration whose data go into a folder."""
    return override(find_config(name), [f"data.directory={folder}", f"data.journal_directory={folder / 'journal'}"])


def run(config: MicroscopeConfig, plan: str, parameters: dict) -> list[Path]:
    """Run a plan without maps and return the masters of its runs."""
    with Session(config, maps=False, quiet=True) as session:
        return [each.master for each in session.run(plan, parameters).runs]


def frames_of(masters: Sequence[Path]) -> int:
    """Return how many frames the scans have."""
    total = 0
    for master in masters:
        with h5py.File(master, locking=False) as file:
            total += file["1.1/measurement/far_field"].shape[0]
    return total


def plain_sum(masters: Sequence[Path]) -> None:
    """Read all frames and add them up: the least that any reduction does."""
    for master in masters:
        with h5py.File(master, locking=False) as file:
            data = file["1.1/measurement/far_field"]
            total = np.zeros(data.shape[1:], np.uint32)
            for start in range(0, len(data), 32):
                total += data[start : start + 32].sum(axis=0, dtype=np.uint32)


def report(name: str, rounds: int, masters: Sequence[Path], reduce: Callable[[], object]) -> None:
    """Print one line."""
    frames = frames_of(masters)
    reduce()  # what is compiled or imported for the first time is not counted
    taken, plain = fastest(rounds, reduce, lambda: plain_sum(masters))
    print(f"{name:34} {frames:5d} frames {frames / taken:8.0f} frames/s   {plain / taken:5.2f} x a plain sum")


def main(rounds: int = 3) -> int:
    """Run the scans, then time each reduction."""
    warnings.simplefilter("ignore")  # windows are short on purpose
    with tempfile.TemporaryDirectory(prefix="dfxrm-benchmark-") as name:
        folder = Path(name)
        config = microscope(folder)
        mosaicity = run(config, "mosaicity_scan", {**DARKS, "rock_num": 21, "roll_num": 11})
        strain = run(config, "strain_scan", {**DARKS, "rock_num": 21, "two_theta_num": 11})
        inner = "{darks_before: 5, rock_num: 9, roll_num: 7}"
        layers = run(config, "layer_scan", {"scan_parameters": inner, "layers": 3, "step_um": 1.0})
        weak = run(config, "weak_beam_scan", {**DARKS, "k": [2.0, 3.0], "flanks": "both", "weak_darks": 5})

        report("mosaicity maps", rounds, mosaicity, lambda: maps_from_file(mosaicity[0]))
        report("strain maps, put on one grid", rounds, strain, lambda: maps_from_file(strain[0]))
        made = maps_from_file(mosaicity[0])
        report("distributions", rounds, mosaicity, lambda: distributions_from_file(mosaicity[0], made))
        report("weak-beam series", rounds, weak, lambda: read_weak_beam(read_series(weak[0])))
        stack = read_series(layers[0])
        report("volume of layers", rounds, layers, lambda: reduce_series(stack, folder / "layers"))
        report("domains, of maps", rounds, mosaicity, lambda: find_domains(lattice_field(made)))
        report("n.curl, of maps", rounds, mosaicity, lambda: nye_maps([distortion_layer(made)]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
