"""-z rpc: the calls of each method, how long they took and what became of them.

For every protocol whose parser pairs requests and responses.  Latencies are kept as a
histogram with four significant digits, so that memory does not grow with the calls: a
percentile is true to half a thousandth; the longest and the slowest calls are exact.

Rules for editors: a call counts by its response, by what took it back or, without either, by
its request; of a filter those count whose response, or request, is in a packet that it chose.
"""

from collections import Counter
from collections.abc import Iterator
from heapq import heappush, heappushpop
from typing import Any, Final, NamedTuple

from vsockdump.apps.dialogues import Dialogues
from vsockdump.apps.message import Kind, OpenCall, Said
from vsockdump.batch import Batch
from vsockdump.columns import Mask, said_by_row
from vsockdump.output.escaped import on_line
from vsockdump.output.said import cut
from vsockdump.output.statistics import OfStore, Selection
from vsockdump.output.tables import ColumnSpec, Table, counted, json_line, render, seconds
from vsockdump.track.tracker import Tracker

_MOST_METHODS: Final = 10_000
_MOST_SLOWEST: Final = 20
_LONGEST_NAME: Final = 80
_OTHERS: Final = ("", "(other methods)")  # what is beyond _MOST_METHODS
_PERCENTILES: Final = (50, 95, 99)

COLUMNS: Final = (
    ColumnSpec("protocol", False),
    ColumnSpec("method", False),
    ColumnSpec("calls"),
    ColumnSpec("errors"),
    ColumnSpec("unanswered"),
    ColumnSpec("median"),
    ColumnSpec("p95"),
    ColumnSpec("p99"),
    ColumnSpec("maximum"),
)
_SLOWEST_COLUMNS: Final = (
    ColumnSpec("seconds"),
    ColumnSpec("#"),
    ColumnSpec("request"),
    ColumnSpec("response"),
    ColumnSpec("protocol", False),
    ColumnSpec("method", False),
    ColumnSpec("error", False),
)

_Method = tuple[str, str]  # protocol, name


class Latencies:
    """Times in nanoseconds: how many, the longest, and percentiles."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.longest: int | None = None

    def add(self, latency: int) -> None:
        """One more; negative where clocks of several sources differ."""
        digits = len(str(abs(latency)))
        step = 10 ** max(digits - 4, 0)
        self._counts[round(latency / step) * step] += 1
        self.count += 1
        self.longest = latency if self.longest is None else max(latency, self.longest)

    def percentile(self, percent: int) -> int | None:
        """The least time that so many percent do not exceed; None where there is none."""
        left = -(-self.count * percent // 100)
        for latency in sorted(self._counts):
            left -= self._counts[latency]
            if left <= 0:
                return min(latency, self.longest or latency)
        return None


class _Tally:
    """The calls of a method; `calls` counts those that were answered."""

    __slots__ = ("calls", "errors", "latencies", "unanswered")

    def __init__(self) -> None:
        self.calls = self.errors = self.unanswered = 0
        self.latencies = Latencies()


class _OfCalls(OfStore):
    """What the two statistics of calls share: which calls they count."""

    def __init__(self, tracker: Tracker, selection: Selection | None, dialogues: Dialogues) -> None:
        super().__init__(tracker, selection)
        self._dialogues = dialogues
        self._seen_late = 0

    def add(self, batch: Batch, mask: Mask | None = None) -> None:
        """Take the responses of a batch, and the requests that nobody will answer."""
        for row, group in said_by_row(batch):
            if mask is not None and not mask[row]:
                continue
            for said in group:
                self._take(said)
        for open_call in batch.unanswered or ():
            if self._selection is None or open_call.conn in self._selection:
                self._unanswered(open_call)

    def _take(self, said: Said) -> None:
        call = said.message.call
        if said.message.kind != Kind.REQUEST and call is not None and call.ends:
            self._answered(said)

    def _take_late(self) -> None:
        """What was said of connections whose protocol only the capture's end has told."""
        late, self._seen_late = self._dialogues.late[self._seen_late :], len(self._dialogues.late)
        for said in late:
            if self._selection is None or said.conn in self._selection:
                self._take(said)

    def _answered(self, said: Said) -> None:
        raise NotImplementedError

    def _unanswered(self, call: OpenCall) -> None:
        """A request whose connection has ended."""

    def _still_open(self) -> list[OpenCall]:
        """Requests of connections that go on."""
        calls = self._dialogues.open_calls()
        return [call for call in calls if self._selection is None or call.conn in self._selection]

    def _notes(self) -> list[str]:
        if self._selection is None:
            return []
        return self._selection.notes("Only calls with a packet that matches the filter are counted")


class Rpc(_OfCalls):
    """A row a method, the most called first."""

    name = "rpc"

    def __init__(self, tracker: Tracker, selection: Selection | None, dialogues: Dialogues) -> None:
        super().__init__(tracker, selection, dialogues)
        self._tallies: dict[_Method, _Tally] = {}

    def _tally(self, protocol: str, method: str) -> _Tally:
        key = protocol, method
        if key not in self._tallies and len(self._tallies) >= _MOST_METHODS:
            key = _OTHERS
        return self._tallies.setdefault(key, _Tally())

    def _answered(self, said: Said) -> None:
        call = said.message.call
        assert call is not None
        tally = self._tally(said.message.protocol, call.method)
        tally.calls += 1
        tally.errors += call.error is not None
        if said.latency_ns is not None:
            tally.latencies.add(said.latency_ns)

    def _unanswered(self, call: OpenCall) -> None:
        self._tally(call.protocol, call.method).unanswered += 1

    def _rows(self) -> list[tuple[_Method, _Tally, int]]:
        """Method, counts, and how many calls have no answer, those of now included."""
        self._take_late()
        waiting: Counter[_Method] = Counter()
        for call in self._still_open():
            self._tally(call.protocol, call.method)
            key = call.protocol, call.method
            waiting[key if key in self._tallies else _OTHERS] += 1
        rows = [
            (key, tally, tally.unanswered + waiting[key]) for key, tally in self._tallies.items()
        ]
        return sorted(rows, key=lambda row: (-row[1].calls - row[2], row[0]))

    def table(self) -> Table:
        """One method a row; times in seconds."""
        found = self._rows()
        rows = [
            (
                protocol,
                cut(on_line(method), _LONGEST_NAME) or "?",
                str(tally.calls + unanswered),
                str(tally.errors),
                str(unanswered),
                *(seconds(tally.latencies.percentile(percent)) for percent in _PERCENTILES),
                seconds(tally.latencies.longest),
            )
            for (protocol, method), tally, unanswered in found
        ]
        calls = sum(tally.calls + unanswered for _key, tally, unanswered in found)
        title = f"{counted(calls, 'call')} of {counted(len(found), 'method')}; times in seconds"
        return Table(title, COLUMNS, rows, self._notes())

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """The table."""
        yield from render(self.table(), colour)

    def json_lines(self) -> Iterator[str]:
        """One object a method; times in nanoseconds."""
        for (protocol, method), tally, unanswered in self._rows():
            values: dict[str, Any] = {
                "protocol": protocol or None,
                "method": method or None,
                "calls": tally.calls + unanswered,
                "errors": tally.errors,
                "unanswered": unanswered,
            }
            for percent in _PERCENTILES:
                values[f"p{percent}_ns"] = tally.latencies.percentile(percent)
            yield json_line(self.name, values | {"max_ns": tally.latencies.longest})


class _Slow(NamedTuple):
    latency_ns: int
    order: int  # of two that took as long the earlier one is listed
    said: Said


class Slowest(_OfCalls):
    """-z rpc,slowest: the calls that took longest, and where they are."""

    name = "rpc,slowest"

    def __init__(self, tracker: Tracker, selection: Selection | None, dialogues: Dialogues) -> None:
        super().__init__(tracker, selection, dialogues)
        self._slowest: list[_Slow] = []
        self._seen = 0

    def _answered(self, said: Said) -> None:
        if said.latency_ns is None:
            return
        self._seen += 1
        slow = _Slow(said.latency_ns, -self._seen, said._replace(data=b""))
        if len(self._slowest) < _MOST_SLOWEST:
            heappush(self._slowest, slow)
        else:
            heappushpop(self._slowest, slow)

    def _sorted(self) -> list[_Slow]:
        """The slowest first."""
        self._take_late()
        return sorted(self._slowest, reverse=True)

    def lines(self, numeric: bool, colour: bool) -> Iterator[str]:
        """A table, the slowest first."""
        rows = [
            (
                seconds(slow.latency_ns),
                str(slow.said.conn),
                str(slow.said.request_packet),
                str(slow.said.packet),
                slow.said.message.protocol,
                *_names(slow.said),
            )
            for slow in self._sorted()
        ]
        title = f"the {counted(len(rows), 'slowest call')}; request and response are packets"
        yield from render(Table(title, _SLOWEST_COLUMNS, rows, self._notes()), colour)

    def json_lines(self) -> Iterator[str]:
        """One object a call."""
        for slow in self._sorted():
            call = slow.said.message.call
            assert call is not None
            yield json_line(
                self.name,
                {
                    "latency_ns": slow.latency_ns,
                    "conn": slow.said.conn,
                    "request_packet": slow.said.request_packet,
                    "response_packet": slow.said.packet,
                    "protocol": slow.said.message.protocol,
                    "method": call.method or None,
                    "error": call.error,
                },
            )


def _names(said: Said) -> tuple[str, str]:
    """Method and error for people."""
    call = said.message.call
    assert call is not None
    method, error = on_line(call.method), on_line(call.error or "")
    return cut(method, _LONGEST_NAME) or "?", cut(error, _LONGEST_NAME)
