"""The registration of a sample, kept beside its data: with all that went before it, so that it can be undone."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import FileFormatError, ParameterError, RecordError
from dfxrm_control.grains import GrainMap
from dfxrm_control.handoff._registration import Registration

__all__ = ["RegistrationStore", "StoredRegistration", "map_fingerprint"]

FILE = "registration.json"
_SCHEMA = 1


def map_fingerprint(grains: GrainMap) -> str:
    """Return what tells one map from another: a hash of its numbers, orientations and centres."""
    digest = hashlib.sha256(np.ascontiguousarray(grains.grain_id, np.int64).tobytes())
    # rounded, so that the same map read from another kind of file is the same
    for values, decimals in ((grains.ub, 6), (grains.centroid_mm, 6)):
        digest.update((np.round(values, decimals) + 0.0).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class StoredRegistration:
    """A registration as it was stored.

    Attributes
    ----------
    registration : Registration
        How the map lies.
    map_source, map_fingerprint : str
        The map it is of.
    time : str
        When it was stored, ISO 8601, UTC.
    grains : tuple of int
        Grains it was made of.
    lines : tuple of str
        Errors and residuals, as text.
    replaces : int or None
        Which one held before, by its place in the history.
    """

    registration: Registration
    map_source: str
    map_fingerprint: str
    time: str
    grains: tuple[int, ...]
    lines: tuple[str, ...]
    replaces: int | None


class RegistrationStore:
    """The registrations of one sample.

    Parameters
    ----------
    path : Path
        JSON file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, config: MicroscopeConfig) -> RegistrationStore:
        """Return that of the sample of a configuration, in the folder of its data."""
        return cls(Path(config.data.directory) / config.sample.name / FILE)

    def history(self) -> tuple[list[StoredRegistration], int | None]:
        """Return all that were stored, oldest first, and which of them holds; None where none does.

        Raises
        ------
        FileFormatError
            When the file is damaged.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return [], None
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{self.path} cannot be read: {error}") from error
        try:
            entries = [_entry(each) for each in content["history"]]
            current = content["current"]
            if current is not None and not 0 <= current < len(entries):
                raise ValueError(f"there is no registration {current}")
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{self.path} is no record of registrations: {error!r}") from error
        return entries, current

    def current(self) -> StoredRegistration | None:
        """Return the one that holds, if any; raises as `history`."""
        entries, current = self.history()
        return None if current is None else entries[current]

    def for_map(self, grains: GrainMap) -> Registration | None:
        """Return the one that holds if it is of this map; that of another map says nothing. Raises as `history`."""
        stored = self.current()
        return stored.registration if stored and stored.map_fingerprint == map_fingerprint(grains) else None

    def store(
        self, registration: Registration, grains: GrainMap, used: Sequence[int], lines: Sequence[str]
    ) -> StoredRegistration:
        """Let a registration hold from now on.

        Parameters
        ----------
        registration : Registration
            How the map lies.
        grains : GrainMap
            The map.
        used : sequence of int
            Grains it was made of.
        lines : sequence of str
            Errors and residuals, as text.

        Raises
        ------
        FileFormatError
            When the file that is there is damaged.
        RecordError
            When it cannot be written.
        """
        entries, current = self.history()
        stored = StoredRegistration(
            registration,
            grains.source,
            map_fingerprint(grains),
            datetime.now(UTC).isoformat(timespec="seconds"),
            tuple(int(grain) for grain in used),
            tuple(lines),
            current,
        )
        self._write([*entries, stored], len(entries))
        return stored

    def undo(self) -> StoredRegistration | None:
        """Let the one before hold again, and return it; None where there was none. The history is kept.

        Raises
        ------
        ParameterError
            When none holds.
        FileFormatError, RecordError
            When the file is damaged or cannot be written.
        """
        entries, current = self.history()
        if current is None:
            raise ParameterError(f"no registration holds for this sample ({self.path}), so there is nothing to undo")
        before = entries[current].replaces
        self._write(entries, before)
        return None if before is None else entries[before]

    def _write(self, entries: Sequence[StoredRegistration], current: int | None) -> None:
        content = {"schema": _SCHEMA, "current": current, "history": [asdict(each) for each in entries]}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.path.parent, prefix=f".{self.path.name}.", delete=False, encoding="utf-8"
            ) as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            # whole or not at all
            Path(file.name).replace(self.path)
        except OSError as error:
            raise RecordError(f"registration {self.path} cannot be written: {error.strerror or error}") from error


def _entry(values: dict[str, Any]) -> StoredRegistration:
    how = values["registration"]
    registration = Registration(
        tuple(map(float, how["rotation_deg"])),  # type: ignore[arg-type]  # three of them, as written
        tuple(map(float, how["shift_mm"])),  # type: ignore[arg-type]
        float(how["omega_offset_deg"]),
    )
    if len(registration.rotation_deg) != 3 or len(registration.shift_mm) != 3:
        raise ValueError("a rotation and a shift have three numbers each")
    return StoredRegistration(
        registration,
        str(values["map_source"]),
        str(values["map_fingerprint"]),
        str(values["time"]),
        tuple(map(int, values["grains"])),
        tuple(map(str, values["lines"])),
        values["replaces"],
    )
