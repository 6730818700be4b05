"""--reorder: the packets of a file in order of time, within a window, by their old numbers.

Per-CPU rings and merged files leave packets a few places from where they belong.  A packet is
moved before those that are later, if it stands at most WINDOW packets behind them, or in one
batch with them; what stands farther back stays where it is and is counted.  Never by itself: a
clock can be set back.

Rules for editors: columns only.  Batches that are in order go through as they came, but for
their last WINDOW packets, which wait for what may come before them.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import NO_TIME, Batch, Rows
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.reader import FileReader

WINDOW: Final = 1024  # packets: at most 67 MB wait
_PLACES: Final = ("packet_at", "payload_at")  # in the buffer, beside the record's own


class OrderedReader(FileReader):
    """A capture file whose packets come in order of time; `too_late` counts those left behind."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.kept = 1
        self.too_late = 0
        self._latest = NO_TIME

    def batches(self) -> Iterator[Batch]:
        """The file's packets, the last batch valid; numbers need not rise within a batch."""
        held: Batch | None = None
        try:
            for batch in super().batches():
                if held is not None and held.layout != batch.layout:
                    yield self._checked(held)  # another section, with formats of its own
                    held = None
                in_order = held is None or _times(held.rows)[-1:] <= _times(batch.rows)[:1]
                if len(batch) > WINDOW and in_order and _rises(_times(batch.rows)):
                    if held is not None:
                        yield self._checked(held)
                    ready = len(batch) - WINDOW
                    yield self._checked(batch.head(ready))
                    held = _gathered([batch], np.arange(ready, len(batch)), ())
                    continue
                first, held = _split([batch] if held is None else [held, batch])
                if first is not None:
                    yield self._checked(first)
        except CaptureError:
            if held is not None:
                yield self._checked(held)
            raise
        if held is not None:
            yield self._checked(held)

    def _checked(self, batch: Batch) -> Batch:
        """Count what is still out of order."""
        times = batch.rows["time_ns"]
        times = times[times != NO_TIME]
        if len(times):
            before = np.maximum.accumulate(np.concatenate(([self._latest], times)))
            self.too_late += int(np.count_nonzero(times < before[:-1]))
            self._latest = int(before[-1])
        return batch


def _split(parts: list[Batch]) -> tuple[Batch | None, Batch]:
    """Batches in order of time: what can go on, and the last WINDOW packets, which wait."""
    blocks = tuple(block for part in parts for block in part.blocks)
    order = np.argsort(np.concatenate([_times(part.rows) for part in parts]), kind="stable")
    ready = len(order) - WINDOW
    if ready <= 0:
        return None, _gathered(parts, order, blocks)
    return _gathered(parts, order[:ready], blocks), _gathered(parts, order[ready:], ())


def _rises(times: NDArray[np.int64]) -> bool:
    return not (times[1:] < times[:-1]).any()


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
    starts = np.cumsum([0, *(len(part.buffer) for part in parts)])
    rows = np.concatenate([part.rows for part in parts])
    of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    rows = rows[order]
    sizes = rows["record_len"].astype(np.int64)
    ends = np.cumsum(sizes)
    begins = ends - sizes
    shift = begins - rows["record_at"]
    total = int(ends[-1]) if len(ends) else 0
    source = np.repeat(starts[of] + rows["record_at"] - begins, sizes) + np.arange(total)
    data: Any = np.concatenate([np.frombuffer(part.buffer, np.uint8) for part in parts])
    buffer = data[source].tobytes()
    rows["record_at"] = begins
    for name in _PLACES:
        rows[name] = rows[name] + shift
    return Batch(rows, memoryview(buffer), parts[-1].layout, blocks)
