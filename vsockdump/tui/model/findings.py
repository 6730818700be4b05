"""The findings as lines: rules, the worst first, and under those that are open their cases.

The words are those of the findings, and of -z findings.
"""

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from vsockdump.findings.collector import Group
from vsockdump.findings.rule import Rule
from vsockdump.output.findings import Ends, how_often, said
from vsockdump.output.tables import counted

MOST_CASES: Final = 1000  # of a rule; the rest is counted


class FindingLine(NamedTuple):
    """A rule, or a case of it with its connection and packet (0: of none)."""

    rule: Rule
    text: str
    times: int
    is_case: bool = False
    conn: int = 0
    packet: int = 0


def finding_lines(groups: list[Group], ends: Ends, opened: Collection[int]) -> list[FindingLine]:
    """The lines of all rules; `opened` are the kinds of those whose cases are listed."""
    lines = []
    for group in groups:
        lines.append(
            FindingLine(group.rule, f"{group.rule.what} ({how_often(group)})", group.times)
        )
        if int(group.rule.kind) in opened:
            lines += _cases(group, ends)
    return lines


def _cases(group: Group, ends: Ends) -> Iterator[FindingLine]:
    for case in group.cases[:MOST_CASES]:
        event, text = case.event, said(case, ends, numeric=False)
        yield FindingLine(group.rule, text, case.times, True, event.conn, event.packet)
    if rest := group.cases[MOST_CASES:]:
        text = f"and in {counted(len(rest), 'more connection')}"
        yield FindingLine(group.rule, text, sum(case.times for case in rest), True)


def first_packet(groups: list[Group], rule: Rule) -> int:
    """The packet of the first case of a rule, 0 where it has none."""
    cases = next((group.cases for group in groups if group.rule is rule), [])
    return next((case.event.packet for case in cases if case.event.packet), 0)


def filter_of(line: FindingLine) -> str:
    """The filter for the packets with a finding, or of the connection of a case."""
    return f"conn {line.conn}" if line.conn else f"finding {line.rule.name}"
