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

import cython

from vsockdump import wire
from vsockdump.batch import NO_TIME as _NO_TIME
from vsockdump.batch import PACKET_DTYPE, Layers, LinkKind
from vsockdump.batch import Malformed as _M

# Why a scan stopped.
NEED_MORE = 0  # the buffer ends inside the next record
FULL = 1  # no row is left
OTHER_BLOCK = 2  # a pcapng block that is not a packet stands next
DAMAGED = 3  # the next record cannot be one

MAX_CAPLEN = 262144  # libpcap's MAXIMUM_SNAPLEN: a longer record is damage
MAX_BLOCK = 1 << 24  # a longer pcapng block is damage

_ITEM = cython.declare(cython.Py_ssize_t, PACKET_DTYPE.itemsize)
_HEADERS_AT = cython.declare(cython.Py_ssize_t, PACKET_DTYPE.fields[wire.VSOCKMON.name][1])
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
_KIND_VSOCK = cython.declare(cython.int, int(LinkKind.VSOCK))
_KIND_SLL = cython.declare(cython.int, int(LinkKind.SLL))
_KIND_SLL2 = cython.declare(cython.int, int(LinkKind.SLL2))
_MONITOR = cython.declare(cython.uchar, int(Layers.MONITOR))
_BOTH_LAYERS = cython.declare(cython.uchar, int(Layers.VIRTIO))
_FOREIGN = cython.declare(cython.uchar, int(_M.FOREIGN))
_SHORT_MONITOR = cython.declare(cython.uchar, int(_M.SHORT_MONITOR))
_CUT_MONITOR = cython.declare(cython.uchar, int(_M.CUT_MONITOR))
_TRANSPORT_LENGTH = cython.declare(cython.uchar, int(_M.TRANSPORT_LENGTH))
_SHORT_TRANSPORT = cython.declare(cython.uchar, int(_M.SHORT_TRANSPORT))
_CUT_TRANSPORT = cython.declare(cython.uchar, int(_M.CUT_TRANSPORT))
_NO_TIMESTAMP = cython.declare(cython.longlong, _NO_TIME)
_CAPLEN_LIMIT = cython.declare(cython.uint, MAX_CAPLEN)
_BLOCK_LIMIT = cython.declare(cython.uint, MAX_BLOCK)

_SIMPLE_PACKET = 3  # pcapng block types that hold a packet; the same in either byte order
_ENHANCED_PACKET = 6
_PACKET = 2  # obsolete, but still found


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
def _signed(value: cython.ulonglong) -> cython.longlong:
    """The two's complement reading of 64 bits: a damaged time stamp is odd, not an error."""
    if cython.compiled:
        return cython.cast(cython.longlong, value)
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >> 63 else value


@cython.cclass
class Scanner:
    """Fills the rows of one packet array, which it keeps for its life.

    `rows` is an array of PACKET_DTYPE.  The scan methods take the buffer, where to start
    and end in it, the row to fill first and the number of the next packet, and return
    (position of the next record, next row, status).
    """

    raw: cython.uchar[::1]
    capacity: cython.Py_ssize_t
    number: cython.ulonglong[:]
    time_ns: cython.longlong[:]
    record_offset: cython.ulonglong[:]
    record_at: cython.uint[:]
    record_len: cython.uint[:]
    packet_at: cython.uint[:]
    caplen: cython.uint[:]
    wirelen: cython.uint[:]
    interface: cython.uint[:]
    ifindex: cython.uint[:]
    payload_at: cython.uint[:]
    payload_cap: cython.uint[:]
    payload_wire: cython.uint[:]
    link_size: cython.uchar[:]
    options: cython.uchar[:]
    layers: cython.uchar[:]
    malformed: cython.uchar[:]
    # One entry per interface: what its link type is, and its ticks as nanoseconds.
    kinds: cython.uchar[::1]
    snaplens: cython.uint[::1]
    multiply: cython.ulonglong[::1]
    divide: cython.ulonglong[::1]
    shift: cython.uchar[::1]
    offsets: cython.longlong[::1]
    interfaces: cython.Py_ssize_t

    def __init__(self, rows) -> None:
        self.raw = memoryview(rows.view("u1"))
        self.capacity = len(rows)
        self.number = memoryview(rows["number"])
        self.time_ns = memoryview(rows["time_ns"])
        self.record_offset = memoryview(rows["record_offset"])
        self.record_at = memoryview(rows["record_at"])
        self.record_len = memoryview(rows["record_len"])
        self.packet_at = memoryview(rows["packet_at"])
        self.caplen = memoryview(rows["caplen"])
        self.wirelen = memoryview(rows["wirelen"])
        self.interface = memoryview(rows["interface"])
        self.ifindex = memoryview(rows["ifindex"])
        self.payload_at = memoryview(rows["payload_at"])
        self.payload_cap = memoryview(rows["payload_cap"])
        self.payload_wire = memoryview(rows["payload_wire"])
        self.link_size = memoryview(rows["link_size"])
        self.options = memoryview(rows["options"])
        self.layers = memoryview(rows["layers"])
        self.malformed = memoryview(rows["malformed"])
        self.interfaces = 0

    def set_interfaces(self, table) -> None:
        """Take the interface table: an array of INTERFACE_DTYPE, one row per interface."""
        self.kinds = memoryview(table["kind"].copy())
        self.snaplens = memoryview(table["snaplen"].copy())
        self.multiply = memoryview(table["multiply"].copy())
        self.divide = memoryview(table["divide"].copy())
        self.shift = memoryview(table["shift"].copy())
        self.offsets = memoryview(table["offset_ns"].copy())
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
        """pcap records: `header` bytes of record header each (16; 24 in the modified format).

        `base` is the file offset of buf[0].  Interface 0 gives the unit of the fraction.
        """
        row: cython.Py_ssize_t = 0
        seconds: cython.ulonglong
        fraction: cython.ulonglong
        caplen: cython.uint
        unit: cython.ulonglong = self.multiply[0]
        offset: cython.longlong = self.offsets[0]
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
            self.time_ns[row] = _signed(seconds * 1000000000 + fraction * unit) + offset
            self.number[row] = number
            self.record_offset[row] = base + pos
            self.record_at[row] = pos
            self.record_len[row] = header + caplen
            self.interface[row] = 0
            self.options[row] = 0
            self._packet(row, buf, pos + header, caplen, _u32(buf, pos + 12, big), self.kinds[0])
            pos += header + caplen
            number += 1
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
        first_interface: cython.uint,
    ):
        """pcapng blocks up to one that is not a packet.

        `first_interface` is the index of the current section's interface 0 in the table.
        """
        row: cython.Py_ssize_t = 0
        kind: cython.uint
        size: cython.uint
        used: cython.uint
        caplen: cython.uint
        wirelen: cython.uint
        interface: cython.ulonglong
        data: cython.Py_ssize_t
        while row < self.capacity:
            if end - pos < 12:
                return pos, row, NEED_MORE
            kind = _u32(buf, pos, big)
            if kind != _ENHANCED_PACKET and kind != _SIMPLE_PACKET and kind != _PACKET:
                return pos, row, OTHER_BLOCK
            size = _u32(buf, pos + 4, big)
            if size > _BLOCK_LIMIT or size & 3 or size < (16 if kind == _SIMPLE_PACKET else 32):
                return pos, row, DAMAGED
            if end - pos < size:
                return pos, row, NEED_MORE
            if _u32(buf, pos + size - 4, big) != size:
                return pos, row, DAMAGED
            if kind == _SIMPLE_PACKET:
                interface = first_interface
                data = pos + 12
                wirelen = _u32(buf, pos + 8, big)
                caplen = size - 16
            else:
                if kind == _ENHANCED_PACKET:
                    interface = _u32(buf, pos + 8, big)
                else:
                    interface = _u16(buf, pos + 8, big)
                interface += first_interface
                data = pos + 28
                caplen = _u32(buf, pos + 20, big)
                wirelen = _u32(buf, pos + 24, big)
            if interface >= cython.cast(cython.ulonglong, self.interfaces):
                return pos, row, DAMAGED
            if kind == _SIMPLE_PACKET:
                if caplen > wirelen:
                    caplen = wirelen
                if self.snaplens[interface] and caplen > self.snaplens[interface]:
                    caplen = self.snaplens[interface]
                self.time_ns[row] = _NO_TIMESTAMP
                self.options[row] = 0
            else:
                if caplen > size - 32 or caplen > _CAPLEN_LIMIT:
                    return pos, row, DAMAGED
                used = 32 + ((caplen + 3) & ~3)
                self.options[row] = 1 if size > used else 0
                self.time_ns[row] = self._nanoseconds(
                    interface, _u32(buf, pos + 12, big), _u32(buf, pos + 16, big)
                )
            self.number[row] = number
            self.record_offset[row] = base + pos
            self.record_at[row] = pos
            self.record_len[row] = size
            self.interface[row] = interface
            self._packet(row, buf, data, caplen, wirelen, self.kinds[interface])
            pos += size
            number += 1
            row += 1
        return pos, row, FULL

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _nanoseconds(
        self, interface: cython.Py_ssize_t, high: cython.ulonglong, low: cython.ulonglong
    ) -> cython.longlong:
        """Ticks of an interface since 1970 in nanoseconds, rounded down.

        With a resolution of 2^-s (s in `shift`) whole seconds and fraction go apart, and
        the fraction of s > 32 bits in two steps, since fraction times 10^9 passes 64 bits.
        """
        ticks: cython.ulonglong = high << 32 | low
        shift: cython.uint = self.shift[interface]
        whole: cython.ulonglong
        part: cython.ulonglong
        if shift == 0:
            whole = ticks // self.divide[interface] * self.multiply[interface]
            return _signed(whole) + self.offsets[interface]
        if shift > 63:
            whole = 0
            part = ticks
        else:
            whole = ticks >> shift
            part = ticks & ((cython.cast(cython.ulonglong, 1) << shift) - 1)
        if shift <= 32:
            part = part * 1000000000 >> shift
        else:
            part = (part >> 32) * 1000000000 + ((part & 0xFFFFFFFF) * 1000000000 >> 32)
            part = 0 if shift > 95 else part >> (shift - 32)
        return _signed(whole * 1000000000 + part) + self.offsets[interface]

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _packet(
        self,
        row: cython.Py_ssize_t,
        buf: cython.const[cython.uchar][::1],
        at: cython.Py_ssize_t,
        caplen: cython.Py_ssize_t,
        wirelen: cython.Py_ssize_t,
        kind: cython.int,
    ) -> cython.void:
        """One captured packet: strip a cooked header, then decode the vsock frame."""
        skip: cython.Py_ssize_t = 0
        self.packet_at[row] = at
        self.caplen[row] = caplen
        self.wirelen[row] = wirelen
        self.ifindex[row] = 0
        if wirelen < caplen:
            wirelen = caplen
        if kind != _KIND_VSOCK:
            if kind == _KIND_SLL2 and caplen >= _SLL2_SIZE:
                if _u16(buf, at + _SLL2_ARPHRD_AT, True) == _ARPHRD:
                    skip = _SLL2_SIZE
                    self.ifindex[row] = _u32(buf, at + _SLL2_IFINDEX_AT, True)
            elif kind == _KIND_SLL and caplen >= _SLL_SIZE:
                if _u16(buf, at + _SLL_ARPHRD_AT, True) == _ARPHRD:
                    skip = _SLL_SIZE
            if skip == 0:
                self._undecoded(row, at + caplen, _FOREIGN)
                self.link_size[row] = 0
                return
        self.link_size[row] = skip
        self._frame(row, buf, at + skip, caplen - skip, wirelen - skip)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _frame(
        self,
        row: cython.Py_ssize_t,
        buf: cython.const[cython.uchar][::1],
        at: cython.Py_ssize_t,
        have: cython.Py_ssize_t,
        whole: cython.Py_ssize_t,
    ) -> cython.void:
        """Decode a vsockmon frame of `whole` bytes, of which `have` were captured.

        The transport header is skipped by the length that the monitor header gives.
        """
        transport: cython.Py_ssize_t
        if have < _MON:
            self._undecoded(row, at + have, _CUT_MONITOR if whole >= _MON else _SHORT_MONITOR)
            return
        transport = _u16(buf, at + _LEN_AT, False)
        self.malformed[row] = 0
        self.payload_cap[row] = have - _MON - transport if have > _MON + transport else 0
        self.payload_wire[row] = whole - _MON - transport if whole > _MON + transport else 0
        self.payload_at[row] = at + (_MON + transport if have > _MON + transport else have)
        if _u16(buf, at + _T_AT, False) == _T_VIRTIO:
            if transport >= _VIRTIO and have >= _BOTH:
                self._copy_headers(row, buf, at, _BOTH)
                self.layers[row] = _BOTH_LAYERS
            else:
                self._copy_headers(row, buf, at, _MON)
                self.layers[row] = _MONITOR
                if transport < _VIRTIO:
                    self.malformed[row] = _TRANSPORT_LENGTH
                    return
        else:
            self._copy_headers(row, buf, at, _MON)
            self.layers[row] = _MONITOR
        if whole < _MON + transport:
            self.malformed[row] = _SHORT_TRANSPORT
        elif have < _MON + transport:
            self.malformed[row] = _CUT_TRANSPORT

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _undecoded(
        self, row: cython.Py_ssize_t, at: cython.Py_ssize_t, why: cython.uchar
    ) -> cython.void:
        """A row without layers."""
        self.layers[row] = 0
        self.malformed[row] = why
        self.payload_at[row] = at
        self.payload_cap[row] = 0
        self.payload_wire[row] = 0
        self._clear_headers(row, 0)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _copy_headers(
        self,
        row: cython.Py_ssize_t,
        buf: cython.const[cython.uchar][::1],
        at: cython.Py_ssize_t,
        size: cython.Py_ssize_t,
    ) -> cython.void:
        """The first `size` bytes of the frame become header columns; the rest is zeroed."""
        to: cython.Py_ssize_t = row * _ITEM + _HEADERS_AT
        if cython.compiled:
            if size == 76:  # a constant size makes the copy a few moves
                memcpy(cython.address(self.raw[to]), cython.address(buf[at]), 76)  # noqa: F821
            else:
                memcpy(cython.address(self.raw[to]), cython.address(buf[at]), size)  # noqa: F821
        else:
            self.raw[to : to + size] = buf[at : at + size]
        if size < _BOTH:
            self._clear_headers(row, size)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    def _clear_headers(self, row: cython.Py_ssize_t, kept: cython.Py_ssize_t) -> cython.void:
        """Zero the header columns behind the first `kept` bytes."""
        to: cython.Py_ssize_t = row * _ITEM + _HEADERS_AT + kept
        if cython.compiled:
            memset(cython.address(self.raw[to]), 0, _BOTH - kept)  # noqa: F821
        else:
            self.raw[to : to + _BOTH - kept] = bytes(_BOTH - kept)
