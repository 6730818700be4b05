"""The credit of a connection over time, one direction: the picture that explains a stall.

Rules for editors: what is drawn is read from model/credit.py for the time that is in sight;
nothing here holds samples.  No plotting library: those for terminals draw points that they
are given, and would have to be given all of them.
"""

from collections.abc import Callable, Iterator
from typing import ClassVar, Final, NamedTuple

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from vsockdump.amounts import counted, span
from vsockdump.batch import NO_TIME
from vsockdump.output.statistics import SIDES
from vsockdump.output.tables import seconds
from vsockdump.tui.connection_pane import NO_CONNECTION, ConnectionPane
from vsockdump.tui.keys import bind
from vsockdump.tui.model import exports
from vsockdump.tui.model.connections import amount
from vsockdump.tui.model.credit import Trace
from vsockdump.tui.model.plot import ACROSS, Cell, Curves, Ink, curves, plot
from vsockdump.tui.pane import GoTo, OpenPane
from vsockdump.tui.session import Session

_LABEL: Final = 7  # characters left of the plot
_BELOW: Final = 3  # rows: stalls, updates, times
_SHORTEST_NS: Final = 1000  # of what can be in sight
_MARKS: Final = ("▀", "▴")


class View(NamedTuple):
    """The time in sight."""

    first_ns: int
    last_ns: int

    @property
    def span(self) -> int:
        """Its length."""
        return self.last_ns - self.first_ns


class CreditPlot(Widget, can_focus=True):
    """The plot of one direction of a trace, with a cursor that stands on a sample.

    `view` None: all of it.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"credit--{ink}" for ink in Ink),
        "credit--stall",
        "credit--cursor",
        "credit--label",
    }
    DEFAULT_CSS = """
    CreditPlot { height: 1fr; }
    CreditPlot > .credit--flight { color: $primary; }
    CreditPlot > .credit--window { color: $text-success; }
    CreditPlot > .credit--both { color: $text-warning; }
    CreditPlot > .credit--stall { background: $error-muted; }
    CreditPlot > .credit--cursor { background: $block-cursor-background;
        color: $block-cursor-foreground; }
    CreditPlot > .credit--label { color: $text-muted; }
    """

    class Moved(Message):
        """The cursor stands elsewhere, or what it stands on has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.trace: Trace | None = None
        self.side = 0
        self.view: View | None = None
        self.place = 0  # of the sample that the cursor is on
        self.first_ns = 0  # of the capture, from which times count
        self._count = -1
        self._drawn: tuple[object, Curves, list[list[Cell]]] | None = None

    def show(self, trace: Trace | None, side: int, first_ns: int) -> None:
        """Another connection or direction."""
        self.trace, self.side, self.first_ns = trace, side, first_ns
        self.view, self.place, self._count = None, 0, -1
        self.grow()

    def grow(self) -> None:
        """Take notice of packets that have come."""
        count = len(self.trace.series[self.side]) if self.trace else 0
        if count != self._count:
            self._count = count
            self.refresh()
            self.post_message(self.Moved())

    @property
    def whole(self) -> View | None:
        """All the time there is."""
        if self.trace is None or not len(self.trace.series[self.side]):
            return None
        series = self.trace.series[self.side]
        first, last = (int(series.sample(at)["time_ns"]) for at in (0, len(series) - 1))
        return View(first, max(last, first + _SHORTEST_NS))

    @property
    def sample(self) -> np.void | None:
        """What the cursor stands on."""
        if self.trace is None or self.place >= len(self.trace.series[self.side]):
            return None
        return self.trace.series[self.side].sample(self.place)

    @property
    def columns(self) -> int:
        """Characters of the plot from left to right."""
        return max(self.size.width - _LABEL - 1, 8)

    # --- moving ------------------------------------------------------------------------------

    def stand(self, place: int) -> None:
        """Set the cursor on a sample, and let it be seen."""
        if self.trace is None or not self._count:
            return
        self.place = max(min(place, len(self.trace.series[self.side]) - 1), 0)
        sample = self.sample
        assert sample is not None
        time = int(sample["time_ns"])
        if self.view is not None and not self.view.first_ns <= time <= self.view.last_ns:
            self._look(time - self.view.span // 2, self.view.span)
        self.refresh()
        self.post_message(self.Moved())

    def step(self, by: int) -> None:
        """To the next sample that stands in another column."""
        whole = self.view or self.whole
        if whole is None or self.trace is None or self.sample is None:
            return
        column = self._column(int(self.sample["time_ns"]), whole)
        edge = whole.first_ns + whole.span * (column + (by if by > 0 else by + 1)) // self.columns
        place = self.trace.series[self.side].place(edge)
        self.stand(max(place, self.place + 1) if by > 0 else min(place - 1, self.place - 1))

    def zoom(self, factor: float) -> None:
        """See more or less time, around the cursor."""
        view, sample = self.view or self.whole, self.sample
        if view is None or sample is None:
            return
        time = int(sample["time_ns"])
        size = max(int(view.span * factor), _SHORTEST_NS)
        self._look(time - int((time - view.first_ns) * size / view.span), size)

    def pan(self, part: float) -> None:
        """See what is earlier or later."""
        view = self.view or self.whole
        if view is not None:
            self._look(view.first_ns + int(view.span * part), view.span)

    def _look(self, first_ns: int, size: int) -> None:
        """Have this time in sight, as far as there is any."""
        whole = self.whole
        assert whole is not None
        if size >= whole.span:
            self.view = None
        else:
            first = max(min(first_ns, whole.last_ns - size), whole.first_ns)
            self.view = View(first, first + size)
        self.refresh()

    def _column(self, time_ns: int, view: View) -> int:
        return min((time_ns - view.first_ns) * self.columns // max(view.span, 1), self.columns - 1)

    def on_click(self, event: events.Click) -> None:
        """The cursor goes to the time under the mouse."""
        view = self.view or self.whole
        if view is None or self.trace is None or event.x < _LABEL:
            return
        time = view.first_ns + view.span * (event.x - _LABEL) // self.columns
        self.stand(self.trace.series[self.side].place(time))

    def on_mouse_scroll_up(self) -> None:
        """Closer."""
        self.zoom(0.5)

    def on_mouse_scroll_down(self) -> None:
        """Further away."""
        self.zoom(2)

    # --- drawing -----------------------------------------------------------------------------

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """All there is."""
        return container.height

    def render_line(self, y: int) -> Strip:
        """A row of the plot, or of what stands below it."""
        width, view = self.size.width, self.view or self.whole
        if view is None or self.trace is None:
            text = " Nothing is known of this direction's credit (yet)." if y == 1 else ""
            return Strip([Segment(text, self.rich_style)]).extend_cell_length(width)
        shown, cells = self._plotted(view)
        rows = len(cells)
        if y < rows:
            label = self._scale(y, rows, shown.top)
            parts = [(cell.character, self._ink(cell.ink)) for cell in cells[y]]
        else:
            label, parts = self._below(y - rows, view, shown)
        return self._strip(label, parts, view, shown, y < rows)

    def _plotted(self, view: View) -> tuple[Curves, list[list[Cell]]]:
        """What is in sight, made once a change."""
        assert self.trace is not None
        rows = max(self.size.height - _BELOW, 1)
        key = (self.trace, self.side, view, self._count, rows, self.columns)
        if self._drawn is None or self._drawn[0] != key:
            series = self.trace.series[self.side]
            samples = series.between(view.first_ns, view.last_ns, 4 * ACROSS * self.columns)
            stalls = self.trace.stalls_between(self.side, view.first_ns, view.last_ns)
            shown = curves(samples, stalls, view.first_ns, view.last_ns, self.columns)
            self._drawn = key, shown, plot(shown, rows)
        return self._drawn[1:]

    def _scale(self, y: int, rows: int, top: int) -> str:
        """The value of a row, beside every fourth and the first and last."""
        if y == rows - 1:
            return "0"
        return amount(top * (rows - y) / rows) if y % 4 == 0 else ""

    def _below(self, row: int, view: View, shown: Curves) -> tuple[str, list[tuple[str, Style]]]:
        plain, muted = self.rich_style, self.part("label")
        if row == 0:
            return "stalls", [(_MARKS[0] if one else " ", plain) for one in shown.stalled]
        if row == 1:
            return "grants", [(_MARKS[1] if one else " ", plain) for one in shown.updates]
        first, last = (f"{seconds(time - self.first_ns)} s" for time in view)
        middle = span(view.span).center(self.columns - len(first) - len(last))
        return "", [(character, muted) for character in f"{first}{middle}{last}"]

    def _strip(
        self,
        label: str,
        parts: list[tuple[str, Style]],
        view: View,
        shown: Curves,
        in_plot: bool,
    ) -> Strip:
        segments = [Segment(f"{label:>{_LABEL - 1}} ", self.part("label"))]
        cursor = -1
        if in_plot and self.sample is not None:
            time = int(self.sample["time_ns"])
            if view.first_ns <= time <= view.last_ns:
                cursor = self._column(time, view)
        for column, (character, style) in enumerate(parts):
            if in_plot and shown.stalled[column]:
                style += self.part("stall", partial=True)
            if column == cursor:
                style += self.part("cursor")
            segments.append(Segment(character, style))
        return Strip(segments).simplify().extend_cell_length(self.size.width, self.rich_style)

    def _ink(self, ink: Ink) -> Style:
        return self.part(ink)

    def part(self, name: str, partial: bool = False) -> Style:
        """The style of a component; partial: only what it sets itself."""
        return self.get_component_rich_style(f"credit--{name}", partial=partial)


class CreditPane(ConnectionPane):
    """Two lines of words above the plot."""

    title = "Credit"
    DEFAULT_CSS = """
    CreditPane > Static { height: 2; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("enter", "packet", "Packet"),
        bind("d", "direction", "Direction"),
        bind("plus,equals_sign,up,k", "zoom(0.5)", "Zoom in", display="+"),
        bind("minus,down,j", "zoom(2)", "Zoom out", show=False, display="-"),
        bind("0", "all", "All of it", show=False),
        bind("left,h", "step(-1)", "Left", show=False),
        bind("right,l", "step(1)", "Right", show=False),
        bind("shift+left,H", "pan(-0.5)", "Half a screen earlier", show=False),
        bind("shift+right,L", "pan(0.5)", "Half a screen later", show=False),
        bind("comma", "sample(-1)", "The packet before", show=False),
        bind("full_stop", "sample(1)", "The next packet", show=False),
        bind("home,g", "end(0)", "The first packet", show=False),
        bind("end,G", "end(1)", "The last packet", show=False),
        bind("n", "stall(True)", "Next stall"),
        bind("N", "stall(False)", "The stall before", show=False),
        bind("u", "update(True)", "Next update", show=False),
        bind("U", "update(False)", "The update before", show=False),
        bind("f", "follow", "Follow the conversation", show=False),
    ]

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session, name)
        self._trace: Trace | None = None
        self._said = ""

    def compose(self) -> ComposeResult:
        """Words, plot."""
        self.words = Static(markup=False)
        self.plot = CreditPlot()
        yield self.words
        yield self.plot

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        if self._trace is not None:
            self._trace.close()

    # --- what the program tells the pane -----------------------------------------------------

    def draw(self) -> None:
        """Another connection, or more packets of this one."""
        conn = self.session.conn
        if conn and (self._trace is None or self._trace.conn != conn):
            self._begin(conn)
        self.plot.grow()
        self._say()

    def _begin(self, conn: int) -> None:
        if self._trace is not None:
            self._trace.close()
        capture = self.session.capture
        self._trace = Trace(capture, conn)
        entry = capture.connection(conn)
        side = int(entry is not None and entry[2].bytes > entry[1].bytes)  # who sent more
        with capture.frozen() as tracker:
            first_ns = tracker.first_ns
        self.plot.show(self._trace, side, 0 if first_ns == NO_TIME else first_ns)

    def on_credit_plot_moved(self) -> None:
        """Say what the cursor stands on."""
        self._say()

    def _say(self) -> None:
        text = f"{self._title()}\n{self._reading()}"
        if text != self._said:
            self._said = text
            self.words.update(text)

    def _title(self) -> str:
        if self._trace is None:
            return NO_CONNECTION
        if self._trace.trouble:
            return self._trace.trouble
        side = self.plot.side
        pair, stalls = self.ends_of(self._trace.conn), self._trace.stalls[side].count
        return (
            f"#{self._trace.conn} {pair[side]} > {pair[1 - side]}: what the {SIDES[side]} sends,"
            f" {counted(stalls, 'stall')}"
        )

    def _reading(self) -> str:
        """What the cursor reads."""
        sample = self.plot.sample
        if sample is None:
            return ""
        at = seconds(int(sample["time_ns"]) - self.plot.first_ns)
        update = ", update" if sample["updates"] else ""
        return (
            f"packet {sample['packet']} at {at} s: {sample['flight']} in flight of"
            f" {sample['window']}, {sample['free']} free{update}"
        )

    def export(self, as_json: bool, going: Callable[[], bool]) -> Iterator[bytes]:
        """-z credit of the connection."""
        session = self.session
        for line in exports.credit(session.capture, session.conn, as_json, session.numeric):
            yield f"{line}\n".encode()

    # --- keys --------------------------------------------------------------------------------

    def action_packet(self) -> None:
        """To the packet in the list."""
        if self.plot.sample is not None:
            self.post_message(GoTo(int(self.plot.sample["packet"])))

    def action_direction(self) -> None:
        """What the other side sends."""
        self.plot.show(self._trace, 1 - self.plot.side, self.plot.first_ns)

    def action_zoom(self, factor: float) -> None:
        """Closer or further away."""
        self.plot.zoom(factor)

    def action_all(self) -> None:
        """All of it."""
        self.plot.view = None
        self.plot.refresh()

    def action_step(self, by: int) -> None:
        """A column left or right."""
        self.plot.step(by)

    def action_pan(self, part: float) -> None:
        """Another time in sight."""
        self.plot.pan(part)

    def action_sample(self, by: int) -> None:
        """A packet left or right."""
        self.plot.stand(self.plot.place + by)

    def action_end(self, last: int) -> None:
        """To the first or last packet."""
        if self._trace is not None:
            self.plot.stand(len(self._trace.series[self.plot.side]) - 1 if last else 0)

    def action_stall(self, forward: bool) -> None:
        """To where the next stall begins."""
        sample = self.plot.sample
        if self._trace is None or sample is None:
            return
        stalls, now = self._trace.stalls[self.plot.side], int(sample["time_ns"])
        at = stalls.bisect("start_ns", now + 1 if forward else now) - (0 if forward else 1)
        if not 0 <= at < stalls.count:
            self.app.notify("No such stall further on.", severity="warning", timeout=2)
            return
        time = int(stalls.read(at, 1)["start_ns"][0])
        self.plot.stand(self._trace.series[self.plot.side].place(time))

    def action_update(self, forward: bool) -> None:
        """To the receiver's next CREDIT_UPDATE."""
        if self._trace is None:
            return
        place = self._trace.series[self.plot.side].next_update(self.plot.place, forward)
        if place is None:
            self.app.notify("No such update further on.", severity="warning", timeout=2)
        else:
            self.plot.stand(place)

    def action_follow(self) -> None:
        """What was said."""
        self.post_message(OpenPane("follow"))
