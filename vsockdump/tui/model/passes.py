"""Going over all packets a second time, in a thread of its own, and keeping up as they grow.

A filter that is set later, a search, a statistic of what a filter chooses: each is a Pass.  It
reads the packets from the file again in the chunks in which the tracker saw them, and can be
cancelled between two.

A filter's pass uses the evaluator of the command line.  Where it can only match in some
connections, the others' packets are passed over by the index without being read.
"""

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Batch
from vsockdump.capture.errors import CaptureError
from vsockdump.filters.filter import Filter
from vsockdump.filters.masks import within
from vsockdump.filters.tree import And, Compare, Node, Ranges
from vsockdump.tui.model.again import AT_ONCE, Again
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.spool import Spool

_CONN: Final = "vsock.conn"

Numbers = NDArray[np.uint64]


def numbers_of(first: int, count: int) -> Numbers:
    """`count` packet numbers from `first` on."""
    return np.arange(first, first + count, dtype=np.uint64)


def connections_of(tree: Node) -> Ranges | None:
    """The numbers of connections outside of which a lowered tree does not hold; None: any."""
    match tree:
        case And(terms):
            return next(filter(None, map(connections_of, terms)), None)
        case Compare(source, values, None) if source == _CONN:
            return values
    return None


class Pass:
    """Gives all packets of a capture to `take`, until cancelled; `done` is how far it has come.

    `conns`: only those of these connections; `first`: from this packet on.  `ended` is called,
    in the thread too, when no packet will follow.  `trouble` is what ended it early, "" if nothing.
    """

    def __init__(
        self,
        capture: Capture,
        take: Callable[[Batch], None],
        conns: Ranges | None = None,
        first: int = 1,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.done = first - 1
        self.trouble = ""
        self._capture = capture
        self._take = take
        self._ended = ended
        self._conns = conns
        self._cancelled = False
        self._thread = Thread(target=self._run, name="pass", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def cancel(self) -> None:
        """Let it end after the chunk that it is at."""
        self._cancelled = True
        self._capture.wake()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _going(self) -> bool:
        return not self._cancelled

    def _run(self) -> None:
        again = self._capture.again()
        try:
            while self._capture.wait(self.done, self._going):
                count = min(len(self._capture.index) - self.done, AT_ONCE)
                self._go_over(again, numbers_of(self.done + 1, count))
                self.done += count
            if not self._cancelled:
                self._ended()
        except CaptureError as error:
            self.trouble = str(error)
        except OSError as error:
            self.trouble = f"Nothing more can be written to disk ({error.strerror})."

    def _go_over(self, again: Again, numbers: Numbers) -> None:
        if self._conns is not None:
            numbers = of_connections(self._capture, numbers, self._conns)
        for batch in again.batches(numbers):
            self._take(batch)


def packets_of(
    capture: Capture, conn: int, going: Callable[[], bool] = lambda: True
) -> Iterator[Batch]:
    """The packets of a connection as far as they have come; each batch is valid until the next."""
    again, entry = capture.again(), capture.connection(conn)
    place = entry[0].first_packet - 1 if entry else 0
    count = len(capture.index)
    while place < count and going():
        numbers = numbers_of(place + 1, min(count - place, AT_ONCE))
        place += len(numbers)
        yield from again.batches(of_connections(capture, numbers, ((conn, conn),)))


def of_connections(capture: Capture, numbers: Numbers, conns: Ranges) -> Numbers:
    """Those of the packets that are of these connections, by the index."""
    return numbers[within(capture.index.rows(numbers)["tracked"]["conn"], conns)]


class OfConnection:
    """What comes of going over the packets of one connection, from its first on."""

    def __init__(self, conn: int) -> None:
        self.conn = conn
        self._pass: Pass

    def _begin(
        self, capture: Capture, take: Callable[[Batch], None], ended: Callable[[], None]
    ) -> None:
        """Begin, when all is ready that `take` and `ended` need."""
        entry = capture.connection(self.conn)
        first = entry[0].first_packet if entry else 1
        self._pass = Pass(capture, take, ((self.conn, self.conn),), first, ended)
        self._pass.start()

    @property
    def done(self) -> int:
        """The packet up to which it has come."""
        return self._pass.done

    @property
    def trouble(self) -> str:
        """What ended it early, "" if nothing."""
        return self._pass.trouble

    def close(self) -> None:
        """End it."""
        self._pass.cancel()


class Listing:
    """The packets that are listed: all of a capture, in order.

    A place in the list counts from 0.
    """

    trouble = ""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def __len__(self) -> int:
        return len(self._capture.index)

    @property
    def done(self) -> int:
        """How many packets of the capture were looked at."""
        return len(self)

    def numbers(self, first: int, count: int) -> Numbers:
        """The packet numbers at `count` places from `first` on, fewer at the end."""
        return numbers_of(first + 1, max(min(count, len(self) - first), 0))

    def place(self, number: int) -> int:
        """The place of the packet with that number or, where it is not listed, of the next."""
        return max(min(number - 1, len(self)), 0)

    def cancel(self) -> None:
        """Nothing runs."""

    def join(self) -> None:
        """Nothing runs."""


class Chosen(Listing):
    """The packets that a filter chooses; they come while its pass runs."""

    def __init__(self, capture: Capture, chosen: Filter) -> None:
        super().__init__(capture)
        self._filter = chosen
        self._found = Spool(np.uint64)
        self._pass = Pass(capture, self._add, connections_of(chosen.lowered))
        self._pass.start()

    def _add(self, batch: Batch) -> None:
        self._found.append(batch.rows["number"][self._filter.mask(batch)])

    def __len__(self) -> int:
        return self._found.count

    @property
    def done(self) -> int:
        """How many packets of the capture were looked at."""
        return self._pass.done

    @property
    def trouble(self) -> str:  # type: ignore[override]  # an attribute above, where it is constant
        """What ended it early, "" if nothing."""
        return self._pass.trouble

    def numbers(self, first: int, count: int) -> Numbers:
        """The packet numbers at `count` places from `first` on, fewer at the end."""
        return self._found.read(first, count)

    def place(self, number: int) -> int:
        """The place of the packet with that number or, where it is not listed, of the next."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if int(self._found.read(middle, 1)[0]) < number:
                low = middle + 1
            else:
                high = middle
        return low

    def cancel(self) -> None:
        """End the pass."""
        self._pass.cancel()

    def join(self) -> None:
        """Wait for the end of the pass."""
        self._pass.join()


def find(
    capture: Capture,
    listing: Listing,
    wanted: Filter,
    place: int,
    forward: bool = True,
    going: Callable[[], bool] = lambda: True,
) -> int | None:
    """The next place behind (or before) `place` whose packet matches; None where none does.

    For a thread of the caller's: it looks until it has found, or is not `going`.
    """
    again = capture.again()
    conns = connections_of(wanted.lowered)

    def matching(numbers: Numbers) -> Numbers:
        return _matching(capture, again, wanted, conns, numbers)

    return look(listing, matching, place, forward, going)


def look(
    listing: Listing,
    matching: Callable[[Numbers], Numbers],
    place: int,
    forward: bool,
    going: Callable[[], bool],
    most: int = AT_ONCE,
) -> int | None:
    """The same with `matching`, which gives those of some packets that match.

    It is asked about `most` at a time.
    """
    count = min(256, most)  # what is near is found without reading much
    while going():
        first = place + 1 if forward else max(place - count, 0)
        numbers = listing.numbers(first, count if forward else place - first)
        if not len(numbers):
            return None
        found = matching(numbers)
        if len(found):
            return listing.place(int(found[0] if forward else found[-1]))
        place = first + len(numbers) - 1 if forward else first
        count = min(2 * count, most)
    return None


def _matching(
    capture: Capture, again: Again, wanted: Filter, conns: Ranges | None, numbers: Numbers
) -> NDArray[Any]:
    if conns is not None:
        numbers = of_connections(capture, numbers, conns)
    found = [batch.rows["number"][wanted.mask(batch)] for batch in again.batches(numbers)]
    return np.concatenate(found) if found else numbers
