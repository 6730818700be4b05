"""Writing captures: pcap and pcapng, byte for byte where the format stays the same.

From pcap to pcap and from pcapng to pcapng the records are copied as they are, with every
option, comment and block that is not a packet.  Only a change of format rebuilds them.
"""

import os
import struct
import sys
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import NO_TIME, PACKET_DTYPE, Batch, Layout
from vsockdump.capture import pcap, pcapng
from vsockdump.capture.interface import MICROSECOND, NANOSECOND, Interface
from vsockdump.capture.source import Source
from vsockdump.output.errors import OutputError, cannot_write
from vsockdump.wire import LINKTYPE_VSOCK

_SUFFIXES: Final = {
    ".pcapng": "pcapng",
    ".ntar": "pcapng",
    ".pcap": "pcap",
    ".cap": "pcap",
    ".dmp": "pcap",
}
_SNAPLEN: Final = 262144
_TICKS: Final = {MICROSECOND: 1000, NANOSECOND: 1}  # nanoseconds of a tick


def format_for(path: str, source: str) -> str:
    """The format that a file name asks for, else that of the source."""
    return _SUFFIXES.get(os.path.splitext(path)[1].lower(), source)


class CaptureFile:
    """A capture being written to `path` ("-" is stdout), from the packets of `source`.

    Raises OutputError where the file cannot be written or the format cannot hold the
    packets; `flush` after every batch makes what was written readable.
    """

    def __init__(self, path: str, source: Source, flush: bool = False) -> None:
        self.packets = 0
        self._name = "to stdout" if path == "-" else path
        self._source = source
        self._flush = flush
        self._format = format_for(path, source.format or "pcapng")
        self._same = self._format == source.format
        self._described = 0  # interfaces written so far
        self._begun = False
        self._file = self._open(path)

    def _open(self, path: str) -> BinaryIO:
        if path == "-":
            return sys.stdout.buffer
        source = "/dev/stdin" if self._source.name == "stdin" else self._source.name
        if os.path.isfile(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise OutputError(f"{path} is the file being read; write to another one.")
        try:
            return open(path, "wb")
        except OSError as error:
            raise cannot_write(path, error) from None

    def write(self, batch: Batch, chosen: NDArray[np.intp] | None = None) -> None:
        """Write a batch, or the rows of it whose indices are `chosen`."""
        if self._same:
            pieces = self._copies(batch, chosen)
        elif self._format == "pcapng":
            pieces = self._as_pcapng(batch if chosen is None else batch.take(chosen))
        else:
            pieces = self._as_pcap(batch if chosen is None else batch.take(chosen))
        self.packets += len(batch) if chosen is None else len(chosen)
        self._begun = True
        try:
            for piece in pieces:
                self._file.write(piece)
            if self._flush:
                self._file.flush()
        except OSError as error:
            raise cannot_write(self._name, error) from None

    def close(self) -> None:
        """Finish the file; one without packets still gets its header."""
        if not self._begun:
            self.write(Batch(np.zeros(0, PACKET_DTYPE), memoryview(b""), Layout()))
        try:
            if self._file is sys.stdout.buffer:
                self._file.flush()
            else:
                self._file.close()
        except OSError as error:
            raise cannot_write(self._name, error) from None

    def _copies(self, batch: Batch, chosen: NDArray[np.intp] | None) -> list[Any]:
        """The records as they are; all rows of a batch lie behind each other."""
        pieces: list[Any] = list(batch.blocks)
        if not self._begun:
            pieces.insert(0, self._source.header)
        rows = batch.rows if chosen is None else batch.rows[chosen]
        if not len(rows):
            return pieces
        starts = rows["record_at"].astype(np.int64)
        ends = starts + rows["record_len"]
        breaks = np.flatnonzero(starts[1:] != ends[:-1]) + 1
        firsts = np.concatenate(([0], breaks))
        lasts = np.concatenate((breaks, [len(rows)])) - 1
        for first, last in zip(starts[firsts].tolist(), ends[lasts].tolist(), strict=True):
            pieces.append(batch.buffer[first:last])
        return pieces

    def _as_pcapng(self, batch: Batch) -> list[bytes]:
        """Enhanced packet blocks; the section and its interfaces before the first."""
        pieces = []
        interfaces = self._source.interfaces
        if not self._begun:
            pieces.append(section_header())
        while self._described < len(interfaces):
            pieces.append(interface_description(interfaces[self._described]))
            self._described += 1
        for row in batch.rows:
            interface = int(row["interface"])
            ticks = int(row["time_ns"]) // _TICKS[interfaces[interface].resolution]
            at, caplen = int(row["packet_at"]), int(row["caplen"])
            packet = bytes(batch.buffer[at : at + caplen])
            pieces.append(enhanced_packet(interface, ticks, packet, int(row["wirelen"])))
        return pieces

    def _as_pcap(self, batch: Batch) -> list[bytes]:
        """pcap records with nanoseconds; comments and options cannot be kept."""
        pieces = []
        if not self._begun:
            pieces.append(pcap_header(self._linktype()))
        elif len({interface.linktype for interface in self._source.interfaces}) > 1:
            self._linktype()
        for row in batch.rows:
            time_ns = 0 if row["time_ns"] == NO_TIME else int(row["time_ns"])
            seconds, fraction = divmod(time_ns, 10**9)
            at, caplen = int(row["packet_at"]), int(row["caplen"])
            sizes = (seconds % 2**32, fraction, caplen, int(row["wirelen"]))
            pieces.append(struct.pack("<IIII", *sizes) + bytes(batch.buffer[at : at + caplen]))
        return pieces

    def _linktype(self) -> int:
        """The one link type of a pcap file; OutputError where there are several."""
        kinds = sorted({interface.linktype for interface in self._source.interfaces})
        if len(kinds) > 1:
            listed = " and ".join(str(kind) for kind in kinds)
            raise OutputError(
                f"A pcap file cannot hold the link types {listed} together;"
                f" give {self._name} the suffix .pcapng."
            )
        return kinds[0] if kinds else LINKTYPE_VSOCK


def pcap_header(linktype: int) -> bytes:
    """A pcap file header for nanosecond time stamps."""
    return struct.pack("<IHHiIII", pcap.MAGIC_NANO, 2, 4, 0, 0, _SNAPLEN, linktype)


def section_header() -> bytes:
    """A pcapng section header of unknown length that names vsockdump."""
    from vsockdump import __version__

    body = struct.pack("<IHHq", pcapng.BYTE_ORDER_MAGIC, 1, 0, -1)
    return _block(pcapng.SECTION_HEADER, body + _option(4, f"vsockdump {__version__}".encode()))


def interface_description(interface: Interface) -> bytes:
    """A pcapng interface description in the interface's own units."""
    body = struct.pack("<HHI", interface.linktype, 0, interface.snaplen)
    if interface.name:
        body += _option(pcapng.IF_NAME, interface.name.encode())
    return _block(
        pcapng.INTERFACE_DESCRIPTION,
        body + _option(pcapng.IF_TSRESOL, bytes([interface.resolution])),
    )


def enhanced_packet(interface: int, ticks: int, packet: bytes, wirelen: int) -> bytes:
    """A pcapng packet block without options."""
    ticks %= 2**64
    head = struct.pack("<IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(packet), wirelen)
    return _block(pcapng.ENHANCED_PACKET, head + packet, with_options=False)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes, with_options: bool = True) -> bytes:
    """A block around its body, padded, with an end-of-options mark where it has options."""
    body += bytes(-len(body) % 4) + (bytes(4) if with_options else b"")
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size
