"""What applications said, kept on disk: each message as JSON, found by its packet.

The capture's thread notes messages as they are complete.  Whoever reads packets again gets
them from here and not from parsers of its own: a search may begin anywhere, and a filter, the
list and the details then agree on the packet that a message stands with.

Rules for editors: nothing that there is one of per message may be held in memory.  JSON and
not pickle, since the texts are a stranger's; what JSON has no word for is kept as text.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.apps.message import Call, Kind, Message, Said, Value
from vsockdump.lazy import Decoded
from vsockdump.tui.model.spool import Spool, UnnamedFile

DEFAULT_CAP: Final = 1 << 30  # bytes of messages
_ONE_BY_ONE: Final = 256  # packets up to which each is looked for by itself
_AT_ONCE: Final = 16384  # rows
_FURTHEST: Final = 64 * _AT_ONCE  # rows that are looked through for one message

ROW_DTYPE: Final = np.dtype(
    [
        ("packet", "u8"),
        ("conn", "u8"),
        ("at", "u8"),  # of its JSON in the file
        ("size", "u4"),  # of its JSON
        ("bytes", "u4"),  # of the message in its stream; what is larger counts as the most
        ("side", "u1"),
        ("note", "?"),
    ]
)


class Messages:
    """The messages of a capture, up to `cap` bytes of them.

    `kept` and `left_out` count them.  One thread adds, any may read.
    """

    def __init__(self, cap: int = DEFAULT_CAP) -> None:
        self.kept = self.left_out = 0
        self._cap = cap
        self._texts = UnnamedFile()
        self._rows = Spool(ROW_DTYPE)  # by packet
        self._late = Spool(ROW_DTYPE)  # by packet too, of packets from before

    # --- the capture's thread ----------------------------------------------------------------

    def add(self, said: Mapping[int, list[Said]]) -> None:
        """What a batch of packets completes, in order; OSError where the disk is full."""
        self._append(self._rows, [one for group in said.values() for one in group])

    def add_late(self, said: list[Said]) -> None:
        """What was understood only when the capture had ended, in order of packets."""
        self._append(self._late, said)

    def _append(self, spool: Spool, messages: list[Said]) -> None:
        rows = []
        for said in messages:
            text = _packed(said)
            if self._texts.size + len(text) > self._cap:
                self.left_out += 1
                continue
            place = (self._texts.size, len(text))
            self._texts.append(text)
            note = said.message.kind == Kind.NOTE
            size = min(said.size, 0xFFFFFFFF)
            rows.append((said.packet, said.conn, *place, size, said.side, note))
        if rows:
            spool.append(np.array(rows, ROW_DTYPE))
            self.kept += len(rows)

    # --- who reads ---------------------------------------------------------------------------

    @property
    def late(self) -> int:
        """How many were understood only at the end."""
        return self._late.count

    def of(self, numbers: NDArray[Any]) -> Mapping[int, list[Said]]:
        """The messages of these packets, which ascend; looked up when somebody asks."""
        return _Found(self, numbers)

    def rows_of(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The rows of these packets, which ascend."""
        late = self._late.read(0, self._late.count)
        found = [*self._early(numbers), late[np.isin(late["packet"], numbers)]]
        return np.concatenate(found) if len(found) > 1 else found[0]

    def _early(self, numbers: NDArray[Any]) -> Iterator[NDArray[Any]]:
        if not (len(numbers) and self._rows.count):
            return
        if len(numbers) <= _ONE_BY_ONE:
            for number in numbers.tolist():
                yield from self._between(number, number)
            return
        for rows in self._between(int(numbers[0]), int(numbers[-1])):
            yield rows[np.isin(rows["packet"], numbers)]

    def _between(self, first: int, last: int) -> Iterator[NDArray[Any]]:
        """The rows of packets from `first` to `last`, in pieces."""
        place = self._rows.bisect("packet", first)
        while True:
            rows = self._rows.read(place, _AT_ONCE if last > first else 64)
            count = int(np.searchsorted(rows["packet"], last, "right"))
            yield rows[:count]
            place += count
            if count < len(rows) or not count:
                return

    def next_of(self, conn: int, side: int, packet: int) -> np.void | None:
        """The row of the next message that a side said, completed with `packet` or later.

        Not further than _FURTHEST messages of all connections away.
        """
        place = self._rows.bisect("packet", packet)
        for first in range(place, place + _FURTHEST, _AT_ONCE):
            found = _of_side(self._rows.read(first, _AT_ONCE), conn, side)
            if len(found):
                row: np.void = found[0]
                return row
        late = _of_side(self._late.read(0, _FURTHEST), conn, side)
        late = late[late["packet"] >= packet]
        return late[0] if len(late) else None

    def read(self, row: np.void) -> Said:
        """The message of a row."""
        return _unpacked(self._texts.read(int(row["at"]), int(row["size"])), row)


def _of_side(rows: NDArray[Any], conn: int, side: int) -> NDArray[Any]:
    return rows[(rows["conn"] == conn) & (rows["side"] == side) & ~rows["note"]]


class _Found(Mapping[int, "list[Said]"]):
    """The messages of some packets, read when they are asked for."""

    def __init__(self, messages: Messages, numbers: NDArray[Any]) -> None:
        self._messages = messages
        self._numbers = numbers

    @cached_property
    def _rows(self) -> dict[int, list[np.void]]:
        found: dict[int, list[np.void]] = {}
        for row in self._messages.rows_of(self._numbers):
            found.setdefault(int(row["packet"]), []).append(row)
        return dict(sorted(found.items()))

    def __getitem__(self, packet: int) -> list[Said]:
        return [self._messages.read(row) for row in self._rows[packet]]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _packed(said: Said) -> bytes:
    message, call = said.message, said.message.call
    values = [said.time_ns, said.offset, said.size, said.latency_ns, said.request_packet]
    texts = [message.protocol, message.summary, str(message.kind)]
    halves = None if call is None else [call.method, call.error, call.ends]
    try:
        fields = json.dumps(_kept(message.fields))
    except (ValueError, RecursionError):  # a parser's own: it has no end, or is too deep
        fields = json.dumps({"fields": _kept("cannot be kept")})
    return f"{json.dumps([*values, *texts, halves])}\n{fields}".encode()


def _unpacked(text: bytes, row: np.void) -> Said:
    head, _, fields = text.partition(b"\n")
    time_ns, offset, size, latency, request, protocol, summary, kind, halves = json.loads(head)
    call = None if halves is None else Call(None, halves[0], halves[1], halves[2])
    message = Message(protocol, summary, Kind(kind), _given(json.loads(fields)), call)
    place = int(row["packet"]), time_ns, int(row["conn"]), int(row["side"])
    return Said(*place, offset, size, message, latency, request)


def _kept(value: Value) -> Any:
    """A value as JSON has it.

    A letter before texts and bytes tells them apart, and begins a list that is to be decoded.
    """
    match value:
        case Decoded():
            return [f"d{value.decoder}", value.data.hex()]
        case bytes() | bytearray() | memoryview():
            return f"b{value.hex()}"
        case None | bool() | int() | float():
            return value
        case str():
            return f"s{value}"
        case Mapping():
            return {str(name): _kept(item) for name, item in value.items()}
        case Sequence():
            return [_kept(item) for item in value]
    return f"s{value}"


def _given(value: Any) -> Any:
    """The value that was kept."""
    match value:
        case str():
            return value[1:] if value[0] == "s" else bytes.fromhex(value[1:])
        case dict():
            return {name: _given(item) for name, item in value.items()}
        case [str(decoder), data] if decoder[0] == "d":
            return Decoded(decoder[1:], bytes.fromhex(data))
        case list():
            return [_given(item) for item in value]
    return value
