"""What goes wrong with a queue."""

from __future__ import annotations

from dfxrm_control.errors import DfxrmError

__all__ = ["QueueError"]


class QueueError(DfxrmError):
    """A queue does not answer, refuses what it is asked, or a queue file is not usable."""
