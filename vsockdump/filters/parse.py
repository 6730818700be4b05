"""The text of a filter becomes a tree.

The grammar is pcap-filter's where that has a word for something: `and` and `or` have equal
precedence and are read from left to right, a value without a word takes the word before
it, and the raw forms mean what they mean to libpcap.  One thing is refused that libpcap
reads in a surprising way: % and ^ beside other operators, which swallow whatever stands to
their right there.

Rules for editors: keywords come from words.py.  Lark's terminals are matched in the order
of their priority and not by length; a keyword is a plain string, so that `android` is not
`and`.  Names of values are no keywords: they are looked up where they are used, with a hint.
Lark is imported here and this module only where there is a filter: it takes 50 ms.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, NamedTuple

from lark import Lark, Token, Tree, UnexpectedInput, UnexpectedToken

from vsockdump.filters.errors import FilterError
from vsockdump.filters.sources import (
    CANONICAL,
    CIDS,
    FLAGS,
    SEARCHED,
    SHORT,
    SOURCES,
    findings,
    normal,
)
from vsockdump.filters.tree import (
    Binary,
    Compare,
    Ends,
    Finding,
    Flag,
    Length,
    Load,
    Negative,
    Node,
    Number,
    Place,
    Ranges,
    Relation,
    Search,
    Sign,
    Value,
    both,
    clipped,
    complement,
    either,
    negated,
    ranges,
)
from vsockdump.filters.words import KEYWORDS, all_words

_GRAMMAR: Final = r"""
start: chain
chain: operand (_join operand)*
_join: AND | AND_SIGN | OR | OR_SIGN
operand: (NOT | NOT_SIGN) operand -> opposite
       | "(" chain ")" -> group
       | _term
       | bare

_term: ends | ends_compared | portrange | named_cid | place | worded | compared | masked
     | listed | present | flag | finding | sign | search | length | relation
ends: direction? part values
ends_compared: direction? part RELATION item
portrange: direction? PORTRANGE RANGE
named_cid: direction? cid_name | direction? GUEST NUMBER
place: direction ENDPOINT | direction? GUEST ENDPOINT
worded: short values
compared: field RELATION item
masked: field AMPERSAND item (RELATION item | IN set)?
listed: field IN set
present: FIELD
flag: FLAG item
finding: FINDING (item | FIELD)
sign: MIDSTREAM | STALLED
search: (PAYLOAD | FIELD) (CONTAINS STRING | MATCHES (STRING | REGEX))
length: (LESS | GREATER) NUMBER
relation: arithmetic RELATION arithmetic
bare: arithmetic | NAME | ENDPOINT

direction: SRC | DST | SRC (OR | AND) DST | DST (OR | AND) SRC
part: CID | PORT
field: short | FIELD
values: item | "(" item (OR item)* ")" | IN? set
set: "{" item ("," item)* "}"
item: _value (TO _value)? | RANGE
_value: NUMBER | NAME

arithmetic: _signed (operator _signed)*
operator: OPERATOR | MINUS | AMPERSAND
_signed: negative | _atom
negative: MINUS _signed
_atom: number | packet_length | load | parenthesized
number: NUMBER
packet_length: LEN
load: (LINK | ETHER) "[" arithmetic (":" NUMBER)? "]"
parenthesized: "(" arithmetic ")"

AND_SIGN.5: "&&"
OR_SIGN.5: "||"
OPERATOR.4: /<<|>>|[+*\/%|^]/
MINUS.4: "-"
AMPERSAND.4: "&"
RELATION.3: /==|!=|<=|>=|[=<>]/
NOT_SIGN: "!"
TO.3: ".."
ENDPOINT.3: /(?:0[xX][0-9a-fA-F]+|[0-9]+|%cids%):(?:0[xX][0-9a-fA-F]+|[0-9]+)(?![\w.])/
RANGE.3: /(?:0[xX][0-9a-fA-F]+|[0-9]+)-(?:0[xX][0-9a-fA-F]+|[0-9]+)(?!\w)/
NUMBER.2: /(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?)(?!\w)/
FIELD.2: /[A-Za-z_]\w*(?:\.\w+)+/
NAME: /[A-Za-z_][\w\-]*/
STRING: /"(?:\\.|[^"\\])*"/
REGEX: /\/(?:\\.|[^\/\\])+\/i?/
%ignore /\s+/
"""

# What the user reads of a terminal in "expected ...": the first that is possible of a group
# stands for all of it.
_EXPECTED: Final = (
    (("PORT",), "a word such as port, cid, host, op, state or a field"),
    (("AND", "OR"), "and, or"),
    (("NUMBER",), "a number"),
    (("NAME",), "a name"),
    (("RANGE",), "a range such as 1024-2047"),
    (("STRING", "REGEX"), "text in quotes"),
    (("RELATION",), "a comparison"),
    (("LPAR",), "("),
    (("RPAR",), ")"),
    (("LBRACE",), "{"),
    (("RBRACE",), "}"),
    (("COMMA",), "a comma"),
    (("LSQB",), "["),
    (("RSQB",), "]"),
    (("$END",), "the end"),
)
_SWALLOWING: Final = ("%", "^")
_PRECEDENCE: Final = {
    "|": 1,
    "&": 2,
    "<<": 3,
    ">>": 3,
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
} | dict.fromkeys(_SWALLOWING, 6)
_DEEPEST: Final = 300  # levels of Lark's tree; a pair of parentheses takes two or three
_LOAD_SIZES: Final = (1, 2, 4)
_DECIMALS: Final = 9  # of a time in seconds

# A string's inside: what stands for itself, a byte in hex, any other escape.
_STRING_PARTS: Final = re.compile(r"([^\\]+)|\\x([0-9a-fA-F]{2})|\\(.)", re.S)
# What a complaint shows of the text, and a word at its end that begins a term.
_FOUND: Final = re.compile(r"[\w.\-]+|\S")
_BEGINNING: Final = re.compile(r"(?:^|\band\s|\bor\s|\bnot\s|[(!&|])\s*([A-Za-z_][\w-]*)\s*$")
_ESCAPES: Final = {
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "0": b"\0",
    "\\": b"\\",
    '"': b'"',
    "'": b"'",
}


def parse(text: str) -> Node:
    """The tree of a filter that is not empty; FilterError where it is none."""
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(error, text) from None
    if _depth(tree) > _DEEPEST:
        raise FilterError("This filter is nested too deeply.", text, 0, len(text))
    return _Builder(text).chain(_tree(tree.children[0]))


@cache
def _parser() -> Lark:
    keywords = "".join(f'{word.upper()}: "{word}"\n' for word in KEYWORDS)
    rules = f"short: {' | '.join(map(str.upper, SHORT))}\n"
    rules += f"cid_name: {' | '.join(map(str.upper, CIDS))}\n"
    grammar = _GRAMMAR.replace("%cids%", "|".join(CIDS))
    return Lark(grammar + rules + keywords, parser="lalr", propagate_positions=True)


def _depth(tree: Tree[Token]) -> int:
    """How deep the tree is; what works on it later recurses."""
    level, depth = [tree], 0
    while level:
        depth += 1
        level = [child for node in level for child in node.children if isinstance(child, Tree)]
    return depth


def _syntax_error(error: UnexpectedInput, text: str) -> FilterError:
    at = min(max(error.pos_in_stream or 0, 0), len(text))
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        at = len(text.rstrip())
    if unknown := _unknown_word(text[:at]):
        word = unknown[1]
        sentence = f"There is no word {word}.{_near(word, all_words())}"
        return FilterError(sentence, text, unknown.start(1), len(word))
    accepts = error.accepts or error.expected if isinstance(error, UnexpectedToken) else ()
    expected = _listed(set(accepts) or set(getattr(error, "allowed", None) or ()))
    if at == len(text.rstrip()):
        return FilterError(f"The filter ends too early{expected}.", text, at)
    found = _FOUND.match(text, at)
    word = found[0] if found else text[at]
    hint = _near(word, all_words()) if word[0].isalpha() else ""
    return FilterError(f"The filter goes wrong at {word}{expected}.{hint}", text, at, len(word))


def _unknown_word(before: str) -> "re.Match[str] | None":
    """A word that nothing begins with, at the end of what was read."""
    found = _BEGINNING.search(before)
    return None if found is None or found[1] in KEYWORDS else found


def _listed(accepts: set[str]) -> str:
    shown = [words for names, words in _EXPECTED if accepts.intersection(names)]
    return f"; expected {', '.join(shown)}" if shown else ""


def _near(word: str, known: Sequence[str]) -> str:
    """A hint for a misspelt word."""
    near = [other for other in get_close_matches(word.lower(), known, 1, 0.5) if other != word]
    return f" Did you mean {near[0]}?" if near else ""


def _near_or_all(word: str, known: Sequence[str]) -> str:
    return _near(word, known) or f" There are {', '.join(known)}."


class _Kind(NamedTuple):
    """The values of a word: their limits, their names, and what they are called."""

    title: str
    low: int
    high: int
    codes: Mapping[str, int] = {}
    decimals: bool = False


def _kind_of(source: str, title: str = "") -> _Kind:
    about = SOURCES[source]
    return _Kind(title or source, about.low, about.high, about.codes, about.decimals)


_ENDS: Final = {part: _kind_of(f"src_{part}", part) for part in ("cid", "port")}
_WORD: Final = _Kind("a number of a raw form", 0, 0xFFFFFFFF)
_Item = list[Token]  # a value, or the first and the last of a range


class _Builder:
    """Makes nodes of Lark's trees, from left to right.

    `_make` is what a value without a word becomes, `_where` the end that an endpoint
    without one stands for: both come from the word before.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._make: Callable[[_Item], Node] | None = None
        self._where = "either"

    def chain(self, tree: Tree[Token]) -> Node:
        """Operands joined by and, or."""
        first, *others = tree.children[::2]
        node = self._operand(_tree(first))
        for join, other in zip(tree.children[1::2], others, strict=True):
            join_all = both if _token(join).type in ("AND", "AND_SIGN") else either
            node = join_all((node, self._operand(_tree(other))))
        return node

    def _operand(self, tree: Tree[Token]) -> Node:
        if tree.data == "opposite":
            return negated(self._operand(_tree(tree.children[1])))
        inner = _tree(tree.children[0])
        if tree.data == "group":
            return self.chain(inner)
        make: Callable[[Tree[Token]], Node] = getattr(self, f"_{inner.data}")
        return make(inner)

    def _remember(self, make: Callable[[_Item], Node]) -> None:
        self._make, self._where = make, "either"

    def _error(self, sentence: str, *tokens: Token) -> FilterError:
        first, last = tokens[0].start_pos or 0, tokens[-1].end_pos or 0
        return FilterError(sentence, self._text, first, last - first)

    # --- addresses ---------------------------------------------------------------------------

    def _ends(self, tree: Tree[Token]) -> Node:
        where, (part, values) = _direction(tree)
        return self._ends_of(where, _only(part), _items(values))

    def _ends_of(self, where: str, part: Token, items: list[_Item]) -> Node:
        self._remember(lambda item: self._ends_of(where, part, [item]))
        values: list[tuple[int, int]] = []
        for item in items:
            if part == "cid" and item[0] in CIDS and len(item) == 1:
                values += CIDS[item[0]]
            else:
                values.append(self._range(item, _ENDS[part]))
        return Ends(str(part), ranges(values), where)

    def _ends_compared(self, tree: Tree[Token]) -> Node:
        where, (part, relation, item) = _direction(tree)
        name, sign = _only(part), _token(relation)
        if sign == "!=":
            raise self._error(f"Of two ends one is nearly always another; use not {name}.", sign)
        return Ends(str(name), self._related(sign, _item(item), _ENDS[name]), where)

    def _portrange(self, tree: Tree[Token]) -> Node:
        where, (_keyword, limits) = _direction(tree)
        return Ends("port", (self._range([_token(limits)], _ENDS["port"]),), where)

    def _named_cid(self, tree: Tree[Token]) -> Node:
        where, (first, *number) = _direction(tree)
        name = Token("CID", "cid")
        if number:
            return self._ends_of(where, name, [[_token(number[0])]])
        return self._ends_of(where, name, [[_only(first)]])

    def _place(self, tree: Tree[Token]) -> Node:
        where, rest = _direction(tree)
        return self._endpoint(_token(rest[-1]), where)

    def _endpoint(self, token: Token, where: str) -> Node:
        self._make, self._where = None, where
        cid, _, port = token.partition(":")
        ports = self._number(token, _ENDS["port"], port)
        cids = CIDS.get(cid)
        if cids is None:
            number = self._number(token, _ENDS["cid"], cid)
            cids = ((number, number),)
        return Place(cids, ((ports, ports),), where)

    # --- fields ------------------------------------------------------------------------------

    def _field_kind(self, tree: Tree[Token]) -> tuple[str, _Kind]:
        """The source that a `field` or `short` stands for, and its values."""
        token = _only(tree)
        name = SHORT[token] if token in SHORT else self._number_field(token)
        return name, _kind_of(name, token)

    def _number_field(self, token: Token) -> str:
        name = CANONICAL.get(token)
        if name is None:
            raise self._error(f"There is no field {token}.{_near(token, list(CANONICAL))}", token)
        if name not in SOURCES:
            raise self._error(f"{token} is bytes; use contains or matches.", token)
        return name

    def _worded(self, tree: Tree[Token]) -> Node:
        name, kind = self._field_kind(_tree(tree.children[0]))
        self._remember(lambda item: Compare(name, (self._range(item, kind),)))
        return Compare(name, self._ranges(_items(tree), kind))

    def _compared(self, tree: Tree[Token]) -> Node:
        field, relation, item = tree.children
        name, kind = self._field_kind(_tree(field))
        return Compare(name, self._related(_token(relation), _item(item), kind))

    def _masked(self, tree: Tree[Token]) -> Node:
        field, _sign, bits, *rest = tree.children
        name, kind = self._field_kind(_tree(field))
        if kind.decimals:
            raise self._error("A time in seconds has no bits; take frame.time_ns.", _only(field))
        mask = self._one(_item(bits), kind)
        if mask <= 0:
            raise self._error("This asks for no bit.", *_item(bits))
        if not rest:
            return Compare(name, ((1, mask),), mask)
        kind = _Kind(f"{kind.title} & {mask:#x}", 0, mask, kind.codes)
        sign, values = _token(rest[0]), rest[1]
        if sign.type == "IN":
            return Compare(name, self._ranges(_items(values), kind), mask)
        return Compare(name, self._related(sign, _item(values), kind), mask)

    def _listed(self, tree: Tree[Token]) -> Node:
        name, kind = self._field_kind(_tree(tree.children[0]))
        return Compare(name, self._ranges(_items(tree), kind))

    def _present(self, tree: Tree[Token]) -> Node:
        name = self._number_field(_token(tree.children[0]))
        return Compare(name, ((SOURCES[name].low, SOURCES[name].high),))

    # --- words with names --------------------------------------------------------------------

    def _flag(self, tree: Tree[Token]) -> Node:
        return self._named(_item(tree.children[1]), Flag, "flag", list(FLAGS))

    def _finding(self, tree: Tree[Token]) -> Node:
        name = tree.children[1]
        item = [name] if isinstance(name, Token) else _item(name)
        return self._named(item, Finding, "finding", list(findings()))

    def _named(
        self, item: _Item, make: Callable[[str], Node], title: str, known: Sequence[str]
    ) -> Node:
        self._remember(lambda other: self._named(other, make, title, known))
        name = normal(item[0])
        if name not in known or len(item) > 1:
            raise self._error(f"There is no {title} {item[0]}.{_near_or_all(name, known)}", *item)
        return make(name)

    def _sign(self, tree: Tree[Token]) -> Node:
        return Sign(str(tree.children[0]))

    # --- bytes -------------------------------------------------------------------------------

    def _search(self, tree: Tree[Token]) -> Node:
        field, how, pattern = map(_token, tree.children)
        name = "vsock.data" if field.type == "PAYLOAD" else str(field)
        if name not in SEARCHED:
            known = ", ".join(("payload", *SEARCHED))
            raise self._error(f"{name} is no field of bytes; these are {known}.", field)
        if how.type == "CONTAINS":
            return Search(name, self._unquoted(pattern))
        return self._regex(name, pattern)

    def _regex(self, name: str, token: Token) -> Node:
        ignore_case = token.type == "REGEX" and token.endswith("i")
        inner = token.removesuffix("i")[1:-1] if token.type == "REGEX" else ""
        pattern = _encoded(inner) if inner else self._unquoted(token)
        try:
            re.compile(pattern)
        except (re.error, OverflowError) as error:
            raise self._error(f"This is no regular expression: {error}.", token) from None
        return Search(name, pattern, True, ignore_case)

    def _unquoted(self, token: Token) -> bytes:
        """The bytes of a string in quotes, with Python's escapes."""
        found = bytearray()
        for plain, code, other in _STRING_PARTS.findall(token[1:-1]):
            if other and other not in _ESCAPES:
                raise self._error(f"\\{other} is no escape; \\\\ is a backslash.", token)
            found += _encoded(plain) + bytes.fromhex(code) + _ESCAPES.get(other, b"")
        if not found:
            raise self._error("The text to look for is empty.", token)
        return bytes(found)

    # --- raw forms ---------------------------------------------------------------------------

    def _length(self, tree: Tree[Token]) -> Node:
        which, number = map(_token, tree.children)
        limit = Number(self._number(number, _WORD))
        return Relation("<=" if which.type == "LESS" else ">=", Length(), limit)

    def _relation(self, tree: Tree[Token]) -> Node:
        left, sign, right = tree.children
        operator = "==" if sign == "=" else str(sign)
        return Relation(operator, self._value(_tree(left)), self._value(_tree(right)))

    def _value(self, tree: Tree[Token]) -> Value:
        match tree.data:
            case "number":
                return Number(self._number(_token(tree.children[0]), _WORD))
            case "packet_length":
                return Length()
            case "negative":
                return Negative(self._value(_tree(tree.children[1])))
            case "parenthesized":
                return self._value(_tree(tree.children[0]))
            case "load":
                return self._load(tree)
            case _:
                return self._arithmetic(tree)

    def _load(self, tree: Tree[Token]) -> Value:
        _link, index, *size = tree.children
        count = self._number(_token(size[0]), _WORD) if size else 1
        if count not in _LOAD_SIZES:
            raise self._error("A raw form takes 1, 2 or 4 bytes.", _token(size[0]))
        return Load(self._value(_tree(index)), count)

    def _arithmetic(self, tree: Tree[Token]) -> Value:
        """Values and operators in a row; the strongest operators first."""
        values = [self._value(_tree(child)) for child in tree.children[::2]]
        signs = [_only(child) for child in tree.children[1::2]]
        self._check_arithmetic(signs, values)
        stack, waiting = [values[0]], list[Token]()
        for sign, value in zip(signs, values[1:], strict=True):
            while waiting and _PRECEDENCE[waiting[-1]] >= _PRECEDENCE[sign]:
                _reduce(stack, waiting)
            waiting.append(sign)
            stack.append(value)
        while waiting:
            _reduce(stack, waiting)
        return stack[0]

    def _check_arithmetic(self, signs: list[Token], values: list[Value]) -> None:
        swallowing = [sign for sign in signs if sign in _SWALLOWING]
        if swallowing and len(signs) > 1:
            raise self._error(f"Beside other operators, {swallowing[0]} needs parentheses.", *signs)
        for sign, value in zip(signs, values[1:], strict=True):
            if sign in ("/", "%") and value == Number(0):
                raise self._error("This divides by zero.", sign)

    # --- values ------------------------------------------------------------------------------

    def _bare(self, tree: Tree[Token]) -> Node:
        """A value without a word: it takes the one before it."""
        tokens = list(tree.scan_values(lambda _: True))
        token = tokens[0]
        if token.type == "ENDPOINT":
            return self._endpoint(token, self._where)
        if len(tokens) > 1 or token.type not in ("NUMBER", "NAME"):
            raise self._error("This value has to be compared with something.", *tokens)
        if self._make is None:
            known = all_words() if token.type == "NAME" else ()
            hint = _near(token, known) or " A value takes the word before it, as in port 5 or 6."
            raise self._error(f"No word stands before {token}.{hint}", token)
        return self._make([token])

    def _ranges(self, items: list[_Item], kind: _Kind) -> Ranges:
        return ranges(self._range(item, kind) for item in items)

    def _range(self, item: _Item, kind: _Kind) -> tuple[int, int]:
        if item[0].type == "RANGE":
            first, last = (self._number(item[0], kind, part) for part in item[0].split("-"))
        else:
            first, last = self._one(item[:1], kind), self._one(item[-1:], kind)
        if first > last:
            raise self._error("This range ends before it begins.", *item)
        return first, last

    def _one(self, item: _Item, kind: _Kind) -> int:
        """A number, or a name that stands for one."""
        (token,) = item if len(item) == 1 else (None,)
        if token is None or token.type == "RANGE":
            raise self._error("A single value is needed here.", *item)
        if token.type != "NAME":
            return self._number(token, kind)
        name = normal(token)
        if name not in kind.codes:
            known = list(kind.codes)
            what = f"{kind.title} has no value {token}." if known else f"{kind.title} is a number."
            raise self._error(what + (_near_or_all(name, known) if known else ""), token)
        return kind.codes[name]

    def _number(self, token: Token, kind: _Kind, digits: str | None = None) -> int:
        value = self._digits(token, digits or str(token), kind.decimals)
        if not kind.low <= value <= kind.high:
            raise self._error(f"{kind.title} is at most {kind.high}.", token)
        return value

    def _digits(self, token: Token, digits: str, decimals: bool) -> int:
        whole, point, fraction = digits.partition(".")
        if decimals:
            if len(fraction) > _DECIMALS or whole[:2].lower() == "0x":
                raise self._error("A time has up to nine decimals.", token)
            return int(whole + fraction.ljust(_DECIMALS, "0"))
        if point:
            raise self._error("This has to be a whole number.", token)
        try:
            return int(digits, 0 if digits[:2].lower() == "0x" else 8 if digits[0] == "0" else 10)
        except ValueError:
            raise self._error("A number that begins with 0 is octal.", token) from None

    def _related(self, sign: Token, item: _Item, kind: _Kind) -> Ranges:
        """The values that stand in a relation to one of these."""
        low, high = kind.low, kind.high
        if sign in ("=", "=="):
            return (self._range(item, kind),)
        if sign == "!=":
            values = complement((self._range(item, kind),), low, high)
        else:
            value = self._one(item, kind)
            limits = {
                "<": (low, value - 1),
                "<=": (low, value),
                ">": (value + 1, high),
                ">=": (value, high),
            }
            values = clipped((limits[sign],), low, high)
            values = tuple(pair for pair in values if pair[0] <= pair[1])
        if not values:
            raise self._error(f"{kind.title} is never {sign} {item[0]}.", sign, *item)
        return values


def _reduce(stack: list[Value], waiting: list[Token]) -> None:
    right, left = stack.pop(), stack.pop()
    stack.append(Binary(str(waiting.pop()), left, right))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- Lark's trees, whose children are trees and tokens -----------------------------------------


def _tree(child: object) -> Tree[Token]:
    assert isinstance(child, Tree)
    return child


def _token(child: object) -> Token:
    assert isinstance(child, Token)
    return child


def _only(child: object) -> Token:
    """The one token of a tree."""
    (token,) = _tree(child).scan_values(lambda _: True)
    return _token(token)


def _item(child: object) -> _Item:
    return [token for token in map(_token, _tree(child).children) if token.type != "TO"]


def _items(child: object) -> list[_Item]:
    return [_item(item) for item in _tree(child).find_data("item")]


def _direction(tree: Tree[Token]) -> tuple[str, list[Any]]:
    """Which end is meant, and the children behind that."""
    first, *rest = tree.children
    if isinstance(first, Token) or first.data != "direction":
        return "either", list(tree.children)
    words = [str(word) for word in first.children]
    if len(words) == 1:
        return words[0], rest
    return "both" if "and" in words else "either", rest
