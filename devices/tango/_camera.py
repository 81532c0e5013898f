"""A camera over Tango: LIMA's device server, which writes the frames itself.

Each file is one acquisition of LIMA's: ``prepareAcq`` before its first frame, one ``startAcq`` per frame
(``INTERNAL_TRIGGER_MULTI``), ``stopAcq`` at its end. LIMA saves nothing of an acquisition without end, and a line may
get more frames than were planned: so the acquisition is always of `LINE_FRAMES`, and is stopped when the line is over.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import tango

from devices.tango._attribute import Attribute, Reachable
from devices.tango._device import DisconnectedError, tango_device
from dfxrm_control.backend import Backend
from dfxrm_control.config import CameraControl
from dfxrm_control.errors import ConfigError, DeviceError, RecordError
from dfxrm_control.tango_address import Address

__all__ = ["TangoCamera"]

DATASET = "/entry_0000/measurement/data"
"""Where LIMA links the frames of a file, whatever its instrument and detector are called."""
LINE_FRAMES = 10_000
POLL_S = 0.001
LONGEST_POLL_S = 0.01


class _LimaFile:
    """The file that LIMA writes for one line."""

    dataset = DATASET

    def __init__(self, camera: TangoCamera, path: Path) -> None:
        self._camera = camera
        self.path = path
        self.exposure_s: float | None = None
        self.started = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, frame: int) -> int:
        """Note a frame that has been saved, and return its index in the file."""
        self._count += 1
        return self._count - 1

    def close(self) -> None:
        """Let LIMA end the file."""
        self._camera.end_file(self)


class TangoCamera(Reachable):
    """A camera behind LIMA's Tango server.

    Parameters
    ----------
    name : str
        Logical name of the camera.
    config : CameraControl
        Its ``address`` is that of the ``LimaCCDs`` device, ``[tango://host:port/]domain/family/member[#dbase=no]``.
    backend : Backend, optional
        Not used.

    Raises
    ------
    ConfigError
        When the address has another form.
    """

    writes_files = True

    def __init__(self, *, name: str, config: CameraControl, backend: Backend | None = None) -> None:
        if not config.address:
            raise ConfigError(f"camera {name} is on Tango and needs an address domain/family/member")
        address = Address.parse(config.address)
        if address.attribute:
            raise ConfigError(f"camera {name}: {config.address!r} names an attribute, not a Tango device")
        self.name = name
        self.source = address.source
        # what is known here says more than that the time is over, which the detector says when it is
        self._timeout_s = 0.8 * config.timeout_s
        self._tango = tango_device(address.device)
        self._type_of = Attribute(address.of("image_type"))
        self._file: _LimaFile | None = None

    @property
    def called(self) -> str:
        """How errors name the camera: with its address."""
        return f"camera {self.name} ({self.source})"

    def wait_for_connection(self, timeout: float = 2.0) -> None:
        """Wait until the device answers.

        Raises
        ------
        DeviceError
            When it does not.
        """
        try:
            super().wait_for_connection(timeout)
        except TimeoutError as error:
            raise DeviceError(str(error)) from error

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of a frame."""
        pixel = self._type_of.read().value
        if pixel != "Bpp16":
            raise DeviceError(f"{self.called} gives pixels of type {pixel}; it must be Bpp16")
        rows, columns = self._ask("image_height", "image_width")
        return int(rows), int(columns)

    def _ask(self, *attributes: str) -> tuple[Any, ...]:
        return tuple(found.value for found in self._tango.read(*attributes))

    def _words(self) -> str:
        (words,) = self._ask("acq_status_fault_error")
        return f"; it says: {words}" if words else ""

    # -- files ----------------------------------------------------------------------------------------------------

    def open_file(self, path: Path, shape: tuple[int, int], dtype: np.dtype) -> _LimaFile:
        """Choose the file of the next acquisition; LIMA begins it with its first frame.

        Raises
        ------
        DeviceError
            When LIMA does not answer, or refuses a setting.
        """
        parts = re.fullmatch(r"(.*?)(\d+)(\.\w+)", path.name)
        if parts is None:
            raise RecordError(f"{self.called} numbers its files, and cannot write one called {path.name}")
        prefix, number, suffix = parts.groups()
        with tango.EnsureOmniThread():
            if self._ask("acq_status")[0] != "Ready":
                self._tango.command("stopAcq")
            for name, value in (
                ("acq_trigger_mode", "INTERNAL_TRIGGER_MULTI"),
                ("acq_nb_frames", LINE_FRAMES),
                ("saving_mode", "AUTO_FRAME"),
                ("saving_format", "HDF5BS"),
                ("saving_overwrite_policy", "ABORT"),
                ("saving_frame_per_file", LINE_FRAMES),
                ("saving_directory", str(path.parent)),
                ("saving_prefix", prefix),
                ("saving_suffix", suffix),
                ("saving_index_format", f"%0{len(number)}d"),
                ("saving_next_number", int(number)),
            ):
                self._tango.write(name, value)
        self._file = _LimaFile(self, path)
        return self._file

    def _prepare(self, file: _LimaFile, exposure_s: float) -> None:
        self._tango.write("acq_expo_time", exposure_s)
        try:
            self._tango.command("prepareAcq")
        except DisconnectedError:
            raise
        except DeviceError as error:
            raise RecordError(f"{self.called} cannot begin the file {file.path}: {error}") from error
        file.exposure_s = exposure_s

    def end_file(self, file: _LimaFile) -> None:
        """Let LIMA end a file. Doing so twice is no error.

        Raises
        ------
        DeviceError
            When LIMA is at fault, or does not end it, or has saved more frames than were asked for.
        """
        if self._file is not file:
            return
        self._file = None
        if file.exposure_s is None:
            return
        with tango.EnsureOmniThread():
            try:
                self._tango.command("stopAcq")
                deadline = time.monotonic() + self._timeout_s
                while (found := self._ask("acq_status", "last_image_saved"))[0] == "Running":
                    if time.monotonic() > deadline:
                        raise DeviceError(f"{self.called} did not end its file {file.path} in {self._timeout_s:g} s")
                    time.sleep(LONGEST_POLL_S)
            except DisconnectedError:
                # a server that is gone has left its file as it is; how the run ended matters more
                return
            if found[1] >= file.started:
                raise DeviceError(self._twice(found[1] + 1, file.started))

    # -- frames ---------------------------------------------------------------------------------------------------

    def expose(self, exposure_s: float) -> int:
        """Expose one frame, blocking until LIMA has saved it, and return its number in the file.

        Raises
        ------
        DeviceError
            When it is late, missing, doubled or could not be saved; LIMA's own words are in the sentence.
        RecordError
            When the file cannot be begun, or cannot be seen from here.
        """
        file = self._file
        if file is None:
            raise DeviceError(f"{self.called} has no file for its frames")
        number = file.started
        if number >= LINE_FRAMES:
            raise DeviceError(f"{self.called} takes no more than {LINE_FRAMES} frames into one file")
        try:
            with tango.EnsureOmniThread():
                if file.exposure_s is None:
                    self._prepare(file, exposure_s)
                self._tango.command("startAcq")
                file.started += 1
                self._until_saved(file, number, exposure_s)
        except DisconnectedError as error:
            raise DisconnectedError(
                f"{self.called} was lost at frame {number + 1} of {file.path.name}: {error}"
            ) from error
        if number == 0:
            self._must_see(file.path)
        return number

    def _until_saved(self, file: _LimaFile, number: int, exposure_s: float) -> None:
        deadline = time.monotonic() + exposure_s + self._timeout_s
        time.sleep(exposure_s)
        pause_s = POLL_S
        while True:
            status, acquired, saved = self._ask("acq_status", "last_image_acquired", "last_image_saved")
            if (last := max(acquired, saved)) > number:
                # told once, it is not told again when the file ends
                file.started = last + 1
                raise DeviceError(self._twice(last + 1, number + 1))
            if status == "Fault":
                raise DeviceError(f"{self.called} could not save a frame{self._words()}")
            if saved == number:
                return
            if self._file is not file:
                raise DeviceError(f"{self.called} was stopped during an exposure")
            if time.monotonic() > deadline:
                reason = "it took one and did not save it" if acquired == number else "it took none"
                raise DeviceError(f"{self.called} delivered no frame within {self._timeout_s:g} s: {reason}")
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, LONGEST_POLL_S)

    def _twice(self, has: int, asked: int) -> str:
        return f"{self.called} delivered a frame twice: it has {has} frames, {asked} were asked for"

    def _must_see(self, path: Path) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not path.exists():
            if time.monotonic() > deadline:
                raise RecordError(
                    f"{self.called} says that it saved a frame, but {path} is not there: camera and session must see "
                    "the folder under the same path"
                )
            time.sleep(LONGEST_POLL_S)

    def needs_new_file(self, exposure_s: float) -> bool:
        """Return whether the frames of the present file have another exposure: LIMA keeps it for an acquisition."""
        return self._file is not None and self._file.exposure_s not in (None, exposure_s)

    def release(self) -> None:
        """Do nothing: the end of a file has ended the taking of frames."""
