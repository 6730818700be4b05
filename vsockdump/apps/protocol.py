"""What a protocol is to the registry, and what a parser has to do.

To add a protocol, write a module with a parser and a tuple PROTOCOLS, and name it in
registry.py; a package of one's own names a Protocol as an entry point of the group
`vsockdump.protocols`.  Parsers do no I/O and know no packets: they get two ByteStreams and
yield Messages.

Rules for editors: heavy libraries are imported by the parser that needs them, when it is
made.  A recogniser is quick, sees at most OPENING bytes a side, and says what the bytes
say: ports are the registry's matter.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from vsockdump.address import Endpoint
from vsockdump.apps.byte_stream import ByteStream, Steps
from vsockdump.wire import CID_HOST, CID_LOCAL, SocketType

OPENING: Final = 4096  # bytes of each side that recognisers get to see

# What a recogniser says: that it is not this (0), how sure it is (up to 100), or that it
# needs more bytes (None).
Score = int | None
CERTAIN: Final = 100
LIKELY: Final = 70
POSSIBLE: Final = 40


class Opening(NamedTuple):
    """What a connection has begun with, initiator's and acceptor's.

    `joined`: the capture began later than the connection.  `ended`: no more will come.
    """

    data: tuple[bytes, bytes]
    ends: tuple[Endpoint, Endpoint]
    socket_type: int = int(SocketType.STREAM)
    joined: bool = False
    ended: bool = False

    @property
    def likely_client(self) -> int:
        """The side that has connected.

        Where the capture began later, sides are in order of their first packets, and ports
        tell more: the lower one is the listener's.
        """
        return int(self.joined and self.ends[0].port < self.ends[1].port)

    @property
    def acceptor(self) -> Endpoint:
        """The end that was connected to."""
        return self.ends[1 - self.likely_client]


class Prior(NamedTuple):
    """Who is known to use a port: a reason to expect a protocol there.

    `listener` is "guest", "host" or "" (either); `cid` that of the acceptor, None: any.
    """

    port: int
    software: str
    listener: str = ""
    cid: int | None = None
    socket_type: int = int(SocketType.STREAM)

    def fits(self, opening: Opening) -> bool:
        """Whether a connection goes to this port of such a listener."""
        acceptor = opening.acceptor
        if acceptor.port != self.port or opening.socket_type != self.socket_type:
            return False
        if self.cid is not None:
            return acceptor.cid == self.cid
        if not self.listener or acceptor.cid == CID_LOCAL:
            return True  # a loopback connection shows neither guest nor host
        return (acceptor.cid > CID_HOST) == (self.listener == "guest")


class Setting(NamedTuple):
    """What users set for parsers: the files of --proto, descriptor sets of protobuf."""

    descriptors: tuple[str, ...] = ()


class Context(NamedTuple):
    """What a parser may know of its connection."""

    opening: Opening
    setting: Setting = Setting()


class Parser:
    """One connection of a protocol: both sides, which may share what they know.

    `over` says that what follows is of no interest, of either side: bulk, or encrypted.
    """

    over = False

    def __init__(self, context: Context) -> None:
        self.context = context

    def messages(self, stream: ByteStream) -> Steps:
        """The messages of one side, from where a message begins.

        Called for each side, and again after a gap where `resumes` says that a message
        begins; `stream.joined` then holds.  Ends where nothing more can be said.
        """
        raise NotImplementedError

    def resumes(self, side: int, head: bytes) -> bool:
        """Whether a message of a side begins with these bytes, the first of a packet.

        Asked after a gap, and where a capture begins inside a connection.
        """
        return False


class Protocol(NamedTuple):
    """A protocol: its name, what tells it, and who parses it.

    `recognise` None: only its ports tell it.  A score of 0 is final: whatever follows, it is not
    asked again.  `most` is the surest that its recogniser gets:
    nobody waits for its judgement who is surer already.
    """

    name: str
    title: str
    parser: Callable[[Context], Parser]
    recognise: Callable[[Opening], Score] | None = None
    priors: tuple[Prior, ...] = ()
    most: int = CERTAIN
