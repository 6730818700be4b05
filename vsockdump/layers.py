"""Scapy layers for AF_VSOCK: crafting, `rdpcap`, `sniff`, the details of one packet.

    from vsockdump.layers import VSockMon, VirtioVSock
    frame = VSockMon() / VirtioVSock(src_cid=2, dst_cid=3, src_port=1, dst_port=2) / b"hello"

Importing this module registers `VSockMon` with Scapy for LINKTYPE_VSOCK files, for live
vsockmon interfaces, and as the payload of LINUX_SLL and LINUX_SLL2 frames whose ARPHRD is
vsockmon's.  It also raises the size up to which Scapy reads a frame (`_read_whole_frames`).

Rules for editors: field names, offsets, sizes, enums and flags come from wire.py; only
what a field does by itself when a packet is built is said here, keyed by its name.  Two
names here are not on the wire: `transport` and `extra`, the header bytes nobody decodes.
A layer that is there is whole: a header that is cut short becomes bytes, and no captured
frame raises.  Whatever bytes went in come out, with and without Scapy's cache of them.

Why the automatic values are made in the fields and not in `post_build`, where Scapy does
it: patching the built bytes needs offsets, and these are wrong behind a `RawVal`, which is
how malformed packets are made.  Why `flags` is not Scapy's FlagsField: that has one list of
names, and these depend on `op` and `type`, which may change after `flags` was set.
"""

import struct
from collections.abc import Mapping
from types import FunctionType
from typing import Any, Final

from scapy.config import conf
from scapy.data import MTU
from scapy.fields import ConditionalField, EnumField, Field, StrField, StrLenField
from scapy.layers.l2 import CookedLinux
from scapy.packet import Packet, bind_bottom_up, bind_top_down
from scapy.supersocket import SuperSocket
from scapy.utils import PcapNgReader, PcapReader, RawPcapNgReader, RawPcapReader, RawPcapWriter

from vsockdump.wire import (
    ARPHRD_VSOCKMON,
    CID_HOST,
    CID_LOCAL,
    LINKTYPE_VSOCK,
    OUTER_OP,
    VIRTIO,
    VSOCKMON,
    Header,
    MonitorOp,
    Op,
    Seqpacket,
    Shutdown,
    SocketType,
    Transport,
    flag_names,
)
from vsockdump.wire import Field as WireField

__all__ = ["VSockMon", "VirtioVSock"]

SNAPLEN: Final = 262144  # bytes; libpcap's largest, and tcpdump's default
PACKET_OUTGOING: Final = 4  # linux/if_packet.h; the kernel marks every vsockmon frame so

# What a field holds in a new layer.  The ones not named here are automatic: they hold None
# until a value is given, and get theirs when the packet is built.
MONITOR_DEFAULTS: Final = {"reserved": 0}
VIRTIO_DEFAULTS: Final = {
    "type": SocketType.STREAM,
    "op": Op.RW,
    "flags": 0,
    "buf_alloc": 0,
    "fwd_cnt": 0,
}

# Both headers begin with the same addresses; each can take them from the other.
SHARED_NAMES: Final = frozenset(
    mine.name
    for mine, other in zip(VSOCKMON.fields, VIRTIO.fields, strict=False)
    if (mine.name, mine.offset, mine.size) == (other.name, other.offset, other.size)
)

ANSWERS: Final[Mapping[int, tuple[Op, ...]]] = {
    Op.REQUEST: (Op.RESPONSE, Op.RST),
    Op.SHUTDOWN: (Op.RST,),
    Op.CREDIT_REQUEST: (Op.CREDIT_UPDATE,),
}

FLAGS_BY_NAME: Final = {
    str(flag.name): int(flag) for flags in (Shutdown, Seqpacket) for flag in flags
}

STRUCT_FORMATS: Final = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}


def _known(value: object) -> int:
    """The number a field was given, or 0 for None, a RawVal or anything else."""
    return value if isinstance(value, int) else 0


class _AutomaticField:
    """A field that asks its layer for a value when the packet is built without one."""

    def i2m(self, pkt: Packet | None, x: Any) -> Any:
        """The number to put on the wire."""
        if x is None and isinstance(pkt, _HeaderLayer):
            x = pkt._automatic(self.name)  # type: ignore[attr-defined]  # Field's
        return super().i2m(pkt, x)  # type: ignore[misc]  # Field's: this is a mixin


class _NumberField(_AutomaticField, Field[int, int]):
    pass


class _NamedField(_AutomaticField, EnumField[int]):
    pass


class _FlagsField(_NumberField):
    """Flags whose names depend on the packet; given as a number or as "RCV+SEND"."""

    def any2i(self, pkt: Packet | None, x: Any) -> Any:
        """The number behind names joined by "+"; ValueError for a name there is not."""
        if isinstance(x, list):  # Scapy: one packet for each
            return [self.any2i(pkt, one) for one in x]
        if isinstance(x, str):
            return _flags_from_names(x)
        return int(x) if isinstance(x, int) else x  # not an IntFlag: `command` prints its repr

    def i2repr(self, pkt: Packet | None, x: Any) -> str:
        """The names of the set flags, bits without a name in hex, "0" for none."""
        if not isinstance(x, int) or pkt is None:
            return repr(x)
        op, socket_type = (_known(pkt.getfieldval(name)) for name in ("op", "type"))
        return "+".join(flag_names(op, socket_type, x)) or "0"


def _flags_from_names(text: str) -> int:
    """The inverse of what `show` prints; ValueError for a name there is not."""
    flags = 0
    for name in filter(None, text.split("+")):
        try:
            flags |= FLAGS_BY_NAME[name] if name in FLAGS_BY_NAME else int(name, 0)
        except ValueError:
            known = ", ".join(FLAGS_BY_NAME)
            raise ValueError(f"no flag is called {name!r}: use {known} or a number") from None
    return flags


class _TransportField(StrField):
    """The transport header, where it is not one that a layer decodes."""

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, bytes]:
        """Take the header off `s`: (rest, header), less than `len` if the frame is cut."""
        if _virtio_follows(pkt, s):
            return s, b""
        size = _known(pkt.getfieldval("len"))
        return s[size:], s[:size]


class _HiddenWhenEmpty(ConditionalField):
    """A bytes field that is neither shown nor listed while it holds nothing."""

    def __init__(self, fld: StrField) -> None:
        super().__init__(fld, lambda pkt: bool(pkt.getfieldval(fld.name)))

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, bytes | None]:
        """Always look: whether it is empty is known only afterwards."""
        rest, value = self.fld.getfield(pkt, s)
        return rest, value or None

    def i2h(self, pkt: Packet | None, val: Any) -> Any:
        """The bytes, b"" and not None where there are none."""
        return val


def _virtio_follows(mon: Packet, after_header: bytes) -> bool:
    """Does a whole virtio header stand behind the monitor header?"""
    return bool(
        mon.getfieldval("t") == Transport.VIRTIO
        and mon.getfieldval("len") >= VIRTIO.size
        and len(after_header) >= VIRTIO.size
    )


def _extra_size(virtio: Packet) -> int:
    """Bytes of the transport header behind the ones that are decoded."""
    mon = virtio.underlayer
    if not isinstance(mon, VSockMon):
        return 0
    return max(0, _known(mon.getfieldval("len")) - VIRTIO.size)


def _header_fields(header: Header, defaults: Mapping[str, int]) -> list[Field[Any, Any]]:
    """The Scapy fields of a header, in wire order."""
    return [_scapy_field(field, defaults.get(field.name)) for field in header.fields]


def _scapy_field(field: WireField, default: int | None) -> Field[Any, Any]:
    fmt = STRUCT_FORMATS[field.size]
    if field.name == "flags":
        return _FlagsField(field.name, default, fmt)
    if field.values is None:
        return _NumberField(field.name, default, fmt)
    return _NamedField(field.name, default, field.values, fmt)


class _HeaderLayer(Packet):
    """What both layers share.  Methods have a leading underscore so as not to hide a field
    of a payload: Scapy looks `packet.name` up in the layers one after the other.
    """

    def _automatic(self, name: str) -> int:
        """The value on the wire of a field that was given none."""
        raise NotImplementedError

    def _value(self, name: str) -> Any:
        """A field as it is or will be on the wire."""
        value = self.getfieldval(name)
        return self._automatic(name) if value is None else value

    def _addresses(self) -> str:
        source = f"{self._value('src_cid')}:{self._value('src_port')}"
        return f"{source} > {self._value('dst_cid')}:{self._value('dst_port')}"

    def _shown(self, name: str) -> str:
        """A field as `show` prints it; a list of values, which makes several packets, too."""
        return str(self.get_field(name).i2repr(self, self._value(name)))


class VSockMon(_HeaderLayer):
    """The 32-byte header of a frame from a vsockmon interface (linux/vsockmon.h).

    Fields are wire.VSOCKMON's, and `transport`: the bytes of a transport header that
    VirtioVSock does not decode (another transport, `len` less than 44, a cut frame).  The
    payload is a VirtioVSock where there is a whole one, else Raw: what is behind the
    transport header.  Enums take names and numbers; numbers without a name are legal.

    Fields left None are filled in when the packet is built:

    - over a VirtioVSock, cids and ports are its; `op` is what the kernel's tap writes for
      its op; `t` is VIRTIO; `len` is the length of the transport header, 44 and `extra`;
    - else `t` is NO_INFO, `op` is PAYLOAD or, without one, UNKNOWN, `len` is the length of
      `transport`, and the addresses are 0.

    A value that was given stays, right or wrong; the two headers may then contradict each
    other.  Dissected fields count as given: `del frame.op` makes one automatic again.

    Fewer than 32 bytes dissect as Raw and not as VSockMon.
    """

    name = VSOCKMON.title
    fields_desc = [  # noqa: RUF012  # Scapy's own way; it declares the type
        *_header_fields(VSOCKMON, MONITOR_DEFAULTS),
        _HiddenWhenEmpty(_TransportField("transport", b"")),
    ]

    @classmethod
    def dispatch_hook(
        cls, _pkt: bytes | None = None, *_args: object, **_fields: object
    ) -> type[Packet]:
        """The class to dissect with; Scapy calls it for `VSockMon(...)`."""
        return _class_for(cls, VSOCKMON, _pkt)

    def _automatic(self, name: str) -> int:
        if isinstance(self.payload, VirtioVSock):
            return self._over_virtio(name, self.payload)
        if name == "t":
            return Transport.NO_INFO
        if name == "len":
            return len(self.getfieldval("transport") or b"")
        if name == "op":
            return MonitorOp.PAYLOAD if self.payload else MonitorOp.UNKNOWN
        return 0

    def _over_virtio(self, name: str, virtio: "VirtioVSock") -> int:
        if name == "t":
            return Transport.VIRTIO
        if name == "len":
            return VIRTIO.size + len(virtio.getfieldval("extra") or b"")
        if name == "op":
            inner = _known(virtio.getfieldval("op"))
            return OUTER_OP[Op(inner)] if inner in OUTER_OP else MonitorOp.UNKNOWN
        return _known(virtio.getfieldval(name)) if name in SHARED_NAMES else 0

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """VirtioVSock where a whole one follows; else what users bound, or Raw."""
        if not self.getfieldval("transport") and _virtio_follows(self, payload):
            return VirtioVSock
        return super().guess_payload_class(payload)

    def answers(self, other: Packet) -> int:
        """1 if the packet in this frame answers the packet in the other, else 0."""
        if isinstance(other, VSockMon) and isinstance(self.payload, VirtioVSock):
            return self.payload.answers(other.payload)
        return 0

    def mysummary(self) -> str:
        """One line for a frame without a VirtioVSock: "1:1024 > 2:1234 PAYLOAD NO_INFO"."""
        return f"{self._addresses()} {self._shown('op')} {self._shown('t')}"


class VirtioVSock(_HeaderLayer):
    """The 44-byte header of a virtio vsock packet (linux/virtio_vsock.h).

    Fields are wire.VIRTIO's, and `extra`: what stands between the 44 bytes and the `len` of
    the VSockMon below, for future versions of the header.  `len`, `buf_alloc` and `fwd_cnt`
    are in bytes.  `flags` is a number that shows as the names of wire.flags_of, and may be
    given as such: "RCV+SEND", "EOM".  A new layer is a STREAM RW with zero credit.

    Fields left None are filled in when the packet is built: `len` is the length of the
    payload, and cids and ports are those given to the VSockMon below, else 0.

    The payload is the first `len` bytes.  More of them, which a frame has where the kernel's
    tap repeats those of a split packet, become Padding; a crafted Padding is left out of
    `len` likewise.

    Fewer than 44 bytes dissect as Raw and not as VirtioVSock.
    """

    name = VIRTIO.title
    fields_desc = [  # noqa: RUF012  # Scapy's own way; it declares the type
        *_header_fields(VIRTIO, VIRTIO_DEFAULTS),
        _HiddenWhenEmpty(StrLenField("extra", b"", length_from=_extra_size)),
    ]

    @classmethod
    def dispatch_hook(
        cls, _pkt: bytes | None = None, *_args: object, **_fields: object
    ) -> type[Packet]:
        """The class to dissect with; Scapy calls it for `VirtioVSock(...)`."""
        return _class_for(cls, VIRTIO, _pkt)

    def _automatic(self, name: str) -> int:
        if name == "len":
            return len(self.payload.do_build())  # without Padding, which `build` appends
        if name in SHARED_NAMES and isinstance(self.underlayer, VSockMon):
            return _known(self.underlayer.getfieldval(name))
        return 0

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes | None]:
        """Split what follows the header: (payload, what exceeds `len`)."""
        size = _known(self.getfieldval("len"))
        return s[:size], s[size:]

    def hashret(self) -> bytes:
        """4 bytes, the same for a packet and its answer."""
        ports = _known(self._value("src_port")) ^ _known(self._value("dst_port"))
        return struct.pack("<I", ports)

    def answers(self, other: Packet) -> int:
        """1 if this packet answers the other: RESPONSE or RST a REQUEST, RST a SHUTDOWN,
        CREDIT_UPDATE a CREDIT_REQUEST, from the end that was asked; else 0.
        """
        if not isinstance(other, VirtioVSock):
            return 0
        matches = self._value("op") in ANSWERS.get(other._value("op"), ())
        return int(matches and self._ends() == other._ends()[::-1])

    def _ends(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Source and destination as (cid, port), for matching."""
        source = _one_host(self._value("src_cid")), self._value("src_port")
        return source, (_one_host(self._value("dst_cid")), self._value("dst_port"))

    def mysummary(self) -> str:
        """One line: "2:1234 > 3:1024 RW 12": op, then `len` and flags unless they are 0."""
        parts = [self._addresses(), self._shown("op")]
        parts += [self._shown(name) for name in ("len", "flags") if self._value(name)]
        return " ".join(parts)


def _one_host(cid: int) -> int:
    """The cid, with the host's two made one: what a program on the host asks for at `host`
    is answered by `local`.
    """
    return CID_LOCAL if cid == CID_HOST else cid


def _class_for(cls: type[Packet], header: Header, frame: bytes | None) -> type[Packet]:
    """The layer, or Raw for bytes too few to hold its header.

    None means that there is nothing to dissect; b"" is a captured frame of no bytes, which
    Scapy by itself would take for a new packet.
    """
    if frame is None or len(frame) >= header.size:
        return cls
    return conf.raw_layer


def _register() -> None:
    """Tell Scapy where our frames occur.

    Files are written as LINKTYPE_VSOCK only; the ARPHRD is for live interfaces.  Cooked
    frames go by ARPHRD alone, since their protocol is 0, and cannot take another's: the
    ARPHRD is vsockmon's only.  CookedLinuxV2 inherits both bindings.
    """
    conf.l2types.register(LINKTYPE_VSOCK, VSockMon)
    conf.l2types.register_num2layer(ARPHRD_VSOCKMON, VSockMon)
    bind_bottom_up(CookedLinux, VSockMon, lladdrtype=ARPHRD_VSOCKMON)
    bind_top_down(
        CookedLinux, VSockMon, lladdrtype=ARPHRD_VSOCKMON, proto=0, pkttype=PACKET_OUTGOING
    )


def _read_whole_frames() -> None:
    """Make Scapy read frames of up to SNAPLEN bytes where it is not told a size.

    A vsockmon frame has up to 65612 bytes; Scapy's readers stop at MTU, 65535, without a
    word, and neither `rdpcap` nor `sniff` lets the caller say more.  The limit is the
    default of a parameter, so that is what is changed.  `wrpcap` writes the same number into
    the file's header as its snaplen, which readers such as libpcap cut frames to.
    """
    owners = (RawPcapReader, PcapReader, RawPcapNgReader, PcapNgReader, RawPcapWriter, SuperSocket)
    for owner in owners:
        for method in vars(owner).values():
            if isinstance(method, FunctionType) and method.__defaults__:
                method.__defaults__ = tuple(
                    SNAPLEN if value == MTU else value for value in method.__defaults__
                )


_register()
_read_whole_frames()
