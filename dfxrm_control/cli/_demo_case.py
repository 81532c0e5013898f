"""What the demonstrations share: their options, their configuration, and how their result is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

import click

from dfxrm_control.cli._options import chosen_config
from dfxrm_control.config import MicroscopeConfig

__all__ = ["Result", "case_config", "case_options", "tell"]


class Result(Protocol):
    """What a demonstration comes to."""

    @property
    def met(self) -> bool:
        """Whether every target was reached."""

    def lines(self) -> list[str]:
        """Return the report."""


def case_options(**configs: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--data``, ``--quiet``, and an option with a default for each configuration."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option("--quiet", is_flag=True, help="No table of the plan and no progress bar.")(command)
        for name, default in reversed(configs.items()):
            command = click.option(
                f"--{name}", default=default, show_default=True, metavar="NAME|FILE", help="Simulated microscope."
            )(command)
        return click.option(
            "--data", default="demo-data", show_default=True, metavar="FOLDER", help="Folder for the data."
        )(command)

    return add


def case_config(name: str, data: str) -> MicroscopeConfig:
    """Return a configuration that writes everything under one folder."""
    return chosen_config(name, (f"data.journal_directory={json.dumps(f'{data}/journal')}",), data=data)


def tell(result: Result) -> int:
    """Print the report and return the exit code: 1 when a target was missed."""
    for line in result.lines():
        click.echo(line)
    return 0 if result.met else 1
