"""What is in a catalogue: the runs that fit, one run in full, the readings of one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from dfxrm_control.catalogue._opening import CatalogueError

__all__ = ["Filter", "Listed", "describe", "find", "listed", "table_of"]

SHORTEST_UID = 4


@dataclass(frozen=True)
class Filter:
    """What the runs that are looked for have in common; None: anything.

    Attributes
    ----------
    microscope, plan, sample, proposal, status : str or None
        As their documents say; the status is ``success``, ``abort`` or ``fail``.
    since, until : float or None
        When they began, seconds since 1970.
    """

    microscope: str | None = None
    plan: str | None = None
    sample: str | None = None
    proposal: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None

    def queries(self) -> Iterator[Any]:
        """Yield them as Tiled asks them."""
        from tiled.queries import Key

        equal = {
            "start.dfxrm.config": self.microscope,
            "start.plan_name": self.plan,
            "start.sample": self.sample,
            "start.proposal": self.proposal,
            "stop.exit_status": self.status,
        }
        yield from (Key(key) == value for key, value in equal.items() if value is not None)
        if self.since is not None:
            yield Key("start.time") >= self.since
        if self.until is not None:
            yield Key("start.time") < self.until


@dataclass(frozen=True)
class Listed:
    """One run as a line of the list.

    Attributes
    ----------
    scan_id : int
        Its number.
    uid : str
        Its identifier.
    began_s, ended_s : float
        Seconds since 1970.
    status, reason : str
        How it ended, and why where that was not well.
    plan, sample, proposal : str
        As recorded; empty where nothing was.
    people : tuple of str
        Who measured.
    points : int
        Points of the primary stream.
    """

    scan_id: int
    uid: str
    began_s: float
    ended_s: float
    status: str
    reason: str
    plan: str
    sample: str
    proposal: str
    people: tuple[str, ...]
    points: int

    def line(self) -> str:
        """Return it as one line."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.began_s))
        whose = f", {self.proposal}" if self.proposal else ""
        why = f": {self.reason}" if self.reason else ""
        return (
            f"{self.scan_id:>6}  {self.uid[:8]}  {when}  {self.status:<7}  {self.plan} of {self.sample or 'unnamed'}"
            f"{whose}, {self.points} points{why}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain numbers, text and lists."""
        return {**asdict(self), "people": list(self.people)}


def find(client: Any, wanted: Filter, last: int) -> list[Listed]:
    """Return the runs that fit, newest first.

    Parameters
    ----------
    client
        Of a catalogue that is open.
    wanted : Filter
        What they have in common.
    last : int
        Most that are returned.
    """
    for query in wanted.queries():
        client = client.search(query)
    # sorted by when they began, which is not when they were put in
    runs = client.sort(("start.time", -1)).values().head(last)
    return [listed(run.metadata) for run in runs]


def listed(metadata: Mapping[str, Any]) -> Listed:
    """Return a run as a line of the list."""
    start, stop = metadata["start"], metadata.get("stop") or {}
    return Listed(
        scan_id=int(start.get("scan_id", 0)),
        uid=str(start["uid"]),
        began_s=float(start.get("time", 0.0)),
        ended_s=float(stop.get("time", start.get("time", 0.0))),
        status=str(stop.get("exit_status", "unknown")),
        reason=str(stop.get("reason") or ""),
        plan=str(start.get("plan_name", "a plan")),
        sample=str(start.get("sample") or ""),
        proposal=str(start.get("proposal") or ""),
        people=tuple(map(str, start.get("people") or ())),
        points=int(stop.get("num_events", {}).get("primary", 0)),
    )


def _one(client: Any, name: str, microscope: str | None) -> Any:
    """Return the client of the run that a number or the beginning of an identifier means.

    Raises
    ------
    CatalogueError
        When there is none, or several.
    """
    from tiled.queries import Key

    if name.isdecimal() and len(name) < 2 * SHORTEST_UID:
        runs = client.search(Key("start.scan_id") == int(name))
        if microscope is not None:
            runs = runs.search(Key("start.dfxrm.config") == microscope)
        found = list(runs.keys())
    elif len(name) >= SHORTEST_UID:
        found = [uid for uid in client.keys() if uid.startswith(name)]
    else:
        found = []
    if len(found) == 1:
        return client[found[0]]
    if found:
        raise CatalogueError(f"{len(found)} runs are meant by {name!r}: {', '.join(uid[:8] for uid in found[:10])}")
    raise CatalogueError(
        f"no run is meant by {name!r}: give its number, or at least {SHORTEST_UID} characters of its identifier, as "
        f"`dfxrm runs` lists them"
    )


def describe(client: Any, name: str, microscope: str | None = None) -> dict[str, Any]:
    """Return all that a catalogue has of one run.

    Parameters
    ----------
    client
        Of a catalogue that is open.
    name : str
        Its number, or the beginning of its identifier.
    microscope : str, optional
        Name of the configuration that a number belongs to.

    Returns
    -------
    dict
        ``start`` and ``stop`` as recorded; ``streams``: by name, ``shape`` and ``units`` of what was read; ``files``:
        where its frames are.

    Raises
    ------
    CatalogueError
        When there is no such run, or several.
    """
    run = _one(client, name, microscope)
    streams: dict[str, Any] = {}
    files: dict[str, None] = {}
    for stream_name in run:
        stream = run[stream_name]
        keys = stream.metadata.get("data_keys", {})
        streams[stream_name] = {}
        for column in stream:
            if column.startswith("ts_") or column in ("seq_num", "time"):
                continue
            part = stream[column]
            units = str(keys.get(column, {}).get("units") or "")
            streams[stream_name][column] = {"shape": list(part.shape), "units": units}
            for source in part.data_sources() or ():
                for asset in source.assets:
                    address = urlsplit(asset.data_uri)
                    if address.scheme == "file" and address.path.endswith(".h5"):
                        files[unquote(address.path)] = None
    metadata = dict(run.metadata)
    return {
        "start": dict(metadata["start"]),
        "stop": dict(metadata.get("stop") or {}),
        "streams": streams,
        "files": sorted(files),
    }


def table_of(client: Any, name: str, stream: str, microscope: str | None = None) -> dict[str, Any]:
    """Return the readings of one stream of a run: array by column, frames left out.

    Raises
    ------
    CatalogueError
        When there is no such run or stream, or it holds no readings.
    """
    run = _one(client, name, microscope)
    if stream not in run:
        raise CatalogueError(f"run {name} has no stream {stream!r}; it has {', '.join(run) or 'none'}")
    part = run[stream]
    columns = [column for column in part if not column.startswith("ts_")]
    table = {column: part[column].read() for column in columns if len(part[column].shape) == 1}
    if not table:
        raise CatalogueError(f"stream {stream!r} of run {name} holds no readings")
    return table
