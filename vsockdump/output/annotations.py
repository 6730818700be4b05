"""--annotate: findings as comments of the packets in a pcapng file, which Wireshark shows.

Rules for editors: a block is given and a block is returned; what else stands in the file is
not touched.  Comments the block has already are kept behind ours.
"""

import struct
from collections.abc import Callable
from typing import Final

from vsockdump.batch import Batch
from vsockdump.capture import pcapng
from vsockdump.findings.collector import events_by_packet, packet_sentence
from vsockdump.findings.registry import BY_MARK

_PACKET_AT: Final = 28  # of the enhanced packet block, and of the packet block before it
_CAPLEN_AT: Final = 20
_END_SIZE: Final = 4
_END_OF_OPTIONS: Final = bytes(4)
# Blocks of which the packet stands at _PACKET_AT; simple packets have no place for options.
_WITH_OPTIONS: Final = (pcapng.ENHANCED_PACKET, pcapng.PACKET)

Comments = Callable[[Batch], dict[int, list[str]]]  # the comments, by the packet's number


def comments(batch: Batch) -> dict[int, list[str]]:
    """What is found in a tracked batch for the first time in a connection."""
    found = {}
    for row, events in events_by_packet(batch):
        texts = []
        for event in events:
            rule = BY_MARK[event.mark]
            text = packet_sentence(batch, row, event)
            texts.append(f"{rule.severity.word} {rule.name}: {text}")
        if texts:
            found[int(batch.rows["number"][row])] = texts
    return found


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
