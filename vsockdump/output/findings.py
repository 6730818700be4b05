"""-z findings: what is wrong in a capture, the worst first, with the first packet of each.

What is noticed is the tracker's, what is said of it the registry's; here is only how it is
listed.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from vsockdump.address import Endpoint
from vsockdump.batch import NO_TIME, Batch
from vsockdump.columns import Mask
from vsockdump.findings.collector import Case, Collector, Group
from vsockdump.findings.overdue import overdue
from vsockdump.findings.rule import UNKNOWN_ENDS, Severity, sentence
from vsockdump.output.statistics import SIDES, OfStore, Selection
from vsockdump.output.tables import counted, json_line, seconds
from vsockdump.track.tracker import Tracker

_LISTED: Final = 10  # cases of a rule that the text lists; JSON has all
_COLOURS: Final = {
    Severity.ERROR: "\033[1;31m",
    Severity.WARN: "\033[33m",
    Severity.NOTE: "\033[36m",
    Severity.CHAT: "\033[2m",
}
_PLAIN: Final = "\033[0m"

Ends = dict[int, tuple[Endpoint, Endpoint]]


class Findings(OfStore):
    """Groups by rule; of a filter those of the connections that have a packet it chose."""

    name = "findings"

    def __init__(
        self,
        tracker: Tracker,
        selection: Selection | None = None,
        collector: Collector | None = None,
    ) -> None:
        super().__init__(tracker, selection)
        self.collector = collector or Collector(tracker)

    def add(self, batch: Batch, mask: Mask | None = None) -> None:
        """Take a tracked batch, all of it: a connection is judged by all its packets."""
        self.collector.add(batch)

    def _groups(self) -> Iterator[Group]:
        for group in self.collector.groups():
            cases = [case for case in group.cases if self._is_selected(case)]
            if cases:
                yield group._replace(cases=cases)

    def worst(self) -> Severity | None:
        """The severity of the worst."""
        return max((group.severity for group in self._groups()), default=None)

    def _is_selected(self, case: Case) -> bool:
        conn = case.event.conn
        return self._selection is None or not conn or conn in self._selection

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """How many, then a block a rule."""
        groups = list(self._groups())
        yield _title(groups)
        for group in groups:
            yield ""
            yield from self._block(group, numeric, colour)
        if self.collector.left_out:
            yield f"{counted(self.collector.left_out, 'more case')} were found and not kept."
        yield from self._notes()

    def _block(self, group: Group, numeric: bool, colour: bool) -> Iterator[str]:
        severity = group.severity
        word = f"{_COLOURS[severity]}{severity.word}{_PLAIN}" if colour else severity.word
        yield f"{word} {group.rule.name}: {group.rule.what} ({how_often(group)})"
        listed = group.cases[:_LISTED]
        pairs = ends_of(self._tracker, listed)
        for case in listed:
            yield f"  {self._where(case)}: {said(case, pairs, numeric)}"
        if len(group.cases) > _LISTED:
            yield f"  and in {counted(len(group.cases) - _LISTED, 'more connection')}"

    def _where(self, case: Case) -> str:
        """Connection, packet and time of a case, as far as it has them."""
        event = case.event
        conn = f"#{event.conn}" if event.conn else "#-"
        packet = f" packet {event.packet}" if event.packet else ""
        known = event.time_ns != NO_TIME and not self._timeless
        return conn + packet + (f" at {seconds(self._since_first(event.time_ns))}" if known else "")

    def json_lines(self) -> Iterator[str]:
        """One object a rule and connection."""
        groups = list(self._groups())
        pairs = ends_of(self._tracker, (case for group in groups for case in group.cases))
        for group in groups:
            for case in group.cases:
                event, pair = case.event, pairs.get(case.event.conn)
                yield json_line(
                    self.name,
                    {
                        "finding": group.rule.name,
                        "severity": case.severity.word,
                        "conn": event.conn or None,
                        "initiator": pair[0]._asdict() if pair else None,
                        "acceptor": pair[1]._asdict() if pair else None,
                        "of": SIDES[event.side] if pair else None,
                        "packet": event.packet or None,
                        "time_ns": None if event.time_ns == NO_TIME else event.time_ns,
                        "times": case.times,
                        "goes_on": bool(event.open),
                        "a": event.a,
                        "b": event.b,
                        "most": case.most,
                        "message": said(case, pairs, numeric=False),
                    },
                )


class Overdue:
    """Lines for what only time tells, each case once, for the packet lines of a live capture."""

    def __init__(self, tracker: Tracker, selection: Selection | None = None) -> None:
        self._tracker = tracker
        self._selection = selection
        self._told: set[tuple[int, int, int]] = set()

    def lines(self, numeric: bool) -> Iterator[str]:
        """What has come about since the last call, as of the tracker's time."""
        cases = [Case(event, 1, event) for event in overdue(self._tracker)]
        keys = [(case.event.kind, case.event.conn, case.event.time_ns) for case in cases]
        fresh = [case for case, key in zip(cases, keys, strict=True) if key not in self._told]
        self._told = set(keys)  # those that wait no more are forgotten
        pairs = ends_of(self._tracker, fresh) if fresh else {}
        for case in fresh:
            if self._selection is None or case.event.conn in self._selection:
                text = said(case, pairs, numeric)
                wrong = case.severity >= Severity.WARN
                yield f"#{case.event.conn} " + (f"! {text}" if wrong else f"[{text}]")


def ends_of(tracker: Tracker, cases: Iterable[Case]) -> Ends:
    """Initiator and acceptor of each connection that is still known."""
    store = tracker.store
    rows = store.connections[: store.used]
    wanted = rows[np.isin(rows["number"], [case.event.conn for case in cases])]
    return {
        int(row["number"]): (
            Endpoint(int(row["initiator_cid"]), int(row["initiator_port"])),
            Endpoint(int(row["acceptor_cid"]), int(row["acceptor_port"])),
        )
        for row in wanted
    }


def _title(groups: list[Group]) -> str:
    """How many findings of each severity, in how many connections."""
    if not groups:
        return "no findings"
    numbers = dict.fromkeys(reversed(Severity), 0)
    for group in groups:
        numbers[group.severity] += 1
    listed = [f"{number} {severity.word}" for severity, number in numbers.items() if number]
    conns = {case.event.conn for group in groups for case in group.cases} - {0}
    where = f" in {counted(len(conns), 'connection')}" if conns else ""
    return f"{counted(len(groups), 'finding')} ({', '.join(listed)}){where}"


def how_often(group: Group) -> str:
    """How many times a rule held, in how many connections."""
    conns = sum(1 for case in group.cases if case.event.conn)
    times = counted(group.times, "time")
    return f"{times} in {counted(conns, 'connection')}" if conns else times


def said(case: Case, pairs: Ends, numeric: bool) -> str:
    """The sentence of a case: the worst of it, or the first; which, where there were several."""
    pair = pairs.get(case.event.conn)
    names = UNKNOWN_ENDS
    if pair is not None:
        first, second = (end.numeric() if numeric else str(end) for end in pair)
        names = first, second
    text = sentence(case.rule, case.worst, names)
    if case.times > 1:
        text += f" [{case.times} times, the {case.rule.most or 'first'} of them]"
    return text
