"""Header blocks of HTTP/2: HPACK (RFC 7541), also where the table's beginning is not known.

What an encoder has put into its table before the capture began, or while packets were lost,
can never be learnt.  Entries are counted from the newest, so those that were seen since are
right all the same; a header that refers to an older one is lost, and only that header.

Rules for editors: hpack decodes; it is loaded with this module, when a parser is made.  A table
must never be a guess: after anything that was not decoded to its end, it begins anew.
"""

from typing import Final

from hpack import Decoder, HPACKError
from hpack.table import HeaderTable

from vsockdump.apps.http2_headers import Headers
from vsockdump.apps.texts import text_of

MOST_BLOCK: Final = 64 << 10  # bytes of a block, compressed
MOST_HEADERS: Final = 64 << 10  # bytes of a block's headers, counted as HTTP/2 does
MOST_TABLE: Final = 64 << 10  # bytes of a table


class HeaderBlocks:
    """The header blocks of one side, in order."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the table: bytes were lost."""
        self._decoder = Decoder(MOST_HEADERS)
        self._decoder.header_table = _LateTable()
        self._decoder.max_allowed_table_size = MOST_TABLE

    def decode(self, block: bytes) -> Headers:
        """A whole block."""
        try:
            found = list(self._decoder.decode(block, raw=True))
        except HPACKError as error:
            self.restart()
            return Headers(why=str(error))
        pairs = tuple((text_of(name), text_of(value)) for name, value in found if name)
        if not _may_be(pairs):
            self.restart()
            return Headers(why="the header table does not fit; packets may be missing")
        return Headers(pairs, len(found) - len(pairs))


def _may_be(pairs: tuple[tuple[str, str], ...]) -> bool:
    """Whether a block may have such headers.

    Packets can be lost without a trace until the other side has counted them.  The entries
    of the table are then not those that are meant, which shows when a name stands twice that
    may not.
    """
    pseudo = [name for name, _value in pairs if name.startswith(":")]
    return len(set(pseudo)) == len(pseudo) and not {":method", ":status"} <= set(pseudo)


_LOST_ENTRY: Final = (b"", b"")  # no header has such a name


class _LateTable(HeaderTable):
    """A table of which only the newest entries are known.

    Entries whose name is lost are kept, so that the others' places are right.  They count
    for less than they should, and entries then leave later than the encoder's: it does not
    refer to these.
    """

    def get_by_index(self, index: int) -> tuple[bytes, bytes]:
        known = len(self.STATIC_TABLE) + len(self.dynamic_entries)
        return _LOST_ENTRY if index > known else super().get_by_index(index)
