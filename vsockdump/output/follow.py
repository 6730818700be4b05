"""--follow: what the two ends of one connection said to each other, as it comes.

Text, hex and JSON say where something is missing, where a side ends and where a message
ends; raw gives nothing but the captured bytes, and the rest is said on stderr.  In text
every line begins with who sent it (`>` initiator, `<` acceptor, `*` vsockdump): a payload
cannot pass for the other side, or for us.

Rules for editors: captured bytes are hostile.  What reaches a terminal went through
`escaped.in_lines` or is hexadecimal.
"""

import codecs
import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from vsockdump import wire
from vsockdump.address import Endpoint
from vsockdump.batch import NO_TIME, Batch, Known
from vsockdump.columns import Mask, ends_in, tracked
from vsockdump.errors import UsageError
from vsockdump.output.escaped import in_lines
from vsockdump.output.tables import counted
from vsockdump.track.stream import Gap, Kind, Piece, Streams, gap_of, merged, pieces_of
from vsockdump.wire import Seqpacket, Shutdown

SIDES: Final = ("initiator", "acceptor")
FORMS: Final = ("text", "hex", "raw", "json")

_SIDE_SIGN: Final = (">", "<")
_SIDE_COLOUR: Final = ("\033[36m", "\033[33m")
_DIM: Final = "\033[2m"
_PLAIN: Final = "\033[0m"
_EOM: Final = int(Seqpacket.EOM)  # an enum's own & takes as long as all else of a piece
_ENDS: Final = (int(Kind.SHUTDOWN), int(Kind.RST))
_HEX_WIDTH: Final = 16
_HEX_INDENT: Final = ("", "    ")


class FollowError(UsageError):
    """A --follow that cannot be; one sentence."""


class FollowOptions(NamedTuple):
    """What to follow: a connection, in which form ("" where that is not said), which side."""

    conn: int
    form: str = ""
    side: int | None = None


def follow_options(text: str) -> FollowOptions:
    """The options in `N[,FORM][,SIDE]`; raises FollowError."""
    number, *words = text.split(",")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 2**63):
        raise FollowError(
            "--follow takes the number of a connection, as in --follow 7, not"
            f" {number or 'nothing'}."
        )
    options = FollowOptions(int(number))
    for word in words:
        if word in FORMS and not options.form:
            options = options._replace(form=word)
        elif word in SIDES and options.side is None:
            options = options._replace(side=SIDES.index(word))
        else:
            raise FollowError(
                f"--follow {text} cannot be used at {word or 'the comma'}; give one of"
                f" {', '.join(FORMS)}, and one of {' and '.join(SIDES)} for a single side."
            )
    return options


class Head(NamedTuple):
    """Who speaks: the ends of a connection, and whether it is known who began it."""

    conn: int
    initiator: Endpoint
    acceptor: Endpoint
    sides_known: bool
    socket_type: str


class Form(Protocol):
    """How a dialogue looks.  Each method gives what is to be printed, perhaps nothing."""

    def head(self, head: Head) -> str | bytes:
        """Before everything else."""

    def data(self, piece: Piece, data: memoryview) -> str | bytes:
        """Captured bytes."""

    def gap(self, piece: Piece, gap: Gap) -> str | bytes:
        """Bytes that are not there."""

    def message_end(self, piece: Piece) -> str | bytes:
        """The end of a message, after its data."""

    def ended(self, piece: Piece) -> str | bytes:
        """A SHUTDOWN or RST."""

    def close(self) -> str | bytes:
        """After everything else."""


class _Missing(NamedTuple):
    """A gap, and the piece where it begins."""

    piece: Piece
    gap: Gap


class Follow:
    """The dialogue of one connection, of what a filter chose of it.

    `chosen` says whether the capture has the connection, and the filter a packet of it.
    """

    def __init__(self, options: FollowOptions, form: Form) -> None:
        self._options = options
        self._form = form
        self._streams = Streams(options.conn, options.conn)
        self._head: Head | None = None
        self._hidden: dict[tuple[int, str], _Missing] = {}  # by side and reason
        self.chosen = False
        self._gaps = self._missing = 0  # how many, and the bytes known to be missing
        self._more = False  # whether a gap is larger than is known

    def add(self, batch: Batch, mask: Mask | None = None) -> Iterator[bytes]:
        """What a tracked batch adds; `mask` says which packets a filter chose (None: all)."""
        own = tracked(batch)["conn"] == self._options.conn
        if not own.any():
            return
        if self._head is None:
            self._head = _head(batch, int(np.argmax(own)))
        if not self.chosen and (mask is None or (own & mask).any()):
            self.chosen = True
            yield _bytes(self._form.head(self._head))
        for piece in pieces_of(self._streams.add(batch)):
            if self._options.side not in (None, piece.side) and piece.kind != Kind.RST:
                continue
            if mask is None or mask[piece.row]:
                yield from map(_bytes, self._show(piece, batch.buffer))
            else:
                self._hide(piece)

    def end(self) -> Iterator[bytes]:
        """What is left to print."""
        if self.chosen:
            yield from map(_bytes, self._show_hidden())
            yield _bytes(self._form.close())

    def remarks(self, source: str, connections: int) -> Iterator[str]:
        """What has to be said of the output, in sentences; `source` has so many connections."""
        conn = self._options.conn
        if self._head is None:
            there = f"only {counted(connections, 'connection')}" if connections else "nor any other"
            yield f"{source} has no connection {conn}, {there}; -z conv lists them."
        elif not self.chosen:
            yield f"Connection {conn} of {source} has no packet that matches the filter."
        elif self._gaps and isinstance(self._form, _RawForm):
            size = counted(self._missing, "byte")
            if self._more:
                size = f"at least {size}" if self._missing else "an unknown number of bytes"
            yield (
                f"missing in the output: {size} of connection {conn}, in"
                f" {counted(self._gaps, 'gap')}; --follow {conn},text shows where."
            )

    def _show(self, piece: Piece, buffer: memoryview) -> Iterator[str | bytes]:
        yield from self._show_hidden()
        if piece.kind in _ENDS:
            yield self._form.ended(piece)
            return
        if piece.cap:
            yield self._form.data(piece, buffer[piece.at : piece.at + piece.cap])
        gap = gap_of(piece)
        if gap is not None:
            yield self._show_gap(piece, gap)
        if piece.kind == Kind.DATA and piece.flags & _EOM:
            yield self._form.message_end(piece)

    def _hide(self, piece: Piece) -> None:
        """Take note of bytes that are not shown; those of one reason are one gap."""
        gap = gap_of(piece)
        if piece.kind == Kind.DATA:
            gap = Gap(piece.offset, piece.len, piece.len, "filter")
        if gap is not None:
            key = piece.side, gap.why
            hidden = self._hidden.get(key)
            if hidden is None:
                self._hidden[key] = _Missing(piece, gap)
            else:
                self._hidden[key] = hidden._replace(gap=merged(hidden.gap, gap))

    def _show_hidden(self) -> Iterator[str | bytes]:
        for missing in self._hidden.values():
            yield self._show_gap(*missing)
        self._hidden.clear()

    def _show_gap(self, piece: Piece, gap: Gap) -> str | bytes:
        self._gaps += 1
        self._missing += gap.least
        self._more = self._more or gap.size is None
        return self._form.gap(piece, gap)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _head(batch: Batch, row: int) -> Head:
    """The head by a connection's first packet, as the tracker takes it."""
    after = tracked(batch)[row]
    kind = wire.name_of(wire.SocketType, int(batch.rows[row]["virtio"]["type"]))
    sides_known = bool(after["known"] & Known.SIDE)
    return Head(int(after["conn"]), *ends_in(batch, row), sides_known, kind)


def form_of(options: FollowOptions, numeric: bool, colour: bool) -> Form:
    """The form that the options ask for."""
    match options.form:
        case "hex":
            return _HexForm(numeric, colour)
        case "raw":
            return _RawForm()
        case "json":
            return _JsonForm()
    return _TextForm(numeric, colour)


# --- for people --------------------------------------------------------------------------

_WHY: Final = {
    "lost": "by fwd_cnt, their packets were not captured",
    "snaplen": "cut by the snaplen",
    "frame": "the frame ended before them",
    "filter": "left out by the filter",
}
_SHUTDOWNS: Final = {
    int(Shutdown.RCV): "receives no more",
    int(Shutdown.SEND): "sends no more",
    int(Shutdown.RCV | Shutdown.SEND): "neither sends nor receives any more",
}


def gap_text(gap: Gap, who: str) -> str:
    """A gap in what `who` sent, in words."""
    if gap.why == "before-capture":
        return f"what the {who} sent before the capture is missing"
    why = _WHY[gap.why]
    if not gap.least:
        return f"bytes of the {who} are missing, how many is unknown: {why}"
    size = counted(gap.least, "byte") if gap.size is not None else f"at least {gap.least} bytes"
    return f"{size} of the {who} {'is' if gap.size == 1 else 'are'} missing: {why}"


def _ended_text(piece: Piece) -> str:
    """A SHUTDOWN or RST in words."""
    who = SIDES[piece.side]
    if piece.kind == Kind.RST:
        return f"RST by the {who}"
    return f"the {who} {_SHUTDOWNS.get(piece.flags & 3, 'sends SHUTDOWN without flags')}"


def _message_text(piece: Piece) -> str:
    what = "message and record" if piece.flags & Seqpacket.EOR else "message"
    return f"end of {what} of the {SIDES[piece.side]}"


class _ForPeople:
    """What text and hex have in common: the head and the marks, each on a line."""

    def __init__(self, numeric: bool, colour: bool) -> None:
        self._numeric = numeric
        self._colour = colour

    def head(self, head: Head) -> str:
        note = "" if head.sides_known else "; who of them began it is not known"
        out = self._mark(f"connection {head.conn}, {head.socket_type}{note}")
        for side, end in enumerate((head.initiator, head.acceptor)):
            text = end.numeric() if self._numeric else str(end)
            out += self._mark(f"{_SIDE_SIGN[side]} {SIDES[side]} {text}")
        return out

    def gap(self, piece: Piece, gap: Gap) -> str:
        return self._mark(gap_text(gap, SIDES[piece.side]))

    def message_end(self, piece: Piece) -> str:
        return self._mark(_message_text(piece))

    def ended(self, piece: Piece) -> str:
        return self._mark(_ended_text(piece))

    def close(self) -> str:
        return ""

    def _mark(self, text: str) -> str:
        return f"{_DIM}* {text}{_PLAIN}\n" if self._colour else f"* {text}\n"

    def _coloured(self, text: str, side: int) -> str:
        return f"{_SIDE_COLOUR[side]}{text}{_PLAIN}" if self._colour else text


class _TextForm(_ForPeople):
    """Text, its lines behind the sign of who sent them.

    A side's text goes on over packets; characters that are split are put together.
    """

    def __init__(self, numeric: bool, colour: bool) -> None:
        super().__init__(numeric, colour)
        self._texts = (_Decoder(), _Decoder())
        self._open: int | None = None  # whose line is not ended

    def data(self, piece: Piece, data: memoryview) -> str:
        return self._say(piece.side, self._texts[piece.side].take(data))

    def gap(self, piece: Piece, gap: Gap) -> str:
        return self._break(piece.side) + super().gap(piece, gap)

    def message_end(self, piece: Piece) -> str:
        return self._break(piece.side) + super().message_end(piece)

    def ended(self, piece: Piece) -> str:
        return self._break(piece.side) + super().ended(piece)

    def close(self) -> str:
        return self._break(0) + self._break(1)

    def _break(self, side: int) -> str:
        """Let a side's text be ended: what waits for more, and the line."""
        text = self._say(side, self._texts[side].end())
        return text + self._end_line()

    def _end_line(self) -> str:
        ended, self._open = self._open, None
        return "" if ended is None else "\n"

    def _say(self, side: int, text: str) -> str:
        """Text of a side, each line behind its sign."""
        if not text:
            return ""
        out = []
        if self._open is not None and self._open != side:
            out.append(self._end_line())
        *lines, rest = text.split("\n")
        for line in lines:
            out.append(self._part(side, line) + "\n")
            self._open = None
        if rest:
            out.append(self._part(side, rest))
            self._open = side
        return "".join(out)

    def _part(self, side: int, text: str) -> str:
        """A line, or what is added to one that is open."""
        if self._open != side:
            text = f"{_SIDE_SIGN[side]} {text}" if text else _SIDE_SIGN[side]
        return self._coloured(text, side) if text else ""


class _Decoder:
    """The bytes of one side as text that a terminal can be given.

    CR LF counts as LF; a CR or a character that may go on in the next packet waits for it.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._waiting = ""

    def take(self, data: memoryview | bytes) -> str:
        """The text of more bytes."""
        return self._clean(self._decoder.decode(bytes(data)))

    def end(self) -> str:
        """The text of what waited."""
        return self._clean(self._decoder.decode(b"", final=True), True)

    def _clean(self, text: str, final: bool = False) -> str:
        text, self._waiting = self._waiting + text, ""
        if text.endswith("\r") and not final:
            text, self._waiting = text[:-1], "\r"
        return in_lines(text.replace("\r\n", "\n"))


class _HexForm(_ForPeople):
    """Offset in the stream, bytes and ASCII; the acceptor's lines are indented."""

    def data(self, piece: Piece, data: memoryview) -> str:
        out = []
        for at in range(0, len(data), _HEX_WIDTH):
            part = bytes(data[at : at + _HEX_WIDTH])
            ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
            digits = f"{part[:8].hex(' ')}  {part[8:].hex(' ')}"
            line = f"{piece.offset + at:08x}  {digits:<48}  {ascii_text}"
            out.append(self._coloured(_HEX_INDENT[piece.side] + line, piece.side) + "\n")
        return "".join(out)


# --- for programs --------------------------------------------------------------------------


class _RawForm:
    """The captured bytes and nothing else."""

    def head(self, _head: Head) -> bytes:
        return b""

    def data(self, _piece: Piece, data: memoryview) -> bytes:
        return bytes(data)

    def gap(self, _piece: Piece, _gap: Gap) -> bytes:
        return b""

    def message_end(self, _piece: Piece) -> bytes:
        return b""

    def ended(self, _piece: Piece) -> bytes:
        return b""

    def close(self) -> bytes:
        return b""


class _JsonForm:
    """One object a line; `event` says what it is, data are hexadecimal."""

    def head(self, head: Head) -> str:
        return _json_line(
            "connection",
            conn=head.conn,
            initiator=head.initiator._asdict(),
            acceptor=head.acceptor._asdict(),
            initiator_known=head.sides_known,
            type=head.socket_type.lower(),
        )

    def data(self, piece: Piece, data: memoryview) -> str:
        return _json_line("data", **_common(piece), offset=piece.offset, data=data.hex())

    def gap(self, piece: Piece, gap: Gap) -> str:
        return _json_line("gap", **_common(piece), **gap_values(gap))

    def message_end(self, piece: Piece) -> str:
        record = bool(piece.flags & Seqpacket.EOR)
        end = piece.offset + piece.len
        return _json_line("message-end", **_common(piece), offset=end, eor=record)

    def ended(self, piece: Piece) -> str:
        if piece.kind == Kind.RST:
            return _json_line("rst", **_common(piece))
        names = [flag.name for flag in Shutdown if piece.flags & flag]
        return _json_line("shutdown", **_common(piece), flags=names)

    def close(self) -> str:
        return ""


def gap_values(gap: Gap) -> dict[str, Any]:
    """A gap as the values of a JSON object."""
    return {"offset": gap.offset, "size": gap.size, "at_least": gap.least, "why": gap.why}


def _common(piece: Piece) -> dict[str, Any]:
    time_ns = None if piece.time_ns == NO_TIME else piece.time_ns
    return {"packet": piece.packet, "time_ns": time_ns, "side": SIDES[piece.side]}


def _json_line(event: str, **values: Any) -> str:
    return json.dumps({"event": event, **values}, separators=(",", ":")) + "\n"
