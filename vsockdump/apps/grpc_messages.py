"""gRPC's messages in the DATA of an HTTP/2 stream: a flag, a length (be32), and the message.

Rules for editors: messages know nothing of frames; one may begin and end anywhere in them.
Where bytes were lost, the boundaries are lost too, until a frame holds just one message.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from vsockdump.apps.byte_stream import KEPT, Body

PREFIX: Final = 5


class GrpcMessage(NamedTuple):
    """One message; `unread` bytes of what was fed lie behind it."""

    body: Body
    is_compressed: bool
    unread: int


class GrpcMessages:
    """The messages of one side of a stream.  Not `is_aligned`: where one begins is unknown."""

    def __init__(self, is_aligned: bool) -> None:
        self.is_aligned = is_aligned
        self._begin()

    def _begin(self) -> None:
        self._prefix = b""
        self._kept = bytearray()
        self._size = self._left = self._missing = 0

    def lose(self) -> None:
        """Bytes were lost: what was begun is not to be had, nor where the next begins."""
        self.is_aligned = False
        self._begin()

    def feed(self, data: bytes, missing: int = 0) -> Iterator[GrpcMessage]:
        """More bytes, and how many are missing behind them."""
        at = 0
        while self.is_aligned and (at < len(data) or self._is_complete):
            if len(self._prefix) < PREFIX:
                at = self._read_prefix(data, at)
            else:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                if not self._missing:
                    self._kept += part[: max(KEPT - len(self._kept), 0)]
            if self._is_complete:
                yield self._take(len(data) - at + missing)
        if missing and self.is_aligned:
            yield from self._go_over(missing)

    def _read_prefix(self, data: bytes, at: int) -> int:
        part = data[at : at + PREFIX - len(self._prefix)]
        self._prefix += part
        if len(self._prefix) == PREFIX:
            self._size = self._left = int.from_bytes(self._prefix[1:], "big")
            if self._prefix[0] > 1:
                self.lose()
        return at + len(part)

    def _go_over(self, missing: int) -> Iterator[GrpcMessage]:
        if self._left < missing:
            self.lose()
            return
        self._left -= missing
        self._missing += missing
        if self._is_complete:
            yield self._take(0)

    @property
    def _is_complete(self) -> bool:
        return len(self._prefix) == PREFIX and not self._left

    def _take(self, unread: int) -> GrpcMessage:
        body = Body(bytes(self._kept), self._size, self._missing)
        is_compressed = self._prefix[0] == 1
        self._begin()
        return GrpcMessage(body, is_compressed, unread)


def is_just_one(data: bytes, size: int) -> bool:
    """Whether a frame of `size` bytes that begins with these holds one message, and no more."""
    return (
        size >= PREFIX
        and len(data) >= PREFIX
        and data[0] <= 1
        and PREFIX + int.from_bytes(data[1:PREFIX], "big") == size
    )
