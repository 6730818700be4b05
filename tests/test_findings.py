"""Tests of the findings: for each rule a scenario that fires it and a near miss that does not.

The scenarios (see scenario.py) are read like sequence charts.  Both builds of the tracker
must find the same.
"""

from pathlib import Path
from types import ModuleType
from typing import Final, Literal, NamedTuple, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import Repeat, random_traffic
from tracking import CAPTURES, TRACKER, batches, batches_of, packets_of, uncompiled

from vsockdump.findings.collector import Case, Collector
from vsockdump.findings.registry import (
    BY_KIND,
    RULES,
    WORDS,
    FindingError,
    Names,
    explain,
    lookup,
    names,
    names_to_type,
    rules_of,
    words,
    worst,
    worst_of_marks,
)
from vsockdump.findings.rule import Event, Rule, Severity, sentence
from vsockdump.track.kinds import MOST, Doubt, Kind
from vsockdump.track.marks import KIND_OF, MARK_OF, REMARKS, Mark

BUILDS: Final = (TRACKER, uncompiled("tracker"))

# Both buffers have 100,000 bytes: no small ones, which would be a finding of their own.
OPEN: Final = """
    0.000  3:1 > host:2 REQUEST  buf=100000
    +1ms   3:1 < host:2 RESPONSE buf=100000
"""
CLOSED: Final = OPEN + "+1ms 3:1 > host:2 RST buf=100000\n"
SEQPACKET: Final = """
    0.000  3:1 > host:2 REQUEST  buf=100000 type=SEQPACKET
    +1ms   3:1 < host:2 RESPONSE buf=100000 type=SEQPACKET
"""
FULL: Final = OPEN + "+1ms 3:1 > host:2 RW 50000 buf=100000\n" * 2
AT_OWN: Final = (
    OPEN.replace("REQUEST  buf=100000", "REQUEST  buf=70000")
    + "+1ms 3:1 > host:2 RW 35000 buf=70000\n" * 2
)
ASKED: Final = OPEN + "+1ms 3:1 > host:2 RW 9 buf=100000\n"


def dropped(last: int) -> str:
    """A large packet that is never consumed, and small ones of which the last is or not."""
    text = OPEN + "+1ms 3:1 > host:2 RW 50000 buf=100000\n"
    for number in range(1, 5):
        fwd = 10 * number if number < 4 else last
        text += "+1ms 3:1 > host:2 RW 10 buf=100000\n"
        text += f"+1ms 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd={fwd}\n"
    return text


def cut_answer(others: int) -> str:
    """A request that shuts down both directions, and so many that are answered."""
    text = ""
    for port in range(1, others + 2):
        text += (OPEN + "+1ms 3:1 > host:2 RW 9 buf=100000\n").replace("3:1 ", f"3:{port} ")
        if port <= others:
            text += f"+1ms 3:{port} < host:2 RW 5 buf=100000 fwd=9\n"
    text = text.replace("    0.000", "+1ms", others + 1).replace("+1ms", "0", 1)
    return text + f"+1ms 3:{others + 1} > host:2 SHUTDOWN buf=100000\n"


BOTH_FULL: Final = FULL + "+1ms 3:1 < host:2 RW 50000 buf=100000\n" * 2
SMALL_WRITES: Final = OPEN + "+1ms 3:1 > host:2 RW 1 buf=100000\n" * 173  # 576 bytes each fit
LAST: Final = " buf=100000\n"


def repeated(packet: str, count: int) -> str:
    """A packet so many times, with 1 ms between."""
    return f"+1ms {packet}\n" * count


def read_by_data(count: int, update: str = "") -> str:
    """Rounds in which the reader says only with data that it has consumed 40,000 bytes."""
    rounds = "".join(
        f"+1ms 3:1 > host:2 RW 40000 buf=100000\n{update.format(40000 * number)}"
        f"+1ms 3:1 < host:2 RW 1 buf=100000 fwd={40000 * number}\n"
        for number in range(1, count + 1)
    )
    return OPEN + rounds


class Pair(NamedTuple):
    """What fires a rule, and what just does not."""

    fires: str
    silent: str


PAIRS: Final = {
    "vsock.capture.copies": Pair(
        "0.000000001 3:1 > host:2 REQUEST buf=100000\n+0ms 3:1 > host:2 REQUEST buf=100000",
        "0.000000001 3:1 > host:2 REQUEST buf=100000\n+1ms 3:1 > host:2 REQUEST buf=100000",
    ),
    "vsock.capture.out_of_order": Pair(
        OPEN + "0.0005 3:1 > host:2 RW 5 buf=100000", OPEN + "0.0015 3:1 > host:2 RW 5 buf=100000"
    ),
    "vsock.capture.midstream": Pair("0 3:1 > host:2 RW 1", "0 3:1 > host:2 REQUEST"),
    "vsock.capture.cut": Pair(
        OPEN + "+1ms 3:1 > host:2 RW 50 wire=+50 cap=125 buf=100000",
        OPEN + "+1ms 3:1 > host:2 RW 50 wire=+50 cap=126 buf=100000",
    ),
    "vsock.capture.cut_headers": Pair(
        "0 3:1 > host:2 REQUEST cap=75", "0 3:1 > host:2 REQUEST cap=76"
    ),
    "vsock.capture.interleaved": Pair(
        OPEN + 4 * "+1ms 3:1 > host:2 RW 9 fwd=9\n+1ms 3:1 > host:2 RW 9\n",
        OPEN + 3 * "+1ms 3:1 > host:2 RW 9 fwd=9\n+1ms 3:1 > host:2 RW 9\n",
    ),
    "vsock.capture.time_back": Pair(
        "2.001000001 3:1 > host:2 RW 1\n2.000000000 3:1 > host:2 RW 1",
        "2.001000000 3:1 > host:2 RW 1\n2.000000000 3:1 > host:2 RW 1",
    ),
    "vsock.frame.malformed": Pair("0 3:1 > host:2 RW frame=75", "0 3:1 > host:2 RW frame=76"),
    "vsock.frame.header_length": Pair(
        OPEN + "+1ms 3:1 > host:2 RW 4 mon.len=48 len=0", OPEN + "+1ms 3:1 > host:2 RW 4"
    ),
    "vsock.frame.unknown_transport": Pair("0 3:1 > host:2 RW mon.t=3", "0 3:1 > host:2 RW mon.t=1"),
    "vsock.frame.reserved": Pair(
        "0 3:1 > host:2 REQUEST mon.reserved=1", "0 3:1 > host:2 REQUEST mon.reserved=0"
    ),
    "vsock.frame.addresses": Pair(
        "0 3:1 > host:2 REQUEST mon.src_cid=4", "0 3:1 > host:2 REQUEST mon.src_cid=3"
    ),
    "vsock.frame.op": Pair("0 3:1 > host:2 RW mon.op=3", "0 3:1 > host:2 99 mon.op=0"),
    "vsock.frame.payload": Pair(
        OPEN + "+1ms 3:1 > host:2 CREDIT_UPDATE 7 len=0", OPEN + "+1ms 3:1 > host:2 RW 7 len=0"
    ),
    "vsock.frame.tap_repeat": Pair(
        OPEN + "+1ms 3:1 > host:2 RW 5 wire=+1", OPEN + "+1ms 3:1 > host:2 RW 6"
    ),
    "vsock.frame.short_payload": Pair(
        OPEN + "+1ms 3:1 > host:2 RW 5 len=6", OPEN + "+1ms 3:1 > host:2 RW 5 cap=80"
    ),
    "vsock.frame.too_long": Pair(
        OPEN + "+1ms 3:1 > host:2 RW 65537 buf=100000",
        OPEN + "+1ms 3:1 > host:2 RW 65536 buf=100000",
    ),
    "vsock.frame.empty_data": Pair(
        OPEN + "+1ms 3:1 > host:2 RW 0", SEQPACKET + "+1ms 3:1 > host:2 RW 0 type=SEQPACKET"
    ),
    "vsock.frame.control_payload": Pair(
        OPEN + "+1ms 3:1 > host:2 CREDIT_UPDATE 7", OPEN + "+1ms 3:1 > host:2 CREDIT_UPDATE 7 len=0"
    ),
    "vsock.frame.unknown_op": Pair("0 3:1 > host:2 8", "0 3:1 > host:2 7"),
    "vsock.frame.unknown_type": Pair("0 3:1 > host:2 RW type=4", "0 3:1 > host:2 RW type=3"),
    "vsock.frame.flags": Pair(
        "0 3:1 > host:2 REQUEST flags=1", OPEN + "+1ms 3:1 > host:2 SHUTDOWN flags=1"
    ),
    "vsock.frame.shutdown_flags": Pair(
        OPEN + "+1ms 3:1 > host:2 SHUTDOWN flags=0", OPEN + "+1ms 3:1 > host:2 SHUTDOWN flags=3"
    ),
    "vsock.address.wide": Pair(
        "0 0x100000003:1 > host:2 REQUEST", "0 0xfffffffe:1 > host:2 REQUEST"
    ),
    "vsock.address.reserved": Pair(
        "0 0:1 > host:2 REQUEST", "0 3:1 > host:2 REQUEST\n0 3:1 > 0:10016 REQUEST"
    ),
    "vsock.address.unrouted": Pair(
        "0 5:1 > host:2 REQUEST\n+1ms 5:1 < host:2 RESPONSE\n+1ms 5:2 > 4:2 REQUEST\n"
        "+3s 5:3 > host:2 REQUEST",
        """
        0    local:2 > 3:1 REQUEST
        +1ms local:2 < 3:1 RST nosock
        +1ms 16:1 > 3:5000 REQUEST
        +1ms 16:1 < 3:5000 RESPONSE
        +1ms 3:1 > 0:10016 REQUEST
        """,
    ),
    "vsock.message.flags": Pair(
        SEQPACKET + "+1ms 3:1 > host:2 RW 1 type=SEQPACKET flags=EOR",
        SEQPACKET + "+1ms 3:1 > host:2 RW 1 type=SEQPACKET flags=EOM|EOR",
    ),
    "vsock.message.cut": Pair(
        SEQPACKET + "+1ms 3:1 > host:2 RW 9 type=SEQPACKET\n+1ms 3:1 > host:2 RST type=SEQPACKET",
        SEQPACKET
        + "+1ms 3:1 > host:2 RW 9 type=SEQPACKET flags=EOM\n+1ms 3:1 > host:2 RST type=SEQPACKET",
    ),
    "vsock.message.too_large": Pair(
        SEQPACKET
        + "+1ms 3:1 > host:2 RW 60000 type=SEQPACKET\n+1ms 3:1 > host:2 RW 40001 type=SEQPACKET",
        SEQPACKET
        + "+1ms 3:1 > host:2 RW 60000 type=SEQPACKET\n+1ms 3:1 > host:2 RW 40000 type=SEQPACKET",
    ),
    "vsock.message.empty_run": Pair(
        SEQPACKET + repeated("3:1 > host:2 RW 0 type=SEQPACKET flags=EOM", 16),
        SEQPACKET
        + repeated("3:1 > host:2 RW 0 type=SEQPACKET flags=EOM", 15)
        + repeated("3:1 > host:2 RW 1 type=SEQPACKET flags=EOM", 1)
        + repeated("3:1 > host:2 RW 0 type=SEQPACKET flags=EOM", 15),
    ),
    "vsock.connect.unanswered": Pair(
        "0 3:1 > host:2 REQUEST\n2.000000001 4:1 > host:2 REQUEST",
        "0 3:1 > host:2 REQUEST\n2.000000000 4:1 > host:2 REQUEST",
    ),
    "vsock.connect.late": Pair(
        "0 3:1 > host:2 REQUEST\n2.000000001 3:1 < host:2 RESPONSE",
        "0 3:1 > host:2 REQUEST\n2.000000000 3:1 < host:2 RESPONSE",
    ),
    "vsock.connect.refused": Pair(
        "0 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RST nosock",
        "0 3:1 > host:2 REQUEST\n+1ms 3:1 > host:2 RST nosock",
    ),
    "vsock.connect.still_open": Pair(
        OPEN + "1 3:1 > host:2 REQUEST\n+3s 4:1 > host:2 REQUEST",
        OPEN + "1 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RESPONSE\n+3s 4:1 > host:2 REQUEST",
    ),
    "vsock.connect.reopened": Pair(
        OPEN + "1 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RESPONSE",
        CLOSED + "1 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RESPONSE",
    ),
    "vsock.connect.restarted": Pair(
        OPEN + "1 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RST nosock",
        CLOSED + "1 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RST nosock",
    ),
    "vsock.connect.two_answers": Pair(
        "0 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RST nosock\n+1ms 3:1 < host:2 RESPONSE",
        "0 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RST nosock\n+1ms 3:1 > host:2 REQUEST\n"
        "+1ms 3:1 < host:2 RESPONSE",
    ),
    "vsock.connect.unseen": Pair(
        OPEN + "2 3:1 > host:2 RST buf=100000",
        OPEN + "+1ms 3:1 > host:2 CREDIT_UPDATE buf=100000\n2 3:1 > host:2 RST buf=100000",
    ),
    "vsock.connect.old_counters": Pair(
        OPEN
        + "+1ms 3:1 > host:2 RW 9 buf=100000\n+1ms 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=9\n"
        "1 3:1 > host:2 REQUEST buf=100000\n+1ms 3:1 < host:2 RESPONSE buf=100000 fwd=9",
        OPEN
        + "+1ms 3:1 > host:2 RW 9 buf=100000\n+1ms 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=9\n"
        "1 3:1 > host:2 REQUEST buf=100000\n+1ms 3:1 < host:2 RESPONSE buf=100000",
    ),
    "vsock.connect.reused": Pair(
        OPEN + "1 3:1 > host:2 SHUTDOWN\n2 3:1 > host:2 REQUEST",
        OPEN + "1 3:1 > host:2 SHUTDOWN\n+1ms 3:1 < host:2 RST\n2 3:1 > host:2 REQUEST",
    ),
    "vsock.connect.unasked": Pair(
        OPEN + "1 3:1 < host:2 RESPONSE", "0 3:1 < host:2 RESPONSE\n60 4:1 < host:2 RESPONSE"
    ),
    "vsock.connect.not_established": Pair(
        "0 3:1 > host:2 REQUEST\n+1ms 3:1 > host:2 RW 5", OPEN + "+1ms 3:1 > host:2 RW 5"
    ),
    "vsock.connection.type_changed": Pair(
        OPEN + "+1ms 3:1 > host:2 RW 1 type=SEQPACKET", OPEN + "+1ms 3:1 > host:2 RW 1 type=DGRAM"
    ),
    "vsock.connection.unknown": Pair(
        "0 3:1 > host:2 RW 5\n+1ms 3:1 < host:2 RST nosock",
        "0 3:1 > host:2 SHUTDOWN\n+1ms 3:1 < host:2 RST nosock",
    ),
    "vsock.connection.rst_storm": Pair(
        "0 3:1 > host:2 REQUEST\n" + repeated("3:1 < host:2 RST nosock", 17),
        "0 3:1 > host:2 REQUEST\n" + repeated("3:1 < host:2 RST nosock", 16),
    ),
    "vsock.connection.rst_for_rst": Pair(
        OPEN + "1 3:1 > host:2 RST\n+1ms 3:1 < host:2 RST nosock",
        # One that answers what was under way, the second RST of a close, and one that answers
        # the data behind the first.
        OPEN.replace("3:1", "5:1")
        + "+99ms 5:1 > host:2 RST\n+1ms 5:1 < host:2 RST nosock\n"
        + OPEN.replace("0.000", "0.500")
        + "+1ms 3:1 > host:2 SHUTDOWN\n+1ms 3:1 < host:2 RST\n+9s 3:1 < host:2 RST\n"
        + "11 4:1 > host:2 RST\n+1ms 4:1 > host:2 RW 1\n+1ms 4:1 < host:2 RST nosock",
    ),
    "vsock.close.after_shutdown": Pair(
        OPEN + "1 3:1 > host:2 SHUTDOWN flags=SEND\n2 3:1 > host:2 RW 5",
        OPEN + "1 3:1 > host:2 SHUTDOWN flags=RCV\n2 3:1 > host:2 RW 5",
    ),
    "vsock.close.deaf_peer": Pair(
        OPEN + "1.000 3:1 < host:2 SHUTDOWN flags=RCV\n1.101 3:1 > host:2 RW 5",
        OPEN + "1.000 3:1 < host:2 SHUTDOWN flags=RCV\n1.100 3:1 > host:2 RW 5",
    ),
    "vsock.close.unanswered": Pair(
        OPEN + "1 3:1 > host:2 SHUTDOWN\n9.000000001 4:1 > host:2 REQUEST",
        OPEN + "1 3:1 > host:2 SHUTDOWN\n9.000000000 4:1 > host:2 REQUEST",
    ),
    "vsock.close.reset": Pair(
        OPEN + "1 3:1 > host:2 RST", OPEN + "1 3:1 > host:2 SHUTDOWN\n+1ms 3:1 < host:2 RST"
    ),
    "vsock.close.half_closed_idle": Pair(
        OPEN + "1 3:1 > host:2 SHUTDOWN flags=SEND\n31.000000001 3:1 < host:2 RW 1",
        OPEN + "1 3:1 > host:2 SHUTDOWN flags=SEND\n31.000000000 3:1 < host:2 RW 1",
    ),
    "vsock.close.hole": Pair(dropped(40), dropped(41)),
    "vsock.close.request_dropped": Pair(
        ASKED + "1 3:1 < host:2 SHUTDOWN flags=RCV buf=100000 fwd=9",
        ASKED + "1 3:1 < host:2 SHUTDOWN buf=100000 fwd=9",
    ),
    "vsock.close.answer_lost": Pair(
        ASKED + "+1ms 3:1 > host:2 SHUTDOWN buf=100000\n1 3:1 < host:2 RW 5 buf=100000 fwd=9",
        ASKED + "+1ms 3:1 > host:2 SHUTDOWN flags=SEND buf=100000\n"
        "1 3:1 < host:2 RW 5 buf=100000 fwd=9",
    ),
    "vsock.close.answer_cut": Pair(cut_answer(3), cut_answer(2)),
    "vsock.close.bytes_lost": Pair(
        OPEN + "1 3:1 > host:2 RW 9\n2 3:1 < host:2 SHUTDOWN fwd=8\n+1ms 3:1 > host:2 RST",
        OPEN + "1 3:1 > host:2 RW 9\n2 3:1 < host:2 SHUTDOWN fwd=9\n+1ms 3:1 > host:2 RST",
    ),
    "vsock.credit.overrun": Pair(
        FULL + "+1ms 3:1 > host:2 RW 1 buf=100000",
        # The smaller buffer was under way while the packet was.
        OPEN + "1 3:1 < host:2 CREDIT_UPDATE buf=70000\n2 3:1 > host:2 RW 65536 buf=100000\n"
        "+1ms 3:1 > host:2 RW 34464 buf=100000",
    ),
    "vsock.credit.overrun_reset": Pair(
        FULL + "1 3:1 > host:2 RW 1 buf=100000\n2.000000000 3:1 < host:2 RST buf=100000",
        FULL + "1 3:1 > host:2 RW 1 buf=100000\n2.000000001 3:1 < host:2 RST buf=100000",
    ),
    "vsock.credit.fwd_ahead": Pair(
        OPEN + "1 3:1 > host:2 RW 9\n2 3:1 < host:2 CREDIT_UPDATE fwd=10",
        OPEN + "1 3:1 > host:2 RW 9\n2 3:1 < host:2 CREDIT_UPDATE fwd=9",
    ),
    "vsock.credit.fwd_back": Pair(
        "0 3:1 < host:2 RW 1 fwd=9\n1 3:1 < host:2 RW 1 fwd=8",
        "0 3:1 < host:2 RW 1 fwd=9\n1 3:1 < host:2 RST fwd=8",
    ),
    "vsock.credit.zero": Pair(
        "0 3:1 > host:2 REQUEST nosock", "0 3:1 > host:2 REQUEST\n1 3:1 < host:2 RST nosock"
    ),
    "vsock.credit.shrunk": Pair(
        FULL + "+1ms 3:1 < host:2 CREDIT_UPDATE buf=99999",
        FULL + "+1ms 3:1 < host:2 CREDIT_UPDATE buf=99999 fwd=1",
    ),
    "vsock.credit.huge_buffer": Pair(
        "0 3:1 > host:2 REQUEST buf=0xf0000000", "0 3:1 > host:2 REQUEST buf=0xefffffff"
    ),
    "vsock.credit.stall": Pair(
        FULL + "+100ms 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=50000",
        FULL + "+99ms 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=50000",
    ),
    "vsock.credit.deadlock": Pair(
        BOTH_FULL + "+2s 3:1 < host:2 RST buf=100000",
        # Somebody reads after all.
        BOTH_FULL + "+9s 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=50000",
    ),
    "vsock.credit.request_unanswered": Pair(
        OPEN + "1 3:1 > host:2 CREDIT_REQUEST\n3.000000001 4:1 > host:2 REQUEST",
        OPEN
        + "1 3:1 > host:2 CREDIT_REQUEST\n3 3:1 < host:2 CREDIT_UPDATE\n9 4:1 > host:2 REQUEST",
    ),
    "vsock.credit.no_updates": Pair(
        read_by_data(3), read_by_data(3, "+1ms 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd={}\n")
    ),
    "vsock.credit.update_storm": Pair(
        OPEN
        + repeated("3:1 > host:2 RW 1 buf=100000", 14)
        + repeated("3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=14", 32),
        OPEN
        + repeated("3:1 > host:2 RW 1 buf=100000", 15)
        + repeated("3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=15", 32),
    ),
    "vsock.credit.small_packets": Pair(
        SMALL_WRITES + "+1ms 3:1 > host:2 RW 1 buf=100000\n+1ms 3:1 < host:2 RST buf=100000",
        SMALL_WRITES + "+1ms 3:1 < host:2 RST buf=100000",
    ),
    "vsock.credit.own_buffer": Pair(
        AT_OWN + "1 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=70000\n"
        "+1ms 3:1 > host:2 RW 1 buf=70000",
        AT_OWN + "1 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=70000\n"
        "+101ms 3:1 > host:2 RW 1 buf=70000",
    ),
    "vsock.credit.receiver_limits": Pair(AT_OWN + "1 3:1 > host:2 RW 1 buf=70000", FULL),
    "vsock.credit.shared_fwd": Pair(
        OPEN
        + "+1ms 3:1 > host:2 RW 9 buf=100000\n+1ms 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=9\n"
        "1 3:2 > host:2 REQUEST buf=100000\n+1ms 3:2 < host:2 RESPONSE buf=100000 fwd=9",
        OPEN
        + "+1ms 3:1 > host:2 RW 9 buf=100000\n+1ms 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=9\n"
        "1 3:2 > host:2 REQUEST buf=100000\n+1ms 3:2 < host:2 RESPONSE buf=100000 fwd=8",
    ),
    "vsock.credit.grant_ignored": Pair(
        FULL + "1 3:1 < host:2 CREDIT_REQUEST buf=100000 fwd=100000\n"
        "3 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=100000\n+1ms 3:1 > host:2 RW 1 buf=100000",
        FULL + "1 3:1 < host:2 CREDIT_REQUEST buf=100000 fwd=100000\n"
        "+1ms 3:1 > host:2 RW 1 buf=100000\n3 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=100000\n"
        "+1ms 3:1 > host:2 RW 1 buf=100000",
    ),
    "vsock.credit.small_buffer": Pair(
        "0 3:1 > host:2 REQUEST buf=65535", "0 3:1 > host:2 REQUEST buf=65536"
    ),
    "vsock.credit.buffer_changed": Pair(
        OPEN + "+1ms 3:1 < host:2 CREDIT_UPDATE buf=100001",
        OPEN + "+1ms 3:1 < host:2 RST buf=100001",
    ),
}


def collected(scenario: str, module: ModuleType = TRACKER, rows: int = 8192) -> list[Case]:
    """The cases of a scenario at its end, `rows` packets to a batch."""
    tracker = module.Tracker()
    collector = Collector(tracker)
    for batch in batches_of(packets_of(scenario), rows):
        collector.add(tracker.track(batch))
    tracker.finish()
    return collector.cases()


def found(scenario: str, module: ModuleType = TRACKER) -> set[str]:
    """The names of what a scenario holds."""
    return {case.rule.name for case in collected(scenario, module)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_fires_and_stays_silent(rule: Rule) -> None:
    """Each has a scenario for both; what is lost in the kernel no packet can show."""
    if rule.kind == Kind.DROPPED:
        return test_dropped_packets()
    fires, silent = PAIRS[rule.name]
    for module in BUILDS:
        assert rule.name in found(fires, module)
        assert rule.name not in found(silent, module)


def test_dropped_packets() -> None:
    """What the kernel of a live capture says it lost."""
    collector = Collector(TRACKER.Tracker())
    collector.dropped(0, 9)
    assert [] == collector.cases()
    collector.dropped(3, 9)
    (case,) = collector.cases()
    assert ("vsock.capture.dropped", 3) == (case.rule.name, case.times)
    assert "dropped 3 of 9 packets" in sentence(case.rule, case.event)


@pytest.mark.parametrize("name", PAIRS)
def test_batches_do_not_matter(name: str) -> None:
    """The same is found, of the same packets and with the same numbers, packet by packet."""
    for scenario in PAIRS[name]:
        whole = collected(scenario)
        for module in BUILDS:
            assert whole == collected(scenario, module, 1)


def test_there_are_no_pairs_for_nothing() -> None:
    """The table holds rules that exist."""
    assert {rule.name for rule in RULES} - {"vsock.capture.dropped"} == set(PAIRS)


# --- what is said ----------------------------------------------------------------------

SAID: Final = {
    "vsock.credit.overrun": "guest 3:1 sent 1 byte beyond all credit it was ever given; host:2's"
    " buffer has 100000, unless packets are missing",
    "vsock.close.bytes_lost": "up to 1 byte of guest 3:1 were not read by host:2 when the"
    " connection ended",
    "vsock.connect.unanswered": "host:2 did not answer the REQUEST of guest 3:1 for 2 s, and it"
    " goes on",
    "vsock.connect.late": "host:2 answered after 2 s; connect() gives up after 2 s",
    "vsock.credit.stall": "guest 3:1 could send nothing for 100 ms; 100000 bytes waited for host:2"
    " to read",
    "vsock.connection.unknown": "guest 3:1 sent data to host:2, which knows no such connection and"
    " resets it",
    "vsock.frame.op": "monitor op CONTROL does not belong to virtio op RW",
    "vsock.connection.type_changed": "guest 3:1 sent a packet of type SEQPACKET in a connection of"
    " type STREAM",
    "vsock.credit.shrunk": "host:2 lowered its buffer to 99999 with 100000 bytes in flight",
    "vsock.frame.malformed": "the headers cannot be read: transport header runs past the end of"
    " the frame",
    "vsock.message.too_large": "a message of guest 3:1 has 100001 bytes so far, and host:2 has a"
    " buffer of 100000",
    "vsock.credit.small_packets": "host:2 reset the connection with up to 174 small packets of"
    " guest 3:1 unread",
}


@pytest.mark.parametrize("name", SAID)
def test_a_sentence_has_the_numbers_of_its_case(name: str) -> None:
    """Who, how much, how long."""
    (case,) = [case for case in collected(PAIRS[name].fires) if case.rule.name == name]
    assert SAID[name] == sentence(case.rule, case.event, ("guest 3:1", "host:2"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_sentence_can_be_made(rule: Rule) -> None:
    """Whatever the numbers: a damaged capture has any."""
    for number in (0, 1, -(2**63), 2**63 - 1):
        for side in (0, 1):
            a = 1 + number % 6 if rule.kind == Kind.MALFORMED else number
            event = Event(int(rule.kind), 1, 1, 0, a, number, side, 1)
            assert "{" not in sentence(rule, event)


# --- counting --------------------------------------------------------------------------


def test_repetitions_are_counted_and_the_worst_is_kept() -> None:
    """10 packets beyond the credit are one case, with the first packet and the most bytes."""
    beyond = repeated("3:1 > host:2 RW 1 buf=100000", 10)
    (case,) = [case for case in collected(FULL + beyond) if case.rule.severity == Severity.ERROR]
    assert (5, 10, 1, 10) == (case.event.packet, case.times, case.event.a, case.most)
    assert Severity.WARN == case.severity
    proof = "+1ms 3:1 < host:2 CREDIT_UPDATE buf=100000 fwd=9\n"
    for news, severity in ((proof, Severity.ERROR), (proof.replace("9", "10"), Severity.WARN)):
        (case,) = [c for c in collected(FULL + beyond + news) if c.rule.name.endswith("overrun")]
        assert (severity, 10) == (case.severity, case.most)


def test_a_flood_gives_few_events() -> None:
    """Events are for news: a doubling, not a packet."""
    tracker = TRACKER.Tracker()
    packets = packets_of(FULL + repeated("3:1 > host:2 RW 1 buf=100000", 5000))
    events = [len(tracker.track(batch).events) for batch in batches_of(packets)]
    assert sum(events) < 20


def test_more_events_than_fit_at_once_are_all_there() -> None:
    """A batch in which every packet is the first of a connection that breaks a rule."""
    scenario = "".join(f"+1ms 3:{port} > host:2 8 mon.op=9\n" for port in range(3000))
    for module in BUILDS:
        cases = collected(scenario, module)
        for name in ("vsock.frame.unknown_op", "vsock.frame.op", "vsock.capture.midstream"):
            conns = [case.event.conn for case in cases if case.rule.name == name]
            assert list(range(1, 3001)) == conns


def test_what_ends_with_the_next_connection_is_said_of_the_first() -> None:
    """A REQUEST on addresses whose connect nobody answered."""
    cases = collected("0 3:1 > host:2 REQUEST\n3 3:1 > host:2 REQUEST")
    (case,) = [case for case in cases if case.rule.name == "vsock.connect.unanswered"]
    assert (1, 2, 3 * 10**9) == (case.event.conn, case.event.packet, case.event.a)


def test_both_ends_without_credit_at_the_end_of_a_capture() -> None:
    """Nothing ever came that would end the deadlock."""
    later = BOTH_FULL + "+2s 4:1 > host:2 REQUEST\n"
    assert "vsock.credit.deadlock" in found(later)
    assert "vsock.credit.stall" in found(later)
    assert "vsock.credit.deadlock" not in found(BOTH_FULL + "+1990ms 4:1 > host:2 REQUEST\n")


def test_one_wild_clock_makes_nothing_overdue() -> None:
    """A packet of the year 2033 among those of today: the next one tells what time it is."""
    wild = "+1ms 9:9 > host:9 REQUEST\n+200000000s 9:9 < host:9 RST nosock\n"
    after = "0.01 3:1 > host:2 REQUEST\n"
    names = {case.rule.name for case in collected(FULL + wild + after)}
    assert not {"vsock.credit.stall", "vsock.connect.unanswered"} & names


def test_a_close_that_nobody_answers_is_found_once() -> None:
    """Before the closer gives up it is overdue, afterwards it has its packet."""
    open_end = OPEN + "1 3:1 > host:2 SHUTDOWN\n"
    for rest in ("9.5 4:1 > host:2 REQUEST", "9.5 3:1 > host:2 RST"):
        cases = collected(open_end + rest)
        assert 1 == [case.rule.name for case in cases].count("vsock.close.unanswered")


# --- ends that keep the rules ----------------------------------------------------------

# What programs do to each other, in random traffic of two ends that do what Linux does.
ORDINARY: Final = {
    "vsock.capture.midstream",
    "vsock.frame.tap_repeat",
    "vsock.connect.refused",
    "vsock.close.reset",
    "vsock.close.unanswered",
    "vsock.close.bytes_lost",
    "vsock.close.answer_lost",
    "vsock.close.answer_cut",
    "vsock.close.request_dropped",
    "vsock.message.cut",
    "vsock.credit.shrunk",
    "vsock.credit.stall",
    "vsock.credit.deadlock",
    "vsock.credit.own_buffer",
    "vsock.credit.receiver_limits",
    "vsock.credit.small_buffer",
    "vsock.credit.buffer_changed",
}


@given(
    st.integers(0, 2**32),
    st.sampled_from(get_args(Repeat)),
    st.sampled_from(("host", "guest")),
    st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_ends_that_keep_the_rules_are_not_accused(
    seed: int, repeat: Repeat, vantage: Literal["host", "guest"], joined: bool
) -> None:
    """Wherever the capture is taken, and whenever it begins."""
    traffic = random_traffic(seed, repeat=repeat, vantage=vantage, joined=joined)
    tracker = TRACKER.Tracker()
    collector = Collector(tracker)
    for batch in batches_of(traffic.seen):
        collector.add(tracker.track(batch))
    tracker.finish()
    assert {case.rule.name for case in collector.cases()} <= ORDINARY


# --- the registry ----------------------------------------------------------------------


def test_names_words_and_marks_are_unique() -> None:
    """One rule a kind, and no two that could be taken for each other."""
    assert len(RULES) == len({rule.name for rule in RULES}) == len(BY_KIND)
    assert len(RULES) == len({rule.word for rule in RULES})
    assert len(WORDS) == len(set(WORDS.values()))
    assert set(Kind) == {rule.kind for rule in RULES}


def test_kinds_have_room_and_marks_are_theirs() -> None:
    """A connection has a bit for every kind; a bit of the line is a kind's, a remark or MORE."""
    assert 0 < min(Kind)
    assert max(Kind) < MOST
    assert set(Mark) == {*KIND_OF, *REMARKS, Mark.MORE}
    assert all(MARK_OF[kind] == mark for mark, kind in KIND_OF.items())
    assert all(MARK_OF[kind] == Mark.MORE for kind in set(Kind) - set(KIND_OF.values()))
    assert all(rule.name.startswith("vsock.") and rule.name.count(".") == 2 for rule in RULES)


def test_words_come_in_the_order_of_the_bits() -> None:
    """As in the packet line."""
    assert ["mid-stream", "fwd_cnt back"] == words(Mark.MIDSTREAM | Mark.FWD_BACK)


def test_the_worst_comes_first() -> None:
    """Of what a connection had."""
    kinds = 1 << Kind.MIDSTREAM | 1 << Kind.FWD_BACK | 1 << Kind.BYTES_LOST
    names = [rule.name for rule in rules_of(kinds)]
    assert ["vsock.credit.fwd_back", "vsock.close.bytes_lost", "vsock.capture.midstream"] == names
    assert Severity.ERROR == worst(kinds)
    assert Severity.WARN == worst(kinds, Doubt.MISSING)
    assert worst(0) is None
    assert Severity.ERROR == worst_of_marks(Mark.MIDSTREAM | Mark.FWD_BACK | Mark.NO_SOCKET)
    assert worst_of_marks(Mark.NO_SOCKET) is None


def test_names_for_filters() -> None:
    """Full and short names, words, severities, and both kinds of wrong."""
    named = names()
    overrun = int(Mark.OVER_CREDIT)
    spellings = ("vsock.credit.overrun", "credit.overrun", "over-credit")
    assert [Names(overrun, frozenset())] * 3 == [named[name] for name in spellings]
    assert Names(0, frozenset({Kind.DROPPED})) == named["capture.dropped"]
    assert named["error"].marks & overrun
    assert named["error"].marks | named["warn"].marks == named["wrong"].marks
    assert named["error"].kinds | named["warn"].kinds == named["wrong"].kinds
    assert Kind.DROPPED in named["warn"].kinds
    assert not named["chat"].marks & named["note"].marks
    assert Names(int(Mark.NO_SOCKET), frozenset()) == named["no-socket"]
    typed = [named[name.replace("_", "-")] for name in names_to_type()[:-5]]
    assert sum(name.marks for name in typed) == sum(set(Mark) - {Mark.MORE})
    assert sum(len(name.kinds) for name in typed) == sum(
        mark == Mark.MORE for mark in MARK_OF.values()
    )


def test_a_rule_is_found_by_its_name() -> None:
    """With or without `vsock.`."""
    for name in ("vsock.credit.overrun", "credit.overrun"):
        assert Kind.OVER_CREDIT == lookup(name).kind
    with pytest.raises(FindingError, match=r"no finding x\. vsockdump -z findings,explain lists"):
        lookup("x")
    with pytest.raises(FindingError, match=r"Did you mean vsock\.credit\.overrun\?"):
        lookup("vsock.credit.overun")


def test_explain_says_all_there_is() -> None:
    """What, why, what next, and where it is written."""
    for rule in RULES:
        text = "\n".join(explain(rule.name))
        for part in (rule.name, rule.severity.word, rule.what, rule.look, rule.source):
            assert part in text
    listed = list(explain(""))
    assert [rule.name for rule in RULES] == [line.split()[1] for line in listed]


# --- real captures ---------------------------------------------------------------------

FILES: Final = sorted(CAPTURES.glob("*.pcap*"))

# All that is said of real traffic.  Of the ordinary programs' only what is true: connects
# that were refused, a reader that slept, a snaplen.
TRUE: Final[dict[str, dict[str, int]]] = {
    "k612_any_sll2.pcap": {"vsock.connect.refused": 6},
    "k612_bulk_snap96.pcap": {"vsock.credit.stall": 1, "vsock.capture.cut": 1},
    "k612_bulk_stall.pcap": {"vsock.credit.stall": 1},
    "k612_refused.pcap": {"vsock.connect.refused": 6},
    "k612_shutdowns.pcap": {"vsock.close.bytes_lost": 2},
    "k612_small_buf.pcap": {
        "vsock.credit.stall": 1,
        "vsock.credit.own_buffer": 1,
        "vsock.credit.small_buffer": 1,
        "vsock.credit.buffer_changed": 1,
    },
    "l2_guest_view.pcap": {"vsock.connect.refused": 1},
    "prog_ncat.pcapng": {"vsock.connect.refused": 1},
}
# A guest that was played to do these things: see captures/README.md.
PLAYED: Final = {
    "vsock.connection.type_changed": 1,
    "vsock.connect.unanswered": 4,  # ignored, from a wrong CID, to CID 1, with 64 bits
    "vsock.connection.unknown": 1,
    "vsock.frame.unknown_op": 1,
    "vsock.frame.unknown_type": 1,
    "vsock.address.wide": 1,
    "vsock.frame.control_payload": 1,
    "vsock.close.unanswered": 1,
    "vsock.close.reset": 2,
    "vsock.connect.refused": 3,
    "vsock.address.unrouted": 1,
    "vsock.frame.flags": 1,
    "vsock.credit.small_buffer": 1,
    "vsock.capture.midstream": 1,
}
TRUE["k612_fakeguest.pcap"] = PLAYED
TRUE["k61_fakeguest.pcap"] = PLAYED | {"vsock.frame.tap_repeat": 2}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_traffic_is_accused_of_what_it_did(path: Path) -> None:
    """By number of connections, and nothing else."""
    tracker = TRACKER.Tracker()
    collector = Collector(tracker)
    for batch in batches(path):
        collector.add(tracker.track(batch))
    tracker.finish()
    groups = {group.rule.name: len(group.cases) for group in collector.groups()}
    assert TRUE.get(path.name, {}) == groups


def test_a_capture_that_begins_late_has_not_seen_every_request() -> None:
    """A RESPONSE to a REQUEST from before it is no unasked one, however late it may be."""
    late = "0 4:1 > host:9 REQUEST\n{} 3:1 < host:2 RESPONSE"
    assert "vsock.connect.unasked" not in found(late.format(60))
    assert "vsock.connect.unasked" in found(late.format(61))
