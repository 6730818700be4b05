"""Where the bytes come from: files, pipes that still grow, compression, and what cannot be."""

import contextlib
import gzip
import os
import random
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from blocks import custom, enhanced, interface, pieces, section
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
            for batch in batches:
                packets += len(batch)
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
        assert (codec, len(packed), len(packed)) == (stream.compression, stream.size, stream.position)
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


def test_gzip_gives_all_before_a_cut(codec: str) -> None:
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
    assert f"of the {codec} content, after packet 20: the {codec} data are damaged" in str(result.error)


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


@contextlib.contextmanager
def pipe() -> Iterator[tuple[str, Callable[[bytes], None], Callable[[], None]]]:
    """The path of a pipe, how to write to it, and how to end it."""
    out, into = os.pipe()
    ends = [out, into]

    def write(data: bytes) -> None:
        assert len(data) == os.write(into, data)

    def close() -> None:
        if into in ends:
            ends.remove(into)
            os.close(into)

    try:
        yield f"/proc/self/fd/{out}", write, close
    finally:
        for fd in ends:
            os.close(fd)


def parts_of(content: bytes) -> list[bytes]:
    """The records or blocks of a file."""
    return [content[part.start : part.end] for part in pieces(content)]


def check_growing(content: bytes, sent: list[bytes], done: Callable[[int], int]) -> None:
    """Send the pieces one by one; after each, what is complete must come out at once.

    `done` says how many records or blocks are complete after so many pieces.
    """
    parts = list(pieces(content))
    is_pcap = not parts[0].is_packet and parts[0].end == 24
    got = 1 if is_pcap else 0
    packets = []
    with pipe() as (path, write, close):
        write(sent[0])
        reader = FileReader(path, rows=3, buffer=200)
        batches = reader.batches()
        for number, data in enumerate(sent):
            if number:
                write(data)
            while got < done(number + 1):
                batch = next(batches)
                got += len(batch) + len(batch.blocks)
                packets += [int(row["number"]) for row in batch.rows]
            assert done(number + 1) == got
        close()
        assert [] == list(batches)
        assert reader.stream.growing
        reader.close()
    assert list(range(1, sum(part.is_packet for part in parts) + 1)) == packets


@pytest.mark.parametrize("content", [pcap(*[FRAME] * 20), every_block("<"), every_block(">")])
@pytest.mark.parametrize("seed", range(5))
def test_a_growing_pipe(time_limit: None, content: bytes, seed: int) -> None:
    """Packets come out as soon as they are complete, wherever the pipe splits them."""
    chosen = random.Random(seed)
    cuts = [0, 30, *sorted(chosen.sample(range(31, len(content)), 60)), len(content)]
    sent = [content[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    ends = [part.end for part in pieces(content)]
    check_growing(content, sent, lambda number: sum(end <= cuts[number] for end in ends))


@pytest.mark.parametrize("content", [pcap(*[FRAME] * 20), every_block("<")])
def test_a_growing_compressed_pipe(time_limit: None, codec: str, content: bytes) -> None:
    """The same for compressed data flushed after every packet, the pieces split again."""
    flushed = flushed_pieces(codec, parts_of(content))
    sent = [half for data in flushed for half in (data[: len(data) // 2], data[len(data) // 2 :])]
    if codec == "zstd":
        ending = zstandard.ZstdCompressor().compress(b"")
    sent[0:2] = [b"".join(sent[0:2])]
    total = len(flushed)

    with pipe() as (path, write, close):
        write(sent[0])
        reader = FileReader(path, rows=3, buffer=200)
        batches = reader.batches()
        got = 1 if content[:4] != b"\n\r\r\n" else 0
        for number, data in enumerate(sent):
            if number:
                write(data)
            complete = (number + 2) // 2
            while got < complete:
                batch = next(batches)
                got += len(batch) + len(batch.blocks)
            assert got == complete
        close()
        assert got == total
        with pytest.raises(CaptureError, match=f"the {codec} data end early"):
            next(batches)
        reader.close()


def test_a_pipe_byte_by_byte(time_limit: None) -> None:
    """Even the first bytes may come one at a time."""
    for content in (pcap(FRAME, FRAME), every_block(">")):
        for data in (content, gzip.compress(content)):
            with pipe() as (path, write, close):

                def feed(data: bytes = data) -> None:
                    for at in range(len(data)):
                        write(data[at : at + 1])
                    close()

                writer = threading.Thread(target=feed)
                writer.start()
                result = read_file(path, content)
                writer.join()
            assert read(content).plain() == result.plain()


def test_a_pipe_that_ends_in_a_packet(time_limit: None) -> None:
    """A writer that dies leaves the packets that it wrote, and an error."""
    content = pcap(FRAME, FRAME)
    for cut in range(5, len(content)):
        with pipe() as (path, write, close):
            write(content[:cut])
            close()
            assert read(content[:cut]).plain() == read_file(path, content).plain()


def test_memory_does_not_grow_with_a_pipe(time_limit: None) -> None:
    """50 MB through a pipe use one buffer of the size it had at the beginning."""
    records = pcap(*[FRAME] * 10_000)
    body, times = records[24:], 50_000_000 // len(records) + 1
    with pipe() as (path, _write, close):
        into = int(path.rsplit("/", 1)[1])

        def feed() -> None:
            target = writing_end(into)
            with open(target, "wb", buffering=0, closefd=False) as sink:
                send(sink.fileno(), records[:24])
                for _ in range(times):
                    send(sink.fileno(), body)
            close()

        writer = threading.Thread(target=feed)
        writer.start()
        reader = FileReader(path)
        buffers = {id(reader._buffer.obj)}
        packets = largest = 0
        for batch in reader.batches():
            packets += len(batch)
            largest = max(largest, len(batch.buffer))
            buffers.add(id(batch.buffer.obj))
        reader.close()
        writer.join()
    assert 10_000 * times == packets
    assert largest <= BUFFER
    assert len(buffers) == 1
