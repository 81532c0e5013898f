"""Options that several commands share, and options made from the models of plan parameters."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args, get_origin

import click

from dfxrm_control.cli._log import about
from dfxrm_control.config import MicroscopeConfig, find_config, override
from dfxrm_control.parameters import PLAN_PARAMETERS, PlanParameters

__all__ = [
    "PlanGroup",
    "chosen_config",
    "config_options",
    "parameter_options",
    "plan_commands",
    "plan_values",
    "positions_option",
    "start_positions",
]

_SUFFIX = "_scan"


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--config``, ``--set``, ``--sample`` and ``--data`` to a command."""
    for option in (
        click.option("--data", metavar="FOLDER", help="Folder for the data; default: the configuration's."),
        click.option("--sample", metavar="NAME", help="Name of the sample, also of the folder of its data."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="NAME=VALUE",
            help="Change one setting of the configuration, e.g. scan.darks=20. May be repeated.",
        ),
        click.option(
            "--config",
            default="simulated",
            show_default=True,
            metavar="NAME|FILE",
            help="Microscope: the name of one of `dfxrm configs`, or a YAML file.",
        ),
    ):
        command = option(command)
    return command


def chosen_config(
    config: str, settings: tuple[str, ...] = (), sample: str | None = None, data: str | None = None
) -> MicroscopeConfig:
    """Return the configuration that the shared options name, with their changes.

    Raises
    ------
    ConfigError
        When it does not exist or a change does not fit.
    """
    changes = list(settings)
    # quoted, since a setting's value is YAML, in which 2026 is a number and `no` is false
    if sample is not None:
        changes.append(f"sample.name={json.dumps(sample)}")
    if data is not None:
        changes.append(f"data.directory={json.dumps(data)}")
    return about(override(find_config(config), changes))


positions_option = click.option(
    "--at",
    "positions",
    multiple=True,
    metavar="AXIS=POSITION,...",
    help="Where axes start, before all else. May be repeated.",
)


def start_positions(given: Iterable[str]) -> dict[str, float]:
    """Return the positions that ``--at`` gave, by axis."""
    return dict(_position(text) for several in given for text in several.split(","))


def parameter_options(model: type[PlanParameters]) -> list[click.Parameter]:
    """Return one option per parameter of a plan; the values are checked by the model itself."""
    units = model.units()
    options: list[click.Parameter] = []
    for name, field in model.model_fields.items():
        flag = "--" + name.replace("_", "-")
        text = (field.description or "").strip()
        text = text[:1].upper() + text[1:] + "."
        if field.is_required():
            text += " Must be given."
        elif field.default is not None and "default" not in text:
            text += f" Default: {_as_typed(field.default)}."
        if _is_flag(field.annotation):
            options.append(click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=text))
        else:
            metavar = "|".join(_words(field.annotation)) or units.get(name, "").upper() or _kind(field.annotation)
            options.append(click.Option([flag, name], metavar=metavar, help=text))
    return options


def plan_values(model: type[PlanParameters], options: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that were given on the command line."""
    return {name: options[name] for name in model.model_fields if options.get(name) is not None}


class PlanGroup(click.Group):
    """One command per plan; the list of them says what each is in a whole sentence, in the order of the plans.

    A plan answers to its short name (``mosaicity``) and to the one it has in a session and in the record
    (``mosaicity_scan``).
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a plan by either name."""
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, _short(cmd_name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the plans, simple scans first."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in self.commands.items()])


def plan_commands(callback: Callable[..., Any], extra: Callable[..., Any]) -> dict[str, click.Command]:
    """Return one command per plan, named as the plan without its ``_scan``.

    Parameters
    ----------
    callback : callable
        Called as ``callback(model, options)`` with all options by name.
    extra : callable
        Decorator that adds the options that are not parameters.
    """
    commands: dict[str, click.Command] = {}
    for plan, model in PLAN_PARAMETERS.items():
        short = _short(plan)
        commands[short] = _plan_command(short, model, callback, extra)
    return commands


def _short(plan: str) -> str:
    return plan.removesuffix(_SUFFIX).replace("_", "-")


def _plan_command(
    short: str, model: type[PlanParameters], callback: Callable[..., Any], extra: Callable[..., Any]
) -> click.Command:
    def call(**options: Any) -> Any:
        return callback(model, options)

    summary = (model.__doc__ or "").strip().splitlines()[0]
    command: click.Command = click.command(name=short, help=summary)(extra(call))
    command.params = [*parameter_options(model), *command.params]
    return command


def _as_typed(value: Any) -> str:
    """Return a value as it would be typed."""
    if isinstance(value, list | tuple):
        return ",".join(_as_typed(part) for part in value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (types.UnionType,) or str(get_origin(annotation)) == "typing.Union":
        return tuple(part for part in get_args(annotation) if part is not type(None))
    return (annotation,)


def _bare(annotation: Any) -> Any:
    (first, *_) = _alternatives(annotation)
    while hasattr(first, "__metadata__"):
        (first, *_) = _alternatives(get_args(first)[0])
    return first


def _is_flag(annotation: Any) -> bool:
    return _bare(annotation) is bool


def _words(annotation: Any) -> tuple[str, ...]:
    bare = _bare(annotation)
    return tuple(str(word) for word in get_args(bare)) if get_origin(bare) is Literal else ()


def _kind(annotation: Any) -> str:
    bare = _bare(annotation)
    return {int: "N", float: "NUMBER", dict: "YAML", list: "NUMBER,..."}.get(get_origin(bare) or bare, "NAME")


def _position(text: str) -> tuple[str, float]:
    axis, _, position = text.partition("=")
    try:
        value = float(position)
    except ValueError:
        value = math.nan
    if not (axis.strip() and math.isfinite(value)):
        raise click.BadParameter(f"--at {text!r} must have the form AXIS=POSITION, e.g. --at mu=9.1")
    return axis.strip(), value
