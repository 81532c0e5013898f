"""What an in-memory axis, channel or camera asks of the thing that stands for the hardware.

The in-memory devices know no physics: they talk to a `Backend`. The physics twin and the replay of recorded scans
implement it; so does anything else that can say where its axes are and what its cameras see. Time belongs to the
backend, so that a simulated night can pass in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Backend", "ChannelValue", "Frame", "FrameRequest"]

ChannelValue = float | int | str


@dataclass(frozen=True)
class FrameRequest:
    """One exposure asked of a camera.

    Attributes
    ----------
    camera : str
        Logical name of the camera, e.g. ``far_field``.
    exposure_s : float
        Exposure time in seconds.
    number : int
        Frame number that keys the noise; two exposures never share one within a backend's life. Negative: the
        backend counts.
    """

    camera: str
    exposure_s: float
    number: int = -1


@dataclass(frozen=True)
class Frame:
    """One exposed frame and what was read with it.

    Attributes
    ----------
    data : ndarray of uint16, shape (rows, columns)
        The image in ADU, as the camera delivers it (flips applied).
    number : int
        The frame number that keyed its noise.
    monitor : float
        Flux monitor counts integrated over the exposure.
    ring_current_ma : float
        Ring current during the exposure, in mA.
    start_s, end_s : float
        Start and end of the exposure on the backend's clock, in seconds.
    """

    data: NDArray
    number: int
    monitor: float
    ring_current_ma: float
    start_s: float
    end_s: float


@runtime_checkable
class Backend(Protocol):
    """The hardware behind the in-memory devices: one state of a microscope, and its clock."""

    def now(self) -> float:
        """Return the time of the backend's clock in seconds."""
        ...

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = ...) -> None:
        """Block until the clock reaches ``time_s`` or ``cancelled()`` is true.

        A real-time clock sleeps; a fast clock jumps and returns at once; a stepped clock waits for a test to step it.
        """
        ...

    def axes(self) -> Mapping[str, float]:
        """Return the present position of every axis by address, in mm or deg."""
        ...

    def position(self, axis: str) -> float:
        """Return the present position of one axis in mm or deg.

        Raises
        ------
        DeviceError
            When the backend has no such axis; the message names those it has.
        """
        ...

    def start_move(self, axis: str, target: float, velocity: float, acceleration_s: float) -> float:
        """Start a move and return the time in seconds, on the backend's clock, at which it will end.

        ``velocity`` is in mm/s or deg/s; zero or infinite velocity moves at once.
        """
        ...

    def stop(self, axis: str) -> float:
        """Stop an axis where it is now and return that position in mm or deg."""
        ...

    def get(self, channel: str) -> ChannelValue:
        """Return the value of a channel (shutter, attenuator, ring current, ...)."""
        ...

    def put(self, channel: str, value: ChannelValue) -> None:
        """Set a channel. Raises DeviceError for an unknown channel, a read-only one or a value it cannot take."""
        ...

    def frame_shape(self, camera: str) -> tuple[int, int]:
        """Return (rows, columns) of the frames the camera delivers."""
        ...

    def expose(self, request: FrameRequest) -> Frame:
        """Expose one frame in the present state, let its exposure time pass on the clock, and return it."""
        ...
