"""The title of a scan: the BLISS command from which darling takes shape and motors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.records.run import Axis, Run

__all__ = ["block_length", "scan_title"]


def block_length(run: Run) -> int:
    """Return how many points make one whole step of the slowest axis, the least that a title can describe.

    In a scan of one dimension that is one point; in a mesh of two, a line; in one of three, a plane.
    """
    return max(1, int(np.prod([axis.num for axis in run.axes[1:]]))) if run.is_mesh else 1


def scan_title(run: Run, points: int) -> str:
    """Return the command that would take exactly the first so many points.

    Start, step and count are those of the recorded set-points, so that an aborted scan's title is true.
    """
    exposure = run.exposure_s()
    if not np.isfinite(exposure):  # a title is numbers only: darling and others take it apart
        exposure = 0.0
    times = f"{exposure:g} {exposure:g}"
    axes = [axis for axis in run.axes if not points or axis.name in run.primary.data_keys]
    columns = {axis.name: _column(run, axis, points) for axis in axes}
    if not axes:
        return f"loopscan {points} {exposure:g}"
    if not run.is_mesh:
        if len(axes) == 1:
            return f"fscan {_part(run, axes[0], columns[axes[0].name], points)} {times}"
        ends = " ".join(
            f"{run.names.get(axis.name, axis.name)} {_end(columns[axis.name], 0)} {_end(columns[axis.name], -1)}"
            for axis in axes
        )
        return f"a{len(axes)}scan {ends} {max(points - 1, 0)} {exposure:g}"
    parts: list[str] = []
    stride = 1
    for place, axis in reversed(list(enumerate(axes))):
        count = axis.num if place else points // block_length(run)
        parts.insert(0, _part(run, axis, columns[axis.name][: stride * count : stride], count))
        stride *= axis.num
    return f"fscan{len(axes)}d {' '.join(parts)} {times}"


def _column(run: Run, axis: Axis, points: int) -> NDArray:
    key = run.setpoint_key(axis.name)
    events = run.primary.events
    return np.array([events[number]["data"][key] for number in range(1, points + 1)], dtype=float)


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
