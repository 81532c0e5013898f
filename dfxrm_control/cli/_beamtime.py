"""``dfxrm beamtime``: whose runs these are."""

from __future__ import annotations

from typing import Any

import click

from dfxrm_control.cli._options import chosen_config, config_options

__all__ = ["beamtime"]


@click.command(help="Say whose beamtime it is, or begin or end one. Every run records its proposal and people.")
@click.option("--begin", metavar="PROPOSAL", help="Begin the beamtime of a proposal.")
@click.option("--people", default="", metavar="NAME,...", help="Who measures; with --begin.")
@click.option("--end", is_flag=True, help="End it: later runs record none.")
@config_options
def beamtime(begin: str | None, people: str, end: bool, **options: Any) -> None:
    """Show, begin or end a beamtime."""
    if end and begin is not None:
        raise click.UsageError("--begin and --end are two different things")
    if people and begin is None:
        raise click.UsageError("--people goes with --begin")
    config = chosen_config(options["config"], options["settings"], options["sample"], options["data"])
    from dfxrm_control.session import SessionStore, store_file

    file = store_file(config)
    if begin is None and not file.is_file():
        click.echo(f"{config.name}: no beamtime was begun")
        return
    store = SessionStore(file)
    if begin is not None:
        store.begin_beamtime(config.name, begin, people.split(","))
    elif end:
        store.end_beamtime(config.name)
    now = store.beamtime(config.name)
    click.echo(f"{config.name}: {now.line() if now is not None else 'no beamtime was begun'}")
