"""-T fields: names, notation, what is empty, and what is refused."""

import struct
from pathlib import Path

import pytest
from running import CAPTURES, Pcapng, Raw, lines, pcap_file, run
from scenario import parse

from vsockdump import wire
from vsockdump.fields import BY_NAME, FIELDS

FAKEGUEST = CAPTURES / "k61_fakeguest.pcap"
SMALL = CAPTURES / "k612_small_buf.pcap"

# What Wireshark 4.0 calls the fields of its vsock dissector.
WIRESHARK_NAMES = {
    "vsock.src_cid",
    "vsock.dst_cid",
    "vsock.src_port",
    "vsock.dst_port",
    "vsock.op",
    "vsock.trans",
    "vsock.trans_len",
    "vsock.reserved",
    "vsock.payload",
    "vsock.virtio.src_cid",
    "vsock.virtio.dst_cid",
    "vsock.virtio.src_prot",
    "vsock.virtio.dst_prot",
    "vsock.virtio.len",
    "vsock.virtio.type",
    "vsock.virtio.op",
    "vsock.virtio.flags",
    "vsock.virtio.buf_alloc",
    "vsock.virtio.fwd_cnt",
}
OTHER_NAMES = {
    "vsock.virtio.src_port",
    "vsock.virtio.dst_port",
    "frame.number",
    "frame.time_epoch",
    "frame.len",
    "frame.cap_len",
    "vsock.conn",
    "vsock.side",
    "vsock.state",
    "vsock.payload_len",
    "vsock.tx_cnt",
    "vsock.credit.free",
    "vsock.credit.inflight",
}


def fields(path: Path, *names: str) -> list[list[str]]:
    """The values of these fields, packet by packet."""
    options = [word for name in names for word in ("-e", name)]
    return [line.split("\t") for line in lines("-r", path, "-T", "fields", *options)]


def pcap(path: Path, text: str) -> Path:
    """A capture of a scenario."""
    path.write_bytes(pcap_file(Raw(p.time_ns, p.frame, p.wirelen) for p in parse(text)))
    return path


def test_promised_names() -> None:
    """All of Wireshark's names and ours exist."""
    assert set() == (WIRESHARK_NAMES | OTHER_NAMES) - set(BY_NAME)


def test_every_header_field_is_there() -> None:
    """No field of the headers is missing."""
    names = {name for header in wire.HEADERS for f in header.fields for name in f.wireshark}
    assert set() == names - set(BY_NAME)


def test_names_are_unique() -> None:
    """A name stands for one field."""
    names = [name for field in FIELDS for name in field.names]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_field_alone(name: str) -> None:
    """Each field prints one value a packet, and it is the one it prints beside others."""
    together = [row[1] for row in fields(SMALL, "frame.number", name, "vsock.op")]
    assert together == [row[0] for row in fields(SMALL, name)]


def test_columns_are_in_the_order_asked_for() -> None:
    """Order and repetition are the user's."""
    rows = fields(SMALL, "frame.len", "frame.number", "frame.len")
    assert ["76", "1", "76"] == rows[0]


def test_header() -> None:
    """-E header=y puts the names on top, as they were given; header=n does not."""
    options = ["-T", "fields", "-e", "vsock.virtio.src_prot", "-e", "frame.number", "-c", "1"]
    plain = lines("-r", SMALL, *options)
    assert plain == lines("-r", SMALL, *options, "-E", "header=n")
    names = "vsock.virtio.src_prot\tframe.number"
    assert [names, *plain] == lines("-r", SMALL, *options, "-E", "header=y")


def test_unknown_name() -> None:
    """A name that is none is a usage error with the nearest name, before reading."""
    for name in ("vsock.scr_cid", "vsock.virtio.srcport", "frame.cap_length"):
        result = run("-r", "/does/not/exist", "-T", "fields", "-e", name)
        assert (2, "") == (result.status, result.out)
        assert result.err.startswith(f"vsockdump: There is no field {name}. Did you mean ")
    result = run("-r", SMALL, "-T", "fields", "-e", "xyzzy")
    assert (
        2,
        "",
        "vsockdump: There is no field xyzzy. vsockdump --list-fields lists them.\n",
    ) == result


def test_list_fields() -> None:
    """--list-fields gives every name with its meaning."""
    rows = [line.split("\t") for line in lines("--list-fields")]
    assert list(BY_NAME) == [row[0] for row in rows]
    assert all(len(row) == 2 and row[1] for row in rows)


def test_unknown_is_empty(tmp_path: Path) -> None:
    """Fields of a header that is not there, and what the tracker cannot know, are empty."""
    text = """
        0 3:1 > host:2 RW 9
        0 3:1 > host:2 RW 9 mon.t=1 mon.len=0
        0 3:1 > host:2 RW 9 cap=20
    """
    names = ("vsock.virtio.len", "vsock.tx_cnt", "vsock.credit.free", "vsock.src_cid", "vsock.conn")
    assert [
        ["9", "", "", "3", "1"],
        ["", "", "", "3", ""],
        ["", "", "", "", ""],
    ] == fields(pcap(tmp_path / "unknown.pcap", text), *names)


def test_a_packet_without_time_has_none(tmp_path: Path) -> None:
    """frame.time_epoch is empty and not 1970."""
    frame = parse("0 3:1 > host:2 RW")[0].frame
    path = tmp_path / "simple.pcapng"
    path.write_bytes(Pcapng().section().interface().simple_packet(frame).data)
    assert [["1", "", ""]] == fields(path, "frame.number", "frame.time_epoch", "frame.time_ns")


def test_largest_values(tmp_path: Path) -> None:
    """All bits of every field are shown."""
    frame = bytearray(parse("0 3:1 > host:2 RW")[0].frame)
    frame[:26], frame[30:76] = b"\xff" * 26, b"\xff" * 46
    struct.pack_into("<HH", frame, 26, 2, 44)
    path = tmp_path / "large.pcap"
    path.write_bytes(pcap_file([Raw(0, bytes(frame), len(frame))]))
    largest = {2: "65535", 4: "4294967295", 8: "18446744073709551615"}
    expected = {
        f.wireshark[-1]: {"dec": largest.get(f.size), "hex": "0xffffffff", "bytes": "ffff"}[f.show]
        for header in wire.HEADERS
        for f in header.fields
        if f.name not in ("t",) and (header, f.name) != (wire.VSOCKMON, "len")
    }
    assert list(expected.values()) == fields(path, *expected)[0]


def test_payload_and_data(tmp_path: Path) -> None:
    """vsock.payload is what the frame carries, vsock.data what the application sent."""
    text = """
        0 host:1 > 3:2 REQUEST
        0 host:1 < 3:2 RESPONSE
        0 host:1 > 3:2 RW "abc" wire=+2
        0 host:1 > 3:2 RW 2
    """
    path = pcap(tmp_path / "repeat.pcap", text)
    (_, _, first, second) = fields(path, "vsock.payload", "vsock.data", "vsock.payload_len")
    assert ("616263" + second[1], "616263", "3") == tuple(first)
    assert (second[1], second[1], "2") == tuple(second)


def test_words_of_ours() -> None:
    """Side, state and marks are words; marks are separated by commas."""
    rows = fields(FAKEGUEST, "vsock.side", "vsock.state", "vsock.marks")
    sides, states, marks = (set(column) for column in zip(*rows, strict=True))
    assert {"initiator", "acceptor", ""} == sides
    assert {"connecting", "open", "closed", "refused", "closing"} <= states
    assert {"no socket,refused", "unknown type,type changed"} <= marks
