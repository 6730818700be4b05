# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The row writer: columns become lines of text, in compiled code.

Every line-by-line output (text, JSON, -T fields) is a list of cells.  A cell has a kind,
a prefix and a column of values; where the row's value does not hold, the cell writes its
`missing` text, and nothing at all, prefix included, if that is None.  Which cells a format
has is decided in text.py, fields.py and json.py; how a value becomes characters is decided
here, once.

Rules for editors: Cython's pure Python mode, as in scan.py.  Room for a whole row is made
sure of before it is written (`_bound`), so that writing needs no checks.  Nothing from a
payload goes out unescaped: dumps show printable ASCII and dots.
"""

from __future__ import annotations

from enum import IntEnum

import cython
import numpy as np

from vsockdump.wire import CID_NAMES


class Kind(IntEnum):
    """How a cell shows its value."""

    DEC = 0  # unsigned decimal, right-aligned in `digits` characters
    HEX8 = 1  # 0x and 8 hexadecimal digits
    CLOCK = 2  # nanoseconds of a day: hh:mm:ss and a fraction
    SPAN = 3  # signed nanoseconds: a minus sign or a space, then the same
    SECONDS = 4  # signed nanoseconds: seconds and a fraction
    WORD = 5  # index into `words`; from the last one on: that word and the value
    CID = 6  # name of a context id
    BYTES = 7  # `sizes` bytes of the buffer in hexadecimal
    QUOTED_BYTES = 8  # the same in quotation marks
    HEX_DUMP = 9  # the same as tcpdump -x shows it
    FULL_DUMP = 10  # ... as -X
    ASCII_DUMP = 11  # ... as -A
    TEXT = 12  # a bytes object


class Cell:
    """One cell of every line: what stands before the value and how the value is shown.

    `digits` is the length of a fraction of a second (CLOCK, SECONDS: 6 or 9), or the least
    width of a number (DEC).
    """

    __slots__ = ("digits", "kind", "missing", "prefix", "words")

    def __init__(
        self,
        kind: Kind,
        prefix: str = "",
        missing: str | None = None,
        words: list[str] | None = None,
        digits: int = 0,
    ) -> None:
        self.kind = kind
        self.prefix = prefix.encode()
        self.missing = None if missing is None else missing.encode()
        self.words = [word.encode() for word in words or []]
        self.digits = digits


_DEC = cython.declare(cython.int, int(Kind.DEC))
_HEX8 = cython.declare(cython.int, int(Kind.HEX8))
_CLOCK = cython.declare(cython.int, int(Kind.CLOCK))
_SPAN = cython.declare(cython.int, int(Kind.SPAN))
_SECONDS = cython.declare(cython.int, int(Kind.SECONDS))
_WORD = cython.declare(cython.int, int(Kind.WORD))
_CID = cython.declare(cython.int, int(Kind.CID))
_BYTES = cython.declare(cython.int, int(Kind.BYTES))
_QUOTED_BYTES = cython.declare(cython.int, int(Kind.QUOTED_BYTES))
_HEX_DUMP = cython.declare(cython.int, int(Kind.HEX_DUMP))
_FULL_DUMP = cython.declare(cython.int, int(Kind.FULL_DUMP))
_ASCII_DUMP = cython.declare(cython.int, int(Kind.ASCII_DUMP))
_TEXT = cython.declare(cython.int, int(Kind.TEXT))
_HEX = cython.declare(bytes, b"0123456789abcdef")
_BILLION = cython.declare(cython.ulonglong, 1000000000)
# Literals above 31 bits would be Python objects in compiled code.
_ALL_BITS = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)
_LARGEST_U32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_PAIRS = cython.declare(bytes, b"".join(b"%02d" % number for number in range(100)))

_NUMBER_ROOM = 32  # characters that any number or time fits in
_SLACK = 16  # bytes behind the literals and the output that a literal's copy may touch
_BUFFER = 1 << 18


@cython.cclass
class RowWriter:
    """Writes rows of some cells; `columns` of every cell are set before `write`.

    `capacity` is the largest number of rows of a batch.  `values` has shape (cells,
    capacity) and dtype uint64 (signed values as their bits), `valid` is its mask and
    `sizes` the byte counts of the kinds that show bytes, with positions in `values`.
    """

    cells: list
    kinds: cython.int[::1]
    digits: cython.int[::1]
    lives: cython.uchar[::1]
    v: cython.ulonglong[:, ::1]
    ok: cython.uchar[:, ::1]
    size: cython.uint[:, ::1]
    # All literal text in one array: prefix, missing text and words of every cell.
    literals: cython.const[cython.uchar][::1]
    prefix_at: cython.int[::1]
    missing_at: cython.int[::1]
    word_first: cython.int[::1]
    word_count: cython.int[::1]
    spans: cython.int[::1]  # start and end of each literal
    cid_first: cython.int
    out: cython.uchar[::1]
    pos: cython.Py_ssize_t
    fixed: cython.Py_ssize_t
    texts: list
    has_sizes: cython.bint
    grows: cython.bint  # whether a row can take more than `fixed` characters

    def __init__(self, cells, capacity: int, end: str = "\n") -> None:
        count = len(cells)
        self.cells = list(cells)
        self.kinds = memoryview(np.array([c.kind for c in cells], "i4"))
        self.digits = memoryview(np.array([c.digits for c in cells], "i4"))
        self.texts = [None] * count
        self.grows = any(c.kind >= Kind.BYTES for c in cells)
        self.has_sizes = any(Kind.BYTES <= c.kind <= Kind.ASCII_DUMP for c in cells)
        self.lay_out(end)
        self.resize(capacity)
        self.out = memoryview(bytearray(_BUFFER))
        self.pos = 0

    def resize(self, capacity: int):
        """Make room for batches of `capacity` rows; returns (values, valid, sizes)."""
        count = len(self.cells)
        values = np.zeros((count, capacity), "u8")
        valid = np.ones((count, capacity), "u1")
        sizes = np.zeros((count, capacity if self.has_sizes else 1), "u4")
        self.v, self.ok, self.size = memoryview(values), memoryview(valid), memoryview(sizes)
        return values, valid, sizes

    def set_words(self, cell: int, words, end: str = "\n") -> None:
        """Replace the words of a WORD cell."""
        self.cells[cell].words = [word.encode() for word in words]
        self.lay_out(end)

    def set_texts(self, cell: int, texts) -> None:
        """The values of a TEXT cell, one bytes object (or None) per row."""
        self.texts[cell] = texts

    def lay_out(self, end: str) -> None:
        """Put all literals into one array."""
        pieces: list = []
        prefix_at, missing_at, first, number = [], [], [], []
        room = len(end) + _SLACK
        for cell in self.cells:
            prefix_at.append(len(pieces))
            pieces.append(cell.prefix)
            missing_at.append(-1 if cell.missing is None else len(pieces))
            if cell.missing is not None:
                pieces.append(cell.missing)
            first.append(len(pieces))
            number.append(len(cell.words))
            pieces.extend(cell.words)
            longest = max([len(word) for word in cell.words], default=0)
            room += len(cell.prefix) + max(longest + _NUMBER_ROOM, len(cell.missing or b""))
        self.cid_first = len(pieces)
        pieces.extend([name.encode() for name in _cid_words()])
        pieces.append(end.encode())
        spans = np.zeros(len(pieces) + 1, "i4")
        spans[1:] = np.cumsum([len(piece) for piece in pieces])
        self.spans = memoryview(spans)
        self.literals = memoryview(b"".join(pieces) + bytes(_SLACK))
        self.prefix_at = memoryview(np.array(prefix_at or [0], "i4"))
        self.missing_at = memoryview(np.array(missing_at or [0], "i4"))
        self.word_first = memoryview(np.array(first or [0], "i4"))
        self.word_count = memoryview(np.array(number or [0], "i4"))
        self.fixed = room

    def write(
        self,
        buffer: cython.const[cython.uchar][::1],
        start: cython.Py_ssize_t,
        count: cython.Py_ssize_t,
    ):
        """Write rows from `start` on; returns (next row, the bytes written so far).

        It stops before count when the output buffer is full: take the bytes, call again.
        The bytes are valid until then.
        """
        row: cython.Py_ssize_t = start
        cell: cython.Py_ssize_t
        cells: cython.Py_ssize_t = len(self.cells)
        need: cython.Py_ssize_t
        end: cython.Py_ssize_t = len(self.spans) - 2
        self.pos = 0
        while row < count:
            need = self._bound(row, cells)
            if need > len(self.out) - self.pos:
                if self.pos > 0:
                    break
                self.out = memoryview(bytearray(need))
            for cell in range(cells):
                if self.ok[cell, row]:
                    self._literal(self.prefix_at[cell])
                    self._value(cell, row, buffer)
                elif self.missing_at[cell] >= 0:
                    self._literal(self.prefix_at[cell])
                    self._literal(self.missing_at[cell])
            self._literal(end)
            row += 1
        return row, memoryview(self.out)[: self.pos]

    @cython.cfunc
    @cython.exceptval(check=False)
    def _bound(self, row: cython.Py_ssize_t, cells: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The most characters that a row can take."""
        need: cython.Py_ssize_t = self.fixed
        cell: cython.Py_ssize_t
        kind: cython.int
        if not self.grows:
            return need
        for cell in range(cells):
            kind = self.kinds[cell]
            if kind >= _BYTES and self.ok[cell, row]:
                if kind == _TEXT:
                    need += _text_size(self.texts[cell], row)
                else:
                    # A line of a dump takes 69 characters and shows 16 bytes.
                    need += 6 * cython.cast(cython.Py_ssize_t, self.size[cell, row]) + 80
        return need

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _literal(self, index: cython.Py_ssize_t) -> cython.void:
        """Copy one literal to the output."""
        start: cython.Py_ssize_t = self.spans[index]
        size: cython.Py_ssize_t = self.spans[index + 1] - start
        pos: cython.Py_ssize_t = self.pos
        if not cython.compiled:
            self.out[pos : pos + size] = self.literals[start : start + size]
        elif size <= 16:  # a copy of constant size is two moves; both arrays have the room
            memcpy(cython.address(self.out[pos]), cython.address(self.literals[start]), 16)
        else:
            memcpy(cython.address(self.out[pos]), cython.address(self.literals[start]), size)
        self.pos = pos + size

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _value(
        self,
        cell: cython.Py_ssize_t,
        row: cython.Py_ssize_t,
        buffer: cython.const[cython.uchar][::1],
    ) -> cython.void:
        """One value in the notation of its cell."""
        kind: cython.int = self.kinds[cell]
        value: cython.ulonglong = self.v[cell, row]
        if kind == _DEC:
            self._pad(value, self.digits[cell])
            self._number(value)
        elif kind == _WORD:
            self._word(cell, value)
        elif kind == _CLOCK:
            self._clock(value, self.digits[cell])
        elif kind == _SPAN:
            self._span(value, self.digits[cell])
        elif kind == _SECONDS:
            self._seconds(value, self.digits[cell])
        elif kind == _CID:
            self._cid(value)
        elif kind == _HEX8:
            self._byte(48)
            self._byte(120)
            self._hex(value, 8)
        elif kind == _BYTES:
            self._bytes(buffer, value, self.size[cell, row])
        elif kind == _QUOTED_BYTES:
            self._byte(34)
            self._bytes(buffer, value, self.size[cell, row])
            self._byte(34)
        elif kind == _ASCII_DUMP:
            self._ascii(buffer, value, self.size[cell, row])
        elif kind == _TEXT:
            self._text(self.texts[cell], row)
        else:
            self._dump(buffer, value, self.size[cell, row], kind == _FULL_DUMP)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _byte(self, character: cython.uchar) -> cython.void:
        self.out[self.pos] = character
        self.pos += 1

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _pad(self, value: cython.ulonglong, width: cython.int) -> cython.void:
        """Spaces that bring a number to a width."""
        while width > 1:
            value = value // 10
            width -= 1
            if value == 0:
                self._byte(32)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _number(self, value: cython.ulonglong) -> cython.void:
        """Decimal digits, without leading zeros."""
        width: cython.int = 1
        left: cython.uint
        if value > _LARGEST_U32:
            large: cython.ulonglong = value
            while large > 9:
                large = large // 10
                width += 1
        else:
            left = value
            while left >= 10000:
                left = left // 10000
                width += 4
            width += 3 if left >= 1000 else 2 if left >= 100 else 1 if left >= 10 else 0
        self._digits(value, width)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _digits(self, value: cython.ulonglong, width: cython.int) -> cython.void:
        """The last `width` decimal digits, two at a time."""
        at: cython.Py_ssize_t = self.pos + width
        pair: cython.uint
        small: cython.uint
        self.pos = at
        while value > _LARGEST_U32:  # 64-bit division is slow: leave it early
            if width <= 0:
                return
            at -= 1
            self.out[at] = 48 + value % 10
            value = value // 10
            width -= 1
        small = value
        while width > 1:
            pair = small % 100 * 2
            small = small // 100
            at -= 2
            self.out[at] = _PAIRS[pair]
            self.out[at + 1] = _PAIRS[pair + 1]
            width -= 2
        if width > 0:
            self.out[at - 1] = 48 + small % 10

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _hex(self, value: cython.ulonglong, width: cython.int) -> cython.void:
        """The last `width` hexadecimal digits."""
        at: cython.Py_ssize_t = self.pos + width
        self.pos = at
        while width > 0:
            at -= 1
            self.out[at] = _HEX[value & 15]
            value >>= 4
            width -= 1

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _fraction(self, nanoseconds: cython.ulonglong, digits: cython.int) -> cython.void:
        """A point and 6 or 9 digits; further ones are cut off, as tcpdump does."""
        self._byte(46)
        if digits == 6:
            self._digits(nanoseconds // 1000, 6)
        else:
            self._digits(nanoseconds, 9)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _clock(self, value: cython.ulonglong, digits: cython.int) -> cython.void:
        """Hours (two digits or more), minutes, seconds and fraction."""
        seconds: cython.ulonglong = value // _BILLION
        if seconds < 360000:
            self._digits(seconds // 3600, 2)
        else:
            self._number(seconds // 3600)
        self._byte(58)
        self._digits(seconds // 60 % 60, 2)
        self._byte(58)
        self._digits(seconds % 60, 2)
        self._fraction(value % _BILLION, digits)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _span(self, value: cython.ulonglong, digits: cython.int) -> cython.void:
        """A difference of times."""
        if value >> 63:
            self._byte(45)
            value = (~value + 1) & _ALL_BITS
        else:
            self._byte(32)
        self._clock(value, digits)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _seconds(self, value: cython.ulonglong, digits: cython.int) -> cython.void:
        """Signed seconds and fraction."""
        if value >> 63:
            self._byte(45)
            value = (~value + 1) & _ALL_BITS
        self._number(value // _BILLION)
        self._fraction(value % _BILLION, digits)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _word(self, cell: cython.Py_ssize_t, value: cython.ulonglong) -> cython.void:
        """A word; the last one introduces the numbers that have none of their own."""
        last: cython.ulonglong = self.word_count[cell] - 1
        if value < last:
            self._literal(self.word_first[cell] + cython.cast(cython.Py_ssize_t, value))
        else:
            self._literal(self.word_first[cell] + cython.cast(cython.Py_ssize_t, last))
            self._number(value)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _cid(self, value: cython.ulonglong) -> cython.void:
        """host, local, hypervisor, any, or "guest" and the number."""
        if value <= 2:
            self._literal(self.cid_first + cython.cast(cython.Py_ssize_t, value))
        elif value == _LARGEST_U32:
            self._literal(self.cid_first + 3)
        else:
            self._literal(self.cid_first + 4)
            self._number(value)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _bytes(
        self,
        buffer: cython.const[cython.uchar][::1],
        at: cython.Py_ssize_t,
        size: cython.Py_ssize_t,
    ) -> cython.void:
        """Hexadecimal digits without separators."""
        index: cython.Py_ssize_t
        for index in range(at, at + size):
            self._hex(buffer[index], 2)

    @cython.cfunc
    @cython.exceptval(check=False)
    def _dump(
        self,
        buffer: cython.const[cython.uchar][::1],
        at: cython.Py_ssize_t,
        size: cython.Py_ssize_t,
        ascii: cython.bint,
    ) -> cython.void:
        """Lines of 16 bytes in pairs, with offsets, as tcpdump -x (and -X) prints them."""
        offset: cython.Py_ssize_t = 0
        index: cython.Py_ssize_t
        filled: cython.Py_ssize_t
        while offset < size:
            filled = size - offset if size - offset < 16 else 16
            self._byte(10)
            self._byte(9)
            self._byte(48)
            self._byte(120)
            self._hex(offset, 5 if offset > 0xFFFF else 4)
            self._byte(58)
            self._byte(32)
            for index in range(16 if ascii else filled):
                if index % 2 == 0:
                    self._byte(32)
                if index < filled:
                    self._hex(buffer[at + offset + index], 2)
                else:
                    self._byte(32)
                    self._byte(32)
            if ascii:
                self._byte(32)
                self._byte(32)
                for index in range(filled):
                    self._byte(_graphic(buffer[at + offset + index]))
            offset += 16

    @cython.cfunc
    @cython.exceptval(check=False)
    def _ascii(
        self,
        buffer: cython.const[cython.uchar][::1],
        at: cython.Py_ssize_t,
        size: cython.Py_ssize_t,
    ) -> cython.void:
        """Printable ASCII, tabs and line ends; dots for the rest.

        A carriage return before a line end, or at the very end, is left out, as tcpdump
        does.
        """
        index: cython.Py_ssize_t
        character: cython.uchar
        end: cython.Py_ssize_t = at + size
        self._byte(10)
        for index in range(at, end):
            character = buffer[index]
            if character == 13 and (index + 1 == end or buffer[index + 1] == 10):
                continue
            if character != 32 and character != 10 and character != 9:
                character = _graphic(character)
            self._byte(character)

    @cython.cfunc
    def _text(self, texts: list, row: cython.Py_ssize_t) -> cython.void:
        """A ready bytes object."""
        text: bytes = texts[row]
        index: cython.Py_ssize_t
        for index in range(len(text)):
            self._byte(text[index])


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _graphic(character: cython.uchar) -> cython.uchar:
    """The character itself if it is visible ASCII, else a dot."""
    return character if 32 < character < 127 else 46


@cython.cfunc
def _text_size(texts: list, row: cython.Py_ssize_t) -> cython.Py_ssize_t:
    return len(texts[row])


def _cid_words() -> list[str]:
    """Names of CIDs 0, 1, 2 and any, and the word before all others."""
    return [*CID_NAMES.values(), "guest "]
