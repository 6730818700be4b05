"""Captured text as a terminal may be given it.

What could steer a terminal, or turn the direction of text, is written as an escape.
"""

import re
from typing import Final

_NOT_ASCII_TEXT: Final = re.compile(r"[^\n\t -~]")
_NOT_ASCII_LINE: Final = re.compile(r"[^ -~]")
_SHORT: Final = {"\r": "\\r", "\n": "\\n", "\t": "\\t"}


def in_lines(text: str) -> str:
    """Text that may have several lines and tabs."""
    return _NOT_ASCII_TEXT.sub(lambda match: _escaped(match[0]), text)


def on_line(text: str) -> str:
    """Text that stays on its line."""
    return _NOT_ASCII_LINE.sub(lambda match: _escaped(match[0]), text)


def _escaped(character: str) -> str:
    """A character that is not plain ASCII: as it is where it only shows itself."""
    if character.isprintable():
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
