"""The settings for every reflection of a coarse map: `choose` against solving one reflection after the other.

The map has 1000 randomly turned grains of aluminium; `choose` works out all of their allowed reflections that the
objective can follow, with optics and ranking. The plain solver does what a script does: for each reflection it lets
scipy find chi and phi that bring the diffraction vector where Bragg's law wants it. It is given a part of the rows, and
its time for all is that of the part times the ratio. Both must agree.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from _rounds import fastest
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from dfxrm_control.config import find_config
from dfxrm_control.crystal import Lattice, wavelength_angstrom
from dfxrm_control.geometry import goniometer_rotation
from dfxrm_control.grains import GrainMap
from dfxrm_control.handoff import Choices, choose

LONGEST_S, AGAINST_PLAIN = 1.0, 50.0


def make_map(count: int) -> GrainMap:
    """Return randomly turned grains in a cube of 1 mm."""
    random = np.random.default_rng(1)
    lattice = Lattice.from_parameters(4.0495, 4.0495, 4.0495, space_group="F m -3 m", atoms=[("Al", 0, 0, 0)])
    return GrainMap(
        np.arange(1, count + 1),
        Rotation.random(count, random_state=2).as_matrix() @ lattice.B,
        random.uniform(-0.5, 0.5, (count, 3)),
        np.full((count, 3), 0.02),
        np.full(count, 8e-6),
        np.zeros(count, np.int64),
        (lattice,),
        ("aluminium",),
    )


def plain(grains: GrainMap, choices: Choices, rows: NDArray) -> NDArray[np.float64]:
    """Return chi and phi of some rows with mu at the Bragg angle, each found by least squares, shape (n, 2)."""
    found = np.empty((len(rows), 2))
    wavelength = wavelength_angstrom(choices.energy_kev)
    for number, row in enumerate(rows):
        g = grains.ub[grains.row(int(choices.grain_id[row]))] @ choices.hkl[row]
        theta = math.asin(0.5 * wavelength * float(np.linalg.norm(g)))
        target = np.array([-math.sin(theta), 0.0, math.cos(theta)])
        unit, mu = g / np.linalg.norm(g), math.degrees(theta)

        def misfit(tilts: NDArray, unit: NDArray = unit, mu: float = mu, target: NDArray = target) -> NDArray:
            return np.asarray(goniometer_rotation(mu, 0.0, tilts[0], tilts[1]) @ unit - target)

        found[number] = least_squares(misfit, np.zeros(2), xtol=1e-15, ftol=1e-15, gtol=1e-15).x
    return found


def main() -> int:
    """Print time and ratio; the exit code is 1 when one of them misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grains", type=int, default=1000)
    parser.add_argument("--part", type=int, default=60, help="rows that the plain solver is given")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    grains, config = make_map(options.grains), find_config("simulated")
    choices = choose(grains, config)
    (own,) = fastest(options.rounds, lambda: choose(grains, config))
    # those that need no search, whose answer is unique
    rows = np.flatnonzero(choices.on_axis)[: options.part]
    begin = time.perf_counter()
    theirs = plain(grains, choices, rows)
    other = (time.perf_counter() - begin) * len(choices) / len(rows)
    ours = np.stack([choices.positions[axis][rows] for axis in ("chi", "phi")], axis=1)
    worst = float(np.abs(ours - theirs).max())
    print(f"{options.grains} grains, {len(choices)} reflections, {int(choices.reachable.sum())} in reach")
    print(f"choose          {own:8.3f} s  {len(choices) / own:10.0f} reflections/s (goal: {LONGEST_S:g} s)")
    print(f"one by one      {other:8.1f} s  {len(choices) / other:10.0f} reflections/s")
    print(f"angles differ by at most {worst:.1e} deg")
    print(f"choose / one by one: {other / own:.0f} x (goal {AGAINST_PLAIN:g})")
    return 0 if own <= LONGEST_S and other / own >= AGAINST_PLAIN and worst < 1e-6 else 1


if __name__ == "__main__":
    raise SystemExit(main())
