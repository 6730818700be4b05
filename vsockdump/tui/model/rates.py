"""Packets and bytes over time, in slots of equal length.

There are SLOTS slots; when time runs past the last one, neighbours are merged and the slots
become twice as long, so that memory does not depend on how long a capture lasts.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import NO_TIME, Batch
from vsockdump.columns import has_monitor, timed, tracked

SLOTS: Final = 4096
FIRST_NS: Final = 1_000_000  # slots begin with a length of a millisecond
_BARS: Final = " ▁▂▃▄▅▆▇█"
KINDS: Final = ("packets", "frame bytes", "data bytes")


class Graph(NamedTuple):
    """What was counted from `start_ns` on, by slots of `slot_ns`: an array for each of KINDS."""

    start_ns: int
    slot_ns: int
    counts: NDArray[np.int64]

    @property
    def length_ns(self) -> int:
        """How long it is."""
        return self.slot_ns * self.counts.shape[1]


class Rates:
    """Takes batches; `outside` counts the vsock packets before the first one."""

    def __init__(self) -> None:
        self.outside = 0
        self._start = NO_TIME
        self._slot = FIRST_NS
        self._used = 0
        self._counts = np.zeros((len(KINDS), SLOTS), np.int64)

    def add(self, batch: Batch) -> None:
        """Count the vsock packets of a tracked batch that have times."""
        chosen = has_monitor(batch) & timed(batch)
        times = batch.rows["time_ns"][chosen]
        if not len(times):
            return
        if self._start == NO_TIME:
            self._start = int(times[0])
        since = times - self._start
        inside = since >= 0
        self.outside += int(len(since) - inside.sum())
        if inside.any():
            lengths = batch.rows["wirelen"][chosen][inside]
            data = tracked(batch)["data_len"][chosen][inside]
            self._count(since[inside], (None, lengths, data))

    def _count(self, since: NDArray[np.int64], weights: tuple[Any, ...]) -> None:
        while int(since.max()) >= SLOTS * self._slot:
            self._merge()
        index = since // self._slot
        self._used = max(self._used, int(index.max()) + 1)
        for counts, weight in zip(self._counts, weights, strict=True):
            counts += np.bincount(index, weight, SLOTS).astype(np.int64)

    def _merge(self) -> None:
        """Slots of twice the length."""
        pairs = self._counts.reshape(len(KINDS), SLOTS // 2, 2).sum(axis=2)
        self._counts = np.concatenate((pairs, np.zeros_like(pairs)), axis=1)
        self._slot *= 2
        self._used = (self._used + 1) // 2

    def graph(self) -> Graph:
        """A copy."""
        return Graph(self._start, self._slot, self._counts[:, : self._used].copy())


def columns(counts: NDArray[np.int64], slot_ns: int, width: int) -> NDArray[np.float64]:
    """The mean rate per second in each of `width` parts of equal length."""
    slots = len(counts)
    if not slots or not width:
        return np.zeros(0)
    edges = np.linspace(0, slots, width + 1)
    total = np.concatenate(([0.0], np.cumsum(counts)))
    sums = np.diff(np.interp(edges, np.arange(slots + 1), total))
    rates: NDArray[np.float64] = sums / np.diff(edges) / (slot_ns / 1e9)
    return rates


def bars(rates: Sequence[float] | NDArray[np.float64], height: int) -> list[str]:
    """Columns of blocks, in `height` lines from the top; what is not nothing can be seen."""
    top = max(rates, default=0)
    if not top:
        return [""] * height
    eighths = [max(round(rate / top * height * 8), 1) if rate > 0 else 0 for rate in rates]
    lines = []
    for line in range(height - 1, -1, -1):
        lines.append("".join(_BARS[min(max(size - 8 * line, 0), 8)] for size in eighths))
    return lines


def amount(rate: float) -> str:
    """A rate in few characters: 950, 1.5k, 23M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g}{unit}"
    return f"{rate:.3g}"
