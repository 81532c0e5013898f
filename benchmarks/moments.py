"""Moments of a mesh scan: `Moments` against darling, and against reading the same bytes once.

The scan has 21 x 21 points of 512 x 512 uint16 pixels. `Moments` is fed a few lines at a time, at most 64 frames, and
asked for its result; it gives maximum, point of the maximum and detector sums besides the means and covariances that
darling gives. darling gets its own layout, a curve per pixel, ready in memory. Rounds alternate, because the speed of
a shared machine drifts; of each, the fastest round counts.
"""

from __future__ import annotations

import argparse

import numba
import numpy as np
from _rounds import fastest
from numpy.typing import NDArray

from dfxrm_control.reduction import Moments

AGAINST_DARLING, OF_READING = 8.0, 0.30


def make_scan(steps: int, size: int) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Return frames, shape (steps^2, size, size), and points, of a bent crystal on a pedestal of 100 ADU."""
    random = np.random.default_rng(1)
    chi, phi = np.linspace(-0.3, 0.3, steps), np.linspace(-0.06, 0.06, steps)
    points = np.stack(np.meshgrid(chi, phi, indexing="ij"), axis=-1).reshape(-1, 2)
    bend = np.linspace(-1.0, 1.0, size)
    frames = np.empty((len(points), size, size), np.uint16)
    for frame, (c, p) in zip(frames, points, strict=True):
        rows = np.exp(-0.5 * ((c - 0.1 * bend) / 0.06) ** 2)
        columns = np.exp(-0.5 * ((p - 0.02 * bend) / 0.01) ** 2)
        frame[:] = 100.0 + 300.0 * np.outer(rows, columns) + random.integers(0, 10, (size, size))
    return frames, points


@numba.njit(parallel=True, nogil=True)
def read_once(values: NDArray[np.uint16]) -> int:
    """Return the sum of all values, each core reading a share: as fast as the memory gives them."""
    share = 1 << 16
    count = (values.size + share - 1) // share
    sums = np.zeros(count, np.uint64)
    for part in numba.prange(count):
        piece = values[part * share : min((part + 1) * share, values.size)]
        total = np.uint32(0)
        for i in range(piece.size):
            total += np.uint32(piece[i])
        sums[part] = total
    return sums.sum()


def moments(frames: NDArray[np.uint16], points: NDArray[np.float64], line: int) -> tuple[NDArray, NDArray]:
    """Return means and covariances as the package makes them."""
    accumulator = Moments(frames.shape[1:], points.shape[1])
    batch = max(64 // line, 1) * line
    for start in range(0, len(frames), batch):
        accumulator.add(frames[start : start + batch], points[start : start + batch])
    found = accumulator.result()
    return found.mean, found.covariance


def main() -> int:
    """Print both ratios; the exit code is 1 when one of them misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=21, help="points along each axis")
    parser.add_argument("--size", type=int, default=512, help="pixels along each side of a frame")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    import darling  # compiles for half a minute

    steps, size = options.steps, options.size
    frames, points = make_scan(steps, size)
    curves = np.ascontiguousarray(np.moveaxis(frames.reshape(steps, steps, size, size), (0, 1), (2, 3)))
    grid = tuple(points.T.reshape(2, steps, steps))
    theirs = darling.properties.moments(curves, grid)
    ours = moments(frames, points, steps)
    worst = max(np.abs(ours[0][a] - theirs[0][..., a]).max() for a in range(2))
    read_once(frames.reshape(-1))
    read, own = fastest(options.rounds, lambda: read_once(frames.reshape(-1)), lambda: moments(frames, points, steps))
    (other,) = fastest(3, lambda: darling.properties.moments(curves, grid))
    gigabytes = frames.nbytes / 1e9
    print(f"{len(frames)} frames of {size} x {size} uint16, {gigabytes:.3f} GB, {numba.get_num_threads()} threads")
    print(f"reading once    {read * 1e3:8.1f} ms  {gigabytes / read:6.1f} GB/s")
    print(f"Moments         {own * 1e3:8.1f} ms  {gigabytes / own:6.1f} GB/s  {len(frames) / own:8.0f} frames/s")
    print(f"darling         {other * 1e3:8.1f} ms  {gigabytes / other:6.1f} GB/s")
    print(f"means differ by at most {worst:.1e} deg")
    print(f"Moments / darling: {other / own:.1f} x (goal {AGAINST_DARLING:g})")
    print(f"Moments / reading: {100 * read / own:.0f} % (goal {100 * OF_READING:.0f} %)")
    return 0 if other / own >= AGAINST_DARLING and read / own >= OF_READING and worst < 1e-4 else 1


if __name__ == "__main__":
    raise SystemExit(main())
