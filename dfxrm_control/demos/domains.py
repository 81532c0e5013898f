"""Ferroelastic domains of potassium niobate: stripes between walls, and small steps that nobody announced.

A mosaicity scan tells how the domains lean. Those that lean one way are bright at one roll and all but dark at that of
the others, so that a strain scan is made for each of these families, where it stands. Strain of both, counted from one
spacing, goes into one map with the tilts, and domains are told apart in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray
from scipy import ndimage

from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.demos.targets import Target
from dfxrm_control.errors import ConfigError, RunError
from dfxrm_control.microscope import View
from dfxrm_control.reduction import (
    DomainMap,
    LatticeField,
    MapSet,
    Segmentation,
    draw,
    draw_key,
    find_domains,
    lattice_field,
    maps_from_file,
    mosaicity_rgb,
    new_figure,
    plot_domains,
    save_figure,
    write_domain_table,
    write_domains,
)
from dfxrm_control.session import Session

__all__ = ["DomainsFound", "KnownDomains", "Step", "compare", "run_domains"]

STRAIN_EXPOSURE_S = 1.0
HOW = Segmentation(dark_fraction=0.5)
"""The blurred edge of a domain beside a dark one is at half of its intensity."""
SMALL_DEG = 0.05
"""A smaller change of orientation across a wall is none between twins."""
CLEAR_UM2 = 5.0
"""A domain that is seen on less is too small for a mean of its own."""
MOST = 0.8
"""Share of a domain's pixels that must carry its label."""
NAMES = ("tilt_rock", "tilt_roll", "strain")


@dataclass(frozen=True)
class KnownDomains:
    """The truth: what the twin was given.

    Attributes
    ----------
    labels : ndarray of int, shape (nx, ny)
        Domain that each pixel looks at; -1 where there is no crystal.
    values : dict of str to ndarray, shape (domains,)
        ``tilt_rock``, ``tilt_roll`` (deg) and ``strain`` of each.
    bright : ndarray of bool, shape (domains,)
        Whether it diffracts at this 2theta.
    """

    labels: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    bright: NDArray[np.bool_]

    @property
    def light(self) -> NDArray[np.bool_]:
        """Pixels that look at a domain that diffracts, shape (nx, ny)."""
        return (self.labels >= 0) & self.bright[np.maximum(self.labels, 0)]

    def map(self, name: str) -> NDArray[np.float64]:
        """Return one value as a map, NaN where nothing diffracts."""
        return np.where(self.light, self.values[name][np.maximum(self.labels, 0)], np.nan)


@dataclass(frozen=True)
class Step:
    """A small step between two domains.

    Attributes
    ----------
    kind : str
        ``rock``, ``roll`` or ``strain``.
    found, error, known : float
        Difference of the domains' means, its standard error, and what it is; mdeg, or 1e-6 of strain.
    pixel_error : float
        Predicted rms error of one pixel beside it.
    units : str
        ``mdeg`` or ``1e-6``.
    """

    kind: str
    found: float
    error: float
    known: float
    pixel_error: float
    units: str

    def target(self) -> Target:
        """Return what the step must be: 2 mdeg, or a tenth of the step of strain, are allowed."""
        return Target(
            f"step in {self.kind}",
            self.found,
            self.known,
            2.0 if self.units == "mdeg" else 0.1 * abs(self.known),
            self.units,
            f"+/- {self.error:.2g} by noise, one pixel +/- {self.pixel_error:.2g}",
        )


@dataclass(frozen=True)
class DomainsFound:
    """The demonstration's result.

    Attributes
    ----------
    domains : DomainMap
        What was found.
    known : KnownDomains
        What is there.
    steps : tuple of Step
        The small ones.
    distance_px : ndarray
        Of each pixel of the walls found to the next known one, and of each of the known ones to the next found.
    targets : tuple of Target
        What must be reached.
    picture : Path
        Both, side by side.
    """

    domains: DomainMap
    known: KnownDomains
    steps: tuple[Step, ...]
    distance_px: NDArray[np.float64]
    targets: tuple[Target, ...]
    picture: Path

    @property
    def met(self) -> bool:
        """Whether every target was reached."""
        return all(target.met for target in self.targets)

    def lines(self) -> list[str]:
        """Return the report."""
        return [*(target.line() for target in self.targets), f"picture: {self.picture}"]


def run_domains(config: MicroscopeConfig, *, quiet: bool = False) -> DomainsFound:
    """Scan tilts, then strain of each family of domains, and compare the domains found with those known.

    Parameters
    ----------
    config : MicroscopeConfig
        A twin with a sample of domains.
    quiet : bool
        No table and no progress bar.

    Raises
    ------
    ConfigError
        When the microscope is no twin that knows its domains.
    RunError
        When a scan fails or tells no tilts.
    """
    with Session(config, maps=False, quiet=quiet) as session:
        twin: Any = session.backend
        if not hasattr(twin, "known_domains"):
            raise ConfigError(f"configuration {config.name!r} is no twin, so there is no truth to compare with")
        view: View = twin.view(config.scan.camera)
        known = _known(twin, view)
        outcome = session.run("mosaicity_scan", {})
        folder = outcome.folder / "maps"
        maps = maps_from_file(outcome.master)
        tilts = lattice_field(maps)
        if len(tilts.tilts) < 2:
            raise RunError(f"{maps.source} has no maps of both tilts, so there are no domains to be told apart")
        roll, rock = (session.real_axes()[name] for name in (config.scan.roll, config.scan.rock))
        home = [(axis, axis.position) for axis in (roll, rock)]
        strained = []
        for place in _families(maps, find_domains(tilts), view):
            session.move([(roll, place[0]), (rock, place[1])])
            outcome = session.run("strain_scan", {"exposure_s": STRAIN_EXPOSURE_S})
            strained.append(maps_from_file(outcome.master))
        session.move(home)
    domains = find_domains(_with_strain(tilts, strained), HOW)
    folder.mkdir(exist_ok=True)
    steps, distance, targets = compare(domains, known)
    found = DomainsFound(domains, known, steps, distance, targets, folder / "domains_and_truth.png")
    write_domains(domains, folder / "domains.h5")
    write_domain_table(domains, folder / "domains.csv")
    plot_domains(domains, folder / "domains.png")
    _draw(found)
    return found


def _known(twin: Any, view: View) -> KnownDomains:
    labels, sample = twin.known_domains(view.camera), twin.sample
    count = int(sample.domain.max()) + 1
    values = {name: np.full(count, math.nan) for name in NAMES}
    for number in range(count):
        of_domain = sample.domain == number
        if of_domain.any():
            roll, rock = sample.tilt_deg[of_domain].mean(axis=0)[:2]
            values["tilt_rock"][number], values["tilt_roll"][number] = rock, roll
            values["strain"][number] = sample.strain[of_domain].mean()
    if view.resolution is None:
        raise ConfigError(f"camera {view.camera!r} has no objective before it, so it makes no map")
    # the objective accepts planes of another spacing to so many standard deviations
    bright = np.abs(values["strain"]) < 4.0 * float(view.resolution.marginal_rad[2])
    return KnownDomains(labels, values, bright)


def _families(maps: MapSet, domains: DomainMap, view: View) -> list[tuple[float, float]]:
    """Return roll and rock of the middle of each family of domains that are bright together."""
    roll, rock = maps.axes[0], maps.axes[1]
    width = view.instrument_fwhm((roll.name, rock.name))[roll.name]
    places = []
    for one in domains.domains:
        here = (domains.labels == one.label) & maps.valid
        places.append((float(np.median(roll.com[here])), float(np.median(rock.com[here])), one.pixels))
    places.sort()
    groups = [[places[0]]]
    for place in places[1:]:
        if place[0] - groups[-1][0][0] > width:
            groups.append([])
        groups[-1].append(place)
    middles = []
    for group in groups:
        weights = [pixels for _, _, pixels in group]
        first, second = (float(np.average([place[axis] for place in group], weights=weights)) for axis in (0, 1))
        middles.append((first, second))
    return middles


def _with_strain(tilts: LatticeField, strained: Sequence[MapSet]) -> LatticeField:
    """Return the tilts with the strain of the scan in which each pixel is brightest, counted from one spacing.

    A pixel that is in no strain scan, at the edge of what diffracts, has that of the nearest one that is.
    """
    lengths = [float(np.linalg.norm(one.reference_g)) for one in strained if one.reference_g is not None]
    if not strained or len(lengths) < len(strained):
        raise RunError("the strain scans tell no strain, so there is none to be mapped")
    best = np.argmax([np.where(one.valid, np.nan_to_num(one.integrated), 0.0) for one in strained], axis=0)
    # 1 + strain is a ratio of spacings, and a spacing the inverse of |G|
    values = np.choose(
        best,
        [
            (1.0 + one.components["strain"].values) * lengths[0] / length - 1.0
            for one, length in zip(strained, lengths, strict=True)
        ],
    )
    error = np.choose(best, [one.components["strain"].noise_error for one in strained])
    unknown = ~(np.isfinite(values) & np.isfinite(error))
    nearest = tuple(ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True))
    return replace(
        tilts,
        values=tilts.values | {"strain": values[nearest]},
        error=tilts.error | {"strain": error[nearest]},
        notes=(*tilts.notes, "strain is that of the scan of the family each pixel is brightest in"),
    )


def compare(found: DomainMap, known: KnownDomains) -> tuple[tuple[Step, ...], NDArray[np.float64], tuple[Target, ...]]:
    """Compare domains that were found with those that are there.

    Parameters
    ----------
    found : DomainMap
        From tilts and strain.
    known : KnownDomains
        On the same pixels.

    Returns
    -------
    steps : tuple of Step
        The small steps that are there, as they were found; NaN where not.
    distance_px : ndarray
        Of walls found to walls known, and the other way round.
    targets : tuple of Target
        Every domain, every dark one, the steps, the walls.
    """
    pixel = abs(found.field.steps[0] * found.field.steps[1])
    numbers, counts = np.unique(known.labels[known.labels >= 0], return_counts=True)
    clear = [int(number) for number, count in zip(numbers, counts, strict=True) if count * pixel >= CLEAR_UM2]
    bright = [number for number in clear if known.bright[number]]
    dark = [number for number in clear if not known.bright[number]]
    label_of = {number: _label_of(found, known, number) for number in bright}
    seen = [label for label in label_of.values() if label is not None]
    in_dark = [number for number in dark if (found.labels[known.labels == number] < 0).mean() >= MOST]
    steps = tuple(_steps(found, known, label_of))
    there, walls = _walls(known.labels, known.light), _walls(found.labels, found.labels > 0)
    far = math.inf
    to_known = ndimage.distance_transform_edt(~there)[walls] if there.any() else np.full(int(walls.sum()), far)
    to_found = ndimage.distance_transform_edt(~walls)[there] if walls.any() else np.full(int(there.sum()), far)
    distance = np.concatenate([to_known, to_found])
    twins = [wall.misorientation_deg for wall in found.walls if wall.misorientation_deg > SMALL_DEG]
    targets = [
        Target("domains that diffract, found", len(set(seen)), len(bright), 0.0),
        Target("dark domains, labelled as not in this reflection", len(in_dark), len(dark), 0.0),
        Target("domains found that are none", _extra(found, set(seen), pixel), 0.0, 0.0),
        Target("twin angle", float(np.median(twins)) if twins else math.nan, _twin_deg(known, bright), 0.002, "deg"),
        *(step.target() for step in steps),
        Target("walls, 95 % of their pixels within", float(np.percentile(distance, 95.0)), 0.0, 2.0, "px"),
    ]
    return steps, distance, tuple(targets)


def _label_of(found: DomainMap, known: KnownDomains, number: int) -> int | None:
    """Return the label of a known domain: that of most of its pixels, most of which are in it."""
    here = known.labels == number
    labels, counts = np.unique(found.labels[here], return_counts=True)
    label = int(labels[counts.argmax()])
    if label < 1 or counts.max() < MOST * here.sum():
        return None
    return label if counts.max() >= MOST * (found.labels == label).sum() else None


def _extra(found: DomainMap, seen: set[int], pixel: float) -> int:
    return sum(one.label not in seen and one.pixels * pixel >= CLEAR_UM2 for one in found.domains)


def _twin_deg(known: KnownDomains, bright: Sequence[int]) -> float:
    """Return the median angle between diffraction vectors of neighbours that are twins."""
    pairs = [(one, one + 1) for one in bright if one + 1 in bright]
    angles = [
        math.hypot(*(known.values[n][b] - known.values[n][a] for n in ("tilt_rock", "tilt_roll"))) for a, b in pairs
    ]
    return float(np.median([angle for angle in angles if angle > SMALL_DEG]))


def _steps(found: DomainMap, known: KnownDomains, label_of: dict[int, int | None]) -> list[Step]:
    """Return the small steps between known neighbours, as the means of the domains found there tell them."""
    means = {one.label: one for one in found.domains}
    steps = []
    for number, label in label_of.items():
        if number + 1 not in label_of:
            continue
        change = {name: float(known.values[name][number + 1] - known.values[name][number]) for name in NAMES}
        if math.hypot(change["tilt_rock"], change["tilt_roll"]) > SMALL_DEG:
            continue
        name = max(NAMES, key=lambda name: abs(change[name]) / (1e-3 if name.startswith("tilt_") else 1e-5))
        unit, units = (1e-3, "mdeg") if name.startswith("tilt_") else (1e-6, "1e-6")
        other = label_of[number + 1]
        here = (known.labels == number) | (known.labels == number + 1)
        noise = float(np.nanmedian(found.field.error[name][here & found.field.valid])) / unit
        value = error = math.nan
        if label is not None and other is not None and label != other:
            one, two = means[label], means[other]
            value = (two.mean[name] - one.mean[name]) / unit
            error = math.hypot(one.error[name], two.error[name]) / unit
        steps.append(Step(name.removeprefix("tilt_"), value, error, change[name] / unit, noise, units))
    return steps


def _walls(labels: NDArray, light: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels at whose lower or right side another domain begins, one of the two being bright."""
    walls = np.zeros(labels.shape, bool)
    walls[:-1] |= (labels[:-1] != labels[1:]) & (light[:-1] | light[1:])
    walls[:, :-1] |= (labels[:, :-1] != labels[:, 1:]) & (light[:, :-1] | light[:, 1:])
    return walls


def _draw(found: DomainsFound) -> None:
    """Draw tilts and strain with their walls, measured and known, and the numbers below."""
    figure = new_figure(11.0, 6.6)
    figure.suptitle("potassium niobate 022 at 17 keV: ferroelastic domains; grey: not in this reflection", fontsize=10)
    grid = figure.add_gridspec(2, 1, height_ratios=(3.2, 1.0))
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    panels = top.subplots(2, 3, width_ratios=(1.0, 1.0, 0.28))
    field, known = found.domains.field, found.known
    bright = found.domains.labels > 0
    measured = {name: np.where(bright, field.values[name], np.nan) for name in NAMES}
    there = {name: known.map(name) for name in NAMES}
    tilts = []
    for maps in (measured, there):
        tilts.append(
            [maps[name] - np.nanmedian(measured[name]) if maps is measured else maps[name] for name in NAMES[:2]]
        )
    # the measured tilts count from their median; both are drawn from the mean of the two families
    both = [(_centred(roll), _centred(rock)) for rock, roll in tilts]
    ranges = [(-0.16, 0.16), (-0.1, 0.1)]
    walls = (_walls(found.domains.labels, bright), _walls(known.labels, known.light))
    for column, (title, wall) in enumerate(zip(("measured", "known"), walls, strict=True)):
        _panel(panels[0, column], found.domains, mosaicity_rgb(*both[column], ranges), wall)
        panels[0, column].set_title(f"tilts, {title}", fontsize=9)
    draw_key(panels[0, 2], ("roll (deg)", "rock (deg)"), ranges)
    limit = 300.0
    for column, (title, values) in enumerate((("measured", measured["strain"]), ("known", there["strain"]))):
        centred = 1e6 * (values - np.nanmedian(values))
        image = draw(
            field,
            panels[1, column],
            np.where(np.isfinite(centred), centred, np.nan),
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
        )
        panels[1, column].set_facecolor("0.5")
        panels[1, column].set_title(f"strain, {title}", fontsize=9)
    panels[1, 2].axis("off")
    top.colorbar(image, ax=panels[1, 2], location="left", fraction=0.4, label="strain (1e-6)")
    bottom.text(0.02, 0.98, "\n".join(found.lines()[:-1]), va="top", fontsize=8, family="monospace")
    save_figure(figure, found.picture)


def _centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.nanpercentile(values, (10.0, 90.0))
    return values - (low + high) / 2.0


def _panel(ax: Axes, domains: DomainMap, image: NDArray, walls: NDArray[np.bool_]) -> None:
    ax.set_facecolor("0.5")
    known = np.isfinite(image).all(axis=-1) & (image.sum(axis=-1) > 0.0)
    draw(domains.field, ax, np.concatenate([image, known[..., np.newaxis].astype(float)], axis=-1))
    black = ListedColormap(["black"])
    draw(domains.field, ax, np.where(walls, 1.0, np.nan), cmap=black)
