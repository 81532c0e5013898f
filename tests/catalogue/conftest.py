"""A small microscope whose runs go to a catalogue, and a Tiled server as others run it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cataloguing import KEY

from dfxrm_control.config import find_config, override


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Return a configuration with a small camera; its catalogue is embedded."""
    monkeypatch.setenv("DFXRM_CATALOGUE", "embedded")
    settings = {
        "instrument.cameras.far_field.rows": 32,
        "instrument.cameras.far_field.columns": 32,
        "data.directory": tmp_path / "data",
        "data.journal_directory": tmp_path / "journal",
        "data.minimum_free_gb": 0.01,
    }
    return override(find_config("simulated"), [f"{name}={value}" for name, value in settings.items()])


@pytest.fixture
def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def serve_tiled(tmp_path, free_port):
    """Return what starts a Tiled server at the free port."""
    started = []

    def start():
        command = [str(Path(sys.executable).parent / "tiled"), "serve", "catalog", "served.sqlite", "--init"]
        command += ["--write", "sqlite:///tables.sqlite", "--read", tmp_path / "data", "--api-key", KEY]
        log = (tmp_path / "tiled.log").open("wb")
        process = subprocess.Popen(
            [*command, "--port", str(free_port)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        log.close()
        started.append(process)
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", free_port), 1).close()
            except OSError:
                assert process.poll() is None and time.monotonic() < end, (tmp_path / "tiled.log").read_text()
                time.sleep(0.2)
            else:
                return process

    yield start
    for process in started:
        process.kill()
        process.wait()
