"""What a queue can run besides the scans of a microscope: the plans between scans."""

from __future__ import annotations

from dfxrm_control.config import MicroscopeConfig

__all__ = ["CONDITION_PLANS", "with_conditions"]

CONDITION_PLANS = {
    "place_sample": "plans:place_sample",
    "move": "plans:move",
    "set_temperature": "plans:set_temperature",
    "wait": "plans:wait",
}
"""Import strings by name. They begin no run, so `dfxrm run` has none of them."""


def with_conditions(config: MicroscopeConfig) -> MicroscopeConfig:
    """Return a configuration that also has the plans between scans; one of its own of the same name goes before."""
    return config.model_copy(update={"plans": {**CONDITION_PLANS, **config.plans}})
