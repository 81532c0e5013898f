"""Folders that results go to."""

from __future__ import annotations

from pathlib import Path

from dfxrm_control.errors import RecordError

__all__ = ["output_folder"]


def output_folder(folder: Path) -> Path:
    """Return a folder, made if it was not there.

    Raises
    ------
    RecordError
        When it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(
            f"folder {folder} cannot be made: {error.strerror or error}; another is chosen with --out FOLDER"
        ) from error
    return folder
