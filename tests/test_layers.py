"""The Scapy layers: same fields as wire.py says, same bytes out as went in, crafting."""

import copy
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.config import conf
from scapy.fields import RawVal
from scapy.layers.inet import IP
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Ether
from scapy.packet import Packet, Padding, Raw, fuzz
from scapy.sendrecv import sniff
from scapy.supersocket import SimpleSocket
from scapy.utils import RawPcapReader, rdpcap, wrpcap, wrpcapng

from vsockdump.batch import header_dtype
from vsockdump.layers import VirtioVSock, VSockMon
from vsockdump.wire import (
    ARPHRD_VSOCKMON,
    HEADERS,
    LINKTYPE_VSOCK,
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
)

CAPTURES = sorted((Path(__file__).parent.parent / "captures").glob("*.pcap*"))
LAYERS: dict[str, type[Packet]] = {VSOCKMON.name: VSockMon, VIRTIO.name: VirtioVSock}
CODES = {2: "H", 4: "I", 8: "Q"}

each_header = pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.name)
each_capture = pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
each_pcap = pytest.mark.parametrize(
    "path", [path for path in CAPTURES if path.suffix == ".pcap"], ids=lambda path: path.name
)


@pytest.fixture(autouse=True)
def errors_are_raised() -> Iterator[None]:
    """Scapy hides a dissector's exceptions behind Raw unless it debugs."""
    before = conf.debug_dissector
    conf.debug_dissector = True
    yield
    conf.debug_dissector = before


def capture(name: str) -> str:
    """Path of a real capture; the test is skipped where it is not there."""
    for path in CAPTURES:
        if path.name == name:
            return str(path)
    pytest.skip(f"captures/{name} is missing")


def rebuilt(packet: Packet) -> bytes:
    """The bytes made from the fields alone, without Scapy's cache of what it read."""
    bare = packet.copy()
    bare.clear_cache()
    return bytes(bare)


def shown(packet: Packet) -> str:
    """What `show` prints."""
    return str(packet.show(dump=True))


def unpacked(header: Header, data: bytes) -> dict[str, Any]:
    """The fields as the struct module reads them."""
    fmt = "<" + "".join(CODES[field.size] for field in header.fields)
    names = [field.name for field in header.fields]
    return dict(zip(names, struct.unpack_from(fmt, data), strict=True))


def field_bytes(size: int) -> st.SearchStrategy[bytes]:
    """Little-endian numbers of `size` bytes, the small and the largest ones often."""
    top = (1 << 8 * size) - 1
    numbers = st.one_of(st.integers(0, 8), st.sampled_from([44, 45, 60, top]), st.integers(0, top))
    return numbers.map(lambda number: number.to_bytes(size, "little"))


def header_bytes(header: Header) -> st.SearchStrategy[bytes]:
    """Headers whose fields hold plausible, odd and impossible values."""
    return st.tuples(*(field_bytes(field.size) for field in header.fields)).map(b"".join)


def frames() -> st.SearchStrategy[bytes]:
    """Frames with both headers and a payload, cut anywhere or not at all."""
    whole = st.tuples(header_bytes(VSOCKMON), header_bytes(VIRTIO), st.binary(max_size=100))
    return st.builds(
        lambda parts, cut: b"".join(parts)[:cut],
        whole,
        st.one_of(st.none(), st.integers(0, VSOCKMON.size + VIRTIO.size + 20)),
    )


def virtio_frame(length: int, payload: bytes, transport: int = VIRTIO.size) -> bytes:
    """A frame with a virtio header of `transport` bytes which says `length` payload bytes."""
    mon = bytearray(VSOCKMON.size)
    struct.pack_into("<HHH", mon, VSOCKMON.offset("op"), 4, 2, transport)
    virtio = bytearray(range(transport))
    struct.pack_into("<IHH", virtio, VIRTIO.offset("len"), length, 1, 5)
    return bytes(mon + virtio) + payload


# --- the fields


@each_header
def test_fields_are_those_of_wire(header: Header) -> None:
    """Names, order and sizes of the Scapy fields are the header table's."""
    fields = LAYERS[header.name].fields_desc[: len(header.fields)]
    assert [(f.name, f.size) for f in header.fields] == [(f.name, f.sz) for f in fields]


@each_header
@given(data=st.data())
def test_struct_dtype_and_scapy_agree(header: Header, data: st.DataObject) -> None:
    """All three decoders read the same numbers from the same bytes."""
    raw = data.draw(
        st.one_of(st.binary(min_size=header.size, max_size=header.size), header_bytes(header))
    )
    expected = unpacked(header, raw)
    row = np.frombuffer(raw, header_dtype(header))[0]
    assert expected == {name: int(row[name]) for name in expected}
    packet = LAYERS[header.name](raw)
    assert expected == {name: packet.getfieldval(name) for name in expected}


@each_header
@given(data=st.data())
def test_encoding_is_the_inverse(header: Header, data: st.DataObject) -> None:
    """Explicit fields are packed as struct packs them."""
    raw = data.draw(header_bytes(header))
    assert raw == bytes(LAYERS[header.name](**unpacked(header, raw)))


@pytest.mark.parametrize(
    ("layer", "name"),
    [(VSockMon, "op"), (VSockMon, "t"), (VirtioVSock, "op"), (VirtioVSock, "type")],
)
def test_enums_take_names_and_numbers(layer: type[Packet], name: str) -> None:
    """A name, its enum member and its number mean the same; unknown numbers are legal."""
    header = VSOCKMON if layer is VSockMon else VIRTIO
    values = next(field.values for field in header.fields if field.name == name)
    for value in values or ():
        for given_as in (value, value.name, int(value)):
            fields: dict[str, Any] = {name: given_as}
            packet = layer(**fields)
            assert int(value) == packet.getfieldval(name)
            assert value.name == packet.get_field(name).i2repr(packet, int(value))
    fields = {name: 99}
    unknown = layer(**fields)
    assert "99" == unknown.get_field(name).i2repr(unknown, 99)
    assert bytes(unknown) == bytes(layer(bytes(unknown)))


# --- any bytes go through


@given(st.one_of(st.binary(max_size=200), frames()))
@example(b"")
@example(bytes(31))
@example(bytes(32))
def test_any_bytes_survive(raw: bytes) -> None:
    """Dissecting never raises, and gives back what it was given, from the fields too."""
    for layer in (VSockMon, VirtioVSock):
        packet = layer(raw)
        assert raw == bytes(packet)
        assert raw == rebuilt(packet)
        assert isinstance(packet.summary(), str)
        assert shown(packet)


@given(frames(), st.sampled_from([CookedLinux, CookedLinuxV2]))
def test_any_bytes_survive_behind_sll(raw: bytes, cooked: type[Packet]) -> None:
    """The same holds for frames in a capture of the `any` interface."""
    whole = bytes(cooked(lladdrtype=ARPHRD_VSOCKMON, proto=0)) + raw
    packet = cooked(whole)
    assert whole == bytes(packet)
    assert whole == rebuilt(packet)
    assert (len(raw) >= VSOCKMON.size) == (VSockMon in packet)


@each_capture
def test_captures_survive(path: Path) -> None:
    """Every packet of a real capture is decoded and rebuilt byte for byte."""
    with RawPcapReader(str(path)) as reader:
        frames_in_file = [frame for frame, _ in reader]
    packets = rdpcap(str(path))
    assert frames_in_file == [bytes(packet) for packet in packets]
    assert frames_in_file == [rebuilt(packet) for packet in packets]
    assert all(VirtioVSock in packet for packet in packets)


@each_pcap
def test_captures_are_read_whole(path: Path) -> None:
    """Scapy's limit of 65535 bytes cuts no frame: the bytes of a pcap file add up."""
    packets = rdpcap(str(path))
    assert path.stat().st_size == 24 + sum(16 + len(packet) for packet in packets)


@each_capture
def test_written_captures_read_back_the_same(path: Path, tmp_path: Path) -> None:
    """wrpcap and rdpcap keep the bytes and the link type."""
    packets = rdpcap(str(path))
    copied = str(tmp_path / "copy.pcap")
    wrpcap(copied, packets)
    assert [bytes(p) for p in packets] == [bytes(p) for p in rdpcap(copied)]
    with RawPcapReader(copied) as reader:
        assert conf.l2types.layer2num[type(packets[0])] == reader.linktype


@each_capture
def test_sniff_offline(path: Path) -> None:
    """sniff(offline=) gives the packets that rdpcap gives, and takes a Python filter."""
    rsts = [p for p in rdpcap(str(path)) if p[VirtioVSock].op == Op.RST]
    sniffed = sniff(offline=str(path), lfilter=lambda p: p[VirtioVSock].op == Op.RST)
    assert [bytes(p) for p in rsts] == [bytes(p) for p in sniffed]


# --- where the transport header ends


@pytest.mark.parametrize("transport", [44, 45, 60, 200])
def test_transport_header_is_skipped_by_len(transport: int) -> None:
    """Bytes of a longer header are `extra`; the payload begins behind them."""
    raw = virtio_frame(4, b"data", transport)
    packet = VSockMon(raw)
    assert bytes(range(transport))[44:] == packet[VirtioVSock].extra
    assert b"data" == packet[Raw].load
    assert Padding not in packet
    assert raw == rebuilt(packet)


@pytest.mark.parametrize("transport", [Transport.UNKNOWN, Transport.NO_INFO, 7])
def test_unknown_transport(transport: int) -> None:
    """Of another transport, `len` bytes are its header and the rest is payload."""
    raw = bytes(VSockMon(t=transport, len=10)) + b"0123456789payload"
    packet = VSockMon(raw)
    assert VirtioVSock not in packet
    assert b"0123456789" == packet.transport
    assert b"payload" == packet[Raw].load


def test_too_short_a_virtio_header() -> None:
    """With `len` less than 44 nothing is taken for a virtio header."""
    raw = bytes(VSockMon(t="VIRTIO", len=43)) + bytes(range(60))
    packet = VSockMon(raw)
    assert VirtioVSock not in packet
    assert bytes(range(43)) == packet.transport
    assert bytes(range(43, 60)) == packet[Raw].load


def test_cut_frames() -> None:
    """A header that is cut is kept as bytes, in the layer below or as Raw."""
    raw = virtio_frame(4, b"data")
    for layer in LAYERS.values():
        assert Raw is layer(raw[:31]).__class__
        assert Raw is layer(b"").__class__
    assert raw[32:75] == VSockMon(raw[:75]).transport
    assert b"da" == VSockMon(raw[:78])[Raw].load


def test_repeated_payload_is_padding() -> None:
    """What the tap repeats beyond hdr.len is Padding, the packet's own bytes are Raw."""
    packet = VSockMon(virtio_frame(4, b"datarepeat"))
    assert b"data" == packet[Raw].load
    assert b"repeat" == packet[Padding].load
    assert 10 == len(rebuilt(packet)) - VSOCKMON.size - VIRTIO.size


def test_repeated_payload_of_linux_6_1() -> None:
    """The four packets that 6.1's tap shows with more than hdr.len bytes are split so."""
    excess = [
        (p[VirtioVSock].len, len(p[Padding].load))
        for p in rdpcap(capture("k61_fakeguest.pcap"))
        if Padding in p and p[VirtioVSock].op == Op.RW
    ]
    assert [4052, 4052, 4052, 4052] == [length for length, _ in excess]
    assert [5948, 1896, 4948, 896] == [extra for _, extra in excess]


# --- crafting


def test_everything_fills_itself_in() -> None:
    """Lengths, transport, outer op and the outer addresses follow from the inner header."""
    inner = VirtioVSock(src_cid=2, dst_cid=2**40, src_port=1234, dst_port=1024, op="RW")
    frame = VSockMon(bytes(VSockMon() / inner / b"data"))
    assert (2, 2**40, 1234, 1024) == (frame.src_cid, frame.dst_cid, frame.src_port, frame.dst_port)
    assert (MonitorOp.PAYLOAD, Transport.VIRTIO, 44) == (frame.op, frame.t, frame.len)
    assert (2, 2**40) == (frame[VirtioVSock].src_cid, frame[VirtioVSock].dst_cid)
    assert 4 == frame[VirtioVSock].len


def test_inner_addresses_come_from_the_outer_ones() -> None:
    """Addresses given to VSockMon alone reach the virtio header, each for itself."""
    frame = VSockMon(bytes(VSockMon(src_cid=3, src_port=5) / VirtioVSock(dst_cid=2, dst_port=6)))
    for layer in (frame, frame[VirtioVSock]):
        assert (3, 2, 5, 6) == tuple(
            layer.getfieldval(name) for name in ("src_cid", "dst_cid", "src_port", "dst_port")
        )


@pytest.mark.parametrize("op", [*Op, 99])
def test_outer_op_follows_inner_op(op: int) -> None:
    """The outer op is the kernel's for every inner op, UNKNOWN for unknown ones."""
    frame = VSockMon(bytes(VSockMon() / VirtioVSock(op=op)))
    assert dict(OUTER_OP).get(op, MonitorOp.UNKNOWN) == frame.op  # type: ignore[call-overload]


def test_without_virtio_header() -> None:
    """A lone monitor header is NO_INFO without a transport header, unless told otherwise."""
    bare = VSockMon(bytes(VSockMon()))
    assert (MonitorOp.UNKNOWN, Transport.NO_INFO, 0) == (bare.op, bare.t, bare.len)
    data = VSockMon(bytes(VSockMon(src_cid=2) / b"data"))
    assert (MonitorOp.PAYLOAD, Transport.NO_INFO, 0) == (data.op, data.t, data.len)
    other = VSockMon(bytes(VSockMon(t=9, transport=b"header") / b"data"))
    assert (9, 6, b"header", b"data") == (other.t, other.len, other.transport, other[Raw].load)
    assert 5 == VSockMon(bytes(VSockMon(len=5) / b"12345data")).len


def test_extra_is_counted_in_len() -> None:
    """A longer virtio header makes the monitor header's `len` longer."""
    frame = VSockMon(bytes(VSockMon() / VirtioVSock(extra=b"future") / b"data"))
    assert 50 == frame.len
    assert b"future" == frame[VirtioVSock].extra
    assert (4, b"data") == (frame[VirtioVSock].len, frame[Raw].load)


def test_crafted_padding_is_not_counted() -> None:
    """The tap's repeat can be crafted: Padding is sent and not part of hdr.len."""
    frame = VSockMon(bytes(VSockMon() / VirtioVSock() / b"data" / Padding(b"repeat")))
    assert (4, b"data", b"repeat") == (frame[VirtioVSock].len, frame[Raw].load, frame[Padding].load)


def test_explicit_values_are_kept() -> None:
    """Whatever is given stays, however wrong, and the headers may contradict each other."""
    outer: dict[str, Any] = {
        "src_cid": 9,
        "dst_cid": 8,
        "src_port": 7,
        "dst_port": 6,
        "op": 77,
        "t": 2,
        "len": 60,
    }
    inner: dict[str, Any] = {
        "src_cid": 1,
        "dst_cid": 0,
        "src_port": 3,
        "dst_port": 4,
        "len": 1000,
        "op": 99,
    }
    raw = bytes(VSockMon(**outer) / VirtioVSock(**inner, type=55) / b"data")
    assert outer | {"reserved": 0} == unpacked(VSOCKMON, raw)
    virtio = unpacked(VIRTIO, raw[VSOCKMON.size :])
    assert inner | {"type": 55} == {name: virtio[name] for name in [*inner, "type"]}
    assert raw == bytes(VSockMon(raw))


def test_raw_values() -> None:
    """Scapy's RawVal puts any bytes in place of a field, and the rest is still filled in."""
    raw = bytes(VSockMon() / VirtioVSock(src_port=RawVal(b"abc"), dst_port=4, op="RST") / b"data")
    assert VSOCKMON.size + VIRTIO.size - 1 + 4 == len(raw)
    mon = unpacked(VSOCKMON, raw)
    assert (0, 4, 44) == (mon["src_port"], mon["dst_port"], mon["len"])
    assert (MonitorOp.DISCONNECT, Transport.VIRTIO) == (mon["op"], mon["t"])
    assert b"abc" == raw[VSOCKMON.size + VIRTIO.offset("src_port") :][:3]
    assert 4 == raw[VSOCKMON.size + VIRTIO.offset("len") - 1]


def test_deleting_makes_automatic_again() -> None:
    """A dissected packet keeps its values when it is changed, except the deleted ones."""
    frame = VSockMon(virtio_frame(4, b"data"))
    frame[VirtioVSock].op = "RST"
    frame[Raw].load = b"longer data"
    assert (MonitorOp.PAYLOAD, 4) == (frame.op, frame[VirtioVSock].len)
    del frame.op
    del frame[VirtioVSock].len
    again = VSockMon(bytes(frame))
    assert (MonitorOp.DISCONNECT, 11) == (again.op, again[VirtioVSock].len)


def test_sets_of_packets() -> None:
    """Scapy's lists and ranges make one packet for each value, each filled in."""
    frames_made = list(VSockMon() / VirtioVSock(op=["REQUEST", "RW"], dst_port=(1, 3)))
    made = [VSockMon(bytes(frame)) for frame in frames_made]
    assert [(MonitorOp.CONNECT, 1), (MonitorOp.PAYLOAD, 1)] * 3 == [
        (frame.op, frame.t - 1) for frame in sorted(made, key=lambda f: (f.dst_port, f.op))
    ]


def test_fuzz() -> None:
    """Scapy's fuzzer works on the layers."""
    for _ in range(50):
        raw = bytes(fuzz(VSockMon() / VirtioVSock() / Raw()))
        assert raw == bytes(VSockMon(raw))


def test_copies() -> None:
    """Copies and pickles have the same bytes and fields."""
    for frame in (
        VSockMon() / VirtioVSock(op="RST", extra=b"x"),
        VSockMon(virtio_frame(4, b"data")),
    ):
        assert bytes(frame) == bytes(copy.deepcopy(frame))
        assert bytes(frame) == bytes(pickle.loads(pickle.dumps(frame)))
        assert bytes(frame) == bytes(eval(frame.command()))


# --- flags


@pytest.mark.parametrize(
    ("fields", "names", "number"),
    [
        ({"op": "SHUTDOWN", "flags": "RCV+SEND"}, "RCV+SEND", 3),
        ({"op": "SHUTDOWN", "flags": Shutdown.SEND}, "SEND", 2),
        ({"op": "RW", "type": "SEQPACKET", "flags": "EOM"}, "EOM", 1),
        ({"op": "RW", "type": "SEQPACKET", "flags": 0xDEADBEEF}, "EOM+EOR+0xdeadbeec", 0xDEADBEEF),
        (
            {"op": "RW", "type": "SEQPACKET", "flags": "EOM+EOR+0xdeadbeec"},
            "EOM+EOR+0xdeadbeec",
            0xDEADBEEF,
        ),
        ({"op": "RW", "type": "STREAM", "flags": "EOR"}, "0x2", 2),
        ({"op": "RST", "flags": ""}, "0", 0),
    ],
)
def test_flags(fields: dict[str, Any], names: str, number: int) -> None:
    """Flags are given and shown by name where they have one, and no bit is lost."""
    packet = VirtioVSock(**fields)
    assert number == packet.flags
    assert f"flags     = {names}\n" in shown(packet)
    again = VirtioVSock(bytes(packet))
    assert number == again.flags
    assert f"flags     = {names}\n" in shown(again)


def test_flag_names_follow_the_op() -> None:
    """Changing the op changes the names of flags that were set before."""
    packet = VirtioVSock(flags=1, type="SEQPACKET", op="RW")
    assert "= EOM\n" in shown(packet)
    packet.op = "SHUTDOWN"
    assert "= RCV\n" in shown(packet)
    assert Seqpacket.EOM == packet.flags


def test_unknown_flag_name() -> None:
    """A misspelt flag says which names there are."""
    with pytest.raises(ValueError, match="no flag is called 'EOF': use RCV, SEND, EOM, EOR or"):
        VirtioVSock(flags="EOM+EOF")


# --- what people see


def test_show_has_names() -> None:
    """show() and show2() name the enums, and hide the parts that are empty."""
    inner = VirtioVSock(src_cid=2, dst_cid=3, src_port=1, dst_port=2, op="RW", type="SEQPACKET")
    frame = VSockMon() / inner / b"x"
    for text in (str(frame.show2(dump=True)), shown(VSockMon(bytes(frame)))):
        for name in ("PAYLOAD", "VIRTIO", "SEQPACKET", "RW", VSOCKMON.title, VIRTIO.title):
            assert name in text
        assert "transport " not in text.replace(VIRTIO.title, "")
        assert "extra" not in text
    assert "extra     = b'more'" in shown(VirtioVSock(extra=b"more"))
    assert "op        = 99\n" in shown(VSockMon(op=99))


def test_summary() -> None:
    """One readable line, also before the packet is built."""
    inner = VirtioVSock(dst_cid=3, src_port=1234, dst_port=1024)
    frame = VSockMon(src_cid=2) / inner / b"hello, world"
    line = "VSockMon / 2:1234 > 3:1024 RW 12 / Raw"
    assert line == frame.summary()
    assert line == VSockMon(bytes(frame)).summary()
    shutdown = VSockMon() / VirtioVSock(op="SHUTDOWN", flags="RCV+SEND")
    assert "VSockMon / 0:0 > 0:0 SHUTDOWN RCV+SEND" == shutdown.summary()
    assert "VSockMon / 0:0 > 0:0 99" == (VSockMon() / VirtioVSock(op=99)).summary()
    several = VirtioVSock(op=["RW", "RST"], dst_port=(1, 3))
    assert "0:0 > 0:(1, 3) ['RW', 'RST']" == several.summary()
    assert "2:0 > 0:0 PAYLOAD NO_INFO / Raw" == (VSockMon(src_cid=2) / b"x").summary()


def frame_of(source: tuple[int, int], destination: tuple[int, int], op: str) -> Packet:
    """A frame from one (cid, port) to another."""
    return VSockMon() / VirtioVSock(
        src_cid=source[0],
        src_port=source[1],
        dst_cid=destination[0],
        dst_port=destination[1],
        op=op,
    )


@pytest.mark.parametrize(
    ("request_op", "answer_op", "expected"),
    [
        ("REQUEST", "RESPONSE", 1),
        ("REQUEST", "RST", 1),
        ("SHUTDOWN", "RST", 1),
        ("CREDIT_REQUEST", "CREDIT_UPDATE", 1),
        ("REQUEST", "RW", 0),
        ("RST", "RESPONSE", 0),
    ],
)
def test_answers(request_op: str, answer_op: str, expected: int) -> None:
    """Ops that answer each other match, from the other end and no other."""
    asked, answer = frame_of((3, 10), (2, 20), request_op), frame_of((2, 20), (3, 10), answer_op)
    assert expected == answer.answers(asked)
    assert asked.hashret() == answer.hashret()
    assert 0 == frame_of((2, 21), (3, 10), answer_op).answers(asked)
    assert 0 == frame_of((3, 10), (2, 20), answer_op).answers(asked)
    assert 0 == (VSockMon() / b"raw").answers(asked)
    assert 0 == answer.answers(VSockMon() / b"raw")


def test_loopback_answers() -> None:
    """A REQUEST from `local` to `host` is answered by `local`."""
    asked, answer = frame_of((1, 10), (2, 20), "REQUEST"), frame_of((1, 20), (1, 10), "RESPONSE")
    assert 1 == answer.answers(asked)


def test_answers_in_a_capture() -> None:
    """PacketList.sr pairs all eight REQUESTs of a real capture with their answers."""
    pairs, _ = rdpcap(capture("k612_refused.pcap")).sr()
    requests = [
        (a[VirtioVSock].op, b[VirtioVSock].op) for a, b in pairs if a[VirtioVSock].op == Op.REQUEST
    ]
    assert 8 == len(requests)
    assert 2 == requests.count((Op.REQUEST, Op.RESPONSE))


# --- registration


def test_registered_types() -> None:
    """Files of 271 and interfaces of 826 are VSockMon; it is written as 271."""
    assert VSockMon is conf.l2types.num2layer[LINKTYPE_VSOCK]
    assert VSockMon is conf.l2types.num2layer[ARPHRD_VSOCKMON]
    assert LINKTYPE_VSOCK == conf.l2types.layer2num[VSockMon]


@pytest.mark.parametrize("cooked", [CookedLinux, CookedLinuxV2])
def test_cooked_frames(cooked: type[Packet]) -> None:
    """VSockMon sets what the kernel sets in a cooked header, and is found by it."""
    frame = cooked(bytes(cooked() / VSockMon() / VirtioVSock(op="RST") / b"data"))
    assert (ARPHRD_VSOCKMON, 0, 4) == (frame.lladdrtype, frame.proto, frame.pkttype)
    assert [cooked, VSockMon, VirtioVSock, Raw] == frame.layers()


@pytest.mark.parametrize("cooked", [CookedLinux, CookedLinuxV2])
@pytest.mark.parametrize("above", [IP(), ARP(), Ether()], ids=["IP", "ARP", "Ether"])
def test_cooked_frames_of_others(cooked: type[Packet], above: Packet) -> None:
    """Other protocols in cooked frames are dissected as before."""
    frame = cooked(bytes(cooked() / above))
    assert type(above) is type(frame.payload)
    assert VSockMon not in frame
    assert VSockMon not in cooked(bytes(cooked(proto=0)) + bytes(80))


def test_cooked_capture() -> None:
    """The real capture of `any` is decoded down to the virtio header."""
    packets = rdpcap(capture("k612_any_sll2.pcap"))
    assert {(CookedLinuxV2, VSockMon, VirtioVSock)} == {tuple(p.layers()) for p in packets}
    assert {SocketType.STREAM, SocketType.SEQPACKET} == {p[VirtioVSock].type for p in packets}


def longest_frame() -> Packet:
    """A frame with the largest payload that vhost carries: more than Scapy's MTU."""
    return VSockMon() / VirtioVSock() / bytes(MAX_FRAME - VSOCKMON.size - VIRTIO.size)


@pytest.mark.parametrize("write", [wrpcap, wrpcapng])
def test_longest_frame_in_files(write: Any, tmp_path: Path) -> None:
    """The longest frame is written, read and sniffed whole."""
    path = str(tmp_path / "long")
    write(path, [longest_frame()])
    assert MAX_FRAME == len(rdpcap(path)[0])
    assert MAX_FRAME == len(sniff(offline=path)[0])


def test_written_snaplen(tmp_path: Path) -> None:
    """The snaplen in a pcap file's header does not cut its frames."""
    path = str(tmp_path / "long.pcap")
    wrpcap(path, [longest_frame()])
    with RawPcapReader(path) as reader:
        assert reader.snaplen >= MAX_FRAME


def test_longest_frame_from_a_socket() -> None:
    """Scapy's sockets receive the longest frame whole."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.send(bytes(longest_frame()))
        received = SimpleSocket(ours, VSockMon).recv()
        assert MAX_FRAME == len(bytes(received or b""))


def test_package_does_not_import_scapy() -> None:
    """`import vsockdump` is cheap: Scapy comes with vsockdump.layers only."""
    code = "import sys, vsockdump; sys.exit('scapy' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
