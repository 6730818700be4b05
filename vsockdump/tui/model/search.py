r"""Searching: what is typed, and where it is found.

GET /       this text, in whatever case
/re+/       what a regular expression of Python's matches; /re+/I minds the case
0x48 65     these bytes

In a list that is the line or the payload, in details the lines of the tree, else the bytes.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from vsockdump.columns import tracked
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.columns import Formatter
from vsockdump.tui.model.details import Node, details, packet_bytes
from vsockdump.tui.model.passes import Numbers

AT_ONCE: Final = 1024  # packets: between two a search can be ended

_HEX: Final = re.compile(r"0x([0-9A-Fa-f\s:]+)$")
_REGEX: Final = re.compile(r"/(.+)/(I?)$")

Matching = Callable[[Numbers], Numbers]


class SearchError(ValueError):
    """What was typed cannot be searched for; one sentence."""


class Sought(NamedTuple):
    """What is searched for: in texts (None: nowhere there), in bytes."""

    text: re.Pattern[str] | None
    data: re.Pattern[bytes]

    def in_text(self, text: str) -> bool:
        """Whether a text has it."""
        return self.text is not None and self.text.search(text) is not None


def sought(typed: str) -> Sought:
    """What was typed; SearchError."""
    typed = typed.strip()
    if match := _HEX.match(typed):
        digits = re.sub(r"[\s:]", "", match[1])
        if len(digits) % 2 or not digits:
            raise SearchError("Bytes have two hexadecimal digits each, as in 0x48 65.")
        return Sought(None, re.compile(re.escape(bytes.fromhex(digits)), re.DOTALL))
    flags, pattern = re.IGNORECASE, re.escape(typed)
    if match := _REGEX.match(typed):
        flags, pattern = re.NOFLAG if match[2] else re.IGNORECASE, match[1]
    if not pattern:
        raise SearchError("There is nothing to search for.")
    try:
        return Sought(re.compile(pattern, flags), re.compile(pattern.encode(), flags))
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise SearchError(f"The regular expression goes wrong: {error}.") from None


def in_list(capture: Capture, formatter: Formatter, wanted: Sought) -> Matching:
    """Packets whose line or payload has it."""
    again = capture.again()

    def matching(numbers: Numbers) -> Numbers:
        found = np.zeros(len(numbers), np.bool_)
        if wanted.text is not None:
            lines = formatter.lines(numbers)
            found[:] = [any(map(wanted.in_text, line.cells)) for line in lines]
        start = 0
        for batch in again.batches(numbers):
            ours = tracked(batch)
            places = zip(ours["data_at"].tolist(), ours["data_cap"].tolist(), strict=True)
            for row, (at, size) in enumerate(places, start):
                if size and wanted.data.search(batch.buffer[at : at + size]):
                    found[row] = True
            start += len(batch)
        return numbers[found]

    return matching


def in_details(capture: Capture, wanted: Sought) -> Matching:
    """Packets with a line of the tree that has it."""
    again = capture.again()

    def holds(number: int) -> bool:
        nodes = details(capture, again.packet(number))
        return any(wanted.in_text(text_of(node)) for node in flat(nodes))

    return lambda numbers: _those(numbers, holds)


def in_bytes(capture: Capture, wanted: Sought) -> Matching:
    """Packets with bytes that have it."""
    again = capture.again()

    def holds(number: int) -> bool:
        return wanted.data.search(packet_bytes(again.packet(number))) is not None

    return lambda numbers: _those(numbers, holds)


def _those(numbers: Numbers, holds: Callable[[int], bool]) -> Numbers:
    return numbers[np.fromiter(map(holds, numbers.tolist()), np.bool_, len(numbers))]


def flat(nodes: Iterable[Node]) -> Iterator[Node]:
    """Nodes and those under them, as they stand in the tree."""
    for node in nodes:
        yield node
        yield from flat(node.children)


def text_of(node: Node) -> str:
    """What the tree shows of a node."""
    return f"{node.label}: {node.value} {node.meaning}"


def next_node(nodes: list[Node], at: int, wanted: Sought, forward: bool) -> Node | None:
    """The next node that has it, behind or before that at `at` (-1, len: from an end on)."""
    order = nodes[at + 1 :] if forward else nodes[:at][::-1] if at >= 0 else []
    return next((node for node in order if wanted.in_text(text_of(node))), None)


def next_bytes(data: bytes, at: int, wanted: Sought, forward: bool) -> range | None:
    """The next place of it behind or before a byte."""
    found = [range(*match.span()) for match in wanted.data.finditer(data) if match[0]]
    found = [one for one in found if (one.start > at if forward else one.start < at)]
    return (found[0] if forward else found[-1]) if found else None
