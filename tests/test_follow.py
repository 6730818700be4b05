"""--follow: the dialogue of one connection, byte for byte, and nothing else for a terminal."""

import json
import os
import pty
import re
import select
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import pytest
from running import (
    ALL_CAPTURES,
    CAPTURES,
    PROGRAM,
    TIME_LIMIT_S,
    Raw,
    environment,
    lines,
    pcap_file,
    run,
    run_bytes,
)
from scenario import build_frame, pattern
from test_cli import check_complaint, start

from vsockdump.address import Endpoint
from vsockdump.wire import Op

SOCAT: Final = CAPTURES / "prog_socat.pcapng"
HTTP: Final = CAPTURES / "prog_http.pcapng"
SIDES: Final = ("initiator", "acceptor")
GUEST, HOST = Endpoint(3, 1024), Endpoint(2, 5000)

captures = pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)


def dialogue(path: Path, *payloads: tuple[int, bytes]) -> Path:
    """A capture of one connection in which the sides send these payloads, in this order."""
    frames = [build_frame(GUEST, HOST, Op.REQUEST), build_frame(HOST, GUEST, Op.RESPONSE)]
    frames += [
        build_frame(*((HOST, GUEST) if side else (GUEST, HOST)), Op.RW, data)
        for side, data in payloads
    ]
    raws = [Raw(at * 10**6, frame, len(frame)) for at, frame in enumerate(frames)]
    path.write_bytes(pcap_file(raws))
    return path


def text_of(path: Path, *payloads: tuple[int, bytes]) -> list[str]:
    """The lines that --follow makes of payloads, the head left out."""
    return lines("-r", dialogue(path, *payloads), "--follow", "1")[3:]


def fields(capture: Path) -> dict[int, list[tuple[str, bytes]]]:
    """(side, data) of each packet of each connection, as -T fields has them.

    Without a known side the first sender counts as initiator, as everywhere.
    """
    names = ("vsock.conn", "vsock.side", "vsock.virtio.src_port", "vsock.data")
    words = [word for name in names for word in ("-e", name)]
    found: defaultdict[int, list[tuple[str, bytes]]] = defaultdict(list)
    first: dict[str, str] = {}
    for line in run("-r", capture, "-T", "fields", *words).out.splitlines():
        conn, side, port, data = line.split("\t")
        if conn:
            sender = first.setdefault(conn, port)
            side = side or SIDES[port != sender]
            found[int(conn)].append((side, bytes.fromhex(data.replace(":", ""))))
    return found


def busiest(found: dict[int, list[tuple[str, bytes]]]) -> list[int]:
    """The two connections with most data; each test runs the program for each of them."""
    return sorted(found, key=lambda conn: -sum(len(data) for _side, data in found[conn]))[:2]


# --- raw ---------------------------------------------------------------------------------


@captures
def test_raw_is_the_data_of_the_packets(capture: Path) -> None:
    """Both sides in order, and each alone."""
    found = fields(capture)
    for conn in busiest(found):
        for side in (*SIDES, None):
            wish = f"{conn},raw,{side}" if side else f"{conn},raw"
            status, out, err = run_bytes("-r", capture, "--follow", wish)
            expected = b"".join(data for who, data in found[conn] if side in (None, who))
            assert (0, expected) == (status, out)
            assert err == b"" or err.startswith(b"vsockdump: missing in the output: ")


def test_raw_is_what_the_programs_sent() -> None:
    """The answers of an HTTP server, whole."""
    _status, out, _err = run_bytes("-r", HTTP, "--follow", "1,raw,acceptor")
    answers = re.split(rb"HTTP/1\.\d ", out)
    assert (b"", 4) == (answers[0], len(answers) - 1)
    for answer in answers[1:]:
        head, _, body = answer.partition(b"\r\n\r\n")
        size = re.search(rb"Content-Length: (\d+)", head)
        assert size is not None
        assert int(size[1]) == len(body)


def test_raw_says_what_is_missing() -> None:
    """On stderr: a snaplen of 96 leaves 20 bytes of each packet."""
    status, out, err = run_bytes("-r", CAPTURES / "k612_bulk_snap96.pcap", "--follow", "1,raw")
    rows = fields(CAPTURES / "k612_bulk_snap96.pcap")[1]
    assert (0, sum(len(data) for _side, data in rows)) == (status, len(out))
    assert f"{4 * 2**20 - len(out)} bytes of connection 1, in 64 gaps" in err.decode()
    check_complaint(err.decode())


def test_raw_does_not_go_to_a_terminal() -> None:
    """It would steer it."""
    master, slave = pty.openpty()
    done = subprocess.run(
        [PROGRAM, "-r", str(SOCAT), "--follow", "1,raw"],
        stdout=slave,
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=TIME_LIMIT_S,
    )
    os.close(slave)
    assert 2 == done.returncode
    check_complaint(done.stderr.decode())
    with pytest.raises(OSError, match="Input/output error"):
        os.read(master, 1)
    os.close(master)


# --- text --------------------------------------------------------------------------------


def test_nothing_hostile_reaches_the_terminal(tmp_path: Path) -> None:
    """Every byte and every two bytes of UTF-8, and characters that turn or hide text."""
    all_bytes = bytes(range(256))
    two = b"".join(chr(code).encode() for code in range(0x80, 0x800))
    turning = "\u202e\u2066\u200b\ufeff\u2028\U000e0041".encode()
    capture = dialogue(
        tmp_path / "x.pcap", (0, all_bytes), (1, two), (0, turning), (1, b"\xe2\x82")
    )
    for form in ("text", "hex", "json"):
        _status, out, _err = run_bytes("-r", capture, "--follow", f"1,{form}")
        text = out.decode()  # fails where invalid UTF-8 went through
        assert all(character.isprintable() or character in "\n\t" for character in text)
    shown = run("-r", capture, "--follow", "1").out
    assert "\\x1b" in shown
    assert "\\x9b" in shown
    assert "\\u202e" in shown
    assert "\\U000e0041" in shown
    assert shown.endswith("\\xe2\\x82\n")


def test_every_line_says_whose_it_is(tmp_path: Path) -> None:
    """A payload cannot pass for the other side, or for us."""
    assert [
        "> one",
        "> < two",
        "> * three",
        "< > four",
    ] == text_of(tmp_path / "x.pcap", (0, b"one\n< two\n* three\n"), (1, b"> four\n"))


def test_text_goes_on_over_packets(tmp_path: Path) -> None:
    """Lines, characters and line ends that packets split are put together."""
    euro = "€".encode()
    assert ["> half a line, € and", "> next", "< other", "> \u00fc"] == text_of(
        tmp_path / "x.pcap",
        (0, b"half a "),
        (0, b"line, " + euro[:1]),
        (0, euro[1:2]),
        (0, euro[2:] + b" and\r"),
        (0, b"\nnext"),
        (1, b"other"),
        (0, "ü".encode()),
    )


def test_ends_of_lines(tmp_path: Path) -> None:
    """CR LF is one, CR alone could overwrite what stands there."""
    payloads = (0, b"a\r\n\r\nb\rc\r"), (0, b"\n"), (0, b"d\r"), (1, b"e")
    assert ["> a", ">", "> b\\rc", "> d", "< e", "> \\r"] == text_of(tmp_path / "x.pcap", *payloads)


def test_colours() -> None:
    """By side; without them the text is the same."""
    plain = run("-r", SOCAT, "--follow", "1").out
    coloured = run("-r", SOCAT, "--follow", "1", "--color=always").out
    assert plain == re.sub(r"\033\[\d+m", "", coloured)
    by_sign = {line[5]: line[:5] for line in coloured.splitlines() if line[5] in "<>"}
    assert 2 == len(set(by_sign.values()))


# --- hex and JSON ------------------------------------------------------------------------


@captures
def test_hex_and_json_give_the_same_bytes(capture: Path) -> None:
    """Each with its offset in the stream, gaps counted."""
    found = fields(capture)
    for conn in busiest(found):
        expected = {
            side: b"".join(data for who, data in found[conn] if who == side) for side in SIDES
        }
        out = lines("-r", capture, "--follow", f"{conn},json")
        events = [json.loads(line) for line in out]
        got = dict.fromkeys(SIDES, b"")
        at = dict.fromkeys(SIDES, 0)
        for event in events[1:]:
            if event["event"] == "gap":
                at[event["side"]] += event["at_least"]
            if event["event"] == "data":
                assert at[event["side"]] == event["offset"]
                data = bytes.fromhex(event["data"])
                got[event["side"]] += data
                at[event["side"]] += len(data)
        assert expected == got
        dump = dict.fromkeys(SIDES, b"")
        for line in lines("-r", capture, "--follow", f"{conn},hex")[3:]:
            if not line.startswith("*"):
                side = SIDES[line.startswith("    ")]
                dump[side] += bytes.fromhex(line.strip()[10:59])
        assert expected == dump


def test_json_events() -> None:
    """A SEQPACKET connection: ends of messages, and of records."""
    out = lines("-r", CAPTURES / "k612_seqpacket.pcap", "--follow", "1", "--json")
    events: list[dict[str, Any]] = [json.loads(line) for line in out]
    assert "connection" == events[0]["event"]
    assert {"cid": 1, "port": 1028} == events[0]["acceptor"]
    assert ("seqpacket", True) == (events[0]["type"], events[0]["initiator_known"])
    ends = [event for event in events if event["event"] == "message-end"]
    sent = [event["offset"] for event in ends if event["side"] == "initiator"]
    sizes = [end - start for start, end in zip([0, *sent], sent, strict=False)]
    assert [1, 15, 1000, 65535, 65536, 65537, 150000, 200000, 4] == sizes
    records = [event["eor"] for event in ends if event["side"] == "initiator"]
    assert [False, True, False, True, False, True, False, True, False] == records
    assert ["shutdown", "rst"] == [event["event"] for event in events[-2:]]
    assert ["RCV", "SEND"] == events[-2]["flags"]


# --- what is chosen, and errors --------------------------------------------------------------


def test_a_filter_chooses_packets() -> None:
    """What it leaves out is a gap with its size."""
    out = lines("-r", SOCAT, "--follow", "1", "side", "acceptor")
    assert "* 13 bytes of the initiator are missing: left out by the filter" in out
    assert "< socat line 1" in out
    assert not any(line.startswith("> ") for line in out)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--follow", "99"], 1),
        (["--follow", "1", "port", "9"], 1),
        (["--follow", "0"], 2),
        (["--follow", "x"], 2),
        (["--follow", ""], 2),
        (["--follow", "1,"], 2),
        (["--follow", "1,text,hex"], 2),
        (["--follow", "1,client"], 2),
        (["--follow", "1", "-P"], 2),
        (["--follow", "1", "-w", "-"], 2),
        (["--follow", "1,raw", "-z", "conv"], 2),
        (["--follow", "99999999999999999999"], 2),
    ],
    ids=str,
)
def test_errors(arguments: list[str], status: int) -> None:
    """One sentence; 1 for what the capture has not, 2 for what cannot be asked."""
    result = run("-r", SOCAT, *arguments)
    assert (status, "") == (result.status, result.out)
    check_complaint(result.err)


def test_follow_goes_with_writing(tmp_path: Path) -> None:
    """Both are made of the same packets."""
    copy = tmp_path / "copy.pcapng"
    shown = lines("-r", SOCAT, "--follow", "2", "-w", copy)
    assert SOCAT.read_bytes() == copy.read_bytes()
    assert lines("-r", SOCAT, "--follow", "2") == shown


def test_stdin_is_followed_as_it_grows(tmp_path: Path) -> None:
    """What was said is shown before the next packet comes, and all of it at the end."""
    content = dialogue(tmp_path / "x.pcap", (0, b"first\n"), (1, b"second\n")).read_bytes()
    cut = len(content) - 50
    with start("-r", "-", "--follow", "1") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(content[:cut])
        process.stdin.flush()
        until, out = time.monotonic() + TIME_LIMIT_S, b""
        while b"> first\n" not in out:
            ready, _, _ = select.select([process.stdout], [], [], until - time.monotonic())
            assert ready
            out += os.read(process.stdout.fileno(), 1 << 16)
        rest, err = process.communicate(content[cut:], timeout=TIME_LIMIT_S)
    assert (b"< second\n", b"", 0) == (rest, err, process.returncode)


def test_a_damaged_file_is_followed_to_the_damage(tmp_path: Path) -> None:
    """Then the error of the file, and its exit status."""
    path = dialogue(tmp_path / "x.pcap", (0, b"first\n"), (1, pattern(0, 100)))
    path.write_bytes(path.read_bytes()[:-20])
    result = run("-r", path, "--follow", "1")
    assert (1, "> first") == (result.status, result.out.splitlines()[-1])
    check_complaint(result.err)
