"""What a filter may ask of a packet: its numbers, its bytes, and what each name stands for.

Derived from the table of fields; beside them stand the addresses of the packet line, which
are those of the virtio header or, where there is none, of the monitor header.

Rules for editors: nothing here evaluates.  `header` and `place` are what the kernel needs
to find a number by itself; a source without them is decided in user space.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from vsockdump import wire
from vsockdump.batch import PACKET_DTYPE, TRACKED_DTYPE, Batch, Layout
from vsockdump.columns import (
    OfBatch,
    address_column,
    has_connection,
    has_monitor,
    has_virtio,
    header_column,
    kinds_column,
    tracked_column,
)
from vsockdump.fields import BY_NAME, FIELDS, FieldDef, Show
from vsockdump.filters.tree import Compare, Node, Ranges, Search, complement
from vsockdump.findings.registry import Names, names
from vsockdump.lazy import Lazy
from vsockdump.track.states import TERMINAL, State
from vsockdump.track.store import EVENT_DTYPE

FRAME_LENGTH: Final = "frame.len"
KNOWN: Final = "known"  # the tracked column of batch.Known
_OF_FINDINGS: Final = {
    "vsock.marks",
    "vsock.credit.free",
    "vsock.credit.granted",
    "events_low",
    "events_high",
}
EVENTS: Final = ("events_low", "events_high")  # kinds of a packet's events: columns.kinds_column


class Source(NamedTuple):
    """A number of a packet, `low` ... `high`, where `holds` (None: always).

    `header` and `place` tell where it stands in the frame; an address has a place but no
    header, because it is in both.  `zeroed`: where it does not hold its column is 0.
    `codes` are names of values in lower case with dashes; `decimals`: written in seconds,
    kept in nanoseconds.
    """

    column: OfBatch
    holds: OfBatch | None
    low: int
    high: int
    header: wire.Header | None = None
    place: wire.Field | None = None
    zeroed: bool = False
    tracked: bool = False
    codes: Mapping[str, int] = MappingProxyType({})
    decimals: bool = False
    apps: bool = False


class Searched(NamedTuple):
    """Bytes of a packet: `pieces` gives those of each row that has some, by row."""

    pieces: Callable[[Batch], Iterator[tuple[int, bytes | memoryview]]]
    tracked: bool
    apps: bool


def _empty() -> Batch:
    batch = Batch(
        np.zeros(0, PACKET_DTYPE), memoryview(b""), Layout(), (), np.zeros(0, TRACKED_DTYPE)
    )
    batch.apps, batch.said, batch.events = np.zeros(0, np.uint8), {}, np.zeros(0, EVENT_DTYPE)
    return batch


_EMPTY: Final = _empty()


def normal(word: str) -> str:
    """A value's name in the one spelling in which it is looked up."""
    return word.lower().replace("_", "-")


def _codes(codes: Mapping[str, int]) -> Mapping[str, int]:
    """Names of values in their one spelling."""
    return Lazy(lambda: {normal(word): code for word, code in codes.items()})


def _source(field: FieldDef) -> Source:
    column = field.column
    if field.header is not None and field.place is not None:
        column = header_column(field.header.name, field.place.name)
    limits = np.iinfo(column(_EMPTY).dtype)
    # One function for all fields of a header, so that its mask is made once for a batch.
    holds = {wire.VSOCKMON: has_monitor, wire.VIRTIO: has_virtio, None: field.holds}[field.header]
    return Source(
        column,
        holds,
        int(limits.min),
        int(limits.max),
        field.header,
        field.place,
        field.header is not None,
        field.tracked,
        _codes(field.codes),
        field.show == Show.SECONDS,
        field.apps,
    )


def _searched(field: FieldDef) -> Searched:
    return Searched(partial(_pieces, field), field.tracked, field.apps)


def _pieces(field: FieldDef, batch: Batch) -> Iterator[tuple[int, bytes | memoryview]]:
    """The bytes of a field, where packets have it."""
    assert field.holds is not None
    where = np.flatnonzero(field.holds(batch))
    values = field.column(batch)[where].tolist()
    if field.sizes is None:
        texts = (text.encode() for text in values)
        yield from zip(where.tolist(), texts, strict=True)
        return
    sizes = field.sizes(batch)[where].tolist()
    for row, start, size in zip(where.tolist(), values, sizes, strict=True):
        yield row, batch.buffer[start : start + size]


def _address(end: str, part: str) -> Source:
    """`src_cid` and its like, as the packet line shows them."""
    name = f"{end}_{part}"
    place = next(place for place in wire.VIRTIO.fields if place.name == name)
    return _source(BY_NAME[f"vsock.virtio.{name}"])._replace(
        column=address_column(name), holds=has_monitor, header=None, place=place
    )


ADDRESSES: Final = tuple((end, part) for end in ("src", "dst") for part in ("cid", "port"))
_HEADERS_OR_NUMBERS: Final = tuple(
    field
    for field in FIELDS
    if field.show not in (Show.BYTES, Show.TEXT) or field.header is not None
)
SOURCES: Final[dict[str, Source]] = {
    **{field.name: _source(field) for field in _HEADERS_OR_NUMBERS},
    **{f"{end}_{part}": _address(end, part) for end, part in ADDRESSES},
    KNOWN: Source(tracked_column(KNOWN), has_connection, 0, 0xFF, tracked=True),
    **{
        name: Source(kinds_column(word), None, 0, 2**64 - 1, tracked=True)
        for word, name in enumerate(EVENTS)
    },
}
SEARCHED: Final[dict[str, Searched]] = {
    field.name: _searched(field)
    for field in FIELDS
    if field.header is None and field.show in (Show.BYTES, Show.TEXT)
}
CANONICAL: Final = {name: field.name for field in FIELDS for name in field.names}

# Short names of fields; a value may follow them without a sign: `op rw`, `conn 7`.
SHORT: Final = {
    "type": "vsock.virtio.type",
    "op": "vsock.virtio.op",
    "conn": "vsock.conn",
    "side": "vsock.side",
    "state": "vsock.state",
    "free": "vsock.credit.free",
    "granted": "vsock.credit.granted",
    "inflight": "vsock.credit.inflight",
    "tx_cnt": "vsock.tx_cnt",
    "fwd_cnt": "vsock.virtio.fwd_cnt",
    "buf_alloc": "vsock.virtio.buf_alloc",
    "payload_len": "vsock.payload_len",
    "proto": "vsock.app.protocol",
}

GUEST: Final = "guest"
_CID_HIGH: Final = SOURCES["src_cid"].high
_FIRST_GUEST: Final = 3
GUESTS: Final[Ranges] = complement(
    ((0, _FIRST_GUEST - 1), (wire.CID_ANY, wire.CID_ANY)), 0, _CID_HIGH
)
CIDS: Final[dict[str, Ranges]] = {
    **{name: ((cid, cid),) for cid, name in wire.CID_NAMES.items()},
    GUEST: GUESTS,
}

# A flag's name, with the op and type in whose packets it has it, and its bit.
FLAGS: Final[dict[str, tuple[int, int | None, int]]] = {
    **{str(flag.name).lower(): (int(wire.Op.SHUTDOWN), None, int(flag)) for flag in wire.Shutdown},
    **{
        str(flag.name).lower(): (int(wire.Op.RW), int(wire.SocketType.SEQPACKET), int(flag))
        for flag in wire.Seqpacket
    },
}

LIVING: Final[Ranges] = tuple(
    (int(state), int(state)) for state in State if state and state not in TERMINAL
)


def findings() -> dict[str, Names]:
    """What each name of a finding stands for, and each severity."""
    return names()


def is_tracked(leaf: Node) -> bool:
    """Whether a leaf of a lowered tree asks for something that only the tracker knows."""
    match leaf:
        case Compare(source):
            return SOURCES[source].tracked
        case Search(source):
            return SEARCHED[source].tracked
        case _:
            return False


def is_of_findings(leaf: Node) -> bool:
    """Whether a leaf of a lowered tree asks what was found, or for credit."""
    return isinstance(leaf, Compare) and leaf.source in _OF_FINDINGS


def is_of_apps(leaf: Node) -> bool:
    """Whether a leaf of a lowered tree asks for what only the application layer knows."""
    match leaf:
        case Compare(source):
            return SOURCES[source].apps
        case Search(source):
            return SEARCHED[source].apps
        case _:
            return False
