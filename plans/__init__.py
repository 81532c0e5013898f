"""Bluesky plans of the technique.

A plan is given an `Instrument`, the logical devices by protocol, and flat keywords that its parameter model checks.
`bind` fills in the instrument, so that a session calls ``RE(mosaicity_scan(exposure_s=0.2))``. `full_record` is the
preprocessor that completes the record of any plan, stock ones included.
"""

from plans._alignment import (
    AssumedOutcomeWarning,
    align,
    align_objective,
    center_axis,
    center_field,
    find_beam,
    find_peak,
    focus,
    measure_magnification,
)
from plans._bragg import find_bragg
from plans._conditions import move, place_sample, set_temperature, wait
from plans._flat import MsgGenerator, Plan, bind, flat_keywords, queue_annotation
from plans._handoff import HandoffWarning, campaign, center_grain, dct_to_dfxrm, find_grain
from plans._instrument import Axis, Instrument
from plans._layers import layer_scan
from plans._mesh import Mesh, mesh_scan
from plans._record import full_record
from plans._series import InnerScan, RunSeries
from plans._strain import energy_scan, mosaicity_strain_scan, strain_scan, two_theta_scan
from plans._tilts import mosaicity_scan, rocking_scan
from plans._time_series import time_series
from plans._topotomography import topotomography_scan
from plans._weak_beam import WeakBeamWarning, weak_beam_scan

__all__ = [
    "AssumedOutcomeWarning",
    "Axis",
    "HandoffWarning",
    "InnerScan",
    "Instrument",
    "Mesh",
    "MsgGenerator",
    "Plan",
    "RunSeries",
    "WeakBeamWarning",
    "align",
    "align_objective",
    "bind",
    "campaign",
    "center_axis",
    "center_field",
    "center_grain",
    "dct_to_dfxrm",
    "energy_scan",
    "find_beam",
    "find_bragg",
    "find_grain",
    "find_peak",
    "flat_keywords",
    "focus",
    "full_record",
    "layer_scan",
    "measure_magnification",
    "mesh_scan",
    "mosaicity_scan",
    "mosaicity_strain_scan",
    "move",
    "place_sample",
    "queue_annotation",
    "rocking_scan",
    "set_temperature",
    "strain_scan",
    "time_series",
    "topotomography_scan",
    "two_theta_scan",
    "wait",
    "weak_beam_scan",
]
