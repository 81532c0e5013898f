"""Tango devices for the tests, on one port of loopback: those of `simulators.tango`, and a ring of all kinds of events.

They stand before a fake backend. Run as ``python tango_device_server.py PORT[:PUBLISHED] CLASS::a/b/c ...``, or with
the name of a configuration file for the devices it names. What goes wrong is said by their attribute ``Fault``.
"""

import enum
import math
import os
import sys
import time
from pathlib import Path

from fake_backend import FakeBackend
from tango import AttrQuality, DevFloat, DevState
from tango.server import Device, attribute

from dfxrm_control.config import AxisConfig, CameraControl, ChannelConfig, MicroscopeConfig
from simulators.tango import Part, parts_of, serve


class Lens(enum.IntEnum):
    IN = 0
    OUT = 1


class Ring(Device):
    """Attributes of every type, and a current whose events are of a kind that its name says: pushed, polled or none."""

    def init_device(self):
        super().init_device()
        self.values = {
            "current": 200.0,
            "lens": Lens.IN,
            "attenuator": 1.0,
            "kind": "2x",
            "counts": 7,
            "on": True,
            "gain": 1,
        }
        self.quality = AttrQuality.ATTR_VALID
        self.reads = 0
        self.pushes = True
        self.set_state(DevState.RUNNING)
        if "pushed" in self.get_name():
            self.set_change_event("Current", True, False)
        if "polled" in self.get_name():
            self.poll_attribute("Current", 50)

    @attribute(dtype=float, unit="mA", format="%6.2f")
    def Current(self):  # noqa: N802
        self.reads += 1
        # no client can write NaN over Tango
        value = math.nan if self.values["current"] == -1.0 else self.values["current"]
        return value, time.time(), self.quality

    @Current.write
    def Current(self, value):  # noqa: N802, F811
        self.values["current"] = value
        if "pushed" in self.get_name() and self.pushes:
            self.push_change_event("Current", value)

    @attribute(dtype=bool)
    def Pushes(self):  # noqa: N802
        return self.pushes

    @Pushes.write
    def Pushes(self, value):  # noqa: N802, F811
        self.pushes = value

    @attribute(dtype=int)
    def Reads(self):  # noqa: N802
        return self.reads

    @attribute(dtype=str)
    def Quality(self):  # noqa: N802
        return str(self.quality)

    @Quality.write
    def Quality(self, value):  # noqa: N802, F811
        self.quality = getattr(AttrQuality, value)

    @attribute(dtype=Lens)
    def LensPlace(self):  # noqa: N802
        return self.values["lens"]

    @LensPlace.write
    def LensPlace(self, value):  # noqa: N802, F811
        self.values["lens"] = value

    @attribute(dtype=DevFloat, min_value=0.0, max_value=1.0)
    def Attenuator(self):  # noqa: N802
        return self.values["attenuator"]

    @Attenuator.write
    def Attenuator(self, value):  # noqa: N802, F811
        self.values["attenuator"] = value

    @attribute(dtype=str)
    def Kind(self):  # noqa: N802
        return self.values["kind"]

    @Kind.write
    def Kind(self, value):  # noqa: N802, F811
        self.values["kind"] = value

    @attribute(dtype=float)
    def Stubborn(self):  # noqa: N802
        return 1.0

    @Stubborn.write
    def Stubborn(self, value):  # noqa: N802, F811
        pass

    @attribute(dtype=int)
    def Counts(self):  # noqa: N802
        return self.values["counts"]

    @attribute(dtype=int)
    def Gain(self):  # noqa: N802
        return self.values["gain"]

    @Gain.write
    def Gain(self, value):  # noqa: N802, F811
        self.values["gain"] = value

    @attribute(dtype=bool)
    def On(self):  # noqa: N802
        return self.values["on"]

    @On.write
    def On(self, value):  # noqa: N802, F811
        self.values["on"] = value

    @attribute(dtype=((float,),), max_dim_x=4, max_dim_y=4)
    def Profile(self):  # noqa: N802
        return [[1.0, 2.0, 3.0], [4.0, 5.0, math.pi]]


def part(cls, device):
    if cls == "Motor":
        events = "none" if "quiet" in device else "promised" if "deaf" in device else "sent"
        config = AxisConfig(limits=(-10.0, 10.0), velocity=1000.0, acceleration_s=0.0)
        return Part("Motor", device, device, config, "Position", events=events)
    return Part(cls, device, device, CameraControl() if cls == "LimaCCDs" else ChannelConfig())


def main(port, *served):
    port, _, published = port.partition(":")
    others = []
    if served[0].endswith(".json"):
        config = MicroscopeConfig.model_validate_json(Path(served[0]).read_text())
        parts = parts_of(config)
        axes = {name: axis.start or 0.0 for device in config.devices.values() for name, axis in device.axes.items()}
        backend = FakeBackend(axes, instant=False)
    else:
        items = [item.split("::") for item in served]
        parts = [part(cls, device) for cls, device in items if cls != "Ring"]
        others = [(Ring, device) for cls, device in items if cls == "Ring"]
        backend = FakeBackend({part.name: 0.0 for part in parts if part.kind == "Motor"}, instant=False)
        backend.channels |= {part.name: "closed" for part in parts if part.kind == "Shutter"}
        backend.channels |= {part.name: 200.0 for part in parts if part.kind == "Machine"}
    serve(
        parts,
        backend,
        port=int(port),
        published=int(published) if published else None,
        database=os.environ.get("TANGO_HOST", ""),
        others=others,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
