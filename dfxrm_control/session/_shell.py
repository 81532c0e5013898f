"""The interactive session: IPython with the microscope in it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from bluesky.utils import FailedStatus, RunEngineInterrupted

from dfxrm_control.errors import DfxrmError
from dfxrm_control.session._session import Session, reason_of
from dfxrm_control.session._verbs import Verbs

__all__ = ["interact", "namespace"]

PAUSED = (
    "Paused. RE.resume() goes on, RE.stop() ends the run well, RE.abort() ends it as aborted, RE.halt() ends it at "
    "once without its clean-up."
)
_log = logging.getLogger(__name__)


def namespace(session: Session) -> dict[str, Any]:
    """Return what the user finds in the shell.

    ``RE``; devices, axes, channels and cameras by logical name; the plans, which take keywords only and run as
    ``RE(mosaicity_scan(exposure_s=0.2))``; the verbs; bluesky's stock plans and stubs as ``bp`` and ``bps``.
    """
    import bluesky.plan_stubs as bps
    import bluesky.plans as bp

    return {
        **session.channels,
        **session.axes,
        **session.devices,
        **session.plans,
        **Verbs(session).names(),
        "bp": bp,
        "bps": bps,
        "RE": session.RE,
        "session": session,
    }


def banner(session: Session) -> str:
    """Return what is shown at the start."""
    config = session.config
    lines = [
        f"dfxrm-control: {config.name}. {config.description}",
        f"devices: {', '.join(session.devices) or 'none'}",
        *(f"BROKEN   {fault}" for fault in session.faults),
        *([f"arm:     {session.arm.line()}"] if session.arm is not None and session.arm.off else []),
        f"plans:   {', '.join(session.plans) or 'none'}    run one with RE({next(iter(session.plans), 'plan')}())",
        f"verbs:   {', '.join(Verbs(session).names())}    help with e.g. mv?",
        f"data:    {session.recorder.data_directory}",
    ]
    return "\n".join(lines) + "\n"


def interact(session: Session) -> None:
    """Start IPython and return when the user leaves it."""
    from IPython import start_ipython
    from traitlets.config import Config

    settings = Config()
    settings.TerminalIPythonApp.display_banner = False
    settings.TerminalInteractiveShell.confirm_exit = False
    settings.InteractiveShellApp.extensions = [__name__]
    print(banner(session))
    start_ipython(argv=[], user_ns=namespace(session), config=settings)


def load_ipython_extension(shell: Any) -> None:
    """Let IPython show our errors as the one sentence they are; called by IPython when it starts."""

    def typed(info: Any) -> None:
        _log.info("typed: %s", info.raw_cell.strip())

    shell.events.register("pre_run_cell", typed)

    def show(shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None) -> None:
        sentence = f"{kind.__name__ if isinstance(error, DfxrmError) else 'Failed'}: {reason_of(error)}"
        _log.info("said: %s", sentence)
        print(sentence, file=sys.stderr)

    def paused(shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None) -> None:
        print(PAUSED, file=sys.stderr)

    def handle(shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None) -> None:
        (paused if isinstance(error, RunEngineInterrupted) else show)(shell, kind, error, trace, tb_offset)

    shell.set_custom_exc((DfxrmError, FailedStatus, RunEngineInterrupted), handle)
