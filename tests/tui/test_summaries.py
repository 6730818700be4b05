"""The pane of findings and the pane of statistics, and what they draw from."""

import json
from typing import Any

import numpy as np
import pytest
from looking import CAPTURES, opened, until
from running import lines as run_lines
from test_panes import drawn, drive

from vsockdump.capture.reader import FileReader
from vsockdump.findings.rule import explanation
from vsockdump.output.findings import ends_of
from vsockdump.track.tracker import Tracker
from vsockdump.tui.app import VsockApp
from vsockdump.tui.findings import FindingsPane
from vsockdump.tui.model.findings import MOST_CASES, finding_lines, first_packet
from vsockdump.tui.model.rates import FIRST_NS, SLOTS, Rates, amount, bars, columns
from vsockdump.tui.panes import PANES
from vsockdump.tui.statistics import StatisticsPane


def key_of(name: str) -> str:
    """The number key of a pane."""
    return str(list(PANES).index(name) + 1)


def test_findings_are_those_of_the_command_line() -> None:
    """The same rules in the same order, the same cases with the same words."""
    name = "k612_fakeguest.pcap"
    found = [
        json.loads(line) for line in run_lines("-r", CAPTURES / name, "-z", "findings", "--json")
    ]
    with opened(CAPTURES / name) as capture:
        groups = capture.findings()
        ends = ends_of(capture.picture(), (case for group in groups for case in group.cases))
        closed = finding_lines(groups, ends, ())
        assert list(dict.fromkeys(one["finding"] for one in found)) == [
            line.rule.name for line in closed
        ]
        opened_lines = finding_lines(groups, ends, {int(group.rule.kind) for group in groups})
        cases = [line for line in opened_lines if line.is_case]
        assert [(one["message"], one["packet"], one["conn"]) for one in found] == [
            (line.text, line.packet or None, line.conn or None) for line in cases
        ]
        assert found[0]["packet"] == first_packet(groups, closed[0].rule)
        many = groups[0]._replace(cases=groups[0].cases[:1] * (MOST_CASES + 2))
        last = finding_lines([many], ends, {int(many.rule.kind)})[-1]
        assert ("and in 2 more connections", True, 0) == (last.text, last.is_case, last.packet)


@pytest.mark.parametrize("size", [(80, 24), (160, 40)])
def test_the_pane_of_findings(size: tuple[int, int]) -> None:
    """Counted, the worst first, explained, opened, and gone to."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press(key_of("findings"))
        pane = app.main.query_one(FindingsPane)
        await until(pilot, lambda: pane.table.rows)
        rules = [row.data.rule for row in pane.table.rows]
        assert sorted(rules, key=lambda rule: -rule.severity) == rules
        await until(pilot, lambda: explanation(rules[0])[0][1][:30] in drawn(app))
        assert pane.has_class("-wide") == (size[0] > 100)
        await pilot.press("j", "space")
        assert len(pane.table.rows) == len(rules) + 4
        await pilot.press("j", "j")
        row = pane.table.chosen
        assert row is not None
        await pilot.press("enter")
        await until(pilot, lambda: app.session.current == row.data.packet)
        await pilot.press(key_of("findings"), "c")
        await until(pilot, lambda: str(app.session.filter) == f"conn {row.data.conn}")
        assert app.main.pane.id == "packets"

    drive("k612_fakeguest.pcap", test, size=size)


def test_nothing_is_found() -> None:
    """It is said."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press(key_of("findings"))
        await until(pilot, lambda: "Nothing was found." in drawn(app))
        await pilot.press("enter", "space", "c", "j", "G")

    drive("prog_http.pcapng", test)


def test_a_picture_is_not_changed_by_what_follows() -> None:
    """And gives statistics what the tracker had."""
    with opened(CAPTURES / "k612_many.pcap") as capture:
        picture = capture.picture()
        before = [row for row, _, _ in picture.store.rows()]
        capture.tracker.store.connections["number"] = 0
        assert before == [row for row, _, _ in picture.store.rows()]
        assert 200 == len(before) == picture.connections


def rates_of(name: str) -> Rates:
    """The rates of a capture of ours."""
    reader, tracker, rates = FileReader(str(CAPTURES / name)), Tracker(), Rates()
    for batch in reader.batches():
        rates.add(tracker.track(batch))
    reader.close()
    return rates


@pytest.mark.parametrize("name", ["k612_many.pcap", "k612_bulk_stall.pcap", "k612_seqpacket.pcap"])
def test_rates_count_what_z_io_counts(name: str) -> None:
    """However often slots were merged; none is longer than need be."""
    (all_in_one,) = run_lines("-r", CAPTURES / name, "-z", "io,0", "--json")
    expected = json.loads(all_in_one)
    rates = rates_of(name)
    graph = rates.graph()
    assert [expected[key] for key in ("packets", "frame_bytes", "data_bytes")] == [
        *graph.counts.sum(axis=1)
    ]
    assert graph.length_ns >= expected["to_ns"] > graph.length_ns - graph.slot_ns
    assert graph.slot_ns == FIRST_NS or graph.counts.shape[1] > SLOTS // 2
    assert not rates.outside


def test_columns_keep_the_sum() -> None:
    """At every width, also one that slots do not fit into."""
    counts = np.array([3, 0, 5, 100])
    for width in (1, 3, 4, 7, 100):
        rates = columns(counts, 500_000_000, width)
        assert width == len(rates)
        assert pytest.approx(108) == rates.sum() * 2 / width
    assert not len(columns(np.zeros(0, np.int64), FIRST_NS, 80))


def test_bars() -> None:
    """What is not nothing can be seen; the highest is full."""
    assert ["   █", "▁ ▄█"] == bars([0.01, 0, 4, 16], 2)
    assert ["", ""] == bars([0, 0], 2) == bars([], 2)
    assert ["0", "12.3", "1.5k", "23M", "1G"] == [
        amount(rate) for rate in (0, 12.34, 1500, 23e6, 1e9)
    ]


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (200, 60)])
def test_the_pane_of_statistics(size: tuple[int, int]) -> None:
    """The graph, and both tables with their rows, in every size."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press(key_of("statistics"))
        pane = app.main.query_one(StatisticsPane)
        await until(pilot, lambda: pane.tables["endpoints"].rows)
        await until(pilot, lambda: "2 endpoints" in drawn(app))
        assert "packets/s, at most 5k" in drawn(app)
        assert "█" in drawn(app)
        assert {size[0]} == {len(line) for line in drawn(app).splitlines()}
        await pilot.press("space")
        await until(pilot, lambda: "4 calls of 4 methods" in drawn(app))
        assert "GET /" in drawn(app)
        await pilot.press("j", "space", "l", "G")
        await until(pilot, lambda: "2 endpoints" in drawn(app))

    drive("prog_http.pcapng", test, size=size)
