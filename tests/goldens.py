"""The golden outputs: what they are, and the program that renews them.

`python tests/goldens.py` writes every file of tests/golden anew, and what is made of tables in
dissectors/; `git diff` then shows what has changed.  The list of the outputs is
tests/golden/cases.
"""

import shlex
import sys
from pathlib import Path
from typing import Final, NamedTuple

from running import CAPTURES, run_bytes

from vsockdump.output import lua

GOLDEN: Final = Path(__file__).parent / "golden"
DISSECTORS: Final = Path(__file__).parent.parent / "dissectors"
# What is made, by file.
MADE: Final = {
    "vsockdump.lua": lua.script,
    "profile/colorfilters": lua.colour_rules,
    "profile/preferences": lua.column_list,
}


class Case(NamedTuple):
    """One golden output."""

    name: str
    capture: str
    arguments: tuple[str, ...]

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return GOLDEN / self.name

    def produce(self) -> bytes:
        """What vsockdump prints now."""
        status, out, err = run_bytes("-r", CAPTURES / self.capture, *self.arguments)
        assert (0, b"") == (status, err)
        return out


def cases() -> list[Case]:
    """All that are listed."""
    found = []
    for line in (GOLDEN / "cases").read_text().splitlines():
        words = shlex.split(line)
        if words and words[0] != "#":
            found.append(Case(words[0], words[1], tuple(words[2:])))
    return found


def renew() -> None:
    """Write every file anew and remove those that are not listed."""
    listed = {case.name: case for case in cases()}
    for file in GOLDEN.iterdir():
        if file.name not in listed and file.name != "cases":
            file.unlink()
    for case in listed.values():
        case.file.write_bytes(case.produce())
    for name, make in MADE.items():
        (DISSECTORS / name).write_text(make(), "utf-8")


if __name__ == "__main__":
    renew()
    sys.stdout.write(f"{len(cases()) + len(MADE)} golden outputs written\n")
