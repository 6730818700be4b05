"""What a pane is: a widget of its own file that draws the session.

To add one: a subclass of Pane in tui/NAME.py, and a line in tui/panes.py.  Its BINDINGS are its
keys: those with show=True stand in the footer while the focus is in the pane, all of them in
the help (`?`), and `commands` adds to the palette; `export` and `copied` are what the program's
keys for that ask for.  A pane talks to the rest by messages: GoTo, FilterBy and OpenPane below.
It is told by `draw` that there is a new snapshot (only while it is seen, some five times a
second), by `relisted` that the filter changed, and by `chosen` that another packet became the
current one.

Rules for editors: `draw` must be quick: copy from the model what fits on the screen, and do
what takes longer in a thread (Textual's workers, model/passes.py).  Text that came from a
capture is never markup: Text, Segment or markup=False.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, NamedTuple

from textual.containers import Vertical
from textual.message import Message

from vsockdump.tui.model import exports
from vsockdump.tui.session import Session


class GoTo(Message):
    """Show this packet in the packet list."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class OpenPane(Message):
    """Show the pane of this name; what is of one connection is of `session.conn`."""

    def __init__(self, pane: str) -> None:
        super().__init__()
        self.pane = pane


class FilterBy(Message):
    """List what this filter chooses; with `narrow` only what the present filter chooses too."""

    def __init__(self, text: str, narrow: bool = False) -> None:
        super().__init__()
        self.text = text
        self.narrow = narrow


class Picked(Message):
    """The packet of this number is now the current one."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Command(NamedTuple):
    """An entry of the command palette."""

    title: str
    meaning: str
    run: Callable[[], None]


class Pane(Vertical):
    """One page of the program; `name` is its id, `title` stands in the tabs."""

    title: ClassVar[str]
    statistic: ClassVar[str] = ""  # the -z that says the same
    takes_slash: ClassVar[bool] = False  # `/` is a key of the pane and does not type a filter

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(id=name)
        self.session = session

    def draw(self) -> None:
        """Show the session's snapshot."""

    def relisted(self) -> None:
        """The filter has changed: session.listing is another one."""

    def chosen(self, number: int) -> None:
        """Another packet has become the current one."""

    def export(self, as_json: bool, going: Callable[[], bool]) -> Iterable[bytes]:
        """What the pane shows, as the command line prints it; in a thread, while `going`."""
        session = self.session
        lines = exports.statistic(session.capture, self.statistic, as_json, session.numeric)
        return (f"{line}\n".encode() for line in lines)

    @property
    def exports(self) -> bool:
        """Whether there is something to export."""
        return bool(self.statistic) or type(self).export is not Pane.export

    def copied(self, as_filter: bool) -> str:
        """What is to be copied of where the cursor is, or a filter for it; "": nothing."""
        return ""

    def commands(self) -> Iterator[Command]:
        """What the command palette offers for the pane."""
        return iter(())
