"""A direction of a connection, as a parser reads it: bytes, gaps, ends of records, the end.

A parser is a generator and reads with `yield from`, as if all bytes were there already:

    header = yield from stream.exact(10)

Where they are not, the generator yields None up to whoever drives it, which goes on when
more has come.  What cannot be read is an exception: Lost, Ended, ProtocolError.

Not callbacks with a state variable, as incremental parsers usually are: the order in which
a protocol's parts stand is then nowhere to be read.
"""

from collections import deque
from collections.abc import Generator
from typing import Final, NamedTuple

from vsockdump.apps.message import Message

Steps = Generator[Message | None, None, None]  # of a parser: None where it waits
Reading = Generator[None, None, bytes]

MOST: Final = 1 << 20  # bytes that a parser can ask for in one piece
KEPT: Final = 64 << 10  # bytes of a body that are kept, unless the parser says otherwise
TAKEN: Final = 16 << 20  # bytes of a message that are kept for exports


class Lost(Exception):
    """Bytes that a parser needs are not in the capture."""


class Ended(Exception):
    """The side sends no more, and the parser wants more."""


class ProtocolError(Exception):
    """The bytes are not what the protocol allows; one clause that says what is wrong."""


class Body(NamedTuple):
    """The part of a message whose size its header gives.

    `data` are its first bytes, up to what was to be kept and to the first gap; `size` in
    bytes, of which `missing` were not captured.
    """

    data: bytes
    size: int
    missing: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether `data` is all of it."""
        return len(self.data) == self.size


class ByteStream:
    """What one side sent.

    `offset` is where in the stream the next byte stands that will be read; `joined` says
    that what came before the first byte is not known.  `taken` collects what is read, where
    `keep` asks for it, until `take` is called.
    """

    def __init__(self, side: int, keep: bool = False) -> None:
        self.side = side
        self.offset = 0
        self.joined = False
        self.ended = False
        self.whole = True  # nothing of what was read since `take` was missing
        self._begun = 0  # offset at the last `take`
        self._buffer = bytearray()
        self._taken: bytearray | None = bytearray() if keep else None
        self._gaps: deque[tuple[int, int | None]] = deque()  # offset and size, in order
        self._record_ends: deque[int] = deque()  # offsets

    # --- for who drives the parser -----------------------------------------------------------

    def feed(self, data: bytes | memoryview) -> None:
        """More bytes."""
        self._buffer += data

    def feed_gap(self, size: int | None) -> None:
        """Bytes that are missing; None: nobody knows how many."""
        self._gaps.append((self._end, size))

    def feed_record_end(self) -> None:
        """The end of a message of SEQPACKET, or of a datagram."""
        self._record_ends.append(self._end)

    def feed_end(self) -> None:
        """No more will come."""
        self.ended = True

    def restart(self) -> None:
        """Forget what is waiting, and that bytes were lost: a new message begins."""
        self.offset = self._end
        self._buffer.clear()
        self._gaps.clear()
        self._record_ends.clear()
        self.joined = True
        self._begun, self.whole = self.offset, True
        if self._taken is not None:
            self._taken.clear()

    def take(self) -> tuple[int, int, bytes, bool]:
        """Where what was read since the last call begins, its size, its bytes, all of them?"""
        begun, self._begun = self._begun, self.offset
        size = self.offset - begun
        whole, self.whole = self.whole, True
        data = b""
        if self._taken is not None:
            data = bytes(self._taken)
            self._taken.clear()
            whole = whole and len(data) == size
        return begun, size, data, whole

    @property
    def waiting(self) -> int:
        """Bytes that were fed and not read."""
        return len(self._buffer)

    @property
    def _end(self) -> int:
        """The offset of the next byte to come; gaps that are ahead count."""
        return self.offset + len(self._buffer) + sum(size or 0 for _at, size in self._gaps)

    # --- for parsers ---------------------------------------------------------------------------

    def exact(self, size: int) -> Reading:
        """The next `size` bytes; Lost where a gap is among them."""
        if size > MOST:
            raise ProtocolError(f"{size} bytes in one piece are more than the limit of {MOST}")
        while self._ready < size:
            yield from self._more()
        return self._read(size)

    def peek(self, size: int) -> Reading:
        """The same, left unread."""
        while self._ready < size:
            yield from self._more()
        return bytes(self._buffer[:size])

    def some(self) -> Reading:
        """What is there, at least one byte."""
        while not self._ready:
            yield from self._more()
        return self._read(self._ready)

    def until(self, mark: bytes, most: int = KEPT) -> Reading:
        """All up to and with `mark`; ProtocolError where `most` bytes do not have it."""
        seen = 0
        while True:
            ready = min(self._ready, most)  # so that segments make no difference
            at = self._buffer.find(mark, max(seen - len(mark) + 1, 0), ready)
            if at >= 0:
                return self._read(at + len(mark))
            if ready == most:
                raise ProtocolError(f"no {mark!r} in {most} bytes")
            seen = ready
            yield from self._more()

    def line(self, marks: bytes, keep: int = KEPT) -> Generator[None, None, Body]:
        """All up to and with the first of the bytes `marks`, of which at most `keep` are kept.

        Where the side ends before it, what is left; Ended where nothing is.
        """
        kept, size = bytearray(), 0
        while True:
            part, found = self._ready_to(marks)
            if not part and self.ended and not self._gaps and size:
                return Body(bytes(kept), size)
            if not part:
                yield from self._more()
            kept += self._buffer[: min(max(keep - len(kept), 0), part)]
            size += part
            self._skip(part)
            if found:
                return Body(bytes(kept), size)

    def body(self, size: int, keep: int = KEPT) -> Generator[None, None, Body]:
        """The next `size` bytes, of which at most `keep` are kept; gaps in it are counted."""
        body = yield from self.up_to(size, keep)
        if body.size < size:
            raise Ended
        return body

    def rest(self, keep: int = KEPT) -> Generator[None, None, Body]:
        """All until the side ends, of which at most `keep` bytes are kept."""
        return (yield from self.up_to(1 << 62, keep))

    def up_to(self, size: int, keep: int = KEPT) -> Generator[None, None, Body]:
        """As `body`, but less where the side ends before."""
        kept, left, missing = bytearray(), size, 0
        while left:
            part = min(left, self._ready)
            if part:
                room = 0 if missing else max(keep - len(kept), 0)
                kept += self._buffer[: min(room, part)]
                self._skip(part)
            else:
                part = self._skip_gap(left)
                missing += part
                if not part and self.ended and not self._gaps:
                    break
                if not part:
                    yield from self._more()
            left -= part
        return Body(bytes(kept), size - left, missing)

    def record(self, keep: int = KEPT) -> Generator[None, None, Body]:
        """The next whole message of SEQPACKET, or datagram; gaps in it are counted."""
        while not self._record_ends:
            if self.ended:
                raise Ended
            if self._gaps and self._gaps[0][1] is None:
                raise Lost
            yield None
        return (yield from self.body(self._record_ends.popleft() - self.offset, keep))

    @property
    def _ready(self) -> int:
        """Bytes up to the next gap."""
        return self._gaps[0][0] - self.offset if self._gaps else len(self._buffer)

    def _ready_to(self, marks: bytes) -> tuple[int, bool]:
        """Bytes up to and with the first of `marks`, or to the next gap; is one among them?"""
        ready = self._ready
        found = [at for mark in marks if (at := self._buffer.find(mark, 0, ready)) >= 0]
        return (min(found) + 1, True) if found else (ready, False)

    def _more(self) -> Generator[None, None, None]:
        """Wait; raises where waiting is in vain."""
        if self._gaps:
            raise Lost
        if self.ended:
            raise Ended
        yield None

    def _read(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        self._skip(size)
        return data

    def _skip(self, size: int) -> None:
        if self._taken is not None:
            room = max(TAKEN - len(self._taken), 0)
            self._taken += self._buffer[: min(size, room)]
        del self._buffer[:size]
        self.offset += size

    def _skip_gap(self, most: int) -> int:
        """Go over a gap that is next, or the first `most` bytes of it; how many."""
        if not self._gaps or self._gaps[0][0] != self.offset:
            return 0
        _at, size = self._gaps.popleft()
        if size is None:
            raise Lost
        part = min(size, most)
        self.offset += part
        self.whole = False
        if part < size:
            self._gaps.appendleft((self.offset, size - part))
        return part
