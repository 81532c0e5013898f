"""Turning the import strings of a configuration into the classes and plans they name."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from dfxrm_control.backend import Backend
from dfxrm_control.config import BackendConfig, MicroscopeConfig
from dfxrm_control.errors import ConfigError

__all__ = ["make_backend", "resolve"]


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


def make_backend(config: MicroscopeConfig, described: BackendConfig, where: str) -> Backend:
    """Return what a configuration describes as a backend.

    Parameters
    ----------
    config : MicroscopeConfig
        The configuration.
    described : BackendConfig
        Which backend, with which options.
    where : str
        Where in the configuration it is described: ``backend`` or ``serve.twin``.

    Raises
    ------
    ConfigError
        When the import string names nothing, or the options are not those it takes.
    """
    what = f"configuration {config.name}: {where}.backend"
    factory = resolve(described.backend, what)
    taken = inspect.signature(factory).parameters.values()
    names = [option.name for option in taken if option.kind is option.KEYWORD_ONLY]
    unknown = [option for option in described.options if option not in names]
    if unknown and not any(option.kind is option.VAR_KEYWORD for option in taken):
        raise ConfigError(
            f"configuration {config.name}: {where}.options: there is no option {unknown[0]!r}; "
            f"{described.backend} takes {', '.join(names) or 'none'}"
        )
    try:
        backend = factory(config, **described.options)
    except TypeError as error:
        raise ConfigError(f"configuration {config.name}: {where}.options: {error}") from error
    if not isinstance(backend, Backend):
        raise ConfigError(f"{what}: {described.backend} is no backend")
    return backend
