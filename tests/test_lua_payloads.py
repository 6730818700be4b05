"""Payload given to other dissectors, by the Wireshark script.

What is said must not depend on how the bytes were cut into packets, nor on the pass.
"""

import ssl
import struct
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import wireshark
from running import CAPTURES, Raw, pcap_file
from scenario import build_frame
from wireshark import EPOCH

from vsockdump.address import Endpoint
from vsockdump.wire import CID_HOST, Op, Seqpacket, SocketType

GUEST: Final = Endpoint(3, 40000)
Piece = tuple[int, bytes]  # who sends (0: the initiator), and what


class Talk(NamedTuple):
    """A talk, and what Wireshark has to make of it: all values of some fields, in order."""

    pieces: tuple[Piece, ...]
    expected: dict[str, list[str]]


# --- protocols ---------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Protobuf's."""
    more, last = divmod(number, 128)
    return bytes([last | 128]) + varint(more) if more else bytes([last])


def text(number: int, value: bytes) -> bytes:
    """A protobuf field of bytes."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def ttrpc(stream: int, kind: int, body: bytes, flags: int = 0) -> bytes:
    """A ttRPC frame."""
    return struct.pack(">IIBB", len(body), stream, kind, flags) + body


def call(stream: int, method: bytes) -> bytes:
    """A ttRPC request with a payload, a timeout and metadata."""
    metadata = text(1, b"source") + text(2, b"shim")
    return ttrpc(
        stream,
        1,
        text(1, b"grpc.AgentService")
        + text(2, method)
        + text(3, text(1, b"container-1"))
        + varint(4 << 3)
        + varint(1_500_000_000)
        + text(5, metadata),
    )


def answer(stream: int, code: int = 0, message: bytes = b"") -> bytes:
    """A ttRPC response."""
    status = text(1, varint(1 << 3) + varint(code) + text(2, message)) if code else b""
    return ttrpc(stream, 2, status + text(2, text(1, b"container-1")))


TTRPC: Final = Talk(
    (
        (0, call(1, b"CreateContainer") + call(3, b"StartContainer")),
        (1, answer(1) + answer(3, 5, b"no such container")),
        (0, call(5, b"StatsContainer")),
        (0, ttrpc(5, 3, b"data", 1)),
        (1, answer(5)),
    ),
    {
        "ttrpc.type": ["1", "1", "2", "2", "1", "3", "2"],
        "ttrpc.stream_id": ["1", "3", "1", "3", "5", "5", "5"],
        "ttrpc.service": ["grpc.AgentService"] * 3,
        "ttrpc.method": ["CreateContainer", "StartContainer", "StatsContainer"],
        "ttrpc.metadata": ["source: shim"] * 3,
        "ttrpc.timeout": ["1.500000000"] * 3,
        "ttrpc.status": ["NOT_FOUND"],
        "ttrpc.status.message": ["no such container"],
        "protobuf.field.number": ["1"] * 6,
    },
)


def http2(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def literal(index: bytes, value: bytes) -> bytes:
    """A header that is not indexed; `index` is its name's in HPACK's static table."""
    return index + bytes([len(value)]) + value


GRPC_TYPE: Final = literal(b"\x0f\x10", b"application/grpc")
SETTINGS: Final = http2(4, 0, 0, b"")
GRPC: Final = Talk(
    (
        (0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS),
        (0, http2(1, 4, 1, b"\x83\x86" + literal(b"\x04", b"/echo.Echo/Say") + GRPC_TYPE)),
        (0, http2(0, 1, 1, b"\0" + struct.pack(">I", 7) + text(1, b"hello"))),
        (1, SETTINGS + http2(1, 4, 1, b"\x88" + GRPC_TYPE)),
        (1, http2(0, 0, 1, b"\0" + struct.pack(">I", 4) + text(1, b"ok"))),
        (1, http2(1, 5, 1, b"\0\x0bgrpc-status" + b"\x010")),
    ),
    {
        "http2.headers.path": ["/echo.Echo/Say"],
        "http2.headers.status": ["200"],
        "grpc.message_length": ["7", "4"],
        "protobuf.field.number": ["1", "1"],
    },
)


def client_hello() -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    client = context.wrap_bio(incoming, outgoing, server_hostname="enclave.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


TLS: Final = Talk(
    ((0, client_hello()), (1, b"\x15\x03\x03\x00\x02\x02\x28")),
    {
        "tls.handshake.type": ["1"],
        "tls.handshake.extensions_server_name": ["enclave.example"],
        "tls.handshake.extensions_alpn_str": ["h2"],
        "tls.alert_message.desc": ["40"],
    },
)
HTTP: Final = Talk(
    (
        (0, b"POST /up HTTP/1.1\r\nHost: guest\r\nContent-Length: 300\r\n\r\n" + b"x" * 300),
        (1, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        (0, b"GET /end HTTP/1.1\r\nConnection: close\r\n\r\n"),
        (1, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end"),
    ),
    {
        "http.request.uri": ["/up", "/end"],
        "http.response.code": ["200", "200"],
        "http.content_length": ["300", "5"],
        "data-text-lines": ["Line-based text data: text/plain (1 lines)"],
    },
)
SSH: Final = Talk(
    ((0, b"SSH-2.0-OpenSSH_9.2\r\n"), (1, b"SSH-2.0-dropbear\r\n")),
    {"ssh.protocol": ["SSH-2.0-OpenSSH_9.2", "SSH-2.0-dropbear"]},
)
JSON: Final = Talk(
    (
        (0, b'{"execute":"guest-ping"}\n'),
        (1, b'{"return":{}}\n{"event":"stop"}\n'),
    ),
    {"json.member": ["execute", "return", "event"]},
)
VERSION_9P: Final = struct.pack("<BHIH", 100, 0xFFFF, 8192, 8) + b"9P2000.L"
NINE_P: Final = Talk(
    (
        (0, struct.pack("<I", 4 + len(VERSION_9P)) + VERSION_9P),
        (1, struct.pack("<I", 4 + len(VERSION_9P)) + b"\x65" + VERSION_9P[1:]),
    ),
    {"9p.msgtype": ["100", "101"], "9p.version": ["9P2000.L", "9P2000.L"]},
)
TALKS: Final = {
    "ttrpc": TTRPC,
    "grpc": GRPC,
    "tls": TLS,
    "http": HTTP,
    "ssh": SSH,
    "json": JSON,
    "9p": NINE_P,
}


# --- captures ----------------------------------------------------------------------------


def cut(pieces: Sequence[Piece], size: int | None) -> list[Piece]:
    """The same talk in packets of at most so many bytes."""
    return [
        (side, data[at : at + (size or len(data))])
        for side, data in pieces
        for at in range(0, len(data), size or len(data))
    ]


def write_talk(
    path: Path, pieces: Sequence[Piece], port: int = 5000, kind: SocketType = SocketType.STREAM
) -> Path:
    """A capture of a connection to `port` of the host, from its first packet to its last."""
    host = Endpoint(CID_HOST, port)
    sent = [0, 0]
    frames = []

    def add(side: int, op: int, data: bytes = b"", flags: int = 0) -> None:
        ends = (GUEST, host) if side == 0 else (host, GUEST)
        sent[side] += len(data)
        fields = {"type": int(kind), "flags": flags, "fwd_cnt": sent[1 - side]}
        frames.append(build_frame(*ends, op, data, virtio=fields))

    message = int(Seqpacket.EOM) if kind == SocketType.SEQPACKET else 0
    add(0, Op.REQUEST)
    add(1, Op.RESPONSE)
    for (side, data), following in zip_longest(pieces, pieces[1:]):
        add(side, Op.RW, data, 0 if following and following[0] == side else message)
    add(1, Op.SHUTDOWN, flags=3)
    add(0, Op.RST)
    packets = [Raw(EPOCH + at * 10**6, frame, len(frame)) for at, frame in enumerate(frames)]
    path.write_bytes(pcap_file(packets))
    return path


def said(capture: Path, names: Sequence[str], *arguments: str) -> dict[str, list[str]]:
    """All values of each field over all packets."""
    rows = wireshark.fields(capture, names, "-E", "aggregator=;", *arguments)
    return {
        name: [value for row in rows for value in row[at].split(";") if value]
        for at, name in enumerate(names)
    }


# --- tests -------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "passes"), [(None, ["-2"]), (50, []), (7, ["-2"]), (1, [])])
@pytest.mark.parametrize("name", TALKS)
def test_messages_are_put_together(
    name: str, size: int | None, passes: list[str], tmp_path: Path
) -> None:
    """However the bytes were cut into packets."""
    talk = TALKS[name]
    capture = write_talk(tmp_path / "talk.pcap", cut(talk.pieces, size))
    found = said(capture, [*talk.expected, "vsock.app.protocol"], *passes)
    assert {"http2" if name == "grpc" else name} == set(found.pop("vsock.app.protocol"))
    assert talk.expected == {key: found[key] for key in talk.expected}
