"""What live maps cost a scan: wall time with the maps' process beside it, over wall time without.

The twin with a 512 x 512 camera on a real clock takes 0.1 s exposures, five to eight frames a second with the moves;
scans with and without maps alternate. The time ends when the plan ends: maps may catch up later.
"""

import contextlib
import io
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

from dfxrm_control.config import find_config, override
from dfxrm_control.session import Session

MESH = {"rock_num": 13, "rock_range": 0.3, "roll_num": 6, "roll_range": 0.6, "exposure_s": 0.1, "darks_before": 20}
ROUNDS = 3


def scan_seconds(folder: Path, maps: bool) -> float:
    """Return how long the RunEngine takes for one scan, seconds."""
    settings = [
        f"data.directory={folder / 'data'}",
        f"data.journal_directory={folder / 'journal'}",
        "backend.options.clock=real",
    ]
    with Session(override(find_config("simulated"), settings), maps=maps, quiet=True) as session:
        plan = session.plans["mosaicity_scan"](**MESH)
        begin = time.perf_counter()
        session.RE(plan)
        seconds = time.perf_counter() - begin
        if session.live_maps is not None:
            session.live_maps.wait(300)
    return seconds


def main() -> None:
    times: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for _ in range(ROUNDS):
            for maps in (False, True):
                times[maps].append(scan_seconds(Path(folder), maps))
    frames = MESH["rock_num"] * MESH["roll_num"] + MESH["darks_before"]
    without, beside = median(times[False]), median(times[True])
    print(f"{frames} frames of 512 x 512 at {frames / without:.1f} frames/s")
    print(f"without maps {without:.2f} s, with maps {beside:.2f} s: ratio {beside / without:.3f} (wanted: at most 1.1)")


if __name__ == "__main__":
    main()
