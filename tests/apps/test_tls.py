"""TLS: connections of Python's ssl in memory, which knows what was agreed, and tshark."""

import contextlib
import datetime
import ssl
from functools import cache
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated
from second_opinion import tshark
from talking import ACCEPTOR, END, INITIATOR, Cut, Turn, heard, split

from vsockdump.apps.message import Kind
from vsockdump.apps.tls_handshake import read_certificates, version_name

NAME = "agent.example"
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Talk(NamedTuple):
    """What was said, and what the client's end knows of it (None: the handshake failed)."""

    turns: list[Turn]
    client: ssl.SSLObject | None

    @property
    def summaries(self) -> list[str]:
        return heard(self.turns).summaries


@cache
def certificate() -> tuple[bytes, bytes]:
    """A certificate of its own, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    begin = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.DNSName("*.vm")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0xABCDEF)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=36_500))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM), private


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    path.write_bytes(b"".join(certificate()))
    return str(path)


def contexts(pem: str, version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Client's and server's, of that version; the client trusts the certificate."""
    client = ssl.create_default_context(cafile=pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    for one in (client, server):
        one.minimum_version = one.maximum_version = version
        one.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        one.set_alpn_protocols(["h2", "http/1.1"])
    return client, server


def talk(
    both: tuple[ssl.SSLContext, ssl.SSLContext],
    *,
    session: ssl.SSLSession | None = None,
    data: int = 100,
) -> Talk:
    """Handshake, a request, `data` bytes of answer, and the close."""
    read = (ssl.MemoryBIO(), ssl.MemoryBIO())
    written = (ssl.MemoryBIO(), ssl.MemoryBIO())
    client = both[0].wrap_bio(read[0], written[0], server_hostname=NAME, session=session)
    server = both[1].wrap_bio(read[1], written[1], server_side=True)
    ends = (client, server)
    turns: list[Turn] = []

    def deliver(side: int) -> None:
        """Note what a side has written, and hand it over."""
        data = written[side].read()
        if data:
            turns.append((side, data))
            read[1 - side].write(data)

    for side in (INITIATOR, ACCEPTOR) * 3:
        try:
            ends[side].do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            deliver(side)
            return Talk(turns, None)
        deliver(side)
    client.write(b"GET / HTTP/1.1\r\n\r\n")
    deliver(INITIATOR)
    server.read(4096)
    server.write(b"x" * data)
    deliver(ACCEPTOR)
    with contextlib.suppress(ssl.SSLWantReadError):
        while True:
            client.read(1 << 16)
    for side in (INITIATOR, ACCEPTOR):
        with contextlib.suppress(ssl.SSLWantReadError):
            ends[side].unwrap()
        deliver(side)
        turns.append((side, END))
    return Talk(turns, client)


@pytest.fixture(params=[V12, V13], ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return request.param


def test_a_connection_of_tls_12(pem: str) -> None:
    made = talk(contexts(pem, V12))
    assert made.summaries == [
        f"> ClientHello {NAME} h2,http/1.1",
        "< ServerHello TLS 1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 h2",
        f"< Certificate CN={NAME}",
        "< ServerKeyExchange",
        "< ServerHelloDone",
        "> ClientKeyExchange",
        "> ChangeCipherSpec",
        "> encrypted Finished",
        "< NewSessionTicket",
        "< ChangeCipherSpec",
        "< encrypted Finished",
        "> application data",
        "< application data",
        "> encrypted alert",
        "< encrypted alert",
    ]


def test_a_connection_of_tls_13(pem: str) -> None:
    made = talk(contexts(pem, V13))
    assert made.summaries == [
        f"> ClientHello {NAME} h2,http/1.1",
        "< ServerHello TLS 1.3 TLS_AES_256_GCM_SHA384",
        *["< encrypted handshake"] * 4,
        "> encrypted Finished",
        "< application data",  # a ticket, which looks the same
        "> application data",
        "> application data",  # the alert that closes, which looks the same
        "< application data, 3 records",
    ]


def test_hellos_say_what_the_ends_agreed(pem: str, version: ssl.TLSVersion) -> None:
    made = talk(contexts(pem, version))
    hello, answer = heard(made.turns).messages[:2]
    assert made.client is not None
    assert hello.fields["server name"] == NAME
    assert hello.fields["alpn"] == ["h2", "http/1.1"]
    assert hello.fields["version"] == answer.fields["version"] == version_name(version)
    agreed = made.client.cipher()
    assert agreed is not None
    suite = str(answer.fields["cipher suite"])
    assert suite.removeprefix("TLS_").replace("_WITH_", "_").replace("AES_128", "AES128") == (
        agreed[0].removeprefix("TLS_").replace("-", "_")
    )
    assert answer.fields["resumed"] is False


def test_the_handshake_is_a_call(pem: str, version: ssl.TLSVersion) -> None:
    result = heard(talk(contexts(pem, version)).turns)
    (answer,) = [one for one in result.said if one.message.kind == Kind.RESPONSE]
    assert answer.message.summary == "encrypted Finished"
    assert answer.side == (ACCEPTOR if version == V12 else INITIATOR)
    assert answer.latency_ns == (3_000_000 if version == V12 else 2_000_000)
    assert result.unanswered == []


def test_sessions_that_go_on(pem: str, version: ssl.TLSVersion) -> None:
    both = contexts(pem, version)
    first = talk(both).client
    assert first is not None
    made = talk(both, session=first.session)
    assert made.client is not None
    assert made.client.session_reused
    result = heard(made.turns)
    assert result.messages[1].fields["resumed"] is True
    assert result.summaries[1].endswith(" resumed")
    (answer,) = [one for one in result.said if one.message.kind == Kind.RESPONSE]
    assert answer.side == INITIATOR  # also in TLS 1.2, whose server finishes first there


def test_a_hello_that_must_be_repeated(pem: str) -> None:
    client, server = contexts(pem, V13)
    server.set_ecdh_curve("secp384r1")
    result = heard(talk((client, server)).turns)
    hello = f"> ClientHello {NAME} h2,http/1.1"
    chosen = "TLS 1.3 TLS_AES_256_GCM_SHA384"
    assert result.summaries[:4] == [
        *(hello, f"< HelloRetryRequest {chosen}"),
        *(hello, f"< ServerHello {chosen}"),
    ]
    assert result.messages[1].fields["extensions"]["key_share"] == "secp384r1"  # type: ignore[call-overload,index]
    (answer,) = [one for one in result.said if one.message.kind == Kind.RESPONSE]
    assert (answer.request_packet, answer.latency_ns) == (3, 4_000_000)


@pytest.mark.parametrize(
    ("client_version", "server_version", "trusts", "side", "error"),
    [
        (V12, V12, False, INITIATOR, "unknown_ca"),
        (V13, V13, False, INITIATOR, "unknown_ca"),
        (V12, V13, True, ACCEPTOR, "protocol_version"),
    ],
)
def test_handshakes_that_fail(
    pem: str,
    client_version: ssl.TLSVersion,
    server_version: ssl.TLSVersion,
    trusts: bool,
    side: int,
    error: str,
) -> None:
    client = contexts(pem, client_version)[0]
    if not trusts:
        client = ssl.create_default_context()
        client.minimum_version = client.maximum_version = client_version
    made = talk((client, contexts(pem, server_version)[1]))
    assert made.client is None
    result = heard(made.turns)
    (answer,) = [one for one in result.said if one.message.kind == Kind.RESPONSE]
    assert answer.message.call is not None
    assert (answer.side, answer.message.call.error) == (side, error)
    assert answer.latency_ns is not None


def test_an_alert_in_place_of_finished(pem: str) -> None:
    turns = talk(contexts(pem, V13)).turns[:2]
    alert = bytes.fromhex("1703030013") + bytes(19)  # as short as no Finished is
    message = heard([*turns, (INITIATOR, alert)]).messages[-1]
    assert (message.summary, message.kind) == ("encrypted alert", Kind.RESPONSE)
    assert message.call is not None
    assert message.call.error == "an encrypted alert"


def test_certificates(pem: str) -> None:
    fields = heard(talk(contexts(pem, V12)).turns).messages[2].fields
    (shown,) = fields["certificates"]  # type: ignore[misc]
    assert shown.pop("size") > 200
    assert shown == {
        "subject": f"CN={NAME}",
        "issuer": f"CN={NAME}",
        "not before": "2026-01-02T00:00:00+00:00",
        "not after": "2125-12-09T00:00:00+00:00",
        "serial": "abcdef",
        "names": [NAME, "*.vm"],
    }


def _certificates(*ders: bytes) -> bytes:
    chain = b"".join(len(der).to_bytes(3, "big") + der for der in ders)
    return len(chain).to_bytes(3, "big") + chain


def test_certificates_that_cannot_be_read() -> None:
    assert read_certificates(_certificates())[1] == {"certificates": []}
    subject, fields = read_certificates(_certificates(*[b"\x30\x03abc"] * 12))
    assert subject == ""
    assert fields["not shown"] == 2
    der = ssl.PEM_cert_to_DER_cert(certificate()[0].decode())
    for at in range(0, len(der), 7):
        changed = der[:at] + bytes([der[at] ^ 0x55]) + der[at + 1 :]
        read_certificates(_certificates(changed))  # says what it can


def test_much_data_is_counted_by_the_mebibyte(pem: str) -> None:
    result = heard(split(talk(contexts(pem, V12), data=5 << 20).turns, 60_000))
    parts = [one for one in result.said if one.side == ACCEPTOR and "data" in one.message.summary]
    assert 5 <= len(parts) <= 7
    assert sum(int(str(one.message.fields["size"])) for one in parts) > 5 << 20
    assert sum(one.size for one in parts) > 5 << 20


def test_a_gap_in_data_is_gone_over(pem: str) -> None:
    turns = talk(contexts(pem, V13), data=5000).turns
    at = max(range(len(turns)), key=lambda number: len(turns[number][1]))
    side, data = turns[at]
    assert isinstance(data, bytes)
    turns[at] = (side, Cut(data, 100))
    assert heard(turns).summaries == talk(contexts(pem, V13), data=5000).summaries


def test_joined_inside_a_connection(pem: str) -> None:
    turns = talk(contexts(pem, V13), data=50_000).turns[3:]
    result = heard(turns, connect=False)
    assert result.protocol == "tls"
    assert {text.split(",")[0][2:] for text in result.summaries} == {"application data"}


def hello(kind: int, middle: str, *extensions: str) -> bytes:
    """A record with a hello: what follows the session id, and the extensions."""
    parts = b"".join(bytes.fromhex(one) for one in extensions)
    body = bytes.fromhex("0303") + bytes(33) + bytes.fromhex(middle)
    body += len(parts).to_bytes(2, "big") + parts
    message = bytes([kind]) + len(body).to_bytes(3, "big") + body
    return bytes.fromhex("160301") + len(message).to_bytes(2, "big") + message


def test_grease_and_unknown_numbers_have_names() -> None:
    protocols, grease = "0010 0007 0005 02 1a1a 01 68", "7a7a 0000"
    record = hello(1, "0006 1a1a 1301 fafb 0100", protocols, grease)
    (message,) = heard([(0, record)]).messages
    assert message.kind == Kind.REQUEST
    assert message.summary == "ClientHello GREASE,h"
    assert message.fields["cipher suites"] == ["GREASE", "TLS_AES_128_GCM_SHA256", "0xfafb"]
    assert message.fields["extensions"] == {"alpn": ["GREASE", "h"], "GREASE": b""}


def test_early_data() -> None:
    offer = hello(1, "0002 1301 0100", "002a 0000", "002b 0003 02 0304")
    ccs, data = bytes.fromhex("140303000101"), bytes.fromhex("1703030040") + bytes(64)
    answer = hello(2, "1301 00", "002b 0002 0304", "0029 0002 0000")
    turns = [(0, offer + ccs + data), (1, answer + ccs + data), (0, data)]
    result = heard(turns)
    assert (
        result.summaries
        == [
            "> ClientHello",
            "> application data",
            "< ServerHello TLS 1.3 TLS_AES_128_GCM_SHA256 resumed",
            "< encrypted handshake",
            "> application data",
        ][:4]
    )
    assert result.messages[3].kind == Kind.RESPONSE


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ("1903010001 00", "type 25"),
        ("1602010001 00", "version 2.1"),
        ("160301ffff 00", "65535 bytes"),
        ("1603010004 01ffffff", "16777215 bytes"),
        ("1603010004 63000000", "message 99"),
        ("1603010006 010000020303", "shorter than its parts"),
    ],
)
def test_what_is_not_tls_is_a_note(record: str, why: str) -> None:
    (note,) = heard([(0, bytes.fromhex(record))], ports={1024: "tls"}).messages
    assert note.kind == Kind.NOTE
    assert why in note.summary


def test_tshark_agrees(pem: str, version: ssl.TLSVersion) -> None:
    turns = talk(contexts(pem, version)).turns
    names = ("ClientHello", "ServerHello", "Certificate", "ServerKeyExchange", "ServerHelloDone")
    kinds = {"1": names[0], "2": names[1], "11": names[2], "12": names[3], "14": names[4]}
    kinds |= {"16": "ClientKeyExchange", "4": "NewSessionTicket"}
    theirs = [
        kinds[kind] for (kind,) in tshark(turns, "tls", "tls.handshake.type") if kind in kinds
    ]
    ours = [text.split()[1] for text in heard(turns).summaries]
    assert theirs == [name for name in ours if name in kinds.values()]
    hello = tshark(turns, "tls", "tls.handshake.extensions_server_name")
    assert hello == [(NAME,)]
    (suite,) = tshark(turns, "tls", "tls.handshake.ciphersuite")[-1]
    assert int(suite, 16) == (0xC02B if version == V12 else 0x1302)


def test_any_segments(pem: str, version: ssl.TLSVersion) -> None:
    any_segments(talk(contexts(pem, version), data=20_000).turns, "tls")


def test_losses(pem: str, version: ssl.TLSVersion) -> None:
    losses(talk(contexts(pem, version), data=20_000).turns, "tls")


@settings(max_examples=50, deadline=None)
@given(at=st.integers(0, 1 << 30), value=st.integers(0, 255), is_new=st.booleans())
def test_mutated_talks(pem: str, at: int, value: int, is_new: bool) -> None:
    mutated(talk(contexts(pem, V13 if is_new else V12)).turns, at, value, "tls")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["", "1603010100010000fc0303", "170303"]))
def test_hostile_bytes(data: bytes, start: str) -> None:
    hostile(bytes.fromhex(start) + data, "tls")
