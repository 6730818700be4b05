"""Writing a capture: to one file, or to one after the other.

Packets are written when they come.  A buffer between batches would save few system calls,
since a batch is large where packets are many, and it would be lost with the process.

Rules for editors: formats are made in encoding.py, what one file goes through stands in
record_file.py, names and limits in rotation.py; here is the order of events.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import NO_TIME, PACKET_DTYPE, Batch, Layout, Rows
from vsockdump.capture.pcapng import MAGIC
from vsockdump.capture.source import Origin
from vsockdump.output.annotations import Comments, with_comments
from vsockdump.output.encoding import encoding_for, secrets_block
from vsockdump.output.errors import OutputError
from vsockdump.output.record_file import STDOUT, RecordFile
from vsockdump.output.rotation import Limit, OneFile, Rotation, Upcoming
from vsockdump.output.secrets import Secrets

_SUFFIXES: Final = {
    ".pcapng": "pcapng",
    ".ntar": "pcapng",
    ".pcap": "pcap",
    ".cap": "pcap",
    ".dmp": "pcap",
}
_PATIENCE: Final = 1 << 20  # bytes of blocks that wait for the packet that names the file
_NO_ROWS: Final = np.zeros(0, PACKET_DTYPE)


def format_for(path: str, source: str) -> str:
    """The format that a file name asks for, else that of the source."""
    return _SUFFIXES.get(os.path.splitext(path)[1].lower(), source)


class Finished(Protocol):
    """Takes every file that is finished."""

    def run(self, path: str) -> None:
        """Take one; must not wait for anything."""

    def reap(self) -> None:
        """Called now and then."""


class Writer(Protocol):
    """Takes packets, for one file or several."""

    @property
    def files(self) -> int:
        """How many files there are."""

    @property
    def full(self) -> bool:
        """Whether no file is to follow."""

    @property
    def tick_s(self) -> float | None:
        """How often a live capture is to call `tick`; None: it need not."""

    def write(self, batch: Batch, chosen: NDArray[np.intp] | None = None) -> int:
        """Write rows of a batch; returns how many rows of it were dealt with."""

    def tick(self) -> None:
        """Go to the next file if it is time to, although no packet came."""

    def close(self) -> None:
        """Finish the file."""

    def remarks(self) -> list[str]:
        """What has to be said of what was written, in sentences."""


class CaptureFile:
    """A capture being written to `path` ("-" is stdout), from the packets of `source`.

    The first file is opened here, unless its name depends on the first packet of a source
    that has no clock.  `rotation` (of the same path) makes it several files, `finished`
    takes each of them.  Raises OutputError where a file cannot be written or the format
    cannot hold the packets.

    `comments` gives packets their comments, `secrets` are to stand before the packets; only
    pcapng holds either.

    `packets` is how many were written, to how many `files`; `full` is set when no file is to
    follow, and what is written then goes nowhere.
    """

    def __init__(
        self,
        path: str,
        source: Origin,
        rotation: Rotation | None = None,
        finished: Finished | None = None,
        clock: Callable[[], int] = time.time_ns,
        comments: Comments | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        self.packets = self.files = 0
        self.full = False
        self._source = source
        self._rotation = rotation or OneFile(path)
        self._finished = finished
        self._clock = clock
        self._comments = comments
        self._secrets = secrets
        self._told = 0  # how many of the secrets the present section has
        name = "the output" if path == STDOUT else path
        needed = [("comments", comments), ("secrets", secrets)]
        needs = [what for what, given in needed if given is not None]
        form = format_for(path, "pcapng" if needs else source.format or "pcapng")
        if needs and form != "pcapng":
            raise OutputError(
                f"{name[0].upper() + name[1:]} would be a pcap file, which holds no {needs[0]};"
                " give it the suffix .pcapng."
            )
        self._encoding = encoding_for(form, source, name, rotation is not None)
        self._file: RecordFile | None = None
        self._begun = False  # whether the present file has its beginning
        self._held = 0  # packets in the present file
        self._waiting: list[bytes] = []  # blocks, for the packet that names the first file
        now_ns = source.now_ns()
        self._began_ns = self._latest_ns = now_ns or 0
        if rotation is None or now_ns is not None:
            self._open(self._rotation.first(self._latest_ns))
            if source.interfaces:
                self._begin()

    @property
    def tick_s(self) -> float | None:
        """How often a live capture is to call `tick`; None: it need not."""
        return self._rotation.tick_s

    def write(self, batch: Batch, chosen: NDArray[np.intp] | None = None) -> int:
        """Write a batch, or the rows of it whose indices, in order, are `chosen`.

        Returns how many rows of the batch were dealt with: all, unless the files are `full`.
        """
        if self.full:
            return 0
        rows = batch.rows if chosen is None else batch.rows[chosen]
        if self._file is None and not self._open_for(batch, rows):
            return len(batch)
        self._begin()
        self._put(self._encoding.before(batch))
        if any(block[:4] == MAGIC for block in batch.blocks):
            self._told = 0
        if self._rotation.limit == Limit():
            taken = self._put_rows(batch, rows)
        else:
            taken = self._put_rotating(batch, rows)
        if self._finished is not None:
            self._finished.reap()
        if taken == len(rows):
            return len(batch)
        return taken if chosen is None else int(chosen[taken])

    def tick(self) -> None:
        """Go to the next file if it is time to, although no packet came; see `tick_s`."""
        now_ns, due_ns = self._source.now_ns(), self._rotation.limit.due_ns
        if not self.full and now_ns is not None and due_ns is not None and now_ns >= due_ns:
            self._rotate(now_ns)
        if self._finished is not None:
            self._finished.reap()

    def close(self) -> None:
        """Finish the file; one without packets still gets its beginning."""
        if self.full:
            return
        if self._file is None:
            self._open_first(self._clock())
        self._begin()
        self._finish()
        self.full = True

    def remarks(self) -> list[str]:
        """What has to be said of the secrets, in sentences."""
        return [] if self._secrets is None else self._secrets.remarks()

    def _open_for(self, batch: Batch, rows: Rows) -> bool:
        """Open the first file, named after the first time; False while there is none."""
        times = rows["time_ns"][rows["time_ns"] != NO_TIME]
        if len(times):
            self._open_first(int(times[0]))
        elif len(rows) or sum(map(len, self._waiting)) > _PATIENCE:
            self._open_first(self._clock())
        else:
            self._waiting += batch.blocks
            return False
        return True

    def _open_first(self, now_ns: int) -> None:
        self._latest_ns = now_ns
        self._open(self._rotation.first(now_ns))
        self._begin()
        blocks, self._waiting = tuple(self._waiting), []
        self._put(self._encoding.before(Batch(_NO_ROWS, memoryview(b""), Layout(), blocks)))

    def _open(self, path: str) -> None:
        if self._source.now_ns() is None and path != STDOUT:
            source = "/dev/stdin" if self._source.name == "stdin" else self._source.name
            if os.path.isfile(path) and os.path.exists(source) and os.path.samefile(path, source):
                raise OutputError(f"{path} is the file being read; write to another one.")
        self._file = RecordFile(path)
        self.files += 1
        self._begun = False
        self._told = 0
        if self._comments is not None:
            self._comments.begin()
        self._held = 0

    def _begin(self) -> None:
        """Write what a file begins with, once; a pcapng source knows that with its first batch."""
        if not self._begun:
            self._begun = True
            self._put(self._encoding.begin())

    def _put(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._send(piece, None)

    def _put_rows(self, batch: Batch, rows: Rows) -> int:
        layout = self._encoding.layout(batch)
        self._put_secrets(layout)
        comments = self._comments.of(batch, rows) if self._comments is not None else {}
        if comments:
            self._send(b"".join(self._commented(batch, rows, comments)), layout)
        else:
            for records in self._encoding.records(batch, rows):
                self._send(records, layout)
        self.packets += len(rows)
        self._held += len(rows)
        return len(rows)

    def _commented(
        self, batch: Batch, rows: Rows, comments: dict[int, list[str]]
    ) -> Iterator[bytes]:
        """The records of rows, of which some get comments."""
        big_endian, start = self._encoding.layout(batch).big_endian, 0
        for row, texts in comments.items():
            yield from map(bytes, self._encoding.records(batch, rows[start:row]))
            for records in self._encoding.records(batch, rows[row : row + 1]):
                yield with_comments(bytes(records), texts, big_endian)
            start = row + 1
        yield from map(bytes, self._encoding.records(batch, rows[start:]))

    def _put_secrets(self, layout: Layout) -> None:
        """Write the secrets that the present section has not yet."""
        if self._secrets is not None:
            entries = self._secrets.entries()
            self._put([secrets_block(entry, layout.big_endian) for entry in entries[self._told :]])
            self._told = len(entries)

    def _put_rotating(self, batch: Batch, rows: Rows) -> int:
        """Write rows, each part of them to the file that it belongs to; how many."""
        upcoming = Upcoming(self._encoding.sizes(rows), rows["time_ns"])
        row = 0
        while True:
            assert self._file is not None
            end = upcoming.until(row, self._rotation.limit, self._file.size, self._held)
            row += self._put_rows(batch, rows[row:end])
            if row == len(rows) or not self._rotate(int(rows["time_ns"][row])):
                return row

    def _rotate(self, now_ns: int) -> bool:
        """Go to the next file; False if there is none."""
        if now_ns == NO_TIME:
            now_ns = self._latest_ns
        self._latest_ns = now_ns
        self._finish()
        path = self._rotation.following(now_ns)
        if path is None:
            self.full = True
            return False
        expired = self._rotation.expired()
        if expired is not None:
            with suppress(OSError):  # somebody else has removed it
                os.unlink(expired)
        self._open(path)
        self._begin()
        return True

    def _finish(self) -> None:
        """End the present file and hand it on."""
        assert self._file is not None
        counts, now_ns = self._source.counts(), self._source.now_ns()
        if counts is not None and now_ns is not None:
            self._put(self._encoding.end(counts, self._began_ns, now_ns))
        self._file.close()
        if self._finished is not None:
            self._finished.run(self._file.path)

    def _send(self, data: bytes | memoryview, layout: Layout | None) -> None:
        """Write to the present file; one that cannot be written on is left as it is."""
        assert self._file is not None
        try:
            self._file.write(data, layout)
        except OutputError:
            self.full = True
            with suppress(OutputError):
                self._file.close()
            raise
