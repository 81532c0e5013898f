"""How the tests call the ``dfxrm`` command, and the arguments that keep it quick."""

import os
import sys
from pathlib import Path

import dfxrm_control

COMMAND = [sys.executable, "-c", "from dfxrm_control.cli import main; main()"]
HOME = str(Path(dfxrm_control.__file__).parent.parent)
SMALL = [
    *("--set", "instrument.cameras.far_field.rows=64"),
    *("--set", "instrument.cameras.far_field.columns=64"),
    *("--set", "data.minimum_free_gb=0.01"),
]
QUICK = ["--rock-range", "0.3", "--rock-num", "15", "--darks-before", "10", "--exposure-s", "0.2"]
MESH = [*QUICK, "--roll-range", "0.6", "--roll-num", "7"]


def environment(folder):
    """Return an environment with its own home and our packages on the path."""
    return {
        **os.environ,
        "HOME": str(folder),
        "PYTHONPATH": HOME,
        "COLUMNS": "110",
        "IPYTHONDIR": str(folder / "ipython"),
    }
