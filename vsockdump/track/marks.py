"""What the tracker notices about a packet or its connection, as bits.

The bits are set in compiled code and cost next to nothing; they stand in the `marks` column
of the packet that shows the thing, and add up in its connection.  The first time that a bit
is set in a connection the tracker also gives an event (store.EVENT_DTYPE) with the case's
numbers.

Rules for editors: a bit and what sets it, nothing else.  Names, severities, words and
explanations are the findings' (vsockdump/findings); a second table of them here would soon
say something different.  The numbers of bits appear in no output and may change.
"""

from enum import IntFlag


class Mark(IntFlag):
    """One bit per thing noticed; beside it what an event's numbers `a` and `b` are."""

    MIDSTREAM = 1 << 0
    TAP_REPEAT = 1 << 1  # bytes of the frame's payload, len
    CUT = 1 << 2
    NO_SOCKET = 1 << 3  # no event: an ordinary thing, a remark in the line
    LATER_RST = 1 << 4  # no event
    ZERO_CREDIT = 1 << 5  # no event
    LATE_RESPONSE = 1 << 6  # time since the REQUEST
    SHORT_PAYLOAD = 1 << 7  # bytes of the frame's payload, len
    ADDRESS_MISMATCH = 1 << 8
    OP_MISMATCH = 1 << 9  # monitor op, virtio op
    UNKNOWN_OP = 1 << 10  # op
    UNKNOWN_TYPE = 1 << 11  # type
    CONTROL_PAYLOAD = 1 << 12  # len
    TYPE_CHANGED = 1 << 13  # the connection's type, the packet's
    NOT_ESTABLISHED = 1 << 14  # op
    AFTER_SHUTDOWN = 1 << 15  # len
    STILL_OPEN = 1 << 16  # number of the connection that was open
    OVER_CREDIT = 1 << 17  # bytes beyond the credit, buf_alloc of the receiver
    FWD_AHEAD = 1 << 18  # bytes that were never seen
    FWD_BACK = 1 << 19  # bytes that fwd_cnt went back
    MALFORMED = 1 << 20  # batch.Malformed
    CUT_HEADERS = 1 << 21  # bytes captured
    LONG_HEADER = 1 << 22  # bytes of the transport header
    UNKNOWN_TRANSPORT = 1 << 23  # the monitor header's t
    RESERVED = 1 << 24  # the reserved field
    FRAME_PAYLOAD = 1 << 25  # bytes of the frame's payload, op
    TOO_LONG = 1 << 26  # len
    EMPTY_DATA = 1 << 27
    EMPTY_MESSAGES = 1 << 28  # how many in a row
    WIDE_CID = 1 << 29
    RESERVED_CID = 1 << 30
    UNROUTED = 1 << 31
    FLAGS = 1 << 32  # flags, op
    SHUTDOWN_FLAGS = 1 << 33  # flags
    MESSAGE_FLAGS = 1 << 34  # flags, type
    MESSAGE_CUT = 1 << 35  # bytes of the message before its end came
    MESSAGE_SIZE = 1 << 36  # bytes of the message so far, buf_alloc of the receiver
    REFUSED = 1 << 37  # time since the REQUEST, 1: no socket was behind the RST
    UNANSWERED = 1 << 38  # time since the REQUEST
    REUSED = 1 << 39  # number of the connection that was still closing
    UNASKED_RESPONSE = 1 << 40
    UNKNOWN_CONNECTION = 1 << 41  # packets that were sent to nobody
    RST_FOR_RST = 1 << 42
    DEAF_PEER = 1 << 43  # len, time since the SHUTDOWN(RCV)
    CLOSE_TIMEOUT = 1 << 44  # time since the SHUTDOWN
    RESET = 1 << 45
    HALF_CLOSED_IDLE = 1 << 46  # time without a packet
    BYTES_LOST = 1 << 47  # bytes sent and not consumed
    NO_CREDIT = 1 << 48  # op
    TIME_BACK = 1 << 49  # nanoseconds
    STALL = 1 << 50  # its length in time, bytes in flight
    DEADLOCK = 1 << 51  # time both stalled
    UNANSWERED_ASK = 1 << 52  # time since the CREDIT_REQUEST
    NO_UPDATES = 1 << 53  # bytes consumed unsaid, buf_alloc
    UPDATE_STORM = 1 << 54  # updates, other packets of the peer
    HUGE_BUFFER = 1 << 55  # buf_alloc
    SMALL_BUFFER = 1 << 56  # buf_alloc
    SMALL_PACKETS = 1 << 57  # packets queued, buf_alloc
    OVERRUN_RESET = 1 << 58  # time since the packet beyond the credit
    OWN_BUFFER = 1 << 59  # buf_alloc of the sender, of the receiver
    BUFFER_CHANGED = 1 << 60  # buf_alloc before and after
    INTERLEAVED = 1 << 61  # how often fwd_cnt went back
    SHRUNK = 1 << 62  # bytes in flight, the new buf_alloc
    DROPPED = 1 << 63  # packets that the kernel dropped, packets received; of no packet


# What every healthy connection has: words in the packet line, but nothing to report.
REMARKS = Mark.NO_SOCKET | Mark.LATER_RST | Mark.ZERO_CREDIT
