"""Every header field of every packet: ours beside those of Wireshark's engine."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Final

from vsockdump import wire
from vsockdump.capture.source import Source
from vsockdump.output.escaped import on_line
from vsockdump.output.fields_text import field_lines
from vsockdump.verify.deviations import Deviation, Facts, excuse

# Wireshark's names, its misspelt ones among them; the correct spelling is ours alone.
FIELDS: Final = (
    "frame.number",
    "frame.time_epoch",
    "frame.len",
    "frame.cap_len",
    *(field.wireshark[0] for header in wire.HEADERS for field in header.fields),
    "vsock.payload",
)
_SHOWN: Final = 60  # characters of a value


def _shown(value: str) -> str:
    """A value on a line, "missing" where there is none."""
    if not value:
        return "missing"
    value = on_line(value)
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}... ({len(value)} characters)"


class Headers:
    """The comparison of a capture; `differences` is to be read to its end.

    `packets` were compared, `found` differences were given, `known` were excused by which
    deviation.  The first `limit` packets are compared, 0 means all.
    """

    def __init__(self, theirs: Iterator[Facts], source: Source, limit: int = 0) -> None:
        self.packets = self.found = 0
        self.known: Counter[Deviation] = Counter()
        self._theirs = theirs
        self._source = source
        self._limit = limit

    def differences(self) -> Iterator[str]:
        """The differences, packet by packet, as sentences."""
        pairs = zip_longest(own_packets(self._source), self._theirs)
        for ours, theirs in islice(pairs, self._limit or None):
            if theirs is None or ours is None:
                self.found += 1
                ends = "tshark" if theirs is None else "vsockdump"
                yield f"{ends} has no packet {self.packets + 1}, nor any behind it"
                return
            self.packets += 1
            for name in FIELDS:
                if theirs[name] != ours[name]:
                    yield from self._difference(name, theirs, ours)

    def _difference(self, name: str, theirs: Facts, ours: Facts) -> Iterator[str]:
        deviation = excuse("tshark", name, theirs)
        if deviation is not None:
            self.known[deviation] += 1
            return
        self.found += 1
        yield (
            f"packet {ours['frame.number']}: {name} is {_shown(theirs[name])} for tshark and"
            f" {_shown(ours[name])} for vsockdump"
        )


def own_packets(source: Source) -> Iterator[Facts]:
    """The same fields from vsockdump, of all packets."""
    lines = field_lines(list(FIELDS))
    for batch in source.batches():
        for piece in lines.write(batch):
            for line in bytes(piece).decode().splitlines():
                yield dict(zip(FIELDS, line.split("\t"), strict=True))
