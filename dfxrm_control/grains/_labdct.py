"""LabDCT: HDF5 files of GrainMapper3D (Xnovo Technology).

Arrays lie as (z, y, x); `Spacing` is in mm along x, y, z; Rodrigues vectors are active, from crystal to sample; grain 0
is void. The volume's middle is taken as the origin, as crispy does: what the file gives as `Center` belongs to the
laboratory scanner's own frame and is not applied.
"""

from __future__ import annotations

import h5py
import numpy as np

from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import FileFormatError
from dfxrm_control.grains._assemble import Asked, from_rodrigues, measure
from dfxrm_control.grains._model import GrainMap, Voxels

__all__ = ["NAME", "is_labdct", "read_labdct", "write_labdct"]

NAME = "LabDCT (GrainMapper3D)"


def is_labdct(file: h5py.File) -> bool:
    """Whether an HDF5 file has what GrainMapper3D writes."""
    return "LabDCT/Data/GrainId" in file


def read_labdct(file: h5py.File, asked: Asked) -> GrainMap:
    """Read a map; one orientation per grain, the mean over its voxels if the file has several."""
    data = file["LabDCT/Data"]
    for name in ("Rodrigues", "GrainId"):
        if name not in data:
            raise FileFormatError(f"{asked.source} has no LabDCT/Data/{name}; is the file truncated?")
    ids = np.ascontiguousarray(np.moveaxis(data["GrainId"][()], (0, 1, 2), (2, 1, 0))).astype(np.int64)
    rodrigues = np.moveaxis(data["Rodrigues"][()], (0, 1, 2), (2, 1, 0)).astype(float)
    if rodrigues.shape != (*ids.shape, 3):
        raise FileFormatError(
            f"{asked.source}: GrainId has shape {ids.shape[::-1]} and Rodrigues {data['Rodrigues'].shape}; the latter "
            "must have three numbers for each voxel of the former"
        )
    spacing = file["LabDCT/Spacing"][()].astype(float)
    voxels = Voxels(np.where(ids > 0, ids, 0), spacing, np.zeros(3))
    inside = ids > 0
    numbers, first, member = np.unique(ids[inside], return_index=True, return_inverse=True)
    vectors = rodrigues[inside]
    uneven = np.abs(vectors - vectors[first][member]).max(axis=1, initial=0.0) > 1e-5
    notes = [
        "the origin is the middle of the reconstructed volume: find the grain by its registration, not by this alone"
    ]
    if uneven.any():
        notes.append(f"{np.unique(member[uneven]).size} grains have voxels of several orientations: their mean is used")
        vectors = np.stack([np.bincount(member, vectors[:, axis]) for axis in range(3)], axis=1)
        vectors /= np.bincount(member)[:, np.newaxis]
    else:
        vectors = vectors[first]
    phases, names = _phases(file, asked)
    if "PhaseId" in data and len(phases) > 1:
        phase = np.moveaxis(data["PhaseId"][()], (0, 1, 2), (2, 1, 0))[inside][first].astype(np.int64) - 1
        if phase.min(initial=0) < 0 or phase.max(initial=0) >= len(phases):
            raise FileFormatError(f"{asked.source}: PhaseId names a phase that PhaseInfo does not have")
    else:
        phase = np.zeros(len(numbers), np.int64)
    b = np.array([lattice.B for lattice in phases])
    centroid, size, volume = measure(voxels, numbers)
    return GrainMap(
        numbers,
        from_rodrigues(vectors) @ b[phase] if len(numbers) else np.empty((0, 3, 3)),
        centroid,
        size,
        volume,
        phase,
        phases,
        names,
        voxels,
        asked.source,
        NAME,
        tuple(notes),
    )


def _phases(file: h5py.File, asked: Asked) -> tuple[tuple[Lattice, ...], tuple[str, ...]]:
    infos = [group for name, group in sorted(file.get("PhaseInfo", {}).items()) if name.startswith("Phase")]
    if not infos:
        return (asked.phase(),), ("phase 1",)
    phases, names = [], []
    for number, info in enumerate(infos, start=1):
        group = _text(info, "UniversalHermannMauguin") or (
            int(info["SpaceGroup"][()].ravel()[0]) if "SpaceGroup" in info else None
        )
        phases.append(asked.phase(info["UnitCell"][()] if "UnitCell" in info else None, group))
        names.append(_text(info, "Name") or f"phase {number}")
    return tuple(phases), tuple(names)


def _text(group: h5py.Group, name: str) -> str:
    if name not in group:
        return ""
    value = np.ravel(group[name][()])[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def write_labdct(grains: GrainMap, file: h5py.File) -> None:
    """Write a map with its volume."""
    if grains.voxels is None:
        raise FileFormatError("a LabDCT file holds a volume, and this map has none; write it as ImageD11 grains")
    from scipy.spatial.transform import Rotation

    ids = grains.voxels.grain_id
    table = np.zeros((int(ids.max()) + 1, 3))
    quaternions = Rotation.from_matrix(grains.u).as_quat()
    table[grains.grain_id] = quaternions[:, :3] / quaternions[:, 3:]
    phase = np.zeros(len(table), np.uint8)
    phase[grains.grain_id] = grains.phase + 1
    lab = file.create_group("LabDCT")
    lab["Spacing"] = grains.voxels.size_mm
    lab["Center"] = np.zeros(3)
    lab["Extent"] = grains.voxels.size_mm * ids.shape
    data = lab.create_group("Data")
    data["GrainId"] = ids.T
    data["Rodrigues"] = np.moveaxis(table[ids], (0, 1, 2), (2, 1, 0)).astype(np.float32)
    data["PhaseId"] = phase[ids].T
    data["Mask"] = (ids > 0).astype(np.uint8).T
    for number, (lattice, name) in enumerate(zip(grains.phases, grains.phase_names, strict=True), start=1):
        info = file.create_group(f"PhaseInfo/Phase{number:02d}")
        info["UnitCell"] = np.array(lattice.cell)
        info["UniversalHermannMauguin"] = np.array([lattice.space_group.encode()])
        info["Name"] = np.array([name.encode()])
