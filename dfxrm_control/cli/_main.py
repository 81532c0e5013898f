"""The command group, the loading of subcommands on demand, and the one place where errors become sentences."""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn, TextIO

import click

from dfxrm_control.cli._log import log_command
from dfxrm_control.errors import DfxrmError, RunError
from dfxrm_control.start_up import check_packages

__all__ = ["LazyGroup", "main"]

_COMMANDS = {
    "run": ("dfxrm_control.cli._run:run", "Run a plan, from the first motor to the map."),
    "dry-run": ("dfxrm_control.cli._dry_run:dry_run", "Say what a plan would do, without doing it."),
    "queue": ("dfxrm_control.cli._queue:queue", "Let scans wait in a queue and run unattended."),
    "check": (
        "dfxrm_control.cli._check:check",
        "Connect to everything a configuration names, and say what is wrong.",
    ),
    "serve": (
        "dfxrm_control.cli._serve:serve",
        "Put the twin behind EPICS and Tango servers, as a configuration needs.",
    ),
    "status": ("dfxrm_control.cli._status:status", "Say what runs, what ran, what failed and why."),
    "maps": ("dfxrm_control.cli._maps:maps", "Make maps of a recorded scan."),
    "series": ("dfxrm_control.cli._series:series", "Reduce runs that belong together: layers, topotomography, ..."),
    "domains": ("dfxrm_control.cli._domains:domains", "Find domains in a map, and measure them and their walls."),
    "nye": ("dfxrm_control.cli._nye:nye", "Map the dislocation density of a layer or a stack of layers."),
    "recover": ("dfxrm_control.cli._recover:recover", "Write the HDF5 master of a run that was cut short."),
    "arm": ("dfxrm_control.cli._arm:arm", "Say which alignment the arm counts from, or forget it."),
    "runs": ("dfxrm_control.cli._runs:runs", "List, show and export the runs in the catalogue."),
    "beamtime": ("dfxrm_control.cli._beamtime:beamtime", "Say whose beamtime it is: proposal and people."),
    "shell": ("dfxrm_control.cli._shell:shell", "Open an interactive session."),
    "handoff": (
        "dfxrm_control.cli._handoff:handoff",
        "Say which grains of a coarse map can be imaged, and with which settings.",
    ),
    "register": (
        "dfxrm_control.cli._register:register",
        "Work out how a coarse map lies, from the grains found; show it, or undo it.",
    ),
    "demo": (
        "dfxrm_control.cli._demo:demo",
        "Run a mosaicity scan on the simulated microscope, or one of the known cases.",
    ),
    "configs": ("dfxrm_control.cli._configs:configs", "List the configurations, or check one."),
}


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called and takes its summary from a table until then."""

    def __init__(self, table: dict[str, tuple[str, str]], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand."""
        if cmd_name not in self._table:
            return None
        module, _, name = self._table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._table.items()])


_DFXRM = LazyGroup(
    _COMMANDS,
    name="dfxrm",
    help="Run a dark-field X-ray microscope: scans, records, maps. Every command has its own --help.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process.

    Exit codes: 0 when all was done; 1 when a run failed after it had begun, or for a fault of the program; 2 when what
    was asked is not possible; 130 after Ctrl-C.
    """
    warnings.showwarning = _show_warning
    code, sentence = _run(arguments)
    log_command(sys.argv[1:] if arguments is None else arguments, code, sentence)
    if sentence:
        print(sentence, file=sys.stderr)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> tuple[int, str]:
    """Run the command line; return the exit code and what is to be said of an error."""
    try:
        check_packages()
        result = _DFXRM.main(args=arguments, prog_name="dfxrm", standalone_mode=False)
        return (result if isinstance(result, int) else 0), ""
    except RunError as error:
        return 1, _sentence(str(error))
    except DfxrmError as error:
        return 2, _sentence(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        return 2, error.format_message()
    except click.ClickException as error:
        hint = f" (see {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        return 2, _sentence(error.format_message() + hint)
    except (KeyboardInterrupt, click.Abort):
        return 130, _sentence("interrupted")
    except BrokenPipeError:
        # the reader of our output has gone, as `head` does; there is nobody left to tell
        sys.stderr.close()
        return 1, ""
    except Exception as error:  # the last resort: no user reads a traceback
        return 1, _sentence(_keep_traceback(error))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line; where in the program it was raised helps nobody at the microscope."""
    sentence = " ".join(str(message).split())
    print(f"dfxrm: warning: {sentence}", file=file or sys.stderr)
    logging.getLogger("py.warnings").warning(sentence)


def _sentence(text: str) -> str:
    return "dfxrm: " + " ".join(text.split())


def _keep_traceback(error: Exception) -> str:
    """Write the traceback to a file and return the sentence that names it."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    name = f"dfxrm-error-{datetime.now():%Y%m%d-%H%M%S}-"
    try:
        with tempfile.NamedTemporaryFile("w", prefix=name, suffix=".log", delete=False, encoding="utf-8") as log:
            log.write(" ".join(sys.argv) + "\n\n")
            traceback.print_exception(error, file=log)
    except OSError:
        return f"a fault of the program: {reason}"
    return f"a fault of the program: {reason}; the details are in {Path(log.name)}"
