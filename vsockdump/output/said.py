"""How a message of an application protocol is drawn: in the packet line, in full, as JSON.

Rules for editors: every text of a message comes from the capture and is escaped here; what
is long is cut, and says so.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from vsockdump.apps.message import Kind, Said, Value
from vsockdump.batch import Batch
from vsockdump.columns import Column, of_said, said_by_row
from vsockdump.output.escaped import on_line
from vsockdump.output.tables import counted, seconds

_SIGNS: Final = {Kind.REQUEST: "→ ", Kind.RESPONSE: "← "}
_MOST_IN_LINE: Final = 3  # messages of one packet
_LONGEST_SUMMARY: Final = 200
_LONGEST_VALUE: Final = 400
_MOST_LINES: Final = 200  # of a message in full
_INDENT: Final = "  "

_RED: Final = "\033[1;31m"
_BOLD: Final = "\033[1m"
_DIM: Final = "\033[2m"
_PLAIN: Final = "\033[0m"


def _texts(batch: Batch, draw: Callable[[list[Said]], str], missing: bytes = b"") -> Column:
    """What `draw` makes of the messages of each packet, as bytes."""
    return of_said(batch, lambda group: draw(group).encode(), missing)


def has_said(batch: Batch) -> Column:
    """Packets with which a message is complete."""
    mask = np.zeros(len(batch), np.bool_)
    for row, _group in said_by_row(batch):
        mask[row] = True
    return mask


def line_texts(colour: bool) -> Callable[[Batch], Column]:
    """The column of messages in packet lines."""
    return lambda batch: _texts(batch, lambda group: _in_line(group, colour))


def _in_line(group: list[Said], colour: bool) -> str:
    texts = [short(said, colour) for said in group[:_MOST_IN_LINE]]
    if len(group) > _MOST_IN_LINE:
        texts.append(f"and {len(group) - _MOST_IN_LINE} more")
    return "; ".join(texts)


def short(said: Said, colour: bool = False) -> str:
    """`ttrpc → grpc.AgentService/CreateContainer #5 312 B`, and what went wrong."""
    message = said.message
    summary = cut(on_line(message.summary), _LONGEST_SUMMARY)
    if message.kind == Kind.NOTE:
        text = f"[{message.protocol}: {summary}]" if message.protocol else f"[{summary}]"
        return f"{_DIM}{text}{_PLAIN}" if colour else text
    name, error = message.protocol, ""
    why = message.call.error if message.call else None
    if why is not None and why not in message.summary:
        error = f" ! {cut(on_line(why), _LONGEST_SUMMARY)}"
    if colour:
        name = f"{_BOLD}{name}{_PLAIN}"
        error = error and f" {_RED}{error[1:]}{_PLAIN}"
    size = f" {said.size} B" if said.size else ""  # without: its bytes count elsewhere
    return f"{name} {_SIGNS.get(message.kind, '')}{summary}{size}{error}"


def cut(text: str, most: int) -> str:
    """The text, or its beginning with how much was left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more)"


# --- in full -------------------------------------------------------------------------------


def detail_texts(start: str) -> Callable[[Batch], Column]:
    """The column of messages in full, each line behind `start`."""
    return lambda batch: _texts(
        batch, lambda group: "".join(start + line for said in group for line in detail_lines(said))
    )


def detail_lines(said: Said) -> Iterator[str]:
    """A message in full: what it is, its fields as a tree, and what it answers."""
    message = said.message
    where = f"bytes {said.offset} to {said.offset + said.size} of the stream"
    if message.kind == Kind.NOTE:
        where = "note"
    yield f"{message.protocol} {message.kind}: {cut(on_line(message.summary), 4000)} ({where})"
    if said.request_packet is not None:
        took = "" if said.latency_ns is None else f" after {seconds(said.latency_ns)} s"
        yield f"{_INDENT}answers packet {said.request_packet}{took}"
    if message.call is not None and message.call.error is not None:
        yield f"{_INDENT}failed: {cut(on_line(message.call.error), _LONGEST_VALUE)}"
    lines = list(_tree(message.fields, 1))
    yield from lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        yield f"{_INDENT}… {counted(len(lines) - _MOST_LINES, 'more line')}"


def _tree(fields: Mapping[str, Value], depth: int) -> Iterator[str]:
    for name, value in fields.items():
        yield from _branch(on_line(str(name)), value, depth)


def _branch(name: str, value: Value, depth: int) -> Iterator[str]:
    indent = _INDENT * depth
    if isinstance(value, Mapping):
        yield f"{indent}{name}:"
        yield from _tree(value, depth + 1)
    elif isinstance(value, str | bytes) or not isinstance(value, Sequence):
        yield f"{indent}{name}: {_leaf(value)}"
    elif all(isinstance(item, str | int | float | None) for item in value):
        yield f"{indent}{name}: {cut(', '.join(map(_leaf, value)), _LONGEST_VALUE)}"
    else:
        for index, item in enumerate(value):
            yield from _branch(f"{name}[{index}]", item, depth)


def _leaf(value: Value) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case bytes():
            return cut(value.hex(), _LONGEST_VALUE) if value else "(empty)"
        case _:
            return cut(on_line(str(value)), _LONGEST_VALUE)


# --- for programs --------------------------------------------------------------------------


def json_texts(batch: Batch) -> Column:
    """The column of messages as JSON lists."""
    return _texts(batch, lambda group: _json([json_of(said) for said in group]), b"[]")


def json_of(said: Said) -> dict[str, Any]:
    """A message as JSON has it; bytes are hexadecimal."""
    message = said.message
    call = message.call
    return {
        "protocol": message.protocol or None,
        "kind": str(message.kind),
        "summary": message.summary,
        "offset": said.offset,
        "size": said.size,
        "method": (call.method or None) if call else None,
        "error": call.error if call else None,
        "request_packet": said.request_packet,
        "latency_ns": said.latency_ns,
        "fields": _plain(message.fields),
    }


def _plain(value: Value) -> Any:
    """Values that JSON has."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # captured JSON can say 1e999; JSON has no infinity
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value
    return [_plain(item) for item in value]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
