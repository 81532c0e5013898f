"""Binding the plans of a configuration to the devices, so that each takes keywords only and knows the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.import_strings import resolve
from dfxrm_control.session._devices import Devices, make_instrument

__all__ = ["bind_plans"]


def bind_plans(config: MicroscopeConfig, built: Devices) -> tuple[Any, dict[str, Callable[..., Any]]]:
    """Return what plans are given, and the plans bound to it with the parameters that the configuration gives them.

    A plan that runs others, such as a stack of layers, finds them in what it is given: the two are made together.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope.
    built : Devices
        Its devices.

    Returns
    -------
    instrument : Any
        What plans are given; None where a fault has left too little.
    plans : dict
        Bound plan by name, without those that a fault has taken away.

    Raises
    ------
    ConfigError
        When an import string names nothing.
    ParameterError
        When the configuration itself lacks what every plan needs.
    """
    bind = resolve(config.session.bind, f"configuration {config.name}: session.bind")
    plans: dict[str, Callable[..., Any]] = {}
    instrument = make_instrument(config, built, plans)
    lost = {plan for fault in built.faults for plan in fault.plans}
    for name, import_string in config.plans.items():
        plan = resolve(import_string, f"configuration {config.name}: plans.{name}")
        if name not in lost and instrument is not None:
            plans[name] = bind(plan, instrument, config.scan.parameters.get(name))
    return instrument, plans
