"""Messages of applications: kept on disk, in the list, in the details, in searches."""

from pathlib import Path
from typing import Any

import pytest
from looking import CAPTURES, opened

from vsockdump.apps.dialogues import DialogueOptions, Dialogues
from vsockdump.apps.inner_frames import frame_fields
from vsockdump.apps.message import Call, Kind, Message, Said
from vsockdump.capture.reader import FileReader
from vsockdump.filters.filter import Filter
from vsockdump.lazy import DECODERS
from vsockdump.output.said import detail_lines
from vsockdump.track.tracker import Tracker
from vsockdump.tui.model.columns import Formatter
from vsockdump.tui.model.details import Node, details
from vsockdump.tui.model.messages import Messages
from vsockdump.tui.model.passes import Chosen, Listing, find, numbers_of

RECORDED = Path(__file__).parents[1] / "apps" / "recorded"
PATHS = sorted(
    [*RECORDED.glob("*.pcap"), *CAPTURES.glob("prog_[hs][ts][th]*"), CAPTURES / "k612_http.pcap"]
)


def drawn(groups: Any) -> list[tuple[int, list[str]]]:
    """Messages in full, each behind the packet it stands with."""
    return [(said.packet, list(detail_lines(said))) for group in groups for said in group]


def said_in(path: Path) -> list[tuple[int, list[str]]]:
    """What the application layer gives for a file."""
    reader, tracker = FileReader(str(path)), Tracker()
    dialogues, found = Dialogues(DialogueOptions({}), 10**6), []
    for batch in reader.batches():
        dialogues.add(tracker.track(batch))
        found += drawn((batch.said or {}).values())
    reader.close()
    return sorted([*found, *drawn([dialogues.finish()])], key=lambda one: one[0])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_message_read_again_is_the_one_that_was_said(path: Path) -> None:
    """In full, with its packet, in large and in small pieces."""
    expected = said_in(path)
    with opened(path) as capture:
        count = len(capture.index)
        for size in (count, 7):
            found = []
            for first in range(1, count + 1, size):
                numbers = numbers_of(first, min(size, count + 1 - first))
                for batch in capture.again().batches(numbers):
                    found += drawn((batch.said or {}).values())
            assert expected == found
    assert expected


SAID = Said(
    9, -5, 3, 1, 2, 2**40, Message("x", "é\n", Kind.RESPONSE, {"a": [b"\0\xff", {"b": None}]})
)


@pytest.mark.parametrize(
    "said",
    [
        SAID,
        SAID._replace(latency_ns=3, request_packet=4),
        SAID._replace(message=SAID.message._replace(call=Call(object(), "m", "why", False))),
        SAID._replace(message=SAID.message._replace(fields={"one": object})),
        SAID._replace(message=SAID.message._replace(kind=Kind.NOTE, summary="\ud800")),
    ],
)
def test_what_is_kept_of_a_message(said: Said) -> None:
    """All that is drawn of it, whatever a parser puts into it."""
    messages = Messages()
    messages.add({said.packet: [said]})
    (row,) = messages.rows_of(numbers_of(1, 20))
    again = messages.read(row)
    assert list(detail_lines(said)) == list(detail_lines(again))
    assert said[:6] == again[:6]
    assert (said.latency_ns, said.request_packet) == (again.latency_ns, again.request_packet)


def test_keeping_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of bytes when somebody looks is not made in the capture's thread."""
    looked: list[bytes] = []
    monkeypatch.setitem(DECODERS, "frame", lambda data: looked.append(data) or {"of": len(data)})
    fields = frame_fields(bytes(60))
    messages = Messages()
    messages.add({9: [SAID._replace(message=SAID.message._replace(fields=fields))]})
    again = messages.read(messages.rows_of(numbers_of(9, 1))[0]).message.fields
    assert (fields["frame"], 0) == (again["frame"], again["missing"])
    assert not looked
    assert {"of": 60} == again["layers"]
    assert [bytes(60)] == looked


def test_a_message_without_end_is_kept_without_its_fields() -> None:
    """A parser's mistake does not end the capture."""
    endless: dict[str, Any] = {}
    endless["again"] = endless
    messages = Messages()
    messages.add({9: [SAID._replace(message=SAID.message._replace(fields=endless))]})
    assert {"fields": "cannot be kept"} == messages.read(
        messages.rows_of(numbers_of(9, 1))[0]
    ).message.fields


def test_messages_beyond_the_cap_are_counted() -> None:
    """And are not kept."""
    messages = Messages(cap=300)
    messages.add({9: [SAID] * 5})
    assert 5 == messages.kept + messages.left_out
    assert 0 < messages.kept < 5
    assert messages.kept == len(messages.rows_of(numbers_of(9, 1)))


def test_late_messages_stand_with_their_packets() -> None:
    """They come behind all others and are found by packet all the same."""
    messages = Messages()
    messages.add({2: [SAID._replace(packet=2)], 9: [SAID]})
    messages.add_late([SAID._replace(packet=5)])
    assert [2, 5, 9] == list(messages.of(numbers_of(1, 9)))
    assert 1 == messages.late
    row = messages.next_of(3, 1, 3)
    assert row is not None
    assert 9 == row["packet"]


def test_the_list_shows_messages() -> None:
    """In the packet that completes each."""
    with opened(CAPTURES / "prog_http.pcapng") as capture:
        lines = Formatter(capture.again(), ("info",)).lines(numbers_of(3, 5))
        assert "http → GET / 58 B" == lines[0].cells[0]
        assert "http ← 200 OK text/plain 155 B" == lines[4].cells[0]


@pytest.mark.parametrize(
    ("number", "label", "value"),
    [
        (3, "Message", "http request: GET / (bytes 0 to 58 of the stream)"),
        (5, "Message (complete with packet 7)", "http response: 200 OK text/plain"),
        (4, "", ""),
    ],
)
def test_the_details_show_the_message_that_a_packet_belongs_to(
    number: int, label: str, value: str
) -> None:
    """Whether it completes it or has a part of it; an update has none."""
    with opened(CAPTURES / "prog_http.pcapng") as capture:
        nodes = details(capture, capture.again().packet(number))
    found = [node for node in nodes if node.label.startswith("Message")]
    assert ([label] if label else []) == [node.label for node in found]
    for node in found:
        assert node.value.startswith(value)
        assert "status" in labels(node) or "method" in labels(node)
        assert "headers" in labels(node)


def labels(node: Node) -> list[str]:
    """Those of the branches."""
    return [child.label for child in node.children]


def test_a_packet_of_what_was_not_understood_has_no_message() -> None:
    """The next message of its side is not taken for its own where it begins behind it."""
    path = CAPTURES / "prog_http.pcapng"
    with opened(path) as capture:
        last = SAID._replace(packet=19, conn=1, side=1, size=10)
        capture.messages = Messages()
        capture.messages.add({19: [last]})
        again = capture.again()
        found = {
            number: [node.label for node in details(capture, again.packet(number))]
            for number in (13, 17)
        }
        assert "Message (complete with packet 19)" in found[17]
        assert "Message (complete with packet 19)" not in found[13]


def test_searching_for_what_was_said_begins_anywhere() -> None:
    """Forwards and backwards, as the command line's filter has it."""
    with opened(CAPTURES / "prog_http.pcapng") as capture:
        wanted = Filter.of('vsock.app.summary contains "404"')
        listing = Listing(capture)
        assert 18 == find(capture, listing, wanted, 3)
        assert 18 == find(capture, listing, wanted, 25, forward=False)
        assert find(capture, listing, wanted, 18) is None


def test_without_protocols_nothing_is_said() -> None:
    """--decode none: a filter that asks for a protocol matches nothing."""
    with opened(CAPTURES / "prog_http.pcapng", apps=None) as capture:
        assert 0 == capture.messages.kept
        chosen = Chosen(capture, Filter.of("proto http"))
        chosen.join()
        assert 0 == len(chosen)
