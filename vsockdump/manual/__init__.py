"""The manual: Markdown pages, one a subject, and `vsockdump help` that shows them.

A page is a file of this folder; its first line is its title, behind a `#`.  On a terminal Rich
draws it, in a pipe it is the Markdown that was written.

Rules for editors: a page for every thing a user does, not for every option; its examples are
run by the tests.  Rich is imported only where it draws: starting must stay quick.
"""

from difflib import get_close_matches
from importlib.resources import files
from typing import Final

from vsockdump.errors import UsageError

CONTENTS: Final = "contents"  # the page that is shown without a subject, behind which is the list
_SUFFIX: Final = ".md"


class SubjectError(UsageError):
    """A subject that has no page; one sentence."""


def subjects() -> list[str]:
    """All there are, in order of their names."""
    names = [entry.name for entry in files(__name__).iterdir() if entry.name.endswith(_SUFFIX)]
    return sorted(name.removesuffix(_SUFFIX) for name in names if name != CONTENTS + _SUFFIX)


def page(subject: str) -> str:
    """The Markdown of a page, or without a subject the list of all; raises SubjectError."""
    if not subject:
        listed = "".join(f"- `{name}`: {title(name)}\n" for name in subjects())
        return f"{_read(CONTENTS)}\n{listed}"
    if subject in subjects():
        return _read(subject)
    near = get_close_matches(subject, subjects(), 1)
    hint = f"did you mean {near[0]}?" if near else "vsockdump help lists what there is."
    raise SubjectError(f"The manual has no page {subject}; {hint}")


def title(subject: str) -> str:
    """The first line of a page."""
    return _read(subject).partition("\n")[0].removeprefix("# ")


def show(text: str, colour: bool) -> None:
    """Markdown on a terminal, in a pager where it is longer than the screen."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(no_color=not colour)
    drawn = Markdown(text)
    if len(console.render_lines(drawn)) < console.height:
        console.print(drawn)
        return
    with console.pager(styles=colour):
        console.print(drawn)


def _read(subject: str) -> str:
    return files(__name__).joinpath(subject + _SUFFIX).read_text("utf-8")
