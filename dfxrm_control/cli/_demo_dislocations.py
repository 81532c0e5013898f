"""``dfxrm demo dislocations``: lines around an indent in silicon, beside the known ones."""

from __future__ import annotations

import json

import click

from dfxrm_control.cli._options import chosen_config

__all__ = ["dislocations"]


@click.command(
    help="Find the dislocations around an indent in silicon by weak beam, measure field and Burgers vector of single "
    "ones, and compare with the truth. Ends with 1 if a number is not within its limit."
)
@click.option("--data", default="demo-data", show_default=True, metavar="FOLDER", help="Folder for the data.")
@click.option("--config", default="silicon", show_default=True, metavar="NAME|FILE", help="Simulated microscope.")
@click.option("--quiet", is_flag=True, help="No table and no progress bar.")
def dislocations(data: str, config: str, quiet: bool) -> int:
    """Run the case and print what was found."""
    chosen = chosen_config(config, (f"data.journal_directory={json.dumps(f'{data}/journal')}",), data=data)
    from dfxrm_control.demos.dislocations import run_dislocations

    result = run_dislocations(chosen, quiet=quiet)
    for line in result.lines():
        click.echo(line)
    return 0 if result.met else 1
