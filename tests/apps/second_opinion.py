"""What tshark's own dissectors say of a talk, which is given to them as a TCP connection."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from running import tool
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap
from talking import END, Turn

_PORTS = (40000, 4444)
_SEGMENT = 1400  # bytes


def tshark(turns: Sequence[Turn], protocol: str, *fields: str) -> list[tuple[str, ...]]:
    """The values of the fields, in the order of the frames; where a frame has several of a
    field, they are one after the other.  Frames without any of them are left out."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "talk.pcap")
        wrpcap(str(path), [Ether() / packet for packet in _packets(turns)])
        wanted = [part for field in fields for part in ("-e", field)]
        decode = ("-d", f"tcp.port=={_PORTS[1]},{protocol}")
        text = tool("tshark", "-r", path, *decode, "-T", "json", *wanted)
    frames = [frame["_source"]["layers"] for frame in json.loads(text)]
    rows = []
    for frame in frames:
        columns = [frame.get(field, []) for field in fields]
        for at in range(max(map(len, columns), default=0)):
            rows.append(tuple(column[at] if at < len(column) else "" for column in columns))
    return rows


def _packets(turns: Sequence[Turn]) -> list[IP]:
    """The talk with handshake, in segments, each acknowledging all before it."""
    sent = [1000, 2000]
    packets = []

    def add(side: int, flags: str, data: bytes = b"") -> None:
        head = IP(src=f"10.0.0.{side + 1}", dst=f"10.0.0.{2 - side}")
        ports = {"sport": _PORTS[side], "dport": _PORTS[1 - side]}
        packet = head / TCP(**ports, seq=sent[side], ack=sent[1 - side], flags=flags, window=65535)
        packets.append(packet / Raw(data) if data else packet)
        sent[side] += len(data) + ("S" in flags or "F" in flags)

    add(0, "S")
    add(1, "SA")
    add(0, "A")
    for side, data in turns:
        if data is END:
            add(side, "FA")
            continue
        assert isinstance(data, bytes)
        for at in range(0, len(data), _SEGMENT):
            add(side, "PA", data[at : at + _SEGMENT])
    return packets
