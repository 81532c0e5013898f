"""A night of scans in a file: samples, their grains, the scans of each, and the conditions they are taken at.

A queue file is data. It names plans and their parameters, which the plans' own models check, and nothing in it is
imported, called or used as a path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dfxrm_control.config import MicroscopeConfig, one_sentence, yaml_mapping
from dfxrm_control.errors import ConfigError, ParameterError
from dfxrm_control.parameters import (
    CONDITION_PARAMETERS,
    PLAN_PARAMETERS,
    MoveParameters,
    PlaceSampleParameters,
    PlanParameters,
    SeriesParameters,
    SetTemperatureParameters,
    WaitParameters,
)
from dfxrm_control.queue._errors import QueueError

__all__ = ["MOST_ITEMS", "MOST_POINTS", "SAMPLE_NAME", "Item", "Night", "checked_parameters", "read_night"]

LARGEST_FILE_BYTES = 1_000_000
DEEPEST = 20
LONGEST_COMPLAINT = 300
MOST_ITEMS = 2000
"""More items than any night has."""
MOST_POINTS = 1_000_000
"""More points than one item may ask for: at 0.1 s each it would take longer than a day."""
SAMPLE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$"
"""What may name a sample, and so the folder of its data."""

_Name = Annotated[str, Field(pattern=SAMPLE_NAME)]
_Positions = Annotated[dict[str, float], Field(max_length=50)]
_Repeats = Annotated[int, Field(ge=1, le=MOST_ITEMS)]
OnFailure = Literal["stop", "continue"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Conditions(_Strict):
    """What is brought about before the scans of a sample, a grain or the whole file begin, in this order.

    Attributes
    ----------
    not_before : str or None
        Date and time to wait for.
    at : dict
        Targets of the goniometer's axes, mm or deg.
    move : dict
        Targets of any axes, mm, deg or keV; for staff.
    temperature : SetTemperatureParameters or None
        As the plan ``set_temperature`` takes it; a bare number is a temperature in degC.
    wait_s : float or None
        Time to wait, s.
    """

    not_before: str | None = None
    at: _Positions = {}
    move: _Positions = {}
    temperature: dict[str, Any] | None = None
    wait_s: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_temperature(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("temperature"), int | float):
            return {**values, "temperature": {"temperature": values["temperature"]}}
        return values

    def plans(self) -> Iterator[tuple[type[PlanParameters], dict[str, Any]]]:
        """Yield the plans that bring the conditions about, with their parameters."""
        if self.not_before is not None:
            yield WaitParameters, {"until": self.not_before}
        if self.at:
            yield PlaceSampleParameters, {"axes": dict(self.at)}
        if self.move:
            yield MoveParameters, {"axes": dict(self.move)}
        if self.temperature is not None:
            yield SetTemperatureParameters, dict(self.temperature)
        if self.wait_s is not None:
            yield WaitParameters, {"duration_s": self.wait_s}


class Scan(_Strict):
    """One scan: a plan of the microscope, its parameters, and how often it is run.

    Attributes
    ----------
    plan : str
        Name of the plan, as `dfxrm run` and the configuration have it.
    parameters : dict
        Its parameters; those the configuration gives for the plan stand where these say nothing.
    repeats : int
        How often, each time as a run of its own.
    on_failure : {"stop", "continue"} or None
        What the queue does when it fails; None: as what it stands in says.
    """

    plan: Annotated[str, Field(min_length=1, max_length=64)]
    parameters: dict[str, Any] = {}
    repeats: _Repeats = 1
    on_failure: OnFailure | None = None


class Block(_Strict):
    """Scans that belong together, and their conditions."""

    conditions: Conditions = Conditions()
    scans: tuple[Scan, ...] = ()
    repeats: _Repeats = 1
    on_failure: OnFailure | None = None


class Grain(Block):
    """A grain of a sample.

    Attributes
    ----------
    name : str
        Name of the grain, kept with its runs.
    go : dict or None
        How to go there by a coarse map: parameters of the plan ``dct_to_dfxrm`` without ``scan`` and
        ``scan_parameters``, which are those of the first of its scans. None: where `conditions` put the sample.
    """

    name: _Name
    go: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_scans(self) -> Self:
        if not self.scans:
            raise ValueError(f"grain {self.name!r} has no scans")
        return self


class Sample(Block):
    """A sample: its name, which is also that of the folder of its data, its scans and those of its grains."""

    name: _Name
    grains: tuple[Grain, ...] = ()

    @model_validator(mode="after")
    def _has_scans(self) -> Self:
        if not self.scans and not self.grains:
            raise ValueError(f"sample {self.name!r} has neither scans nor grains")
        return self


@dataclass(frozen=True)
class Item:
    """One item of a queue.

    Attributes
    ----------
    plan : str
        Name of the plan.
    parameters : dict
        As they were given, checked by the plan's model.
    sample : str or None
        Name of the sample.
    label : str
        Where it stands in the file, e.g. ``al_1 > grain7 > rocking_scan 2/3``.
    block : str
        Numbers of sample, grain and their repeats, e.g. ``0.0/2.0/``; what is brought about for a block is needed by
        all items whose block begins with it.
    condition : bool
        Whether the scans that follow in its block need it.
    on_failure : {"stop", "continue"}
        What the queue does when it fails.
    """

    plan: str
    parameters: dict[str, Any]
    sample: str | None = None
    label: str = ""
    block: str = ""
    condition: bool = False
    on_failure: OnFailure = "stop"
    night: dict[str, Any] = field(default_factory=dict)

    def as_queue_item(self) -> dict[str, Any]:
        """Return the item in the form a queue server takes."""
        told = {
            "label": self.label,
            "block": self.block,
            "condition": self.condition,
            "on_failure": self.on_failure,
            **self.night,
        }
        meta: dict[str, Any] = {"queue": told}
        if self.sample is not None:
            meta["sample"] = self.sample
        return {"item_type": "plan", "name": self.plan, "kwargs": self.parameters, "meta": meta}


class Night(_Strict):
    """A queue file.

    Attributes
    ----------
    version : int
        Of the format.
    config : str or None
        Name of the microscope's configuration it was written for; it is refused on another.
    on_failure : {"stop", "continue"}
        What the queue does when an item fails, where the item says nothing else.
    conditions : Conditions
        Brought about before everything else.
    samples : tuple of Sample
        In order.
    """

    version: Literal[1] = 1
    config: str | None = None
    on_failure: OnFailure = "stop"
    conditions: Conditions = Conditions()
    samples: tuple[Sample, ...] = Field(min_length=1, max_length=MOST_ITEMS)

    def items(self, config: MicroscopeConfig, name: str = "") -> list[Item]:
        """Return all items in the order they are run, each checked by the model of its plan.

        Parameters
        ----------
        config : MicroscopeConfig
            The microscope.
        name : str, optional
            Name of the file, kept with each run.

        Raises
        ------
        QueueError
            When the file is for another microscope, or has too many items.
        ParameterError
            When a plan or a parameter is not valid; the sentence says where it stands.
        """
        if self.config is not None and self.config != config.name:
            raise QueueError(f"the queue file is for configuration {self.config!r}, and this is {config.name!r}")
        items: list[Item] = []
        points = 0.0
        for item in self._unrolled(config):
            items.append(item if not name else _named(item, name))
            if len(items) > MOST_ITEMS:
                raise QueueError(f"the queue file makes more than {MOST_ITEMS} items; repeats multiply")
            points += points_of(item.plan, item.parameters)
        if points > MOST_POINTS * 10:
            raise QueueError(
                f"the queue file asks for {points:.3g} points, more than the {MOST_POINTS * 10:,} of a file"
            )
        return items

    def _unrolled(self, config: MicroscopeConfig) -> Iterator[Item]:
        yield from _conditions(self.conditions, config, None, "the file", "", self.on_failure)
        for number, sample in enumerate(self.samples):
            said = sample.on_failure or self.on_failure
            for turn in range(sample.repeats):
                block = f"{number}.{turn}/"
                where = _turn(sample.name, turn, sample.repeats)
                yield from _conditions(sample.conditions, config, sample.name, where, block, said)
                yield from _scans(sample.scans, config, sample.name, where, block, said, {})
                for count, grain in enumerate(sample.grains):
                    yield from _grain(grain, config, sample.name, where, f"{block}{count}", said)


def read_night(path: Path) -> Night:
    """Read and check a queue file.

    Raises
    ------
    QueueError
        When it is absent, too large, no YAML, has tags, anchors or aliases in it, or does not fit the model; one
        sentence says where.
    """
    what = f"queue file {path}"
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise QueueError(f"{what} cannot be read: {error.strerror or error}") from error
    if len(raw) > LARGEST_FILE_BYTES:
        raise QueueError(f"{what} is larger than {LARGEST_FILE_BYTES / 1e6:g} MB, which no queue file is")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise QueueError(f"{what} is no UTF-8 text") from error
    try:
        _refuse_tricks(text, what)
        content = yaml_mapping(text, what)
    except ConfigError as error:
        raise QueueError(_short(str(error))) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise QueueError(_short(f"{what}{where} is no valid YAML: {getattr(error, 'problem', error)}")) from error
    try:
        return Night.model_validate(content)
    except ValidationError as error:
        raise QueueError(_short(one_sentence(error, what))) from error


def checked_parameters(plan: str, parameters: Mapping[str, Any], config: MicroscopeConfig) -> dict[str, Any]:
    """Return the parameters of a plan when its model takes them.

    Raises
    ------
    ParameterError
        When there is no such plan, a parameter is not valid, or it asks for more points than an item may.
    """
    model = CONDITION_PARAMETERS.get(plan)
    if model is None and plan in config.plans:
        model = PLAN_PARAMETERS.get(plan)
        if model is None:  # a plan of the user's own: it says itself what it takes, when it starts
            return dict(parameters)
    if model is None:
        known = ", ".join(dict.fromkeys([*config.plans, *CONDITION_PARAMETERS]))
        raise ParameterError(
            _short(f"plan {plan!r} is not in configuration {config.name!r}", 120) + f"; it has {known}"
        )
    try:
        model.check({**config.scan.parameters.get(plan, {}), **parameters})
    except ParameterError as error:
        raise ParameterError(_short(str(error))) from error
    points = points_of(plan, parameters)
    if points > MOST_POINTS:
        raise ParameterError(f"{plan}: {points:.3g} points are more than the {MOST_POINTS:,} that one item may ask for")
    return dict(parameters)


def points_of(plan: str, parameters: Mapping[str, Any]) -> float:
    """Return how many points the numbers among the parameters ask for; 1 where they leave it to the plan."""
    points = 1.0
    for name, value in parameters.items():
        if name in ("num", "repeats", "n") or name.endswith("_num"):
            points *= float(value) if isinstance(value, int | float) else 1.0
        elif name.endswith("_step") and isinstance(value, int | float) and value > 0:
            width = parameters.get(f"{name.removesuffix('_step')}_range")
            points *= max(1.0, float(width) / float(value)) if isinstance(width, int | float) else 1.0
    inner = parameters.get("scan_parameters")
    model = PLAN_PARAMETERS.get(plan)
    if model is not None and issubclass(model, SeriesParameters) and isinstance(inner, Mapping):
        points *= points_of(str(parameters.get("scan", "mosaicity_scan")), inner)
    return points if math.isfinite(points) else MOST_POINTS * 100.0


# -- inside -----------------------------------------------------------------------------------------------------------


def _refuse_tricks(text: str, what: str) -> None:
    """Refuse tags, which ask for objects, and aliases, by which a few lines become a billion."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        at = f"{what}, line {mark.line + 1}" if mark is not None else what
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise QueueError(f"{at}: anchors and aliases (& and *) are not allowed in a queue file")
        if tag := getattr(event, "tag", None):
            raise QueueError(_short(f"{at}: the tag {tag!r} is not allowed in a queue file"))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise QueueError(f"{at}: nested deeper than {DEEPEST} levels")


def _grain(
    grain: Grain, config: MicroscopeConfig, sample: str, above: str, block: str, inherited: OnFailure
) -> Iterator[Item]:
    said = grain.on_failure or inherited
    for turn in range(grain.repeats):
        inside = f"{block}.{turn}/"
        where = f"{above} > {_turn(grain.name, turn, grain.repeats)}"
        night = {"grain": grain.name}
        yield from _conditions(grain.conditions, config, sample, where, inside, said, night)
        scans = grain.scans
        if grain.go is not None:
            first = scans[0]
            there = {**grain.go, "scan": first.plan, "scan_parameters": dict(first.parameters)}
            label = f"{where} > dct_to_dfxrm"
            parameters = _checked("dct_to_dfxrm", there, config, label)
            yield Item("dct_to_dfxrm", parameters, sample, label, inside, True, first.on_failure or said, night)
            scans = (first.model_copy(update={"repeats": first.repeats - 1}), *scans[1:])
        yield from _scans(scans, config, sample, where, inside, said, night)


def _scans(
    scans: tuple[Scan, ...],
    config: MicroscopeConfig,
    sample: str,
    where: str,
    block: str,
    inherited: OnFailure,
    night: dict[str, Any],
) -> Iterator[Item]:
    for scan in scans:
        for turn in range(scan.repeats):
            label = f"{where} > {_turn(scan.plan, turn, scan.repeats)}"
            parameters = _checked(scan.plan, scan.parameters, config, label)
            yield Item(scan.plan, parameters, sample, label, block, False, scan.on_failure or inherited, night)


def _conditions(
    conditions: Conditions,
    config: MicroscopeConfig,
    sample: str | None,
    where: str,
    block: str,
    on_failure: OnFailure,
    night: dict[str, Any] | None = None,
) -> Iterator[Item]:
    for model, values in conditions.plans():
        label = f"{where} > {model.plan}"
        parameters = _checked(model.plan, values, config, label)
        yield Item(model.plan, parameters, sample, label, block, True, on_failure, night or {})


def _checked(plan: str, values: Mapping[str, Any], config: MicroscopeConfig, label: str) -> dict[str, Any]:
    try:
        return checked_parameters(plan, values, config)
    except ParameterError as error:
        raise ParameterError(_short(f"{label}: {error}", 2 * LONGEST_COMPLAINT)) from error


def _named(item: Item, name: str) -> Item:
    return Item(**{**item.__dict__, "night": {**item.night, "file": name}})


def _turn(name: str, turn: int, of: int) -> str:
    return name if of == 1 else f"{name} {turn + 1}/{of}"


def _short(sentence: str, longest: int = LONGEST_COMPLAINT) -> str:
    """Return a sentence that stays one although it repeats what a hostile file says."""
    sentence = " ".join(sentence.split())
    return sentence if len(sentence) <= longest else f"{sentence[: longest - 4]} ..."
