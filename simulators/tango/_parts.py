"""What is served over Tango: each axis, channel and camera of a configuration whose control system is Tango."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tango
from tango.server import Device, attribute

from dfxrm_control.config import AxisConfig, CameraControl, ChannelConfig, MicroscopeConfig
from dfxrm_control.errors import ConfigError, DeviceError
from dfxrm_control.tango_address import Address

if TYPE_CHECKING:
    from dfxrm_control.backend import Backend, ChannelValue

__all__ = ["Part", "Served", "Stage", "parts_of"]

LOOK_S = 0.2
MACHINE_CURRENT = "SR_Current"


@dataclass(frozen=True)
class Part:
    """One axis, channel or camera, and the Tango device that stands for it.

    Attributes
    ----------
    kind : str
        Class of the device: ``Motor``, ``Channels``, ``Shutter``, ``Machine`` or ``LimaCCDs``.
    device : str
        Name of the device, ``domain/family/member``.
    name : str
        Logical name, by which the backend knows the part.
    config : AxisConfig, ChannelConfig or CameraControl
        What the configuration says of it.
    attribute : str
        The attribute that carries the value; empty for shutters and cameras.
    writable : bool
        Whether the attribute is written too.
    events : {"sent", "promised", "none"}
        What becomes of a motor's events of its state, for drills: ``promised`` ones are not sent.
    """

    kind: Literal["Motor", "Channels", "Shutter", "Machine", "LimaCCDs"]
    device: str
    name: str
    config: AxisConfig | ChannelConfig | CameraControl
    attribute: str = ""
    writable: bool = True
    events: Literal["sent", "promised", "none"] = "sent"


def parts_of(config: MicroscopeConfig) -> list[Part]:
    """Return what a configuration has on Tango.

    A channel whose address names an attribute ``SR_Current`` is that of a machine status; one whose address names no
    attribute is a shutter.

    Raises
    ------
    ConfigError
        When it has nothing on Tango, or two parts claim one device that cannot be both.
    """
    parts: list[Part] = []
    for device in config.devices.values():
        for name, axis in device.axes.items():
            if axis.control == "tango":
                address = Address.parse(axis.address)
                parts.append(Part("Motor", address.path, name, axis, address.attribute or "Position"))
        for name, channel in device.channels.items():
            if channel.control == "tango":
                parts += _channel(name, channel)
    for name, device in config.devices.items():
        if device.camera is not None and device.camera.control == "tango":
            parts.append(Part("LimaCCDs", Address.parse(device.camera.address).path, name, device.camera))
    if not parts:
        raise ConfigError(f"configuration {config.name} has no axis, channel or camera whose control is tango")
    kinds: dict[str, Part] = {}
    for part in parts:
        first = kinds.setdefault(part.device.lower(), part)
        if first is not part and (part.kind != first.kind or part.kind != "Channels"):
            raise ConfigError(f"{first.name} and {part.name} cannot both be the Tango device {part.device}")
    return parts


def _channel(name: str, config: ChannelConfig) -> list[Part]:
    address = Address.parse(config.address)
    if not address.attribute:
        return [Part("Shutter", address.path, name, config)]
    kind: Literal["Machine", "Channels"] = "Machine" if address.attribute == MACHINE_CURRENT else "Channels"
    parts = [Part(kind, address.path, name, config, address.attribute, not config.read_only)]
    if config.readback:
        read = Address.parse(config.readback)
        parts.append(Part("Channels", read.path, name, config, read.attribute, writable=False))
    return parts


@dataclass
class Stage:
    """What the devices of this process stand for. Tango makes the devices itself, so they find it by their names.

    Attributes
    ----------
    backend : Backend
        The simulated hardware.
    parts : dict
        Parts by the name of their device, in small letters.
    instant : bool
        Whether every move is over at once.
    """

    backend: Backend
    parts: dict[str, list[Part]]
    instant: bool = False
    ending: list[Callable[[], None]] = field(default_factory=list)
    looking: list[Callable[[], None]] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Tell of what changes by itself, from now on."""
        threading.Thread(target=self._look, name="tango: changes", daemon=True).start()

    def _look(self) -> None:
        with tango.EnsureOmniThread():
            while not self._ended.wait(LOOK_S):
                for look in list(self.looking):
                    look()

    def end(self) -> None:
        """Look no more, and let each device put away what it has open."""
        self._ended.set()
        for end in self.ending:
            end()


class Served(Device):
    """A device that stands for parts of the simulated microscope.

    Its attribute ``Fault`` lets something go wrong, for tests and drills: a word, and what it may need; empty: all is
    well again.
    """

    stage: ClassVar[Stage]
    faults: ClassVar[tuple[str, ...]] = ()

    def init_device(self) -> None:
        """Find the parts that this device stands for."""
        super().init_device()
        self.parts = self.stage.parts[self.get_name().lower()]
        self.backend = self.stage.backend
        self.fault, self.fault_about = "", ""
        self._known: dict[str, Any] = {}

    @attribute(dtype=str)
    def Fault(self) -> str:  # noqa: N802
        """Say what goes wrong on purpose."""
        return f"{self.fault} {self.fault_about}".strip()

    @Fault.write  # type: ignore[no-redef]
    def Fault(self, text: str) -> None:  # noqa: N802
        """Let something go wrong, or nothing any more."""
        fault, _, about = text.strip().partition(" ")
        if fault and fault not in self.faults:
            self.refuse(f"it has the faults {', '.join(self.faults)}, not {fault!r}")
        self.fault, self.fault_about = fault, about.strip()
        self.fault_changed()

    def fault_changed(self) -> None:
        """React to a fault that was set or taken away."""

    def refuse(self, why: str) -> None:
        """Raise what a client sees as the device's own words."""
        tango.Except.throw_exception("Refused", why, self.get_name())

    def tell(self, state: tango.DevState, text: str) -> None:
        """Take a state, and tell whoever listens."""
        self.set_state(state)
        self.set_status(text)
        self.push_change_event("State", state)

    def watched(self, name: str, ask: Callable[[], ChannelValue]) -> None:
        """Tell of changes of an attribute whose value changes by itself."""
        self.set_change_event(name, True, False)
        self.stage.looking.append(lambda: self.told(name, ask))

    def told(self, name: str, ask: Callable[[], ChannelValue]) -> None:
        """Tell the value of an attribute, if it is another than the last one told."""
        try:
            value = ask()
        except DeviceError:
            return
        # NaN after NaN is no news
        if repr(value) != repr(self._known.get(name)):
            self._known[name] = value
            self.push_change_event(name, value)
