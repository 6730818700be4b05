"""Rules about the capture itself: what it missed, what it cannot tell."""

from typing import Final

from vsockdump.findings.rule import Rule, Severity
from vsockdump.track.kinds import Kind

RULES: Final = (
    Rule(
        "vsock.capture.dropped",
        Severity.WARN,
        Kind.DROPPED,
        "dropped",
        "the kernel dropped packets while they were captured",
        "the kernel dropped {a} of {b:packets}; bytes and credit may be wrong",
        "The ring was full: too small, or this program had too little CPU time.",
        "-B for a larger ring, -s for fewer bytes a packet",
        "packet(7), PACKET_STATISTICS",
    ),
    Rule(
        "vsock.capture.midstream",
        Severity.CHAT,
        Kind.MIDSTREAM,
        "mid-stream",
        "the connection began before the capture; its tx_cnt is unknown",
        "the connection began before the capture: bytes sent and credit are unknown at first",
        "The capture was started later than the connection.",
        "nothing; credit is shown as soon as it can be known",
        "net/vmw_vsock/virtio_transport_common.c",
    ),
    Rule(
        "vsock.capture.cut",
        Severity.CHAT,
        Kind.CUT,
        "cut",
        "snaplen cut the payload",
        "payloads were cut when they were captured",
        "A snaplen (-s) below 65612 bytes.",
        "nothing, unless the contents are wanted",
        "pcap(3), snaplen",
    ),
    Rule(
        "vsock.capture.cut_headers",
        Severity.NOTE,
        Kind.CUT_HEADERS,
        "headers cut",
        "snaplen cut the headers: the packet belongs to no connection",
        "only {a:bytes} were captured of a packet, less than its headers",
        "A snaplen (-s) below 76 bytes.",
        "capture with -s 76 or more: without headers nothing can be told",
        "pcap(3), snaplen",
    ),
    Rule(
        "vsock.capture.interleaved",
        Severity.WARN,
        Kind.INTERLEAVED,
        "two in one",
        "one pair of addresses with two sets of counters",
        "fwd_cnt of {who} went back {a} times: two connections share these addresses",
        "Guests with the same context id, in two network namespaces or one after the other; a"
        " monitor sees them all and cannot tell them apart.",
        "the context ids of the running guests",
        "net/vmw_vsock/af_vsock_tap.c",
    ),
    Rule(
        "vsock.capture.time_back",
        Severity.NOTE,
        Kind.TIME_BACK,
        "time back",
        "a packet's time is more than 1 ms before that of the packet before it",
        "time went back by {a:time}",
        "The clock was set, or captures were joined without sorting.",
        "durations and stalls around it, which cannot be right; Wireshark's reordercap puts"
        " a file in order",
        "pcap(3)",
    ),
    Rule(
        "vsock.capture.out_of_order",
        Severity.NOTE,
        Kind.OUT_OF_ORDER,
        "out of order",
        "packets of the connection are not in order of time",
        "packets of this connection are out of order: one is {a:time} before the one ahead of it;"
        " --reorder or reordercap puts a file in order",
        "Packets of several CPUs, captures that were merged without sorting, or a clock that was"
        " set.",
        "the same capture in order of time, before anything else is believed",
        "pcap(3)",
    ),
    Rule(
        "vsock.capture.copies",
        Severity.NOTE,
        Kind.COPIES,
        "copy",
        "packets that stand in the capture twice, and count once",
        "a packet with the monitor, time and bytes of one before it is a copy, and does not count",
        "Captures that overlap in time were merged.",
        "nothing; to be rid of them, editcap -d",
        "editcap(1)",
    ),
)
