"""Ferroelastic domains of potassium niobate, seen by a pseudo-cubic 200 reflection.

At room temperature KNbO3 is orthorhombic, Amm2, a = 3.973, b = 5.695, c = 5.721 angstrom (Hewat 1973, J. Phys. C 6,
2559): a face-diagonal cell of the perovskite's cube. Its polar axis is one of the cube's <110>, and domains differ in
which. The pseudo-cubic 200 planes are the orthorhombic 022 (d = 2.018 angstrom) or 200 (1.987): a domain that stands
the other way has planes 1.6 % closer together and is dark where the first diffract.

In the plane of b and c the pseudo-cubic angle differs from 90 deg by ``90 - 2 atan(b / c) = 0.26 deg``: that is the
twin angle. Two domains that fit together along a wall differ by 0, sqrt 2 or 2 times it in the direction of 022,
depending on which two they are, along the wall's normal; the stripes here differ by the angle itself.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfxrm_control.errors import ConfigError

from .sample import Sample, voxel_counts

__all__ = ["potassium_niobate"]

_A, _B, _C = 3.973, 5.695, 5.721
_TWIN_DEG = 90.0 - 2 * math.degrees(math.atan(_B / _C))
_DARK_STRAIN = 2 * (_A / 2) / (1 / math.hypot(1 / _B, 1 / _C)) - 1


def potassium_niobate(
    seed: int = 0,
    *,
    size_um: ArrayLike = (60.0, 22.0, 14.0),
    voxel_um: ArrayLike = (0.2, 0.08, 0.2),
    stripe_um: float = 4.0,
    wall_angle_deg: float = 60.0,
    twin_deg: float = _TWIN_DEG,
    step_deg: float = 0.01,
    strain_step: float = 2e-4,
    dark_every: int = 5,
    spread_deg: float = 0.0,
) -> Sample:
    """Return stripes of domains between parallel walls, with three small steps inside stripes.

    Stripes alternate between two domains whose diffraction vectors lean half a twin angle to either side along the
    normal of the walls. One in ``dark_every`` is a domain with planes 1.6 % closer together. Three of the others, near
    the middle and half again as wide, are cut by a further wall parallel to the others, across which the lattice turns
    by ``step_deg`` about y (rock at omega 0), turns by it about x (roll), or changes its spacing by ``strain_step``.

    Parameters
    ----------
    seed : int
        The same seed gives the same widths.
    size_um, voxel_um : array_like, shape (3,)
        Size of the crystal and of its voxels, um.
    stripe_um : float
        Mean width of a stripe, um.
    wall_angle_deg : float
        Angle from x to the normal of the walls, about z, deg.
    twin_deg : float
        Twin angle, deg; default: that of the lattice, 0.26.
    step_deg, strain_step : float
        Of the small steps, deg and relative change of the spacing.
    dark_every : int
        One stripe in so many is dark; 0: none.
    spread_deg : float
        Rms local spread, deg.

    Raises
    ------
    ConfigError
        For stripes without a width, or a crystal too small for the steps.
    """
    counts = voxel_counts(size_um, voxel_um)
    if not stripe_um > 0:
        raise ConfigError(f"sample: stripe_um is {stripe_um:g}; it must be above 0 um")
    normal = np.array([math.cos(math.radians(wall_angle_deg)), math.sin(math.radians(wall_angle_deg))])
    voxel = np.broadcast_to(np.asarray(voxel_um, dtype=float), (3,))
    x, y = ((np.arange(count) - (count - 1) / 2) * size for count, size in zip(counts, voxel[:2], strict=False))
    along = np.add.outer(normal[0] * x, normal[1] * y)
    reach = float(along.max())
    random = np.random.default_rng([seed, 0xB0])
    # stripes are 0.8 times as wide as the mean at least: so many fill the crystal to either side of the middle one
    to_a_side = math.ceil(reach / (0.8 * stripe_um)) + 1
    places = range(-to_a_side, to_a_side + 1)
    dark = {place for place in places if dark_every > 0 and place % dark_every == 2 % dark_every}
    steps = ("rock", "roll", "strain")
    bright = sorted(set(places) - dark, key=abs)
    if len(bright) < len(steps):
        raise ConfigError(f"sample: {len(bright)} bright stripes; the small steps need {len(steps)}")
    stepped = dict(zip(bright, steps, strict=False))
    widths: list[float] = []
    tilts: list[NDArray] = []
    strains: list[float] = []
    for place in places:
        width = stripe_um * random.uniform(0.8, 1.2)
        lean = (0.5 if place % 2 else -0.5) * twin_deg * normal
        # a turn about y leans z towards x, one about x leans it away from y
        tilt, strain = np.array([-lean[1], lean[0], 0.0]), _DARK_STRAIN if place in dark else 0.0
        step = stepped.get(place)
        if step is None:
            parts = [(width, tilt, strain)]
        else:
            turned = tilt + step_deg * np.array([step == "roll", step == "rock", 0.0])
            parts = [
                (0.75 * width, tilt, strain),
                (0.75 * width, turned, strain + strain_step * (step == "strain")),
            ]
        if place == 0:
            middle = sum(widths) + sum(part[0] for part in parts) / 2
        widths += [part[0] for part in parts]
        tilts += [part[1] for part in parts]
        strains += [part[2] for part in parts]
    walls = np.cumsum(widths)[:-1] - middle
    domain = np.searchsorted(walls, along)
    return Sample.from_states(
        np.broadcast_to(domain[:, :, np.newaxis], counts),
        voxel,
        tilt_deg=tilts,
        strain=strains,
        spread_deg=spread_deg,
        domain=np.arange(len(tilts)),
    )
