# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The record scanner: bytes of a capture become rows of a batch.

This is one of the compiled hot loops, written in Cython's pure Python mode: the same file
runs as ordinary Python where no compiler was at hand.  It walks pcap records and pcapng
packet blocks and the frames of a packet socket's ring, converts the time stamp, finds the
vsock frame and copies its two headers into the row, whose header columns have the layout
of the wire.

Rules for editors: every access to captured bytes stands behind a length check of that
record, and nothing here allocates or raises: what is wrong with a record is its status,
what is wrong with a packet is its malformed code.  Captured bytes and rows are pointers
when compiled, a memoryview and a _PythonRow when not; there C's wrap-around is written out
with masks.  Integer literals above 31 bits make Cython compute with Python objects: give
them a C name.  Everything that is not a packet (pcapng's other blocks) goes back to
Python: see pcapng.py.

Layouts: pcap is draft-ietf-opsawg-pcap, pcapng is draft-ietf-opsawg-pcapng, the ring is
that of include/uapi/linux/if_packet.h, TPACKET_V3.
"""

from __future__ import annotations

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

PLAIN_COLUMNS = [name for name in PACKET_DTYPE.names if PACKET_DTYPE[name].names is None]

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
_NEED_MORE = cython.declare(cython.int, NEED_MORE)
_FULL = cython.declare(cython.int, FULL)
_OTHER_BLOCK = cython.declare(cython.int, OTHER_BLOCK)
_DAMAGED = cython.declare(cython.int, DAMAGED)
_NO_TIMESTAMP = cython.declare(cython.ulonglong, NO_TIME % 2**64)
_SECOND = cython.declare(cython.ulonglong, 10**9)
_LOW_WORD = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_CAPLEN_LIMIT = cython.declare(cython.uint, MAX_CAPLEN)
_BLOCK_LIMIT = cython.declare(cython.uint, MAX_BLOCK)

# The pcapng blocks that hold a packet.
_PACKET = cython.declare(cython.uint, 2)  # obsolete, but still found
_SIMPLE_PACKET = cython.declare(cython.uint, 3)
_ENHANCED_PACKET = cython.declare(cython.uint, 6)

# A ring's frame: struct tpacket3_hdr, and struct sockaddr_ll at the next multiple of 16.
_RING_SEC_AT = cython.declare(cython.Py_ssize_t, 4)
_RING_NSEC_AT = cython.declare(cython.Py_ssize_t, 8)
_RING_CAPLEN_AT = cython.declare(cython.Py_ssize_t, 12)
_RING_WIRELEN_AT = cython.declare(cython.Py_ssize_t, 16)
_RING_PACKET_AT = cython.declare(cython.Py_ssize_t, 24)  # tp_mac: where the packet begins
_RING_ARPHRD_AT = cython.declare(cython.Py_ssize_t, 48 + 8)
_RING_HEADERS = cython.declare(cython.Py_ssize_t, 48 + 20)

# C's view of a row: the fields and layout of PACKET_DTYPE, the headers as bytes.  A test
# compares what both builds write.  C finds offsets and sizes here, at compile time.
Row = cython.struct(
    number=cython.ulonglong,
    time_ns=cython.longlong,
    record_offset=cython.ulonglong,
    record_at=cython.uint,
    record_len=cython.uint,
    packet_at=cython.uint,
    caplen=cython.uint,
    wirelen=cython.uint,
    interface=cython.uint,
    ifindex=cython.uint,
    payload_at=cython.uint,
    payload_cap=cython.uint,
    payload_wire=cython.uint,
    link_size=cython.uchar,
    options=cython.uchar,
    layers=cython.uchar,
    malformed=cython.uchar,
    gap=cython.uint,
    monitor=cython.uchar[32],
    virtio=cython.uchar[44],
)


class _PythonRow:
    """What a Row pointer is when not compiled: the columns of a row as attributes."""

    def __init__(self, rows) -> None:
        columns = {name: memoryview(rows[name]) for name in PLAIN_COLUMNS}
        self.__dict__.update(_columns=columns, _raw=memoryview(rows.view("u1")), _index=0)

    def __setattr__(self, name: str, value: int) -> None:
        self._columns[name][self._index] = value

    def at(self, index: int) -> _PythonRow:
        """The same object, now standing for another row."""
        self.__dict__["_index"] = index
        return self

    def put_headers(self, data: memoryview) -> None:
        """Fill the header columns with `data` and zeros behind it."""
        to = self._index * PACKET_DTYPE.itemsize + PACKET_DTYPE.fields[wire.VSOCKMON.name][1]
        self._raw[to : to + wire.HEADERS_SIZE] = bytes(data).ljust(wire.HEADERS_SIZE, b"\0")


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _u16(data: cython.p_const_uchar, at: cython.Py_ssize_t, big: cython.bint) -> cython.uint:
    """Unsigned 16 bits in the given byte order."""
    if big:
        return data[at] << 8 | data[at + 1]
    return data[at] | data[at + 1] << 8


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _u32(data: cython.p_const_uchar, at: cython.Py_ssize_t, big: cython.bint) -> cython.uint:
    """Unsigned 32 bits in the given byte order."""
    if not cython.compiled:
        return int.from_bytes(data[at : at + 4], "big" if big else "little")
    b0: cython.uint = data[at]
    b1: cython.uint = data[at + 1]
    b2: cython.uint = data[at + 2]
    b3: cython.uint = data[at + 3]
    if big:
        return b0 << 24 | b1 << 16 | b2 << 8 | b3
    return b0 | b1 << 8 | b2 << 16 | b3 << 24


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _signed(value: cython.ulonglong) -> cython.longlong:
    """64 bits as two's complement: a damaged time stamp gives an odd time, no error."""
    if cython.compiled:
        return cython.cast(cython.longlong, value)
    else:
        value &= 0xFFFFFFFFFFFFFFFF
        return value - (1 << 64) if value >> 63 else value


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _put_record(
    row: cython.pointer(Row),
    number: cython.ulonglong,
    time_ns: cython.ulonglong,
    base: cython.longlong,
    pos: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    interface: cython.uint,
    options: cython.bint,
) -> cython.void:
    """The columns that come from the record around the packet."""
    row.number = number
    row.time_ns = _signed(time_ns)
    row.record_offset = base + pos
    row.record_at = pos
    row.record_len = size
    row.interface = interface
    row.options = options


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _put_payload(
    row: cython.pointer(Row),
    at: cython.Py_ssize_t,
    captured: cython.Py_ssize_t,
    whole: cython.Py_ssize_t,
) -> cython.void:
    """Where the payload is, and how much of it was captured and sent."""
    row.payload_at = at
    row.payload_cap = captured
    row.payload_wire = whole


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _put_headers(
    row: cython.pointer(Row),
    data: cython.p_const_uchar,
    at: cython.Py_ssize_t,
    layers: cython.uchar,
    malformed: cython.uchar,
) -> cython.void:
    """The headers of `layers` become header columns as they are, the others are zeroed."""
    row.layers = layers
    row.malformed = malformed
    if not cython.compiled:
        row.put_headers(data[at : at + (0, _MON, _BOTH)[layers]])
        return
    if layers == _VIRTIO_LAYER:
        memcpy(row.monitor, data + at, cython.sizeof(row.monitor))
        memcpy(row.virtio, data + at + cython.sizeof(row.monitor), cython.sizeof(row.virtio))
        return
    memset(row.monitor, 0, cython.sizeof(row.monitor))
    memset(row.virtio, 0, cython.sizeof(row.virtio))
    if layers == _MONITOR_LAYER:
        memcpy(row.monitor, data + at, cython.sizeof(row.monitor))


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _cooked_size(
    data: cython.p_const_uchar,
    at: cython.Py_ssize_t,
    caplen: cython.Py_ssize_t,
    kind: cython.uint,
) -> cython.Py_ssize_t:
    """Bytes of the cooked header before a vsock frame; 0 if what follows is none."""
    if kind == _KIND_SLL2 and caplen >= _SLL2_SIZE:
        if _u16(data, at + _SLL2_ARPHRD_AT, True) == _ARPHRD:
            return _SLL2_SIZE
    elif kind == _KIND_SLL and caplen >= _SLL_SIZE:
        if _u16(data, at + _SLL_ARPHRD_AT, True) == _ARPHRD:
            return _SLL_SIZE
    return 0


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _put_packet(
    row: cython.pointer(Row),
    data: cython.p_const_uchar,
    at: cython.Py_ssize_t,
    caplen: cython.Py_ssize_t,
    wirelen: cython.Py_ssize_t,
    kind: cython.uint,
) -> cython.void:
    """One captured packet: strip a cooked header, then decode the vsock frame."""
    skip: cython.Py_ssize_t = 0
    ifindex: cython.uint = 0
    if kind != _KIND_VSOCK:
        skip = _cooked_size(data, at, caplen, kind)
        if skip == _SLL2_SIZE:
            ifindex = _u32(data, at + _SLL2_IFINDEX_AT, True)
    row.packet_at = at
    row.caplen = caplen
    row.wirelen = wirelen
    row.ifindex = ifindex
    row.link_size = skip
    if kind != _KIND_VSOCK and skip == 0:
        _put_payload(row, at + caplen, 0, 0)
        _put_headers(row, data, at, _NO_LAYER, _FOREIGN)
    else:
        whole: cython.Py_ssize_t = wirelen if wirelen > caplen else caplen
        _put_frame(row, data, at + skip, caplen - skip, whole - skip)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _put_frame(
    row: cython.pointer(Row),
    data: cython.p_const_uchar,
    at: cython.Py_ssize_t,
    have: cython.Py_ssize_t,
    whole: cython.Py_ssize_t,
) -> cython.void:
    """Decode a vsockmon frame of `whole` bytes, of which `have` were captured.

    The transport header is skipped by the length that the monitor header gives.
    """
    transport: cython.Py_ssize_t
    before: cython.Py_ssize_t  # the payload
    layers: cython.uchar = _MONITOR_LAYER
    malformed: cython.uchar = _WELL_FORMED
    if have < _MON:
        malformed = _CUT_MONITOR if whole >= _MON else _SHORT_MONITOR
        _put_payload(row, at + have, 0, 0)
        _put_headers(row, data, at, _NO_LAYER, malformed)
        return
    transport = _u16(data, at + _LEN_AT, False)
    before = _MON + transport
    if whole < before:
        malformed = _SHORT_TRANSPORT
    elif have < before:
        malformed = _CUT_TRANSPORT
    if _u16(data, at + _T_AT, False) == _T_VIRTIO:
        if transport < _VIRTIO:
            malformed = _TRANSPORT_LENGTH
        elif have >= _BOTH:
            layers = _VIRTIO_LAYER
    if have >= before:
        _put_payload(row, at + before, have - before, whole - before)
    else:
        _put_payload(row, at + have, 0, whole - before if whole > before else 0)
    _put_headers(row, data, at, layers, malformed)


def done_reading() -> None:
    """Call before a block of a ring is given back: all reads of it come first.

    Python itself has no such order to give; there the interpreter's own work between two
    statements stands for it, which on x86 is enough by the processor's rules.
    """
    if cython.compiled:
        full_fence()


@cython.final  # so that its methods are inlined
@cython.cclass
class Scanner:
    """Fills the rows of one packet array, which it keeps for its life.

    `rows` is an array of PACKET_DTYPE.  The scan methods fill it from its first row on and
    return (position of the next record, rows filled, status).
    """

    raw: cython.uchar[::1]
    capacity: cython.Py_ssize_t
    python_row: object  # None when compiled
    # One entry per interface: what its link type is, and its ticks as nanoseconds.
    interfaces: cython.Py_ssize_t
    kinds: cython.uchar[:]
    shift: cython.uchar[:]
    snaplens: cython.uint[:]
    multiply: cython.ulonglong[:]
    divide: cython.ulonglong[:]
    offsets: cython.ulonglong[:]

    def __init__(self, rows) -> None:
        if cython.compiled and cython.sizeof(Row) != PACKET_DTYPE.itemsize:
            raise TypeError("scan.py was compiled for another PACKET_DTYPE")
        self.raw = memoryview(rows.view("u1"))
        self.python_row = None if cython.compiled else _PythonRow(rows)
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
        base: cython.longlong,
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
        wirelen: cython.uint
        seconds: cython.ulonglong
        fraction: cython.ulonglong
        time_ns: cython.ulonglong
        data: cython.p_const_uchar
        if cython.compiled:
            data = cython.address(buf[0])
        else:
            data = buf
        unit: cython.ulonglong = self.multiply[0]
        kind: cython.uint = self.kinds[0]
        status: cython.int = _FULL
        with cython.nogil:
            while row < self.capacity:
                if end - pos < header:
                    status = _NEED_MORE
                    break
                caplen = _u32(data, pos + 8, big)
                if caplen > _CAPLEN_LIMIT:
                    status = _DAMAGED
                    break
                if end - pos - header < caplen:
                    status = _NEED_MORE
                    break
                seconds = _u32(data, pos, big)
                fraction = _u32(data, pos + 4, big)
                time_ns = seconds * _SECOND + fraction * unit
                wirelen = _u32(data, pos + 12, big)
                out: cython.pointer(Row) = self._row(row)
                _put_record(out, number + row, time_ns, base, pos, header + caplen, 0, False)
                _put_packet(out, data, pos + header, caplen, wirelen, kind)
                pos += header + caplen
                row += 1
        return pos, row, status

    def pcapng(
        self,
        buf: cython.const[cython.uchar][::1],
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        base: cython.longlong,
        number: cython.ulonglong,
        big: cython.bint,
        first_interface: cython.ulonglong,
        row: cython.Py_ssize_t = 0,
    ):
        """pcapng blocks in buf[pos:end], up to one that is not a packet.

        `base` is the file offset of buf[0], `number` that of the first packet, and
        `first_interface` the index of the current section's interface 0 in the table.  Rows
        are filled from number `row` on, so that a batch can go on behind other blocks; then
        `number` is that of row 0.
        """
        if not (0 <= pos <= end <= len(buf) and 0 <= row <= self.capacity):
            raise ValueError("pcapng scan out of bounds")
        kind: cython.uint
        size: cython.uint
        before: cython.uint  # bytes of the block before the packet data
        caplen: cython.uint
        wirelen: cython.uint
        interface: cython.ulonglong
        time_ns: cython.ulonglong
        options: cython.bint
        data: cython.p_const_uchar
        if cython.compiled:
            data = cython.address(buf[0])
        else:
            data = buf
        status: cython.int = _FULL
        with cython.nogil:
            while row < self.capacity:
                if end - pos < 12:
                    status = _NEED_MORE
                    break
                kind = _u32(data, pos, big)
                if kind != _ENHANCED_PACKET and kind != _SIMPLE_PACKET and kind != _PACKET:
                    status = _OTHER_BLOCK
                    break
                before = 12 if kind == _SIMPLE_PACKET else 28
                size = _u32(data, pos + 4, big)
                if size > _BLOCK_LIMIT or size & 3 or size < before + 4:
                    status = _DAMAGED
                    break
                if end - pos < size:
                    status = _NEED_MORE
                    break
                if _u32(data, pos + size - 4, big) != size:
                    status = _DAMAGED
                    break
                if kind == _SIMPLE_PACKET:
                    interface = first_interface
                elif kind == _ENHANCED_PACKET:
                    interface = first_interface + _u32(data, pos + 8, big)
                else:
                    interface = first_interface + _u16(data, pos + 8, big)
                if interface >= cython.cast(cython.ulonglong, self.interfaces):
                    status = _DAMAGED
                    break
                if kind == _SIMPLE_PACKET:
                    wirelen = _u32(data, pos + 8, big)
                    caplen = self._simple_caplen(interface, wirelen, size - 16)
                    time_ns = _NO_TIMESTAMP
                else:
                    wirelen = _u32(data, pos + 24, big)
                    caplen = _u32(data, pos + 20, big)
                    time_ns = self._nanoseconds(
                        interface, _u32(data, pos + 12, big), _u32(data, pos + 16, big)
                    )
                if caplen > size - before - 4 or caplen > _CAPLEN_LIMIT:
                    status = _DAMAGED
                    break
                options = kind != _SIMPLE_PACKET and size - before - 4 > ((caplen + 3) & ~3)
                out: cython.pointer(Row) = self._row(row)
                _put_record(out, number + row, time_ns, base, pos, size, interface, options)
                _put_packet(out, data, pos + before, caplen, wirelen, self.kinds[interface])
                pos += size
                row += 1
        return pos, row, status

    def ring(
        self,
        buf: cython.const[cython.uchar][::1],
        pos: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        left: cython.Py_ssize_t,
        number: cython.ulonglong,
        row: cython.Py_ssize_t,
    ):
        """Frames of one block of a TPACKET_V3 ring: the `left` ones from buf[pos] up to buf[end].

        Rows are filled from number `row` on, so that several blocks can make one batch;
        `number` is that of the batch's first packet.  Returns (position of the next frame,
        rows filled in all, frames left, status); frames of other than vsockmon devices are
        passed over.  NEED_MORE: the block is done.
        """
        if not (0 <= pos <= end <= len(buf) and 0 <= row <= self.capacity):
            raise ValueError("ring scan out of bounds")
        step: cython.Py_ssize_t  # to the next frame
        at: cython.Py_ssize_t
        caplen: cython.Py_ssize_t
        time_ns: cython.ulonglong
        data: cython.p_const_uchar
        if cython.compiled:
            data = cython.address(buf[0])
            full_fence()  # the kernel wrote the block before its status, which was read
        else:
            data = buf
        status: cython.int = _FULL
        with cython.nogil:
            while row < self.capacity:
                if left <= 0:
                    status = _NEED_MORE
                    break
                if end - pos < _RING_HEADERS:
                    status = _DAMAGED
                    break
                at = _u16(data, pos + _RING_PACKET_AT, False)
                caplen = _u32(data, pos + _RING_CAPLEN_AT, False)
                step = _u32(data, pos, False) if left > 1 else at + caplen
                if at < _RING_HEADERS or caplen > _CAPLEN_LIMIT:
                    status = _DAMAGED
                    break
                if step < at + caplen or step > end - pos:
                    status = _DAMAGED
                    break
                if _u16(data, pos + _RING_ARPHRD_AT, False) == _ARPHRD:
                    time_ns = _u32(data, pos + _RING_SEC_AT, False)
                    time_ns = time_ns * _SECOND + _u32(data, pos + _RING_NSEC_AT, False)
                    out: cython.pointer(Row) = self._row(row)
                    _put_record(out, number + row, time_ns, 0, pos, step, 0, False)
                    _put_packet(
                        out,
                        data,
                        pos + at,
                        caplen,
                        _u32(data, pos + _RING_WIRELEN_AT, False),
                        _KIND_VSOCK,
                    )
                    row += 1
                pos += step
                left -= 1
        if left <= 0:
            status = _NEED_MORE
        return pos, row, left, status

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _row(self, index: cython.Py_ssize_t) -> cython.pointer(Row):
        """Where a row is stored."""
        if cython.compiled:
            return cython.cast(cython.pointer(Row), cython.address(self.raw[0])) + index
        else:
            return self.python_row.at(index)

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
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
    @cython.nogil
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
            part = part * _SECOND >> shift
        else:
            part = (part >> 32) * _SECOND + ((part & _LOW_WORD) * _SECOND >> 32)
            part = 0 if shift > 95 else part >> (shift - 32)
        return whole * _SECOND + part + self.offsets[interface]
