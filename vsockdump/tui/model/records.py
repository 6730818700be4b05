"""Where records can be read a second time: the capture file itself, or a copy of ours.

A plain file is its own store.  What comes only once (an interface, a pipe, stdin) or cannot
be read from its middle (a compressed file) is copied record by record to a file without a
name, in the format in which `-w` would write it, and is read from there: one road for all.
"""

from typing import Final, Protocol

import numpy as np

from vsockdump.batch import Batch
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.source import Source
from vsockdump.output.encoding import encoding_for
from vsockdump.tui.model.index import Place
from vsockdump.tui.model.spool import UnnamedFile

DEFAULT_CAP: Final = 4 << 30  # bytes of a copy


class Full(Exception):
    """No more packets can be kept: one sentence."""


class Records(Protocol):
    """Keeps the records of batches, and reads them again."""

    @property
    def copied(self) -> int:
        """Bytes of the copy, 0 where there is none."""

    def keep(self, batch: Batch) -> Place:
        """Where the records of the batch stand; Full where they cannot be kept."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; CaptureError where they are gone."""


def records_of(source: Source, cap: int = DEFAULT_CAP) -> Records:
    """What suits the source; `cap` is for a copy, in bytes."""
    return _Copy(source, cap) if source.read_again is None else _Original(source)


class _Original:
    """A plain file, which stays where it is."""

    copied: Final = 0

    def __init__(self, source: Source) -> None:
        assert source.read_again is not None
        self.read = source.read_again

    def keep(self, batch: Batch) -> Place:
        rows = batch.rows
        return Place(rows["record_offset"], rows["record_len"], batch.layout)


class _Copy:
    """A file of ours without a name, of at most `cap` bytes."""

    def __init__(self, source: Source, cap: int) -> None:
        self._cap = cap
        self._encoding = encoding_for(source.format or "pcapng", source, "the copy", False)
        self._begun = False
        self._file = UnnamedFile()

    @property
    def copied(self) -> int:
        return self._file.size

    def keep(self, batch: Batch) -> Place:
        pieces = [] if self._begun else self._encoding.begin()
        self._begun = True
        pieces = [*pieces, *self._encoding.before(batch)]
        sizes = self._encoding.sizes(batch.rows)
        total = sum(map(len, pieces)) + int(sizes.sum())
        if self.copied + total > self._cap:
            raise Full(f"the copy has reached its {self._cap >> 20} MiB (--max-copy)")
        self._file.append(b"".join(pieces))
        start = self.copied
        for records in self._encoding.records(batch, batch.rows):
            self._file.append(records)
        offsets = start + np.cumsum(sizes) - sizes
        return Place(offsets, sizes, self._encoding.layout(batch))

    def read(self, offset: int, size: int) -> bytes:
        data = self._file.read(offset, size)
        if len(data) < size:
            raise CaptureError("The copy of the capture is shorter than what was written to it.")
        return data
