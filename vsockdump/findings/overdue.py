"""What only time tells: connections that wait for something that does not come.

The tracker gives an event when the packet comes that was waited for.  Until then, and where
a capture ends before, this looks at the store.  It is called when findings are shown, once a
second at most, and not for every batch, because it looks at every connection.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import NO_TIME
from vsockdump.findings.rule import Event
from vsockdump.track.kinds import Kind
from vsockdump.track.states import (
    ANSWER_TIMEOUT_NS,
    CLOSE_UNANSWERED_NS,
    CONNECT_TIMEOUT_NS,
    DEADLOCK_NS,
    HALF_CLOSED_IDLE_NS,
    LONG_STALL_NS,
    TERMINAL,
    State,
)
from vsockdump.track.tracker import Tracker
from vsockdump.wire import Shutdown

_BOTH: Final = int(Shutdown.RCV | Shutdown.SEND)
_HALF: Final = (int(State.HALF_CLOSED_INITIATOR), int(State.HALF_CLOSED_ACCEPTOR))
_ENDED: Final = tuple(map(int, TERMINAL))
_NOBODY: Final = 2
Column = NDArray[Any]


def overdue(tracker: Tracker) -> Iterator[Event]:
    """Events, all of them open, as of the time by which the tracker has judged.

    That is `Tracker.until_ns` or the time of the last packet; see Tracker.finish and as_of.
    """
    used = tracker.store.used
    now = tracker.last_ns if tracker.until_ns is None else tracker.until_ns
    if not used or now == NO_TIME:
        return
    rows = tracker.store.connections[:used]
    flows = tracker.store.flows[: 2 * used].reshape(used, 2)
    yield from _connects(rows, now)
    yield from _closes(rows, flows, now)
    yield from _idle(rows, now)
    yield from _asked(rows, flows, now)
    yield from _stalls(rows, flows, now)


def _older(times: Column, than: int) -> Column:
    """Which of the times are known and lie before `than`."""
    known: Column = (times != NO_TIME) & (times < than)
    return known


def _event(row: Any, kind: Kind, since: int, now: int, b: int = 0, side: int = 0) -> Event:
    packet, number = int(row["last_packet"]), int(row["number"])
    return Event(int(kind), number, packet, since, now - since, b, side, 1)


def _connects(rows: Column, now: int) -> Iterator[Event]:
    """Connects that nobody has answered; the tracker has let them be timed out."""
    silent = (rows["state"] == int(State.TIMED_OUT)) & (rows["answered_ns"] == NO_TIME)
    silent &= (rows["closer"] == _NOBODY) & _older(rows["first_ns"], now - CONNECT_TIMEOUT_NS)
    silent &= (rows["found_low"] >> np.uint64(Kind.UNANSWERED)) & np.uint64(1) == 0
    for row in rows[silent]:
        yield _event(row, Kind.UNANSWERED, int(row["first_ns"]), now)._replace(
            packet=int(row["first_packet"])
        )


def _closes(rows: Column, flows: Column, now: int) -> Iterator[Event]:
    """SHUTDOWNs of both directions that wait for their RST, the other end having sent none."""
    for side in (0, 1):
        closed = flows["closed_ns"][:, side]
        late = (rows["state"] == int(State.CLOSING)) & _older(closed, now - CLOSE_UNANSWERED_NS)
        late &= flows["shut"][:, 1 - side] != _BOTH
        for index in np.flatnonzero(late):
            yield _event(rows[index], Kind.CLOSE_TIMEOUT, int(closed[index]), now, 0, side)


def _idle(rows: Column, now: int) -> Iterator[Event]:
    """Half-closed connections without a packet."""
    idle = np.isin(rows["state"], _HALF) & _older(rows["last_ns"], now - HALF_CLOSED_IDLE_NS)
    for row in rows[idle]:
        yield _event(row, Kind.HALF_CLOSED_IDLE, int(row["last_ns"]), now)


def _asked(rows: Column, flows: Column, now: int) -> Iterator[Event]:
    """CREDIT_REQUESTs without an answer; it is said of the end that does not answer."""
    living = ~np.isin(rows["state"], _ENDED)
    for side in (0, 1):
        asked = flows["asked_ns"][:, side]
        late = living & (flows["asked"][:, side] != 0) & _older(asked, now - ANSWER_TIMEOUT_NS)
        for index in np.flatnonzero(late):
            yield _event(rows[index], Kind.UNANSWERED_ASK, int(asked[index]), now, 0, 1 - side)


def _stalls(rows: Column, flows: Column, now: int) -> Iterator[Event]:
    """Stalls that go on, and those of both ends at once."""
    since = flows["stalled_since"]
    for side in (0, 1):
        for index in np.flatnonzero(_older(since[:, side], now - LONG_STALL_NS + 1)):
            flow = flows[index, side]
            yield _event(
                rows[index],
                Kind.STALL,
                int(since[index, side]),
                now,
                int(flow["stalled_flight"]),
                side,
            )._replace(packet=int(flow["stalled_packet"]))
    both = (since != NO_TIME).all(axis=1) & (since.max(axis=1) <= now - DEADLOCK_NS)
    both &= (flows["stalled_flight"] != 0).all(axis=1)
    for index in np.flatnonzero(both):
        yield _event(rows[index], Kind.DEADLOCK, int(since[index].max()), now)
