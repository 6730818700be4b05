"""Where files end and how they are called, beside tcpdump and dumpcap on the same packets."""

import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import FRAME
from running import PROGRAM, TIME_LIMIT_S, Raw, environment, packets_of, pcap_file, run, tool

from vsockdump.output.rotation import (
    Limit,
    RingBuffer,
    RotationError,
    Savefiles,
    Upcoming,
    ring_buffer,
)

SECOND = 10**9
START = 1_750_000_000 * SECOND  # 2025-06-15 15:06:40 UTC
MEGABYTE = 10**6


def packet(number: int, time_ns: int, size: int) -> Raw:
    """A frame that is told from the others by its last bytes."""
    data = FRAME.ljust(size - 4, b".") + struct.pack("<I", number)
    return Raw(time_ns, data, len(data))


def capture(path: Path, count: int, size: int, step_ns: int = SECOND // 100) -> list[Raw]:
    """Write a pcap file of microseconds; its packets."""
    packets = [packet(number, START + number * step_ns, size) for number in range(count)]
    path.write_bytes(pcap_file(packets, nanos=False))
    return packets


def content(folder: Path) -> dict[str, list[Raw]]:
    """The packets of each pcap file in a folder."""
    return {path.name: packets_of(path.read_bytes()) for path in sorted(folder.iterdir())}


# --- tcpdump -----------------------------------------------------------------------------


@pytest.mark.parametrize("files", [0, 1, 2, 4, 10, 11, 101])
@pytest.mark.parametrize("seconds", [0, 3600])
def test_sizes_as_tcpdump(files: int, seconds: int, tmp_path: Path) -> None:
    """-C, with -W and with a -G that does not come: the same names, the same bytes."""
    source, ours, theirs = tmp_path / "in.pcap", tmp_path / "ours", tmp_path / "theirs"
    capture(source, 82, 65000)  # 16 of them pass 1 MB
    options = ["-C", "1"]
    options += ["-W", str(files)] if files else []
    options += ["-G", str(seconds)] if seconds else []
    for folder in (ours, theirs):
        folder.mkdir()
    assert 0 == run("-r", source, "-w", ours / "out.pcap", *options).status
    tool("tcpdump", "-Z", "root", "-r", source, "-w", theirs / "out.pcap", *options)
    assert content(theirs).keys() == content(ours).keys()
    for name in content(theirs):
        assert (theirs / name).read_bytes() == (ours / name).read_bytes()


def test_a_limit_exactly_reached_is_not_passed(tmp_path: Path) -> None:
    """tcpdump goes to the next file where the size is larger than -C, not where it is equal."""
    source, ours, theirs = tmp_path / "in.pcap", tmp_path / "ours", tmp_path / "theirs"
    size = (MEGABYTE - 24) // 16
    assert 24 + 16 * size == MEGABYTE - 8
    packets = [packet(number, START, size - 16) for number in range(40)]
    packets[3] = packet(3, START, size - 16 + 8)
    source.write_bytes(pcap_file(packets, nanos=False))
    for folder in (ours, theirs):
        folder.mkdir()
    run("-r", source, "-w", ours / "out", "-C", "1")
    tool("tcpdump", "-Z", "root", "-r", source, "-w", theirs / "out", "-C", "1")
    assert [17, 17, 6] == [len(each) for each in content(ours).values()]
    assert content(theirs) == content(ours)


def test_times_of_a_file_are_those_of_its_packets(tmp_path: Path) -> None:
    """-G cuts a capture that is read where it would have been cut when it was made."""
    packets = capture(tmp_path / "in.pcap", 25, 100, SECOND)
    folder = tmp_path / "out"
    folder.mkdir()
    result = run("-r", tmp_path / "in.pcap", "-w", folder / "%H-%M-%S.pcap", "-G", "10")
    assert (0, "", "") == result
    assert {
        "15-06-40.pcap": packets[:10],
        "15-06-50.pcap": packets[10:20],
        "15-07-00.pcap": packets[20:],
    } == content(folder)


def test_time_zone(tmp_path: Path) -> None:
    """Names are in local time."""
    capture(tmp_path / "in.pcap", 1, 100)
    run("-r", tmp_path / "in.pcap", "-w", tmp_path / "%H%M", "-G", "10", tz="Asia/Kolkata")
    assert (tmp_path / "2036").exists()


def test_the_number_of_times_ends_it(tmp_path: Path) -> None:
    """-G with -W: after so many files vsockdump ends, what follows is not counted."""
    packets = capture(tmp_path / "in.pcap", 25, 100, SECOND)
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = ("-w", folder / "%M%S", "-G", "5", "-W", "2", "-P", "-t")
    result = run("-r", tmp_path / "in.pcap", *arguments)
    assert (0, 10) == (result.status, result.out.count("\n"))
    assert "vsockdump: stopped after 2 files, as -W asks.\n" == result.err
    assert {"0640": packets[:5], "0645": packets[5:10]} == content(folder)


def test_sizes_start_again_with_the_time(tmp_path: Path) -> None:
    """-C with -G: numbers count within a span of time, -W only makes them wider."""
    capture(tmp_path / "in.pcap", 60, 65000, SECOND)
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = ("-w", folder / "%M%S", "-C", "1", "-G", "40", "-W", "20")
    assert 0 == run("-r", tmp_path / "in.pcap", *arguments).status
    found = {name: len(packets) for name, packets in content(folder).items()}
    assert {"064000": 16, "064001": 16, "064002": 8, "072000": 16, "072001": 4} == found


# --- dumpcap -----------------------------------------------------------------------------


def dumpcap(source: Path, path: Path, *options: str) -> None:
    """Let dumpcap write a capture that it gets by a pipe."""
    with source.open("rb") as stdin:
        subprocess.run(
            ["dumpcap", "-q", "-P", "-i", "-", "-w", path, *options],
            stdin=stdin,
            capture_output=True,
            env=environment(),
            timeout=TIME_LIMIT_S,
            check=True,
        )


@pytest.mark.parametrize("name", ["out.pcap", "out", "out.tar.gz", "a.b/out"])
@pytest.mark.parametrize(
    "options",
    [
        ("-b", "packets:30"),
        ("-b", "filesize:100"),
        ("-b", "filesize:100", "-b", "files:2"),
        ("-b", "filesize:100", "-b", "files:1"),
        ("-b", "filesize:50", "-b", "packets:60"),
    ],
    ids=" ".join,
)
def test_rings_as_dumpcap(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    """The same files with the same packets; ours bear the packets' time, not the clock's."""
    capture(tmp_path / "in.pcap", 995, 1000)  # so that no last file is without packets
    found = []
    for program in ("ours", "theirs"):
        path = tmp_path / program / name
        path.parent.mkdir(parents=True)
        if program == "ours":
            run("-r", tmp_path / "in.pcap", "-w", path, *options)
        else:
            dumpcap(tmp_path / "in.pcap", path, *options)
        files = content(path.parent)
        named = {re.sub(r"(?<=_\d{5}_)\d{14}", "TIME", each): files[each] for each in files}
        assert len(files) == len(named)
        found.append(named)
    assert found[1] == found[0]
    assert all("TIME" in each for each in found[0])


def test_names_bear_the_time_of_the_first_packet(tmp_path: Path) -> None:
    """Of a capture that is read."""
    capture(tmp_path / "in.pcap", 25, 100, SECOND)
    folder = tmp_path / "out"
    folder.mkdir()
    run("-r", tmp_path / "in.pcap", "-w", folder / "n.pcap", "-b", "duration:10")
    assert [
        "n_00001_20250615150640.pcap",
        "n_00002_20250615150650.pcap",
        "n_00003_20250615150700.pcap",
    ] == list(content(folder))


def test_intervals_end_at_their_multiples(tmp_path: Path) -> None:
    """The first file is as short as it has to be."""
    capture(tmp_path / "in.pcap", 25, 100, SECOND)
    folder = tmp_path / "out"
    folder.mkdir()
    run("-r", tmp_path / "in.pcap", "-w", folder / "n.pcap", "-b", "interval:15")
    first = next(iter(content(folder)))
    assert "n_00001_20250615150640.pcap" == first
    assert [5, 15, 5] == [len(each) for each in content(folder).values()]


# --- what cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["-C", "1"],
        ["-G", "1"],
        ["-b", "packets:1"],
        ["-w", "-", "-C", "1"],
        ["-w", "-", "-b", "packets:1"],
        ["-w", "x", "-W", "3"],
        ["-w", "x", "-C", "0"],
        ["-w", "x", "-C", "1.5"],
        ["-w", "x", "-G", "-1"],
        ["-w", "x", "-C", "1", "-b", "packets:1"],
        ["-w", "x", "-W", "2", "-b", "packets:1"],
        ["-w", "x", "-b", "files:3"],
        ["-w", "x", "-b", "files:100000", "-b", "packets:1"],
        ["-w", "x", "-b", "packets"],
        ["-w", "x", "-b", "packets:"],
        ["-w", "x", "-b", "packets:0"],
        ["-w", "x", "-b", "packets:1.5"],
        ["-w", "x", "-b", "duration:nan"],
        ["-w", "x", "-b", "duration:0"],
        ["-w", "x", "-b", "duration:inf"],
        ["-w", "x", "-b", "volume:1"],
        ["-w", "x", "--postrotate-command", "true"],
        ["-w", "x", "-z", "true"],
        ["-w", "x", "-C", "1", "-z", "true", "-z", "false"],
        ["-w", "x", "-C", "1", "-z", "true", "--postrotate-command", "false"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    """One sentence, exit 2, and no file."""
    source = tmp_path / "in.pcap"
    capture(source, 1, 100)
    done = subprocess.run(
        [PROGRAM, "-r", source, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert done.stderr.startswith("vsockdump: ")
    assert [source] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["filesize:10"], RingBuffer(size=10_000)),
        (["duration:0.5", "files:3"], RingBuffer(duration_ns=SECOND // 2, files=3)),
        (["interval:3600", "packets:7"], RingBuffer(interval_ns=3600 * SECOND, packets=7)),
        (["packets:7", "packets:8"], RingBuffer(packets=8)),
    ],
)
def test_criteria(texts: list[str], expected: RingBuffer) -> None:
    """What -b takes."""
    assert expected == ring_buffer(texts)


def test_an_unknown_criterion_says_which_there_are() -> None:
    """One sentence."""
    with pytest.raises(RotationError, match="filesize:KB"):
        ring_buffer(["printname:x"])


# --- the rules themselves ------------------------------------------------------------------


def test_numbers_have_five_digits() -> None:
    """As dumpcap's, they begin anew after 99999."""
    rotation = RingBuffer(packets=1).of("n.pcap")
    rotation.first(0)
    names = [rotation.following(0) for _ in range(100_000)]
    assert "n_99999_19700101000000.pcap" == names[99_997]
    assert "n_00000_19700101000000.pcap" == names[99_998]


def test_a_ring_names_what_is_to_go() -> None:
    """The oldest, once there are more than files:N, and each once."""
    rotation = RingBuffer(packets=1, files=2).of("n")
    names = [rotation.first(0)]
    gone = []
    for _ in range(3):
        names.append(rotation.following(0) or "")
        gone.append(rotation.expired())
    assert [None, names[0], names[1]] == gone


def test_a_name_that_is_no_text() -> None:
    """Bytes that are not UTF-8 and formats that are none stay as they are."""
    hostile = "\udcff '$(x)' %Q %"
    assert "2025" + hostile == Savefiles(seconds=1).of("%Y" + hostile).first(START)
    unformatted = Savefiles(megabytes=1).of("%Y" + hostile)
    assert "%Y" + hostile == unformatted.first(START)
    assert "%Y" + hostile + "1" == unformatted.following(START)


@given(
    packets=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 40)), max_size=40),
    size=st.none() | st.integers(1, 120),
    count=st.none() | st.integers(1, 6),
    span=st.none() | st.integers(1, 9),
)
def test_limits(
    packets: list[tuple[int, int]], size: int | None, count: int | None, span: int | None
) -> None:
    """A batch is cut where one that looks at each packet on its own cuts it."""
    expected: list[list[int]] = [[]]
    held, due = 10, span
    for number, (bytes_, time) in enumerate(packets):
        full = expected[-1] and (
            (size is not None and held >= size)
            or (count is not None and len(expected[-1]) >= count)
        )
        if full or (due is not None and time >= due):
            expected.append([])
            held, due = 10, None if span is None else time + span
        expected[-1].append(number)
        held += bytes_
    sizes = np.array([bytes_ for bytes_, _time in packets], "i8")
    upcoming = Upcoming(sizes, np.array([time for _bytes, time in packets], "i8"))
    found: list[list[int]] = []
    row, due = 0, span
    while True:
        end = upcoming.until(row, Limit(size, count, due), 10, 0)
        found.append(list(range(row, end)))
        if end == len(packets):
            break
        row, due = end, None if span is None else packets[end][1] + span
    assert expected == found
