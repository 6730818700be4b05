"""How a stream falls into units: by a mark, by a length before them, by records, by the end.

A framing is a generator function that reads one `Unit`.  Parsers of framed protocols pick
theirs from here (framed.py) or let it be told by the bytes themselves (`told_by`).

Rules for editors: a framing knows no content.  Sizes are hostile: a unit is never larger
than LARGEST, and never held beyond what `ByteStream.body` keeps of it.
"""

from collections.abc import Callable, Generator, Iterator
from struct import Struct
from typing import Final, NamedTuple

from vsockdump.apps.byte_stream import Body, ByteStream, Ended, Lost, ProtocolError

LARGEST: Final = 128 << 20  # bytes of a unit; the most that a protocol of framed.py allows


class Unit(NamedTuple):
    """One message: the numbers of its header, if its framing has one, and its body."""

    header: tuple[int, ...]
    body: Body


Units = Generator[None, None, Unit]
Framing = Callable[[ByteStream], Units]


def marked(marks: bytes) -> Framing:
    """Units that end with one of the bytes `marks`, which is no part of the body."""

    def unit(stream: ByteStream) -> Units:
        line = yield from stream.line(marks)
        whole = line.is_whole
        data = line.data[:-1] if whole and line.data[-1:] in _each(marks) else line.data
        return Unit((), Body(data, len(data) if whole else line.size, line.missing))

    return unit


def _each(marks: bytes) -> tuple[bytes, ...]:
    return tuple(bytes([mark]) for mark in marks)


def headed(header: Struct, size_at: int, counts_itself: bool) -> Framing:
    """Units behind a header that holds their size as its number `size_at`.

    `counts_itself`: the size is that of header and body.
    """
    own = header.size if counts_itself else 0

    def unit(stream: ByteStream) -> Units:
        numbers = header.unpack((yield from stream.exact(header.size)))
        size = numbers[size_at] - own
        if not 0 <= size <= LARGEST:
            raise ProtocolError(f"a message of {numbers[size_at]} bytes")
        return Unit(numbers, (yield from stream.body(size)))

    return unit


def prefixed(size: Struct) -> Framing:
    """Units behind their length."""
    return headed(size, 0, counts_itself=False)


def record(stream: ByteStream) -> Units:
    """A message of SEQPACKET, or a datagram."""
    return Unit((), (yield from stream.record()))


def whole(stream: ByteStream) -> Units:
    """All that a side sends."""
    body = yield from stream.rest()
    if not body.size:
        raise Ended
    if not body.data:
        raise Lost
    return Unit((), body)


# --- told by the bytes -------------------------------------------------------------------------

PREFIXES: Final = tuple(Struct(form) for form in (">Q", "<Q", ">I", "<I", ">H", "<H"))
LONGEST: Final = max(prefix.size for prefix in PREFIXES)
_WIDE: Final = tuple(prefix for prefix in PREFIXES if prefix.size > 2)
_PLAUSIBLE: Final = 1 << 20  # bytes of a unit, where nothing but its length speaks for it


def told_by(head: bytes) -> Struct | None:
    """The length that `head` begins with, if it is a plausible one of 4 or 8 bytes.

    Not of two: any two bytes are a plausible length.
    """
    for prefix in _WIDE:
        if len(head) >= prefix.size and 0 < prefix.unpack_from(head)[0] <= _PLAUSIBLE:
            return prefix
    return None


def chain(data: bytes, prefix: Struct) -> Iterator[bytes]:
    """The whole units that `data` begins with; ValueError where a length is implausible."""
    at = 0
    while at + prefix.size <= len(data):
        size = prefix.unpack_from(data, at)[0]
        if not 0 < size <= _PLAUSIBLE:
            raise ValueError
        at += prefix.size
        if at + size > len(data):
            return
        yield data[at : at + size]
        at += size
