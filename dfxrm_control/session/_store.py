"""What outlives a session, in one small SQLite file beside the journals.

Scan numbers, named positions, what an alignment declared of the arm, and whose beamtime it is.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dfxrm_control.errors import ParameterError, RecordError

__all__ = ["Beamtime", "DeclaredArm", "SavedPositions", "SessionStore"]

_NOTHING = 5e-7
"""Offsets below this, in mm or deg, are the rounding of numbers."""

_IN_DEG = ("obpitch", "obyaw")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS positions (
    microscope TEXT NOT NULL, name TEXT NOT NULL, saved_at REAL NOT NULL, comment TEXT NOT NULL, axes TEXT NOT NULL,
    PRIMARY KEY (microscope, name)
);
CREATE TABLE IF NOT EXISTS arms (
    microscope TEXT PRIMARY KEY, two_theta REAL NOT NULL, offsets TEXT NOT NULL, declared_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS beamtimes (
    microscope TEXT PRIMARY KEY, proposal TEXT NOT NULL, people TEXT NOT NULL, begun_at REAL NOT NULL
);
"""


@dataclass(frozen=True)
class SavedPositions:
    """Where some axes stood when they were saved under a name.

    Attributes
    ----------
    name : str
        The name they were saved under.
    axes : dict of str to float
        Position by logical axis, in mm, deg or keV.
    saved_at : float
        Seconds since 1970.
    comment : str
        What the user wrote with it.
    """

    name: str
    axes: dict[str, float]
    saved_at: float
    comment: str


@dataclass(frozen=True)
class DeclaredArm:
    """What an alignment declared of the arm.

    Attributes
    ----------
    two_theta_deg : float
        Scattering angle that the arm was declared to be at, deg.
    offsets : dict of str to float
        How far each axis of objective and camera then stood from where it stands on an ideal arm, mm or deg, by
        logical name.
    declared_at : float
        Seconds since 1970.
    """

    two_theta_deg: float
    offsets: dict[str, float]
    declared_at: float

    @property
    def off(self) -> dict[str, float]:
        """The offsets that are not zero."""
        return {name: offset for name, offset in self.offsets.items() if abs(offset) > _NOTHING}

    def line(self) -> str:
        """Return it as one line."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.declared_at))
        off = [f"{name} {offset:+.5g} {'deg' if name in _IN_DEG else 'mm'}" for name, offset in self.off.items()]
        parts = f"off an ideal arm by {', '.join(off)}" if off else "no part is off an ideal arm"
        return f"the arm counts from an alignment of {when}: at two_theta {self.two_theta_deg:.5g} deg {parts}"


@dataclass(frozen=True)
class Beamtime:
    """Whose beamtime it is; goes into the record of every run.

    Attributes
    ----------
    proposal : str
        Number or name of the proposal.
    people : tuple of str
        Who measures.
    begun_at : float
        Seconds since 1970.
    """

    proposal: str
    people: tuple[str, ...]
    begun_at: float

    def line(self) -> str:
        """Return it as one line."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.begun_at))
        return f"proposal {self.proposal}, {', '.join(self.people) or 'nobody named'}, since {when}"


class SessionStore:
    """Scan numbers that never repeat, positions, declared arm and beamtime, for all processes on one journal folder.

    Parameters
    ----------
    path : Path
        SQLite file; made, with its folder, when it is not there.

    Raises
    ------
    RecordError
        When the file cannot be made, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"folder {path.parent} cannot be made: {error.strerror or error}") from error
        with self._transaction() as connection:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the file, take its write lock, and commit unless something is raised.

        A connection per transaction: the store is used a few times per scan, from whichever thread asks.
        """
        try:
            with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise RecordError(f"session file {self.path} cannot be used: {error}") from error

    def next_scan_id(self, after: int = 0) -> int:
        """Return the next scan number; no two calls, in any process, get the same.

        Parameters
        ----------
        after : int, optional
            A number known to be taken, for where this file is younger than the data beside it.
        """
        with self._transaction() as connection:
            row = connection.execute(
                "INSERT INTO counters VALUES ('scan_id', :after + 1) "
                "ON CONFLICT (name) DO UPDATE SET value = max(value, :after) + 1 RETURNING value",
                {"after": after},
            ).fetchone()
        return int(row[0])

    def save(self, microscope: str, name: str, axes: Mapping[str, float], comment: str = "") -> None:
        """Keep the positions of some axes of a microscope under a name; an earlier one of that name is replaced."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?, ?)",
                (microscope, name, time.time(), comment, json.dumps(dict(axes))),
            )

    def saved(self, microscope: str) -> list[SavedPositions]:
        """Return all named positions of a microscope, oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT name, axes, saved_at, comment FROM positions WHERE microscope = ? ORDER BY saved_at",
                (microscope,),
            ).fetchall()
        return [SavedPositions(name, json.loads(axes), saved_at, comment) for name, axes, saved_at, comment in rows]

    def load(self, microscope: str, name: str) -> SavedPositions:
        """Return the positions saved under a name.

        Raises
        ------
        ParameterError
            When nothing was saved under that name; the sentence lists the names there are.
        """
        found = self.saved(microscope)
        for positions in found:
            if positions.name == name:
                return positions
        names = ", ".join(positions.name for positions in found) or "none"
        raise ParameterError(f"no positions are saved as {name!r} on {microscope}; saved are: {names}")

    def forget(self, microscope: str, name: str) -> None:
        """Drop a named position; raises ParameterError when there is none of that name."""
        self.load(microscope, name)
        with self._transaction() as connection:
            connection.execute("DELETE FROM positions WHERE microscope = ? AND name = ?", (microscope, name))

    def declare_arm(self, microscope: str, two_theta_deg: float, offsets: Mapping[str, float]) -> None:
        """Keep what was declared of the arm of a microscope; what was declared before is replaced."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO arms VALUES (?, ?, ?, ?)",
                (microscope, two_theta_deg, json.dumps(dict(offsets)), time.time()),
            )

    def declared_arm(self, microscope: str) -> DeclaredArm | None:
        """Return what was last declared of the arm of a microscope; None where nothing was, or it was forgotten."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT two_theta, offsets, declared_at FROM arms WHERE microscope = ?", (microscope,)
            ).fetchone()
        return None if row is None else DeclaredArm(float(row[0]), json.loads(row[1]), float(row[2]))

    def forget_arm(self, microscope: str) -> None:
        """Drop what was declared of the arm of a microscope, if anything was."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM arms WHERE microscope = ?", (microscope,))

    def begin_beamtime(self, microscope: str, proposal: str, people: Iterable[str] = ()) -> Beamtime:
        """Keep whose beamtime it is from now on; that of before is replaced.

        Raises
        ------
        ParameterError
            When the proposal has no name.
        """
        proposal, names = proposal.strip(), [name.strip() for name in people if name.strip()]
        if not proposal:
            raise ParameterError("a beamtime needs the number or name of its proposal")
        begun = Beamtime(proposal, tuple(names), time.time())
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO beamtimes VALUES (?, ?, ?, ?)",
                (microscope, begun.proposal, json.dumps(names), begun.begun_at),
            )
        return begun

    def beamtime(self, microscope: str) -> Beamtime | None:
        """Return whose beamtime it is; None where none was begun, or it was ended."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT proposal, people, begun_at FROM beamtimes WHERE microscope = ?", (microscope,)
            ).fetchone()
        return None if row is None else Beamtime(str(row[0]), tuple(json.loads(row[1])), float(row[2]))

    def end_beamtime(self, microscope: str) -> None:
        """Forget whose beamtime it was, if it was anybody's."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM beamtimes WHERE microscope = ?", (microscope,))
