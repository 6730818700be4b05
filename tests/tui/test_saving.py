"""Saving, exporting, commenting and copying."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from looking import CAPTURES, opened, until
from running import lines
from test_panes import drawn, drive
from test_summaries import key_of
from textual.widgets import Input

from vsockdump.output.errors import OutputError
from vsockdump.tui.app import VsockApp
from vsockdump.tui.details import DetailsTree
from vsockdump.tui.hex import HexView
from vsockdump.tui.model.completion import check
from vsockdump.tui.model.details import details
from vsockdump.tui.model.passes import numbers_of
from vsockdump.tui.model.saving import parts_of, save
from vsockdump.tui.model.wording import bytes_filter, field_filter
from vsockdump.tui.prompt import Prompt
from vsockdump.tui.session import Session

ALL = sorted(path.name for path in CAPTURES.glob("*.pcap*"))


def printed(path: Path, *options: str) -> list[str]:
    """The packet lines of a file, in full, without the time."""
    return lines("-r", path, "-t", "-x", *options)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("suffix", [".pcap", ".pcapng"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "copied"])
def test_all_that_is_shown_is_saved(name: str, suffix: str, packed: bool, tmp_path: Path) -> None:
    """From every format to every format, from the file and from our copy of it."""
    path, saved = CAPTURES / name, tmp_path / f"saved{suffix}"
    if packed:
        path = tmp_path / "packed.gz"
        path.write_bytes(gzip.compress((CAPTURES / name).read_bytes()))
    with opened(path) as capture:
        session = Session(capture)
        count = save(capture, str(saved), parts_of(session.listing), {})
        assert len(capture.index) == count
    assert printed(CAPTURES / name) == printed(saved)


def test_some_packets_with_comments(tmp_path: Path) -> None:
    """Comments of the user stand before those that the file has, and only where they belong."""
    first, second = tmp_path / "first.pcapng", tmp_path / "second.pcapng"
    numbers = numbers_of(1, 31)[[2, 7, 30]]
    with opened(CAPTURES / "prog_http.pcapng") as capture:
        assert 3 == save(capture, str(first), [numbers], {3: "the\x1b third", 4: "not saved"})
    with opened(first) as capture:
        assert 3 == save(capture, str(second), [numbers_of(1, 3)], {1: "later"})
    with opened(second) as capture:
        trees = [details(capture, capture.again().packet(number)) for number in (1, 2, 3)]
    comments = [
        [part.value for node in tree for part in node.children if part.label == "Comment"]
        for tree in trees
    ]
    assert [["later", "the\\x1b third"], [], []] == comments


@pytest.mark.parametrize(
    ("name", "comments", "said"),
    [
        ("here.pcap", {1: "x"}, "suffix .pcapng"),
        ("no/folder.pcapng", {}, "no such file"),
        ("capture.pcap", {}, "is the file being read"),
    ],
)
def test_what_cannot_be_saved(
    name: str, comments: dict[int, str], said: str, tmp_path: Path
) -> None:
    """One sentence, and the capture stays as it is."""
    path = tmp_path / "capture.pcap"
    content = (CAPTURES / "k612_refused.pcap").read_bytes()
    path.write_bytes(content)
    with opened(path) as capture, pytest.raises(OutputError, match=said):
        save(capture, str(tmp_path / name), [numbers_of(1, 2)], comments)
    assert content == path.read_bytes()


def test_saving_in_the_program(tmp_path: Path) -> None:
    """What is listed, what is marked, with a comment; a file is not written over unasked."""
    shown, marked = tmp_path / "shown.pcapng", tmp_path / "marked[b].pcapng"

    async def answer(app: VsockApp, pilot: Any, text: str) -> None:
        await until(pilot, lambda: isinstance(app.screen, Prompt))
        app.screen.query_one(Input).value = text
        await pilot.press("enter")

    async def test(app: VsockApp, pilot: Any) -> None:
        await until(pilot, lambda: app.session.listing.done == 3400)
        await pilot.press("w")
        await answer(app, pilot, str(shown))
        await until(pilot, lambda: "200 packets saved" in drawn(app))
        await pilot.press("W")
        await until(pilot, lambda: "No packets are marked" in drawn(app))
        await pilot.press("m", "C", *"why", "enter", "j", "m", "W")
        marked.write_text("mine")
        await answer(app, pilot, str(marked))
        await until(pilot, lambda: "y writes over it" in drawn(app))
        await pilot.press("escape", "W")
        assert "mine" == marked.read_text()
        await answer(app, pilot, str(marked))
        await answer(app, pilot, "y")
        await until(pilot, lambda: "2 packets saved" in drawn(app))
        await pilot.press("w")
        await answer(app, pilot, str(tmp_path / "no" / "folder.pcapng"))
        await until(pilot, lambda: "Cannot write" in drawn(app))

    drive("k612_many.pcap", test, size=(160, 40), filter_text="op request")
    assert lines("-r", CAPTURES / "k612_many.pcap", "-t", "op request") == lines("-r", shown, "-t")
    with opened(marked) as capture:
        assert 2 == len(capture.index)
        node = details(capture, capture.again().packet(1))[0]
        assert "why" in [child.value for child in node.children]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("pane", "options"),
    [
        ("packets", ()),
        ("connections", ("-z", "conv")),
        ("credit", ("-z", "credit,1")),
        ("findings", ("-z", "findings")),
        ("statistics", ("-z", "endpoints", "-z", "rpc")),
        ("story", ("-z", "story,1")),
    ],
)
def test_every_pane_exports_what_the_command_line_prints(
    pane: str, options: tuple[str, ...], as_json: bool, tmp_path: Path
) -> None:
    """Line by line, as text and as JSON."""
    path = tmp_path / ("out.json" if as_json else "out.txt")
    name = {"findings": "k612_fakeguest.pcap", "credit": "k612_bulk_stall.pcap"}.get(
        pane, "prog_http.pcapng"
    )

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press(key_of(pane), "E")
        await until(pilot, lambda: isinstance(app.screen, Prompt))
        app.screen.query_one(Input).value = str(path)
        await pilot.press("enter")
        await until(pilot, lambda: "written to" in drawn(app))

    drive(name, test, size=(200, 40))
    wanted = ["--json"] if as_json else []
    if pane == "packets" and not as_json:
        wanted = ["-ttttt", "-#"]
    expected = lines("-r", CAPTURES / name, *options, *wanted)
    assert expected == path.read_text().splitlines()[: len(expected)]
    assert expected


@pytest.mark.parametrize("name", ["k612_fakeguest.pcap", "prog_http.pcapng"])
def test_filters_of_fields_find_their_packet(name: str) -> None:
    """Of every field that has one."""
    with opened(CAPTURES / name) as capture:
        reader, made = capture.again(), set()
        for number in (1, 4, len(capture.index)):
            batch = reader.packet(number)
            nodes = list(details(capture, batch))
            while nodes:
                node = nodes.pop()
                nodes += node.children
                if text := field_filter(node):
                    chosen = check(text).filter
                    assert chosen is not None
                    assert chosen.mask(reader.packet(number)).all(), text
                    made.add(node.name)
        assert {"frame.number", "vsock.virtio.src_cid", "vsock.virtio.op", "vsock.conn"} <= made


def test_a_filter_of_bytes() -> None:
    """Whatever they are."""
    data = bytes(range(256))
    batch_filter = check(bytes_filter(data)).filter
    assert batch_filter is not None
    assert check(bytes_filter(b"GET /")).filter is not None
    assert 'payload contains "GET /"' == bytes_filter(b"GET /")


def test_copying() -> None:
    """A line, a field, bytes, and filters for them; what is pressed with nothing says so."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("y")
        assert "REQUEST" in app.clipboard
        assert "local:" in app.clipboard
        await pilot.press("Y")
        assert "conn 1" == app.clipboard
        tree = app.main.query_one(DetailsTree)
        await pilot.press("enter", "g")
        await until(pilot, lambda: tree.cursor_node is not None)
        while "src_port" not in str(tree.cursor_node and tree.cursor_node.label):
            await pilot.press("j")
        await pilot.press("y")
        port = app.clipboard
        assert port.isdigit()
        await pilot.press("Y")
        assert f"vsock.virtio.src_port == {port}" == app.clipboard
        app.main.query_one(HexView).focus()
        await pilot.press("y")
        assert int(port).to_bytes(4, "little").hex(" ") == app.clipboard
        await pilot.press("Y")
        assert app.clipboard.startswith("payload contains")
        app.main.query_one(DetailsTree).focus()
        await pilot.press("i")
        await until(pilot, lambda: str(app.session.filter) == f"vsock.virtio.src_port == {port}")

    drive("k612_many.pcap", test, size=(160, 40))
