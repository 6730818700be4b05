"""The packet lines: tcpdump's manner, with what vsock users need on one line.

A line is a list of columns (see lines.py); a rung of verbosity adds columns, those of -v
and above on lines of their own.  Colour is part of a cell's literal text.
"""

import time
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump import wire
from vsockdump.batch import MALFORMED_TEXT, NO_TIME, Batch, Known, Layers, Malformed
from vsockdump.output.fields import tracked
from vsockdump.output.fields_text import flag_codes, flag_words, has_flags
from vsockdump.output.lines import LineColumn, Lines
from vsockdump.output.rows import Cell, Kind
from vsockdump.track.marks import MARKS, WRONG, Mark
from vsockdump.track.states import State, state_word

Column = NDArray[Any]

_DAY_NS: Final = 86_400_000_000_000
_OFFSET_STEP_NS: Final = 900_000_000_000  # time zones change at quarters of an hour
_DETAIL: Final = "\n\t"
_SHOWN_MARKS: Final = Mark.MIDSTREAM | Mark.NO_SOCKET | Mark.ZERO_CREDIT

_RED: Final = "\033[1;31m"
_DIM: Final = "\033[2m"
_PLAIN: Final = "\033[0m"
_OP_COLOURS: Final = {
    wire.Op.REQUEST: "\033[32m",
    wire.Op.RESPONSE: "\033[32m",
    wire.Op.RST: "\033[31m",
    wire.Op.SHUTDOWN: "\033[33m",
    wire.Op.RW: "\033[36m",
    wire.Op.CREDIT_UPDATE: "\033[35m",
    wire.Op.CREDIT_REQUEST: "\033[35m",
}


class TextOptions(NamedTuple):
    """tcpdump's letters: -t (times), -q, -v, -n, -#, -x, -X, -A, --nano, and colour.

    `times` is the number of t's, 0 to 5; `hex_headers`: -xx and -XX show the link header.
    """

    times: int = 0
    quiet: bool = False
    verbose: int = 0
    numeric: bool = False
    number: bool = False
    dump: Kind | None = None
    dump_link: bool = False
    nano: bool = False
    colour: bool = False


class TextView:
    """Packet lines of batches; keeps the times that -ttt and -ttttt count from."""

    def __init__(self, options: TextOptions) -> None:
        self._options = options
        self._previous = NO_TIME
        self._first = NO_TIME
        self._lines = Lines(self._columns())
        self._days: dict[int, int] = {}

    def write(self, batch: Batch, chosen: Column | None = None) -> Any:
        """The lines of a batch; see Lines.write."""
        return self._lines.write(batch, chosen)

    def _columns(self) -> list[LineColumn]:
        options = self._options
        columns: list[LineColumn] = []
        if options.number:
            columns.append(
                LineColumn(Cell(Kind.DEC, digits=5), lambda batch: batch.rows["number"])
            )
        columns += self._time_columns("  " if options.number else "")
        columns += _packet_columns(options, " " if columns else "")
        if options.verbose and not options.quiet:
            columns += _detail_columns(options)
        if options.verbose > 1 and not options.quiet:
            columns += _header_columns()
        dump = options.dump
        if dump is None and options.verbose > 2:
            dump = Kind.FULL_DUMP
        if dump is not None:
            columns.append(_dump_column(dump, options.dump_link))
        return columns

    def _time_columns(self, prefix: str) -> list[LineColumn]:
        digits = 9 if self._options.nano else 6
        clock = Cell(Kind.CLOCK, prefix, f"{prefix}no time", digits=digits)
        match self._options.times:
            case 0:
                return [LineColumn(clock, self._time_of_day, _timed)]
            case 1:
                return []
            case 2:
                cell = Cell(Kind.SECONDS, prefix, f"{prefix}no time", digits=digits)
                return [LineColumn(cell, lambda batch: batch.rows["time_ns"], _timed)]
            case 4:
                date = Cell(Kind.WORD, prefix)
                clock.prefix = b" "
                return [
                    LineColumn(date, _local_day, _timed, word=_date),
                    LineColumn(clock, self._time_of_day, _timed),
                ]
            case 3:
                clock.prefix += b" "
                return [LineColumn(clock, self._since_previous, _timed)]
            case _:
                clock.prefix += b" "
                return [LineColumn(clock, self._since_first, _timed)]

    def _time_of_day(self, batch: Batch) -> Column:
        return _local(batch) % _DAY_NS

    def _since_previous(self, batch: Batch) -> Column:
        times = batch.rows["time_ns"]
        before = np.empty_like(times)
        before[1:] = times[:-1]
        before[:1] = times[:1] if self._previous == NO_TIME else self._previous
        if len(times):
            self._previous = int(times[-1])
        return times - before

    def _since_first(self, batch: Batch) -> Column:
        times = batch.rows["time_ns"]
        if self._first == NO_TIME:
            timed = times[times != NO_TIME]
            self._first = int(timed[0]) if len(timed) else NO_TIME
        return times - self._first


def _timed(batch: Batch) -> Column:
    mask: Column = batch.rows["time_ns"] != NO_TIME
    return mask


def _local(batch: Batch) -> Column:
    """Time stamps as nanoseconds of local time since 1970."""
    times = batch.rows["time_ns"]
    if not len(times):
        return times.copy()
    steps = times // _OFFSET_STEP_NS
    low, high = int(steps.min()), int(steps.max())
    if low == high:
        return times + _utc_offset_ns(low)
    unique, inverse = np.unique(steps, return_inverse=True)
    offsets = np.array([_utc_offset_ns(int(step)) for step in unique], np.int64)
    return times + offsets[inverse]


def _utc_offset_ns(step: int) -> int:
    """Nanoseconds that local time is ahead of UTC in that quarter of an hour."""
    try:
        return time.localtime(step * _OFFSET_STEP_NS // 10**9).tm_gmtoff * 10**9
    except (OverflowError, OSError, ValueError):
        return 0


def _local_day(batch: Batch) -> Column:
    return _local(batch) // _DAY_NS


def _date(day: int) -> str:
    return str(np.datetime64(day, "D"))


def _virtio(batch: Batch) -> Column:
    mask: Column = batch.rows["layers"] == Layers.VIRTIO
    return mask


def _monitor_only(batch: Batch) -> Column:
    mask: Column = batch.rows["layers"] == Layers.MONITOR
    return mask


def _any_layer(batch: Batch) -> Column:
    mask: Column = batch.rows["layers"] != Layers.NONE
    return mask


def _address(batch: Batch, name: str) -> Column:
    """An address of the virtio header, or where there is none, of the monitor header."""
    rows = batch.rows
    inner: Column = rows["virtio"][name]
    if (rows["layers"] == Layers.VIRTIO).all():
        return inner
    return np.where(rows["layers"] == Layers.VIRTIO, inner, rows["mon"][name])


def _endpoint(end: str, prefix: str, numeric: bool) -> list[LineColumn]:
    kind = Kind.DEC if numeric else Kind.CID
    cid, port = f"{end}_cid", f"{end}_port"
    return [
        LineColumn(Cell(kind, prefix), lambda batch: _address(batch, cid), _any_layer),
        LineColumn(Cell(Kind.DEC, ":"), lambda batch: _address(batch, port), _any_layer),
    ]


def _packet_columns(options: TextOptions, space: str) -> list[LineColumn]:
    """The line itself: connection, ends, what it is, how much, and what is wrong with it."""
    columns = []
    if not options.quiet:
        prefix, space = space + "#", " "
        columns.append(
            LineColumn(
                Cell(Kind.DEC, prefix, f"{prefix}-"),
                lambda batch: tracked(batch)["conn"],
                lambda batch: tracked(batch)["conn"] != 0,
            )
        )
    columns += _endpoint("src", space, options.numeric)
    columns += _endpoint("dst", " > ", options.numeric)
    columns += _operation_columns(options.colour)
    columns.append(
        LineColumn(Cell(Kind.DEC, " "), lambda batch: tracked(batch)["data_len"], _is_data)
    )
    if options.quiet:
        return columns
    columns.append(
        LineColumn(
            Cell(Kind.WORD, " "),
            flag_codes,
            has_flags,
            word=lambda code: "|".join(flag_words(code)),
        )
    )
    columns += _credit_columns()
    columns += _mark_columns(options.colour)
    return columns


def _is_data(batch: Batch) -> Column:
    mask: Column = batch.rows["virtio"]["op"] == wire.Op.RW
    return mask


def _is_other_type(batch: Batch) -> Column:
    mask: Column = batch.rows["virtio"]["type"] != wire.SocketType.STREAM
    return mask & _virtio(batch)


def _operation_columns(colour: bool) -> list[LineColumn]:
    """Type when it is not STREAM, and op; of a frame without virtio what the monitor says."""
    ops = ["op 0", *[_coloured(op.name, _OP_COLOURS[op], colour) for op in wire.Op if op], "op "]
    types = ["type 0", *[kind.name for kind in wire.SocketType if kind], "type "]
    monitor = [op.name for op in wire.MonitorOp]
    return [
        LineColumn(
            Cell(Kind.WORD, " ", words=types),
            lambda batch: batch.rows["virtio"]["type"],
            _is_other_type,
        ),
        LineColumn(
            Cell(Kind.WORD, " ", words=ops), lambda batch: batch.rows["virtio"]["op"], _virtio
        ),
        LineColumn(
            Cell(Kind.WORD, " ", words=["UNKNOWN", "NO_INFO", "VIRTIO", "transport "]),
            lambda batch: batch.rows["mon"]["t"],
            _monitor_only,
        ),
        LineColumn(
            Cell(Kind.WORD, " ", words=[*monitor, "op "]),
            lambda batch: batch.rows["mon"]["op"],
            _monitor_only,
        ),
        LineColumn(
            Cell(Kind.DEC, " length "), lambda batch: batch.rows["payload_wire"], _monitor_only
        ),
    ]


def _coloured(text: str, colour: str, on: bool) -> str:
    return f"{colour}{text}{_PLAIN}" if on else text


def _credit_columns() -> list[LineColumn]:
    """The sender's free credit while it can send, and what an update gives the other end."""

    def shows_free(batch: Batch) -> Column:
        op = batch.rows["virtio"]["op"]
        known: Column = (tracked(batch)["known"] & Known.FREE) != 0
        return known & (op != wire.Op.RST) & (op != wire.Op.REQUEST)

    def shows_granted(batch: Batch) -> Column:
        known: Column = (tracked(batch)["known"] & Known.GRANTED) != 0
        return known & (batch.rows["virtio"]["op"] == wire.Op.CREDIT_UPDATE)

    return [
        LineColumn(
            Cell(Kind.DEC, " grants "), lambda batch: tracked(batch)["granted"], shows_granted
        ),
        LineColumn(Cell(Kind.DEC, " free "), lambda batch: tracked(batch)["free"], shows_free),
    ]


def _mark_columns(colour: bool) -> list[LineColumn]:
    """What is worth knowing in brackets, what is wrong behind an exclamation mark."""

    def some(bits: int) -> Any:
        return lambda batch: (tracked(batch)["marks"] & bits) != 0

    def words(bits: int, left: str, right: str) -> Any:
        return lambda marks: left + _join_words(marks & bits) + right

    return [
        LineColumn(
            Cell(Kind.WORD, " "),
            lambda batch: tracked(batch)["marks"] & _SHOWN_MARKS,
            some(_SHOWN_MARKS),
            word=words(
                _SHOWN_MARKS, _DIM + "[" if colour else "[", "]" + _PLAIN if colour else "]"
            ),
        ),
        LineColumn(
            Cell(Kind.WORD, " "),
            lambda batch: tracked(batch)["marks"] & WRONG,
            some(WRONG),
            word=words(WRONG, _RED + "! " if colour else "! ", _PLAIN if colour else ""),
        ),
    ]


def _join_words(marks: int) -> str:
    return ", ".join(text.word for mark, text in MARKS.items() if marks & mark)


def _known(bit: Known) -> Any:
    return lambda batch: (tracked(batch)["known"] & bit) != 0


def _header(name: str) -> Any:
    return lambda batch: batch.rows["virtio"][name]


def _tracked_column(name: str) -> Any:
    return lambda batch: tracked(batch)[name]


def _detail_columns(options: TextOptions) -> list[LineColumn]:
    """-v: counters and state on a second line; then whatever explains the packet."""
    virtio = _virtio
    quiet_marks = ~(_SHOWN_MARKS | WRONG) & (2 * max(Mark) - 1)
    return [
        LineColumn(Cell(Kind.DEC, f"{_DETAIL}buf_alloc "), _header("buf_alloc"), virtio),
        LineColumn(Cell(Kind.DEC, ", fwd_cnt "), _header("fwd_cnt"), virtio),
        LineColumn(
            Cell(Kind.DEC, ", tx_cnt "), _tracked_column("tx_cnt"), _known(Known.TX_CNT)
        ),
        LineColumn(
            Cell(Kind.DEC, ", in flight "),
            _tracked_column("in_flight"),
            _known(Known.IN_FLIGHT),
        ),
        LineColumn(
            Cell(Kind.WORD, ", "),
            _tracked_column("state"),
            lambda batch: tracked(batch)["conn"] != 0,
            word=lambda state: state_word(state).replace("-", " ")
            if state != State.NONE
            else "no connection",
        ),
        LineColumn(
            Cell(Kind.WORD, ", sent by "),
            _tracked_column("side"),
            _known(Known.SIDE),
            word=lambda side: ("initiator", "acceptor")[side],
        ),
        LineColumn(
            Cell(Kind.WORD, " ["),
            lambda batch: tracked(batch)["marks"] & quiet_marks,
            lambda batch: (tracked(batch)["marks"] & quiet_marks) != 0,
            word=lambda marks: _join_words(marks & quiet_marks) + "]",
        ),
        LineColumn(
            Cell(Kind.WORD, _DETAIL),
            lambda batch: tracked(batch)["marks"] & WRONG,
            lambda batch: (tracked(batch)["marks"] & WRONG) != 0,
            word=_meanings,
        ),
        LineColumn(
            Cell(Kind.WORD, _DETAIL),
            lambda batch: batch.rows["malformed"],
            lambda batch: batch.rows["malformed"] != Malformed.NONE,
            word=lambda why: MALFORMED_TEXT[Malformed(why)],
        ),
        LineColumn(
            Cell(Kind.TEXT), _comment_texts, lambda batch: batch.rows["options"] != 0
        ),
    ]


def _meanings(marks: int) -> str:
    return _DETAIL.join(
        f"{text.word}: {text.meaning}" for mark, text in MARKS.items() if marks & WRONG & mark
    )


def _comment_texts(batch: Batch) -> Column:
    """The comments of a pcapng packet, each on a line, control characters escaped."""
    from vsockdump.capture.pcapng import packet_comments

    texts = np.full(len(batch), b"", object)
    rows = batch.rows
    for row in np.flatnonzero(rows["options"]):
        start = int(rows["record_at"][row])
        block = batch.buffer[start : start + int(rows["record_len"][row])]
        lines = [_printable(text) for text in packet_comments(block, batch.layout.big_endian)]
        texts[row] = "".join(f"{_DETAIL}comment: {line}" for line in lines).encode()
    return texts


def _printable(text: str) -> str:
    """Text for a terminal: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _header_columns() -> list[LineColumn]:
    """-vv: the remaining header fields and the frame, on a third line."""
    monitor = {"op": " op ", "t": ", transport ", "len": ", len "}
    columns = [
        LineColumn(
            Cell(Kind.DEC, prefix if name != "op" else f"{_DETAIL}monitor:{prefix}"),
            lambda batch, name=name: batch.rows["mon"][name],
            _any_layer,
        )
        for name, prefix in monitor.items()
    ]
    inner = {"len": "; virtio: len ", "type": ", type ", "op": ", op "}
    columns += [
        LineColumn(Cell(Kind.DEC, prefix), _header(name), _virtio)
        for name, prefix in inner.items()
    ]
    columns.append(LineColumn(Cell(Kind.HEX8, ", flags "), _header("flags"), _virtio))
    columns += [
        LineColumn(Cell(Kind.DEC, f"{_DETAIL}frame "), lambda batch: batch.rows["number"]),
        LineColumn(Cell(Kind.DEC, ": "), lambda batch: batch.rows["wirelen"]),
        LineColumn(Cell(Kind.DEC, " bytes, "), lambda batch: batch.rows["caplen"]),
        LineColumn(
            Cell(Kind.DEC, " captured, interface "), lambda batch: batch.rows["interface"]
        ),
    ]
    return columns


def _dump_column(kind: Kind, with_link: bool) -> LineColumn:
    """-x, -X, -A: the packet behind the monitor header, which is its link-level header."""

    def start(batch: Batch) -> Column:
        rows = batch.rows
        at: Column = rows["packet_at"].astype(np.int64)
        if with_link:
            return at
        return at + np.minimum(rows["link_size"] + wire.VSOCKMON.size, rows["caplen"])

    def size(batch: Batch) -> Column:
        rows = batch.rows
        return rows["packet_at"].astype(np.int64) + rows["caplen"] - start(batch)

    return LineColumn(Cell(kind), start, lambda batch: size(batch) > 0, size)
