"""The items of a queue as bluesky-queueserver has them: checking them, and reading what we keep in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.queue._errors import QueueError
from dfxrm_control.queue._night import SAMPLE_NAME, checked_parameters
from dfxrm_control.queue._permissions import Group

__all__ = ["check_item", "label_of", "plain_item", "told"]

LARGEST_META_BYTES = 20_000
STAFF_PLANS = ("move",)
RESERVED = frozenset(
    {"uid", "time", "scan_id", "plan", "subs", "plan_name", "plan_type", "num_points", "detectors", "dfxrm", "versions"}
)
"""Names that metadata of an item may not have: the run itself says these, or the RunEngine takes them as its own."""


def check_item(item: Any, group: Group, config: MicroscopeConfig) -> None:
    """Make sure that an item may be queued by somebody of a group.

    Raises
    ------
    QueueError
        When it is none, or its metadata are not safe.
    ParameterError
        When its plan or a parameter is not valid.
    """
    if not isinstance(item, Mapping):
        raise QueueError("an item is a mapping with item_type, name and kwargs")
    if item.get("item_type") == "instruction":
        return
    if item.get("item_type") != "plan":
        raise QueueError(f"an item of type {str(item.get('item_type'))[:60]!r} is not taken; plan and instruction are")
    name, kwargs = item.get("name"), item.get("kwargs") or {}
    if not isinstance(name, str) or not isinstance(kwargs, Mapping):
        raise QueueError("a plan is named by text, and its kwargs are a mapping")
    if name in STAFF_PLANS and group != "staff":
        raise QueueError(f"plan {name!r} needs the key of staff; place_sample moves the goniometer")
    if item.get("args"):
        raise QueueError(f"{name[:60]}: parameters are given by name, not by place")
    checked_parameters(name, kwargs, config)
    _check_meta(item.get("meta") or {})


def told(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a queue file says of an item: its label, block, what a failure means."""
    meta = item.get("meta")
    queue = meta.get("queue") if isinstance(meta, Mapping) else None
    return dict(queue) if isinstance(queue, Mapping) else {}


def label_of(item: Mapping[str, Any]) -> str:
    """Return what an item is called: where it stands in its file, else its plan."""
    return str(told(item).get("label") or item.get("name"))


def plain_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item as it was first queued, without what happened to it."""
    plain = {key: item[key] for key in ("item_type", "name", "args", "kwargs", "meta") if key in item}
    queue = told(item)
    if "because" in queue:
        plain["meta"] = {**plain["meta"], "queue": {key: queue[key] for key in queue if key != "because"}}
    return plain


def _check_meta(meta: Any) -> None:
    if not isinstance(meta, Mapping) or len(json.dumps(meta)) > LARGEST_META_BYTES:
        raise QueueError(f"meta is a mapping of at most {LARGEST_META_BYTES} characters")
    taken = sorted(name for name in meta if name in RESERVED or not str(name).isidentifier())
    if taken:
        raise QueueError(f"meta cannot have {taken[0][:60]!r}: the run itself says that, or it is no name")
    sample = meta.get("sample")
    if sample is not None and not (isinstance(sample, str) and re.fullmatch(SAMPLE_NAME, sample)):
        raise QueueError(
            f"sample name {str(sample)[:60]!r} cannot name a folder: letters, digits, _ and - are valid, at most 64"
        )
    queue = meta.get("queue", {})
    if not isinstance(queue, Mapping) or queue.get("on_failure", "stop") not in ("stop", "continue"):
        raise QueueError("meta.queue is a mapping, and its on_failure is stop or continue")
