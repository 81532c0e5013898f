"""One grain of a map, from its prediction to its scan."""

from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bluesky import preprocessors as bpp
from bluesky.utils import Msg

from dfxrm_control.alignment import Found
from dfxrm_control.errors import ConfigError, DfxrmError, ParameterError
from dfxrm_control.microscope import View
from dfxrm_control.parameters import HandoffParameters, numbers_in
from plans._alignment._expected import lens_view
from plans._alignment._objective import far_field_camera, with_widest_field
from plans._alignment._step import set_channel
from plans._flat import MsgGenerator
from plans._handoff._center import center_grain
from plans._handoff._find import find_grain, peak_ways
from plans._handoff._go import GONIOMETER, SAMPLE, Route
from plans._instrument import Instrument
from plans._mesh import always, position_of, read_positions
from plans._series import InnerScan, RunSeries

if TYPE_CHECKING:
    from dfxrm_control.config import MicroscopeConfig, SampleConfig
    from dfxrm_control.grains import GrainMap
    from dfxrm_control.handoff import Choices, FoundGrain, Registration, RegistrationFit, Visit

__all__ = ["HandoffWarning", "Hunt"]

T = TypeVar("T")

REFINED = 3.0
"""Half width of the search with the line beam, in FWHM of the instrument: the grain is on its peak already."""
FALLBACK_HEIGHT_UM = 60.0
"""Height of a grain of which the map tells no size."""
CONDENSER, BOX, LINE = "condenser", "box", "line"


class HandoffWarning(UserWarning):
    """Something about a grain that may spoil its scan."""


class Hunt:
    """Going to grains of one map, as part of one plan.

    Made by `hunt`. Whatever it raises, it raises before anything moves, but for what a step of a visit finds.

    Attributes
    ----------
    grains : GrainMap
        The map.
    registration : Registration
        By which it predicts; may be replaced between visits.
    route : Route
        Its ways.
    live : bool
        Whether there is anything to see; False in a dry run.
    skipped : list of dict
        Grains that are left out, each with its reflection and why.
    fit : RegistrationFit or None
        The registration that was found on the way, if it is believed.
    """

    def __init__(
        self,
        instrument: Instrument,
        parameters: HandoffParameters,
        grains: GrainMap,
        registration: Registration,
        view: View,
        objectives: tuple[str, str, str],
        md: Mapping[str, Any],
    ) -> None:
        self.instrument, self.parameters, self.grains, self.registration = instrument, parameters, grains, registration
        self.camera = view.camera
        self.energy_kev = view.energy_kev
        self.widest, self.wanted, self.present = objectives
        self.route = Route(instrument, parameters.retract_mm, view.energy_kev, view.objective_name)
        # refused now where it does not fit
        self._scan(instrument)
        self.series = RunSeries("handoff", parameters, of=None, axis="grain", units="", md=md)
        self.live = True
        self.beam = self.search_beam = ""
        self.skipped: list[dict[str, Any]] = []
        self.fit: RegistrationFit | None = None
        # of the present reflection; that of another differs by little
        self._fwhm = max(peak_ways(view, instrument.defaults.rock, instrument.defaults.roll).fwhm)

    @property
    def whole(self) -> MicroscopeConfig:
        """The configuration."""
        return _whole(self.instrument)

    def choices(self, grain_ids: list[int] | None, objective: str | None = None, *, margin: bool = True) -> Choices:
        """Return the settings of some grains, or of all, by the present registration.

        With a margin, chi and phi leave room for the whole search.
        """
        from dfxrm_control.handoff import choose  # compiled code, which no other plan needs

        return choose(
            self.grains,
            self.whole,
            energy_kev=self.energy_kev,
            hkl=None if self.parameters.hkl is None else [int(part) for part in numbers_in(self.parameters.hkl)],
            grain_ids=grain_ids,
            camera=self.camera,
            camera_objective=self.widest if objective is None else objective,
            registration=self.registration,
            margin_deg=self.parameters.search_range / 2.0 if margin else 0.0,
        )

    def companions(self, choices: Choices, row: int) -> list[int]:
        """Return other grains that light up in the search."""
        from dfxrm_control.handoff import companions

        half = self.parameters.search_range / 2.0
        reach = float(choices.field_um[row].max()) / 2.0 + self.parameters.search_um
        return companions(
            self.grains,
            self.registration,
            int(choices.grain_id[row]),
            choices.hkl[row].tolist(),
            choices.setting(row),
            (half, half),
            reach,
            mu_sign=self.instrument.config.mu_sign,
        )

    def height_um(self, grain_id: int) -> float:
        """Return how high a grain is, as the map says."""
        height = 1e3 * float(self.grains.size_mm[self.grains.row(grain_id)].max())
        return height if height > 0.0 else FALLBACK_HEIGHT_UM

    def check(self, choices: Choices, row: int) -> None:
        """Refuse a setting out of reach, or a grain that the map or the widest field cuts, before anything moves.

        Raises
        ------
        ParameterError, LimitError
            Saying which grain, and why.
        """
        hkl = " ".join(map(str, choices.hkl[row]))
        what = f"{self.parameters.plan}: grain {choices.grain_id[row]} ({hkl})"
        if not choices.reachable[row]:
            raise ParameterError(f"{what} is out of reach: {choices.reason[row]}")
        if not choices.fits[row]:
            x, y = choices.grain_um[row]
            across = ", ".join(f"({a:+.0f}, {b:+.0f})" for a, b in choices.tile_places_um(row))
            raise ParameterError(
                f"{what} is {x:.0f} x {y:.0f} um, larger than the field of {choices.field_um[row, 0]:.0f} x "
                f"{choices.field_um[row, 1]:.0f} um, so it cannot be centred; {choices.too_large(row)}, at {across} um "
                "along the beam and across it from its middle"
            )
        if choices.edge[row] and not self.parameters.allow_edge:
            raise ParameterError(
                f"{what} touches the border of the map, where it may be cut, so its centre may lie elsewhere; take a "
                "grain inside the map, or set allow_edge=true to go there all the same"
            )
        reach_mm = 1e-3 * (self.height_um(int(choices.grain_id[row])) / 2.0 + self.parameters.search_um)
        self.route.check(choices.setting(row), reach_mm, what)

    def remarks(self, choices: Choices, row: int) -> list[str]:
        """Return what may spoil the scan of a grain that can be reached."""
        grain = int(choices.grain_id[row])
        remarks = []
        if choices.edge[row]:
            remarks.append("it touches the border of the map, where it may be cut, so its centre may lie elsewhere")
        beside = self.companions(choices, row)
        if beside:
            remarks.append(f"grain {', '.join(map(str, beside))} diffracts nearby, and may be taken for it")
        whole = self.choices([grain])
        if not any(whole.reachable[k] and (whole.hkl[k] == choices.hkl[row]).all() for k in range(len(whole))):
            remarks.append("it is so near the limits of chi or phi that they cut the search")
        if self.search_beam != BOX:
            remarks.append(
                f"there is no {BOX!r} beam, so the search sees only what lies within the beam at the predicted height"
            )
        narrow = self.choices([grain], self.wanted or self.widest, margin=False)
        same = [k for k in range(len(narrow)) if (narrow.hkl[k] == choices.hkl[row]).all()]
        if same and not narrow.fits[same[0]]:
            remarks.append(f"for the {self.wanted or self.widest} camera it is {narrow.too_large(same[0])}")
        return remarks

    def visit(self, choices: Choices, row: int) -> Generator[Msg, Any, Visit]:
        """Go to a grain, find and centre it, and scan it; where it is not found, say so and stay there."""
        from dfxrm_control.handoff import Visit

        p = self.parameters
        grain = int(choices.grain_id[row])
        h, k, m = choices.hkl[row].tolist()
        hkl = (h, k, m)
        setting = choices.setting(row)
        details: dict[str, Any] = {
            "grain": grain,
            "hkl": list(hkl),
            "predicted": setting,
            **self._common(),
            "remarks": self.remarks(choices, row),
        }
        for remark in details["remarks"]:
            warnings.warn(f"grain {grain}: {remark}", HandoffWarning, stacklevel=2)
        sample = self._sample(grain, hkl)
        # what depends on the reflection, such as its spacing, is that of the grain
        instrument = replace(self.instrument, sample=sample)
        scan = self._scan(instrument)
        ours = {"sample": sample.model_dump(mode="json")}
        yield from self.route.go(setting)

        def step(name: str, plan: Callable[..., MsgGenerator], **keywords: Any) -> Generator[Msg, Any, Found]:
            common = {"exposure_s": exposures[-1], "camera": self.camera, "darks": p.search_darks, **keywords}
            run = functools.partial(plan, instrument, **common)
            found: Found = yield from self.series.run(run, float(grain), details={**details, "step": name}, dfxrm=ours)
            if found.predicted:
                self.live = False
            return found

        exposures = [p.search_exposure_s]
        height = self.height_um(grain)

        def centring() -> Generator[Msg, Any, list[Found]]:
            yield from self._condenser(self.search_beam)
            results = [(yield from step("find", find_grain, search_range=p.search_range))]
            if results[-1].sure:
                yield from self._condenser(LINE)
                results.append((yield from step("center", center_grain, height_um=height, search_um=p.search_um)))
            if results[-1].sure:
                exposures.append(results[-1].exposure_s if self.live else p.search_exposure_s)
                fine = 2.0 * REFINED * self._fwhm
                results.append((yield from step("tilt", find_grain, search_range=fine)))
            return results

        results = yield from with_widest_field(self.instrument, self.camera, centring)
        last = results[-1]
        if not last.sure:
            return Visit(grain, hkl, "not found" if len(results) == 1 else "not centred", last.reason, setting)
        found = yield from self._found(grain, hkl, results)
        left = self._residuals(found)
        if left.distance_um > 2.0 * p.search_um or max(abs(left.rock_deg), abs(left.roll_deg)) > p.search_range:
            far = f"what was found lies {left.distance_um:.0f} um from the prediction, so it is another grain"
            return Visit(grain, hkl, "not found", far, setting)
        details |= {
            "step": "scan",
            "found": {
                "positions": dict(found.positions),
                "angle_error_deg": found.angle_error_deg,
                "place_error_mm": found.place_error_mm,
            },
            "residuals": left.record(),
        }
        yield from self._condenser(self.beam)
        if self.wanted:
            yield from set_channel(self.instrument, self._channel, self.wanted)
        yield from self.series.run(scan, float(grain), details=details, dfxrm=ours)
        return Visit(
            grain,
            hkl,
            "scanned",
            last.reason,
            setting,
            dict(found.positions),
            left,
            found.angle_error_deg,
            found.place_error_mm,
        )

    def conclude(self, *, keep: bool) -> MsgGenerator:
        """Keep the registration with the sample where there is a new one, and make a last run that says how it ended.

        The run has no frames. Without it, a grain skipped after the last scan would be in no record.
        """
        stored = ""
        if keep and self.fit is not None and self.live:
            try:
                stored = yield from _in_thread(self._store)
            except DfxrmError as error:
                warnings.warn(f"the registration is not stored: {error}", HandoffWarning, stacklevel=2)
        details = {**self._common(), "step": "end", "stored": stored}
        yield from self.series.run(self._end, -1.0, details=details)

    def _store(self) -> str:
        from dfxrm_control.handoff import RegistrationStore

        store = RegistrationStore.of(self.whole)
        assert self.fit is not None
        store.store(self.fit.registration, self.grains, self.fit.grain_id.tolist(), self.fit.lines())
        return str(store.path)

    def _end(self, md: Mapping[str, Any]) -> MsgGenerator:
        p = self.parameters
        record = {
            "plan_name": p.plan,
            "plan_args": p.model_dump(mode="json"),
            "detectors": [],
            "motors": [],
            "hints": {},
            **{key: value for key, value in md.items() if key != "dfxrm"},
            "dfxrm": {**md.get("dfxrm", {}), "schema": 1, "parameters": p.record()},
        }
        yield from bpp.run_wrapper(iter(()), md=record)

    def _common(self) -> dict[str, Any]:
        """Return what every run says: by what it goes, and what is left out so far."""
        from dfxrm_control.handoff import map_fingerprint

        return {
            "registration": {
                "rotation_deg": list(self.registration.rotation_deg),
                "shift_mm": list(self.registration.shift_mm),
                "omega_offset_deg": self.registration.omega_offset_deg,
            },
            "map": {"source": self.grains.source, "fingerprint": map_fingerprint(self.grains)},
            "skipped": list(self.skipped),
        }

    def guarded(self, work: Callable[[], MsgGenerator], stay: Callable[[Any], bool]) -> MsgGenerator:
        """Run visits; put beam and camera back, and everything else unless the result says to stay."""
        done: list[Any] = []
        yield from self.route.begin()

        def inside() -> MsgGenerator:
            done.append((yield from work()))
            return done[0]

        def back() -> MsgGenerator:
            if not (done and stay(done[0])):
                yield from self.route.back()

        def optics() -> MsgGenerator:
            yield from self._condenser(self.beam)
            if self.present and not (done and stay(done[0])):
                yield from set_channel(self.instrument, self._channel, self.present)

        return (yield from always(inside(), back, optics))

    @property
    def _channel(self) -> str:
        return f"{self.camera}_camera_objective"

    def _condenser(self, state: str) -> MsgGenerator:
        if state and CONDENSER in self.instrument.channels:
            yield from set_channel(self.instrument, CONDENSER, state)

    def _found(self, grain: int, hkl: tuple[int, int, int], results: list[Found]) -> Generator[Msg, Any, FoundGrain]:
        from dfxrm_control.handoff import FoundGrain
        from dfxrm_control.handoff._visits import SMALLEST_ANGLE_ERROR_DEG, SMALLEST_PLACE_ERROR_MM

        positions = {}
        for name in (*GONIOMETER, "two_theta", *SAMPLE):
            positions[name] = yield from position_of(self.instrument.axis(name))
        tilt, centre = results[-1], results[1]
        angle = [tilt.error, tilt.extra["roll_error"], SMALLEST_ANGLE_ERROR_DEG]
        place = [1e-3 * centre.error, SMALLEST_PLACE_ERROR_MM]
        # a dry run knows no errors, and a NaN is no larger than a number
        return FoundGrain(
            grain,
            hkl,
            positions,
            max(each for each in angle if each == each),
            max(each for each in place if each == each),
        )

    def _residuals(self, found: FoundGrain) -> Any:
        from dfxrm_control.handoff import residuals_of

        config = self.instrument.config
        return residuals_of(self.grains, self.registration, found, mu_sign=config.mu_sign, stage=config.sample_stage)

    def _scan(self, instrument: Instrument) -> InnerScan:
        p = self.parameters
        return InnerScan(instrument, p.scan, p.scan_parameters, p.plan)

    def _sample(self, grain: int, hkl: tuple[int, int, int]) -> SampleConfig:
        """Return the sample with the crystal and the reflection of a grain."""
        phase = self.grains.phases[self.grains.phase[self.grains.row(grain)]]
        ours = self.instrument.sample
        same = phase.space_group == ours.space_group
        atoms = tuple((element, x, y, z) for element, x, y, z, _ in phase.sites) or (ours.atoms if same else ())
        changes = {"lattice": phase.cell, "space_group": phase.space_group, "atoms": atoms, "hkl": hkl}
        return ours.model_copy(update=changes)


def _whole(instrument: Instrument) -> MicroscopeConfig:
    if instrument.whole is None:
        raise ConfigError("the instrument was made without its configuration, so nobody knows limits and data folder")
    return instrument.whole


def read_map(parameters: HandoffParameters) -> Generator[Msg, Any, GrainMap]:
    """Read the map in a thread, since that takes seconds.

    Raises
    ------
    FileFormatError, ParameterError
        When it cannot be read.
    """

    def work() -> GrainMap:
        from dfxrm_control.grains import read_grain_map

        cell = None if parameters.cell is None else numbers_in(parameters.cell)
        path = Path(parameters.map).expanduser().absolute()
        return read_grain_map(path, cell=cell, space_group=parameters.space_group)

    return (yield from _in_thread(work))


def _in_thread(work: Callable[[], T]) -> Generator[Msg, Any, T]:
    """Do work with files in a thread, so that the RunEngine goes on meanwhile, and return or raise what it does."""
    made: list[T] = []
    failures: list[Exception] = []

    def caught() -> None:
        try:
            made.append(work())
        except Exception as error:
            failures.append(error)

    yield Msg("wait_for", None, [lambda: asyncio.to_thread(caught)])
    if not made and not failures:
        # a dry run waits for nothing
        caught()
    if failures:
        raise failures[0]
    return made[0]


def hunt(instrument: Instrument, parameters: HandoffParameters, md: Mapping[str, Any]) -> Generator[Msg, Any, Hunt]:
    """Read map and registration, look at the microscope, and return what goes to the grains; nothing moves.

    Raises
    ------
    FileFormatError, ParameterError
        When the map, the registration, the camera or the scan is not usable.
    """
    from dfxrm_control.handoff import Registration, RegistrationStore

    p = parameters
    camera = far_field_camera(instrument, p.camera)
    view = yield from lens_view(instrument, camera, p.plan)
    visible = instrument.config.cameras[camera].objectives
    channel = f"{camera}_camera_objective"
    movable = len(visible) > 1 and channel in instrument.channels
    reading = (yield from read_positions({channel: instrument.channels[channel]})) if movable else {}
    present = str(reading.get(channel, next(iter(visible), "")))
    wanted = p.camera_objective or present
    if wanted not in visible and visible:
        raise ParameterError(f"{p.plan}: camera {camera!r} has no objective {wanted!r}; it has {', '.join(visible)}")
    # the one for the centring, the one for the scan, and the one to put back; empty where none can be changed from here
    widest = min(visible, key=lambda name: visible[name]) if movable else present
    objectives = (widest, wanted, present) if movable else (present, "", "")
    grains = yield from read_map(p)
    _check_cell(instrument, grains, p.plan)
    stored = RegistrationStore.of(_whole(instrument)).for_map(grains) if p.use_registration else None
    found = Hunt(instrument, p, grains, stored or Registration(), view, objectives, md)
    if CONDENSER in instrument.channels:
        beam = yield from read_positions({CONDENSER: instrument.channels[CONDENSER]})
        found.beam = str(beam.get(CONDENSER, ""))
        # without a box beam the search sees what lies at the predicted height only
        found.search_beam = BOX if BOX in _choices_of(_whole(instrument), CONDENSER) else LINE
    return found


def _check_cell(instrument: Instrument, grains: GrainMap, plan: str) -> None:
    """Refuse a map of another crystal: with a wrong cell every scattering angle is wrong.

    Raises
    ------
    ParameterError
        When no phase of the map has the cell of the sample.
    """
    from dfxrm_control.handoff import same_cell

    cell = instrument.sample.lattice
    if not any(same_cell(phase.cell, cell) for phase in grains.phases):
        theirs = " or ".join(" ".join(f"{part:g}" for part in phase.cell) for phase in grains.phases)
        raise ParameterError(
            f"{plan}: the map has the cell {theirs} (angstrom, deg), and sample {instrument.sample.name!r} has "
            f"{' '.join(f'{part:g}' for part in cell)}; one of them is wrong"
        )


def _choices_of(config: MicroscopeConfig, channel: str) -> tuple[str, ...]:
    channels = (device.channels[channel] for device in config.devices.values() if channel in device.channels)
    return next((each.choices for each in channels if each.choices is not None), (BOX, LINE))
