"""Pane of statistics: the rate over time, endpoints, and calls with how long they took.

All of it is of all traffic, whatever the filter lists.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import ContentSwitcher, Static

from vsockdump.output.rpc import COLUMNS as RPC_COLUMNS
from vsockdump.output.statistics import ENDPOINT_COLUMNS, Endpoints
from vsockdump.output.tables import Table, span
from vsockdump.tui.keys import bind
from vsockdump.tui.model import exports
from vsockdump.tui.model.rates import KINDS, Graph, amount, bars, columns
from vsockdump.tui.pane import FilterBy, OpenPane
from vsockdump.tui.refreshed import RefreshedPane
from vsockdump.tui.session import Session
from vsockdump.tui.table import Row, TableView

_SHOWN: Final = (0, 1)  # of KINDS: what the two graphs show
_BOTH: Final = 5  # lines that both need
_LABEL: Final = 8  # characters of the scale
_NO_CALLS: Final = Table("application protocols are not decoded (--decode none)", (), ())
_TABLES: Final = ("endpoints", "rpc")


class _Made(NamedTuple):
    graph: Graph
    outside: int
    endpoints: Table
    calls: Table


class RateView(Static):
    """Two graphs over the whole time, one above the other."""

    DEFAULT_CSS = """
    RateView { height: 2fr; min-height: 3; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.graph: Graph | None = None
        self.outside = 0

    def show(self, graph: Graph, outside: int) -> None:
        """Another graph."""
        self.graph, self.outside = graph, outside
        self.on_resize()

    def on_resize(self) -> None:
        """As much of it as there is room."""
        if self.graph is not None:
            self.update(self._drawn(self.graph), layout=False)

    def _drawn(self, graph: Graph) -> Text:
        width = max(self.content_size.width - _LABEL - 1, 1)
        kinds = _SHOWN if self.content_size.height >= _BOTH else _SHOWN[:1]
        height = max((self.content_size.height - 1) // len(kinds) - 1, 1)
        text = Text(no_wrap=True, overflow="crop")
        for kind, style in zip(kinds, ("cyan", "green"), strict=False):
            rates = columns(graph.counts[kind], graph.slot_ns, width)
            top = max(rates, default=0.0)
            text.append(f"{KINDS[kind]}/s, at most {amount(top)}\n", "bold")
            for line, drawn in enumerate(bars(rates, height)):
                text.append(f"{amount(top) if not line else '':>{_LABEL}}│", "dim")
                text.append(f"{drawn}\n", style)
        text.append(f"{'':>{_LABEL}}└ 0 to {span(graph.length_ns)} since the first packet", "dim")
        if self.outside:
            text.append(f"; {self.outside} packets lie before it", "dim")
        return text


class StatisticsPane(RefreshedPane):
    """The graph, and beneath it one of the tables."""

    title = "Statistics"
    DEFAULT_CSS = """
    StatisticsPane > ContentSwitcher { height: 3fr; }
    StatisticsPane > #table-title { height: 1; padding: 0 1; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("space", "other", "Endpoints or calls"),
    ]

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session, name)
        self._made: _Made | None = None

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        self.rates = RateView()
        self.heading = Static(id="table-title", markup=False)
        self.tables = {
            "endpoints": TableView(ENDPOINT_COLUMNS, id="endpoints"),
            "rpc": TableView(RPC_COLUMNS, id="rpc"),
        }
        yield self.rates
        yield self.heading
        self.switcher = ContentSwitcher(initial="endpoints")
        with self.switcher:
            yield from self.tables.values()

    def make(self) -> _Made:
        """All of it, as of now."""
        capture, numeric = self.session.capture, self.session.numeric
        endpoints = Endpoints(capture.picture()).table(numeric)
        with capture.frozen():
            counting = capture.counting
            calls = _NO_CALLS if counting.rpc is None else counting.rpc.table()
            return _Made(counting.rates.graph(), counting.rates.outside, endpoints, calls)

    def put(self, made: _Made) -> None:
        """Show it."""
        self._made = made
        self.rates.show(made.graph, made.outside)
        for name, table in zip(_TABLES, (made.endpoints, made.calls), strict=True):
            self.tables[name].fill([_row(row) for row in table.rows])
        self._entitle()

    def export(self, as_json: bool, going: Callable[[], bool]) -> Iterator[bytes]:
        """-z endpoints, -z rpc, and the rates."""
        for line in exports.statistics(self.session.capture, as_json, self.session.numeric):
            yield f"{line}\n".encode()

    def copied(self, as_filter: bool) -> str:
        """The row, or a filter for an endpoint or a method."""
        name = str(self.switcher.current)
        row = self.tables[name].chosen
        if row is None:
            return ""
        return filter_of(name, row.cells) if as_filter else "  ".join(row.cells)

    def on_table_view_entered(self, message: TableView.Entered) -> None:
        """List the packets of the endpoint or method."""
        text = filter_of(str(message.table.id), message.row.cells)
        if text:
            self.post_message(FilterBy(text))
            self.post_message(OpenPane("packets"))

    def _entitle(self) -> None:
        if self._made is not None:
            shown = (
                self._made.endpoints if self.switcher.current == "endpoints" else self._made.calls
            )
            title = Text.assemble(shown.title, ("  of all traffic", "dim"), no_wrap=True)
            for note in shown.notes:
                title.append(f"  {note}", "dim")
            self.heading.update(title)

    def action_other(self) -> None:
        """The other table."""
        at = _TABLES.index(str(self.switcher.current))
        self.switcher.current = name = _TABLES[1 - at]
        self.tables[name].focus()
        self._entitle()


def _row(cells: Sequence[str]) -> Row:
    """A row of a table, known by what it is of: its texts before the numbers."""
    return Row(tuple(cells[:2]) if not cells[1].isdigit() else cells[0], tuple(cells))


def filter_of(table: str, cells: Sequence[str]) -> str:
    """The filter for the packets of an endpoint, or of the calls of a method."""
    if table == "endpoints":
        return cells[0]
    protocol, method = cells[:2]
    if not protocol:  # (other methods)
        return ""
    begin = method.partition("…")[0]
    if begin == "?" or "\\" in begin:  # not as it was sent
        return f"proto {protocol}"
    return f"proto {protocol} and vsock.app.method contains {json.dumps(begin)}"
