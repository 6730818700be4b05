"""The bytes of a vsockmon frame: both headers, their fields, enums and flags.

This is the only place that names a header field, its offset, its size, its values and
its meaning.  The NumPy dtype (batch.py), the Scapy layers (layers.py), the output field
names (fields.py) and the tables of the README are derived from the two `Header`
objects below by plain functions; a second copy of any of them is a defect.

Rules for editors: standard library only, no I/O, no formatting.  Everything on the wire
is little-endian and packed.  An unknown value is always legal: use `name_of`, which never
fails, and not the enum's constructor.

Sources: include/uapi/linux/vsockmon.h and include/uapi/linux/virtio_vsock.h of Linux;
"Socket Device" in the OASIS virtio specification; https://www.tcpdump.org/linktypes.html.
"""

from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

LINKTYPE_VSOCK: Final = 271
LINKTYPE_LINUX_SLL: Final = 113
LINKTYPE_LINUX_SLL2: Final = 276
ARPHRD_VSOCKMON: Final = 826

SLL_SIZE: Final = 16  # LINUX_SLL: packet type, ARPHRD at 2, address, protocol
SLL_ARPHRD_AT: Final = 2
SLL2_SIZE: Final = 20  # LINUX_SLL2: protocol, interface index at 4, ARPHRD at 8, ...
SLL2_IFINDEX_AT: Final = 4
SLL2_ARPHRD_AT: Final = 8


class MonitorOp(IntEnum):
    """`op` of the monitor header: the coarse kind of the packet."""

    UNKNOWN = 0
    CONNECT = 1
    DISCONNECT = 2
    CONTROL = 3
    PAYLOAD = 4


class Transport(IntEnum):
    """`t` of the monitor header: which transport header follows."""

    UNKNOWN = 0
    NO_INFO = 1
    VIRTIO = 2


class Op(IntEnum):
    """`op` of the virtio header."""

    INVALID = 0
    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class SocketType(IntEnum):
    """`type` of the virtio header; DGRAM is from unmerged patches and libkrun."""

    INVALID = 0
    STREAM = 1
    SEQPACKET = 2
    DGRAM = 3


class Shutdown(IntFlag):
    """`flags` of a SHUTDOWN: what its sender will not do any more."""

    RCV = 1
    SEND = 2


class Seqpacket(IntFlag):
    """`flags` of a SEQPACKET RW: end of message, end of record."""

    EOM = 1
    EOR = 2


CID_HYPERVISOR: Final = 0
CID_LOCAL: Final = 1
CID_HOST: Final = 2
CID_PARENT: Final = 3  # what a Nitro enclave calls its host; elsewhere a guest
CID_ANY: Final = 0xFFFFFFFF
CID_NAMES: Final = {
    CID_HYPERVISOR: "hypervisor",
    CID_LOCAL: "local",
    CID_HOST: "host",
    CID_ANY: "any",
}

# What the kernel's tap writes as the outer op for each inner op; all others give UNKNOWN.
OUTER_OP: Final[dict[int, MonitorOp]] = {
    Op.REQUEST: MonitorOp.CONNECT,
    Op.RESPONSE: MonitorOp.CONNECT,
    Op.RST: MonitorOp.DISCONNECT,
    Op.SHUTDOWN: MonitorOp.DISCONNECT,
    Op.RW: MonitorOp.PAYLOAD,
    Op.CREDIT_UPDATE: MonitorOp.CONTROL,
    Op.CREDIT_REQUEST: MonitorOp.CONTROL,
}


class Field(NamedTuple):
    """One header field.

    `size` is in bytes.  `wireshark` holds the names Wireshark gives it, its own spelling
    first (`src_prot` is a typing mistake there that has become API), ours after it.
    `show` is Wireshark's notation of the value: "dec", "hex" (0x and 8 digits), "bytes".
    """

    name: str
    offset: int
    size: int
    wireshark: tuple[str, ...]
    meaning: str
    values: type[IntEnum] | None = None
    show: str = "dec"


class Header(NamedTuple):
    """A header: its fields in wire order, without gaps."""

    name: str
    title: str
    size: int
    fields: tuple[Field, ...]

    def offset(self, name: str) -> int:
        """Byte offset of a field in this header; KeyError where there is none."""
        for field in self.fields:
            if field.name == name:
                return field.offset
        raise KeyError(f"{self.name} has no field {name!r}")


VSOCKMON: Final = Header(
    "mon",
    "vsock monitor header",
    32,
    (
        Field("src_cid", 0, 8, ("vsock.src_cid",), "source context id"),
        Field("dst_cid", 8, 8, ("vsock.dst_cid",), "destination context id"),
        Field("src_port", 16, 4, ("vsock.src_port",), "source port"),
        Field("dst_port", 20, 4, ("vsock.dst_port",), "destination port"),
        Field("op", 24, 2, ("vsock.op",), "coarse kind of packet", MonitorOp),
        Field("t", 26, 2, ("vsock.trans",), "transport whose header follows", Transport),
        Field("len", 28, 2, ("vsock.trans_len",), "bytes of the transport header"),
        Field("reserved", 30, 2, ("vsock.reserved",), "zero", None, "bytes"),
    ),
)

VIRTIO: Final = Header(
    "virtio",
    "virtio transport header",
    44,
    (
        Field("src_cid", 0, 8, ("vsock.virtio.src_cid",), "source context id"),
        Field("dst_cid", 8, 8, ("vsock.virtio.dst_cid",), "destination context id"),
        Field("src_port", 16, 4, ("vsock.virtio.src_prot", "vsock.virtio.src_port"), "source port"),
        Field(
            "dst_port",
            20,
            4,
            ("vsock.virtio.dst_prot", "vsock.virtio.dst_port"),
            "destination port",
        ),
        Field("len", 24, 4, ("vsock.virtio.len",), "payload bytes of this packet"),
        Field("type", 28, 2, ("vsock.virtio.type",), "socket type", SocketType),
        Field("op", 30, 2, ("vsock.virtio.op",), "operation", Op),
        Field("flags", 32, 4, ("vsock.virtio.flags",), "SHUTDOWN or SEQPACKET flags", None, "hex"),
        Field("buf_alloc", 36, 4, ("vsock.virtio.buf_alloc",), "sender's receive buffer, bytes"),
        Field(
            "fwd_cnt", 40, 4, ("vsock.virtio.fwd_cnt",), "bytes the sender has consumed, mod 2^32"
        ),
    ),
)

HEADERS: Final = (VSOCKMON, VIRTIO)
HEADERS_SIZE: Final = VSOCKMON.size + VIRTIO.size
MAX_PAYLOAD: Final = 65536  # VIRTIO_VSOCK_MAX_PKT_BUF_SIZE: vhost drops anything longer
MAX_FRAME: Final = HEADERS_SIZE + MAX_PAYLOAD


def name_of(values: type[IntEnum], number: int) -> str:
    """Name of an enum value; "unknown (99)" for one that has none.  Never fails."""
    try:
        return values(number).name
    except ValueError:
        return f"unknown ({number})"


def flags_of(op: int, socket_type: int) -> type[IntFlag] | None:
    """The flags that `flags` holds in a packet of this op and type, if any are defined."""
    if op == Op.SHUTDOWN:
        return Shutdown
    if op == Op.RW and socket_type == SocketType.SEQPACKET:
        return Seqpacket
    return None


def flag_names(op: int, socket_type: int, flags: int) -> list[str]:
    """Names of the set flags in bit order; bits without a name stay together as hex."""
    names = []
    for flag in flags_of(op, socket_type) or ():
        if flags & flag:
            names.append(str(flag.name))
            flags &= ~int(flag)
    if flags:
        names.append(f"{flags:#x}")
    return names
