"""Reading a grain map of any known format, found from its content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py

from dfxrm_control.errors import FileFormatError
from dfxrm_control.grains import _esrf, _imaged11, _labdct, _pymicro
from dfxrm_control.grains._assemble import Asked
from dfxrm_control.grains._model import GrainMap

__all__ = ["FORMATS", "read_grain_map"]

FORMATS = (_labdct.NAME, _imaged11.NAME, _imaged11.NAME_TEXT, _esrf.NAME, _pymicro.NAME)
"""What can be read."""


def read_grain_map(
    path: str | Path, *, cell: Sequence[float] | None = None, space_group: str | None = None
) -> GrainMap:
    """Read a grain map; what kind of file it is is found from what is in it.

    Parameters
    ----------
    path : path
        File of `FORMATS`: LabDCT (GrainMapper3D) HDF5, ImageD11 grains as HDF5 or text, ``index.mat`` of ESRF DCT,
        pymicro HDF5.
    cell : sequence of 6 float, optional
        a, b, c in angstrom and alpha, beta, gamma in deg; needed where the file does not say it, and prevails over it.
    space_group : str, optional
        Hermann-Mauguin symbol, likewise.

    Raises
    ------
    ParameterError
        When the file does not say the unit cell or the space group, and it was not given.
    FileFormatError
        When the file is absent, truncated, of no known format, empty, or its orientations do not fit the cell.
    """
    path = Path(path)
    asked = Asked(str(path), cell, space_group)
    if not path.is_file():
        raise FileFormatError(f"{path} does not exist" if not path.exists() else f"{path} is a folder, not a file")
    try:
        if _esrf.is_matlab(path):
            return _esrf.read_esrf(path, asked)
        if h5py.is_hdf5(path):
            with h5py.File(path, "r", locking=False) as file:
                return _read_hdf5(file, path, asked)
        if _imaged11.is_text(path):
            return _imaged11.read_text(path, asked)
    except (OSError, RuntimeError, KeyError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} cannot be read, or is damaged: {error}") from error
    raise FileFormatError(f"{path} is no grain map that is known; these are: {', '.join(FORMATS)}")


def _read_hdf5(file: h5py.File, path: Path, asked: Asked) -> GrainMap:
    if _labdct.is_labdct(file):
        return _labdct.read_labdct(file, asked)
    if _pymicro.is_pymicro(file):
        return _pymicro.read_pymicro(file, asked)
    group = _imaged11.find_group(file)
    if group is not None:
        return _imaged11.read_imaged11(group, asked)
    raise FileFormatError(f"{path} is HDF5, but no grain map that is known; these are: {', '.join(FORMATS)}")
