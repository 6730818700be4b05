"""Lists: what is drawn again when rows change, and when they only become more."""

import asyncio
from collections.abc import Callable
from typing import Any

from textual.app import App, ComposeResult
from textual.strip import Strip

from vsockdump.output.tables import ColumnSpec
from vsockdump.tui.rows import RowList
from vsockdump.tui.table import Row, TableView

SIZE = (40, 10)


class Counted(RowList):
    """Rows that say how often their text was changed; `drawn` counts those drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.version = self.drawn = 0

    def row(self, place: int) -> Strip:
        """Its place and the version."""
        self.drawn += 1
        return self.line(f"row {place} version {self.version}", self.rich_style)


class OneList(App[None]):
    """A program that is one list."""

    def __init__(self, shown: RowList) -> None:
        super().__init__()
        self.shown = shown

    def compose(self) -> ComposeResult:
        """The list."""
        yield self.shown


def screen(app: App[None]) -> str:
    """What is on the screen."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def drive(shown: RowList, test: Callable[[App[None], Any], Any]) -> None:
    """Run a test on a list."""

    async def run() -> None:
        app = OneList(shown)
        async with app.run_test(size=SIZE) as pilot:
            await pilot.pause()
            await test(app, pilot)

    asyncio.run(run())


def test_other_rows_are_drawn_however_many() -> None:
    """As many as before, more, and fewer; with and without a scrollbar."""
    shown = Counted()

    async def test(app: App[None], pilot: Any) -> None:
        for count in (3, 100, 100, 200, 50, 4):
            shown.version += 1
            shown.resize_to(count, 30)
            await pilot.pause()
            assert f"row 2 version {shown.version}" in screen(app)

    drive(shown, test)


def test_more_rows_out_of_sight_cost_nothing() -> None:
    """Those in sight stay what they are, and the scrollbar knows the new ones."""
    shown = Counted()

    async def test(app: App[None], pilot: Any) -> None:
        shown.grow_to(2, 30)
        await pilot.pause()
        assert "row 1 version 0" in screen(app)
        shown.grow_to(100, 30)
        await pilot.pause()
        assert "row 8 version 0" in screen(app)
        before = shown.drawn
        shown.grow_to(1000, 30)
        await pilot.pause()
        assert before == shown.drawn
        shown.show(999)
        await pilot.pause()
        assert "row 999" in screen(app)

    drive(shown, test)


def test_a_table_shows_what_it_is_filled_with() -> None:
    """As long as before, and longer, with the cursor where it was."""
    shown = TableView([ColumnSpec("name"), ColumnSpec("count", right=True)])

    async def test(app: App[None], pilot: Any) -> None:
        for value in ("one", "two", "six"):
            shown.fill([Row(at, (f"row {at}", value)) for at in range(50)])
            await pilot.pause()
            assert value in screen(app)

    drive(shown, test)
