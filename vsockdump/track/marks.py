"""What the tracker notices about a single packet, as bits.

The bits are set in compiled code and cost next to nothing; words are made where they are
shown.  `wrong` marks are what a `!` in the packet line stands for; the others are
information about the capture or the connection.
"""

from enum import IntFlag
from typing import Final, NamedTuple


class Mark(IntFlag):
    """One bit per thing noticed."""

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
    STILL_OPEN = 1 << 16
    OVER_CREDIT = 1 << 17
    FWD_AHEAD = 1 << 18
    FWD_BACK = 1 << 19
    MALFORMED = 1 << 20


class MarkText(NamedTuple):
    """The word for a mark, whether something is wrong, and what it means."""

    word: str
    wrong: bool
    meaning: str


MARKS: Final = {
    Mark.MIDSTREAM: MarkText(
        "mid-stream", False, "the connection began before the capture; its tx_cnt is unknown"
    ),
    Mark.TAP_REPEAT: MarkText(
        "tap repeat", False, "the kernel's tap added bytes of other packets; they are left out"
    ),
    Mark.CUT: MarkText("cut", False, "snaplen cut the payload"),
    Mark.NO_SOCKET: MarkText("no socket", False, "RST without credit: no socket is behind it"),
    Mark.LATER_RST: MarkText("after the end", False, "RST on a connection that has ended"),
    Mark.ZERO_CREDIT: MarkText("credit used up", False, "the sender has no free credit left"),
    Mark.LATE_RESPONSE: MarkText("late", True, "RESPONSE after the connect timeout of 2 s"),
    Mark.SHORT_PAYLOAD: MarkText("short payload", True, "fewer bytes in the frame than len says"),
    Mark.ADDRESS_MISMATCH: MarkText(
        "addresses disagree", True, "monitor and virtio header give different addresses"
    ),
    Mark.OP_MISMATCH: MarkText("op disagrees", True, "monitor op is not that of the virtio op"),
    Mark.UNKNOWN_OP: MarkText("unknown op", True, "op 0 or above 7"),
    Mark.UNKNOWN_TYPE: MarkText("unknown type", True, "a type other than 1, 2 and 3"),
    Mark.CONTROL_PAYLOAD: MarkText("payload on control", True, "len is not 0 in a control packet"),
    Mark.TYPE_CHANGED: MarkText("type changed", True, "the type is not the connection's"),
    Mark.NOT_ESTABLISHED: MarkText("not established", True, "sent before RESPONSE"),
    Mark.AFTER_SHUTDOWN: MarkText(
        "after shutdown", True, "data after its sender's own SHUTDOWN(SEND)"
    ),
    Mark.STILL_OPEN: MarkText(
        "still open", True, "REQUEST on addresses whose connection has not ended"
    ),
    Mark.OVER_CREDIT: MarkText("over credit", True, "more bytes sent than credit was ever given"),
    Mark.FWD_AHEAD: MarkText(
        "fwd_cnt ahead", True, "more bytes consumed than sent: packets are missing or it is wrong"
    ),
    Mark.FWD_BACK: MarkText("fwd_cnt back", True, "fwd_cnt went back"),
    Mark.MALFORMED: MarkText("malformed", True, "the headers could not be read to their end"),
}

WRONG: Final = Mark(sum(mark for mark, text in MARKS.items() if text.wrong))


def words(marks: int) -> list[str]:
    """The words of the marks that are set, in bit order."""
    return [text.word for mark, text in MARKS.items() if marks & mark]
