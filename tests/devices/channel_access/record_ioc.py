"""A server of motor records which keeps to the order of a real one, and which can be told what is to go wrong.

``python record_ioc.py PORT PREFIX``; it prints "ready". Motors are PREFIXm1 .. PREFIXm7: m2 and m3 arrive at once, m4
has no limits. In a move the record says, in this order: DMOV 0, VAL, DVAL, MOVN 1, RBV several times, MOVN 0, DMOV 1,
and only then acknowledges the put. The variable PREFIXm1:fault names what goes wrong in the next moves.
"""

import asyncio
import logging
import math
import os
import socket
import sys

TICK_S = 0.01
PLUS_SWITCH, SLIP, PROBLEM, NO_CONTROLLER, MINUS_SWITCH = 0x4, 0x40, 0x200, 0x1000, 0x2000
# fault -> bit of MSTA that is set half way
HALF_WAY = {"high": PLUS_SWITCH, "low": MINUS_SWITCH, "problem": PROBLEM, "slip": SLIP, "controller": NO_CONTROLLER}
GO = "Go"


def on_port(port):
    """Serve on one port of loopback only. To be called before caproto is imported."""
    os.environ.update(
        EPICS_CA_SERVER_PORT=str(port),
        EPICS_CAS_SERVER_PORT=str(port),
        EPICS_CAS_INTF_ADDR_LIST="127.0.0.1",
        EPICS_CAS_BEACON_ADDR_LIST="127.0.0.1",
        EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
        EPICS_CA_ADDR_LIST="127.0.0.1",
        EPICS_CA_AUTO_ADDR_LIST="NO",
        CAPROTO_SERVER_HIGH_LOAD_TIMEOUT_SEC="0.0005",
    )
    # a listening socket hands this on to those it accepts: without it an answer waits 40 ms for company
    listen = socket.socket.listen

    def prompt(self, *backlog):
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listen(self, *backlog)

    socket.socket.listen = prompt


def serve(pvdb):
    from caproto.asyncio.server import run

    # nobody listens for its beacons
    logging.getLogger("caproto").setLevel(logging.CRITICAL)

    async def ready(_):
        print("ready", flush=True)

    run(pvdb, interfaces=["127.0.0.1"], startup_hook=ready)


def motors():
    from caproto import AlarmSeverity, AlarmStatus, ChannelType, SkipWrite
    from caproto.server import PVGroup, SubGroup, pvproperty

    class Motor(PVGroup):
        motor = pvproperty(value=0.0, name="", record="motor", precision=5)
        fault = pvproperty(value="none", dtype=ChannelType.STRING, name=":fault")

        def __init__(self, *args, limits=(-10.0, 10.0), velocity=10.0, **kwargs):
            super().__init__(*args, **kwargs)
            self.start = limits, velocity
            self.target = 0.0
            self.idle = asyncio.Event()
            self.idle.set()

        @motor.startup
        async def motor(self, instance, async_lib):
            (low, high), velocity = self.start
            f = instance.field_inst
            await f.user_low_limit.write(low)
            await f.user_high_limit.write(high)
            await f.velocity.write(velocity)
            await f.seconds_to_velocity.write(0.05)
            await f.limit_violation.write(0)
            await f.engineering_units.write("deg")
            await f.stop_pause_move_go.write(GO)

        async def alarm(self, variable, alarmed):
            await variable.alarm.write(
                status=AlarmStatus.COMM if alarmed else AlarmStatus.NO_ALARM,
                severity=AlarmSeverity.INVALID_ALARM if alarmed else AlarmSeverity.NO_ALARM,
            )

        @fault.putter
        async def fault(self, instance, value):
            word = value if isinstance(value, str) else value[0]
            f = self.motor.field_inst
            # all variables of a group share one alarm, which the end of this very put clears
            asyncio.get_running_loop().call_later(
                0.02, lambda: asyncio.ensure_future(self.alarm(f.user_readback_value, word == "invalid"))
            )
            await f.motor_status.write(0)
            await f.user_high_limit_switch.write(0)
            await f.user_low_limit_switch.write(0)

        @motor.putter
        async def motor(self, instance, value):
            f = instance.field_inst
            low, high = f.user_low_limit.value, f.user_high_limit.value
            if self.fault.value == "refuse" or ((low or high) and not low <= value <= high):
                await f.done_moving_to_value.write(0)
                await instance.write(instance.value, verify_value=False)
                await f.limit_violation.write(1)
                await f.done_moving_to_value.write(1)
                raise SkipWrite
            self.target = value
            fault = self.fault.value
            if not self.idle.is_set():
                await instance.write(value, verify_value=False)
            elif fault == "early":
                # as caproto's own motor: acknowledged at once, begun later
                asyncio.get_running_loop().call_later(
                    0.05, lambda: asyncio.ensure_future(self.move(instance, f, fault, value))
                )
                raise SkipWrite
            else:
                await self.move(instance, f, fault, value)
            await self.idle.wait()
            if fault == "silent":
                await asyncio.sleep(3600)
            raise SkipWrite

        async def move(self, instance, f, fault, value):
            self.idle.clear()
            await f.stop.write(0)
            await f.limit_violation.write(0)
            if fault != "coalesced":
                await f.done_moving_to_value.write(0)
            await instance.write(value, verify_value=False)
            await f.dial_desired_value.write(value)
            here = f.user_readback_value.value
            stopped = False
            if value != here:
                await f.motor_is_moving.write(1)
                half = (here + value) / 2
                while not stopped:
                    step = f.velocity.value * TICK_S
                    goal = here if fault == "stall" else half if fault in HALF_WAY else self.target
                    if fault == "short":
                        goal = self.target - math.copysign(0.1, self.target - here)
                    at_goal = abs(goal - here) <= step
                    here = goal if at_goal else here + math.copysign(step, goal - here)
                    await f.user_readback_value.write(here)
                    if at_goal and fault != "stall":
                        break
                    await asyncio.sleep(TICK_S)
                    stopped = bool(f.stop.value) or f.stop_pause_move_go.value != GO
                await asyncio.sleep(0.0005)
                await f.motor_is_moving.write(0)
            if fault in HALF_WAY:
                await f.motor_status.write(HALF_WAY[fault])
                await f.user_high_limit_switch.write(int(fault == "high"))
                await f.user_low_limit_switch.write(int(fault == "low"))
            if stopped:
                await f.stop.write(0)
                await instance.write(here, verify_value=False)
            await f.done_moving_to_value.write(1)
            self.idle.set()

    class Motors(PVGroup):
        m1 = SubGroup(Motor, prefix="m1")
        m2 = SubGroup(Motor, prefix="m2", velocity=1e6)
        m3 = SubGroup(Motor, prefix="m3", velocity=1e6)
        m4 = SubGroup(Motor, prefix="m4", limits=(0.0, 0.0))
        m5 = SubGroup(Motor, prefix="m5")
        m6 = SubGroup(Motor, prefix="m6")
        m7 = SubGroup(Motor, prefix="m7")

    return Motors


if __name__ == "__main__":
    on_port(int(sys.argv[1]))
    serve(motors()(prefix=sys.argv[2]).pvdb)
