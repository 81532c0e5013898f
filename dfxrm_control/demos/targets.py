"""What a demonstration must reach, and how far it came."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Target"]


@dataclass(frozen=True)
class Target:
    """One number beside what it should be.

    Attributes
    ----------
    name : str
        What it is.
    found : float
        What came out.
    expected : float
        What should.
    tolerance : float
        By how much it may be off.
    units : str
        Unit of all three.
    note : str
        How sure it is.
    """

    name: str
    found: float
    expected: float
    tolerance: float
    units: str = ""
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return math.isfinite(self.found) and abs(self.found - self.expected) <= self.tolerance * (1 + 1e-9)

    def line(self) -> str:
        """Return it as a sentence; one that was missed says by how much."""
        unit = f" {self.units}" if self.units else ""
        expected = f"{self.expected:.4g}" + (f" +/- {self.tolerance:.2g}" if self.tolerance else "")
        note = f"; {self.note}" if self.note else ""
        text = f"{self.name}: {self.found:.4g}{unit} (expected {expected}{note})"
        if self.met:
            return text
        return f"{text}: MISSED by {abs(self.found - self.expected) - self.tolerance:.2g}{unit}"
