"""Tests of the scenario notation: every word of it, and that a bad line is named."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario import DEFAULT_BUF, PERIOD, Packet, ScenarioError, build_frame, parse, pattern

from vsockdump.address import Endpoint
from vsockdump.wire import HEADERS_SIZE, VIRTIO, VSOCKMON, Header, Op, SocketType

A = Endpoint(3, 1024)
B = Endpoint(2, 5000)


def get(packet: Packet, name: str, header: Header = VIRTIO) -> int:
    """A field of a packet, read by offset and size and not by the builder's struct."""
    field = next(field for field in header.fields if field.name == name)
    at = field.offset + (VSOCKMON.size if header is VIRTIO else 0)
    return int.from_bytes(packet.frame[at : at + field.size], "little")


def one(text: str) -> Packet:
    """The packet of a scenario of one line."""
    (packet,) = parse(text)
    return packet


def payload(packet: Packet) -> bytes:
    """What was captured behind the headers."""
    return packet.frame[HEADERS_SIZE:]


def test_a_frame_is_laid_out_as_the_kernel_does() -> None:
    """The builder agrees with a struct written down from the kernel's headers."""
    expected = struct.pack(
        "<QQIIHHH2x QQIIIHHIII",
        *(3, 2, 1024, 5000, 4, 2, 44),
        *(3, 2, 1024, 5000, 5, 1, 5, 0, 262144, 7),
    )
    assert expected + b"hello" == build_frame(A, B, Op.RW, b"hello", virtio={"fwd_cnt": 7})


def test_fields_can_be_replaced_one_by_one() -> None:
    """An override changes its field and no other byte."""
    plain = build_frame(A, B, Op.RW, b"x")
    changed = build_frame(A, B, Op.RW, b"x", mon={"op": 9}, virtio={"op": 0})
    assert [24, VSOCKMON.size + 30] == [
        at for at, pair in enumerate(zip(plain, changed, strict=True)) if pair[0] != pair[1]
    ]


def test_defaults() -> None:
    """A line with nothing but an op is what Linux sends for it."""
    packet = one("0.000 3:1024 > 2:5000 REQUEST")
    assert Packet(0, build_frame(A, B, Op.REQUEST), HEADERS_SIZE) == packet
    assert DEFAULT_BUF == get(packet, "buf_alloc")
    assert SocketType.STREAM == get(packet, "type")


def test_times_are_exact() -> None:
    """Absolute times count from the base, + from the line before, in any unit."""
    text = """
        1.5        3:1 > 2:1 RW 1
        +0.001     3:1 > 2:1 RW 1
        +1ms       3:1 > 2:1 RW 1
        +0.5us     3:1 > 2:1 RW 1
        +1ns       3:1 > 2:1 RW 1
        0.000000001 3:1 > 2:1 RW 1
        2s         3:1 > 2:1 RW 1
    """
    times = [packet.time_ns - 10**18 for packet in parse(text, base_ns=10**18)]
    first = 1_500_000_000
    moved = [first, first + 1_000_000, first + 2_000_000, first + 2_000_500, first + 2_000_501]
    assert [*moved, 1, 2_000_000_000] == times


def test_ends_have_names_and_an_arrow_points_either_way() -> None:
    """Names stand for CIDs, and < sends from right to left."""
    packets = parse(
        "0 guest:1024 > host:5000 RW 1\n"
        "0 host:5000 < guest:1024 RW 1\n"
        "0 local:1 > hypervisor:2 RW\n"
        "0 0x10000000003:0xffffffff > any:2 RW"
    )
    cids = [(get(packet, "src_cid"), get(packet, "dst_cid")) for packet in packets]
    assert [(3, 2), (3, 2), (1, 0), ((1 << 40) + 3, 0xFFFFFFFF)] == cids
    assert 0xFFFFFFFF == get(packets[3], "src_port", VSOCKMON)


def test_header_words() -> None:
    """Counters, type and flags go into the virtio header."""
    packet = one("0 3:1 > 2:1 RW 4 buf=64 fwd=0xfffffff0 type=SEQPACKET flags=EOM|EOR")
    names = ("buf_alloc", "fwd_cnt", "type", "flags", "len")
    assert [64, 0xFFFFFFF0, 2, 3, 4] == [get(packet, name) for name in names]


def test_flags_of_shutdown() -> None:
    """SHUTDOWN ends both directions unless flags say otherwise."""
    packets = parse("0 3:1 > 2:1 SHUTDOWN\n0 3:1 > 2:1 SHUTDOWN flags=SEND\n")
    assert [3, 2] == [get(packet, "flags") for packet in packets]


def test_numbers_stand_for_unknown_values() -> None:
    """An op, a type and flags without a name are written as numbers."""
    packet = one("0 3:1 > 2:1 99 type=77 flags=0xdeadbeef")
    assert [99, 77, 0xDEADBEEF] == [get(packet, name) for name in ("op", "type", "flags")]
    assert 0 == get(packet, "op", VSOCKMON)


def test_any_field_of_either_header() -> None:
    """mon. and virtio. reach every field; the other header keeps the address."""
    packet = one("0 3:1 > 2:1 RW 8 mon.op=4 mon.src_cid=9 mon.len=0 virtio.dst_port=7 len=500")
    outer = [get(packet, name, VSOCKMON) for name in ("op", "src_cid", "len", "dst_port")]
    assert [4, 9, 0, 1] == outer
    assert [3, 7, 500] == [get(packet, name) for name in ("src_cid", "dst_port", "len")]
    assert HEADERS_SIZE + 8 == packet.wirelen


def test_nosock() -> None:
    """An RST of no socket has no credit in it."""
    packet = one("0 2:5000 > 3:1024 RST nosock")
    assert [0, 0] == [get(packet, "buf_alloc"), get(packet, "fwd_cnt")]


def test_payload() -> None:
    """Text, size, and text filled up to a size."""
    packets = parse(
        '0 3:1 > 2:1 RW "a\\n\\x00 # \\" é" # comment\n0 3:1 > 2:1 RW 20\n'
        '0 3:1 > 2:1 RW 10 "text"\n0 2:1 > 3:1 RW 3'
    )
    first = 'a\n\0 # " é'.encode()
    assert first == payload(packets[0])
    assert pattern(len(first), 20) == payload(packets[1])
    assert b"text" + pattern(len(first) + 24, 6) == payload(packets[2])
    assert pattern(0, 3) == payload(packets[3])


def test_seq_moves_the_stream() -> None:
    """seq= says where in the stream a payload begins; what follows goes on from there."""
    packets = parse("0 3:1 > 2:1 RW 4 seq=1000\n0 3:1 > 2:1 RW 4")
    assert [pattern(1000, 4), pattern(1004, 4)] == [payload(packet) for packet in packets]


def test_tap_repeat() -> None:
    """wire= lengthens the frame by stream bytes around the packet's own, len stays."""
    packets = parse("0 3:1 > 2:1 RW 300 wire=+500\n0 3:1 > 2:1 RW 500 wire=300+0")
    assert [pattern(0, 800)] * 2 == [payload(packet) for packet in packets]
    assert [300, 500] == [get(packet, "len") for packet in packets]
    assert [HEADERS_SIZE + 800] * 2 == [packet.wirelen for packet in packets]


def test_snaplen_and_short_frames() -> None:
    """cap= cuts what is captured, frame= cuts the frame itself."""
    cut, short, both = parse(
        "0 3:1 > 2:1 RW 100 cap=96\n0 3:1 > 2:1 RW 100 frame=20\n0 3:1 > 2:1 RW frame=70 cap=40"
    )
    assert (96, 176) == (len(cut.frame), cut.wirelen)
    assert (20, 20) == (len(short.frame), short.wirelen)
    assert (40, 70) == (len(both.frame), both.wirelen)


def test_blank_lines_and_comments_are_no_packets() -> None:
    """A scenario may hold prose."""
    assert [] == parse("# nothing\n\n   # still nothing\n")


@pytest.mark.parametrize(
    "line",
    [
        "soon 3:1 > 2:1 RW",
        "-1 3:1 > 2:1 RW",
        "1.0000000001 3:1 > 2:1 RW",
        "0 3 > 2:1 RW",
        "0 mars:1 > 2:1 RW",
        "0 3:x > 2:1 RW",
        "0 3:1 -> 2:1 RW",
        "0 3:1 > 2:1",
        "0 3:1 > 2:1 PUSH",
        "0 3:1 > 2:1 RW tail",
        "0 3:1 > 2:1 RW buf=",
        "0 3:1 > 2:1 RW buf=many",
        "0 3:1 > 2:1 RW buf=4294967296",
        "0 3:1 > 2:1 RW fwd=-1",
        "0 3:1 > 2:1 RW type=TCP",
        "0 3:1 > 2:1 RW flags=EOM|FIN",
        "0 3:1 > 2:1 RW mon.colour=3",
        "0 3:1 > 2:1 RW ip.ttl=3",
        "0 3:1 > 2:1 RW wire=500",
        "0 3:4294967296 > 2:1 RW",
        '0 3:1 > 2:1 RW "no end',
        '0 3:1 > 2:1 RW "glued"5',
        '0 3:1 > 2:1 RW "bad \\xescape"',
        '0 3:1 > 2:1 RW "\\u20ac"',
        '0 3:1 > 2:1 RW 2 "too long"',
    ],
)
def test_a_bad_line_is_named(line: str) -> None:
    """What is not in the notation raises with the number and the text of the line."""
    with pytest.raises(ScenarioError) as caught:
        parse("0 3:1 > 2:1 RW 1\n" + line)
    assert str(caught.value).startswith(f"line 2: {line!r}: ")


@given(st.integers(0, 3 * PERIOD), st.integers(0, 3 * PERIOD), st.integers(0, 3 * PERIOD))
def test_the_pattern_is_one_stream(start: int, size: int, more: int) -> None:
    """Two pieces of the pattern that touch are one piece of it, across its period."""
    whole = pattern(start, size + more)
    assert size + more == len(whole)
    assert whole == pattern(start, size) + pattern(start + size, more)
