"""A plot in braille characters: bytes in flight as an area, the window as a line above it.

Rules for editors: pure; what a part looks like is named here and coloured by the pane.  Dots
and not eighths of blocks, because the line and the area meet in one character.
"""

from enum import StrEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

ACROSS: Final = 2  # dots of a character
_DOWN: Final = 4
_BLANK: Final = 0x2800
# The bit of each dot, from the top down, left and right.
_BITS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_UNKNOWN: Final = -1


class Ink(StrEnum):
    """What a character shows."""

    NOTHING = "nothing"
    FLIGHT = "flight"
    WINDOW = "window"
    BOTH = "both"


class Cell(NamedTuple):
    """A character of the plot."""

    character: str
    ink: Ink


class Curves(NamedTuple):
    """What is plotted, by column of dots: most in flight and the window, -1 where unknown.

    `updates` counts those in each column of characters, `stalled` says where a stall is.
    """

    flight: NDArray[np.int64]
    window: NDArray[np.int64]
    updates: NDArray[np.int64]
    stalled: NDArray[np.bool_]

    @property
    def top(self) -> int:
        """The largest value."""
        return max(int(self.flight.max(initial=0)), int(self.window.max(initial=0)), 1)


def curves(
    samples: NDArray[Any], stalls: NDArray[Any], first_ns: int, last_ns: int, columns: int
) -> Curves:
    """Samples of model.credit, and stalls, in so many columns of characters.

    A value stays until the next sample; the first sample may lie before `first_ns`.
    """
    dots = columns * ACROSS
    places = _columns_of(samples["time_ns"], first_ns, last_ns, dots)
    inside = places >= 0
    found = []
    for most, last in (("flight", "last_flight"), ("window", "last_window")):
        highest = np.full(dots, _UNKNOWN, np.int64)
        np.maximum.at(highest, places[inside], samples[most][inside])
        found.append(np.where(highest == _UNKNOWN, _staying(places, samples[last], dots), highest))
    updates = np.bincount(places[inside] // ACROSS, samples["updates"][inside], columns)
    stalled = np.zeros(columns, np.bool_)
    edges = [
        np.clip(_columns_of(stalls[name], first_ns, last_ns, columns), 0, columns - 1).tolist()
        for name in ("start_ns", "end_ns")
    ]
    for start, end in zip(*edges, strict=True):
        stalled[start : end + 1] = True
    return Curves(found[0], found[1], updates.astype(np.int64), stalled)


def _columns_of(
    times: NDArray[np.int64], first_ns: int, last_ns: int, columns: int
) -> NDArray[np.int64]:
    """The column of each time; -1 before the first, the last for all behind it."""
    span = max(last_ns - first_ns, 1)
    part = (times - first_ns).astype(float) * columns / span
    return np.clip(np.floor(part), -1, columns - 1).astype(np.int64)


def _staying(places: NDArray[np.int64], last: NDArray[Any], dots: int) -> NDArray[np.int64]:
    """The value that stays from earlier samples, for each column."""
    latest = np.searchsorted(places, np.arange(dots), "right")
    return np.concatenate(([_UNKNOWN], last.astype(np.int64)))[latest]


def plot(shown: Curves, rows: int) -> list[list[Cell]]:
    """The plot in so many rows of characters, from the top down; the largest value is its top."""
    height = rows * _DOWN
    bits = np.zeros((rows, len(shown.updates)), np.int64)
    inks = [np.zeros_like(bits, np.bool_), np.zeros_like(bits, np.bool_)]
    levels = [_levels(values, shown.top, height) for values in (shown.flight, shown.window)]
    before = _UNKNOWN
    for dot in range(len(shown.flight)):
        flight, window = int(levels[0][dot]), int(levels[1][dot])
        drawn = [(0, level) for level in range(flight)] if shown.flight[dot] > 0 else []
        if window != _UNKNOWN:
            low, high = sorted((window, window if before == _UNKNOWN else before))
            drawn += [(1, level) for level in range(max(low - 1, 0), high)]
        before = window
        for kind, level in drawn:
            row, down = divmod(height - 1 - level, _DOWN)
            bits[row, dot // ACROSS] |= _BITS[dot % ACROSS][down]
            inks[kind][row, dot // ACROSS] = True
    return [
        [
            Cell(chr(_BLANK + bit), _INKS[has_flight, has_window])
            for bit, has_flight, has_window in zip(*line, strict=True)
        ]
        for line in zip(bits.tolist(), inks[0].tolist(), inks[1].tolist(), strict=True)
    ]


_INKS: Final = {
    (False, False): Ink.NOTHING,
    (True, False): Ink.FLIGHT,
    (False, True): Ink.WINDOW,
    (True, True): Ink.BOTH,
}


def _levels(values: NDArray[np.int64], top: int, height: int) -> NDArray[np.int64]:
    """How many dots high each value is, at least one where it is known; -1 where it is not."""
    high = np.ceil(values * (height / top)).astype(np.int64)
    return np.where(values == _UNKNOWN, _UNKNOWN, np.clip(high, 1, height))
