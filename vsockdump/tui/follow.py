"""The conversation of a connection: as text, in hexadecimal, or in decoded messages.

Rules for editors: rows come from model/conversation.py, already escaped and cut; who said
what is told by the sign at the beginning of a line as well as by its colour.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.strip import Strip
from textual.widgets import Static
from textual.worker import get_current_worker

from vsockdump.capture.errors import CaptureError
from vsockdump.output.follow import SIDES
from vsockdump.tui.connection_pane import NO_CONNECTION, ConnectionPane
from vsockdump.tui.keys import bind
from vsockdump.tui.model.conversation import (
    FORMS,
    Conversation,
    Row,
    SearchError,
    Wanted,
    save_bytes,
    save_text,
    wanted,
)
from vsockdump.tui.pane import Command, GoTo, OpenPane
from vsockdump.tui.prompt import Prompt
from vsockdump.tui.rows import RowList
from vsockdump.tui.session import Session

_STYLES: Final = ("initiator", "acceptor", "mark")
_HEX_WIDTH: Final = 1 << 16  # rows of bytes are not cut
_MARGIN: Final = 2  # characters that are not text: the first, and the scroll bar


class ConversationView(RowList):
    """The rows of a conversation."""

    has_head = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"conversation--{style}" for style in _STYLES),
        "conversation--found",
    }
    DEFAULT_CSS = """
    ConversationView > .conversation--initiator { color: $text-primary; }
    ConversationView > .conversation--acceptor { color: $text-warning; }
    ConversationView > .conversation--mark { color: $text-muted; text-style: italic; }
    ConversationView > .conversation--found { text-style: bold reverse; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.conversation: Conversation | None = None
        self.wanted: Wanted | None = None
        self._sought = 0  # the packet to stand at, once it is there
        self._changes = -1
        self._rows: list[Row] = []  # those in sight
        self._first = 0  # place of the first of them
        self._read: tuple[object, ...] = ()  # what they were read for

    def begin(self, conversation: Conversation, packet: int) -> None:
        """Another conversation, or the same in another form; stand at this packet."""
        self.conversation = conversation
        self._sought = packet
        self.cursor = self.count = 0
        self._changes = -1
        self.scroll_to(x=0, y=0, animate=False, force=True)
        self.grow()

    def grow(self) -> None:
        """Take notice of rows that have come; who stands at the end goes on with it."""
        if self.conversation is None:
            return
        changes, count = self.conversation.changes, len(self.conversation)
        if changes != self._changes:
            self._changes = changes
            at_end = 0 < self.count == self.cursor + 1
            self.resize_to(count, 100 if self.conversation.form == "hex" else 1)
            if at_end:
                self.show(count - 1, near=True)
        if self._sought and self.conversation.done >= self._sought and count:
            place, self._sought = self.conversation.place(self._sought), 0
            self.show(place)

    def row(self, place: int) -> Strip:
        """A row in the colour of who said it."""
        rows = self._in_sight()
        at = place - self._first
        if not 0 <= at < len(rows):
            return Strip.blank(self.size.width, self.rich_style)
        row = rows[at]
        style = self.rich_style + self.part(f"conversation--{_STYLES[row.speaker]}")
        if place == self.cursor:
            style += self.part("rows--cursor")
        return self._marked(self.line(row.shown, style))

    def _in_sight(self) -> list[Row]:
        """The rows of the screen, read once for all of them."""
        first = round(self.scroll_y)
        key = (self.conversation, self._changes, first, self.page_rows)
        if key != self._read and self.conversation is not None:
            self._read, self._first = key, first
            self._rows = self.conversation.rows(first, self.page_rows)
        return self._rows

    def _marked(self, strip: Strip) -> Strip:
        """The row with what was searched for marked."""
        if self.wanted is None or isinstance(self.wanted.pattern, bytes):
            return strip
        (segment, *rest) = strip
        found = self.part("conversation--found")
        text, style = segment.text, segment.style or Style.null()
        parts, at = [], 0
        for match in self.wanted.pattern.finditer(text):
            parts += [
                Segment(text[at : match.start()], style),
                Segment(match[0], style + found),
            ]
            at = match.end()
        return Strip([*parts, Segment(text[at:], style), *rest], strip.cell_length)


class _Wish(NamedTuple):
    """What is to be shown; `late` tells that messages have come since."""

    conn: int
    form: str
    width: int
    side: int | None
    numeric: bool
    late: int


class FollowPane(ConnectionPane):
    """A line of words above the conversation."""

    title = "Follow"
    takes_slash = True
    DEFAULT_CSS = """
    FollowPane > Static { height: 1; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("enter", "packet", "Packet"),
        bind("x", "form(1)", "Form"),
        bind("X", "form(-1)", "The form before", show=False),
        bind("d", "side", "Side"),
        bind("slash", "search", "Search", display="/"),
        bind("n", "again(True)", "Next match", show=False),
        bind("N", "again(False)", "The match before", show=False),
        bind("w", "save(False)", "Save"),
        bind("W", "save(True)", "Save the bytes", show=False),
        bind("c", "credit", "Credit over time", show=False),
    ]

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session, name)
        self._form = FORMS[0]
        self._side: int | None = None
        self._wish: _Wish | None = None  # of the conversation that is shown
        self._searched = ""
        self._said = ""

    def compose(self) -> ComposeResult:
        """Words, rows."""
        self.words = Static(markup=False)
        self.view = ConversationView()
        yield self.words
        yield self.view

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        if self.view.conversation is not None:
            self.view.conversation.close()

    def commands(self) -> Iterator[Command]:
        """Every form by its name."""
        for form in FORMS:
            yield Command(f"Follow: {form}", "how a conversation is shown", self._shower(form))

    def _shower(self, form: str) -> Callable[[], None]:
        return partial(self._show_as, form, self._side)

    # --- what the program tells the pane -----------------------------------------------------

    def draw(self) -> None:
        """Another conversation, or more of this one."""
        conn, width = self.session.conn, self.view.size.width - _MARGIN
        if conn and width > 0:
            session = self.session
            wide = _HEX_WIDTH if self._form == "hex" else width
            late = 0 if self._form in FORMS[:2] else session.capture.messages.late
            wish = _Wish(conn, self._form, wide, self._side, session.numeric, late)
            if wish != self._wish:
                self._begin(wish)
        self.view.grow()
        self._say()

    def _begin(self, wish: _Wish) -> None:
        capture, old, packet = self.session.capture, self.view.conversation, self._current(wish)
        if old is not None:
            old.close()
            rows = old.rows(self.view.cursor, 1)
            if rows and old.conn == wish.conn:
                packet = rows[0].packet
        self._wish = wish
        conversation = Conversation(
            capture, wish.conn, wish.form, wish.width, wish.side, wish.numeric
        )
        self.view.begin(conversation, packet)

    def _current(self, wish: _Wish) -> int:
        """The current packet, if it is of the connection."""
        number = self.session.current
        if not number:
            return 0
        row = self.session.capture.index.rows(np.array([number], np.uint64))[0]
        return number if row["tracked"]["conn"] == wish.conn else 0

    def _say(self) -> None:
        text = self._text()
        if text != self._said:
            self._said = text
            self.words.update(text)

    def _text(self) -> str:
        shown = self.view.conversation
        if shown is None:
            return NO_CONNECTION
        if shown.trouble:
            return shown.trouble
        one, other = self.ends_of(shown.conn)
        who = "both sides" if shown.side is None else f"only the {SIDES[shown.side]}"
        left = f", {shown.left_out} bytes of it left out" if shown.left_out else ""
        nothing = "" if len(shown) else ": nothing so far"
        return f"#{shown.conn} > {one} < {other}  {shown.form}, {who}{left}{nothing}"

    # --- keys --------------------------------------------------------------------------------

    def action_packet(self) -> None:
        """To the packet in which the line begins."""
        shown = self.view.conversation
        rows = shown.rows(self.view.cursor, 1) if shown else []
        if rows and rows[0].packet:
            self.post_message(GoTo(rows[0].packet))

    def action_form(self, by: int) -> None:
        """Another form."""
        form = FORMS[(FORMS.index(self._form) + by) % len(FORMS)]
        self._show_as(form, self._side)

    def action_side(self) -> None:
        """Both sides, the initiator, the acceptor."""
        sides = (None, 0, 1)
        self._show_as(self._form, sides[(sides.index(self._side) + 1) % len(sides)])

    def _show_as(self, form: str, side: int | None) -> None:
        self._form, self._side = form, side
        self.draw()

    def action_credit(self) -> None:
        """The credit of the connection."""
        self.post_message(OpenPane("credit"))

    # --- searching ---------------------------------------------------------------------------

    def action_search(self) -> None:
        """Ask for what."""
        self.app.push_screen(Prompt("text, /regex/ or 0xHEX", self._searched), self._search)

    def _search(self, text: str | None) -> None:
        if not text:
            return
        try:
            self.view.wanted = wanted(text)
        except SearchError as error:
            self.app.notify(str(error), severity="warning", markup=False)
            return
        self._searched = text
        self.view.refresh()
        self.action_again(True)

    def action_again(self, forward: bool) -> None:
        """The next match, or the one before."""
        if self.view.wanted is None:
            self.action_search()
        elif self.view.conversation is not None:
            self._find(self.view.conversation, self.view.wanted, self.view.cursor, forward)

    @work(thread=True, exclusive=True, group="search")
    def _find(self, shown: Conversation, what: Wanted, place: int, forward: bool) -> None:
        worker = get_current_worker()
        try:
            found = shown.search(what, place, forward, lambda: not worker.is_cancelled)
        except CaptureError as error:
            self.app.call_from_thread(self._complain, str(error))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._found, shown, found)

    def _found(self, shown: Conversation, place: int | None) -> None:
        if place is None:
            self.app.notify("No other match further on.", severity="warning", timeout=2)
        elif shown is self.view.conversation:
            self.view.show(place)

    # --- saving ------------------------------------------------------------------------------

    def action_save(self, raw: bool) -> None:
        """Ask where to."""
        if self.view.conversation is None:
            return
        what = "the bytes" if raw else f"what is shown ({self._form})"
        name = f"conn-{self.view.conversation.conn}.{'bin' if raw else 'txt'}"
        self.app.push_screen(Prompt(f"Save {what} to a new file", name), partial(self._save, raw))

    def _save(self, raw: bool, path: str | None) -> None:
        if path and self.view.conversation is not None:
            self._write(self.view.conversation, raw, str(Path(path).expanduser()))

    @work(thread=True, group="save")
    def _write(self, shown: Conversation, raw: bool, path: str) -> None:
        try:
            capture = self.session.capture
            said = save_bytes(capture, shown, path) if raw else save_text(shown, path)
        except OSError as error:
            why = error.strerror or str(error)
            self.app.call_from_thread(self._complain, f"{path} cannot be written: {why}.")
        except CaptureError as error:
            self.app.call_from_thread(self._complain, str(error))
        else:
            self.app.call_from_thread(self.app.notify, said, markup=False)

    def _complain(self, sentence: str) -> None:
        self.app.notify(sentence, severity="error", markup=False)
