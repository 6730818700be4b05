"""The packets of connections as the story takes them: a few columns of a tracked batch.

Rules for editors: columns only, whole batches at a time.
"""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Batch, Known, Rows
from vsockdump.columns import Mask, tracked

UNKNOWN: Final = -1  # of `free` and `granted`
COMPACT_DTYPE: Final = np.dtype(
    [
        ("number", "u8"),
        ("time_ns", "i8"),  # or NO_TIME
        ("conn", "u8"),
        ("free", "i8"),  # or UNKNOWN
        ("granted", "i8"),
        ("flags", "u4"),
        ("len", "u4"),
        ("buf_alloc", "u4"),
        ("op", "u2"),
        ("side", "u1"),
        ("state", "u1"),
    ]
)


def compact(batch: Batch, mask: Mask) -> Rows:
    """The packets of a tracked batch that `mask` chooses."""
    chosen = np.flatnonzero(mask)
    rows, after = batch.rows, tracked(batch)
    found = np.empty(len(chosen), COMPACT_DTYPE)
    for name in ("number", "time_ns"):
        found[name] = rows[name][chosen]
    for name in ("flags", "buf_alloc", "op"):
        found[name] = rows["virtio"][name][chosen]
    for name in ("conn", "side", "state"):
        found[name] = after[name][chosen]
    found["len"] = after["data_len"][chosen]
    known = after["known"][chosen]
    for name, bit in (("free", Known.FREE), ("granted", Known.GRANTED)):
        found[name] = np.where(known & int(bit), after[name][chosen].astype(np.int64), UNKNOWN)
    return found


class Recent:
    """The latest packets of all connections, `most` of them or a few more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: deque[Rows] = deque()
        self._count = 0

    def add(self, batch: Batch) -> None:
        """Take the packets of a tracked batch that belong to a connection."""
        part = compact(batch, tracked(batch)["conn"] != 0)
        self._parts.append(part)
        self._count += len(part)
        while self._count - len(self._parts[0]) >= self._most:
            self._count -= len(self._parts.popleft())

    def of(self, conn: int) -> Rows:
        """Those of a connection."""
        found = [part[_places(part, conn)] for part in self._parts]
        return np.concatenate(found) if found else np.zeros(0, COMPACT_DTYPE)


def _places(part: Rows, conn: int) -> NDArray[np.intp]:
    return np.flatnonzero(part["conn"] == conn)
