"""Bitshuffle/LZ4 compression of one HDF5 chunk outside HDF5's filter pipeline, in two threads.

The filter pipeline compresses under HDF5's global lock, in one thread. The same C function, taken from the plugin
that hdf5plugin ships, runs without that lock, on two halves of a frame at once. The bytes are those of the
registered filter 32008, so every reader with the bitshuffle plugin opens them.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hdf5plugin
import numpy as np

from dfxrm_control.errors import RecordError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER_BYTES = 12
_THREADS = 2


@cache
def _library() -> ctypes.CDLL:
    matches = sorted(Path(hdf5plugin.PLUGIN_PATH).glob("libh5bshuf.*"))
    try:
        library = ctypes.CDLL(str(matches[0]))
        library.bshuf_compress_lz4.restype = ctypes.c_int64
        library.bshuf_compress_lz4.argtypes = [ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_size_t] * 3
        for name in ("bshuf_compress_lz4_bound", "bshuf_default_block_size"):
            function = getattr(library, name)
            function.restype = ctypes.c_size_t
            function.argtypes = [ctypes.c_size_t] * (3 if name.endswith("bound") else 1)
    except (IndexError, OSError, AttributeError) as error:
        raise RecordError(
            f"the bitshuffle library of hdf5plugin in {hdf5plugin.PLUGIN_PATH} cannot be loaded: {error}"
        ) from error
    return library


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    # keyed by process, because threads do not survive a fork
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="bitshuffle")


class ChunkCompressor:
    """Compresses frames of one shape and dtype; owns the buffers, so one instance serves one thread at a time.

    Parameters
    ----------
    shape : tuple of int
        Shape of a frame.
    dtype : dtype
        Type of a pixel.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        library = _library()
        self._elements = int(np.prod(shape))
        self._itemsize = dtype.itemsize
        self._block = int(library.bshuf_default_block_size(self._itemsize))
        blocks = self._elements // self._block
        cut = (blocks // _THREADS) * self._block
        # A part may only end where a block ends; the last part takes the rest, with the elements that fill no block.
        self._parts = [(0, cut), (cut, self._elements)] if cut else [(0, self._elements)]
        bounds = [int(library.bshuf_compress_lz4_bound(b - a, self._itemsize, self._block)) for a, b in self._parts]
        self._offsets = [_HEADER_BYTES + sum(bounds[:i]) for i in range(len(bounds))]
        self._out = np.empty(_HEADER_BYTES + sum(bounds), np.uint8)
        # header of the filter: bytes before compression and bytes per block, both big endian
        self._out[:8] = np.frombuffer((self._elements * self._itemsize).to_bytes(8, "big"), np.uint8)
        self._out[8:12] = np.frombuffer((self._block * self._itemsize).to_bytes(4, "big"), np.uint8)

    def __call__(self, frame: NDArray) -> NDArray[np.uint8]:
        """Return the compressed chunk; it is valid until the next call."""
        sizes = [0] * len(self._parts)
        futures = [_pool(os.getpid()).submit(self._compress, frame, part) for part in range(1, len(self._parts))]
        sizes[0] = self._compress(frame, 0)
        end = self._offsets[0] + sizes[0]
        for future, offset in zip(futures, self._offsets[1:], strict=True):
            size = future.result()
            self._out[end : end + size] = self._out[offset : offset + size]
            end += size
        return self._out[:end]

    def _compress(self, frame: NDArray, part: int) -> int:
        first, last = self._parts[part]
        size = _library().bshuf_compress_lz4(
            frame.ctypes.data + first * self._itemsize,
            self._out.ctypes.data + self._offsets[part],
            last - first,
            self._itemsize,
            self._block,
        )
        if size < 0:
            raise RecordError(f"a frame could not be compressed (bitshuffle error {size})")
        return int(size)
