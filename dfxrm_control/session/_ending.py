"""Ending a run safely although its user, or the system, is in a hurry."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["undisturbed"]

_ASKING_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Answer a signal that asks this process to end with a sentence, while the microscope is made safe.

    It would otherwise leave the program while shutter and motors are still on their way. While the RunEngine runs the
    clean-up it answers Ctrl-C itself; the eleventh, and one just before or after, comes here. All waits of the clean-up
    are finite.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def answer(number: int, frame: FrameType | None) -> None:
        print("The run is being ended: shutter, camera, axes. Please wait.", file=sys.stderr)

    before = {number: signal.signal(number, answer) for number in _ASKING_TO_END}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
