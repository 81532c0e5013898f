"""Waiting for the beam without being fooled by a value that is not known."""

from __future__ import annotations

import threading
from typing import Any

from bluesky.suspenders import SuspendFloor

__all__ = ["NotBelow"]

AGAIN_S = 0.2
"""How long after it could not be told the RunEngine is told again, s."""


class NotBelow(SuspendFloor):
    """Let plans wait while a value is below a threshold, or not known.

    bluesky's own `SuspendFloor` takes NaN for a value that is not below, and lets a plan go on when the server of the
    signal does not answer. Our channels tell NaN when their server is gone, hangs, or gives no valid value, and the
    value again when it is back. Parameters as for `SuspendFloor`:

        session.RE.install_suspender(NotBelow(session.channels["ring_current"], 100.0, resume_thresh=150.0))
    """

    _heard: Any = None

    def __call__(self, value: Any, **kwargs: Any) -> None:
        """Take in a value.

        A RunEngine that is busy for more than 0.1 s, as while a device is asked that does not answer, cannot be told
        (bluesky raises RuntimeError then, and would forget it): it is told again with what was heard last.
        """
        self._heard = value
        try:
            super().__call__(value, **kwargs)
        except RuntimeError:
            again = threading.Timer(AGAIN_S, lambda: self(self._heard, **kwargs))
            again.daemon = True
            again.start()

    def _should_suspend(self, value: Any) -> bool:
        return not value >= self._suspend_thresh

    def _get_justification(self) -> str:
        """Return what was heard; bluesky would ask a server that does not answer, and then not suspend."""
        if not self.tripped:
            return ""
        known = "is not known" if self._heard != self._heard else f"is {self._heard!r}"
        return f"{self._sig.name} {known}, and should not be below {self._suspend_thresh:g}. {self._tripped_message}"
