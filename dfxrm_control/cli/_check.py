"""``dfxrm check``: whether everything a configuration names is there and agrees with it."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING

import click

from dfxrm_control.cli._options import chosen_config

if TYPE_CHECKING:
    from dfxrm_control.checking import Check, Looked

__all__ = ["check"]

HELP = """Connect to everything that CONFIG (a name or a YAML file) names, at the same time, and say what is wrong.

Nothing is moved. Exit code: 0 when all is well, 1 when something is wrong, 2 when CONFIG is not valid.
"""


@click.command(help=HELP)
@click.argument("config", default="simulated")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1.0, max=600.0),
    default=10.0,
    show_default=True,
    metavar="S",
    help="After how many seconds it is over, whatever is missing.",
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change one setting of the configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def check(config: str, timeout_s: float, settings: tuple[str, ...], as_json: bool) -> int:
    """Look at a microscope and print the table."""
    began_s = time.monotonic()
    microscope = chosen_config(config, settings)
    from dfxrm_control.checking import check as look

    # ophyd logs what still happens to a signal that is given up; the table says what is wrong
    logging.getLogger("ophyd").addHandler(logging.NullHandler())
    found = look(microscope, timeout_s, began_s)
    if as_json:
        import json

        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        _print(found)
    code = 0 if found.well else 1
    if not all(each.connected for each in found.looked):
        # what still waits inside a control system's library for what is not there would hold up the end of the program
        sys.stdout.flush()
        os._exit(code)
    return code


def _print(found: Check) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("device", "signal", "address", "connected", "value", "limits (hardware)", "what is wrong"):
        table.add_column(title, overflow="fold", no_wrap=title in ("signal", "connected", "value"))
    before = ""
    for each in found.looked:
        table.add_row(
            each.device if each.device != before else "",
            each.name,
            each.address,
            "yes" if each.connected else Text("no", style="bold red"),
            _value(each),
            _limits(each),
            Text("; ".join([*each.problems, *(f"note: {note}" for note in each.notes)]), _style(each)),
        )
        before = each.device
    console = Console(highlight=False)
    if not console.is_terminal:
        # who reads a file wants whole lines
        console.width = 400
    console.print(table)
    console.print(Text(found.summary(), style="bold green" if found.well else "bold red"))


def _style(each: Looked) -> str:
    return "red" if each.problems else "dim"


def _value(each: Looked) -> str:
    if each.value is None:
        return "-"
    value = f"{each.value:.7g}" if isinstance(each.value, float) else str(each.value)
    return f"{value} {each.units}".strip()


def _limits(each: Looked) -> str:
    if each.kind != "axis":
        return ""
    ours = _span(each.limits)
    return ours if each.control == "memory" else f"{ours} ({_span(each.hardware_limits)})"


def _span(limits: tuple[float, float] | None) -> str:
    return "none" if limits is None else f"{limits[0]:g} .. {limits[1]:g}"
