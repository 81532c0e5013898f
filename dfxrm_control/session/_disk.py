"""Looking at the disks before a run, while a sentence still helps."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from dfxrm_control.config import DataConfig
from dfxrm_control.errors import RecordError

__all__ = ["check_disk"]

_GB = 1e9
_JOURNAL_BYTES = 64e6


def check_disk(data: DataConfig) -> None:
    """Make sure that records can be written: both folders take files, and there is room.

    Raises
    ------
    RecordError
        Naming the folder and what is wrong with it.
    """
    for folder, needed, what in (
        (data.directory, data.minimum_free_gb * _GB, "data"),
        (data.journal_directory, min(_JOURNAL_BYTES, data.minimum_free_gb * _GB), "journal"),
    ):
        _writable(Path(folder), what)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise RecordError(
                f"{what} folder {folder} has {free / _GB:.3g} GB free, less than the {needed / _GB:.3g} GB that a run "
                f"needs (data.minimum_free_gb)"
            )


def _writable(folder: Path, what: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".dfxrm-", dir=folder)
        os.close(handle)
        Path(name).unlink()
    except OSError as error:
        raise RecordError(
            f"{what} folder {folder} cannot be written to: {error.strerror or error}; another is chosen with "
            f"--set data.{'directory' if what == 'data' else 'journal_directory'}=FOLDER"
        ) from error
