"""Maps of a strain scan: frames per second with and without putting them on one grid, against a plain sum.

The scan has 11 positions of the arm times 21 of the rock, frames of 1024 x 1024 uint16; sin 2theta, and with it the
scale along the beam, changes by 1 % to either end, as over +/-0.2 deg at 2theta = 18 deg. Fed a few lines at a time, as
from a file; rounds alternate, and of each task the fastest round counts.
"""

from __future__ import annotations

import argparse

import numba
import numpy as np
from _rounds import fastest
from numpy.typing import NDArray

from dfxrm_control.reduction import Moments
from dfxrm_control.reduction._regrid import Regridding, Scale

MIDDLE, LINES, LINE = 18.0, 11, 21


def make_scan(size: int) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Return frames, shape (231, size, size), and points, of noise on a pedestal: what they show costs nothing."""
    random = np.random.default_rng(1)
    points = np.stack(
        np.meshgrid(MIDDLE + np.linspace(-0.2, 0.2, LINES), np.linspace(-0.15, 0.15, LINE), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    return random.integers(90, 400, (len(points), size, size), dtype=np.uint16), points


def scale(two_theta: float, size: int) -> Scale:
    """Return how a frame lies on the layer."""
    row, column = 0.04 / np.sin(np.radians(two_theta)), 0.04 * np.cos(np.radians(two_theta - MIDDLE))
    return Scale(row, -row * (size - 1) / 2, column, -column * (size - 1) / 2, "um")


@numba.njit(parallel=True, nogil=True)
def plain_sum(frames: NDArray[np.uint16], total: NDArray[np.int32]) -> None:
    """Add frames, each core a share of the pixels: the least that any reduction does."""
    share = 1 << 13
    for part in numba.prange((total.size + share - 1) // share):
        first, last = part * share, min((part + 1) * share, total.size)
        for k in range(frames.shape[0]):
            for i in range(first, last):
                total[i] += np.int32(frames[k, i])


def reduced(frames: NDArray[np.uint16], points: NDArray[np.float64], regridding: Regridding | None) -> None:
    """Add all frames and ask for the moments, as the maps of a file do."""
    moments = Moments(frames.shape[1:], 2, regridding=regridding)
    for start in range(0, len(frames), 2 * LINE):
        moments.add(frames[start : start + 2 * LINE], points[start : start + 2 * LINE])
    moments.result(np.full(frames.shape[1:], 100.0))


def main() -> None:
    """Print the three rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="pixels along each side of a frame")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size = options.size
    frames, points = make_scan(size)
    regridding = Regridding(
        (size, size), [0], {"two_theta": MIDDLE}, scale(MIDDLE, size), lambda where: scale(where[0], size), 65535
    )
    total = np.zeros(size * size, np.int32)
    times = fastest(
        options.rounds,
        lambda: plain_sum(frames.reshape(len(frames), -1), total),
        lambda: reduced(frames, points, None),
        lambda: reduced(frames, points, regridding),
    )
    print(f"{len(frames)} frames of {size} x {size} uint16, {numba.get_num_threads()} threads")
    for name, taken in zip(("plain sum", "moments", "moments, regridded"), times, strict=True):
        print(f"{name:20} {len(frames) / taken:8.0f} frames/s  {frames.nbytes / taken / 1e9:6.1f} GB/s")


if __name__ == "__main__":
    main()
