"""The -z statistics: each takes tracked batches and gives a table at the end.

conv, endpoints and credit read the tracker's store, which keeps them bounded; io counts
intervals.  Statistics cover all traffic, whatever is printed.  A filter chooses what they
list: the tables of connections and endpoints those connections that have a packet which
matches, with all their packets; io the packets that match.  The output says so.
"""

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vsockdump import wire
from vsockdump.address import Endpoint
from vsockdump.batch import NO_TIME, Batch, Rows
from vsockdump.columns import Mask, copied, has_monitor, timed
from vsockdump.errors import UsageError
from vsockdump.findings.overdue import overdue
from vsockdump.findings.registry import BY_KIND, WRONG, found_in, rules_of, words, worst
from vsockdump.findings.rule import Event, Severity
from vsockdump.output.selection import Selection as Selection
from vsockdump.output.tables import ColumnSpec, Table, counted, json_line, render, seconds, span
from vsockdump.track.kinds import Limit
from vsockdump.track.marks import MARK_OF, Mark
from vsockdump.track.states import State, state_word
from vsockdump.track.store import ConnectionRow, FlowRow
from vsockdump.track.tracker import Tracker
from vsockdump.track.window import CONNECTIONS, CreditWindows

if TYPE_CHECKING:
    from vsockdump.apps.dialogues import Dialogues

SECOND: Final = 10**9
_YEAR_NS: Final = 366 * 86400 * SECOND
OF_APPS: Final = ("apps", "rpc")  # need the application layer
STORY: Final = "story"  # takes it where it is there
STATISTICS: Final = (
    "conv",
    "endpoints",
    "credit",
    "io",
    "findings",
    "connects",
    "stalls",
    *OF_APPS,
    STORY,
)
PLAIN_WIDTH: Final = 100  # characters of a line where no terminal says how many it has
SLOWEST: Final = "slowest"
_SHORTEST: Final = Decimal("1e-9")
_LONGEST: Final = Decimal("1e9")
SIDES: Final = ("initiator", "acceptor")
_MOST_INTERVALS: Final = 1_000_000
MOST_STALLS: Final = 100_000


class Statistic(Protocol):
    """One -z."""

    name: str

    def add(self, batch: Batch, mask: Mask | None = None) -> None:
        """Take a tracked batch; called for every one, in order.

        `mask` says which packets a filter chose, None means all.
        """

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """The result for people."""

    def json_lines(self) -> Iterator[str]:
        """The result for programs, one JSON object a line."""

    def complaint(self, source: str) -> str:
        """Why there is nothing to show of the source, in a sentence; "" where there is."""


class StatisticError(UsageError):
    """A -z that does not exist or whose argument cannot be; one sentence."""


class Wish(NamedTuple):
    """A -z: the statistic's own text, and after how many seconds to show it again (0: not)."""

    text: str
    refresh_s: float = 0

    @property
    def of_apps(self) -> bool:
        """Whether it counts what is said."""
        return self.text.partition(",")[0] in OF_APPS

    @property
    def of_apps_if_any(self) -> bool:
        """Whether it tells what is said, where application protocols are decoded."""
        return self.text.partition(",")[0] == STORY


_ARGUMENTS: Final = {"credit": 1, "io": 1, STORY: 1}  # how many a statistic takes; others take none


def wish(text: str) -> Wish:
    """A -z argument without and with its refresh, the number behind the statistic's own.

    Raises StatisticError where it is not a number of seconds; the rest is judged by `make`.
    """
    parts = text.split(",")
    own = 1 + (_ARGUMENTS.get(parts[0], 0) or int(parts[:2] == ["rpc", SLOWEST]))
    if len(parts) != own + 1 or parts[0] not in STATISTICS:
        return Wish(text)
    refresh = _seconds(parts[-1])
    if not refresh:
        raise StatisticError(
            f"-z {text} is to be shown again every {parts[-1] or 'nothing'} seconds; give a"
            " number from 0.1 to 86400."
        )
    return Wish(",".join(parts[:own]), refresh)


def _seconds(text: str) -> float | None:
    """A refresh time, or None where it cannot be one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.1 <= value <= 86400 else None


def make(
    text: str,
    tracker: Tracker,
    dialogues: "Dialogues | None" = None,
    selection: Selection | None = None,
    width: int = PLAIN_WIDTH,
) -> Statistic:
    """The statistic that a -z argument names, of what is selected; raises StatisticError.

    `width` is that of the lines of those that wrap them.
    """
    name, _, argument = text.partition(",")
    if name == "conv" and not argument:
        return Conversations(tracker, selection)
    if name == "endpoints" and not argument:
        return Endpoints(tracker, selection)
    if name == "credit":
        return Credit(tracker, selection, _connection(argument))
    if name == "io":
        return Intervals(tracker, selection, _interval(argument))
    if name == STORY:
        from vsockdump.output.story import make as make_story

        return make_story(argument, tracker, selection, dialogues, width)
    if name in OF_APPS and argument in ("", SLOWEST if name == "rpc" else ""):
        return _of_apps(name, tracker, selection, dialogues, argument == SLOWEST)
    if not argument and name in STATISTICS:
        return _of_trouble(name, tracker, selection)
    raise StatisticError(
        f"There is no statistic {text}; there are conv, endpoints, credit[,CONNECTION],"
        " io,SECONDS, findings, connects, stalls, apps, rpc[,slowest] and story,CONNECTION, each"
        " with [,REFRESH]."
    )


def _of_apps(
    name: str,
    tracker: Tracker,
    selection: Selection | None,
    dialogues: "Dialogues | None",
    slowest: bool,
) -> Statistic:
    """Those of the application layer; each imports this module."""
    if dialogues is None:
        raise StatisticError(
            f"-z {name} needs the application protocols that --decode none leaves out."
        )
    if name == "apps":
        from vsockdump.output.apps import Apps

        return Apps(tracker, selection, dialogues)
    from vsockdump.output.rpc import Rpc, Slowest

    return (Slowest if slowest else Rpc)(tracker, selection, dialogues)


def _of_trouble(name: str, tracker: Tracker, selection: Selection | None) -> Statistic:
    """Those that say what is wrong and why; each imports this module."""
    if name == "findings":
        from vsockdump.output.findings import Findings

        return Findings(tracker, selection)
    if name == "connects":
        from vsockdump.output.connects import Connects

        return Connects(tracker, selection)
    from vsockdump.output.stalls import Stalls

    return Stalls(tracker, selection)


def _connection(argument: str) -> int | None:
    if not argument:
        return None
    if argument.isascii() and argument.isdigit() and int(argument):
        return int(argument)
    raise StatisticError(f"-z credit takes the number of a connection, not {argument}.")


def _interval(argument: str) -> int:
    """An interval in nanoseconds; 0 means the whole capture."""
    try:
        interval = Decimal(argument)
        usable = interval == 0 or _SHORTEST <= interval <= _LONGEST
    except InvalidOperation:
        raise StatisticError(
            f"-z io takes an interval in seconds, as in -z io,0.1, not {argument or 'nothing'}."
        ) from None
    if not usable:
        raise StatisticError(
            f"-z io cannot use an interval of {argument} seconds, only 0 (all in one) and"
            " from 0.000000001 to 1000000000."
        )
    return int(interval * SECOND)


def ends(connection: ConnectionRow) -> tuple[Endpoint, Endpoint]:
    """Initiator and acceptor of a row of the store."""
    return (
        Endpoint(connection.initiator_cid, connection.initiator_port),
        Endpoint(connection.acceptor_cid, connection.acceptor_port),
    )


def shown(endpoint: Endpoint, numeric: bool) -> str:
    """An endpoint in names, or in digits for -n."""
    return endpoint.numeric() if numeric else str(endpoint)


def how_it_ended(connection: ConnectionRow) -> str:
    """State of a connection in words, with who brought it about."""
    state = connection.state
    text = state_word(state).replace("-", " ")
    closer = connection.closer
    if state in (State.CLOSED, State.RESET, State.CLOSING) and closer < 2:
        text += f" by {SIDES[closer]}" if connection.side_known else ""
    if connection.midstream:
        text += ", mid-stream"
    return text


def socket_type(connection: ConnectionRow) -> str:
    """The socket type of a connection: stream, seqpacket, dgram or its number."""
    number = connection.type
    return wire.name_of(wire.SocketType, number).lower()


def stalled_ns(flow: FlowRow, now: int) -> int:
    """Time a flow spent stalled, up to `now` for a stall that goes on."""
    running = flow.stalled_since
    return flow.stalled_ns + (max(now - running, 0) if running != NO_TIME else 0)


def _least(flow: FlowRow, name: str) -> int | None:
    return getattr(flow, name) if flow.free_seen else None


def _least_free(flow: FlowRow) -> int | None:
    """The least free credit, by the sender's own buffer too where that limits it."""
    if not flow.free_seen:
        return None
    least: int = flow.min_free
    return min(least, flow.min_own) if flow.rule == Limit.CAPPED else least


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


class OfStore:
    """What the statistics over the tracker's store share."""

    def __init__(self, tracker: Tracker, selection: Selection | None = None) -> None:
        self._tracker = tracker
        self._selection = selection

    def _connections(self) -> Iterator[tuple[ConnectionRow, FlowRow, FlowRow]]:
        """(connection, what the initiator sent, what the acceptor sent), by number."""
        for entry in self._tracker.store.rows():
            if self._selection is None or entry[0].number in self._selection:
                yield entry

    @property
    def _timeless(self) -> bool:
        """Whether no packet had a time stamp."""
        return self._tracker.first_ns == NO_TIME

    def _since_first(self, time_ns: int) -> int | None:
        """Time since the first packet; None where packets have no times."""
        return None if self._timeless else time_ns - self._tracker.first_ns

    def _duration(self, connection: ConnectionRow) -> int | None:
        """Time from the first to the last packet; None where packets have no times."""
        return None if self._timeless else connection.last_ns - connection.first_ns

    def _notes(self) -> list[str]:
        """What the table leaves out."""
        notes = []
        if self._selection is not None:
            notes = self._selection.notes(
                "Only connections with a packet that matches the filter are listed, with all"
                " their packets"
            )
        return [*notes, *self._wild_clock(), *self._forgotten()]

    def _wild_clock(self) -> list[str]:
        """That times cannot be compared, where they lie more than a year apart: whose they are."""
        now = self._tracker.as_of_ns
        if self._timeless or self._tracker.last_ns - self._tracker.first_ns < _YEAR_NS:
            return []
        store = self._tracker.store
        begun = store.connections["first_ns"][: store.used]
        wild = np.flatnonzero((begun != NO_TIME) & (np.abs(begun - now) > _YEAR_NS))
        if not len(wild):
            return ["Times lie more than a year apart: a clock was set, or is wrong."]
        packet = int(store.connections["first_packet"][wild[0]])
        return [
            f"The clock of packet {packet} is more than a year from that of the last one: it was"
            " set, or is wrong, and so are times and durations that begin there."
        ]

    def _forgotten(self) -> list[str]:
        store = self._tracker.store
        if not store.forgotten:
            return []
        return [
            f"{store.forgotten} more connections ({store.forgotten_packets} packets,"
            f" {store.forgotten_bytes} bytes) were forgotten at the limit of {store.cap};"
            " see --max-connections."
        ]

    def add(self, batch: Batch, mask: Mask | None = None) -> None:
        """The store has it already."""

    def complaint(self, source: str) -> str:
        """An empty table says itself that nothing is there."""
        return ""


_CONV_COLUMNS: Final = (
    ColumnSpec("#"),
    ColumnSpec("initiator", False),
    ColumnSpec("acceptor", False),
    ColumnSpec("type", False),
    ColumnSpec("start"),
    ColumnSpec("duration"),
    ColumnSpec("-> packets"),
    ColumnSpec("bytes"),
    ColumnSpec("min free"),
    ColumnSpec("stalled"),
    ColumnSpec("<- packets"),
    ColumnSpec("bytes"),
    ColumnSpec("min free"),
    ColumnSpec("stalled"),
    ColumnSpec("state", False),
    ColumnSpec("wrong", False),
)


Late = dict[int, list[Event]]


class Conversations(OfStore):
    """-z conv: every connection on a line."""

    name = "conv"

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """A table, one connection a row; start is relative to the first packet."""
        late = self._overdue()
        rows = [self._row(*entry, late, numeric) for entry in self._connections()]
        title = f"{counted(len(rows), 'connection')}; -> initiator to acceptor, <- back"
        yield from render(Table(title, _CONV_COLUMNS, rows, self._notes()), colour)

    def _overdue(self) -> Late:
        """What connections wait for in vain, by number."""
        late: Late = {}
        for event in overdue(self._tracker):
            late.setdefault(event.conn, []).append(event)
        return late

    def _row(
        self,
        connection: ConnectionRow,
        forth: FlowRow,
        back: FlowRow,
        late: Late,
        numeric: bool,
    ) -> tuple[str, ...]:
        initiator, acceptor = ends(connection)
        last = self._tracker.as_of_ns
        found = found_in(connection) & WRONG
        for event in late.get(connection.number, ()):
            if BY_KIND[event.kind].severity_of(event) >= Severity.WARN:
                found |= 1 << event.kind
        return (
            str(connection.number),
            shown(initiator, numeric),
            shown(acceptor, numeric),
            socket_type(connection),
            seconds(self._since_first(connection.first_ns)),
            seconds(self._duration(connection)),
            *_sent(forth, last),
            *_sent(back, last),
            how_it_ended(connection),
            ", ".join(rule.word for rule in rules_of(found)),
        )

    def json_lines(self) -> Iterator[str]:
        """One object a connection; the lists hold initiator to acceptor, then the reverse."""
        late = self._overdue()
        for connection, *flows in self._connections():
            initiator, acceptor = ends(connection)
            last = self._tracker.as_of_ns
            closer = connection.closer
            found = found_in(connection)
            severity = worst(found, connection.doubt)
            marks = connection.marks
            for event in late.get(connection.number, ()):
                found |= 1 << event.kind
                marks |= MARK_OF[event.kind] & ~Mark.MORE
                severity = max(severity or Severity.CHAT, BY_KIND[event.kind].severity_of(event))
            yield json_line(
                self.name,
                {
                    "conn": connection.number,
                    "initiator": initiator._asdict(),
                    "acceptor": acceptor._asdict(),
                    "initiator_known": bool(connection.side_known),
                    "type": socket_type(connection),
                    "state": state_word(connection.state),
                    "midstream": bool(connection.midstream),
                    "closer": SIDES[closer] if closer < 2 else None,
                    "start_ns": None if self._timeless else connection.first_ns,
                    "duration_ns": self._duration(connection),
                    "first_packet": connection.first_packet,
                    "last_packet": connection.last_packet,
                    "packets": [flow.packets for flow in flows],
                    "bytes": [flow.bytes for flow in flows],
                    "min_free": [_least_free(flow) for flow in flows],
                    "stalls": [_stalls(flow) for flow in flows],
                    "stalled_ns": [stalled_ns(flow, last) for flow in flows],
                    "untold": [flow.untold for flow in flows],
                    "marks": words(marks),
                    "findings": [rule.name for rule in rules_of(found)],
                    "worst": severity.word if severity else None,
                },
            )


def _sent(flow: FlowRow, until: int) -> tuple[str, ...]:
    """What one side sent: packets, bytes, least free credit, time stalled (-: never)."""
    stalled = seconds(stalled_ns(flow, until)) if _stalls(flow) else "-"
    if flow.untold:
        stalled += " untold" if flow.untold == flow.stalls else " partly untold"
    return str(flow.packets), str(flow.bytes), _number(_least_free(flow)), stalled


def _stalls(flow: FlowRow) -> int:
    return flow.stalls + int(flow.stalled_since != NO_TIME)


ENDPOINT_COLUMNS: Final = (
    ColumnSpec("endpoint", False),
    ColumnSpec("packets sent"),
    ColumnSpec("bytes sent"),
    ColumnSpec("packets received"),
    ColumnSpec("bytes received"),
    ColumnSpec("initiated"),
    ColumnSpec("accepted"),
    ColumnSpec("refused"),
)
_ENDPOINT_KEYS: Final = (
    "packets_sent",
    "bytes_sent",
    "packets_received",
    "bytes_received",
    "initiated",
    "accepted",
    "refused",
)


def _accepted(connection: ConnectionRow, back: FlowRow) -> bool:
    """Whether the acceptor took the connection: it answered, and not with RST."""
    return connection.state != State.REFUSED and bool(connection.midstream or back.packets)


class Endpoints(OfStore):
    """-z endpoints: what every (cid, port) sent and received, the busiest first."""

    name = "endpoints"

    def _totals(self) -> list[tuple[Endpoint, list[int]]]:
        totals: dict[Endpoint, list[int]] = {}
        for connection, *flows in self._connections():
            refused = int(connection.state == State.REFUSED)
            for side, endpoint in enumerate(ends(connection)):
                total = totals.setdefault(endpoint, [0] * len(_ENDPOINT_KEYS))
                sent, received = flows[side], flows[1 - side]
                total[0] += sent.packets
                total[1] += sent.bytes
                total[2] += received.packets
                total[3] += received.bytes
                if connection.side_known:
                    total[4] += side == 0
                    total[5] += side == 1 and _accepted(connection, flows[1])
                total[6] += refused and side == 1
        return sorted(
            totals.items(), key=lambda item: (-item[1][1] - item[1][3], -item[1][0], item[0])
        )

    def table(self, numeric: bool) -> Table:
        """One endpoint a row."""
        rows = [(shown(endpoint, numeric), *map(str, total)) for endpoint, total in self._totals()]
        return Table(counted(len(rows), "endpoint"), ENDPOINT_COLUMNS, rows, self._notes())

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """The table."""
        yield from render(self.table(numeric), colour)

    def json_lines(self) -> Iterator[str]:
        """One object an endpoint."""
        for endpoint, total in self._totals():
            values = dict(zip(_ENDPOINT_KEYS, total, strict=True))
            yield json_line(self.name, {"endpoint": endpoint._asdict(), **values})


# Lines of their own width, not a Table: there can be hundreds of thousands of them.
_FINE: Final = 6  # digits of a stall's length beside the microseconds of its begin
_WINDOW_LINE: Final = "  {:>12} {:>10} {:>10} {:>10}"


class Credit(OfStore):
    """-z credit: the credit window of each direction over time, its stalls and updates."""

    name = "credit"

    def __init__(
        self,
        tracker: Tracker,
        selection: Selection | None = None,
        only: int | None = None,
        windows: CreditWindows | None = None,
    ) -> None:
        """`only`: of this connection; `windows`: those that somebody else keeps."""
        super().__init__(tracker, selection)
        self._only = only
        self._windows = CreditWindows() if windows is None else windows
        self._stalls: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._kept = 0
        self._left_out = 0

    def add(self, batch: Batch, mask: Mask | None = None) -> None:
        """Sample the windows and note the stalls that ended."""
        self._windows.add(batch.rows, batch.tracked, self._tracker.connections)
        assert batch.stalls is not None
        self.add_stalls(batch.stalls)

    def add_stalls(self, stalls: Rows) -> None:
        """Note stalls that have ended."""
        for conn, start, end, side in stalls[["conn", "start_ns", "end_ns", "side"]].tolist():
            if self._kept == MOST_STALLS:
                self._left_out += 1
                continue
            self._stalls.setdefault((conn, side), []).append((start, end))
            self._kept += 1

    def _directions(self) -> Iterator[tuple[ConnectionRow, int, FlowRow, FlowRow]]:
        """(connection, side of the sender, its flow, the flow back) of all that sent data."""
        for connection, *flows in self._connections():
            if self._only is not None and connection.number != self._only:
                continue
            for side in (0, 1):
                if flows[side].bytes:
                    yield connection, side, flows[side], flows[1 - side]

    def _stalls_of(
        self, connection: ConnectionRow, side: int, flow: FlowRow
    ) -> list[tuple[int, int]]:
        """(start, end) of the stalls of a direction; one that goes on has lasted so far."""
        stalls = list(self._stalls.get((connection.number, side), ()))
        if flow.stalled_since != NO_TIME:
            stalls.append((flow.stalled_since, self._tracker.as_of_ns))
        return stalls

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """A block a direction: totals, updates, stalls, and the window over time."""
        count = 0
        for connection, side, flow, back in self._directions():
            if count:
                yield ""
            count += 1
            yield from self._block(connection, side, flow, back, numeric, colour)
        if not count:
            yield (
                "No connection sent data."
                if self._only is None
                else (f"Connection {self._only} sent no data or does not exist.")
            )
        if self._left_out:
            yield f"{self._left_out} more stalls are not listed."
        if self._only is None and self._tracker.connections > CONNECTIONS:
            yield f"The window over time was kept for the first {CONNECTIONS} connections."
        yield from self._notes()

    def _block(
        self,
        connection: ConnectionRow,
        side: int,
        flow: FlowRow,
        back: FlowRow,
        numeric: bool,
        colour: bool,
    ) -> Iterator[str]:
        pair = ends(connection)
        title = f"#{connection.number} {shown(pair[side], numeric)} > "
        title += shown(pair[1 - side], numeric)
        notes = [*_totals(flow, back), *_update_lines(back)]
        notes += self._stall_lines(connection, side, flow)
        yield from render(Table(title, (), (), notes), colour)
        for count, (start, size, flight, free) in enumerate(self._samples(connection, side, back)):
            if not count:
                yield _WINDOW_LINE.format("time", "buffer", "in flight", "free")
            shown_time = f"{(start - self._tracker.first_ns) / SECOND:.6f}"
            yield _WINDOW_LINE.format(shown_time, size, flight, free)

    def _stall_lines(self, connection: ConnectionRow, side: int, flow: FlowRow) -> Iterator[str]:
        stalls = self._stalls_of(connection, side, flow)
        if not stalls:
            yield "  stalls: none"
            return
        total = sum(end - start for start, end in stalls)
        longest = max(end - start for start, end in stalls)
        total_text, longest_text = span(total, _FINE), span(longest, _FINE)
        yield f"  stalls: {len(stalls)}, {total_text} in all, the longest {longest_text}"
        for start, end in stalls:
            open_end = " and goes on" if flow.stalled_since == start else ""
            since = seconds(start - self._tracker.first_ns)
            yield f"    at {since} for {span(end - start, _FINE)}{open_end}"

    def _samples(
        self, connection: ConnectionRow, side: int, back: FlowRow
    ) -> Iterator[tuple[int, int, int, int]]:
        """(time, buffer, in flight, free) of the slots in which something was seen."""
        kept = self._windows.of(2 * (connection.number - 1) + side)
        if kept is None:
            return
        start, width, *columns = kept
        size = back.buf  # until a packet without data tells it for its slot
        slots = zip(*(column.tolist() for column in columns), strict=True)
        for slot, (buffer, flight, free) in enumerate(slots):
            size = buffer or size
            if free != 0xFFFFFFFF:
                yield start + slot * width, size, flight, free

    def json_lines(self) -> Iterator[str]:
        """One object a direction; `window` holds [time_ns, buffer, in flight, free]."""
        for connection, side, flow, back in self._directions():
            pair = ends(connection)
            updates = back.updates
            yield json_line(
                self.name,
                {
                    "conn": connection.number,
                    "sender": SIDES[side],
                    "src": pair[side]._asdict(),
                    "dst": pair[1 - side]._asdict(),
                    "bytes": flow.bytes,
                    "buf_alloc": back.buf if back.credit_seen else None,
                    "max_in_flight": _least(flow, "max_in_flight"),
                    "min_free": _least_free(flow),
                    "updates": updates,
                    "update_spacing_ns": _spacing(back),
                    "stalls": self._stalls_of(connection, side, flow),
                    "window": list(self._samples(connection, side, back)),
                },
            )


def _totals(flow: FlowRow, back: FlowRow) -> Iterator[str]:
    buffer = _number(back.buf if back.credit_seen else None)
    if flow.credit_seen and back.credit_seen and flow.buf < back.buf:
        buffer += f" ({_own(flow)})"
    yield (
        f"  {flow.bytes} bytes, buffer {buffer}, in flight at most"
        f" {_number(_least(flow, 'max_in_flight'))}, free at least"
        f" {_number(_least_free(flow))}"
    )


def _own(flow: FlowRow) -> str:
    """What a sender's smaller buffer of its own means to it, and how that is known."""
    if flow.rule == Limit.CAPPED:
        return f"but the sender's own {flow.buf} limits it: it has waited at that"
    if flow.rule == Limit.UNCAPPED:
        return f"alone: more than the sender's own {flow.buf} was in flight"
    return f"alone, as nothing shows that the sender's own {flow.buf} limits it"


def _spacing(back: FlowRow) -> int | None:
    """Mean time between the updates of a receiver."""
    count = back.updates
    if count < 2:
        return None
    return (back.last_update_ns - back.first_update_ns) // (count - 1)


def _update_lines(back: FlowRow) -> Iterator[str]:
    spacing = _spacing(back)
    text = f"  updates: {back.updates}"
    yield text if spacing is None else f"{text}, {span(spacing)} apart on average"


_IO_COLUMNS: Final = (
    ColumnSpec("from"),
    ColumnSpec("to"),
    ColumnSpec("packets"),
    ColumnSpec("frame bytes"),
    ColumnSpec("data bytes"),
    ColumnSpec("connects"),
    ColumnSpec("updates"),
    ColumnSpec("resets"),
)
_IO_KEYS: Final = ("packets", "frame_bytes", "data_bytes", "connects", "updates", "resets")


class Intervals:
    """-z io,SECONDS: packets and bytes of every interval since the first packet."""

    name = "io"

    def __init__(self, tracker: Tracker, selection: Selection | None, interval_ns: int) -> None:
        self._tracker = tracker
        self._selection = selection
        self._interval = interval_ns
        self._start = NO_TIME
        self._counts = np.zeros((64, len(_IO_KEYS)), np.int64)
        self._used = 0
        self._outside = 0
        self._first = self._stray = 0  # numbers of the first packet that is counted, that is not

    def add(self, batch: Batch, mask: Mask | None = None) -> None:
        """Count the batch's vsock packets that are chosen."""
        rows = batch.rows
        chosen = has_monitor(batch) & timed(batch) & ~copied(batch)
        if mask is not None:
            chosen &= mask
        times = rows["time_ns"][chosen]
        if not len(times):
            return
        if self._start == NO_TIME or self._is_lost(times):
            self._begin(times)
        index = (times - self._start) // self._interval if self._interval else times * 0
        inside = (index >= 0) & (index < _MOST_INTERVALS)
        if not inside.all():
            self._outside += int(len(index) - inside.sum())
            if not self._stray:
                self._stray = int(rows["number"][chosen][int(np.argmin(inside))])
        self._first = self._first or int(rows["number"][chosen][int(np.argmax(inside))])
        if inside.any():
            assert batch.tracked is not None
            self._count(index[inside], rows[chosen][inside], batch.tracked[chosen][inside])

    def _reach(self) -> int:
        """How far from the start packets are counted."""
        return _MOST_INTERVALS * self._interval

    def _begin(self, times: NDArray[np.int64]) -> None:
        """Let the intervals begin at the first packet whose clock is near that of most."""
        middle = float(np.sort(times)[len(times) // 2])
        near = np.ones(len(times), bool)
        if self._interval:
            near = np.abs(times.astype(float) - middle) < self._reach()
        self._start = int(times[int(np.argmax(near))])

    def _is_lost(self, times: NDArray[np.int64]) -> bool:
        """Whether no packet is in reach, and more than were counted: then theirs was wrong."""
        counted_until_now = int(self._counts[: self._used, 0].sum())
        if not self._interval or counted_until_now >= len(times):
            return False
        since = times.astype(float) - self._start
        if ((since >= 0) & (since < self._reach())).any():
            return False
        self._outside += counted_until_now
        self._stray, self._first = self._first or self._stray, 0
        self._counts[:] = 0
        self._used = 0
        return True

    def _count(
        self, index: NDArray[np.int64], rows: NDArray[np.void], tracked: NDArray[np.void]
    ) -> None:
        top = int(index.max()) + 1
        while top > len(self._counts):
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        self._used = max(self._used, top)
        low = int(index.min())
        op = rows["virtio"]["op"]
        weights: list[Any] = [
            None,
            rows["wirelen"],
            tracked["data_len"],
            op == int(wire.Op.REQUEST),
            op == int(wire.Op.CREDIT_UPDATE),
            op == int(wire.Op.RST),
        ]
        for column, weight in enumerate(weights):
            sums = np.bincount(index - low, weight, top - low)
            self._counts[low:top, column] += sums.astype(np.int64)

    def complaint(self, source: str) -> str:
        """An empty table says itself that nothing is there."""
        return ""

    def _bounds(self, index: int) -> tuple[int, int]:
        """Start and end of an interval, relative to the first packet."""
        if not self._interval:
            return 0, max(self._tracker.last_ns - self._start, 0)
        return index * self._interval, (index + 1) * self._interval

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """A table, one interval a row, empty ones included."""
        rows = [
            (*map(seconds, self._bounds(index)), *map(str, self._counts[index].tolist()))
            for index in range(self._used)
        ]
        title = counted(self._used, "interval") + (
            f" of {span(self._interval)}" if self._interval else ""
        )
        notes = []
        if self._selection is not None:
            notes = self._selection.notes("Only packets that match the filter count")
        if self._outside:
            notes.append(
                f"{counted(self._outside, 'packet')} before the first or behind the last interval,"
                f" packet {self._stray} first, by the clock: it was set, or is wrong."
            )
        yield from render(Table(title, _IO_COLUMNS, rows, notes), colour)

    def json_lines(self) -> Iterator[str]:
        """One object an interval."""
        for index in range(self._used):
            start, end = self._bounds(index)
            counts = dict(zip(_IO_KEYS, self._counts[index].tolist(), strict=True))
            yield json_line(self.name, {"from_ns": start, "to_ns": end, **counts})
