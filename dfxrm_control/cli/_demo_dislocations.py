"""``dfxrm demo dislocations``: lines around an indent in silicon, beside the known ones."""

from __future__ import annotations

import click

from dfxrm_control.cli._demo_case import case_config, case_options, tell

__all__ = ["dislocations"]


@click.command(
    help="Find the dislocations around an indent in silicon by weak beam, measure field and Burgers vector of single "
    "ones, and compare with the truth. Ends with 1 if a number is not within its limit."
)
@case_options(config="silicon")
def dislocations(data: str, config: str, quiet: bool) -> int:
    """Run the case and print what was found."""
    chosen = case_config(config, data)
    from dfxrm_control.demos.dislocations import run_dislocations

    return tell(run_dislocations(chosen, quiet=quiet))
