"""``dfxrm demo``: a mosaicity scan on the physics twin, from start to picture; and cases compared with their truth."""

from __future__ import annotations

import click

from dfxrm_control.cli._demo_case import case_config
from dfxrm_control.cli._main import LazyGroup
from dfxrm_control.cli._run import run_and_tell
from dfxrm_control.parameters import MosaicityParameters

__all__ = ["demo"]

_CASES = {
    "annealing": (
        "dfxrm_control.cli._demo_annealing:annealing",
        "Sub-grains of aluminium before and after 20 minutes at 325 degC.",
    ),
    "dislocations": (
        "dfxrm_control.cli._demo_dislocations:dislocations",
        "Dislocations around an indent in silicon, and the field of single ones.",
    ),
    "domains": (
        "dfxrm_control.cli._demo_domains:domains",
        "Ferroelastic domains of potassium niobate, with small steps nobody announced.",
    ),
    "mll": ("dfxrm_control.cli._demo_mll:mll", "Multilayer Laue lenses against a compound refractive lens."),
}


@click.group(
    cls=LazyGroup,
    table=_CASES,
    invoke_without_command=True,
    help="Run a mosaicity scan on the simulated microscope and print where the HDF5 file and the picture are; or one "
    "of the cases below, which are compared with the truth that the simulation knows.",
)
@click.option("--data", default="demo-data", show_default=True, metavar="FOLDER", help="Folder for the data.")
@click.option("--config", default="simulated", show_default=True, metavar="NAME|FILE", help="Simulated microscope.")
@click.pass_context
def demo(context: click.Context, data: str, config: str) -> int:
    """Run the demonstration; everything it writes is under one folder."""
    if context.invoked_subcommand is not None:
        return 0
    return run_and_tell(case_config(config, data), MosaicityParameters, {}, maps=True, quiet=False)
