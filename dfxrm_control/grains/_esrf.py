"""DCT of the ESRF: the matlab files of its reconstruction code, version 7 (and older) and 7.3 (HDF5).

``4_grains/phase_01/index.mat`` has the grains (``id``, ``R_vector``, ``center`` in mm) and the crystal (``cryst``);
``5_reconstruction/phase_01_vol.mat`` the volume of their numbers, which matlab stores with x and z exchanged.
``R_vector`` is taken as active, from crystal to sample, as pymicro's reader of these files has it. DCT erodes the
borders of grains: they come out about two voxels small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dfxrm_control.errors import FileFormatError
from dfxrm_control.grains._assemble import Asked, from_rodrigues, measure
from dfxrm_control.grains._model import GrainMap, Voxels

__all__ = ["NAME", "is_matlab", "read_esrf"]

NAME = "ESRF DCT (matlab)"
_VOLUME = Path("5_reconstruction") / "phase_01_vol.mat"


def is_matlab(path: Path) -> bool:
    """Whether a file is one of matlab's, by its first words."""
    with path.open("rb") as file:
        return file.read(6) == b"MATLAB"


def read_esrf(path: Path, asked: Asked) -> GrainMap:
    """Read ``index.mat``, and the volume where it lies in its place beside it."""
    from pymatreader import read_mat

    try:
        found: Mapping[str, Any] = read_mat(str(path), variable_names=["grain", "cryst"]) or {}
    except Exception as error:  # whatever the reader meets in a damaged file
        raise FileFormatError(f"{path} cannot be read as a matlab file, or is damaged: {error}") from error
    grains = _structures(found.get("grain"))
    if grains is None:
        raise FileFormatError(f"{path} has no 'grain', as the index.mat of a DCT reconstruction has")
    described = found.get("cryst")
    cryst: Mapping[str, Any] = described if isinstance(described, Mapping) else {}
    phase = asked.phase(cryst.get("latticepar"), _group(cryst))
    for number, grain in enumerate(grains, start=1):
        for name in ("id", "R_vector", "center"):
            if name not in grain:
                raise FileFormatError(f"{path}: grain {number} has no {name!r}")
    ids = np.array([int(np.ravel(grain["id"])[0]) for grain in grains], dtype=np.int64)
    vectors = np.array([np.ravel(grain["R_vector"])[:3] for grain in grains], dtype=float).reshape(-1, 3)
    centres = np.array([np.ravel(grain["center"])[:3] for grain in grains], dtype=float).reshape(-1, 3)
    size, volume = np.full((len(ids), 3), np.nan), np.full(len(ids), np.nan)
    notes = ["R_vector is taken as active, from crystal to sample"]
    voxels = _volume(path, cryst)
    if voxels is None:
        notes.append(f"no volume was found in its place ({_VOLUME}), or no pixelsize in 'cryst'")
    else:
        notes.append("DCT erodes borders: grains are about two voxels larger than they look")
        _, size, volume = measure(voxels, ids)
    return GrainMap(
        ids,
        from_rodrigues(vectors) @ phase.B if len(ids) else np.empty((0, 3, 3)),
        centres,
        size,
        volume,
        np.zeros(len(ids), np.int64),
        (phase,),
        (str(cryst.get("name") or "phase 1"),),
        voxels,
        asked.source,
        NAME,
        tuple(notes),
    )


def _structures(grain: Any) -> Sequence[Mapping[str, Any]] | None:
    """Return one mapping per grain, whether matlab had a cell array, an array of structures or one structure."""
    if isinstance(grain, Mapping):
        if np.ndim(grain.get("id", 0)) == 0:
            return [grain]
        return [dict(zip(grain, values, strict=True)) for values in zip(*grain.values(), strict=True)]
    if isinstance(grain, list | np.ndarray) and all(isinstance(item, Mapping) for item in grain):
        return list(grain)
    return None


def _group(cryst: Mapping[str, Any]) -> str | int | None:
    for name in ("hermann_mauguin", "spacegroup"):
        value = cryst.get(name)
        if value is not None and np.size(value):
            first = np.ravel(value)[0] if not isinstance(value, str) else value
            return first if isinstance(first, str) else int(first)
    return None


def _volume(path: Path, cryst: Mapping[str, Any]) -> Voxels | None:
    file = path.parents[2] / _VOLUME if len(path.parents) > 2 else path.parent / _VOLUME.name
    pixel = cryst.get("pixelsize")
    if not file.exists() or pixel is None:
        return None
    if h5py.is_hdf5(file):
        with h5py.File(file, "r", locking=False) as volume:
            ids = volume["vol"][()].T
    else:
        from pymatreader import read_mat

        ids = np.asarray((read_mat(str(file), variable_names=["vol"]) or {})["vol"])
    ids = np.where(ids > 0, ids, 0).astype(np.int64)  # -1 is where grains overlap
    return Voxels(np.ascontiguousarray(ids), np.full(3, float(np.ravel(pixel)[0])), np.zeros(3))
