"""The record of a run: the journal, the frames, the HDF5 master, and how one is rebuilt from the others."""

from dfxrm_control.records.frames import (
    FRAME_DATASET,
    FrameFiles,
    FrameWriter,
    LineWriter,
    close_frame_files,
    count_frames,
    frame_path,
    is_closed,
    read_frame,
)
from dfxrm_control.records.journal import Journal, read_documents
from dfxrm_control.records.master import check_master, write_master
from dfxrm_control.records.recorder import Recorder
from dfxrm_control.records.recover import recover
from dfxrm_control.records.run import Axis, FrameFile, FrameRef, Run, Stream, read_journal, written_names

__all__ = [
    "FRAME_DATASET",
    "Axis",
    "FrameFile",
    "FrameFiles",
    "FrameRef",
    "FrameWriter",
    "Journal",
    "LineWriter",
    "Recorder",
    "Run",
    "Stream",
    "check_master",
    "close_frame_files",
    "count_frames",
    "frame_path",
    "is_closed",
    "read_documents",
    "read_frame",
    "read_journal",
    "recover",
    "write_master",
    "written_names",
]
