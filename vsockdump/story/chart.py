"""The decisive packets of a connection as rows of a sequence chart, with what lies between.

Rules for editors: rows are values, text.py draws them.  A packet that has no row is counted in
the fold between its neighbours: rows and folds together are all packets that were seen.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from vsockdump.amounts import span
from vsockdump.story.model import NO_TALLY, OPS, Arrow, Facts, Fold, Packet, Pause, Row, Why
from vsockdump.story.sentences import notable, told_waits
from vsockdump.wire import Op, SocketType, flag_names, name_of

_OPENING: Final = 4  # packets that are shown whatever they are
_FEW: Final = 3  # packets between two rows that are not worth a fold
_DECIDES: Final = Why.LAST | Why.CONTROL | Why.DATA | Why.FINDING | Why.SAID
_RW: Final = int(Op.RW)
_GIVES: Final = (int(Op.CREDIT_UPDATE), int(Op.RESPONSE))


def rows(facts: Facts) -> list[Row]:
    """The chart, from the first packet to the last."""
    shown = _shown(facts)
    texts = _texts(facts)
    pauses = _pauses(facts)
    found: list[Row] = []
    before: Packet | None = None
    for packet in shown:
        found += _between(before, packet, pauses)
        found.append(_arrow(facts, packet, texts))
        before = packet
    if before is not None and before.number in pauses:
        found.append(pauses[before.number])
    return found


def _shown(facts: Facts) -> list[Packet]:
    """The packets that decide something, and those between them that are only a few."""
    told = _told(facts)
    found: list[Packet] = []
    plain: list[Packet] = []
    for place, (packet, why) in enumerate(facts.record.packets):
        if place >= _OPENING and not why & _DECIDES and packet.number not in told:
            plain.append(packet)
            continue
        found += plain if _are_all(plain, found, packet) else []
        found.append(packet)
        plain = []
    return _without_repeats(found, told)


def _without_repeats(packets: list[Packet], told: set[int]) -> list[Packet]:
    """Of one end's many packets of one op, in a row, the first and the last ones."""
    found: list[Packet] = []
    for (_side, op), group in groupby(packets, lambda packet: (packet.side, packet.op)):
        some = list(group)
        inner = some[_FEW:-1] if op != _RW else []
        left = {packet.number for packet in inner} - told
        found += [packet for packet in some if packet.number not in left]
    return found


def _told(facts: Facts) -> set[int]:
    """The packets of the waits and silences that are told."""
    waits = [wait for side in (0, 1) for wait in told_waits(facts, side)]
    silences = [one for one in facts.record.silences if notable(facts, one)]
    found = {number for wait in waits for number in (wait.first_packet, wait.last_packet)}
    return found | {packet.number for one in silences for packet in (one.before, one.after)}


def _are_all(plain: list[Packet], before: list[Packet], after: Packet) -> bool:
    """Whether these few are all that lie between two rows."""
    if not before or len(plain) > _FEW:
        return False
    return sum(after.tally) - sum(before[-1].tally) - 1 == len(plain)


def _between(
    before: Packet | None, after: Packet, pauses: dict[int, Pause]
) -> Iterator[Pause | Fold]:
    """What lies between two rows: time that passed, packets that are left out."""
    if before is not None and before.number in pauses:
        yield pauses[before.number]
    tally = list(after.tally)
    tally[_code(after)] -= 1
    sent = list(after.sent)
    sent[after.side] -= after.len
    for place, count in enumerate(before.tally if before else NO_TALLY):
        tally[place] -= count
    for side, size in enumerate(before.sent if before else (0, 0)):
        sent[side] -= size
    if any(tally):
        yield Fold(before.number if before else 0, tuple(tally), (sent[0], sent[1]))


def _code(packet: Packet) -> int:
    return packet.side * OPS + min(packet.op, OPS - 1)


def _pauses(facts: Facts) -> dict[int, Pause]:
    """Pauses by the packet behind which they stand."""
    found = {}
    for silence in facts.record.silences:
        if notable(facts, silence):
            text = f"{span(silence.length_ns)} without a packet"
            found[silence.before.number] = Pause(silence.before.number, text)
    for wait in (wait for side in (0, 1) for wait in told_waits(facts, side)):
        text = f"{facts.names[wait.side]} waits {span(wait.length_ns)} for credit"
        text += "" if wait.last_packet else ", and it goes on"
        found[wait.first_packet] = Pause(wait.first_packet, text)
    return found


def _texts(facts: Facts) -> dict[int, str]:
    """What is said with a packet."""
    found: dict[int, str] = {}
    for spoken in facts.record.talk.kept:
        if spoken.kind != "note":
            found.setdefault(spoken.packet, spoken.text)
    return found


def _arrow(facts: Facts, packet: Packet, texts: dict[int, str]) -> Arrow:
    label = name_of(Op, packet.op)
    if packet.op == _RW:
        label += f" {packet.len}"
    flags = flag_names(packet.op, facts.connection.type, packet.flags)
    label += f" {'|'.join(flags)}" if flags else ""
    said = texts.get(packet.number)
    return Arrow(packet, f"{label}  {said}" if said else label, _credit(facts, packet))


def _credit(facts: Facts, packet: Packet) -> str:
    """What the sender has left, or what the receiver is given."""
    if facts.connection.type == int(SocketType.DGRAM):
        return ""
    if packet.op == _RW:
        return f"free {_number(packet.free)}"
    return f"grants {_number(packet.granted)}" if packet.op in _GIVES else ""


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def fold_parts(fold: Fold) -> list[tuple[int, str, int, int]]:
    """(side, op, packets, bytes) of what is left out, data first."""
    found = []
    for place, count in enumerate(fold.tally):
        side, op = divmod(place, OPS)
        if count:
            name = name_of(Op, op) if op < OPS - 1 else "of unknown op"
            found.append((side, name, count, fold.sent[side] if op == _RW else 0))
    return sorted(found, key=lambda part: (part[1] != Op.RW.name, part[0]))


def folds(found: list[Row]) -> int:
    """How many packets are left out in all."""
    return sum(row.packets for row in found if isinstance(row, Fold))
