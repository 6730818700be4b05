"""What is counted along with a capture, for the pane of statistics.

Rules for editors: `add` runs in the capture's thread, everything else while nothing is tracked
(Capture.frozen).
"""

from vsockdump.apps.dialogues import Dialogues
from vsockdump.batch import Batch
from vsockdump.output.rpc import Rpc
from vsockdump.track.tracker import Tracker
from vsockdump.tui.model.rates import Rates


class Counting:
    """Rates over time, and calls where application protocols are decoded."""

    def __init__(self, tracker: Tracker, dialogues: Dialogues | None) -> None:
        self.rates = Rates()
        self.rpc = None if dialogues is None else Rpc(tracker, None, dialogues)

    def add(self, batch: Batch) -> None:
        """Take a tracked batch, with what applications say in it."""
        self.rates.add(batch)
        if self.rpc is not None:
            self.rpc.add(batch)
