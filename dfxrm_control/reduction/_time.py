"""A series in time: its maps as a stack over time and temperature, the drift of the sample, the Bragg angle, a movie.

All maps are brought onto the grid of the first: by their positions on the illuminated layer, since magnification and
2theta change with temperature, and by the drift of the sample. The drift is measured from one map to the next by phase
correlation (`dfxrm_control.alignment.image_shift`) of the tilts, whose walls are seen also where the crystal fills the
field; of the intensity, which also shows lens and beam, only where no tilt has a pattern. From map to map, because a
sample that changes looks like its last state more than like its first.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from matplotlib.animation import PillowWriter
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from dfxrm_control.alignment import image_shift
from dfxrm_control.errors import ParameterError, RecordError
from dfxrm_control.reduction._maps import MapSet, counted_from, maps_from_file
from dfxrm_control.reduction._pictures import mosaicity_rgb, new_figure, save_figure
from dfxrm_control.reduction.series import Series, SeriesWarning

__all__ = ["Drift", "MapMovie", "expansion_of", "measure_drift", "reduce_time", "stack_in_time"]

LEAST_AGREEMENT = 0.3
"""Correlation of two maps below which nobody can say how one lies over the other."""
LARGEST_ERROR_PX = 2.0
"""Error of a shift, in pixels, above which it is no measurement."""
MOST_REGISTRATIONS = 6
SMALLEST_SHIFT_PX = 0.05
FRAMES_PER_S = 2
INTENSITY = "integrated"
_PERCENTILES = (1.0, 99.0)
_PEAK_UNITS = {
    "time_s": "s",
    "temperature": "degC",
    "two_theta": "deg",
    "error": "deg",
    "theta_b": "deg",
    "rock": "deg",
}


@dataclass(frozen=True)
class Drift:
    """Where the sample of one map lies against that of the first.

    Attributes
    ----------
    x_um, y_um : float
        Displacement along the beam and across, um; that of the map before where it could not be measured.
    error_um : float
        Standard error, um; NaN where it could not be measured.
    seen_in : str
        The map it was measured on; empty where it could not be measured.
    """

    x_um: float
    y_um: float
    error_um: float
    seen_in: str


@dataclass(frozen=True)
class MapMovie:
    """Maps of a series as ``field[it, ix, iy]`` on the grid of the first, the drift taken off.

    Attributes
    ----------
    fields : dict of ndarray, shape (nt, nx, ny)
        By name, as those of a volume of layers; NaN (``valid``: False) where a map does not reach.
    units : dict of str
        Unit of each.
    x, y : ndarray
        Positions on the layer, um.
    time_s : ndarray, shape (nt,)
        When each scan began, since the series did, s.
    temperature : ndarray, shape (nt,)
        At the begin of each scan, degC; NaN without a furnace.
    drift : tuple of Drift
        Of each map.
    peaks : tuple of dict
        Each place of the Bragg peak that was found, as the plan noted it.
    axes : tuple of str
        The scanned axes, slow first.
    sample : str
        Name of the sample.
    sources : tuple of str
        Record of each map.
    labels : dict of str
        Of the components: what each is, and what it is counted from, which is one reference for all scans.
    """

    fields: dict[str, NDArray]
    units: dict[str, str]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    time_s: NDArray[np.float64]
    temperature: NDArray[np.float64]
    drift: tuple[Drift, ...]
    peaks: tuple[dict[str, Any], ...]
    axes: tuple[str, ...]
    sample: str
    sources: tuple[str, ...]
    labels: dict[str, str]


def measure_drift(maps: Sequence[MapSet]) -> tuple[Drift, ...]:
    """Return where the sample of each map lies against that of the first.

    Parameters
    ----------
    maps : sequence of MapSet
        Of one field, in order of time.
    """
    x, y = maps[0].x, maps[0].y
    drifts = [Drift(0.0, 0.0, 0.0, "")]
    for before, now in pairwise(maps):
        last = drifts[-1]
        reference = _looks(before, x + last.x_um, y + last.y_um)
        found = [_register(reference[name], now, name, x, y, last) for name in reference]
        known = [each for each in found if each is not None]
        lost = Drift(last.x_um, last.y_um, math.nan, "")
        drifts.append(min(known, key=lambda each: (each.seen_in == INTENSITY, each.error_um), default=lost))
    return tuple(drifts)


def _register(reference: NDArray, maps: MapSet, name: str, x: NDArray, y: NDArray, last: Drift) -> Drift | None:
    """Return where a map lies by one of its pictures; None where that cannot be told.

    The picture is moved by what was found and compared again, since the window of a correlation, which does not move,
    draws each shift towards zero.
    """
    pixel_x, pixel_y = abs(x[1] - x[0]), abs(y[1] - y[0])
    here_x, here_y = last.x_um, last.y_um
    for _ in range(MOST_REGISTRATIONS):
        now = _looks(maps, x + here_x, y + here_y).get(name)
        if now is None:
            return None
        shift = image_shift(reference, now)
        if shift.agreement < LEAST_AGREEMENT or shift.error > LARGEST_ERROR_PX:
            return None
        here_x, here_y = here_x + shift.rows * pixel_x, here_y + shift.columns * pixel_y
        if math.hypot(shift.rows, shift.columns) < SMALLEST_SHIFT_PX:
            break
    error = shift.error * math.hypot(pixel_x, pixel_y) / math.sqrt(2.0)
    so_far = 0.0 if math.isnan(last.error_um) else last.error_um
    return Drift(here_x, here_y, math.hypot(error, so_far), name)


def _looks(maps: MapSet, x: NDArray, y: NDArray) -> dict[str, NDArray]:
    """Return the pictures of a map in which its features may be seen, on a grid, without what is not a number."""
    pictures = {INTENSITY: maps.integrated, **{axis.name: axis.com for axis in maps.axes if axis.units == "deg"}}
    looks = {}
    for name, values in pictures.items():
        shown = np.where(maps.valid & np.isfinite(values), values, np.nan)
        if not np.isfinite(shown).any():
            continue
        low, middle, high = np.nanpercentile(shown, (_PERCENTILES[0], 50.0, _PERCENTILES[1]))
        filled = np.clip(np.where(np.isfinite(shown), shown, middle), low, high)
        looks[name] = _on_grid(filled - middle, maps, x, y, 0.0)
    return looks


def _on_grid(
    values: NDArray, maps: MapSet, x: NDArray, y: NDArray, outside: float, order: Literal[0, 1] = 1
) -> NDArray[np.float64]:
    """Return a map of one set at positions of the layer, shape (len(x), len(y))."""
    rows = (x - maps.x[0]) / (maps.x[-1] - maps.x[0]) * (len(maps.x) - 1)
    columns = (y - maps.y[0]) / (maps.y[-1] - maps.y[0]) * (len(maps.y) - 1)
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    return map_coordinates(np.asarray(values, float), places, order=order, mode="constant", cval=outside)


def stack_in_time(
    maps: Sequence[MapSet],
    time_s: Sequence[float],
    temperature: Sequence[float | None],
    peaks: Sequence[dict[str, Any]] = (),
) -> MapMovie:
    """Bring maps onto the grid of the first and take their drift off.

    Parameters
    ----------
    maps : sequence of MapSet
        At least one, of one sample and the same scanned axes, in order of time.
    time_s, temperature : sequence of float
        Of each map.
    peaks : sequence of dict
        Places of the Bragg peak.

    Raises
    ------
    ParameterError
        When the maps are not of one kind, or their scale is not known.
    """
    first = maps[0]
    names = tuple(axis.name for axis in first.axes)
    for each in maps:
        if each.sample != first.sample or tuple(axis.name for axis in each.axes) != names:
            raise ParameterError(
                f"the scans of a series in time must be of one sample and the same axes: {first.source} scans "
                f"{', '.join(names)} of {first.sample!r}, {each.source} {', '.join(axis.name for axis in each.axes)} "
                f"of {each.sample!r}; the maps of each scan are kept"
            )
        if each.length_units != "um" or min(each.integrated.shape) < 2:
            raise ParameterError(f"the scale of {each.source} is not known, so its maps cannot be compared with others")
    drift = measure_drift(maps)
    fields: dict[str, list[NDArray]] = {}
    units: dict[str, str] = {}
    common = set.intersection(*(set(each.components) for each in maps))
    for each, moved in zip(maps, drift, strict=True):
        x, y = first.x + moved.x_um, first.y + moved.y_um
        inside = _on_grid(each.valid, each, x, y, 0.0, order=0) > 0.5
        quantities = {"integrated": (each.integrated, "ADU"), "kam": (each.kam, "deg")}
        for axis in each.axes:
            quantities |= {f"{axis.name}_com": (axis.com, axis.units), f"{axis.name}_error": (axis.error, axis.units)}
        for name in sorted(common):
            quantities[name] = (counted_from(first, each, name), each.components[name].units)
        for name, (values, unit) in quantities.items():
            # a pixel that is beside one without a value has none: values are not invented
            fields.setdefault(name, []).append(np.where(inside, _on_grid(values, each, x, y, np.nan), np.nan))
            units[name] = unit
        fields.setdefault("valid", []).append(inside)
        fields.setdefault("saturated", []).append(inside & (_on_grid(each.saturated, each, x, y, 0.0, order=0) > 0.5))
        units["valid"] = units["saturated"] = ""
    return MapMovie(
        fields={name: np.stack(values) for name, values in fields.items()},
        units=units,
        x=first.x,
        y=first.y,
        time_s=np.asarray(time_s, float),
        temperature=np.array([math.nan if each is None else float(each) for each in temperature]),
        drift=drift,
        peaks=tuple(peaks),
        axes=names,
        sample=first.sample,
        sources=tuple(each.source for each in maps),
        labels={
            name: first.components[name].label.replace("the median", "the median of the first scan")
            for name in sorted(common)
        },
    )


def expansion_of(peaks: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """Return the linear thermal expansion coefficient and its error, 1/K, by a straight line through strain over T.

    None for fewer than two temperatures; the error is NaN for fewer than three peaks.
    """
    known = [(peak["temperature"], peak["strain"]) for peak in peaks if peak.get("temperature") is not None]
    if len({round(temperature, 1) for temperature, _ in known}) < 2:
        return None
    temperature, strain = np.array(known, float).T
    away = temperature - temperature.mean()
    slope = float(away @ strain / (away @ away))
    if len(known) < 3:
        return slope, math.nan
    left = strain - strain.mean() - slope * away
    return slope, math.sqrt(float(left @ left) / (len(known) - 2) / float(away @ away))


def reduce_time(series: Series, folder: Path) -> list[Path]:
    """Make stack, picture and movie of a series in time and return the files.

    Parameters
    ----------
    series : Series
        The runs.
    folder : Path
        Where to.

    Raises
    ------
    ParameterError
        When no scan was done, or they are not of one kind; the sentence says what is kept.
    FileFormatError
        When a master cannot be read.
    RecordError
        When a file cannot be written.
    """
    complete = series.complete
    planned = series.of or len(series.runs)
    if not complete:
        raise ParameterError(
            f"none of the {planned} scans of the series in time was done, so there is nothing to stack"
        )
    if len(complete) < planned:
        warnings.warn(
            f"{len(complete)} of {planned} scans of the series in time were done; the stack holds these",
            SeriesWarning,
            stacklevel=2,
        )
    movie = stack_in_time(
        [maps_from_file(run.master) for run in complete],
        [run.value for run in complete],
        [run.series.get("temperature") for run in complete],
        complete[-1].series.get("peaks") or (),
    )
    lost = [number + 1 for number, drift in enumerate(movie.drift) if math.isnan(drift.error_um)]
    if lost:
        warnings.warn(
            f"the drift could not be measured from scan {', '.join(map(str, lost))} of the series to the one before; "
            "it was taken to be none there",
            SeriesWarning,
            stacklevel=2,
        )
    stack, picture, film = (folder / f"{series.stem}{end}" for end in (".h5", ".png", ".gif"))
    _write(movie, stack)
    _draw_course(movie, picture)
    _draw_movie(movie, film)
    return [stack, film, picture]


def _write(movie: MapMovie, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            file.attrs["default"] = "entry"
            entry = _group(file, "entry", "NXentry")
            entry.attrs["default"] = "data"
            entry["title"] = f"{movie.sample}: maps over time"
            entry.create_dataset("sources", data=[str(source) for source in movie.sources])
            data = _group(entry, "data", "NXdata")
            data.attrs.update({"signal": f"{movie.axes[-1]}_com", "axes": ["time", "x", "y"]})
            data.attrs["time_indices"] = 0
            for name, values, unit in (
                ("time", movie.time_s, "s"),
                ("temperature", movie.temperature, "degC"),
                ("x", movie.x, "um"),
                ("y", movie.y, "um"),
                *((name, values, movie.units[name]) for name, values in movie.fields.items()),
            ):
                data.create_dataset(name, data=values).attrs["units"] = unit
                if name in movie.labels:
                    data[name].attrs["description"] = movie.labels[name]
            data.attrs["description"] = "on the grid of the first scan; the drift of the sample is taken off"
            drift = _group(entry, "drift", "NXcollection")
            for name in ("x_um", "y_um", "error_um"):
                drift[name.removesuffix("_um")] = [getattr(each, name) for each in movie.drift]
                drift[name.removesuffix("_um")].attrs["units"] = "um"
            drift.create_dataset("seen_in", data=[each.seen_in for each in movie.drift])
            _write_peaks(entry, movie)
        temporary.replace(path)
    except OSError as error:
        raise RecordError(f"stack {path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_peaks(entry: h5py.Group, movie: MapMovie) -> None:
    if not movie.peaks:
        return
    group = _group(entry, "bragg_peak", "NXdata")
    group.attrs.update({"signal": "theta_b", "axes": ["temperature"]})
    for name in movie.peaks[0]:
        values = [math.nan if peak[name] is None else float(peak[name]) for peak in movie.peaks]
        group[name.removesuffix("_s")] = values
        group[name.removesuffix("_s")].attrs["units"] = _PEAK_UNITS.get(name, "")
    expansion = expansion_of(movie.peaks)
    if expansion is not None:
        group["expansion"], group["expansion_error"] = expansion
        group["expansion"].attrs["units"] = group["expansion_error"].attrs["units"] = "1/K"


def _group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def _draw_course(movie: MapMovie, path: Path) -> None:
    """Draw what changed: temperature and Bragg angle in time, the Bragg angle over temperature, drift and KAM."""
    figure = new_figure(9.0, 6.0)
    figure.suptitle(f"{movie.sample}: {len(movie.time_s)} scans in time", fontsize=10)
    (warm, angle), (moved, rough) = figure.subplots(2, 2)
    minutes = movie.time_s / 60.0
    warm.plot(minutes, movie.temperature, "o-", color="tab:red")
    warm.set_ylabel("temperature (°C)")
    _draw_angle(movie, angle)
    for name, label in (("x_um", "along the beam"), ("y_um", "across")):
        moved.errorbar(
            minutes,
            [getattr(each, name) for each in movie.drift],
            yerr=np.nan_to_num([each.error_um for each in movie.drift]),
            fmt="o-",
            capsize=2,
            label=label,
        )
    moved.set_ylabel("drift of the sample (µm)")
    moved.legend(fontsize=8)
    rough.plot(
        minutes, [float(np.nanmedian(kam)) if np.isfinite(kam).any() else math.nan for kam in movie.fields["kam"]], "o-"
    )
    rough.set_ylabel("median KAM (deg)")
    for ax in (warm, moved, rough):
        ax.set_xlabel("time (min)")
    save_figure(figure, path)


def _draw_angle(movie: MapMovie, ax: Any) -> None:
    known = [peak for peak in movie.peaks if peak.get("temperature") is not None]
    if known:
        ax.plot([peak["temperature"] for peak in known], [peak["theta_b"] for peak in known], "o", color="tab:blue")
        ax.set_xlabel("temperature (°C)")
        expansion = expansion_of(known)
        if expansion is not None:
            ax.set_title(f"expansion {1e6 * expansion[0]:.2f} x 10⁻⁶ /K", fontsize=9)
    else:
        ax.plot([peak["time_s"] / 60.0 for peak in movie.peaks], [peak["theta_b"] for peak in movie.peaks], "o")
        ax.set_xlabel("time (min)")
    ax.set_ylabel("Bragg angle θ_B (deg)")
    ax.ticklabel_format(useOffset=False)


def _draw_movie(movie: MapMovie, path: Path) -> None:
    """Draw the tilts as a film, on the layer: each against its own median, all in the same colours."""
    tilts = [name for name in movie.axes if movie.units[f"{name}_com"] == "deg"][-2:]
    relative = []
    for name in tilts:
        com = movie.fields[f"{name}_com"]
        middle = [np.nanmedian(each) if np.isfinite(each).any() else 0.0 for each in com]
        relative.append(com - np.array(middle)[:, np.newaxis, np.newaxis])
    ranges = [_range(values) for values in relative]
    height = float(np.clip(np.ptp(movie.y) / max(np.ptp(movie.x), 1e-9), 0.25, 2.0))
    figure = new_figure(7.0, 6.0 * height + 1.0)
    ax = figure.add_subplot()
    ax.set_facecolor("black")
    ax.set_xlabel("x along the beam (µm)")
    ax.set_ylabel("y across (µm)")
    extent = (movie.x[0], movie.x[-1], movie.y[0], movie.y[-1])
    frames = [_frame([values[number] for values in relative], ranges) for number in range(len(movie.time_s))]
    options: dict[str, Any] = {"cmap": "viridis", "vmin": ranges[0][0], "vmax": ranges[0][1]} if len(tilts) == 1 else {}
    shown = ax.imshow(np.swapaxes(frames[0], 0, 1), origin="lower", extent=extent, interpolation="nearest", **options)
    if len(tilts) == 1:
        figure.colorbar(shown, ax=ax, label=f"{tilts[0]} against its median (deg)")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.gif")
    writer = PillowWriter(fps=FRAMES_PER_S)
    try:
        with writer.saving(figure, str(temporary), dpi=100):
            for number, frame in enumerate(frames):
                shown.set_data(np.swapaxes(frame, 0, 1))
                ax.set_title(_caption(movie, number, tilts, ranges), fontsize=9)
                writer.grab_frame()
        temporary.replace(path)
    except OSError as error:
        raise RecordError(f"movie {path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _frame(tilts: Sequence[NDArray], ranges: Sequence[tuple[float, float]]) -> NDArray:
    return tilts[0] if len(tilts) == 1 else mosaicity_rgb(tilts[0], tilts[1], ranges)


def _caption(movie: MapMovie, number: int, tilts: Sequence[str], ranges: Sequence[tuple[float, float]]) -> str:
    warmth = "" if math.isnan(movie.temperature[number]) else f", {movie.temperature[number]:.0f} °C"
    widths = ", ".join(
        f"{name} {1e3 * low:+.0f} .. {1e3 * high:+.0f} mdeg" for name, (low, high) in zip(tilts, ranges, strict=True)
    )
    return f"{movie.sample}, {movie.time_s[number] / 60.0:.1f} min{warmth}\n{widths}"


def _range(values: NDArray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return -1.0, 1.0
    reach = float(np.percentile(np.abs(known), _PERCENTILES[1])) or 1.0
    return -reach, reach
