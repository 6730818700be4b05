"""The findings of a capture: what the tracker noticed, by rule and connection.

Of each rule in each connection the first case is kept, how often it was seen, and the largest
number.  Events are rare; the packets that only repeat them are counted by column.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from vsockdump.address import Endpoint
from vsockdump.batch import Batch, Layers
from vsockdump.findings.overdue import overdue
from vsockdump.findings.registry import BY_KIND, marks_of_severity
from vsockdump.findings.rule import Event, Rule, Severity, sentence
from vsockdump.track.kinds import Kind
from vsockdump.track.marks import KIND_OF, Mark
from vsockdump.track.tracker import Tracker

CAP: Final = 100_000
# Chat is once per connection by its nature, and may be in every packet.
_COUNTED: Final = marks_of_severity(Severity.NOTE, Severity.WARN, Severity.ERROR)


class Case(NamedTuple):
    """A rule in a connection: its first event, how often, the largest `a`."""

    event: Event
    times: int
    most: int

    @property
    def rule(self) -> Rule:
        """The rule."""
        return BY_KIND[self.event.kind]

    @property
    def severity(self) -> Severity:
        """The rule's, or less where there is doubt."""
        return self.rule.severity_with(self.event.doubt)


class Group(NamedTuple):
    """A rule and its cases, in order of their first packets."""

    rule: Rule
    cases: list[Case]

    @property
    def severity(self) -> Severity:
        """Of the worst case."""
        return max(case.severity for case in self.cases)

    @property
    def times(self) -> int:
        """How often it was seen in all."""
        return sum(case.times for case in self.cases)


class Collector:
    """Takes tracked batches; `left_out` counts the cases beyond CAP."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._cases: dict[tuple[int, int], Case] = {}
        self._dropped: Event | None = None
        self.left_out = 0

    def add(self, batch: Batch) -> None:
        """Take a tracked batch."""
        assert batch.tracked is not None
        assert batch.events is not None
        for values in batch.events.tolist():
            self._take(Event(*values))
        marks = batch.tracked["marks"]
        if len(marks):
            self._count(batch, int(np.bitwise_or.reduce(marks)) & _COUNTED)

    def dropped(self, dropped: int, received: int) -> None:
        """What the kernel, or a pcapng file by its statistics, says was dropped of all packets."""
        if dropped:
            now = self._tracker.last_ns
            self._dropped = Event(int(Kind.DROPPED), 0, 0, now, dropped, received, 0)

    def _take(self, event: Event) -> None:
        key = event.kind, event.conn
        known = self._cases.get(key)
        if known is not None:
            self._cases[key] = known._replace(most=max(known.most, event.a))
        elif len(self._cases) < CAP:
            self._cases[key] = Case(event, 0, event.a)
        else:
            self.left_out += 1

    def _count(self, batch: Batch, present: int) -> None:
        """Count the packets of each mark that is present, by connection."""
        assert batch.tracked is not None
        marks, conns = batch.tracked["marks"], batch.tracked["conn"]
        while present:
            mark = present & -present
            present ^= mark
            kind = int(KIND_OF[Mark(mark)])
            of_mark = conns[(marks & np.uint64(mark)) != 0]
            if kind == Kind.TIME_BACK:  # of no connection, whatever the packet is
                of_mark = np.zeros_like(of_mark)
            for conn, count in zip(*np.unique(of_mark, return_counts=True), strict=True):
                known = self._cases.get((kind, int(conn)))
                if known is not None:
                    self._cases[kind, int(conn)] = known._replace(times=known.times + int(count))

    def case(self, kind: int, conn: int) -> Case | None:
        """What was kept of a rule in a connection."""
        return self._cases.get((kind, conn))

    def cases(self) -> list[Case]:
        """All there is so far, in order of packets, with what only time tells."""
        found = dict(self._cases)
        for event in overdue(self._tracker):
            known = found.get((event.kind, event.conn))
            if known is None:
                found[event.kind, event.conn] = Case(event, 1, event.a)
            else:
                most = max(known.most, event.a)
                found[event.kind, event.conn] = known._replace(times=known.times + 1, most=most)
        # What was said of a connection at its end by a packet of the next one has no mark.
        cases = [case._replace(times=max(case.times, 1)) for case in found.values()]
        if self._dropped is not None:
            cases.append(Case(self._dropped, self._dropped.a, self._dropped.a))
        return sorted(cases, key=lambda case: (case.event.packet, case.event.conn))

    def groups(self) -> list[Group]:
        """The cases by rule, the worst first; of equals the one that began first."""
        groups: dict[int, Group] = {}
        for case in self.cases():
            groups.setdefault(case.event.kind, Group(case.rule, [])).cases.append(case)
        return sorted(groups.values(), key=lambda group: -group.severity)


def events_by_packet(batch: Batch) -> Iterator[tuple[int, list[Event]]]:
    """(row, its events) of the rows of a tracked batch that have some.

    The rows may be any part of those that were tracked.  Events of a connection that the
    packet only put an end to are left out: they are not said of the packet.
    """
    assert batch.events is not None
    assert batch.tracked is not None
    if not len(batch.events):
        return
    events: dict[int, list[Event]] = {}
    for values in batch.events.tolist():
        event = Event(*values)
        events.setdefault(event.packet, []).append(event)
    numbers = batch.rows["number"]
    rows = np.searchsorted(numbers, np.array(list(events), np.uint64))
    for row, (packet, found) in zip(rows.tolist(), events.items(), strict=True):
        if row < len(numbers) and numbers[row] == packet:
            conn = int(batch.tracked["conn"][row])
            yield row, [event for event in found if event.conn in (0, conn)]


def packet_sentence(batch: Batch, row: int, event: Event) -> str:
    """The sentence of an event of a packet, with the addresses of its header."""
    assert batch.tracked is not None
    if batch.rows["layers"][row] != int(Layers.VIRTIO):
        return sentence(BY_KIND[event.kind], event)
    header = batch.rows["virtio"][row]
    src = str(Endpoint(int(header["src_cid"]), int(header["src_port"])))
    dst = str(Endpoint(int(header["dst_cid"]), int(header["dst_port"])))
    ends = (dst, src) if batch.tracked["side"][row] else (src, dst)
    return sentence(BY_KIND[event.kind], event, ends)
