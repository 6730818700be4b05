"""Programs of classic BPF: in the kernel, in tcpdump's notation, and at their limits."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from filtering import KERNEL_FILTER, frames
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_socket import accepted_by_kernel, attach
from running import tool
from scenario import build_frame

from vsockdump.address import Endpoint
from vsockdump.filters import bpf, kernel
from vsockdump.filters.filter import Filter
from vsockdump.filters.lower import lowered
from vsockdump.filters.parse import parse
from vsockdump.filters.tree import Ends, Node, ranges
from vsockdump.wire import Op

FILTERS = (
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


@pytest.fixture(scope="module")
def some_frames() -> list[bytes]:
    """Frames of all kinds, the same in every run; none is empty, which tun refuses."""
    found = [
        build_frame(Endpoint(3, 5), Endpoint(2, 5000), Op.RW, b"x"),
        build_frame(Endpoint(2, 1024), Endpoint(3, 7), Op.RW, b"y", virtio={"type": 2, "flags": 1}),
        build_frame(Endpoint(2, 1024), Endpoint(3, 7), Op.SHUTDOWN, virtio={"flags": 2}),
    ]

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(frames())
    def collect(frame: bytes) -> None:
        if frame and frame not in found:
            found.append(frame)

    collect()
    assert len(found) > 50
    return found


def test_a_capture_socket_agrees_with_the_interpreter(some_frames: list[bytes]) -> None:
    """On a device of vsockmon's type, in a namespace of its own."""
    programs = [kernel.split(parse(text)).program for text in FILTERS]
    assert None not in programs
    expected = [[bpf.run(program, frame) > 0 for frame in some_frames] for program in programs]
    one_sided = [text for text, row in zip(FILTERS, expected, strict=True) if len({*row}) < 2]
    assert [] == one_sided
    assert expected == accepted_by_kernel(programs, some_frames)


@contextlib.contextmanager
def filtered_pair(program: bpf.Program) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of local datagram sockets, the second of which has the program."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        attach(receiver, program)
        receiver.setblocking(False)
        yield sender, receiver


def passes(sender: socket.socket, receiver: socket.socket, frame: bytes) -> bool:
    """Whether a datagram arrives; a refused one is gone when `send` returns."""
    with contextlib.suppress(BlockingIOError):
        sender.send(frame)
        return receiver.recv(1 << 17) == frame
    return False


@settings(deadline=None)
@given(KERNEL_FILTER, st.lists(frames(), min_size=1, max_size=8))
def test_the_kernel_agrees_with_the_interpreter(tree: Node, sent: list[bytes]) -> None:
    """The kernel takes every program that is made, and reads it as the interpreter does."""
    program = kernel.split(tree, keep_state=False).program
    if program is None:
        return
    with filtered_pair(program) as (sender, receiver):
        for frame in filter(None, sent):
            assert (bpf.run(program, frame) > 0) == passes(sender, receiver, frame)


def test_snaplen_is_what_an_accepted_packet_returns() -> None:
    """And 0 a refused one."""
    program = kernel.split(parse("greater 40"), snaplen=96).program
    assert program is not None
    assert (96, 0) == (bpf.run(program, bytes(40)), bpf.run(program, bytes(39)))


def test_a_filter_that_is_too_long_is_decided_afterwards() -> None:
    """Of a conjunction what fits is pushed; the kernel takes 4096 instructions."""
    many = Ends("port", ranges((2 * port, 2 * port) for port in range(1, 3000)))
    assert len(kernel.compiled(lowered(many))) > bpf.MAX_INSTRUCTIONS
    alone = kernel.split(many)
    assert (None, many) == (alone.program, alone.rest)
    op = parse("op rw")
    split = kernel.split(kernel.both((many, op)))
    assert (op, many) == (split.pushed, split.rest)


def test_jumps_farther_than_a_byte_can_say(some_frames: list[bytes]) -> None:
    """Long programs go by way of unconditional jumps, and still mean the same."""
    many = Ends("port", ranges((2 * port, 2 * port) for port in range(1, 200)))
    program = kernel.compiled(lowered(many))
    assert any(instruction.code == bpf.JMP | bpf.JA for instruction in program)
    with filtered_pair(program) as (sender, receiver):
        seen = set()
        for frame in some_frames:
            seen.add(passes(sender, receiver, frame))
            assert (bpf.run(program, frame) > 0) == passes(sender, receiver, frame)
    assert {True, False} == seen


@pytest.mark.parametrize(
    ("text", "pushed", "rest"),
    [
        ("port 1024 and free < 4096", "port 1024", "free <= 4095"),
        ("src port 5 and stalled", "src port 5 or dst port 5", "src port 5 and stalled"),
        ("op rw and stalled", None, "op rw and stalled"),
        ("cid 3 and midstream", "cid 3 or local", "cid 3 and midstream"),
        ("port 5 or stalled", None, "port 5 or stalled"),
        ("not (port 5 or stalled)", "not port 5", "not (port 5 or stalled)"),
        ("op rw and frame.number < 9", "op rw", "frame.number <= 8"),
        ('payload contains "x" and conn 3', None, 'vsock.data contains "x" and conn 3'),
        ("link[link[0]] = 1 and port 5", "port 5", "link[link[0]] == 1"),
        (
            "port 5 and not (src 3:7 or conn 1)",
            "port 5 and (not src 3:7 or not dst 3:7 or local)",
            "not (src 3:7 or conn 1)",
        ),
    ],
)
def test_what_is_pushed(text: str, pushed: str | None, rest: str) -> None:
    """What the kernel decides, and what it leaves."""
    halves = Filter(text).split()
    expected = None if pushed is None else parse(pushed)
    assert (expected, parse(rest)) == (halves.pushed, halves.rest)


def test_listings_are_those_of_tcpdump() -> None:
    """-d, -dd and -ddd print a program as tcpdump prints the same one."""
    text = "link[0:4] = 0x03000000 or link[9:2] > 7 and len < 5"
    theirs = [tool("tcpdump", "-y", "VSOCK", how, text).decode() for how in ("-d", "-dd", "-ddd")]
    program = program_of(theirs[2])
    ours = [bpf.listing(program), bpf.c_source(program), bpf.decimal(program)]
    assert theirs == ["".join(line + "\n" for line in lines) for lines in ours]


def program_of(decimal: str) -> bpf.Program:
    """A program from tcpdump -ddd."""
    _, *lines = decimal.splitlines()
    return [bpf.Instruction(*map(int, line.split())) for line in lines]


@pytest.mark.parametrize("options", [[], ["-O"]], ids=["optimized", "plain"])
@pytest.mark.parametrize(
    "text",
    [
        "link[16:4] = 0x00040000 or link[20:4] = 0x00040000",
        "link[link[28]:2] & 0x00ff != 3 and not link[70] >= link[71]",
        "len - 76 = link[56] + (link[57] << 8)",
        "(link[32] * 5 | 2) / (link[40] - 1) > 3 or link[62] = 5",
        "0 - -link[0] & 0xff = 3",
    ],
)
def test_the_interpreter_runs_programs_of_libpcap(
    text: str, options: list[str], some_frames: list[bytes]
) -> None:
    """Programs that somebody else compiled run as in the kernel."""
    program = program_of(tool("tcpdump", *options, "-ddd", "-y", "VSOCK", text).decode())
    with filtered_pair(program) as (sender, receiver):
        for frame in some_frames:
            assert (bpf.run(program, frame) > 0) == passes(sender, receiver, frame)
