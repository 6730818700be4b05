"""What the tracker tests share: packets into a tracker, and charts that say what comes out.

A chart is a scenario (see scenario.py) whose lines also say what the tracker makes of the
packet, behind `=>`:

    0.000  3:1024 > host:5000 REQUEST      => connecting
    +1ms   3:1024 < host:5000 RESPONSE     => open        tx=0 free=262144
    +1ms   3:1024 > host:5000 RW 5 len=9   => open        conn=1 [short payload]

The state word comes first.  Then, in any order, name=value for what is of interest (`-`:
unknown), and in brackets all marks of the packet.  Values that are not named are not
compared; marks always are.

Rules for editors: the helpers hold no opinion about what is right.
"""

import importlib.util
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import ModuleType
from typing import Any, Final, NamedTuple

import numpy as np
from scenario import Packet, parse
from simulator import Captured, pcap_bytes

import vsockdump.track.tracker
import vsockdump.track.window
from vsockdump.batch import Batch, Known, Rows
from vsockdump.capture.reader import FileReader
from vsockdump.track.marks import words
from vsockdump.track.states import state_word
from vsockdump.track.store import DEFAULT_CAP, Store

CAPTURES: Final = Path(__file__).parent.parent / "captures"
TRACKER: Final = vsockdump.track.tracker
WINDOW: Final = vsockdump.track.window


@cache
def uncompiled(name: str) -> ModuleType:
    """The source of a compiled module of vsockdump.track, run as ordinary Python."""
    path = Path(vsockdump.track.__file__ or "").parent / f"{name}.py"
    loader = SourceFileLoader(f"uncompiled_{name}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


# --- packets in ------------------------------------------------------------------------


def read(path: str | Path) -> Batch:
    """A capture file as one batch."""
    size = Path(path).stat().st_size
    reader = FileReader(str(path), rows=size // 28 + 1, buffer=size + 1)
    batches = [batch.copy() for batch in reader.batches()]
    reader.close()
    assert len(batches) == 1
    return batches[0]


def batch_of(packets: Sequence[Captured]) -> Batch:
    """Packets as one batch."""
    with NamedTemporaryFile(suffix=".pcap") as file:
        file.write(pcap_bytes(packets))
        file.flush()
        return read(file.name)


def pieces(batch: Batch, size: int) -> Iterable[Batch]:
    """The same packets in batches of `size`, each in memory of its own."""
    for start in range(0, len(batch), size):
        rows = batch.rows[start : start + size].copy()
        yield Batch(rows, batch.buffer, batch.layout)


class Tracking(NamedTuple):
    """All that a tracker made of a capture."""

    batch: Batch
    tracked: Rows
    stalls: Rows
    tracker: Any

    @property
    def store(self) -> Store:
        """The tracker's store."""
        store: Store = self.tracker.store
        return store

    @property
    def connections(self) -> Rows:
        """The store's connections, by number."""
        rows = self.store.connections[: self.store.used]
        return np.sort(rows, order="number")

    def connection(self, number: int) -> np.void:
        """The connection of this number."""
        row: np.void = self.connections[self.connections["number"] == number][0]
        return row

    def flow(self, number: int, side: int) -> np.void:
        """What `side` of a connection sent."""
        rows = self.store.connections[: self.store.used]
        slot = int(np.flatnonzero(rows["number"] == number)[0])
        row: np.void = self.store.flows[2 * slot + side]
        return row

    def state(self, number: int) -> str:
        """The word for where a connection stands in the end."""
        return state_word(int(self.connection(number)["state"]))

    def data(self, row: int) -> bytes:
        """The captured stream bytes of a packet."""
        at = int(self.tracked["data_at"][row])
        return bytes(self.batch.buffer[at : at + int(self.tracked["data_cap"][row])])

    def known(self, row: int, flag: Known, name: str) -> int | None:
        """A counter of a packet, None where it is unknown."""
        return int(self.tracked[name][row]) if self.tracked["known"][row] & flag else None


def track(
    batch: Batch,
    size: int = 1 << 30,
    module: ModuleType = TRACKER,
    cap: int = DEFAULT_CAP,
    taps: Sequence[int] = (0,),
    tracker: Any = None,
) -> Tracking:
    """Feed a batch to a tracker, in batches of `size`."""
    tracker = tracker or module.Tracker(cap)
    tracker.set_taps(list(taps))
    tracked, stalls = [], []
    for piece in pieces(batch, size):
        tracker.track(piece)
        assert piece.tracked is not None
        tracked.append(piece.tracked.copy())
        stalls.append(tracker.stalls.copy())
    return Tracking(batch, np.concatenate(tracked), np.concatenate(stalls), tracker)


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
    "data": lambda it, row: it.data(row).decode(),
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
    taps: Sequence[int] = (0,),
    adapt: Callable[[Rows], None] | None = None,
) -> Tracking:
    """Track a chart's packets and compare line by line; `adapt` changes the rows first."""
    expected = [_expected(line) for line in _lines(chart)]
    batch = batch_of(packets_of(chart))
    if adapt is not None:
        adapt(batch.rows)
    tracking = track(batch, module=module, taps=taps)
    found = [
        _Expected(
            line.packet,
            state_word(int(tracking.tracked["state"][row])),
            {name: _shown(_COLUMNS[name](tracking, row)) for name in line.values},
            words(int(tracking.tracked["marks"][row])),
        )
        for row, line in enumerate(expected)
    ]
    assert expected == found
    return tracking
