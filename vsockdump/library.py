"""The library: a capture as Python objects, for scripts and notebooks.

Rules for editors: thin.  What a packet or connection means is known to the tracker and
the field registry; here it only gets attributes.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from vsockdump import wire
from vsockdump.address import Endpoint
from vsockdump.apps.dialogues import DialogueOptions, Dialogues
from vsockdump.apps.message import Said
from vsockdump.batch import NO_TIME, Batch, Known, Layers, Malformed
from vsockdump.capture.reader import FileReader
from vsockdump.findings.collector import Case, Collector
from vsockdump.findings.registry import words
from vsockdump.findings.rule import UNKNOWN_ENDS, sentence
from vsockdump.output.statistics import ends, socket_type
from vsockdump.track.states import state_word
from vsockdump.track.store import DEFAULT_CAP, ConnectionRow, FlowRow
from vsockdump.track.tracker import Tracker


class Packet:
    """One packet.  Unknown values are None.

    number: from 1.  time_ns: since 1970, or None.  caplen, wirelen: bytes.  src, dst:
    Endpoint, or None where the headers were cut.  op, type: wire.Op and wire.SocketType, or
    int where they have no name.  flags: int.  conn: number of the connection.  side: 0
    initiator, 1 acceptor.  state: word.  data: the stream's captured bytes; data_len: how
    many were sent.  tx_cnt, in_flight, free: of the sender, in bytes.  marks: words.
    malformed: batch.Malformed.  frame: the captured vsock frame's bytes.
    """

    __slots__ = (
        "buf_alloc",
        "caplen",
        "conn",
        "data",
        "data_len",
        "dst",
        "flags",
        "frame",
        "free",
        "fwd_cnt",
        "in_flight",
        "malformed",
        "marks",
        "number",
        "op",
        "side",
        "src",
        "state",
        "time_ns",
        "tx_cnt",
        "type",
        "wirelen",
    )

    def __init__(self, row: np.void, tracked: np.void, buffer: memoryview) -> None:
        self.number = int(row["number"])
        self.time_ns = None if row["time_ns"] == NO_TIME else int(row["time_ns"])
        self.caplen, self.wirelen = int(row["caplen"]), int(row["wirelen"])
        self.malformed = Malformed(int(row["malformed"]))
        start = int(row["packet_at"]) + int(row["link_size"])
        self.frame = bytes(buffer[start : int(row["packet_at"]) + self.caplen])
        self._headers(row)
        self._tracked(tracked, buffer)

    def _headers(self, row: np.void) -> None:
        virtio = row["layers"] == Layers.VIRTIO
        header = row["virtio" if virtio else "mon"]
        self.src = self.dst = None
        if row["layers"] != Layers.NONE:
            self.src = Endpoint(int(header["src_cid"]), int(header["src_port"]))
            self.dst = Endpoint(int(header["dst_cid"]), int(header["dst_port"]))
        self.op = _named(wire.Op, header["op"]) if virtio else None
        self.type = _named(wire.SocketType, header["type"]) if virtio else None
        self.flags = int(header["flags"]) if virtio else None
        self.buf_alloc = int(header["buf_alloc"]) if virtio else None
        self.fwd_cnt = int(header["fwd_cnt"]) if virtio else None

    def _tracked(self, tracked: np.void, buffer: memoryview) -> None:
        known = int(tracked["known"])
        start = int(tracked["data_at"])
        self.conn = int(tracked["conn"]) or None
        self.side = int(tracked["side"]) if known & Known.SIDE else None
        self.state = state_word(tracked["state"]) if self.conn else None
        self.data_len = int(tracked["data_len"])
        self.data = bytes(buffer[start : start + int(tracked["data_cap"])])
        self.tx_cnt = int(tracked["tx_cnt"]) if known & Known.TX_CNT else None
        self.in_flight = int(tracked["in_flight"]) if known & Known.IN_FLIGHT else None
        self.free = int(tracked["free"]) if known & Known.FREE else None
        self.marks = words(int(tracked["marks"]))

    def __repr__(self) -> str:
        return f"<Packet {self.number} {self.src} > {self.dst} {self.op!r} {self.data_len}>"


class Connection:
    """One connection.

    `bytes` and `packets` are (initiator's, acceptor's); first_ns and last_ns are the times of
    its first and last packet, None where packets have no times.
    """

    __slots__ = (
        "acceptor",
        "bytes",
        "first_ns",
        "initiator",
        "last_ns",
        "marks",
        "midstream",
        "number",
        "packets",
        "state",
        "type",
    )

    def __init__(self, row: ConnectionRow, forth: FlowRow, back: FlowRow) -> None:
        self.number = row.number
        self.initiator, self.acceptor = ends(row)
        self.type = socket_type(row)
        self.state = state_word(row.state)
        self.midstream = bool(row.midstream)
        self.first_ns = None if row.first_ns == NO_TIME else row.first_ns
        self.last_ns = None if row.last_ns == NO_TIME else row.last_ns
        self.packets = forth.packets, back.packets
        self.bytes = forth.bytes, back.bytes
        self.marks = words(row.marks)

    def __repr__(self) -> str:
        return f"<Connection {self.number} {self.initiator} > {self.acceptor} {self.state}>"


class Finding:
    """One finding in one connection.

    name, severity: as in the registry.  message: what happened.  conn: number of the
    connection, packet: number of the packet that shows it first, each None where it has none.
    time_ns: since 1970, or None.  times: how often it was seen.
    """

    __slots__ = ("conn", "message", "name", "packet", "severity", "time_ns", "times")

    def __init__(self, case: Case, pair: tuple[Endpoint, Endpoint] | None) -> None:
        event = case.event
        self.name, self.severity = case.rule.name, case.severity.word
        names = UNKNOWN_ENDS if pair is None else (str(pair[0]), str(pair[1]))
        self.message = sentence(case.rule, event, names)
        self.conn, self.packet = event.conn or None, event.packet or None
        self.time_ns = None if event.time_ns == NO_TIME else event.time_ns
        self.times = case.times

    def __repr__(self) -> str:
        return f"<Finding {self.severity} {self.name} {self.message!r}>"


class Capture:
    """A capture file; iterate over it for packets, once, in order.

    A context manager.  Raises CaptureError from the iteration where the file is damaged.
    """

    def __init__(self, path: str, max_connections: int = DEFAULT_CAP) -> None:
        self._reader = FileReader(path)
        self._tracker = Tracker(max_connections)
        self._collector = Collector(self._tracker)
        self._dialogues: Dialogues | None = None
        self._max_connections = max_connections
        self._batches = self._tracked()

    def __enter__(self) -> "Capture":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _tracked(self) -> Iterator[Batch]:
        for batch in self._reader.batches():
            self._tracker.learn_interfaces(self._reader.interfaces)
            self._collector.add(self._tracker.track(batch))
            if self._dialogues is not None:
                self._dialogues.add(batch)
            yield batch
        self._tracker.finish()

    def batches(self) -> Iterator[Batch]:
        """The tracked batches that are left; each is valid until the next is asked for."""
        return self._batches

    def __iter__(self) -> Iterator[Packet]:
        for batch in self._batches:
            assert batch.tracked is not None
            for row, tracked in zip(batch.rows, batch.tracked, strict=True):
                yield Packet(row, tracked, batch.buffer)

    def messages(self, options: DialogueOptions | None = None) -> Iterator[Said]:
        """The messages of application protocols, in order of the packets that complete them.

        To be asked instead of packets, before anything of the file was read.  `options` name
        the protocols of ports and let messages keep their bytes.
        """
        self._dialogues = Dialogues(options or DialogueOptions({}), self._max_connections)
        for batch in self._batches:
            for group in (batch.said or {}).values():
                yield from group

    @property
    def connections(self) -> list[Connection]:
        """All connections, in order of their first packet; reads the file to its end."""
        for _ in self._batches:
            pass
        return [Connection(*rows) for rows in self._tracker.store.rows()]

    @property
    def findings(self) -> list[Finding]:
        """All findings, in order of their packets; reads the file to its end."""
        pairs = {each.number: (each.initiator, each.acceptor) for each in self.connections}
        return [Finding(case, pairs.get(case.event.conn)) for case in self._collector.cases()]


def _named(values: Any, number: Any) -> Any:
    """The enum's member, or the number where it has none."""
    try:
        return values(int(number))
    except ValueError:
        return int(number)
