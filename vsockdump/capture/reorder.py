"""--reorder: the packets of a file in order of time, within a window, by their old numbers.

Per-CPU rings and merged files leave packets a few places from where they belong.  Batches wait,
sorted, until WINDOW packets or MOST_BYTES stand behind them, and what comes later is sorted in
among them; what stands farther back stays where it is and is counted.  Never by itself: a clock
can be set back.

Rules for editors: columns only, and records are copied by runs of adjacent ones.  A batch is
sorted together with those only that it overlaps in time.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import NO_TIME, Batch, Rows
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.reader import FileReader

WINDOW: Final = 1024  # packets
MOST_BYTES: Final = 64 << 20  # of batches that wait, but for the last one
_PLACES: Final = ("packet_at", "payload_at")  # in the buffer, beside the record's own


class OrderedReader(FileReader):
    """A capture file whose packets come in order of time; `too_late` counts those left behind."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.kept = 1
        self.too_late = 0
        self._latest = NO_TIME

    def batches(self) -> Iterator[Batch]:
        """The file's packets; numbers need not rise within a batch.

        Sections of a pcapng file that differ in format are not sorted into each other.
        """
        held: list[Batch] = []
        try:
            for batch in super().batches():
                if held and held[-1].layout != batch.layout:
                    yield from map(self._checked, held)
                    held = []
                _sort_in(held, batch)
                while len(held) > 1 and _is_ready(held):
                    yield self._checked(held.pop(0))
        except CaptureError:
            yield from map(self._checked, held)
            raise
        yield from map(self._checked, held)

    def _checked(self, batch: Batch) -> Batch:
        """Count what is still out of order."""
        times = batch.rows["time_ns"]
        times = times[times != NO_TIME]
        if len(times):
            before = np.maximum.accumulate(np.concatenate(([self._latest], times)))
            self.too_late += int(np.count_nonzero(times < before[:-1]))
            self._latest = int(before[-1])
        return batch


def _is_ready(held: list[Batch]) -> bool:
    """Whether enough waits behind the first of some batches."""
    behind = held[1:]
    rows, size = sum(map(len, behind)), sum(len(batch.buffer) for batch in held)
    return rows >= WINDOW or size > MOST_BYTES


def _sort_in(held: list[Batch], batch: Batch) -> None:
    """Add a batch to others that are in order of time, one behind the other."""
    if not len(batch):
        held.append(_gathered([batch], np.arange(0), batch.blocks))
        return
    earliest = int(_times(batch.rows).min())
    apart = len(held)
    while apart and (not len(held[apart - 1]) or _times(held[apart - 1].rows)[-1] > earliest):
        apart -= 1
    parts = [*held[apart:], batch]
    del held[apart:]
    blocks = tuple(block for part in parts for block in part.blocks)
    order = np.argsort(np.concatenate([_times(part.rows) for part in parts]), kind="stable")
    held.append(_gathered(parts, order, blocks))


def _times(rows: Rows) -> NDArray[np.int64]:
    """The times; a packet without one has that of the packet before it."""
    times: NDArray[np.int64] = rows["time_ns"]
    known = times != NO_TIME
    if known.all():
        return times
    at = np.maximum.accumulate(np.where(known, np.arange(len(times)), 0))
    return times[at]


def _gathered(parts: list[Batch], order: NDArray[np.intp], blocks: tuple[bytes, ...]) -> Batch:
    """A batch of its own of some rows of these, in this order, with their records."""
    rows = np.concatenate([part.rows for part in parts])[order]
    of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    sizes, starts = rows["record_len"].astype(np.int64), rows["record_at"].astype(np.int64)
    begins = np.cumsum(sizes) - sizes
    # Where a run of records ends that lie side by side in one buffer.
    new = (of[1:] != of[:-1]) | (starts[1:] != starts[:-1] + sizes[:-1])
    firsts = np.flatnonzero(np.concatenate(([len(rows) > 0], new)))
    lasts = np.concatenate((firsts[1:], [len(rows)])) - 1
    runs = zip(
        of[firsts].tolist(),
        starts[firsts].tolist(),
        (starts[lasts] + sizes[lasts]).tolist() if len(rows) else [],
        strict=True,
    )
    buffer = b"".join(parts[part].buffer[start:end] for part, start, end in runs)
    for name in _PLACES:
        rows[name] = rows[name] + (begins - starts)
    rows["record_at"] = begins
    return Batch(rows, memoryview(buffer), parts[-1].layout, blocks)
