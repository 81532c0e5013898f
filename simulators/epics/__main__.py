"""``python -m simulators.epics CONFIG --twin HOST:PORT --port P``: serve the EPICS parts of a configuration.

It says ``ready`` when it answers, and ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import sys

from dfxrm_control.config import find_config
from dfxrm_control.errors import DfxrmError


def main() -> int:
    """Serve until told to end; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simulators.epics", description=__doc__)
    parser.add_argument("config", help="name or path of a configuration")
    parser.add_argument("--twin", required=True, metavar="HOST:PORT", help="where the twin's state server answers")
    parser.add_argument("--port", required=True, type=int, help="UDP and TCP port")
    parser.add_argument("--host", default="127.0.0.1", help="address of the interface; default: %(default)s")
    arguments = parser.parse_args()
    try:
        config = find_config(arguments.config)

        from simulators import RemoteTwin
        from simulators.epics import build

        server = build(config, RemoteTwin(config, address=arguments.twin))
        server.run(arguments.host, arguments.port, lambda: print("ready", flush=True))
    except DfxrmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
