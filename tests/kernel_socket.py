"""What the kernel accepts by a program: on a capture socket in a namespace of its own.

Run as a program inside new user and network namespaces (`accepted_by_kernel` does that), it
makes a tun device of the link type of vsockmon, sends frames through it, and says which of
them a packet socket with the program got.  A second socket without a program gets all
frames and so tells when one has passed.

Rules for editors: standard library and Linux only; nothing is waited for without a deadline.
"""

import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ARPHRD_VSOCKMON = 826
TUNSETIFF, TUNSETLINK, IFF_TUN = 0x400454CA, 0x400454CD, 0x0001
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFMTU, IFF_UP = 0x8913, 0x8914, 0x8922, 0x1
SO_ATTACH_FILTER = 26
ETH_P_ALL = 3
NAME = b"mon"
MTU = 65000
DEADLINE_S = 20
LAST = b"the last frame"

Program = Sequence[tuple[int, int, int, int]]


def attach(sock: socket.socket, program: Program) -> None:
    """SO_ATTACH_FILTER; OSError where the kernel refuses the program."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, head)


def accepted_by_kernel(programs: Sequence[Program], frames: Sequence[bytes]) -> list[list[bool]]:
    """For every program which of the frames it lets through; they must differ."""
    assert len(set(frames)) == len(frames)
    request = {"programs": programs, "frames": [frame.hex() for frame in frames]}
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, __file__],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: list[list[bool]] = json.loads(done.stdout)
    return answer


def _device() -> int:
    """A tun device that is up; frames written to it arrive at packet sockets."""
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", NAME, IFF_TUN))
    fcntl.ioctl(tun, TUNSETLINK, ARPHRD_VSOCKMON)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFMTU, struct.pack("16si20x", NAME, MTU))
        flags = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH22x", NAME, 0))
        up = struct.unpack_from("16sH", flags)[1] | IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", NAME, up))
    return tun


def _capture(program: Program | None) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    if program is not None:
        attach(sock, program)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((NAME.decode(), ETH_P_ALL))
    return sock


def _send(tun: int, frame: bytes) -> None:
    os.write(tun, struct.pack(">HH", 0, ETH_P_ALL) + frame)


def _wait_for(sock: socket.socket, frame: bytes) -> None:
    while True:
        ready, _, _ = select.select([sock], [], [], DEADLINE_S)
        assert ready, "the device lost a frame"
        if sock.recv(1 << 18) == frame:
            return


def _pending(sock: socket.socket) -> set[bytes]:
    found = set()
    while select.select([sock], [], [], 0)[0]:
        found.add(sock.recv(1 << 18))
    return found


def main() -> None:
    """Answer the request on stdin."""
    request = json.load(sys.stdin)
    frames = [bytes.fromhex(text) for text in request["frames"]]
    tun = _device()
    answer = []
    for program in request["programs"]:
        with _capture(program) as chosen, _capture(None) as every:
            for frame in frames:
                _send(tun, frame)
                _wait_for(every, frame)
            # Two more: the first may reach one socket before the other.
            for _ in range(2):
                _send(tun, LAST)
                _wait_for(every, LAST)
            found = _pending(chosen)
            answer.append([frame in found for frame in frames])
    print(json.dumps(answer))


if __name__ == "__main__":
    assert Path("/dev/net/tun").exists(), "this kernel has no tun devices"
    main()
