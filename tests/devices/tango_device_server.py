"""Tango devices for the tests: a motor, a shutter, a ring; run as a program, they answer on one port of loopback.

What a device does with its events, and how it goes wrong, is said by its attributes, so that a test can change it while
a client is connected. Run without a database: ``python tango_device_server.py PORT[:PUBLISHED] CLASS::a/b/c ...``.
"""

import enum
import math
import os
import sys
import threading
import time

import tango
from tango import AttrQuality, DevState
from tango.server import Device, attribute, command, run


class Motor(Device):
    """Goes in a straight line at its speed; without acceleration."""

    def init_device(self):
        super().init_device()
        self.here = self.begin = self.target = 0.0
        self.end_s = 0.0
        self.speed = 1000.0
        self.fault = ""
        self.number = 0
        self.lock = threading.Lock()
        if "quiet" not in self.get_name():
            self.set_change_event("State", True, False)
        self.say(DevState.ON, "at rest")

    def say(self, state, text):
        self.set_state(state)
        self.set_status(text)
        if "quiet" not in self.get_name() and "deaf" not in self.get_name():
            self.push_change_event("State", state)

    def where(self):
        now = time.monotonic()
        if now >= self.end_s or self.end_s == self.begin_s:
            return self.target
        return self.here + (self.target - self.here) * (now - self.begin_s) / (self.end_s - self.begin_s)

    begin_s = 0.0

    @attribute(dtype=float, unit="deg", format="%.5f", min_value=-10.0, max_value=10.0)
    def Position(self):  # noqa: N802
        quality = AttrQuality.ATTR_INVALID if self.fault == "invalid" else AttrQuality.ATTR_VALID
        return self.where(), time.time(), quality

    @Position.write
    def Position(self, target):  # noqa: N802, F811
        if self.get_state() == DevState.MOVING:
            raise RuntimeError("it moves and takes no new target")
        self.here, self.target = self.where(), target - 0.5 if self.fault == "short" else target
        if self.fault == "stall":
            self.target = self.here
        self.begin_s = time.monotonic()
        duration_s = abs(self.target - self.here) / self.speed
        self.end_s = self.begin_s + duration_s
        self.number += 1
        self.say(DevState.MOVING, "on its way")
        threading.Thread(target=self.finish, args=(self.number, duration_s), daemon=True).start()

    def finish(self, number, duration_s):
        with tango.EnsureOmniThread():
            time.sleep(duration_s / 2 if self.fault == "fault" else duration_s)
            with self.lock:
                if number != self.number or self.fault in ("stall", "deadlock"):
                    return
                if self.fault == "fault":
                    self.target, self.end_s = self.where(), 0.0
                    self.say(DevState.FAULT, "following error on encoder 3")
                else:
                    self.say(DevState.ON, "at rest")

    @attribute(dtype=float)
    def Velocity(self):  # noqa: N802
        return self.speed

    @Velocity.write
    def Velocity(self, value):  # noqa: N802, F811
        self.speed = value

    @attribute(dtype=str)
    def Fault(self):  # noqa: N802
        return self.fault

    @Fault.write
    def Fault(self, value):  # noqa: N802, F811
        self.fault = value
        if not value:
            self.say(DevState.ON, "at rest")

    @command(dtype_in=float)
    def Place(self, position):  # noqa: N802
        self.target, self.end_s = position, 0.0

    @command
    def Stop(self):  # noqa: N802
        with self.lock:
            if self.fault == "deadlock":
                return
            self.number += 1
            self.target, self.end_s = self.where(), 0.0
            self.say(DevState.ON, "stopped")


class Shutter(Device):
    """Takes a moment to open and to close."""

    def init_device(self):
        super().init_device()
        self.stuck = ""
        self.set_state(DevState.CLOSE)

    def go(self, state):
        self.set_state(DevState.MOVING)

        def arrive():
            with tango.EnsureOmniThread():
                time.sleep(0.05)
                if not self.stuck:
                    self.set_state(state)
                elif self.stuck != "hangs":
                    self.set_state(DevState.FAULT)
                    self.set_status(self.stuck)

        threading.Thread(target=arrive, daemon=True).start()

    @attribute(dtype=str)
    def Stuck(self):  # noqa: N802
        return self.stuck

    @Stuck.write
    def Stuck(self, value):  # noqa: N802, F811
        self.stuck = value
        if not value:
            self.set_state(DevState.CLOSE)

    @command
    def Open(self):  # noqa: N802
        self.go(DevState.OPEN)

    @command
    def Close(self):  # noqa: N802
        self.go(DevState.CLOSE)


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

    @attribute(dtype=tango.DevFloat, min_value=0.0, max_value=1.0)
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


if __name__ == "__main__":
    port, *served = sys.argv[1:]
    names = {}
    for item in served:
        cls, _, name = item.partition("::")
        names.setdefault(cls, []).append(name)
    port, _, published = port.partition(":")
    arguments = ["tests", "test", "-ORBendPoint", f"giop:tcp:127.0.0.1:{port}"]
    if published:
        arguments += ["-ORBendPointPublish", f"giop:tcp:127.0.0.1:{published}"]
    # with TANGO_HOST the database says which devices there are
    if "TANGO_HOST" not in os.environ:
        devices = ",".join(f"{cls}::{name}" for cls, listed in names.items() for name in listed)
        arguments += ["-nodb", "-dlist", devices]
    run([globals()[cls] for cls in names], args=arguments)
