# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Credit windows over time: for each direction a few slots of equal length.

A direction has SLOTS slots; when time runs past the last one, neighbours are merged and the
slots become twice as long, so that memory does not depend on how long a connection lives.
A slot keeps the buffer, the most bytes in flight and the least free credit seen in it.

Compiled like tracker.py, whose columns it reads; see scan.py for the rules.
"""

from __future__ import annotations

import cython
import numpy as np

from vsockdump.batch import NO_TIME as _NO_TIME_PY
from vsockdump.batch import Known as _Known
from vsockdump.wire import Op

SLOTS = 16
CONNECTIONS = 10_000  # the window over time is kept for this many connections, the first ones
FIRST_SHIFT = 20  # slots begin with a length of 2^20 ns, about a millisecond

_SLOTS = cython.declare(cython.Py_ssize_t, SLOTS)
_NO_TIME = cython.declare(cython.longlong, _NO_TIME_PY)
_K_FREE = cython.declare(cython.uchar, int(_Known.FREE))
_K_GRANTED = cython.declare(cython.uchar, int(_Known.GRANTED))
_RW = cython.declare(cython.int, int(Op.RW))
_NEVER = cython.declare(cython.uint, 0xFFFFFFFF)


@cython.cclass
class CreditWindows:
    """The windows of the first CONNECTIONS connections.

    After `add` of every tracked batch: `free`, `in_flight` and `buffer` have shape (flows,
    SLOTS); a slot in which nothing was seen has free == 0xFFFFFFFF and buffer == 0.
    """

    free_view: cython.uint[:, ::1]
    flight_view: cython.uint[:, ::1]
    buffer_view: cython.uint[:, ::1]
    shift_view: cython.uchar[::1]
    start_view: cython.longlong[::1]
    arrays: list
    flows: cython.Py_ssize_t

    def __init__(self) -> None:
        self.flows = 0
        self.arrays = []
        self._grow(256)

    def _grow(self, flows) -> None:
        """Room for more flows, keeping what is there."""
        fresh = [
            np.full((flows, SLOTS), 0xFFFFFFFF, "u4"),
            np.zeros((flows, SLOTS), "u4"),
            np.zeros((flows, SLOTS), "u4"),
            np.full(flows, FIRST_SHIFT, "u1"),
            np.full(flows, _NO_TIME_PY, "i8"),
        ]
        for new, old in zip(fresh, self.arrays):
            new[: len(old)] = old
        self.arrays = fresh
        self.flows = flows
        self.free_view = memoryview(fresh[0])
        self.flight_view = memoryview(fresh[1])
        self.buffer_view = memoryview(fresh[2])
        self.shift_view = memoryview(fresh[3])
        self.start_view = memoryview(fresh[4])

    def of(self, flow: int):
        """(start_ns, slot_ns, buffer, in flight, free) of a flow, or None if none was kept.

        The last three are arrays of SLOTS; `flow` is 2 * (connection number - 1) + side.
        """
        if flow >= self.flows or self.arrays[4][flow] == _NO_TIME_PY:
            return None
        free, flight, buffer, shift, start = self.arrays
        return int(start[flow]), 1 << int(shift[flow]), buffer[flow], flight[flow], free[flow]

    def copy(self, connections: int):
        """(free, in flight, buffer) of the flows of so many connections, as copies."""
        used = min(2 * connections, self.flows)
        free, flight, buffer = (array[:used].copy() for array in self.arrays[:3])
        return free, flight, buffer

    def add(self, rows, tracked, connections: int) -> None:
        """Take a tracked batch; `connections` is how many there have been by its end."""
        wanted = 2 * min(connections, CONNECTIONS)
        if wanted > self.flows:
            self._grow(min(max(wanted, 2 * self.flows), 2 * CONNECTIONS))
        self.run(
            memoryview(rows["time_ns"]),
            memoryview(rows["virtio"]["op"]),
            memoryview(rows["virtio"]["buf_alloc"]),
            memoryview(tracked["conn"]),
            memoryview(tracked["side"]),
            memoryview(tracked["known"]),
            memoryview(tracked["free"]),
            memoryview(tracked["granted"]),
            memoryview(tracked["in_flight"]),
            len(rows),
        )

    def run(
        self,
        time_ns: cython.longlong[:],
        op: cython.ushort[:],
        buf_alloc: cython.uint[:],
        conn: cython.ulonglong[:],
        side: cython.uchar[:],
        known: cython.uchar[:],
        free: cython.uint[:],
        granted: cython.uint[:],
        in_flight: cython.uint[:],
        count: cython.Py_ssize_t,
    ) -> None:
        """The loop of `add`."""
        row: cython.Py_ssize_t
        flow: cython.ulonglong
        at: cython.Py_ssize_t
        slot: cython.Py_ssize_t
        with cython.nogil:
            for row in range(count):
                if conn[row] == 0 or time_ns[row] == _NO_TIME:
                    continue
                flow = 2 * (conn[row] - 1) + side[row]
                if flow >= cython.cast(cython.ulonglong, self.flows):
                    continue
                at = flow
                # Data takes from the sender's window; other packets give to the receiver's.
                if op[row] == _RW:
                    if known[row] & _K_FREE:
                        slot = self._slot(at, time_ns[row])
                        if free[row] < self.free_view[at, slot]:
                            self.free_view[at, slot] = free[row]
                        if in_flight[row] > self.flight_view[at, slot]:
                            self.flight_view[at, slot] = in_flight[row]
                elif known[row] & _K_GRANTED:
                    at ^= 1
                    slot = self._slot(at, time_ns[row])
                    if granted[row] < self.free_view[at, slot]:
                        self.free_view[at, slot] = granted[row]
                    self.buffer_view[at, slot] = buf_alloc[row]

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _slot(self, flow: cython.Py_ssize_t, now: cython.longlong) -> cython.Py_ssize_t:
        """The slot of a time; slots are merged until it is one of them."""
        start: cython.longlong = self.start_view[flow]
        slot: cython.ulonglong
        if start == _NO_TIME:
            self.start_view[flow] = now
            return 0
        if now < start:
            return 0
        # Unsigned: damaged files have times as far apart as 64 bits allow.
        slot = cython.cast(cython.ulonglong, now) - cython.cast(cython.ulonglong, start)
        slot >>= self.shift_view[flow]
        while slot >= cython.cast(cython.ulonglong, _SLOTS):
            self._merge(flow)
            slot >>= 1
        return slot

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _merge(self, flow: cython.Py_ssize_t) -> cython.void:
        """Make the slots of a flow twice as long."""
        slot: cython.Py_ssize_t
        left: cython.Py_ssize_t
        self.shift_view[flow] += 1
        for slot in range(_SLOTS // 2):
            left = 2 * slot
            self.free_view[flow, slot] = min(
                self.free_view[flow, left], self.free_view[flow, left + 1]
            )
            self.flight_view[flow, slot] = max(
                self.flight_view[flow, left], self.flight_view[flow, left + 1]
            )
            self.buffer_view[flow, slot] = (
                self.buffer_view[flow, left + 1] or self.buffer_view[flow, left]
            )
        for slot in range(_SLOTS // 2, _SLOTS):
            self.free_view[flow, slot] = _NEVER
            self.flight_view[flow, slot] = 0
            self.buffer_view[flow, slot] = 0
