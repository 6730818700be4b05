"""A filter, ready to be used: what the pipeline, the statistics and the TUI hold.

Importing this module loads the parser; do so only where a filter was given.
"""

from functools import cached_property

from vsockdump.batch import Batch
from vsockdump.columns import Mask
from vsockdump.filters.errors import FilterError
from vsockdump.filters.kernel import SNAPLEN, Split, split
from vsockdump.filters.lower import is_contradiction, lowered
from vsockdump.filters.masks import mask_of
from vsockdump.filters.packets import matches
from vsockdump.filters.parse import parse
from vsockdump.filters.printer import text
from vsockdump.filters.sources import is_of_apps, is_of_findings, is_tracked
from vsockdump.filters.tree import Node, leaves


class Filter:
    """What a tree asks for: `tree` is what was written, `lowered` what it means."""

    def __init__(self, tree: Node) -> None:
        self.tree = tree
        self.lowered: Node = lowered(tree)

    @classmethod
    def of(cls, source: str) -> "Filter":
        """The filter of a text; FilterError where it is none or can match nothing."""
        made = cls(parse(source))
        if is_contradiction(made.lowered):
            raise FilterError("No packet can match this filter.", source, 0, len(source))
        return made

    def __str__(self) -> str:
        return text(self.tree)

    @cached_property
    def needs_tracking(self) -> bool:
        """Whether it asks for anything that only the tracker knows."""
        return any(map(is_tracked, leaves(self.lowered)))

    @cached_property
    def needs_apps(self) -> bool:
        """Whether it asks for anything that only the application layer knows."""
        return any(map(is_of_apps, leaves(self.lowered)))

    @cached_property
    def asks_the_end(self) -> bool:
        """Whether it asks for anything that may only show at the end of a capture."""
        return any(map(is_of_findings, leaves(self.lowered)))

    def mask(self, batch: Batch) -> Mask:
        """Which packets match: booleans of shape (n,).

        ValueError where the batch was not tracked and `needs_tracking`.
        """
        return mask_of(self.lowered, batch)

    def split(self, keep_state: bool | None = None, snaplen: int = SNAPLEN) -> Split:
        """The halves for the kernel and for user space; see kernel.split."""
        return split(self.tree, keep_state, snaplen)

    def matches(self, batch: Batch, row: int) -> bool:
        """The same for one row."""
        return matches(self.lowered, batch, row)
