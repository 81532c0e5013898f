"""The twin as it is seen from another process."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dfxrm_control import errors
from dfxrm_control.backend import ChannelValue, Frame, FrameRequest
from dfxrm_control.config import MicroscopeConfig
from dfxrm_control.errors import ConfigError, DeviceError, DfxrmError
from simulators._wire import receive, send

__all__ = ["RemoteTwin"]

# how long a client waits for the twin's clock within one request, s: a stopped motor answers within it
_SLICE_S = 0.05


class RemoteTwin:
    """A twin behind its state server (`dfxrm_control.backend.Backend`).

    Nothing is connected to when it is made. Each call is one request; what the server refuses is raised here with the
    server's own words. A server that was started anew is found again by the next call. May be used from many threads.

    Parameters
    ----------
    config : MicroscopeConfig
        The configuration, which knows the cameras.
    address : str
        ``host:port`` of the state server, as ``dfxrm serve`` writes it.
    timeout_s : float
        Longest wait for an answer, s.
    frame_timeout_s : float
        Longest wait for a frame after its exposure, s.

    Raises
    ------
    ConfigError
        When the address is none.
    """

    def __init__(
        self, config: MicroscopeConfig, *, address: str = "", timeout_s: float = 10.0, frame_timeout_s: float = 30.0
    ) -> None:
        self._cameras = config.instrument.cameras
        self.address = address
        host, colon, port = address.rpartition(":")
        if address and not (colon and host and port.isdigit()):
            raise ConfigError(f"backend.options.address: {address!r} must have the form host:port")
        self._where = (host, int(port or 0))
        self._name = config.name
        self._timeout_s = timeout_s
        self._frame_timeout_s = frame_timeout_s
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the connections back; the next call makes new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- the backend ------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time of the twin's clock in seconds."""
        return float(self._ask("now"))

    def wait_until(self, time_s: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Wait, in the way of the twin's clock, until a time in seconds or until ``cancelled()`` is true."""
        while not cancelled() and float(self._ask("wait_until", time_s, _SLICE_S)) < time_s:
            pass

    def axes(self) -> Mapping[str, float]:
        """Return the present position of every axis by address, mm or deg."""
        return dict(self._ask("axes"))

    def position(self, axis: str) -> float:
        """Return the present position of one axis; raises DeviceError for an axis that does not exist."""
        return float(self._ask("position", axis))

    def start_move(self, axis: str, target: float, velocity: float, acceleration_s: float) -> float:
        """Start a move and return when it will end, in seconds; raises DeviceError for an axis that does not exist."""
        return float(self._ask("start_move", axis, float(target), float(velocity), float(acceleration_s)))

    def stop(self, axis: str) -> float:
        """Stop an axis where it is and return that position; raises DeviceError for an axis that does not exist."""
        return float(self._ask("stop", axis))

    def get(self, channel: str) -> ChannelValue:
        """Return the value of a channel; raises DeviceError for one that does not exist."""
        value: ChannelValue = self._ask("get", channel)
        return value

    def put(self, channel: str, value: ChannelValue) -> None:
        """Set a channel; raises DeviceError for an unknown or read-only one or a value it cannot take."""
        self._ask("put", channel, value)

    def frame_shape(self, camera: str) -> tuple[int, int]:
        """Return (rows, columns) of a camera's frames, as configured; raises DeviceError for an unknown camera."""
        if camera not in self._cameras:
            raise DeviceError(f"the simulated microscope has no camera {camera!r}; it has {', '.join(self._cameras)}")
        return self._cameras[camera].rows, self._cameras[camera].columns

    def expose(self, request: FrameRequest) -> Frame:
        """Expose one frame and return it.

        Raises
        ------
        DeviceError
            For a camera that does not exist, or an exposure outside its bounds; or when the server does not answer in
            time.
        """
        about, body = self._converse(
            "expose",
            [request.camera, request.exposure_s, request.number],
            self._frame_timeout_s + max(request.exposure_s, 0.0),
        )
        data = np.frombuffer(body, np.dtype(about.pop("dtype"))).reshape(about.pop("shape"))
        return Frame(data=data, **about)

    # -- for tests and drills ---------------------------------------------------------------------------------

    def happen(self, channel: str, value: ChannelValue) -> None:
        """Let the machine change a channel, also a read-only one: a beam dump is ``happen("ring_current", 0.0)``."""
        self._ask("happen", channel, value)

    def channels(self) -> dict[str, ChannelValue]:
        """Return the value of every channel."""
        return dict(self._ask("channels"))

    def true_positions(self) -> dict[str, float]:
        """Return where every axis truly is, by logical name, mm or deg."""
        return dict(self._ask("true_positions"))

    @property
    def frames_taken(self) -> int:
        """How many frames the twin has numbered."""
        return int(self._ask("frames_taken"))

    # -- the conversation -------------------------------------------------------------------------------------

    def _ask(self, call: str, *arguments: Any) -> Any:
        return self._converse(call, list(arguments), self._timeout_s)[0]

    def _converse(self, call: str, arguments: list[Any], timeout_s: float) -> tuple[Any, bytearray]:
        asked = " ".join([call.replace("_", " "), *(str(argument) for argument in arguments[:1])])
        connection = self._connection(asked)
        try:
            connection.settimeout(timeout_s)
            send(connection, {"call": call, "arguments": arguments})
            header, body = receive(connection)
        except TimeoutError as error:
            connection.close()
            raise DeviceError(f"{self._called()} did not answer within {timeout_s:g} s (asked: {asked})") from error
        except (OSError, EOFError, ValueError) as error:
            connection.close()
            raise DeviceError(f"{self._called()} went away while it was asked: {asked}") from error
        except BaseException:
            # Ctrl-C in the middle of an answer: the rest of it must not be taken for the next one
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        if "error" in header:
            raise _error(header)
        return header["result"], body

    def _connection(self, asked: str) -> socket.socket:
        """Return a connection that is not in use and still open."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect(asked)
            # between two requests nothing comes but the end of the server it belonged to
            if not select.select([connection], [], [], 0)[0]:
                return connection
            connection.close()

    def _connect(self, asked: str) -> socket.socket:
        if not self.address:
            raise DeviceError(
                f"the twin of configuration {self._name!r} has no address (asked: {asked}); start it with "
                f"'dfxrm serve {self._name}' and use the configuration that this writes"
            )
        try:
            connection = socket.create_connection(self._where, timeout=self._timeout_s)
        except OSError as error:
            reason = "in time" if isinstance(error, TimeoutError) else f"({error.strerror or error})"
            raise DeviceError(f"{self._called()} does not answer {reason} (asked: {asked})") from error
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _called(self) -> str:
        return f"the twin's state server at {self.address}"


def _error(header: Mapping[str, Any]) -> DfxrmError:
    """Return the error of the server, of the same kind and with the same words."""
    kind = getattr(errors, str(header.get("kind")), DeviceError)
    if not (isinstance(kind, type) and issubclass(kind, DfxrmError)):
        kind = DeviceError
    return kind(str(header["error"]))
