"""``python -m simulators.state_server CONFIG --port P``: one twin, and everybody who wants to ask it.

The microscope's state lives in this one process; servers of control systems and in-process axes are its clients
(`simulators.RemoteTwin`). It says ``ready HOST:PORT`` when it answers, and ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import signal
import socket
import socketserver
import sys
import threading
import time
from typing import Any

import numpy as np

from dfxrm_control.backend import Backend, FrameRequest
from dfxrm_control.config import BackendConfig, MicroscopeConfig, find_config
from dfxrm_control.errors import ConfigError, DeviceError, DfxrmError
from dfxrm_control.import_strings import make_backend
from simulators._wire import receive, send

__all__ = ["StateServer", "make_twin"]

LONGEST_WAIT_S = 1.0
"""Longest time that a client may wait for the twin's clock within one request, s."""
CALLS = frozenset(
    {
        "axes",
        "channels",
        "frame_shape",
        "frames_taken",
        "get",
        "happen",
        "now",
        "position",
        "put",
        "start_move",
        "stop",
        "true_positions",
    }
)


class StateServer(socketserver.ThreadingTCPServer):
    """A server of one backend; each connection has a thread of its own.

    Parameters
    ----------
    backend : Backend
        What is served.
    host : str
        Address of the interface.
    port : int
        TCP port; 0 for any that is free.

    Raises
    ------
    DeviceError
        When the port is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, backend: Backend, host: str = "127.0.0.1", port: int = 0) -> None:
        self.backend = backend
        try:
            super().__init__((host, port), _Conversation)
        except OSError as error:
            raise DeviceError(f"the twin's state server cannot listen on {host}:{port}: {error.strerror}") from error

    @property
    def address(self) -> str:
        """Where it listens, ``host:port``."""
        host, port = self.server_address[:2]
        return f"{host!s}:{port}"


class _Conversation(socketserver.BaseRequestHandler):
    """One client's requests, one after the other."""

    server: StateServer
    request: socket.socket

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                header, _ = receive(self.request)
                if self._left():
                    return
                answer, body = self._answer(header)
                send(self.request, answer, body)
            except (OSError, EOFError, ValueError):
                # the client has gone, or is none of ours
                return

    def _left(self) -> bool:
        """Whether the client has hung up: what it asked before it lost its patience is not done behind its back."""
        try:
            return self.request.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False

    def _answer(self, header: dict[str, Any]) -> tuple[dict[str, Any], memoryview | None]:
        try:
            return self._do(header.get("call"), header.get("arguments", []))
        except DfxrmError as error:
            return {"error": str(error), "kind": type(error).__name__}, None
        except Exception as error:  # whatever the physics stumbles over: the client is told, and others are served
            return {"error": f"the twin failed: {type(error).__name__}: {error}", "kind": "DeviceError"}, None

    def _do(self, call: Any, arguments: Any) -> tuple[dict[str, Any], memoryview | None]:
        backend = self.server.backend
        if call == "expose":
            frame = backend.expose(FrameRequest(*arguments))
            data = np.ascontiguousarray(frame.data)
            about = {
                "number": frame.number,
                "monitor": frame.monitor,
                "ring_current_ma": frame.ring_current_ma,
                "start_s": frame.start_s,
                "end_s": frame.end_s,
                "shape": data.shape,
                "dtype": data.dtype.str,
            }
            return {"result": about}, data.data.cast("B")
        if call == "wait_until":
            time_s, longest_s = arguments
            enough = time.monotonic() + min(longest_s, LONGEST_WAIT_S)
            backend.wait_until(time_s, lambda: time.monotonic() >= enough)
            return {"result": backend.now()}, None
        part = getattr(backend, call, None) if call in CALLS else None
        if part is None:
            raise DeviceError(f"what stands behind the state server has no {call!r}")
        return {"result": part(*arguments) if callable(part) else part}, None


def make_twin(config: MicroscopeConfig) -> Backend:
    """Return what the state server of a configuration serves: ``serve.twin``, or else its own backend.

    Raises
    ------
    ConfigError
        When it has neither, or an option is not one of those that it takes.
    """
    described: BackendConfig | None = config.serve.twin or config.backend
    if described is None:
        raise ConfigError(f"configuration {config.name!r} says nowhere which twin is to be served (serve.twin)")
    return make_backend(config, described, "backend" if config.serve.twin is None else "serve.twin")


def main() -> int:
    """Serve until told to end; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simulators.state_server", description=__doc__)
    parser.add_argument("config", help="name or path of a configuration")
    parser.add_argument("--port", type=int, default=0, help="TCP port; default: any that is free")
    parser.add_argument("--host", default="127.0.0.1", help="address of the interface; default: %(default)s")
    arguments = parser.parse_args()
    try:
        server = StateServer(make_twin(find_config(arguments.config)), arguments.host, arguments.port)
    except DfxrmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    with server:
        for number in (signal.SIGTERM, signal.SIGINT):
            # `shutdown` waits for the loop that this handler interrupts
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        print(f"ready {server.address}", flush=True)
        server.serve_forever(poll_interval=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
