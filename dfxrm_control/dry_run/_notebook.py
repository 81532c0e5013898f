"""A backend that only notes where everything is, and a configuration that speaks to nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dfxrm_control.backend import ChannelValue, Frame, FrameRequest
from dfxrm_control.config import ChannelConfig, MicroscopeConfig
from dfxrm_control.dry_run._start import StartUnknownError
from dfxrm_control.errors import DeviceError

__all__ = ["Notebook", "offline"]


def offline(config: MicroscopeConfig) -> MicroscopeConfig:
    """Return the configuration with every part in memory, by its logical name, and no body that guards it.

    What follows a plan looks at bodies itself: there, moves begin and end at once.
    """
    devices = {}
    for name, device in config.devices.items():
        axes = {
            axis: part.model_copy(update={"control": "memory", "address": ""}) for axis, part in device.axes.items()
        }
        channels = {
            channel: part.model_copy(update={"control": "memory", "address": ""})
            for channel, part in device.channels.items()
        }
        camera = (
            None if device.camera is None else device.camera.model_copy(update={"control": "memory", "address": ""})
        )
        devices[name] = device.model_copy(update={"axes": axes, "channels": channels, "camera": camera})
    return config.model_copy(update={"devices": devices, "bodies": {}})


class Notebook:
    """A backend that only notes where everything is (`dfxrm_control.backend.Backend`).

    Parameters
    ----------
    config : MicroscopeConfig
        The axes and channels.
    """

    def __init__(self, config: MicroscopeConfig) -> None:
        self._config = config
        self._time_s = 0.0
        self._positions: dict[str, float] = {}
        self._channels = {
            channel: _first_value(config, channel, part)
            for device in config.devices.values()
            for channel, part in device.channels.items()
        }

    def settle(self, positions: Mapping[str, float]) -> None:
        """Note where axes are to begin with, by logical name."""
        self._positions |= positions

    def now(self) -> float:
        """Return the time that would have passed, s."""
        return self._time_s

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Let time pass at once."""
        self._time_s = max(self._time_s, time_s)

    def axes(self) -> Mapping[str, float]:
        """Return the position of every axis for which one is known."""
        return dict(self._positions)

    def position(self, axis: str) -> float:
        """Return the position of one axis; raises StartUnknownError when nobody has told where it starts."""
        try:
            return self._positions[axis]
        except KeyError:
            raise StartUnknownError(
                f"axis {axis!r} has no start position: it is not given (--at {axis}=...), and neither the last journal "
                f"nor configuration {self._config.name!r} has it, so a dry run is not possible"
            ) from None

    def start_move(self, axis: str, target: float, velocity: float, acceleration_s: float) -> float:
        """Note the target as the position; how long it takes is worked out by who follows the plan."""
        self._positions[axis] = target
        return self._time_s

    def stop(self, axis: str) -> float:
        """Return where the axis is."""
        return self.position(axis)

    def get(self, channel: str) -> ChannelValue:
        """Return the value of a channel."""
        return self._channels[channel]

    def put(self, channel: str, value: ChannelValue) -> None:
        """Note the value of a channel."""
        self._channels[channel] = value

    def frame_shape(self, camera: str) -> tuple[int, int]:
        """Return (rows, columns) of the camera's frames."""
        described = self._config.instrument.cameras[camera]
        return described.rows, described.columns

    def expose(self, request: FrameRequest) -> Frame:
        """Refuse: there is nothing to see."""
        raise DeviceError(f"camera {request.camera} takes no frames in a dry run")


def _first_value(config: MicroscopeConfig, channel: str, part: ChannelConfig) -> ChannelValue:
    if channel == "shutter":
        return "closed"
    if channel == "objective_kind":
        return next(iter(config.instrument.objectives))
    if part.choices is not None:
        return part.choices[0]
    return config.instrument.beam.ring_current_ma if channel == "ring_current" else 1.0
