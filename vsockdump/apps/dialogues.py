"""The application layer of a capture: which connections speak what, and what they say.

`Dialogues` takes tracked batches, finds the pieces of the streams in them (track/stream.py),
lets the registry recognise each connection by how it begins, and drives a parser for it.
What is said in a batch is left in it: `batch.said` by packet number, `batch.apps` with the
code of each packet's protocol.

Rules for editors: bounded in everything.  A connection costs something only until it is
known that nobody parses it; most do, and their packets are then left out at once, by a
mask.  What a parser raises is a note in the capture, never the program's end.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsockdump.address import Endpoint
from vsockdump.amounts import counted
from vsockdump.apps.byte_stream import ByteStream, Ended, Lost, ProtocolError, Steps
from vsockdump.apps.message import Call, Kind, Message, OpenCall, Said
from vsockdump.apps.nature import NATURES, nature
from vsockdump.apps.protocol import OPENING, Context, Opening, Parser, Setting
from vsockdump.apps.registry import Choice, Recognition, codes, failure
from vsockdump.batch import NO_TIME, Batch, Rows
from vsockdump.columns import ends_in, said_by_row, tracked
from vsockdump.track.stream import Kind as PieceKind
from vsockdump.track.stream import Piece, Streams, gap_of, lengths, pieces_of
from vsockdump.wire import Seqpacket, Shutdown

MOST_PARSERS: Final = 10_000  # connections that are parsed at once
MOST_CALLS: Final = 10_000  # open calls of a connection
_AT_ONCE: Final = 64  # pieces, before it is asked whether there is time for more
_MOST_HELD: Final = 64  # pieces of a connection that wait for its protocol to be known
_DATA: Final = int(PieceKind.DATA)
_LOST: Final = int(PieceKind.LOST)
_ENDS: Final = (int(PieceKind.SHUTDOWN), int(PieceKind.RST))
_EOM: Final = int(Seqpacket.EOM)
_SEND: Final = int(Shutdown.SEND)
_RCV: Final = int(Shutdown.RCV)

# By connection.  `since` is the packet that settled the protocol, 0: it is not settled.
CONNECTION_DTYPE: Final = np.dtype(
    [
        ("since", "u8"),
        ("messages", "u8"),
        ("bytes", "u8"),  # of them
        ("code", "u1"),  # of the protocol, 0: none
        ("evidence", "u1"),  # index into EVIDENCE
        ("nature", "u1"),  # of the bytes of no protocol, index into NATURES
        ("closed", "?"),  # nothing of it is parsed any more
        ("notes", "u2"),  # times that a parser gave up or lost track
    ]
)
EVIDENCE: Final = ("", "user", "content", "port")


class DialogueOptions(NamedTuple):
    """Ports that users have named, what they set for parsers, whether messages keep their bytes.

    `parsers` take the place of protocols' own, by name.
    """

    ports: Mapping[int, str]
    setting: Setting = Setting()
    keep: bool = False
    parsers: Mapping[str, Callable[[Context], Parser]] = MappingProxyType({})


class Dialogues:
    """All connections up to number `most`.

    `left_out` counts connections that were given up, the idlest first, because MOST_PARSERS
    others were parsed; `passed_over` the data packets that were not parsed for want of time.
    """

    def __init__(self, options: DialogueOptions, most: int) -> None:
        self._options = options
        self._streams = Streams(most)
        self._open: dict[int, _Dialogue] = {}
        self._table = np.zeros(1024, CONNECTION_DTYPE)
        self._said: dict[int, list[Said]] = {}  # of the batch in work, by packet
        self._unanswered: list[OpenCall] = []
        self._missed: dict[int, int] = {}  # bytes that were passed over, by flow
        self.software: dict[int, str] = {}  # by connection, where a port named it
        self.left_out = self.passed_over = 0
        self.late: list[Said] = []
        self.first = 0  # packet of the batch in work

    def add(self, batch: Batch, behind: Callable[[], bool] = lambda: False) -> None:
        """Take a tracked batch; fills its `said`, `apps` and `unanswered`.

        `behind` says whether packets will be lost unless they are taken faster.  Data are
        then passed over, and are gaps to the parsers.
        """
        numbers = tracked(batch)["conn"]
        self._make_room(int(numbers.max(initial=0)))
        self._said, self._unanswered = {}, []
        self.first = int(batch.rows["number"][0]) if len(batch.rows) else 0
        wanted = ~self._table["closed"][numbers]
        if wanted.any():
            add = self._pass_over if behind() else self._streams.add
            self._take_all(add(batch, wanted), batch, behind)
        batch.said = dict(sorted(self._said.items()))
        batch.unanswered = self._unanswered
        batch.apps = self._codes(batch, numbers)

    def finish(self) -> list[Said]:
        """The capture has ended: what is undecided is decided by what there is.

        What is then said comes too late for its batch and is returned, in order; so is `late`.
        """
        self._said, self.first = {}, 0
        for dialogue in list(self._open.values()):
            dialogue.decide(ended=True)
        self.late = [said for _packet, group in sorted(self._said.items()) for said in group]
        return self.late

    def remark(self) -> str:
        """A sentence about the packets that were passed over."""
        return (
            f"messages are missing: the data of {counted(self.passed_over, 'packet')} were passed"
            " over, so that no packet is lost."
        )

    def open_calls(self) -> Iterator[OpenCall]:
        """Requests that have no response so far, of connections that go on."""
        for dialogue in self._open.values():
            yield from dialogue.open_calls()

    def of(self, conn: int) -> np.void:
        """What is known of a connection: a row of CONNECTION_DTYPE."""
        self._make_room(conn)
        row: np.void = self._table[conn]
        return row

    def protocols_of(self, conns: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """The code of the protocol of each connection, 0: none is known."""
        self._make_room(int(conns.max(initial=0)))
        codes_: NDArray[np.uint8] = self._table["code"][conns]
        return codes_

    def _make_room(self, conn: int) -> None:
        while conn >= len(self._table):
            self._table = np.concatenate((self._table, np.zeros_like(self._table)))

    def _codes(self, batch: Batch, conns: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """The protocol of each packet, as far as the packets up to it tell it."""
        found: NDArray[np.uint8] = self._table["code"][conns]
        if found.any():
            found[self._table["since"][conns] > batch.rows["number"]] = 0
        for row, group in said_by_row(batch):
            found[row] = codes().get(group[0].message.protocol, found[row])
        return found

    def _take_all(self, pieces: Rows, batch: Batch, behind: Callable[[], bool]) -> None:
        """The pieces of a batch, as long as there is time for their data."""
        for first in range(0, len(pieces), _AT_ONCE):
            if first and behind():
                rest = pieces[first:]
                data = rest["kind"] == _DATA
                self.passed_over += int(np.count_nonzero(data))
                self._miss(*lengths(rest[data]))
                for piece in pieces_of(self._of_open(rest[~data])):
                    self._take(piece, batch)
                return
            for piece in pieces_of(pieces[first : first + _AT_ONCE]):
                self._take(piece, batch)

    def _miss(self, flows: NDArray[np.uint64], sizes: NDArray[np.int64]) -> None:
        """Note bytes that are passed over."""
        for flow, size in zip(flows.tolist(), sizes.tolist(), strict=True):
            if flow // 2 in self._open:
                self._missed[flow] = self._missed.get(flow, 0) + size

    def _of_open(self, pieces: Rows) -> Rows:
        """Those of connections that are parsed."""
        return pieces[np.isin(pieces["conn"], np.fromiter(self._open, np.uint64))]

    def _pass_over(self, batch: Batch, wanted: NDArray[np.bool_]) -> Rows:
        """The pieces of connections that are parsed, without data, which are noted as missed.

        Other connections begin when there is time for them, and see then where in the stream
        they are.  What began and is not known yet must do to recognise it.
        """
        after = tracked(batch)
        self.passed_over += int(np.count_nonzero(wanted & (after["data_len"] > 0)))
        for conn, dialogue in [item for item in self._open.items() if item[1].is_undecided]:
            dialogue.decide(ended=True)
            if dialogue.is_over:
                self._close(conn)
        wanted = wanted & ~self._table["closed"][after["conn"]]
        pieces, flows, sizes = self._streams.pass_over(batch, wanted)
        self._miss(flows, sizes)
        return self._of_open(pieces)

    def _take(self, piece: Piece, batch: Batch) -> None:
        dialogue = self._open.pop(piece.conn, None) or self._begin(piece, batch)
        if dialogue is None:
            return
        self._open[piece.conn] = dialogue  # last: the one that is idle longest is first
        missed = self._missed.pop(2 * piece.conn + piece.side, 0) if self._missed else 0
        if missed:
            dialogue.take(_gap_before(piece, missed), batch)
        dialogue.take(piece, batch)
        if dialogue.is_over:
            self._close(piece.conn)

    def _begin(self, piece: Piece, batch: Batch) -> "_Dialogue | None":
        if self._table["closed"][piece.conn]:
            return None  # earlier in this batch
        if len(self._open) >= MOST_PARSERS:
            self.left_out += 1
            self._close(next(iter(self._open)))
        ends = ends_in(batch, piece.row)
        kind = int(batch.rows[piece.row]["virtio"]["type"])
        return _Dialogue(self, piece.conn, ends, kind)

    def _close(self, conn: int) -> None:
        self._unanswered += self._open.pop(conn).open_calls()
        self._table["closed"][conn] = True
        self._streams.forget(conn)
        for side in (0, 1):
            self._missed.pop(2 * conn + side, None)

    # --- for dialogues -------------------------------------------------------------------------

    @property
    def options(self) -> DialogueOptions:
        """What was asked for."""
        return self._options

    def settled(self, conn: int, packet: int, choice: Choice) -> None:
        """Note what a connection speaks."""
        row = self._table[conn]
        row["since"] = packet
        row["evidence"] = EVIDENCE.index(choice.evidence)
        if choice.protocol is not None:
            row["code"] = codes().get(choice.protocol.name, 0)
        if choice.software:
            self.software[conn] = choice.software

    def say(self, said: Said) -> None:
        """Note a message."""
        self._said.setdefault(said.packet, []).append(said)
        row = self._table[said.conn]
        if said.message.kind == Kind.NOTE:
            row["notes"] = min(int(row["notes"]) + 1, 0xFFFF)
        else:
            row["messages"] += 1
            row["bytes"] += said.size


def _gap_before(piece: Piece, size: int) -> Piece:
    """Bytes that are missing before a piece."""
    return piece._replace(kind=_LOST, offset=piece.offset - size, len=size, cap=0)


class _Side:
    """One direction: its bytes and the parser's steps through them (None: not parsed)."""

    def __init__(self, side: int, keep: bool) -> None:
        self.stream = ByteStream(side, keep)
        self.steps: Steps | None = None
        self.begun = False
        self.resuming = False  # bytes were lost, and no message has begun since
        self.given_up = False


class _Dialogue:
    """One connection, from its first bytes until nothing of it is parsed."""

    def __init__(
        self, all_: Dialogues, conn: int, ends: tuple[Endpoint, Endpoint], socket_type: int
    ) -> None:
        self._all = all_
        self._conn = conn
        self._ends = ends
        self._type = socket_type
        keep = all_.options.keep
        self._sides = (_Side(0, keep), _Side(1, keep))
        self._parser: Parser | None = None
        self._name = ""
        self._held: list[tuple[Piece, bytes]] = []  # until the protocol is known
        self._opening = (bytearray(), bytearray())
        self._recognition = Recognition()
        self._joined = False
        self._silent: set[int] = set()  # sides that have ended, until the protocol is known
        self._calls: dict[tuple[int, object], OpenCall] = {}
        self._latest: Piece | None = None
        self._piece: Piece | None = None  # the one in work
        self.is_over = False

    def open_calls(self) -> Iterator[OpenCall]:
        """Requests without a response so far, in the order of their packets."""
        return iter(self._calls.values())

    def take(self, piece: Piece, batch: Batch) -> None:
        """One more piece."""
        side = self._sides[piece.side]
        if not side.begun:
            side.begun = True
            if piece.offset:  # there was no time for what comes before
                self.take(_gap_before(piece, piece.offset), batch)
        self._latest = self._piece = piece
        data = bytes(batch.buffer[piece.at : piece.at + piece.cap])
        if self._parser is not None:
            self._parse(piece, data)
            return
        self._held.append((piece, data))
        self._note_opening(piece, data)
        self.decide(ended=self._has_ended(piece))

    def _note_opening(self, piece: Piece, data: bytes) -> None:
        """Keep what recognisers look at: all up to the first gap."""
        opening = self._opening[piece.side]
        if piece.kind in (PieceKind.BEFORE, PieceKind.LOST, PieceKind.LOST_AT_LEAST):
            opening.clear()
            self._recognition = Recognition()
            self._joined = True
        elif data:
            opening += data[: max(OPENING - len(opening), 0)]

    def _has_ended(self, piece: Piece) -> bool:
        """Whether no more will come that could tell the protocol."""
        if piece.kind in _ENDS:
            self._silent.update(self._ended_by(piece))
        return len(self._silent) == len(self._sides) or len(self._held) >= _MOST_HELD

    @property
    def is_undecided(self) -> bool:
        """Whether its protocol is not known yet."""
        return self._parser is None

    def decide(self, ended: bool) -> None:
        """Recognise the protocol, if that can be; what was held is then parsed."""
        if not self.is_undecided or self.is_over or self._piece is None:
            return
        if not any(self._opening) and not ended:
            return
        opening = Opening(
            (bytes(self._opening[0]), bytes(self._opening[1])),
            self._ends,
            self._type,
            self._joined,
            ended,
        )
        choice = self._recognition.choose(opening, self._all.options.ports)
        if choice is None:
            return
        self._all.settled(self._conn, self._piece.packet, choice)
        for remark in choice.remarks:
            self._note(remark)
        if choice.protocol is None:
            self._all.of(self._conn)["nature"] = NATURES.index(nature(b"".join(opening.data)))
            self.is_over = True
            self._held.clear()
            return
        self._name = choice.protocol.name
        self._start(choice, opening)

    def _start(self, choice: Choice, opening: Opening) -> None:
        assert choice.protocol is not None
        try:
            options = self._all.options
            parser = options.parsers.get(choice.protocol.name, choice.protocol.parser)
            self._parser = parser(Context(opening, options.setting))
        except Exception as error:  # a parser's mistake, or a library that is not there
            self._note(_failure(error))
            self.is_over = True
            return
        for side in self._sides:
            side.steps = self._parser.messages(side.stream)
        held, self._held = self._held, []
        for self._piece, data in held:
            if not self.is_over:
                self._parse(self._piece, data)

    def _parse(self, piece: Piece, data: bytes) -> None:
        """Give a piece to its side's stream, or to both where it ends them."""
        if piece.kind in _ENDS:
            for number in self._ended_by(piece):
                self._sides[number].stream.feed_end()
                self._run(number)
        elif not self._sides[piece.side].given_up:
            self._feed(self._sides[piece.side], piece, data)
            self._run(piece.side)
        self._see_whether_over()

    @staticmethod
    def _ended_by(piece: Piece) -> tuple[int, ...]:
        """Which sides send no more after a SHUTDOWN or RST."""
        if piece.kind == PieceKind.RST:
            return piece.side, 1 - piece.side
        own = (piece.side,) if piece.flags & _SEND else ()
        return (*own, 1 - piece.side) if piece.flags & _RCV else own

    def _feed(self, side: _Side, piece: Piece, data: bytes) -> None:
        stream = side.stream
        if side.resuming and data:
            self._try_to_resume(side, data)
        stream.feed(data)
        gap = gap_of(piece)
        if gap is not None:
            stream.feed_gap(gap.size)
        if piece.kind == PieceKind.DATA and piece.flags & _EOM:
            stream.feed_record_end()
        if side.resuming:
            stream.restart()

    def _try_to_resume(self, side: _Side, data: bytes) -> None:
        """Begin anew behind a gap, if a message begins there."""
        assert self._parser is not None
        try:
            side.resuming = not self._parser.resumes(side.stream.side, data)
        except Exception as error:  # a parser's mistake
            self._give_up(side, _failure(error))
        if not side.resuming:
            side.steps = self._parser.messages(side.stream)

    def _run(self, number: int) -> None:
        """Let a side's parser go on until it waits."""
        side = self._sides[number]
        if side.steps is None or side.given_up or side.resuming:
            return
        try:
            for message in side.steps:
                if message is None:
                    return
                self._say(number, message)
            side.given_up = True  # it has nothing more to say
        except Lost:
            self._lose_track(side)
        except Ended:
            side.given_up = True
        except ProtocolError as error:
            self._give_up(side, f"not understood from here on: {error}")
        except Exception as error:  # a parser's mistake
            self._give_up(side, _failure(error))

    def _lose_track(self, side: _Side) -> None:
        """Bytes are missing that the parser needs: wait for a packet with which it can begin."""
        if side.stream.offset or side.stream.waiting:
            self._note("bytes are missing; goes on where a message begins", side.stream.side)
        side.stream.restart()
        side.resuming = True

    def _give_up(self, side: _Side, why: str) -> None:
        self._note(why, side.stream.side)
        side.given_up = True

    def _see_whether_over(self) -> None:
        assert self._parser is not None
        if self._parser.over or all(
            side.given_up or (side.stream.ended and side.resuming) for side in self._sides
        ):
            self.is_over = True

    def _note(self, text: str, side: int = 0) -> None:
        packet, time_ns = self._place
        note = Message(self._name, text, Kind.NOTE)
        self._all.say(Said(packet, time_ns, self._conn, side, 0, 0, note))

    @property
    def _place(self) -> tuple[int, int]:
        """Packet and time of the piece in work.

        Packets of earlier batches have gone their way: for one of those, the packet stands
        with which the protocol became known.
        """
        assert self._piece is not None
        assert self._latest is not None
        piece = self._piece if self._piece.packet >= self._all.first else self._latest
        return piece.packet, self._piece.time_ns

    def _say(self, number: int, message: Message) -> None:
        packet, time_ns = self._place
        offset, size, data, whole = self._sides[number].stream.take()
        if message.size is not None:
            size = message.size
        request = None
        if message.call is not None:
            request, message = self._paired(number, message, message.call)
        latency = None
        if request is not None and NO_TIME not in (time_ns, request.time_ns):
            latency = time_ns - request.time_ns
        self._all.say(
            Said(
                packet,
                time_ns,
                self._conn,
                number,
                offset,
                size,
                message,
                latency,
                request.packet if request else None,
                data,
                whole,
            )
        )

    def _paired(self, number: int, message: Message, call: Call) -> tuple[OpenCall | None, Message]:
        """Open the call of a request, or find that of a response, which gets its method."""
        if message.kind == Kind.REQUEST:
            if len(self._calls) < MOST_CALLS:
                self._calls[number, call.key] = OpenCall(
                    *self._place,
                    self._conn,
                    number,
                    message.protocol,
                    call.method,
                )
            return None, message
        key = (number if call.own else 1 - number, call.key)
        request = self._calls.get(key)
        if request is not None:
            if call.ends:
                del self._calls[key]
            if not call.method:
                message = message._replace(call=call._replace(method=request.method))
        return request, message


def _failure(error: Exception) -> str:
    return f"the parser failed ({failure(error)})"
