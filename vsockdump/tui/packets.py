"""The packet list, and beneath it the packet that the cursor is on.

Rules for editors: the list is drawn line by line and decodes only the packets on the screen,
in one go whenever other packets come into sight.  Textual's DataTable is not used because it
holds a row for every packet.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Final

from rich.style import Style
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.strip import Strip
from textual.timer import Timer
from textual.worker import get_current_worker

from vsockdump.capture.errors import CaptureError
from vsockdump.columns import tracked
from vsockdump.filters.filter import Filter
from vsockdump.output.escaped import on_line
from vsockdump.output.fields_text import json_lines
from vsockdump.output.text import TextOptions, TextView
from vsockdump.tui.details import DetailsTree
from vsockdump.tui.hex import HexView
from vsockdump.tui.keys import bind
from vsockdump.tui.model import wireshark
from vsockdump.tui.model.columns import COLOUR_RULES, COLUMNS, TIME_FORMATS, Line, colour_rule
from vsockdump.tui.model.details import Node, details, packet_bytes
from vsockdump.tui.model.goto import GotoError, place_of
from vsockdump.tui.model.passes import Listing, find
from vsockdump.tui.model.saving import printed
from vsockdump.tui.model.wording import bytes_filter, field_filter
from vsockdump.tui.pane import Command, FilterBy, OpenPane, Pane, Picked
from vsockdump.tui.prompt import Prompt
from vsockdump.tui.rows import RowList
from vsockdump.tui.searching import Search
from vsockdump.tui.session import Session

_FINDING: Final = "finding note or finding warn or finding error"
_LAST: Final = 60
_REST_S: Final = 0.03  # how long the cursor rests before details are made
_GLANCE_S: Final = 0.5  # from packet to packet in the tree while the list follows the end


class PacketList(RowList):
    """The lines of the packets that are listed; the first line of the screen is the head.

    `cursor` is a place in the listing; `following`: it stays at the end as packets come.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "packets--marked",
        *(f"packets--{rule}" for rule in COLOUR_RULES),
    }
    DEFAULT_CSS = """
    PacketList > .packets--marked { text-style: bold; color: $accent; }
    PacketList > .packets--error { color: $text-error; text-style: bold; }
    PacketList > .packets--warn { color: $text-warning; }
    PacketList > .packets--rst { color: $text-error; }
    PacketList > .packets--opening { color: $text-success; }
    PacketList > .packets--closing { color: $text-warning; }
    PacketList > .packets--credit { color: $text-secondary; }
    PacketList > .packets--foreign { color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("home,g", "end(0)", "First packet", show=False),
        bind("end,G", "end(1)", "Last packet, and follow the end", show=False),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.following = session.snapshot.live
        self._listing = session.listing
        self._late = 0  # messages that came last of all, with packets that are shown
        self._sought = 0  # the packet to stand at once the listing has come so far
        self._generation = 0  # of what the lines are made from
        self._shown: tuple[int, int, int] | None = None  # first place, count, generation
        self._lines: list[Line] = []
        self.restyle()

    # --- what is listed ----------------------------------------------------------------------

    def restyle(self) -> None:
        """Begin anew with the session's columns and notation."""
        self._formatter = self.session.formatter()
        self._columns = [COLUMNS[name] for name in self.session.columns]
        self._widths = [max(column.width, len(column.title)) for column in self._columns]
        self._generation += 1
        self.refresh()

    def relist(self, number: int) -> None:
        """Another listing: stand at this packet or where it would be."""
        self._generation += 1
        self._sought = number
        self.count = -1
        self.grow()

    def grow(self) -> None:
        """Take notice of packets that have come; what has not changed is not drawn again."""
        listing = self.session.listing
        count = len(listing)
        if listing is not self._listing:
            self._listing, self.count = listing, -1
        if self._late != self.session.capture.messages.late:
            self._late = self.session.capture.messages.late
            self._generation += 1
            self.refresh()
        if self._sought and (listing.done >= self._sought or listing.place(self._sought) < count):
            self.count, self.cursor, self._sought = count, listing.place(self._sought), 0
            self.session.current = 0
        elif count == self.count:
            return
        self.grow_to(count, sum(self._widths) + len(self._widths) + _LAST)
        if self.following:
            self.show(count - 1, near=True)
        elif not self.session.current:
            self.show(self.cursor)

    # --- moving ------------------------------------------------------------------------------

    def moved(self) -> None:
        """Tell which packet it is now."""
        number = int(self.session.listing.numbers(self.cursor, 1)[0])
        if number != self.session.current:
            self.session.current = number
            self.post_message(Picked(number))

    def action_move(self, by: int) -> None:
        """Some lines up or down."""
        self.following = False
        super().action_move(by)

    def action_end(self, last: int) -> None:
        """To the first packet, or to the last and on with the end as it moves."""
        self.following = bool(last) and not self.session.snapshot.ended
        super().action_end(last)

    def on_mouse_scroll_up(self) -> None:
        """Who looks back does not want to be taken to the end."""
        self.following = False

    @property
    def text(self) -> str:
        """The line under the cursor, "" where it is not on the screen."""
        at = self.cursor - round(self.scroll_y)
        line = self._lines[at] if 0 <= at < len(self._lines) else None
        return "" if line is None else "  ".join(filter(None, line.cells))

    # --- drawing -----------------------------------------------------------------------------

    def head(self) -> str:
        """The titles of the columns."""
        self._decode()
        return self._joined([column.title for column in self._columns])

    def row(self, place: int) -> Strip:
        """A packet."""
        at = place - round(self.scroll_y)
        if at >= len(self._lines):
            return Strip.blank(self.size.width, self.rich_style)
        line = self._lines[at]
        return self.line(self._joined(list(line.cells)), self._line_style(line, place))

    def _decode(self) -> None:
        """Have the lines that are on the screen."""
        first = round(self.scroll_y)
        count = max(min(self.size.height - 1, self.count - first), 0)
        shown = first, count, self._generation
        if shown == self._shown:
            return
        listing = self.session.listing
        numbers = listing.numbers(first, count)
        above = int(listing.numbers(first - 1, 1)[0]) if first else None
        try:
            self._lines = self._formatter.lines(numbers, above)
        except CaptureError as error:
            self._lines = []
            self.app.notify(str(error), severity="error", markup=False)
        self._shown = shown
        self._widen()

    def _widen(self) -> None:
        """Columns grow with what they hold, and never shrink: the rest would jump about."""
        for line in self._lines:
            for index, cell in enumerate(line.cells[:-1]):
                if len(cell) > self._widths[index]:
                    self._widths[index] = min(len(cell), self._columns[index].most)

    def _joined(self, cells: list[str]) -> str:
        parts = []
        for column, width, cell in zip(self._columns[:-1], self._widths, cells, strict=False):
            text = cell if len(cell) <= width else cell[: width - 1] + "…"
            parts.append(text.rjust(width) if column.right else text.ljust(width))
        return " ".join([*parts, cells[-1]])

    def _line_style(self, line: Line, place: int) -> Style:
        rule = colour_rule(line)
        style = self.rich_style + self.part(f"packets--{rule}") if rule else self.rich_style
        if line.number in self.session.marked or line.number in self.session.comments:
            style += self.part("packets--marked")
        return style + self.part("rows--cursor") if place == self.cursor else style


def _key(key: str, display: str, action: str, description: str, show: bool = False) -> Binding:
    return bind(key, action, description, show, display)


class PacketsPane(Pane):
    """The list, the tree of a packet and its bytes."""

    title = "Packets"
    DEFAULT_CSS = """
    PacketsPane > Horizontal { height: 1fr; border-top: solid $panel; }
    PacketsPane.-whole > Horizontal { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("enter", "details", "Details"),
        _key("right_square_bracket", "]", "next('finding', True)", "Next finding", True),
        _key("left_square_bracket", "[", "next('finding', False)", "Finding before"),
        _key("right_curly_bracket", "}", "next('conn', True)", "Next packet of the connection"),
        _key("left_curly_bracket", "{", "next('conn', False)", "The one before in the connection"),
        bind("o", "go_to", "Go to"),
        bind("c", "connection", "Only this connection", show=False),
        bind("e", "explain", "Explain the connection", show=False),
        bind("m", "mark", "Mark"),
        bind("t", "times", "Time format", show=False),
        bind("a", "names", "Addresses as names or numbers", show=False),
        bind("C", "comment", "Comment on the packet", show=False),
        bind("f", "find", "Find"),
        bind("n", "again(True)", "Next found", show=False),
        bind("N", "again(False)", "Found before", show=False),
        bind("i", "by_field", "Only packets with the field's value", show=False),
        bind("v", "wireshark", "What Wireshark says", show=False),
        bind("F", "follow", "Follow the end", show=False),
        bind("z", "whole", "List only, or list and packet", show=False),
    ]

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session, name)
        self._glance: Timer | None = None
        self._asked: tuple[int, Node] | None = None  # a packet, and what Wireshark says of it

    def compose(self) -> ComposeResult:
        """The list above; the tree and the bytes beside each other below."""
        self.list = PacketList(self.session)
        self.fields = DetailsTree()
        self.hex = HexView()
        self.finder = Search(self)
        yield self.list
        with Horizontal():
            yield self.fields
            yield self.hex

    # --- what the program tells the pane -----------------------------------------------------

    def draw(self) -> None:
        """More packets."""
        self.list.grow()

    def relisted(self) -> None:
        """Another filter."""
        self.list.relist(self.session.current)

    def chosen(self, number: int) -> None:
        """Show the packet once the cursor rests, or goes on with the end, now and then."""
        if not self.list.following:
            self.set_timer(_REST_S, lambda: self._look_at(number))
        elif self._glance is None:
            self._glance = self.set_timer(_GLANCE_S, self._look_at_current)

    def _look_at_current(self) -> None:
        self._glance = None
        self._look_at(self.session.current)

    def _look_at(self, number: int) -> None:
        if number != self.session.current:
            return
        try:
            batch = self.session.again.packet(number)
            self.session.conn = int(tracked(batch)["conn"][0]) or self.session.conn
            nodes = (*self._comments(number), *details(self.session.capture, batch))
            self.fields.show((*nodes, *self._opinion(number)))
            self.hex.show(packet_bytes(batch))
            self.finder.arrived()
        except CaptureError as error:
            self.app.notify(str(error), severity="error", markup=False)

    def _comments(self, number: int) -> Iterator[Node]:
        """What the user wrote of the packet."""
        if number in self.session.comments:
            yield Node("Your comment", on_line(self.session.comments[number]))

    def _opinion(self, number: int) -> Iterator[Node]:
        """What Wireshark says of the packet, where it was asked."""
        if self._asked is not None and self._asked[0] == number:
            yield self._asked[1]

    def go_to(self, number: int) -> None:
        """Show this packet, or the next that is listed."""
        self.list.following = False
        self.list.show(self.session.listing.place(number))

    def export(self, as_json: bool, going: Callable[[], bool]) -> Iterator[bytes]:
        """The packets listed, as packet lines or JSON."""
        session = self.session
        options = TextOptions(session.times, number=True, numeric=session.numeric, apps=True)
        write = json_lines().write if as_json else TextView(options).write
        return printed(session.capture, session.parts(marked=False), write, going)

    def copied(self, as_filter: bool) -> str:
        """Bytes, a field or a line, by where the focus is."""
        if self.hex.has_focus:
            data = self.hex.chosen
            return bytes_filter(data) if as_filter and data else data.hex(" ")
        if self.fields.has_focus:
            node = self.fields.cursor_node
            if node is None or node.data is None:
                return ""
            return field_filter(node.data) if as_filter else node.data.value or node.data.label
        if as_filter:
            conn = self._conn()
            return f"conn {conn}" if conn else f"frame.number == {self.session.current}"
        return self.list.text

    def commands(self) -> Iterator[Command]:
        """Every time format by its name."""
        for times, meaning in TIME_FORMATS.items():
            run = partial(self._set_times, times)
            yield Command(f"Time: {meaning}", "how the list shows times", run)
        for name, column in COLUMNS.items():
            shown = "hide" if name in self.session.columns else "show"
            run = partial(self._turn, name)
            yield Command(f"Column {column.title}: {shown}", "a column of the list", run)
        names = partial(self.action_names)
        yield Command("Addresses as names or numbers", "how the list shows addresses", names)

    # --- keys --------------------------------------------------------------------------------

    def action_details(self) -> None:
        """Into the tree of the packet."""
        self.remove_class("-whole")
        self.fields.focus()

    def action_whole(self) -> None:
        """The list alone, or with the packet."""
        self.toggle_class("-whole")
        self.list.focus()

    def action_follow(self) -> None:
        """Go along with the end, or stay."""
        self.list.following = not self.list.following
        self.list.grow()

    def action_mark(self) -> None:
        """Mark the packet, or take the mark away."""
        if self.session.current:
            self.session.mark(self.session.current)
            self.list.refresh()

    def action_comment(self) -> None:
        """Ask for a comment on the packet."""
        number = self.session.current
        if number:
            before = self.session.comments.get(number, "")
            prompt = Prompt(f"Comment on packet {number}, saved with it in pcapng", before)
            self.app.push_screen(prompt, partial(self._comment, number))

    def _comment(self, number: int, text: str | None) -> None:
        if text is not None:
            self.session.comment(number, text.strip())
            self.list.refresh()
            self._look_at(self.session.current)

    def action_wireshark(self) -> None:
        """Ask Wireshark's engine, in a thread, and show what it says below what we say."""
        number = self.session.current
        if number:
            self._answered(number, wireshark.ASKING)
            self._ask_wireshark(number)

    @work(thread=True, exclusive=True, group="wireshark")
    def _ask_wireshark(self, number: int) -> None:
        worker = get_current_worker()
        said = wireshark.says(self.session.capture, number)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._answered, number, said)

    def _answered(self, number: int, said: Node) -> None:
        self._asked = number, said
        if number == self.session.current:
            self._look_at(number)
            self.fields.select(said, at_top=True)

    def action_by_field(self) -> None:
        """List only packets with the field's value."""
        node = self.fields.cursor_node
        text = field_filter(node.data) if node is not None and node.data is not None else ""
        if text:
            self.post_message(FilterBy(text))
        else:
            self.app.notify("There is no filter for it.", severity="warning", timeout=2)

    def action_names(self) -> None:
        """Change how addresses are written."""
        self.session.numeric = not self.session.numeric
        self.list.restyle()

    def action_times(self) -> None:
        """The next time format."""
        formats = list(TIME_FORMATS)
        self._set_times(formats[(formats.index(self.session.times) + 1) % len(formats)])

    def _set_times(self, times: int) -> None:
        self.session.times = times
        self.list.restyle()
        self.app.notify(f"Time: {TIME_FORMATS[times]}", timeout=2)

    def _turn(self, name: str) -> None:
        """Show a column, in its usual place, or hide it; the last one stays."""
        shown = {*self.session.columns} ^ {name}
        if shown:
            self.session.columns = tuple(column for column in COLUMNS if column in shown)
            self.list.restyle()

    def action_connection(self) -> None:
        """List only the packet's connection."""
        conn = self._conn()
        if conn:
            self.post_message(FilterBy(f"conn {conn}"))

    def action_explain(self) -> None:
        """The story of the packet's connection."""
        self.session.conn = self._conn() or self.session.conn
        self.post_message(OpenPane("story"))

    def _conn(self) -> int:
        if not self.session.current:
            return 0
        batch = self.session.again.packet(self.session.current)
        assert batch.tracked is not None
        return int(batch.tracked["conn"][0])

    def action_go_to(self) -> None:
        """Ask where to go."""
        self.app.push_screen(Prompt("Packet number, +SECONDS or HH:MM:SS"), self._go_to_text)

    def _go_to_text(self, text: str | None) -> None:
        if not text:
            return
        try:
            place = place_of(text, self.session.listing, self.session.again)
        except GotoError as error:
            self.app.notify(str(error), severity="warning", markup=False)
        else:
            self.list.following = False
            self.list.show(place)

    def action_next(self, what: str, forward: bool) -> None:
        """The next packet with a finding, or of the same connection."""
        text = _FINDING if what == "finding" else f"conn {self._conn()}"
        wanted, capture, place = Filter.of(text), self.session.capture, self.list.cursor
        self.search(lambda listing, going: find(capture, listing, wanted, place, forward, going))

    def action_find(self) -> None:
        """Ask what to search for, in what has the focus."""
        self.finder.ask()

    def action_again(self, forward: bool) -> None:
        """The next place of what is searched for, or the one before."""
        self.finder.next(forward)

    @work(thread=True, exclusive=True, group="search")
    def search(self, look: Callable[[Listing, Callable[[], bool]], int | None]) -> None:
        """Go to the place that `look` gives, in a thread; a later search ends it."""
        worker = get_current_worker()
        listing = self.session.listing
        try:
            place = look(listing, lambda: not worker.is_cancelled)
        except CaptureError as error:
            self.app.call_from_thread(self.app.notify, str(error), severity="error", markup=False)
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._found, listing, place)

    def _found(self, listing: Any, place: int | None) -> None:
        if listing is not self.session.listing:
            return
        if place is None:
            self.app.notify("No such packet further on.", severity="warning", timeout=2)
            return
        self.list.following = False
        self.list.show(place)

    # --- the tree and the bytes, linked both ways --------------------------------------------

    def on_details_tree_field(self, message: DetailsTree.Field) -> None:
        """Show where the field stands."""
        self.hex.highlight(message.node.start, message.node.size)

    def on_hex_view_byte(self, message: HexView.Byte) -> None:
        """Show which field the byte is of."""
        node = self.fields.select_byte(message.at)
        if node is not None:
            self.hex.highlight(node.start, node.size, move=False)
