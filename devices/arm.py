"""The arm: objective and far-field camera follow the scattering angle together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ophyd import Component as Cpt
from ophyd import Signal

from devices._axis import Axis
from devices._logical import LogicalDevice, PseudoComponent
from devices._pseudo import PseudoAxis
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import ConfigError
from dfxrm_control.geometry import arm_positions, arm_two_theta_deg

__all__ = ["Arm", "TwoTheta"]

MOVED_UNITS = {"obx": "mm", "obz": "mm", "obpitch": "deg", "ffz": "mm"}
MOVED = tuple(MOVED_UNITS)
BESIDE_UNITS = {"oby": "mm", "obyaw": "deg", "ffy": "mm"}
"""Axes of objective and camera that the arm does not move; on an ideal arm they stand at 0."""


class TwoTheta(PseudoAxis):
    """Scattering angle in deg, of objective and far-field camera together.

    ``obx = d_c cos 2theta``, ``obz = d_c sin 2theta``, ``obpitch = 2theta``, ``ffz = X tan 2theta`` (`arm_positions`).

    The readback is the direction in which the objective's centre stands, because that decides which scattered rays
    reach the camera; `angles` gives what each part says by itself. Where the parts were aligned away from an ideal arm,
    `declare` keeps how far: from then on they move as that arm does, each beside its ideal place by as much.
    """

    default = AxisConfig(units="deg", tolerance=1e-3, precision=5)

    def __init__(self, **kwargs: Any) -> None:
        self.offsets = dict.fromkeys(MOVED, 0.0)
        self.beside = dict.fromkeys(BESIDE_UNITS, 0.0)
        super().__init__(**kwargs)

    def declare(self, angle: float) -> None:
        """Take the arm as it stands to be at a scattering angle in deg, and keep what each part is off by."""
        ideal = arm_positions(angle, self.parent.centre_distance_mm, self.parent.part("mainx").readback())
        self.offsets = {name: axis.setpoint - getattr(ideal, name) for name, axis in self.real_axes().items()}
        self.beside = {
            name: 0.0 if (axis := self.parent.found(name)) is None else axis.setpoint for name in BESIDE_UNITS
        }
        self._target = None

    def restore(self, offsets: Mapping[str, float]) -> None:
        """Take each part to be off by what was kept from an earlier `declare`; a part that is not named is not off."""
        self.offsets = {name: float(offsets.get(name, 0.0)) for name in MOVED}
        self.beside = {name: float(offsets.get(name, 0.0)) for name in BESIDE_UNITS}
        self._target = None

    def real_axes(self) -> Mapping[str, Axis]:
        """Return obx, obz, obpitch and ffz."""
        return {name: self.parent.part(name) for name in MOVED}

    def forward(self, target: float) -> dict[str, float]:
        """Return where the four axes stand for a scattering angle; the camera keeps its horizontal distance."""
        there = arm_positions(target, self.parent.centre_distance_mm, self.parent.part("mainx").readback())
        return {name: getattr(there, name) + self.offsets[name] for name in MOVED}

    def inverse(self, positions: Mapping[str, float]) -> float:
        """Return the angle of the objective's centre."""
        return arm_two_theta_deg(positions["obx"] - self.offsets["obx"], positions["obz"] - self.offsets["obz"])

    def angles(self) -> dict[str, float]:
        """Return the scattering angle by the objective's centre, its pitch and the camera's height, in deg."""
        at = {name: axis.readback() for name, axis in self.real_axes().items()}
        return {
            "objective": self.inverse(at),
            "obpitch": at["obpitch"] - self.offsets["obpitch"],
            "camera": arm_two_theta_deg(self.parent.part("mainx").readback(), at["ffz"] - self.offsets["ffz"]),
        }

    def reach(self) -> tuple[float, float] | None:
        """Return lowest and highest angle that the limits of all four axes allow."""
        limits = {name: axis.limits for name, axis in self.real_axes().items()}
        if any(low >= high for low, high in limits.values()):
            return None
        limits = {name: (low - self.offsets[name], high - self.offsets[name]) for name, (low, high) in limits.items()}
        radius, horizontal = self.parent.centre_distance_mm, abs(self.parent.part("mainx").readback())

        def asin(height: float) -> float:
            return math.degrees(math.asin(min(max(height / radius, -1.0), 1.0)))

        # obx is cos 2theta: its lower limit bounds the angle on both sides, its upper limit leaves a hole around zero
        widest = math.degrees(math.acos(min(max(limits["obx"][0] / radius, -1.0), 1.0)))
        hole = math.degrees(math.acos(min(limits["obx"][1] / radius, 1.0)))
        low = max(
            -widest,
            hole if hole > 0 else -widest,
            asin(limits["obz"][0]),
            limits["obpitch"][0],
            arm_two_theta_deg(horizontal, limits["ffz"][0]),
        )
        high = min(
            widest, asin(limits["obz"][1]), limits["obpitch"][1], arm_two_theta_deg(horizontal, limits["ffz"][1])
        )
        return (low, high) if low < high else None


class Disagreement(Signal):
    """By how much objective, its pitch and the camera differ in the scattering angle they stand at, deg."""

    def get(self, **kwargs: Any) -> float:
        """Return largest minus smallest of the three angles, deg."""
        angles = self.parent.two_theta.angles().values()
        return max(angles) - min(angles)

    def read(self) -> dict[str, Any]:
        """Return the disagreement."""
        return {self.name: {"value": self.get(), "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        """Return the data key."""
        key = {"dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": "deg", "precision": 5}
        return {self.name: {"source": self.parent.two_theta.source, **key}}


class ArmZero(Signal):
    """The scattering angle that the arm was last declared to be at, deg; setting it declares the arm as it stands.

    It reads that angle (0 where none was declared), and how far each part then stood from its ideal place, those that
    the arm does not move included. All that works out what a camera sees takes that off the readings.

    What was declared is a property of the microscope, not of a process: `keep`, where it is set, is called with the
    angle and the offset of each part, in mm or deg, and `restore` takes them back.
    """

    keep: Callable[[float, dict[str, float]], None] | None = None

    @property
    def offsets(self) -> dict[str, float]:
        """What each part is off by, mm or deg, by logical name."""
        return {**self.parent.two_theta.offsets, **self.parent.two_theta.beside}

    def put(self, value: float, **kwargs: Any) -> None:
        """Take the arm as it stands to be at an angle."""
        self.parent.two_theta.declare(float(value))
        super().put(float(value), **kwargs)
        if self.keep is not None:
            self.keep(float(value), self.offsets)

    def restore(self, value: float, offsets: Mapping[str, float]) -> None:
        """Take back what was declared earlier, wherever the arm stands now; 0 and no offsets make it ideal again."""
        self.parent.two_theta.restore(offsets)
        super().put(float(value))

    def read(self) -> dict[str, Any]:
        """Return the angle and the offset of each part."""
        now = time.time()
        offsets = {f"{self.name}_{part}": offset for part, offset in self.offsets.items()}
        return {key: {"value": value, "timestamp": now} for key, value in {self.name: self.get(), **offsets}.items()}

    def describe(self) -> dict[str, Any]:
        """Return the data keys."""
        key = {"dtype": "number", "dtype_numpy": "<f8", "shape": [], "precision": 5}
        source = self.parent.two_theta.source
        units = {f"{self.name}_{part}": unit for part, unit in (MOVED_UNITS | BESIDE_UNITS).items()}
        return {name: {"source": source, "units": unit, **key} for name, unit in ({self.name: "deg"} | units).items()}


class Arm(LogicalDevice):
    """The axis ``two_theta`` over the axes of objective and far-field camera.

    Parameters as for `LogicalDevice`; ``devices`` must hold those that own obx, obz, obpitch, ffz and mainx.

    Raises
    ------
    ConfigError
        When one of these axes is in no device.
    """

    two_theta = PseudoComponent(TwoTheta, doc="scattering angle, deg")
    two_theta_disagreement = Cpt(Disagreement, doc="spread of the angles that the parts of the arm stand at, deg")

    two_theta_zero = Cpt(ArmZero, value=0.0, doc="angle the arm was declared to be at, and what its parts are off by")

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(name, *args, **kwargs)
        self.two_theta_disagreement.name = "two_theta_disagreement"
        self.two_theta_zero.name = "two_theta_zero"
        for axis in (*MOVED, "mainx"):
            self.part(axis)

    def found(self, axis: str) -> Axis | None:
        """Return a real axis of objective or camera by logical name; None where there is none."""
        for device in self.devices.values():
            if axis in getattr(device, "axes", {}):
                found: Axis = getattr(device, axis)
                return found
        return None

    def part(self, axis: str) -> Axis:
        """Return a real axis of the arm by logical name."""
        found = self.found(axis)
        if found is not None:
            return found
        raise ConfigError(
            f"devices.{self.name}: two_theta needs the axis {axis}, which no device made before has; "
            f"name objective and detector before it"
        )

    @property
    def centre_distance_mm(self) -> float:
        """d_c, sample to the centre of the objective that is chosen, mm."""
        objectives = self.microscope.instrument.objectives
        chosen = next(
            (device.objective_kind.get() for device in self.devices.values() if hasattr(device, "objective_kind")), None
        )
        return objectives[chosen if chosen in objectives else next(iter(objectives))].distance_mm
