"""The record of a run: the journal, the frames, the HDF5 master, and how one is rebuilt from the others."""

from .frames import FrameFiles, FrameWriter, close_frame_files, count_frames, frame_path, is_closed, read_frame
from .journal import Journal, read_documents
from .run import Axis, FrameFile, FrameRef, Run, Stream, read_journal

__all__ = [
    "Axis",
    "FrameFile",
    "FrameFiles",
    "FrameRef",
    "FrameWriter",
    "Journal",
    "Run",
    "Stream",
    "close_frame_files",
    "count_frames",
    "frame_path",
    "is_closed",
    "read_documents",
    "read_frame",
    "read_journal",
]
