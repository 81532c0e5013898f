"""A user's own device, with more axes and channels than any of ours, and a microscope of nothing else."""

import tempfile
from pathlib import Path

import yaml

from devices import AxisComponent, ChannelComponent, LogicalDevice
from dfxrm_control.config import load_config

AXES = [f"a{number}" for number in range(30)]
CHANNELS = [f"n{number}" for number in range(20)]

Many = type(
    "Many",
    (LogicalDevice,),
    {**{name: AxisComponent() for name in AXES}, **{name: ChannelComponent() for name in CHANNELS}},
)


def settings(axes=AXES, channels=CHANNELS, changes=None):
    """Return the content of a configuration file."""
    away = ("goniometer", "objective", "far_field", "near_field", "arm", "monochromator", "beam")
    axis = {"control": "epics", "units": "deg", "limits": [-5.0, 5.0], "velocity": 10.0}
    channel = {"control": "epics", "units": "mA", "read_only": True}
    many = {
        "device": "many_devices:Many",
        "axes": {name: {**axis, "address": f"T:m{name[1:]}", **(changes or {}).get(name, {})} for name in axes},
        "channels": {name: {**channel, "address": f"T:c{name[1:]}"} for name in channels},
    }
    return {
        "extends": "simulated",
        "name": "many",
        "backend": None,
        "plans": None,
        "dry_run": None,
        "bodies": None,
        "devices": {**dict.fromkeys(away), "many": many},
    }


def microscope(*arguments):
    """Return the configuration."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "many.yml")
        path.write_text(yaml.safe_dump(settings(*arguments)))
        return load_config(path)
