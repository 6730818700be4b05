"""Application messages as Wireshark's "exported PDUs": bytes behind tags that say what they are.

Wireshark gives the bytes to the dissector that the tags name, with the addresses and ports of
the tags, so that it pairs requests and responses and keeps what HPACK and TLS have to keep.

Rules for editors: tags are those of LINKTYPE_WIRESHARK_UPPER_PDU.  Tag 34, the text of a
dissector's data, is not to be written: Wireshark 4.0 crashes on it.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from vsockdump.address import Endpoint
from vsockdump.apps.byte_stream import ByteStream, ProtocolError, Steps
from vsockdump.apps.dialogues import DialogueOptions
from vsockdump.apps.message import Message, Said
from vsockdump.apps.protocol import Parser
from vsockdump.capture.interface import NANOSECOND, Interface
from vsockdump.export import ip
from vsockdump.export.layered import Packet, Place
from vsockdump.output.said import short
from vsockdump.output.tables import counted

LINKTYPE_UPPER_PDU: Final = 252
MOST: Final = 262144  # bytes of a packet that Wireshark reads

_END, _DISSECTOR, _HEURISTIC, _TABLE, _IPV6_SRC, _IPV6_DST = 0, 12, 13, 14, 22, 23
_PORT_TYPE, _SRC_PORT, _DST_PORT, _FRAME, _TABLE_VALUE, _COLUMN = 24, 25, 26, 30, 32, 33
_PORT_OF_TCP: Final = 2


def _tag(kind: int, value: bytes) -> bytes:
    value += bytes(-len(value) % 4)
    return struct.pack(">HH", kind, len(value)) + value


def _u32(number: int) -> bytes:
    return struct.pack(">I", number & 0xFFFFFFFF)


# Wireshark's dissectors by our protocols, by their own names where they have one there.
_DISSECTORS: Final[Mapping[str, bytes]] = {
    "9p": _tag(_TABLE, b"tcp.port") + _tag(_TABLE_VALUE, _u32(564)),
    "adb": _tag(_DISSECTOR, b"adb"),
    "grpc": _tag(_DISSECTOR, b"http2"),
    "http": _tag(_DISSECTOR, b"http"),
    "http2": _tag(_DISSECTOR, b"http2"),
    "nbd": _tag(_HEURISTIC, b"nbd_tcp"),
    "ssh": _tag(_TABLE, b"tcp.port") + _tag(_TABLE_VALUE, _u32(22)),  # by it SSH tells the sides
    "tls": _tag(_DISSECTOR, b"tls"),
    "websocket": _tag(_DISSECTOR, b"websocket"),
}
_JSON: Final = _tag(_DISSECTOR, b"json")
_BYTES: Final = _tag(_DISSECTOR, b"data")
_WITH_JSON: Final = frozenset({"json", "qga", "varlink"})
_AROUND_JSON: Final = (
    b"\xff\0\r\n\t "  # what separates texts, of which the dissector is to see none
)


def _dissector(said: Said) -> tuple[bytes, bytes]:
    """Who is to take a message apart, and the message; what belongs to nobody is shown as bytes."""
    name = said.message.protocol
    text = said.data.strip(_AROUND_JSON) if name in _WITH_JSON else b""
    if text[:1] in (b"{", b"["):
        return _JSON, text
    return _DISSECTORS.get(name, _BYTES), said.data


class Pdus:
    """A packet for every message that is whole."""

    interface: Final = Interface(LINKTYPE_UPPER_PDU, name="vsock-messages", resolution=NANOSECOND)

    def __init__(self, options: DialogueOptions) -> None:
        parsers = {**options.parsers, "tls": TlsRecords}
        self.options = options._replace(keep=True, parsers=parsers)
        self._torn = self._cut = 0

    def packet(self, said: Said, place: Place) -> Packet | None:
        """The message behind its tags."""
        if not said.whole:
            self._torn += 1
            return None
        if not said.data:
            return None
        dissector, content = _dissector(said)
        data = dissector + b"".join(_tags(said, place)) + content
        self._cut += len(data) > MOST
        return Packet(data[:MOST], len(data), short(said))

    def remarks(self) -> list[str]:
        """Which messages are not there, or not as a whole."""
        found = []
        if self._torn:
            found.append(
                f"left out of the export: {counted(self._torn, 'message')} of which bytes were not"
                " captured."
            )
        if self._cut:
            found.append(
                f"{counted(self._cut, 'message')} cut in the export at {MOST} bytes, the most that"
                " Wireshark reads."
            )
        return found


def _tags(said: Said, place: Place) -> Iterator[bytes]:
    """What stands before a message, besides its dissector."""
    yield _tag(_COLUMN, said.message.protocol.upper().encode())
    for tag, end in ((_IPV6_SRC, place.src), (_IPV6_DST, place.dst)):
        yield _tag(tag, ip.address(0, end.cid, end.port))
    yield _tag(_PORT_TYPE, _u32(_PORT_OF_TCP))
    for tag, end in ((_SRC_PORT, place.src), (_DST_PORT, place.dst)):
        yield _tag(tag, _u32(_port(end)))
    yield _tag(_FRAME, _u32(place.frame))
    yield _tag(_END, b"")


def _port(end: Endpoint) -> int:
    return int(ip.port16(np.array([end.port], np.uint32))[0])


class TlsRecords(Parser):
    """TLS as Wireshark wants it: every record, also where only keys could say what is in it."""

    _HEADER: Final = 5
    _TYPES: Final = range(20, 25)

    def messages(self, stream: ByteStream) -> Steps:
        """A message a record."""
        while True:
            head = yield from stream.exact(self._HEADER)
            if not self._begins(head):
                raise ProtocolError(f"a record of type {head[0]}")
            yield from stream.exact(int.from_bytes(head[3:]))
            yield Message("tls", "record")

    def resumes(self, side: int, head: bytes) -> bool:
        """Where a record begins."""
        return len(head) >= self._HEADER and self._begins(head)

    def _begins(self, head: bytes) -> bool:
        return head[0] in self._TYPES and head[1] == 3
