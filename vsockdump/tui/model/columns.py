"""The columns of the packet list: the cells of the packet line, each in a place of its own.

What a cell says is said in output/text.py; only the rows that are on the screen get here.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from vsockdump.batch import NO_TIME, Batch, Malformed
from vsockdump.columns import packet_column, tracked
from vsockdump.findings.registry import worst_of_marks
from vsockdump.findings.rule import Severity
from vsockdump.output.lines import LineColumn, Lines
from vsockdump.output.rows import Cell, Kind
from vsockdump.output.said import has_said, line_texts
from vsockdump.output.text import (
    Times,
    connection_column,
    credit_columns,
    endpoint_columns,
    flags_column,
    length_column,
    mark_columns,
    operation_columns,
)
from vsockdump.tui.model.again import Again
from vsockdump.wire import Op

# The number of t's of each format, as -t takes them, and what it shows.
TIME_FORMATS: Final = {
    5: "since the first packet",
    0: "time of day",
    4: "date and time",
    2: "seconds since 1970",
    3: "since the packet above",
}
_SINCE_ABOVE: Final = 3
_SPANS: Final = (3, 5)
_LEADING: Final = re.compile(r"^([+-]?)(?:00:){0,2}0?(?=\d)")  # zeros that only take room


_MESSAGES: Final = LineColumn(Cell(Kind.TEXT, "  "), line_texts(False), has_said)


class ColumnDef(NamedTuple):
    """A column: its name, its head, its least width, whether it is flush right, its cells.

    `most` is its greatest width, where it is not the last.  `cells` takes whether addresses are
    numeric; the column of times is made elsewhere.
    """

    name: str
    title: str
    width: int
    right: bool
    cells: Callable[[bool], list[LineColumn]]
    most: int = 28


COLUMNS: Final = {
    column.name: column
    for column in (
        ColumnDef(
            "number",
            "No.",
            4,
            True,
            lambda _: [LineColumn(Cell(Kind.DEC), packet_column("number"))],
        ),
        ColumnDef("time", "Time", 8, True, lambda _: []),
        ColumnDef("conn", "Conn", 4, True, lambda _: [connection_column("#")]),
        ColumnDef("src", "Source", 6, False, lambda numeric: endpoint_columns("src", "", numeric)),
        ColumnDef(
            "dst", "Destination", 6, False, lambda numeric: endpoint_columns("dst", "", numeric)
        ),
        ColumnDef(
            "op",
            "Op",
            8,
            False,
            lambda _: operation_columns(False),
        ),
        ColumnDef("length", "Bytes", 5, True, lambda _: [length_column("")]),
        ColumnDef(
            "info",
            "Info",
            7,
            False,
            lambda _: [flags_column(""), *mark_columns(False), _MESSAGES],
            60,
        ),
        ColumnDef("credit", "Credit", 6, False, lambda _: credit_columns()),
    )
}
DEFAULT_COLUMNS: Final = tuple(COLUMNS)


class Line(NamedTuple):
    """A packet as the list shows it: the texts of its columns, and what its colour depends on.

    `op` is 0 where there is no virtio header; `foreign`: it is no vsock packet.
    """

    number: int
    cells: tuple[str, ...]
    conn: int
    op: int
    severity: Severity | None
    foreign: bool


class Formatter:
    """Makes the lines of packets; `columns` are names of COLUMNS.

    For one thread, as the reader that it uses.
    """

    def __init__(
        self,
        again: Again,
        columns: tuple[str, ...] = DEFAULT_COLUMNS,
        times: int = 5,
        numeric: bool = False,
    ) -> None:
        self._again = again
        self._times = Times(times, False)
        self._since_above = times == _SINCE_ABOVE
        self._first = NO_TIME
        self._spans = columns.index("time") if times in _SPANS and "time" in columns else None
        self._columns = [
            Lines(self._times.columns("") if name == "time" else COLUMNS[name].cells(numeric))
            for name in columns
        ]

    def lines(self, numbers: NDArray[Any], above: int | None = None) -> list[Line]:
        """The lines of these packets, which ascend; `above` is the packet listed before them."""
        if not len(numbers):
            return []
        self._times.first = self._first_time()
        self._times.previous = NO_TIME
        if self._since_above and above is not None:
            self._times.previous = self._time_of(above)
        return [line for batch in self._again.batches(numbers) for line in self._lines(batch)]

    def _lines(self, batch: Batch) -> Iterator[Line]:
        texts = [_split(lines.write(batch)) for lines in self._columns]
        if self._spans is not None:
            texts[self._spans] = [_LEADING.sub(r"\1", text) for text in texts[self._spans]]
        marks = tracked(batch)["marks"].tolist()
        rows = zip(
            batch.rows["number"].tolist(),
            zip(*texts, strict=True),
            tracked(batch)["conn"].tolist(),
            batch.rows["virtio"]["op"].tolist(),
            map(worst_of_marks, marks),
            (batch.rows["malformed"] == int(Malformed.FOREIGN)).tolist(),
            strict=True,
        )
        for row in rows:
            yield Line(*row)

    def _first_time(self) -> int:
        """The time of the first packet of all, from which the capture counts."""
        if self._first == NO_TIME:
            self._first = self._time_of(1)
        return self._first

    def _time_of(self, number: int) -> int:
        time = self._again.time_of(number)
        return time if time == NO_TIME else time // 1000 * 1000


def _split(pieces: Iterator[memoryview]) -> list[str]:
    """The lines that a view wrote, one a row: nothing in a cell breaks them."""
    text = b"".join(map(bytes, pieces)).decode()
    return [line.strip() for line in text.split("\n")[:-1]]


_OPS: Final = {
    int(Op.REQUEST): "opening",
    int(Op.RESPONSE): "opening",
    int(Op.RST): "rst",
    int(Op.SHUTDOWN): "closing",
    int(Op.CREDIT_UPDATE): "credit",
    int(Op.CREDIT_REQUEST): "credit",
}


def colour_rule(line: Line) -> str:
    """The name of the colour rule that the line falls under; "" for plain data."""
    if line.foreign:
        return "foreign"
    if line.severity is not None and line.severity >= Severity.WARN:
        return line.severity.word
    return _OPS.get(line.op, "")


COLOUR_RULES: Final = (
    Severity.ERROR.word,
    Severity.WARN.word,
    *dict.fromkeys(_OPS.values()),
    "foreign",
)
