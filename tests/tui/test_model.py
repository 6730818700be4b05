"""The model of the terminal program, without a screen."""

import gzip
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looking import CAPTURES, opened
from running import lines as run_lines

from vsockdump.batch import Batch
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.reader import FileReader
from vsockdump.filters.filter import Filter
from vsockdump.output.text import TextOptions, TextView
from vsockdump.track.tracker import Tracker
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.columns import COLUMNS, Formatter, colour_rule
from vsockdump.tui.model.completion import check, complete
from vsockdump.tui.model.details import Node, details, node_at, packet_bytes
from vsockdump.tui.model.goto import GotoError, place_of
from vsockdump.tui.model.hexdump import hex_row, row_count
from vsockdump.tui.model.passes import Chosen, Listing, Pass, find, numbers_of
from vsockdump.tui.model.rates import Rates

ALL = sorted(path.name for path in CAPTURES.glob("*.pcap*"))
PLACES = ("record_at", "packet_at", "payload_at", "record_offset")


def first_reading(path: Path) -> list[tuple[Any, ...]]:
    """Every packet as the pipeline sees it, without its places in the file and the buffer."""
    reader, tracker, packets = FileReader(str(path)), Tracker(), []
    for batch in reader.batches():
        tracker.learn_interfaces(reader.interfaces)
        packets += plain(tracker.track(batch))
    reader.close()
    return packets


def plain(batch: Batch) -> list[tuple[Any, ...]]:
    """Rows, tracked columns and bytes of packets, as values that compare with ==."""
    assert batch.tracked is not None
    rows, tracked, found = batch.rows.copy(), batch.tracked.copy(), []
    for row, ours in zip(rows, tracked, strict=True):
        start, data = int(row["packet_at"]), int(ours["data_at"])
        packet = bytes(batch.buffer[start : start + int(row["caplen"])])
        stream = bytes(batch.buffer[data : data + int(ours["data_cap"])])
        for name in PLACES:
            row[name] = 0
        row["record_len"] = ours["data_at"] = 0
        found.append((row.tolist(), ours.tolist(), packet, stream))
    return found


def again(capture: Capture, numbers: Any) -> list[tuple[Any, ...]]:
    """The same of packets that are read a second time."""
    return [packet for batch in capture.again().batches(numbers) for packet in plain(batch)]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_packet_read_again_is_the_packet_that_was_tracked(
    name: str, packed: bool, tmp_path: Path
) -> None:
    """From the file itself and from a copy, in one piece and here and there."""
    path = CAPTURES / name
    expected = first_reading(path)
    if packed:
        packed_path = tmp_path / "packed.gz"
        packed_path.write_bytes(gzip.compress(path.read_bytes()))
        path = packed_path
    with opened(path) as capture:
        count = len(capture.index)
        assert expected == again(capture, numbers_of(1, count))
        assert bool(packed) == bool(capture.records.copied)
        some = numbers_of(1, count)[:: max(count // 7, 1)]
        assert [expected[int(number) - 1] for number in some] == again(capture, some)


def test_only_the_packets_that_are_looked_at_are_decoded() -> None:
    """Twenty lines cost twenty packets, however many there are."""
    with opened(CAPTURES / "k612_many.pcap") as capture:
        reader = capture.again()
        formatter = Formatter(reader)
        formatter.lines(numbers_of(1000, 20))
        assert 20 + 1 == reader.decoded  # and the first, from which times are counted
        formatter.lines(numbers_of(3000, 20))
        assert 40 + 1 == reader.decoded


@pytest.mark.parametrize("name", ALL)
def test_the_list_says_what_the_packet_line_says(name: str) -> None:
    """The words of a line, in the same order, for every capture."""
    with opened(CAPTURES / name) as capture:
        columns = tuple(name for name in COLUMNS if name not in ("number", "time"))
        numbers = numbers_of(1, len(capture.index))
        view = TextView(TextOptions(times=1, apps=True))
        expected = []
        for batch in capture.again().batches(numbers):
            text = b"".join(map(bytes, view.write(batch))).decode()
            expected += [sorted(line.replace(" > ", " ").split()) for line in text.splitlines()]
        lines = Formatter(capture.again(), columns).lines(numbers)
        assert expected == [sorted(" ".join(line.cells).split()) for line in lines]


@pytest.mark.parametrize(("times", "expected"), [(5, "0.000133"), (3, "0.000133"), (2, None)])
def test_times(times: int, expected: str | None) -> None:
    """Zeros that only take room are left out, and the time above is that of the packet above."""
    with opened(CAPTURES / "prog_http.pcapng") as capture:
        line = Formatter(capture.again(), ("time",), times).lines(numbers_of(2, 1), above=1)[0]
        if expected is None:
            seconds, rest = divmod(capture.again().time_of(2), 10**9)
            expected = f"{seconds}.{rest // 1000:06}"
        assert (expected,) == line.cells


@pytest.mark.parametrize(
    "text",
    ["op rw", "conn 7", "conn in {3, 5..8} and op rst", "not conn 1", "src port 1070 or conn 2"],
)
def test_a_filter_lists_what_the_command_line_prints(text: str) -> None:
    """The same packets, found by the same evaluator; places and numbers fit each other."""
    with opened(CAPTURES / "k612_many.pcap") as capture:
        wanted = Filter.of(text)
        batches = capture.again().batches(numbers_of(1, len(capture.index)))
        expected = [
            number
            for batch in batches
            for number in batch.rows["number"][wanted.mask(batch)].tolist()
        ]
        chosen = Chosen(capture, wanted)
        chosen.join()
        assert expected == chosen.numbers(0, 10**6).tolist()
        assert list(range(len(chosen))) == [chosen.place(number) for number in expected]
        place, found = -1, []
        while (next_place := find(capture, Listing(capture), wanted, place)) is not None:
            found.append(next_place + 1)
            place = next_place
        assert expected == found
        place, found = len(capture.index), []
        while (before := find(capture, Listing(capture), wanted, place, False)) is not None:
            found.append(before + 1)
            place = before
        assert expected[::-1] == found
        chosen.cancel()


@pytest.mark.parametrize("text", ["proto nbd", "proto nbd and conn 1"])
def test_a_filter_of_what_applications_say(text: str) -> None:
    """As on the command line, where the dialogues run beside the filter."""
    path = CAPTURES.parent / "tests/apps/recorded/nbdkit-1.pcap"
    printed = run_lines("-r", path, "-#", "-t", text)
    with opened(path) as capture:
        chosen = Chosen(capture, Filter.of(text))
        chosen.join()
        assert [int(line.split()[0]) for line in printed] == chosen.numbers(0, 10**6).tolist()
        assert printed


def test_a_filter_of_connections_reads_only_their_packets() -> None:
    """What the index decides is not read."""
    with opened(CAPTURES / "k612_many.pcap") as capture:
        seen: list[int] = []
        going_over = Pass(capture, lambda batch: seen.append(len(batch)), ((7, 7),))
        going_over.start()
        going_over.join()
        assert 17 == sum(seen)


def test_a_pass_keeps_up_and_can_be_cancelled(tmp_path: Path) -> None:
    """It waits for more while there may be more, and ends when told."""
    content = (CAPTURES / "k612_many.pcap").read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    half, both = threading.Event(), threading.Event()
    writer = threading.Thread(target=feed, args=(pipe, content, half, both))
    writer.start()
    with opened(pipe, read=False) as capture:
        chosen = Chosen(capture, Filter.of("op rw"))
        capture.wait(0, lambda: True)
        half.set()
        both.wait()
        while capture.wait(len(capture.index), lambda: True):
            pass
        chosen.join()
        assert 3400 == chosen.done == len(capture.index)
        assert capture.snapshot().copied > 3400 * 76
        other = Chosen(capture, Filter.of("op rst"))
        other.cancel()
    writer.join()


def feed(pipe: Path, content: bytes, half: Any, both: Any) -> None:
    """Write some of a capture, and the rest when told."""
    with open(pipe, "wb", buffering=0) as file:
        file.write(content[:4096])
        half.wait()
        file.write(content[4096:])
    both.set()


def test_a_copy_has_its_limit(tmp_path: Path) -> None:
    """Beyond it packets are tracked and counted, and the user is told."""
    path = tmp_path / "packed.gz"
    path.write_bytes(gzip.compress((CAPTURES / "k612_many.pcap").read_bytes()))
    with opened(path, max_copy=100_000) as capture:
        snapshot = capture.snapshot()
        assert 3400 == snapshot.packets + snapshot.left_out
        assert snapshot.left_out
        assert snapshot.copied <= 100_000
        assert 200 == snapshot.connections
        assert f"last {snapshot.left_out} packets are counted but not listed" in snapshot.trouble
        assert "--max-copy" in snapshot.trouble


def test_damage_ends_the_reading_after_the_packets_before_it(tmp_path: Path) -> None:
    """They stay listed, and the sentence is the reader's."""
    path = tmp_path / "cut.pcap"
    path.write_bytes((CAPTURES / "k612_refused.pcap").read_bytes()[:-10])
    with opened(path) as capture:
        snapshot = capture.snapshot()
        assert snapshot.packets > 0
        assert snapshot.ended
        assert "is damaged or cut off" in snapshot.trouble


def test_a_file_that_is_changed_meanwhile(tmp_path: Path) -> None:
    """It is told, and no wrong packet is shown."""
    path = tmp_path / "changed.pcap"
    path.write_bytes((CAPTURES / "k612_many.pcap").read_bytes())
    with opened(path) as capture:
        with path.open("r+b") as file:
            file.truncate(5000)
        with pytest.raises(CaptureError, match="shorter"):
            capture.again().packet(3000)
        with path.open("r+b") as file:
            file.write(b"\xff" * 5000)
        with pytest.raises(CaptureError, match="changed while it is open"):
            capture.again().packet(10)


def test_pictures_are_copies() -> None:
    """Tables and findings are those of the command line."""
    with opened(CAPTURES / "k612_fakeguest.pcap") as capture:
        tables = capture.tables()
        store = capture.tracker.store
        assert sorted(store.connections["number"][: store.used]) == list(
            tables.connections["number"]
        )
        assert (len(tables.connections), 2) == tables.flows.shape
        assert not np.shares_memory(tables.connections, store.connections)
        severities = [group.rule.severity for group in capture.findings()]
        assert sorted(severities, reverse=True) == severities


@pytest.mark.parametrize("name", ALL)
def test_details_know_their_bytes(name: str) -> None:
    """Every field's value is that of its bytes, and every header byte has its field."""
    with opened(CAPTURES / name) as capture:
        reader = capture.again()
        for number in numbers_of(1, min(len(capture.index), 60)).tolist():
            batch = reader.packet(number)
            data, nodes = packet_bytes(batch), details(capture, batch)
            for node in flat(nodes):
                assert 0 <= node.start <= node.start + node.size <= len(data)
                if node.name.endswith("_port"):
                    field = data[node.start : node.start + node.size]
                    assert str(int.from_bytes(field, "little")) == node.value
            for at in range(int(batch.rows["link_size"][0]), len(data)):
                assert node_at(nodes, at)[-1].holds(at)


def flat(nodes: tuple[Node, ...]) -> list[Node]:
    """Nodes and those under them."""
    return [each for node in nodes for each in (node, *flat(node.children))]


def test_details_explain_a_finding() -> None:
    """With the case's own numbers, and what usually brings it about."""
    with opened(CAPTURES / "k612_refused.pcap") as capture:
        node = details(capture, capture.again().packet(2))[0]
        assert ("note: refused", "vsock.connect.refused") == (node.label, node.name)
        assert "local:7777 refused the connection after" in node.value
        assert ["What", "Likely cause", "Look at", "Source"] == [
            child.label for child in node.children
        ]


def test_colour_rules() -> None:
    """By what is wrong, then by operation."""
    with opened(CAPTURES / "k612_fakeguest.pcap") as capture:
        lines = Formatter(capture.again()).lines(numbers_of(1, len(capture.index)))
        rules = {colour_rule(line) for line in lines}
        assert {"", "opening", "rst", "credit", "warn"} <= rules


def test_hex_rows() -> None:
    """What could steer a terminal is a dot."""
    data = b"ab\x1b[31m\x7f\xff" + bytes(9)
    assert 3 == row_count(len(data), 8)
    row = hex_row(data, 0, 8)
    assert (0, "ab.[31m.") == (row.offset, row.characters)
    assert ("61", "62", "1b") == row.hexes[:3]
    assert ("00",) == hex_row(data, 2, 8).hexes[-1:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("po", "port"),
        ("op re", "request"),
        ("vsock.state == re", "reset"),
        ("port 5 and finding cred", "credit.overrun"),
        ("src h", "host"),
        ("vsock.virtio.bu", "vsock.virtio.buf_alloc"),
        ("flag e", "eom"),
    ],
)
def test_completion(text: str, expected: str) -> None:
    """Words, fields, and the values of what stands before."""
    start, candidates = complete(text, len(text))
    assert expected in candidates
    assert all(word.startswith(text[start:]) for word in candidates)


def test_checking_a_filter() -> None:
    """What is wrong stands where it is."""
    assert (None, None) == check("  ")
    assert "port 5" == str(check("port 5").filter)
    error = check("port x").error
    assert error is not None
    assert 5 == error.at


@pytest.mark.parametrize(("text", "place"), [("5", 4), ("#31", 30), ("99", 30), ("+0.0155", 10)])
def test_going_somewhere(text: str, place: int) -> None:
    """By number or time; beyond the end is the end."""
    with opened(CAPTURES / "prog_http.pcapng") as capture:
        assert place == place_of(text, Listing(capture), capture.again())


@pytest.mark.parametrize("text", ["", "x", "-1", "25h"])
def test_going_nowhere(text: str) -> None:
    """What can be typed is said."""
    with (
        opened(CAPTURES / "prog_http.pcapng") as capture,
        pytest.raises(GotoError, match="Give a packet number"),
    ):
        place_of(text, Listing(capture), capture.again())


def test_a_mistake_of_ours_ends_the_capture_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would see what a thread raises."""

    def fails(*_batch: object) -> None:
        raise ZeroDivisionError("once")

    monkeypatch.setattr(Rates, "add", fails)
    with opened(CAPTURES / "k612_http.pcap") as capture:
        assert capture.ended
        assert "ZeroDivisionError: once" in capture.snapshot().trouble


def test_a_file_gives_way_to_the_screen() -> None:
    """It waits behind its first batch, goes on when it is told, and half of the time at least."""
    source = FileReader(str(CAPTURES / "k612_many.pcap"), rows=100)
    capture = Capture(source)
    capture.give_way(60)
    capture.start()
    assert capture.wait(0, lambda: True)
    time.sleep(0.1)
    assert 100 == len(capture.index)
    capture.give_way(0)
    while capture.wait(len(capture.index), lambda: True):
        capture.give_way(0.001)
    assert 3400 == len(capture.index)
    capture.close()
    source.close()


def test_who_ends_a_capture_does_not_wait_for_it() -> None:
    """Also where it gives way."""
    source = FileReader(str(CAPTURES / "k612_many.pcap"), rows=100)
    capture = Capture(source)
    capture.give_way(60)
    capture.start()
    capture.close()
    assert len(capture.index) <= 200
    source.close()
