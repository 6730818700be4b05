"""Every field by name: what -T fields, --json and the filter language know.

The header fields are derived from wire.py, in Wireshark's names and notation; ours stand
beside them.  A field is a notation and functions that give its column and its mask for a
batch.

Rules for editors: how a field is drawn is output's matter (output/fields.py), what may be
asked of it that of the filters (filters/sources.py); both derive it from this table.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from vsockdump import wire
from vsockdump.apps import registry
from vsockdump.batch import Batch, Known, Layers
from vsockdump.columns import (
    Column,
    OfBatch,
    app_codes,
    both,
    has_connection,
    has_layer,
    has_marks,
    has_virtio,
    header_column,
    is_known,
    of_said,
    packet_column,
    said_by_row,
    timed,
    tracked_column,
)
from vsockdump.errors import UsageError
from vsockdump.findings.registry import WORDS
from vsockdump.findings.registry import words as _words
from vsockdump.lazy import Lazy
from vsockdump.track.marks import Mark
from vsockdump.track.states import State, state_word

if TYPE_CHECKING:
    from vsockdump.apps.message import Said

MARK_SEPARATOR: Final = ","
SIDES: Final = ("initiator", "acceptor")


class Show(StrEnum):
    """How a value is written; the first three are those of wire.Field.show."""

    DEC = "dec"
    HEX = "hex"  # 0x and eight digits
    BYTES = "bytes"
    SECONDS = "seconds"  # nanoseconds, shown as seconds with nine decimals
    WORD = "word"
    TEXT = "text"  # texts from the capture: a column of Python's own


class FieldDef(NamedTuple):
    """A field: its names (Wireshark's first), its notation, its column and where it holds.

    `column` gives an array of integers of shape (n,), for Show.BYTES positions in the
    batch's buffer, with `sizes` their lengths, for Show.TEXT of Python's strings.  `holds`
    gives a boolean mask, None means always.  `words` are those of a Show.WORD field;
    `meaning` is for the documentation.
    `header` and `place` say which header field it is, if it is one; `tracked`, that its
    column is the tracker's, `apps` that of the application layer.  `codes` are the names by
    which a user may write its values.
    """

    names: tuple[str, ...]
    show: Show
    meaning: str
    column: OfBatch
    holds: OfBatch | None = None
    sizes: OfBatch | None = None
    words: Callable[[int], str] | None = None
    json: bool = True
    header: wire.Header | None = None
    place: wire.Field | None = None
    tracked: bool = False
    codes: Mapping[str, int] = MappingProxyType({})
    apps: bool = False

    @property
    def name(self) -> str:
        """The name in its right spelling."""
        return self.names[-1]

    @property
    def values(self) -> type[IntEnum] | None:
        """The names of its values, where they have some."""
        return self.place.values if self.place else None


def _header_field(header: wire.Header, field: wire.Field, layer: Layers) -> FieldDef:
    show, holds = Show(field.show), has_layer(layer)
    column, sizes = header_column(header.name, field.name), None
    if show == Show.BYTES:

        def column(batch: Batch) -> Column:
            rows = batch.rows
            at: Column = rows["packet_at"].astype(np.int64)
            return at + rows["link_size"] + field.offset

        def sizes(batch: Batch) -> Column:
            return np.full(len(batch), field.size, np.uint32)

    return FieldDef(
        field.wireshark,
        show,
        field.meaning,
        column,
        holds,
        sizes,
        header=header,
        place=field,
        codes=_codes_of(field),
    )


def _codes_of(field: wire.Field) -> dict[str, int]:
    """The names of a header field's values."""
    if field.name.endswith("_cid"):
        return {name: cid for cid, name in wire.CID_NAMES.items()}
    return {value.name: int(value) for value in field.values or ()}


def _mark_words(marks: int) -> str:
    return MARK_SEPARATOR.join(_words(marks))


def _whole_payload(batch: Batch) -> Column:
    """Wireshark shows a payload only where nothing of the packet was cut off."""
    rows = batch.rows
    whole: Column = (rows["payload_cap"] > 0) & (rows["caplen"] >= rows["wirelen"])
    return whole


_FRAME: Final = (
    FieldDef(("frame.number",), Show.DEC, "number of the packet, from 1", packet_column("number")),
    FieldDef(
        ("frame.time_epoch",),
        Show.SECONDS,
        "seconds since 1970-01-01 UTC, nine decimals",
        packet_column("time_ns"),
        timed,
        json=False,
    ),
    FieldDef(
        ("frame.time_ns",),
        Show.DEC,
        "nanoseconds since 1970-01-01 UTC",
        packet_column("time_ns"),
        lambda batch: batch.rows["time_ns"] >= 0,
    ),
    FieldDef(("frame.len",), Show.DEC, "bytes of the packet", packet_column("wirelen")),
    FieldDef(("frame.cap_len",), Show.DEC, "bytes of it captured", packet_column("caplen")),
    FieldDef(
        ("frame.interface_id",),
        Show.DEC,
        "interface of the capture, from 0",
        packet_column("interface"),
    ),
)

_OURS: Final = (
    FieldDef(
        ("vsock.conn",),
        Show.DEC,
        "connection, from 1",
        tracked_column("conn"),
        has_connection,
        tracked=True,
    ),
    FieldDef(
        ("vsock.side",),
        Show.WORD,
        "the sender: initiator or acceptor; nothing where the capture does not tell",
        tracked_column("side"),
        both(has_connection, is_known(Known.SIDE)),
        words=lambda side: SIDES[side],
        codes={word: side for side, word in enumerate(SIDES)},
        tracked=True,
    ),
    FieldDef(
        ("vsock.state",),
        Show.WORD,
        "state of the connection after the packet",
        tracked_column("state"),
        has_connection,
        words=state_word,
        codes={state_word(state): int(state) for state in State if state},
        tracked=True,
    ),
    FieldDef(
        ("vsock.payload_len",),
        Show.DEC,
        "bytes of the stream in this packet, without the tap's repeat",
        tracked_column("data_len"),
        has_virtio,
        tracked=True,
    ),
    FieldDef(
        ("vsock.tx_cnt",),
        Show.DEC,
        "bytes the sender has sent, mod 2^32",
        tracked_column("tx_cnt"),
        is_known(Known.TX_CNT),
        tracked=True,
    ),
    FieldDef(
        ("vsock.credit.inflight",),
        Show.DEC,
        "bytes sent and not yet consumed by the receiver",
        tracked_column("in_flight"),
        is_known(Known.IN_FLIGHT),
        tracked=True,
    ),
    FieldDef(
        ("vsock.credit.free",),
        Show.DEC,
        "free credit of the sender after the packet",
        tracked_column("free"),
        is_known(Known.FREE),
        tracked=True,
    ),
    FieldDef(
        ("vsock.credit.granted",),
        Show.DEC,
        "free credit of the receiver after the packet",
        tracked_column("granted"),
        is_known(Known.GRANTED),
        tracked=True,
    ),
    FieldDef(
        ("vsock.marks",),
        Show.WORD,
        "what was noticed about the packet",
        tracked_column("marks"),
        has_marks(int(Mark.MORE) - 1),
        words=_mark_words,
        codes={word.replace(" ", "-"): mark for mark, word in WORDS.items()},
        tracked=True,
    ),
    FieldDef(
        ("vsock.payload",),
        Show.BYTES,
        "what the frame carries behind its headers, as Wireshark shows it",
        packet_column("payload_at"),
        _whole_payload,
        packet_column("payload_cap"),
        json=False,
    ),
    FieldDef(
        ("vsock.data",),
        Show.BYTES,
        "the captured bytes of the stream, without the tap's repeat",
        tracked_column("data_at"),
        has_virtio,
        tracked_column("data_cap"),
        json=False,
        tracked=True,
    ),
)


def _first_said(value: Callable[["Said"], int | None]) -> tuple[OfBatch, OfBatch]:
    """Column and mask of a number of a packet's first message that has it."""

    def pairs(batch: Batch) -> Iterator[tuple[int, int]]:
        for row, group in said_by_row(batch):
            numbers = [number for said in group if (number := value(said)) is not None]
            if numbers:
                yield row, numbers[0]

    def column(batch: Batch) -> Column:
        numbers = np.zeros(len(batch), np.int64)
        for row, number in pairs(batch):
            numbers[row] = number
        return numbers

    def holds(batch: Batch) -> Column:
        mask = np.zeros(len(batch), np.bool_)
        for row, _number in pairs(batch):
            mask[row] = True
        return mask

    return column, holds


def _texts_said(value: Callable[["Said"], str | None]) -> tuple[OfBatch, OfBatch]:
    """Column and mask of a text of a packet's messages, joined by commas."""

    def joined(group: "list[Said]") -> str:
        return ",".join(text for said in group if (text := value(said)))

    def column(batch: Batch) -> Column:
        return of_said(batch, joined, "")

    return column, lambda batch: column(batch) != ""


def _method(said: "Said") -> str | None:
    call = said.message.call
    return call.method if call else None


def _error(said: "Said") -> str | None:
    call = said.message.call
    return call.error if call else None


def _app_number(
    name: str, show: Show, meaning: str, value: Callable[["Said"], int | None]
) -> FieldDef:
    column, holds = _first_said(value)
    return FieldDef((name,), show, meaning, column, holds, json=False, tracked=True, apps=True)


def _app_text(name: str, meaning: str, value: Callable[["Said"], str | None]) -> FieldDef:
    column, holds = _texts_said(value)
    return FieldDef((name,), Show.TEXT, meaning, column, holds, json=False, tracked=True, apps=True)


_APPS: Final = (
    FieldDef(
        ("vsock.app.protocol",),
        Show.WORD,
        "application protocol of the packet's message or, without one, of its connection",
        app_codes,
        lambda batch: app_codes(batch) != 0,
        words=registry.name_of,
        codes=Lazy(registry.codes),  # this table must not load the protocols
        json=False,
        tracked=True,
        apps=True,
    ),
    _app_text(
        "vsock.app.kind", "request, response, message or note", lambda said: said.message.kind
    ),
    _app_text(
        "vsock.app.summary",
        "what the messages say that are complete with this packet",
        lambda said: said.message.summary,
    ),
    _app_text("vsock.app.method", "what is called", _method),
    _app_text("vsock.app.error", "why a call failed", _error),
    _app_number(
        "vsock.app.size", Show.DEC, "bytes of the packet's first message", lambda said: said.size
    ),
    _app_number(
        "vsock.app.time",
        Show.SECONDS,
        "seconds from the request to this response",
        lambda said: said.latency_ns,
    ),
    _app_number(
        "vsock.app.request_packet",
        Show.DEC,
        "packet that completed the request of this response",
        lambda said: said.request_packet,
    ),
)

FIELDS: Final = (
    *_FRAME,
    *(_header_field(wire.VSOCKMON, field, Layers.MONITOR) for field in wire.VSOCKMON.fields),
    *(_header_field(wire.VIRTIO, field, Layers.VIRTIO) for field in wire.VIRTIO.fields),
    *_OURS,
    *_APPS,
)

BY_NAME: Final = {name: field for field in FIELDS for name in field.names}


class FieldError(UsageError):
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
