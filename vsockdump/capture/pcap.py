"""The pcap file format: its header, and its records for the scanner and the writer.

Source: draft-ietf-opsawg-pcap; the modified format (24-byte record headers, magic
a1b2cd34) is that of Alexey Kuznetsov's patched libpcap, which Wireshark reads as well.
"""

import struct
from typing import Final, NamedTuple

from vsockdump.batch import Layout
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.interface import MICROSECOND, NANOSECOND, Interface
from vsockdump.capture.scan import MAX_CAPLEN, Scanner

HEADER_SIZE: Final = 24
_RECORD_SIZE: Final = 16
_MODIFIED_RECORD_SIZE: Final = 24
MAGIC_MICRO: Final = 0xA1B2C3D4
MAGIC_NANO: Final = 0xA1B23C4D
_MAGIC_MODIFIED: Final = 0xA1B2CD34
_LINKTYPE_BITS: Final = 0x03FFFFFF  # above them: whether and how long an FCS is


class _Magic(NamedTuple):
    resolution: int
    record_header: int


_MAGICS: Final = {
    MAGIC_MICRO: _Magic(MICROSECOND, _RECORD_SIZE),
    MAGIC_NANO: _Magic(NANOSECOND, _RECORD_SIZE),
    _MAGIC_MODIFIED: _Magic(MICROSECOND, _MODIFIED_RECORD_SIZE),
}


def byte_order(head: bytes) -> str | None:
    """ "little" or "big" if the first 4 bytes are those of a pcap file, else None."""
    if int.from_bytes(head, "little") in _MAGICS:
        return "little"
    if int.from_bytes(head, "big") in _MAGICS:
        return "big"
    return None


class PcapParser:
    """A pcap file behind its file header."""

    format: Final = "pcap"

    def __init__(self, header: bytes, order: str) -> None:
        """`header` is the file's first HEADER_SIZE bytes; raises CaptureError, a clause, if cut."""
        if len(header) < HEADER_SIZE:
            raise CaptureError(
                f"the pcap file header of {HEADER_SIZE} bytes is cut off after {len(header)}"
            )
        self.header = header
        sign = "<" if order == "little" else ">"
        magic, _version, _zone, _sigfigs, snaplen, network = struct.unpack(sign + "IIiIII", header)
        kind = _MAGICS[magic]
        self.layout = Layout(False, order == "big", kind.record_header)
        self.interfaces = [Interface(network & _LINKTYPE_BITS, snaplen, resolution=kind.resolution)]

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
        """One run of the scanner, which fills rows from the first one on; see Scanner.pcap."""
        assert not row
        layout = self.layout
        result: tuple[int, int, int] = scanner.pcap(
            buffer, pos, end, base, number, layout.big_endian, layout.record_header
        )
        return result

    def damage(self, data: memoryview) -> str:
        """What is wrong with the record at the start of `data`, which is cut or damaged."""
        header = self.layout.record_header
        if len(data) < header:
            return f"the record header of {header} bytes is cut off after {len(data)}"
        caplen = int.from_bytes(data[8:12], "big" if self.layout.big_endian else "little")
        if caplen > MAX_CAPLEN:
            return f"the record claims {caplen} bytes of packet, more than {MAX_CAPLEN}"
        return f"the packet of {caplen} bytes is cut off after {len(data) - header}"
