"""Wireshark's control pipes: what is shown in its toolbar and status bar while it captures.

Only Wireshark's window has them; tshark does not.  The pipes are opened in a way that never
waits: what does not fit into a full pipe is left out, since the capture comes first.

Rules for editors: what is shown was written by other programs, at the other end of ssh
too, and is escaped here.
"""

import os
import struct
from collections import deque
from enum import IntEnum
from typing import Final

from vsockdump.output.escaped import on_line

_HEADER: Final = struct.Struct(">cBHBB")  # "T", 3 bytes of length, control, command
_MOST: Final = 4000  # bytes of text in a message, so that a pipe takes all of it or nothing
_WAITING: Final = 100  # messages until Wireshark's window is ready


class Command(IntEnum):
    """What a message asks for."""

    INITIALIZED = 0
    SET = 1
    ADD = 2
    DISABLE = 5
    STATUSBAR = 6


class Field(IntEnum):
    """The controls of the toolbar, by their numbers."""

    CAPTURED = 0
    DROPPED = 1
    LOG = 2


def message(command: Command, field: int = 0, text: str = "") -> bytes:
    """A message as it goes through the pipe."""
    data = on_line(text).encode()[:_MOST]
    if field == Field.LOG and command == Command.ADD:
        data += b"\n"
    return _HEADER.pack(b"T", 0, len(data) + 2, field, command) + data


class Control:
    """The pipes, either of which may be missing (""); a context manager.

    Nothing is sent before Wireshark says that it is ready, or it would be lost.
    """

    def __init__(self, incoming: str, outgoing: str) -> None:
        self.fd = os.open(incoming, os.O_RDONLY | os.O_NONBLOCK) if incoming else -1
        # Opened to read as well, so that it need not wait for a reader and outlives one.
        self._out = os.open(outgoing, os.O_RDWR | os.O_NONBLOCK) if outgoing else -1
        self._ready = self.fd < 0
        self._received = b""
        self._waiting: deque[bytes] = deque(maxlen=_WAITING)
        for field in (Field.CAPTURED, Field.DROPPED):
            self.send(Command.DISABLE, field)  # nothing to type into

    def __enter__(self) -> "Control":
        return self

    def __exit__(self, *_error: object) -> None:
        for fd in (self.fd, self._out):
            if fd >= 0:
                os.close(fd)

    def send(self, command: Command, field: int = 0, text: str = "") -> None:
        """Send a message, or keep it until Wireshark is ready."""
        if self._out < 0:
            return
        self._waiting.append(message(command, field, text))
        if self._ready:
            self._flush()

    def receive(self) -> bool:
        """Take what Wireshark says; False at its end."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return True
        self._received += data
        while len(self._received) >= _HEADER.size:
            _mark, high, low, _field, command = _HEADER.unpack_from(self._received)
            size = _HEADER.size - 2 + (high << 16 | low)
            if len(self._received) < size:
                break
            self._received = self._received[size:]
            if command == Command.INITIALIZED and not self._ready:
                self._ready = True
                self._flush()
        return bool(data)

    def _flush(self) -> None:
        while self._waiting:
            try:
                os.write(self._out, self._waiting.popleft())
            except BlockingIOError:
                return
