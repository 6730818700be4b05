"""The simulator's truth in the tracker's terms, so that the two can be compared.

`expected` says what the tracker must make of a capture, or of its later part.  Where only a
part was seen the tracker may know less than is true; what it claims must be true all the
same.  `found` is what it said.

Rules for editors: everything here comes from Truth and from the frames.  What the tracker
said is looked at in one place, `_as_far_as_known`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from simulator import Repeat, Seen, Traffic
from tracking import Tracking

from vsockdump.batch import NO_TIME, Known
from vsockdump.track.states import state_word
from vsockdump.wire import HEADERS_SIZE, VIRTIO, VSOCKMON, Op, Shutdown

_ENDED: Final = frozenset({"closed", "reset", "refused", "timed-out"})
_SWAPPED: Final = {
    "half-closed-initiator": "half-closed-acceptor",
    "half-closed-acceptor": "half-closed-initiator",
}


class Row(NamedTuple):
    """What a packet means; None is unknown."""

    conn: int
    side: int | None
    data: bytes
    length: int
    tx_cnt: int | None
    in_flight: int | None
    free: int | None
    granted: int | None
    state: str


class Stall(NamedTuple):
    """A stall; `end_ns` and `packet` are those of the packet that ended it."""

    side: int
    start_ns: int
    end_ns: int
    packet: int


class Summary(NamedTuple):
    """What became of a connection; pairs are by the tracker's sides."""

    ends: tuple[tuple[int, int], tuple[int, int]]
    type: int
    midstream: bool
    bytes: tuple[int, int]
    packets: tuple[int, int]
    frame_bytes: tuple[int, int]
    first_packet: int
    last_packet: int
    times: tuple[int, int]
    state: str | None  # None: not compared
    closer: int | None
    stalls: tuple[Stall, ...] | None
    waiting_since: tuple[int, int] | None
    min_free: tuple[int, int] | None
    max_in_flight: tuple[int, int] | None


def _sorted(stalls: Iterable[Stall]) -> tuple[Stall, ...]:
    """Stalls in one order; those that one packet ended have none."""
    return tuple(sorted(stalls))


# --- found -----------------------------------------------------------------------------


def found_row(tracking: Tracking, row: int) -> Row:
    """What the tracker says of a packet."""
    tracked = tracking.tracked[row]
    return Row(
        int(tracked["conn"]),
        tracking.known(row, Known.SIDE, "side"),
        tracking.data[row],
        int(tracked["data_len"]),
        tracking.known(row, Known.TX_CNT, "tx_cnt"),
        tracking.known(row, Known.IN_FLIGHT, "in_flight"),
        tracking.known(row, Known.FREE, "free"),
        tracking.known(row, Known.GRANTED, "granted"),
        state_word(int(tracked["state"])),
    )


def found_summary(tracking: Tracking, number: int) -> Summary:
    """What the tracker says of a connection."""
    row = tracking.connection(number)
    flows = tracking.flow(number, 0), tracking.flow(number, 1)

    def both(name: str) -> tuple[int, int]:
        return int(flows[0][name]), int(flows[1][name])

    return Summary(
        (
            (int(row["initiator_cid"]), int(row["initiator_port"])),
            (int(row["acceptor_cid"]), int(row["acceptor_port"])),
        ),
        int(row["type"]),
        bool(row["midstream"]),
        both("bytes"),
        both("packets"),
        both("frame_bytes"),
        int(row["first_packet"]),
        int(row["last_packet"]),
        (int(row["first_ns"]), int(row["last_ns"])),
        tracking.state(number),
        int(row["closer"]),
        _sorted(
            Stall(int(one["side"]), int(one["start_ns"]), int(one["end_ns"]), int(one["packet"]))
            for one in tracking.stalls[tracking.stalls["conn"] == number]
        ),
        both("stalled_since"),
        both("min_free"),
        both("max_in_flight"),
    )


# --- expected --------------------------------------------------------------------------


def head(seen: Seen, name: str) -> int:
    """A field of the virtio header."""
    offset = VSOCKMON.size + VIRTIO.offset(name)
    size = next(one.size for one in VIRTIO.fields if one.name == name)
    return int.from_bytes(seen.frame[offset : offset + size], "little")


def of_no_socket(seen: Seen) -> bool:
    """Whether it is an RST without credit, of which Truth tells no credit either."""
    return head(seen, "op") == Op.RST and not head(seen, "buf_alloc")


@dataclass
class _Flow:
    """One direction of a connection, from the first packet that is left on."""

    sure: bool  # whether it is certain where the pieces of variant B begin
    length: int = 0  # of the last data packet
    wirelen: int = 0
    bytes: int = 0
    packets: int = 0
    frame_bytes: int = 0
    since: int = NO_TIME  # begin of the stall it is in
    over: bool = False  # an end has said that nothing more is sent
    min_free: int = 0xFFFFFFFF
    max_in_flight: int = 0

    def bytes_are_sure(self, seen: Seen) -> bool:
        """Whether the tracker must find the packet's own bytes in its frame.

        In variant B from the first packet whose place is plain: one that was not split, or
        whose piece or frame has another size than the one before.
        """
        same = seen.wirelen == self.wirelen
        split = seen.wirelen - HEADERS_SIZE > seen.truth.length
        if not split or (self.length and (not same or seen.truth.length != self.length)):
            self.sure = True
        self.length, self.wirelen = seen.truth.length, seen.wirelen
        return self.sure


@dataclass
class Expected:
    """One connection as the simulator knows it, from the first packet that is left on."""

    number: int
    first: Seen
    before: str | None  # its state then, None where nothing was before
    flows: tuple[_Flow, _Flow]
    shrunk: tuple[bool, bool] = (False, False)  # buffers that were larger before the first packet
    stalls: list[Stall] = field(default_factory=list)
    last: int = 0
    state: str = ""
    index: int = 0

    @property
    def whole(self) -> bool:
        """Whether the capture has all of it."""
        return head(self.first, "op") == Op.REQUEST

    @property
    def sure(self) -> bool:
        """Whether the first packet tells who began."""
        return head(self.first, "op") in (Op.REQUEST, Op.RESPONSE)

    @property
    def flip(self) -> int:
        """1 where the tracker takes the acceptor for the initiator."""
        return 0 if self.sure else self.first.truth.side

    @property
    def plain(self) -> bool:
        """Whether the state can be told: nothing had ended when the capture began."""
        return self.whole or self.before == "open" or (self.sure and self.before == "connecting")

    def take(self, seen: Seen, number: int, found: Row) -> Row:
        """What the tracker must say of packet `number`, of which it said `found`."""
        truth = seen.truth
        flow = self.flows[truth.side]
        flow.packets += 1
        flow.bytes += truth.length
        flow.frame_bytes += seen.wirelen
        self.last = number
        self.state = _SWAPPED.get(truth.state, truth.state) if self.flip else truth.state
        self._note_stalls(seen, number)
        data_is_sure = not truth.length or flow.bytes_are_sure(seen)
        row = Row(
            self.number,
            truth.side if self.sure else None,
            truth.data if data_is_sure else found.data,
            truth.length,
            truth.tx_cnt,
            truth.in_flight,
            truth.free,
            truth.granted,
            self.state if self.plain else found.state,
        )
        return self._as_far_as_known(row, found, truth.side, of_no_socket(seen))

    def _as_far_as_known(self, row: Row, found: Row, side: int, untold: bool) -> Row:
        """Let the tracker not know what it has not seen, and know what Truth leaves out.

        It holds the bytes in flight by the largest buffer it has seen.  Where one was larger
        before the capture, and has shrunk below what is in flight, that is too little.
        """
        if untold:
            row = row._replace(in_flight=found.in_flight, free=found.free, granted=found.granted)
        if not self.sure and (found.tx_cnt is None or self.shrunk[1 - side]):
            row = row._replace(tx_cnt=found.tx_cnt)
        if not self.whole:
            if found.free is None or self.shrunk[1 - side]:
                row = row._replace(in_flight=found.in_flight, free=found.free)
            if found.granted is None or self.shrunk[side]:
                row = row._replace(granted=found.granted)
        return row

    def _note_stalls(self, seen: Seen, number: int) -> None:
        """A side waits from the packet after which it has no credit to that with some.

        When an end says that nothing more goes that way, and at the end of the connection, it
        waits no more, and what is free is of no use.
        """
        truth = seen.truth
        if head(seen, "op") == Op.SHUTDOWN:
            flags = head(seen, "flags")
            self.flows[truth.side].over |= bool(flags & Shutdown.SEND)
            self.flows[1 - truth.side].over |= bool(flags & Shutdown.RCV)
        if truth.state not in _ENDED:
            sender = self.flows[truth.side]
            sender.max_in_flight = max(sender.max_in_flight, truth.in_flight or 0)
        for side, free in ((truth.side, truth.free), (1 - truth.side, truth.granted)):
            flow = self.flows[side]
            if free is not None and truth.state not in _ENDED:
                flow.min_free = min(flow.min_free, free)
            if truth.state in _ENDED or free or flow.over:
                if flow.since != NO_TIME:
                    self.stalls.append(Stall(side, flow.since, seen.time_ns, number))
                flow.since = NO_TIME
            elif free == 0 and flow.since == NO_TIME:
                flow.since = seen.time_ns

    def summary(self, traffic: Traffic, start: int, found: Summary) -> Summary:
        """What the tracker must say of the connection."""
        outcome = traffic.connections[self.first.truth.conn]
        one, other = self.flows[self.flip], self.flows[1 - self.flip]
        source = head(self.first, "src_cid"), head(self.first, "src_port")
        target = head(self.first, "dst_cid"), head(self.first, "dst_port")
        closer = outcome.closer if self.whole and self.state != "refused" else found.closer
        return Summary(
            (target, source) if head(self.first, "op") == Op.RESPONSE else (source, target),
            outcome.socket_type,
            not self.whole,
            (one.bytes, other.bytes),
            (one.packets, other.packets),
            (one.frame_bytes, other.frame_bytes),
            traffic.seen.index(self.first, start) - start + 1,
            self.last,
            (self.first.time_ns, traffic.seen[start + self.last - 1].time_ns),
            self.state if self.plain else found.state,
            2 if closer is None else closer,
            _sorted(self.stalls) if self.whole else found.stalls,
            (one.since, other.since) if self.whole else found.waiting_since,
            (one.min_free, other.min_free) if self.whole else found.min_free,
            (one.max_in_flight, other.max_in_flight) if self.whole else found.max_in_flight,
        )


def _shrunk(traffic: Traffic, start: int, conn: int, side: int) -> bool:
    """Whether a side's buffer was once larger than when it is first seen from `start` on."""
    sizes = [
        (index, head(seen, "buf_alloc"))
        for index, seen in enumerate(traffic.seen)
        if (seen.truth.conn, seen.truth.side) == (conn, side) and not of_no_socket(seen)
    ]
    before = [size for index, size in sizes if index < start]
    after = [size for index, size in sizes if index >= start]
    return bool(before and after and max(before) > after[0])


def expected(
    traffic: Traffic, tracking: Tracking, repeat: Repeat, start: int = 0
) -> tuple[list[Row], list[Summary]]:
    """What the tracker must say of the packets from `start` on and of their connections."""
    connections: dict[int, Expected] = {}
    before = {seen.truth.conn: seen.truth.state for seen in traffic.seen[:start]}
    rows = []
    for row, seen in enumerate(traffic.seen[start:]):
        index = seen.truth.conn
        if index not in connections:
            state = before.get(index, "open" if traffic.connections[index].joined else None)
            sure = repeat != "B" or head(seen, "op") in (Op.REQUEST, Op.RESPONSE)
            flows = _Flow(sure), _Flow(sure)
            shrunk = _shrunk(traffic, start, index, 0), _shrunk(traffic, start, index, 1)
            connections[index] = Expected(len(connections) + 1, seen, state, flows, shrunk)
        rows.append(connections[index].take(seen, row + 1, found_row(tracking, row)))
    summaries = [
        one.summary(traffic, start, found_summary(tracking, one.number))
        for one in connections.values()
    ]
    return rows, summaries


def found(tracking: Tracking) -> tuple[list[Row], list[Summary]]:
    """What the tracker said."""
    rows = [found_row(tracking, row) for row in range(len(tracking.rows))]
    numbers: Sequence[int] = tracking.connections["number"].tolist()
    return rows, [found_summary(tracking, number) for number in numbers]
