"""What the benchmarks share: which command is ours, and the table they print."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table; `ok` is None where there is no target."""

    name: str
    ours: str
    other: str
    ratio: str
    target: str
    ok: bool | None


def our_command() -> str:
    """VSOCKDUMP, or the command beside this Python, or the one in PATH."""
    beside = Path(sys.executable).parent / "vsockdump"
    found = str(beside) if beside.exists() else shutil.which("vsockdump")
    command = os.environ.get("VSOCKDUMP") or (shlex.quote(found) if found else None)
    if not command:
        sys.exit("vsockdump is not installed beside this Python; install it, or set VSOCKDUMP.")
    return command


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table, aligned."""
    verdict = {None: "", True: "ok", False: "MISSED"}
    head = ["figure", "ours", "other", "ratio", "target", ""]
    cells = [head] + [[*row[:-1], verdict[row.ok]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    )
