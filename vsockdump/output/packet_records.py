# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The record writer: rows and the packets they point to become records of a capture file.

Compiled, in Cython's pure Python mode as capture/scan.py, because a live capture is written
beside everything else that is done with it.  It fills one output buffer with whole records,
which the caller takes before it asks for more.

Rules for editors: room for a whole record is made sure of before it is written, and its
place in the input is checked, so that the writes themselves need no checks.  What stands in
a file besides packets is made in encoding.py.  Output is little-endian whatever the source
was; only copies stay as they are.
"""

from __future__ import annotations

from enum import IntEnum

import cython
import numpy as np

from vsockdump.batch import NO_TIME


class Form(IntEnum):
    """What a row becomes."""

    COPY = 0  # the record or block that it was read from
    PCAP = 1  # a pcap record with nanoseconds
    PCAPNG = 2  # an enhanced packet block without options


PCAP_AROUND = 16  # bytes of a record besides its packet
PCAPNG_AROUND = 32  # bytes of a block besides its packet and the padding to 4 bytes

_COPY = cython.declare(cython.int, int(Form.COPY))
_PCAP = cython.declare(cython.int, int(Form.PCAP))
_PCAPNG = cython.declare(cython.int, int(Form.PCAPNG))
_BEFORE = cython.declare(cython.Py_ssize_t[3], [0, 16, 28])  # bytes before the packet
_BEHIND = cython.declare(cython.Py_ssize_t[3], [0, 0, 4])
_BLOCK_TYPE = cython.declare(cython.uint, 6)
_NO_TIMESTAMP = cython.declare(cython.longlong, NO_TIME)
_BILLION = cython.declare(cython.longlong, 10**9)

_BUFFER = 1 << 18  # fits the second-level cache


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _put32(out: cython.p_uchar, at: cython.Py_ssize_t, value: cython.longlong) -> cython.void:
    """Store the low 32 bits; a compiler makes one move of it."""
    out[at] = value & 0xFF
    out[at + 1] = value >> 8 & 0xFF
    out[at + 2] = value >> 16 & 0xFF
    out[at + 3] = value >> 24 & 0xFF


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.nogil
def _floor(value: cython.longlong, unit: cython.longlong) -> cython.longlong:
    """value / unit, rounded down also for times before 1970, where C rounds up."""
    quotient: cython.longlong = value // unit
    if quotient * unit > value:
        quotient -= 1
    return quotient


@cython.cclass
class RecordWriter:
    """Writes rows of PACKET_DTYPE in one form, into one buffer that is used again."""

    form: cython.int
    out: cython.uchar[::1]
    units: cython.longlong[::1]
    all_units: object  # with room for more

    def __init__(self, form: int, size: int = _BUFFER) -> None:
        self.form = form
        self.out = memoryview(bytearray(size))
        self.set_units([1])

    def set_units(self, units) -> None:
        """The nanoseconds of a tick of each interface; rows are of these interfaces."""
        self.all_units = np.array(units, "i8")
        self.units = memoryview(self.all_units)

    def add_units(self, units) -> None:
        """Those of the interfaces that come next."""
        known: cython.Py_ssize_t = len(self.units)
        count: cython.Py_ssize_t = known + len(units)
        if count > len(self.all_units):
            self.all_units = np.concatenate((self.all_units, np.zeros(2 * count, "i8")))
        self.all_units[known:count] = units
        self.units = memoryview(self.all_units[:count])

    def write(
        self,
        rows,
        buffer: cython.const[cython.uchar][::1],
        start: cython.Py_ssize_t,
    ):
        """Write rows from `start` on; returns (next row, the records written).

        `buffer` is what the rows point into.  It stops early when the output buffer is
        full: take the records, which are valid until the next call, and call again.  A row
        that points outside `buffer`, or is of an unknown interface, raises ValueError.
        """
        copies: cython.bint = self.form == _COPY
        blocks: cython.bint = self.form == _PCAPNG
        ats: cython.const[cython.uint][:] = memoryview(rows["record_at" if copies else "packet_at"])
        sizes: cython.const[cython.uint][:] = memoryview(rows["record_len" if copies else "caplen"])
        times: cython.const[cython.longlong][:] = memoryview(rows["time_ns"])
        wirelens: cython.const[cython.uint][:] = memoryview(rows["wirelen"])
        interfaces: cython.const[cython.uint][:] = memoryview(rows["interface"])
        if start < len(rows):
            self._make_room(min(sizes[start], len(buffer)))
        data: cython.p_const_uchar
        out: cython.p_uchar
        if cython.compiled:
            data = cython.address(buffer[0])
            out = cython.address(self.out[0])
        else:
            data = buffer
            out = self.out
        before: cython.Py_ssize_t = _BEFORE[self.form]
        behind: cython.Py_ssize_t = _BEHIND[self.form]
        rounding: cython.Py_ssize_t = 3 if blocks else 0
        known: cython.Py_ssize_t = len(self.units)
        room: cython.Py_ssize_t = len(self.out)
        end: cython.Py_ssize_t = len(buffer)
        count: cython.Py_ssize_t = len(rows)
        row: cython.Py_ssize_t = start
        pos: cython.Py_ssize_t = 0
        at: cython.Py_ssize_t
        size: cython.Py_ssize_t
        padded: cython.Py_ssize_t
        wrong: cython.bint = False
        with cython.nogil:
            while row < count:
                at = ats[row]
                size = sizes[row]
                padded = (size + rounding) & ~rounding
                wrong = at + size > end or (blocks and interfaces[row] >= known)
                if wrong or before + padded + behind > room - pos:
                    break
                if not copies:
                    self._put_header(
                        out, pos, times[row], size, wirelens[row], interfaces[row], padded
                    )
                pos += before
                if cython.compiled:
                    memcpy(out + pos, data + at, size)
                else:
                    out[pos : pos + size] = data[at : at + size]
                pos += padded
                if blocks:
                    _put32(out, pos, before + padded + behind)
                    pos += behind
                row += 1
        if wrong:
            raise ValueError("a row is not of this buffer or of these interfaces")
        return row, memoryview(self.out)[:pos]

    @cython.cfunc
    def _make_room(self, size: cython.Py_ssize_t):
        """Let the buffer hold at least one record of `size` bytes."""
        least: cython.Py_ssize_t = size + PCAPNG_AROUND + 3
        if least > len(self.out):
            self.out = memoryview(bytearray(least))

    @cython.cfunc
    @cython.inline
    @cython.exceptval(check=False)
    @cython.nogil
    def _put_header(
        self,
        out: cython.p_uchar,
        pos: cython.Py_ssize_t,
        time_ns: cython.longlong,
        caplen: cython.Py_ssize_t,
        wirelen: cython.uint,
        interface: cython.uint,
        padded: cython.Py_ssize_t,
    ) -> cython.void:
        """What stands before the packet; neither format can say that there is no time."""
        whole: cython.longlong
        if time_ns == _NO_TIMESTAMP:
            time_ns = 0
        if self.form == _PCAP:
            whole = _floor(time_ns, _BILLION)
            _put32(out, pos, whole)
            _put32(out, pos + 4, time_ns - whole * _BILLION)
            _put32(out, pos + 8, caplen)
            _put32(out, pos + 12, wirelen)
        else:
            whole = _floor(time_ns, self.units[interface])
            _put32(out, pos, _BLOCK_TYPE)
            _put32(out, pos + 4, padded + 32)
            _put32(out, pos + 8, interface)
            _put32(out, pos + 12, whole >> 32)
            _put32(out, pos + 16, whole)
            _put32(out, pos + 20, caplen)
            _put32(out, pos + 24, wirelen)
            if padded:
                _put32(out, pos + 24 + padded, 0)  # zeros, where the packet does not reach
