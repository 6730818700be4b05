"""Write a large, rule-abiding AF_VSOCK capture for the benchmarks.

    generate.py PACKETS OUT [--connections 1000] [--seed 1] [--format pcap|pcapng]

Every connection opens with REQUEST and RESPONSE, all of them interleaved at the start; then
RW packets of 1 to 256 bytes go both ways with CREDIT_UPDATEs between them; at the end each
closes by SHUTDOWN and RST.  The credit in the headers is that of peers that keep the rules:
nobody acknowledges a byte that was not sent, and nobody sends beyond the peer's buffer.
The same arguments give the same bytes, with the same NumPy.

Rules for editors: no Python loop over packets, and no array longer than a chunk, because the
benchmarks need 10 million packets within a minute and in little memory.  The two headers
come from `wire`.  Connections take their turns at random and not in bursts, because that is
the hardest case for a tracker's caches.
"""

import argparse
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vsockdump import wire

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.void]

CHUNK: Final = 200_000  # packets held at a time, about 45 MB of file
BUF_ALLOC: Final = 262_144  # Linux's default
MAX_LENGTH: Final = 256
GUESTS: Final = 64
FIRST_GUEST_CID: Final = 3
FIRST_EPHEMERAL_PORT: Final = 0x4000_0000
SERVICE_PORTS: Final = (22, 80, 1024, 5000, 8080, 9999)
UPDATE_SHARE: Final = 0.06  # of the packets after the opening are CREDIT_UPDATEs
READ_SHARE: Final = 0.12  # of the RW packets are sent by a side that has just read all
START_US: Final = 1_750_000_000_000_000
SNAPLEN: Final = 262_144
TEXT: Final = b"GET /index HTTP/1.1 Host: guest\r\nabcdefghijklmnopqrstuvwxyz0123456789{}:,\n"

PCAP_RECORD: Final = [("sec", "<u4"), ("usec", "<u4"), ("caplen", "<u4"), ("wirelen", "<u4")]
PCAPNG_RECORD: Final = [
    ("type", "<u4"),
    ("total", "<u4"),
    ("interface", "<u4"),
    ("time_high", "<u4"),
    ("time_low", "<u4"),
    ("caplen", "<u4"),
    ("wirelen", "<u4"),
]
PCAPNG_PACKET_BLOCK: Final = 6


class Packets(NamedTuple):
    """Packets in capture order, before credit: who sends what on which connection."""

    connection: Ints
    side: Ints  # 0 the initiator sends, 1 the acceptor
    op: Ints
    length: Ints
    reads: Bools  # the sender has consumed all that its peer has sent

    def rows(self, at: Ints) -> "Packets":
        """The packets at these places, in this order."""
        return Packets(
            self.connection[at], self.side[at], self.op[at], self.length[at], self.reads[at]
        )


def header_dtype(record: list[tuple[str, str]]) -> np.dtype[np.void]:
    """A capture record's header and, after it, every field of both vsock headers."""
    fields = [
        (f"{header.name}_{field.name}", f"<u{field.size}")
        for header in wire.HEADERS
        for field in header.fields
    ]
    return np.dtype(record + fields)


class Plan:
    """The addresses and the habits of all connections."""

    def __init__(self, connections: int, rng: np.random.Generator) -> None:
        number = np.arange(connections)
        guest = FIRST_GUEST_CID + number % GUESTS
        host_initiates = rng.random(connections) < 0.5
        host = np.full(connections, wire.CID_HOST)
        service = np.array(SERVICE_PORTS)[number % len(SERVICE_PORTS)]
        self.connections = connections
        # Row 0 is the initiator, row 1 the acceptor.
        self.cid = np.stack(
            [np.where(host_initiates, host, guest), np.where(host_initiates, guest, host)]
        )
        self.port = np.stack([FIRST_EPHEMERAL_PORT + number, service])
        # Chatty one way, the other way, or balanced; never so one-sided that nobody reads.
        self.acceptor_share = rng.uniform(0.1, 0.9, connections)


class Credit:
    """Bytes sent and consumed, per connection and side, carried from chunk to chunk."""

    def __init__(self, connections: int) -> None:
        self.sent = np.zeros((2, connections), np.int64)
        self.consumed = np.zeros((2, connections), np.int64)

    def advance(self, packets: Packets) -> Ints:
        """The fwd_cnt of every packet; the state moves on by these packets."""
        order = np.argsort(packets.connection, kind="stable")
        grouped = packets.rows(order)
        starts = first_of_group(grouped.connection)
        sent = [self.sent_before(grouped, side, starts) for side in (0, 1)]
        consumed = [self.consumed_by(grouped, side, starts, sent[1 - side]) for side in (0, 1)]
        last = np.append(starts[1:], len(order)) - 1
        for side in (0, 1):
            own_bytes = np.where(grouped.side == side, grouped.length, 0)
            self.sent[side, grouped.connection[last]] = (sent[side] + own_bytes)[last]
            self.consumed[side, grouped.connection[last]] = consumed[side][last]
        fwd_cnt = np.empty(len(order), np.int64)
        fwd_cnt[order] = np.where(grouped.side == 0, consumed[0], consumed[1])
        return fwd_cnt

    def sent_before(self, grouped: Packets, side: int, starts: Ints) -> Ints:
        """How much `side` had sent before each packet."""
        own_bytes = np.where(grouped.side == side, grouped.length, 0)
        running = np.cumsum(own_bytes) - own_bytes
        group = group_numbers(starts, len(running))
        before: Ints = self.sent[side, grouped.connection] + running - running[starts][group]
        return before

    def consumed_by(self, grouped: Packets, side: int, starts: Ints, peer_sent: Ints) -> Ints:
        """How much `side` had consumed at each packet: what there was when it last read."""
        row = np.arange(len(peer_sent))
        reads = grouped.reads & (grouped.side == side)
        last_read = np.maximum.accumulate(np.where(reads, row, -1))
        in_group = last_read >= starts[group_numbers(starts, len(row))]
        return np.where(in_group, peer_sent[last_read], self.consumed[side, grouped.connection])


def first_of_group(grouped: Ints) -> Ints:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.diff(grouped, prepend=-1)).astype(np.int64)


def group_numbers(starts: Ints, count: int) -> Ints:
    """The number of its run, for each row."""
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=count))


def handshake(count: int, ops: tuple[int, int], rng: np.random.Generator) -> Packets:
    """Two packets of each connection, one from each side, interleaved with the others'."""
    number = np.arange(count)
    answered_at = number + rng.uniform(0.5, 16, count)
    order = np.argsort(np.concatenate([number.astype(float), answered_at]), kind="stable")
    return Packets(
        connection=np.concatenate([number, number])[order],
        side=np.repeat([0, 1], count)[order],
        op=np.repeat(ops, count)[order],
        length=np.zeros(2 * count, np.int64),
        reads=np.ones(2 * count, np.bool_),
    )


def traffic(count: int, plan: Plan, rng: np.random.Generator) -> Packets:
    """RW packets and the CREDIT_UPDATEs that answer them."""
    connection = rng.integers(plan.connections, size=count)
    update = rng.random(count) < UPDATE_SHARE
    from_acceptor = rng.random(count) < plan.acceptor_share[connection]
    length = np.where(update, 0, rng.integers(1, MAX_LENGTH + 1, count))
    return Packets(
        connection=connection,
        side=(from_acceptor ^ update).astype(np.int64),  # whoever receives more updates more
        op=np.where(update, wire.Op.CREDIT_UPDATE, wire.Op.RW),
        length=length,
        reads=update | (rng.random(count) < READ_SHARE),
    )


def all_packets(total: int, plan: Plan, rng: np.random.Generator) -> Iterator[Packets]:
    """The whole capture, chunk by chunk."""
    left = total - 4 * plan.connections
    yield handshake(plan.connections, (wire.Op.REQUEST, wire.Op.RESPONSE), rng)
    while left:
        count = min(left, CHUNK)
        yield traffic(count, plan, rng)
        left -= count
    yield handshake(plan.connections, (wire.Op.SHUTDOWN, wire.Op.RST), rng)


def fill_headers(rows: Rows, packets: Packets, fwd_cnt: Ints, plan: Plan) -> None:
    """Both vsock headers of each packet."""
    own, peer = packets.side, 1 - packets.side
    for header in wire.HEADERS:
        rows[f"{header.name}_src_cid"] = plan.cid[own, packets.connection]
        rows[f"{header.name}_dst_cid"] = plan.cid[peer, packets.connection]
        rows[f"{header.name}_src_port"] = plan.port[own, packets.connection]
        rows[f"{header.name}_dst_port"] = plan.port[peer, packets.connection]
    outer = np.array([wire.OUTER_OP.get(op, wire.MonitorOp.UNKNOWN) for op in wire.Op])
    rows["mon_op"] = outer[packets.op]
    rows["mon_t"] = wire.Transport.VIRTIO
    rows["mon_len"] = wire.VIRTIO.size
    rows["virtio_len"] = packets.length
    rows["virtio_type"] = wire.SocketType.STREAM
    rows["virtio_op"] = packets.op
    both_ways = wire.Shutdown.RCV | wire.Shutdown.SEND
    rows["virtio_flags"] = np.where(packets.op == wire.Op.SHUTDOWN, int(both_ways), 0)
    rows["virtio_buf_alloc"] = BUF_ALLOC
    rows["virtio_fwd_cnt"] = fwd_cnt & 0xFFFF_FFFF


def scatter(out: Bytes, at: Ints, rows: npt.NDArray[Any]) -> None:
    """Copy each row to its byte position in `out`."""
    # A view with a stride of one byte has an item at every position, aligned or not, so that
    # NumPy does one memcpy per row and no index is needed for each byte.
    item = np.dtype((np.void, rows.dtype.itemsize))
    window = np.ndarray((len(out) - item.itemsize + 1,), item, out.data, strides=(1,))
    window[at] = rows.view(item)


class Text:
    """Pseudo-random printable bytes, to be cut from a pool: quicker than new ones each time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.pool = np.frombuffer(TEXT, np.uint8)[rng.integers(len(TEXT), size=1 << 20)]

    def take(self, size: int) -> Bytes:
        start = self.rng.integers(len(self.pool))
        repeats = (start + size) // len(self.pool) + 1
        return np.tile(self.pool, repeats)[start : start + size]


class Pcap:
    """Classic pcap, little-endian, microseconds."""

    dtype = header_dtype(PCAP_RECORD)

    def preamble(self) -> bytes:
        return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAPLEN, wire.LINKTYPE_VSOCK)

    def fill_record(self, rows: Rows, time_us: Ints, caplen: Ints) -> None:
        rows["sec"], rows["usec"] = np.divmod(time_us, 1_000_000)
        rows["caplen"] = rows["wirelen"] = caplen

    def assemble(self, rows: Rows, text: Text) -> Bytes:
        """The chunk's bytes: text everywhere, then the headers over it."""
        size = self.dtype.itemsize + rows["virtio_len"].astype(np.int64)
        end = np.cumsum(size)
        out = text.take(int(end[-1]))
        scatter(out, end - size, rows)
        return out


class Pcapng:
    """pcapng with one section, one interface and an Enhanced Packet Block per packet."""

    dtype = header_dtype(PCAPNG_RECORD)

    def preamble(self) -> bytes:
        section = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
        interface = struct.pack("<IIHHII", 1, 20, wire.LINKTYPE_VSOCK, 0, SNAPLEN, 20)
        return section + interface

    def fill_record(self, rows: Rows, time_us: Ints, caplen: Ints) -> None:
        rows["type"] = PCAPNG_PACKET_BLOCK
        rows["total"] = 32 + (caplen + 3) // 4 * 4
        rows["time_high"], rows["time_low"] = time_us >> 32, time_us & 0xFFFF_FFFF
        rows["caplen"] = rows["wirelen"] = caplen

    def assemble(self, rows: Rows, text: Text) -> Bytes:
        """As for pcap, with zeros as padding and the block length again at each block's end."""
        size = rows["total"].astype(np.int64)
        end = np.cumsum(size)
        start, payload = end - size, rows["virtio_len"].astype(np.int64)
        out = text.take(int(end[-1]))
        for back in (5, 6, 7):
            padding = end - back
            out[padding[padding >= start + self.dtype.itemsize + payload]] = 0
        scatter(out, start, rows)
        scatter(out, end - 4, rows["total"].copy())
        return out


def write(total: int, out: BinaryIO, connections: int, seed: int, capture: Pcap | Pcapng) -> None:
    # Two streams of random numbers, so that both formats hold the same packets.
    rng, text_rng = np.random.default_rng(seed).spawn(2)
    plan, credit, text = Plan(connections, rng), Credit(connections), Text(text_rng)
    out.write(capture.preamble())
    now_us = START_US
    for packets in all_packets(total, plan, rng):
        if not len(packets.op):
            continue
        rows = np.zeros(len(packets.op), capture.dtype)
        fill_headers(rows, packets, credit.advance(packets), plan)
        time_us = now_us + np.cumsum(rng.integers(1, 3, len(rows)))
        now_us = int(time_us[-1])
        capture.fill_record(rows, time_us, wire.HEADERS_SIZE + packets.length)
        out.write(capture.assemble(rows, text).data)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write a large AF_VSOCK capture.")
    parser.add_argument("packets", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=("pcap", "pcapng"), default="pcap")
    chosen = parser.parse_args()
    if chosen.connections < 1 or chosen.packets < 4 * chosen.connections:
        parser.error("each connection needs four packets: fewer --connections, or more packets")
    return chosen


def main() -> None:
    chosen = arguments()
    capture = Pcap() if chosen.format == "pcap" else Pcapng()
    with chosen.out.open("wb") as out:
        write(chosen.packets, out, chosen.connections, chosen.seed, capture)


if __name__ == "__main__":
    main()
