"""Running the ``dfxrm`` command as a user does: in a process of its own, in a folder of its own."""

import subprocess

import pytest
from command_line import COMMAND, environment


@pytest.fixture
def dfxrm(tmp_path):
    """Return a function that runs the command in tmp_path and returns the finished process."""

    def run(*arguments, stdin=None, timeout=200):
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env=environment(tmp_path),
            input=stdin,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    return run
