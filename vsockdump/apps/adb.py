"""ADB, the Android Debug Bridge: its packets, and the streams that they carry.

A stream is told by the id that the side which opened it gave it; what its service is fixes
what its bytes are (adb_services.py).  Behind STLS there is TLS.

Calls: CNXN or AUTH to what the device answers; OPEN to OKAY or CLSE; WRTE to OKAY.  A side
that was granted bytes in advance (delayed acknowledgement) writes without waiting, and its
writes are then no calls.

Rules for editors: a header's magic proves that it is one, which makes it safe to begin
behind a gap; ids from before it stay valid.
"""

from collections.abc import Generator
from struct import Struct
from typing import Final, NamedTuple

from vsockdump.apps import texts
from vsockdump.apps.adb_services import Contents
from vsockdump.apps.byte_stream import MOST, Body, ByteStream, ProtocolError, Steps
from vsockdump.apps.content import brief, content_fields
from vsockdump.apps.message import Call, Kind, Message, Value
from vsockdump.apps.protocol import CERTAIN, Context, Opening, Parser, Prior, Protocol, Score
from vsockdump.apps.tls import Tls

NAME: Final = "adb"

_HEADER: Final = Struct("<6I")
_NAMES: Final = tuple(b"CNXN AUTH OPEN OKAY CLSE WRTE STLS SYNC".split())
_COMMANDS: Final = {int.from_bytes(name, "little"): name.decode() for name in _NAMES}
_AUTH_KINDS: Final = {1: "token", 2: "signature", 3: "public key"}
_HOST, _DEVICE = 0, 1  # the host connects
_NO_CHECKSUMS: Final = 0x01000001  # the version from which on they are 0
_MOST_STREAMS: Final = 10_000  # that are open at once, or were not seen to close
_MOST_TOLD: Final = 50  # messages of a payload that its fields show


class _Packet(NamedTuple):
    """A packet: its header's numbers and what follows."""

    command: str
    local: int
    remote: int
    checksum: int
    body: Body


class _Stream:
    """A stream, as the side that opened it names it."""

    def __init__(self, opener: int, number: int, service: str, has_credit: bool) -> None:
        self.number = number
        self.service = service
        self.has_credit = has_credit  # writes do not wait
        self.is_open = False
        self.is_closing = False  # a side has closed it
        self.contents = Contents(service, opener, number)

    @property
    def kind(self) -> str:
        """The service without its arguments: `shell`."""
        return self.service.partition(":")[0].partition(",")[0]

    @property
    def label(self) -> str:
        """`#5 shell:ls`."""
        return f"#{self.number} {texts.short(self.service)}"


class Adb(Parser):
    """A connection of ADB."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._streams: dict[tuple[int, int], _Stream] = {}  # by side and that side's id
        self._version = _NO_CHECKSUMS
        self._tls = Tls(context)
        self._is_secret = [False, False]

    def messages(self, stream: ByteStream) -> Steps:
        """Packets, then what services say in them."""
        while not self._is_secret[stream.side]:
            packet = yield from self._packet(stream)
            yield from self._said(stream.side, packet)
        yield from self._tls.messages(stream)

    def resumes(self, side: int, head: bytes) -> bool:
        """At a header, which its magic proves."""
        if self._is_secret[side]:
            return self._tls.resumes(side, head)
        return len(head) >= _HEADER.size and _command(head) is not None

    def _packet(self, stream: ByteStream) -> Generator[None, None, _Packet]:
        header = yield from stream.exact(_HEADER.size)
        command = _command(header)
        if command is None:
            raise ProtocolError("a header whose magic does not fit its command")
        _number, local, remote, size, checksum, _magic = _HEADER.unpack(header)
        if size > MOST:
            raise ProtocolError(f"a payload of {size} bytes")
        body = yield from stream.body(size, MOST)
        return _Packet(command, local, remote, checksum, body)

    def _said(self, side: int, packet: _Packet) -> Steps:
        """A packet's message, then those that its payload completes."""
        fields: dict[str, Value] = {
            "command": packet.command,
            "arg0": packet.local,
            "arg1": packet.remote,
            "size": packet.body.size,
        }
        if packet.body.missing:
            fields["missing"] = packet.body.missing
        if not self._is_intact(packet):
            fields["checksum"] = f"wrong: 0x{packet.checksum:08x}"
        if packet.command == "WRTE":
            yield from self._write(side, packet, fields)
            return
        tell = {
            "CNXN": self._connect,
            "AUTH": self._authenticate,
            "OPEN": self._open,
            "OKAY": self._okay,
            "CLSE": self._close,
            "STLS": self._secure,
        }.get(packet.command)
        yield tell(side, packet, fields) if tell else Message(NAME, packet.command, fields=fields)

    def _is_intact(self, packet: _Packet) -> bool:
        """Whether the checksum is right, as far as it can be known."""
        if not packet.body.is_whole or (not packet.checksum and self._version >= _NO_CHECKSUMS):
            return True
        return sum(packet.body.data) & 0xFFFFFFFF == packet.checksum

    # --- the connection ----------------------------------------------------------------------

    def _connect(self, side: int, packet: _Packet, fields: dict[str, Value]) -> Message:
        self._version = min(self._version, packet.local)
        identity = packet.body.data.rstrip(b"\0")
        fields |= {"version": f"0x{packet.local:08x}", "largest": packet.remote}
        fields["identity"] = texts.text_of(identity)
        return _connecting(side, f"CNXN {brief(identity)}", fields)

    def _authenticate(self, side: int, packet: _Packet, fields: dict[str, Value]) -> Message:
        kind = _AUTH_KINDS.get(packet.local, str(packet.local))
        return _connecting(side, f"AUTH {kind}", fields | {"kind": kind})

    def _secure(self, side: int, packet: _Packet, fields: dict[str, Value]) -> Message:
        self._is_secret[side] = True
        if side == _HOST:  # it only agrees
            return Message(NAME, "STLS", fields=fields)
        return _connecting(side, "STLS", fields)

    # --- its streams -------------------------------------------------------------------------

    def _open(self, side: int, packet: _Packet, fields: dict[str, Value]) -> Message:
        service = texts.text_of(packet.body.data.rstrip(b"\0"))
        stream = _Stream(side, packet.local, service, packet.remote > 0)
        self._add(side, packet.local, stream)
        fields["service"] = service
        call = Call(("open", packet.local), f"OPEN {stream.kind}")
        return Message(NAME, f"OPEN {stream.label}", Kind.REQUEST, fields, call)

    def _add(self, side: int, number: int, stream: _Stream) -> None:
        """Name a stream by a side's id, which a closed one may have had before."""
        while len(self._streams) >= _MOST_STREAMS:
            del self._streams[next(iter(self._streams))]
        self._streams[side, number] = stream

    def _of(self, side: int, packet: _Packet) -> _Stream | None:
        """The stream that a packet of a side belongs to."""
        own = self._streams.get((side, packet.local))
        return own or self._streams.get((1 - side, packet.remote))

    def _okay(self, side: int, packet: _Packet, fields: dict[str, Value]) -> Message:
        stream = self._of(side, packet)
        summary, key = f"OKAY {_label(stream)}".rstrip(), "write"
        if stream is not None:
            fields["service"] = stream.service
            if not stream.is_open and self._streams.get((1 - side, packet.remote)) is stream:
                stream.is_open, key = True, "open"
                self._add(side, packet.local, stream)
        if len(packet.body.data) == 4:
            fields["acknowledged"] = int.from_bytes(packet.body.data, "little")
        return Message(NAME, summary, Kind.RESPONSE, fields, Call((key, packet.remote)))

    def _close(self, side: int, packet: _Packet, fields: dict[str, Value]) -> Message:
        stream = self._of(side, packet)
        summary = f"CLSE {_label(stream)}".rstrip()
        is_refused = stream is not None and not stream.is_open
        if stream is not None and (is_refused or stream.is_closing):
            self._streams.pop((side, packet.local), None)
            self._streams.pop((1 - side, packet.remote), None)
        if stream is not None:
            stream.is_closing = True
        if not is_refused:
            return Message(NAME, summary, fields=fields)
        call = Call(("open", packet.remote), error="refused")
        return Message(NAME, f"{summary} refused", Kind.RESPONSE, fields, call)

    def _write(self, side: int, packet: _Packet, fields: dict[str, Value]) -> Steps:
        """A payload; what shell and sync say in it is told with it, or is a call of its own."""
        stream = self._of(side, packet)
        told: list[Message] = []
        summary = f"WRTE {_label(stream)}".rstrip()
        if stream is not None:
            fields["service"] = stream.service
        if stream is not None and stream.contents.reads(side):
            told = stream.contents.read(side, packet.body)
            parts = [one for one in told if one.call is None]
            fields["contents"] = [dict(one.fields) for one in parts[:_MOST_TOLD]]
            if len(parts) > _MOST_TOLD:
                fields["not shown"] = len(parts) - _MOST_TOLD
            if parts:
                summary += f" {parts[0].summary}" + " …" * (len(parts) > 1)
        else:
            fields |= content_fields(packet.body)
        if stream is None or stream.has_credit:
            yield Message(NAME, summary, fields=fields)
        else:
            call = Call(("write", packet.local), f"WRTE {stream.kind}")
            yield Message(NAME, summary, Kind.REQUEST, fields, call)
        for one in told:
            if one.call is not None:
                yield one._replace(size=0)  # its bytes are those of the payload


def _connecting(side: int, summary: str, fields: dict[str, Value]) -> Message:
    """What the host says to be let in, or what the device says to that."""
    if side == _HOST:
        call = Call("connect", summary.partition(" ")[0])
        return Message(NAME, summary, Kind.REQUEST, fields, call)
    return Message(NAME, summary, Kind.RESPONSE, fields, Call("connect"))


def _label(stream: _Stream | None) -> str:
    return stream.label if stream is not None else ""


def _command(header: bytes) -> str | None:
    """The command of a header, where its magic fits."""
    number, _arg0, _arg1, _size, _checksum, magic = _HEADER.unpack_from(header)
    return _COMMANDS.get(number) if number ^ magic == 0xFFFFFFFF else None


def recognise(opening: Opening) -> Score:
    """A header at the start of either side."""
    unsure = not any(opening.data)
    for data in opening.data:
        if len(data) >= _HEADER.size and _command(data) is not None:
            return CERTAIN
        may_be = any(name.startswith(data[:4]) for name in _NAMES)
        unsure = unsure or (0 < len(data) < _HEADER.size and may_be)
    return None if unsure else 0


PROTOCOLS: Final = (
    Protocol(
        NAME,
        "Android Debug Bridge",
        Adb,
        recognise,
        (Prior(5555, "adbd", "guest"),),
    ),
)
