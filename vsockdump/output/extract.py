"""--extract: each direction of each connection into a file, and an index of them.

Files hold the captured bytes and nothing else: gaps are not filled, the index says where
they are.  Nothing that exists is written over, and names are made of numbers only.

With a filter a connection may be chosen long after its first byte.  Pieces wait in a window
(see track.stream.Held) and are written when they leave it, if their connection has been
chosen by then: every byte is handled once, in order, and memory stays bounded.

Rules for editors: bytes go from the batch, or the capture file, to the file; what is kept
of a stream here has a limit.
"""

import hashlib
import json
import os
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from vsockdump import wire
from vsockdump.address import Endpoint
from vsockdump.batch import Batch, Known, Rows
from vsockdump.capture.source import Source
from vsockdump.columns import Mask, ends_in
from vsockdump.output.errors import OutputError, cannot_write
from vsockdump.output.follow import SIDES, gap_values
from vsockdump.output.statistics import Selection
from vsockdump.output.tables import counted
from vsockdump.track.stream import (
    Gap,
    Held,
    Kind,
    Piece,
    Reader,
    Streams,
    flows_of,
    gap_of,
    joined,
    merged,
    pieces_of,
    reader_of,
)
from vsockdump.wire import Seqpacket, SocketType

INDEX: Final = "index.json"
_MOST_OPEN: Final = 256  # files open at a time; a process may have 1024
_WITH_MESSAGES: Final = (SocketType.SEQPACKET, SocketType.DGRAM)
_DATA: Final = int(Kind.DATA)
_EOM: Final = int(Seqpacket.EOM)
_EOR: Final = int(Seqpacket.EOR)
_UNKNOWN_SIZE: Final = (int(Kind.BEFORE), int(Kind.LOST_AT_LEAST))
_ENDS: Final = (int(Kind.SHUTDOWN), int(Kind.RST))


class ExtractOptions(NamedTuple):
    """Where to, and the limits.

    `segments` pieces and, where the capture cannot be read again, `held` bytes of data wait
    for a filter to choose them; `segments` gaps and ends of messages are listed.
    """

    directory: str
    segments: int = 1_000_000
    held: int = 256 << 20


@dataclass(slots=True, eq=False)
class _Stream:
    """One direction: its file, and what the index says of it.

    `gaps` are (place in the file, gap), `ends` and `record_ends` places in the file;
    `passed_over` is what left the window before the connection was chosen.
    """

    conn: int
    side: int
    side_known: bool
    source: Endpoint
    target: Endpoint
    type: int
    size: int = 0
    missing: int = 0
    passed_over: Gap | None = None
    gap_count: int = 0
    message_count: int = 0
    gaps: list[tuple[int, Gap]] = field(default_factory=list)
    ends: "array[int]" = field(default_factory=lambda: array("Q"))
    record_ends: "array[int]" = field(default_factory=lambda: array("Q"))
    digest: Any = None  # set when there is a file
    file: str = field(init=False)

    def __post_init__(self) -> None:
        ends = "-to-".join(f"{end.cid}.{end.port}" for end in (self.source, self.target))
        self.file = f"conn-{self.conn:07}-{SIDES[self.side]}-{ends}.bin"


class Extract:
    """The streams of all connections up to number `most`, in files of a new directory.

    Of a `selection` only the chosen ones.  Raises OutputError where the directory or a file
    cannot be written.
    """

    def __init__(
        self, options: ExtractOptions, source: Source, most: int, selection: Selection | None
    ) -> None:
        self._options = options
        self._source = source.name
        self._most = most
        self._selection = selection
        self._streams = Streams(most)
        self._held = Held(options.segments, options.held, source.read_again)
        self._known: dict[int, _Stream] = {}  # by direction, as in flows_of
        self._listed = 0  # gaps and messages for the index
        self._passed_over = 0  # bytes of chosen connections
        self._files = _Files(options.directory)

    def add(self, batch: Batch) -> None:
        """Take a tracked batch, whose chosen connections the selection has."""
        pieces = self._streams.add(batch)
        pieces = pieces[~np.isin(pieces["kind"], _ENDS)]
        self._meet(pieces, batch)
        if self._selection is None:
            self._take(pieces, reader_of(batch))
        else:
            self._take_all(self._held.add(pieces, batch))

    def close(self) -> None:
        """Write what waits, and the index."""
        self._take_all(self._held.drain())
        for stream in self._known.values():
            if stream.passed_over is not None and self._is_chosen(stream):
                self._end(stream)
        self._files.write(INDEX, "".join(self._index()).encode(), first=True)
        self._files.close()

    def remarks(self) -> Iterator[str]:
        """What has to be said of the files, in sentences."""
        directory = self._options.directory
        written = list(self._written())
        if not written:
            yield f"no stream was extracted: no connection{self._chosen_words()} sent data."
        gaps = sum(stream.gap_count for stream in written)
        if gaps:
            size = counted(sum(stream.missing for stream in written), "byte")
            yield (
                f"the streams have {counted(gaps, 'gap')} with {size} known to be missing;"
                f" {directory}/{INDEX} says where."
            )
        if self._passed_over:
            yield (
                f"{counted(self._passed_over, 'byte')} could not be held until their connections"
                " were chosen; --max-segments and --max-held set how much can."
            )
        if self._listed > self._options.segments:
            unlisted = self._listed - self._options.segments
            yield f"{unlisted} more gaps and messages are not listed; see --max-segments."
        packets, left_out = self._streams.left_out
        if packets:
            yield (
                f"{packets} packets with {left_out} bytes of connections after the first"
                f" {self._most} were left out; see --max-connections."
            )

    def _chosen_words(self) -> str:
        return "" if self._selection is None else " with a packet that matches the filter"

    def _written(self) -> Iterator[_Stream]:
        return (stream for stream in self._known.values() if stream.digest is not None)

    def _meet(self, pieces: Rows, batch: Batch) -> None:
        """Take note of streams that are new, by the packet where they were noticed."""
        numbers, first = np.unique(flows_of(pieces), return_index=True)
        for number, place in zip(numbers.tolist(), first.tolist(), strict=True):
            if number not in self._known:
                self._known[number] = _stream_of(pieces[place], batch)

    def _take_all(self, leaving: Iterable[tuple[Rows, Reader]]) -> None:
        for pieces, read in leaving:
            self._take(pieces, read)

    def _take(self, pieces: Rows, read: Reader) -> None:
        """Write pieces, or pass over those of connections that were not chosen."""
        flows = flows_of(pieces)
        order = np.argsort(flows, kind="stable")
        pieces, flows = pieces[order], flows[order]
        numbers, first = np.unique(flows, return_index=True)
        parts = zip(np.split(pieces, first[1:]), np.split(_plain(pieces), first[1:]), strict=True)
        for number, (part, plain) in zip(numbers.tolist(), parts, strict=False):
            stream = self._known[number]
            if self._is_chosen(stream):
                self._write(stream, part, bool(plain.all()), read)
            else:
                _pass_over(stream, part)

    def _is_chosen(self, stream: _Stream) -> bool:
        return self._selection is None or stream.conn in self._selection

    def _end(self, stream: _Stream) -> None:
        """A stream that was chosen when its last pieces, or all, had left the window."""
        if stream.passed_over is not None and stream.passed_over.least:
            self._begin(stream)
        self._note_passed_over(stream)

    def _begin(self, stream: _Stream) -> None:
        if stream.digest is None:
            stream.digest = hashlib.sha256()
            self._files.write(stream.file, b"", first=True)

    def _write(self, stream: _Stream, pieces: Rows, plain: bool, read: Reader) -> None:
        """Write pieces of a stream; `plain` ones need not be looked at one by one."""
        self._note_passed_over(stream)
        if plain or (pieces["kind"] == _DATA).any():
            self._begin(stream)
        data = joined(pieces, read)
        if plain:
            stream.size += len(data)
        else:
            for piece in pieces_of(pieces):
                self._note(stream, piece)
        if data:
            stream.digest.update(data)
            self._files.write(stream.file, data)

    def _note(self, stream: _Stream, piece: Piece) -> None:
        """Count a piece, and list its gap and the end of its message."""
        stream.size += piece.cap
        gap = gap_of(piece)
        if gap is not None:
            self._note_gap(stream, gap)
        if piece.kind == _DATA and piece.flags & _EOM:
            stream.message_count += 1
            if self._may_list():
                stream.ends.append(stream.size)
                if piece.flags & _EOR:
                    stream.record_ends.append(stream.size)

    def _note_passed_over(self, stream: _Stream) -> None:
        gap, stream.passed_over = stream.passed_over, None
        if gap is not None:
            self._passed_over += gap.least
            self._note_gap(stream, gap)

    def _note_gap(self, stream: _Stream, gap: Gap) -> None:
        stream.gap_count += 1
        stream.missing += gap.least
        if self._may_list():
            stream.gaps.append((stream.size, gap))

    def _may_list(self) -> bool:
        self._listed += 1
        return self._listed <= self._options.segments

    def _index(self) -> Iterator[str]:
        """The index, a stream a line."""
        yield f'{{"source":{json.dumps(self._source)},"streams":['
        order = sorted(self._written(), key=lambda stream: (stream.conn, stream.side))
        for at, stream in enumerate(order):
            yield ",\n" if at else "\n"
            yield json.dumps(_entry(stream), separators=(",", ":"))
        yield "\n]}\n"


def _stream_of(piece: np.void, batch: Batch) -> _Stream:
    """A new stream; its ends are those in the packet, whichever side sent that."""
    side, row = int(piece["side"]), int(piece["row"])
    ends = ends_in(batch, row)
    known = bool(piece["known"] & Known.SIDE)
    kind = int(batch.rows[row]["virtio"]["type"])
    return _Stream(int(piece["conn"]), side, known, ends[side], ends[1 - side], kind)


def _plain(pieces: Rows) -> Mask:
    """Data that was captured whole and is not the end of a message."""
    mask: Mask = (pieces["kind"] == _DATA) & (pieces["cap"] == pieces["len"])
    return mask & ((pieces["flags"] & _EOM) == 0)


def _pass_over(stream: _Stream, pieces: Rows) -> None:
    """Count what leaves the window unwritten."""
    size = int(pieces["len"].sum(dtype=np.int64))
    unknown = np.isin(pieces["kind"], _UNKNOWN_SIZE).any()
    gap = Gap(int(pieces["offset"][0]), None if unknown else size, size, "limit")
    before = stream.passed_over
    stream.passed_over = gap if before is None else merged(before, gap)


def _entry(stream: _Stream) -> dict[str, Any]:
    """What the index says of a stream."""
    entry: dict[str, Any] = {
        "file": stream.file,
        "conn": stream.conn,
        "side": SIDES[stream.side],
        "initiator_known": stream.side_known,
        "type": wire.name_of(wire.SocketType, stream.type).lower(),
        "from": stream.source._asdict(),
        "to": stream.target._asdict(),
        "bytes": stream.size,
        "sha256": stream.digest.hexdigest(),
        "missing": stream.missing,
        "gap_count": stream.gap_count,
        "gaps": [{"at": at, **gap_values(gap)} for at, gap in stream.gaps],
    }
    if stream.type in _WITH_MESSAGES:
        entry["message_count"] = stream.message_count
        entry["message_ends"] = stream.ends.tolist()
        entry["record_ends"] = stream.record_ends.tolist()
    return entry


class _Files:
    """Files of a directory that was new or empty; the last ones used stay open."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._open: OrderedDict[str, int] = OrderedDict()
        try:
            os.makedirs(directory, exist_ok=True)
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            occupied = bool(os.listdir(self._fd))
        except OSError as error:
            raise cannot_write(directory, error) from None
        if occupied:
            raise OutputError(f"{directory} is not empty; give --extract a new or empty directory.")

    def write(self, name: str, data: bytes, first: bool = False) -> None:
        """Add to a file, or begin it: OutputError where it exists then, or cannot be written."""
        try:
            fd = self._file(name, first)
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
        except OSError as error:
            raise cannot_write(os.path.join(self._directory, name), error) from None

    def close(self) -> None:
        """Close all."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
        os.close(self._fd)

    def _file(self, name: str, first: bool) -> int:
        fd = self._open.get(name)
        if fd is None:
            if len(self._open) == _MOST_OPEN:
                _name, oldest = self._open.popitem(last=False)
                os.close(oldest)
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            flags |= os.O_CREAT | os.O_EXCL if first else 0
            fd = self._open[name] = os.open(name, flags, 0o666, dir_fd=self._fd)
        self._open.move_to_end(name)
        return fd
