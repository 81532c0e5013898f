"""``dfxrm nye``: dislocation density from one layer, or from a stack of layers."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["nye"]


@click.command(
    help="Map the dislocation density that one reflection tells: SCAN is a file of maps, or the folder or the master "
    "of a run. One layer gives n . curl(beta_3); layers at two or more heights give alpha_31, alpha_32 and alpha_33."
)
@click.argument("scans", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="SCAN...")
@click.option(
    "--burgers", type=float, metavar="ANGSTROM", help="Length of the Burgers vector, for a density of dislocations."
)
@click.option("--span", type=float, metavar="UM", help="Distance of differences in the layer; default two pixels.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Default: beside the first SCAN.")
def nye(scans: tuple[Path, ...], burgers: float | None, span: float | None, out: Path | None) -> None:
    """Compute, write and draw dislocation densities."""
    from dfxrm_control.cli._folders import output_folder
    from dfxrm_control.reduction import nye_maps, plot_nye, read_distortion_layer, write_nye

    found = nye_maps(
        [read_distortion_layer(scan) for scan in scans],
        burgers_um=None if burgers is None else burgers * 1e-4,
        span_um=span,
    )
    first = scans[0].absolute()
    folder = output_folder(out if out is not None else first if first.is_dir() else first.parent)
    stem = f"{scans[0].stem.removesuffix('_maps')}_nye"
    write_nye(found, folder / f"{stem}.h5")
    plot_nye(found, folder / f"{stem}.png")
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(folder / f"{stem}.h5")
    click.echo(folder / f"{stem}.png")
