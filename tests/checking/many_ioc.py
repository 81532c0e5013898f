"""Many motor records and many numbers, or half of them: ``python many_ioc.py PORT PREFIX MOTORS CHANNELS STEP``.

Motors are PREFIXm0, PREFIXm1, ... and numbers PREFIXc0, ...; with a STEP of 2 every other one is missing. Of the motors
m0 allows less than -5 .. 5, m2 counts in steps, m4 has another speed than 10, m6 no limits, m8 is on a limit switch.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "devices" / "channel_access"))
from record_ioc import MINUS_SWITCH, motors, on_port, serve


def many(motor_count, channel_count, step):
    from caproto.server import PVGroup, SubGroup, pvproperty

    motor = motors().m1.group_cls
    parts = {}
    for number in range(0, motor_count, step):
        limits = {0: (-3.0, 3.0), 6: (0.0, 0.0)}.get(number, (-5.0, 5.0))
        parts[f"m{number}"] = SubGroup(motor, prefix=f"m{number}", limits=limits, velocity=2.0 if number == 4 else 10.0)
    for number in range(0, channel_count, step):
        parts[f"c{number}"] = pvproperty(value=float(number), name=f"c{number}", units="mA", read_only=True)

    async def odd(self, instance, async_lib):
        await async_lib.library.sleep(0.3)
        await self.m2.motor.field_inst.engineering_units.write("steps")
        await self.m8.motor.field_inst.user_low_limit_switch.write(1)
        await self.m8.motor.field_inst.motor_status.write(MINUS_SWITCH)
        print("set up", flush=True)

    trigger = pvproperty(value=0, name="trigger")
    parts["trigger"] = trigger.startup(odd)
    return type("Many", (PVGroup,), parts)


if __name__ == "__main__":
    on_port(int(sys.argv[1]))
    serve(many(*map(int, sys.argv[3:]))(prefix=sys.argv[2]).pvdb)
