"""What holds for every parser, to be asserted of a talk: segments, batches, losses, hostile bytes.

A property takes the talk and how it is heard (the options of `talking.heard`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scapy.utils import RawPcapReader
from talking import Cut, Turn, heard, split

from vsockdump.apps.message import Kind, Message

RECORDED = Path(__file__).parent / "recorded"
_FRAME = 76  # bytes of a frame before its data: monitor and virtio header
_SOURCE_PORT_AT = 32 + 16  # of the virtio header, behind the monitor header
_OP_AT = 32 + 30
_RW = 5
_CUT = {"missing", "cut", "size", "not decoded"}
_REMEMBERED = ("path", "layers", "resumed", "negotiated", "method")  # of other messages


def recorded(name: str) -> list[Turn]:
    """The turns of a recorded talk."""
    turns: list[Turn] = []
    for data, _meta in RawPcapReader(str(RECORDED / f"{name}.pcap")):
        if data[_OP_AT] == _RW:
            source = int.from_bytes(data[_SOURCE_PORT_AT : _SOURCE_PORT_AT + 4], "little")
            turns.append((0 if source == 49152 else 1, data[_FRAME:]))
    return turns


def plain(messages: list[Message]) -> list[tuple[Any, ...]]:
    """Messages as values that compare, without the notes."""
    return [
        (one.summary, one.kind, dict(one.fields), one.call)
        for one in messages
        if one.kind != Kind.NOTE
    ]


def no_failures(messages: list[Message]) -> None:
    """No exception left a parser but those that may."""
    assert [one.summary for one in messages if "failed" in one.summary and _is_note(one)] == []


def _is_note(message: Message) -> bool:
    return message.kind == Kind.NOTE


def any_segments(talk: list[Turn], protocol: str, **options: Any) -> None:
    """The same messages whatever the packets are; the protocol is told by the user."""
    ports = {1024: protocol}
    whole = heard(talk, ports=ports, **options).messages
    no_failures(whole)
    for size in (1, 2, 3, 7, 64):
        assert plain(heard(split(talk, size), ports=ports, **options).messages) == plain(whole)


def losses(talk: list[Turn], protocol: str, **options: Any) -> None:
    """With a packet lost, or cut by a snaplen, or with the beginning missing, nothing is said
    that was not: fields are those of a message of the whole talk, or of a cut one."""
    ports = {1024: protocol}
    told = [known(one) for one in heard(talk, ports=ports, **options).messages]
    for number, (side, data) in enumerate(talk):
        for connect in (True, False):
            result = heard(talk, ports=ports, lost=[number], connect=connect, **options).messages
            nothing_else(result, told)
        if isinstance(data, bytes) and len(data) > 1:
            cut = [*talk[:number], (side, Cut(data, len(data) // 2)), *talk[number + 1 :]]
            nothing_else(heard(cut, ports=ports, **options).messages, told)


def nothing_else(messages: list[Message], told: list[dict[str, Any]]) -> None:
    """Each message is a note, or cut, or was told, as `known` has it."""
    no_failures(messages)
    for one in messages:
        assert _is_note(one) or _is_cut(one.fields) or known(one) in told, one


def _is_cut(fields: object) -> bool:
    """Whether a tree of fields says that something is missing."""
    if isinstance(fields, Mapping):
        return bool(_CUT & set(fields)) or any(map(_is_cut, fields.values()))
    return isinstance(fields, list) and any(map(_is_cut, fields))


def known(message: Message) -> dict[str, Any]:
    """A message's fields, but for what a parser remembers of other messages."""
    return {key: value for key, value in message.fields.items() if key not in _REMEMBERED}


def hostile(data: bytes, protocol: str, **options: Any) -> None:
    """Any bytes of both sides: notes at most."""
    ports = {1024: protocol}
    for talk in ([(0, data), (1, data)], [(1, data), (0, data[::-1])]):
        no_failures(heard(talk, ports=ports, **options).messages)


def mutated(talk: list[Turn], at: int, value: int, protocol: str, **options: Any) -> None:
    """A talk of which a byte is another."""
    turns = list(talk)
    number = at % len(turns)
    side, data = turns[number]
    if isinstance(data, bytes) and data:
        place = at // len(turns) % len(data)
        turns[number] = (side, data[:place] + bytes([value]) + data[place + 1 :])
    no_failures(heard(turns, ports={1024: protocol}, **options).messages)
