"""HTTP/2 and gRPC: recorded talks, Wireshark's reading of them, gaps, joins and hostile frames."""

import gzip
import zlib
from pathlib import Path

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, mutated, no_failures, recorded
from rpc_talks import (
    AGENT,
    HELLO,
    SETTINGS,
    Http2Side,
    data,
    descriptor_set,
    frame,
    grpc,
    made,
)
from second_opinion import tshark
from talking import END, Cut, Heard, Turn, heard

from vsockdump.apps import grpc_messages, http2
from vsockdump.apps.byte_stream import KEPT
from vsockdump.apps.header_blocks import HeaderBlocks
from vsockdump.apps.http2_headers import LOST
from vsockdump.apps.message import Kind, Message
from vsockdump.apps.protocol import Setting

SERVICE = "demo.Greeter"  # of the recording
READ = "grpc.AgentService/ReadStdout"
ASKED = made("grpc.ReadRequest", container_id="c")
_GRPC = {"_method": "POST", "content_type": "application/grpc"}
OUT = made("grpc.Chunk", data=b"\xffout")


def spoken(result: Heard, protocol: str = "grpc") -> list[str]:
    """Side, summary and error of the messages of a protocol."""
    return [
        line + (f" ! {one.call.error}" if one.call and one.call.error else "")
        for line, one in zip(result.summaries, result.messages, strict=True)
        if one.protocol == protocol and one.kind != Kind.NOTE and "SETTINGS" not in one.summary
    ]


def by_summary(result: Heard, summary: str) -> Message:
    return next(one for one in result.messages if one.summary == summary)


# --- recorded ---------------------------------------------------------------------------------


def test_a_recorded_grpc_client_and_server() -> None:
    result = heard(recorded("grpc"))
    assert result.protocol == "http2"
    assert spoken(result) == [
        f"> {SERVICE}/Hello #1",
        f"< {SERVICE}/Hello #1 message",
        f"< {SERVICE}/Hello #1 OK",
        f"> {SERVICE}/Hello #3",
        f"< {SERVICE}/Hello #3 message",
        f"< {SERVICE}/Hello #3 OK",
        f"> {SERVICE}/Refuse #5",
        f"< {SERVICE}/Refuse #5 ! NOT_FOUND: no such thing: ü",
        f"> {SERVICE}/Nope #7",
        f"< {SERVICE}/Nope #7 ! UNIMPLEMENTED: Method not found!",
        f"> {SERVICE}/Watch #9",
        f"< {SERVICE}/Watch #9 message",
        f"< {SERVICE}/Watch #9 message 2",
        f"< {SERVICE}/Watch #9 message 3",
        f"< {SERVICE}/Watch #9 OK",
        f"> {SERVICE}/Collect #11",
        f"> {SERVICE}/Collect #11 message 2",
        f"< {SERVICE}/Collect #11 message",
        f"< {SERVICE}/Collect #11 OK",
        f"> {SERVICE}/Chat #13",
        f"> {SERVICE}/Chat #13 message 2",
        f"< {SERVICE}/Chat #13 message",
        f"< {SERVICE}/Chat #13 message 2",
        f"< {SERVICE}/Chat #13 OK",
    ]
    assert [call.method for call in result.unanswered] == ["PING"]  # of the server, at the end
    pongs = [one for one in result.said if one.message.summary == "PING ack"]
    assert all(one.latency_ns for one in pongs)


def test_fields_of_the_recording() -> None:
    result = heard(recorded("grpc"))
    squeezed = by_summary(result, f"{SERVICE}/Hello #3").fields
    assert squeezed["headers"]["x-id"] == "7"  # type: ignore[call-overload, index]
    assert str(squeezed["compressed"]).startswith("gzip, ")
    first = by_summary(result, f"{SERVICE}/Hello #1").fields
    assert squeezed["message"] == first["message"]
    assert first["message"]["1"][0] == {"1": "name", "2": {"3": "world"}}  # type: ignore[call-overload, index]


def test_a_recorded_page_with_push_and_padding() -> None:
    result = heard(recorded("http2-1"))
    assert spoken(result, "http2") == [
        "> GET / #13",
        "> GET /missing?a=b #15",
        "< PUSH_PROMISE GET /style.css #2",
        "< GET / #13 200 OK text/html",
        "< GET /missing?a=b #15 ! 404 Not Found",
        "< GET /style.css #2 200 OK text/css",
        "> GOAWAY NO_ERROR, last #2",
    ]
    assert (
        by_summary(result, "GET / #13 200 OK text/html").fields["body"]["text"]
        == "<html>hello</html>"
    )
    assert [
        one.message.call.method for one in result.said if one.latency_ns and one.message.call
    ] == [
        "GET /",
        "GET /missing",
    ]  # without the query


def test_a_recorded_form() -> None:
    result = heard(recorded("http2-2"))
    assert by_summary(result, "POST /form #1").fields["body"]["text"] == "a=1&b=2"
    assert by_summary(result, "POST /form #1 200 OK").fields["body"]["text"] == "a=1&b=2"


# --- Wireshark's reading ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grpc", "http2-1", "http2-2"])
def test_wireshark_reads_the_same(name: str) -> None:
    talk = recorded(name)
    headers = tshark(talk, "http2", "http2.header.name", "http2.header.value")
    pings = tshark(talk, "http2", "http2.ping")
    acks = tshark(talk, "http2", "http2.pong")
    flags = tshark(talk, "http2", "grpc.compressed_flag")
    found = heard(talk).messages
    ours: list[tuple[str, str]] = []
    for one in found:
        for part in ("headers", "trailers"):
            ours += one.fields.get(part, {}).items()  # type: ignore[union-attr]
    assert sorted(ours) == sorted(headers)
    summaries = [one.summary for one in found]
    assert (summaries.count("PING"), summaries.count("PING ack")) == (len(pings), len(acks))
    assert sum("message" in one.fields for one in found) == len(flags)
    assert sum("compressed" in one.fields for one in found) == flags.count(("1",))


# --- gRPC ---------------------------------------------------------------------------------------


def unary(number: int = 1, out: bytes = OUT) -> list[Turn]:
    """A call that succeeds."""
    client, server = Http2Side(), Http2Side()
    return [
        (0, HELLO + client.request(f"/{READ}", number) + data(number, grpc(ASKED), end=True)),
        (1, SETTINGS + server.headers(number, _status="200", content_type="application/grpc")),
        (1, data(number, grpc(out)) + server.status(number)),
    ]


def test_names_with_a_descriptor_set(tmp_path: Path) -> None:
    result = heard(unary(), setting=Setting((descriptor_set(tmp_path, AGENT),)))
    found = [one.fields["message"] for one in result.messages if "message" in one.fields]
    assert found == [{"container_id": "c"}, {"data": b"\xffout"}]


def test_messages_begin_and_end_anywhere_in_frames() -> None:
    client, server = Http2Side(), Http2Side()
    answers = grpc(OUT) + grpc(b"") + grpc(OUT * 3)
    frames = b"".join(data(1, answers[at : at + 3]) for at in range(0, len(answers), 3))
    talk: list[Turn] = [
        (0, HELLO + client.request(f"/{READ}", 1) + data(1, grpc(ASKED), end=True)),
        (1, SETTINGS + server.headers(1, _status="200", content_type="application/grpc+proto")),
        (1, frames + server.status(1)),
    ]
    result = heard(talk)
    assert spoken(result) == [
        f"> {READ} #1",
        f"< {READ} #1 message",
        f"< {READ} #1 message 2",
        f"< {READ} #1 message 3",
        f"< {READ} #1 OK",
    ]
    sizes = [one.size for one in result.said if one.side == 1 and one.message.protocol == "grpc"]
    assert sum(sizes) == len(talk[1][1]) - len(SETTINGS) + len(talk[2][1])


def test_large_messages_are_kept_in_part() -> None:
    large = made("grpc.Chunk", data=b"x" * 200_000)
    client, server = Http2Side(), Http2Side()
    wire = grpc(large)
    frames = [data(1, wire[at : at + (1 << 14)]) for at in range(0, len(wire), 1 << 14)]
    talk: list[Turn] = [
        (0, HELLO + client.request(f"/{READ}", 1) + data(1, grpc(ASKED), end=True)),
        (1, server.headers(1, _status="200", content_type="application/grpc")),
        *((1, one) for one in frames),
        (1, server.status(1)),
    ]
    fields = by_summary(heard(talk), f"{READ} #1 message").fields
    assert fields["size"] == len(large)
    text = fields["message"]["1"]  # type: ignore[index, call-overload]
    assert len(text) in range(KEPT - 10, KEPT + 40)
    assert "bytes are missing" in text


@pytest.mark.parametrize(
    ("packed", "encoding", "expected"),
    [
        (gzip.compress(OUT), "gzip", {"1": b"\xffout"}),
        (zlib.compress(OUT), "deflate", {"1": b"\xffout"}),
        (b"no gzip", "gzip", {"data": b"no gzip"}),
        (OUT, "snappy", {"data": OUT}),
    ],
)
def test_compression(packed: bytes, encoding: str, expected: object) -> None:
    client = Http2Side()
    head = client.request(f"/{READ}", 1, **{**_GRPC, "grpc_encoding": encoding})
    result = heard([(0, HELLO + head + data(1, grpc(packed, True), end=True))])
    fields = by_summary(result, f"{READ} #1").fields
    assert fields["compressed"] == f"{encoding}, {len(packed)} bytes"
    assert fields["message"] == expected


def test_decompression_is_bounded() -> None:
    bomb = gzip.compress(made("grpc.Chunk", data=b"x" * (8 << 20)))
    client = Http2Side()
    head = client.request(f"/{READ}", 1, **{**_GRPC, "grpc_encoding": "gzip"})
    result = heard([(0, HELLO + head + data(1, grpc(bomb, True), end=True))])
    text = by_summary(result, f"{READ} #1").fields["message"]["1"]  # type: ignore[index, call-overload]
    assert KEPT - 10 < len(text) < KEPT + 40


def test_other_content_is_shown_as_it_is() -> None:
    client = Http2Side()
    head = client.request("/a.B/C", 1, _method="POST", content_type="application/grpc+json")
    result = heard([(0, HELLO + head + data(1, grpc(b'{"a":1}'), end=True))])
    assert by_summary(result, "a.B/C #1").fields["message"]["json"] == {"a": 1}  # type: ignore[index, call-overload]


def test_no_status() -> None:
    server = Http2Side()
    refused = server.headers(1, "END_STREAM", _status="503", content_type="text/html")
    result = heard([unary()[0], (1, SETTINGS + refused)])
    assert spoken(result)[-1] == f"< {READ} #1 ! 503 Service Unavailable"


# --- ends of streams ----------------------------------------------------------------------------


def reset(stream: int, code: int = 8) -> bytes:
    return frame(RstStreamFrame(stream, code))


def test_a_client_takes_a_call_back() -> None:
    result = heard([unary()[0], (0, reset(1)), (1, SETTINGS), (0, END), (1, END)])
    assert spoken(result) == [f"> {READ} #1", f"> {READ} #1 RST_STREAM ! RST_STREAM CANCEL"]
    assert result.unanswered == []
    assert result.said[-2].latency_ns or result.said[-1].latency_ns


def test_a_server_refuses() -> None:
    result = heard([unary()[0], (1, SETTINGS + reset(1, 7))])
    assert spoken(result)[-1] == f"< {READ} #1 RST_STREAM ! RST_STREAM REFUSED_STREAM"
    assert result.unanswered == []


def test_an_answer_that_is_quicker_than_the_request() -> None:
    """The server refuses before the client has sent a message; no call stays open."""
    client, server = Http2Side(), Http2Side()
    talk: list[Turn] = [
        (0, HELLO + client.request(f"/{READ}", 1)),
        (1, SETTINGS + server.headers(1, "END_STREAM", _status="200", grpc_status="12")),
        (0, data(1, grpc(ASKED), end=True)),
    ]
    result = heard(talk)
    assert spoken(result) == [f"< {READ} #1 ! UNIMPLEMENTED", f"> {READ} #1"]
    assert result.unanswered == []


def test_what_is_unfinished_when_a_side_ends() -> None:
    client, server = Http2Side(), Http2Side()
    talk: list[Turn] = [
        (0, HELLO + client.request("/a", 1, "END_STREAM", _method="GET")),
        (0, client.request("/b", 3, _method="PUT") + data(3, b"some")),
        (1, SETTINGS + server.headers(1, _status="200", content_type="text/plain")),
        (1, data(1, b"half")),
        (0, END),
        (1, END),
    ]
    result = heard(talk)
    assert spoken(result, "http2") == [
        "> GET /a #1",
        "> PUT /b #3",
        "< GET /a #1 200 OK text/plain (the side sends no more)",
    ]
    assert by_summary(result, "PUT /b #3").fields["body"]["text"] == "some"
    assert [call.method for call in result.unanswered] == ["PUT /b"]


def test_interim_responses_and_tunnels() -> None:
    client, server = Http2Side(), Http2Side()
    talk: list[Turn] = [
        (0, HELLO + client.request("/a", 1, "END_STREAM", _method="GET")),
        (1, SETTINGS + server.headers(1, _status="103") + server.headers(1, _status="204")),
        (1, data(1, end=True)),
        (0, client.headers(3, _method="CONNECT", _authority="db:5432") + data(3, b"raw")),
        (1, server.headers(3, _status="200") + data(3, b"raw") + data(3, end=True)),
    ]
    assert spoken(heard(talk), "http2") == [
        "> GET /a #1",
        "< GET /a #1 103 Early Hints",
        "< GET /a #1 204 No Content",
        "> CONNECT db:5432 #3",
        "< CONNECT db:5432 #3 200 OK",
    ]


def test_goaway() -> None:
    away = GoAwayFrame(0, last_stream_id=5, error_code=11, additional_data=b"too_many_pings")
    result = heard([unary()[0], (1, SETTINGS + frame(away))])
    assert result.summaries[-1] == "< GOAWAY ENHANCE_YOUR_CALM, last #5"
    assert result.messages[-1].fields["debug"] == "too_many_pings"


def test_a_stream_that_has_ended_says_no_more() -> None:
    talk = [*unary(), (1, data(1, grpc(OUT))), (1, reset(1, 0))]
    assert heard(talk).summaries[-2:] == [f"< {READ} #1 OK", "< #1 RST_STREAM NO_ERROR"]


def test_a_recorded_upgrade_from_http1() -> None:
    result = heard(recorded("h2c"))
    assert [line for line in result.summaries if "SETTINGS" not in line] == [
        "> GET /style.css",
        "< 101 Switching Protocols h2c",
        "< GET /style.css #1 200 OK text/css",
        "> GOAWAY NO_ERROR, last #0",
    ]
    answers = [one for one in result.said if one.message.kind == Kind.RESPONSE]
    assert [one.request_packet for one in answers] == [3, 3]
    assert result.unanswered == []


# --- header tables ------------------------------------------------------------------------------


def test_joined_inside_a_connection() -> None:
    """Framing and pairing go on; what only the lost part of the table knows is said to be lost."""
    client, server = Http2Side(), Http2Side()
    client.request(f"/{READ}", 1)
    server.headers(1, _status="200", content_type="application/grpc")
    server.status(1)
    talk: list[Turn] = [
        (0, client.request(f"/{READ}", 3) + data(3, grpc(ASKED), end=True)),
        (1, server.headers(3, _status="200", content_type="application/grpc")),
        (1, data(3, grpc(OUT)) + server.status(3)),
        (0, client.request("/grpc.Health/Check", 5) + data(5, grpc(b""), end=True)),
        (1, server.headers(5, _status="200") + data(5, grpc(b"")) + server.status(5, 5, "gone")),
        (0, client.request("/grpc.Health/Check", 7) + data(7, grpc(b""), end=True)),
    ]
    result = heard(talk, connect=False, port=47_000)
    assert spoken(result) == [
        f"> {LOST} #3",
        f"< {LOST} #3 message",
        f"< {LOST} #3 {LOST}",
        "> grpc.Health/Check #5",
        "< grpc.Health/Check #5 message",
        f"< grpc.Health/Check #5 {LOST}",
        "> grpc.Health/Check #7",
    ]
    assert [one.request_packet for one in result.said][2] == 1
    assert [call.method for call in result.unanswered] == ["grpc.Health/Check"]


def lossy(noticed: bool) -> Heard:
    """A header block is lost; the server's next packet shows that, if there is one."""
    client = Http2Side()
    talk: list[Turn] = [(0, HELLO + client.request("/a.A/One", 1) + data(1, grpc(b""), end=True))]
    for number, path in ((3, "/a.A/Two"), (5, "/a.A/One"), (7, "/a.A/Three"), (9, "/a.A/Three")):
        talk.append((0, client.request(path, number) + data(number, grpc(b""), end=True)))
    talk.insert(2, (1, SETTINGS))
    return heard(talk if noticed else [*talk[:2], *talk[3:]], lost=[1])


def test_a_table_is_never_wrong_behind_a_gap() -> None:
    assert spoken(lossy(noticed=True)) == [
        "> a.A/One #1",
        f"> {LOST} #5",
        "> a.A/Three #7",
        "> a.A/Three #9",
    ]


def test_a_gap_that_nobody_has_noticed_shows_in_the_headers() -> None:
    result = lossy(noticed=False)
    assert spoken(result)[-2:] == [f"> {LOST} #7", f"> {LOST} #9"]
    assert "does not fit" in str(by_summary(result, f"{LOST} #7").fields["headers"])


def test_a_request_of_which_the_rest_is_lost_is_said() -> None:
    turns = [(0, HELLO), *unary()]
    head = Http2Side().request(f"/{READ}", 1)
    cut = head + data(1, grpc(ASKED), end=True)
    result = heard([turns[0], (0, Cut(cut, len(head) + 4)), (1, SETTINGS)])
    assert spoken(result) == [f"> {READ} #1"]
    assert by_summary(result, f"{READ} #1").fields["(unfinished)"] == "bytes are missing"


def test_blocks_go_over_continuations() -> None:
    block = Http2Side()
    whole = block.request(f"/{READ}", 1)[9:]
    parts = frame(HeadersFrame(1, whole[:3])) + frame(ContinuationFrame(1, whole[3:9]))
    parts += frame(ContinuationFrame(1, whole[9:]), "END_HEADERS")
    result = heard([(0, HELLO + parts + data(1, grpc(ASKED), end=True))])
    assert spoken(result) == [f"> {READ} #1"]


@pytest.mark.parametrize(
    "block",
    [
        b"\x40" + b"\x01a" + b"\x7f\xe1\x1e" + b"b" * 4064 + b"\xbe" * 60_000,  # a bomb
        b"\x3f\xff\xff\xff\x0f",  # a table of 4 GB
        b"\x80",  # index 0
        b"\x82\x20",  # a size behind a header
        b"\x00\x05ab",  # a name that is cut
    ],
)
def test_hostile_blocks(block: bytes) -> None:
    blocks = HeaderBlocks()
    found = blocks.decode(block)
    assert found.why
    assert found.pairs == ()
    assert blocks.decode(b"\x82").pairs == ((":method", "GET"),)


def test_endless_continuations_are_not_kept() -> None:
    flood = b"".join(frame(ContinuationFrame(1, b"\0" * 16_000)) for _ in range(10))
    head = frame(HeadersFrame(1, b"\x82"))
    end = frame(ContinuationFrame(1, b""), "END_HEADERS")
    result = heard([(0, HELLO + head + flood + end + data(1, b"x", end=True))])
    assert "more than 65536 bytes" in str(by_summary(result, f"{LOST} #1").fields["headers"])


# --- what the protocol does not allow -------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (frame(HeadersFrame(1, b"\x82")) + SETTINGS, "a CONTINUATION is missing"),
        (frame(ContinuationFrame(1, b"")), "a CONTINUATION without HEADERS"),
        (frame(DataFrame(1, b"x" * 16_385)), "the receiver allows 16384"),
        (b"\0\0\x02\0\x08\0\0\0\x01\x05x", "more padding than bytes"),
        (b"\0\0\x01\x06\0\0\0\0\0x", "PING: "),
        (b"\0\0\x00\x00\0\0\0\0\0", "Stream ID must be non-zero"),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", ""),
    ],
)
def test_what_is_not_allowed(bad: bytes, why: str) -> None:
    result = heard([(0, HELLO + bad), (0, SETTINGS), (1, SETTINGS)])
    assert result.messages[-2].kind == Kind.NOTE
    assert why in result.messages[-2].summary
    assert result.summaries[-1] == "< SETTINGS"


def test_larger_frames_where_the_receiver_allows_them() -> None:
    allow = frame(SettingsFrame(0, {SettingsFrame.MAX_FRAME_SIZE: 20_000}))
    client = Http2Side()
    head = HELLO + client.request("/a", 1, _method="PUT")
    result = heard([(0, head), (1, allow), (0, data(1, b"x" * 17_000, end=True))])
    assert by_summary(result, "PUT /a #1").fields["body"]["size"] == 17_000


def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "MOST_STREAMS", 2)
    client = Http2Side()
    puts = [client.request(f"/{number}", number, _method="PUT") for number in range(1, 13, 2)]
    result = heard([(0, HELLO + b"".join(puts) + data(11, b"", end=True))])
    notes = [one.summary for one in result.messages if one.kind == Kind.NOTE]
    assert [note.split("; ")[1].split()[0] for note in notes] == ["1", "2", "4"]
    assert result.summaries[-1] == "> PUT /11 #11"


@pytest.mark.parametrize(
    "first", [b"\0" * 100, b"PRI * HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"]
)
def test_what_is_no_http2(first: bytes) -> None:
    assert heard([(0, first), (1, b"\0")], port=47_000).protocol not in ("http2", "grpc")


def test_a_server_that_speaks_first() -> None:
    talk: list[Turn] = [(1, SETTINGS), (0, HELLO), (1, frame(WindowUpdateFrame(0, 5)))]
    assert heard(talk, port=47_000).summaries == ["< SETTINGS", "> SETTINGS"]


def test_pings_are_calls() -> None:
    ping, ack = frame(PingFrame(0, b"12345678")), frame(PingFrame(0, b"12345678"), "ACK")
    result = heard([(0, HELLO + ping), (1, SETTINGS + ack)])
    assert result.said[-1].latency_ns == 1_000_000
    assert result.unanswered == []


# --- any bytes ----------------------------------------------------------------------------------

TALKS = {"unary": unary(), "grpc": recorded("grpc"), "http2-1": recorded("http2-1")}


@pytest.mark.parametrize("name", TALKS)
def test_any_segments(name: str) -> None:
    any_segments(TALKS[name], "http2")


def _summaries(messages: list[Message]) -> set[str]:
    return {one.summary for one in messages if one.kind != Kind.NOTE}


def _is_of(whole: set[str], summary: str) -> bool:
    """Whether the whole talk says it, but for names that are lost and counts."""
    if LOST in summary or "(" in summary:
        return True
    name, _sign, rest = summary.partition("#")
    number = f"#{rest.split()[0]}" if rest else ""
    return any(one.startswith(name) and number in one for one in whole)


@pytest.mark.parametrize("name", TALKS)
def test_losses_invent_nothing(name: str) -> None:
    """Without a packet, or with half of it."""
    talk = TALKS[name]
    whole = _summaries(heard(talk).messages)
    for number, (side, turn) in enumerate(talk):
        if turn is END or not isinstance(turn, bytes):
            continue
        half: Turn = (side, Cut(turn, len(turn) // 2))
        for result in (
            heard(talk, lost=[number]),
            heard(talk, lost=[number], connect=False),
            heard([*talk[:number], half, *talk[number + 1 :]]),
        ):
            no_failures(result.messages)
            invented = [one for one in _summaries(result.messages) if not _is_of(whole, one)]
            assert invented == []


@given(junk=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_hostile_bytes(junk: bytes) -> None:
    hostile(junk, "http2")
    hostile(HELLO + junk, "http2")
    hostile(HELLO + Http2Side().request(f"/{READ}", 1) + data(1, junk), "http2")
    HeaderBlocks().decode(junk)


@given(at=st.integers(0, 20_000), value=st.integers(0, 255), name=st.sampled_from(sorted(TALKS)))
@settings(max_examples=80, deadline=None)
def test_mutated(at: int, value: int, name: str) -> None:
    mutated(TALKS[name], at, value, "http2")


@given(cuts=st.lists(st.integers(1, 400), min_size=1, max_size=5), missing=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_messages_of_grpc_in_any_pieces(cuts: list[int], missing: int) -> None:
    wire = grpc(OUT) + grpc(b"y" * 300) + grpc(b"")
    reader = grpc_messages.GrpcMessages(is_aligned=True)
    at, sizes = 0, []
    for cut in [*cuts, len(wire)]:
        sizes += [one.body.size for one in reader.feed(wire[at : at + cut])]
        at += cut
    assert sizes == [len(OUT), 300, 0]
    list(reader.feed(wire[:2], missing))
    assert reader.is_aligned == (missing == 0)
