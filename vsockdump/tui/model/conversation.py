"""What the two ends of a connection said to each other, as rows of text on disk.

The forms are those of --follow, and the decoded messages in short or in full.  Rows are as
wide as the screen: what is longer goes on in the next row.

Rules for editors: every text is escaped by output/, where it is drawn; here it is only cut
into rows.  Memory does not depend on how much was said.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from rich.cells import chop_cells

from vsockdump.amounts import counted, span
from vsockdump.apps.message import Kind, Said
from vsockdump.batch import Batch
from vsockdump.output.follow import Follow, FollowOptions, Form, Head, form_of
from vsockdump.output.said import detail_lines, short
from vsockdump.track.stream import Gap, Piece, Streams, gap_of, pieces_of
from vsockdump.track.stream import Kind as PieceKind
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.passes import OfConnection, packets_of
from vsockdump.tui.model.spool import Spool, UnnamedFile

FORMS: Final = ("text", "hex", "messages", "details")
DEFAULT_CAP: Final = 256 << 20  # bytes of text
SIGNS: Final = (">", "<", "*")  # initiator, acceptor, ourselves
_INDENT: Final = "  "  # of a row that goes on
_HEX_INDENT: Final = "    "
_OPEN: Final = 16  # rows that a line may have before they are kept, though it goes on
_AT_ONCE: Final = 4096  # rows
_OVERLAP: Final = 64  # rows that a match may extend over
_LONGEST: Final = 256  # bytes that can be searched for

Going = Callable[[], bool]

ROW_DTYPE: Final = np.dtype(
    [
        ("at", "u8"),  # of its text in the file
        ("packet", "u8"),  # in which its line begins
        ("size", "u4"),
        ("speaker", "u1"),  # index into SIGNS
        ("begins", "?"),  # its line
    ]
)


class Row(NamedTuple):
    """A row of the screen; `begins`: it is the first of its line."""

    text: str
    packet: int
    speaker: int
    begins: bool

    @property
    def shown(self) -> str:
        """The text as it is drawn."""
        return self.text if self.begins else _INDENT + self.text


class _Noted:
    """A form that notes which packet it was asked for last."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.packet = 0

    def head(self, head: Head) -> str | bytes:
        return self._form.head(head)

    def data(self, piece: Piece, data: memoryview) -> str | bytes:
        self.packet = piece.packet
        return self._form.data(piece, data)

    def gap(self, piece: Piece, gap: Gap) -> str | bytes:
        self.packet = piece.packet
        return self._form.gap(piece, gap)

    def message_end(self, piece: Piece) -> str | bytes:
        self.packet = piece.packet
        return self._form.message_end(piece)

    def ended(self, piece: Piece) -> str | bytes:
        self.packet = piece.packet
        return self._form.ended(piece)

    def close(self) -> str | bytes:
        return self._form.close()


class Conversation(OfConnection):
    """The rows of a connection in one form; they come as its packets are gone over.

    `side` None: what both sides said.  `left_out` counts the bytes of text beyond `cap`,
    `changes` how often rows came.
    """

    def __init__(
        self,
        capture: Capture,
        conn: int,
        form: str,
        width: int,
        side: int | None = None,
        numeric: bool = False,
        cap: int = DEFAULT_CAP,
    ) -> None:
        super().__init__(conn)
        self.form, self.side = form, side
        self.left_out = self.changes = 0
        self._width = max(width, len(_INDENT) + 8)
        self._cap = cap
        self._capture = capture
        self._texts = UnnamedFile()
        self._rows = Spool(ROW_DTYPE)
        self._open = ""  # a line that goes on
        self._tail: tuple[Row, ...] = ()  # what of it is not kept yet
        self._opened = 0  # the packet in which it began
        self._kept_of_line = False  # whether rows of it are kept already
        self._speaker = len(SIGNS) - 1
        options = FollowOptions(conn, form, side)
        streams = form in FORMS[:2]
        self._form = _Noted(form_of(options, numeric, False)) if streams else None
        self._follow = Follow(options, self._form) if self._form else None
        self._begin(capture, self._add, self._end)

    # --- who reads ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._rows.count + len(self._tail)

    def join(self) -> None:
        """Wait until it has ended."""
        self._pass.join()

    def rows(self, first: int, count: int) -> list[Row]:
        """Some rows, fewer at the end."""
        tail, kept = self._tail, self._rows.count
        rows = self._rows.read(first, count)
        found = []
        if len(rows):
            start = int(rows["at"][0])
            text = self._texts.read(start, int(rows["at"][-1] - start + rows["size"][-1]))
            for at, packet, size, speaker, begins in rows.tolist():
                piece = text[at - start : at - start + size].decode()
                found.append(Row(piece, packet, speaker, begins))
        return [*found, *tail[max(first - kept, 0) : max(first + count - kept, 0)]]

    def place(self, packet: int) -> int:
        """That of the first row that begins with this packet or a later one."""
        return self._rows.bisect("packet", packet)

    def text(self) -> Iterator[str]:
        """All of it in lines, as it was before it was cut into rows."""
        for first in range(0, len(self), _AT_ONCE):
            rows = self.rows(first, _AT_ONCE)
            yield "".join(f"\n{row.text}" if row.begins else row.text for row in rows)

    def search(self, wanted: "Wanted", place: int, forward: bool, going: Going) -> int | None:
        """The place of the next row behind (or before) `place` with a match; None: no other.

        A match may go over _OVERLAP rows.  Of bytes the first in each packet is found.
        """
        if isinstance(wanted.pattern, bytes):
            packet = self.rows(place, 1)[0].packet if len(self) else 0
            found = _find_bytes(self._capture, self, wanted.pattern, packet, forward, going)
            return None if found is None else self._place_of_byte(*found)
        step = _AT_ONCE - _OVERLAP
        start = place + 1 if forward else place - step
        while going():
            first = max(start, 0)
            places = [
                first + at
                for at in _matches(wanted.pattern, self.rows(first, _AT_ONCE))
                if (first + at > place if forward else first + at < place)
            ]
            if places:
                return places[0] if forward else places[-1]
            if start >= len(self) or start < 0:
                return None
            start += step if forward else -step
        return None

    def _place_of_byte(self, packet: int, into: int) -> int:
        """The row of a byte of a packet's data: exact in the hexadecimal form."""
        place = self.place(packet)
        if self.form == "hex":
            place += into // 16
        return min(place, max(len(self) - 1, 0))

    # --- in the pass's thread ----------------------------------------------------------------

    def _add(self, batch: Batch) -> None:
        pieces = self._spoken(batch) if self._follow is None else self._followed(batch)
        self._keep(self._cut(pieces))

    def _end(self) -> None:
        pieces = [] if self._follow is None else [(part.decode(), 0) for part in self._follow.end()]
        if self._open:
            pieces.append(("\n", 0))
        self._keep(self._cut(iter(pieces)))

    def _followed(self, batch: Batch) -> Iterator[tuple[str, int]]:
        """Texts, and the packet that each begins with."""
        assert self._follow is not None
        assert self._form is not None
        for part in self._follow.add(batch):
            text = part.decode()
            yield (_signed(text) if self.form == "hex" else text), self._form.packet

    def _spoken(self, batch: Batch) -> Iterator[tuple[str, int]]:
        for packet, group in (batch.said or {}).items():
            for said in group:
                if self.side in (None, said.side):
                    yield self._drawn(said), packet

    def _drawn(self, said: Said) -> str:
        """A message in a line, or in full."""
        note = said.message.kind == Kind.NOTE
        sign = SIGNS[-1] if note else SIGNS[said.side]
        if self.form == "details":
            return "".join(f"{sign} {line}\n" for line in detail_lines(said))
        took = "" if said.latency_ns is None else f"  after {span(max(said.latency_ns, 0))}"
        return f"{sign} {short(said, False)}{took}\n"

    def _cut(self, pieces: Iterator[tuple[str, int]]) -> Iterator[Row]:
        """Rows of the lines that the pieces make up; the last may wait for more."""
        for text, packet in pieces:
            head, *rest = text.split("\n")
            self._take(head, packet)
            for line in rest:
                yield from self._line(False)
                self._take(line, packet)
            if len(self._open) > _OPEN * self._width:
                yield from self._line(True)

    def _take(self, text: str, packet: int) -> None:
        if not self._open and not self._kept_of_line:
            self._opened = packet
        self._open += text

    def _line(self, goes_on: bool) -> Iterator[Row]:
        """The rows of the line that is open, without the last where it goes on."""
        rows = self._pieces(self._open)
        self._open = rows.pop().text if goes_on else ""
        self._kept_of_line = goes_on
        yield from rows

    def _pieces(self, line: str) -> list[Row]:
        line = line.expandtabs()
        begins = not self._kept_of_line
        if begins:
            self._speaker = SIGNS.index(line[0]) if line[:1] in SIGNS else len(SIGNS) - 1
        found = _wrapped(line, self._width, begins)
        return [
            Row(text, self._opened, self._speaker, begins and not at)
            for at, text in enumerate(found)
        ]

    def _keep(self, rows: Iterator[Row]) -> None:
        """Append rows and their texts, as far as there is room."""
        values, texts, at = [], [], self._texts.size
        for row in rows:
            text = row.text.encode()
            if at + len(text) > self._cap or self.left_out:
                self.left_out += len(text)
                continue
            values.append((at, row.packet, len(text), row.speaker, row.begins))
            texts.append(text)
            at += len(text)
        self._tail = ()
        self._texts.append(b"".join(texts))
        self._rows.append(np.array(values, ROW_DTYPE))
        if self._open and not self.left_out:
            self._tail = tuple(self._pieces(self._open))
        self.changes += 1


def _signed(text: str) -> str:
    """Lines of the hexadecimal form with the sign of who speaks instead of an indent."""
    lines = text.split("\n")
    return "\n".join(
        line
        if not line or line.startswith(SIGNS[-1])
        else f"{SIGNS[1]} {line.removeprefix(_HEX_INDENT)}"
        if line.startswith(_HEX_INDENT)
        else f"{SIGNS[0]} {line}"
        for line in lines
    )


def _wrapped(line: str, width: int, begins: bool) -> list[str]:
    """A line in pieces that fit into rows; at least one."""
    first = width if begins else width - len(_INDENT)
    if line.isascii():
        rest = range(first, len(line), width - len(_INDENT))
        return [line[a:b] for a, b in pairwise([0, *rest, max(len(line), 1)])]
    if not begins:
        return chop_cells(line, first) or [""]
    head = chop_cells(line, first)[0]
    return [head, *chop_cells(line[len(head) :], width - len(_INDENT))]


# --- searching -----------------------------------------------------------------------------


class SearchError(ValueError):
    """What cannot be searched for; one sentence."""


class Wanted(NamedTuple):
    """What is searched for: in the text that is shown, or bytes of the streams."""

    pattern: "re.Pattern[str] | bytes"


def wanted(text: str) -> Wanted:
    """`/REGEX/`, `0xHEX`, or a text in whatever case; raises SearchError."""
    if text.startswith("/") and len(text) > 1:
        source = text[1:].removesuffix("/")
        try:
            return Wanted(re.compile(source, re.MULTILINE))
        except re.error as error:
            raise SearchError(f"This is no regular expression: {error}.") from None
    if text.startswith("0x"):
        try:
            data = bytes.fromhex(text[2:])
        except ValueError:
            data = b""
        if not 0 < len(data) <= _LONGEST:
            raise SearchError(
                f"Behind 0x give up to {_LONGEST} bytes of two hexadecimal digits each."
            )
        return Wanted(data)
    return Wanted(re.compile(re.escape(text), re.IGNORECASE))


def _matches(pattern: "re.Pattern[str]", rows: list[Row]) -> Iterator[int]:
    """The rows in which matches begin, in order; those of one line are searched as one text."""
    starts, size = [], 0
    for row in rows:
        size += row.begins  # the line end before it
        starts.append(size)
        size += len(row.text)
    text = "".join(f"\n{row.text}" if row.begins else row.text for row in rows)
    places = np.array(starts)
    for match in pattern.finditer(text):
        if match.end() > match.start():
            yield max(int(np.searchsorted(places, match.start(), "right")) - 1, 0)


def _find_bytes(
    capture: Capture,
    of: Conversation,
    needle: bytes,
    packet: int,
    forward: bool,
    going: Going,
) -> tuple[int, int] | None:
    """The packet in which the next match begins, and where in its data."""
    last = None
    for found in _byte_matches(capture, of, needle, going):
        if forward and found[0] > packet:
            return found
        if not forward and found[0] >= packet:
            return last
        last = found
    return None if forward else last


def _byte_matches(
    capture: Capture, of: Conversation, needle: bytes, going: Going
) -> Iterator[tuple[int, int]]:
    """Where the bytes are in the streams, over the ends of packets, but not over gaps."""
    streams, tails = Streams(of.conn, of.conn), [_Tail(), _Tail()]
    for batch in packets_of(capture, of.conn, going):
        for piece in pieces_of(streams.add(batch)):
            if of.side not in (None, piece.side):
                continue
            tail = tails[piece.side]
            if piece.kind == PieceKind.DATA:
                data = bytes(batch.buffer[piece.at : piece.at + piece.cap])
                yield from tail.find(needle, piece.packet, data)
            if gap_of(piece) is not None:
                tails[piece.side] = _Tail()


class _Tail:
    """The last bytes of a side, in which a match may begin, and where each of them stood."""

    def __init__(self) -> None:
        self._data = b""
        self._places: list[tuple[int, int]] = []

    def find(self, needle: bytes, packet: int, data: bytes) -> Iterator[tuple[int, int]]:
        """Take more bytes; where matches begin that end in them."""
        whole, before = self._data + data, len(self._data)
        at = whole.find(needle)
        while at >= 0:
            yield self._places[at] if at < before else (packet, at - before)
            at = whole.find(needle, at + 1)
        keep = len(needle) - 1
        start = max(len(whole) - keep, 0)
        old = self._places[start:] if start < before else []
        self._places = [*old, *((packet, i) for i in range(max(start - before, 0), len(data)))]
        self._data = whole[start:]


# --- saving --------------------------------------------------------------------------------


def save_text(shown: Conversation, path: str) -> str:
    """Write the conversation as it is shown to a new file; a sentence that says what was done."""
    count = 0
    with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        for place, text in enumerate(shown.text()):
            count += file.write(text.removeprefix("\n") if not place else text)
        count += file.write("\n")
    left = f"; {counted(shown.left_out, 'byte')} are left out" if shown.left_out else ""
    return f"{counted(count, 'character')} written to {path}{left}."


def save_bytes(capture: Capture, shown: Conversation, path: str) -> str:
    """Write the captured bytes of the sides that are shown to a new file, as --follow N,raw."""
    options = FollowOptions(shown.conn, "raw", shown.side)
    follow = Follow(options, form_of(options, True, False))
    count = 0
    with open(path, "xb") as file:
        for batch in packets_of(capture, shown.conn):
            count += sum(map(file.write, follow.add(batch)))
    gaps = " ".join(follow.remarks(capture.source.name, 1))
    return f"{counted(count, 'byte')} written to {path}{f'; {gaps}' if gaps else '.'}"
