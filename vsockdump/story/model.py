"""What a story is made of, and what it comes to: values, no decisions.

`Facts` is all that is known of a connection when it is told; `Story` is what is said of it,
before anybody decides how it looks.

Rules for editors: texts that came from a capture are escaped before they get here.  Unknown is
None, never 0; a packet number of 0 means that no packet shows it.
"""

from collections.abc import Sequence
from enum import IntFlag, StrEnum
from typing import Any, NamedTuple

from vsockdump.findings.rule import Rule, Severity
from vsockdump.track.kinds import Cause
from vsockdump.track.store import ConnectionRow, FlowRow
from vsockdump.wire import Op

SIDES = ("initiator", "acceptor")
OPS = len(Op) + 1  # places of a tally: the ops by number, and one for all that have no name
NO_TALLY = (0,) * (2 * OPS)


class Why(IntFlag):
    """Why a packet is kept."""

    BEGINNING = 1  # one of the first
    LAST = 2
    CONTROL = 4  # neither data nor CREDIT_UPDATE
    DATA = 8  # the first or last data of a side
    FINDING = 16
    WAIT = 32  # the first or last packet of a wait for credit
    SILENCE = 64  # the packet before or behind one
    SAID = 128  # an application message is complete with it


class Packet(NamedTuple):
    """A packet that is kept.

    `free` is its sender's free credit after it, `granted` its receiver's; None: unknown.
    `tally` counts the packets of the connection up to this one, of side 0 by op and then of
    side 1, and `sent` the bytes of each side.
    """

    number: int
    time_ns: int | None
    side: int
    op: int
    flags: int
    len: int
    buf_alloc: int
    state: int
    free: int | None
    granted: int | None
    tally: tuple[int, ...]
    sent: tuple[int, int]


class Wait(NamedTuple):
    """A sender without credit; `last_packet` 0: it goes on."""

    side: int
    start_ns: int
    end_ns: int
    first_packet: int
    last_packet: int
    in_flight: int
    cause: int = Cause.READER

    @property
    def length_ns(self) -> int:
        """How long it lasted."""
        return self.end_ns - self.start_ns


class Silence(NamedTuple):
    """No packet of the connection, between two of them."""

    length_ns: int
    before: Packet
    after: Packet


class Spoken(NamedTuple):
    """A message: `text` is its line, `method` that of its call, `error` why the call failed.

    `kind` is request, response, message or note; `latency_ns` and `request_packet` are a
    response's, `ends` tells whether it is the call's last.
    """

    packet: int
    time_ns: int | None
    side: int
    kind: str
    text: str
    method: str = ""
    error: str | None = None
    latency_ns: int | None = None
    request_packet: int | None = None
    ends: bool = True


class Unanswered(NamedTuple):
    """A request without a response; `open`: one may still come."""

    packet: int
    time_ns: int | None
    side: int
    method: str
    open: bool


class Talk(NamedTuple):
    """What of the messages is kept, and how many there were.

    `calls` are responses that ended their call; `slowest` is the one that took longest.
    """

    kept: Sequence[Spoken] = ()
    unanswered: Sequence[Unanswered] = ()
    messages: int = 0  # notes are none
    requests: int = 0
    calls: int = 0
    failed: int = 0
    without_answer: int = 0
    slowest: Spoken | None = None


class Protocol(NamedTuple):
    """What a connection speaks, "" where it is no known protocol, and what speaks for it.

    `evidence` is user, content or port, `nature` what other bytes look like; `since` is the
    packet that settled it, 0 where nothing did.  `decoded`: somebody looked.
    """

    name: str = ""
    evidence: str = ""
    software: str = ""
    nature: str = ""
    since: int = 0
    decoded: bool = False


class Record(NamedTuple):
    """What is kept of the packets: those that decide something, and why each is kept.

    `joined` is how many packets of the connection had gone by when it was first looked at, and
    `ends` how many datagrams or messages of SEQPACKET each side has completed.
    """

    packets: Sequence[tuple[Packet, Why]] = ()
    waits: Sequence[Wait] = ()
    silences: Sequence[Silence] = ()
    talk: Talk = Talk()
    joined: int = 0
    ends: tuple[int, int] = (0, 0)


class Outcome(NamedTuple):
    """What came of a connect, after how long (None: unknown), and why as far as told."""

    word: str
    after_ns: int | None
    why: str


class Found(NamedTuple):
    """A finding of the connection, or with `conn` 0 of the whole capture.

    `severity` is the rule's, or less where there is doubt.
    """

    rule: Rule
    severity: Severity
    conn: int
    packet: int
    time_ns: int | None
    text: str
    times: int
    goes_on: bool

    @property
    def where(self) -> str:
        """Its packet, behind the sentence; of several cases that is the first's."""
        first = "first in packet" if self.times > 1 else "packet"
        return f" ({first} {self.packet})" if self.packet else ""


class Facts(NamedTuple):
    """All that is known of a connection.

    `flows` are what side 0 and what side 1 sent, `names` the ends as they are written; times
    are told since `first_ns`, None where packets have no times, and `now_ns` is as of when it
    is told.
    """

    connection: ConnectionRow
    flows: tuple[FlowRow, FlowRow]
    names: tuple[str, str]
    socket_type: str
    first_ns: int | None
    now_ns: int | None
    outcome: Outcome | None
    found: Sequence[Found]
    protocol: Protocol
    record: Record


class Kind(StrEnum):
    """What a sentence is about."""

    CONNECT = "connect"
    SAID = "said"
    DATA = "data"
    WAIT = "wait"
    SILENCE = "silence"
    FINDING = "finding"
    CLOSE = "close"
    STATE = "state"


class Sentence(NamedTuple):
    """One sentence; `packets` are those that it names, the first the one it leads to.

    `place` is the packet at which it is told, 0: at that one.
    """

    kind: Kind
    time_ns: int | None
    packets: tuple[int, ...]
    text: str
    severity: str = ""
    place: int = 0

    @property
    def packet(self) -> int:
        """The packet that the sentence leads to, 0: there is none."""
        return self.packets[0] if self.packets else 0


class Arrow(NamedTuple):
    """A row of the chart: a packet, and what is said at the sender's and at the credit's place."""

    packet: Packet
    label: str
    credit: str


class Pause(NamedTuple):
    """A row of the chart between packets: time goes by, and what for."""

    packet: int  # the one it begins with
    text: str


class Fold(NamedTuple):
    """A row of the chart: packets that are left out; `tally` and `sent` as in Packet."""

    packet: int  # the one before the first of them, 0: none
    tally: tuple[int, ...]
    sent: tuple[int, int]

    @property
    def packets(self) -> int:
        """How many packets."""
        return sum(self.tally)


Row = Arrow | Pause | Fold


class Story(NamedTuple):
    """A connection told.

    `values` are its plain facts for programs; `notes` what is to be known of the story itself.
    """

    facts: Facts
    summary: str
    sentences: Sequence[Sentence]
    found: Sequence[Found]
    rows: Sequence[Row]
    notes: Sequence[str]
    values: dict[str, Any]
