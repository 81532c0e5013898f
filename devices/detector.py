"""Far-field and near-field detectors: a camera on its translations.

A camera's life is stage, prepare (each line), trigger (each frame), complete (each line), unstage. A plan that knows
nothing of lines leaves out prepare and complete. Frames go to files of the run that is open, one file per line; the
camera is told where by its `destination`, and announces each point's last frame by StreamResource and StreamDatum
documents.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ophyd import Component as Cpt
from ophyd.status import DeviceStatus

from devices._axis import Setting
from devices._logical import AxisComponent, ChannelComponent, LogicalDevice, camera_of
from devices._waiter import wall_waiter
from dfxrm_control.acquisition import FrameBatch, FrameDestination
from dfxrm_control.errors import ConfigError, DeviceError, RecordError
from dfxrm_control.records import FrameFiles

__all__ = ["Detector", "FarField", "NearField"]


class Detector(LogicalDevice):
    """A camera and what it stands on. Parameters as for `LogicalDevice`.

    Attributes
    ----------
    destination : FrameDestination, optional
        Called with the camera's name, gives the folder for the frames of the run that is open. Set by the session.
    """

    exposure = Cpt(Setting, kind="config", doc="exposure time of a frame, s")

    def __init__(self, name: str, config: Any, microscope: Any, *args: Any, **kwargs: Any) -> None:
        self.destination: FrameDestination | None = None
        try:
            self._camera_config = microscope.instrument.cameras[name]
        except KeyError:
            raise ConfigError(
                f"devices.{name}: the camera is not described under instrument.cameras "
                f"({', '.join(microscope.instrument.cameras)})"
            ) from None
        super().__init__(name, config, microscope, *args, **kwargs)
        self._camera = camera_of(name, config, self.backend)
        self._timeout_s = config.camera.timeout_s
        self._files: FrameFiles | None = None
        # of every run that is open, since a run may be opened inside another and go on when that one is over
        self._files_of_runs: dict[Path, FrameFiles] = {}
        self._staged_for_frames = False
        self._generation = 0
        # held while a frame is filed, so that one that was given up cannot slip into a file that has been closed
        self._filing = threading.Lock()
        self._exposing = threading.Lock()
        self._pending: set[DeviceStatus] = set()
        self._durations_s: dict[DeviceStatus, float] = {}
        self._pending_lock = threading.Lock()
        low, high = self._camera_config.min_exposure_s, self._camera_config.max_exposure_s
        self.exposure.specify(min(max(0.1, low), high), "s", low, high)

    @property
    def camera(self) -> Any:
        """What exposes the frames, on the control system that the configuration names."""
        return self._camera

    # -- the life of a detector -------------------------------------------------------------------------------------

    def stage(self) -> Any:
        """Get ready for a run: settings are as they are, no file is open yet."""
        staged = super().stage()
        self._staged_for_frames = True
        return staged

    def wait_for_connection(self, all_signals: bool = False, timeout: Any = 10.0) -> None:
        """Wait until every part and the camera are connected.

        Raises
        ------
        DeviceError
            When some are not in time, naming them and their addresses.
        """
        super().wait_for_connection(all_signals=all_signals, timeout=timeout)
        self._camera.wait_for_connection(timeout)

    def prepare(self, batch: FrameBatch) -> DeviceStatus:
        """Set the exposure time and begin the file of the next line.

        Raises
        ------
        LimitError
            When the camera cannot expose for so long or so short.
        DeviceError
            When the camera is not staged, or asked for a trigger it does not have.
        """
        self._require_staged("prepare")
        if batch.trigger != "internal":
            raise DeviceError(f"camera {self.name} cannot be triggered by {batch.trigger!r}; it has 'internal'")
        if batch.frames < 1:
            raise DeviceError(f"camera {self.name}: a line of {batch.frames} frames was asked; it has at least 1")
        self.exposure.put(batch.exposure_s)
        return self._in_background(lambda _: self._open().begin_line(), 0.0, "open the file of the next line")

    def trigger(self) -> DeviceStatus:
        """Expose one frame; done when it is written and flushed.

        A frame that is still being exposed (its point is repeated after a pause) is finished before.

        Raises
        ------
        DeviceError
            When the camera is not staged.
        """
        self._require_staged("trigger")
        exposure_s = self.exposure.get()

        def take(generation: int) -> None:
            files = self._open()
            if self._camera.writes_files:
                if self._camera.needs_new_file(exposure_s):
                    files.end_line()
                files.make_ready()
            frame = self._camera.expose(exposure_s)
            with self._filing:
                if generation == self._generation:
                    files.append(frame)
                elif self._camera.writes_files:
                    # the frame that was given up is in the detector's own file: no further one may follow it there
                    files.end_line()

        return self._in_background(take, exposure_s, f"deliver a frame of {exposure_s:g} s")

    def kickoff(self) -> DeviceStatus:
        """Start a batch that needs no trigger per frame: there is none in a step scan, so it is done at once."""
        status = DeviceStatus(self)
        status.set_finished()
        return status

    def complete(self) -> DeviceStatus:
        """Close the file of the line; done when it is closed."""

        def close(_: int) -> None:
            if self._files is not None:
                self._files.end_line()

        return self._in_background(close, 0.0, "close the file of the line")

    def unstage(self) -> Any:
        """Give up an exposure that is under way and close what is open."""
        self._staged_for_frames = False
        self._abort("unstaged")
        if self._files is not None:
            self._files.end_line()
        self._camera.release()
        return super().unstage()

    def stop(self, *, success: bool = False) -> None:
        """Give up an exposure that is under way; stop the translations."""
        self._abort("stopped")
        super().stop(success=success)

    def pause(self) -> None:
        """Announce anew after a pause, because the RunEngine may drop what it had collected."""
        for files in self._files_of_runs.values():
            files.pause()

    def resume(self) -> None:
        """Go on after a pause: the plan triggers again by itself."""

    # -- documents ------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, Any]:
        """Return what is read beside the frame: nothing, since each value per event costs about a millisecond."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return the data key of the frames, which lie outside of the documents."""
        rows, columns = self._frame_shape()
        key = {"source": f"camera:{self.name}", "dtype": "array", "dtype_numpy": "<u2", "shape": [1, rows, columns]}
        return {self.name: {**key, "external": "STREAM:"}}

    @property
    def hints(self) -> dict[str, Any]:
        """A frame is nothing for a table or a plot of numbers."""
        return {"fields": []}

    def read_configuration(self) -> dict[str, Any]:
        """Return the exposure time."""
        return self.exposure.read()

    def describe_configuration(self) -> dict[str, Any]:
        """Return the data key of the exposure time."""
        return self.exposure.describe()

    def get_index(self) -> int:
        """Return the number of frames taken in the run so far."""
        return self._files.count if self._files is not None else 0

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        """Yield the documents that announce the last frame, if that has not been done.

        Parameters
        ----------
        index : int, optional
            Announce the frame before this index instead of the last one.
        """
        if self._files is not None:
            yield from self._files.collect_asset_docs(index)

    # -- how ------------------------------------------------------------------------------------------------------

    def _require_staged(self, verb: str) -> None:
        if not self._staged_for_frames:
            raise DeviceError(f"camera {self.name} must be staged before {verb}; plans do so with stage_decorator")

    def _frame_shape(self) -> tuple[int, int]:
        """Return (rows, columns) of a frame, which must be those that the instrument describes."""
        found: tuple[int, int] = self._camera.shape
        described = (self._camera_config.rows, self._camera_config.columns)
        if found != described:
            raise DeviceError(
                f"{self._camera.called} gives frames of {found[0]} x {found[1]} pixels, but instrument.cameras."
                f"{self.name} describes {described[0]} x {described[1]}: set its region of interest or the description"
            )
        return found

    def _open(self) -> FrameFiles:
        """Return the files of the run that is open; a new run has a folder of its own."""
        if self.destination is None:
            raise RecordError(f"camera {self.name} has been told no folder for its frames; set its destination")
        folder = self.destination(self.name)
        if self._files is not None and self._files.directory == folder:
            return self._files
        if self._files is not None:
            self._files.end_line()
        self._files_of_runs = {place: files for place, files in self._files_of_runs.items() if not files.closed}
        self._files = self._files_of_runs.get(folder)
        if self._files is None:
            self._files = self._files_of_runs[folder] = FrameFiles(
                folder,
                self.name,
                self._frame_shape(),
                frames_per_file=self._camera_config.frames_per_file,
                open_file=self._camera.open_file,
            )
        return self._files

    def _in_background(self, work: Callable[[int], None], duration_s: float, what: str) -> DeviceStatus:
        """Do what blocks in a thread, one after the other, and give back its status, which ends in finite time."""
        status = DeviceStatus(self, call_stop_on_failure=False)
        with self._pending_lock:
            # also exposures that were given up: they still hold the camera
            ahead_s = sum(self._durations_s.values())
            self._durations_s[status] = duration_s
            self._pending.add(status)
            generation = self._generation
        limit_s = ahead_s + duration_s + self._timeout_s
        alarm = wall_waiter().after(
            limit_s,
            lambda _: self._end(status, DeviceError(f"{self._camera.called} did not {what} within {limit_s:.3g} s")),
        )

        def run() -> None:
            failure: Exception | None = None
            with self._exposing:
                try:
                    work(generation)
                except Exception as error:
                    failure = error
            alarm.cancel()
            with self._pending_lock:
                del self._durations_s[status]
            self._end(status, failure)

        threading.Thread(target=run, name=f"{self.name}: {what}", daemon=True).start()
        return status

    def _end(self, status: DeviceStatus, error: Exception | None) -> None:
        with self._pending_lock:
            if status not in self._pending:
                return
            self._pending.discard(status)
        if error is None:
            status.set_finished()
        else:
            status.set_exception(error)

    def _abort(self, why: str) -> None:
        with self._filing, self._pending_lock:
            self._generation += 1
            pending = list(self._pending)
        for status in pending:
            sentence = f"{self._camera.called} was {why} during an exposure; its frame was given up"
            self._end(status, DeviceError(sentence))


class FarField(Detector):
    """The camera at the end of the diffracted beam, behind the objective."""

    mainx = AxisComponent(kind="omitted", doc="along the beam, mm; negative by convention")
    ffy = AxisComponent(kind="omitted", doc="across the beam, mm")
    ffz = AxisComponent(kind="omitted", doc="up, mm")
    far_field_camera_objective = ChannelComponent(kind="omitted", doc="visible-light objective before the camera")


class NearField(Detector):
    """The camera close to the sample, which sees the diffracted beam without the objective."""

    nfx = AxisComponent(kind="omitted", doc="along the beam, mm")
    nfy = AxisComponent(kind="omitted", doc="across the beam, mm")
    nfz = AxisComponent(kind="omitted", doc="up, mm")
