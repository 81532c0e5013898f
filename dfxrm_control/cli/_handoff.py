"""``dfxrm handoff``: from a coarse grain map to the settings of the microscope."""

from __future__ import annotations

from pathlib import Path

import click

from dfxrm_control.cli._options import chosen_config, config_options

__all__ = ["handoff"]

_WIDTH = 120
"""Characters across where the output is no terminal."""


def _numbers(text: str | None, name: str, kind: type[int] | type[float], count: int) -> list | None:
    if text is None:
        return None
    try:
        values = [kind(word) for word in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) != count:
        what = "whole numbers" if kind is int else "numbers"
        raise click.BadParameter(f"{text!r} was given; {count} {what} are needed", param_hint=f"--{name}")
    return values


@click.command(
    help="Read a coarse grain map (LabDCT, ImageD11, ESRF DCT, pymicro) and rank the reflections of its grains that "
    "the microscope can image, with the settings for each. Writes the whole table as CSV and HDF5, and a picture."
)
@click.argument("file", metavar="MAP", type=click.Path(path_type=Path))
@click.option("--grain", "grains", type=int, multiple=True, metavar="N", help="Only this grain. May be repeated.")
@click.option("--hkl", metavar='"H K L"', help="Only this family of reflections.")
@click.option("--energy", type=float, metavar="KEV", help="Energy; default: the configuration's.")
@click.option("--camera", metavar="NAME", help="Camera of the image; default: the configuration's.")
@click.option("--objective", metavar="NAME", help="Visible-light objective of the camera, e.g. 2x; default: the first.")
@click.option("--as-is", is_flag=True, help="Do not use the registration that is stored with the sample.")
@click.option(
    "--non-coplanar",
    is_flag=True,
    help="Of each grain only the three reachable reflections that differ most in direction, as a full strain tensor "
    "needs them; grains that have no three are left out.",
)
@click.option("--cell", metavar='"A B C AL BE GA"', help="Unit cell, angstrom and deg, where the map does not say it.")
@click.option("--space-group", metavar="NAME", help="Space group, such as 'F m -3 m', where the map does not say it.")
@click.option("--rows", type=click.IntRange(1), default=20, show_default=True, help="Rows of the table on screen.")
@config_options
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Default: handoff/ beside MAP.")
def handoff(
    file: Path,
    config: str,
    settings: tuple[str, ...],
    grains: tuple[int, ...],
    hkl: str | None,
    energy: float | None,
    camera: str | None,
    objective: str | None,
    as_is: bool,
    non_coplanar: bool,
    cell: str | None,
    space_group: str | None,
    rows: int,
    out: Path | None,
    sample: str | None,
    data: str | None,
) -> int:
    """Read, choose, and write what was found."""
    microscope = chosen_config(config, settings, sample, data)
    family, cell_numbers = _numbers(hkl, "hkl", int, 3), _numbers(cell, "cell", float, 6)
    from rich.console import Console

    from dfxrm_control.errors import PhysicsError, RecordError
    from dfxrm_control.grains import read_grain_map
    from dfxrm_control.handoff import (
        RegistrationStore,
        choose,
        plot_map,
        same_cell,
        screen_table,
        write_csv,
        write_hdf5,
    )

    found = read_grain_map(file, cell=cell_numbers, space_group=space_group)
    stored = None if as_is else RegistrationStore.of(microscope).for_map(found)
    choices = choose(
        found,
        microscope,
        energy_kev=energy,
        hkl=family,
        grain_ids=grains or None,
        camera=camera,
        camera_objective=objective,
        registration=stored,
    )
    click.echo(f"{file}: {found.file_format}, {len(found)} grains")
    if stored is not None:
        turn, shift = (", ".join(f"{value:.4g}" for value in part) for part in (stored.rotation_deg, stored.shift_mm))
        click.echo(f"registered: turned by {turn} deg, shifted by {shift} mm (dfxrm register --show)")
    for note in found.notes:
        click.echo(f"note: {note}")
    ours = microscope.sample
    if not any(same_cell(phase.cell, ours.lattice) for phase in found.phases):
        theirs = " or ".join(" ".join(f"{part:g}" for part in phase.cell) for phase in found.phases)
        click.echo(
            f"warning: the map has the cell {theirs} (angstrom, deg), and sample {ours.name!r} of the configuration "
            f"has {' '.join(f'{part:g}' for part in ours.lattice)}; with a wrong cell every angle is wrong",
            err=True,
        )
    out_of_reach = not choices.reachable.any()
    if non_coplanar and not out_of_reach:
        sets = [choices.non_coplanar(int(grain)) for grain in dict.fromkeys(choices.grain_id.tolist())]
        sets = [rows for rows in sets if len(rows) == 3]
        if not sets:
            raise PhysicsError(
                "no grain has three reflections within reach that do not lie in a plane; wider limits of the "
                "goniometer, or another energy, may give some"
            )
        choices = choices.only([row for rows_of_grain in sets for row in rows_of_grain])
    screen = Console()
    # a table in a file or a pipe has no screen to fit
    (screen if screen.is_terminal else Console(width=_WIDTH)).print(screen_table(choices, rows))
    folder = out if out is not None else file.parent / "handoff"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"folder {folder} cannot be made: {error.strerror or error}") from error
    stem = folder / file.stem
    write_csv(choices, stem.with_suffix(".csv"))
    write_hdf5(choices, found, stem.with_suffix(".h5"))
    best = None if out_of_reach else int(choices.grain_id[0])
    plot_map(found, choices, stem.with_suffix(".png"), best)
    for suffix in (".csv", ".h5", ".png"):
        click.echo(f"{stem.with_suffix(suffix)}")
    if out_of_reach:
        click.echo(
            f"none of these can be reached; the nearest, {' '.join(map(str, choices.hkl[0]))} of grain "
            f"{choices.grain_id[0]}, fails because {choices.reason[0]}",
            err=True,
        )
    return 1 if out_of_reach else 0
