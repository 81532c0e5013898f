"""What plans, devices and records agree on about taking frames: the batch, the camera, the shutter, the folder.

These are the words that cross the border between plans and devices. Neither imports the other; both import this module,
which imports neither of them nor any control stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from dfxrm_control.errors import ParameterError

__all__ = [
    "BEAM_LOST",
    "Conditions",
    "FrameBatch",
    "FrameCamera",
    "FrameDestination",
    "Shutter",
    "Status",
    "refuse_asynchronous",
]

BEAM_LOST = "beam_lost"
"""Stream of the frames that are in the record and not in the scan, because the beam was lost while they were taken."""


@dataclass(frozen=True)
class FrameBatch:
    """What a camera is asked for at the start of a line: the next frames, which go to one file.

    Attributes
    ----------
    frames : int
        Frames the line will have. More may come: a point repeated after a pause adds a frame to the same file.
    exposure_s : float
        Exposure time of each frame in seconds.
    trigger : {"internal"}
        What starts each exposure. ``internal``: the camera exposes once per ``trigger()``.
    """

    frames: int
    exposure_s: float
    trigger: Literal["internal"] = "internal"


class Status(Protocol):
    """What a device gives back for something that takes time (`bluesky.protocols.Status`)."""

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        ...

    @property
    def success(self) -> bool:
        """Whether it has ended well."""
        ...

    def add_callback(self, callback: Any) -> None:
        """Call ``callback(status)`` when it ends."""
        ...

    def exception(self, timeout: float | None = 0.0) -> BaseException | None:
        """Return why it failed."""
        ...


@runtime_checkable
class Conditions(Protocol):
    """What must be so while frames are taken: enough ring current, interlocks closed, cooling water running.

    ``trigger`` looks at all of it; ``read`` then gives, under its name, the sentence that says what was not as it
    should be since the last look, and an empty one where all was well. ``<name>_ends`` is 1 where that ends the run.
    """

    @property
    def name(self) -> str:
        """Logical name, also its data key."""
        ...

    @property
    def settle_s(self) -> float:
        """How long all must be well again before a scan goes on, s."""
        ...

    @property
    def patience_s(self) -> float:
        """Longest wait until all is well again, s."""
        ...

    @property
    def waits_at_start(self) -> bool:
        """Whether a run waits, rather than being refused, where something is not as it should be when it is begun."""
        ...

    def trigger(self) -> Status:
        """Look at everything, now."""
        ...

    def read(self) -> Any:
        """Return what the last look found."""
        ...


@runtime_checkable
class Shutter(Protocol):
    """The beam shutter as plans see it.

    A pause closes it: the RunEngine calls ``pause()`` and, before it goes on, ``resume()``, which opens the shutter
    again if it was open.
    """

    @property
    def name(self) -> str:
        """Logical name, also its data key."""
        ...

    def set(self, value: Literal["open", "closed"]) -> Status:
        """Open or close; done when it is known to be so."""
        ...

    def read(self) -> dict[str, Any]:
        """Return the present state under the shutter's name."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the data key."""
        ...

    def pause(self) -> None:
        """Close, and remember whether it was open."""
        ...

    def resume(self) -> None:
        """Open again if the pause closed it."""
        ...


@runtime_checkable
class FrameCamera(Protocol):
    """A camera as plans see it: stage, prepare each line, trigger each frame, complete each line, unstage.

    It announces its frames by StreamResource and StreamDatum documents that it hands out when it is read
    (`bluesky.protocols.WritesStreamAssets`); only the frame of the last trigger is announced.
    """

    @property
    def name(self) -> str:
        """Logical name, also its data key and the name of its NXdetector group."""
        ...

    def stage(self) -> Any:
        """Get ready for a run."""
        ...

    def unstage(self) -> Any:
        """Close what is open and disarm."""
        ...

    def prepare(self, batch: FrameBatch) -> Status:
        """Open the file of the next line.

        A line that is still open is completed first; asked again before the first frame, the open file is kept.
        """
        ...

    def trigger(self) -> Status:
        """Expose one frame; done when it is safely in the file.

        A pause may repeat it while the frame before is still being exposed: that frame is finished first and stays
        unannounced.
        """
        ...

    def kickoff(self) -> Status:
        """Start a batch that needs no trigger per frame; for ``trigger="internal"`` done at once."""
        ...

    def complete(self) -> Status:
        """Close the file of the line; done when it is closed. Doing so twice is no error."""
        ...

    def read(self) -> dict[str, Any]:
        """Return what is read beside the frame."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the data keys; the frame's is external."""
        ...


class FrameDestination(Protocol):
    """Where a camera puts the frame files of the run that is open."""

    def __call__(self, camera: str) -> Path:
        """Return the folder for the files of a camera, by its logical name; it exists.

        Raises
        ------
        RecordError
            When no run is open that could own the frames.
        """
        ...


def refuse_asynchronous(device: Any, called: str) -> None:
    """Refuse a device whose readings are coroutines, as those of ophyd-async are.

    Parameters
    ----------
    device : Any
        What is to be part of a scan.
    called : str
        How the sentence names it, e.g. ``axis 'chi'``.

    Raises
    ------
    ParameterError
        Saying why, and what to do instead. Decision 0016 tells what was measured.
    """
    if any(iscoroutinefunction(getattr(device, verb, None)) for verb in ("read", "describe", "check_value")):
        kind = type(device)
        raise ParameterError(
            f"{called} is an ophyd-async device ({kind.__module__}:{kind.__qualname__}), which our plans refuse: it "
            "takes a motor that stopped short for one that arrived, asks a server that is gone for ever, and no "
            "suspender can watch it; name it in the configuration with control: epics or tango instead"
        )
