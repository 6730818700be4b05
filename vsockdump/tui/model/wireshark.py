"""What Wireshark's engine says of a packet: asked for one at a time, in a thread of the caller's.

The packet goes to a file of its own, and the engine reads it in a process of its own (see
verify/dissection.py), without the packets before it.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from vsockdump.capture.errors import CaptureError
from vsockdump.output.errors import OutputError
from vsockdump.output.escaped import on_line
from vsockdump.programs import run_to_end
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.details import Node
from vsockdump.tui.model.passes import numbers_of
from vsockdump.tui.model.saving import save

LABEL: Final = "Wireshark"
ASKING: Final = Node(LABEL, "is asked ...")
_PROGRAM: Final = "vsockdump.verify.dissection"
_LIMIT_S: Final = 30


def says(capture: Capture, number: int) -> Node:
    """A branch with its layers and fields, or with the sentence why there are none."""
    try:
        with TemporaryDirectory(prefix="vsockdump-") as folder:
            path = Path(folder) / "packet.pcapng"
            save(capture, str(path), [numbers_of(number, 1)], {})
            return Node(LABEL, children=tuple(map(_branch, _asked(path))))
    except (CaptureError, OutputError, _NotSaid) as error:
        return Node(LABEL, on_line(str(error)))
    except OSError as error:
        return Node(LABEL, f"cannot be asked: {error.strerror}.")


class _NotSaid(Exception):
    """One sentence: why."""


def _asked(path: Path) -> list[tuple[str, list[tuple[str, int, int]]]]:
    try:
        done = run_to_end((sys.executable, "-m", _PROGRAM, path), _LIMIT_S)
    except subprocess.TimeoutExpired:
        raise _NotSaid(f"tshark did not answer within {_LIMIT_S} s.") from None
    if done.returncode:
        raise _NotSaid(done.stderr.strip().rpartition("\n")[2])
    found: list[tuple[str, list[tuple[str, int, int]]]] = json.loads(done.stdout)
    return found


def _branch(layer: tuple[str, list[tuple[str, int, int]]]) -> Node:
    name, fields = layer
    lines = tuple(Node(on_line(text), start=start, size=size) for text, start, size in fields)
    return Node(f"{LABEL}: {on_line(name)}", children=lines)
