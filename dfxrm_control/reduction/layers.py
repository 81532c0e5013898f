"""A stack of layers as one volume.

Each layer is the plane that the line beam cuts out of the sample. Its points (x along the beam, y across, laboratory
z = 0) are points ``R^T (x, y, 0) - t`` of the sample with the translations t above the rotations R, or
``R^T ((x, y, 0) - t)`` with the translations below. So a stack of equal steps fills a regular grid of the sample, which
is inclined to its axes: by theta to the plane normal to the diffraction vector. `Volume.affine` says how.
"""

from __future__ import annotations

import math
import os
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.errors import FileFormatError, ParameterError, RecordError
from dfxrm_control.geometry import goniometer_rotation, lab_to_sample
from dfxrm_control.records import Run
from dfxrm_control.reduction._maps import MapSet, counted_from, maps_from_file
from dfxrm_control.reduction._setting import scalars
from dfxrm_control.reduction.series import Series, SeriesRun, SeriesWarning

__all__ = ["Layer", "Volume", "layer_affine", "read_volume", "reduce_layers", "stack_layers", "write_volume"]

_GONIOMETER = ("mu", "omega", "chi", "phi")
_TRANSLATIONS = ("samx", "samy", "samz")
_UNEQUAL = 0.02
"""Steps that differ by more than this share of a step are not equal."""
_SHIFTED = 0.1
"""Grids that differ by more than this share of a pixel are not the same."""
_ON_DISK = ("z", "y", "x")


@dataclass(frozen=True)
class Layer:
    """One layer of a stack.

    Attributes
    ----------
    maps : MapSet
        Its maps.
    affine : ndarray, shape (3, 3)
        Takes (x, y, 1) on the layer to a point of the sample, um: `layer_affine`.
    """

    maps: MapSet
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Volume:
    """Maps of a stack of layers, as ``field[ix, iy, iz]``.

    Attributes
    ----------
    fields : dict of ndarray, shape (nx, ny, nz)
        By name: ``<axis>_com``, ``<axis>_error`` and ``<axis>_fwhm`` of each scanned axis, ``<component>`` and
        ``<component>_error`` of each component (counted from the reference of the lowest layer), ``integrated``,
        ``photons``, ``kam``, ``valid``. NaN (``valid``: False) in a layer that is missing.
    units : dict of str
        Unit of each.
    x, y, z : ndarray
        Positions on a layer along the beam and across, from the rotation centre, and of the layers along the normal of
        the beam's plane, from the origin of the sample, um; each increases.
    affine : ndarray, shape (3, 4)
        Takes (x, y, z, 1) to a point of the sample, um. Its first three columns are a rotation where the sample was
        moved along the normal; where it was moved along a tilted axis, the third is not perpendicular to the others.
    sample : str
        Name of the sample.
    sources : tuple of str
        File of each layer; empty for one that is missing.
    """

    fields: dict[str, NDArray]
    units: dict[str, str]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    z: NDArray[np.float64]
    affine: NDArray[np.float64]
    sample: str
    sources: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of points along x, y and z."""
        return len(self.x), len(self.y), len(self.z)

    @property
    def missing(self) -> tuple[int, ...]:
        """The layers that are missing, from 0."""
        return tuple(number for number, source in enumerate(self.sources) if not source)

    @property
    def step_um(self) -> float:
        """Distance of the layers, um."""
        return float(self.z[1] - self.z[0])

    def to_sample(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> NDArray[np.float64]:
        """Return sample coordinates of points of the volume, shape (..., 3), um."""
        points = np.stack(np.broadcast_arrays(*(np.asarray(each, dtype=float) for each in (x, y, z))), axis=-1)
        return points @ self.affine[:, :3].T + self.affine[:, 3]

    def points(self) -> NDArray[np.float64]:
        """Return sample coordinates of all points, shape (nx, ny, nz, 3), um."""
        return self.to_sample(*np.meshgrid(self.x, self.y, self.z, indexing="ij"))

    def gradient(self, name: str) -> NDArray[np.float64]:
        """Return the gradient of a field along the axes of the sample, shape (nx, ny, nz, 3), its unit per um.

        Differences between neighbours along the volume's own axes, carried over by the chain rule:
        ``df/dr = A^-T df/d(x, y, z)`` with ``A`` the first three columns of `affine`. NaN beside a pixel that is NaN.
        """
        values = np.asarray(self.fields[name], dtype=float)
        own = np.stack(np.gradient(values, self.x, self.y, self.z), axis=-1)
        return own @ np.linalg.inv(self.affine[:, :3])


def layer_affine(run: Run) -> NDArray[np.float64]:
    """Return what takes (x, y, 1) on the layer that a run saw to a point of the sample, shape (3, 3), um.

    Parameters
    ----------
    run : Run
        Its baseline holds goniometer and translations; scanned axes count at their mean. Set-points are used where they
        are recorded: steps then are as equal as they were asked for.

    Raises
    ------
    FileFormatError
        When it does not say what microscope it was taken with.
    """
    if "instrument" not in run.dfxrm:
        raise FileFormatError(
            f"scan {run.scan_number} of {run.sample_name} does not say what microscope it was taken with"
        )
    instrument = InstrumentConfig.model_validate(run.dfxrm["instrument"])
    baseline = scalars(run.baseline())

    def at(axis: str) -> float:
        if axis in run.primary.data_keys:
            return float(np.mean(run.primary.column(axis)))
        return baseline.get(f"{axis}_setpoint", baseline.get(axis, 0.0))

    rotation = goniometer_rotation(**{axis: at(axis) for axis in _GONIOMETER}, mu_sign=instrument.mu_sign)
    shift = 1e3 * np.array([at(axis) for axis in _TRANSLATIONS])
    corners = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    origin, along_x, along_y = lab_to_sample(corners, rotation, shift, instrument.sample_stage)
    return np.stack([along_x - origin, along_y - origin, origin], axis=1)


def stack_layers(layers: Sequence[Layer]) -> Volume:
    """Put layers on top of each other, whatever their order.

    Parameters
    ----------
    layers : sequence of Layer
        At least two, of one sample, on one grid of pixels.

    Returns
    -------
    Volume
        A layer that is missing in a row of equal steps is empty in it.

    Raises
    ------
    ParameterError
        When the layers are of different samples or grids, were scanned along different axes, are not parallel or not
        equally spaced; the sentence says which.
    """
    if len(layers) < 2:
        raise ParameterError(f"a stack needs at least two layers; there is {len(layers)}")
    first = layers[0]
    normal = np.cross(first.affine[:, 0], first.affine[:, 1])
    for layer in layers[1:]:
        _check_alike(first, layer, normal)
    heights = np.array([float(normal @ layer.affine[:, 2]) for layer in layers])
    order = np.argsort(heights)
    heights, layers = heights[order], [layers[number] for number in order]
    steps = np.diff(heights)
    step = float(steps.min())
    if step < 1e-3:
        twice = layers[int(steps.argmin())].maps.source
        raise ParameterError(f"two layers lie at the same height, that of {twice}; give each layer once")
    places = np.rint((heights - heights[0]) / step).astype(int)
    step = (heights[-1] - heights[0]) / places[-1]
    away = np.abs(heights - heights[0] - places * step)
    if away.max() > _UNEQUAL * step:
        raise ParameterError(
            f"the layers are not equally spaced: their steps are {', '.join(f'{each:.4g}' for each in steps)} um; no "
            "volume was made, and the maps of each layer are kept"
        )
    # where the sample went along a tilted axis the layers are also displaced along themselves, by as much at each step
    origins = np.stack([layer.affine[:, 2] for layer in layers])
    per_step = (origins[-1] - origins[0]) / places[-1]
    if np.abs(origins - origins[0] - places[:, np.newaxis] * per_step).max() > _UNEQUAL * step:
        raise ParameterError(
            "the layers are displaced against each other by unequal steps; no volume was made, and the maps of each "
            "layer are kept"
        )
    count = int(places[-1]) + 1
    z = heights[0] + step * np.arange(count)
    column = per_step / step
    affine = np.column_stack([first.affine[:, :2], column, origins[0] - column * z[0]])
    sources = [""] * count
    for place, layer in zip(places, layers, strict=True):
        sources[place] = layer.maps.source
    fields, units = _fields([layer.maps for layer in layers], places, count)
    maps = layers[0].maps
    return Volume(fields, units, maps.x, maps.y, z, affine, maps.sample, tuple(sources))


def _check_alike(first: Layer, layer: Layer, normal: NDArray[np.float64]) -> None:
    one, other = first.maps, layer.maps
    if other.sample != one.sample:
        raise ParameterError(
            f"the layers are of different samples: {one.source} is of {one.sample!r}, {other.source} of "
            f"{other.sample!r}; no volume was made, and the maps of each layer are kept"
        )
    names = [axis.name for axis in one.axes]
    if [axis.name for axis in other.axes] != names:
        raise ParameterError(
            f"the layers were scanned along different axes: {one.source} along {', '.join(names)}, {other.source} "
            f"along {', '.join(axis.name for axis in other.axes)}"
        )
    if one.length_units != "um" or other.length_units != "um":
        raise ParameterError(f"the scale of {other.source} is not known, so its layer cannot be placed in a volume")
    for axis in ("x", "y"):
        here, there = getattr(one, axis), getattr(other, axis)
        pixel = abs(here[1] - here[0]) if len(here) > 1 else 1.0
        if len(here) != len(there) or np.abs(here - there).max() > _SHIFTED * pixel:
            raise ParameterError(
                f"the layers do not lie on one grid: the {axis} of {other.source} differ from those of {one.source}; "
                "lens and camera must stand still between layers"
            )
    turned = np.cross(layer.affine[:, 0], layer.affine[:, 1])
    if math.degrees(math.acos(min(1.0, float(normal @ turned)))) > 0.1:
        raise ParameterError(
            f"the layer of {other.source} is not parallel to that of {one.source}: the sample was turned"
        )


def _fields(layers: Sequence[MapSet], places: Iterable[int], count: int) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Return every map of the layers as a volume, and its unit; components that only some layers have are left out."""
    fields: dict[str, NDArray] = {}
    units: dict[str, str] = {}
    where = list(places)

    def put(name: str, unit: str, slices: Sequence[NDArray]) -> None:
        mask = slices[0].dtype == np.bool_
        out = np.full((*slices[0].shape, count), False if mask else np.nan, bool if mask else np.float64)
        for place, values in zip(where, slices, strict=True):
            out[:, :, place] = values
        fields[name], units[name] = out, unit

    for index, axis in enumerate(layers[0].axes):
        for name in ("com", "error", "fwhm"):
            put(f"{axis.name}_{name}", axis.units, [getattr(maps.axes[index], name) for maps in layers])
    for name, component in layers[0].components.items():
        if all(name in maps.components for maps in layers):
            put(name, component.units, [counted_from(layers[0], maps, name) for maps in layers])
            put(f"{name}_error", component.units, [maps.components[name].error for maps in layers])
    for name, unit in (("integrated", "ADU"), ("photons", ""), ("kam", "deg"), ("valid", ""), ("saturated", "")):
        put(name, unit, [getattr(maps, name) for maps in layers])
    return fields, units


def write_volume(volume: Volume, path: Path) -> list[Path]:
    """Write a volume as HDF5, and beside it the XDMF by which ParaView opens it in the frame of the sample.

    On disk an array is ``[iz, iy, ix]``, as ParaView wants it. XDMF knows no inclined regular grid, so the points of
    the sample are written too, as a structured grid.

    Parameters
    ----------
    volume : Volume
        What to write.
    path : Path
        HDF5 file; the XDMF file has its name and ends in ``.xdmf``. Files that are there are replaced.

    Returns
    -------
    list of Path
        The XDMF file and the HDF5 file.

    Raises
    ------
    RecordError
        When they cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    description = path.with_suffix(".xdmf")
    try:
        with h5py.File(temporary, "w") as file:
            _write(volume, file)
        temporary.replace(path)
        ET.indent(tree := _xdmf(volume, path.name))
        tree.write(description, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise RecordError(f"volume {path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return [description, path]


def _write(volume: Volume, file: h5py.File) -> None:
    file.attrs.update({"NX_class": "NXroot", "default": "volume"})
    group = file.create_group("volume")
    signal = "integrated" if "integrated" in volume.fields else next(iter(volume.fields))
    group.attrs.update({"NX_class": "NXdata", "signal": signal, "axes": list(_ON_DISK)})
    for axis, text in (("x", "along the beam"), ("y", "across the beam"), ("z", "along the normal of the layers")):
        group[axis] = getattr(volume, axis)
        group[axis].attrs.update({"units": "um", "long_name": f"{axis}, {text} (um)"})
        group.attrs[f"{axis}_indices"] = _ON_DISK.index(axis)
    for name, values in volume.fields.items():
        kind = np.uint8 if values.dtype == np.bool_ else np.float32
        group.create_dataset(name, data=values.T.astype(kind), compression="gzip", compression_opts=1)
        group[name].attrs["units"] = volume.units[name]
    group["affine"] = volume.affine
    group["affine"].attrs["description"] = "takes (x, y, z, 1) to a point of the sample"
    group["affine"].attrs["units"] = "um"
    points = volume.points().transpose(2, 1, 0, 3).astype(np.float32)
    group.create_dataset("points", data=points, compression="gzip", compression_opts=1)
    group["points"].attrs.update({"units": "um", "description": "x, y, z of each point in the frame of the sample"})
    group["sample"] = volume.sample
    group["sources"] = np.array(list(volume.sources), dtype=h5py.string_dtype())


def _xdmf(volume: Volume, file: str) -> ET.ElementTree:
    """Return the XDMF 3 description of the HDF5 file: a structured grid with one attribute per field."""
    shape = " ".join(str(count) for count in reversed(volume.shape))
    root = ET.Element("Xdmf", Version="3.0")
    grid = ET.SubElement(ET.SubElement(root, "Domain"), "Grid", Name=volume.sample, GridType="Uniform")
    ET.SubElement(grid, "Topology", TopologyType="3DSMesh", Dimensions=shape)
    geometry = ET.SubElement(grid, "Geometry", GeometryType="XYZ")

    def item(parent: ET.Element, name: str, dimensions: str, kind: str, size: int) -> None:
        described = {"Format": "HDF", "Dimensions": dimensions, "NumberType": kind, "Precision": str(size)}
        each = ET.SubElement(parent, "DataItem", described)
        each.text = f"{file}:/volume/{name}"

    item(geometry, "points", f"{shape} 3", "Float", 4)
    for name, values in volume.fields.items():
        label = f"{name} ({volume.units[name]})" if volume.units[name] else name
        attribute = ET.SubElement(grid, "Attribute", Name=label, AttributeType="Scalar", Center="Node")
        item(attribute, name, shape, *(("UChar", 1) if values.dtype == np.bool_ else ("Float", 4)))
    return ET.ElementTree(root)


def read_volume(path: Path) -> Volume:
    """Read a volume that `write_volume` wrote.

    Parameters
    ----------
    path : Path
        The HDF5 file.

    Raises
    ------
    FileFormatError
        When it is absent or no volume.
    """
    own = {*_ON_DISK, "affine", "points", "sample", "sources"}
    try:
        with h5py.File(path, "r") as file:
            group = file["volume"]
            fields: dict[str, NDArray[Any]] = {}
            for name in group:
                if name not in own:
                    values = group[name][()].T
                    fields[name] = values.astype(bool) if values.dtype == np.uint8 else values.astype(float)
            return Volume(
                fields,
                {name: str(group[name].attrs["units"]) for name in fields},
                group["x"][()],
                group["y"][()],
                group["z"][()],
                group["affine"][()],
                group["sample"].asstr()[()],
                tuple(group["sources"].asstr()[()]),
            )
    except (OSError, KeyError, AttributeError) as error:
        raise FileFormatError(f"{path} is no volume of layers: {error}") from error


def reduce_layers(series: Series, folder: Path) -> list[Path]:
    """Make the volume of a stack of layers and return its files.

    Parameters
    ----------
    series : Series
        The runs, one per layer.
    folder : Path
        Where to.

    Raises
    ------
    ParameterError
        When they make no stack; the sentence says why, and that the maps of each layer are kept.
    FileFormatError
        When a master or a journal cannot be read.
    """
    complete = series.complete
    if len(complete) < 2:
        raise ParameterError(
            f"a stack needs at least two layers; {len(complete)} of {series.of or len(series.runs)} were scanned to "
            "their end, and the record of each is kept"
        )
    _say_what_is_missing(series, complete)
    volume = stack_layers([Layer(maps_from_file(run.master), layer_affine(run.journal)) for run in complete])
    return write_volume(volume, folder / f"{series.stem}.h5")


def _say_what_is_missing(series: Series, complete: Sequence[SeriesRun]) -> None:
    planned = series.of
    there = {run.index for run in complete}
    if planned is None or len(there) == planned:
        return
    lacking = [number for number in range(planned) if number not in there]
    names = ", ".join(str(number + 1) for number in lacking)
    layers, are = ("layer", "is") if len(lacking) == 1 else ("layers", "are")
    warnings.warn(
        f"{layers} {names} of {planned} {are} missing; the volume holds the other {len(there)}",
        SeriesWarning,
        stacklevel=2,
    )
