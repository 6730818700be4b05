"""--extract: every stream in a file, byte for byte, and an index that hides nothing."""

import gzip
import hashlib
import json
import os
import subprocess
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import (
    ALL_CAPTURES,
    CAPTURES,
    PROGRAM,
    TIME_LIMIT_S,
    environment,
    run,
    run_bytes,
)
from scenario import pattern
from simulator import Captured, pcap_bytes, random_traffic
from test_cli import check_complaint
from test_follow import HTTP, SOCAT, fields
from test_reassembly import OPEN, all_of, sent
from tracking import packets_of

from vsockdump.batch import Batch
from vsockdump.capture.reader import ROWS, FileReader
from vsockdump.columns import Mask
from vsockdump.output import extract
from vsockdump.output.extract import INDEX, Extract, ExtractOptions
from vsockdump.output.follow import Follow, FollowOptions, form_of
from vsockdump.output.statistics import Selection
from vsockdump.track.store import DEFAULT_CAP
from vsockdump.track.tracker import Tracker

captures = pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)


def index_of(folder: Path, listed: bool = True) -> list[dict[str, Any]]:
    """The streams of the index, each compared with its file; `listed`: with all its gaps."""
    streams: list[dict[str, Any]] = json.loads((folder / INDEX).read_text())["streams"]
    for stream in streams:
        data = (folder / stream["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (stream["bytes"], stream["sha256"])
        if listed:
            assert len(stream["gaps"]) == stream["gap_count"]
            assert sum(gap["at_least"] for gap in stream["gaps"]) == stream["missing"]
    assert {INDEX, *(stream["file"] for stream in streams)} == set(os.listdir(folder))
    return streams


def write(path: Path, packets: Sequence[Captured]) -> Path:
    """A capture of these packets."""
    path.write_bytes(pcap_bytes(packets))
    return path


# --- files -------------------------------------------------------------------------------


@captures
def test_files_hold_the_data_of_the_packets(capture: Path, tmp_path: Path) -> None:
    """Of every direction of every connection that sent any."""
    result = run("-r", capture, "--extract", tmp_path / "out")
    assert (0, "") == (result.status, result.out)
    expected = {}
    for conn, packets in fields(capture).items():
        for name in ("initiator", "acceptor"):
            data = b"".join(data for side, data in packets if side == name)
            if data:
                expected[conn, name] = data
    found = {
        (stream["conn"], stream["side"]): (tmp_path / "out" / stream["file"]).read_bytes()
        for stream in index_of(tmp_path / "out")
    }
    assert expected == {key: data for key, data in found.items() if data}


def test_a_file_is_what_raw_prints(tmp_path: Path) -> None:
    """--follow N,raw,SIDE and the file of that side."""
    run("-r", HTTP, "--extract", tmp_path / "out")
    for stream in index_of(tmp_path / "out"):
        _status, out, _err = run_bytes("-r", HTTP, "--follow", f"1,raw,{stream['side']}")
        assert out == (tmp_path / "out" / stream["file"]).read_bytes()


def test_names_are_numbers_in_the_order_of_connections(tmp_path: Path) -> None:
    """Nothing of a payload gets into them."""
    run("-r", SOCAT, "--extract", tmp_path / "out")
    streams = index_of(tmp_path / "out")
    assert "conn-0000001-initiator-1.941560942-to-1.5000.bin" == streams[0]["file"]
    numbers = [stream["conn"] for stream in streams]
    assert numbers == sorted(numbers)
    assert [stream["from"] for stream in streams[::2]] == [stream["to"] for stream in streams[1::2]]


def test_messages_and_records(tmp_path: Path) -> None:
    """Where SEQPACKET messages end; what the program sent lies between."""
    run("-r", CAPTURES / "k612_seqpacket.pcap", "--extract", tmp_path / "out")
    forth, back = index_of(tmp_path / "out")
    assert [1, 16, 1016, 66551, 132087, 197624, 347624, 547624, 547628] == forth["message_ends"]
    assert [16, 66551, 197624, 547624] == forth["record_ends"]
    assert (9, 2) == (forth["message_count"], back["message_count"])
    data = (tmp_path / "out" / forth["file"]).read_bytes()
    assert (b"a", b"hello seqpacket", b"last") == (data[:1], data[1:16], data[547624:])


def test_gaps_are_listed_and_not_filled(tmp_path: Path) -> None:
    """Of each packet of 64 KiB a snaplen of 96 left 20 bytes."""
    result = run("-r", CAPTURES / "k612_bulk_snap96.pcap", "--extract", tmp_path / "out")
    (stream,) = index_of(tmp_path / "out")
    assert (1280, 4 * 2**20) == (stream["bytes"], stream["bytes"] + stream["missing"])
    gap = {"at": 40, "offset": 65556, "size": 65516, "at_least": 65516, "why": "snaplen"}
    assert gap == stream["gaps"][1]
    check_complaint(result.err)
    assert "64 gaps with 4193024 bytes" in result.err


def test_what_came_before_the_capture(tmp_path: Path) -> None:
    """Also where the other side's packet tells of it, in an earlier batch."""
    chart = "0.0 3:1024 > host:5000 RW 10\n+1ms 3:1024 < host:5000 RW 7 seq=500"
    path = write(tmp_path / "x.pcap", packets_of(chart))
    run("-r", path, "--extract", tmp_path / "out")
    gap = {"at": 0, "offset": 0, "size": None, "at_least": 0, "why": "before-capture"}
    streams = index_of(tmp_path / "out")
    assert [[gap], [gap]] == [stream["gaps"] for stream in streams]
    assert [False, False] == [stream["initiator_known"] for stream in streams]
    assert [{"cid": 3, "port": 1024}, {"cid": 2, "port": 5000}] == [s["from"] for s in streams]


# --- what is chosen ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["file", "stdin", "gzip"])
def test_a_filter_chooses_connections(how: str, tmp_path: Path) -> None:
    """Whole ones, also where the packet that matches is the last one."""
    content = (CAPTURES / "k612_many.pcap").read_bytes()
    path = tmp_path / "many"
    path.write_bytes(gzip.compress(content) if how == "gzip" else content)
    source, stdin = ("-", content) if how == "stdin" else (path, None)
    out = tmp_path / "out"
    result = run("-r", source, "--extract", out, "op", "rst", "and", "conn", "7", stdin=stdin)
    assert (0, "") == (result.status, result.err)
    whole = fields(CAPTURES / "k612_many.pcap")[7]
    for stream in index_of(out):
        data = b"".join(part for side, part in whole if side == stream["side"])
        assert (7, data) == (stream["conn"], (out / stream["file"]).read_bytes())
    assert 3 == len(os.listdir(out))


class Extraction:
    """An extraction fed by hand, so many rows at a time."""

    def __init__(self, path: Path, out: Path, again: bool = True, **limits: int) -> None:
        self.reader = FileReader(str(path), 16)
        if not again:
            self.reader.stream.seekable = False
        self.selection = Selection("chosen")
        self.extract = Extract(
            ExtractOptions(str(out), **limits), self.reader, DEFAULT_CAP, self.selection
        )

    def run(self, chosen: int) -> list[str]:
        """Choose the packet of this number; what is said in the end."""
        tracker = Tracker()
        for batch in self.reader.batches():
            tracker.track(batch)
            mask: Mask = batch.rows["number"] == chosen
            self.selection.add(batch, mask)
            self.extract.add(batch)
        self.extract.close()
        self.reader.close()
        return list(self.extract.remarks())


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    again=st.booleans(),
    segments=st.sampled_from([1, 30, 10**6]),
    held=st.sampled_from([1, 5000, 10**9]),
    at=st.floats(0, 1, exclude_max=True),
)
def test_what_the_window_loses_is_a_gap(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    again: bool,
    segments: int,
    held: int,
    at: float,
) -> None:
    """The file has the end of the stream; gap and file together are the stream."""
    traffic = random_traffic(seed, 4, 100)
    folder = tmp_path_factory.mktemp("extract")
    path = write(folder / "x.pcap", traffic.seen)
    number = int(at * len(traffic.seen)) + 1
    made = Extraction(path, folder / "out", again, segments=segments, held=held)
    remarks = made.run(number)
    conn = traffic.seen[number - 1].truth.conn + 1
    whole = {
        side: data for (of, side), data in sent(traffic, all_of(traffic)).items() if of == conn
    }
    streams = index_of(folder / "out", listed=False)
    assert set(whole) == {int(stream["side"] == "acceptor") for stream in streams}
    for stream in streams:
        data = (folder / "out" / stream["file"]).read_bytes()
        expected = whole[stream["side"] == "acceptor"]
        assert conn == stream["conn"]
        assert expected.endswith(data)
        assert len(expected) - len(data) == stream["missing"]
        assert all(gap["why"] == "limit" for gap in stream["gaps"])
        assert any("could not be held" in line for line in remarks) or not stream["missing"]


def test_a_lost_beginning_stays_unknown(tmp_path: Path) -> None:
    """What nobody knows the size of makes the gap of the window one of unknown size."""
    filler = "+1ms 4:1 > host:1 RW 100\n" * 40
    chart = "0.0 3:1 > host:5 RW 10\n" + filler + "+1ms 3:1 > host:5 RW 5 seq=10\n"
    path = write(tmp_path / "x.pcap", packets_of(chart))
    remarks = Extraction(path, tmp_path / "out", segments=1).run(42)
    (stream,) = index_of(tmp_path / "out")
    gap = {"at": 0, "offset": 0, "size": None, "at_least": 10, "why": "limit"}
    assert [gap] == stream["gaps"]
    assert pattern(10, 5) == (tmp_path / "out" / stream["file"]).read_bytes()
    assert any(line.startswith("10 bytes could not be held") for line in remarks)


# --- limits --------------------------------------------------------------------------------


def test_the_index_has_a_limit_and_says_so(tmp_path: Path) -> None:
    """The rest is counted."""
    capture = CAPTURES / "k612_bulk_snap96.pcap"
    result = run("-r", capture, "--extract", tmp_path / "out", "--max-segments", "10")
    (stream,) = json.loads((tmp_path / "out" / INDEX).read_text())["streams"]
    assert (10, 64) == (len(stream["gaps"]), stream["gap_count"])
    assert "54 more gaps and messages are not listed" in result.err


def test_connections_beyond_the_limit_are_said(tmp_path: Path) -> None:
    """Numbers above --max-connections are left out."""
    result = run("-r", SOCAT, "--extract", tmp_path / "out", "--max-connections", "8")
    assert "" == result.err
    many = CAPTURES / "k612_many.pcap"
    result = run("-r", many, "--extract", tmp_path / "more", "--max-connections", "100")
    assert "see --max-connections." in result.err


def test_open_files_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 streams through 10 open files."""
    monkeypatch.setattr(extract, "_MOST_OPEN", 10)
    capture = CAPTURES / "k612_many.pcap"
    reader, tracker = FileReader(str(capture), 100), Tracker()
    before = len(os.listdir("/proc/self/fd"))
    made = Extract(ExtractOptions(str(tmp_path / "out")), reader, DEFAULT_CAP, None)
    for batch in reader.batches():
        made.add(tracker.track(batch))
        assert len(os.listdir("/proc/self/fd")) <= before + 11
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before
    reader.close()
    assert 400 == len(index_of(tmp_path / "out"))


class Stretched:
    """A million packets of one connection: one batch again and again, its numbers going on."""

    def __init__(self, path: Path) -> None:
        chart = OPEN + "+1us 3:1024 > host:5000 RW 10\n" * (ROWS - 3)
        self.reader = FileReader(str(write(path, packets_of(chart))))
        self.batch: Batch = next(iter(self.reader.batches()))
        Tracker().track(self.batch)

    def __iter__(self) -> Any:
        for _ in range(10**6 // ROWS + 1):
            yield self.batch
            self.batch.rows["number"] += ROWS
            assert self.batch.tracked is not None
            self.batch.tracked["marks"] = 0


def growth(batches: Stretched, take: Any) -> int:
    """Bytes of memory that come to stay between the fifth batch and the last."""
    tracemalloc.start()
    try:
        for at, batch in enumerate(batches):
            take(batch)
            if at == 4:
                early = tracemalloc.get_traced_memory()[0]
        return tracemalloc.get_traced_memory()[0] - early
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_capture(tmp_path: Path) -> None:
    """A million packets extracted and followed, without a filter and with one."""
    batches = Stretched(tmp_path / "x.pcap")
    options = ExtractOptions(str(tmp_path / "out"))
    made = Extract(options, batches.reader, DEFAULT_CAP, None)
    assert growth(batches, made.add) < 50_000
    followed = Follow(FollowOptions(1, "raw"), form_of(FollowOptions(1, "raw"), False, False))
    assert growth(batches, lambda batch: sum(map(len, followed.add(batch)))) < 50_000
    options = ExtractOptions(str(tmp_path / "filtered"), segments=4 * ROWS)
    waiting = Extract(options, batches.reader, DEFAULT_CAP, Selection("nothing"))
    assert growth(batches, waiting.add) < 50_000


# --- errors --------------------------------------------------------------------------------


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A directory that holds anything is not used; an empty one is."""
    (tmp_path / "empty").mkdir()
    assert 0 == run("-r", SOCAT, "--extract", tmp_path / "empty").status
    before = {path: path.read_bytes() for path in (tmp_path / "empty").iterdir()}
    result = run("-r", HTTP, "--extract", tmp_path / "empty")
    assert (1, "") == (result.status, result.out)
    check_complaint(result.err)
    assert before == {path: path.read_bytes() for path in (tmp_path / "empty").iterdir()}


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    """A file in its place."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        result = run("-r", SOCAT, "--extract", folder)
        assert (1, "") == (result.status, result.out)
        check_complaint(result.err)


def test_a_full_disk(tmp_path: Path) -> None:
    """One sentence; files that the system has no room for."""
    script = """trap '' XFSZ; ulimit -f 8; exec "$0" -r "$1" --extract "$2\""""
    done = subprocess.run(
        ["bash", "-c", script, PROGRAM, CAPTURES / "k612_seqpacket.pcap", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=TIME_LIMIT_S,
    )
    assert (1, "") == (done.returncode, done.stdout)
    check_complaint(done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-segments", "5"],
        ["--max-held", "5"],
        ["--extract", "x", "--max-held", "0"],
        ["--extract", "x", "--max-segments", "many"],
    ],
    ids=str,
)
def test_wrong_usage(arguments: list[str]) -> None:
    """Exit 2, one sentence."""
    result = run("-r", SOCAT, *arguments)
    assert (2, "") == (result.status, result.out)
    check_complaint(result.err)


def test_nothing_to_extract_is_said(tmp_path: Path) -> None:
    """A capture of refused connections, and a filter that matches nothing."""
    for arguments in (["-r", CAPTURES / "k612_refused.pcap"], ["-r", SOCAT, "port", "9"]):
        folder = tmp_path / str(len(arguments))
        result = run(*arguments, "--extract", folder)
        assert (0, "") == (result.status, result.out)
        check_complaint(result.err)
        assert [] == index_of(folder)


def test_a_damaged_file_is_extracted_to_the_damage(tmp_path: Path) -> None:
    """What was read is written, the error said."""
    path = tmp_path / "cut.pcapng"
    path.write_bytes(HTTP.read_bytes()[:20000])
    result = run("-r", path, "--extract", tmp_path / "out")
    assert 1 == result.status
    check_complaint(result.err)
    assert index_of(tmp_path / "out")
