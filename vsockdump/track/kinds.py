"""The numbers of what can be found, one for each rule of vsockdump/findings.

An event (store.EVENT_DTYPE) carries its kind; a connection keeps which kinds it has had.
Which of them the line of a packet shows by a bit of its own is said in marks.py.

Rules for editors: a name and beside it what an event's numbers `a` and `b` are, nothing else.
Names, severities, words and explanations are the rules'.  New ones come last; the numbers
appear in no output and may change.
"""

from enum import IntEnum, IntFlag
from typing import Final


class Kind(IntEnum):
    """One number for each rule; beside it what an event's numbers `a` and `b` are."""

    MIDSTREAM = 1
    TAP_REPEAT = 2  # bytes of the frame's payload, len
    CUT = 3
    LATE_RESPONSE = 4  # time since the REQUEST
    SHORT_PAYLOAD = 5  # bytes of the frame's payload, len
    ADDRESS_MISMATCH = 6
    OP_MISMATCH = 7  # monitor op, virtio op
    UNKNOWN_OP = 8  # op
    UNKNOWN_TYPE = 9  # type
    CONTROL_PAYLOAD = 10  # len
    TYPE_CHANGED = 11  # the connection's type, the packet's
    NOT_ESTABLISHED = 12  # op
    AFTER_SHUTDOWN = 13  # len
    STILL_OPEN = 14  # number of the connection that was open
    OVER_CREDIT = 15  # bytes beyond the credit, buf_alloc of the receiver
    FWD_AHEAD = 16  # bytes that were never seen
    FWD_BACK = 17  # bytes that fwd_cnt went back
    MALFORMED = 18  # batch.Malformed
    CUT_HEADERS = 19  # bytes captured
    LONG_HEADER = 20  # bytes of the transport header
    UNKNOWN_TRANSPORT = 21  # the monitor header's t
    RESERVED = 22  # the reserved field
    FRAME_PAYLOAD = 23  # bytes of the frame's payload, op
    TOO_LONG = 24  # len
    EMPTY_DATA = 25
    EMPTY_MESSAGES = 26  # how many in a row
    WIDE_CID = 27
    RESERVED_CID = 28
    UNROUTED = 29
    FLAGS = 30  # flags, op
    SHUTDOWN_FLAGS = 31  # flags
    MESSAGE_FLAGS = 32  # flags, type
    MESSAGE_CUT = 33  # bytes of the message before its end came
    MESSAGE_SIZE = 34  # bytes of the message so far, buf_alloc of the receiver
    REFUSED = 35  # time since the REQUEST, 1: no socket was behind the RST
    UNANSWERED = 36  # time since the REQUEST
    REUSED = 37  # number of the connection that was still closing
    UNASKED_RESPONSE = 38
    UNKNOWN_CONNECTION = 39  # packets that were sent to nobody
    RST_FOR_RST = 40
    DEAF_PEER = 41  # len, time since the SHUTDOWN(RCV)
    CLOSE_TIMEOUT = 42  # time since the SHUTDOWN
    RESET = 43
    HALF_CLOSED_IDLE = 44  # time without a packet
    BYTES_LOST = 45  # bytes sent and not consumed
    NO_CREDIT = 46  # op
    TIME_BACK = 47  # nanoseconds
    STALL = 48  # its length in time, bytes in flight
    DEADLOCK = 49  # time both stalled
    UNANSWERED_ASK = 50  # time since the CREDIT_REQUEST
    NO_UPDATES = 51  # bytes consumed unsaid, buf_alloc
    UPDATE_STORM = 52  # updates, other packets of the peer
    HUGE_BUFFER = 53  # buf_alloc
    SMALL_BUFFER = 54  # buf_alloc
    SMALL_PACKETS = 55  # packets queued, buf_alloc
    OVERRUN_RESET = 56  # time since the packet beyond the credit
    OWN_BUFFER = 57  # buf_alloc of the sender, of the receiver
    BUFFER_CHANGED = 58  # buf_alloc before and after
    INTERLEAVED = 59  # how often fwd_cnt went back
    SHRUNK = 60  # bytes in flight, the new buf_alloc
    DROPPED = 61  # packets that the kernel dropped, packets received; of no packet
    NO_CAP = 62  # bytes in flight, buf_alloc of the sender
    REOPENED = 63  # number of the connection that was open, time until the RESPONSE
    TWO_ANSWERS = 64  # time from the RST to the RESPONSE
    UNSEEN = 65  # time from the REQUEST to the RST, to the RESPONSE
    OLD_COUNTERS = 66  # fwd_cnt, number of the connection it is of
    RESTARTED = 67  # number of the connection before on the addresses, 1: it had ended
    RST_STORM = 68  # how many
    SHARED_FWD = 69  # fwd_cnt, number of the other connection
    GRANT_IGNORED = 70  # time since the CREDIT_REQUEST that gave credit
    HOLE = 71  # bytes, number of the packet that they were in
    REQUEST_DROPPED = 72  # time since the request, its bytes
    ANSWER_LOST = 73  # bytes, time since the SHUTDOWN
    ANSWER_CUT = 74  # time from the last data to the SHUTDOWN
    COPIES = 75  # of no connection
    OUT_OF_ORDER = 76  # time that the packet is behind


class Doubt(IntFlag):
    """Why what was found may not be so: it is then no error, and its sentence says why."""

    MISSING = 1  # packets may be missing that would explain it
    ORDER = 2  # the connection's packets are not in order of time
    SHARED = 4  # two connections share the addresses


class Cause(IntEnum):
    """Why a sender waited for credit."""

    READER = 0  # its reader did not read, or nothing tells
    OWN_BUFFER = 1  # its own buffer is the limit, and full
    UNTOLD = 2  # its reader had read, but had not said so in time


class Limit(IntEnum):
    """What limits a sender beside its receiver's buffer."""

    UNKNOWN = 0  # nothing seen of a limit of its own; taken as UNCAPPED
    UNCAPPED = 1  # it sent more than its own buffer
    CAPPED = 2  # its own buffer too, as in newer Linux: it has waited at exactly that


# No rule's number: for filters an event that is a warning because it still goes on.
HANGS: Final = 0

# A connection keeps a bit for each kind in this many words of 64.
WORDS: Final = 2
MOST: Final = 64 * WORDS  # kinds are below it
