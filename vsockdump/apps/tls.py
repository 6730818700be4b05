"""TLS (RFC 8446, RFC 5246): who is asked for, what is agreed, how long the handshake takes.

Keys are not known here: what is encrypted is counted.

The handshake is a call, from ClientHello to where both sides may send data, which is the
second of both Finished.  TLS 1.3 encrypts them; what is seen is the client's first encrypted
record after the ServerHello (Finished, or a certificate before it).  Where the client may
send early data there, the server's first encrypted record has to do.

Rules for editors: after a gap a handshake record may be encrypted, or the middle of a
message, and nothing tells; it is not read any more.
"""

from collections.abc import Generator
from typing import Final

from vsockdump.apps.byte_stream import ByteStream, Ended, Lost, ProtocolError, Steps
from vsockdump.apps.content import SAID
from vsockdump.apps.message import Call, Kind, Message, Value
from vsockdump.apps.protocol import (
    CERTAIN,
    LIKELY,
    POSSIBLE,
    Context,
    Opening,
    Parser,
    Prior,
    Protocol,
    Score,
)
from vsockdump.apps.tls_handshake import (
    TLS13,
    ClientHello,
    ServerHello,
    alert_name,
    read_certificates,
    read_client_hello,
    read_server_hello,
)

NAME: Final = "tls"

_CCS, _ALERT, _HANDSHAKE, _DATA, _HEARTBEAT = 20, 21, 22, 23, 24
_HEADER: Final = 5  # bytes of a record's header
_LARGEST_RECORD: Final = (1 << 14) + 2048  # bytes, with what encryption may add
_LARGEST_MESSAGE: Final = 256 << 10  # bytes of a handshake message; chains of certificates
_SMALLEST_FINISHED: Final = 4 + 32 + 16  # bytes in TLS 1.3; an alert is far smaller
_LEVELS: Final = {1: "warning", 2: "fatal"}
_FATAL: Final = 2

_CLIENT_HELLO, _SERVER_HELLO, _CERTIFICATE = 1, 2, 11
HANDSHAKES: Final = {
    0: "HelloRequest",
    _CLIENT_HELLO: "ClientHello",
    _SERVER_HELLO: "ServerHello",
    4: "NewSessionTicket",
    _CERTIFICATE: "Certificate",
    12: "ServerKeyExchange",
    13: "CertificateRequest",
    14: "ServerHelloDone",
    15: "CertificateVerify",
    16: "ClientKeyExchange",
    20: "Finished",
    21: "CertificateURL",
    22: "CertificateStatus",
}


class Tls(Parser):
    """A connection of TLS."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._sides = (_Side(), _Side())
        self._client = 0  # until a ClientHello says it
        self._hello: ClientHello | None = None
        self._version = 0  # that the server has chosen
        self._is_handshaking = False  # the call is open
        self._is_answered = False  # by a ServerHello

    def messages(self, stream: ByteStream) -> Steps:
        """Handshake messages, alerts, and how much is encrypted."""
        side = self._sides[stream.side]
        if stream.joined:
            side.lose()
            self._is_handshaking = False
        try:
            while True:
                yield from self._record(stream, side)
        except (Ended, Lost):
            if side.records:
                yield side.count()
            raise

    def resumes(self, side: int, head: bytes) -> bool:
        """Where whole records begin."""
        return _records_in(head) > 0

    def _record(self, stream: ByteStream, side: "_Side") -> Steps:
        first = yield from stream.peek(1)
        if side.records and first[0] != _DATA:
            yield side.count()
        kind, size = _header_of((yield from stream.exact(_HEADER)))
        if kind == _DATA:
            yield from stream.body(size, 0)
            yield from self._data(stream.side, side, size)
            return
        data = yield from stream.exact(size)
        if kind == _HANDSHAKE:
            yield from self._handshake(stream.side, side, data)
        elif kind == _ALERT:
            yield self._alert(stream.side, side, data)
        elif kind == _HEARTBEAT:
            yield Message(NAME, "heartbeat")
        elif not self._is_ornamental():
            side.is_encrypted = True
            yield Message(NAME, "ChangeCipherSpec")

    def _is_ornamental(self) -> bool:
        """Whether a ChangeCipherSpec says nothing: TLS 1.3 has it for middleboxes only."""
        may_be_early = self._hello is not None and self._hello.has_early_data
        return self._version >= TLS13 or (not self._version and may_be_early)

    # --- what is encrypted -------------------------------------------------------------------

    def _data(self, number: int, side: "_Side", size: int) -> Steps:
        """A record of application data, which in TLS 1.3 may hide the handshake's end.

        The first is told at once, then they are counted by the MiB.
        """
        if self._is_handshaking and self._is_answered and self._version >= TLS13:
            yield self._hidden(number, size)
            return
        side.records += 1
        side.bytes += size
        if not side.has_sent_data or side.bytes >= SAID:
            side.has_sent_data = True
            yield side.count()

    def _hidden(self, number: int, size: int) -> Message:
        """An encrypted record between the ServerHello and the handshake's end."""
        has_early_data = self._hello is not None and self._hello.has_early_data
        if number == self._client:
            if has_early_data:
                return Message(NAME, "early data, or Finished")
            if size < _SMALLEST_FINISHED:
                return self._over(number, "encrypted alert", error="an encrypted alert")
            return self._over(number, "encrypted Finished")
        if has_early_data:
            return self._over(number, "encrypted handshake")
        return Message(NAME, "encrypted handshake")

    def _over(
        self,
        number: int,
        summary: str,
        fields: dict[str, Value] | None = None,
        error: str | None = None,
    ) -> Message:
        """The message of a side that completes the handshake, or that ends it."""
        self._is_handshaking = False
        call = Call("handshake", error=error, own=number == self._client)
        return Message(NAME, summary, Kind.RESPONSE, fields or {}, call)

    # --- what is in the clear ----------------------------------------------------------------

    def _alert(self, number: int, side: "_Side", data: bytes) -> Message:
        if side.is_encrypted or len(data) != 2:
            return Message(NAME, "encrypted alert")
        level, name = _LEVELS.get(data[0], str(data[0])), alert_name(data[1])
        fields: dict[str, Value] = {"level": level, "description": name}
        summary = f"alert {level} {name}"
        if self._is_handshaking and data[0] == _FATAL:
            return self._over(number, summary, fields, error=name)
        return Message(NAME, summary, fields=fields)

    def _handshake(self, number: int, side: "_Side", data: bytes) -> Steps:
        """The handshake messages that a record completes."""
        if side.is_encrypted:
            yield self._encrypted(number, side)
            return
        if side.is_blind:
            yield Message(NAME, "handshake (not decoded, bytes before it are missing)")
            return
        side.handshake += data
        while len(side.handshake) >= 4:
            kind, size = side.handshake[0], int.from_bytes(side.handshake[1:4], "big")
            if kind not in HANDSHAKES or size > _LARGEST_MESSAGE:
                raise ProtocolError(f"handshake message {kind} of {size} bytes")
            if len(side.handshake) < 4 + size:
                return
            body = bytes(side.handshake[4 : 4 + size])
            del side.handshake[: 4 + size]
            yield self._told(number, kind, body)._replace(size=4 + size)

    def _encrypted(self, number: int, side: "_Side") -> Message:
        """A handshake record after a ChangeCipherSpec: the first is Finished."""
        if side.has_finished or side.is_blind:
            return Message(NAME, "encrypted handshake")
        side.has_finished = True
        if self._is_handshaking and self._sides[1 - number].has_finished:
            return self._over(number, "encrypted Finished")
        return Message(NAME, "encrypted Finished")

    def _told(self, number: int, kind: int, body: bytes) -> Message:
        """A handshake message in the clear."""
        if kind == _CLIENT_HELLO:
            return self._client_hello(number, body)
        if kind == _SERVER_HELLO:
            return self._server_hello(body)
        if kind == _CERTIFICATE:
            subject, fields = read_certificates(body)
            return Message(NAME, f"Certificate {subject}".rstrip(), fields=fields)
        return Message(NAME, HANDSHAKES[kind])

    def _client_hello(self, number: int, body: bytes) -> Message:
        hello = read_client_hello(body)
        is_again = self._is_handshaking  # as a HelloRetryRequest wanted
        self._hello, self._client, self._is_handshaking = hello, number, True
        if is_again:
            return Message(NAME, hello.summary, fields=hello.fields)
        call = Call("handshake", "handshake")
        return Message(NAME, hello.summary, Kind.REQUEST, hello.fields, call)

    def _server_hello(self, body: bytes) -> Message:
        hello = read_server_hello(body)
        summary, fields = hello.summary, hello.fields
        self._version = hello.version
        if not hello.is_retry:
            self._is_answered = True
            is_resumed = self._resumes(hello)
            if is_resumed is not None:
                fields["resumed"] = is_resumed
            summary += " resumed" * bool(is_resumed)
        return Message(NAME, summary, fields=fields)

    def _resumes(self, hello: ServerHello) -> bool | None:
        """Whether a session goes on that the client has named; None where that is not known."""
        if hello.version >= TLS13:
            return hello.has_psk
        if self._hello is None:
            return None
        return bool(hello.session_id) and hello.session_id == self._hello.session_id


class _Side:
    """What one side has sent so far."""

    def __init__(self) -> None:
        self.handshake = bytearray()  # bytes of a message that are not all there
        self.is_encrypted = False  # by a ChangeCipherSpec
        self.is_blind = False  # bytes are missing: handshake records cannot be read
        self.has_finished = False
        self.has_sent_data = False
        self.records = self.bytes = 0  # of application data, since the last message

    def lose(self) -> None:
        """Bytes are missing."""
        self.handshake.clear()
        self.is_blind = True

    def count(self) -> Message:
        """A message for the records so far."""
        many = f", {self.records} records" if self.records > 1 else ""
        fields: dict[str, Value] = {"records": self.records, "size": self.bytes}
        self.records = self.bytes = 0
        return Message(NAME, f"application data{many}", fields=fields)


# --- records -----------------------------------------------------------------------------------


def _header_of(data: bytes) -> tuple[int, int]:
    """Type and size of a record; raises ProtocolError."""
    kind, size = data[0], int.from_bytes(data[3:5], "big")
    if not _CCS <= kind <= _HEARTBEAT or data[1] != 3 or data[2] > 4:
        raise ProtocolError(f"a record of type {kind}, version {data[1]}.{data[2]}")
    if size > _LARGEST_RECORD:
        raise ProtocolError(f"a record of {size} bytes")
    return kind, size


def _records_in(data: bytes) -> int:
    """How many whole records data begins with; 0 where something else is among them."""
    at = count = 0
    while at + _HEADER <= len(data):
        try:
            _kind, size = _header_of(data[at : at + _HEADER])
        except ProtocolError:
            return 0
        at += _HEADER + size
        count += at <= len(data)
    return count


def begins(stream: ByteStream) -> Generator[None, None, bool]:
    """Whether a side goes on with a handshake record of TLS; for what carries it."""
    try:
        head = yield from stream.peek(3)
    except (Ended, Lost):
        return False
    return head[0] == _HANDSHAKE and head[1] == 3 and head[2] <= 4


# --- recognising -------------------------------------------------------------------------------


def recognise(opening: Opening) -> Score:
    """A hello of either side; where the capture began later, records one after another."""
    scores = [_hello_score(data) for data in opening.data if data]
    if CERTAIN not in scores and opening.joined:
        count = max(_records_in(data) for data in opening.data)
        return LIKELY if count > 1 else POSSIBLE * count
    best = max((score or 0 for score in scores), default=0)
    return best or (None if not scores or None in scores else 0)


_HELLO_BYTES: Final = 11  # of a record, which show that it is a hello


def _hello_score(data: bytes) -> Score:
    """Whether a side begins with ClientHello or ServerHello."""
    wanted = ((_HANDSHAKE,), (3,), range(5), (), (), (_CLIENT_HELLO, _SERVER_HELLO))
    for value, allowed in zip(data, wanted, strict=False):
        if allowed and value not in allowed:
            return 0
    if len(data) < _HELLO_BYTES:
        return None
    is_sound = 4 <= int.from_bytes(data[3:5], "big") <= _LARGEST_RECORD and data[6] < 2
    return CERTAIN if is_sound and data[9] == 3 and data[10] <= 4 else 0


PROTOCOLS: Final = (
    Protocol(
        NAME,
        "TLS",
        Tls,
        recognise,
        (
            Prior(8443, "LXD or Incus agent", "guest"),
            Prior(4433, "Evervault enclave", "guest"),
        ),
    ),
)
