"""Sums over frames, per pixel, as fast as the memory delivers them.

The pixels are cut into tiles whose accumulators stay in the cache, and `BLOCK` frames are taken per pass over a tile,
so that each accumulator is loaded and stored once per block (measured: twice the rate of one frame per pass). Within
a line of a mesh only one axis moves, so three sums per frame serve all moments: the slow axes are constants that
multiply the sums of the line once. Sums of a line are kept in single precision, sums over lines in double.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = [
    "BLOCK",
    "add_frames",
    "add_lines",
    "add_squares",
    "finish",
    "misorientation",
    "regrid",
    "take_off_regridded",
    "tiles",
]

BLOCK = 7
"""Frames taken together; lines are padded to a multiple of it with frames of no weight."""

_TILE = 8192
# lines whose sums join those in double precision together, because these do not fit the cache
_LINES = 3
_FAST = {"contract", "nsz"}


@njit(nogil=True, fastmath=_FAST)
def _add(count, dark, w, c0, c1, c2, index, s0, s1, s2, top, at, total):  # type: ignore[no-untyped-def]
    # sums of 32-bit integers are 64 bits wide to numba; cut back, they take half the time
    n = np.int32(count)
    v = np.float32(n)
    u = w * (v - dark)
    if u > top:
        top = u
        at = index
    return s0 + c0 * v, s1 + c1 * v, s2 + c2 * v, top, at, np.int32(total + n)


@njit(nogil=True, fastmath=_FAST)
def _total(row):  # type: ignore[no-untyped-def]
    total = np.int32(0)
    for i in range(row.size):
        total = np.int32(total + np.int32(row[i]))
    return total


@njit(parallel=True, nogil=True, cache=True, fastmath=_FAST)
def add_lines(  # type: ignore[no-untyped-def]
    frames, slots, weight, coefficients, index, starts, source, scale, dark, sums, top, at, totals
):
    """Add lines of frames in which one axis moves.

    Parameters
    ----------
    frames : ndarray of uint16, shape (frames, pixels)
    slots : ndarray of int64, shape (slots,)
        Frame of each slot; each line has a multiple of `BLOCK` slots.
    weight : ndarray of float32, shape (slots,)
        Monitor weight of each slot's frame.
    coefficients : ndarray of float32, shape (3, slots)
        Weight times 1, x and x squared, x the moving axis; zero in slots that pad a line.
    index : ndarray of int32, shape (slots,)
        Number of each slot's point.
    starts : ndarray of int64, shape (lines + 1,)
        First slot of each line, and the number of slots.
    source : ndarray of int64, shape (lines, sums)
        Which of the line's three sums goes into each map ...
    scale : ndarray of float64, shape (lines, sums)
        ... and times which product of slow coordinates.
    dark : ndarray of float32, shape (pixels,)
        Taken off each frame where frames are compared for the maximum.
    sums : ndarray of float64, shape (sums, pixels)
        Changed in place, as are ``top`` (float32), ``at`` (int32), both of shape (pixels,).
    totals : ndarray of int32, shape (tiles, slots)
        Filled with the counts of each tile in each slot's frame; see `tiles`.
    """
    pixels = frames.shape[1]
    for tile in prange(totals.shape[0]):
        a = tile * _TILE
        b = min(a + _TILE, pixels)
        m = b - a
        held = np.empty((_LINES, 3, m), np.float32)
        d, tp, ar, tot = dark[a:b], top[a:b], at[a:b], totals[tile]
        lines = starts.size - 1
        for line in range(lines):
            line_sums = held[line % _LINES]
            line_sums[:] = np.float32(0.0)
            t0, t1, t2 = line_sums[0], line_sums[1], line_sums[2]
            for k in range(starts[line], starts[line + 1], BLOCK):
                f0, f1, f2 = frames[slots[k], a:b], frames[slots[k + 1], a:b], frames[slots[k + 2], a:b]
                f3, f4, f5 = frames[slots[k + 3], a:b], frames[slots[k + 4], a:b], frames[slots[k + 5], a:b]
                f6 = frames[slots[k + 6], a:b]
                w0, w1, w2, w3, w4, w5, w6 = (
                    weight[k],
                    weight[k + 1],
                    weight[k + 2],
                    weight[k + 3],
                    weight[k + 4],
                    weight[k + 5],
                    weight[k + 6],
                )
                p, q, r = coefficients[0, k : k + BLOCK], coefficients[1, k : k + BLOCK], coefficients[2, k : k + BLOCK]
                p0, p1, p2, p3, p4, p5, p6 = p[0], p[1], p[2], p[3], p[4], p[5], p[6]
                q0, q1, q2, q3, q4, q5, q6 = q[0], q[1], q[2], q[3], q[4], q[5], q[6]
                r0, r1, r2, r3, r4, r5, r6 = r[0], r[1], r[2], r[3], r[4], r[5], r[6]
                n = index[k : k + BLOCK]
                n0, n1, n2, n3, n4, n5, n6 = n[0], n[1], n[2], n[3], n[4], n[5], n[6]
                z0 = z1 = z2 = z3 = z4 = z5 = z6 = np.int32(0)
                for i in range(m):
                    x, y, z, v, j, e = t0[i], t1[i], t2[i], tp[i], ar[i], d[i]
                    x, y, z, v, j, z0 = _add(f0[i], e, w0, p0, q0, r0, n0, x, y, z, v, j, z0)
                    x, y, z, v, j, z1 = _add(f1[i], e, w1, p1, q1, r1, n1, x, y, z, v, j, z1)
                    x, y, z, v, j, z2 = _add(f2[i], e, w2, p2, q2, r2, n2, x, y, z, v, j, z2)
                    x, y, z, v, j, z3 = _add(f3[i], e, w3, p3, q3, r3, n3, x, y, z, v, j, z3)
                    x, y, z, v, j, z4 = _add(f4[i], e, w4, p4, q4, r4, n4, x, y, z, v, j, z4)
                    x, y, z, v, j, z5 = _add(f5[i], e, w5, p5, q5, r5, n5, x, y, z, v, j, z5)
                    x, y, z, v, j, z6 = _add(f6[i], e, w6, p6, q6, r6, n6, x, y, z, v, j, z6)
                    t0[i], t1[i], t2[i], tp[i], ar[i] = x, y, z, v, j
                o = tot[k : k + BLOCK]
                o[0], o[1], o[2], o[3], o[4], o[5], o[6] = z0, z1, z2, z3, z4, z5, z6
            if line % _LINES == _LINES - 1:
                first = line - _LINES + 1
                for s in range(sums.shape[0]):
                    into = sums[s, a:b]
                    g0, g1, g2 = scale[first, s], scale[first + 1, s], scale[line, s]
                    h0, h1, h2 = (
                        held[0, source[first, s]],
                        held[1, source[first + 1, s]],
                        held[2, source[line, s]],
                    )
                    for i in range(m):
                        value = into[i] + g0 * np.float64(h0[i])
                        value = value + g1 * np.float64(h1[i])
                        into[i] = value + g2 * np.float64(h2[i])
        for line in range(lines - lines % _LINES, lines):
            for s in range(sums.shape[0]):
                into, factor, one = sums[s, a:b], scale[line, s], held[line % _LINES, source[line, s]]
                for i in range(m):
                    into[i] = into[i] + factor * np.float64(one[i])


@njit(parallel=True, nogil=True, cache=True, fastmath=_FAST)
def add_frames(frames, weight, coefficients, index, dark, sums, top, at, totals):  # type: ignore[no-untyped-def]
    """Add frames of points in any order: as `add_lines`, with ``coefficients`` of shape (sums, frames) for all sums."""
    pixels = frames.shape[1]
    count = sums.shape[0]
    for tile in prange(totals.shape[0]):
        a = tile * _TILE
        b = min(a + _TILE, pixels)
        m = b - a
        tile_sums = np.zeros((count, m), np.float32)
        d, tp, ar, tot = dark[a:b], top[a:b], at[a:b], totals[tile]
        for k in range(frames.shape[0]):
            f, w, n = frames[k, a:b], weight[k], index[k]
            for i in range(m):
                u = w * (np.float32(f[i]) - d[i])
                v, j = tp[i], ar[i]
                if u > v:
                    v = u
                    j = n
                tp[i], ar[i] = v, j
            for s in range(count):
                c, one = coefficients[s, k], tile_sums[s]
                for i in range(m):
                    one[i] += c * np.float32(f[i])
            tot[k] = _total(f)
        for s in range(count):
            one, into = tile_sums[s], sums[s, a:b]
            for i in range(m):
                into[i] += np.float64(one[i])


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def finish(  # type: ignore[no-untyped-def]
    sums, scale, of_dark, level, origin, top, at, weight_of, reference, integrated, mean, covariance, maximum
):
    """Turn sums into moments.

    Parameters
    ----------
    sums : ndarray of float64, shape (sums, pixels)
        In the order 1; x_a; x_a x_b for a <= b.
    scale : float
        Factor of all sums.
    of_dark : ndarray of float64, shape (sums,)
        What a dark of 1 ADU adds to each scaled sum.
    level : ndarray of float64, shape (pixels,) or (1,)
        Dark, ADU.
    origin : ndarray of float64, shape (axes,)
        Where the coordinates in the sums count from.
    top, at, reference : ndarray, shape (pixels,)
        Maximum above the reference dark, its point, and that dark.
    weight_of : ndarray of float64, shape (points,)
        Weight of each point's frame.
    integrated, mean, covariance, maximum : ndarray of float64
        Filled; shapes (pixels,), (axes, pixels), (axes, axes, pixels), (pixels,). Moments are NaN where the integrated
        intensity is not positive.
    """
    axes = mean.shape[0]
    pixels = sums.shape[1]
    for tile in prange((pixels + _TILE - 1) // _TILE):
        a = tile * _TILE
        b = min(a + _TILE, pixels)
        m = b - a
        d, one = np.empty(m), np.empty(m)
        for i in range(m):
            d[i] = level[a + i] if level.size > 1 else level[0]
        total, from_sum, factor = integrated[a:b], sums[0, a:b], of_dark[0]
        for i in range(m):
            total[i] = from_sum[i] * scale - factor * d[i]
            one[i] = 1.0 / total[i] if total[i] > 0.0 else np.nan
        for p in range(axes):
            of_p, from_sum, factor = mean[p, a:b], sums[1 + p, a:b], of_dark[1 + p]
            for i in range(m):
                of_p[i] = (from_sum[i] * scale - factor * d[i]) * one[i]
        row = 1 + axes
        for p in range(axes):
            for q in range(p, axes):
                of_p, of_q, from_sum, factor = mean[p, a:b], mean[q, a:b], sums[row, a:b], of_dark[row]
                of_pq = covariance[p, q, a:b]
                for i in range(m):
                    of_pq[i] = (from_sum[i] * scale - factor * d[i]) * one[i] - of_p[i] * of_q[i]
                if q != p:
                    covariance[q, p, a:b] = of_pq
                row += 1
        for p in range(axes):
            mean[p, a:b] += origin[p]
        for i in range(a, b):
            maximum[i] = top[i] * scale + weight_of[at[i]] * (reference[i] - d[i - a])


def tiles(pixels: int) -> int:
    """Return the number of tiles that so many pixels are cut into."""
    return (pixels + _TILE - 1) // _TILE


@njit(parallel=True, nogil=True, cache=True)
def add_squares(frames, sums, squares):  # type: ignore[no-untyped-def]
    """Add frames, shape (frames, pixels), and their squares to two arrays of uint64, shape (pixels,), in place."""
    for tile in prange((frames.shape[1] + _TILE - 1) // _TILE):
        for k in range(frames.shape[0]):
            for i in range(tile * _TILE, min((tile + 1) * _TILE, frames.shape[1])):
                v = np.uint64(frames[k, i])
                sums[i] += v
                squares[i] += v * v


@njit(parallel=True, nogil=True, cache=True)
def misorientation(field, valid, half, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the mean distance of each pixel's vector to those of its neighbours in a square kernel.

    Parameters
    ----------
    field : ndarray of float64, shape (nx, ny, components)
    valid : ndarray of bool, shape (nx, ny)
        Pixels that count; the others, and pixels without a valid neighbour, become NaN.
    half : int
        The kernel has ``2 half + 1`` pixels on a side.
    out : ndarray of float64, shape (nx, ny)
    """
    nx, ny, components = field.shape
    for ix in prange(nx):
        for iy in range(ny):
            out[ix, iy] = np.nan
            if not valid[ix, iy]:
                continue
            total, count = 0.0, 0
            for jx in range(max(0, ix - half), min(nx, ix + half + 1)):
                for jy in range(max(0, iy - half), min(ny, iy + half + 1)):
                    if valid[jx, jy] and not (jx == ix and jy == iy):
                        square = 0.0
                        for c in range(components):
                            difference = field[jx, jy, c] - field[ix, iy, c]
                            square += difference * difference
                        total += np.sqrt(square)
                        count += 1
            if count:
                out[ix, iy] = total / count


@njit(nogil=True, fastmath=_FAST)
def _highest(row):  # type: ignore[no-untyped-def]
    highest = np.uint16(0)
    for i in range(row.size):
        highest = max(highest, row[i])
    return highest


@njit(parallel=True, nogil=True, cache=True, fastmath=_FAST)
def regrid(frames, out, row, row_share, runs, column_share, full_well):  # type: ignore[no-untyped-def]
    """Interpolate frames onto a grid, bilinearly, rounded to whole counts.

    Rounding adds a variance of 1/12 ADU^2, a hundredth of a camera's read-out noise.

    Parameters
    ----------
    frames, out : ndarray of uint16, shape (frames, rows, columns)
        Read, and filled.
    row : ndarray of int64, shape (rows,)
        Upper of the two rows of the frame between which each row of the grid lies.
    row_share : ndarray of float32, shape (rows,)
        Share of the lower one.
    runs : ndarray of int64, shape (runs, 3)
        First column, column after the last, and shift: columns of the grid lie between columns ``c + shift`` and
        ``c + shift + 1`` of the frame. Neighbours share their shift nearly everywhere, which is what makes this fast.
    column_share : ndarray of float32, shape (columns,)
        Share of the right one.
    full_well : int
        Where one of the four counts reaches this, so does the interpolated one.
    """
    count, rows = out.shape[0], out.shape[1]
    half = np.float32(0.5)
    for job in prange(count * rows):
        k, r = job // rows, job % rows
        upper, lower, into, t = frames[k, row[r]], frames[k, row[r] + 1], out[k, r], row_share[r]
        for run in range(runs.shape[0]):
            a, b, shift = runs[run, 0], runs[run, 1], runs[run, 2]
            u0, u1 = upper[a + shift : b + shift], upper[a + shift + 1 : b + shift + 1]
            l0, l1 = lower[a + shift : b + shift], lower[a + shift + 1 : b + shift + 1]
            share, o = column_share[a:b], into[a:b]
            for i in range(b - a):
                left, right = np.float32(u0[i]), np.float32(u1[i])
                left += t * (np.float32(l0[i]) - left)
                right += t * (np.float32(l1[i]) - right)
                o[i] = np.uint16(np.int32(left + share[i] * (right - left) + half))
        if _highest(upper) >= full_well or _highest(lower) >= full_well:
            for run in range(runs.shape[0]):
                shift = runs[run, 2]
                for c in range(runs[run, 0], runs[run, 1]):
                    i = c + shift
                    # a neighbour without a share does not count
                    right, below = column_share[c] > 0.0, t > 0.0
                    top = upper[i]
                    if right:
                        top = max(top, upper[i + 1])
                    if below:
                        top = max(top, lower[i])
                    if right and below:
                        top = max(top, lower[i + 1])
                    if top >= full_well:
                        into[c] = top


@njit(parallel=True, nogil=True, cache=True, fastmath=_FAST)
def take_off_regridded(level, factors, row, row_share, column, column_share, sums, totals):  # type: ignore[no-untyped-def]
    """Take a dark level, put on each of several grids as `regrid` does, times factors off each sum.

    All grids are done while a row of the sums is in the cache.

    Parameters
    ----------
    level : ndarray of float64, shape (rows, columns)
    factors : ndarray of float64, shape (grids, sums)
    row : ndarray of int64, shape (grids, rows)
        Upper of the two rows of the level between which each row of each grid lies; ``row_share`` (float32) that of the
        lower one.
    column : ndarray of int64, shape (grids, columns)
        Left of the two columns; ``column_share`` (float32) that of the right one.
    sums : ndarray of float64, shape (sums, rows, columns)
        Changed in place.
    totals : ndarray of float64, shape (rows, grids)
        Filled with the sum of the level over each row of each grid.
    """
    rows, columns = level.shape
    for r in prange(rows):
        mixed, one = np.empty(columns), np.empty(columns)
        for g in range(row.shape[0]):
            upper, lower, t = level[row[g, r]], level[row[g, r] + 1], np.float64(row_share[g, r])
            for c in range(columns):
                mixed[c] = upper[c] + t * (lower[c] - upper[c])
            total = 0.0
            for c in range(columns):
                left = column[g, c]
                value = mixed[left] + column_share[g, c] * (mixed[left + 1] - mixed[left])
                one[c] = value
                total += value
            totals[r, g] = total
            for s in range(sums.shape[0]):
                into, factor = sums[s, r], factors[g, s]
                for c in range(columns):
                    into[c] -= factor * one[c]
