"""``dfxrm demo``: a mosaicity scan on the physics twin, from start to picture."""

from __future__ import annotations

import json

import click

from dfxrm_control.cli._options import chosen_config
from dfxrm_control.cli._run import run_and_tell
from dfxrm_control.parameters import MosaicityParameters

__all__ = ["demo"]


@click.command(
    help="Run a mosaicity scan on the simulated microscope and print where the HDF5 file and the picture are."
)
@click.option("--data", default="demo-data", show_default=True, metavar="FOLDER", help="Folder for the data.")
@click.option("--config", default="simulated", show_default=True, metavar="NAME|FILE", help="Simulated microscope.")
def demo(data: str, config: str) -> int:
    """Run the demonstration; everything it writes is under one folder."""
    journal = json.dumps(f"{data}/journal")
    chosen = chosen_config(config, (f"data.journal_directory={journal}",), data=data)
    return run_and_tell(chosen, MosaicityParameters, {}, maps=True, quiet=False)
