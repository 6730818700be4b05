"""The packet lines: tcpdump's manner, with what vsock users need on one line.

A line is a list of columns (see lines.py); a rung of verbosity adds columns, those of -v
and above on lines of their own.  Colour is part of a cell's literal text.  The columns of the
line itself are functions, of which the terminal program makes its table.
"""

import time
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from vsockdump import wire
from vsockdump.batch import MALFORMED_TEXT, NO_TIME, Batch, Known, Layers, Malformed
from vsockdump.columns import (
    Column,
    OfBatch,
    address_column,
    both,
    ends_at,
    has_connection,
    has_marks,
    has_monitor,
    has_virtio,
    header_column,
    is_known,
    is_op,
    malformed,
    marks_of,
    packet_column,
    timed,
    tracked,
    tracked_column,
)
from vsockdump.findings.collector import events_by_packet, packet_sentence
from vsockdump.findings.registry import BY_KIND, WRONG_MARKS, marks_of_severity, rules_of_marks
from vsockdump.findings.registry import words as _words
from vsockdump.findings.rule import Rule, Severity
from vsockdump.output.escaped import on_line
from vsockdump.output.fields_text import flag_codes, flag_words, has_flags
from vsockdump.output.lines import LineColumn, Lines
from vsockdump.output.rows import Cell, Kind
from vsockdump.output.said import detail_texts, has_said, line_texts
from vsockdump.track import kinds
from vsockdump.track.marks import MARK_OF, REMARKS, Mark
from vsockdump.track.states import TERMINAL, State, state_word

_DAY_NS: Final = 86_400_000_000_000
_OFFSET_STEP_NS: Final = 900_000_000_000  # time zones change at quarters of an hour
_DETAIL: Final = "\n\t"
_LATER_RST: Final = int(Mark.LATER_RST)
_SAID: Final = int(Mark.REFUSED | Mark.RESET)  # the state's word says it
_NOTES: Final = marks_of_severity(Severity.NOTE)
SHOWN_MARKS: Final = int(Mark.MIDSTREAM | REMARKS & ~Mark.LATER_RST | _NOTES) & ~_SAID
_STATE_SHIFT: Final = 56
assert SHOWN_MARKS < 1 << _STATE_SHIFT
# What is malformed says so itself.
_MORE: Final = int(Mark.MORE)
_EXPLAINED: Final = (WRONG_MARKS | _NOTES | _MORE) & ~int(Mark.MALFORMED | Mark.CUT_HEADERS)
_RST: Final = int(wire.Op.RST)
_RW: Final = int(wire.Op.RW)
_FREE: Final = int(Known.FREE)
_CAPPED: Final = int(Known.CAPPED)
_CREDIT_UPDATE: Final = int(wire.Op.CREDIT_UPDATE)
_CREDIT_REQUEST: Final = int(wire.Op.CREDIT_REQUEST)
_REQUEST: Final = int(wire.Op.REQUEST)

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

    `times` is the number of t's, 0 to 5; `dump_link`: -xx and -XX show the link header;
    `apps`: messages of application protocols are shown where they are complete.
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
    apps: bool = False


class TextView:
    """Packet lines of batches."""

    def __init__(self, options: TextOptions) -> None:
        self._options = options
        self._lines = Lines(self._columns())

    def write(self, batch: Batch, chosen: Column | None = None) -> Any:
        """The lines of a batch; see Lines.write."""
        return self._lines.write(batch, chosen)

    def _columns(self) -> list[LineColumn]:
        options = self._options
        columns: list[LineColumn] = []
        if options.number:
            columns.append(LineColumn(Cell(Kind.DEC, digits=5), packet_column("number")))
        columns += Times(options.times, options.nano).columns("  " if options.number else "")
        columns += _packet_columns(options, " " if columns else "")
        if options.apps:
            cell = Cell(Kind.TEXT, "  ")
            columns.append(LineColumn(cell, line_texts(options.colour), has_said))
        if options.verbose and not options.quiet:
            columns += _detail_columns(options)
            if options.apps:
                columns.append(LineColumn(Cell(Kind.TEXT), detail_texts(_DETAIL), has_said))
        if options.verbose > 1 and not options.quiet:
            columns += _header_columns()
        dump = options.dump
        if dump is None and options.verbose > 2:
            dump = Kind.FULL_DUMP
        if dump is not None:
            columns.append(_dump_column(dump, options.dump_link))
        return columns


class Times:
    """The time of a packet; keeps those that -ttt and -ttttt count from.

    `times` is the number of t's.
    """

    def __init__(self, times: int, nano: bool) -> None:
        self._times = times
        self._nano = nano
        self.previous = NO_TIME
        self.first = NO_TIME

    def columns(self, prefix: str) -> list[LineColumn]:
        """The cells of the time, behind `prefix`."""
        digits = 9 if self._nano else 6
        clock = Cell(Kind.CLOCK, prefix, "no time", digits=digits)
        match self._times:
            case 0:
                return [LineColumn(clock, self._time_of_day, timed)]
            case 1:
                return []
            case 2:
                cell = Cell(Kind.SECONDS, prefix, "no time", digits=digits)
                return [LineColumn(cell, packet_column("time_ns"), timed)]
            case 4:
                date = Cell(Kind.WORD, prefix)
                clock.prefix = b" "
                return [
                    LineColumn(date, _local_day, timed, word=_date),
                    LineColumn(clock, self._time_of_day, timed),
                ]
            case count:
                span = Cell(Kind.SPAN, prefix, " no time", digits=digits)
                times = self._since_previous if count == 3 else self._since_first
                return [LineColumn(span, times, timed)]

    def _time_of_day(self, batch: Batch) -> Column:
        return _local(batch) % _DAY_NS

    def _since_previous(self, batch: Batch) -> Column:
        shown = timed(batch)
        times = self._in_units(batch.rows["time_ns"][shown])
        spans = np.zeros(len(batch), np.int64)
        if len(times):
            before = int(times[0]) if self.previous == NO_TIME else self.previous
            spans[shown] = np.diff(times, prepend=before)
            self.previous = int(times[-1])
        return spans

    def _since_first(self, batch: Batch) -> Column:
        times = self._in_units(batch.rows["time_ns"])
        if self.first == NO_TIME:
            known = times[timed(batch)]
            self.first = int(known[0]) if len(known) else NO_TIME
        return times - self.first

    def _in_units(self, times: Column) -> Column:
        """Times cut to what is printed, so that differences are those of the printed times."""
        return times if self._nano else times // 1000 * 1000


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


def _inner(name: str) -> OfBatch:
    return header_column("virtio", name)


def endpoint_columns(end: str, prefix: str, numeric: bool) -> list[LineColumn]:
    """The address of the `src` or `dst`."""
    kind = Kind.DEC if numeric else Kind.CID
    return [
        LineColumn(Cell(kind, prefix), address_column(f"{end}_cid"), has_monitor),
        LineColumn(Cell(Kind.DEC, ":"), address_column(f"{end}_port"), has_monitor),
    ]


def _packet_columns(options: TextOptions, space: str) -> list[LineColumn]:
    """The line itself: connection, ends, what it is, how much, and what is wrong with it."""
    columns = []
    if not options.quiet:
        columns.append(connection_column(space + "#"))
        space = " "
    columns += endpoint_columns("src", space, options.numeric)
    columns += endpoint_columns("dst", " > ", options.numeric)
    columns += operation_columns(options.colour)
    columns.append(length_column(" "))
    if options.quiet:
        return columns
    columns.append(flags_column(" "))
    columns += credit_columns()
    columns += mark_columns(options.colour)
    return columns


def connection_column(prefix: str) -> LineColumn:
    """The connection's number, "-" where there is none."""
    return LineColumn(Cell(Kind.DEC, prefix, "-"), tracked_column("conn"), has_connection)


def length_column(prefix: str) -> LineColumn:
    """How many bytes of the stream an RW carries."""
    return LineColumn(Cell(Kind.DEC, prefix), tracked_column("data_len"), is_op(wire.Op.RW))


def flags_column(prefix: str) -> LineColumn:
    """The names of the flags."""
    cell = Cell(Kind.WORD, prefix)
    return LineColumn(cell, flag_codes, has_flags, word=lambda code: "|".join(flag_words(code)))


def _is_other_type(batch: Batch) -> Column:
    mask: Column = batch.rows["virtio"]["type"] != int(wire.SocketType.STREAM)
    return mask & has_virtio(batch)


def operation_columns(colour: bool) -> list[LineColumn]:
    """Type when it is not STREAM, and op; of a frame without virtio what the monitor says."""
    ops = ["op 0", *[_coloured(op.name, _OP_COLOURS[op], colour) for op in wire.Op if op], "op "]
    types = ["type 0", *[kind.name for kind in wire.SocketType if kind], "type "]
    monitor = [op.name for op in wire.MonitorOp]
    return [
        LineColumn(
            Cell(Kind.WORD, " ", words=types),
            _inner("type"),
            _is_other_type,
        ),
        LineColumn(Cell(Kind.WORD, " ", words=ops), _inner("op"), has_virtio),
        LineColumn(
            Cell(Kind.WORD, " ", words=["UNKNOWN", "NO_INFO", "VIRTIO", "transport "]),
            header_column("mon", "t"),
            ends_at(Layers.MONITOR),
        ),
        LineColumn(
            Cell(Kind.WORD, " ", words=[*monitor, "op "]),
            header_column("mon", "op"),
            ends_at(Layers.MONITOR),
        ),
        LineColumn(
            Cell(Kind.DEC, " length "), packet_column("payload_wire"), ends_at(Layers.MONITOR)
        ),
    ]


def _coloured(text: str, colour: str, on: bool) -> str:
    return f"{colour}{text}{_PLAIN}" if on else text


def credit_columns() -> list[LineColumn]:
    """The sender's free credit while it can send, and what an update gives the other end."""

    def shows_free(batch: Batch) -> Column:
        op = batch.rows["virtio"]["op"]
        return free(batch) & (op != _RST) & (op != _REQUEST)

    free = is_known(Known.FREE)

    def grants(batch: Batch) -> Column:
        op = batch.rows["virtio"]["op"]
        return (op == _CREDIT_UPDATE) | (op == _CREDIT_REQUEST)

    granted = both(is_known(Known.GRANTED), grants)
    return [
        LineColumn(Cell(Kind.DEC, " grants "), tracked_column("granted"), granted),
        LineColumn(Cell(Kind.DEC, " free "), tracked_column("free"), shows_free),
    ]


def mark_columns(colour: bool) -> list[LineColumn]:
    """What is worth knowing in brackets, what is wrong behind an exclamation mark."""
    left, right = (f"{_DIM}[", f"]{_PLAIN}") if colour else ("[", "]")
    warn, end = (f"{_RED}! ", _PLAIN) if colour else ("! ", "")
    return [
        LineColumn(
            Cell(Kind.WORD, " "),
            _remarks,
            lambda batch: _remarks(batch) != 0,
            word=lambda code: left + ", ".join(_remark_words(code)) + right,
        ),
        LineColumn(
            Cell(Kind.WORD, " "),
            marks_of(WRONG_MARKS),
            has_marks(WRONG_MARKS),
            word=lambda marks: warn + _join_words(marks) + end,
        ),
        LineColumn(
            Cell(Kind.TEXT),
            partial(_more_words, brackets=(f" {left}", right), wrong=(f" {warn}", end)),
            has_marks(_MORE),
        ),
    ]


def _more_words(batch: Batch, brackets: tuple[str, str], wrong: tuple[str, str]) -> Column:
    """The words of events that have no mark of their own, as those of marks are shown."""
    texts = np.full(len(batch), b"", object)
    more = has_marks(_MORE)(batch)
    for row, events in events_by_packet(batch) if more.any() else ():
        rules = [BY_KIND[event.kind] for event in events if MARK_OF[event.kind] == Mark.MORE]
        text = ""
        for worst, (left, right) in ((Severity.NOTE, brackets), (Severity.ERROR, wrong)):
            words = [rule.word for rule in rules if worst - 1 <= rule.severity <= worst]
            rules = [rule for rule in rules if rule.severity > worst]
            text += left + ", ".join(words) + right if words else ""
        texts[row] = text.encode()
    return texts


def _remarks(batch: Batch) -> Column:
    """Marks worth a word in the line and, where an RST ends a connection, its last state.

    The state stands in the bits above the marks.
    """
    columns = tracked(batch)
    codes: Column = columns["marks"] & np.uint64(SHOWN_MARKS)
    ending = np.flatnonzero(
        is_op(wire.Op.RST)(batch) & ~has_marks(_LATER_RST)(batch) & (columns["conn"] != 0)
    )
    if len(ending):
        codes[ending] |= columns["state"][ending].astype("u8") << _STATE_SHIFT
    return codes


def _remark_words(code: int) -> list[str]:
    state = code >> _STATE_SHIFT
    words = [state_word(state).replace("-", " ")] if state in TERMINAL else []
    return words + _words(code & SHOWN_MARKS)


def _join_words(marks: int) -> str:
    return ", ".join(_words(marks))


def _detail_columns(options: TextOptions) -> list[LineColumn]:
    """-v: counters and state on a second line; then whatever explains the packet."""
    virtio = has_virtio
    quiet_marks = (_MORE - 1) & ~(SHOWN_MARKS | WRONG_MARKS | _SAID)
    return [
        LineColumn(Cell(Kind.DEC, f"{_DETAIL}buf_alloc "), _inner("buf_alloc"), virtio),
        LineColumn(Cell(Kind.DEC, ", fwd_cnt "), _inner("fwd_cnt"), virtio),
        LineColumn(Cell(Kind.DEC, ", tx_cnt "), tracked_column("tx_cnt"), is_known(Known.TX_CNT)),
        LineColumn(
            Cell(Kind.DEC, ", in flight "),
            tracked_column("in_flight"),
            is_known(Known.IN_FLIGHT),
        ),
        LineColumn(
            Cell(Kind.WORD, ", limited by "),
            _limits,
            lambda batch: _limits(batch) != 0,
            word=lambda code: _LIMITS[code],
        ),
        LineColumn(
            Cell(Kind.WORD, ", "),
            tracked_column("state"),
            has_connection,
            word=lambda state: (
                state_word(state).replace("-", " ") if state != State.NONE else "no connection"
            ),
        ),
        LineColumn(
            Cell(Kind.WORD, ", sent by "),
            tracked_column("side"),
            is_known(Known.SIDE),
            word=lambda side: ("initiator", "acceptor")[side],
        ),
        LineColumn(
            Cell(Kind.WORD, " ["),
            marks_of(quiet_marks),
            has_marks(quiet_marks),
            word=lambda marks: _join_words(marks) + "]",
        ),
        LineColumn(Cell(Kind.TEXT), _event_texts, has_marks(_EXPLAINED)),
        LineColumn(
            Cell(Kind.WORD, _DETAIL),
            packet_column("malformed"),
            malformed,
            word=lambda why: f"{_how_bad(why)}: {MALFORMED_TEXT[Malformed(why)]}",
        ),
        LineColumn(Cell(Kind.TEXT), _comment_texts, lambda batch: batch.rows["options"] != 0),
    ]


_LIMITS: Final = (
    "",
    "the receiver's buffer alone",
    "its own buffer too, at which it has waited",
)


def _limits(batch: Batch) -> Column:
    """What limits the sender of data whose own buffer is the smaller one: an index of _LIMITS."""
    after, sent = tracked(batch), batch.rows["virtio"]
    buffer = after["free"].astype(np.int64) + after["in_flight"]
    smaller = (after["known"] & _FREE != 0) & (sent["buf_alloc"] < buffer)
    data = (sent["op"] == _RW) & (after["in_flight"] != 0)
    return np.where(data & (after["known"] & _CAPPED != 0), 2, np.where(data & smaller, 1, 0))


def _how_bad(why: int) -> str:
    cut = why in (Malformed.CUT_MONITOR, Malformed.CUT_TRANSPORT)
    return BY_KIND[kinds.Kind.CUT_HEADERS if cut else kinds.Kind.MALFORMED].word


def _event_texts(batch: Batch) -> Column:
    """What is noteworthy about each packet on a line of its own.

    With the case's numbers where the tracker gave an event, which it does the first time in
    a connection, and in general words otherwise.
    """
    texts = np.full(len(batch), b"", object)
    marks = marks_of(_EXPLAINED)(batch)
    events = dict(events_by_packet(batch))
    general: dict[int, bytes] = {}
    for row in np.flatnonzero(marks).tolist():
        found = int(marks[row])
        lines = []
        for event in events.get(row, ()):
            mark = MARK_OF[event.kind]
            if found & (mark | _MORE):
                lines.append((BY_KIND[event.kind], packet_sentence(batch, row, event)))
                found &= ~mark | _MORE
        found &= ~_MORE
        if not lines:
            if found not in general:
                general[found] = _explained(_general(found))
            texts[row] = general[found]
        else:
            texts[row] = _explained(lines + _general(found))
    return texts


def _general(marks: int) -> list[tuple[Rule, str]]:
    """Each mark with what it means."""
    return [(rule, rule.what) for rule in rules_of_marks(marks)]


def _explained(lines: list[tuple[Rule, str]]) -> bytes:
    lines = sorted(lines, key=lambda pair: -pair[0].severity)
    return "".join(f"{_DETAIL}{rule.word}: {text}" for rule, text in lines).encode()


def _comment_texts(batch: Batch) -> Column:
    """The comments of a pcapng packet, each on a line, control characters escaped."""
    from vsockdump.capture.pcapng import packet_comments

    texts = np.full(len(batch), b"", object)
    rows = batch.rows
    for row in np.flatnonzero(rows["options"]):
        start = int(rows["record_at"][row])
        block = batch.buffer[start : start + int(rows["record_len"][row])]
        lines = [on_line(text) for text in packet_comments(block, batch.layout.big_endian)]
        texts[row] = "".join(f"{_DETAIL}comment: {line}" for line in lines).encode()
    return texts


def _header_columns() -> list[LineColumn]:
    """-vv: the remaining header fields and the frame, on a third line."""
    monitor = {"op": " op ", "t": ", transport ", "len": ", len "}
    columns = [
        LineColumn(
            Cell(Kind.DEC, prefix if name != "op" else f"{_DETAIL}monitor:{prefix}"),
            header_column("mon", name),
            has_monitor,
        )
        for name, prefix in monitor.items()
    ]
    inner = {"len": "; virtio: len ", "type": ", type ", "op": ", op "}
    columns += [
        LineColumn(Cell(Kind.DEC, prefix), _inner(name), has_virtio)
        for name, prefix in inner.items()
    ]
    columns.append(LineColumn(Cell(Kind.HEX8, ", flags "), _inner("flags"), has_virtio))
    columns += [
        LineColumn(Cell(Kind.DEC, f"{_DETAIL}frame "), packet_column("number")),
        LineColumn(Cell(Kind.DEC, ": "), packet_column("wirelen")),
        LineColumn(Cell(Kind.DEC, " bytes, "), packet_column("caplen")),
        LineColumn(Cell(Kind.DEC, " captured, interface "), packet_column("interface")),
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
