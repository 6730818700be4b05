"""A conversation inside TLS, and the key log that opens it."""

import ssl
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from running import tool

REQUEST = b"GET /secret HTTP/1.1\r\nHost: enclave\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden"


class Secret(NamedTuple):
    """The turns, as in talking.py, and the key log."""

    turns: list[tuple[int, bytes]]
    keys: Path


def secret_talk(folder: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Secret:
    """A request and its answer between a client and a server, both in memory."""
    key, certificate, keys = folder / "key.pem", folder / "certificate.pem", folder / "keys"
    tool("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", "/CN=enclave", "-keyout", key, "-out", certificate)  # fmt: skip
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours.load_verify_locations(certificate)
    ours.check_hostname = False
    ours.keylog_filename = str(keys)
    ours.maximum_version = version
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate, key)
    pipes = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _side in range(2)]
    sides = (ours.wrap_bio(*pipes[0]), theirs.wrap_bio(*pipes[1], server_side=True))
    turns: list[tuple[int, bytes]] = []

    def carry() -> None:
        """Bring what was written to the other side."""
        for side in (0, 1):
            if data := pipes[side][1].read():
                turns.append((side, data))
                pipes[1 - side][0].write(data)

    for _round in range(3):
        for side in sides:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
            carry()
    for side, text in ((0, REQUEST), (1, ANSWER)):
        sides[side].write(text)
        carry()
        assert text == sides[1 - side].read()
    return Secret(turns, keys)
