"""SSH: a real session, crafted exchanges of every kind, and what tshark says."""

import base64
import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import any_segments, hostile, losses, mutated
from running import CAPTURES
from second_opinion import tshark
from talking import ACCEPTOR, END, INITIATOR, Turn, hear_file, heard

from vsockdump.apps.message import Kind

CURVE = "curve25519-sha256"
GROUP_EXCHANGE = "diffie-hellman-group-exchange-sha256"
CIPHERS = ("aes128-ctr", "chacha20-poly1305@openssh.com")


def string(data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(data)) + data


def packet(kind: int, body: bytes = b"", padding: int = 6) -> bytes:
    payload = bytes([kind]) + body
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def kexinit(methods: str, ciphers: str = CIPHERS[0], keys: str = "ssh-ed25519") -> bytes:
    lists = (methods, keys, ciphers, ciphers, *["hmac-sha2-256"] * 2, "none", "none", "", "")
    return packet(20, bytes(16) + b"".join(map(string, lists)) + bytes(5))


HOST_KEY = string("ssh-ed25519") + string(bytes(32))
TALK: list[Turn] = [
    (INITIATOR, b"SSH-2.0-test_1 of a client\r\n"),
    (ACCEPTOR, b"welcome\r\nSSH-2.0-server-2\r\n"),
    (ACCEPTOR, kexinit(f"{CURVE},x")),
    (INITIATOR, kexinit(f"none,{CURVE},ext-info-c") + packet(30, string(bytes(32)))),
    (ACCEPTOR, packet(31, string(HOST_KEY) + string(b"f") + string(b"signature")) + packet(21)),
    (INITIATOR, packet(21) + b"secret"),
    (ACCEPTOR, b"encrypted" * 10),
    (INITIATOR, b"more secrets"),
    (INITIATOR, END),
    (ACCEPTOR, END),
]
AGREED = f"{CURVE} ssh-ed25519 aes128-ctr"


def test_a_session() -> None:
    result = heard(TALK)
    assert result.summaries == [
        "> SSH-2.0-test_1 of a client",
        "< SSH-2.0-server-2",
        "< KEXINIT",
        f"> KEXINIT {AGREED}",
        "> KEX_ECDH_INIT",
        "< KEX_ECDH_REPLY",
        "< NEWKEYS",
        "> NEWKEYS",
        "> encrypted",
        "< encrypted",
    ]
    assert [one.size for one in result.said[-2:]] == [18, 90]
    assert result.messages[0].fields == {
        "version": "2.0",
        "software": "test_1",
        "comment": "of a client",
    }
    assert result.messages[1].fields["before"] == ["welcome"]
    latencies = {one.message.summary: one.latency_ns for one in result.said if one.latency_ns}
    assert latencies == {"KEX_ECDH_REPLY": 1_000_000, "NEWKEYS": 1_000_000}
    assert result.unanswered == []


def test_the_fingerprint_is_that_of_ssh_keygen() -> None:
    digest = base64.b64encode(hashlib.sha256(HOST_KEY).digest()).decode().rstrip("=")
    fields = heard(TALK).messages[5].fields
    assert (fields["host key"], fields["fingerprint"]) == ("ssh-ed25519", f"SHA256:{digest}")


def test_group_exchange_has_messages_of_its_own() -> None:
    turns = [*TALK[:2], (0, kexinit(GROUP_EXCHANGE)), (1, kexinit(GROUP_EXCHANGE))]
    reply = packet(33, string(HOST_KEY))
    turns += [(0, packet(34)), (1, packet(31)), (0, packet(32)), (1, reply)]
    result = heard(turns)
    assert result.summaries[4:] == [
        "> KEX_DH_GEX_REQUEST",
        "< KEX_DH_GEX_GROUP",
        "> KEX_DH_GEX_INIT",
        "< KEX_DH_GEX_REPLY",
    ]
    assert [one.latency_ns for one in result.said[4:]] == [None, 1_000_000] * 2
    assert [call.method for call in result.unanswered] == ["key exchange"]


def test_what_is_not_common() -> None:
    turns = [*TALK[:2], (0, kexinit(CURVE, CIPHERS[1])), (1, kexinit("other", CIPHERS[1]))]
    message = heard(turns).messages[-1]
    assert message.summary == f"KEXINIT (no common key exchange) ssh-ed25519 {CIPHERS[1]}"
    negotiated = message.fields["negotiated"]
    assert isinstance(negotiated, dict)
    assert negotiated["mac to server"] == "implicit"


def test_messages_without_keys() -> None:
    reason = struct.pack(">I", 3) + string("no matching\nkey") + string("")
    turns = [*TALK[:2], (0, packet(2, string("padding"))), (1, packet(1, reason))]
    assert heard(turns).summaries[2:] == [
        "> IGNORE",
        "< DISCONNECT key exchange failed no matching key",
    ]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"SSH-1.5-old\n", "version 1.5"),
        (b"HELLO\n", "no banner"),
        (b"SSH-2.0-x\n\0\0\0\x05\x04\x14", "a packet of 5 bytes"),
        (b"SSH-2.0-x\n\x7f\0\0\0\x04\x14", "bytes with 4 of padding"),
        (b"SSH-2.0-x\n" + packet(20, bytes(20)), "shorter than its parts"),
        (b"SSH-2.0-x\n" + packet(94), "message 94"),
        (b"SSH-2.0-" + b"x" * 2000, "no b'\\n'"),
    ],
)
def test_what_is_not_ssh_is_a_note(sent: bytes, why: str) -> None:
    note = heard([(0, sent)], ports={1024: "ssh"}).messages[-1]
    assert note.kind == Kind.NOTE
    assert why in note.summary


def test_a_real_session() -> None:
    result = hear_file(str(CAPTURES / "prog_ssh.pcapng"))
    assert result.protocol == "ssh"
    agreed = "sntrup761x25519-sha512 ssh-ed25519 chacha20-poly1305@openssh.com"
    assert result.summaries[:8] == [
        "> SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u6",
        "< SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10",
        "> KEXINIT",
        f"< KEXINIT {agreed}",
        "> KEX_ECDH_INIT",
        "< KEX_ECDH_REPLY",
        "< NEWKEYS",
        "> NEWKEYS",
    ]
    assert result.summaries[8:] == ["> encrypted", "< encrypted"]
    assert result.messages[5].fields["fingerprint"] == (
        "SHA256:0/NlVYdx2JqX+aBIYQC5HIFmfM7kL31hXNjLkJuarKY"
    )


def test_tshark_agrees() -> None:
    real = hear_file(str(CAPTURES / "prog_ssh.pcapng"), keep=True)
    theirs = tshark(
        [(one.side, one.data) for one in real.said],
        "ssh",
        *(
            "ssh.protocol",
            "ssh.message_code",
            "ssh.kex_algorithms",
            "ssh.mac_algorithms_server_to_client",
        ),
    )
    names = {"20": "KEXINIT", "21": "NEWKEYS", "30": "KEX_ECDH_INIT", "31": "KEX_ECDH_REPLY"}
    assert [line for line, *_ in theirs if line] == [one[2:] for one in real.summaries[:2]]
    ours = [one.split()[1] for one in real.summaries[2:8]]
    assert [names[code] for _line, code, *_ in theirs if code] == ours
    offers = [one.fields for one in real.messages[2:4]]
    for column, name in ((2, "key exchange"), (3, "mac to client")):
        assert [row[column].split(",") for row in theirs if row[column]] == [
            offer[name] for offer in offers
        ]


def test_any_segments() -> None:
    any_segments(TALK, "ssh")


def test_losses() -> None:
    losses(TALK, "ssh")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 255))
def test_mutated_talks(at: int, value: int) -> None:
    mutated(TALK, at, value, "ssh")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"SSH-2.0-x\r\n"]))
def test_hostile_bytes(data: bytes, start: bytes) -> None:
    hostile(start + data, "ssh")
