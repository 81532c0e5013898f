"""Where a Tango device, or one of its attributes, is found, as a configuration says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dfxrm_control.errors import ConfigError

__all__ = ["Address"]

OPTION = re.compile(r"#dbase=(?:no|yes)(?=/|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """Where a device, and perhaps one of its attributes, is found.

    Attributes
    ----------
    device : str
        What `tango.DeviceProxy` takes: ``[tango://host:port/]domain/family/member[#dbase=no]``.
    attribute : str
        Name of an attribute, or empty.
    """

    device: str
    attribute: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Take an address apart: ``[tango://host:port/]domain/family/member[/attribute][#dbase=no]``.

        The option may also stand before the attribute, as it does when an ophyd component is added to the prefix of
        its device.

        Raises
        ------
        ConfigError
            When it does not have this form.
        """
        options = OPTION.findall(text)
        path, host = OPTION.sub("", text.strip()), ""
        if path.lower().startswith("tango://"):
            host, _, path = path[len("tango://") :].partition("/")
        parts = path.split("/")
        if not all(parts) or len(parts) not in (3, 4) or "#" in path or len(options) > 1:
            raise ConfigError(
                f"Tango address {text!r} must have the form [tango://host:port/]domain/family/member[/attribute]"
                "[#dbase=no]"
            )
        device = "/".join(parts[:3])
        if host:
            device = f"tango://{host}/{device}"
        return cls(device + "".join(options), parts[3] if len(parts) == 4 else "")

    @property
    def source(self) -> str:
        """The address as a source in descriptors: it says that it is one of Tango."""
        text = str(self)
        return text if text.lower().startswith("tango://") else f"tango:{text}"

    @property
    def path(self) -> str:
        """Name of the device at its server, without host, port and option: ``domain/family/member``."""
        return "/".join(self.device.partition("#")[0].split("/")[-3:])

    def of(self, attribute: str) -> Address:
        """Return the address of an attribute of the same device."""
        return Address(self.device, attribute)

    def __str__(self) -> str:
        device, hash_, option = self.device.partition("#")
        return device + (f"/{self.attribute}" if self.attribute else "") + hash_ + option
