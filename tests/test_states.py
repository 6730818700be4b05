"""Tests of the lifecycle: the table, and for every entry of it a packet that takes it."""

import pytest
from tracking import packets_of, track_packets, uncompiled

from vsockdump.track.states import (
    STATE_TEXT,
    TERMINAL,
    TRANSITIONS,
    Event,
    State,
    state_word,
    transition_table,
)

# --- the table -------------------------------------------------------------------------

MOVES = [(state, event) for state, moves in TRANSITIONS.items() for event in moves]


def test_the_array_is_the_table() -> None:
    """What TRANSITIONS does not name leaves the state as it is."""
    table = transition_table().reshape(len(State), len(Event))
    for state in State:
        for event in Event:
            assert TRANSITIONS.get(state, {}).get(event, state) == table[state, event]


def test_states_and_events_count_from_0() -> None:
    """Both are indices into the array."""
    assert list(range(len(State))) == [int(state) for state in State]
    assert list(range(len(Event))) == [int(event) for event in Event]


def test_the_end_is_final() -> None:
    """Only a RESPONSE leads out of an end: behind the RST that refused; NOTHING leads nowhere."""
    assert {State.REFUSED} == TERMINAL & TRANSITIONS.keys()
    assert {Event.RESPONSE: State.OPEN} == TRANSITIONS[State.REFUSED]
    assert all(Event.NOTHING not in moves for moves in TRANSITIONS.values())


def test_every_state_can_come_about() -> None:
    """The first packet, the table, or a new REQUEST on the same addresses gives each."""
    first = {State.NONE, State.CONNECTING, State.OPEN, State.DATAGRAM}
    moved = {following for moves in TRANSITIONS.values() for following in moves.values()}
    assert set(State) == first | moved | {State.REPLACED}


def test_every_state_is_explained() -> None:
    """Each state has a text, and a word of its own that has no underscore."""
    assert set(State) == STATE_TEXT.keys()
    found = [state_word(state) for state in State]
    assert len(State) == len(set(found))
    assert "half-closed-initiator" == state_word(4)
    assert not any("_" in word for word in found)


# --- a packet for every transition -----------------------------------------------------

_I = "+1ms 3:1024 > host:5000 "  # the initiator sends
_A = "+1ms 3:1024 < host:5000 "

_OPEN = f"{_I}REQUEST\n{_A}RESPONSE\n"
_INITIATOR_CLOSED = f"{_OPEN}{_I}SHUTDOWN flags=RCV|SEND\n"
_ACCEPTOR_CLOSED = f"{_OPEN}{_A}SHUTDOWN flags=RCV|SEND\n"

REACH = {
    State.CONNECTING: f"{_I}REQUEST\n",
    State.LATE: f"{_I}REQUEST\n+2001ms 3:1024 < host:5000 RESPONSE\n",
    State.OPEN: _OPEN,
    State.HALF_CLOSED_INITIATOR: f"{_OPEN}{_I}SHUTDOWN flags=SEND\n",
    State.HALF_CLOSED_ACCEPTOR: f"{_OPEN}{_A}SHUTDOWN flags=SEND\n",
    State.REFUSED: f"{_I}REQUEST\n{_A}RST nosock\n",
    State.CLOSING: _INITIATOR_CLOSED,
}

STEPS = {
    Event.RESPONSE: f"{_A}RESPONSE",
    Event.LATE_RESPONSE: "+2001ms 3:1024 < host:5000 RESPONSE",
    Event.DATA: f"{_A}RW 1",
    Event.INITIATOR_ENDED: f"{_I}SHUTDOWN flags=SEND",
    Event.ACCEPTOR_ENDED: f"{_I}SHUTDOWN flags=RCV",
    Event.BOTH_ENDED: f"{_A}SHUTDOWN flags=RCV|SEND",
    Event.INITIATOR_RST: f"{_I}RST",
    Event.ACCEPTOR_RST: f"{_A}RST",
    Event.CLOSER_ABORTED: f"{_I}RST",
    Event.CLOSER_GAVE_UP: "+8.1s 3:1024 > host:5000 RST",
}

# While closing, an RST by the end that closed is one thing, by the other end another.
BEFORE = {(State.CLOSING, Event.INITIATOR_RST): _ACCEPTOR_CLOSED}


def scenario(state: State, event: Event) -> str:
    """A connection that reaches `state`, then the packet that is `event`."""
    return BEFORE.get((state, event), REACH[state]) + STEPS[event]


class Lookups:
    """The array of next states, with a memory of what was asked."""

    def __init__(self) -> None:
        self.table = transition_table().tolist()
        self.asked: list[tuple[State, Event]] = []

    def __getitem__(self, index: int) -> int:
        state, event = divmod(index, len(Event))
        self.asked.append((State(state), Event(event)))
        following: int = self.table[index]
        return following


@pytest.mark.parametrize(("state", "event"), MOVES)
def test_every_transition_is_taken(state: State, event: Event) -> None:
    """In each state each event that counts comes from a packet, and moves the connection."""
    tracking = track_packets(packets_of(scenario(state, event)))
    assert [state, TRANSITIONS[state][event]] == tracking.tracked["state"][-2:].tolist()
    assert 1 == tracking.store.used


@pytest.mark.parametrize(("state", "event"), MOVES)
def test_the_event_is_the_one_meant(state: State, event: Event) -> None:
    """The tracker asks the table for just this entry."""
    lookups = Lookups()
    tracker = uncompiled("tracker").Tracker()
    tracker._core.next_state = lookups
    track_packets(packets_of(scenario(state, event)), tracker=tracker)
    assert (state, event) == lookups.asked[-1]


@pytest.mark.parametrize("state", [*REACH, State.CLOSED, State.REFUSED, State.TIMED_OUT])
@pytest.mark.parametrize("op", ["RW 1", "CREDIT_UPDATE", "CREDIT_REQUEST", "0", "99"])
def test_most_packets_move_nothing(state: State, op: str) -> None:
    """Data and credit leave the state alone; only a late acceptance is confirmed by data."""
    ended = {
        State.CLOSED: f"{_INITIATOR_CLOSED}{_A}RST\n",
        State.REFUSED: f"{_I}REQUEST\n{_A}RST\n",
        State.TIMED_OUT: f"{_INITIATOR_CLOSED}+8.1s 3:1024 > host:5000 RST\n",
    }
    tracking = track_packets(packets_of({**REACH, **ended}[state] + _A + op))
    following = State.OPEN if state == State.LATE and op[0] in "RC" else state
    assert following == tracking.tracked["state"][-1]
