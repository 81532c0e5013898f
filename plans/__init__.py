"""Bluesky plans of the technique.

A plan is given an `Instrument`, the logical devices by protocol, and flat keywords that its parameter model checks.
`bind` fills in the instrument, so that a session calls ``RE(mosaicity_scan(exposure_s=0.2))``. `full_record` is the
preprocessor that completes the record of any plan, stock ones included.
"""

from plans._alignment import center_axis, find_peak
from plans._flat import MsgGenerator, Plan, bind, flat_keywords, queue_annotation
from plans._instrument import Axis, Instrument
from plans._layers import layer_scan
from plans._mesh import Mesh, mesh_scan
from plans._record import full_record
from plans._series import InnerScan, RunSeries
from plans._tilts import mosaicity_scan, rocking_scan

__all__ = [
    "Axis",
    "InnerScan",
    "Instrument",
    "Mesh",
    "MsgGenerator",
    "Plan",
    "RunSeries",
    "bind",
    "center_axis",
    "find_peak",
    "flat_keywords",
    "full_record",
    "layer_scan",
    "mesh_scan",
    "mosaicity_scan",
    "queue_annotation",
    "rocking_scan",
]
