"""Domains and sub-grains in a map of tilts, and the walls between them.

The map is cut into small regions along the crests of its gradient (watershed), and neighbours are merged, the least
different first, until every step that is left between two neighbours is one: larger than a least step, than noise makes
it, and than the orientation wanders within domains. A wall whose image is blurred is one wall: regions that only hold
the pixels in between are given to their neighbours.

The step between two regions is the mean change over pairs of pixels `Segmentation.reach` apart, along rows or columns,
one on either side, without the change that goes on before and after them: a crystal that bends smoothly has no steps.
Sums over pairs add up when regions merge. How much orientation wanders is told by the smaller of the same steps of all
pairs, which lie within domains.

Only the direction and length of the diffraction vector are seen: a rotation about it is invisible, so a misorientation
is the change of Q's direction and at most the true one, and the dislocation spacing made of it an upper bound.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from dfxrm_control.errors import ParameterError

__all__ = ["DarkRegion", "Domain", "DomainMap", "LatticeField", "Segmentation", "Wall", "find_domains"]

_ROUNDS = 4
"""Merging and giving away thin regions are repeated until nothing changes, at most so often."""

_STRIP_BEGIN, _STRIP_END = 3.0, 11.0
"""Cells on either side of a wall, by distance from it, from which its step is extrapolated."""

_CELLS_PER_BLUR = 3.0
_LARGEST_CELL, _FEWEST_CELLS = 12, 24
"""A cell is a third of the blur of a wall, at most so many pixels, and a map has at least so many cells on a side."""

_STEEPEST = 0.005
"""Share of the pixels, those of the steepest gradient, that tell how blurred walls are."""

_FEWEST = 5
"""Pixels on a side of a wall from which its step is measured there."""


@dataclass(frozen=True)
class Segmentation:
    """How domains are told apart.

    Attributes
    ----------
    significance : float
        A step counts from so many times its error: of noise, and of the wandering of orientation within domains.
    least_misorientation_deg : float
        A smaller step of orientation does not count.
    least_strain : float
        A smaller step of strain does not count.
    blur_pixels : tuple of float or None
        Width (FWHM) over which the image of a wall is blurred along x and y, in pixels; None: found from the steepest
        gradients of the map. The height of the line beam alone blurs by ``height / tan(2theta)`` along the beam.
        Domains are first found on a map of cells a third as large, then their walls are placed pixel by pixel.
    reach : int
        Distance between the two cells of a pair; it should exceed the blur of a wall, three cells.
    least_pixels : int
        Smaller regions, bright or dark, are given to their neighbours.
    least_width : float
        Regions nowhere wider than this many cells likewise: such are the blurred pixels of a wall.
    dark_fraction : float
        Pixels with less than this fraction of the bright ones' integrated intensity (their 95th percentile) do not
        belong to a domain that diffracts here.
    """

    significance: float = 3.0
    least_misorientation_deg: float = 0.003
    least_strain: float = 3e-5
    blur_pixels: tuple[float, float] | None = None
    reach: int = 4
    least_pixels: int = 50
    least_width: float = 5.0
    dark_fraction: float = 0.05

    def __post_init__(self) -> None:
        for name, least in (("significance", 0.0), ("least_misorientation_deg", 0.0), ("least_strain", 0.0)):
            if not getattr(self, name) > least:
                raise ParameterError(f"{name}: {getattr(self, name)!r} was given; it is a number above 0")
        if self.blur_pixels is not None and not min(self.blur_pixels) >= 0.0:
            raise ParameterError(f"blur_pixels: {self.blur_pixels} was given; both are numbers from 0")
        if self.reach < 1 or self.least_pixels < 1:
            raise ParameterError(
                f"reach and least_pixels: {self.reach} and {self.least_pixels} were given; both are from 1"
            )
        if not 0.0 <= self.dark_fraction < 1.0:
            raise ParameterError(f"dark_fraction: {self.dark_fraction:g} was given; it is a fraction from 0 to below 1")


@dataclass(frozen=True)
class LatticeField:
    """What a scan tells of the lattice, pixel by pixel: what domains are found in.

    Attributes
    ----------
    source, sample : str
        Scan and sample.
    x, y : ndarray, shapes (nx,), (ny,)
        Positions on the layer.
    length_units : {"um", "pixel"}
        Of x and y.
    affine : ndarray, shape (3, 3)
        Takes (x, y, 1) to the sample's frame.
    values, error : dict of str to ndarray, shape (nx, ny)
        Tilts (deg) under names that begin with ``tilt_``, and ``strain`` where known; rms error by noise.
    valid : ndarray of bool, shape (nx, ny)
        Where there are values.
    integrated : ndarray, shape (nx, ny)
        Integrated intensity, ADU.
    spread : dict of str to ndarray, shape (nx, ny)
        Local spread within a pixel by scanned axis, deg; see `AxisMaps`.
    notes : tuple of str
        What was assumed.
    saturated : ndarray of bool, shape (nx, ny), or None
        Where errors do not hold: such pixels belong to domains, and are left out of their numbers. Default: nowhere.
    """

    source: str
    sample: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    length_units: str
    affine: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]
    error: dict[str, NDArray[np.float64]]
    valid: NDArray[np.bool_]
    integrated: NDArray[np.float64]
    spread: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    saturated: NDArray[np.bool_] | None = None

    @property
    def steps(self) -> tuple[float, float]:
        """Distance between pixels along x and y."""
        dx, dy = (float(v[-1] - v[0]) / max(len(v) - 1, 1) for v in (self.x, self.y))
        return dx, dy

    @property
    def tilts(self) -> tuple[str, ...]:
        """Names of the tilts."""
        return tuple(name for name in self.values if name.startswith("tilt_"))


@dataclass(frozen=True)
class Domain:
    """One domain.

    Attributes
    ----------
    label : int
        Its number in the map of labels, from 1, the largest first.
    pixels : int
        Pixels in it.
    area, equivalent_diameter : float
        Size on the layer, in the map's unit squared, and of the circle of that area.
    x, y : float
        Centre on the layer.
    at_border : bool
        Whether it reaches the border of the map, so that its size is a lower bound.
    mean, error : dict of str to float
        Mean tilts (deg) and strain over its pixels away from walls, and their standard errors: predicted from noise,
        or found from scatter, whichever is larger.
    orientation_spread_deg : float
        rms angle of its pixels to the mean, without the part of noise.
    local_spread_deg : dict of str to float
        Median spread within a pixel, by scanned axis.
    """

    label: int
    pixels: int
    area: float
    equivalent_diameter: float
    x: float
    y: float
    at_border: bool
    mean: dict[str, float]
    error: dict[str, float]
    orientation_spread_deg: float
    local_spread_deg: dict[str, float]


@dataclass(frozen=True)
class DarkRegion:
    """A region that is not in this reflection.

    Attributes
    ----------
    label : int
        Its number in the map of labels, from -1 downwards.
    pixels : int
        Pixels in it.
    area : float
        Size, in the map's unit squared.
    x, y : float
        Centre on the layer.
    """

    label: int
    pixels: int
    area: float
    x: float
    y: float


@dataclass(frozen=True)
class Wall:
    """The wall between two domains.

    Attributes
    ----------
    first, second : int
        Labels of the domains.
    length : float
        In the map's unit.
    step, error : dict of str to float
        Change of each tilt (deg) and of the strain from the first to the second at the wall, and its rms error; from
        pixels beside the blurred ones, extrapolated to the wall.
    misorientation_deg, misorientation_error_deg : float
        Angle between the diffraction vectors on the two sides: at most that between the lattices.
    spacing_um : float or None
        Distance between dislocations that make this misorientation, ``b / (2 sin(w / 2))``: an upper bound. None
        where no Burgers vector was given.
    """

    first: int
    second: int
    length: float
    step: dict[str, float]
    error: dict[str, float]
    misorientation_deg: float
    misorientation_error_deg: float
    spacing_um: float | None


@dataclass(frozen=True)
class DomainMap:
    """Domains of a map and the walls between them.

    Attributes
    ----------
    labels : ndarray of int, shape (nx, ny)
        From 1: domains, the largest first; below 0: dark regions, which are not in this reflection.
    domains : tuple of Domain
        By label.
    dark : tuple of DarkRegion
        By label, -1 first.
    walls : tuple of Wall
        Longest first.
    field : LatticeField
        What they were found in.
    settings : dict
        How, see `Segmentation`, and the Burgers vector.
    notes : tuple of str
        What was assumed, and what limits the numbers.
    """

    labels: NDArray[np.int32]
    domains: tuple[Domain, ...]
    dark: tuple[DarkRegion, ...]
    walls: tuple[Wall, ...]
    field: LatticeField
    settings: dict[str, Any]
    notes: tuple[str, ...]


def find_domains(
    lattice: LatticeField, segmentation: Segmentation | None = None, *, burgers_um: float | None = None
) -> DomainMap:
    """Find the domains of a map and measure them and their walls.

    Parameters
    ----------
    lattice : LatticeField
        Tilts, and strain where known.
    segmentation : Segmentation, optional
        How they are told apart; default: `Segmentation()`.
    burgers_um : float, optional
        Length b of the Burgers vector, for the spacing of dislocations in walls.

    Raises
    ------
    ParameterError
        When the map has no tilts, or nothing in it diffracts.
    """
    how = segmentation or Segmentation()
    if burgers_um is not None and not burgers_um > 0.0:
        raise ParameterError(f"burgers_um: {burgers_um:g} um was given; the length of a Burgers vector is above 0")
    if not lattice.tilts:
        raise ParameterError(f"{lattice.source} has no map of a tilt; domains are told apart by their orientation")
    lit = _lit(lattice, how)
    if not lit.any():
        raise ParameterError(f"{lattice.source} has no pixel that stands out of its noise; there is nothing to segment")
    dark, inside = _dark_regions(lit, how)
    blur = how.blur_pixels or _blur(lattice, lit)
    cell = tuple(
        int(np.clip(round(width / _CELLS_PER_BLUR), 1, max(1, min(_LARGEST_CELL, size // _FEWEST_CELLS))))
        for width, size in zip(blur, lit.shape, strict=True)
    )
    labels, roughness = _segmented(lattice, lit, inside, cell, how)
    labels = _measurably_apart(lattice, lit, dark, labels, cell, how)
    labels = _measurably_apart(lattice, lit, dark, _divided(lattice, lit, labels, cell, how, roughness), cell, how)
    good, saturation = _trusted(lattice, labels, lit & (labels > 0))
    out = np.where(labels > 0, labels, dark).astype(np.int32)
    domains = _measured(lattice, labels, good, cell)
    walls = _walls(lattice, out, good, domains, cell, burgers_um)
    notes = [
        *lattice.notes,
        *saturation,
        "misorientations are changes of the diffraction vector's direction: a rotation about it is invisible, so they "
        "are lower bounds, and spacings of dislocations upper bounds",
    ]
    if len(lattice.tilts) == 1:
        notes.append("one tilt was scanned: the other does not count in the misorientations")
    if dark.any():
        notes.append("labels below 0 are dark: not in this reflection at these settings")
    return DomainMap(
        out,
        tuple(domains),
        tuple(_dark(lattice, dark)),
        tuple(sorted(walls, key=lambda wall: -wall.length)),
        lattice,
        asdict(how) | {"burgers_um": burgers_um, "blur_pixels": blur, "cell_pixels": cell},
        tuple(notes),
    )


def _measurably_apart(
    lattice: LatticeField,
    lit: NDArray[np.bool_],
    dark: NDArray[np.int32],
    labels: NDArray[np.int32],
    cell: Sequence[int],
    how: Segmentation,
) -> NDArray[np.int32]:
    """Return labels, the largest first, without walls whose step is none where it is measured best, beside the blur."""
    labels = _largest_first(labels)
    for _ in range(_ROUNDS):
        good = lit & (labels > 0)
        domains = _measured(lattice, labels, good, cell)
        walls = _walls(lattice, np.where(labels > 0, labels, dark).astype(np.int32), good, domains, cell, None)
        none = [wall for wall in walls if not _counts(wall, how)]
        if not none:
            break
        labels = _largest_first(_joined(labels, none))
    return labels


def _counts(wall: Wall, how: Segmentation) -> bool:
    angle = math.hypot(how.least_misorientation_deg, how.significance * wall.misorientation_error_deg)
    strain = math.hypot(how.least_strain, how.significance * wall.error.get("strain", 0.0))
    return wall.misorientation_deg >= angle or abs(wall.step.get("strain", 0.0)) >= strain


def _joined(labels: NDArray[np.int32], walls: Sequence[Wall]) -> NDArray[np.int32]:
    """Return labels from 1 without some walls."""
    root = np.arange(int(labels.max()) + 1)
    for wall in walls:
        root[root == root[wall.second]] = root[wall.first]
    kept = np.unique(root[1:])
    number = np.zeros(root.size, np.int32)
    number[kept] = np.arange(1, kept.size + 1)
    return np.where(labels > 0, number[root[labels]], 0).astype(np.int32)


def _lit(lattice: LatticeField, how: Segmentation) -> NDArray[np.bool_]:
    """Return the pixels that diffract here and have all values."""
    lit = lattice.valid.copy()
    if not lit.any():
        return lit
    bright = float(np.percentile(lattice.integrated[lit], 95.0))
    lit &= lattice.integrated >= how.dark_fraction * bright
    for values in (*lattice.values.values(), *lattice.error.values()):
        lit &= np.isfinite(values)
    return lit


def _trusted(
    lattice: LatticeField, labels: NDArray[np.int32], good: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return the pixels that numbers of domains are made of, saturated ones left out, and what is to be said of it."""
    if lattice.saturated is None or not (good & lattice.saturated).any():
        return good, []
    full = good & lattice.saturated
    size = np.bincount(labels[good], minlength=int(labels.max()) + 1)
    mostly = np.flatnonzero(np.bincount(labels[full], minlength=size.size) > 0.5 * size)
    note = f"{int(full.sum())} saturated pixels lie in domains and are left out of their numbers"
    if mostly.size:
        note += (
            f", but for those of domains {', '.join(map(str, mostly))}, which are saturated for the most part: their "
            "errors are not those predicted"
        )
    return good & ~(full & ~np.isin(labels, mostly)), [note]


def _dark_regions(lit: NDArray[np.bool_], how: Segmentation) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return labels of dark regions, from -1 downwards, and all that is not dark, small holes included."""
    # single pixels at the edge of a dark region are noise on either side
    solid = ndimage.binary_opening(~lit, iterations=1) if min(lit.shape) > 2 else ~lit
    parts, count = ndimage.label(ndimage.binary_dilation(solid, iterations=1, mask=~lit))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    kept = [part for part in np.argsort(-sizes[1:], kind="stable") + 1 if sizes[part] >= how.least_pixels]
    number = np.zeros(count + 1, np.int32)
    number[kept] = -np.arange(1, len(kept) + 1)
    dark = number[parts]
    return dark, dark == 0


def _blur(lattice: LatticeField, lit: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the width (FWHM) of walls along x and y, pixels: of the mean profile of the steepest gradients."""
    found = []
    # beside what is dark, a gradient is that of the last light
    clear = ndimage.binary_erosion(lit, iterations=_LARGEST_CELL)
    if not clear.any():
        clear = ndimage.binary_erosion(lit)
    for axis in (0, 1):
        best = 1.0
        size = lit.shape[axis]
        reach = min(6 * _LARGEST_CELL, size // 3)
        if reach < 4:
            found.append(best)
            continue
        slopes = []
        for name in lattice.tilts:
            slope = np.gradient(_smoothed(lattice.values[name], lit, (1.0, 1.0)), axis=axis)
            slope[~clear] = 0.0
            slopes.append(np.moveaxis(slope, axis, 0))
        steep = np.sqrt(sum(slope**2 for slope in slopes))
        inner = steep[reach : size - reach]
        tops = np.argwhere(inner >= np.quantile(inner, 1.0 - _STEEPEST))
        profile = np.zeros(2 * reach + 1)
        for slope in slopes:
            along = np.stack([slope[tops[:, 0] + k, tops[:, 1]] for k in range(2 * reach + 1)])
            # of each top, the slope in the direction of the steepest
            profile += (along * slope[tops[:, 0] + reach, tops[:, 1]]).sum(axis=1)
        half = profile[reach] / 2.0
        if half > 0.0:
            under = np.flatnonzero(profile[reach:] < half), np.flatnonzero(profile[reach::-1] < half)
            best = float(sum(part[0] - 0.5 if part.size else reach for part in under))
        # smoothing has added its own width, 2.35 pixels
        found.append(math.sqrt(max(best**2 - 2.35**2, 1.0)))
    return found[0], found[1]


def _smoothed(values: NDArray[np.float64], lit: NDArray[np.bool_], sigma: tuple[float, float]) -> NDArray[np.float64]:
    """Return values smoothed over the pixels that have some."""
    seen = ndimage.gaussian_filter(lit.astype(float), sigma)
    return ndimage.gaussian_filter(np.where(lit, values, 0.0), sigma) / np.maximum(seen, 1e-6)


def _segmented(
    lattice: LatticeField,
    lit: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    cell: tuple[int, ...],
    how: Segmentation,
    roughest: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return labels from 1, and 0 outside: found on cells, with walls placed pixel by pixel; and the wandering."""
    if max(cell) == 1:
        merger = _Merger(lattice, lit, inside, how, roughest=roughest)
        return merger.run(), merger.roughness
    number = _in_cells(lit.astype(float), cell)
    values, error = {}, {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name in lattice.values:
            values[name] = _in_cells(np.where(lit, lattice.values[name], 0.0), cell) / number
            error[name] = np.sqrt(_in_cells(np.where(lit, lattice.error[name] ** 2, 0.0), cell)) / number
    whole = _in_cells(np.ones(lit.shape), cell)
    coarse_lit = number > 0.5 * whole
    coarse_inside = (_in_cells(inside.astype(float), cell) > 0.5 * whole) | coarse_lit
    coarse = replace(lattice, values=values, error=error)
    cells = replace(how, least_pixels=max(4, round(how.least_pixels / math.prod(cell))))
    merger = _Merger(coarse, coarse_lit, coarse_inside, cells, roughest=roughest)
    found = merger.run()
    labels = np.repeat(np.repeat(found, cell[0], axis=0), cell[1], axis=1)[: lit.shape[0], : lit.shape[1]]
    sharp = _Merger(lattice, lit, inside, how, (float(cell[0]), float(cell[1])))
    return sharp.placed(np.where(inside, labels, 0), cell), merger.roughness


def _divided(
    lattice: LatticeField,
    lit: NDArray[np.bool_],
    labels: NDArray[np.int32],
    cell: tuple[int, ...],
    how: Segmentation,
    roughness: NDArray[np.float64],
) -> NDArray[np.int32]:
    """Return labels with each domain divided where it has walls of its own that are weak beside those around it.

    A domain is looked at without its blurred border: there, the gradients of strong walls hide the steps of weak ones.
    """
    depth = _depth(labels, cell)
    out, free = labels.copy(), int(labels.max()) + 1
    closely = replace(how, reach=how.reach + 2)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        whole = labels[box] == label
        inner = whole & (depth[box] > _STRIP_BEGIN)
        if (inner & lit[box]).sum() < 2 * how.least_pixels * math.prod(cell):
            continue
        part = replace(
            lattice,
            values={name: one[box] for name, one in lattice.values.items()},
            error={name: one[box] for name, one in lattice.error.items()},
        )
        # a domain half of which is turned looks rough, but no rougher than the whole map
        found, _ = _segmented(part, lit[box] & inner, inner, cell, closely, roughness)
        if found.max() > 1:
            # the border goes with the nearest part
            nearest = ndimage.distance_transform_edt(
                found == 0, sampling=[1.0 / c for c in cell], return_distances=False, return_indices=True
            )
            view = out[box]
            number = found[tuple(nearest)]
            view[whole] = np.where(number[whole] == 1, label, free + number[whole] - 2)
            free += int(found.max()) - 1
    return out


def _in_cells(values: NDArray[np.float64], cell: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the sums over cells of so many pixels; the last ones may be cut."""
    return np.add.reduceat(
        np.add.reduceat(values, np.arange(0, values.shape[0], cell[0]), axis=0),
        np.arange(0, values.shape[1], cell[1]),
        axis=1,
    )


class _Merger:
    """Cuts a map into regions and merges them until all steps that are left count."""

    def __init__(
        self,
        lattice: LatticeField,
        lit: NDArray[np.bool_],
        inside: NDArray[np.bool_],
        how: Segmentation,
        sigma: tuple[float, float] = (1.0, 1.0),
        roughest: NDArray[np.float64] | None = None,
    ) -> None:
        self.how, self.lit, self.inside = how, lit, inside
        names = [*lattice.tilts, *(name for name in lattice.values if name == "strain")]
        least = [how.least_strain if name == "strain" else how.least_misorientation_deg for name in names]
        # in units of the least step that counts, tilts and strain can be added up
        self.values = np.stack([lattice.values[name] / unit for name, unit in zip(names, least, strict=True)])
        self.variance = np.stack([(lattice.error[name] / unit) ** 2 for name, unit in zip(names, least, strict=True)])
        tilt = np.array([name != "strain" for name in names])
        self.groups = [group for group in (np.flatnonzero(tilt), np.flatnonzero(~tilt)) if group.size]
        self.roughness = np.full(len(names), np.inf) if roughest is None else roughest
        self.smooth = np.stack([_smoothed(one, lit, sigma) for one in self.values])
        self.crests = self._gradient()

    def run(self) -> NDArray[np.int32]:
        """Return labels from 1, and 0 outside."""
        seeds = peak_local_max(-self.crests, min_distance=3, labels=self.inside.astype(np.int32), exclude_border=False)
        markers = np.zeros(self.inside.shape, np.int32)
        markers[tuple(seeds.T)] = np.arange(1, len(seeds) + 1)
        labels = watershed(self.crests, markers, mask=self.inside).astype(np.int32)
        self.roughness = np.minimum(self.roughness, self._rough())
        for _ in range(_ROUNDS):
            before = int(labels.max())
            labels = self._merged(labels)
            labels = self._without_thin(labels)
            if labels.max() == before:
                break
        return labels

    def _gradient(self) -> NDArray[np.float64]:
        """Return the size of the gradient of the smoothed values, in noise units where that is the larger."""
        total = np.zeros(self.lit.shape)
        for smooth, variance in zip(self.smooth, self.variance, strict=True):
            unit = max(float(np.median(variance[self.lit])), 1.0)
            for axis in (0, 1):
                if smooth.shape[axis] > 1:
                    total += np.gradient(smooth, axis=axis) ** 2 / unit
        return np.sqrt(total)

    def _merged(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Merge neighbours, the least different first, until every step counts."""
        count = int(labels.max()) + 1
        edges = _neighbours(labels)
        graph: list[dict[int, NDArray[np.float64]]] = [{} for _ in range(count)]
        for (a, b), sums in zip(edges.tolist(), self._steps(labels, count, edges), strict=True):
            graph[a][b] = sums
            graph[b][a] = self._reversed(sums)
        parent = np.arange(count)
        heap = [(self._size(graph[a][b]), a, b) for a, b in edges.tolist()]
        heapq.heapify(heap)
        while heap:
            size, a, b = heapq.heappop(heap)
            sums = graph[a].get(b)
            # merged away, or grown since, and then it comes again
            if parent[a] != a or parent[b] != b or sums is None or size != self._size(sums) or self._counts(sums):
                continue
            if len(graph[a]) < len(graph[b]):
                a, b = b, a
            graph[a].pop(b)
            parent[b] = a
            for c, beyond in graph[b].items():
                if c == a:
                    continue
                graph[c].pop(b)
                graph[a][c] = graph[a][c] + beyond if c in graph[a] else beyond
                graph[c][a] = self._reversed(graph[a][c])
                heapq.heappush(heap, (self._size(graph[a][c]), a, c))
            graph[b] = {}
        root = parent
        while (root != root[root]).any():
            root = root[root]
        merged = np.where(labels > 0, root[labels], 0)
        number = np.zeros(count, np.int32)
        kept = np.unique(merged[merged > 0])
        number[kept] = np.arange(1, kept.size + 1)
        return number[merged]

    def _steps(self, labels: NDArray[np.int32], count: int, edges: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return sums over the pairs of pixels across each edge, shape (edges, 1 + 2 components).

        The steps from the lower label to the higher, the number of pairs, and the variances of noise.
        """
        parts = len(self.values)
        across = np.zeros((len(edges), 1 + 2 * parts))
        keys = edges[:, 0] * count + edges[:, 1]
        for axis in (0, 1):
            reach = min(self.how.reach, labels.shape[axis] - 1)
            if reach < 1 or not len(keys):
                continue
            low, high = _shifted(axis, reach)
            both = (
                self.lit[low] & self.lit[high] & (labels[low] > 0) & (labels[high] > 0) & (labels[low] != labels[high])
            )
            a, b = labels[low][both].astype(np.int64), labels[high][both].astype(np.int64)
            key = np.minimum(a, b) * count + np.maximum(a, b)
            place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            # regions with a third between them are no neighbours
            met = keys[place] == key
            sign = np.where(a < b, 1.0, -1.0)[met]
            place = place[met]
            across[:, parts] += np.bincount(place, minlength=len(keys))
            for part in range(parts):
                change = (self.values[part][high] - self.values[part][low] - self._trend(part, axis, reach))[both][met]
                noise = (self.variance[part][high] + self.variance[part][low])[both][met]
                across[:, part] += np.bincount(place, change * sign, minlength=len(keys))
                across[:, 1 + parts + part] += np.bincount(place, noise, minlength=len(keys))
        return across

    def _trend(self, part: int, axis: int, reach: int) -> NDArray[np.float64]:
        """Return the change from the lower to the higher pixel of each pair that goes on before and after them.

        The smaller of the changes over the same distance just before and just after, if both have one sign, else
        none: a smooth gradient has it on both sides; the blur of a wall, or the next wall, on one at most. Where only
        one side has values, its own.
        """
        smooth = self.smooth[part]
        padding = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        low, high = _shifted(axis, reach)
        change = np.pad(np.where(self.lit[low] & self.lit[high], smooth[high] - smooth[low], np.nan), padding)
        ends = np.pad(np.ones(self.lit[low].shape, bool), padding)
        change[~ends] = np.nan
        before, after = change[_shifted(axis, 2 * reach)[0]], change[_shifted(axis, 2 * reach)[1]]
        with np.errstate(invalid="ignore"):
            both = np.where(before * after > 0.0, np.sign(before) * np.minimum(np.abs(before), np.abs(after)), 0.0)
        one = np.where(np.isnan(before), after, before)
        return np.where(np.isnan(before) | np.isnan(after), np.nan_to_num(one), both)

    def _reversed(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        back = sums.copy()
        back[: len(self.values)] *= -1.0
        return back

    def _size(self, sums: NDArray[np.float64]) -> float:
        """Return the square of the step across an edge, in units of the least one that counts."""
        parts = len(self.values)
        return float((sums[:parts] ** 2).sum()) / max(float(sums[parts]), 1.0) ** 2

    def _counts(self, sums: NDArray[np.float64]) -> bool:
        """Return whether the step between two regions is one."""
        parts = len(self.values)
        pairs = sums[parts]
        if pairs < 1.0:
            return False
        step = (sums[:parts] / pairs) ** 2
        # orientation wanders together over about the reach of a pair
        patches = max(1.0, pairs / (2.0 * self.how.reach**2))
        limit = self.how.significance**2 * (sums[1 + parts :] / pairs**2 + self.roughness / patches)
        # steps are in units of the least that counts
        return any(step[group].sum() >= 1.0 + limit[group].sum() for group in self.groups)

    def _rough(self) -> NDArray[np.float64]:
        """Return the variance of the steps that orientation makes within domains, as its pairs of cells tell.

        Of pairs half the reach apart, and from a low quantile of the squares (a fifth of a Gaussian's lies below 0.0642
        of its variance), so that walls do not count, of which a map may be full; what noise makes is taken off.
        """
        parts = len(self.values)
        squares: list[list[NDArray[np.float64]]] = [[] for _ in range(parts)]
        for axis in (0, 1):
            reach = min(max(self.how.reach // 2, 1), self.lit.shape[axis] - 1)
            if reach < 1:
                continue
            low, high = _shifted(axis, reach)
            both = self.lit[low] & self.lit[high]
            for part, values in enumerate(self.values):
                noise = (self.variance[part][high] + self.variance[part][low])[both]
                change = (values[high] - values[low] - self._trend(part, axis, reach))[both]
                squares[part].append(np.stack([change**2, noise]))
        found = np.zeros(parts)
        for part, of_part in enumerate(squares):
            if of_part and sum(one.shape[1] for one in of_part):
                change, noise = np.concatenate(of_part, axis=1)
                found[part] = max(float(np.quantile(change, 0.2)) / 0.0642 - float(np.median(noise)), 0.0)
        return found

    def placed(self, labels: NDArray[np.int32], cell: tuple[int, ...]) -> NDArray[np.int32]:
        """Return labels with their walls on the crests, given such that are right beyond a cell and a half of walls."""
        depth = _depth(labels, cell)
        index = np.arange(1, int(labels.max()) + 1)
        deepest = np.asarray(ndimage.maximum(depth, labels, index))
        enough = np.concatenate([[np.inf], np.minimum(2.0, 0.5 * deepest)])
        markers = np.where(depth > enough[labels], labels, 0)
        return watershed(self.crests, markers, mask=self.inside).astype(np.int32)

    def _without_thin(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Give regions that are too small or too thin to their neighbours, and put walls on the crests."""
        count = int(labels.max())
        if count == 0:
            return labels
        depth = _depth(labels, (1, 1))
        index = np.arange(1, count + 1)
        size = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        deepest = np.asarray(ndimage.maximum(depth, labels, index))
        kept = (size >= self.how.least_pixels) & (2.0 * deepest >= self.how.least_width)
        if not kept.any():
            kept = size == size.max()
        core = np.minimum(1.0, deepest * 0.5)
        number = np.zeros(count + 1, np.int32)
        number[1:][kept] = np.arange(1, int(kept.sum()) + 1)
        deep_enough = depth > np.concatenate([[np.inf], core])[labels]
        markers = np.where(deep_enough, number[labels], 0)
        return watershed(self.crests, markers, mask=self.inside).astype(np.int32)


def _shifted(axis: int, by: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return what takes the lower and the higher pixel of each pair ``by`` apart along an axis."""
    low = tuple(slice(None, -by) if a == axis else slice(None) for a in (0, 1))
    high = tuple(slice(by, None) if a == axis else slice(None) for a in (0, 1))
    return low, high


def _depth(labels: NDArray[np.int32], cell: Sequence[int]) -> NDArray[np.float64]:
    """Return the distance of each pixel from the nearest other label, in cells; the map's border is none."""
    padded = np.pad(labels, 1, mode="edge")
    other = np.zeros(padded.shape, bool)
    for axis in (0, 1):
        differ = np.diff(padded, axis=axis) != 0
        low, high = _shifted(axis, 1)
        other[low] |= differ
        other[high] |= differ
    if not other.any():
        return np.full(labels.shape, float(max(labels.shape)))
    sampling = [1.0 / size for size in cell]
    # pixels at a wall are half a pixel from it
    return ndimage.distance_transform_edt(~other, sampling=sampling)[1:-1, 1:-1] + 0.5 * min(sampling)


def _neighbours(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the pairs of labels that share an edge, sorted, shape (edges, 2)."""
    found = []
    count = int(labels.max()) + 1
    for axis in (0, 1):
        low, high = _shifted(axis, 1)
        a, b = labels[low].astype(np.int64), labels[high].astype(np.int64)
        met = (a != b) & (a > 0) & (b > 0)
        found.append(np.unique(np.minimum(a, b)[met] * count + np.maximum(a, b)[met]))
    keys = np.unique(np.concatenate(found))
    return np.stack([keys // count, keys % count], axis=1)


def _largest_first(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    size = np.bincount(labels.ravel(), minlength=int(labels.max()) + 1)[1:]
    number = np.zeros(len(size) + 1, np.int32)
    number[np.argsort(-size, kind="stable") + 1] = np.arange(1, len(size) + 1)
    return number[labels]


def _measured(
    lattice: LatticeField, labels: NDArray[np.int32], good: NDArray[np.bool_], cell: Sequence[int]
) -> list[Domain]:
    pixel = lattice.steps[0] * lattice.steps[1]
    depth = _depth(labels, cell)
    domains = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        whole = labels[box] == label
        used = whole & good[box]
        # a wall's image is blurred, so its pixels are not the domain's; a small domain has no others
        inner = used & (depth[box] > _STRIP_BEGIN - 1.0)
        used = inner if inner.sum() >= max(10, 0.2 * used.sum()) else used
        mean, error, scatter = {}, {}, 0.0
        for name, values in lattice.values.items():
            here, noise = values[box][used], lattice.error[name][box][used]
            mean[name] = float(here.mean()) if here.size else math.nan
            predicted = math.sqrt(float((noise**2).sum())) / max(here.size, 1)
            found = float(here.std()) / math.sqrt(max(here.size, 1)) if here.size else math.nan
            error[name] = max(predicted, found)
            if name in lattice.tilts and here.size:
                scatter += max(float(here.var()) - float((noise**2).mean()), 0.0)
        ix, iy = np.nonzero(whole)
        area = float(whole.sum()) * pixel
        at_border = any(part.start == 0 or part.stop == length for part, length in zip(box, labels.shape, strict=True))
        domains.append(
            Domain(
                label,
                int(whole.sum()),
                area,
                2.0 * math.sqrt(area / math.pi),
                float(lattice.x[ix + box[0].start].mean()),
                float(lattice.y[iy + box[1].start].mean()),
                at_border,
                mean,
                error,
                math.sqrt(scatter),
                {axis: _median(spread[box][used]) for axis, spread in lattice.spread.items()},
            )
        )
    return domains


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan


def _dark(lattice: LatticeField, dark: NDArray[np.int32]) -> list[DarkRegion]:
    pixel = lattice.steps[0] * lattice.steps[1]
    found = []
    for number, box in enumerate(ndimage.find_objects(-dark), start=1):
        if box is not None:
            ix, iy = np.nonzero(dark[box] == -number)
            centre = float(lattice.x[ix + box[0].start].mean()), float(lattice.y[iy + box[1].start].mean())
            found.append(DarkRegion(-number, ix.size, ix.size * pixel, *centre))
    return found


def _walls(
    lattice: LatticeField,
    labels: NDArray[np.int32],
    good: NDArray[np.bool_],
    domains: list[Domain],
    cell: Sequence[int],
    burgers_um: float | None,
) -> list[Wall]:
    lengths = _lengths(labels, lattice.steps)
    distance, facing = _facing(labels, cell)
    beside = good & (distance > _STRIP_BEGIN) & (distance < _STRIP_END) & (facing > 0)
    count = int(labels.max()) + 1
    key = labels[beside].astype(np.int64) * count + facing[beside]
    order = np.argsort(key, kind="stable")
    key, away = key[order], distance[beside][order]
    columns = {
        name: (values[beside][order], lattice.error[name][beside][order]) for name, values in lattice.values.items()
    }
    walls = []
    for (first, second), length in lengths.items():
        sides = []
        for own, other in ((first, second), (second, first)):
            begin, end = np.searchsorted(key, [own * count + other, own * count + other + 1])
            one = domains[own - 1]
            sides.append(
                {
                    # a wall too short to have pixels beside it separates the means
                    name: _at_wall(away[begin:end], v[begin:end], s[begin:end])
                    if end - begin >= _FEWEST
                    else (one.mean[name], math.hypot(one.error[name], _roam(one, name, lattice)))
                    for name, (v, s) in columns.items()
                }
            )
        step = {name: sides[1][name][0] - sides[0][name][0] for name in columns}
        error = {name: math.hypot(sides[0][name][1], sides[1][name][1]) for name in columns}
        angle = math.sqrt(sum(step[name] ** 2 for name in lattice.tilts))
        along = sum((step[name] * error[name]) ** 2 for name in lattice.tilts)
        walls.append(
            Wall(
                first,
                second,
                length,
                step,
                error,
                angle,
                math.sqrt(along) / angle if angle > 0.0 else math.nan,
                None
                if burgers_um is None or not angle > 0.0
                else burgers_um / (2.0 * math.sin(math.radians(angle) / 2.0)),
            )
        )
    return walls


def _roam(domain: Domain, name: str, lattice: LatticeField) -> float:
    """Return by how much the value at a wall may differ from the domain's mean."""
    return domain.orientation_spread_deg if name in lattice.tilts else 0.0


def _at_wall(away: NDArray[np.float64], values: NDArray[np.float64], noise: NDArray[np.float64]) -> tuple[float, float]:
    """Return a value extrapolated along a straight line to the wall, and its error by noise and scatter."""
    predicted = float((noise**2).mean())
    middle = float(away.mean())
    width = float(((away - middle) ** 2).sum())
    if values.size < 30 or width < values.size:
        # too few to tell a gradient
        return float(values.mean()), math.sqrt(max(predicted, float(values.var())) / values.size)
    slope = float(((away - middle) * values).sum()) / width
    at = float(values.mean()) - slope * middle
    rest = values - at - slope * away
    variance = max(predicted, float((rest**2).sum()) / (values.size - 2))
    return at, math.sqrt(variance * (1.0 / values.size + middle**2 / width))


def _facing(labels: NDArray[np.int32], cell: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the distance of each pixel to the nearest wall between two domains, cells, and which domain is beyond."""
    other = np.zeros(labels.shape, np.int32)
    for axis in (0, 1):
        low, high = _shifted(axis, 1)
        differ = labels[low] != labels[high]
        # a dark neighbour prevails, so that the strip beside a dark region belongs to no wall
        for own, beyond in ((low, high), (high, low)):
            view = other[own]
            take = differ & ((view == 0) | (labels[beyond] < 0))
            view[take] = labels[beyond][take]
    edge = other != 0
    if not edge.any():
        return np.full(labels.shape, np.inf), other
    sampling = [1.0 / size for size in cell]
    distance, nearest = ndimage.distance_transform_edt(~edge, sampling=sampling, return_indices=True)
    nearest_label, nearest_other = labels[tuple(nearest)], other[tuple(nearest)]
    facing = np.where(nearest_label == labels, nearest_other, nearest_label)
    return distance + 0.5 * min(sampling), np.where(facing == labels, 0, facing)


def _lengths(labels: NDArray[np.int32], steps: Sequence[float]) -> dict[tuple[int, int], float]:
    """Return the length of the wall between each two neighbouring domains.

    A straight wall with normal n crosses pixel edges whose projections on it add up to its length: those facing x
    count ``dy |n_x|``, those facing y ``dx |n_y|``. n is the gradient of the smoothed domain.
    """
    found: dict[tuple[int, int], float] = {}
    for label, box in enumerate(ndimage.find_objects(np.maximum(labels, 0)), start=1):
        if box is None:
            continue
        near = tuple(
            slice(max(part.start - 6, 0), min(part.stop + 6, length))
            for part, length in zip(box, labels.shape, strict=True)
        )
        part = labels[near]
        smooth = ndimage.gaussian_filter((part == label).astype(float), 2.0, mode="nearest")
        slopes = [
            np.gradient(smooth, step, axis=axis) if part.shape[axis] > 1 else np.zeros(part.shape)
            for axis, step in enumerate(steps)
        ]
        for axis in (0, 1):
            low, high = _shifted(axis, 1)
            a, b = part[low], part[high]
            met = ((a == label) & (b > label)) | ((b == label) & (a > label))
            beyond = np.maximum(a, b)[met]
            normal = [(slope[low] + slope[high])[met] for slope in slopes]
            share = np.abs(normal[axis]) / np.maximum(np.hypot(*normal), 1e-300)
            for second, length in zip(*_summed(beyond, share * steps[1 - axis]), strict=True):
                key = (label, int(second))
                found[key] = found.get(key, 0.0) + float(length)
    return found


def _summed(keys: NDArray[np.int32], values: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    unique, place = np.unique(keys, return_inverse=True)
    return unique, np.bincount(place, values, minlength=unique.size)
