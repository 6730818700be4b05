"""The model of one capture: what is read or captured, tracked, kept, and looked at again.

A thread takes the source's batches, tracks them, copies their records where need be and
appends them to the index.  It waits for nobody but, for the moment of a copy, for whoever
takes a picture of the tracker's tables (`frozen`); the kernel's ring holds what arrives
meanwhile.  Everything else that runs here (filters, searches, statistics that somebody asks
for later) reads the packets a second time, in threads of its own: see passes.py.

Rules for editors: the screen gets Snapshot, copies and numbers, never an object that the
thread goes on writing to.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from threading import Condition, Lock, Thread
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vsockdump.apps.dialogues import DialogueOptions, Dialogues
from vsockdump.apps.registry import failure
from vsockdump.batch import Batch, Rows
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.source import Counts, Source
from vsockdump.findings.collector import Case, Collector, Group
from vsockdump.track.kinds import Kind
from vsockdump.track.store import STALL_DTYPE, ConnectionRow, FlowRow
from vsockdump.track.tracker import Tracker
from vsockdump.track.window import CreditWindows
from vsockdump.tui.model.again import Again
from vsockdump.tui.model.counting import Counting
from vsockdump.tui.model.index import Index
from vsockdump.tui.model.messages import Messages
from vsockdump.tui.model.records import DEFAULT_CAP, Full, records_of
from vsockdump.tui.model.spool import Spool

DEFAULT_CONNECTIONS: Final = 1_000_000
_A_MOMENT_S: Final = 0.005
_NO_WISHES: Final = DialogueOptions({})


class Snapshot(NamedTuple):
    """How far a capture has come.

    `packets` are in the list, numbered from 1 to it; `left_out` more came when there was no
    room for them (`trouble` says so).  `position` of `size` bytes of the file are read, 0 of 0
    where nobody knows.  `counts` and `dropped` are those of capture.source; `copied` the bytes
    of our copy.  `ended`: nothing follows.  `trouble` is a sentence, "" where all is well.
    """

    name: str
    live: bool
    packets: int = 0
    left_out: int = 0
    position: int = 0
    size: int = 0
    connections: int = 0
    counts: Counts | None = None
    dropped: int | None = None
    copied: int = 0
    ended: bool = False
    trouble: str = ""

    @property
    def progress(self) -> float | None:
        """What part of the file has been read; None where that is not known."""
        return min(self.position / self.size, 1.0) if self.size else None


class Tables(NamedTuple):
    """A picture of the tracker's tables, taken at one moment: its own copy.

    `connections` has CONNECTION_DTYPE and `flows` FLOW_DTYPE, (n, 2): what side 0 and what
    side 1 sent; in order of the connections' numbers.  `last_ns` is the time as of which it is.
    """

    connections: Rows
    flows: Rows
    last_ns: int
    forgotten: int


# A connection, what its initiator sent, what its acceptor sent.
Entry = tuple[ConnectionRow, FlowRow, FlowRow]


class Taker(Protocol):
    """Something that counts along, such as a statistic; its `add` runs in the capture's thread."""

    def add(self, batch: Batch) -> None:
        """Take a tracked batch; called for every one, in order."""


class Capture:
    """One source and all that is known of its packets.

    `start` begins to read, `close` ends it.  The source is closed by whoever opened it.
    """

    def __init__(
        self,
        source: Source,
        max_connections: int = DEFAULT_CONNECTIONS,
        max_copy: int = DEFAULT_CAP,
        takers: tuple[Taker, ...] = (),
        apps: DialogueOptions | None = _NO_WISHES,
    ) -> None:
        self.source = source
        self.grown = Condition()  # notified when packets have come or the end has
        self.tracker = Tracker(max_connections)
        self.collector = Collector(self.tracker)
        self.index = Index()
        self.records = records_of(source, max_copy)
        self.messages = Messages()
        self._dialogues = None if apps is None else Dialogues(apps, max_connections)
        self.counting = Counting(self.tracker, self._dialogues)
        self._takers = (self.counting, *takers)
        self.windows = CreditWindows()
        self.stalls = Spool(STALL_DTYPE)
        self._lock = Lock()
        self._counting = Lock()  # the kernel clears its counts when they are read
        self._left_out = 0
        self._full = self._error = ""
        self._ended = self._stopped = False
        self._waits_until = self._waits_again = 0.0  # time.monotonic()
        self._thread = Thread(target=self._run, name="capture", daemon=True)

    # --- the capture's thread ----------------------------------------------------------------

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Let the capture end; what came until now stays."""
        self._stopped = True
        self.source.stop()

    def close(self) -> None:
        """End the capture; its source can then be closed."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def give_way(self, seconds: float) -> None:
        """Let a file wait for so long, or until it is said anew: the screen has work to do.

        Of what is asked for again and again only half is given.  A live capture never waits.
        """
        now = time.monotonic()
        if not seconds:
            self._waits_until = 0.0
        elif now >= self._waits_again:
            self._waits_until = now + seconds
            self._waits_again = now + 2 * seconds

    def _wait_for_screen(self) -> None:
        while (left := self._waits_until - time.monotonic()) > 0 and not self._stopped:
            time.sleep(min(left, _A_MOMENT_S))

    def _run(self) -> None:
        try:
            for batch in self.source.batches():
                self._take(batch)
                if not self.source.live:
                    self._wait_for_screen()
        except CaptureError as error:
            self._error = str(error)
        except Exception as error:  # a mistake of ours, which nobody would see in a thread
            self._error = f"vsockdump failed, which should be reported: {failure(error)}."
        finally:
            with self._lock:
                self.tracker.finish(self.source.now_ns())
                self._keep_late()
            self._ended = True
            self._notify()

    def _take(self, batch: Batch) -> None:
        with self._lock:
            self.tracker.learn_interfaces(self.source.interfaces)
            self.tracker.track(batch)
            self.collector.add(batch)
            if self._dialogues is not None:
                self._dialogues.add(batch, self.source.is_behind)
            self.windows.add(batch.rows, batch.tracked, self.tracker.connections)
            for taker in self._takers:
                taker.add(batch)
        self._keep(batch)
        self._notify()

    def _keep(self, batch: Batch) -> None:
        """Into the list; from the first packet that does not fit on, none."""
        if not self._full:
            try:
                place = self.records.keep(batch)
                self.messages.add(batch.said or {})  # first: whoever sees the packet asks for it
                assert batch.stalls is not None
                self.stalls.append(batch.stalls)
                self.index.add(batch, place)
                return
            except Full as error:
                self._full = str(error)
            except OSError as error:
                self._full = _no_room(error)
        self._left_out += len(batch)

    def _keep_late(self) -> None:
        """What was understood only at the end, of packets that are in the list."""
        late = [] if self._dialogues is None else self._dialogues.finish()
        try:
            self.messages.add_late([said for said in late if said.packet <= len(self.index)])
        except OSError as error:
            self._error = self._error or f"Messages are missing: {_no_room(error)}."

    def _notify(self) -> None:
        with self.grown:
            self.grown.notify_all()

    # --- pictures ----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """How far it has come."""
        source = self.source
        with self._counting:
            counts, dropped = source.counts(), source.dropped
        return Snapshot(
            source.name,
            source.live,
            len(self.index),
            self._left_out,
            source.position,
            source.size,
            self.tracker.connections,
            counts,
            dropped,
            self.records.copied,
            self._ended,
            self._trouble(),
        )

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self._ended

    def _trouble(self) -> str:
        if self._left_out:
            return (
                f"The last {self._left_out} packets are counted but not listed: {self._full}."
                + (f"  {self._error}" if self._error else "")
            )
        if self._error:
            return self._error
        if self.messages.left_out:
            return f"The last {self.messages.left_out} application messages are not kept."
        if self._dialogues is not None and self._dialogues.passed_over:
            return self._dialogues.remark().capitalize()
        return ""

    @contextmanager
    def frozen(self) -> Iterator[Tracker]:
        """The tracker while nothing is tracked, as of now: only to copy from it."""
        with self._lock:
            if self._ended:
                yield self.tracker
                return
            with self.tracker.as_of(self.source.now_ns()):
                yield self.tracker

    def tables(self) -> Tables:
        """The connections as they are now."""
        with self.frozen() as tracker:
            store = tracker.store
            connections = store.connections[: store.used].copy()
            flows = store.flows[: 2 * store.used].copy().reshape(-1, 2)
            picture = Tables(connections, flows, tracker.last_ns, store.forgotten)
        order = np.argsort(connections["number"])
        return picture._replace(connections=connections[order], flows=flows[order])

    def picture(self) -> Tracker:
        """A tracker with a copy of the tables, only to read from: what statistics look at."""
        with self.frozen() as tracker:
            picture, store = copy(tracker), copy(tracker.store)
            store.connections = store.connections[: store.used].copy()
            store.flows = store.flows[: 2 * store.used].copy()
        picture.store = store
        return picture

    def connection(self, number: int) -> Entry | None:
        """A connection as it is now, None where there is none (any more)."""
        with self.frozen() as tracker:
            store = tracker.store
            places = np.flatnonzero(store.connections["number"][: store.used] == number)
            if not len(places):
                return None
            slot = int(places[0])
            flows = (FlowRow(*row) for row in store.flows[2 * slot : 2 * slot + 2].tolist())
            return ConnectionRow(*store.connections[slot].tolist()), *flows

    def protocols_of(self, conns: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """The code of the protocol of each connection, 0: none is known; while frozen."""
        if self._dialogues is None:
            return np.zeros(len(conns), np.uint8)
        return self._dialogues.protocols_of(conns)

    @property
    def dialogues(self) -> Dialogues | None:
        """Who speaks what; to be read while frozen.  None: nobody looks."""
        return self._dialogues

    def findings(self) -> list[Group]:
        """What was found until now, by rule, the worst first."""
        with self._counting:
            dropped = self.source.dropped or 0
        with self.frozen():
            self.collector.dropped(dropped, self.source.packets + dropped)
            return self.collector.groups()

    def case(self, kind: Kind, conn: int) -> Case | None:
        """The first case of a finding in a connection."""
        return self.collector.case(kind, conn)

    # --- packets -----------------------------------------------------------------------------

    def again(self) -> Again:
        """A reader of packets, for one thread."""
        return Again(self.index, self.records, self.source, self.messages)

    def wait(self, done: int, going: Callable[[], bool]) -> bool:
        """Until there are more packets than `done`; False where none follow or not `going`."""
        with self.grown:
            while len(self.index) <= done:
                if self._ended or not going():
                    return False
                self.grown.wait()
        return going()

    def wake(self) -> None:
        """Let those who wait look again whether they are to go on."""
        self._notify()


def _no_room(error: OSError) -> str:
    return f"nothing more can be written to disk ({error.strerror})"
