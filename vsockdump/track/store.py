"""Where the tracker keeps connections: two arrays that grow, and a cap.

One row of CONNECTION_DTYPE a connection, two of FLOW_DTYPE (flow 2*slot + side is what
that side sends).  Rows stay after a connection has ended, for the tables; only at the cap
are the ended ones that were silent for longest forgotten first, and counted.
"""

from collections import namedtuple
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import NO_TIME
from vsockdump.track.kinds import Kind, Limit
from vsockdump.track.states import LONG_STALL_NS, TERMINAL

DEFAULT_CAP: Final = 1_000_000
_FIRST_SIZE: Final = 1024
_AT_ONCE: Final = 1024  # rows made at a time
_FORGET_SHARE: Final = 8  # at the cap one in so many is forgotten at once

# What every packet touches stands first: 64 bytes of a connection, 88 of a flow.
CONNECTION_DTYPE: Final = np.dtype(
    [
        ("number", "u8"),  # from 1, in order of first packet
        ("key_low", "u8"),  # cids of the two ends, the lower (cid, port) first
        ("key_high", "u8"),
        ("key_ports", "u8"),  # low's port, high's port << 32
        ("key_place", "u8"),  # tap << 33 | ifindex << 1 | is DGRAM
        ("last_packet", "u8"),
        ("last_ns", "i8"),
        ("type", "u2"),
        ("state", "u1"),
        ("flip", "u1"),  # 1: the initiator is the high end of the key
        ("side_known", "u1"),  # 0: side 0 is the end that was seen first
        ("midstream", "u1"),
        ("closer", "u1"),  # side that closed first, 2 where none has
        ("ended", "u1"),  # bit 0: initiator to acceptor has ended, bit 1: the other way
        ("initiator_cid", "u8"),
        ("acceptor_cid", "u8"),
        ("first_packet", "u8"),
        ("first_ns", "i8"),
        ("ended_ns", "i8"),  # of the packet that ended it, or NO_TIME
        ("initiator_port", "u4"),
        ("acceptor_port", "u4"),
        ("marks", "u8"),  # of its packets: track.marks.Mark
        ("found_low", "u8"),  # bit n: track.kinds.Kind n was found
        ("found_high", "u8"),  # bit n: kind 64 + n
        ("answered_ns", "i8"),  # of the first RESPONSE or refusing RST, or NO_TIME
        ("tap", "u4"),
        ("doubt", "u1"),  # track.kinds.Doubt of what is found in it
        ("asker", "u1"),  # side that sent the last data, 2: nobody has
        ("previous", "u8"),  # number of the connection before on these addresses, or 0
        ("previous_state", "u1"),  # how that ended, or stood
    ],
    align=True,
)

FLOW_DTYPE: Final = np.dtype(
    [
        ("tx", "i8"),  # bytes sent, not wrapped; relative to an unknown base if not tx_known
        ("fwd", "i8"),  # fwd_cnt of this side, unwrapped
        ("limit", "i8"),  # the most this side ever allowed: max of fwd + buf
        ("packets", "u8"),
        ("bytes", "u8"),  # the stream's own
        ("frame_bytes", "u8"),
        ("stalled_since", "i8"),  # NO_TIME: not stalled
        ("buf", "u4"),
        ("min_free", "u4"),
        ("max_in_flight", "u4"),
        ("repeat_wire", "u4"),  # payload bytes of the last frame with a tap repeat, 0: none
        ("tx_known", "u1"),
        ("credit_seen", "u1"),  # fwd and buf of this side are known
        ("free_seen", "u1"),  # min_free and max_in_flight hold
        ("shut", "u1"),  # SHUTDOWN flags of this side
        ("base_set", "u1"),  # of the bounds below: 0 none, 1 the lower one, 2 both
        ("repeat_variant", "u1"),  # 0 unknown, 1 A, 2 B
        ("asked", "u1"),  # a CREDIT_REQUEST of this side waits for an answer
        ("quiet", "u1"),  # how often it said only with data that much was consumed
        ("queued", "u4"),  # packets in flight at most
        ("base", "i8"),  # while tx is unknown: the true tx is base + tx + something in
        ("base_low", "i8"),  # base_low ...
        ("base_high", "i8"),  # ... base_high
        ("stalled_ns", "i8"),
        ("longest_stall_ns", "i8"),
        ("first_update_ns", "i8"),
        ("last_update_ns", "i8"),
        ("closed_ns", "i8"),  # of the side's first SHUTDOWN of both directions, or NO_TIME
        ("stalls", "u4"),
        ("updates", "u4"),
        ("repeat_len", "u4"),
        ("repeat_sum", "u4"),
        ("stalled_flight", "u4"),  # bytes in flight when the stall began
        ("empty", "u4"),  # messages without bytes in a row
        ("backs", "u4"),  # how often fwd_cnt of this side went back
        ("most_buf", "u4"),  # the largest buf_alloc
        ("stalled_packet", "u8"),  # the one that began the stall
        ("rst_packet", "u8"),  # the RST by which this side ended it after some silence, or 0
        ("message", "i8"),  # bytes of the SEQPACKET message that is under way
        ("said_ns", "i8"),  # of this side's last packet, or NO_TIME
        ("data_ns", "i8"),  # of this side's last data, or NO_TIME
        ("longest_packet", "u8"),  # the one that began the longest stall
        ("longest_flight", "u4"),  # bytes that waited then
        ("untold", "u4"),  # stalls that were the reader's missing CREDIT_UPDATE
        ("rsts", "u4"),  # sent by this side
        ("min_own", "u4"),  # least free credit if the sender's own buffer limits it too
        ("extra", "u4"),  # row of the store's extras, 0: it has none
        ("peer", "u2"),  # row of the store's peers: the sender's context id
        ("rule", "u1"),  # track.kinds.Limit
        ("longest_cause", "u1"),  # track.kinds.Cause
        ("deaf_ns", "i8"),  # of the side's first SHUTDOWN(RCV), or NO_TIME
        ("asked_ns", "i8"),  # of the CREDIT_REQUEST that waits
    ],
    align=True,
)

# What few flows have, made when the first of it is seen.
EXTRA_DTYPE: Final = np.dtype(
    [
        # A sender that has as much in flight as its own buffer, where that is the smaller one.
        ("own_since", "i8"),  # NO_TIME: it has not
        ("own_until", "i8"),  # of the news that made room, NO_TIME: none yet
        ("own_packet", "u8"),  # the one that filled it
        ("own_end_packet", "u8"),  # the one with the news
        ("own_stalled_ns", "i8"),  # what was counted of it as stalls
        ("own_longest_ns", "i8"),
        ("own_longest_packet", "u8"),
        ("own_stalls", "u4"),
        ("own_flight", "u4"),
        ("own_talk", "u1"),  # 1: the other end has sent data meanwhile
        # Bytes beyond the credit.
        ("over_pending", "u1"),  # 1: the receiver has not spoken since
        ("over_proven", "u1"),  # 1: what it said then was less than what had been sent
        ("over", "i8"),  # the most
        ("over_tx", "i8"),  # bytes sent by then
        ("over_ns", "i8"),  # of the last packet beyond the credit, or NO_TIME
        ("grant_ns", "i8"),  # of a CREDIT_REQUEST that ended a stall, or NO_TIME
        ("grant_again_ns", "i8"),  # of news behind it, or NO_TIME
        # A packet that the receiver may have dropped: what was sent with nothing else in flight.
        ("gap_base", "i8"),  # bytes that were lost so before
        ("gap_end", "i8"),  # bytes sent up to its end
        ("gap_packet", "u8"),
        ("gap_len", "u4"),  # 0: there is none
        ("gap_rounds", "u4"),  # how often all that came behind it was consumed, but not it
    ],
    align=True,
)

# A context id at a place of capture: what one of its connections shows of all of them.
PEER_DTYPE: Final = np.dtype(
    [
        ("cid", "u8"),
        ("place", "u8"),  # key_place without the type's bit; row 0 is of all without a row
        ("conn", "u8"),  # whose fwd_cnt the last one is
        ("fwd", "u4"),
        ("rule", "u1"),  # track.kinds.Limit
        ("waits", "u1"),  # of its senders at exactly their own buffers
    ],
    align=True,
)
PEERS: Final = 4096  # rows; of context ids beyond them nothing is learnt

STALL_DTYPE: Final = np.dtype(
    [
        ("conn", "u8"),
        ("start_ns", "i8"),
        ("end_ns", "i8"),
        ("first_packet", "u8"),  # the one that used the last credit
        ("packet", "u8"),  # the one that ended it
        ("in_flight", "u4"),  # bytes that waited for the reader when it began
        ("side", "u1"),  # of the sender that waited
        ("cause", "u1"),  # track.kinds.Cause
    ],
    align=True,
)

EVENT_DTYPE: Final = np.dtype(
    [
        ("kind", "u8"),  # track.kinds.Kind
        ("conn", "u8"),  # 0: none
        ("packet", "u8"),  # the packet that shows it, 0: only the time does
        ("time_ns", "i8"),
        ("a", "i8"),  # the case's numbers: see Kind
        ("b", "i8"),
        ("side", "u1"),  # whom it is said of
        ("open", "u1"),  # 1: it goes on
        ("doubt", "u1"),  # track.kinds.Doubt
        ("cause", "u1"),  # track.kinds.Cause, of a stall
    ],
    align=True,
)

if TYPE_CHECKING:
    ConnectionRow = Any
    FlowRow = Any
else:  # rows as Python's own ints: NumPy's records are slow to read one by one
    ConnectionRow = namedtuple("ConnectionRow", CONNECTION_DTYPE.names)
    FlowRow = namedtuple("FlowRow", FLOW_DTYPE.names)

_FRESH_FLOW: Final = np.zeros((), FLOW_DTYPE)
for _name in (
    "stalled_since",
    "first_update_ns",
    "last_update_ns",
    "closed_ns",
    "said_ns",
    "data_ns",
    "deaf_ns",
    "asked_ns",
):
    _FRESH_FLOW[_name] = NO_TIME
_FRESH_FLOW["min_free"] = _FRESH_FLOW["min_own"] = 0xFFFFFFFF

_FRESH_EXTRA: Final = np.zeros((), EXTRA_DTYPE)
for _name in ("own_since", "own_until", "over_ns", "grant_ns", "grant_again_ns"):
    _FRESH_EXTRA[_name] = NO_TIME
_FIRST_EXTRAS: Final = 64


class Store:
    """The connections of one tracker, and what was forgotten of them.

    `connections` and `flows` are valid up to `used` and 2 * `used`, `extras` from 1 up to
    `extras_used`.
    """

    def __init__(self, cap: int = DEFAULT_CAP) -> None:
        self.cap = max(cap, _FORGET_SHARE)
        size = min(_FIRST_SIZE, self.cap)
        self.connections = np.zeros(size, CONNECTION_DTYPE)
        self.flows = _fresh_flows(2 * size)
        self.extras = _fresh_extras(_FIRST_EXTRAS)
        self.peers = np.zeros(PEERS, PEER_DTYPE)
        self.used = 0
        self.extras_used = 1
        self.forgotten = 0
        self.forgotten_packets = 0
        self.forgotten_bytes = 0

    def rows(self) -> Iterator[tuple[ConnectionRow, FlowRow, FlowRow]]:
        """(connection, what its side 0 sent, what its side 1 sent) of all, by number.

        Rows have the fields of CONNECTION_DTYPE and FLOW_DTYPE as ints.
        """
        order = np.argsort(self.connections["number"][: self.used])
        for first in range(0, self.used, _AT_ONCE):
            slots = order[first : first + _AT_ONCE]
            connections = self.connections[slots].tolist()
            forth = self.flows[2 * slots].tolist()
            back = self.flows[2 * slots + 1].tolist()
            for connection, one, other in zip(connections, forth, back, strict=True):
                yield ConnectionRow(*connection), FlowRow(*one), FlowRow(*other)

    def slots_of(self, numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The slot of each connection by its number, -1 for those that were forgotten."""
        kept = self.connections["number"][: self.used]  # slots are in the order of numbers
        slots = np.searchsorted(kept, numbers).astype(np.int64)
        there = np.append(kept, 0)[slots] == numbers
        return np.where(there, slots, -1)

    def make_room(self) -> NDArray[np.int64] | None:
        """Grow, or at the cap forget some connections.

        Returns None after growth, else the new slot of every old slot, -1 for forgotten.
        """
        size = len(self.connections)
        if size < self.cap:
            new = min(2 * size, self.cap)
            connections = np.zeros(new, CONNECTION_DTYPE)
            connections[:size] = self.connections
            flows = _fresh_flows(2 * new)
            flows[: 2 * size] = self.flows
            self.connections, self.flows = connections, flows
            return None
        return self._forget(max(size // _FORGET_SHARE, 1))

    def void_own_stalls(self) -> None:
        """Take back waits at senders' own buffers where another connection has shown that the
        context id has no such limit.
        """
        own = self.extras["own_stalls"][: self.extras_used]
        if not own.any():
            return
        flows = self.flows[: 2 * self.used]
        void = own[flows["extra"]] > 0
        void &= self.peers["rule"][flows["peer"]] == int(Limit.UNCAPPED)
        for at in np.flatnonzero(void).tolist():
            extra = self.extras[flows["extra"][at] :][:1]
            flows["stalls"][at] -= extra["own_stalls"][0]
            flows["stalled_ns"][at] -= extra["own_stalled_ns"][0]
            for name in ("own_stalls", "own_stalled_ns", "own_longest_ns"):
                extra[name] = 0
            flows["rule"][at] = int(Limit.UNCAPPED)
            self._forget_own(at // 2)

    def _forget_own(self, slot: int) -> None:
        """Of a connection, one of whose waits at an own buffer was none: what was found of it."""
        pair = self.flows[2 * slot : 2 * slot + 2]
        gone = 0
        if not (pair["rule"] == int(Limit.CAPPED)).any():
            gone |= 1 << Kind.OWN_BUFFER
        longest = np.maximum(pair["longest_stall_ns"], self.extras["own_longest_ns"][pair["extra"]])
        if (longest < LONG_STALL_NS).all():
            gone |= 1 << Kind.STALL
        self.connections["found_low"][slot] &= np.uint64(~gone & 2**64 - 1)

    def more_extras(self) -> None:
        """Make room for more of them."""
        extras = _fresh_extras(2 * len(self.extras))
        extras[: self.extras_used] = self.extras[: self.extras_used]
        self.extras = extras

    def _forget(self, count: int) -> NDArray[np.int64]:
        """Drop `count` connections: ended before living, long silent before fresh."""
        live = self.connections[: self.used]
        living = ~np.isin(live["state"], list(TERMINAL))
        order = np.lexsort((live["last_packet"], living))
        gone = order[:count]
        flows = self.flows[: 2 * self.used].reshape(-1, 2)
        self.forgotten += count
        self.forgotten_packets += int(flows["packets"][gone].sum())
        self.forgotten_bytes += int(flows["bytes"][gone].sum())
        kept = np.sort(order[count:])
        moved = np.full(self.used, -1, np.int64)
        moved[kept] = np.arange(len(kept))
        self.connections[: len(kept)] = live[kept]
        self.flows[: 2 * len(kept)] = flows[kept].reshape(-1)
        self.flows[2 * len(kept) :] = _FRESH_FLOW
        self.used = len(kept)
        self._keep_extras(self.flows[: 2 * len(kept)]["extra"])
        return moved

    def _keep_extras(self, of_flows: NDArray[np.uint32]) -> None:
        """Keep the extras of the flows that are left, and only these."""
        having = np.flatnonzero(of_flows)
        kept = self.extras[of_flows[having]]
        of_flows[having] = np.arange(1, 1 + len(having))
        self.extras[1 : 1 + len(kept)] = kept
        self.extras[1 + len(kept) :] = _FRESH_EXTRA
        self.extras_used = 1 + len(kept)


def _fresh_extras(size: int) -> NDArray[np.void]:
    extras = np.empty(size, EXTRA_DTYPE)
    extras[:] = _FRESH_EXTRA
    return extras


def _fresh_flows(size: int) -> NDArray[np.void]:
    """Flows on which nothing was seen yet."""
    flows = np.empty(size, FLOW_DTYPE)
    flows[:] = _FRESH_FLOW
    return flows
