"""``dfxrm domains``: domains and sub-grains of a map, and the walls between them."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["domains"]


@click.command(
    help="Find the domains of a map of tilts and measure them and their walls: MAPS is a file of maps, or the folder "
    "or the master of a run."
)
@click.argument("maps", type=click.Path(path_type=Path))
@click.option("--burgers", type=float, metavar="ANGSTROM", help="Burgers vector, for dislocation spacings in walls.")
@click.option("--significance", type=float, default=3.0, show_default=True, help="A step counts from so many errors.")
@click.option(
    "--least", type=float, default=0.003, show_default=True, metavar="DEG", help="Smallest misorientation of a wall."
)
@click.option(
    "--least-strain", type=float, default=3e-5, show_default=True, metavar="STRAIN", help="Smallest step of strain."
)
@click.option("--least-pixels", type=int, default=50, show_default=True, help="Smallest domain.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Default: beside MAPS.")
def domains(
    maps: Path,
    burgers: float | None,
    significance: float,
    least: float,
    least_strain: float,
    least_pixels: int,
    out: Path | None,
) -> None:
    """Segment, write, tabulate and draw."""
    from dfxrm_control.cli._folders import output_folder
    from dfxrm_control.reduction import (
        Segmentation,
        find_domains,
        plot_domains,
        read_lattice_field,
        write_domain_table,
        write_domains,
    )

    how = Segmentation(
        significance=significance,
        least_misorientation_deg=least,
        least_strain=least_strain,
        least_pixels=least_pixels,
    )
    found = find_domains(read_lattice_field(maps), how, burgers_um=None if burgers is None else burgers * 1e-4)
    place = maps.absolute()
    folder = output_folder(out if out is not None else place if place.is_dir() else place.parent)
    stem = f"{maps.stem.removesuffix('_maps')}_domains"
    write_domains(found, folder / f"{stem}.h5")
    tables = write_domain_table(found, folder / f"{stem}.csv")
    plot_domains(found, folder / f"{stem}.png")
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    for path in (folder / f"{stem}.h5", *tables, folder / f"{stem}.png"):
        click.echo(path)
