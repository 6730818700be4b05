"""The keys that work where the focus is."""

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import ActiveBinding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from vsockdump.tui.keys import bind


class Help(ModalScreen[None]):
    """Lists bindings, those of the innermost widget first."""

    DEFAULT_CSS = """
    Help { align: center middle; background: $background 60%; }
    Help > VerticalScroll { width: 64; max-width: 90%; height: auto; max-height: 90%;
        border: round $primary; padding: 0 1; background: $surface; }
    Help Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("escape,question_mark,q", "dismiss(None)", "Back"),
        bind("j", "scroll(1)", "Down", show=False),
        bind("k", "scroll(-1)", "Up", show=False),
    ]

    def __init__(self, bindings: list[ActiveBinding], title: str) -> None:
        super().__init__()
        self._bindings_shown = bindings
        self._title = title

    def compose(self) -> ComposeResult:
        """A table in a box."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        keys: dict[str, list[str]] = {}
        for active in self._bindings_shown:
            binding = active.binding
            if binding.description:
                key = self.app.get_key_display(binding)
                keys.setdefault(binding.description, []).append(key)
        for description, names in keys.items():
            table.add_row(Text(" ".join(dict.fromkeys(names)), "bold"), Text(description))
        with VerticalScroll() as box:
            box.border_title = self._title
            yield Static(table)

    def action_scroll(self, by: int) -> None:
        """A line up or down."""
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)
