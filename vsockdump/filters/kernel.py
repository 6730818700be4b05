"""The part of a filter that the kernel can decide, as a program of classic BPF.

A capture socket sees frames from the monitor header on.  What is compiled is exact: it
accepts the packets that the mask holds for, of frames that were not cut.  Everything else
is left to user space, by `split`.

How far a frame is decoded decides which of its fields exist and where its addresses stand;
there are three cases (see batch.Layers).  The program finds out which it is and goes on to
one of three copies of the filter, each simplified for its case, in which every field has a
fixed offset and every load is known to lie in the frame.  So only raw forms can run beyond
the frame, which ends the program, as it ends the filter elsewhere.

The fields are little-endian and BPF loads are big-endian.  Equality is that of swapped
constants; order is decided byte by byte from the most significant one, which needs no
arithmetic and goes for 64 bits as well.

Not for the kernel: what only the tracker or the capture file knows; raw forms with a
computed offset (negative ones have a meaning of their own there) or a computed shift.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from vsockdump.batch import Layers
from vsockdump.filters import bpf
from vsockdump.filters.bpf import Assembler, Instruction, Label, Program
from vsockdump.filters.lower import lowered
from vsockdump.filters.sources import FRAME_LENGTH, SOURCES, is_tracked
from vsockdump.filters.tree import (
    Always,
    And,
    Binary,
    Compare,
    Ends,
    Length,
    Load,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Place,
    Ranges,
    Relation,
    Value,
    both,
    can_end,
    complement,
    either,
    leaves,
    mapped,
    negated,
)
from vsockdump.wire import CID_LOCAL, HEADERS_SIZE, VIRTIO, VSOCKMON, Transport

SNAPLEN: Final = 262144  # what an accepted packet returns, unless told otherwise

_MIRROR: Final = {"src": "dst", "dst": "src"}
_FARTHEST_LOAD: Final = 0x7FFFFFFF  # larger offsets are negative to the kernel
_WORD_BITS: Final = 32
_SHIFTS: Final = ("<<", ">>")
_ALU: Final = {
    "+": bpf.ADD,
    "-": bpf.SUB,
    "*": bpf.MUL,
    "/": bpf.DIV,
    "%": bpf.MOD,
    "&": bpf.AND,
    "|": bpf.OR,
    "^": bpf.XOR,
    "<<": bpf.LSH,
    ">>": bpf.RSH,
}
# A jump, and whether it is for the opposite.
_RELATIONS: Final = {
    "==": (bpf.JEQ, False),
    "!=": (bpf.JEQ, True),
    ">": (bpf.JGT, False),
    "<=": (bpf.JGT, True),
    ">=": (bpf.JGE, False),
    "<": (bpf.JGE, True),
}


class Split(NamedTuple):
    """A filter in two halves: a packet matches if it passes the program and then `rest`.

    `program` is None where the kernel takes all packets, `rest` where nothing is left to
    decide; both are trees as written, `pushed` says what the program lets through.
    """

    program: Program | None
    pushed: Node | None
    rest: Node | None


def split(tree: Node, keep_state: bool | None = None, snaplen: int = SNAPLEN) -> Split:
    """Divide a filter between the kernel and user space.

    With `keep_state` the program lets whole connections through, both directions of them
    and all their packets, so that what is tracked stays true; None asks for that only
    where the filter itself needs tracked values.  Accepted packets return `snaplen`.
    """
    conjuncts = tree.terms if isinstance(tree, And) else (tree,)
    if keep_state is None:
        keep_state = any(is_tracked(leaf) for leaf in leaves(lowered(tree)))
    narrow = _whole_connections if keep_state else _decidable
    wanted = {conjunct: narrow(conjunct) for conjunct in conjuncts}
    size = {
        conjunct: len(compiled(lowered(pushed), snaplen))
        for conjunct, pushed in wanted.items()
        if pushed != Always(True)
    }
    while size:
        pushed = both(wanted[conjunct] for conjunct in size)
        program = compiled(lowered(pushed), snaplen)
        if len(program) <= bpf.MAX_INSTRUCTIONS:
            return Split(program, pushed, _left(conjuncts, size, wanted))
        size.pop(max(size, key=lambda conjunct: size[conjunct]))
    return Split(None, None, tree)


def _left(
    conjuncts: tuple[Node, ...], pushed: Container[Node], wanted: Mapping[Node, Node]
) -> Node | None:
    """What the kernel does not decide, or only in part."""
    left = [term for term in conjuncts if term not in pushed or wanted[term] != term]
    return both(left) if left else None


# --- what can be pushed --------------------------------------------------------------------


def _decidable(conjunct: Node) -> Node:
    """The conjunct if the kernel can decide it, else what all its packets have in common."""
    if all(is_decidable(leaf) for leaf in leaves(lowered(conjunct))):
        return conjunct
    # What is left out here could have come before a raw form, and kept it from ending the
    # filter; so raw forms cannot stay.
    return _weakened(
        conjunct,
        lambda leaf: not can_end(leaf) and all(map(is_decidable, leaves(lowered(leaf)))),
    )


def _whole_connections(conjunct: Node) -> Node:
    """All packets of the connections that may have a packet for which the conjunct holds."""
    ends = _weakened(conjunct, lambda leaf: isinstance(leaf, Ends | Place))
    if ends == Always(True):
        return ends
    symmetric = either((ends, mapped(ends, _mirrored))) if mapped(ends, _mirrored) != ends else ends
    if any(isinstance(leaf, Place) or leaf.part == "cid" for leaf in _ends_of(ends)):
        # The two directions of a connection within one machine carry different context ids,
        # but one of them is always `local`.
        return either((symmetric, Ends("cid", ((CID_LOCAL, CID_LOCAL),))))
    return symmetric


def _ends_of(node: Node) -> Iterator[Ends | Place]:
    return (leaf for leaf in leaves(node) if isinstance(leaf, Ends | Place))


def _mirrored(leaf: Node) -> Node:
    """The leaf for packets of the other direction."""
    if isinstance(leaf, Ends | Place) and leaf.where in _MIRROR:
        return replace(leaf, where=_MIRROR[leaf.where])
    return leaf


def _weakened(node: Node, keeps: Callable[[Node], bool], positive: bool = True) -> Node:
    """What holds wherever the node does (not positive: only where it does), of some leaves."""
    match node:
        case And(terms):
            return both(_weakened(term, keeps, positive) for term in terms)
        case Or(terms):
            return either(_weakened(term, keeps, positive) for term in terms)
        case Not(term):
            return negated(_weakened(term, keeps, not positive))
        case _:
            return node if keeps(node) else Always(positive)


def is_decidable(leaf: Node) -> bool:
    """Whether the kernel can decide a leaf of a lowered tree."""
    match leaf:
        case Always():
            return True
        case Compare(source):
            return source == FRAME_LENGTH or SOURCES[source].place is not None
        case Relation(_, left, right):
            return max(_words(left), _words(right) + 1) <= bpf.MEMORY_WORDS
        case _:
            return False


def _words(value: Value) -> int:
    """How many words of memory the arithmetic needs; more than there are where it cannot be."""
    never = bpf.MEMORY_WORDS + 1
    match value:
        case Number() | Length():
            return 0
        case Load(index):
            fixed = isinstance(index, Number) and index.value <= _FARTHEST_LOAD
            return 0 if fixed else never
        case Negative(inner):
            return _words(inner)
        case Binary(operator, left, right):
            if operator in _SHIFTS and not isinstance(right, Number):
                return never
            return max(_words(left), _words(right) + 1)


# --- programs ------------------------------------------------------------------------------


def compiled(tree: Node, snaplen: int = SNAPLEN) -> Program:
    """The program of a lowered tree all of whose leaves the kernel can decide."""
    assembler = Assembler()
    accept, reject = Label(), Label()
    cases = {layer: _for_layer(tree, layer) for layer in reversed(Layers)}
    if not any(map(_is_in_headers, leaves(tree))):
        cases = {Layers.NONE: cases[Layers.NONE]}
    ways: dict[Node, Label] = {Always(True): accept, Always(False): reject}
    labels = {layer: ways.get(case) or Label() for layer, case in cases.items()}
    if len(cases) > 1:
        _choose(assembler, labels)
    elif isinstance(only := cases[Layers.NONE], Always):
        return [Instruction(bpf.RET | bpf.K, 0, 0, snaplen if only.holds else 0)]
    for layer, case in cases.items():
        if case not in ways:
            assembler.place(labels[layer])
            _Case(assembler, layer).decide(case, accept, reject)
    assembler.place(accept)
    assembler.emit(bpf.RET | bpf.K, snaplen)
    assembler.place(reject)
    assembler.emit(bpf.RET | bpf.K, 0)
    return assembler.program()


def _is_in_headers(leaf: Node) -> bool:
    return isinstance(leaf, Compare) and leaf.source != FRAME_LENGTH


def _for_layer(tree: Node, layer: Layers) -> Node:
    """The filter for frames that are decoded so far and no further."""

    def known(leaf: Node) -> Node:
        if not isinstance(leaf, Compare) or not _is_in_headers(leaf):
            return leaf
        about = SOURCES[leaf.source]
        if layer < (Layers.VIRTIO if about.header is VIRTIO else Layers.MONITOR):
            return Always(False)
        whole = leaf.mask is None and leaf.values == ((about.low, about.high),)
        return Always(True) if whole else leaf

    return mapped(tree, known)


def _choose(assembler: Assembler, labels: Mapping[Layers, Label]) -> None:
    """Go to the case of the frame, by the rules of the scanner (capture/scan.py)."""
    virtio, monitor, none = (labels[layer] for layer in reversed(Layers))
    both_headers, short, of_virtio, low_byte = Label(), Label(), Label(), Label()
    length_at = VSOCKMON.offset("len")
    assembler.emit(bpf.LD | bpf.W | bpf.LEN)
    assembler.jump(bpf.JGE, HEADERS_SIZE, both_headers, short)
    assembler.place(short)
    assembler.jump(bpf.JGE, VSOCKMON.size, monitor, none)
    assembler.place(both_headers)
    assembler.emit(bpf.LD | bpf.H | bpf.ABS, VSOCKMON.offset("t"))
    assembler.jump(bpf.JEQ, _swapped(Transport.VIRTIO, 2), of_virtio, monitor)
    assembler.place(of_virtio)
    assembler.emit(bpf.LD | bpf.B | bpf.ABS, length_at + 1)
    assembler.jump(bpf.JEQ, 0, low_byte, virtio)
    assembler.place(low_byte)
    assembler.emit(bpf.LD | bpf.B | bpf.ABS, length_at)
    assembler.jump(bpf.JGE, VIRTIO.size, virtio, monitor)


class _Case:
    """Compiles a filter for frames of one layer."""

    def __init__(self, assembler: Assembler, layer: Layers) -> None:
        self._assembler = assembler
        self._layer = layer

    def decide(self, node: Node, true: Label, false: Label) -> None:
        """Go to one of the labels; both stand behind this."""
        match node:
            case And(terms):
                self._chain(terms, lambda following: (following, false), true, false)
            case Or(terms):
                self._chain(terms, lambda following: (true, following), true, false)
            case Not(term):
                self.decide(term, false, true)
            case Always(holds):
                where = true if holds else false
                self._assembler.jump(bpf.JGE, 0, where, where)
            case Compare(source, values, mask) if source == FRAME_LENGTH:
                self._length(values, mask, true, false)
            case Compare(source, values, mask):
                self._field(source, values, mask, true, false)
            case Relation():
                self._relation(node, true, false)
            case _:
                raise TypeError(f"the kernel cannot decide {node!r}")

    def _chain(
        self,
        terms: tuple[Node, ...],
        exits: Callable[[Label], tuple[Label, Label]],
        true: Label,
        false: Label,
    ) -> None:
        *before, last = terms
        for term in before:
            following = Label()
            self.decide(term, *exits(following))
            self._assembler.place(following)
        self.decide(last, true, false)

    def _length(self, values: Ranges, mask: int | None, true: Label, false: Label) -> None:
        self._assembler.emit(bpf.LD | bpf.W | bpf.LEN)
        if mask is not None:
            self._assembler.emit(bpf.ALU | bpf.AND | bpf.K, mask)
        for first, last in values:
            upper, following = Label(), Label()
            self._assembler.jump(bpf.JGE, first, upper, following)
            self._assembler.place(upper)
            self._assembler.jump(bpf.JGT, last, following, true)
            self._assembler.place(following)
        self._assembler.jump(bpf.JGE, 0, false, false)

    # --- little-endian fields ----------------------------------------------------------------

    def _field(
        self, source: str, values: Ranges, mask: int | None, true: Label, false: Label
    ) -> None:
        place = SOURCES[source].place
        assert place is not None
        header = SOURCES[source].header
        inner = self._layer == Layers.VIRTIO if header is None else header is VIRTIO
        at = place.offset + (VSOCKMON.size if inner else 0)
        full = (1 << 8 * place.size) - 1
        field = _Field(self._assembler, at, place.size, full if mask is None else mask & full)
        field.within(values, true, false)

    # --- raw forms ---------------------------------------------------------------------------

    def _relation(self, relation: Relation, true: Label, false: Label) -> None:
        jump, is_opposite = _RELATIONS[relation.operator]
        ways = (false, true) if is_opposite else (true, false)
        self._value(relation.left, 0)
        if isinstance(relation.right, Number):
            self._assembler.jump(jump, relation.right.value, *ways)
        else:
            self._second_value(relation.right, 0)
            self._assembler.jump(jump, 0, *ways, bpf.X)

    def _value(self, value: Value, word: int) -> None:
        """Leave the value in A, using memory from `word` on."""
        emit = self._assembler.emit
        match value:
            case Number(number):
                emit(bpf.LD | bpf.IMM, number)
            case Length():
                emit(bpf.LD | bpf.W | bpf.LEN)
            case Load(Number(index), size):
                emit(bpf.LD | bpf.SIZES[size] | bpf.ABS, index)
            case Negative(inner):
                self._value(inner, word)
                emit(bpf.ALU | bpf.NEG)
            case Binary(operator, left, Number(bits)) if operator in _SHIFTS:
                self._value(left, word)
                whole = bits < _WORD_BITS  # the kernel refuses to shift by more
                emit(bpf.ALU | (_ALU[operator] if whole else bpf.AND) | bpf.K, bits if whole else 0)
            case Binary(operator, left, Number(number)) if number:  # it refuses to divide by 0
                self._value(left, word)
                emit(bpf.ALU | _ALU[operator] | bpf.K, number)
            case Binary(operator, left, right):
                self._value(left, word)
                self._second_value(right, word)
                emit(bpf.ALU | _ALU[operator] | bpf.X)
            case Load():
                raise TypeError("the kernel cannot load from a computed offset")

    def _second_value(self, value: Value, word: int) -> None:
        """Leave the value in X, and A as it is."""
        self._assembler.emit(bpf.ST, word)
        self._value(value, word + 1)
        self._assembler.emit(bpf.MISC | bpf.TAX)
        self._assembler.emit(bpf.LD | bpf.MEM, word)


class _Field:
    """Compiles comparisons of a little-endian field, of which only the bits of `mask` count."""

    def __init__(self, assembler: Assembler, at: int, size: int, mask: int) -> None:
        self._assembler = assembler
        self._at = at
        self._size = size
        self._mask = mask

    def within(self, values: Ranges, true: Label, false: Label) -> None:
        """Whether it lies in one of the ranges, or in none of those between them."""
        others = complement(values, 0, self._mask)
        if others and _single(values) < _single(others):
            values, true, false = others, false, true
        # Single values first: one load does for all that fit into a word.
        singles = [first for first, last in values if first == last]
        longer = [pair for pair in values if pair[0] != pair[1]]
        for index, value in enumerate(singles):
            following = false if index == len(singles) - 1 and not longer else Label()
            self._equal(value, true, following, is_loaded=index > 0 and self._size <= 4)
            self._place(following, false)
        for index, pair in enumerate(longer):
            following = false if index == len(longer) - 1 else Label()
            self._between(*pair, true, following)
            self._place(following, false)

    def _place(self, following: Label, end: Label) -> None:
        if following is not end:
            self._assembler.place(following)

    def _between(self, first: int, last: int, true: Label, false: Label) -> None:
        if last >= self._mask:
            self._at_least(first, true, false)
        else:
            upper = Label()
            if first:
                self._at_least(first, upper, false)
            self._assembler.place(upper)
            self._at_least(last + 1, false, true)

    def _equal(self, value: int, true: Label, false: Label, is_loaded: bool = False) -> None:
        """Word by word, each with its bytes in the order of the wire."""
        step = min(self._size, 4)
        for shift in range(0, self._size, step):
            following = true if shift + step == self._size else Label()
            part = value >> 8 * shift & (1 << 8 * step) - 1
            if not is_loaded:
                self._load(shift, step)
            self._assembler.jump(bpf.JEQ, _swapped(part, step), following, false)
            self._place(following, true)

    def _at_least(self, value: int, true: Label, false: Label) -> None:
        """Byte by byte from the most significant one, until what is left of `value` is 0.

        Several bytes 0x00 or 0xff are compared at once: where the field differs from them, it
        is larger or smaller.
        """
        shift = self._size - 1
        while value & (1 << 8 * shift) - 1:
            byte, following = value >> 8 * shift & 0xFF, Label()
            if byte in (0x00, 0xFF):
                count = self._alike(value, shift)
                part = self._load_alike(shift, count)
                otherwise = false if byte else true
                self._assembler.jump(bpf.JEQ, part if byte else 0, following, otherwise)
            else:
                count, equal = 1, Label()
                self._load(shift, 1)
                self._assembler.jump(bpf.JGT, byte, true, equal)
                self._assembler.place(equal)
                self._assembler.jump(bpf.JEQ, byte, following, false)
            self._assembler.place(following)
            shift -= count
        self._load(shift, 1)
        self._assembler.jump(bpf.JGE, value >> 8 * shift & 0xFF, true, false)

    def _alike(self, value: int, shift: int) -> int:
        """How many bytes from `shift` down are the same, in one word and before the last."""
        count, byte = 1, value >> 8 * shift & 0xFF
        while (shift - count + 1) % 4 and value & (1 << 8 * (shift - count)) - 1:
            if value >> 8 * (shift - count) & 0xFF != byte:
                break
            count += 1
        return count

    def _load_alike(self, shift: int, count: int) -> int:
        """Load the word of these bytes and keep only them; all of their bits."""
        step = min(self._size, 4)
        base = shift // step * step
        self._load(base, step)
        bits = ((1 << 8 * count) - 1) << 8 * (shift - count + 1 - base)
        if count < step:
            self._assembler.emit(bpf.ALU | bpf.AND | bpf.K, _swapped(bits, step))
        return _swapped(bits, step)

    def _load(self, shift: int, size: int) -> None:
        """Some bytes, big-endian as they stand, without the bits that do not count."""
        self._assembler.emit(bpf.LD | bpf.SIZES[size] | bpf.ABS, self._at + shift)
        every = (1 << 8 * size) - 1
        mask = self._mask >> 8 * shift & every
        if mask != every:
            self._assembler.emit(bpf.ALU | bpf.AND | bpf.K, _swapped(mask, size))


def _single(values: Ranges) -> int:
    """How many ranges are single values, which take the fewest instructions."""
    return sum(first == last for first, last in values)


def _swapped(value: int, size: int) -> int:
    """A little-endian number as a big-endian load sees it."""
    return int.from_bytes(value.to_bytes(size, "little"), "big")
