"""Programs of classic BPF: in the kernel, in tcpdump's notation, and at their limits."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from filtering import KERNEL_FILTER, fixed_frames, frames
from hypothesis import given, settings
from hypothesis import strategies as st
from running import tool

from vsockdump.capture.packet_socket import attach
from vsockdump.filters import bpf, kernel
from vsockdump.filters.filter import Filter
from vsockdump.filters.lower import lowered
from vsockdump.filters.parse import parse
from vsockdump.filters.tree import Ends, Node, ranges


@pytest.fixture(scope="module")
def some_frames() -> list[bytes]:
    """Frames of all kinds, the same in every run."""
    return fixed_frames()


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
    halves = Filter.of(text).split()
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
