"""The shape of a grain from its images all round.

With the diffraction vector along the axis of omega, an image summed over the rock is a parallel projection of the
grain along the diffracted beam, which makes the angle 90 deg - theta with that axis: a laminography with a small
missing cone (Ludwig et al. 2001, J. Appl. Cryst. 34, 602; Helfen et al. 2005, Appl. Phys. Lett. 86, 071915). A point
of the sample is seen at ``u = y``, ``v = -x sin 2theta + z cos 2theta`` of its place in the laboratory, so each turn's
recorded angles, mu and the rest included, say where every voxel falls.

The reconstruction is the SIRT of the ASTRA Toolbox (van Aarle et al. 2016, Opt. Express 24, 25129) with nothing below
zero, on the voxels that are lit from nearly all sides.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dfxrm_control.errors import DeviceError, FileFormatError, ParameterError
from dfxrm_control.geometry import goniometer_rotation, lab_to_object, lab_to_sample, sample_to_lab
from dfxrm_control.reduction._scan import open_scan, read_darks, recorded_darks
from dfxrm_control.reduction._setting import Setting
from dfxrm_control.reduction.layers import Volume, write_volume
from dfxrm_control.reduction.series import Series, SeriesRun, SeriesWarning

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Projections", "read_projections", "reconstruct_grain", "reduce_topotomography"]

_GONIOMETER = ("mu", "omega", "chi", "phi")
_TRANSLATIONS = ("samx", "samy", "samz")
VOXELS_ACROSS = 48
"""Voxels along the longest edge of a volume whose voxel is not given."""
ITERATIONS = 60
LIT = 0.08
"""A pixel is lit above this share of the brightest (99th percentile): the grain's rim is thin and so dim."""
FROM_ALL_SIDES = 0.8
"""A voxel belongs to the hull when it is lit at this share of the turns: contrast inside may darken some."""
INSIDE = 0.5
"""A voxel is inside the grain above this share of the density in its middle."""
MOST_ENTRIES = 200_000_000
"""Entries of the projection matrix that are not exceeded: 1.6 GB, and three times that while it is made."""


@dataclass(frozen=True)
class Projections:
    """Images of a grain from many sides.

    Attributes
    ----------
    images : ndarray, shape (n, nv, nu)
        Summed over the rock, above dark, at the mean monitor, ADU; rows along v, columns along u.
    u, v : ndarray
        Positions in the object plane of columns and rows, um, increasing: across, and up perpendicular to the
        diffracted beam (`dfxrm_control.geometry.lab_to_object`).
    rotations : ndarray, shape (n, 3, 3)
        Of the goniometer at each turn.
    omega_deg : ndarray, shape (n,)
        Its turn.
    translation_um : ndarray, shape (3,)
        Of the sample.
    stage : {"above", "below"}
        Where the translations are.
    two_theta_deg : float
        Direction of the diffracted beam that is seen.
    sample, source : str
        Its name, and the file.
    """

    images: NDArray[np.float64]
    u: NDArray[np.float64]
    v: NDArray[np.float64]
    rotations: NDArray[np.float64]
    omega_deg: NDArray[np.float64]
    translation_um: NDArray[np.float64]
    stage: Literal["above", "below"]
    two_theta_deg: float
    sample: str
    source: str

    def seen_at(self, points_um: NDArray[np.float64], turn: int) -> NDArray[np.float64]:
        """Return (u, v) at a turn of points of the sample, shape (..., 2), um."""
        lab = sample_to_lab(points_um, self.rotations[turn], self.translation_um, self.stage)
        return lab_to_object(lab, self.two_theta_deg)[..., :2]


def read_projections(path: Path, scan: str = "1.1") -> Projections:
    """Sum the frames of a topotomography scan over the rock of each turn.

    Parameters
    ----------
    path : Path
        HDF5 master; only its complete lines count.
    scan : str
        Entry.

    Raises
    ------
    FileFormatError
        When it is no such scan, or does not say where the microscope stood.
    """
    with open_scan(path, scan, "auto") as source:
        if len(source.names) != 2 or source.names[0] != "omega":
            raise FileFormatError(f"{path}: scan {scan} ({source.title}) is no rock at each of several turns of omega")
        rock = source.command.line_length
        turns = source.command.points // rock
        sums = np.zeros((turns, *source.shape))
        entries = recorded_darks(path)
        dark = read_darks(path, entries)[1].level if entries else None
        flux = source.monitor if source.monitor is not None else np.ones(source.command.points)
        good = flux > 0.0
        used = good.reshape(turns, rock).sum(axis=1)
        if not used.all():
            raise FileFormatError(f"{path}: no frame of turn {int(used.argmin()) + 1} has a positive monitor reading")
        # a frame whose monitor has no reading is left out, and the others stand for it
        weights = np.where(good, flux[good].mean() / np.where(good, flux, 1.0), 0.0) * np.repeat(rock / used, rock)
        for points, frames in source.batches():
            for number, frame in enumerate(frames, start=points.start):
                sums[number // rock] += weights[number] * (frame if dark is None else frame - dark)
        if dark is None:
            sums -= np.median(sums, axis=(1, 2), keepdims=True)
        positions = source.positions.reshape(turns, rock, 2).mean(axis=1)
        return _placed(source.setting, sums, positions, source.names[1], source.sample, f"{path}::/{scan}")


def _placed(
    setting: Setting, sums: NDArray[np.float64], positions: NDArray[np.float64], rock: str, sample: str, where: str
) -> Projections:
    """Put summed frames into the object plane, and the goniometer where it stood at each turn."""
    instrument, view = setting.instrument, setting.view
    if instrument is None or view is None:
        raise FileFormatError(f"{where} does not say what the camera saw: {'; '.join(setting.notes) or 'no record'}")
    place = setting.placement((sums.shape[1], sums.shape[2]))
    angles = [
        {name: setting.positions.get(name, 0.0) for name in _GONIOMETER} | {"omega": omega, rock: tilt}
        for omega, tilt in positions
    ]
    two_theta = view.two_theta_deg
    # x of a layer at z = 0 is -v / sin 2theta: the rows of a map run down the object plane
    v = -place.x * math.sin(math.radians(two_theta))
    return Projections(
        images=place.canonical(sums)[:, ::-1, :],
        u=place.y,
        v=v[::-1],
        rotations=np.stack([goniometer_rotation(**each, mu_sign=instrument.mu_sign) for each in angles]),
        omega_deg=positions[:, 0],
        translation_um=1e3 * np.array([setting.positions.get(name, 0.0) for name in _TRANSLATIONS]),
        stage=instrument.sample_stage,
        two_theta_deg=two_theta,
        sample=sample,
        source=where,
    )


def reconstruct_grain(projections: Projections, voxel_um: float | None = None, iterations: int = ITERATIONS) -> Volume:
    """Reconstruct a grain from its projections.

    Parameters
    ----------
    projections : Projections
        At least four, all round.
    voxel_um : float, optional
        Edge of a voxel, um; default: `VOXELS_ACROSS` of them along the longest edge of the grain, no less than a pixel.
    iterations : int
        Of the SIRT.

    Returns
    -------
    Volume
        ``density`` (1 in the middle of the grain) and ``grain`` (True inside), on voxels along the axes of the sample.

    Raises
    ------
    ParameterError
        When nothing is lit, or the voxels are too many.
    DeviceError
        When the ASTRA Toolbox is not installed.
    """
    astra = _astra()
    pixel = max(abs(float(each[1] - each[0])) for each in (projections.u, projections.v))
    low, high = _box(projections, pixel)
    voxel = voxel_um if voxel_um is not None else max(float((high - low).max()) / VOXELS_ACROSS, pixel)
    if voxel < pixel * (1 - 1e-9):
        raise ParameterError(f"voxel_um: {voxel:g} um was asked; a pixel is {pixel:.4g} um on the sample")
    binned = _binned(projections, voxel)
    lit = _lit(binned.images)
    axes = [
        start + voxel * (np.arange(max(1, math.ceil((end - start) / voxel))) + 0.5)
        for start, end in zip(low, high, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    hull = ndimage.binary_dilation(_hull(binned, lit, grid), iterations=2)
    points = grid[hull]
    if 4 * len(points) * len(binned.images) > MOST_ENTRIES:
        raise ParameterError(
            f"voxel_um: voxels of {voxel:.3g} um make {len(points)} in the grain, too many for {len(binned.images)} "
            "projections; give a larger one"
        )
    matrix = _matrix(binned, points)
    density = np.zeros(hull.shape)
    density[hull] = _sirt(astra, matrix, binned.images, iterations)
    middle = density[density > INSIDE * np.percentile(density[hull], 95)]
    density /= float(np.median(middle)) if len(middle) else 1.0
    # single voxels are noise of the reconstruction, neither holes nor crystals
    grain = _largest(ndimage.median_filter(density, size=3) > INSIDE)
    return Volume(
        {"density": density, "grain": grain},
        {"density": "", "grain": ""},
        x=axes[0],
        y=axes[1],
        z=axes[2],
        affine=np.eye(3, 4),
        sample=projections.sample,
        sources=(projections.source,) * len(axes[2]),
    )


def _astra() -> ModuleType:
    try:
        import astra
    except ImportError as error:
        raise DeviceError(
            "the shape of a grain is reconstructed by the ASTRA Toolbox, which is not installed: pip install "
            "'dfxrm-control[tomography]', then `dfxrm series` on the folder of the run"
        ) from error
    module: ModuleType = astra
    return module


def _lit(images: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where images are lit; single pixels do not count."""
    level = LIT * float(np.percentile(images, 99.0))
    if not level > 0.0:
        raise ParameterError("no projection is lit: there is no grain to reconstruct")
    return np.stack([ndimage.binary_opening(image > level) for image in images])


def _hull(projections: Projections, lit: NDArray[np.bool_], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points fall on lit pixels at nearly all turns."""
    count = np.zeros(points.shape[:-1], int)
    v, u = projections.v, projections.u
    step_v, step_u = v[1] - v[0], u[1] - u[0]
    for turn, image in enumerate(lit):
        seen = projections.seen_at(points, turn)
        row, column = (
            np.rint((seen[..., 1] - v[0]) / step_v).astype(int),
            np.rint((seen[..., 0] - u[0]) / step_u).astype(int),
        )
        inside = (row >= 0) & (row < len(v)) & (column >= 0) & (column < len(u))
        count += inside & image[np.clip(row, 0, len(v) - 1), np.clip(column, 0, len(u) - 1)]
    return count >= FROM_ALL_SIDES * len(lit)


def _box(projections: Projections, pixel_um: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest corner of a box of the sample around the grain, um.

    The hull is looked for on a coarse grid in all that the field can show.
    """
    reach = max(np.abs(projections.u).max(), np.abs(projections.v).max()) * 1.2
    middle = lab_to_sample(np.zeros(3), projections.rotations[0], projections.translation_um, projections.stage)
    step = 2.0 * reach / 64
    coarse = _binned(projections, max(step, pixel_um))
    lit = np.stack([ndimage.binary_dilation(image) for image in _lit(coarse.images)])
    if (edges := _touching(lit)).any():
        turns = ", ".join(f"{projections.omega_deg[turn]:.4g}" for turn in np.flatnonzero(edges)[:5])
        warnings.warn(
            f"the grain reaches the border of the field at {int(edges.sum())} turns (omega {turns}, ... deg); what "
            "lies beyond it is missing from its shape",
            SeriesWarning,
            stacklevel=3,
        )
    line = (np.arange(64) + 0.5) * step - reach
    grid = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1) + middle
    found = grid[_hull(coarse, lit, grid)]
    if not len(found):
        raise ParameterError(
            "no part of the sample is lit from all sides: the images are not those of one grain that turns about omega"
        )
    return found.min(axis=0) - 2 * step, found.max(axis=0) + 2 * step


def _touching(lit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inner = np.pad(np.zeros((lit.shape[1] - 2, lit.shape[2] - 2), bool), 1, constant_values=True)
    return (lit & inner).sum(axis=(1, 2)) > 2


def _binned(projections: Projections, size_um: float) -> Projections:
    """Return the images averaged over pixels of a larger size."""

    def average(positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        start = positions[0] - (positions[1] - positions[0]) / 2.0
        place = ((positions - start) / size_um).astype(int)
        weights = np.zeros((int(place[-1]) + 1, len(positions)))
        weights[place, np.arange(len(positions))] = 1.0
        return weights / weights.sum(axis=1, keepdims=True), start + size_um * (np.arange(len(weights)) + 0.5)

    over_v, v = average(projections.v)
    over_u, u = average(projections.u)
    images = np.einsum("ab,nbc,dc->nad", over_v, projections.images, over_u, optimize=True)
    return Projections(**{**vars(projections), "images": images, "u": u, "v": v})


def _matrix(projections: Projections, points: NDArray[np.float64]) -> csr_matrix:
    """Return what takes densities at points to pixels: each spread linearly over the four next to where it falls."""
    from scipy.sparse import csr_matrix

    v, u = projections.v, projections.u
    per_image = len(v) * len(u)
    number = np.arange(len(points))
    rows, columns, values = [], [], []
    for turn in range(len(projections.images)):
        seen = projections.seen_at(points, turn)
        at_v, at_u = (seen[:, 1] - v[0]) / (v[1] - v[0]), (seen[:, 0] - u[0]) / (u[1] - u[0])
        row, column = np.floor(at_v).astype(int), np.floor(at_u).astype(int)
        for up in (0, 1):
            for right in (0, 1):
                weight = np.abs(1 - up - (at_v - row)) * np.abs(1 - right - (at_u - column))
                i, j = row + up, column + right
                inside = (i >= 0) & (i < len(v)) & (j >= 0) & (j < len(u))
                rows.append((turn * per_image + i * len(u) + j)[inside].astype(np.int64))
                columns.append(number[inside])
                values.append(weight[inside].astype(np.float32))
    shape = (len(projections.images) * per_image, len(points))
    return csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def _sirt(astra: ModuleType, matrix: csr_matrix, images: NDArray[np.float64], iterations: int) -> NDArray[np.float64]:
    """Return the densities that give the images, none below zero (ASTRA's SIRT with the matrix as its geometry)."""
    turns, pixels = len(images), images[0].size
    stored = astra.matrix.create(matrix)
    volume = astra.create_vol_geom(1, matrix.shape[1])
    geometry = astra.create_proj_geom("sparse_matrix", 1.0, pixels, np.arange(float(turns)), stored)
    projector = astra.create_projector("sparse_matrix", geometry, volume)
    data = astra.data2d.create("-sino", geometry, images.reshape(turns, pixels).astype(np.float32))
    found = astra.data2d.create("-vol", volume, 0)
    settings = astra.astra_dict("SIRT")
    settings |= {"ProjectorId": projector, "ProjectionDataId": data, "ReconstructionDataId": found}
    settings["option"] = {"MinConstraint": 0.0}
    algorithm = astra.algorithm.create(settings)
    try:
        astra.algorithm.run(algorithm, iterations)
        return astra.data2d.get(found).ravel().astype(float)
    finally:
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([found, data])
        astra.projector.delete(projector)
        astra.matrix.delete(stored)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected part: one grain was in the beam's reflection."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def reduce_topotomography(series: Series, folder: Path) -> list[Path]:
    """Reconstruct the grain of a topotomography and return its files: XDMF, HDF5 and a picture.

    Parameters
    ----------
    series : Series
        The check of the alignment, if any, and the projections.
    folder : Path
        Where to.

    Raises
    ------
    ParameterError
        When the scan of the projections is not there, or shows no grain.
    """
    run = next((run for run in series.runs if run.series.get("part", "projections") == "projections"), None)
    if run is None:
        raise ParameterError(
            "the projections were not taken: the check of the alignment is all there is, and its record is kept"
        )
    projections = read_projections(run.master)
    _say_what_is_missing(run, len(projections.images))
    grain = reconstruct_grain(projections)
    from dfxrm_control.reduction._grain_picture import plot_grain

    written = write_volume(grain, folder / f"{series.stem}.h5")
    return [*written, plot_grain(grain, folder / f"{series.stem}.png")]


def _say_what_is_missing(run: SeriesRun, turns: int) -> None:
    values: Mapping[str, object] = (run.dfxrm.get("parameters") or {}).get("values") or {}
    planned = values.get("omega_num")
    if isinstance(planned, int) and turns < planned:
        warnings.warn(
            f"{turns} of {planned} turns were taken; the grain is reconstructed from those, which see it from one side "
            "only where they do not go all round",
            SeriesWarning,
            stacklevel=2,
        )
