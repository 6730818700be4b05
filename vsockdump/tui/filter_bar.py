"""The line in which the filter is typed: checked with every key, with words to complete.

Under it stands what is wrong, with a caret under the place, or else the words that may follow.
"""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Static

from vsockdump.filters.errors import FilterError
from vsockdump.filters.filter import Filter
from vsockdump.tui.keys import bind
from vsockdump.tui.model.completion import Completion, check, complete
from vsockdump.tui.model.history import History


class _Entry(Input):
    """The line itself; what its keys do is the bar's matter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        bind("tab", "screen.complete_filter", "Complete"),
        bind("up", "screen.filter_before(-1)", "Filter before", show=False),
        bind("down", "screen.filter_before(1)", "Filter after", show=False),
        bind("escape", "screen.leave_filter", "Back"),
    ]


class FilterBar(Vertical):
    """Posts Entered with a filter, or None for all packets; Left when the user turned away."""

    DEFAULT_CSS = """
    FilterBar { height: auto; }
    FilterBar > _Entry { border: none; height: 1; padding: 0 1; background: $surface; }
    FilterBar > _Entry:focus { background: $panel; border: none; }
    FilterBar > _Entry.-wrong { color: $text-error; }
    FilterBar > #hint { height: auto; max-height: 2; padding: 0 1; display: none; }
    """

    class Entered(Message):
        """What is wanted from now on."""

        def __init__(self, filter: Filter | None) -> None:
            super().__init__()
            self.filter = filter

    class Left(Message):
        """The user went back to the packets."""

    def __init__(self, text: str = "", history: History | None = None) -> None:
        super().__init__()
        self._applied = text
        self._history = history or History()
        self._at = 0  # in the history, counted from its end; 0: what is being typed
        self._completion = Completion(0, ())

    def compose(self) -> ComposeResult:
        """The line, and the hint under it."""
        self.entry = _Entry(self._applied, placeholder="/ filter, such as: port 1024 and op rw")
        self.hint = Static(id="hint", markup=False)
        yield self.entry
        yield self.hint

    # --- while typing ------------------------------------------------------------------------

    def on_descendant_focus(self) -> None:
        """Somebody is about to type."""
        self.hint.display = True
        self.on_input_changed()

    def on_descendant_blur(self) -> None:
        """Nobody types any more."""
        self.hint.display = False

    def on_input_changed(self) -> None:
        """Check it, and look what may follow."""
        checked = check(self.entry.value)
        self.entry.set_class(checked.error is not None, "-wrong")
        self._completion = complete(self.entry.value, self.entry.cursor_position)
        ends_word = not self.entry.value or self.entry.value.endswith(" ")
        if checked.error is not None and (not self._completion.candidates or ends_word):
            self.hint.update(self._caret(checked.error))
        else:
            self.hint.update(Text("  ".join(self._completion.candidates), "dim", no_wrap=True))

    def _caret(self, error: FilterError) -> Text:
        """A mark under what is wrong, as far as the line shows it, and what is wrong."""
        at = error.at - round(self.entry.scroll_x)
        caret = " " * max(at, 0) + "^" * error.size
        return Text.assemble(caret, "\n", error.sentence, no_wrap=True, overflow="ellipsis")

    def complete(self) -> None:
        """Take what all candidates have in common, or the first one."""
        start, candidates = self._completion
        if not candidates:
            return
        end = self.entry.cursor_position
        text = _common(candidates)
        if len(text) <= end - start:
            text = candidates[0]
        if len(candidates) == 1 or text == candidates[0]:
            text += " "
        self.entry.value = self.entry.value[:start] + text + self.entry.value[end:]
        self.entry.cursor_position = start + len(text)

    def older(self, by: int) -> None:
        """Another filter of the history: -1 the one before, 1 the one after."""
        at = self._at - by
        filters = self._history.filters
        if 0 <= at <= len(filters):
            self._at = at
            self.entry.value = filters[-at] if at else ""
            self.entry.cursor_position = len(self.entry.value)

    # --- done --------------------------------------------------------------------------------

    def on_input_submitted(self) -> None:
        """Use it, if it is a filter."""
        checked = check(self.entry.value)
        if checked.error is not None:
            self.hint.update(self._caret(checked.error))
            return
        self.put(self.entry.value)
        self.post_message(self.Entered(checked.filter))
        self.post_message(self.Left())

    def put(self, text: str) -> None:
        """Show this filter as the one in use."""
        self._applied = self.entry.value = text
        self._at = 0
        try:
            self._history.add(text)
        except OSError as error:
            self._history.path = None  # said once
            said = f"Filters are not kept for the next time: {error.strerror}."
            self.app.notify(said, severity="warning", markup=False)

    def leave(self) -> None:
        """Back to the filter in use."""
        self.entry.value = self._applied
        self.post_message(self.Left())


def _common(words: tuple[str, ...]) -> str:
    """What the words begin with."""
    first, last = min(words), max(words)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first if length is None else first[:length]
