"""``dfxrm register``: how a coarse map lies on the microscope, from the grains that were found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfxrm_control.cli._options import chosen_config, config_options
from dfxrm_control.errors import ParameterError

if TYPE_CHECKING:
    from dfxrm_control.handoff import RegistrationStore

__all__ = ["register"]


@click.command(
    help="Work out how a coarse grain map lies on the microscope from grains that `dct_to_dfxrm` or `campaign` have "
    "found, and keep it with the sample, so that the next predictions go by it. RUN is the folder of any run of each "
    "of these plans. Three grains are needed, with diffraction vectors that are not parallel."
)
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--map", "map_file", type=click.Path(path_type=Path), metavar="FILE", help="Where the map is now.")
@click.option("--show", is_flag=True, help="Store nothing: show what RUN gives, or, without RUN, what is stored.")
@click.option("--undo", is_flag=True, help="Go back to the registration before; the history is kept.")
@click.option("--anyway", is_flag=True, help="Store it although a grain stands far from where the others say.")
@config_options
def register(
    runs: tuple[Path, ...],
    map_file: Path | None,
    show: bool,
    undo: bool,
    anyway: bool,
    config: str,
    settings: tuple[str, ...],
    sample: str | None,
    data: str | None,
) -> int:
    """Fit and store, show, or undo."""
    if undo and runs:
        raise click.UsageError("--undo takes no RUN")
    if not (runs or show or undo):
        raise click.UsageError("give the folder of a run, or --show, or --undo")
    microscope = chosen_config(config, settings, sample, data)
    from dfxrm_control.handoff import RegistrationStore

    store = RegistrationStore.of(microscope)
    if undo:
        store.undo()
    if not runs:
        _tell(store)
        return 0
    from dfxrm_control.reduction.handoff import fit_registration, read_visits
    from dfxrm_control.reduction.series import read_series

    members = [run for place in runs for run in read_series(place).runs]
    visits = read_visits(members)
    grains, fit = fit_registration(members, visits, map_file)
    for line in fit.lines():
        click.echo(line)
    doubt = fit.doubt()
    if doubt and not (show or anyway):
        raise ParameterError(f"nothing was stored: {doubt}; --anyway stores it all the same")
    if doubt:
        click.echo(f"warning: {doubt}", err=True)
    if show:
        return 0
    if microscope.sample.name != members[0].sample_name:
        raise ParameterError(
            f"the runs are of sample {members[0].sample_name!r}, not of {microscope.sample.name!r}; say --sample "
            f"{members[0].sample_name}"
        )
    store.store(fit.registration, grains, fit.grain_id.tolist(), fit.lines())
    click.echo(f"stored in {store.path}")
    return 0


def _tell(store: RegistrationStore) -> None:
    entries, current = store.history()
    if not entries:
        click.echo(f"no registration is stored in {store.path}")
    for number, entry in enumerate(entries):
        how = entry.registration
        turn = ", ".join(f"{value:.4f}" for value in how.rotation_deg)
        shift = ", ".join(f"{1e3 * value:.2f}" for value in how.shift_mm)
        mark = "*" if number == current else " "
        click.echo(
            f"{mark} {entry.time}  rotation {turn} deg, shift {shift} um, omega offset {how.omega_offset_deg:.4f} deg; "
            f"grains {', '.join(map(str, entry.grains))} of {entry.map_source}"
        )
    if entries and current is None:
        click.echo("none of these holds: predictions take the map as it is")
