"""SSH (RFC 4253): who speaks, what both sides can do, what they agree on, and how long that takes.

After a side's NEWKEYS its bytes are encrypted, lengths included, and are only counted.

The key exchange is a call, from the client's KEXINIT to the server's NEWKEYS; so is each
round within it.

Rules for editors: which of the messages 30 to 49 mean what is told by the agreed method.
"""

import base64
from collections.abc import Generator, Mapping
from typing import Final

from vsockdump.apps import texts
from vsockdump.apps.byte_stream import ByteStream, ProtocolError, Steps
from vsockdump.apps.content import brief, counted
from vsockdump.apps.message import Call, Kind, Message, Value
from vsockdump.apps.protocol import CERTAIN, Context, Opening, Parser, Prior, Protocol, Score

NAME: Final = "ssh"

_BANNER: Final = b"SSH-"
_LONGEST_LINE: Final = 1024  # bytes; RFC 4253 has 255 for the banner
_MOST_LINES: Final = 100  # before the banner, which a server may send
_LARGEST_PACKET: Final = 256 << 10  # bytes, what OpenSSH accepts

_DISCONNECT, _IGNORE, _UNIMPLEMENTED, _DEBUG = 1, 2, 3, 4
_KEXINIT, _NEWKEYS = 20, 21
_NAMES: Final = {
    _DISCONNECT: "DISCONNECT",
    _IGNORE: "IGNORE",
    _UNIMPLEMENTED: "UNIMPLEMENTED",
    _DEBUG: "DEBUG",
    7: "EXT_INFO",
    _KEXINIT: "KEXINIT",
    _NEWKEYS: "NEWKEYS",
}
_KEX_MESSAGES: Final = range(30, 50)  # whose meaning the method tells

# The messages of a method, by the start of its name; the longest that fits holds.
_GROUP_EXCHANGE: Final = {
    30: "KEX_DH_GEX_REQUEST_OLD",
    31: "KEX_DH_GEX_GROUP",
    32: "KEX_DH_GEX_INIT",
    33: "KEX_DH_GEX_REPLY",
    34: "KEX_DH_GEX_REQUEST",
}
_METHODS: Final = (
    ("diffie-hellman-group-exchange", _GROUP_EXCHANGE),
    ("diffie-hellman-", {30: "KEXDH_INIT", 31: "KEXDH_REPLY"}),
    ("", {30: "KEX_ECDH_INIT", 31: "KEX_ECDH_REPLY"}),  # also of hybrid methods
)
# By the names that summaries begin with.
NUMBERS: Final = {
    name: number
    for names in (_NAMES, *(names for _method, names in _METHODS))
    for number, name in names.items()
}
_REPLIES: Final = {"KEXDH_REPLY", "KEX_ECDH_REPLY", "KEX_DH_GEX_REPLY"}  # begin with the host key

# The lists of a KEXINIT, in its order.
_LISTS: Final = (
    "key exchange",
    "host key",
    "cipher to server",
    "cipher to client",
    "mac to server",
    "mac to client",
    "compression to server",
    "compression to client",
    "language to server",
    "language to client",
)
_AGREED: Final = _LISTS[:8]  # languages need not be
# Ciphers that authenticate, so that the agreed MAC is not used.
_WITHOUT_MAC: Final = (
    "chacha20-poly1305@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
)

_REASONS: Final = {
    1: "host not allowed to connect",
    2: "protocol error",
    3: "key exchange failed",
    5: "mac error",
    6: "compression error",
    7: "service not available",
    8: "protocol version not supported",
    9: "host key not verifiable",
    10: "connection lost",
    11: "by application",
    12: "too many connections",
    13: "auth cancelled by user",
    14: "no more auth methods available",
    15: "illegal user name",
}


class Ssh(Parser):
    """A connection of SSH."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._offers: list[dict[str, list[str]] | None] = [None, None]  # of each side's KEXINIT
        self._method = ""  # agreed
        self._is_encrypted = [False, False]

    def messages(self, stream: ByteStream) -> Steps:
        """The banner, the key exchange, and how much is encrypted."""
        if not stream.joined:
            yield from _banner(stream)
            while not self._is_encrypted[stream.side]:
                payload = yield from _payload(stream)
                yield self._packet(stream.side, payload)
        yield from counted(stream, NAME, "encrypted")

    def resumes(self, side: int, head: bytes) -> bool:
        """Where bytes are only counted."""
        return self._is_encrypted[side]

    def _packet(self, side: int, payload: bytes) -> Message:
        """What a packet in the clear says."""
        kind, body = payload[0], payload[1:]
        if kind == _KEXINIT:
            return self._kexinit(side, body)
        if kind == _NEWKEYS:
            self._is_encrypted[side] = True
            if side == 0:
                return Message(NAME, "NEWKEYS")
            return Message(NAME, "NEWKEYS", Kind.RESPONSE, call=Call("key exchange"))
        if kind in _KEX_MESSAGES:
            return self._exchange(side, kind, body)
        if kind == _DISCONNECT:
            return _disconnect(body)
        name = _NAMES.get(kind)
        if name is None:
            raise ProtocolError(f"message {kind} before the keys are agreed")
        return Message(NAME, name, fields={"data": body[:_LONGEST_LINE]})

    def _kexinit(self, side: int, body: bytes) -> Message:
        """A side's algorithms; the second of the two also shows what both come to."""
        offer = _read_kexinit(body)
        self._offers[side] = offer
        fields: dict[str, Value] = dict(offer)
        summary = "KEXINIT"
        client, server = self._offers
        if client is not None and server is not None:
            agreed = _negotiated(client, server)
            fields["negotiated"] = agreed
            self._method = agreed["key exchange"] or ""
            chosen = ("key exchange", "host key", "cipher to server")
            summary += " " + " ".join(agreed[name] or f"(no common {name})" for name in chosen)
        if side == 1:
            return Message(NAME, summary, fields=fields)
        return Message(NAME, summary, Kind.REQUEST, fields, Call("key exchange", "key exchange"))

    def _exchange(self, side: int, kind: int, body: bytes) -> Message:
        """A message of the agreed method; the client's ask, the server's answer."""
        name = _kex_names(self._method).get(kind, f"KEX message {kind}")
        fields: dict[str, Value] = {"method": self._method} if self._method else {}
        if name in _REPLIES:
            fields |= _host_key(body)
        if side == 0:
            return Message(NAME, name, Kind.REQUEST, fields, Call("round", name))
        return Message(NAME, name, Kind.RESPONSE, fields, Call("round"))


def _kex_names(method: str) -> Mapping[int, str]:
    """The messages of a method; none, where the method is not known."""
    if not method:
        return {}
    return next(names for start, names in _METHODS if method.startswith(start))


def _banner(stream: ByteStream) -> Steps:
    """The line that a side introduces itself with, and what a server says before it."""
    before: list[str] = []
    while True:
        line = yield from stream.until(b"\n", _LONGEST_LINE)
        text = line.rstrip(b"\r\n").decode(errors="replace")
        if line.startswith(_BANNER):
            break
        if stream.side == 0 or len(before) >= _MOST_LINES:
            raise ProtocolError("no banner")
        before.append(text)
    _ssh, version, software = [*text.split("-", 2), "", ""][:3]
    software, _space, comment = software.partition(" ")
    fields: dict[str, Value] = {"version": version, "software": software, "comment": comment}
    if before:
        fields["before"] = before
    yield Message(NAME, text, fields=fields)
    if version not in ("2.0", "1.99"):
        raise ProtocolError(f"version {version} of the protocol is not known here")


def _payload(stream: ByteStream) -> Generator[None, None, bytes]:
    """The payload of a packet in the clear, without its padding."""
    head = yield from stream.exact(5)
    size, padding = int.from_bytes(head[:4], "big"), head[4]
    if not padding + 2 <= size <= _LARGEST_PACKET:
        raise ProtocolError(f"a packet of {size} bytes with {padding} of padding")
    data = yield from stream.exact(size - 1)
    return data[: size - 1 - padding]


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes behind their length, and where they end."""
    end = at + 4 + int.from_bytes(data[at : at + 4], "big")
    if at + 4 > len(data) or end > len(data):
        raise ProtocolError("a packet that is shorter than its parts")
    return data[at + 4 : end], end


def _read_kexinit(body: bytes) -> dict[str, list[str]]:
    at = 16  # the cookie
    offer = {}
    for name in _LISTS:
        data, at = _string(body, at)
        offer[name] = data.decode("ascii", "replace").split(",") if data else []
    return offer


def _negotiated(
    client: dict[str, list[str]], server: dict[str, list[str]]
) -> dict[str, str | None]:
    """The first of the client's that the server also has, of each list; None: there is none."""
    agreed = {
        name: next((one for one in client[name] if one in server[name]), None) for name in _AGREED
    }
    for way in ("to server", "to client"):
        if agreed[f"cipher {way}"] in _WITHOUT_MAC:
            agreed[f"mac {way}"] = "implicit"
    return agreed


def _host_key(body: bytes) -> dict[str, Value]:
    """The server's key as `ssh-keygen -l` tells it."""
    import hashlib  # which loads OpenSSL

    key, _end = _string(body, 0)
    kind, _end = _string(key, 0)
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return {"host key": kind.decode("ascii", "replace"), "fingerprint": f"SHA256:{digest}"}


def _disconnect(body: bytes) -> Message:
    code = int.from_bytes(body[:4], "big")
    text = _string(body, 4)[0]
    reason = _REASONS.get(code, str(code))
    fields: dict[str, Value] = {"reason": reason, "description": texts.text_of(text)}
    return Message(NAME, f"DISCONNECT {reason} {brief(text)}".rstrip(), fields=fields)


def recognise(opening: Opening) -> Score:
    """The banner of either side."""
    unsure = False
    for data in opening.data:
        if data.startswith((b"SSH-2.0-", b"SSH-1.")):
            return CERTAIN
        unsure = unsure or (bool(data) and b"SSH-2.0-".startswith(data))
    return None if unsure or not any(opening.data) else 0


PROTOCOLS: Final = (
    Protocol(NAME, "SSH", Ssh, recognise, (Prior(22, "systemd-ssh-generator", "guest"),)),
)
