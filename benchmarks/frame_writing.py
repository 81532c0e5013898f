"""Frames per second to disk: `FrameWriter` against h5py's filter pipeline, both safe after every frame.

Both write 2048 x 2048 uint16 frames as one bitshuffle/LZ4 chunk each and flush after each, so that a frame that was
taken survives the death of the process. The frames are those of an sCMOS camera with a broad peak. Rounds alternate,
because the speed of a shared machine drifts; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.records import FrameWriter

GOAL = 2.0


def make_frames(count: int, size: int) -> list[NDArray[np.uint16]]:
    """Return different noisy frames: pedestal 102 ADU, gain 2.14, read noise, and a peak of 300 ADU."""
    random = np.random.default_rng(1)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    signal = 300.0 * np.exp(-(rows**2 + columns**2) / (2 * 0.15**2))
    return [
        np.round(2.14 * random.poisson(signal / 2.14) + random.normal(102.5, 2.5, signal.shape)).astype(np.uint16)
        for _ in range(count)
    ]


def through_the_pipeline(path: Path, frames: list[NDArray[np.uint16]], count: int) -> float:
    """Return frames per second of plain h5py with hdf5plugin's filter."""
    shape = frames[0].shape
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset(
            "data", (0, *shape), "u2", maxshape=(None, *shape), chunks=(1, *shape), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        file.swmr_mode = True
        begin = time.perf_counter()
        for index in range(count):
            data.resize(index + 1, axis=0)
            data[index] = frames[index % len(frames)]
            data.flush()
        return count / (time.perf_counter() - begin)


def by_the_writer(path: Path, frames: list[NDArray[np.uint16]], count: int) -> float:
    """Return frames per second of `FrameWriter`."""
    with FrameWriter(path, frames[0].shape) as writer:
        begin = time.perf_counter()
        for index in range(count):
            writer.append(frames[index % len(frames)])
        return count / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=40, help="frames a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    given = parser.parse_args()
    frames = make_frames(8, given.size)
    ratios, plain, ours = [], [], []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for number in range(given.rounds + 1):
            slow = through_the_pipeline(Path(folder, "pipeline.h5"), frames, given.frames)
            path = Path(folder, f"writer_{number}.h5")
            fast = by_the_writer(path, frames, given.frames)
            packing = given.frames * frames[0].nbytes / path.stat().st_size
            path.unlink()
            if number:  # the first round warms up
                plain.append(slow)
                ours.append(fast)
                ratios.append(fast / slow)
    print(
        f"{given.size} x {given.size} uint16, {given.rounds} rounds of {given.frames} frames, packed {packing:.2f} to 1"
    )
    print(f"filter pipeline {statistics.median(plain):6.1f} frames/s")
    print(f"FrameWriter     {statistics.median(ours):6.1f} frames/s")
    print(f"ratio           {statistics.median(ratios):6.2f}  (goal: at least {GOAL:g})")


if __name__ == "__main__":
    main()
