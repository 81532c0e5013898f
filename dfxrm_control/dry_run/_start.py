"""Where the axes are when a plan begins: as given, as the last journal says, or as the configuration says."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dfxrm_control.config import AxisConfig, MicroscopeConfig
from dfxrm_control.errors import ConfigError, FileFormatError, ParameterError
from dfxrm_control.records import read_documents

__all__ = ["GIVEN", "LastPositions", "Source", "Start", "StartUnknownError", "last_positions", "start_of"]

Source = Literal["journal", "configuration"]
GIVEN = "the given positions"


class StartUnknownError(ConfigError):
    """An axis is needed whose position nobody has told."""


@dataclass(frozen=True)
class LastPositions:
    """Where the axes were left by the last run of a microscope.

    Attributes
    ----------
    positions : dict of str to float
        By logical name, in the unit of each axis.
    scan_id : int
        Number of the run.
    time_s : float
        When the last of them was read, seconds since 1970.
    """

    positions: dict[str, float]
    scan_id: int
    time_s: float

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.time_s))
        return f"the journal of scan {self.scan_id}, {when}"


@dataclass
class Start:
    """Start positions, and where each was taken from.

    Attributes
    ----------
    positions : dict of str to float
        By logical name, of the axes for which one is known.
    origin : dict of str to str
        The words for where each was taken from, by logical name.
    """

    positions: dict[str, float] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    def words(self) -> str:
        """Return where the positions were taken from, as words."""
        by_origin: dict[str, list[str]] = {}
        for axis, origin in self.origin.items():
            by_origin.setdefault(origin, []).append(axis)
        if len(by_origin) == 1:
            return next(iter(by_origin))
        # the largest group is "the others"
        *few, most = sorted(by_origin, key=lambda origin: len(by_origin[origin]))
        named = [f"{origin} ({', '.join(by_origin[origin])})" for origin in few]
        return f"{' and '.join(named)} and {most} (all others)" if named else "no known positions"


def start_of(config: MicroscopeConfig, given: Mapping[str, float], source: Source | None = None) -> Start:
    """Return where the axes of a configuration start.

    What is given goes first. Axes that stay where they are when a session ends (those on a control system, and those of
    a twin that is a process of its own) are then looked up in the last journal of this microscope, and only where that
    says nothing in the configuration; for axes that each session makes anew it is the other way round.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope.
    given : mapping of str to float
        Position by logical name.
    source : str, optional
        ``journal`` or ``configuration``: only this, for all that is not given.

    Raises
    ------
    ParameterError
        When there is no such axis.
    StartUnknownError
        When the journal is asked for and there is none.
    """
    axes = {axis: part for device in config.devices.values() for axis, part in device.axes.items()}
    unknown = [axis for axis in given if axis not in axes]
    if unknown:
        raise ParameterError(
            f"start: axis {unknown[0]!r} is not in configuration {config.name!r}; it has {', '.join(axes)}"
        )
    last = None if source == "configuration" else last_positions(config)
    if source == "journal" and last is None:
        raise StartUnknownError(
            f"no journal in {config.data.journal_directory} tells where the axes of {config.name!r} are"
        )
    start = Start()
    for axis, part in axes.items():
        kept = None if last is None else last.positions.get(axis)
        told = None if source == "journal" else part.start
        found: list[tuple[float | None, str]] = [(kept, str(last)), (told, "the configuration")]
        if not _stays(config, part):
            found.reverse()
        for position, origin in ((given.get(axis), GIVEN), *found):
            if position is not None:
                start.positions[axis], start.origin[axis] = float(position), origin
                break
    return start


def last_positions(config: MicroscopeConfig) -> LastPositions | None:
    """Return where the last run of a configuration left its axes, by its journal; None where there is none.

    A run that ended by itself has brought back the axes that its start document says it brings back.
    """
    for path in _newest_first(Path(config.data.journal_directory)):
        try:
            documents = iter(read_documents(path))
            _, start = next(documents, ("", {}))
            if start.get("dfxrm", {}).get("config") != config.name:
                continue
            return _left_by(start, documents, config)
        except FileFormatError:
            # being begun, or foreign: the one before it says more
            continue
    return None


def _newest_first(folder: Path) -> list[Path]:
    times = {}
    for path in folder.glob("**/*.jsonl"):
        try:
            times[path] = path.stat().st_mtime_ns
        except OSError:
            continue
    return sorted(times, key=lambda path: times[path], reverse=True)


def _left_by(
    start: Mapping[str, Any], documents: Iterable[tuple[str, dict[str, Any]]], config: MicroscopeConfig
) -> LastPositions:
    axes = {axis for device in config.devices.values() for axis in device.axes}
    positions: dict[str, float] = {}
    time_s = float(start.get("time", 0.0))
    for name, doc in documents:
        if name == "event":
            positions |= {key: float(value) for key, value in doc["data"].items() if key in axes}
            time_s = float(doc["time"])
        elif name == "stop":
            back = start["dfxrm"].get("brought_back", {})
            positions |= {key: float(value) for key, value in back.items() if key in axes}
    return LastPositions(positions, int(start.get("scan_id", 0)), time_s)


def _stays(config: MicroscopeConfig, axis: AxisConfig) -> bool:
    """Return whether an axis stays where it is when a session ends."""
    return axis.control != "memory" or (config.backend is not None and "address" in config.backend.options)
