"""The Wireshark script: what it shows is what vsockdump says, field by field.

tshark runs it on every capture that ships, on the scenarios of the findings, on random
traffic and on damaged captures, in one pass and in two.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import wireshark
from goldens import DISSECTORS, MADE
from running import ALL_CAPTURES, CAPTURES, lines, tool
from simulator import random_traffic, write_pcap
from test_findings import OPEN, PAIRS
from test_oracles import EDITS, edited
from tracking import TRACKER
from wireshark import TRACKED, ours

from vsockdump.capture.reader import FileReader
from vsockdump.findings.collector import events_by_packet, packet_sentence
from vsockdump.findings.registry import BY_KIND, RULES, rules_of_marks
from vsockdump.output import lua
from vsockdump.track.kinds import Kind
from vsockdump.track.marks import MARK_OF, Mark

MEMORY: Final = Path(__file__).parent / "lua" / "memory.lua"
PASSES: Final = ([], ["-2"])
RULE_NAMES: Final = [rule.name for rule in RULES]

# Rules that only time fires in PAIRS; here the packet comes at last.
LATE: Final = (
    OPEN + "+1ms 3:1 > host:2 SHUTDOWN buf=100000\n+8.1s 3:1 > host:2 RST buf=100000",
    OPEN + "+1ms 3:1 > host:2 CREDIT_REQUEST buf=100000\n+3s 3:1 < host:2 CREDIT_UPDATE buf=100000",
)
OF_NO_PACKET: Final = (Kind.DROPPED, Kind.UNANSWERED, Kind.COPIES)
# Copies are packets like others to the script: it would have to compare frames.
LUA_PAIRS: Final = [pair for name, pair in PAIRS.items() if name != "vsock.capture.copies"]

RIGHT_NAMES: Final = [f"vsock.virtio.{name}" for name in ("type_name", "op_name", "flag_names")]

passes = pytest.mark.parametrize("passes", PASSES, ids=("one pass", "two passes"))


def agree(capture: Path, *arguments: str) -> None:
    """Fails where the script and vsockdump say something different of a packet."""
    theirs = wireshark.fields(capture, TRACKED, *arguments)
    wrong = [pair for pair in zip(ours(capture), theirs, strict=True) if pair[0] != pair[1]]
    assert [] == wrong[:3]


# --- the script itself -------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_the_committed_files_are_what_is_made(name: str) -> None:
    """`python tests/goldens.py` renews them."""
    assert MADE[name]() == (DISSECTORS / name).read_text("utf-8")


def test_the_program_prints_the_script() -> None:
    """As it is in dissectors/."""
    assert lines("--lua") == (DISSECTORS / "vsockdump.lua").read_text("utf-8").splitlines()


def held(capture: Path, *arguments: str) -> int:
    """KiB that Lua holds when tshark has read a capture with the script."""
    scripts = [f"lua_script:{path}" for path in (DISSECTORS / "vsockdump.lua", MEMORY)]
    options = [word for script in scripts for word in ("-X", script)]
    said = tool("tshark", *options, "-r", capture, *arguments).decode()
    return int(said.rsplit("KiB ", 1)[1])


def test_what_tshark_will_not_ask_again_is_not_kept(tmp_path: Path) -> None:
    """In one pass memory does not grow with a capture; where frames come again it must."""
    once, often = CAPTURES / "k612_many.pcap", tmp_path / "often.pcap"
    tool("mergecap", "-a", "-F", "pcap", "-w", often, *[once] * 6)
    assert held(often) - held(once) < 400
    assert held(often, "-2") - held(once, "-2") > 1000


@pytest.mark.parametrize("version", ["5.2", "5.4"])
def test_every_lua_reads_it(version: str) -> None:
    """Wireshark 4.0 and 4.2 have Lua 5.2, later ones 5.4."""
    tool(f"luac{version}", "-p", DISSECTORS / "vsockdump.lua")


def test_wireshark_reads_the_colour_rules(tmp_path: Path) -> None:
    """Every rule's filter is one."""
    filters = [rule.split("@")[2] for rule in lua.colour_rules().splitlines()]
    assert filters
    for text in filters:
        wireshark.tshark(CAPTURES / "k612_refused.pcap", "-c", "1", "-Y", text)


# --- as vsockdump ------------------------------------------------------------------------


@passes
@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_real_captures(capture: Path, passes: list[str]) -> None:
    """Connection, side, state, true length and bytes, tx_cnt, credit, marks."""
    agree(capture, *passes)


@passes
def test_the_scenarios_of_all_findings(passes: list[str], tmp_path: Path) -> None:
    """Each on a tap of its own, what fires a rule and what just does not."""
    texts = [text for pair in LUA_PAIRS for text in pair]
    capture = wireshark.write_scenarios(tmp_path / "findings.pcapng", [*texts, *LATE])
    agree(capture, *passes)
    at = TRACKED.index("vsock.marks")
    shown = {mark for row in ours(capture) for mark in row[at].split(",")}
    marked = {rule.word for rule in RULES if MARK_OF[rule.kind] != Mark.MORE}
    assert marked - {rule.word for rule in RULES if rule.kind in OF_NO_PACKET} <= shown


@passes
@pytest.mark.parametrize("seed", range(4))
def test_random_traffic(seed: int, passes: list[str], tmp_path: Path) -> None:
    """With split packets of both kinds, snaplen, counters that wrap, taps in the guest."""
    traffic = random_traffic(
        seed,
        connections=20,
        actions=400,
        repeat=("exact", "A", "B", "A")[seed],
        snaplen=(None, None, 200, None)[seed],
        vantage=("host", "guest")[seed % 2],
        joined=seed > 1,
    )
    write_pcap(tmp_path / "random.pcap", traffic.seen)
    agree(tmp_path / "random.pcap", *passes)


@pytest.mark.parametrize("name", EDITS)
def test_damaged_captures(name: str, tmp_path: Path) -> None:
    """Whatever the frames are: the same, and never an error of Lua."""
    agree(edited(name, tmp_path), "-2")


# --- findings ----------------------------------------------------------------------------


def expected_findings(capture: Path) -> Iterator[tuple[set[str], set[str]]]:
    """For each packet the names of its rules, and what is said of it."""
    tracker = TRACKER.Tracker()
    reader = FileReader(str(capture))
    for batch in reader.batches():
        tracker.learn_interfaces(reader.interfaces)
        tracker.track(batch)
        assert batch.tracked is not None
        events = dict(events_by_packet(batch))
        for row, marks in enumerate(batch.tracked["marks"].tolist()):
            own = events.get(row, ())
            kinds = {event.kind for event in own}
            more = [rule for rule in rules_of_marks(marks) if rule.kind not in kinds]
            said = {packet_sentence(batch, row, event) for event in own}
            names = {BY_KIND[kind].name for kind in kinds} | {rule.name for rule in more}
            yield names, said | {rule.what for rule in more}
    reader.close()


@passes
def test_findings_are_expert_information(passes: list[str], tmp_path: Path) -> None:
    """By the same names; with the case's numbers the first time in a connection."""
    texts = [pair.fires for pair in LUA_PAIRS]
    capture = wireshark.write_scenarios(tmp_path / "findings.pcapng", [*texts, *LATE])
    rows = wireshark.fields(capture, [*RULE_NAMES, wireshark.MESSAGE], *passes)
    for row, (names, said) in zip(rows, expected_findings(capture), strict=True):
        *values, message = row
        assert names == {name for name, value in zip(RULE_NAMES, values, strict=True) if value}
        assert {} == {text: message for text in said if text not in message}


# --- times and windows -------------------------------------------------------------------


def test_answers_are_linked(tmp_path: Path) -> None:
    """RESPONSE and REQUEST, RST and SHUTDOWN, what comes after a CREDIT_REQUEST."""
    text = """
        0.000  3:1 > host:2 REQUEST
        +2ms   3:1 < host:2 RESPONSE
        +1ms   3:1 > host:2 CREDIT_REQUEST
        +3ms   3:1 < host:2 CREDIT_UPDATE
        +1ms   3:1 > host:2 SHUTDOWN
        +4ms   3:1 < host:2 RST
    """
    names = ["vsock.response_in", "vsock.response_to", "vsock.response_time"]
    capture = wireshark.write_scenarios(tmp_path / "answers.pcapng", [text])
    assert [
        ["2", "", ""],
        ["", "1", "0.002000000"],
        ["4", "", ""],
        ["", "3", "0.003000000"],
        ["6", "", ""],
        ["", "5", "0.004000000"],
    ] == wireshark.fields(capture, names, "-2")


def test_a_stall_has_its_length() -> None:
    """At the packet that ends it."""
    stalled = "vsock.credit.stalled"
    capture = CAPTURES / "k612_bulk_stall.pcap"
    rows = wireshark.fields(capture, ["frame.number", stalled, "vsock.credit.stall"])
    long = [row for row in rows if row[1] and float(row[1]) > 0.1]
    assert [row[0] for row in rows if row[2]] == [row[0] for row in long]
    assert all(1.4 < float(row[1]) < 1.6 for row in long)


def test_names_are_right() -> None:
    """Those that the built-in dissector has wrong."""
    rows = wireshark.fields(CAPTURES / "k612_fakeguest.pcap", RIGHT_NAMES)
    assert ["STREAM", "CREDIT_REQUEST", ""] in rows
    assert ["STREAM", "SHUTDOWN", "RCV|SEND"] in rows
    rows = wireshark.fields(CAPTURES / "k612_seqpacket.pcap", ["vsock.src", *RIGHT_NAMES])
    assert ["local:964674796", "SEQPACKET", "RW", "EOM|EOR"] in rows


def test_the_info_column_is_the_packet_line() -> None:
    """Without the addresses, which stand in columns of their own."""
    capture = CAPTURES / "k612_refused.pcap"
    ours = [line.split(" ")[1:] for line in lines("-r", capture)]
    theirs = wireshark.tshark(capture)
    for mine, line in zip(ours, theirs, strict=True):
        number, source, _to, target, *rest = mine
        ports = f"{source.split(':')[1]} \u2192 {target.split(':')[1]}"
        assert line.endswith(" ".join([number, ports, *rest]))


def test_follow_shows_what_was_said() -> None:
    """Both ends, in order."""
    shown = wireshark.window(CAPTURES / "k612_http.pcap", "Follow connection", 1)
    assert ["== vsock connection 1 ==", "", "--- initiator > acceptor, from packet 3 ---"] == shown[
        :3
    ]
    assert "GET / HTTP/1.1" == shown[3]
    assert "HTTP/1.1 200 OK" in shown


def test_the_credit_graph_shows_the_stall() -> None:
    """A bar a packet, full where there is no credit."""
    shown = wireshark.window(CAPTURES / "k612_bulk_stall.pcap", "Credit graph", 1)
    assert "full width: 262144 bytes" == shown[2]
    assert any(line.endswith(f"|{'#' * 24}|!") for line in shown)
    assert max(map(len, shown)) <= 73


def test_findings_are_listed_by_severity() -> None:
    """The worst first."""
    shown = wireshark.window(CAPTURES / "k612_fakeguest.pcap", "Findings")
    order = [line.split()[0] for line in shown[1:]]
    assert sorted(order, key=["error", "warn", "note", "chat"].index) == order
    assert any(
        "vsock.connect.refused" in line and "refused the connection" in line for line in shown
    )
