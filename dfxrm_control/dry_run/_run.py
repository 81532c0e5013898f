"""One dry run."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.dry_run._notebook import Notebook, offline
from dfxrm_control.dry_run._report import GB, DryRun
from dfxrm_control.dry_run._start import GIVEN, Source, StartUnknownError, start_of
from dfxrm_control.dry_run._walk import Walk
from dfxrm_control.envelopes import Envelopes
from dfxrm_control.errors import ConfigError, DfxrmError, ParameterError
from dfxrm_control.parameters import PLAN_PARAMETERS
from dfxrm_control.session import Devices, bind_plans, build_devices, kept_arm, reason_of, restore_arm

__all__ = ["dry_run"]


def dry_run(
    config: MicroscopeConfig,
    plan: str,
    parameters: Mapping[str, Any],
    start: Mapping[str, float] | None = None,
    *,
    source: Source | None = None,
    disk: bool = True,
) -> DryRun:
    """Run a plan with nothing behind it and report what it would do.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope; axes on any control system are looked up in it, never spoken to.
    plan : str
        Name of the plan.
    parameters : mapping
        Its parameters; those the configuration gives for the plan stand where these say nothing.
    start : mapping of str to float, optional
        Start positions by logical axis, mm, deg or keV; the others as `start_of` says.
    source : str, optional
        ``journal`` or ``configuration``: take what is not given from there only.
    disk : bool
        Whether too little free space is a problem.

    Returns
    -------
    DryRun
        With what forbids the run in ``problems``: a limit, bodies that meet, an exposure, too little disk space.

    Raises
    ------
    ParameterError
        When there is no such plan, or a parameter is not valid.
    StartUnknownError
        When the plan needs the position of an axis that has none.
    """
    if plan not in config.plans:
        raise ParameterError(f"plan {plan!r} is not in configuration {config.name!r}; it has {', '.join(config.plans)}")
    if plan in PLAN_PARAMETERS:
        PLAN_PARAMETERS[plan].check({**config.scan.parameters.get(plan, {}), **parameters})
    unconnected = offline(config)
    notebook = Notebook(unconnected)
    built = build_devices(unconnected, notebook)
    if built.faults:
        raise ConfigError(str(built.faults[0]))
    given = dict(start or {})
    computed = {axis: given.pop(axis) for axis in list(given) if hasattr(built.axes.get(axis), "real_axes")}
    found = start_of(config, given, source)
    found.origin |= dict.fromkeys(computed, GIVEN)
    notebook.settle(found.positions)
    arm = kept_arm(config)
    restore_arm(built.channels, arm)
    _, plans = bind_plans(unconnected, built)
    report = DryRun(plan, config.name, found.words())
    report.arm = arm.line() if arm is not None and arm.off else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _settle(built, notebook, given, computed)
            report.start = dict(notebook.axes())
            _look_at_start(report, config, notebook)
            Walk(report, notebook, built.axes, config).follow(plans[plan](**parameters))
        except StartUnknownError:
            raise
        except DfxrmError as error:
            report.problems.append(reason_of(error))
    report.end = dict(notebook.axes())
    # a plan made of many runs may say the same in each
    said = dict.fromkeys(str(warning.message) for warning in caught if _is_ours(warning.category))
    report.warnings += list(said)
    report.at_most = any(getattr(warning.category, "takes_most", False) for warning in caught)
    _look_at_disk(report, config, disk)
    return report


def _settle(built: Devices, notebook: Notebook, given: Mapping[str, float], computed: Mapping[str, float]) -> None:
    """Check given start positions, and put the parts of computed axes where those are to be."""
    for axis, position in {**given, **computed}.items():
        built.axes[axis].check_value(position)
    for axis, position in computed.items():
        notebook.settle(built.axes[axis].forward(position))


def _look_at_start(report: DryRun, config: MicroscopeConfig, notebook: Notebook) -> None:
    """Note bodies that are too close before anything moves: their way apart would be allowed, a plan is not."""
    envelopes = Envelopes.from_config(config)
    positions = notebook.axes()
    if envelopes.axes <= positions.keys():
        ways = {axis: (positions[axis], positions[axis]) for axis in envelopes.axes}
        found = envelopes.meeting(ways, {channel: notebook.get(channel) for channel in envelopes.channels})
        if found is not None:
            report.problems.append(
                f"at the start {found.first} and {found.second} are within {found.distance_mm:.3g} mm of each other, "
                f"and must stay {found.clearance_mm:.3g} mm apart"
            )


def _is_ours(category: type[Warning]) -> bool:
    return category.__module__.split(".")[0] in ("dfxrm_control", "plans")


def _look_at_disk(report: DryRun, config: MicroscopeConfig, forbids: bool) -> None:
    folder = Path(config.data.directory).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    report.free_bytes = shutil.disk_usage(folder).free
    kept = int(config.data.minimum_free_gb * GB)
    if forbids and report.data_bytes + kept > report.free_bytes:
        report.problems.append(
            f"the frames take up to {report.data_bytes / GB:.3g} GB, and {folder} has {report.free_bytes / GB:.3g} "
            f"GB free, of which {kept / GB:.3g} GB are kept (data.minimum_free_gb)"
        )
