"""``dfxrm series``: what several runs give together."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["series"]


@click.command(
    help="Reduce a series of runs: RUN is the folder (or the master) of one of them, the others are found beside it. "
    "Several RUNs are taken as they are, e.g. layers that were scanned one by one."
)
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN...")
@click.option("--kind", metavar="KIND", help="How to reduce them, e.g. layers; default: as what they were taken.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Default: <run>_<kind>/ beside the first run."
)
def series(runs: tuple[Path, ...], kind: str | None, out: Path | None) -> None:
    """Reduce a series again from its files."""
    from dfxrm_control.reduction.series import read_series, reduce_series

    for path in reduce_series(read_series(*runs), out, kind):
        click.echo(path)
