"""Conversations: their rows, searching and saving them, and the pane."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from driving import drawn, drive
from looking import CAPTURES, opened, until
from rich.cells import cell_len
from running import run_bytes
from talking import ACCEPTOR, INITIATOR, Turn, talk_capture

from vsockdump.tui.app import VsockApp
from vsockdump.tui.follow import ConversationView
from vsockdump.tui.model.conversation import (
    FORMS,
    Conversation,
    Row,
    SearchError,
    save_bytes,
    save_text,
    wanted,
)

ALL = sorted(path.name for path in CAPTURES.glob("*.pcap*"))
HOSTILE = b"\x1b]0;owned\x07\x1b[2J\x9b7m \xe2\x80\xae\tx\r\n[bold]y"


@contextmanager
def talked(path: Path, *turns: Turn, form: str = "text", **options: Any) -> Iterator[Conversation]:
    """The conversation of a made capture, gone over to its end."""
    path.write_bytes(talk_capture(turns))
    with of_file(path, form, **options) as conversation:
        yield conversation


@contextmanager
def of_file(
    path: Path, form: str = "text", width: int = 80, **options: Any
) -> Iterator[Conversation]:
    """The conversation of connection 1 of a file, gone over to its end."""
    with opened(path) as capture:
        conversation = Conversation(capture, 1, form, width, **options)
        conversation.join()
        assert not conversation.trouble
        yield conversation


def rows(conversation: Conversation) -> list[Row]:
    """All of them."""
    return conversation.rows(0, len(conversation))


def without_tabs(text: str) -> str:
    """How many spaces a tab is depends on where its row begins."""
    return text.translate(str.maketrans("", "", "\t ")).rstrip("\n")


def whole(conversation: Conversation) -> str:
    """The text as it was before it was cut."""
    return "".join(conversation.text()).removeprefix("\n")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("width", [20, 80, 10_000])
def test_the_text_is_that_of_follow(name: str, width: int) -> None:
    """In rows that fit, which together are what the command line prints."""
    _status, printed, _said = run_bytes("-r", CAPTURES / name, "--follow", "1")
    with of_file(CAPTURES / name, width=width) as conversation:
        assert without_tabs(printed.decode()) == without_tabs(whole(conversation))
        assert max((cell_len(row.shown) for row in rows(conversation)), default=0) <= width


@pytest.mark.parametrize("side", [None, 0, 1])
def test_the_hexadecimal_form_is_that_of_follow(side: int | None) -> None:
    """With signs for the sides instead of an indent."""
    options = "1,hex" + ("" if side is None else [",initiator", ",acceptor"][side])
    path = CAPTURES / "prog_http.pcapng"
    _status, printed, _said = run_bytes("-r", path, "--follow", options)
    expected = [
        line
        if line.startswith("*")
        else f"{'<' if line.startswith('    ') else '>'} {line.strip()}"
        for line in printed.decode().splitlines()
    ]
    with of_file(path, "hex", side=side) as conversation:
        assert expected == [row.text.strip() for row in rows(conversation)]


def test_messages_in_short_and_in_full() -> None:
    """With who said them, when the answer came, and the packet that completes each."""
    path = CAPTURES / "prog_http.pcapng"
    with of_file(path, "messages") as conversation:
        found = rows(conversation)
    assert "> http → GET / 58 B" == found[0].text
    assert found[1].text.startswith("< http ← 200 OK text/plain 155 B  after 9.4")
    assert [3, 7] == [row.packet for row in found[:2]]
    with of_file(path, "messages", side=1) as conversation:
        assert {1} == {row.speaker for row in rows(conversation)}
    with of_file(path, "details") as conversation:
        assert ">   method: GET" == rows(conversation)[1].text


@pytest.mark.parametrize("form", FORMS)
def test_hostile_bytes_are_escaped(form: str, tmp_path: Path) -> None:
    """Nothing that steers a terminal or turns text comes through, in no form."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HOSTILE)
    turns = [(INITIATOR, head + HOSTILE), (ACCEPTOR, HOSTILE)]
    with talked(tmp_path / "hostile.pcap", *turns, form=form) as conversation:
        found = rows(conversation)
        assert found
        assert all(row.shown.isprintable() for row in found)


def test_wide_characters_count_twice(tmp_path: Path) -> None:
    """No row is wider than the screen, and nothing is lost."""
    text = "漢字かな" * 50
    with talked(tmp_path / "wide.pcap", (INITIATOR, text.encode()), width=21) as conversation:
        assert all(cell_len(row.shown) <= 21 for row in rows(conversation))
        assert text in whole(conversation)


def test_a_line_without_end_is_kept_in_rows(tmp_path: Path) -> None:
    """It is not held until it ends, and searching finds what goes over rows."""
    pieces = [(INITIATOR, b"%05d." % number * 100) for number in range(200)]
    with talked(tmp_path / "long.pcap", *pieces, width=50) as conversation:
        assert len(conversation._open) < 50
        assert b"".join(data for _side, data in pieces).decode() in whole(conversation)
        place = conversation.search(wanted("00150.00150.00150"), 0, True, lambda: True)
        assert place is not None
        assert "00150." in "".join(row.text for row in conversation.rows(place, 2))
        packet = conversation.rows(place, 1)[0].packet
        assert 3 == packet  # where the line begins


def test_text_beyond_the_cap_is_counted(tmp_path: Path) -> None:
    """And is not kept, nor anything behind it."""
    turns = [(INITIATOR, b"abcdefghi\n") for _ in range(100)]
    with talked(tmp_path / "cap.pcap", *turns, cap=300) as conversation:
        kept = sum(len(row.text) for row in rows(conversation))
        assert 280 <= kept <= 300
        with talked(tmp_path / "all.pcap", *turns) as complete:
            assert sum(len(row.text) for row in rows(complete)) == kept + conversation.left_out


def test_an_open_line_is_shown(tmp_path: Path) -> None:
    """A prompt, which has no end, is there while the conversation goes on."""
    (tmp_path / "open.pcap").write_bytes(talk_capture([(ACCEPTOR, b"login: ")]))
    with opened(tmp_path / "open.pcap") as capture:
        conversation = Conversation(capture, 1, "text", 80)
        conversation.join()
        conversation._end = lambda: None  # type: ignore[method-assign]
        assert "< login: " == rows(conversation)[3].text


@pytest.mark.parametrize("name", ["k612_bulk_snap96.pcap", "l2_guest_view.pcap"])
def test_what_is_missing_is_said(name: str) -> None:
    """In the words of --follow, as marks."""
    with of_file(CAPTURES / name) as conversation:
        marks = [row.text for row in rows(conversation) if row.speaker == 2]
    assert any("missing" in mark or "initiator" in mark for mark in marks)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("content-length: 85", "Content-Length: 8500"),
        ("/^< Server: .*HTTP/", "Server: BaseHTTP"),
        ("/[0-9]+ Created/", "201 Created"),
        ("0x32303120", "201 Created"),
    ],
)
def test_searching(what: str, text: str) -> None:
    """Text in any case, a regular expression, bytes; there and back."""
    with of_file(CAPTURES / "prog_http.pcapng") as conversation:
        found = conversation.search(wanted(what), 0, True, lambda: True)
        assert found is not None
        near = "\n".join(row.text for row in conversation.rows(found, 3))
        assert text in near
        end = len(conversation) - 1
        last = conversation.search(wanted(what), end, False, lambda: True)
        assert last is not None
        assert found <= last < end
        assert conversation.search(wanted(what), found, False, lambda: True) is None
        assert conversation.search(wanted("0xdeadbeef00"), 0, True, lambda: True) is None
        assert conversation.search(wanted("no such thing"), end, False, lambda: True) is None


def test_bytes_are_found_over_the_ends_of_packets(tmp_path: Path) -> None:
    """In the row in which they begin, not over the other side's data."""
    turns = [
        (INITIATOR, b"x" * 20 + b"ab"),
        (ACCEPTOR, b"cd"),
        (INITIATOR, b"cdef"),
        (ACCEPTOR, b"ef"),
    ]
    with talked(tmp_path / "split.pcap", *turns, form="hex") as conversation:
        place = conversation.search(wanted("0x61626364"), 0, True, lambda: True)
        assert place is not None
        assert conversation.rows(place, 1)[0].text.startswith("> 00000010")
        place = conversation.search(wanted("0x63646566"), 0, True, lambda: True)
        assert place is not None
        assert conversation.rows(place, 1)[0].text.startswith("> 00000016  63 64 65 66")


@pytest.mark.parametrize("text", ["/(/", "0x", "0x1", "0xzz", "0x" + "00" * 300])
def test_what_cannot_be_searched_for(text: str) -> None:
    """Is said in one sentence."""
    with pytest.raises(SearchError, match=r"^[A-Z].*\.$"):
        wanted(text)


def test_saving(tmp_path: Path) -> None:
    """The text as it is shown, the bytes as --follow has them; no file is overwritten."""
    path = CAPTURES / "prog_http.pcapng"
    with opened(path) as capture:
        for side, option in ((None, "1,raw"), (1, "1,raw,acceptor")):
            conversation = Conversation(capture, 1, "text", 40, side)
            conversation.join()
            target = tmp_path / f"{side}.bin"
            assert "written to" in save_bytes(capture, conversation, str(target))
            assert run_bytes("-r", path, "--follow", option)[1] == target.read_bytes()
        said = save_text(conversation, str(tmp_path / "one.txt"))
        assert said.endswith("one.txt.")
        printed = run_bytes("-r", path, "--follow", "1,acceptor")[1].decode().expandtabs()
        assert printed.rstrip("\n") == (tmp_path / "one.txt").read_text().rstrip("\n")
        with pytest.raises(FileExistsError):
            save_text(conversation, str(tmp_path / "one.txt"))
        with pytest.raises(FileExistsError):
            save_bytes(capture, conversation, str(tmp_path / "one.txt"))


def test_the_pane(tmp_path: Path) -> None:
    """Forms, sides, searching, going to the packet, saving; the filter bar stays where it is."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("4")
        view = app.main.query_one(ConversationView)
        await until(pilot, lambda: "> GET / HTTP/1.1" in drawn(app))
        await pilot.press("slash", *"404", "enter")
        await until(pilot, lambda: view.cursor > 100)
        assert "HTTP/1.1 404 Not Found" in drawn(app)
        assert app.session.filter is None
        await pilot.press("n")
        await until(pilot, lambda: app._notifications)
        await pilot.press("x")
        await until(pilot, lambda: "  hex, both sides" in drawn(app))
        await until(pilot, lambda: "34 30 34" in drawn(app))
        await pilot.press("x", "d")
        await until(pilot, lambda: "messages, only the initiator" in drawn(app))
        await until(pilot, lambda: "http → POST /up" in drawn(app))
        await pilot.press("d")
        await until(pilot, lambda: "http ← 404" in drawn(app))
        await pilot.press("g", "j", "j", "enter")
        await until(pilot, lambda: app.session.current == 19)
        await pilot.press("4", "w", "ctrl+u", *str(tmp_path / "a.txt"), "enter")
        await until(pilot, lambda: (tmp_path / "a.txt").exists())
        await pilot.press("w", "ctrl+u", *str(tmp_path / "a.txt"), "enter")
        await until(pilot, lambda: "exists" in [*app._notifications][-1].message)
        await pilot.press("c")
        await until(pilot, lambda: "credit" == app.main.pane.id)

    drive("prog_http.pcapng", test)


def test_a_wider_screen_has_longer_rows() -> None:
    """The conversation is cut anew, and the cursor stays at its packet."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("4", "G")
        view = app.main.query_one(ConversationView)
        await until(pilot, lambda: view.count > 1)
        await pilot.press("G")
        before = view.count
        await pilot.resize_terminal(200, 50)
        await until(pilot, lambda: 1 < view.count < before)
        await until(pilot, lambda: view.cursor > 1)

    drive("prog_ssh.pcapng", test, size=(60, 24))


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (200, 60)])
@pytest.mark.parametrize("key", ["2", "3", "4"])
def test_every_size(size: tuple[int, int], key: str) -> None:
    """No line of a pane is longer than the screen."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press(key)
        await pilot.pause(0.3)
        lines = drawn(app).splitlines()
        assert size[1] == len(lines)
        assert {size[0]} == {cell_len(line) for line in lines}

    drive("prog_http.pcapng", test, size=size)
