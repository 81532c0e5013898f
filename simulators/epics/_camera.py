"""A camera of the twin as an areaDetector driver (``cam1:``) with a region of interest and an HDF5 plugin.

Each image is one exposure of the twin. It is handed on to the plugins, and the file plugin writes it while the next one
is exposed; Acquire is acknowledged at the end of the exposure. The file plugin knows the shape of a frame from the
start, so that nobody needs to expose one to tell it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfxrm_control.backend import FrameRequest
from dfxrm_control.config import CameraConfig
from dfxrm_control.errors import DfxrmError
from dfxrm_control.records import FrameWriter
from simulators.epics._area_detector import area_detector
from simulators.epics._variables import Choice, SkipWrite, Twin

__all__ = ["FAULTS", "ServedCamera"]

_log = logging.getLogger("simulators.epics")

FAULTS = ("none", "none taken", "dropped", "twice", "disk full", "not primed")
"""Words of the variable PREFIXfault, by which a drill says what goes wrong with frames from now on."""
DRIVER, REGION, FILE = "CAM1", "ROI1", "HDF1"
PIXEL = "UInt16"
LARGEST = np.iinfo(np.uint16).max


class ServedCamera:
    """A camera with its plugins.

    Parameters
    ----------
    prefix : str
        Stands before ``cam1:``, ``ROI1:`` and ``HDF1:``.
    camera : str
        Name of the camera at the twin.
    config : CameraConfig
        How short and long it exposes.
    twin : Twin
        What it looks at.
    """

    def __init__(self, prefix: str, camera: str, config: CameraConfig, twin: Twin) -> None:
        self._camera = camera
        self._config = config
        self._twin = twin
        self._v = area_detector()
        self._fault = Choice(value="none", enum_strings=FAULTS)
        self._fault.on_put = self._fault_changes
        self.variables = {f"{prefix}{name}": variable for name, variable in {**self._v, "fault": self._fault}.items()}
        self._v["cam1:Acquire"].on_put = self._acquire
        self._v["cam1:AcquireTime"].on_put = self._set_exposure
        self._v["HDF1:Capture"].on_put = self._capture
        self._v["HDF1:FilePath"].on_put = self._set_path
        self._acquiring = False
        self._aborted = asyncio.Event()
        self._writer: FrameWriter | None = None
        self._frames: asyncio.Queue[tuple[int, NDArray, int]] = asyncio.Queue()
        self._writing: asyncio.Task[None] | None = None

    async def _post(self, **values: Any) -> None:
        """Set variables of which only the driver's and plugins' names differ: ``cam1__Acquire=...``."""
        for name, value in values.items():
            await self._v[name.replace("__", ":")].post(value)

    async def _set(self, **values: Any) -> None:
        """Set variables and their readbacks."""
        for name, value in values.items():
            await self._post(**{name: value, f"{name}_RBV": value})

    async def start(self) -> None:
        """Give the variables their first values."""
        rows, columns = await self._twin.ask(self._twin.backend.frame_shape, self._camera)
        low, high = self._config.min_exposure_s, self._config.max_exposure_s
        await self._set(
            cam1__AcquireTime=min(max(0.1, low), high),
            cam1__ImageMode="Continuous",
            cam1__NumImages=1,
            cam1__NumExposures=1,
            cam1__DataType=PIXEL,
            cam1__SizeX=columns,
            cam1__SizeY=rows,
            cam1__BinX=1,
            cam1__BinY=1,
            cam1__ArrayCallbacks="Enable",
            ROI1__NDArrayPort=DRIVER,
            ROI1__SizeX=columns,
            ROI1__SizeY=rows,
            ROI1__BinX=1,
            ROI1__BinY=1,
            ROI1__EnableX="Enable",
            ROI1__EnableY="Enable",
            ROI1__Scale=1.0,
            HDF1__NDArrayPort=DRIVER,
            HDF1__QueueSize=20,
            HDF1__NumCapture=1,
            HDF1__FileTemplate="%s%s_%3.3d.h5",
        )
        await self._post(
            cam1__PortName_RBV=DRIVER,
            cam1__Manufacturer_RBV="dfxrm-control",
            cam1__Model_RBV=f"twin, {self._camera}"[:39],
            cam1__ArraySizeX_RBV=columns,
            cam1__ArraySizeY_RBV=rows,
            cam1__ArraySize_RBV=2 * rows * columns,
            cam1__MaxSizeX_RBV=columns,
            cam1__MaxSizeY_RBV=rows,
            ROI1__PluginType_RBV="NDPluginROI",
            ROI1__PortName_RBV=REGION,
            ROI1__MaxSizeX_RBV=columns,
            ROI1__MaxSizeY_RBV=rows,
            HDF1__PluginType_RBV="NDFileHDF5",
            HDF1__PortName_RBV=FILE,
            HDF1__SWMRSupported_RBV="Supported",
        )
        await self._knows("ROI1", (rows, columns))
        await self._knows("HDF1", (rows, columns))
        self._writing = asyncio.get_running_loop().create_task(self._write_frames())

    async def refresh(self) -> None:
        """Do nothing: a camera has nothing that changes by itself."""

    async def close(self) -> None:
        """End the file that is open."""
        await self._end_file()

    async def _knows(self, plugin: str, shape: tuple[int, int]) -> None:
        await self._post(
            **{
                f"{plugin}__NDimensions_RBV": "2",
                f"{plugin}__ArraySize0_RBV": shape[1],
                f"{plugin}__ArraySize1_RBV": shape[0],
                f"{plugin}__ArraySizeX_RBV": shape[1],
                f"{plugin}__ArraySizeY_RBV": shape[0],
                f"{plugin}__ArraySize_RBV": 2 * shape[0] * shape[1],
            }
        )

    # -- the driver -------------------------------------------------------------------------------------------------

    async def _set_exposure(self, value: float) -> None:
        low, high = self._config.min_exposure_s, self._config.max_exposure_s
        await self._set(cam1__AcquireTime=min(max(value, low), high))
        raise SkipWrite

    async def _acquire(self, value: str) -> None:
        if value != "Acquire":
            self._aborted.set()
            return
        if self._acquiring:
            raise SkipWrite
        self._acquiring = True
        self._aborted.clear()
        await self._set(cam1__Acquire="Acquire")
        await self._post(cam1__DetectorState_RBV="Acquire", cam1__NumImagesCounter_RBV=0)
        mode = self._v["cam1:ImageMode"].value
        images = {"Single": 1, "Multiple": self._v["cam1:NumImages"].value}.get(mode, math.inf)
        try:
            while images > 0 and not self._aborted.is_set():
                await self._expose()
                images -= 1
            await self._post(cam1__DetectorState_RBV="Idle")
        except DfxrmError as error:
            _log.warning("camera %s: %s", self._camera, error)
            await self._post(cam1__DetectorState_RBV="Error", cam1__StatusMessage_RBV=str(error))
        finally:
            self._acquiring = False
            await self._set(cam1__Acquire="Done")
        raise SkipWrite

    async def _expose(self) -> None:
        exposure_s = self._v["cam1:AcquireTime"].value
        if self._fault.value == "none taken":
            await asyncio.sleep(exposure_s)
            return
        frame = await self._twin.ask(self._twin.backend.expose, FrameRequest(self._camera, exposure_s))
        number = self._v["cam1:ArrayCounter_RBV"].value + 1
        await self._set(cam1__ArrayCounter=number)
        await self._post(cam1__NumImagesCounter_RBV=self._v["cam1:NumImagesCounter_RBV"].value + 1)
        if self._v["cam1:ArrayCallbacks"].value == "Enable":
            await self._hand_on(number, frame.data)

    # -- the plugins ------------------------------------------------------------------------------------------------

    def _listens(self, plugin: str) -> bool:
        return bool(self._v[f"{plugin}:EnableCallbacks"].value == "Enable")

    async def _hand_on(self, number: int, data: NDArray) -> None:
        """Send a frame through the plugins, as their ports are connected."""
        arrays = {DRIVER: data}
        if self._listens("ROI1") and (source := arrays.get(self._v["ROI1:NDArrayPort"].value)) is not None:
            arrays[REGION] = await self._cut(source)
            await self._knows("ROI1", arrays[REGION].shape)
            await self._post(ROI1__UniqueId_RBV=number)
        array = arrays.get(self._v["HDF1:NDArrayPort"].value)
        if not self._listens("HDF1") or array is None:
            return
        await self._knows("HDF1", array.shape)
        if self._writer is None:
            return
        if self._fault.value == "dropped" or self._frames.qsize() >= self._v["HDF1:QueueSize"].value:
            await self._post(HDF1__DroppedArrays_RBV=self._v["HDF1:DroppedArrays_RBV"].value + 1)
            return
        self._frames.put_nowait((number, array, 2 if self._fault.value == "twice" else 1))

    async def _cut(self, data: NDArray) -> NDArray:
        """Return the region of interest of a frame, binned pixels added up; what does not fit is cut off."""
        found = []
        for axis, limit in (("Y", data.shape[0]), ("X", data.shape[1])):
            first, size, binning = 0, limit, 1
            if self._v[f"ROI1:Enable{axis}"].value == "Enable":
                first = min(max(int(self._v[f"ROI1:Min{axis}"].value), 0), limit - 1)
                size = min(max(int(self._v[f"ROI1:Size{axis}"].value), 1), limit - first)
                binning = min(max(int(self._v[f"ROI1:Bin{axis}"].value), 1), size)
            values = {f"ROI1__Min{axis}": first, f"ROI1__Size{axis}": size, f"ROI1__Bin{axis}": binning}
            await self._set(**values)
            found.append((first, size // binning, binning))
        (top, rows, down), (left, columns, across) = found
        cut = data[top : top + rows * down, left : left + columns * across]
        if down * across == 1:
            return np.ascontiguousarray(cut)
        binned = cut.reshape(rows, down, columns, across).sum(axis=(1, 3), dtype=np.uint64)
        return np.minimum(binned, LARGEST).astype(np.uint16)

    # -- files ------------------------------------------------------------------------------------------------------

    async def _set_path(self, value: str) -> None:
        folder = value if value.endswith("/") else f"{value}/"
        # not in a thread: whoever asks next whether it exists is to hear of this one
        exists = Path(folder).is_dir()
        await self._set(HDF1__FilePath=folder)
        await self._post(HDF1__FilePathExists_RBV="Yes" if exists else "No")
        raise SkipWrite

    async def _capture(self, value: str) -> None:
        if value == "Capture":
            await self._begin_file()
        else:
            await self._end_file()
        raise SkipWrite

    async def _begin_file(self) -> None:
        shape = self._v["HDF1:ArraySize1_RBV"].value, self._v["HDF1:ArraySize0_RBV"].value
        parts = [self._v[f"HDF1:{part}"].value for part in ("FilePath", "FileName", "FileNumber")]
        template = self._v["HDF1:FileTemplate"].value
        await self._end_file()
        try:
            if self._v["HDF1:FileWriteMode"].value != "Stream":
                raise DfxrmError("frames are captured into a file with FileWriteMode Stream only")
            if 0 in shape:
                raise DfxrmError("the plugin has had no frame yet, so it knows no shape")
            try:
                path = template % tuple(parts[: template.count("%") - 2 * template.count("%%")])
            except (TypeError, ValueError) as error:
                raise DfxrmError(f"FileTemplate {template!r} gives no name: {error}") from error
            self._writer = await self._twin.ask(FrameWriter, Path(path), shape)
        except DfxrmError as error:
            await self._post(HDF1__WriteStatus="Write error", HDF1__WriteMessage=str(error), HDF1__Capture="Done")
            return
        await self._post(
            HDF1__FullFileName_RBV=path, HDF1__NumCaptured_RBV=0, HDF1__WriteStatus="Write OK", HDF1__WriteMessage=""
        )
        await self._set(HDF1__Capture="Capture")

    async def _end_file(self) -> None:
        await self._frames.join()
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                await self._twin.ask(writer.close)
            except DfxrmError as error:
                await self._post(HDF1__WriteStatus="Write error", HDF1__WriteMessage=str(error))
            if self._v["HDF1:AutoIncrement"].value == "Yes":
                await self._set(HDF1__FileNumber=self._v["HDF1:FileNumber"].value + 1)
        await self._set(HDF1__Capture="Done")

    async def _write_frames(self) -> None:
        while True:
            frame = await self._frames.get()
            try:
                await self._write(*frame)
            finally:
                self._frames.task_done()
            if self._writer is not None and 0 < self._v["HDF1:NumCapture"].value <= len(self._writer):
                await self._end_file()

    async def _write(self, number: int, array: NDArray, times: int) -> None:
        if self._writer is None:
            return
        try:
            if self._fault.value == "disk full":
                raise DfxrmError("Error writing file: no space left on device")
            for _ in range(times):
                await self._twin.ask(self._writer.append, array)
        except DfxrmError as error:
            await self._post(HDF1__WriteMessage=str(error), HDF1__WriteStatus="Write error")
            return
        await self._post(HDF1__UniqueId_RBV=number, HDF1__NumCaptured_RBV=len(self._writer))

    # -- drills -----------------------------------------------------------------------------------------------------

    async def _fault_changes(self, word: str) -> None:
        if word == "not primed":
            await self._knows("HDF1", (0, 0))
