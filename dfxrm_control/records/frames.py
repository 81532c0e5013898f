"""Frame files: how a camera writes them, names them and announces them, and how they are read back after a crash.

One HDF5 file holds the frames of one line. It is followed by SWMR readers while it is open, opens in every program once
it is closed, and its frames survive a killed process at any time.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

import event_model
import h5py
import hdf5plugin
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from dfxrm_control.errors import FileFormatError, RecordError
from dfxrm_control.records._bitshuffle import ChunkCompressor

__all__ = [
    "FRAME_DATASET",
    "FRAME_MIMETYPE",
    "FrameFiles",
    "FrameWriter",
    "LineWriter",
    "close_frame_files",
    "count_frames",
    "frame_path",
    "frame_uri",
    "is_closed",
    "read_frame",
    "salvage_frames",
]

FRAME_DATASET = "/entry/data/data"
FRAME_MIMETYPE = "application/x-hdf5"

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _reason(error: BaseException) -> str:
    """Return why HDF5 or the system refused, without HDF5's own file and line numbers."""
    text = getattr(error, "strerror", None) or str(error)
    if "error message = '" in text:
        text = text.split("error message = '")[1].split("'")[0]
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


class LineWriter(Protocol):
    """What fills one frame file: `FrameWriter`, or what stands for a detector that writes its files itself."""

    dataset: str

    def __len__(self) -> int:
        """Return the number of frames written."""
        ...

    def append(self, frame: Any) -> int:
        """Take one frame, or note one that has been written, and return its index in the file."""
        ...

    def close(self) -> None:
        """Leave a file that every program opens. Doing so twice is no error."""
        ...


class FrameWriter:
    """Writes the frames of one line to one HDF5 file, each frame a bitshuffle/LZ4 chunk.

    Parameters
    ----------
    path : Path
        File to make; it must not exist.
    shape : tuple of int
        (rows, columns) of a frame.
    dtype : dtype
        Type of a pixel.
    dataset : str
        Path of the dataset, which has shape (frames, rows, columns) and chunks (1, rows, columns).

    Raises
    ------
    RecordError
        When the file cannot be made.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], dtype: DTypeLike = np.uint16, dataset: str = FRAME_DATASET
    ) -> None:
        self.path = Path(path)
        self.dataset = dataset
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = np.dtype(dtype)
        self._compress = ChunkCompressor(self.shape, self.dtype)
        self._count = 0
        try:
            # The newest file format is what SWMR needs, and a file in it is consistent on disk after every flush.
            self._file: h5py.File | None = h5py.File(self.path, "x", libver="latest")
            self._data = _frame_dataset(self._file, dataset, self.shape, self.dtype)
            self._file.swmr_mode = True
        except OSError as error:
            self._abandon()
            raise RecordError(f"frame file {self.path} cannot be written: {_reason(error)}") from error

    def __len__(self) -> int:
        """Return the number of frames written."""
        return self._count

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file is None

    def append(self, frame: ArrayLike) -> int:
        """Write one frame and return its index in the file.

        When this returns, the frame can be read by a SWMR reader and survives the death of this process.

        Parameters
        ----------
        frame : array of shape (rows, columns)
            The frame, of the file's dtype.

        Raises
        ------
        RecordError
            When the frame does not fit the file, the file is closed, or the disk refuses it.
        """
        if self._file is None:
            raise RecordError(f"frame file {self.path} is closed: no frame can be added")
        array = np.ascontiguousarray(frame)
        if array.shape != self.shape or array.dtype != self.dtype:
            raise RecordError(
                f"frame file {self.path} takes frames of {self.shape[0]} x {self.shape[1]} {self.dtype}, "
                f"not {' x '.join(map(str, array.shape))} {array.dtype}"
            )
        try:
            chunk = self._compress(array)
            self._data.resize(self._count + 1, axis=0)
            self._data.id.write_direct_chunk((self._count, 0, 0), chunk)
            self._data.flush()
        except (OSError, RuntimeError) as error:
            self._drop_last()
            raise RecordError(f"frame {self._count} cannot be written to {self.path}: {_reason(error)}") from error
        self._count += 1
        return self._count - 1

    def close(self) -> None:
        """Close the file so that every HDF5 program opens it. Closing twice is no error.

        Raises
        ------
        RecordError
            When the disk refuses the last bytes; the frames appended before can still be recovered.
        """
        if self._file is None:
            return
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:
            raise RecordError(f"frame file {self.path} cannot be closed: {_reason(error)}") from error
        finally:
            self._file = None

    def _drop_last(self) -> None:
        """Take the place of a frame that was not written away again, so that nobody reads zeros there."""
        with contextlib.suppress(OSError, RuntimeError):
            self._data.resize(self._count, axis=0)

    def _abandon(self) -> None:
        file = getattr(self, "_file", None)
        self._file = None
        if file is not None:
            with contextlib.suppress(OSError, RuntimeError):
                file.close()

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _frame_dataset(file: h5py.File, dataset: str, shape: tuple[int, int], dtype: np.dtype) -> h5py.Dataset:
    """Create the (so far empty) dataset of frames."""
    data = file.create_dataset(
        dataset,
        shape=(0, *shape),
        maxshape=(None, *shape),
        chunks=(1, *shape),
        dtype=dtype,
        **hdf5plugin.Bitshuffle(nelems=0, cname="lz4"),
    )
    _mark_groups(file, data.parent, data.name.rsplit("/", 1)[1])
    return data


def _mark_groups(file: h5py.File, group: h5py.Group, signal: str) -> None:
    """Give the groups above a dataset their NeXus classes, so that a NeXus program plots it."""
    file.attrs["NX_class"] = "NXroot"
    if group.name == "/":
        return
    group.attrs["NX_class"] = "NXdata"
    group.attrs["signal"] = signal
    parts = group.name.strip("/").split("/")
    file.attrs["default"] = parts[0]
    if len(parts) > 1:
        file[parts[0]].attrs["NX_class"] = "NXentry"
        file[parts[0]].attrs["default"] = parts[1]


def is_closed(path: Path) -> bool:
    """Return whether an HDF5 file is closed, so that any program may open it.

    HDF5 notes in the superblock (byte 11 from version 3 on) that a file is open for writing; the note stays there when
    the writer dies. The byte is read without HDF5, which would let the process that holds the file open it again.

    Raises
    ------
    FileFormatError
        When the file is absent or is no HDF5 file.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise FileFormatError(f"frame file {path} cannot be read: {_reason(error)}") from error
    if len(head) < 12 or not head.startswith(_HDF5_SIGNATURE):
        raise FileFormatError(f"frame file {path} is no HDF5 file")
    return head[8] < 3 or head[11] == 0


def count_frames(path: Path, dataset: str = FRAME_DATASET) -> int:
    """Return the number of frames in a closed frame file.

    Raises
    ------
    FileFormatError
        When the file is absent, truncated, foreign or still open for writing.
    """
    if not is_closed(path):
        raise FileFormatError(f"frame file {path} is still open for writing, or its writer died")
    try:
        with h5py.File(path, "r") as file:
            data = file.get(dataset)
            if not isinstance(data, h5py.Dataset) or data.ndim != 3:
                raise FileFormatError(f"frame file {path} has no frames at {dataset}")
            return int(data.shape[0])
    except OSError as error:
        raise FileFormatError(f"frame file {path} cannot be opened: {_reason(error)}") from error


def salvage_frames(path: Path, target: Path, dataset: str = FRAME_DATASET) -> int:
    """Copy the frames of a file whose writer died into a clean file, and return how many there are.

    The file is opened as a SWMR reader, the only way HDF5 allows, and is not changed. The copy ends before the first
    frame that was never written or is damaged.

    Raises
    ------
    FileFormatError
        When the file has no frames that can be read.
    RecordError
        When the copy cannot be written.
    """
    try:
        source = h5py.File(path, "r", libver="latest", swmr=True)
    except OSError as error:
        raise FileFormatError(f"frame file {path} cannot be opened for recovery: {_reason(error)}") from error
    with source:
        data = source.get(dataset)
        if not isinstance(data, h5py.Dataset) or data.ndim != 3 or data.chunks != (1, *data.shape[1:]):
            raise FileFormatError(f"frame file {path} has no frames at {dataset}")
        with FrameWriter(target, data.shape[1:], data.dtype, dataset) as copy:
            for index in range(data.shape[0]):
                try:
                    data.id.read_direct_chunk((index, 0, 0))  # fails where reading would silently give zeros
                    frame = data[index]
                except (OSError, RuntimeError, ValueError):
                    break
                copy.append(frame)
            return len(copy)


def frame_uri(path: Path) -> str:
    """Return the ``file://`` address of a frame file, as StreamResource documents carry it."""
    return "file://localhost" + quote(str(Path(path).absolute()))


def frame_path(uri: str) -> Path:
    """Return the path that a StreamResource's ``file://`` address names."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise FileFormatError(f"frames at {uri!r} are no local file")
    return Path(unquote(parts.path))


@dataclass
class _Line:
    """One file of a camera: where it is, and the frames of the run that went into it."""

    path: Path
    first_index: int
    writer: LineWriter | None
    dataset: str
    announce: event_model.ComposeStreamResourceBundle | None = None


# The frame files that this process holds open, so that the record can close them when a run ends before its cameras are
# unstaged (stock plans wrap the staging around the run).
_held: weakref.WeakSet[FrameFiles] = weakref.WeakSet()


class FrameFiles:
    """The frame files of one camera in one run: it names, opens, fills, closes and announces them.

    Frames are counted over the whole run, whatever file they go to. A file is made when its first frame arrives, so a
    line without a frame leaves none behind.

    How bluesky 1.15.1 takes the announcements (``bundlers.py``), which fixes what `collect_asset_docs` may hand out:

    - ``read`` collects the documents into a cache and ``save`` emits them, before the event. ``create`` empties the
      cache: after a hard pause between ``read`` and ``save`` what was collected is lost, a StreamResource included, and
      a StreamDatum that refers to it makes ``save`` fail. So `pause` makes the next announcement start with a new
      StreamResource; a uid must not come twice, an address may.
    - ``save`` allows one index per event ("Received multiple indices in a `stream_datum` document for one event"), so
      only the last frame is announced, as {start: n-1, stop: n}. A frame exposed for a point that is then repeated
      stays unannounced: an orphan.
    - ``seq_nums`` are filled in by the RunEngine and tie the frame to the event of that number in the datum's
      descriptor. After a pause between ``save`` and the next checkpoint the number is used twice; the later event
      counts.
    - One run may have any number of StreamResources for one data key, and one resource may serve several streams.

    Parameters
    ----------
    directory : Path
        Folder of the run's frame files; it is made if need be.
    camera : str
        Logical name, the beginning of each file's name.
    shape : tuple of int
        (rows, columns) of a frame.
    dtype : dtype
        Type of a pixel.
    frames_per_file : int
        Largest number of frames in a file when nothing says how long a line is.
    data_key : str, optional
        Data key of the frames in descriptors; default: the camera's name.
    open_file : callable, optional
        Called with path, shape and dtype, begins a file; default: `FrameWriter`.
    """

    def __init__(
        self,
        directory: Path,
        camera: str,
        shape: tuple[int, int],
        dtype: DTypeLike = np.uint16,
        frames_per_file: int = 1000,
        data_key: str | None = None,
        open_file: Callable[[Path, tuple[int, int], np.dtype], LineWriter] = FrameWriter,
    ) -> None:
        self.directory = Path(directory)
        self.camera = camera
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = np.dtype(dtype)
        self.frames_per_file = frames_per_file
        self.data_key = data_key or camera
        self._open_writer = open_file
        self._lines: list[_Line] = []
        self._count = 0
        self._announced = 0
        self._in_line = False
        self._sealed = False
        self._lock = threading.Lock()
        _held.add(self)

    @property
    def count(self) -> int:
        """Number of frames taken in the run so far: `get_index` of the camera."""
        return self._count

    @property
    def path(self) -> Path | None:
        """File that the last frame went to; None before the first."""
        return self._lines[-1].path if self._lines else None

    @property
    def closed(self) -> bool:
        """Whether the run of these files is over, so that a camera that goes on needs new ones."""
        return self._sealed

    def begin_line(self) -> None:
        """End the present file; all frames up to `end_line` go to the next one, however many there are."""
        with self._lock:
            self._close_file()
            self._in_line = True

    def end_line(self) -> None:
        """Close the present file, so that every program opens it. Doing so twice is no error."""
        with self._lock:
            self._close_file()
            self._in_line = False

    def append(self, frame: ArrayLike) -> int:
        """Write a frame and return its index in the run.

        Raises
        ------
        RecordError
            When the frame cannot be written, or its run is over.
        """
        with self._lock:
            self._writer().append(frame)
            self._count += 1
            return self._count - 1

    def make_ready(self) -> None:
        """Begin the file of the next frame, for a detector that must know it before it exposes.

        Raises
        ------
        RecordError
            When it cannot be begun, or the run is over.
        """
        with self._lock:
            self._writer()

    def _writer(self) -> LineWriter:
        if self._sealed:
            raise RecordError(f"a frame of {self.camera} came after its run was over; it is not recorded")
        line = self._lines[-1] if self._lines else None
        if line is None or line.writer is None or self._is_full(line.writer):
            self._close_file()
            line = self._open_file()
        assert line.writer is not None
        return line.writer

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        """Yield the documents that announce the last frame, if it was not announced: the camera's method of that name.

        Parameters
        ----------
        index : int, optional
            Announce the frame before this index instead of the last one.
        """
        last = self._count if index is None else min(index, self._count)
        if last <= self._announced:
            return
        line = next(line for line in reversed(self._lines) if line.first_index < last)
        if line.announce is None:
            line.announce = event_model.compose_stream_resource(
                mimetype=FRAME_MIMETYPE,
                uri=frame_uri(line.path),
                data_key=self.data_key,
                parameters={
                    "dataset": line.dataset,
                    "chunk_shape": [1, *self.shape],
                    "first_index": line.first_index,
                },
            )
            yield "stream_resource", line.announce.stream_resource_doc
        self._announced = last
        yield "stream_datum", line.announce.compose_stream_datum({"start": last - 1, "stop": last})

    def describe(self) -> dict[str, Any]:
        """Return the data key of the frames: the camera's `describe`."""
        return {
            self.data_key: {
                "source": f"camera:{self.camera}",
                "dtype": "array",
                "dtype_numpy": self.dtype.str,
                "shape": [1, *self.shape],
                "external": "STREAM:",
            }
        }

    def pause(self) -> None:
        """Announce anew after a pause, because the RunEngine may have dropped what it collected before it."""
        with self._lock:
            for line in self._lines:
                line.announce = None
            self._announced = min(self._announced, self._count - 1)

    def close(self) -> None:
        """Close what is open and take no further frame: the run is over. Doing so twice is no error."""
        with self._lock:
            self._sealed = True
            self._close_file()
        _held.discard(self)

    def _is_full(self, writer: LineWriter) -> bool:
        return not self._in_line and len(writer) >= self.frames_per_file

    def _open_file(self) -> _Line:
        path = self.directory / f"{self.camera}_{len(self._lines):04d}.h5"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"folder {self.directory} cannot be made: {_reason(error)}") from error
        writer = self._open_writer(path, self.shape, self.dtype)
        line = _Line(path, self._count, writer, writer.dataset)
        self._lines.append(line)
        return line

    def _close_file(self) -> None:
        if self._lines and self._lines[-1].writer is not None:
            writer, self._lines[-1].writer = self._lines[-1].writer, None
            writer.close()


def close_frame_files(directory: Path) -> None:
    """Close every frame file this process holds open under a run's folder.

    Raises
    ------
    RecordError
        When a file cannot be closed; the others are closed all the same.
    """
    failure: RecordError | None = None
    for files in list(_held):
        if files.directory.is_relative_to(directory):
            try:
                files.close()
            except RecordError as error:
                failure = error
    if failure is not None:
        raise failure


def read_frame(path: Path, index: int, dataset: str = FRAME_DATASET) -> NDArray:
    """Return one frame of a frame file, also of one that is still being written.

    Raises
    ------
    FileFormatError
        When the file is absent or foreign or has no such frame.
    """
    try:
        with h5py.File(path, "r", libver="latest", swmr=not is_closed(path)) as file:
            return file[dataset][index]
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise FileFormatError(f"frame {index} of {path} cannot be read: {_reason(error)}") from error
