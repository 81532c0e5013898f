"""Fit of the analytic field around one dislocation to maps of the distortion.

The model is the exact change of the diffraction vector in the field of a straight dislocation, ``G' = F^-T G`` (see
`dfxrm_control.dislocations`), seen as a map sees it: averaged through the height of the layer along the diffracted
beam, and blurred by lens and pixel. The average is over q, as the centre of mass of a scan is one. Each component has
an amplitude of its own, 1 where the map shows the field in full, and a constant background; the position of the line is
common to all. Pixels that look nearer to the line than the inner radius are left out: there the lattice is bent so much
within a pixel that a scan does not see all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares

from dfxrm_control.dislocations import Dislocation, distorted_vector, distortion
from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import goniometer_rotation
from dfxrm_control.microscope import View

__all__ = ["Amplitude", "DislocationFit", "LayerView", "dislocation_maps", "fit_dislocation"]

_SIGMA_PER_FWHM = 1 / math.sqrt(8 * math.log(2))
# of a Gaussian of the same rms width as a box
_FWHM_OF_A_PIXEL = 1 / (_SIGMA_PER_FWHM * math.sqrt(12))
_COMPONENTS: dict[str, tuple[int, float]] = {
    "H_13": (0, 1.0),
    "H_23": (1, 1.0),
    "H_33": (2, 1.0),
    # a larger spacing is a shorter vector
    "strain": (2, -1.0),
}
# the model is averaged over at least so many heights in the layer, up to so many rms heights from its middle
_FEWEST_HEIGHTS = 31
_REACH = 3.0
# points whose field is computed at a time
_POINTS = 50_000
# the model is smooth within this part of the inner radius, whose pixels are left out: else its derivatives are rough
_SMOOTH = 1 / 3
# for derivatives by the position, um
_STEP_UM = 0.01
# pixels per component without which nothing is fitted
_FEWEST = 20
# how far a line may lie from where it is thought to be, um
_WANDER_UM = 0.5
# a fit starts anew with the pixels around the position that was found
_PASSES = 2


@dataclass(frozen=True, eq=False)
class LayerView:
    """How a map looks at the illuminated layer.

    Attributes
    ----------
    rotation : ndarray, shape (3, 3)
        From sample to laboratory coordinates at the reference setting.
    two_theta_deg : float
        Scattering angle, deg.
    layer_um : float
        FWHM height of the line beam, um.
    blur_um : tuple of float
        FWHM of lens and pixel on the layer, along x and across, um.
    """

    rotation: NDArray
    two_theta_deg: float
    layer_um: float
    blur_um: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, view: View) -> LayerView:
        """Return how the camera of a microscope looks at the layer that its line beam lights.

        The blur is that of diffraction and of the pixel; defocus and aberration of a lens in focus add little.
        """
        positions, instrument = view.positions, view.instrument
        angles = {axis: positions.get(axis, 0.0) for axis in ("mu", "omega", "chi", "phi")}
        upward, across = view.blur("v"), view.blur("h")
        along = upward.diffraction_um / math.sin(math.radians(view.two_theta_deg))
        return cls(
            goniometer_rotation(**angles, mu_sign=instrument.mu_sign),
            view.two_theta_deg,
            instrument.beam.line_height_um,
            (
                math.hypot(along, _FWHM_OF_A_PIXEL * view.pixel_x_um),
                math.hypot(across.diffraction_um, _FWHM_OF_A_PIXEL * view.pixel_y_um),
            ),
        )

    def slopes(self, dislocation: Dislocation) -> tuple[float, float]:
        """Return by how much the image of a line moves along x and y per height in the beam.

        Up by z in the beam the line has moved along, and the diffracted beam through it meets the layer's middle
        ``z cot(2theta)`` further upstream.
        """
        along = self.rotation @ dislocation.line
        return (
            float(along[0] / along[2]) - 1 / math.tan(math.radians(self.two_theta_deg)),
            float(along[1] / along[2]),
        )

    def streak_um(self, dislocation: Dislocation) -> tuple[float, float]:
        """Return the FWHM of the image of a line along x and y, um."""
        x, y = (
            math.hypot(self.layer_um * slope, blur)
            for slope, blur in zip(self.slopes(dislocation), self.blur_um, strict=True)
        )
        return x, y


@dataclass(frozen=True)
class Amplitude:
    """A fitted amplitude relative to the analytic field, and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, eq=False)
class DislocationFit:
    """Result of a fit.

    Attributes
    ----------
    amplitudes : dict of Amplitude
        By component; 1 is the analytic field.
    backgrounds : dict of Amplitude
        Constant that was added, by component.
    x_um, y_um : Amplitude
        Where the line crosses the middle of the layer, um.
    x_near_um, y_near_um : ndarray, shapes (mx,), (my,)
        Positions of the part of the map around the line, um.
    used : ndarray of bool, shape (mx, my)
        Pixels of that part within the radii.
    model : dict of ndarray, shape (mx, my)
        The fitted maps of that part.
    chi_square : float
        Per degree of freedom, with the errors given.
    """

    amplitudes: dict[str, Amplitude]
    backgrounds: dict[str, Amplitude]
    x_um: Amplitude
    y_um: Amplitude
    x_near_um: NDArray
    y_near_um: NDArray
    used: NDArray
    model: dict[str, NDArray]
    chi_square: float


def dislocation_maps(
    x_um: ArrayLike, y_um: ArrayLike, dislocation: Dislocation, view: LayerView
) -> tuple[NDArray, NDArray]:
    """Return the maps of ``G'/|G| - z`` along the sample's axes, as seen, and how near each pixel looks to the line.

    Parameters
    ----------
    x_um, y_um : array_like, shapes (nx,), (ny,)
        Evenly spaced, increasing positions on the layer (laboratory z = 0), um.
    dislocation : Dislocation
        The line, in the sample frame.
    view : LayerView
        How the map looks at the layer.

    Returns
    -------
    maps : ndarray, shape (3, nx, ny)
        H_13, H_23, H_33.
    distance_um : ndarray, shape (nx, ny)
        Least distance from the line of what a pixel sees within the FWHM of the layer, um.
    """
    x, y = np.asarray(x_um, dtype=float), np.asarray(y_um, dtype=float)
    steps = [float(np.mean(np.diff(axis))) for axis in (x, y)]
    sigmas = [blur * _SIGMA_PER_FWHM / step for blur, step in zip(view.blur_um, steps, strict=True)]
    # the blur needs the field beyond the edges of the map
    margins = [math.ceil(4 * sigma) for sigma in sigmas]
    wide = [
        axis[0] + step * np.arange(-margin, len(axis) + margin)
        for axis, step, margin in zip((x, y), steps, margins, strict=True)
    ]
    sigma_z = view.layer_um * _SIGMA_PER_FWHM
    # so many heights that the line moves in the image by half of the finer pixel, or of a wider core, from one to the
    # next: fewer make it a row of beads
    travel = 2 * _REACH * sigma_z * math.hypot(*view.slopes(dislocation))
    count = max(_FEWEST_HEIGHTS, math.ceil(2 * travel / max(min(steps), dislocation.core_um)))
    heights = np.linspace(-_REACH, _REACH, count) * sigma_z
    weights = np.exp(-0.5 * (heights / max(sigma_z, 1e-9)) ** 2)
    weights /= weights.sum()
    seen = np.zeros((len(wide[0]), len(wide[1]), 3))
    distance = np.full(seen.shape[:2], np.inf)
    cotangent = 1 / math.tan(math.radians(view.two_theta_deg))
    for some in np.array_split(np.arange(count), math.ceil(count * distance.size / _POINTS)):
        z = heights[some, np.newaxis, np.newaxis]
        # the diffracted beam that leaves the layer's middle at x comes from x + z cot(2theta) at the height z
        lab = np.stack(np.broadcast_arrays(wide[0][:, np.newaxis] + z * cotangent, wide[1], z), axis=-1)
        points = lab @ view.rotation
        seen += np.tensordot(weights[some], distorted_vector(distortion([dislocation], points)), 1)
        away = points[np.abs(heights[some]) <= view.layer_um / 2] - dislocation.point_um
        across = away - (away @ dislocation.line)[..., np.newaxis] * dislocation.line
        distance = np.minimum(distance, np.linalg.norm(across, axis=-1).min(axis=0, initial=np.inf))
    seen -= [0.0, 0.0, 1.0]
    inner = tuple(slice(margin, -margin or None) for margin in margins)
    blurred = [gaussian_filter(seen[..., axis], sigmas)[inner] for axis in range(3)]
    return np.stack(blurred), distance[inner]


def fit_dislocation(
    x_um: ArrayLike,
    y_um: ArrayLike,
    components: Mapping[str, ArrayLike],
    errors: Mapping[str, ArrayLike],
    dislocation: Dislocation,
    view: LayerView,
    radii_um: tuple[float, float] = (0.3, 3.0),
) -> DislocationFit:
    """Fit position and amplitudes of the field of a dislocation to maps.

    Parameters
    ----------
    x_um, y_um : array_like, shapes (nx,), (ny,)
        Evenly spaced, increasing positions of the map on the layer, um.
    components : mapping of str to array_like, shape (nx, ny)
        Any of H_13, H_23, H_33 and strain, the last two not both; NaN where not known.
    errors : mapping of str to array_like, shape (nx, ny) or ()
        Standard error of each.
    dislocation : Dislocation
        The line as it is thought to be, in the sample frame; its position is where the fit starts.
    view : LayerView
        How the maps look at the layer.
    radii_um : tuple of float
        Pixels are used that look no nearer to the line, and lie no farther from it on the layer, um.

    Raises
    ------
    ParameterError
        For a component that is not one of these or has no error, or when too few pixels are left.
    """
    x, y = np.asarray(x_um, dtype=float), np.asarray(y_um, dtype=float)
    names = tuple(components)
    for name in names:
        if name not in _COMPONENTS:
            raise ParameterError(f"component {name!r} has no analytic field; there are {', '.join(_COMPONENTS)}")
        if name not in errors:
            raise ParameterError(f"component {name!r} is given without its error")
    if not names or {"H_33", "strain"} <= set(names):
        raise ParameterError(f"components {', '.join(names) or 'none'}: give some, and strain or H_33 but not both")
    values = np.stack([np.asarray(components[name], dtype=float) for name in names])
    sigma = np.stack([np.broadcast_to(np.asarray(errors[name], dtype=float), values.shape[1:]) for name in names])
    if values.shape[1:] != (len(x), len(y)):
        raise ParameterError(f"maps of {values.shape[1:]} pixels do not fit {len(x)} x {len(y)} positions")

    place = (view.rotation @ dislocation.crossing_um(view.rotation[2]))[:2]
    # a little more than is used, in case the line lies elsewhere
    near = np.ix_(*(np.abs(axis - at) <= radii_um[1] + _WANDER_UM for axis, at in zip((x, y), place, strict=True)))
    x_near, y_near = x[near[0][:, 0]], y[near[1][0]]
    values, sigma = values[(slice(None), *near)], sigma[(slice(None), *near)]
    if min(len(x_near), len(y_near)) < 2:
        raise _too_few(place, radii_um)
    smooth = replace(dislocation, core_um=max(dislocation.core_um, _SMOOTH * radii_um[0]))

    def maps_at(place: NDArray) -> tuple[NDArray, NDArray]:
        moved = replace(smooth, point_um=view.rotation.T @ np.array([place[0], place[1], 0.0]))
        maps, distance = dislocation_maps(x_near, y_near, moved, view)
        return np.stack([sign * maps[axis] for axis, sign in (_COMPONENTS[name] for name in names)]), distance

    for _ in range(_PASSES):
        _, distance = maps_at(place)
        radius = np.hypot(x_near[:, np.newaxis] - place[0], y_near - place[1])
        used = (distance >= radii_um[0]) & (radius <= radii_um[1])
        known = used & np.isfinite(values) & np.isfinite(sigma) & (sigma > 0)
        if min(int(one.sum()) for one in known) < _FEWEST:
            raise _too_few(place, radii_um)
        weighted = [values[k][known[k]] / sigma[k][known[k]] for k in range(len(names))]

        def designs(maps: NDArray, known: NDArray = known) -> list[NDArray]:
            """Return what one unit of amplitude and of background adds to the weighted values of each component."""
            return [
                np.stack([maps[k][known[k]], np.ones(known[k].sum())], axis=-1) / sigma[k][known[k]][:, np.newaxis]
                for k in range(len(names))
            ]

        def residuals(
            offset: NDArray,
            place: NDArray = place,
            weighted: list[NDArray] = weighted,
            designs: Callable[[NDArray], list[NDArray]] = designs,
        ) -> NDArray:
            # amplitudes and backgrounds are linear: at each position they are solved for, component by component
            return np.concatenate(
                [
                    design @ np.linalg.lstsq(design, data, rcond=None)[0] - data
                    for design, data in zip(designs(maps_at(place + offset - 1.0)[0]), weighted, strict=True)
                ]
            )

        # offsets of 1 um about 1, so that a relative step is one in um
        result = least_squares(residuals, np.ones(2), diff_step=np.full(2, _STEP_UM), x_scale=0.1)
        place = place + result.x - 1.0

    maps, _ = maps_at(place)
    solved = [
        np.linalg.lstsq(design, data, rcond=None)[0] for design, data in zip(designs(maps), weighted, strict=True)
    ]
    # the errors of all parameters together: positions move all components, the rest one each
    slopes = [(maps_at(place + step)[0] - maps_at(place - step)[0]) / (2 * _STEP_UM) for step in _STEP_UM * np.eye(2)]
    blocks = []
    for k, design in enumerate(designs(maps)):
        block = np.zeros((len(design), 2 + 2 * len(names)))
        for axis in (0, 1):
            block[:, axis] = solved[k][0] * slopes[axis][k][known[k]] / sigma[k][known[k]]
        block[:, 2 + 2 * k : 4 + 2 * k] = design
        blocks.append(block)
    jacobian = np.concatenate(blocks)
    size = np.linalg.norm(jacobian, axis=0)
    size[size == 0] = 1.0
    deviation = np.sqrt(np.diag(np.linalg.pinv((jacobian / size).T @ (jacobian / size)))) / size
    freedom = max(len(jacobian) - jacobian.shape[1], 1)
    return DislocationFit(
        amplitudes={name: Amplitude(float(solved[k][0]), float(deviation[2 + 2 * k])) for k, name in enumerate(names)},
        backgrounds={name: Amplitude(float(solved[k][1]), float(deviation[3 + 2 * k])) for k, name in enumerate(names)},
        x_um=Amplitude(float(place[0]), float(deviation[0])),
        y_um=Amplitude(float(place[1]), float(deviation[1])),
        x_near_um=x_near,
        y_near_um=y_near,
        used=used,
        model={name: solved[k][0] * maps[k] + solved[k][1] for k, name in enumerate(names)},
        chi_square=float((result.fun**2).sum() / freedom),
    )


def _too_few(place: NDArray, radii_um: tuple[float, float]) -> ParameterError:
    return ParameterError(
        f"dislocation at x = {place[0]:.3g}, y = {place[1]:.3g} um: fewer than {_FEWEST} pixels with a value and an "
        f"error lie between {radii_um[0]:g} and {radii_um[1]:g} um from it"
    )
