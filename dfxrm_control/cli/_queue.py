"""``dfxrm queue``: scans that wait, and run unattended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click
import yaml

from dfxrm_control.cli._log import about
from dfxrm_control.cli._options import chosen_config, config_options, positions_option, start_positions
from dfxrm_control.config import MicroscopeConfig, load_config
from dfxrm_control.queue import Item, QueueError, read_night

if TYPE_CHECKING:
    from dfxrm_control.queue._check import NightCheck
    from dfxrm_control.queue._client import QueueClient

__all__ = ["queue"]

DEFAULT_FOLDER = "dfxrm-queue"
_SUFFIXES = (".yml", ".yaml")
_SHORT = 8


@click.group(help="Let scans wait in a queue and run unattended.")
def queue() -> None:
    """Hold the commands of the queue together."""


def _folder_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--folder",
        type=click.Path(path_type=Path),
        default=DEFAULT_FOLDER,
        show_default=True,
        envvar="DFXRM_QUEUE_FOLDER",
        help="Where the queue is kept: its items, keys and log.",
    )(command)


def _client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        help="File of a key; default: $DFXRM_QUEUE_KEY, else what this account may read in the folder.",
    )(command)
    command = click.option("--address", help="Address of a queue elsewhere, e.g. tcp://host:60616.")(command)
    return _folder_option(command)


def _client(options: Mapping[str, Any]) -> QueueClient:
    from dfxrm_control.queue._client import QueueClient

    return QueueClient(options["folder"], options["address"], options["key_file"])


@queue.command(help="Serve a queue until Ctrl-C: Redis, bluesky-queueserver and its worker with one command.")
@config_options
@_folder_option
@click.option("--redis", metavar="HOST:PORT", help="A Redis to keep the queue in; default: one of its own.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=60615, show_default=True, help="First of three ports; 0: any that are free.")
@click.option(
    "--without-key",
    type=click.Choice(["users", "read-only"]),
    help="What who has no key may do; default: users on this computer, read-only from others.",
)
def serve(**options: Any) -> None:
    """Serve a queue."""
    config = chosen_config(options["config"], options["settings"], options["sample"], options["data"])
    from dfxrm_control.queue._serve import serve as serve_queue

    without_key = options["without_key"]
    serve_queue(
        config,
        options["folder"],
        redis=options["redis"],
        host=options["host"],
        port=options["port"],
        without_key=without_key.replace("-", "_") if without_key else None,
        say=_say,
    )


@queue.command(help="Dry-run a queue file, in order, each item from where the one before it ends.")
@config_options
@_folder_option
@click.argument("file", type=click.Path(path_type=Path))
@positions_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def check(context: click.Context, **options: Any) -> int:
    """Check a queue file."""
    config = _checked_against(context, options)
    night = _try(
        config, read_night(options["file"]).items(config, options["file"].name), start_positions(options["positions"])
    )
    if options["as_json"]:
        import json

        click.echo(json.dumps(night.as_dict(), indent=2))
    else:
        for line in night.lines():
            click.echo(line)
    return 0 if night.ok else 2


@queue.command(help="Queue a file (night.yml), or one plan with its parameters: `add rocking_scan rock_num=11`.")
@_client_options
@click.argument("what")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--front", is_flag=True, help="Before what is queued already.")
@click.option("--sample", metavar="NAME", help="Name of the sample, of one plan.")
@click.option("--on-failure", type=click.Choice(["stop", "continue"]), default="stop", show_default=True)
@positions_option
def add(**options: Any) -> int:
    """Queue items, after a dry run of all of them."""
    config = _served_config(options["folder"])
    what = options["what"]
    path = Path(what)
    if path.suffix in _SUFFIXES or path.exists():
        if options["parameters"]:
            raise click.UsageError("a queue file says itself what the parameters are")
        items = read_night(path).items(config, path.name)
    else:
        items = [_one_item(config, what, options)]
    night = _try(config, items, start_positions(options["positions"]))
    if not night.ok:
        for line in night.lines():
            click.echo(line, err=True)
        return 2
    name = uuid4().hex[:12]
    told = [item.as_queue_item() for item in items]
    for item in told:
        item["meta"]["queue"]["night"] = name
    client = _client(options)
    added = client.add(told, options["front"])
    client.close()
    for line in night.lines()[-2:-1]:
        click.echo(line)
    click.echo(f"{len(added)} queued")
    return 0


@queue.command("list", help="Show what runs, what waits, and what waits for a decision, with its reason.")
@_client_options
def list_items(**options: Any) -> None:
    """List the items."""
    client = _client(options)
    status, answer = client.status(), client.ask("queue_get")
    client.close()
    running = answer["running_item"]
    click.echo(f"queue: {status['manager_state'].replace('_', ' ')}")
    if running:
        click.echo(f"  runs   {_line(running)}")
    for item in answer["items"]:
        click.echo(f"  waits  {_line(item)}")
    for held in answer["held_items"]:
        click.echo(f"  HELD   {_line({**held['item'], 'item_uid': held['uid']})}: {held['status']}, {held['reason']}")
    if not (running or answer["items"] or answer["held_items"]):
        click.echo("  empty")


@queue.command(help="Start the queue.")
@_client_options
def start(**options: Any) -> None:
    """Start."""
    client = _client(options)
    client.start()
    client.close()
    click.echo("started")


@queue.command(help="Stop after the item that runs; with --emergency: abort it now. Needs no key.")
@_client_options
@click.option("--cancel", is_flag=True, help="Go on after all.")
@click.option("--emergency", is_flag=True, help="Abort what runs now, and stop; the same as `abort`.")
def stop(**options: Any) -> None:
    """Stop."""
    if options["emergency"]:
        _abort(options)
        return
    client = _client(options)
    client.ask("queue_stop_cancel" if options["cancel"] else "queue_stop")
    client.close()
    click.echo("goes on" if options["cancel"] else "stops after the item that runs")


@queue.command(help="Pause the item that runs, at its next point or now. Needs no key.")
@_client_options
@click.option("--now", is_flag=True, help="In the middle of a point, which is then repeated.")
def pause(**options: Any) -> None:
    """Pause."""
    client = _client(options)
    client.ask("re_pause", option="immediate" if options["now"] else "deferred")
    status = client.wait(lambda now: now["manager_state"] in ("paused", "idle"), timeout_s=300.0)
    client.close()
    click.echo("paused" if status["manager_state"] == "paused" else "the item ended before it could pause")


@queue.command(help="Go on with the item that is paused.")
@_client_options
def resume(**options: Any) -> None:
    """Resume."""
    client = _client(options)
    client.ask("re_resume")
    client.close()
    click.echo("goes on")


@queue.command(help="Abort the item that runs, now and safely, and stop the queue. Needs no key.")
@_client_options
def abort(**options: Any) -> None:
    """Abort."""
    _abort(options)


@queue.command(help="Show what was run, and how it ended.")
@_client_options
@click.option("--last", default=20, show_default=True, help="How many.")
def history(**options: Any) -> None:
    """Show the history."""
    client = _client(options)
    items = client.ask("history_get")["items"]
    client.close()
    for item in items[-max(options["last"], 0) :]:
        result = item["result"]
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(result["time_start"]))
        took = result["time_stop"] - result["time_start"]
        scans = ", ".join(map(str, result["scan_ids"])) or "none"
        click.echo(f"{when}  {result['exit_status']:<10} {took:8.1f} s  scans {scans:<8} {_line(item)}")


@queue.command(help="Say what happens, as it happens, until Ctrl-C.")
@_client_options
@click.option("--until-idle", is_flag=True, help="End when nothing runs.")
@click.option("--output", is_flag=True, help="Also show what manager and worker print.")
def watch(**options: Any) -> None:
    """Watch."""
    client = _client(options)
    output = client.output() if options["output"] else None
    said: tuple[Any, ...] = ()
    held: set[str] = set()
    while True:
        status, answer = client.status(), client.ask("queue_get")
        running = answer["running_item"]
        now = (status["manager_state"], running.get("item_uid"), len(answer["items"]))
        if now != said:
            said = now
            does = f": {_line(running)}" if running else ""
            click.echo(f"{_now()}  {status['manager_state'].replace('_', ' ')}, {len(answer['items'])} wait{does}")
        for item in answer["held_items"]:
            if item["uid"] not in held:
                held.add(item["uid"])
                line = _line({**item["item"], "item_uid": item["uid"]})
                click.echo(f"{_now()}  HELD {line}: {item['status']}, {item['reason']}")
        if options["until_idle"] and status["manager_state"] == "idle" and not running:
            client.close()
            return
        if output is not None:
            click.echo(next(output), nl=False)
        else:
            time.sleep(0.5)


@queue.command(help="Put a held item back at the front of the queue, and what was not run because of it.")
@_client_options
@click.argument("item")
def retry(**options: Any) -> None:
    """Retry a held item."""
    client = _client(options)
    answer = client.ask("held_retry", uid=options["item"])
    client.close()
    click.echo(f"{len(answer['items'])} queued at the front; `dfxrm queue start` runs them")


@queue.command(help="Give up a held item.")
@_client_options
@click.argument("item")
def drop(**options: Any) -> None:
    """Drop a held item."""
    client = _client(options)
    answer = client.ask("held_drop", uid=options["item"])
    client.close()
    click.echo(f"dropped: {_line(answer['item'])}")


@queue.command(help="Take an item out of the queue.")
@_client_options
@click.argument("item")
def remove(**options: Any) -> None:
    """Remove an item."""
    client = _client(options)
    items = [item for item in client.ask("queue_get")["items"] if item["item_uid"].startswith(options["item"])]
    if len(items) != 1:
        raise QueueError(f"{len(items) or 'no'} queued items begin with {options['item']!r}")
    client.ask("queue_item_remove", uid=items[0]["item_uid"])
    client.close()
    click.echo(f"removed: {_line(items[0])}")


# -- inside -----------------------------------------------------------------------------------------------------------


def _abort(options: Mapping[str, Any]) -> None:
    client = _client(options)
    ran = client.abort()
    client.close()
    click.echo("aborted; the item is held" if ran else "nothing runs")


def _say(sentence: str) -> None:
    click.echo(sentence)


def _now() -> str:
    return time.strftime("%H:%M:%S")


def _line(item: Mapping[str, Any]) -> str:
    from dfxrm_control.queue._items import label_of

    return f"{item['item_uid'][:_SHORT]}  {label_of(item)}"


def _served_config(folder: Path) -> MicroscopeConfig:
    """Return the configuration that the queue of a folder is served with."""
    file = folder / "microscope.yml"
    if not file.is_file():
        raise QueueError(f"no queue was started in folder {folder}: start one with `dfxrm queue serve`")
    return about(load_config(file))


def _checked_against(context: click.Context, options: Mapping[str, Any]) -> MicroscopeConfig:
    """Return the configuration that was named, else that of the queue of the folder, else the default."""
    from click.core import ParameterSource

    named = any(
        context.get_parameter_source(name) is not ParameterSource.DEFAULT
        for name in ("config", "settings", "sample", "data")
    )
    if not named and (options["folder"] / "microscope.yml").is_file():
        return _served_config(options["folder"])
    return chosen_config(options["config"], options["settings"], options["sample"], options["data"])


def _one_item(config: MicroscopeConfig, plan: str, options: Mapping[str, Any]) -> Item:
    from dfxrm_control.queue._night import checked_parameters

    values = {}
    for text in options["parameters"]:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{text!r} must have the form NAME=VALUE, e.g. rock_num=11")
        try:
            values[name.strip().replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.UsageError(f"{text!r}: the value is no valid YAML") from error
    parameters = checked_parameters(plan, values, config)
    return Item(plan, parameters, options["sample"], plan, on_failure=options["on_failure"])


def _try(config: MicroscopeConfig, items: Sequence[Item], start: Mapping[str, float]) -> NightCheck:
    from dfxrm_control.queue._check import check_items

    return check_items(config, items, start)
