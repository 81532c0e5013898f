"""Plans that align the microscope: each finds something, says how sure it is, and moves nothing when it is not."""

from plans._alignment._align import align
from plans._alignment._beam import find_beam
from plans._alignment._field import center_field
from plans._alignment._focus import focus
from plans._alignment._magnification import measure_magnification
from plans._alignment._objective import align_objective
from plans._alignment._peak import center_axis, find_peak
from plans._alignment._step import AssumedOutcomeWarning

__all__ = [
    "AssumedOutcomeWarning",
    "align",
    "align_objective",
    "center_axis",
    "center_field",
    "find_beam",
    "find_peak",
    "focus",
    "measure_magnification",
]
