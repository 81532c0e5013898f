"""The table of choices on screen, as CSV and as HDF5, and a picture of the map."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import RecordError
from dfxrm_control.grains import GrainMap
from dfxrm_control.handoff._choose import Choices, as_rows

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["grain_colours", "plot_map", "screen_table", "write_csv", "write_hdf5"]

_UNITS = {
    "mu": "deg",
    "omega": "deg",
    "chi": "deg",
    "phi": "deg",
    "two_theta": "deg",
    "obpitch": "deg",
    "obx": "mm",
    "obz": "mm",
    "mainx": "mm",
    "ffz": "mm",
    "samx": "mm",
    "samy": "mm",
    "samz": "mm",
}

_TEXT = ("reason", "covering")
_OUT_OF_REACH = (0.68, 0.76, 0.72, 0.80, 0.64)
"""Greys of grains that cannot be reached, one after the other, so that neighbours can be told apart."""
_KEY_PIXELS = 400


def screen_table(choices: Choices, rows: int) -> Table:
    """Return the best rows as a table for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"{int(choices.reachable.sum())} of {len(choices)} settings can be reached at {choices.energy_kev:g} keV",
        title_justify="left",
    )
    columns = ("grain", "hkl", "2theta", "|F|", "mu", "omega", "chi", "phi", "M", "grain/um", "field/um", "remarks")
    for name in columns:
        table.add_column(name, justify="left" if name == "remarks" else "right", no_wrap=name != "remarks")
    for row in range(min(rows, len(choices))):
        at = choices.setting(row)
        remarks = [
            choices.reason[row],
            choices.too_large(row),
            "cut by the map" if choices.edge[row] else "",
            "topotomography" if choices.on_axis[row] else "",
        ]
        table.add_row(
            str(choices.grain_id[row]),
            " ".join(map(str, choices.hkl[row])),
            f"{choices.two_theta_deg[row]:.3f}",
            "?" if np.isnan(choices.structure_factor[row]) else f"{choices.structure_factor[row]:.1f}",
            *(f"{at[axis]:.3f}" for axis in ("mu", "omega", "chi", "phi")),
            f"{choices.magnification[row]:.2f}",
            _size(choices.grain_um[row]),
            _size(choices.field_um[row]),
            "; ".join(remark for remark in remarks if remark),
        )
    return table


def _size(size_um: NDArray) -> str:
    return "?" if np.isnan(size_um).any() else f"{size_um[0]:.0f}x{size_um[1]:.0f}"


def write_csv(choices: Choices, path: Path) -> None:
    """Write the whole table; raises RecordError when the file cannot be written."""
    rows = as_rows(choices)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["grain"])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise RecordError(f"table {path} cannot be written: {error.strerror or error}") from error


def write_hdf5(choices: Choices, grains: GrainMap, path: Path) -> None:
    """Write the whole table, one column per dataset, with units; raises RecordError when it cannot be written."""
    rows = as_rows(choices)
    try:
        with h5py.File(path, "w") as file:
            entry = file.create_group("entry")
            entry.attrs["NX_class"] = "NXentry"
            entry["title"] = f"settings for the grains of {grains.source}"
            entry["energy"] = choices.energy_kev
            entry["energy"].attrs["units"] = "keV"
            table = entry.create_group("settings")
            table.attrs["NX_class"] = "NXcollection"
            table["hkl"] = choices.hkl
            for name in rows[0] if rows else ():
                if name == "hkl":
                    continue
                values = [row[name] for row in rows]
                table[name] = np.array(values, dtype=h5py.string_dtype()) if name in _TEXT else np.array(values)
                units = _UNITS.get(name) or next((u for u in ("deg", "um") if name.endswith(f"_{u}")), "")
                if units:
                    table[name].attrs["units"] = units
    except OSError as error:
        raise RecordError(f"table {path} cannot be written: {error.strerror or error}") from error


def grain_colours(grains: GrainMap, direction: Sequence[float] = (0.0, 0.0, 1.0)) -> NDArray[np.float64]:
    """Return the colour of each grain in the inverse pole figure of a sample direction, shape (n, 3), 0 to 1.

    The key is that of EDAX TSL, as orix computes it (`orix.plot.IPFColorKeyTSL`) for the Laue group of each phase.
    """
    from orix.plot import IPFColorKeyTSL
    from orix.quaternion import Orientation
    from orix.quaternion.symmetry import get_point_group
    from orix.vector import Vector3d

    colours = np.ones((len(grains), 3))
    for number, phase in enumerate(grains.phases):
        rows = grains.phase == number
        if not rows.any():
            continue
        symmetry = get_point_group(phase.space_group_number)
        # orix turns the sample's frame to the crystal's, the inverse of U
        to_crystal = _frame_of_orix(phase) @ grains.u[rows].transpose(0, 2, 1)
        turned = Orientation.from_matrix(to_crystal, symmetry=symmetry)
        key = IPFColorKeyTSL(symmetry.laue, direction=Vector3d(direction))
        colours[rows] = key.orientation2color(turned)
    return colours


def _frame_of_orix(phase: Lattice) -> NDArray[np.float64]:
    """Return the rotation from our crystal frame to that in which orix has its symmetries: x along a, z along c*."""
    a, c_star = np.linalg.inv(phase.B)[0], phase.B[:, 2]
    x, z = a / np.linalg.norm(a), c_star / np.linalg.norm(c_star)
    return np.stack([x, np.cross(z, x), z])


def plot_map(grains: GrainMap, choices: Choices, path: Path, chosen: int | None = None) -> None:
    """Draw the map in three sections through the chosen grain, reachable grains in colour and the others in grey.

    Colours are those of the inverse pole figure along z, whose key stands beside them; the chosen grain has a black
    border. A map without a volume is drawn as points.

    Raises
    ------
    RecordError
        When the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = grain_colours(grains)
    good = np.isin(grains.grain_id, choices.grain_id[choices.reachable])
    # grey is no colour of the key, whose pale ones a mere fading could be taken for
    grey = np.take(_OUT_OF_REACH, np.arange(len(grains)) % len(_OUT_OF_REACH))
    shown = np.where(good[:, np.newaxis], colours, grey[:, np.newaxis])
    keys = sorted(set(grains.phase.tolist()))
    figure = Figure(figsize=(13 + 1.7 * len(keys), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3 + len(keys), width_ratios=[1.0] * 3 + [0.4] * len(keys))
    for panel, phase in zip(panels[3:], keys, strict=True):
        _key(panel, grains, phase)
    panels = panels[:3]
    middle = grains.centroid_mm[grains.row(chosen)] if chosen is not None else grains.centroid_mm.mean(axis=0)
    for panel, (across, up, along) in zip(panels, ((0, 1, 2), (0, 2, 1), (1, 2, 0)), strict=True):
        _section(panel, grains, shown, middle, (across, up, along), chosen)
        if chosen is not None:
            panel.plot(*(1e3 * middle[[across, up]]), "k+", markersize=14, markeredgewidth=2)
        panel.set_xlabel(f"{'xyz'[across]} (um)")
        panel.set_ylabel(f"{'xyz'[up]} (um)")
        panel.set_title(f"section at {'xyz'[along]} = {1e3 * middle[along]:.0f} um", fontsize=10)
        panel.set_aspect("equal")
    asked = len(np.unique(choices.grain_id))
    others = "the others" if asked == len(grains) else "the others, and those not in the table,"
    here = f", grain {chosen} marked" if chosen is not None else ""
    figure.suptitle(f"{int(good.sum())} of {asked} grains reachable ({others} grey){here}; inverse pole figure along z")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise RecordError(f"picture {path} cannot be written: {error.strerror or error}") from error


def _key(panel: Any, grains: GrainMap, phase: int) -> None:
    """Draw the colours of all crystal directions along z, as a stereographic projection of their sector."""
    from orix.plot import IPFColorKeyTSL
    from orix.quaternion.symmetry import get_point_group
    from orix.vector import Vector3d

    symmetry = get_point_group(grains.phases[phase].space_group_number).laue
    sector = symmetry.fundamental_sector
    side = np.linspace(-1.0, 1.0, _KEY_PIXELS)
    x, y = np.meshgrid(side, side)
    square = x**2 + y**2
    directions = Vector3d(np.stack([2 * x, 2 * y, 1 - square], axis=-1).reshape(-1, 3) / (1 + square).reshape(-1, 1))
    inside = np.asarray(directions <= sector) & (square.ravel() <= 1.0)
    image = np.ones((inside.size, 4))
    image[:, 3] = inside
    image[inside, :3] = IPFColorKeyTSL(symmetry).direction_color_key.direction2color(directions[inside])
    panel.imshow(image.reshape(*x.shape, 4), origin="lower", extent=(-1, 1, -1, 1))
    columns, rows = x.ravel()[inside], y.ravel()[inside]
    margin = 0.12 * max(np.ptp(columns), np.ptp(rows))
    panel.set_xlim(columns.min() - margin, columns.max() + margin)
    panel.set_ylim(rows.min() - margin, rows.max() + margin)
    for corner in sector.vertices.data:
        # zone axes of the corners, in the lattice's own indices
        uvw = grains.phases[phase].B.T @ _frame_of_orix(grains.phases[phase]).T @ corner
        uvw = uvw / np.abs(uvw).max()
        least = next((k for k in range(1, 13) if np.allclose(k * uvw, np.rint(k * uvw), atol=0.02)), 0)
        if least:
            at = corner[:2] / (1.0 + corner[2])
            text = "".join(str(int(value)) for value in np.rint(least * uvw))
            panel.annotate(f"[{text}]", at, ha="center", va="bottom" if at[1] > rows.mean() else "top", fontsize=9)
    panel.set_axis_off()
    panel.set_title(f"{grains.phase_names[phase]}, along z", fontsize=9)


def _section(
    panel: Any, grains: GrainMap, shown: NDArray, middle: NDArray, axes: tuple[int, int, int], chosen: int | None
) -> None:
    across, up, along = axes
    if grains.voxels is None:
        panel.scatter(*(1e3 * grains.centroid_mm[:, [across, up]].T), c=shown, s=60, edgecolors="0.5", linewidths=0.5)
        return
    voxels = grains.voxels
    shape = np.array(voxels.grain_id.shape)
    index = (middle - voxels.centre_mm) / voxels.size_mm + (shape - 1) / 2.0
    cut = int(np.clip(np.rint(index[along]), 0, shape[along] - 1))
    ids = np.take(voxels.grain_id, cut, axis=along)
    ids = ids if across < up else ids.T
    table = np.ones((int(voxels.grain_id.max()) + 1, 3))
    table[grains.grain_id] = shown
    low = 1e3 * voxels.place_mm(np.full(3, -0.5))
    high = 1e3 * voxels.place_mm(shape - 0.5)
    extent = (low[across], high[across], low[up], high[up])
    panel.imshow(table[ids].transpose(1, 0, 2), origin="lower", extent=extent)
    if chosen is not None and np.ptp(here := (ids.T == chosen).astype(float)):
        panel.contour(here, levels=[0.5], colors="k", linewidths=1.0, origin="lower", extent=extent)
