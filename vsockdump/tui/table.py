"""A table of texts with a cursor: drawn line by line, so that many rows cost nothing.

Rules for editors: cells are escaped by whoever makes them.  Rows are known by their keys: when
the table is shown anew, the cursor stays on its row wherever that has gone.
"""

from collections.abc import Hashable, Sequence
from typing import ClassVar, Final, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from vsockdump.output.tables import ColumnSpec

_WIDEST: Final = 60  # characters of a column but the last
_GAP: Final = "  "
STYLES: Final = ("error", "warn", "note", "chat")


class Row(NamedTuple):
    """A line of the table; `style` is one of STYLES, "" for plain text; `data` is the pane's."""

    key: Hashable
    cells: tuple[str, ...]
    style: str = ""
    data: object = None


class TableView(ScrollView, can_focus=True):
    """Shows rows; posts Moved when the cursor is on another, Entered when one is chosen."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--head",
        "table--cursor",
        *(f"table--{style}" for style in STYLES),
    }
    DEFAULT_CSS = """
    TableView { height: 1fr; scrollbar-size: 0 1; }
    TableView > .table--head { text-style: bold; background: $panel; color: $foreground; }
    TableView > .table--cursor { text-style: bold; background: $block-cursor-background;
        color: $block-cursor-foreground; }
    TableView > .table--error { color: $text-error; text-style: bold; }
    TableView > .table--warn { color: $text-warning; }
    TableView > .table--note { color: $text-secondary; }
    TableView > .table--chat { color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("ctrl+u", "page(-0.5)", "Half a page up", show=False),
        Binding("ctrl+d", "page(0.5)", "Half a page down", show=False),
        Binding("home,g", "end(0)", "First line", show=False),
        Binding("end,G", "end(1)", "Last line", show=False),
        Binding("left,h", "shift(-8)", "Scroll left", show=False),
        Binding("right,l", "shift(8)", "Scroll right", show=False),
        Binding("enter", "choose", "Open"),
    ]

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, table: "TableView", row: Row) -> None:
            super().__init__()
            self.table = table
            self.row = row

        @property
        def control(self) -> "TableView":
            """The table, for @on."""
            return self.table

    class Entered(Moved):
        """The row is the one that is wanted."""

    def __init__(self, columns: Sequence[ColumnSpec], id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.rows: Sequence[Row] = ()
        self.cursor = 0
        self._widths = [len(column.heading) for column in columns]

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if self.cursor < len(self.rows) else None

    def show(self, rows: Sequence[Row]) -> None:
        """Other rows; the cursor stays on its row, or in its place where that is gone."""
        before = self.row
        if rows == self.rows:
            return
        self.rows = rows
        if before is not None:
            self.cursor = self._place_of(before)
        self._measure()
        self.refresh()
        if self.row is not None and self.row != before:
            self.post_message(self.Moved(self, self.row))

    def _place_of(self, row: Row) -> int:
        if self.row is not None and self.row.key == row.key:
            return self.cursor
        place = next((at for at, other in enumerate(self.rows) if other.key == row.key), None)
        return max(min(self.cursor, len(self.rows) - 1), 0) if place is None else place

    def on_resize(self) -> None:
        """Other rows may be seen."""
        self._measure()

    def _measure(self) -> None:
        """Columns grow with the rows on the screen, and never shrink: they would jump about."""
        top, last = round(self.scroll_y), len(self.columns) - 1
        for row in self.rows[top : top + max(self.size.height, 1)]:
            for at, cell in enumerate(row.cells):
                width = len(cell) if at == last else min(len(cell), _WIDEST)
                self._widths[at] = max(self._widths[at], width)
        width = sum(self._widths) + len(_GAP) * len(self._widths)
        self.virtual_size = Size(width, len(self.rows) + 1)

    # --- moving ------------------------------------------------------------------------------

    def _go(self, place: int) -> None:
        if not self.rows:
            return
        self.cursor = max(min(place, len(self.rows) - 1), 0)
        rows, top = max(self.size.height - 1, 1), round(self.scroll_y)
        if not top <= self.cursor < top + rows:
            near = self.cursor if self.cursor < top else self.cursor - rows + 1
            self.scroll_to(y=near, animate=False, force=True)
        self._measure()
        self.refresh()
        self.post_message(self.Moved(self, self.rows[self.cursor]))

    def action_move(self, by: int) -> None:
        """Some lines up or down."""
        self._go(self.cursor + by)

    def action_page(self, by: float) -> None:
        """Some screens up or down."""
        self._go(self.cursor + round(by * max(self.size.height - 2, 1)))

    def action_end(self, last: int) -> None:
        """To the first line or the last."""
        self._go(len(self.rows) - 1 if last else 0)

    def action_shift(self, by: int) -> None:
        """Show columns further to the left or right."""
        self.scroll_to(x=max(self.scroll_x + by, 0), animate=False, force=True)

    def action_choose(self) -> None:
        """This row."""
        if self.row is not None:
            self.post_message(self.Entered(self, self.row))

    def on_click(self, event: events.Click) -> None:
        """The cursor goes to the line; twice chooses it."""
        place = round(self.scroll_y) + event.y - 1
        if event.y > 0 and place < len(self.rows):
            self._go(place)
            if event.chain == 2:
                self.action_choose()

    # --- drawing -----------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """The head, or a row."""
        if y == 0:
            heads = tuple(column.heading for column in self.columns)
            return self._strip(heads, self._style("head"))
        place = round(self.scroll_y) + y - 1
        if place >= len(self.rows):
            return Strip.blank(self.size.width, self.rich_style)
        row = self.rows[place]
        style = self.rich_style + self._style(row.style) if row.style else self.rich_style
        if place == self.cursor:
            style += self._style("cursor")
        return self._strip(row.cells, style)

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"table--{part}")

    def _strip(self, cells: tuple[str, ...], style: Style) -> Strip:
        left, width = round(self.scroll_x), self.scrollable_content_region.width
        shown = f" {self._joined(cells)}"[left : left + width + 1]
        if len(shown) > width:
            shown = shown[: width - 1] + "…"  # a number that is cut off is another number
        return Strip([Segment(shown, style)], len(shown)).extend_cell_length(width, style)

    def _joined(self, cells: tuple[str, ...]) -> str:
        parts = []
        for column, width, cell in zip(self.columns, self._widths, cells, strict=True):
            if column is self.columns[-1] and not column.right:
                parts.append(cell)
                continue
            text = cell if len(cell) <= width else cell[: width - 1] + "…"
            parts.append(text.rjust(width) if column.right else text.ljust(width))
        return _GAP.join(parts)
