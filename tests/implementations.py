"""Healthy programs between ends of every implementation, and faults to inject into them.

The ends differ in what they are free to choose: the size of their buffers, whether their own
limits them too, when they tell of room, whether they ask for it.  The programs keep the rules
and read what they are sent.  Sources: the specification for what is free, public code of the
devices for what they choose (Firecracker's and Cloud Hypervisor's csm/connection.rs,
vhost-device-vsock, libkrun), Linux's virtio_transport_common.c.
"""

import random
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from simulator import Connection, Seen, Setup, Simulator, Traffic, Updates, ms

from vsockdump.address import Endpoint
from vsockdump.wire import CID_HOST, VIRTIO, VSOCKMON, Op, Seqpacket, Shutdown, SocketType

_BOTH: Final = int(Shutdown.RCV | Shutdown.SEND)
_KIB: Final = 1024
_LONGEST_NS: Final = 3600 * 10**9  # that one side's data may take


Packets = list[Seen]


class Implementation(NamedTuple):
    """One kind of end."""

    buffers: tuple[int, ...]
    capped: bool = False
    updates: Updates = "linux"
    asks: bool = False


KINDS: Final = {
    "newer Linux": Implementation((64 * _KIB, 256 * _KIB, 1024 * _KIB), capped=True),
    "older Linux": Implementation((64 * _KIB, 256 * _KIB, 1024 * _KIB)),
    "Firecracker": Implementation((64 * _KIB,), updates="late", asks=True),
    "Cloud Hypervisor": Implementation((64 * _KIB,), updates="late", asks=True),
    "vhost-device-vsock": Implementation((64 * _KIB,), updates="every"),
    "libkrun": Implementation((256 * _KIB, 512 * _KIB), updates="late", asks=True),
    "silent driver": Implementation((64 * _KIB, 128 * _KIB), updates="never"),
}


class Run(NamedTuple):
    """A simulated run: its packets, who spoke with whom, and when senders were blocked."""

    traffic: Traffic
    names: list[tuple[str, str]]
    connections: list[Connection]


class _Programs:
    """Drives the programs at both ends of some connections, step by step."""

    def __init__(self, rng: random.Random, sim: Simulator) -> None:
        self.rng = rng
        self.sim = sim

    def exchange(self, conn: Connection) -> None:
        """Requests and answers, as RPC has them; sometimes slowly."""
        for _ in range(self.rng.randint(1, 6)):
            for side in (0, 1):
                self.send(conn, side, self.rng.choice((1, 40, 900, 5000, 40_000, 65_536)))

    def transfer(self, conn: Connection) -> None:
        """A file one way, to a reader that takes its time, and a word at the end."""
        self.send(conn, 0, self.rng.choice((70_000, 200_000, 600_000)), self.rng.random() < 0.5)
        self.send(conn, 1, 20)

    def send(self, conn: Connection, side: int, size: int, slowly: bool = False) -> None:
        """Data of one side, until the other has read them all."""
        peer, reader = conn.peers[side], conn.peers[1 - side]
        wanted = reader.read + size
        left, until = size, self.sim.now + _LONGEST_NS
        while reader.read < wanted:
            if self.sim.now > until:
                raise RuntimeError(f"neither end goes on: {conn.setup}")
            if left and not peer.writes:
                part = min(left, peer.window) if self._is_seqpacket(conn) else left
                conn.write(side, part)
                left -= part
            if slowly and self.rng.random() < 0.2:
                self.sim.run(ms(self.rng.choice((3, 150, 1200))))
            self.sim.run(ms(self.rng.choice((0.2, 1, 3))))
            conn.read(1 - side, self.rng.choice((4096, 65_536, 1 << 40)))

    @staticmethod
    def _is_seqpacket(conn: Connection) -> bool:
        return conn.setup.socket_type == SocketType.SEQPACKET

    def finish(self, conn: Connection) -> None:
        """An orderly close, by halves or at once, by either end."""
        first = self.rng.randrange(2)
        if self.rng.random() < 0.3:
            conn.shutdown(first, int(Shutdown.SEND))
            self.sim.run(ms(1))
            conn.shutdown(1 - first, int(Shutdown.SEND))
            self.sim.run(ms(1))
        conn.close(first)
        self.sim.run(ms(self.rng.choice((1, 30))))
        conn.close(1 - first)
        self.sim.run(ms(1))


def _setup(rng: random.Random, names: tuple[str, str], port: int, cids: tuple[int, int]) -> Setup:
    pair = [KINDS[name] for name in names]
    guest = 0 if cids[0] > CID_HOST else 1
    return Setup(
        Endpoint(cids[0], port),
        Endpoint(cids[1], 5000),
        rng.choice((SocketType.STREAM, SocketType.STREAM, SocketType.SEQPACKET)),
        (rng.choice(pair[0].buffers), rng.choice(pair[1].buffers)),
        (rng.randrange(1000, 90_000), rng.randrange(1000, 90_000)),
        tap=rng.choice((guest, 1 - guest)),
        start=(rng.randrange(1 << 32), rng.randrange(1 << 32)) if rng.random() < 0.15 else None,
        capped=(pair[0].capped, pair[1].capped),
        updates=(pair[0].updates, pair[1].updates),
        asks=(pair[0].asks, pair[1].asks),
    )


def healthy(seed: int) -> Run:
    """A run in which everybody keeps the rules.

    Guest and host, or two guests behind a device that forwards; the kinds of both ends and
    what they do are chosen anew.  What an end that never tells of room would keep waiting for
    ever is not asked of it.
    """
    rng = random.Random(seed)
    sim = Simulator()
    programs = _Programs(rng, sim)
    kinds = {
        3: rng.choice(list(KINDS)),
        4: rng.choice(list(KINDS)),
        CID_HOST: rng.choice(list(KINDS)),
    }
    names, conns = [], []
    for number in range(rng.randint(1, 4)):
        cids = rng.choice(((3, CID_HOST), (CID_HOST, 3), (3, 4)))
        pair = kinds[cids[0]], kinds[cids[1]]
        setup = _setup(rng, pair, 40_000 + number, cids)
        conn = sim.connect(setup)
        names.append(pair)
        conns.append(conn)
        sim.run(ms(1))
        untold = "never" in setup.updates or setup.socket_type == SocketType.SEQPACKET
        (programs.exchange if untold or rng.random() < 0.6 else programs.transfer)(conn)
        if rng.random() < 0.9:
            programs.finish(conn)
        sim.run(ms(rng.choice((1, 50, 2500))))
    return Run(sim.finish(), names, sim.connections)


def restored(seed: int) -> Run:
    """A guest is restored from a snapshot: its connections are gone at both ends, without a
    packet, and its ports are handed out again from where they were.
    """
    rng = random.Random(seed)
    sim = Simulator()
    programs = _Programs(rng, sim)
    pair = rng.choice(list(KINDS)), rng.choice(list(KINDS))
    setups = [_setup(rng, pair, 40_000 + number, (3, CID_HOST)) for number in range(3)]
    conns = []
    for turn in range(2):
        for setup in setups[: 3 - turn]:
            conn = sim.connect(setup._replace(start=None))
            conns.append(conn)
            sim.run(ms(1))
            programs.exchange(conn)
            if turn:
                programs.finish(conn)
            else:
                sim.run(ms(1))  # what was said last arrives
                conn.forget()
        sim.run(ms(rng.choice((500, 12_000))))
    return Run(sim.finish(), [pair] * len(conns), sim.connections)


def killed(seed: int) -> Packets:
    """A guest is killed; the host closes, and gives up when nobody answers."""
    rng = random.Random(seed)
    sim = Simulator()
    pair = rng.choice(list(KINDS)), rng.choice(list(KINDS))
    conn = sim.connect(_setup(rng, pair, 40_000, (3, CID_HOST))._replace(start=None))
    sim.run(ms(1))
    _Programs(rng, sim).exchange(conn)
    conn.kill(0)
    sim.run(ms(rng.choice((10, 3000))))
    conn.close(1)
    return sim.finish().seen


# --- faults ----------------------------------------------------------------------------


def _at(name: str) -> int:
    return VSOCKMON.size + VIRTIO.offset(name)


def field(seen: Seen, name: str) -> int:
    """A field of the virtio header."""
    size = next(one.size for one in VIRTIO.fields if one.name == name)
    start = _at(name)
    return int.from_bytes(seen.frame[start : start + size], "little")


def changed(seen: Seen, **values: int) -> Seen:
    """The packet with other values in its virtio header."""
    frame = bytearray(seen.frame)
    for name, value in values.items():
        size = next(one.size for one in VIRTIO.fields if one.name == name)
        frame[_at(name) : _at(name) + size] = (value % 256**size).to_bytes(size, "little")
    return seen._replace(frame=bytes(frame))


def made(like: Seen, after_ns: int, op: Op, size: int = 0, **values: int) -> Seen:
    """One more packet of the sender of `like`, so much later."""
    headers = bytearray(like.frame[: VSOCKMON.size + VIRTIO.size])
    outer = {Op.RW: 4, Op.RST: 2, Op.SHUTDOWN: 2, Op.REQUEST: 1, Op.RESPONSE: 1}.get(op, 3)
    struct.pack_into("<H", headers, VSOCKMON.offset("op"), outer)
    frame = bytes(headers) + bytes(size)
    seen = Seen(like.time_ns + after_ns, frame, len(frame), like.truth)
    return changed(seen, op=int(op), **{"len": size, "flags": 0} | values)


def _of(packets: Packets, op: Op, least: int = 0) -> list[int]:
    """Where packets of an op stand that carry at least so many bytes."""
    return [
        place
        for place, seen in enumerate(packets)
        if field(seen, "op") == op and field(seen, "len") >= least
    ]


def _with(packets: Packets, more: Packets) -> Packets:
    return sorted([*packets, *more], key=lambda seen: seen.time_ns)


def _fwd_back(rng: random.Random, packets: Packets) -> Packets:
    told = [at for at in _of(packets, Op.CREDIT_UPDATE) if field(packets[at], "fwd_cnt") > 8]
    if not told:
        return []
    at = rng.choice(told)
    after = changed(packets[at], fwd_cnt=field(packets[at], "fwd_cnt") - 7)
    return [*packets[: at + 1], after._replace(time_ns=after.time_ns + 1), *packets[at + 1 :]]


def _after_shutdown(_rng: random.Random, packets: Packets) -> Packets:
    ends = [at for at in _of(packets, Op.SHUTDOWN) if field(packets[at], "flags") & Shutdown.SEND]
    if not ends:
        return []
    last = packets[ends[0]]
    flags = Seqpacket.EOM if field(last, "type") == SocketType.SEQPACKET else 0
    return _with(packets, [made(last, 1, Op.RW, 5, flags=int(flags))])


def _unanswered(_rng: random.Random, packets: Packets) -> Packets:
    asked = _of(packets, Op.REQUEST)
    if not asked:
        return []
    first = packets[asked[0]]
    lost = made(first, 10**9, Op.REQUEST, src_port=7, dst_port=9)
    later = made(first, 4 * 10**9, Op.REQUEST, src_port=8, dst_port=9)
    return _with(packets, [_renamed(lost, 7), _renamed(later, 8)])


def _renamed(seen: Seen, port: int) -> Seen:
    """The monitor header's ports beside the virtio header's, so that they agree."""
    frame = bytearray(seen.frame)
    struct.pack_into("<II", frame, VSOCKMON.offset("src_port"), port, 9)
    return seen._replace(frame=bytes(frame))


def _storm(_rng: random.Random, packets: Packets) -> Packets:
    asked = _of(packets, Op.RESPONSE)
    if not asked:
        return []
    last = packets[-1]
    storm = [made(last, number + 1, Op.RST, buf_alloc=0, fwd_cnt=0) for number in range(400)]
    return [*packets, *storm]


def _overrun(_rng: random.Random, packets: Packets) -> Packets:
    """A sender that goes on without credit; the receiver's next packet shows that it had none."""
    for at in _of(packets, Op.RESPONSE):
        teller = packets[at]
        room = field(teller, "buf_alloc")
        asker = next(
            (seen for seen in packets if field(seen, "src_port") == field(teller, "dst_port")), None
        )
        if asker is None or field(teller, "type") != SocketType.STREAM:
            continue
        data = [made(asker, 0, Op.RW, 65_000) for _ in range(room // 65_000 + 2)]
        begun = teller.time_ns
        data = [one._replace(time_ns=begun + 1 + place) for place, one in enumerate(data)]
        news = made(teller, len(data) + 10, Op.CREDIT_UPDATE, fwd_cnt=0)
        return [*packets[: at + 1], *data, news]
    return []


# The finding by which each fault has to be found.
FAULTS: Final[dict[str, Callable[[random.Random, Packets], Packets]]] = {
    "vsock.credit.fwd_back": _fwd_back,
    "vsock.close.after_shutdown": _after_shutdown,
    "vsock.connect.unanswered": _unanswered,
    "vsock.connection.rst_storm": _storm,
    "vsock.credit.overrun": _overrun,
}
KILLED: Final = "vsock.close.unanswered"


def broken(name: str, seed: int) -> Packets:
    """A healthy run with that fault; empty where it has no place for it."""
    if name == KILLED:
        return killed(seed)
    return FAULTS[name](random.Random(seed), healthy(seed).traffic.seen)


def thinned(seed: int) -> Packets:
    """A healthy run of which the capture missed some packets."""
    rng = random.Random(seed)
    share = rng.choice((0.02, 0.1, 0.3))
    return [seen for seen in healthy(seed).traffic.seen if rng.random() >= share]
