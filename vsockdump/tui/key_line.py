"""The line at the bottom: the main keys that work where the focus is; each can be clicked.

Not Textual's Footer, which makes a widget of every key and makes them all anew with every
change of focus: that was a tenth of the time to the first screen.
"""

from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static


class KeyLine(Static):
    """One line of text."""

    DEFAULT_CSS = """
    KeyLine { height: 1; background: $footer-background; color: $footer-foreground;
        link-style: none; link-color: $footer-foreground; link-background: transparent; }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)

    def on_mount(self) -> None:
        """Be told of every change."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def on_unmount(self) -> None:
        """Not any more."""
        self.screen.bindings_updated_signal.unsubscribe(self)

    def _changed(self, screen: Screen[object]) -> None:
        if self.is_attached and screen is self.screen:
            self.update(Content("").join(self._keys()), layout=False)

    def _keys(self) -> list[Content]:
        found: dict[str, Content] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled and binding.action not in found:
                key = Content.styled(f" {self.app.get_key_display(binding)}", "bold $accent")
                words = Content.assemble(key, f" {binding.description}")
                found[binding.action] = words.stylize(f"@click=app.simulate_key({binding.key!r})")
        return list(found.values())
