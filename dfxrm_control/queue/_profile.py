"""The start-up profile of the queue's worker: the session, its RunEngine, and its plans as a queue server checks them.

bluesky-queueserver imports this module in the worker process and takes what stands in it. No folder of start-up files
is used, so that no file of a user comes before our packages on Python's path.
"""

from __future__ import annotations

import fcntl
import functools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
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
    maps = MapsBehind(session)
    maps.start()
    plans = {name: _as_queue_plan(session, plan, maps) for name, plan in session.plans.items()}
    return {**session.devices, **plans, "RE": session.RE, "session": session}


class MapsBehind(threading.Thread):
    """Makes maps and reduces series behind the queue: the next item waits for none of them.

    Parameters
    ----------
    session : Session
        Whose runs they are of.
    """

    def __init__(self, session: Any) -> None:
        super().__init__(name="maps", daemon=True)
        self._session = session
        self._series: queue.SimpleQueue[tuple[Path, Path]] = queue.SimpleQueue()

    def series_ended(self) -> None:
        """Reduce the series of the last run, as soon as the maps of its runs are done."""
        recorder = self._session.recorder
        if recorder.folder is not None and recorder.journal is not None:
            self._series.put((recorder.folder, recorder.journal.with_suffix(".series.log")))

    def run(self) -> None:
        """Look after them as long as the worker lives."""
        while True:
            time.sleep(1.0)
            if self._session.live_maps.go_on() or self._series.empty():
                continue
            folder, log = self._series.get()
            with log.open("wb") as file:
                subprocess.run(
                    [sys.executable, "-m", "dfxrm_control.reduction.series", str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    check=False,
                )


def _as_queue_plan(session: Any, plan: Callable[..., Any], maps: MapsBehind) -> Callable[..., Any]:
    """Return a bound plan with the description by which a queue server checks its arguments."""
    from bluesky_queueserver import parameter_annotation_decorator

    from dfxrm_control.session import resolve

    if not hasattr(plan, "parameters"):
        return plan  # one of the user's own: a queue server goes by its signature
    annotation = resolve(session.config.session.annotation, "session.annotation")(plan)
    described: Callable[..., Any] = parameter_annotation_decorator(annotation)(_followed(plan, maps))
    return described


def _followed(plan: Callable[..., Any], maps: MapsBehind) -> Callable[..., Any]:
    """Return a plan after which its series is reduced, where it makes one."""
    from dfxrm_control.parameters import SeriesParameters

    if not issubclass(plan.parameters, SeriesParameters):  # type: ignore[attr-defined]
        return plan

    @functools.wraps(plan)
    def series(*args: Any, **keywords: Any) -> Generator[Any, Any, Any]:
        found = yield from plan(*args, **keywords)
        maps.series_ended()
        return found

    return series


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
