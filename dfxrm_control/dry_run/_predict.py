"""What a plan will give: the plan run on the twin, in a folder that is thrown away, and its images and maps kept."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfxrm_control.config import BackendConfig, MicroscopeConfig
from dfxrm_control.dry_run._notebook import offline
from dfxrm_control.errors import ConfigError, FileFormatError, RecordError
from dfxrm_control.records import read_frame, read_journal
from dfxrm_control.session import Outcome, Session, kept_arm, restore_arm

__all__ = ["predict"]


def predict(
    config: MicroscopeConfig,
    plan: str,
    parameters: Mapping[str, Any],
    folder: Path,
    start: Mapping[str, float] | None = None,
) -> list[Path]:
    """Run a plan on the twin and keep the images and maps it gives.

    Of each run the brightest frame is kept as a picture, and its maps, as files and pictures; of a series what is made
    of all its runs.

    Parameters
    ----------
    config : MicroscopeConfig
        The microscope; behind it, or in ``serve.twin``, must be a twin.
    plan : str
        Name of the plan.
    parameters : mapping
        Its parameters.
    folder : Path
        Folder to write into; it is made.
    start : mapping of str to float, optional
        Start positions by logical axis.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ConfigError
        When nothing simulated stands behind the configuration.
    RunError
        When the run fails.
    RecordError
        When the folder cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="dfxrm-predict-") as place:
        data = config.data.model_copy(
            update={"directory": Path(place, "data"), "journal_directory": Path(place, "journal")}
        )
        twin = offline(config).model_copy(update={"backend": _twin_of(config), "data": data, "bodies": config.bodies})
        with Session(twin, maps=True, quiet=True) as session, warnings.catch_warnings():
            restore_arm(session.channels, kept_arm(config))
            warnings.simplefilter("ignore")  # the dry run itself has told them
            motors = session.real_axes()
            if start:
                # at once, as if it had always stood there: the way there is not part of the plan
                for axis, position in start.items():
                    if axis in motors and session.backend is not None:
                        session.backend.start_move(axis, position, 0.0, 0.0)
            outcome = session.run(plan, parameters)
        try:
            return _keep(outcome, folder)
        except OSError as error:
            raise RecordError(f"folder {folder} cannot be written: {error.strerror or error}") from error


def _twin_of(config: MicroscopeConfig) -> BackendConfig:
    twin = config.serve.twin
    if twin is None and config.backend is not None and "address" not in config.backend.options:
        twin = config.backend
    if twin is None:
        raise ConfigError(f"configuration {config.name!r} has no twin that could predict images and maps")
    return BackendConfig(backend=twin.backend, options={**twin.options, "clock": "fast"})


def _keep(outcome: Outcome, folder: Path) -> list[Path]:
    """Copy what a plan gave to a folder and return the files."""
    import matplotlib.image

    folder.mkdir(parents=True, exist_ok=True)
    kept: list[Path] = []
    for run in outcome.runs:
        place = folder / run.folder.name
        place.mkdir(exist_ok=True)
        frame = _brightest(run.folder)
        if frame is not None:
            matplotlib.image.imsave(place / "brightest_frame.png", frame, cmap="gray")
            kept.append(place / "brightest_frame.png")
        kept += _copied(sorted((run.folder / "maps").glob("*")), place)
    products = [path for path in outcome.products if path.is_file()]
    if products and outcome.series is not None:
        place = folder / outcome.series.name
        place.mkdir(exist_ok=True)
        kept += _copied(products, place)
    return kept


def _copied(files: list[Path], folder: Path) -> list[Path]:
    return [Path(shutil.copy2(file, folder / file.name)) for file in files if file.is_file()]


def _brightest(folder: Path) -> Any:
    """Return the frame of a run with the most counts; None where it has none."""
    try:
        run = read_journal(next(folder.glob("*.jsonl")))
    except (FileFormatError, StopIteration):
        return None
    frames = [frame for by_point in run.primary.frames.values() for frame in by_point.values()]
    images = (read_frame(frame.file.path, frame.index_in_file, frame.file.dataset) for frame in frames)
    return max(images, key=lambda image: int(image.sum(dtype="int64")), default=None)
