import pytest
from standins import Beamline


@pytest.fixture
def beamline(tmp_path):
    return Beamline(tmp_path)
