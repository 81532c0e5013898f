"""An EPICS server in front of the twin: motor records, areaDetector cameras, channels (``python -m simulators.epics``).

Needs caproto, which nothing else of this distribution imports.
"""

from simulators.epics._server import Server, build

__all__ = ["Server", "build"]
