"""WebSocket (RFC 6455), with permessage-deflate (RFC 7692): what follows HTTP's 101.

Rules for editors: the context of a compressor spans messages, so a message that is not
whole, or expands beyond EXPANDED, is the last of its side that can be expanded; unless the
sides agreed to begin anew each time.
"""

import zlib
from collections.abc import Generator
from typing import Final, NamedTuple

from vsockdump.apps.byte_stream import KEPT, MOST, Body, ByteStream, Ended, ProtocolError, Steps
from vsockdump.apps.content import brief, content_fields
from vsockdump.apps.message import Call, Kind, Message, Value
from vsockdump.apps.protocol import Context, Parser, Protocol

NAME: Final = "websocket"
EXPANDED: Final = 4 << 20  # bytes that a compressed message may come to

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_NAMES: Final = {_TEXT: "text", _BINARY: "binary", _CLOSE: "close", _PING: "ping", _PONG: "pong"}
_LONGEST_CONTROL: Final = 125  # bytes
_LONGEST_HEAD: Final = 14  # bytes
_FRAMES_TRIED: Final = 64  # of a packet, to see whether it begins with one
_TAIL: Final = b"\0\0\xff\xff"  # what a sender leaves out at the end of a compressed message

_CLOSE_CODES: Final = {
    1000: "normal",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1007: "invalid payload",
    1008: "policy violation",
    1009: "message too big",
    1010: "extension missing",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
}


class _Head(NamedTuple):
    """A frame's header."""

    last: bool
    compressed: bool
    opcode: int
    mask: bytes
    size: int

    @property
    def is_control(self) -> bool:
        return self.opcode >= _CLOSE


class WebSocket(Parser):
    """A connection after its handshake; `extensions` are those that the server agreed to."""

    def __init__(self, context: Context, extensions: str = "", server: int = 1) -> None:
        super().__init__(context)
        agreed = [part.strip() for part in extensions.lower().split(";")]
        deflates = agreed[0] == "permessage-deflate"
        self._inflaters: list[_Inflater | None] = [None, None]
        for side in (0, 1):
            role = "server" if side == server else "client"
            if deflates:
                self._inflaters[side] = _Inflater(f"{role}_no_context_takeover" in agreed)

    def messages(self, stream: ByteStream) -> Steps:
        """Messages, whole; control frames at once, also those between a message's frames."""
        inflater = self._inflaters[stream.side]
        if stream.joined and inflater is not None:
            inflater.lose()
        pieces: _Pieces | None = None
        while True:
            head = yield from _head(stream)
            if head.is_control:
                body = yield from stream.body(head.size)
                yield _control(head, _unmasked(body, head.mask))
                continue
            if (pieces is None) == (head.opcode == _CONTINUATION):
                raise ProtocolError("a frame continues no message, or a message is not finished")
            pieces = pieces or _Pieces(head)
            body = yield from stream.body(head.size, pieces.room)
            pieces.add(_unmasked(body, head.mask))
            if head.last:
                yield _data(pieces, inflater)
                pieces = None

    def resumes(self, side: int, head: bytes) -> bool:
        """Where whole frames fill a packet, the first of them beginning a message."""
        at = 0
        for number in range(_FRAMES_TRIED):
            frame = _head_at(head[at : at + _LONGEST_HEAD])
            if frame is None or (number == 0 and frame[0].opcode == _CONTINUATION):
                return False
            at += frame[1] + frame[0].size
            if at >= len(head):
                return at == len(head)
        return True


def _head_at(data: bytes) -> tuple[_Head, int] | None:
    """The header that bytes begin with, and its size; None where it is none."""
    stream = ByteStream(0)
    stream.feed(data)
    stream.feed_end()
    reading = _head(stream)
    try:
        next(reading)
    except StopIteration as result:
        return result.value, stream.offset
    except (Ended, ProtocolError):
        pass
    return None


def _head(stream: ByteStream) -> Generator[None, None, _Head]:
    first, second = yield from stream.exact(2)
    opcode, size = first & 0x0F, second & 0x7F
    compressed = bool(first & 0x40)
    if opcode not in _NAMES and opcode != _CONTINUATION:
        raise ProtocolError(f"a frame with the reserved opcode {opcode}")
    if first & 0x30 or (compressed and opcode not in (_TEXT, _BINARY)):
        raise ProtocolError("a frame with reserved bits")
    if opcode >= _CLOSE and (size > _LONGEST_CONTROL or not first & 0x80):
        raise ProtocolError("a control frame that is long or in pieces")
    if size >= 126:
        size = int.from_bytes((yield from stream.exact(2 if size == 126 else 8)), "big")
        if size >> 63:
            raise ProtocolError("a frame of more than 2^63 bytes")
    mask = (yield from stream.exact(4)) if second & 0x80 else b""
    return _Head(bool(first & 0x80), compressed, opcode, mask, size)


def _unmasked(body: Body, mask: bytes) -> Body:
    """A body xor the repeated mask; of large numbers, since Python's loops are slow."""
    if not mask:
        return body
    size = len(body.data)
    pattern = (mask * (size // 4 + 1))[:size]
    plain = int.from_bytes(body.data, "big") ^ int.from_bytes(pattern, "big")
    return body._replace(data=plain.to_bytes(size, "big"))


def _control(head: _Head, body: Body) -> Message:
    fields = {"masked": bool(head.mask)} | content_fields(body)
    if head.opcode == _CLOSE:
        text, more = _closing(body.data)
        return Message(NAME, text, Kind.MESSAGE, fields | more)
    kind = Kind.REQUEST if head.opcode == _PING else Kind.RESPONSE
    call = Call(("ping", body.data), "ping") if body.is_whole else None
    return Message(NAME, _NAMES[head.opcode], kind, fields, call)


def _closing(data: bytes) -> tuple[str, dict[str, Value]]:
    """The summary and the fields of a close frame, which may be empty."""
    if len(data) < 2:
        return "close", {}
    code = int.from_bytes(data[:2], "big")
    reason = data[2:].decode(errors="replace")
    name = _CLOSE_CODES.get(code, "")
    words = ("close", str(code), name, brief(data[2:]))
    fields: dict[str, Value] = {"code": code, "meaning": name, "reason": reason}
    return " ".join(word for word in words if word), fields


class _Pieces:
    """A message as it comes, in one frame or more."""

    def __init__(self, head: _Head) -> None:
        self.head = head  # of its first frame
        self.frames = 0
        self._data = bytearray()
        self._size = self._missing = 0

    @property
    def room(self) -> int:
        """Bytes of the next frame that are to be kept; what is compressed is needed whole."""
        if self._missing:
            return 0
        return (MOST if self.head.compressed else KEPT) - len(self._data)

    def add(self, part: Body) -> None:
        """One more frame."""
        self.frames += 1
        self._data += part.data
        self._size += part.size
        self._missing += part.missing

    @property
    def body(self) -> Body:
        """All frames so far."""
        return Body(bytes(self._data), self._size, self._missing)


def _data(pieces: _Pieces, inflater: "_Inflater | None") -> Message:
    name, body = _NAMES[pieces.head.opcode], pieces.body
    fields: dict[str, Value] = {"masked": bool(pieces.head.mask), "frames": pieces.frames}
    if pieces.head.compressed:
        fields["compressed size"] = body.size
        expanded = inflater.expand(body) if inflater else None
        if expanded is None:
            if body.missing:
                fields["missing"] = body.missing
            fields["not decoded"] = "earlier or present bytes of the compressor are not known"
            return Message(NAME, f"{name} compressed", Kind.MESSAGE, fields)
        if expanded.size > EXPANDED:
            fields["expanded"] = f"only to {expanded.size} bytes"
        body = expanded
    text = brief(body.data) if pieces.head.opcode == _TEXT else ""
    summary = f"{name} {text}".rstrip()
    return Message(NAME, summary, Kind.MESSAGE, fields | content_fields(body))


class _Inflater:
    """Expands the messages of one side."""

    def __init__(self, begins_anew: bool) -> None:
        self._begins_anew = begins_anew  # the context of a message ends with it
        self._machine = zlib.decompressobj(-zlib.MAX_WBITS)
        self._lost = False

    def lose(self) -> None:
        """Bytes are missing."""
        self._lost = True

    def expand(self, body: Body) -> Body | None:
        """A message before it was compressed; None where it cannot be had."""
        if self._begins_anew:
            self._machine = zlib.decompressobj(-zlib.MAX_WBITS)
            self._lost = False
        if self._lost or not body.is_whole:
            self._lost = True
            return None
        try:
            return self._expanded(body.data + _TAIL)
        except zlib.error:
            self._lost = True
            return None

    def _expanded(self, data: bytes) -> Body:
        kept, size = bytearray(), 0
        while True:
            part = self._machine.decompress(data, KEPT)
            kept += part[: max(KEPT - size, 0)]
            size += len(part)
            if self._machine.eof:  # a sender may finish its stream with a message
                if self._machine.unused_data not in (b"", _TAIL):
                    raise zlib.error
                self._machine = zlib.decompressobj(-zlib.MAX_WBITS)
                return Body(bytes(kept), size)
            data = self._machine.unconsumed_tail
            if not data and len(part) < KEPT:
                return Body(bytes(kept), size)
            if size > EXPANDED:
                self._lost = True
                return Body(bytes(kept), size)


PROTOCOLS: Final = (
    # Nothing but the handshake before it tells it; with --decode it is also read without.
    Protocol(NAME, "WebSocket", WebSocket),
)
