"""Reading pcap files: both byte orders, both resolutions, and every way to be damaged."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocks import MICRO, MODIFIED, NANO, ORDERS, pcap_header, pcap_record, pieces
from reading import FRAME, check_by_tshark, memory_file, pcap, read, read_file
from running import ALL_CAPTURES, tool

from vsockdump.capture.reader import FileReader

UNITS = {MICRO: 1000, NANO: 1, MODIFIED: 1000}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("magic", UNITS)
def test_every_magic_in_both_byte_orders(build: str, order: str, magic: int) -> None:
    """Time stamps have the unit that the magic says; the modified format is skipped right."""
    more = bytes(8) if magic == MODIFIED else b""
    seconds = (0, 1, 2**31, 2**32 - 1)
    records = [pcap_record(order, FRAME, when, 999_999, more_header=more) for when in seconds]
    result = read(pcap_header(order, magic) + b"".join(records), build)
    expected = [when * 10**9 + 999_999 * UNITS[magic] for when in seconds]
    assert expected == result.rows["time_ns"].tolist()
    assert [b"payload"] * 4 == result.payloads
    assert [FRAME] * 4 == result.packets
    assert result.error is None


def test_a_fraction_of_more_than_a_second(build: str) -> None:
    """A fraction that lies adds up; nothing is cut off."""
    content = pcap_header() + pcap_record("<", FRAME, 2**32 - 1, 2**32 - 1)
    time_ns = (2**32 - 1) * 10**9 + (2**32 - 1) * 1000
    assert [time_ns] == read(content, build).rows["time_ns"].tolist()


def test_the_header_is_kept() -> None:
    """Format, header, link type and snaplen are there for who writes the file again."""
    content = pcap_header(">", NANO, linktype=271 | 0xF << 28, snaplen=96)
    with memory_file(content) as path:
        reader = FileReader(path)
        assert ("pcap", content) == (reader.format, reader.header)
        assert [(271, 96, 9)] == [place[:2] + place[3:4] for place in reader.interfaces]
        assert reader.dropped is None
        assert [] == list(reader.batches())
        reader.close()


def test_a_file_without_packets_is_no_error(build: str) -> None:
    """The header alone is a capture that saw nothing."""
    result = read(pcap_header(), build)
    assert (0, None) == (len(result.rows), result.error)


# --- damage ------------------------------------------------------------------------------


def cuts(content: bytes, exhaustive: int = 1500, more: int = 100) -> Iterator[int]:
    """Every place in the first bytes of a file, and some behind."""
    yield from range(1, min(exhaustive, len(content)))
    if len(content) > exhaustive:
        yield from sorted(random.Random(len(content)).sample(range(exhaustive, len(content)), more))


def check_cuts(content: bytes) -> None:
    """A file cut anywhere gives all packets before the cut, and an error if it cut a piece."""
    with memory_file(content) as path:
        whole = read_file(path, content, rows=100, buffer=1 << 16)
    parts = list(pieces(content))
    ends = {part.end for part in parts}
    for cut in cuts(content):
        result = read(content[:cut], rows=100, buffer=4096)
        count = sum(part.is_packet for part in parts if part.end <= cut)
        assert whole.rows[:count].tolist() == result.rows.tolist()
        assert whole.packets[:count] == result.packets
        assert (cut not in ends) == (result.error is not None), cut
        if result.error is not None and cut >= 4:
            start = max((part.start for part in parts if part.start <= cut), default=0)
            assert start == result.offset
            assert f"byte {start}," in result.error


def test_samples_cut_anywhere(sample: bytes) -> None:
    """Every capture gives every packet before the cut, and an error where it cuts a piece."""
    check_cuts(sample)


@pytest.mark.parametrize("order", ORDERS)
def test_a_small_file_cut_anywhere(build: str, order: str) -> None:
    """The same in both byte orders and both builds, at every byte."""
    content = pcap(FRAME, b"", FRAME[:50], order=order)
    boundaries = {part.end for part in pieces(content)}
    for cut in range(len(content)):
        result = read(content[:cut], build)
        assert sum(end <= cut for end in boundaries - {24}) == len(result.rows)
        assert (cut in boundaries) == (result.error is None)


@pytest.mark.parametrize(
    ("content", "offset", "text"),
    [
        (b"", 0, "FILE is empty; it holds no capture."),
        (b"\xd4", 0, "FILE is not a pcap or pcapng capture: it begins with bytes d4."),
        (b"hello world\n", 0, "FILE is not a pcap or pcapng capture: it begins with 'hell'."),
        (b"a\n\n\n", 0, "FILE is not a pcap or pcapng capture: it begins with bytes 61 0a 0a 0a."),
        (bytes(100), 0, "FILE is not a pcap or pcapng capture: it begins with bytes 00 00 00 00."),
        (
            pcap_header()[:10],
            0,
            "FILE is damaged or cut off at byte 0, before the first packet:"
            " the pcap file header of 24 bytes is cut off after 10.",
        ),
        (
            pcap(FRAME)[:-1],
            24,
            "FILE is damaged or cut off at byte 24, before the first packet:"
            " the packet of 83 bytes is cut off after 82.",
        ),
        (
            pcap(FRAME, FRAME)[:130],
            123,
            "FILE is damaged or cut off at byte 123, after packet 1:"
            " the record header of 16 bytes is cut off after 7.",
        ),
    ],
)
def test_what_the_error_says(content: bytes, offset: int, text: str) -> None:
    """One sentence, with the place and what is wrong there."""
    result = read(content)
    assert (text, offset) == (result.error, result.offset)


@pytest.mark.parametrize("caplen", [262145, 2**31, 2**32 - 1])
@pytest.mark.parametrize("order", ORDERS)
def test_a_record_that_claims_too_much(build: str, order: str, caplen: int) -> None:
    """No memory is taken for a claim of gigabytes; it is damage."""
    record = pcap_record(order, FRAME, caplen=caplen)
    result = read(pcap(FRAME, order=order) + record + bytes(10_000), build)
    assert (1, 24 + 99) == (len(result.rows), result.offset)
    assert f"the record claims {caplen} bytes of packet, more than 262144" in str(result.error)


def test_the_longest_record_is_read(build: str) -> None:
    """A packet of libpcap's largest snaplen is read even if the buffer has to grow for it."""
    packet = FRAME + bytes(262144 - len(FRAME))
    result = read(pcap(packet, packet), build)
    assert ([packet] * 2, None) == (result.packets, result.error)


def test_oracle_tcpdump_counts(tmp_path: Path) -> None:
    """tcpdump finds as many packets in every capture, and in a cut one."""
    for capture in ALL_CAPTURES:
        content = capture.read_bytes()
        assert count_by_tcpdump(capture) == len(read(content, rows=100, buffer=1 << 16).rows)
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(content := pcap(FRAME, FRAME)[:-1])
    assert count_by_tcpdump(cut) == len(read(content).rows) == 1


def test_oracle_tshark() -> None:
    """tshark reads the same from every capture that ships."""
    for capture in ALL_CAPTURES:
        check_by_tshark(capture)


def count_by_tcpdump(path: Path) -> int:
    """Packets that tcpdump prints; it exits with 1 at a cut, and indents hex dumps."""
    lines = tool("tcpdump", "-nr", path, ok=(0, 1)).splitlines()
    return sum(not line.startswith(b"\t") for line in lines)
