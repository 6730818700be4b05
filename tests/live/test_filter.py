"""Programs of classic BPF in the kernel: what they refuse is never seen, not even at first."""

import os
import subprocess
import sys
from typing import Final

import pytest
from filtering import fixed_frames
from network import NAME, Network
from test_live import DATA, REQUEST

from vsockdump.capture.packet_socket import PacketSocket, Program, Settings
from vsockdump.filters import bpf, kernel
from vsockdump.filters.parse import parse
from vsockdump.wire import Op

OP_AT: Final = 32 + 30
# ldh [62]; jeq #op ? next : refuse; ret #262144; ret #0.  The op's low byte comes first.
ONLY_DATA: Final[Program] = (
    (0x28, 0, 0, OP_AT),
    (0x15, 0, 1, int(Op.RW) << 8),
    (0x06, 0, 0, 262144),
    (0x06, 0, 0, 0),
)


def captured(network: Network, settings: Settings, *frames: bytes) -> list[bytes]:
    """What a packet socket takes of these frames, which are sent when it is there."""
    source = network.run(lambda: PacketSocket(NAME, settings))
    network.send(*frames)
    return rest_of(source)


def rest_of(source: PacketSocket, at_least: int = 0) -> list[bytes]:
    """The packets of a source until there are so many, and those that were captured by then."""
    packets: list[bytes] = []
    if len(packets) >= at_least:
        source.stop()
    for batch in source.batches():
        for row in batch.rows:
            at = int(row["packet_at"])
            packets.append(bytes(batch.buffer[at : at + int(row["caplen"])]))
        if len(packets) >= at_least:
            source.stop()
    counts = source.counts()
    source.close()
    assert len(packets) == counts.received - counts.dropped
    return packets


FILTERS: Final = (
    "port 1024",
    "not port 1024",
    "src port 5 or 1024 and op rw",
    "src or dst cid in {3, 256, 0xffffffff}",
    "src and dst cid <= 0x100000002",
    "guest",
    "not guest and not local",
    "dst host:5000",
    "portrange 2-0x1020304",
    "type seqpacket and flag eom",
    "flag send or rcv",
    "vsock.virtio.flags & 0xff00 in {0x100..0x4500, 0xff00}",
    "vsock.virtio.buf_alloc > 4096",
    "vsock.virtio.buf_alloc",
    "vsock.trans == VIRTIO and vsock.trans_len != 44",
    "vsock.reserved == 0",
    "less 80",
    "greater 32 and not less 75",
    "link[0:4] = 0x03000000 or link[24:2] & 0xff00 = 0x0400",
    "not link[90] = 0",
    "link[28] * 3 - 2 > len or (link[8] ^ 1) % 3 = 2",
    "link[0] << 31 = 0x80000000 or len / link[1] = 76",
)


def test_compiled_filters_choose_as_the_interpreter_does(network: Network) -> None:
    """On a capture socket, frames of all kinds: those that the interpreter accepts."""
    frames = fixed_frames()
    for text in FILTERS:
        program = kernel.split(parse(text)).program
        assert program is not None
        expected = [frame for frame in frames if bpf.run(program, frame)]
        assert 0 < len(expected) < len(frames), text
        settings = Settings(ring_kib=1024, block_timeout_ms=10, program=program)
        assert expected == captured(network, settings, *frames), text


def test_a_program_chooses(network: Network) -> None:
    """Only what it accepts arrives and is counted."""
    settings = Settings(program=ONLY_DATA)
    assert [DATA, DATA] == captured(network, settings, REQUEST, DATA, REQUEST, DATA)


def test_a_program_keeps_the_snaplen(network: Network) -> None:
    """What it accepts is cut at -s; what it refuses stays refused."""
    settings = Settings(program=ONLY_DATA, snaplen=70)
    assert [DATA[:70]] == captured(network, settings, REQUEST, DATA)


def test_a_program_may_accept_less_than_the_snaplen(network: Network) -> None:
    """The smaller of both holds."""
    settings = Settings(program=((0x06, 0, 0, 40),), snaplen=70)
    assert [DATA[:40]] == captured(network, settings, DATA)


FLOOD: Final = f"""
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind(({NAME!r}, 0))
refused, accepted = map(bytes.fromhex, sys.argv[1:])
while True:
    for frame in (refused, refused, refused, accepted):
        sender.send(frame)
"""


def test_no_packet_passes_before_the_program(network: Network) -> None:
    """In traffic that never pauses, not one packet is seen that the program refuses."""
    # Another process: a thread of this one would wait while the socket is made.
    command = network.inside(sys.executable, "-c", FLOOD, REQUEST.hex(), DATA.hex())
    quick = Settings(ring_kib=512, block_timeout_ms=10, program=ONLY_DATA)
    with subprocess.Popen(command) as flood:
        try:
            for _ in range(50):
                source = network.run(lambda: PacketSocket(NAME, quick))
                assert {DATA} == set(rest_of(source, at_least=1))
        finally:
            flood.kill()


def test_a_program_that_the_kernel_refuses(network: Network) -> None:
    """A jump out of the program: an error that says so, and no file descriptor left open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Exception, match=f"Cannot capture {NAME}: invalid argument"):
        network.run(lambda: PacketSocket(NAME, Settings(program=((0x15, 9, 9, 0),))))
    assert len(before) == len(os.listdir("/proc/self/fd"))
