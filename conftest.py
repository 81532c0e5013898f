"""Runs the examples of the README and of docs/: Python blocks as Python, console blocks as commands.

In a ``console`` block a line that starts with ``$ `` is a command; the lines below it are what it prints, where ``...``
stands for anything. Commands of one page share a fresh folder.
"""

import doctest
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

COMMAND_TIMEOUT_S = 300

# each session that the tests open would else start a process that fills a catalogue; tests of that ask for one
os.environ["DFXRM_CATALOGUE"] = "none"

# how long an example takes says how busy the machine is, not whether the code is right
hypothesis.settings.register_profile("any speed", deadline=None)
hypothesis.settings.load_profile("any speed")


def run_console(example: Example) -> str | None:
    """Run the commands of a console block and compare what they print."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "120"}
    blocks: list[tuple[str, list[str]]] = []
    for line in str(example.parsed).splitlines():
        if line.startswith("$ "):
            blocks.append((line[2:], []))
        elif blocks:
            blocks[-1][1].append(line)
    for command, expected in blocks:
        done = subprocess.run(
            command,
            shell=True,
            executable="/bin/bash",
            cwd=example.namespace["folder"],
            env=environment,
            text=True,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        printed = done.stdout + done.stderr
        want = "\n".join(expected).strip()
        if done.returncode != 0 and not want:
            return f"{command}: exit code {done.returncode}\n{printed}"
        if want and not doctest.OutputChecker().check_output(
            want + "\n", printed.strip() + "\n", doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        ):
            return f"{command}: expected\n{want}\nbut it printed\n{printed}"
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the examples of one page share."""
    return tmp_path_factory.mktemp("page")


pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE),
        CodeBlockParser("console", run_console),
        SkipParser(),
    ],
    patterns=["*.md"],
    fixtures=["folder"],
).pytest()
