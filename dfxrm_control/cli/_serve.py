"""``dfxrm serve``: the twin behind the control systems of a configuration."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["serve"]

HELP = """Put the twin behind the servers that CONFIG (a name, such as epics, tango or mixed, or a YAML file) needs.

They run until Ctrl-C. Once they answer, FOLDER holds a configuration with their addresses, CONFIG.ready.yml, to be used
with --config. Started again, they have the same addresses.
"""


@click.command(help=HELP)
@click.argument("config")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("dfxrm-serve"),
    show_default=True,
    metavar="FOLDER",
    help="Where addresses, logs and the ready configuration are kept.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address of the interface to listen on. Whoever reaches it can move the twin.",
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change one setting of the configuration.")
def serve(config: str, folder: Path, host: str, settings: tuple[str, ...]) -> None:
    """Serve a configuration until told to end."""
    import asyncio

    from dfxrm_control.serving import serve as run
    from dfxrm_control.serving import serving_of

    serving = serving_of(config, settings=settings, folder=folder, host=host)
    click.echo(f"starting {' and '.join(serving.modules)} of {serving.config.name}, Ctrl-C ends")
    asyncio.run(run(serving, click.echo))
