"""All rules, and what others ask of them: words, severities, names for filters.

Rules for editors: rules stand in the module of their theme; here is only what follows from
them.  The marks that are no findings, because every healthy connection has them, have
their words here, so that whatever a mark is called is said in this package.  What was found
in a connection is a set of kinds, as an int: bit n is kind n.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from vsockdump.errors import UsageError
from vsockdump.findings import capture, connection, credit, frame, message
from vsockdump.findings.rule import Rule, Severity, explanation
from vsockdump.track.kinds import HANGS
from vsockdump.track.marks import KIND_OF, MARK_OF, Mark

RULES: Final = (
    *capture.RULES,
    *frame.RULES,
    *message.RULES,
    *connection.RULES,
    *credit.RULES,
)
_PREFIX: Final = "vsock."
BY_NAME: Final = {rule.name: rule for rule in RULES}
BY_KIND: Final = {int(rule.kind): rule for rule in RULES}
_BY_MARK: Final = {int(mark): BY_KIND[kind] for mark, kind in KIND_OF.items()}

# Words of the marks that are remarks in the packet line and nothing to report.
_REMARKS: Final = {
    Mark.NO_SOCKET: "no socket",
    Mark.LATER_RST: "after the end",
    Mark.ZERO_CREDIT: "credit used up",
    Mark.OPEN_BEFORE: "addresses in use",
}
WORDS: Final = {
    int(mark): _REMARKS.get(mark) or _BY_MARK[int(mark)].word for mark in Mark if mark != Mark.MORE
}


def kinds_of_severity(*severities: Severity) -> int:
    """The set of the kinds of all rules of these severities."""
    return sum(1 << rule.kind for rule in RULES if rule.severity in severities)


def marks_of_severity(*severities: Severity) -> int:
    """The marks of all rules of these severities that have one."""
    return sum(mark for mark, rule in _BY_MARK.items() if rule.severity in severities)


WRONG: Final = kinds_of_severity(Severity.WARN, Severity.ERROR)
WRONG_MARKS: Final = marks_of_severity(Severity.WARN, Severity.ERROR)


def words(marks: int) -> list[str]:
    """The words of the marks that are set, in bit order."""
    return [word for mark, word in WORDS.items() if marks & mark]


def rules_of_marks(marks: int) -> list[Rule]:
    """The rules of the marks that are set, in bit order."""
    return [rule for mark, rule in _BY_MARK.items() if marks & mark]


def found_in(connection: Any) -> int:
    """The set of kinds of a row of the store."""
    return int(connection.found_low) | int(connection.found_high) << 64


def rules_of(kinds: int) -> list[Rule]:
    """The rules of a set of kinds, worst first."""
    found = [rule for kind, rule in BY_KIND.items() if kinds >> kind & 1]
    return sorted(found, key=lambda rule: -rule.severity)


def worst(kinds: int, doubt: int = 0) -> Severity | None:
    """The severity of the worst of a set of kinds in a connection with that doubt."""
    return max((rule.severity_with(doubt) for rule in rules_of(kinds)), default=None)


def worst_of_marks(marks: int) -> Severity | None:
    """The severity of the worst mark that is set."""
    return max((rule.severity for rule in rules_of_marks(marks)), default=None)


class Names(NamedTuple):
    """What a name in a filter stands for: bits of the marks column, kinds without a bit."""

    marks: int
    kinds: frozenset[int]


def names() -> dict[str, Names]:
    """For filters: what each name stands for, and each severity.

    A rule is known by its name, with or without `vsock.`, and by its word; remarks by their
    words; `wrong` is warn and error together.  All with hyphens, for spaces and underscores.
    """
    found: dict[str, Names] = {}
    for rule in RULES:
        for name in (rule.name, _short(rule), rule.word):
            found[_hyphens(name)] = _named([rule])
    for mark, word in _REMARKS.items():
        found[_hyphens(word)] = Names(int(mark), frozenset())
    for severity in Severity:
        found[severity.word] = _named(rule for rule in RULES if rule.severity == severity)
    warn = found[Severity.WARN.word]
    found[Severity.WARN.word] = warn._replace(kinds=warn.kinds | {HANGS})
    found["wrong"] = _named(rule for rule in RULES if rule.severity >= Severity.WARN)
    found["wrong"] = found["wrong"]._replace(kinds=found["wrong"].kinds | {HANGS})
    return found


def _named(rules: Iterable[Rule]) -> Names:
    marks, kinds = 0, set()
    for rule in rules:
        mark = MARK_OF[rule.kind]
        if mark == Mark.MORE:
            kinds.add(int(rule.kind))
        else:
            marks |= int(mark)
    return Names(marks, frozenset(kinds))


def _short(rule: Rule) -> str:
    return rule.name.removeprefix(_PREFIX)


def _hyphens(name: str) -> str:
    return name.replace(" ", "-").replace("_", "-")


def names_to_type() -> list[str]:
    """One name of each rule and remark, and the severities: what a help shows of `names`."""
    remarks = map(_hyphens, _REMARKS.values())
    return [*map(_short, RULES), *remarks, *(severity.word for severity in Severity), "wrong"]


class FindingError(UsageError):
    """A finding that does not exist; one sentence."""


def lookup(name: str) -> Rule:
    """The rule of that name, which may lack `vsock.`; FindingError where there is none."""
    name = name.replace("-", "_")
    full = name if name.startswith(_PREFIX) else _PREFIX + name
    if full in BY_NAME:
        return BY_NAME[full]
    near = get_close_matches(full, BY_NAME, 1)
    hint = f" Did you mean {near[0]}?" if near else " vsockdump -z findings,explain lists them."
    raise FindingError(f"There is no finding {name}.{hint}")


def explain(name: str) -> Iterable[str]:
    """What there is to know about a rule; without a name, all rules on a line each."""
    if not name:
        width = max(len(rule.name) for rule in RULES)
        for rule in RULES:
            yield f"{rule.severity.word:5}  {rule.name:{width}}  {rule.what}"
        return
    rule = lookup(name)
    yield f"{rule.name} ({rule.severity.word})"
    for label, said in explanation(rule):
        yield f"  {label.lower()}: {said}"
