"""A real soft IOC with a shutter, an attenuator and a ring current: ``python soft_ioc.py PORT PREFIX``.

The shutter is set by one record and read from another, which takes 0.1 s and says "Moving" on its way.
"""

import asyncio
import sys

from softioc import asyncio_dispatcher, builder, softioc


def main(prefix):
    builder.SetDeviceName(prefix)
    status = builder.mbbIn("SHUTTER_STATUS", "Is closed", "Moving", "Is open", initial_value=0)
    stuck = builder.boolOut("STUCK", "no", "yes", initial_value=0)

    async def go(value):
        if not stuck.get():
            status.set(1)
            await asyncio.sleep(0.1)
            status.set(2 if value else 0)

    builder.boolOut("SHUTTER", "Close", "Open", on_update=go, initial_value=0)
    builder.boolOut("SIMPLE", "closed", "open", initial_value=0)
    builder.aOut("ATTENUATOR", initial_value=1.0, DRVL=0.0, DRVH=1.0)
    current = builder.aIn("CURRENT", initial_value=200.0, EGU="mA")
    builder.aOut("SET_CURRENT", initial_value=200.0, on_update=current.set, always_update=True)
    builder.LoadDatabase()
    softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher(), enable_pva=False)
    print("ready", flush=True)
    softioc.non_interactive_ioc()


if __name__ == "__main__":
    main(sys.argv[2])
