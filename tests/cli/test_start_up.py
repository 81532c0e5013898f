"""A user's own file that bears the name of one of our packages is found before it does harm."""

import subprocess
import sys

import pytest

from dfxrm_control.errors import ConfigError
from dfxrm_control.start_up import PACKAGES, check_packages


def _run(arguments, folder, **environment):
    import os

    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_our_own_packages_pass():
    check_packages()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_file_in_the_way_is_named_before_it_runs(package, tmp_path):
    shadow = tmp_path / f"{package}.py"
    shadow.write_text("print('ran')\n")
    done = _run(
        ["-c", "from dfxrm_control.cli import main; main(['configs'])"], tmp_path, PYTHONPATH=_path_with(tmp_path)
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(shadow) in done.stderr
    assert repr(package) in done.stderr


def test_a_package_in_the_way_is_named(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "__init__.py").write_text("")
    done = _run(
        ["-c", "from dfxrm_control.cli import main; main(['configs'])"], tmp_path, PYTHONPATH=_path_with(tmp_path)
    )
    assert done.returncode == 2
    assert str(tmp_path / "devices" / "__init__.py") in done.stderr


def test_a_folder_of_yaml_files_is_in_nobodys_way(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yml").write_text("")
    check_packages(tmp_path)
    done = _run(
        ["-c", "from dfxrm_control.cli import main; main(['configs'])"], tmp_path, PYTHONPATH=_path_with(tmp_path)
    )
    assert done.returncode == 0
    assert "simulated" in done.stdout


def test_the_shell_looks_at_the_working_directory(tmp_path):
    (tmp_path / "plans.py").write_text("")
    with pytest.raises(ConfigError, match="plans.py is in the way"):
        check_packages(tmp_path)


def _path_with(folder):
    """Return a PYTHONPATH with a folder before wherever dfxrm_control was found."""
    import os
    from pathlib import Path

    import dfxrm_control

    return os.pathsep.join([str(folder), str(Path(dfxrm_control.__file__).parent.parent)])
