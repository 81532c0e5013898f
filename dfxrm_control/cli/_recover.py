"""``dfxrm recover``: a clean master for a run that was cut short."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["recover"]


@click.command(help="Write a clean HDF5 master from the journal and the frames of a run that was cut short.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Master to write; default: beside the original.")
def recover(path: Path, out: Path | None) -> None:
    """Recover the run whose journal or folder PATH is; the original is left as it is."""
    from dfxrm_control.records import recover as recover_run

    click.echo(recover_run(path, out))
