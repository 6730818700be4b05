"""The record scanner: what it makes of a frame, and that both builds make the same of it."""

import struct

import numpy as np
import pytest
from blocks import ENHANCED, enhanced, interface, pcap_header, pcap_record, pieces
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import FRAME, GUEST, HOST, SCANNERS, memory_file, pcap, pcapng, read, read_file
from running import ALL_CAPTURES
from scenario import build_frame

from vsockdump.batch import NO_TIME, PACKET_DTYPE, Layers, Malformed
from vsockdump.capture.interface import Interface, InterfaceTable
from vsockdump.wire import HEADERS, HEADERS_SIZE, LINKTYPE_VSOCK, Op, Transport

RAW_IP = 101
SLL, SLL2 = 113, 276
LONG_AGO, NOW = 0, 1_700_000_000_123_456_789


def sll(arphrd: int = 826) -> bytes:
    """A LINUX_SLL header as the kernel writes it for a vsockmon packet."""
    return struct.pack(">HHH8sH", 4, arphrd, 0, bytes(8), 0)


def sll2(arphrd: int = 826, ifindex: int = 7) -> bytes:
    """A LINUX_SLL2 header as the kernel writes it for a vsockmon packet."""
    return struct.pack(">HHIHBB8s", 0, 0, ifindex, arphrd, 4, 0, bytes(8))


def first(content: bytes, build: str) -> np.void:
    """The first row of a file without damage."""
    result = read(content, build)
    assert result.error is None
    row: np.void = result.rows[0]
    return row


# --- frames ------------------------------------------------------------------------------


def test_headers_become_columns_as_they_are(build: str) -> None:
    """Every field of both headers arrives, with every byte of it."""
    frame = bytes(range(1, 26)) + b"\0\x02\x00\x2c\x00" + bytes(range(31, 101))
    assert (Transport.VIRTIO, 44) == struct.unpack_from("<HH", frame, 26)
    row = first(pcap(frame), build)
    at = 0
    for header in HEADERS:
        for field in header.fields:
            expected = int.from_bytes(frame[at + field.offset :][: field.size], "little")
            assert expected == row[header.name][field.name], field.name
        at += header.size
    assert (Layers.VIRTIO, Malformed.NONE) == (row["layers"], row["malformed"])


def test_the_payload_is_behind_the_transport_header(build: str) -> None:
    """It is found by the length that the monitor header gives, not by a constant."""
    frame = build_frame(GUEST, HOST, Op.RW, b"more payload", mon={"len": 48})
    result = read(pcap(frame), build)
    assert [b" payload"] == result.payloads
    assert (8, 8) == tuple(result.rows[["payload_cap", "payload_wire"]][0])


@pytest.mark.parametrize(
    ("mon", "layers", "malformed", "payload"),
    [
        ({}, Layers.VIRTIO, Malformed.NONE, b"payload"),
        ({"len": 51}, Layers.VIRTIO, Malformed.NONE, b""),
        ({"len": 52}, Layers.VIRTIO, Malformed.SHORT_TRANSPORT, b""),
        ({"len": 0xFFFF}, Layers.VIRTIO, Malformed.SHORT_TRANSPORT, b""),
        ({"len": 43}, Layers.MONITOR, Malformed.TRANSPORT_LENGTH, b"\0payload"),
        ({"len": 0}, Layers.MONITOR, Malformed.TRANSPORT_LENGTH, None),
        ({"t": Transport.NO_INFO, "len": 0}, Layers.MONITOR, Malformed.NONE, None),
        ({"t": Transport.UNKNOWN, "len": 44}, Layers.MONITOR, Malformed.NONE, b"payload"),
        ({"t": 77, "len": 60}, Layers.MONITOR, Malformed.SHORT_TRANSPORT, b""),
        ({"op": 77, "reserved": 77}, Layers.VIRTIO, Malformed.NONE, b"payload"),
    ],
)
def test_monitor_headers_that_lie(
    build: str, mon: dict[str, int], layers: Layers, malformed: Malformed, payload: bytes | None
) -> None:
    """A frame is decoded as far as its lengths allow, and says why not further."""
    frame = build_frame(GUEST, HOST, Op.RW, b"payload", mon=mon)
    result = read(pcap(frame), build)
    row = result.rows[0]
    assert (layers, malformed) == (row["layers"], row["malformed"])
    assert (frame[32:] if payload is None else payload) == result.payloads[0]
    assert row["mon"]["src_cid"] == 3
    assert row["virtio"]["src_cid"] == (3 if layers == Layers.VIRTIO else 0)


def test_a_header_that_lies_inside_is_kept(build: str) -> None:
    """Unknown ops and types, and cids and ports that disagree, are columns and no errors."""
    odd = {"src_cid": 2**64 - 1, "dst_port": 2**32 - 1, "op": 99, "type": 77, "len": 2**32 - 1}
    row = first(pcap(build_frame(GUEST, HOST, Op.RW, b"", virtio=odd)), build)
    assert (Layers.VIRTIO, Malformed.NONE) == (row["layers"], row["malformed"])
    assert odd == {name: int(row["virtio"][name]) for name in odd}
    assert (3, 5000) == (row["mon"]["src_cid"], row["mon"]["dst_port"])


@pytest.mark.parametrize("prefix", [b"", sll(), sll2()], ids=["vsock", "sll", "sll2"])
def test_a_frame_may_end_anywhere(build: str, prefix: bytes) -> None:
    """Whether the frame itself is short or the snaplen cut it is told apart."""
    linktype = {0: LINKTYPE_VSOCK, 16: SLL, 20: SLL2}[len(prefix)]
    packet = prefix + FRAME
    records = [pcap_record("<", packet[:size]) for size in range(len(packet) + 1)]
    cut = [pcap_record("<", packet[:size], wirelen=len(packet)) for size in range(len(packet))]
    result = read(pcap_header(linktype=linktype) + b"".join(records + cut), build)
    assert result.error is None
    sizes = [*range(len(packet) + 1), *range(len(packet))]
    for size, row in zip(sizes, result.rows, strict=True):
        whole = int(row["wirelen"]) == len(packet)
        assert expected_layers(size - len(prefix), whole) == (row["layers"], row["malformed"])


def expected_layers(have: int, whole: bool) -> tuple[Layers, Malformed]:
    """What `have` bytes of a frame give whose whole length, or only they, were sent."""
    if have < 0:
        return Layers.NONE, Malformed.FOREIGN
    if have < 32:
        return Layers.NONE, Malformed.CUT_MONITOR if whole else Malformed.SHORT_MONITOR
    if have < HEADERS_SIZE:
        return Layers.MONITOR, Malformed.CUT_TRANSPORT if whole else Malformed.SHORT_TRANSPORT
    return Layers.VIRTIO, Malformed.NONE


def test_columns_of_what_is_missing_are_zero(build: str) -> None:
    """A short packet shows nothing of the packet whose row it uses next."""
    packets = [FRAME] * 7 + [FRAME[:40]] * 3 + [b""] * 4  # SMALL reads 7 rows at a time
    result = read(pcap(*packets), build)
    zero = np.zeros(1, PACKET_DTYPE)[0]
    assert all(row["virtio"] == zero["virtio"] for row in result.rows[7:])
    assert all(row["mon"] == zero["mon"] for row in result.rows[10:])
    assert [b""] * 7 == result.payloads[7:]


def test_a_packet_longer_than_its_wire(build: str) -> None:
    """The captured bytes count where a record claims that fewer were sent."""
    content = pcap_header() + pcap_record("<", FRAME, wirelen=3)
    result = read(content, build)
    assert (3, len(FRAME)) == (result.rows[0]["wirelen"], result.rows[0]["caplen"])
    assert (Layers.VIRTIO, 7) == (result.rows[0]["layers"], result.rows[0]["payload_wire"])


def test_a_cut_payload(build: str) -> None:
    """Captured and sent bytes of a payload are told apart."""
    content = pcap_header() + pcap_record("<", FRAME[:-3], wirelen=len(FRAME))
    row = first(content, build)
    assert (4, 7, Malformed.NONE) == (row["payload_cap"], row["payload_wire"], row["malformed"])


# --- link types --------------------------------------------------------------------------


@pytest.mark.parametrize(("header", "linktype"), [(sll(), SLL), (sll2(), SLL2)])
def test_cooked_captures_of_any(build: str, header: bytes, linktype: int) -> None:
    """The vsock frame behind a cooked header is decoded if its ARPHRD is vsockmon's."""
    result = read(pcap(header + FRAME, linktype=linktype), build)
    row = result.rows[0]
    assert (Layers.VIRTIO, len(header)) == (row["layers"], row["link_size"])
    assert (7 if linktype == SLL2 else 0) == row["ifindex"]
    assert [b"payload"] == result.payloads
    assert (len(header) + len(FRAME), 3) == (row["caplen"], row["virtio"]["src_cid"])


@pytest.mark.parametrize(
    ("packet", "linktype"),
    [
        (sll(arphrd=1) + FRAME, SLL),
        (sll2(arphrd=1) + FRAME, SLL2),
        (sll2(arphrd=772) + FRAME, SLL2),
        (FRAME, RAW_IP),
        (FRAME, 0),
        (FRAME, 65535),
    ],
)
def test_other_packets_are_not_guessed_at(build: str, packet: bytes, linktype: int) -> None:
    """A packet that is not vsock is a row that says so, whatever its bytes look like."""
    row = first(pcap(packet, linktype=linktype), build)
    assert (Layers.NONE, Malformed.FOREIGN) == (row["layers"], row["malformed"])
    assert (0, 0, len(packet)) == (row["link_size"], row["ifindex"], row["caplen"])
    assert (0, 0) == (row["payload_cap"], row["payload_wire"])


# --- time --------------------------------------------------------------------------------

TICKS = [0, 1, 999, 10**9, NOW, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0]


def nanoseconds(ticks: int, resolution: int, offset: int) -> int:
    """The exact time, rounded down, as 64 bits hold it."""
    power = resolution & 0x7F
    unit: int = 2**power if resolution & 0x80 else 10**power
    time_ns = ticks * 10**9 // unit + offset * 10**9
    return (time_ns + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize("offset", [0, 1_600_000_000, -5, 2**63 - 1, -(2**63)])
def test_every_resolution_of_time(build: str, offset: int) -> None:
    """All 256 values of if_tsresol are exact, from seconds to 10^-127 and 2^-127."""
    interfaces = [interface("<", resolution=power, offset=offset) for power in range(256)]
    pairs = [(power, ticks) for power in range(256) for ticks in TICKS]
    packets = [enhanced("<", b"", ticks, power) for power, ticks in pairs]
    result = read(pcapng(*packets, interfaces=interfaces), build, rows=500, buffer=1 << 16)
    expected = [nanoseconds(ticks, power, offset) for power, ticks in pairs]
    assert expected == result.rows["time_ns"].tolist()


@given(
    ticks=st.integers(0, 2**64 - 1),
    power=st.integers(0, 255),
    offset=st.integers(-(2**63), 2**63 - 1),
)
def test_any_time(ticks: int, power: int, offset: int) -> None:
    """Any tick count in any resolution is exact in both builds."""
    content = pcapng(
        enhanced("<", b"", ticks), interfaces=[interface("<", resolution=power, offset=offset)]
    )
    expected = nanoseconds(ticks, power, offset)
    for build in SCANNERS:
        assert expected == read(content, build).rows["time_ns"][0]


# --- the two builds ----------------------------------------------------------------------


def test_both_builds_read_samples_alike(sample: bytes) -> None:
    """Compiled and uncompiled, every column of every real packet is the same."""
    results = [read(sample, build, rows=100, buffer=4096).plain() for build in SCANNERS]
    assert results[0] == results[1]
    assert results[0][0]


def seeds() -> list[bytes]:
    """Beginnings of captures to damage: real ones, and one with every kind of block."""
    from test_pcapng import every_block

    shipped = [path.read_bytes() for path in ALL_CAPTURES]
    cut = [next(p.end for p in reversed(list(pieces(c))) if p.end <= 3000) for c in shipped]
    small = [content[:end] for content, end in zip(shipped, cut, strict=True)]
    return [*small, every_block("<"), every_block(">"), every_block("<") + every_block(">")]


SEEDS = seeds()
INTERESTING = [0, 1, 2, 3, 5, 6, 0x7F, 0x80, 0xFF]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A capture with some bytes changed, cut out or put in."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content) - 1))
        value = draw(st.sampled_from(INTERESTING) | st.integers(0, 255))
        match draw(st.sampled_from("cccpd")):
            case "c":
                content[at] = value
            case "p":
                content[at:at] = bytes([value]) * draw(st.integers(1, 40))
            case "d":
                del content[at : at + draw(st.integers(1, 40))]
        if not content:
            break
    return bytes(content)


@settings(max_examples=400)
@given(damaged())
def test_damage_is_nothing_but_a_capture_error(content: bytes) -> None:
    """Both builds give the same rows and the same error, which is one sentence."""
    results = [read(content, build) for build in SCANNERS]
    assert results[0].plain() == results[1].plain()
    check_error(results[0].error, results[0].offset, len(content))


@settings(max_examples=200)
@given(
    st.sampled_from([pcap_header(), pcap_header(">"), pcapng(), pcapng(order=">")]),
    st.binary(max_size=300),
)
def test_noise_behind_a_header(header: bytes, noise: bytes) -> None:
    """Random bytes after a good beginning end in an error at a place in the file."""
    content = header + noise
    results = [read(content, build) for build in SCANNERS]
    assert results[0].plain() == results[1].plain()
    check_error(results[0].error, results[0].offset, len(content))


def check_error(error: str | None, offset: int | None, size: int) -> None:
    """An error is a sentence on one line, with an offset inside the file."""
    if error is None:
        return
    assert offset is not None
    assert 0 <= offset <= size
    assert "\n" not in error
    assert error.endswith(".")
    assert ".." not in error


@settings(max_examples=100)
@given(damaged(), st.integers(1, 9), st.integers(24, 5000))
def test_sizes_of_rows_and_buffer_change_nothing(content: bytes, rows: int, buffer: int) -> None:
    """How many rows and bytes are held at a time is not seen in what is read."""
    expected = read(content)
    actual = read(content, rows=rows, buffer=buffer)
    assert expected.plain() == actual.plain()


# --- the scanner as such -----------------------------------------------------------------


def new_scanner(build: str, interfaces: int = 1) -> object:
    """A scanner of 4 rows that knows some vsock interfaces."""
    scanner = SCANNERS[build](np.zeros(4, PACKET_DTYPE))
    scanner.set_interfaces(InterfaceTable().extend([Interface(LINKTYPE_VSOCK)] * interfaces))
    return scanner


@pytest.mark.parametrize(
    "arguments",
    [(-1, 10, 16), (0, 101, 16), (11, 10, 16), (0, 10, 15), (0, 10, -1)],
    ids=["start", "end", "order", "header", "negative header"],
)
def test_places_outside_the_buffer_are_refused(build: str, arguments: tuple[int, int, int]) -> None:
    """A mistake of the caller is an exception and not a read of other memory."""
    pos, end, header = arguments
    scanner = new_scanner(build)
    with pytest.raises(ValueError, match="out of bounds"):
        scanner.pcap(bytes(100), pos, end, 0, 1, False, header)  # type: ignore[attr-defined]
    if header == 16:
        with pytest.raises(ValueError, match="out of bounds"):
            scanner.pcapng(bytes(100), pos, end, 0, 1, False, 0)  # type: ignore[attr-defined]


def test_pcap_needs_an_interface(build: str) -> None:
    """Without one there is no unit of time to read."""
    with pytest.raises(ValueError, match="out of bounds"):
        SCANNERS[build](np.zeros(4, PACKET_DTYPE)).pcap(bytes(100), 0, 100, 0, 1, False, 16)


def test_an_interface_number_near_the_limit(build: str) -> None:
    """Adding the section's first interface to it does not wrap around."""
    for number in (1, 2**31, 2**32 - 1):
        result = read(pcapng(enhanced("<", FRAME), enhanced("<", FRAME, 0, number)), build)
        assert len(result.rows) == 1
        assert f"a packet is of interface {number}, but" in str(result.error)


def test_numbers_and_places_go_on_from_batch_to_batch(build: str) -> None:
    """Packet numbers and record offsets count through the whole file."""
    result = read(pcap(*[FRAME] * 30), build)
    assert list(range(1, 31)) == result.rows["number"].tolist()
    step = 16 + len(FRAME)
    assert list(range(24, 24 + 30 * step, step)) == result.rows["record_offset"].tolist()


def test_a_packet_without_time_is_not_at_zero(build: str) -> None:
    """The mark for an unknown time is none that a time stamp of today gives."""
    assert nanoseconds(0, 6, 0) != NO_TIME
    result = read(pcapng(enhanced("<", FRAME, NOW // 1000)), build)
    assert [NOW // 1000 * 1000] == result.rows["time_ns"].tolist()
    assert ENHANCED == 6


def test_a_file_is_read_by_default_sizes() -> None:
    """The sizes that users get read the same as the small ones of these tests."""
    content = ALL_CAPTURES[0].read_bytes()
    with memory_file(content) as path:
        assert read(content).plain() == read_file(path, content).plain()
