"""Axes that are computed from other axes.

ophyd's `PseudoPositioner` reports success when a real axis failed, and inherits the callback order that loses moves.
This one is done when all its real axes are, fails with the first of them that fails, and stops the others then.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from devices._axis import Axis, Motion
from dfxrm_control.config import AxisConfig
from dfxrm_control.errors import DeviceError, LimitError

__all__ = ["PseudoAxis"]


class PseudoAxis(Axis):
    """An axis whose position is computed from real ones.

    Subclasses give `real_axes`, `forward` and `inverse`, and may give `reach`. Before anything moves, every target is
    checked against the limits of its real axis.
    """

    default = AxisConfig()

    def __init__(self, *, name: str, config: AxisConfig | None = None, **kwargs: Any) -> None:
        self._commanded: dict[str, float] = {}
        super().__init__(name=name, config=config or self.default, **kwargs)

    def real_axes(self) -> Mapping[str, Axis]:
        """Return the real axes by name."""
        raise NotImplementedError

    def forward(self, target: float) -> dict[str, float]:
        """Return the position of each real axis for a position of this one."""
        raise NotImplementedError

    def inverse(self, positions: Mapping[str, float]) -> float:
        """Return the position of this axis for positions of the real ones."""
        raise NotImplementedError

    def reach(self) -> tuple[float, float] | None:
        """Return lowest and highest position that the limits of the real axes allow, or None if there is none."""
        return None

    @property
    def source(self) -> str:
        """The real axes this one is computed from."""
        return f"computed:{','.join(self.real_axes())}"

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest allowed position: the configured ones, else what the real axes can reach."""
        return self._axis_config.limits or self.reach() or (0.0, 0.0)

    def describe(self) -> dict[str, Any]:
        """Return the data keys of readback and set-point."""
        keys = super().describe()
        low, high = self.limits
        if low < high:
            for key in keys.values():
                key["lower_ctrl_limit"], key["upper_ctrl_limit"] = low, high
        return keys

    def readback(self) -> float:
        """Return the position that the real axes' positions amount to."""
        return self.inverse({name: axis.readback() for name, axis in self.real_axes().items()})

    @property
    def setpoint(self) -> float:
        """Where it was asked to be; if real axes were asked to be elsewhere since, what their set-points amount to."""
        asked = {name: axis.setpoint for name, axis in self.real_axes().items()}
        if self._target is not None and asked == self._commanded:
            return self._target
        return self.inverse(asked)

    def read(self) -> dict[str, Any]:
        """Return readback and set-point."""
        reading = super().read()
        reading[f"{self.name}_setpoint"]["value"] = self.setpoint
        return reading

    def expected_duration_s(self, target: float) -> float:
        """Return how long the slowest real axis should take, in seconds."""
        return max(self.real_axes()[name].expected_duration_s(there) for name, there in self.forward(target).items())

    def check_value(self, value: Any) -> None:
        """Refuse a position outside the limits of this axis or of any of its real axes.

        Raises
        ------
        LimitError
            Naming this axis, the real axis, the position asked of it and its limits.
        """
        limits = self._axis_config.limits
        try:
            asked = float(value)
        except (TypeError, ValueError):
            raise LimitError(f"axis {self.name}: {value!r} is no position in {self.egu}") from None
        if limits is not None:
            super().check_value(value)
        for name, target in self.forward(asked).items():
            try:
                self.real_axes()[name].check_value(target)
            except LimitError as error:
                raise LimitError(f"axis {self.name} cannot go to {self.say(asked)}: {error}") from error

    def way(self, target: float | None = None) -> dict[str, tuple[float, float]]:
        """Return between which positions each real axis is on a move from here: they do not move in step."""
        there: dict[str, float] | None = None if target is None else self.forward(target)
        ways: dict[str, tuple[float, float]] = {}
        for name, axis in self.real_axes().items():
            ways |= axis.way(None if there is None else there[name])
        return ways

    def _watch(self, motion: Motion) -> None:
        """Each real axis has its own finite time-out; the join of them needs none."""

    def _begin(self, motion: Motion) -> None:
        targets = self.forward(motion.target)
        self._commanded = dict(targets)
        axes = self.real_axes()
        lock, waiting, failed = threading.Lock(), set(targets), threading.Event()

        def ended(name: str, error: Exception | None) -> None:
            with lock:
                waiting.discard(name)
                left = bool(waiting)
                # the first failure counts: those of the axes that are stopped because of it do not
                if failed.is_set() or self._motion is not motion:
                    return
                if error is not None:
                    failed.set()
            if error is not None:
                self._halt_but(name)
                kind = type(error) if isinstance(error, DeviceError) else DeviceError
                self._conclude(
                    motion, kind(f"axis {self.name} did not reach {self.say(motion.target)} because of {name}: {error}")
                )
            elif not left:
                self._arrived(motion)

        try:
            for name, target in targets.items():
                status = axes[name].set(target)
                status.add_callback(lambda done, name=name: ended(name, done.exception(timeout=0)))
                if failed.is_set() or self._motion is not motion:
                    # it failed, or was stopped, while the others were still being sent off
                    axes[name].stop()
                    return
        except Exception:
            self._halt()
            raise

    def _halt(self) -> None:
        self._halt_but(None)

    def _halt_but(self, failed: str | None) -> None:
        for name, axis in self.real_axes().items():
            if name != failed and axis.moving:
                try:
                    axis.stop()
                except Exception:
                    # one that does not answer must not keep the others from being stopped
                    self.log.exception("axis %s could not be stopped", name)

    def stop(self, *, success: bool = False) -> None:
        """Stop all real axes where they are.

        Parameters
        ----------
        success : bool
            Whether the move that is under way counts as successful (the RunEngine's pause) or as failed.
        """
        motion = self._motion
        if motion is not None:
            # first, so that the stopped real axes cannot make it a failure
            self._target = None
            self._conclude(motion, None if success else self._stopped(motion))
        for axis in self.real_axes().values():
            axis.stop(success=success)
