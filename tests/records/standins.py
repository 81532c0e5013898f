"""Small devices by the bluesky protocols alone, and a mesh plan, to make real records with a real RunEngine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky import RunEngine
from event_model import DocumentNames, schema_validators
from ophyd.status import Status

from dfxrm_control.config import InstrumentConfig
from dfxrm_control.records import FrameFiles, Recorder

SHAPE = (24, 40)
INSTRUMENT = {
    "beam": {"energy_kev": 17.0},
    "objectives": {
        "crl": {"kind": "crl", "lenslets": 69, "radius_mm": 0.05, "pitch_mm": 1.6, "distance_mm": 276.63},
    },
}
SAMPLE = {"name": "al", "lattice": [4.0495] * 3 + [90.0] * 3, "space_group": "F m -3 m", "hkl": [1, 1, 1]}
OPTICS = {
    "mainx": -5000.0,
    "obx": 263.13,
    "oby": 0.0,
    "obz": 85.36,
    "obpitch": 17.9794,
    "obyaw": 0.0,
    "ffz": 1621.611,
    "ffy": 0.0,
    "ccmth": 6.679671,
    "omega": 1.5,
    "samz": 0.25,
}


ANGLES = ("obpitch", "obyaw", "ccmth", "omega")


def frame(number: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return the frame a camera delivers as its ``number``-th: never the same twice, never black."""
    return np.random.default_rng(number).integers(90, 4000, shape, dtype=np.uint16)


def done() -> Status:
    status = Status()
    status.set_finished()
    return status


class Motor:
    parent = None

    def __init__(self, name: str, position: float = 0.0, units: str = "deg", jitter: float = 0.0) -> None:
        self.name, self.units, self.jitter = name, units, jitter
        self.target = position
        self._moves = 0

    def set(self, target: float) -> Status:
        self.target = float(target)
        self._moves += 1
        return done()

    @property
    def position(self) -> float:
        return self.target + self.jitter * np.sin(7.0 * self._moves)

    def read(self) -> dict[str, Any]:
        now = time.time()
        return {
            self.name: {"value": self.position, "timestamp": now},
            f"{self.name}_setpoint": {"value": self.target, "timestamp": now},
        }

    def describe(self) -> dict[str, Any]:
        key = {"source": "standin", "dtype": "number", "shape": [], "units": self.units}
        return {self.name: dict(key), f"{self.name}_setpoint": dict(key)}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    describe_configuration = read_configuration

    @property
    def hints(self) -> dict[str, Any]:
        return {"fields": [self.name]}


class Channel:
    parent = None

    def __init__(self, name: str, value: Any, units: str = "") -> None:
        self.name, self.value, self.units = name, value, units

    def trigger(self) -> Status:
        if isinstance(self.value, float):
            self.value += 1.0
        return done()

    def read(self) -> dict[str, Any]:
        return {self.name: {"value": self.value, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        dtype = "string" if isinstance(self.value, str) else "number"
        return {self.name: {"source": "standin", "dtype": dtype, "shape": [], "units": self.units}}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    describe_configuration = read_configuration


class Camera:
    parent = None

    def __init__(
        self, name: str, recorder: Recorder, shape: tuple[int, int] = SHAPE, frames_per_file: int = 50
    ) -> None:
        self.name, self.recorder, self.shape, self.frames_per_file = name, recorder, shape, frames_per_file
        self.files: FrameFiles | None = None
        self.taken = 0

    def _open(self) -> FrameFiles:
        folder = self.recorder.frames_directory(self.name)
        if self.files is None or self.files.directory != folder:
            self.files = FrameFiles(folder, self.name, self.shape, frames_per_file=self.frames_per_file)
            self.taken = 0
        return self.files

    def stage(self) -> list[Any]:
        return [self]

    def unstage(self) -> list[Any]:
        if self.files is not None:
            self.files.end_line()
        return [self]

    def prepare(self, _: int) -> Status:
        self._open().begin_line()
        return done()

    def kickoff(self) -> Status:
        return done()

    def complete(self) -> Status:
        self._open().end_line()
        return done()

    def trigger(self) -> Status:
        files = self._open()
        self.taken += 1
        files.append(frame(self.taken - 1, self.shape))
        return done()

    def pause(self) -> None:
        if self.files is not None:
            self.files.pause()

    def resume(self) -> None:
        pass

    def read(self) -> dict[str, Any]:
        return {}

    def describe(self) -> dict[str, Any]:
        key = {"source": "standin", "dtype": "array", "dtype_numpy": "<u2", "shape": [1, *self.shape]}
        return {self.name: {**key, "external": "STREAM:"}}

    def read_configuration(self) -> dict[str, Any]:
        return {f"{self.name}_exposure": {"value": 0.5, "timestamp": time.time()}}

    def describe_configuration(self) -> dict[str, Any]:
        return {f"{self.name}_exposure": {"source": "standin", "dtype": "number", "shape": [], "units": "s"}}

    def get_index(self) -> int:
        return self.files.count if self.files is not None else 0

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        if self.files is not None:
            yield from self.files.collect_asset_docs(index)


class Beamline:
    """A recorder, a RunEngine and the stand-ins."""

    def __init__(self, folder: Path, shape: tuple[int, int] = SHAPE, motor_names: dict[str, str] | None = None) -> None:
        self.recorder = Recorder(folder / "data", folder / "journal")
        self.RE = RunEngine({"scan_id": 6}, call_returns_result=True)
        self.RE.record_interruptions = True
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.RE.subscribe(self.recorder)
        self.RE.subscribe(self._check)
        self.camera = Camera("far_field", self.recorder, shape)
        self.chi, self.phi = Motor("chi", jitter=1e-4), Motor("phi", jitter=1e-4)
        self.monitor, self.current = Channel("monitor", 1000.0, "count"), Channel("ring_current", 190.0, "mA")
        self.baseline = [Motor(name, value, "deg" if name in ANGLES else "mm") for name, value in OPTICS.items()]
        self.baseline += [Channel("shutter", "open"), Channel("attenuator", 1.0)]
        cameras = {"far_field": {"rows": shape[0], "columns": shape[1]}}
        instrument = {**INSTRUMENT, "cameras": cameras, "motor_names": motor_names or {}}
        self.instrument = InstrumentConfig.model_validate(instrument).model_dump(mode="json")

    def _check(self, name: str, doc: dict[str, Any]) -> None:
        schema_validators[DocumentNames[name]].validate(doc)
        self.documents.append((name, doc))

    @property
    def detectors(self) -> list[Any]:
        return [self.camera, self.monitor, self.current]

    def metadata(self, axes: list[dict[str, Any]], darks: int = 0) -> dict[str, Any]:
        num = [axis["num"] for axis in axes]
        return {
            "plan_name": "mosaicity_scan",
            "motors": [axis["name"] for axis in axes],
            "detectors": ["far_field"],
            "shape": num,
            "num_points": int(np.prod(num)),
            "sample": "al",
            "dfxrm": {
                "schema": 1,
                "version": "0.1.0",
                "config": "standins",
                "instrument": self.instrument,
                "sample": SAMPLE,
                "scan_axes": axes,
                "line_length": num[-1],
                "exposure_s": 0.5,
                "camera": "far_field",
                "parameters": {"model": "MosaicityScan", "version": 1, "values": {"darks": darks, "snake": True}},
            },
        }

    def mesh(
        self, slow: tuple[float, float, int], fast: tuple[float, float, int], snake: bool = True, darks: int = 0
    ) -> Any:
        """Scan chi x phi, each (start, step, num), a file per line; darks before and after."""
        axes = [
            {"name": name, "start": start, "step": step, "num": num}
            for name, (start, step, num) in (("chi", slow), ("phi", fast))
        ]
        detectors = self.detectors

        def take_darks(stream: str) -> Any:
            if darks:
                yield from bps.prepare(self.camera, darks, wait=True)
                for _ in range(darks):
                    yield from bps.trigger_and_read([self.camera, self.monitor], name=stream)
                yield from bps.complete(self.camera, wait=True)

        @bpp.baseline_decorator(self.baseline + [self.chi, self.phi])
        @bpp.stage_decorator([self.camera])
        @bpp.run_decorator(md=self.metadata(axes, darks))
        def plan() -> Any:
            yield from take_darks("darks_before")
            for i in range(slow[2]):
                yield from bps.mv(self.chi, slow[0] + i * slow[1])
                yield from bps.checkpoint()
                yield from bps.prepare(self.camera, fast[2], wait=True)
                order = range(fast[2]) if not (snake and i % 2) else reversed(range(fast[2]))
                for j in order:
                    yield from bps.checkpoint()
                    yield from bps.mv(self.phi, fast[0] + j * fast[1])
                    yield from bps.trigger_and_read([*detectors, self.chi, self.phi])
                yield from bps.checkpoint()
                yield from bps.complete(self.camera, wait=True)
            yield from take_darks("darks_after")

        return plan()
