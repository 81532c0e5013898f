"""A small, quick microscope for the tests of the session."""

import pytest

from dfxrm_control.config import find_config, override
from dfxrm_control.session import Session

SMALL = [
    "instrument.cameras.far_field.rows=48",
    "instrument.cameras.far_field.columns=64",
    "scan.darks=4",
    "data.minimum_free_gb=0.01",
]


@pytest.fixture
def small(tmp_path):
    """Return the simulated microscope with a 48 x 64 camera and its data under tmp_path."""
    places = [f"data.directory={tmp_path / 'data'}", f"data.journal_directory={tmp_path / 'journal'}"]
    return override(find_config("simulated"), [*SMALL, *places])


@pytest.fixture
def session(small):
    """Return a session without maps."""
    with Session(small, maps=False, quiet=True) as opened:
        yield opened
