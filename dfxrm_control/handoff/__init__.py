"""From a coarse grain map to the settings of the microscope: which grains and reflections it can image, and how."""

from dfxrm_control.handoff._choose import Choices, as_rows, choose
from dfxrm_control.handoff._output import grain_colours, plot_map, screen_table, write_csv, write_hdf5
from dfxrm_control.handoff._register import FoundGrain, RegistrationFit, register
from dfxrm_control.handoff._registration import Registration
from dfxrm_control.handoff._solve import ANGLES, solve_angles, topotomography_angles

__all__ = [
    "ANGLES",
    "Choices",
    "FoundGrain",
    "Registration",
    "RegistrationFit",
    "as_rows",
    "choose",
    "grain_colours",
    "plot_map",
    "register",
    "screen_table",
    "solve_angles",
    "topotomography_angles",
    "write_csv",
    "write_hdf5",
]
