"""Tunnelled Ethernet: gvproxy, vpnkit and QEMU's framing, and the line of each frame."""

import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from talking import Cut, Turn, heard

from vsockdump.apps.ethernet import frame_in
from vsockdump.apps.inner_frames import frame_fields, frame_line
from vsockdump.apps.message import Kind, Message

MACS = {"src": "5a:94:ef:e4:0c:ee", "dst": "5a:94:ef:e4:0c:dd"}
ADDRESSES = {"src": "192.168.127.2", "dst": "192.168.127.1"}
SIX = {"src": "fe80::1", "dst": "ff02::1"}


def frame(packet: Any, **macs: str) -> bytes:
    return bytes(Ether(**(macs or MACS)) / packet)


QUESTION = DNS(id=1, rd=1, qd=DNSQR(qname="example.com", qtype="AAAA"))
ANSWER = DNS(id=1, qr=1, rcode=3, qd=DNSQR(qname="example.com"), an=DNSRR(rrname="example.com"))
SYN = frame(IP(**ADDRESSES) / TCP(sport=40000, dport=443, flags="S"))
LINES = {
    frame(ARP(op=1, psrc="192.168.127.2", pdst="192.168.127.1")): (
        "ARP who-has 192.168.127.1 tell 192.168.127.2"
    ),
    frame(ARP(op=2, psrc="192.168.127.1", hwsrc=MACS["dst"])): (
        "ARP 192.168.127.1 is-at 5a:94:ef:e4:0c:dd"
    ),
    SYN: "192.168.127.2.40000 > 192.168.127.1.443 TCP [S]",
    frame(IP(**ADDRESSES, options=b"\x94\x04\0\0") / TCP(sport=1, dport=2, flags="PA")): (
        "192.168.127.2.1 > 192.168.127.1.2 TCP [P.]"
    ),
    frame(IP(**ADDRESSES) / UDP(sport=5, dport=53) / QUESTION): (
        "192.168.127.2.5 > 192.168.127.1.53 UDP DNS AAAA? example.com"
    ),
    frame(IP(**ADDRESSES) / UDP(sport=53, dport=5) / ANSWER): (
        "192.168.127.2.53 > 192.168.127.1.5 UDP DNS A? example.com answers 1 error 3"
    ),
    frame(IP(**ADDRESSES) / ICMP(type=8)): "192.168.127.2 > 192.168.127.1 ICMP echo request",
    frame(IP(**ADDRESSES, proto=17, frag=100) / b"xyz"): (
        "192.168.127.2 > 192.168.127.1 UDP fragment"
    ),
    frame(IP(**ADDRESSES, proto=132) / b"sctp"): "192.168.127.2 > 192.168.127.1 protocol 132",
    frame(Dot1Q(vlan=7) / IP(**ADDRESSES) / UDP(sport=1, dport=2)): (
        "vlan 7 192.168.127.2.1 > 192.168.127.1.2 UDP"
    ),
    frame(IPv6(**SIX) / ICMPv6ND_NS(tgt="fe80::2")): (
        "fe80::1 > ff02::1 ICMPv6 neighbour solicitation"
    ),
    frame(IPv6(**SIX) / IPv6ExtHdrHopByHop() / ICMPv6MLReport2()): (
        "fe80::1 > ff02::1 ICMPv6 multicast report"
    ),
    frame(IPv6(**SIX) / ICMPv6EchoRequest()): "fe80::1 > ff02::1 ICMPv6 echo request",
    bytes.fromhex("0180c2000000 5a94efe40cee 88cc 00"): (
        "5a:94:ef:e4:0c:ee > 01:80:c2:00:00:00 LLDP"
    ),
    SYN[:20]: "5a:94:ef:e4:0c:ee > 5a:94:ef:e4:0c:dd cut",
    SYN[:9]: "9 bytes of a frame",
}
FRAMES = [one for one in LINES if len(one) >= 40]


@pytest.mark.parametrize(("data", "line"), LINES.items(), ids=LINES.values())
def test_lines(data: bytes, line: str) -> None:
    assert frame_line(data) == line


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=80), which=st.integers(0, len(FRAMES) - 1), cut=st.integers(0, 120))
def test_any_frame_has_a_line(data: bytes, which: int, cut: int) -> None:
    for hostile_frame in (data, FRAMES[which][:cut] + data):
        assert frame_line(hostile_frame)


def test_fields_are_scapys_and_plain() -> None:
    fields = frame_fields(SYN)
    layers: Any = fields["layers"]
    assert fields["frame"] == SYN
    assert list(layers) == ["Ethernet", "IP", "TCP"]
    assert layers["IP"]["src"] == "192.168.127.2"
    assert layers["TCP"]["flags"] == "S"
    assert dict(fields)["missing"] == 0
    with pytest.raises(KeyError):
        fields["else"]


def test_all_layers_are_known_where_nobody_else_uses_scapy() -> None:
    code = (
        "from vsockdump.apps.inner_frames import frame_fields; "
        f"print(*frame_fields(bytes.fromhex('{FRAMES[3].hex()}'))['layers'], sep=', ')"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "Ethernet, IP, TCP\n"


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=60))
def test_fields_of_any_frame(data: bytes) -> None:
    assert frame_fields(FRAMES[2][:34] + data)["layers"]


# --- tunnels -----------------------------------------------------------------------------------


def behind(form: str, *frames: bytes) -> bytes:
    return b"".join(struct.pack(form, len(one)) + one for one in frames)


CONNECT = b"POST /connect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
GVPROXY: list[Turn] = [
    (0, CONNECT),
    (0, behind("<H", *FRAMES[:3])),
    (1, behind("<H", *FRAMES[3:6])),
]
QEMU: list[Turn] = [(0, behind(">I", *FRAMES[:3])), (1, behind(">I", FRAMES[3]))]
HELLO = b"VMN3T" + struct.pack("<I40s", 2, b"0123456789abcdef")
UUID = b"12345678-1234-1234-1234-123456789abc"
VIF = struct.pack("<HH6s", 1500, 1550, bytes.fromhex("5a94efe40cee"))


def vpnkit(answer: bytes, command: int = 1) -> list[Turn]:
    return [
        (0, HELLO),
        (1, HELLO),
        (0, struct.pack("<B36s4s", command, UUID, bytes([2, 65, 168, 192]))),
        (1, answer),
        (0, behind("<H", SYN)),
        (1, behind("<H", FRAMES[0])),
    ]


TYPED = b"\x01" + VIF + b"\0" * 247
TALKS = {
    "gvproxy": GVPROXY,
    "qemu": QEMU,
    "vpnkit": vpnkit(TYPED),
    "vpnkit-older": vpnkit(VIF, command=2),
}
EACH = pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)


@EACH
def test_segments_make_no_difference(talk: list[Turn]) -> None:
    any_segments(talk, "ethernet")


@EACH
def test_losses_never_make_wrong_messages(talk: list[Turn]) -> None:
    losses(talk, "ethernet")


@EACH
def test_recognised_and_all_frames_found(talk: list[Turn]) -> None:
    result = heard(talk)
    assert result.protocol == "ethernet"
    assert SYN in [frame_in(one) for one in result.messages]
    assert Kind.NOTE not in [one.kind for one in result.messages]


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=1, max_size=60), opening=st.sampled_from([b"", CONNECT, HELLO]))
def test_any_bytes(data: bytes, opening: bytes) -> None:
    hostile(opening + data, "ethernet")


@settings(max_examples=100, deadline=None)
@given(which=st.sampled_from(sorted(TALKS)), at=st.integers(0, 1 << 16), value=st.integers(0, 255))
def test_talks_with_a_wrong_byte(which: str, at: int, value: int) -> None:
    mutated(TALKS[which], at, value, "ethernet")


def test_handshakes() -> None:
    assert heard(GVPROXY).summaries[0] == "> POST /connect HTTP/1.1"
    assert heard(vpnkit(TYPED)).summaries[:4] == [
        "> vpnkit hello version 2",
        "< vpnkit hello version 2",
        f"> vpnkit ethernet {UUID.decode()}",
        "< vpnkit interface 5a:94:ef:e4:0c:ee mtu 1500",
    ]
    assert "prefers 192.168.65.2" in heard(vpnkit(VIF, command=2)).summaries[2]


def test_vpnkit_may_refuse() -> None:
    refusal = b"\x02" + bytes([4]) + b"full" + b"\0" * 252
    assert heard(vpnkit(refusal)[:4]).summaries[-1] == "< vpnkit refused: full"


def test_a_tunnel_joined_later_is_told_by_its_frames() -> None:
    result = heard(GVPROXY[1:], connect=False)
    assert result.protocol == "ethernet"
    assert len(result.messages) == 6


def test_a_frame_that_was_cut_says_what_is_missing() -> None:
    one = heard([*GVPROXY, (0, Cut(behind("<H", SYN), 40))]).messages[-1]
    assert frame_in(one) == SYN[:38]
    assert one.fields["missing"] == len(SYN) - 38


def test_who_carries_no_frame() -> None:
    assert frame_in(Message("ethernet", "hello")) is None
    assert frame_in(Message("json", "x", fields={"frame": b"x"})) is None


@pytest.mark.parametrize("size", [0, 13])
def test_hostile_sizes(size: int) -> None:
    result = heard([*GVPROXY, (0, struct.pack("<H", size) + b"x" * 20)])
    assert f"a frame of {size} bytes" in result.messages[-1].summary
