"""``dfxrm dry-run``: what a plan would do, without doing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dfxrm_control.cli._options import (
    PlanGroup,
    chosen_config,
    config_options,
    plan_commands,
    plan_values,
    positions_option,
    start_positions,
)
from dfxrm_control.config import config_names, find_config
from dfxrm_control.parameters import PlanParameters

__all__ = ["dry_run"]


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            default="dry-run",
            show_default=True,
            metavar="FOLDER",
            help="Where --twin writes to.",
        ),
        click.option(
            "--twin", is_flag=True, help="Also run the plan on the physics twin and keep the images and maps it gives."
        ),
        click.option(
            "--from",
            "source",
            type=click.Choice(["journal", "configuration"]),
            help="Where start positions are looked up; default: the journal of the last run for axes that stay where "
            "they are when a session ends, else the configuration.",
        ),
        positions_option,
    ):
        command = option(command)
    return config_options(command)


def _dry_run(model: type[PlanParameters], options: dict[str, Any]) -> int:
    config = chosen_config(options["config"], options["settings"], options["sample"], options["data"])
    values = plan_values(model, options)
    start = start_positions(options["positions"])
    model.check({**config.scan.parameters.get(model.plan, {}), **values})
    _speak_to_nothing()
    from dfxrm_control.dry_run import dry_run, predict

    report = dry_run(config, model.plan, values, start, source=options["source"])
    files: list[Path] = []
    if options["twin"] and not report.problems:
        files = predict(config, model.plan, values, options["out"], report.start)
    if options["as_json"]:
        import json

        click.echo(json.dumps({**report.as_dict(), "files": [str(file) for file in files]}, indent=2))
    else:
        for line in report.lines():
            click.echo(line)
        for file in files:
            click.echo(f"{'picture:' if file.suffix == '.png' else 'file:':<9} {file}")
    return 2 if report.problems else 0


def _try_all(every: bool, configs: tuple[str, ...], as_json: bool) -> int:
    if not every:
        raise click.UsageError("name a plan, or give --all")
    chosen = [find_config(name) for name in configs or config_names()]
    _speak_to_nothing()
    from dfxrm_control.dry_run import try_all

    tried = list(try_all(chosen))
    if as_json:
        import json

        click.echo(json.dumps([each.as_dict() for each in tried], indent=2))
    else:
        for each in tried:
            click.echo(each.line())
        counts = {verdict: sum(each.verdict == verdict for each in tried) for verdict in _VERDICTS}
        click.echo(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    return 2 if any(each.verdict == "cannot run" for each in tried) else 0


_VERDICTS = ("can run", "cannot run", "excused", "not tried")


def _speak_to_nothing() -> None:
    """Keep the libraries of control systems from being loaded: a dry run speaks to none, and begins at once."""
    os.environ["OPHYD_CONTROL_LAYER"] = "dummy"


dry_run = PlanGroup(
    "dry-run",
    commands=plan_commands(_dry_run, _options),
    callback=lambda **options: None if click.get_current_context().invoked_subcommand else _try_all(**options),
    invoke_without_command=True,
    no_args_is_help=True,
    params=[
        click.Option(["--all", "every"], is_flag=True, help="Try every plan on every configuration."),
        click.Option(
            ["--config", "configs"],
            multiple=True,
            metavar="NAME|FILE",
            help="With --all: the configurations to try; default: those of `dfxrm configs`. May be repeated.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="With --all: print the results as JSON."),
    ],
    help="Check positions against limits and bodies against each other, count frames, time and data, without moving "
    "anything.",
)
