"""Tables: what every -z statistic prints, as text or as JSON lines.

A statistic gives titles, columns and rows of plain values; how they look is decided here.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from vsockdump.amounts import counted as counted
from vsockdump.amounts import span as span


class ColumnSpec(NamedTuple):
    """A column: its heading and whether numbers stand right-aligned under it."""

    heading: str
    right: bool = True


class Table(NamedTuple):
    """A table of strings: title, columns, rows, and lines of text below."""

    title: str
    columns: Sequence[ColumnSpec]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def render(table: Table, colour: bool = False) -> Iterator[str]:
    """The table as lines, its columns as wide as their contents."""
    if table.title:
        yield f"\033[1m{table.title}\033[0m" if colour else table.title
    if table.rows:
        yield from _body(table)
    yield from table.notes


def _body(table: Table) -> Iterator[str]:
    headings = [column.heading for column in table.columns]
    widths = [
        max(len(heading), *map(len, cells))
        for heading, cells in zip(headings, zip(*table.rows, strict=True), strict=True)
    ]
    form = "  ".join(
        f"{{:{'>' if column.right else '<'}{width}}}"
        for column, width in zip(table.columns, widths, strict=True)
    )
    yield form.format(*headings).rstrip()
    for row in table.rows:
        yield form.format(*row).rstrip()


def json_line(statistic: str, values: dict[str, Any]) -> str:
    """One row as a JSON object whose first key, `z`, names the statistic."""
    return json.dumps({"z": statistic, **values}, separators=(",", ":"), ensure_ascii=False)


def seconds(nanoseconds: int | None) -> str:
    """A time in seconds with six decimals; empty where it is unknown."""
    if nanoseconds is None:
        return ""
    whole, rest = divmod(abs(nanoseconds) // 1000, 10**6)
    return f"{'-' if nanoseconds < 0 else ''}{whole}.{rest:06}"
