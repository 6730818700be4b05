"""The streams of an HTTP/2 connection: each is a request and its response, or a gRPC call.

What is said, and when: an HTTP request or response when it ends; a gRPC request with its
first message, because the two are one to whoever makes an ordinary call; every further
message of either side when it ends; and the status, which ends the call.

Rules for editors: frames are read in http2.py; here is what they mean.  Everything may be
missing: a stream can have begun before the capture, or go on behind a gap.
"""

import zlib
from collections.abc import Hashable, Iterator
from enum import Enum, auto
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

from vsockdump.apps.byte_stream import KEPT, Body
from vsockdump.apps.content import UnknownCoding, content_fields, undone
from vsockdump.apps.grpc_messages import GrpcMessage, GrpcMessages, is_just_one
from vsockdump.apps.http import label
from vsockdump.apps.http2_headers import LOST, Headers
from vsockdump.apps.message import Call, Fields, Kind, Message, Value
from vsockdump.apps.protobuf import Schema
from vsockdump.apps.rpc_status import StatusCode, status_text
from vsockdump.apps.texts import bytes_of, cut_of

_GRPC: Final = "application/grpc"


class _What(Enum):
    """What a stream carries."""

    UNKNOWN = auto()
    HTTP = auto()
    GRPC = auto()


class _Half:
    """What one side sends in a stream."""

    def __init__(self, is_midway: bool) -> None:
        self.head: Headers | None = None
        self.trailers: Headers | None = None
        self.grpc = GrpcMessages(is_aligned=not is_midway)
        self.messages = 0
        self.body = bytearray()
        self.body_size = 0
        self.missing = 0
        self.frames = 0  # bytes of frames since the last message
        self.is_said = False
        self.has_ended = False

    def add(self, data: bytes, missing: int) -> None:
        """A part of an HTTP body."""
        if not self.missing:
            self.body += data[: max(KEPT - len(self.body), 0)]
        self.body_size += len(data) + missing
        self.missing += missing

    def take_size(self, unread: int = 0) -> int:
        """The bytes of frames since the last message, without the last few."""
        size = self.frames - unread
        self.frames = unread
        return size


class Exchange:
    """One stream.  `is_midway`: it may have begun before what is known of it."""

    def __init__(
        self,
        stream: int,
        client: int,
        schema: Schema,
        is_midway: bool = False,
        key: Hashable = None,
    ) -> None:
        self.stream = stream
        self.client = client
        self._schema = schema
        self._key = ("stream", stream) if key is None else key
        self._what = _What.UNKNOWN
        self._halves = (_Half(is_midway), _Half(is_midway))
        self._verb = ""
        self._path = ""

    @property
    def is_over(self) -> bool:
        """Whether neither side sends more."""
        return all(half.has_ended for half in self._halves)

    def begin(self, verb: str, path: str) -> None:
        """The request was made elsewhere: in HTTP/1 before an upgrade, or by the server's push."""
        self._verb, self._path = verb, path
        half = self._halves[self.client]
        half.is_said = half.has_ended = True

    # --- what happens in the stream ----------------------------------------------------------

    def count(self, side: int, size: int) -> None:
        """Bytes of frames that belong to the next message."""
        self._halves[side].frames += size

    def take_headers(self, side: int, headers: Headers, end: bool) -> Iterator[Message]:
        """A header block."""
        half = self._halves[side]
        if not _is_head(headers, half, end):
            half.trailers = headers
        elif side == self.client:
            yield from self._take_request_head(half, headers)
        elif _is_interim(headers):
            summary = self._summary(_status_of(headers))
            yield Message("http2", summary, fields=self._fields(headers), size=half.take_size())
        else:
            half.head = headers
            half.grpc.is_aligned = True
            if self._what is not _What.GRPC:
                self._what = _what(headers, self._what)
            if self._is_tunnel:
                yield self._answered(half)
        if end:
            yield from self.end(side)

    def _take_request_head(self, half: _Half, headers: Headers) -> Iterator[Message]:
        half.head = headers
        half.grpc.is_aligned = True
        self._verb = headers.get(":method") or ""
        self._path = headers.get(":path") or headers.get(":authority") or ""
        self._what = _what(headers, self._what)
        if self._is_tunnel:
            yield self._asked(half)

    def take_data(self, side: int, data: bytes, missing: int, whole: int) -> Iterator[Message]:
        """A part of a DATA frame; `whole` is the frame's size in its first part, else 0."""
        half = self._halves[side]
        just_one = is_just_one(data, whole)
        if self._what is _What.UNKNOWN and just_one:
            self._what = _What.GRPC
        if self._what is not _What.GRPC:
            half.add(b"" if self._is_tunnel else data, missing)
            return
        half.grpc.is_aligned = half.grpc.is_aligned or just_one
        for message in half.grpc.feed(data, missing):
            half.messages += 1
            yield self._said_grpc(side, half, message)

    def end(self, side: int) -> Iterator[Message]:
        """The side has ended its half of the stream."""
        half = self._halves[side]
        half.has_ended = True
        if half.is_said or not (half.head or half.trailers or self._is_asked_of(side)):
            return
        yield self._asked(half) if side == self.client else self._answered(half)

    def _is_asked_of(self, side: int) -> bool:
        """Whether the side has to answer what was seen of the other's request."""
        other = self._halves[1 - side]
        return side != self.client and bool(other.head or other.is_said)

    def cut(self, side: int, why: str) -> Iterator[Message]:
        """Frames of a side are lost, or it sends no more: say what is known of a message."""
        half = self._halves[side]
        half.grpc.lose()
        if half.is_said or half.head is None:
            return
        if side == self.client:
            yield self._asked(half, why)
        elif self._what is not _What.GRPC:
            yield self._answered(half, why)

    def reset(self, side: int, why: str) -> Iterator[Message]:
        """A side has reset the stream: the server refuses, or the client takes it back."""
        if side == self.client:
            yield from self.cut(side, why)
        answer = self._halves[1 - self.client]
        own = side == self.client
        call = None if answer.is_said else Call(self._key, self._method, why, own=own)
        kind = Kind.MESSAGE if own or answer.is_said else Kind.RESPONSE
        answer.is_said = answer.has_ended = True
        self._halves[side].has_ended = True
        fields: dict[str, Value] = {"stream": self.stream, "reset": why}
        size = self._halves[side].take_size()
        summary = self._summary("RST_STREAM" if call else why)
        yield Message(self._protocol, summary, kind, fields, call, size)

    # --- what is said --------------------------------------------------------------------------

    def _asked(self, half: _Half, why: str = "") -> Message:
        """The request, without a message of gRPC."""
        return self._request(self._fields(half.head, half, why), half, half.take_size())

    def _request(self, fields: Fields, half: _Half, size: int) -> Message:
        """The request; it opens no call where the answer was quicker."""
        half.is_said = True
        is_open = not self._halves[1 - self.client].is_said
        call = Call(self._key, self._method) if is_open else None
        return Message(self._protocol, self._summary(), Kind.REQUEST, fields, call, size)

    def _answered(self, half: _Half, why: str = "") -> Message:
        """The response, or the status of a gRPC call."""
        half.is_said = True
        if self._what is _What.GRPC:
            status, error = self._grpc_status(half)
        else:
            status, error = _http_status(half.head)
        fields = {"status": status, **self._fields(half.head, half, why)}
        if half.trailers is not None:
            fields["trailers"] = half.trailers.fields()
        call = Call(self._key, self._method, error)
        summary = self._summary("" if error else status, why)
        return Message(self._protocol, summary, Kind.RESPONSE, fields, call, half.take_size())

    def _said_grpc(self, side: int, half: _Half, message: GrpcMessage) -> Message:
        """A message of gRPC; the client's first is the request."""
        size = half.take_size(message.unread)
        asks = side == self.client
        is_first = asks and not half.is_said and half.head is not None
        fields = self._fields(half.head if is_first else None)
        fields |= self._payload(asks, half, message)
        if is_first:
            return self._request(fields, half, size)
        summary = self._summary("message" if half.messages == 1 else f"message {half.messages}")
        if asks:
            return Message("grpc", summary, fields=fields, size=size)
        call = Call(self._key, self._method, ends=False)
        return Message("grpc", summary, Kind.RESPONSE, fields, call, size)

    def _payload(self, asks: bool, half: _Half, message: GrpcMessage) -> dict[str, Value]:
        """The fields for what a message holds."""
        body = message.body
        fields: dict[str, Value] = {**cut_of(body)}
        head = half.head or Headers()
        if message.is_compressed:
            encoding = head.get("grpc-encoding") or "unknown"
            fields["compressed"] = f"{encoding}, {body.size} bytes"
            try:
                data, is_whole = undone(body.data, (encoding,), body.is_whole)
            except (zlib.error, UnknownCoding) as error:
                fields["not decoded"] = str(error)
                return fields | {"message": bytes_of(body)}
            body = Body(data, len(data) + (not is_whole))
        kind = (head.get("content-type") or "").partition(";")[0].removeprefix(_GRPC)
        if kind not in ("", "+proto"):
            return fields | {"message": content_fields(body)}
        decode = self._schema.request if asks else self._schema.response
        return fields | {"message": decode(*self._names, body)}

    def _grpc_status(self, half: _Half) -> tuple[str, str | None]:
        """How a call ended, and why it failed."""
        last = half.trailers or half.head or Headers()
        code = last.get("grpc-status")
        if code is None:
            status = _status_of(half.head)
            if status.startswith("200"):
                status = LOST if not last.is_whole else "no status"
            return status, status if last.is_whole else None
        number = int(code) if code.isascii() and code.isdigit() and len(code) < 5 else -1
        status = status_text(number, unquote(last.get("grpc-message") or ""))
        return status, None if number == StatusCode.OK else status

    # --- names ----------------------------------------------------------------------------------

    @property
    def _protocol(self) -> str:
        return "grpc" if self._what is _What.GRPC else "http2"

    @property
    def _is_tunnel(self) -> bool:
        return self._verb == "CONNECT"

    @property
    def _names(self) -> tuple[str, str]:
        """Service and method of a gRPC call."""
        service, _slash, method = self._path.removeprefix("/").rpartition("/")
        return service, method

    @property
    def _method(self) -> str:
        """For statistics; empty where the request was not seen, or its path is lost."""
        if self._what is _What.GRPC:
            return self._path.removeprefix("/")
        return label(self._verb, self._path) if self._path else ""

    def _summary(self, what: str = "", why: str = "") -> str:
        name = self._method if self._what is _What.GRPC else f"{self._verb} {self._path}".strip()
        request = self._halves[self.client].head
        if not self._path and request is not None and not request.is_whole:
            name = f"{name} {LOST}".strip()
        return " ".join(filter(None, (name, f"#{self.stream}", what, why and f"({why})")))

    def _fields(
        self, headers: Headers | None, half: _Half | None = None, why: str = ""
    ) -> dict[str, Value]:
        """The fields of any message; with `half` those of an HTTP body, if there is one."""
        fields: dict[str, Value] = {"stream": self.stream}
        if self._what is _What.GRPC:
            fields["service"], fields["method"] = self._names
        if headers is not None:
            fields["headers"] = headers.fields()
        if half is not None and half.body_size:
            body = Body(bytes(half.body), half.body_size, half.missing)
            fields["body"] = content_fields(body, _codings(headers))
        if why:
            fields["(unfinished)"] = why
        return fields


def _codings(headers: Headers | None) -> tuple[str, ...]:
    """How a body is coded."""
    names = (headers and headers.get("content-encoding")) or ""
    return tuple(name.strip().lower() for name in names.split(",") if name.strip())


def _is_head(headers: Headers, half: _Half, end: bool) -> bool:
    """Whether a block begins a message: these have names that begin with a colon.

    Where the block is not decoded its place tells.
    """
    if any(name.startswith(":") for name, _value in headers.pairs):
        return True
    return half.head is None and not (end and not half.grpc.is_aligned)


def _what(headers: Headers, before: _What) -> _What:
    """What a stream with such headers carries."""
    kind = headers.get("content-type")
    if kind is None:
        return _What.HTTP if headers.is_whole else before
    return _What.GRPC if kind.startswith(_GRPC) else _What.HTTP


def _is_interim(headers: Headers) -> bool:
    """Whether the response is still to come."""
    return (headers.get(":status") or "").startswith("1")


def _status_of(headers: Headers | None) -> str:
    """The HTTP status with its phrase."""
    code = headers.get(":status") if headers else None
    if code is None:
        return LOST
    try:
        return f"{code} {HTTPStatus(int(code)).phrase}"
    except ValueError:
        return code


def _http_status(headers: Headers | None) -> tuple[str, str | None]:
    """The status with the content's type, and why the call failed."""
    status = _status_of(headers)
    kind = (headers.get("content-type") or "").partition(";")[0] if headers else ""
    return f"{status} {kind}".rstrip(), status if status[:1] in ("4", "5") else None
