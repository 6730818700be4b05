"""AF_VSOCK connections with two live ends: the ground truth for the tracker.

Both ends of every connection keep the counters that Linux keeps and decide by them alone;
packets spend time under way, so that the ends, and the tap, know different things at one
moment.  The tap writes down what it sees (`Seen`) and, beside it, what is true of that
packet (`Truth`).  It sits at one end: that end's packets pass it when they leave, the
other's when they arrive.

    sim = Simulator(repeat="A")
    conn = sim.connect(Setup(tap=1, rx_sizes=(3732, None)))
    sim.run(ms(1))
    conn.write(1, 10_000)
    traffic = sim.finish()

What the ends do is what virtio_transport_common.c of Linux does; a user-space VMM is
played by `ask_credit`.  Not modelled: the 576 bytes of overhead per small packet,
SO_RCVLOWAT other than 1, lost packets.

Rules for editors: nothing of vsockdump.track may be imported here, the two must be able to
disagree.  What an end does may depend on its own `Peer` only, what Truth says on the frames
that passed the tap only (tx_cnt excepted: it is true even where the tap cannot know it).
"""

import random
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count, islice
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, get_args

from scenario import DEFAULT_BUF, build_frame, pattern

from vsockdump.address import Endpoint
from vsockdump.capture.pcap import MAGIC_MICRO, MAGIC_NANO
from vsockdump.wire import (
    CID_HOST,
    CID_LOCAL,
    HEADERS_SIZE,
    LINKTYPE_VSOCK,
    MAX_PAYLOAD,
    Op,
    Seqpacket,
    Shutdown,
    SocketType,
)

MASK: Final = 0xFFFFFFFF
ASKS_AFTER_NS: Final = 50_000_000
EPOCH: Final = 1_700_000_000 * 10**9
CLOSE_TIMEOUT_NS: Final = 8 * 10**9  # VSOCK_CLOSE_TIMEOUT
COALESCED: Final = 128  # GOOD_COPY_LEN: packets up to this are added to the queue's last one
LOW_CREDIT: Final = MAX_PAYLOAD  # below so much free room a read tells the sender
LINUX_RX_SIZE: Final = 3732  # payload that fits a receive buffer of a Linux guest
_BOTH: Final = int(Shutdown.RCV | Shutdown.SEND)

Repeat = Literal["exact", "A", "B"]


def ms(number: float) -> int:
    """Milliseconds in nanoseconds."""
    return round(number * 10**6)


# --- what comes out --------------------------------------------------------------------


class Truth(NamedTuple):
    """What holds at one packet, this packet included.

    The credit fields are what can be worked out from the packets that passed the tap; None
    where it has not seen what is needed, and at an RST that no socket is behind.
    """

    conn: int  # index into Traffic.connections
    side: int  # 0: sent by the initiator, 1: by the acceptor
    data: bytes  # the packet's own stream bytes, as far as captured
    length: int  # how many it has
    tx_cnt: int  # of the sender, mod 2^32
    in_flight: int | None  # tx_cnt less the receiver's last fwd_cnt
    receiver_buf: int | None
    sender_buf: int | None
    free: int | None  # the sender's free credit
    granted: int | None  # the receiver's free credit
    credit_at: int | None  # index of the packet that told the receiver's fwd_cnt and buffer
    state: str


class Seen(NamedTuple):
    """A packet as the tap gives it, cut to the snaplen, and the truth about it."""

    time_ns: int
    frame: bytes
    wirelen: int
    truth: Truth


class Stall(NamedTuple):
    """From an RW that leaves the tap-visible free credit at 0 to the next packet of its
    receiver after which there is some; `end_ns` is None if there was none."""

    side: int  # of the sender that waits
    start_ns: int
    end_ns: int | None


class Outcome(NamedTuple):
    """What became of one connection, as seen from the tap."""

    initiator: Endpoint
    acceptor: Endpoint
    socket_type: int
    joined: bool  # the capture began after the connection
    sent: tuple[int, int]  # stream bytes by the initiator, by the acceptor
    read: tuple[int, int]  # of those sent by the initiator, by the acceptor
    closer: int | None  # side that first ended both directions, by SHUTDOWN or RST
    state: str
    stalls: tuple[Stall, ...]


class Traffic(NamedTuple):
    """A capture and its truth; connections are in the order of their first packets."""

    seen: list[Seen]
    connections: list[Outcome]


# --- one end ---------------------------------------------------------------------------


class Socket(Enum):
    """Where the socket of one end stands."""

    IDLE = auto()
    CONNECTING = auto()
    OPEN = auto()
    DONE = auto()  # reset by the peer, the program has not closed it yet
    LINGERING = auto()  # closed by the program, waits for the peer's RST
    GONE = auto()


_HELD: Final = frozenset({Socket.OPEN, Socket.DONE})  # by a program that can still read
_REACHABLE: Final = frozenset({Socket.CONNECTING, Socket.OPEN, Socket.LINGERING})


@dataclass(slots=True)
class _Queued:
    """A received packet, or small ones put together, that is not wholly read."""

    length: int
    left: int
    end_of_message: bool


@dataclass(slots=True)
class _Write:
    """What a blocked send has still to send."""

    left: int
    flags: int  # of the last packet


@dataclass(slots=True)
class Peer:
    """One end: its counters as struct virtio_vsock_sock has them, queue and socket."""

    buf_alloc: int
    capped: bool = False
    updates: str = "linux"
    asks: bool = False
    blocked_at: int | None = None  # since when data wait for credit
    blocked: list[tuple[int, int]] = field(default_factory=list)  # when they did
    tx_cnt: int = 0
    fwd_cnt: int = 0
    last_fwd_cnt: int = 0  # the last that was told to the peer
    peer_buf_alloc: int = 0
    peer_fwd_cnt: int = 0
    socket: Socket = Socket.IDLE
    findable: bool = True  # still in the kernel's table of sockets
    shut: int = 0
    peer_shut: int = 0
    sent: int = 0  # stream bytes, never wrapped
    received: int = 0
    read: int = 0
    queued: int = 0  # bytes received and not read
    queue: deque[_Queued] = field(default_factory=deque)
    writes: deque[_Write] = field(default_factory=deque)

    @property
    def reachable(self) -> bool:
        """Whether a packet finds this socket."""
        return self.findable and self.socket in _REACHABLE

    @property
    def window(self) -> int:
        """Most bytes that may be under way: the peer's buffer, and with a cap the own one."""
        return min(self.peer_buf_alloc, self.buf_alloc) if self.capped else self.peer_buf_alloc

    def credit(self) -> int:
        """Bytes that may be sent now."""
        return max(0, self.window - ((self.tx_cnt - self.peer_fwd_cnt) & MASK))

    def enqueue(self, at: int, length: int, end: bool, room: int | None) -> None:
        """Take in a packet; `room` is what fits into one receive buffer."""
        assert at == self.received, "the link lost or reordered bytes"
        self.received += length
        self.queued += length
        last = self.queue[-1] if self.queue else None
        if last and self._fits(last, length, room):
            last.length += length
            last.left += length
            last.end_of_message = end
        else:
            self.queue.append(_Queued(length, length, end))

    @staticmethod
    def _fits(last: _Queued, length: int, room: int | None) -> bool:
        """Whether a packet is small enough to be copied behind the queue's last one."""
        if room is None or length > COALESCED or last.end_of_message:
            return False
        return last.length + length <= room

    def take(self, amount: int) -> int:
        """Read up to `amount` bytes; fwd_cnt moves by whole packets only."""
        left = amount = min(amount, self.queued)
        while left:
            head = self.queue[0]
            part = min(left, head.left)
            head.left -= part
            left -= part
            if not head.left:
                self._drop_first()
        self.queued -= amount
        self.read += amount
        return amount

    def take_message(self) -> int:
        """Read one SEQPACKET message, if its end has come."""
        if not any(piece.end_of_message for piece in self.queue):
            return 0
        size = 0
        ended = False
        while not ended:
            size += self.queue[0].length
            ended = self.queue[0].end_of_message
            self._drop_first()
        self.queued -= size
        self.read += size
        return size

    def _drop_first(self) -> None:
        self.fwd_cnt = (self.fwd_cnt + self.queue.popleft().length) & MASK

    def update_due(self) -> bool:
        """Whether a STREAM read has to tell the peer of the room it made."""
        untold = (self.fwd_cnt - self.last_fwd_cnt) & MASK
        if self.updates == "every":
            return untold > 0
        if self.updates == "late":
            # Of the smaller buffer: a sender that its own limits would wait for ever.
            return 4 * untold >= 3 * min(self.buf_alloc, self.peer_buf_alloc)
        if self.updates == "never":
            return False
        return untold > 0 and (self.buf_alloc - untold < LOW_CREDIT or not self.queued)


# --- packets under way -----------------------------------------------------------------


class _Packet(NamedTuple):
    """A packet with everything that was decided when it was queued for sending."""

    side: int
    op: int
    src: Endpoint
    dst: Endpoint
    at: int = 0  # of its bytes in the sender's stream
    length: int = 0
    flags: int = 0
    buf_alloc: int = 0
    fwd_cnt: int = 0
    tx_cnt: int = 0
    whole_at: int = 0  # the packet that this one is a fragment of
    whole_length: int = 0
    nobody: bool = False  # sent by the kernel for an address without a socket


def _fragments(packet: _Packet, room: int | None) -> list[_Packet]:
    """What the peer's receive buffers of `room` bytes make of a packet."""
    if room is None or packet.length <= room:
        return [packet]
    fragments = []
    for at in range(0, packet.length, room):
        end = min(at + room, packet.length)
        fragments.append(
            packet._replace(
                at=packet.at + at,
                length=end - at,
                flags=packet.flags if end == packet.length else 0,
                tx_cnt=(packet.tx_cnt - packet.length + end) & MASK,
            )
        )
    return fragments


# --- what the tap knows ----------------------------------------------------------------

# The state by what has ended: initiator to acceptor, acceptor to initiator.
_STATE_BY_ENDED: Final = {
    (False, False): "open",
    (True, False): "half-closed-initiator",
    (False, True): "half-closed-acceptor",
    (True, True): "closing",
}
_OPEN_STATES: Final = frozenset({"open", "half-closed-initiator", "half-closed-acceptor"})


@dataclass(slots=True)
class _Told:
    """What one side has told the tap."""

    tx_cnt: int = 0
    fwd_cnt: int = 0
    buf_alloc: int = 0
    at: int | None = None  # packet that told fwd_cnt and buf_alloc; None: they are unknown


@dataclass(slots=True)
class View:
    """One connection as a perfect observer at the tap has it."""

    told: tuple[_Told, _Told]
    state: str = "connecting"
    index: int = -1  # unknown before its first packet
    closer: int | None = None
    shut: list[int] = field(default_factory=lambda: [0, 0])
    sent: list[int] = field(default_factory=lambda: [0, 0])
    waiting: list[int | None] = field(default_factory=lambda: [None, None])
    stalls: list[Stall] = field(default_factory=list)

    def credit(self, side: int) -> tuple[int | None, int | None]:
        """What `side` has in flight and may still send."""
        own, other = self.told[side], self.told[1 - side]
        if own.at is None or other.at is None:
            return None, None
        in_flight = (own.tx_cnt - other.fwd_cnt) & MASK
        return in_flight, max(0, other.buf_alloc - in_flight)

    def note(self, packet: _Packet, number: int) -> None:
        """Learn from packet `number` of the capture."""
        side = packet.side
        told = self.told[side]
        if not packet.nobody:
            told.tx_cnt = packet.tx_cnt
            told.fwd_cnt = packet.fwd_cnt
            told.buf_alloc = packet.buf_alloc
            told.at = number
        self.sent[side] += packet.length
        if packet.op == Op.RESPONSE and self.state == "connecting":
            self.state = "open"
        elif packet.op == Op.SHUTDOWN:
            self._note_shutdown(side, packet.flags)
        elif packet.op == Op.RST:
            self._note_reset(side)

    def _note_shutdown(self, side: int, flags: int) -> None:
        """A direction has ended if its sender will not send or its reader not receive."""
        self.shut[side] |= flags
        if self.closer is None and self.shut[side] == _BOTH:
            self.closer = side
        ended = [
            bool(self.shut[end] & Shutdown.SEND or self.shut[1 - end] & Shutdown.RCV)
            for end in (0, 1)
        ]
        if self.state in _OPEN_STATES:
            self.state = _STATE_BY_ENDED[ended[0], ended[1]]

    def _note_reset(self, side: int) -> None:
        """An RST ends what has not ended."""
        if self.state == "connecting":
            self.state = "refused" if side == 1 else "reset"
        elif self.state == "closing":
            # Only the close timeout makes an end reset what it alone has closed.
            alone = self.shut[side] == _BOTH and self.shut[1 - side] != _BOTH
            self.state = "timed-out" if alone else "closed"
        elif self.state in _OPEN_STATES:
            self.state = "reset"
        else:
            return
        if self.closer is None and self.state != "refused":
            self.closer = side

    def note_stalls(self, packet: _Packet, now: int, free: int | None, granted: int | None) -> None:
        """Begin the sender's stall, end the receiver's."""
        side = packet.side
        if packet.length and free == 0 and self.waiting[side] is None and not self._over(side):
            self.waiting[side] = now
        for waiting in (0, 1):
            start = self.waiting[waiting]
            told = granted if waiting != side else None
            if start is not None and (told or self._over(waiting)):
                self.stalls.append(Stall(waiting, start, now))
                self.waiting[waiting] = None

    def _over(self, side: int) -> bool:
        """Whether an end has said that nothing more goes from this side to the other."""
        return bool(self.shut[side] & Shutdown.SEND or self.shut[1 - side] & Shutdown.RCV)

    def all_stalls(self) -> tuple[Stall, ...]:
        """The stalls by their start, those that never ended included."""
        open_ended = [
            Stall(side, start, None) for side, start in enumerate(self.waiting) if start is not None
        ]
        return tuple(sorted(self.stalls + open_ended, key=lambda stall: stall.start_ns))


# --- connections -----------------------------------------------------------------------


# When a reader tells of the room it made: as Linux does, at every read, when three quarters of
# its buffer are used up, or only with data of its own and when it is asked.
Updates = Literal["linux", "every", "late", "never"]


class Setup(NamedTuple):
    """One connection; pairs are (initiator, acceptor).

    `start` makes a connection that was open before the capture: the bytes that each side
    has sent by then, all of them read.
    """

    initiator: Endpoint = Endpoint(3, 1024)
    acceptor: Endpoint = Endpoint(CID_HOST, 5000)
    socket_type: int = SocketType.STREAM
    buffers: tuple[int, int] = (DEFAULT_BUF, DEFAULT_BUF)
    latency: tuple[int, int] = (50_000, 50_000)  # of what the initiator, the acceptor sends
    spacing: int = 1_000  # least time between two packets of one side
    tap: int = 1  # side whose machine is captured
    rx_sizes: tuple[int | None, int | None] = (None, None)  # one receive buffer of each side
    max_packet: int = MAX_PAYLOAD
    start: tuple[int, int] | None = None
    answer: Literal["accept", "refuse", "ignore"] = "accept"
    capped: tuple[bool, bool] = (False, False)  # limited by its own buffer too: newer Linux
    updates: tuple[Updates, Updates] = ("linux", "linux")
    asks: tuple[bool, bool] = (False, False)  # sends CREDIT_REQUEST when it has no credit


Kind = Literal["write", "record", "read", "buffer", "ask", "shutdown", "close", "abort", "wait"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Action(NamedTuple):
    """One step of a script.

    `amount`: bytes of a write, record (a write with MSG_EOR) or read, the new size of a
    buffer, the flags of a shutdown, the nanoseconds of a wait.
    """

    kind: Kind
    side: int = 0
    amount: int = 0


class Connection:
    """Two ends, and what a program at either can do.

    Every such method acts at the simulator's present moment and says whether it did
    anything: what the kernel would refuse is not done, so that any script can be played.
    """

    def __init__(self, sim: "Simulator", setup: Setup) -> None:
        self.sim = sim
        self.setup = setup
        self.peers = tuple(map(Peer, setup.buffers, setup.capped, setup.updates, setup.asks))
        self.view = View((_Told(), _Told()))
        self.under_way = 0
        self.dead: set[int] = set()  # sides whose machine is gone: nothing comes from them
        self._free_at = [0, 0]  # when the link can take the next packet of each side
        self._begun = (0, 0)
        self.routes = _routes(setup)
        if setup.start is None:
            self.peers[0].socket = Socket.CONNECTING
            self._send(0, Op.REQUEST)
        else:
            self._join(setup.start)

    def _join(self, start: tuple[int, int]) -> None:
        """Be open, with `start` bytes sent and read each way."""
        self.view.state = "open"
        for side, peer in enumerate(self.peers):
            peer.socket = Socket.OPEN
            peer.tx_cnt = peer.peer_fwd_cnt = self.view.told[side].tx_cnt = start[side] & MASK
            peer.fwd_cnt = peer.last_fwd_cnt = start[1 - side] & MASK
            peer.peer_buf_alloc = self.peers[1 - side].buf_alloc

    @property
    def done(self) -> bool:
        """Whether no packet of this connection can come any more."""
        over = all(peer.socket in (Socket.GONE, Socket.IDLE) for peer in self.peers)
        return over and not self.under_way

    # --- what programs do ---

    def act(self, action: Action) -> bool:
        """Play one action."""
        kind, side, amount = action
        if kind == "wait":
            self.sim.run(amount)
            return True
        if kind in ("write", "record"):
            return self.write(side, amount, record=kind == "record")
        if kind == "read":
            return self.read(side, amount) > 0
        if kind == "buffer":
            return self.set_buffer(side, amount)
        if kind == "shutdown":
            return self.shutdown(side, amount)
        return {"ask": self.ask_credit, "close": self.close, "abort": self.abort}[kind](side)

    def write(self, side: int, size: int, record: bool = False) -> bool:
        """Send bytes, the rest of them when there is credit; SEQPACKET: one message.

        `record` is MSG_EOR.  A message above the window is refused (EMSGSIZE).
        """
        peer = self.peers[side]
        seqpacket = self.setup.socket_type == SocketType.SEQPACKET
        ended = peer.shut & Shutdown.SEND or peer.peer_shut & Shutdown.RCV
        if peer.socket is not Socket.OPEN or ended or size <= 0:
            return False
        if seqpacket and size > peer.window:
            return False
        flags = int(Seqpacket.EOM) | (int(Seqpacket.EOR) if record else 0)
        peer.writes.append(_Write(size, flags if seqpacket else 0))
        self._pump(side)
        return True

    def read(self, side: int, size: int = 1 << 40) -> int:
        """Read up to `size` bytes, or one SEQPACKET message; returns their number."""
        peer = self.peers[side]
        if peer.socket not in _HELD or peer.shut & Shutdown.RCV:
            return 0
        if self.setup.socket_type == SocketType.SEQPACKET:
            taken = peer.take_message()
            if taken:
                self._send(side, Op.CREDIT_UPDATE)
            return taken
        taken = peer.take(size)
        if peer.update_due():
            self._send(side, Op.CREDIT_UPDATE)
        return taken

    def read_all(self, side: int) -> int:
        """Read until nothing more can be."""
        total = 0
        while taken := self.read(side):
            total += taken
        return total

    def set_buffer(self, side: int, size: int) -> bool:
        """Change SO_VM_SOCKETS_BUFFER_SIZE.  A blocked sender is not woken by it."""
        peer = self.peers[side]
        if peer.socket is not Socket.OPEN:
            return False
        peer.buf_alloc = size
        self._send(side, Op.CREDIT_UPDATE)
        return True

    def ask_credit(self, side: int) -> bool:
        """CREDIT_REQUEST, as VMMs send it."""
        if self.peers[side].socket is not Socket.OPEN:
            return False
        self._send(side, Op.CREDIT_REQUEST)
        return True

    def shutdown(self, side: int, how: int) -> bool:
        """shutdown(): 1 receives no more, 2 sends no more, 3 both."""
        peer = self.peers[side]
        how &= _BOTH
        if peer.socket is not Socket.OPEN or not how & ~peer.shut:
            return False
        self._shut(side, how)
        return True

    def close(self, side: int) -> bool:
        """close(): what is not sent yet is dropped."""
        peer = self.peers[side]
        if peer.socket is Socket.CONNECTING:
            peer.socket = Socket.GONE
            return True
        if peer.socket not in _HELD:
            return False
        if peer.peer_shut == _BOTH:
            peer.socket = Socket.GONE
            self._send(side, Op.RST)
            return True
        peer.socket = Socket.LINGERING
        peer.writes.clear()
        if peer.shut != _BOTH:
            self._shut(side, _BOTH)
        self.sim.at(self.sim.now + CLOSE_TIMEOUT_NS, lambda: self._give_up(side))
        return True

    def abort(self, side: int) -> bool:
        """RST out of the blue, as for a peer that broke the rules."""
        peer = self.peers[side]
        if peer.socket is not Socket.OPEN or _BOTH in (peer.shut, peer.peer_shut):
            return False
        peer.socket = Socket.GONE
        self._send(side, Op.RST)
        return True

    def kill(self, side: int) -> None:
        """The machine of a side is gone, and no packet says so."""
        self.dead.add(side)
        self.peers[side].socket = Socket.GONE
        self.peers[side].writes.clear()

    def forget(self) -> None:
        """Both ends have forgotten the connection, as after a restore; no packet says so."""
        for side in (0, 1):
            self.kill(side)

    # --- what kernels do ---

    def _shut(self, side: int, how: int) -> None:
        peer = self.peers[side]
        peer.shut |= how
        if how & Shutdown.SEND:
            peer.writes.clear()
        self._send(side, Op.SHUTDOWN, flags=how)

    def _give_up(self, side: int) -> None:
        """The close timeout: nobody answered the SHUTDOWN."""
        if self.peers[side].socket is Socket.LINGERING:
            self.peers[side].socket = Socket.GONE
            self._send(side, Op.RST)

    def _pump(self, side: int) -> None:
        """Send as much of the waiting writes as credit allows."""
        peer = self.peers[side]
        while peer.writes and (credit := peer.credit()):
            write = peer.writes[0]
            size = min(write.left, credit, self.setup.max_packet)
            write.left -= size
            if not write.left:
                peer.writes.popleft()
            peer.tx_cnt = (peer.tx_cnt + size) & MASK
            self._send(side, Op.RW, size, 0 if write.left else write.flags)
        if peer.writes and peer.blocked_at is None:
            peer.blocked_at = self.sim.now
            if peer.asks and peer.socket is Socket.OPEN:
                self.sim.at(self.sim.now + ASKS_AFTER_NS, lambda: self._ask_again(side))
        elif not peer.writes and peer.blocked_at is not None:
            peer.blocked.append((peer.blocked_at, self.sim.now))
            peer.blocked_at = None

    def _ask_again(self, side: int) -> None:
        """CREDIT_REQUEST by a sender that still has no credit."""
        peer = self.peers[side]
        if peer.writes and not peer.credit() and peer.socket is Socket.OPEN:
            self._send(side, Op.CREDIT_REQUEST)
            self.sim.at(self.sim.now + ASKS_AFTER_NS, lambda: self._ask_again(side))

    def _send(self, side: int, op: int, size: int = 0, flags: int = 0) -> None:
        """Queue a packet with the counters of this moment."""
        peer = self.peers[side]
        at = peer.sent
        peer.sent += size
        peer.last_fwd_cnt = peer.fwd_cnt
        counters = (peer.buf_alloc, peer.fwd_cnt, peer.tx_cnt)
        self._queue(_Packet(side, op, *self.routes[side], at, size, flags, *counters, at, size))

    def _queue(self, packet: _Packet) -> None:
        """Put a packet on the link behind those of its side, in fragments if need be."""
        side = packet.side
        for piece in _fragments(packet, self.setup.rx_sizes[1 - side]):
            leave = max(self.sim.now, self._free_at[side]) + self.setup.spacing
            self._free_at[side] = leave
            self.under_way += 1
            if side == self.setup.tap:
                self.sim.tap_at(leave, self, piece)
            self.sim.arrive_at(leave + self.setup.latency[side], self, piece)

    def arrive(self, packet: _Packet) -> None:
        """A packet has reached its end; called by the simulator."""
        self.under_way -= 1
        side = 1 - packet.side
        if side in self.dead:
            return
        if packet.op == Op.REQUEST:
            self._requested(packet)
        elif self.peers[side].reachable:
            self._receive(side, packet)
        elif packet.op != Op.RST:
            self._answer_for_nobody(packet)

    def _requested(self, packet: _Packet) -> None:
        """REQUEST at the listener, or where there is none."""
        if self.setup.answer == "accept":
            acceptor = self.peers[1]
            acceptor.peer_buf_alloc = packet.buf_alloc
            acceptor.peer_fwd_cnt = packet.fwd_cnt
            acceptor.socket = Socket.OPEN
            self._send(1, Op.RESPONSE)
        elif self.setup.answer == "refuse":
            self._answer_for_nobody(packet)

    def _answer_for_nobody(self, packet: _Packet) -> None:
        """RST without credit, its ends those of the packet exchanged."""
        self._queue(_Packet(1 - packet.side, Op.RST, packet.dst, packet.src, nobody=True))

    def _receive(self, side: int, packet: _Packet) -> None:
        """A packet for a socket that lives."""
        peer = self.peers[side]
        peer.peer_buf_alloc = packet.buf_alloc
        peer.peer_fwd_cnt = packet.fwd_cnt
        if packet.op == Op.RW:
            end = bool(packet.flags & Seqpacket.EOM)
            peer.enqueue(packet.at, packet.length, end, self.setup.rx_sizes[side])
        elif packet.op == Op.RESPONSE:
            peer.socket = Socket.OPEN
        elif packet.op == Op.CREDIT_REQUEST:
            self._send(side, Op.CREDIT_UPDATE)
        elif packet.op == Op.SHUTDOWN:
            self._peer_shut(side, packet.flags)
        elif packet.op == Op.RST:
            self._ended(side)
        if peer.socket is Socket.OPEN:
            self._pump(side)

    def _peer_shut(self, side: int, flags: int) -> None:
        """The peer's SHUTDOWN: answered by RST once it is whole and nothing is unread."""
        peer = self.peers[side]
        peer.peer_shut |= flags
        if peer.peer_shut & Shutdown.RCV:
            peer.writes.clear()
        if peer.peer_shut == _BOTH:
            peer.findable = False
            if not peer.queued:
                self._send(side, Op.RST)
                self._ended(side)

    def _ended(self, side: int) -> None:
        """The connection is over; the socket lives until its program closes it."""
        peer = self.peers[side]
        peer.socket = Socket.DONE if peer.socket is Socket.OPEN else Socket.GONE
        peer.peer_shut = _BOTH
        peer.writes.clear()

    def outcome(self) -> Outcome:
        """What became of it so far."""
        view = self.view
        return Outcome(
            self.setup.initiator,
            self.setup.acceptor,
            self.setup.socket_type,
            self.setup.start is not None,
            (view.sent[0], view.sent[1]),
            (self.peers[1].read, self.peers[0].read),
            view.closer,
            view.state,
            view.all_stalls(),
        )


def _routes(setup: Setup) -> tuple[tuple[Endpoint, Endpoint], tuple[Endpoint, Endpoint]]:
    """Source and destination that each side writes into its packets.

    A loopback connection made to CID 2 is answered from CID 1.
    """
    initiator, acceptor = setup.initiator, setup.acceptor
    answers_as = acceptor
    if (initiator.cid, acceptor.cid) == (CID_LOCAL, CID_HOST):
        answers_as = acceptor._replace(cid=CID_LOCAL)
    return (initiator, acceptor), (answers_as, initiator)


# --- the simulator ---------------------------------------------------------------------


def stream_bytes(conn: int, side: int, start: int, size: int) -> bytes:
    """What connection `conn` carries from `side`, from byte `start` of the capture on."""
    return pattern(start + conn * 7919 + side * 32749, size)


class Simulator:
    """Clock, tap, and the connections.

    `repeat` is what the tap makes of fragments sent by the tapped side: "exact", or the
    kernel's tap repeat in its variants "A" and "B".
    """

    def __init__(
        self, repeat: Repeat = "exact", snaplen: int | None = None, start_ns: int = EPOCH
    ) -> None:
        self.now = start_ns
        self.repeat = repeat
        self.snaplen = snaplen
        self.seen: list[Seen] = []
        self.connections: list[Connection] = []  # those seen, by their first packet
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()

    def connect(self, setup: Setup | None = None) -> Connection:
        """Begin a connection, or join it if it has a start; its tuple must be free."""
        return Connection(self, setup or Setup())

    def at(self, time_ns: int, event: Callable[[], None]) -> None:
        """Have something happen; events of one moment happen in the order of their calls."""
        heappush(self._events, (time_ns, next(self._order), event))

    def tap_at(self, time_ns: int, conn: Connection, packet: _Packet) -> None:
        """Have the tap see a packet of its own side."""
        self.at(time_ns, lambda: self._see(conn, packet))

    def arrive_at(self, time_ns: int, conn: Connection, packet: _Packet) -> None:
        """Have a packet arrive, under the tap's eyes if it comes from the far side."""

        def event() -> None:
            if packet.side != conn.setup.tap:
                self._see(conn, packet)
            conn.arrive(packet)

        self.at(time_ns, event)

    def run(self, duration_ns: int = 0) -> None:
        """Let time pass."""
        end = self.now + duration_ns
        while self._events and self._events[0][0] <= end:
            self._step()
        self.now = end

    def finish(self) -> Traffic:
        """Let everything that is due happen, close timeouts included, and stop."""
        while self._events:
            self._step()
        return Traffic(self.seen, [conn.outcome() for conn in self.connections])

    def _step(self) -> None:
        self.now, _, event = heappop(self._events)
        event()

    def _see(self, conn: Connection, packet: _Packet) -> None:
        """The tap: write down the frame, and the truth."""
        view = conn.view
        if view.index < 0:
            view.index = len(self.connections)
            self.connections.append(conn)
        view.note(packet, len(self.seen))
        frame, wirelen, data = self._frame(conn, packet)
        side = packet.side
        own, other = view.told[side], view.told[1 - side]
        in_flight, free = (None, None) if packet.nobody else view.credit(side)
        granted = None if packet.nobody else view.credit(1 - side)[1]
        view.note_stalls(packet, self.now, free, granted)
        truth = Truth(
            view.index,
            side,
            data,
            packet.length,
            own.tx_cnt,
            in_flight,
            None if other.at is None else other.buf_alloc,
            None if own.at is None else own.buf_alloc,
            free,
            granted,
            other.at,
            view.state,
        )
        self.seen.append(Seen(self.now, frame, wirelen, truth))

    def _frame(self, conn: Connection, packet: _Packet) -> tuple[bytes, int, bytes]:
        """The captured frame, its length on the wire, the packet's own captured bytes."""
        at, end = self._shown(conn, packet)
        captured = end - at
        if self.snaplen is not None:
            captured = min(captured, max(0, self.snaplen - HEADERS_SIZE))
        payload = b""
        if captured:
            payload = stream_bytes(conn.view.index, packet.side, at, captured)
        fields = {
            "len": packet.length,
            "type": conn.setup.socket_type,
            "flags": packet.flags,
            "buf_alloc": packet.buf_alloc,
            "fwd_cnt": packet.fwd_cnt,
        }
        frame = build_frame(packet.src, packet.dst, packet.op, payload, virtio=fields)
        own = packet.at - at
        wirelen = HEADERS_SIZE + end - at
        return frame[: self.snaplen], wirelen, payload[own : own + packet.length]

    def _shown(self, conn: Connection, packet: _Packet) -> tuple[int, int]:
        """The part of the stream that the tap shows: more than the packet's own, maybe."""
        at, end = packet.at, packet.at + packet.length
        if packet.side == conn.setup.tap and packet.length != packet.whole_length:
            if self.repeat != "exact":
                end = packet.whole_at + packet.whole_length
            if self.repeat == "B":
                at = packet.whole_at
        return at, end


def play(
    setup: Setup,
    actions: Iterable[Action],
    repeat: Repeat = "exact",
    snaplen: int | None = None,
) -> Traffic:
    """The capture of one connection that lives through a script."""
    sim = Simulator(repeat, snaplen)
    conn = sim.connect(setup)
    for action in actions:
        conn.act(action)
    return sim.finish()


# --- files -----------------------------------------------------------------------------


class Captured(Protocol):
    """What a capture file needs of a packet; Seen and scenario.Packet have it."""

    @property
    def time_ns(self) -> int: ...
    @property
    def frame(self) -> bytes: ...
    @property
    def wirelen(self) -> int: ...


def pcap_bytes(
    seen: Sequence[Captured], nanos: bool = True, start: int = 0, snaplen: int | None = None
) -> bytes:
    """A little-endian pcap file of link type VSOCK, without its first `start` packets."""
    limit = snaplen or 262144
    magic = MAGIC_NANO if nanos else MAGIC_MICRO
    parts = [struct.pack("<IHHiIII", magic, 2, 4, 0, 0, limit, LINKTYPE_VSOCK)]
    for packet in islice(seen, start, None):
        seconds, rest = divmod(packet.time_ns, 10**9)
        frame = packet.frame[:limit]
        fraction = rest if nanos else rest // 1000
        parts.append(struct.pack("<IIII", seconds, fraction, len(frame), packet.wirelen))
        parts.append(frame)
    return b"".join(parts)


def write_pcap(
    path: str | Path,
    seen: Sequence[Captured],
    nanos: bool = True,
    start: int = 0,
    snaplen: int | None = None,
) -> None:
    """Write `pcap_bytes` to a file."""
    Path(path).write_bytes(pcap_bytes(seen, nanos, start, snaplen))


# --- random traffic --------------------------------------------------------------------

_BUFFERS: Final = (128, 2000, 8192, 65536, DEFAULT_BUF, DEFAULT_BUF, DEFAULT_BUF, 1 << 20)
_WRITE_SIZES: Final = (200, 200, 200, 5000, 5000, 70_000, 300_000)  # upper bounds
_READ_SIZES: Final = (1, 100, 5000, 1 << 20, 1 << 20)
_GAPS_NS: Final = (0, 3_000, 40_000, 200_000, 5_000_000, 300_000_000)  # upper bounds
_STARTS: Final = (0, 1_000_000, 2**31 - 5000, 2**32 - 100_000, 2**32 - 1000)  # lower bounds
_WEIGHTS: Final[dict[Kind, int]] = {
    "write": 36,
    "record": 6,
    "read": 40,
    "buffer": 3,
    "ask": 3,
    "shutdown": 2,
    "close": 4,
    "abort": 1,
}


class _Generator:
    """Interleaves random connections in one simulator."""

    def __init__(self, rng: random.Random, sim: Simulator, vantage: str, joined: bool) -> None:
        self.rng = rng
        self.sim = sim
        self.vantage = vantage
        self.joined = joined
        self.live: list[Connection] = []
        self.free: list[tuple[Endpoint, Endpoint]] = []  # addresses that were used before
        self.port = rng.randrange(1 << 20, 1 << 31)  # Linux counts up from a random one

    def open(self) -> None:
        """One more connection, on fresh addresses or on those of one that is over."""
        rng = self.rng
        if self.free and rng.random() < 0.4:
            setup = self._setup(*self.free.pop(rng.randrange(len(self.free))))
        else:
            setup = self._setup(*self._fresh_ends())
            # What was open before the capture has never been seen closed in it.
            if self.joined and rng.random() < 0.4:
                setup = setup._replace(start=(self._start(), self._start()), answer="accept")
        self.live.append(self.sim.connect(setup))

    def _fresh_ends(self) -> tuple[Endpoint, Endpoint]:
        """Guest to host, host to guest, loopback, loopback through CID 2."""
        rng = self.rng
        self.port += 1
        guest = 3 if self.vantage == "guest" else rng.randint(3, 5)
        src, dst = rng.choice(
            ((guest, CID_HOST), (CID_HOST, guest), (CID_LOCAL, CID_LOCAL), (CID_LOCAL, CID_HOST))
        )
        return Endpoint(src, self.port), Endpoint(dst, rng.choice((1024, 5000, 5001)))

    def _setup(self, initiator: Endpoint, acceptor: Endpoint) -> Setup:
        rng = self.rng
        loopback = initiator.cid == CID_LOCAL
        guest = 0 if initiator.cid > CID_HOST else 1
        tap = guest if self.vantage == "guest" else 1 - guest
        rx_sizes: list[int | None] = [None, None]
        if not loopback:
            rx_sizes[guest] = rng.choice((LINUX_RX_SIZE, LINUX_RX_SIZE, 4052))
        top = 30_000 if loopback else 300_000
        return Setup(
            initiator,
            acceptor,
            rng.choice((SocketType.STREAM, SocketType.STREAM, SocketType.SEQPACKET)),
            (rng.choice(_BUFFERS), rng.choice(_BUFFERS)),
            (rng.randrange(top), rng.randrange(top)),
            rng.choice((1, 1000, 17_000)),
            tap,
            (rx_sizes[0], rx_sizes[1]),
            answer="refuse" if rng.random() < 0.1 else "accept",
        )

    def _start(self) -> int:
        return self.rng.choice(_STARTS) + self.rng.randrange(1000)

    def act(self) -> None:
        """One random action on one random connection, and some time."""
        rng = self.rng
        conn = rng.choice(self.live)
        side = rng.randrange(2)
        if conn.peers[side].peer_shut == _BOTH and rng.random() < 0.5:
            conn.close(side)
        else:
            kind = rng.choices(tuple(_WEIGHTS), tuple(_WEIGHTS.values()))[0]
            conn.act(Action(kind, side, self._amount(conn, side, kind)))
        self.pause()

    def pause(self) -> None:
        """Let some time pass, and sort out the connections that are over."""
        self.sim.run(self.rng.randint(0, self.rng.choice(_GAPS_NS)))
        over = [conn for conn in self.live if conn.done]
        self.live = [conn for conn in self.live if not conn.done]
        self.free += [(conn.setup.initiator, conn.setup.acceptor) for conn in over]

    def _amount(self, conn: Connection, side: int, kind: Kind) -> int:
        rng = self.rng
        if kind in ("write", "record"):
            # A small window cuts a large write into thousands of packets.
            times = 1 if conn.setup.socket_type == SocketType.SEQPACKET else 5
            limit = times * conn.peers[side].window
            return rng.randint(1, max(1, min(rng.choice(_WRITE_SIZES), limit)))
        if kind == "read":
            return rng.choice(_READ_SIZES)
        return rng.choice(_BUFFERS) if kind == "buffer" else rng.randint(1, _BOTH)

    def close_most(self) -> None:
        """Close both ends or one, mostly after reading all; some connections stay as they are."""
        for conn in list(self.live):
            if self.rng.random() < 0.25:
                continue
            for side in self.rng.sample((0, 1), self.rng.choice((1, 2, 2, 2))):
                if self.rng.random() < 0.8:
                    conn.read_all(side)
                conn.close(side)
                self.pause()


def random_traffic(
    seed: int | random.Random,
    connections: int = 8,
    actions: int = 200,
    *,
    repeat: Repeat = "exact",
    snaplen: int | None = None,
    vantage: Literal["host", "guest"] = "host",
    joined: bool = False,
) -> Traffic:
    """Interleaved connections of every kind, with tuples that are used again.

    `vantage` is the machine that is captured; with `joined` some connections were open
    before, their counters near 2^31, 2^32 and elsewhere.  The same seed gives the same.
    """
    rng = seed if isinstance(seed, random.Random) else random.Random(seed)
    generator = _Generator(rng, Simulator(repeat, snaplen), vantage, joined)
    to_open = connections
    for _ in range(actions):
        if to_open and (not generator.live or rng.random() < 1.3 * connections / actions):
            generator.open()
            to_open -= 1
        if generator.live:
            generator.act()
    generator.close_most()
    return generator.sim.finish()
