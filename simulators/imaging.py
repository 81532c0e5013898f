"""Rendering: the mean photons in an image plane, from a sample, its orientation and the instrument's resolution.

Geometrical, kinematical imaging (Poulsen et al. 2017, J. Appl. Cryst. 50, 1441): each point of the illuminated volume
sends towards the objective the intensity ``exp(-q^T C^-1 q / 2)``, with ``q`` the mismatch of its diffraction vector
and ``C`` the reciprocal-space resolution (and, behind a condenser that cuts the divergence sharply, times what the cut
leaves of it), and the image is the sum of these along the diffracted beam, blurred by the
lens.

A point of the image plane is (u, v), in um on the sample: ``u = y`` and ``v = -x sin 2theta + z cos 2theta``. Every
image is made from its arguments alone; nothing is kept from one to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dfxrm_control.geometry import Resolution

from ._bands import over_bands
from .sample import Sample

__all__ = ["Blur", "Illumination", "Lattice", "Projection", "RenderedImage", "render"]

_SIGMA_PER_FWHM = 1 / math.sqrt(8 * math.log(2))
# variance, in squared steps, that the grid itself adds along u and along v
_GRID_VARIANCE = (1 / 6 + 1 / 12, 1 / 6)
# voxels per column below which a row keeps its coordinate
_STILL = 1e-12
# columns, far less than a voxel, that tell the far side of a face from the near one
_BEYOND = 1e-7


@dataclass(frozen=True)
class Illumination:
    """The illuminated layer about z = ``centre_um``, and its extent across.

    Attributes
    ----------
    height_um : float
        FWHM of a line beam with a Gaussian profile; full height of a box.
    box : bool
        Whether it is a box.
    centre_um : float
        Height of its middle, um.
    across_um : tuple of float
        Lowest and highest lit y, um.
    """

    height_um: float
    box: bool
    centre_um: float = 0.0
    across_um: tuple[float, float] = (-math.inf, math.inf)

    @property
    def sigma_um(self) -> float:
        """Rms height of a line beam, um."""
        return self.height_um * _SIGMA_PER_FWHM

    def nodes(self, low_um: float, high_um: float, step_um: float) -> tuple[NDArray, NDArray]:
        """Return heights and weights of a midpoint rule through the lit part of a sample that reaches from low to high.

        The weights sum to 1 over the whole beam, whether or not the sample fills it.
        """
        reach = self.height_um / 2 if self.box else 3 * self.sigma_um
        bottom, top = self.centre_um - reach, self.centre_um + reach
        # the nodes hang on the beam, not on the sample: a sample that moves sees the same beam
        count = max(math.ceil((top - bottom) / step_um), 1)
        step = (top - bottom) / count
        heights = bottom + (np.arange(count) + 0.5) * step
        if self.box:
            weights = np.full(count, 1 / count)
        else:
            weights = np.exp(-0.5 * ((heights - self.centre_um) / self.sigma_um) ** 2)
            weights /= weights.sum()
        met = (heights > low_um - step) & (heights < high_um + step)
        return heights[met], weights[met]


@dataclass(frozen=True)
class Projection:
    """How the sample stands in the laboratory and from where it is seen.

    Attributes
    ----------
    rotation : ndarray, shape (3, 3)
        From sample to laboratory coordinates.
    origin_um : ndarray, shape (3,)
        Laboratory position of the sample's origin, um.
    two_theta_deg : float
        Angle of the diffracted beam that is seen, deg.
    """

    rotation: NDArray
    origin_um: NDArray
    two_theta_deg: float

    def to_sample(self) -> tuple[NDArray, NDArray]:
        """Return the affine map from (u, v, z) to sample coordinates as a matrix (3, 3) and an offset (3,)."""
        sine, cosine = math.sin(math.radians(self.two_theta_deg)), math.cos(math.radians(self.two_theta_deg))
        # columns: what one um of u, v, z does to the laboratory point ((z cos - v)/sin, u, z)
        lab = np.array([[0.0, -1 / sine, cosine / sine], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        return self.rotation.T @ lab, -self.rotation.T @ self.origin_um

    def corners(self, sample: Sample) -> NDArray:
        """Return (u, v, z) of the eight corners of the sample's voxel volume, shape (8, 3)."""
        corners = np.stack(np.meshgrid(*((0.0, size) for size in sample.size_um), indexing="ij"), -1).reshape(8, 3)
        lab = (sample.low_um + corners) @ self.rotation.T + self.origin_um
        sine, cosine = math.sin(math.radians(self.two_theta_deg)), math.cos(math.radians(self.two_theta_deg))
        return np.stack([lab[:, 1], -lab[:, 0] * sine + lab[:, 2] * cosine, lab[:, 2]], axis=-1)


class Lattice:
    """The diffraction vector of every state of a sample, relative to the undistorted one.

    ``g = Rot(tilt) z / (1 + strain)``: the exact form of ``(1 + tilt x - strain) z``.

    Parameters
    ----------
    sample : Sample
        The sample.
    """

    def __init__(self, sample: Sample) -> None:
        tilt = Rotation.from_rotvec(np.radians(sample.tilt_deg))
        self._per_state = 1 if sample.vectors is None else sample.vectors.shape[1]
        if sample.vectors is None:
            turned = tilt.apply([0.0, 0.0, 1.0])
        else:
            turned = np.einsum("nij,nkj->nki", tilt.as_matrix(), sample.vectors).reshape(-1, 3)
        strength = 1.0 if sample.weights is None else sample.weights.ravel()
        self._g = turned / np.repeat(1 + sample.strain, self._per_state)[:, np.newaxis]
        self._variance = np.repeat(np.radians(sample.spread_deg) ** 2, self._per_state, axis=0)
        self._intensity = np.repeat(sample.intensity, self._per_state) * strength

    def direction(self, turn: NDArray, target: NDArray, resolution: Resolution) -> NDArray:
        """Return the mean diffraction vector in sample coordinates, relative as the states' are, shape (3,).

        Of a crystal with one reflection it is that of the whole lattice; among several, of those that diffract.
        """
        weights = self._intensity if self._per_state == 1 else self._brightness(turn, target, resolution)
        return np.average(self._g, axis=0, weights=weights) if weights.any() else self._g.mean(axis=0)

    def brightness(self, turn: NDArray, target: NDArray, resolution: Resolution) -> NDArray:
        """Return the intensity of each state as the objective sees it, 1 for a perfect crystal on its peak.

        Parameters
        ----------
        turn : ndarray, shape (3, 3)
            Takes g to q + ``target``: rows along rock, roll, par, scaled by ``|G0| / |Q0|``.
        target : ndarray, shape (3,)
            The vector asked for, along the same rows, in units of ``|Q0|``.
        resolution : Resolution
            Of the instrument, along the same rows.

        Returns
        -------
        ndarray of float32, shape (n,)
        """
        return self._brightness(turn, target, resolution).reshape(-1, self._per_state).sum(axis=1)

    def _brightness(self, turn: NDArray, target: NDArray, resolution: Resolution) -> NDArray:
        out = np.empty(len(self._g), np.float32)
        over_bands(
            _brightness,
            len(out),
            out,
            self._g,
            self._variance,
            self._intensity,
            turn,
            target,
            resolution.gaussian_covariance,
            math.inf if resolution.zv_cut_rad is None else resolution.zv_cut_rad,
            resolution.zv_rms_rad,
            resolution.zv_covariance,
        )
        return out


@njit(nogil=True, cache=True)
def _brightness(
    first: int,
    last: int,
    out: NDArray,
    g: NDArray,
    variance: NDArray,
    intensity: NDArray,
    turn: NDArray,
    target: NDArray,
    covariance: NDArray,
    cut: float,
    zv: float,
    with_zv: NDArray,
) -> None:
    flat = _determinant(covariance)
    is_cut = zv > 0.0 and cut < math.inf
    whole = _passed(cut, zv, covariance, with_zv, 0.0, 0.0, 0.0) if is_cut else 1.0
    for state in range(first, last):
        rock, roll = variance[state, 0], variance[state, 1]
        # a turn about y moves z along +x, one about x along -y: columns 0 and 1 of `turn`
        c = covariance.copy()
        for i in range(3):
            for j in range(3):
                c[i, j] += turn[i, 0] * turn[j, 0] * rock + turn[i, 1] * turn[j, 1] * roll
        q0, q1, q2 = -target[0], -target[1], -target[2]
        for j in range(3):
            q0 += turn[0, j] * g[state, j]
            q1 += turn[1, j] * g[state, j]
            q2 += turn[2, j] * g[state, j]
        determinant = _determinant(c)
        a00 = c[1, 1] * c[2, 2] - c[1, 2] * c[1, 2]
        a01 = c[0, 2] * c[1, 2] - c[0, 1] * c[2, 2]
        a02 = c[0, 1] * c[1, 2] - c[0, 2] * c[1, 1]
        a11 = c[0, 0] * c[2, 2] - c[0, 2] * c[0, 2]
        a12 = c[0, 1] * c[0, 2] - c[0, 0] * c[1, 2]
        a22 = c[0, 0] * c[1, 1] - c[0, 1] * c[0, 1]
        distance = (
            q0 * q0 * a00 + q1 * q1 * a11 + q2 * q2 * a22 + 2 * (q0 * q1 * a01 + q0 * q2 * a02 + q1 * q2 * a12)
        ) / determinant
        # local spread thins the same scattering power out over more of reciprocal space
        value = intensity[state] * math.sqrt(flat / determinant) * math.exp(-0.5 * distance)
        if is_cut:
            value *= _passed(cut, zv, c, with_zv, q0, q1, q2) / whole
        out[state] = value


@njit(nogil=True, cache=True)
def _passed(cut: float, zv: float, c: NDArray, with_zv: NDArray, q0: float, q1: float, q2: float) -> float:
    """Return the probability that the divergence lies within the cut, given q: `geometry.Resolution.weight`.

    ``c`` is the covariance of q with the crystal's own spread in it; that spread is independent of the beam, so
    ``with_zv``, the covariance of zv and q, is the instrument's.
    """
    k0, k1, k2 = with_zv[0], with_zv[1], with_zv[2]
    determinant = _determinant(c)
    # C^-1 k, by cofactors
    g0 = (
        (c[1, 1] * c[2, 2] - c[1, 2] * c[1, 2]) * k0
        + (c[0, 2] * c[1, 2] - c[0, 1] * c[2, 2]) * k1
        + (c[0, 1] * c[1, 2] - c[0, 2] * c[1, 1]) * k2
    ) / determinant
    g1 = (
        (c[0, 2] * c[1, 2] - c[0, 1] * c[2, 2]) * k0
        + (c[0, 0] * c[2, 2] - c[0, 2] * c[0, 2]) * k1
        + (c[0, 1] * c[0, 2] - c[0, 0] * c[1, 2]) * k2
    ) / determinant
    g2 = (
        (c[0, 1] * c[1, 2] - c[0, 2] * c[1, 1]) * k0
        + (c[0, 1] * c[0, 2] - c[0, 0] * c[1, 2]) * k1
        + (c[0, 0] * c[1, 1] - c[0, 1] * c[0, 1]) * k2
    ) / determinant
    mean = g0 * q0 + g1 * q1 + g2 * q2
    scale = math.sqrt(2.0 * max(zv * zv - (g0 * k0 + g1 * k1 + g2 * k2), 1e-12 * zv * zv))
    return 0.5 * (math.erf((cut - mean) / scale) + math.erf((cut + mean) / scale))


@njit(nogil=True, cache=True)
def _determinant(c: NDArray) -> float:
    return (
        c[0, 0] * (c[1, 1] * c[2, 2] - c[1, 2] * c[1, 2])
        - c[0, 1] * (c[0, 1] * c[2, 2] - c[1, 2] * c[0, 2])
        + c[0, 2] * (c[0, 1] * c[1, 2] - c[1, 1] * c[0, 2])
    )


@dataclass(frozen=True)
class Blur:
    """Rms blur of the lens on the sample, um, and how it grows out of focus.

    A point that lies ``w`` downstream along the diffracted beam is out of focus by ``w - focus``. The layer is
    inclined to the image plane (``w = x cos 2theta``), so the blur varies along the image: it is applied with the w of
    the layer's middle in each row.

    Attributes
    ----------
    sigma_u_um, sigma_v_um : float
        In focus.
    acceptance_u_rad, acceptance_v_rad : float
        Rms angles of the rays that make the image: rms blur per distance from focus.
    focus_u_um, focus_v_um : float
        w of the plane that is in focus; the two differ for crossed lenses.
    """

    sigma_u_um: float
    sigma_v_um: float
    acceptance_u_rad: float = 0.0
    acceptance_v_rad: float = 0.0
    focus_u_um: float = 0.0
    focus_v_um: float = 0.0


@dataclass(frozen=True)
class RenderedImage:
    """Relative mean intensity on a regular grid of the image plane, to be interpolated linearly.

    Attributes
    ----------
    values : ndarray of float32, shape (m, n)
        Rows along v, columns along u; 1 for a perfect crystal on its peak that fills the beam.
    u_um, v_um : float
        Image plane coordinates of element (0, 0), um.
    step_u_um, step_v_um : float
        Distance of the elements, um.
    """

    values: NDArray
    u_um: float
    v_um: float
    step_u_um: float
    step_v_um: float


def render(
    sample: Sample,
    brightness: NDArray,
    projection: Projection,
    illumination: Illumination,
    blur: Blur,
    field_um: tuple[float, float, float, float],
    pixel_um: tuple[float, float],
) -> RenderedImage:
    """Return the image of a sample.

    The grid is as coarse as the blur allows: interpolating linearly between elements h apart blurs by a variance of
    ``h^2/6``, and elements that are means over h along u by another ``h^2/12``; both are taken off the blur that is
    applied.

    Parameters
    ----------
    sample : Sample
        The sample.
    brightness : ndarray of float32, shape (n,)
        Of its states, by `Lattice.brightness`.
    projection, illumination, blur
        Where it stands, what of it is lit, how sharp it is seen.
    field_um : tuple of float
        Lowest u, highest u, lowest v, highest v that the camera sees, um.
    pixel_um : tuple of float
        Pixel along u and along v on the sample, um: the image is the mean over one.
    """
    lowest, highest = projection.corners(sample).min(0), projection.corners(sample).max(0)
    sine, cosine = math.sin(math.radians(projection.two_theta_deg)), math.cos(math.radians(projection.two_theta_deg))
    voxel = float(sample.voxel_um.min())
    edges = np.clip([lowest[1], highest[1]], field_um[2], field_um[3])

    def variance(axis: int, v_um: NDArray) -> NDArray:
        # w = x cos + z sin at the layer's middle, with x = (z cos - v) / sin
        w = (illumination.centre_um - v_um * cosine) / sine
        sigma, acceptance, focus = (
            (blur.sigma_u_um, blur.acceptance_u_rad, blur.focus_u_um),
            (blur.sigma_v_um, blur.acceptance_v_rad, blur.focus_v_um),
        )[axis]
        return sigma**2 + (acceptance * (w - focus)) ** 2 + pixel_um[axis] ** 2 / 12

    steps, margins = [], []
    for axis in (0, 1):
        along = variance(axis, np.linspace(edges[0], edges[1], 33))
        finest = along.min()
        if axis == 1 and not illumination.box:
            # upwards the layer blurs much more than the lens: 3 % of its variance, 1.5 % of its width, may be lost to
            # the grid
            finest += 0.03 * (illumination.sigma_um * cosine) ** 2
        # so fine that the blur is still as small as it is; but no finer than the pixels need and no coarser than the
        # voxels
        step = math.sqrt(finest / _GRID_VARIANCE[axis])
        steps.append(max(min(step, max(voxel, 2 * pixel_um[axis])), 0.5 * pixel_um[axis]))
        margins.append(3 * math.sqrt(along.max()) + 2 * steps[axis])
    step_u, step_v = steps
    low_u, high_u = max(lowest[0], field_um[0]) - margins[0], min(highest[0], field_um[1]) + margins[0]
    low_v, high_v = max(lowest[1], field_um[2]) - margins[1], min(highest[1], field_um[3]) + margins[1]
    # three times per voxel and twelve times in the width of a line beam
    depth_step = 2 * voxel if illumination.box else min(float(sample.voxel_um[2]) / 3, illumination.height_um / 12)
    heights, weights = illumination.nodes(lowest[2], highest[2], depth_step)
    if low_u >= high_u or low_v >= high_v or heights.size == 0 or not brightness.any():
        return RenderedImage(np.zeros((2, 2), np.float32), low_u, low_v, step_u, step_v)
    columns, rows = math.ceil((high_u - low_u) / step_u) + 1, math.ceil((high_v - low_v) / step_v) + 1
    to_sample, offset = projection.to_sample()
    to_voxel = to_sample / sample.voxel_um[:, np.newaxis]
    start = (offset - sample.low_um) / sample.voxel_um + to_voxel @ np.array([low_u, low_v, 0.0])
    sharp = np.zeros((rows, columns), np.float32)
    over_bands(
        _project,
        rows,
        sharp,
        sample.index.transpose(0, 2, 1),
        brightness,
        start,
        np.ascontiguousarray(to_voxel[:, 0] * step_u),
        np.ascontiguousarray(to_voxel[:, 1] * step_v),
        np.ascontiguousarray(to_voxel[:, 2]),
        heights,
        weights,
    )
    across = low_u + np.arange(columns) * step_u
    sharp[:, (across < illumination.across_um[0]) | (across > illumination.across_um[1])] = 0.0
    v_um = low_v + np.arange(rows) * step_v
    variance_u = variance(0, v_um) / step_u**2 - _GRID_VARIANCE[0]
    variance_v = variance(1, v_um) / step_v**2 - _GRID_VARIANCE[1]
    half_done, done = np.empty_like(sharp), np.empty_like(sharp)
    over_bands(_blur_along_rows, rows, half_done, sharp, _taps(variance_u))
    over_bands(_blur_across_rows, rows, done, half_done, _taps(variance_v))
    return RenderedImage(done, low_u, low_v, step_u, step_v)


def _taps(variance: NDArray) -> NDArray:
    """Return the weights of a symmetric blur per row, shape (rows, 2 k + 1), from its variances in elements squared."""
    variance = np.maximum(variance, 0.0)
    reach = max(1, math.ceil(3.5 * math.sqrt(float(variance.max()))))
    offsets = np.arange(-reach, reach + 1)
    gauss = np.exp(-0.5 * offsets**2 / np.maximum(variance, 0.25)[:, np.newaxis])
    gauss /= gauss.sum(1, keepdims=True)
    # a sampled Gaussian narrower than that has not the variance it is meant to have; three weights can
    narrow = np.where(
        offsets == 0, 1 - variance[:, np.newaxis], np.where(abs(offsets) == 1, variance[:, np.newaxis] / 2, 0.0)
    )
    return np.where(variance[:, np.newaxis] < 0.5, narrow, gauss).astype(np.float32)


@njit(nogil=True, cache=True, inline="always")
def _next_face(at: float, per: float, voxel: int) -> float:
    """Return the column at which a row leaves a voxel along one axis."""
    if per > _STILL:
        return (voxel + 1 - at) / per
    if per < -_STILL:
        return (voxel - at) / per
    return np.inf


@njit(nogil=True, cache=True, inline="always")
def _rise(changes: NDArray, column: float, height: float) -> None:
    """Let the image rise at a (fractional) column: each element is the mean over half a column to either side."""
    place = column + 0.5
    left = int(place)
    changes[left] += height * (left + 1 - place)
    changes[left + 1] += height * (place - left)


# compiled for both at once, always in this order: two processes that each compile one of them at the same time would
# leave in numba's cache an index of the one with the code of the other
@njit(
    [
        f"void(int64, int64, float32[:,::1], {kind}[:,:,::1], float32[::1], " + ", ".join(6 * ["float64[::1]"]) + ")"
        for kind in ("uint16", "uint32")
    ],
    nogil=True,
    cache=True,
)
def _project(
    first: int,
    last: int,
    image: NDArray,
    voxels: NDArray,
    brightness: NDArray,
    start: NDArray,
    per_column: NDArray,
    per_row: NDArray,
    per_um: NDArray,
    heights: NDArray,
    weights: NDArray,
) -> None:
    """Sum the brightness of the voxels along the depth of each image point, for rows [first, last).

    At one height in the beam, a row of the image is a straight line through the voxels (``voxels``: index of the
    sample with axes x, z, y): its brightness changes only where the line passes into a voxel of another state. So the
    changes are noted, and summed up along the row when all heights are done. Along the row this is exact.
    """
    nx, nz, ny = voxels.shape
    columns = image.shape[1]
    changes = np.empty(columns + 2, np.float64)
    for row in range(first, last):
        changes[:] = 0.0
        for node in range(heights.size):
            x0 = start[0] + per_row[0] * row + per_um[0] * heights[node]
            y0 = start[1] + per_row[1] * row + per_um[1] * heights[node]
            z0 = start[2] + per_row[2] * row + per_um[2] * heights[node]
            # the stretch of the row that is inside the volume, where all three coordinates are
            here, end = -0.5, columns - 0.5
            for at, per, size in ((x0, per_column[0], nx), (y0, per_column[1], ny), (z0, per_column[2], nz)):
                if abs(per) > _STILL:
                    here = max(here, min(-at / per, (size - at) / per))
                    end = min(end, max(-at / per, (size - at) / per))
                elif not 0.0 <= at < size:
                    end = -1.0
            if here >= end:
                continue
            weight, level = weights[node], 0.0
            while here < end:
                # mostly y changes along a row: walk it in stretches of the same x and z, just beyond the face they
                # begin with
                x = min(max(int(x0 + per_column[0] * (here + _BEYOND)), 0), nx - 1)
                z = min(max(int(z0 + per_column[2] * (here + _BEYOND)), 0), nz - 1)
                stop = min(_next_face(x0, per_column[0], x), _next_face(z0, per_column[2], z), end)
                stop = max(stop, here + _BEYOND)
                y_here = min(max(int(y0 + per_column[1] * here), 0), ny - 1)
                y_stop = min(max(int(y0 + per_column[1] * stop), 0), ny - 1)
                onward = 1 if y_stop >= y_here else -1
                face = 0 if onward == 1 else 1
                place = here
                for y in range(y_here, y_stop + onward, onward):
                    next_level = weight * brightness[voxels[x, z, y]]
                    if next_level != level:
                        if y != y_here:
                            place = (y + face - y0) / per_column[1]
                        _rise(changes, min(max(place, here), stop), next_level - level)
                        level = next_level
                here = stop
            _rise(changes, min(end, columns - 0.5), -level)
        total = 0.0
        for column in range(columns):
            total += changes[column]
            # what is left of a sum of ups and downs is no light
            image[row, column] = total if total > 1e-9 else 0.0


@njit(nogil=True, cache=True)
def _blur_along_rows(first: int, last: int, out: NDArray, image: NDArray, taps: NDArray) -> None:
    columns, reach = image.shape[1], taps.shape[1] // 2
    for row in range(first, last):
        for column in range(columns):
            out[row, column] = 0.0
        for tap in range(-reach, reach + 1):
            weight = taps[row, tap + reach]
            if weight != 0.0:
                for column in range(max(0, -tap), min(columns, columns - tap)):
                    out[row, column] += weight * image[row, column + tap]


@njit(nogil=True, cache=True)
def _blur_across_rows(first: int, last: int, out: NDArray, image: NDArray, taps: NDArray) -> None:
    rows, reach = image.shape[0], taps.shape[1] // 2
    for row in range(first, last):
        for column in range(image.shape[1]):
            out[row, column] = 0.0
        for tap in range(max(-reach, -row), min(reach, rows - 1 - row) + 1):
            weight = taps[row, tap + reach]
            if weight != 0.0:
                for column in range(image.shape[1]):
                    out[row, column] += weight * image[row + tap, column]
