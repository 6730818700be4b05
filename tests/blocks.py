"""Bytes of pcap and pcapng files, put together piece by piece, also as they must not be.

Every builder takes the byte order first, as the struct module writes it: "<" or ">".
Lengths are right unless given.  Written down from the drafts, not from vsockdump, which
these bytes test.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

ORDERS: Final = ("<", ">")
MICRO: Final = 0xA1B2C3D4
NANO: Final = 0xA1B23C4D
MODIFIED: Final = 0xA1B2CD34

SECTION, INTERFACE, OBSOLETE, SIMPLE, NAMES, STATISTICS, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 4, 5, 6
JOURNAL, SECRETS, CUSTOM, CUSTOM_NO_COPY = 9, 10, 0xBAD, 0x40000BAD
PACKET_BLOCKS: Final = (OBSOLETE, SIMPLE, ENHANCED)

COMMENT, IF_NAME, IF_TSRESOL, IF_TSOFFSET = 1, 2, 9, 14
IF_DROP, OS_DROP = 5, 7

Options = Iterable[tuple[int, bytes]]


def pcap_header(
    order: str = "<",
    magic: int = MICRO,
    linktype: int = 271,
    snaplen: int = 262144,
) -> bytes:
    """The file header of a pcap file."""
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, linktype)


def pcap_record(
    order: str,
    packet: bytes,
    seconds: int = 0,
    fraction: int = 0,
    *,
    caplen: int | None = None,
    wirelen: int | None = None,
    more_header: bytes = b"",
) -> bytes:
    """A record; `more_header` is what the modified format has behind the four fields."""
    caplen = len(packet) if caplen is None else caplen
    wirelen = len(packet) if wirelen is None else wirelen
    head = struct.pack(order + "IIII", seconds, fraction, caplen, wirelen)
    return head + more_header + packet


def options(order: str, pairs: Options) -> bytes:
    """Options and the mark that ends them; nothing where there are none."""
    body = b"".join(
        struct.pack(order + "HH", code, len(value)) + _padded(value) for code, value in pairs
    )
    return body + bytes(4) if body else b""


def block(
    order: str, kind: int, body: bytes, *, size: int | None = None, size_again: int | None = None
) -> bytes:
    """Any block, its body padded."""
    body = _padded(body)
    size = 12 + len(body) if size is None else size
    size_again = size if size_again is None else size_again
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size_again)


def section(order: str, pairs: Options = (), *, major: int = 1, length: int = -1) -> bytes:
    """A section header."""
    head = struct.pack(order + "IHHq", 0x1A2B3C4D, major, 0, length)
    return block(order, SECTION, head + options(order, pairs))


def interface(
    order: str,
    linktype: int = 271,
    *,
    name: str | None = None,
    snaplen: int = 0,
    resolution: int | None = None,
    offset: int | None = None,
) -> bytes:
    """An interface description; an option that is None is left out."""
    pairs = []
    if name is not None:
        pairs.append((IF_NAME, name.encode()))
    if resolution is not None:
        pairs.append((IF_TSRESOL, bytes([resolution])))
    if offset is not None:
        pairs.append((IF_TSOFFSET, struct.pack(order + "q", offset)))
    head = struct.pack(order + "HHI", linktype, 0, snaplen)
    return block(order, INTERFACE, head + options(order, pairs))


def enhanced(
    order: str,
    packet: bytes,
    ticks: int = 0,
    interface: int = 0,
    pairs: Options = (),
    *,
    caplen: int | None = None,
    wirelen: int | None = None,
) -> bytes:
    """An enhanced packet block."""
    caplen = len(packet) if caplen is None else caplen
    wirelen = len(packet) if wirelen is None else wirelen
    head = struct.pack(order + "IIIII", interface, *divmod(ticks, 2**32), caplen, wirelen)
    return block(order, ENHANCED, head + _padded(packet) + options(order, pairs))


def simple(order: str, packet: bytes, wirelen: int | None = None) -> bytes:
    """A simple packet block."""
    wirelen = len(packet) if wirelen is None else wirelen
    return block(order, SIMPLE, struct.pack(order + "I", wirelen) + packet)


def obsolete(
    order: str, packet: bytes, ticks: int = 0, interface: int = 0, pairs: Options = ()
) -> bytes:
    """A packet block of the old kind, with a drop count that says "unknown"."""
    sizes = len(packet), len(packet)
    head = struct.pack(order + "HHIIII", interface, 0xFFFF, *divmod(ticks, 2**32), *sizes)
    return block(order, OBSOLETE, head + _padded(packet) + options(order, pairs))


def names(order: str, address: bytes = b"\x7f\0\0\1", name: bytes = b"localhost") -> bytes:
    """A name resolution block with one IPv4 record."""
    record = address + name + b"\0"
    return block(
        order, NAMES, struct.pack(order + "HH", 1, len(record)) + _padded(record) + bytes(4)
    )


def statistics(
    order: str,
    interface: int = 0,
    *,
    if_drop: int | None = None,
    os_drop: int | None = None,
) -> bytes:
    """An interface statistics block; a count that is None is left out."""
    counts = ((IF_DROP, if_drop), (OS_DROP, os_drop))
    pairs = [(code, struct.pack(order + "Q", count)) for code, count in counts if count is not None]
    return block(
        order, STATISTICS, struct.pack(order + "III", interface, 0, 0) + options(order, pairs)
    )


def secrets(order: str, data: bytes = b"CLIENT_RANDOM 00 11") -> bytes:
    """A decryption secrets block with a TLS key log."""
    return block(order, SECRETS, struct.pack(order + "II", 0x544C534B, len(data)) + data)


def custom(order: str, data: bytes = b"ours", *, copy: bool = True) -> bytes:
    """A custom block under the enterprise number for examples."""
    kind = CUSTOM if copy else CUSTOM_NO_COPY
    return block(order, kind, struct.pack(order + "I", 32473) + data)


def other_blocks(order: str) -> list[bytes]:
    """One of every block that is neither a packet, a section nor an interface."""
    return [
        names(order),
        statistics(order, if_drop=3),
        secrets(order),
        custom(order),
        custom(order, copy=False),
        block(order, JOURNAL, b"__REALTIME_TIMESTAMP=1\n"),
        block(order, 0x7FFFFFFF, b""),
        block(order, 0x80000001, b"local use"),
    ]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class Piece(NamedTuple):
    """A record or block at `start` of a file, up to `end`."""

    start: int
    end: int
    is_packet: bool


def pieces(data: bytes) -> Iterator[Piece]:
    """The records or blocks of an undamaged file; a pcap file's header is one of them."""
    if data[:4] == b"\x0a\x0d\x0d\x0a":
        yield from _pcapng_pieces(data)
    else:
        yield from _pcap_pieces(data)


def _pcap_pieces(data: bytes) -> Iterator[Piece]:
    order = "<" if data[3] == 0xA1 else ">"
    (magic,) = struct.unpack_from(order + "I", data)
    header = 24 if magic == MODIFIED else 16
    at = 24
    yield Piece(0, at, is_packet=False)
    while at < len(data):
        (caplen,) = struct.unpack_from(order + "I", data, at + 8)
        yield Piece(at, at + header + caplen, is_packet=True)
        at += header + caplen


def _pcapng_pieces(data: bytes) -> Iterator[Piece]:
    at, order = 0, "<"
    while at < len(data):
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if data[at + 8] == 0x4D else ">"
        kind, size = struct.unpack_from(order + "II", data, at)
        yield Piece(at, at + size, kind in PACKET_BLOCKS)
        at += size
