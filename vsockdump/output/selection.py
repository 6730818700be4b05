"""The connections that a filter chooses, for everything that counts connections."""

from vsockdump.batch import Batch
from vsockdump.columns import Mask
from vsockdump.output.number_set import NumberSet
from vsockdump.output.tables import json_line


class Selection:
    """The connections with a packet that a filter chose.

    `text` is the filter, "" where the kernel has decided it all; `in_kernel` what of it the
    kernel decided.
    """

    def __init__(self, text: str, in_kernel: str = "") -> None:
        self._text = text
        self._in_kernel = in_kernel
        self._chosen = NumberSet()

    def add(self, batch: Batch, mask: Mask | None) -> None:
        """Note the connections of a tracked batch's chosen packets (None: all)."""
        assert batch.tracked is not None
        numbers = batch.tracked["conn"]
        self._chosen.add(numbers if mask is None else numbers[mask])

    def __contains__(self, number: int) -> bool:
        return number in self._chosen

    def json_line(self) -> str:
        """What the statistics that follow cover: the filter, and what the kernel decided of it."""
        values = {"filter": self._text or None, "in_kernel": self._in_kernel or None}
        return json_line("selection", values)

    def notes(self, sentence: str) -> list[str]:
        """What a result covers; `sentence` says what the filter means for it."""
        notes = []
        if self._in_kernel:
            notes.append(f"Seen were only packets that match in the kernel: {self._in_kernel}")
        if self._text:
            notes.append(f"{sentence}: {self._text}")
        return notes
