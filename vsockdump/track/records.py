"""Rows of a structured array with attributes, for the uncompiled tracker.

Compiled, `view[row].field` is one memory access; here it is two calls that give Python's
own ints, which NumPy's records do not (their arithmetic wraps, or turns into floats).
"""

from typing import Any

from vsockdump.batch import Rows


class Records:
    """`records[row].field` reads and writes the array."""

    __slots__ = ("_columns",)

    def __init__(self, array: Rows) -> None:
        names = array.dtype.names or ()
        self._columns = {name: memoryview(array[name].data) for name in names}

    def __getitem__(self, row: int) -> "_Record":
        return _Record(self._columns, row)


class _Record:
    __slots__ = ("_columns", "_row")

    def __init__(self, columns: dict[str, memoryview], row: int) -> None:
        object.__setattr__(self, "_columns", columns)
        object.__setattr__(self, "_row", row)

    def __getattr__(self, name: str) -> Any:
        return self._columns[name][self._row]

    def __setattr__(self, name: str, value: int) -> None:
        self._columns[name][self._row] = value
