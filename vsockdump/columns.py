"""Columns and masks of a batch that several views need.

Rules for editors: compare with plain ints.  NumPy takes an IntEnum for an array of int64
and converts the whole column to it, ten times slower.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsockdump.address import Endpoint
from vsockdump.batch import NO_TIME, Batch, Known, Layers, Malformed, Rows
from vsockdump.track.marks import Mark
from vsockdump.wire import Op

if TYPE_CHECKING:
    from vsockdump.apps.message import Said

Column = NDArray[Any]
Mask = NDArray[np.bool_]
OfBatch = Callable[[Batch], Column]


def tracked(batch: Batch) -> Rows:
    """The tracked columns of a batch that has been through the tracker."""
    if batch.tracked is None:
        raise ValueError("this batch has not been tracked")
    return batch.tracked


def ends_in(batch: Batch, row: int) -> tuple[Endpoint, Endpoint]:
    """Initiator and acceptor as they stand in a packet of a tracked batch."""
    virtio = batch.rows[row]["virtio"]
    source = Endpoint(int(virtio["src_cid"]), int(virtio["src_port"]))
    target = Endpoint(int(virtio["dst_cid"]), int(virtio["dst_port"]))
    return (target, source) if tracked(batch)[row]["side"] else (source, target)


def said_by_row(batch: Batch) -> Iterator[tuple[int, "list[Said]"]]:
    """The messages of each row of the batch that has some, in order; apps must have seen it."""
    if batch.said is None:
        raise ValueError("nobody has looked for application messages in this batch")
    if not (batch.said and len(batch)):
        return
    packets = np.fromiter(batch.said, np.uint64, len(batch.said))
    rows, there = batch.rows_of(packets)
    for row, packet in zip(rows[there].tolist(), packets[there].tolist(), strict=True):
        yield row, batch.said[packet]


def of_said(batch: Batch, value: "Callable[[list[Said]], Any]", missing: Any) -> Column:
    """What `value` makes of each packet's messages, as objects; `missing` where it has none."""
    column = np.full(len(batch), missing, object)
    for row, group in said_by_row(batch):
        column[row] = value(group)
    return column


def app_codes(batch: Batch) -> Column:
    """The code of each packet's application protocol, 0: none is known."""
    if batch.apps is None:
        raise ValueError("nobody has looked for application protocols in this batch")
    return batch.apps


def packet_column(name: str) -> OfBatch:
    """A column of PACKET_DTYPE."""
    return lambda batch: batch.rows[name]


def header_column(header: str, name: str) -> OfBatch:
    """A column of the monitor (`mon`) or virtio header."""
    return lambda batch: batch.rows[header][name]


def address_column(name: str) -> OfBatch:
    """An address of the virtio header, or where there is none, of the monitor header."""

    def column(batch: Batch) -> Column:
        inner: Column = batch.rows["virtio"][name]
        whole = has_virtio(batch)
        return inner if whole.all() else np.where(whole, inner, batch.rows["mon"][name])

    return column


def tracked_column(name: str) -> OfBatch:
    """A column of TRACKED_DTYPE."""
    return lambda batch: tracked(batch)[name]


def foreign(batch: Batch) -> Column:
    """Packets that are not vsock."""
    mask: Column = batch.rows["malformed"] == int(Malformed.FOREIGN)
    return mask


def malformed(batch: Batch) -> Column:
    """Packets whose headers could not be read to their end."""
    mask: Column = batch.rows["malformed"] != int(Malformed.NONE)
    return mask


def timed(batch: Batch) -> Column:
    """Packets with a time stamp."""
    mask: Column = batch.rows["time_ns"] != NO_TIME
    return mask


def has_layer(layer: Layers) -> OfBatch:
    """Packets decoded up to this layer or further."""
    least = int(layer)
    return lambda batch: batch.rows["layers"] >= least


def ends_at(layer: Layers) -> OfBatch:
    """Packets decoded up to this layer and no further."""
    wanted = int(layer)
    return lambda batch: batch.rows["layers"] == wanted


has_virtio = has_layer(Layers.VIRTIO)


def copied(batch: Batch) -> Mask:
    """Which packets are copies of others and count for nothing."""
    mask: Mask = (tracked(batch)["marks"] & np.uint64(Mark.COPIES)) != 0
    return mask


has_monitor = has_layer(Layers.MONITOR)


def is_op(op: Op) -> OfBatch:
    """Packets of this virtio op; without a virtio header the column holds 0."""
    wanted = int(op)
    return lambda batch: batch.rows["virtio"]["op"] == wanted


def is_known(bit: Known) -> OfBatch:
    """Packets of which this tracked value is known."""
    wanted = int(bit)
    return lambda batch: (tracked(batch)["known"] & wanted) != 0


def has_marks(marks: int) -> OfBatch:
    """Packets with at least one of these marks."""
    wanted = np.uint64(marks)
    return lambda batch: (tracked(batch)["marks"] & wanted) != 0


def marks_of(marks: int) -> OfBatch:
    """The marks column, reduced to these marks."""
    wanted = np.uint64(marks)
    return lambda batch: tracked(batch)["marks"] & wanted


def kinds_column(word: int) -> OfBatch:
    """The kinds of each packet's events as bits: word 0 has kinds 0 to 63, word 1 the others."""

    def column(batch: Batch) -> Column:
        bits = np.zeros(len(batch), np.uint64)
        events = batch.events
        if events is None or not len(events):
            return bits
        chosen = np.flatnonzero(events["kind"] // 64 == word)
        rows, there = batch.rows_of(events["packet"][chosen])
        kinds = events["kind"][chosen][there] % np.uint64(64)
        np.bitwise_or.at(bits, rows[there], np.uint64(1) << kinds)
        return bits

    return column


def has_connection(batch: Batch) -> Column:
    """Packets that belong to a connection."""
    mask: Column = tracked(batch)["conn"] != 0
    return mask


def both(*masks: OfBatch) -> OfBatch:
    """Packets that all the masks hold."""

    def mask(batch: Batch) -> Column:
        result = masks[0](batch)
        for other in masks[1:]:
            result = result & other(batch)
        return result

    return mask
