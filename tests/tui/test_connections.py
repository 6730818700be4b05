"""The table of connections: its picture and its pane."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from driving import drawn, drive
from looking import CAPTURES, opened, until
from running import lines as run_lines

from vsockdump.findings.rule import Severity
from vsockdump.tui.app import VsockApp
from vsockdump.tui.connections import ConnectionList
from vsockdump.tui.model.connections import (
    CONNECTION_COLUMNS,
    Overview,
    Row,
    amount,
    ordered,
    overview,
    severity_of,
    sparkline,
)

ALL = sorted(path.name for path in CAPTURES.glob("*.pcap*"))


def picture(name: str) -> Overview:
    """The connections of a capture that has been read."""
    with opened(CAPTURES / name) as capture:
        return overview(capture)


def rows(shown: Overview, order: Any = None) -> list[Any]:
    """All of them, in order."""
    chosen = shown.rows if order is None else shown.rows[order]
    return [Row(*row) for row in chosen.tolist()]


@pytest.mark.parametrize("name", ALL)
def test_the_picture_says_what_conv_says(name: str) -> None:
    """Number, bytes, packets, credit, stalled time and the worst finding."""
    printed = [
        json.loads(line) for line in run_lines("-r", CAPTURES / name, "-z", "conv", "--json")
    ]
    conv = [line for line in printed if line.get("z") == "conv"]
    shown = rows(picture(name))
    assert [line["conn"] for line in conv] == [row.number for row in shown]
    for line, row in zip(conv, shown, strict=True):
        assert line["bytes"] == [row.forth, row.back]
        assert sum(line["packets"]) == row.packets
        assert min((free for free in line["min_free"] if free is not None), default=-1) == row.free
        assert sum(line["stalled_ns"]) == row.stalled
        severity = severity_of(row)
        assert line["worst"] == (severity.word if severity else None)


@pytest.mark.parametrize("column", CONNECTION_COLUMNS)
@pytest.mark.parametrize("reverse", [False, True])
def test_every_order_has_every_connection(column: str, reverse: bool) -> None:
    """Once each, and those that are alike by their numbers."""
    shown = picture("k612_many.pcap")
    order = ordered(shown.rows, column, reverse)
    assert sorted(order.tolist()) == list(range(len(shown.rows)))
    keys = CONNECTION_COLUMNS[column].keys(shown.rows)
    tuples = [tuple(key[place] for key in keys) for place in order.tolist()]
    falling = CONNECTION_COLUMNS[column].falling != reverse
    assert tuples == sorted(tuples, reverse=falling)
    same = [a == b for a, b in pairwise(tuples)]
    steps = np.diff(shown.rows["number"][order].astype(int))
    assert all(step > 0 for step, alike in zip(steps, same, strict=True) if alike)


def test_a_connection_without_credit_is_a_line_at_the_bottom() -> None:
    """The one that stalled used its credit up, and another never did."""
    stalled, free = picture("k612_bulk_stall.pcap"), picture("k612_many.pcap")
    assert "▁▁▁▁▁▁" in sparkline(stalled.windows, rows(stalled)[0])
    assert set("█") == set(sparkline(free.windows, rows(free)[0]))
    beyond = rows(free)[0]._replace(number=10**6)
    assert "" == sparkline(free.windows, beyond)


def test_the_worst_finding_is_named() -> None:
    """The first of the worst, and how many there are beside it."""
    row = rows(picture("k612_bulk_stall.pcap"))[0]
    assert Severity.NOTE <= (severity_of(row) or 0)
    assert CONNECTION_COLUMNS["finding"].cell(row, False).startswith("stall")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (99_999, "99999"),
        (123_456, "123k"),
        (999_600, "1M"),
        (1.5e9, "1.5G"),
        (2e15, "2000T"),
    ],
)
def test_amounts(number: float, text: str) -> None:
    """Six characters are enough."""
    assert text == amount(number)


def test_sorting_choosing_and_opening() -> None:
    """By keys and by the mouse; enter lists the packets of the connection."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("2")
        table = app.main.query_one(ConnectionList)
        await until(pilot, lambda: table.count == 200)
        assert "200 connections; by #" in drawn(app)
        await pilot.press("r")
        await until(pilot, lambda: table.conn == 1 and table.cursor == 199)
        await pilot.press("g")
        assert 200 == table.conn == app.session.conn
        await pilot.click(table, offset=(8, 0))
        await until(pilot, lambda: "by Initiator" in drawn(app))
        await pilot.press("less_than_sign", "j", "enter")
        await until(pilot, lambda: str(app.session.filter).startswith("conn "))
        await until(pilot, lambda: len(app.session.listing) == 17)
        assert "packets" == app.main.pane.id

    drive("k612_many.pcap", test, size=(120, 30))
