"""What outlives a session, in one small SQLite file beside the journals: scan numbers and named positions."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dfxrm_control.errors import ParameterError, RecordError

__all__ = ["SavedPositions", "SessionStore"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS positions (
    microscope TEXT NOT NULL, name TEXT NOT NULL, saved_at REAL NOT NULL, comment TEXT NOT NULL, axes TEXT NOT NULL,
    PRIMARY KEY (microscope, name)
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


class SessionStore:
    """Scan numbers that never repeat and positions by name, shared by every process that uses one journal folder.

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
