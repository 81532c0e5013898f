"""``dfxrm run``: one command from the first motor to the map."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from dfxrm_control.cli._options import PlanGroup, chosen_config, config_options, plan_commands, plan_values
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.parameters import PlanParameters

if TYPE_CHECKING:
    from dfxrm_control.session import Session

__all__ = ["run", "run_and_tell"]


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--quiet", is_flag=True, help="No table and no progress bar.")(command)
    command = click.option("--no-maps", is_flag=True, help="Take frames only; make no maps during or after the scan.")(
        command
    )
    return config_options(command)


def _run(model: type[PlanParameters], options: dict[str, Any]) -> int:
    config = chosen_config(options["config"], options["settings"], options["sample"], options["data"])
    return run_and_tell(config, model, plan_values(model, options), not options["no_maps"], options["quiet"])


def run_and_tell(
    config: MicroscopeConfig, model: type[PlanParameters], values: dict[str, Any], maps: bool, quiet: bool
) -> int:
    """Run one plan in a session of its own and print where its files are.

    Returns
    -------
    int
        The exit code: 1 where a step of an alignment is not sure of what it found, and where what was recorded was not
        reduced though it should have been.

    Raises
    ------
    DfxrmError
        When the run is not possible or fails.
    """
    # checked before anything heavy is imported or any motor is spoken to
    model.check({**config.scan.parameters.get(model.plan, {}), **values})
    from dfxrm_control.session import Session

    with Session(config, maps=maps, quiet=quiet) as session:
        _end_like_ctrl_c(session)
        for fault in session.faults:
            click.echo(str(fault), err=True)
        if session.arm is not None and session.arm.off:
            click.echo(session.arm.line(), err=True)
        outcome = session.run(model.plan, values)
        for line in outcome.lines():
            click.echo(line)
        if quiet:  # else the session's table has told what was found
            for found in outcome.findings:
                click.echo(found.line())
    trouble = outcome.doubt
    if trouble is None and outcome.maps_fault is not None:
        trouble = f"recorded; not reduced: {outcome.maps_fault}"
    if trouble is not None:
        click.echo(f"dfxrm: {trouble}", err=True)
        return 1
    return 0


def _end_like_ctrl_c(session: Session) -> None:
    """Let the polite ways of ending a process, as a batch system or a lost connection does, end the run safely too."""

    def terminate(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # the terminal has gone: what is said to it from now on would fail, and with it the clean-up that says it
            sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        if session.RE.state == "running":
            session.RE.request_pause(defer=False)
        elif session.RE.state == "idle":
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, terminate)


run = PlanGroup(
    "run",
    commands=plan_commands(_run, _options),
    help="Run a plan, from the first motor to the map. Its parameters are options; see `dfxrm run PLAN --help`.",
)
