"""The raw frames, and behind each what was complete with it in the application layer.

Both stand in one pcapng file, on interfaces of their own: the first is the capture's first, the
second that of the layer, and if the capture has more they follow.

Rules for editors: a layer makes packets of messages and knows nothing of where they stand.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from vsockdump.address import Endpoint
from vsockdump.apps.dialogues import DialogueOptions, Dialogues
from vsockdump.apps.message import Said
from vsockdump.batch import PACKET_DTYPE, Batch, Layout, Rows
from vsockdump.capture.interface import NANOSECOND, Interface
from vsockdump.capture.source import Origin
from vsockdump.columns import said_by_row, tracked
from vsockdump.export.ends import Ends
from vsockdump.export.export_file import Exported, Indices
from vsockdump.output.number_set import NumberSet


class Packet(NamedTuple):
    """A packet of a layer: what is there of its `size` bytes, and what is to be said of it."""

    data: bytes
    size: int
    text: str = ""


class Place(NamedTuple):
    """Where a message was said: by whom to whom, and by which packet of the export."""

    src: Endpoint
    dst: Endpoint
    frame: int


class Layer(Protocol):
    """Makes packets of messages."""

    @property
    def interface(self) -> Interface:
        """The interface of the packets."""

    @property
    def options(self) -> DialogueOptions:
        """How protocols are to be decoded for it."""

    def packet(self, said: Said, place: Place) -> Packet | None:
        """The packet of a message; None where it makes none."""

    def remarks(self) -> list[str]:
        """What is not in the packets, in sentences."""


class LayeredExport:
    """The packets of `source` as they are, and a layer of its connections up to number `most`."""

    def __init__(self, source: Origin, most: int, layer: Layer) -> None:
        self._source = source
        self._layer = layer
        self._most = most
        self._dialogues = Dialogues(layer.options, most)
        self._ends = Ends(source)
        self._chosen = NumberSet()  # connections with a packet that was chosen
        self._packets = self._made = 0
        self._interfaces: list[Interface] = []

    @property
    def interfaces(self) -> list[Interface]:
        """The capture's, the layer's behind the first of them, with times in nanoseconds."""
        found, source = self._interfaces, self._source.interfaces
        known = len(found) - 1 if found else 0
        for place in source[known:]:
            found.append(place._replace(resolution=NANOSECOND, offset=0))
            if len(found) == 1:
                found.append(self._layer.interface)
        return found

    def remarks(self) -> list[str]:
        """What the layer says, and that it had nothing to do."""
        found = self._layer.remarks()
        if not self._made:
            name = self._layer.interface.name
            found.append(f"the export has only the raw frames: nothing for {name} was recognised.")
        return found

    def export(self, batch: Batch, chosen: Indices | None) -> Exported:
        """The rows `chosen` of a tracked batch, each followed by its packets of the layer."""
        chosen = np.arange(len(batch)) if chosen is None else chosen
        after, packets = self._of_layer(batch, chosen)
        raw = batch.rows[chosen]
        raw["interface"] += raw["interface"] > 0  # the layer's is in between
        made = _rows_of(packets)
        made["time_ns"] = raw["time_ns"][after]
        buffer = _put_together(raw, made, packets, batch.buffer) if packets else batch.buffer
        behind = np.array(after, np.intp) + 1
        rows = np.insert(raw, behind, made)
        at = behind + np.arange(len(packets))  # where the layer's packets stand among all
        origins = np.insert(chosen, behind, chosen[after])
        return self._exported(rows, buffer, origins, at.tolist(), packets)

    def end(self) -> Exported | None:
        """The packets of what was recognised too late for its batch."""
        packets, times = [], []
        for said in self._dialogues.finish():
            packet = self._packet(said, self._packets)
            if packet is not None and said.conn in self._chosen:
                packets.append(packet)
                times.append(said.time_ns)
        if not packets:
            return None
        rows = _rows_of(packets)
        rows["time_ns"] = times
        nothing = np.zeros(0, PACKET_DTYPE)
        buffer = _put_together(nothing, rows, packets, memoryview(b""))
        return self._exported(rows, buffer, np.zeros(0, np.intp), range(len(rows)), packets)

    def _exported(
        self,
        rows: Rows,
        buffer: memoryview,
        origins: Indices,
        at: Iterable[int],
        packets: list[Packet],
    ) -> Exported:
        """Rows with their numbers; `at` is where the layer's packets are among them."""
        rows["number"] = np.arange(self._packets + 1, self._packets + 1 + len(rows))
        self._packets += len(rows)
        self._made += len(packets)
        texts = {row: [packet.text] for row, packet in zip(at, packets, strict=True)}
        return Exported(Batch(rows, buffer, Layout(pcapng=True)), origins, texts)

    def _of_layer(self, batch: Batch, chosen: Indices) -> tuple[list[int], list[Packet]]:
        """The layer's packets, and the indices in `chosen` of the rows that they follow."""
        numbers = tracked(batch)["conn"]
        self._chosen.add(numbers[chosen])
        self._ends.meet(batch, np.flatnonzero((numbers != 0) & (numbers <= self._most)))
        # What others of this run were told of the batch is theirs.
        batch = batch.head(len(batch))
        self._dialogues.add(batch)
        index_of = {row: index for index, row in enumerate(chosen.tolist())}
        after: list[int] = []
        packets: list[Packet] = []
        for row, group in said_by_row(batch):
            if row not in index_of:
                continue
            index = index_of[row]
            frame = self._packets + index + 1 + len(packets)
            for said in group:
                packet = self._packet(said, frame)
                if packet is not None:
                    after.append(index)
                    packets.append(packet)
        return after, packets

    def _packet(self, said: Said, frame: int) -> Packet | None:
        """The packet of a message that the frame completes; its comment says where it is from."""
        ends = self._ends.pair(said.conn)
        src, dst = ends[said.side], ends[1 - said.side]
        packet = self._layer.packet(said, Place(src, dst, frame))
        if packet is None:
            return None
        where = f"#{said.conn} {src} > {dst}, packet {said.packet}"
        return packet._replace(text=f"{where}: {packet.text}" if packet.text else where)


def _rows_of(packets: list[Packet]) -> Rows:
    """Rows of the layer's packets, without their places and times."""
    rows = np.zeros(len(packets), PACKET_DTYPE)
    rows["interface"] = 1
    rows["caplen"] = [len(packet.data) for packet in packets]
    rows["wirelen"] = [packet.size for packet in packets]
    return rows


def _put_together(raw: Rows, made: Rows, packets: list[Packet], buffer: memoryview) -> memoryview:
    """A buffer with both kinds of packets, to which their rows then point."""
    places = zip(raw["packet_at"].tolist(), raw["caplen"].tolist(), strict=True)
    parts = [buffer[at : at + size] for at, size in places]
    joined = b"".join([*parts, *(packet.data for packet in packets)])
    sizes = np.concatenate((raw["caplen"], made["caplen"])).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    raw["packet_at"], made["packet_at"] = starts[: len(raw)], starts[len(raw) :]
    return memoryview(joined)
