"""A table that is drawn again and again: in place on a terminal, one below the other in a pipe.

Rules for editors: only what the terminal shows is drawn, its lines cut at its edges, because
a line that wraps or scrolls cannot be drawn over.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Final

_HOME: Final = "\033[H"
_CLEAR_LINE: Final = "\033[K"
_CLEAR_BELOW: Final = "\033[J"
_PLAIN: Final = "\033[0m"
_COLOUR: Final = re.compile(r"(\033\[[0-9;]*m)")


def drawn(lines: Iterable[str]) -> str:
    """What draws these lines over those drawn before, on a terminal of its present size."""
    columns, rows = shutil.get_terminal_size()
    shown = list(fitted(lines, rows - 1))
    return _HOME + "".join(f"{cut(line, columns)}{_CLEAR_LINE}\n" for line in shown) + _CLEAR_BELOW


def fitted(lines: Iterable[str], rows: int) -> Iterator[str]:
    """The first lines, and how many more there are where they do not fit."""
    every = list(lines)
    if len(every) <= rows:
        yield from every
        return
    yield from every[: rows - 1]
    yield f"... {len(every) - rows + 1} more lines"


def cut(line: str, columns: int) -> str:
    """The line without what lies beyond the right edge; colours take no room."""
    kept, left = [], columns
    for index, part in enumerate(_COLOUR.split(line)):
        if index % 2:
            kept.append(part)
        else:
            kept.append(part[:left])
            left -= len(kept[-1])
    coloured = len(kept) > 1
    return "".join(kept) + (_PLAIN if coloured else "")
