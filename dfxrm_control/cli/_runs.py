"""``dfxrm runs``: what the catalogue has."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfxrm_control.cli._options import chosen_config, config_options
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import ParameterError, RecordError

if TYPE_CHECKING:
    from dfxrm_control.catalogue import Place

__all__ = ["runs"]

_WHEN = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"])


@click.group(invoke_without_command=True, help="List, show and export the runs that are in the catalogue.")
@config_options
@click.option("-n", "last", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many to list.")
@click.option("--plan", help="Only runs of this plan.")
@click.option("--of", "of_sample", metavar="SAMPLE", help="Only runs on this sample.")
@click.option("--proposal", help="Only runs of this proposal.")
@click.option("--status", type=click.Choice(["success", "abort", "fail"]), help="Only runs that ended so.")
@click.option("--since", type=_WHEN, help="Only runs that began at this time or later.")
@click.option("--until", type=_WHEN, help="Only runs that began before this time.")
@click.option("--all-microscopes", is_flag=True, help="Also runs of other configurations.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def runs(context: click.Context, **options: Any) -> None:
    """List the runs, or go on to a subcommand."""
    config = chosen_config(options["config"], options["settings"], options["sample"], options["data"])
    context.obj = (config, None if options["all_microscopes"] else config.name)
    if context.invoked_subcommand is None:
        _list(config, context.obj[1], options)


@runs.command(help="Show one run: its metadata, its streams, where its frames are. RUN is a scan number or a uid.")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print all of its metadata as JSON.")
@click.pass_obj
def show(chosen: tuple[MicroscopeConfig, str | None], run: str, as_json: bool) -> None:
    """Show one run."""
    from dfxrm_control.catalogue import describe, listed

    with _opened(chosen[0]) as (_, client):
        found = describe(client, run, chosen[1])
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    one = listed(found)
    click.echo(one.line())
    click.echo(f"uid:     {one.uid}")
    if one.people:
        click.echo(f"people:  {', '.join(one.people)}")
    for name, columns in found["streams"].items():
        points = max((column["shape"][0] for column in columns.values()), default=0)
        click.echo(f"stream {name}: {points} points")
        for column, told in columns.items():
            frames = f"  frames {' x '.join(map(str, told['shape'][-2:]))}" if len(told["shape"]) > 1 else ""
            click.echo(f"    {column}{frames}  {told['units']}".rstrip())
    for folder in dict.fromkeys(str(Path(file).parent) for file in found["files"]):
        click.echo(f"frames:  {folder}")


@runs.command(help="Write the readings of one run as CSV, or all of its metadata and readings as JSON.")
@click.argument("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--stream", default="primary", show_default=True, help="Stream whose readings are written.")
@click.pass_obj
def export(chosen: tuple[MicroscopeConfig, str | None], run: str, file: Path, stream: str) -> None:
    """Export one run."""
    writers: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], Path], None]] = {
        ".csv": _write_csv,
        ".json": _write_json,
    }
    if file.suffix not in writers:
        raise ParameterError(f"{file}: a run is exported as {' or '.join(writers)}; its HDF5 master is there already")
    if file.exists():
        raise ParameterError(f"{file} exists already and is not overwritten")
    from dfxrm_control.catalogue import describe, table_of

    with _opened(chosen[0]) as (_, client):
        table = table_of(client, run, stream, chosen[1])
        found = describe(client, run, chosen[1]) if file.suffix == ".json" else {}
    try:
        writers[file.suffix](found, table, file)
    except OSError as error:
        raise RecordError(f"{file} cannot be written: {error.strerror or error}") from error
    click.echo(f"{len(next(iter(table.values())))} points of stream {stream}: {file}")


@runs.command("catch-up", help="Put what is not in the catalogue yet into it, now.")
@click.option("--again", is_flag=True, help="Also what it did not take before.")
@click.pass_obj
def catch_up(chosen: tuple[MicroscopeConfig, str | None], again: bool) -> int:
    """Catch up."""
    from dfxrm_control.catalogue import catch_up as put_in
    from dfxrm_control.catalogue import forget_faults

    with _opened(chosen[0]) as (place, client):
        if again:
            forget_faults(place)
        fed = put_in(place, client, click.echo)
    click.echo(f"{len(fed.taken)} put in" + (f", {len(fed.refused)} not taken" if fed.refused else ""))
    return 1 if fed.refused else 0


# -- inside -----------------------------------------------------------------------------------------------------------


def _list(config: MicroscopeConfig, microscope: str | None, options: Mapping[str, Any]) -> None:
    from dfxrm_control.catalogue import Filter, find, left_out

    def when(name: str) -> float | None:
        value: datetime | None = options[name]
        return None if value is None else value.timestamp()

    wanted = Filter(
        microscope=microscope,
        plan=options["plan"],
        sample=options["of_sample"],
        proposal=options["proposal"],
        status=options["status"],
        since=when("since"),
        until=when("until"),
    )
    with _opened(config) as (place, client):
        found = find(client, wanted, options["last"])
        waiting, refused = left_out(place)
    if options["as_json"]:
        click.echo(json.dumps([run.as_dict() for run in found], indent=2))
    else:
        for run in found:
            click.echo(run.line())
        if not found:
            click.echo("no run fits")
    if waiting:
        click.echo(f"{waiting} more have ended and are not in {place.shown} yet: `dfxrm runs catch-up`", err=True)
    for journal, fault in refused.items():
        click.echo(f"not taken: {journal}: {fault}", err=True)


@contextmanager
def _opened(config: MicroscopeConfig) -> Iterator[tuple[Place, Any]]:
    from dfxrm_control.catalogue import data_folders, opened, place_of

    place = place_of(config)
    if place is None:
        raise ParameterError(
            f"configuration {config.name} has no catalogue (data.catalogue: none); `dfxrm status` tells what ran"
        )
    with opened(place, data_folders(place)) as client:
        yield place, client


def _write_csv(found: Mapping[str, Any], table: Mapping[str, Any], file: Path) -> None:
    import csv

    with file.open("x", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(table)
        writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))


def _write_json(found: Mapping[str, Any], table: Mapping[str, Any], file: Path) -> None:
    readings = {name: [_plain(value) for value in column.tolist()] for name, column in table.items()}
    with file.open("x", encoding="utf-8") as out:
        json.dump({**found, "readings": readings}, out, indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
