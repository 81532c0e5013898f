"""Opening a catalogue: files beside the journals, or a server."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from dfxrm_control.catalogue._place import Place
from dfxrm_control.errors import DfxrmError

__all__ = ["CatalogueError", "opened"]

ANSWERS_WITHIN_S = 5.0
REQUEST_S = 30.0


class CatalogueError(DfxrmError):
    """The catalogue is not there, does not answer, or has not what was asked for."""


@contextmanager
def opened(place: Place, data_folders: Sequence[str] = ()) -> Iterator[Any]:
    """Open a catalogue and give a Tiled client of it.

    Parameters
    ----------
    place : Place
        The catalogue. A server's key is taken from the environment variable ``TILED_API_KEY``.
    data_folders : sequence of str
        Folders that frames may be read from, of an embedded one.

    Raises
    ------
    CatalogueError
        When it cannot be opened, or a server does not answer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Tiled, of the libraries it is made of
        with _embedded(place, data_folders) if place.embedded else _served(place) as client:
            yield client


@contextmanager
def _embedded(place: Place, data_folders: Sequence[str]) -> Iterator[Any]:
    import hdf5plugin  # noqa: F401  (frames are compressed by its filters)
    from tiled.catalog import from_uri
    from tiled.client import Context, from_context
    from tiled.server.app import build_app

    logging.getLogger("tiled.server.app").setLevel(logging.WARNING)  # it tells its version each time
    file = place.folder / "catalogue.sqlite"
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        tree = from_uri(
            f"sqlite:///{file}",
            writable_storage=[f"sqlite:///{place.folder / 'tables.sqlite'}"],
            readable_storage=list(data_folders) or [str(place.data)],
            init_if_not_exists=not file.exists(),
        )
        context = Context.from_app(build_app(tree))
    except Exception as error:
        raise CatalogueError(f"{place.shown} cannot be opened: {_one_line(error)}") from error
    with context:
        yield from_context(context)


@contextmanager
def _served(place: Place) -> Iterator[Any]:
    _knock(place)
    import httpx
    from tiled.client import from_uri

    try:
        client = from_uri(place.address, timeout=httpx.Timeout(REQUEST_S))
    except Exception as error:
        raise CatalogueError(f"{place.shown} cannot be opened: {_one_line(error)}") from error
    with client.context:
        yield client


def _knock(place: Place) -> None:
    """Ask a server for its name in a way that does not wait for long; raises CatalogueError."""
    import httpx

    at = urlsplit(place.address)
    try:
        with socket.create_connection((at.hostname or "", at.port or 80), ANSWERS_WITHIN_S):
            pass
        httpx.get(f"{at.scheme}://{at.netloc}/api/v1/", timeout=ANSWERS_WITHIN_S).raise_for_status()
    except (OSError, httpx.HTTPError) as error:
        raise CatalogueError(f"{place.shown} does not answer: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
