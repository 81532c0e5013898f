"""Domains from files of maps, and into files, tables and pictures."""

from __future__ import annotations

import csv
import datetime
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from dfxrm_control.errors import RecordError
from dfxrm_control.reduction._domains import DomainMap, LatticeField
from dfxrm_control.reduction._maps import MapSet
from dfxrm_control.reduction._nexus import from_maps, new_file, new_group, program_version
from dfxrm_control.reduction._pictures import draw, new_figure, panel_shape, save_figure

__all__ = ["lattice_field", "plot_domains", "read_lattice_field", "write_domain_table", "write_domains"]

_COMPONENTS = ("tilt_rock", "tilt_roll", "strain")
_MOTORS = ("mu", "omega", "chi", "phi", "diffrx", "diffry", "diffrz")


def lattice_field(maps: MapSet) -> LatticeField:
    """Return the lattice's tilts and strain as a set of maps tells them.

    Where the record does not tell the microscope, tilts are those of the motors, minus their centres of mass.
    """
    known = {name: maps.components[name] for name in _COMPONENTS if name in maps.components}
    values = {name: one.values for name, one in known.items()}
    error = {name: one.noise_error for name, one in known.items()}
    notes: tuple[str, ...] = ()
    if not any(name.startswith("tilt_") for name in values):
        tilts = [axis for axis in maps.axes if axis.name in _MOTORS]
        values |= {f"tilt_{axis.name}": maps.tilt(axis.name) for axis in tilts}
        error |= {f"tilt_{axis.name}": axis.noise_error for axis in tilts}
        notes = _motor_note([axis.name for axis in tilts])
    return LatticeField(
        maps.source,
        maps.sample,
        maps.x,
        maps.y,
        maps.length_units,
        maps.affine,
        values,
        error,
        maps.valid,
        maps.integrated,
        {axis.name: axis.spread for axis in maps.axes if axis.name in _MOTORS},
        notes,
        maps.saturated,
    )


def _motor_note(names: list[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"tilts are those of the motors {', '.join(names)}: the microscope is not known well enough for more",)


def read_lattice_field(path: str | Path) -> LatticeField:
    """Return the tilts and the strain that a file tells.

    Parameters
    ----------
    path : path
        A file of maps (`write_maps`), the master of a run, which is reduced first, or the folder of a run.

    Raises
    ------
    FileFormatError
        When the file is absent, damaged or foreign.
    """
    return from_maps(path, _from_maps, lattice_field)


def _from_maps(entry: h5py.Group) -> LatticeField:
    def read(place: str) -> NDArray[np.float64]:
        return entry[place][()].astype(float)

    components = entry.get("components", {})
    known = [name for name in _COMPONENTS if name in components]
    values = {name: read(f"components/{name}/values") for name in known}
    error = {name: read(f"components/{name}/noise_error") for name in known}
    valid = entry["valid/data"][()].astype(bool)
    motors = [name for name in _MOTORS if name in entry]
    notes: tuple[str, ...] = ()
    if not any(name.startswith("tilt_") for name in values):
        for name in motors:
            com = read(f"{name}/center_of_mass/data")
            values[f"tilt_{name}"] = (float(np.nanmedian(com[valid])) if valid.any() else 0.0) - com
            error[f"tilt_{name}"] = read(f"{name}/center_of_mass_noise/data")
        notes = _motor_note(motors)
    x = entry["integrated_intensity/x"]
    units = x.attrs["units"]
    return LatticeField(
        entry["process/source"].asstr()[()],
        entry["sample/name"].asstr()[()],
        x[()],
        entry["integrated_intensity/y"][()],
        units.decode() if isinstance(units, bytes) else str(units),
        entry["sample/layer_to_sample"][()],
        values,
        error,
        valid,
        read("integrated_intensity/data"),
        {name: read(f"{name}/local_spread/data") for name in motors},
        notes,
        entry["saturated/data"][()].astype(bool),
    )


def _domain_rows(found: DomainMap) -> list[dict[str, Any]]:
    unit = found.field.length_units
    rows = []
    for one in found.domains:
        row: dict[str, Any] = {
            "label": one.label,
            "pixels": one.pixels,
            f"area_{unit}2": one.area,
            f"equivalent_diameter_{unit}": one.equivalent_diameter,
            f"x_{unit}": one.x,
            f"y_{unit}": one.y,
            "at_border": int(one.at_border),
        }
        for name in one.mean:
            row[_with_unit(name)] = one.mean[name]
            row[_with_unit(f"{name}_error")] = one.error[name]
        row["orientation_spread_deg"] = one.orientation_spread_deg
        row |= {f"local_spread_{axis}_deg": spread for axis, spread in one.local_spread_deg.items()}
        rows.append(row)
    return rows


def _with_unit(name: str) -> str:
    return f"{name}_deg" if name.startswith("tilt_") else name


def _dark_rows(found: DomainMap) -> list[dict[str, Any]]:
    unit = found.field.length_units
    return [
        {"label": one.label, "pixels": one.pixels, f"area_{unit}2": one.area, f"x_{unit}": one.x, f"y_{unit}": one.y}
        for one in found.dark
    ]


def _wall_rows(found: DomainMap) -> list[dict[str, Any]]:
    rows = []
    for one in found.walls:
        row: dict[str, Any] = {
            "first": one.first,
            "second": one.second,
            f"length_{found.field.length_units}": one.length,
            "misorientation_deg": one.misorientation_deg,
            "misorientation_error_deg": one.misorientation_error_deg,
        }
        if one.spacing_um is not None:
            row["dislocation_spacing_upper_bound_um"] = one.spacing_um
        for name in one.step:
            row[_with_unit(f"{name}_step")] = one.step[name]
            row[_with_unit(f"{name}_step_error")] = one.error[name]
        rows.append(row)
    return rows


def write_domains(found: DomainMap, path: Path) -> None:
    """Write domains; a file that is there is replaced in one step.

    ``/entry/labels`` is an NXdata group over x and y; ``/entry/domains``, ``/entry/walls`` and
    ``/entry/not_in_this_reflection`` hold one array per column of the tables.

    Raises
    ------
    RecordError
        When the file cannot be written.
    """
    unit = found.field.length_units
    with new_file(path) as file:
        entry = new_group(file, "entry", "NXentry")
        entry["title"] = f"domains of {found.field.sample or 'the sample'}"
        entry.attrs["default"] = "labels"
        group = new_group(entry, "labels", "NXdata")
        group["data"] = found.labels
        group["data"].attrs["long_name"] = "domain"
        group["data"].attrs["description"] = "from 1: domains, the largest first; below 0: not in this reflection"
        for key, positions in (("x", found.field.x), ("y", found.field.y)):
            group[key] = positions
            group[key].attrs.update({"units": unit, "long_name": f"{key} on the layer ({unit})"})
        group.attrs.update({"signal": "data", "axes": ["x", "y"]})
        for name, rows in (
            ("domains", _domain_rows(found)),
            ("walls", _wall_rows(found)),
            ("not_in_this_reflection", _dark_rows(found)),
        ):
            table = new_group(entry, name, "NXcollection")
            for column in rows[0] if rows else ():
                table[column] = np.array([row[column] for row in rows])
        sample = new_group(entry, "sample", "NXsample")
        sample["name"] = found.field.sample
        sample["layer_to_sample"] = found.field.affine
        sample["layer_to_sample"].attrs["description"] = "takes (x, y, 1) on the layer to the sample's frame"
        sample["layer_to_sample"].attrs["units"] = unit
        process = new_group(entry, "process", "NXprocess")
        process["program"] = "dfxrm-control"
        process["version"] = program_version()
        process["date"] = datetime.datetime.now().astimezone().isoformat()
        process["source"] = found.field.source
        process["notes"] = np.array(list(found.notes) or [""], dtype=h5py.string_dtype())
        process["settings_json"] = json.dumps(found.settings)


def write_domain_table(found: DomainMap, path: Path) -> list[Path]:
    """Write the domains as CSV, and their walls as another file beside it, ``<stem>_walls.csv``; return both.

    Raises
    ------
    RecordError
        When a file cannot be written.
    """
    walls = path.with_name(f"{path.stem}_walls{path.suffix}")
    dark = [row | {"note": "not in this reflection"} for row in _dark_rows(found)]
    for target, rows in ((path, _domain_rows(found) + dark), (walls, _wall_rows(found))):
        columns = list(dict.fromkeys(column for row in rows for column in row))
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows(
                    {key: f"{v:.7g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows
                )
            temporary.replace(target)
        except OSError as error:
            raise RecordError(f"table {target} cannot be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)
    return [path, walls]


def plot_domains(found: DomainMap, path: Path) -> None:
    """Draw the domains, each in a colour with its number, and the walls in the colour of their misorientation.

    In the frame of the sample; what is not in this reflection is grey.

    Raises
    ------
    RecordError
        When the picture cannot be written.
    """
    field = found.field
    width, height = panel_shape(field, 7.0)
    figure = new_figure(2.0 * width, height)
    figure.suptitle(f"{field.sample or 'sample'}: {len(found.domains)} domains, {len(found.walls)} walls", fontsize=9)
    left, right = figure.subplots(1, 2)
    palette = ListedColormap(_palette(len(found.domains)))
    for ax in (left, right):
        ax.set_facecolor("0.5")
    draw(
        field,
        left,
        np.where(found.labels > 0, found.labels, np.nan),
        cmap=palette,
        vmin=0.5,
        vmax=max(len(found.domains), 1) + 0.5,
    )
    for one in found.domains[:60]:
        place = field.affine[:2] @ (one.x, one.y, 1.0)
        left.text(*place, str(one.label), ha="center", va="center", fontsize=7)
    left.set_title("domains; grey: not in this reflection", fontsize=9)
    draw(field, right, np.where(found.labels > 0, 1.0, np.nan), cmap="gray", vmin=0.0, vmax=1.0)
    segments, angles = _segments(found)
    if len(segments):
        lines = LineCollection(list(segments), cmap="plasma_r", linewidths=1.5)
        lines.set_array(angles)
        lines.set_transform(Affine2D(np.vstack([field.affine[:2], [0.0, 0.0, 1.0]])) + right.transData)
        right.add_collection(lines)
        figure.colorbar(lines, ax=right, label="misorientation of the diffraction vector (deg)")
    right.set_title("walls", fontsize=9)
    save_figure(figure, path)


def _palette(count: int) -> NDArray[np.float64]:
    """Return pale colours of which neighbours in number differ much: hues by the golden ratio."""
    hue = (np.arange(max(count, 1)) * 0.618034) % 1.0
    return 0.55 + 0.45 * np.stack([np.cos(2.0 * np.pi * (hue - shift)) for shift in (0.0, 1 / 3, 2 / 3)], axis=1) * 0.9


def _segments(found: DomainMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixel edges that walls run along, shape (n, 2, 2), on the layer, and the misorientation of each."""
    angle = {(wall.first, wall.second): wall.misorientation_deg for wall in found.walls}
    steps, labels = found.field.steps, found.labels
    segments, angles = [], []
    for axis in (0, 1):
        low, high = (labels[:-1], labels[1:]) if axis == 0 else (labels[:, :-1], labels[:, 1:])
        ix, iy = np.nonzero((low != high) & (low > 0) & (high > 0))
        x = found.field.x[ix] + (steps[0] / 2.0 if axis == 0 else -steps[0] / 2.0)
        y = found.field.y[iy] + (steps[1] / 2.0 if axis == 1 else -steps[1] / 2.0)
        end = (x, y + steps[1]) if axis == 0 else (x + steps[0], y)
        segments.append(np.stack([np.stack([x, y], axis=1), np.stack(end, axis=1)], axis=1))
        pairs = zip(low[ix, iy].tolist(), high[ix, iy].tolist(), strict=True)
        angles.append(np.array([angle.get((min(pair), max(pair)), np.nan) for pair in pairs]))
    return np.concatenate(segments), np.concatenate(angles)
