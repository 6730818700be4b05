"""Pane of the story: what happened on a connection, each sentence a way to its packet.

Rules for editors: the words and the chart are those of --explain (story/); here they are only
drawn, in the colours of the other panes.
"""

from collections.abc import Callable, Iterator
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.strip import Strip
from textual.widgets import Static

from vsockdump.capture.errors import CaptureError
from vsockdump.output.statistics import PLAIN_WIDTH
from vsockdump.output.tables import json_line
from vsockdump.story.model import Story
from vsockdump.story.text import Line, Pen, values
from vsockdump.tui.connection_pane import NO_CONNECTION, ConnectionPane
from vsockdump.tui.keys import bind
from vsockdump.tui.model.story import Telling
from vsockdump.tui.pane import GoTo, OpenPane
from vsockdump.tui.refreshed import RefreshedPane
from vsockdump.tui.rows import RowList
from vsockdump.tui.session import Session

_LOOKS: Final = ("head", "aside", "initiator", "acceptor", "error", "warn", "note", "chat")
_MARGIN: Final = 2  # characters that are not text: the first, and the scroll bar

_Made = tuple[int, Story | None, str]  # the connection, its story, or what is in the way


class StoryView(RowList):
    """The lines of a story."""

    has_head = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"story--{look}" for look in _LOOKS}
    DEFAULT_CSS = """
    StoryView > .story--head { text-style: bold; }
    StoryView > .story--aside { color: $text-muted; }
    StoryView > .story--initiator { color: $text-primary; }
    StoryView > .story--acceptor { color: $text-warning; }
    StoryView > .story--error { color: $text-error; text-style: bold; }
    StoryView > .story--warn { color: $text-warning; }
    StoryView > .story--note { color: $text-secondary; }
    StoryView > .story--chat { color: $text-muted; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Line] = []
        self._width = 0
        self._story: Story | None = None

    @property
    def chosen(self) -> Line | None:
        """The line under the cursor."""
        return self._lines[self.cursor] if self.cursor < len(self._lines) else None

    def tell(self, story: Story | None, anew: bool) -> None:
        """Show a story; of another connection (`anew`) from its beginning."""
        self._story = story
        if anew:
            self.cursor = 0
            self.scroll_to(x=0, y=0, animate=False, force=True)
        self._write()

    def on_resize(self) -> None:
        """Lines are as wide as the screen."""
        if self.size.width != self._width:
            self._write()

    def _write(self) -> None:
        self._width = self.size.width
        story = self._story
        self._lines = list(Pen(self._width - _MARGIN).lines(story)) if story else []
        self.cursor = max(min(self.cursor, len(self._lines) - 1), 0)
        self.resize_to(len(self._lines), 1)

    def row(self, place: int) -> Strip:
        """A line in its colour."""
        line, style = self._lines[place], self.rich_style
        if line.look:
            style += self.part(f"story--{line.look}")
        if place == self.cursor:
            style += self.part("rows--cursor")
        return self.line(line.text, style)


class StoryPane(ConnectionPane, RefreshedPane):
    """A line of words where there is no story, and the story."""

    title = "Story"
    DEFAULT_CSS = """
    StoryPane > Static { height: 1; padding: 0 1; display: none; }
    StoryPane.-empty > Static { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("enter", "packet", "Packet"),
        bind("f", "open('follow')", "Follow"),
        bind("c", "open('credit')", "Credit"),
        bind("n", "names", "Addresses as names or numbers", show=False),
    ]

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session, name)
        self._telling: Telling | None = None
        self._wanted = (0, False)  # connection and notation that are shown, or being made
        self._shown = 0

    def compose(self) -> ComposeResult:
        """Words, lines."""
        self.words = Static(NO_CONNECTION, markup=False)
        self.view = StoryView()
        yield self.words
        yield self.view

    def on_mount(self) -> None:
        """Nothing is told yet."""
        self.add_class("-empty")

    # --- what is shown -------------------------------------------------------------------------

    def draw(self) -> None:
        """Another connection, or more packets of this one."""
        wanted = self.session.conn, self.session.numeric
        if wanted != self._wanted and not self._busy:
            self._wanted = wanted
            self.again()
        if self.session.conn:
            super().draw()

    def make(self) -> _Made:
        """The story as it is now; in a thread."""
        conn, numeric = self._wanted
        capture = self.session.capture
        telling = self._telling
        if telling is None or telling.conn != conn or telling.late != capture.messages.late:
            telling = self._telling = Telling(capture, conn)
        try:
            story = telling.story(numeric)
        except CaptureError as error:
            return conn, None, str(error)
        return conn, story, "" if story else f"Connection {conn} is not known any more."

    def put(self, made: _Made) -> None:
        """Show it."""
        conn, story, trouble = made
        self.set_class(story is None, "-empty")
        self.words.update(trouble or NO_CONNECTION)
        self.view.tell(story, conn != self._shown)
        self._shown = conn

    def export(self, as_json: bool, going: Callable[[], bool]) -> Iterator[bytes]:
        """-z story,CONNECTION."""
        telling = Telling(self.session.capture, self.session.conn)
        story = telling.story(self.session.numeric and not as_json)
        if story is not None:
            pen = Pen(PLAIN_WIDTH)
            lines = [json_line("story", values(story))] if as_json else map(_text, pen.lines(story))
            yield from (f"{line}\n".encode() for line in lines)

    def copied(self, as_filter: bool) -> str:
        """The line, or a filter for the packets of the connection."""
        line = self.view.chosen
        return f"conn {self._shown}" if as_filter else (line.text.strip() if line else "")

    # --- keys --------------------------------------------------------------------------------

    def action_packet(self) -> None:
        """To the packet that the line tells of."""
        line = self.view.chosen
        if line is not None and line.packet:
            self.post_message(GoTo(line.packet))
        else:
            self.app.notify("It is of no packet.", severity="warning", timeout=2)

    def action_open(self, pane: str) -> None:
        """The connection in another pane."""
        self.post_message(OpenPane(pane))

    def action_names(self) -> None:
        """As names or as numbers."""
        self.session.numeric = not self.session.numeric
        self.draw()


def _text(line: Line) -> str:
    return line.text
