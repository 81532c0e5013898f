"""``dfxrm demo annealing``: sub-grains before and after a heat treatment, beside the known ones."""

from __future__ import annotations

import json

import click

from dfxrm_control.cli._options import chosen_config

__all__ = ["annealing"]


@click.command(
    help="Map the sub-grains of aluminium before and after 20 minutes at 325 degC and compare with the truth."
)
@click.option("--data", default="demo-data", show_default=True, metavar="FOLDER", help="Folder for the data.")
@click.option("--config", default="furnace", show_default=True, metavar="NAME|FILE", help="Simulated microscope.")
@click.option("--quiet", is_flag=True, help="No table and no progress bar.")
def annealing(data: str, config: str, quiet: bool) -> int:
    """Run the case and print what was found."""
    chosen = chosen_config(config, (f"data.journal_directory={json.dumps(f'{data}/journal')}",), data=data)
    from dfxrm_control.demos.annealing import run_annealing

    for line in run_annealing(chosen, quiet=quiet).lines():
        click.echo(line)
    return 0
