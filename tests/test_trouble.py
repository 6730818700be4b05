"""-z findings, connects and stalls, --fail-on and --annotate, as a user meets them."""

import json
import struct
from pathlib import Path
from typing import Any, Final

import blocks
import pytest
from reading import pcapng
from running import ALL_CAPTURES, CAPTURES, Raw, lines, pcap_file, run, tool
from scenario import parse

from vsockdump.findings.registry import RULES
from vsockdump.output.annotations import with_comments

SHUTDOWNS: Final = CAPTURES / "k612_shutdowns.pcap"
FAKEGUEST: Final = CAPTURES / "k61_fakeguest.pcap"


def pcap(path: Path, text: str) -> Path:
    """A scenario as a capture file."""
    path.write_bytes(pcap_file(Raw(p.time_ns, p.frame, p.wirelen) for p in parse(text)))
    return path


def objects(capture: Path, *arguments: str) -> list[dict[str, Any]]:
    """The JSON lines of a run."""
    return [json.loads(line) for line in lines("-r", capture, "--json", *arguments)]


# --- connects --------------------------------------------------------------------------

CONNECTS: Final = """
    0.000 3:1 > host:10 REQUEST
    +2ms  3:1 < host:10 RESPONSE
    0.010 3:2 > host:10 REQUEST
    +4ms  3:2 < host:10 RST nosock
    0.020 3:3 > host:10 REQUEST type=SEQPACKET
    +4ms  3:3 < host:10 RST nosock type=SEQPACKET
    0.030 3:4 > host:11 REQUEST
    +4ms  3:4 < host:11 RST nosock
    0.040 3:5 > host:11 REQUEST
    +4ms  3:5 < host:11 RST
    0.050 3:6 > host:12 REQUEST
    +1ms  3:6 > host:12 RST
    0.060 3:7 > host:12 REQUEST
    +1ms  3:7 > host:12 REQUEST
    0.070 3:1 > host:10 REQUEST
    0.080 3:8 > host:13 REQUEST
    0.090 3:9 > host:13 REQUEST
    2.600 3:8 < host:13 RESPONSE
    2.700 3:9 < host:13 RESPONSE
    +1ms  3:9 > host:13 RST nosock
    2.800 3:10 > host:14 REQUEST
    2.900 4:1 > host:15 RW 1
"""
OUTCOMES: Final = [
    (1, "accepted", 2_000_000, None),
    (2, "refused", 4_000_000, "no socket took it; the acceptor accepted others in this capture"),
    (3, "refused", 4_000_000, "no socket took it; the acceptor accepted others of another type"),
    (4, "refused", 4_000_000, "no socket took it, nor any other connect in this capture"),
    (5, "refused", 4_000_000, "by an RST with credit: a device of its own kind, or a listener that"
     " closes"),
    (6, "given up", 1_000_000, "reset by the initiator itself"),
    (7, "given up", 1_000_000, "tried again"),
    (8, "silent", 2_839_000_000, "no answer within 2 s"),
    (9, "dropped", 2_830_000_000, "the addresses are those of a connection that had not ended"),
    (10, "late", 2_520_000_000, "taken all the same"),
    (11, "late", 2_610_000_000, "the initiator had given up"),
    (12, "waiting", 100_000_000, "the capture ends before 2 s have passed"),
]  # fmt: skip


def test_every_outcome_of_a_connect(tmp_path: Path) -> None:
    """Accepted, refused, given up, silent, dropped, late and not yet decided."""
    found = objects(pcap(tmp_path / "connects.pcap", CONNECTS), "-z", "connects")
    attempts = [row for row in found if "conn" in row]
    keys = ("conn", "outcome", "after_ns", "why")
    assert OUTCOMES == [tuple(row[key] for key in keys) for row in attempts]
    totals = {row["acceptor"]["port"]: row for row in found if "attempts" in row}
    assert [10, 11, 12, 13, 14] == sorted(totals)
    assert (4, 1, 2) == tuple(totals[10][key] for key in ("attempts", "accepted", "refused"))


def test_percentiles_are_those_of_the_accepted(tmp_path: Path) -> None:
    """The nearest rank: of 100 times from 1 to 100 ms the 95th is 95 ms."""
    text = "".join(
        f"{number}.0 3:{number} > host:9 REQUEST\n+{number}ms 3:{number} < host:9 RESPONSE\n"
        for number in range(1, 101)
    )
    text += "200.0 3:200 > host:9 REQUEST\n+1s 3:200 < host:9 RST nosock\n"
    total = objects(pcap(tmp_path / "many.pcap", text), "-z", "connects")[-1]
    names = ("p50_ns", "p95_ns", "p99_ns", "max_ns")
    assert [50, 95, 99, 100] == [total[name] // 10**6 for name in names]
    assert (101, 100, 1) == (total["attempts"], total["accepted"], total["refused"])


@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_connects_of_real_traffic(capture: Path) -> None:
    """As many as there are REQUESTs, each answered at the time of its answer."""
    requests = objects(capture, "op", "request")
    attempts = [row for row in objects(capture, "-z", "connects") if "conn" in row]
    assert [p["frame"]["number"] for p in requests] == [row["packet"] for row in attempts]
    answers: dict[int, int] = {}
    for packet in objects(capture, "op", "response", "or", "state", "refused"):
        answers.setdefault(packet["vsock"]["conn"], packet["frame"]["time_ns"])
    for row in attempts:
        if row["outcome"] in ("accepted", "refused"):
            assert answers[row["conn"]] - row["time_ns"] == row["after_ns"]


# --- stalls ----------------------------------------------------------------------------


@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_stalls_are_those_of_the_credit(capture: Path) -> None:
    """Both statistics list the same; a stall lies between its two packets."""
    stalls = objects(capture, "-z", "stalls")
    credit = [
        (row["conn"], row["sender"], start, end - start)
        for row in objects(capture, "-z", "credit")
        for start, end in row["stalls"]
    ]
    keys = ("conn", "sender", "start_ns", "duration_ns")
    assert sorted(credit) == sorted(tuple(row[key] for key in keys) for row in stalls)
    packets = {p["frame"]["number"]: p for p in objects(capture)}
    for row in stalls:
        first, last = packets[row["first_packet"]], packets[row["last_packet"]]
        assert row["start_ns"] == first["frame"]["time_ns"]
        assert row["start_ns"] + row["duration_ns"] == last["frame"]["time_ns"]
        assert row["bytes_waiting"] == first["vsock"]["credit"]["inflight"]
        if row["limit"] == "receiver":  # its own is known as one when it has ended
            assert 0 == first["vsock"]["credit"]["free"]


def test_a_stall_that_goes_on(tmp_path: Path) -> None:
    """It has no last packet, and has lasted until now."""
    text = """
        0.0 3:1 > host:2 REQUEST
        0.1 3:1 < host:2 RESPONSE buf=100
        0.2 3:1 > host:2 RW 100
        9.2 3:1 < host:2 RW 1 buf=100
    """
    (row,) = objects(pcap(tmp_path / "stall.pcap", text), "-z", "stalls")
    assert (True, None, 3) == (row["goes_on"], row["last_packet"], row["first_packet"])
    assert (9 * 10**9, 100) == (row["duration_ns"], row["bytes_waiting"])
    shown = run("-r", tmp_path / "stall.pcap", "-z", "stalls").out
    assert "9 s so far" in shown
    assert "reader at host:2" in shown


# --- findings --------------------------------------------------------------------------


def test_findings_without_names(tmp_path: Path) -> None:
    """-z findings counts, lists ten connections of a rule and says how many more there are."""
    text = "".join(
        f"{number}.0 3:{number} > host:9 REQUEST\n+1ms 3:{number} < host:9 RST nosock\n"
        for number in range(1, 14)
    )
    shown = lines("-r", pcap(tmp_path / "many.pcap", text), "-z", "findings")
    assert "1 finding (1 note) in 13 connections" == shown[0]
    assert shown[2].endswith("(13 times in 13 connections)")
    assert "  and in 3 more connections" == shown[-1]
    assert 13 == len(objects(tmp_path / "many.pcap", "-z", "findings"))


def test_how_bad_it_got(tmp_path: Path) -> None:
    """The largest of all cases, and that it is that."""
    text = "0 3:1 > host:2 REQUEST\n+1ms 3:1 < host:2 RESPONSE buf=70000\n"
    text += "+1ms 3:1 > host:2 RW 60000\n" + "+1ms 3:1 > host:2 RW 20000\n" * 4
    shown = run("-r", pcap(tmp_path / "over.pcap", text), "-z", "findings").out
    assert "sent 70000 bytes beyond all credit" in shown
    assert "[4 times, the largest of them]" in shown


def test_the_worst_of_a_connection() -> None:
    """-z conv names it, findings that only time tells included."""
    rows = {row["conn"]: row for row in objects(FAKEGUEST, "-z", "conv")}
    assert "error" == rows[5]["worst"]
    assert "vsock.connection.type_changed" == rows[5]["findings"][0]
    assert ["vsock.connect.unanswered"] == rows[4]["findings"]
    assert "note" == rows[3]["worst"]


@pytest.mark.parametrize(
    ("capture", "limit", "status"),
    [
        ("k612_shutdowns.pcap", "warn", 3),
        ("k612_shutdowns.pcap", "error", 0),
        ("k612_refused.pcap", "warn", 0),
        ("k61_fakeguest.pcap", "error", 3),
    ],
)
def test_fail_on(capture: str, limit: str, status: int) -> None:
    """Status 3 if there is anything that severe; what is printed stays the same."""
    plain = run("-r", CAPTURES / capture, "-z", "conv")
    failing = run("-r", CAPTURES / capture, "-z", "conv", "--fail-on", limit)
    assert (status, plain.out, "") == (failing.status, failing.out, failing.err)


def test_fail_on_looks_at_what_is_selected() -> None:
    """A filter chooses the connections that are judged."""
    arguments = ("-r", SHUTDOWNS, "--fail-on", "warn", "-z", "io,0")
    assert 3 == run(*arguments, "conn", "5").status
    assert 0 == run(*arguments, "conn", "1").status


def test_bad_input_is_worse_than_a_finding(tmp_path: Path) -> None:
    """A capture that is cut gives 1 whatever was found in it."""
    (tmp_path / "cut.pcap").write_bytes(SHUTDOWNS.read_bytes()[:-3])
    assert 1 == run("-r", tmp_path / "cut.pcap", "--fail-on", "warn", "-z", "io,0").status


def test_drops_that_a_file_tells_of(tmp_path: Path) -> None:
    """The interface statistics of a pcapng file are those of the capture."""
    (packet,) = parse("0 3:1 > host:2 REQUEST")
    path = tmp_path / "dropped.pcapng"
    path.write_bytes(
        blocks.section("<")
        + blocks.interface("<", 271)
        + blocks.enhanced("<", packet.frame)
        + blocks.statistics("<", if_drop=4)
    )
    (found,) = objects(path, "-z", "findings")
    assert ("vsock.capture.dropped", 4) == (found["finding"], found["times"])
    assert "dropped 4 of 5 packets" in found["message"]


def test_explain() -> None:
    """By name, without reading anything, and a list of all."""
    for arguments in (
        ["-z", "findings,explain credit.stall"],
        ["-z", "findings,explain", "credit.stall"],
    ):
        shown = run(*arguments)
        assert (0, "") == (shown.status, shown.err)
        assert shown.out.startswith("vsock.credit.stall (note)\n")
    assert len(RULES) == len(lines("-z", "findings,explain"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["-z", "findings,explain", "nothing"],
        ["-z", "findings,explain credit.stall", "close.reset"],
        ["-z", "conv,explain"],
        ["-r", SHUTDOWNS, "-z", "findings,explain"],
        ["-r", SHUTDOWNS, "-z", "findings,now"],
        ["-r", SHUTDOWNS, "--fail-on", "note"],
        ["-r", SHUTDOWNS, "--annotate"],
        ["-r", SHUTDOWNS, "--keylog", "keys"],
    ],
    ids=str,
)
def test_wrong_usage(arguments: list[str | Path]) -> None:
    """Exit 2 and one sentence."""
    result = run(*arguments)
    assert (2, "", 1) == (result.status, result.out, result.err.count("\n"))
    assert result.err.startswith("vsockdump: ")


# --- comments --------------------------------------------------------------------------


def comments(path: Path) -> list[tuple[str, str]]:
    """(frame number, comment) by tshark, names of connections left out."""
    shown = tool("tshark", "-r", path, "-Y", "frame.comment", "-T", "fields", "-e", "frame.number",
                 "-e", "frame.comment")  # fmt: skip
    found = [tuple(line.split("\t")) for line in shown.decode().splitlines()]
    return [(number, text) for number, text in found if not text.startswith("#")]


def names_and_lines(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Names of connections by number, as comments; and the lines of their first packets."""
    names, first = {}, {}
    for line in lines("-r", path, "-v", "-t"):
        text = line.removeprefix("\tcomment: ")
        number = text.split()[0]
        if text != line and text.startswith("#"):
            assert number not in names
            names[number] = text
        elif text.startswith("#") and number != "#-":
            first.setdefault(number, text)
    return names, first


@pytest.mark.parametrize("name", ["k612_shutdowns.pcap", "prog_ncat.pcapng"])
def test_annotate(name: str, tmp_path: Path) -> None:
    """The packets stay as they are; those with findings have the sentences as comments."""
    copy = tmp_path / "copy.pcapng"
    assert (0, "", "") == run("-r", CAPTURES / name, "--annotate", "-w", copy)
    expected = [
        (str(row["packet"]), f"{row['severity']} {row['finding']}: {row['message']}")
        for row in sorted(objects(CAPTURES / name, "-z", "findings"), key=lambda row: row["packet"])
    ]
    assert expected
    assert expected == comments(copy)
    assert lines("-r", CAPTURES / name, "-xx", "-tt") == lines("-r", copy, "-xx", "-tt")


@pytest.mark.parametrize("chosen", [[], ["op", "rst"]], ids=str)
@pytest.mark.parametrize("name", ["k612_fakeguest.pcap", "l2_guest_view.pcap"])
def test_the_first_packet_names_its_connection(
    name: str, chosen: list[str], tmp_path: Path
) -> None:
    """The first one that is written; in the words of the packet line, initiator first."""
    copy = tmp_path / "copy.pcapng"
    run("-r", CAPTURES / name, "--annotate", "-w", copy, *chosen)
    names, first = names_and_lines(copy)
    assert len(names) > 3
    found = {line.split()[0] for line in lines("-r", CAPTURES / name, "-t", *chosen)}
    assert found - {"#-"} == names.keys()
    if not chosen:
        begun = {number for number, line in first.items() if "REQUEST" in line.split()}
        assert len(begun) > 3
        assert all(first[number].startswith(names[number]) for number in begun)


def test_every_file_names_its_connections(tmp_path: Path) -> None:
    """Where a capture is cut into several."""
    run("-r", SHUTDOWNS, "--annotate", "-w", tmp_path / "x.pcapng", "-b", "packets:5")
    files = sorted(tmp_path.iterdir())
    assert 12 == len(files)
    numbers = [packet["vsock"]["conn"] for packet in objects(SHUTDOWNS)]
    for at, path in enumerate(files):
        expected = {f"#{number}" for number in numbers[5 * at : 5 * at + 5]}
        assert expected == names_and_lines(path)[0].keys()


def test_annotate_only_what_is_written(tmp_path: Path) -> None:
    """A filter chooses the packets; comments go with them."""
    copy = tmp_path / "copy.pcapng"
    run("-r", SHUTDOWNS, "--annotate", "-w", copy, "conn", "7")
    ((number, text),) = comments(copy)
    assert 5 == int(number)
    assert text.startswith("warn vsock.close.bytes_lost: up to 7000 bytes of local:964674814")


def test_annotate_needs_pcapng(tmp_path: Path) -> None:
    """pcap has no comments, which is said before anything is written."""
    result = run("-r", SHUTDOWNS, "--annotate", "-w", tmp_path / "copy.pcap")
    assert (1, "") == (result.status, result.out)
    assert result.err.endswith("would be a pcap file, which holds no comments; give it the suffix"
                               " .pcapng.\n")  # fmt: skip
    assert not (tmp_path / "copy.pcap").exists()


@pytest.mark.parametrize("order", ["<", ">"])
def test_comments_of_the_source_are_kept(order: str, tmp_path: Path) -> None:
    """Ours come first, in the byte order of the block."""
    (packet,) = parse("0 3:1 > host:2 8")
    block = blocks.enhanced(order, packet.frame, pairs=[(blocks.COMMENT, b"theirs")])
    source, copy = tmp_path / "source.pcapng", tmp_path / "copy.pcapng"
    source.write_bytes(pcapng(block, order=order))
    assert (0, "", "") == run("-r", source, "--annotate", "-w", copy)
    shown = [line for line in lines("-r", copy, "-v") if "comment" in line]
    assert "\tcomment: theirs" == shown[-1]
    assert any(
        "comment: warn vsock.frame.unknown_op: guest 3:1 sent op 8" in line for line in shown
    )


def test_simple_packets_stay_as_they_are() -> None:
    """They have no place for a comment."""
    block = struct.pack("<IIIII", 3, 20, 4, 0, 20)
    assert block == with_comments(block, ["something"], big_endian=False)
