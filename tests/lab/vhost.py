"""A vsock guest played in user space: the other end of the kernel's vhost_vsock.

A machine that runs in emulation cannot quickly run a guest of its own.  To the kernel a
guest is two virtqueues in someone's memory, so a process can be one: it sends any packet
it likes, and the host side and its tap are the real ones.

Rules for editors: this is a device driver and knows nothing of connections
(guest_traffic.py does).  Sizes and numbers are those of <linux/vhost.h> and of the virtio
specification, "Split Virtqueues" and "Socket Device".
"""

import ctypes
import fcntl
import mmap
import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from vsockdump.wire import VIRTIO, Op

DESCRIPTORS: Final = 64  # of each queue
RECEIVE_BUFFER: Final = 4096  # as a Linux guest has them, or nearly: what vhost splits by
SEND_BUFFER: Final = VIRTIO.size + 65536
SEND_BUFFERS: Final = 4
LIMIT_S: Final = 20.0
GUEST_ADDRESS: Final = 0x10000000  # of the memory, in the guest's own counting

_RX, _TX = 0, 1
_AVAILABLE_AT, _USED_AT, _QUEUE_SIZE = 0x1000, 0x2000, 0x4000
_WRITABLE: Final = 2  # a descriptor's flag: for the device to write
_VERSION_1, _SEQPACKET = 1 << 32, 1 << 1  # features
_HEADER: Final = struct.Struct(
    "<" + "".join({2: "H", 4: "I", 8: "Q"}[field.size] for field in VIRTIO.fields)
)


def _ioctl_number(number: int, size: int = 0, direction: int = 1) -> int:
    """The ioctl's code; directions are 0 none, 1 write, 2 read."""
    return ((direction if size else 0) << 30) | (size << 16) | (0xAF << 8) | number


_GET_FEATURES: Final = _ioctl_number(0x00, 8, 2)
_SET_FEATURES: Final = _ioctl_number(0x00, 8)
_SET_OWNER: Final = _ioctl_number(0x01)
_SET_MEM_TABLE: Final = _ioctl_number(0x03, 8)
_SET_VRING_NUM: Final = _ioctl_number(0x10, 8)
_SET_VRING_ADDR: Final = _ioctl_number(0x11, 40)
_SET_VRING_BASE: Final = _ioctl_number(0x12, 8)
_SET_VRING_KICK: Final = _ioctl_number(0x20, 8)
_SET_VRING_CALL: Final = _ioctl_number(0x21, 8)
_SET_GUEST_CID: Final = _ioctl_number(0x60, 8)
_SET_RUNNING: Final = _ioctl_number(0x61, 4)


class Packet(NamedTuple):
    """A packet as it crosses the queue: the virtio header's fields, and the payload."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    len: int
    type: int
    op: int
    flags: int
    buf_alloc: int
    fwd_cnt: int
    data: bytes


class Guest:
    """The device, with this context id, while it is not closed."""

    def __init__(self, cid: int) -> None:
        self.cid = cid
        self._receive_at = 2 * _QUEUE_SIZE
        self._send_at = self._receive_at + DESCRIPTORS * RECEIVE_BUFFER
        size = self._send_at + SEND_BUFFERS * SEND_BUFFER
        self._memory = mmap.mmap(-1, size + -size % mmap.PAGESIZE)
        self._available, self._used = [0, 0], [0, 0]
        self._arrived: list[Packet] = []
        self._fd = os.open("/dev/vhost-vsock", os.O_RDWR)
        self._kick = [os.eventfd(0) for _ in (_RX, _TX)]
        self._call = [os.eventfd(0, os.EFD_NONBLOCK) for _ in (_RX, _TX)]
        self._set_up()
        for number in range(DESCRIPTORS):
            self._offer_receive_buffer(number)
        self._ioctl(_SET_RUNNING, "i", 1)
        os.eventfd_write(self._kick[_RX], 1)

    def send(self, packet: Packet) -> None:
        """Send a packet, and wait until the kernel has taken it."""
        number = self._available[_TX] % SEND_BUFFERS
        at = self._send_at + number * SEND_BUFFER
        data = _HEADER.pack(*packet[:-1]) + packet.data
        self._memory[at : at + len(data)] = data
        self._offer(_TX, number, at, len(data), 0)
        os.eventfd_write(self._kick[_TX], 1)
        self._wait(_TX, lambda: bool(list(self._taken(_TX))), "the kernel to take a packet")

    def receive(self, wanted: Callable[[Packet], bool], limit_s: float = LIMIT_S) -> Packet:
        """The first packet that is wanted; others stay for later calls."""

        def there() -> bool:
            self._collect()
            return any(map(wanted, self._arrived))

        self._wait(_RX, there, "a packet", limit_s)
        packet = next(filter(wanted, self._arrived))
        self._arrived.remove(packet)
        return packet

    def close(self) -> None:
        """Stop the device; what it had open is reset by the kernel."""
        self._ioctl(_SET_RUNNING, "i", 0)
        for fd in (self._fd, *self._kick, *self._call):
            os.close(fd)

    def _set_up(self) -> None:
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        fcntl.ioctl(self._fd, _SET_OWNER, 0)
        (offered,) = struct.unpack("Q", fcntl.ioctl(self._fd, _GET_FEATURES, bytes(8)))
        self._ioctl(_SET_FEATURES, "Q", offered & (_VERSION_1 | _SEQPACKET))
        region = GUEST_ADDRESS, len(self._memory), base, 0
        self._ioctl(_SET_MEM_TABLE, "IIQQQQ", 1, 0, *region)
        for queue in (_RX, _TX):
            at = base + queue * _QUEUE_SIZE
            places = at, at + _USED_AT, at + _AVAILABLE_AT, 0
            self._ioctl(_SET_VRING_NUM, "II", queue, DESCRIPTORS)
            self._ioctl(_SET_VRING_BASE, "II", queue, 0)
            self._ioctl(_SET_VRING_ADDR, "IIQQQQ", queue, 0, *places)
            self._ioctl(_SET_VRING_KICK, "Ii", queue, self._kick[queue])
            self._ioctl(_SET_VRING_CALL, "Ii", queue, self._call[queue])
        self._ioctl(_SET_GUEST_CID, "Q", self.cid)

    def _ioctl(self, number: int, layout: str, *values: int) -> None:
        fcntl.ioctl(self._fd, number, struct.pack(layout, *values))

    def _offer_receive_buffer(self, number: int) -> None:
        at = self._receive_at + number * RECEIVE_BUFFER
        self._offer(_RX, number, at, RECEIVE_BUFFER, _WRITABLE)

    def _offer(self, queue: int, number: int, at: int, size: int, flags: int) -> None:
        """Describe the buffer and make it available to the kernel."""
        base = queue * _QUEUE_SIZE
        descriptor = GUEST_ADDRESS + at, size, flags, 0
        struct.pack_into("<QIHH", self._memory, base + 16 * number, *descriptor)
        ring, index = base + _AVAILABLE_AT, self._available[queue]
        struct.pack_into("<H", self._memory, ring + 4 + 2 * (index % DESCRIPTORS), number)
        self._available[queue] = (index + 1) & 0xFFFF
        struct.pack_into("<H", self._memory, ring + 2, self._available[queue])

    def _taken(self, queue: int) -> Iterator[tuple[int, int]]:
        """Number and size of each buffer that the kernel has used since the last call."""
        ring = queue * _QUEUE_SIZE + _USED_AT
        while (self._used[queue],) != struct.unpack_from("<H", self._memory, ring + 2):
            slot = ring + 4 + 8 * (self._used[queue] % DESCRIPTORS)
            self._used[queue] = (self._used[queue] + 1) & 0xFFFF
            yield struct.unpack_from("<II", self._memory, slot)

    def _collect(self) -> None:
        """Take what has arrived and give the buffers back."""
        for number, size in self._taken(_RX):
            at = self._receive_at + number * RECEIVE_BUFFER
            data = self._memory[at : at + size]
            packet = Packet(*_HEADER.unpack_from(data), data[VIRTIO.size :])
            assert packet.len == len(packet.data), f"{Op(packet.op).name} of a wrong length"
            self._arrived.append(packet)
            self._offer_receive_buffer(number)
            os.eventfd_write(self._kick[_RX], 1)

    def _wait(
        self, queue: int, done: Callable[[], bool], what: str, limit_s: float = LIMIT_S
    ) -> None:
        """Wait until `done`, which the kernel's calls on the queue make worth asking."""
        deadline = time.monotonic() + limit_s
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the guest waited for {what} for {limit_s} s")
            if select.select([self._call[queue]], [], [], left)[0]:
                os.eventfd_read(self._call[queue])
