"""-z stalls: every time that a sender waited for credit, and who kept it waiting."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from vsockdump.batch import NO_TIME, Batch
from vsockdump.columns import Mask
from vsockdump.output.statistics import (
    MOST_STALLS,
    SIDES,
    OfStore,
    Selection,
    ends,
    shown,
)
from vsockdump.output.tables import ColumnSpec, Table, counted, json_line, render, seconds, span
from vsockdump.track.kinds import Cause, Limit
from vsockdump.track.store import ConnectionRow, FlowRow
from vsockdump.track.tracker import Tracker

_COLUMNS: Final = (
    ColumnSpec("#"),
    ColumnSpec("sender", False),
    ColumnSpec("slow", False),
    ColumnSpec("at"),
    ColumnSpec("for"),
    ColumnSpec("bytes waiting"),
    ColumnSpec("from packet"),
    ColumnSpec("to packet"),
    ColumnSpec("limit", False),
)


_SLOW: Final[dict[int, str]] = {
    Cause.READER: "reader at {peer}",
    Cause.OWN_BUFFER: "{who} by its own buffer",
    Cause.UNTOLD: "{peer}: had read, and not told",
}


class Stall(NamedTuple):
    """A row of track.store.STALL_DTYPE; `packet` 0: it goes on."""

    conn: int
    start_ns: int
    end_ns: int
    first_packet: int
    packet: int
    in_flight: int
    side: int
    cause: int


def still_holds(side: int, cause: int, flows: Sequence[FlowRow]) -> bool:
    """Whether it was a stall: a side may have shown since that its own buffer does not limit it."""
    return cause != Cause.OWN_BUFFER or flows[side].rule == Limit.CAPPED


def running(row: ConnectionRow, flows: Sequence[FlowRow], now: int) -> Iterator[Stall]:
    """The stalls of a connection that go on."""
    for side, flow in enumerate(flows):
        if flow.stalled_since != NO_TIME:
            until = max(now, flow.stalled_since)
            own = flow.rule == Limit.CAPPED and flow.stalled_flight < flows[1 - side].buf
            waiting = flow.stalled_flight, side, Cause.OWN_BUFFER if own else Cause.READER
            place = flow.stalled_since, until, flow.stalled_packet, 0
            yield Stall(row.number, *place, *waiting)


class Stalls(OfStore):
    """In order of their ends, then those that go on.  The first MOST_STALLS are kept."""

    name = "stalls"

    def __init__(self, tracker: Tracker, selection: Selection | None = None) -> None:
        super().__init__(tracker, selection)
        self._stalls: list[Stall] = []
        self._left_out = 0

    def add(self, batch: Batch, mask: Mask | None = None) -> None:
        """Note the stalls that ended."""
        assert batch.stalls is not None
        room = MOST_STALLS - len(self._stalls)
        self._stalls += [Stall(*values) for values in batch.stalls[:room].tolist()]
        self._left_out += max(len(batch.stalls) - room, 0)

    def _all(self) -> Iterator[tuple[Stall, ConnectionRow | None]]:
        """Each stall with its connection, None where that was forgotten."""
        rows = {row.number: (row, flows) for row, *flows in self._connections()}
        for stall in self._stalls:
            row, flows = rows.get(stall.conn, (None, ()))
            if flows and not still_holds(stall.side, stall.cause, flows):
                continue
            if row is not None or self._selection is None or stall.conn in self._selection:
                yield stall, row
        for row, flows in rows.values():
            for stall in running(row, flows, self._tracker.as_of_ns):
                yield stall, row

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """A table, one stall a row; times are relative to the first packet."""
        rows = []
        total = 0
        for stall, row in self._all():
            rows.append(self._row(stall, row, numeric))
            total += stall.end_ns - stall.start_ns
        title = counted(len(rows), "stall") + (f", {span(total)} in all" if rows else "")
        notes = self._notes()
        if self._left_out:
            notes.append(f"{counted(self._left_out, 'more stall')} were not kept.")
        yield from render(Table(title, _COLUMNS, rows, notes), colour)

    def _row(self, stall: Stall, row: ConnectionRow | None, numeric: bool) -> tuple[str, ...]:
        pair = ("?", "?")
        if row is not None:
            first, second = (shown(end, numeric) for end in ends(row))
            pair = first, second
        return (
            str(stall.conn),
            pair[stall.side],
            _SLOW[stall.cause].format(peer=pair[1 - stall.side], who=pair[stall.side]),
            seconds(self._since_first(stall.start_ns)),
            span(stall.end_ns - stall.start_ns) + ("" if stall.packet else " so far"),
            str(stall.in_flight),
            str(stall.first_packet),
            str(stall.packet) if stall.packet else "goes on",
            "sender's own buffer" if stall.cause == Cause.OWN_BUFFER else "receiver's buffer",
        )

    def json_lines(self) -> Iterator[str]:
        """One object a stall."""
        for stall, row in self._all():
            pair = ends(row) if row is not None else None
            slow = stall.side if stall.cause == Cause.OWN_BUFFER else 1 - stall.side
            yield json_line(
                self.name,
                {
                    "conn": stall.conn,
                    "sender": SIDES[stall.side],
                    "slow": SIDES[slow],
                    "src": pair[stall.side]._asdict() if pair else None,
                    "dst": pair[1 - stall.side]._asdict() if pair else None,
                    "start_ns": stall.start_ns,
                    "duration_ns": stall.end_ns - stall.start_ns,
                    "bytes_waiting": stall.in_flight,
                    "first_packet": stall.first_packet,
                    "last_packet": stall.packet or None,
                    "goes_on": not stall.packet,
                    "limit": "sender" if stall.cause == Cause.OWN_BUFFER else "receiver",
                    "cause": Cause(stall.cause).name.lower(),
                },
            )
