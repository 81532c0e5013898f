"""A twin that is cheap enough to take hundreds of frames in a test."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files

import pytest

from dfxrm_control.config import MicroscopeConfig, load_config
from simulators import Twin


@pytest.fixture(scope="session")
def config() -> MicroscopeConfig:
    with as_file(files("configs") / "simulated.yml") as path:
        return load_config(path)


def resized(config: MicroscopeConfig, rows: int, columns: int, **camera) -> MicroscopeConfig:
    content = config.model_dump()
    for described in content["instrument"]["cameras"].values():
        described |= {"rows": rows, "columns": columns, **camera}
    return MicroscopeConfig.model_validate(content)


@pytest.fixture(scope="session")
def resize() -> Callable[..., MicroscopeConfig]:
    """Return a function that gives a configuration's cameras another number of rows and columns."""
    return resized


@pytest.fixture
def make_twin(config: MicroscopeConfig) -> Callable[..., Twin]:
    """Return a function that makes a twin with its shutter open: rows, columns, then camera settings and options."""

    def make(rows: int = 32, columns: int = 32, camera: dict | None = None, **options) -> Twin:
        twin = Twin(
            resized(config, rows, columns, **(camera or {})),
            **{"sample": "perfect_crystal", "seed": 3, "noise": False, **options},
        )
        twin.put("shutter", "open")
        return twin

    return make


@pytest.fixture
def move() -> Callable[..., None]:
    def instantly(twin: Twin, **positions: float) -> None:
        for axis, position in positions.items():
            twin.start_move(axis, position, 0.0, 0.0)

    return instantly
