"""-T fields and --json: chosen fields of every packet, one packet a line."""

from collections.abc import Callable
from enum import IntEnum

import numpy as np

from vsockdump import wire
from vsockdump.batch import Batch
from vsockdump.columns import Column, OfBatch
from vsockdump.fields import FIELDS, MARK_SEPARATOR, FieldDef, Show, lookup
from vsockdump.output.escaped import on_line
from vsockdump.output.fields import cell_of
from vsockdump.output.lines import LineColumn, Lines
from vsockdump.output.rows import Cell, Kind
from vsockdump.output.said import json_texts


def field_lines(names: list[str]) -> Lines:
    """Tab-separated values of the named fields; FieldError for a name that is none."""
    columns = []
    for index, name in enumerate(names):
        field = lookup(name)
        columns.append(_column(field, cell_of(field, "\t" if index else "")))
    return Lines(columns)


def _column(field: FieldDef, cell: Cell) -> LineColumn:
    values = field.column if field.show != Show.TEXT else _escaped(field.column)
    return LineColumn(cell, values, field.holds, field.sizes, field.words)


def _escaped(column: OfBatch) -> OfBatch:
    """A column of texts as bytes that stay on their line."""

    def escaped(batch: Batch) -> Column:
        texts = column(batch)
        for row in np.flatnonzero(texts != ""):
            texts[row] = on_line(texts[row]).encode()
        texts[texts == ""] = b""
        return texts

    return escaped


def json_lines(with_data: bool = False, with_apps: bool = True) -> Lines:
    """One JSON object a line; the keys are the field names, nested at their dots.

    Values are numbers as on the wire, null where unknown; `*_name` and `*_names` give the
    words for them.  `with_data` adds the stream's captured bytes in hexadecimal, `with_apps`
    the application protocol and the messages that are complete with the packet.
    """
    writer = _JsonColumns()
    for field in FIELDS:
        if field.json or (with_data and field.name == "vsock.data"):
            writer.add(field)
    if with_apps:
        writer.add(lookup("vsock.app.protocol"))
        writer.add_messages()
    return Lines(writer.columns, writer.end())


class _JsonColumns:
    """Builds the columns of a JSON line; the punctuation goes into the cells' prefixes."""

    def __init__(self) -> None:
        self.columns: list[LineColumn] = []
        self._open: list[str] = []

    def end(self) -> str:
        """What closes the line."""
        return "}" * (len(self._open) + 1) + "\n"

    def add(self, field: FieldDef) -> None:
        """Add a field under its (correctly spelt) name, and the words for its numbers."""
        name = field.name
        if field.words is not None:
            is_list = name == "vsock.marks"
            word = _list_word(field.words) if is_list else _string_word(field.words)
            cell = Cell(Kind.WORD, missing="[]" if is_list else "null")
            self._add(name, LineColumn(cell, field.column, field.holds, word=word))
        elif field.show == Show.BYTES:
            cell = Cell(Kind.QUOTED_BYTES, missing="null")
            self._add(name, LineColumn(cell, field.column, field.holds, field.sizes))
        else:
            cell = Cell(Kind.DEC, missing="null")
            self._add(name, LineColumn(cell, field.column, field.holds))
        if field.values is not None:
            self._add(name + "_name", _name_column(field, field.values))
        elif field.show == Show.HEX:
            self._add(name.removesuffix("s") + "_names", _flag_column())

    def add_messages(self) -> None:
        """Add the messages of the application protocols, a list."""
        self._add("vsock.app.messages", LineColumn(Cell(Kind.TEXT), json_texts))

    def _add(self, name: str, column: LineColumn) -> None:
        """Add a column; its prefix closes and opens objects as the name's dots ask for."""
        *path, key = name.split(".")
        common = 0
        while common < min(len(path), len(self._open)) and path[common] == self._open[common]:
            common += 1
        prefix = "}" * (len(self._open) - common)
        prefix += "," if self.columns else "{"
        prefix += "".join(f'"{part}":{{' for part in path[common:])
        column.cell.prefix = f'{prefix}"{key}":'.encode()
        self._open = path
        self.columns.append(column)


def _string_word(word: Callable[[int], str]) -> Callable[[int], str]:
    return lambda code: f'"{word(code)}"'


def _list_word(word: Callable[[int], str]) -> Callable[[int], str]:
    return lambda code: _json_list(word(code).split(MARK_SEPARATOR))


def _json_list(words: list[str]) -> str:
    return "[" + ",".join(f'"{word}"' for word in words) + "]"


def _name_column(field: FieldDef, values: type[IntEnum]) -> LineColumn:
    """The name of an enum's value, null for a value without one."""
    last = int(max(values))
    words = [f'"{wire.name_of(values, number)}"' for number in range(last + 1)]

    def holds(batch: Batch) -> Column:
        known: Column = field.column(batch) <= last
        return known if field.holds is None else known & field.holds(batch)

    return LineColumn(Cell(Kind.WORD, missing="null", words=[*words, ""]), field.column, holds)


def _flag_column() -> LineColumn:
    """The names of the virtio header's flags, which depend on op and type."""
    return LineColumn(
        Cell(Kind.WORD, missing="[]"),
        flag_codes,
        has_flags,
        word=lambda code: _json_list(flag_words(code)),
    )


def flag_codes(batch: Batch) -> Column:
    """flags, type and op of the virtio header in one number: what names its flags."""
    virtio = batch.rows["virtio"]
    codes: Column = virtio["flags"].astype("u8") << 32
    codes |= virtio["type"].astype("u8") << 16
    codes |= virtio["op"]
    return codes


def flag_words(code: int) -> list[str]:
    """The names of the flags in a number of `flag_codes`."""
    return wire.flag_names(code & 0xFFFF, code >> 16 & 0xFFFF, code >> 32)


def has_flags(batch: Batch) -> Column:
    """Where the virtio header has flags."""
    mask: Column = batch.rows["virtio"]["flags"] != 0
    return mask
