"""Flat keyword arguments for plans, made from the models of their parameters.

A queue server checks the arguments of a plan only when they are flat keywords with simple annotations and bounds of
its own form. So each plan is written against its model, and the signature people and queues see is generated from that
model: one place says what a parameter is called, how large it may be and in which unit it is.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal, Protocol, Union, get_args, get_origin

from bluesky.utils import Msg
from pydantic.fields import FieldInfo

from dfxrm_control.parameters import PlanParameters
from plans._instrument import Instrument

__all__ = ["MsgGenerator", "Plan", "bind", "flat_keywords", "queue_annotation"]

MsgGenerator = Generator[Msg, Any, Any]
Metadata = Mapping[str, Any]


class Plan(Protocol):
    """A plan of ours: devices first, then flat keywords, then metadata."""

    __name__: str
    parameters: type[PlanParameters]

    def __call__(self, instrument: Instrument, *, md: Metadata | None = None, **keywords: Any) -> MsgGenerator:
        """Return the messages of one run of the plan."""
        ...


def flat_keywords(
    model: type[PlanParameters],
) -> Callable[[Callable[[Instrument, Any, dict[str, Any]], MsgGenerator]], Plan]:
    """Turn ``plan(instrument, parameters, md)`` into ``plan(instrument, *, <one keyword per field>, md=None)``.

    The keywords are checked by the model when the plan starts, before its first message.

    Parameters
    ----------
    model : type of PlanParameters
        The model whose fields become keywords.
    """

    def decorate(function: Callable[[Instrument, Any, dict[str, Any]], MsgGenerator]) -> Plan:
        def plan(instrument: Instrument, *, md: Metadata | None = None, **keywords: Any) -> MsgGenerator:
            return (yield from function(instrument, model.check(keywords), dict(md or {})))

        functools.update_wrapper(plan, function)
        del plan.__wrapped__  # type: ignore[attr-defined]  # tools would show the signature of the inner function
        keywords = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if info.is_required() else info.get_default(call_default_factory=True),
                annotation=_plain(info.annotation),
            )
            for name, info in model.model_fields.items()
        ]
        parameters = [
            inspect.Parameter("instrument", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Instrument),
            *keywords,
            inspect.Parameter("md", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=dict | None),
        ]
        _describe(plan, inspect.Signature(parameters, return_annotation=MsgGenerator), function.__doc__ or "", model)
        plan.parameters = model  # type: ignore[attr-defined]
        return plan  # type: ignore[return-value]

    return decorate


def bind(plan: Plan, instrument: Instrument, defaults: Mapping[str, Any] | None = None) -> Callable[..., MsgGenerator]:
    """Return the plan with its devices filled in, so that it takes keywords only.

    ``defaults`` are parameters of the plan that hold where the caller gives none.

    The result is a generator function of the same name with its own signature, annotations and docstring, as IPython
    and a queue server look at them; ``parameters`` is the plan's model, ``defaults`` what was given here, and
    ``rebind(instrument)`` the same with other devices or another sample.
    """

    def bound(*, md: Metadata | None = None, **keywords: Any) -> MsgGenerator:
        return (yield from plan(instrument, md=md, **{**(defaults or {}), **keywords}))

    functools.update_wrapper(bound, plan)
    del bound.__wrapped__  # type: ignore[attr-defined]
    bound.defaults = dict(defaults or {})  # type: ignore[attr-defined]
    bound.rebind = lambda other: bind(plan, other, defaults)  # type: ignore[attr-defined]
    signature = inspect.signature(plan)
    parameters = [parameter for name, parameter in signature.parameters.items() if name != "instrument"]
    bound.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    bound.__annotations__ = {name: kind for name, kind in plan.__annotations__.items() if name != "instrument"}
    head, _, tail = (plan.__doc__ or "").partition("instrument : Instrument\n")
    bound.__doc__ = head + tail.partition("\n")[2] if tail else plan.__doc__
    return bound


def queue_annotation(plan: Any) -> dict[str, Any]:
    """Return what bluesky-queueserver's ``parameter_annotation_decorator`` is given for a plan.

    Parameters
    ----------
    plan : plan
        One of ours, bound or not.

    Returns
    -------
    dict
        Description, and for each parameter its description, annotation, and ``min`` and ``max`` where it is bounded.
        The queue server's bounds are inclusive, so an exclusive bound of zero becomes a very small number.
    """
    parameters = {}
    for name, info in plan.parameters.model_fields.items():
        entry: dict[str, Any] = {"description": _sentence(info), "annotation": _text(_plain(info.annotation))}
        bounds = _bounds(info)
        entry.update({key: bounds[key] for key in ("min", "max") if key in bounds})
        parameters[name] = entry
    return {"description": (plan.__doc__ or "").strip().partition("\n")[0], "parameters": parameters}


def _describe(plan: Any, signature: inspect.Signature, summary: str, model: type[PlanParameters]) -> None:
    plan.__signature__ = signature
    plan.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()} | {
        "return": signature.return_annotation
    }
    head, _, tail = inspect.cleandoc(summary).partition("\n\nRaises\n")
    lines = [head, "", "Parameters", "----------", "instrument : Instrument", "    The devices to scan with."]
    for name, info in model.model_fields.items():
        given = signature.parameters[name].default
        default = "" if given in (None, inspect.Parameter.empty) else f", default {given!r}"
        lines += [f"{name} : {_text(_plain(info.annotation))}{default}", f"    {_sentence(info)}"]
    lines += ["md : dict, optional", "    Metadata added to the start document."]
    if tail:
        lines += ["", "Raises", tail]
    plan.__doc__ = "\n".join(lines) + "\n"


def _plain(annotation: Any) -> Any:
    """Return an annotation without pydantic's extras: ``Annotated[float, ...] | None`` becomes ``float | None``."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        plain = [_plain(part) for part in get_args(annotation)]
        return functools.reduce(lambda left, right: left | right, plain)
    if hasattr(annotation, "__metadata__"):
        return _plain(annotation.__origin__)
    return annotation


def _text(annotation: Any) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        return f"typing.Union[{', '.join(_text(part) for part in get_args(annotation))}]"
    if get_origin(annotation) is Literal:
        return f"typing.Literal[{', '.join(map(repr, get_args(annotation)))}]"
    return "None" if annotation in (None, type(None)) else annotation.__name__


def _sentence(info: FieldInfo) -> str:
    """Return description, unit and bounds of a field in one line."""
    extra = info.json_schema_extra
    unit = f" [{extra['units']}]" if isinstance(extra, dict) and "units" in extra else ""
    return f"{(info.description or '').rstrip('.')}{unit}."


def _metadata(annotation: Any) -> list[Any]:
    found = list(getattr(annotation, "__metadata__", ()))
    for item in list(found):
        found += item.metadata if isinstance(item, FieldInfo) else []
    for part in get_args(annotation):
        if not isinstance(part, str):
            found += _metadata(part)
    return found


def _bounds(info: FieldInfo) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for constraint in [*info.metadata, *_metadata(info.annotation)]:
        for key, attribute in (("min", "ge"), ("max", "le")):
            if (value := getattr(constraint, attribute, None)) is not None:
                bounds[key] = value
        if getattr(constraint, "gt", None) is not None:
            bounds["min"] = max(bounds.get("min", 0.0), constraint.gt + SMALLEST_ABOVE)
    return bounds


SMALLEST_ABOVE = 1e-9
"""Stands for "above zero" where only inclusive bounds can be said; far below any exposure (s) or step (deg)."""
