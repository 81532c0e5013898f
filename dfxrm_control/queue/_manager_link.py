"""Asking bluesky-queueserver's RE manager, over a socket that only this account can reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zmq

from dfxrm_control.queue._errors import QueueError

__all__ = ["ManagerLink"]


class ManagerLink:
    """One request at a time, each answered or given up.

    Parameters
    ----------
    address : str
        ZeroMQ address of the manager's control socket.
    """

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[Any] = zmq.Context.instance()
        self._address = address
        self._socket: Any = None

    def ask(self, method: str, params: Mapping[str, Any] | None = None, timeout_s: float = 10.0) -> dict[str, Any]:
        """Return the manager's answer.

        Raises
        ------
        QueueError
            When there is none in time.
        """
        if self._socket is None:
            self._socket = self._context.socket(zmq.REQ)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.connect(self._address)
        self._socket.send_json({"method": method, "params": dict(params or {})})
        if not self._socket.poll(int(timeout_s * 1000)):
            self.close()
            raise QueueError(f"the RE manager did not answer {method!r} in {timeout_s:g} s")
        answer: dict[str, Any] = self._socket.recv_json()
        return answer

    def done(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the manager's answer to something that it has to accept.

        Raises
        ------
        QueueError
            When it does not answer, or refuses.
        """
        answer = self.ask(method, params)
        if not answer.get("success", True):
            raise QueueError(f"the RE manager refused {method!r}: {answer.get('msg')}")
        return answer

    def close(self) -> None:
        """Drop the connection; the next request makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
