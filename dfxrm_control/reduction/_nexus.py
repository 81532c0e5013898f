"""Maps as an HDF5 file of NXdata groups."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import FileFormatError, RecordError
from dfxrm_control.reduction._maps import AxisMaps, MapSet, maps_from_file

__all__ = ["from_maps", "new_file", "new_group", "program_version", "write_maps"]

T = TypeVar("T")

_AXIS_FIELDS = {
    "center_of_mass": ("com", "position of the motor at which the pixel diffracts"),
    "center_of_mass_noise": ("noise_error", "rms error of the centre of mass by noise alone"),
    "fwhm": ("fwhm", "2.3548 rms width"),
    "local_spread_raw": ("spread_raw", "rms width as measured, that of the instrument included"),
    "local_spread": ("spread", "rms width with that of the instrument taken off in quadrature"),
    "local_spread_limit": ("spread_limit", "smallest local spread that is distinguished from noise"),
    "window_slope": ("slope", "by how much the centre of mass moves per unit the peak moves"),
    "not_bracketed": ("not_bracketed", "1 where the window did not bracket the peak"),
}


def write_maps(maps: MapSet, path: Path) -> None:
    """Write maps; a file that is there is replaced in one step.

    ``/entry/<quantity>`` and ``/entry/<axis>/<quantity>`` are NXdata groups with the signal ``data`` over x and y;
    ``/entry/components/<name>`` are NXdata groups with the signal ``values`` and its ``error``.

    Parameters
    ----------
    maps : MapSet
        What to write.
    path : Path
        File; its folder must exist.

    Raises
    ------
    RecordError
        When the file cannot be written.
    """
    with new_file(path) as file:
        _write(maps, file)


def from_maps(path: str | Path, read: Callable[[h5py.Group], T], make: Callable[[MapSet], T]) -> T:
    """Return what maps tell, whether they were made already or not.

    Parameters
    ----------
    path : path
        A file of maps (`write_maps`), the master of a run, which is reduced first, or the folder of a run.
    read : callable
        Given the entry of a file of maps.
    make : callable
        Given maps made of the frames.

    Raises
    ------
    FileFormatError
        When the file is absent, damaged or foreign.
    """
    path = Path(path)
    if path.is_dir():
        path = path / f"{path.absolute().name}.h5"
    if not path.exists():
        raise FileFormatError(f"{path} does not exist")
    try:
        with h5py.File(path, "r") as file:
            if "entry/integrated_intensity" in file:
                return read(file["entry"])
    except (OSError, KeyError) as error:
        raise FileFormatError(f"{path} cannot be read as a file of maps: {error}") from error
    return make(maps_from_file(path))


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to be written that takes the place of one of its name, in one step, when all was written.

    Raises
    ------
    RecordError
        When it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(
                {"NX_class": "NXroot", "creator": f"dfxrm-control {program_version()}", "default": "entry"}
            )
            yield file
        temporary.replace(path)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordError(f"maps {path} cannot be written: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(maps: MapSet, file: h5py.File) -> None:
    entry = new_group(file, "entry", "NXentry")
    entry["title"] = maps.title
    entry.attrs["default"] = maps.axes[0].name
    _map(
        entry,
        "integrated_intensity",
        maps.integrated,
        maps,
        "ADU",
        "sum over the points, above dark, at the mean monitor",
    )
    for axis in maps.axes:
        group = new_group(entry, axis.name, "NXcollection")
        group.attrs["default"] = "center_of_mass"
        for name, (attribute, text) in _AXIS_FIELDS.items():
            units = "" if name in ("window_slope", "not_bracketed") else axis.units
            errors = axis.error if name == "center_of_mass" else None
            _map(group, name, getattr(axis, attribute), maps, units, text, errors)
        _describe_axis(group, axis)
    for name, array, units, text in (
        ("maximum_intensity", maps.maximum, "ADU", "highest intensity, above dark, at the mean monitor"),
        ("point_of_maximum", maps.argmax, "", "point of the scan with the highest intensity, from 0"),
        ("detected_photons", maps.photons, "", "photons detected over the scan"),
        ("kernel_average_misorientation", maps.kam, "deg", "projected: distances of the centres of mass of the tilts"),
        ("valid", maps.valid, "", "1 where the integrated intensity stands out of its noise"),
        ("saturated", maps.saturated, "", "1 where a frame reached the camera's full well"),
    ):
        _map(entry, name, array, maps, units, text)
    for a, one in enumerate(maps.axes):
        for b, other in enumerate(maps.axes[a + 1 :], start=a + 1):
            units = f"{one.units} {other.units}"
            _map(entry, f"covariance_{one.name}_{other.name}", maps.covariance[a, b], maps, units, "of the two motors")
    _write_components(entry, maps)
    _write_distribution(entry, maps)
    sample = new_group(entry, "sample", "NXsample")
    sample["name"] = maps.sample
    sample["layer_to_sample"] = maps.affine
    sample["layer_to_sample"].attrs["description"] = "takes (x, y, 1) on the layer to the sample's frame"
    sample["layer_to_sample"].attrs["units"] = maps.length_units
    if maps.reference_g is not None:
        sample["reference_g"] = maps.reference_g
        sample["reference_g"].attrs["description"] = "diffraction vector that the components are counted from"
        sample["reference_g"].attrs["units"] = "1/angstrom"
    _write_process(entry, maps)


def new_group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    """Make a group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def _map(
    parent: h5py.Group,
    name: str,
    array: NDArray,
    maps: MapSet,
    units: str,
    text: str,
    errors: NDArray[np.float64] | None = None,
) -> None:
    group = new_group(parent, name, "NXdata")
    values = array.astype(np.uint8) if array.dtype == np.bool_ else array
    values = values.astype(np.float32) if values.dtype.kind == "f" and values is not maps.integrated else values
    group["data"] = values
    group["data"].attrs["long_name"] = f"{name.replace('_', ' ')}{f' ({units})' if units else ''}"
    group["data"].attrs["description"] = text
    if units:
        group["data"].attrs["units"] = units
    if errors is not None:
        group["data_errors"] = errors.astype(np.float32)
        group["data_errors"].attrs["units"] = units
    _lie_on_layer(group, maps)
    group.attrs["signal"] = "data"


def _write_components(entry: h5py.Group, maps: MapSet) -> None:
    if not maps.components:
        return
    parent = new_group(entry, "components", "NXcollection")
    parent.attrs["default"] = next(iter(maps.components))
    for name, component in maps.components.items():
        group = new_group(parent, name, "NXdata")
        for key, values, text in (
            ("values", component.values, component.label),
            ("error", component.error, "predicted rms error, of noise and of the pixel's extent"),
            ("noise_error", component.noise_error, "predicted rms error of noise alone"),
        ):
            group[key] = values.astype(np.float32)
            group[key].attrs["description"] = text
            if component.units:
                group[key].attrs["units"] = component.units
        unit = f" ({component.units})" if component.units else ""
        group["values"].attrs["long_name"] = f"{component.label}{unit}"
        _lie_on_layer(group, maps)
        group.attrs.update({"signal": "values", "auxiliary_signals": ["error", "noise_error"]})


def _lie_on_layer(group: h5py.Group, maps: MapSet) -> None:
    """Give a group of maps its axes: those of the first, which are linked to by the others."""
    first = group.file.get("/entry/integrated_intensity")
    for key, values in (("x", maps.x), ("y", maps.y)):
        if key in first:
            group[key] = first[key]
            continue
        group[key] = values
        group[key].attrs["units"] = maps.length_units
        group[key].attrs["long_name"] = f"{key} on the layer ({maps.length_units})"
    group.attrs.update({"axes": ["x", "y"], "x_indices": 0, "y_indices": 1})


def _describe_axis(group: h5py.Group, axis: AxisMaps) -> None:
    group["window"] = np.array(axis.window)
    group["window"].attrs["units"] = axis.units
    if axis.instrument_sigma is not None:
        group["instrument_rms_width"] = axis.instrument_sigma
        group["instrument_rms_width"].attrs["units"] = axis.units


def _write_distribution(entry: h5py.Group, maps: MapSet) -> None:
    group = new_group(entry, "orientation_distribution", "NXdata")
    group["data"] = maps.distribution.intensity
    group["data"].attrs["long_name"] = "intensity of the whole detector (ADU)"
    group["data"].attrs["units"] = "ADU"
    names = []
    for axis, positions in zip(maps.axes, maps.distribution.positions, strict=False):
        group[axis.name] = positions
        group[axis.name].attrs["units"] = axis.units
        names.append(axis.name)
    group.attrs.update({"signal": "data", "axes": names})


def _write_process(entry: h5py.Group, maps: MapSet) -> None:
    process = new_group(entry, "process", "NXprocess")
    process["program"] = "dfxrm-control"
    process["version"] = program_version()
    process["date"] = datetime.datetime.now().astimezone().isoformat()
    process["source"] = maps.source
    process["points"] = maps.points
    process["frames"] = maps.frames
    process["notes"] = np.array(list(maps.notes) or [""], dtype=h5py.string_dtype())
    process["settings_json"] = json.dumps(maps.settings, default=str)
    noise = new_group(process, "noise", "NXcollection")
    noise["gain"] = maps.noise.gain_adu_per_photon
    noise["gain"].attrs["units"] = "ADU per photon"
    noise["frame_variance"] = float(np.median(maps.noise.frame_variance_adu2))
    noise["frame_variance"].attrs["units"] = "ADU^2"
    noise["dark_frames"] = maps.noise.dark_frames
    noise["source"] = maps.noise.source


def program_version() -> str:
    """Return the version of this program, for the files it writes."""
    try:
        return version("dfxrm-control")
    except PackageNotFoundError:
        return "0"
