"""What the panes of one connection have in common: which one it is, and asking for another."""

from typing import ClassVar, Final

from textual.binding import BindingType

from vsockdump.address import Endpoint
from vsockdump.output.statistics import ends, shown
from vsockdump.tui.keys import bind
from vsockdump.tui.pane import Pane
from vsockdump.tui.prompt import Prompt
from vsockdump.tui.session import Session

NO_CONNECTION: Final = "Choose a packet or a connection first, or press o for a number."


class ConnectionPane(Pane):
    """A pane of `session.conn`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        bind("o", "connection", "Another connection", show=False),
    ]

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session, name)
        self._ends: tuple[int, tuple[Endpoint, Endpoint] | None] = (0, None)  # of a connection

    def action_connection(self) -> None:
        """Ask for a connection."""
        self.app.push_screen(Prompt("Connection number"), self._choose)

    def _choose(self, text: str | None) -> None:
        number = (text or "").strip().removeprefix("#")
        if not number:
            return
        known = number.isascii() and number.isdigit() and len(number) < 19
        if not known or self.session.capture.connection(int(number)) is None:
            self.app.notify(f"There is no connection {number}.", severity="warning", markup=False)
            return
        self.session.conn = int(number)
        self.draw()

    def ends_of(self, conn: int) -> tuple[str, str]:
        """Initiator and acceptor of a connection, "?" where it is not known any more."""
        if self._ends[0] != conn:
            entry = self.session.capture.connection(conn)
            self._ends = conn, None if entry is None else ends(entry[0])
        pair = self._ends[1]
        if pair is None:
            return "?", "?"
        return shown(pair[0], self.session.numeric), shown(pair[1], self.session.numeric)
