"""What TLS says in the clear in its handshake: both hellos and the certificates.

Names of numbers are Scapy's tables and certificates are read by `cryptography`, both
imported when the first is needed.  Scapy's own classes of these messages are not used: they
act on a message as an end of the connection would, with a session each, and warn of what
they cannot do.

Rules for editors: every length is hostile; only `_Reader` moves through the bytes.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from vsockdump.apps.byte_stream import ProtocolError
from vsockdump.apps.message import Value

TLS13: Final = 0x0304

# The random of a ServerHello that asks for another ClientHello (RFC 8446 4.1.3).
_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

_MOST_CERTIFICATES: Final = 10  # of a chain that are shown
_SHOWN: Final = 64  # bytes of an extension that is not read here

_SERVER_NAME, _GROUPS, _SIGNATURES, _ALPN, _TICKET = 0, 10, 13, 16, 35
_PSK, _EARLY_DATA, _VERSIONS, _KEY_SHARE = 41, 42, 43, 51


class ClientHello(NamedTuple):
    """What a client offers; `version` is the highest."""

    version: int
    session_id: bytes
    server_name: str
    protocols: tuple[str, ...]  # of ALPN
    has_early_data: bool
    fields: dict[str, Value]

    @property
    def summary(self) -> str:
        """`ClientHello example.com h2,http/1.1`."""
        return _line("ClientHello", self.server_name, ",".join(self.protocols))


class ServerHello(NamedTuple):
    """What a server has chosen; `is_retry`: that the client shall begin anew."""

    version: int
    session_id: bytes
    suite: str
    protocol: str  # of ALPN
    is_retry: bool
    has_psk: bool
    fields: dict[str, Value]

    @property
    def summary(self) -> str:
        """`ServerHello TLS 1.2 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 h2`."""
        name = "HelloRetryRequest" if self.is_retry else "ServerHello"
        return _line(name, version_name(self.version), self.suite, self.protocol)


def _line(*words: str) -> str:
    return " ".join(word for word in words if word)


class _Reader:
    """Goes through the bytes of a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not read."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > self.left:
            raise ProtocolError("a handshake message that is shorter than its parts")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Bytes behind their length, which has `size` bytes."""
        return self.take(self.number(size))


def read_client_hello(data: bytes) -> ClientHello:
    """The body of a ClientHello; raises ProtocolError."""
    reader = _Reader(data)
    legacy, random, session_id = reader.number(2), reader.take(32), reader.vector(1)
    suites = _numbers(reader.vector(2))
    reader.vector(1)  # compression, which nobody uses
    extensions = _extensions(reader)
    versions = [one for one in _offered(extensions) if not _is_grease(one)] or [legacy]
    server_name = _server_name(extensions)
    protocols = _alpn(extensions)
    fields: dict[str, Value] = {
        "version": version_name(max(versions)),
        "server name": server_name,
        "alpn": list(protocols),
        "cipher suites": [_suite_name(suite) for suite in suites],
        "random": random,
        "session id": session_id,
        "extensions": _shown(extensions, _OF_CLIENT),
    }
    has_early_data = _EARLY_DATA in extensions
    return ClientHello(max(versions), session_id, server_name, protocols, has_early_data, fields)


def read_server_hello(data: bytes) -> ServerHello:
    """The body of a ServerHello; raises ProtocolError."""
    reader = _Reader(data)
    version, random, session_id = reader.number(2), reader.take(32), reader.vector(1)
    suite = _suite_name(reader.number(2))
    reader.number(1)  # compression
    extensions = _extensions(reader)
    if _VERSIONS in extensions:
        version = _Reader(extensions[_VERSIONS]).number(2)
    protocol = "".join(_alpn(extensions)[:1])
    fields: dict[str, Value] = {
        "version": version_name(version),
        "cipher suite": suite,
        "alpn": protocol,
        "random": random,
        "session id": session_id,
        "extensions": _shown(extensions, _OF_SERVER),
    }
    is_retry, has_psk = random == _RETRY, _PSK in extensions
    return ServerHello(version, session_id, suite, protocol, is_retry, has_psk, fields)


# --- extensions --------------------------------------------------------------------------------


def _extensions(reader: _Reader) -> dict[int, bytes]:
    """The extensions of a hello, which may have none."""
    found: dict[int, bytes] = {}
    if reader.left:
        inner = _Reader(reader.vector(2))
        while inner.left:
            number = inner.number(2)
            found[number] = inner.vector(2)
    return found


def _numbers(data: bytes) -> list[int]:
    """Numbers of two bytes."""
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data) - 1, 2)]


def _offered(extensions: Mapping[int, bytes]) -> list[int]:
    """The versions that a client's extension names."""
    data = extensions.get(_VERSIONS)
    return _numbers(_Reader(data).vector(1)) if data else []


def _server_name(extensions: Mapping[int, bytes]) -> str:
    data = extensions.get(_SERVER_NAME)
    if not data:
        return ""
    names = _Reader(_Reader(data).vector(2))
    names.number(1)  # the kind: there is only the name of a host
    return names.vector(2).decode("ascii", "replace")


def _alpn(extensions: Mapping[int, bytes]) -> tuple[str, ...]:
    data = extensions.get(_ALPN)
    if not data:
        return ()
    names, found = _Reader(_Reader(data).vector(2)), []
    while names.left:
        name = names.vector(1)
        found.append("GREASE" if _is_grease_name(name) else name.decode("ascii", "replace"))
    return tuple(found)


def _key_shares(data: bytes) -> Value:
    shares, found = _Reader(_Reader(data).vector(2)), []
    while shares.left:
        found.append(_group_name(shares.number(2)))
        shares.vector(2)
    return found


def _group_names(data: bytes) -> Value:
    return [_group_name(group) for group in _numbers(_Reader(data).vector(2))]


def _signature_names(data: bytes) -> Value:
    names = _tables().signatures
    return [_name(names, number) for number in _numbers(_Reader(data).vector(2))]


def _size(data: bytes) -> Value:
    return {"size": len(data)}


_Readers = Mapping[int, Callable[[bytes], Value]]
_OF_BOTH: Final[_Readers] = {
    _SERVER_NAME: lambda data: _server_name({_SERVER_NAME: data}),
    _ALPN: lambda data: list(_alpn({_ALPN: data})),
    _TICKET: _size,
}
_OF_CLIENT: Final[_Readers] = {
    **_OF_BOTH,
    _GROUPS: _group_names,
    _SIGNATURES: _signature_names,
    _PSK: _size,
    _VERSIONS: lambda data: [version_name(one) for one in _offered({_VERSIONS: data})],
    _KEY_SHARE: _key_shares,
}
_OF_SERVER: Final[_Readers] = {
    **_OF_BOTH,
    _PSK: lambda data: _Reader(data).number(2),
    _VERSIONS: lambda data: version_name(_Reader(data).number(2)),
    _KEY_SHARE: lambda data: _group_name(_Reader(data).number(2)),
}


def _shown(extensions: Mapping[int, bytes], readers: _Readers) -> dict[str, Value]:
    """Extensions by name, in their order; those that are not read here as their first bytes."""
    names = _tables().extensions
    return {
        _name(names, number): readers[number](data) if number in readers else data[:_SHOWN]
        for number, data in extensions.items()
    }


# --- names of numbers --------------------------------------------------------------------------


class _Tables(NamedTuple):
    suites: Mapping[int, str]
    groups: Mapping[int, str]
    extensions: Mapping[int, str]
    signatures: Mapping[int, str]
    alerts: Mapping[int, str]
    versions: Mapping[int, str]


@cache
def _tables() -> _Tables:
    from scapy.layers.tls.basefields import _tls_version
    from scapy.layers.tls.crypto.groups import _tls_named_groups
    from scapy.layers.tls.crypto.suites import _tls_cipher_suites
    from scapy.layers.tls.extensions import _tls_ext
    from scapy.layers.tls.keyexchange import _tls_hash_sig
    from scapy.layers.tls.record import _tls_alert_description

    return _Tables(
        _tls_cipher_suites,
        _tls_named_groups,
        _tls_ext,
        _tls_hash_sig,
        _tls_alert_description,
        _tls_version,
    )


def _is_grease(number: int) -> bool:
    """Whether a number is one that clients send to be ignored (RFC 8701)."""
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


def _is_grease_name(name: bytes) -> bool:
    return len(name) == 2 and _is_grease(int.from_bytes(name, "big"))


def _name(names: Mapping[int, str], number: int) -> str:
    return "GREASE" if _is_grease(number) else names.get(number, f"0x{number:04x}")


def _suite_name(number: int) -> str:
    return _name(_tables().suites, number)


def _group_name(number: int) -> str:
    return _name(_tables().groups, number)


def version_name(number: int) -> str:
    """`TLS 1.3`."""
    return _name(_tables().versions, number)


def alert_name(number: int) -> str:
    """`handshake_failure`."""
    return _tables().alerts.get(number, f"alert {number}")


# --- certificates ------------------------------------------------------------------------------


def read_certificates(data: bytes) -> tuple[str, dict[str, Value]]:
    """Subject of the first, and fields, of a Certificate of TLS 1.2; raises ProtocolError."""
    chain, count = _Reader(_Reader(data).vector(3)), 0
    shown: list[dict[str, Value]] = []
    while chain.left:
        certificate = chain.vector(3)
        count += 1
        if count <= _MOST_CERTIFICATES:
            shown.append(_certificate(certificate))
    fields: dict[str, Value] = {"certificates": shown}
    if count > _MOST_CERTIFICATES:
        fields["not shown"] = count - _MOST_CERTIFICATES
    return str(shown[0].get("subject", "")) if shown else "", fields


def _certificate(data: bytes) -> dict[str, Value]:
    from cryptography import x509

    fields: dict[str, Value] = {"size": len(data)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a certificate had better not have
            certificate = x509.load_der_x509_certificate(data)
            fields["subject"] = certificate.subject.rfc4514_string()
            fields["issuer"] = certificate.issuer.rfc4514_string()
            fields["not before"] = certificate.not_valid_before_utc.isoformat()
            fields["not after"] = certificate.not_valid_after_utc.isoformat()
            fields["serial"] = f"{certificate.serial_number:x}"
            fields["names"] = _alternative_names(certificate)
    except Exception as error:  # whatever a library says of hostile bytes; what was read stays
        fields["not decoded"] = str(error) or type(error).__name__
    return fields


def _alternative_names(certificate: Any) -> Value:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(getattr(name, "value", name)) for name in names.value]
