"""``dfxrm maps``: maps of a recorded scan, ours or ID03's."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["maps"]


@click.command(help="Make the maps of a recorded scan: FILE is a run's master or its folder, or an HDF5 file of ID03.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--scan", default="1.1", show_default=True, metavar="ENTRY", help="Entry of the scan in the file.")
@click.option(
    "--dark",
    default="auto",
    show_default=True,
    metavar="WHAT",
    help="What is taken off each frame: an entry of the file (2.1, or 2.1+3.1 for the mean of two), FILE::ENTRY, a "
    "whole number of ADU, auto (the darks of our own record) or none.",
)
@click.option(
    "--monitor",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="What intensities are divided by: a counter of the entry, auto (the flux monitor of our own record) or none.",
)
@click.option("--clip", type=int, metavar="ADU", help="Take this off instead of a dark and set what is below to zero.")
@click.option("--kam-size", default=5, show_default=True, metavar="PIXELS", help="Side of the kernel of the KAM.")
@click.option(
    "--reference",
    type=float,
    metavar="ANGSTROM",
    help="Lattice parameter a of the unstrained crystal; default: strain is relative to the median of the pixels.",
)
@click.option(
    "--distributions",
    is_flag=True,
    help="Also map the shape of each pixel's distribution: skewness, kurtosis, secondary peaks.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Default: maps/ beside FILE.")
def maps(
    file: Path,
    scan: str,
    dark: str,
    monitor: str,
    clip: int | None,
    kam_size: int,
    reference: float | None,
    distributions: bool,
    out: Path | None,
) -> None:
    """Reduce a file and write HDF5 and pictures."""
    from dfxrm_control.cli._folders import output_folder
    from dfxrm_control.reduction import (
        distributions_from_file,
        maps_from_file,
        plot_distributions,
        write_distributions,
        write_maps,
        write_pictures,
    )

    if file.is_dir():
        file = file / f"{file.absolute().name}.h5"
    level, flux = _dark(dark), None if monitor == "none" else monitor
    made = maps_from_file(
        file,
        scan,
        dark=level,
        monitor=flux,
        clip=clip,
        kam_size=kam_size,
        reference=reference,
    )
    folder = output_folder(out if out is not None else file.absolute().parent / "maps")
    # a file holds many scans, so all but the first bear their entry in their name
    stem = file.stem if scan == "1.1" else f"{file.stem}_{scan}"
    written = folder / f"{stem}_maps.h5"
    write_maps(made, written)
    for path in [written, *write_pictures(made, folder, stem)]:
        click.echo(path)
    if distributions:
        found = distributions_from_file(file, made, scan, dark=level, monitor=flux, clip=clip)
        write_distributions(found, folder / f"{stem}_distributions.h5")
        plot_distributions(found, folder / f"{stem}_distributions.png")
        for note in found.notes:
            click.echo(f"note: {note}", err=True)
        click.echo(folder / f"{stem}_distributions.h5")
        click.echo(folder / f"{stem}_distributions.png")
    for line in made.summary():
        click.echo(line)


def _dark(text: str) -> str | float | None:
    """Return what a user wrote: a word, a level, or an entry such as 2.1, which is a number too."""
    if text == "none":
        return None
    try:
        level = float(text)
    except ValueError:
        return text
    # BLISS numbers entries scan.subscan, and a scan's own is the first
    return text if "." in text and text.split(".")[1].isdigit() else level
