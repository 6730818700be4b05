"""Where each packet of a capture stands, and what the tracker said of it.

The rest of a packet is read from the file again when somebody looks at it, so that a packet
costs 60 bytes of disk here, however long it is.
"""

from bisect import bisect_right
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import TRACKED_DTYPE, Batch, Layout
from vsockdump.columns import tracked
from vsockdump.tui.model.spool import Spool

INDEX_DTYPE: Final = np.dtype(
    [
        ("offset", "u8"),  # of the record in the file
        ("size", "u4"),  # of the record
        ("tracked", TRACKED_DTYPE),  # with data_at counted from packet_at
        ("app", "u1"),  # code of the application protocol, 0: none is known
    ]
)


_SPARSE: Final = 64  # rows that are read for one that is wanted, rather than each by itself


class Place(NamedTuple):
    """Where the records of a batch stand in a file, and how they lie there."""

    offsets: NDArray[Any]
    sizes: NDArray[Any]
    layout: Layout


class Index:
    """One row a packet: that of packet number N stands at N - 1."""

    def __init__(self) -> None:
        self._spool = Spool(INDEX_DTYPE)
        self._firsts: list[int] = []  # number of the first packet of each layout
        self._layouts: list[Layout] = []

    def __len__(self) -> int:
        return self._spool.count

    def add(self, batch: Batch, place: Place) -> None:
        """Append a tracked batch; OSError where the disk is full, nothing may follow then."""
        if not len(batch):
            return
        rows = np.empty(len(batch), INDEX_DTYPE)
        rows["offset"], rows["size"] = place.offsets, place.sizes
        rows["tracked"] = tracked(batch)
        rows["tracked"]["data_at"] -= batch.rows["packet_at"]
        rows["app"] = 0 if batch.apps is None else batch.apps
        if not self._layouts or self._layouts[-1] != place.layout:
            self._firsts.append(len(self) + 1)
            self._layouts.append(place.layout)
        self._spool.append(rows)

    def rows(self, numbers: NDArray[Any]) -> NDArray[np.void]:
        """The rows of these packets, which ascend."""
        if not len(numbers):
            return self._spool.read(0, 0)
        first, last = int(numbers[0]), int(numbers[-1])
        if last - first < _SPARSE * len(numbers):
            return self._spool.read(first - 1, last - first + 1)[numbers - np.uint64(first)]
        ends = np.flatnonzero(np.diff(numbers) != 1) + 1
        return np.concatenate(
            [self._spool.read(int(run[0]) - 1, len(run)) for run in np.split(numbers, ends)]
        )

    def by_layout(self, numbers: NDArray[Any]) -> list[tuple[Layout, NDArray[Any]]]:
        """The numbers, which ascend, parted by the layout of their records."""
        if not len(numbers):
            return []
        begin = bisect_right(self._firsts, int(numbers[0])) - 1
        end = bisect_right(self._firsts, int(numbers[-1]))
        cuts = np.searchsorted(numbers, self._firsts[begin + 1 : end])
        parts = zip(self._layouts[begin:end], np.split(numbers, cuts), strict=True)
        return [(layout, part) for layout, part in parts if len(part)]
