"""-z story and --explain: the story of a connection, or of those with the worst findings.

What is kept of packets, and how it is told, is story/'s; here the facts come together that
tracker, findings, dialogues and the other statistics have, and each is asked for by its own
words.

Rules for editors: of all connections only the worst are recorded, and from a window of the
latest packets on; nothing here costs more than columns for the others.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vsockdump.amounts import counted
from vsockdump.apps.message import Kind, OpenCall, Said
from vsockdump.batch import NO_TIME, Batch, Rows
from vsockdump.columns import Mask, tracked
from vsockdump.findings.collector import Case, Collector
from vsockdump.findings.rule import Event, Severity
from vsockdump.output.connects import Connects
from vsockdump.output.escaped import on_line
from vsockdump.output.findings import Findings, ends_of, said
from vsockdump.output.said import cut, short
from vsockdump.output.selection import Selection
from vsockdump.output.stalls import Stall, running, still_holds
from vsockdump.output.statistics import (
    PLAIN_WIDTH,
    StatisticError,
    ends,
    shown,
    socket_type,
    stalled_ns,
)
from vsockdump.output.tables import json_line
from vsockdump.story.model import (
    Facts,
    Found,
    Outcome,
    Protocol,
    Spoken,
    Story,
    Unanswered,
    Wait,
)
from vsockdump.story.packets import Recent, compact
from vsockdump.story.record import Recorder
from vsockdump.story.telling import tell
from vsockdump.story.text import Line, Pen, values
from vsockdump.track.store import ConnectionRow, FlowRow
from vsockdump.track.tracker import Tracker

if TYPE_CHECKING:
    from vsockdump.apps.dialogues import Dialogues

WRONG: Final = "wrong"
MOST_TOLD: Final = 5  # connections that `wrong` tells
_MOST_ALIKE: Final = 4  # connections that are recorded for the same finding
_MOST_RECORDED: Final = 64
_WINDOW: Final = 200_000  # packets, of all connections
_MOST_SAID: Final = 10_000  # messages of that window
_LONGEST_NAME: Final = 80
_LISTED: Final = 8  # numbers of connections in a sentence

_Entry = tuple[ConnectionRow, FlowRow, FlowRow]


def asked_for(argument: str) -> int | str:
    """The connection number, or WRONG; raises StatisticError."""
    if argument == WRONG:
        return WRONG
    number = argument if argument.isascii() and argument.isdigit() else ""
    if number and 0 < int(number) < 2**63:
        return int(number)
    raise StatisticError(
        "--explain (or -z story) takes the number of a connection, as in --explain 7, or the word"
        f" {WRONG}, not {argument or 'nothing'}."
    )


def make(
    argument: str,
    tracker: Tracker,
    selection: Selection | None,
    dialogues: "Dialogues | None",
    width: int,
) -> "Explained":
    """The story that is asked for."""
    asked = asked_for(argument)
    kind = WrongExplained if asked == WRONG else OneExplained
    one = kind(tracker, selection, dialogues=dialogues, width=width)
    if isinstance(one, OneExplained):
        one.conn = int(asked)
    return one


class Explained(Findings):
    """What the two have in common: stories out of recorders."""

    name = "story"

    def __init__(
        self,
        tracker: Tracker,
        selection: Selection | None = None,
        collector: Collector | None = None,
        dialogues: "Dialogues | None" = None,
        width: int = PLAIN_WIDTH,
    ) -> None:
        super().__init__(tracker, selection, collector)
        self._dialogues = dialogues
        self._width = width
        self._late = 0  # messages that came too late for their batch, and are taken

    # --- facts -------------------------------------------------------------------------------

    def _facts(
        self, entry: _Entry, recorder: Recorder, cases: Iterable[Case], numeric: bool
    ) -> Facts:
        row, *flows = entry
        self._take_calls(row.number, recorder)
        record = recorder.record()
        now = self._tracker.as_of_ns
        waits = [wait for wait in record.waits if still_holds(wait.side, wait.cause, flows)]
        waits += map(_wait, running(row, flows, now))
        one, other = (shown(end, numeric) for end in ends(row))
        return Facts(
            row,
            (flows[0], flows[1]),
            (one, other),
            socket_type(row),
            None if self._timeless else self._tracker.first_ns,
            None if self._timeless else now,
            self._outcome(entry),
            [self._found(case, numeric) for case in cases if case.event.conn in (0, row.number)],
            self._protocol(row.number),
            record._replace(waits=waits),
        )

    def _outcome(self, entry: _Entry) -> Outcome | None:
        attempt = Connects(self._tracker).attempt(*entry)
        return None if attempt is None else Outcome(attempt.outcome, attempt.after_ns, attempt.why)

    def _found(self, case: Case, numeric: bool) -> Found:
        event = case.event
        pairs = ends_of(self._tracker, [case])
        time_ns = None if event.time_ns == NO_TIME or self._timeless else event.time_ns
        text = said(case, pairs, numeric)
        place = event.conn, event.packet, time_ns
        return Found(case.rule, case.severity, *place, text, case.times, bool(event.open))

    def _protocol(self, conn: int) -> Protocol:
        if self._dialogues is None:
            return Protocol()
        from vsockdump.apps.dialogues import EVIDENCE
        from vsockdump.apps.nature import NATURES
        from vsockdump.apps.registry import name_of

        row = self._dialogues.of(conn)
        code = int(row["code"])
        return Protocol(
            name_of(code) if code else "",
            EVIDENCE[int(row["evidence"])],
            self._dialogues.software.get(conn, ""),
            NATURES[int(row["nature"])],
            int(row["since"]),
            True,
        )

    def _take_calls(self, conn: int, recorder: Recorder) -> None:
        """Requests that nobody has answered so far."""
        if self._dialogues is not None:
            recorder.talking.open = [
                _unanswered(call, True)
                for call in self._dialogues.open_calls()
                if call.conn == conn
            ]

    def _story(self, entry: _Entry, facts: Facts) -> Story:
        row, forth, back = entry
        initiator, acceptor = ends(row)
        return tell(
            facts,
            {
                "initiator": initiator._asdict(),
                "acceptor": acceptor._asdict(),
                "initiator_known": bool(row.side_known),
                "midstream": bool(row.midstream),
                "type": socket_type(row),
                "protocol": facts.protocol.name or None,
                "bytes": [forth.bytes, back.bytes],
                "stalled_ns": [stalled_ns(flow, self._tracker.as_of_ns) for flow in (forth, back)],
            },
        )

    def _entry(self, conn: int) -> _Entry | None:
        """A connection of the store."""
        store = self._tracker.store
        places = np.flatnonzero(store.connections["number"][: store.used] == conn)
        if not len(places):
            return None
        slot = int(places[0])
        forth, back = (FlowRow(*row) for row in store.flows[2 * slot : 2 * slot + 2].tolist())
        return ConnectionRow(*store.connections[slot].tolist()), forth, back

    # --- batches -------------------------------------------------------------------------------

    def _record(self, conn: int, recorder: Recorder, batch: Batch, rows: Rows) -> None:
        """Give a connection's part of a batch to its recorder."""
        for spoken in _spoken(conn, batch):
            recorder.talking.add(spoken)
        for call in batch.unanswered or ():
            if call.conn == conn:
                recorder.talking.add_unanswered(_unanswered(call, False))
        recorder.add(rows, _named(conn, batch), waits_of(conn, batch.stalls))

    def _take_late(self, recorders: dict[int, Recorder]) -> None:
        """What was said of connections whose protocol only the capture's end has told."""
        if self._dialogues is None:
            return
        late, self._late = self._dialogues.late[self._late :], len(self._dialogues.late)
        for one in late:
            if one.conn in recorders:
                recorders[one.conn].talking.add(spoken_of(one))


class OneExplained(Explained):
    """The story of connection `conn`."""

    conn = 0
    takes_late = True  # False: batches have what was understood late already

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.recorder = Recorder()

    def add(self, batch: Batch, mask: Mask | None = None) -> None:
        """Take a tracked batch, all of it: a filter chooses connections."""
        super().add(batch, mask)
        self.take(batch)

    def take(self, batch: Batch) -> None:
        """Take the connection's packets of a tracked batch."""
        own = tracked(batch)["conn"] == self.conn
        if own.any():
            self._record(self.conn, self.recorder, batch, compact(batch, own))

    def story(self, numeric: bool) -> Story | None:
        """The story so far, None where there is no such connection, or no packet is chosen."""
        entry = self._entry(self.conn)
        if entry is None or not self.recorder.count or not self._chosen:
            return None
        if self.takes_late:
            self._take_late({self.conn: self.recorder})
        facts = self._facts(entry, self.recorder, self.collector.cases(), numeric)
        return self._story(entry, facts)

    @property
    def _chosen(self) -> bool:
        return self._selection is None or self.conn in self._selection

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """Sentences, findings, chart."""
        story = self.story(numeric)
        if story is not None:
            pen = Pen(self._width)
            notes = [line for note in self._notes() for line in pen.wrapped(note)]
            for line in (*pen.lines(story), *notes):
                yield line.coloured(colour)

    def json_lines(self) -> Iterator[str]:
        """One object."""
        story = self.story(numeric=False)
        if story is not None:
            yield json_line(self.name, values(story))

    def complaint(self, source: str) -> str:
        """Why there is no story, in a sentence; "" where there is one."""
        count = self._tracker.connections
        if not self.recorder.count:
            there = f"only {counted(count, 'connection')}" if count else "nor any other"
            return f"{source} has no connection {self.conn}, {there}; -z conv lists them."
        if not self._chosen:
            return f"Connection {self.conn} of {source} has no packet that matches the filter."
        if self._entry(self.conn) is None:
            return f"Connection {self.conn} was forgotten; see --max-connections."
        return ""


class _Alike(NamedTuple):
    """Connections with the same findings, in order, and how bad these are."""

    severity: Severity
    conns: list[int]


class WrongExplained(Explained):
    """The stories of the connections with the worst findings, one for each set of findings."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._recorders: dict[int, Recorder] = {}
        self._recent = Recent(_WINDOW)
        self._recently_said: deque[Said] = deque(maxlen=_MOST_SAID)
        self._alike: dict[str, int] = {}  # how many are recorded for a finding

    def add(self, batch: Batch, mask: Mask | None = None) -> None:
        """Take a tracked batch; who has a bad finding is recorded from now on."""
        super().add(batch, mask)
        conns = tracked(batch)["conn"]
        for conn, recorder in self._recorders.items():
            own = conns == conn
            if own.any():
                self._record(conn, recorder, batch, compact(batch, own))
        self._recent.add(batch)
        for group in (batch.said or {}).values():
            self._recently_said += [one._replace(data=b"") for one in group]
        for conn in self._newly_wrong(batch):
            self._recorders[conn] = self._recorded(conn, batch)

    def _newly_wrong(self, batch: Batch) -> list[int]:
        """Connections whose first bad finding is in the batch, as many as are recorded."""
        assert batch.events is not None
        found: list[int] = []
        for event in (Event(*row) for row in batch.events.tolist()):
            case = Case(event, 1, event)
            known = event.conn in self._recorders or event.conn in found or not event.conn
            if known or case.severity < Severity.WARN:
                continue
            alike = self._alike.get(case.rule.name, 0)
            if alike < _MOST_ALIKE and len(self._recorders) + len(found) < _MOST_RECORDED:
                self._alike[case.rule.name] = alike + 1
                found.append(event.conn)
        return found

    def _recorded(self, conn: int, batch: Batch | None = None) -> Recorder:
        """A recorder of what is still there of a connection's packets."""
        rows = self._recent.of(conn)
        entry = self._entry(conn)
        total = entry[1].packets + entry[2].packets if entry else len(rows)
        recorder = Recorder(max(total - len(rows), 0))
        for one in self._recently_said:
            if one.conn == conn:
                recorder.talking.add(spoken_of(one))
        named = () if batch is None else _named(conn, batch)
        stalls = None if batch is None else batch.stalls
        recorder.add(rows, named, waits_of(conn, stalls))
        return recorder

    def _worst(self, cases: list[Case]) -> list[_Alike]:
        """The connections with bad findings by their sets of them, the worst first."""
        sets: dict[int, dict[str, Severity]] = {}
        for case in cases:
            if case.event.conn and case.severity >= Severity.WARN and self._is_selected(case):
                sets.setdefault(case.event.conn, {})[case.rule.name] = case.severity
        groups: dict[frozenset[str], _Alike] = {}
        for conn, rules in sets.items():
            alike = groups.setdefault(frozenset(rules), _Alike(max(rules.values()), []))
            alike.conns.append(conn)
        return sorted(groups.values(), key=lambda one: (-one.severity, min(one.conns)))

    def _stories(self, numeric: bool) -> Iterator[tuple[Story, _Alike]]:
        cases = self.collector.cases()
        for alike in self._worst(cases)[:MOST_TOLD]:
            conn = min(alike.conns, key=lambda one: (one not in self._recorders, one))
            recorder = self._recorders.get(conn) or self._recorded(conn)
            entry = self._entry(conn)
            if entry is None:
                continue
            self._take_late({conn: recorder})
            yield self._story(entry, self._facts(entry, recorder, cases, numeric)), alike

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """Which connections are told, then the stories."""
        for line in self._told(Pen(self._width), numeric):
            yield line.coloured(colour)

    def _told(self, pen: Pen, numeric: bool) -> Iterator[Line]:
        groups = self._worst(self.collector.cases())
        yield from pen.wrapped(self._title(groups))
        for story, alike in self._stories(numeric):
            yield Line("")
            yield from pen.lines(story)
            same = [conn for conn in sorted(alike.conns) if conn != story.facts.connection.number]
            if same:
                yield from pen.wrapped(f"The same was found in {_numbers(same)}.")
        left = [conn for group in groups[MOST_TOLD:] for conn in group.conns]
        if left:
            yield Line("")
            yield from pen.wrapped(f"Not told, with other findings: {_numbers(sorted(left))}.")
        for note in self._notes():
            yield from pen.wrapped(note)

    def _title(self, groups: list[_Alike]) -> str:
        if not groups:
            return "No connection has a finding that is a warning or an error."
        conns = sum(len(group.conns) for group in groups)
        count = min(len(groups), MOST_TOLD)
        told = f"{count} of {len(groups)} kinds are" if len(groups) > MOST_TOLD else "each kind is"
        return (
            f"{counted(conns, 'connection')} with findings that are warnings or errors, of"
            f" {counted(len(groups), 'kind')}; one connection of {told} told, the worst first."
        )

    def json_lines(self) -> Iterator[str]:
        """One object a story; `same_findings` are the connections it stands for."""
        for story, alike in self._stories(numeric=False):
            same = [conn for conn in sorted(alike.conns) if conn != story.facts.connection.number]
            yield json_line(self.name, values(story) | {"same_findings": same})


def _numbers(conns: list[int]) -> str:
    """`connections 2, 5, 9 and 40 more`."""
    named = ", ".join(map(str, conns[:_LISTED]))
    more = len(conns) - _LISTED
    noun = "connection" if len(conns) == 1 else "connections"
    return f"{noun} {named}" + (f" and {more} more" if more > 0 else "")


def _named(conn: int, batch: Batch) -> list[int]:
    """The packets of a batch that findings of the connection name."""
    assert batch.events is not None
    packets: list[int] = batch.events["packet"][batch.events["conn"] == conn].tolist()
    return packets


def waits_of(conn: int, stalls: Rows | None) -> list[Wait]:
    """The waits of a connection that have ended, of rows of track.store.STALL_DTYPE."""
    if stalls is None:
        return []
    columns = [stalls[name][stalls["conn"] == conn].tolist() for name in Stall._fields]
    return [_wait(Stall(*row)) for row in zip(*columns, strict=True)]


def _wait(stall: Stall) -> Wait:
    place = stall.start_ns, stall.end_ns, stall.first_packet, stall.packet
    return Wait(stall.side, *place, stall.in_flight, stall.cause)


def _spoken(conn: int, batch: Batch) -> Iterator[Spoken]:
    for group in (batch.said or {}).values():
        for one in group:
            if one.conn == conn:
                yield spoken_of(one)


def spoken_of(one: Said) -> Spoken:
    """A message as the story tells it: escaped, and cut where it is long."""
    call = one.message.call
    return Spoken(
        one.packet,
        None if one.time_ns == NO_TIME else one.time_ns,
        one.side,
        str(one.message.kind),
        short(one),
        _name(call.method) if call else "",
        None if call is None or call.error is None else _name(call.error),
        one.latency_ns,
        one.request_packet if one.message.kind != Kind.REQUEST else None,
        call is None or call.ends,
    )


def _unanswered(call: OpenCall, is_open: bool) -> Unanswered:
    time_ns = None if call.time_ns == NO_TIME else call.time_ns
    return Unanswered(call.packet, time_ns, call.side, _name(call.method), is_open)


def _name(text: str) -> str:
    return cut(on_line(text), _LONGEST_NAME)
