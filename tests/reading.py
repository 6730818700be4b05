"""What the tests of reading share: both builds of the scanner, and what a read came to.

Rules for editors: files are in memory, and every read checks that a row's places in the
buffer hold the file's bytes.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import numpy as np
from blocks import enhanced, interface, pcap_header, pcap_record, section
from running import tool
from scenario import build_frame

from vsockdump import capture
from vsockdump.address import Endpoint
from vsockdump.batch import NO_TIME, PACKET_DTYPE, Batch, Layers, Rows
from vsockdump.capture import scan
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.reader import FileReader
from vsockdump.wire import HEADERS, Op

SMALL: Final = {"rows": 7, "buffer": 512}  # so that every read fills and refills both
PLACES: Final = ("record_at", "packet_at", "payload_at")


def _uncompiled_scanner() -> Any:
    """The Scanner of scan.py as Python runs it, beside the compiled one."""
    path = Path(capture.__file__).with_name("scan.py")
    spec = importlib.util.spec_from_file_location("uncompiled_scan", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Scanner


SCANNERS: Final[dict[str, Any]] = {"installed": scan.Scanner, "uncompiled": _uncompiled_scanner()}


@contextlib.contextmanager
def scanner_of(build: str) -> Iterator[None]:
    """Readers made meanwhile use this build of the scanner."""
    with patch("vsockdump.capture.reader.Scanner", SCANNERS[build]):
        yield


@contextlib.contextmanager
def memory_file(content: bytes) -> Iterator[str]:
    """The path of a file with this content; it is in no folder."""
    fd = os.memfd_create("capture")
    try:
        written = 0
        while written < len(content):
            written += os.write(fd, content[written:])
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


class Read(NamedTuple):
    """What a read came to.

    `rows` are those of all batches; the columns of PLACES count from the record, not from
    the buffer.  `error` is what ended the read, without the file's name.
    """

    rows: Rows
    packets: list[bytes]
    payloads: list[bytes]
    blocks: list[bytes]
    error: str | None
    offset: int | None
    dropped: int | None

    def plain(self) -> tuple[Any, ...]:
        """All of it as values that compare with ==."""
        return self.rows.tolist(), *self[1:]


def read_file(path: str, content: bytes | None = None, **sizes: int) -> Read:
    """Read the file at `path` to its end or its damage; `content` is what it holds."""
    parts: list[Rows] = [np.zeros(0, PACKET_DTYPE)]
    packets: list[bytes] = []
    payloads: list[bytes] = []
    blocks: list[bytes] = []
    failure: CaptureError | None = None
    dropped = None
    try:
        reader = FileReader(path, **sizes)
        try:
            for batch in reader.batches():
                if content is not None:
                    check_places(batch, content)
                blocks += batch.blocks
                packets += _slices(batch, "packet_at", "caplen")
                payloads += _slices(batch, "payload_at", "payload_cap")
                parts.append(_placed(batch.rows))
            dropped = reader.dropped
        finally:
            reader.close()
    except CaptureError as caught:
        failure = caught
    error = None if failure is None else str(failure).replace(path, "FILE")
    offset = failure.offset if failure else None
    return Read(np.concatenate(parts), packets, payloads, blocks, error, offset, dropped)


def read(content: bytes, build: str = "installed", **sizes: int) -> Read:
    """Read a file with this content, which is not compressed, by one build of the scanner."""
    with memory_file(content) as path, scanner_of(build):
        return read_file(path, content, **(sizes or SMALL))


def check_places(batch: Batch, content: bytes) -> None:
    """The rows' records lie in the buffer as in the file."""
    for row in batch.rows:
        at, size, offset = (int(row[name]) for name in ("record_at", "record_len", "record_offset"))
        assert content[offset : offset + size] == batch.buffer[at : at + size]


def _slices(batch: Batch, at: str, size: str) -> list[bytes]:
    rows = batch.rows
    return [
        bytes(batch.buffer[start : start + length])
        for start, length in zip(rows[at].tolist(), rows[size].tolist(), strict=True)
    ]


def _placed(rows: Rows) -> Rows:
    """A copy whose places in the buffer count from the record."""
    rows = rows.copy()
    start = rows["record_at"].copy()
    for name in PLACES:
        rows[name] -= start
    return rows


# --- small captures ------------------------------------------------------------------------

GUEST: Final = Endpoint(3, 1024)
HOST: Final = Endpoint(2, 5000)
FRAME: Final = build_frame(GUEST, HOST, Op.RW, b"payload")


def pcap(*packets: bytes, order: str = "<", linktype: int = 271) -> bytes:
    """A pcap file of these packets, one a second."""
    records = [pcap_record(order, packet, second) for second, packet in enumerate(packets)]
    return pcap_header(order, linktype=linktype) + b"".join(records)


def pcapng(*blocks: bytes, order: str = "<", interfaces: Iterable[bytes] | None = None) -> bytes:
    """A pcapng file of one section with these interfaces (None: one of vsock) and blocks."""
    if interfaces is None:
        interfaces = [interface(order)]
    return section(order) + b"".join(interfaces) + b"".join(blocks)


def frames(count: int, order: str = "<") -> list[bytes]:
    """Enhanced packet blocks with payloads of different lengths."""
    return [
        enhanced(order, build_frame(GUEST, HOST, Op.RW, b"x" * size), 1000 * size)
        for size in range(count)
    ]


# --- tshark --------------------------------------------------------------------------------

_FRAME_FIELDS: Final = ("frame.number", "frame.time_epoch", "frame.len", "frame.cap_len")
_HEADER_FIELDS: Final = [(header, field) for header in HEADERS for field in header.fields]


def check_by_tshark(path: Path) -> Read:
    """Read a capture and compare every packet and header field with tshark's."""
    names = [*_FRAME_FIELDS, *(field.wireshark[0] for _header, field in _HEADER_FIELDS)]
    wanted = [word for name in names for word in ("-e", name)]
    table = tool("tshark", "-r", path, "-T", "fields", *wanted).decode().split("\n")[:-1]
    result = read(path.read_bytes(), rows=100, buffer=1 << 16)
    assert result.error is None
    assert len(table) == len(result.rows)
    for line, row in zip(table, result.rows, strict=True):
        number, time, *rest = line.split("\t")
        assert (int(number), _nanoseconds(time)) == (row["number"], row["time_ns"])
        assert [int(size) for size in rest[:2]] == [row["wirelen"], row["caplen"]]
        if row["layers"] == Layers.VIRTIO and row["link_size"] == 0:
            actual = [int(row[header.name][field.name]) for header, field in _HEADER_FIELDS]
            bases = [10 if field.show == "dec" else 16 for _header, field in _HEADER_FIELDS]
            expected = [int(text, base) for text, base in zip(rest[2:], bases, strict=True)]
            assert expected == actual
    return result


def _nanoseconds(text: str) -> int:
    """A time as tshark writes it; it writes none for a packet without one."""
    seconds, _, fraction = text.partition(".")
    return int(seconds + fraction) if text else NO_TIME
