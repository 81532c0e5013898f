"""``python -m dfxrm_control.server_process PARENT MODULE ...``: run a server module and end when its parent is gone."""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

from dfxrm_control.errors import ConfigError
from dfxrm_control.start_up import check_packages

__all__: list[str] = []

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for a SIGTERM at the parent's end, check whose packages are found, and become the module."""
    parent, module, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(parent):
        # it ended before it could be asked for
        sys.exit(1)
    try:
        check_packages()
    except ConfigError as error:
        sys.exit(f"Error: {error}")
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
