"""Turning the import strings of a configuration into the classes and plans they name."""

from __future__ import annotations

import importlib
from typing import Any

from dfxrm_control.errors import ConfigError

__all__ = ["resolve"]


def resolve(import_string: str, what: str) -> Any:
    """Return the object that an import string ``module:name`` names.

    Parameters
    ----------
    import_string : str
        E.g. ``devices:Goniometer``.
    what : str
        What it stands for in the configuration; begins the sentence of the error.

    Raises
    ------
    ConfigError
        When the module cannot be imported or has no such name.
    """
    module_name, colon, name = import_string.partition(":")
    if not (colon and module_name and name):
        raise ConfigError(f"{what}: {import_string!r} is no import string; it has the form module:name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{what}: module {module_name!r} of {import_string!r} cannot be imported: {error}") from error
    try:
        return getattr(module, name)
    except AttributeError:
        public = ", ".join(getattr(module, "__all__", ())) or "no public names"
        raise ConfigError(f"{what}: module {module_name!r} has no {name!r}; it has {public}") from None
