"""Lines from batches: fills the row writer's columns and hands its bytes on.

A format is a list of columns (a cell, and how to fill it for a batch); this module is what
all formats share.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Batch
from vsockdump.output.rows import Cell, RowWriter

Column = NDArray[Any]
_MOST_WORDS = 4096  # a hostile capture can make up words without end


class LineColumn(NamedTuple):
    """A cell and its column for a batch: values, mask (None: all), sizes of byte kinds.

    With `word`, the values are codes that it turns into words, each once.
    """

    cell: Cell
    values: Callable[[Batch], Column]
    holds: Callable[[Batch], Column] | None = None
    sizes: Callable[[Batch], Column] | None = None
    word: Callable[[int], str] | None = None


class Lines:
    """Turns batches into bytes, a line per row (or what the cells make of it)."""

    def __init__(self, columns: list[LineColumn], end: str = "\n") -> None:
        self._columns = columns
        self._end = end
        self._capacity = 0
        self._writer = RowWriter([column.cell for column in columns], 1, end)
        self._codes: list[dict[int, int]] = [{} for _ in columns]

    def write(self, batch: Batch, chosen: Column | None = None) -> Iterator[memoryview]:
        """The lines of a batch in pieces, each valid until the next; `chosen` are row numbers."""
        if chosen is not None:
            batch = batch.take(chosen)
        count = len(batch)
        if count > self._capacity:
            self._capacity = count
            self._values, self._valid, self._sizes = self._writer.resize(count)
        for index, column in enumerate(self._columns):
            self._fill(index, column, batch, count)
        row = 0
        while row < count:
            row, piece = self._writer.write(batch.buffer, row, count)
            yield piece

    def _fill(self, index: int, column: LineColumn, batch: Batch, count: int) -> None:
        mask = None if column.holds is None else column.holds(batch)
        self._valid[index, :count] = 1 if mask is None else mask
        values = column.values(batch)
        if column.word is not None:
            self._fill_words(index, column.word, values, mask, count)
        elif values.dtype == np.object_:
            self._writer.set_texts(index, values.tolist())
        else:
            self._values[index, :count] = values.view("u8") if values.dtype == "i8" else values
        if column.sizes is not None:
            self._sizes[index, :count] = column.sizes(batch)

    def _fill_words(
        self,
        index: int,
        word: Callable[[int], str],
        values: Column,
        mask: Column | None,
        count: int,
    ) -> None:
        """Number the codes that occur; new ones become words of the writer."""
        where = np.arange(count) if mask is None else np.flatnonzero(mask)
        if not len(where):
            return
        picked = values[where]
        first = picked[0]
        if (picked == first).all():
            unique, inverse = picked[:1], np.zeros(len(where), np.intp)
        else:
            unique, inverse = np.unique(picked, return_inverse=True)
        codes = self._codes[index]
        if len(codes) > _MOST_WORDS:
            codes.clear()
        new = [code for code in unique.tolist() if code not in codes]
        if new:
            for code in new:
                codes[code] = len(codes)
            self._writer.set_words(index, [word(code) for code in codes] + [""], self._end)
        order = np.array([codes[code] for code in unique.tolist()], np.uint64)
        self._values[index, where] = order[inverse]
