"""Every field by name: what -T fields, --json and, later, the filter language know.

The header fields are derived from wire.py, in Wireshark's names and notation; ours stand
beside them.  A field is a cell (how it is shown) and two functions that give its column and
its mask for a batch.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump import wire
from vsockdump.batch import NO_TIME, Batch, Known, Layers, Rows
from vsockdump.output.rows import Cell, Kind
from vsockdump.track.marks import MARKS
from vsockdump.track.states import State, state_word

Column = NDArray[Any]
MARK_SEPARATOR: Final = ","


class FieldDef(NamedTuple):
    """A field: its names (Wireshark's first), its notation, its column and where it holds.

    `column` gives an array of integers of shape (n,), for Kind.BYTES positions in the
    batch's buffer, with `sizes` their lengths.  `holds` gives a boolean mask, None means
    always.  `words` are those of a Kind.WORD field; `meaning` is for the documentation.
    """

    names: tuple[str, ...]
    kind: Kind
    meaning: str
    column: Callable[[Batch], Column]
    holds: Callable[[Batch], Column] | None = None
    sizes: Callable[[Batch], Column] | None = None
    words: Callable[[int], str] | None = None
    json: bool = True

    def cell(self, prefix: str = "", missing: str | None = "") -> Cell:
        """The field as a cell of a line."""
        return Cell(self.kind, prefix, missing, digits=9 if self.kind == Kind.SECONDS else 0)


def tracked(batch: Batch) -> Rows:
    """The tracked columns of a batch that has been through the tracker."""
    if batch.tracked is None:
        raise ValueError("this batch has not been tracked")
    return batch.tracked


def _known(bit: Known) -> Callable[[Batch], Column]:
    return lambda batch: (tracked(batch)["known"] & bit) != 0


def _has_connection(batch: Batch) -> Column:
    return tracked(batch)["conn"] != 0


def _header_field(header: wire.Header, field: wire.Field, layer: Layers) -> FieldDef:
    kind = {"dec": Kind.DEC, "hex": Kind.HEX8, "bytes": Kind.BYTES}[field.show]
    name, inner = header.name, field.name

    def holds(batch: Batch) -> Column:
        mask: Column = batch.rows["layers"] >= layer
        return mask

    if kind == Kind.BYTES:
        return FieldDef(
            field.wireshark,
            kind,
            field.meaning,
            lambda batch: (
                batch.rows["packet_at"].astype(np.int64) + batch.rows["link_size"] + field.offset
            ),
            holds,
            lambda batch: np.full(len(batch), field.size, np.uint32),
        )
    return FieldDef(
        field.wireshark, kind, field.meaning, lambda batch: batch.rows[name][inner], holds
    )


def _mark_words(marks: int) -> str:
    return MARK_SEPARATOR.join(text.word for mark, text in MARKS.items() if marks & mark)


def _column(name: str) -> Callable[[Batch], Column]:
    return lambda batch: batch.rows[name]


def _tracked_column(name: str) -> Callable[[Batch], Column]:
    return lambda batch: tracked(batch)[name]


def _timed(batch: Batch) -> Column:
    mask: Column = batch.rows["time_ns"] != NO_TIME
    return mask


def _whole_payload(batch: Batch) -> Column:
    """Wireshark shows a payload only where nothing of the packet was cut off."""
    rows = batch.rows
    whole: Column = (rows["payload_cap"] > 0) & (rows["caplen"] >= rows["wirelen"])
    return whole


def _is_data(batch: Batch) -> Column:
    rows = batch.rows
    data: Column = (rows["layers"] == Layers.VIRTIO) & (rows["virtio"]["op"] == wire.Op.RW)
    return data


_FRAME: Final = (
    FieldDef(("frame.number",), Kind.DEC, "number of the packet, from 1", _column("number")),
    FieldDef(
        ("frame.time_epoch",),
        Kind.SECONDS,
        "seconds since 1970-01-01 UTC, nine decimals",
        _column("time_ns"),
        _timed,
        json=False,
    ),
    FieldDef(
        ("frame.time_ns",),
        Kind.DEC,
        "nanoseconds since 1970-01-01 UTC",
        _column("time_ns"),
        lambda batch: _timed(batch) & (batch.rows["time_ns"] >= 0),
    ),
    FieldDef(("frame.len",), Kind.DEC, "bytes of the packet", _column("wirelen")),
    FieldDef(("frame.cap_len",), Kind.DEC, "bytes of it captured", _column("caplen")),
    FieldDef(
        ("frame.interface_id",),
        Kind.DEC,
        "interface of the capture, from 0",
        _column("interface"),
    ),
)

_OURS: Final = (
    FieldDef(
        ("vsock.conn",), Kind.DEC, "connection, from 1", _tracked_column("conn"), _has_connection
    ),
    FieldDef(
        ("vsock.side",),
        Kind.WORD,
        "the sender: initiator or acceptor; nothing where the capture does not tell",
        _tracked_column("side"),
        lambda batch: _has_connection(batch) & _known(Known.SIDE)(batch),
        words=lambda side: ("initiator", "acceptor")[side],
    ),
    FieldDef(
        ("vsock.state",),
        Kind.WORD,
        "state of the connection after the packet",
        _tracked_column("state"),
        _has_connection,
        words=state_word,
    ),
    FieldDef(
        ("vsock.payload_len",),
        Kind.DEC,
        "bytes of the stream in this packet, without the tap's repeat",
        _tracked_column("data_len"),
        lambda batch: batch.rows["layers"] == Layers.VIRTIO,
    ),
    FieldDef(
        ("vsock.tx_cnt",),
        Kind.DEC,
        "bytes the sender has sent, mod 2^32",
        _tracked_column("tx_cnt"),
        _known(Known.TX_CNT),
    ),
    FieldDef(
        ("vsock.credit.inflight",),
        Kind.DEC,
        "bytes sent and not yet consumed by the receiver",
        _tracked_column("in_flight"),
        _known(Known.IN_FLIGHT),
    ),
    FieldDef(
        ("vsock.credit.free",),
        Kind.DEC,
        "free credit of the sender after the packet",
        _tracked_column("free"),
        _known(Known.FREE),
    ),
    FieldDef(
        ("vsock.credit.granted",),
        Kind.DEC,
        "free credit of the receiver after the packet",
        _tracked_column("granted"),
        _known(Known.GRANTED),
    ),
    FieldDef(
        ("vsock.marks",),
        Kind.WORD,
        "what was noticed about the packet",
        _tracked_column("marks"),
        lambda batch: tracked(batch)["marks"] != 0,
        words=_mark_words,
    ),
    FieldDef(
        ("vsock.payload",),
        Kind.BYTES,
        "what the frame carries behind its headers, as Wireshark shows it",
        _column("payload_at"),
        _whole_payload,
        _column("payload_cap"),
        json=False,
    ),
    FieldDef(
        ("vsock.data",),
        Kind.BYTES,
        "the captured bytes of the stream, without the tap's repeat",
        _tracked_column("data_at"),
        lambda batch: _is_data(batch) & (tracked(batch)["data_cap"] > 0),
        _tracked_column("data_cap"),
        json=False,
    ),
)

FIELDS: Final = (
    *_FRAME,
    *(_header_field(wire.VSOCKMON, field, Layers.MONITOR) for field in wire.VSOCKMON.fields),
    *(_header_field(wire.VIRTIO, field, Layers.VIRTIO) for field in wire.VIRTIO.fields),
    *_OURS,
)

BY_NAME: Final = {name: field for field in FIELDS for name in field.names}

# The largest word index a Kind.WORD field can have, for fields with few values.
SMALL_WORDS: Final = {"vsock.side": 2, "vsock.state": len(State)}


def lookup(name: str) -> FieldDef:
    """The field of that name; KeyError with a hint where there is none."""
    try:
        return BY_NAME[name]
    except KeyError:
        near = get_close_matches(name, BY_NAME, 1)
        hint = f" Did you mean {near[0]}?" if near else " vsockdump -G fields lists them."
        raise KeyError(f"There is no field {name}.{hint}") from None


def list_fields() -> Iterable[str]:
    """Names and meanings, tab-separated, for -G fields."""
    for field in FIELDS:
        for name in field.names:
            yield f"{name}\t{field.meaning}"
