"""A filter on columns: a boolean mask for a batch.

The fast evaluator.  A comparison touches one column, and a column of a structured array
costs a cache line a packet, so that what is not needed is not touched: a header column is 0
where the header is missing, and only a comparison that 0 satisfies has to look whether the
header is there.  Searches in payloads come last and see only what is left.

Raw forms can end the whole filter for a packet (see tree.Relation).  Trees with such forms
carry a second mask, of the packets that have ended, and keep the order of their terms;
those without need neither.

Rules for editors: compare with plain ints, see columns.py; this and packets.py must agree,
and share no arithmetic so that they can be compared.
"""

import re
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Batch
from vsockdump.columns import Column, Mask, OfBatch
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
    Ranges,
    Relation,
    Search,
    Value,
    can_end,
    clipped,
    leaves,
)

_MANY: Final = 4  # ranges; beyond, a search in the sorted ranges is faster than comparing
_WORD: Final = 0xFFFFFFFF
_WORD_BITS: Final = 32


class _Held(NamedTuple):
    """Where a tree holds, and where it has ended the filter (None: nowhere)."""

    holds: Mask
    ended: Mask | None = None


def mask_of(tree: Node, batch: Batch) -> Mask:
    """Which packets of a batch a lowered tree holds for: booleans of shape (n,)."""
    return _Evaluation(batch).held(tree).holds


class _Evaluation:
    """One batch; keeps the masks of layers, which many comparisons share."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._masks: dict[OfBatch, Mask | None] = {}

    def held(self, node: Node) -> _Held:
        """Where a node holds; what has ended there does not hold."""
        match node:
            case And(terms):
                join = self._ordered if can_end(node) else self._unordered
                return join(terms, True)
            case Or(terms):
                join = self._ordered if can_end(node) else self._unordered
                return join(terms, False)
            case Not(term):
                held = self.held(term)
                return _Held(~held.holds & _others(held.ended), held.ended)
            case Always(holds):
                return _Held(np.full(len(self._batch), holds))
            case Compare(source, values, mask):
                return _Held(self._compare(source, values, mask))
            case Search():
                return _Held(self._search(node))
            case Relation():
                return self._relation(node)
        raise TypeError(f"{node!r} is not lowered")

    def _unordered(self, terms: tuple[Node, ...], stop: bool) -> _Held:
        """Terms in any order, the slow ones last and only where the others leave it open."""
        result = self._always(stop)
        for term in terms:
            if _is_slow(term):
                continue
            if stop:
                result &= self.held(term).holds
            else:
                result |= self.held(term).holds
        for term in filter(_is_slow, terms):
            left = np.flatnonzero(result == stop)
            if len(left):
                result[left] = mask_of(term, self._batch.take(left))
        return _Held(result)

    def _ordered(self, terms: tuple[Node, ...], stop: bool) -> _Held:
        """Terms from left to right: a packet gets to the next one unless it has ended.

        For `and` (`stop` is True) a packet goes on while terms hold, for `or` while they do
        not.
        """
        going = self._always(True)
        ended = self._always(False)
        for term in terms:
            held = self.held(term)
            if held.ended is not None:
                ended |= going & held.ended
            going &= (held.holds if stop else ~held.holds) & _others(held.ended)
        holds = going if stop else ~going & ~ended
        return _Held(holds, ended)

    def _always(self, value: bool) -> Mask:
        return np.full(len(self._batch), value)

    # --- comparisons -------------------------------------------------------------------------

    def _compare(self, source: str, values: Ranges, mask: int | None) -> Mask:
        about = SOURCES[source]
        column = about.column(self._batch)
        if mask is not None:
            column = column & (mask & int(np.iinfo(column.dtype).max))
        result = within(column, values)
        holds_zero = values[0][0] <= 0 <= values[-1][1]
        if about.holds is not None and (holds_zero or not about.zeroed):
            where = self._mask(about.holds)
            if where is not None:
                result &= where
        return result

    def _mask(self, of_batch: OfBatch) -> Mask | None:
        """A mask of the table of fields, made once; None where all packets have it."""
        if of_batch not in self._masks:
            mask = of_batch(self._batch)
            self._masks[of_batch] = None if mask.all() else mask
        return self._masks[of_batch]

    # --- bytes -------------------------------------------------------------------------------

    def _search(self, search: Search) -> Mask:
        result = self._always(False)
        found = finder(search)
        for row, data in SEARCHED[search.source].pieces(self._batch):
            result[row] = found(data)
        return result

    # --- raw forms ---------------------------------------------------------------------------

    def _relation(self, relation: Relation) -> _Held:
        ended = self._always(False)
        left = self._value(relation.left, ended)
        right = self._value(relation.right, ended)
        return _Held(_RELATIONS[relation.operator](left, right) & ~ended, ended)

    def _value(self, value: Value, ended: Mask) -> NDArray[np.uint64]:
        """Arithmetic of 32 bits in 64; `ended` gets the packets that end the filter."""
        match value:
            case Number(number):
                return np.full(len(self._batch), number, np.uint64)
            case Length():
                return self._batch.rows["wirelen"].astype(np.uint64)
            case Negative(inner):
                return np.negative(self._value(inner, ended)) & np.uint64(_WORD)
            case Load(index, size):
                return self._load(self._value(index, ended), size, ended)
            case Binary(operator, left, right):
                one, other = self._value(left, ended), self._value(right, ended)
                return self._binary(operator, one, other, ended)

    def _load(self, index: NDArray[np.uint64], size: int, ended: Mask) -> NDArray[np.uint64]:
        rows = self._batch.rows
        beyond = index + size > rows["caplen"]
        ended |= beyond
        whole = np.flatnonzero(~beyond)
        if not len(whole):
            return np.zeros(len(index), np.uint64)
        at = index[whole].astype(np.int64) + rows["packet_at"][whole]
        data = np.frombuffer(self._batch.buffer, np.uint8)
        loaded = np.zeros(len(whole), np.uint64)
        for shift in range(size):
            loaded = loaded << 8 | data[at + shift]
        result = np.zeros(len(index), np.uint64)
        result[whole] = loaded
        return result

    def _binary(
        self, operator: str, left: NDArray[np.uint64], right: NDArray[np.uint64], ended: Mask
    ) -> NDArray[np.uint64]:
        if operator in ("/", "%"):
            ended |= right == 0
            right = np.maximum(right, 1)
        elif operator in ("<<", ">>"):
            # A shift by 32 or more leaves nothing, in libpcap as well.
            right = np.minimum(right, _WORD_BITS)
        return _OPERATORS[operator](left, right) & _WORD


_OPERATORS: Final[dict[str, Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.floor_divide,
    "%": np.remainder,
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
    "<<": np.left_shift,
    ">>": np.right_shift,
}
_RELATIONS: Final[dict[str, Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def _others(ended: Mask | None) -> Any:
    return True if ended is None else ~ended


def _is_slow(node: Node) -> bool:
    return any(isinstance(leaf, Search) for leaf in leaves(node))


def within(column: Column, values: Ranges) -> Mask:
    """Which numbers of a column lie in the ranges."""
    limits = np.iinfo(column.dtype)
    low, high = int(limits.min), int(limits.max)
    values = clipped(values, low, high)
    if len(values) > _MANY:
        firsts = np.array([first for first, _ in values], column.dtype)
        lasts = np.array([last for _, last in values], column.dtype)
        at = np.searchsorted(firsts, column, "right") - 1
        inside: Mask = (at >= 0) & (column <= lasts[at])
        return inside
    result = np.zeros(len(column), np.bool_)
    for index, (first, last) in enumerate(values):
        part = _between(column, first, last, low, high)
        result = part if index == 0 else result | part
    return result


def _between(column: Column, first: int, last: int, low: int, high: int) -> Mask:
    result: Mask
    if first == last:
        result = column == first
    elif first == low:
        result = column <= last
    elif last == high:
        result = column >= first
    else:
        result = (column >= first) & (column <= last)
    return result


def finder(search: Search) -> Any:
    """A function that tells whether some bytes have what is searched for."""
    if search.is_regex:
        flags = re.IGNORECASE if search.ignore_case else 0
        pattern = re.compile(search.pattern, flags)
        return lambda data: pattern.search(data) is not None
    return lambda data: search.pattern in bytes(data)
