"""The raw frames, and behind each what was complete with it in the application layer.

Both stand in one pcapng file, on interfaces of their own: the first is the capture's first, the
second that of the layer, and if the capture has more they follow.

Rules for editors: a layer makes packets of messages and knows nothing of where they stand.
"""

from operator import itemgetter
from typing import NamedTuple, Protocol

import numpy as np

from vsockdump.address import Endpoint
from vsockdump.apps.dialogues import DialogueOptions, Dialogues
from vsockdump.apps.message import Said
from vsockdump.batch import PACKET_DTYPE, Batch, Layout, Rows
from vsockdump.capture.interface import NANOSECOND, Interface
from vsockdump.capture.source import Origin
from vsockdump.columns import ends_in, said_by_row
from vsockdump.export.export_file import Exported, Indices


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
        self._dialogues = Dialogues(layer.options, most)
        self._packets = self._made = 0

    @property
    def interfaces(self) -> list[Interface]:
        """The capture's, the layer's behind the first of them, with times in nanoseconds."""
        own = [place._replace(resolution=NANOSECOND, offset=0) for place in self._source.interfaces]
        return [*own[:1], self._layer.interface, *own[1:]] if own else []

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
        self._made += len(packets)
        raw = batch.rows[chosen]
        raw["interface"] += raw["interface"] > 0  # the layer's is in between
        made = np.zeros(len(packets), PACKET_DTYPE)
        made["interface"] = 1
        made["time_ns"] = raw["time_ns"][after]
        made["caplen"] = [len(packet.data) for packet in packets]
        made["wirelen"] = [packet.size for packet in packets]
        buffer = batch.buffer
        if packets:
            buffer = _put_together(raw, made, packets, buffer)
        behind = np.array(after, np.intp) + 1
        rows = np.insert(raw, behind, made)
        rows["number"] = np.arange(self._packets + 1, self._packets + 1 + len(rows))
        self._packets += len(rows)
        at = behind + np.arange(len(packets))  # where the layer's packets stand among all
        texts = {row: [packet.text] for row, packet in zip(at.tolist(), packets, strict=True)}
        origins = np.insert(chosen, behind, chosen[after])
        return Exported(Batch(rows, buffer, Layout(pcapng=True)), origins, texts)

    def _of_layer(self, batch: Batch, chosen: Indices) -> tuple[list[int], list[Packet]]:
        """The layer's packets, and the indices in `chosen` of the rows that they follow."""
        # What others of this run were told of the batch is theirs.
        batch = batch.head(len(batch))
        self._dialogues.add(batch)
        index_of = {row: index for index, row in enumerate(chosen.tolist())}
        after: list[int] = []
        packets: list[Packet] = []
        for row, group in sorted(said_by_row(batch), key=itemgetter(0)):
            if row not in index_of:
                continue
            index = index_of[row]
            frame = self._packets + index + 1 + len(packets)
            for said in group:
                packet = self._packet(said, batch, row, frame)
                if packet is not None:
                    after.append(index)
                    packets.append(packet)
        return after, packets

    def _packet(self, said: Said, batch: Batch, row: int, frame: int) -> Packet | None:
        """The packet of a message that the frame completes; its comment says where it is from."""
        ends = ends_in(batch, row)
        src, dst = ends[said.side], ends[1 - said.side]
        packet = self._layer.packet(said, Place(src, dst, frame))
        if packet is None:
            return None
        where = f"#{said.conn} {src} > {dst}, packet {said.packet}"
        return packet._replace(text=f"{where}: {packet.text}" if packet.text else where)


def _put_together(raw: Rows, made: Rows, packets: list[Packet], buffer: memoryview) -> memoryview:
    """A buffer with both kinds of packets, to which their rows then point."""
    places = zip(raw["packet_at"].tolist(), raw["caplen"].tolist(), strict=True)
    parts = [buffer[at : at + size] for at, size in places]
    joined = b"".join([*parts, *(packet.data for packet in packets)])
    sizes = np.concatenate((raw["caplen"], made["caplen"])).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    raw["packet_at"], made["packet_at"] = starts[: len(raw)], starts[len(raw) :]
    return memoryview(joined)
