"""A hand-off from a coarse map: which grains were found, how far from the prediction, and how the map lies."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.errors import DfxrmError, RecordError
from dfxrm_control.grains import read_grain_map
from dfxrm_control.handoff import (
    FOUND_AXES,
    FoundGrain,
    RegistrationFit,
    Visit,
    found_grains,
    map_fingerprint,
    register,
    visits_of,
)
from dfxrm_control.reduction.series import Series, SeriesRun, SeriesWarning

__all__ = ["fit_registration", "handoff_map", "read_visits", "reduce_handoff"]

_SCHEMA = 1


def read_visits(runs: Sequence[SeriesRun]) -> list[Visit]:
    """Return the grains that the runs of hand-offs went to, found or not, and those that were skipped.

    Parameters
    ----------
    runs : sequence of SeriesRun
        Of one plan, or of several.
    """
    visits = visits_of(
        {"series": run.series, "scan": run.scan_number, "status": run.status, "reason": _reason(run)} for run in runs
    )
    seen = {visit.grain_id for visit in visits}
    skipped = runs[-1].series.get("skipped") or [] if runs else []
    for each in skipped:
        if each["grain"] not in seen:
            h, k, m = each["hkl"]
            visits.append(Visit(int(each["grain"]), (h, k, m), "skipped", str(each["reason"])))
    return visits


def _reason(run: SeriesRun) -> str:
    """Return what a step of the search found, or how another run ended."""
    try:
        found = run.journal.streams.get("found")
        events = list(found.events.values()) if found is not None else []
    except DfxrmError:
        events = []
    if events:
        return str(events[-1]["data"].get("found_reason", ""))
    return "" if run.status == "success" else f"scan {run.scan_number}: {run.status}"


def handoff_map(runs: Sequence[SeriesRun]) -> tuple[str, str, dict[str, Any]]:
    """Return file and fingerprint of the map that runs went by, and the parameters that were needed to read it.

    Raises
    ------
    RecordError
        When they are no runs of a hand-off, or of different maps.
    """
    maps = {(run.series["map"]["source"], run.series["map"]["fingerprint"]) for run in runs if "map" in run.series}
    if len({fingerprint for _, fingerprint in maps}) != 1:
        raise RecordError(
            "these are no runs of dct_to_dfxrm or campaign" if not maps else "these runs went by different grain maps"
        )
    source, fingerprint = sorted(maps)[0]
    values = next(run for run in runs if "map" in run.series).series["parameters"]["values"]
    return source, fingerprint, {"cell": values.get("cell"), "space_group": values.get("space_group")}


def fit_registration(runs: Sequence[SeriesRun], visits: Sequence[Visit], map_file: Path | None = None) -> Any:
    """Return the map and the registration that explains best where its grains were found.

    Parameters
    ----------
    runs : sequence of SeriesRun
        What the visits are of.
    visits : sequence of Visit
        The grains.
    map_file : Path, optional
        Where the map is now; default: where it was.

    Returns
    -------
    tuple of GrainMap and RegistrationFit

    Raises
    ------
    FileFormatError
        When the map cannot be read.
    RecordError
        When it is another one than that of the runs.
    ParameterError
        For too few grains, or when they leave a rotation undetermined.
    """
    source, fingerprint, options = handoff_map(runs)
    cell = options["cell"]
    grains = read_grain_map(
        map_file or Path(source),
        cell=None if cell is None else [float(part) for part in cell.replace(",", " ").split()],
        space_group=options["space_group"],
    )
    if map_fingerprint(grains) != fingerprint:
        raise RecordError(f"{grains.source} is not the map that the runs went by; its grains are others")
    config = InstrumentConfig.model_validate(runs[0].dfxrm["instrument"])
    found: list[FoundGrain] = found_grains(visits)
    return grains, register(grains, found, mu_sign=config.mu_sign, stage=config.sample_stage)


def reduce_handoff(series: Series, folder: Path) -> list[Path]:
    """Write the report of a hand-off: ``<name>.txt``, ``<name>.json`` and ``<name>.h5``.

    Per grain: reflection, what became of it and why, the predicted and the found setting, and how far they are apart;
    and, from three grains on, the registration that explains them best.

    Raises
    ------
    RecordError
        When a file cannot be written.
    """
    visits = read_visits(series.runs)
    source, fingerprint, _ = handoff_map(series.runs)
    fit: RegistrationFit | None = None
    if len(found_grains(visits)) >= 3:
        try:
            _, fit = fit_registration(series.runs, visits)
        except DfxrmError as error:
            warnings.warn(f"no registration: {error}", SeriesWarning, stacklevel=2)
        else:
            if fit.doubt():
                warnings.warn(f"the registration is doubtful: {fit.doubt()}", SeriesWarning, stacklevel=2)
    content = {
        "schema": _SCHEMA,
        "map": {"source": source, "fingerprint": fingerprint},
        "predicted_by": series.runs[0].series.get("registration"),
        "grains": [_plain(visit.record()) for visit in visits],
        "registration": None if fit is None else _plain(_fit_record(fit)),
        "stored": series.runs[-1].series.get("stored", ""),
    }
    report, table = folder / f"{series.stem}.json", folder / f"{series.stem}.h5"
    text = folder / f"{series.stem}.txt"
    lines = [visit.line() for visit in visits]
    if fit is not None:
        lines += ["", "registration of the map by all grains that were found:", *fit.lines()]
    if content["stored"]:
        lines.append(f"stored in {content['stored']}; dfxrm register --undo goes back to the one before")
    try:
        text.write_text("\n".join(lines) + "\n", encoding="utf-8")
        report.write_text(json.dumps(content, indent=1), encoding="utf-8")
        _write_table(table, visits, source)
    except OSError as error:
        raise RecordError(f"the report in {folder} cannot be written: {error.strerror or error}") from error
    return [text, report, table]


def _fit_record(fit: RegistrationFit) -> dict[str, Any]:
    how = fit.registration
    return {
        "rotation_deg": list(how.rotation_deg),
        "rotation_error_deg": fit.rotation_error_deg.tolist(),
        "shift_mm": list(how.shift_mm),
        "shift_error_mm": fit.shift_error_mm.tolist(),
        "omega_offset_deg": how.omega_offset_deg,
        "omega_offset_known": bool(fit.omega_offset_known),
        "doubt": fit.doubt(),
        "lines": fit.lines(),
    }


def _plain(value: Any) -> Any:
    """Return values as JSON has them, in which there is no NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_table(path: Path, visits: Sequence[Visit], source: str) -> None:
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["title"] = f"grains of {source}: where they were predicted and found"
        table = entry.create_group("grains")
        table.attrs["NX_class"] = "NXcollection"
        table["grain"] = np.array([visit.grain_id for visit in visits], np.int64)
        table["hkl"] = np.array([visit.hkl for visit in visits], np.int64).reshape(-1, 3)
        table["status"] = np.array([visit.status for visit in visits], dtype=text)
        table["reason"] = np.array([visit.reason for visit in visits], dtype=text)
        left = [visit.residuals for visit in visits]
        columns = {
            "residual_rock": ([math.nan if each is None else each.rock_deg for each in left], "deg"),
            "residual_roll": ([math.nan if each is None else each.roll_deg for each in left], "deg"),
            "residual_place": ([[math.nan] * 3 if each is None else list(each.place_um) for each in left], "um"),
            "angle_error": ([visit.angle_error_deg for visit in visits], "deg"),
            "place_error": ([visit.place_error_mm for visit in visits], "mm"),
        }
        for axis in FOUND_AXES:
            units = "mm" if axis.startswith("sam") else "deg"
            columns[f"predicted_{axis}"] = ([visit.predicted.get(axis, math.nan) for visit in visits], units)
            columns[f"found_{axis}"] = ([visit.found.get(axis, math.nan) for visit in visits], units)
        for name, (values, units) in columns.items():
            table[name] = np.array(values, float)
            table[name].attrs["units"] = units
