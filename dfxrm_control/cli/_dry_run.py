"""``dfxrm dry-run``: what a plan would do, without doing it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dfxrm_control.cli._options import PlanGroup, chosen_config, config_options, plan_commands, plan_values
from dfxrm_control.parameters import PlanParameters

__all__ = ["dry_run"]


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")(command)
    command = click.option(
        "--twin",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="PNG",
        help="Also run the plan on the physics twin and save the map it would give.",
    )(command)
    command = click.option(
        "--at",
        "positions",
        multiple=True,
        metavar="AXIS=POSITION",
        help="Where an axis starts, instead of the configuration's start. May be repeated.",
    )(command)
    return config_options(command)


def _dry_run(model: type[PlanParameters], options: dict[str, Any]) -> int:
    config = chosen_config(options["config"], options["settings"], options["sample"], options["data"])
    values = plan_values(model, options)
    start = dict(_position(text) for text in options["positions"])
    model.check({**config.scan.parameters.get(model.plan, {}), **values})
    from dfxrm_control.dry_run import dry_run, predict

    report = dry_run(config, model.plan, values, start)
    if options["twin"] is not None and not report.problems:
        predict(config, model.plan, values, options["twin"], start)
    if options["as_json"]:
        import json

        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        for line in report.lines():
            click.echo(line)
        if options["twin"] is not None and not report.problems:
            click.echo(f"picture:  {options['twin']}")
    return 2 if report.problems else 0


def _position(text: str) -> tuple[str, float]:
    axis, _, position = text.partition("=")
    try:
        value = float(position)
    except ValueError:
        value = math.nan
    if not (axis.strip() and math.isfinite(value)):
        raise click.BadParameter(f"--at {text!r} must have the form AXIS=POSITION, e.g. --at mu=9.1")
    return axis.strip(), value


dry_run = PlanGroup(
    "dry-run",
    commands=plan_commands(_dry_run, _options),
    help="Check positions against limits, count frames, time and data, without moving anything.",
)
