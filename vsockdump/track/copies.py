"""Copies: packets that stand in a capture twice, because overlapping captures were merged.

A copy has its packet's monitor, time, length and bytes, as far as both were captured, and
stands at most WINDOW packets behind it.  That alone proves nothing:
- Two interfaces of one monitor, in one file, are two recordings: each has a packet once.
- On one interface equal packets can have equal times: pieces of one write are alike, and what
  a device hands over at once has one time stamp, to the nanosecond.  There, equal packets are
  copies only while every packet has one.  That is known from a REQUEST or RESPONSE seen twice
  at a time, or from SURE times in a row at which all packets were paired, with other contents
  each; it ends at a packet without one.

Rules for editors: whole columns at a time.  A batch whose times all differ, as those of most
captures do, costs one comparison of columns; of a batch nothing is kept but its last WINDOW
packets' headers and first bytes.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump import wire
from vsockdump.batch import NO_TIME, Batch, Layers

WINDOW: Final = 32  # packets
COMPARED: Final = 64  # bytes of payload that are compared at most
SURE: Final = 3
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
        self._sure = False  # whether every packet has a copy now
        self._streak = 0  # times in a row at which all were paired, of other contents each

    def find(self, batch: Batch, taps: Column) -> Flags | None:
        """Which rows of a batch are copies, None for none; `taps` is by interface."""
        times = batch.rows["time_ns"]
        if not len(times):
            return None
        distinct = times[0] > self._latest and bool((times[1:] > times[:-1]).all())
        self._latest = max(self._latest, int(times.max()))
        if distinct:
            self._before = _seen(batch, max(len(times) - WINDOW, 0)).last()
            if len(times) > 1:
                self._sure, self._streak = False, 0
            return None
        new = _seen(batch, 0)
        known = 0 if self._before is None else len(self._before.headers)
        seen = new if self._before is None else self._before.then(new)
        self._before = seen.last()
        found = self._of(seen, taps)
        return found[known:] if found[known:].any() else None

    def _of(self, seen: _Seen, taps: Column) -> Flags:
        same, other, later = _matches(seen, taps)
        earlier = same + other
        found: Flags = other > same
        open_ = (earlier % 2 == 1) & ~found
        if open_.any() or self._sure:
            found |= open_ & self._proven(seen, earlier, later)
        return found

    def _proven(self, seen: _Seen, earlier: Column, later: Column) -> Flags:
        """Rows at times at which, and around which, every packet has a copy."""
        ours = seen.columns["layers"] >= int(Layers.MONITOR)
        times, where = np.unique(seen.columns["time_ns"], return_inverse=True)
        whole = np.ones(len(times), bool)
        whole[where[ours & ((earlier + later + 1) % 2 == 1)]] = False
        content = np.zeros(len(times), np.uint64)
        content[where] = _contents(seen)
        changes = np.concatenate(([True], content[1:] != content[:-1]))
        greeted = np.zeros(len(times), bool)
        greeted[where[_greetings(seen) & (earlier > 0)]] = True
        greeted &= (times % _MILLISECOND != 0) & whole
        runs = np.cumsum(np.concatenate(([True], whole[1:] != whole[:-1])))
        streaks = np.bincount(runs, changes & whole)
        streaks[1] += self._streak if whole[0] else 0
        sure = (streaks >= SURE) | (np.bincount(runs, greeted) > 0)
        sure[1] |= self._sure
        if len(times) > 1:  # the last one's copies may be in the next batch
            self._sure = bool(whole[-2] and sure[runs[-2]])
            self._streak = int(streaks[runs[-2]]) if whole[-2] else 0
        proven: Flags = (sure[runs] & whole)[where]
        return proven


def _seen(batch: Batch, start: int) -> _Seen:
    rows = batch.rows
    columns = {name: rows[name][start:] for name in _NAMES}
    raw = np.ascontiguousarray(rows).view("u1").reshape(len(rows), rows.dtype.itemsize)[start:]
    fields: Any = rows.dtype.fields
    at = fields[wire.VSOCKMON.name][1]
    columns["payload_at"] = rows["payload_at"][start:].astype(np.int64)
    columns["key"] = _keys(rows[wire.VIRTIO.name], columns["wirelen"], start)
    return _Seen(columns, raw[:, at : at + _HEADERS], np.frombuffer(batch.buffer, np.uint8))


def _keys(headers: Column, wirelen: Column, start: int) -> Column:
    """A number of each packet that copies share, and few others do: what is looked at first."""
    keys: Column = wirelen.astype(np.uint64)
    for name in ("src_port", "dst_port", "fwd_cnt", "op"):
        keys = (keys ^ headers[name][start:]) * _ODD
    return keys


def _matches(seen: _Seen, taps: Column) -> tuple[Column, Column, Column]:
    """Of each row: equal ones before it of its interface, of others, and behind it."""
    count = len(seen.headers)
    same, other, later = (np.zeros(count, np.int64) for _ in range(3))
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
        later[before] += 1
    return same, other, later


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


def _contents(seen: _Seen) -> Column:
    """A number that differs where packets of a talk do."""
    content: Column = _field(seen, "src_port").astype(np.uint64) << np.uint64(32)
    op = _field(seen, "op").astype(np.uint64) << np.uint64(28)
    return content ^ _field(seen, "fwd_cnt") ^ op


def _greetings(seen: _Seen) -> Flags:
    """Packets that no end sends twice at a time."""
    return np.isin(_field(seen, "op"), _GREETINGS)
