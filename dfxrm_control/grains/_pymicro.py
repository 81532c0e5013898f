"""pymicro (Proudhon): grains in its HDF5 files, of the present (`GrainData`) and the earlier layout (`FeatureData`).

Rodrigues vectors are stored negated, r = -n tan(w/2) for a crystal turned by w about n against the sample: pymicro's
orientation matrix is passive and takes the sample's coordinates to the crystal's. Centres and voxels are in mm, edges
of the cell in nm.
"""

from __future__ import annotations

import h5py
import numpy as np

from dfxrm_control.crystal import Lattice
from dfxrm_control.errors import FileFormatError
from dfxrm_control.grains._assemble import Asked, from_rodrigues, measure
from dfxrm_control.grains._model import GrainMap, Voxels

__all__ = ["NAME", "is_pymicro", "read_pymicro", "write_pymicro"]

NAME = "pymicro (HDF5)"
_ANGSTROM_PER_NM = 10.0
_TABLE = "GrainData/GrainDataTable"


def is_pymicro(file: h5py.File) -> bool:
    """Whether an HDF5 file has one of pymicro's layouts."""
    return _TABLE in file or "FeatureData/R_vectors" in file


def read_pymicro(file: h5py.File, asked: Asked) -> GrainMap:
    """Read either layout."""
    if _TABLE in file:
        table = file[_TABLE][()]
        missing = [name for name in ("idnumber", "orientation", "center") if name not in (table.dtype.names or ())]
        if missing:
            raise FileFormatError(f"{asked.source}: {_TABLE} has no column {missing[0]!r}")
        ids, vectors, centres = table["idnumber"].astype(np.int64), table["orientation"], table["center"]
        phase = _present_phase(file, asked)
    else:
        features = file["FeatureData"]
        vectors = features["R_vectors"][()]
        ids = features["grain_ids"][()].astype(np.int64) if "grain_ids" in features else 1 + np.arange(len(vectors))
        if "centers" not in features:
            raise FileFormatError(f"{asked.source} has no FeatureData/centers: where the grains lie is not known")
        centres = features["centers"][()]
        cell = file.get("EnsembleData/CrystalStructure/LatticeParameters")
        phase = asked.phase(None if cell is None else _cell(cell[()]))
    voxels = _voxels(file)
    size, volume = np.full((len(ids), 3), np.nan), np.full(len(ids), np.nan)
    if voxels is not None:
        _, size, volume = measure(voxels, ids)
    return GrainMap(
        ids,
        from_rodrigues(-np.asarray(vectors, dtype=float)) @ phase.B if len(ids) else np.empty((0, 3, 3)),
        np.asarray(centres, dtype=float),
        size,
        volume,
        np.zeros(len(ids), np.int64),
        (phase,),
        ("phase 1",),
        voxels,
        asked.source,
        NAME,
        ("Rodrigues vectors are taken as pymicro stores them, negated",),
    )


def _present_phase(file: h5py.File, asked: Asked) -> Lattice:
    phases = [item for _, item in sorted(file.get("PhaseData", {}).items()) if isinstance(item, h5py.Group)]
    cell = phases[0].attrs.get("lattice_parameters") if phases else None
    return asked.phase(None if cell is None else _cell(np.asarray(cell)))


def _cell(parameters: np.ndarray) -> list[float]:
    values = np.ravel(parameters).astype(float).tolist()
    return [value * _ANGSTROM_PER_NM for value in values[:3]] + values[3:6]


def _voxels(file: h5py.File) -> Voxels | None:
    group = file.get("CellData")
    if group is None:
        return None
    for path, attribute, holder in (
        ("grain_map", "spacing", group),
        ("Field_data/grain_map", "spacing", group),
        ("grain_ids", "voxel_size", group.get("grain_ids")),
    ):
        if path in group and holder is not None and attribute in holder.attrs:
            ids = group[path][()]
            ids = ids[..., np.newaxis] if ids.ndim == 2 else ids
            size = np.broadcast_to(np.asarray(holder.attrs[attribute], dtype=float), (3,)).copy()
            return Voxels(np.where(ids > 0, ids, 0).astype(np.int64), size, np.zeros(3))
    return None


def write_pymicro(grains: GrainMap, file: h5py.File) -> None:
    """Write the present layout, as far as it is needed to read the grains back."""
    from scipy.spatial.transform import Rotation

    quaternions = Rotation.from_matrix(grains.u).as_quat()
    kind = [("idnumber", "<i4"), ("volume", "<f8"), ("center", "<f8", (3,)), ("orientation", "<f8", (3,))]
    table = np.zeros(len(grains), dtype=kind)
    table["idnumber"], table["volume"], table["center"] = grains.grain_id, grains.volume_mm3, grains.centroid_mm
    table["orientation"] = -quaternions[:, :3] / quaternions[:, 3:]
    file[_TABLE] = table
    phase = file.create_group("PhaseData/phase_01")
    cell = np.array(grains.phases[0].cell)
    phase.attrs["lattice_parameters"] = np.concatenate([cell[:3] / _ANGSTROM_PER_NM, cell[3:]])
    if grains.voxels is not None:
        cells = file.create_group("CellData")
        cells.attrs["spacing"] = grains.voxels.size_mm
        cells["grain_map"] = grains.voxels.grain_id
