"""Reassembly: the bytes of each direction of a connection, in order, with what is missing.

`Streams` turns tracked batches into pieces, one row each: data, ends, and gaps.  A piece
points to its bytes and does not hold them: in the batch's buffer, or, where a file can be
read again, in the file.  vsock has neither retransmission nor reordering, so that the order
of packets is the order of bytes; what takes thought is what was not captured.  Every gap is
a piece, or follows from one (`gap_of`), and is never closed over.

Rules for editors: whole batches at a time; only in connections in which a packet of the batch
proves or measures a loss they are looked at one by one.  Who wants bytes asks a `Reader` for
them, wherever they are.

Not one buffer a direction, as a TCP reassembler has: there is nothing to wait for, and what
a view has to keep is its own decision.
"""

from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Batch, Known, Rows
from vsockdump.columns import tracked
from vsockdump.track.marks import Mark
from vsockdump.wire import Op, Seqpacket, SocketType

Reader = Callable[[int, int], bytes | memoryview]  # the bytes of a piece, by its `at` and `cap`


class Kind(IntEnum):
    """What a piece is."""

    NOTHING = 0
    DATA = 1
    SHUTDOWN = 2
    RST = 3  # one that ended the connection, not one behind its end
    BEFORE = 4  # gap: sent before the capture, nobody knows how much
    LOST = 5  # gap: `len` bytes whose packets are not in the capture
    LOST_AT_LEAST = 6  # the same, `len` of them and perhaps more; 0: not even that is known


class Cut(IntEnum):
    """Why fewer bytes of a packet were captured than it sent."""

    NONE = 0
    SNAPLEN = 1
    FRAME = 2  # the frame ended before them


PIECE_DTYPE: Final = np.dtype(
    [
        ("packet", "u8"),
        ("time_ns", "i8"),  # or NO_TIME
        ("conn", "u8"),
        ("offset", "u8"),  # in the stream since the capture began; what was lost counts
        ("at", "u8"),  # where a Reader finds the captured bytes
        ("cap", "u4"),  # bytes captured
        ("len", "u4"),  # bytes sent, or missing
        ("row", "u4"),  # in the batch
        ("flags", "u4"),  # of SHUTDOWN, or of SEQPACKET data; a datagram has EOM
        ("side", "u1"),  # of the sender
        ("kind", "u1"),
        ("cut", "u1"),
        ("known", "u1"),  # batch.Known of the packet
    ],
    align=True,
)

if TYPE_CHECKING:
    Piece = Any
else:
    from collections import namedtuple

    Piece = namedtuple("Piece", PIECE_DTYPE.names)

_RW: Final = int(Op.RW)
_RESPONSE: Final = int(Op.RESPONSE)
_KINDS: Final = np.zeros(256, np.uint8)
_KINDS[[int(Op.RW), int(Op.SHUTDOWN), int(Op.RST)]] = [Kind.DATA, Kind.SHUTDOWN, Kind.RST]
_NOTHING: Final = int(Kind.NOTHING)
_DATA: Final = int(Kind.DATA)
_SEQPACKET: Final = int(SocketType.SEQPACKET)
_DGRAM: Final = int(SocketType.DGRAM)
_MIDSTREAM: Final = int(Mark.MIDSTREAM)
_FWD_AHEAD: Final = int(Mark.FWD_AHEAD)
_CUT: Final = int(Mark.CUT)
_LATER_RST: Final = int(Mark.LATER_RST)
_TX_CNT: Final = int(Known.TX_CNT)
_BEGINNING: Final = int(Known.BEGINNING)
_EOM: Final = int(Seqpacket.EOM)


class Gap(NamedTuple):
    """Bytes that a stream has and the capture has not.

    `offset` is where in the stream; `size` None where it is not known, then there are at
    least `least`.  `why` is `before-capture`, `lost`, `snaplen`, `frame`, or what a view
    adds to these.  Of what was lost only the packet that proves it is known: the bytes may
    be missing earlier, behind the last ones that their receiver is known to have read.
    """

    offset: int
    size: int | None
    least: int
    why: str


def gap_of(piece: Piece) -> Gap | None:
    """The gap that a piece is, or that follows its data."""
    match piece.kind:
        case Kind.BEFORE:
            return Gap(piece.offset, None, 0, "before-capture")
        case Kind.LOST:
            return Gap(piece.offset, piece.len, piece.len, "lost")
        case Kind.LOST_AT_LEAST:
            return Gap(piece.offset, None, piece.len, "lost")
        case Kind.DATA if piece.cap < piece.len:
            missing = piece.len - piece.cap
            why = "snaplen" if piece.cut == Cut.SNAPLEN else "frame"
            return Gap(piece.offset + piece.cap, missing, missing, why)
    return None


def merged(gap: Gap, more: Gap) -> Gap:
    """Two gaps of one reason as one, which begins where the first does."""
    least = gap.least + more.least
    return Gap(gap.offset, None if None in (gap.size, more.size) else least, least, gap.why)


def pieces_of(rows: Rows) -> Iterator[Piece]:
    """The rows as Python's own values, which are quick to read one by one."""
    return map(Piece._make, rows.tolist())


def flows_of(pieces: Rows) -> NDArray[np.uint64]:
    """The direction of each piece as one number: twice the connection's, and the side."""
    flows: NDArray[np.uint64] = 2 * pieces["conn"] + pieces["side"]
    return flows


def lengths(pieces: Rows) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The flows of pieces, and the bytes of each."""
    return _sums(flows_of(pieces), pieces["len"])


def _sums(
    flows: NDArray[np.uint64], sizes: NDArray[np.uint32]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    numbers, group = np.unique(flows, return_inverse=True)
    return numbers, np.bincount(group, sizes, len(numbers)).astype(np.int64)


class _Flow:
    """One direction so far.

    `offset` is where its next byte stands.  `tx` is the tx_cnt that the tracker would give,
    None where it is unknown; `unsure` says that bytes are missing, not yet how many.
    """

    __slots__ = ("offset", "tx", "unsure")

    def __init__(self, begins: bool) -> None:
        self.offset = 0
        self.tx = 0 if begins else None
        self.unsure = False


class Streams:
    """The pieces of all connections up to number `most`, or of connection `only`.

    `left_out` counts the data packets and bytes of the connections beyond.
    """

    def __init__(self, most: int, only: int | None = None) -> None:
        self._most = most
        self._only = only
        self._flows: dict[int, _Flow] = {}
        self._unsure: set[int] = set()  # connections
        self.left_out = (0, 0)

    def add(self, batch: Batch, wanted: NDArray[np.bool_] | None = None) -> Rows:
        """The pieces of a tracked batch, of PIECE_DTYPE, in order; `at` is in its buffer.

        `wanted` leaves out connections for good: once a packet of one is not wanted, no
        later one may be.
        """
        mask = self._wanted(batch)
        chosen = np.flatnonzero(mask if wanted is None else mask & wanted)
        rows, after = batch.rows[chosen], tracked(batch)[chosen]
        pieces = _pieces(rows, after, chosen)
        unsure = self._are_unsure(after)
        places, gaps = self._gaps(pieces, rows, after, unsure)
        self._note_counts(pieces[~unsure], after[~unsure])
        if places:
            pieces = np.insert(pieces, places, np.array(gaps, PIECE_DTYPE))
        pieces = pieces[pieces["kind"] != _NOTHING]
        if len(pieces):
            self._place(pieces)
        return pieces

    def pass_over(
        self, batch: Batch, wanted: NDArray[np.bool_]
    ) -> tuple[Rows, NDArray[np.uint64], NDArray[np.int64]]:
        """As `add`, but of data only how much there is: (pieces, flows, their bytes).

        A quarter of the work.  Data in which a loss is noticed are pieces all the same.
        """
        after = tracked(batch)
        data = wanted & (_kinds(batch.rows, after) == _DATA) & (after["conn"] <= self._most)
        data &= (after["marks"] & (_MIDSTREAM | _FWD_AHEAD)) == 0
        flows, sizes = _sums(flows_of(after[data]), after["data_len"][data])
        for number, size in zip(flows.tolist(), sizes.tolist(), strict=True):
            flow = self._flow(number, False)
            flow.offset += size
            flow.tx = None  # until the next data are looked at
        return self.add(batch, wanted & ~data), flows, sizes

    def forget(self, conn: int) -> None:
        """A connection that is not wanted any more."""
        self._unsure.discard(conn)
        for side in (0, 1):
            self._flows.pop(2 * conn + side, None)

    def _wanted(self, batch: Batch) -> NDArray[np.bool_]:
        after = tracked(batch)
        kinds = _kinds(batch.rows, after)
        mask: NDArray[np.bool_] = kinds != _NOTHING
        mask |= (after["marks"] & (_MIDSTREAM | _FWD_AHEAD)) != 0
        if self._only is not None:
            return mask & (after["conn"] == self._only)
        mask &= after["conn"] != 0
        beyond = mask & (after["conn"] > self._most)
        if beyond.any():
            data = beyond & (kinds == _DATA)
            packets, size = self.left_out
            more = int(after["data_len"][data].sum(dtype=np.int64))
            self.left_out = packets + int(np.count_nonzero(data)), size + more
            mask &= ~beyond
        return mask

    def _flow(self, number: int, begins: bool) -> _Flow:
        flow = self._flows.get(number)
        if flow is None:
            flow = self._flows[number] = _Flow(begins)
        return flow

    def _are_unsure(self, after: Rows) -> NDArray[np.bool_]:
        """Which packets are of connections that lost some, or lose some in this batch."""
        ahead = (after["marks"] & _FWD_AHEAD) != 0
        self._unsure.update(after["conn"][ahead].tolist())
        if not self._unsure:
            return ahead
        found: NDArray[np.bool_] = np.isin(after["conn"], np.fromiter(self._unsure, np.uint64))
        return found

    def _gaps(
        self, pieces: Rows, rows: Rows, after: Rows, unsure: NDArray[np.bool_]
    ) -> tuple[list[int], list[Piece]]:
        """The gaps between the pieces of a batch, and before which piece each belongs."""
        found = _before_capture(pieces, rows, after)
        # What neither proves a loss nor measures one only adds to its flow's count.
        telling = (pieces["kind"] == _DATA) & ((after["known"] & _TX_CNT) != 0)
        telling |= (after["marks"] & _FWD_AHEAD) != 0
        looked_at = unsure & np.isin(after["conn"], after["conn"][unsure & telling])
        self._count_on(pieces[unsure & ~looked_at])
        for place in np.flatnonzero(looked_at).tolist():
            piece = Piece._make(pieces[place].tolist())
            found += [(place, gap) for gap in self._lost(piece, rows[place], after[place])]
        found.sort(key=lambda entry: entry[0])  # stable: what began earlier is missing first
        return [place for place, _gap in found], [gap for _place, gap in found]

    def _lost(self, piece: Piece, row: np.void, after: np.void) -> Iterator[Piece]:
        """What a packet proves to be lost: by its tx_cnt once that settles, by its fwd_cnt.

        A connection is unsure no longer when the counts of both sides are known.
        """
        begins = bool(piece.known & _BEGINNING)
        flow = self._flow(2 * piece.conn + piece.side, begins)
        peer = self._flow(2 * piece.conn + 1 - piece.side, begins)
        if piece.kind == _DATA:
            gap = _settled(flow, piece, after)
            if gap:
                yield _gap_piece(piece, piece.side, Kind.LOST, gap)
        if after["marks"] & _FWD_AHEAD:
            self._unsure.add(piece.conn)
            least = _proved(peer, int(row["virtio"]["fwd_cnt"]))
            yield _gap_piece(piece, 1 - piece.side, Kind.LOST_AT_LEAST, least)
        if not (flow.unsure or peer.unsure):
            self._unsure.discard(piece.conn)

    def _count_on(self, pieces: Rows) -> None:
        """Take data of unsure connections in which nothing new is learnt."""
        numbers, sizes = lengths(pieces[pieces["kind"] == _DATA])
        for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True):
            flow = self._flow(number, False)
            known = flow.unsure and flow.tx is not None
            flow.tx = ((flow.tx or 0) + size) & 0xFFFFFFFF if known else None

    def _note_counts(self, pieces: Rows, after: Rows) -> None:
        """Keep the tx_cnt after the last data of each direction, of connections that are sure."""
        places = np.flatnonzero(pieces["kind"] == _DATA)[::-1]
        numbers, last = np.unique(flows_of(pieces[places]), return_index=True)
        counts, known = after["tx_cnt"][places[last]], after["known"][places[last]]
        for number, count, bits in zip(
            numbers.tolist(), counts.tolist(), known.tolist(), strict=True
        ):
            flow = self._flow(number, bool(bits & _BEGINNING))
            flow.tx = count if bits & _TX_CNT else None

    def _place(self, pieces: Rows) -> None:
        """Fill in the offsets."""
        numbers, group = np.unique(flows_of(pieces), return_inverse=True)
        order = np.argsort(group, kind="stable")
        group = group[order]
        sizes = pieces["len"][order].astype(np.uint64)
        before = np.cumsum(sizes) - sizes
        first = np.searchsorted(group, np.arange(len(numbers)))
        known = pieces["known"][order[first]].tolist()
        flows = [
            self._flow(number, bool(bits & _BEGINNING))
            for number, bits in zip(numbers.tolist(), known, strict=True)
        ]
        starts = np.array([flow.offset for flow in flows], np.uint64)
        offsets = before + (starts - before[first])[group]
        pieces["offset"][order] = offsets
        last = np.append(first[1:], len(group)) - 1
        ends = offsets[last] + sizes[last]
        for flow, end in zip(flows, ends.tolist(), strict=True):
            flow.offset = end


def _kinds(rows: Rows, after: Rows) -> NDArray[np.uint8]:
    """The kind of each packet by its op, which damaged packets may have any of."""
    kinds: NDArray[np.uint8] = _KINDS[np.minimum(rows["virtio"]["op"], 255)]
    kinds[(after["marks"] & _LATER_RST) != 0] = _NOTHING
    return kinds


def _pieces(rows: Rows, after: Rows, chosen: NDArray[np.intp]) -> Rows:
    """The packets as pieces, offsets left open."""
    pieces = np.zeros(len(rows), PIECE_DTYPE)
    pieces["packet"], pieces["time_ns"] = rows["number"], rows["time_ns"]
    pieces["row"] = chosen
    for name in ("conn", "side", "known"):
        pieces[name] = after[name]
    for name in ("at", "cap", "len"):
        pieces[name] = after[f"data_{name}"]
    pieces["kind"] = kinds = _kinds(rows, after)
    # Linux takes no notice of flags in STREAM data; a datagram is a message.
    types, flags = rows["virtio"]["type"], rows["virtio"]["flags"]
    pieces["flags"] = flags
    data = kinds == _DATA
    pieces["flags"][data & (types != _SEQPACKET)] = 0
    pieces["flags"][data & (types == _DGRAM)] = _EOM
    cut = after["data_cap"] < after["data_len"]
    pieces["cut"][cut] = int(Cut.FRAME)
    pieces["cut"][cut & ((after["marks"] & _CUT) != 0)] = int(Cut.SNAPLEN)
    return pieces


def _gap_piece(piece: Piece, side: int, kind: Kind, size: int) -> Piece:
    """A gap of one side that is noticed at a piece."""
    return piece._replace(side=side, kind=int(kind), at=0, cap=0, len=size, flags=0, cut=0)


def _before_capture(pieces: Rows, rows: Rows, after: Rows) -> list[tuple[int, Piece]]:
    """Both sides' gaps of connections that had begun; at RESPONSE nothing was sent yet."""
    joined = (after["marks"] & _MIDSTREAM) != 0
    joined &= rows["virtio"]["op"] != _RESPONSE
    found = []
    for place in np.flatnonzero(joined).tolist():
        piece = Piece._make(pieces[place].tolist())
        found += [(place, _gap_piece(piece, side, Kind.BEFORE, 0)) for side in (0, 1)]
    return found


def _step(new: int, old: int) -> int:
    """How far a u32 counter has moved: the signed difference mod 2^32."""
    step = (new - old) & 0xFFFFFFFF
    return step - (1 << 32) if step >> 31 else step


def _settled(flow: _Flow, piece: Piece, after: np.void) -> int:
    """Take data of an unsure connection; how many bytes before it turn out to be lost."""
    gap = 0
    if piece.known & _TX_CNT:
        count = int(after["tx_cnt"])
        if flow.unsure and flow.tx is not None:
            gap = max(_step(count - piece.len, flow.tx), 0)
        flow.tx, flow.unsure = count, False
    elif flow.unsure and flow.tx is not None:
        flow.tx = (flow.tx + piece.len) & 0xFFFFFFFF
    else:
        flow.tx = None
    return gap


def _proved(flow: _Flow, fwd_cnt: int) -> int:
    """How many bytes a receiver has consumed that were not seen; 0 if it cannot be said."""
    least = 0 if flow.tx is None else max(_step(fwd_cnt, flow.tx), 0)
    if flow.tx is not None:
        flow.tx = (flow.tx + least) & 0xFFFFFFFF
    flow.unsure = True
    return least


class _Chunk(NamedTuple):
    pieces: Rows
    read: Reader
    size: int  # bytes of data that it holds itself


class Held:
    """A window of pieces that wait, until it is known whether they are wanted.

    The oldest leave it where it would hold more than `segments` of them, or more than `size`
    bytes of data.  It holds data only where `read_again`, which reads the capture file at an
    offset, is None.
    """

    def __init__(self, segments: int, size: int, read_again: Reader | None) -> None:
        self._most_segments = segments
        self._most_bytes = size
        self._read_again = read_again
        self._chunks: deque[_Chunk] = deque()
        self.segments = 0
        self.size = 0

    def add(self, pieces: Rows, batch: Batch) -> Iterator[tuple[Rows, Reader]]:
        """Take the pieces of a batch; those that leave, with who reads their data."""
        if len(pieces):
            chunk = self._chunk(pieces, batch)
            self._chunks.append(chunk)
            self.segments += len(chunk.pieces)
            self.size += chunk.size
        while self.segments > self._most_segments or self.size > self._most_bytes:
            yield self._leave()

    def drain(self) -> Iterator[tuple[Rows, Reader]]:
        """Let all leave."""
        while self._chunks:
            yield self._leave()

    def _leave(self) -> tuple[Rows, Reader]:
        chunk = self._chunks.popleft()
        self.segments -= len(chunk.pieces)
        self.size -= chunk.size
        return chunk.pieces, chunk.read

    def _chunk(self, pieces: Rows, batch: Batch) -> _Chunk:
        pieces = pieces.copy()
        if self._read_again is not None:
            rows = batch.rows[pieces["row"]]
            pieces["at"] += rows["record_offset"] - rows["record_at"]
            return _Chunk(pieces, self._read_again, 0)
        data = joined(pieces, reader_of(batch))
        sizes = pieces["cap"].astype(np.uint64)
        pieces["at"] = np.cumsum(sizes) - sizes
        return _Chunk(pieces, lambda at, size: data[at : at + size], len(data))


def reader_of(batch: Batch) -> Reader:
    """Who reads the pieces of a batch, while it is valid."""
    buffer = batch.buffer
    return lambda at, size: buffer[at : at + size]


def joined(pieces: Rows, read: Reader) -> bytes:
    """The captured bytes of these pieces, one behind the other."""
    with_data = pieces[pieces["cap"] != 0]
    places = zip(with_data["at"].tolist(), with_data["cap"].tolist(), strict=True)
    return b"".join([read(at, size) for at, size in places])
