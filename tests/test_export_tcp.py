"""--export tcp: what Wireshark, and a reader of RFCs, make of the packets."""

import json
import ssl
import subprocess
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from blocks import enhanced, interface, secrets, section
from hypothesis import given, settings
from hypothesis import strategies as st
from running import (
    ALL_CAPTURES,
    CAPTURES,
    PROGRAM,
    environment,
    lines,
    packets_of,
    run,
    run_bytes,
    tool,
)
from scenario import Packet, parse, pattern
from secrecy import secret_talk
from segments import (
    Line,
    Made,
    Segment,
    export,
    lines_of,
    link_types,
    made,
    segment,
    segments,
    streams,
)
from simulator import Captured, Repeat, pcap_bytes, random_traffic
from talking import talk_capture
from test_reassembly import all_of, sent
from tracking import batches_of

from vsockdump.address import Endpoint
from vsockdump.batch import Batch
from vsockdump.capture.interface import Interface
from vsockdump.capture.reader import ROWS
from vsockdump.capture.source import Counts
from vsockdump.export.tcp import TcpExport
from vsockdump.track.store import DEFAULT_CAP
from vsockdump.track.tracker import Tracker

GUEST = Endpoint(3, 1024)
HOST = Endpoint(2, 5000)
# Nothing goes wrong in them and no window is ever full.
HEALTHY = ("k612_http.pcap", "k612_many.pcap", "k612_shutdowns.pcap", "prog_http.pcapng",
           "prog_socat.pcapng", "prog_ssh.pcapng")  # fmt: skip
captures = pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)


# --- Wireshark -----------------------------------------------------------------------------


def exported(capture: Path, folder: Path, *arguments: str) -> Path:
    """An export of a capture."""
    path = folder / "export.pcapng"
    result = run("-r", capture, "--export", "tcp", "-w", path, *arguments)
    assert (0, "") == (result.status, result.out)
    return path


def shown(
    path: Path, *names: str, chosen: str = "", options: tuple[str, ...] = ()
) -> list[list[str]]:
    """Fields of the packets, by tshark."""
    fields = [word for name in names for word in ("-e", name)]
    chosen_by = ["-Y", chosen] if chosen else []
    table = tool("tshark", "-r", path, "-T", "fields", *fields, *chosen_by, *options).decode()
    return [line.split("\t") for line in table.split("\n")[:-1]]


def tshark_streams(path: Path) -> dict[int, str]:
    """Which stream of tshark's, as in `tcp,raw,7`, each connection is."""
    found: dict[int, str] = {}
    for conn, tcp, udp in shown(path, "ipv6.flow", "tcp.stream", "udp.stream"):
        stream = f"tcp,raw,{tcp}" if tcp else f"udp,raw,{udp}"
        assert stream == found.setdefault(int(conn, 16), stream)
    assert len(set(found.values())) == len(found)
    return found


def followed(path: Path, wanted: list[str]) -> list[bytes]:
    """Streams as tshark's Follow Stream gives them; it begins with the last that is asked for."""
    asked = [word for stream in wanted for word in ("-z", f"follow,{stream}")]
    text = tool("tshark", "-r", path, "-q", *asked).decode()
    parts = [part.partition("Node 1:")[2] for part in text.split("=" * 67) if "Follow:" in part]
    return [bytes.fromhex("".join(part.split("\n", 1)[1].split())) for part in reversed(parts)]


@captures
def test_follow_stream_is_what_raw_prints(capture: Path, tmp_path: Path) -> None:
    """Byte for byte, of every connection, both sides in the order of their packets."""
    path = exported(capture, tmp_path)
    found = sorted(tshark_streams(path).items())
    some = found if len(found) < 20 else found[::25]
    for (conn, _stream), data in zip(some, followed(path, [s for _c, s in some]), strict=True):
        assert run_bytes("-r", capture, "--follow", f"{conn},raw")[1] == data


@captures
def test_tshark_finds_no_fault_in_the_packets(capture: Path, tmp_path: Path) -> None:
    """Checksums are right, or unknown in packets that were cut; nothing is malformed."""
    path = exported(capture, tmp_path)
    # They take for theirs what is not: one by its port 5000, one by a likeness to ttRPC.
    others = ("--disable-protocol", "gsm_ipa", "--disable-protocol", "smpp")
    checks = ("-o", "tcp.check_checksum:TRUE", *others)
    names = ("frame.len", "frame.cap_len", "tcp.checksum.status", "_ws.malformed", "ipv6.version")
    table = shown(path, *names, options=checks)
    assert table
    for length, captured, status, malformed, version in table:
        assert ("1" if length == captured else "2", "", "6") == (status, malformed, version)


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_captures_raise_no_suspicion(name: str, tmp_path: Path) -> None:
    """Every connection is complete, and all that tshark's analysis notes are window updates."""
    path = exported(CAPTURES / name, tmp_path)
    strange = "tcp.analysis.flags && !tcp.analysis.window_update || tcp.flags.reset == 1"
    assert [] == shown(path, "frame.number", chosen=strange)
    # SYN, SYN-ACK, ACK and FIN, perhaps data
    complete = shown(path, "tcp.completeness", options=("-2",))
    assert {"23", "31"} >= {value for (value,) in complete}


@pytest.mark.parametrize("name", ["k612_bulk_stall.pcap", "k612_small_buf.pcap"])
def test_a_full_window_is_used_up_credit(name: str, tmp_path: Path) -> None:
    """tshark says that a packet fills the window where vsockdump says that no credit is left."""
    path = exported(CAPTURES / name, tmp_path)
    full = shown(path, "frame.time_epoch", chosen="tcp.analysis.window_full")
    names = ("frame.time_epoch", "vsock.virtio.op", "vsock.credit.free", "frame.number")
    fields = [word for name in names for word in ("-e", name)]
    packets = [line.split("\t") for line in lines("-r", CAPTURES / name, "-T", "fields", *fields)]
    stalls = map(json.loads, lines("-r", CAPTURES / name, "-z", "stalls", "--json"))
    own = {str(stall["first_packet"]) for stall in stalls if stall["limit"] == "sender"}
    assert full
    assert full == [
        [time]
        for time, op, free, number in packets
        if (op, free) == ("5", "0") and number not in own  # TCP has no such limit
    ]


def test_dissectors_find_their_protocols(tmp_path: Path) -> None:
    """HTTP, over several packets, and SSH."""
    path = exported(CAPTURES / "k612_http.pcap", tmp_path)
    requests = shown(path, "http.request.method", "http.request.uri", chosen="http.request")
    assert ["GET", "GET", "GET", "POST"] == [method for method, _uri in requests]
    lengths = shown(path, "http.content_length", chosen="http.request.method == POST")
    assert [["30000"]] == lengths
    path = exported(CAPTURES / "prog_ssh.pcapng", tmp_path)
    banners = [banner for (banner,) in shown(path, "ssh.protocol", chosen="ssh.protocol")]
    assert 2 == len(banners)
    assert all(banner.startswith("SSH-2.0-OpenSSH") for banner in banners)


def test_stdout_can_be_piped_into_tshark() -> None:
    """As it would be live."""
    arguments = [PROGRAM, "-r", str(CAPTURES / "k612_http.pcap"), "--export", "tcp", "-w", "-"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment()) as exporting:
        done = subprocess.run(
            ["tshark", "-r", "-", "-Y", "http.request", "-T", "fields", "-e", "http.request.uri"],
            stdin=exporting.stdout, capture_output=True, check=True, timeout=60,
        )  # fmt: skip
    assert ["/", "/big", "/nope", "/up"] == done.stdout.decode().split()


def test_other_readers_take_the_file(tmp_path: Path) -> None:
    """tcpdump and Scapy know the link type; both find the ends in the addresses."""
    path = exported(CAPTURES / "k612_refused.pcap", tmp_path)
    text = tool("tcpdump", "-nr", path).decode().splitlines()
    assert "IP6 fd76::1:397f:c4ed.50413 > fd76::1:0:1e61.7777: Flags [S]" in text[0]
    code = f"from scapy.all import *; print(rdpcap({str(path)!r})[0].summary())"
    python = Path(PROGRAM).with_name("python")
    assert (
        "TCP fd76::1:397f:c4ed:50413 > fd76::1:0:1e61:7777 S" in tool(python, "-c", code).decode()
    )


# --- what a packet becomes ---------------------------------------------------------------------


def tcp_of(chart: str, *arguments: str) -> list[Segment]:
    """The segments of a scenario."""
    return segments(export(pcap_bytes(parse(chart)), *arguments))


def chart_of(text: str) -> list[Line]:
    """`> SYN 0 0 0`: who, flags, seq, ack and length, a segment a line."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        sign, *flags, seq, ack, length = line.split()
        found.append(Line(sign, " ".join(flags), int(seq), int(ack), int(length)))
    return found


OPEN = """
    0.000  3:1024 > host:5000 REQUEST
    +1ms   3:1024 < host:5000 RESPONSE
"""
OPENED = """
    > SYN 0 0 0
    < SYN ACK 0 1 0
    > ACK 1 1 0
    < ACK 1 1 0
"""
CASES = {
    "data": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 RW 100
    +1ms 3:1024 < host:5000 CREDIT_UPDATE fwd=100
    +1ms 3:1024 < host:5000 RW 7 fwd=100
    +1ms 3:1024 < host:5000 CREDIT_REQUEST fwd=100
    +1ms 3:1024 > host:5000 CREDIT_UPDATE fwd=7
        """,
        OPENED
        + """
    > PSH ACK 1 1 100
    < ACK 1 101 0
    < PSH ACK 1 101 7
    > ACK 101 8 0
        """,
    ),
    "refused": (
        """
    0.000 3:1024 > host:5000 REQUEST
    +1ms  3:1024 < host:5000 RST nosock
        """,
        """
    > SYN 0 0 0
    < RST ACK 1 1 0
        """,
    ),
    "closed in order, and the second RST": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 SHUTDOWN
    +1ms 3:1024 < host:5000 RST
    +1ms 3:1024 > host:5000 RST nosock
        """,
        OPENED
        + """
    > FIN ACK 1 1 0
    < FIN ACK 1 2 0
    > ACK 2 2 0
        """,
    ),
    "half closed": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 RW 5
    +1ms 3:1024 > host:5000 SHUTDOWN flags=SEND
    +1ms 3:1024 < host:5000 RW 9
    +1ms 3:1024 < host:5000 SHUTDOWN flags=SEND
    +1ms 3:1024 < host:5000 RST
        """,
        OPENED
        + """
    > PSH ACK 1 1 5
    > FIN ACK 6 1 0
    < PSH ACK 1 7 9
    < FIN ACK 10 7 0
    > ACK 7 11 0
        """,
    ),
    "an end that receives no more": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 SHUTDOWN flags=RCV
    +1ms 3:1024 > host:5000 RW 5
    +1ms 3:1024 > host:5000 SHUTDOWN flags=SEND
    +1ms 3:1024 < host:5000 RST
        """,
        OPENED
        + """
    > PSH ACK 1 1 5
    > FIN ACK 6 1 0
    < FIN ACK 1 7 0
    > ACK 7 2 0
        """,
    ),
    "reset": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 RW 5
    +1ms 3:1024 < host:5000 RST
        """,
        OPENED
        + """
    > PSH ACK 1 1 5
    < RST ACK 1 6 0
        """,
    ),
    "a close that nobody answers": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 SHUTDOWN
    +8s  3:1024 > host:5000 RST
        """,
        OPENED
        + """
    > FIN ACK 1 1 0
    > RST ACK 2 1 0
        """,
    ),
    "mid-stream": (
        """
    0.000 3:1024 > host:5000 RW 10
    +1ms  3:1024 < host:5000 RW 20
    +1ms  3:1024 > host:5000 RST
        """,
        """
    > PSH ACK 1 1 10
    < PSH ACK 1 11 20
    > RST ACK 11 21 0
        """,
    ),
    "joined at the RESPONSE": (
        """
    0.000 3:1024 < host:5000 RESPONSE
    +1ms  3:1024 > host:5000 RW 10
        """,
        """
    < SYN ACK 0 1 0
    > ACK 1 1 0
    > PSH ACK 1 1 10
        """,
    ),
    "bytes that are known to be lost": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 RW 100 buf=1000
    +1ms 3:1024 < host:5000 CREDIT_UPDATE fwd=150 buf=1000
    +1ms 3:1024 > host:5000 RW 10 seq=150 buf=1000
        """,
        OPENED
        + """
    > PSH ACK 1 1 100
    < ACK 1 151 0
    > PSH ACK 151 1 10
        """,
    ),
    "data behind their FIN": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 SHUTDOWN flags=SEND
    +1ms 3:1024 > host:5000 RW 10
    +1ms 3:1024 < host:5000 RW 1
        """,
        OPENED
        + """
    > FIN ACK 1 1 0
    > PSH ACK 1 1 10
    < PSH ACK 1 11 1
        """,
    ),
    "more than an IPv6 packet takes": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 RW 65515
    +1ms 3:1024 > host:5000 RW 65536
        """,
        OPENED
        + """
    > PSH ACK 1 1 65515
    > PSH ACK 65516 1 65536
        """,
    ),
    "cut by a snaplen": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 RW 65536 cap=96
    +1ms 3:1024 > host:5000 RW 65536 cap=76
    +1ms 3:1024 > host:5000 RW 8
        """,
        OPENED
        + """
    > PSH ACK 1 1 65536
    > PSH ACK 65537 1 65536
    > PSH ACK 131073 1 8
        """,
    ),
    "a length beyond all reason": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 RW 10 len=4000000000
    +1ms 3:1024 > host:5000 RW 8
        """,
        OPENED
        + """
    > PSH ACK 1 1 131072
    > PSH ACK 4000000001 1 8
        """,
    ),
    "empty data, and packets that TCP has no word for": (
        OPEN
        + """
    +1ms 3:1024 > host:5000 RW 0
    +1ms 3:1024 > host:5000 99
    +1ms 3:1024 > host:5000 RESPONSE
    +1ms 3:1024 < host:5000 CREDIT_UPDATE
        """,
        OPENED,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_packets_become(case: str) -> None:
    """Flags, sequence numbers, acknowledgements and lengths."""
    chart, expected = CASES[case]
    found = tcp_of(chart)
    assert chart_of(expected) == lines_of(found, GUEST)
    assert all({GUEST, HOST} == {one.src, one.dst} for one in found)


def test_times_are_those_of_the_packets() -> None:
    """What is added has the time of the packet that it follows from."""
    times = [one.time_ns for one in tcp_of(OPEN + "+1ns 3:1024 > host:5000 RW 5")]
    assert [0, 10**6, 10**6, 10**6, 10**6 + 1] == times


def test_messages_end_with_push() -> None:
    """Those of SEQPACKET, where EOM says so."""
    chart = """
    0.000 3:1024 > host:5000 REQUEST type=SEQPACKET
    +1ms  3:1024 < host:5000 RESPONSE type=SEQPACKET
    +1ms  3:1024 > host:5000 RW 10 type=SEQPACKET
    +1ms  3:1024 > host:5000 RW 10 type=SEQPACKET flags=EOM
    """
    assert ["ACK", "PSH ACK"] == [one.flags for one in tcp_of(chart)[-2:]]


def test_the_window_is_the_free_credit() -> None:
    """Scaled as the SYNs say, rounded up; 0 only where there is none."""
    chart = """
    0.000 3:1024 > host:5000 REQUEST  buf=40000
    +1ms  3:1024 < host:5000 RESPONSE buf=600000
    +1ms  3:1024 < host:5000 RW 39999 buf=600000
    +1ms  3:1024 > host:5000 CREDIT_UPDATE buf=40000
    +1ms  3:1024 < host:5000 RW 1 buf=600000
    +1ms  3:1024 > host:5000 CREDIT_UPDATE buf=40000
    +1ms  3:1024 > host:5000 CREDIT_UPDATE buf=40000 fwd=33
    +1ms  3:1024 < host:5000 CREDIT_UPDATE buf=600001
    """
    found = tcp_of(chart)
    shifts = [one.options[-1] for one in found if one.options]
    assert [0, 4] == shifts
    windows = [one.window << (0 if one.options or one.src == GUEST else 4) for one in found]
    # The receiver's buffer is the limit; a SYN holds 65535 of it, so that an ACK follows.
    assert [40000, 65535, 40000, 600000, 600000, 1, 600000, 0, 33, 600016] == windows


def test_without_both_syns_windows_are_not_scaled() -> None:
    """Nobody could know by how much."""
    chart = """
    0.000 3:1024 < host:5000 RESPONSE buf=600000
    +1ms  3:1024 < host:5000 RW 10 buf=600000
    """
    found = tcp_of(chart)
    assert [b"\2\4\xff\xff\0\0\0\0", b"", b""] == [one.options for one in found]
    assert 65535 == found[-1].window
    filtered = tcp_of(OPEN + "+1ms 3:1024 > host:5000 RW 10", "op rw")
    assert [65535] == [one.window for one in filtered]


def test_a_hostile_buffer_fits_the_window() -> None:
    """The largest window there is."""
    found = tcp_of("0.0 3:1024 > host:5000 REQUEST buf=4294967295")
    assert (14, 65535) == (found[0].options[-1], found[0].window)


@pytest.mark.parametrize(
    ("port", "expected"),
    [(1, 1), (65535, 65535), (0, 49152), (65536, 49152), (964675032, 49152 + 964675032 % 16384)],
)
def test_ports(port: int, expected: int) -> None:
    """Those that fit are kept; the address has all of it."""
    (one,) = tcp_of(f"0.0 3:{port} > host:5000 RW 10")
    assert (Endpoint(3, port), (expected, 5000)) == (one.src, one.ports)


def test_ends_are_those_of_the_connection() -> None:
    """Of a loopback connection by way of CID 2 the answers come from CID 1."""
    chart = """
    0.000 1:1024 > host:5000 REQUEST
    +1ms  1:1024 < 1:5000 RESPONSE
    +1ms  1:1024 > 1:5000 RW 5
    """
    ends = {(one.src, one.dst) for one in tcp_of(chart)}
    assert {(Endpoint(1, 1024), HOST), (HOST, Endpoint(1, 1024))} == ends


def test_wide_context_ids() -> None:
    """All 64 bits are in the address."""
    (one,) = tcp_of("0.0 0xfedcba9876543210:0xffffffff > host:5000 RW 1")
    assert Endpoint(0xFEDCBA9876543210, 0xFFFFFFFF) == one.src


def test_the_same_ends_again_are_another_connection(tmp_path: Path) -> None:
    """Also for tshark, and where the first was never closed."""
    chart = OPEN + "+1ms 3:1024 > host:5000 RW 5\n" + OPEN.replace("0.000", "1.000")
    chart += "+1ms 3:1024 > host:5000 RW 6"
    path = tmp_path / "export.pcapng"
    path.write_bytes(export(pcap_bytes(parse(chart))))
    assert {1: "tcp,raw,0", 2: "tcp,raw,1"} == tshark_streams(path)
    assert [pattern(0, 5), pattern(5, 6)] == followed(path, ["tcp,raw,0", "tcp,raw,1"])


def test_the_same_packets_at_two_places_are_kept_apart() -> None:
    """Of a capture on two interfaces."""
    frames = [packet.frame for packet in parse(OPEN + "+1ms 3:1024 > host:5000 RW 5")]
    blocks = [enhanced("<", frame, 1, at) for frame in frames for at in (1, 0)]
    places = interface("<", name="one") + interface("<", name="other")
    source = section("<") + places + b"".join(blocks)
    found = segments(export(source))
    assert {(1, 0), (2, 1)} == {(one.conn, one.place) for one in found}
    assert 2 == len(streams(found))


def test_datagrams_are_udp() -> None:
    """Each one a datagram, the largest too."""
    chart = """
    0.000 3:1024 > host:5000 RW 10 type=DGRAM
    +1ms  3:1024 < host:5000 RW 65527 type=DGRAM
    +1ms  3:1024 > host:5000 RW 65536 type=DGRAM
    +1ms  3:1024 > host:5000 CREDIT_UPDATE type=DGRAM
    +1ms  3:1024 > host:5000 RST type=DGRAM
    """
    found = tcp_of(chart)
    assert [("", 10), ("", 65527), ("", 65536)] == [(one.flags, one.length) for one in found]
    assert pattern(0, 10) + pattern(10, 65536) == streams(found)[1, GUEST]


# --- which packets -------------------------------------------------------------------------


def test_a_filter_chooses_packets(tmp_path: Path) -> None:
    """What is not chosen leaves a hole, as if it had not been captured."""
    path = exported(CAPTURES / "k612_http.pcap", tmp_path, "frame.number", "!=", "13")
    assert [] == shown(path, "frame.number", chosen="tcp.flags.reset == 1")
    assert 1 == len(shown(path, "frame.number", chosen="tcp.analysis.lost_segment"))
    whole = segments(exported(CAPTURES / "k612_many.pcap", tmp_path).read_bytes())
    some = segments(exported(CAPTURES / "k612_many.pcap", tmp_path, "conn", "7").read_bytes())
    assert [one for one in whole if one.conn == 7] == some


def test_count_counts_the_packets_of_the_capture(tmp_path: Path) -> None:
    """-c 2: REQUEST and RESPONSE, which become four."""
    path = exported(CAPTURES / "k612_http.pcap", tmp_path, "-c", "2")
    assert 4 == len(segments(path.read_bytes()))


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    """Packets without a connection, and connections beyond the limit."""
    chart = OPEN + "+1ms 3:1024 > host:5000 RW 5\n0.5 3:9 > host:9 REQUEST\n+1s 3:9 > host:9 RW 7"
    stray = pcap_bytes([*parse(chart), Packet(10**9, b"short", 5)])
    source = tmp_path / "x.pcap"
    source.write_bytes(stray)
    result = run("-r", source, "--export", "tcp", "-w", tmp_path / "out.pcapng")
    expected = "vsockdump: left out of the export: 1 packet that belongs to no connection.\n"
    assert (0, "", expected) == result
    many = CAPTURES / "k612_many.pcap"
    result = run("-r", many, "--export", "tcp", "-w", tmp_path / "many.pcapng",
                 "--max-connections", "8")  # fmt: skip
    assert "were left out; see --max-connections." in result.err


# --- the file ------------------------------------------------------------------------------


def test_the_first_packet_names_the_connection() -> None:
    """With --annotate findings stand there too, at the first packet of those one became."""
    source = (CAPTURES / "k612_refused.pcap").read_bytes()
    names = [packet.comments for packet in made(export(source)) if packet.comments]
    assert ["#1 local:964674797 > local:7777"] == names[0]
    assert 8 == len(names)
    annotated = [text for packet in made(export(source, "--annotate")) for text in packet.comments]
    found = lines("-r", CAPTURES / "k612_refused.pcap", "-z", "findings", "--json")
    assert 8 + len(found) == len(annotated)


def test_several_files(tmp_path: Path) -> None:
    """Each a capture of its own, which names its connections and has the secrets."""
    whole = exported(CAPTURES / "k612_shutdowns.pcap", tmp_path).read_bytes()
    keys = tmp_path / "keys"
    keys.write_text(f"CLIENT_RANDOM {'ab' * 32} {'cd' * 48}\n")
    folder = tmp_path / "out"
    folder.mkdir()
    run("-r", CAPTURES / "k612_shutdowns.pcap", "--export", "tcp", "-w", folder / "x.pcapng",
        "-b", "packets:20", "--keylog", keys)  # fmt: skip
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    assert [20, 20, 20] == [len(made(data)) for data in files[:3]]
    assert segments(whole) == [one for data in files for one in segments(data)]
    for data in files:
        assert [101] == link_types(data)
        assert keys.read_bytes() in data
        named = [text for packet in made(data) for text in packet.comments]
        assert len(named) == len({one.conn for one in segments(data)})


def test_enough_files(tmp_path: Path) -> None:
    """-W with -G ends the run, which says how far it came."""
    folder = tmp_path / "out"
    folder.mkdir()
    result = run("-r", CAPTURES / "k612_shutdowns.pcap", "--export", "tcp", "-w",
                 folder / "x%S.pcapng", "-G", "1", "-W", "1")  # fmt: skip
    assert (0, "vsockdump: stopped after 1 file, as -W asks.\n") == (result.status, result.err)
    (path,) = folder.iterdir()
    times = [one.time_ns for one in segments(path.read_bytes())]
    assert times[-1] // 10**9 <= times[0] // 10**9 + 1


def test_a_capture_without_connections_is_an_export_too() -> None:
    """An interface and no packets."""
    with_nothing = export(pcap_bytes([]))
    assert ([101], []) == (link_types(with_nothing), made(with_nothing))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--export", "tcp"], 2),
        (["--export", "udp", "-w", "out.pcapng"], 2),
        (["--export", "tcp", "-w", "out.pcap"], 1),
        (["--export", "tcp", "-w", "/nowhere/out.pcapng"], 1),
        (["--export", "tcp", "-w", "-", "-z", "conv"], 2),
    ],
    ids=str,
)
def test_wrong_usage(arguments: list[str], status: int) -> None:
    """One sentence."""
    result = run("-r", CAPTURES / "k612_http.pcap", *arguments)
    assert (status, "", 1) == (result.status, result.out, result.err.count("\n"))


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    """A copy of it would be lost before it was read."""
    source = tmp_path / "x.pcapng"
    source.write_bytes((CAPTURES / "prog_http.pcapng").read_bytes())
    result = run("-r", source, "--export", "tcp", "-w", source)
    assert (1, f"vsockdump: {source} is the file being read; write to another one.\n") == (
        result.status,
        result.err,
    )


def test_a_damaged_file_is_exported_to_the_damage(tmp_path: Path) -> None:
    """Every packet before it."""
    source = tmp_path / "x.pcap"
    source.write_bytes((CAPTURES / "k612_http.pcap").read_bytes()[:-20])
    result = run("-r", source, "--export", "tcp", "-w", tmp_path / "out.pcapng")
    assert 1 == result.status
    assert 28 <= len(segments((tmp_path / "out.pcapng").read_bytes()))


# --- any traffic -----------------------------------------------------------------------------


class _Origin:
    """A source with one interface."""

    name = "x"
    format = "pcap"
    header = b""
    interfaces = (Interface(271),)

    def counts(self) -> Counts | None:
        """None."""

    def now_ns(self) -> int | None:
        """None."""


def export_in_batches(packets: list[Captured], rows: int) -> list[Segment]:
    """The export of packets that are read so many at a time."""
    exporter, tracker = TcpExport(_Origin(), DEFAULT_CAP), Tracker()
    found = []
    for batch in batches_of(packets, rows):
        found += _segments_of(exporter.export(tracker.track(batch), None).batch)
    return found


def _segments_of(batch: Batch) -> list[Segment]:
    found = []
    for row in batch.rows:
        at, size = int(row["packet_at"]), int(row["caplen"])
        data = bytes(batch.buffer[at : at + size])
        found.append(segment(Made(0, int(row["time_ns"]), data, int(row["wirelen"]), [])))
    return found


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 100),
    repeat=st.sampled_from(["exact", "A", "B"]),
    snaplen=st.sampled_from([None, 76, 96, 1000]),
)
def test_any_traffic_is_sound_tcp(
    seed: int, rows: int, repeat: Repeat, snaplen: int | None
) -> None:
    """Whatever the batches, the streams are whole and in order, and nobody's window is overrun."""
    traffic = random_traffic(seed, 6, 120, repeat=repeat, snaplen=snaplen)
    found = export_in_batches(traffic.seen, rows)
    assert export_in_batches(traffic.seen, ROWS) == found
    by_side = defaultdict(list)
    for (conn, _end), data in streams(found).items():
        by_side[conn].append(data)
    expected = defaultdict(list)
    for (conn, _side), data in sent(traffic, all_of(traffic)).items():
        expected[conn].append(data)
    assert {conn: sorted(data) for conn, data in expected.items()} == {
        conn: sorted(data) for conn, data in by_side.items()
    }
    assert all(one != two for one, two in pairwise(found))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), dice=st.randoms(use_true_random=False))
def test_damaged_traffic_is_exported(seed: int, dice: Random) -> None:
    """Any header field may be anything, and packets may be missing or twice."""
    traffic = random_traffic(seed, 3, 60)
    packets = []
    for seen in traffic.seen:
        frame = bytearray(seen.frame)
        if dice.random() < 0.3:
            frame[dice.randrange(len(frame))] = dice.randrange(256)
        packets += [seen._replace(frame=bytes(frame))] * dice.choice([0, 1, 1, 1, 2])
    assert export_in_batches(packets, 7) == export_in_batches(packets, ROWS)


# --- secrets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_secrets_open_what_is_inside_tls(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """tshark sees the request with --keylog, and only with it; a copy of the export keeps it."""
    talk = secret_talk(tmp_path, version)
    capture = talk_capture(talk.turns, port=8443)
    closed, opened = tmp_path / "closed.pcapng", tmp_path / "opened.pcapng"
    closed.write_bytes(export(capture))
    opened.write_bytes(export(capture, "--keylog", str(talk.keys)))
    assert [] == shown(closed, "http.request.uri", chosen="http")
    assert [["/secret", ""], ["", "200"]] == shown(
        opened, "http.request.uri", "http.response.code", chosen="http"
    )


def test_secrets_of_the_source_are_kept(tmp_path: Path) -> None:
    """In the byte order of the export."""
    talk = secret_talk(tmp_path)
    packets = packets_of(talk_capture(talk.turns, port=8443))
    blocks = [enhanced(">", packet.data, packet.time_ns // 1000) for packet in packets]
    secret = secrets(">", talk.keys.read_bytes())
    opened = tmp_path / "opened.pcapng"
    opened.write_bytes(export(section(">") + interface(">") + secret + b"".join(blocks)))
    assert [["/secret"]] == shown(opened, "http.request.uri", chosen="http.request")
