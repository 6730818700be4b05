"""9P, on recorded talks of diod with its own clients, which Wireshark reads the same."""

import json
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated, recorded
from samples import SAMPLES
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap
from talking import Turn, heard

from vsockdump.apps.message import Kind


def message(kind: int, tag: int, body: bytes = b"") -> bytes:
    return struct.pack("<IBH", 7 + len(body), kind, tag) + body


def string(text: bytes) -> bytes:
    return struct.pack("<H", len(text)) + text


QID = b"\x80" + b"\0" * 12
LEGACY: list[Turn] = [
    *SAMPLES["9p"],
    (0, message(104, 1, struct.pack("<II", 1, 0xFFFFFFFF) + string(b"glenda") + string(b""))),
    (1, message(105, 1, QID)),
    (0, message(110, 2, struct.pack("<IIH", 1, 2, 2) + string(b"usr") + string(b"\xff"))),
    (0, message(112, 3, struct.pack("<IB", 1, 0))),
    (1, message(111, 2, struct.pack("<H", 2) + QID * 2)),
    (1, message(107, 3, string(b"permission denied"))),
    (0, message(118, 4, struct.pack("<IQI", 2, 5, 3) + b"abc")),
    (1, message(119, 4, struct.pack("<I", 3))),
]
TALKS = {name: recorded(name) for name in ("diod-1", "diod-2", "diod-3")} | {"legacy": LEGACY}
EACH = pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)


@EACH
def test_segments_make_no_difference(talk: list[Turn]) -> None:
    any_segments(talk, "9p")


@pytest.mark.parametrize("name", ["diod-3", "legacy"])
def test_losses_never_make_wrong_messages(name: str) -> None:
    losses(TALKS[name], "9p")


@EACH
def test_all_is_understood_and_answered(talk: list[Turn]) -> None:
    result = heard(talk)
    assert result.protocol == "9p"
    assert all(one.kind in (Kind.REQUEST, Kind.RESPONSE) for one in result.messages)
    assert not any("cut" in one.fields for one in result.messages)
    assert result.unanswered == []


@settings(max_examples=100, deadline=None)
@given(kind=st.integers(0, 255), data=st.binary(max_size=60))
def test_any_bytes(kind: int, data: bytes) -> None:
    hostile(data or b"\0", "9p")
    hostile(message(kind, 1, data), "9p")


@settings(max_examples=100, deadline=None)
@given(which=st.sampled_from(sorted(TALKS)), at=st.integers(0, 1 << 16), value=st.integers(0, 255))
def test_talks_with_a_wrong_byte(which: str, at: int, value: int) -> None:
    mutated(TALKS[which], at, value, "9p")


@pytest.mark.parametrize("name", ["diod-1", "diod-2", "diod-3"])
def test_wireshark_says_the_same(name: str, tmp_path: Path) -> None:
    """Types, tags and sizes, of each message, in order."""
    ours = [
        (str(one.message.fields["type"]), str(one.message.fields["tag"]), str(one.size))
        for one in heard(recorded(name)).said
    ]
    assert ours == list(zip(*tshark(recorded(name), tmp_path / "9p.pcap"), strict=True))


def tshark(talk: list[Turn], path: Path) -> list[list[str]]:
    """Types, tags and sizes that Wireshark finds in the talk, sent over TCP."""
    sent = [1, 1]
    packets = []
    for side, data in talk:
        ports = {"sport": 564, "dport": 40000} if side else {"sport": 40000, "dport": 564}
        addresses = ("10.0.0.1", "10.0.0.2")
        ip = IP(src=addresses[side], dst=addresses[1 - side])
        packets.append(
            Ether() / ip / TCP(**ports, flags="PA", seq=sent[side], ack=sent[1 - side]) / data
        )
        sent[side] += len(data)
    wrpcap(str(path), packets)
    fields = ("9p.msgtype", "9p.tag", "9p.msglen")
    chosen = [part for field in fields for part in ("-e", field)]
    out = subprocess.run(
        ["tshark", "-r", str(path), "-d", "tcp.port==564,9p", "-T", "json", *chosen],
        capture_output=True,
        check=True,
    )
    layers = [packet["_source"]["layers"] for packet in json.loads(out.stdout)]
    return [[value for layer in layers for value in layer.get(field, ())] for field in fields]


def test_paths_follow_walks() -> None:
    summaries = heard(recorded("diod-2")).summaries
    assert "> Tlopen /hello #0" in summaries
    assert "> Tread /hello count 65512 offset 0 #0" in summaries
    assert "> Tclunk / #0" in summaries


def test_errors_have_names() -> None:
    result = heard(recorded("diod-3"))
    failed = [one.call for one in result.messages if one.call and one.call.error]
    assert [(call.method, call.error) for call in failed] == [
        ("Tauth", "ENOENT"),
        ("Twalk", "ENOENT"),
    ]


def test_the_original_protocol() -> None:
    assert heard(LEGACY).summaries[2:] == [
        "> Tattach fid 1 uname glenda #1",
        "< Rattach #1",
        "> Twalk /usr/\\xff #2",
        "> Topen / #3",
        "< Rwalk #2",
        "< Rerror #3",
        "> Twrite /usr/\\xff count 3 offset 5 #4",
        "< Rwrite count 3 #4",
    ]


def test_a_walk_that_failed_names_nothing() -> None:
    walk = message(110, 2, struct.pack("<IIH", 1, 2, 2) + string(b"a") + string(b"b"))
    opened = message(112, 3, struct.pack("<IB", 2, 0))
    for answer in (message(111, 2, struct.pack("<H", 1) + QID), message(107, 2, string(b"no"))):
        turns: list[Turn] = [*LEGACY[:4], (0, walk), (1, answer), (0, opened)]
        assert heard(turns).summaries[-1] == "> Topen fid 2 #3"


@pytest.mark.parametrize("begin", [10, 11])
def test_joined_inside_a_connection(begin: int) -> None:
    """Whoever is seen first: a client, or its server."""
    result = heard(recorded("diod-1")[begin:], connect=False)
    assert result.protocol == "9p"
    assert f"{'><'[begin % 2]} Twalk fid 1/hello #0" in result.summaries
    assert Kind.NOTE not in [one.kind for one in result.messages]


def test_large_data_are_skipped_and_counted() -> None:
    written = message(118, 4, struct.pack("<IQI", 2, 5, 100_000) + b"x" * 100_000)
    one = heard([*LEGACY[:4], (0, written)]).said[-1]
    assert one.size == len(written)
    assert one.message.fields["size"] == len(written) - 7
    assert len(one.message.fields["data"]) < 4096
