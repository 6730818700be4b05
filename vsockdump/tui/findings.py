"""Pane of the findings: what is wrong, the worst first, with its explanation beside it."""

from collections.abc import Callable, Iterator
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from vsockdump.findings.collector import Group
from vsockdump.findings.rule import explanation
from vsockdump.output.findings import Ends, ends_of
from vsockdump.output.tables import ColumnSpec
from vsockdump.tui.keys import bind
from vsockdump.tui.model import exports
from vsockdump.tui.model.findings import FindingLine, filter_of, finding_lines, first_packet
from vsockdump.tui.pane import FilterBy, GoTo, OpenPane
from vsockdump.tui.refreshed import RefreshedPane
from vsockdump.tui.session import Session
from vsockdump.tui.table import Row, TableView

_COLUMNS: Final = (
    ColumnSpec("times"),
    ColumnSpec("severity", False),
    ColumnSpec("conn"),
    ColumnSpec("packet"),
    ColumnSpec("finding", False),
)
_WIDE: Final = 110  # columns from which on there is room beside the list

_Made = tuple[list[Group], Ends]


class FindingsPane(RefreshedPane):
    """The list of findings; beside it, or below where there is little room, what they mean."""

    title = "Findings"
    DEFAULT_CSS = """
    FindingsPane > Container { height: 1fr; layout: vertical; }
    FindingsPane #finding { height: 1fr; max-height: 12; border-top: solid $panel; padding: 0 1; }
    FindingsPane.-wide > Container { layout: horizontal; }
    FindingsPane.-wide #finding { width: 44; height: 1fr; max-height: 100%; border-top: none;
        border-left: solid $panel; }
    FindingsPane TableView { width: 1fr; }
    FindingsPane #finding > Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("space", "open", "Cases"),
        bind("c", "list", "List its packets"),
        bind("e", "explain", "Explain the connection", show=False),
    ]

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session, name)
        self._made: _Made = ([], {})
        self._opened: set[int] = set()  # kinds of the rules whose cases are listed

    def compose(self) -> ComposeResult:
        """The list and the explanation."""
        self.table = TableView(_COLUMNS)
        self.text = Static(markup=False)
        with Container():
            yield self.table
            with VerticalScroll(id="finding"):
                yield self.text

    def on_resize(self) -> None:
        """Beside each other where there is room."""
        self.set_class(self.size.width >= _WIDE, "-wide")

    # --- what is shown -----------------------------------------------------------------------

    def make(self) -> _Made:
        """The findings as they are now."""
        return findings_of(self.session)

    def put(self, made: _Made) -> None:
        """Show them."""
        self._made = made
        lines = finding_lines(*made, self._opened)
        self.table.fill([_row(line) for line in lines])
        if not lines:
            self.text.update(Text("Nothing was found.", "dim"))

    def on_table_view_moved(self, message: TableView.Moved) -> None:
        """Explain the finding."""
        self.text.update(_explained(_line(message.row)))

    def export(self, as_json: bool, going: Callable[[], bool]) -> Iterator[bytes]:
        """-z findings."""
        for line in exports.findings(self.session.capture, as_json, self.session.numeric):
            yield f"{line}\n".encode()

    def copied(self, as_filter: bool) -> str:
        """The sentence, or a filter for the packets."""
        if self.table.chosen is None:
            return ""
        line = _line(self.table.chosen)
        return filter_of(line) if as_filter else line.text

    # --- keys --------------------------------------------------------------------------------

    def on_table_view_entered(self, message: TableView.Entered) -> None:
        """To the packet of the case, or of the first case of the rule."""
        line = _line(message.row)
        packet = line.packet if line.is_case else first_packet(self._made[0], line.rule)
        if packet:
            self.post_message(GoTo(packet))
        else:
            self.app.notify("It is of no packet.", severity="warning", timeout=2)

    def action_open(self) -> None:
        """List the cases of the rule, or no longer."""
        if self.table.chosen is not None:
            self._opened ^= {int(_line(self.table.chosen).rule.kind)}
            self.put(self._made)

    def action_list(self) -> None:
        """List the packets that have the finding, or those of the case's connection."""
        if self.table.chosen is None:
            return
        self.post_message(FilterBy(filter_of(_line(self.table.chosen))))
        self.post_message(OpenPane("packets"))

    def action_explain(self) -> None:
        """The story of the case's connection."""
        if self.table.chosen is not None:
            line = _line(self.table.chosen)
            cases = (
                case for group in self._made[0] if group.rule is line.rule for case in group.cases
            )
            first = next((case.event.conn for case in cases if case.event.conn), 0)
            self.session.conn = line.conn or first or self.session.conn
            self.post_message(OpenPane("story"))


def findings_of(session: Session) -> _Made:
    """The groups, and the ends of the connections in them."""
    groups = session.capture.findings()
    picture = session.capture.picture()
    return groups, ends_of(picture, (case for group in groups for case in group.cases))


def _row(line: FindingLine) -> Row:
    word = line.rule.severity.word
    key = int(line.rule.kind), line.is_case, line.conn
    cells = (
        str(line.times),
        "" if line.is_case else word,
        str(line.conn or ""),
        str(line.packet or ""),
        f"{'  ' if line.is_case else ''}{line.text}",
    )
    return Row(key, cells, "" if line.is_case else word, line)


def _line(row: Row) -> FindingLine:
    assert isinstance(row.data, FindingLine)
    return row.data


def _explained(line: FindingLine) -> Text:
    rule = line.rule
    text = Text.assemble((f"{rule.name} ({rule.severity.word})\n", "bold"))
    if line.is_case:
        text.append(f"{line.text}\n")
    for label, said in explanation(rule):
        text.append(f"\n{label}\n", "dim")
        text.append(f"{said}\n")
    return text
