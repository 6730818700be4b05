"""A story as text of a given width, and as JSON values.

The chart has the initiator on the left and the acceptor on the right, time and packet number
before them and credit behind them.

Rules for editors: plain ASCII signs, so that it can be pasted anywhere.  Texts may hold wide
characters, which are measured as terminals draw them.
"""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any, Final, NamedTuple
from unicodedata import combining, east_asian_width

from vsockdump.amounts import counted
from vsockdump.findings.rule import Severity
from vsockdump.story.chart import fold_parts, folds
from vsockdump.story.model import SIDES, Arrow, Facts, Fold, Found, Packet, Pause, Row, Story
from vsockdump.track.states import state_word
from vsockdump.wire import Op, name_of

NARROWEST: Final = 60
WIDEST: Final = 200
_SUSPICIOUS: Final = "What is suspicious, what that usually means, what to look at"
_TIME: Final = 12  # characters of a time
_INNER: Final = 16  # between the life lines, at least
_COLOURS: Final = {
    "head": "\033[1m",
    "aside": "\033[2m",
    "initiator": "\033[36m",
    "acceptor": "\033[33m",
    "error": "\033[1;31m",
    "warn": "\033[33m",
    "note": "\033[36m",
    "chat": "\033[2m",
}
_PLAIN: Final = "\033[0m"


class Line(NamedTuple):
    """A line, how it looks (a key of _COLOURS, "": plainly), the packet it leads to (0: none)."""

    text: str
    look: str = ""
    packet: int = 0

    def coloured(self, colour: bool) -> str:
        """As a terminal is given it."""
        before = _COLOURS.get(self.look, "") if colour and self.text else ""
        return f"{before}{self.text}{_PLAIN}" if before else self.text


class Pen:
    """Writes lines of a width."""

    def __init__(self, width: int) -> None:
        self.width = max(min(width, WIDEST), NARROWEST)

    def lines(self, story: Story) -> Iterator[Line]:
        """The whole story."""
        facts = story.facts
        title = f"Connection {facts.connection.number}: {facts.names[0]} and {facts.names[1]},"
        yield from self.wrapped(f"{title} {facts.socket_type}", "head")
        yield from self.wrapped(story.summary)
        yield from self._section("What happened, in seconds since the first packet of the capture")
        for sentence in story.sentences:
            start = f"{since(facts, sentence.time_ns):>{_TIME}}  "
            yield from self.wrapped(sentence.text, sentence.severity, sentence.packet, start)
        if story.found:
            yield from self._section(_SUSPICIOUS if _any_worse(story.found) else "Also noticed")
            for found in story.found:
                yield from self._finding(found)
        yield from self._section(_heading(story))
        yield from self._chart(facts, story.rows)
        if story.notes:
            yield Line("")
        for note in story.notes:
            yield from self.wrapped(note)

    def _section(self, title: str) -> Iterator[Line]:
        yield Line("")
        yield from self.wrapped(title, "head")

    def _finding(self, found: Found) -> Iterator[Line]:
        rule, word, packet = found.rule, found.severity.word, found.packet
        of = "" if found.conn else ", of the whole capture"
        text = f"{word} {rule.name}{of}: {found.text}{found.where}."
        yield from self.wrapped(text, word, packet, "  ", 4)
        if found.severity > Severity.CHAT:
            yield from self.wrapped(f"usually: {rule.cause}", "", packet, "    ", 13)
            yield from self.wrapped(f"look at: {rule.look}", "", packet, "    ", 13)

    def wrapped(
        self, text: str, look: str = "", packet: int = 0, start: str = "", indent: int | None = None
    ) -> list[Line]:
        """Text in lines; those that follow are indented as far as `start` reaches."""
        rest = " " * (len(start) if indent is None else indent)
        lines = wrap(
            text,
            self.width,
            initial_indent=start,
            subsequent_indent=rest,
            break_on_hyphens=False,
        )
        return [Line(line, look, packet) for line in lines]

    def _chart(self, facts: Facts, rows: Sequence[Row]) -> Iterator[Line]:
        """The heads of the two columns, and the rows."""
        if rows:
            shape = _Shape(self.width, rows)
            yield from (Line(head, "head") for head in shape.heads(facts.names))
            for row in rows:
                look = SIDES[row.packet.side] if isinstance(row, Arrow) else "aside"
                packet = row.packet.number if isinstance(row, Arrow) else row.packet
                yield from (Line(line, look, packet) for line in shape.lines(facts, row))


def since(facts: Facts, time_ns: int | None) -> str:
    """Seconds since the capture's first packet; nothing where that is not known."""
    if time_ns is None or facts.first_ns is None:
        return ""
    sign, rest = (
        ("-", facts.first_ns - time_ns)
        if time_ns < facts.first_ns
        else (
            "",
            time_ns - facts.first_ns,
        )
    )
    return f"{sign}{rest // 10**9}.{rest // 1000 % 10**6:06}"


def _any_worse(found: Sequence[Found]) -> bool:
    return any(one.severity > Severity.CHAT for one in found)


def _heading(story: Story) -> str:
    left = folds(list(story.rows))
    shown = sum(1 for row in story.rows if isinstance(row, Arrow))
    if not left:
        return f"Its {counted(shown, 'packet')}"
    return f"The {counted(shown, 'packet')} that decide it, of {shown + left}"


class _Shape:
    """Where the columns of a chart stand."""

    def __init__(self, width: int, rows: Sequence[Row]) -> None:
        arrows = [row for row in rows if isinstance(row, Arrow)]
        self._digits = max((len(str(row.packet.number)) for row in arrows), default=1)
        credit = max((len(row.credit) for row in arrows), default=0)
        self._left = _TIME + 2 + self._digits + 2
        room = width - self._left - 2 - (credit + 2 if credit else 0)
        self._inner = max(room, _INNER)

    def heads(self, names: tuple[str, str]) -> Iterator[str]:
        """Who stands on which side."""
        start, width = " " * self._left, self._inner + 2
        if len(names[0]) + len(names[1]) + 2 <= width:
            yield f"{start}{names[0]}{names[1].rjust(width - len(names[0]))}"
            return
        yield f"{start}{names[0]}"
        yield f"{start}{names[1].rjust(width)}"

    def lines(self, facts: Facts, row: Row) -> Iterator[str]:
        """A row; a fold may need several lines."""
        if isinstance(row, Arrow):
            yield self._arrow(facts, row)
            return
        text = f"... {fold_text(row)} ..." if isinstance(row, Fold) else row.text
        for part in wrap(text, max(self._inner - 2, 10)):
            yield f"{' ' * self._left}:{_centred(part, self._inner)}:"

    def _arrow(self, facts: Facts, row: Arrow) -> str:
        packet = row.packet
        start = f"{since(facts, packet.time_ns):>{_TIME}}  {packet.number:>{self._digits}}  "
        label = f" {shortened(row.label, self._inner - 6)} "
        shaft = "-" * max(self._inner - 3 - cells(label), 1)
        body = f"--{label}{shaft}>" if packet.side == 0 else f"<{shaft}{label}--"
        return f"{start}|{body}|  {row.credit}".rstrip()


def _centred(text: str, width: int) -> str:
    room = max(width - cells(text), 0)
    return " " * (room // 2) + text + " " * (room - room // 2)


def fold_text(fold: Fold) -> str:
    """What is left out: `24 more RW > (98304 bytes) and 20 CREDIT_UPDATE <`."""
    parts: list[str] = []
    for side, name, count, size in fold_parts(fold):
        some = f" ({counted(size, 'byte')})" if size else ""
        parts.append(f"{count}{'' if parts else ' more'} {name} {'><'[side]}{some}")
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def cells(text: str) -> int:
    """The columns that a text takes on a terminal."""
    return sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def shortened(text: str, room: int) -> str:
    """The text, or its beginning with a mark where it is cut."""
    if cells(text) <= room:
        return text
    kept, left = [], room - 1
    for character in text:
        left -= _cells_of(character)
        if left < 0:
            break
        kept.append(character)
    return f"{''.join(kept)}…"


# --- for programs --------------------------------------------------------------------------------


def values(story: Story) -> dict[str, Any]:
    """The story as JSON has it; times in nanoseconds, null: unknown."""
    row = story.facts.connection
    return {
        "conn": row.number,
        **story.values,
        "state": state_word(row.state),
        "as_of_ns": story.facts.now_ns,
        "summary": story.summary,
        "sentences": [
            {
                "about": sentence.kind.value,
                "time_ns": sentence.time_ns,
                "packet": sentence.packet or None,
                "packets": list(sentence.packets),
                "severity": sentence.severity or None,
                "text": sentence.text,
            }
            for sentence in story.sentences
        ],
        "findings": [_found_values(found) for found in story.found],
        "chart": [_row_values(one) for one in story.rows],
        "notes": list(story.notes),
    }


def _found_values(found: Found) -> dict[str, Any]:
    return {
        "finding": found.rule.name,
        "severity": found.severity.word,
        "conn": found.conn or None,
        "packet": found.packet or None,
        "times": found.times,
        "goes_on": found.goes_on,
        "message": found.text,
        "cause": found.rule.cause,
        "look": found.rule.look,
    }


def _row_values(row: Row) -> dict[str, Any]:
    if isinstance(row, Arrow):
        return _packet_values(row.packet) | {"label": row.label}
    if isinstance(row, Pause):
        return {"pause_after": row.packet, "text": row.text}
    folded = [
        {"from": SIDES[side], "op": name, "packets": count, "bytes": size}
        for side, name, count, size in fold_parts(row)
    ]
    return {"folded_after": row.packet or None, "packets": row.packets, "folded": folded}


def _packet_values(packet: Packet) -> dict[str, Any]:
    return {
        "packet": packet.number,
        "time_ns": packet.time_ns,
        "from": SIDES[packet.side],
        "op": name_of(Op, packet.op),
        "bytes": packet.len,
        "free": packet.free,
        "granted": packet.granted,
    }
