"""Recognising a protocol of frames inside a connection: where one frame ends, the next begins."""

from collections.abc import Callable

from vsockdump.apps.protocol import LIKELY, POSSIBLE, Opening, Score


def chained(opening: Opening, frames: Callable[[bytes], int]) -> Score:
    """How sure frames in both directions make a protocol.

    `frames` counts those that bytes consist of, the last perhaps in part; 0: of others too.
    """
    counts = [frames(data) for data in opening.data if data]
    if not counts:
        return None
    if not all(counts):
        return 0
    return LIKELY if sum(counts) > 1 else POSSIBLE
