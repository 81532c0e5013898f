"""ImageD11 (Wright): grains in HDF5 and in the text forms ``.map`` and ``.ubi``.

``ubi`` has the real-space axes a, b, c of the cell as rows, in the sample frame, angstrom; ``UB = inv(ubi)``.
Translations are in um. Neither form holds a unit cell or a space group.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import FileFormatError
from dfxrm_control.grains._assemble import Asked
from dfxrm_control.grains._model import GrainMap

__all__ = ["NAME", "NAME_TEXT", "find_group", "is_text", "read_imaged11", "read_text", "write_imaged11", "write_text"]

NAME = "ImageD11 grains (HDF5)"
NAME_TEXT = "ImageD11 grains (text)"


def find_group(file: h5py.File) -> h5py.Group | None:
    """Return the group whose members have a ``ubi``, at the top of the file or one below."""
    for group in (file, *(item for item in file.values() if isinstance(item, h5py.Group))):
        if any(isinstance(item, h5py.Group) and "ubi" in item for item in group.values()):
            return group
    return None


def read_imaged11(group: h5py.Group, asked: Asked) -> GrainMap:
    """Read a group of grains; integer names are the grains' numbers."""
    ubi, places, numbers = [], [], []
    names = [name for name, item in group.items() if isinstance(item, h5py.Group) and "ubi" in item]
    by_number = all(name.isdigit() for name in names)
    for count, name in enumerate(sorted(names, key=int) if by_number else names):
        grain = group[name]
        ubi.append(np.asarray(grain["ubi"][()], dtype=float).reshape(3, 3))
        places.append(grain["translation"][()] if "translation" in grain else (np.nan,) * 3)
        numbers.append(int(name) if by_number else count)
    return _grain_map(np.array(numbers), np.array(ubi), np.array(places, dtype=float), asked, NAME)


def is_text(path: Path) -> bool:
    """Whether a file begins as the text forms do: comments, and rows of three numbers."""
    try:
        with path.open(encoding="ascii") as file:
            for _ in range(50):
                line = file.readline()
                if line.startswith("#UBI"):
                    return True
                if line and not line.startswith("#") and line.strip():
                    return len([float(word) for word in line.split()]) == 3
    except (UnicodeDecodeError, ValueError):
        return False
    return False


def read_text(path: Path, asked: Asked) -> GrainMap:
    """Read blocks of three rows, each with the ``#translation:`` that stands before it, if any."""
    ubi: list[list[float]] = []
    places: list[list[float]] = []
    here = [np.nan] * 3
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
        words = line.split()
        try:
            if line.startswith("#translation:"):
                here = [float(word) for word in words[1:4]]
            elif words and not line.startswith("#"):
                ubi.append([float(word) for word in words])
                if len(ubi) % 3 == 1:
                    places.append(here)
                    here = [np.nan] * 3
        except ValueError:
            raise FileFormatError(f"{path}, line {number}: {line.strip()!r} are no numbers") from None
        if ubi and len(ubi[-1]) != 3:
            raise FileFormatError(f"{path}, line {number}: a row of a ubi has 3 numbers, this one has {len(ubi[-1])}")
    if len(ubi) % 3:
        raise FileFormatError(f"{path}: the last ubi has {len(ubi) % 3} of 3 rows; is the file truncated?")
    matrices = np.array(ubi, dtype=float).reshape(-1, 3, 3)
    return _grain_map(np.arange(len(matrices)), matrices, np.array(places).reshape(-1, 3), asked, NAME_TEXT)


def _grain_map(numbers: NDArray, ubi: NDArray, places_um: NDArray, asked: Asked, name: str) -> GrainMap:
    phase = asked.phase()
    notes = []
    if len(places_um) and np.isnan(places_um).all():
        notes.append("the file has no positions: they are taken as 0, and only the angles hold")
        places_um = np.zeros_like(places_um)
    with np.errstate(all="ignore"):
        flat = np.abs(np.linalg.det(ubi)) < 1e-9 if len(ubi) else np.zeros(0, bool)
    if flat.any():
        raise FileFormatError(f"{asked.source}: grain {numbers[flat][0]}: its ubi has no volume")
    return GrainMap(
        numbers.astype(np.int64),
        np.linalg.inv(ubi) if len(ubi) else np.empty((0, 3, 3)),
        places_um * 1e-3,
        np.full((len(numbers), 3), np.nan),
        np.full(len(numbers), np.nan),
        np.zeros(len(numbers), np.int64),
        (phase,),
        ("phase 1",),
        None,
        asked.source,
        name,
        tuple(notes),
    )


def write_imaged11(grains: GrainMap, file: h5py.File) -> None:
    """Write orientations and positions in the HDF5 form."""
    for number, ub, place in zip(grains.grain_id, grains.ub, grains.centroid_mm, strict=True):
        grain = file.create_group(f"grains/{number}")
        grain["ubi"] = np.linalg.inv(ub)
        grain["translation"] = place * 1e3


def write_text(grains: GrainMap, path: Path) -> None:
    """Write orientations and positions in the text form; the numbers of the grains are lost in it."""
    blocks = []
    for ub, place in zip(grains.ub, grains.centroid_mm, strict=True):
        rows = "\n".join(" ".join(f"{value:.10f}" for value in row) for row in np.linalg.inv(ub))
        blocks.append(f"#translation: {' '.join(f'{value:.6f}' for value in place * 1e3)}\n#UBI:\n{rows}\n")
    path.write_text("\n".join(blocks), encoding="ascii")
