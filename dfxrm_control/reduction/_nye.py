"""Dislocation density from one reflection: the third row of Nye's tensor, and loop integrals around dislocations.

A reflection measures the gradient of one component of the displacement, that along the diffraction vector:
``beta_3l = du_3/dx_l = -H_l3``. Its curl is the third row of Nye's tensor, ``alpha_3j = e_jkl d_k beta_3l`` (Nye 1953,
Acta Metall. 1, 153), the density of Burgers vector along q-hat pierced by a plane normal to axis j. The other six
components are not measured and do not appear here.

One layer is a plane: it has two of the three derivatives, and they give ``n . curl(beta_3)``, n its normal. The layer
lies at the Bragg angle theta to the plane normal to q-hat. With x along the beam and y across,

``n . curl(beta_3) = d(beta_3 . y)/dx - d(beta_3 . x)/dy``,  ``beta_3 . x = cos(theta) beta_31 - sin(theta) beta_33``

where the second holds for omega = chi = phi = 0 (the imaging basis has ``x = cos(theta) e_rock - sin(theta) e_par``);
the general case takes the directions of the layer's axes in the sample. The strain term is small and belongs there: it
makes loop integrals exact. Layers at known heights add the third derivative, and with it all three components.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.errors import ParameterError

__all__ = ["BurgersLoops", "DistortionLayer", "NyeMap", "NyeMaps", "burgers_loops", "nye_maps"]

SAME_HEIGHT_UM = 0.05
"""Scans whose layers are closer than this are of one layer."""

STEP_TOLERANCE = 0.02
"""Steps of a stack may differ by this fraction of their mean (and by `SAME_HEIGHT_UM`)."""

GRID_TOLERANCE = 0.1
"""Grids of two scans may be displaced by this many pixels anywhere in the field."""

_STRAINLESS = "n_curl_beta_3_without_strain"
_PERMUTATION = np.zeros((3, 3, 3))
for _i, _j, _k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
    _PERMUTATION[_i, _j, _k], _PERMUTATION[_i, _k, _j] = 1.0, -1.0


@dataclass(frozen=True)
class DistortionLayer:
    """What one scan tells of the distortion in the layer it illuminated.

    Attributes
    ----------
    source, sample : str
        Scan and sample.
    x, y : ndarray, shapes (nx,), (ny,)
        Positions on the layer along the beam and across, um, evenly spaced.
    affine : ndarray, shape (3, 3)
        Takes (x, y, 1) to the sample's frame, um: columns are the directions of x and y and the layer's origin.
    reference_g : ndarray, shape (3,)
        Diffraction vector that the distortion is counted from, sample frame, 1/angstrom.
    distortion : dict of int to ndarray, shape (nx, ny)
        ``H_l3`` by l = 1, 2, 3, as far as known; NaN where a pixel has no value.
    error : dict of int to ndarray, shape (nx, ny)
        Its rms error by noise.
    saturated : int
        Pixels that were left out because they were saturated.
    """

    source: str
    sample: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    affine: NDArray[np.float64]
    reference_g: NDArray[np.float64]
    distortion: dict[int, NDArray[np.float64]]
    error: dict[int, NDArray[np.float64]]
    saturated: int = 0

    @property
    def frame(self) -> NDArray[np.float64]:
        """Rows e1, e2, e3 in the sample's frame: e3 along the reference, e1 the sample's x made perpendicular to it."""
        e3 = self.reference_g / np.linalg.norm(self.reference_g)
        e1 = np.array([1.0, 0.0, 0.0]) - e3[0] * e3
        e1 /= np.linalg.norm(e1)
        return np.stack([e1, np.cross(e3, e1), e3])

    @property
    def directions(self) -> NDArray[np.float64]:
        """Rows: unit vectors of x, y and the normal of the layer (the laboratory's axes) in the sample's frame."""
        along_x, along_y = self.affine[:, 0], self.affine[:, 1]
        return np.stack([along_x, along_y, np.cross(along_x, along_y)])

    @property
    def origin(self) -> NDArray[np.float64]:
        """Where x = y = 0 lies in the sample, um, shape (3,)."""
        return self.affine[:, 2]

    @property
    def steps_um(self) -> tuple[float, float]:
        """Distance between pixels along x and y, um."""
        return tuple(  # type: ignore[return-value]
            float(v[-1] - v[0]) / (len(v) - 1) if len(v) > 1 else math.nan for v in (self.x, self.y)
        )

    def counted_from(self, reference_g: NDArray[np.float64]) -> DistortionLayer:
        """Return the same distortion counted from another diffraction vector, to first order in their difference.

        Every scan counts from its own middle; derivatives from one layer to another need one reference for all.
        """
        shift = self.frame @ (self.reference_g - reference_g) / np.linalg.norm(self.reference_g)
        moved = {part: values + shift[part - 1] for part, values in self.distortion.items()}
        return replace(self, reference_g=reference_g, distortion=moved)


@dataclass(frozen=True)
class NyeMap:
    """One quantity on a stack of planes.

    Attributes
    ----------
    name, label, units : str
        Name in the file, text for people, unit.
    values, error : ndarray, shape (planes, nx, ny)
        NaN where not known; the error is that which noise gives.
    z_um : ndarray, shape (planes,)
        Height of each plane in the sample, along the layer's normal.
    sources : tuple of tuple of str
        The scans that each plane came from.
    """

    name: str
    label: str
    units: str
    values: NDArray[np.float64]
    error: NDArray[np.float64]
    z_um: NDArray[np.float64]
    sources: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class NyeMaps:
    """Dislocation density, as far as one reflection and these layers tell; what they do not tell is not there.

    Attributes
    ----------
    maps : dict of str to NyeMap
        ``n_curl_beta_3`` of each layer (or ``n_curl_beta_3_without_strain`` where there is no strain map); from two
        layers on ``alpha_31``, ``alpha_32`` and ``alpha_33`` halfway between neighbours; ``gnd_density`` where a
        Burgers vector was given. All arrays share x and y.
    sample : str
        Name of the sample.
    x, y : ndarray, shapes (nx,), (ny,)
        Positions on the layer, um.
    affine : ndarray, shape (3, 3)
        Of the lowest layer; see `DistortionLayer`.
    frame : ndarray, shape (3, 3)
        Rows e1, e2, e3 in the sample's frame.
    burgers_um : float or None
        Length of the Burgers vector that the density was divided by.
    span_um : tuple of float
        Distances along x and y over which differences were taken.
    notes : tuple of str
        What is missing, and why.
    length_units : str
        Of x and y.
    """

    maps: dict[str, NyeMap]
    sample: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    affine: NDArray[np.float64]
    frame: NDArray[np.float64]
    burgers_um: float | None
    span_um: tuple[float, float]
    notes: tuple[str, ...]
    length_units: str = "um"


@dataclass(frozen=True)
class BurgersLoops:
    """Closed integrals of ``beta_3 . dl`` around a point, over nested squares on the layer.

    Attributes
    ----------
    center_um : tuple of float
        The point, on the layer.
    half_sizes_um : ndarray, shape (loops,)
        Half a side of each square, or its distance from the streak that it encloses.
    burgers_um : ndarray, shape (loops,)
        ``b . q-hat`` of what each encloses, um, of lines whose sense is along the layer's normal (lab +z): loops turn
        right-handed about it and ``b_i = closed integral of beta_ij dx_j`` (FS/RH). NaN for a loop that leaves the map
        or meets a pixel without a value.
    error_um : ndarray, shape (loops,)
        What noise gives each.
    mean_um, spread_um, mean_error_um : float
        Over the loops with a value: mean, standard deviation, and what noise gives the mean (loops share pixels, so
        less than the error of one and more than that over the root of their number).
    with_strain : bool
        Whether the strain map was there; without, an inclined line's value lacks a few per cent.
    """

    center_um: tuple[float, float]
    half_sizes_um: NDArray[np.float64]
    burgers_um: NDArray[np.float64]
    error_um: NDArray[np.float64]
    mean_um: float
    spread_um: float
    mean_error_um: float
    with_strain: bool


def nye_maps(
    layers: Sequence[DistortionLayer], *, burgers_um: float | None = None, span_um: float | None = None
) -> NyeMaps:
    """Compute the dislocation density of a layer, or of a stack of them.

    Parameters
    ----------
    layers : sequence of DistortionLayer
        One per scan, in any order. Several scans of one height make one layer: each component is taken from the scan
        that knows the most components.
    burgers_um : float, optional
        Length b of the Burgers vector; the density of dislocations is ``|alpha| / b``.
    span_um : float, optional
        Distance over which differences in the layer are taken; default two pixels (the nearest neighbours). A longer
        one lowers the noise in proportion, and the resolution.

    Raises
    ------
    ParameterError
        When scans are of different samples, grids or orientations, steps of a stack are unequal, or no scan knows two
        tilts.
    """
    if not layers:
        raise ParameterError("layers: no scan was given")
    if burgers_um is not None and not burgers_um > 0.0:
        raise ParameterError(f"burgers_um: {burgers_um:g} um was given; the length of a Burgers vector is above 0")
    first = layers[0]
    for other in layers[1:]:
        _check_pair(first, other)
    stack = _by_height([layer.counted_from(first.reference_g) for layer in layers])
    offsets = _spacing(stack)
    bottom = stack[0][0]
    steps = bottom.steps_um
    half = tuple(max(1, round((span_um or 0.0) / (2.0 * step))) for step in steps)
    for name, pixels, count in zip("xy", half, (len(bottom.x), len(bottom.y)), strict=True):
        if count <= 2 * pixels:
            raise ParameterError(
                f"span_um: differences over {2 * pixels} pixels do not fit a map of {count} along {name}"
            )
    notes: list[str] = []
    saturated = sum(layer.saturated for layer in layers)
    if saturated:
        notes.append(f"{saturated} saturated pixels were left out")
    known = set.intersection(*(set(layer.distortion) for layer, _ in stack))
    maps: dict[str, NyeMap] = {}
    gradients = [_layer_gradients(layer, known, half) for layer, _ in stack]
    normal = bottom.directions[2]
    heights = np.array([float(layer.origin @ normal) for layer, _ in stack])
    if {1, 2} <= known:
        strain = 3 in known
        in_plane = bottom.frame @ bottom.directions[:2].T
        # n . curl = d_x (beta . y) - d_y (beta . x), for each component of beta the factors of d_x and d_y
        factors = {part: np.array([in_plane[part - 1, 1], -in_plane[part - 1, 0]]) for part in known}
        parts = [_combine(gradient, factors) for gradient in gradients]
        name = "n_curl_beta_3" if strain else _STRAINLESS
        label = "n · curl β₃" + ("" if strain else ", without the strain's part")
        maps[name] = _as_map(name, label, "1/um", parts, heights, [source for _, source in stack])
        if not strain:
            notes.append(
                "there is no strain map, so n . curl(beta_3) lacks its strain term, sin(theta) d(beta_33)/dy: up to a "
                "few per cent for lines inclined to the layer's normal"
            )
    if len(stack) > 1:
        maps |= _third_row(stack, known, gradients, offsets, heights, notes)
    else:
        notes.append("one layer gives n . curl(beta_3) only; alpha_31, alpha_32 and alpha_33 need two or more heights")
    if not maps:
        raise ParameterError(
            f"{first.source} knows {_listed(known)} only; a dislocation density needs H_13 and H_23, the two tilts, "
            "and for all that can be known H_33, the strain"
        )
    if burgers_um is None:
        notes.append("no Burgers vector was given, so there is no density of dislocations")
    else:
        maps["gnd_density"] = _density(maps, burgers_um)
        notes.append(
            "gnd_density counts only Burgers vector along the diffraction vector, three of nine components (one of "
            "one layer), and is a lower bound; noise makes it positive"
        )
    span = (2.0 * half[0] * steps[0], 2.0 * half[1] * steps[1])
    return NyeMaps(maps, first.sample, bottom.x, bottom.y, bottom.affine, bottom.frame, burgers_um, span, tuple(notes))


def burgers_loops(
    layer: DistortionLayer,
    center_um: tuple[float, float],
    half_sizes_um: ArrayLike | None = None,
    *,
    streak_um: tuple[float, float] = (0.0, 0.0),
) -> BurgersLoops:
    """Integrate the distortion around a point along nested squares: ``b . q-hat`` of the dislocations inside.

    A map averages through the height of the line beam, and a dislocation that crosses it is seen as a streak (see
    `LayerView.streak_um`). A square that does not enclose the whole streak finds only a part of b. With ``streak_um``
    loops are rectangles that keep half a side's distance from the streak.

    Values between pixels are interpolated bilinearly, and each side is cut into pieces of half a pixel.

    Parameters
    ----------
    layer : DistortionLayer
        With both tilts; with the strain, loops are exact.
    center_um : tuple of float
        x and y on the layer.
    half_sizes_um : array_like, optional
        Half sides; default 26 of them from 0.5 to 3 um.
    streak_um : tuple of float
        How far the image of a line reaches from its middle along x and y; loops are longer by this to all sides.

    Raises
    ------
    ParameterError
        Without both tilts, for a half side that is not positive, a streak that is negative, or when no loop stays on
        pixels with values.
    """
    if not {1, 2} <= set(layer.distortion):
        raise ParameterError(
            f"{layer.source} knows {_listed(set(layer.distortion))} only; a loop integral needs H_13 and H_23"
        )
    sizes = np.linspace(0.5, 3.0, 26) if half_sizes_um is None else np.atleast_1d(np.asarray(half_sizes_um, float))
    if not (sizes.size and np.isfinite(sizes).all() and (sizes > 0.0).all()):
        raise ParameterError("half_sizes_um: half the side of a square is a number of um above 0")
    if not (np.isfinite(streak_um).all() and min(streak_um) >= 0.0):
        raise ParameterError(f"streak_um: {streak_um} was given; a streak reaches two lengths of 0 um or more")
    # beta_3 . dl = -sum_l H_l3 (e_l . x dx + e_l . y dy)
    in_plane = layer.frame @ layer.directions[:2].T
    found, error = np.full(sizes.size, np.nan), np.full(sizes.size, np.nan)
    weights = {part: np.zeros(layer.distortion[part].shape) for part in layer.distortion}
    for number, size in enumerate(sizes):
        path = _loop_weights(layer, center_um, (float(size) + streak_um[0], float(size) + streak_um[1]))
        if path is None:
            continue
        value, variance = 0.0, 0.0
        parts = {}
        for part, values in layer.distortion.items():
            parts[part] = -(in_plane[part - 1, 0] * path[0] + in_plane[part - 1, 1] * path[1])
            used = parts[part] != 0.0
            value += float((parts[part][used] * values[used]).sum())
            variance += float(((parts[part] * layer.error[part])[used] ** 2).sum())
        if math.isfinite(value):
            found[number], error[number] = value, math.sqrt(variance)
            for part in parts:
                weights[part] += parts[part]
    good = np.isfinite(found)
    if not good.any():
        raise ParameterError(
            f"center_um: no square of half side {sizes.min():g} to {sizes.max():g} um around ({center_um[0]:g}, "
            f"{center_um[1]:g}) um stays on pixels with a value; the map spans x {layer.x[0]:.1f} to {layer.x[-1]:.1f} "
            f"and y {layer.y[0]:.1f} to {layer.y[-1]:.1f} um"
        )
    shared = sum(float(((weights[part] * layer.error[part])[weights[part] != 0.0] ** 2).sum()) for part in weights)
    return BurgersLoops(
        (float(center_um[0]), float(center_um[1])),
        sizes,
        found,
        error,
        float(found[good].mean()),
        float(found[good].std(ddof=1)) if good.sum() > 1 else math.nan,
        math.sqrt(shared) / int(good.sum()),
        3 in layer.distortion,
    )


def _listed(known: set[int]) -> str:
    return " and ".join(f"H_{part}3" for part in sorted(known)) or "no component of the distortion"


def _check_pair(first: DistortionLayer, other: DistortionLayer) -> None:
    if first.sample != other.sample:
        raise ParameterError(
            f"layers: {first.source} is of sample {first.sample!r} and {other.source} of {other.sample!r}; a stack is "
            "of one sample"
        )
    for name, a, b in (("x", first.x, other.x), ("y", first.y, other.y)):
        pixel = float(a[-1] - a[0]) / max(len(a) - 1, 1)
        if len(a) != len(b) or abs(a[0] - b[0]) > GRID_TOLERANCE * pixel or abs(a[-1] - b[-1]) > GRID_TOLERANCE * pixel:
            raise ParameterError(
                f"layers: {first.source} has {len(a)} pixels along {name} from {a[0]:.3f} to {a[-1]:.3f} um, "
                f"{other.source} {len(b)} from {b[0]:.3f} to {b[-1]:.3f}; a stack needs one grid"
            )
    reach = max(float(np.abs(v).max()) for v in (first.x, first.y))
    turn = float(np.linalg.norm(first.directions - other.directions, 2)) * reach
    if turn > max(min(first.steps_um), SAME_HEIGHT_UM):
        raise ParameterError(
            f"layers: between {first.source} and {other.source} the sample was turned, which moves the edge of the "
            f"field by {turn:.2f} um; a stack is of parallel layers"
        )


def _by_height(layers: list[DistortionLayer]) -> list[tuple[DistortionLayer, tuple[str, ...]]]:
    """Return layers by height, upwards, those of one height made one, with the scans each came from."""
    normal = layers[0].directions[2]
    groups: list[list[DistortionLayer]] = []
    for layer in sorted(layers, key=lambda one: float(one.origin @ normal)):
        if groups and abs(float((layer.origin - groups[-1][0].origin) @ normal)) < SAME_HEIGHT_UM:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    merged = []
    for group in groups:
        best = sorted(group, key=lambda one: -len(one.distortion))
        chosen = {part: next((one for one in best if part in one.distortion), None) for part in (1, 2, 3)}
        used = {part: one for part, one in chosen.items() if one is not None}
        for one in used.values():
            aside = float(np.linalg.norm(one.origin - best[0].origin))
            if aside > GRID_TOLERANCE * max(best[0].steps_um) + SAME_HEIGHT_UM:
                raise ParameterError(
                    f"layers: {one.source} shows the height of {best[0].source} with the sample {aside:.2f} um aside; "
                    "scans of one layer must show the same field"
                )
        merged.append(
            (
                replace(
                    best[0],
                    distortion={part: one.distortion[part] for part, one in used.items()},
                    error={part: one.error[part] for part, one in used.items()},
                ),
                tuple(dict.fromkeys(one.source for one in used.values())),
            )
        )
    return merged


def _spacing(stack: list[tuple[DistortionLayer, tuple[str, ...]]]) -> NDArray[np.float64]:
    """Return the step from a layer to the next in the sample's frame, um, after a look whether all are equal."""
    if len(stack) < 2:
        return np.zeros(3)
    origins = np.array([layer.origin for layer, _ in stack])
    steps = np.diff(origins, axis=0)
    mean = steps.mean(axis=0)
    away = float(np.linalg.norm(steps - mean, axis=1).max())
    if away > max(STEP_TOLERANCE * float(np.linalg.norm(mean)), SAME_HEIGHT_UM):
        normal = stack[0][0].directions[2]
        heights = ", ".join(f"{origin @ normal:.2f}" for origin in origins)
        raise ParameterError(
            f"layers: they lie at heights {heights} um in the sample, which are not equal steps (they differ by up to "
            f"{away:.2f} um); leave out the layers that do not fit"
        )
    return mean


Gradient = dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By component: derivatives of beta_3l in index directions, and their variances, shape (directions, nx, ny)."""


def _layer_gradients(layer: DistortionLayer, known: set[int], half: tuple[int, ...]) -> Gradient:
    """Return the derivatives of each ``beta_3l = -H_l3`` along x and y of a layer, 1/um."""
    found: Gradient = {}
    for part in known:
        along = [
            _difference(-layer.distortion[part], layer.error[part] ** 2, axis, half[axis], layer.steps_um[axis])
            for axis in (0, 1)
        ]
        found[part] = (np.stack([one for one, _ in along]), np.stack([one for _, one in along]))
    return found


def _difference(
    values: NDArray[np.float64], variance: NDArray[np.float64], axis: int, half: int, step: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the derivative along an axis and its variance.

    From the values ``half`` pixels before and after; beside a border or a pixel without a value, from the pixel
    itself and the one there is.
    """
    v, s = np.moveaxis(values, axis, 0), np.moveaxis(variance, axis, 0)
    ahead, behind, s_ahead, s_behind = (np.full(v.shape, np.nan) for _ in range(4))
    ahead[:-half], behind[half:] = v[half:], v[:-half]
    s_ahead[:-half], s_behind[half:] = s[half:], s[:-half]
    has_ahead, has_behind = np.isfinite(ahead), np.isfinite(behind)
    length = half * step * (has_ahead.astype(float) + has_behind)
    length[length == 0.0] = np.nan
    upper, s_upper = np.where(has_ahead, ahead, v), np.where(has_ahead, s_ahead, s)
    lower, s_lower = np.where(has_behind, behind, v), np.where(has_behind, s_behind, s)
    slope, error = (upper - lower) / length, (s_upper + s_lower) / length**2
    # a pixel without a value gets none, though its neighbours would allow one
    slope[~np.isfinite(v)] = np.nan
    return np.moveaxis(slope, 0, axis), np.moveaxis(error, 0, axis)


def _combine(
    gradient: Gradient, factors: dict[int, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of derivatives times factors, and its rms error: derivatives use different pixels."""
    total, variance = 0.0, 0.0
    for part, of_part in factors.items():
        slopes, errors = gradient[part]
        for direction, factor in enumerate(of_part):
            if abs(factor) > 1e-12:
                total = total + factor * slopes[direction]
                variance = variance + factor**2 * errors[direction]
    return np.asarray(total), np.sqrt(variance)


def _third_row(
    stack: list[tuple[DistortionLayer, tuple[str, ...]]],
    known: set[int],
    gradients: list[Gradient],
    step: NDArray[np.float64],
    heights: NDArray[np.float64],
    notes: list[str],
) -> dict[str, NyeMap]:
    """Return alpha_31, alpha_32, alpha_33, as far as known, halfway between neighbouring layers.

    There, differences between two layers are as good as those within a layer; these are averaged over the two.
    """
    bottom = stack[0][0]
    # pixel axes and the step between layers need not be perpendicular: derivatives along them become a gradient with
    # the reciprocal basis
    reciprocal = np.linalg.inv(np.stack([*bottom.directions[:2], step], axis=1))
    along = bottom.frame @ reciprocal.T
    between: list[Gradient] = []
    for (below, _), (above, _), low, high in zip(stack[:-1], stack[1:], gradients[:-1], gradients[1:], strict=True):
        pair: Gradient = {}
        for part in known:
            up = below.distortion[part] - above.distortion[part]
            slopes = np.concatenate([(low[part][0] + high[part][0]) / 2.0, up[np.newaxis]])
            up_variance = below.error[part] ** 2 + above.error[part] ** 2
            errors = np.concatenate([(low[part][1] + high[part][1]) / 4.0, up_variance[np.newaxis]])
            pair[part] = (slopes, errors)
        between.append(pair)
    middle = (heights[1:] + heights[:-1]) / 2.0
    sources = [tuple(dict.fromkeys(a + b)) for (_, a), (_, b) in zip(stack[:-1], stack[1:], strict=True)]
    maps = {}
    for column in (1, 2, 3):
        needed = {1, 2, 3} - {column}
        if not needed <= known:
            lacking = _listed(needed - known)
            notes.append(f"alpha_3{column} is not known: {lacking} was not measured in every layer")
            continue
        # alpha_3j = e_jkl d_k beta_3l
        factors = {part: _PERMUTATION[column - 1, :, part - 1] @ along for part in needed}
        parts = [_combine(pair, factors) for pair in between]
        maps[f"alpha_3{column}"] = _as_map(f"alpha_3{column}", f"α₃{'₁₂₃'[column - 1]}", "1/um", parts, middle, sources)
    return maps


def _as_map(
    name: str,
    label: str,
    units: str,
    parts: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    z_um: NDArray[np.float64],
    sources: list[tuple[str, ...]],
) -> NyeMap:
    values, error = (np.stack([part[which] for part in parts]) for which in (0, 1))
    return NyeMap(name, label, units, values, np.where(np.isfinite(values), error, np.nan), z_um, tuple(sources))


def _density(maps: dict[str, NyeMap], burgers_um: float) -> NyeMap:
    """Return |alpha| / b of all known components: those between the layers, or of one layer that one."""
    row = [one for name, one in maps.items() if name.startswith("alpha_")] or list(maps.values())
    size = np.sqrt(sum(one.values**2 for one in row))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(sum((one.values * one.error) ** 2 for one in row)) / size
    return NyeMap(
        "gnd_density",
        "dislocation density, lower bound",
        "1/um^2",
        size / burgers_um,
        error / burgers_um,
        row[0].z_um,
        row[0].sources,
    )


def _loop_weights(
    layer: DistortionLayer, center: tuple[float, float], half: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the weight of each pixel in the integrals of f dx and f dy round a rectangle; None if it leaves the map.

    ``half`` are half its sides along x and y, um.
    """
    steps = layer.steps_um
    middles, pieces = [], []
    for size in half:
        count = max(8, math.ceil(4.0 * size / min(steps)))
        middles.append(size * ((2.0 * np.arange(count) + 1.0) / count - 1.0))
        pieces.append(2.0 * size / count)
    along, up = middles
    # right-handed about the normal: along +x at the lower side, up at +x, back, and down
    sides = (
        (along, np.full(along.size, -half[1]), pieces[0], 0.0),
        (np.full(up.size, half[0]), up, 0.0, pieces[1]),
        (along, np.full(along.size, half[1]), -pieces[0], 0.0),
        (np.full(up.size, -half[0]), up, 0.0, -pieces[1]),
    )
    shape = (len(layer.x), len(layer.y))
    weights = np.zeros((2, *shape))
    for dx, dy, along_x, along_y in sides:
        i, j = (center[0] + dx - layer.x[0]) / steps[0], (center[1] + dy - layer.y[0]) / steps[1]
        if min(i.min(), j.min()) < 0.0 or i.max() > shape[0] - 1 or j.max() > shape[1] - 1:
            return None
        i0, j0 = np.minimum(i.astype(int), shape[0] - 2), np.minimum(j.astype(int), shape[1] - 2)
        ti, tj = i - i0, j - j0
        for di, wi in ((0, 1.0 - ti), (1, ti)):
            for dj, wj in ((0, 1.0 - tj), (1, tj)):
                if along_x:
                    np.add.at(weights[0], (i0 + di, j0 + dj), wi * wj * along_x)
                else:
                    np.add.at(weights[1], (i0 + di, j0 + dj), wi * wj * along_y)
    return weights[0], weights[1]
