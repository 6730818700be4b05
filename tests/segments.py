"""Exports as their readers see them: blocks of a pcapng file, IPv6, TCP and UDP, and streams.

Written down from the drafts and RFCs, not from vsockdump, whose packets these functions test:
every packet has its sizes and, unless it was cut, its checksum compared.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from blocks import ENHANCED, INTERFACE, pieces
from running import run_bytes

from vsockdump.address import Endpoint

FLAG_NAMES: Final = ((2, "SYN"), (1, "FIN"), (4, "RST"), (8, "PSH"), (16, "ACK"))
PREFIX: Final = 0xFD76


class Made(NamedTuple):
    """A packet of an export: its block without options, and comments."""

    interface: int
    time_ns: int
    data: bytes
    wirelen: int
    comments: list[str]


class Segment(NamedTuple):
    """A TCP segment or UDP datagram; `length` is its payload's, of which `data` is captured."""

    time_ns: int
    conn: int  # the flow label
    place: int
    src: Endpoint
    dst: Endpoint
    ports: tuple[int, int]
    flags: str  # "SYN ACK"; "" for UDP
    seq: int
    ack: int
    window: int
    options: bytes
    length: int
    data: bytes


def export(capture: bytes, *arguments: str, kind: str = "tcp") -> bytes:
    """An export of a capture, which must go well and silently."""
    options = ("-r", "-", "--export", kind, "-w", "-")
    status, out, err = run_bytes(*options, *arguments, stdin=capture)
    assert (0, b"") == (status, err)
    return out


def link_types(data: bytes) -> list[int]:
    """Those of the interfaces of a little-endian pcapng file."""
    found = []
    for piece in pieces(data):
        kind, _size, linktype = struct.unpack_from("<IIH", data, piece.start)
        if kind == INTERFACE:
            found.append(linktype)
    return found


def made(data: bytes) -> list[Made]:
    """The packets of a little-endian pcapng file whose times are nanoseconds."""
    found = []
    for piece in pieces(data):
        kind, size = struct.unpack_from("<II", data, piece.start)
        if kind == ENHANCED:
            head = struct.unpack_from("<IIIII", data, piece.start + 8)
            interface, high, low, caplen, wirelen = head
            start = piece.start + 28
            after = data[start + (caplen + 3 & ~3) : piece.start + size - 4]
            packet = data[start : start + caplen]
            found.append(Made(interface, high << 32 | low, packet, wirelen, comments(after)))
    return found


def comments(options: bytes) -> list[str]:
    """The comments among options."""
    found, at = [], 0
    while at < len(options):
        code, size = struct.unpack_from("<HH", options, at)
        if code == 1:
            found.append(options[at + 4 : at + 4 + size].decode())
        at += 4 + (size + 3 & ~3)
    return found


def segments(data: bytes) -> list[Segment]:
    """The packets of an export as TCP or UDP."""
    return [segment(packet) for packet in made(data)]


def segment(packet: Made) -> Segment:
    """A packet taken apart."""
    data = packet.data
    first, size, following, hops = struct.unpack_from(">IHBB", data)
    assert (6, 64) == (first >> 28, hops)
    assert first >> 20 & 0xFF == 0
    places, ends = [], []
    for at in (8, 24):
        prefix, place, cid, port = struct.unpack_from(">HHQI", data, at)
        assert PREFIX == prefix
        places.append(place)
        ends.append(Endpoint(cid, port))
    assert places[0] == places[1]
    at = 40
    if following == 0:
        following, blocks, option, option_size, size = struct.unpack_from(">BBBBI", data, at)
        assert (0, 0xC2, 4) == (blocks, option, option_size)
        assert size > 65535
        at, size = 48, size - 8
    assert packet.wirelen == at + size
    if len(data) == packet.wirelen:
        check_sum(data[8:40], following, data[at:])
    common = packet.time_ns, first & 0xFFFFF, places[0], ends[0], ends[1]
    ports = struct.unpack_from(">HH", data, at)
    if following == 17:
        assert struct.unpack_from(">H", data, at + 4)[0] == (size if size <= 65535 else 0)
        return Segment(*common, ports, "", 0, 0, 0, b"", size - 8, data[at + 8 :])
    assert 6 == following
    seq, ack, offset, flags, window, _sum, urgent = struct.unpack_from(">IIBBHHH", data, at + 4)
    assert 0 == urgent
    names = " ".join(name for bit, name in FLAG_NAMES if flags & bit)
    behind = at + (offset >> 4) * 4
    length = packet.wirelen - behind
    options = data[at + 20 : behind]
    return Segment(*common, ports, names, seq, ack, window, options, length, data[behind:])


def check_sum(addresses: bytes, kind: int, data: bytes) -> None:
    """Compare the checksum of a TCP segment or UDP datagram."""
    whole = addresses + struct.pack(">II", len(data), kind) + data + bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(whole) // 2}H", whole))
    assert 0 == total % 0xFFFF  # in one's complement 0xffff is 0
    assert kind == 6 or data[6:8] != b"\0\0"


class Line(NamedTuple):
    """What a chart says of a segment: who (> initiator), flags, seq and ack from 0, length."""

    sign: str
    flags: str
    seq: int
    ack: int
    length: int


def lines_of(found: Sequence[Segment], initiator: Endpoint) -> list[Line]:
    """Segments of one connection by numbers that count from the SYNs; 0 is no ack."""
    origin: dict[str, int] = {}
    lines = []
    for one in found:
        sign, other = "><" if one.src == initiator else "<>"
        origin.setdefault(sign, one.seq if "SYN" in one.flags else one.seq - 1)
        if "ACK" in one.flags:
            origin.setdefault(other, one.ack - 1)
        seq = one.seq - origin[sign] & 0xFFFFFFFF
        ack = one.ack - origin[other] & 0xFFFFFFFF if "ACK" in one.flags else 0
        lines.append(Line(sign, one.flags, seq, ack, one.length))
    return lines


def streams(found: Iterable[Segment]) -> dict[tuple[int, Endpoint], bytes]:
    """The captured bytes of each direction that sent some, by connection and sender.

    Each segment must begin where the one before it ended: nothing is repeated, reordered or
    missing.  Nobody acknowledges what was not sent, or less than before.
    """
    data: defaultdict[tuple[int, Endpoint], bytes] = defaultdict(bytes)
    following: dict[tuple[int, Endpoint], int] = {}
    acked: dict[tuple[int, Endpoint], int] = {}
    for one in found:
        own, peer = (one.conn, one.src), (one.conn, one.dst)
        if one.flags:
            assert following.get(own, one.seq) == one.seq
            extra = ("SYN" in one.flags) + ("FIN" in one.flags)
            following[own] = one.seq + one.length + extra & 0xFFFFFFFF
            if "ACK" in one.flags:
                assert following.get(peer, one.ack) == one.ack
                assert one.ack - acked.get(own, one.ack) & 0xFFFFFFFF < 1 << 31
                acked[own] = one.ack
        data[own] += one.data
    return {key: found for key, found in data.items() if found}
