"""WebSocket: what the websockets library says, frame by frame, and what it would refuse."""

import json
import struct
import zlib
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated
from second_opinion import tshark
from talking import ACCEPTOR, END, INITIATOR, Cut, Turn, heard
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from vsockdump.apps import websocket
from vsockdump.apps.message import Kind

LONG = json.dumps({"text": "word " * 20_000}).encode()
NO_TAKEOVER = {"server_no_context_takeover": True, "client_no_context_takeover": True}


def compressed(opcode: int, packed: bytes) -> bytes:
    """A frame of a server with the bit of permessage-deflate, which the library does not make."""
    return struct.pack(">BBQ", 0xC0 | opcode, 127, len(packed)) + packed


def handshake(**deflate: Any) -> tuple[ClientProtocol, ServerProtocol, list[Turn]]:
    """Both ends of a connection, and the talk that opened it."""
    uri = parse_uri("ws://vm/socket")
    client = ClientProtocol(uri, extensions=[ClientPerMessageDeflateFactory(**deflate)])
    server = ServerProtocol(extensions=[ServerPerMessageDeflateFactory(**deflate)])
    if not deflate:
        client.available_extensions = server.available_extensions = None
    client.send_request(client.connect())
    asked = b"".join(client.data_to_send())
    server.receive_data(asked)
    server.send_response(server.accept(server.events_received()[0]))
    answered = b"".join(server.data_to_send())
    client.receive_data(answered)
    return client, server, [(INITIATOR, asked), (ACCEPTOR, answered)]


def talk(**deflate: Any) -> list[Turn]:
    """Every kind of frame, as the library writes it."""
    client, server, turns = handshake(**deflate)

    def says(side: int) -> None:
        turns.append((side, b"".join((client, server)[side].data_to_send())))

    client.send_text(b'{"id": 1}')
    says(INITIATOR)
    server.send_text("grüße".encode())
    server.send_binary(bytes(range(256)))
    says(ACCEPTOR)
    client.send_text(b"in ", fin=False)
    client.send_ping(b"between")
    client.send_continuation(b"three ", fin=False)
    client.send_continuation(b"frames", fin=True)
    says(INITIATOR)
    server.send_pong(b"between")
    server.send_text(LONG)
    says(ACCEPTOR)
    client.send_close(1001, "bye")
    says(INITIATOR)
    server.send_close(1001, "bye")
    says(ACCEPTOR)
    return [*turns, (ACCEPTOR, END), (INITIATOR, END)]


TALKS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "deflate": {"server_max_window_bits": 15},
    "anew": NO_TAKEOVER,
}


@pytest.fixture(params=TALKS)
def any_talk(request: pytest.FixtureRequest) -> list[Turn]:
    return talk(**TALKS[request.param])


def test_messages(any_talk: list[Turn]) -> None:
    result = heard(any_talk)
    assert result.summaries[:2] == ["> GET /socket", "< 101 Switching Protocols websocket"]
    assert [text.split(" word")[0] for text in result.summaries[2:]] == [
        '> text {"id": 1}',
        "< text grüße",
        "< binary",
        "> ping",
        "> text in three frames",
        "< pong",
        '< text {"text": "word',
        "> close 1001 going away bye",
        "< close 1001 going away bye",
    ]
    messages = {one.summary: one.fields for one in result.messages}
    assert messages['text {"id": 1}']["json"] == {"id": 1}
    assert messages["text in three frames"]["frames"] == 3
    assert messages["binary"]["size"] == 256
    assert result.messages[8].fields["size"] == len(LONG)
    assert result.said[7].latency_ns == 1_000_000
    assert result.unanswered == []


def test_what_the_library_reads_is_what_is_told(any_talk: list[Turn]) -> None:
    ours = [Opcode[text.split()[1].upper()] for text in heard(any_talk).summaries[2:]]
    theirs = [int(opcode) for (opcode,) in tshark(any_talk, "http", "websocket.opcode")]
    assert sorted(ours) == sorted(code for code in theirs if code != Opcode.CONT)


def test_without_takeover_a_loss_costs_a_message() -> None:
    for deflate, more in ((NO_TAKEOVER, 1), ({"server_max_window_bits": 15}, 0)):
        _client, server, turns = handshake(**deflate)
        for text in (b"first " * 9, b"second " * 9, b"third " * 9):
            server.send_text(text)
            data = b"".join(server.data_to_send())
            cut = text.startswith(b"second")
            turns.append((ACCEPTOR, Cut(data, len(data) - 3) if cut else data))
        told = heard(turns).summaries[2:]
        assert told[0].startswith("< text first")
        assert told[1] == "< text compressed"
        assert (told[2] == "< text compressed") == (not more)


def test_a_handshake_that_was_not_seen() -> None:
    masked = Frame(Opcode.TEXT, b"hello").serialize(mask=True)
    result = heard([(0, masked), (1, compressed(Opcode.TEXT, b"x"))], ports={1024: "websocket"})
    assert result.summaries == ["> text hello", "< text compressed"]


def test_bombs_are_bounded() -> None:
    _client, _server, turns = handshake(server_max_window_bits=15)
    machine = zlib.compressobj(9, wbits=-15)
    bomb = machine.compress(bytes(64 << 20)) + machine.flush(zlib.Z_SYNC_FLUSH)
    frame = compressed(Opcode.BINARY, bomb[:-4])
    turns += [(ACCEPTOR, frame), (ACCEPTOR, frame)]
    first, second = heard(turns).messages[2:]
    assert websocket.EXPANDED < first.fields["size"] < 2 * websocket.EXPANDED
    assert "expanded" in first.fields
    assert second.summary == "binary compressed"


def test_a_stream_that_is_finished_with_a_message() -> None:
    def finished(data: bytes) -> bytes:
        machine = zlib.compressobj(wbits=-15)
        return compressed(Opcode.TEXT, machine.compress(data) + machine.flush())

    _client, _server, turns = handshake(server_max_window_bits=15)
    turns += [(ACCEPTOR, finished(b"one")), (ACCEPTOR, finished(b"two"))]
    assert heard(turns).summaries[2:] == ["< text one", "< text two"]


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"\x83\x00", "reserved opcode"),
        (b"\xa1\x00", "reserved bits"),
        (b"\xc9\x00", "reserved bits"),
        (b"\x09\x00", "in pieces"),
        (b"\x89\x7e\x00\x80", "long"),
        (b"\x82\x7f\xff" + bytes(7), "2^63"),
        (b"\x80\x00", "continues no message"),
        (b"\x01\x00\x01\x00", "not finished"),
    ],
)
def test_frames_that_are_not_allowed(frame: bytes, why: str) -> None:
    (note,) = heard([(1, frame)], ports={1024: "websocket"}).messages
    assert note.kind == Kind.NOTE
    assert why in note.summary


@pytest.mark.parametrize("closing", [b"", b"\x03", struct.pack(">H", 4000) + b"\xffx"])
def test_odd_closes(closing: bytes) -> None:
    frame = b"\x88" + bytes([len(closing)]) + closing
    (message,) = heard([(1, frame)], ports={1024: "websocket"}).messages
    assert message.summary.startswith("close")


@given(st.lists(st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.binary(max_size=300))))
@settings(max_examples=50, deadline=None)
def test_frames_of_the_library_are_read(frames: list[tuple[int, bytes]]) -> None:
    data = b"".join(Frame(kind, body).serialize(mask=True) for kind, body in frames)
    sizes = [one.fields["size"] for one in heard([(0, data)], ports={1024: "websocket"}).messages]
    assert sizes == [len(body) for _kind, body in frames]


def test_any_segments(any_talk: list[Turn]) -> None:
    any_segments([turn for turn in any_talk if len(turn[1]) < 20_000], "http")


def test_losses(any_talk: list[Turn]) -> None:
    losses(any_talk, "http")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 255), st.sampled_from(list(TALKS)))
def test_mutated_talks(at: int, value: int, name: str) -> None:
    mutated(talk(**TALKS[name]), at, value, "http")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_hostile_bytes(data: bytes) -> None:
    hostile(data, "websocket")
