# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The tracker: what each packet means to its connection.

One state machine for live and offline use.  It takes a batch, keeps all connection state
in the store, and adds the tracked columns: connection, side, the stream's own payload,
tx_cnt, credit, state and marks; of what is rare it also gives events with numbers.  This is
the second compiled hot loop, in Cython's pure Python mode; see scan.py for what that asks of
an editor.

How it thinks:
- The virtio header counts, as it does for the kernel; the monitor header is compared.
- Counters on the wire are u32; the store keeps them unwrapped in 64 bits, so that every
  comparison is plain.  `_u32` and `_step` are the only places that know of the wrap.
- free(A to B) = max(0, min(B.buf_alloc, A.buf_alloc) - (A.tx_cnt - B.fwd_cnt)).
- A connection joined mid-stream has no tx_cnt.  It is held between two bounds: the peer
  cannot have consumed more than was sent, nor may more be in flight than was allowed.
  When the bounds meet, which takes a drained and a full buffer, tx_cnt is known.  That
  holds unless the peer's buffer was larger before the capture and has shrunk below what was
  in flight; more data than the bounds allow then makes tx_cnt unknown again, and accuses
  nobody.
- `len` of the virtio header is what the stream got.  Many kernels show more bytes on the
  tap for the pieces of a split packet: either the piece and all that follows (A), or the
  whole packet every time (B).  Variant A shows its pieces shrinking by the last `len`,
  variant B shows the same size again.
- A mark is set where the packet shows something.  What is found is an event with a number
  (kinds.py), the first time in a connection (`_note`); a rule that can get worse gives one more
  whenever its number has doubled, and its largest stands in the store.  So a flood of the same
  costs one bit a packet.  What a packet does not show, findings/overdue.py reads from the store.

Sources: virtio specification, "Socket Device"; net/vmw_vsock/virtio_transport_common.c;
drivers/vhost/vsock.c; observed on Linux 6.1 and 6.12.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

import cython
import numpy as np

from vsockdump import wire
from vsockdump.batch import FLAT_DTYPE, TRACKED_DTYPE, Batch, Layers, Malformed
from vsockdump.batch import NO_TIME as _NO_TIME_PY
from vsockdump.batch import Known as _Known
from vsockdump.track.copies import Copies
from vsockdump.track.kinds import MOST as _MOST_KINDS
from vsockdump.track.kinds import Cause as _Cause
from vsockdump.track.kinds import Doubt as _Doubt
from vsockdump.track.kinds import Kind as _Kind
from vsockdump.track.kinds import Limit as _Limit
from vsockdump.track.limits import (
    AT_ONCE_NS,
    BACKS,
    EMPTY_RUN,
    FEW_QUEUED,
    GAP_LEAST,
    GAP_ROUNDS,
    GIVEN_UP_NS,
    HUGE_BUFFER,
    MANY_QUEUED,
    OVERHEAD,
    QUIET_RUN,
    RST_STORM,
    SOON_NS,
    TIME_BACK_NS,
    UNDER_WAY_NS,
    UPDATE_STORM,
    WAITS_NS,
    WAITS_PART,
    WAITS_SEEN,
)
from vsockdump.track.marks import KIND_OF, MARK_OF
from vsockdump.track.marks import Mark as _Mark
from vsockdump.track.records import Records
from vsockdump.track.states import (
    ANSWER_TIMEOUT_NS,
    CLOSE_TIMEOUT_NS,
    CONNECT_TIMEOUT_NS,
    DEADLOCK_NS,
    HALF_CLOSED_IDLE_NS,
    LATEST_ANSWER_NS,
    LONG_STALL_NS,
    SECOND,
    TERMINAL,
    Event,
    State,
    transition_table,
)
from vsockdump.track.store import DEFAULT_CAP, EVENT_DTYPE, PEERS, STALL_DTYPE, Store

_NO_TIME = cython.declare(cython.longlong, _NO_TIME_PY)
_MASK32 = cython.declare(cython.longlong, 0xFFFFFFFF)
_MASK64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)

_REQUEST = cython.declare(cython.int, int(wire.Op.REQUEST))
_RESPONSE = cython.declare(cython.int, int(wire.Op.RESPONSE))
_RST = cython.declare(cython.int, int(wire.Op.RST))
_SHUTDOWN = cython.declare(cython.int, int(wire.Op.SHUTDOWN))
_RW = cython.declare(cython.int, int(wire.Op.RW))
_CREDIT_UPDATE = cython.declare(cython.int, int(wire.Op.CREDIT_UPDATE))
_CREDIT_REQUEST = cython.declare(cython.int, int(wire.Op.CREDIT_REQUEST))
_LAST_OP = cython.declare(cython.int, int(max(wire.Op)))
_STREAM = cython.declare(cython.int, int(wire.SocketType.STREAM))
_SEQPACKET = cython.declare(cython.int, int(wire.SocketType.SEQPACKET))
_DGRAM = cython.declare(cython.int, int(wire.SocketType.DGRAM))
_EOM = cython.declare(cython.uint, int(wire.Seqpacket.EOM))
_EOR = cython.declare(cython.uint, int(wire.Seqpacket.EOR))
_SEND = cython.declare(cython.int, int(wire.Shutdown.SEND))
_RCV = cython.declare(cython.int, int(wire.Shutdown.RCV))
_LOCAL = cython.declare(cython.ulonglong, wire.CID_LOCAL)
_HOST = cython.declare(cython.ulonglong, wire.CID_HOST)
_ANY = cython.declare(cython.ulonglong, wire.CID_ANY)
_HEADER_SIZE = cython.declare(cython.int, wire.VIRTIO.size)
_NO_INFO = cython.declare(cython.int, int(wire.Transport.NO_INFO))
_MONITOR_LAYER = cython.declare(cython.int, int(Layers.MONITOR))
_VIRTIO_LAYER = cython.declare(cython.int, int(Layers.VIRTIO))
_FOREIGN = cython.declare(cython.int, int(Malformed.FOREIGN))
_CUT_MONITOR = cython.declare(cython.int, int(Malformed.CUT_MONITOR))
_CUT_TRANSPORT = cython.declare(cython.int, int(Malformed.CUT_TRANSPORT))

_CONNECTING = cython.declare(cython.int, int(State.CONNECTING))
_OPEN = cython.declare(cython.int, int(State.OPEN))
_LATE = cython.declare(cython.int, int(State.LATE))
_HALF_INITIATOR = cython.declare(cython.int, int(State.HALF_CLOSED_INITIATOR))
_HALF_ACCEPTOR = cython.declare(cython.int, int(State.HALF_CLOSED_ACCEPTOR))
_REFUSED = cython.declare(cython.int, int(State.REFUSED))
_RESET = cython.declare(cython.int, int(State.RESET))
_CLOSING = cython.declare(cython.int, int(State.CLOSING))
_TIMED_OUT = cython.declare(cython.int, int(State.TIMED_OUT))
_REPLACED = cython.declare(cython.int, int(State.REPLACED))
_DATAGRAM = cython.declare(cython.int, int(State.DATAGRAM))
_EVENTS = cython.declare(cython.int, len(Event))
_EV_NOTHING = cython.declare(cython.int, int(Event.NOTHING))
_EV_RESPONSE = cython.declare(cython.int, int(Event.RESPONSE))
_EV_LATE_RESPONSE = cython.declare(cython.int, int(Event.LATE_RESPONSE))
_EV_DATA = cython.declare(cython.int, int(Event.DATA))
_EV_INITIATOR_ENDED = cython.declare(cython.int, int(Event.INITIATOR_ENDED))
_EV_ACCEPTOR_ENDED = cython.declare(cython.int, int(Event.ACCEPTOR_ENDED))
_EV_BOTH_ENDED = cython.declare(cython.int, int(Event.BOTH_ENDED))
_EV_INITIATOR_RST = cython.declare(cython.int, int(Event.INITIATOR_RST))
_EV_ACCEPTOR_RST = cython.declare(cython.int, int(Event.ACCEPTOR_RST))
_EV_ABORTED = cython.declare(cython.int, int(Event.CLOSER_ABORTED))
_EV_GAVE_UP = cython.declare(cython.int, int(Event.CLOSER_GAVE_UP))
_CONNECT_TIMEOUT = cython.declare(cython.longlong, CONNECT_TIMEOUT_NS)
_CLOSE_TIMEOUT = cython.declare(cython.longlong, CLOSE_TIMEOUT_NS)
_LATEST_ANSWER = cython.declare(cython.longlong, LATEST_ANSWER_NS)
_ANSWER_TIMEOUT = cython.declare(cython.longlong, ANSWER_TIMEOUT_NS)
_IDLE = cython.declare(cython.longlong, HALF_CLOSED_IDLE_NS)
_LONG_STALL = cython.declare(cython.longlong, LONG_STALL_NS)
_DEADLOCK = cython.declare(cython.longlong, DEADLOCK_NS)
_UNDER_WAY = cython.declare(cython.longlong, UNDER_WAY_NS)
_SOON = cython.declare(cython.longlong, SOON_NS)
_TIME_BACK = cython.declare(cython.longlong, TIME_BACK_NS)
_LARGEST = cython.declare(cython.uint, wire.MAX_PAYLOAD)
_HUGE = cython.declare(cython.uint, HUGE_BUFFER)
_OVERHEAD = cython.declare(cython.longlong, OVERHEAD)
_MANY_QUEUED = cython.declare(cython.uint, MANY_QUEUED)
_FEW = cython.declare(cython.longlong, FEW_QUEUED)
_EMPTY_RUN = cython.declare(cython.uint, EMPTY_RUN)
_QUIET_RUN = cython.declare(cython.uint, QUIET_RUN)
_STORM = cython.declare(cython.uint, UPDATE_STORM)
_BACKS = cython.declare(cython.uint, BACKS)
_RSTS = cython.declare(cython.uint, RST_STORM)
_WAITS = cython.declare(cython.longlong, WAITS_NS)
_WAITS_PART = cython.declare(cython.longlong, WAITS_PART)
_WAITS_SEEN = cython.declare(cython.int, WAITS_SEEN)
_AT_ONCE = cython.declare(cython.longlong, AT_ONCE_NS)
_GIVEN_UP_FROM = cython.declare(cython.longlong, GIVEN_UP_NS[0])
_GIVEN_UP_TO = cython.declare(cython.longlong, GIVEN_UP_NS[1])
_GAP_LEAST = cython.declare(cython.uint, GAP_LEAST)
_GAP_ROUNDS = cython.declare(cython.uint, GAP_ROUNDS)
_PEERS = cython.declare(cython.int, PEERS)
_PEER_TABLE_SIZE = 4 * PEERS
_PEER_TABLE = cython.declare(cython.ulonglong, _PEER_TABLE_SIZE)
_LONGEST = cython.declare(cython.longlong, 2**62)  # no duration is longer; two fit in 64 bits


_M_MIDSTREAM = cython.declare(cython.ulonglong, int(_Mark.MIDSTREAM))
_M_TAP_REPEAT = cython.declare(cython.ulonglong, int(_Mark.TAP_REPEAT))
_M_CUT = cython.declare(cython.ulonglong, int(_Mark.CUT))
_M_NO_SOCKET = cython.declare(cython.ulonglong, int(_Mark.NO_SOCKET))
_M_LATER_RST = cython.declare(cython.ulonglong, int(_Mark.LATER_RST))
_M_ZERO_CREDIT = cython.declare(cython.ulonglong, int(_Mark.ZERO_CREDIT))
_M_OPEN_BEFORE = cython.declare(cython.ulonglong, int(_Mark.OPEN_BEFORE))
_M_ADDRESSES = cython.declare(cython.ulonglong, int(_Mark.ADDRESS_MISMATCH))
_M_OVER_CREDIT = cython.declare(cython.ulonglong, int(_Mark.OVER_CREDIT))
_M_WIDE_CID = cython.declare(cython.ulonglong, int(_Mark.WIDE_CID))
_M_RESERVED_CID = cython.declare(cython.ulonglong, int(_Mark.RESERVED_CID))
_M_UNASKED_RESPONSE = cython.declare(cython.ulonglong, int(_Mark.UNASKED_RESPONSE))
_M_STALL = cython.declare(cython.ulonglong, int(_Mark.STALL))
_M_MORE = cython.declare(cython.ulonglong, int(_Mark.MORE))
_M_TIME_BACK = cython.declare(cython.ulonglong, int(_Mark.TIME_BACK))
# Set as marks alone: their events, without numbers, are made when the packet is done.
_M_PLAIN = cython.declare(
    cython.ulonglong,
    int(
        _Mark.MIDSTREAM
        | _Mark.TAP_REPEAT
        | _Mark.CUT
        | _Mark.ADDRESS_MISMATCH
        | _Mark.WIDE_CID
        | _Mark.RESERVED_CID
        | _Mark.UNASKED_RESPONSE
    ),
)

_F_LATE_RESPONSE = cython.declare(cython.int, int(_Kind.LATE_RESPONSE))
_F_SHORT_PAYLOAD = cython.declare(cython.int, int(_Kind.SHORT_PAYLOAD))
_F_OP_MISMATCH = cython.declare(cython.int, int(_Kind.OP_MISMATCH))
_F_UNKNOWN_OP = cython.declare(cython.int, int(_Kind.UNKNOWN_OP))
_F_UNKNOWN_TYPE = cython.declare(cython.int, int(_Kind.UNKNOWN_TYPE))
_F_CONTROL_PAYLOAD = cython.declare(cython.int, int(_Kind.CONTROL_PAYLOAD))
_F_TYPE_CHANGED = cython.declare(cython.int, int(_Kind.TYPE_CHANGED))
_F_NOT_ESTABLISHED = cython.declare(cython.int, int(_Kind.NOT_ESTABLISHED))
_F_AFTER_SHUTDOWN = cython.declare(cython.int, int(_Kind.AFTER_SHUTDOWN))
_F_STILL_OPEN = cython.declare(cython.int, int(_Kind.STILL_OPEN))
_F_OVER_CREDIT = cython.declare(cython.int, int(_Kind.OVER_CREDIT))
_F_FWD_AHEAD = cython.declare(cython.int, int(_Kind.FWD_AHEAD))
_F_FWD_BACK = cython.declare(cython.int, int(_Kind.FWD_BACK))
_F_MALFORMED = cython.declare(cython.int, int(_Kind.MALFORMED))
_F_CUT_HEADERS = cython.declare(cython.int, int(_Kind.CUT_HEADERS))
_F_LONG_HEADER = cython.declare(cython.int, int(_Kind.LONG_HEADER))
_F_UNKNOWN_TRANSPORT = cython.declare(cython.int, int(_Kind.UNKNOWN_TRANSPORT))
_F_RESERVED = cython.declare(cython.int, int(_Kind.RESERVED))
_F_FRAME_PAYLOAD = cython.declare(cython.int, int(_Kind.FRAME_PAYLOAD))
_F_TOO_LONG = cython.declare(cython.int, int(_Kind.TOO_LONG))
_F_EMPTY_DATA = cython.declare(cython.int, int(_Kind.EMPTY_DATA))
_F_EMPTY_MESSAGES = cython.declare(cython.int, int(_Kind.EMPTY_MESSAGES))
_F_FLAGS = cython.declare(cython.int, int(_Kind.FLAGS))
_F_SHUTDOWN_FLAGS = cython.declare(cython.int, int(_Kind.SHUTDOWN_FLAGS))
_F_MESSAGE_FLAGS = cython.declare(cython.int, int(_Kind.MESSAGE_FLAGS))
_F_MESSAGE_CUT = cython.declare(cython.int, int(_Kind.MESSAGE_CUT))
_F_MESSAGE_SIZE = cython.declare(cython.int, int(_Kind.MESSAGE_SIZE))
_F_REFUSED = cython.declare(cython.int, int(_Kind.REFUSED))
_F_UNANSWERED = cython.declare(cython.int, int(_Kind.UNANSWERED))
_F_REUSED = cython.declare(cython.int, int(_Kind.REUSED))
_F_UNASKED_RESPONSE = cython.declare(cython.int, int(_Kind.UNASKED_RESPONSE))
_F_UNKNOWN_CONNECTION = cython.declare(cython.int, int(_Kind.UNKNOWN_CONNECTION))
_F_RST_FOR_RST = cython.declare(cython.int, int(_Kind.RST_FOR_RST))
_F_DEAF_PEER = cython.declare(cython.int, int(_Kind.DEAF_PEER))
_F_CLOSE_TIMEOUT = cython.declare(cython.int, int(_Kind.CLOSE_TIMEOUT))
_F_RESET = cython.declare(cython.int, int(_Kind.RESET))
_F_HALF_CLOSED_IDLE = cython.declare(cython.int, int(_Kind.HALF_CLOSED_IDLE))
_F_BYTES_LOST = cython.declare(cython.int, int(_Kind.BYTES_LOST))
_F_NO_CREDIT = cython.declare(cython.int, int(_Kind.NO_CREDIT))
_F_TIME_BACK = cython.declare(cython.int, int(_Kind.TIME_BACK))
_F_STALL = cython.declare(cython.int, int(_Kind.STALL))
_F_DEADLOCK = cython.declare(cython.int, int(_Kind.DEADLOCK))
_F_UNANSWERED_ASK = cython.declare(cython.int, int(_Kind.UNANSWERED_ASK))
_F_NO_UPDATES = cython.declare(cython.int, int(_Kind.NO_UPDATES))
_F_UPDATE_STORM = cython.declare(cython.int, int(_Kind.UPDATE_STORM))
_F_HUGE_BUFFER = cython.declare(cython.int, int(_Kind.HUGE_BUFFER))
_F_SMALL_BUFFER = cython.declare(cython.int, int(_Kind.SMALL_BUFFER))
_F_SMALL_PACKETS = cython.declare(cython.int, int(_Kind.SMALL_PACKETS))
_F_OVERRUN_RESET = cython.declare(cython.int, int(_Kind.OVERRUN_RESET))
_F_OWN_BUFFER = cython.declare(cython.int, int(_Kind.OWN_BUFFER))
_F_BUFFER_CHANGED = cython.declare(cython.int, int(_Kind.BUFFER_CHANGED))
_F_INTERLEAVED = cython.declare(cython.int, int(_Kind.INTERLEAVED))
_F_SHRUNK = cython.declare(cython.int, int(_Kind.SHRUNK))

_F_NO_CAP = cython.declare(cython.int, int(_Kind.NO_CAP))
_F_REOPENED = cython.declare(cython.int, int(_Kind.REOPENED))
_F_TWO_ANSWERS = cython.declare(cython.int, int(_Kind.TWO_ANSWERS))
_F_UNSEEN = cython.declare(cython.int, int(_Kind.UNSEEN))
_F_OLD_COUNTERS = cython.declare(cython.int, int(_Kind.OLD_COUNTERS))
_F_RESTARTED = cython.declare(cython.int, int(_Kind.RESTARTED))
_F_RST_STORM = cython.declare(cython.int, int(_Kind.RST_STORM))
_F_SHARED_FWD = cython.declare(cython.int, int(_Kind.SHARED_FWD))
_F_GRANT_IGNORED = cython.declare(cython.int, int(_Kind.GRANT_IGNORED))
_F_MIDSTREAM = cython.declare(cython.int, int(_Kind.MIDSTREAM))
_F_COPIES = cython.declare(cython.int, int(_Kind.COPIES))
_F_OUT_OF_ORDER = cython.declare(cython.int, int(_Kind.OUT_OF_ORDER))
_D_ORDER = cython.declare(cython.uchar, int(_Doubt.ORDER))
_F_HOLE = cython.declare(cython.int, int(_Kind.HOLE))
_F_REQUEST_DROPPED = cython.declare(cython.int, int(_Kind.REQUEST_DROPPED))
_F_ANSWER_LOST = cython.declare(cython.int, int(_Kind.ANSWER_LOST))
_D_MISSING = cython.declare(cython.uchar, int(_Doubt.MISSING))
_D_SHARED = cython.declare(cython.uchar, int(_Doubt.SHARED))
_C_READER = cython.declare(cython.uchar, int(_Cause.READER))
_C_OWN = cython.declare(cython.uchar, int(_Cause.OWN_BUFFER))
_C_UNTOLD = cython.declare(cython.uchar, int(_Cause.UNTOLD))
_L_UNKNOWN = cython.declare(cython.uchar, int(_Limit.UNKNOWN))
_L_UNCAPPED = cython.declare(cython.uchar, int(_Limit.UNCAPPED))
_L_CAPPED = cython.declare(cython.uchar, int(_Limit.CAPPED))

_K_TX = cython.declare(cython.uchar, int(_Known.TX_CNT))
_K_IN_FLIGHT = cython.declare(cython.uchar, int(_Known.IN_FLIGHT))
_K_FREE = cython.declare(cython.uchar, int(_Known.FREE))
_K_GRANTED = cython.declare(cython.uchar, int(_Known.GRANTED))
_K_SIDE = cython.declare(cython.uchar, int(_Known.SIDE))
_K_CAPPED = cython.declare(cython.uchar, int(_Known.CAPPED))
_K_PEER_CAPPED = cython.declare(cython.uchar, int(_Known.PEER_CAPPED))
_K_BEGINNING = cython.declare(cython.uchar, int(_Known.BEGINNING))

_NO_TAP = cython.declare(cython.uint, 0x7FFFFFFF)
_VARIANT_A = cython.declare(cython.int, 1)
_VARIANT_B = cython.declare(cython.int, 2)
# A packet can have as many events as there are marks, for each of two connections.
_MOST_EVENTS = 1024
_EVENTS_FULL = cython.declare(cython.Py_ssize_t, _MOST_EVENTS - 128)
_MOST_BOUND = 16  # arrays of rows that are remembered; a source has fewer
_MOST_EXTRAS = cython.declare(cython.Py_ssize_t, 2)  # that one packet can make
_BELOW = cython.declare(cython.int, 1)  # values of `base_set`: a lower bound, both bounds
_BOTH_WAYS = cython.declare(cython.int, 2)
_NOBODY = cython.declare(cython.int, 2)  # value of `closer` while neither side has closed

# C's view of the arrays: the dtypes of batch.py and store.py, field by field. Cython compares
# types and offsets when an array is bound, a test compares the names. Pointers to rows save
# half of the instructions that indexing takes; uncompiled, Records stand in for them.
Packet = cython.struct(
    number=cython.ulonglong,
    time_ns=cython.longlong,
    record_offset=cython.ulonglong,
    record_at=cython.uint,
    record_len=cython.uint,
    packet_at=cython.uint,
    caplen=cython.uint,
    wirelen=cython.uint,
    interface=cython.uint,
    ifindex=cython.uint,
    payload_at=cython.uint,
    payload_cap=cython.uint,
    payload_wire=cython.uint,
    link_size=cython.uchar,
    options=cython.uchar,
    layers=cython.uchar,
    malformed=cython.uchar,
    mon_src_cid=cython.ulonglong,
    mon_dst_cid=cython.ulonglong,
    mon_src_port=cython.uint,
    mon_dst_port=cython.uint,
    mon_op=cython.ushort,
    mon_t=cython.ushort,
    mon_len=cython.ushort,
    mon_reserved=cython.ushort,
    virtio_src_cid=cython.ulonglong,
    virtio_dst_cid=cython.ulonglong,
    virtio_src_port=cython.uint,
    virtio_dst_port=cython.uint,
    virtio_len=cython.uint,
    virtio_type=cython.ushort,
    virtio_op=cython.ushort,
    virtio_flags=cython.uint,
    virtio_buf_alloc=cython.uint,
    virtio_fwd_cnt=cython.uint,
)
Connection = cython.struct(
    number=cython.ulonglong,
    key_low=cython.ulonglong,
    key_high=cython.ulonglong,
    key_ports=cython.ulonglong,
    key_place=cython.ulonglong,
    last_packet=cython.ulonglong,
    last_ns=cython.longlong,
    type=cython.ushort,
    state=cython.uchar,
    flip=cython.uchar,
    side_known=cython.uchar,
    midstream=cython.uchar,
    closer=cython.uchar,
    ended=cython.uchar,
    initiator_cid=cython.ulonglong,
    acceptor_cid=cython.ulonglong,
    first_packet=cython.ulonglong,
    first_ns=cython.longlong,
    ended_ns=cython.longlong,
    initiator_port=cython.uint,
    acceptor_port=cython.uint,
    marks=cython.ulonglong,
    found_low=cython.ulonglong,
    found_high=cython.ulonglong,
    answered_ns=cython.longlong,
    tap=cython.uint,
    doubt=cython.uchar,
    asker=cython.uchar,
    previous=cython.ulonglong,
    previous_state=cython.uchar,
)
Flow = cython.struct(
    tx=cython.longlong,
    fwd=cython.longlong,
    limit=cython.longlong,
    packets=cython.ulonglong,
    bytes=cython.ulonglong,
    frame_bytes=cython.ulonglong,
    stalled_since=cython.longlong,
    buf=cython.uint,
    min_free=cython.uint,
    max_in_flight=cython.uint,
    repeat_wire=cython.uint,
    tx_known=cython.uchar,
    credit_seen=cython.uchar,
    free_seen=cython.uchar,
    shut=cython.uchar,
    base_set=cython.uchar,
    repeat_variant=cython.uchar,
    asked=cython.uchar,
    quiet=cython.uchar,
    queued=cython.uint,
    base=cython.longlong,
    base_low=cython.longlong,
    base_high=cython.longlong,
    stalled_ns=cython.longlong,
    longest_stall_ns=cython.longlong,
    first_update_ns=cython.longlong,
    last_update_ns=cython.longlong,
    closed_ns=cython.longlong,
    stalls=cython.uint,
    updates=cython.uint,
    repeat_len=cython.uint,
    repeat_sum=cython.uint,
    stalled_flight=cython.uint,
    empty=cython.uint,
    backs=cython.uint,
    most_buf=cython.uint,
    stalled_packet=cython.ulonglong,
    rst_packet=cython.ulonglong,
    message=cython.longlong,
    said_ns=cython.longlong,
    data_ns=cython.longlong,
    longest_packet=cython.ulonglong,
    longest_flight=cython.uint,
    untold=cython.uint,
    rsts=cython.uint,
    min_own=cython.uint,
    extra=cython.uint,
    peer=cython.ushort,
    rule=cython.uchar,
    longest_cause=cython.uchar,
    deaf_ns=cython.longlong,
    asked_ns=cython.longlong,
)
Stall = cython.struct(
    conn=cython.ulonglong,
    start_ns=cython.longlong,
    end_ns=cython.longlong,
    first_packet=cython.ulonglong,
    packet=cython.ulonglong,
    in_flight=cython.uint,
    side=cython.uchar,
    cause=cython.uchar,
)
Extra = cython.struct(
    own_since=cython.longlong,
    own_until=cython.longlong,
    own_packet=cython.ulonglong,
    own_end_packet=cython.ulonglong,
    own_stalled_ns=cython.longlong,
    own_longest_ns=cython.longlong,
    own_longest_packet=cython.ulonglong,
    own_stalls=cython.uint,
    own_flight=cython.uint,
    own_talk=cython.uchar,
    over_pending=cython.uchar,
    over_proven=cython.uchar,
    over=cython.longlong,
    over_tx=cython.longlong,
    over_ns=cython.longlong,
    grant_ns=cython.longlong,
    grant_again_ns=cython.longlong,
    gap_base=cython.longlong,
    gap_end=cython.longlong,
    gap_packet=cython.ulonglong,
    gap_len=cython.uint,
    gap_rounds=cython.uint,
)
Peer = cython.struct(
    cid=cython.ulonglong,
    place=cython.ulonglong,
    conn=cython.ulonglong,
    fwd=cython.uint,
    rule=cython.uchar,
    waits=cython.uchar,
)
Noted = cython.struct(
    kind=cython.ulonglong,
    conn=cython.ulonglong,
    packet=cython.ulonglong,
    time_ns=cython.longlong,
    a=cython.longlong,
    b=cython.longlong,
    side=cython.uchar,
    open=cython.uchar,
    doubt=cython.uchar,
    cause=cython.uchar,
)
Tracked = cython.struct(
    conn=cython.ulonglong,
    marks=cython.ulonglong,
    data_at=cython.uint,
    data_cap=cython.uint,
    data_len=cython.uint,
    tx_cnt=cython.uint,
    in_flight=cython.uint,
    free=cython.uint,
    granted=cython.uint,
    side=cython.uchar,
    state=cython.uchar,
    known=cython.uchar,
)


def _records(array):
    """The rows of a structured array as the core reads them: `view[row].field`."""
    return array if cython.compiled else Records(array)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _u32(value: cython.longlong) -> cython.uint:
    """A counter as it stands on the wire: mod 2^32."""
    return value & _MASK32


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _step(new: cython.longlong, old: cython.longlong) -> cython.longlong:
    """How far a u32 counter has moved: the signed difference mod 2^32."""
    step: cython.longlong = (new - old) & _MASK32
    return step - _MASK32 - 1 if step > _MASK32 >> 1 else step


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _elapsed(now: cython.longlong, since: cython.longlong) -> cython.longlong:
    """Time that has passed: 0 where it is not known or the clock went back."""
    if since == _NO_TIME or now <= since:
        return 0
    # Damaged files have times as far apart as 64 bits allow.
    if since < 0 and now > since + _LONGEST:
        return _LONGEST
    return min(now - since, _LONGEST)


@cython.cclass
class _Core:
    """The compiled half of the Tracker: columns of the batch and of the store."""

    p: Packet[::1]
    o: Tracked[::1]
    c: Connection[::1]
    f: Flow[::1]
    x: Extra[::1]
    n: Peer[::1]
    s: Stall[::1]  # stalls that ended in this batch
    stalls: cython.Py_ssize_t
    e: Noted[::1]  # events since `run` was called
    events: cython.Py_ssize_t
    alone: cython.uchar[::1]  # by kind: what is said of no connection has had its event
    line: cython.ulonglong[::1]  # the mark of each kind
    kind_of: cython.uchar[::1]  # the kind of each mark, by the number of its bit
    event_rows: object
    replaced: cython.ulonglong  # the connection whose tuple the packet takes, or 0
    replaced_state: cython.int  # as it was
    replaced_low: cython.longlong  # the last fwd_cnt of its two ends
    replaced_high: cython.longlong
    prompted: cython.bint  # the packet answers a CREDIT_REQUEST at once
    packet: cython.ulonglong  # number of the packet at hand
    # hash table of slots + 1, 0 is empty; its size is a power of two
    table: cython.int[::1]
    table_mask: cython.ulonglong
    k_low: cython.ulonglong  # odd and random: the hash cannot be aimed at
    k_high: cython.ulonglong
    k_ports: cython.ulonglong
    k_place: cython.ulonglong
    used: cython.Py_ssize_t
    capacity: cython.Py_ssize_t
    extras: cython.Py_ssize_t  # rows of extras in use
    extras_capacity: cython.Py_ssize_t
    peers: cython.int  # rows of peers in use, row 0 aside
    peer_table: cython.ushort[::1]  # hash table of them
    taps: cython.uint[::1]
    tap_count: cython.Py_ssize_t
    copies: cython.uchar[::1]  # by row: 1 for what copies.py has found
    with_copies: cython.bint
    next_state: cython.uchar[::1]
    terminal: cython.uchar[::1]
    outer_op: cython.uchar[::1]
    connections: cython.ulonglong  # numbers given so far
    clock: cython.longlong  # time of the last packet that had one
    earliest: cython.longlong  # of the first packet that had one, or NO_TIME
    latest: cython.longlong  # the largest, or NO_TIME
    marks: cython.ulonglong  # of the packet at hand
    now: cython.longlong

    def __init__(self, random_bytes: bytes) -> None:
        keys = [int.from_bytes(random_bytes[at : at + 8], "little") | 1 for at in (0, 8, 16, 24)]
        self.k_low, self.k_high, self.k_ports, self.k_place = keys
        self.connections = 0
        self.clock = _NO_TIME
        self.earliest = self.latest = _NO_TIME
        self.used = 0
        self.with_copies = False
        self.peers = 0
        self.peer_table = memoryview(np.zeros(_PEER_TABLE_SIZE, "u2"))
        self.stalls = 0
        self.events = 0
        self.alone = memoryview(np.zeros(_MOST_KINDS, "u1"))
        line = np.zeros(_MOST_KINDS, "u8")
        line[list(MARK_OF)] = list(MARK_OF.values())
        self.line = memoryview(line)
        kind_of = np.zeros(64, "u1")
        for mark, kind in KIND_OF.items():
            kind_of[int(mark).bit_length() - 1] = kind
        self.kind_of = memoryview(kind_of)
        self.event_rows = np.zeros(_MOST_EVENTS, EVENT_DTYPE)
        self.e = _records(self.event_rows)
        self.next_state = memoryview(transition_table())
        terminal = np.zeros(len(State), "u1")
        terminal[list(TERMINAL)] = 1
        self.terminal = memoryview(terminal)
        outer = np.zeros(len(wire.Op), "u1")
        for op, monitor_op in wire.OUTER_OP.items():
            outer[op] = monitor_op
        self.outer_op = memoryview(outer)

    def bind_batch(self, rows, tracked, stalls) -> None:
        """Look at these arrays from now on."""
        self.p = _records(rows.view(FLAT_DTYPE))
        self.o = _records(tracked)
        self.s = _records(stalls)

    def bind_store(self, store) -> None:
        """Look at the store's arrays, which move when it grows."""
        self.capacity = len(store.connections)
        self.used = store.used
        self.c = _records(store.connections)
        self.f = _records(store.flows)
        self.extras_capacity = len(store.extras)
        self.extras = store.extras_used
        self.x = _records(store.extras)
        self.n = _records(store.peers)

    def bind_taps(self, taps) -> None:
        """The tap of each interface, an array of uint32."""
        self.taps = memoryview(taps)
        self.tap_count = len(taps)

    def peer_of(self, cid, place):
        """The row of a context id at a place; see _peer_of."""
        return self._peer_of(cid, place)

    def bind_copies(self, copies) -> None:
        """Which rows of the batch are copies, an array of uint8, or None."""
        self.with_copies = copies is not None
        if copies is not None:
            self.copies = memoryview(copies)

    def rebuild(self, slots: cython.longlong[::1]) -> None:
        """Make the hash table for the current capacity and these slots."""
        size: cython.Py_ssize_t = 16
        index: cython.Py_ssize_t
        slot: cython.Py_ssize_t
        while size < 4 * self.capacity:
            size *= 2
        self.table = memoryview(np.zeros(size, "i4"))
        self.table_mask = size - 1
        for index in range(len(slots)):
            slot = slots[index]
            at: cython.Py_ssize_t = self._find(
                self.c[slot].key_low,
                self.c[slot].key_high,
                self.c[slot].key_ports,
                self.c[slot].key_place,
            )
            self.table[at] = slot + 1

    def current(self):
        """The slots that the hash table points to: the last connection of each tuple."""
        entries = np.asarray(self.table)
        return entries[entries > 0].astype(np.int64) - 1

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _find(
        self,
        low: cython.ulonglong,
        high: cython.ulonglong,
        ports: cython.ulonglong,
        place: cython.ulonglong,
    ) -> cython.Py_ssize_t:
        """Where in the table the key stands, or the empty place where it would."""
        hashed: cython.ulonglong = low * self.k_low + high * self.k_high
        at: cython.ulonglong
        entry: cython.Py_ssize_t
        hashed = (hashed + ports * self.k_ports + place * self.k_place) & _MASK64
        hashed = (hashed >> 32 ^ hashed) * self.k_low & _MASK64
        at = hashed >> 32 & self.table_mask
        while True:
            entry = self.table[at]
            if entry == 0:
                return at
            entry -= 1
            if (
                self.c[entry].key_ports == ports
                and self.c[entry].key_low == low
                and self.c[entry].key_high == high
                and self.c[entry].key_place == place
            ):
                return at
            at = (at + 1) & self.table_mask

    def run(self, start: cython.Py_ssize_t, count: cython.Py_ssize_t):
        """Track rows start to count.

        Returns (row, slots and extras used, stalls ended, events, times): the row is count, or
        that at which the store or the array of events is full; the times are the first, the
        largest and the last one.
        """
        row: cython.Py_ssize_t = start
        if start == 0:
            self.stalls = 0
        self.events = 0
        # Without the GIL, so that a reading thread can go on meanwhile.
        with cython.nogil:
            while row < count and self.events <= _EVENTS_FULL:
                if self.extras + _MOST_EXTRAS > self.extras_capacity:
                    break
                if self.with_copies and self.copies[row]:
                    self._copy(self._packet(row), self._tracked(row))
                elif not self._track(self._packet(row), self._tracked(row)):
                    break
                row += 1
        used = self.used, self.extras
        times = self.earliest, self.latest, self.clock
        return row, used, self.stalls, self.events, times

    def take_events(self, count: cython.Py_ssize_t):
        """A copy of the events of the last run."""
        return self.event_rows[:count].copy()

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _packet(self, index: cython.Py_ssize_t) -> cython.pointer(Packet):
        """A row of the batch."""
        if cython.compiled:
            return cython.address(self.p[index])
        else:  # not after the if: C has no such type
            return self.p[index]

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _tracked(self, index: cython.Py_ssize_t) -> cython.pointer(Tracked):
        """A row of the tracked columns."""
        if cython.compiled:
            return cython.address(self.o[index])
        else:  # not after the if: C has no such type
            return self.o[index]

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _connection(self, index: cython.Py_ssize_t) -> cython.pointer(Connection):
        """A slot of the store."""
        if cython.compiled:
            return cython.address(self.c[index])
        else:  # not after the if: C has no such type
            return self.c[index]

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _flow(self, index: cython.Py_ssize_t) -> cython.pointer(Flow):
        """A flow of the store."""
        if cython.compiled:
            return cython.address(self.f[index])
        else:  # not after the if: C has no such type
            return self.f[index]

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _extra(self, f: cython.pointer(Flow)) -> cython.pointer(Extra):
        """What few flows have; `run` sees to it that there is room."""
        if f.extra == 0:
            f.extra = self.extras
            self.extras += 1
        if cython.compiled:
            return cython.address(self.x[f.extra])
        else:  # not after the if: C has no such type
            return self.x[f.extra]

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _peer_of(self, cid: cython.ulonglong, place: cython.ulonglong) -> cython.int:
        """The row of a context id at a place, 0 where there is no room for it."""
        at: cython.ulonglong = (cid * self.k_low + place * self.k_place & _MASK64) >> 32
        row: cython.int
        at &= _PEER_TABLE - 1
        while self.peer_table[at]:
            row = self.peer_table[at]
            if self.n[row].cid == cid and self.n[row].place == place:
                return row
            at = (at + 1) & (_PEER_TABLE - 1)
        if self.peers + 1 >= _PEERS:
            return 0
        self.peers += 1
        self.peer_table[at] = self.peers
        self.n[self.peers].cid = cid
        self.n[self.peers].place = place
        return self.peers

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _is_capped(self, f: cython.pointer(Flow)) -> cython.bint:
        """Whether the sender of the flow is known to be limited by its own buffer too."""
        return f.rule == _L_CAPPED and self.n[f.peer].rule != _L_UNCAPPED

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _track(self, p: cython.pointer(Packet), o: cython.pointer(Tracked)) -> cython.bint:
        """Track one row; False if the store has no room for its new connection."""
        self.marks = 0
        self.packet = p.number
        if p.time_ns != _NO_TIME:
            if p.time_ns < self.clock:
                self._time_back(p.time_ns)
            self.clock = p.time_ns
            if self.clock > self.latest:
                self.latest = self.clock
            if self.earliest == _NO_TIME:
                self.earliest = self.clock
        self.now = self.clock
        if p.layers == _VIRTIO_LAYER:
            return self._virtio(p, o)
        self._untracked(p, o)
        return True

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _had(self, c: cython.pointer(Connection), kind: cython.int) -> cython.bint:
        """Whether this was found in the connection before."""
        if kind < 64:
            return (c.found_low >> kind & 1) != 0
        return (c.found_high >> (kind - 64) & 1) != 0

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _event(
        self,
        c: cython.pointer(Connection),
        kind: cython.int,
        side: cython.int,
        a: cython.longlong,
        b: cython.longlong,
    ) -> cython.void:
        """Something found in a connection: an event with its numbers."""
        bit: cython.ulonglong = 1
        if kind < 64:
            c.found_low |= bit << kind
        else:
            c.found_high |= bit << (kind - 64)
        self._add_event(kind, c.number, side, a, b)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _add_event(
        self,
        kind: cython.int,
        conn: cython.ulonglong,
        side: cython.int,
        a: cython.longlong,
        b: cython.longlong,
    ) -> cython.void:
        at: cython.Py_ssize_t = self.events
        self.e[at].kind = kind
        self.e[at].conn = conn
        self.e[at].packet = self.packet
        self.e[at].time_ns = self.now
        self.e[at].a = a
        self.e[at].b = b
        self.e[at].side = side
        self.e[at].open = 0
        self.e[at].doubt = 0
        self.e[at].cause = 0
        self.events += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _note(
        self,
        c: cython.pointer(Connection),
        kind: cython.int,
        side: cython.int,
        a: cython.longlong,
        b: cython.longlong,
    ) -> cython.void:
        """Mark the packet; the first time in a connection is an event."""
        had: cython.bint = self._had(c, kind)
        if not had or self.line[kind] != _M_MORE:
            self.marks |= self.line[kind]
        if not had:
            self._event(c, kind, side, a, b)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _note_alone(self, kind: cython.int, a: cython.longlong, b: cython.longlong) -> cython.void:
        """Mark a packet of which no connection is accused; the first one is an event."""
        self.marks |= self.line[kind]
        if not self.alone[kind]:
            self.alone[kind] = 1
            self._add_event(kind, 0, 0, a, b)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _time_back(self, now: cython.longlong) -> cython.void:
        """The packet's time is before that of the one before it."""
        back: cython.longlong = _elapsed(self.clock, now)
        if back > _TIME_BACK:
            self.now = self.clock
            self._note_alone(_F_TIME_BACK, back, 0)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _copy(self, p: cython.pointer(Packet), o: cython.pointer(Tracked)) -> cython.void:
        """A packet that stands here twice: it counts for nothing."""
        self.marks = 0
        self.packet = p.number
        self.now = self.clock
        self._note_alone(_F_COPIES, 0, 0)
        self._nothing(p, o)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _untracked(self, p: cython.pointer(Packet), o: cython.pointer(Tracked)) -> cython.void:
        """A packet without a virtio header: no connection can be told."""
        if p.malformed == _CUT_MONITOR or p.malformed == _CUT_TRANSPORT:
            self._note_alone(_F_CUT_HEADERS, p.caplen, 0)
        elif p.malformed != 0 and p.malformed != _FOREIGN:
            self._note_alone(_F_MALFORMED, p.malformed, 0)
        elif p.layers == _MONITOR_LAYER and p.mon_t != _NO_INFO:
            self._note_alone(_F_UNKNOWN_TRANSPORT, p.mon_t, 0)
        self._nothing(p, o)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _nothing(self, p: cython.pointer(Packet), o: cython.pointer(Tracked)) -> cython.void:
        """The columns of a packet of no connection."""
        o.conn = 0
        o.marks = self.marks
        o.data_at = p.payload_at
        o.data_cap = 0
        o.data_len = 0
        o.side = 0
        o.state = 0
        o.known = 0
        o.tx_cnt = 0
        o.in_flight = 0
        o.free = 0
        o.granted = 0

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _tap(self, p: cython.pointer(Packet)) -> cython.uint:
        """The place of capture; interfaces that set_taps was not told of share one."""
        interface: cython.Py_ssize_t = p.interface
        return self.taps[interface] if interface < self.tap_count else _NO_TAP

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _virtio(self, p: cython.pointer(Packet), o: cython.pointer(Tracked)) -> cython.bint:
        """Track one packet; False if the store has no room for its new connection."""
        low: cython.ulonglong = p.virtio_src_cid
        high: cython.ulonglong = p.virtio_dst_cid
        source: cython.ulonglong = p.virtio_src_port
        target: cython.ulonglong = p.virtio_dst_port
        ports: cython.ulonglong
        place: cython.ulonglong
        is_high: cython.bint
        op: cython.int = p.virtio_op
        kind: cython.int = p.virtio_type
        at: cython.Py_ssize_t
        slot: cython.Py_ssize_t
        side: cython.int
        moved: cython.bint = False
        strange: cython.bint
        free: cython.longlong = -1
        granted: cython.longlong = -1
        # One end is the host or loopback, the other a guest or loopback; CIDs have 32 bits.
        # 0 wraps to the largest. What is taken for strange here is looked at in detail.
        strange = (low > _HOST and high > _HOST) or (low - 1 | high - 1) & _MASK64 >= _ANY - 1
        # Only the loopback transport uses CID 1: whatever CID is at the other end (1, 2 or a
        # guest's own), that end is local too. It answers from CID 1, but the RST of no
        # socket comes from the CID that was called.
        if low == _LOCAL or high == _LOCAL:
            strange = strange or low > _HOST
            low = high = _LOCAL
        place = self._tap(p)
        place = place << 33 | cython.cast(cython.ulonglong, p.ifindex) << 1
        if kind == _DGRAM:
            place |= 1
        is_high = low > high or (low == high and source > target)
        if is_high:
            low, high, source, target = high, low, target, source
        ports = target << 32 | source
        at = self._find(low, high, ports, place)
        slot = self.table[at] - 1
        if slot >= 0 and op == _REQUEST and self._is_belated(p, self._connection(slot), is_high):
            self._begun_before(self._connection(slot))
        elif slot < 0 or op == _REQUEST or (op == _RESPONSE and self._is_over(slot)):
            if self.used >= self.capacity:
                return False
            self.replaced = 0
            if slot >= 0:
                self._replace(slot, p.number)
            slot = self.used
            self.used += 1
            self.table[at] = slot + 1
            self.c[slot].key_low = low
            self.c[slot].key_high = high
            self.c[slot].key_ports = ports
            self.c[slot].key_place = place
            self.c[slot].previous = self.replaced
            self.c[slot].previous_state = self.replaced_state if self.replaced else 0
            self._begin(slot, p, op, kind, is_high)
        c: cython.pointer(Connection) = self._connection(slot)
        side = is_high ^ c.flip
        if p.time_ns < c.last_ns and p.time_ns != _NO_TIME:
            c.doubt |= _D_ORDER
            self._note(c, _F_OUT_OF_ORDER, side, _elapsed(c.last_ns, p.time_ns), 0)
        f: cython.pointer(Flow) = self._flow(2 * slot + side)
        g: cython.pointer(Flow) = self._flow(2 * slot + 1 - side)
        self._compare_headers(p, c, side, op, kind)
        # Flags have SHUTDOWNs and SEQPACKETs only, small ones at that.
        if (
            strange
            or p.virtio_flags | p.mon_reserved | (p.mon_len ^ _HEADER_SIZE)
            or p.virtio_len > _LARGEST
        ):
            self._judge_fields(p, c, side, op, kind)
        if kind != c.type:
            self._note(c, _F_TYPE_CHANGED, side, c.type, kind)
        self._payload(p, o, c, f, g, side, op)
        self.prompted = False
        if kind != _DGRAM:
            moved = self._take_credit(p, c, f, g, side, op)
            if g.extra:
                self._rare_news(p, slot, c, f, g, side, op)
            if op == _RW:
                self._judge_sent(p, slot, c, f, g, side)
            if g.asked:
                self._answer(c, g, side, op)
        self._lifecycle(p, slot, c, side, op)
        self._count(p, c, f, g, side, op)
        if kind != _DGRAM:
            free = self._free(f, g)
            granted = self._free(g, f)
            if not self.terminal[c.state]:
                if free >= 0 and (moved or op == _RW):
                    self._note_window(p, slot, c, f, g, free, f.tx - g.fwd, side)
                if granted >= 0 and moved:
                    self._note_window(p, slot, c, g, f, granted, g.tx - f.fwd, 1 - side)
                elif granted < 0 and g.stalled_since != _NO_TIME:  # fwd_cnt ran ahead
                    self._end_stall(slot, 1 - side, self.now, p.number, _C_READER)
            if free == 0 and op == _RW:
                self.marks |= _M_ZERO_CREDIT
        self._write(o, c, f, g, side, free, granted)
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _is_belated(
        self, p: cython.pointer(Packet), c: cython.pointer(Connection), is_high: cython.bint
    ) -> cython.bint:
        """Whether a REQUEST is the one that this connection's first RESPONSE has answered.

        It stands behind it in the file, but its time is before, by little.
        """
        if not c.midstream or not c.side_known or c.state != _OPEN or (is_high ^ c.flip) != 0:
            return False
        return p.time_ns != _NO_TIME and p.time_ns < c.first_ns < p.time_ns + _SOON

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _begun_before(self, c: cython.pointer(Connection)) -> cython.void:
        """The connection has its beginning in the capture after all."""
        one: cython.ulonglong = 1
        c.midstream = 0
        c.marks &= ~_M_MIDSTREAM
        c.found_low &= ~(one << _F_MIDSTREAM)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _is_over(self, slot: cython.Py_ssize_t) -> cython.bint:
        """Whether a RESPONSE cannot belong to the connection: behind an RST that refuses it can."""
        state: cython.int = self.c[slot].state
        return self.terminal[state] and state != _REFUSED

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _replace(self, slot: cython.Py_ssize_t, packet: cython.ulonglong) -> cython.void:
        """A new connection takes the tuple of this one.

        What that says of the new one is returned in `replaced` and what follows it; what is
        noticed about the old one here is no mark of the packet.
        """
        c: cython.pointer(Connection) = self._connection(slot)
        state: cython.int = c.state
        waited: cython.longlong = _elapsed(self.now, c.first_ns)
        marks: cython.ulonglong = self.marks
        self.replaced = c.number
        self.replaced_state = state
        self.replaced_low = self.f[2 * slot + c.flip].fwd
        self.replaced_high = self.f[2 * slot + 1 - c.flip].fwd
        if self.terminal[state]:
            return
        if state == _CONNECTING and waited > _CONNECT_TIMEOUT:
            c.state = _TIMED_OUT
            c.ended_ns = c.first_ns + _CONNECT_TIMEOUT
            self._note(c, _F_UNANSWERED, 0, waited, 0)
            self._dropped_request(c)
        else:
            c.state = _REPLACED
            c.ended_ns = self.now
            self._end_stall(slot, 0, self.now, packet, _C_READER)
            self._end_stall(slot, 1, self.now, packet, _C_READER)
        self.marks = marks

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _was_open(self, c: cython.pointer(Connection)) -> cython.bint:
        """Whether the connection before on the same addresses had not ended."""
        state: cython.int = c.previous_state
        return not (
            state == 0 or state == _CONNECTING or state == _DATAGRAM or self.terminal[state]
        )

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _dropped_request(self, c: cython.pointer(Connection)) -> cython.void:
        """A REQUEST that nobody answered: Linux drops it where its addresses are still open."""
        if self._was_open(c) and c.previous_state != _CLOSING:
            self._note(c, _F_STILL_OPEN, 0, c.previous, 0)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _begin(
        self,
        slot: cython.Py_ssize_t,
        p: cython.pointer(Packet),
        op: cython.int,
        kind: cython.int,
        is_high: cython.bint,
    ) -> cython.void:
        """Fill a fresh slot from a connection's first packet."""
        reverse: cython.bint = op == _RESPONSE
        source_cid: cython.ulonglong = p.virtio_src_cid
        target_cid: cython.ulonglong = p.virtio_dst_cid
        source: cython.uint = p.virtio_src_port
        target: cython.uint = p.virtio_dst_port
        known: cython.bint = op == _REQUEST or op == _RESPONSE
        self.connections += 1
        self.c[slot].number = self.connections
        if reverse:
            self.c[slot].initiator_cid = target_cid
            self.c[slot].initiator_port = target
            self.c[slot].acceptor_cid = source_cid
            self.c[slot].acceptor_port = source
        else:
            self.c[slot].initiator_cid = source_cid
            self.c[slot].initiator_port = source
            self.c[slot].acceptor_cid = target_cid
            self.c[slot].acceptor_port = target
        self.c[slot].flip = is_high ^ reverse
        self.c[slot].side_known = known
        self.c[slot].first_packet = p.number
        self.c[slot].first_ns = self.now
        self.c[slot].last_ns = _NO_TIME
        self.c[slot].last_packet = 0
        self.c[slot].ended_ns = _NO_TIME
        self.c[slot].answered_ns = _NO_TIME
        self.c[slot].marks = 0
        self.c[slot].found_low = self.c[slot].found_high = 0
        self.c[slot].doubt = 0
        self.c[slot].tap = self._tap(p)
        self.c[slot].type = kind
        self.c[slot].closer = _NOBODY
        self.c[slot].asker = _NOBODY
        self.c[slot].ended = 0
        self.c[slot].midstream = 0
        if op == _REQUEST:
            self.c[slot].state = _CONNECTING
        elif kind == _DGRAM:
            self.c[slot].state = _DATAGRAM
        else:
            self.c[slot].state = _OPEN
            self.c[slot].midstream = 1
            self.marks |= _M_MIDSTREAM
            if op == _RESPONSE and _elapsed(self.now, self.earliest) > _LATEST_ANSWER:
                self.marks |= _M_UNASKED_RESPONSE
        if self._was_open(self._connection(slot)):
            if self.replaced_state == _CLOSING:
                self._note(self._connection(slot), _F_REUSED, 0, self.replaced, 0)
            else:
                self.marks |= _M_OPEN_BEFORE
        self._begin_flows(slot, p, is_high ^ reverse)
        # At REQUEST and RESPONSE both ends have sent nothing; later that is not known.
        # Datagrams are not counted, and what a port sends to itself has no sides.
        known = known and kind != _DGRAM and not self._to_itself(slot)
        self.f[2 * slot].tx_known = known
        self.f[2 * slot + 1].tx_known = known

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _begin_flows(
        self, slot: cython.Py_ssize_t, p: cython.pointer(Packet), flip: cython.bint
    ) -> cython.void:
        """What is known of the ends from before: by their context ids, by these addresses."""
        side: cython.int
        place: cython.ulonglong = self.c[slot].key_place & ~cython.cast(cython.ulonglong, 1)
        cid: cython.ulonglong
        for side in range(2):
            cid = self.c[slot].acceptor_cid if side else self.c[slot].initiator_cid
            if self.c[slot].key_low == _LOCAL and self.c[slot].key_high == _LOCAL:
                cid = _LOCAL  # by whatever name: one kernel
            self.f[2 * slot + side].peer = self._peer_of(cid, place)
            self.f[2 * slot + side].rule = self.n[self.f[2 * slot + side].peer].rule
        if self.replaced:  # what it would say if it took the new one for the old one
            self.f[2 * slot + flip].fwd = self.replaced_low & _MASK32
            self.f[2 * slot + 1 - flip].fwd = self.replaced_high & _MASK32

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _compare_headers(
        self,
        p: cython.pointer(Packet),
        c: cython.pointer(Connection),
        side: cython.int,
        op: cython.int,
        kind: cython.int,
    ) -> cython.void:
        """What the two headers say against each other and against the specification."""
        expected: cython.int = 0
        if (
            p.mon_src_cid != p.virtio_src_cid
            or p.mon_dst_cid != p.virtio_dst_cid
            or p.mon_src_port != p.virtio_src_port
            or p.mon_dst_port != p.virtio_dst_port
        ):
            self.marks |= _M_ADDRESSES
        if op == 0 or op > _LAST_OP:
            self._note(c, _F_UNKNOWN_OP, side, op, 0)
        else:
            expected = self.outer_op[op]
        if p.mon_op != expected:
            self._note(c, _F_OP_MISMATCH, side, p.mon_op, op)
        if kind < _STREAM or kind > _DGRAM:
            self._note(c, _F_UNKNOWN_TYPE, side, kind, 0)
        if p.malformed != 0:
            self._note(c, _F_MALFORMED, side, p.malformed, 0)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _judge_fields(
        self,
        p: cython.pointer(Packet),
        c: cython.pointer(Connection),
        side: cython.int,
        op: cython.int,
        kind: cython.int,
    ) -> cython.void:
        """Rare details of the headers: flags, reserved fields, addresses nobody can have."""
        src: cython.ulonglong = p.virtio_src_cid
        dst: cython.ulonglong = p.virtio_dst_cid
        flags: cython.uint = p.virtio_flags
        if p.mon_reserved != 0:
            self._note(c, _F_RESERVED, side, p.mon_reserved, 0)
        if p.mon_len > _HEADER_SIZE and p.malformed == 0:
            self._note(c, _F_LONG_HEADER, side, p.mon_len, 0)
        if p.virtio_len > _LARGEST:
            self._note(c, _F_TOO_LONG, side, p.virtio_len, 0)
        if src == _MASK64 or dst == _MASK64 or src == _ANY or dst == _ANY:
            self.marks |= _M_RESERVED_CID
        elif (src == 0 and dst <= _HOST) or (dst == 0 and src <= _HOST):
            self.marks |= _M_RESERVED_CID  # 0 is the hypervisor's, as its guests call it
        elif src > _MASK32 or dst > _MASK32:
            self.marks |= _M_WIDE_CID
        if flags == 0 or op == _SHUTDOWN:  # SHUTDOWN is judged with what it does
            return
        if op == _RW:
            if flags & ~(_EOM | _EOR) or kind == _STREAM or flags & (_EOM | _EOR) == _EOR:
                self._note(c, _F_MESSAGE_FLAGS, side, flags, kind)
        else:
            self._note(c, _F_FLAGS, side, flags, op)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _payload(
        self,
        p: cython.pointer(Packet),
        o: cython.pointer(Tracked),
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
        op: cython.int,
    ) -> cython.void:
        """Which bytes of the frame are the stream's, and what sending them does."""
        size: cython.longlong = p.virtio_len
        whole: cython.longlong = p.payload_wire
        have: cython.longlong = p.payload_cap
        skip: cython.longlong = 0
        if op != _RW:
            if size != 0:
                self._note(c, _F_CONTROL_PAYLOAD, side, size, op)
            elif whole != 0:
                self._note(c, _F_FRAME_PAYLOAD, side, whole, op)
            o.data_at = p.payload_at
            o.data_cap = 0
            o.data_len = 0
            return
        if whole > size:
            self.marks |= _M_TAP_REPEAT
            skip = self._repeat_offset(f, whole, size)
        else:
            f.repeat_wire = 0
            if whole < size:
                self._note(c, _F_SHORT_PAYLOAD, side, whole, size)
        have -= skip
        if have < 0:
            have = 0
        if have > size:
            have = size
        if have < size and p.caplen < p.wirelen:
            self.marks |= _M_CUT
        o.data_at = p.payload_at + (skip if have > 0 else 0)
        o.data_cap = have
        o.data_len = size
        f.bytes += size
        f.tx += size
        f.queued += 1
        f.data_ns = self.now
        if p.virtio_type != _STREAM:
            if p.virtio_type == _SEQPACKET:
                self._message(p, c, f, g, side)
        elif size == 0:
            self._note(c, _F_EMPTY_DATA, side, 0, 0)
        if f.shut & _SEND:
            self._note(c, _F_AFTER_SHUTDOWN, side, size, 0)
        elif g.shut & _RCV and not self.terminal[c.state]:
            self._to_the_deaf(c, f, g, side, size)
        c.asker = side

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _to_the_deaf(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
        size: cython.longlong,
    ) -> cython.void:
        """Data to an end that has said it will receive no more."""
        since: cython.longlong = _elapsed(self.now, g.deaf_ns)
        if c.asker == 1 - side and g.data_ns != _NO_TIME and f.bytes == size:
            # The first answer at all, to what that end sent just before it stopped to receive.
            if _elapsed(g.deaf_ns, g.data_ns) <= _AT_ONCE:
                self._note(c, _F_ANSWER_LOST, side, size, since)
                return
        if since > _UNDER_WAY:
            self._note(c, _F_DEAF_PEER, side, size, since)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _message(
        self,
        p: cython.pointer(Packet),
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
    ) -> cython.void:
        """A piece of a SEQPACKET message."""
        f.message += p.virtio_len
        if g.credit_seen and f.message > g.most_buf:
            self._note(c, _F_MESSAGE_SIZE, side, f.message, g.most_buf)
        if not p.virtio_flags & _EOM:
            return
        if f.message:
            f.empty = 0
        else:
            f.empty += 1
            if f.empty >= _EMPTY_RUN:
                self._note(c, _F_EMPTY_MESSAGES, side, f.empty, 0)
        f.message = 0

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _repeat_offset(
        self, f: cython.pointer(Flow), whole: cython.longlong, size: cython.longlong
    ) -> cython.longlong:
        """Where a piece's own bytes begin in a frame that carries more than them."""
        last: cython.longlong = f.repeat_wire
        skip: cython.longlong = 0
        if last != 0:
            if whole == last - f.repeat_len:
                f.repeat_variant = _VARIANT_A
            elif (
                whole == last
                and f.repeat_variant != _VARIANT_A
                and f.repeat_sum + size <= whole
                and size <= f.repeat_len  # a longer piece begins another packet
            ):
                f.repeat_variant = _VARIANT_B
                skip = f.repeat_sum
                if size < f.repeat_len:  # the last one, also if earlier ones were not seen
                    skip = whole - size
        f.repeat_wire = whole
        f.repeat_len = size
        f.repeat_sum = skip + size
        if skip + size == whole:  # variant B: that was the last piece
            f.repeat_wire = 0
        return skip

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _take_credit(
        self,
        p: cython.pointer(Packet),
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
        op: cython.int,
    ) -> cython.bint:
        """Take buf_alloc and fwd_cnt of the sender; returns whether either is news.

        `f` is what the packet's sender sends, `g` what it receives: its fwd_cnt counts the
        bytes of `g`.
        """
        buf: cython.longlong = p.virtio_buf_alloc
        fwd: cython.longlong = p.virtio_fwd_cnt
        step: cython.longlong
        if buf == 0 and op == _RST:
            if fwd == 0:
                self.marks |= _M_NO_SOCKET
            return False
        if f.credit_seen:
            step = _step(fwd, f.fwd)
            if step == 0 and buf == f.buf:
                return False
            if step < 0:
                if op == _RST:  # nothing counts any more, and user-space devices send 0
                    return False
                self._fwd_back(c, f, side, -step)
            f.fwd += step
            if f.fwd + buf > f.limit:
                f.limit = f.fwd + buf
            if buf != f.buf:
                if op != _RST:
                    self._buffer_changed(c, f, g, side, buf)
            elif op == _RW and not f.updates:
                self._consumed_unsaid(c, f, side, step)
        else:
            self._first_credit(c, f, g, side, fwd)
            f.limit = fwd + buf
            if op != _RST:
                self._judge_buffer(c, side, buf, op)
        f.buf = buf
        if buf > f.most_buf:
            f.most_buf = buf
        if g.tx_known and f.fwd > g.tx:
            self._ahead(c, f, g, side)
        if f.peer:
            self.n[f.peer].fwd = _u32(f.fwd)
            self.n[f.peer].conn = c.number
        if not g.tx_known:
            self._bound_below(g, f)
        elif g.tx - f.fwd < g.queued:
            g.queued = g.tx - f.fwd  # every packet has a byte
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _first_credit(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
        fwd: cython.longlong,
    ) -> cython.void:
        """The first fwd_cnt of a side; until then `f.fwd` is that of the connection before."""
        old: cython.longlong = f.fwd
        f.credit_seen = 1
        f.fwd = fwd
        if g.tx_known and fwd > g.tx and fwd == old and c.previous:
            self._note(c, _F_OLD_COUNTERS, side, fwd, c.previous)
            g.tx_known = 0
            g.base_set = 0

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _ahead(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
    ) -> cython.void:
        """More is said to be consumed than was seen to be sent; credit is unknown from here."""
        other: cython.ulonglong = self.n[f.peer].conn
        since: cython.longlong = _step(_u32(f.fwd), self.n[f.peer].fwd)
        # It goes on where the counter of another connection with this context id stood.
        if f.peer and other and other != c.number and self.n[f.peer].fwd and 0 <= since <= g.bytes:
            self._note(c, _F_SHARED_FWD, side, _u32(f.fwd), other)
        else:
            self._note(c, _F_FWD_AHEAD, side, f.fwd - g.tx, 0)
        g.tx_known = 0
        g.base_set = 0

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _fwd_back(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        side: cython.int,
        back: cython.longlong,
    ) -> cython.void:
        """fwd_cnt went back; again and again is the sign of two connections in one."""
        self._note(c, _F_FWD_BACK, side, back, 0)
        f.backs += 1
        if f.backs == _BACKS:
            c.doubt |= _D_SHARED
            self._note(c, _F_INTERLEAVED, side, f.backs, 0)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _judge_buffer(
        self,
        c: cython.pointer(Connection),
        side: cython.int,
        buf: cython.longlong,
        op: cython.int,
    ) -> cython.void:
        """A buf_alloc that was not seen before."""
        if buf == 0:
            self._note(c, _F_NO_CREDIT, side, op, 0)
        elif buf < _LARGEST:
            self._note(c, _F_SMALL_BUFFER, side, buf, 0)
        elif buf >= _HUGE:
            self._note(c, _F_HUGE_BUFFER, side, buf, 0)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _buffer_changed(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
        buf: cython.longlong,
    ) -> cython.void:
        """A side's buf_alloc is not what it was."""
        flight: cython.longlong = g.tx - f.fwd
        self._note(c, _F_BUFFER_CHANGED, side, f.buf, buf)
        if buf < f.buf and g.tx_known and flight > buf:
            self._note(c, _F_SHRUNK, side, flight, buf)
        self._judge_buffer(c, side, buf, 0)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _consumed_unsaid(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        side: cython.int,
        step: cython.longlong,
    ) -> cython.void:
        """Data of a side that has never sent a CREDIT_UPDATE says how much it has consumed.

        Linux would have told the sender when less than 64 KiB of the buffer were left.  What
        leaves three quarters of a small buffer free keeps nobody waiting.
        """
        if step <= 0 or step + _LARGEST <= f.buf or 4 * step <= f.buf:
            return
        if f.quiet < _QUIET_RUN:
            f.quiet += 1
        if f.quiet == _QUIET_RUN:
            self._note(c, _F_NO_UPDATES, side, step, f.buf)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _answer(
        self,
        c: cython.pointer(Connection),
        g: cython.pointer(Flow),
        side: cython.int,
        op: cython.int,
    ) -> cython.void:
        """What `side` says to a CREDIT_REQUEST of its peer: any packet has the counters."""
        waited: cython.longlong = _elapsed(self.now, g.asked_ns)
        g.asked = 0
        self.prompted = waited <= _AT_ONCE
        if waited > _ANSWER_TIMEOUT and op != _RST:
            self._note(c, _F_UNANSWERED_ASK, side, waited, 0)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _judge_sent(
        self,
        p: cython.pointer(Packet),
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
    ) -> cython.void:
        """After data: hold an unknown tx_cnt by the credit, or the sender to it."""
        if not g.credit_seen:
            return
        if not f.tx_known:
            self._bound_above(f, g)
        elif f.tx > g.limit:
            if f.base_set:  # tx_cnt was found by bounds: the peer's buffer was larger before
                f.tx_known = 0
                f.base_set = 0
            else:
                self._over_credit(c, f, g, side)
        if f.buf < g.buf and f.credit_seen:
            self._judge_own(slot, c, f, g, side)
        if p.virtio_len >= _GAP_LEAST and f.tx_known:
            self._may_be_dropped(p, f, g)
        if f.extra:
            self._use_grant(c, f, side)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _over_credit(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
    ) -> cython.void:
        """More was sent than was ever seen to be allowed; an event whenever it has doubled.

        News of the receiver may have been missed.  That there was none is proven where its
        next packet allows less than had been sent by then: see _after_overrun.
        """
        x: cython.pointer(Extra) = self._extra(f)
        over: cython.longlong = f.tx - g.limit
        self.marks |= _M_OVER_CREDIT
        f.stalled_since = _NO_TIME  # it did not wait
        x.over_ns = self.now
        x.over_tx = f.tx
        x.over_pending = 1
        if not x.over_proven:
            c.doubt |= _D_MISSING
        if over >= 2 * x.over:
            self._event(c, _F_OVER_CREDIT, side, over, g.buf)
            self.e[self.events - 1].doubt = 0 if x.over_proven else _D_MISSING
        if over > x.over:
            x.over = over

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _after_overrun(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        x: cython.pointer(Extra),
        side: cython.int,
    ) -> cython.void:
        """The first word of a receiver behind data beyond its credit: what it had allowed."""
        x.over_pending = 0
        if f.limit < x.over_tx and not x.over_proven:
            x.over_proven = 1
            c.doubt &= ~_D_MISSING
            self._event(c, _F_OVER_CREDIT, 1 - side, x.over, f.buf)
            self.marks |= _M_MORE

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _judge_own(
        self,
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
    ) -> cython.void:
        """After data of a sender whose own buffer is the smaller one.

        Newer Linux sends no more than that, others do.  More in flight shows that it has no
        such limit; that it has stops at exactly that and goes on with the receiver's news.
        """
        flight: cython.longlong = f.tx - g.fwd
        room: cython.longlong = f.buf - flight
        x: cython.pointer(Extra)
        if not f.tx_known or f.rule == _L_UNCAPPED:
            return
        if room < 0:
            room = 0
        if room < f.min_own:
            f.min_own = room
        if flight > f.buf:  # which is that of the same header
            self._uncapped(slot, c, f, side, flight)
            return
        if f.rule == _L_CAPPED or not (f.extra or flight == f.buf):
            return
        x = self._extra(f)
        if x.own_until != _NO_TIME:
            if self._has_waited(x):
                self._capped(slot, c, f, g, x, side)
            x.own_since = x.own_until = _NO_TIME
        if flight == f.buf and f.rule == _L_UNKNOWN and x.own_since == _NO_TIME:
            x.own_since = self.now
            x.own_packet = self.packet
            x.own_flight = flight
            x.own_talk = 0

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _has_waited(self, x: cython.pointer(Extra)) -> cython.bint:
        """Whether a sender with its own buffer full goes on as if it had waited for the news.

        It may also have waited for an answer, or have had nothing to send.
        """
        after: cython.longlong = _elapsed(self.now, x.own_until)
        waited: cython.longlong = _elapsed(x.own_until, x.own_since)
        return not x.own_talk and after <= _WAITS and after * _WAITS_PART <= waited

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _uncapped(
        self,
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        side: cython.int,
        flight: cython.longlong,
    ) -> cython.void:
        """The sender is not limited by its own buffer: what was taken for waits was none."""
        x: cython.pointer(Extra)
        bit: cython.ulonglong = 1
        f.rule = _L_UNCAPPED
        self.n[f.peer].rule = _L_UNCAPPED if f.peer else _L_UNKNOWN
        if f.extra:
            x = self._extra(f)
            x.own_since = x.own_until = _NO_TIME
            f.stalls -= x.own_stalls
            f.stalled_ns -= x.own_stalled_ns
            x.own_stalls = 0
            x.own_stalled_ns = x.own_longest_ns = 0
        if self.f[2 * slot + 1 - side].rule != _L_CAPPED:
            c.found_low &= ~(bit << _F_OWN_BUFFER)
        if self._longest(slot, 0) < _LONG_STALL and self._longest(slot, 1) < _LONG_STALL:
            c.found_low &= ~(bit << _F_STALL)
        self._note(c, _F_NO_CAP, side, flight, f.buf)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _longest(self, slot: cython.Py_ssize_t, side: cython.int) -> cython.longlong:
        """The longest stall of a side."""
        f: cython.pointer(Flow) = self._flow(2 * slot + side)
        longest: cython.longlong = f.longest_stall_ns
        if f.extra and self.x[f.extra].own_longest_ns > longest:
            longest = self.x[f.extra].own_longest_ns
        return longest

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _capped(
        self,
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        x: cython.pointer(Extra),
        side: cython.int,
    ) -> cython.void:
        """The sender waited at exactly its own buffer, which limits it: that was a stall."""
        f.rule = _L_CAPPED
        if f.peer and self.n[f.peer].rule == _L_UNKNOWN:
            self.n[f.peer].waits += 2 if _elapsed(x.own_until, x.own_since) >= _LONG_STALL else 1
            if self.n[f.peer].waits >= _WAITS_SEEN:
                self.n[f.peer].rule = _L_CAPPED
        self._note(c, _F_OWN_BUFFER, side, f.buf, g.buf)
        f.stalled_since = x.own_since
        f.stalled_packet = x.own_packet
        f.stalled_flight = x.own_flight
        self._end_stall(slot, side, x.own_until, x.own_end_packet, _C_OWN)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _may_be_dropped(
        self, p: cython.pointer(Packet), f: cython.pointer(Flow), g: cython.pointer(Flow)
    ) -> cython.void:
        """A large packet with nothing else in flight: if it is dropped, that will show."""
        base: cython.longlong = self.x[f.extra].gap_base if f.extra else 0
        x: cython.pointer(Extra)
        if f.tx - p.virtio_len - g.fwd != base:
            return
        x = self._extra(f)
        x.gap_len = p.virtio_len
        x.gap_end = f.tx
        x.gap_packet = p.number
        x.gap_rounds = 0

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _judge_gap(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        x: cython.pointer(Extra),
        side: cython.int,
    ) -> cython.void:
        """News of the receiver: is all consumed that was sent behind a packet, but never that?

        A stream is read in order, so its bytes were not put into it.
        """
        left: cython.longlong = g.tx - f.fwd - x.gap_base
        if not g.tx_known or left < x.gap_len:
            x.gap_len = 0
            return
        if left > x.gap_len or g.tx == x.gap_end:
            return
        x.gap_end = g.tx
        x.gap_rounds += 1
        if x.gap_rounds >= _GAP_ROUNDS:
            self._note(c, _F_HOLE, 1 - side, x.gap_len, x.gap_packet)
            x.gap_base += x.gap_len
            x.gap_len = 0

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _use_grant(
        self, c: cython.pointer(Connection), f: cython.pointer(Flow), side: cython.int
    ) -> cython.void:
        """Data of a sender to which a CREDIT_REQUEST had given credit when it had none."""
        x: cython.pointer(Extra) = self._extra(f)
        if x.grant_ns == _NO_TIME:
            return
        if _elapsed(self.now, x.grant_ns) > _SOON and x.grant_again_ns != _NO_TIME:
            if _elapsed(self.now, x.grant_again_ns) <= _AT_ONCE:
                self._note(c, _F_GRANT_IGNORED, side, _elapsed(self.now, x.grant_ns), 0)
        x.grant_ns = x.grant_again_ns = _NO_TIME

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _rare_news(
        self,
        p: cython.pointer(Packet),
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
        op: cython.int,
    ) -> cython.void:
        """What the receiver of `g` says, where something rare waits for it."""
        x: cython.pointer(Extra) = self._extra(g)
        if op == _RST and p.virtio_buf_alloc == 0:
            return
        if x.over_pending:
            self._after_overrun(c, f, x, side)
        if x.gap_len:
            self._judge_gap(c, f, g, x, side)
        if x.grant_ns != _NO_TIME and op != _CREDIT_REQUEST:
            x.grant_again_ns = self.now
        if x.own_since == _NO_TIME:
            return
        if op == _RW:
            x.own_talk = 1
        if x.own_until == _NO_TIME and g.tx - f.fwd < g.buf:
            x.own_until = self.now
            x.own_end_packet = p.number

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _bound_below(self, f: cython.pointer(Flow), g: cython.pointer(Flow)) -> cython.void:
        """An unknown tx_cnt is at least what the peer says it has consumed."""
        least: cython.longlong
        if not f.base_set:
            f.base_set = _BELOW
            f.base = g.fwd - f.tx
            f.base_low = 0
        else:
            least = g.fwd - f.tx - f.base
            if least > f.base_low:
                f.base_low = least
        self._settle(f)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _bound_above(self, f: cython.pointer(Flow), g: cython.pointer(Flow)) -> cython.void:
        """An unknown tx_cnt is at most what the peer has ever allowed.

        Only after data, which was sent within that: more may be in flight from before the
        capture, if the peer's buffer was larger then.
        """
        most: cython.longlong
        if f.base_set:
            most = g.limit - f.tx - f.base
            if f.base_set == _BELOW or most < f.base_high:
                f.base_high = most
            f.base_set = _BOTH_WAYS
            self._settle(f)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _settle(self, f: cython.pointer(Flow)) -> cython.void:
        """Where the bounds meet, tx_cnt is known from here on.

        Where they contradict each other packets were lost; they begin anew.
        """
        if f.base_set == _BOTH_WAYS:
            if f.base_low == f.base_high:
                f.tx += f.base + f.base_low
                f.tx_known = 1
            elif f.base_low > f.base_high:
                f.base_set = 0

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _lifecycle(
        self,
        p: cython.pointer(Packet),
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        side: cython.int,
        op: cython.int,
    ) -> cython.void:
        """Work out the packet's event and look the next state up."""
        state: cython.int = c.state
        event: cython.int = _EV_NOTHING
        following: cython.int
        if state == _HALF_INITIATOR or state == _HALF_ACCEPTOR:
            if _elapsed(self.now, c.last_ns) > _IDLE:
                ended: cython.int = 0 if state == _HALF_INITIATOR else 1
                self._note(c, _F_HALF_CLOSED_IDLE, ended, _elapsed(self.now, c.last_ns), 0)
        if op == _RW or op > _RW:
            event = _EV_DATA if op <= _LAST_OP else _EV_NOTHING
            if state == _CONNECTING:
                self._note(c, _F_NOT_ESTABLISHED, side, op, 0)
        elif op == _RESPONSE:
            # A connection from a port to itself has one end in the key: take it as answer.
            if side == 1 or self._to_itself(slot):
                event = _EV_RESPONSE
                if state == _CONNECTING:
                    event = self._accepted(c, side)
                elif state == _REFUSED:
                    self._accepted_after_all(c, side)
            if state != _CONNECTING and state != _REFUSED and c.last_packet:
                self._note(c, _F_UNASKED_RESPONSE, side, 0, 0)
        elif op == _SHUTDOWN:
            event = self._shutdown(p, slot, c, side)
            if state == _CONNECTING:
                self._note(c, _F_NOT_ESTABLISHED, side, op, 0)
        elif op == _RST:
            event = self._rst(p, slot, c, side)
        following = self.next_state[state * _EVENTS + event]
        if following != state:
            c.state = following
            if self.terminal[following]:
                c.ended_ns = self.now if self.now > c.first_ns else c.first_ns
                self._end_stall(slot, 0, self.now, p.number, _C_READER)
                self._end_stall(slot, 1, self.now, p.number, _C_READER)
                self._ended(p, slot, c, side, state)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _accepted(self, c: cython.pointer(Connection), side: cython.int) -> cython.int:
        """The RESPONSE to a REQUEST: which event it is."""
        waited: cython.longlong = _elapsed(self.now, c.first_ns)
        c.answered_ns = self.now
        if self._was_open(c) and c.previous_state != _CLOSING:
            self._note(c, _F_REOPENED, 1 - side, c.previous, waited)
        if waited <= _CONNECT_TIMEOUT:
            return _EV_RESPONSE
        self._note(c, _F_LATE_RESPONSE, side, waited, 0)
        return _EV_LATE_RESPONSE

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _accepted_after_all(self, c: cython.pointer(Connection), side: cython.int) -> cython.void:
        """A RESPONSE behind the RST that refused: the RST was not the listener's."""
        self._note(c, _F_TWO_ANSWERS, side, _elapsed(self.now, c.ended_ns), 0)
        c.answered_ns = self.now
        c.ended_ns = _NO_TIME
        c.closer = _NOBODY

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _ended(
        self,
        p: cython.pointer(Packet),
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        side: cython.int,
        before: cython.int,
    ) -> cython.void:
        """What an RST by `side`, which ended a connection, says of its end."""
        f: cython.pointer(Flow) = self._flow(2 * slot + side)
        g: cython.pointer(Flow) = self._flow(2 * slot + 1 - side)
        counts: cython.bint
        over: cython.longlong
        if c.state == _REFUSED:
            self._refused(c, side)
            return
        if c.state == _RESET and self._is_unseen(c, f, side, before):
            self._note(
                c,
                _F_UNSEEN,
                side,
                _elapsed(self.now, c.first_ns),
                _elapsed(c.answered_ns, c.first_ns),
            )
        elif c.state == _RESET:
            self._note(c, _F_RESET, side, 0, 0)
            if before == _CONNECTING and _elapsed(self.now, c.first_ns) > _SOON:
                self._dropped_request(c)
        elif c.state == _TIMED_OUT and before == _CLOSING:
            self._note(c, _F_CLOSE_TIMEOUT, side, _elapsed(self.now, f.closed_ns), 0)
        if before != _CLOSING and self._gave_up(c, f, g, side):
            pass
        elif g.tx_known and not f.shut and g.queued >= _MANY_QUEUED and g.tx - f.fwd < f.buf:
            # The first packet for which there is no room, or a few that were under way.
            over = g.queued * _OVERHEAD - f.buf
            if 0 < over <= _FEW * _OVERHEAD:
                self._note(c, _F_SMALL_PACKETS, 1 - side, g.queued, f.buf)
        self._judge_message(c, f, side)
        self._judge_message(c, g, 1 - side)
        # The reader's last word is its SHUTDOWN(RCV), or its RST if that has its counters.
        counts = p.virtio_buf_alloc != 0 and p.virtio_fwd_cnt == _u32(f.fwd)
        # A close that was given up after the timeout ends reading too.
        given_up: cython.bint = c.state == _TIMED_OUT and before == _CLOSING
        self._judge_loss(c, f, g, side, (g.shut & _RCV) != 0 or given_up)
        self._judge_loss(c, g, f, 1 - side, (f.shut & _RCV) != 0 or counts)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _refused(self, c: cython.pointer(Connection), side: cython.int) -> cython.void:
        """A REQUEST was answered by RST; addresses used before may be the reason."""
        waited: cython.longlong = _elapsed(self.now, c.first_ns)
        c.answered_ns = self.now
        self._note(c, _F_REFUSED, side, waited, 1 if self.marks & _M_NO_SOCKET else 0)
        if self._was_open(c):
            self._note(c, _F_RESTARTED, 1 - side, c.previous, 0)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _is_unseen(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        side: cython.int,
        before: cython.int,
    ) -> cython.bint:
        """Whether the initiator resets as if no RESPONSE had come: at its timeout, with no word."""
        waited: cython.longlong = _elapsed(self.now, c.first_ns)
        if side != 0 or before != _OPEN or f.packets != 1 or c.answered_ns == _NO_TIME:
            return False
        if _elapsed(c.answered_ns, c.first_ns) > _SOON:
            return False
        return _GIVEN_UP_FROM <= waited <= _GIVEN_UP_TO

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _gave_up(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
    ) -> cython.bint:
        """An RST soon after data beyond the credit that its sender has not taken."""
        over_ns: cython.longlong = self.x[g.extra].over_ns if g.extra else _NO_TIME
        if over_ns == _NO_TIME or _elapsed(self.now, over_ns) > _SOON or f.fwd >= g.tx:
            return False
        if not self._had(c, _F_OVERRUN_RESET):
            self._event(c, _F_OVERRUN_RESET, 1 - side, _elapsed(self.now, over_ns), 0)
            self.e[self.events - 1].doubt = c.doubt & _D_MISSING
        self.marks |= self.line[_F_OVERRUN_RESET]
        return True

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _judge_message(
        self, c: cython.pointer(Connection), f: cython.pointer(Flow), side: cython.int
    ) -> cython.void:
        """A SEQPACKET message of which no more will come."""
        if f.message:
            self._note(c, _F_MESSAGE_CUT, side, f.message, 0)
            f.message = 0

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _judge_loss(
        self,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
        final: cython.bint,
    ) -> cython.void:
        """Bytes of `side` that its reader, whose last word is `final`, has not consumed."""
        base: cython.longlong = self.x[f.extra].gap_base if f.extra else 0
        if final and f.tx_known and g.credit_seen and f.tx - base > g.fwd:
            self._note(c, _F_BYTES_LOST, side, f.tx - base - g.fwd, 0)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _to_itself(self, slot: cython.Py_ssize_t) -> cython.bint:
        """Whether both ends have the same address, as a socket connected to itself does."""
        ports: cython.ulonglong = self.c[slot].key_ports
        return self.c[slot].key_low == self.c[slot].key_high and ports >> 32 == ports & _MASK32

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _shutdown(
        self,
        p: cython.pointer(Packet),
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        side: cython.int,
    ) -> cython.int:
        """Which directions have ended by now; SHUTDOWN flags are permanent."""
        mine: cython.Py_ssize_t = 2 * slot + side
        before: cython.int = self.c[slot].ended
        ended: cython.int = 0
        if p.virtio_flags == 0 or p.virtio_flags & ~(_SEND | _RCV):
            self._note(c, _F_SHUTDOWN_FLAGS, side, p.virtio_flags, 0)
        if p.virtio_flags & _RCV and self.f[mine].deaf_ns == _NO_TIME:
            self.f[mine].deaf_ns = self.now
            if not p.virtio_flags & _SEND:
                self._drops_request(slot, c, side)
            self._end_stall(slot, 1 - side, self.now, p.number, _C_READER)
        if p.virtio_flags & _SEND:
            self._judge_message(c, self._flow(mine), side)
            self._end_stall(slot, side, self.now, p.number, _C_READER)
        self.f[mine].shut = self.f[mine].shut | (p.virtio_flags & (_SEND | _RCV))
        if self.f[mine].shut == _SEND | _RCV and self.f[mine].closed_ns == _NO_TIME:
            self.f[mine].closed_ns = self.now
            if self.c[slot].closer == _NOBODY:
                self.c[slot].closer = side
        if (self.f[2 * slot].shut & _SEND) or (self.f[2 * slot + 1].shut & _RCV):
            ended = 1
        if (self.f[2 * slot + 1].shut & _SEND) or (self.f[2 * slot].shut & _RCV):
            ended |= 2
        self.c[slot].ended = ended
        if ended == before:
            return _EV_NOTHING
        if ended == 3:
            return _EV_BOTH_ENDED
        return _EV_INITIATOR_ENDED if ended == 1 else _EV_ACCEPTOR_ENDED

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _drops_request(
        self, slot: cython.Py_ssize_t, c: cython.pointer(Connection), side: cython.int
    ) -> cython.void:
        """An acceptor stops receiving, and that alone, with what was asked last unanswered.

        With the end of its own sending it is an ordinary close: a last request may want none.
        """
        f: cython.pointer(Flow) = self._flow(2 * slot)
        if side == 1 and c.asker == 0 and not f.shut & _SEND:
            self._note(c, _F_REQUEST_DROPPED, side, _elapsed(self.now, f.data_ns), 0)

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _forgot(
        self, c: cython.pointer(Connection), f: cython.pointer(Flow), g: cython.pointer(Flow)
    ) -> cython.bint:
        """Whether an RST of no socket, by the sender of `f`, answers data that nobody waits for.

        In the middle of a capture: where it had not been heard before, or, as devices whose
        every RST has no credit exist, not for a while and at once behind the data.
        """
        if f.shut or g.shut or not g.packets:
            return False
        if not f.packets:
            return c.midstream != 0
        if c.state != _OPEN or g.data_ns == _NO_TIME or g.said_ns < f.said_ns:
            return False
        return _elapsed(self.now, g.data_ns) <= _AT_ONCE and _elapsed(g.data_ns, f.said_ns) > _SOON

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _rst(
        self,
        p: cython.pointer(Packet),
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        side: cython.int,
    ) -> cython.int:
        """What an RST by `side` means to the connection."""
        state: cython.int = c.state
        mine: cython.Py_ssize_t = 2 * slot + side
        peer: cython.Py_ssize_t = 2 * slot + 1 - side
        no_socket: cython.bint = (self.marks & _M_NO_SOCKET) != 0
        if self.terminal[state]:
            self.marks |= _M_LATER_RST
            # Without a socket it answers something, and all there was is the peer's RST.
            if no_socket and self.f[peer].rst_packet:
                if self.f[peer].rst_packet == c.last_packet:
                    self._note(c, _F_RST_FOR_RST, side, 0, 0)
            return _EV_NOTHING
        # What is under way when it is sent may be answered by RST as well.
        if _elapsed(self.now, c.last_ns) > _UNDER_WAY:
            self.f[mine].rst_packet = p.number
        if no_socket and self._forgot(c, self._flow(mine), self._flow(peer)):
            self._note(c, _F_UNKNOWN_CONNECTION, side, self.f[peer].packets, 0)
        if self.c[slot].closer == _NOBODY:
            self.c[slot].closer = side
        if self._to_itself(slot):
            return _EV_ACCEPTOR_RST
        if state == _CLOSING and self.f[mine].shut == _SEND | _RCV:
            if self.f[peer].shut != _SEND | _RCV:
                if _elapsed(self.now, self.f[mine].closed_ns) >= _CLOSE_TIMEOUT:
                    return _EV_GAVE_UP
            if not self.f[peer].shut & _SEND:
                return _EV_ABORTED
        return _EV_INITIATOR_RST if side == 0 else _EV_ACCEPTOR_RST

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _count(
        self,
        p: cython.pointer(Packet),
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
        op: cython.int,
    ) -> cython.void:
        """Totals of the connection and of the flow."""
        c.last_packet = p.number
        if self.now > c.last_ns:
            if c.last_ns == _NO_TIME:  # the first packet that has a time
                c.first_ns = self.now
            c.last_ns = self.now
        f.packets += 1
        f.frame_bytes += p.wirelen
        f.said_ns = self.now
        if op == _RST:
            f.rsts += 1
            if f.rsts >= _RSTS + g.packets:  # what was under way is answered one by one
                self._note(c, _F_RST_STORM, side, f.rsts, 0)
        elif op == _CREDIT_UPDATE:
            if f.first_update_ns == _NO_TIME:
                f.first_update_ns = self.now
            f.updates += 1
            if self.now > f.last_update_ns:
                f.last_update_ns = self.now
            if f.updates >= _STORM and f.updates > 2 * (g.packets - g.updates):
                self._note(c, _F_UPDATE_STORM, side, f.updates, g.packets - g.updates)
        elif op == _CREDIT_REQUEST and not f.asked:
            f.asked = 1
            f.asked_ns = self.now

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _free(self, f: cython.pointer(Flow), g: cython.pointer(Flow)) -> cython.longlong:
        """Free credit of the sender of `f`, or -1 where it is not known."""
        window: cython.longlong = g.buf
        if not f.tx_known or not g.credit_seen or not f.credit_seen:
            return -1
        if f.buf < window and self._is_capped(f):
            window = f.buf
        window -= f.tx - g.fwd
        return window if window > 0 else 0

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _note_window(
        self,
        p: cython.pointer(Packet),
        slot: cython.Py_ssize_t,
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        free: cython.longlong,
        flight: cython.longlong,
        side: cython.int,
    ) -> cython.void:
        """Keep the smallest free credit of `side`, the sender of `f`, and its stalls.

        A sender stalls from the packet that uses its last free byte up to the one that
        gives it some, unless one of them has said that there will be no more data.
        """
        room: cython.longlong = g.buf - flight  # by the receiver's buffer alone
        f.free_seen = 1
        if room < f.min_free:
            f.min_free = room if room > 0 else 0
        if flight > f.max_in_flight:
            f.max_in_flight = flight if flight < _MASK32 else _MASK32
        if free == 0:
            if f.stalled_since == _NO_TIME and not (f.shut & _SEND or g.shut & _RCV):
                f.stalled_since = self.now
                f.stalled_packet = p.number
                f.stalled_flight = flight if flight < _MASK32 else _MASK32
        elif f.stalled_since != _NO_TIME:
            self._end_stall(slot, side, self.now, p.number, self._cause(p, f, g, flight))
            if p.virtio_op == _CREDIT_REQUEST:
                self._extra(f).grant_ns = self.now

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _cause(
        self,
        p: cython.pointer(Packet),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        flight: cython.longlong,
    ) -> cython.int:
        """Why the sender of `f` waited until this packet.

        All had been read where the news comes only with data, or because it was asked for:
        when it was read nobody knows, and no CREDIT_UPDATE had said so.
        """
        if f.stalled_flight < g.buf and self._is_capped(f):
            return _C_OWN
        if flight == 0 and f.stalled_flight and (p.virtio_op == _RW or self.prompted):
            return _C_UNTOLD
        return _C_READER

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _end_stall(
        self,
        slot: cython.Py_ssize_t,
        side: cython.int,
        now: cython.longlong,
        packet: cython.ulonglong,
        cause: cython.int,
    ) -> cython.void:
        """Close the stall of a side, if it is in one, and report it."""
        f: cython.pointer(Flow) = self._flow(2 * slot + side)
        g: cython.pointer(Flow) = self._flow(2 * slot + 1 - side)
        since: cython.longlong = f.stalled_since
        length: cython.longlong
        if since == _NO_TIME:
            return
        length = _elapsed(now, since)
        if cause == _C_READER and f.stalled_flight < g.buf and self._is_capped(f):
            cause = _C_OWN
        if length >= _LONG_STALL:
            self._judge_stall(slot, side, now, length, cause)
        f.stalled_since = _NO_TIME
        f.stalls += 1
        if f.stalled_ns < _LONGEST:
            f.stalled_ns += length
        if cause == _C_OWN:
            self._count_own(f, length)
        elif length > f.longest_stall_ns:
            f.longest_stall_ns = length
            f.longest_packet = f.stalled_packet
            f.longest_flight = f.stalled_flight
            f.longest_cause = cause
        if cause == _C_UNTOLD:
            f.untold += 1
        self.s[self.stalls].conn = self.c[slot].number
        self.s[self.stalls].side = side
        self.s[self.stalls].start_ns = since
        self.s[self.stalls].end_ns = since + length
        self.s[self.stalls].first_packet = f.stalled_packet
        self.s[self.stalls].packet = packet
        self.s[self.stalls].in_flight = f.stalled_flight
        self.s[self.stalls].cause = cause
        self.stalls += 1

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _count_own(self, f: cython.pointer(Flow), length: cython.longlong) -> cython.void:
        """Count a wait at the sender's own buffer apart: it may turn out to be none."""
        x: cython.pointer(Extra) = self._extra(f)
        x.own_stalls += 1
        x.own_stalled_ns += length
        if length > x.own_longest_ns:
            x.own_longest_ns = length
            x.own_longest_packet = f.stalled_packet

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _judge_stall(
        self,
        slot: cython.Py_ssize_t,
        side: cython.int,
        now: cython.longlong,
        length: cython.longlong,
        cause: cython.int,
    ) -> cython.void:
        """A long stall that ends; where it is not the first, an event if twice the longest."""
        c: cython.pointer(Connection) = self._connection(slot)
        f: cython.pointer(Flow) = self._flow(2 * slot + side)
        g: cython.pointer(Flow) = self._flow(2 * slot + 1 - side)
        both: cython.longlong
        self.marks |= _M_STALL
        if length >= 2 * self._longest(slot, side) or not self._had(c, _F_STALL):
            self._event(c, _F_STALL, side, length, f.stalled_flight)
            self.e[self.events - 1].cause = cause
        if cause == _C_OWN:
            self._note(c, _F_OWN_BUFFER, side, f.buf, g.buf)
        if g.stalled_since == _NO_TIME or not self.terminal[c.state]:
            return  # somebody has read by then
        both = _elapsed(now, max(f.stalled_since, g.stalled_since))
        # 0 in flight: its buffer is 0, and nobody waits.
        if both >= _DEADLOCK and f.stalled_flight and g.stalled_flight:
            self._note(c, _F_DEADLOCK, side, both, 0)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _write(
        self,
        o: cython.pointer(Tracked),
        c: cython.pointer(Connection),
        f: cython.pointer(Flow),
        g: cython.pointer(Flow),
        side: cython.int,
        free: cython.longlong,
        granted: cython.longlong,
    ) -> cython.void:
        """Fill the row's tracked columns; -1 stands for unknown credit."""
        known: cython.uchar = _K_SIDE if c.side_known else 0
        if not c.midstream:
            known |= _K_BEGINNING
        if f.tx_known:
            known |= _K_TX
            o.tx_cnt = _u32(f.tx)
        else:
            o.tx_cnt = 0
        if free >= 0:
            known |= _K_FREE | _K_IN_FLIGHT
            if f.buf < g.buf and self._is_capped(f):
                known |= _K_CAPPED
            o.free = free
            o.in_flight = _u32(f.tx - g.fwd)
        else:
            o.free = 0
            o.in_flight = 0
        if granted >= 0:
            known |= _K_GRANTED
            if g.buf < f.buf and self._is_capped(g):
                known |= _K_PEER_CAPPED
            o.granted = granted
        else:
            o.granted = 0
        if self.marks:
            fresh: cython.ulonglong = self.marks & ~c.marks & _M_PLAIN
            c.marks |= self.marks & ~_M_TIME_BACK
            if fresh:
                self._plain_events(c, side, fresh)
        o.conn = c.number
        o.marks = self.marks
        o.side = side
        o.state = c.state
        o.known = known

    @cython.cfunc
    @cython.exceptval(check=False)
    @cython.nogil
    def _plain_events(
        self, c: cython.pointer(Connection), side: cython.int, marks: cython.ulonglong
    ) -> cython.void:
        """Events without numbers for marks that had none yet."""
        bit: cython.int
        one: cython.ulonglong = 1
        for bit in range(64):
            if marks & one << bit:
                self._event(c, self.kind_of[bit], side, 0, 0)


class _Bound:
    """An array of rows that a source fills again and again, and what is written beside it."""

    def __init__(self, rows) -> None:
        base = rows.base
        if isinstance(base, np.ndarray) and base.dtype == rows.dtype and base.ndim == 1:
            if base.ctypes.data == rows.ctypes.data and base.flags.c_contiguous:
                rows = base
        self.rows = rows  # kept, so that its memory is not used for anything else
        self.tracked = np.zeros(len(rows), TRACKED_DTYPE)


_NO_EVENTS = np.zeros(0, EVENT_DTYPE)


class Tracker:
    """Tracks batches; `store` holds the connections.

    `cap` is the number of connections kept; see Store.  `until_ns` is the time that `finish`
    or `as_of` judged by, where one was given.
    """

    def __init__(self, cap: int = DEFAULT_CAP) -> None:
        self.store = Store(cap)
        self._core = _Core(os.urandom(32))
        self._core.bind_store(self.store)
        self._core.rebuild(memoryview(np.zeros(0, np.int64)))
        self._learned = 0  # interfaces
        self._copies = Copies()
        self.set_taps([0])
        self._bound: dict[int, _Bound] = {}  # by the address of the first row
        self._current = 0  # the address that the core looks at
        self._stalls = np.zeros(0, STALL_DTYPE)
        self._stall_count = self._event_count = 0
        self._events = []
        self.first_ns = self.last_ns = self._clock_ns = _NO_TIME_PY
        self.until_ns: int | None = None

    def set_taps(self, taps) -> None:
        """The tap number of each interface of the source, a list of ints; [0] at first."""
        self._taps = np.array(taps, "u4")
        self._core.bind_taps(self._taps)

    def learn_interfaces(self, interfaces) -> None:
        """The interfaces of the source, of which those that are known already come first.

        It is called for every batch, and looks at new ones only.
        """
        known, count = self._learned, len(interfaces)
        if count == known:
            return
        if count > len(self._taps):
            self._taps = np.concatenate((self._taps, np.zeros(2 * count, "u4")))
        self._taps[known:count] = [place.tap for place in interfaces[known:]]
        self._learned = count
        self._core.bind_taps(self._taps[:count])

    def track(self, batch: Batch) -> Batch:
        """The batch with its tracked columns, stalls and events.

        They are valid until rows at the same address are tracked again.
        """
        count = len(batch.rows)
        self._stall_count = 0
        self._events.clear()
        if count:
            batch.tracked = self._bind(np.ascontiguousarray(batch.rows))[:count]
            found = self._copies.find(batch, self._taps)
            self._core.bind_copies(None if found is None else found.view("u1").copy())
            self._run(count)
        else:
            batch.tracked = np.zeros(0, TRACKED_DTYPE)
        batch.stalls = self._stalls[: self._stall_count].copy()
        batch.events = np.concatenate(self._events) if self._events else _NO_EVENTS
        return batch

    @property
    def connections(self) -> int:
        """Connections seen so far, the forgotten ones included."""
        return self.store.used + self.store.forgotten

    def uncapped(self) -> list[tuple[int, int]]:
        """(context id, place) of the senders that have shown that their own buffer is no limit."""
        peers = self.store.peers
        chosen = peers[peers["rule"] == int(_Limit.UNCAPPED)]
        return list(zip(chosen["cid"].tolist(), chosen["place"].tolist(), strict=True))

    def learn(self, uncapped) -> None:
        """Know this of senders from the first packet on; before anything is tracked."""
        for cid, place in uncapped:
            row = self._core.peer_of(cid, place)
            if row:
                self.store.peers["rule"][row] = int(_Limit.UNCAPPED)

    def finish(self, now_ns: int | None = None) -> None:
        """Judge what only time can tell: connects that nobody answered.

        `now_ns` is the time to judge by; None is that of the last packet.
        """
        self._judge(now_ns)

    @contextmanager
    def as_of(self, now_ns: int | None):
        """What `finish` makes of it, while the context lasts: tracking goes on after it.

        A connect that has timed out may yet be answered, and is then late.
        """
        late = self._judge(now_ns)
        try:
            yield
        finally:
            self.until_ns = None
            live = self.store.connections[: self.store.used]
            live["state"][late] = State.CONNECTING
            live["ended_ns"][late] = _NO_TIME_PY

    def _judge(self, now_ns: int | None):
        """Let the connects that nobody answered be timed out; their slots as a mask."""
        self.until_ns = now_ns
        self.store.void_own_stalls()
        now = self.as_of_ns
        live = self.store.connections[: self.store.used]
        timed = live["first_ns"] != _NO_TIME_PY
        late = timed & (live["state"] == int(State.CONNECTING))
        late &= live["first_ns"] < now - CONNECT_TIMEOUT_NS
        live["state"][late] = State.TIMED_OUT
        live["ended_ns"][late] = live["first_ns"][late] + CONNECT_TIMEOUT_NS
        return late

    @property
    def as_of_ns(self) -> int:
        """The time of all that goes on: the one to judge by, or that of the last packet.

        Not the largest of all: one packet with a wild clock would make everything overdue.
        """
        if self.until_ns is not None:
            return self.until_ns
        wild = self.last_ns - self._clock_ns > SECOND
        return self._clock_ns if wild else self.last_ns

    def _bind(self, rows):
        """Let the core look at these rows; the tracked columns that it fills."""
        address = rows.ctypes.data
        bound = self._bound.get(address)
        if bound is None or len(bound.rows) < len(rows):
            if len(self._bound) == _MOST_BOUND:
                del self._bound[next(iter(self._bound))]
            bound = self._bound[address] = _Bound(rows)
            if len(self._stalls) < 2 * len(bound.rows) + 2:
                self._stalls = np.zeros(2 * len(bound.rows) + 2, STALL_DTYPE)
            self._current = 0
        if address != self._current:
            self._core.bind_batch(bound.rows, bound.tracked, self._stalls)
            self._current = address
        return bound.tracked

    def _run(self, count: int) -> None:
        """Track all rows, making room in the store as often as needed."""
        row = self._run_from(0, count)
        while row < count:
            if self._event_count > _EVENTS_FULL:
                row = self._run_from(row, count)
                continue
            if self.store.extras_used + _MOST_EXTRAS > len(self.store.extras):
                self.store.more_extras()
                self._core.bind_store(self.store)
                row = self._run_from(row, count)
                continue
            current = self._core.current()
            moved = self.store.make_room()
            if moved is not None:
                current = moved[current]
                current = current[current >= 0]
            self._core.bind_store(self.store)
            self._core.rebuild(memoryview(current))
            row = self._run_from(row, count)

    def _run_from(self, start: int, count: int) -> int:
        """Track rows from `start` on; returns where it stopped."""
        row, used, stalls, events, times = self._core.run(start, count)
        self.first_ns, self.last_ns, self._clock_ns = times
        self.store.used, self.store.extras_used = used
        self._stall_count, self._event_count = stalls, events
        if events:
            self._events.append(self._core.take_events(events))
        return row
