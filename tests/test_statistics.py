"""The statistics, recomputed from the packets that --json prints."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from running import ALL_CAPTURES, CAPTURES, run

captures = pytest.mark.parametrize("capture", ALL_CAPTURES, ids=lambda path: path.name)
SECOND = 10**9


def objects(capture: Path, *arguments: str) -> list[dict[str, Any]]:
    """The JSON lines of a run."""
    return [json.loads(line) for line in run("-r", capture, "--json", *arguments).out.splitlines()]


def sides(capture: Path) -> dict[int, list[list[dict[str, Any]]]]:
    """Packets by connection, those of the initiator (or whoever came first), then the others."""
    found: dict[int, list[list[dict[str, Any]]]] = {}
    ends: dict[int, int] = {}
    for packet in objects(capture):
        vsock = packet["vsock"]
        if vsock["conn"] is None:
            continue
        port = vsock["virtio"]["src_port"]
        number = vsock["conn"]
        first_is_acceptor = vsock["side"] == "acceptor"
        if number not in ends:
            ends[number] = vsock["virtio"]["dst_port"] if first_is_acceptor else port
            found[number] = [[], []]
        found[number][port != ends[number]].append(packet)
    return found


@captures
def test_conversations(capture: Path) -> None:
    """Packets, bytes, smallest free credit, first and last packet, and the final state."""
    rows = {row["conn"]: row for row in objects(capture, "-z", "conv")}
    packets = sides(capture)
    assert sorted(packets) == sorted(rows)
    for number, (forth, back) in packets.items():
        row, both = rows[number], sorted(forth + back, key=lambda p: p["frame"]["number"])
        assert [len(forth), len(back)] == row["packets"]
        sent = [sum(p["vsock"]["payload_len"] for p in side) for side in (forth, back)]
        assert sent == row["bytes"]
        first, last = both[0]["frame"], both[-1]["frame"]
        assert (first["number"], last["number"]) == (row["first_packet"], row["last_packet"])
        assert last["time_ns"] - first["time_ns"] == row["duration_ns"]
        if row["state"] != "timed-out":  # what time tells is not in any packet
            assert both[-1]["vsock"]["state"] == row["state"]
        for least, side in zip(row["min_free"], (forth, back), strict=True):
            after_data = [
                p["vsock"]["credit"]["free"]
                for p in side
                if p["vsock"]["virtio"]["op_name"] == "RW" and p["vsock"]["tx_cnt"] is not None
            ]
            if after_data:
                assert least <= min(free for free in after_data if free is not None)


@captures
def test_endpoints(capture: Path) -> None:
    """Every packet is sent by one end and received by another."""
    rows = objects(capture, "-z", "endpoints")
    tracked = [p for p in objects(capture) if p["vsock"]["conn"] is not None]
    data = sum(p["vsock"]["payload_len"] for p in tracked)
    for way in ("sent", "received"):
        assert len(tracked) == sum(row[f"packets_{way}"] for row in rows)
        assert data == sum(row[f"bytes_{way}"] for row in rows)


@pytest.mark.parametrize("interval", ["0.01", "0.5", "3"])
@captures
def test_intervals(capture: Path, interval: str) -> None:
    """Each packet is counted in its interval; empty ones are there too."""
    rows = objects(capture, "-z", f"io,{interval}")
    packets = objects(capture)
    width = int(float(interval) * SECOND)
    start = packets[0]["frame"]["time_ns"]
    counts: Counter[int] = Counter()
    data: defaultdict[int, int] = defaultdict(int)
    for packet in packets:
        index = (packet["frame"]["time_ns"] - start) // width
        counts[index] += 1
        data[index] += packet["vsock"]["payload_len"]
    assert [index * width for index in range(max(counts) + 1)] == [row["from_ns"] for row in rows]
    assert [counts[index] for index in range(len(rows))] == [row["packets"] for row in rows]
    assert [data[index] for index in range(len(rows))] == [row["data_bytes"] for row in rows]


@captures
def test_credit(capture: Path) -> None:
    """Bytes and stalls of a direction are those of -z conv; windows lie within the bounds."""
    rows = {(row["conn"], row["sender"]): row for row in objects(capture, "-z", "credit")}
    for row in objects(capture, "-z", "conv"):
        for side, name in enumerate(("initiator", "acceptor")):
            credit = rows.get((row["conn"], name))
            if credit is None:
                assert 0 == row["bytes"][side]
                continue
            assert row["bytes"][side] == credit["bytes"]
            assert row["stalls"][side] == len(credit["stalls"])
            assert row["stalled_ns"][side] == sum(end - start for start, end in credit["stalls"])
            frees = [free for _time, _buffer, _flight, free in credit["window"]]
            if frees:
                assert row["min_free"][side] == min(frees)


def test_the_stall_of_the_sleeping_reader() -> None:
    """262144 bytes in flight, a second and a half without credit."""
    (row,) = objects(CAPTURES / "k612_bulk_stall.pcap", "-z", "credit")
    ((start, end),) = row["stalls"]
    assert (0, 262144) == (row["min_free"], row["max_in_flight"])
    assert 15 == round((end - start) / SECOND * 10)
