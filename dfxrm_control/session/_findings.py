"""Telling the user what each step of an alignment found, and how sure it is: one row per step."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from dfxrm_control.session._progress import Terminal

__all__ = ["Findings"]

STREAM = "found"


class Findings:
    """A RunEngine callback that prints the events of the stream ``found``.

    Parameters
    ----------
    stream : TextIO, optional
        Where to write; default: standard error, so that the output of a command stays clean.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Terminal(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._scans: dict[str, int] = {}
        self._descriptors: dict[str, int] = {}
        self._headed = False

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take in one document."""
        if name == "start":
            self._scans = {doc["uid"]: int(doc.get("scan_id", 0))}
            self._descriptors = {}
        elif name == "descriptor" and doc.get("name") == STREAM:
            self._descriptors[doc["uid"]] = self._scans.get(doc["run_start"], 0)
        elif name == "event" and doc["descriptor"] in self._descriptors:
            self._row(self._descriptors[doc["descriptor"]], doc["data"])

    def _row(self, scan: int, data: Mapping[str, Any]) -> None:
        if not self._headed:
            self._headed = True
            self._print(f"{'scan':>5}  {'step':<22}{'axis':<14}{'before':>13}{'found':>13}{'error':>10}       ")
        found = {key.removeprefix("found_"): value for key, value in data.items()}
        numbers = "".join(
            f"{_number(found.get(key), digits):>{width}}"
            for key, digits, width in (("before", 6, 13), ("position", 6, 13), ("error", 2, 10))
        )
        sure = "sure    " if found.get("sure") else "NOT SURE"
        where = f"{found.get('step', ''):<22}{found.get('axis', ''):<14}"
        self._print(f"{scan:>5}  {where}{numbers} {found.get('units', ''):<4}{sure}  {found.get('reason', '')}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}g}" if isinstance(value, int | float) and math.isfinite(value) else "-"
