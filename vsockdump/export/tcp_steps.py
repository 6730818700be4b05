"""What TCP would do where vsock packets were sent: a batch as steps, each at most a packet.

    REQUEST, RESPONSE    SYN, then SYN-ACK and the ACK that completes the handshake
    RW                   data; PSH ends a write of STREAM, and a message of SEQPACKET
    SHUTDOWN(SEND)       FIN
    RST                  RST; one that confirms a close in order: a FIN of both sides
    any other op         an ACK

Rules for editors: whole columns at a time.  Steps know nothing of what was before the batch:
tcp_numbers.py settles which FIN is the first of its direction, and which ACK says something
new.
"""

from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Batch, Rows
from vsockdump.columns import Mask, tracked
from vsockdump.track.states import State
from vsockdump.track.stream import Kind as PieceKind
from vsockdump.track.stream import flows_of
from vsockdump.wire import MAX_PAYLOAD, Op, Seqpacket, Shutdown, SocketType


class Kind(IntEnum):
    """What a step is.  A GAP makes no packet, an ACK only if it says something new."""

    GAP = 0
    SYN = 1
    SYN_ACK = 2
    ACK = 3
    DATA = 4
    FIN = 5
    RST = 6
    DATAGRAM = 7


STEP_DTYPE: Final = np.dtype(
    [
        ("row", "u4"),  # in the batch
        ("flow", "u8"),  # of the sender, as in flows_of
        ("kind", "u1"),
        ("own", "?"),  # the row is a packet of this flow, and tells what it grants
        ("push", "?"),
        ("offset", "u8"),  # where data begins in its stream
        ("end", "u8"),  # where data, or a gap, ends there
        ("at", "u8"),  # of the captured data in the batch's buffer
        ("cap", "u4"),
        ("len", "u4"),
    ]
)

_MOST_MISSING: Final = 2 * MAX_PAYLOAD  # bytes that a packet is taken to have had
_REQUEST: Final = int(Op.REQUEST)
_RESPONSE: Final = int(Op.RESPONSE)
_CREDIT_OPS: Final = (int(Op.CREDIT_UPDATE), int(Op.CREDIT_REQUEST))
_DATA: Final = int(PieceKind.DATA)
_SHUTDOWN: Final = int(PieceKind.SHUTDOWN)
_RST: Final = int(PieceKind.RST)
_LOST: Final = (int(PieceKind.LOST), int(PieceKind.LOST_AT_LEAST))
_SEQPACKET: Final = int(SocketType.SEQPACKET)
_DGRAM: Final = int(SocketType.DGRAM)
_EOM: Final = int(Seqpacket.EOM)
_SEND: Final = int(Shutdown.SEND)
_CLOSED: Final = int(State.CLOSED)


def steps_of(batch: Batch, pieces: Rows, known: Mask) -> Rows:
    """The steps of a tracked batch, of STEP_DTYPE, in order.

    `pieces` are those of its streams, `known` says which rows are of connections that count.
    """
    kinds = pieces["kind"]
    with_connection = known & (batch.rows["virtio"]["type"] != _DGRAM)
    parts = [
        _gaps(pieces[np.isin(kinds, _LOST)]),
        *_handshakes(batch, with_connection),
        _data(batch, pieces[(kinds == _DATA) & (pieces["len"] != 0)]),
        *_ends(batch, pieces),
        _acks(batch, with_connection, pieces),
    ]
    steps = np.concatenate(parts)
    in_order: Rows = steps[np.argsort(steps["row"], kind="stable")]
    return in_order


def _new(rows: NDArray[Any], flows: NDArray[np.uint64], kind: Kind, own: bool) -> Rows:
    """Steps of one kind without data."""
    steps = np.zeros(len(rows), STEP_DTYPE)
    steps["row"], steps["flow"] = rows, flows
    steps["kind"], steps["own"] = int(kind), own
    return steps


def _gaps(pieces: Rows) -> Rows:
    steps = _new(pieces["row"], flows_of(pieces), Kind.GAP, own=False)
    steps["end"] = pieces["offset"] + pieces["len"]
    return steps


def _handshakes(batch: Batch, known: Mask) -> list[Rows]:
    """SYN; SYN-ACK, the ACK that the other side would send at once, and one with the window.

    The window of a SYN-ACK is not scaled and ends at 64 KiB, and its side may say nothing more
    for long.
    """
    ops, after = batch.rows["virtio"]["op"], tracked(batch)
    asked = np.flatnonzero(known & (ops == _REQUEST))
    answered = np.flatnonzero(known & (ops == _RESPONSE))
    flows = flows_of(after[answered])
    return [
        _new(asked, flows_of(after[asked]), Kind.SYN, own=True),
        _new(answered, flows, Kind.SYN_ACK, own=True),
        _new(answered, flows ^ np.uint64(1), Kind.ACK, own=False),
        _new(answered, flows, Kind.ACK, own=True),
    ]


def _data(batch: Batch, pieces: Rows) -> Rows:
    """Data as one segment or datagram.

    What a packet claims to hold beyond all reason, and does not, is not in it: a hole is left.
    """
    types = batch.rows["virtio"]["type"][pieces["row"]]
    steps = _new(pieces["row"], flows_of(pieces), Kind.DATA, own=True)
    steps["kind"][types == _DGRAM] = int(Kind.DATAGRAM)
    for name in ("offset", "at", "cap"):
        steps[name] = pieces[name]
    steps["len"] = np.minimum(pieces["len"], np.maximum(pieces["cap"], _MOST_MISSING))
    steps["end"] = pieces["offset"] + pieces["len"]
    steps["push"] = (types != _SEQPACKET) | (pieces["flags"] & _EOM != 0)
    return steps


def _ends(batch: Batch, pieces: Rows) -> list[Rows]:
    """FIN and RST; an RST that confirms a close is the FIN of who has not sent one."""
    rows, flows, kinds = pieces["row"], flows_of(pieces), pieces["kind"]
    with_connection = batch.rows["virtio"]["type"][rows] != _DGRAM
    shut = with_connection & (kinds == _SHUTDOWN) & (pieces["flags"] & _SEND != 0)
    reset = with_connection & (kinds == _RST)
    closed = reset & (tracked(batch)["state"][rows] == _CLOSED)
    broken = reset & ~closed
    return [
        _new(rows[shut], flows[shut], Kind.FIN, own=True),
        _new(rows[closed], flows[closed], Kind.FIN, own=False),
        _new(rows[closed], flows[closed] ^ np.uint64(1), Kind.FIN, own=False),
        _new(rows[broken], flows[broken], Kind.RST, own=False),
    ]


def _acks(batch: Batch, known: Mask, pieces: Rows) -> Rows:
    """What has only credit to tell: updates, empty data, a side that receives no more."""
    telling = np.isin(batch.rows["virtio"]["op"], _CREDIT_OPS)
    empty = (pieces["kind"] == _DATA) & (pieces["len"] == 0)
    deaf = (pieces["kind"] == _SHUTDOWN) & (pieces["flags"] & _SEND == 0)
    telling[pieces["row"][empty | deaf]] = True
    rows = np.flatnonzero(telling & known)
    return _new(rows, flows_of(tracked(batch)[rows]), Kind.ACK, own=True)
