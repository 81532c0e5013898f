"""Crystals with known tilts seen by a camera with known noise, and records of scans of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dfxrm_control.records import FrameWriter, Journal
from dfxrm_control.records.master import write_master

GAIN, READ_VARIANCE, OFFSET = 2.14, 9.05, 106.0
SHAPE = (28, 44)
TWO_THETA = np.radians(17.946)
POSITIONS = {
    "mainx": -5000.0,
    "obx": 276.63 * float(np.cos(TWO_THETA)),
    "oby": 0.0,
    "obz": 276.63 * float(np.sin(TWO_THETA)),
    "obpitch": 17.946,
    "obyaw": 0.0,
    "ffz": 5000.0 * float(np.tan(TWO_THETA)),
    "ffy": 0.0,
    "ccmth": 6.679671,
    "mu": 8.97,
    "omega": 0.0,
    "chi": 0.0,
    "phi": 0.0,
    "samx": 0.0,
    "samy": 0.0,
    "samz": 0.0,
}


def instrument(shape: tuple[int, ...] = SHAPE, flips: tuple[bool, bool] = (False, False)) -> dict[str, Any]:
    """Return the description of a microscope with a camera of so many pixels."""
    return {
        "beam": {"energy_kev": 17.0},
        "objectives": {
            "crl": {"kind": "crl", "lenslets": 69, "radius_mm": 0.05, "pitch_mm": 1.6, "distance_mm": 276.63}
        },
        "cameras": {"far_field": {"rows": shape[0], "columns": shape[1], "flip_ud": flips[0], "flip_lr": flips[1]}},
        "motor_names": {"far_field": "pco_ff"},
    }


def camera(frames: NDArray, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return what a camera makes of expected counts above its offset."""
    noisy = GAIN * rng.poisson(frames / GAIN) + OFFSET + rng.normal(0.0, np.sqrt(READ_VARIANCE), frames.shape)
    return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16)


def mesh(*axes: NDArray, snake: bool = False) -> NDArray[np.float64]:
    """Return the points of a mesh, slow first, shape (points, axes)."""
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    if snake and len(axes) == 2:
        grid[1::2] = grid[1::2, ::-1]
    return grid.reshape(-1, len(axes))


def peaks(points: NDArray, centers: NDArray, sigma: NDArray, height: float | NDArray) -> NDArray[np.float64]:
    """Return Gaussian rocking curves: points (n, axes), centers (axes, rows, columns) -> (n, rows, columns)."""
    s = np.asarray(sigma, dtype=float).reshape(1, -1, 1, 1)
    return height * np.exp(-0.5 * (((points[:, :, None, None] - centers[None]) / s) ** 2).sum(axis=1))


@dataclass
class Recording:
    """A mesh scan of two axes that is written as our record: journal, frame files, master.

    The documents come one by one from `documents`, frames being written before they are announced.
    """

    folder: Path
    frames: NDArray[np.uint16]
    points: NDArray[np.float64]
    num: tuple[int, int]
    monitor: NDArray[np.float64] | None = None
    darks: tuple[NDArray[np.uint16], NDArray[np.uint16]] | None = None
    positions: dict[str, float] = field(default_factory=dict)
    flips: tuple[bool, bool] = (False, False)
    stop_after: int | None = None
    axes: tuple[str, str] = ("chi", "phi")

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal_path = self.folder / "run.jsonl"
        self.master_path = self.folder / "al_00007.h5"
        self._files = 0
        self._taken = 0

    def start(self) -> dict[str, Any]:
        """Return the start document."""
        axes = []
        for column, (name, num) in enumerate(zip(self.axes, self.num, strict=True)):
            values = np.unique(self.points[:, column])
            step = (values[-1] - values[0]) / (num - 1)
            axes.append({"name": name, "start": float(values[0]), "step": float(step), "num": num})
        return {
            "uid": "start",
            "time": 1.0,
            "scan_id": 7,
            "plan_name": "mosaicity_scan",
            "sample": "al",
            "shape": list(self.num),
            "num_points": int(np.prod(self.num)),
            "dfxrm": {
                "schema": 1,
                "instrument": instrument(self.frames.shape[1:], self.flips),
                "scan_axes": axes,
                "line_length": self.num[1],
                "exposure_s": 0.25,
                "camera": "far_field",
                "title": f"fscan2d {' '.join(self.axes)}",
                "sample": {"name": "al", "lattice": [4.0495, 4.0495, 4.0495, 90.0, 90.0, 90.0], "hkl": [1, 1, 1]},
            },
        }

    def _descriptor(self, name: str, keys: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "descriptor", {"uid": name, "name": name, "run_start": "start", "time": 1.0, "data_keys": keys}

    def _stack(self, frames: NDArray, stream: str, first: int, events: list[dict[str, Any]]) -> Iterator[Any]:
        path = self.folder / "scan0001" / f"far_field_{self._files:04d}.h5"
        path.parent.mkdir(exist_ok=True)
        resource = f"file{self._files}"
        self._files += 1
        with FrameWriter(path, frames.shape[1:], np.uint16) as writer:
            for place, frame in enumerate(frames):
                writer.append(frame)
                if not place:
                    parameters = {"dataset": "/entry/data/data", "first_index": self._taken}
                    uri = f"file://localhost{path.absolute()}"
                    common = {"data_key": "far_field", "mimetype": "application/x-hdf5", "run_start": "start"}
                    yield "stream_resource", {"uid": resource, "uri": uri, "parameters": parameters, **common}
                number = first + place + 1
                yield (
                    "stream_datum",
                    {
                        "uid": f"{resource}/{place}",
                        "stream_resource": resource,
                        "descriptor": stream,
                        "indices": {"start": self._taken, "stop": self._taken + 1},
                        "seq_nums": {"start": number, "stop": number + 1},
                    },
                )
                self._taken += 1
                yield (
                    "event",
                    {
                        "uid": f"{stream}{number}",
                        "time": 2.0 + number,
                        "seq_num": number,
                        "descriptor": stream,
                        "data": events[place],
                        "timestamps": {},
                    },
                )

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the documents of the run."""
        yield "start", self.start()
        deg = {"dtype": "number", "shape": [], "source": "", "units": "deg"}
        image = {
            "dtype": "array",
            "dtype_numpy": "<u2",
            "shape": [1, *self.frames.shape[1:]],
            "source": "",
            "external": "STREAM:",
        }
        baseline = {key: at for key, at in {**POSITIONS, **self.positions}.items() if key not in self.axes}
        keys = {
            name: {**deg, "units": "mm" if name[:3] in ("obx", "mai", "ffz", "sam") else "deg"} for name in baseline
        }
        yield self._descriptor("baseline", keys)
        before = {"uid": "b1", "time": 1.5, "seq_num": 1, "descriptor": "baseline", "data": baseline, "timestamps": {}}
        yield "event", before
        number = {"dtype": "number", "shape": [], "source": ""}
        if self.darks is not None and len(self.darks[0]):
            yield self._descriptor("darks_before", {"far_field": image})
            yield from self._stack(self.darks[0], "darks_before", 0, [{}] * len(self.darks[0]))
        primary = {key: deg for axis in self.axes for key in (axis, f"{axis}_setpoint")} | {"far_field": image}
        yield self._descriptor("primary", primary | ({"monitor": number} if self.monitor is not None else {}))
        count = len(self.points) if self.stop_after is None else self.stop_after
        for line in range(0, count, self.num[1]):
            part = slice(line, min(line + self.num[1], count))
            events = [
                {
                    key: float(where)
                    for axis, where in zip(self.axes, point, strict=True)
                    for key in (axis, f"{axis}_setpoint")
                }
                for point in self.points[part]
            ]
            if self.monitor is not None:
                events = [{**e, "monitor": float(m)} for e, m in zip(events, self.monitor[part], strict=True)]
            yield from self._stack(self.frames[part], "primary", line, events)
        if self.darks is not None and len(self.darks[1]):
            yield self._descriptor("darks_after", {"far_field": image})
            yield from self._stack(self.darks[1], "darks_after", 0, [{}] * len(self.darks[1]))
        status = "success" if self.stop_after is None else "abort"
        yield "stop", {"uid": "stop", "time": 999.0, "run_start": "start", "exit_status": status, "num_events": {}}

    def write(self) -> Path:
        """Write journal, frames and master; return the master."""
        journal = Journal(self.journal_path)
        for name, doc in self.documents():
            journal(name, doc)
        write_master(self.journal_path, self.master_path)
        return self.master_path


def bliss_file(path: Path, title: str, frames: NDArray, motors: dict[str, NDArray], **scalars: float) -> Path:
    """Write a scan as another program would: no word of what the instrument was."""
    with h5py.File(path, "a") as file:
        name = f"{len(file) + 1}.1"
        entry = file.create_group(name)
        entry["title"] = title
        entry["instrument/pco_ff/image"] = frames
        for motor, values in motors.items():
            entry[f"instrument/positioners/{motor}"] = values
        for motor, value in scalars.items():
            entry[f"instrument/positioners/{motor}"] = value
    return path


def settings_of(path: Path) -> dict[str, Any]:
    """Return how maps in a file were made."""
    with h5py.File(path, "r") as file:
        return json.loads(file["entry/process/settings_json"].asstr()[()])
