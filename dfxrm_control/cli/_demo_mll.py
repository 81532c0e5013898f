"""``dfxrm demo mll``: the same crystal through a compound refractive lens and through multilayer Laue lenses."""

from __future__ import annotations

import click

from dfxrm_control.cli._demo_case import case_config, case_options, tell

__all__ = ["mll"]


@click.command(
    help="Map the same crystal through a CRL and through an MLL, and say what changes. Ends with 1 if a number of "
    "either is not within its limit."
)
@case_options(crl="simulated", mll="mll")
def mll(data: str, crl: str, mll: str, quiet: bool) -> int:
    """Run both scans and print the comparison."""
    chosen = case_config(crl, data), case_config(mll, data)
    from dfxrm_control.demos.mll import run_mll

    return tell(run_mll(*chosen, quiet=quiet))
