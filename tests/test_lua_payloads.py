"""Payload given to other dissectors, by the Wireshark script.

What is said must not depend on how the bytes were cut into packets, nor on the pass.
"""

import random
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


def test_requests_and_responses_are_paired(tmp_path: Path) -> None:
    """By stream: who answers, where, and after how long; the method is told of the answer too."""
    capture = write_talk(tmp_path / "talk.pcap", TTRPC.pieces)
    names = ["ttrpc.response_in", "ttrpc.request_in", "ttrpc.time"]
    expected = {
        "ttrpc.response_in": ["4", "4", "7"],
        "ttrpc.request_in": ["3", "3", "5", "5"],
        "ttrpc.time": ["0.001000000", "0.001000000", "0.001000000", "0.002000000"],
    }
    assert expected == said(capture, names, "-2")
    (line,) = [text for text in wireshark.tshark(capture) if "NOT_FOUND" in text]
    assert "Response #1 grpc.AgentService/CreateContainer OK; " in line
    assert "Response #3 grpc.AgentService/StartContainer NOT_FOUND: no such container" in line


def test_empty_messages_and_fields(tmp_path: Path) -> None:
    """Nothing at the end of a frame is nothing to show, and no fault of the script."""
    request = ttrpc(1, 1, text(1, b"lab.Agent") + text(2, b"Wait") + text(3, b""))
    bodies = (b"", text(1, b""), text(1, text(1, b"") + text(2, b"")), text(2, b""))
    pieces = [piece for body in bodies for piece in ((0, request), (1, ttrpc(1, 2, body)))]
    capture = write_talk(tmp_path / "talk.pcap", pieces)
    lines = wireshark.tshark(capture)
    assert 4 == sum("Response #1 lab.Agent/Wait OK" in line for line in lines)
    assert not any("Error" in line for line in lines)


def test_a_seqpacket_message_is_given_whole(tmp_path: Path) -> None:
    """Its pieces end with EOM, and two messages are never one."""
    messages = [(0, b'{"execute":'), (0, b'"a"}'), (1, b'{"return":{}}')]
    capture = write_talk(tmp_path / "talk.pcap", messages, kind=SocketType.SEQPACKET)
    assert {"json.member": ["execute", "return"]} == said(capture, ["json.member"], "-2")


def test_ports_of_the_user_come_first(tmp_path: Path) -> None:
    """What the bytes look like does not matter then."""
    capture = write_talk(tmp_path / "talk.pcap", [(0, text(1, b"hello"))], port=9000)
    ports = ("-o", "vsockdump.ports:9000=protobuf,22=tls")
    names = ["vsock.app.protocol", "protobuf.field.number"]
    assert {"vsock.app.protocol": ["protobuf"], "protobuf.field.number": ["1"]} == said(
        capture, names, *ports
    )


def test_recognition_can_be_switched_off(tmp_path: Path) -> None:
    """Then only ports tell."""
    capture = write_talk(tmp_path / "talk.pcap", SSH.pieces)
    found = said(capture, ["vsock.app.protocol"], "-o", "vsockdump.recognise:FALSE")
    assert {"vsock.app.protocol": []} == found


def test_a_wrong_port_map_is_told(tmp_path: Path) -> None:
    """Once, with the entry that is wrong."""
    capture = write_talk(tmp_path / "talk.pcap", SSH.pieces)
    complaint = wireshark.complaint(capture, "-o", "vsockdump.ports:22=ssh,9000=nothing")
    assert '"9000=nothing" is not PORT=PROTOCOL' in complaint


def test_a_long_message_is_given_up(tmp_path: Path) -> None:
    """Beyond the longest that is kept; what comes after it is read again."""
    long = b"POST /up HTTP/1.1\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000
    pieces = [*cut([(0, long)], 1000), (0, b"GET /next HTTP/1.1\r\n\r\n")]
    capture = write_talk(tmp_path / "talk.pcap", pieces)
    limit = ("-o", "vsockdump.largest:5000", "-2")
    assert ["/next"] == said(capture, ["http.request.uri"], *limit)["http.request.uri"]
    whole = said(capture, ["http.request.uri"], "-2")
    assert ["/up", "/next"] == whole["http.request.uri"]


@pytest.mark.parametrize("name", TALKS)
def test_garbage_is_no_error_of_lua(name: str, tmp_path: Path) -> None:
    """A talk that begins well and goes on with noise, many times."""
    source = random.Random(name)
    opening = [piece for piece in TALKS[name].pieces if piece[0] == 0][:1]
    pieces = opening + [
        (source.randrange(2), source.randbytes(source.randint(1, 200))) for _ in range(400)
    ]
    capture = write_talk(tmp_path / "talk.pcap", pieces)
    assert len(pieces) + 4 == len(wireshark.fields(capture, ["frame.number"], "-2"))


def test_any_ttrpc_body_is_no_error_of_lua(tmp_path: Path) -> None:
    """Empty ones, empty fields, and bodies cut and changed anywhere."""
    source = random.Random(1)
    good = [call(1, b"Create")[10:], answer(1)[10:], answer(1, 5, b"gone")[10:]]
    bodies = [
        b"",
        text(1, b""),
        text(2, b""),
        text(1, b"") * 2 + text(5, b""),
        text(1, text(2, b"")),
    ]
    for _ in range(300):
        body = bytearray(source.choice(good))
        for _ in range(source.randint(0, 3)):
            body[source.randrange(len(body))] = source.choice((0, 1, 127, 128, 255))
        bodies.append(bytes(body[: source.randint(1, len(body))]))
    frames = [ttrpc(at | 1, at % 3 + 1, body) for at, body in enumerate(bodies * 3)]
    frames.insert(0, call(1, b"Create"))
    capture = write_talk(tmp_path / "talk.pcap", [(at % 2, data) for at, data in enumerate(frames)])
    kinds = said(capture, ["ttrpc.type"], "-2")["ttrpc.type"]
    assert len(frames) == len(kinds)


def test_real_http() -> None:
    """Python's client and server over loopback, which calls one end by two names."""
    found = said(CAPTURES / "k612_http.pcap", ["http.request.uri", "http.response_for.uri"], "-2")
    assert ["/", "/big", "/nope", "/up"] == found["http.request.uri"]


def test_real_ssh() -> None:
    """Banners and key exchange, with the right direction of each."""
    lines = wireshark.tshark(CAPTURES / "prog_ssh.pcapng", "-2", "-Y", "ssh")
    assert "Client: Protocol (SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u6)" in lines[0]
    assert "Server: Protocol (SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10)" in lines[1]
    assert "Server: Diffie-Hellman Key Exchange Reply" in "".join(lines)
