"""Searching in the list, in details and in bytes; the filters of former runs."""

import os
from pathlib import Path
from typing import Any

import pytest
from looking import CAPTURES, opened, until
from running import lines
from test_panes import drawn, drive
from textual.widgets import Input

from vsockdump.tui.app import VsockApp
from vsockdump.tui.details import DetailsTree
from vsockdump.tui.hex import HexView
from vsockdump.tui.model.columns import Formatter
from vsockdump.tui.model.details import details
from vsockdump.tui.model.history import KEPT, History
from vsockdump.tui.model.passes import Listing, look
from vsockdump.tui.model.places import config_file, history_file
from vsockdump.tui.model.search import (
    SearchError,
    flat,
    in_bytes,
    in_details,
    in_list,
    next_bytes,
    next_node,
    sought,
)


@pytest.mark.parametrize(
    ("typed", "filter_text"),
    [
        ("get /", 'payload contains "GET /"'),
        ("/GET \\/(big|nope)/", "payload matches /GET .(big|nope)/"),
        ("/get/I", ""),
        ("0x474554", 'payload contains "GET"'),
        ("0x47 45:54", 'payload contains "GET"'),
        ("shutdown", "op shutdown"),
        ("nothing of it", ""),
    ],
)
def test_in_the_list(typed: str, filter_text: str) -> None:
    """Lines and payloads, forward and backward, by the place in the list."""
    path = CAPTURES / "prog_http.pcapng"
    printed = lines("-r", path, "-#", "-t", filter_text) if filter_text else []
    places = [int(line.split()[0]) - 1 for line in printed]
    with opened(path) as capture:
        matching = in_list(capture, Formatter(capture.again()), sought(typed))
        for forward in (True, False):
            place, found = -1 if forward else 31, []
            while (
                at := look(Listing(capture), matching, place, forward, lambda: True, 4)
            ) is not None:
                found.append(at)
                place = at
            assert places == (found if forward else found[::-1])


@pytest.mark.parametrize("typed", ["", "0x4", "/(/", "/a{99999999999}/", "/(?u)a/"])
def test_what_cannot_be_searched_for(typed: str) -> None:
    """A sentence."""
    with pytest.raises(SearchError, match=r"^[A-Z].*\.$"):
        sought(typed)


def test_in_details_and_bytes() -> None:
    """Of all packets, and inside of one."""
    with opened(CAPTURES / "prog_http.pcapng") as capture:
        numbers = Listing(capture).numbers(0, 31)
        assert [3, 9, 15] == list(in_bytes(capture, sought("0x474554"))(numbers))
        assert [] == list(in_details(capture, sought("0x474554"))(numbers))
        printed = lines("-r", CAPTURES / "prog_http.pcapng", "-#", "-t", "src port 80")
        assert [int(line.split()[0]) for line in printed] == list(
            in_details(capture, sought("src_port: 80 "))(numbers)
        )
        nodes = list(flat(details(capture, capture.again().packet(3))))
        wanted = sought("port")
        found, at = [], -1
        while (node := next_node(nodes, at, wanted, True)) is not None:
            at = next(at for at, other in enumerate(nodes) if other is node)
            found.append(at)
        assert len(found) > 1
        assert nodes[found[0]] is next_node(nodes, found[1], wanted, False)
        assert next_node(nodes, found[0], wanted, False) is None
    data = b"xaxAxa"
    assert (
        range(3, 4)
        == next_bytes(data, 1, sought("a"), True)
        == next_bytes(data, 5, sought("a"), False)
    )
    assert next_bytes(data, 5, sought("a"), True) is None


async def ask(app: VsockApp, pilot: Any, typed: str) -> None:
    """Search for something."""
    await pilot.press("f")
    await until(pilot, lambda: isinstance(app.focused, Input))
    app.screen.query_one(Input).value = typed
    await pilot.press("enter")


def test_searching_in_the_program() -> None:
    """In what has the focus; n and N go on; what is nowhere is said."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await ask(app, pilot, "get /")
        await until(pilot, lambda: app.session.current == 3)
        await pilot.press("n")
        await until(pilot, lambda: app.session.current == 9)
        await pilot.press("N")
        await until(pilot, lambda: app.session.current == 3)
        await ask(app, pilot, "/(/")
        await until(pilot, lambda: "goes wrong" in drawn(app))
        await ask(app, pilot, "nowhere")
        await until(pilot, lambda: "No such packet" in drawn(app))
        view, tree = app.main.query_one(HexView), app.main.query_one(DetailsTree)
        view.focus()
        await ask(app, pilot, "http/1.1")
        await until(pilot, lambda: view.cursor > 76)
        assert b"HTTP/1.1" == view.data[view.cursor :][:8]
        await pilot.press("n")
        await until(pilot, lambda: app.session.current > 3)
        await until(pilot, lambda: b"HTTP/1.1" == view.data[view.cursor :][:8])
        tree.focus()
        await ask(app, pilot, "/\\bRST\\b/I")
        await until(pilot, lambda: app.session.current == 27)
        await until(pilot, lambda: "RST" in str(tree.cursor_node and tree.cursor_node.label))

    drive("prog_http.pcapng", test, size=(160, 40))


def test_the_history_is_kept(tmp_path: Path) -> None:
    """Each filter once, the latest last, so many of them, whoever else writes."""
    path = tmp_path / "new" / "filters"
    first, second = History(path), History(path)
    first.add("op rw")
    second.add("op rst")
    first.add("port 80")
    first.add("op rw")
    assert ["op rst", "port 80", "op rw"] == History(path).filters == first.filters
    assert 0o600 == path.stat().st_mode & 0o777
    for number in range(KEPT + 10):
        first.add(f"port {number}")
    first.add("two\nlines")
    assert KEPT == len(History(path).filters)
    assert [path.name] == os.listdir(path.parent)


def test_a_history_that_is_none(tmp_path: Path) -> None:
    """What could steer the terminal is left out; what cannot be written is told."""
    path = tmp_path / "filters"
    path.write_bytes(b"op rw\n\x1b[2J\n\xff\xfe\n" + b"x" * 5000 + b"\n")
    assert "op rw" in History(path).filters
    assert all(text.isprintable() for text in History(path).filters)
    history = History(path / "no" / "folder")
    with pytest.raises(NotADirectoryError):
        history.add("op rw")
    assert ["op rw"] == history.filters


def test_the_history_in_the_program(tmp_path: Path) -> None:
    """The filters of the run before are there; where they cannot be kept that is said once."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("slash", "up")
        assert "op rst" == app.main.bar.entry.value
        app.session.history.path = tmp_path / "filters" / "x"
        await pilot.press("enter")
        await pilot.press("slash", *"port 1070", "enter")
        await until(pilot, lambda: "Filters are not kept" in drawn(app))

    path = tmp_path / "filters"
    path.write_text("op rw\nop rst\n")
    drive("k612_many.pcap", test, history=History(path))


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """By XDG's variables, where they are absolute."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setenv("XDG_CONFIG_HOME", "not/absolute")
    assert Path("/state/vsockdump/filters") == history_file()
    assert Path("/home/me/.config/vsockdump/tui.toml") == config_file()
