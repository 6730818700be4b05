"""The lifecycle of a connection: its states, what can happen to it, and the table.

Everything that decides a state's successor is in TRANSITIONS; an event that is not listed
for a state leaves it as it is.  The compiled tracker only works out which event a packet
is and looks it up.  Sources: net/vmw_vsock/af_vsock.c (the connect timeout) and
virtio_transport_common.c (the close), observed on Linux 6.1 and 6.12.
"""

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

SECOND: Final = 1_000_000_000
CONNECT_TIMEOUT_NS: Final = 2 * SECOND  # VSOCK_DEFAULT_CONNECT_TIMEOUT
# Linux resets a close that nobody answered after 8 s, Firecracker after 2 s; anything
# above a second is a timeout and not an abort.
CLOSE_TIMEOUT_NS: Final = 1 * SECOND
# From here on it is worth a finding: a close without an answer (VSOCK_CLOSE_TIMEOUT), a
# CREDIT_REQUEST without one, silence on half a connection, time without any credit, and
# both ends without credit at once.
CLOSE_UNANSWERED_NS: Final = 8 * SECOND
ANSWER_TIMEOUT_NS: Final = 2 * SECOND
HALF_CLOSED_IDLE_NS: Final = 30 * SECOND
LONG_STALL_NS: Final = SECOND // 10
DEADLOCK_NS: Final = 2 * SECOND
# So long after a capture's begin a RESPONSE may answer a REQUEST from before it, late ones too.
LATEST_ANSWER_NS: Final = 60 * SECOND


class State(IntEnum):
    """Where a connection stands."""

    NONE = 0
    CONNECTING = 1
    LATE = 2
    OPEN = 3
    HALF_CLOSED_INITIATOR = 4
    HALF_CLOSED_ACCEPTOR = 5
    CLOSING = 6
    CLOSED = 7
    RESET = 8
    REFUSED = 9
    TIMED_OUT = 10
    REPLACED = 11
    DATAGRAM = 12


STATE_TEXT: Final = {
    State.NONE: "belongs to no connection",
    State.CONNECTING: "REQUEST seen, no answer yet",
    State.LATE: "accepted after the connect timeout of 2 s",
    State.OPEN: "both ends may send",
    State.HALF_CLOSED_INITIATOR: "nothing more can go from the initiator to the acceptor",
    State.HALF_CLOSED_ACCEPTOR: "nothing more can go from the acceptor to the initiator",
    State.CLOSING: "both directions have ended, the RST that confirms it is due",
    State.CLOSED: "closed in order",
    State.RESET: "ended by RST while at least one direction was open",
    State.REFUSED: "REQUEST answered by RST",
    State.TIMED_OUT: "REQUEST or close was not answered in time",
    State.REPLACED: "its addresses were used by a new REQUEST before it ended",
    State.DATAGRAM: "datagrams, no connection",
}

TERMINAL: Final = frozenset(
    {State.CLOSED, State.RESET, State.REFUSED, State.TIMED_OUT, State.REPLACED}
)


# Both ends know the connection.
LIVING: Final = frozenset(
    {
        State.LATE,
        State.OPEN,
        State.HALF_CLOSED_INITIATOR,
        State.HALF_CLOSED_ACCEPTOR,
        State.CLOSING,
    }
)


def state_word(state: int) -> str:
    """The word for a state in every output: `open`, `half-closed-initiator`, ..."""
    return State(state).name.lower().replace("_", "-")


class Event(IntEnum):
    """What a packet does to a connection."""

    NOTHING = 0
    RESPONSE = 1
    LATE_RESPONSE = 2
    DATA = 3
    INITIATOR_ENDED = 4  # a SHUTDOWN after which only the acceptor can still send
    ACCEPTOR_ENDED = 5
    BOTH_ENDED = 6
    INITIATOR_RST = 7
    ACCEPTOR_RST = 8
    CLOSER_ABORTED = 9  # RST by the only end that has closed, at once
    CLOSER_GAVE_UP = 10  # the same after waiting for the other end


_OPEN_ENDS: Final = {
    Event.INITIATOR_RST: State.RESET,
    Event.ACCEPTOR_RST: State.RESET,
    Event.BOTH_ENDED: State.CLOSING,
}
_OPEN: Final = {
    **_OPEN_ENDS,
    Event.INITIATOR_ENDED: State.HALF_CLOSED_INITIATOR,
    Event.ACCEPTOR_ENDED: State.HALF_CLOSED_ACCEPTOR,
}

TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.CONNECTING: {
        Event.RESPONSE: State.OPEN,
        Event.LATE_RESPONSE: State.LATE,
        Event.INITIATOR_RST: State.RESET,
        Event.ACCEPTOR_RST: State.REFUSED,
    },
    State.LATE: {**_OPEN, Event.DATA: State.OPEN, Event.INITIATOR_RST: State.TIMED_OUT},
    State.OPEN: _OPEN,
    State.HALF_CLOSED_INITIATOR: _OPEN_ENDS,
    State.HALF_CLOSED_ACCEPTOR: _OPEN_ENDS,
    State.REFUSED: {Event.RESPONSE: State.OPEN},  # the RST was an old one's
    State.CLOSING: {
        Event.INITIATOR_RST: State.CLOSED,
        Event.ACCEPTOR_RST: State.CLOSED,
        Event.CLOSER_ABORTED: State.RESET,
        Event.CLOSER_GAVE_UP: State.TIMED_OUT,
    },
}


def transition_table() -> NDArray[np.uint8]:
    """TRANSITIONS as an array of shape (states * events,): next state of state and event."""
    table = np.repeat(np.arange(len(State), dtype=np.uint8), len(Event))
    for state, moves in TRANSITIONS.items():
        for event, following in moves.items():
            table[state * len(Event) + event] = following
    return table
