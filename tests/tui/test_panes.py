"""The program on Textual's own screen, driven by keys."""

from typing import Any

import pytest
from driving import drawn, drive
from looking import until
from textual.widgets import Input

from vsockdump.tui.app import VsockApp
from vsockdump.tui.details import DetailsTree
from vsockdump.tui.hex import HexView
from vsockdump.tui.key_line import KeyLine
from vsockdump.tui.packets import PacketList, PacketsPane
from vsockdump.tui.pane import Pane


@pytest.mark.parametrize(
    ("keys", "number"),
    [
        ("j j down", 4),
        ("G", 3400),
        ("G k", 3399),
        ("pagedown", 9),
        ("ctrl+d ctrl+u j", 2),
        ("G g", 1),
        ("o 1 2 3 enter", 123),
        ("o 9 9 9 9 9 enter", 3400),
        ("o x enter", 1),
        ("o 5 escape j", 2),
    ],
)
def test_moving(keys: str, number: int) -> None:
    """vi's keys, arrows, and going to a number."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press(*keys.split())
        await until(pilot, lambda: app.session.current == number)
        assert f"{number}/3400 packets" in drawn(app)

    drive("k612_many.pcap", test)


def test_searching() -> None:
    """The next finding and the one before, the next packet of the connection."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: app.session.current != 1)
        first = app.session.current
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: app.session.current > first)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: app.session.current == first)
        await pilot.press("g", "right_curly_bracket")
        await until(pilot, lambda: app.session.current == 2)

    drive("k612_fakeguest.pcap", test)


def test_filtering() -> None:
    """Typed, wrong, completed, applied, called back from the history, taken away."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("slash", *"port x ")
        await until(pilot, lambda: "port x" in drawn(app) and " " * 5 + "^" in drawn(app))
        app.main.bar.entry.value = ""
        await pilot.press(*"op rs", "tab")
        assert "op rst" == app.main.bar.entry.value.strip()
        await pilot.press("enter")
        await until(pilot, lambda: app.session.listing.done == 3400)
        assert 0 < len(app.session.listing) < 3400
        assert isinstance(app.focused, PacketList)
        await until(pilot, lambda: f"{len(app.session.listing)} match" in drawn(app))
        await pilot.press("slash", *["backspace"] * 9, "enter")
        await until(pilot, lambda: len(app.session.listing) == 3400)
        await pilot.press("slash", "up")
        assert "op rst" == app.main.bar.entry.value.strip()
        await pilot.press("escape", "j")
        assert "" == app.main.bar.entry.value

    drive("k612_many.pcap", test)


def test_a_filter_of_the_command_line_is_the_first() -> None:
    """And a key lists the connection of the packet."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await until(pilot, lambda: app.session.listing.done == 3400)
        assert "op rst" == str(app.session.filter)
        await pilot.press("G", "c")
        await until(pilot, lambda: str(app.session.filter).startswith("conn "))

    drive("k612_many.pcap", test, filter_text="op rst")


def test_fields_and_bytes_are_linked() -> None:
    """A field shows its bytes, a byte its field; in a wide terminal rows are longer."""

    async def test(app: VsockApp, pilot: Any) -> None:
        tree, view = app.main.query_one(DetailsTree), app.main.query_one(HexView)
        await until(pilot, lambda: view.data)
        await pilot.press("enter", *["j"] * 4)
        await pilot.pause()
        assert tree.cursor_node is not None
        field = tree.cursor_node.data
        assert field is not None
        assert range(field.start, field.start + field.size) == view._field
        assert field.size
        view.focus()
        await pilot.press("g", "j", "l")
        await pilot.pause()
        assert 17 == view.cursor
        assert tree.cursor_node.data is not None
        assert "src_port" == tree.cursor_node.data.label

    drive("k612_many.pcap", test, size=(200, 60))


def test_marks_times_names_and_columns_of_the_list() -> None:
    """Keys that change how the list looks change the list."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("m", "j", "m", "m")
        assert {1} == app.session.marked
        assert "local:" in drawn(app)
        await pilot.press("a", "t")
        await pilot.pause()
        assert "local:" not in drawn(app)
        assert 0 == app.session.times
        await pilot.press("z")
        assert app.main.query_one(PacketsPane).has_class("-whole")

    drive("k612_many.pcap", test)


def test_pausing_holds_the_screen_only() -> None:
    """The status line says so."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("p")
        assert app.session.paused
        assert "PAUSED" in drawn(app)
        await pilot.press("p")
        assert "PAUSED" not in drawn(app)

    drive("k612_many.pcap", test)


def test_help_lists_the_keys_of_the_pane() -> None:
    """Those of the list and of the program, each once; escape leaves."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("question_mark")
        await pilot.pause()
        assert "Next finding" in drawn(app)
        await pilot.press("escape", "j")
        assert 2 == app.session.current

    drive("k612_many.pcap", test, size=(100, 50))


def test_the_palette_knows_the_commands_of_the_pane() -> None:
    """A time format by its name."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.press("colon", *"seconds since 1970")
        await until(pilot, lambda: "Time: seconds since 1970" in drawn(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.session.times == 2)

    drive("k612_many.pcap", test)


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (200, 60)])
def test_every_size(size: tuple[int, int]) -> None:
    """No line is longer than the screen, and a number that is cut says so."""

    async def test(app: VsockApp, pilot: Any) -> None:
        lines = drawn(app).splitlines()
        assert size[1] == len(lines)
        assert {size[0]} == {len(line) for line in lines}
        assert ("…" in drawn(app)) == (size[0] <= 80)
        assert not app.main.query_one(Input).has_focus

    drive("k612_many.pcap", test, size=size)


def test_panes_are_made_when_they_are_shown() -> None:
    """Keys may come faster than that; each pane is made once."""

    async def test(app: VsockApp, pilot: Any) -> None:
        assert 1 == len(app.main.query(Pane))
        for name in (*"2323", "6", "1", "2"):
            app.simulate_key(name)
        await until(pilot, lambda: 4 == len(app.main.query(Pane)))
        await until(pilot, lambda: "connections" == app.main.pane.id)
        await until(pilot, lambda: "Initiator" in drawn(app))

    drive("k612_http.pcap", test)


def test_a_key_can_be_clicked() -> None:
    """In the line at the bottom."""

    async def test(app: VsockApp, pilot: Any) -> None:
        line = drawn(app).splitlines()[-1]
        assert "⏎ Details" in line
        await pilot.click(KeyLine, offset=(line.index("Help") + 1, 0))
        await until(pilot, lambda: "Keys: Packets" in drawn(app))

    drive("k612_http.pcap", test)
