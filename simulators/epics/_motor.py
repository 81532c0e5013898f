"""A motor record in front of an axis of the twin.

It keeps to the order in which a real record tells of a move: DMOV 0, VAL, DVAL, MOVN 1, RBV while it moves, the last
RBV, MOVN 0, DMOV 1, and only then the put is acknowledged. How long a move takes is the twin's affair: the record tells
it velocity and acceleration and waits on its clock.
"""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

from caproto import ChannelAlarm, SkipWrite
from caproto.server import PVGroup, PvpropertyDouble, pvproperty

from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import DeviceError
from simulators.epics._variables import Choice, Twin, set_alarm

__all__ = ["FAULTS", "MotorRecord"]

TICK_S = 0.05
"""Time between two readbacks of a move, s; a real record looks ten times a second."""
SETTLE_S = 0.0005
"""Between the last readback and the end of a move, s."""
LATE_S = 0.05
"""How much later than the acknowledgement a move begins whose record acknowledges at once, s."""
# bits of MSTA (motor record reference, "Motor Status")
DONE, PLUS_SWITCH, SLIP, PROBLEM, NO_CONTROLLER, MINUS_SWITCH = 0x2, 0x4, 0x40, 0x200, 0x1000, 0x2000
HALF_WAY = {"high": PLUS_SWITCH, "low": MINUS_SWITCH, "problem": PROBLEM, "slip": SLIP, "controller": NO_CONTROLLER}
"""What a drill lets go wrong half way, and the bit of MSTA that tells of it."""
FAULTS = ("none", "stall", "short", *HALF_WAY, "refuse", "invalid", "early", "silent", "coalesced")
"""Words of the variable RECORD:fault, by which a drill says what goes wrong from now on."""


class _Target(PvpropertyDouble):
    """VAL: the record itself judges what is put, and a put beyond the limits does not fail."""

    async def verify_value(self, value: Any) -> Any:
        """Hand on what is put."""
        return await self.putter(self, value)


class _Fields(PVGroup):
    """The fields of a motor record; what they do is up to `MotorRecord`."""

    val = pvproperty(value=0.0, name="", record="motor", dtype=_Target)


class MotorRecord:
    """A motor record.

    Parameters
    ----------
    name : str
        Name of the record.
    axis : str
        Name of the axis at the twin.
    config : AxisConfig
        Limits, speed, unit and the rest.
    twin : Twin
        What moves it.
    """

    def __init__(self, name: str, axis: str, config: AxisConfig, twin: Twin) -> None:
        self.axis = axis
        self._config = config
        self._twin = twin
        fields = _Fields(prefix=name)
        self._val = fields.val
        self._f = self._val.field_inst
        self._val.putter = self._put
        self._f.user_readback_value.getter = self._ask
        self._f.stop.putter = self._stop
        self._f.stop_pause_move_go.putter = self._mode_changes
        self._f.user_low_limit.putter = self._low_limit_changes
        self._f.user_high_limit.putter = self._high_limit_changes
        # what is not valid is the readback alone, while the fields of a record share one alarm
        self._f.user_readback_value.alarm = ChannelAlarm()
        self.fault = Choice(value="none", enum_strings=FAULTS)
        self.fault.on_put = self._fault_changes
        self.variables = {**fields.pvdb, f"{name}:fault": self.fault}
        self._idle = asyncio.Event()
        self._idle.set()
        self._interrupt = threading.Event()
        self._stopped = False
        self._lost = False
        self._target = 0.0
        self._moves = 0
        self._move: asyncio.Task[None] | None = None

    @property
    def moving(self) -> bool:
        """Whether a move is under way."""
        return not self._idle.is_set()

    async def start(self) -> None:
        """Give the fields their first values."""
        config, f = self._config, self._f
        position = float(await self._twin.ask(self._twin.backend.position, self.axis))
        await self._val.write_metadata(units=config.units, precision=config.precision)
        await f.user_readback_value.write_metadata(units=config.units, precision=config.precision)
        await f.engineering_units.write(config.units)
        await f.velocity.write(config.velocity)
        await f.max_velocity.write(config.velocity)
        await f.seconds_to_velocity.write(config.acceleration_s)
        await f.bl_velocity.write(config.velocity)
        await f.bl_distance.write(config.backlash)
        await f.motor_step_size.write(10.0**-config.precision)
        low, high = config.limits or (0.0, 0.0)
        await f.user_low_limit.write(low)
        await f.user_high_limit.write(high)
        await f.limit_violation.write(0)
        await f.motor_status.write(DONE)
        await f.stop_pause_move_go.write("Go")
        await self._tell_readback(position)
        await self._tell_target(position)

    async def close(self) -> None:
        """Stop a move that is under way: without its record nobody could."""
        self._halt()
        await self._idle.wait()

    # -- what clients ask -------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Ask the twin where the axis is; one that does not answer makes the readback not valid."""
        moves = self._moves
        try:
            position = float(await self._twin.ask(self._twin.backend.position, self.axis))
        except DeviceError:
            await self._readback_alarm(True)
            return
        await self._readback_alarm(self.fault.value == "invalid")
        if self._lost:
            self._lost = False
            await self._f.motor_status.write(DONE)
        # an answer of before a move is not news after it
        if moves == self._moves and position != self._f.user_readback_value.value:
            await self._tell_readback(position)

    async def _ask(self, _: Any) -> None:
        await self.refresh()

    async def _low_limit_changes(self, _: Any, value: float) -> None:
        await self._limits_change(value, self._f.user_high_limit.value)

    async def _high_limit_changes(self, _: Any, value: float) -> None:
        await self._limits_change(self._f.user_low_limit.value, value)

    async def _limits_change(self, low: float, high: float) -> None:
        for variable in (self._val, self._f.user_readback_value):
            await variable.write_metadata(
                lower_ctrl_limit=low, upper_ctrl_limit=high, lower_disp_limit=low, upper_disp_limit=high
            )
        await self._f.dial_low_limit.write(low)
        await self._f.dial_high_limit.write(high)

    async def _put(self, _: Any, value: float) -> None:
        """Go to a position; returns when the record is done, at whatever position."""
        await self._go(float(value))
        raise SkipWrite

    async def _go(self, target: float) -> None:
        low, high = self._f.user_low_limit.value, self._f.user_high_limit.value
        mode, fault = self._f.stop_pause_move_go.value, self.fault.value
        beyond = fault == "refuse" or not math.isfinite(target) or (low < high and not low <= target <= high)
        if beyond or mode == "Stop" or self._f.set_use_switch.value == "Set":
            await self._refuse(beyond)
            return
        self._target = target
        if self.moving:
            await self._tell_target(target)
            self._interrupt.set()
        elif mode == "Pause":
            await self._tell_target(target)
            return
        else:
            self._begin()
        if fault == "early":
            return
        await self._idle.wait()
        if fault == "silent":
            await asyncio.Event().wait()

    async def _stop(self, _: Any, value: int) -> int:
        if value:
            self._halt()
        return 0

    def _halt(self) -> None:
        """Stop a move that is under way; the target becomes where it stands."""
        if self.moving:
            self._stopped = True
            self._interrupt.set()

    async def _mode_changes(self, _: Any, mode: str) -> str:
        if mode == "Stop":
            self._halt()
        elif mode == "Pause" and self.moving:
            self._interrupt.set()
        elif mode in ("Go", "Move") and self._f.stop_pause_move_go.value == "Pause" and not self.moving:
            # the word is the record's as soon as this returns, before the move looks at it
            self._target = self._val.value
            self._begin()
        return mode

    @property
    def _halted(self) -> bool:
        return bool(self._stopped or self._f.stop_pause_move_go.value == "Pause")

    # -- moving -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._moves += 1
        self._idle.clear()
        self._interrupt.clear()
        self._stopped = False
        self._move = asyncio.get_running_loop().create_task(self._carry_out())

    async def _carry_out(self) -> None:
        f, fault = self._f, self.fault.value
        try:
            if fault == "early":
                await asyncio.sleep(LATE_S)
            if fault != "coalesced":
                await f.done_moving_to_value.write(0)
            if f.limit_violation.value:
                await f.limit_violation.write(0)
            await self._tell_target(self._target)
            begin = f.user_readback_value.value
            if self._target != begin:
                await f.motor_is_moving.write(1)
                try:
                    await self._travel(begin, fault)
                except DeviceError:
                    self._lost = True
                    await f.motor_status.write(DONE | NO_CONTROLLER)
                    await self._readback_alarm(True)
                await f.motor_is_moving.write(0)
            if fault in HALF_WAY:
                await f.motor_status.write(DONE | HALF_WAY[fault])
                await f.user_high_limit_switch.write(int(fault == "high"))
                await f.user_low_limit_switch.write(int(fault == "low"))
            if self._stopped or fault in ("high", "low"):
                await self._tell_target(f.user_readback_value.value)
        finally:
            await f.done_moving_to_value.write(1)
            self._idle.set()

    async def _travel(self, begin: float, fault: str) -> None:
        """Go where the record was told to, and where it is told to meanwhile, until it is there or is stopped."""
        while True:
            target, here = self._target, self._f.user_readback_value.value
            self._interrupt.clear()
            if self._halted:
                return
            if fault == "stall":
                while not self._interrupt.is_set():
                    await asyncio.sleep(TICK_S)
            elif fault == "short" or fault in HALF_WAY:
                await self._leg((begin + target) / 2, self._f.velocity.value)
            else:
                backlash = self._f.bl_distance.value
                if backlash and (target - here) * backlash < 0:
                    await self._leg(target - backlash, self._f.velocity.value)
                    if not self._interrupt.is_set():
                        await self._leg(target, self._f.bl_velocity.value)
                else:
                    await self._leg(target, self._f.velocity.value)
            await asyncio.sleep(SETTLE_S)
            # what is put from here on finds a record that is done: nothing below waits for anything
            if not self._interrupt.is_set():
                return
            await self._tell_readback(float(await self._twin.ask(self._twin.backend.stop, self.axis)))
            if self._halted:
                return

    async def _leg(self, target: float, velocity: float) -> None:
        """Go to one position, telling on the way where the axis is."""
        backend = self._twin.backend
        acceleration_s = self._f.seconds_to_velocity.value

        def go() -> float:
            end_s = backend.start_move(self.axis, target, velocity, acceleration_s)
            backend.wait_until(end_s, self._interrupt.is_set)
            return float(backend.position(self.axis))

        moving = self._twin.ask(go)
        while not (await asyncio.wait({moving}, timeout=TICK_S))[0]:
            await self._tell_readback(float(await self._twin.ask(backend.position, self.axis)))
        await self._tell_readback(moving.result())

    async def _refuse(self, beyond: bool) -> None:
        """Do not go there: the target stays, and the record was never away."""
        f = self._f
        if self.moving:
            await f.limit_violation.write(int(beyond))
            return
        await f.done_moving_to_value.write(0)
        await self._val.write(self._val.value, verify_value=False)
        if beyond:
            await f.limit_violation.write(1)
        await f.done_moving_to_value.write(1)

    async def _tell_target(self, target: float) -> None:
        await self._val.write(target, verify_value=False)
        await self._f.dial_desired_value.write(target)

    async def _tell_readback(self, position: float) -> None:
        await self._f.user_readback_value.write(position)
        await self._f.dial_readback_value.write(position)

    # -- drills -----------------------------------------------------------------------------------------------------

    async def _fault_changes(self, word: str) -> None:
        await self._f.motor_status.write(DONE)
        await self._f.user_high_limit_switch.write(0)
        await self._f.user_low_limit_switch.write(0)
        await self._readback_alarm(word == "invalid")

    async def _readback_alarm(self, alarmed: bool) -> None:
        await set_alarm(self._f.user_readback_value, alarmed)
