"""The command in the title of a BLISS scan: which motors moved, and over which points."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import FileFormatError

__all__ = ["CommandAxis", "ScanCommand", "parse_title"]


@dataclass(frozen=True)
class CommandAxis:
    """One motor of a scan command.

    Attributes
    ----------
    name : str
        Name as it stands in the title.
    start, step : float
        First position and distance between two, in the motor's unit; of a relative scan, relative to where it began.
    num : int
        Number of positions.
    """

    name: str
    start: float
    step: float
    num: int


@dataclass(frozen=True)
class ScanCommand:
    """What a title says.

    Attributes
    ----------
    command : str
        ``fscan2d``, ``ascan``, ...
    axes : tuple of CommandAxis
        Slow first; none for a ``loopscan``.
    together : bool
        Whether the axes move together along one dimension (``a2scan``), rather than spanning a mesh.
    points : int
        Number of points.
    exposure_s : float or None
        Exposure time, where the title has it.
    """

    command: str
    axes: tuple[CommandAxis, ...]
    together: bool
    points: int
    exposure_s: float | None

    @property
    def line_length(self) -> int:
        """Points in one sweep of the fastest axis."""
        return self.axes[-1].num if self.axes else self.points

    def middle(self, positions: NDArray[np.float64]) -> list[float]:
        """Return the middle of each axis as planned, or where the plan does not say it, of the positions.

        Parameters
        ----------
        positions : ndarray, shape (points, axes)
            Where points were taken.
        """
        seen = (positions.min(axis=0) + positions.max(axis=0)) / 2.0
        planned = [axis.start + axis.step * (axis.num - 1) / 2.0 for axis in self.axes]
        told = [not self.command.startswith("d") and np.isfinite(middle) for middle in planned]
        return [float(p if t else s) for p, t, s in zip(planned, told, seen, strict=True)]


_UNDERSTOOD = "fscan, fscan2d, fscan3d, ascan, a2scan, dscan, d2scan, amesh, dmesh and loopscan"


def parse_title(title: str) -> ScanCommand:
    """Read a title.

    ``fscan[2d|3d] (motor start step n)... t`` (n points, the last motor fastest), ``ascan|dscan motor start stop
    intervals t``, ``a<N>scan|d<N>scan (motor start stop)... intervals t`` (moved together), ``amesh|dmesh (motor
    start stop intervals) x 2 t`` (BLISS moves the *first* motor of a mesh fastest), ``loopscan n t``.

    Raises
    ------
    FileFormatError
        For any other command, and for one whose arguments do not fit it.
    """
    words = title.split()
    command, arguments = (words[0], words[1:]) if words else ("", [])
    try:
        if match := re.fullmatch(r"fscan(?:([23])d)?", command):
            count = int(match[1] or 1)
            axes = tuple(_by_step(arguments[4 * i : 4 * i + 4]) for i in range(count))
            return _scan(command, axes, False, arguments[4 * count :])
        if command in ("amesh", "dmesh"):
            fast, slow = _by_stop(arguments[:4]), _by_stop(arguments[4:8])
            return _scan(command, (slow, fast), False, arguments[8:])
        if match := re.fullmatch(r"[ad](\d?)scan", command):
            count = int(match[1] or 1)
            intervals, rest = arguments[3 * count], arguments[3 * count + 1 :]
            axes = tuple(_by_stop([*arguments[3 * i : 3 * i + 3], intervals]) for i in range(count))
            return _scan(command, axes, count > 1, rest)
        if command == "loopscan":
            return ScanCommand(command, (), False, _count(arguments[0]), float(arguments[1]) if arguments[1:] else None)
    except (IndexError, ValueError) as error:
        raise FileFormatError(f"title {title!r}: the arguments do not fit {command} ({error})") from error
    raise FileFormatError(f"title {title!r} is no scan that maps can be made of; understood are {_UNDERSTOOD}")


def _scan(command: str, axes: tuple[CommandAxis, ...], together: bool, rest: list[str]) -> ScanCommand:
    points = axes[0].num if together else int(np.prod([axis.num for axis in axes]))
    return ScanCommand(command, axes, together, points, float(rest[0]) if rest else None)


def _by_step(words: list[str]) -> CommandAxis:
    name, start, step, num = words
    return CommandAxis(name, float(start), float(step), _count(num))


def _by_stop(words: list[str]) -> CommandAxis:
    name, start, stop, intervals = words
    num = _count(intervals, 0) + 1
    return CommandAxis(name, float(start), (float(stop) - float(start)) / max(num - 1, 1), num)


def _count(word: str, least: int = 1) -> int:
    number = int(word)
    if number < least:
        raise ValueError(f"{number} points")
    return number
