"""Plans that take a coarse grain map to scans of its grains: of one, or of the best ones unattended."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from bluesky.utils import Msg
from numpy.typing import NDArray

from dfxrm_control.errors import AlignmentError, ConfigError, LimitError, ParameterError
from dfxrm_control.parameters import CampaignParameters, DctToDfxrmParameters, numbers_in
from plans._flat import MsgGenerator, flat_keywords
from plans._handoff._go import GONIOMETER, SAMPLE
from plans._handoff._visit import HandoffWarning, Hunt, hunt
from plans._instrument import Instrument

if TYPE_CHECKING:
    from dfxrm_control.handoff import Choices, Visit

__all__ = ["campaign", "dct_to_dfxrm", "least_travel"]

TRAVELLING = (*GONIOMETER, *SAMPLE, "mainx", "obx", "obz", "ffz")
FEWEST_FOR_REGISTRATION = 3


@flat_keywords(DctToDfxrmParameters)
def dct_to_dfxrm(instrument: Instrument, parameters: DctToDfxrmParameters, md: dict[str, Any]) -> MsgGenerator:
    """Go to a grain of a coarse map, find its peak, centre it, and scan it.

    The settings follow from the map and from the registration that is stored with the sample, if it is of this map.
    The sample goes down, the arm moves, then the goniometer, and the sample comes back. With the box beam and the
    widest field of the camera the peak is searched over rock and roll in growing windows, then the grain is centred by
    its height in the line beam, then its tilts again. The scan is run with the beam and the camera as they stood.
    Each step is a run of its own; all say what was predicted, and the scan says what was found and how far from the
    prediction. The microscope stays at the grain; where it is not found, everything goes back. Returns a
    `dfxrm_control.handoff.Visit`.

    Raises
    ------
    ParameterError, FileFormatError, LimitError
        Before anything moves: a map that cannot be read, a grain or a reflection that is not there or out of reach, a
        grain larger than the widest field, a scan that does not fit.
    AlignmentError
        When the grain is not found where it is predicted.
    """
    p = parameters
    going = yield from hunt(instrument, p, md)
    choices, row = _chosen(going, p.grain)
    going.check(choices, row)

    def work() -> MsgGenerator:
        visit = yield from going.visit(choices, row)
        hkl = " ".join(map(str, visit.hkl))
        if visit.status == "not centred":
            raise AlignmentError(
                f"{p.plan}: the peak of grain {visit.grain_id} ({hkl}) was found, but it could not be centred "
                f"({visit.reason}); the sample is back where it was"
            )
        if not visit.found:
            raise AlignmentError(
                f"{p.plan}: grain {visit.grain_id} ({hkl}) was not found where it is predicted ({visit.reason}); the "
                "registration of the map is wrong, or its axes are mixed up; the sample is back where it was"
            )
        return visit

    return (yield from going.guarded(work, lambda visit: True))


def _chosen(going: Hunt, grain: int) -> tuple[Choices, int]:
    """Return the settings of a grain and the row to go to."""
    p = going.parameters
    # with room for the search where that is possible
    choices = going.choices([grain])
    if not _wanted(choices, p.hkl).any():
        choices = going.choices([grain], margin=False)
    if p.hkl is not None:
        asked = [int(part) for part in numbers_in(p.hkl)]
        exact = np.flatnonzero((choices.hkl == asked).all(axis=1))
        row = int(exact[0])
        if not choices.reachable[row]:
            others = [" ".join(map(str, choices.hkl[k])) for k in np.flatnonzero(choices.reachable)]
            instead = (
                f"of its family {', '.join(others)} can be reached" if others else "nor is any of its family in reach"
            )
            raise ParameterError(
                f"{p.plan}: reflection {p.hkl} of grain {grain} is out of reach ({choices.reason[row]}); {instead}"
            )
        return choices, row
    if not choices.reachable.any():
        raise ParameterError(
            f"{p.plan}: no reflection of grain {grain} can be reached; the nearest, "
            f"{' '.join(map(str, choices.hkl[0]))}, fails because {choices.reason[0]}"
        )
    # a smaller reflection may have the larger field
    fitting = np.flatnonzero(choices.reachable & choices.fits)
    return choices, int(fitting[0]) if len(fitting) else 0


def _wanted(choices: Choices, hkl: str | None) -> NDArray[np.bool_]:
    """Return which rows can be reached and are of the reflection, if one is asked for."""
    if hkl is None:
        return choices.reachable
    return np.asarray(choices.reachable & (choices.hkl == [int(part) for part in numbers_in(hkl)]).all(axis=1))


@flat_keywords(CampaignParameters)
def campaign(instrument: Instrument, parameters: CampaignParameters, md: dict[str, Any]) -> MsgGenerator:
    """Scan the best grains of a coarse map one after the other, unattended, in the order that travels least.

    Each is visited as `dct_to_dfxrm` does. A grain that is too large for the widest field, out of reach, or so near to
    another in place and orientation that they may be taken for one another is skipped with its reason, and so is one
    that is not found. From the third grain found on, the registration is fitted again and the rest is predicted by it,
    and those not found before are tried once more. Where the first ones are not found, all of them, nothing more is
    tried. At the end the last registration is stored with the sample, where it can be undone, everything goes back, and
    a report of all grains is made. Returns a list of `dfxrm_control.handoff.Visit`.

    Raises
    ------
    ParameterError, FileFormatError, LimitError
        Before anything moves: a map that cannot be read, no grain that could be visited, a scan that does not fit.
    AlignmentError
        When none of the first ``give_up_after`` grains, or none at all, is found where it is predicted.
    """
    p = parameters
    going = yield from hunt(instrument, p, md)
    choices = going.choices(None)
    rows = _best(going, choices, p.n)
    if len(rows) < p.n:
        warnings.warn(
            f"campaign: {p.n} grains were asked for, and {len(rows)} can be visited", HandoffWarning, stacklevel=2
        )
    here = yield from _here(instrument)
    order = [rows[k] for k in least_travel(_seconds(instrument, choices, rows, here))]
    targets = [(int(choices.grain_id[row]), choices.hkl[row].tolist()) for row in order]

    def work() -> Generator[Msg, Any, list[Visit]]:
        from dfxrm_control.handoff import Visit

        visits: dict[int, Visit] = {}
        first = going.registration

        def visit(grain: int, hkl: list[int]) -> MsgGenerator:
            now = going.choices([grain], margin=False) if going.registration != first else going.choices([grain])
            row = int(np.flatnonzero((now.hkl == hkl).all(axis=1))[0])
            try:
                going.check(now, row)
            except (ParameterError, LimitError) as error:
                # in reach by the first prediction, not by the better one
                going.skipped.append({"grain": grain, "hkl": hkl, "reason": str(error)})
                visits[grain] = Visit(grain, (hkl[0], hkl[1], hkl[2]), "skipped", str(error))
                return
            visits[grain] = yield from going.visit(now, row)
            if p.refit and visits[grain].found and going.live:
                _refit(going, list(visits.values()))

        for grain, hkl in targets:
            yield from visit(grain, hkl)
            _give_up(p, list(visits.values()))
        if going.registration != first:
            for grain, hkl in targets:
                if visits[grain].status in ("not found", "not centred"):
                    yield from visit(grain, hkl)
        if not any(each.sighted for each in visits.values()):
            raise AlignmentError(_nothing_found(p, list(visits.values())))
        yield from going.conclude(keep=p.keep_registration)
        return list(visits.values())

    return (yield from going.guarded(work, lambda visits: False))


def _best(going: Hunt, choices: Choices, count: int) -> list[int]:
    """Return the best row of each of the best grains, and note why others are skipped.

    Raises
    ------
    ParameterError
        When none is left.
    """
    rows: list[int] = []
    reasons: dict[int, tuple[list[int], str]] = {}
    taken: set[int] = set()
    for row in np.flatnonzero(choices.reachable).tolist():
        grain = int(choices.grain_id[row])
        if grain in taken or len(rows) == count:
            continue
        beside = going.companions(choices, row)
        try:
            going.check(choices, row)
        except (ParameterError, LimitError) as error:
            reasons.setdefault(grain, (choices.hkl[row].tolist(), str(error)))
            continue
        if beside:
            which = ", ".join(map(str, beside))
            reasons.setdefault(
                grain, (choices.hkl[row].tolist(), f"grain {which} diffracts nearby, and may be taken for it")
            )
            continue
        taken.add(grain)
        rows.append(row)
    going.skipped = [
        {"grain": grain, "hkl": hkl, "reason": reason} for grain, (hkl, reason) in reasons.items() if grain not in taken
    ]
    if not rows:
        first = f"; {going.skipped[0]['reason']}" if going.skipped else f"; {choices.reason[0]}" if len(choices) else ""
        raise ParameterError(f"campaign: no grain of {going.grains.source} can be visited{first}")
    return rows


def _here(instrument: Instrument) -> Generator[Msg, Any, dict[str, float]]:
    from plans._mesh import position_of

    here = {}
    for name in TRAVELLING:
        here[name] = yield from position_of(instrument.axis(name))
    return here


def _seconds(
    instrument: Instrument, choices: Choices, rows: Sequence[int], here: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return how long it takes from each place to each other, s; the first place is the present one."""
    speeds = []
    for name in TRAVELLING:
        try:
            assert instrument.whole is not None  # `hunt` has seen to it
            speeds.append(instrument.whole.axis(name).velocity)
        except ConfigError:
            speeds.append(1.0)
    places = np.array(
        [[here[name] for name in TRAVELLING], *([choices.setting(row)[n] for n in TRAVELLING] for row in rows)]
    )
    return np.asarray(np.abs((places[:, np.newaxis] - places[np.newaxis]) / np.array(speeds)).max(axis=-1))


def least_travel(seconds: NDArray) -> list[int]:
    """Return in which order to visit places so that the whole way is short: nearest next, then without crossings.

    Parameters
    ----------
    seconds : ndarray, shape (n + 1, n + 1)
        Time from each place to each other; place 0 is where the way begins.

    Returns
    -------
    list of int
        The n places by their number less one. No exchange of two stretches makes the way shorter (2-opt; Croes 1958,
        Oper. Res. 6, 791).
    """
    left = set(range(1, len(seconds)))
    way = [0]
    while left:
        way.append(min(left, key=lambda k: float(seconds[way[-1], k])))
        left.remove(way[-1])
    better = True
    while better:
        better = False
        for i in range(1, len(way) - 1):
            for j in range(i + 1, len(way)):
                after = way[j + 1] if j + 1 < len(way) else None
                now = seconds[way[i - 1], way[i]] + (0.0 if after is None else seconds[way[j], after])
                then = seconds[way[i - 1], way[j]] + (0.0 if after is None else seconds[way[i], after])
                if then < now - 1e-9:
                    way[i : j + 1] = way[i : j + 1][::-1]
                    better = True
    return [place - 1 for place in way[1:]]


def _give_up(p: CampaignParameters, visits: Sequence[Visit]) -> None:
    """Stop where the first grains are all not found: then the map lies otherwise than it is thought to."""
    tried = [visit for visit in visits if visit.status != "skipped"]
    if len(tried) >= p.give_up_after and not any(visit.sighted for visit in tried):
        raise AlignmentError(_nothing_found(p, tried))


def _nothing_found(p: CampaignParameters, visits: Sequence[Visit]) -> str:
    which = ", ".join(str(visit.grain_id) for visit in visits)
    return (
        f"campaign: none of the {len(visits)} grains that were tried ({which}) was found where it is predicted; the "
        "axes of the map are mixed up, or its registration is wrong by more than search_range and search_um"
    )


def _refit(going: Hunt, visits: Sequence[Visit]) -> None:
    """Fit the registration to what was found, and go by it where it is believed."""
    from dfxrm_control.handoff import found_grains, register

    found = found_grains(visits)
    if len(found) < FEWEST_FOR_REGISTRATION:
        return
    config = going.instrument.config
    try:
        fit = register(going.grains, found, mu_sign=config.mu_sign, stage=config.sample_stage)
    except ParameterError:
        return  # their diffraction vectors are parallel; the next grain may change that
    if fit.doubt():
        warnings.warn(f"campaign: the registration is not used: {fit.doubt()}", HandoffWarning, stacklevel=2)
        return
    going.fit, going.registration = fit, fit.registration
