"""--reorder: a file's packets in order of time, by their old numbers."""

import random
import struct
import tracemalloc
from pathlib import Path

import pytest
from running import CAPTURES, lines, run, tool
from simulator import random_traffic, write_pcap

from vsockdump.capture.reorder import MOST_BYTES, WINDOW, OrderedReader

SWAPPED = Path(__file__).parent / "cases" / "imperfect" / "two-swaps.pcap"
TABLES = ("conv", "credit", "io,0", "apps")  # without numbers of packets


def records(path: Path) -> list[bytes]:
    """The records of a little-endian pcap file."""
    data, at, found = path.read_bytes(), 24, []
    while at < len(data):
        size = 16 + struct.unpack_from("<I", data, at + 8)[0]
        found.append(data[at : at + size])
        at += size
    return found


def shuffled(path: Path, to: Path, by: int) -> None:
    """The same packets, each at most about `by` places from where it was."""
    rng = random.Random(7)
    places = sorted(enumerate(records(path)), key=lambda pair: pair[0] + rng.uniform(0, by))
    to.write_bytes(path.read_bytes()[:24] + b"".join(record for _place, record in places))


@pytest.mark.parametrize("by", [2, 40, WINDOW // 2])
def test_a_shuffled_file_is_as_the_original(by: int, tmp_path: Path) -> None:
    """By every table; no packet is lost."""
    seen = random_traffic(3, connections=40, actions=2000).seen
    apart = [one._replace(time_ns=one.time_ns + place) for place, one in enumerate(seen)]
    write_pcap(tmp_path / "whole.pcap", apart)
    shuffled(tmp_path / "whole.pcap", tmp_path / "mixed.pcap", by)
    asked = [word for name in TABLES for word in ("-z", name)]
    wanted = run("-r", tmp_path / "whole.pcap", *asked)
    found = run("-r", tmp_path / "mixed.pcap", "--reorder", *asked)
    assert wanted.out == found.out
    assert (0, "") == (found.status, found.err)
    assert wanted.out != run("-r", tmp_path / "mixed.pcap", *asked).out


def test_what_is_written_is_in_order(tmp_path: Path) -> None:
    """The very records, sorted by time; Wireshark's tools agree."""
    source = CAPTURES / "k612_many.pcap"
    shuffled(source, tmp_path / "mixed.pcap", 300)
    lines("-r", tmp_path / "mixed.pcap", "--reorder", "-w", tmp_path / "sorted.pcap")
    assert sorted(records(source)) == sorted(records(tmp_path / "sorted.pcap"))
    assert b"Strict time order:   True" in tool("capinfos", "-o", tmp_path / "sorted.pcap")
    times = [struct.unpack_from("<II", record) for record in records(tmp_path / "sorted.pcap")]
    assert sorted(times) == times


def test_packets_keep_their_numbers() -> None:
    """And findings stand at the packets that show them."""
    numbers = lines("-r", SWAPPED, "--reorder", "-T", "fields", "-e", "frame.number")
    assert ["2", "1", "3"] == numbers[:3]
    assert sorted(map(int, numbers)) == list(range(1, len(numbers) + 1))
    said = "\n".join(lines("-r", SWAPPED, "--reorder", "-z", "findings"))
    assert "out_of_order" not in said
    assert "fwd_ahead" not in said


def test_what_stands_too_far_back_is_counted(tmp_path: Path) -> None:
    """It is left where it is: what it belongs before has gone on."""
    header, all_of = (CAPTURES / "k612_many.pcap").read_bytes()[:24], []
    for turn in range(12):
        for record in records(CAPTURES / "k612_many.pcap"):
            seconds = struct.unpack_from("<I", record)[0] + 10 * turn
            all_of.append(struct.pack("<I", seconds) + record[4:])
    mixed = tmp_path / "far.pcap"
    mixed.write_bytes(header + b"".join([*all_of[1:], all_of[0]]))
    result = run("-r", mixed, "--reorder", "-z", "io,0")
    assert "--reorder left 1 packet out of order, too far back in the file" in result.err
    assert "40800" in result.out


@pytest.mark.parametrize("swapped", [False, True])
def test_large_packets_wait_within_bounds(swapped: bool, tmp_path: Path) -> None:
    """By bytes too: 4000 packets of 30 kB are never held all at once."""
    frame = bytes(30_000)
    count = 4000
    order = [number ^ 1 for number in range(count)] if swapped else range(count)
    with open(tmp_path / "large.pcap", "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 271))
        for number in order:
            file.write(struct.pack("<IIII", 1, number, len(frame), len(frame)) + frame)
    reader = OrderedReader(str(tmp_path / "large.pcap"))
    tracemalloc.start()
    times = [int(time) for batch in reader.batches() for time in batch.rows["time_ns"]]
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reader.close()
    assert sorted(times) == times
    assert count == len(times)
    assert peak < MOST_BYTES + 16 * 2**20


@pytest.mark.parametrize("arguments", [("-i", "vsockmon0"), ()])
def test_live_it_is_refused(arguments: tuple[str, ...]) -> None:
    """Packets that come now are not held back."""
    result = run("--reorder", *arguments)
    assert 2 == result.status
    assert "--reorder goes with -r FILE" in result.err
