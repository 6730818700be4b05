"""Writing captures: what goes in comes out, and what cannot be written is said."""

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import blocks
import numpy as np
import pytest
from reading import check_by_tshark, pcap, pcapng, read_file
from running import (
    ALL_CAPTURES,
    CAPTURES,
    PROGRAM,
    TIME_LIMIT_S,
    environment,
    run,
    run_bytes,
    tool,
)

from vsockdump.batch import PACKET_DTYPE, Batch, Layout
from vsockdump.capture.interface import NANOSECOND, Interface
from vsockdump.capture.source import Counts
from vsockdump.output.capture_file import CaptureFile
from vsockdump.output.record_file import whole_records
from vsockdump.output.rotation import RingBuffer, Savefiles

FIELDS = ["frame.number", "frame.time_epoch", "frame.len", "frame.cap_len", "vsock.virtio.len"]


def tshark(path: Path) -> bytes:
    """What tshark reads of a capture."""
    return tool("tshark", "-r", path, "-T", "fields", *(w for f in FIELDS for w in ("-e", f)))


@pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
def test_the_same_format_is_a_copy(capture: Path, tmp_path: Path) -> None:
    """pcap to pcap and pcapng to pcapng leave every byte as it was."""
    copy = tmp_path / capture.name
    assert (0, "", "") == run("-r", capture, "-w", copy)
    assert capture.read_bytes() == copy.read_bytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_blocks_that_are_no_packets_are_kept(order: str, tmp_path: Path) -> None:
    """Names, statistics, secrets, custom and unknown blocks, before, between and behind."""
    frame = bytes(76)
    others = blocks.other_blocks(order)
    content = pcapng(
        *others, blocks.enhanced(order, frame), *others, blocks.enhanced(order, frame), *others,
        order=order,
    )  # fmt: skip
    source, copy = tmp_path / "source.pcapng", tmp_path / "copy"
    source.write_bytes(content)
    assert 0 == run("-r", source, "-w", copy).status
    assert content == copy.read_bytes()


@pytest.mark.parametrize(
    "name", ["k61_fakeguest.pcap", "k612_bulk_snap96.pcap", "k612_any_sll2.pcap"]
)
def test_a_change_of_format_keeps_packets_and_times(name: str, tmp_path: Path) -> None:
    """pcap to pcapng to pcap: bytes, lengths and nanoseconds, by our reader and by tshark."""
    source, there, back = CAPTURES / name, tmp_path / "there.pcapng", tmp_path / "back.pcap"
    assert (0, "", "") == run("-r", source, "-w", there)
    assert (0, "", "") == run("-r", there, "-w", back)
    before = read_file(str(source))
    for path in (there, back):
        after = read_file(str(path))
        for column in ("time_ns", "wirelen", "mon", "virtio", "payload_wire"):
            assert before.rows[column].tolist() == after.rows[column].tolist()
        assert tshark(source) == tshark(path)


def test_count_and_stdout() -> None:
    """-c N writes N packets, -w - writes to stdout."""
    status, out, err = run_bytes("-r", CAPTURES / "k612_refused.pcap", "-c", "3", "-w", "-")
    assert (0, b"") == (status, err)
    assert out == (CAPTURES / "k612_refused.pcap").read_bytes()[: 24 + 3 * (16 + 76)]


def test_no_packets_are_a_capture_too(tmp_path: Path) -> None:
    """A capture without packets is written with its header, in either format."""
    source = tmp_path / "empty.pcap"
    source.write_bytes(pcap())
    for name in ("copy.pcap", "copy.pcapng"):
        assert (0, "", "") == run("-r", source, "-w", tmp_path / name)
        assert (0, "", "") == run("-r", tmp_path / name)
    assert source.read_bytes() == (tmp_path / "copy.pcap").read_bytes()


def test_other_link_types_stay_in_pcapng_and_do_not_fit_pcap(tmp_path: Path) -> None:
    """A pcap file has one link type."""
    interfaces = [blocks.interface("<", 271), blocks.interface("<", 1)]
    packets = [blocks.enhanced("<", bytes(76)), blocks.enhanced("<", bytes(60), 1)]
    source = tmp_path / "source.pcapng"
    source.write_bytes(pcapng(*packets, interfaces=interfaces))
    copy = tmp_path / "copy.pcapng"
    assert 0 == run("-r", source, "-w", copy).status
    assert source.read_bytes() == copy.read_bytes()
    refused = run("-r", source, "-w", tmp_path / "copy.pcap")
    assert 1 == refused.status
    assert "271" in refused.err
    assert 1 == refused.err.count("\n")


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    """Writing to the file that is read is refused, and leaves it as it was."""
    source = tmp_path / "a.pcap"
    content = (CAPTURES / "k612_refused.pcap").read_bytes()
    source.write_bytes(content)
    result = run("-r", source, "-w", source)
    assert (1, 1) == (result.status, result.err.count("\n"))
    assert content == source.read_bytes()


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/file.pcap", "/"])
def test_what_cannot_be_written_is_said(path: str) -> None:
    """A full disk, a folder that is not there, a directory: one sentence, exit 1."""
    result = run("-r", CAPTURES / "k612_many.pcap", "-w", path)
    assert (1, "", 1) == (result.status, result.out, result.err.count("\n"))
    assert result.err.startswith("vsockdump: Cannot write ")


def test_packets_before_the_damage_are_written(tmp_path: Path) -> None:
    """Of a cut file all whole records are copied, and the exit status says the rest."""
    content = (CAPTURES / "k612_refused.pcap").read_bytes()
    source, copy = tmp_path / "cut.pcap", tmp_path / "copy.pcap"
    source.write_bytes(content[:-1])
    assert 1 == run("-r", source, "-w", copy).status
    assert content[: -(16 + 76)] == copy.read_bytes()


# --- a source that is no file --------------------------------------------------------------

SECOND: Final = 10**9
NOW: Final = 1_750_000_000 * SECOND


class Ring:
    """A live source: frames somewhere in a buffer, no records, and a clock that is set."""

    name = "vsk0"
    live = True
    format = ""
    header = b""
    size = position = packets = 0
    kept = 1

    def __init__(self, snaplen: int = 0) -> None:
        self.interfaces = [Interface(271, snaplen, self.name, NANOSECOND)]
        self.time_ns = NOW
        self.kernel = Counts()

    def batch(self, *frames: bytes, step_ns: int = 1) -> Batch:
        """A batch of frames that come now, `step_ns` apart."""
        rows = np.zeros(len(frames), PACKET_DTYPE)
        buffer = b""
        for index, (row, frame) in enumerate(zip(rows, frames, strict=True)):
            buffer += b"between"
            row["packet_at"], row["caplen"] = len(buffer), len(frame)
            row["wirelen"], row["time_ns"] = len(frame) + 1, self.time_ns + index * step_ns
            buffer += frame
        return Batch(rows, memoryview(buffer), Layout())

    def batches(self) -> Iterator[Batch]:
        """Not asked for: the tests hand batches over."""
        return iter(())

    def stop(self) -> None:
        """Nothing runs."""

    def counts(self) -> Counts:
        """As the test set them."""
        return self.kernel

    def now_ns(self) -> int:
        """As the test set it."""
        return self.time_ns

    def close(self) -> None:
        """Nothing is open."""


FRAMES: Final = [bytes([number]) * (76 + number) for number in range(9)]


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
@pytest.mark.parametrize("chosen", [None, [0, 3, 8]])
def test_a_ring_becomes_records(suffix: str, chosen: list[int] | None, tmp_path: Path) -> None:
    """Frames, lengths and nanoseconds, read back by us and by tshark."""
    source, path = Ring(), tmp_path / f"out.{suffix}"
    writer = CaptureFile(str(path), source)
    batch = source.batch(*FRAMES, step_ns=SECOND + 1)
    writer.write(batch, None if chosen is None else np.array(chosen))
    writer.close()
    numbers = list(range(9)) if chosen is None else chosen
    result = check_by_tshark(path)
    assert [FRAMES[number] for number in numbers] == result.packets
    assert [NOW + number * (SECOND + 1) for number in numbers] == result.rows["time_ns"].tolist()
    assert [len(FRAMES[number]) + 1 for number in numbers] == result.rows["wirelen"].tolist()


def test_a_ring_is_pcapng_unless_the_name_says_pcap(tmp_path: Path) -> None:
    """The name decides, and without a suffix pcapng keeps more."""
    for name, magic in (("out", 0x0A0D0D0A), ("out.pcap", 0xA1B23C4D), ("out.ntar", 0x0A0D0D0A)):
        CaptureFile(str(tmp_path / name), Ring()).close()
        assert magic.to_bytes(4, "little") == (tmp_path / name).read_bytes()[:4]


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_readable_before_the_first_packet_and_after_each(suffix: str, tmp_path: Path) -> None:
    """At no time does anything wait in a buffer of ours."""
    source, path = Ring(), tmp_path / f"out.{suffix}"
    writer = CaptureFile(str(path), source)
    assert [] == read_file(str(path)).packets
    for count, frame in enumerate(FRAMES, 1):
        writer.write(source.batch(frame))
        result = read_file(str(path))
        assert (None, FRAMES[:count]) == (result.error, result.packets)
    writer.close()


def file_blocks(path: Path) -> str:
    """The blocks of a pcapng file, as Wireshark's dissector of such files prints them."""
    return tool("tshark", "-r", path, "-X", "read_format:MIME Files Format", "-V").decode()


def test_statistics_of_the_interface(tmp_path: Path) -> None:
    """At the end of each file: what the kernel counted since the capture began, and when."""
    source = Ring()
    writer = CaptureFile(
        str(tmp_path / "out.pcapng"), source, RingBuffer(packets=2).of(str(tmp_path / "out.pcapng"))
    )
    source.time_ns += 3 * SECOND
    source.kernel = Counts(received=4, dropped=1)
    writer.write(source.batch(*FRAMES[:3]))
    source.time_ns += 4 * SECOND
    source.kernel = Counts(received=9, dropped=6)
    writer.close()
    files = sorted(tmp_path.iterdir())
    assert 2 == len(files)
    for path, (received, dropped), second in zip(files, ((4, 1), (9, 6)), (43, 47), strict=True):
        shown = file_blocks(path)
        assert f"Number of Received Packets = {received}" in shown
        assert f"Number of Dropped Packets = {dropped}" in shown
        assert f"[Timestamp: Jun 15, 2025 15:06:{second}.000000000 UTC]" in shown
        start, end = (struct.pack("<HHII", code, 8, *divmod(time, 2**32)) for code, time in (
            (2, NOW), (3, NOW + (second - 40) * SECOND)
        ))  # fmt: skip
        assert start + end in path.read_bytes()
        assert dropped == read_file(str(path)).dropped
        assert b"Number of stat entries = 1" in tool("capinfos", path)


# --- several files -------------------------------------------------------------------------


def test_the_clock_ends_a_file_without_packets(tmp_path: Path) -> None:
    """As dumpcap's timers do; a packet that comes later goes to the file that is then open."""
    source, path = Ring(), tmp_path / "n.pcap"
    writer = CaptureFile(str(path), source, RingBuffer(duration_ns=10 * SECOND).of(str(path)))
    assert 0.1 == writer.tick_s
    for second in range(25):
        source.time_ns = NOW + second * SECOND
        writer.tick()
        if second in (1, 24):
            writer.write(source.batch(FRAMES[second % 9]))
    writer.close()
    assert {
        "n_00001_20250615150640.pcap": [FRAMES[1]],
        "n_00002_20250615150650.pcap": [],
        "n_00003_20250615150700.pcap": [FRAMES[6]],
    } == {each.name: read_file(str(each)).packets for each in sorted(tmp_path.iterdir())}


def test_packets_end_a_savefile(tmp_path: Path) -> None:
    """As in tcpdump, -G waits for a packet."""
    source, path = Ring(), tmp_path / "%M%S"
    writer = CaptureFile(str(path), source, Savefiles(seconds=10).of(str(path)))
    assert writer.tick_s is None
    source.time_ns += 25 * SECOND
    assert 1 == len(list(tmp_path.iterdir()))
    writer.write(source.batch(FRAMES[0]))
    writer.close()
    assert {"0640": [], "0705": [FRAMES[0]]} == {
        each.name: read_file(str(each)).packets for each in sorted(tmp_path.iterdir())
    }


def test_no_file_is_to_follow(tmp_path: Path) -> None:
    """What was dealt with is said in rows of the batch, and nothing is written any more."""
    for name, chosen, taken in (("all", None, 3), ("some", [1, 2, 5, 8], 5)):
        source, path = Ring(), tmp_path / name
        writer = CaptureFile(str(path), source, Savefiles(seconds=3, files=1).of(str(path)))
        batch = source.batch(*FRAMES, step_ns=SECOND)
        assert taken == writer.write(batch, None if chosen is None else np.array(chosen))
        assert writer.full
        assert 0 == writer.write(batch)
        writer.close()
        kept = range(9) if chosen is None else chosen
        assert [FRAMES[each] for each in kept if each < 3] == read_file(str(path)).packets


@pytest.mark.parametrize("order", ["<", ">"])
def test_each_file_of_a_pcapng_source_is_a_capture(order: str, tmp_path: Path) -> None:
    """Section and interfaces are repeated; comments and other blocks stay where they were."""
    comment = [(1, b"a comment")]
    packets = [blocks.enhanced(order, frame, 0, number % 2, comment if number == 3 else ())
               for number, frame in enumerate(FRAMES[:6])]  # fmt: skip
    interfaces = [blocks.interface(order, name="a"), blocks.interface(order, name="b")]
    content = blocks.section(order, length=4000) + b"".join(
        [*interfaces, *packets[:3], blocks.statistics(order), *packets[3:]]
    )
    other = ">" if order == "<" else "<"
    content += blocks.section(other) + blocks.interface(other, name="c") + blocks.enhanced(
        other, FRAMES[6]
    )  # fmt: skip
    (tmp_path / "in.pcapng").write_bytes(content)
    folder = tmp_path / "out"
    folder.mkdir()
    options = ("-w", folder / "n.pcapng", "-b", "packets:2")
    assert (0, "", "") == run("-r", tmp_path / "in.pcapng", *options)
    files = sorted(folder.iterdir())
    found = [check_by_tshark(path) for path in files]
    assert [FRAMES[:2], FRAMES[2:4], FRAMES[4:6], FRAMES[6:7]] == [each.packets for each in found]
    assert [[0, 1], [0, 1], [0, 1], [0]] == [each.rows["interface"].tolist() for each in found]
    assert blocks.statistics(order) in files[1].read_bytes()
    assert b"a comment" in files[1].read_bytes()
    assert all(struct.pack(order + "q", 4000) not in path.read_bytes() for path in files)


def test_blocks_before_the_first_packet_wait_for_its_time(tmp_path: Path) -> None:
    """A pipe gives the section first; the file is named after the packet that comes later."""
    source, path = Ring(), tmp_path / "n.pcapng"
    source.format = "pcapng"
    source.now_ns = lambda: None  # type: ignore[assignment,method-assign]
    source.counts = lambda: None  # type: ignore[assignment,method-assign]
    source.interfaces = []
    head = (blocks.section("<"), blocks.interface("<"))
    writer = CaptureFile(str(path), source, RingBuffer(packets=1).of(str(path)), clock=lambda: 0)
    writer.write(Batch(np.zeros(0, PACKET_DTYPE), memoryview(b""), Layout(True), head))
    assert [] == list(tmp_path.iterdir())
    record = blocks.enhanced("<", FRAMES[0])
    batch = source.batch(FRAMES[0])
    batch.rows["record_len"] = len(record)
    writer.write(Batch(batch.rows, memoryview(record), Layout(True)))
    writer.close()
    (made,) = tmp_path.iterdir()
    assert ("n_00001_20250615150640.pcapng", b"".join(head) + record) == (
        made.name, made.read_bytes()
    )  # fmt: skip


# --- what ends a file before its time ------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
@pytest.mark.parametrize("name", ["k612_many.pcap", "prog_http.pcapng"])
def test_a_full_disk_leaves_whole_records(suffix: str, name: str, tmp_path: Path) -> None:
    """Whatever the room, the file ends behind a record; one sentence, exit 1."""
    source, path = CAPTURES / name, tmp_path / f"out.{suffix}"
    whole = read_file(str(source)).packets
    for room in (0, 25, 150, 152, 4096, 10_001):
        result = subprocess.run(
            ["prlimit", f"--fsize={room}", PROGRAM, "-r", source, "-w", path],
            capture_output=True, text=True, env=environment(), timeout=TIME_LIMIT_S, check=False,
        )  # fmt: skip
        assert (1, 1) == (result.returncode, result.stderr.count("\n"))
        assert result.stderr.startswith(f"vsockdump: Cannot write {path}: file too large")
        assert path.stat().st_size <= room
        if path.stat().st_size:
            kept = read_file(str(path))
            assert kept.error is None
            assert whole[: len(kept.packets)] == kept.packets
    assert len(kept.packets) > 10


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file system of 64 KiB, in a mount namespace of its own."""
    copy = tmp_path / "copy.pcap"
    script = 'mount -t tmpfs -o size=64k none "$1" && "$2" -r "$3" -w "$1/x.pcap"; s=$?;' \
        ' cp "$1/x.pcap" "$4"; exit $s'  # fmt: skip
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", folder, PROGRAM,
         CAPTURES / "k612_many.pcap", copy],
        capture_output=True, text=True, env=environment(), timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert "no space left on device" in done.stderr
    content = copy.read_bytes()
    assert (CAPTURES / "k612_many.pcap").read_bytes().startswith(content)
    kept = read_file(str(copy))
    assert kept.error is None
    assert (1 << 16) - 70_000 < (1 << 16) - len(content) < 300
    assert b"cut short" not in tool("capinfos", copy)


def test_a_full_disk_ends_only_the_file_that_it_fills(tmp_path: Path) -> None:
    """The files before are whole, and the command does not get the broken one."""
    folder = tmp_path / "out"
    folder.mkdir()
    done = subprocess.run(
        ["prlimit", "--fsize=30000", PROGRAM, "-r", CAPTURES / "prog_http.pcapng",
         "-w", folder / "n.pcapng", "-b", "filesize:31", "-z", "rm"],
        capture_output=True, text=True, env=environment(), timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    (left,) = folder.iterdir()
    assert read_file(str(left)).error is None


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_killed_while_writing(suffix: str, tmp_path: Path) -> None:
    """After SIGKILL everything that was printed is in the file."""
    path = tmp_path / f"out.{suffix}"
    content = (CAPTURES / "k612_refused.pcap").read_bytes()
    with subprocess.Popen(
        [PROGRAM, "-r", "-", "-w", path, "-P", "-l"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        process.stdin.write(content[: 24 + 3 * 92 + 50])
        process.stdin.flush()
        for _ in range(3):
            assert process.stdout.readline()
        process.kill()
    assert 3 == len(check_by_tshark(path).packets)
    assert b"Number of packets:   3" in tool("capinfos", "-c", path)


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_killed_in_the_middle_of_much(suffix: str, tmp_path: Path) -> None:
    """SIGKILL at any moment costs at most the record that the kernel was copying."""
    path = tmp_path / f"out.{suffix}"
    content = (CAPTURES / "k612_many.pcap").read_bytes()
    whole = read_file(str(CAPTURES / "k612_many.pcap")).packets
    with subprocess.Popen(
        [PROGRAM, "-r", "-", "-w", path], stdin=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin
        process.stdin.write(content[:24])
        with pytest.raises(BrokenPipeError):  # noqa: PT012 - it comes when the process is gone
            while True:
                process.stdin.write(content[24:])
                if path.exists() and path.stat().st_size > 4 * len(content):
                    process.kill()
        process.stdin = None  # what is left in its buffer has nowhere to go
    found = read_file(str(path))
    count = len(found.packets)
    assert (whole * (count // len(whole) + 1))[:count] == found.packets
    end = path.stat().st_size if found.offset is None else found.offset
    assert path.stat().st_size - end < 32 + max(map(len, whole))
    assert f"Number of packets:   {count}".encode() in tool("capinfos", "-cM", path, ok=(0, 1))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_whole_records(big: bool, form: str) -> None:
    """Where records end, for every length of what was written, in either byte order."""
    order = ">" if big else "<"
    if form == "pcap":
        records = [blocks.pcap_record(order, frame) for frame in FRAMES]
    else:
        records = [blocks.enhanced(order, frame) for frame in FRAMES]
    data = b"".join(records)
    ends = [0, *np.cumsum([len(record) for record in records]).tolist()]
    layout = Layout(form == "pcapng", big)
    for size in range(len(data) + 1):
        expected = max(end for end in ends if end <= size)
        assert expected == whole_records(memoryview(data)[:size], layout)
