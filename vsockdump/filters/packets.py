"""A filter on one packet at a time, in Python's own numbers.

For details of a packet that somebody looks at, and as the plain reading of what a filter
means, against which the masks and the kernel's programs are tested.
"""

from typing import Final

import numpy as np

from vsockdump.batch import Batch
from vsockdump.filters.masks import finder
from vsockdump.filters.sources import SEARCHED, SOURCES
from vsockdump.filters.tree import (
    Always,
    And,
    Binary,
    Compare,
    Length,
    Load,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Relation,
    Search,
    Value,
)

_WORD: Final = 0xFFFFFFFF
_WORD_BITS: Final = 32


class _Ended(Exception):
    """The filter ends here: the packet does not match."""


def matches(tree: Node, batch: Batch, row: int) -> bool:
    """Whether a lowered tree holds for a row of a batch."""
    try:
        return _Packet(batch, row).holds(tree)
    except _Ended:
        return False


class _Packet:
    """One row of a batch."""

    def __init__(self, batch: Batch, row: int) -> None:
        self._batch = batch.take(np.array([row]))
        rows = self._batch.rows
        start = int(rows["packet_at"][0])
        self._bytes = batch.buffer[start : start + int(rows["caplen"][0])]

    def holds(self, node: Node) -> bool:
        """Whether the node holds; raises _Ended where a raw form ends the filter."""
        match node:
            case And(terms):
                return all(self.holds(term) for term in terms)
            case Or(terms):
                return any(self.holds(term) for term in terms)
            case Not(term):
                return not self.holds(term)
            case Always(holds):
                return holds
            case Compare():
                return self._compare(node)
            case Search():
                return self._search(node)
            case Relation(operator, left, right):
                return _related(operator, self._value(left), self._value(right))
        raise TypeError(f"{node!r} is not lowered")

    def _compare(self, node: Compare) -> bool:
        about = SOURCES[node.source]
        if about.holds is not None and not about.holds(self._batch)[0]:
            return False
        number = int(about.column(self._batch)[0])
        if node.mask is not None:
            number &= node.mask
        return any(first <= number <= last for first, last in node.values)

    def _search(self, node: Search) -> bool:
        found = finder(node)
        return any(found(data) for _row, data in SEARCHED[node.source].pieces(self._batch))

    def _value(self, value: Value) -> int:
        match value:
            case Number(number):
                return number
            case Length():
                return int(self._batch.rows["wirelen"][0])
            case Negative(inner):
                return -self._value(inner) & _WORD
            case Load(index, size):
                at = self._value(index)
                if at + size > len(self._bytes):
                    raise _Ended
                return int.from_bytes(self._bytes[at : at + size], "big")
            case Binary(operator, left, right):
                return _computed(operator, self._value(left), self._value(right))


def _computed(operator: str, left: int, right: int) -> int:
    match operator:
        case "+":
            return left + right & _WORD
        case "-":
            return left - right & _WORD
        case "*":
            return left * right & _WORD
        case "/" | "%":
            if not right:
                raise _Ended
            return left // right if operator == "/" else left % right
        case "&":
            return left & right
        case "|":
            return left | right
        case "^":
            return left ^ right
        case "<<":
            return left << right & _WORD if right < _WORD_BITS else 0
        case _:
            return left >> right if right < _WORD_BITS else 0


def _related(operator: str, left: int, right: int) -> bool:
    return {
        "==": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[operator]
