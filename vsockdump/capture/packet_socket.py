"""An interface captured live: an AF_PACKET socket and its TPACKET_V3 ring.

The kernel puts packets into blocks of memory that it shares with us, and hands a block over
when it is full or has waited for the block timeout.  Rows and payloads of a batch lie in
these blocks: nothing is copied.  The blocks go back to the kernel when the next batch is
asked for, and the ring is the only queue: what the kernel cannot place there is lost and
counted.  A thread that empties the ring into another queue would copy every byte, fight
for the GIL and only move the place where packets are lost; a larger ring does more.

Rules for editors: all system calls of live capture stand here.  The order of `__init__` is
what lets no unfiltered packet through: a socket of protocol 0 receives nothing, and it gets
its protocol by the bind, when ring and filter are in place.
Sources: packet(7), Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h.
"""

import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from vsockdump.batch import PACKET_DTYPE, Batch, Layout
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.interface import NANOSECOND, Interface
from vsockdump.capture.link import Link, link_of
from vsockdump.capture.scan import DAMAGED, Scanner, done_reading
from vsockdump.capture.source import Counts
from vsockdump.wire import ARPHRD_VSOCKMON, LINKTYPE_VSOCK

# A program of classic BPF: (code, jt, jf, k) of each instruction, as in struct sock_filter.
Program = Sequence[tuple[int, int, int, int]]

RING_KIB: Final = 32 << 10
BLOCK_TIMEOUT_MS: Final = 100
SNAPLEN: Final = 262144  # tcpdump's; larger than any frame
_BLOCK: Final = 256 << 10  # holds three frames of 65612 bytes; wasted are 25 % with these
_FRAME: Final = 2048  # means nothing to TPACKET_V3, but must divide a block
_ROWS: Final = 16384  # of a batch, unless they take longer than _SOON_S
_FEWEST_ROWS: Final = 256
_SOON_S: Final = 0.05

_ETH_P_ALL: Final = 3  # any other protocol sees nothing of a vsockmon device
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_TPACKET_V3: Final = 2
_SO_ATTACH_FILTER: Final = 26

# The parts of the ring, as one of so many, that are full when a capture has fallen behind, and
# still full before it has caught up.
_BEHIND: Final = 2
_CAUGHT_UP: Final = 16

_STATUS_AT: Final = 8  # in struct tpacket_block_desc, and so on
_COUNT_AT: Final = 12
_STATUS_USER: Final = 1

_RET_K: Final = 0x06  # BPF_RET | BPF_K
_NOTHING: Final = ((_RET_K, 0, 0, 0),)


class Settings(NamedTuple):
    """How to capture.  `program` runs in the kernel before the copy; None takes all."""

    snaplen: int = SNAPLEN
    ring_kib: int = RING_KIB
    block_timeout_ms: int = BLOCK_TIMEOUT_MS
    program: Program | None = None


class PacketSocket:
    """The packets of interface `name`, captured from now on: a Source.

    `spare` is a socket of packet_socket() to use, for who may open none any more.  Raises
    CaptureError where it cannot be captured, and from `batches` where it goes down or vanishes,
    after the packets before that.
    """

    live: Final = True
    format: Final = ""
    header: Final = b""
    size: Final = 0
    position: Final = 0

    def __init__(self, name: str, settings: Settings, spare: socket.socket | None = None) -> None:
        self.name = name
        self._link = usable_link(name)
        self.packets = 0
        self.kept = 1
        self._behind = False
        self.read_again = None
        self.interfaces = [Interface(LINKTYPE_VSOCK, settings.snaplen, name, NANOSECOND)]
        self._timeout_ms = settings.block_timeout_ms
        self._blocks = max(settings.ring_kib * 1024 // _BLOCK, 2)
        self._rows = np.zeros(_ROWS, PACKET_DTYPE)
        self._scanner = Scanner(self._rows)
        self._most = _ROWS  # rows of the next batch
        self._taken = 0  # packets taken from the ring, those passed over included
        self._counts = Counts()
        self._block = 0  # the one to read next
        self._pos = 0  # of its next frame, from the start of the block
        self._left = 0  # frames of it that were not read yet; 0: it was not opened
        self._stopped = False
        self._closed = False  # whether the filter lets nothing through any more
        self._failure: OSError | None = None
        self._socket = spare or packet_socket()
        self._event = os.eventfd(0)
        try:
            self._memory = self._make_ring(settings)
            attach(self._socket, _limited(settings.program, settings.snaplen))
            self._socket.bind((name, _ETH_P_ALL))
        except OSError as error:
            self.close()
            raise _cannot_capture(name, error) from None
        except CaptureError:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._event, select.POLLIN)

    def _make_ring(self, settings: Settings) -> memoryview:
        size = _BLOCK * self._blocks
        frames = size // _FRAME
        request = (_BLOCK, self._blocks, _FRAME, frames, settings.block_timeout_ms, 0, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("7I", *request))
            return memoryview(mmap.mmap(self._socket.fileno(), size))
        except OSError as error:
            if error.errno not in (errno.ENOMEM, errno.EINVAL, errno.EAGAIN):
                raise
            raise CaptureError(
                f"The kernel has no memory for a ring of {size >> 10} KiB; ask for a smaller"
                " one with -B KIB."
            ) from None

    def close(self) -> None:
        """Close the socket; the kernel frees the ring when nothing refers to it any more."""
        self._socket.close()
        if self._event >= 0:
            os.close(self._event)
            self._event = -1

    def stop(self) -> None:
        """End `batches` with what was captured until now; a signal handler may call it."""
        self._stopped = True
        os.eventfd_write(self._event, 1)

    def counts(self) -> Counts:
        """What the kernel counted since the capture began; reading them clears its own."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        self._counts = self._counts.plus(Counts(*struct.unpack("3I", raw)))
        return self._counts

    @property
    def dropped(self) -> int:
        """Packets that found no place in the ring."""
        return self.counts().dropped

    def now_ns(self) -> int:
        """The wall-clock time, as the time stamps of packets are."""
        return time.time_ns()

    def batches(self) -> Iterator[Batch]:
        """The packets as they come; each batch is valid until the next is asked for."""
        while self._wait():
            first = self._block
            count, done = self._fill()
            if count:
                start = first * _BLOCK
                end = start + (done + bool(self._left)) * _BLOCK
                self.packets += count
                began = time.monotonic()
                yield Batch(self._rows[:count], self._memory[start:end], Layout())
                self._adapt(time.monotonic() - began)
            self._give_back(first, done)
        if self._failure is not None:
            raise self._vanished(self._failure)

    def _adapt(self, took_s: float) -> None:
        """Smaller batches where much is made of packets: it is to be seen soon."""
        half, twice = max(self._most // 2, _FEWEST_ROWS), min(2 * self._most, _ROWS)
        most = half if took_s > _SOON_S else twice
        if most != self._most:
            self._most, self._scanner = most, Scanner(self._rows[:most])

    def _wait(self) -> bool:
        """Sleep until there is a block to read; False at the end of the capture."""
        while not (self._stopped or self._failure):
            if self._left or self._ready():
                return True
            self._poll.poll()
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._failure = OSError(code, os.strerror(code))
        return self._wait_for_rest()

    def _wait_for_rest(self) -> bool:
        """Close the tap and sleep until the last block comes; False if there is none.

        The kernel keeps a block that is not full for the block timeout.  By its counters
        the last packet is known, so that nobody has to wait without need.
        """
        if not self._closed:
            attach(self._socket, _NOTHING)
            self._closed = True
        until = time.monotonic() + 2 * self._timeout_ms / 1000 + 0.1
        while not (self._left or self._ready()):
            received, dropped, _freezes = self.counts()
            if self._taken >= received - dropped or time.monotonic() > until:
                return False
            select.select([self._socket], [], [], self._timeout_ms / 1000)
        return True

    def is_behind(self) -> bool:
        """Whether half of the ring waits to be read, or still a part of it after that."""
        self._behind = self._is_full(_CAUGHT_UP if self._behind else _BEHIND)
        return self._behind

    def _is_full(self, part: int) -> bool:
        """Whether one of `part` parts of the ring waits to be read: blocks fill in order."""
        ahead = (self._block + self._blocks // part) % self._blocks
        return bool(self._word(_STATUS_AT, ahead) & _STATUS_USER)

    def _word(self, offset: int, block: int | None = None) -> int:
        """A field of a block's description, the current one's unless another is named."""
        at = (self._block if block is None else block) * _BLOCK + offset
        return int.from_bytes(self._memory[at : at + 4], "little")

    def _ready(self) -> bool:
        """Whether the current block is ours."""
        return bool(self._word(_STATUS_AT) & _STATUS_USER)

    def _fill(self) -> tuple[int, int]:
        """Fill the rows from blocks behind each other; (rows, blocks read to their end)."""
        view = self._memory[self._block * _BLOCK :]
        rows = done = 0
        while self._left or self._ready():
            if not self._left:
                self._left, self._pos = self._word(_COUNT_AT), self._word(_COUNT_AT + 4)
            frames = self._left
            before = done * _BLOCK
            pos, rows, self._left, status = self._scanner.ring(
                view, before + self._pos, before + _BLOCK, frames, self.packets + 1, rows
            )
            if status == DAMAGED:
                raise CaptureError(f"The kernel's ring for {self.name} cannot be read.")
            self._taken += frames - self._left
            if self._left:
                self._pos = pos - before
                break
            done += 1
            self._block = (self._block + 1) % self._blocks
            if not self._block or rows == self._most:
                break
        return rows, done

    def _give_back(self, first: int, count: int) -> None:
        """Let the kernel write again to `count` blocks from `first` on."""
        done_reading()
        for block in range(first, first + count):
            at = block * _BLOCK + _STATUS_AT
            self._memory[at : at + 4] = bytes(4)

    def _vanished(self, error: OSError) -> CaptureError:
        """What became of the interface."""
        link = link_of(self.name)
        if link is None or link.number != self._link.number:
            return CaptureError(f"Interface {self.name} was removed, which ended the capture.")
        if error.errno == errno.ENETDOWN:
            return CaptureError(f"Interface {self.name} went down, which ended the capture.")
        return CaptureError(
            f"Capturing on {self.name} failed: {os.strerror(error.errno or 0).lower()}."
        )


def usable_link(name: str) -> Link:
    """The interface of this name; CaptureError where it cannot be captured."""
    link = link_of(name)
    if link is None:
        raise CaptureError(f"There is no interface {name}; vsockdump -D lists those there are.")
    if link.arphrd != ARPHRD_VSOCKMON:
        raise CaptureError(
            f"Interface {name} is of link type {link.arphrd}, not {ARPHRD_VSOCKMON} as vsock"
            " monitors are; vsockdump -D lists those there are."
        )
    if not link.up:
        raise CaptureError(f"Interface {name} is down; bring it up with: ip link set {name} up.")
    return link


def packet_socket() -> socket.socket:
    """A socket that is not bound yet, so that nothing arrives at it; raises CaptureError."""
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise CaptureError(
            "Capturing needs root or the capability CAP_NET_RAW; run vsockdump with sudo."
        ) from None
    except OSError as error:
        raise _cannot_capture("packets", error) from None


def _cannot_capture(what: str, error: OSError) -> CaptureError:
    return CaptureError(f"Cannot capture {what}: {os.strerror(error.errno or 0).lower()}.")


def _limited(program: Program | None, snaplen: int) -> Program:
    """The program with `snaplen` as the most it accepts of a packet."""
    if program is None:
        return ((_RET_K, 0, 0, snaplen),)
    return [(code, jt, jf, min(k, snaplen) if code == _RET_K else k) for code, jt, jf, k in program]


def attach(target: socket.socket, program: Program) -> None:
    """Let the kernel run a program of classic BPF on every packet; OSError if it refuses."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    memory = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and where they are.
    head = struct.pack("HP", len(program), ctypes.addressof(memory))
    target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
