"""Serve what a configuration has on Tango: ``python -m simulators.tango CONFIG --twin HOST:PORT --port P``."""

from __future__ import annotations

import argparse
import os
import sys

from dfxrm_control.config import find_config
from dfxrm_control.errors import DfxrmError


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simulators.tango", description="Tango servers before the twin.")
    parser.add_argument("config", help="name or path of a configuration")
    parser.add_argument("--twin", required=True, metavar="HOST:PORT", help="state server of the twin")
    parser.add_argument("--port", type=int, required=True, help="port of the devices")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (default: loopback only)")
    parser.add_argument("--database", default="", metavar="HOST:PORT", help="Tango database to register the devices in")
    parser.add_argument("--instant", action="store_true", help="every move is over at once")
    asked = parser.parse_args()
    # Tango and the twin are imported only for a command line that is right
    from simulators import RemoteTwin
    from simulators.tango import parts_of, serve

    try:
        config = find_config(asked.config)
        serve(
            parts_of(config),
            RemoteTwin(config, address=asked.twin),
            port=asked.port,
            host=asked.host,
            database=asked.database,
            instant=asked.instant,
            ready=lambda: print("ready", flush=True),
        )
    except DfxrmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # a thread of Tango that still answers somebody would call into an interpreter that is ending, and abort
    os._exit(code)
