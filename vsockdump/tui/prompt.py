"""A question of one line, at the bottom of the screen."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.markup import escape
from textual.screen import ModalScreen
from textual.widgets import Input

from vsockdump.tui.keys import bind


class Prompt(ModalScreen[str | None]):
    """Asks for a line; gives it, or None where the user turned away."""

    DEFAULT_CSS = """
    Prompt { align: center bottom; background: $background 40%; }
    Prompt > Input { width: 100%; height: 3; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [bind("escape", "dismiss(None)", "Back")]

    def __init__(self, question: str, value: str = "") -> None:
        super().__init__()
        self._question = question
        self._value = value

    def compose(self) -> ComposeResult:
        """The line."""
        entry = Input(self._value, placeholder=self._question)
        entry.border_title = escape(self._question)
        yield entry

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """The answer."""
        self.dismiss(event.value)
