"""Packet lines: a golden file per rung, times in other zones, colours, hostile bytes."""

import os
import pty
import subprocess
from pathlib import Path

import pytest
from goldens import GOLDEN, Case, cases
from running import (
    CAPTURES,
    PROGRAM,
    TIME_LIMIT_S,
    Pcapng,
    Raw,
    environment,
    lines,
    pcap_file,
    run_bytes,
)
from scenario import parse

REFUSED = CAPTURES / "k612_refused.pcap"


def pcap(path: Path, text: str, base_ns: int = 10**18) -> Path:
    """A capture of a scenario."""
    packets = parse(text, base_ns)
    path.write_bytes(pcap_file(Raw(p.time_ns, p.frame, p.wirelen) for p in packets))
    return path


def on_a_terminal(*arguments: str | Path, **more: str) -> bytes:
    """What vsockdump prints where stdout is a terminal."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [PROGRAM, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            env=environment(**more),
        ) as process:
            os.close(theirs)
            printed = b""
            try:
                while piece := os.read(ours, 65536):
                    printed += piece
            except OSError:  # how Linux says that the other end is closed
                pass
            assert 0 == process.wait(TIME_LIMIT_S)
    finally:
        os.close(ours)
    return printed.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_golden(case: Case) -> None:
    """Each output is the one that is kept; `python tests/goldens.py` renews them."""
    assert case.file.read_bytes() == case.produce()


def test_golden_files_are_all_listed() -> None:
    """No file is left over from a case that is gone."""
    names = sorted(path.name for path in GOLDEN.iterdir())
    assert sorted(["cases", *(case.name for case in cases())]) == names


# --- time ------------------------------------------------------------------------------


def test_local_time_follows_daylight_saving(tmp_path: Path) -> None:
    """Berlin's clock goes from 2 to 3 at 01:00 UTC on 2026-03-29, back on 2026-10-25."""
    spring, autumn = 1774746000, 1792890000
    text = "\n".join(
        f"{second + step} 3:1 > host:2 RW 1" for second in (spring, autumn) for step in (-1, 0)
    )
    path = pcap(tmp_path / "dst.pcap", text, 0)
    shown = [line[:26] for line in lines("-r", path, "-tttt", tz="Europe/Berlin")]
    assert [
        "2026-03-29 01:59:59.000000",
        "2026-03-29 03:00:00.000000",
        "2026-10-25 02:59:59.000000",
        "2026-10-25 02:00:00.000000",
    ] == shown


def test_days_change_at_local_midnight(tmp_path: Path) -> None:
    """The date of -tttt is the local one, east and west of Greenwich."""
    path = pcap(tmp_path / "day.pcap", "0 3:1 > host:2 RW 1", 951782400 * 10**9)
    shown = [lines("-r", path, "-tttt", tz=tz)[0][:19] for tz in ("XXX-1", "XXX+1", "UTC")]
    assert ["2000-02-29 01:00:00", "2000-02-28 23:00:00", "2000-02-29 00:00:00"] == shown


def test_packets_without_time(tmp_path: Path) -> None:
    """A packet without a time stamp says so, and the times around it are right."""
    frame = parse("0 3:1 > host:2 RW 1")[0].frame
    file = Pcapng().section().interface()
    file.packet(1_000_000, frame).simple_packet(frame).packet(3_000_000, frame)
    path = tmp_path / "simple.pcapng"
    path.write_bytes(file.data)
    shown = {
        option: [line.partition(" #1")[0] for line in lines("-r", path, option)]
        for option in ("-tt", "-ttt", "-tttt", "-ttttt")
    }
    assert {
        "-tt": ["1.000000", "no time", "3.000000"],
        "-ttt": [" 00:00:00.000000", " no time", " 00:00:02.000000"],
        "-tttt": ["1970-01-01 00:00:01.000000", " no time", "1970-01-01 00:00:03.000000"],
        "-ttttt": [" 00:00:00.000000", " no time", " 00:00:02.000000"],
    } == shown


def test_times_go_back(tmp_path: Path) -> None:
    """A packet before the first one has a negative time, not a huge one."""
    path = pcap(tmp_path / "back.pcap", "5 3:1 > host:2 RW 1\n3.5 3:1 > host:2 RW 1")
    for option in ("-ttt", "-ttttt"):
        assert "-00:00:01.500000" == lines("-r", path, option)[1].split()[0]


# --- colours ---------------------------------------------------------------------------


def test_no_colour_in_a_pipe() -> None:
    """Colours are for terminals."""
    assert b"\033" not in run_bytes("-r", REFUSED, "-v")[1]


def test_colour_on_a_terminal() -> None:
    """A terminal gets what --color=always prints."""
    always = run_bytes("-r", REFUSED, "--color=always")[1]
    assert b"\033[" in always
    assert always == on_a_terminal("-r", REFUSED)


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_turned_off(setting: dict[str, str]) -> None:
    """NO_COLOR is honoured, and a terminal that has no colours."""
    plain = run_bytes("-r", REFUSED)[1]
    assert plain == on_a_terminal("-r", REFUSED, **setting)
    assert b"\033[" in on_a_terminal("-r", REFUSED, "--color=always", **setting)


def test_an_empty_no_color_is_none() -> None:
    """NO_COLOR counts only if it is not empty (no-color.org)."""
    assert b"\033[" in on_a_terminal("-r", REFUSED, NO_COLOR="")


def test_color_never() -> None:
    """--color=never wins over the terminal."""
    assert b"\033" not in on_a_terminal("-r", REFUSED, "--color=never")


# --- hostile text ----------------------------------------------------------------------

EVERY_BYTE = bytes(range(256))
ESCAPES = b"\033]0;owned\007\033[2J\r\n\x9b31m"


@pytest.mark.parametrize("option", ["-x", "-X", "-XX", "-A", "-vvv"])
def test_payload_bytes_do_not_reach_the_terminal(tmp_path: Path, option: str) -> None:
    """Of what is not printable only line ends and tabs come through, in any dump."""
    frame = parse("0 3:1 > host:2 RW")[0].frame + EVERY_BYTE + ESCAPES
    path = tmp_path / "hostile.pcap"
    path.write_bytes(pcap_file([Raw(0, frame, len(frame))]))
    _, out, _ = run_bytes("-r", path, option)
    assert set() == set(out) - set(range(32, 127)) - {9, 10}


def test_comments_and_names_are_escaped(tmp_path: Path) -> None:
    """What a capture file says about itself cannot write to the terminal either."""
    evil = ESCAPES + "‮\u2028\u0085".encode() + b"\xff"
    frame = parse("0 3:1 > host:2 RW")[0].frame
    file = Pcapng().section((1, evil), (3, evil), (4, evil))
    file.interface(271, (2, evil), (3, evil)).packet(0, frame, (1, evil), (1, b"second"))
    path = tmp_path / "comments.pcapng"
    path.write_bytes(file.data)
    for options in (["-v"], ["-vv"], ["--json"], ["-z", "conv"]):
        out = run_bytes("-r", path, *options)[1].decode()
        assert [] == [c for c in out if not c.isprintable() and c not in "\n\t"]
    shown = [line.strip() for line in lines("-r", path, "-v") if "comment" in line]
    assert [
        r"comment: \x1b]0;owned\x07\x1b[2J\r\n�31m\u202e\u2028\x85�",
        "comment: second",
    ] == shown


# --- what the lines say ----------------------------------------------------------------


def test_every_way_of_being_malformed_is_explained(tmp_path: Path) -> None:
    """-v says why a packet could not be decoded, and the line keeps what was read."""
    text = """
        0 3:1 > host:2 RW 10 frame=20
        0 3:1 > host:2 RW 10 cap=20
        0 3:1 > host:2 RW 10 mon.len=43
        0 3:1 > host:2 RW 10 mon.len=99
        0 3:1 > host:2 RW 10 cap=60
        0 3:1 > host:2 RW 10 mon.t=1 mon.len=0
        0 3:1 > host:2 RW 10 mon.t=7 mon.op=9 mon.len=0
    """
    path = pcap(tmp_path / "malformed.pcap", text)
    assert [
        "#- ! malformed",
        "\tmalformed: frame shorter than the 32-byte monitor header",
        "#- [headers cut]",
        "\theaders cut: snaplen cuts the monitor header",
        "#- guest 3:1 > host:2 VIRTIO PAYLOAD length 11 ! malformed",
        "\tmalformed: transport header length is less than the 44 bytes of virtio",
        "#1 guest 3:1 > host:2 RW 10 [mid-stream] ! short payload, malformed",
        "\tbuf_alloc 262144, fwd_cnt 0, open",
        "\tshort payload: the frame of guest 3:1 carries 0 bytes and its len says 10",
        "\tmalformed: transport header runs past the end of the frame",
        "#- guest 3:1 > host:2 VIRTIO PAYLOAD length 10 [headers cut]",
        "\theaders cut: snaplen cuts the transport header",
        "#- guest 3:1 > host:2 NO_INFO PAYLOAD length 54",
        "#- guest 3:1 > host:2 transport 7 op 9 length 54 ! unknown transport",
        "\tunknown transport: the monitor header names transport 7, which has no header that is"
        " known",
    ] == lines("-r", path, "-t", "-v")


def test_numbers_without_a_name(tmp_path: Path) -> None:
    """Unknown ops, types, flags and CIDs print with their numbers."""
    text = """
        0 0:1 > local:2 RW 1 type=9
        0 any:1 > 0x10000000003:0xffffffff 77 flags=0x80000001
        0 18446744073709551615:4294967295 > 5:0 SHUTDOWN flags=0xf0000001
        0 3:1 > host:2 RW 1 type=2 flags=7
    """
    path = pcap(tmp_path / "unknown.pcap", text)
    shown = [line.split(" ", 1)[1].partition(" free ")[0] for line in lines("-r", path, "-t")]
    assert [
        "hypervisor:1 > local:2 type 9 RW 1 [mid-stream] ! unknown type, reserved cid",
        "any:1 > guest 1099511627779:4294967295 op 77 0x80000001 [mid-stream, flags]"
        " ! unknown op, reserved cid",
        "guest 18446744073709551615:4294967295 > guest 5:0 SHUTDOWN RCV|0xf0000000 [mid-stream]"
        " ! reserved cid, shutdown flags",
        "guest 3:1 > host:2 SEQPACKET RW 1 EOM|EOR|0x4 [mid-stream] ! message flags",
    ] == shown


def test_the_length_is_the_true_one(tmp_path: Path) -> None:
    """The tap's repeat is left out of the line, and -v names it."""
    text = """
        0 host:1 > 3:2 REQUEST
        0 host:1 < 3:2 RESPONSE
        0 host:1 > 3:2 RW 300 wire=+500
        0 host:1 > 3:2 RW 500 wire=+0
    """
    path = pcap(tmp_path / "repeat.pcap", text)
    shown = lines("-r", path, "-t", "-v")
    assert "#1 host:1 > guest 3:2 RW 300 free 261844" == shown[4]
    assert shown[5].endswith("sent by initiator [tap repeat]")
    assert "#1 host:1 > guest 3:2 RW 500 free 261344" == shown[6]
