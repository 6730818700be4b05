"""The parser of protocols that are hardly more than framed messages (framed.py is their table).

A row says how a side's bytes fall into units (framing.py), how one tells that they are of
this protocol, and what a unit says.  Requests and responses are paired by an identifier, or,
where there is none, in order (`Pairs`).

Rules for editors: nothing here knows a protocol.  Where the next unit's shape depends on
what went before, a protocol needs a parser of its own.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from vsockdump.apps.byte_stream import ByteStream, Steps
from vsockdump.apps.framing import Framing, Unit
from vsockdump.apps.message import Call, Fields, Kind, Message
from vsockdump.apps.protocol import (
    CERTAIN,
    OPENING,
    Context,
    Opening,
    Parser,
    Prior,
    Protocol,
    Score,
)

_MOST_OPEN: Final = 10_000  # requests that wait for their response, in order


class Pairs:
    """Which request a response answers, where they are not numbered: the oldest of the other
    side."""

    def __init__(self) -> None:
        self._open: tuple[deque[Call], deque[Call]] = (deque(), deque())
        self._count = 0

    def ask(self, side: int, method: str) -> Call:
        """The call of a request."""
        self._count += 1
        call = Call(("nth", self._count), method)
        self._open[side].append(call)
        if len(self._open[side]) > _MOST_OPEN:
            self._open[side].popleft()
        return call

    def awaited(self, side: int) -> str:
        """The method of the request that the next response of `side` answers, or nothing."""
        asked = self._open[1 - side]
        return asked[0].method if asked else ""

    def answer(self, side: int, error: str | None = None, ends: bool = True) -> Call | None:
        """The call of a response; None where its request is not known."""
        asked = self._open[1 - side]
        if not asked:
            return None
        call = asked.popleft() if ends else asked[0]
        return call._replace(error=error, ends=ends)

    def forget(self) -> None:
        """Bytes were lost: nobody knows what answers what."""
        for calls in self._open:
            calls.clear()


class Saying(NamedTuple):
    """What a unit says, before the protocol's name is put to it."""

    summary: str
    fields: Fields
    kind: Kind = Kind.MESSAGE
    call: Call | None = None


Looks = Callable[[bytes], Score]  # of one side's first bytes
Say = Callable[[Pairs, int, Unit], Saying]


class Framed(NamedTuple):
    """A row.

    `looks` judges a side's first bytes, where a connection or a packet behind a gap begins;
    None where only a port tells.  `recognise` judges a connection instead, where both sides
    or its ends have to be looked at.  `most`: see Protocol.
    """

    name: str
    title: str
    framing: Callable[[Context], Framing]
    say: Say
    looks: Looks | None
    priors: tuple[Prior, ...] = ()
    recognise: Callable[[Opening], Score] | None = None
    most: int = CERTAIN

    @property
    def protocol(self) -> Protocol:
        """The row for the registry."""
        recognise = self.recognise
        if recognise is None and self.looks is not None:
            recognise = partial(of_sides, self.looks)
        return Protocol(
            self.name, self.title, partial(_Parser, self), recognise, self.priors, self.most
        )


def of_sides(looks: Looks, opening: Opening) -> Score:
    """The surest of what both sides' bytes say, unless one of them says no."""
    scores = [looks(data) for data in opening.data if data]
    if not scores or 0 in scores:
        return 0 if scores else None
    return max((score for score in scores if score), default=None)


class _Parser(Parser):
    """Any row of the table."""

    def __init__(self, row: Framed, context: Context) -> None:
        super().__init__(context)
        self._row = row
        self._unit = row.framing(context)
        self._pairs = Pairs()

    def messages(self, stream: ByteStream) -> Steps:
        if stream.joined:
            self._pairs.forget()
        while True:
            unit = yield from self._unit(stream)
            said = self._row.say(self._pairs, stream.side, unit)
            yield Message(self._row.name, said.summary, said.kind, said.fields, said.call)

    def resumes(self, side: int, head: bytes) -> bool:
        return bool(self._row.looks and self._row.looks(head[:OPENING]))


def always(unit: Framing) -> Callable[[Context], Framing]:
    """The same framing for every connection."""
    return lambda _context: unit
