"""A small stand-in for hardware, with an instant or a real clock, and a configuration of every logical device."""

import threading
import time

import numpy as np

from dfxrm_control.backend import Frame
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import DeviceError

SHAPE = (8, 6)


class FakeBackend:
    """Axes that move in a straight line, channels that take anything, cameras whose frames carry their number."""

    def __init__(self, positions, *, instant=True):
        self.instant = instant
        self.time_s = 0.0
        self.moves = {name: (value, value, 0.0, 0.0) for name, value in positions.items()}
        self.channels = {
            "shutter": "closed",
            "condenser": "line",
            "attenuator": 1.0,
            "ring_current": 200.0,
            "monitor": 0.0,
            "mono": "in",
            "objective_in": "in",
            "objective_kind": "crl",
            "far_field_camera_objective": "10x",
        }
        self.frames = 0
        self.log = []
        self.exposing = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        self.lock = threading.Lock()

    def now(self):
        return self.time_s if self.instant else time.monotonic()

    def wait_until(self, time_s, cancelled=lambda: False):
        if self.instant:
            with self.lock:
                self.time_s = max(self.time_s, time_s)
            return
        while not cancelled() and (left := time_s - time.monotonic()) > 0:
            time.sleep(min(left, 0.005))

    def axes(self):
        return {name: self.position(name) for name in self.moves}

    def position(self, axis):
        if axis not in self.moves:
            raise DeviceError(f"there is no axis {axis!r}; there are {', '.join(self.moves)}")
        origin, target, begin, end = self.moves[axis]
        now = self.now()
        return target if now >= end else origin + (target - origin) * (now - begin) / (end - begin)

    def start_move(self, axis, target, velocity, acceleration_s):
        here, now = self.position(axis), self.now()
        end = now + abs(target - here) / velocity + acceleration_s
        self.moves[axis] = (here, target, now, end)
        self.log.append((axis, target, velocity))
        return end

    def stop(self, axis):
        here = self.position(axis)
        self.moves[axis] = (here, here, 0.0, 0.0)
        return here

    def get(self, channel):
        return self.channels[channel]

    def put(self, channel, value):
        self.channels[channel] = value
        self.log.append((channel, value))

    def frame_shape(self, camera):
        return SHAPE

    def expose(self, request):
        begin = self.now()
        self.exposing.set()
        self.hold.wait(20.0)
        self.wait_until(begin + request.exposure_s)
        number = self.frames
        self.frames += 1
        lit = self.channels["shutter"] == "open"
        data = np.full(SHAPE, number + (1000 if lit else 0), dtype=np.uint16)
        return Frame(data, number, 100.0 + number, 200.0 - 0.01 * number, begin, self.now())


def axis(units="deg", low=-10.0, high=10.0, start=0.0, **more):
    return {"units": units, "limits": (low, high), "start": start, "velocity": 1.0, "tolerance": 1e-4, **more}


def configuration(**changes):
    devices = {
        "goniometer": {
            "device": "devices:Goniometer",
            "axes": {
                "mu": axis(low=0.0, high=20.0, start=9.0),
                **{name: axis() for name in ("omega", "chi", "phi")},
                **{name: axis("mm") for name in ("samx", "samy", "samz")},
            },
        },
        "objective": {
            "device": "devices:Objective",
            "axes": {
                "obx": axis("mm", 50.0, 600.0, 263.12),
                "oby": axis("mm", -50.0, 50.0),
                "obz": axis("mm", -5.0, 300.0, 85.37),
                "obpitch": axis("deg", -1.0, 35.0, 17.97),
                "obyaw": axis(),
            },
            "channels": {"objective_in": {"choices": ("in", "out")}, "objective_kind": {"choices": ("crl",)}},
        },
        "far_field": {
            "device": "devices:FarField",
            "axes": {
                "mainx": axis("mm", -6500.0, -3000.0, -5000.0),
                "ffy": axis("mm", -100.0, 100.0),
                "ffz": axis("mm", -40.0, 1960.0, 1621.7),
            },
            "channels": {"far_field_camera_objective": {"choices": ("10x", "2x")}},
            "camera": {"timeout_s": 2.0},
        },
        "near_field": {
            "device": "devices:NearField",
            "axes": {name: axis("mm", -500.0, 500.0) for name in ("nfx", "nfy", "nfz")},
            "camera": {},
        },
        "arm": {"device": "devices:Arm"},
        "furnace": {"device": "devices:Furnace", "axes": {"temperature": axis("degC", 20.0, 500.0, 25.0)}},
        "monochromator": {
            "device": "devices:Monochromator",
            "axes": {"ccmth": axis("deg", 2.0, 20.0, 6.679671, tolerance=2e-5, precision=6)},
            "channels": {"mono": {"choices": ("in", "out")}},
        },
        "beam": {
            "device": "devices:Beam",
            "axes": {name: axis("mm", -10.0, 10.0) for name in ("s8vg", "s8hg", "s8vo", "s8ho", "cdx")},
            "channels": {
                "shutter": {"choices": ("open", "closed")},
                "condenser": {"choices": ("line", "box")},
                "attenuator": {},
                "ring_current": {"read_only": True, "units": "mA"},
                "monitor": {"read_only": True},
            },
        },
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = devices
        for part in parents:
            inner = inner.setdefault(part, {})
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    lens = {"kind": "crl", "lenslets": 69, "radius_mm": 0.05, "pitch_mm": 1.6, "distance_mm": 276.63}
    camera = {"rows": SHAPE[0], "columns": SHAPE[1]}
    return MicroscopeConfig.model_validate(
        {
            "name": "fake",
            "instrument": {
                "beam": {"energy_kev": 17.0},
                "objectives": {"crl": lens},
                "cameras": {"far_field": camera, "near_field": {**camera, "position": "near_field"}},
            },
            "sample": {"name": "al", "lattice": (4.05, 4.05, 4.05, 90.0, 90.0, 90.0), "hkl": (1, 1, 1)},
            "devices": devices,
        }
    )


def backend_for(config, *, instant=True):
    axes = {
        parts.address or name: parts.start or 0.0
        for device in config.devices.values()
        for name, parts in device.axes.items()
    }
    return FakeBackend(axes, instant=instant)


def build(config, backend):
    import devices

    built = {}
    for name, parts in config.devices.items():
        cls = getattr(devices, parts.device.split(":")[1])
        built[name] = cls(name, parts, config, backend, built)
    return built


class Microscope:
    """All logical devices on one fake backend, as attributes."""

    def __init__(self, config, backend):
        self.config = config
        self.backend = backend
        self.devices = build(config, backend)
        vars(self).update(self.devices)
