"""The bytes of a packet, in hexadecimal and as text."""

from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from vsockdump.tui.keys import bind
from vsockdump.tui.model.hexdump import hex_row, row_count

_OFFSET: Final = 6  # characters of the offset and what follows it
_WIDE: Final = 16  # bytes of a row, where there is room for so many
_NARROW: Final = 8


class HexView(ScrollView, can_focus=True):
    """Shows bytes; posts Byte when the cursor goes to another."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"hex--offset", "hex--field", "hex--cursor"}
    DEFAULT_CSS = """
    HexView { width: auto; min-width: 40; height: 1fr; border-left: solid $panel;
        scrollbar-size: 0 1; }
    HexView > .hex--offset { color: $text-muted; }
    HexView > .hex--field { background: $primary-muted; color: $text; }
    HexView > .hex--cursor { background: $block-cursor-background;
        color: $block-cursor-foreground; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("up,k", "move(0, -1)", "Up", show=False),
        bind("down,j", "move(0, 1)", "Down", show=False),
        bind("left,h", "move(-1, 0)", "Left", show=False),
        bind("right,l", "move(1, 0)", "Right", show=False),
        bind("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        bind("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        bind("home,g", "end(0)", "First byte", show=False),
        bind("end,G", "end(1)", "Last byte", show=False),
    ]

    class Byte(Message):
        """The byte that the cursor is on."""

        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.cursor = 0
        self._field = range(0)

    @property
    def chosen(self) -> bytes:
        """The bytes of the field, or the one under the cursor."""
        field = self._field or range(self.cursor, self.cursor + 1)
        return self.data[field.start : field.stop]

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return _WIDE if self.app.size.width >= 120 else _NARROW

    def show(self, data: bytes) -> None:
        """Other bytes."""
        self.data = data
        self._field = range(0)
        self.cursor = min(self.cursor, max(len(data) - 1, 0))
        self._measure()
        self.refresh()

    def on_resize(self) -> None:
        """The rows may have become longer or shorter."""
        self.styles.width = _OFFSET + 4 * self.width + 4
        self._measure()

    def _measure(self) -> None:
        width = self.width
        self.virtual_size = Size(_OFFSET + 4 * width + 1, row_count(len(self.data), width))

    def highlight(self, start: int, size: int, move: bool = True) -> None:
        """Show the bytes of a field; with `move` the cursor goes to its first."""
        self._field = range(start, start + size)
        if move and size:
            self.cursor = min(start, max(len(self.data) - 1, 0))
            self._see()
        self.refresh()

    def _see(self) -> None:
        row, rows = self.cursor // self.width, max(self.size.height, 1)
        top = round(self.scroll_y)
        if not top <= row < top + rows:
            self.scroll_to(y=row if row < top else row - rows + 1, animate=False, force=True)

    def _go(self, at: int) -> None:
        if self.data:
            self.cursor = max(min(at, len(self.data) - 1), 0)
            self._see()
            self.refresh()
            self.post_message(self.Byte(self.cursor))

    def go(self, found: range) -> None:
        """To these bytes, highlighted."""
        self._go(found.start)
        self.call_after_refresh(self.highlight, found.start, len(found), False)

    def action_move(self, across: int, down: int) -> None:
        """Some bytes on."""
        self._go(self.cursor + across + down * self.width)

    def action_page(self, by: int) -> None:
        """A screen up or down."""
        self._go(self.cursor + by * self.size.height * self.width)

    def action_end(self, last: int) -> None:
        """To the first or last byte."""
        self._go(len(self.data) - 1 if last else 0)

    def on_click(self, event: events.Click) -> None:
        """To the byte under the mouse, in either half."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        x, width = offset.x - _OFFSET, self.width
        column = x // 3 if x < 3 * width else x - 3 * width - 1
        if 0 <= column < width:
            self._go((round(self.scroll_y) + offset.y) * width + column)

    def render_line(self, y: int) -> Strip:
        """One row of bytes."""
        row, width, plain = round(self.scroll_y) + y, self.width, self.rich_style
        if row >= row_count(len(self.data), width):
            return Strip.blank(self.size.width, plain)
        line = hex_row(self.data, row, width)
        offset = plain + self.get_component_rich_style("hex--offset")
        segments = [Segment(f"{line.offset:04x}".rjust(_OFFSET - 2) + "  ", offset)]
        styles = [self._style(line.offset + index, plain) for index in range(len(line.hexes))]
        for index, text in enumerate(line.hexes):
            joined = index + 1 < len(styles) and styles[index] == styles[index + 1]
            segments.append(Segment(text, styles[index]))
            segments.append(Segment(" ", styles[index] if joined else plain))
        segments.append(Segment("   " * (width - len(line.hexes)) + " ", plain))
        segments += [
            Segment(text, style) for text, style in zip(line.characters, styles, strict=True)
        ]
        return Strip(segments).crop_extend(0, self.size.width, plain)

    def _style(self, at: int, plain: Style) -> Style:
        if at == self.cursor and self.has_focus:
            return plain + self.get_component_rich_style("hex--cursor")
        if at in self._field:
            return plain + self.get_component_rich_style("hex--field")
        return plain
