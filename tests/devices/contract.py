"""What every control system must deliver: the data keys of each logical device, with type, unit, precision and kind."""

from ophyd import Kind


def number(units, precision=None, limits=None):
    key = {"dtype": "number", "shape": [], "units": units}
    if precision is not None:
        key["precision"] = precision
    if limits is not None:
        key["lower_ctrl_limit"], key["upper_ctrl_limit"] = limits
    return key


def words(*choices):
    return {"dtype": "string", "shape": [], "choices": list(choices)}


def motor(name, units, limits, precision=5):
    key = number(units, precision, limits)
    return {name: key, f"{name}_setpoint": key}


def settings(name, units):
    return {
        f"{name}_tolerance": number(units),
        f"{name}_velocity": number(f"{units}/s"),
        f"{name}_acceleration": number("s"),
        f"{name}_backlash": number(units),
    }


TEN = (-10.0, 10.0)
# logical name of an axis -> (device, unit, limits, precision)
MOTORS = {
    "mu": ("goniometer", "deg", (0.0, 20.0), 5),
    **dict.fromkeys(("omega", "chi", "phi"), ("goniometer", "deg", TEN, 5)),
    **dict.fromkeys(("samx", "samy", "samz"), ("goniometer", "mm", TEN, 5)),
    "obx": ("objective", "mm", (50.0, 600.0), 5),
    "oby": ("objective", "mm", (-50.0, 50.0), 5),
    "obz": ("objective", "mm", (-5.0, 300.0), 5),
    "obpitch": ("objective", "deg", (-1.0, 35.0), 5),
    "obyaw": ("objective", "deg", TEN, 5),
    "mainx": ("far_field", "mm", (-6500.0, -3000.0), 5),
    "ffy": ("far_field", "mm", (-100.0, 100.0), 5),
    "ffz": ("far_field", "mm", (-40.0, 1960.0), 5),
    **dict.fromkeys(("nfx", "nfy", "nfz"), ("near_field", "mm", (-500.0, 500.0), 5)),
    "temperature": ("furnace", "degC", (20.0, 500.0), 5),
    "ccmth": ("monochromator", "deg", (2.0, 20.0), 6),
    **dict.fromkeys(("s8vg", "s8hg", "s8vo", "s8ho", "cdx"), ("beam", "mm", TEN, 5)),
}
# limits of a computed axis follow from those of its real axes
COMPUTED = {"two_theta": ("arm", "deg", 5), "energy": ("monochromator", "keV", 5)}
CHANNELS = {
    "objective_in": ("objective", words("in", "out")),
    "objective_kind": ("objective", words("crl")),
    "far_field_camera_objective": ("far_field", words("10x", "2x")),
    "mono": ("monochromator", words("in", "out")),
    "shutter": ("beam", words("open", "closed")),
    "condenser": ("beam", words("line", "box")),
    "attenuator": ("beam", number("")),
    "ring_current": ("beam", number("mA")),
    "monitor": ("beam", number("")),
}
CAMERAS = {"far_field": (8, 6), "near_field": (8, 6)}
# what a detector stands on is baseline, never part of an event
KINDS = dict.fromkeys(("mainx", "ffy", "ffz", "nfx", "nfy", "nfz", "far_field_camera_objective"), Kind.omitted)


def plain(keys):
    """Return data keys without what may differ between control systems: source and storage type."""
    return {
        name: {part: value for part, value in key.items() if part not in ("source", "dtype_numpy", "object_name")}
        for name, key in keys.items()
    }
