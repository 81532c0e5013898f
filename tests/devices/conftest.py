import logging
import time

import pytest
from bluesky import RunEngine
from fake_backend import Microscope, backend_for, configuration


@pytest.fixture
def microscope():
    config = configuration()
    return Microscope(config, backend_for(config))


@pytest.fixture
def slow_microscope():
    """The same in real time: 1 unit per second."""
    config = configuration()
    return Microscope(config, backend_for(config, instant=False))


@pytest.fixture
def run_engine():
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    engine = RunEngine({}, call_returns_result=False)
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    while engine.loop.is_running():
        time.sleep(0.001)
    engine.loop.close()
