"""What a map of a simulated sample must show, computed from the list of voxels.

Nothing here uses the code that renders frames. Each voxel is one Gaussian in the space of the scanned motors: where it
peaks, how strong and how wide follow in closed form from its state, from the resolution function, and from the beam's
profile, which a voxel crosses when the sample turns. The voxels' centres are projected onto the camera and blurred;
the sums over voxels give the centre of mass and the covariance that an infinitely wide and fine scan would find in
each pixel.

With ``A = J^T C^-1 J`` for the n motors (J: d q / d motor, C: resolution plus local spread), ``m0`` the motor position
that minimises ``q^T C^-1 q``, and ``z(m) = z0 + g (m - m0)`` the height of the voxel in a line beam of rms height s,
the product of both Gaussians peaks at ``m = m0 - A^-1 g z0 / (s^2 + g^T A^-1 g)`` with covariance ``(A + g g^T /
s^2)^-1``. [derived: completing the square]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.dislocations import Dislocation
from dfxrm_control.errors import ParameterError
from dfxrm_control.geometry import (
    FWHM_PER_SIGMA,
    Resolution,
    detector_to_pixel,
    frame_to_canonical,
    goniometer_rotation,
    lab_to_object,
    lab_to_sample,
    sample_to_lab,
)
from dfxrm_control.microscope import View

from .imaging import Illumination
from .twin import Twin

__all__ = ["KnownField", "KnownLine", "known_domains", "known_field", "known_lines"]

_GONIOMETER = ("mu", "omega", "chi", "phi")
_FOCUS_CLASSES = 6
# pixels around the frame that still blur into it
_MARGIN = 64


@dataclass(frozen=True, eq=False)
class KnownField:
    """What a scan over a mesh of motors must find in each pixel.

    All maps are canonical: ``map[ix, iy]``, x along the beam and y across increasing with the index.

    Attributes
    ----------
    axes : tuple of str
        The scanned motors, n of them.
    x_um, y_um : ndarray, shapes (nx,) and (ny,)
        Where on the layer the pixels look, um; the rotation centre is at 0.
    com : ndarray, shape (n, nx, ny)
        Centre of mass of each motor, deg; NaN where nothing diffracts.
    covariance : ndarray, shape (n, n, nx, ny)
        Covariance of the motors about it, deg^2: instrument, local spread and what the pixel averages over.
    integral : ndarray, shape (nx, ny)
        Relative intensity (1: perfect crystal on its peak) integrated over the motors, deg^n.
    """

    axes: tuple[str, ...]
    x_um: NDArray
    y_um: NDArray
    com: NDArray
    covariance: NDArray
    integral: NDArray

    def photons(self, photons_per_frame: float, steps_deg: Sequence[float]) -> NDArray:
        """Return the photons each pixel detects over a whole scan, shape (nx, ny).

        Parameters
        ----------
        photons_per_frame : float
            Photons per pixel and frame of a perfect crystal on its peak.
        steps_deg : sequence of float
            Step of each motor, deg.
        """
        return self.integral * (photons_per_frame / math.prod(abs(step) for step in steps_deg))


@dataclass(frozen=True, eq=False)
class KnownLine:
    """Where a map must show a dislocation.

    Attributes
    ----------
    dislocation : Dislocation
        The line, in the sample frame.
    x_um, y_um : float
        Where it crosses the middle of the illuminated layer, as a map sees it, um.
    ix, iy : float
        The same in pixels of a canonical map, with fractions; it may lie outside.
    visible : bool
        Whether ``b . q-hat`` is not zero.
    """

    dislocation: Dislocation
    x_um: float
    y_um: float
    ix: float
    iy: float
    visible: bool


def known_field(twin: Twin, axes: Sequence[str], camera: str = "far_field") -> KnownField:
    """Return what a scan of some motors about the present setting of a twin must find.

    Parameters
    ----------
    twin : Twin
        At the middle of the scan: its motors say where, its channels say how the sample is lit.
    axes : sequence of str
        One to three motors that move the diffraction vector in independent ways: mu, omega, chi, phi, two_theta, ccmth.
    camera : str
        The camera; a lens must stand before it.

    Raises
    ------
    ParameterError
        Without a lens before the camera.
    PhysicsError
        When the motors do not move the diffraction vector independently.
    """
    view, resolution = _through_lens(twin, camera)
    positions = twin.true_positions()
    sample, instrument = twin.sample, twin.config.instrument
    names, count = tuple(axes), len(axes)
    middle = np.array([view.two_theta_deg if name == "two_theta" else positions[name] for name in names])

    # states: where each peaks in the space of the motors
    jacobian = view.jacobian(names)
    g_sample = twin.g0_per_angstrom * Rotation.from_rotvec(np.radians(sample.tilt_deg)).apply([0.0, 0.0, 1.0])
    g_sample /= (1.0 + sample.strain)[:, np.newaxis]
    covariance = resolution.covariance + _spread(sample.spread_deg, view.basis @ _turn(positions, instrument.mu_sign))
    stiffness = np.linalg.inv(covariance)
    precision = np.einsum("ia,nij,jb->nab", jacobian, stiffness, jacobian)
    loose = np.linalg.inv(precision)
    m0 = np.zeros((len(g_sample), count))
    for _ in range(3):
        q = _mismatch(view, g_sample, positions, names, m0, jacobian, instrument.mu_sign)
        m0 -= np.einsum("nab,ib,nij,nj->na", loose, jacobian, stiffness, q)
    q = _mismatch(view, g_sample, positions, names, m0, jacobian, instrument.mu_sign)
    left = np.einsum("ni,nij,nj->n", q, stiffness, q)
    flat = np.sqrt(np.linalg.det(resolution.covariance) / np.linalg.det(covariance))
    strength = sample.intensity * flat * np.exp(-0.5 * left)

    # voxels: which are lit, and where they are then
    light = twin.illumination()
    turn = _turn(positions, instrument.mu_sign)
    shift = 1e3 * np.array([positions[axis] for axis in ("samx", "samy", "samz")])
    aim = lab_to_object(np.eye(3), view.two_theta_deg)
    # upwards, voxels are taken as Gaussians, which must overlap: one that is larger than two pixels counts as several
    apparent = sample.voxel_um * np.abs(turn.T @ aim[:, 1])
    parts = np.maximum(np.rint(apparent / (2 * view.pixel_um / view.magnification_v)).astype(int), 1)
    edge = sample.voxel_um / parts
    # covariance of the points of a voxel in the laboratory, and as seen in (u, v, w)
    extent = (turn * edge**2 / 12.0) @ turn.T
    state, place = _lit_points(twin, view, turn, shift, light, parts)
    # what a deg (or rad, below) of each motor does to the height of a point
    heights = _height_slopes(place, positions, names, shift, instrument)
    z0 = place[:, 2] - light.centre_um + np.einsum("va,va->v", heights, m0[state])
    shape = aim.T @ extent @ aim
    if light.box:
        profile = np.where(np.abs(z0) <= light.height_um / 2, 1.0 / light.height_um, 0.0)
        moved, width = m0[state], loose[state]
        lean = np.zeros((len(z0), 3))
    else:
        variance = light.sigma_um**2 + extent[2, 2]
        pull = np.einsum("vab,vb->va", loose[state], heights)
        stretched = variance + np.einsum("va,va->v", heights, pull)
        moved = m0[state] - pull * (z0 / stretched)[:, np.newaxis]
        profile = np.exp(-0.5 * z0**2 / stretched) / math.sqrt(2 * math.pi * variance)
        width = loose[state] - np.einsum("va,vb->vab", pull, pull) / stretched[:, np.newaxis, np.newaxis]
        # the side of a voxel that is nearer to the middle of the beam is lit more: its light comes from off its centre
        with_z = aim.T @ extent[2]
        lean = np.outer(-z0 / stretched, with_z)
        shape = shape - np.outer(with_z, with_z) / variance
    volume = np.sqrt(np.linalg.det(2 * math.pi * width))
    # the volume of a voxel in (u, v, z) is sin(2theta) times that in (x, y, z)
    weight = strength[state] * profile * volume * edge.prod() * math.sin(math.radians(view.two_theta_deg))
    lab = place + _displacements(place, positions, names, shift, instrument, moved)
    lit = (weight > weight.max(initial=0.0) * 1e-9) & (
        np.abs(lab[:, 1] - sum(light.across_um) / 2) <= np.ptp(light.across_um) / 2
    )
    seen = lab_to_object(lab[lit], view.two_theta_deg) + lean[lit]
    weight, moved, width = weight[lit], moved[lit], width[lit]

    layers = [weight, *(weight * moved[:, a] for a in range(count))]
    layers += [weight * (moved[:, a] * moved[:, b] + width[:, a, b]) for a in range(count) for b in range(a, count)]
    maps = _project(view, seen, np.array(layers), np.diag(shape))
    return _field(view, names, np.degrees(1.0), middle, maps)


def _through_lens(twin: Twin, camera: str) -> tuple[View, Resolution]:
    view = twin.view(camera)
    if view.resolution is None:
        raise ParameterError(f"camera {camera!r} has no objective before it at this setting, so it makes no map")
    return view, view.resolution


def _turn(positions: Mapping[str, float], mu_sign: int) -> NDArray:
    mu, omega, chi, phi = (positions[axis] for axis in _GONIOMETER)
    return goniometer_rotation(mu, omega, chi, phi, mu_sign=mu_sign)


def _spread(spread_deg: NDArray, seen: NDArray) -> NDArray:
    """Return the covariance that local turns about the sample's y and x add to (rock, roll, par), shape (n, 3, 3)."""
    about_y, about_x = np.radians(spread_deg).T ** 2
    along_x, along_y = np.outer(seen[:, 0], seen[:, 0]), np.outer(seen[:, 1], seen[:, 1])
    return about_y[:, np.newaxis, np.newaxis] * along_x + about_x[:, np.newaxis, np.newaxis] * along_y


def _mismatch(
    view: View,
    g_sample: NDArray,
    positions: Mapping[str, float],
    names: Sequence[str],
    moves: NDArray,
    jacobian: NDArray,
    mu_sign: int,
) -> NDArray:
    """Return q of each state with the motors moved, rad, shape (n, 3): goniometer exactly, others linearly."""
    angles = {axis: np.full(len(moves), positions[axis]) for axis in _GONIOMETER}
    linear = np.zeros((len(moves), 3))
    for column, name in enumerate(names):
        if name in angles:
            angles[name] = angles[name] + np.degrees(moves[:, column])
        else:
            linear += moves[:, column, np.newaxis] * jacobian[:, column]
    mu, omega, chi, phi = (angles[axis] for axis in _GONIOMETER)
    turns = goniometer_rotation(mu, omega, chi, phi, mu_sign=mu_sign)
    return view.relative_q(np.einsum("nij,nj->ni", turns, g_sample)) + linear


def known_domains(twin: Twin, camera: str = "far_field") -> NDArray[np.int64]:
    """Return the domain that each pixel looks at on the layer z = 0, shape (nx, ny), canonical as maps are.

    Parameters
    ----------
    twin : Twin
        Where it stands now, with its sample as it is now.
    camera : str
        The camera; a lens must stand before it.

    Returns
    -------
    ndarray of int
        `Sample.domain` there; -1 where there is no crystal.

    Raises
    ------
    ParameterError
        Without a lens before the camera, or when the sample is not made of domains.
    """
    (view, _), sample = _through_lens(twin, camera), twin.sample
    if sample.domain is None:
        raise ParameterError("this sample is not made of domains")
    positions, instrument = twin.true_positions(), twin.config.instrument
    shift = 1e3 * np.array([positions[axis] for axis in ("samx", "samy", "samz")])
    x_um, y_um = _layer_axes(view)
    layer = np.stack([*np.meshgrid(x_um, y_um, indexing="ij"), np.zeros((len(x_um), len(y_um)))], axis=-1)
    places = lab_to_sample(layer, _turn(positions, instrument.mu_sign), shift, instrument.sample_stage)
    voxel = np.floor((places - sample.low_um) / sample.voxel_um).astype(int)
    inside = ((voxel >= 0) & (voxel < sample.index.shape)).all(axis=-1)
    i, j, k = np.moveaxis(np.where(inside[..., np.newaxis], voxel, 0), -1, 0)
    state = sample.index[i, j, k]
    return np.where(inside & (sample.intensity[state] > 0), sample.domain[state], -1).astype(np.int64)


def known_lines(twin: Twin, camera: str = "far_field") -> list[KnownLine]:
    """Return where each dislocation of the sample crosses the illuminated layer, in and outside the field of view.

    Parameters
    ----------
    twin : Twin
        Where it stands now.
    camera : str
        The camera; a lens must stand before it.

    Raises
    ------
    ParameterError
        Without a lens before the camera.
    PhysicsError
        For a line that runs along the layer.
    """
    view, _ = _through_lens(twin, camera)
    positions, instrument = twin.true_positions(), twin.config.instrument
    turn = _turn(positions, instrument.mu_sign)
    shift = 1e3 * np.array([positions[axis] for axis in ("samx", "samy", "samz")])
    middle = twin.illumination().centre_um
    # the layer z = middle as a plane in the sample: its normal, and how far along that it lies
    normal = turn[2]
    distance = float(lab_to_sample(np.array([0.0, 0.0, middle]), turn, shift, instrument.sample_stage) @ normal)
    x_um, y_um = _layer_axes(view)
    slope = math.radians(view.two_theta_deg)
    lines = []
    for one in twin.sample.dislocations:
        place = sample_to_lab(one.crossing_um(normal, distance), turn, shift, instrument.sample_stage)
        # what lies above z = 0 is seen where the diffracted beam through it meets z = 0
        x, y = float(place[0] - middle / math.tan(slope)), float(place[1])
        lines.append(
            KnownLine(
                one,
                x,
                y,
                (x - x_um[0]) / (x_um[1] - x_um[0]),
                (y - y_um[0]) / (y_um[1] - y_um[0]),
                one.visible((0.0, 0.0, 1.0)),
            )
        )
    return lines


def _layer_axes(view: View) -> tuple[NDArray, NDArray]:
    """Return x of every canonical row and y of every column on the layer z = 0, um."""
    rows, columns = view.shape
    v_mm = (np.arange(rows) - (rows - 1) / 2) * view.pixel_um * 1e-3
    u_mm = ((columns - 1) / 2 - np.arange(columns)) * view.pixel_um * 1e-3
    sine = math.sin(math.radians(view.two_theta_deg))
    x_um = 1e3 * (v_mm - view.offset_v_mm) / (view.magnification_v * sine)
    return x_um, -1e3 * (u_mm - view.offset_u_mm) / view.magnification_h


def _lit_points(
    twin: Twin, view: View, turn: NDArray, shift: NDArray, light: Illumination, parts: NDArray
) -> tuple[NDArray, NDArray]:
    """Return state and laboratory position of the points in or near beam and field, shapes (m,) and (m, 3).

    Each voxel is cut into ``parts`` along x, y, z.
    """
    sample, stage = twin.sample, twin.config.instrument.sample_stage
    x, y, z = sample.axes_um()
    # the height of a voxel is a sum of one term per axis, so that it costs no array of points
    base = sample_to_lab(np.zeros(3), turn, shift, stage)[2]
    up = base + turn[2, 0] * x[:, None, None] + turn[2, 1] * y[:, None] + turn[2, 2] * z
    # a scan turns the sample by about a degree at most: points far out rise by this much
    rise = math.radians(1.0) * max(np.abs(x).max(), np.abs(y).max())
    reach = (light.height_um / 2 if light.box else 4 * light.sigma_um) + rise + sample.voxel_um.max()
    i, j, k = np.nonzero((np.abs(up - light.centre_um) <= reach) & (sample.intensity > 0)[sample.index])
    places = sample_to_lab(np.stack([x[i], y[j], z[k]], axis=-1), turn, shift, stage)
    near = _in_view(view, places)
    state, places = sample.index[i[near], j[near], k[near]], places[near]
    offsets = [((np.arange(part) + 0.5) / part - 0.5) * size for part, size in zip(parts, sample.voxel_um, strict=True)]
    inside = np.stack(np.meshgrid(*offsets, indexing="ij"), axis=-1).reshape(-1, 3) @ turn.T
    return np.repeat(state, len(inside)), (places[:, np.newaxis] + inside).reshape(-1, 3)


def _motor_axis(name: str, positions: Mapping[str, float], mu_sign: int) -> NDArray | None:
    """Return the axis about which a goniometer motor turns the sample, by a small turn; None for other motors."""
    if name not in _GONIOMETER:
        return None
    small = 1e-4
    ahead = (
        _turn({**positions, name: positions[name] + small}, mu_sign)
        @ _turn({**positions, name: positions[name] - small}, mu_sign).T
    )
    return Rotation.from_matrix(ahead).as_rotvec() / np.radians(2 * small)


def _about(place: NDArray, shift: NDArray, instrument: InstrumentConfig) -> NDArray:
    # a stage below the rotations carries their centre along
    return place if instrument.sample_stage == "above" else place - shift


def _height_slopes(
    place: NDArray, positions: Mapping[str, float], names: Sequence[str], shift: NDArray, instrument: InstrumentConfig
) -> NDArray:
    """Return d z / d motor of each point, um per rad, shape (m, n)."""
    slopes = np.zeros((len(place), len(names)))
    for column, name in enumerate(names):
        axis = _motor_axis(name, positions, instrument.mu_sign)
        if axis is not None:
            slopes[:, column] = np.cross(axis, _about(place, shift, instrument))[:, 2]
    return slopes


def _displacements(
    place: NDArray,
    positions: Mapping[str, float],
    names: Sequence[str],
    shift: NDArray,
    instrument: InstrumentConfig,
    moves: NDArray,
) -> NDArray:
    """Return by how much each point is displaced when the motors move by ``moves`` rad, um, shape (m, 3)."""
    total = np.zeros_like(place)
    for column, name in enumerate(names):
        axis = _motor_axis(name, positions, instrument.mu_sign)
        if axis is not None:
            total += np.cross(axis, _about(place, shift, instrument)) * moves[:, column, np.newaxis]
    return total


def _pixels(view: View, seen: NDArray) -> tuple[NDArray, NDArray]:
    """Return (row, column) on the camera of points (u, v, w) of the object plane, um."""
    return detector_to_pixel(
        view.image_sign * view.magnification_h * seen[:, 0] * 1e-3 + view.offset_u_mm,
        view.image_sign * view.magnification_v * seen[:, 1] * 1e-3 + view.offset_v_mm,
        view.shape,
        view.pixel_um,
        view.flip_ud,
        view.flip_lr,
    )


def _in_view(view: View, place: NDArray) -> NDArray:
    """Return which points fall on the camera or near its edge."""
    row, column = _pixels(view, lab_to_object(place, view.two_theta_deg))
    rows, columns = view.shape
    return (row > -_MARGIN) & (row < rows + _MARGIN) & (column > -_MARGIN) & (column < columns + _MARGIN)


def _project(view: View, seen: NDArray, layers: NDArray, grain: NDArray) -> NDArray:
    """Return the layers summed on the camera's pixels and blurred, per um^2, shape (layers, rows, columns).

    ``seen`` are the points in (u, v, w), ``grain`` the variances of a voxel's points along these.
    """
    row, column = _pixels(view, seen)
    pixel_u, pixel_v = view.pixel_um / view.magnification_h, view.pixel_um / view.magnification_v
    grain_u, grain_v = grain[:2]
    upward, across = view.blur("v"), view.blur("h")
    lens_u = (across.diffraction_um**2 + across.aberration_um**2) / FWHM_PER_SIGMA**2
    lens_v = (upward.diffraction_um**2 + upward.aberration_um**2) / FWHM_PER_SIGMA**2
    rows, columns = view.shape
    padded = (rows + 2 * _MARGIN, columns + 2 * _MARGIN)
    half = math.sqrt(12.0 * grain_u) / pixel_u / 2
    row, left, right = row + _MARGIN, column + (_MARGIN + 0.5) - half, column + (_MARGIN + 0.5) + half
    inside = (row >= 0) & (row < padded[0] - 1) & (left >= 0) & (right < padded[1] - 1)
    row, left, right, layers, depth = row[inside], left[inside], right[inside], layers[:, inside], seen[inside, 2]
    total = np.zeros((len(layers), rows, columns))
    if not depth.size:
        return total
    # points at like distances from focus share their blur
    limits = np.quantile(depth, np.linspace(0, 1, _FOCUS_CLASSES + 1))
    classes = np.clip(np.searchsorted(limits, depth, side="right") - 1, 0, _FOCUS_CLASSES - 1)
    for focus in np.unique(classes):
        chosen = classes == focus
        away = float(depth[chosen].mean())
        var_u = lens_u + (view.acceptance("h").rms_rad * (away - 1e3 * view.defocus_h_mm)) ** 2
        var_v = lens_v + (view.acceptance("v").rms_rad * (away - 1e3 * view.defocus_mm)) ** 2
        # upwards also the voxel's own extent and the pixel's, less what sharing a point between two rows adds
        var_v = max(var_v + grain_v + pixel_v**2 * (1 / 12 - 1 / 6), 0.0)
        sigmas = (math.sqrt(var_v) / pixel_v, math.sqrt(var_u) / pixel_u)
        for number, values in enumerate(layers[:, chosen]):
            # across, a voxel is a box: up at its left edge, down at its right, and the sum over pixels of both
            grid = _shared(row[chosen], left[chosen], values, padded) - _shared(
                row[chosen], right[chosen], values, padded
            )
            box = np.cumsum(grid, axis=1) / (2 * half)
            total[number] += gaussian_filter(box, sigmas, mode="constant")[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return total / (pixel_u * pixel_v)


def _shared(row: NDArray, column: NDArray, values: NDArray, shape: tuple[int, int]) -> NDArray:
    """Return values summed on a grid, each shared among the four nearest elements."""
    low, left = row.astype(int), column.astype(int)
    up, right = row - low, column - left
    grid = np.zeros(shape[0] * shape[1])
    for i, share_up in ((0, 1 - up), (1, up)):
        for j, share_right in ((0, 1 - right), (1, right)):
            grid += np.bincount((low + i) * shape[1] + left + j, values * share_up * share_right, minlength=grid.size)
    return grid.reshape(shape)


def _field(view: View, names: tuple[str, ...], per_rad: float, middle: NDArray, maps: NDArray) -> KnownField:
    count = len(names)
    maps = np.stack([frame_to_canonical(layer, view.flip_ud, view.flip_lr) for layer in maps])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = maps[1 : 1 + count] / maps[0]
        second = maps[1 + count :] / maps[0]
    covariance = np.empty((count, count, *maps.shape[1:]))
    pairs = ((a, b) for a in range(count) for b in range(a, count))
    for (a, b), layer in zip(pairs, second, strict=True):
        covariance[a, b] = covariance[b, a] = layer - mean[a] * mean[b]
    x_um, y_um = _layer_axes(view)
    return KnownField(
        axes=names,
        x_um=x_um,
        y_um=y_um,
        com=middle[:, np.newaxis, np.newaxis] + mean * per_rad,
        covariance=covariance * per_rad**2,
        integral=maps[0] * per_rad**count,
    )
