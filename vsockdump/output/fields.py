"""Every field by name: what -T fields, --json and, later, the filter language know.

The header fields are derived from wire.py, in Wireshark's names and notation; ours stand
beside them.  A field is a cell (how it is shown) and two functions that give its column and
its mask for a batch.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Final, NamedTuple

import numpy as np

from vsockdump import wire
from vsockdump.batch import Batch, Known, Layers
from vsockdump.columns import (
    Column,
    OfBatch,
    both,
    has_connection,
    has_layer,
    has_marks,
    has_virtio,
    header_column,
    is_known,
    packet_column,
    timed,
    tracked_column,
)
from vsockdump.findings.registry import words as _words
from vsockdump.output.rows import Cell, Kind
from vsockdump.track.states import State, state_word

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
    column: OfBatch
    holds: OfBatch | None = None
    sizes: OfBatch | None = None
    words: Callable[[int], str] | None = None
    json: bool = True

    def cell(self, prefix: str = "", missing: str | None = "") -> Cell:
        """The field as a cell of a line."""
        return Cell(self.kind, prefix, missing, digits=9 if self.kind == Kind.SECONDS else 0)


def _header_field(header: wire.Header, field: wire.Field, layer: Layers) -> FieldDef:
    kind = {"dec": Kind.DEC, "hex": Kind.HEX8, "bytes": Kind.BYTES}[field.show]
    holds = has_layer(layer)
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
        field.wireshark, kind, field.meaning, header_column(header.name, field.name), holds
    )


def _mark_words(marks: int) -> str:
    return MARK_SEPARATOR.join(_words(marks))


def _whole_payload(batch: Batch) -> Column:
    """Wireshark shows a payload only where nothing of the packet was cut off."""
    rows = batch.rows
    whole: Column = (rows["payload_cap"] > 0) & (rows["caplen"] >= rows["wirelen"])
    return whole


_FRAME: Final = (
    FieldDef(("frame.number",), Kind.DEC, "number of the packet, from 1", packet_column("number")),
    FieldDef(
        ("frame.time_epoch",),
        Kind.SECONDS,
        "seconds since 1970-01-01 UTC, nine decimals",
        packet_column("time_ns"),
        timed,
        json=False,
    ),
    FieldDef(
        ("frame.time_ns",),
        Kind.DEC,
        "nanoseconds since 1970-01-01 UTC",
        packet_column("time_ns"),
        lambda batch: batch.rows["time_ns"] >= 0,
    ),
    FieldDef(("frame.len",), Kind.DEC, "bytes of the packet", packet_column("wirelen")),
    FieldDef(("frame.cap_len",), Kind.DEC, "bytes of it captured", packet_column("caplen")),
    FieldDef(
        ("frame.interface_id",),
        Kind.DEC,
        "interface of the capture, from 0",
        packet_column("interface"),
    ),
)

_OURS: Final = (
    FieldDef(
        ("vsock.conn",), Kind.DEC, "connection, from 1", tracked_column("conn"), has_connection
    ),
    FieldDef(
        ("vsock.side",),
        Kind.WORD,
        "the sender: initiator or acceptor; nothing where the capture does not tell",
        tracked_column("side"),
        both(has_connection, is_known(Known.SIDE)),
        words=lambda side: ("initiator", "acceptor")[side],
    ),
    FieldDef(
        ("vsock.state",),
        Kind.WORD,
        "state of the connection after the packet",
        tracked_column("state"),
        has_connection,
        words=state_word,
    ),
    FieldDef(
        ("vsock.payload_len",),
        Kind.DEC,
        "bytes of the stream in this packet, without the tap's repeat",
        tracked_column("data_len"),
        has_virtio,
    ),
    FieldDef(
        ("vsock.tx_cnt",),
        Kind.DEC,
        "bytes the sender has sent, mod 2^32",
        tracked_column("tx_cnt"),
        is_known(Known.TX_CNT),
    ),
    FieldDef(
        ("vsock.credit.inflight",),
        Kind.DEC,
        "bytes sent and not yet consumed by the receiver",
        tracked_column("in_flight"),
        is_known(Known.IN_FLIGHT),
    ),
    FieldDef(
        ("vsock.credit.free",),
        Kind.DEC,
        "free credit of the sender after the packet",
        tracked_column("free"),
        is_known(Known.FREE),
    ),
    FieldDef(
        ("vsock.credit.granted",),
        Kind.DEC,
        "free credit of the receiver after the packet",
        tracked_column("granted"),
        is_known(Known.GRANTED),
    ),
    FieldDef(
        ("vsock.marks",),
        Kind.WORD,
        "what was noticed about the packet",
        tracked_column("marks"),
        has_marks(2**64 - 1),
        words=_mark_words,
    ),
    FieldDef(
        ("vsock.payload",),
        Kind.BYTES,
        "what the frame carries behind its headers, as Wireshark shows it",
        packet_column("payload_at"),
        _whole_payload,
        packet_column("payload_cap"),
        json=False,
    ),
    FieldDef(
        ("vsock.data",),
        Kind.BYTES,
        "the captured bytes of the stream, without the tap's repeat",
        tracked_column("data_at"),
        has_virtio,
        tracked_column("data_cap"),
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


class FieldError(ValueError):
    """A field that does not exist; one sentence."""


def lookup(name: str) -> FieldDef:
    """The field of that name; FieldError with a hint where there is none."""
    try:
        return BY_NAME[name]
    except KeyError:
        near = get_close_matches(name, BY_NAME, 1)
        hint = f" Did you mean {near[0]}?" if near else " vsockdump --list-fields lists them."
        raise FieldError(f"There is no field {name}.{hint}") from None


def list_fields() -> Iterable[str]:
    """Names and meanings, tab-separated, for --list-fields."""
    for field in FIELDS:
        for name in field.names:
            yield f"{name}\t{field.meaning}"
