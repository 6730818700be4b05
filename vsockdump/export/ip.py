"""IPv6 packets with TCP segments or UDP datagrams, made of columns, many at a time.

An address holds an endpoint whole: fd76:PLACE:CID:PORT with 16 bits of place, 64 of context
id and 32 of port; only the 16-bit port beside it may have to be an invention.  It is a unique
local address (RFC 4193), with "v" where the random bits would begin.  What is too long for a
packet is a jumbogram (RFC 2675), so that what was one packet stays one.

Rules for editors: whole columns at a time, no object per packet but its payload's slice.
Not Scapy: it takes as long for one packet as this for a thousand.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Rows
from vsockdump.columns import Mask

LINKTYPE_RAW: Final = 101  # an IP packet and nothing before it
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

_PREFIX: Final = 0xFD76
_HOPS: Final = 64
_HOP_BY_HOP: Final = 0
_TCP: Final = 6
_UDP: Final = 17
_MOST: Final = 65535  # bytes behind the IPv6 header, unless it is a jumbogram
_FIRST_DYNAMIC: Final = 49152  # of the ports that belong to no service
_DYNAMIC: Final = 16384

_END: Final = np.dtype([("prefix", ">u2"), ("place", ">u2"), ("cid", ">u8"), ("port", ">u4")])
_IP_DTYPE: Final = np.dtype(
    [
        ("version", ">u4"),  # and the flow label
        ("size", ">u2"),
        ("next", "u1"),
        ("hops", "u1"),
        ("src", _END),
        ("dst", _END),
    ]
)
_JUMBO_DTYPE: Final = np.dtype(
    [("next", "u1"), ("blocks", "u1"), ("option", "u1"), ("option_size", "u1"), ("size", ">u4")]
)
TCP_DTYPE: Final = np.dtype(
    [
        ("src_port", ">u2"),
        ("dst_port", ">u2"),
        ("seq", ">u4"),
        ("ack", ">u4"),
        ("offset", "u1"),
        ("flags", "u1"),
        ("window", ">u2"),
        ("checksum", ">u2"),
        ("urgent", ">u2"),
    ]
)
UDP_DTYPE: Final = np.dtype(
    [("src_port", ">u2"), ("dst_port", ">u2"), ("size", ">u2"), ("checksum", ">u2")]
)
_IP_SIZE: Final = _IP_DTYPE.itemsize
_ADDRESSES_AT: Final = 8
_JUMBO_SIZE: Final = _JUMBO_DTYPE.itemsize
_HEADERS: Final = _IP_SIZE + _JUMBO_SIZE + TCP_DTYPE.itemsize  # where all of them are there

Payload = bytes | memoryview
Integers = NDArray[np.int64]


class Addresses(NamedTuple):
    """Sources and destinations as columns."""

    place: NDArray[np.uint16]
    src_cid: NDArray[np.uint64]
    src_port: NDArray[np.uint32]
    dst_cid: NDArray[np.uint64]
    dst_port: NDArray[np.uint32]


class Packets(NamedTuple):
    """Packets in a buffer: where they begin, how many bytes of them are there, and in all."""

    buffer: memoryview
    at: Integers
    caplen: Integers
    wirelen: Integers


def port16(ports: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Ports as 16 bits: those that fit as they are, the others among the dynamic ones."""
    fit = (ports > 0) & (ports < 65536)
    mapped: NDArray[np.uint32] = np.where(fit, ports, _FIRST_DYNAMIC + ports % _DYNAMIC)
    return mapped


def address(place: int, cid: int, port: int) -> bytes:
    """The address of an endpoint."""
    return np.array((_PREFIX, place, cid, port), _END).tobytes()


def syn_options(shift: int | None) -> bytes:
    """The options of a SYN: segments of any size, and by how many bits windows are shifted."""
    return b"\2\4\xff\xff" + (bytes(4) if shift is None else bytes([1, 3, 3, shift]))


def packets(
    ends: Addresses,
    labels: NDArray[np.uint64],
    tcp: Rows,
    is_udp: Mask,
    payloads: Sequence[Payload],
    sizes: Integers,
) -> Packets:
    """Packets with all headers, sizes and checksums; `labels` become their flow labels.

    `tcp`, of TCP_DTYPE, has numbers, flags and windows of those that are not `is_udp`.
    `payloads` are the captured bytes behind the headers, the options of a SYN among them, and
    `sizes` how many there are to be.
    """
    caps = np.fromiter(map(len, payloads), np.int64, len(payloads))
    transport = np.where(is_udp, UDP_DTYPE.itemsize, TCP_DTYPE.itemsize)
    lengths = transport + sizes
    is_jumbo = lengths > _MOST
    udp = np.zeros(int(np.count_nonzero(is_udp)), UDP_DTYPE)
    for name, port in (("src_port", ends.src_port), ("dst_port", ends.dst_port)):
        ports = port16(port)
        tcp[name], udp[name] = ports[~is_udp], ports[is_udp]
    tcp["offset"] = np.where(tcp["flags"] & SYN, 28, 20) << 2
    udp["size"] = np.where(is_jumbo, 0, lengths)[is_udp]
    heads = _heads(_ip_headers(ends, labels, is_udp, lengths), lengths, tcp, udp, is_udp)
    buffer, starts = _joined(heads, payloads, caps)
    behind = starts + _HEADERS
    begin = behind - transport
    at = begin - _IP_SIZE - np.where(is_jumbo, _JUMBO_SIZE, 0)
    sums = _checksums(buffer, at, begin, behind + caps)
    sums = _folded(sums + _swapped(lengths & 0xFFFF) + _swapped(lengths >> 16))
    sums = _folded(sums + _swapped(np.where(is_udp, _UDP, _TCP))) ^ np.uint64(0xFFFF)
    sums[is_udp & (sums == 0)] = 0xFFFF  # 0 would say that there is none
    np.frombuffer(buffer, np.uint16)[(begin + np.where(is_udp, 6, 16)) // 2] = sums
    return Packets(memoryview(buffer), at, behind - at + caps, behind - at + sizes)


def _ip_headers(
    ends: Addresses, labels: NDArray[np.uint64], is_udp: Mask, lengths: Integers
) -> Rows:
    headers = np.zeros(len(labels), _IP_DTYPE)
    headers["version"] = 6 << 28 | labels & 0xFFFFF
    headers["size"] = np.where(lengths > _MOST, 0, lengths)
    headers["next"] = np.where(lengths > _MOST, _HOP_BY_HOP, np.where(is_udp, _UDP, _TCP))
    headers["hops"] = _HOPS
    for side, cid, port in (
        ("src", ends.src_cid, ends.src_port),
        ("dst", ends.dst_cid, ends.dst_port),
    ):
        headers[side]["prefix"] = _PREFIX
        headers[side]["place"] = ends.place
        headers[side]["cid"] = cid
        headers[side]["port"] = port
    return headers


def _jumbo_headers(lengths: Integers, kind: int) -> Rows:
    """Hop-by-hop headers with the length that the IPv6 header has no room for."""
    headers = np.zeros(len(lengths), _JUMBO_DTYPE)
    headers["next"] = kind
    headers["option"], headers["option_size"] = 0xC2, 4
    headers["size"] = _JUMBO_SIZE + lengths
    return headers


def _heads(ip: Rows, lengths: Integers, tcp: Rows, udp: Rows, is_udp: Mask) -> NDArray[np.uint8]:
    """All headers of each packet, at the end of a row."""
    heads = np.zeros((len(ip), _HEADERS), np.uint8)
    for kind, mask, transport in ((_TCP, ~is_udp, tcp), (_UDP, is_udp, udp)):
        at = _HEADERS - transport.itemsize
        heads[mask, at:] = _bytes(transport)
        short, long = mask & (lengths <= _MOST), mask & (lengths > _MOST)
        heads[short, at - _IP_SIZE : at] = _bytes(ip[short])
        if long.any():
            heads[long, at - _JUMBO_SIZE : at] = _bytes(_jumbo_headers(lengths[long], kind))
            at -= _JUMBO_SIZE
            heads[long, at - _IP_SIZE : at] = _bytes(ip[long])
    return heads


def _bytes(rows: Rows) -> NDArray[np.uint8]:
    return rows.view(np.uint8).reshape(len(rows), rows.itemsize)


def _joined(
    heads: NDArray[np.uint8], payloads: Sequence[Payload], caps: Integers
) -> tuple[bytearray, Integers]:
    """Headers and payloads, each pair at an even place; and these places."""
    plain = memoryview(heads.tobytes())
    pads = (b"", b"\0")
    parts: list[Payload] = []
    for at, payload in enumerate(payloads):
        parts += (plain[at * _HEADERS : (at + 1) * _HEADERS], payload, pads[len(payload) & 1])
    sizes = _HEADERS + caps + (caps & 1)
    return bytearray().join([*parts, b"\0\0"]), np.cumsum(sizes) - sizes


def _checksums(
    buffer: bytearray, at: Integers, begin: Integers, end: Integers
) -> NDArray[np.uint64]:
    """The sums of the 16-bit words of addresses, transport headers and payloads.

    A sum may be taken of words in any byte order and comes out in that order.  Where a packet
    was cut its checksum cannot be known; what there is of it is summed up.
    """
    words = np.frombuffer(buffer, np.uint16)
    places = np.empty(4 * len(at), np.int64)
    places[0::4] = (at + _ADDRESSES_AT) // 2
    places[1::4] = (at + _IP_SIZE) // 2
    places[2::4] = begin // 2
    places[3::4] = (end + 1) // 2
    sums = np.add.reduceat(words, places, dtype=np.uint64)
    return sums[0::4] + sums[2::4]


def _swapped(values: Integers) -> NDArray[np.uint64]:
    """16-bit values in the byte order of the wire."""
    return values.astype(np.uint16).byteswap().astype(np.uint64)


def _folded(sums: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sums in one's complement of 16 bits."""
    for _ in range(3):
        sums = (sums & np.uint64(0xFFFF)) + (sums >> np.uint64(16))
    return sums
