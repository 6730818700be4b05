"""Scans damaged captures in buffers of exactly their size, for the sanitizers to watch.

    damaged_captures.py SECONDS SEED

The scanner is called as the sources call it, but from random places, in all formats and
byte orders, and with interfaces of every kind.  See `run` beside this file.
"""

import random
import sys
import time
from typing import Any

import numpy as np
from reading import SCANNERS
from test_ring import RING
from test_scan import INTERESTING, SEEDS

from vsockdump.batch import PACKET_DTYPE
from vsockdump.capture import scan
from vsockdump.capture.interface import Interface, InterfaceTable

LINKTYPES = (271, 113, 276, 1)


def damaged(chosen: random.Random) -> bytes:
    """A capture with some bytes changed, put in or taken out."""
    content = bytearray(chosen.choice([*SEEDS, RING]))
    for _ in range(chosen.randint(0, 6)):
        at = chosen.randrange(len(content))
        change = chosen.randrange(4)
        if change == 0:
            content[at:at] = chosen.randbytes(chosen.randint(1, 40))
        elif change == 1:
            del content[at : at + chosen.randint(1, min(40, len(content) - 1))]
        else:
            content[at] = chosen.choice(INTERESTING) if change == 2 else chosen.randrange(256)
    return bytes(content[: chosen.randint(1, len(content))])


def scanner(chosen: random.Random) -> Any:
    """A compiled scanner with some rows and some interfaces."""
    made = SCANNERS["installed"](np.zeros(chosen.randint(1, 40), PACKET_DTYPE))
    places = [
        Interface(chosen.choice(LINKTYPES), chosen.choice([0, 10, 96]), "", chosen.randrange(256))
        for _ in range(chosen.randint(1, 4))
    ]
    made.set_interfaces(InterfaceTable().extend(places))
    return made


def run_once(chosen: random.Random) -> int:
    """Scan one damaged capture from each of its bytes; the number of rows filled."""
    content = damaged(chosen)
    buffer = np.frombuffer(content, np.uint8).copy().data  # of exactly this size
    tested = scanner(chosen)
    total = 0
    for start in range(len(content) + 1):
        big, header = chosen.random() < 0.5, chosen.choice([16, 24])
        for result in (
            tested.pcap(buffer, start, len(content), 0, 1, big, header),
            tested.pcapng(buffer, start, len(content), 0, 1, big, chosen.randrange(3)),
            tested.ring(buffer, start, len(content), chosen.randint(-1, 9), 1, 0),
        ):
            total += result[1]
    return total


def main() -> None:
    """Run for a time; a sanitizer ends the process where it finds something."""
    assert scan.__file__.endswith(".so"), "the scanner is not compiled"
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    chosen = random.Random(seed)
    until = time.monotonic() + seconds
    captures = rows = 0
    while time.monotonic() < until:
        rows += run_once(chosen)
        captures += 1
    print(f"{captures} damaged captures, {rows} rows, nothing found")


if __name__ == "__main__":
    main()
