"""libkrun's socket calls and clock, in datagrams of both wires."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talking import Heard, Turn, heard

from vsockdump.apps.message import Kind
from vsockdump.wire import SocketType

INET = struct.pack("<H", 2) + struct.pack(">H", 443) + bytes([1, 1, 1, 1]) + b"\0" * 8
INET6 = (
    struct.pack("<H", 10) + struct.pack(">H", 443) + b"\0" * 4 + b"\0" * 15 + b"\x01" + b"\0" * 4
)
UNIX = struct.pack("<H", 1) + b"/run/x\0"
OK = struct.pack("<i", 0) + b"\0" * 60  # whole buffers are sent
REFUSED = struct.pack("<i", -111)


def spoken(port: int, *turns: Turn, **options: Any) -> Heard:
    return heard(list(turns), port=port, cid=2, kind=SocketType.DGRAM, **options)


@pytest.mark.parametrize(
    ("port", "datagram", "summary"),
    [
        (1024, struct.pack("<IHH", 5000, 2, 1), "proxy_create socket 5000 AF_INET SOCK_STREAM"),
        (1024, struct.pack("<IH", 5000, 2), "proxy_create socket 5000 AF_INET SOCK_DGRAM"),
        (1025, struct.pack("<II", 5000, 16) + INET, "connect socket 5000 1.1.1.1:443"),
        (1025, struct.pack("<II", 5000, 28) + INET6, "connect socket 5000 [::1]:443"),
        (1025, struct.pack("<II", 5000, 9) + UNIX, "connect socket 5000 unix:/run/x"),
        (1025, struct.pack("<I4sH", 5000, b"\x01" * 4, 0xBB01), "connect socket 5000 1.1.1.1:443"),
        (1026, struct.pack("<III", 5000, 620, 1), "getname socket 5000 local_port 620 peer 1"),
        (1027, struct.pack("<II", 5000, 16) + INET, "sendto_addr socket 5000 1.1.1.1:443"),
        (1028, b"abc", "sendto_data 3 bytes"),
        (
            1029,
            struct.pack("<IIII", 5000, 80, 5, 16) + INET,
            "listen socket 5000 vm_port 80 backlog 5 1.1.1.1:443",
        ),
        (
            1029,
            struct.pack("<I4sHIi", 5000, b"\x01" * 4, 0xBB01, 80, 5),
            "listen socket 5000 vm_port 80 backlog 5 1.1.1.1:443",
        ),
        (1030, struct.pack("<II", 5000, 0), "accept socket 5000 flags 0"),
        (1031, struct.pack("<II", 5000, 620), "release socket 5000 local_port 620"),
    ],
)
def test_calls(port: int, datagram: bytes, summary: str) -> None:
    result = spoken(port, (0, datagram))
    assert result.protocol == "tsi"
    assert result.summaries == [f"> {summary}"]


def test_answers_come_in_order() -> None:
    call = struct.pack("<II", 5000, 16) + INET
    result = spoken(1025, (0, call), (0, call), (1, OK), (1, REFUSED))
    assert result.summaries[2:] == ["< connect: ok", "< connect: error"]
    assert [one.request_packet for one in result.said[2:]] == [1, 2]
    assert [one.message.call.error for one in result.said[2:] if one.message.call] == [
        None,
        "ECONNREFUSED",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        struct.pack("<iI", 0, 16) + INET + b"\0" * 100,
        b"\x01" * 4 + struct.pack(">H", 443) + struct.pack("<i", 0),
    ],
    ids=["newer", "older"],
)
def test_names_on_both_wires(answer: bytes) -> None:
    result = spoken(1026, (0, struct.pack("<III", 5000, 620, 1)), (1, answer))
    assert result.summaries[1] == "< getname: ok 1.1.1.1:443"


def test_calls_that_have_no_answer_wait_for_none() -> None:
    assert spoken(1031, (0, struct.pack("<II", 5000, 620))).unanswered == []


def test_short_datagrams() -> None:
    create = struct.pack("<IHH", 5000, 2, 1)
    assert spoken(1024, (0, create), (0, b"\0\0"), (1, b"\0")).summaries[1:] == [
        "> proxy_create: 2 bytes are too few",
        "< proxy_create: 1 bytes are too few",
    ]
    assert spoken(1024, (0, b"\0\0")).protocol == "raw"


@settings(max_examples=100, deadline=None)
@given(port=st.integers(1024, 1031), data=st.binary(min_size=1, max_size=200))
def test_any_bytes(port: int, data: bytes) -> None:
    for turns in ([(0, data), (1, data)], [(1, data), (0, data)]):
        for one in spoken(port, *turns, ports={port: "tsi"}).messages:
            assert one.kind != Kind.NOTE


def test_a_port_that_is_none_of_tsi() -> None:
    result = spoken(9, (0, b"abcd"), ports={9: "tsi"})
    assert [one.kind for one in result.messages] == [Kind.NOTE] * len(result.messages)


def test_an_answer_may_be_seen_first() -> None:
    call = struct.pack("<II", 5000, 16) + INET
    assert spoken(1025, (1, OK), (0, call), (1, REFUSED)).summaries == [
        "> connect: ok",
        "< connect socket 5000 1.1.1.1:443",
        "> connect: error",
    ]


def test_the_hosts_clock() -> None:
    clock = struct.pack("<Q", 1_790_000_000 * 10**9) + b"\0" * 8
    turns: list[Turn] = [(1, clock)]
    result = spoken(123, *turns, ports={123: "timesync"})
    assert result.summaries == ["> 2026-09-21T14:13:20Z"]
