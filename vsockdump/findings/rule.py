"""What a rule is, and how its sentence is made from a case.

A rule is data: the tracker decides that something is the case and gives an event with two
numbers (see Kind); the rule has the words.  Rules for editors: a message says what happened
with the case's numbers, `what` the same without them, `cause` what usually brings it about,
`look` what to look at next; `source` where it is written down.  One or two plain sentences
each.  A rule that fires on healthy traffic is worse than none.
"""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from vsockdump import wire
from vsockdump.amounts import counted, span
from vsockdump.batch import MALFORMED_TEXT, Malformed
from vsockdump.track.kinds import Doubt, Kind


class Severity(IntEnum):
    """Wireshark's: an ordinary event, worth knowing, suspicious, against the rules."""

    CHAT = 1
    NOTE = 2
    WARN = 3
    ERROR = 4

    @property
    def word(self) -> str:
        """As it is printed and typed."""
        return self.name.lower()


class Rule(NamedTuple):
    """One finding.  `name` is stable; `word` stands in the packet line."""

    name: str
    severity: Severity
    kind: Kind
    word: str
    what: str
    message: str
    cause: str
    look: str
    source: str
    most: str = ""  # what the case with the largest `a` is called, of rules that can get worse
    doubtful: bool = False  # cases may be unproven when they are found
    hang_ns: int = 0  # what still goes on after so long is a warning, 0: never
    others: Mapping[int, str] = MappingProxyType({})  # messages of other track.kinds.Cause

    @property
    def group(self) -> str:
        """The middle of the name: frame, address, connect, connection, close, ..."""
        return self.name.split(".")[1]

    def severity_of(self, event: "Event") -> Severity:
        """The severity of a case: what may not be so is no error, what goes on may be worse."""
        if event.open and self.hang_ns and event.a >= self.hang_ns:
            return max(self.severity, Severity.WARN)
        return self.severity_with(event.doubt)

    def severity_with(self, doubt: int) -> Severity:
        """The severity of what there is doubt of (track.kinds.Doubt)."""
        doubted = doubt & Doubt.ORDER or (
            doubt & (Doubt.MISSING | Doubt.SHARED) and self.group == "credit"
        )
        return min(self.severity, Severity.WARN) if doubted else self.severity


class Event(NamedTuple):
    """A row of track.store.EVENT_DTYPE."""

    kind: int
    conn: int
    packet: int
    time_ns: int
    a: int
    b: int
    side: int
    open: int = 0
    doubt: int = 0
    cause: int = 0


class _Amount(int):
    """A number that a message formats by what it is: `{a:bytes}`, `{b:time}`."""

    def __format__(self, kind: str) -> str:
        match kind:
            case "":
                return str(int(self))
            case "time":
                return span(self)
            case "hex":
                return hex(self)
            case "op":
                return wire.name_of(wire.Op, self)
            case "monitor":
                return wire.name_of(wire.MonitorOp, self)
            case "type":
                return wire.name_of(wire.SocketType, self)
            case "malformed":
                return MALFORMED_TEXT[Malformed(self)]
        return counted(self, kind.removesuffix("s"))


def explanation(rule: Rule) -> tuple[tuple[str, str], ...]:
    """What there is to know about a rule: labels and sentences."""
    return (
        ("What", rule.what),
        ("Likely cause", rule.cause),
        ("Look at", rule.look),
        ("Source", rule.source),
    )


UNKNOWN_ENDS: Final = ("one end", "the other end")


def sentence(rule: Rule, event: Event, ends: tuple[str, str] = UNKNOWN_ENDS) -> str:
    """What happened; `ends` are the names of side 0 and side 1."""
    text = rule.others.get(event.cause, rule.message).format(
        who=ends[event.side], peer=ends[1 - event.side], a=_Amount(event.a), b=_Amount(event.b)
    )
    doubted = "" if event.kind == Kind.OUT_OF_ORDER else _doubted(event.doubt)
    return text + (", and it goes on" if event.open else "") + doubted


# What a sentence says behind itself of the doubt in it: the first that there is.
DOUBTS: Final = {
    Doubt.ORDER: "; the connection's packets are out of order (--reorder), and it may not be so",
    Doubt.SHARED: "; two connections share these addresses",
    Doubt.MISSING: ", unless packets are missing",
}


def _doubted(doubt: int) -> str:
    return next((text for one, text in DOUBTS.items() if doubt & one), "")
