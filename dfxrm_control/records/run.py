"""A run as its documents tell it: points, set-points, readbacks, and which frame belongs to which point."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.errors import FileFormatError
from dfxrm_control.records.frames import FRAME_DATASET, frame_path
from dfxrm_control.records.journal import read_documents

__all__ = ["Axis", "FrameFile", "FrameRef", "Run", "Stream", "read_journal", "written_names"]

_INTERRUPTIONS = "interruptions"


@dataclass(frozen=True)
class FrameFile:
    """A file of frames as the run announced it.

    Attributes
    ----------
    path : Path
        Where the file was when the run was taken.
    dataset : str
        Path of the frames in it.
    camera : str
        Data key of the camera.
    first_index : int
        Index, counted over the run, of the file's first frame.
    """

    path: Path
    dataset: str
    camera: str
    first_index: int


@dataclass(frozen=True)
class FrameRef:
    """One frame: its file, its place there, and its index counted over the run."""

    file: FrameFile
    index: int

    @property
    def index_in_file(self) -> int:
        """Place of the frame in its file."""
        return self.index - self.file.first_index


@dataclass
class Stream:
    """The events of one stream, by number; a number that came twice keeps the later event.

    Attributes
    ----------
    name : str
        Name of the stream: ``primary``, ``baseline``, ``darks_before``, ...
    data_keys : dict
        The data keys of its descriptors.
    events : dict
        Event document by its ``seq_num``.
    frames : dict
        Acknowledged frame by camera and ``seq_num``: announced, and its event has arrived.
    announced : dict
        Announced frame by camera and ``seq_num`` whose event has not arrived.
    replaced : list of (int, FrameRef)
        Frames of points that were taken again, with the number of the point's event.
    """

    name: str
    data_keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    frames: dict[str, dict[int, FrameRef]] = field(default_factory=dict)
    announced: dict[str, dict[int, FrameRef]] = field(default_factory=dict)
    replaced: list[tuple[int, FrameRef]] = field(default_factory=list)

    def acknowledge(self, event: dict[str, Any]) -> None:
        """Take in an event, and with it the frames that were announced for it."""
        number = event["seq_num"]
        self.events[number] = event
        for camera, announced in self.announced.items():
            if number in announced:
                frames = self.frames.setdefault(camera, {})
                if number in frames:
                    self.replaced.append((number, frames[number]))
                frames[number] = announced.pop(number)

    def __len__(self) -> int:
        """Return the number of events in the unbroken row from the first on."""
        count = len(self.events)
        while count and count not in self.events:
            count -= 1
        return count

    def column(self, key: str) -> NDArray:
        """Return the values of a data key, one per event in order of their numbers; NaN where an event has none.

        Raises
        ------
        KeyError
            When no event has the key.
        """
        if not any(key in event["data"] for event in self.events.values()):
            raise KeyError(key)
        return np.array([self.events[number]["data"].get(key, np.nan) for number in sorted(self.events)])

    def times(self) -> NDArray:
        """Return the time of each event in seconds since 1970, in order of their numbers."""
        return np.array([self.events[number]["time"] for number in sorted(self.events)], dtype=float)


@dataclass(frozen=True)
class Axis:
    """One scanned axis of a planned scan.

    Attributes
    ----------
    name : str
        Logical name.
    start, step : float
        First position and distance between two, in the axis's units; NaN where the plan does not say.
    num : int
        Number of positions.
    """

    name: str
    start: float
    step: float
    num: int


class Run:
    """What is known of a run; fed with documents one by one, it is up to date after each.

    Attributes
    ----------
    start : dict
        The start document.
    stop : dict or None
        The stop document; None while the run goes on and for ever when it was killed.
    streams : dict of Stream
        By name.
    files : list of FrameFile
        Announced frame files, in order.
    """

    def __init__(self, documents: Iterable[tuple[str, Mapping[str, Any]]] = ()) -> None:
        self.start: dict[str, Any] = {}
        self.stop: dict[str, Any] | None = None
        self.streams: dict[str, Stream] = {}
        self.files: list[FrameFile] = []
        self._resources: dict[str, FrameFile] = {}
        self._descriptors: dict[str, Stream] = {}
        self.configuration: dict[str, dict[str, Any]] = {}
        for name, doc in documents:
            self(name, doc)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take in one document."""
        reader = getattr(self, f"_on_{name}", None)
        if reader is not None:
            reader(doc)

    def _on_start(self, doc: Mapping[str, Any]) -> None:
        self.start = dict(doc)

    def _on_stop(self, doc: Mapping[str, Any]) -> None:
        self.stop = dict(doc)

    def _on_descriptor(self, doc: Mapping[str, Any]) -> None:
        name = doc.get("name", "primary")
        stream = self.streams.setdefault(name, Stream(name))
        stream.data_keys.update(doc["data_keys"])
        self._descriptors[doc["uid"]] = stream
        for device, content in doc.get("configuration", {}).items():
            self.configuration.setdefault(device, {}).update(content.get("data", {}))

    def _on_event(self, doc: Mapping[str, Any]) -> None:
        self._descriptors[doc["descriptor"]].acknowledge(dict(doc))

    def _on_event_page(self, doc: Mapping[str, Any]) -> None:
        for row, number in enumerate(doc["seq_num"]):
            event = {
                "uid": doc["uid"][row],
                "time": doc["time"][row],
                "seq_num": number,
                "descriptor": doc["descriptor"],
                "data": {key: values[row] for key, values in doc["data"].items()},
                "timestamps": {key: values[row] for key, values in doc["timestamps"].items()},
            }
            self._on_event(event)

    def _on_stream_resource(self, doc: Mapping[str, Any]) -> None:
        parameters = doc["parameters"]
        file = FrameFile(
            frame_path(doc["uri"]),
            parameters.get("dataset", FRAME_DATASET),
            doc["data_key"],
            int(parameters.get("first_index", 0)),
        )
        self._resources[doc["uid"]] = file
        if file not in self.files:
            self.files.append(file)

    def _on_stream_datum(self, doc: Mapping[str, Any]) -> None:
        file = self._resources[doc["stream_resource"]]
        stream = self._descriptors[doc["descriptor"]]
        announced = stream.announced.setdefault(file.camera, {})
        first = doc["indices"]["start"]
        for number in range(doc["seq_nums"]["start"], doc["seq_nums"]["stop"]):
            announced[number] = FrameRef(file, first + number - doc["seq_nums"]["start"])

    @property
    def primary(self) -> Stream:
        """The stream of the scan's points; an empty one before the first."""
        return self.streams.get("primary") or Stream("primary")

    @property
    def dfxrm(self) -> dict[str, Any]:
        """What this package's plans and session say of the run in the start document."""
        content = self.start.get("dfxrm")
        return content if isinstance(content, dict) else {}

    @property
    def sample_name(self) -> str:
        """Name of the sample: also the folder of its data."""
        sample = self.start.get("sample") or self.start.get("sample_name")
        if isinstance(sample, Mapping):
            sample = sample.get("name")
        return str(sample) if sample else "unnamed"

    @property
    def scan_number(self) -> int:
        """The run's ``scan_id``."""
        return int(self.start.get("scan_id", 0))

    @property
    def names(self) -> dict[str, str]:
        """Logical name -> name to be written, of axes, cameras and counters; absent: its own name."""
        names = self.dfxrm.get("instrument", {}).get("motor_names", {})
        return written_names(names if isinstance(names, dict) else {}, [axis.name for axis in self.axes])

    @property
    def cameras(self) -> list[str]:
        """Cameras of the primary stream (else of any stream), the one that the plan names first."""
        found = [
            key
            for stream in [self.primary, *self.streams.values()]
            for key, description in stream.data_keys.items()
            if description.get("external") == "STREAM:"
        ]
        wanted = self.dfxrm.get("camera")
        return sorted(dict.fromkeys(found), key=lambda key: key != wanted)

    def frame_shape(self, camera: str) -> tuple[tuple[int, int], np.dtype]:
        """Return ((rows, columns), dtype) of a camera's frames."""
        for stream in self.streams.values():
            if camera in stream.data_keys:
                key = stream.data_keys[camera]
                rows, columns = key["shape"][-2:]
                return (int(rows), int(columns)), np.dtype(key.get("dtype_numpy") or np.uint16)
        raise KeyError(camera)

    @property
    def axes(self) -> list[Axis]:
        """The scanned axes, slow first, as planned; of a plan that names none, those it read at each point."""
        planned = self.dfxrm.get("scan_axes")
        if planned:
            return [Axis(a["name"], float(a["start"]), float(a["step"]), int(a["num"])) for a in planned]
        keys = self.primary.data_keys
        motors = list(self.start.get("motors") or [key for key in keys if f"{key}_setpoint" in keys])
        shape = [int(n) for n in self.start.get("shape") or ()]
        if len(shape) != len(motors):  # moved together along one dimension
            shape = [int(self.start.get("num_points") or 0)] * len(motors)
            return [Axis(motor, np.nan, np.nan, num) for motor, num in zip(motors, shape, strict=True)]
        return [Axis(motor, np.nan, np.nan, num) for motor, num in zip(motors, shape, strict=True)]

    @property
    def followers(self) -> dict[str, list[float]]:
        """Positions, as planned, of the axes that go with a scanned one and are read at each point beside it."""
        planned = self.dfxrm.get("followers") or {}
        return {
            name: [float(place) for place in places]
            for following in planned.values()
            for name, places in following.items()
            if name in self.primary.data_keys
        }

    @property
    def is_mesh(self) -> bool:
        """Whether the scan has two or more dimensions (rather than one, maybe with several axes moved together)."""
        return len(self.axes) > 1 and bool(self.dfxrm.get("scan_axes") or len(self.start.get("shape") or ()) > 1)

    @property
    def planned_points(self) -> int:
        """Number of points that were planned; 0 where the plan does not say."""
        if self.start.get("num_points"):
            return int(self.start["num_points"])
        return int(np.prod([axis.num for axis in self.axes])) if self.axes else 0

    @property
    def line_length(self) -> int:
        """Points of one line of a mesh; 1 for a scan of one dimension, all of whose points count."""
        if not self.is_mesh:
            return 1
        return int(self.dfxrm.get("line_length") or self.axes[-1].num)

    @property
    def block_length(self) -> int:
        """Points of one whole step of the slowest axis, the least that a title can describe.

        In a scan of one dimension that is one point; in a mesh of two, a line; in one of three, a plane.
        """
        return max(1, int(np.prod([axis.num for axis in self.axes[1:]]))) if self.is_mesh else 1

    def exposure_s(self, camera: str | None = None) -> float:
        """Return the exposure time of a camera's frames in seconds; NaN where nothing tells it.

        Parameters
        ----------
        camera : str, optional
            Data key of the camera; default: the first of `cameras`.
        """
        camera = camera or next(iter(self.cameras), None)
        stated = self.dfxrm.get("exposure_s")
        if stated is not None and camera in (None, self.dfxrm.get("camera", camera)):
            return float(stated)
        own = self.configuration.get(camera or "", {})
        told = (value for key, value in own.items() if "exposure" in key and isinstance(value, (int, float)))
        return float(next(told, float("nan")))

    def setpoint_key(self, axis: str) -> str:
        """Return the data key of an axis's set-point, or of its readback where it has none."""
        keys = self.primary.data_keys
        for key in (f"{axis}_setpoint", f"{axis}_user_setpoint"):
            if key in keys:
                return key
        return axis

    def baseline(self, position: int = 0) -> dict[str, Any]:
        """Return the readings of the baseline: 0 before the scan, -1 the last there is; empty where there is none."""
        events = self.streams["baseline"].events if "baseline" in self.streams else {}
        return dict(events[sorted(events)[position]]["data"]) if events else {}

    @property
    def end_status(self) -> str:
        """How the run ended: ``success``, ``abort``, ``fail``, or ``running`` while there is no stop document."""
        return str(self.stop["exit_status"]) if self.stop else "running"

    def interruptions(self) -> list[str]:
        """Return what interrupted the run, in order: ``pause``, ``resume``, ..."""
        stream = self.streams.get(_INTERRUPTIONS)
        return [str(e["data"]["interruption"]) for _, e in sorted(stream.events.items())] if stream else []


def written_names(motor_names: Mapping[str, str], scanned: Collection[str]) -> dict[str, str]:
    """Return the names that are written into titles and positioner groups, where they are not the logical ones.

    A scan of ``two_theta`` is written as one of ``obpitch``, which it equals and which darling and darfix know as the
    axis of a strain scan.

    Parameters
    ----------
    motor_names : mapping
        Of the configuration: logical name to the name of the place.
    scanned : collection of str
        Logical names of the scanned axes.
    """
    names = dict(motor_names)
    if "two_theta" in scanned:
        names.setdefault("two_theta", names.get("obpitch", "obpitch"))
    return names


def read_journal(path: Path) -> Run:
    """Read a journal.

    Parameters
    ----------
    path : Path
        Journal of one run; a last line that was cut short by a crash is left out.

    Raises
    ------
    FileFormatError
        When the file cannot be read, is no journal, or is damaged before its last line.
    """
    run = Run()
    for name, doc in read_documents(path):
        try:
            run(name, doc)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"{path} is damaged: a {name} document lacks {error}") from error
    if not run.start:
        raise FileFormatError(f"{path} is no journal of a run: it is empty")
    return run
