"""What all panes share: the capture, what of it is listed, and what the user chose.

Rules for editors: panes read it and change it through its methods; it knows no widgets.
"""

from collections.abc import Iterator

import numpy as np

from vsockdump.filters.filter import Filter
from vsockdump.tui.model.again import Again
from vsockdump.tui.model.capture import Capture, Snapshot
from vsockdump.tui.model.columns import DEFAULT_COLUMNS, Formatter
from vsockdump.tui.model.history import History
from vsockdump.tui.model.passes import Chosen, Listing, Numbers
from vsockdump.tui.model.saving import parts_of


class Session:
    """One capture as it is looked at.

    `snapshot` is what is shown; while `paused` it stays what it was.  `current` is the number
    of the packet that the cursor is on, 0 for none, `conn` that of the connection in use: of the
    packet or of the connection that was moved to last.  `marked` are the packets the user marked,
    `comments` what the user wrote of packets, `history` the filters used.
    `again` reads packets for the screen's own thread.
    """

    def __init__(
        self, capture: Capture, numeric: bool = False, history: History | None = None
    ) -> None:
        self.capture = capture
        self.again: Again = capture.again()
        self.snapshot: Snapshot = capture.snapshot()
        self.paused = False
        self.filter: Filter | None = None
        self.listing = Listing(capture)
        self.current = 0
        self.conn = 0
        self.marked: set[int] = set()
        self.comments: dict[int, str] = {}
        self.history = history or History()
        self.columns = DEFAULT_COLUMNS
        self.times = 5
        self.numeric = numeric

    def formatter(self) -> Formatter:
        """Makes the lines of packets in the columns and notation chosen."""
        return Formatter(self.again, self.columns, self.times, self.numeric)

    def reader(self) -> Formatter:
        """The same for another thread than the screen's."""
        return Formatter(self.capture.again(), self.columns, self.times, self.numeric)

    def choose(self, wanted: Filter | None) -> None:
        """List only what a filter chooses; None: all."""
        self.listing.cancel()
        self.filter = wanted
        self.listing = Listing(self.capture) if wanted is None else Chosen(self.capture, wanted)

    def refresh(self) -> None:
        """Take a new snapshot, unless paused."""
        if self.paused:
            return
        had_ended = self.snapshot.ended
        self.snapshot = self.capture.snapshot()
        ended = self.snapshot.ended and not had_ended
        if ended and self.capture.messages.late and self.filter and self.filter.needs_apps:
            self.choose(self.filter)  # what was understood only now may match

    def mark(self, number: int) -> None:
        """Mark a packet, or take its mark away."""
        self.marked ^= {number}

    def comment(self, number: int, text: str) -> None:
        """Write a comment on a packet; an empty one takes it away."""
        self.comments.pop(number, None)
        if text:
            self.comments[number] = text

    def parts(self, marked: bool) -> Iterator[Numbers]:
        """The numbers of the packets that are marked, or of those that are listed."""
        if marked:
            return iter((np.array(sorted(self.marked), np.uint64),))
        return parts_of(self.listing)

    def close(self) -> None:
        """End the capture, and what runs over it."""
        self.listing.cancel()
        self.listing.join()
        self.capture.close()
