"""What Wireshark's engine makes of one packet: its layers, with their fields as it shows them.

`python -m vsockdump.verify.dissection FILE` prints that of the first packet of a capture file
as JSON: a list of layers, each [name, fields], each field [text, start, size], where the two
numbers are its bytes in the packet.  Exit status 1 and a sentence on stderr where it cannot.

Rules for editors: a program of its own, since the engine wants a process for itself (see
engine.py).
"""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from vsockdump.verify.engine import EngineError, packets

Field = tuple[str, int, int]


def layers(path: str) -> list[tuple[str, list[Field]]]:
    """Those of the first packet of a file, none where it has none.  Raises EngineError."""
    with closing(packets(path)) as found:
        for packet in found:
            return [(layer.layer_name, list(_fields(layer))) for layer in packet.layers]
    return []


def _fields(layer: Any) -> Iterator[Field]:
    for container in layer._all_fields.values():
        for field in container.all_fields:
            text = field.showname or field.show
            if text and not field.hide:
                yield text, int(field.pos or 0), int(field.size or 0)


def main() -> int:
    """Print it; the exit status."""
    try:
        print(json.dumps(layers(sys.argv[1])))
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
