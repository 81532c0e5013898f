"""The tests run against the built wheel, from outside the tree, so that a package left out of it is noticed."""

import importlib
import importlib.metadata
import os
from pathlib import Path

import pytest

PACKAGES = ["dfxrm_control", "devices", "plans", "simulators", "configs"]


@pytest.mark.skipif("DFXRM_TEST_WHEEL" not in os.environ, reason="only where the wheel is tested (make test)")
@pytest.mark.parametrize("package", PACKAGES)
def test_package_comes_from_the_installed_wheel(package):
    installed = importlib.metadata.distribution("dfxrm-control")
    files = {str(file) for file in installed.files or ()}
    assert f"{package}/__init__.py" in files
    origin = Path(importlib.import_module(package).__file__).resolve()
    assert origin == Path(installed.locate_file(f"{package}/__init__.py")).resolve()


@pytest.mark.skipif("DFXRM_TEST_WHEEL" not in os.environ, reason="only where the wheel is tested (make test)")
def test_every_configuration_travels_with_the_wheel():
    files = {str(file) for file in importlib.metadata.distribution("dfxrm-control").files or ()}
    assert {"configs/simulated.yml", "configs/replay.yml", "configs/mll.yml"} <= files
