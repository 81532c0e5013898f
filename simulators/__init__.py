"""The physics twin of the microscope, and the replay of recorded scans.

What is named here is imported when it is first asked for: a server before the twin needs none of the physics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulators.builders import SAMPLES, build_sample
    from simulators.remote import RemoteTwin
    from simulators.replay import Replay
    from simulators.sample import Sample
    from simulators.truth import KnownField, KnownLine, known_domains, known_field, known_lines
    from simulators.twin import Twin

__all__ = [
    "SAMPLES",
    "KnownField",
    "KnownLine",
    "RemoteTwin",
    "Replay",
    "Sample",
    "Twin",
    "build_sample",
    "known_domains",
    "known_field",
    "known_lines",
]

_HOMES = {
    "builders": ("SAMPLES", "build_sample"),
    "remote": ("RemoteTwin",),
    "replay": ("Replay",),
    "sample": ("Sample",),
    "truth": ("KnownField", "KnownLine", "known_domains", "known_field", "known_lines"),
    "twin": ("Twin",),
}


def __getattr__(name: str) -> Any:
    """Import what stands behind a public name."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"simulators.{home}"), name)
    raise AttributeError(f"module 'simulators' has no attribute {name!r}")
