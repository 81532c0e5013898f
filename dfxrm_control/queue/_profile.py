"""The start-up profile of the queue's worker: the session, its RunEngine, and its plans as a queue server checks them.

bluesky-queueserver imports this module in the worker process and takes what stands in it. No folder of start-up files
is used, so that no file of a user comes before our packages on Python's path.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from dfxrm_control.start_up import check_packages

CONFIG_VARIABLE = "DFXRM_QUEUE_CONFIG"
"""Environment variable that names the file of the microscope's configuration."""
LOCK_VARIABLE = "DFXRM_QUEUE_WORKER_LOCK"
"""Environment variable that names a file which the worker keeps locked as long as it lives."""


def _start() -> dict[str, Any]:
    """Return the namespace of the worker."""
    check_packages()
    from dfxrm_control.config import load_config
    from dfxrm_control.queue._plans import with_conditions
    from dfxrm_control.session import Session

    config = load_config(Path(os.environ[CONFIG_VARIABLE]))
    session = Session(with_conditions(config), quiet=True)
    _close_at_the_end(session)
    plans = {name: _as_queue_plan(session, plan) for name, plan in session.plans.items()}
    return {**session.devices, **plans, "RE": session.RE, "session": session}


def _as_queue_plan(session: Any, plan: Callable[..., Any]) -> Callable[..., Any]:
    """Return a bound plan with the description by which a queue server checks its arguments."""
    from bluesky_queueserver import parameter_annotation_decorator

    from dfxrm_control.session import resolve

    if not hasattr(plan, "parameters"):
        return plan  # one of the user's own: a queue server goes by its signature
    annotation = resolve(session.config.session.annotation, "session.annotation")(plan)
    described: Callable[..., Any] = parameter_annotation_decorator(annotation)(plan)
    return described


def _close_at_the_end(session: Any) -> None:
    """Leave the microscope safe when the worker is asked to end, as a system that shuts down does."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        if session.RE.state == "running":
            session.RE.request_pause(defer=False)
        else:
            session.close()
            raise SystemExit(1)

    signal.signal(signal.SIGTERM, end)


def _hold_lock() -> int:
    """Lock the worker's file; the system lets it go when this process ends, however it does."""
    handle = os.open(os.environ[LOCK_VARIABLE], os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


if CONFIG_VARIABLE in os.environ:
    _lock = _hold_lock()
    globals().update(_start())
