"""Putting the frames of a microscope that moves during the scan back on one grid.

Where a pixel of a frame lies on the illuminated layer is an affine map of its own for rows and for columns:
``x = V / (M_v sin 2theta)``, ``y = -U / M_h``, each with the offset of the image. All of it changes when the arm moves
(`two_theta`), when the energy does (the focal length), and when the objective follows the focus. The maps of a scan
are on one grid, that of the reference setting in the middle of the scan, and each frame is interpolated onto it before
moments are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["FrameGrid", "Regridding", "Scale"]

_STEPS = 64
"""The ends of a grid are placed to 1/64 of a pixel, so that frames of one setting share their weights."""

_DIGITS = 7
"""Decimals of a position (mm, deg, keV) that count. A lens that moves across its axis by half of the last one moves the
image by M + 1 times as much: at M = 16 by 0.001 pixel of 0.65 um."""


@dataclass(frozen=True)
class Scale:
    """How a frame lies on the illuminated layer.

    ``x = x_per_row * row + x_first``, ``y = y_per_column * column + y_first``; a fraction of a row may be given.

    Attributes
    ----------
    x_per_row, x_first, y_per_column, y_first : float
        In `units`.
    units : {"um", "pixel"}
        ``pixel`` where nothing tells the scale.
    blur_x, blur_y : float
        Rms blur by defocus, in `units`.
    """

    x_per_row: float
    x_first: float
    y_per_column: float
    y_first: float
    units: str
    blur_x: float = 0.0
    blur_y: float = 0.0

    def rows_of(self, other: Scale, rows: int) -> tuple[float, float]:
        """Return where on a frame of this scale the first and the last row of another's lie, in rows."""
        ends = np.array([0, rows - 1]) * other.x_per_row + other.x_first
        first, last = (ends - self.x_first) / self.x_per_row
        return float(first), float(last)

    def columns_of(self, other: Scale, columns: int) -> tuple[float, float]:
        """Return where on a frame of this scale the first and the last column of another's lie, in columns."""
        ends = np.array([0, columns - 1]) * other.y_per_column + other.y_first
        first, last = (ends - self.y_first) / self.y_per_column
        return float(first), float(last)


@dataclass(frozen=True)
class FrameGrid:
    """Where on a frame the pixels of the common grid lie.

    Attributes
    ----------
    shape : tuple of int
        (rows, columns), the same for frame and grid.
    ends : tuple of four int
        First and last row, first and last column of the grid, on the frame, in 1/64 pixel.
    """

    shape: tuple[int, int]
    ends: tuple[int, int, int, int]

    @classmethod
    def at(cls, shape: tuple[int, int], rows: tuple[float, float], columns: tuple[float, float]) -> FrameGrid:
        """Return the grid with its ends at these places of the frame, to 1/64 pixel."""
        first, last, left, right = (round(_STEPS * end) for end in (*rows, *columns))
        return cls(shape, (first, last, left, right))

    @property
    def still(self) -> bool:
        """Whether the grid is that of the frame itself."""
        return self.ends == (0, _STEPS * (self.shape[0] - 1), 0, _STEPS * (self.shape[1] - 1))

    def _along(self, axis: int) -> NDArray[np.float64]:
        first, last = self.ends[2 * axis : 2 * axis + 2]
        return np.linspace(first / _STEPS, last / _STEPS, self.shape[axis])

    def _neighbours(self, axis: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        at = np.clip(self._along(axis), 0.0, self.shape[axis] - 1.0)
        low = np.clip(np.floor(at).astype(np.int64), 0, max(self.shape[axis] - 2, 0))
        return low, (at - low).astype(np.float32)

    @cached_property
    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Upper of the two rows each row of the grid lies between, and the share of the lower one, shapes (rows,)."""
        return self._neighbours(0)

    @cached_property
    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `rows` for the columns: left one, and the share of the right one, shapes (columns,)."""
        return self._neighbours(1)

    @cached_property
    def column_runs(self) -> NDArray[np.int64]:
        """Runs of columns whose left neighbours lie at one distance: first, one after the last, and that distance."""
        shift = self.columns[0] - np.arange(self.shape[1])
        starts = np.flatnonzero(np.concatenate([[True], shift[1:] != shift[:-1]]))
        return np.stack([starts, np.append(starts[1:], len(shift)), shift[starts]], axis=1)

    @cached_property
    def inside(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which rows and which columns of the grid lie on the frame, shapes (rows,) and (columns,)."""
        slack = 0.5 / _STEPS
        rows, columns = (
            (at >= -slack) & (at <= size - 1 + slack)
            for at, size in zip(map(self._along, (0, 1)), self.shape, strict=True)
        )
        return rows, columns

    @cached_property
    def noise_factors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """By how much interpolation lowers the variance of a pixel, one factor per row and one per column.

        ``t^2 + (1 - t)^2`` for independent neighbours with shares t and 1 - t.
        """
        rows, columns = (share.astype(float) for share in (self.rows[1], self.columns[1]))
        return rows**2 + (1.0 - rows) ** 2, columns**2 + (1.0 - columns) ** 2

    @cached_property
    def blur_px2(self) -> NDArray[np.float64]:
        """Mean variance that interpolation adds along rows and columns, ``t (1 - t)``, pixel^2, shape (2,)."""
        return np.array([float(np.mean(share * (1.0 - share))) for share in (self.rows[1], self.columns[1])])


class Regridding:
    """Tells for each point of a scan where on its frame the common grid lies.

    Parameters
    ----------
    shape : tuple of int
        (rows, columns) of the frames.
    moving : sequence of int
        Which of the scanned axes move the image.
    middle : mapping of str to float
        Where the axes stand, by logical name, at the reference.
    reference : Scale
        Scale of the common grid.
    scale_at : callable
        Returns the scale of a frame for the positions of the moving axes, and after them of those in ``by_point``.
    full_well : int
        Highest count of the camera: what is interpolated from a count so high keeps it, so that saturation shows.
    by_point : ndarray, shape (points, k), optional
        Positions at each point of axes that moved beside the scanned ones. While a scan goes on its rows may be filled
        in as they become known.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        moving: Sequence[int],
        middle: Mapping[str, float],
        reference: Scale,
        scale_at: Callable[[Sequence[float]], Scale],
        full_well: int,
        by_point: NDArray[np.float64] | None = None,
    ) -> None:
        self.shape = shape
        self.middle = dict(middle)
        self.full_well = full_well
        self._moving = list(moving)
        self._reference = reference
        self._scale_at = scale_at
        self.by_point = by_point
        self._known: dict[tuple[float, ...], tuple[FrameGrid, NDArray[np.float64]]] = {}
        self._shared: dict[tuple[int, int, int, int], FrameGrid] = {}

    def grids(
        self, positions: NDArray[np.float64], points: NDArray
    ) -> tuple[list[FrameGrid], list[NDArray[np.float64]]]:
        """Return the grid of each frame, and the variance by which it is blurred, pixel^2 along rows and columns.

        Parameters
        ----------
        positions : ndarray, shape (n, axes)
            Where each was taken.
        points : ndarray of int, shape (n,)
            Number of each frame's point.
        """
        where = positions[:, self._moving]
        if self.by_point is not None:
            where = np.concatenate([where, self.by_point[points]], axis=1)
        found = [self._grid(tuple(each)) for each in np.round(where, _DIGITS).tolist()]
        return [grid for grid, _ in found], [blur for _, blur in found]

    def _grid(self, where: tuple[float, ...]) -> tuple[FrameGrid, NDArray[np.float64]]:
        if where not in self._known:
            scale, reference = self._scale_at(where), self._reference
            found = FrameGrid.at(
                self.shape, scale.rows_of(reference, self.shape[0]), scale.columns_of(reference, self.shape[1])
            )
            # how much more it is out of focus than the reference
            out_of_focus = [
                max(scale.blur_x**2 - reference.blur_x**2, 0.0) / reference.x_per_row**2,
                max(scale.blur_y**2 - reference.blur_y**2, 0.0) / reference.y_per_column**2,
            ]
            grid = self._shared.setdefault(found.ends, found)
            self._known[where] = grid, grid.blur_px2 + out_of_focus
        return self._known[where]
