"""The pcapng file format: sections, interfaces, options, and every block that is no packet.

The scanner walks the packet blocks; what stands between them comes here, block by block.
Blocks that mean nothing to us are kept as they are, so that a file can be written back
whole.  Source: draft-ietf-opsawg-pcapng.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

from vsockdump.batch import Layout
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.interface import MICROSECOND, Interface
from vsockdump.capture.scan import MAX_BLOCK

SECTION_HEADER: Final = 0x0A0D0D0A
INTERFACE_DESCRIPTION: Final = 1
PACKET: Final = 2
SIMPLE_PACKET: Final = 3
INTERFACE_STATISTICS: Final = 5
ENHANCED_PACKET: Final = 6

MAGIC: Final = b"\x0a\x0d\x0d\x0a"
BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
MIN_BLOCK: Final = 12

OPT_END: Final = 0
OPT_COMMENT: Final = 1
IF_NAME: Final = 2
IF_TSRESOL: Final = 9
IF_TSOFFSET: Final = 14
ISB_IFDROP: Final = 5
ISB_OSDROP: Final = 7

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
    start: Final = 0

    def __init__(self) -> None:
        self.layout = Layout(True, False, 0)
        self.interfaces: list[Interface] = []
        self.dropped: dict[int, int] = {}  # by interface: the last statistics block's word
        self._section_start = 0

    def scan(
        self, scanner: Any, buffer: memoryview, pos: int, end: int, base: int, number: int
    ) -> tuple[int, int, int]:
        """One run of the scanner; see Scanner.pcapng."""
        result: tuple[int, int, int] = scanner.pcapng(
            buffer, pos, end, base, number, self.layout.big_endian, self._section_start
        )
        return result

    def other(self, data: memoryview) -> bytes | None:
        """Take the block at the start of `data`, which is not a packet.

        Returns it whole, or None if it is not there yet.  Raises CaptureError, without an
        offset, where the block cannot be one.
        """
        if len(data) < MIN_BLOCK:
            return None
        big = self._section_order(data)
        sign = ">" if big else "<"
        kind, size = struct.unpack_from(sign + "II", data)
        if size < MIN_BLOCK or size % 4 or size > MAX_BLOCK:
            raise CaptureError(f"a block of type {kind:#x} claims a length of {size} bytes")
        if len(data) < size:
            return None
        (again,) = struct.unpack_from(sign + "I", data, size - 4)
        if again != size:
            raise CaptureError(
                f"a block of type {kind:#x} gives its length as {size} and then as {again} bytes"
            )
        block = bytes(data[:size])
        self._take(kind, block, big)
        return block

    def _section_order(self, data: memoryview) -> bool:
        """Whether the block is big-endian; a section header says so itself."""
        if bytes(data[:4]) != MAGIC:
            return self.layout.big_endian
        magic = bytes(data[8:12])
        if magic == BYTE_ORDER_MAGIC.to_bytes(4, "little"):
            return False
        if magic == BYTE_ORDER_MAGIC.to_bytes(4, "big"):
            return True
        raise CaptureError(f"a section header has an unknown byte-order magic {magic.hex()}")

    def _take(self, kind: int, block: bytes, big: bool) -> None:
        if kind == SECTION_HEADER:
            self._section(block, big)
        elif kind == INTERFACE_DESCRIPTION:
            self._interface(block, ">" if big else "<")
        elif kind == INTERFACE_STATISTICS:
            self._statistics(block, ">" if big else "<")

    def _section(self, block: bytes, big: bool) -> None:
        if len(block) < 28:
            raise CaptureError(f"a section header of {len(block)} bytes is too short")
        major, minor = struct.unpack_from((">" if big else "<") + "HH", block, 12)
        if major != 1:
            raise CaptureError(f"the section is of pcapng version {major}.{minor}, not 1")
        self.layout = Layout(True, big, 0)
        self._section_start = len(self.interfaces)

    def _interface(self, block: bytes, sign: str) -> None:
        if len(block) < 20:
            raise CaptureError(f"an interface description of {len(block)} bytes is too short")
        linktype, _reserved, snaplen = struct.unpack_from(sign + "HHI", block, 8)
        name, resolution, offset = "", MICROSECOND, 0
        for code, value in options(block[16:-4], sign):
            if code == IF_NAME:
                name = value.decode("utf-8", "replace")
            elif code == IF_TSRESOL and len(value) >= 1:
                resolution = value[0]
            elif code == IF_TSOFFSET and len(value) == 8:
                (offset,) = struct.unpack(sign + "q", value)
        index = len(self.interfaces) - self._section_start
        tap = self._tap(index, linktype, name)
        self.interfaces.append(Interface(linktype, snaplen, name, resolution, offset, tap))

    def _tap(self, index: int, linktype: int, name: str) -> int:
        """The place of capture: that of an earlier section's interface if it is the same.

        Sections come from joined files; rotated files of one capture describe the same
        interface at the same index, and a connection then goes on from one to the next.
        """
        for earlier, place in enumerate(self.interfaces[: self._section_start]):
            if place.linktype == linktype and place.name == name and place.tap % 4096 == index:
                return place.tap
            del earlier
        return len(self.interfaces) * 4096 + index

    def _statistics(self, block: bytes, sign: str) -> None:
        if len(block) < 24:
            return
        (index,) = struct.unpack_from(sign + "I", block, 8)
        for code, value in options(block[20:-4], sign):
            if code in (ISB_IFDROP, ISB_OSDROP) and len(value) == 8:
                self.dropped[self._section_start + index] = struct.unpack(sign + "Q", value)[0]

    def damage(self, data: memoryview) -> str:
        """What is wrong with the block at the start of `data`, which is cut or damaged."""
        if len(data) < MIN_BLOCK:
            return f"a block is cut off after {len(data)} bytes"
        sign = ">" if self.layout.big_endian else "<"
        kind, size = struct.unpack_from(sign + "II", data)
        if size < MIN_BLOCK or size % 4 or size > MAX_BLOCK:
            return f"a block of type {kind:#x} claims a length of {size} bytes"
        if len(data) < size:
            return f"a block of type {kind:#x} and {size} bytes is cut off after {len(data)}"
        return f"the packet block of {size} bytes contradicts itself"
