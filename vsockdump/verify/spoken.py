"""What both say about application messages, in words that can be compared.

Rules for editors: a protocol is a row of PROTOCOLS.  Its words say what both know of every
message; what only one of them tells gives no word.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from vsockdump.apps import ssh, tls
from vsockdump.apps.message import Kind, Message, Value
from vsockdump.apps.tls_handshake import alert_name
from vsockdump.verify.engine import text, texts


class Spoken(NamedTuple):
    """A protocol: words of a message of ours, and of a layer of this name that pyshark gives."""

    ours: Callable[[Message], Iterator[str]]
    theirs: Callable[[Any], Iterator[str]]


# --- HTTP/1 ------------------------------------------------------------------------------


def _own_http(message: Message) -> Iterator[str]:
    fields = message.fields
    if message.kind == Kind.REQUEST:
        yield f"{fields['method']!s} {fields['target']!s}"
    elif message.kind == Kind.RESPONSE:
        yield str(fields["status"])


def _their_http(layer: Any) -> Iterator[str]:
    if method := text(layer, "request_method"):
        yield f"{method} {text(layer, 'request_uri')}"
    elif status := text(layer, "response_code"):
        yield status


# --- TLS ---------------------------------------------------------------------------------


def _own_tls(message: Message) -> Iterator[str]:
    """Handshake messages and alerts in the clear; of a ClientHello also whom it asks for."""
    name = message.summary.partition(" ")[0]
    if name == "alert":
        yield f"alert {message.fields['description']!s}"
    elif name in ("ClientHello", "HelloRetryRequest"):
        yield _hello(name, str(message.fields.get("server name") or ""))
    elif name in tls.HANDSHAKES.values():
        yield name


def _their_tls(layer: Any) -> Iterator[str]:
    for number in texts(layer, "handshake_type"):
        name = tls.HANDSHAKES.get(int(number), number)
        asked = text(layer, "handshake_extensions_server_name") if name == "ClientHello" else ""
        yield _hello(name, asked)
    for number in texts(layer, "alert_message_desc"):
        yield f"alert {alert_name(int(number))}"


def _hello(name: str, asked: str) -> str:
    """A HelloRetryRequest is a ServerHello on the wire."""
    name = "ServerHello" if name == "HelloRetryRequest" else name
    return f"{name} {asked}".rstrip()


# --- SSH ---------------------------------------------------------------------------------


def _own_ssh(message: Message) -> Iterator[str]:
    """The banners, and what is said before it is encrypted."""
    if "software" in message.fields:
        yield message.summary
    elif (number := ssh.NUMBERS.get(message.summary.partition(" ")[0])) is not None:
        yield f"message {number}"


def _their_ssh(layer: Any) -> Iterator[str]:
    if banner := text(layer, "protocol"):
        yield banner
    for number in texts(layer, "message_code"):
        yield f"message {number}"


# --- HTTP/2, gRPC ------------------------------------------------------------------------


def _own_http2(message: Message) -> Iterator[str]:
    """How a stream begins, on either side."""
    headers = message.fields.get("headers")
    if isinstance(headers, Mapping):
        stream = message.fields["stream"]
        yield from _head(stream, headers.get(":method"), headers.get(":path"))
        yield from _head(stream, headers.get(":status"))


def _their_http2(layer: Any) -> Iterator[str]:
    stream = text(layer, "push_promise_promised_stream_id") or text(layer, "streamid")
    yield from _head(stream, text(layer, "headers_method"), text(layer, "headers_path"))
    yield from _head(stream, text(layer, "headers_status"))


def _head(stream: Value, *fields: Value) -> Iterator[str]:
    if any(fields):
        yield " ".join((f"#{stream!s}", *map(str, fields)))


# By the names that Wireshark has for them, and what we call what it calls so.
PROTOCOLS: Final[Mapping[str, Spoken]] = {
    "http": Spoken(_own_http, _their_http),
    "http2": Spoken(_own_http2, _their_http2),
    "tls": Spoken(_own_tls, _their_tls),
    "ssh": Spoken(_own_ssh, _their_ssh),
}
THEIR_NAMES: Final = {name: name for name in PROTOCOLS} | {"grpc": "http2"}
