"""Moving the whole microscope to another grain in an order in which nothing meets anything.

The sample goes down first, then the arm moves, then the goniometer, and the sample comes back last. The arm is moved as
``two_theta``, so that what an alignment has declared is kept; how far the lens stands from its focus by the lens
equation is kept too.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import Any

from bluesky.utils import Msg

from dfxrm_control.errors import PhysicsError
from dfxrm_control.microscope import Microscope
from plans._flat import MsgGenerator
from plans._instrument import Instrument
from plans._mesh import position_of
from plans._series import check_reach

__all__ = ["Route"]

GONIOMETER = ("mu", "omega", "chi", "phi")
SAMPLE = ("samx", "samy", "samz")
ARM = ("mainx", "obx", "obz", "obpitch", "ffz")
DOWN = "samz"
STILL_MM = 1e-3
"""A distance of camera or lens that would change by less is left alone."""


class Route:
    """Ways between settings of the whole microscope.

    Parameters
    ----------
    instrument : Instrument
        The devices.
    retract_mm : float
        How far below its place the sample waits.
    energy_kev : float
        Energy, for the focus.
    objective : str or None
        Name of the objective in the beam; None: the first configured.

    Attributes
    ----------
    starts : dict
        Where the axes stood when the plan began (`begin`).
    """

    def __init__(self, instrument: Instrument, retract_mm: float, energy_kev: float, objective: str | None) -> None:
        self._instrument = instrument
        self._retract_mm = retract_mm
        self._energy_kev = energy_kev
        self._objective = objective
        self._microscope = Microscope(instrument.config)
        self._off_focus_mm = 0.0
        self.starts: dict[str, float] = {}

    def begin(self) -> MsgGenerator:
        """Note where everything stands."""
        for name in (*GONIOMETER, *SAMPLE, *ARM, "two_theta"):
            self.starts[name] = yield from position_of(self._instrument.axis(name))
        at = self.starts
        focus = self._focus_mm(at["two_theta"], at["mainx"])
        self._off_focus_mm = 0.0 if focus is None else math.hypot(at["obx"], at["obz"]) - focus

    def check(self, setting: Mapping[str, float], reach_mm: float, what: str) -> None:
        """Ask every axis for its place at a setting, and the sample for where it waits and for the heights it scans.

        Raises
        ------
        LimitError
            When one cannot go there; ``what`` begins the sentence.
        """
        for name in (*GONIOMETER, *SAMPLE, *ARM):
            check_reach(self._instrument, name, [setting[name]], what)
        heights = [setting[DOWN] + way for way in (-self._retract_mm, -reach_mm, reach_mm)]
        check_reach(self._instrument, DOWN, heights, what)

    def go(self, setting: Mapping[str, float]) -> MsgGenerator:
        """Go to a setting: mu, omega, chi, phi, two_theta, mainx, samx, samy, samz."""
        yield from self._move({DOWN: setting[DOWN] - self._retract_mm} if self._retract_mm else {})
        mainx = yield from position_of(self._instrument.axis("mainx"))
        if abs(mainx - setting["mainx"]) > STILL_MM:
            yield from self._move({"mainx": setting["mainx"]})
        yield from self._move({"two_theta": setting["two_theta"]})
        yield from self._refocus(setting["two_theta"], setting["mainx"])
        yield from self._move({name: setting[name] for name in GONIOMETER})
        yield from self._move({name: setting[name] for name in SAMPLE})

    def back(self) -> MsgGenerator:
        """Go back to where everything stood, in the same order."""
        at = self.starts
        yield from self._move({DOWN: at[DOWN] - self._retract_mm} if self._retract_mm else {})
        yield from self._move({name: at[name] for name in ARM})
        yield from self._move({name: at[name] for name in GONIOMETER})
        yield from self._move({name: at[name] for name in SAMPLE})

    def _focus_mm(self, two_theta_deg: float, mainx_mm: float) -> float | None:
        """Return the distance of the lens' centre from the sample at which the image is sharp."""
        try:
            arm = self._microscope.focused_arm(two_theta_deg, mainx_mm, self._objective, self._energy_kev)
        except PhysicsError:
            return None
        return math.hypot(arm.obx, arm.obz)

    def _refocus(self, two_theta_deg: float, mainx_mm: float) -> Generator[Msg, Any, None]:
        """Move the lens along the beam, since with 2theta the distance of the camera has changed."""
        focus = self._focus_mm(two_theta_deg, mainx_mm)
        if focus is None:
            return
        obx = yield from position_of(self._instrument.axis("obx"))
        obz = yield from position_of(self._instrument.axis("obz"))
        further = focus + self._off_focus_mm - math.hypot(obx, obz)
        if abs(further) > STILL_MM:
            angle = math.radians(two_theta_deg)
            yield from self._move({"obx": obx + further * math.cos(angle), "obz": obz + further * math.sin(angle)})

    def _move(self, place: Mapping[str, float]) -> MsgGenerator:
        if not place:
            return
        yield Msg("checkpoint")
        for name, position in place.items():
            yield Msg("set", self._instrument.axis(name), round(position, 9), group="route")
        yield Msg("wait", None, group="route")
