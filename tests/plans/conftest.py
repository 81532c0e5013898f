"""Stand-in devices that follow the protocols and nothing else, and a RunEngine that validates every document."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import event_model
import pytest
from bluesky import RunEngine
from ophyd.status import Status

from dfxrm_control.acquisition import FrameBatch
from dfxrm_control.config import CameraConfig, CRLConfig, InstrumentConfig, SampleConfig, ScanDefaults
from dfxrm_control.errors import LimitError
from plans import Instrument


def finished() -> Status:
    status = Status(timeout=10)
    status.set_finished()
    return status


class StandInAxis:
    parent = None

    def __init__(self, name: str, limits: tuple[float, float] = (-30.0, 30.0), start: float = 0.0, log=None):
        self.name, self.limits = name, limits
        self.position = self.setpoint = start
        self.visited: list[float] = []
        self.log = log if log is not None else []
        self.fail_at: int | None = None

    def check_value(self, value):
        if not self.limits[0] <= value <= self.limits[1]:
            raise LimitError(f"axis {self.name}: {value:g} is outside {self.limits[0]:g} .. {self.limits[1]:g}")

    def set(self, value):
        self.check_value(value)
        if self.fail_at is not None and len(self.visited) >= self.fail_at:
            self.fail_at = None
            status = Status(timeout=10)
            status.set_exception(RuntimeError(f"axis {self.name} is in fault"))
            return status
        self.setpoint = self.position = float(value)
        self.visited.append(self.position)
        self.log.append((self.name, self.position))
        return finished()

    def read(self):
        now = time.time()
        return {
            self.name: {"value": self.position, "timestamp": now},
            f"{self.name}_setpoint": {"value": self.setpoint, "timestamp": now},
        }

    def describe(self):
        key = {"source": "test", "dtype": "number", "shape": [], "units": "deg", "precision": 4}
        return {self.name: dict(key), f"{self.name}_setpoint": dict(key)}

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}

    hints = property(lambda self: {"fields": [self.name]})


class StandInChannel:
    parent = None

    def __init__(self, name: str, value):
        self.name, self.value = name, value

    def read(self):
        return {self.name: {"value": self.value, "timestamp": time.time()}}

    def describe(self):
        return {
            self.name: {"source": "test", "dtype": "string" if isinstance(self.value, str) else "number", "shape": []}
        }

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}


class StandInShutter(StandInChannel):
    def __init__(self, name: str, log):
        super().__init__(name, "closed")
        self.log, self.was_open = log, False

    def set(self, value):
        assert value in ("open", "closed")
        self.value, self.was_open = value, False
        self.log.append(("shutter", value))
        return finished()

    def pause(self):
        self.was_open, self.value = self.was_open or self.value == "open", "closed"

    def resume(self):
        if self.was_open:
            self.value, self.was_open = "open", False


class StandInCamera:
    """Takes numbered frames into numbered files; remembers what each frame saw."""

    parent = None

    def __init__(self, name: str, shutter: StandInShutter, axes: dict[str, StandInAxis], log, exposure=0.0):
        self.name, self.shutter, self.axes, self.log, self.real_exposure_s = name, shutter, axes, log, exposure
        self.frames: list[tuple[str, dict[str, float]]] = []
        self.batches: list[FrameBatch] = []
        self.staged = False
        self.open_file: int | None = None
        self.first_index = 0
        self.fail_at: int | None = None
        self._resource = None
        self._announced = -1
        self._lock = threading.Lock()

    def stage(self):
        self.staged = True
        self.log.append(("camera", "stage"))
        return [self]

    def unstage(self):
        self.staged = False
        self.log.append(("camera", "unstage"))
        return [self]

    def prepare(self, batch):
        assert self.staged
        if self.open_file is None or self.first_index != len(self.frames):
            self.open_file = 0 if self.open_file is None else self.open_file + 1
            self.first_index = len(self.frames)
            self.batches.append(batch)
        self._resource = None
        return finished()

    def trigger(self):
        assert self.staged
        status = Status(timeout=10)

        def expose():
            with self._lock:
                time.sleep(self.real_exposure_s)
                if self.fail_at == len(self.frames):
                    status.set_exception(RuntimeError("the camera lost a frame"))
                    return
                self.frames.append((self.shutter.value, {name: axis.position for name, axis in self.axes.items()}))
            status.set_finished()

        if self.real_exposure_s:
            threading.Thread(target=expose, daemon=True).start()
        else:
            expose()
        return status

    def kickoff(self):
        return finished()

    def complete(self):
        self.open_file = self.open_file
        self.log.append(("camera", "complete"))
        return finished()

    def read(self):
        return {}

    def describe(self):
        return {self.name: {"source": "test", "dtype": "array", "shape": [1, 4, 4], "external": "STREAM:"}}

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}

    def get_index(self):
        return len(self.frames)

    def collect_asset_docs(self, index=None):
        last = len(self.frames) - 1
        if last <= self._announced:
            return
        self._announced = last
        if self._resource is None:
            bundle = event_model.compose_stream_resource(
                data_key=self.name,
                mimetype="application/x-hdf5",
                uri=f"file://localhost/tmp/{self.name}_{self.open_file or 0:04d}.h5",
                parameters={"dataset": "/entry/data/data", "first_index": self.first_index},
            )
            self._resource = bundle
            yield "stream_resource", bundle.stream_resource_doc
        yield "stream_datum", self._resource.compose_stream_datum({"start": last, "stop": last + 1})


class Documents:
    """Every document of a run, validated by event-model as it comes."""

    def __init__(self):
        self.all: list[tuple[str, dict]] = []

    def __call__(self, name, doc):
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
        self.all.append((name, doc))

    def named(self, name):
        return [doc for each, doc in self.all if each == name]

    def events(self, stream="primary"):
        uids = {doc["uid"] for doc in self.named("descriptor") if doc["name"] == stream}
        return [doc for doc in self.named("event") if doc["descriptor"] in uids]

    def frames(self, stream="primary"):
        uids = {doc["uid"] for doc in self.named("descriptor") if doc["name"] == stream}
        return [
            (doc["seq_nums"]["start"], doc["indices"]["start"])
            for doc in self.named("stream_datum")
            if doc["descriptor"] in uids
        ]


@pytest.fixture
def log():
    return []


@pytest.fixture
def instrument(log):
    config = InstrumentConfig(
        beam={"energy_kev": 17.0},
        monochromator=None,
        objectives={
            "crl": CRLConfig(lenslets=69, radius_mm=0.05, pitch_mm=1.6, distance_mm=344.7),
        },
        cameras={"far_field": CameraConfig(rows=4, columns=4, min_exposure_s=1e-3, max_exposure_s=10.0)},
        motor_names={"phi": "diffry"},
    )
    starts = {"mu": 8.973, "phi": 0.5, "chi": -1.0, "omega": 0.0}
    axes = {name: StandInAxis(name, start=start, log=log) for name, start in starts.items()}
    shutter = StandInShutter("shutter", log)
    return Instrument(
        name="stand-ins",
        axes=axes,
        cameras={"far_field": StandInCamera("far_field", shutter, axes, log)},
        shutter=shutter,
        channels={"shutter": shutter, "objective_in": StandInChannel("objective_in", "in")},
        per_event={"monitor": StandInChannel("monitor", 1e6), "ring_current": StandInChannel("ring_current", 200.0)},
        config=config,
        sample=SampleConfig(
            name="al", lattice=(4.0495,) * 3 + (90.0,) * 3, space_group="F m -3 m", hkl=(1, 1, 1), spread_deg=0.1
        ),
        defaults=ScanDefaults(darks=3),
    )


@pytest.fixture
def documents():
    return Documents()


@pytest.fixture
def run_engine(documents):
    engine = RunEngine(context_managers=[], call_returns_result=True)
    engine.subscribe(documents)
    return engine


@pytest.fixture
def tmp_data(tmp_path) -> Path:
    return tmp_path / "data"
