"""``dfxrm demo domains``: ferroelastic domains of potassium niobate, beside the known ones."""

from __future__ import annotations

import click

from dfxrm_control.cli._demo_case import case_config, case_options, tell

__all__ = ["domains"]


@click.command(
    help="Map the ferroelastic domains of potassium niobate and compare with the truth. Ends with 1 if a number is not "
    "within its limit."
)
@case_options(config="domains")
def domains(data: str, config: str, quiet: bool) -> int:
    """Run the case and print what was found."""
    chosen = case_config(config, data)
    from dfxrm_control.demos.domains import run_domains

    return tell(run_domains(chosen, quiet=quiet))
