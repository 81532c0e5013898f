"""The physics twin of the microscope, and the replay of recorded scans."""

from simulators.replay import Replay
from simulators.sample import SAMPLES, Sample, build_sample
from simulators.twin import Twin

__all__ = ["SAMPLES", "Replay", "Sample", "Twin", "build_sample"]
