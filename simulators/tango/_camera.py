"""A camera as LIMA serves it over Tango: it writes its frames itself."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tango
from numpy.typing import NDArray
from tango import DevState
from tango.server import attribute, command

from dfxrm_control.backend import FrameRequest
from dfxrm_control.errors import DfxrmError
from dfxrm_control.records import FrameWriter
from simulators.tango._parts import Part, Served

__all__ = ["LimaCCDs"]

DATASET = "/entry_0000/measurement/data"
ONCE, PER_FRAME = "INTERNAL_TRIGGER", "INTERNAL_TRIGGER_MULTI"


def _setting(name: str, kind: type, words: tuple[str, ...] = (), low: float | None = None) -> Any:
    """Return an attribute that keeps one of the settings."""
    key = name.removeprefix("acq_").removeprefix("saving_")

    def read(self: Any) -> Any:
        return self._settings[key]

    def write(self: Any, value: Any) -> None:
        if words and value not in words:
            self.refuse(f"{name} is one of {', '.join(words)}, not {value!r}")
        if low is not None and value < low:
            self.refuse(f"{name} is {low:g} or more, not {value:g}")
        if self._running:
            self.refuse(f"{name} cannot be set while an acquisition is running")
        self._settings[key] = value

    return attribute(name=name, dtype=kind, fget=read, fset=write)


class LimaCCDs(Served):
    """A camera with the attributes, commands and rules of LIMA's Tango server, as far as a scan needs them.

    ``prepareAcq`` begins an acquisition of ``acq_nb_frames``; with ``INTERNAL_TRIGGER_MULTI`` each ``startAcq`` takes
    one frame, with ``INTERNAL_TRIGGER`` one ``startAcq`` takes all. A frame is saved when ``last_image_saved`` says so.
    ``stopAcq`` ends the acquisition and closes its file. Where it cannot save it goes to Fault.

    Unlike LIMA's own, its files are followed by SWMR readers while they are open, and hold the frames at
    ``/entry_0000/measurement/data`` itself, not behind a link.

    Faults: ``missing`` (no frame is taken), ``unsaved`` (it is taken and not saved), ``twice`` (it comes twice),
    ``full TEXT`` (the disk refuses it).
    """

    faults = ("missing", "unsaved", "twice", "full")

    def init_device(self) -> None:
        """Take LIMA's defaults."""
        super().init_device()
        self.part: Part = self.parts[0]
        self._lock = threading.Lock()
        self._writer: FrameWriter | None = None
        self._worker: threading.Thread | None = None
        self.stage.ending.append(self._close)
        self._defaults()
        self.set_state(DevState.ON)

    def _defaults(self) -> None:
        self._part_of_sensor: tuple[int, int, int, int] | None = None
        self._settings: dict[str, Any] = {
            "nb_frames": 1, "expo_time": 1.0, "trigger_mode": ONCE, "mode": "MANUAL", "directory": "", "prefix": "",
            "suffix": ".h5", "format": "HDF5BS", "overwrite_policy": "ABORT", "frame_per_file": 1, "next_number": 0,
            "index_format": "%04d",
        }  # fmt: skip
        self._acquired = self._ready = self._saved = -1
        self._prepared = self._running = self._exposing = False
        self._words = ""

    @property
    def _whole(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of all pixels."""
        rows, columns = self.backend.frame_shape(self.part.name)
        return 0, 0, columns, rows

    @property
    def _roi(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of what is delivered."""
        return self._part_of_sensor or self._whole

    # -- acquisition ------------------------------------------------------------------------------------------------

    @command
    def prepareAcq(self) -> None:  # noqa: N802
        """Begin an acquisition: nothing is exposed yet."""
        with self._lock:
            if self._running or self._exposing:
                self.refuse("prepareAcq: an acquisition is running")
            self._close()
            if self._settings["mode"] != "MANUAL":
                self._check_place()
            self._acquired = self._ready = self._saved = -1
            self._words, self._prepared = "", True

    def _check_place(self) -> None:
        folder = Path(self._settings["directory"])
        if not folder.is_dir():
            self.refuse(f"directory {folder} does not exist")
        if not os.access(folder, os.W_OK):
            self.refuse(f"directory {folder} is not writable")
        if self._settings["overwrite_policy"] == "ABORT" and (path := self._path()).exists():
            self.refuse(f"file {path} already exists")

    @command
    def startAcq(self) -> None:  # noqa: N802
        """Take the next frame (INTERNAL_TRIGGER_MULTI), or all."""
        with self._lock:
            if not self._prepared:
                self.refuse("Run prepareAcq before starting acquisition")
            if self._exposing:
                self.refuse("Try to restart before detector is ready")
            self._exposing = self._running = True
            number = self._settings["nb_frames"]
            if self._settings["trigger_mode"] == PER_FRAME:
                frames = 1
                self._prepared = number == 0 or self._acquired + 2 < number
            else:
                frames, self._prepared = number, False
            self._worker = threading.Thread(target=self._take, args=(frames,), daemon=True)
            self._worker.start()

    def _take(self, frames: int) -> None:
        with tango.EnsureOmniThread():
            try:
                taken = 0
                while self._running and (taken < frames or frames == 0):
                    self._one()
                    taken += 1
            except DfxrmError as error:
                self._fail(str(error))
            with self._lock:
                self._exposing = False
                if not self._prepared:
                    self._running = False
                    self._close()

    def _one(self) -> None:
        if self.fault == "missing":
            return
        request = FrameRequest(self.part.name, self._settings["expo_time"])
        x, y, width, height = self._roi
        frame = self.backend.expose(request).data[y : y + height, x : x + width]
        for _ in range(2 if self.fault == "twice" else 1):
            self._acquired += 1
            self._ready += 1
            if self._settings["mode"] != "MANUAL" and self.fault != "unsaved":
                self._save(frame)

    def _save(self, frame: NDArray) -> None:
        if self.fault == "full":
            self._fail(f"Save error: {self.fault_about or 'No space left on device'}")
            return
        if self._writer is not None and len(self._writer) >= self._settings["frame_per_file"]:
            self._close()
        if self._writer is None:
            path = self._path()
            if self._settings["overwrite_policy"] == "OVERWRITE":
                path.unlink(missing_ok=True)
            self._writer = FrameWriter(path, (frame.shape[0], frame.shape[1]), np.uint16, DATASET)
        self._writer.append(frame)
        self._saved += 1

    def _fail(self, words: str) -> None:
        self._words, self._prepared = words, False

    @command
    def stopAcq(self) -> None:  # noqa: N802
        """End the acquisition, after the frame that is being exposed, and close its file."""
        self._running = self._prepared = False
        if (worker := self._worker) is not None:
            worker.join()
        with self._lock:
            self._close()

    @command
    def reset(self) -> None:
        """Stop, and take the settings it came with."""
        self.stopAcq()
        self._defaults()

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            self._settings["next_number"] += 1
            try:
                writer.close()
            except DfxrmError as error:
                self._fail(str(error))

    def _path(self) -> Path:
        of = self._settings
        return Path(of["directory"]) / f"{of['prefix']}{of['index_format'] % of['next_number']}{of['suffix']}"

    # -- settings ---------------------------------------------------------------------------------------------------

    acq_nb_frames = _setting("acq_nb_frames", int, low=0)
    acq_expo_time = _setting("acq_expo_time", float, low=0.0)
    acq_trigger_mode = _setting("acq_trigger_mode", str, (ONCE, PER_FRAME))
    saving_mode = _setting("saving_mode", str, ("MANUAL", "AUTO_FRAME"))
    saving_directory = _setting("saving_directory", str)
    saving_prefix = _setting("saving_prefix", str)
    saving_suffix = _setting("saving_suffix", str)
    saving_index_format = _setting("saving_index_format", str)
    saving_format = _setting("saving_format", str, ("HDF5BS",))
    saving_overwrite_policy = _setting("saving_overwrite_policy", str, ("ABORT", "OVERWRITE"))
    saving_frame_per_file = _setting("saving_frame_per_file", int, low=1)
    saving_next_number = _setting("saving_next_number", int, low=0)

    # -- what it says -----------------------------------------------------------------------------------------------

    @attribute(dtype=str)
    def acq_status(self) -> str:
        """Ready, Running or Fault."""
        return "Fault" if self._words else "Running" if self._running else "Ready"

    @attribute(dtype=str)
    def acq_status_fault_error(self) -> str:
        """Why it is in Fault."""
        return self._words or "No error"

    @attribute(dtype=int)
    def last_image_acquired(self) -> int:
        """Return the number of the last frame exposed, from 0; -1 before."""
        return self._acquired

    @attribute(dtype=int)
    def last_image_ready(self) -> int:
        """Return the number of the last frame that is processed, from 0; -1 before."""
        return self._ready

    @attribute(dtype=int)
    def last_image_saved(self) -> int:
        """Return the number of the last frame that is in its file, from 0; -1 before."""
        return self._saved

    @attribute(dtype=bool)
    def ready_for_next_image(self) -> bool:
        """Whether startAcq may be called again."""
        return not self._exposing

    @attribute(dtype=bool)
    def ready_for_next_acq(self) -> bool:
        """Whether prepareAcq may be called."""
        return not self._running and not self._exposing

    @attribute(dtype=int)
    def image_width(self) -> int:
        """Columns of a frame."""
        return self._roi[2]

    @attribute(dtype=int)
    def image_height(self) -> int:
        """Rows of a frame."""
        return self._roi[3]

    @attribute(dtype=str)
    def image_type(self) -> str:
        """Type of a pixel."""
        return "Bpp16"

    @attribute(dtype=(int,), max_dim_x=4)
    def image_roi(self) -> tuple[int, ...]:
        """Left, top, width and height of what is delivered, pixels."""
        return self._roi

    @image_roi.write  # type: ignore[no-redef]
    def image_roi(self, roi: NDArray) -> None:
        """Deliver a part only; zeros: all."""
        x, y, width, height = (int(value) for value in roi)
        if not any((x, y, width, height)):
            self._part_of_sensor = None
            return
        _, _, columns, rows = self._whole
        if min(x, y) < 0 or min(width, height) < 1 or x + width > columns or y + height > rows:
            self.refuse(f"image_roi {x}, {y}, {width}, {height} is not inside {columns} x {rows} pixels")
        self._part_of_sensor = (x, y, width, height)

    @attribute(dtype=str)
    def camera_type(self) -> str:
        """Say what kind of camera it is."""
        return "Simulator"

    @attribute(dtype=str)
    def camera_model(self) -> str:
        """Which camera it is."""
        return self.part.name
