"""Serves the fake motor records of caproto's own examples: ``python fake_motor_ioc.py PORT PREFIX``.

The port is told to caproto by the environment.
"""

import logging
import sys

from caproto.asyncio.server import run
from caproto.ioc_examples.fake_motor_record import FakeMotorIOC


async def ready(_):
    print("ready", flush=True)


if __name__ == "__main__":
    logging.getLogger("caproto").setLevel(logging.CRITICAL)
    run(FakeMotorIOC(prefix=sys.argv[2]).pvdb, interfaces=["127.0.0.1"], startup_hook=ready)
