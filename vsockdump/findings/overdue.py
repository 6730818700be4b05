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
from vsockdump.track.kinds import Cause, Kind, Limit
from vsockdump.track.limits import ANSWERS, AT_ONCE_NS
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
from vsockdump.wire import CID_HOST, CID_LOCAL, Shutdown

_BOTH: Final = int(Shutdown.RCV | Shutdown.SEND)
_HALF: Final = (int(State.HALF_CLOSED_INITIATOR), int(State.HALF_CLOSED_ACCEPTOR))
_OPEN: Final = (int(State.OPEN), int(State.LATE), *_HALF)
_ENDED: Final = tuple(map(int, TERMINAL))
_NOBODY: Final = 2
Column = NDArray[Any]


def overdue(tracker: Tracker) -> Iterator[Event]:
    """Events, all of them open, as of the time by which the tracker has judged.

    That is `Tracker.until_ns` or the time of the last packet; see Tracker.finish and as_of.
    """
    used = tracker.store.used
    now = tracker.as_of_ns
    if not used or now == NO_TIME:
        return
    rows = tracker.store.connections[:used]
    flows = tracker.store.flows[: 2 * used].reshape(used, 2)
    yield from _connects(rows, now)
    yield from _unrouted(rows)
    yield from _cut_answers(rows, flows)
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
        event = _event(row, Kind.UNANSWERED, int(row["first_ns"]), now)
        yield event._replace(packet=int(row["first_packet"]))
        if row["previous_state"] in _OPEN:
            yield event._replace(
                kind=int(Kind.STILL_OPEN), packet=int(row["first_packet"]), a=int(row["previous"])
            )


def _unrouted(rows: Column) -> Iterator[Event]:
    """Connects between guests that nobody has answered, where one of them is seen with the host.

    A tap that sees a guest with the host is one of vhost, which takes only what goes there.
    """
    low, high = rows["initiator_cid"], rows["acceptor_cid"]
    guests = (low > CID_HOST) & ((high > CID_HOST) | (high == CID_LOCAL))
    lost = guests & (rows["state"] == int(State.TIMED_OUT)) & (rows["answered_ns"] == NO_TIME)
    if not lost.any():
        return
    with_host = (low == CID_HOST) ^ (high == CID_HOST)
    places = rows["key_place"] & ~np.uint64(1)
    served = set(
        zip(np.maximum(low, high)[with_host].tolist(), places[with_host].tolist(), strict=True)
    )
    for index in np.flatnonzero(lost).tolist():
        place = int(places[index])
        if (int(low[index]), place) in served or (int(high[index]), place) in served:
            row = rows[index]
            yield _event(row, Kind.UNROUTED, int(row["first_ns"]), int(row["first_ns"]))._replace(
                packet=int(row["first_packet"]), open=0
            )


def _cut_answers(rows: Column, flows: Column) -> Iterator[Event]:
    """Requests whose end shut both directions down, to endpoints that answer all others."""
    forth, back = flows[:, 0], flows[:, 1]
    asked = (forth["bytes"] > 0) & (rows["side_known"] != 0)
    cut = asked & (back["bytes"] == 0) & (rows["closer"] == 0) & (forth["data_ns"] != NO_TIME)
    cut &= (forth["closed_ns"] != NO_TIME) & (forth["deaf_ns"] == forth["closed_ns"])
    cut &= forth["closed_ns"] - forth["data_ns"] <= AT_ONCE_NS
    if not cut.any():
        return
    ends = rows["acceptor_cid"] << np.uint64(32) | rows["acceptor_port"]
    answering, answers = np.unique(ends[asked & (back["bytes"] > 0)], return_counts=True)
    answering = answering[answers >= ANSWERS]
    answering = np.setdiff1d(answering, ends[asked & (back["bytes"] == 0) & ~cut])
    for index in np.flatnonzero(cut & np.isin(ends, answering)).tolist():
        since, until = int(forth["data_ns"][index]), int(forth["closed_ns"][index])
        yield _event(rows[index], Kind.ANSWER_CUT, since, until)._replace(open=0)


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
        ended = int(row["state"] != State.HALF_CLOSED_INITIATOR)
        yield _event(row, Kind.HALF_CLOSED_IDLE, int(row["last_ns"]), now, 0, ended)


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
            )._replace(packet=int(flow["stalled_packet"]), cause=cause_of(flows[index], side))
    yield from _deadlocks(rows, flows, now)


def cause_of(pair: Any, side: int) -> Cause:
    """Why the sender of one of two flows, in a stall that goes on, waits."""
    own = pair["rule"][side] == Limit.CAPPED
    own &= pair["stalled_flight"][side] < pair["buf"][1 - side]
    return Cause.OWN_BUFFER if own else Cause.READER


def _deadlocks(rows: Column, flows: Column, now: int) -> Iterator[Event]:
    """Both ends without credit at once."""
    since = flows["stalled_since"]
    both = (since != NO_TIME).all(axis=1) & (since.max(axis=1) <= now - DEADLOCK_NS)
    both &= (flows["stalled_flight"] != 0).all(axis=1)
    for index in np.flatnonzero(both):
        yield _event(rows[index], Kind.DEADLOCK, int(since[index].max()), now)
