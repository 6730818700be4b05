"""All rules, and what others ask of them: words, severities, names for filters.

Rules for editors: rules stand in the module of their theme; here is only what follows from
them.  The three marks that are no findings, because every healthy connection has them, have
their words here, so that whatever a mark is called is said in this package.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from vsockdump.errors import UsageError
from vsockdump.findings import capture, connection, credit, frame, message
from vsockdump.findings.rule import Rule, Severity, explanation
from vsockdump.track.marks import Mark

RULES: Final = (
    *capture.RULES,
    *frame.RULES,
    *message.RULES,
    *connection.RULES,
    *credit.RULES,
)
_PREFIX: Final = "vsock."
BY_NAME: Final = {rule.name: rule for rule in RULES}
BY_MARK: Final = {int(rule.mark): rule for rule in RULES}

# Words of the marks that are remarks in the packet line and nothing to report.
_REMARKS: Final = {
    Mark.NO_SOCKET: "no socket",
    Mark.LATER_RST: "after the end",
    Mark.ZERO_CREDIT: "credit used up",
}
WORDS: Final = {
    int(mark): _REMARKS.get(mark) or BY_MARK[int(mark)].word
    for mark in Mark
    if mark in _REMARKS or int(mark) in BY_MARK
}


def of_severity(*severities: Severity) -> int:
    """The marks of all rules of these severities."""
    return sum(int(rule.mark) for rule in RULES if rule.severity in severities)


WRONG: Final = of_severity(Severity.WARN, Severity.ERROR)


def words(marks: int) -> list[str]:
    """The words of the marks that are set, in bit order."""
    return [word for mark, word in WORDS.items() if marks & mark]


def rules_of(marks: int) -> list[Rule]:
    """The rules of the marks that are set, worst first."""
    found = [rule for mark, rule in BY_MARK.items() if marks & mark]
    return sorted(found, key=lambda rule: -rule.severity)


def worst(marks: int) -> Severity | None:
    """The severity of the worst mark that is set."""
    return max((rule.severity for rule in rules_of(marks)), default=None)


def masks() -> dict[str, int]:
    """For filters: the bits of the marks column for each name, and for each severity.

    A rule is known by its name, with or without `vsock.`, and by its word; remarks by their
    words; `wrong` is warn and error together.  All with hyphens, for spaces and underscores.
    """
    found: dict[str, int] = {}
    for rule in RULES:
        found[_hyphens(rule.name)] = found[_hyphens(_short(rule))] = int(rule.mark)
    for mark, word in WORDS.items():
        found[_hyphens(word)] = mark
    for severity in Severity:
        found[severity.word] = of_severity(severity)
    found["wrong"] = WRONG
    return found


def _short(rule: Rule) -> str:
    return rule.name.removeprefix(_PREFIX)


def _hyphens(name: str) -> str:
    return name.replace(" ", "-").replace("_", "-")


def names_to_type() -> list[str]:
    """One name of each rule and remark, and the severities: what a help shows of `masks`."""
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
