"""Credit over time: samples, their levels, the plot, and the pane."""

from typing import Any

import numpy as np
import pytest
from driving import drawn, drive
from looking import CAPTURES, opened, until

from vsockdump.batch import Known
from vsockdump.columns import tracked
from vsockdump.track.store import STALL_DTYPE
from vsockdump.tui.app import VsockApp
from vsockdump.tui.credit import CreditPlot
from vsockdump.tui.model.credit import GROUP, SAMPLE_DTYPE, Series, Trace
from vsockdump.tui.model.passes import numbers_of
from vsockdump.tui.model.plot import ACROSS, Ink, curves, plot
from vsockdump.wire import Op

ALL = sorted(path.name for path in CAPTURES.glob("*.pcap*"))
NO_STALLS = np.zeros(0, STALL_DTYPE)


def traced(capture: Any, conn: int) -> Trace:
    """The trace of a connection of a capture that has been read."""
    trace = Trace(capture, conn)
    trace._pass.join()
    assert not trace.trouble
    return trace


def samples_of(series: Series) -> Any:
    """All samples of the finest level."""
    return series._levels[0].read(0, len(series))


@pytest.mark.parametrize("name", ALL)
def test_samples_are_what_the_tracker_says(name: str) -> None:
    """Free credit and bytes in flight, after each packet of either side; window is their sum."""
    with opened(CAPTURES / name) as capture:
        conns = capture.tables().connections["number"].tolist()[:3]
        for conn in conns:
            trace = traced(capture, conn)
            for side in (0, 1):
                found = samples_of(trace.series[side])
                packets = found["packet"].tolist()
                assert expected_of(capture, conn, side) == list(
                    zip(packets, found["free"].tolist(), strict=True)
                )
                window, flight = found["window"].astype(int), found["flight"].astype(int)
                assert np.maximum(window - flight, 0).tolist() == found["free"].tolist()


def expected_of(capture: Any, conn: int, side: int) -> list[tuple[int, int]]:
    """Packet and free credit, wherever the tracker knows it."""
    found = []
    for batch in capture.again().batches(numbers_of(1, len(capture.index))):
        for packet, row in zip(batch.rows, tracked(batch), strict=True):
            own, number = row["side"] == side, int(packet["number"])
            counts = row["conn"] == conn and packet["virtio"]["op"] != Op.RST
            if counts and row["known"] & (Known.FREE if own else Known.GRANTED):
                found.append((number, int(row["free" if own else "granted"])))
    return found


def test_stalls_are_those_of_the_direction() -> None:
    """And a time finds those that reach into it."""
    with opened(CAPTURES / "k612_small_buf.pcap") as capture:
        trace = traced(capture, 1)
        assert [5, 0] == [spool.count for spool in trace.stalls]
        third = trace.stalls[0].read(2, 1)[0]
        middle = (int(third["start_ns"]) + int(third["end_ns"])) // 2
        assert [third] == list(trace.stalls_between(0, middle, middle + 1))


def many(count: int) -> Any:
    """Samples a microsecond apart, with a peak here and there."""
    samples = np.zeros(count, SAMPLE_DTYPE)
    samples["time_ns"] = np.arange(count) * 1000
    samples["packet"] = np.arange(count) + 1
    random = np.random.default_rng(7)
    for name in ("flight", "window", "free"):
        samples[name] = random.integers(0, 2**32, count)
    samples["last_flight"], samples["last_window"] = samples["flight"], samples["window"]
    samples["updates"] = random.integers(0, 2, count)
    return samples


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_coarse_samples_keep_peaks_ends_and_counts(pieces: int) -> None:
    """However many are asked for, in whatever pieces they came."""
    samples, series = many(20_000), Series()
    for part in np.array_split(samples, pieces):
        series.add(part)
    for first, last in ((0, 20_000_000), (3_000_000, 17_000_500), (19_999_000, 30_000_000)):
        inside = samples[(samples["time_ns"] >= first) & (samples["time_ns"] <= last)]
        for least in (1, 10, 100, 10_000):
            found = series.between(first, last, least)
            assert len(found) >= min(least, len(inside))
            assert len(found) <= max(least, 1) * GROUP + 2 * GROUP * 8
            assert inside["flight"].max() <= found["flight"].max()
            assert inside["free"].min() >= found["free"].min()
            assert inside["updates"].sum() <= found["updates"].sum()
            assert inside["last_window"][-1] == found["last_window"][-1] or last < 20_000_000
            assert (np.diff(found["time_ns"]) > 0).all()


def test_updates_are_found_both_ways() -> None:
    """Across the pieces that are read at a time."""
    samples, series = many(40_000), Series()
    samples["updates"] = 0
    samples["updates"][[5, 39_000]] = 1
    series.add(samples)
    assert 39_000 == series.next_update(5, forward=True)
    assert 5 == series.next_update(39_000, forward=False)
    assert series.next_update(39_000, forward=True) is None
    assert series.next_update(5, forward=False) is None


def some(*values: tuple[int, int, int]) -> Any:
    """Samples of (time, in flight, window)."""
    samples = np.zeros(len(values), SAMPLE_DTYPE)
    for row, (time, flight, window) in zip(samples, values, strict=True):
        row["time_ns"], row["flight"], row["window"] = time, flight, window
        row["last_flight"], row["last_window"] = flight, window
    return samples


def test_a_value_stays_until_the_next() -> None:
    """Unknown before the first; the greatest of a column counts."""
    shown = curves(some((2, 8, 100), (3, 1, 100), (6, 5, 50)), NO_STALLS, 0, 8, 4)
    assert [-1, -1, 8, 1, 1, 1, 5, 5] == shown.flight.tolist()
    assert [-1, -1, 100, 100, 100, 100, 50, 50] == shown.window.tolist()
    assert 100 == shown.top
    before = curves(some((-5, 7, 9)), NO_STALLS, 0, 8, 2)
    assert [7] * 4 == before.flight.tolist()
    assert [-1] * 4 == curves(some(), NO_STALLS, 0, 8, 2).flight.tolist()


def test_stalls_and_updates_have_their_columns() -> None:
    """A stall that began before what is in sight reaches into it."""
    samples = some((1, 0, 9), (7, 0, 9))
    samples["updates"] = [0, 2]
    stalls = np.zeros(2, STALL_DTYPE)
    stalls["start_ns"], stalls["end_ns"] = [-9, 5], [1, 5]
    shown = curves(samples, stalls, 0, 8, 4)
    assert [True, False, True, False] == shown.stalled.tolist()
    assert [0, 0, 0, 2] == shown.updates.tolist()


def test_the_plot_is_as_high_as_the_largest_value() -> None:
    """The area fills up from below, the line runs above it, and where they meet it says so."""
    shown = curves(some((0, 2, 8), (4, 8, 8)), NO_STALLS, 0, 8, 4)
    lines = plot(shown, 2)
    assert ["⠉⠉⣿⣿", "⣤⣤⣿⣿"] == ["".join(cell.character for cell in line) for line in lines]
    assert [Ink.WINDOW] * 2 + [Ink.BOTH] * 2 == [cell.ink for cell in lines[0]]
    assert [Ink.FLIGHT] * 4 == [cell.ink for cell in lines[1]]
    assert ACROSS * 4 == len(shown.flight)


def test_reading_zooming_and_going_to_a_packet() -> None:
    """From the table of connections to the stall and on to the packet that began it."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("2")
        await until(pilot, lambda: "1 connection" in drawn(app))
        await pilot.press("c")
        await until(pilot, lambda: "262144" in drawn(app))
        area = app.main.query_one(CreditPlot)
        await until(pilot, lambda: len(area.trace.series[0]) == 37)
        await pilot.press("n")
        assert "packet 34 at 0.021992 s: 262144 in flight of 262144, 0 free" in drawn(app)
        assert "⣿" in drawn(app)
        assert "▀▀▀▀" in drawn(app)
        await pilot.press("plus", "plus")
        view, whole = area.view, area.whole
        assert view is not None
        assert abs(view.span * 4 - whole.span) < 8
        assert view.first_ns <= area.sample["time_ns"] <= view.last_ns
        await pilot.press("L")
        assert area.view.first_ns > view.first_ns
        await pilot.press("0", "u")
        assert area.view is None
        assert "update" in drawn(app)
        await pilot.press("g", "l", "h", "full_stop", "comma", "d")
        await until(pilot, lambda: "what the acceptor sends" in drawn(app))
        await pilot.press("d", "G", "N", "enter")
        await until(pilot, lambda: app.session.current == 34)
        assert "packets" == app.main.pane.id

    drive("k612_bulk_stall.pcap", test)


def test_asking_for_a_connection() -> None:
    """One that there is not is said and changes nothing."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("3", "o", *"150", "enter")
        await until(pilot, lambda: "#150 " in drawn(app))
        await pilot.press("o", *"9999", "enter")
        await pilot.pause()
        assert ["There is no connection 9999."] == [note.message for note in app._notifications]
        assert 150 == app.session.conn

    drive("k612_many.pcap", test)


def test_the_mouse_moves_and_zooms() -> None:
    """A click sets the cursor; the wheel zooms."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("3")
        area = app.main.query_one(CreditPlot)
        await until(pilot, lambda: area.sample is not None)
        await pilot.click(area, offset=(40, 3))
        assert area.place > 0
        area.on_mouse_scroll_up()
        assert area.view is not None
        area.on_mouse_scroll_down()
        assert area.view is None

    drive("k612_bulk_stall.pcap", test, size=(120, 30))
