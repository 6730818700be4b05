"""Application messages: ours beside those of Wireshark's engine, on connections made TCP.

Wireshark dissects nothing inside vsock, so that it is given the export to TCP, in a file of
its own that is gone afterwards.  What ours says is laid down beside it with its place among
the exported packets; then both are read together, and what waits to be said by the other is
all that is held.

Rules for editors: what both can say of a protocol stands in spoken.py.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

import numpy as np

from vsockdump.apps.dialogues import DialogueOptions, Dialogues
from vsockdump.apps.message import Kind as MessageKind
from vsockdump.apps.message import Said
from vsockdump.apps.registry import name_of
from vsockdump.batch import Batch, Rows
from vsockdump.capture.interface import Interface
from vsockdump.capture.reader import FileReader
from vsockdump.export.export_file import Exported, Exporter, ExportFile, Indices
from vsockdump.export.ip import port16
from vsockdump.export.tcp import TcpExport
from vsockdump.output.escaped import on_line
from vsockdump.output.statistics import ends
from vsockdump.track.store import DEFAULT_CAP
from vsockdump.track.stream import Kind
from vsockdump.track.stream import Streams as Pieces
from vsockdump.track.tracker import Tracker
from vsockdump.verify.engine import packets
from vsockdump.verify.spoken import PROTOCOLS, THEIR_NAMES

_MOST_WAITING: Final = 100_000  # words that one has said and the other has not
_WHO: Final = ("vsockdump", "tshark")
_GAPS: Final = (int(Kind.BEFORE), int(Kind.LOST), int(Kind.LOST_AT_LEAST))

_Said = tuple[int, str, str]  # connection, protocol, word


class Streams:
    """The comparison of the messages of a capture file, of its first `limit` packets (0: all).

    `words` of each protocol were compared, `found` were said by one alone.  `left_out` is how
    many connections are not compared: those of which bytes are missing, since where messages
    begin behind a gap both can only guess, and those with calls that are not over, of which
    tshark shows the parts and we the whole.
    """

    def __init__(self, path: str, limit: int = 0) -> None:
        self.words: Counter[str] = Counter()
        self.found = self.left_out = 0
        self._path = path
        self._limit = limit
        self._waiting: tuple[Counter[_Said], Counter[_Said]] = (Counter(), Counter())

    def differences(self) -> Iterator[str]:
        """The differences, as sentences.  Raises EngineError and CaptureError."""
        with TemporaryDirectory(prefix="vsockdump-") as folder:
            made = _Made(Path(folder))
            made.make(self._path, self._limit)
            self.left_out = len(made.broken)
            theirs = packets(str(made.export), " || ".join(PROTOCOLS), made.decode_as)
            with made.words.open() as file, closing(theirs):
                for who, said in _in_order(_Words(file), theirs):
                    if said[0] not in made.broken:
                        yield from self._take(who, said)
        yield from self._alone()

    def _take(self, who: int, said: _Said) -> Iterator[str]:
        """Something that is said: the other has said it too, or it waits for that."""
        self.words[said[1]] += who == 0
        ours, others = self._waiting[who], self._waiting[1 - who]
        if others[said] > 1:
            others[said] -= 1
        elif not others.pop(said, 0):
            ours[said] += 1
            if len(self._waiting[0]) + len(self._waiting[1]) > _MOST_WAITING:
                yield from self._alone()

    def _alone(self) -> Iterator[str]:
        """What only one of both has said."""
        for who, waiting in zip(_WHO, self._waiting, strict=True):
            for (conn, protocol, word), times in waiting.items():
                self.found += times
                how_often = f", {times} times" if times > 1 else ""
                yield f'connection {conn}: {protocol} "{on_line(word)}", says {who} only{how_often}'
            waiting.clear()


def _in_order(ours: "_Words", theirs: Iterator[Any]) -> Iterator[tuple[int, _Said]]:
    """What both say, in the order of the exported packets: 0 we, 1 they."""
    for packet in theirs:
        for said in ours.until(int(packet.number)):
            yield 0, said
        if "ipv6" in packet:
            conn = int(packet.ipv6.flow, 0)
            for layer in packet.layers:
                if layer.layer_name in PROTOCOLS:
                    for word in PROTOCOLS[layer.layer_name].theirs(layer):
                        yield 1, (conn, layer.layer_name, word)
    for said in ours.until(None):
        yield 0, said


class _Words:
    """Our words, in the order in which they were laid down."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._next = self._read()

    def until(self, number: int | None) -> Iterator[_Said]:
        """Those that are complete with the exported packets up to this one; None: all."""
        while self._next is not None and (number is None or self._next[0] <= number):
            _place, conn, protocol, word = self._next
            self._next = self._read()
            yield conn, protocol, word

    def _read(self) -> tuple[int, int, str, str] | None:
        line = self._file.readline()
        return tuple(json.loads(line)) if line else None


class _Watched:
    """An exporter, and the packets that its last ones were made of."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self.origins: Indices = np.zeros(0, np.intp)

    @property
    def interfaces(self) -> list[Interface]:
        """Those of the exporter."""
        return self._exporter.interfaces

    def export(self, batch: Batch, chosen: Indices | None) -> Exported:
        """As the exporter does."""
        made = self._exporter.export(batch, chosen)
        self.origins = made.origins
        return made

    def end(self) -> Exported | None:
        """As the exporter does."""
        return self._exporter.end()

    def remarks(self) -> list[str]:
        """As the exporter does."""
        return self._exporter.remarks()


class _Made:
    """What is made of a capture for the engine: the export, and our words beside it.

    `decode_as` says which dissector is for which port, where all that is spoken there is of
    one protocol; `broken` are the connections of which bytes or answers are missing.
    """

    def __init__(self, folder: Path) -> None:
        self.words = folder / "words"
        self.export = folder / "export.pcapng"
        self.decode_as: dict[str, str] = {}
        self.broken: set[int] = set()
        self._places = 0  # exported packets so far

    def make(self, path: str, limit: int) -> None:
        """Read the capture once.  Raises CaptureError."""
        tracker, dialogues = Tracker(DEFAULT_CAP), Dialogues(DialogueOptions({}), DEFAULT_CAP)
        with closing(FileReader(path)) as source, self.words.open("w") as words:
            watched, streams = _Watched(TcpExport(source, DEFAULT_CAP)), Pieces(DEFAULT_CAP)
            with closing(ExportFile(str(self.export), source, None, None, watched)) as file:
                for batch in _first(source.batches(), limit):
                    batch.blocks = ()  # with secrets in them tshark would see more than we do
                    tracker.learn_interfaces(source.interfaces)
                    dialogues.add(tracker.track(batch))
                    self._note_gaps(streams.add(batch))
                    file.write(batch)
                    self._lay_down(batch, watched.origins, words)
            tracker.finish()
            for said in dialogues.finish():
                words.write(_line(self._places, said))
        self.broken.update(call.conn for call in dialogues.open_calls())
        self._name_ports(tracker, dialogues)

    def _note_gaps(self, pieces: Rows) -> None:
        broken = np.isin(pieces["kind"], _GAPS)
        broken |= (pieces["kind"] == int(Kind.DATA)) & (pieces["cap"] < pieces["len"])
        self.broken.update(pieces["conn"][broken].tolist())

    def _lay_down(self, batch: Batch, origins: Indices, words: IO[str]) -> None:
        """Our words of a batch, each with the last exported packet that it may need."""
        numbers = batch.rows["number"][origins]
        for packet, group in sorted((batch.said or {}).items()):
            place = self._places + int(np.searchsorted(numbers, packet, "right"))
            words.writelines(_line(place, said) for said in group)
        self._places += len(origins)

    def _name_ports(self, tracker: Tracker, dialogues: Dialogues) -> None:
        spoken = defaultdict(set)
        for connection, _forth, _back in tracker.store.rows():
            port = int(port16(np.array([ends(connection)[1].port], np.uint32))[0])
            spoken[port].add(name_of(int(dialogues.of(connection.number)["code"])))
        for port, names in spoken.items():
            if len(names) == 1 and (name := names.pop()) in THEIR_NAMES:
                self.decode_as[f"tcp.port=={port}"] = THEIR_NAMES[name]


def _first(batches: Iterator[Batch], limit: int) -> Iterator[Batch]:
    """The batches up to so many packets, 0: all."""
    left = limit
    for batch in batches:
        yield batch.head(left) if limit else batch
        left -= len(batch)
        if limit and left <= 0:
            return


def _line(place: int, said: Said) -> str:
    """The words of a message, a line each."""
    name = THEIR_NAMES.get(said.message.protocol)
    if name is None or said.message.kind == MessageKind.NOTE:
        return ""
    words = PROTOCOLS[name].ours(said.message)
    return "".join(json.dumps((place, said.conn, name, word)) + "\n" for word in words)
