"""Runs that belong together: each a run of its own, held together by what their start documents say.

A plan that makes such a series first makes its `InnerScan`, which refuses what cannot be before anything moves. What it
moves between its runs it puts back itself (`plans._mesh.always`). A run that fails ends the series: those before it are
complete, each with its own record.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dfxrm_control.errors import LimitError, ParameterError
from dfxrm_control.parameters import PLAN_PARAMETERS, PlanParameters
from plans._flat import MsgGenerator
from plans._instrument import Instrument

__all__ = ["InnerScan", "RunSeries", "check_reach"]


class InnerScan:
    """A plan of the microscope that another plan runs, with its parameters.

    Parameters
    ----------
    instrument : Instrument
        Its ``plans`` hold the plan, which is run with this instrument whatever it was bound to.
    name : str
        Name of the plan.
    given : mapping
        Its parameters; those of the configuration stand where these say nothing.
    outer : str
        Name of the plan that runs it, for messages.

    Raises
    ------
    ParameterError
        When there is no such plan on this microscope, or a parameter does not fit it.
    """

    def __init__(self, instrument: Instrument, name: str, given: Mapping[str, Any], outer: str) -> None:
        if name not in instrument.plans:
            known = ", ".join(each for each in instrument.plans if each in PLAN_PARAMETERS) or "none"
            raise ParameterError(f"{outer}: plan {name!r} is not available on {instrument.name!r}; it has {known}")
        self.name = name
        bound: Any = instrument.plans[name]
        rebind = getattr(bound, "rebind", None)
        self._plan: Any = bound if rebind is None else rebind(instrument)
        self._given = dict(given)
        self.parameters()

    def parameters(self, **changes: Any) -> Any:
        """Return the parameters it runs with, an instance of its own model, some of them changed.

        Raises
        ------
        ParameterError
            When they do not fit.
        """
        return self._plan.parameters.check({**self._plan.defaults, **self._given, **changes})

    def __call__(self, *, md: Mapping[str, Any] | None = None, **changes: Any) -> MsgGenerator:
        """Return the messages of one run, with some parameters changed this time."""
        messages: MsgGenerator = self._plan(**{**self._given, **changes}, md=dict(md or {}))
        return messages


class RunSeries:
    """The runs of one plan, in order.

    Every start document says under ``dfxrm``, ``series``: ``uid`` (the same for all), ``kind``, ``plan`` and
    ``parameters`` of the plan that makes the series, ``index`` (from 0), ``of`` (number of runs; None where nobody
    knows) and ``least`` (complete runs that a reduction needs), ``axis``, ``value`` and ``units`` of what changes from
    run to run, and what the kind adds; of a run that only prepares the others, ``prepares``.

    Parameters
    ----------
    kind : str
        The key of its reduction (`dfxrm_control.reduction.series.REDUCERS`).
    parameters : PlanParameters
        Of the plan that makes the series, for the record.
    of : int or None
        Number of runs planned.
    least : int
        Complete runs that its reduction needs; 0 where one that was cut short will do.
    axis, units : str
        What changes from run to run, and its unit.
    md : mapping
        The user's metadata, for every run.
    """

    def __init__(
        self,
        kind: str,
        parameters: PlanParameters,
        *,
        of: int | None,
        axis: str,
        units: str,
        md: Mapping[str, Any],
        least: int = 1,
    ) -> None:
        self._md = dict(md)
        self._common = {
            "uid": str(uuid.uuid4()),
            "kind": kind,
            "plan": parameters.plan,
            "parameters": parameters.record(),
            "of": of,
            "least": least,
            "axis": axis,
            "units": units,
        }
        self.results: list[Any] = []

    @property
    def uid(self) -> str:
        """What all runs of the series say, and no other run does."""
        return str(self._common["uid"])

    def run(
        self,
        plan: Callable[..., MsgGenerator],
        value: float,
        *,
        details: Mapping[str, Any] | None = None,
        dfxrm: Mapping[str, Any] | None = None,
    ) -> MsgGenerator:
        """Make one run and return what its plan returns, which is also kept in ``results``.

        Parameters
        ----------
        plan : callable
            Called with ``md=``, makes one run: an `InnerScan`, or a plan with everything else filled in.
        value : float
            Of what changes from run to run, in its unit.
        details : mapping, optional
            What the kind says of this run beside what every run says.
        dfxrm : mapping, optional
            More for ``dfxrm`` in the start document, beside the series.
        """
        series = {**self._common, "index": len(self.results), "value": float(value), **(details or {})}
        ours = {**self._md.get("dfxrm", {}), **(dfxrm or {}), "series": series}
        result = yield from plan(md={**self._md, "dfxrm": ours})
        self.results.append(result)
        return result


def check_reach(instrument: Instrument, name: str, positions: Iterable[float], what: str) -> None:
    """Ask an axis for positions that a later run of a series will need, before the first one begins.

    Raises
    ------
    ParameterError
        When there is no such axis.
    LimitError
        When it cannot go to one of them; ``what`` begins the sentence.
    """
    check: Callable[[float], None] = getattr(instrument.axis(name), "check_value", lambda position: None)
    for position in positions:
        try:
            check(position)
        except Exception as error:
            raise LimitError(f"{what}: {error}") from error
