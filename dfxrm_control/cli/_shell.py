"""``dfxrm shell``: an interactive session."""

from __future__ import annotations

from typing import Any

import click

from dfxrm_control.cli._options import chosen_config, config_options

__all__ = ["shell"]


@click.command(help="Open IPython with the microscope: RE, devices and axes by logical name, plans, short verbs.")
@click.option("--no-maps", is_flag=True, help="Make no maps during or after scans.")
@config_options
def shell(**options: Any) -> None:
    """Start the interactive session."""
    from pathlib import Path

    from dfxrm_control.start_up import check_packages

    # IPython puts the working directory first on the path
    check_packages(Path.cwd())
    config = chosen_config(options["config"], options["settings"], options["sample"], options["data"])
    from dfxrm_control.session import Session, interact

    with Session(config, maps=not options["no_maps"]) as session:
        interact(session)
