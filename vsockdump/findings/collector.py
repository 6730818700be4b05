"""The findings of a capture: what the tracker noticed, by rule and connection.

Of each rule in each connection the first case is kept, how often it was seen, and the worst:
the largest number, which the store keeps.  Events are rare; the packets that only repeat them
are counted by column.  What the store has taken back since is no case.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from vsockdump.address import Endpoint
from vsockdump.batch import Batch, Layers, Rows
from vsockdump.findings.overdue import overdue
from vsockdump.findings.registry import BY_KIND, marks_of_severity
from vsockdump.findings.rule import Event, Rule, Severity, sentence
from vsockdump.track.kinds import Cause, Doubt, Kind
from vsockdump.track.marks import KIND_OF, MARK_OF, Mark
from vsockdump.track.store import Store
from vsockdump.track.tracker import Tracker

CAP: Final = 100_000
# Chat is once per connection by its nature, and may be in every packet.
_COUNTED: Final = marks_of_severity(Severity.NOTE, Severity.WARN, Severity.ERROR)


class Case(NamedTuple):
    """A rule in a connection: its first event, how often, and the one with the largest `a`."""

    event: Event
    times: int
    worst: Event

    @property
    def most(self) -> int:
        """The largest `a`."""
        return self.worst.a

    @property
    def rule(self) -> Rule:
        """The rule."""
        return BY_KIND[self.event.kind]

    @property
    def severity(self) -> Severity:
        """The rule's, or less where there is doubt."""
        return max(self.rule.severity_of(self.event), self.rule.severity_of(self.worst))


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
        unmarked = int(MARK_OF[event.kind] == Mark.MORE)  # _count does not see it
        known = self._cases.get(key)
        if known is not None:
            self._cases[key] = _joined(known, event, unmarked)
        elif len(self._cases) < CAP:
            self._cases[key] = Case(event, unmarked, event)
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
            if kind in (Kind.TIME_BACK, Kind.COPIES):  # of no connection, whatever the packet is
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
        found = self._as_they_stand()
        for event in overdue(self._tracker):
            known = found.get((event.kind, event.conn))
            found[event.kind, event.conn] = (
                Case(event, 1, event) if known is None else _joined(known, event, 1)
            )
        # What was said of a connection at its end by a packet of the next one has no mark.
        cases = [case._replace(times=max(case.times, 1)) for case in found.values()]
        if self._dropped is not None:
            cases.append(Case(self._dropped, self._dropped.a, self._dropped))
        return sorted(cases, key=lambda case: (case.event.packet, case.event.conn))

    def _as_they_stand(self) -> dict[tuple[int, int], Case]:
        """The cases with what the store knows of their connections by now."""
        self._tracker.store.void_own_stalls()
        conns = np.fromiter({conn for _kind, conn in self._cases if conn}, np.uint64)
        slots = dict(zip(conns.tolist(), self._tracker.store.slots_of(conns).tolist(), strict=True))
        found = {}
        for key, case in self._cases.items():
            slot = slots.get(key[1], -1)
            standing = case if slot < 0 else self._standing(case, slot)
            if standing is not None:
                found[key] = standing
        return found

    def _standing(self, case: Case, slot: int) -> Case | None:
        """A case of a connection that is known still; None where it was taken back."""
        kind = case.event.kind
        row = self._tracker.store.connections[slot : slot + 1]
        found = row["found_high" if kind >= 64 else "found_low"][0]
        if not int(found) >> kind % 64 & 1:
            return None
        worst = largest(self._tracker.store, slot, case.worst) if case.rule.most else case.worst
        doubt = int(row["doubt"][0]) & ~Doubt.MISSING
        if doubt and case.rule.severity > Severity.CHAT and kind != Kind.OUT_OF_ORDER:
            case = case._replace(event=case.event._replace(doubt=case.event.doubt | doubt))
            worst = worst._replace(doubt=worst.doubt | doubt)
        return case._replace(worst=worst)

    def groups(self) -> list[Group]:
        """The cases by rule, the worst first; of equals what may cause others, then the first."""
        groups: dict[int, Group] = {}
        for case in self.cases():
            groups.setdefault(case.event.kind, Group(case.rule, [])).cases.append(case)
        return sorted(groups.values(), key=_order)


def _joined(known: Case, event: Event, more: int) -> Case:
    """A case with one more event: the first stays, and what is proven later was so at first."""
    first, worst = known.event, known.worst
    if first.doubt & Doubt.MISSING and not event.doubt and not event.open:
        first = first._replace(doubt=first.doubt & ~Doubt.MISSING)
        worst = worst._replace(doubt=worst.doubt & ~Doubt.MISSING)
    if event.a > worst.a:
        worst = event._replace(doubt=first.doubt)
    return Case(first, known.times + more, worst)


def _order(group: Group) -> tuple[int, bool]:
    return -group.severity, group.rule.group != "capture"


def largest(store: Store, slot: int, event: Event) -> Event:
    """The event of a rule that can get worse with the largest number of its connection."""
    flows = store.flows[2 * slot : 2 * slot + 2]
    extras = store.extras[flows["extra"]]
    match event.kind:
        case Kind.OVER_CREDIT:
            return event._replace(a=max(event.a, int(extras["over"][event.side])))
        case Kind.RST_STORM:
            return event._replace(a=int(flows["rsts"][event.side]))
        case Kind.STALL:
            return _longest_stall(flows, extras, event)
    return event


def _longest_stall(flows: Rows, extras: Rows, event: Event) -> Event:
    """The longest stall of both sides; at a sender's own buffer they are counted apart."""
    for side in (0, 1):
        own = int(extras["own_longest_ns"][side])
        if own > event.a:
            packet, flight = int(extras["own_longest_packet"][side]), int(flows["buf"][side])
            event = event._replace(
                a=own, b=flight, side=side, packet=packet, cause=Cause.OWN_BUFFER
            )
        length = int(flows["longest_stall_ns"][side])
        if length > event.a:
            packet, flight = int(flows["longest_packet"][side]), int(flows["longest_flight"][side])
            cause = int(flows["longest_cause"][side])
            event = event._replace(a=length, b=flight, side=side, packet=packet, cause=cause)
    return event


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
    rows, there = batch.rows_of(np.array(list(events), np.uint64))
    for row, inside, found in zip(rows.tolist(), there.tolist(), events.values(), strict=True):
        if inside:
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
