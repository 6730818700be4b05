"""A table of texts with a cursor: drawn line by line, so that many rows cost nothing.

Rules for editors: cells are escaped by whoever makes them.  Rows are known by their keys: when
the table is shown anew, the cursor stays on its row wherever that has gone.
"""

from collections.abc import Hashable, Sequence
from typing import ClassVar, Final, NamedTuple

from textual import events
from textual.binding import BindingType
from textual.message import Message
from textual.strip import Strip

from vsockdump.output.tables import ColumnSpec
from vsockdump.tui.keys import bind
from vsockdump.tui.rows import RowList

_WIDEST: Final = 60  # characters of a column but the last
_GAP: Final = "  "
STYLES: Final = ("error", "warn", "note", "chat")


class Row(NamedTuple):
    """A line of the table; `style` is one of STYLES, "" for plain text; `data` is the pane's."""

    key: Hashable
    cells: tuple[str, ...]
    style: str = ""
    data: object = None


class TableView(RowList):
    """Shows rows; posts Moved when the cursor is on another, Entered when one is chosen."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"table--{style}" for style in STYLES}
    DEFAULT_CSS = """
    TableView > .table--error { color: $text-error; text-style: bold; }
    TableView > .table--warn { color: $text-warning; }
    TableView > .table--note { color: $text-secondary; }
    TableView > .table--chat { color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [bind("enter", "choose", "Open")]

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, table: "TableView", row: Row) -> None:
            super().__init__()
            self.table = table
            self.row = row

    class Entered(Moved):
        """The row is the one that is wanted."""

    def __init__(self, columns: Sequence[ColumnSpec], id: str | None = None) -> None:
        super().__init__()
        if id is not None:
            self.id = id
        self.columns = columns
        self.rows: Sequence[Row] = ()
        self._widths = [len(column.heading) for column in columns]

    @property
    def chosen(self) -> Row | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if self.cursor < len(self.rows) else None

    def fill(self, rows: Sequence[Row]) -> None:
        """Other rows; the cursor stays on its row, or in its place where that is gone."""
        before = self.chosen
        if rows == self.rows:
            return
        self.rows = rows
        if before is not None:
            self.cursor = self._place_of(before)
        self._measure()
        if self.chosen is not None and self.chosen != before:
            self.post_message(self.Moved(self, self.chosen))

    def _place_of(self, row: Row) -> int:
        if self.chosen is not None and self.chosen.key == row.key:
            return self.cursor
        place = next((at for at, other in enumerate(self.rows) if other.key == row.key), None)
        return max(min(self.cursor, len(self.rows) - 1), 0) if place is None else place

    def on_resize(self) -> None:
        """Other rows may be seen."""
        self._measure()

    def _measure(self) -> None:
        """Columns grow with the rows on the screen, and never shrink: they would jump about."""
        top, last = round(self.scroll_y), len(self.columns) - 1
        for row in self.rows[top : top + self.page_rows]:
            for at, cell in enumerate(row.cells):
                width = len(cell) if at == last else min(len(cell), _WIDEST)
                self._widths[at] = max(self._widths[at], width)
        width = sum(self._widths) + len(_GAP) * len(self._widths)
        self.resize_to(len(self.rows), width)

    def moved(self) -> None:
        """Tell where the cursor is."""
        self._measure()
        self.post_message(self.Moved(self, self.rows[self.cursor]))

    def action_choose(self) -> None:
        """This row."""
        if self.chosen is not None:
            self.post_message(self.Entered(self, self.chosen))

    def on_click(self, event: events.Click) -> None:
        """The cursor goes to the row; twice chooses it."""
        super().on_click(event)
        if event.chain == 2 and event.y >= self.has_head:
            self.action_choose()

    # --- drawing -----------------------------------------------------------------------------

    def head(self) -> str:
        """The headings."""
        return self._joined(tuple(column.heading for column in self.columns))

    def row(self, place: int) -> Strip:
        """The cells of a row."""
        row = self.rows[place]
        style = self.rich_style
        if row.style:
            style += self.part(f"table--{row.style}")
        if place == self.cursor:
            style += self.part("rows--cursor")
        return self.line(self._joined(row.cells), style)

    def _joined(self, cells: tuple[str, ...]) -> str:
        parts = []
        for column, width, cell in zip(self.columns, self._widths, cells, strict=True):
            if column is self.columns[-1] and not column.right:
                parts.append(cell)
                continue
            text = cell if len(cell) <= width else cell[: width - 1] + "…"
            parts.append(text.rjust(width) if column.right else text.ljust(width))
        return _GAP.join(parts)
