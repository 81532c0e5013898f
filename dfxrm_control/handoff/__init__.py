"""From a coarse grain map to the settings of the microscope: which grains and reflections it can image, and how."""

from dfxrm_control.handoff._choose import Choices, as_rows, choose, same_cell
from dfxrm_control.handoff._output import grain_colours, plot_map, screen_table, write_csv, write_hdf5
from dfxrm_control.handoff._register import FoundGrain, RegistrationFit, register
from dfxrm_control.handoff._registration import Registration
from dfxrm_control.handoff._solve import ANGLES, solve_angles, topotomography_angles
from dfxrm_control.handoff._store import RegistrationStore, StoredRegistration, map_fingerprint
from dfxrm_control.handoff._visits import (
    FOUND_AXES,
    Residuals,
    Visit,
    companions,
    found_grains,
    residuals_of,
    visits_of,
)

__all__ = [
    "ANGLES",
    "FOUND_AXES",
    "Choices",
    "FoundGrain",
    "Registration",
    "RegistrationFit",
    "RegistrationStore",
    "Residuals",
    "StoredRegistration",
    "Visit",
    "as_rows",
    "choose",
    "companions",
    "found_grains",
    "grain_colours",
    "map_fingerprint",
    "plot_map",
    "register",
    "residuals_of",
    "same_cell",
    "screen_table",
    "solve_angles",
    "topotomography_angles",
    "visits_of",
    "write_csv",
    "write_hdf5",
]
