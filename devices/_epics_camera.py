"""A camera over EPICS: an areaDetector driver (``cam1:``) whose HDF5 plugin (``HDF1:``) writes the frames.

The plugin writes one file per line, as a stream that is begun before the first exposure and ended by `complete`. Each
frame is waited for: the driver must have taken one frame more, the plugin must have written it, and nothing may have
been dropped, doubled or refused by the disk meanwhile.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from ophyd import Component as Cpt
from ophyd import Device

from devices._epics_field import Field
from dfxrm_control.backend import Backend
from dfxrm_control.config import CameraControl
from dfxrm_control.errors import DeviceError, RecordError
from dfxrm_control.records import FRAME_DATASET

__all__ = ["EpicsCamera"]

POLL_S = 0.002
GONE_S = 0.2
"""After this a connection that was lost is known to be, s."""
SINGLE, STREAM, ENABLE = 0, 2, 1


class _Driver(Device):
    """What is used of an areaDetector driver and its HDF5 plugin."""

    acquire = Cpt(Field, "cam1:Acquire", kind="omitted")
    exposure = Cpt(Field, "cam1:AcquireTime", kind="omitted")
    image_mode = Cpt(Field, "cam1:ImageMode", kind="omitted")
    frames_taken = Cpt(Field, "cam1:ArrayCounter_RBV", kind="omitted")
    callbacks = Cpt(Field, "cam1:ArrayCallbacks", kind="omitted")
    rows = Cpt(Field, "cam1:ArraySizeY_RBV", kind="omitted")
    columns = Cpt(Field, "cam1:ArraySizeX_RBV", kind="omitted")
    pixel = Cpt(Field, "cam1:DataType_RBV", kind="omitted", string=True)
    port = Cpt(Field, "cam1:PortName_RBV", kind="omitted", string=True)
    source_port = Cpt(Field, "HDF1:NDArrayPort", kind="omitted", string=True)
    present_source = Cpt(Field, "HDF1:NDArrayPort_RBV", kind="omitted", string=True)
    listens = Cpt(Field, "HDF1:EnableCallbacks", kind="omitted")
    primed_rows = Cpt(Field, "HDF1:ArraySize1_RBV", kind="omitted")
    primed_columns = Cpt(Field, "HDF1:ArraySize0_RBV", kind="omitted")
    folder = Cpt(Field, "HDF1:FilePath", kind="omitted", string=True)
    folder_exists = Cpt(Field, "HDF1:FilePathExists_RBV", kind="omitted")
    file = Cpt(Field, "HDF1:FileName", kind="omitted", string=True)
    template = Cpt(Field, "HDF1:FileTemplate", kind="omitted", string=True)
    numbers_files = Cpt(Field, "HDF1:AutoIncrement", kind="omitted")
    mode = Cpt(Field, "HDF1:FileWriteMode", kind="omitted")
    wanted = Cpt(Field, "HDF1:NumCapture", kind="omitted")
    capture = Cpt(Field, "HDF1:Capture", kind="omitted")
    capturing = Cpt(Field, "HDF1:Capture_RBV", kind="omitted")
    written = Cpt(Field, "HDF1:NumCaptured_RBV", kind="omitted")
    dropped = Cpt(Field, "HDF1:DroppedArrays_RBV", kind="omitted")
    failed = Cpt(Field, "HDF1:WriteStatus", kind="omitted")
    failure = Cpt(Field, "HDF1:WriteMessage", kind="omitted", string=True)
    last_frame = Cpt(Field, "HDF1:UniqueId_RBV", kind="omitted")


class _DriverWithRegion(_Driver):
    """The same with a plugin that cuts a region of interest out of each frame."""

    region_port = Cpt(Field, "ROI1:PortName_RBV", kind="omitted", string=True)
    region_source = Cpt(Field, "ROI1:NDArrayPort", kind="omitted", string=True)
    region_listens = Cpt(Field, "ROI1:EnableCallbacks", kind="omitted")
    region_first_column = Cpt(Field, "ROI1:MinX", kind="omitted")
    region_first_row = Cpt(Field, "ROI1:MinY", kind="omitted")
    region_columns = Cpt(Field, "ROI1:SizeX", kind="omitted")
    region_rows = Cpt(Field, "ROI1:SizeY", kind="omitted")
    region_bins_x = Cpt(Field, "ROI1:BinX", kind="omitted")
    region_bins_y = Cpt(Field, "ROI1:BinY", kind="omitted")
    region_cuts_x = Cpt(Field, "ROI1:EnableX", kind="omitted")
    region_cuts_y = Cpt(Field, "ROI1:EnableY", kind="omitted")


class _PluginFile:
    """The file that the plugin writes for one line."""

    dataset = FRAME_DATASET

    def __init__(self, camera: EpicsCamera, dropped: int) -> None:
        self._camera = camera
        self._count = 0
        self.dropped = dropped
        self.taken = 0
        self.settled = True

    def __len__(self) -> int:
        return self._count

    def append(self, frame: int) -> int:
        """Note a frame that has been written, and return its index in the file."""
        self._count += 1
        return self._count - 1

    def close(self) -> None:
        """Let the plugin end the file."""
        self._camera.end_file(self)


class EpicsCamera:
    """An areaDetector camera that writes its own files.

    Parameters
    ----------
    name : str
        Logical name of the camera.
    config : CameraControl
        Its ``address`` is the prefix that stands before ``cam1:`` and ``HDF1:``; its ``region``, if any, is cut out by
        ``ROI1:``.
    backend : Backend, optional
        Not used.
    """

    writes_files = True

    def __init__(self, *, name: str, config: CameraControl, backend: Backend | None = None) -> None:
        self.name = name
        self.source = f"ca://{config.address}cam1"
        self.called = f"camera {name} ({self.source})"
        # what is known here says more than that the time is over, which the detector says when it is
        self._timeout_s = 0.8 * config.timeout_s
        self._region = config.region
        driver = _Driver if config.region is None else _DriverWithRegion
        self._driver = driver(config.address, name=f"{name}_driver")
        self._file: _PluginFile | None = None
        self._last: int | None = None

    def wait_for_connection(self, timeout: float) -> None:
        """Wait until driver and plugin are connected.

        Raises
        ------
        DeviceError
            When they are not in time.
        """
        deadline = time.monotonic() + timeout
        try:
            while True:
                self._driver.wait_for_connection(timeout=max(deadline - time.monotonic(), POLL_S))
                try:
                    self._ask(self._driver.frames_taken)
                    return
                except DeviceError:
                    # what has just been found again may be lost once more before it stays
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
        except TimeoutError as error:
            signals = [part for part in self._driver.walk_signals() if not part.item.connected]
            missing = ", ".join(part.item.pvname for part in signals[:3])
            more = f" and {len(signals) - 3} more" if len(signals) > 3 else ""
            raise DeviceError(f"{self.called} did not connect within {timeout:g} s: {missing}{more}") from error

    def _ask(self, field: Field) -> Any:
        return field.ask(self.called)

    def _tell(self, field: Field, value: Any) -> None:
        field.tell(self.called, value)

    def _until(self, field: Field, value: Any, what: str) -> None:
        deadline = time.monotonic() + self._timeout_s
        while self._ask(field) != value:
            if time.monotonic() > deadline:
                raise DeviceError(f"{self.called} did not {what} within {self._timeout_s:g} s")
            time.sleep(POLL_S)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of a frame."""
        pixel = self._ask(self._driver.pixel)
        if pixel != "UInt16":
            raise DeviceError(f"{self.called} gives pixels of type {pixel}; set its DataType to UInt16")
        rows, columns = int(self._ask(self._driver.rows)), int(self._ask(self._driver.columns))
        if (region := self._region) is None:
            return rows, columns
        if region.first_row + region.rows > rows or region.first_column + region.columns > columns:
            raise DeviceError(
                f"{self.called}: a region of {region.rows} x {region.columns} pixels from row {region.first_row} and "
                f"column {region.first_column} does not lie within its {rows} x {columns} pixels"
            )
        return region.rows, region.columns

    # -- files ----------------------------------------------------------------------------------------------------

    def open_file(self, path: Path, shape: tuple[int, int], dtype: np.dtype) -> _PluginFile:
        """Let the plugin begin a file.

        Raises
        ------
        RecordError
            When the server does not see the folder, or cannot begin the file.
        DeviceError
            When it does not answer.
        """
        driver = self._driver
        self._tell(driver.listens, ENABLE)
        self._tell(driver.callbacks, ENABLE)
        self._tell(driver.mode, STREAM)
        self._connect_plugins()
        self._prime(shape)
        self._tell(driver.folder, f"{path.parent}/")
        self._tell(driver.file, path.name)
        self._tell(driver.template, "%s%s")
        self._tell(driver.numbers_files, 0)
        self._tell(driver.wanted, 0)
        if not self._ask(driver.folder_exists):
            raise RecordError(f"{self.called} does not see the folder {path.parent}, where its frames are to go")
        self._tell(driver.capture, 1)
        try:
            self._until(driver.capturing, 1, "begin a file")
        except DeviceError as error:
            raise RecordError(f"{error}: {path}{self._words()}") from error
        self._file = _PluginFile(self, int(self._ask(driver.dropped)))
        return self._file

    def _connect_plugins(self) -> None:
        """Let the HDF5 plugin have what the driver takes, or the region of interest of it."""
        driver, region = self._driver, self._region
        wanted = port = self._ask(driver.port)
        if region is not None:
            self._tell(driver.region_source, port)
            self._tell(driver.region_first_row, region.first_row)
            self._tell(driver.region_first_column, region.first_column)
            self._tell(driver.region_rows, region.rows)
            self._tell(driver.region_columns, region.columns)
            for bins in (driver.region_bins_x, driver.region_bins_y):
                self._tell(bins, 1)
            for field in (driver.region_cuts_x, driver.region_cuts_y, driver.region_listens):
                self._tell(field, ENABLE)
            wanted = self._ask(driver.region_port)
        if self._ask(driver.present_source) != wanted:
            self._tell(driver.source_port, wanted)
            self._until(driver.present_source, wanted, f"connect its HDF5 plugin to {wanted}")

    def _prime(self, shape: tuple[int, int]) -> None:
        """Give the plugin a first frame, without which it knows no shape and refuses to begin a file."""
        if self._plugin_knows() == shape:
            return
        self._acquire(0.001)
        deadline = time.monotonic() + self._timeout_s
        while (known := self._plugin_knows()) != shape:
            if time.monotonic() > deadline:
                got = f"gets frames of {known[0]} x {known[1]} pixels" if all(known) else "gets no frame"
                raise DeviceError(f"{self.called}: its HDF5 plugin {got}, where {shape[0]} x {shape[1]} are to be")
            time.sleep(POLL_S)

    def _plugin_knows(self) -> tuple[int, int]:
        return int(self._ask(self._driver.primed_rows)), int(self._ask(self._driver.primed_columns))

    def end_file(self, file: _PluginFile) -> None:
        """Let the plugin end a file. Doing so twice is no error."""
        if self._file is not file:
            return
        self._file = None
        try:
            self._tell(self._driver.capture, 0)
            self._until(self._driver.capturing, 0, "end its file")
            written = int(self._ask(self._driver.written))
        except DeviceError:
            time.sleep(GONE_S)
            if self._driver.capture.connected:
                raise
            # a server that is gone has left its file as it is; how the run ended matters more
            return
        # a copy may come after the frame that was waited for; what failed or was given up has been spoken of
        if file.settled and written > file.taken:
            raise DeviceError(self._doubled(written, file.taken))

    def _doubled(self, written: int, asked: int) -> str:
        return f"{self.called} delivered a frame twice: its file has {written} frames, {asked} were asked for"

    def _words(self) -> str:
        words = str(self._ask(self._driver.failure)) if int(self._ask(self._driver.failed)) else ""
        return f"; its HDF5 plugin says: {words}" if words else ""

    # -- frames ---------------------------------------------------------------------------------------------------

    def _acquire(self, exposure_s: float) -> None:
        driver, ended = self._driver, threading.Event()
        self._tell(driver.image_mode, SINGLE)
        self._tell(driver.exposure, exposure_s)
        driver.acquire.tell(self.called, 1, acknowledged=lambda **_: ended.set())
        if not ended.wait(exposure_s + self._timeout_s):
            self._tell(driver.acquire, 0)
            raise DeviceError(f"{self.called} did not end an exposure of {exposure_s:g} s in time")

    def expose(self, exposure_s: float) -> int:
        """Expose one frame, blocking until the plugin has written it, and return its number at the driver.

        Raises
        ------
        DeviceError
            When it is late, missing, dropped, doubled or could not be written.
        """
        file = self._file
        if file is None:
            raise DeviceError(f"{self.called} has no file for its frames")
        file.settled = False
        number = self._last = self._expose(file, exposure_s)
        file.taken += 1
        file.settled = True
        return number

    def _expose(self, file: _PluginFile, exposure_s: float) -> int:
        driver, taken = self._driver, int(self._ask(self._driver.frames_taken))
        self._acquire(exposure_s)
        deadline = time.monotonic() + self._timeout_s
        while (written := int(self._ask(driver.written))) <= file.taken:
            if int(self._ask(driver.failed)):
                raise DeviceError(f"{self.called} could not write a frame{self._words()}")
            if (lost := int(self._ask(driver.dropped)) - file.dropped) > 0:
                raise DeviceError(f"{self.called} dropped {lost} frame(s) before they were written")
            if time.monotonic() > deadline:
                took = int(self._ask(driver.frames_taken)) - taken
                reason = "its HDF5 plugin did not write it" if took > 0 else "it took none"
                raise DeviceError(f"{self.called} delivered no frame within {self._timeout_s:g} s: {reason}")
            time.sleep(POLL_S)
        if int(self._ask(driver.failed)):
            raise DeviceError(f"{self.called} could not write a frame{self._words()}")
        number = int(self._ask(driver.last_frame))
        if written != file.taken + 1 or number == self._last:
            raise DeviceError(self._doubled(written, file.taken + 1))
        return number

    def needs_new_file(self, exposure_s: float) -> bool:
        """Return False: frames of any exposure go into one file."""
        return False

    def release(self) -> None:
        """End the taking of frames."""
        self._last = None
