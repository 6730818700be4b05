"""A pane whose contents take time to make: they are made in a thread, now and then.

Rules for editors: `make` runs in a thread and touches no widget, `put` draws what it gave.  What
is slow to make is made less often, so that the capture and the keys have the processor.
"""

import time
from typing import Any, ClassVar, Final

from textual import work

from vsockdump.tui.model.capture import Snapshot
from vsockdump.tui.pane import Pane
from vsockdump.tui.session import Session

_SHARE: Final = 10  # at most one part in so many of the time is spent on it


class RefreshedPane(Pane):
    """Made again while it is seen and there are more packets, every `every_s` at most."""

    every_s: ClassVar[float] = 1

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(session, name)
        self._made_of: Snapshot | None = None
        self._next = 0.0
        self._busy = False

    def make(self) -> Any:
        """What is shown, as of now; in a thread."""
        raise NotImplementedError

    def put(self, made: Any) -> None:
        """Show it."""
        raise NotImplementedError

    def draw(self) -> None:
        """Have it made, if it is time to and there is something new."""
        snapshot = self.session.snapshot
        ended = snapshot.ended or not snapshot.live
        if self._busy or time.monotonic() < self._next or (ended and snapshot == self._made_of):
            return
        self._busy = True
        self._made_of = snapshot
        self._make()

    def again(self) -> None:
        """Make it anew with the next snapshot, whether there are more packets or not."""
        self._made_of, self._next = None, 0.0

    @work(thread=True)
    def _make(self) -> None:
        began = time.monotonic()
        made = self.make()
        took = time.monotonic() - began
        self.app.call_from_thread(self._put, made, took)

    def _put(self, made: Any, took: float) -> None:
        self._busy = False
        self._next = time.monotonic() + max(self.every_s, _SHARE * took)
        if self.is_mounted:
            self.put(made)
