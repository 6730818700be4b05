"""HTTP/1 (RFC 9112): requests and responses, and what they upgrade to.

A reader of its own over ByteStream, not h11: h11's connection is one end of a live exchange.
It has no side that only listens, takes no gaps, reads no body whose middle is missing, and
cannot begin inside a connection.

Responses belong to requests by their order.  After a loss that order is not known: a
response then belongs to a request only where a single one is open, which is right for all
clients that do not pipeline.

Rules for editors: how long a body is decides where everything after it stands, so `_size_of`
is as strict as the RFC, and nothing is guessed there.
"""

import re
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vsockdump.apps import texts
from vsockdump.apps.byte_stream import KEPT, Body, ByteStream, Ended, Lost, ProtocolError, Steps
from vsockdump.apps.content import content_fields, counted
from vsockdump.apps.message import Call, Kind, Message, Value
from vsockdump.apps.protocol import (
    CERTAIN,
    LIKELY,
    OPENING,
    Context,
    Opening,
    Parser,
    Prior,
    Protocol,
    Score,
)
from vsockdump.apps.websocket import WebSocket

NAME: Final = "http"
_LONGEST_HEAD: Final = 64 << 10  # bytes of a request's or response's head, and of trailers
_LONGEST_CHUNK_LINE: Final = 4096
_LONGEST_PATH: Final = 200  # characters of a method in statistics
_MOST_PENDING: Final = 1000  # requests without a response whose order is kept

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rf"({_TOKEN}) (\S+) HTTP/(1\.[0-9])")
_STATUS_LINE: Final = re.compile(r"HTTP/(1\.[0-9]) ([1-9][0-9]{2})(?: (.*))?")
_HEADER: Final = re.compile(rf"({_TOKEN}):[ \t]*(.*?)[ \t]*")
_CHUNK: Final = re.compile(r"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")

# Methods that begin a connection, for recognising it; the parser takes any.
_METHODS: Final = (b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT")
_METHODS_OF_DAV: Final = (b"PROPFIND", b"PROPPATCH", b"MKCOL", b"COPY", b"MOVE", b"REPORT")
_STARTS: Final = tuple(method + b" " for method in _METHODS + _METHODS_OF_DAV)
_STATUS_START: Final = b"HTTP/1."

# Parts of a path that name one thing of many; a method in statistics covers them all.
_ONE_OF_MANY: Final = re.compile(r"(?<=/)(?:\d+|[0-9a-fA-F-]{32,})(?=/|$)")

_CHUNKED, _UNTIL_CLOSE = -1, -2  # as sizes of a body


class Headers:
    """Header fields, in their order; names in lower case."""

    def __init__(self, lines: list[str]) -> None:
        self._pairs: list[tuple[str, str]] = []
        for line in lines:
            if line[0] in " \t" and self._pairs:  # a folded line, as RFC 9112 5.2 still allows
                name, value = self._pairs[-1]
                self._pairs[-1] = name, f"{value} {line.strip()}"
                continue
            header = _HEADER.fullmatch(line)
            if header is None:
                raise ProtocolError("a header line that is none")
            self._pairs.append((header[1].lower(), header[2]))

    def get(self, name: str) -> str:
        """The value, those of repeated fields joined as in a list; empty where there is none."""
        return ", ".join(value for key, value in self._pairs if key == name)

    def words(self, name: str) -> tuple[str, ...]:
        """The value as a list of words in lower case."""
        return tuple(word for part in self.get(name).lower().split(",") if (word := part.strip()))

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _value in self._pairs)

    def fields(self) -> dict[str, Value]:
        """Values by name; a list where a name is repeated."""
        found: dict[str, list[str]] = {}
        for name, value in self._pairs:
            found.setdefault(name, []).append(value)
        return {name: many[0] if len(many) == 1 else many for name, many in found.items()}


@dataclass(slots=True)
class _Exchange:
    """A request and what became of it."""

    number: int
    method: str
    label: str  # in statistics
    upgrades: bool
    answered: bool = False  # the head of its final response was seen
    done: bool = False  # that response was said
    goes_on: bool = False  # it is answered in what the connection is upgraded to


@dataclass(slots=True)
class _Content:
    """A body as it was read; it may end early."""

    body: Body
    trailers: dict[str, Value] = field(default_factory=dict)
    is_early: bool = False  # the side ended inside it

    def fields(self, headers: Headers) -> dict[str, Value]:
        """What a message shows of it."""
        fields: dict[str, Value] = {}
        if self.body.size:
            fields["body"] = content_fields(self.body, headers.words("content-encoding"))
        if self.trailers:
            fields["trailers"] = self.trailers
        if self.is_early:
            fields["ended early"] = True
        return fields


class _Status(NamedTuple):
    """A response's first line and headers."""

    version: str
    code: int
    reason: str
    headers: Headers


class Http(Parser):
    """A connection of HTTP/1, and of what it is upgraded to."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._server: int | None = None  # the side that answers
        self._pending: deque[_Exchange] = deque()
        self._count = 0
        self._is_unsure = False  # whether requests and responses are still in step
        self._next: Parser | None = None  # what the connection was upgraded to

    def messages(self, stream: ByteStream) -> Steps:
        """Requests or responses, as a side begins; then what both agree to speak."""
        if stream.joined:
            self._lose_step()
        if self._next is None:
            head = yield from stream.peek(len(_STATUS_START))
            answers = head == _STATUS_START
            yield from self._responses(stream) if answers else self._requests(stream)
        if self._next is not None:
            yield from self._next.messages(stream)

    def resumes(self, side: int, head: bytes) -> bool:
        """Where a request or a status line begins, or as what it was upgraded to says."""
        if self._next is not None:
            return self._next.resumes(side, head)
        answers = head.startswith(_STATUS_START)
        fits = self._server is None or answers == (side == self._server)
        return fits and _score(head) == CERTAIN

    def _lose_step(self) -> None:
        """It is no longer known which requests the next responses are for."""
        self._is_unsure = True
        for exchange in self._pending:
            exchange.answered = True
        self._pending.clear()

    # --- requests ----------------------------------------------------------------------------

    def _requests(self, stream: ByteStream) -> Steps:
        """Until the connection is upgraded, or ends inside a request."""
        while True:
            lines = yield from _lines(stream)
            start = _REQUEST_LINE.fullmatch(lines[0])
            if start is None:
                raise ProtocolError("a request line that is none")
            method, target, version = start.groups()
            headers = Headers(lines[1:])
            exchange = self._begin(method, target, headers)
            content = yield from _content(stream, _size_of(headers, in_request=True))
            yield self._request(exchange, target, version, headers, content)
            if content.is_early:
                return
            while exchange.upgrades and not exchange.answered:
                if stream.ended and not stream.waiting:
                    return
                yield None  # what comes next is said by the response
            if self._next is not None:
                return

    def _begin(self, method: str, target: str, headers: Headers) -> _Exchange:
        if len(self._pending) >= _MOST_PENDING:
            self._lose_step()
        self._count += 1
        upgrades = method == "CONNECT" or "upgrade" in headers
        exchange = _Exchange(self._count, method, label(method, target), upgrades)
        self._pending.append(exchange)
        return exchange

    def _request(
        self, exchange: _Exchange, target: str, version: str, headers: Headers, content: _Content
    ) -> Message:
        fields: dict[str, Value] = {
            "method": exchange.method,
            "target": target,
            "version": version,
            "headers": headers.fields(),
        }
        # A request that was answered before it was complete opens no call: nobody would close it.
        call = None if exchange.done else Call(exchange.number, exchange.label)
        summary = f"{exchange.method} {texts.short(target)}{_early(content)}"
        return Message(NAME, summary, Kind.REQUEST, fields | content.fields(headers), call)

    # --- responses ---------------------------------------------------------------------------

    def _responses(self, stream: ByteStream) -> Steps:
        """Until the connection is upgraded, or ends with or inside a response."""
        self._server = stream.side
        while True:
            status = yield from _status(stream)
            is_final = status.code >= 200 or status.code == 101
            exchange = self._answered(is_final)
            size = _size_of(status.headers, in_request=False)
            if _has_no_body(status.code, exchange):
                size = 0
            elif exchange is None and size and (yield from _is_status_next(stream, size)):
                size = 0  # it answers a HEAD that was not captured
            self._upgrade(stream.side, exchange, status)
            if exchange is not None:
                exchange.answered = is_final
            content = yield from _content(stream, size)
            yield self._response(exchange, status, content)
            if exchange is not None:
                exchange.done = is_final
            if self._next is not None or content.is_early or size == _UNTIL_CLOSE:
                return

    def _answered(self, is_final: bool) -> _Exchange | None:
        """The request that a response is for; it is no longer pending where that is final."""
        if not self._pending:
            return None
        if self._is_unsure and len(self._pending) > 1:
            self._lose_step()
            return None
        return self._pending.popleft() if is_final else self._pending[0]

    def _upgrade(self, server: int, exchange: _Exchange | None, status: _Status) -> None:
        """What is spoken after this response, where that is no longer HTTP/1."""
        if exchange and exchange.method == "CONNECT" and 200 <= status.code < 300:
            self._next = Tunnel(self.context, "tunnel")
        elif status.code == 101:
            protocol = status.headers.get("upgrade").lower()
            make = _UPGRADES.get(protocol)
            self._next = (
                make(self.context, status.headers, server, exchange)
                if make
                else Tunnel(self.context, f"upgraded to {protocol or 'something'}")
            )

    def _response(self, exchange: _Exchange | None, status: _Status, content: _Content) -> Message:
        code, reason, headers = status.code, status.reason, status.headers
        fields: dict[str, Value] = {
            "status": code,
            "reason": reason,
            "version": status.version,
            "headers": headers.fields(),
        }
        kind = headers.get("upgrade" if code == 101 else "content-type").partition(";")[0].strip()
        line = " ".join(word for word in (str(code), reason, kind) if word)
        call = None
        if exchange is not None:
            error = f"{code} {reason}".rstrip() if code >= 400 else None
            if content.is_early:
                error = error or "the response ended early"
            is_final = code >= 200 or code == 101
            ends = is_final and not exchange.goes_on
            call = Call(exchange.number, exchange.label, error, ends=ends)
        summary = f"{line}{_early(content)}"
        return Message(NAME, summary, Kind.RESPONSE, fields | content.fields(headers), call)


def label(method: str, target: str) -> str:
    """`GET /items/*`: the path without its query, and without what names one item of many."""
    path = target.partition("?")[0].partition("#")[0]
    if method != "CONNECT":
        path = re.sub(r"^https?://[^/]*", "", path) or "/"
    return f"{method} {_ONE_OF_MANY.sub('*', path)[:_LONGEST_PATH]}"


def _early(content: _Content) -> str:
    return " (ended early)" if content.is_early else ""


# --- heads and bodies --------------------------------------------------------------------------


def _lines(stream: ByteStream) -> Generator[None, None, list[str]]:
    """The lines of a head, without the empty one that ends it, or those that stand before it."""
    lines: list[str] = []
    left = _LONGEST_HEAD
    while True:
        if left <= 0:
            raise ProtocolError(f"a head of more than {_LONGEST_HEAD} bytes")
        raw = yield from stream.until(b"\n", left)
        left -= len(raw)
        line = raw.rstrip(b"\r\n").decode("latin-1")
        if line:
            lines.append(line)
        elif lines:
            return lines


def _status(stream: ByteStream) -> Generator[None, None, _Status]:
    lines = yield from _lines(stream)
    start = _STATUS_LINE.fullmatch(lines[0])
    if start is None:
        raise ProtocolError("a status line that is none")
    return _Status(start[1], int(start[2]), (start[3] or "").strip(), Headers(lines[1:]))


def _size_of(headers: Headers, in_request: bool) -> int:
    """The size of a body as its head tells it (RFC 9112 6.3), or how it tells its end."""
    codings = headers.words("transfer-encoding")
    if codings:
        if codings[-1] == "chunked":
            return _CHUNKED
        if in_request:
            raise ProtocolError("a request whose size cannot be known")
        return _UNTIL_CLOSE
    sizes = set(headers.words("content-length"))
    if not sizes:
        return 0 if in_request else _UNTIL_CLOSE
    size = sizes.pop()
    if sizes or not re.fullmatch(r"[0-9]{1,18}", size):
        raise ProtocolError("a content-length that is no number, or two that differ")
    return int(size)


def _has_no_body(code: int, exchange: _Exchange | None) -> bool:
    method = exchange.method if exchange else ""
    if code < 200 or code in (204, 304) or method == "HEAD":
        return True
    return method == "CONNECT" and code < 300


def _is_status_next(stream: ByteStream, size: int) -> Generator[None, None, bool]:
    """Whether a status line stands where a body of that size should."""
    wanted = len(_STATUS_START) if size < 0 else min(size, len(_STATUS_START))
    try:
        head = yield from stream.peek(wanted)
    except (Ended, Lost):
        return False
    return head == _STATUS_START


def _content(stream: ByteStream, size: int) -> Generator[None, None, _Content]:
    if size == _CHUNKED:
        return (yield from _chunks(stream))
    if size == _UNTIL_CLOSE:
        return _Content((yield from stream.rest()))
    body = yield from stream.up_to(size)
    return _Content(body, is_early=body.size < size)


def _chunks(stream: ByteStream) -> Generator[None, None, _Content]:
    kept, size, missing = bytearray(), 0, 0
    try:
        while True:
            line = (yield from stream.until(b"\n", _LONGEST_CHUNK_LINE)).decode("latin-1")
            head = _CHUNK.fullmatch(line.rstrip("\r\n"))
            if head is None:
                raise ProtocolError("a chunk without a size")
            wanted = int(head[1], 16)
            if not wanted:
                break
            part = yield from stream.up_to(wanted, 0 if missing else KEPT - len(kept))
            kept += part.data
            size, missing = size + part.size, missing + part.missing
            if (yield from stream.until(b"\n", 2)) not in (b"\r\n", b"\n"):
                raise ProtocolError("a chunk that is longer than its size")
        trailers = yield from _trailers(stream)
    except Ended:
        return _Content(Body(bytes(kept), size, missing), is_early=True)
    return _Content(Body(bytes(kept), size, missing), trailers)


def _trailers(stream: ByteStream) -> Generator[None, None, dict[str, Value]]:
    """Header fields after the last chunk, up to an empty line."""
    lines: list[str] = []
    left = _LONGEST_HEAD
    while left > 0:
        raw = yield from stream.until(b"\n", left)
        left -= len(raw)
        line = raw.rstrip(b"\r\n").decode("latin-1")
        if not line:
            return Headers(lines).fields()
        lines.append(line)
    raise ProtocolError(f"trailers of more than {_LONGEST_HEAD} bytes")


# --- what follows HTTP -------------------------------------------------------------------------


class Tunnel(Parser):
    """Bytes that HTTP only carries: TLS where they begin as it does, and else counted."""

    def __init__(self, context: Context, what: str) -> None:
        super().__init__(context)
        self._what = what
        self._tls: Parser | None = None

    def messages(self, stream: ByteStream) -> Steps:
        """Those of TLS, or how much there was."""
        from vsockdump.apps import tls

        if self._tls is None and not stream.joined and (yield from tls.begins(stream)):
            self._tls = self._tls or tls.Tls(self.context)
        if self._tls is not None:
            yield from self._tls.messages(stream)
        else:
            yield from counted(stream, NAME, self._what)

    def resumes(self, side: int, head: bytes) -> bool:
        """As TLS does; what is counted begins everywhere."""
        return self._tls is None or self._tls.resumes(side, head)


_Make = Callable[[Context, Headers, int, _Exchange | None], Parser]


def _websocket(
    context: Context, headers: Headers, server: int, _exchange: _Exchange | None
) -> Parser:
    return WebSocket(context, headers.get("sec-websocket-extensions"), server)


def _http2(context: Context, _headers: Headers, server: int, exchange: _Exchange | None) -> Parser:
    """The request is answered in HTTP/2, as its first stream."""
    from vsockdump.apps.http2 import Http2

    parser = Http2(context)
    if exchange is not None:
        exchange.goes_on = True
        parser.upgraded(1 - server, exchange.label, exchange.number)
    return parser


# By the Upgrade of a 101; the server's headers say more.
_UPGRADES: Final[dict[str, _Make]] = {"h2c": _http2, "websocket": _websocket}


# --- recognising -------------------------------------------------------------------------------


def recognise(opening: Opening) -> Score:
    """A request line or a status line, from either side."""
    scores = [_score(data) for data in opening.data if data]
    if any(scores) and (opening.joined or 0 not in scores):
        return max(score or 0 for score in scores)
    return None if not scores or None in scores else 0


def _score(data: bytes) -> Score:
    if data.startswith(_STATUS_START):
        return CERTAIN
    starts = _STARTS if data[:1].isupper() else ()
    if data.startswith(starts):
        line, end, _rest = data.partition(b"\n")
        if not end:
            return LIKELY if len(data) >= OPENING else None
        request = _REQUEST_LINE.fullmatch(line.rstrip(b"\r").decode("latin-1"))
        return CERTAIN if request else 0
    prefixes = (*starts, _STATUS_START)
    return None if any(start.startswith(data) for start in prefixes) else 0


PROTOCOLS: Final = (
    Protocol(
        NAME,
        "HTTP/1",
        Http,
        recognise,
        (
            Prior(1024, "CoreOS Ignition or gvproxy", "host"),
            Prior(1031, "varlink-httpd", "guest"),
            Prior(10000, "dstack", "host"),
            Prior(10000, "Fly.io init", "guest"),
        ),
    ),
)
