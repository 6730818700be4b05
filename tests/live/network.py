"""A vsock monitor to test with: a TUN device of link type 826 in a network namespace.

Frames sent through a packet socket leave by the device as those of a vsockmon do, as
PACKET_OUTGOING; written to the TUN device they arrive by it, which takes frames larger than
the device's MTU.  Both need root, as does the namespace; nothing outside it is touched.

Rules for editors: the device goes with the last file descriptor, the namespace too, so that
nothing is left behind whatever a test does.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from running import PROGRAM

Result = TypeVar("Result")

ARPHRD_VSOCKMON: Final = 826
NAME: Final = "vsk0"
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_TUNSETLINK: Final = 0x400454CD
_IFF_TUN: Final = 1
_MTU: Final = 65535


def _in_thread(function: Callable[[], Result]) -> Result:
    """Call a function in a thread, which has a namespace of its own to change."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    assert result == 0, os.strerror(ctypes.get_errno())


class Network:
    """A network namespace with one device; a context manager."""

    def __init__(self, name: str = NAME, arphrd: int = ARPHRD_VSOCKMON) -> None:
        self.name = name
        _in_thread(lambda: self._make(arphrd))

    def _make(self, arphrd: int) -> None:
        _check(_libc().unshare(_CLONE_NEWNET))
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._device = os.open("/dev/net/tun", os.O_RDWR)
        request = struct.pack("16sH22x", self.name.encode(), _IFF_TUN)
        fcntl.ioctl(self._device, _TUNSETIFF, request)
        fcntl.ioctl(self._device, _TUNSETLINK, arphrd)
        self.ip("link", "set", self.name, "mtu", str(_MTU), "up")
        self._sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sender.bind((self.name, 0))

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_error: object) -> None:
        self._sender.close()
        self.remove()
        os.close(self._namespace)

    def run(self, function: Callable[[], Result]) -> Result:
        """Call a function inside the namespace; sockets that it makes stay there."""

        def call() -> Result:
            _check(_libc().setns(self._namespace, _CLONE_NEWNET))
            return function()

        return _in_thread(call)

    def inside(self, *command: str | Path) -> list[str]:
        """The command that runs this one inside the namespace."""
        place = f"--net=/proc/{os.getpid()}/fd/{self._namespace}"
        return ["nsenter", place, *map(str, command)]

    def ip(self, *arguments: str) -> str:
        """Run ip inside; its output."""
        done = subprocess.run(
            self.inside("ip", *arguments), capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def send(self, *frames: bytes) -> None:
        """Let frames of up to 65535 bytes leave by the device."""
        for frame in frames:
            self._sender.send(frame)

    def deliver(self, frame: bytes) -> None:
        """Let a frame of any size arrive by the device."""
        protocol = struct.pack(">HH", 0, 0x88B5)  # struct tun_pi; a protocol for experiments
        os.write(self._device, protocol + frame)

    def down(self) -> None:
        """Take the device down."""
        self.ip("link", "set", self.name, "down")

    def remove(self) -> None:
        """Let the device vanish."""
        if self._device >= 0:
            os.close(self._device)
            self._device = -1

    def vsockdump(self, *arguments: str | Path) -> list[str]:
        """The command that captures inside."""
        return self.inside(PROGRAM, *arguments)
