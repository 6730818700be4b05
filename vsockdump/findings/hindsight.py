"""What only the end of a capture tells of its packets, for filters that ask what was found.

A stall that goes on, a connect that nobody answers, are seen when nothing has come by the end;
that a sender has no limit of its own may be seen late.  A file is therefore read once before,
and what was learnt is known when its packets are chosen.  So a filter and the tables agree.

Rules for editors: only the choice sees this.  What is counted and printed is the tracker's word
at the packet, and the tables judge the end by themselves.
"""

from collections.abc import Iterable

import numpy as np

from vsockdump.batch import Batch, Rows
from vsockdump.findings.overdue import overdue
from vsockdump.findings.registry import BY_KIND
from vsockdump.findings.rule import Event, Severity
from vsockdump.track.kinds import HANGS
from vsockdump.track.marks import MARK_OF, Mark
from vsockdump.track.store import EVENT_DTYPE
from vsockdump.track.tracker import Tracker


class Hindsight:
    """Made of a tracker that has seen all batches and was told that this is the end."""

    def __init__(self, tracker: Tracker) -> None:
        self.uncapped = tracker.uncapped()
        events = [event for event in overdue(tracker) if event.packet]
        hanging = [event for event in events if _is_worse(event)]
        events += [event._replace(kind=HANGS) for event in hanging]
        events.sort(key=lambda event: event.packet)
        self._events = np.array([tuple(event) for event in events], EVENT_DTYPE)

    def of(self, batch: Batch) -> Batch:
        """A tracked batch as it is seen from the end: the same, or a copy with more events."""
        numbers = batch.rows["number"]
        if not len(numbers) or not len(self._events):
            return batch
        packets = self._events["packet"]
        first, last = np.searchsorted(packets, (numbers.min(), numbers.max() + np.uint64(1)))
        inside = self._events[first:last][batch.rows_of(packets[first:last])[1]]
        return _with_events(batch, inside) if len(inside) else batch


def _is_worse(event: Event) -> bool:
    """Whether it is a warning although its rule is none."""
    rule = BY_KIND[event.kind]
    return rule.severity < Severity.WARN <= rule.severity_of(event)


def _with_events(batch: Batch, events: Rows) -> Batch:
    assert batch.tracked is not None
    assert batch.events is not None
    seen = batch.head(len(batch))
    seen.tracked = batch.tracked.copy()
    seen.events = np.concatenate((batch.events, events))
    rows, _there = batch.rows_of(events["packet"])
    for row, kind in zip(rows.tolist(), events["kind"].tolist(), strict=True):
        seen.tracked["marks"][row] |= np.uint64(MARK_OF.get(kind, Mark.MORE))
    return seen


def look_ahead(batches: Iterable[Batch], tracker: Tracker) -> Hindsight:
    """Track all batches, and judge their end."""
    for batch in batches:
        tracker.track(batch)
    tracker.finish()
    return Hindsight(tracker)
