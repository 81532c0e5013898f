"""The EPICS server of this distribution in front of a stand-in for hardware: ``python served_ioc.py PORT PREFIX``.

Motors are PREFIXm1 .. PREFIXm7, which take real time; m2 and m3 arrive at once, m4 has no limits. The camera is at
PREFIX, and its frames carry their number.
"""

import sys

from fake_backend import axis, backend_for, configuration

from simulators.epics import build

NAMES = ("omega", "chi", "phi", "samx", "samy", "samz", "mu")
SLOW = {"velocity": 10.0, "acceleration_s": 0.05}
FAST = {"velocity": 1e6, "acceleration_s": 0.0}


def main(port, prefix):
    axes = {
        name: axis(control="epics", address=f"{prefix}m{number}", **(FAST if number in (2, 3) else SLOW))
        for number, name in enumerate(NAMES, 1)
    }
    axes[NAMES[3]]["limits"] = None
    config = configuration(goniometer__axes=axes, far_field__camera={"control": "epics", "address": prefix})
    server = build(config, backend_for(configuration(), instant=False))
    server.run("127.0.0.1", port, lambda: print("ready", flush=True))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
