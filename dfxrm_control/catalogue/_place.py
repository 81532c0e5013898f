"""Which catalogue belongs to which journals."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dfxrm_control.config import CATALOGUE, MicroscopeConfig
from dfxrm_control.errors import ConfigError

__all__ = ["VARIABLE", "Place", "place_of"]

VARIABLE = "DFXRM_CATALOGUE"
"""Environment variable that stands before what a configuration says of its catalogue."""


@dataclass(frozen=True)
class Place:
    """A catalogue and what it is filled from.

    Attributes
    ----------
    journals : Path
        Folder of the journals.
    data : Path
        Folder of the frames.
    address : str
        ``embedded``, or the address of a Tiled server.
    """

    journals: Path
    data: Path
    address: str

    @property
    def embedded(self) -> bool:
        """Whether it is kept in files beside the journals, with no server."""
        return self.address == "embedded"

    @property
    def folder(self) -> Path:
        """Where the embedded catalogue is kept, and what is known of what was put into any."""
        return self.journals / "catalogue"

    @property
    def shown(self) -> str:
        """What a message calls it."""
        return f"the catalogue in {self.folder}" if self.embedded else f"the catalogue at {self.address}"


def place_of(config: MicroscopeConfig) -> Place | None:
    """Return the catalogue of a configuration; None where it has none.

    Raises
    ------
    ConfigError
        When the environment names one that cannot be.
    """
    address = os.environ.get(VARIABLE) or config.data.catalogue
    if not re.fullmatch(CATALOGUE, address):
        raise ConfigError(
            f"{VARIABLE} is {address!r}; it must be embedded, none, or the address of a Tiled server (http://host:port)"
        )
    if address == "none":
        return None
    return Place(config.data.journal_directory.absolute(), config.data.directory.absolute(), address)
