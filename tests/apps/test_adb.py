"""ADB: its packets, streams, shell and sync."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated
from talking import ACCEPTOR, INITIATOR, Cut, Turn, heard

from vsockdump.apps.message import Kind

HOST, DEVICE = INITIATOR, ACCEPTOR
NEW, OLD = 0x01000001, 0x01000000  # versions; the newer has no checksums


def packet(
    name: bytes, arg0: int, arg1: int, data: bytes = b"", checksum: int | None = None
) -> bytes:
    command = int.from_bytes(name, "little")
    numbers = (command, arg0, arg1, len(data), sum(data) if checksum is None else checksum)
    return struct.pack("<6I", *numbers, command ^ 0xFFFFFFFF) + data


def shell(number: int, data: bytes) -> bytes:
    return struct.pack("<BI", number, len(data)) + data


def sync(name: bytes, data: bytes = b"") -> bytes:
    return name + struct.pack("<I", len(data)) + data


CONNECT: list[Turn] = [
    (HOST, packet(b"CNXN", NEW, 1 << 20, b"host::features=shell_v2,cmd")),
    (DEVICE, packet(b"AUTH", 1, 0, bytes(20))),
    (HOST, packet(b"AUTH", 2, 0, bytes(256))),
    (DEVICE, packet(b"CNXN", NEW, 1 << 20, b"device::ro.product.name=vm;")),
]
OUTPUT = shell(1, b"hello\n") + shell(2, b"warning") + shell(3, b"\x07")
SHELL: list[Turn] = [
    (HOST, packet(b"OPEN", 5, 0, b"shell,v2,TERM=xterm,raw:id -un\0")),
    (DEVICE, packet(b"OKAY", 9, 5)),
    (HOST, packet(b"WRTE", 5, 9, shell(0, b"input"))),
    (DEVICE, packet(b"OKAY", 9, 5)),
    (DEVICE, packet(b"WRTE", 9, 5, OUTPUT[:4])),  # packets of the shell cross those of ADB
    (HOST, packet(b"OKAY", 5, 9)),
    (DEVICE, packet(b"WRTE", 9, 5, OUTPUT[4:])),
    (HOST, packet(b"OKAY", 5, 9)),
    (DEVICE, packet(b"CLSE", 9, 5)),
    (HOST, packet(b"CLSE", 5, 9)),
]
STAT = struct.pack("<3I", 0o100644, 1234, 1_700_000_000)
STAT_2 = struct.pack("<I2Q4IQ3q", 0, 1, 2, 0o40755, 1, 0, 0, 4096, 1, 2, 3)
NAME = struct.pack("<I", 3)
REQUESTS = (
    sync(b"STAT", b"/a")
    + sync(b"STA2", b"/none")
    + sync(b"LST2", b"/d")
    + sync(b"LIST", b"/d")
    + sync(b"LIS2", b"/d")
    + sync(b"RECV", b"/a")
    + sync(b"RCV2", b"/b")
    + b"RCV2\0\0\0\0"
    + sync(b"SEND", b"/new,33188")
    + sync(b"DATA", b"file")
    + b"DONE\x01\0\0\0"
    + sync(b"SND2", b"/deny")
    + b"SND2"
    + bytes(8)
    + b"DONE\x01\0\0\0"
    + b"QUIT\0\0\0\0"
)
ANSWERS = (
    (b"STAT" + STAT)
    + (b"STA2" + struct.pack("<I", 2) + STAT_2[4:])
    + (b"LST2" + STAT_2)
    + (b"DENT" + STAT + NAME + b"one")
    + (b"DENT" + STAT + NAME + b"two")
    + (b"DONE" + bytes(16))
    + (b"DNT2" + STAT_2 + NAME + b"one")
    + (b"DONE" + bytes(72))
    + (sync(b"DATA", b"x" * 100) + sync(b"DATA", b"y" * 20) + b"DONE" + bytes(4))
    + sync(b"FAIL", b"no such file")
    + b"OKAY\0\0\0\0"
    + sync(b"FAIL", b"read-only")
)
SYNC: list[Turn] = [
    (HOST, packet(b"OPEN", 6, 0, b"sync:\0")),
    (DEVICE, packet(b"OKAY", 10, 6)),
    (HOST, packet(b"WRTE", 6, 10, REQUESTS)),
    (DEVICE, packet(b"OKAY", 10, 6)),
    (DEVICE, packet(b"WRTE", 10, 6, ANSWERS)),
    (HOST, packet(b"OKAY", 6, 10)),
]
TALK = [*CONNECT, *SHELL, *SYNC]


def test_being_let_in() -> None:
    result = heard(CONNECT)
    assert result.summaries == [
        "> CNXN host::features=shell_v2,cmd",
        "< AUTH token",
        "> AUTH signature",
        "< CNXN device::ro.product.name=vm;",
    ]
    answers = [one for one in result.said if one.message.kind == Kind.RESPONSE]
    assert [one.latency_ns for one in answers] == [1_000_000] * 2
    assert [one.message.call.method for one in answers if one.message.call] == ["CNXN", "AUTH"]


def test_a_shell() -> None:
    result = heard([*CONNECT, *SHELL])
    label = "#5 shell,v2,TERM=xterm,raw:id -un"
    assert result.summaries[4:] == [
        f"> OPEN {label}",
        f"< OKAY {label}",
        f"> WRTE {label} stdin input",
        f"< OKAY {label}",
        f"< WRTE {label}",
        f"> OKAY {label}",
        f"< WRTE {label} stdout hello …",
        f"> OKAY {label}",
        f"< CLSE {label}",
        f"> CLSE {label}",
    ]
    contents = result.messages[10].fields["contents"]
    assert contents == [
        {"stream": "stdout", "size": 6, "text": "hello\n"},
        {"stream": "stderr", "size": 7, "text": "warning"},
        {"stream": "exit", "code": 7},
    ]
    methods = [one.call.method for one in result.messages if one.kind == Kind.RESPONSE and one.call]
    assert methods[2:] == ["OPEN shell", *["WRTE shell"] * 3]
    assert result.unanswered == []


def test_sync() -> None:
    result = heard([*CONNECT, *SYNC])
    told = [one.message for one in result.said if one.message.summary.startswith("sync")]
    calls = [one.call for one in told if one.kind == Kind.RESPONSE]
    assert [one.summary for one in told] == [
        *("sync STAT /a", "sync STA2 /none", "sync LST2 /d", "sync LIST /d", "sync LIS2 /d"),
        *("sync RECV /a", "sync RCV2 /b", "sync SEND /new,33188", "sync SND2 /deny"),
        *("sync mode 100644, 1234 bytes", "sync ENOENT", "sync mode 40755, 4096 bytes"),
        *("sync 2 entries", "sync 1 entries", "sync received 120 bytes"),
        *("sync FAIL no such file", "sync OKAY", "sync FAIL read-only"),
    ]
    assert [call.error for call in calls if call] == [
        *(None, "ENOENT", None, None, None, None, "no such file", None, "read-only")
    ]
    assert told[12].fields == {"entries": 2, "names": ["one", "two"]}
    assert result.unanswered == []


def test_a_service_that_is_refused() -> None:
    turns = [(HOST, packet(b"OPEN", 7, 0, b"tcp:1\0")), (DEVICE, packet(b"CLSE", 0, 7))]
    result = heard([*CONNECT, *turns])
    call = result.messages[-1].call
    assert result.summaries[-1] == "< CLSE #7 tcp:1 refused"
    assert call is not None
    assert (call.method, call.error) == ("OPEN tcp", "refused")


def test_writes_that_do_not_wait() -> None:
    turns = [
        (HOST, packet(b"OPEN", 7, 1 << 20, b"tcp:1\0")),
        (DEVICE, packet(b"OKAY", 8, 7, struct.pack("<I", 1 << 20))),
        (HOST, packet(b"WRTE", 7, 8, b"\xff" * 5) + packet(b"WRTE", 7, 8, b"more")),
        (DEVICE, packet(b"OKAY", 8, 7, struct.pack("<I", 9))),
    ]
    result = heard([*CONNECT, *turns])
    assert [one.kind for one in result.messages[-3:]] == [
        *(Kind.MESSAGE, Kind.MESSAGE, Kind.RESPONSE)
    ]
    assert result.messages[-1].fields["acknowledged"] == 9
    assert result.unanswered == []


@pytest.mark.parametrize(
    ("version", "checksum", "is_wrong"),
    [(NEW, 0, False), (NEW, 1, True), (OLD, 0, True), (OLD, None, False), (NEW, None, False)],
)
def test_checksums(version: int, checksum: int | None, is_wrong: bool) -> None:
    opened = (HOST, packet(b"OPEN", 7, 0, b"tcp:1\0", checksum))
    connected = (HOST, packet(b"CNXN", version, 4096, b"host::"))
    assert ("checksum" in heard([connected, opened]).messages[1].fields) == is_wrong


def test_what_is_secret() -> None:
    hello = bytes.fromhex("160301002f0100002b0303") + bytes(33) + bytes.fromhex("000213010100 0000")
    turns = [
        CONNECT[0],
        (DEVICE, packet(b"STLS", NEW, 0)),
        (HOST, packet(b"STLS", NEW, 0) + hello),
    ]
    result = heard(turns)
    assert result.summaries[1:] == ["< STLS", "> STLS", "> ClientHello"]
    assert result.said[1].latency_ns == 1_000_000
    assert result.messages[-1].protocol == "tls"


def test_a_gap_ends_the_contents_but_not_the_connection() -> None:
    cut = packet(b"WRTE", 9, 5, shell(1, b"x" * 500))
    turns = [*CONNECT, *SHELL[:2], (DEVICE, Cut(cut, 100)), *SHELL[5:]]
    told = heard(turns)
    assert "stdout" in told.summaries[6]
    assert told.messages[6].fields["missing"] == len(cut) - 100
    assert told.summaries[-1].startswith("> CLSE #5")


def test_joined_inside_a_connection() -> None:
    result = heard(SHELL[2:], connect=False, port=47_123)
    assert result.protocol == "adb"
    assert result.summaries[:2] == ["> WRTE", "< OKAY"]


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"CNXN" + bytes(20), "magic"), (packet(b"WRTE", 1, 2)[:12] + b"\0\0\0\x7f", "a payload of")],
)
def test_what_is_not_adb_is_a_note(data: bytes, why: str) -> None:
    header = data + packet(b"WRTE", 1, 2)[len(data) :]
    note = heard([(0, header)], ports={1024: "adb"}).messages[-1]
    assert note.kind == Kind.NOTE
    assert why in note.summary


def test_any_segments() -> None:
    any_segments(TALK, "adb")


def test_losses() -> None:
    losses(TALK, "adb")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 255))
def test_mutated_talks(at: int, value: int) -> None:
    mutated(TALK, at, value, "adb")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_hostile_bytes(data: bytes) -> None:
    hostile(data, "adb")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([b"", b"DENT", b"STA2", b"DATA"]))
def test_hostile_sync(data: bytes, start: bytes) -> None:
    turns = [*SYNC[:4], (DEVICE, packet(b"WRTE", 10, 6, start + data))]
    mutated(turns, 0, 0x4F, "adb")
