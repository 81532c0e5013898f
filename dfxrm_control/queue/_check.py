"""A dry run of the items of a queue file, in order: each starts where the one before it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.dry_run import DryRun, dry_run
from dfxrm_control.errors import DfxrmError
from dfxrm_control.queue._night import Item
from dfxrm_control.queue._plans import with_conditions

__all__ = ["Checked", "NightCheck", "check_items"]

_GB = 1e9


@dataclass(frozen=True)
class Checked:
    """One item and what it would do.

    Attributes
    ----------
    item : Item
        The item.
    report : DryRun or None
        Its dry run; None where there could be none.
    problems : list of str
        What forbids it.
    """

    item: Item
    report: DryRun | None
    problems: list[str]


@dataclass
class NightCheck:
    """The report of a whole queue file.

    Attributes
    ----------
    config : str
        Name of the configuration.
    start_from : str
        Where the positions of the first item were taken from.
    items : list of Checked
        In order.
    problems : list of str
        What forbids the file as a whole.
    """

    config: str
    start_from: str = ""
    items: list[Checked] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing forbids the file."""
        return not self.problems and not any(checked.problems for checked in self.items)

    def total(self, name: str) -> float:
        """Return the sum of a number of the reports over all items."""
        return sum(float(getattr(checked.report, name)) for checked in self.items if checked.report is not None)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, text, lists and mappings."""
        return {
            "config": self.config,
            "start_from": self.start_from,
            "ok": self.ok,
            "problems": list(self.problems),
            "frames": int(self.total("frames")),
            "darks": int(self.total("darks")),
            "duration_s": self.total("duration_s"),
            "exposed_s": self.total("exposed_s"),
            "data_bytes": int(self.total("data_bytes")),
            "items": [
                {
                    "label": checked.item.label,
                    "plan": checked.item.plan,
                    "parameters": checked.item.parameters,
                    "problems": list(checked.problems),
                    "report": None if checked.report is None else checked.report.as_dict(),
                }
                for checked in self.items
            ],
        }

    def lines(self) -> list[str]:
        """Return the report as text: one line per item, then the sums."""
        lines = [f"{len(self.items)} items on {self.config}, starting from {self.start_from or 'nowhere'}"]
        for number, checked in enumerate(self.items, 1):
            report = checked.report
            does = "" if report is None else f"  {report.frames} frames, {_hours(report.duration_s)}"
            lines.append(f"{number:>4}  {checked.item.label or checked.item.plan}{does}")
            lines += [f"      PROBLEM: {problem}" for problem in checked.problems]
            lines += [f"      warning: {warning}" for warning in (report.warnings if report is not None else ())]
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        lines += [
            f"in all: {self.total('frames'):.0f} frames and {self.total('darks'):.0f} darks, "
            f"{_hours(self.total('duration_s'))}, {self.total('data_bytes') / _GB:.3g} GB before compression",
            "the queue can run" if self.ok else "the queue cannot run",
        ]
        return lines


def check_items(
    config: MicroscopeConfig,
    items: Sequence[Item],
    start: Mapping[str, float] | None = None,
    tell: Callable[[Checked], None] = lambda checked: None,
) -> NightCheck:
    """Run items dry, in order, carrying the positions of all axes from one to the next.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope.
    items : sequence of Item
        In the order they would be run.
    start : mapping of str to float, optional
        Start positions of the first item by logical axis, mm, deg, keV or degC; the others as `dry_run` takes them.
    tell : callable, optional
        Told of each item as soon as it is done.

    Returns
    -------
    NightCheck
        With what forbids an item in its ``problems``. An item that cannot run is taken to have changed nothing.
    """
    config = with_conditions(config)
    night = NightCheck(config.name)
    positions: Mapping[str, float] | None = dict(start) if start else None
    free_bytes = None
    known: dict[Any, tuple[DryRun | None, list[str]]] = {}
    for item in items:
        # the same scan from the same place is the same: a hundred repeats are as quick as two
        same = (item.plan, repr(item.parameters), repr(positions))
        if same not in known:
            known[same] = _try(config, item, positions)
        report, problems = known[same]
        checked = Checked(item, report, problems)
        if report is not None:
            night.start_from = night.start_from or report.start_from
            free_bytes = report.free_bytes
            if not problems:
                positions = {**(positions or {}), **report.end}
        night.items.append(checked)
        tell(checked)
    kept = config.data.minimum_free_gb * _GB
    if free_bytes is not None and night.total("data_bytes") + kept > free_bytes:
        night.problems.append(
            f"the frames of all items take up to {night.total('data_bytes') / _GB:.3g} GB, and there are "
            f"{free_bytes / _GB:.3g} GB free, of which {kept / _GB:.3g} GB are kept (data.minimum_free_gb)"
        )
    return night


def _try(
    config: MicroscopeConfig, item: Item, positions: Mapping[str, float] | None
) -> tuple[DryRun | None, list[str]]:
    try:
        report = dry_run(config, item.plan, item.parameters, positions)
    except DfxrmError as error:
        return None, [str(error)]
    return report, report.problems


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
