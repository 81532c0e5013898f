"""``dfxrm demo domains``: ferroelastic domains of potassium niobate, beside the known ones."""

from __future__ import annotations

import json

import click

from dfxrm_control.cli._options import chosen_config

__all__ = ["domains"]


@click.command(help="Map the ferroelastic domains of potassium niobate and compare with the truth.")
@click.option("--data", default="demo-data", show_default=True, metavar="FOLDER", help="Folder for the data.")
@click.option("--config", default="domains", show_default=True, metavar="NAME|FILE", help="Simulated microscope.")
@click.option("--quiet", is_flag=True, help="No table of the plan and no progress bar.")
def domains(data: str, config: str, quiet: bool) -> int:
    """Run the case, print what was found, and return 1 when a target was missed."""
    chosen = chosen_config(config, (f"data.journal_directory={json.dumps(f'{data}/journal')}",), data=data)
    from dfxrm_control.demos.domains import run_domains

    found = run_domains(chosen, quiet=quiet)
    for line in found.lines():
        click.echo(line)
    return 0 if found.met else 1
