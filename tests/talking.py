"""What the tests of application protocols share: from what two ends say to what is heard.

A talk is a list of turns: who (0 initiator, 1 acceptor) and the bytes of one packet, or
END (the side sends no more).  It becomes a capture in memory, which goes the whole road:
reader, tracker, streams, registry, parser.
"""

from collections.abc import Container, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from blocks import pcap_header, pcap_record
from reading import memory_file
from scenario import build_frame

from vsockdump.address import Endpoint
from vsockdump.apps.dialogues import DialogueOptions, Dialogues
from vsockdump.apps.message import Message, OpenCall, Said
from vsockdump.apps.protocol import Setting
from vsockdump.apps.registry import name_of
from vsockdump.batch import Batch
from vsockdump.capture.reader import FileReader
from vsockdump.track.tracker import Tracker
from vsockdump.wire import Op, Seqpacket, Shutdown, SocketType

END: Final = b"<end>"  # compared by identity
INITIATOR, ACCEPTOR = 0, 1
STEP_US: Final = 1000  # from packet to packet
_NO_SETTING: Final = Setting()
_BIG: Final = 1 << 24  # buf_alloc: credit is not what is tested


class Cut(NamedTuple):
    """A packet of which only the first `captured` bytes of its data were captured."""

    data: bytes
    captured: int


Turn = tuple[int, bytes | Cut]


class Heard(NamedTuple):
    """What came of a capture of one connection."""

    said: list[Said]
    protocol: str
    evidence: int
    unanswered: list[OpenCall]  # those of ended connections, then those that are open
    codes: list[int]  # of each packet
    passed_over: int

    @property
    def messages(self) -> list[Message]:
        """The messages without their places."""
        return [said.message for said in self.said]

    @property
    def summaries(self) -> list[str]:
        """Side's sign and summary of each message."""
        return [f"{'><'[one.side]} {one.message.summary}" for one in self.said]


def talk_capture(
    turns: Iterable[Turn],
    *,
    port: int = 1024,
    cid: int = 3,
    kind: SocketType = SocketType.STREAM,
    connect: bool = True,
    lost: Sequence[int] = (),
) -> bytes:
    """A pcap of the talk; the acceptor is `cid`:`port`, the packets of the turns `lost` are left
    out, and with `connect` False the capture begins inside the connection."""
    ends = (Endpoint(2, 49152), Endpoint(cid, port))
    sent = [0, 0]
    records: list[bytes] = []

    def add(side: int, op: Op, data: bytes = b"", flags: int = 0, cut: int | None = None) -> None:
        counts = {"type": kind, "flags": flags, "buf_alloc": _BIG, "fwd_cnt": sent[1 - side]}
        frame = build_frame(ends[side], ends[1 - side], op, data, virtio=counts)
        sent[side] += len(data)
        kept = frame if cut is None else frame[: len(frame) - len(data) + cut]
        now = STEP_US * len(records)
        records.append(pcap_record("<", kept, now // 10**6, now % 10**6, wirelen=len(frame)))

    if connect and kind != SocketType.DGRAM:
        add(0, Op.REQUEST)
        add(1, Op.RESPONSE)
    eom = 0 if kind == SocketType.STREAM else int(Seqpacket.EOM)
    for number, (side, turn) in enumerate(turns):
        if turn is END:
            add(side, Op.SHUTDOWN, flags=int(Shutdown.SEND))
            continue
        data, cut = turn if isinstance(turn, Cut) else (turn, None)
        if number in lost:
            sent[side] += len(data)
        else:
            add(side, Op.RW, data, eom, cut)
    return pcap_header() + b"".join(records)


def hear(
    capture: bytes,
    *,
    rows: int = 4096,
    ports: dict[int, str] | None = None,
    setting: Setting = _NO_SETTING,
    keep: bool = False,
) -> Heard:
    """What is said in a capture, read in batches of `rows` packets."""
    with memory_file(capture) as path:
        return hear_file(path, rows=rows, ports=ports, setting=setting, keep=keep)


def hear_file(
    path: str,
    *,
    rows: int = 4096,
    ports: dict[int, str] | None = None,
    setting: Setting = _NO_SETTING,
    keep: bool = False,
    conn: int = 1,
    behind: Container[int] = (),
) -> Heard:
    """What is said in a file; protocol and evidence are those of connection `conn`.

    `behind`: the batches for which there is no time.
    """
    dialogues = Dialogues(DialogueOptions(ports or {}, setting, keep), 10_000)
    tracker = Tracker(10_000)
    said: list[Said] = []
    calls: list[OpenCall] = []
    codes: list[int] = []
    reader = FileReader(path, rows=rows)
    try:
        for number, batch in enumerate(reader.batches()):
            tracker.track(batch)
            dialogues.add(batch, partial(behind.__contains__, number))
            said += _in_order(batch)
            calls += batch.unanswered or []
            assert batch.apps is not None
            codes += batch.apps.tolist()
    finally:
        reader.close()
    said += dialogues.finish()
    row = dialogues.of(conn)
    calls += dialogues.open_calls()
    passed_over = dialogues.passed_over
    return Heard(said, name_of(int(row["code"])), int(row["evidence"]), calls, codes, passed_over)


def _in_order(batch: Batch) -> list[Said]:
    assert batch.said is not None
    assert list(batch.said) == sorted(batch.said)
    return [one for group in batch.said.values() for one in group]


def heard(turns: Iterable[Turn], **options: object) -> Heard:
    """What is heard of a talk; the options are those of `talk_capture` and `hear`."""
    own = {name: options.pop(name) for name in _HEARING if name in options}
    return hear(talk_capture(turns, **options), **own)  # type: ignore[arg-type]


_HEARING: Final = ("rows", "ports", "setting", "keep")


def split(turns: Iterable[Turn], size: int) -> list[Turn]:
    """The same talk in packets of `size` bytes."""
    parts: list[Turn] = []
    for side, data in turns:
        if data is END or isinstance(data, Cut):
            parts.append((side, data))
        else:
            parts += [(side, data[at : at + size]) for at in range(0, len(data), size)]
    return parts
