"""Building the devices of a configuration, and going on without the ones that fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ophyd import Kind

from dfxrm_control.acquisition import refuse_asynchronous
from dfxrm_control.backend import Backend
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import DfxrmError, ParameterError
from dfxrm_control.import_strings import make_backend, resolve
from dfxrm_control.session._controls import find_control_systems

__all__ = ["DeviceFault", "Devices", "build_backend", "build_devices", "make_instrument"]

PER_RUN = ("shutter",)
"""Channels without which no plan runs."""
FURNACE = "furnace"
"""Logical name of the furnace, which plans are given as a whole."""


@dataclass(frozen=True)
class DeviceFault:
    """A device that could not be made, why, and what does not work without it.

    Attributes
    ----------
    device : str
        Logical name.
    reason : str
        One sentence.
    lost : tuple of str
        Logical names of its axes, channels and camera.
    plans : tuple of str
        Plans that will not work.
    """

    device: str
    reason: str
    lost: tuple[str, ...]
    plans: tuple[str, ...]

    def __str__(self) -> str:
        *most, last = self.plans or ("",)
        listed = f"{', '.join(most)} and {last}" if most else last
        will = f"{listed} will not work" if self.plans else "no plan needs it"
        return f"device {self.device} ({', '.join(self.lost)}) is not available: {self.reason}; {will}"


@dataclass
class Devices:
    """The devices of a session by what they are.

    Attributes
    ----------
    devices : dict
        Logical device by name: goniometer, objective, far_field, ...
    axes : dict
        Motor or pseudo motor by logical name.
    channels : dict
        Signal that is no motor by logical name.
    cameras : dict
        Camera by logical name.
    faults : list of DeviceFault
        What could not be made.
    clock : Any
        What waiting plans wait for.
    conditions : Any
        What must be so while frames are taken; None where the configuration asks for nothing.
    """

    devices: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    channels: dict[str, Any] = field(default_factory=dict)
    cameras: dict[str, Any] = field(default_factory=dict)
    faults: list[DeviceFault] = field(default_factory=list)
    clock: Any = None
    conditions: Any = None


def build_backend(config: MicroscopeConfig) -> Backend | None:
    """Return what stands behind the in-memory axes; None where the configuration has none.

    Raises
    ------
    ConfigError
        When the import string names nothing, or the options are not those it takes.
    """
    if config.backend is None:
        return None
    return make_backend(config, config.backend, "backend")


def build_devices(config: MicroscopeConfig, backend: Backend | None, timeout_s: float = 10.0) -> Devices:
    """Make and connect every device of a configuration.

    A device that fails is left out, with its reason and the plans that need it.

    Parameters
    ----------
    config : MicroscopeConfig
        What to build.
    backend : Backend or None
        What the in-memory axes talk to.
    timeout_s : float
        Longest wait for a device to connect, s.

    Raises
    ------
    ConfigError
        When its control systems cannot be looked for where the configuration says.
    """
    find_control_systems(config)
    built = Devices()
    built.clock = resolve(config.session.clock, f"configuration {config.name}: session.clock")(backend)
    for name, parts in config.devices.items():
        try:
            factory = resolve(parts.device, f"configuration {config.name}: devices.{name}.device")
            device = factory(name, config=parts, microscope=config, backend=backend, devices=built.devices)
            refuse_asynchronous(device, f"device {name}")
            for part in (*parts.axes, *parts.channels):
                refuse_asynchronous(getattr(device, part, None), f"{part} of device {name}")
            device.wait_for_connection(timeout=timeout_s)
        except Exception as error:  # whatever a control system raises: the session goes on without this device
            reason = str(error) if isinstance(error, DfxrmError) else f"{type(error).__name__}: {error}"
            lost = (*parts.axes, *parts.channels, *((name,) if parts.camera is not None else ()))
            built.faults.append(DeviceFault(name, reason, lost, _plans_without(config, lost)))
            continue
        built.devices[name] = device
        for part in device.component_names:
            component = getattr(device, part)
            if _is_axis(component):
                built.axes[part] = component
            elif part in parts.channels or component.kind & Kind.normal:
                built.channels[part] = component
        if parts.camera is not None:
            built.cameras[name] = device
    _set_guard(config, built)
    if config.protection.conditions:
        make = resolve(config.session.conditions, f"configuration {config.name}: session.conditions")
        built.conditions = make(config.protection, built.channels)
    return built


def _set_guard(config: MicroscopeConfig, built: Devices) -> None:
    """Let each motor and channel that carries a body be asked for before it moves."""
    if not config.bodies:
        return
    from dfxrm_control.envelopes import Envelopes, Guard

    envelopes = Envelopes.from_config(config)
    guard = Guard(envelopes, built.axes, built.channels)
    for name, axis in built.axes.items():
        carried = axis.real_axes() if hasattr(axis, "real_axes") else (name,)
        if envelopes.axes & set(carried):
            axis.guard = guard
    for name in envelopes.channels & set(built.channels):
        built.channels[name].guard = guard


def make_instrument(config: MicroscopeConfig, built: Devices, plans: Mapping[str, Callable[..., Any]]) -> Any:
    """Return what plans are given; None when a fault, which names the plans that will not work, left too little.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope.
    built : Devices
        Its devices.
    plans : mapping
        Bound plan by name, for the plans that run others; it may be filled later.

    Raises
    ------
    ParameterError
        When the configuration itself lacks what every plan needs.
    """
    make = resolve(config.session.instrument, f"configuration {config.name}: session.instrument")
    try:
        return make.from_config(
            config,
            axes=built.axes,
            cameras=built.cameras,
            channels=built.channels,
            plans=plans,
            clock=built.clock,
            furnace=built.devices.get(FURNACE),
            conditions=built.conditions,
        )
    except ParameterError:
        if built.faults:
            return None
        raise


def _plans_without(config: MicroscopeConfig, lost: tuple[str, ...]) -> tuple[str, ...]:
    """Return the plans that need one of the names that are lost, as the configuration has them by default."""
    needed = {config.scan.rock, config.scan.camera, *PER_RUN}
    hit = [plan for plan in config.plans if needed & set(lost)]
    if config.scan.roll in lost:
        hit += [plan for plan in config.plans if plan not in hit and _takes(plan, "roll")]
    return tuple(hit)


def _takes(plan: str, parameter: str) -> bool:
    from dfxrm_control.parameters import PLAN_PARAMETERS

    model = PLAN_PARAMETERS.get(plan)
    return model is not None and parameter in model.model_fields


def _is_axis(component: Any) -> bool:
    """Whether a component is a motor or pseudo motor rather than a signal; devices are known by what they can do."""
    # of the class, since an instance would be asked where it is
    return all(hasattr(type(component), part) for part in ("set", "position", "egu"))
