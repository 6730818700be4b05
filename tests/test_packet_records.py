"""The record writer against the struct module, compiled and as Python runs its source."""

import struct
from typing import Any, NamedTuple

import numpy as np
import pytest
from builds import uncompiled
from hypothesis import given
from hypothesis import strategies as st

import vsockdump.output.packet_records as installed
from vsockdump.batch import NO_TIME, PACKET_DTYPE, Rows
from vsockdump.output.packet_records import PCAP_AROUND, PCAPNG_AROUND, Form

MODULES: dict[str, Any] = {"installed": installed, "source": uncompiled("output.packet_records")}
UNITS = (1, 1000, 1)  # nanoseconds of a tick of interfaces 0, 1 and 2

builds = pytest.mark.parametrize("build", sorted(MODULES))
forms = pytest.mark.parametrize("form", [Form.PCAP, Form.PCAPNG])


class Packet(NamedTuple):
    """A packet, and how many other bytes lie before it in the buffer."""

    time_ns: int
    data: bytes
    wirelen: int
    interface: int
    gap: int


PACKETS = st.lists(
    st.builds(
        Packet,
        st.integers(-(2**63), 2**63 - 1)
        | st.integers(0, 2**61)
        | st.sampled_from([NO_TIME, 0, -1, -1000, 999_999_999, 10**9]),
        st.binary(max_size=90),
        st.integers(0, 2**32 - 1),
        st.integers(0, len(UNITS) - 1),
        st.integers(0, 9),
    ),
    max_size=20,
)


def batch(packets: list[Packet]) -> tuple[Rows, bytes]:
    """Rows, and the buffer that they point into; records begin one byte before a packet."""
    rows = np.zeros(len(packets), PACKET_DTYPE)
    buffer = b""
    for row, packet in zip(rows, packets, strict=True):
        buffer += b"\xee" * (packet.gap + 1)
        row["packet_at"], row["caplen"] = len(buffer), len(packet.data)
        row["record_at"], row["record_len"] = len(buffer) - 1, 1 + len(packet.data)
        row["time_ns"], row["wirelen"] = packet.time_ns, packet.wirelen
        row["interface"] = packet.interface
        buffer += packet.data
    return rows, buffer


def written(build: str, form: Form, rows: Rows, buffer: bytes, room: int = 100) -> list[bytes]:
    """The pieces in which the writer gives its records."""
    writer = MODULES[build].RecordWriter(int(form), room)
    writer.set_units(UNITS)
    pieces, row = [], 0
    while row < len(rows):
        before = row
        row, records = writer.write(rows, buffer, row)
        assert row > before
        pieces.append(bytes(records))
    return pieces


def pcap_record(packet: Packet) -> bytes:
    """A pcap record as the format describes it."""
    seconds, nanos = divmod(0 if packet.time_ns == NO_TIME else packet.time_ns, 10**9)
    sizes = len(packet.data), packet.wirelen
    return struct.pack("<IIII", seconds % 2**32, nanos, *sizes) + packet.data


def block(packet: Packet) -> bytes:
    """An enhanced packet block as the format describes it."""
    time_ns = 0 if packet.time_ns == NO_TIME else packet.time_ns
    high, low = divmod(time_ns // UNITS[packet.interface] % 2**64, 2**32)
    sizes = len(packet.data), packet.wirelen
    body = struct.pack("<IIIII", packet.interface, high, low, *sizes)
    body += packet.data + bytes(-len(packet.data) % 4)
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", 6) + size + body + size


@builds
@forms
@given(packets=PACKETS)
def test_records(build: str, form: Form, packets: list[Packet]) -> None:
    """Every packet becomes the record that struct makes; pieces hold whole ones."""
    records = [pcap_record(packet) if form == Form.PCAP else block(packet) for packet in packets]
    around = PCAP_AROUND if form == Form.PCAP else PCAPNG_AROUND
    rows, buffer = batch(packets)
    pieces = written(build, form, rows, buffer)
    assert b"".join(records) == b"".join(pieces)
    ends = set(np.cumsum([len(record) for record in records]).tolist())
    assert set(np.cumsum([len(piece) for piece in pieces]).tolist()) <= ends
    assert all(len(record) >= around for record in records)


@builds
@given(packets=PACKETS, chosen=st.lists(st.integers(0, 19)))
def test_copies(build: str, packets: list[Packet], chosen: list[int]) -> None:
    """Records are copied as they are, in the order of the rows, whatever interface they name."""
    rows, buffer = batch(packets)
    rows["interface"] += 7
    rows = rows[[index for index in chosen if index < len(rows)]]
    expected = [
        buffer[at : at + size]
        for at, size in zip(rows["record_at"], rows["record_len"], strict=True)
    ]
    assert b"".join(expected) == b"".join(written(build, Form.COPY, rows, buffer))


@builds
@forms
def test_a_packet_larger_than_the_output_buffer(build: str, form: Form) -> None:
    """It is given whole, and what was used before stays out of it."""
    packets = [Packet(1, b"a" * size, size, 0, 0) for size in (5, 3001, 2)]
    make = pcap_record if form == Form.PCAP else block
    rows, buffer = batch(packets)
    expected = b"".join(make(packet) for packet in packets)
    assert expected == b"".join(written(build, form, rows, buffer, 40))


@builds
def test_padding_is_zero(build: str) -> None:
    """Nothing of the records before shines through."""
    packets = [Packet(1, b"\xff" * size, size, 0, 0) for size in range(40, 0, -1)]
    rows, buffer = batch(packets)
    expected = [block(packet) for packet in packets]
    assert b"".join(expected) == b"".join(written(build, Form.PCAPNG, rows, buffer, 128))


@builds
@forms
def test_rows_of_another_buffer(build: str, form: Form) -> None:
    """A row that points outside the buffer is refused, however it does so."""
    rows, buffer = batch([Packet(1, b"12345678", 8, 0, 0)])
    for at, size in ((2, 8), (len(buffer), 1), (2**32 - 1, 2**32 - 1), (1, 2**32 - 1)):
        rows["packet_at"], rows["caplen"] = at, size
        with pytest.raises(ValueError, match="not of this buffer"):
            written(build, form, rows, buffer)


@builds
def test_an_unknown_interface(build: str) -> None:
    """A block of an interface without units cannot be written."""
    rows, buffer = batch([Packet(1, b"1", 1, 0, 0)])
    rows["interface"] = len(UNITS)
    with pytest.raises(ValueError, match="of these interfaces"):
        written(build, Form.PCAPNG, rows, buffer)
    assert [pcap_record(Packet(1, b"1", 1, 0, 0))] == written(build, Form.PCAP, rows, buffer)


@builds
@forms
def test_no_rows(build: str, form: Form) -> None:
    """Nothing, also from an empty buffer."""
    writer = MODULES[build].RecordWriter(int(form))
    row, records = writer.write(np.zeros(0, PACKET_DTYPE), b"", 0)
    assert (0, b"") == (row, bytes(records))
