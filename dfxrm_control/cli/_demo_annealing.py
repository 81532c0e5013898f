"""``dfxrm demo annealing``: sub-grains before and after a heat treatment, beside the known ones."""

from __future__ import annotations

import click

from dfxrm_control.cli._demo_case import case_config, case_options

__all__ = ["annealing"]


@click.command(
    help="Map the sub-grains of aluminium before and after 20 minutes at 325 degC and compare with the truth."
)
@case_options(config="furnace")
def annealing(data: str, config: str, quiet: bool) -> int:
    """Run the case, print what was found, and return 1 when a number is not what it must be."""
    chosen = case_config(config, data)
    from dfxrm_control.demos.annealing import run_annealing

    found = run_annealing(chosen, quiet=quiet)
    for line in found.lines():
        click.echo(line)
    return 0 if found.met else 1
