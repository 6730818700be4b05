"""-z connects: every attempt to connect, how it went, and how each endpoint did.

Outcomes are read from the store: an attempt is a connection whose REQUEST was seen.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from vsockdump.address import Endpoint
from vsockdump.batch import NO_TIME
from vsockdump.findings.registry import found_in
from vsockdump.output.statistics import OfStore, ends, shown, socket_type
from vsockdump.output.tables import ColumnSpec, Table, counted, json_line, render, seconds, span
from vsockdump.track.kinds import Kind
from vsockdump.track.marks import Mark
from vsockdump.track.states import LIVING, State
from vsockdump.track.store import ConnectionRow, FlowRow
from vsockdump.wire import SocketType

_COLUMNS: Final = (
    ColumnSpec("#"),
    ColumnSpec("initiator", False),
    ColumnSpec("acceptor", False),
    ColumnSpec("type", False),
    ColumnSpec("at"),
    ColumnSpec("outcome", False),
    ColumnSpec("after"),
    ColumnSpec("why", False),
)
_TOTAL_COLUMNS: Final = (
    ColumnSpec("acceptor", False),
    ColumnSpec("attempts"),
    ColumnSpec("accepted"),
    ColumnSpec("refused"),
    ColumnSpec("late"),
    ColumnSpec("others"),
    ColumnSpec("success"),
    ColumnSpec("p50"),
    ColumnSpec("p95"),
    ColumnSpec("p99"),
    ColumnSpec("max"),
)
_PERCENTILES: Final = (50, 95, 99, 100)


class Attempt(NamedTuple):
    """A connect: what came of it, after how long (None: not known), and why as far as told."""

    connection: ConnectionRow
    outcome: str
    after_ns: int | None
    why: str = ""


class _Totals:
    """The attempts of an acceptor's endpoint."""

    def __init__(self) -> None:
        self.attempts = self.accepted = self.refused = self.late = 0
        self.times: list[int] = []

    def add(self, attempt: Attempt) -> None:
        self.attempts += 1
        self.accepted += attempt.outcome == "accepted"
        self.refused += attempt.outcome == "refused"
        self.late += attempt.outcome == "late"
        if attempt.outcome == "accepted" and attempt.after_ns is not None:
            self.times.append(attempt.after_ns)

    def percentiles(self) -> list[int | None]:
        """Times until RESPONSE below which so many of the accepted lie; the nearest rank."""
        times = sorted(self.times)
        if not times:
            return [None] * len(_PERCENTILES)
        return [times[-(-share * len(times) // 100) - 1] for share in _PERCENTILES]


class Connects(OfStore):
    """Totals of each acceptor, then every attempt."""

    name = "connects"

    def _attempts(self) -> Iterator[Attempt]:
        """The attempts in order of their REQUESTs."""
        accepting = self._accepting()
        for connection, forth, back in self._connections():
            if _is_attempt(connection):
                yield self._attempt(connection, forth, back, accepting)

    def attempt(self, connection: ConnectionRow, forth: FlowRow, back: FlowRow) -> Attempt | None:
        """The attempt that a connection began with, None where no REQUEST of it was seen."""
        if not _is_attempt(connection):
            return None
        accepting = self._accepting() if connection.state == State.REFUSED else set()
        return self._attempt(connection, forth, back, accepting)

    def _accepting(self) -> set[tuple[Endpoint, int]]:
        """(endpoint, socket type) of those that accepted a connection at any time."""
        store = self._tracker.store
        rows = store.connections[: store.used]
        accepted = (rows["answered_ns"] != NO_TIME) & (rows["state"] != int(State.REFUSED))
        columns = (rows[name][accepted] for name in ("acceptor_cid", "acceptor_port", "type"))
        cids, ports, types = (column.tolist() for column in columns)
        return set(zip(map(Endpoint, cids, ports), types, strict=True))

    def _attempt(
        self,
        connection: ConnectionRow,
        forth: FlowRow,
        back: FlowRow,
        accepting: set[tuple[Endpoint, int]],
    ) -> Attempt:
        began, answered = connection.first_ns, connection.answered_ns
        timeless = began == NO_TIME
        after = None if timeless or answered == NO_TIME else max(answered - began, 0)
        if connection.state == State.REFUSED:
            return Attempt(connection, "refused", after, _why_refused(connection, accepting))
        found = found_in(connection)
        if found >> Kind.TWO_ANSWERS & 1:
            why = "a RESPONSE followed the RST: the RST was a stale one"
            return Attempt(connection, "two answers", after, why)
        if found >> Kind.UNSEEN & 1:
            why = "accepted, and reset after 2 s without a byte: the RESPONSE was not seen"
            return Attempt(connection, "unseen", after, why)
        if answered != NO_TIME or (timeless and back.packets):
            if found >> Kind.LATE_RESPONSE & 1:
                given_up = connection.state == State.TIMED_OUT
                why = "the initiator had given up" if given_up else "taken all the same"
                return Attempt(connection, "late", after, why)
            return Attempt(connection, "accepted", after)
        return self._unanswered(connection)

    def _unanswered(self, connection: ConnectionRow) -> Attempt:
        now = self._tracker.last_ns if self._tracker.until_ns is None else self._tracker.until_ns
        known = connection.first_ns != NO_TIME
        if connection.state in (State.RESET, State.REPLACED):
            waited = max(connection.ended_ns - connection.first_ns, 0) if known else None
            replaced = connection.state == State.REPLACED
            why = "tried again" if replaced else "reset by the initiator itself"
            return Attempt(connection, "given up", waited, why)
        waited = max(now - connection.first_ns, 0) if known else None
        if connection.previous_state in LIVING:
            why = "the addresses are those of a connection that had not ended"
            return Attempt(connection, "dropped", waited, why)
        if connection.state == State.TIMED_OUT:
            return Attempt(connection, "silent", waited, "no answer within 2 s")
        return Attempt(connection, "waiting", waited, "the capture ends before 2 s have passed")

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """Two tables: acceptors, and attempts with their times since the first packet."""
        totals: dict[Endpoint, _Totals] = {}
        rows = []
        for attempt in self._attempts():
            acceptor = ends(attempt.connection)[1]
            totals.setdefault(acceptor, _Totals()).add(attempt)
            rows.append(self._row(attempt, numeric))
        accepted = sum(total.accepted for total in totals.values())
        title = f"{counted(len(rows), 'connect')}, {accepted} accepted"
        total_rows = [_total_row(end, total, numeric) for end, total in sorted(totals.items())]
        late = sum(total.late for total in totals.values())
        notes = [f"The times are of what was accepted; {counted(late, 'late answer')} not in them."]
        yield from render(Table(title, _TOTAL_COLUMNS, total_rows, notes if late else ()), colour)
        if rows:
            yield ""
        yield from render(Table("", _COLUMNS, rows, self._notes()), colour)

    def _row(self, attempt: Attempt, numeric: bool) -> tuple[str, ...]:
        connection = attempt.connection
        initiator, acceptor = ends(connection)
        return (
            str(connection.number),
            shown(initiator, numeric),
            shown(acceptor, numeric),
            socket_type(connection),
            seconds(self._since_first(connection.first_ns)),
            attempt.outcome,
            _span(attempt.after_ns),
            attempt.why,
        )

    def json_lines(self) -> Iterator[str]:
        """One object an attempt, then one an acceptor with the key `attempts`."""
        totals: dict[Endpoint, _Totals] = {}
        for attempt in self._attempts():
            connection = attempt.connection
            initiator, acceptor = ends(connection)
            totals.setdefault(acceptor, _Totals()).add(attempt)
            yield json_line(
                self.name,
                {
                    "conn": connection.number,
                    "initiator": initiator._asdict(),
                    "acceptor": acceptor._asdict(),
                    "type": socket_type(connection),
                    "packet": connection.first_packet,
                    "time_ns": None if connection.first_ns == NO_TIME else connection.first_ns,
                    "outcome": attempt.outcome,
                    "after_ns": attempt.after_ns,
                    "why": attempt.why or None,
                },
            )
        for acceptor, total in sorted(totals.items()):
            names = ("p50_ns", "p95_ns", "p99_ns", "max_ns")
            yield json_line(
                self.name,
                {
                    "acceptor": acceptor._asdict(),
                    "attempts": total.attempts,
                    "accepted": total.accepted,
                    "refused": total.refused,
                    "late": total.late,
                    **dict(zip(names, total.percentiles(), strict=True)),
                },
            )


def _is_attempt(connection: ConnectionRow) -> bool:
    begun = connection.side_known and not connection.midstream
    return bool(begun and connection.state != State.DATAGRAM)


def _why_refused(connection: ConnectionRow, accepting: set[tuple[Endpoint, int]]) -> str:
    """What an RST says: a socket's own has credit, and the port may have accepted others."""
    acceptor = ends(connection)[1]
    if connection.type != SocketType.DGRAM and not connection.marks & Mark.NO_SOCKET:
        return "by an RST with credit: a device of its own kind, or a listener that closes"
    if found_in(connection) >> Kind.RESTARTED & 1:
        return f"the acceptor still holds #{connection.previous}, of the same addresses"
    if (acceptor, connection.type) in accepting:
        return "no socket took it; the acceptor accepted others in this capture"
    if any(end == acceptor for end, _type in accepting):
        return "no socket took it; the acceptor accepted others of another type"
    return "no socket took it, nor any other connect in this capture"


def _total_row(end: Endpoint, total: _Totals, numeric: bool) -> tuple[str, ...]:
    others = total.attempts - total.accepted - total.refused - total.late
    return (
        shown(end, numeric),
        str(total.attempts),
        str(total.accepted),
        str(total.refused),
        str(total.late),
        str(others),
        f"{100 * total.accepted / total.attempts:.1f} %",
        *map(_span, total.percentiles()),
    )


def _span(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else span(nanoseconds)
