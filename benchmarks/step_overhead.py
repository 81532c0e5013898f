"""Time per point of ``mosaicity_scan`` against a bare ``bluesky.plans.grid_scan``.

Both run on the same devices of the simulated microscope, read the same signals, write the same frames to HDF5 and keep
the same journal and master; the bare one without our preprocessor. Frames are tiny, exposures 0.1 ms and motors fast,
so that what remains is the cost of the plan. Several rounds alternate, since a shared machine drifts.

    python benchmarks/step_overhead.py [--lines 20] [--points 25] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any

from bluesky import plans as bp

from dfxrm_control.config import find_config, override
from dfxrm_control.session import Session

SETTINGS = ["scan.darks=0", "instrument.cameras.far_field.rows=32", "instrument.cameras.far_field.columns=32"]
LIMIT = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=20)
    parser.add_argument("--points", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"data.directory={Path(folder, 'data')}", f"data.journal_directory={Path(folder, 'journal')}"]
        with Session(override(find_config("simulated"), [*SETTINGS, *paths]), maps=False, quiet=True) as session:
            ratio = compare(session, asked.lines, asked.points, asked.rounds)
    verdict = "within" if ratio <= LIMIT else "ABOVE"
    print(f"ratio {ratio:.2f}, {verdict} the limit of {LIMIT}")


def compare(session: Session, lines: int, points: int, rounds: int) -> float:
    camera, chi, phi = session.cameras["far_field"], session.axes["chi"], session.axes["phi"]
    camera.exposure.put(1e-4)
    signals = [camera, session.channels["monitor"], session.channels["ring_current"]]
    ours = session.RE.preprocessors[:]

    def bare() -> Any:
        session.RE.preprocessors[:] = []
        return bp.grid_scan(signals, chi, -0.3, 0.3, lines, phi, -0.3, 0.3, points, snake_axes=True)

    def mosaicity() -> Any:
        session.RE.preprocessors[:] = ours
        return session.plans["mosaicity_scan"](
            exposure_s=1e-4, rock_range=0.6, rock_num=points, roll_range=0.6, roll_num=lines
        )

    times: dict[str, list[float]] = {"grid_scan": [], "mosaicity_scan": []}
    for _ in range(rounds):
        for name, plan in (("grid_scan", bare), ("mosaicity_scan", mosaicity)):
            times[name].append(seconds_per_point(session, plan()))
    for name, seconds in times.items():
        print(f"{name:15} {1e3 * statistics.median(seconds):6.2f} ms a point (best {1e3 * min(seconds):.2f})")
    return statistics.median(times["mosaicity_scan"]) / statistics.median(times["grid_scan"])


def seconds_per_point(session: Session, plan: Any) -> float:
    """Return the mean time per point from the first event to the last, turn-rounds included."""
    at: list[float] = []
    primary: set[str] = set()

    def note(name: str, doc: Any) -> None:
        if name == "descriptor" and doc["name"] == "primary":
            primary.add(doc["uid"])
        elif name == "event" and doc["descriptor"] in primary:
            at.append(doc["time"])

    session.RE(plan, note)
    return (at[-1] - at[0]) / (len(at) - 1)


if __name__ == "__main__":
    main()
