"""Copies: packets that stand in a capture twice, because overlapping captures were merged.

A copy has its packet's monitor, time, length and bytes, as far as both were captured, and
stands at most WINDOW packets behind it.  That alone proves nothing:
- Two interfaces of one monitor, in one file, are two recordings: each has a packet once.
- On one interface equal packets can have equal times: pieces of one write are alike, and what
  a device hands over at once has one time stamp, to the nanosecond.  There, equal packets are
  copies only in a connection whose REQUEST or RESPONSE stands there twice at one time, which
  no end sends twice.

Rules for editors: whole columns at a time, and a packet is judged by those before it alone, so
that batches do not matter.  A batch whose times all differ, as those of most captures do, costs
one comparison of columns; of a batch nothing is kept but its last WINDOW packets' headers and
first bytes.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump import wire
from vsockdump.batch import NO_TIME, Batch, Layers

WINDOW: Final = 32  # packets
COMPARED: Final = 64  # bytes of payload that are compared at most
MOST_PAIRS: Final = 65536  # connections that are known to be there twice
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_MILLISECOND: Final = 1_000_000
_GREETINGS: Final = (int(wire.Op.REQUEST), int(wire.Op.RESPONSE))
_HEADERS: Final = wire.HEADERS_SIZE
_NAMES: Final = ("time_ns", "wirelen", "caplen", "interface", "ifindex", "layers", "payload_cap")

Column = NDArray[Any]
Flags = NDArray[np.bool_]


class _Seen(NamedTuple):
    """Packets as far as they are compared."""

    columns: dict[str, Column]
    headers: Column  # of shape (n, _HEADERS), uint8
    data: Column  # uint8, where `payload_at` of each row lies

    def last(self) -> "_Seen":
        """Those that later ones may be copies of, with their bytes."""
        columns = {name: column[-WINDOW:].copy() for name, column in self.columns.items()}
        payload = self.payload(np.arange(len(self.headers))[-WINDOW:])
        columns["payload_at"] = np.arange(len(payload), dtype=np.int64) * COMPARED
        return _Seen(columns, self.headers[-WINDOW:].copy(), payload.ravel())

    def then(self, more: "_Seen") -> "_Seen":
        """These and those behind them."""
        columns = {
            name: np.concatenate((column, more.columns[name]))
            for name, column in self.columns.items()
        }
        columns["payload_at"][len(self.headers) :] += len(self.data)
        headers = np.concatenate((self.headers, more.headers))
        return _Seen(columns, headers, np.concatenate((self.data, more.data)))

    def payload(self, rows: Column) -> Column:
        """The first bytes of some rows, of shape (n, COMPARED); zeros behind what was captured."""
        places = self.columns["payload_at"][rows, None] + np.arange(COMPARED)
        inside = np.arange(COMPARED) < self.columns["payload_cap"][rows, None]
        data = self.data if len(self.data) else np.zeros(1, np.uint8)
        found = np.where(inside, data[np.minimum(places, len(data) - 1)], 0)
        return found.astype(np.uint8)


class Copies:
    """Finds the copies of batch after batch."""

    def __init__(self) -> None:
        self._before: _Seen | None = None
        self._latest = NO_TIME
        self._twice = np.zeros(0, np.uint64)  # connections that stand there twice, sorted

    def find(self, batch: Batch, taps: Column) -> Flags | None:
        """Which rows of a batch are copies, None for none; `taps` is by interface."""
        times = batch.rows["time_ns"]
        if not len(times):
            return None
        distinct = times[0] > self._latest and bool((times[1:] > times[:-1]).all())
        self._latest = max(self._latest, int(times.max()))
        if distinct:
            self._before = _seen(batch, max(len(times) - WINDOW, 0)).last()
            return None
        new = _seen(batch, 0)
        known = 0 if self._before is None else len(self._before.headers)
        seen = new if self._before is None else self._before.then(new)
        self._before = seen.last()
        found = self._of(seen, taps)
        return found[known:] if found[known:].any() else None

    def _of(self, seen: _Seen, taps: Column) -> Flags:
        same, other = _matches(seen, taps)
        found: Flags = other > same
        open_ = ((same + other) % 2 == 1) & ~found
        if open_.any():
            found |= open_ & self._proven(seen, open_)
        return found

    def _proven(self, seen: _Seen, open_: Flags) -> Flags:
        """Rows of connections of which a greeting has stood there twice by then."""
        times, pairs = seen.columns["time_ns"], seen.columns["pair"]
        greeted = np.flatnonzero(open_ & _greetings(seen) & (times % _MILLISECOND != 0))
        new, first = np.unique(pairs[greeted], return_index=True)
        proven: Flags = np.isin(pairs, self._twice)
        if len(new):
            places = np.minimum(np.searchsorted(new, pairs), len(new) - 1)
            proven |= (new[places] == pairs) & (np.arange(len(pairs)) >= greeted[first][places])
            if len(self._twice) < MOST_PAIRS:
                self._twice = np.union1d(self._twice, new)
        return proven


def _seen(batch: Batch, start: int) -> _Seen:
    rows = batch.rows
    columns = {name: rows[name][start:] for name in _NAMES}
    raw = np.ascontiguousarray(rows).view("u1").reshape(len(rows), rows.dtype.itemsize)[start:]
    fields: Any = rows.dtype.fields
    at = fields[wire.VSOCKMON.name][1]
    columns["payload_at"] = rows["payload_at"][start:].astype(np.int64)
    columns["pair"] = _pairs(rows[wire.VIRTIO.name], start)
    columns["key"] = _keys(rows[wire.VIRTIO.name], columns["wirelen"], start)
    return _Seen(columns, raw[:, at : at + _HEADERS], np.frombuffer(batch.buffer, np.uint8))


def _keys(headers: Column, wirelen: Column, start: int) -> Column:
    """A number of each packet that copies share, and few others do: what is looked at first."""
    keys: Column = wirelen.astype(np.uint64)
    for name in ("src_port", "dst_port", "fwd_cnt", "op"):
        keys = (keys ^ headers[name][start:]) * _ODD
    return keys


def _pairs(headers: Column, start: int) -> Column:
    """A number of each packet's two ends, whichever sent it."""
    ends = [
        (headers[f"{end}_cid"][start:] * _ODD ^ headers[f"{end}_port"][start:]) * _ODD
        for end in ("src", "dst")
    ]
    pair: Column = ends[0] + ends[1]
    return pair


def _matches(seen: _Seen, taps: Column) -> tuple[Column, Column]:
    """Of each row: equal ones before it of its interface, and of others."""
    count = len(seen.headers)
    same, other = (np.zeros(count, np.int64) for _ in range(2))
    times, interface, keys = (seen.columns[name] for name in ("time_ns", "interface", "key"))
    ordered = bool((times[1:] >= times[:-1]).all())
    for distance in range(1, min(WINDOW, count - 1) + 1):
        equal = (times[distance:] == times[:-distance]) & (times[distance:] != NO_TIME)
        if ordered and not equal.any():
            break
        behind = np.flatnonzero(equal & (keys[distance:] == keys[:-distance])) + distance
        if not len(behind):
            continue
        before = behind - distance
        alike = _alike(seen, taps, before, behind)
        before, behind = before[alike], behind[alike]
        own = interface[before] == interface[behind]
        same[behind[own]] += 1
        other[behind[~own]] += 1
    return same, other


def _alike(seen: _Seen, taps: Column, one: Column, two: Column) -> Flags:
    """Whether pairs of rows have one monitor, length, and bytes as far as captured."""
    columns = seen.columns
    alike: Flags = taps[columns["interface"][one]] == taps[columns["interface"][two]]
    for name in ("wirelen", "ifindex"):
        alike &= columns[name][one] == columns[name][two]
    least = np.minimum(columns["layers"][one], columns["layers"][two])
    sizes = np.array([0, wire.VSOCKMON.size, _HEADERS])[least]
    alike &= least >= int(Layers.MONITOR)
    beyond = np.arange(_HEADERS) >= sizes[:, None]
    alike &= ((seen.headers[one] == seen.headers[two]) | beyond).all(axis=1)
    left = np.flatnonzero(alike)  # bytes of these only: few packets come so far
    one, two = one[left], two[left]
    captured = np.minimum(columns["payload_cap"][one], columns["payload_cap"][two])
    beyond = np.arange(COMPARED) >= captured[:, None]
    alike[left] = ((seen.payload(one) == seen.payload(two)) | beyond).all(axis=1)
    return alike


def _field(seen: _Seen, name: str) -> Column:
    """A field of the virtio header."""
    at = wire.VSOCKMON.size + wire.VIRTIO.offset(name)
    size = 2 if name == "op" else 4
    column: Column = np.ascontiguousarray(seen.headers[:, at : at + size]).view(f"<u{size}")[:, 0]
    return column


def _greetings(seen: _Seen) -> Flags:
    """Packets that no end sends twice at a time."""
    return np.isin(_field(seen, "op"), _GREETINGS)
