"""What a plan is given to work with: the logical devices of a microscope, known by protocol only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from bluesky.protocols import Readable

from dfxrm_control.acquisition import Conditions, FrameCamera, Shutter, refuse_asynchronous
from dfxrm_control.config import InstrumentConfig, MicroscopeConfig, SampleConfig, ScanDefaults
from dfxrm_control.environment import Clock, Furnace
from dfxrm_control.errors import ParameterError
from dfxrm_control.records import written_names

__all__ = ["Axis", "Instrument"]


@runtime_checkable
class Axis(Protocol):
    """A motor or pseudo motor: bluesky's Movable and Readable.

    It reads its readback under its logical name and its set-point under ``<name>_setpoint``. One that has
    ``check_value(position)`` (`bluesky.protocols.Checkable`) is asked for every position before a scan moves anything.
    """

    @property
    def name(self) -> str:
        """Logical name."""
        ...

    def set(self, value: float) -> Any:
        """Start a move; the status ends when the axis has arrived, or fails saying why not."""
        ...

    def read(self) -> Any:
        """Return readback and set-point."""
        ...

    def describe(self) -> Any:
        """Return the data keys."""
        ...


@dataclass(frozen=True)
class Instrument:
    """The devices of one microscope by logical name, and what is known about it and its sample.

    Attributes
    ----------
    name : str
        Name of the configuration.
    axes : mapping of str to Axis
        Motors and pseudo motors.
    cameras : mapping of str to FrameCamera
        Cameras.
    channels : mapping of str to Readable
        Everything else that can be read: shutter, attenuator, lens in or out, ...; recorded at both ends of a run.
    shutter : Shutter
        The shutter that scans open and darks close.
    per_event : mapping of str to Readable
        Read with every frame: flux monitor and ring current, and the temperature where there is a furnace.
    config : InstrumentConfig
        The microscope as physics sees it.
    sample : SampleConfig
        The crystal and the reflection.
    defaults : ScanDefaults
        What a scan does where its parameters do not say.
    plans : mapping of str to callable
        Every plan of the microscope by name, bound to it, for the plans that run others.
    clock : Clock or None
        What a plan that waits, waits for.
    furnace : Furnace or None
        The furnace around the sample, where there is one.
    whole : MicroscopeConfig or None
        The whole configuration: limits, speeds, where the data of the sample go.
    conditions : Conditions or None
        What must be so while frames are taken; None where nothing is asked for.
    """

    name: str
    axes: Mapping[str, Axis]
    cameras: Mapping[str, FrameCamera]
    shutter: Shutter
    config: InstrumentConfig
    sample: SampleConfig
    channels: Mapping[str, Readable] = field(default_factory=dict)
    per_event: Mapping[str, Readable] = field(default_factory=dict)
    defaults: ScanDefaults = ScanDefaults()
    plans: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    clock: Clock | None = None
    furnace: Furnace | None = None
    whole: MicroscopeConfig | None = None
    conditions: Conditions | None = None

    @classmethod
    def from_config(
        cls,
        config: MicroscopeConfig,
        *,
        axes: Mapping[str, Axis],
        cameras: Mapping[str, FrameCamera],
        channels: Mapping[str, Any],
        plans: Mapping[str, Callable[..., Any]] | None = None,
        clock: Clock | None = None,
        furnace: Furnace | None = None,
        conditions: Conditions | None = None,
        per_event: tuple[str, ...] = ("monitor", "ring_current"),
        shutter: str = "shutter",
    ) -> Instrument:
        """Return the instrument of a configuration, given its connected devices.

        Parameters
        ----------
        config : MicroscopeConfig
            The configuration the devices were made from.
        axes, cameras, channels : mapping
            Devices by logical name.
        plans : mapping, optional
            Bound plans by name; it is kept as it is, so that it may be filled later.
        clock : Clock, optional
            The microscope's clock.
        furnace : Furnace, optional
            The furnace around the sample.
        conditions : Conditions, optional
            What must be so while frames are taken.
        per_event : tuple of str
            Channels that are read with every frame instead of at both ends of a run.
        shutter : str
            The channel that is the shutter.

        Raises
        ------
        ParameterError
            When there is no shutter.
        """
        if shutter not in channels:
            raise ParameterError(f"channel {shutter!r} is missing; scans need a shutter to open and close")
        return cls(
            name=config.name,
            axes=dict(axes),
            cameras=dict(cameras),
            shutter=channels[shutter],
            config=config.instrument,
            sample=config.sample,
            channels={name: channel for name, channel in channels.items() if name not in per_event},
            per_event={
                **{name: channels[name] for name in per_event if name in channels},
                **({furnace.temperature.name: furnace.temperature} if furnace is not None else {}),
            },
            defaults=config.scan,
            plans=plans if plans is not None else {},
            clock=clock,
            furnace=furnace,
            whole=config,
            conditions=conditions,
        )

    def axis(self, name: str) -> Axis:
        """Return an axis by logical name.

        Raises
        ------
        ParameterError
            When there is none of that name (the message lists those that exist), or it is an ophyd-async device.
        """
        axis: Axis = _named(self.axes, name, "axis", self.name)
        refuse_asynchronous(axis, f"axis {name!r}")
        return axis

    def camera(self, name: str) -> FrameCamera:
        """Return a camera by logical name.

        Raises
        ------
        ParameterError
            When there is none of that name; the message lists those that exist.
        """
        return _named(self.cameras, name, "camera", self.name)

    def written(self, axis: str) -> str:
        """Return the name a scanned axis has in titles and positioner groups."""
        return written_names(self.config.motor_names, [axis]).get(axis, axis)


def _named(things: Mapping[str, Any], name: str, kind: str, where: str) -> Any:
    try:
        return things[name]
    except KeyError:
        known = ", ".join(sorted(things)) or "none"
        raise ParameterError(f"{kind} {name!r} is not in configuration {where!r}; it has {known}") from None
