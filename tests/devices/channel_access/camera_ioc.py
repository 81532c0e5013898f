"""An areaDetector stand-in, one driver and its HDF5 plugin: ``python camera_ioc.py PORT PREFIX``.

It keeps to the habits of ADCore that a client meets: the plugin knows no shape before its first frame and begins no
file then, Acquire is acknowledged at the end of the exposure, a file is a stream between Capture 1 and Capture 0. The
variable PREFIXfault names what goes wrong with the next frames.
"""

import asyncio
import sys

from record_ioc import on_port, serve

ROWS, COLUMNS = 8, 6


def camera():
    import h5py
    import numpy as np
    from caproto import ChannelType
    from caproto.server import PVGroup, pvproperty

    def text(name, value=" "):
        return pvproperty(name=name, value=value, dtype=ChannelType.CHAR, max_length=256)

    class Camera(PVGroup):
        fault = pvproperty(name="fault", value="none", dtype=ChannelType.STRING)
        acquire = pvproperty(name="cam1:Acquire", value=0)
        acquire_time = pvproperty(name="cam1:AcquireTime", value=0.1)
        image_mode = pvproperty(name="cam1:ImageMode", value=2)
        counter = pvproperty(name="cam1:ArrayCounter_RBV", value=0)
        callbacks = pvproperty(name="cam1:ArrayCallbacks", value=0)
        rows = pvproperty(name="cam1:ArraySizeY_RBV", value=ROWS)
        columns = pvproperty(name="cam1:ArraySizeX_RBV", value=COLUMNS)
        pixel = pvproperty(
            name="cam1:DataType_RBV", value="UInt16", dtype=ChannelType.ENUM, enum_strings=["Int8", "UInt8", "UInt16"]
        )
        listens = pvproperty(name="HDF1:EnableCallbacks", value=0)
        known_rows = pvproperty(name="HDF1:ArraySize1_RBV", value=0)
        known_columns = pvproperty(name="HDF1:ArraySize0_RBV", value=0)
        path = text("HDF1:FilePath")
        path_exists = pvproperty(name="HDF1:FilePathExists_RBV", value=0)
        file_name = text("HDF1:FileName")
        template = text("HDF1:FileTemplate")
        increment = pvproperty(name="HDF1:AutoIncrement", value=1)
        mode = pvproperty(name="HDF1:FileWriteMode", value=0)
        wanted = pvproperty(name="HDF1:NumCapture", value=1)
        capture = pvproperty(name="HDF1:Capture", value=0)
        capturing = pvproperty(name="HDF1:Capture_RBV", value=0)
        captured = pvproperty(name="HDF1:NumCaptured_RBV", value=0)
        dropped = pvproperty(name="HDF1:DroppedArrays_RBV", value=0)
        failed = pvproperty(name="HDF1:WriteStatus", value=0)
        message = text("HDF1:WriteMessage")
        unique = pvproperty(name="HDF1:UniqueId_RBV", value=0)

        file = None

        @path.putter
        async def path(self, instance, value):
            from pathlib import Path

            await self.path_exists.write(int(Path(value).is_dir()))

        @capture.putter
        async def capture(self, instance, value):
            if value and self.known_rows.value:
                name = self.template.value % (self.path.value, self.file_name.value)
                self.file = h5py.File(name, "w")
                shape = (self.known_rows.value, self.known_columns.value)
                self.file.create_dataset(
                    "/entry/data/data", (0, *shape), "u2", maxshape=(None, *shape), chunks=(1, *shape)
                )
                await self.captured.write(0)
                await self.failed.write(0)
                await self.capturing.write(1)
            elif self.file is not None:
                self.file.close()
                self.file = None
                await self.capturing.write(0)

        @acquire.putter
        async def acquire(self, instance, value):
            fault = self.fault.value
            if not value:
                return
            await asyncio.sleep(self.acquire_time.value)
            if fault == "none taken":
                return
            await self.counter.write(self.counter.value + 1)
            if not (self.callbacks.value and self.listens.value):
                return
            await self.known_rows.write(ROWS)
            await self.known_columns.write(COLUMNS)
            if self.file is None:
                return
            if fault == "dropped":
                await self.dropped.write(self.dropped.value + 1)
                return
            if fault == "disk full":
                await self.message.write("Error writing file: no space left on device")
                await self.failed.write(1)
                return
            for _ in range(2 if fault == "twice" else 1):
                frames = self.file["/entry/data/data"]
                frames.resize(len(frames) + 1, axis=0)
                frames[-1] = np.full((ROWS, COLUMNS), self.counter.value, np.uint16)
                await self.unique.write(self.counter.value)
                await self.captured.write(len(frames))

    return Camera


if __name__ == "__main__":
    on_port(int(sys.argv[1]))
    serve(camera()(prefix=sys.argv[2]).pvdb)
