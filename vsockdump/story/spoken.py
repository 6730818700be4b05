"""What is kept of the application messages of one connection.

Of few all are told; of many the first ones, those that failed, those that took longest and the
last.  All are counted.

Rules for editors: bounded, as record.py.  A heap keeps the slowest: a call that stands there
may stand among the first ones too.
"""

from collections import deque
from heapq import heappush, heappushpop
from typing import Final

from vsockdump.story.model import Spoken, Talk, Unanswered

MOST_FIRST: Final = 12
MOST_FAILED: Final = 10
MOST_SLOW: Final = 3
MOST_LAST: Final = 2
MOST_NOTES: Final = 5
MOST_UNANSWERED: Final = 10


class Talking:
    """Takes messages in order."""

    def __init__(self) -> None:
        self._first: list[Spoken] = []
        self._failed: list[Spoken] = []
        self._notes: list[Spoken] = []
        self._last: deque[Spoken] = deque(maxlen=MOST_LAST)
        self._slow: list[tuple[int, int, Spoken]] = []  # a heap, the quickest first
        self._unanswered: list[Unanswered] = []
        self.open: list[Unanswered] = []  # requests that may yet be answered
        self._messages = self._requests = self._calls = self._without_answer = 0
        self._failures = self._order = 0

    def add(self, spoken: Spoken) -> None:
        """One more."""
        if spoken.kind == "note":
            if len(self._notes) < MOST_NOTES:
                self._notes.append(spoken)
            return
        self._messages += 1
        if len(self._first) < MOST_FIRST:
            self._first.append(spoken)
        self._last.append(spoken)
        if spoken.kind == "request":
            self._requests += 1
        elif spoken.request_packet is not None and spoken.ends:
            self._calls += 1
            self._note_slow(spoken)
        if spoken.error is not None:
            self._failures += 1
            if len(self._failed) < MOST_FAILED:
                self._failed.append(spoken)

    def add_unanswered(self, call: Unanswered) -> None:
        """A request that nobody answers any more."""
        self._without_answer += 1
        if len(self._unanswered) < MOST_UNANSWERED:
            self._unanswered.append(call)

    def _note_slow(self, spoken: Spoken) -> None:
        if spoken.latency_ns is None:
            return
        self._order -= 1  # of two that took as long the first is kept
        entry = spoken.latency_ns, self._order, spoken
        if len(self._slow) < MOST_SLOW:
            heappush(self._slow, entry)
        else:
            heappushpop(self._slow, entry)

    @property
    def packets(self) -> set[int]:
        """The packets of the messages that are kept."""
        return {spoken.packet for spoken in self._kept()}

    def _kept(self) -> list[Spoken]:
        slow = [entry[2] for entry in self._slow]
        every = [*self._first, *self._failed, *slow, *self._last, *self._notes]
        return sorted({id(one): one for one in every}.values(), key=lambda one: one.packet)

    def talk(self) -> Talk:
        """What is kept, in order, and the numbers."""
        return Talk(
            self._kept(),
            [*self._unanswered, *self.open[:MOST_UNANSWERED]],
            self._messages,
            self._requests,
            self._calls,
            self._failures,
            self._without_answer + len(self.open),
            max(self._slow)[2] if self._slow else None,
        )
