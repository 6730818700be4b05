"""The filters that were used, the latest last, kept from one run to the next.

A filter a line.  What another run has added meanwhile is kept.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

KEPT: Final = 200
_LONGEST: Final = 4096  # bytes of a filter; what is longer is nobody's typing


class History:
    """`filters` in memory, and in the file at `path` (None: only in memory)."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.filters: list[str] = []
        if path is not None:
            with suppress(OSError):  # none yet, or none of ours: it begins empty
                self.filters = _read(path)

    def add(self, text: str) -> None:
        """A filter was used; OSError where the file cannot be written."""
        if not text or "\n" in text or text in self.filters[-1:]:
            return
        if self.path is None:
            self.filters = _with(self.filters, text)
            return
        with suppress(OSError):
            self.filters = _read(self.path)
        self.filters = _with(self.filters, text)
        _write(self.path, self.filters)


def _with(filters: list[str], text: str) -> list[str]:
    """One more; a filter is in the history once."""
    return [*(one for one in filters if one != text), text][-KEPT:]


def _read(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(KEPT * _LONGEST)
    lines = (line for line in text.splitlines() if len(line) <= _LONGEST)
    return [line for line in lines if line.isprintable() and line][-KEPT:]


def _write(path: Path, filters: list[str]) -> None:
    """In one step, so that nobody reads half of it; for the user's eyes only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write("".join(f"{text}\n" for text in filters))
        os.replace(name, path)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise
