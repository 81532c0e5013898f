"""Dislocation densities from files of maps, and into files and pictures."""

from __future__ import annotations

import datetime
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import FileFormatError
from dfxrm_control.reduction._maps import MapSet
from dfxrm_control.reduction._nexus import from_maps, new_file, new_group, program_version
from dfxrm_control.reduction._nye import DistortionLayer, NyeMap, NyeMaps
from dfxrm_control.reduction._pictures import draw, new_figure, panel_shape, save_figure

__all__ = ["distortion_layer", "plot_nye", "read_distortion_layer", "write_nye"]

_MOST_PANELS = 4
"""Planes of a stack that are drawn, evenly chosen."""

_PERCENTILE = 99.0


def distortion_layer(maps: MapSet) -> DistortionLayer:
    """Return the distortion that a set of maps tells; pixels that are saturated or not valid have none.

    Raises
    ------
    FileFormatError
        When the maps tell no component of it, or their scale is not known.
    """
    known = {part: maps.components[f"H_{part}3"] for part in (1, 2, 3) if f"H_{part}3" in maps.components}
    if not known or maps.reference_g is None or maps.length_units != "um":
        raise FileFormatError(_nothing_known(maps.source))
    return DistortionLayer(
        maps.source,
        maps.sample,
        maps.x,
        maps.y,
        maps.affine,
        maps.reference_g,
        {part: np.where(maps.trusted, one.values, np.nan) for part, one in known.items()},
        {part: np.where(maps.trusted, one.noise_error, np.nan) for part, one in known.items()},
        int((maps.valid & maps.saturated).sum()),
    )


def read_distortion_layer(path: str | Path) -> DistortionLayer:
    """Return the distortion in the layer of one scan.

    Parameters
    ----------
    path : path
        A file of maps (`write_maps`), the master of a run, which is reduced first, or the folder of a run.

    Raises
    ------
    FileFormatError
        When the file is absent, damaged or foreign, or its scan tells no component of the distortion.
    """
    return from_maps(path, _from_maps, distortion_layer)


def _nothing_known(source: str) -> str:
    return (
        f"{source} tells no component H_13, H_23 or H_33 of the lattice's distortion: that takes a scan of tilts (and "
        "two_theta or energy) with a recorded microscope"
    )


def _from_maps(entry: h5py.Group) -> DistortionLayer:
    sample = entry["sample"]
    components = entry.get("components", {})
    known = {part: components[f"H_{part}3"] for part in (1, 2, 3) if f"H_{part}3" in components}
    if not known or "reference_g" not in sample or sample["layer_to_sample"].shape != (3, 3):
        raise FileFormatError(_nothing_known(entry.file.filename))
    valid = entry["valid/data"][()].astype(bool)
    full = valid & entry["saturated/data"][()].astype(bool)
    valid &= ~full
    name = sample["name"][()]
    return DistortionLayer(
        entry["process/source"].asstr()[()],
        name.decode() if isinstance(name, bytes) else str(name),
        entry["integrated_intensity/x"][()],
        entry["integrated_intensity/y"][()],
        sample["layer_to_sample"][()],
        sample["reference_g"][()],
        {part: np.where(valid, one["values"][()].astype(float), np.nan) for part, one in known.items()},
        {part: np.where(valid, one["noise_error"][()].astype(float), np.nan) for part, one in known.items()},
        int(full.sum()),
    )


def write_nye(nye: NyeMaps, path: Path) -> None:
    """Write dislocation densities; a file that is there is replaced in one step.

    ``/entry/<name>`` are NXdata groups: signal ``data`` and ``data_errors`` over z, x and y, and ``sources``, the
    scans that each plane came from.

    Raises
    ------
    RecordError
        When the file cannot be written.
    """
    with new_file(path) as file:
        entry = new_group(file, "entry", "NXentry")
        entry["title"] = f"dislocation density of {nye.sample or 'the sample'}"
        entry.attrs["default"] = next(iter(nye.maps))
        for name, one in nye.maps.items():
            group = new_group(entry, name, "NXdata")
            for key, values in (("data", one.values), ("data_errors", one.error)):
                group[key] = values.astype(np.float32)
                group[key].attrs["units"] = one.units
            group["data"].attrs["long_name"] = f"{one.label} ({one.units})"
            for key, positions, text in (
                ("z", one.z_um, "height in the sample along the layer's normal"),
                ("x", nye.x, "x on the layer"),
                ("y", nye.y, "y on the layer"),
            ):
                group[key] = positions
                group[key].attrs.update({"units": "um", "long_name": f"{text} (um)"})
            group["sources"] = np.array(["\n".join(scans) for scans in one.sources], dtype=h5py.string_dtype())
            group.attrs.update({"signal": "data", "axes": ["z", "x", "y"]})
        sample = new_group(entry, "sample", "NXsample")
        sample["name"] = nye.sample
        sample["layer_to_sample"] = nye.affine
        sample["layer_to_sample"].attrs["description"] = "takes (x, y, 1) on the lowest layer to the sample's frame"
        sample["layer_to_sample"].attrs["units"] = "um"
        sample["frame"] = nye.frame
        sample["frame"].attrs["description"] = "rows: axes 1, 2, 3 of the components in the sample's frame; 3 along Q"
        process = new_group(entry, "process", "NXprocess")
        process["program"] = "dfxrm-control"
        process["version"] = program_version()
        process["date"] = datetime.datetime.now().astimezone().isoformat()
        process["notes"] = np.array(list(nye.notes) or [""], dtype=h5py.string_dtype())
        process["difference_span"] = np.array(nye.span_um)
        process["difference_span"].attrs["units"] = "um"
        if nye.burgers_um is not None:
            process["burgers_vector_length"] = nye.burgers_um
            process["burgers_vector_length"].attrs["units"] = "um"


def plot_nye(nye: NyeMaps, path: Path) -> None:
    """Draw all densities in the frame of the sample; of a stack at most `_MOST_PANELS` planes, evenly chosen.

    Raises
    ------
    RecordError
        When the picture cannot be written.
    """
    columns = min(_MOST_PANELS, max(len(one.z_um) for one in nye.maps.values()))
    width, height = panel_shape(nye, 4.5)
    figure = new_figure(width * columns, height * len(nye.maps))
    figure.suptitle(f"{nye.sample or 'sample'}: dislocation density from one reflection", fontsize=9)
    grid = figure.subplots(len(nye.maps), columns, squeeze=False)
    for row, one in zip(grid, nye.maps.values(), strict=True):
        planes = np.unique(np.linspace(0, len(one.z_um) - 1, columns).round().astype(int))
        limit = _limit(one)
        for ax, plane in zip(row, planes, strict=False):
            ax.set_facecolor("black")
            signed = bool((one.values < 0.0).any())
            options = {"cmap": "RdBu_r", "vmin": -limit} if signed else {"cmap": "magma", "vmin": 0.0}
            drawn = draw(nye, ax, one.values[plane], vmax=limit, **options)
            figure.colorbar(drawn, ax=ax, label=f"{one.label} ({one.units.replace('um', 'µm')})")
            ax.set_title(f"z = {one.z_um[plane]:.2f} µm", fontsize=9)
        for ax in row[len(planes) :]:
            ax.set_visible(False)
    save_figure(figure, path)


def _limit(one: NyeMap) -> float:
    values: NDArray = np.abs(one.values[np.isfinite(one.values)])
    return float(np.percentile(values, _PERCENTILE)) or 1.0 if values.size else 1.0
