"""The physics twin of the microscope, and the replay of recorded scans."""

from simulators.replay import Replay
from simulators.sample import SAMPLES, Sample, build_sample
from simulators.truth import KnownField, known_field
from simulators.twin import Twin

__all__ = ["SAMPLES", "KnownField", "Replay", "Sample", "Twin", "build_sample", "known_field"]
