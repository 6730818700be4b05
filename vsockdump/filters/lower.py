"""What the words of a filter mean, in terms of numbers: the one place that says it.

`lowered` turns every word into comparisons of numbers, joined by and, or and not.  All
three evaluators start from there, so that a word cannot mean two things.  The result is
made of And, Or, Not, Always, Compare, Search and Relation only.
"""

from collections.abc import Callable

from vsockdump.batch import Known
from vsockdump.filters.sources import EVENTS, FLAGS, KNOWN, LIVING, SOURCES, findings
from vsockdump.filters.tree import (
    Always,
    And,
    Compare,
    Ends,
    Finding,
    Flag,
    Node,
    Or,
    Place,
    Ranges,
    Sign,
    both,
    clipped,
    either,
    mapped,
    shared,
)

_ZERO: Ranges = ((0, 0),)


def lowered(node: Node) -> Node:
    """The tree with every word replaced by what it means, simplified."""
    return mapped(node, _lower)


def _lower(leaf: Node) -> Node:
    match leaf:
        case Compare(source, values, mask):
            return _compare(source, values, mask)
        case Ends(part, values, where):
            return _at(where, lambda end: _compare(f"{end}_{part}", values))
        case Place(cids, ports, where):
            return _at(where, lambda end: _place(end, cids, ports))
        case Flag(name):
            return _flag(name)
        case Finding(name):
            return _finding(*findings()[name])
        case Sign("midstream"):
            return _compare(KNOWN, _ZERO, int(Known.BEGINNING))
        case Sign():
            return _stalled()
        case _:
            return leaf


def _compare(source: str, values: Ranges, mask: int | None = None) -> Node:
    """A comparison without values that the number cannot have."""
    low, high = (SOURCES[source].low, SOURCES[source].high) if mask is None else (0, mask)
    possible = clipped(values, low, high)
    if not possible:
        return Always(False)
    if possible == ((low, high),) and SOURCES[source].holds is None:
        return Always(True)
    return Compare(source, possible, mask)


def _any_bit(source: str, mask: int) -> Node:
    return _compare(source, ((1, mask),), mask)


def _one(source: str, value: int) -> Node:
    return _compare(source, ((value, value),))


def _at(where: str, test: Callable[[str], Node]) -> Node:
    """A test of one end, of either or of both."""
    match where:
        case "either":
            return either((test("src"), test("dst")))
        case "both":
            return both((test("src"), test("dst")))
        case end:
            return test(end)


def _place(end: str, cids: Ranges, ports: Ranges) -> Node:
    return both((_compare(f"{end}_cid", cids), _compare(f"{end}_port", ports)))


def _flag(name: str) -> Node:
    op, socket_type, bit = FLAGS[name]
    tests = [_one("vsock.virtio.op", op)]
    if socket_type is not None:
        tests.append(_one("vsock.virtio.type", socket_type))
    return both((*tests, _any_bit("vsock.virtio.flags", bit)))


def _finding(marks: int, kinds: frozenset[int]) -> Node:
    """A packet with one of the marks, or with an event of one of the kinds, which have none."""
    tests = [_any_bit("vsock.marks", marks)] if marks else []
    for word, source in enumerate(EVENTS):
        bits = sum(1 << kind % 64 for kind in kinds if kind // 64 == word)
        if bits:
            tests.append(_any_bit(source, bits))
    return either(tests)


def _stalled() -> Node:
    """A direction of a connection that has not ended has used up its credit."""
    spent = either((_one("vsock.credit.free", 0), _one("vsock.credit.granted", 0)))
    return both((_compare("vsock.state", LIVING), spent))


def is_contradiction(node: Node) -> bool:
    """Whether a lowered tree asks one number for different values, so that nothing matches."""
    return _without_contradictions(node) == Always(False)


def _without_contradictions(node: Node) -> Node:
    match node:
        case And(terms):
            inner = both(map(_without_contradictions, terms))
            possible: dict[tuple[str, int | None], Ranges] = {}
            for term in inner.terms if isinstance(inner, And) else ():
                if isinstance(term, Compare):
                    key = term.source, term.mask
                    values = shared(possible.get(key, term.values), term.values)
                    possible[key] = values
            return inner if all(possible.values()) else Always(False)
        case Or(terms):
            return either(map(_without_contradictions, terms))
        case _:
            return node
