"""libpcap's raw forms mean what they mean to libpcap: the same packets as tcpdump chooses.

tcpdump runs with -O: its optimizer moves comparisons, and where one of them is about bytes
that a packet does not have it then answers differently from the filter as it was written.
"""

import struct
import subprocess
from pathlib import Path

import pytest
from blocks import pcap_header
from filtering import cooked, cut_frames, relations, trees
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reading import memory_file
from running import ALL_CAPTURES, Raw, packets_of, run_bytes, tool

from vsockdump import wire
from vsockdump.capture.reader import FileReader
from vsockdump.filters.lower import lowered
from vsockdump.filters.masks import mask_of
from vsockdump.filters.parse import parse
from vsockdump.filters.printer import text
from vsockdump.filters.tree import Node

# What libpcap does not compile: constants that come to 0 behind / or %, shifts by more than
# 31 bits, arithmetic on more registers than there are.
REFUSALS = (b"by zero", b"shift by", b"registers")

RAW_FORMS = (
    "link[0:4] = 0x03000000",
    "link[24:2] = 0x0400 or link[24:2] = 0x0100 and link[62:2] = 0x0500",
    "not link[24:2] = 0x0400 or link[62:2] = 0x0500 and less 100",
    "link[62] = 5 and link[56:4] != 0 or greater 200 and not link[64] & 1 = 1",
    "less 76",
    "greater 77",
    "!(less 76) && (link[16:4] & 0xff == link[20:4] & 0xff || len > 100)",
    "len - 76 = link[56] + (link[57] << 8)",
    "link[76] = 71",
    "not link[76] = 71",
    "not (link[100] = 0 and link[101] = 0)",
    "link[link[28] + 32:4] != 0x47455420",
    "ether[44] > 5 or len / (link[64] - 1) < 77",
    "1 + 2 * 3 - 4 < link[60] << 2 | 1 & 3",
    "5 < -link[0]",
)


def chosen(path: str | Path, tree: Node) -> list[Raw]:
    """The packets that a filter chooses."""
    reader = FileReader(str(path))
    found = []
    for batch in reader.batches():
        rows = batch.rows[mask_of(lowered(tree), batch)]
        for row in rows:
            at = int(row["packet_at"])
            data = bytes(batch.buffer[at : at + int(row["caplen"])])
            found.append(Raw(int(row["time_ns"]), data, int(row["wirelen"])))
    reader.close()
    return found


@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_raw_forms_on_captures(capture: Path) -> None:
    """The same packets on every capture."""
    counts = set()
    for form in RAW_FORMS:
        theirs = tool("tcpdump", "-O", "--nano", "-r", capture, "-w", "-", form)
        found = chosen(capture, parse(form))
        assert packets_of(theirs) == found
        counts.add(len(found))
    assert len(counts) > 1


def test_raw_forms_choose_what_is_written(tmp_path: Path) -> None:
    """The command writes what tcpdump writes."""
    ours, theirs = tmp_path / "ours.pcap", tmp_path / "theirs.pcap"
    for form in RAW_FORMS[:3]:
        assert (0, b"", b"") == run_bytes("-r", ALL_CAPTURES[0], "-w", ours, form)
        tool("tcpdump", "-O", "--nano", "-r", ALL_CAPTURES[0], "-w", theirs, form)
        assert packets_of(theirs.read_bytes()) == packets_of(ours.read_bytes())


@settings(deadline=None)
@given(
    trees(relations, 4),
    st.lists(cut_frames(), min_size=1, max_size=10),
    st.sampled_from((wire.LINKTYPE_VSOCK, wire.LINKTYPE_LINUX_SLL2)),
)
def test_raw_forms_on_random_packets(
    tree: Node, packets: list[tuple[bytes, int]], linktype: int
) -> None:
    """The same packets of random ones, for filters that libpcap accepts."""
    content = pcap_header(linktype=linktype)
    for number, (data, size) in enumerate(packets, 1):
        data = cooked(data) if linktype == wire.LINKTYPE_LINUX_SLL2 else data
        content += struct.pack("<IIII", number, 0, len(data), max(size, len(data))) + data
    with memory_file(content) as path:
        done = subprocess.run(
            ["tcpdump", "-O", "-r", path, "-w", "-", "--", text(tree)],
            capture_output=True,
            pass_fds=[int(path.rsplit("/", 1)[1])],
        )
        assume(not any(refusal in done.stderr for refusal in REFUSALS))
        assert done.returncode == 0, done.stderr
        assert packets_of(done.stdout) == chosen(path, tree)


@pytest.mark.parametrize("form", RAW_FORMS)
def test_raw_forms_print_as_raw_forms(form: str) -> None:
    """What is printed of them is for libpcap as well."""
    tree = parse(form)
    assert tree == parse(text(tree))
    tool("tcpdump", "-d", "-y", "VSOCK", "--", text(tree))
