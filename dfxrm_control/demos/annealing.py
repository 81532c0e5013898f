"""Annealed aluminium: sub-grains before and after 20 minutes at 325 degC, beside the known ones.

The scan at 325 degC is at another 2theta than the one before, since the crystal has expanded out of the aperture:
`time_series` finds it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from scipy import ndimage

from dfxrm_control.config import MicroscopeConfig, override
from dfxrm_control.demos.targets import Target
from dfxrm_control.errors import ConfigError
from dfxrm_control.reduction import (
    DomainMap,
    MapSet,
    draw_key,
    find_domains,
    lattice_field,
    maps_from_file,
    mosaicity_rgb,
    new_figure,
    save_figure,
)
from dfxrm_control.reduction.series import read_series
from dfxrm_control.session import Session

__all__ = ["PROGRAMME", "Annealing", "Stage", "WallCheck", "run_annealing"]

PROGRAMME = "25, 325@10/1200"
BURGERS_UM = 2.8634e-4
"""b of aluminium, a / sqrt 2, um."""
SAMPLE = (
    "scan.darks=40",
    # the wider field of the far-field camera: 332 x 102 um, in pixels of 0.65 um along the beam and 0.2 um across
    "instrument.cameras.far_field.objectives={2x: 2.0}",
    "devices.far_field.channels.far_field_camera_objective.choices=[2x]",
    "backend.options.sample_options={wall_range_deg: [0.03, 0.08], subgrain_um: 15.0, size_um: [340.0, 106.0, 56.0], "
    "voxel_um: [0.6, 0.2, 0.25]}",
    "backend.options.coarsening={migration: true, rate_um2_per_s: 0.25}",
)
"""Sub-grains of 15 um between walls of 0.05 deg (rms), which grow to 22 um; all of the layer lies in the crystal."""
EXPOSURE_S = 0.3
"""A hot crystal goes on growing during the scan, so that it should not take long."""
CLEAR_WALL_DEG = 0.01
"""Known walls of at least this misorientation must be found and measured."""
SHORTEST_WALL_UM = 3.0
"""Shorter walls are left out of the numbers."""
SMALLEST_PX = 200
"""Smaller sub-grains are all wall: their mean is that of blurred pixels."""
NEAR_PX = 2.0
CORE_UM = 2.0
"""Pixels nearer to a wall do not count for the misorientation of sub-grains: so far along the beam is it blurred."""
SPREAD_SHOWN_MDEG = 30.0
TILTS = ("tilt_roll", "tilt_rock")
_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class Known:
    """The truth at the time of a scan.

    Attributes
    ----------
    domains : ndarray of int, shape (nx, ny)
        Domain that each pixel looks at.
    tilt_deg : dict of int to ndarray, shape (3,)
        Rotation vector of each domain, deg.
    temperature : float
        degC.
    turned : frozenset of int
        Domains that a larger one took in while the scan ran: what is measured in them is neither.
    """

    domains: NDArray[np.int64]
    tilt_deg: dict[int, NDArray[np.float64]]
    temperature: float
    turned: frozenset[int] = frozenset()

    def misorientation_deg(self, one: int, other: int) -> float:
        """Return the angle between the diffraction vectors of two domains, deg: rotations about z do not show."""
        return float(np.hypot(*(self.tilt_deg[one] - self.tilt_deg[other])[:2]))


@dataclass(frozen=True)
class WallCheck:
    """Walls that were found against those that are there.

    Attributes
    ----------
    distance_px : ndarray, shape (n,)
        Of each pixel of the walls that were found to the next known wall.
    missed : float
        Fraction of the pixels of clear known walls that lie farther than `NEAR_PX` from any wall that was found.
    misorientation_error_deg : ndarray, shape (m,)
        Found minus known angle between two neighbours, for each clear wall that both have; of medians over the pixels
        of a sub-grain that are farthest from its walls.
    """

    distance_px: NDArray[np.float64]
    missed: float
    misorientation_error_deg: NDArray[np.float64]

    def targets(self, stage: str) -> tuple[Target, ...]:
        """Return what must come out of a stage of this name."""
        near = float((self.distance_px <= NEAR_PX).mean()) if self.distance_px.size else math.nan
        errors = self.misorientation_error_deg
        rms = float(np.sqrt(np.mean(errors**2))) if errors.size else math.nan
        return (
            Target(
                f"{stage}, pixels of found walls within {NEAR_PX:g} px of a known one", 100 * near, 100.0, 10.0, "%"
            ),
            Target(
                f"{stage}, pixels of known walls from {CLEAR_WALL_DEG:g} deg within {NEAR_PX:g} px of a found one",
                100 * (1 - self.missed),
                100.0,
                10.0,
                "%",
            ),
            Target(f"{stage}, rms error of misorientations", 1e3 * rms, 0.0, 5.0, "mdeg"),
        )

    def line(self) -> str:
        """Return the comparison as a sentence."""
        if not self.distance_px.size:
            return "no wall was found"
        errors = 1e3 * self.misorientation_error_deg
        middle = float(np.median(np.abs(errors))) if errors.size else math.nan
        return (
            f"walls lie {np.median(self.distance_px):.1f} px from the known ones (95 % within "
            f"{np.percentile(self.distance_px, 95):.1f} px), {100 * (1 - self.missed):.0f} % of the clear ones are "
            f"found, misorientations are off by {middle:.1f} mdeg (median) over {errors.size} walls"
        )


@dataclass(frozen=True)
class Stage:
    """One map of the sub-grains.

    Attributes
    ----------
    name : str
        ``before`` or ``after``.
    maps : MapSet
        The tilts.
    domains : DomainMap
        Sub-grains and walls that were found.
    known : Known
        Those that are there.
    check : WallCheck
        The comparison.
    """

    name: str
    maps: MapSet
    domains: DomainMap
    known: Known
    check: WallCheck

    def lines(self) -> list[str]:
        """Return what was found, as text."""
        inner = [each.equivalent_diameter for each in self.domains.domains if not each.at_border]
        walls = [wall for wall in self.domains.walls if wall.length >= SHORTEST_WALL_UM]
        angles = [wall.misorientation_deg for wall in walls]
        spacings = [wall.spacing_um for wall in walls if wall.spacing_um is not None]
        spread = [each.orientation_spread_deg for each in self.domains.domains]
        size = f", {np.mean(inner):.1f} um across where they are seen whole" if inner else ""
        walls_said = (
            f"{len(walls)} walls of {np.median(angles):.3f} deg (median), dislocations at most "
            f"{np.median(spacings):.2f} um apart"
            if walls
            else "no wall"
        )
        return [
            f"{self.name}, {self.known.temperature:.0f} degC: {len(self.domains.domains)} sub-grains{size}; "
            f"{walls_said}; within a sub-grain the orientation wanders by {1e3 * np.median(spread):.1f} mdeg (median)",
            f"  {self.check.line()}",
        ]


@dataclass(frozen=True)
class Annealing:
    """The demonstration's result.

    Attributes
    ----------
    stages : tuple of Stage
        Before and after.
    picture : Path
        Both, beside the truth.
    series : Path or None
        Folder of the series.
    products : tuple of Path
        What was made of the series.
    peaks : tuple of dict
        Where the Bragg peak was found.
    """

    stages: tuple[Stage, ...]
    picture: Path
    series: Path | None
    products: tuple[Path, ...]
    peaks: tuple[dict[str, Any], ...] = field(default=())

    @property
    def targets(self) -> tuple[Target, ...]:
        """What must come out."""
        return tuple(target for stage in self.stages for target in stage.check.targets(stage.name))

    @property
    def met(self) -> bool:
        """Whether every target was reached."""
        return all(target.met for target in self.targets)

    def lines(self) -> list[str]:
        """Return the report."""
        said = [line for stage in self.stages for line in stage.lines()]
        said += [target.line() for target in self.targets]
        for peak in self.peaks:
            said.append(
                f"Bragg angle at {peak['temperature']:.0f} degC: {peak['theta_b']:.5f} deg, strain {peak['strain']:.3e}"
            )
        said += [f"product: {path}" for path in self.products]
        return [*said, f"picture: {self.picture}"]


def run_annealing(config: MicroscopeConfig, *, quiet: bool = False, programme: str = PROGRAMME) -> Annealing:
    """Scan, heat, find the peak again, scan, and compare with the truth.

    Parameters
    ----------
    config : MicroscopeConfig
        The twin with a furnace; its sample becomes that of this case, see `SAMPLE`.
    quiet : bool
        No table and no progress bar.
    programme : str
        Of the furnace; two scans or more, of which the first and the last are compared.

    Raises
    ------
    ConfigError
        When the microscope is not a twin that knows its sub-grains.
    RunError
        When a scan fails.
    """
    config = override(config, SAMPLE)
    with Session(config, maps=True, quiet=quiet) as session:
        if not hasattr(session.backend, "known_domains"):
            raise ConfigError(f"configuration {config.name!r} is no twin, so there is no truth to compare with")
        truth: dict[str, Known] = {}

        def note(name: str, doc: Mapping[str, Any]) -> None:
            # at its start a scan stands in the middle of its window
            if name == "start" and doc.get("plan_name") == "mosaicity_scan":
                truth[doc["uid"]] = _known(session.backend, config.scan.camera)
            elif name == "stop" and (known := truth.get(doc["run_start"])) is not None:
                truth[doc["run_start"]] = replace(known, turned=_turned(session.backend, known))

        session.RE.subscribe(note)
        outcome = session.run(
            "time_series",
            {
                "scan": "mosaicity_scan",
                "scan_parameters": {"exposure_s": EXPOSURE_S},
                "programme": programme,
                "find_exposure_s": 0.01,
            },
        )
    series = read_series(outcome.folder)
    chosen = (series.complete[0], series.complete[-1])
    stages = []
    for name, run in zip(("before", "after"), chosen, strict=True):
        maps = maps_from_file(run.master)
        domains = find_domains(lattice_field(maps), burgers_um=BURGERS_UM)
        known = truth[run.start["uid"]]
        stages.append(Stage(name, maps, domains, known, check_walls(domains, known)))
    folder = outcome.series or outcome.folder.parent
    picture = folder / "annealing.png"
    _draw(stages, picture)
    return Annealing(
        tuple(stages), picture, outcome.series, outcome.products, tuple(chosen[-1].series.get("peaks") or ())
    )


def _known(twin: Any, camera: str) -> Known:
    domains, sample = twin.known_domains(camera), twin.sample
    tilts = {}
    for name in np.unique(domains[domains >= 0]):
        tilts[int(name)] = sample.tilt_deg[sample.domain == name].mean(axis=0)
    return Known(domains, tilts, float(twin.temperature))


def _turned(twin: Any, known: Known) -> frozenset[int]:
    return frozenset(known.tilt_deg) - frozenset(np.unique(twin.sample.domain).tolist())


def check_walls(found: DomainMap, known: Known) -> WallCheck:
    """Compare the walls of a map with the known ones, in place and in misorientation.

    Parameters
    ----------
    found : DomainMap
        What a map shows.
    known : Known
        What is there, on the same pixels.
    """
    there, seen = _walls(known.domains), _walls(found.labels)
    clear = _walls_above(known, CLEAR_WALL_DEG)
    to_known = ndimage.distance_transform_edt(~there) if there.any() else np.full(there.shape, math.inf)
    to_found = ndimage.distance_transform_edt(~seen) if seen.any() else np.full(seen.shape, math.inf)
    missed = float((to_found[clear] > NEAR_PX).mean()) if clear.any() else 0.0
    cores = _cores(found)
    names = {label: _most(known.domains[core]) for label, (core, _) in cores.items()}
    names = {label: name for label, name in names.items() if name not in known.turned}
    errors = []
    for wall in found.walls:
        one, other = names.get(wall.first), names.get(wall.second)
        if wall.length < SHORTEST_WALL_UM or one is None or other is None or one == other:
            continue
        # of the cores: a step at the wall itself is flattened where the wall is inclined to the layer
        there_deg = known.misorientation_deg(one, other)
        if there_deg >= CLEAR_WALL_DEG:
            angle = float(np.hypot(*(cores[wall.first][1] - cores[wall.second][1])))
            errors.append(angle - there_deg)
    return WallCheck(to_known[seen], missed, np.array(errors))


def _cores(found: DomainMap) -> dict[int, tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Return the pixels of each larger sub-grain that are farthest from its walls, and their median tilts, deg.

    A third of its pixels, of which the nearest to a wall lies at least `CORE_UM` from it.
    """
    cores = {}
    steps = found.field.steps
    for domain in found.domains:
        whole = found.labels == domain.label
        # the border of the map is no wall
        depth = ndimage.distance_transform_edt(np.pad(whole, 1, mode="edge"), sampling=steps)[1:-1, 1:-1]
        core = whole & (depth >= max(CORE_UM, float(np.quantile(depth[whole], 2 / 3))))
        if domain.pixels >= SMALLEST_PX and core.any():
            cores[domain.label] = core, np.array([np.median(found.field.values[name][core]) for name in TILTS])
    return cores


def _most(domains: NDArray[np.int64]) -> int | None:
    """Return the domain that most of some pixels belong to, if nine tenths of them do."""
    names, counts = np.unique(domains[domains >= 0], return_counts=True)
    if not counts.size or counts.max() < 0.9 * counts.sum():
        return None
    return int(names[counts.argmax()])


def _walls(labels: NDArray) -> NDArray[np.bool_]:
    """Return the pixels at whose lower or right side another domain begins."""
    walls = np.zeros(labels.shape, bool)
    walls[:-1] |= labels[:-1] != labels[1:]
    walls[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return walls


def _walls_above(known: Known, least_deg: float) -> NDArray[np.bool_]:
    names = np.array(sorted(known.tilt_deg))
    place = np.searchsorted(names, np.maximum(known.domains, names[0]))
    tilts = np.array([known.tilt_deg[int(name)][:2] for name in names])[place]
    walls = np.zeros(known.domains.shape, bool)
    walls[:-1] |= np.linalg.norm(tilts[:-1] - tilts[1:], axis=-1) >= least_deg
    walls[:, :-1] |= np.linalg.norm(tilts[:, :-1] - tilts[:, 1:], axis=-1) >= least_deg
    return walls


def _draw(stages: list[Stage], path: Path) -> None:
    """Draw, for each stage, tilts and walls that were measured, the known ones, the local spread, and the numbers."""
    figure = new_figure(6.2 * len(stages) + 2.0, 7.0)
    figure.suptitle("annealed aluminium: lattice tilts, the walls between sub-grains, and local spread", fontsize=10)
    columns = [1.0] * len(stages) + [0.22]
    panels = figure.subplots(4, len(columns), squeeze=False, height_ratios=(1.0, 1.0, 1.0, 0.3), width_ratios=columns)
    ranges = None
    for (measured, known, spread, said), stage in zip(panels.T[:-1], stages, strict=True):
        tilts = [stage.domains.field.values[name] for name in TILTS]
        tilts = [values - np.nanmedian(values) for values in tilts]
        ranges = ranges or [_range(values) for values in tilts]
        _panel(measured, stage, mosaicity_rgb(tilts[0], tilts[1], ranges), _walls(stage.domains.labels))
        measured.set_title(f"{stage.name}, {stage.known.temperature:.0f} °C, measured", fontsize=9)
        names = np.array(sorted(stage.known.tilt_deg))
        place = np.searchsorted(names, np.maximum(stage.known.domains, names[0]))
        both = np.array([stage.known.tilt_deg[int(name)][:2] for name in names])[place]
        truth = [np.where(stage.known.domains >= 0, both[..., k] - np.median(both[..., k]), np.nan) for k in (0, 1)]
        _panel(known, stage, mosaicity_rgb(truth[0], truth[1], ranges), _walls(stage.known.domains))
        known.set_title(f"{stage.name}, known", fontsize=9)
        axis, widths = _local_spread(stage)
        shown = _image(spread, stage, 1e3 * widths, cmap="magma", vmin=0.0, vmax=SPREAD_SHOWN_MDEG)
        bar = figure.colorbar(shown, cax=spread.inset_axes((1.01, 0.0, 0.015, 1.0)))
        bar.set_label("mdeg rms", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        spread.set_title(f"{stage.name}, local spread in {axis}, where above noise", fontsize=9)
        said.axis("off")
        said.text(0.0, 1.0, "\n".join(_wrapped(stage)), transform=said.transAxes, va="top", fontsize=7)
    for ax in panels[1:, -1]:
        ax.axis("off")
    draw_key(panels[0, -1], ("roll (deg)", "rock (deg)"), ranges or [])
    save_figure(figure, path)


def _local_spread(stage: Stage) -> tuple[str, NDArray[np.float64]]:
    """Return the rocking axis and the spread of orientation within each pixel along it, deg: walls stand out in it.

    It is 0 where noise may have made it.
    """
    axis = stage.maps.axes[-1]
    return axis.name, np.where(axis.spread > axis.spread_limit, axis.spread, 0.0)


def _wrapped(stage: Stage) -> list[str]:
    lines = [target.line().removeprefix(f"{stage.name}, ") for target in stage.check.targets(stage.name)]
    return [part for line in lines for part in wrap(line, 95)]


def _panel(ax: Axes, stage: Stage, image: NDArray, walls: NDArray[np.bool_]) -> None:
    _image(ax, stage, image)
    _image(ax, stage, np.where(walls, 1.0, np.nan), cmap=ListedColormap(["black"]))


def _image(ax: Axes, stage: Stage, image: NDArray, **options: Any) -> AxesImage:
    extent = (stage.maps.x[0], stage.maps.x[-1], stage.maps.y[0], stage.maps.y[-1])
    ax.set_xlabel("x along the beam (µm)", fontsize=8)
    ax.set_ylabel("y (µm)", fontsize=8)
    ax.tick_params(labelsize=7)
    return ax.imshow(np.swapaxes(image, 0, 1), origin="lower", extent=extent, interpolation="nearest", **options)


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.nanpercentile(values, _PERCENTILES)
    return float(low), float(high)
