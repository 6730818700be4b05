"""What is kept of the packets of one connection, however many they are.

The first packets are kept, and then those that decide something: where it begins and ends, who
waited and for how long, the longest silences, what findings and messages name.  Each knows how
many packets there had been up to it, so that what lies between two of them can be counted.

Rules for editors: bounded; every most is a constant here, and the manual states them.  Nothing
is done for each packet.
"""

from collections import deque
from collections.abc import Collection, Iterable
from heapq import heappush, heappushpop
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import NO_TIME, Rows, rows_of
from vsockdump.story.model import OPS, Packet, Record, Silence, Wait, Why
from vsockdump.story.packets import UNKNOWN
from vsockdump.story.spoken import Talking
from vsockdump.wire import Op, Seqpacket

MOST_FIRST: Final = 40
MOST_CONTROL: Final = 12  # the first ones, and as many of the last
MOST_FOUND: Final = 24
MOST_WAITS: Final = 8
MOST_SILENCES: Final = 3
_RW: Final = int(Op.RW)
_UPDATE: Final = int(Op.CREDIT_UPDATE)
_EOM: Final = int(Seqpacket.EOM)

_Made = dict[int, Packet]  # packets of the batch in work, by row
_KeptWait = tuple[int, int, Wait, tuple[Packet | None, Packet | None]]


class Recorder:
    """Takes a connection's packets; `joined` of them had gone by before the first call."""

    def __init__(self, joined: int = 0) -> None:
        self.joined = joined
        self.talking = Talking()
        self.count = 0
        self._tally = np.zeros(2 * OPS, np.int64)
        self._sent = np.zeros(2, np.int64)
        self._ends = [0, 0]
        self._first: list[Packet] = []
        self._control: list[Packet] = []
        self._last_control: deque[Packet] = deque(maxlen=MOST_CONTROL)
        self._first_data: dict[int, Packet] = {}  # by side
        self._last_data: dict[int, Packet] = {}
        self._found: list[Packet] = []
        self._of_messages: dict[int, Packet] = {}
        self._used_up: list[Packet | None] = [None, None]  # with which a side's credit ended
        self._waits: list[_KeptWait] = []  # a heap, the shortest first
        self._silences: list[tuple[int, int, Silence]] = []  # the same
        self._last: Packet | None = None

    def add(self, rows: Rows, found: Collection[int] = (), waits: Collection[Wait] = ()) -> None:
        """Take packets of COMPACT_DTYPE, whose messages `talking` has.

        `found` are those that findings name, `waits` those that end in these packets.
        """
        if not len(rows):
            return
        control = np.flatnonzero((rows["op"] != _RW) & (rows["op"] != _UPDATE))
        data = [np.flatnonzero((rows["op"] == _RW) & (rows["side"] == side)) for side in (0, 1)]
        spoken = self.talking.packets
        by_number = _rows_of(rows, {*found, *spoken, *_ends_of(waits)})
        silences = self._silent(rows)
        zero = [self._zero_since(rows, side) for side in (0, 1)]
        wanted = {0, len(rows) - 1, *range(max(min(MOST_FIRST - self.count, len(rows)), 0))}
        wanted |= {*control[:MOST_CONTROL].tolist(), *control[-MOST_CONTROL:].tolist()}
        wanted |= {row for some in data if len(some) for row in (int(some[0]), int(some[-1]))}
        wanted |= set(by_number.values()) | {row for row in zero if row is not None}
        wanted |= {at for row in silences for at in (row - 1, row) if at >= 0}
        made = self._make(rows, sorted(wanted))
        numbered = {number: made[row] for number, row in by_number.items()}
        self._keep_found([numbered[number] for number in sorted(found) if number in numbered])
        self._keep_said(spoken, numbered)
        self._keep_waits(waits, numbered)
        self._keep_silences(silences, made)
        self._keep_first(made, control, data)
        for side, row in enumerate(zero):
            self._note_credit(side, row, made, rows)
        self._last = made[len(rows) - 1]
        self._count_ends(rows, data)

    # --- what of a batch is wanted -------------------------------------------------------------

    def _silent(self, rows: Rows) -> list[int]:
        """The rows behind the longest silences."""
        before = NO_TIME if self._last is None or self._last.time_ns is None else self._last.time_ns
        times = rows["time_ns"]
        lengths = np.diff(times, prepend=before if before != NO_TIME else times[:1])
        lengths[(times == NO_TIME) | (np.roll(times, 1) == NO_TIME)] = 0
        if self._last is None:
            lengths[0] = 0
        longest = np.argsort(lengths)[-MOST_SILENCES:]
        least = self._silences[0][0] if len(self._silences) == MOST_SILENCES else 0
        return sorted(int(row) for row in longest if lengths[row] > least)

    def _zero_since(self, rows: Rows, side: int) -> int | None:
        """The row with which the credit of a side was used up, if it is at the end of the rows."""
        free = np.where(rows["side"] == side, rows["free"], rows["granted"])
        known = np.flatnonzero(free != UNKNOWN)
        if not len(known) or free[known[-1]] != 0:
            return None
        others = np.flatnonzero(free[known] != 0)
        if len(others):
            return int(known[others[-1] + 1])
        return int(known[0]) if self._used_up[side] is None else None

    def _make(self, rows: Rows, wanted: list[int]) -> _Made:
        """These rows as packets, with what was counted up to each."""
        codes = rows["side"].astype(np.intp) * OPS + np.minimum(rows["op"], OPS - 1)
        made: _Made = {}
        start = 0
        for row in wanted:
            self._add_up(codes, rows, start, row + 1)
            made[row] = self._packet(rows[row])
            start = row + 1
        return made

    def _add_up(self, codes: NDArray[np.intp], rows: Rows, start: int, end: int) -> None:
        self._tally += np.bincount(codes[start:end], minlength=2 * OPS)
        sides = rows["side"][start:end]
        self._sent += np.bincount(sides, rows["len"][start:end], 2).astype(np.int64)
        self.count += end - start

    def _packet(self, row: np.void) -> Packet:
        number, time_ns, _conn, free, granted, flags, size, buf, op, side, state = row.tolist()
        return Packet(
            number,
            None if time_ns == NO_TIME else time_ns,
            side,
            op,
            flags,
            size,
            buf,
            state,
            None if free == UNKNOWN else free,
            None if granted == UNKNOWN else granted,
            tuple(self._tally.tolist()),
            (int(self._sent[0]), int(self._sent[1])),
        )

    # --- what is kept ----------------------------------------------------------------------------

    def _keep_first(
        self, made: _Made, control: NDArray[np.intp], data: list[NDArray[np.intp]]
    ) -> None:
        room = max(MOST_FIRST - len(self._first), 0)
        self._first += [made[row] for row in sorted(made) if row < room][:room]
        left = MOST_CONTROL - len(self._control)
        self._control += [made[row] for row in control[: max(left, 0)].tolist()]
        self._last_control += [made[row] for row in control[-MOST_CONTROL:].tolist()]
        for side, some in enumerate(data):
            if len(some):
                self._first_data.setdefault(side, made[int(some[0])])
                self._last_data[side] = made[int(some[-1])]

    def _keep_found(self, packets: list[Packet]) -> None:
        self._found += packets[: max(MOST_FOUND - len(self._found), 0)]

    def _keep_said(self, spoken: set[int], packets: dict[int, Packet]) -> None:
        """Keep the packets of the messages that are kept, and no others."""
        self._of_messages |= {number: packets[number] for number in spoken & set(packets)}
        for number in set(self._of_messages) - spoken:
            del self._of_messages[number]

    def _keep_silences(self, rows: list[int], made: _Made) -> None:
        for row in rows:
            before, after = made.get(row - 1, self._last), made[row]
            assert before is not None
            if before.time_ns is None or after.time_ns is None:
                continue
            length = after.time_ns - before.time_ns
            silence = length, -after.number, Silence(length, before, after)
            _push(self._silences, silence, MOST_SILENCES)

    def _keep_waits(self, waits: Collection[Wait], packets: dict[int, Packet]) -> None:
        for wait in waits:
            ends = self._begin_of(wait, packets), packets.get(wait.last_packet)
            _push(self._waits, (wait.length_ns, -wait.first_packet, wait, ends), MOST_WAITS)

    def _begin_of(self, wait: Wait, packets: dict[int, Packet]) -> Packet | None:
        """The packet that a wait begins with; in an earlier batch, the last data of its side."""
        earlier = self._used_up[wait.side], self._last_data.get(wait.side)
        known = {packet.number: packet for packet in earlier if packet is not None}
        return packets.get(wait.first_packet) or known.get(wait.first_packet)

    def _note_credit(self, side: int, row: int | None, made: _Made, rows: Rows) -> None:
        """Remember with which packet a side's credit was used up, while it is."""
        if row is not None:
            self._used_up[side] = made[row]
            return
        free = np.where(rows["side"] == side, rows["free"], rows["granted"])
        known = free[free != UNKNOWN]
        if len(known) and known[-1] != 0:
            self._used_up[side] = None

    def _count_ends(self, rows: Rows, data: list[NDArray[np.intp]]) -> None:
        for side, some in enumerate(data):
            self._ends[side] += int(np.count_nonzero(rows["flags"][some] & _EOM))

    # --- what came of it -----------------------------------------------------------------------

    def record(self) -> Record:
        """What is kept, in the order of packets."""
        kept: dict[int, tuple[Packet, Why]] = {}

        def note(packets: Iterable[Packet | None], why: Why) -> None:
            for packet in packets:
                if packet is not None:
                    known = kept.get(packet.number)
                    kept[packet.number] = packet, why | (known[1] if known else Why(0))

        waits = [entry[2] for entry in self._waits]
        silences = [entry[2] for entry in self._silences]
        note(self._first, Why.BEGINNING)
        note([self._last], Why.LAST)
        note([*self._control, *self._last_control], Why.CONTROL)
        note([*self._first_data.values(), *self._last_data.values()], Why.DATA)
        note(self._found, Why.FINDING)
        note(self._of_messages.values(), Why.SAID)
        note([packet for entry in self._waits for packet in entry[3]], Why.WAIT)
        note(self._used_up, Why.WAIT)
        note([packet for one in silences for packet in (one.before, one.after)], Why.SILENCE)
        return Record(
            [kept[number] for number in sorted(kept)],
            sorted(waits, key=lambda wait: (wait.start_ns, wait.first_packet)),
            sorted(silences, key=lambda one: one.after.number),
            self.talking.talk(),
            self.joined,
            (self._ends[0], self._ends[1]),
        )


def _push(heap: list[Any], entry: Any, most: int) -> None:
    """Keep the largest."""
    if len(heap) < most:
        heappush(heap, entry)
    else:
        heappushpop(heap, entry)


def _ends_of(waits: Collection[Wait]) -> set[int]:
    return {number for wait in waits for number in (wait.first_packet, wait.last_packet)}


def _rows_of(rows: Rows, numbers: set[int]) -> dict[int, int]:
    """The row of each of these packets that is among the rows."""
    wanted = np.array(sorted(numbers), np.uint64)
    places, there = rows_of(rows["number"], wanted)
    return dict(zip(wanted[there].tolist(), places[there].tolist(), strict=True))
