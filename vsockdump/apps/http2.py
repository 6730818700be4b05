"""HTTP/2 (RFC 9113), and gRPC on it: the frames of a connection.

Frames of streams become requests, responses and calls in http2_streams.py.  Of the others
SETTINGS, PING and GOAWAY are said; a PING and its answer are a call, whose latency is the
round trip.  WINDOW_UPDATE, PRIORITY and unknown frames say nothing of their own.

Rules for editors: frames of several streams are mixed, and any of them can be cut.  What is
kept is bounded by MOST_STREAMS and by the sizes in header_blocks.py and byte_stream.py.

Not h2, the library: it is an end of a connection, which enforces what its peer may do; a
capture begins late, has gaps, and must go on.
"""

from collections.abc import Callable, Generator, Hashable, Iterator
from enum import IntEnum
from typing import Any, Final

from vsockdump.apps.byte_stream import Body, ByteStream, Ended, Lost, ProtocolError, Steps
from vsockdump.apps.chains import chained
from vsockdump.apps.http2_headers import Headers
from vsockdump.apps.http2_streams import Exchange
from vsockdump.apps.message import Call, Kind, Message, Value
from vsockdump.apps.protobuf import schema
from vsockdump.apps.protocol import (
    CERTAIN,
    Context,
    Opening,
    Parser,
    Prior,
    Protocol,
    Score,
)
from vsockdump.apps.texts import text_of

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST_STREAMS: Final = 256  # of a connection that are followed at once

_HEADER: Final = 9  # bytes
_SMALL: Final = 1 << 14  # bytes of a frame that every end must take
_CHUNK: Final = 1 << 14  # bytes of DATA that are looked at together
_CONTROL: Final = 4 << 10  # bytes of a frame without headers that are kept


class Type(IntEnum):
    """Of a frame."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class ErrorCode(IntEnum):
    """Why a stream or connection ends; RFC 9113, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """What SETTINGS set; RFC 9113, section 6.5, RFC 8441 and RFC 9218."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8
    NO_RFC7540_PRIORITIES = 9


def _name(names: type[IntEnum], code: int) -> str:
    try:
        return names(code).name
    except ValueError:
        return f"0x{code:x}"


class Http2(Parser):
    """One connection.

    The parser of HTTP/1 makes one where a connection is upgraded (h2c), tells it with
    `upgraded` what was asked, and from the 101 on hands both streams to `messages`.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        from vsockdump.apps.header_blocks import HeaderBlocks

        self._schema = schema(context.setting.descriptors)
        self._headers = (HeaderBlocks(), HeaderBlocks())
        self._streams: dict[int, Exchange] = {}
        self._client = context.opening.likely_client
        self._is_midway = False  # bytes were lost: streams may be open that were not seen
        self._largest = [_SMALL, _SMALL]  # frames that each side may send
        self._forgotten = self._remarked = 0  # streams beyond MOST_STREAMS

    def upgraded(self, client: int, label: str, key: Hashable) -> None:
        """Stream 1 answers a request of HTTP/1: its method and path, and the key of its call."""
        self._client = client
        verb, _space, path = label.partition(" ")
        exchange = Exchange(1, client, self._schema, key=key)
        exchange.begin(verb, path)
        self._streams[1] = exchange

    def messages(self, stream: ByteStream) -> Steps:
        """See Parser."""
        try:
            if (yield from stream.peek(3)) == PREFACE[:3]:
                yield from self._preface(stream)
            while True:
                yield from self._frame(stream)
                yield from self._remark()
        except Lost:
            self._is_midway = True
            self._headers[stream.side].restart()
            yield from self._cut(stream.side, "bytes are missing")
            raise
        except Ended:
            yield from self._cut(stream.side, "the side sends no more")
            raise

    def resumes(self, side: int, head: bytes) -> bool:
        """See Parser."""
        return head.startswith(PREFACE) or bool(_frames(head))

    def _preface(self, stream: ByteStream) -> Steps:
        if (yield from stream.exact(len(PREFACE))) != PREFACE:
            raise ProtocolError("the client's preface is not HTTP/2's")
        self._client = stream.side

    def _cut(self, side: int, why: str) -> Iterator[Message]:
        for exchange in self._streams.values():
            yield from exchange.cut(side, why)

    def _remark(self) -> Iterator[Message]:
        """Say how many streams were given up, when that is a power of two."""
        count = self._forgotten
        if count > self._remarked and not count & (count - 1):
            self._remarked = count
            why = f"more than {MOST_STREAMS} streams at once; {count} not followed to their end"
            yield Message("http2", why, Kind.NOTE, size=0)

    # --- frames ------------------------------------------------------------------------------

    def _frame(self, stream: ByteStream) -> Steps:
        frame, size = yield from self._header(stream)
        if frame.type == Type.DATA:
            yield from self._data(stream, frame, size)
        elif frame.type in (Type.HEADERS, Type.PUSH_PROMISE):
            yield from self._header_block(stream, frame, size)
        elif frame.type == Type.CONTINUATION:
            if not self._is_midway:
                raise ProtocolError("a CONTINUATION without HEADERS before it")
            yield from stream.body(size, 0)
            self._headers[stream.side].restart()
        else:
            body = yield from stream.body(size, _CONTROL)
            yield from self._control(stream.side, frame, body)

    def _header(self, stream: ByteStream) -> Generator[None, None, tuple[Any, int]]:
        """The next frame, without its body, and the body's size."""
        from hyperframe.exceptions import HyperframeError
        from hyperframe.frame import Frame

        head = yield from stream.exact(_HEADER)
        try:
            frame, size = Frame.parse_frame_header(memoryview(head))
        except HyperframeError as error:
            raise ProtocolError(str(error)) from None
        if size > self._largest[stream.side] and not self._is_midway:
            allowed = self._largest[stream.side]
            raise ProtocolError(f"a frame of {size} bytes, and the receiver allows {allowed}")
        return frame, size

    def _control(self, side: int, frame: Any, body: Body) -> Iterator[Message]:
        say = _CONTROLS.get(frame.type)
        if say is None:
            return
        size = _HEADER + body.size
        if not body.is_whole and frame.type != Type.GOAWAY:
            name = _name(Type, frame.type)
            yield Message("http2", f"{name} (not captured)", fields={"size": size}, size=size)
            return
        _parse(frame, body.data)
        yield from say(self, side, frame, size)

    def _settings(self, side: int, frame: Any, size: int) -> Iterator[Message]:
        if "ACK" in frame.flags:
            yield Message("http2", "SETTINGS ack", size=size)
            return
        allowed = frame.settings.get(Setting.MAX_FRAME_SIZE, 0)
        self._largest[1 - side] = max(self._largest[1 - side], allowed)
        fields: dict[str, Value] = {
            _name(Setting, key): value for key, value in frame.settings.items()
        }
        yield Message("http2", "SETTINGS", fields=fields, size=size)

    def _ping(self, _side: int, frame: Any, size: int) -> Iterator[Message]:
        fields = {"data": frame.opaque_data}
        call = Call(("ping", frame.opaque_data), "PING")
        if "ACK" in frame.flags:
            yield Message("http2", "PING ack", Kind.RESPONSE, fields, call, size)
        else:
            yield Message("http2", "PING", Kind.REQUEST, fields, call, size)

    def _goaway(self, _side: int, frame: Any, size: int) -> Iterator[Message]:
        why = _name(ErrorCode, frame.error_code)
        fields: dict[str, Value] = {"last_stream": frame.last_stream_id, "error": why}
        if frame.additional_data:
            fields["debug"] = text_of(frame.additional_data)
        summary = f"GOAWAY {why}, last #{frame.last_stream_id}"
        yield Message("http2", summary, fields=fields, size=size)

    def _reset(self, side: int, frame: Any, size: int) -> Iterator[Message]:
        why = f"RST_STREAM {_name(ErrorCode, frame.error_code)}"
        exchange = self._streams.get(frame.stream_id)
        if exchange is None:
            fields: dict[str, Value] = {"stream": frame.stream_id}
            yield Message("http2", f"#{frame.stream_id} {why}", fields=fields, size=size)
            return
        exchange.count(side, size)
        yield from exchange.reset(side, why)
        self._drop_if_over(exchange)

    # --- frames of streams -------------------------------------------------------------------

    def _data(self, stream: ByteStream, frame: Any, size: int) -> Steps:
        exchange = self._exchange(stream.side, frame.stream_id, opens=False)
        padding = 0
        left = size
        if "PADDED" in frame.flags and size:
            padding = int.from_bytes((yield from stream.body(1)).data)
            left -= 1 + padding
            if left < 0:
                raise ProtocolError("a DATA frame has more padding than bytes")
        if exchange is None:
            yield from stream.body(left + padding, 0)
            return
        exchange.count(stream.side, _HEADER + size - left)
        whole = left
        while left:
            part = yield from stream.body(min(left, _CHUNK), _CHUNK)
            exchange.count(stream.side, part.size)
            missing = part.size - len(part.data)
            yield from exchange.take_data(stream.side, part.data, missing, whole)
            left -= part.size
            whole = 0
        yield from stream.body(padding, 0)
        if "END_STREAM" in frame.flags:
            yield from exchange.end(stream.side)
            self._drop_if_over(exchange)

    def _header_block(self, stream: ByteStream, frame: Any, size: int) -> Steps:
        """HEADERS or PUSH_PROMISE."""
        headers, all_size = yield from self._read_block(stream, frame, size)
        side = stream.side
        if frame.type == Type.PUSH_PROMISE:
            yield from self._pushed(side, frame, headers, all_size)
            return
        if self._is_midway:
            self._learn_client(side, headers)
        exchange = self._exchange(side, frame.stream_id, opens=side == self._client)
        if exchange is not None:
            exchange.count(side, all_size)
            yield from exchange.take_headers(side, headers, "END_STREAM" in frame.flags)
            self._drop_if_over(exchange)

    def _read_block(
        self, stream: ByteStream, frame: Any, size: int
    ) -> Generator[None, None, tuple[Headers, int]]:
        """Its headers, CONTINUATIONs and all, and the bytes of all these frames."""
        from vsockdump.apps.header_blocks import MOST_BLOCK

        body = yield from stream.body(size, MOST_BLOCK)
        if body.is_whole:
            _parse(frame, body.data)
        block = bytearray(frame.data if body.is_whole else b"")
        is_whole = body.is_whole
        all_size = _HEADER + size
        last = frame
        while "END_HEADERS" not in last.flags:
            last, size = yield from self._header(stream)
            if last.type != Type.CONTINUATION or last.stream_id != frame.stream_id:
                raise ProtocolError("a CONTINUATION is missing behind HEADERS")
            body = yield from stream.body(size, MOST_BLOCK)
            all_size += _HEADER + size
            is_whole = is_whole and body.is_whole and len(block) + size <= MOST_BLOCK
            block += body.data if is_whole else b""
        if is_whole:
            return self._headers[stream.side].decode(bytes(block)), all_size
        self._headers[stream.side].restart()
        return Headers(why=f"not captured, or more than {MOST_BLOCK} bytes"), all_size

    def _learn_client(self, side: int, headers: Headers) -> None:
        """Who asks is known from a preface or, without one, from the first headers."""
        if headers.get(":method") is not None:
            self._client = side
        elif headers.get(":status") is not None or headers.get("grpc-status") is not None:
            self._client = 1 - side
        for exchange in self._streams.values():
            exchange.client = self._client

    def _pushed(self, side: int, frame: Any, headers: Headers, size: int) -> Iterator[Message]:
        """The server will answer what the client has not asked."""
        stream = frame.promised_stream_id
        verb, path = headers.get(":method") or "", headers.get(":path") or ""
        fields: dict[str, Value] = {"stream": stream, "headers": headers.fields()}
        yield Message("http2", f"PUSH_PROMISE {verb} {path} #{stream}", fields=fields, size=size)
        self._add(stream, Exchange(stream, 1 - side, self._schema)).begin(verb, path)

    def _exchange(self, side: int, stream: int, opens: bool) -> Exchange | None:
        """The stream of that number; None for one that has ended."""
        exchange = self._streams.get(stream)
        if exchange is None and (opens or self._is_midway):
            exchange = Exchange(stream, self._client, self._schema, is_midway=not opens)
            self._add(stream, exchange)
        return exchange

    def _add(self, stream: int, exchange: Exchange) -> Exchange:
        if len(self._streams) >= MOST_STREAMS:
            del self._streams[next(iter(self._streams))]
            self._forgotten += 1
        self._streams[stream] = exchange
        return exchange

    def _drop_if_over(self, exchange: Exchange) -> None:
        if exchange.is_over:
            self._streams.pop(exchange.stream, None)


_CONTROLS: Final[dict[int, Callable[[Http2, int, Any, int], Iterator[Message]]]] = {
    Type.RST_STREAM: Http2._reset,
    Type.SETTINGS: Http2._settings,
    Type.PING: Http2._ping,
    Type.GOAWAY: Http2._goaway,
}


def _parse(frame: Any, body: bytes) -> None:
    """Read a frame's body."""
    from hyperframe.exceptions import HyperframeError

    try:
        frame.parse_body(memoryview(body))
    except HyperframeError as error:
        raise ProtocolError(f"{_name(Type, frame.type)}: {error}") from None


# --- recognising ----------------------------------------------------------------------------

_FLAGS: Final = (0x09, 0x2D, 0, 0, 0x01, 0x0C, 0x01, 0, 0, 0x04)  # by type, all that there are
_SIZES: Final[dict[int, int]] = {  # of a body, by type
    Type.PRIORITY: 5,
    Type.RST_STREAM: 4,
    Type.PING: 8,
    Type.WINDOW_UPDATE: 4,
}
_MOST_DATA: Final = 4 << 20  # bytes of a DATA frame: what gRPC's own library allows its peers


def recognise(opening: Opening) -> Score:
    """A client begins with the preface; joined later, frames chain."""
    if any(data.startswith(PREFACE) for data in opening.data):
        return CERTAIN
    if opening.joined:
        return chained(opening, _frames)
    client, server = opening.data
    if not client:
        return None if _may_begin(server) else 0
    return None if PREFACE.startswith(client) else 0


def _may_begin(server: bytes) -> bool:
    """Whether a server that speaks first begins with SETTINGS."""
    return len(server) < _HEADER or (server[3] == Type.SETTINGS and _frames(server) > 0)


def _frames(data: bytes) -> int:
    """How many frames follow each other; 0 where something else is among them."""
    at = count = 0
    while at + _HEADER <= len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        stream = int.from_bytes(data[at + 5 : at + _HEADER], "big")
        if not _is_plausible(size, data[at + 3], data[at + 4], stream):
            return 0
        at += _HEADER + size
        count += 1
    return count


def _is_plausible(size: int, type_: int, flags: int, stream: int) -> bool:
    """Whether there are frames with such a header."""
    if type_ > Type.CONTINUATION or flags & ~_FLAGS[type_]:
        return False
    if size > (_MOST_DATA if type_ == Type.DATA else _SMALL) or stream >= 1 << 31:
        return False
    if size != _SIZES.get(type_, size):
        return False
    if type_ == Type.SETTINGS:
        return stream == 0 and size % 6 == 0
    if type_ in (Type.PING, Type.GOAWAY):
        return stream == 0 and size >= 8
    return stream > 0 or type_ == Type.WINDOW_UPDATE


def _never(_opening: Opening) -> Score:
    """For gRPC: what HTTP/2 carries is known when headers are read, and said with messages."""
    return 0


PROTOCOLS: Final = (
    Protocol(
        "http2",
        "HTTP/2, with gRPC",
        Http2,
        recognise,
        (
            Prior(1024, "vminitd of Apple's containers", "guest"),
            Prior(1, "KubeVirt virt-handler", "host"),
            Prior(8888, "ChromeOS maitred", "guest"),
            Prior(8889, "ChromeOS vm_cicerone", "host"),
        ),
    ),
    Protocol("grpc", "gRPC: remote calls over HTTP/2", Http2, _never),
)
