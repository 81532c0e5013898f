"""``dfxrm demo mll``: the same crystal through a compound refractive lens and through multilayer Laue lenses."""

from __future__ import annotations

import json

import click

from dfxrm_control.cli._options import chosen_config

__all__ = ["mll"]


@click.command(help="Map the same crystal through a CRL and through an MLL, and say what changes.")
@click.option("--data", default="demo-data", show_default=True, metavar="FOLDER", help="Folder for the data.")
@click.option("--crl", default="simulated", show_default=True, metavar="NAME|FILE", help="Microscope with the CRL.")
@click.option("--mll", "lenses", default="mll", show_default=True, metavar="NAME|FILE", help="The one with the MLL.")
@click.option("--quiet", is_flag=True, help="No table of the plan and no progress bar.")
def mll(data: str, crl: str, lenses: str, quiet: bool) -> int:
    """Run both scans, print the comparison, and return 1 when a number is not what it must be."""
    journal = (f"data.journal_directory={json.dumps(f'{data}/journal')}",)
    chosen = [chosen_config(name, journal, data=data) for name in (crl, lenses)]
    from dfxrm_control.demos.mll import run_mll

    found = run_mll(*chosen, quiet=quiet)
    for line in found.lines():
        click.echo(line)
    return 0 if found.met else 1
