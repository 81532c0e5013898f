"""``dfxrm arm``: what the arm counts from, and how to end that."""

from __future__ import annotations

from typing import Any

import click

from dfxrm_control.cli._options import chosen_config, config_options

__all__ = ["arm"]


@click.command(help="Say which alignment the arm counts from. Nothing is connected to or moved.")
@click.option(
    "--clear", is_flag=True, help="Forget it: the arm counts as an ideal one again, from the next session on."
)
@config_options
def arm(**options: Any) -> None:
    """Show what sessions of a configuration keep of the arm, or forget it."""
    config = chosen_config(options["config"], options["settings"], options["sample"], options["data"])
    from dfxrm_control.session import forget_arm, kept_arm

    declared = kept_arm(config)
    if declared is None:
        click.echo(f"{config.name}: the arm counts as an ideal one; no alignment was declared")
        return
    click.echo(f"{config.name}: {declared.line()}")
    if options["clear"]:
        forget_arm(config)
        click.echo("forgotten: the arm counts as an ideal one from the next session on")
