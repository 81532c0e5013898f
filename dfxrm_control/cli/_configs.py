"""``dfxrm configs``: which microscopes there are, and whether a configuration is sound."""

from __future__ import annotations

import click

from dfxrm_control.config import config_names, find_config

__all__ = ["configs"]


@click.command(help="List the configurations of this distribution, or check NAME (a name or a YAML file).")
@click.argument("name", required=False)
def configs(name: str | None) -> None:
    """List the configurations, or read one and say what it is."""
    for each in [name] if name is not None else config_names():
        config = find_config(each)
        click.echo(f"{config.name:<14} {config.description}")
        if name is not None:
            for device, parts in config.devices.items():
                names = [*parts.axes, *parts.channels]
                click.echo(f"  {device:<14} {parts.device:<24} {', '.join(names)}")
