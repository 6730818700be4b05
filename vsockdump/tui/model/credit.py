"""The credit of a connection over time: in flight against window, for every packet of it.

A Trace goes over the connection's packets once and keeps, on disk, a sample for each packet
and direction, and samples of sixteen samples, and so on: what a screen shows is then read
from the level that has about as many as there are columns, however far one zooms.

Rules for editors: a direction is the side that sends.  Its window is the peer's buf_alloc or,
where its own limits it too, the smaller of both; in flight is what its tx_cnt is ahead of the
peer's fwd_cnt.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import NO_TIME, Batch, Known
from vsockdump.columns import tracked
from vsockdump.track.store import STALL_DTYPE
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.passes import OfConnection
from vsockdump.tui.model.spool import Spool
from vsockdump.wire import Op

GROUP: Final = 16  # samples of one that stands for them
_LEVELS: Final = 8
_AT_ONCE: Final = 16384  # samples
_U32: Final = 0xFFFFFFFF
_UPDATE: Final = int(Op.CREDIT_UPDATE)
_RST: Final = int(Op.RST)
_TX: Final = int(Known.TX_CNT)
_FREE: Final = int(Known.FREE)
_GRANTED: Final = int(Known.GRANTED)
_CAPPED: Final = int(Known.CAPPED)
_PEER_CAPPED: Final = int(Known.PEER_CAPPED)

SAMPLE_DTYPE: Final = np.dtype(
    [
        ("time_ns", "i8"),  # of its first packet; never less than that of the one before
        ("packet", "u8"),  # the first
        ("flight", "u4"),  # most bytes in flight
        ("window", "u4"),  # largest window
        ("free", "u4"),  # least free credit
        ("last_flight", "u4"),  # after its last packet
        ("last_window", "u4"),
        ("updates", "u4"),  # CREDIT_UPDATEs of the receiver
    ]
)
_NONE: Final = np.zeros(0, SAMPLE_DTYPE)


class Series:
    """The samples of one direction, in levels; one thread adds, any may read."""

    def __init__(self) -> None:
        self._levels = [Spool(SAMPLE_DTYPE) for _ in range(_LEVELS)]

    def __len__(self) -> int:
        return self._levels[0].count

    def add(self, samples: NDArray[Any]) -> None:
        """More samples, in order of time."""
        self._levels[0].append(samples)
        for lower, upper in zip(self._levels, self._levels[1:], strict=False):
            done = upper.count * GROUP
            whole = (lower.count - done) // GROUP
            if not whole:
                return
            for start in range(done, done + whole * GROUP, _AT_ONCE):
                size = min(_AT_ONCE, done + whole * GROUP - start)
                upper.append(_grouped(lower.read(start, size)))

    def sample(self, place: int) -> np.void:
        """One of the finest level."""
        row: np.void = self._levels[0].read(place, 1)[0]
        return row

    def place(self, time_ns: int) -> int:
        """That of the first sample that is not before a time."""
        return self._levels[0].bisect("time_ns", time_ns)

    def between(self, first_ns: int, last_ns: int, least: int) -> NDArray[Any]:
        """The samples of a time, at least so many if there are, and the one before them."""
        first = self.place(first_ns)
        count = self.place(last_ns + 1) - first
        level = 0
        while level + 1 < _LEVELS and count >= least * GROUP ** (level + 1):
            level += 1
        return self._read(level, max(first - 1, 0), first + count)

    def _read(self, level: int, first: int, last: int) -> NDArray[Any]:
        """The samples from `first` to `last` of the finest level, as this level has them.

        What it has not grouped yet is taken from the levels below.
        """
        size = GROUP**level
        spool = self._levels[level]
        begin, end = first // size, min(-(-last // size), spool.count)
        found = spool.read(begin, end - begin) if end > begin else _NONE
        if level and end * size < last:
            rest = self._read(level - 1, max(end * size, first), last)
            return np.concatenate((found, rest))
        return found

    def next_update(self, place: int, forward: bool) -> int | None:
        """The place of the next sample with an update behind (or before) `place`."""
        while True:
            first = place + 1 if forward else max(place - _AT_ONCE, 0)
            rows = self._levels[0].read(first, _AT_ONCE if forward else place - first)
            if not len(rows):
                return None
            found = np.flatnonzero(rows["updates"])
            if len(found):
                return first + int(found[0 if forward else -1])
            place = first + len(rows) - 1 if forward else first


def _grouped(samples: NDArray[Any]) -> NDArray[Any]:
    """One sample for every GROUP of them."""
    groups = samples.reshape(-1, GROUP)
    rows = np.zeros(len(groups), SAMPLE_DTYPE)
    for name in ("time_ns", "packet"):
        rows[name] = groups[name][:, 0]
    for name in ("last_flight", "last_window"):
        rows[name] = groups[name][:, -1]
    for name in ("flight", "window"):
        rows[name] = groups[name].max(axis=1)
    rows["free"] = groups["free"].min(axis=1)
    rows["updates"] = np.minimum(groups["updates"].sum(axis=1), _U32)
    return rows


class Trace(OfConnection):
    """The credit of both directions of a connection; it grows as its packets are gone over.

    `series` and `stalls` are by the side that sends; `close` ends it.
    """

    def __init__(self, capture: Capture, conn: int) -> None:
        super().__init__(conn)
        self.series = (Series(), Series())
        self.stalls = (Spool(STALL_DTYPE), Spool(STALL_DTYPE))  # those that have ended
        self._capture = capture
        self._stalls_read = 0
        self._buffers: list[int | None] = [None, None]
        self._sent: list[int | None] = [None, None]  # tx_cnt
        self._last_ns = NO_TIME
        self._begin(capture, self._add, self._read_stalls)

    def stalls_between(self, side: int, first_ns: int, last_ns: int) -> NDArray[Any]:
        """The stalls of a direction that are not over before a time or begin behind another."""
        spool = self.stalls[side]
        first = spool.bisect("end_ns", first_ns)
        return spool.read(first, min(spool.bisect("start_ns", last_ns + 1) - first, _AT_ONCE))

    # --- in the pass's thread ----------------------------------------------------------------

    def _add(self, batch: Batch) -> None:
        chosen = batch.rows["virtio"]["op"] != _RST  # many of them say 0, and none counts
        rows, after = batch.rows[chosen], tracked(batch)[chosen]
        sides, headers = after["side"], rows["virtio"]
        if not len(rows):
            return
        times = np.maximum.accumulate(np.maximum(rows["time_ns"], self._last_ns))
        self._last_ns = int(times[-1])
        buffers = [
            _held(headers["buf_alloc"], sides == side, self._buffers, side) for side in (0, 1)
        ]
        with_tx = (after["known"] & _TX) != 0
        sent = [
            _held(after["tx_cnt"], with_tx & (sides == side), self._sent, side) for side in (0, 1)
        ]
        samples = np.zeros(len(rows), SAMPLE_DTYPE)
        samples["time_ns"], samples["packet"] = times, rows["number"]
        for side in (0, 1):
            own = sides == side
            capped = (after["known"] & np.where(own, _CAPPED, _PEER_CAPPED)) != 0
            window = np.where(capped, np.minimum(*buffers), buffers[1 - side])
            samples["window"] = samples["last_window"] = np.minimum(window, _U32)
            known = (after["known"] & np.where(own, _FREE, _GRANTED)) != 0
            known &= times != NO_TIME
            flight = (sent[side] - headers["fwd_cnt"]) & _U32
            samples["flight"] = np.where(own, after["in_flight"], flight)
            samples["last_flight"] = samples["flight"]
            samples["free"] = np.where(own, after["free"], after["granted"])
            samples["updates"] = ~own & (headers["op"] == _UPDATE)
            self.series[side].add(samples[known])
        self._read_stalls()

    def _read_stalls(self) -> None:
        """Take those of the connection from all that have ended."""
        for stalls in self._capture.stalls.parts(self._stalls_read):
            self._stalls_read += len(stalls)
            for side in (0, 1):
                self.stalls[side].append(
                    stalls[(stalls["conn"] == self.conn) & (stalls["side"] == side)]
                )


def _held(
    values: NDArray[Any], new: NDArray[np.bool_], before: list[int | None], side: int
) -> NDArray[np.int64]:
    """A column in which a value stays until there is a new one; `before` has that of the last."""
    places = np.maximum.accumulate(np.where(new, np.arange(len(values)), -1))
    held = np.where(places >= 0, values[np.maximum(places, 0)].astype(np.int64), 0)
    old = before[side]
    held[places < 0] = _U32 if old is None else old
    if new.any():
        before[side] = int(held[-1])
    return held
