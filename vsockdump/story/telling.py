"""From facts to a story: sentences, what is suspicious, the chart, and remarks on all of it."""

from collections.abc import Iterator

from vsockdump.amounts import counted
from vsockdump.findings.rule import Severity
from vsockdump.story import chart
from vsockdump.story.model import Facts, Found, Story
from vsockdump.story.sentences import sentences, summary
from vsockdump.track.kinds import Doubt


def tell(facts: Facts, values: dict[str, object]) -> Story:
    """The story of the facts; `values` are what JSON has of them besides."""
    return Story(
        facts,
        summary(facts),
        sentences(facts),
        sorted(facts.found, key=_worst_first),
        chart.rows(facts),
        list(_notes(facts)),
        values,
    )


def _worst_first(found: Found) -> tuple[bool, int, int]:
    return not found.conn, -found.severity, found.packet


def _notes(facts: Facts) -> Iterator[str]:
    row, record = facts.connection, facts.record
    if record.joined:
        yield (
            f"Its first {counted(record.joined, 'packet')} were not kept: the chart begins behind"
            f" them. --explain {row.number} tells it from its first packet on."
        )
    if row.doubt & Doubt.MISSING:
        yield "Packets of it may be missing in the capture: what is told of credit may not be so."
    if row.doubt & Doubt.ORDER:
        yield "Its packets are not in the order of time: what is told of order may not be so."
    if row.doubt & Doubt.SHARED:
        yield "Two connections share its addresses: what is told of one may be the other's."
    if not row.side_known:
        yield "Which end asked for the connection is not known; the one seen first is on the left."
    if facts.first_ns is None:
        yield "The packets have no times: nothing is said of how long anything took."
    if not facts.protocol.decoded:
        yield "Application protocols were not looked for (--decode none)."
    suspects = [one for one in facts.found if one.severity > Severity.CHAT]
    if suspects:
        yield "vsockdump -z findings,explain NAME says more of a finding."
