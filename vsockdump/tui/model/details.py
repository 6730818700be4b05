"""A packet as a tree: its headers field by field, and what is known of it beside them.

Names, places and meanings of fields are those of wire.py and fields.py; what was noticed is
said in the words of the findings.  A node knows the bytes of the packet that it stands for, so
that the hex dump can show them, and the node of a byte can be found.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from vsockdump import wire
from vsockdump.address import cid_name
from vsockdump.amounts import counted
from vsockdump.apps.message import Said
from vsockdump.batch import MALFORMED_TEXT, NO_TIME, Batch, Known, Layers, Malformed
from vsockdump.capture.pcapng import packet_comments
from vsockdump.columns import tracked
from vsockdump.fields import FIELDS, FieldDef
from vsockdump.findings.collector import events_by_packet, packet_sentence
from vsockdump.findings.registry import BY_KIND, rules_of, rules_of_marks
from vsockdump.findings.rule import Rule, explanation
from vsockdump.output.escaped import on_line
from vsockdump.output.fields_text import field_lines, flag_codes, flag_words
from vsockdump.output.said import detail_lines
from vsockdump.output.text import TextOptions, TextView
from vsockdump.track.states import STATE_TEXT, State
from vsockdump.tui.model.capture import Capture

_CONN: Final = "vsock.conn"
_STATE: Final = "vsock.state"
_TX_CNT: Final = int(Known.TX_CNT)
_OURS: Final = tuple(
    field
    for field in FIELDS
    if field.tracked and not field.apps and field.sizes is None and field.name != _CONN
)


class Node(NamedTuple):
    """A line of the tree; `name` is what it can be filtered by, "" where it cannot.

    `start` and `size` are its bytes in the captured packet; size 0: it has none.
    """

    label: str
    value: str = ""
    meaning: str = ""
    start: int = 0
    size: int = 0
    name: str = ""
    children: tuple["Node", ...] = ()

    def holds(self, byte: int) -> bool:
        """Whether it stands for this byte."""
        return self.start <= byte < self.start + self.size


def details(capture: Capture, batch: Batch) -> tuple[Node, ...]:
    """The tree of the one packet of a batch: what is wrong with it first."""
    row = batch.rows[0]
    nodes = [*_findings(capture, batch), _frame(capture, batch)]
    if row["link_size"]:
        nodes.append(Node("Linux cooked capture header", size=int(row["link_size"])))
    at = int(row["link_size"])
    if row["layers"] >= int(Layers.MONITOR):
        nodes.append(_header(wire.VSOCKMON, batch, at))
    if row["layers"] >= int(Layers.VIRTIO):
        nodes.append(_header(wire.VIRTIO, batch, at + wire.VSOCKMON.size))
    nodes += _payload(batch)
    nodes += _messages(capture, batch)
    if row["malformed"]:
        nodes.append(Node("Decoding stopped", MALFORMED_TEXT[Malformed(int(row["malformed"]))]))
    if tracked(batch)["conn"][0]:
        nodes.append(_connection(batch))
    return tuple(nodes)


def node_at(nodes: Iterable[Node], byte: int) -> tuple[Node, ...]:
    """The nodes that stand for a byte, from the outermost to the innermost."""
    for node in nodes:
        if node.holds(byte):
            return (node, *node_at(node.children, byte))
    return ()


def _value(field: FieldDef, batch: Batch) -> str:
    """The field of the packet as -T fields prints it, "" where the packet has none."""
    return _joined(field_lines([field.name]).write(batch))


def _joined(pieces: Iterator[memoryview]) -> str:
    return b"".join(map(bytes, pieces)).decode().rstrip("\n")


def _frame(capture: Capture, batch: Batch) -> Node:
    row = batch.rows[0]
    number, caplen, wirelen = (int(row[name]) for name in ("number", "caplen", "wirelen"))
    cut = f", {caplen} captured" if caplen < wirelen else ""
    parts = [Node("Time", _time(batch), "local time", name="frame.time_epoch")]
    parts.append(Node("Length", str(wirelen), "bytes of the packet", name="frame.len"))
    parts.append(Node("Captured", str(caplen), "bytes of it captured", name="frame.cap_len"))
    interface = int(row["interface"])
    place = capture.source.interfaces[interface].name or f"number {interface}"
    parts.append(Node("Interface", on_line(place), name="frame.interface_id"))
    parts += [Node("Comment", on_line(text)) for text in _comments(batch)]
    title = f"{counted(wirelen, 'byte')}{cut}"
    return Node(f"Packet {number}", title, name="frame.number", children=tuple(parts))


def _time(batch: Batch) -> str:
    if batch.rows["time_ns"][0] == NO_TIME:
        return "none"
    line = _joined(TextView(TextOptions(times=4, nano=True, quiet=True)).write(batch))
    return " ".join(line.split(" ")[:2])


def _comments(batch: Batch) -> list[str]:
    row = batch.rows[0]
    if not row["options"]:
        return []
    start = int(row["record_at"])
    block = batch.buffer[start : start + int(row["record_len"])]
    return packet_comments(block, batch.layout.big_endian)


def _header(header: wire.Header, batch: Batch, at: int) -> Node:
    fields = [field for field in FIELDS if field.header is header]
    parts = tuple(_header_field(field, batch, at) for field in fields)
    title = header.title[0].upper() + header.title[1:]
    return Node(title, counted(header.size, "byte"), "", at, header.size, "", parts)


def _header_field(field: FieldDef, batch: Batch, at: int) -> Node:
    place = field.place
    assert place is not None
    assert field.header is not None
    value = _value(field, batch)
    number = int(batch.rows[field.header.name][place.name][0])
    if place.values is not None:
        value = f"{wire.name_of(place.values, number)} ({number})"
    elif place.name.endswith("_cid"):
        value = f"{number} ({cid_name(number)})"
    elif place.name == "flags" and number:
        value += f" ({', '.join(flag_words(int(flag_codes(batch)[0])))})"
    return Node(place.name, value, field.meaning, at + place.offset, place.size, field.name)


def _payload(batch: Batch) -> Iterator[Node]:
    """The bytes behind the headers and, where the tap repeated some, those of the stream."""
    row, ours = batch.rows[0], tracked(batch)[0]
    if not row["payload_cap"]:
        return
    packet_at = int(row["packet_at"])
    start, size = int(row["payload_at"]) - packet_at, int(row["payload_cap"])
    parts: tuple[Node, ...] = ()
    if ours["data_cap"] and ours["data_cap"] != row["payload_cap"]:
        parts = (
            Node(
                "Data",
                f"{int(ours['data_len'])} bytes",
                "the stream's own bytes; the rest the kernel's tap repeated",
                int(ours["data_at"]) - packet_at,
                int(ours["data_cap"]),
                "vsock.data",
            ),
        )
    cut = int(row["payload_wire"]) - size
    meaning = f"{counted(cut, 'more byte')} not captured" if cut > 0 else ""
    yield Node("Payload", counted(size, "byte"), meaning, start, size, "vsock.payload", parts)


def _messages(capture: Capture, batch: Batch) -> Iterator[Node]:
    """What the packet completes or, where it only carries a part of something, that."""
    number = int(batch.rows["number"][0])
    for group in (batch.said or {}).values():
        for said in group:
            yield _message("Message", said)
    if number not in (batch.said or {}):
        whole = message_of(capture, batch)
        if whole is not None:
            yield _message(f"Message (complete with packet {whole.packet})", whole)


def message_of(capture: Capture, batch: Batch) -> Said | None:
    """The message, complete with a later packet, that the data of a packet is a part of."""
    ours = tracked(batch)[0]
    if not ours["data_len"]:
        return None
    number = int(batch.rows["number"][0])
    row = capture.messages.next_of(int(ours["conn"]), int(ours["side"]), number)
    if row is None or row["packet"] > len(capture.index):
        return None
    last = capture.index.rows(np.array([row["packet"]]))["tracked"][0]
    if ours["known"] & last["known"] & _TX_CNT and last["side"] == ours["side"]:
        between = (int(last["tx_cnt"]) - int(last["data_len"]) - int(ours["tx_cnt"])) % (1 << 32)
        if between >= row["bytes"]:
            return None  # it begins behind the packet: what stood before was not understood
    return capture.messages.read(row)


def _message(label: str, said: Said) -> Node:
    """A message in full, its lines as branches by how far each is indented."""
    title, *lines = detail_lines(said)
    return Node(label, title, children=tuple(_branches(lines, _depth(lines[0]) if lines else 0)))


def _branches(lines: list[str], depth: int) -> Iterator[Node]:
    """The lines at this depth, each with the deeper ones behind it as its children."""
    starts = [place for place, line in enumerate(lines) if _depth(line) <= depth]
    for start, end in pairwise([*starts, len(lines)]):
        name, _, value = lines[start].strip().partition(": ")
        inner = lines[start + 1 : end]
        children = tuple(_branches(inner, _depth(inner[0]))) if inner else ()
        yield Node(name.removesuffix(":"), value, children=children)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _connection(batch: Batch) -> Node:
    parts = []
    for field in _OURS:
        value = _value(field, batch)
        meaning = field.meaning
        if field.name == _STATE:
            meaning = STATE_TEXT[State(int(tracked(batch)["state"][0]))]
        if value:
            parts.append(Node(field.name, value, meaning, name=field.name))
    number = int(tracked(batch)["conn"][0])
    return Node(f"Connection {number}", name=_CONN, children=tuple(parts))


def _findings(capture: Capture, batch: Batch) -> Iterator[Node]:
    ours = tracked(batch)[0]
    for rule in _rules(batch):
        case = capture.case(rule.kind, int(ours["conn"]))
        said = rule.what
        if case is not None and case.event.packet == int(batch.rows["number"][0]):
            said = packet_sentence(batch, 0, case.event)
        yield Node(
            f"{rule.severity.word}: {rule.word}", said, name=rule.name, children=_explained(rule)
        )


def _rules(batch: Batch) -> list[Rule]:
    """The rules of a packet's marks and of its events, worst first."""
    kinds = {rule.kind for rule in rules_of_marks(int(tracked(batch)["marks"][0]))}
    kinds |= {
        BY_KIND[event.kind].kind for _row, events in events_by_packet(batch) for event in events
    }
    return rules_of(sum(1 << kind for kind in kinds))


def _explained(rule: Rule) -> tuple[Node, ...]:
    return tuple(Node(label, said) for label, said in explanation(rule))


def packet_bytes(batch: Batch) -> bytes:
    """The captured bytes of the one packet of a batch."""
    start = int(batch.rows["packet_at"][0])
    return bytes(batch.buffer[start : start + int(batch.rows["caplen"][0])])
