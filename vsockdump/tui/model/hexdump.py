"""Bytes in rows: offset, hexadecimal, and the printable ones of them as text."""

from typing import Final, NamedTuple

_HOLE: Final = "."
_PRINTABLE: Final = range(0x20, 0x7F)


class HexRow(NamedTuple):
    """Some bytes behind each other, `offset` that of the first; a text for each, twice."""

    offset: int
    hexes: tuple[str, ...]
    characters: str


def row_count(size: int, width: int) -> int:
    """How many rows of `width` bytes so many bytes take."""
    return (size + width - 1) // width


def hex_row(data: bytes, row: int, width: int) -> HexRow:
    """One row; what is not printable ASCII is a dot."""
    part = data[row * width : (row + 1) * width]
    text = "".join(chr(byte) if byte in _PRINTABLE else _HOLE for byte in part)
    return HexRow(row * width, tuple(f"{byte:02x}" for byte in part), text)
