"""What was put into which catalogue: so that nothing is put in twice, and nothing is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dfxrm_control.catalogue._opening import CatalogueError
from dfxrm_control.catalogue._place import Place

__all__ = ["Ledger"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entered (
    catalogue TEXT NOT NULL, journal TEXT NOT NULL, fault TEXT, PRIMARY KEY (catalogue, journal)
);
CREATE TABLE IF NOT EXISTS data_folders (folder TEXT PRIMARY KEY);
"""


class Ledger:
    """The journals that a catalogue has, by the name of their file, and those that it could not take.

    Parameters
    ----------
    place : Place
        The catalogue.

    Raises
    ------
    CatalogueError
        When the file cannot be made, read or written.
    """

    def __init__(self, place: Place) -> None:
        self._file = place.folder / "entered.sqlite"
        self._catalogue = place.address
        try:
            place.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogueError(f"folder {place.folder} cannot be made: {error.strerror or error}") from error
        with self._connection() as connection:
            connection.executescript(_SCHEMA)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._file, timeout=30)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise CatalogueError(f"{self._file} cannot be used: {error}") from error

    def known(self) -> dict[str, str | None]:
        """Return by journal why it was not taken, or None where it was."""
        with self._connection() as connection:
            rows = connection.execute("SELECT journal, fault FROM entered WHERE catalogue = ?", (self._catalogue,))
            return dict(rows.fetchall())

    def note(self, journal: Path, fault: str | None = None) -> None:
        """Note that a journal was taken, or why not."""
        with self._connection() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO entered VALUES (?, ?, ?)", (self._catalogue, journal.name, fault)
            )

    def forget_faults(self) -> None:
        """Let what was not taken be tried again."""
        with self._connection() as connection:
            connection.execute("DELETE FROM entered WHERE catalogue = ? AND fault IS NOT NULL", (self._catalogue,))

    def data_folders(self, now: Path) -> list[str]:
        """Return every folder that frames ever went to, that of now among them."""
        with self._connection() as connection:
            connection.execute("INSERT OR IGNORE INTO data_folders VALUES (?)", (str(now),))
            return [row[0] for row in connection.execute("SELECT folder FROM data_folders ORDER BY folder")]
