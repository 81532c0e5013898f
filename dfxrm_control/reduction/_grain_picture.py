"""A picture of a reconstructed grain: three slices through its middle."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dfxrm_control.errors import RecordError
from dfxrm_control.reduction.layers import Volume

__all__ = ["plot_grain"]


def plot_grain(grain: Volume, path: Path) -> Path:
    """Draw the density on three planes through the centre of the grain, with its outline.

    Parameters
    ----------
    grain : Volume
        With ``density`` and ``grain``.
    path : Path
        PNG file; one that is there is replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RecordError
        When it cannot be written.
    """
    density, mask = grain.fields["density"], grain.fields["grain"].astype(bool)
    inside = np.argwhere(mask)
    centre = inside.mean(axis=0).round().astype(int) if len(inside) else np.array(mask.shape) // 2
    axes = (grain.x, grain.y, grain.z)
    figure = Figure(figsize=(12.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    images = []
    for across, up, through in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        plot = figure.add_subplot(1, 3, through + 1)
        cut = density.take(centre[through], axis=through)
        outline = mask.take(centre[through], axis=through)
        extent = (axes[across][0], axes[across][-1], axes[up][0], axes[up][-1])
        images.append(plot.imshow(cut.T, origin="lower", extent=extent, cmap="gray", vmin=0.0, vmax=1.2))
        if outline.any() and not outline.all():
            plot.contour(axes[across], axes[up], outline.T.astype(float), [0.5], colors="tab:orange", linewidths=1.0)
        plot.set_xlabel(f"{'xyz'[across]} (um)")
        plot.set_ylabel(f"{'xyz'[up]} (um)")
        plot.set_title(f"{'xyz'[through]} = {axes[through][centre[through]]:.3g} um")
    figure.colorbar(images[0], ax=figure.axes, label="density (1 inside)", shrink=0.8)
    step = [float(axis[1] - axis[0]) if len(axis) > 1 else 0.0 for axis in axes]
    size = mask.sum() * np.prod(step)
    figure.suptitle(f"{grain.sample}: grain of {size:.4g} um³, voxel {step[0]:.3g} um")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=120)
        temporary.replace(path)
    except OSError as error:
        raise RecordError(f"picture {path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
