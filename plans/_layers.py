"""A stack of layers: the same scan at several heights of the sample in the line beam."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from bluesky.utils import Msg

from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import goniometer_rotation
from dfxrm_control.parameters import LayerParameters
from plans._flat import MsgGenerator, flat_keywords
from plans._instrument import Axis, Instrument
from plans._mesh import always, position_of, read_positions
from plans._series import InnerScan, RunSeries, check_reach

__all__ = ["layer_scan"]

TRANSLATIONS = ("samx", "samy", "samz")
GONIOMETER = ("mu", "omega", "chi", "phi")
STILL_MM = 1e-7
"""A translation that would move by less than 0.1 nm is left alone."""


@flat_keywords(LayerParameters)
def layer_scan(instrument: Instrument, parameters: LayerParameters, md: dict[str, Any]) -> MsgGenerator:
    """Scan a stack of layers with the line beam: one run per layer, from the lowest in the sample to the highest.

    The sample is moved straight up or down in the laboratory, so that the beam meets it in parallel layers at equal
    distances and each point of the sample keeps its place in the field. With the translations above the rotations that
    takes all three of them, because their axes are tilted with the sample. A layer's height counts upwards in the
    sample: to light a higher one the sample goes down.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves: no line beam, an inner plan or a parameter that does not fit, a height out of reach.
    """
    p = parameters
    scan = InnerScan(instrument, p.scan, p.scan_parameters, p.plan)
    yield from _check_beam(instrument)
    starts, per_um = yield from _way_up(instrument)
    heights = [p.center_um + p.step_um * (number - (p.layers - 1) / 2) for number in range(p.layers)]
    targets = {height: {name: starts[name] - height * each for name, each in per_um.items()} for height in heights}
    for height, there in targets.items():
        for name, position in there.items():
            check_reach(instrument, name, [position], f"layer_scan: the layer at {height:g} um is out of reach")
    series = RunSeries("layers", p, of=p.layers, least=2, axis="height", units="um", md=md)

    def stack() -> MsgGenerator:
        for height, there in targets.items():
            yield Msg("checkpoint")
            yield from _go(instrument, there)
            details = {"step_um": p.step_um, "translation_mm": there}
            yield from series.run(scan, round(height, 9), details=details)
        return series.results

    def back() -> MsgGenerator:
        yield from _go(instrument, starts)

    return (yield from always(stack(), back))


def _check_beam(instrument: Instrument) -> MsgGenerator:
    if "condenser" not in instrument.channels:
        return
    found = yield from read_positions({"condenser": instrument.channels["condenser"]})
    if found.get("condenser", "line") != "line":
        raise ParameterError(
            f"layer_scan: the condenser is {found['condenser']!r}, which lights the whole depth of the sample at once; "
            "layers need the 'line' beam"
        )


def _way_up(instrument: Instrument) -> Generator[Msg, Any, tuple[dict[str, float], dict[str, float]]]:
    """Return where the translations that are needed stand, mm, and how far each moves to lift the sample by 1 um, mm.

    Above the rotations, ``r_lab = R (r_sample + t)``, the way up is ``R^T z``; below them, it is z.
    """
    angles = {}
    for name in GONIOMETER:
        angles[name] = (yield from position_of(instrument.axis(name))) if name in instrument.axes else 0.0
    up = np.array([0.0, 0.0, 1.0])
    if instrument.config.sample_stage == "above":
        up = goniometer_rotation(**angles, mu_sign=instrument.config.mu_sign).T @ up
    per_um = {name: 1e-3 * float(part) for name, part in zip(TRANSLATIONS, up, strict=True) if abs(part) > STILL_MM}
    starts = {}
    for name in per_um:
        starts[name] = yield from position_of(instrument.axis(name))
    return starts, per_um


def _go(instrument: Instrument, there: dict[str, float]) -> MsgGenerator:
    axes: list[tuple[Axis, float]] = [(instrument.axis(name), position) for name, position in there.items()]
    for axis, position in axes:
        yield Msg("set", axis, position, group="layer")
    yield Msg("wait", None, group="layer")
