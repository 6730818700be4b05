"""vsockdump.open(): packets and connections for scripts."""

import json
from pathlib import Path

import pytest
from running import ALL_CAPTURES, CAPTURES, Pcapng, lines, run
from scenario import parse

import vsockdump
from vsockdump.address import Endpoint
from vsockdump.capture.errors import CaptureError
from vsockdump.wire import Op, SocketType


def test_packets_of_a_connection() -> None:
    """Names, addresses, counters and bytes of the first packets of a capture."""
    with vsockdump.open(str(CAPTURES / "k61_fakeguest.pcap")) as capture:
        request, response, data, *_rest = capture
    assert [Op.REQUEST, Op.RESPONSE, Op.RW] == [request.op, response.op, data.op]
    assert (Endpoint(3, 40000), Endpoint(2, 5000)) == (data.src, data.dst)
    assert (SocketType.STREAM, 1, 0, "open") == (data.type, data.conn, data.side, data.state)
    assert (b"hello from a fake guest", 23) == (data.data, data.data_len)
    assert (None, None) == (request.free, request.in_flight)
    assert (23, 23, 262144 - 23) == (data.tx_cnt, data.in_flight, data.free)


@pytest.mark.parametrize("path", ALL_CAPTURES, ids=lambda path: path.name)
def test_connections_are_those_of_the_table(path: Path) -> None:
    """One connection a row of -z conv, after all packets were read or before."""
    with vsockdump.open(str(path)) as capture:
        connections = capture.connections
    rows = run("-r", path, "-z", "conv", "--json").out.splitlines()
    assert list(range(1, len(rows) + 1)) == [one.number for one in connections]
    with vsockdump.open(str(path)) as capture:
        data = [0] * (len(rows) + 1)
        for packet in capture:
            data[packet.conn or 0] += packet.data_len
        assert data[1:] == [sum(one.bytes) for one in capture.connections]


def test_unknown_is_none(tmp_path: Path) -> None:
    """No time, no names: None and plain numbers."""
    path = tmp_path / "simple.pcapng"
    frame = parse("0 3:1 > host:2 99 type=9")[0].frame
    path.write_bytes(Pcapng().section().interface().simple_packet(frame).data)
    with vsockdump.open(str(path)) as capture:
        (packet,) = capture
        (connection,) = capture.connections
    assert (None, 99, 9) == (packet.time_ns, packet.op, packet.type)
    assert (None, None) == (connection.first_ns, connection.last_ns)


def test_damage_comes_after_the_packets_before_it(tmp_path: Path) -> None:
    """The error carries the byte offset."""
    content = (CAPTURES / "k612_refused.pcap").read_bytes()
    path = tmp_path / "cut.pcap"
    path.write_bytes(content[:-1])
    seen = []
    with vsockdump.open(str(path)) as capture, pytest.raises(CaptureError) as caught:
        seen.extend(packet.number for packet in capture)
    assert len(content) - 92 == caught.value.offset


def test_no_capture() -> None:
    """A file that is none raises at once."""
    with pytest.raises(CaptureError, match="not a pcap"):
        vsockdump.open(__file__)


def test_findings() -> None:
    """What -z findings lists, with the same sentences."""
    path = CAPTURES / "k612_shutdowns.pcap"
    listed = [json.loads(line) for line in lines("-r", path, "-z", "findings", "--json")]
    with vsockdump.open(str(path)) as capture:
        found = capture.findings
    names = ("conn", "packet", "time_ns", "times", "severity", "message")
    assert [row["finding"] for row in listed] == [finding.name for finding in found]
    for row, finding in zip(listed, found, strict=True):
        assert [row[name] for name in names] == [getattr(finding, name) for name in names]
