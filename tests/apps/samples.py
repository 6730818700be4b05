"""How each protocol opens, by name: turns that its recogniser alone has to know, at any port.

test_registry.py feeds each sample to all recognisers.  Protocols that only a port tells are
not here.
"""

import struct

from rpc_talks import HELLO, SETTINGS, ask
from talking import Turn

Talk = list[Turn]


def _framed(form: str, *bodies: bytes) -> bytes:
    return b"".join(struct.pack(form, len(body)) + body for body in bodies)


_ARP = bytes.fromhex(
    "ffffffffffff 5a94ef e4 0c ee 0806 0001080006040001 5a94efe40cee c0a87f02 000000000000 c0a87f01"
)

SAMPLES: dict[str, Talk] = {
    "9p": [
        (0, bytes.fromhex("15000000 64 ffff 18000100 0800") + b"9P2000.L"),
        (1, bytes.fromhex("15000000 65 ffff 18000100 0800") + b"9P2000.L"),
    ],
    "adb": [(0, bytes.fromhex("434e584e 01000001 00001000 00000000 00000000 bcb1a7b1"))],
    "ethernet": [
        (0, b"POST /connect HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (0, _framed("<H", _ARP)),
    ],
    "framed": [
        (0, _framed(">I", b"\x01\x02\xff", b"\x03\x04")),
        (1, _framed(">I", b"\x05\xff\x07\x08")),
    ],
    "gcs": [
        (0, struct.pack("<IIQ", 0x10100B01, 34, 1) + b'{"ContainerId":"0"'),
    ],
    "heartbeat": [(0, b"\xb7"), (1, b"\xb7")],
    "http": [(0, b"GET /containers/json HTTP/1.1\r\nHost: docker\r\n\r\n")],
    "http2": [(0, HELLO), (1, SETTINGS)],
    "iperf3": [(0, b"abcdefghijklmnopqrstuvwxyz234567abcd\0"), (1, b"\x09")],
    "json": [(0, b'{"level":"info","msg":"started"}\n')],
    "nbd": [(1, b"NBDMAGICIHAVEOPT\0\x03"), (0, b"\0\0\0\x03")],
    "qga": [(0, b'\xff{"execute":"guest-ping"}\n'), (1, b'{"return":{}}\n')],
    "qgs": [(0, struct.pack(">I", 24) + struct.pack("<HHIIIII", 1, 1, 0, 24, 0, 0, 0))],
    "sd-notify": [(0, b"READY=1\nSTATUS=running")],
    "ssh": [(1, b"SSH-2.0-OpenSSH_9.2p1\r\n")],
    "tls": [(0, bytes.fromhex("16 0301 0200 01 0001fc 0303") + bytes(502))],
    "trace-cmd": [(0, struct.pack(">IIIIIQ", 28, 6, 16, 0, 0, 7))],
    "ttrpc": [(0, ask(1, "grpc.Health/Check"))],
    "varlink": [(0, b'{"method":"io.systemd.Hostname.Describe"}\0')],
}
