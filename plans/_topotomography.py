"""Topotomography: images of one grain from all sides, turned about its diffraction vector.

With the diffraction vector along the axis of omega, and that axis tilted into Bragg by mu, the reflection stays lit
through a whole turn (Ludwig et al. 2001, J. Appl. Cryst. 34, 602).
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.errors import ParameterError, PhysicsError, RunError
from dfxrm_control.parameters import TopotomographyParameters
from dfxrm_control.windows import AxisResponse, ScanAxis, Spread, WindowWarning, plan_window, view_response
from plans._flat import MsgGenerator, flat_keywords
from plans._frames import RunFrames, watching
from plans._instrument import Instrument
from plans._mesh import Mesh, always, mesh_scan, position_of, read_positions
from plans._series import RunSeries, check_reach
from plans._windows import bliss_title, view_or_reason

__all__ = ["topotomography_scan"]

TURN = "omega"
ROCK = "mu"
"""Below omega, so that the same rock meets the lattice at every turn."""
SIGNIFICANT = 5.0
"""A sum of frames shows a spot above this many times its noise."""
MARGIN = 0.02
"""Share of a frame's rows and columns that counts as its border."""
BRIGHT = 0.1
"""A border as bright as this share of the brightest pixel cuts the grain."""


@flat_keywords(TopotomographyParameters)
def topotomography_scan(
    instrument: Instrument, parameters: TopotomographyParameters, md: dict[str, Any]
) -> MsgGenerator:
    """Turn a grain about its diffraction vector, and rock it a little at each turn, in the box beam.

    The diffraction vector must stand along the axis of omega already (chi and phi as aligned). That is checked by a
    short scan of a few turns: where the peak of the rock wanders, the spot fades or the grain leaves the field, nothing
    further moves. The condenser is put to the box beam and back.

    Raises
    ------
    ParameterError, LimitError
        Before anything moves, when a parameter or a position is out of bounds.
    RunError
        After the check, when the grain is not aligned; the sentence says by how much.
    """
    p = parameters
    rock, remarks = yield from _rock(instrument, p)
    step = round(p.omega_range / p.omega_num, 9)
    turns = ScanAxis(TURN, p.omega_start, step, p.omega_num)
    check_reach(instrument, TURN, turns.positions(), p.plan)
    check_reach(instrument, rock.name, rock.positions(), p.plan)
    scan = _scan(instrument, p, Mesh((turns, rock), snake=True), remarks)
    series = RunSeries("topotomography", p, of=2 if p.check_num else 1, least=0, axis="part", units="", md=md)
    beam = instrument.channels.get("condenser")
    before = (yield from read_positions({"condenser": beam})) if beam is not None else {}

    def whole() -> MsgGenerator:
        if before.get("condenser", "box") != "box":
            yield from _beam(beam, "box")
        if p.check_num:
            yield from _check(instrument, p, rock, series)
        yield from series.run(scan, float(len(series.results)), details={"part": "projections"}, dfxrm={"maps": False})
        return series.results

    def put_back() -> MsgGenerator:
        if before.get("condenser", "box") != "box":
            yield from _beam(beam, before["condenser"])

    return (yield from always(whole(), put_back))


def _beam(condenser: Any, state: str) -> MsgGenerator:
    yield Msg("set", condenser, state, group="beam")
    yield Msg("wait", None, group="beam")


def _rock(instrument: Instrument, p: TopotomographyParameters) -> Generator[Msg, Any, tuple[ScanAxis, list[str]]]:
    """Work out the rock, and refuse a turn that is none about the diffraction vector."""
    name = p.rock or ROCK
    axis = instrument.axis(name)
    instrument.axis(TURN)
    view, reason = yield from view_or_reason(instrument, p.camera or instrument.defaults.camera)
    response: AxisResponse | None = None
    if view is not None:
        try:
            (response,) = view_response(view, [name], Spread(instrument.sample.spread_deg))
        except PhysicsError as error:
            reason = str(error)
    here = yield from position_of(axis)
    center, width, step, num = p.window("rock")
    middle = here if center is None else here + center if p.relative else center
    planned, remarks = plan_window(name, middle, width, step, num, response, reason)
    for remark in remarks:
        warnings.warn(remark, WindowWarning, stacklevel=2)
    if planned.num < 3:
        raise ParameterError(f"{p.plan}: a rock of {planned.num} points shows no peak; give at least 3")
    return planned, remarks


def _scan(instrument: Instrument, p: TopotomographyParameters, mesh: Mesh, remarks: list[str]) -> Any:
    return functools.partial(
        mesh_scan, instrument, mesh, p, title=bliss_title(instrument, mesh.axes, p.exposure_s), remarks=remarks
    )


@dataclass(frozen=True)
class _Seen:
    """What a frame tells of the spot: its sum and its brightest pixel in the middle and at the border, ADU."""

    total: float
    brightest: float
    border: float


def _seen(frame: NDArray) -> _Seen:
    rows, columns = (max(1, math.ceil(MARGIN * count)) for count in frame.shape)
    edges = (frame[:rows], frame[-rows:], frame[:, :columns], frame[:, -columns:])
    # one pixel in a hundred may be hot
    return _Seen(
        float(frame.sum(dtype=np.float64)),
        float(np.percentile(frame, 99.0)),
        max(float(np.percentile(edge, 99.0)) for edge in edges),
    )


def _check(instrument: Instrument, p: TopotomographyParameters, rock: ScanAxis, series: RunSeries) -> MsgGenerator:
    """Rock at a few turns and refuse to go on where the grain is not aligned."""
    turns = ScanAxis(TURN, p.omega_start, round(p.omega_range / p.check_num, 9), p.check_num)
    mesh = Mesh((turns, rock))
    frames = RunFrames(p.camera or instrument.defaults.camera)
    scan = _scan(instrument, p, mesh, [])

    def run() -> MsgGenerator:
        return series.run(scan, 0.0, details={"part": "alignment", "prepares": True}, dfxrm={"maps": False})

    yield from watching(frames, run)
    if not frames.live:
        return
    seen = yield from frames.each(_seen)
    darks = (yield from frames.each(_seen, "darks_before")) if frames.count("darks_before") else []
    _judge(p, mesh, seen, darks)


def _judge(p: TopotomographyParameters, mesh: Mesh, seen: list[_Seen], darks: list[_Seen]) -> None:
    """Raise RunError where the spot wanders, fades or is cut by the border.

    A diffraction vector that stands off the axis of omega by w goes round it: its rock is w cos(omega), its roll
    w sin(omega), up to phase. The one moves the peak, the other dims it.
    """
    turns, rock = mesh.axes
    totals = np.array([each.total for each in seen]).reshape(turns.num, rock.num)
    dark = np.array([each.total for each in darks])
    level = dark.mean() if len(dark) else totals.min()
    # of a sum over the rock: every frame's own noise, and that of the dark in all of them alike
    noise = dark.std(ddof=1) * math.sqrt(rock.num + rock.num**2 / len(dark)) if len(dark) > 1 else 0.0
    above = np.maximum(totals - level, 0.0)
    sums = (totals - level).sum(axis=1)
    if not sums.max() > SIGNIFICANT * noise:
        raise RunError(
            f"{p.plan}: nothing diffracts at any of the {turns.num} turns of the check; find the peak, and align chi "
            "and phi"
        )
    bad = int(sums.argmin())
    if sums[bad] < p.check_fading * sums.max():
        raise RunError(
            f"{p.plan}: at {TURN} {turns.position(bad):g} deg the spot has {max(sums[bad], 0.0) / sums.max():.0%} of "
            f"its highest intensity, less than the {p.check_fading:.0%} of check_fading; the diffraction vector is not "
            f"along the axis of {TURN}: align chi and phi"
        )
    positions = np.array(rock.positions())
    # the foot of a curve, noise or a neighbour, would pull its centre to the middle of the window
    peaks = np.maximum(above - above.max(axis=1, keepdims=True) / 4.0, 0.0)
    centers = peaks @ positions / peaks.sum(axis=1)
    wander, most = float(np.ptp(centers)), p.check_wander or abs(rock.step) * (rock.num - 1) / 5.0
    if wander > most:
        where = " and ".join(f"{turns.position(int(k)):g}" for k in (centers.argmin(), centers.argmax()))
        raise RunError(
            f"{p.plan}: the peak of {rock.name} wanders by {wander:.4g} deg between {TURN} {where} deg, more than the "
            f"{most:.4g} deg of check_wander; the diffraction vector is {wander / 2:.4g} deg or more off the axis of "
            f"{TURN}: align chi and phi"
        )
    floor = float(np.mean([each.brightest for each in darks])) if darks else min(each.border for each in seen)
    peak = max(each.brightest for each in seen) - floor
    cut = next((k for k, each in enumerate(seen) if each.border - floor > BRIGHT * peak), None)
    if cut is not None:
        raise RunError(
            f"{p.plan}: at {TURN} {turns.position(cut // rock.num):g} deg the grain reaches the border of the frame; "
            "centre it on the rotation axis, or use a camera objective with a wider field"
        )
