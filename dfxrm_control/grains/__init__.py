"""Coarse grain maps, as diffraction contrast tomography and 3DXRD give them: which grain is where, and how turned."""

from dfxrm_control.grains._imaged11 import write_imaged11, write_text
from dfxrm_control.grains._labdct import write_labdct
from dfxrm_control.grains._model import GrainMap, Voxels
from dfxrm_control.grains._pymicro import write_pymicro
from dfxrm_control.grains._read import FORMATS, read_grain_map

__all__ = [
    "FORMATS",
    "GrainMap",
    "Voxels",
    "read_grain_map",
    "write_imaged11",
    "write_labdct",
    "write_pymicro",
    "write_text",
]
