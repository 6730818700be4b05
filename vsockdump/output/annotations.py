"""--annotate: what is known of packets as their comments in a pcapng file, which Wireshark shows.

The first packet of a connection in a file names it, and a packet where something is found
for the first time in a connection says what.

Rules for editors: a block is given and a block is returned; what else stands in the file is
not touched.  Comments the block has already are kept behind ours.
"""

import struct
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vsockdump import wire
from vsockdump.batch import Batch, Known, Rows
from vsockdump.capture import pcapng
from vsockdump.columns import ends_in, tracked
from vsockdump.findings.collector import events_by_packet, packet_sentence
from vsockdump.findings.registry import BY_KIND
from vsockdump.output.number_set import NumberSet
from vsockdump.wire import SocketType

_PACKET_AT: Final = 28  # of the enhanced packet block, and of the packet block before it
_CAPLEN_AT: Final = 20
_END_SIZE: Final = 4
_END_OF_OPTIONS: Final = bytes(4)
# Blocks of which the packet stands at _PACKET_AT; simple packets have no place for options.
_WITH_OPTIONS: Final = (pcapng.ENHANCED_PACKET, pcapng.PACKET)


class Comments(Protocol):
    """Gives packets their comments."""

    def begin(self) -> None:
        """A new file begins."""

    def of(self, batch: Batch, rows: Rows) -> dict[int, list[str]]:
        """The comments of `rows`, some of the batch's in their order, by index."""


class Annotations:
    """Names of connections and, unless they are not wanted, findings."""

    def __init__(self, findings: bool = True) -> None:
        self._findings = findings
        self._named = NumberSet()

    def begin(self) -> None:
        """Every file names its connections."""
        self._named.clear()

    def of(self, batch: Batch, rows: Rows) -> dict[int, list[str]]:
        """The comments of some rows of a tracked batch."""
        return self.texts(batch, batch.rows_of(rows["number"])[0])

    def texts(self, batch: Batch, places: NDArray[np.intp]) -> dict[int, list[str]]:
        """What is known of the rows of a tracked batch at `places`, by index into these.

        Where a row comes more than once the first one has its findings.
        """
        found = _findings(batch) if self._findings else {}
        texts: dict[int, list[str]] = {}
        for index in self._first(tracked(batch)["conn"][places]):
            texts[index] = [connection_name(batch, int(places[index]))]
        if found:
            rows, first = np.unique(places, return_index=True)
            for row, index in zip(rows.tolist(), first.tolist(), strict=True):
                if row in found:
                    texts.setdefault(index, []).extend(found[row])
        return dict(sorted(texts.items()))

    def _first(self, numbers: NDArray[np.uint64]) -> list[int]:
        """Where connections stand for the first time in the file."""
        new = np.flatnonzero(~self._named.mask(numbers) & (numbers != 0))
        _numbers, first = np.unique(numbers[new], return_index=True)
        self._named.add(numbers)
        places: list[int] = new[first].tolist()
        return places


def _findings(batch: Batch) -> dict[int, list[str]]:
    """What is found in a tracked batch for the first time in a connection, by row."""
    found = {}
    for row, events in events_by_packet(batch):
        texts = []
        for event in events:
            rule = BY_KIND[event.kind]
            text = packet_sentence(batch, row, event)
            texts.append(f"{rule.severity_of(event).word} {rule.name}: {text}")
        if texts:
            found[row] = texts
    return found


def connection_name(batch: Batch, row: int) -> str:
    """The connection of a packet, as in its line: `#7 guest 3:40000 > host:5000 SEQPACKET`."""
    initiator, acceptor = ends_in(batch, row)
    after, kind = tracked(batch)[row], int(batch.rows[row]["virtio"]["type"])
    name = f"#{after['conn']} {initiator} > {acceptor}"
    if kind != SocketType.STREAM:
        name += f" {wire.name_of(SocketType, kind)}"
    return name if after["known"] & Known.SIDE else f"{name}, or the other way round"


def with_comments(block: bytes, texts: list[str], big_endian: bool) -> bytes:
    """A pcapng packet block with comments added; a simple packet stays as it is."""
    order = ">" if big_endian else "<"
    kind, size = struct.unpack_from(order + "II", block)
    if kind not in _WITH_OPTIONS:
        return block
    caplen = struct.unpack_from(order + "I", block, _CAPLEN_AT)[0]
    end = _PACKET_AT + caplen + -caplen % 4
    added = b"".join(_option(text, order) for text in texts)
    options = block[end : size - _END_SIZE] or _END_OF_OPTIONS
    length = struct.pack(order + "I", end + len(added + options) + _END_SIZE)
    return block[:4] + length + block[8:end] + added + options + length


def _option(text: str, order: str) -> bytes:
    value = text.encode()
    return (
        struct.pack(order + "HH", pcapng.OPT_COMMENT, len(value)) + value + bytes(-len(value) % 4)
    )
