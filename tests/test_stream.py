"""Where the bytes come from: files, pipes that still grow, compression, and what cannot be."""

import contextlib
import gzip
import itertools
import os
import random
import stat
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from blocks import custom, enhanced, pieces
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import FRAME, memory_file, pcap, pcapng, read, read_file
from running import CAPTURES
from test_pcapng import every_block

from vsockdump.capture.errors import CaptureError
from vsockdump.capture.reader import BUFFER, LARGE, FileReader
from vsockdump.capture.stream import ByteStream

MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18"}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": lz4.frame.compress,
}


@pytest.fixture(params=sorted(COMPRESS))
def codec(request: pytest.FixtureRequest) -> str:
    """Each kind of compression."""
    return str(request.param)


def compressed(codec: str, content: bytes) -> bytes:
    """One frame or member."""
    packed = COMPRESS[codec](content)
    assert packed.startswith(MAGIC[codec])
    return packed


def read_bytes(content: bytes, **sizes: int) -> tuple[bytes, str | None]:
    """Everything that a stream gives, and the error that ends it."""
    parts = []
    with memory_file(content) as path:
        stream = ByteStream(path)
        view = memoryview(bytearray(sizes.get("size", 1000)))
        try:
            while count := stream.readinto(view):
                parts.append(bytes(view[:count]))
        except CaptureError as error:
            return b"".join(parts), str(error)
        finally:
            stream.close()
    return b"".join(parts), None


# --- what cannot be opened ---------------------------------------------------------------


def error_of(path: str | Path) -> str:
    """The message of a capture that cannot be opened."""
    with pytest.raises(CaptureError) as caught:
        FileReader(str(path))
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    """The message names the file."""
    assert f"{tmp_path}/none does not exist." == error_of(tmp_path / "none")


def test_a_directory(tmp_path: Path) -> None:
    """A directory is told from a file before it is read."""
    expected = f"{tmp_path} is a directory; give the name of a capture file."
    assert expected == error_of(tmp_path)


def test_a_path_through_a_file(tmp_path: Path) -> None:
    """Other errors of the system come with its own words."""
    (tmp_path / "file").touch()
    assert f"Cannot open {tmp_path}/file/x: not a directory." == error_of(tmp_path / "file/x")


def test_a_name_with_a_null_byte() -> None:
    """A name that no file can have is an error like the others."""
    assert "Cannot open a\0b: embedded null byte." == error_of("a\0b")


def test_a_file_without_permission(tmp_path: Path) -> None:
    """A file that another user may not read; root becomes such a user for it."""
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap(FRAME))
    path.chmod(0)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    with another_user():
        message = error_of(path)
    assert f"{path} may not be read by this user." == message


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """For a time this process has no rights but its own files'."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_closed_stdin() -> None:
    """A program started without stdin says so."""
    kept = os.dup(0)
    os.close(0)
    try:
        message = error_of("-")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert "Cannot read stdin: bad file descriptor." == message


def test_an_error_while_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails later is an error at its place, after the packets before it."""

    def fail(_fd: int, _views: object) -> int:
        raise OSError(5, "")

    content = pcap(*[FRAME] * 10)
    with memory_file(content) as path:
        reader = FileReader(path, rows=4, buffer=256)
        batches = reader.batches()
        packets = len(next(batches))
        monkeypatch.setattr("os.readv", fail)
        with pytest.raises(CaptureError) as caught:
            next(batches)
        reader.close()
    assert packets == 2
    offset = 24 + 2 * (16 + len(FRAME))
    expected = f"at byte {offset}, after packet 2: reading on failed (input/output error)."
    assert str(caught.value).endswith(expected)


def test_no_descriptor_stays_open() -> None:
    """Readers that fail to open and readers that are closed leave nothing behind."""
    before = os.listdir("/proc/self/fd")
    with contextlib.suppress(CaptureError):
        FileReader("/")
    for content in (b"", b"text", pcap()[:10], pcap(FRAME), gzip.compress(b"")):
        with memory_file(content) as path, contextlib.suppress(CaptureError):
            FileReader(path).close()
    assert before == os.listdir("/proc/self/fd")


def test_stdin_stays_open(tmp_path: Path) -> None:
    """A reader of stdin closes nothing that it did not open."""
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap(FRAME))
    with redirected_stdin(path):
        reader = FileReader("-")
        assert ("stdin", 1) == (reader.stream.name, sum(map(len, reader.batches())))
        reader.close()
        assert os.fstat(0).st_size == len(pcap(FRAME))


@contextlib.contextmanager
def redirected_stdin(path: Path) -> Iterator[None]:
    """Meanwhile descriptor 0 is this file."""
    kept = os.dup(0)
    fd = os.open(path, os.O_RDONLY)
    os.dup2(fd, 0)
    os.close(fd)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


# --- compression -------------------------------------------------------------------------


def test_compressed_samples(codec: str, sample: bytes) -> None:
    """Every capture reads the same compressed; offsets are those of the content."""
    with memory_file(compressed(codec, sample)) as path:
        packed = read_file(path, sample)
    assert read(sample, rows=100, buffer=1 << 16).plain() == packed.plain()


def test_several_frames(codec: str) -> None:
    """Frames behind each other are one content, wherever they are split."""
    content = every_block("<")
    for cut in range(0, len(content), 13):
        packed = compressed(codec, content[:cut]) + compressed(codec, content[cut:])
        assert (content, None) == read_bytes(packed)
    packed = b"".join(compressed(codec, bytes([byte])) for byte in content)
    assert (content, None) == read_bytes(packed)


def test_a_reader_knows_the_compression(codec: str) -> None:
    """Its name is there for messages, and the position counts compressed bytes."""
    packed = compressed(codec, pcap(FRAME))
    with memory_file(packed) as path:
        reader = FileReader(path)
        list(reader.batches())
        stream = reader.stream
        assert (codec, len(packed), len(packed)) == (
            stream.compression,
            stream.size,
            stream.position,
        )
        reader.close()


def test_compressed_nothing(codec: str) -> None:
    """A compressed empty file is an empty file."""
    with memory_file(compressed(codec, b"")) as path:
        assert read_file(path).error == "FILE is empty; it holds no capture."


def test_compressed_text(codec: str) -> None:
    """What is no capture inside is named as it is inside."""
    with memory_file(compressed(codec, b"hello")) as path:
        expected = "FILE is not a pcap or pcapng capture: it begins with 'hell'."
        assert expected == read_file(path).error


def test_padding_behind_gzip() -> None:
    """Zeros behind the last member are no damage, as for gzip itself."""
    content = pcap(FRAME)
    packed = gzip.compress(content)
    assert (content, None) == read_bytes(packed + bytes(100_000))
    assert (content * 2, None) == read_bytes(packed + bytes(3) + packed)


def test_skippable_frames() -> None:
    """zstd and lz4 allow frames without content, which other programs put in."""
    content = pcap(FRAME)
    skipped = b"\x50\x2a\x4d\x18\x05\0\0\0hello"
    for codec in ("zstd", "lz4"):
        packed = compressed(codec, content)
        assert (content * 2, None) == read_bytes(packed + skipped + packed + skipped)


def test_compressed_cut_anywhere(codec: str) -> None:
    """A cut compressed file gives what the bytes before the cut hold, then an error."""
    content = every_block("<") + every_block(">")
    packed = compressed(codec, content[:500]) + compressed(codec, content[500:])
    first = len(compressed(codec, content[:500]))
    whole = read(content)
    longest = 0
    for cut in range(5, len(packed)):
        with memory_file(packed[:cut]) as path:
            result = read_file(path, content)
        count = len(result.rows)
        assert whole.rows[:count].tolist() == result.rows.tolist()
        assert result.error is not None
        assert count >= longest
        longest = count
        if cut == first:
            assert f"of the {codec} content" in result.error
        else:
            assert f"the {codec} data end early." in result.error or first - 4 < cut < first + 4
    assert longest >= sum(part.is_packet for part in pieces(content) if part.end <= 500)


def test_compressed_content_before_a_cut(codec: str) -> None:
    """Content that was flushed before the cut is not lost."""
    packed = flushed_pieces(codec, [bytes([number]) * 100 for number in range(50)])
    for count in range(1, 50):
        content, error = read_bytes(b"".join(packed[:count]))
        assert b"".join(bytes([number]) * 100 for number in range(count)) == content
        assert f"the {codec} data end early" == error


def test_damaged_compression_gives_all_before_it(codec: str) -> None:
    """Content that was flushed before the damage is not lost, though read in one go."""
    packed = flushed_pieces(codec, [bytes([number]) * 100 for number in range(50)])
    damage = {"gzip": b"\xff" * 10, "zstd": b"\x06\0\0" * 4, "lz4": b"\xff\xff\xff\x7f" * 3}[codec]
    for count in range(1, 50, 7):
        content, error = read_bytes(b"".join(packed[:count]) + damage)
        assert b"".join(bytes([number]) * 100 for number in range(count)) == content
        assert f"the {codec} data are damaged (" in str(error)


def test_a_wrong_checksum(codec: str) -> None:
    """All content is there before the error that it was damaged."""
    content = pcap(*[FRAME] * 20)
    if codec == "lz4":
        packed = lz4.frame.compress(content, content_checksum=True)
    else:
        packed = compressed(codec, content)
    at = len(packed) - (8 if codec == "gzip" else 4)
    wrong = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
    with memory_file(wrong) as path:
        result = read_file(path, content)
    assert len(result.rows) == 20
    assert f"of the {codec} content, after packet 20: the {codec} data are damaged" in str(
        result.error
    )


def test_trailing_garbage(codec: str) -> None:
    """What is behind the last frame and is none is damage."""
    content = pcap(FRAME)
    got, error = read_bytes(compressed(codec, content) + b"garbage")
    assert content == got
    assert error is not None


@settings(max_examples=200)
@given(st.sampled_from(sorted(COMPRESS)), st.data())
def test_flipped_bytes_of_compressed_files(codec: str, data: st.DataObject) -> None:
    """Damage in a compressed file ends in a CaptureError or is not seen, and nothing else."""
    packed = bytearray(compressed(codec, every_block("<")))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with memory_file(bytes(packed)) as path:
        result = read_file(path)
    assert result.error is None or result.error.endswith(".")


@pytest.mark.parametrize("codec_size", [("gzip", 1 << 26), ("zstd", 1 << 28), ("lz4", 1 << 26)])
def test_a_small_file_that_expands(codec_size: tuple[str, int]) -> None:
    """A compression bomb takes a bounded amount of memory at a time."""
    codec, size = codec_size
    packed = compressed(codec, bytes(size))
    stack: list[int] = []
    with memory_file(packed) as path:
        stream = ByteStream(path)
        view = memoryview(bytearray(1 << 20))
        while count := stream.readinto(view):
            stack.append(count)
        stream.close()
    assert size == sum(stack)


def test_zstd_that_asks_for_too_much_memory() -> None:
    """A window larger than zstd's own default limit is refused."""
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x01\0\0"
    content, error = read_bytes(frame)
    assert content == b""
    assert "the zstd data are damaged (" in str(error)


# --- pipes -------------------------------------------------------------------------------


def flushed_pieces(codec: str, contents: list[bytes]) -> list[bytes]:
    """Compressed pieces, each flushed, that can be decompressed as they come."""
    if codec == "gzip":
        packer = zlib.compressobj(wbits=31)
        return [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in contents]
    if codec == "zstd":
        zstd = zstandard.ZstdCompressor().compressobj()
        flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        return [zstd.compress(part) + zstd.flush(flush) for part in contents]
    compressor = lz4.frame.LZ4FrameCompressor(auto_flush=True)
    begin = compressor.begin()
    packed = [compressor.compress(part) for part in contents]
    return [begin + packed[0], *packed[1:]]


class Pipe:
    """A pipe that is written here and read by its path."""

    def __init__(self) -> None:
        self._out, self._into = os.pipe()
        self.path = f"/proc/self/fd/{self._out}"

    def __enter__(self) -> "Pipe":
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()
        os.close(self._out)

    def write(self, data: bytes) -> None:
        """Write all of it; waits where the pipe is full."""
        while data:
            data = data[os.write(self._into, data) :]

    def end(self) -> None:
        """No more will be written."""
        if self._into >= 0:
            os.close(self._into)
            self._into = -1


def feed(target: Pipe, parts: Iterable[bytes]) -> threading.Thread:
    """Write the parts in a thread, then end the pipe."""

    def run() -> None:
        for part in parts:
            target.write(part)
        target.end()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


class Follower:
    """A reader of a growing pipe that counts what came out of it."""

    def __init__(self, path: str) -> None:
        self.reader = FileReader(path, rows=3, buffer=200)
        self.batches = self.reader.batches()
        self.count = 1 if self.reader.format == "pcap" else 0  # the file header has been read
        self.numbers: list[int] = []

    def take(self, count: int) -> None:
        """Take batches up to so many records and blocks, which must be there by now."""
        while self.count < count:
            batch = next(self.batches)
            self.count += len(batch) + len(batch.blocks)
            self.numbers += batch.rows["number"].tolist()
        assert count == self.count


@pytest.mark.parametrize("content", [pcap(*[FRAME] * 20), every_block("<"), every_block(">")])
@pytest.mark.parametrize("seed", range(5))
def test_a_growing_pipe(time_limit: None, content: bytes, seed: int) -> None:
    """Packets come out as soon as they are complete, wherever the pipe splits them."""
    parts = list(pieces(content))
    cuts = [30, *sorted(random.Random(seed).sample(range(31, len(content)), 60)), len(content)]
    with Pipe() as pipe:
        pipe.write(content[:30])
        follower = Follower(pipe.path)
        for before, cut in itertools.pairwise(cuts):
            pipe.write(content[before:cut])
            follower.take(sum(part.end <= cut for part in parts))
        pipe.end()
        assert [] == list(follower.batches)
        assert follower.reader.stream.growing
        follower.reader.close()
    packets = sum(part.is_packet for part in parts)
    assert list(range(1, packets + 1)) == follower.numbers


@pytest.mark.parametrize("content", [pcap(*[FRAME] * 20), every_block("<")])
def test_a_growing_compressed_pipe(time_limit: None, codec: str, content: bytes) -> None:
    """The same for data flushed after every packet, each piece written in two parts."""
    parts = [content[part.start : part.end] for part in pieces(content)]
    flushed = flushed_pieces(codec, parts)
    with Pipe() as pipe:
        pipe.write(flushed[0])
        follower = Follower(pipe.path)
        for number, data in enumerate(flushed, 1):
            if number > 1:
                pipe.write(data[: number % len(data)])
                pipe.write(data[number % len(data) :])
            follower.take(number)
        pipe.end()
        with pytest.raises(CaptureError, match=f"the {codec} data end early"):
            next(follower.batches)
        follower.reader.close()


@pytest.mark.parametrize("content", [pcap(FRAME, FRAME), every_block(">")])
def test_a_pipe_byte_by_byte(time_limit: None, content: bytes) -> None:
    """Even the first bytes may come one at a time, also when compressed."""
    packed = [content, *(compress(content) for compress in COMPRESS.values())]
    for data in packed:
        with Pipe() as pipe:
            writer = feed(pipe, (data[at : at + 1] for at in range(len(data))))
            result = read_file(pipe.path, content)
            writer.join()
        assert read(content).plain() == result.plain()


def test_a_pipe_that_ends_in_a_packet() -> None:
    """A writer that dies leaves the packets that it wrote, and an error."""
    content = pcap(FRAME, FRAME)
    for cut in range(len(content)):
        with Pipe() as pipe:
            pipe.write(content[:cut])
            pipe.end()
            assert read(content[:cut]).plain() == read_file(pipe.path, content).plain()


def test_a_fifo(time_limit: None, tmp_path: Path) -> None:
    """A named pipe is read like any other."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    content = pcap(FRAME)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    assert [FRAME] == read_file(str(path), content).packets
    writer.join()


# --- memory and large files --------------------------------------------------------------

RECORDS = pcap(*[FRAME] * 10_000)
TIMES = 50_000_000 // len(RECORDS)
SEVERAL_BUFFERS = 16 * BUFFER


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """What is allocated meanwhile stays far below the 50 MB of these captures."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < SEVERAL_BUFFERS
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_a_pipe(time_limit: None) -> None:
    """50 MB through a pipe use one buffer, of the size it had at the beginning."""
    with Pipe() as pipe:
        writer = feed(pipe, itertools.chain([RECORDS], itertools.repeat(RECORDS[24:], TIMES)))
        with little_memory():
            reader = FileReader(pipe.path)
            packets, buffers = 0, set()
            for batch in reader.batches():
                packets += len(batch)
                assert len(batch.buffer) <= BUFFER
                buffers.add(id(batch.buffer.obj))
            reader.close()
        writer.join()
    assert (10_000 * (TIMES + 1), 1) == (packets, len(buffers))


def test_memory_does_not_grow_with_a_file() -> None:
    """Nor does a file of 50 MB, which is read ahead, use more than some buffers."""
    with memory_file(RECORDS + RECORDS[24:] * TIMES) as path, little_memory():
        reader = FileReader(path)
        assert reader.stream.size > LARGE
        assert 10_000 * (TIMES + 1) == sum(map(len, reader.batches()))
        reader.close()


@pytest.fixture(scope="module")
def large() -> bytes:
    """A capture that is read ahead: real packets, over and over, and large blocks between."""
    sections = [path.read_bytes() for path in sorted(CAPTURES.glob("*.pcapng"))]
    between = pcapng(custom("<", bytes(BUFFER + 5000)), enhanced("<", FRAME))
    content = b"".join(sections) * 40 + between + b"".join(sections) * 20 + between
    assert len(content) > LARGE
    return content


def test_a_large_file_reads_as_a_pipe_does(time_limit: None, build: str, large: bytes) -> None:
    """Reading ahead changes nothing, and a batch is valid until the next is asked for."""
    ahead = read(large, build, rows=2000, buffer=1 << 18)
    with Pipe() as pipe:
        writer = feed(pipe, [large])
        assert ahead.plain() == read_file(pipe.path, large).plain()
        writer.join()
    assert ahead.error is None
    assert sum(part.is_packet for part in pieces(large)) == len(ahead.rows)


def test_a_large_file_that_is_cut(large: bytes) -> None:
    """Damage far behind is an error at the right place, after all packets before it."""
    parts = list(pieces(large))
    for cut in (LARGE + 1, len(large) // 2, len(large) - 1, len(large) - 50):
        result = read(large[:cut], rows=2000, buffer=1 << 18)
        assert sum(part.is_packet for part in parts if part.end <= cut) == len(result.rows)
        assert max(part.start for part in parts if part.start <= cut) == result.offset
        assert result.error is not None


def test_a_large_file_may_be_left(time_limit: None, large: bytes) -> None:
    """Closing a reader early, or before it has begun, ends its thread."""
    with memory_file(large) as path:
        before = threading.active_count()
        FileReader(path).close()
        reader = FileReader(path)
        reader.batches()
        reader.close()
        reader = FileReader(path)
        next(reader.batches())
        reader.close()
        assert before == threading.active_count()
