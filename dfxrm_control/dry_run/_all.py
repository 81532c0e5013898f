"""Every plan on every configuration: what a change of limits, speeds or parameters breaks is seen before a beamtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.dry_run._report import DryRun
from dfxrm_control.dry_run._run import dry_run
from dfxrm_control.errors import DfxrmError
from dfxrm_control.parameters import PLAN_PARAMETERS

__all__ = ["Tried", "try_all"]


@dataclass(frozen=True)
class Tried:
    """One plan on one configuration.

    Attributes
    ----------
    config, plan : str
        What was tried.
    verdict : str
        ``can run``; ``cannot run``, where it should; ``excused``, where the configuration says that it cannot; or
        ``not tried``, where a parameter has no default and the configuration gives none.
    reason : str
        Why not.
    report : DryRun or None
        The report, where there is one.
    """

    config: str
    plan: str
    verdict: Literal["can run", "cannot run", "excused", "not tried"]
    reason: str = ""
    report: DryRun | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain numbers, text, lists and mappings."""
        return asdict(self)

    def line(self) -> str:
        """Return it as one line."""
        if self.report is not None and self.verdict == "can run":
            frames = self.report.frames + self.report.darks
            most = "at most " if self.report.at_most else ""
            return f"{self.config:<16} {self.plan:<22} can run: {most}{frames} frames, {self.report.duration_s:.0f} s"
        return f"{self.config:<16} {self.plan:<22} {self.verdict}: {self.reason}"


def try_all(configs: Iterable[MicroscopeConfig]) -> Iterator[Tried]:
    """Try every plan of every configuration with the parameters it has there, from the configuration's start.

    The space on the disk of this computer is not looked at, and no journal: what counts is the configuration.

    Parameters
    ----------
    configs : iterable of MicroscopeConfig
        The microscopes.
    """
    for config in configs:
        for plan in config.plans:
            yield _try(config, plan)


def _try(config: MicroscopeConfig, plan: str) -> Tried:
    model = PLAN_PARAMETERS.get(plan)
    given = config.scan.parameters.get(plan, {})
    missing = [
        name for name, each in (model.model_fields.items() if model else ()) if each.is_required() and name not in given
    ]
    if missing:
        return Tried(config.name, plan, "not tried", f"it needs {', '.join(missing)} (scan.parameters.{plan})")
    report = None
    try:
        report = dry_run(config, plan, {}, source="configuration", disk=False)
        problem = "; ".join(report.problems)
    except DfxrmError as error:
        problem = str(error)
    excuse = config.dry_run.cannot.get(plan)
    if problem and excuse is not None:
        return Tried(config.name, plan, "excused", f"{excuse} ({problem})", report)
    if problem:
        return Tried(config.name, plan, "cannot run", problem, report)
    if excuse is not None:
        return Tried(config.name, plan, "cannot run", f"dry_run.cannot says {excuse!r}, but it can run", report)
    return Tried(config.name, plan, "can run", report=report)
