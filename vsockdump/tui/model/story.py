"""The story of a connection as it is known now.

Its packets are gone over once, and those that come since when it is told again.

Rules for editors: the story is that of --explain; here its recorder is given the packets of the
index with the findings and stalls that the capture keeps beside them.
"""

from typing import Final

import numpy as np

from vsockdump.batch import Batch, Rows
from vsockdump.output.story import OneExplained
from vsockdump.story.model import Story
from vsockdump.track.store import EVENT_DTYPE, STALL_DTYPE
from vsockdump.tui.model.again import AT_ONCE
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.passes import numbers_of, of_connections

_NO_STALLS: Final = np.zeros(0, STALL_DTYPE)


class Telling:
    """Tells connection `conn`; for one thread at a time.

    `late` is how many messages had been understood late when it was begun: with more of them it
    is out of date.
    """

    def __init__(self, capture: Capture, conn: int) -> None:
        self.conn = conn
        self.late = capture.messages.late
        self._capture = capture
        self._again = capture.again()
        self._stalls_seen = 0
        entry = capture.connection(conn)
        self._done = entry[0].first_packet - 1 if entry else 0
        self._one = OneExplained(
            capture.tracker, collector=capture.collector, dialogues=capture.dialogues
        )
        self._one.conn, self._one.takes_late = conn, False

    def story(self, numeric: bool) -> Story | None:
        """The story so far; CaptureError where the file no longer has the packets."""
        stalls, events = self._stalls(), self._events()
        count = len(self._capture.index)
        while self._done < count:
            numbers = numbers_of(self._done + 1, min(count - self._done, AT_ONCE))
            self._done += len(numbers)
            own = of_connections(self._capture, numbers, ((self.conn, self.conn),))
            for batch in self._again.batches(own):
                self._one.take(_with(batch, stalls, events))
        with self._capture.frozen():
            return self._one.story(numeric)

    def _stalls(self) -> Rows:
        """The stalls of the connection that have ended since the last call."""
        first, self._stalls_seen = self._stalls_seen, self._capture.stalls.count
        parts = [part[part["conn"] == self.conn] for part in self._capture.stalls.parts(first)]
        return np.concatenate(parts) if parts else _NO_STALLS

    def _events(self) -> Rows:
        """What of the findings of the connection a recorder looks at: their packets."""
        with self._capture.frozen():
            cases = self._capture.collector.cases()
        packets = [case.event.packet for case in cases if case.event.conn == self.conn]
        events = np.zeros(len(packets), EVENT_DTYPE)
        events["conn"], events["packet"] = self.conn, packets
        return events


def _with(batch: Batch, stalls: Rows, events: Rows) -> Batch:
    """The batch with the stalls and events that are its packets'."""
    numbers = batch.rows["number"]
    first, last = (int(numbers[0]), int(numbers[-1])) if len(numbers) else (1, 0)
    batch.stalls = stalls[(stalls["packet"] >= first) & (stalls["packet"] <= last)]
    batch.events = events
    return batch
