"""A microscope on the twin, and a scan from first motor to map, as the command line runs it."""

import pytest

from dfxrm_control.config import find_config, override
from dfxrm_control.session import Session

ROWS, COLUMNS = 96, 128


@pytest.fixture
def open_session(tmp_path):
    """Return a function that opens a session on a small twin with some settings changed."""
    opened = []

    def start(*settings: str, config: str = "simulated") -> Session:
        session = Session(
            override(
                find_config(config),
                [
                    f"instrument.cameras.far_field.rows={ROWS}",
                    f"instrument.cameras.far_field.columns={COLUMNS}",
                    "data.minimum_free_gb=0.01",
                    f"data.directory={tmp_path / 'data'}",
                    f"data.journal_directory={tmp_path / 'journal'}",
                    *settings,
                ],
            ),
            maps=False,
            quiet=True,
        )
        opened.append(session)
        return session

    yield start
    for session in opened:
        session.close()
