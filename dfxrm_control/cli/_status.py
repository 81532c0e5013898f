"""``dfxrm status``: what runs, what ran, what failed and why."""

from __future__ import annotations

from typing import Any

import click

from dfxrm_control.cli._options import chosen_config, config_options

__all__ = ["status"]


@click.command(help="Say who holds a microscope, what runs, what ran, and why what failed did. Connects to nothing.")
@click.option("-n", "last", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many runs to tell.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@config_options
def status(last: int, as_json: bool, **options: Any) -> None:
    """Print what is going on at a microscope."""
    config = chosen_config(options["config"], options["settings"], options["sample"], options["data"])
    from dfxrm_control.session import status_of

    found = status_of(config, last)
    if as_json:
        import json

        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        for line in found.lines():
            click.echo(line)
