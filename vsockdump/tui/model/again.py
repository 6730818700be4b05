"""Packets that are read a second time: their records from the file, the rest from the index.

The records are scanned by the scanner that read them first, so that a packet looked at is the
packet that was tracked.

Rules for editors: an object of this class has memory that its batches lie in and belongs to
one thread; threads make their own.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import PACKET_DTYPE, Batch, Layout
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.interface import InterfaceTable
from vsockdump.capture.scan import Scanner
from vsockdump.capture.source import Source
from vsockdump.track.store import EVENT_DTYPE, STALL_DTYPE
from vsockdump.tui.model.index import Index
from vsockdump.tui.model.messages import Messages
from vsockdump.tui.model.records import Records

AT_ONCE: Final = 16384  # packets
_BYTES_AT_ONCE: Final = 8 << 20  # of records; one record may be longer
_NEAR: Final = 4096  # bytes between two records that are read to have both at once
_NO_STALLS: Final = np.zeros(0, STALL_DTYPE)
_NO_EVENTS: Final = np.zeros(0, EVENT_DTYPE)


class Again:
    """Reads packets by their numbers; `decoded` counts them."""

    def __init__(self, index: Index, records: Records, source: Source, messages: Messages) -> None:
        self.decoded = 0
        self._index = index
        self._records = records
        self._source = source
        self._messages = messages
        self._table = InterfaceTable()
        self._rows = np.zeros(64, PACKET_DTYPE)
        self._scanner = Scanner(self._rows)

    def batches(self, numbers: NDArray[Any]) -> Iterator[Batch]:
        """The packets with these numbers, which ascend and are in the index.

        Several batches where their records lie differently or are very large; each is valid
        until the next.  Raises CaptureError where the file no longer has them.
        """
        for layout, part in self._index.by_layout(numbers):
            rows = self._index.rows(part)
            filled = np.cumsum(rows["size"], dtype=np.int64)
            start = 0
            while start < len(part):
                before = int(filled[start - 1]) if start else 0
                end = max(int(np.searchsorted(filled, before + _BYTES_AT_ONCE)), start + 1)
                yield self._batch(part[start:end], rows[start:end], layout)
                start = end

    def packet(self, number: int) -> Batch:
        """One packet, as a batch of one."""
        return next(self.batches(np.array([number], np.uint64)))

    def time_of(self, number: int) -> int:
        """The time of a packet, NO_TIME where it has none."""
        return int(self.packet(number).rows["time_ns"][0])

    def _batch(self, numbers: NDArray[Any], index: NDArray[Any], layout: Layout) -> Batch:
        data = self._read(index["offset"], index["size"])
        rows = self._scan(data, len(numbers), layout)
        rows["number"] = numbers
        rows["record_offset"] = index["offset"]
        tracked = index["tracked"].copy()
        tracked["data_at"] += rows["packet_at"]
        self.decoded += len(rows)
        batch = Batch(rows, data, layout, (), tracked, _NO_STALLS, _NO_EVENTS)
        batch.apps = index["app"]
        batch.said = self._messages.of(numbers)
        return batch

    def _read(self, offsets: NDArray[Any], sizes: NDArray[Any]) -> memoryview:
        """The records, one behind the other; those that are near each other are read at once."""
        ends = offsets + sizes
        far = offsets[1:] - ends[:-1] > _NEAR
        far |= offsets[1:] // _BYTES_AT_ONCE != offsets[:-1] // _BYTES_AT_ONCE
        cuts = [0, *(np.flatnonzero(far) + 1).tolist(), len(ends)]
        pieces: list[bytes] = []
        for first, last in pairwise(cuts):
            start, end = int(offsets[first]), int(ends[last - 1])
            data = self._records.read(start, end - start)
            if len(data) == int(sizes[first:last].sum()):
                pieces.append(data)
                continue
            places = (offsets[first:last] - start).tolist()
            pieces += [
                data[at : at + size]
                for at, size in zip(places, sizes[first:last].tolist(), strict=True)
            ]
        return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _scan(self, data: memoryview, count: int, layout: Layout) -> NDArray[np.void]:
        if count > len(self._rows):
            self._rows = np.zeros(max(count, 2 * len(self._rows)), PACKET_DTYPE)
            self._scanner = Scanner(self._rows)
        self._scanner.set_interfaces(self._table.extend(self._source.interfaces))
        if layout.pcapng:
            _, found, _ = self._scanner.pcapng(
                data, 0, len(data), 0, 1, layout.big_endian, layout.section
            )
        else:
            _, found, _ = self._scanner.pcap(
                data, 0, len(data), 0, 1, layout.big_endian, layout.record_header
            )
        if found != count:
            raise CaptureError("The capture file was changed while it is open; open it again.")
        return self._rows[:count]
