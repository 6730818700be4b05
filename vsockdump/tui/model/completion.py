"""Help while a filter is typed: what is wrong with it, and what may come next.

Both come from the tables that the parser and the evaluators use.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from vsockdump.filters.errors import FilterError
from vsockdump.filters.filter import Filter
from vsockdump.filters.sources import CANONICAL, CIDS, FLAGS, SHORT, SOURCES
from vsockdump.filters.words import all_words
from vsockdump.findings.registry import names_to_type

_WORD: Final = re.compile(r"[A-Za-z0-9_.-]*$")
_BEFORE: Final = re.compile(r"([A-Za-z0-9_.-]+)\s*(?:==|!=|in\s*\{[^}]*|,|=)?\s*$")
_LOGIC: Final = ("and", "or", "not")


class Checked(NamedTuple):
    """A text as a filter, or its `error`; neither where it asks for all packets."""

    filter: Filter | None = None
    error: FilterError | None = None


def check(text: str) -> Checked:
    """What the text asks for."""
    if not text.strip():
        return Checked()
    try:
        return Checked(Filter.of(text))
    except FilterError as error:
        return Checked(error=error)


class Completion(NamedTuple):
    """What may stand at `start` up to the cursor; the candidates begin with what stands there."""

    start: int
    candidates: tuple[str, ...]


def complete(text: str, cursor: int) -> Completion:
    """The words that what stands before the cursor may become."""
    head = text[:cursor]
    match = _WORD.search(head)
    start = match.start() if match else cursor
    typed = head[start:]
    candidates = [word for word in _possible(head[:start]) if word.startswith(typed)]
    return Completion(start, tuple(word for word in candidates if word != typed))


def _possible(before: str) -> Iterable[str]:
    """The words that may follow, values before others."""
    match = _BEFORE.search(before)
    last = match.group(1) if match else ""
    values = _values(last)
    return values or sorted({*all_words(), *CIDS})


def _values(word: str) -> list[str]:
    """The values that have names, of the word or field that takes them."""
    if word == "finding":
        return names_to_type()
    if word == "flag":
        return list(FLAGS)
    if word in ("cid", "src", "dst"):
        return [*CIDS, *([] if word == "cid" else ["cid", "port", "portrange"])]
    name = SHORT.get(word) or CANONICAL.get(word, "")
    return list(SOURCES[name].codes) if name in SOURCES else []
