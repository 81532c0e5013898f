"""The physics twin of the microscope, and the replay of recorded scans."""

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
