"""Writing what is shown or marked: as a capture file, and as the command line prints it.

Packets are read a second time, in a thread of the caller's.

Rules for editors: everything here is done by the writers and views of the command line.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final

import numpy as np

from vsockdump.batch import Batch, Rows
from vsockdump.capture.interface import Interface
from vsockdump.capture.pcapng import packet_comments
from vsockdump.capture.source import Counts, Source
from vsockdump.output.capture_file import CaptureFile, format_for
from vsockdump.output.errors import OutputError, cannot_write
from vsockdump.tui.model.again import AT_ONCE
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.passes import Listing, Numbers

_PCAP: Final = "pcap"
_PCAPNG: Final = "pcapng"

Going = Callable[[], bool]


def parts_of(listing: Listing) -> Iterator[Numbers]:
    """The numbers of all packets that are listed by now, some at a time."""
    count = len(listing)
    for first in range(0, count, AT_ONCE):
        yield listing.numbers(first, min(AT_ONCE, count - first))


class _SecondReading:
    """The source of packets that are read again, for a writer.

    Records of a pcap file are copied as they are.  Those of pcapng are rebuilt with their
    comments: the blocks between packets are not read again, so that a copy would lack them.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name = source.name
        self.format = _PCAP if source.format == _PCAP else ""
        self.header = source.header

    @property
    def interfaces(self) -> list[Interface]:
        return self._source.interfaces

    def counts(self) -> Counts | None:
        return None

    def now_ns(self) -> int | None:
        return None


def save(
    capture: Capture,
    path: str,
    parts: Iterable[Numbers],
    comments: Mapping[int, str],
    going: Going = lambda: True,
) -> int:
    """Write the packets of these numbers, which ascend; how many.

    Packets of `comments` get these beside those they have.  Raises OutputError where the file
    cannot be written, CaptureError where the packets are gone.
    """
    source = capture.source
    if os.path.exists(path) and os.path.exists(source.name) and os.path.samefile(path, source.name):
        raise OutputError(f"{path} is the file being read; write to another one.")
    with_comments = format_for(path, _PCAPNG if comments else source.format or _PCAPNG) == _PCAPNG
    notes = _Comments(comments) if with_comments or comments else None
    again = capture.again()
    writer = CaptureFile(path, _SecondReading(source), comments=notes)
    with closing(writer):
        for numbers in parts:
            if not going():
                break
            for batch in again.batches(numbers):
                writer.write(batch)
    return writer.packets


class _Comments:
    """The comments of packets: those given, and those of a pcapng file."""

    def __init__(self, given: Mapping[int, str]) -> None:
        self._given = given

    def begin(self) -> None:
        """There is one file."""

    def of(self, batch: Batch, rows: Rows) -> dict[int, list[str]]:
        """Those of each row that has some, by its index."""
        found = {}
        for index, (number, options) in enumerate(rows[["number", "options"]].tolist()):
            if options or number in self._given:
                given = [self._given[number]] if number in self._given else []
                found[index] = given + _of_file(batch, rows[index])
        return {index: texts for index, texts in found.items() if texts}


def _of_file(batch: Batch, row: np.void) -> list[str]:
    """The comments that the packet's block has."""
    if not (batch.layout.pcapng and row["options"]):
        return []
    start = int(row["record_at"])
    block = batch.buffer[start : start + int(row["record_len"])]
    return packet_comments(block, batch.layout.big_endian)


def printed(
    capture: Capture,
    parts: Iterable[Numbers],
    view: Callable[[Batch], Iterable[memoryview]],
    going: Going = lambda: True,
) -> Iterator[bytes]:
    """Packets of these numbers as a view prints them."""
    again = capture.again()
    for numbers in parts:
        if not going():
            return
        for batch in again.batches(numbers):
            yield from map(bytes, view(batch))


def write_text(path: str, pieces: Iterable[bytes]) -> int:
    """Write pieces to a file; how many bytes.  OutputError where that cannot be done."""
    written = 0
    try:
        with open(path, "wb") as file:
            for piece in pieces:
                written += file.write(piece)
    except OSError as error:
        raise cannot_write(path, error) from None
    return written
