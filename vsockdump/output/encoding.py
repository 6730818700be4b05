"""What stands in a capture file: its beginning, its records and its end, in each format.

From pcap to pcap and from pcapng to pcapng the records are copied as they are, with every
option, comment and block that is not a packet.  A change of format, or a ring that holds no
records, rebuilds them.

Rules for editors: an encoding makes bytes and knows of no file; every file it begins is a
capture of its own.  Bytes that are of use only together come as one piece.
"""

import struct
from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Batch, Layout, Rows
from vsockdump.capture import pcap, pcapng
from vsockdump.capture.interface import MICROSECOND, NANOSECOND, Interface
from vsockdump.capture.source import Counts, Origin
from vsockdump.output.errors import OutputError
from vsockdump.output.packet_records import PCAP_AROUND, PCAPNG_AROUND, Form, RecordWriter
from vsockdump.output.secrets import Secret
from vsockdump.wire import LINKTYPE_VSOCK

_SNAPLEN: Final = 262144
_TICKS: Final = {MICROSECOND: 1000, NANOSECOND: 1}  # nanoseconds of a tick
_UNKNOWN_LENGTH: Final = b"\xff" * 8  # of a section
_LENGTH_AT: Final = slice(16, 24)  # of a section header
_ORDER_AT: Final = slice(8, 12)
_REPEATED: Final = (pcapng.INTERFACE_DESCRIPTION, pcapng.DECRYPTION_SECRETS)

_OPT_USER_APPLICATION: Final = 4
_ISB_STARTTIME: Final = 2
_ISB_ENDTIME: Final = 3
_ISB_IFRECV: Final = 4

Sizes = NDArray[np.int64]


class Encoding(Protocol):
    """The bytes of capture files with the packets of one source."""

    def begin(self) -> list[bytes]:
        """What stands at the start of a file."""

    def before(self, batch: Batch) -> list[bytes]:
        """What must stand before the packets of a batch, in the file that is being written."""

    def sizes(self, rows: Rows) -> Sizes:
        """The bytes that each packet takes."""

    def records(self, batch: Batch, rows: Rows) -> Iterator[memoryview]:
        """The packets `rows` of a batch as records, whole ones in each piece."""

    def layout(self, batch: Batch) -> Layout:
        """How the records lie."""

    def end(self, counts: Counts, began_ns: int, now_ns: int) -> list[bytes]:
        """What stands at the end of a file of a capture that the kernel counts in."""


def encoding_for(form: str, source: Origin, name: str, rotates: bool) -> Encoding:
    """The encoding of `source` as "pcap" or "pcapng"; `name` is the file's in errors.

    `rotates` says that there may be several files.
    """
    if form == "pcap":
        return _PcapCopy(source) if source.format == form else _Pcap(source, name)
    return _PcapngCopy(rotates) if source.format == form else _Pcapng(source)


def _written(writer: RecordWriter, batch: Batch, rows: Rows) -> Iterator[memoryview]:
    row = 0
    while row < len(rows):
        row, records = writer.write(rows, batch.buffer, row)
        yield records


class _Copy:
    """Records that stay as they are."""

    def __init__(self) -> None:
        self._writer = RecordWriter(Form.COPY)

    def before(self, batch: Batch) -> list[bytes]:
        return list(batch.blocks)

    def sizes(self, rows: Rows) -> Sizes:
        return rows["record_len"].astype(np.int64)

    def records(self, batch: Batch, rows: Rows) -> Iterator[memoryview]:
        """All at once where they lie behind each other, as all rows of a batch do."""
        if not len(rows):
            return iter(())
        starts, sizes = rows["record_at"], rows["record_len"]
        if (starts[1:] == starts[:-1] + sizes[:-1]).all():
            end = int(starts[-1]) + int(sizes[-1])
            return iter((batch.buffer[int(starts[0]) : end],))
        return _written(self._writer, batch, rows)

    def layout(self, batch: Batch) -> Layout:
        return batch.layout

    def end(self, _counts: Counts, _began_ns: int, _now_ns: int) -> list[bytes]:
        return []


class _PcapCopy(_Copy):
    """pcap from pcap."""

    def __init__(self, source: Origin) -> None:
        super().__init__()
        self._header = source.header

    def begin(self) -> list[bytes]:
        return [self._header]


class _PcapngCopy(_Copy):
    """pcapng from pcapng; later files repeat the section header, its interfaces and secrets.

    A section that is cut into files has not the length that its header may give: where
    there may be several files, it is written as unknown.
    """

    def __init__(self, rotates: bool) -> None:
        super().__init__()
        self._rotates = rotates
        self._section: list[bytes] = []  # of the present one: what later files repeat
        self._repeated: tuple[bytes, ...] = ()  # types of its blocks, in the section's byte order

    def begin(self) -> list[bytes]:
        return list(self._section)

    def before(self, batch: Batch) -> list[bytes]:
        if not self._rotates:
            return list(batch.blocks)
        return [self._kept(block) for block in batch.blocks]

    def _kept(self, block: bytes) -> bytes:
        """The block as it is to be written; what later files repeat is taken note of."""
        if block[:4] == pcapng.MAGIC:
            little = block[_ORDER_AT] == struct.pack("<I", pcapng.BYTE_ORDER_MAGIC)
            sign = "<I" if little else ">I"
            self._repeated = tuple(struct.pack(sign, kind) for kind in _REPEATED)
            block = block[: _LENGTH_AT.start] + _UNKNOWN_LENGTH + block[_LENGTH_AT.stop :]
            self._section = [block]
        elif block[:4] in self._repeated:
            self._section.append(block)
        return block


class _Pcap:
    """pcap from something else; comments and options cannot be kept."""

    def __init__(self, source: Origin, name: str) -> None:
        self._source = source
        self._name = name
        self._kinds: set[int] = set()  # the link types of the interfaces seen
        self._seen = 0
        self._writer = RecordWriter(Form.PCAP)

    def begin(self) -> list[bytes]:
        return [pcap_header(self._linktype(), self._snaplen())]

    def before(self, _batch: Batch) -> list[bytes]:
        self._linktype()
        return []

    def sizes(self, rows: Rows) -> Sizes:
        return PCAP_AROUND + rows["caplen"].astype(np.int64)

    def records(self, batch: Batch, rows: Rows) -> Iterator[memoryview]:
        return _written(self._writer, batch, rows)

    def layout(self, _batch: Batch) -> Layout:
        return Layout()

    def end(self, _counts: Counts, _began_ns: int, _now_ns: int) -> list[bytes]:
        return []

    def _snaplen(self) -> int:
        """The largest of the interfaces; 0 there means that there is no limit."""
        known = [interface.snaplen for interface in self._source.interfaces]
        return max(known) if known and all(known) else _SNAPLEN

    def _linktype(self) -> int:
        """The one link type of a pcap file; OutputError where there are several."""
        interfaces = self._source.interfaces
        self._kinds.update(interface.linktype for interface in interfaces[self._seen :])
        self._seen = len(interfaces)
        kinds = sorted(self._kinds)
        if len(kinds) > 1:
            listed = " and ".join(str(kind) for kind in kinds)
            raise OutputError(
                f"A pcap file cannot hold the link types {listed} together;"
                f" give {self._name} the suffix .pcapng."
            )
        return kinds[0] if kinds else LINKTYPE_VSOCK


class _Pcapng:
    """pcapng from pcap or from a ring: a section, its interfaces, enhanced packet blocks."""

    def __init__(self, source: Origin) -> None:
        self._source = source
        self._writer = RecordWriter(Form.PCAPNG)
        self._described = 0  # interfaces in the present file
        self._known = 0  # interfaces whose ticks the writer knows

    def begin(self) -> list[bytes]:
        self._described = 0
        return [section_header(), *self._interfaces()]

    def before(self, _batch: Batch) -> list[bytes]:
        return self._interfaces()

    def _interfaces(self) -> list[bytes]:
        """The descriptions that the file has not yet."""
        interfaces = self._source.interfaces
        new = interfaces[self._described :]
        units = [_TICKS[interface.resolution] for interface in interfaces[self._known :]]
        if self._known:
            self._writer.add_units(units)
        elif units:
            self._writer.set_units(units)
        self._known = self._described = len(interfaces)
        return [interface_description(interface) for interface in new]

    def sizes(self, rows: Rows) -> Sizes:
        return PCAPNG_AROUND + (rows["caplen"].astype(np.int64) + 3 & ~3)

    def records(self, batch: Batch, rows: Rows) -> Iterator[memoryview]:
        return _written(self._writer, batch, rows)

    def layout(self, _batch: Batch) -> Layout:
        return Layout(pcapng=True)

    def end(self, counts: Counts, began_ns: int, now_ns: int) -> list[bytes]:
        """Statistics of the interface: who captures has one."""
        unit = _TICKS[self._source.interfaces[0].resolution]
        return [interface_statistics(0, began_ns // unit, now_ns // unit, counts)]


def pcap_header(linktype: int, snaplen: int = _SNAPLEN) -> bytes:
    """A pcap file header for nanosecond time stamps."""
    return struct.pack("<IHHiIII", pcap.MAGIC_NANO, 2, 4, 0, 0, snaplen, linktype)


def section_header() -> bytes:
    """A pcapng section header of unknown length that names vsockdump."""
    from vsockdump import __version__

    body = struct.pack("<IHHq", pcapng.BYTE_ORDER_MAGIC, 1, 0, -1)
    name = f"vsockdump {__version__}".encode()
    return _block(pcapng.SECTION_HEADER, body, [(_OPT_USER_APPLICATION, name)])


def interface_description(interface: Interface) -> bytes:
    """A pcapng interface description in the interface's own units."""
    options = [(pcapng.IF_NAME, interface.name.encode())] if interface.name else []
    options.append((pcapng.IF_TSRESOL, bytes([interface.resolution])))
    body = struct.pack("<HHI", interface.linktype, 0, interface.snaplen)
    return _block(pcapng.INTERFACE_DESCRIPTION, body, options)


def interface_statistics(interface: int, began: int, now: int, counts: Counts) -> bytes:
    """A pcapng statistics block: what was counted from the begin of the capture until `now`.

    Times are in the interface's ticks.  The counts stand where dumpcap puts its own, because
    Wireshark shows them from there: received are the packets that passed the filter, those
    that the kernel then dropped included.
    """
    options = [
        (_ISB_STARTTIME, _ticks(began)),
        (_ISB_ENDTIME, _ticks(now)),
        (_ISB_IFRECV, struct.pack("<Q", counts.received)),
        (pcapng.ISB_IFDROP, struct.pack("<Q", counts.dropped)),
    ]
    body = struct.pack("<I", interface) + _ticks(now)
    return _block(pcapng.INTERFACE_STATISTICS, body, options)


def secrets_block(secret: Secret, big_endian: bool) -> bytes:
    """A pcapng Decryption Secrets Block."""
    sign = ">" if big_endian else "<"
    body = struct.pack(sign + "II", secret.kind, len(secret.data))
    return _block(pcapng.DECRYPTION_SECRETS, body + _padded(secret.data), [], sign)


def _ticks(ticks: int) -> bytes:
    high, low = divmod(ticks % 2**64, 2**32)
    return struct.pack("<II", high, low)


def _block(kind: int, body: bytes, options: list[tuple[int, bytes]], sign: str = "<") -> bytes:
    """A block around its body and options."""
    for code, value in options:
        body += struct.pack(sign + "HH", code, len(value)) + _padded(value)
    if options:
        body += struct.pack(sign + "HH", pcapng.OPT_END, 0)
    size = struct.pack(sign + "I", 12 + len(body))
    return struct.pack(sign + "I", kind) + size + body + size


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
