"""Keys: every one is known by the words that the help shows, and can be set by them."""

from textual.binding import Binding

ACTIONS: set[str] = set()  # the words of all keys


def bind(
    key: str,
    action: str,
    description: str,
    show: bool = True,
    display: str | None = None,
    priority: bool = False,
    tooltip: str = "",
) -> Binding:
    """A key, or several with commas between."""
    ACTIONS.add(description)
    return Binding(key, action, description, show, display, priority, tooltip, description)
