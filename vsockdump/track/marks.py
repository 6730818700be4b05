"""What the line of a packet shows of what the tracker noticed, as bits.

The bits are set in compiled code and cost next to nothing; they stand in the `marks` column
of every packet that shows the thing.  What is found has a number of its own (kinds.py) and
needs no bit here: it is an event, once in a connection.  A bit is worth its place where the
thing is to be seen at every packet that has it; MORE stands for all events without one.

Rules for editors: a bit and what sets it, nothing else.  A bit that is no remark has the name
of its kind.  The numbers of bits appear in no output and may change.
"""

from enum import IntFlag
from typing import Final

from vsockdump.track.kinds import Kind


class Mark(IntFlag):
    """One bit per thing that packet lines show."""

    MIDSTREAM = 1 << 0
    TAP_REPEAT = 1 << 1
    CUT = 1 << 2
    NO_SOCKET = 1 << 3
    LATER_RST = 1 << 4
    ZERO_CREDIT = 1 << 5
    LATE_RESPONSE = 1 << 6
    SHORT_PAYLOAD = 1 << 7
    ADDRESS_MISMATCH = 1 << 8
    OP_MISMATCH = 1 << 9
    UNKNOWN_OP = 1 << 10
    UNKNOWN_TYPE = 1 << 11
    CONTROL_PAYLOAD = 1 << 12
    TYPE_CHANGED = 1 << 13
    NOT_ESTABLISHED = 1 << 14
    AFTER_SHUTDOWN = 1 << 15
    OPEN_BEFORE = 1 << 16
    OVER_CREDIT = 1 << 17
    FWD_AHEAD = 1 << 18
    FWD_BACK = 1 << 19
    MALFORMED = 1 << 20
    CUT_HEADERS = 1 << 21
    LONG_HEADER = 1 << 22
    UNKNOWN_TRANSPORT = 1 << 23
    RESERVED = 1 << 24
    FRAME_PAYLOAD = 1 << 25
    TOO_LONG = 1 << 26
    EMPTY_DATA = 1 << 27
    EMPTY_MESSAGES = 1 << 28
    WIDE_CID = 1 << 29
    RESERVED_CID = 1 << 30
    COPIES = 1 << 31
    FLAGS = 1 << 32
    SHUTDOWN_FLAGS = 1 << 33
    MESSAGE_FLAGS = 1 << 34
    MESSAGE_CUT = 1 << 35
    MESSAGE_SIZE = 1 << 36
    REFUSED = 1 << 37
    UNANSWERED = 1 << 38
    REUSED = 1 << 39
    UNASKED_RESPONSE = 1 << 40
    UNKNOWN_CONNECTION = 1 << 41
    RST_FOR_RST = 1 << 42
    DEAF_PEER = 1 << 43
    CLOSE_TIMEOUT = 1 << 44
    RESET = 1 << 45
    HALF_CLOSED_IDLE = 1 << 46
    BYTES_LOST = 1 << 47
    NO_CREDIT = 1 << 48
    TIME_BACK = 1 << 49
    STALL = 1 << 50
    DEADLOCK = 1 << 51
    UNANSWERED_ASK = 1 << 52
    NO_UPDATES = 1 << 53
    UPDATE_STORM = 1 << 54
    HUGE_BUFFER = 1 << 55
    SMALL_BUFFER = 1 << 56
    SMALL_PACKETS = 1 << 57
    OVERRUN_RESET = 1 << 58
    OWN_BUFFER = 1 << 59
    BUFFER_CHANGED = 1 << 60
    INTERLEAVED = 1 << 61
    SHRUNK = 1 << 62
    MORE = 1 << 63  # an event of this packet has no bit: its words are the events'


# What healthy connections have: words in the packet line, but nothing to report.
REMARKS: Final = Mark.NO_SOCKET | Mark.LATER_RST | Mark.ZERO_CREDIT | Mark.OPEN_BEFORE

# The kind of each bit, and the bit of each kind: MORE for those without one.
KIND_OF: Final = {mark: Kind[mark.name or ""] for mark in Mark if not mark & (REMARKS | Mark.MORE)}
MARK_OF: Final[dict[int, Mark]] = {
    **dict.fromkeys(Kind, Mark.MORE),
    **{kind: mark for mark, kind in KIND_OF.items()},
}
