"""The messages between the twin's state server and its clients: a JSON header, and the raw bytes of a frame if any.

A message is the length of its header (four bytes, big-endian), the header (UTF-8 JSON, in which numbers round-trip
exactly and ``NaN`` and ``Infinity`` stand for themselves) and, where the header says ``bytes``, that many bytes.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

__all__ = ["receive", "send"]

_LENGTH = struct.Struct(">I")
_LONGEST_HEADER = 1 << 20
_LONGEST_BODY = 1 << 30


def send(connection: socket.socket, header: dict[str, Any], body: memoryview | None = None) -> None:
    """Send one message.

    Raises
    ------
    OSError
        When the connection is gone, or does not take it in time.
    """
    if body is not None:
        header = {**header, "bytes": body.nbytes}
    text = json.dumps(header).encode()
    connection.sendall(_LENGTH.pack(len(text)) + text)
    if body is not None:
        connection.sendall(body)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytearray]:
    """Return the header and the bytes of the next message.

    Raises
    ------
    EOFError
        When the other side has closed the connection.
    ValueError
        When what comes is no such message.
    OSError
        When the connection is gone, or nothing comes in time.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes is none of these messages")
    header = json.loads(_exactly(connection, length))
    if not isinstance(header, dict):
        raise ValueError("a header must be a JSON object")
    size = header.get("bytes", 0)
    if not isinstance(size, int) or not 0 <= size <= _LONGEST_BODY:
        raise ValueError(f"a body of {size!r} bytes is none of these messages")
    return header, _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    left = memoryview(content)
    while left.nbytes:
        taken = connection.recv_into(left)
        if not taken:
            raise EOFError("the connection was closed")
        left = left[taken:]
    return content
