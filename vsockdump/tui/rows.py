"""A list of any length with a cursor: what the packet list and its like have in common.

Rules for editors: rows are made when they come into sight, by `row`.  Textual's DataTable and
OptionList are not used because they hold every row.
"""

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from vsockdump.tui.keys import bind


class RowList(ScrollView, can_focus=True):
    """Rows below a head, which is left out where `has_head` is False.

    `cursor` is the place of the row in use, of `count` rows.
    """

    has_head = True
    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--head", "rows--cursor"}
    DEFAULT_CSS = """
    RowList { height: 1fr; scrollbar-size: 0 1; }
    RowList > .rows--head { text-style: bold; background: $panel; color: $foreground; }
    RowList > .rows--cursor { text-style: bold; background: $block-cursor-background;
        color: $block-cursor-foreground; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("up,k", "move(-1)", "Up", show=False),
        bind("down,j", "move(1)", "Down", show=False),
        bind("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        bind("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        bind("ctrl+u", "page(-0.5)", "Half a page up", show=False),
        bind("ctrl+d", "page(0.5)", "Half a page down", show=False),
        bind("home,g", "end(0)", "To the first", show=False),
        bind("end,G", "end(1)", "To the last", show=False),
        bind("left,h", "shift(-8)", "Scroll left", show=False),
        bind("right,l", "shift(8)", "Scroll right", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.cursor = 0
        self.count = 0

    # --- for subclasses ----------------------------------------------------------------------

    def head(self) -> str:
        """The line above the rows; asked for before the rows of a screen."""
        return ""

    def row(self, place: int) -> Strip:
        """A row; `line` makes it from text."""
        raise NotImplementedError

    def moved(self) -> None:
        """The cursor was set."""

    def resize_to(self, count: int, width: int) -> None:
        """So many rows, of so many characters, from now on."""
        self._lay_out(count, width)
        self.refresh()

    def grow_to(self, count: int, width: int) -> None:
        """The same where rows stay what they are: without new ones in sight nothing is drawn."""
        last_in_sight = round(self.scroll_y) + self.page_rows
        is_filled = last_in_sight <= self.count <= count
        self._lay_out(count, width)
        if not is_filled:
            self.refresh()

    def _lay_out(self, count: int, width: int) -> None:
        """Where a scrollbar is and stays it is all that changes, and nothing is laid out anew."""
        before, size = self.virtual_size, Size(width, count + self.has_head)
        self.count = count
        scrolls = min(before.height, size.height) > self.size.height
        if scrolls and before.width == width and self.show_vertical_scrollbar:
            self.set_reactive(Widget.virtual_size, size)
            self.vertical_scrollbar.window_virtual_size = size.height
        else:
            self.virtual_size = size

    def line(self, text: str, style: Style) -> Strip:
        """A row of text, as far as it is in sight, with a mark where it is cut."""
        left, width = round(self.scroll_x), self.scrollable_content_region.width
        strip = Strip([Segment(f" {text}", style)])
        if strip.cell_length - left > width:  # a number that is cut off is another number
            return Strip([*strip.crop(left, left + width - 1), Segment("…", style)], width)
        return strip.crop(left, left + width).extend_cell_length(width, style)

    def part(self, name: str) -> Style:
        """The style of a component."""
        return self.get_component_rich_style(name)

    # --- moving ------------------------------------------------------------------------------

    @property
    def page_rows(self) -> int:
        """Rows that fit on the screen."""
        return max(self.scrollable_content_region.height - self.has_head, 1)

    def show(self, place: int, near: bool = False) -> None:
        """Set the cursor there, and let it be seen; far away in the middle, unless `near`."""
        if self.count <= 0:
            return
        self.cursor = max(min(place, self.count - 1), 0)
        rows, top = self.page_rows, round(self.scroll_y)
        if not top <= self.cursor < top + rows:
            edge = self.cursor - rows + 1 if self.cursor >= top + rows else self.cursor
            far = abs(self.cursor - top) > 2 * rows and not near
            self.scroll_to(y=self.cursor - rows // 2 if far else edge, animate=False, force=True)
        self.moved()
        self.refresh()

    def action_move(self, by: int) -> None:
        """Some rows up or down."""
        self.show(self.cursor + by)

    def action_page(self, by: float) -> None:
        """Some screens up or down."""
        self.action_move(round(by * max(self.page_rows - 1, 1)))

    def action_end(self, last: int) -> None:
        """To the first row, or to the last."""
        self.show(self.count - 1 if last else 0)

    def action_shift(self, by: int) -> None:
        """Show what is further to the left or right."""
        self.scroll_to(x=max(self.scroll_x + by, 0), animate=False, force=True)

    def on_click(self, event: events.Click) -> None:
        """The cursor goes to the row under the mouse."""
        place = round(self.scroll_y) + event.y - self.has_head
        if event.y < self.has_head:
            self.clicked_head(event.x + round(self.scroll_x) - 1)
        elif place < self.count:
            self.action_move(place - self.cursor)

    def clicked_head(self, x: int) -> None:
        """The head was clicked above this character of the rows."""

    # --- drawing -----------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """The head, or a row."""
        if y == 0 and self.has_head:
            return self.line(self.head(), self.rich_style + self.part("rows--head"))
        place = round(self.scroll_y) + y - self.has_head
        if place >= self.count:
            return Strip.blank(self.size.width, self.rich_style)
        return self.row(place)
