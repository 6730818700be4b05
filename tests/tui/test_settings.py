"""The settings file, themes and NO_COLOR."""

from pathlib import Path
from typing import Any

import pytest
from looking import until
from test_panes import drawn, drive
from textual.color import Color

from vsockdump.tui.app import VsockApp
from vsockdump.tui.keys import ACTIONS
from vsockdump.tui.looks import HIGH_CONTRAST, style_sheet, themes
from vsockdump.tui.model.settings import Settings, SettingsError, load
from vsockdump.tui.packets import PacketList

GOOD = """
columns = ["number", "op"]
time = "seconds since 1970"
theme = "high-contrast"
numeric = true
[colours]
rst = "#ff0000"
[keys]
"Mark" = "M"
"""


def settings_of(text: str, folder: Path) -> Settings:
    """The settings of a file with this text."""
    path = folder / "tui.toml"
    path.write_text(text)
    return load(path, themes(), ACTIONS)


def test_settings(tmp_path: Path) -> None:
    """All of them, and none."""
    expected = Settings(
        ("number", "op"), 2, "high-contrast", True, {"rst": "#ff0000"}, {"Mark": "M"}
    )
    assert expected == settings_of(GOOD, tmp_path)
    assert Settings() == load(tmp_path / "none", themes(), ACTIONS) == settings_of("", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =", "is not TOML"),
        ("\N{ESCAPE}", "is not TOML"),
        ('colums = ["op"]', "no setting colums; did you mean columns?"),
        ('columns = ["opp"]', "no column opp; did you mean op?"),
        ("columns = [7]", "no column 7; there are "),
        ("columns = []", "needs a column"),
        ('columns = ["op", "op"]', "at most once"),
        ('columns = "op"', "columns must be a list."),
        ('time = "zzz"', "no time format zzz; there are "),
        ('theme = "high-contrst"', "did you mean high-contrast?"),
        ("numeric = 1", "numeric must be true or false."),
        ("keys = 1", "keys must be a table."),
        ('[keys]\nMarck = "x"', "no action Marck; did you mean Mark?"),
        ("[keys]\nMark = 1", "Mark must be a text in quotes."),
        ('[colours]\nrsst = "red"', "no colour rule rsst; did you mean rst?"),
    ],
)
def test_settings_that_cannot_be(text: str, said: str, tmp_path: Path) -> None:
    """A sentence that names the file, and what there is."""
    with pytest.raises(SettingsError) as caught:
        settings_of(text, tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_settings_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder, and bytes that are no text."""
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path, themes(), ACTIONS)
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "bytes", themes(), ACTIONS)


def test_colours() -> None:
    """Names and numbers; what is none is said."""
    assert "packets--rst { color: #FF0000; }" in style_sheet({"rst": "red"})
    with pytest.raises(SettingsError, match="redd is no colour for rst"):
        style_sheet({"rst": "redd"})


def test_settings_in_the_program(tmp_path: Path) -> None:
    """Columns, theme, colours and keys are the user's."""

    async def test(app: VsockApp, pilot: Any) -> None:
        assert "high-contrast" == app.theme
        packets = app.main.query_one(PacketList)
        assert Color.parse("#ff0000") == packets.get_component_styles("packets--rst").color
        await pilot.press("m")
        assert not app.session.marked
        await pilot.press("M")
        assert {1} == app.session.marked
        await pilot.press("colon", *"column bytes", "down", "enter")
        await until(pilot, lambda: "length" not in app.session.columns)

    drive("k612_many.pcap", test, settings=settings_of(GOOD, tmp_path))


@pytest.mark.parametrize("theme", ["textual-light", "textual-dark", HIGH_CONTRAST.name])
def test_what_is_read_can_be_told_from_what_is_behind_it(theme: str) -> None:
    """In every colour of the list, in light and dark; more so in high contrast."""

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.pause()
        least = 7 if theme == HIGH_CONTRAST.name else 2.5
        for strip in app.screen._compositor.render_strips():
            for segment in strip:
                style = segment.style
                words = any(map(str.isalnum, segment.text))
                if words and style and style.color and style.bgcolor:
                    colours = (
                        Color.from_rich_color(style.color),
                        Color.from_rich_color(style.bgcolor),
                    )
                    assert contrast(*colours) >= least, segment

    drive("k612_fakeguest.pcap", test, size=(120, 40), settings=Settings(theme=theme))


def contrast(first: Color, second: Color) -> float:
    """The contrast ratio of WCAG 2."""
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: Color) -> float:
    """The relative luminance of WCAG 2."""
    parts = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in colour.normalized
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only shades of grey, and the cursor can be told."""
    monkeypatch.setenv("NO_COLOR", "1")

    async def test(app: VsockApp, pilot: Any) -> None:
        await pilot.pause()
        assert app.no_color
        assert "REQUEST" in drawn(app)

    drive("k612_many.pcap", test)
