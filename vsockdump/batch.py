"""Packets as columns: the dtypes of a batch and the Batch that carries them.

A batch is a structured NumPy array with one row per captured packet, plus the buffer in
which the packets' bytes lie.  The header columns *are* the headers' bytes, copied as they
came: their dtype is derived from wire.py, so that decoding is one copy and a field is
named in one place.  Batches reuse their memory: a batch is valid until its source is
asked for the next one; `Batch.copy` keeps it longer.

Rules for editors: no decoding and no tracking here.  A column that is not filled must not
be readable by accident: `layers` and `known` say what holds.
"""

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump.wire import HEADERS, Header

if TYPE_CHECKING:
    from vsockdump.apps.message import OpenCall, Said

Rows = NDArray[np.void]

NO_TIME: Final = -(2**63)  # time_ns of a packet without a time stamp (pcapng's simple packets)


class Layers(IntEnum):
    """How far a frame was decoded; each value includes the ones before it."""

    NONE = 0
    MONITOR = 1
    VIRTIO = 2


class Malformed(IntEnum):
    """Why decoding stopped early; what was read until then is kept."""

    NONE = 0
    FOREIGN = 1
    SHORT_MONITOR = 2
    CUT_MONITOR = 3
    TRANSPORT_LENGTH = 4
    SHORT_TRANSPORT = 5
    CUT_TRANSPORT = 6


_FOREIGN: Final = int(Malformed.FOREIGN)  # NumPy is slow with enums: see columns.py

MALFORMED_TEXT: Final = {
    Malformed.FOREIGN: "not a vsock frame",
    Malformed.SHORT_MONITOR: "frame shorter than the 32-byte monitor header",
    Malformed.CUT_MONITOR: "snaplen cuts the monitor header",
    Malformed.TRANSPORT_LENGTH: "transport header length is less than the 44 bytes of virtio",
    Malformed.SHORT_TRANSPORT: "transport header runs past the end of the frame",
    Malformed.CUT_TRANSPORT: "snaplen cuts the transport header",
}


class LinkKind(IntEnum):
    """What an interface's link type means to the scanner."""

    FOREIGN = 0
    VSOCK = 1
    SLL = 2
    SLL2 = 3


class Known(IntFlag):
    """Which of a tracked row's counters hold; the others are unknown, not zero.

    BEGINNING: the connection began in the capture, not before it.  CAPPED, PEER_CAPPED: the
    smaller buffer of the sender, or of the receiver when it sends, is what limits it.
    """

    TX_CNT = 1
    IN_FLIGHT = 2
    FREE = 4
    GRANTED = 8
    SIDE = 16
    BEGINNING = 32
    CAPPED = 64
    PEER_CAPPED = 128


def header_dtype(header: Header, align: bool = False) -> np.dtype[np.void]:
    """The little-endian dtype of a header, its fields in wire order.

    `align` rounds its size up to the alignment of its fields (44 bytes become 48), which
    leaves the fields where they are: both headers are laid out naturally.
    """
    return np.dtype([(f.name, f"<u{f.size}") for f in header.fields], align=align)


# Offsets of captured bytes are relative to the batch's buffer; lengths are in bytes.
PACKET_DTYPE: Final = np.dtype(
    [
        ("number", "u8"),  # from 1, as Wireshark counts
        ("time_ns", "i8"),  # since 1970-01-01T00:00:00Z, or NO_TIME
        ("record_offset", "u8"),  # of the record or block in the (decompressed) file
        ("record_at", "u4"),  # the same in the buffer
        ("record_len", "u4"),
        ("packet_at", "u4"),  # the captured packet, its link header included
        ("caplen", "u4"),
        ("wirelen", "u4"),
        ("interface", "u4"),  # index into the source's interfaces
        ("ifindex", "u4"),  # of LINUX_SLL2 captures of `any`; else 0
        ("payload_at", "u4"),  # behind the transport header
        ("payload_cap", "u4"),  # bytes of it captured
        ("payload_wire", "u4"),  # bytes of it in the frame
        ("link_size", "u1"),  # bytes of an SLL header before the vsock frame
        ("options", "u1"),  # 1: the pcapng block has options (comments, flags, ...)
        ("layers", "u1"),
        ("malformed", "u1"),
        *[(header.name, header_dtype(header, align=True)) for header in HEADERS],
    ],
    align=True,  # pure Python's memoryview reads aligned columns only
)


def _flat(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """The same layout without nesting: `mon` with `op` becomes `mon_op`."""
    names, formats, offsets = [], [], []
    for name, (kind, offset, *_) in (dtype.fields or {}).items():
        inner = kind.fields or {"": (kind, 0)}
        for part, (form, shift, *_) in inner.items():
            names.append(f"{name}_{part}" if part else name)
            formats.append(form)
            offsets.append(offset + shift)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}
    )


FLAT_DTYPE: Final = _flat(PACKET_DTYPE)

TRACKED_DTYPE: Final = np.dtype(
    [
        ("conn", "u8"),  # from 1; 0: belongs to no connection
        ("marks", "u8"),  # track.marks.Mark
        ("data_at", "u4"),  # the stream's own bytes in the buffer, the tap's repeat left out
        ("data_cap", "u4"),  # bytes of them captured
        ("data_len", "u4"),  # bytes of them sent
        ("tx_cnt", "u4"),  # of the sender, this packet included, mod 2^32
        ("in_flight", "u4"),
        ("free", "u4"),  # the sender's free credit after this packet
        ("granted", "u4"),  # the receiver's free credit after this packet
        ("side", "u1"),  # 0: sent by the initiator, 1: by the acceptor (see Known.SIDE)
        ("state", "u1"),  # track.states.State after this packet
        ("known", "u1"),
    ],
    align=True,
)


def rows_of(
    numbers: NDArray[np.uint64], packets: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each of some packets stands among the numbers of others, and whether it does.

    Numbers rise within a batch, unless its packets were put in order of time.
    """
    if not len(numbers):
        return np.zeros(len(packets), np.intp), np.zeros(len(packets), np.bool_)
    rises = not (numbers[1:] < numbers[:-1]).any()
    order = None if rises else np.argsort(numbers)
    places = np.minimum(np.searchsorted(numbers, packets, sorter=order), len(numbers) - 1)
    rows = places if order is None else order[places]
    return rows, numbers[rows] == packets


class Layout(NamedTuple):
    """How the records of a batch lie in its buffer: needed to copy or look into them."""

    pcapng: bool = False
    big_endian: bool = False
    record_header: int = 16  # bytes before the packet in a pcap record
    section: int = 0  # pcapng: index of the first interface of the records' section


class Batch:
    """Some consecutive packets.

    `rows` has PACKET_DTYPE and `tracked` TRACKED_DTYPE, both of shape (n,); `buffer` holds
    the bytes that the `*_at` columns point to, laid out as `layout` says.  `blocks` are the
    pcapng blocks, whole, that stand in the file before the first row and are not packets.
    `stalls`, of track.store.STALL_DTYPE, are those that ended in the batch, and `events`, of
    track.store.EVENT_DTYPE, what was noticed in it.  Before the tracker has seen it,
    `tracked`, `stalls` and `events` are None.

    `apps` of shape (n,) has the code of each packet's application protocol, `said` what is
    complete with it by packet number, `unanswered` the calls that can be answered no more.
    They are None where apps.dialogues has not seen the batch.
    """

    __slots__ = (
        "_foreign",
        "apps",
        "blocks",
        "buffer",
        "events",
        "layout",
        "rows",
        "said",
        "stalls",
        "tracked",
        "unanswered",
    )

    def __init__(
        self,
        rows: Rows,
        buffer: memoryview,
        layout: Layout,
        blocks: tuple[bytes, ...] = (),
        tracked: Rows | None = None,
        stalls: Rows | None = None,
        events: Rows | None = None,
    ) -> None:
        self.rows = rows
        self.buffer = buffer
        self.layout = layout
        self.blocks = blocks
        self.tracked = tracked
        self.stalls = stalls
        self.events = events
        self.apps: NDArray[np.uint8] | None = None
        self.said: Mapping[int, list[Said]] | None = None
        self.unanswered: list[OpenCall] | None = None
        self._foreign: int | None = None

    @property
    def foreign(self) -> int:
        """How many of the packets are not vsock."""
        if self._foreign is None:
            self._foreign = int(np.count_nonzero(self.rows["malformed"] == _FOREIGN))
        return self._foreign

    def __len__(self) -> int:
        return len(self.rows)

    def rows_of(self, packets: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The row of each of these packet numbers, and whether it is in the batch."""
        return rows_of(self.rows["number"], packets)

    def head(self, count: int) -> "Batch":
        """The first `count` rows, sharing memory with this batch."""
        return self._part(slice(count), self.buffer)

    def take(self, chosen: NDArray[np.intp]) -> "Batch":
        """The rows of these indices, copied; the buffer is shared."""
        return self._part(chosen, self.buffer)

    def copy(self) -> "Batch":
        """A batch that stays valid when the source goes on."""
        part = self._part(slice(None), memoryview(bytes(self.buffer)))
        part.rows = part.rows.copy()
        part.tracked = None if part.tracked is None else part.tracked.copy()
        return part

    def _part(self, chosen: NDArray[np.intp] | slice, buffer: memoryview) -> "Batch":
        tracked = None if self.tracked is None else self.tracked[chosen]
        rows = self.rows[chosen]
        part = Batch(rows, buffer, self.layout, self.blocks, tracked, self.stalls, self.events)
        part.apps = None if self.apps is None else self.apps[chosen]
        part.said, part.unanswered = self.said, self.unanswered
        return part
