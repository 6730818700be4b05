"""A tree as the text of a filter.

What is printed parses to the same tree.  Parentheses stand wherever `and` meets `or`, so
that nobody has to know which of them comes first.
"""

from collections.abc import Callable
from typing import Final

from vsockdump.filters.sources import CIDS, SHORT, SOURCES
from vsockdump.filters.tree import (
    Always,
    And,
    Binary,
    Compare,
    Ends,
    Finding,
    Flag,
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
    Search,
    Sign,
    Value,
    complement,
    leaves,
)

Shown = Callable[[int], str]

_WHERE: Final = {"either": "", "src": "src ", "dst": "dst ", "both": "src and dst "}
_SHORT_NAMES: Final = {field: name for name, field in SHORT.items()}
_CID_NAMES: Final = {values: name for name, values in CIDS.items()}
_WORDED: Final = ("op", "type", "state", "side", "conn")  # read better without a sign
_NANOSECONDS: Final = 10**9
_STRING_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def text(node: Node) -> str:
    """The filter that the tree stands for."""
    # Behind `src 3:1024`, a bare 3:1025 would be one of the source as well.
    directed = any(isinstance(leaf, Place) and leaf.where != "either" for leaf in leaves(node))
    return _text(node, directed)


def _text(node: Node, directed: bool) -> str:
    match node:
        case And(terms):
            return " and ".join(_operand(term, directed) for term in terms)
        case Or(terms):
            return " or ".join(_operand(term, directed) for term in terms)
        case Not(term):
            return f"not {_operand(term, directed)}"
        case Always(holds):
            return "every packet" if holds else "no packet"  # in -d only
        case Compare(source, values, mask):
            return _compare(source, values, mask)
        case Ends(part, values, where):
            return _WHERE[where] + _ends(part, values)
        case Place(cids, ports, where):
            end = "src or dst " if directed and where == "either" else _WHERE[where]
            return end + f"{_CID_NAMES.get(cids) or cids[0][0]}:{ports[0][0]}"
        case Flag(name):
            return f"flag {name}"
        case Finding(name):
            # A field's name, which a dotted one looks like, has no hyphens.
            return f"finding {name.replace('-', '_') if '.' in name else name}"
        case Sign(name):
            return name
        case Search(source, pattern, is_regex, ignore_case):
            if is_regex:
                return f"{source} matches {_regex(pattern)}{'i' * ignore_case}"
            return f"{source} contains {_quoted(pattern)}"
        case Relation(operator, left, right):
            return f"{_value(left)} {operator} {_value(right)}"


def _operand(node: Node, directed: bool) -> str:
    """A term of and, or, not."""
    inner = _text(node, directed)
    return f"({inner})" if isinstance(node, And | Or) else inner


def _ends(part: str, values: Ranges) -> str:
    if part == "cid" and values in _CID_NAMES:
        return _CID_NAMES[values]
    if len(values) > 1:
        return f"{part} in {_set(values, str)}"
    ((first, last),) = values
    if first == last:
        return f"{part} {first}"
    return f"{part} in {_set(values, str)}" if part == "cid" else f"portrange {first}-{last}"


def _compare(source: str, values: Ranges, mask: int | None) -> str:
    name = _SHORT_NAMES.get(source, source)
    if mask is not None:
        return f"{name} & {mask:#x} {_sign_and_values(values, 0, mask, hex)}"
    about = SOURCES[source]
    words = {code: word for word, code in about.codes.items()}

    def shown(value: int) -> str:
        if about.decimals:
            return _seconds(value)
        return words.get(value) or str(value)

    if values == ((about.low, about.high),):
        return source
    if name in _WORDED and len(values) == 1 and values[0][0] == values[0][1]:
        return f"{name} {shown(values[0][0])}"
    return f"{name} {_sign_and_values(values, about.low, about.high, shown)}"


def _sign_and_values(values: Ranges, low: int, high: int, shown: Shown) -> str:
    """`== 5`, `>= 5`, `in {5, 7..9}`: whichever says the ranges most simply."""
    others = complement(values, low, high)
    if len(values) == 1:
        ((first, last),) = values
        if first == last:
            return f"== {shown(first)}"
        if others == ((0, 0),):
            return f"!= {shown(0)}"
        if last == high and first > low:
            return f">= {shown(first)}"
        if first == low and last < high:
            return f"<= {shown(last)}"
    if len(others) == 1 and others[0][0] == others[0][1]:
        return f"!= {shown(others[0][0])}"
    return f"in {_set(values, shown)}"


def _set(values: Ranges, shown: Shown) -> str:
    items = [
        shown(first) if first == last else f"{shown(first)}..{shown(last)}"
        for first, last in values
    ]
    return "{" + ", ".join(items) + "}"


def _seconds(nanoseconds: int) -> str:
    whole, rest = divmod(nanoseconds, _NANOSECONDS)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else str(whole)


def _quoted(pattern: bytes) -> str:
    """Bytes between quotes; what is not printable ASCII is escaped."""
    shown = []
    for byte in pattern:
        character = chr(byte)
        if character in _STRING_ESCAPES:
            shown.append(_STRING_ESCAPES[character])
        else:
            shown.append(character if 0x20 <= byte < 0x7F else f"\\x{byte:02x}")
    return f'"{"".join(shown)}"'


def _regex(pattern: bytes) -> str:
    """A regular expression between slashes, as it was written."""
    return f"/{pattern.decode('latin-1')}/"


def _value(value: Value) -> str:
    match value:
        case Number(number):
            return str(number)
        case Length():
            return "len"
        case Load(index, size):
            return f"link[{_value(index)}]" if size == 1 else f"link[{_value(index)}:{size}]"
        case Negative(inner):
            return f"-{_part(inner)}"
        case Binary(operator, left, right):
            return f"{_part(left)} {operator} {_part(right)}"


def _part(value: Value) -> str:
    return f"({_value(value)})" if isinstance(value, Binary) else _value(value)
