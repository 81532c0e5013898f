"""Errors that end in one clear sentence for the person at the microscope.

Every error a user can cause or meet is a `DfxrmError`: its text names the thing, what was asked and what would be
valid. The command line prints that text and nothing else.
"""

__all__ = [
    "AlignmentError",
    "ArrivalError",
    "ConfigError",
    "DeviceError",
    "DfxrmError",
    "EnvelopeError",
    "FileFormatError",
    "LimitError",
    "ParameterError",
    "PhysicsError",
    "RecordError",
    "RunError",
]


class DfxrmError(Exception):
    """Base of every error that is meant to be read by a user."""


class ConfigError(DfxrmError):
    """A configuration file, or an import string in it, is not usable."""


class ParameterError(DfxrmError, ValueError):
    """A plan's or a command's parameter is not valid."""


class PhysicsError(DfxrmError, ValueError):
    """A geometry, lens or reflection that cannot exist was asked for."""


class LimitError(DfxrmError, ValueError):
    """A position outside the limits of an axis was asked for."""


class EnvelopeError(LimitError):
    """A move was asked for on which two bodies could come too close to each other."""


class DeviceError(DfxrmError):
    """A device is missing, faulty, disconnected or did not answer in time."""


class ArrivalError(DeviceError):
    """A motor ended its move outside the tolerance around its target."""


class HeldError(DfxrmError):
    """Another process holds what was asked for."""


class ConditionError(DfxrmError):
    """The beam, an interlock or what else a run needs is not as it should be."""


class RecordError(DfxrmError):
    """The record of a run cannot be written: disk full, folder not writable, file in the way."""


class FileFormatError(DfxrmError):
    """A file is truncated, foreign or not what it was said to be."""


class RunError(DfxrmError):
    """A run ended before its plan was done; what was taken until then is on disk."""


class AlignmentError(DfxrmError):
    """A step of an alignment that the next ones need is not sure of what it found; nothing was moved by it."""
