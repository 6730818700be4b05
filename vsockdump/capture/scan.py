# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The record scanner: bytes of a capture become rows of a batch.

This is one of the compiled hot loops, written in Cython's pure Python mode: the same file
runs as ordinary Python where no compiler was at hand.  It walks pcap records, pcapng
packet blocks and (live) ring frames, converts the time stamp, finds the vsock frame and
copies its two headers into the row, whose header columns have the layout of the wire.

Rules for editors: every access to captured bytes stands behind a length check of that
record, and nothing here allocates or raises: what is wrong with a record is its status,
what is wrong with a packet is its malformed code.  Pure Python indexes memoryviews, so
that numbers are Python's; C's wrap-around is written out with masks.  Everything that is
not a packet (pcapng's other blocks) goes back to Python: see pcapng.py.

Layouts: pcap is draft-ietf-opsawg-pcap, pcapng is draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct

import cython

from vsockdump import wire
from vsockdump.batch import NO_TIME, PACKET_DTYPE, Layers, LinkKind
from vsockdump.batch import Malformed as _M

# Why a scan stopped.
NEED_MORE = 0  # the buffer ends inside the next record
FULL = 1  # no row is left
OTHER_BLOCK = 2  # a pcapng block that is not a packet stands next
DAMAGED = 3  # the next record cannot be one

MAX_CAPLEN = 262144  # libpcap's MAXIMUM_SNAPLEN: a longer record is damage
MAX_BLOCK = 1 << 24  # a longer pcapng block is damage


def _column(name: str) -> int:
    """Where a column begins in a row."""
    return PACKET_DTYPE.fields[name][1]


_ITEM = cython.declare(cython.Py_ssize_t, PACKET_DTYPE.itemsize)
_NUMBER = cython.declare(cython.Py_ssize_t, _column("number"))
_TIME_NS = cython.declare(cython.Py_ssize_t, _column("time_ns"))
_RECORD_OFFSET = cython.declare(cython.Py_ssize_t, _column("record_offset"))
_RECORD_AT = cython.declare(cython.Py_ssize_t, _column("record_at"))
_RECORD_LEN = cython.declare(cython.Py_ssize_t, _column("record_len"))
_PACKET_AT = cython.declare(cython.Py_ssize_t, _column("packet_at"))
_CAPLEN = cython.declare(cython.Py_ssize_t, _column("caplen"))
_WIRELEN = cython.declare(cython.Py_ssize_t, _column("wirelen"))
_INTERFACE = cython.declare(cython.Py_ssize_t, _column("interface"))
_IFINDEX = cython.declare(cython.Py_ssize_t, _column("ifindex"))
_PAYLOAD_AT = cython.declare(cython.Py_ssize_t, _column("payload_at"))
_PAYLOAD_CAP = cython.declare(cython.Py_ssize_t, _column("payload_cap"))
_PAYLOAD_WIRE = cython.declare(cython.Py_ssize_t, _column("payload_wire"))
_LINK_SIZE = cython.declare(cython.Py_ssize_t, _column("link_size"))
_OPTIONS = cython.declare(cython.Py_ssize_t, _column("options"))
_LAYERS = cython.declare(cython.Py_ssize_t, _column("layers"))
_MALFORMED = cython.declare(cython.Py_ssize_t, _column("malformed"))
_HEADERS = cython.declare(cython.Py_ssize_t, _column(wire.VSOCKMON.name))

_MON = cython.declare(cython.Py_ssize_t, wire.VSOCKMON.size)
_VIRTIO = cython.declare(cython.Py_ssize_t, wire.VIRTIO.size)
_BOTH = cython.declare(cython.Py_ssize_t, wire.HEADERS_SIZE)
_T_AT = cython.declare(cython.Py_ssize_t, wire.VSOCKMON.offset("t"))
_LEN_AT = cython.declare(cython.Py_ssize_t, wire.VSOCKMON.offset("len"))
_T_VIRTIO = cython.declare(cython.uint, int(wire.Transport.VIRTIO))
_ARPHRD = cython.declare(cython.uint, wire.ARPHRD_VSOCKMON)
_SLL_SIZE = cython.declare(cython.Py_ssize_t, wire.SLL_SIZE)
_SLL_ARPHRD_AT = cython.declare(cython.Py_ssize_t, wire.SLL_ARPHRD_AT)
_SLL2_SIZE = cython.declare(cython.Py_ssize_t, wire.SLL2_SIZE)
_SLL2_ARPHRD_AT = cython.declare(cython.Py_ssize_t, wire.SLL2_ARPHRD_AT)
_SLL2_IFINDEX_AT = cython.declare(cython.Py_ssize_t, wire.SLL2_IFINDEX_AT)
_KIND_VSOCK = cython.declare(cython.uint, int(LinkKind.VSOCK))
_KIND_SLL = cython.declare(cython.uint, int(LinkKind.SLL))
_KIND_SLL2 = cython.declare(cython.uint, int(LinkKind.SLL2))
_NO_LAYER = cython.declare(cython.uchar, int(Layers.NONE))
_MONITOR_LAYER = cython.declare(cython.uchar, int(Layers.MONITOR))
_VIRTIO_LAYER = cython.declare(cython.uchar, int(Layers.VIRTIO))
_WELL_FORMED = cython.declare(cython.uchar, int(_M.NONE))
_FOREIGN = cython.declare(cython.uchar, int(_M.FOREIGN))
_SHORT_MONITOR = cython.declare(cython.uchar, int(_M.SHORT_MONITOR))
_CUT_MONITOR = cython.declare(cython.uchar, int(_M.CUT_MONITOR))
_TRANSPORT_LENGTH = cython.declare(cython.uchar, int(_M.TRANSPORT_LENGTH))
_SHORT_TRANSPORT = cython.declare(cython.uchar, int(_M.SHORT_TRANSPORT))
_CUT_TRANSPORT = cython.declare(cython.uchar, int(_M.CUT_TRANSPORT))
_NO_TIMESTAMP = cython.declare(cython.ulonglong, NO_TIME % 2**64)
_CAPLEN_LIMIT = cython.declare(cython.uint, MAX_CAPLEN)
_BLOCK_LIMIT = cython.declare(cython.uint, MAX_BLOCK)

_PACKET = cython.declare(cython.uint, 2)  # pcapng's blocks that hold a packet; this one is
_SIMPLE_PACKET = cython.declare(cython.uint, 3)  # obsolete, but still found
_ENHANCED_PACKET = cython.declare(cython.uint, 6)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _u16(
    buf: cython.const[cython.uchar][::1], at: cython.Py_ssize_t, big: cython.bint
) -> cython.uint:
    """Unsigned 16 bits in the given byte order."""
    if big:
        return buf[at] << 8 | buf[at + 1]
    return buf[at] | buf[at + 1] << 8


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _u32(
    buf: cython.const[cython.uchar][::1], at: cython.Py_ssize_t, big: cython.bint
) -> cython.uint:
    """Unsigned 32 bits in the given byte order."""
    if not cython.compiled:
        return int.from_bytes(buf[at : at + 4], "big" if big else "little")
    b0: cython.uint = buf[at]
    b1: cython.uint = buf[at + 1]
    b2: cython.uint = buf[at + 2]
    b3: cython.uint = buf[at + 3]
    if big:
        return b0 << 24 | b1 << 16 | b2 << 8 | b3
    return b0 | b1 << 8 | b2 << 16 | b3 << 24


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _put32(raw: cython.uchar[::1], at: cython.Py_ssize_t, value: cython.uint) -> cython.void:
    """Store a 32-bit column of a row, in the machine's byte order."""
    if cython.compiled:
        memcpy(cython.address(raw[at]), cython.address(value), 4)  # noqa: F821
    else:
        struct.pack_into("=I", raw, at, value)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _put64(raw: cython.uchar[::1], at: cython.Py_ssize_t, value: cython.ulonglong) -> cython.void:
    """Store a 64-bit column of a row, mod 2^64, which is also how a negative time is kept."""
    if cython.compiled:
        memcpy(cython.address(raw[at]), cython.address(value), 8)  # noqa: F821
    else:
        struct.pack_into("=Q", raw, at, value & 0xFFFFFFFFFFFFFFFF)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _cooked_size(
    buf: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    caplen: cython.Py_ssize_t,
    kind: cython.uint,
) -> cython.Py_ssize_t:
    """Bytes of the cooked header before a vsock frame; 0 if what follows is none."""
    if kind == _KIND_SLL2 and caplen >= _SLL2_SIZE:
        if _u16(buf, at + _SLL2_ARPHRD_AT, True) == _ARPHRD:
            return _SLL2_SIZE
    elif kind == _KIND_SLL and caplen >= _SLL_SIZE:
        if _u16(buf, at + _SLL_ARPHRD_AT, True) == _ARPHRD:
            return _SLL_SIZE
    return 0


@cython.cclass
class Scanner:
    """Fills the rows of one packet array, which it keeps for its life.

    `rows` is an array of PACKET_DTYPE.  The scan methods fill it from its first row on and
    return (position of the next record, rows filled, status).
    """

    raw: cython.uchar[::1]
    capacity: cython.Py_ssize_t
    # One entry per interface: what its link type is, and its ticks as nanoseconds.
    interfaces: cython.Py_ssize_t
    kinds: cython.uchar[:]
    shift: cython.uchar[:]
    snaplens: cython.uint[:]
    multiply: cython.ulonglong[:]
    divide: cython.ulonglong[:]
    offsets: cython.ulonglong[:]

    def __init__(self, rows) -> None:
        self.raw = memoryview(rows.view("u1"))
        self.capacity = len(rows)
        self.interfaces = 0

    def set_interfaces(self, table) -> None:
        """Use `table`, an array of INTERFACE_DTYPE with one row per interface, from now on."""
        self.kinds = memoryview(table["kind"])
        self.shift = memoryview(table["shift"])
        self.snaplens = memoryview(table["snaplen"])
        self.multiply = memoryview(table["multiply"])
        self.divide = memoryview(table["divide"])
        self.offsets = memoryview(table["offset_ns"])
        self.interfaces = len(table)

    def pcap(
        self,
        buf: cython.const[cython.uchar][::1],
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        base: cython.ulonglong,
        number: cython.ulonglong,
        big: cython.bint,
        header: cython.Py_ssize_t,
    ):
        """pcap records in buf[pos:end]: `header` bytes of record header each, at least 16.

        `base` is the file offset of buf[0], `number` that of the first packet.  Interface 0
        gives the unit of the fraction.
        """
        if not (0 <= pos <= end <= len(buf) and header >= 16 and self.interfaces):
            raise ValueError("pcap scan out of bounds")
        row: cython.Py_ssize_t = 0
        caplen: cython.uint
        seconds: cython.ulonglong
        fraction: cython.ulonglong
        time_ns: cython.ulonglong
        to: cython.Py_ssize_t
        unit: cython.ulonglong = self.multiply[0]
        kind: cython.uint = self.kinds[0]
        while row < self.capacity:
            if end - pos < header:
                return pos, row, NEED_MORE
            caplen = _u32(buf, pos + 8, big)
            if caplen > _CAPLEN_LIMIT:
                return pos, row, DAMAGED
            if end - pos - header < caplen:
                return pos, row, NEED_MORE
            seconds = _u32(buf, pos, big)
            fraction = _u32(buf, pos + 4, big)
            to = row * _ITEM
            time_ns = seconds * 1000000000 + fraction * unit
            self._record(to, number + row, base, pos, header + caplen, 0, time_ns)
            self.raw[to + _OPTIONS] = 0
            self._packet(to, buf, pos + header, caplen, _u32(buf, pos + 12, big), kind)
            pos += header + caplen
            row += 1
        return pos, row, FULL

    def pcapng(
        self,
        buf: cython.const[cython.uchar][::1],
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        base: cython.ulonglong,
        number: cython.ulonglong,
        big: cython.bint,
        first_interface: cython.ulonglong,
    ):
        """pcapng blocks in buf[pos:end], up to one that is not a packet.

        `base` is the file offset of buf[0], `number` that of the first packet, and
        `first_interface` the index of the current section's interface 0 in the table.
        """
        if not 0 <= pos <= end <= len(buf):
            raise ValueError("pcapng scan out of bounds")
        row: cython.Py_ssize_t = 0
        to: cython.Py_ssize_t
        kind: cython.uint
        size: cython.uint
        before: cython.uint  # bytes of the block before the packet data
        caplen: cython.uint
        wirelen: cython.uint
        interface: cython.ulonglong
        time_ns: cython.ulonglong
        while row < self.capacity:
            if end - pos < 12:
                return pos, row, NEED_MORE
            kind = _u32(buf, pos, big)
            if kind != _ENHANCED_PACKET and kind != _SIMPLE_PACKET and kind != _PACKET:
                return pos, row, OTHER_BLOCK
            before = 12 if kind == _SIMPLE_PACKET else 28
            size = _u32(buf, pos + 4, big)
            if size > _BLOCK_LIMIT or size & 3 or size < before + 4:
                return pos, row, DAMAGED
            if end - pos < size:
                return pos, row, NEED_MORE
            if _u32(buf, pos + size - 4, big) != size:
                return pos, row, DAMAGED
            if kind == _SIMPLE_PACKET:
                interface = first_interface
            elif kind == _ENHANCED_PACKET:
                interface = first_interface + _u32(buf, pos + 8, big)
            else:
                interface = first_interface + _u16(buf, pos + 8, big)
            if interface >= cython.cast(cython.ulonglong, self.interfaces):
                return pos, row, DAMAGED
            if kind == _SIMPLE_PACKET:
                wirelen = _u32(buf, pos + 8, big)
                caplen = self._simple_caplen(interface, wirelen, size - 16)
                time_ns = _NO_TIMESTAMP
            else:
                wirelen = _u32(buf, pos + 24, big)
                caplen = _u32(buf, pos + 20, big)
                time_ns = self._nanoseconds(
                    interface, _u32(buf, pos + 12, big), _u32(buf, pos + 16, big)
                )
            if caplen > size - before - 4 or caplen > _CAPLEN_LIMIT:
                return pos, row, DAMAGED
            to = row * _ITEM
            self._record(to, number + row, base, pos, size, interface, time_ns)
            self.raw[to + _OPTIONS] = (
                kind != _SIMPLE_PACKET and size - before - 4 > ((caplen + 3) & ~3)
            )
            self._packet(to, buf, pos + before, caplen, wirelen, self.kinds[interface])
            pos += size
            row += 1
        return pos, row, FULL

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _simple_caplen(
        self, interface: cython.Py_ssize_t, wirelen: cython.uint, room: cython.uint
    ) -> cython.uint:
        """Captured bytes of a simple packet, which has no field for them.

        The least of the packet's length, the interface's snaplen and the block's room.
        """
        caplen: cython.uint = room
        if caplen > wirelen:
            caplen = wirelen
        if self.snaplens[interface] and caplen > self.snaplens[interface]:
            caplen = self.snaplens[interface]
        return caplen

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _nanoseconds(
        self, interface: cython.Py_ssize_t, high: cython.ulonglong, low: cython.ulonglong
    ) -> cython.ulonglong:
        """Ticks of an interface in nanoseconds since 1970, rounded down, mod 2^64.

        With a resolution of 2^-s (s in `shift`) whole seconds and fraction go apart, and
        the fraction of s > 32 bits in two steps, since fraction times 10^9 passes 64 bits.
        """
        ticks: cython.ulonglong = high << 32 | low
        shift: cython.uint = self.shift[interface]
        whole: cython.ulonglong = 0
        part: cython.ulonglong = ticks
        if shift == 0:
            if self.divide[interface] != 1:
                ticks //= self.divide[interface]
            return ticks * self.multiply[interface] + self.offsets[interface]
        if shift < 64:
            whole = ticks >> shift
            part = ticks & ((cython.cast(cython.ulonglong, 1) << shift) - 1)
        if shift <= 32:
            part = part * 1000000000 >> shift
        else:
            part = (part >> 32) * 1000000000 + ((part & 0xFFFFFFFF) * 1000000000 >> 32)
            part = 0 if shift > 95 else part >> (shift - 32)
        return whole * 1000000000 + part + self.offsets[interface]

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _record(
        self,
        to: cython.Py_ssize_t,
        number: cython.ulonglong,
        base: cython.ulonglong,
        pos: cython.Py_ssize_t,
        size: cython.Py_ssize_t,
        interface: cython.uint,
        time_ns: cython.ulonglong,
    ) -> cython.void:
        """The columns that the record header gives; `to` is where the row begins."""
        _put64(self.raw, to + _NUMBER, number)
        _put64(self.raw, to + _TIME_NS, time_ns)
        _put64(self.raw, to + _RECORD_OFFSET, base + pos)
        _put32(self.raw, to + _RECORD_AT, pos)
        _put32(self.raw, to + _RECORD_LEN, size)
        _put32(self.raw, to + _INTERFACE, interface)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _packet(
        self,
        to: cython.Py_ssize_t,
        buf: cython.const[cython.uchar][::1],
        at: cython.Py_ssize_t,
        caplen: cython.Py_ssize_t,
        wirelen: cython.Py_ssize_t,
        kind: cython.uint,
    ) -> cython.void:
        """One captured packet: strip a cooked header, then decode the vsock frame."""
        skip: cython.Py_ssize_t = 0
        ifindex: cython.uint = 0
        foreign: cython.bint = False
        _put32(self.raw, to + _PACKET_AT, at)
        _put32(self.raw, to + _CAPLEN, caplen)
        _put32(self.raw, to + _WIRELEN, wirelen)
        if wirelen < caplen:
            wirelen = caplen
        if kind != _KIND_VSOCK:
            skip = _cooked_size(buf, at, caplen, kind)
            foreign = skip == 0
            if skip == _SLL2_SIZE:
                ifindex = _u32(buf, at + _SLL2_IFINDEX_AT, True)
        _put32(self.raw, to + _IFINDEX, ifindex)
        self.raw[to + _LINK_SIZE] = skip
        if foreign:
            self._undecoded(to, at + caplen, _FOREIGN)
        else:
            self._frame(to, buf, at + skip, caplen - skip, wirelen - skip)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _frame(
        self,
        to: cython.Py_ssize_t,
        buf: cython.const[cython.uchar][::1],
        at: cython.Py_ssize_t,
        have: cython.Py_ssize_t,
        whole: cython.Py_ssize_t,
    ) -> cython.void:
        """Decode a vsockmon frame of `whole` bytes, of which `have` were captured.

        The transport header is skipped by the length that the monitor header gives.
        """
        if have < _MON:
            self._undecoded(to, at + have, _CUT_MONITOR if whole >= _MON else _SHORT_MONITOR)
            return
        transport: cython.Py_ssize_t = _u16(buf, at + _LEN_AT, False)
        before: cython.Py_ssize_t = _MON + transport
        layers: cython.uchar = _MONITOR_LAYER
        malformed: cython.uchar = _WELL_FORMED
        if whole < before:
            malformed = _SHORT_TRANSPORT
        elif have < before:
            malformed = _CUT_TRANSPORT
        if _u16(buf, at + _T_AT, False) == _T_VIRTIO:
            if transport < _VIRTIO:
                malformed = _TRANSPORT_LENGTH
            elif have >= _BOTH:
                layers = _VIRTIO_LAYER
        if have < before:
            self._payload(to, at + have, 0, whole - before if whole > before else 0)
        else:
            self._payload(to, at + before, have - before, whole - before)
        self._state(to, layers, malformed)
        self._copy(to + _HEADERS, buf, at, layers == _VIRTIO_LAYER)
        if layers != _VIRTIO_LAYER:
            self._clear(to + _HEADERS + _MON, _VIRTIO)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _undecoded(
        self, to: cython.Py_ssize_t, at: cython.Py_ssize_t, why: cython.uchar
    ) -> cython.void:
        """The columns of a packet without layers, which ends at `at`."""
        self._state(to, _NO_LAYER, why)
        self._payload(to, at, 0, 0)
        self._clear(to + _HEADERS, _BOTH)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _state(
        self, to: cython.Py_ssize_t, layers: cython.uchar, malformed: cython.uchar
    ) -> cython.void:
        """How far decoding came, and why not further."""
        self.raw[to + _LAYERS] = layers
        self.raw[to + _MALFORMED] = malformed

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _payload(
        self,
        to: cython.Py_ssize_t,
        at: cython.Py_ssize_t,
        captured: cython.Py_ssize_t,
        whole: cython.Py_ssize_t,
    ) -> cython.void:
        """Where the payload is, and how much of it was captured and sent."""
        _put32(self.raw, to + _PAYLOAD_AT, at)
        _put32(self.raw, to + _PAYLOAD_CAP, captured)
        _put32(self.raw, to + _PAYLOAD_WIRE, whole)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _copy(
        self,
        to: cython.Py_ssize_t,
        buf: cython.const[cython.uchar][::1],
        at: cython.Py_ssize_t,
        both: cython.bint,
    ) -> cython.void:
        """Both headers, or only the monitor header, become header columns as they are."""
        if not cython.compiled:
            size = _BOTH if both else _MON
            self.raw[to : to + size] = buf[at : at + size]
        elif both:  # constant sizes make the copies a few moves
            memcpy(cython.address(self.raw[to]), cython.address(buf[at]), 76)  # noqa: F821
        else:
            memcpy(cython.address(self.raw[to]), cython.address(buf[at]), 32)  # noqa: F821

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _clear(self, to: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.void:
        """Zero header columns that a packet does not have."""
        if cython.compiled:
            memset(cython.address(self.raw[to]), 0, size)  # noqa: F821
        else:
            self.raw[to : to + size] = bytes(size)
