"""The syntax tree of a filter, and the filter that a tree stands for.

Every evaluator works on these nodes, which say what is asked and not how it is found out.
`text` prints a tree so that parsing gives it back; it always writes parentheses where
`and` and `or` meet, because their precedence (see parse.py) surprises.

Rules for editors: nodes are values and are made by `both`, `either` and `negated` where
they join others, so that a tree has one shape only.  They are dataclasses, not named
tuples: a named tuple equals any other with the same contents, And as well as Or.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

Ranges = tuple[tuple[int, int], ...]  # (first, last), ascending, with gaps between them


@dataclass(frozen=True, slots=True)
class And:
    """All of at least two terms; later ones are not looked at where one does not hold."""

    terms: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of at least two terms; later ones are not looked at where one holds."""

    terms: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a term."""

    term: "Node"


@dataclass(frozen=True, slots=True)
class Always:
    """All packets (`holds`), or none.  Has no text: it comes from simplifying."""

    holds: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """A number of the packet, `& mask` if there is one, lies in `values`.

    `source` is a key of sources.SOURCES.  Does not hold where the packet has no such number.
    """

    source: str
    values: Ranges
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Ends:
    """The `part` (cid or port) of an end lies in `values`; `where` is src, dst, either or both."""

    part: str
    values: Ranges
    where: str = "either"


@dataclass(frozen=True, slots=True)
class Place:
    """An end that has one of these cids and also one of these ports."""

    cids: Ranges
    ports: Ranges
    where: str = "either"


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag by name, in packets whose op and type give it that name."""

    name: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding by name, or any of a severity."""

    name: str


@dataclass(frozen=True, slots=True)
class Sign:
    """`midstream` or `stalled`."""

    name: str


@dataclass(frozen=True, slots=True)
class Search:
    """Bytes of a field: the pattern itself, or a regular expression."""

    source: str
    pattern: bytes
    is_regex: bool = False
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """A constant of 32 bits in arithmetic."""

    value: int


@dataclass(frozen=True, slots=True)
class Length:
    """Bytes of the packet, as libpcap's `len`."""


@dataclass(frozen=True, slots=True)
class Load:
    """`size` bytes of the captured packet, big-endian, from `index`."""

    index: "Value"
    size: int = 1


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic of 32 bits without sign: + - * / % & | ^ << >>."""

    operator: str
    left: "Value"
    right: "Value"


@dataclass(frozen=True, slots=True)
class Negative:
    """Two's complement."""

    value: "Value"


@dataclass(frozen=True, slots=True)
class Relation:
    """libpcap's comparison of two values: == != < <= > >=.

    A packet that is too short for one of its loads, or a division by zero, ends the whole
    filter: the packet does not match, also under `not`.
    """

    operator: str
    left: "Value"
    right: "Value"


Value = Number | Length | Load | Binary | Negative
Node = And | Or | Not | Always | Compare | Ends | Place | Flag | Finding | Sign | Search | Relation


def both(terms: Iterable[Node]) -> Node:
    """The conjunction of terms, in order."""
    kept: list[Node] = []
    for term in _flat(terms, And):
        if term == Always(False):
            kept.append(term)
            break
        if not isinstance(term, Always):
            kept.append(term)
    # What stands before a constant is kept where it can end the filter.
    if kept and kept[-1] == Always(False) and not any(map(can_end, kept)):
        return Always(False)
    return _joined(kept, And, Always(True))


def either(terms: Iterable[Node]) -> Node:
    """The disjunction of terms, in order."""
    kept: list[Node] = []
    for term in _flat(terms, Or):
        if term == Always(True):
            kept.append(term)
            break
        if not isinstance(term, Always):
            kept.append(term)
    if kept and kept[-1] == Always(True) and not any(map(can_end, kept)):
        return Always(True)
    return _joined(kept, Or, Always(False))


def negated(term: Node) -> Node:
    """The opposite of a term."""
    if isinstance(term, Not):
        return term.term
    if isinstance(term, Always):
        return Always(not term.holds)
    return Not(term)


def _flat(terms: Iterable[Node], kind: type[And] | type[Or]) -> Iterator[Node]:
    for term in terms:
        if isinstance(term, kind):
            yield from term.terms
        else:
            yield term


def _joined(terms: list[Node], kind: type[And] | type[Or], empty: Always) -> Node:
    if not terms:
        return empty
    return terms[0] if len(terms) == 1 else kind(tuple(terms))


def leaves(node: Node) -> Iterator[Node]:
    """The terms of a tree that hold no others, in order."""
    match node:
        case And(terms) | Or(terms):
            for term in terms:
                yield from leaves(term)
        case Not(term):
            yield from leaves(term)
        case _:
            yield node


def can_end(node: Node) -> bool:
    """Whether evaluating the tree can end the whole filter: it has raw loads or divisions."""
    return any(isinstance(leaf, Relation) for leaf in leaves(node))


def mapped(node: Node, change: Callable[[Node], Node]) -> Node:
    """The tree with every leaf changed, simplified."""
    match node:
        case And(terms):
            return both(mapped(term, change) for term in terms)
        case Or(terms):
            return either(mapped(term, change) for term in terms)
        case Not(term):
            return negated(mapped(term, change))
        case _:
            return change(node)


# --- ranges ----------------------------------------------------------------------------------


def ranges(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in their one shape: ascending, neighbours joined."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def clipped(values: Ranges, low: int, high: int) -> Ranges:
    """The part of the ranges in low ... high."""
    return tuple(
        (max(first, low), min(last, high))
        for first, last in values
        if last >= low and first <= high
    )


def complement(values: Ranges, low: int, high: int) -> Ranges:
    """What of low ... high the ranges leave out."""
    gaps, at = [], low
    for first, last in clipped(values, low, high):
        if first > at:
            gaps.append((at, first - 1))
        at = last + 1
    if at <= high:
        gaps.append((at, high))
    return tuple(gaps)


def shared(values: Ranges, others: Ranges) -> Ranges:
    """What two sets of ranges have in common."""
    return tuple(part for first, last in others for part in clipped(values, first, last))
