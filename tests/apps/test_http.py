"""HTTP/1: bodies of every kind, order and loss, what is refused, and what tshark says."""

import gzip
import json
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated
from running import CAPTURES
from second_opinion import tshark
from talking import ACCEPTOR, END, INITIATOR, Cut, Turn, hear_file, heard

from vsockdump.apps.content import SHOWN
from vsockdump.apps.message import Kind, Message


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: vm", *lines, "", "")).encode()


def answer(status: str, body: bytes = b"", *lines: str) -> bytes:
    size = () if "100" in status else (f"Content-Length: {len(body)}",)
    return "\r\n".join((f"HTTP/1.1 {status}", *size, *lines, "", "")).encode() + body


def chunked(*parts: bytes, trailers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x;name=value\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + chunks + b"0\r\n" + trailers + b"\r\n"


TALK: list[Turn] = [
    (INITIATOR, get("/one?x=1") + get("/items/42/7a", method="HEAD")),  # pipelined
    (ACCEPTOR, answer("200 OK", b'{"a":[1]}', "Content-Type: application/json; charset=utf-8")),
    (ACCEPTOR, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
    (INITIATOR, get("/in", "Content-Length: 4", "Expect: 100-continue", method="POST")),
    (ACCEPTOR, answer("100 Continue")),
    (INITIATOR, b"body"),
    (ACCEPTOR, chunked(b"first ", b"second", trailers=b"X-Sum: 7\r\n")),
    (INITIATOR, get("/gone", method="DELETE")),
    (ACCEPTOR, b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n"[:27]),
    (INITIATOR, get("/missing")),
    (ACCEPTOR, answer("404 Not Found", b"no", "Content-Type: text/plain")),
    (INITIATOR, get("/rest")),
    (ACCEPTOR, b"HTTP/1.0 200 OK\r\n\r\nall until the end"),
    (ACCEPTOR, END),
]


def field(message: Message, *names: str) -> object:
    value: object = message.fields
    for name in names:
        assert isinstance(value, dict)
        value = value[name]
    return value


def body_of(message: Message) -> dict[str, object]:
    body = message.fields["body"]
    assert isinstance(body, dict)
    return body


def test_requests_and_responses() -> None:
    result = heard(TALK)
    assert result.summaries == [
        "> GET /one?x=1",
        "> HEAD /items/42/7a",
        "< 200 OK application/json",
        "< 200 OK",
        "< 100 Continue",
        "> POST /in",
        "< 200 OK",
        "> DELETE /gone",
        "< 204 No Content",
        "> GET /missing",
        "< 404 Not Found text/plain",
        "> GET /rest",
        "< 200 OK",
    ]
    assert result.unanswered == []
    by_summary = {one.summary: one for one in result.messages}
    assert body_of(by_summary["200 OK application/json"])["json"] == {"a": [1]}
    assert by_summary["POST /in"].fields["body"] == {"size": 4, "text": "body"}
    calls = [one.message.call for one in result.said if one.message.kind == Kind.RESPONSE]
    assert [call.method for call in calls if call] == [
        *("GET /one", "HEAD /items/*/7a", "POST /in", "POST /in", "DELETE /gone"),
        *("GET /missing", "GET /rest"),
    ]
    assert [call.error for call in calls if call][-2] == "404 Not Found"


def test_chunks_and_trailers() -> None:
    message = heard(TALK).messages[6]
    assert message.fields["body"] == {"size": 12, "text": "first second"}
    assert message.fields["trailers"] == {"x-sum": "7"}


def test_repeated_and_folded_headers() -> None:
    lines = ("Set-Cookie: a=1", "X: 1,\r\n 2", "Set-Cookie: b=2")
    result = heard([(0, get("/")), (1, answer("200 OK", b"", *lines))])
    headers = field(result.messages[1], "headers")
    assert headers == {"content-length": "0", "set-cookie": ["a=1", "b=2"], "x": "1, 2"}


BODY = json.dumps({"text": "x" * 1000}).encode()
RAW_DEFLATE = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    ("coding", "coded"),
    [
        ("gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", RAW_DEFLATE.compress(BODY) + RAW_DEFLATE.flush()),
        ("zstd", zstandard.compress(BODY)),
        ("gzip, zstd", zstandard.compress(gzip.compress(BODY))),
    ],
)
def test_content_codings(coding: str, coded: bytes) -> None:
    result = heard([(0, get("/")), (1, answer("200 OK", coded, f"Content-Encoding: {coding}"))])
    body = body_of(result.messages[1])
    assert body["json"] == json.loads(BODY)
    assert (body["size"], body["decoded size"]) == (len(coded), len(BODY))


@pytest.mark.parametrize(
    ("coding", "coded"),
    [("br", b"\x0b\x02\x80abc\x03"), ("gzip", b"no gzip"), ("zstd", b"no zstd")],
)
def test_codings_that_cannot_be_undone(coding: str, coded: bytes) -> None:
    result = heard([(0, get("/")), (1, answer("200 OK", coded, f"Content-Encoding: {coding}"))])
    assert "not decoded" in body_of(result.messages[1])


def test_bombs_and_long_bodies_are_cut() -> None:
    bomb = gzip.compress(bytes(100 << 20), 1)
    turns = [(0, get("/")), (1, answer("200 OK", bomb[: 60 << 10], "Content-Encoding: gzip"))]
    body = body_of(heard(turns).messages[1])
    assert body["decoded size"] == 64 << 10
    assert body["cut"] == (64 << 10) - SHOWN
    assert body["incomplete"] is True


def test_a_body_that_is_missing_in_part() -> None:
    whole = answer("200 OK", b"x" * 1000)
    result = heard([(0, get("/")), (1, Cut(whole, len(whole) - 900)), (0, get("/b")), TALK[1]])
    assert result.summaries == ["> GET /", "< 200 OK", "> GET /b", "< 200 OK application/json"]
    assert body_of(result.messages[1])["missing"] == 900


def test_responses_that_end_early() -> None:
    for answered in (answer("200 OK", b"x" * 50)[:-20], chunked(b"x" * 50)[:-20]):
        result = heard([(0, get("/")), (1, answered), (1, END)])
        assert result.summaries == ["> GET /", "< 200 OK (ended early)"]
        call = result.messages[1].call
        assert call is not None
        assert call.error == "the response ended early"


def test_an_answer_before_the_request_is_complete() -> None:
    head = get("/big", "Content-Length: 10", method="PUT")
    turns = [(0, head + b"12345"), (1, answer("413 Too Large")), (0, b"67890"), (0, get("/"))]
    result = heard(turns)
    assert result.summaries == ["< 413 Too Large", "> PUT /big", "> GET /"]
    assert [call.method for call in result.unanswered] == ["GET /"]


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * (65 << 10),
        b"GET  HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_note(junk: bytes) -> None:
    result = heard([(0, get("/")), (0, junk), (0, get("/"))], ports={1024: "http"})
    assert [one.kind for one in result.messages] == [Kind.REQUEST, Kind.NOTE]
    assert "not understood" in result.messages[1].summary


def test_after_a_loss_only_a_single_open_request_is_answered() -> None:
    turns = [(0, get("/a")), (1, answer("200 A")), (0, get("/b")), (1, answer("200 B"))]
    turns += [(0, get("/c")), (1, answer("200 C"))]
    result = heard(turns, lost=[1])  # the answer to /a
    methods = [one.call.method if one.call else None for one in result.messages]
    assert [*zip(result.summaries, methods, strict=True)][-2:] == [
        ("> GET /c", "GET /c"),
        ("< 200 C", "GET /c"),
    ]
    assert ("< 200 B", "GET /a") not in zip(result.summaries, methods, strict=True)


def test_joined_inside_a_connection() -> None:
    turns: list[Turn] = [(1, b"a body's end"), (0, get("/b")), (1, answer("200 B"))]
    result = heard([*turns, (0, get("/c"))], connect=False, ports={1024: "http"})
    assert result.summaries == ["< GET /b", "> 200 B", "< GET /c"]  # the side seen first is 0


def test_an_unseen_head_has_no_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    turns: list[Turn] = [(1, head + answer("200 B")), (0, get("/c")), (1, answer("200 C"))]
    result = heard(turns, connect=False, ports={1024: "http"})
    assert result.summaries == ["> 200 OK", "> 200 B", "< GET /c", "> 200 C"]


def test_the_acceptor_may_ask() -> None:
    assert heard([(1, get("/")), (0, answer("200 OK"))]).summaries == ["< GET /", "> 200 OK"]


@pytest.mark.parametrize("status", ["101 Switching Protocols", "200 Fine"])
def test_other_upgrades_are_counted(status: str) -> None:
    asked = get("/attach", "Connection: Upgrade", "Upgrade: tcp", method="POST")
    if status.startswith("200"):
        asked = get("vm:22", method="CONNECT")
    turns = [(0, asked), (1, f"HTTP/1.1 {status}\r\nUpgrade: tcp\r\n\r\n".encode())]
    turns += [(0, b"raw"), (1, b"GET / HTTP/1.1\r\n\r\n"), (0, b"more"), (0, END), (1, END)]
    result = heard(turns)
    what = "upgraded to tcp" if status.startswith("101") else "tunnel"
    assert result.summaries[2:] == [f"> {what}", f"< {what}"]
    assert [one.size for one in result.said[2:]] == [7, 18]


def test_an_upgrade_that_is_refused() -> None:
    asked = get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
    turns = [(0, asked), (1, answer("200 OK")), (0, get("/b")), (1, answer("200 B"))]
    assert heard(turns).summaries == ["> GET /", "< 200 OK", "> GET /b", "< 200 B"]


@pytest.mark.parametrize("name", ["k612_http.pcap", "prog_http.pcapng"])
def test_a_real_program(name: str) -> None:
    result = hear_file(str(CAPTURES / name))
    asked = [one.message.call.method for one in result.said if one.message.call][::2]
    assert asked == ["GET /", "GET /big", "GET /nope", "POST /up"]
    answers = [one for one in result.said if one.message.kind == Kind.RESPONSE]
    assert [one.message.fields["status"] for one in answers] == [200, 200, 404, 201]
    assert [one.message.call.error for one in answers if one.message.call][2] == "404 Not Found"
    assert all(one.latency_ns for one in answers)


def test_tshark_agrees() -> None:
    fields = ("http.request.method", "http.request.uri", "http.response.code")
    theirs = tshark(TALK, "http", *fields)
    asked = sorted((method, uri) for method, uri, _code in theirs if method)
    answered = [int(code) for _method, _uri, code in theirs if code]
    ours = heard(TALK).messages
    assert asked == sorted(
        (one.fields["method"], one.fields["target"]) for one in ours if one.kind == Kind.REQUEST
    )
    assert answered == [one.fields["status"] for one in ours if one.kind == Kind.RESPONSE]


def test_any_segments() -> None:
    any_segments(TALK, "http")


def test_losses() -> None:
    losses(TALK, "http")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 255))
def test_mutated_talks(at: int, value: int) -> None:
    mutated(TALK, at, value, "http")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200\r\n"]))
def test_hostile_bytes(data: bytes, start: bytes) -> None:
    hostile(start + data, "http")
