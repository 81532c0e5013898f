"""The report of a dry run, as text and as plain numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["GB", "DryRun", "Travel"]

GB = 1e9


@dataclass
class Travel:
    """How far an axis goes during a plan, and how far it may.

    Attributes
    ----------
    lowest, highest : float
        Extreme positions, mm, deg, keV or degC.
    lower_limit, upper_limit : float or None
        Limits; None where it has none, so that it may not move.
    units : str
        Unit of all of these.
    moves : int
        Number of moves.
    """

    lowest: float
    highest: float
    lower_limit: float | None
    upper_limit: float | None
    units: str
    moves: int = 0


@dataclass
class DryRun:
    """The report.

    Attributes
    ----------
    plan, config : str
        What was asked.
    start_from : str
        Where the start positions were taken from.
    arm : str or None
        What the arm counts from, where an alignment declared that and it is no ideal arm.
    travel : dict of Travel
        By logical axis, for those that move.
    frames, darks : int
        Frames with the shutter open and closed.
    exposed_s : float
        Sum of the exposures with the shutter open, s.
    open_s : float
        Dose: time for which the shutter is open, moves and read-out between exposures included, s.
    duration_s : float
        Time for moves, exposures, read-out and the measured overheads of the configuration (``dry_run``), s.
    at_most : bool
        Whether frames and times are the most there can be: the plan goes by what it sees, and nothing can be seen.
    data_bytes, free_bytes : int
        Size of all frames before compression, and free space where they go.
    warnings, problems : list of str
        What is worth a thought, and what forbids the run.
    start, end : dict of str to float
        Position of every axis whose position is known, before and after, by logical name, in its unit.
    """

    plan: str
    config: str
    start_from: str
    arm: str | None = None
    travel: dict[str, Travel] = field(default_factory=dict)
    frames: int = 0
    darks: int = 0
    exposed_s: float = 0.0
    open_s: float = 0.0
    duration_s: float = 0.0
    at_most: bool = False
    data_bytes: int = 0
    free_bytes: int = 0
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    start: dict[str, float] = field(default_factory=dict)
    end: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, text, lists and mappings."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report as text."""
        lines = [f"{self.plan} on {self.config}, starting from {self.start_from}"]
        lines += [self.arm] if self.arm is not None else []
        for axis, travel in self.travel.items():
            limits = (
                "no limits"
                if travel.lower_limit is None
                else f"limits {travel.lower_limit:g} .. {travel.upper_limit:g}"
            )
            reach = f"{travel.lowest:.5f} .. {travel.highest:.5f} {travel.units}"
            lines.append(f"  {axis:<10} {reach} in {travel.moves} moves ({limits})")
        most = "at most " if self.at_most else ""
        lines += [
            f"frames:   {most}{self.frames} and {self.darks} darks",
            f"time:     {most}{_time(self.duration_s)}",
            f"dose:     {most}shutter open {_time(self.open_s)}, exposures {_time(self.exposed_s)}",
            f"data:     {self.data_bytes / GB:.3g} GB before compression, {self.free_bytes / GB:.3g} GB free",
            *(f"warning:  {text}" for text in self.warnings),
            *(f"PROBLEM:  {text}" for text in self.problems),
            "the plan can run" if not self.problems else "the plan cannot run",
        ]
        return lines


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
