"""Many motor records and many numbers, or half of them: ``python many_ioc.py PORT STEP``.

With a STEP of 2 every other one is missing. Of the motors m0 allows less than -5 .. 5, m2 counts in mm, m4 has another
speed than 10, m6 no limits.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "devices"))
from fake_backend import FakeBackend
from many_devices import AXES, CHANNELS, microscope

from simulators.epics import build

ODD = {"a0": {"limits": [-3.0, 3.0]}, "a2": {"units": "mm"}, "a4": {"velocity": 2.0}, "a6": {"limits": None}}


def main(port, step):
    config = microscope(AXES[::step], CHANNELS[::step], ODD)
    backend = FakeBackend(dict.fromkeys(AXES, 0.0))
    backend.channels |= {name: float(name[1:]) for name in CHANNELS}
    build(config, backend).run("127.0.0.1", port, lambda: print("ready", flush=True))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
