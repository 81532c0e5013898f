"""What must not meet: boxes that motors carry, and whether two of them can come too close during a move.

Motors that move together do not move in step, so nothing is assumed about when each is where: a move is allowed only if
no combination of positions on the ways of all motors brings two bodies closer than they may come. Nothing is sampled,
so nothing is missed by being fast.

A box that is carried straight along is, with its ways, a zonotope (the sum of segments), and so is the difference of
two of them; two bodies are apart by the distance of that difference from the origin. The separating axis theorem
(Gottschalk, Lin & Manocha 1996, SIGGRAPH '96, 171), with the faces of the zonotope as axes, tells whether they are
apart; where that does not tell by how much, the distance is a bounded least-squares problem. A turn is cut into pieces
so small that what lies off the middle of each does not matter.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.config import BodyConfig, BodyMotion, MicroscopeConfig
from dfxrm_control.errors import DfxrmError, EnvelopeError

__all__ = ["Envelopes", "Guard", "Meeting", "Ways"]

Ways = Mapping[str, tuple[float, float]]
"""Lowest and highest position of each motor on its way, mm or deg, by logical name."""

RESOLUTION_MM = 0.02
"""By how little a turn that is cut into pieces may be taken for closer than it is."""
_MOST_PIECES = 4000
_UNIT = dict(zip("xyz", np.eye(3), strict=True))


@dataclass(frozen=True)
class Meeting:
    """Two bodies that would come too close.

    Attributes
    ----------
    first, second : str
        The bodies.
    distance_mm : float
        The smallest distance on the way, mm; 0 where they touch.
    clearance_mm : float
        The distance that they must keep, mm.
    """

    first: str
    second: str
    distance_mm: float
    clearance_mm: float

    def __str__(self) -> str:
        return (
            f"{self.first} and {self.second} would come within {self.distance_mm:.3g} mm of each other, and must stay "
            f"{self.clearance_mm:.3g} mm apart"
        )


@dataclass(frozen=True)
class _Place:
    """Where a body can be: all that its middle, moved along its generators and by its slack in any way, covers.

    All of that is within ``reach_mm`` of the middle.
    """

    middle: NDArray[np.float64]
    box: NDArray[np.float64]
    ways: dict[str, NDArray[np.float64]]
    slack_mm: float
    slack_of: dict[str, float]
    reach_mm: float


class _Body:
    def __init__(self, name: str, config: BodyConfig) -> None:
        self.name = name
        self.config = config
        self.half = 0.5 * np.array(config.size)
        self.centre = np.array(config.centre)
        self.radius = float(np.linalg.norm(self.half))
        self.axes = frozenset(motion.axis for motion in config.motions)
        self._last: tuple[list[tuple[float, float]], _Place] | None = None

    def place(self, ways: Ways) -> _Place:
        """Return where the body can be when each motor can be anywhere on its way."""
        # a body is compared with several others in a row
        key = [ways[motion.axis] for motion in self.config.motions]
        last = self._last
        if last is None or last[0] != key:
            last = self._last = key, self._placed(ways)
        return last[1]

    def _placed(self, ways: Ways) -> _Place:
        turned, origin = np.eye(3), np.zeros(3)
        carried: dict[str, NDArray[np.float64]] = {}
        slack_of: dict[str, float] = {}
        levers = self._levers(ways)
        for motion, lever in zip(self.config.motions, levers, strict=True):
            middle, half = _middle(motion, ways)
            if motion.along is not None:
                direction = turned @ _UNIT[motion.along]
                origin = origin + middle * direction
                if half:
                    # a motor may carry in several ways
                    carried[motion.axis] = carried.get(motion.axis, np.zeros(3)) + half * motion.sign * direction
            elif motion.about is not None:
                turned = turned @ _turn(motion.about, middle)
                if half:
                    slack_of[motion.axis] = slack_of.get(motion.axis, 0.0) + lever * math.radians(half)
        slack = sum(slack_of.values())
        reach = self.radius + slack + sum(math.hypot(*way) for way in carried.values())
        return _Place(origin + turned @ self.centre, (turned * self.half).T, carried, slack, slack_of, reach)

    def _levers(self, ways: Ways) -> list[float]:
        """Return, for each motion, how far from its frame's origin any point of the body can be, mm."""
        lever = float(np.linalg.norm(self.centre)) + self.radius
        levers = []
        for motion in reversed(self.config.motions):
            levers.append(lever)
            if motion.along is not None:
                middle, half = _middle(motion, ways)
                lever += abs(middle) + half
        return levers[::-1]


class Envelopes:
    """The bodies of a microscope.

    Parameters
    ----------
    bodies : mapping of str to BodyConfig
        By name.
    limits : mapping, optional
        Lowest and highest position of each motor, mm or deg: where one that does not answer may be.
    """

    def __init__(
        self, bodies: Mapping[str, BodyConfig], limits: Mapping[str, tuple[float, float] | None] | None = None
    ) -> None:
        self._bodies = [_Body(name, config) for name, config in bodies.items()]
        self._limits = dict(limits or {})
        self._pairs = [
            (first, second)
            for first, second in combinations(self._bodies, 2)
            # two that nothing carries cannot come closer
            if (first.axes or second.axes)
            and second.name not in first.config.may_meet
            and first.name not in second.config.may_meet
        ]
        self._free: dict[tuple[str, str], Ways] = {}
        self._pairs_of: dict[tuple[frozenset[str], frozenset[str]], list[tuple[_Body, _Body]]] = {}

    @classmethod
    def from_config(cls, config: MicroscopeConfig) -> Envelopes:
        """Return the bodies of a configuration."""
        axes = {axis: part.limits for parts in config.devices.values() for axis, part in parts.axes.items()}
        return cls(config.bodies, axes)

    @property
    def axes(self) -> frozenset[str]:
        """Motors that carry a body which could meet another."""
        return frozenset(axis for pair in self._pairs for body in pair for axis in body.axes)

    @property
    def channels(self) -> frozenset[str]:
        """Channels on which it depends whether a body is there."""
        return frozenset(channel for pair in self._pairs for body in pair for channel in body.config.present)

    def needed(self, axes: Iterable[str] = (), channels: Iterable[str] = ()) -> tuple[frozenset[str], frozenset[str]]:
        """Return the motors and channels on which it depends whether something meets when some of them change."""
        pairs = self._concerned(set(axes), set(channels))
        return (
            frozenset(axis for pair in pairs for body in pair for axis in body.axes),
            frozenset(channel for pair in pairs for body in pair for channel in body.config.present),
        )

    def distance_mm(self, first: str, second: str, positions: Mapping[str, float]) -> float:
        """Return the distance of two bodies, mm; where they overlap, minus the shortest way apart."""
        bodies = {body.name: body for body in self._bodies}
        return _apart(bodies[first], bodies[second], {axis: (at, at) for axis, at in positions.items()}, math.inf)

    def meeting(
        self, ways: Ways, channels: Mapping[str, Any] | None = None, since: Mapping[str, float] | None = None
    ) -> Meeting | None:
        """Return the two bodies that could come too close on the ways of all motors, the closest pair; None if none.

        Parameters
        ----------
        ways : mapping
            Lowest and highest position of each motor. One that is not named may be anywhere within its limits.
        channels : mapping, optional
            Value of each channel; a body that depends on one that is not named is taken to be there.
        since : mapping, optional
            Where the motors are before the move. Bodies that are too close already may go apart: then it counts only
            whether they come closer still.

        Raises
        ------
        EnvelopeError
            When nothing is known of where a motor is: it is not named and has no limits.
        """
        return self._closest(self._pairs, ways, channels or {}, since)

    def check(
        self,
        ways: Ways,
        channels: Mapping[str, Any],
        since: Mapping[str, float],
        asked: str,
        moved: Iterable[str] = (),
        switched: Iterable[str] = (),
    ) -> None:
        """Refuse a move on which two bodies could come too close. As `meeting`, for bodies that the move concerns.

        Parameters
        ----------
        ways, channels, since : mapping
            As for `meeting`.
        asked : str
            What was asked for, as the beginning of the sentence.
        moved, switched : iterable of str
            Motors that move, and channels that change.

        Raises
        ------
        EnvelopeError
            Naming the two bodies and their distance.
        """
        found = self._closest(self._concerned(set(moved), set(switched)), ways, channels, since)
        if found is not None:
            lost = sorted({axis for body in (found.first, found.second) for axis in self._axes_of(body)} - set(ways))
            unknown = f" ({', '.join(lost)}: position not known, so anywhere within limits)" if lost else ""
            raise EnvelopeError(f"{asked}: {found}{unknown}")

    def check_move(
        self,
        positions: Mapping[str, float],
        targets: Mapping[str, float],
        channels: Mapping[str, Any] | None = None,
    ) -> None:
        """Refuse to send motors from where they are to other positions together; raises EnvelopeError.

        Parameters
        ----------
        positions : mapping
            Where every motor is, mm or deg.
        targets : mapping
            Where some are sent.
        channels : mapping, optional
            Value of each channel.
        """
        ways = {axis: _hull(at, targets.get(axis, at)) for axis, at in positions.items()}
        asked = ", ".join(f"{axis} to {target:g}" for axis, target in targets.items())
        self.check(ways, channels or {}, positions, f"cannot move {asked}", moved=targets)

    def _axes_of(self, name: str) -> frozenset[str]:
        return next(body.axes for body in self._bodies if body.name == name)

    def _concerned(self, axes: set[str], channels: set[str]) -> list[tuple[_Body, _Body]]:
        key = (frozenset(axes), frozenset(channels))
        if key not in self._pairs_of:
            self._pairs_of[key] = [
                pair
                for pair in self._pairs
                if any(body.axes & axes or set(body.config.present) & channels for body in pair)
            ]
        return self._pairs_of[key]

    def _closest(
        self,
        pairs: Iterable[tuple[_Body, _Body]],
        ways: Ways,
        channels: Mapping[str, Any],
        since: Mapping[str, float] | None,
    ) -> Meeting | None:
        found: Meeting | None = None
        for first, second in pairs:
            if not (_is_there(first, channels) and _is_there(second, channels)):
                continue
            known = {axis: ways[axis] if axis in ways else self._anywhere(axis) for axis in first.axes | second.axes}
            free = self._free.get((first.name, second.name))
            if free is not None and _inside(known, free):
                continue
            clearance = max(first.config.clearance, second.config.clearance)
            nearest = _apart(first, second, known, clearance)
            if nearest >= clearance:
                # scans come to the same places again: what is found free is kept, with what was free before if together
                wider = known if free is None else {axis: _hull(*known[axis], *free[axis]) for axis in known}
                if wider is not known and _apart(first, second, wider, clearance) < clearance:
                    wider = known
                self._free[first.name, second.name] = wider
                continue
            if since is not None and all(axis in since for axis in known):
                # what is too close already must be able to get away
                now = _apart(first, second, {axis: (since[axis], since[axis]) for axis in known}, clearance)
                needed = now - _rounding(first, second, known)
                if now < clearance and _apart(first, second, known, needed) >= needed:
                    continue
            if found is None or nearest < found.distance_mm:
                found = Meeting(first.name, second.name, max(nearest, 0.0), clearance)
        return found

    def _anywhere(self, axis: str) -> tuple[float, float]:
        limits = self._limits.get(axis)
        if limits is None:
            raise EnvelopeError(
                f"it is not known where {axis} is, and it has no limits, so nothing can be said of what it carries"
            )
        return limits


class Guard:
    """Asked by the devices before they move: refuses what could bring two bodies together.

    Parameters
    ----------
    envelopes : Envelopes
        The bodies.
    axes : mapping
        Devices by logical name; a motor has ``way()``, its lowest and highest position on the way it is on.
    channels : mapping
        Channels by logical name.
    """

    def __init__(self, envelopes: Envelopes, axes: Mapping[str, Any], channels: Mapping[str, Any]) -> None:
        self._envelopes = envelopes
        self._axes = axes
        self._channels = channels
        # one move is looked at and begun after the other: two threads must not each find the place free
        self._lock = threading.RLock()

    @contextmanager
    def moving(self, ways: Ways, asked: str) -> Iterator[None]:
        """Hold while a move is begun; raises EnvelopeError, naming the two bodies and the distance, if it must not be.

        Parameters
        ----------
        ways : mapping
            Lowest and highest position of each motor that will move.
        asked : str
            What was asked for, as the beginning of the sentence.
        """
        with self._lock:
            axes, channels = self._envelopes.needed(axes=ways)
            if axes:
                since = self._asked_of(axes, lambda axis: axis.position)
                self._envelopes.check({**self._ways(axes), **ways}, self._values(channels), since, asked, moved=ways)
            yield

    @contextmanager
    def switching(self, channel: str, value: Any, asked: str) -> Iterator[None]:
        """Hold while a channel is set; raises EnvelopeError if it would put a body where another one is."""
        with self._lock:
            axes, channels = self._envelopes.needed(channels=(channel,))
            if axes:
                values = {**self._values(channels), channel: value}
                # what is not there yet is not too close already
                self._envelopes.check(self._ways(axes), values, {}, asked, switched=(channel,))
            yield

    def _ways(self, axes: Iterable[str]) -> dict[str, tuple[float, float]]:
        ways: dict[str, tuple[float, float]] = {}
        for way in self._asked_of(axes, lambda axis: axis.way()).values():
            ways |= way
        return ways

    def _values(self, channels: Iterable[str]) -> dict[str, Any]:
        values = {}
        for name in channels:
            try:
                values[name] = self._channels[name].get()
            except (DfxrmError, KeyError):
                continue
        return values

    def _asked_of(self, axes: Iterable[str], question: Callable[[Any], Any]) -> dict[str, Any]:
        """Return the answers; a motor that is not there or does not answer is left out."""
        answers = {}
        for name in axes:
            try:
                answers[name] = question(self._axes[name])
            except (DfxrmError, KeyError):
                continue
        return answers


def _is_there(body: _Body, channels: Mapping[str, Any]) -> bool:
    return all(channels.get(channel, word) == word for channel, word in body.config.present.items())


def _rounding(first: _Body, second: _Body, ways: Ways) -> float:
    """Return by how much two bodies that go apart may seem to come closer, mm."""
    turning = any(
        motion.about is not None and ways[motion.axis][0] < ways[motion.axis][1]
        for body in (first, second)
        for motion in body.config.motions
    )
    return 2 * RESOLUTION_MM if turning else 1e-6


def _inside(ways: Ways, free: Ways) -> bool:
    """Return whether all ways lie within others that are known to be free."""
    for axis, (low, high) in ways.items():
        lowest, highest = free[axis]
        if low < lowest or high > highest:
            return False
    return True


def _hull(*positions: float) -> tuple[float, float]:
    return min(positions), max(positions)


def _middle(motion: BodyMotion, ways: Ways) -> tuple[float, float]:
    """Return how far the middle of a motor's way carries, and half the length of the way, mm or deg."""
    low, high = ways[motion.axis]
    return motion.sign * (0.5 * (low + high) - motion.zero), 0.5 * (high - low)


def _turn(about: str, angle_deg: float) -> NDArray[np.float64]:
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    if about == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if about == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _apart(first: _Body, second: _Body, ways: Ways, needed: float) -> float:
    """Return the smallest distance of two bodies on the ways of their motors, mm, to `RESOLUTION_MM`, never too large.

    It is exact where nothing turns. From ``needed`` on it may be any distance that is not below ``needed`` (with
    infinity it is the distance), and where they overlap it is minus the shortest way apart.
    """
    nearest = math.inf
    pieces: list[Ways] = [ways]
    for _ in range(_MOST_PIECES):
        if not pieces:
            return nearest
        piece = pieces.pop()
        here, there = first.place(piece), second.place(piece)
        slack = here.slack_mm + there.slack_mm
        enough = min(needed, nearest)
        if math.dist(here.middle, there.middle) - here.reach_mm - there.reach_mm >= enough:
            nearest = min(nearest, needed)
            continue
        between = here.middle - there.middle
        distance = _distance(between, _difference(here, there), enough + slack)
        if distance - slack >= enough:
            nearest = min(nearest, distance - slack)
        elif slack <= RESOLUTION_MM:
            nearest = min(nearest, distance - slack)
        else:
            turns = {axis: here.slack_of.get(axis, 0.0) + there.slack_of.get(axis, 0.0) for axis in piece}
            widest = max(turns, key=lambda axis: turns[axis])
            low, high = piece[widest]
            pieces += [{**piece, widest: half} for half in ((low, 0.5 * (low + high)), (0.5 * (low + high), high))]
    # too many turns at once for a quick answer: then they count as meeting
    return min(nearest, 0.0)


def _difference(here: _Place, there: _Place) -> NDArray[np.float64]:
    """Return the generators of all differences of two bodies, shape (n, 3); a motor that carries both counts once."""
    ways = {axis: here.ways.get(axis, 0.0) - there.ways.get(axis, 0.0) for axis in {**here.ways, **there.ways}}
    return np.vstack([here.box, there.box, *(np.atleast_2d(way) for way in ways.values())])


def _distance(between: NDArray[np.float64], generators: NDArray[np.float64], enough: float) -> float:
    """Return the distance of the origin from a zonotope, mm; inside, minus the shortest way out.

    Parameters
    ----------
    between : ndarray, shape (3,)
        Its middle, mm.
    generators : ndarray, shape (n, 3)
        Half of each of the segments it is the sum of, mm; the first three span space.
    enough : float
        A distance from which on it need not be known how large it is, mm.
    """
    first, second = _pairs_of(len(generators))
    a, b = generators[first], generators[second]
    normals = np.stack(
        [
            a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1],
            a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2],
            a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0],
        ],
        axis=1,
    )
    length = np.sqrt((normals**2).sum(axis=1))
    kept = length > 1e-12
    normals = normals[kept] / length[kept, np.newaxis]
    reach = np.abs(normals @ generators.T).sum(axis=1)
    gap = float((np.abs(normals @ between) - reach).max())
    if gap <= 0 or gap >= enough:
        return gap
    # they are apart, by no less than the gap; near an edge or a corner by more
    from scipy.optimize import lsq_linear

    nearest = between + generators.T @ lsq_linear(generators.T, -between, bounds=(-1.0, 1.0), tol=1e-14).x
    # the gap along that direction is the distance if this is the nearest point, and never more than it
    towards = nearest / np.linalg.norm(nearest)
    return max(gap, float(towards @ between - np.abs(generators @ towards).sum()))


def _pairs_of(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if count not in _PAIRS:
        _PAIRS[count] = np.triu_indices(count, 1)
    return _PAIRS[count]


_PAIRS: dict[int, tuple[NDArray[np.intp], NDArray[np.intp]]] = {}
