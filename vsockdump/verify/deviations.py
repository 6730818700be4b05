"""Where vsockdump and the programs it is compared with differ: all of it, with reasons.

Rules for editors: this is the only such list; the README's is made of it.  A deviation says
by facts of the packet, as tshark gives them, where it applies; `--verify` and the tests let
no other difference pass, and a test fails for one that its `example` does not show any more.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from vsockdump import wire

Facts = dict[str, str]

ENCAP_VSOCK: Final = "185"  # Wireshark's own number of the link type

MONITOR_FIELDS: Final = frozenset(name for f in wire.VSOCKMON.fields for name in f.wireshark)
VIRTIO_FIELDS: Final = frozenset(name for f in wire.VIRTIO.fields for name in f.wireshark)

_DAY_S: Final = 86400

BLOCKS_BEFORE: Final = "blocks before"  # a fact of ours: lines before that are no packets'


class Deviation(NamedTuple):
    """One difference: with which program, of which fields or columns, where, and why.

    `example` is a scenario whose last packet shows it; "any": a capture of `any` does;
    "blocks": a pcapng file with blocks that are no packets does.
    """

    program: str
    about: frozenset[str]
    applies: Callable[[Facts], bool]
    example: str
    reason: str


def excuse(program: str, about: str, facts: Facts) -> Deviation | None:
    """The deviation that covers a difference in this field or column, if one does."""
    for deviation in DEVIATIONS:
        if deviation.program == program and about in deviation.about and deviation.applies(facts):
            return deviation
    return None


def _number(facts: Facts, name: str) -> int:
    return int(facts[name] or 0)


def _ends_in_return_and_one(facts: Facts) -> bool:
    """Whether the last byte but one is a carriage return, and the last no line feed."""
    payload = facts["vsock.payload"].replace(":", "")
    return payload[-4:-2] == "0d" and payload[-2:] != "0a"


DEVIATIONS: Final = (
    Deviation(
        "tshark",
        frozenset({"frame.number"}),
        lambda facts: _number(facts, BLOCKS_BEFORE) > 0,
        "blocks",
        "Wireshark shows custom blocks and those of the systemd journal as frames of their own"
        " and counts them. They are no packets: we, tcpdump and capinfos count packets.",
    ),
    Deviation(
        "tshark",
        MONITOR_FIELDS | VIRTIO_FIELDS | {"vsock.payload"},
        lambda facts: facts["frame.encap_type"] != ENCAP_VSOCK,
        "any",
        "Wireshark 4.0 does not look for vsock frames behind LINUX_SLL2 headers of ARPHRD 826.",
    ),
    Deviation(
        "tshark",
        MONITOR_FIELDS,
        lambda facts: _number(facts, "frame.cap_len") < 32 <= _number(facts, "frame.len"),
        "0 3:1 > host:2 RW 5 cap=20",
        "Of a monitor header that snaplen cuts, Wireshark shows the fields before the cut; for"
        " us a header is read whole or not at all.",
    ),
    Deviation(
        "tshark",
        VIRTIO_FIELDS,
        lambda facts: facts["vsock.trans"] == "2" and _number(facts, "vsock.trans_len") < 44,
        "0 3:1 > host:2 RW 5 mon.len=43",
        "Wireshark reads 44 bytes of virtio header even where the monitor header says that"
        " the transport header is shorter; what is behind its end is payload.",
    ),
    Deviation(
        "tshark",
        frozenset({"vsock.payload"}),
        lambda facts: _number(facts, "vsock.trans_len") + 32 > 0xFFFF,
        "0 3:1 > host:2 RW 5 mon.len=65535",
        "Wireshark adds the lengths of both headers in 16 bits; the sum wraps, and it shows"
        " header bytes as payload.",
    ),
    Deviation(
        "tcpdump",
        frozenset({"packet", "dump", "time"}),
        lambda facts: facts["frame.encap_type"] != ENCAP_VSOCK,
        "any",
        "tcpdump does not look for vsock frames behind LINUX_SLL2 headers, and its dump"
        " begins behind the header that it knows: that of LINUX_SLL2.",
    ),
    Deviation(
        "tcpdump",
        frozenset({"packet", "time"}),
        lambda facts: _number(facts, "frame.cap_len") == 0,
        "0 3:1 > host:2 RW 5 frame=0",
        "Of a packet of no bytes tcpdump does not even print the time.",
    ),
    Deviation(
        "tcpdump",
        frozenset({"time"}),
        lambda facts: any(
            abs(float(facts[f"frame.time_{since}"])) >= _DAY_S for since in ("delta", "relative")
        ),
        "0 3:1 > host:2 RW 5\n86400 3:1 > host:2 RW 5",
        "-ttt and -ttttt of tcpdump leave out whole days; we count hours on.",
    ),
    Deviation(
        "tcpdump",
        frozenset({"ascii"}),
        _ends_in_return_and_one,
        '0 3:1 > host:2 RW "x\\rb"',
        "-A of tcpdump leaves out a carriage return that is the last byte but one, whatever"
        " follows; we leave out those before a line end and at the end of the packet.",
    ),
    Deviation(
        "tcpdump",
        frozenset({"packet"}),
        lambda facts: any(
            facts[f"vsock.{end}"] != facts[f"vsock.virtio.{inner}"]
            for end, inner in (
                ("src_cid", "src_cid"),
                ("dst_cid", "dst_cid"),
                ("src_port", "src_prot"),
                ("dst_port", "dst_prot"),
            )
            if facts["vsock.virtio.op"]
        ),
        "0 3:1 > host:2 RW 5 mon.src_cid=4",
        "tcpdump prints the addresses of the monitor header. We print those of the virtio"
        " header, which the kernel acts upon, and mark the disagreement.",
    ),
    Deviation(
        "tcpdump",
        frozenset({"packet"}),
        lambda facts: (
            facts["vsock.virtio.op"] != ""
            and int(facts["vsock.op"])
            != wire.OUTER_OP.get(int(facts["vsock.virtio.op"]), wire.MonitorOp.UNKNOWN)
        ),
        "0 3:1 > host:2 RW 5 mon.op=1",
        "tcpdump prints the op of the monitor header, we that of the virtio header, and mark"
        " the disagreement.",
    ),
)
