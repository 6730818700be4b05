"""libkrun's transparent socket impersonation: a guest's socket calls, as datagrams to the host.

The port of the host says which call it is.  Two wires are in use, the older for IPv4 only,
and lengths tell them apart.  Answers have no number; the host answers each port in order,
and as libkrun sends whole buffers, answers are longer than what they say.

libkrun's time synchronisation, a datagram a minute with the host's clock, is told here too.

Rules for editors: all numbers are packed and little-endian, but for ports in addresses.
"""

from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from struct import Struct, error
from typing import Any, Final, NamedTuple

from vsockdump.apps import texts
from vsockdump.apps.byte_stream import ByteStream, ProtocolError, Steps
from vsockdump.apps.errnos import errno_name
from vsockdump.apps.message import Call, Kind, Message
from vsockdump.apps.protocol import (
    LIKELY,
    POSSIBLE,
    Context,
    Opening,
    Parser,
    Prior,
    Protocol,
    Score,
)
from vsockdump.wire import CID_HOST, SocketType

_DGRAM: Final = int(SocketType.DGRAM)
_MOST_OPEN: Final = 10_000  # calls of a port that wait for their answer
_INET, _INET6, _UNIX = 2, 10, 1
_FAMILIES: Final = {_UNIX: "AF_UNIX", _INET: "AF_INET", _INET6: "AF_INET6"}
_TYPES: Final = {1: "SOCK_STREAM", 2: "SOCK_DGRAM"}
_U16_BE: Final = Struct(">H")

Fields = dict[str, Any]


class _Operation(NamedTuple):
    """A call: its name, how its datagram is read, whether it is answered."""

    name: str
    read: Callable[[bytes], Fields]
    answered: bool = False


def _numbers(form: str, *names: str) -> Callable[[bytes], Fields]:
    """Numbers in a row, the first of which is the socket."""
    struct = Struct(form)

    def read(data: bytes) -> Fields:
        return dict(zip(names, struct.unpack_from(data), strict=True))

    return read


def _create(data: bytes) -> Fields:
    """`proxy_create`; the older wire has no family."""
    older = len(data) == 6
    socket, *rest = Struct("<IH" if older else "<IHH").unpack_from(data)
    family, kind = (_INET, *rest) if older else rest
    return {
        "socket": socket,
        "family": _FAMILIES.get(family, family),
        "type": _TYPES.get(kind, kind),
    }


def _addressed(form: str, older_form: str, names: tuple[str, ...]) -> Callable[[bytes], Fields]:
    """Numbers, and an address: behind its length, or on the older wire IPv4 behind the socket."""
    struct, older = Struct(form), Struct(older_form)

    def read(data: bytes) -> Fields:
        if len(data) == older.size:
            socket, address, port, *numbers = older.unpack(data)
            told: Fields = dict(zip(names, (socket, *numbers), strict=True))
            return {**told, "address": _inet(address, port)}
        *numbers, size = struct.unpack_from(data)
        told = dict(zip(names, numbers, strict=True))
        return {**told, "address": _address(data[struct.size : struct.size + size])}

    return read


def _inet(address: bytes, port: bytes) -> str:
    return f"{IPv4Address(address)}:{_U16_BE.unpack(port)[0]}"


def _address(data: bytes) -> str:
    """A struct sockaddr of Linux."""
    family = int.from_bytes(data[:2], "little")
    if family == _INET and len(data) >= 8:
        return _inet(data[4:8], data[2:4])
    if family == _INET6 and len(data) >= 24:
        return f"[{IPv6Address(data[8:24])}]:{_U16_BE.unpack_from(data, 2)[0]}"
    if family == _UNIX:
        return "unix:" + data[2:].rstrip(b"\0").decode("utf-8", "backslashreplace")
    return f"family {family}"


def _data(data: bytes) -> Fields:
    return {"data": data}


_OPERATIONS: Final = {
    1024: _Operation("proxy_create", _create),
    1025: _Operation("connect", _addressed("<II", "<I4s2s", ("socket",)), True),
    1026: _Operation("getname", _numbers("<III", "socket", "local_port", "peer"), True),
    1027: _Operation("sendto_addr", _addressed("<II", "<I4s2s", ("socket",))),
    1028: _Operation("sendto_data", _data),
    1029: _Operation(
        "listen",
        _addressed("<IIII", "<I4s2sIi", ("socket", "vm_port", "backlog")),
        True,
    ),
    1030: _Operation("accept", _numbers("<II", "socket", "flags"), True),
    1031: _Operation("release", _numbers("<II", "socket", "local_port")),
}


def _host_side(opening: Opening) -> int | None:
    """The side of the host, by its port; None: no end is a port of TSI.

    Where the guest's call is not in the capture, the host is seen first.
    """
    for side in (1, 0):
        if opening.ends[side].cid == CID_HOST and opening.ends[side].port in _OPERATIONS:
            return side
    return None


def recognise(opening: Opening) -> Score:
    """Datagrams to the host's ports of TSI, that can be read."""
    host = _host_side(opening)
    if opening.socket_type != _DGRAM or host is None:
        return 0
    asked = opening.data[1 - host]
    operation = _OPERATIONS[opening.ends[host].port]
    if not asked:
        return None
    try:
        operation.read(asked)
    except error:
        return 0
    return POSSIBLE if operation.read is _data else LIKELY


class _Tsi(Parser):
    """The datagrams of one port: calls of one kind, and their answers."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._host = _host_side(context.opening)
        self._open: deque[Call] = deque(maxlen=_MOST_OPEN)
        self._count = 0

    def messages(self, stream: ByteStream) -> Steps:
        if self._host is None:
            raise ProtocolError("neither end is a port of TSI, 2:1024 to 2:1031")
        operation = _OPERATIONS[self.context.opening.ends[self._host].port]
        make = self._answered if stream.side == self._host else self._asked
        while True:
            body = yield from stream.record()
            try:
                yield make(operation, body.data)
            except error:
                yield Message("tsi", f"{operation.name}: {len(body.data)} bytes are too few")

    def resumes(self, side: int, head: bytes) -> bool:
        return True  # each packet is a datagram

    def _asked(self, operation: _Operation, data: bytes) -> Message:
        fields = operation.read(data)
        summary = " ".join((operation.name, *_described(fields)))
        if not operation.answered:
            return Message("tsi", summary, fields=fields)
        self._count += 1
        self._open.append(Call(self._count, operation.name))
        return Message("tsi", summary, Kind.REQUEST, fields, self._open[-1])

    def _answered(self, operation: _Operation, data: bytes) -> Message:
        name = operation.name
        fields = _name_answer(data) if name == "getname" else _RESULT(data)
        result = fields["result"]
        failure = errno_name(-result) if result < 0 else None
        call = self._open.popleft()._replace(error=failure) if self._open else None
        told = " ".join(("ok", *_described(fields)))
        if failure:
            told = texts.failed(failure, call)
        return Message("tsi", f"{name}: {told}", Kind.RESPONSE, fields, call)


_RESULT: Final = _numbers("<i", "result")
_OLDER_NAME: Final = Struct("<4s2si")


def _name_answer(data: bytes) -> Fields:
    """The answer of `getname`: result, length and address, or IPv4 address and result."""
    result, size = Struct("<iI").unpack_from(data)
    if -4096 < result <= 0 and 0 < size <= 128:
        return {"result": result, "address": _address(data[8 : 8 + size])}
    address, port, result = _OLDER_NAME.unpack_from(data)
    return {"result": result, "address": _inet(address, port)}


def _described(fields: Fields) -> Iterator[str]:
    for name, value in fields.items():
        if name == "data":
            yield f"{len(value)} bytes"
        elif name != "result":
            yield str(value) if name in ("address", "family", "type") else f"{name} {value}"


class _TimeSync(Parser):
    """The host's clock, in nanoseconds since 1970."""

    def messages(self, stream: ByteStream) -> Steps:
        while True:
            body = yield from stream.record()
            if len(body.data) < _TIME.size:
                continue
            time_ns = _TIME.unpack_from(body.data)[0]
            yield Message("timesync", _utc(time_ns), fields={"time_ns": time_ns})

    def resumes(self, side: int, head: bytes) -> bool:
        return True


_TIME: Final = Struct("<Q")
_SINCE: Final = 1_500_000_000 * 10**9  # July 2017: no virtual machine's clock is older
_UNTIL: Final = 1 << 62
_TIME_PORT: Final = 123


def _utc(time_ns: int) -> str:
    if not _SINCE <= time_ns <= _UNTIL:
        return f"{time_ns} ns"
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}Z"


def looks_like_time(opening: Opening) -> Score:
    """A datagram from the port to the same port, with a time of today."""
    ports = {end.port for end in opening.ends}
    data = opening.data[0] or opening.data[1]
    if opening.socket_type != _DGRAM or ports != {_TIME_PORT}:
        return 0
    if len(data) < _TIME.size:
        return None
    return LIKELY if _SINCE <= _TIME.unpack_from(data)[0] <= _UNTIL else 0


PROTOCOLS: Final = (
    Protocol(
        "tsi",
        "libkrun's socket calls (TSI)",
        _Tsi,
        recognise,
        tuple(Prior(port, "libkrun TSI", "host", socket_type=_DGRAM) for port in _OPERATIONS),
    ),
    Protocol("timesync", "libkrun's time synchronisation", _TimeSync, looks_like_time),
)
