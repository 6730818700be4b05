"""What is said of a connection, in sentences: who asked whom, what was said, who waited, the end.

Rules for editors: every sentence names the packet that shows it.  Only what the facts prove is
said; what was not captured is not known, and what is not known is said or left out, never 0.
Short sentences in the past tense; times as lengths, since the time itself stands beside them.
"""

from collections.abc import Iterator
from typing import Final

from vsockdump.amounts import counted, span
from vsockdump.findings.rule import Severity
from vsockdump.story.model import (
    OPS,
    SIDES,
    Facts,
    Found,
    Kind,
    Packet,
    Sentence,
    Silence,
    Spoken,
    Unanswered,
    Wait,
)
from vsockdump.track.kinds import Cause
from vsockdump.track.states import LONG_STALL_NS, SECOND, STATE_TEXT, TERMINAL, State, state_word
from vsockdump.wire import Op, Shutdown, name_of

_RW: Final = int(Op.RW)
_RST: Final = int(Op.RST)
_BOTH: Final = int(Shutdown.RCV | Shutdown.SEND)
_LONG_CALL_NS: Final = SECOND
_MOST_WAITS: Final = 3  # of a side, that are told one by one
_ORDINARY: Final = 2  # RSTs behind an orderly close: one for each program that closes
_NO_PACKET: Final = 2**64
# Findings that other sentences tell: those would only say the same again.
_STALL: Final = "vsock.credit.stall"
_TOLD: Final = {
    "vsock.connect.refused",
    "vsock.connect.unanswered",
    "vsock.connect.late",
    _STALL,
    "vsock.close.reset",
    "vsock.capture.midstream",
}
_EVIDENCE: Final = {
    "user": "as --decode says",
    "content": "as its first bytes show",
    "port": "as far as the port tells",
}


def sentences(facts: Facts) -> list[Sentence]:
    """All that is said, in the order of time."""
    found = [
        *_beginning(facts),
        *_said(facts),
        *_data(facts),
        *_waits(facts),
        *_silences(facts),
        *_findings(facts),
        *_close(facts),
        *_end(facts),
    ]
    return sorted(found, key=_order)


def _order(sentence: Sentence) -> tuple[int, int]:
    place = sentence.place or sentence.packet or _NO_PACKET
    return (place if sentence.time_ns is None else sentence.time_ns), place


def notable(facts: Facts, silence: Silence) -> bool:
    """Whether a silence is worth telling: a second, or a fifth of a connection of some length.

    One that another sentence tells is not: of a connect, a call, a wait or a close.  Nor is one
    behind the end.
    """
    row, first, last = facts.connection, silence.before, silence.after
    part = (row.last_ns - row.first_ns) // 5
    if silence.length_ns < min(SECOND, max(part, LONG_STALL_NS)) or first.state in TERMINAL:
        return False
    if last.op in (_RST, int(Op.RESPONSE)):
        return False
    spans = [(wait.first_packet, wait.last_packet or _NO_PACKET) for wait in facts.record.waits]
    calls = facts.record.talk.kept
    spans += [(one.request_packet, one.packet) for one in calls if one.request_packet is not None]
    return not any(begin <= first.number and last.number <= end for begin, end in spans)


def told_waits(facts: Facts, side: int) -> list[Wait]:
    """The waits of a side that are told one by one: the long ones, or else the longest."""
    own = [wait for wait in facts.record.waits if wait.side == side]
    own.sort(key=lambda wait: (wait.last_packet != 0, -wait.length_ns))
    long = [wait for wait in own if wait.length_ns >= LONG_STALL_NS or not wait.last_packet]
    told = long[:_MOST_WAITS] or own[:1]
    return sorted(told, key=lambda wait: wait.first_packet)


# --- the beginning ---------------------------------------------------------------------------


def _beginning(facts: Facts) -> Iterator[Sentence]:
    row = facts.connection
    first, when = (row.first_packet,), _time(facts, row.first_ns)
    one, other = facts.names
    if row.state == State.DATAGRAM:
        text = f"{one} sent a datagram to {other} (packet {row.first_packet}); datagrams have"
        yield Sentence(Kind.CONNECT, when, first, f"{text} neither connection nor credit.")
    elif row.midstream:
        text = f"The connection began before the capture: packet {row.first_packet} is the first"
        who = "" if row.side_known else "; which end asked for it is not known"
        yield Sentence(Kind.CONNECT, when, first, f"{text} that was seen of it{who}.")
    elif facts.outcome is None:
        text = f"Packet {row.first_packet} is the first between {one} and {other}; no REQUEST"
        yield Sentence(Kind.CONNECT, when, first, f"{text} was seen.")
    else:
        yield Sentence(Kind.CONNECT, when, first, _asked(facts))
        yield _answered(facts)


def _asked(facts: Facts) -> str:
    row = facts.connection
    one, other = facts.names
    text = f"{one} asked {other} for a {facts.socket_type} connection (packet {row.first_packet})"
    request = _packet(facts, row.first_packet)
    if request is None or not request.buf_alloc:
        return f"{text}."
    return f"{text}; its own buffer has {counted(request.buf_alloc, 'byte')}."


def _answered(facts: Facts) -> Sentence:
    """What came of the connect."""
    assert facts.outcome is not None
    row, outcome = facts.connection, facts.outcome
    one, other = facts.names
    answer = _answer(facts)
    after = "" if outcome.after_ns is None else f" after {span(outcome.after_ns)}"
    waited = f" for {after[7:]}" if after else ""
    shown = f" (packet {answer.number})" if answer else ""
    why = f": {outcome.why}" if outcome.why else ""
    packets = (answer.number,) if answer else (row.first_packet,)
    match outcome.word:
        case "accepted":
            text = f"{other} accepted{after}{shown}{_buffer(answer)}."
        case "late":
            text = f"{other} accepted only{after}{shown}; connect() gives up after 2 s{why}."
        case "refused":
            text = f"{other} refused{after}{shown}{why}."
        case "given up":
            text = f"{one} gave the connect up{after}{shown}{why}; {other} had not answered."
        case "two answers":
            text = f"{other} refused{shown}, and accepted{after}{why}."
        case "unseen":
            text = f"The answer of {other} is not in the capture{why}."
        case "silent":
            text = f"{other} did not answer{waited}; connect() gives up after 2 s."
        case _:
            text = f"{other} did not answer{waited}{why}."
    severity = "" if outcome.word in ("accepted", "waiting") else _severity(facts, "connect")
    when = None if answer is None else answer.time_ns
    if when is None:
        since = _time(facts, row.first_ns)
        when = None if since is None else since + (outcome.after_ns or 0)
    return Sentence(Kind.CONNECT, when, packets, text, severity)


def _answer(facts: Facts) -> Packet | None:
    """The packet that ends the connect: RESPONSE or RST of the acceptor, or the asker's RST."""
    assert facts.outcome is not None
    side = 0 if facts.outcome.word == "given up" else 1
    if facts.outcome.word in ("refused", "given up", "two answers"):
        op = _RST
    elif facts.outcome.word in ("accepted", "late"):
        op = int(Op.RESPONSE)
    else:
        return None
    packets = (packet for packet, _why in facts.record.packets)
    return next((one for one in packets if one.op == op and _is_by(facts, one, side)), None)


def _is_by(facts: Facts, packet: Packet, side: int) -> bool:
    """An end that talks to itself is both."""
    return packet.side == side or facts.names[0] == facts.names[1]


def _buffer(answer: Packet | None) -> str:
    if answer is None:
        return ""
    return f"; its buffer has {counted(answer.buf_alloc, 'byte')}"


def _severity(facts: Facts, group: str) -> str:
    """The worst that was found of a group of rules."""
    found = [one.severity for one in facts.found if one.conn and one.rule.group == group]
    worst = max(found, default=Severity.CHAT)
    return worst.word if worst > Severity.CHAT else ""


# --- what was said ---------------------------------------------------------------------------


def _said(facts: Facts) -> Iterator[Sentence]:
    talk, protocol = facts.record.talk, facts.protocol
    place = _first_data(facts)
    if protocol.name and protocol.since and place is not None:
        software = f", the port of {protocol.software}" if protocol.software else ""
        text = f"They spoke {protocol.name}, {_EVIDENCE[protocol.evidence]}{software}"
        when, packets = _place(facts, place, protocol.since)
        yield Sentence(Kind.SAID, when, packets, f"{text} (packet {packets[0]}).")
    elif protocol.nature and place is not None:
        text = f"What they said is of no protocol that is known; it looks like {protocol.nature}"
        yield Sentence(
            Kind.SAID, place.time_ns, (place.number,), f"{text} (packet {place.number})."
        )
    for spoken in talk.kept:
        yield _message(facts, spoken)
    for call in talk.unanswered:
        yield _no_answer(facts, call)
    if talk.requests or talk.calls:
        yield _all_calls(facts)


def _place(facts: Facts, first: Packet | None, since: int) -> tuple[int | None, tuple[int, ...]]:
    """Where the protocol is told: at the first data, or where it was settled."""
    if first is not None and first.number <= since:
        return first.time_ns, (first.number,)
    return _time(facts, facts.connection.first_ns), (since,)


def _message(facts: Facts, spoken: Spoken) -> Sentence:
    who = facts.names[spoken.side]
    packets: tuple[int, ...] = (spoken.packet,)
    text = f"{who} said: {spoken.text} (packet {spoken.packet})"
    if spoken.kind == "note":
        text = f"Of what {who} said: {spoken.text} (packet {spoken.packet})"
    elif spoken.kind == "request":
        text = f"{who} asked: {spoken.text} (packet {spoken.packet})"
    elif spoken.request_packet is not None:
        packets += (spoken.request_packet,)
        took = "" if spoken.latency_ns is None else f" after {span(spoken.latency_ns)}"
        how = "answered" if spoken.error is None else "answered with a failure"
        text = f"{who} {how}{took}: {spoken.text} (packet {spoken.packet}, asked in packet"
        text += f" {spoken.request_packet})"
    severity = "note" if spoken.error is not None or _is_long(spoken) else ""
    return Sentence(Kind.SAID, spoken.time_ns, packets, f"{text}.", severity)


def _is_long(spoken: Spoken) -> bool:
    return spoken.latency_ns is not None and spoken.latency_ns >= _LONG_CALL_NS


def _no_answer(facts: Facts, call: Unanswered) -> Sentence:
    asked = f"{call.method or 'the request'} of {facts.names[call.side]} (packet {call.packet})"
    row, now = facts.connection, facts.now_ns
    if not call.open or row.state in TERMINAL:
        when = _time(facts, row.last_ns)
        text = f"The connection ended without an answer to {asked}."
    else:
        when = now
        waited = "" if None in (now, call.time_ns) else f" for {span(now - call.time_ns)}"  # type: ignore[operator]
        text = f"{asked} had waited{waited} for an answer when the capture ended."
    return Sentence(Kind.SAID, when, (call.packet,), _begun(facts, text), "note")


def _all_calls(facts: Facts) -> Sentence:
    talk = facts.record.talk
    parts = [counted(talk.requests, "request"), f"{talk.calls} answered"]
    parts += [f"{talk.failed} failed"] if talk.failed else []
    parts += [f"{talk.without_answer} without an answer"] if talk.without_answer else []
    text = f"In all, {counted(talk.messages, 'message')}: {', '.join(parts)}"
    slow = talk.slowest
    packets: tuple[int, ...] = ()
    if slow is not None and slow.latency_ns is not None and talk.calls > 1:
        to = f" to {slow.method}" if slow.method else ""
        text += f"; the slowest answer{to} took {span(slow.latency_ns)} (packet {slow.packet})"
        packets = (slow.packet,)
    last = talk.kept[-1] if talk.kept else None
    when = last.time_ns if last else _time(facts, facts.connection.last_ns)
    place = last.packet if last else 0
    packets = packets or ((place,) if place else ())
    return Sentence(Kind.SAID, when, packets, f"{text}.", place=place)


# --- data, credit, silence ---------------------------------------------------------------------


def _data(facts: Facts) -> Iterator[Sentence]:
    for side in (0, 1):
        sent = [packet for packet, _why in facts.record.packets if _is_data(packet, side)]
        if not sent:
            continue
        first, last, flow = sent[0], sent[-1], facts.flows[side]
        text = f"{facts.names[side]} sent {counted(flow.bytes, 'byte')}"
        if not facts.record.joined:
            text += f" in {_pieces(facts, side)}"
        text += f" (packets {first.number} to {last.number})" if last is not first else ""
        text += f" (packet {first.number})" if last is first else ""
        if facts.connection.state != State.DATAGRAM and not flow.free_seen:
            text += "; how much credit it had is not known"
        packets = tuple(dict.fromkeys((first.number, last.number)))
        yield Sentence(Kind.DATA, first.time_ns, packets, f"{text}.")


def _is_data(packet: Packet, side: int) -> bool:
    return packet.op == _RW and packet.side == side


def _first_data(facts: Facts) -> Packet | None:
    packets = (packet for packet, _why in facts.record.packets)
    return next((packet for packet in packets if packet.op == _RW), None)


def _pieces(facts: Facts, side: int) -> str:
    """In how many packets, and messages where the socket has them."""
    count = facts.record.packets[-1][0].tally[side * OPS + _RW]
    noun = "datagram" if facts.socket_type == "dgram" else "packet"
    text = counted(count, noun)
    if facts.socket_type == "seqpacket":
        text += f" that end {counted(facts.record.ends[side], 'message')}"
    return text


def _waits(facts: Facts) -> Iterator[Sentence]:
    for side, flow in enumerate(facts.flows):
        told = told_waits(facts, side)
        for wait in told:
            when = _time(facts, wait.start_ns)
            yield Sentence(Kind.WAIT, when, *_waited(facts, wait), _how_bad(facts, wait))
        ended = [wait for wait in facts.record.waits if wait.side == side and wait.last_packet]
        if flow.stalls > len([wait for wait in told if wait.last_packet]) and ended:
            yield _all_waits(facts, side, max(ended, key=lambda wait: wait.last_packet))


def _how_bad(facts: Facts, wait: Wait) -> str:
    """As severe as what was found of waits, unless it is a short one."""
    found = [one for one in facts.found if one.conn and one.rule.name == _STALL]
    return found[0].severity.word if found and wait.length_ns >= LONG_STALL_NS else ""


def _all_waits(facts: Facts, side: int, last: Wait) -> Sentence:
    flow = facts.flows[side]
    text = f"In all {facts.names[side]} waited {counted(flow.stalls, 'time')} for credit,"
    text += f" {span(flow.stalled_ns)} together, up to packet {last.last_packet}; -z stalls lists"
    when, packets = _time(facts, last.end_ns), (last.last_packet,)
    return Sentence(Kind.WAIT, when, packets, f"{text} each.")


def _waited(facts: Facts, wait: Wait) -> tuple[tuple[int, ...], str]:
    """(packets, sentence): for how long, for whom, how that is known, and what ended it."""
    who, peer = facts.names[wait.side], facts.names[1 - wait.side]
    full = f"{counted(wait.in_flight, 'byte')} in flight"
    if wait.cause == Cause.OWN_BUFFER:
        how = f"with {full} its own buffer was full, not that of {peer}"
    elif wait.in_flight:
        how = f"{full} filled the buffer of {peer}"
    else:
        how = f"the buffer of {peer} had no room at all"
    known = f"(known from packet {wait.first_packet}: {how})"
    untold = f" {peer} had read by then, and not told so by a CREDIT_UPDATE."
    cause = untold if wait.cause == Cause.UNTOLD else ""
    if not wait.last_packet:
        text = f"{who} has been without credit since then, {span(wait.length_ns)} so far"
        return (wait.first_packet,), f"{text} {known}.{cause}"
    text = f"{who} was without credit for {span(wait.length_ns)}"
    return (wait.first_packet, wait.last_packet), f"{text} {known}{_relief(facts, wait)}.{cause}"


def _relief(facts: Facts, wait: Wait) -> str:
    packet = _packet(facts, wait.last_packet)
    if packet is None:
        return f", until packet {wait.last_packet}"
    who, what = facts.names[packet.side], name_of(Op, packet.op)
    gave = packet.granted if packet.side != wait.side else None
    some = f" gave it {gave}" if gave else ""
    return f", until the {what} of {who} (packet {packet.number}){some}"


def _silences(facts: Facts) -> Iterator[Sentence]:
    for silence in facts.record.silences:
        before, after = silence.before, silence.after
        if not notable(facts, silence):
            continue
        text = f"Then there was no packet for {span(silence.length_ns)}, from packet"
        text += f" {before.number} to packet {after.number}, with which"
        text += f" {facts.names[after.side]} went on."
        packets = before.number, after.number
        yield Sentence(Kind.SILENCE, before.time_ns, packets, text)


# --- findings ---------------------------------------------------------------------------------


def _findings(facts: Facts) -> Iterator[Sentence]:
    for found in facts.found:
        worth = found.severity > Severity.CHAT and found.rule.name not in _TOLD
        if found.conn and worth:
            packets = (found.packet,) if found.packet else ()
            text = f"{_begun(facts, found.text)}{found.where}."
            yield Sentence(
                Kind.FINDING, _found_at(facts, found), packets, text, found.severity.word
            )


def _found_at(facts: Facts, found: Found) -> int | None:
    """When it is told: at its packet, or where it goes on, as of now."""
    packet = _packet(facts, found.packet)
    if found.goes_on:
        return facts.now_ns
    if packet is not None:
        return packet.time_ns
    return found.time_ns if found.time_ns is not None else facts.now_ns


# --- the end ------------------------------------------------------------------------------------


def _close(facts: Facts) -> Iterator[Sentence]:
    """Who ended what by SHUTDOWN and RST."""
    flags, closed, ended = [0, 0], [0, 0], False
    for packet, _why in facts.record.packets:
        if ended or packet.op not in (_RST, int(Op.SHUTDOWN)):
            continue
        if packet.op == _RST:
            ended = packet.state in TERMINAL
            if not _ends_connect(facts, packet):
                yield _reset(facts, packet, closed)
            yield from _later_rsts(facts, packet) if ended else ()
            continue
        before = flags[packet.side]
        flags[packet.side] |= packet.flags & _BOTH
        text = _shut(facts, packet, flags, before)
        if flags[packet.side] == _BOTH != before:
            closed[packet.side] = packet.time_ns or 0
        yield Sentence(Kind.CLOSE, packet.time_ns, (packet.number,), text)


def _ends_connect(facts: Facts, packet: Packet) -> bool:
    """Whether the RST is told with the connect: it refuses it, or takes it back."""
    given_up = facts.outcome is not None and facts.outcome.word == "given up"
    return packet.state == State.REFUSED or (given_up and packet.side == 0)


def _shut(facts: Facts, packet: Packet, flags: list[int], before: int) -> str:
    who, shown = facts.names[packet.side], f"(packet {packet.number})"
    now = flags[packet.side]
    if now == before:
        what = "again" if now else "without flags"
        return f"{who} sent SHUTDOWN {what} {shown}."
    if now == _BOTH:
        closer, other = facts.connection.closer, flags[1 - packet.side]
        first = " first" if closer == packet.side and other != _BOTH else " too"
        return f"{who} closed{first}: SHUTDOWN of both directions {shown}."
    if now == int(Shutdown.SEND):
        return f"{who} said that it would send no more {shown}; it could still receive."
    return f"{who} said that it would receive no more {shown}; it could still send."


def _reset(facts: Facts, packet: Packet, closed: list[int]) -> Sentence:
    who, shown = facts.names[packet.side], f"(packet {packet.number})"
    since = closed[1 - packet.side] or closed[packet.side]
    after = f" after {span(packet.time_ns - since)}" if since and packet.time_ns else ""
    severity = ""
    match packet.state:
        case State.CLOSED:
            text = f"{who} confirmed that by RST{after} {shown}: closed in order."
        case State.TIMED_OUT:
            late = facts.outcome is not None and facts.outcome.word == "late"
            why = "connect() had ended without an answer" if late else "nobody had answered"
            text = f"{who} gave up by RST{after} {shown}: {why}."
            severity = "warn"
        case State.RESET:
            text = f"{who} reset the connection {shown} while data could still be sent."
            severity = "note"
        case _:
            text = f"{who} sent an RST {shown}, which did not end the connection."
    return Sentence(Kind.CLOSE, packet.time_ns, (packet.number,), text, severity)


def _later_rsts(facts: Facts, end: Packet) -> Iterator[Sentence]:
    """RSTs behind the one that ended the connection."""
    last = facts.record.packets[-1][0]
    count = sum(last.tally[side * OPS + _RST] - end.tally[side * OPS + _RST] for side in (0, 1))
    kept = [one for one, _why in facts.record.packets if one.op == _RST and one.number > end.number]
    if not kept:
        return
    first = kept[0]
    ordinary = count <= _ORDINARY and end.state == State.CLOSED
    text = f"{counted(count, 'more RST')} came after the end, from packet {first.number} on"
    text += ", as is ordinary: programs closed their sockets" if ordinary else ""
    yield Sentence(Kind.CLOSE, first.time_ns, (first.number,), f"{text}.")


def _end(facts: Facts) -> Iterator[Sentence]:
    """How it stood when the capture ended, where it had not ended itself."""
    row, now = facts.connection, facts.now_ns
    state = State(row.state)
    last = (row.last_packet,)
    if state == State.REPLACED:
        text = "A new REQUEST used its addresses before it had ended (see the next connection of"
        when = _time(facts, row.ended_ns)
        yield Sentence(Kind.STATE, when, last, f"{text} these ends).", "warn")
    if state in TERMINAL or state in (State.DATAGRAM, State.CONNECTING):
        return
    silent = f"its last packet is {row.last_packet}"
    if now is not None and facts.first_ns is not None and now > row.last_ns:
        silent = f"its last packet, {row.last_packet}, was {span(now - row.last_ns)} earlier"
    meaning = STATE_TEXT[state]
    for side, name in zip(SIDES, facts.names, strict=True):
        meaning = meaning.replace(f"the {side}", name)
    text = f"As of the end of the capture the connection was {_word(state)}: {meaning}; {silent}"
    yield Sentence(Kind.STATE, now, last, f"{text}.")


def _word(state: State) -> str:
    """The word for a state; which half is closed is said beside it."""
    half = state in (State.HALF_CLOSED_INITIATOR, State.HALF_CLOSED_ACCEPTOR)
    return "half closed" if half else state_word(state).replace("-", " ")


# --- in short -----------------------------------------------------------------------------------


def summary(facts: Facts) -> str:
    """The story in one or two sentences."""
    row = facts.connection
    parts = [_how_it_ended(facts)]
    for side, flow in enumerate(facts.flows):
        waited = flow.stalled_ns + _running(facts, side)
        if waited:
            parts.append(f"{facts.names[side]} waited {span(waited)} for credit")
    talk = facts.record.talk
    if talk.failed:
        parts.append(f"{talk.failed} of {counted(talk.calls, 'call')} failed")
    sent = " and ".join(
        f"{facts.names[side]} {counted(flow.bytes, 'byte')}"
        for side, flow in enumerate(facts.flows)
        if flow.bytes
    )
    if row.state not in (State.REFUSED, State.DATAGRAM):
        parts.append(f"sent: {sent}" if sent else "no data was sent")
    return f"{'; '.join(parts)}. {_suspicions(facts)}"


def _running(facts: Facts, side: int) -> int:
    """The time of a wait that goes on."""
    waits = facts.record.waits
    return sum(one.length_ns for one in waits if one.side == side and not one.last_packet)


def _how_it_ended(facts: Facts) -> str:
    row = facts.connection
    state = State(row.state)
    text = _word(state).capitalize()
    if state == State.DATAGRAM:
        text = "Datagrams"
    if row.closer < 2 and state in (State.CLOSED, State.RESET, State.CLOSING):
        by = f" by the {SIDES[row.closer]}," if row.side_known else " by"
        text += f"{by} {facts.names[row.closer]}"
    if facts.first_ns is not None and row.last_ns > row.first_ns:
        text += f", {span(row.last_ns - row.first_ns)} from first to last packet"
    return text


def _suspicions(facts: Facts) -> str:
    own = [one for one in facts.found if one.conn and one.severity > Severity.CHAT]
    if not own:
        return "Nothing suspicious was found."
    worst = sorted(own, key=lambda one: -one.severity)
    words = ", ".join(dict.fromkeys(one.rule.word for one in worst))
    return f"{'Suspicious' if worst[0].severity >= Severity.WARN else 'Worth a look'}: {words}."


def _begun(facts: Facts, text: str) -> str:
    """With a capital letter, unless it begins with a name."""
    return text if text.startswith(facts.names) else text[:1].upper() + text[1:]


# --- places -------------------------------------------------------------------------------------


def _packet(facts: Facts, number: int) -> Packet | None:
    packets = (packet for packet, _why in facts.record.packets)
    return next((packet for packet in packets if packet.number == number), None)


def _time(facts: Facts, time_ns: int) -> int | None:
    """A time of the store, None where packets have no times."""
    return None if facts.first_ns is None else time_ns
