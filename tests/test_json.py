"""--json: the keys, and that its values are those of -T fields and of the bytes themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
from running import ALL_CAPTURES, CAPTURES, Pcapng, Raw, lines, packets_of, pcap_file
from scenario import parse

from vsockdump import wire
from vsockdump.fields import BY_NAME

# The documented keys, in the order of the line; the README explains them.
KEYS = """
frame.number frame.time_ns frame.len frame.cap_len frame.interface_id
vsock.src_cid vsock.dst_cid vsock.src_port vsock.dst_port
vsock.op vsock.op_name vsock.trans vsock.trans_name vsock.trans_len vsock.reserved
vsock.virtio.src_cid vsock.virtio.dst_cid vsock.virtio.src_port vsock.virtio.dst_port
vsock.virtio.len vsock.virtio.type vsock.virtio.type_name vsock.virtio.op vsock.virtio.op_name
vsock.virtio.flags vsock.virtio.flag_names vsock.virtio.buf_alloc vsock.virtio.fwd_cnt
vsock.conn vsock.side vsock.state vsock.payload_len vsock.tx_cnt
vsock.credit.inflight vsock.credit.free vsock.credit.granted vsock.marks
vsock.app.protocol vsock.app.messages
""".split()

captures = pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)


def flat(value: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested objects as dotted names."""
    found = {}
    for key, inner in value.items():
        name = f"{path}{key}"
        found.update(flat(inner, f"{name}.") if isinstance(inner, dict) else {name: inner})
    return found


def packets(path: Path, *options: str) -> list[dict[str, Any]]:
    """The objects of all lines, flat."""
    return [flat(json.loads(line)) for line in lines("-r", path, "--json", *options)]


def pcap(path: Path, text: str) -> Path:
    """A capture of a scenario."""
    path.write_bytes(pcap_file(Raw(p.time_ns, p.frame, p.wirelen) for p in parse(text)))
    return path


@captures
def test_keys_and_values(capture: Path) -> None:
    """Every line has the same keys in the same order, with the values of -T fields."""
    found = packets(capture)
    assert {tuple(KEYS)} == {tuple(packet) for packet in found}
    names = [name for name in KEYS if name in BY_NAME and name != "vsock.marks"]
    options = [word for name in names for word in ("-e", name)]
    rows = [line.split("\t") for line in lines("-r", capture, "-T", "fields", *options)]
    shown = [[_as_field(name, packet[name]) for name in names] for packet in found]
    assert rows == shown


def _as_field(name: str, value: Any) -> str:
    """A JSON value in the notation of -T fields."""
    if value is None:
        return ""
    return f"{value:#010x}" if name == "vsock.virtio.flags" else str(value)


@captures
def test_names_are_those_of_the_numbers(capture: Path) -> None:
    """*_name and *_names say what wire.py says."""
    enums = {
        "vsock.op": wire.MonitorOp,
        "vsock.trans": wire.Transport,
        "vsock.virtio.type": wire.SocketType,
        "vsock.virtio.op": wire.Op,
    }
    for packet in packets(capture):
        for name, values in enums.items():
            known = packet[name] in set(values)
            assert (values(packet[name]).name if known else None) == packet[f"{name}_name"]
        flags = [packet[f"vsock.virtio.{name}"] for name in ("op", "type", "flags")]
        assert wire.flag_names(*flags) == packet["vsock.virtio.flag_names"]


def test_unknown_is_null(tmp_path: Path) -> None:
    """What was not read, or is not known, is null, and lists are empty."""
    text = """
        0 3:1 > host:2 RW 9 mon.op=9 mon.t=77
        0 3:1 > host:2 99 type=9
        0 3:1 > host:2 RW 9 cap=20
    """
    foreign, unknown, cut = packets(pcap(tmp_path / "unknown.pcap", text))
    lists = {"vsock.app.messages", "vsock.virtio.flag_names", "vsock.marks"}
    nulls = {name for name in KEYS if name.startswith("vsock.")} - lists
    assert nulls == {name for name, value in cut.items() if value is None}
    assert [[], ["headers cut"], []] == [cut[name] for name in sorted(lists, reverse=True)]
    assert [9, None, 77, None] == [
        foreign[f"vsock.{name}"] for name in ("op", "op_name", "trans", "trans_name")
    ]
    assert [9, None, 99, None] == [
        unknown[f"vsock.virtio.{name}"] for name in ("type", "type_name", "op", "op_name")
    ]


def test_no_time_is_null(tmp_path: Path) -> None:
    """A packet without a time stamp."""
    frame = parse("0 3:1 > host:2 RW")[0].frame
    path = tmp_path / "simple.pcapng"
    path.write_bytes(Pcapng().section().interface().simple_packet(frame).data)
    assert [None] == [packet["frame.time_ns"] for packet in packets(path)]


@pytest.mark.parametrize("name", ["k61_fakeguest.pcap", "k612_bulk_stall.pcap"])
def test_data(name: str) -> None:
    """-x adds the application's bytes: the first `len` of the payload in these captures."""
    raw = packets_of((CAPTURES / name).read_bytes())
    expected = []
    for packet in raw:
        size = int.from_bytes(packet.data[56:60], "little")
        op = int.from_bytes(packet.data[62:64], "little")
        expected.append(packet.data[76 : 76 + size].hex() if op == wire.Op.RW else "")
    found = packets(CAPTURES / name, "-x")
    assert expected == [packet["vsock.data"] for packet in found]
    assert {(*KEYS[:-2], "vsock.data", *KEYS[-2:])} == {tuple(packet) for packet in found}


def test_dash_t_json_is_the_same() -> None:
    """-T json, as tshark calls it, is --json."""
    capture = CAPTURES / "k612_refused.pcap"
    assert lines("-r", capture, "--json") == lines("-r", capture, "-T", "json")


def test_large_numbers_are_exact(tmp_path: Path) -> None:
    """64-bit CIDs are written as numbers, all digits of them."""
    path = pcap(tmp_path / "large.pcap", "0 18446744073709551615:4294967295 > 5:0 RW")
    (packet,) = packets(path)
    assert [2**64 - 1, 2**32 - 1] == [packet["vsock.src_cid"], packet["vsock.src_port"]]
