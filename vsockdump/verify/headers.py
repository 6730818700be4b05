"""Every header field of every packet: ours beside those of Wireshark's engine."""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice, zip_longest
from typing import Any, Final

from vsockdump import wire
from vsockdump.capture.reader import FileReader
from vsockdump.capture.source import Source
from vsockdump.fields import BY_NAME, Show
from vsockdump.output.escaped import on_line
from vsockdump.output.fields_text import field_lines
from vsockdump.verify.deviations import BLOCKS_BEFORE, Deviation, Facts, excuse
from vsockdump.verify.engine import packets, text

# Wireshark's names, its misspelt ones among them; the correct spelling is ours alone.
FIELDS: Final = (
    "frame.number",
    "frame.time_epoch",
    "frame.len",
    "frame.cap_len",
    *(field.wireshark[0] for header in wire.HEADERS for field in header.fields),
    "vsock.payload",
)
_ENCAPSULATION: Final = "frame.encap_type"
_SHOWN: Final = 60  # characters of a value


def _shown(value: str) -> str:
    """A value on a line, "missing" where there is none."""
    if not value:
        return "missing"
    value = on_line(value)
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}... ({len(value)} characters)"


class Headers:
    """The comparison of a capture file; `differences` is to be read to its end.

    `packets` were compared, `found` differences were given, `known` were excused by which
    deviation.  The first `limit` packets are compared, 0 means all.
    """

    def __init__(self, path: str, limit: int = 0) -> None:
        self.packets = self.found = 0
        self.known: Counter[Deviation] = Counter()
        self._path = path
        self._limit = limit

    def differences(self) -> Iterator[str]:
        """The differences, packet by packet, as sentences.

        Raises CaptureError and EngineError, behind what was compared.
        """
        with (
            closing(FileReader(self._path)) as source,
            closing(engine_packets(self._path)) as theirs,
        ):
            pairs = zip_longest(own_packets(source), theirs)
            yield from self._compare(islice(pairs, self._limit or None))

    def _compare(self, pairs: Iterable[tuple[Facts | None, Facts | None]]) -> Iterator[str]:
        for ours, theirs in pairs:
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


def engine_packets(path: str) -> Generator[Facts]:
    """The fields from Wireshark's engine, of all packets.

    Two facts more are there: the number that Wireshark has for the link type, and how many
    frames before this one are no packets.
    """
    blocks = 0
    with closing(packets(path)) as found:
        for packet in found:
            facts = {name: _text(packet, name) for name in (*FIELDS, _ENCAPSULATION)}
            if facts[_ENCAPSULATION]:
                yield facts | {BLOCKS_BEFORE: str(blocks)}
            else:
                blocks += 1


def _text(packet: Any, name: str) -> str:
    """A field of a packet; the bytes of one without what separates them."""
    part, _, field = name.partition(".")
    if part == "frame":
        return text(packet.frame_info, field)
    shown = text(packet[part], field) if part in packet else ""
    return shown.replace(":", "") if BY_NAME[name].show == Show.BYTES else shown


def own_packets(source: Source) -> Iterator[Facts]:
    """The same fields from vsockdump, of all packets."""
    lines = field_lines(list(FIELDS))
    for batch in source.batches():
        for piece in lines.write(batch):
            for line in bytes(piece).decode().splitlines():
                yield dict(zip(FIELDS, line.split("\t"), strict=True))
