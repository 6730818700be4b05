"""A set of connection numbers, which whole columns are added to and looked up in.

Connections are counted from 1, so that the set is an array with a byte for each number.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]


class NumberSet:
    """Numbers of connections; 0 is no connection."""

    def __init__(self) -> None:
        self._has = np.zeros(1024, np.bool_)

    def add(self, numbers: Numbers) -> None:
        """Put numbers in."""
        self._make_room(numbers)
        self._has[numbers] = True

    def clear(self) -> None:
        """Take all out."""
        self._has[:] = False

    def mask(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Which of the numbers are in."""
        self._make_room(numbers)
        found: NDArray[np.bool_] = self._has[numbers]
        return found

    def __contains__(self, number: int) -> bool:
        return number < len(self._has) and bool(self._has[number])

    def _make_room(self, numbers: Numbers) -> None:
        most = int(numbers.max(initial=0))
        while most >= len(self._has):
            self._has = np.concatenate((self._has, np.zeros_like(self._has)))
