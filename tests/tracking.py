"""What the tracker tests share: packets into a tracker, and charts that say what comes out.

A chart is a scenario (see scenario.py) whose lines also say what the tracker makes of the
packet, behind `=>`:

    0.000  3:1024 > host:5000 REQUEST      => connecting
    +1ms   3:1024 < host:5000 RESPONSE     => open        tx=0 free=262144
    +1ms   3:1024 > host:5000 RW 5 len=9   => open        conn=1 [short payload]

The state word comes first.  Then, in any order, name=value for what is of interest (`-`:
unknown), and in brackets all marks of the packet.  Values that are not named are not
compared; marks always are, but for those of small buffers, which most charts have, and those
that the state says as well.

Rules for editors: the helpers hold no opinion about what is right.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import ModuleType
from typing import Any, Final, NamedTuple

import builds
import numpy as np
from scenario import Packet, parse
from simulator import Captured, pcap_bytes

import vsockdump.track.tracker
import vsockdump.track.window
from vsockdump.batch import Batch, Known, Rows
from vsockdump.capture.reader import ROWS, FileReader
from vsockdump.findings.registry import words
from vsockdump.track.marks import Mark
from vsockdump.track.states import state_word
from vsockdump.track.store import DEFAULT_CAP, Store

CAPTURES: Final = Path(__file__).parent.parent / "captures"
TRACKER: Final = vsockdump.track.tracker
WINDOW: Final = vsockdump.track.window


_UNTOLD: Final = int(
    Mark.SMALL_BUFFER
    | Mark.BUFFER_CHANGED
    | Mark.OWN_BUFFER
    | Mark.REFUSED
    | Mark.RESET
    | Mark.CLOSE_TIMEOUT
)


def uncompiled(name: str) -> ModuleType:
    """The source of a compiled module of vsockdump.track, run as ordinary Python."""
    return builds.uncompiled(f"track.{name}")


# --- packets in ------------------------------------------------------------------------


def batches(path: str | Path, rows: int = ROWS) -> Iterator[Batch]:
    """The packets of a capture file, `rows` at a time."""
    reader = FileReader(str(path), rows)
    try:
        yield from reader.batches()
    finally:
        reader.close()


def batches_of(packets: Sequence[Captured], rows: int = ROWS) -> Iterator[Batch]:
    """Packets as a reader of their capture file gives them."""
    with NamedTemporaryFile(suffix=".pcap") as file:
        file.write(pcap_bytes(packets))
        file.flush()
        yield from batches(file.name, rows)


class Tracking(NamedTuple):
    """All that a tracker made of a capture."""

    rows: Rows
    tracked: Rows
    data: list[bytes]  # the captured stream bytes of each packet
    stalls: Rows
    events: Rows
    tracker: Any

    @property
    def store(self) -> Store:
        """The tracker's store."""
        store: Store = self.tracker.store
        return store

    @property
    def flows(self) -> Rows:
        """The store's flows."""
        return self.store.flows[: 2 * self.store.used]

    @property
    def connections(self) -> Rows:
        """The store's connections, by number."""
        return np.sort(self.store.connections[: self.store.used], order="number")

    def connection(self, number: int) -> np.void:
        """The connection of this number."""
        row: np.void = self.store.connections[self.slot(number)]
        return row

    def flow(self, number: int, side: int) -> np.void:
        """What `side` of a connection sent."""
        row: np.void = self.store.flows[2 * self.slot(number) + side]
        return row

    def slot(self, number: int) -> int:
        """Where the store keeps a connection."""
        numbers = self.store.connections["number"][: self.store.used]
        return int(np.flatnonzero(numbers == number)[0])

    def state(self, number: int = 1) -> str:
        """The word for where a connection stands in the end."""
        return state_word(int(self.connection(number)["state"]))

    def bytes(self, number: int = 1) -> tuple[int, int]:
        """Stream bytes sent by either side."""
        return int(self.flow(number, 0)["bytes"]), int(self.flow(number, 1)["bytes"])

    def known(self, row: int, flag: Known, name: str) -> int | None:
        """A counter of a packet, None where it is unknown."""
        return int(self.tracked[name][row]) if self.tracked["known"][row] & flag else None

    def marks(self) -> list[list[str]]:
        """The marks of each packet, in words, but for those that charts leave out."""
        return [words(int(marks) & ~_UNTOLD) for marks in self.tracked["marks"]]


def track(
    source: Iterable[Batch],
    module: ModuleType = TRACKER,
    *,
    cap: int = DEFAULT_CAP,
    taps: Sequence[int] = (0,),
    tracker: Any = None,
) -> Tracking:
    """Feed batches to a tracker and keep what comes out."""
    tracker = tracker or module.Tracker(cap)
    tracker.set_taps(list(taps))
    rows, tracked, stalls, events = [], [], [], []
    data: list[bytes] = []
    for batch in source:
        after = tracker.track(batch).tracked
        assert after is not None
        rows.append(batch.rows.copy())
        tracked.append(after.copy())
        stalls.append(batch.stalls)
        events.append(batch.events)
        data += [
            bytes(batch.buffer[int(row["data_at"]) :][: int(row["data_cap"])]) for row in after
        ]
    return Tracking(
        np.concatenate(rows),
        np.concatenate(tracked),
        data,
        np.concatenate(stalls),
        np.concatenate(events),
        tracker,
    )


def track_packets(
    packets: Sequence[Captured],
    module: ModuleType = TRACKER,
    rows: int = ROWS,
    tracker: Any = None,
) -> Tracking:
    """Track packets made by a scenario or the simulator."""
    return track(batches_of(packets, rows), module, tracker=tracker)


def track_file(path: str | Path, module: ModuleType = TRACKER, rows: int = ROWS) -> Tracking:
    """Track a capture file as the program does, its end included."""
    reader = FileReader(str(path), rows)
    tracker = module.Tracker()
    tracking = track(_with_taps(reader, tracker), tracker=tracker)
    tracker.finish()
    reader.close()
    return tracking


def _with_taps(reader: FileReader, tracker: Any) -> Iterator[Batch]:
    for batch in reader.batches():
        tracker.learn_interfaces(reader.interfaces)
        yield batch


def differences(one: Tracking, other: Tracking) -> list[str]:
    """Names of what is not the same in two trackings."""
    fields = [
        ("tracked", one.tracked, other.tracked),
        ("stalls", one.stalls, other.stalls),
        ("events", one.events, other.events),
        ("connections", one.connections, other.connections),
        ("flows", one.flows, other.flows),
    ]
    return [
        f"{name}.{column}"
        for name, left, right in fields
        for column in left.dtype.names or ()
        if not np.array_equal(left[column], right[column])
    ] + ["data"] * (one.data != other.data)


# --- charts ----------------------------------------------------------------------------

_CHART_LINE: Final = re.compile(r"(.*?)\s*=>\s*(\S+)\s*(.*)")
_BRACKETS: Final = re.compile(r"\[(.*)\]")
_COLUMNS: Final[dict[str, Callable[[Tracking, int], object]]] = {
    "conn": lambda it, row: int(it.tracked["conn"][row]),
    "side": lambda it, row: it.known(row, Known.SIDE, "side"),
    "tx": lambda it, row: it.known(row, Known.TX_CNT, "tx_cnt"),
    "flight": lambda it, row: it.known(row, Known.IN_FLIGHT, "in_flight"),
    "free": lambda it, row: it.known(row, Known.FREE, "free"),
    "granted": lambda it, row: it.known(row, Known.GRANTED, "granted"),
    "len": lambda it, row: int(it.tracked["data_len"][row]),
    "cap": lambda it, row: int(it.tracked["data_cap"][row]),
    "data": lambda it, row: it.data[row].decode(),
}


class _Expected(NamedTuple):
    packet: str
    state: str
    values: dict[str, str]
    marks: list[str]


def _expected(line: str) -> _Expected:
    """Split a line of a chart."""
    match = _CHART_LINE.fullmatch(line.strip())
    assert match is not None, f"{line!r} does not say what is expected"
    packet, state, rest = match.groups()
    marks = _BRACKETS.search(rest)
    values = dict(word.split("=", 1) for word in _BRACKETS.sub("", rest).split())
    return _Expected(packet, state, values, marks[1].split(", ") if marks else [])


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _lines(chart: str) -> list[str]:
    return [line for line in chart.splitlines() if line.split("#")[0].strip()]


def packets_of(chart: str) -> list[Packet]:
    """The packets of a chart or scenario."""
    return parse("\n".join(line.partition("=>")[0] for line in _lines(chart)))


def check(
    chart: str,
    module: ModuleType = TRACKER,
    *,
    taps: Sequence[int] = (0,),
    adapt: Callable[[Rows], None] | None = None,
) -> Tracking:
    """Track a chart's packets and compare line by line; `adapt` changes the rows first."""
    expected = [_expected(line) for line in _lines(chart)]
    source = [batch.copy() for batch in batches_of(packets_of(chart))]
    if adapt is not None:
        adapt(source[0].rows)
    tracking = track(source, module, taps=taps)
    found = [
        _Expected(
            line.packet,
            state_word(int(tracking.tracked["state"][row])),
            {name: _shown(_COLUMNS[name](tracking, row)) for name in line.values},
            marks,
        )
        for row, (line, marks) in enumerate(zip(expected, tracking.marks(), strict=True))
    ]
    wrong = [pair for pair in zip(expected, found, strict=True) if pair[0] != pair[1]]
    assert not wrong, "".join(f"\nexpected {one}\n   found {other}" for one, other in wrong)
    return tracking
