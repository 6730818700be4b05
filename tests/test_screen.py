"""Tables that are drawn in place."""

import os

import pytest

from vsockdump.output import screen
from vsockdump.output.screen import cut, drawn, fitted
from vsockdump.output.statistics import StatisticError, wish


@pytest.mark.parametrize(
    ("line", "columns", "expected"),
    [
        ("abcdef", 10, "abcdef"),
        ("abcdef", 3, "abc"),
        ("\033[1mabcdef\033[0m", 3, "\033[1mabc\033[0m\033[0m"),
        ("ab\033[31mcd\033[0mef", 3, "ab\033[31mc\033[0m\033[0m"),
        ("abcdef", 0, ""),
    ],
)
def test_cut(line: str, columns: int, expected: str) -> None:
    """A line ends at the edge; colours take no room and do not go on."""
    assert expected == cut(line, columns)


def test_fitted() -> None:
    """What does not fit is counted."""
    lines = list("abcdef")
    assert lines == list(fitted(lines, 6))
    assert ["a", "b", "... 4 more lines"] == list(fitted(lines, 3))


def test_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the upper left corner, the rest of every line and of the screen cleared."""
    monkeypatch.setattr(screen.shutil, "get_terminal_size", lambda: os.terminal_size((4, 4)))
    expected = "\033[Habcd\033[K\nx\033[K\n... 2 more lines\033[K\n\033[J"
    assert expected.replace("... 2 more lines", "... ") == drawn(["abcdef", "x", "y", "z"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv", ("conv", 0)),
        ("conv,5", ("conv", 5)),
        ("endpoints,0.5", ("endpoints", 0.5)),
        ("credit", ("credit", 0)),
        ("credit,7", ("credit,7", 0)),
        ("credit,7,5", ("credit,7", 5)),
        ("credit,,5", ("credit,", 5)),
        ("io,1", ("io,1", 0)),
        ("io,0.1,2", ("io,0.1", 2)),
        ("nothing,1", ("nothing,1", 0)),
    ],
)
def test_a_refresh_stands_behind_the_statistics_own(text: str, expected: object) -> None:
    """credit,N and io,SECONDS keep their meaning."""
    assert expected == wish(text)


@pytest.mark.parametrize("text", ["conv,", "conv,x", "conv,0", "io,1,-1", "credit,,nan"])
def test_a_refresh_that_cannot_be(text: str) -> None:
    """One sentence."""
    with pytest.raises(StatisticError, match=r"from 0\.1 to 86400\.$"):
        wish(text)
