"""The title of a scan: the BLISS command from which darling takes shape and motors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.records.run import Axis, Run

__all__ = ["plane_title", "scan_title"]


def scan_title(run: Run, points: int) -> str:
    """Return the command that would take exactly the first so many points.

    Start, step and count are those of the recorded set-points, so that an aborted scan's title is true.
    """
    exposure = _exposure_s(run)
    axes = [axis for axis in run.axes if not points or axis.name in run.primary.data_keys]
    columns = {axis.name: _column(run, axis, points) for axis in axes}
    if not axes:
        return f"loopscan {points} {exposure:g}"
    if not run.is_mesh:
        if len(axes) == 1:
            return f"fscan {_part(run, axes[0], columns[axes[0].name], points)} {exposure:g} {exposure:g}"
        ends = " ".join(
            f"{run.names.get(axis.name, axis.name)} {_end(columns[axis.name], 0)} {_end(columns[axis.name], -1)}"
            for axis in axes
        )
        return f"a{len(axes)}scan {ends} {max(points - 1, 0)} {exposure:g}"
    return _mesh_title(run, axes, columns, points // run.block_length)


def plane_title(run: Run, first: int, points: int) -> str:
    """Return the command that would take some points of one plane of a mesh of three dimensions.

    Parameters
    ----------
    run : Run
        The run.
    first : int
        First point, from 0: the first of a plane.
    points : int
        Number of points: whole lines.
    """
    axes = run.axes[1:]
    columns = {axis.name: _column(run, axis, points, first) for axis in axes}
    return _mesh_title(run, axes, columns, points // run.line_length)


def _mesh_title(run: Run, axes: Sequence[Axis], columns: Mapping[str, NDArray], slowest: int) -> str:
    """Return the command of a mesh whose first axis has so many positions."""
    parts: list[str] = []
    stride = 1
    for place, axis in reversed(list(enumerate(axes))):
        count = axis.num if place else slowest
        parts.insert(0, _part(run, axis, columns[axis.name][: stride * count : stride], count))
        stride *= axis.num
    exposure = _exposure_s(run)
    return f"fscan{len(axes)}d {' '.join(parts)} {exposure:g} {exposure:g}"


def _exposure_s(run: Run) -> float:
    """Return the exposure, s; 0 where nothing tells it: a title is numbers only, for others take it apart."""
    exposure = run.exposure_s()
    return exposure if np.isfinite(exposure) else 0.0


def _column(run: Run, axis: Axis, points: int, first: int = 0) -> NDArray:
    key = run.setpoint_key(axis.name)
    events = run.primary.events
    return np.array([events[number]["data"][key] for number in range(first + 1, first + points + 1)], dtype=float)


def _part(run: Run, axis: Axis, values: NDArray, count: int) -> str:
    """Return ``name start step count``; what the points do not show is as planned."""
    start = values[0] if values.size else axis.start
    step = (values[-1] - values[0]) / (values.size - 1) if values.size > 1 else axis.step
    return f"{run.names.get(axis.name, axis.name)} {_number(start)} {_number(step)} {count}"


def _end(values: NDArray, place: int) -> str:
    return _number(values[place]) if values.size else "0"


def _number(value: float) -> str:
    """Return a number without the digits that only binary fractions have."""
    return f"{0.0 if not np.isfinite(value) else round(value, 9) + 0.0:.10g}"
