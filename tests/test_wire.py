"""The header tables agree with the kernel's structs, and names never fail."""

import struct
from enum import IntFlag

import pytest

from vsockdump.wire import (
    HEADERS,
    HEADERS_SIZE,
    MAX_FRAME,
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
    flags_of,
    name_of,
)

# Written down from the C declarations, not from wire.py: this is the second opinion.
C_STRUCTS = [(VSOCKMON, "<QQIIHHHH"), (VIRTIO, "<QQIIIHHIII")]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.name)
def test_no_gaps(header: Header) -> None:
    """Each field begins where the one before it ends, from 0 to the header's size."""
    end = 0
    for field in header.fields:
        assert end == field.offset
        end += field.size
    assert end == header.size


@pytest.mark.parametrize(("header", "fmt"), C_STRUCTS, ids=["mon", "virtio"])
def test_layout_is_the_c_struct(header: Header, fmt: str) -> None:
    """Size and order of the fields are those of the packed C struct."""
    assert struct.calcsize(fmt) == header.size
    codes = {2: "H", 4: "I", 8: "Q"}
    assert fmt == "<" + "".join(codes[field.size] for field in header.fields)


def test_sizes() -> None:
    """The headers have 32 and 44 bytes, and the longest frame 65612."""
    assert (32, 44) == (VSOCKMON.size, VIRTIO.size)
    assert 76 == HEADERS_SIZE
    assert 65612 == MAX_FRAME


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.name)
def test_names_are_unique(header: Header) -> None:
    """No two fields of a header share a name, ours or Wireshark's."""
    names = [field.name for field in header.fields]
    assert len(names) == len(set(names))
    wireshark = [name for field in header.fields for name in field.wireshark]
    assert len(wireshark) == len(set(wireshark))


def test_enum_values_fit_their_fields() -> None:
    """Every enum value can be stored in the field it is for."""
    for header in HEADERS:
        for field in header.fields:
            for value in field.values or ():
                assert value < 1 << 8 * field.size


def test_offset() -> None:
    """`offset` finds a field, and says which header lacks one."""
    assert 24 == VSOCKMON.offset("op")
    assert 30 == VIRTIO.offset("op")
    with pytest.raises(KeyError, match="virtio has no field 'reserved'"):
        VIRTIO.offset("reserved")


def test_outer_op() -> None:
    """The tap's outer ops are the kernel's, and INVALID has none."""
    expected = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 3, 7: 3}
    assert expected == OUTER_OP
    assert set(Op) - {Op.INVALID} == set(OUTER_OP)
    assert set(MonitorOp) - {MonitorOp.UNKNOWN} == set(OUTER_OP.values())


def test_name_of() -> None:
    """Names where there are some, the number where there are none."""
    assert "RW" == name_of(Op, 5)
    assert "NO_INFO" == name_of(Transport, 1)
    assert "DGRAM" == name_of(SocketType, 3)
    assert "unknown (99)" == name_of(Op, 99)
    assert "unknown (-1)" == name_of(Op, -1)


@pytest.mark.parametrize(
    ("op", "socket_type", "expected"),
    [
        (Op.SHUTDOWN, SocketType.STREAM, Shutdown),
        (Op.SHUTDOWN, SocketType.SEQPACKET, Shutdown),
        (Op.SHUTDOWN, 77, Shutdown),
        (Op.RW, SocketType.SEQPACKET, Seqpacket),
        (Op.RW, SocketType.STREAM, None),
        (Op.RW, SocketType.DGRAM, None),
        (Op.RST, SocketType.SEQPACKET, None),
        (99, 99, None),
    ],
)
def test_flags_of(op: int, socket_type: int, expected: type[IntFlag] | None) -> None:
    """Flags are defined for SHUTDOWN of any type and for RW of SEQPACKET only."""
    assert expected is flags_of(op, socket_type)


@pytest.mark.parametrize(
    ("op", "socket_type", "flags", "expected"),
    [
        (Op.SHUTDOWN, SocketType.STREAM, 0, []),
        (Op.SHUTDOWN, SocketType.STREAM, 1, ["RCV"]),
        (Op.SHUTDOWN, SocketType.STREAM, 3, ["RCV", "SEND"]),
        (Op.RW, SocketType.SEQPACKET, 2, ["EOR"]),
        (Op.RW, SocketType.SEQPACKET, 0xDEADBEEF, ["EOM", "EOR", "0xdeadbeec"]),
        (Op.RW, SocketType.STREAM, 3, ["0x3"]),
        (99, 99, 0x80000000, ["0x80000000"]),
    ],
)
def test_flag_names(op: int, socket_type: int, flags: int, expected: list[str]) -> None:
    """Set flags by name in bit order, the bits without a name together in hex."""
    assert expected == flag_names(op, socket_type, flags)
