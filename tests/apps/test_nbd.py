"""NBD, on recorded talks of nbdkit and qemu-nbd, and on what they do not say."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated, recorded
from talking import Turn, heard

from vsockdump.apps.message import Kind

RECORDED = [f"nbdkit-{number}" for number in (1, 2, 3, 4)] + [
    f"qemu-nbd-{number}" for number in (1, 2, 3)
]


def request(
    command: int, cookie: int, offset: int = 0, length: int = 0, data: bytes = b""
) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, 0, command, cookie, offset, length) + data


def simple(cookie: int, code: int = 0, data: bytes = b"") -> bytes:
    return struct.pack(">IIQ", 0x67446698, code, cookie) + data


def chunk(kind: int, cookie: int, data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(data)) + data


def option(number: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def option_reply(number: int, kind: int, data: bytes = b"") -> bytes:
    return bytes.fromhex("0003e889045565a9") + struct.pack(">III", number, kind, len(data)) + data


GREETING = b"NBDMAGICIHAVEOPT\0\x03"
OLD_GREETING = b"NBDMAGIC" + bytes.fromhex("0000420281861253") + struct.pack(">QI", 4096, 1)
OLD: list[Turn] = [
    (1, OLD_GREETING + b"\0" * 124),
    (0, request(0, 7, 512, 4)),
    (1, simple(7, 0, b"abcd")),
    (0, request(1, 8, 0, 3, b"xyz") + request(3, 9)),
    (1, simple(9) + simple(8, 28)),
    (0, request(2, 10)),
]
NAMED: list[Turn] = [
    (1, GREETING),
    (0, struct.pack(">I", 1) + option(1, b"disk")),
    (1, struct.pack(">QH", 1 << 20, 5) + b"\0" * 124),
    (0, request(0, 1, 0, 8)),
    (1, chunk(1, 1, b"\0" * 8 + b"abcd") + chunk(0x8001, 1, b"\0\0\0\x05\0\x02io")),
    (1, chunk(0, 1, b"", 1)),
]
EXTENDED: list[Turn] = [
    (1, GREETING),
    (0, struct.pack(">I", 3) + option(11)),
    (1, option_reply(11, 1)),
    (0, option(7, struct.pack(">I", 1) + b"d\0\0")),
    (1, option_reply(7, 3, struct.pack(">HQH", 0, 4096, 1)) + option_reply(7, 1)),
    (0, struct.pack(">IHHQQQ", 0x21E41C71, 0, 0, 3, 0, 2)),
    (1, struct.pack(">IHHQQQ", 0x6E8A278C, 1, 1, 3, 0, 2) + b"ab"),
]
TALKS = {name: recorded(name) for name in RECORDED} | {
    "old": OLD,
    "named": NAMED,
    "extended": EXTENDED,
}
EACH = pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)


@EACH
def test_segments_make_no_difference(talk: list[Turn]) -> None:
    any_segments(talk, "nbd")


@pytest.mark.parametrize("name", ["qemu-nbd-1", "old", "named", "extended"])
def test_losses_never_make_wrong_messages(name: str) -> None:
    losses(TALKS[name], "nbd")


@EACH
def test_all_is_understood_and_answered(talk: list[Turn]) -> None:
    result = heard(talk)
    assert result.protocol == "nbd"
    assert [one.summary for one in result.messages if one.kind == Kind.NOTE] == []
    assert result.unanswered == []


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=1, max_size=60), greets=st.booleans())
def test_any_bytes(data: bytes, greets: bool) -> None:
    hostile(GREETING + data if greets else data, "nbd")


@settings(max_examples=100, deadline=None)
@given(which=st.sampled_from(sorted(TALKS)), at=st.integers(0, 1 << 16), value=st.integers(0, 255))
def test_talks_with_a_wrong_byte(which: str, at: int, value: int) -> None:
    mutated(TALKS[which], at, value, "nbd")


def test_an_export_that_qemu_nbd_does_not_have() -> None:
    messages = heard(recorded("qemu-nbd-1")).messages
    errors = [one.call.error for one in messages if one.call and one.call.error]
    assert errors == ["ERR_UNKNOWN export 'unknown' not present"] * 2
    assert "OPT_GO unknown" in [one.summary for one in messages]


def test_what_qemu_io_was_told_to_do() -> None:
    summaries = heard(recorded("qemu-nbd-3")).summaries
    orders = [one for one in summaries if one.startswith("> ") and "OPT" not in one]
    assert orders[1:] == [
        "> WRITE 512 at 0x1000",
        "> READ 512 at 0x1000",
        "> TRIM 4096 at 0x0",
        "> WRITE_ZEROES 4096 at 0x2000",
        *("> FLUSH",) * 2,
        "> DISC",
    ]
    assert "< OPT_GO: INFO export of 1048576 bytes" in summaries


def test_an_error_of_nbdkit() -> None:
    answers = [one.call for one in heard(recorded("nbdkit-4")).messages if one.call]
    assert [call.error for call in answers if call.method == "READ"] == [None, "EIO"]


def test_replies_out_of_order_and_their_errors() -> None:
    result = heard(OLD)
    answers = {one.message.call.method: one for one in result.said if one.message.call}
    assert answers["WRITE"].message.call.error == "ENOSPC"  # type: ignore[union-attr]
    assert answers["FLUSH"].request_packet == answers["WRITE"].request_packet
    assert result.messages[2].fields["data"] == b"abcd"


def test_an_error_in_a_chunk_is_the_replys() -> None:
    messages = heard(NAMED).messages
    errors = [(one.call.error, one.call.ends) for one in messages[-3:] if one.call]
    assert errors == [(None, False), ("EIO io", False), ("EIO io", True)]
    assert messages[3].fields["size"] == 1 << 20


def test_tls_ends_what_can_be_read() -> None:
    turns: list[Turn] = [
        (1, GREETING),
        (0, struct.pack(">I", 3) + option(5)),
        (1, option_reply(5, 1)),
        (0, b"\x16\x03\x01 encrypted"),
        (1, b"\x16\x03\x03"),
    ]
    assert heard(turns).summaries[-1] == "< OPT_STARTTLS: ACK"


def test_joined_inside_a_connection_a_read_that_was_not_seen_loses_track() -> None:
    turns: list[Turn] = [(1, simple(5, 0, b"data of an unknown size")), (0, request(3, 6))]
    result = heard([*turns, (1, simple(6))], connect=False)
    assert result.protocol == "nbd"
    assert [one.summary for one in result.messages[-2:]] == ["FLUSH", "FLUSH: ok"]
    assert result.said[-1].latency_ns is not None


def test_the_server_need_not_be_the_acceptor() -> None:
    turned: list[Turn] = [(1 - side, data) for side, data in OLD]
    assert heard(turned).summaries[0] == "> old greeting, export of 4096 bytes"


def test_hostile_sizes() -> None:
    turns: list[Turn] = [(1, GREETING), (0, struct.pack(">I", 3) + b"IHAVEOPT" + b"\xff" * 8)]
    assert "bytes of data" in heard(turns).messages[-1].summary
