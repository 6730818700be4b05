"""ttRPC: remote calls of containerd and of Kata Containers, over frames of ten bytes' header.

A frame is a length (be32, at most 4 MiB), the stream's number (be32, odd), a type, flags and
data.  A Request names service and method; a Response ends the call; Data frames stream
either way.  Source: PROTOCOL.md and request.proto of github.com/containerd/ttrpc.

Rules for editors: frames are often cut short (snaplen).  Request and Response are therefore
read field by field, and say what they still can: service and method stand first.
"""

import re
from collections.abc import Callable, Mapping
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final, NamedTuple

from vsockdump.apps.byte_stream import Body, ByteStream, ProtocolError, Steps
from vsockdump.apps.chains import chained
from vsockdump.apps.message import Call, Fields, Kind, Message, Value
from vsockdump.apps.protobuf import LEFT_OUT, Field, fields_of, schema
from vsockdump.apps.protocol import (
    CERTAIN,
    Context,
    Opening,
    Parser,
    Prior,
    Protocol,
    Score,
)
from vsockdump.apps.rpc_status import StatusCode, status_text
from vsockdump.apps.texts import cut_of, text_of
from vsockdump.lazy import Lazy

_HEADER: Final = Struct(">IIBB")
_MOST_DATA: Final = 4 << 20
_MOST_STREAMS: Final = 1000  # open calls of a connection whose names are kept
_MOST_METADATA: Final = 100
_SERVICE_KEY: Final = b"\x0a"  # of a Request's first two fields
_METHOD_KEY: Final = b"\x12"
_NAME: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_.]*")
_CUT: Final = "…"  # behind a name that is cut short
_LONGEST_NAME: Final = 127  # bytes of a service's name, to be recognised


class Type(IntEnum):
    """Of a frame."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


class Flags(IntFlag):
    """Of a frame; "remote" is who sends it."""

    REMOTE_CLOSED = 1
    REMOTE_OPEN = 2
    NO_DATA = 4


_TYPES: Final = {int(type_): type_.name for type_ in Type}
_ALL_FLAGS: Final = sum(Flags)

Decode = Callable[[str, str, Body], Lazy[str, Value]]  # service, method, payload


class _Frame(NamedTuple):
    size: int
    stream: int
    type: int
    flags: int


class Request(NamedTuple):
    """What opens a call; `payload` None: it is none, or not captured."""

    service: str
    method: str
    payload: Body | None
    timeout_ns: int
    metadata: Mapping[str, Value]


class Response(NamedTuple):
    """What ends one; `code` None: it was not captured."""

    code: int | None
    message: str
    payload: Body | None


class _Stream:
    """A call that goes on: what it is, and how many Data frames each side has sent."""

    def __init__(self, service: str, method: str) -> None:
        self.service = service
        self.method = method
        self.counts = [0, 0]

    @property
    def name(self) -> str:
        """The method, as it is shown."""
        return f"{self.service}/{self.method}"


_UNKNOWN: Final = _Stream("", "")  # the call of a request that was not captured


class TtRpc(Parser):
    """One connection."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._schema = schema(context.setting.descriptors)
        self._streams: dict[int, _Stream] = {}
        self._client = context.opening.likely_client

    def messages(self, stream: ByteStream) -> Steps:
        """See Parser."""
        while True:
            frame = _Frame._make(_HEADER.unpack((yield from stream.exact(_HEADER.size))))
            if frame.size > _MOST_DATA:
                raise ProtocolError(f"a frame of {frame.size} bytes, and ttRPC allows 4 MiB")
            body = yield from stream.body(frame.size)
            yield self._message(stream.side, frame, body)

    def resumes(self, side: int, head: bytes) -> bool:
        """See Parser."""
        return bool(_frames(head))

    def _message(self, side: int, frame: _Frame, body: Body) -> Message:
        if frame.type == Type.REQUEST:
            self._client = side
            return self._request(frame, body)
        if frame.type == Type.RESPONSE:
            self._client = 1 - side
            return self._response(frame, body)
        if frame.type == Type.DATA:
            return self._data(side, frame, body)
        return Message("ttrpc", f"type {frame.type} #{frame.stream}", fields=_fields(frame, body))

    def _request(self, frame: _Frame, body: Body) -> Message:
        request = read_request(body)
        if len(self._streams) >= _MOST_STREAMS:
            del self._streams[next(iter(self._streams))]
        stream = _Stream(request.service, request.method)
        self._streams[frame.stream] = stream
        fields = _fields(
            frame,
            body,
            service=request.service,
            method=request.method,
            timeout_ns=request.timeout_ns or None,
            metadata=request.metadata or None,
            payload=self._payload(stream, request.payload, self._schema.request),
        )
        call = Call(frame.stream, stream.name)
        return Message("ttrpc", f"{stream.name} #{frame.stream}", Kind.REQUEST, fields, call)

    def _response(self, frame: _Frame, body: Body) -> Message:
        response = read_response(body)
        stream = self._streams.pop(frame.stream, _UNKNOWN)
        status = "(status not captured)"
        if response.code is not None:
            status = status_text(response.code, response.message)
        fields = _fields(
            frame,
            body,
            status=status,
            payload=self._payload(stream, response.payload, self._schema.response),
        )
        error = status if response.code else None
        call = Call(frame.stream, _method(stream), error)
        summary = _summary(stream, frame, "" if error else status)
        return Message("ttrpc", summary, Kind.RESPONSE, fields, call)

    def _data(self, side: int, frame: _Frame, body: Body) -> Message:
        """Streamed data.  The server's last ends the call; no Response needs to follow."""
        stream = self._streams.get(frame.stream, _UNKNOWN)
        is_last = bool(frame.flags & Flags.REMOTE_CLOSED)
        what = "end" if frame.flags & Flags.NO_DATA else "data"
        if stream is not _UNKNOWN and what == "data":
            stream.counts[side] += 1
            what = f"data {stream.counts[side]}"
        summary = _summary(stream, frame, f"{what}, the last" if is_last and body.size else what)
        asks = side == self._client
        decode = self._schema.request if asks else self._schema.response
        payload = None if frame.flags & Flags.NO_DATA else body
        fields = _fields(frame, body, payload=self._payload(stream, payload, decode))
        if asks:
            return Message("ttrpc", summary, fields=fields)
        if is_last:
            self._streams.pop(frame.stream, None)
        call = Call(frame.stream, _method(stream), ends=is_last)
        return Message("ttrpc", summary, Kind.RESPONSE, fields, call)

    @staticmethod
    def _payload(stream: _Stream, payload: Body | None, decode: Decode) -> Value:
        return None if payload is None else decode(stream.service, stream.method, payload)


def _method(stream: _Stream) -> str:
    return "" if stream is _UNKNOWN else stream.name


def _summary(stream: _Stream, frame: _Frame, what: str) -> str:
    return f"{_method(stream)} #{frame.stream} {what}".strip()


def _fields(frame: _Frame, body: Body, **values: Value) -> Fields:
    """The fields of a frame, and those of these that are known."""
    own: dict[str, Value] = {"type": _type_name(frame.type), "stream": frame.stream}
    if frame.flags:
        own["flags"] = [flag.name for flag in Flags if frame.flags & flag]
    known = {name: value for name, value in values.items() if value is not None}
    return {**own, **known, **cut_of(body)}


def _type_name(type_: int) -> str:
    return _TYPES.get(type_, str(type_))


# --- what the data of a frame holds ---------------------------------------------------------


def read_request(body: Body) -> Request:
    """A Request, as far as it is there."""
    texts, payload, timeout, pairs = {1: "", 2: ""}, None, 0, 0
    metadata: dict[str, list[str]] = {}
    for field in fields_of(body.data, body.is_whole):
        if field.number == 4 and isinstance(field.value, int):
            timeout = field.value
        elif isinstance(field.value, int):
            continue
        elif field.number in texts:
            texts[field.number] = text_of(field.value) + _CUT * bool(field.missing)
        elif field.number == 3:
            payload = _body(field, field.value)
        elif field.number == 5:
            pairs += 1
            if pairs <= _MOST_METADATA:
                key, value = _pair(field.value, not field.missing)
                metadata.setdefault(key, []).append(value)
    if pairs > _MOST_METADATA:
        metadata[LEFT_OUT] = [f"{pairs - _MOST_METADATA} pairs"]
    shown = {key: ", ".join(values) for key, values in metadata.items()}
    return Request(texts[1], texts[2], payload, timeout, shown)


def _pair(data: bytes, whole: bool) -> tuple[str, str]:
    """Key and value of metadata."""
    texts = {1: "", 2: ""}
    for field in fields_of(data, whole):
        if field.number in texts and isinstance(field.value, bytes):
            texts[field.number] = text_of(field.value)
    return texts[1], texts[2]


def read_response(body: Body) -> Response:
    """A Response, as far as it is there."""
    code: int | None = int(StatusCode.OK) if body.is_whole else None
    message, payload = "", None
    for field in fields_of(body.data, body.is_whole):
        if isinstance(field.value, int):
            continue
        if field.number == 1:
            code, message = _status(field.value, not field.missing)
        elif field.number == 2:
            code = code or StatusCode.OK  # it would stand before
            payload = _body(field, field.value)
    return Response(code, message, payload)


def _status(data: bytes, whole: bool) -> tuple[int, str]:
    """Code and message of a Status."""
    code, message = int(StatusCode.OK), ""
    for field in fields_of(data, whole):
        if field.number == 1 and isinstance(field.value, int):
            code = field.value
        elif field.number == 2 and isinstance(field.value, bytes):
            message = text_of(field.value)
    return code, message


def _body(field: Field, data: bytes) -> Body:
    return Body(data, len(data) + field.missing, field.missing)


# --- recognising ----------------------------------------------------------------------------


def recognise(opening: Opening) -> Score:
    """A connection begins with a Request; joined later, with frames that chain."""
    first = next((data for data in opening.data if data), b"")
    if opening.joined:
        return chained(opening, _frames)
    if len(first) < _HEADER.size:
        return None if b"\0".startswith(first[:1]) else 0
    if not opening.data[0]:
        return 0  # the server does not speak first
    frame = _frame(first)
    if frame is None or frame.type != Type.REQUEST or not _frames(first):
        return 0
    data = first[_HEADER.size : _HEADER.size + frame.size]
    named = _names_a_service(data)
    if named is None and len(data) == frame.size:
        return 0
    return CERTAIN if named else named


def _frame(data: bytes) -> _Frame | None:
    """The header that the data begin with, if it can be one."""
    frame = _Frame._make(_HEADER.unpack_from(data))
    if frame.size > _MOST_DATA or not frame.stream & 1 or frame.flags > _ALL_FLAGS:
        return None
    return frame if frame.type in _TYPES else None


def _frames(data: bytes) -> int:
    """How many frames follow each other; 0 where something else is among them."""
    at = count = 0
    while at + _HEADER.size <= len(data):
        frame = _frame(data[at:])
        if frame is None or not _is_plausible(frame, data[at + _HEADER.size :]):
            return 0
        at += _HEADER.size + frame.size
        count += 1
    return count


def _is_plausible(frame: _Frame, data: bytes) -> bool:
    """Whether the data of a frame begin as they must."""
    if not data or not frame.size:
        return frame.type != Type.REQUEST or bool(frame.size)
    if frame.type == Type.REQUEST:
        return _names_a_service(data[: frame.size]) is not False
    return frame.type == Type.DATA or data[0] in (0x0A, 0x12)


def _names_a_service(data: bytes) -> bool | None:
    """Whether a Request's data begin with the name of a service; None: too few to tell."""
    if not data.startswith(_SERVICE_KEY[: len(data)]):
        return False
    if len(data) < 2:
        return None
    service, after = data[2 : 2 + data[1]], data[2 + data[1] :]
    if not 0 < data[1] <= _LONGEST_NAME or not _NAME.fullmatch(service):
        return False if service else None
    return after[:1] == _METHOD_KEY if after else None


PROTOCOLS: Final = (
    Protocol(
        "ttrpc",
        "ttRPC: remote calls of Kata Containers and containerd",
        TtRpc,
        recognise,
        (
            Prior(1024, "Kata agent", "guest"),
            Prior(10789, "firecracker-containerd agent", "guest"),
            Prior(2048, "vAccel agent", "host"),
        ),
    ),
)
