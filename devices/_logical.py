"""How a logical device gets its parts: each axis and channel from the control system its configuration names.

A logical device class is written once, with `AxisComponent` and `ChannelComponent`. Their static class is the base that
all control systems share, so walking the class, its kinds and its pickling do not depend on any configuration; the
concrete class is looked up when an instance is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

from ophyd import Component, Device

from devices._axis import Motor
from devices._channel import Channel
from devices._pseudo import PseudoAxis
from dfxrm_control.backend import Backend
from dfxrm_control.config import AxisConfig, ChannelConfig, DeviceConfig, MicroscopeConfig
from dfxrm_control.errors import ConfigError, DeviceError

__all__ = ["AxisComponent", "ChannelComponent", "LogicalDevice", "PseudoComponent", "camera_of"]

CONTROLS = {"memory": "devices._memory", "epics": "devices._epics", "tango": "devices.tango"}
"""Control system -> module that speaks it, imported when a configuration first names it.

Its ``PARTS`` give the concrete class of each static one, its ``CAMERA`` what exposes frames.
"""


def _speaker(control: str) -> ModuleType:
    return import_module(CONTROLS[control])


def camera_of(name: str, config: DeviceConfig, backend: Backend | None) -> Any:
    """Return what exposes the frames of a logical detector.

    Raises
    ------
    ConfigError
        When the configuration has no camera for it, or one without a right address.
    """
    if config.camera is None:
        raise ConfigError(f"devices.{name}: a detector needs a camera; say which control system speaks for it")
    return _speaker(config.camera.control).CAMERA(name=name, config=config.camera, backend=backend)


class AxisComponent(Component):
    """An axis of a logical device, named by its attribute."""

    def __init__(self, cls: type = Motor, **kwargs: Any) -> None:
        super().__init__(cls, **kwargs)

    def create_component(self, instance: Any) -> Any:
        """Return the axis on the control system that the configuration names."""
        config: AxisConfig = instance.axes[self.attr]
        concrete = _speaker(config.control).PARTS[self.cls]
        return concrete(config=config, backend=instance.backend, **instance.child_arguments(self.attr))


class ChannelComponent(Component):
    """A channel of a logical device, named by its attribute."""

    def __init__(self, cls: type = Channel, **kwargs: Any) -> None:
        super().__init__(cls, **kwargs)

    def create_component(self, instance: Any) -> Any:
        """Return the channel on the control system that the configuration names."""
        config: ChannelConfig = instance.channels[self.attr]
        concrete = _speaker(config.control).PARTS[self.cls]
        return concrete(config=config, backend=instance.backend, **instance.child_arguments(self.attr))


class PseudoComponent(Component):
    """An axis that moves other axes; no control system speaks for it, and its configuration is optional."""

    def __init__(self, cls: type[PseudoAxis], **kwargs: Any) -> None:
        super().__init__(cls, **kwargs)

    def create_component(self, instance: Any) -> Any:
        """Return the pseudo axis."""
        return self.cls(config=instance.axes.get(self.attr), **instance.child_arguments(self.attr))


class LogicalDevice(Device):
    """A device of the microscope by its logical name.

    Its axes and channels carry their own logical names as data keys: ``goniometer.chi.name == "chi"``.

    Parameters
    ----------
    name : str
        Logical name.
    config : DeviceConfig
        Its axes, channels and camera.
    microscope : MicroscopeConfig
        The whole configuration.
    backend : Backend, optional
        What stands behind the in-memory parts.
    devices : Mapping[str, LogicalDevice]
        The devices made before this one, whose axes a computed axis may need.

    Raises
    ------
    ConfigError
        When an axis or channel of the class is missing in the configuration, or one there is unknown to the class; also
        for a setting that the class does not have.
    """

    settings_taken: ClassVar[tuple[str, ...]] = ()
    """Names that the class knows under ``settings`` of its configuration."""

    def __init__(
        self,
        name: str,
        config: DeviceConfig,
        microscope: MicroscopeConfig,
        backend: Backend | None = None,
        devices: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.axes = config.axes
        self.channels = config.channels
        self.settings = config.settings
        self.microscope = microscope
        self.backend = backend
        self.devices = dict(devices or {})
        self._check_parts(name)
        super().__init__(name=name, **kwargs)

    def _check_parts(self, name: str) -> None:
        for kind, component, given in (
            ("axes", AxisComponent, self.axes),
            ("channels", ChannelComponent, self.channels),
        ):
            needed = {attr for attr, part in self._sig_attrs.items() if isinstance(part, component)}
            optional = {attr for attr, part in self._sig_attrs.items() if isinstance(part, PseudoComponent)}
            if missing := sorted(needed - set(given)):
                raise ConfigError(f"devices.{name}.{kind}: {type(self).__name__} also needs {', '.join(missing)}")
            if unknown := sorted(set(given) - needed - (optional if kind == "axes" else set())):
                has = ", ".join(sorted(needed)) or "none"
                raise ConfigError(
                    f"devices.{name}.{kind}: {type(self).__name__} has no {', '.join(unknown)}; it has {has}"
                )
        if unknown := sorted(set(self.settings) - set(self.settings_taken)):
            raise ConfigError(
                f"devices.{name}.settings: {type(self).__name__} has no {', '.join(unknown)}; it has "
                f"{', '.join(self.settings_taken) or 'none'}"
            )

    def wait_for_connection(self, all_signals: bool = False, timeout: Any = 10.0) -> None:
        """Wait until every part is connected.

        Raises
        ------
        DeviceError
            When some are not in time, naming them and their addresses.
        """
        try:
            super().wait_for_connection(all_signals=all_signals, timeout=timeout)
        except TimeoutError as error:
            parts = [getattr(self, attr) for attr in self.component_names]
            missing = [getattr(part, "called", part.name) for part in parts if not part.connected]
            raise DeviceError(f"{', '.join(missing) or self.name} did not connect within {timeout:g} s") from error

    def child_arguments(self, attr: str) -> dict[str, Any]:
        """Return what a component of this device is made with: its logical name, kind and parent."""
        return {"name": attr, "attr_name": attr, "kind": self._component_kinds[attr], "parent": self}
