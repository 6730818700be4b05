"""How the fields of fields.py are drawn: each becomes a cell of a line."""

from typing import Final

from vsockdump.fields import FieldDef, Show
from vsockdump.output.rows import Cell, Kind

_KINDS: Final = {
    Show.DEC: Kind.DEC,
    Show.HEX: Kind.HEX8,
    Show.BYTES: Kind.BYTES,
    Show.SECONDS: Kind.SECONDS,
    Show.WORD: Kind.WORD,
    Show.TEXT: Kind.TEXT,
}


def cell_of(field: FieldDef, prefix: str = "", missing: str | None = "") -> Cell:
    """The field as a cell of a line."""
    return Cell(_KINDS[field.show], prefix, missing, digits=9 if field.show == Show.SECONDS else 0)
