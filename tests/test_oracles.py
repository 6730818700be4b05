"""tshark and tcpdump on the same files: what they say and we say is the same.

Whatever differs must be in verify/deviations.py.
"""

import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from blocks import enhanced, interface, other_blocks, section
from running import ALL_CAPTURES, CAPTURES, Raw, packets_of, pcap_file, run, run_bytes, tool
from scenario import parse

from vsockdump import wire
from vsockdump.verify.deviations import (
    BLOCKS_BEFORE,
    DEVIATIONS,
    MONITOR_FIELDS,
    VIRTIO_FIELDS,
    Deviation,
    Facts,
    excuse,
)
from vsockdump.verify.headers import FIELDS

WIRESHARK_FIELDS: Final = list(FIELDS)
TSHARK_ONLY: Final = ["frame.encap_type", "frame.time_delta", "frame.time_relative"]

captures = pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)


def write(path: Path, packets: list[Raw], **form: bool) -> Path:
    """A capture of these packets."""
    path.write_bytes(pcap_file(packets, **form))
    return path


def scenario(path: Path, text: str) -> Path:
    """A capture of a scenario."""
    packets = parse(text, 10**18)
    return write(path, [Raw(p.time_ns, p.frame, p.wirelen) for p in packets])


# --- files made from captures ------------------------------------------------------------


def edited(name: str, folder: Path) -> Path:
    """One of EDITS, made in `folder`."""
    small = CAPTURES / "k61_fakeguest.pcap"
    target = folder / f"{name}.pcapng"
    kind, _, argument = name.partition("-")
    if kind == "snaplen":
        tool("editcap", "-s", argument, small, target)
    elif kind == "chopped":
        tool("editcap", "-C", argument, small, target)
    elif kind == "flipped":
        source = CAPTURES / ("k612_many.pcap" if int(argument) < 3 else "k612_fakeguest.pcap")
        tool("editcap", "-E", "0.01", "--seed", argument, source, target)
    elif kind == "merged":
        sources = [CAPTURES / file for file in ("k612_shutdowns.pcap", "prog_socat.pcapng")]
        tool("mergecap", *(["-a"] if argument == "a" else []), "-w", target, small, *sources)
    elif kind == "swapped":
        target = target.with_suffix(".pcap")
        write(target, packets_of(small.read_bytes()), big=True, nanos=argument == "ns")
    elif kind == "lengths":
        target = scenario(folder / "lengths.pcap", "\n".join(lying_lengths()))
    elif kind == "frames":
        lines = [f"{size} 3:1 > host:2 RW 9 frame={size}" for size in range(1, 86)]
        target = scenario(folder / "frames.pcap", "\n".join(lines))
    elif kind == "fields":
        target = write(folder / "fields.pcap", random_fields(random.Random(int(argument))))
    return target


EDITS: Final = [
    *(f"snaplen-{size}" for size in (20, 32, 60, 75, 76, 90)),
    *("chopped-10", "chopped--10"),
    *(f"flipped-{seed}" for seed in range(1, 5)),
    *("merged-t", "merged-a", "swapped-us", "swapped-ns", "lengths", "frames"),
    *("fields-1", "fields-2"),
]


def lying_lengths() -> Iterator[str]:
    """Packets whose monitor header gives every kind of transport and of wrong length."""
    for length in (0, 1, 43, 44, 45, 53, 54, 55, 100, 0xFFFF - 32, 0xFFFF - 31, 0xFFFF):
        for transport in (0, 1, 2, 3):
            for what in ("REQUEST", "RW 10"):
                yield f"0 3:1 > host:2 {what} mon.len={length} mon.t={transport}"


def random_fields(source: random.Random) -> list[Raw]:
    """Frames in which any field may hold any value of its size."""
    packets = []
    for number in range(200):
        frame = bytearray(parse("0 3:1 > host:2 RW 7")[0].frame)
        for header, start in ((wire.VSOCKMON, 0), (wire.VIRTIO, wire.VSOCKMON.size)):
            for field in header.fields:
                if source.random() < 0.3 and field.name != "len":
                    at = start + field.offset
                    frame[at : at + field.size] = source.randbytes(field.size)
        packets.append(Raw(number * 10**9, bytes(frame), len(frame)))
    return packets


@pytest.fixture(scope="module", params=EDITS)
def edit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of the edited captures."""
    return edited(request.param, tmp_path_factory.mktemp("edit"))


# --- tshark ------------------------------------------------------------------------------


def table(text: str, names: list[str]) -> list[Facts]:
    """The packets of tab-separated lines, by field."""
    return [dict(zip(names, line.split("\t"), strict=True)) for line in text.splitlines()]


@cache
def tshark(path: Path) -> list[Facts]:
    """The fields of every packet as tshark sees them, and how many other blocks it saw before."""
    names = [*WIRESHARK_FIELDS, *TSHARK_ONLY]
    options = [word for name in names for word in ("-e", name)]
    lines = table(tool("tshark", "-r", path, "-T", "fields", *options).decode(), names)
    packets = [line for line in lines if line["frame.encap_type"]]
    for index, packet in enumerate(packets):
        packet[BLOCKS_BEFORE] = str(lines.index(packet, index) - index)
    return packets


def ours(path: Path) -> list[Facts]:
    """The same fields from vsockdump."""
    options = [word for name in WIRESHARK_FIELDS for word in ("-e", name)]
    result = run("-r", path, "-T", "fields", *options)
    assert result.status == 0
    assert not result.err or "interfaces without names" in result.err
    return table(result.out, WIRESHARK_FIELDS)


def compare_fields(path: Path) -> int:
    """Compare field by field; the number of packets."""
    expected, actual = tshark(path), ours(path)
    assert len(expected) == len(actual)
    differences = [
        (facts["frame.number"], name, facts[name], packet[name])
        for facts, packet in zip(expected, actual, strict=True)
        for name in WIRESHARK_FIELDS
        if facts[name] != packet[name] and not excuse("tshark", name, facts)
    ]
    assert [] == differences
    return len(actual)


@captures
def test_fields_are_tsharks(capture: Path) -> None:
    """Every Wireshark field of every packet of every capture."""
    assert compare_fields(capture) > 0


def test_fields_of_edited_captures_are_tsharks(edit: Path) -> None:
    """The same where captures are cut, merged, turned round and damaged."""
    assert compare_fields(edit) > 0


def with_blocks(path: Path) -> Path:
    """A pcapng file in which every kind of block stands before each of its packets."""
    packets = parse("0 3:1 > host:2 REQUEST\n1 3:1 < host:2 RESPONSE\n2 3:1 > host:2 RW 5")
    data = section("<") + interface("<", wire.LINKTYPE_VSOCK)
    for packet in packets:
        data += b"".join(other_blocks("<")) + enhanced("<", packet.frame, packet.time_ns // 1000)
    path.write_bytes(data)
    return path


def test_blocks_that_are_no_packets_are_not_counted(tmp_path: Path) -> None:
    """As capinfos counts; tshark's numbers are ahead by the blocks that it shows as frames."""
    path = with_blocks(tmp_path / "blocks.pcapng")
    assert 3 == compare_fields(path)
    assert b"Number of packets:   3\n" in tool("capinfos", "-c", path)
    numbers = [int(facts["frame.number"]) - int(facts[BLOCKS_BEFORE]) for facts in tshark(path)]
    assert [1, 2, 3] == numbers == [int(packet["frame.number"]) for packet in ours(path)]


def test_our_spelling_has_the_same_values() -> None:
    """The correctly spelt names give what the misspelt ones give."""
    ports = [f"vsock.virtio.{end}_{word}" for end in ("src", "dst") for word in ("prot", "port")]
    options = [word for name in ports for word in ("-e", name)]
    out = run("-r", CAPTURES / "k61_fakeguest.pcap", "-T", "fields", *options).out
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0::2] for row in rows] == [row[1::2] for row in rows]


# --- tcpdump -----------------------------------------------------------------------------

_THEIRS: Final = re.compile(
    r"(?P<transport>.+) (?P<src>\d+\.\d+) > (?P<dst>\d+\.\d+) (?P<op> ?[^,]+), length \d+"
)
_OURS: Final = re.compile(r"(\d+):(\d+) > (\d+):(\d+)(?: type \d+| SEQPACKET| DGRAM)? (.*)")
_CLASS: Final = {op.name: wire.OUTER_OP[op].name for op in wire.Op if op in wire.OUTER_OP}
_TRANSPORTS: Final = {t.name for t in wire.Transport}


def tcpdump(path: Path, *options: str, tz: str = "UTC") -> list[str]:
    """tcpdump's lines."""
    out = tool("tcpdump", "-nr", path, *options, tz=tz, ok=(0, 1))
    return out.decode("ascii", "replace").splitlines()


def their_packet(line: str) -> tuple[str, ...]:
    """(addresses, transport unless it is virtio, class of op) of a line of tcpdump."""
    match = _THEIRS.fullmatch(line)
    if not match:
        return ("cut",) if line.strip() == "[|vsock]" else (line,)
    transport, op = match["transport"], match["op"].strip()
    number = re.search(r"\d+", transport)
    transport = f"transport {number[0]}" if number else transport
    number = re.search(r"\d+", op)
    return (match["src"], match["dst"], transport, f"op {number[0]}" if number else op)


def our_packet(line: str) -> tuple[str, ...]:
    """The same of a line of vsockdump -t -n -q."""
    match = _OURS.fullmatch(line)
    if not match:
        return ("cut",)
    src, dst, rest = f"{match[1]}.{match[2]}", f"{match[3]}.{match[4]}", match[5]
    outer = re.fullmatch(r"(UNKNOWN|NO_INFO|VIRTIO|transport \d+) (.*?) length \d+", rest)
    if outer:
        return (src, dst, outer[1], outer[2])
    return (src, dst, "VIRTIO", _CLASS.get(rest.split()[0], "UNKNOWN"))


def compare_packets(path: Path) -> None:
    """Addresses and class of op of every packet."""
    expected = [their_packet(line) for line in tcpdump(path, "-t")]
    actual = [our_packet(line) for line in run("-r", path, "-t", "-n", "-q").out.splitlines()]
    assert len(expected) == len(actual)
    assert [] == unexpected(path, "packet", expected, actual)


def unexpected(path: Path, about: str, expected: list[Any], actual: list[Any]) -> list[Any]:
    """(packet, theirs, ours) of the differences from tcpdump that nothing excuses."""
    if expected == actual:
        return []
    return [
        (facts["frame.number"], theirs, mine)
        for facts, theirs, mine in zip(tshark(path), expected, actual, strict=True)
        if theirs != mine and not excuse("tcpdump", about, facts)
    ]


VSOCK_CAPTURES: Final = [path for path in ALL_CAPTURES if "sll2" not in path.name]
vsock_captures = pytest.mark.parametrize("capture", VSOCK_CAPTURES, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All captures, one behind the other."""
    path = tmp_path_factory.mktemp("joined") / "all.pcap"
    tool("mergecap", "-F", "nsecpcap", "-a", "-w", path, *VSOCK_CAPTURES)
    return path


@vsock_captures
def test_packets_are_tcpdumps(capture: Path) -> None:
    """Addresses and class of op of every packet are in tcpdump's text too."""
    compare_packets(capture)


def test_packets_of_edited_captures_are_tcpdumps(edit: Path) -> None:
    """The same where captures are cut, merged, turned round and damaged."""
    compare_packets(edit)


def times(line: str) -> str:
    """The time at the start of a line, of either program."""
    match = re.match(r"(?: *\d+  )?[- ]?(?:\d{4}-\d\d-\d\d )?[\d:]+\.\d+", line)
    return match[0] if match else line


def compare_times(path: Path, tz: str = "UTC") -> None:
    """Every form of time, at both precisions, and the packet number."""
    for form in ("-#", "-tt", "-ttt", "-tttt", "-ttttt"):
        for precision in ([], ["--nano"]):
            expected = [times(line) for line in tcpdump(path, form, *precision, tz=tz)]
            out = run("-r", path, form, "-q", *precision, tz=tz).out
            actual = [times(line) for line in out.splitlines()]
            assert [] == unexpected(path, "time", expected, actual)


@pytest.mark.parametrize("name", ["k612_shutdowns.pcap", "k61_fakeguest.pcap"])
def test_times_are_tcpdumps(name: str) -> None:
    """Times of microseconds and of nanoseconds."""
    compare_times(CAPTURES / name)


def test_times_of_all_captures_are_tcpdumps(joined: Path) -> None:
    """The same of all captures one after the other."""
    compare_times(joined)


def test_times_that_go_back_are_tcpdumps(tmp_path: Path) -> None:
    """Negative differences, in another time zone and over a change of the clock."""
    base = 1774746000  # 2026-03-29, when Berlin's clock goes from 2 to 3
    seconds = (0.5, 0, 3600, 1.999999999, 100 * 86400, 5)
    packets = [Raw(int((base + s) * 10**9), packets_frame(), 76) for s in seconds]
    compare_times(write(tmp_path / "back.pcap", packets), "Europe/Berlin")


def packets_frame() -> bytes:
    """Some frame."""
    return parse("0 3:1 > host:2 REQUEST")[0].frame


def dump_lines(printed: bytes, ascii_only: bool) -> list[bytes]:
    """What a program prints of the packets' bytes, without the lines of its own."""
    found = printed.split(b"\n")
    if ascii_only:
        return [line for line in found if not re.match(rb"[\w() ]+[.:]\d+ > |#| \[\|vsock", line)]
    return [line for line in found if line.startswith(b"\t0x")]


def dump(program: str, path: Path, option: str) -> list[bytes]:
    """What tcpdump, or vsockdump, prints of the packets' bytes."""
    theirs = program == "tcpdump"
    arguments = ("-r", path, "-t", option)
    printed = tool(program, "-n", *arguments) if theirs else run_bytes(*arguments)[1]
    return dump_lines(printed, option == "-A")


def compare_dumps(path: Path) -> None:
    """-x, -xx, -X, -XX and -A print the same bytes in the same lines."""
    for option in ("-x", "-xx", "-X", "-XX", "-A"):
        assert dump("tcpdump", path, option) == dump("vsockdump", path, option)


def test_dumps_of_all_captures_are_tcpdumps(joined: Path, tmp_path: Path) -> None:
    """Dumps of real packets, up to 65,612 bytes long; but for those that the table excuses."""
    facts = tshark(joined)
    excused = [each["frame.number"] for each in facts if excuse("tcpdump", "ascii", each)]
    assert 0 < len(excused) < len(facts) / 1000
    path = tmp_path / "others.pcap"
    tool("editcap", "-F", "pcap", joined, path, *excused)
    compare_dumps(path)


@pytest.mark.parametrize("name", ["snaplen-20", "snaplen-60", "frames", "lengths"])
def test_dumps_of_cut_packets_are_tcpdumps(name: str, tmp_path: Path) -> None:
    """Packets that end inside a header, or before it."""
    compare_dumps(edited(name, tmp_path))


def test_line_ends_in_ascii_are_tcpdumps(tmp_path: Path) -> None:
    """-A treats carriage returns, tabs and other control characters alike."""
    texts = [b"a\r\nb", b"a\r", b"\r\r\n", b"\n\r", b"\tx\x0b\x0c\0\x7f\x80\xff", b"\r\n\r\n"]
    frames = [packets_frame() + text for text in texts]
    path = write(tmp_path / "ends.pcap", [Raw(0, frame, len(frame)) for frame in frames])
    compare_dumps(path)


# --- the deviations ----------------------------------------------------------------------


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: deviation.reason[:50])
def test_deviations_exist(deviation: Deviation, tmp_path: Path) -> None:
    """What is excused does happen: a deviation that is gone must leave the table."""
    if deviation.example == "any":
        path = CAPTURES / "k612_any_sll2.pcap"
    elif deviation.example == "blocks":
        path = with_blocks(tmp_path / "example.pcapng")
    else:
        path = scenario(tmp_path / "example.pcap", deviation.example)
    facts = tshark(path)[-1]
    assert deviation.applies(facts)
    if deviation.program == "tshark":
        packet = ours(path)[-1]
        differing = {name for name in WIRESHARK_FIELDS if facts[name] != packet[name]}
        assert differing
        assert set() == differing - deviation.about
        return
    if deviation.about == {"ascii"}:
        assert dump("tcpdump", path, "-A") != dump("vsockdump", path, "-A")
        return
    form = "-ttt" if deviation.about == {"time"} else "-t"
    expected, out = tcpdump(path, form)[-1], run("-r", path, form, "-n", "-q").out
    actual = out.splitlines()[-1]
    if form == "-t":
        assert their_packet(expected) != our_packet(actual)
    else:
        assert times(expected) != times(actual)


def test_all_header_fields_are_compared() -> None:
    """No field of the headers is left out of the comparison."""
    assert set() == (MONITOR_FIELDS | VIRTIO_FIELDS) - set(WIRESHARK_FIELDS) - {
        "vsock.virtio.src_port",
        "vsock.virtio.dst_port",
    }
