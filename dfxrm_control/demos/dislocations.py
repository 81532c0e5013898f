"""Dislocations in silicon: lines around an indent in weak beam, and the field and Burgers vector of single ones.

Around the indent there are too many lines, too near to one another, for a map of the distortion to tell one from the
next; weak beam tells where they are. What one line does to the lattice, and which Burgers vector it has along the
diffraction vector, is measured on crystals with one line each, by a mesh of 2theta and both tilts. A reflection is
blind to a line with ``b . q-hat = 0`` but for its residual bending: loops around it must give nothing.

A line that crosses the lit layer is seen as a streak along the beam, four times as long as the layer is high: a square
loop of half-size s finds of b only the share ``erf(s / sqrt 2 sigma)`` of the streak (of rms length sigma) that it
encloses. The single lines are therefore scanned with the line beam focused to 0.2 um, where squares of 0.5 to 3 um
enclose 99 % on average; with 0.6 um it is 84 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from dfxrm_control.config import MicroscopeConfig, override
from dfxrm_control.demos.targets import Target
from dfxrm_control.dislocations import Dislocation
from dfxrm_control.errors import ConfigError, FileFormatError
from dfxrm_control.reduction import (
    BurgersLoops,
    DislocationFit,
    LayerView,
    Line,
    MapSet,
    NyeMap,
    WeakBeam,
    burgers_loops,
    dislocation_maps,
    distortion_layer,
    fit_dislocation,
    inverse_intensity,
    maps_from_file,
    nye_maps,
    read_weak_beam,
    write_maps,
)
from dfxrm_control.reduction._pictures import new_figure, save_figure
from dfxrm_control.reduction.series import read_series, reduce_series
from dfxrm_control.session import Session

__all__ = [
    "Dislocations",
    "LineFound",
    "Matching",
    "analyse_line",
    "check_lines",
    "measure_line",
    "run_dislocations",
]

KINDS = ("mixed", "invisible")
"""Single lines that are measured; the second has ``b . q-hat = 0``."""
COMPONENTS = ("H_13", "H_23", "H_33")
LEAST_SHARE = 0.9
"""Of the visible lines that must be found, and of the lines found that must be there."""
NEAR_PX = 6.0
"""A line that was found farther than this from any known one is another."""
MOST_DISTANCE_PX = 2.0
LEAST_STREAK = 1.0 / 3.0
"""Part of a streak's length; what is shorter is a bright spot of a line with ``b . q-hat = 0``, or of the ground.

A line through the layer is lit as the beam's Gaussian profile is, and `find_lines` follows it down to 0.6 of the level
that it must reach: over ``sqrt(log2(1 / 0.6)) = 0.86`` of the profile's FWHM at least. By its slope a streak is up to
15 % shorter, and thinning takes half a width off either end, which leaves half of a streak; noise may take some more.
"""
AMPLITUDE = 0.1
"""By which a fitted amplitude may be off 1."""
TELLING_ERROR = AMPLITUDE / 3.0
"""Standard error up to which an amplitude tells whether it is within the tolerance."""
BURGERS = 0.05
"""By which part of itself b . q-hat may be off; where it is zero, by which part of the length of b."""
FEWEST_LOOPS = 20
RADII_UM = (0.3, 3.0)
NYE_SPAN_UM = 0.5
LINE_HEIGHT_UM = 0.2
"""FWHM of the line beam for single lines: square loops of 0.5 um still hold most of a streak."""

# along the beam a streak that ends outside of crystal or frame has no middle; across, half of a line's image
_CLEAR_UM = (1.0, 0.3)
_WEAK = {"k": [2.0, 3.0], "weak_exposure_s": 10.0}
_MESH = {"exposure_s": 2.0}
# 14 um along the beam and 8 across: loops of 3 um around a streak, and as much as the image moves with the arm
_CAMERA = ("rows=80", "columns=192")


@dataclass(frozen=True, eq=False)
class Matching:
    """Lines of a weak-beam image against the known ones, each found line paired with one known line at most.

    Attributes
    ----------
    found : ndarray, shape (n, 2)
        Middle of each line that was found, um.
    known, hidden : ndarray, shapes (m, 2), (h, 2)
        Where visible and invisible lines cross the layer, um.
    inside : int
        Visible lines well inside of crystal and frame.
    recall : float
        Share of these that were found.
    precision : float
        Share of the lines found that are a visible line.
    distance_px : ndarray, shape (pairs,)
        Of each pair.
    """

    found: NDArray[np.float64]
    known: NDArray[np.float64]
    hidden: NDArray[np.float64]
    inside: int
    recall: float
    precision: float
    distance_px: NDArray[np.float64]

    def targets(self) -> list[Target]:
        """Return recall, precision and distance beside what they must be."""
        middle = float(np.median(self.distance_px)) if self.distance_px.size else math.nan
        return [
            Target(f"weak beam: recall of {self.inside} visible lines", self.recall, 1.0, 1.0 - LEAST_SHARE),
            Target(f"weak beam: precision of {len(self.found)} lines found", self.precision, 1.0, 1.0 - LEAST_SHARE),
            Target("weak beam: median distance to the known ones", middle, 0.0, MOST_DISTANCE_PX, "px"),
        ]


@dataclass(frozen=True, eq=False)
class LineFound:
    """What a mesh tells of one dislocation.

    Attributes
    ----------
    kind : str
        What the sample calls it.
    dislocation : Dislocation
        The known line, in the sample frame.
    place_um : tuple of float
        Where it crosses the layer, known.
    streak_um : tuple of float
        FWHM of its image along x and y.
    burgers_along_um : float
        The known ``b . q-hat``, of the line's sense that is along the layer's normal.
    maps : MapSet
        The maps.
    expected : dict of str to ndarray, shape (nx, ny)
        The analytic field as a map sees it, by component.
    fit : DislocationFit
        Amplitudes of the analytic field.
    squares : BurgersLoops
        Integrals along nested squares around the middle of the line's streak.
    around : BurgersLoops
        The same along rectangles that enclose the whole streak.
    density : NyeMap
        ``n . curl(beta_3)``.
    """

    kind: str
    dislocation: Dislocation
    place_um: tuple[float, float]
    streak_um: tuple[float, float]
    burgers_along_um: float
    maps: MapSet
    expected: dict[str, NDArray[np.float64]]
    fit: DislocationFit
    squares: BurgersLoops
    around: BurgersLoops
    density: NyeMap

    @property
    def photons(self) -> float:
        """Photons that the median pixel detected over the scan."""
        return float(np.median(self.maps.photons[self.maps.valid]))

    @property
    def density_on_streak(self) -> float:
        """Mean of ``n . curl(beta_3)`` over the image of the line, 1/um."""
        half = [max(size, NYE_SPAN_UM) / 2.0 for size in self.streak_um]
        x, y = (
            np.abs(axis - at) <= reach
            for axis, at, reach in zip((self.maps.x, self.maps.y), self.place_um, half, strict=True)
        )
        return float(np.nanmean(self.density.values[0][np.ix_(x, y)]))

    def targets(self) -> list[Target]:
        """Return amplitudes and Burgers vector beside what they must be."""
        made = [
            Target(f"{self.kind}: share of the analytic {name} (± {found.error:.3f})", found.value, 1.0, AMPLITUDE)
            for name, found in self.fit.amplitudes.items()
            if found.error <= TELLING_ERROR
        ]
        known = self.burgers_along_um
        allowed = BURGERS * (abs(known) or float(np.linalg.norm(self.dislocation.burgers_um)))
        count = int(np.isfinite(self.squares.burgers_um).sum())
        name = f"{self.kind}: b·q̂ by {count} nested squares (± {1e4 * self.squares.mean_error_um:.3f})"
        mean = self.squares.mean_um if count >= FEWEST_LOOPS else math.nan
        return [*made, Target(name, 1e4 * mean, 1e4 * known, 1e4 * allowed, "Å")]

    def remarks(self) -> list[str]:
        """Return what else was found."""
        weak = [
            f"{name} {found.value:.2f} ± {found.error:.2f}"
            for name, found in self.fit.amplitudes.items()
            if found.error > TELLING_ERROR
        ]
        said = [
            f"{self.kind}: {self.photons:.0f} photons a pixel; loops around the {self.streak_um[0]:.1f} µm streak "
            f"give {1e4 * self.around.mean_um:+.3f} Å; n·curl β₃ is {self.density_on_streak:+.1e} /µm on the streak"
        ]
        if weak:
            said.append(f"{self.kind}: too weak to tell by 10 %: {', '.join(weak)}")
        return said


@dataclass(frozen=True, eq=False)
class Dislocations:
    """The demonstration's result.

    Attributes
    ----------
    weak_beam : WeakBeam
        Images around the indent.
    matching : Matching
        Their lines against the known ones.
    lines_found : tuple of LineFound
        The single lines.
    picture : Path
        All of it, beside the truth.
    products : tuple of Path
        Other files that were made.
    """

    weak_beam: WeakBeam
    matching: Matching
    lines_found: tuple[LineFound, ...]
    picture: Path
    products: tuple[Path, ...]

    def targets(self) -> list[Target]:
        """Return every number beside what it must be."""
        return [*self.matching.targets(), *(target for one in self.lines_found for target in one.targets())]

    @property
    def met(self) -> bool:
        """Whether every target was reached."""
        return all(target.met for target in self.targets())

    def lines(self) -> list[str]:
        """Return the report."""
        said = [target.line() for target in self.targets()]
        said += [remark for one in self.lines_found for remark in one.remarks()]
        said += [f"product: {path}" for path in self.products]
        return [*said, f"picture: {self.picture}"]


def run_dislocations(config: MicroscopeConfig, *, quiet: bool = False, kinds: Sequence[str] = KINDS) -> Dislocations:
    """Image the lines around an indent, scan single ones, and compare with the truth.

    Parameters
    ----------
    config : MicroscopeConfig
        The twin with an indent in silicon.
    quiet : bool
        No table and no progress bar.
    kinds : sequence of str
        Kinds of the single lines.

    Raises
    ------
    ConfigError
        When the microscope is not a twin that knows its dislocations.
    RunError
        When a scan fails.
    """
    with Session(config, maps=False, quiet=quiet) as session:
        twin = _twin(session)
        outcome = session.run("weak_beam_scan", dict(_WEAK))
        known = twin.known_lines(config.scan.camera)
        view = LayerView.of(twin.view(config.scan.camera))
    series = read_series(outcome.folder)
    weak_beam = read_weak_beam(series)
    products = reduce_series(series)
    streak_um = view.layer_um / math.tan(math.radians(view.two_theta_deg))
    matching = check_lines(weak_beam, weak_beam.lines(shortest_um=LEAST_STREAK * streak_um), known)
    singles = tuple(measure_line(config, kind, quiet=quiet) for kind in kinds)
    picture = Path(config.data.directory) / "dislocations.png"
    result = Dislocations(weak_beam, matching, singles, picture, tuple(products))
    save_figure(_draw(result), picture)
    return result


def _twin(session: Session) -> Any:
    """Return the backend of a session, if it knows where its dislocations are."""
    twin: Any = session.backend
    if not hasattr(twin, "known_lines") or not twin.sample.dislocations:
        raise ConfigError(
            f"configuration {session.config.name!r} is no twin with dislocations in its sample, so there is no truth "
            "to compare with"
        )
    return twin


def check_lines(weak_beam: WeakBeam, lines: Sequence[Line], known: Sequence[Any]) -> Matching:
    """Pair the lines of an image with the known ones so that all pairs together are as near as can be.

    Parameters
    ----------
    weak_beam : WeakBeam
        The images, which tell the pixels and where there is crystal.
    lines : sequence of Line
        What was found.
    known : sequence
        What is there, each with ``x_um``, ``y_um`` and ``visible``.
    """
    axes = (weak_beam.x, weak_beam.y)
    pixel = np.array([float(axis[-1] - axis[0]) / (len(axis) - 1) for axis in axes])
    found = np.array([line.centre_um for line in lines]).reshape(-1, 2)
    visible, hidden = (
        np.array([(line.x_um, line.y_um) for line in known if line.visible == which]).reshape(-1, 2)
        for which in (True, False)
    )
    distance = np.linalg.norm((found[:, np.newaxis] - visible) / pixel, axis=-1)
    # beyond reach all are equally far
    first, second = linear_sum_assignment(np.minimum(distance, NEAR_PX))
    paired = distance[first, second] < NEAR_PX
    seen = np.zeros(len(visible), bool)
    seen[second[paired]] = True
    inside = np.ones(len(visible), bool)
    for number, (axis, clear) in enumerate(zip(axes, _CLEAR_UM, strict=True)):
        lit = axis[weak_beam.crystal.any(axis=1 - number)]
        inside &= (visible[:, number] > lit[0] + clear) & (visible[:, number] < lit[-1] - clear)
    return Matching(
        found,
        visible,
        hidden,
        int(inside.sum()),
        float(seen[inside].mean()) if inside.any() else math.nan,
        float(paired.sum() / len(found)) if len(found) else 0.0,
        distance[first, second][paired],
    )


def measure_line(config: MicroscopeConfig, kind: str, *, quiet: bool = False) -> LineFound:
    """Scan a crystal with one dislocation by a mesh of 2theta and both tilts, and measure the line.

    Parameters
    ----------
    config : MicroscopeConfig
        The twin; its sample is replaced, and its line beam focused to `LINE_HEIGHT_UM`.
    kind : str
        ``mixed``, ``screw``, ``edge`` or ``invisible``.
    quiet : bool
        No table and no progress bar.

    Raises
    ------
    ConfigError
        When the microscope is not a twin that knows its dislocations.
    FileFormatError
        When the scan does not tell all three components of the distortion.
    RunError
        When the scan fails.
    """
    camera = config.scan.camera
    chosen = override(
        config,
        [
            "backend.options.sample=silicon_dislocation",
            f"backend.options.sample_options={{kind: {kind}}}",
            f"sample.name=silicon_{kind}",
            f"instrument.beam.line_height_um={LINE_HEIGHT_UM}",
            *(f"instrument.cameras.{camera}.{part}" for part in _CAMERA),
        ],
    )
    with Session(chosen, maps=False, quiet=quiet) as session:
        twin = _twin(session)
        (known,) = twin.known_lines(camera)
        view = LayerView.of(twin.view(camera))
        outcome = session.run("mosaicity_strain_scan", dict(_MESH))
    maps = maps_from_file(outcome.master)
    folder = outcome.folder / "maps"
    folder.mkdir(exist_ok=True)
    write_maps(maps, folder / f"{outcome.folder.name}_maps.h5")
    return analyse_line(maps, kind, known.dislocation, (float(known.x_um), float(known.y_um)), view)


def analyse_line(
    maps: MapSet, kind: str, dislocation: Dislocation, place_um: tuple[float, float], view: LayerView
) -> LineFound:
    """Fit the analytic field to the maps around a line, and integrate the distortion around it.

    Parameters
    ----------
    maps : MapSet
        With all three components of the distortion.
    kind : str
        What the line is called.
    dislocation : Dislocation
        The line, in the sample frame.
    place_um : tuple of float
        Where it crosses the layer.
    view : LayerView
        How the maps look at the layer.

    Raises
    ------
    FileFormatError
        When a component is missing.
    """
    lacking = [name for name in COMPONENTS if name not in maps.components]
    if lacking:
        raise FileFormatError(f"{maps.source} does not tell {', '.join(lacking)}, which the field of a line takes")
    values = {name: np.where(maps.trusted, maps.components[name].values, np.nan) for name in COMPONENTS}
    errors = {name: maps.components[name].error for name in COMPONENTS}
    fit = fit_dislocation(maps.x, maps.y, values, errors, dislocation, view, RADII_UM)
    # seen from the side that loops turn right-handed about
    sense = math.copysign(1.0, float((view.rotation @ dislocation.line)[2]))
    reference = maps.reference_g if maps.reference_g is not None else np.array([0.0, 0.0, 1.0])
    layer = distortion_layer(maps)
    streak = view.streak_um(dislocation)
    expected, _ = dislocation_maps(maps.x, maps.y, dislocation, view)
    return LineFound(
        kind,
        dislocation,
        place_um,
        streak,
        sense * dislocation.burgers_along_um(reference) if dislocation.visible((0.0, 0.0, 1.0)) else 0.0,
        maps,
        dict(zip(COMPONENTS, expected, strict=True)),
        fit,
        burgers_loops(layer, place_um),
        burgers_loops(layer, place_um, streak_um=streak),
        nye_maps([layer], span_um=NYE_SPAN_UM).maps["n_curl_beta_3"],
    )


def _draw(result: Dislocations) -> Figure:
    """Draw the images and maps beside what is known, with every number below."""
    singles = result.lines_found
    said = [target.line() for target in result.targets()]
    figure = new_figure(13.0, 3.4 + 3.2 * len(singles) + 0.09 * len(said))
    parts: Any = figure.subfigures(
        2 + len(singles), 1, height_ratios=[3.4, *(3.2 for _ in singles), 0.2 + 0.09 * len(said)]
    )
    _draw_indent(parts[0], result)
    for part, one in zip(parts[1:-1], singles, strict=True):
        _draw_line(part, one)
    half = math.ceil(len(said) / 2)
    for x, column in ((0.02, said[:half]), (0.52, said[half:])):
        parts[-1].text(x, 0.98, "\n".join(column), fontsize=8, va="top", family="DejaVu Sans Mono")
    return figure


def _draw_indent(part: Any, result: Dislocations) -> None:
    weak, matching = result.weak_beam, result.matching
    left, right = part.subplots(1, 2, sharex=True, sharey=True)
    _show(left, weak.x, weak.y, inverse_intensity(weak.image(), weak.crystal), cmap="gray", vmin=0.0, vmax=1.0)
    left.set_title("around an indent: weak beam, inverse intensity", fontsize=9)
    right.set_facecolor("white")
    for places, style, label in (
        (matching.known, {"marker": "o", "s": 60, "facecolors": "none", "edgecolors": "tab:blue"}, "known, visible"),
        (matching.hidden, {"marker": "s", "s": 14, "color": "0.7"}, "known, b·q̂ = 0"),
        (matching.found, {"marker": "x", "s": 30, "color": "tab:red"}, "found"),
    ):
        right.scatter(*places.T, label=label, linewidths=1.0, **style)
    right.set_aspect("equal")
    right.set_title("known lines, and those found", fontsize=9)
    right.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False)
    _label(right)


def _draw_line(part: Any, one: LineFound) -> None:
    panels = part.subplots(2, 4, width_ratios=[1.0, 1.0, 1.0, 1.05])
    part.suptitle(f"{one.kind} line, {one.dislocation.character_deg:.0f}° between b and line", fontsize=9)
    for column, name in enumerate(COMPONENTS):
        known = one.expected[name]
        # as bright as the field a micrometre or two from the line, or as noise if that is more
        noise = float(np.nanmedian(one.maps.components[name].error))
        reach = max(3.0 * float(np.percentile(np.abs(known), 75.0)), 2.0 * noise)
        options = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
        measured = np.where(one.maps.valid, one.maps.components[name].values, np.nan)
        _show(panels[0, column], one.maps.x, one.maps.y, measured, **options)
        image = _show(panels[1, column], one.maps.x, one.maps.y, known, **options)
        panels[0, column].set_title(f"{name} measured", fontsize=8)
        panels[1, column].set_title(f"{name} known", fontsize=8)
        bar = part.colorbar(image, ax=panels[:, column], shrink=0.7)
        bar.ax.tick_params(labelsize=6)
        bar.ax.yaxis.get_offset_text().set_size(6)
    density = one.density.values[0]
    reach = max(float(np.nanpercentile(np.abs(density), 99.5)), 1e-5)
    image = _show(panels[0, 3], one.maps.x, one.maps.y, density, cmap="PuOr", vmin=-reach, vmax=reach)
    panels[0, 3].set_title("n·curl β₃ (1/µm)", fontsize=8)
    bar = part.colorbar(image, ax=panels[0, 3], shrink=0.7)
    bar.ax.tick_params(labelsize=6)
    bar.ax.yaxis.get_offset_text().set_size(6)
    loops = panels[1, 3]
    loops.errorbar(
        one.squares.half_sizes_um,
        1e4 * one.squares.burgers_um,
        1e4 * one.squares.error_um,
        fmt=".",
        markersize=3,
        linewidth=0.6,
        label="squares",
    )
    loops.plot(
        one.around.half_sizes_um, 1e4 * one.around.burgers_um, color="0.7", linewidth=1.0, label="around the streak"
    )
    loops.axhline(1e4 * one.burgers_along_um, color="black", linewidth=0.8, label="known")
    loops.set_xlabel("half a side, or distance from the streak (µm)", fontsize=7)
    loops.set_ylabel("b·q̂ (Å)", fontsize=7)
    loops.set_ylim(1e4 * one.burgers_along_um - 1.5, 1e4 * one.burgers_along_um + 1.0)
    loops.tick_params(labelsize=6)
    loops.legend(fontsize=6, loc="lower right", frameon=False)


def _show(ax: Axes, x: NDArray, y: NDArray, image: NDArray, **options: Any) -> Any:
    extent = (float(x[0]), float(x[-1]), float(y[0]), float(y[-1]))
    drawn = ax.imshow(image.T, origin="lower", extent=extent, interpolation="nearest", aspect="equal", **options)
    _label(ax)
    return drawn


def _label(ax: Axes) -> None:
    ax.set_xlabel("x along the beam (µm)", fontsize=7)
    ax.set_ylabel("y (µm)", fontsize=7)
    ax.tick_params(labelsize=6)
