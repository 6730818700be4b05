"""The pcapng file format: sections, interfaces, options, and every block that is no packet.

The scanner walks the packet blocks; what stands between them comes here, block by block.
Blocks that mean nothing to us are kept as they are, so that a file can be written back
whole.  Source: draft-ietf-opsawg-pcapng.
"""

import struct
from collections.abc import Iterator
from typing import Final

from vsockdump.batch import Layout
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.interface import MICROSECOND, Interface
from vsockdump.capture.scan import MAX_BLOCK, MAX_CAPLEN, Scanner

SECTION_HEADER: Final = 0x0A0D0D0A
INTERFACE_DESCRIPTION: Final = 1
PACKET: Final = 2
SIMPLE_PACKET: Final = 3
INTERFACE_STATISTICS: Final = 5
ENHANCED_PACKET: Final = 6
DECRYPTION_SECRETS: Final = 10

MAGIC: Final = b"\x0a\x0d\x0d\x0a"
BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
MIN_BLOCK: Final = 12

OPT_END: Final = 0
OPT_COMMENT: Final = 1
IF_NAME: Final = 2
IF_TSRESOL: Final = 9
IF_TSOFFSET: Final = 14
ISB_STARTTIME: Final = 2
ISB_IFDROP: Final = 5
ISB_OSDROP: Final = 7

_UNKNOWN_COUNT: Final = 2**64 - 1

Place = str | tuple[int, int]  # a name, or the index in a section and the link type
Counter = int | tuple[int, int, int, bytes]

# Bytes from the start of a packet block to its packet data.
_PACKET_DATA_AT: Final = {ENHANCED_PACKET: 28, PACKET: 28, SIMPLE_PACKET: 12}


def options(data: bytes | memoryview, sign: str) -> Iterator[tuple[int, bytes]]:
    """(code, value) of the options in `data`; stops at the end mark or at what is damaged.

    `sign` is the struct module's byte order, "<" or ">".
    """
    at = 0
    while at + 4 <= len(data):
        code, size = struct.unpack_from(sign + "HH", data, at)
        if code == OPT_END or at + 4 + size > len(data):
            return
        yield code, bytes(data[at + 4 : at + 4 + size])
        at += 4 + (size + 3 & ~3)


def packet_options(block: bytes | memoryview, big_endian: bool) -> Iterator[tuple[int, bytes]]:
    """The options of a whole packet block: comments, flags, drop counts."""
    sign = ">" if big_endian else "<"
    kind, _size = struct.unpack_from(sign + "II", block)
    if kind not in (ENHANCED_PACKET, PACKET):
        return
    (caplen,) = struct.unpack_from(sign + "I", block, 20)
    yield from options(block[_PACKET_DATA_AT[kind] + (caplen + 3 & ~3) : -4], sign)


def packet_comments(block: bytes | memoryview, big_endian: bool) -> list[str]:
    """The comments of a packet block, bytes that are not UTF-8 replaced."""
    found = packet_options(block, big_endian)
    return [value.decode("utf-8", "replace") for code, value in found if code == OPT_COMMENT]


class PcapngParser:
    """A pcapng file from its first byte on."""

    format: Final = "pcapng"

    def __init__(self) -> None:
        self.layout = Layout(True, False, 0)
        self.interfaces: list[Interface] = []
        # By interface, or by monitor and the time that its count began; see _counter.
        self.dropped: dict[Counter, int] = {}
        self._taps: dict[Place, int] = {}

    def scan(
        self,
        scanner: Scanner,
        buffer: memoryview,
        pos: int,
        end: int,
        base: int,
        number: int,
        row: int = 0,
    ) -> tuple[int, int, int]:
        """One run of the scanner; see Scanner.pcapng."""
        result: tuple[int, int, int] = scanner.pcapng(
            buffer, pos, end, base, number, self.layout.big_endian, self.layout.section, row
        )
        return result

    def other(self, data: memoryview) -> bytes | None:
        """Take the block at the start of `data`, which is not a packet.

        Returns it whole, or None if it is not there yet.  Raises CaptureError, a clause,
        where the block cannot be one.
        """
        if len(data) < MIN_BLOCK:
            return None
        sign = self._sign(data)
        kind, size = struct.unpack_from(sign + "II", data)
        if len(data) < size <= MAX_BLOCK:
            return None
        fault = _length_fault(data, sign)
        if fault:
            raise CaptureError(fault)
        block = bytes(data[:size])
        self._take(kind, block, sign)
        return block

    def goes_on(self, data: memoryview) -> bool:
        """Whether packets behind this block can be in one batch with those before it.

        Not where another byte order may begin, or who reads on is told of a fault.
        """
        if bytes(data[:4]) != MAGIC:
            return True
        order = struct.pack(self._sign_now + "I", BYTE_ORDER_MAGIC)
        return bytes(data[8:12]) == order

    @property
    def _sign_now(self) -> str:
        """The struct module's byte order of the present section."""
        return ">" if self.layout.big_endian else "<"

    def _sign(self, data: memoryview) -> str:
        """The struct module's byte order of a block; a section header says its own."""
        if bytes(data[:4]) != MAGIC:
            return self._sign_now
        magic = bytes(data[8:12])
        for sign in "<>":
            if magic == struct.pack(sign + "I", BYTE_ORDER_MAGIC):
                return sign
        raise CaptureError(f"a section header has the unknown byte-order magic {magic.hex()}")

    def _take(self, kind: int, block: bytes, sign: str) -> None:
        if kind == SECTION_HEADER:
            self._section(block, sign)
        elif kind == INTERFACE_DESCRIPTION:
            self._interface(block, sign)
        elif kind == INTERFACE_STATISTICS:
            self._statistics(block, sign)

    def _section(self, block: bytes, sign: str) -> None:
        if len(block) < 28:
            raise CaptureError(f"a section header of {len(block)} bytes is too short")
        major, minor = struct.unpack_from(sign + "HH", block, 12)
        if major != 1:
            raise CaptureError(f"the section is of pcapng version {major}.{minor}, not 1")
        self.layout = Layout(True, sign == ">", 0, len(self.interfaces))

    def _interface(self, block: bytes, sign: str) -> None:
        if len(block) < 20:
            raise CaptureError(f"an interface description of {len(block)} bytes is too short")
        linktype, _reserved, snaplen = struct.unpack_from(sign + "HHI", block, 8)
        name, resolution, offset = "", MICROSECOND, 0
        for code, value in options(block[16:-4], sign):
            if code == IF_NAME:
                name = value.decode("utf-8", "replace")
            elif code == IF_TSRESOL and len(value) == 1:
                resolution = value[0]
            elif code == IF_TSOFFSET and len(value) == 8:
                (offset,) = struct.unpack(sign + "q", value)
        tap = self._tap(linktype, name)
        self.interfaces.append(Interface(linktype, snaplen, name, resolution, offset, tap))

    def _tap(self, linktype: int, name: str) -> int:
        """The place of capture of the section's next interface.

        Its name decides: merged files describe one monitor several times, with one snaplen or
        another, and joined files at another index.  Without a name nothing tells, but that the
        rotated files of one capture describe the same interface at the same index.
        """
        place: Place = name or (len(self.interfaces) - self.layout.section, linktype)
        return self._taps.setdefault(place, len(self._taps))

    def _statistics(self, block: bytes, sign: str) -> None:
        """Counts of an interface since its capture began: the last block holds."""
        if len(block) < 24:
            return
        (index,) = struct.unpack_from(sign + "I", block, 8)
        counts, start = [], b""
        for code, value in options(block[20:-4], sign):
            if code in (ISB_IFDROP, ISB_OSDROP) and len(value) == 8:
                counts.append(struct.unpack(sign + "Q", value)[0])
            elif code == ISB_STARTTIME and len(value) == 8:
                start = struct.pack(">II", *struct.unpack(sign + "II", value))
        known = [count for count in counts if count != _UNKNOWN_COUNT]
        interface = self.layout.section + index
        if known and interface < len(self.interfaces):
            self.dropped[self._counter(interface, start)] = sum(known)

    def _counter(self, interface: int, start: bytes) -> "Counter":
        """What counts: the files of one capture, joined again, go on counting.

        They say the same time of its start.  Ticks of two resolutions are two captures.
        """
        if not start:
            return interface
        place = self.interfaces[interface]
        return place.tap, place.resolution, place.offset, start

    def damage(self, data: memoryview) -> str:
        """What is wrong with the block at the start of `data`, which is cut or damaged."""
        if len(data) < MIN_BLOCK:
            return f"a block is cut off after {len(data)} bytes"
        sign = self._sign(data)
        return _length_fault(data, sign) or self._packet_fault(data, sign)

    def _packet_fault(self, data: memoryview, sign: str) -> str:
        """Why the scanner refuses a packet block whose length is in order."""
        kind, size = struct.unpack_from(sign + "II", data)
        around = _PACKET_DATA_AT[kind] + 4
        if size < around:
            return f"a packet block of {size} bytes is too short"
        interface = 0
        if kind != SIMPLE_PACKET:
            width = "I" if kind == ENHANCED_PACKET else "H"
            (interface,) = struct.unpack_from(sign + width, data, 8)
        count = len(self.interfaces) - self.layout.section
        if interface >= count:
            return f"a packet is of interface {interface}, but the section describes {count}"
        (caplen,) = struct.unpack_from(sign + "I", data, 8 if kind == SIMPLE_PACKET else 20)
        most = min(size - around, MAX_CAPLEN)
        return f"a packet block claims {caplen} bytes of packet, more than {most}"


def _length_fault(data: memoryview, sign: str) -> str:
    """What is wrong with the length of the block at the start of `data`, or nothing."""
    kind, size = struct.unpack_from(sign + "II", data)
    if not MIN_BLOCK <= size <= MAX_BLOCK or size % 4:
        return f"a block of type {kind:#x} claims a length of {size} bytes"
    if size > len(data):
        return f"a block of type {kind:#x} and {size} bytes is cut off after {len(data)}"
    (again,) = struct.unpack_from(sign + "I", data, size - 4)
    if again != size:
        return f"a block of type {kind:#x} gives its length as {size} and then as {again} bytes"
    return ""
