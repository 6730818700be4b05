"""Themes, and colours that the user set."""

from collections.abc import Mapping
from typing import Final

from textual.color import Color, ColorParseError
from textual.theme import BUILTIN_THEMES, Theme

from vsockdump.tui.model.settings import SettingsError

HIGH_CONTRAST: Final = Theme(
    name="high-contrast",
    primary="#00ffff",
    secondary="#00ffff",
    accent="#ffff00",
    warning="#ffff00",
    error="#ff6060",
    success="#00ff00",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#202020",
    dark=True,
    variables={
        "block-cursor-background": "#ffff00",
        "block-cursor-foreground": "#000000",
        "text-muted": "#ffffff",
        "text-disabled": "#c0c0c0",
        "footer-key-foreground": "#ffff00",
    },
)


def themes() -> set[str]:
    """The names of all themes."""
    return {*BUILTIN_THEMES, HIGH_CONTRAST.name}


def style_sheet(colours: Mapping[str, str]) -> str:
    """The style sheet that gives colour rules these colours; SettingsError."""
    for rule, colour in colours.items():
        try:
            Color.parse(colour)
        except ColorParseError:
            raise SettingsError(
                f"{colour} is no colour for {rule}; give a name, as red, or #rrggbb."
            ) from None
    return "\n".join(
        f"PacketList > .packets--{rule} {{ color: {Color.parse(colour).hex}; }}"
        for rule, colour in colours.items()
    )
