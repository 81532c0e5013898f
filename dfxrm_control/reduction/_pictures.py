"""Pictures of maps, drawn in the frame of the sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D
from matplotlib_scalebar.scalebar import ScaleBar
from numpy.typing import NDArray

from dfxrm_control.errors import ParameterError, RecordError
from dfxrm_control.reduction._maps import AxisMaps, MapSet

__all__ = [
    "OnLayer",
    "draw",
    "draw_key",
    "mosaicity_rgb",
    "new_figure",
    "panel_shape",
    "plot_components",
    "plot_distribution",
    "plot_histograms",
    "plot_mosaicity",
    "save_figure",
    "write_pictures",
]

_PERCENTILES = (0.5, 99.5)


def mosaicity_rgb(
    first: NDArray[np.float64], second: NDArray[np.float64], ranges: Sequence[tuple[float, float]]
) -> NDArray[np.float64]:
    """Return colours of pairs of tilts: darling's key.

    HSV with hue the direction and saturation the distance from the middle of the ranges, value 1; each range is
    scaled to [-1, 1]/sqrt 2 (darling ``_color.normalize`` and ``_color.rgb``). darling refuses values outside the
    ranges; here they are drawn with the colour of the nearest value inside. NaN is black.

    Parameters
    ----------
    first, second : ndarray, shape (...)
        Tilts.
    ranges : sequence of two tuples
        Lowest and highest of each.

    Returns
    -------
    ndarray, shape (..., 3)
    """
    scaled = []
    for values, (low, high) in zip((first, second), ranges, strict=True):
        inside = np.clip((values - low) / ((high - low) or 1.0), 0.0, 1.0)
        scaled.append((2.0 * inside - 1.0) / (np.sqrt(2.0) + 1e-8))
    x, y = scaled
    hue = (np.arctan2(-y, -x) + 2.0 * np.pi) % (2.0 * np.pi) / (2.0 * np.pi)
    hsv = np.stack([hue, np.hypot(x, y), np.ones_like(hue)], axis=-1)
    hsv[np.isnan(x) | np.isnan(y)] = 0.0
    return hsv_to_rgb(np.clip(hsv, 0.0, 1.0))


def _range(axis: AxisMaps, valid: NDArray[np.bool_]) -> tuple[float, float]:
    values = axis.com[valid & np.isfinite(axis.com)]
    if not values.size:
        return axis.window
    low, high = np.percentile(values, _PERCENTILES)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _label(axis: AxisMaps) -> str:
    return f"{axis.name} ({axis.units})"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches that no window belongs to."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture; one that is there is replaced in one step.

    Raises
    ------
    RecordError
        When it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.png")
    try:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")
        temporary.replace(path)
    except OSError as error:
        raise RecordError(f"picture {path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


class OnLayer(Protocol):
    """What is mapped on an illuminated layer: see `MapSet` for the attributes."""

    @property
    def x(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def y(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def affine(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def length_units(self) -> str: ...  # noqa: D102


def draw(maps: OnLayer, ax: Axes, image: NDArray, **options: object) -> AxesImage:
    """Draw a map, shape (nx, ny[, 3]), in the sample's frame, with a scale bar."""
    step = [(v[-1] - v[0]) / (len(v) - 1) if len(v) > 1 else 1.0 for v in (maps.x, maps.y)]
    x = (maps.x[0] - step[0] / 2.0, maps.x[-1] + step[0] / 2.0)
    y = (maps.y[0] - step[1] / 2.0, maps.y[-1] + step[1] / 2.0)
    turn = Affine2D(np.vstack([maps.affine[:2], [0.0, 0.0, 1.0]]))
    drawn = ax.imshow(
        np.swapaxes(image, 0, 1),
        origin="lower",
        extent=(*x, *y),
        transform=turn + ax.transData,
        interpolation="nearest",
        **options,  # type: ignore[arg-type]
    )
    corners = turn.transform([(a, b) for a in x for b in y])
    ax.set_xlim(corners[:, 0].min(), corners[:, 0].max())
    ax.set_ylim(corners[:, 1].min(), corners[:, 1].max())
    ax.set_aspect("equal")
    units = "µm" if maps.length_units == "um" else maps.length_units
    ax.set_xlabel(f"x on the sample ({units})")
    ax.set_ylabel(f"y on the sample ({units})")
    if maps.length_units == "um":
        ax.add_artist(ScaleBar(1.0, "um", location="lower right", box_alpha=0.7, scale_loc="top"))
    return drawn


def _title(maps: MapSet) -> str:
    taken = "" if maps.frames == maps.points else f"  ({maps.frames} of {maps.points} points)"
    return f"{maps.sample or 'sample'}: {maps.title}{taken}"


def panel_shape(maps: OnLayer, width: float) -> tuple[float, float]:
    """Return a figure size whose map panel has about the shape of the field of view."""
    corners = np.array([maps.affine[:2] @ (a, b, 1.0) for a in maps.x[[0, -1]] for b in maps.y[[0, -1]]])
    extent = np.ptp(corners, axis=0)
    ratio = float(np.clip(extent[1] / extent[0], 0.25, 2.5)) if extent.min() > 0.0 else 1.0
    # the colour key needs its height also beside a flat map
    return width, max(0.6 * width * ratio + 1.2, 2.7)


def plot_mosaicity(maps: MapSet, path: Path) -> None:
    """Draw where the lattice points to: two tilts by one colour with its key, or one by a colour scale.

    In the frame of the sample; pixels that are not valid are black. Of a scan of more than two axes the two fastest
    that tilt are drawn.

    Parameters
    ----------
    maps : MapSet
        What to draw.
    path : Path
        PNG to write.

    Raises
    ------
    RecordError
        When it cannot be written.
    """
    figure = new_figure(*panel_shape(maps, 8.0))
    figure.suptitle(_title(maps), fontsize=9)
    dark = "" if maps.valid.any() else "no pixel stands out of the noise"
    if len(maps.axes) == 1:
        axis = maps.axes[0]
        ax = figure.add_subplot()
        ax.set_facecolor("black")
        low, high = _range(axis, maps.valid)
        image = np.where(maps.valid, axis.com, np.nan)
        drawn = draw(maps, ax, image, cmap="viridis", vmin=low, vmax=high)
        figure.colorbar(drawn, ax=ax, label=f"centre of mass, {_label(axis)}")
    else:
        first, second = maps.axes[-2:]
        ax, key = figure.subplots(1, 2, width_ratios=(3.2, 1.0))
        ranges = [_range(axis, maps.valid) for axis in (first, second)]
        image = mosaicity_rgb(np.where(maps.valid, first.com, np.nan), np.where(maps.valid, second.com, np.nan), ranges)
        ax.set_facecolor("black")
        draw(maps, ax, image)
        draw_key(key, (_label(first), _label(second)), ranges)
    ax.text(0.5, 0.5, dark, color="white", ha="center", va="center", transform=ax.transAxes)
    save_figure(figure, path)


def draw_key(ax: Axes, labels: tuple[str, str], ranges: Sequence[tuple[float, float]]) -> None:
    """Draw which colour of `mosaicity_rgb` stands for which pair of tilts.

    Parameters
    ----------
    ax : Axes
        Where.
    labels : tuple of str
        What goes right and what goes up, with units.
    ranges : sequence of two tuples
        Lowest and highest of each.
    """
    grid = np.meshgrid(*(np.linspace(low, high, 128) for low, high in ranges), indexing="ij")
    ax.imshow(
        np.swapaxes(mosaicity_rgb(grid[0], grid[1], ranges), 0, 1),
        origin="lower",
        extent=(*ranges[0], *ranges[1]),
        aspect="auto",
    )
    ax.set_box_aspect(1.0)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.set_title("colour key", fontsize=9)
    ax.tick_params(axis="x", rotation=45)


_DRAWN = ("strain", "relative_contrast", "tilt_rock", "tilt_roll")


def plot_components(maps: MapSet, path: Path) -> None:
    """Draw strain and tilts, or the relative contrast of a one-dimensional scan, each beside its predicted error.

    Colours diverge from white at zero, symmetrically to the 99.5th percentile of the magnitudes; in the frame of the
    sample; pixels that are not valid are grey.

    Parameters
    ----------
    maps : MapSet
        What to draw.
    path : Path
        PNG to write.

    Raises
    ------
    ParameterError
        When the scan tells none of them.
    RecordError
        When it cannot be written.
    """
    drawn = [maps.components[name] for name in _DRAWN if name in maps.components]
    if not drawn:
        raise ParameterError("the maps have neither strain nor tilts to draw")
    width, height = panel_shape(maps, 5.0)
    figure = new_figure(2.2 * width, len(drawn) * height)
    figure.suptitle(_title(maps), fontsize=9)
    for row, component in zip(figure.subplots(len(drawn), 2, squeeze=False), drawn, strict=True):
        units = f" ({component.units})" if component.units else ""
        shown = np.abs(component.values[np.isfinite(component.values)])
        limit = float(np.percentile(shown, _PERCENTILES[1])) if shown.size else 0.0
        limit = limit if limit > 0.0 else 1.0
        of_error = component.error[np.isfinite(component.error)]
        top = float(np.percentile(of_error, _PERCENTILES[1])) if of_error.size else 1.0
        for ax, values, title, options in (
            (row[0], component.values, component.label, {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}),
            (row[1], component.error, "predicted error", {"cmap": "viridis", "vmin": 0.0, "vmax": top}),
        ):
            ax.set_facecolor("0.6")
            image = draw(maps, ax, values, **options)
            ax.set_title("\n".join(wrap(title, 46)), fontsize=9)
            bar = figure.colorbar(image, ax=ax, label=f"{component.name}{units}")
            bar.formatter.set_powerlimits((-3, 3))  # type: ignore[attr-defined]
    save_figure(figure, path)


def plot_distribution(maps: MapSet, path: Path) -> None:
    """Draw the orientation distribution: the intensity of the whole detector over the scan.

    Of a scan of three axes the slowest is summed over.

    Parameters
    ----------
    maps : MapSet
        What to draw.
    path : Path
        PNG to write.

    Raises
    ------
    RecordError
        When it cannot be written.
    """
    figure = new_figure(6.0, 5.0)
    figure.suptitle(_title(maps), fontsize=9)
    ax = figure.add_subplot()
    positions, intensity = maps.distribution.positions, maps.distribution.intensity
    axes = maps.axes[: len(positions)]
    if intensity.ndim == 1:
        ax.plot(positions[0], intensity, "o-", markersize=3)
        ax.set_xlabel(_label(axes[0]))
        ax.set_ylabel("intensity of the detector (ADU)")
    else:
        while intensity.ndim > 2:
            intensity, positions, axes = np.nansum(intensity, axis=0), positions[1:], axes[1:]
        drawn = ax.pcolormesh(positions[0], positions[1], intensity.T, shading="nearest", cmap="magma")
        ax.set_xlabel(_label(axes[0]))
        ax.set_ylabel(_label(axes[1]))
        figure.colorbar(drawn, ax=ax, label="intensity of the detector (ADU)")
    save_figure(figure, path)


def plot_histograms(maps: MapSet, path: Path) -> None:
    """Draw how many pixels have which centre of mass and which width, per axis, and which misorientation.

    Parameters
    ----------
    maps : MapSet
        What to draw.
    path : Path
        PNG to write.

    Raises
    ------
    RecordError
        When it cannot be written.
    """
    panels: list[tuple[str, NDArray]] = []
    for axis in maps.axes:
        panels.append((f"centre of mass, {_label(axis)}", axis.com))
        panels.append((f"FWHM, {_label(axis)}", axis.fwhm))
    panels.append(("KAM (deg)", maps.kam))
    panels.append(("integrated intensity (ADU)", maps.integrated))
    rows = (len(panels) + 1) // 2
    figure = new_figure(8.0, 2.4 * rows + 0.4)
    figure.suptitle(_title(maps), fontsize=9)
    grid = np.atleast_1d(figure.subplots(rows, 2)).ravel()
    for ax, (label, values) in zip(grid, panels, strict=False):
        shown = values[maps.valid & np.isfinite(values)]
        if shown.size:
            low, high = np.percentile(shown, _PERCENTILES)
            ax.hist(shown, bins=100, range=(low, high) if high > low else None)
        ax.set_xlabel(label)
        ax.set_ylabel("pixels")
    for ax in grid[len(panels) :]:
        ax.set_visible(False)
    save_figure(figure, path)


def write_pictures(maps: MapSet, directory: Path, stem: str) -> list[Path]:
    """Draw all pictures of a set of maps and return where they are: those of maps first.

    Parameters
    ----------
    maps : MapSet
        What to draw.
    directory : Path
        Existing folder.
    stem : str
        First part of the files' names.
    """
    if not directory.is_dir():
        raise ParameterError(f"{directory} is no folder that pictures could go to")
    drawings = {"orientations": plot_distribution, "histograms": plot_histograms}
    if "relative_contrast" in maps.components:
        drawings = {"contrast": plot_components, **drawings}
    elif "strain" in maps.components:
        drawings = {"strain": plot_components, **drawings}
    if {"strain", "relative_contrast"}.isdisjoint(maps.components) or {"tilt_rock", "tilt_roll"} <= set(
        maps.components
    ):
        drawings = {"mosaicity": plot_mosaicity, **drawings}
    written = []
    for name, draw in drawings.items():
        path = directory / f"{stem}_{name}.png"
        draw(maps, path)
        written.append(path)
    return written
