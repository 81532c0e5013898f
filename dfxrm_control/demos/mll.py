"""Annealed aluminium by two objectives: what multilayer Laue lenses change against a compound refractive lens.

The same crystal is scanned twice with the plan's own windows. The multilayer Laue lenses magnify six times as much, so
their camera reads its whole chip in bins of 4 x 4 pixels, where that of the refractive lens reads its middle
quarter: then both maps have about the same pixel on the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dfxrm_control.config import MicroscopeConfig, override
from dfxrm_control.demos.targets import Target
from dfxrm_control.errors import ConfigError
from dfxrm_control.microscope import View
from dfxrm_control.optics import MultilayerLaueLens
from dfxrm_control.reduction import MapSet, draw, draw_key, maps_from_file, mosaicity_rgb, new_figure, save_figure
from dfxrm_control.session import Session
from dfxrm_control.windows import coupling

__all__ = ["Comparison", "Row", "Through", "mll_targets", "optics_rows", "run_mll"]

CHIP_PIXELS, BINNED = 2048, 4
"""Pixels on a side of the camera's chip, and how many on a side make one in the scan with the MLL."""

SAMPLE = (
    "backend.options.sample_options.size_um=[50.0, 16.0, 10.0]",
    "backend.options.sample_options.voxel_um=[0.2, 0.03, 0.15]",
)
"""Voxels across the beam about as fine as the resolution of the MLL; as large as its field."""


@dataclass(frozen=True)
class Row:
    """One property of both objectives.

    Attributes
    ----------
    name, units : str
        What it is, and its unit.
    crl, mll : float
        The values.
    form : str
        How they are written.
    """

    name: str
    units: str
    crl: float
    mll: float
    form: str = ".3g"

    def cells(self) -> tuple[str, str, str]:
        """Return name and values as text."""
        name = f"{self.name} ({self.units})" if self.units else self.name
        return name, format(self.crl, self.form), format(self.mll, self.form)


@dataclass(frozen=True)
class Through:
    """One scan through one objective.

    Attributes
    ----------
    view : View
        The microscope in the middle of the scan.
    maps : MapSet
        What came out.
    tilt_error_deg : dict of str to float
        Rms difference of the tilts of pixels far from walls from those known, by scanned axis, slow first.
    chip_px : int
        Pixels on a side of the whole chip, at the binning of this scan.
    folder : Path
        Of the run.
    """

    view: View
    maps: MapSet
    tilt_error_deg: dict[str, float]
    chip_px: int
    folder: Path


@dataclass(frozen=True)
class Comparison:
    """The demonstration's result.

    Attributes
    ----------
    crl, mll : Through
        Both scans.
    rows : tuple of Row
        What differs.
    targets : tuple of Target
        Numbers that must come out.
    picture : Path
        Both maps on one scale, and the table.
    """

    crl: Through
    mll: Through
    rows: tuple[Row, ...]
    targets: tuple[Target, ...]
    picture: Path

    @property
    def met(self) -> bool:
        """Whether every target was reached."""
        return all(target.met for target in self.targets)

    def lines(self) -> list[str]:
        """Return the table and the targets."""
        cells = [("", "CRL", "MLL"), *(row.cells() for row in self.rows)]
        width = max(len(name) for name, _, _ in cells)
        said = [f"{name:<{width}}  {crl:>10}  {mll:>10}" for name, crl, mll in cells]
        return [*said, *(target.line() for target in self.targets), f"picture: {self.picture}"]


def optics_rows(crl: View, mll: View, chips_px: tuple[int, int]) -> tuple[Row, ...]:
    """Return what two objectives differ in, as the microscope's model says.

    Parameters
    ----------
    crl, mll : View
        The microscope with either, in focus.
    chips_px : tuple of int
        Pixels on a side of the whole chip with either.
    """
    views = (crl, mll)

    def row(name: str, units: str, values: Sequence[float], form: str = ".3g") -> Row:
        return Row(name, units, values[0], values[1], form)

    blurs = [view.blur("h") for view in views]
    sines = [math.sin(math.radians(view.two_theta_deg)) for view in views]
    layer = [
        view.instrument.beam.line_height_um / math.tan(math.radians(view.two_theta_deg)) if view.positions else 0.0
        for view in views
    ]
    fields = [(chip * view.pixel_y_um, chip * view.pixel_x_um) for view, chip in zip(views, chips_px, strict=True)]
    resolutions = [_resolution(view) for view in views]
    widths = [view.instrument_fwhm(("phi", "chi")) for view in views]
    return (
        row("resolution across: diffraction", "nm, FWHM", [1e3 * blur.diffraction_um for blur in blurs]),
        row("  sampling by the pixel", "nm, FWHM", [1e3 * blur.sampling_um for blur in blurs]),
        row("  defocus in the middle of the field", "nm, FWHM", [1e3 * blur.defocus_um for blur in blurs], ".2f"),
        row("  aberration of the lens", "nm, FWHM", [1e3 * blur.aberration_um for blur in blurs]),
        row("  together", "nm, FWHM", [1e3 * blur.total_um for blur in blurs]),
        row(
            "resolution along the beam, by the optics",
            "nm, FWHM",
            [1e3 * view.blur("v").total_um / sine for view, sine in zip(views, sines, strict=True)],
        ),
        row("  by the thickness of the layer", "nm, FWHM", [1e3 * width for width in layer], ".0f"),
        row("transmission", "%", [1e2 * view.transmission for view in views]),
        row("magnification", "", [view.magnification_v for view in views], ".1f"),
        row("pixel across", "nm", [1e3 * view.pixel_y_um for view in views]),
        row("field of the whole chip across", "um", [across for across, _ in fields]),
        row("field of the whole chip along the beam", "um", [along for _, along in fields]),
        row("in focus along the beam, either way", "um", [view.in_focus_half_length_um for view in views]),
        row("free space from sample to lens", "mm", [view.d1_mm for view in views], ".1f"),
        row("acceptance, either way", "mrad", [500.0 * view.acceptance("v").fwhm_rad for view in views]),
        row("rock resolution in the scan", "deg, FWHM", [width["phi"] for width in widths], ".4f"),
        row("roll resolution in the scan", "deg, FWHM", [width["chi"] for width in widths]),
        row("strain resolution", "rms", [float(found[2]) for found in resolutions], ".2e"),
        row("false rock of a strain at fixed 2theta", "mdeg per 1e-4", [_false_rock(view) for view in views], ".2f"),
    )


def _false_rock(view: View) -> float:
    if view.resolution is None:
        return math.nan
    return 0.1 * math.degrees(coupling(view.resolution, view.jacobian(("phi", "chi")))["tilt_rad_per_strain"])


def _resolution(view: View) -> NDArray[np.float64]:
    if view.resolution is None:
        raise ConfigError(f"camera {view.camera!r} has no objective before it, so there is nothing to compare")
    return np.asarray(view.resolution.marginal_rad)


def mll_targets(crl: View, mll: View, chip_px: int) -> tuple[Target, ...]:
    """Return the numbers that the optics of this demonstration must have.

    Of lenses with outermost zones of 25 nm and f = 50 mm at 17 keV, and of the lens of Poulsen et al. 2017; textbook
    laws of zone plates, and the resolution function of Poulsen et al. 2017.

    Parameters
    ----------
    crl, mll : View
        The microscope with either.
    chip_px : int
        Pixels on a side of the whole chip with the MLL.

    Raises
    ------
    ConfigError
        When the second is no MLL.
    """
    lens = mll.objective
    if not isinstance(lens, MultilayerLaueLens):
        raise ConfigError(f"objective {mll.objective_name!r} of the second configuration is no MLL")
    roll = mll.instrument_fwhm(("phi", "chi"))["chi"]
    return (
        Target("MLL, outermost zone", lens.outermost_zone_nm, 25.0, 0.0, "nm"),
        Target("MLL, numerical aperture", 1e3 * lens.numerical_aperture(mll.energy_kev), 1.46, 0.01, "mrad"),
        Target("MLL, diffraction", 1e3 * mll.blur("v").diffraction_um, 22.0, 1.0, "nm"),
        Target("MLL, magnification", mll.magnification_v, 103.0, 1.0),
        Target("MLL, field across", chip_px * mll.pixel_y_um, 13.0, 0.5, "um"),
        Target("MLL, field along the beam", chip_px * mll.pixel_x_um, 42.0, 0.5, "um"),
        Target("MLL, in focus along the beam, either way", mll.in_focus_half_length_um, 9.0, 0.5, "um"),
        Target("MLL, roll resolution", roll, 0.365, 0.01, "deg"),
        Target("MLL, strain resolution", float(_resolution(mll)[2]), 2.8e-3, 1e-4),
        Target("MLL, transmission", 1e2 * mll.transmission, 60.0, 0.5, "%"),
        Target("CRL, transmission over its physical aperture", 1e2 * crl.transmission, 14.0, 1.0, "%"),
    )


def run_mll(crl: MicroscopeConfig, mll: MicroscopeConfig, *, quiet: bool = False) -> Comparison:
    """Scan the same crystal through both objectives and compare.

    Parameters
    ----------
    crl, mll : MicroscopeConfig
        Twins with either.
    quiet : bool
        No table and no progress bar.

    Raises
    ------
    ConfigError
        When a configuration is no twin that knows its sub-grains, or the second has no MLL.
    RunError
        When a scan fails.
    """
    camera = mll.scan.camera
    binned = f"instrument.cameras.{camera}.pixel_um={BINNED * mll.instrument.cameras[camera].pixel_um}"
    first = _scan(override(crl, SAMPLE), CHIP_PIXELS, quiet)
    second = _scan(override(mll, (*SAMPLE, binned)), CHIP_PIXELS // BINNED, quiet)
    rows = (
        *optics_rows(first.view, second.view, (first.chip_px, second.chip_px)),
        *(
            Row(
                f"error of a pixel's tilt by {name}, far from walls",
                "mdeg, rms",
                1e3 * first.tilt_error_deg[name],
                1e3 * second.tilt_error_deg[name],
            )
            for name in first.tilt_error_deg
        ),
    )
    picture = second.folder / "maps" / "crl_and_mll.png"
    picture.parent.mkdir(exist_ok=True)
    found = Comparison(first, second, rows, mll_targets(first.view, second.view, second.chip_px), picture)
    _draw(found)
    return found


def _scan(config: MicroscopeConfig, chip_px: int, quiet: bool) -> Through:
    with Session(config, maps=False, quiet=quiet) as session:
        twin: Any = session.backend
        if not hasattr(twin, "known_domains"):
            raise ConfigError(f"configuration {config.name!r} is no twin, so there is no truth to compare with")
        view = twin.view(config.scan.camera)
        domains = twin.known_domains(config.scan.camera)
        outcome = session.run("mosaicity_scan", {})
        maps = maps_from_file(outcome.master)
        return Through(view, maps, _tilt_errors(twin.sample, domains, maps, view), chip_px, outcome.folder)


def _tilt_errors(sample: Any, domains: NDArray[np.int64], maps: MapSet, view: View) -> dict[str, float]:
    """Return the rms difference of each tilt from the known one, on pixels that no wall is blurred into."""
    layer = view.instrument.beam.line_height_um / math.tan(math.radians(view.two_theta_deg))
    sizes = [
        2 * math.ceil(width / step) + 1 for width, step in ((1.25 * layer, view.pixel_x_um), (0.5, view.pixel_y_um))
    ]
    low, high = (each(domains, sizes, mode="nearest") for each in (ndimage.minimum_filter, ndimage.maximum_filter))
    clear = maps.valid & (low == high) & (domains >= 0)
    table = np.zeros((int(domains.max()) + 1, 3))
    for name in np.unique(domains[clear]):
        table[name] = sample.tilt_deg[sample.domain == name].mean(axis=0)
    errors = {}
    for axis, axis_name in enumerate((maps.axes[0].name, maps.axes[1].name)):
        off = maps.tilt(axis_name) - table[np.maximum(domains, 0), axis]
        here = off[clear]
        # both count from a reference of their own
        errors[axis_name] = float(np.std(here[np.isfinite(here)]))
    return errors


def _draw(found: Comparison) -> None:
    """Draw both maps on the same scale and colours, and the table below."""
    figure = new_figure(11.0, 7.2)
    figure.suptitle(
        "annealed aluminium 111 at 17 keV: compound refractive lens and multilayer Laue lenses", fontsize=10
    )
    grid = figure.add_gridspec(2, 1, height_ratios=(1.0, 2.0))
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    *panels, key = top.subplots(1, 3, width_ratios=(1.0, 1.0, 0.3))
    ranges = None
    for ax, name, through in zip(panels, ("CRL", "MLL"), (found.crl, found.mll), strict=True):
        maps = through.maps
        tilts = [maps.tilt(axis.name) for axis in maps.axes]
        # relative to the same crystal: what both see
        seen = (np.abs(maps.x)[:, np.newaxis] < 15.0) & (np.abs(maps.y) < 5.0) & maps.valid
        tilts = [np.where(maps.valid, tilt - np.nanmedian(tilt[seen]), np.nan) for tilt in tilts]
        if ranges is None:
            ranges = [(float(low), float(high)) for low, high in (np.nanpercentile(tilt, (1, 99)) for tilt in tilts)]
        ax.set_facecolor("0.35")
        draw(maps, ax, mosaicity_rgb(tilts[0], tilts[1], ranges))
        strip = through.view.in_focus_half_length_um
        if strip < 30.0:
            for edge in (-strip, strip):
                ax.axvline(edge, color="black", linestyle="--", linewidth=1.0)
        ax.set_xlim(-26.0, 26.0)
        ax.set_ylim(-9.0, 9.0)
        note = f", in focus within ±{strip:.0f} µm (dashed)" if strip < 30.0 else ""
        ax.set_title(f"{name}: M = {through.view.magnification_v:.1f}{note}", fontsize=9)
    if ranges is not None:
        first, second = (axis.name for axis in found.crl.maps.axes)
        draw_key(key, (f"tilt by {first} (deg)", f"tilt by {second} (deg)"), ranges)
    table = bottom.subplots()
    table.axis("off")
    drawn = table.table(
        cellText=[row.cells() for row in found.rows],
        colLabels=("", "CRL", "MLL"),
        colWidths=(0.5, 0.15, 0.15),
        loc="center",
        cellLoc="right",
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    save_figure(figure, found.picture)
