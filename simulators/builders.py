"""The builders of samples by the names that configurations call them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dfxrm_control.errors import ConfigError

from .niobate import potassium_niobate
from .polycrystal import polycrystal
from .sample import Sample, annealed_aluminium, f_letter, notched_grain, perfect_crystal
from .silicon import silicon_dislocation, silicon_indent

__all__ = ["SAMPLES", "build_sample"]

SAMPLES: dict[str, Callable[..., Sample]] = {
    "annealed_aluminium": annealed_aluminium,
    "f_letter": f_letter,
    "notched_grain": notched_grain,
    "perfect_crystal": perfect_crystal,
    "polycrystal": polycrystal,
    "potassium_niobate": potassium_niobate,
    "silicon_dislocation": silicon_dislocation,
    "silicon_indent": silicon_indent,
}
"""The builders by the name a configuration calls them."""


def build_sample(name: str, options: Mapping[str, Any], seed: int) -> Sample:
    """Return a sample by the name of its builder.

    Parameters
    ----------
    name : str
        A key of `SAMPLES`.
    options : Mapping
        Keyword arguments of the builder.
    seed : int
        Seed of what is random in it.

    Raises
    ------
    ConfigError
        For a name that is not there, or an option the builder does not have or cannot use.
    """
    if name not in SAMPLES:
        raise ConfigError(f"backend.options.sample: {name!r} must be one of {', '.join(SAMPLES)}")
    builder = SAMPLES[name]
    known = [option for option in inspect.signature(builder).parameters if option != "seed"]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"backend.options.sample_options: sample {name!r} has no {option!r}; it has {', '.join(known)}"
            )
    try:
        return builder(seed, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"backend.options.sample_options: sample {name!r} cannot be built: {error}") from error
