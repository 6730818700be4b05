"""-z apps: who speaks what, by which evidence.

A row is a listener, a protocol and what speaks for it.  What a connection speaks is known
to the dialogues; connections without data speak nothing and are counted below.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from vsockdump.address import Endpoint
from vsockdump.apps.dialogues import EVIDENCE, Dialogues
from vsockdump.apps.nature import NATURES
from vsockdump.apps.registry import RAW, name_of
from vsockdump.output.statistics import OfStore, Selection, ends, shown, socket_type
from vsockdump.output.tables import ColumnSpec, Table, counted, json_line, render
from vsockdump.track.tracker import Tracker

_COLUMNS: Final = (
    ColumnSpec("listener", False),
    ColumnSpec("type", False),
    ColumnSpec("protocol", False),
    ColumnSpec("evidence", False),
    ColumnSpec("connections"),
    ColumnSpec("messages"),
    ColumnSpec("bytes of them"),
    ColumnSpec("notes"),
)


class _Key(NamedTuple):
    listener: Endpoint
    type: str
    protocol: str
    evidence: str
    software: str
    nature: str  # of raw bytes


class Apps(OfStore):
    """Of a filter those of the connections that have a packet it chose."""

    name = "apps"

    def __init__(self, tracker: Tracker, selection: Selection | None, dialogues: Dialogues) -> None:
        super().__init__(tracker, selection)
        self._dialogues = dialogues

    def _rows(self) -> tuple[list[tuple[_Key, list[int]]], int]:
        """Counts by key, most connections first, and how many connections carried no data."""
        counts: dict[_Key, list[int]] = {}
        silent = 0
        for connection, forth, back in self._connections():
            if not (forth.bytes or back.bytes):
                silent += 1
                continue
            row = self._dialogues.of(connection.number)
            settled = bool(row["since"])
            key = _Key(
                ends(connection)[1],
                socket_type(connection),
                name_of(int(row["code"])) if settled else RAW,
                EVIDENCE[int(row["evidence"])],
                self._dialogues.software.get(connection.number, ""),
                NATURES[int(row["nature"])],
            )
            numbers = counts.setdefault(key, [0, 0, 0, 0])
            for index, more in enumerate((1, row["messages"], row["bytes"], row["notes"])):
                numbers[index] += int(more)
        return sorted(counts.items(), key=lambda item: (-item[1][0], item[0])), silent

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """A table."""
        counts, silent = self._rows()
        rows = [
            (
                shown(key.listener, numeric),
                key.type,
                f"{key.protocol}, {key.nature}" if key.nature else key.protocol,
                _evidence(key),
                *map(str, numbers),
            )
            for key, numbers in counts
        ]
        notes = [f"{counted(silent, 'connection')} carried no data."] if silent else []
        title = counted(len({key.protocol for key, _numbers in counts} - {RAW}), "protocol")
        notes += [*self._left_out(), *self._notes()]
        yield from render(Table(title, _COLUMNS, rows, notes), colour)

    def _left_out(self) -> list[str]:
        found, left_out = [], self._dialogues.left_out
        if left_out:
            found.append(
                f"{counted(left_out, 'connection')} were not parsed to their end: too many at once."
            )
        if self._dialogues.passed_over:
            found.append(self._dialogues.remark().capitalize())
        return found

    def json_lines(self) -> Iterator[str]:
        """One object a row."""
        for key, numbers in self._rows()[0]:
            values: dict[str, Any] = {
                "listener": key.listener._asdict(),
                "type": key.type,
                "protocol": None if key.protocol == RAW else key.protocol,
                "evidence": key.evidence or None,
                "software": key.software or None,
                "nature": key.nature or None,
            }
            names = ("connections", "messages", "bytes", "notes")
            yield json_line(self.name, values | dict(zip(names, numbers, strict=True)))


def _evidence(key: _Key) -> str:
    """What speaks for the protocol, and whose port it is."""
    if not key.software:
        return key.evidence or "-"
    return f"{key.evidence}, the port of {key.software}"
