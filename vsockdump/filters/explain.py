"""What -d prints: which half of a filter the kernel decides, by which program, and the rest."""

from collections.abc import Iterable, Iterator
from typing import Final

from vsockdump.filters import bpf
from vsockdump.filters.filter import Filter
from vsockdump.filters.kernel import Split, compiled, split
from vsockdump.filters.printer import text
from vsockdump.filters.tree import Always

_FORMS: Final = (bpf.listing, bpf.c_source, bpf.decimal)


def explanation(source: str, form: int, keep_state: bool | None = None) -> Iterable[str]:
    """The lines for a filter: -d's with both halves, those of -dd and -ddd the program alone.

    `keep_state` is that of kernel.split.  FilterError where it is no filter.
    """
    halves = _halves(source, keep_state)
    program = list(_FORMS[min(form, len(_FORMS)) - 1](halves.program or compiled(Always(True))))
    if form > 1:
        return program
    return [*_pushed(halves), *program, *_rest(halves)]


def remarks(source: str, keep_state: bool | None = None) -> list[str]:
    """What the program alone does not show."""
    rest = _halves(source, keep_state).rest
    return (
        [] if rest is None else [f"the program leaves this to be decided afterwards: {text(rest)}"]
    )


def _halves(source: str, keep_state: bool | None) -> Split:
    return split(Filter.of(source).tree, keep_state) if source.strip() else Split(None, None, None)


def _pushed(halves: Split) -> Iterator[str]:
    yield f"in the kernel: {text(halves.pushed) if halves.pushed else 'every packet'}"


def _rest(halves: Split) -> Iterator[str]:
    if halves.rest is not None:
        yield f"afterwards: {text(halves.rest)}"
