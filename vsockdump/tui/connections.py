"""The table of connections: sorted by any column, with the credit of each as a sparkline.

Rules for editors: the picture and its order are made in a thread, for there may be a million
connections; the screen draws rows of it.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widgets import Static

from vsockdump.amounts import counted
from vsockdump.findings.rule import Severity
from vsockdump.tui.keys import bind
from vsockdump.tui.model.connections import (
    CONNECTION_COLUMNS,
    OVERVIEW_DTYPE,
    Overview,
    Row,
    Windows,
    ordered,
    overview,
    severity_of,
    sparkline,
)
from vsockdump.tui.pane import Command, FilterBy, OpenPane, Pane
from vsockdump.tui.rows import RowList
from vsockdump.tui.session import Session

_NAMES: Final = tuple(CONNECTION_COLUMNS)
_COLUMNS: Final = tuple(CONNECTION_COLUMNS.values())
_EVERY_S: Final = 1.0  # between two pictures, at least
_REST: Final = 10  # times as long as a picture took there is none
_NONE: Final = Overview(
    np.zeros(0, OVERVIEW_DTYPE), Windows(*(np.zeros((0, 16), np.uint32) for _ in range(3))), 0
)


class ConnectionList(RowList):
    """The rows; `sort` names the column and `reverse` turns its order round."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"connections--error", "connections--warn"}
    DEFAULT_CSS = """
    ConnectionList > .connections--error { color: $text-error; text-style: bold; }
    ConnectionList > .connections--warn { color: $text-warning; }
    """

    class Sort(Message):
        """The head of a column was clicked."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.sort = "number"
        self.reverse = False
        self._picture = _NONE
        self._order: NDArray[np.intp] = np.zeros(0, np.intp)
        self._widths = [max(column.width, len(column.title) + 1) for column in _COLUMNS]
        self._shown: dict[int, tuple[Row, list[str]]] = {}

    def take(self, picture: Overview, order: NDArray[np.intp]) -> None:
        """Another picture or order; the cursor stays on its connection."""
        conn = self.conn or self.session.conn
        self._picture, self._order = picture, order
        self.resize_to(len(order), sum(self._widths) + len(self._widths) + 12)
        place = np.flatnonzero(picture.rows["number"][order] == conn)
        if len(place):
            self.show(int(place[0]), near=True)

    @property
    def conn(self) -> int:
        """The connection that the cursor is on, 0: there is none."""
        if self.cursor >= len(self._order):
            return 0
        return int(self._picture.rows["number"][self._order[self.cursor]])

    def moved(self) -> None:
        """The connection is the session's from now on."""
        self.session.conn = self.conn

    def clicked_head(self, x: int) -> None:
        """Sort by the column under the mouse."""
        for name, width in zip(_NAMES, self._widths, strict=True):
            if x < width + 1:
                self.post_message(self.Sort(name))
                return
            x -= width + 1

    def head(self) -> str:
        """The titles, with an arrow for the order; columns are as wide as what is in sight."""
        first = round(self.scroll_y)
        self._shown = {
            place: self._cells(place)
            for place in range(first, min(first + self.page_rows, len(self._order)))
        }
        for _row, cells in self._shown.values():
            self._widths = list(map(max, self._widths, map(len, cells)))
        falling = CONNECTION_COLUMNS[self.sort].falling != self.reverse
        titles = [
            column.title + ("▼" if falling else "▲") * (name == self.sort)
            for name, column in CONNECTION_COLUMNS.items()
        ]
        return self._joined(titles)

    def row(self, place: int) -> Strip:
        """A connection."""
        row, cells = self._shown.get(place) or self._cells(place)
        return self.line(self._joined(cells), self._style(row, place))

    def _cells(self, place: int) -> tuple[Row, list[str]]:
        row = Row(*self._picture.rows[self._order[place]].tolist())
        cells = [column.cell(row, self.session.numeric) for column in _COLUMNS]
        cells[_NAMES.index("credit")] = sparkline(self._picture.windows, row)
        return row, cells

    def _style(self, row: Row, place: int) -> Style:
        style, severity = self.rich_style, severity_of(row)
        if severity is not None and severity >= Severity.WARN:
            style += self.part(f"connections--{severity.word}")
        return style + self.part("rows--cursor") if place == self.cursor else style

    def _joined(self, cells: list[str]) -> str:
        return " ".join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for column, width, cell in zip(_COLUMNS, self._widths, cells, strict=True)
        )


class ConnectionsPane(Pane):
    """The table, and a line that says how it stands."""

    title = "Connections"
    statistic = "conv"
    DEFAULT_CSS = """
    ConnectionsPane > Static { height: 1; padding: 0 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("enter", "packets", "Its packets"),
        bind("f", "open('follow')", "Follow"),
        bind("c", "open('credit')", "Credit"),
        bind("e", "open('story')", "Explain"),
        bind("s,greater_than_sign", "sort(1)", "Sort", tooltip="by the next column"),
        bind("less_than_sign", "sort(-1)", "Sort by the column before", show=False),
        bind("r", "reverse", "Reverse", show=False),
        bind("n", "names", "Addresses as names or numbers", show=False),
    ]

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session, name)
        self._picture = _NONE
        self._busy = False
        self._taken = -1  # packets that the picture shows, and whether they are all
        self._next = 0.0  # when another picture may be taken

    def compose(self) -> ComposeResult:
        """The table above its line."""
        self.list = ConnectionList(self.session)
        self.line = Static(markup=False)
        yield self.list
        yield self.line

    def commands(self) -> Iterator[Command]:
        """Every order by its name."""
        for name, column in CONNECTION_COLUMNS.items():
            run = partial(self._sort, name)
            yield Command(f"Sort connections by {column.title}", "of this pane", run)

    # --- the picture -------------------------------------------------------------------------

    def draw(self) -> None:
        """Take another picture, if there is anything new to be seen."""
        snapshot = self.session.snapshot
        seen = 2 * snapshot.packets + snapshot.ended
        if seen != self._taken and not self._busy and time.monotonic() >= self._next:
            self._busy, self._taken = True, seen
            self._take(anew=True)

    @work(thread=True, group="connections")
    def _take(self, anew: bool) -> None:
        begin = time.monotonic()
        picture = overview(self.session.capture) if anew else self._picture
        order = ordered(picture.rows, self.list.sort, self.list.reverse)
        took = time.monotonic() - begin
        self.app.call_from_thread(self._show, picture, order, took)

    def _show(self, picture: Overview, order: NDArray[np.intp], took: float) -> None:
        self._busy, self._next = False, time.monotonic() + max(_EVERY_S, _REST * took)
        self._picture = picture
        self.list.take(picture, order)
        count = counted(len(order), "connection")
        left = f", {picture.forgotten} more were forgotten (--max-connections)"
        title = CONNECTION_COLUMNS[self.list.sort].title
        self.line.update(f"{count}{left if picture.forgotten else ''}; by {title}")

    # --- keys --------------------------------------------------------------------------------

    def on_connection_list_sort(self, message: ConnectionList.Sort) -> None:
        """A click on a title; a second one turns the order round."""
        if message.name == self.list.sort:
            self.action_reverse()
        else:
            self._sort(message.name)

    def action_sort(self, by: int) -> None:
        """By another column."""
        self._sort(_NAMES[(_NAMES.index(self.list.sort) + by) % len(_NAMES)])

    def action_reverse(self) -> None:
        """From the other end."""
        self.list.reverse = not self.list.reverse
        self._take(anew=False)

    def _sort(self, name: str) -> None:
        self.list.sort, self.list.reverse = name, False
        self._take(anew=False)

    def action_names(self) -> None:
        """As names or as numbers."""
        self.session.numeric = not self.session.numeric
        self.list.refresh()

    def action_packets(self) -> None:
        """List the packets of the connection, and go there."""
        if self.list.conn:
            self.post_message(FilterBy(f"conn {self.list.conn}"))
            self.post_message(OpenPane("packets"))

    def action_open(self, pane: str) -> None:
        """The connection in another pane."""
        if self.list.conn:
            self.post_message(OpenPane(pane))
